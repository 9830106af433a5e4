"""What a script finds when it looks for a way out."""

from __future__ import annotations

import json
import time

import pytest

from tests.contracts.sandbox_driver import printed, python, said, sh
from workers.sandbox.base import Outcome

SMALL_FOLDERS = ("/dev/shm", "/run/aos", "/tmp")  # noqa: S108 - of the sandbox

pytestmark = pytest.mark.docker


def test_there_is_no_network(sandbox):
    told = said(
        sandbox,
        python(
            "import json, os, socket\n"
            "def tried(address):\n"
            "    try: socket.create_connection(address, timeout=3)\n"
            "    except OSError as error: return type(error).__name__ + str(error.errno)\n"
            "    return 'connected'\n"
            "print(json.dumps({'links': os.listdir('/sys/class/net'),\n"
            "  'out': tried(('192.0.2.1', 80)), 'host': tried(('172.17.0.1', 22)),\n"
            "  'metadata': tried(('169.254.169.254', 80)), 'name': tried(('example.com', 80))}))"
        ),
    )

    found = json.loads(told)
    assert found["links"] == ["lo"]
    assert found["out"] == found["host"] == found["metadata"] == "OSError101"  # unreachable
    assert found["name"].startswith("gaierror")


def test_it_runs_as_nobody_in_particular(sandbox):
    assert said(sandbox, sh("id -u; id -g; id -G")).split() == ["10001", "10001", "10001"]


def test_it_has_no_capability_and_cannot_gain_a_privilege(sandbox):
    lines = dict(
        line.split(":\t", 1) for line in said(sandbox, sh("cat /proc/self/status")).splitlines()
    )

    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(lines[kind], 16) == 0
    assert lines["NoNewPrivs"] == "1"
    assert lines["Seccomp"] == "2"


def test_no_program_lends_its_owners_rights(sandbox):
    execution = sandbox.run(sh("find / -xdev -perm /6000 -type f 2>/dev/null"))

    assert printed(execution) == b""


def test_only_memory_of_its_own_can_be_written(sandbox):
    told = said(
        sandbox,
        python(
            "import os\n"
            "def writable(path):\n"
            "    name = os.path.join(path, 'probe')\n"
            "    try: os.close(os.open(name, os.O_CREAT | os.O_WRONLY)); os.unlink(name)\n"
            "    except OSError: return False\n"
            "    return True\n"
            "for path, folders, _ in os.walk('/'):\n"
            "    if path == '/': folders[:] = [f for f in folders if f not in ('proc', 'sys')]\n"
            "    if writable(path): print(path)\n"
        ),
    )

    assert sorted(told.split()) == [
        "/dev/mqueue",
        *SMALL_FOLDERS,
        "/workspace",
        "/workspace/out",
    ]


def test_its_supervisor_and_its_image_cannot_be_changed(sandbox):
    for path in ("/opt/aos/sbx.py", "/etc/passwd", "/usr/bin/python3", "/bin/sh"):
        assert sandbox.run(sh(f"echo x >> {path}")).wait().outcome == Outcome.FAILED


def test_programs_cannot_be_started_from_temporary_folders(sandbox):
    for folder in SMALL_FOLDERS:
        execution = sandbox.run(sh(f"cp /bin/true {folder}/t && {folder}/t"))
        assert (execution.wait().outcome, execution.exit.code) == (Outcome.FAILED, 126)


@pytest.mark.parametrize(
    "attempt",
    [
        "libc.unshare(0x10000000)",  # a user namespace
        "libc.unshare(0x00020000)",  # a mount namespace
        "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)",
        "libc.chroot(b'/workspace')",
        "libc.mknod(b'/workspace/disk', 0o60666, 0x0800)",
        "libc.setuid(0)",
        "libc.ptrace(16, os.getppid(), 0, 0)",  # its supervisor
        "libc.syscall(246, 0, 0, 0, 0)",  # kexec_load
        "libc.syscall(321, 0, 0, 0)",  # bpf
        "libc.syscall(250, 0, 0, 0, 0, 0)",  # keyctl
    ],
)
def test_the_kernel_refuses(sandbox, attempt):
    told = said(
        sandbox,
        python(
            "import ctypes, os; libc = ctypes.CDLL(None, use_errno=True)\n"
            f"print({attempt}, ctypes.get_errno())"
        ),
    )

    assert told == "-1 1\n"  # EPERM


def test_there_is_no_way_to_the_engine(sandbox):
    assert said(sandbox, sh("find / -xdev -type s 2>/dev/null; ls /var/run/docker.sock || :")) == ""


def test_commands_cannot_look_into_their_supervisor(sandbox):
    for part in ("environ", "mem", "maps", "fd/0", "fd/1"):
        execution = sandbox.run(
            sh(f"head -c 1 /proc/$PPID/{part} || exit 7; echo > /proc/$PPID/fd/1")
        )
        assert execution.wait().code == 7, part


def test_the_worker_gives_it_nothing_that_others_can_see(sandbox, engine, container_of):
    canary = "canary-6c1f0f1e"
    sandbox.put_files({"in/secret": canary.encode()})
    said(sandbox, sh(f"cat in/secret; echo {canary}", env={"SECRET": canary}))

    name = container_of(sandbox.id)
    events = engine.get(
        f"{engine.base_url}/v{engine.api_version}/events",
        params={"since": "1", "until": f"{time.time():.3f}"},
        timeout=5,
    ).text
    seen = json.dumps(engine.inspect_container(name)) + events

    assert name in events
    assert canary not in seen


def test_the_engine_applied_every_limit(sandbox, engine, container_of):
    host = engine.inspect_container(container_of(sandbox.id))["HostConfig"]

    assert host["NetworkMode"] == "none"
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert host["Memory"] == host["MemorySwap"] == 256 * 1024 * 1024
    assert host["PidsLimit"] == 64
    assert host["NanoCpus"] == 1_000_000_000
    assert host["IpcMode"] == "private"
    assert host["LogConfig"]["Type"] == "none"
    assert not host["Binds"]
    assert not host["Devices"]
    assert host["MaskedPaths"]
    assert host["ReadonlyPaths"]
