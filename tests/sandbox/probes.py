"""Ways out of a container, tried from inside. Runs in the sandbox: standard library only.

Prints a JSON object with what became of each: ``through``, or how it was refused. None would do harm if
it got through: what is opened is not written to, what is set is set to what it was.
"""

from __future__ import annotations

import ctypes
import glob
import json
import os
import resource
import socket
import struct
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
CALLS = {
    "x86_64": {
        "acct": 163,
        "add_key": 248,
        "bpf": 321,
        "capset": 126,
        "clock_settime": 227,
        "delete_module": 176,
        "finit_module": 313,
        "fsopen": 430,
        "init_module": 175,
        "ioperm": 173,
        "iopl": 172,
        "kexec_load": 246,
        "keyctl": 250,
        "mount_setattr": 442,
        "move_mount": 429,
        "open_by_handle_at": 304,
        "open_tree": 428,
        "perf_event_open": 298,
        "pivot_root": 155,
        "quotactl": 179,
        "reboot": 169,
        "request_key": 249,
        "setns": 308,
        "settimeofday": 164,
        "swapon": 167,
        "syslog": 103,
        "umount2": 166,
        "unshare": 272,
        "userfaultfd": 323,
        "vhangup": 153,
    }
}.get(os.uname().machine, {})


def call(name, *words):
    """A system call by number; its error as an ``OSError``."""
    ctypes.set_errno(0)
    told = LIBC.syscall(ctypes.c_long(CALLS[name]), *words)
    if told < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return told


def of_libc(name, *words):
    ctypes.set_errno(0)
    told = getattr(LIBC, name)(*words)
    if told < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return told


def in_child(act):
    """Try it in a child, so that a changed namespace or root changes nothing for the next."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            act()
            os.write(writer, b"through")
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the answer
            os.write(writer, f"refused: {type(error).__name__}: {error}".encode()[:200])
        os._exit(0)
    os.close(writer)
    told = os.read(reader, 300).decode() or "refused: it was killed"
    os.close(reader)
    os.waitpid(child, 0)
    return told


def opened(path, flags=os.O_WRONLY):
    os.close(os.open(path, flags))


def any_opened(pattern, flags=os.O_WRONLY):
    found = sorted(glob.glob(pattern, recursive=True))
    if not found:
        raise FileNotFoundError(pattern)
    for number, path in enumerate(found):
        try:
            return opened(path, flags)
        except OSError:
            if number + 1 == len(found):
                raise


def read(path):
    with open(path, "rb") as file:
        if not file.read(16).strip(b"\0 \n"):
            raise OSError(f"{path} is empty")


def connected(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as sock:
        sock.settimeout(1)
        sock.connect(address)


def shim_sockets():
    """Abstract sockets of containerd's helpers, as in CVE-2020-15257."""
    with open("/proc/net/unix") as file:
        names = [line.split()[-1] for line in file if "containerd" in line or "docker" in line]
    if not names:
        raise FileNotFoundError("no such socket is to be seen")
    connected(socket.AF_UNIX, "\0" + names[0][1:])


def capset():
    header = struct.pack("II", 0x20080522, 0)
    every = struct.pack("6I", *[0xFFFFFFFF, 0xFFFFFFFF, 0] * 2)
    call("capset", header, every)


def handle():
    """The file handle of the host's root, as in the exploit of 2014 called shocker."""
    there = os.open("/workspace", os.O_RDONLY)
    wanted = struct.pack("II", 8, 1) + struct.pack("Q", 2)
    call("open_by_handle_at", there, wanted, os.O_RDONLY)


def setuid_program():
    for folder in ("/bin", "/sbin", "/usr", "/opt"):
        for path, _, names in os.walk(folder):
            for name in names:
                if os.lstat(os.path.join(path, name)).st_mode & 0o6000:
                    return
    raise FileNotFoundError("no program lends its owner's rights")


def more_files():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1))


def raised_memory():
    for name in ("memory/memory.limit_in_bytes", "memory.max"):
        if os.path.exists(f"/sys/fs/cgroup/{name}"):
            return opened(f"/sys/fs/cgroup/{name}")
    raise FileNotFoundError("no such file")


def entered(kind):
    fd = os.open(f"/proc/1/ns/{kind}", os.O_RDONLY)
    call("setns", fd, 0)


NOW = struct.pack("qq", int(time.time()), 0)
PROBES = {
    "user namespace": lambda: call("unshare", 0x10000000),
    "mount namespace": lambda: call("unshare", 0x00020000),
    "process namespace": lambda: call("unshare", 0x20000000),
    "network namespace": lambda: call("unshare", 0x40000000),
    "host name namespace": lambda: call("unshare", 0x04000000),
    "cgroup namespace": lambda: call("unshare", 0x02000000),
    "enter the first process's mounts": lambda: entered("mnt"),
    "enter the first process's network": lambda: entered("net"),
    "mount memory": lambda: of_libc("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "mount processes": lambda: of_libc("mount", b"proc", b"/tmp", b"proc", 0, None),
    "mount cgroups": lambda: of_libc("mount", b"none", b"/tmp", b"cgroup", 0, b"rdma"),
    "bind the root elsewhere": lambda: of_libc("mount", b"/", b"/tmp", None, 4096, None),
    "make the root writable": lambda: of_libc("mount", None, b"/", None, 32 | 4096, None),
    "new mount interface": lambda: call("fsopen", b"tmpfs", 0),
    "clone a mount": lambda: call("open_tree", -100, b"/", 1),
    "change a mount's attributes": lambda: call("mount_setattr", -100, b"/", 0, bytes(32), 32),
    "unmask what is masked": lambda: call("umount2", b"/proc/kcore", 2),
    "change the root": lambda: of_libc("chroot", b"/workspace"),
    "swap the root": lambda: call("pivot_root", b"/workspace", b"/workspace/out"),
    "make a disk": lambda: os.mknod("/workspace/disk", 0o60666, os.makedev(8, 0)),
    "make the memory device": lambda: os.mknod("/workspace/mem", 0o20666, os.makedev(1, 1)),
    "open a disk": lambda: any_opened("/dev/[sv]d[a-z]", os.O_RDONLY),
    "open the memory device": lambda: any_opened("/dev/*mem", os.O_RDONLY),
    "become root": lambda: os.setuid(0),
    "join root's group": lambda: os.setgid(0),
    "join more groups": lambda: os.setgroups([0, 999]),
    "take capabilities": capset,
    "borrow an owner's rights": setuid_program,
    "read a host file by its handle": handle,
    "load a kernel module": lambda: call("init_module", b"", 0, b""),
    "load a kernel module from a file": lambda: call("finit_module", 0, b"", 0),
    "unload a kernel module": lambda: call("delete_module", b"no_such_module", 0x800),
    "load another kernel": lambda: call("kexec_load", 0, 0, None, 0),
    "load a program into the kernel": lambda: call("bpf", 5, bytes(120), 120),
    "watch the kernel's events": lambda: call("perf_event_open", bytes(112), 0, -1, -1, 0),
    "handle page faults": lambda: call("userfaultfd", 0),
    "take a key": lambda: call("keyctl", 0, -3, 1, 0, 0),
    "add a key": lambda: call("add_key", b"user", b"aos", b"x", 1, -2),
    "reach ports of the hardware": lambda: call("iopl", 3),
    "reach one port of the hardware": lambda: call("ioperm", 0x70, 1, 1),
    "read the kernel's log": lambda: call("syslog", 3, ctypes.create_string_buffer(64), 64),
    "read the kernel's memory": lambda: read("/proc/kcore"),
    "use a swap file": lambda: call("swapon", b"/no/such/file", 0),
    "keep the machine's books": lambda: call("acct", None),
    "restart the machine": lambda: call("reboot", 0xFEE1DEAD, 672274793, 0, None),
    "set the clock": lambda: call("settimeofday", NOW, None),
    "set the other clock": lambda: call("clock_settime", 0, NOW),
    "set the host's name": lambda: of_libc("sethostname", b"sandbox", 7),
    "name a program for crashes": lambda: opened("/proc/sys/kernel/core_pattern"),
    "name a program for devices": lambda: opened("/sys/kernel/uevent_helper"),
    "name a program for cgroups": lambda: any_opened("/sys/fs/cgroup/**/release_agent"),
    "press the system request key": lambda: opened("/proc/sysrq-trigger"),
    "raise its own memory": raised_memory,
    "open more files than allowed": more_files,
    "come before others": lambda: os.setpriority(os.PRIO_PROCESS, 0, -5),
    "speak to the engine": lambda: connected(socket.AF_UNIX, "/var/run/docker.sock"),
    "speak to the engine's helpers": shim_sockets,
    "reach the host's bridge": lambda: connected(socket.AF_INET, ("172.17.0.1", 22)),
    "reach the cloud's metadata": lambda: connected(socket.AF_INET, ("169.254.169.254", 80)),
    "reach a public host": lambda: connected(socket.AF_INET, ("1.1.1.1", 443)),
    "listen to all packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "forge packets": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close(),
    "change its programs": lambda: opened("/usr/bin/python3"),
    "change its supervisor": lambda: opened("/opt/aos/sbx.py"),
    "change its users": lambda: opened("/etc/passwd"),
}

if __name__ == "__main__":
    chosen = sys.argv[1:] or list(PROBES)
    print(json.dumps({name: in_child(PROBES[name]) for name in chosen}))
