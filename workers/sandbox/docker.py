"""Sandboxes as Docker containers, closed in every way the engine offers.

One container for one run, never reused. It has no network interface, no capability, no way to gain a
privilege, a read-only root and an unprivileged user; its files live in memory with a hard size; the
engine keeps no log of it. ``container_config`` is the whole truth about that, and a golden file in
the tests holds it still.

Measured on engine 20.10: create 8 ms, start 160 ms, attach 45 ms, kill 40 ms, remove 7 ms.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from threading import Lock
from typing import IO, Any, Final

import docker
from docker.errors import APIError, NotFound

from apps.sandboxes.types import EgressMode
from workers.sandbox import engine
from workers.sandbox.base import (
    RUNTIMES,
    Command,
    Finding,
    Keep,
    SandboxDriver,
    SandboxSpec,
    checked_id,
)
from workers.sandbox.channel import Channel
from workers.sandbox.egress.doors import Door, Doors
from workers.sandbox.egress.policy import Denial
from workers.sandbox.egress.proxy import Traffic
from workers.sandbox.errors import (
    ImageMissing,
    ImageUnfit,
    RuntimeMissing,
    SandboxError,
    SandboxExists,
    SandboxLost,
    SandboxProtocolError,
    SandboxUnavailable,
    WorkspaceFull,
)
from workers.sandbox.session import Session
from workers.sandbox.supervised import OUT_FOLDER, SupervisedSandbox

logger = logging.getLogger(__name__)

WORKSPACE: Final = "/workspace"
SUPERVISOR: Final = ["python3", "-I", "-S", "/opt/aos/sbx.py"]
#: The first program of a container: it only waits, or forwards to its way out while it waits.
WAIT: Final = ["sleep"]
FORWARD: Final = ["python3", "-I", "-S", "/opt/aos/forward.py"]
#: Where a sandbox finds the socket of its proxy, and what its programs are told of it.
DOOR: Final = "/run/aos-egress"
PROXY_URL: Final = "http://127.0.0.1:3128"
LABEL: Final = "aos.managed"
INSTANCE_LABEL: Final = "aos.instance"
SANDBOX_LABEL: Final = "aos.sandbox"

_MIB: Final = 1024 * 1024
_OLDEST_ENGINE: Final = (20, 10, 10)  # older ones refuse clone3 and break new C libraries
_REMOVAL_TRIES: Final = 60
_REMOVAL_PAUSE_S: Final = 0.05
_NO_ROOM: Final = "no space left"
_FREEZE_TRIES: Final = 10
_FREEZE_PAUSE_S: Final = 0.2
#: How the engine says that it gave up and let the container go on: cgroup v1 stops processes one by one,
#: and on a busy machine they begin others meanwhile.
_NOT_FROZEN: Final = "unable to freeze"
_OOM_PATIENCE_S: Final = 0.5
_DOOR_PATIENCE_S: Final = 20.0
_OOM_ANSWER_S: Final = 3
#: How engines say that an image lacks a program, or that its first one ended at once.
_UNFIT_WORDS: Final = ("executable file not found", "no such file", "is not running")


def labels(instance: str, sandbox_id: str) -> dict[str, str]:
    return {LABEL: "1", INSTANCE_LABEL: instance, SANDBOX_LABEL: sandbox_id}


def container_config(
    spec: SandboxSpec,
    *,
    image: str,
    name: str,
    labels: Mapping[str, str],
    cpus: float,
    door: str = "",
) -> dict[str, Any]:
    """The body of the engine's create call. Nothing outside this function shapes a container."""
    memory = int(spec.memory_mb) * _MIB
    user, _, group = spec.user.partition(":")
    hardened = "rw,nosuid,nodev"
    return {
        "Image": image,
        # The supervisor comes by exec. The end of this one ends the container even when no worker
        # is left to do it.
        "Entrypoint": FORWARD if door else WAIT,
        "Cmd": [str(int(spec.lifetime_s))],
        "User": spec.user,
        "WorkingDir": WORKSPACE,
        "Hostname": "sandbox",
        "Env": [],
        "Labels": dict(labels),
        "NetworkDisabled": True,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "NetworkMode": "none",
            "Privileged": False,
            "CapAdd": [],
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "ReadonlyRootfs": True,
            "Binds": [],
            "Mounts": [
                {
                    "Type": "volume",
                    "Source": name,
                    "Target": WORKSPACE,
                    "VolumeOptions": {"NoCopy": True},
                },
                *([_bind(door, DOOR)] if door else []),
                *(_bind(mount.source, mount.target) for mount in spec.mounts),
            ],
            "Tmpfs": {
                "/tmp": f"{hardened},noexec,size={int(spec.tmp_mb)}m,mode=1777",  # noqa: S108 - its own
                "/run/aos": f"{hardened},noexec,size=1m,mode=0700,uid={user},gid={group}",
            },
            "Devices": [],
            "Memory": memory,
            "MemorySwap": memory,  # the sum of both: no swap at all
            "NanoCpus": int(min(spec.cpu, cpus) * 1_000_000_000),
            "PidsLimit": int(spec.pids),
            "Ulimits": [
                {"Name": "core", "Soft": 0, "Hard": 0},
                {"Name": "fsize", "Soft": memory, "Hard": memory},
                {"Name": "nofile", "Soft": int(spec.open_files), "Hard": int(spec.open_files)},
            ],
            "OomScoreAdj": 500,  # the host's own processes come last
            "ShmSize": 64 * _MIB,
            "IpcMode": "private",
            "PidMode": "",
            "Runtime": spec.runtime,
            "UTSMode": "",
            "CgroupnsMode": "private",
            "LogConfig": {"Type": "none", "Config": {}},
            "RestartPolicy": {"Name": "no"},
            "AutoRemove": False,  # its volume must go with it, and the reaper sees to both
            "PublishAllPorts": False,
            "Init": True,
        },
    }


def _bind(source: str, target: str) -> dict[str, Any]:
    """A folder of the host, to be read. A socket in it may be spoken to and not replaced."""
    return {
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": True,
        # What is mounted below the folder stays out: engines before 25 would leave it writable.
        "BindOptions": {"Propagation": "rprivate", "NonRecursive": True},
    }


def volume_config(spec: SandboxSpec) -> dict[str, str]:
    """A workspace in memory: the only hard quota that every engine and filesystem has.

    A volume and not a mount of the container, because the engine cannot copy into those.
    """
    megabytes = int(spec.workspace_mb)
    # A name costs a kilobyte of the sandbox's memory even when the file is empty.
    size = f"size={megabytes}m,nr_inodes={max(1024, megabytes * 512)}"
    user, _, group = spec.user.partition(":")
    return {
        "type": "tmpfs",
        "device": "tmpfs",
        "o": f"{size},uid={user},gid={group},mode=0755,nosuid,nodev",
    }


class DockerDriver(SandboxDriver):
    """Talks to one engine. Safe to use from many threads."""

    name = "docker"
    isolation = "docker"
    supports_network_policy = True
    supports_waiting = True

    def __init__(
        self,
        *,
        instance: str,
        doors: Doors | None = None,
        base_url: str | None = None,
        timeout_s: int = 60,
        silence_s: float = 30.0,
        patience_s: float = 10.0,
    ) -> None:
        self.instance = checked_id(instance)
        self._doors = doors
        self._base_url = base_url
        self._timeout_s = timeout_s
        self._silence_s = silence_s
        self._patience_s = patience_s
        self._connecting = Lock()
        self._connected: docker.APIClient | None = None
        self._cpus = 0
        self._runtimes: frozenset[str] = frozenset()

    # --- what a driver does ---

    def start(self, spec: SandboxSpec, *, sandbox_id: str) -> DockerSandbox:
        name = self._name(checked_id(sandbox_id))
        with self._engine() as api:
            if spec.runtime not in self._runtimes:
                raise RuntimeMissing(runtime=spec.runtime)
            image = self._image(api, spec.image)
            if self._exists(api, name):
                raise SandboxExists(sandbox_id=sandbox_id)
            door = self._door(spec, sandbox_id)
            try:
                handle = self._create(api, spec, image=image, sandbox_id=sandbox_id, door=door)
            except BaseException:
                self._close_door(sandbox_id)
                raise
        try:
            with self._engine() as api:
                session = self._enter(api, name, spec)
        except BaseException:
            self._remove_quietly(sandbox_id)
            raise
        sandbox = DockerSandbox(
            session,
            driver=self,
            spec=spec,
            sandbox_id=sandbox_id,
            image=image,
            handle=handle,
            door=door,
        )
        try:
            session.greet(env=_environment(door), rlimits={}, folders=[OUT_FOLDER], own_cgroup=True)
            if door:
                door.await_forwarder(within=_DOOR_PATIENCE_S)
        except (SandboxLost, SandboxProtocolError) as error:
            sandbox.destroy()
            raise ImageUnfit(image=spec.image, detail=str(error)) from error
        except BaseException:
            sandbox.destroy()
            raise
        return sandbox

    def exact_image(self, image: str) -> str:
        with self._engine() as api:
            return self._image(api, image)

    def reap(self, keep: Keep) -> int:
        with self._engine() as api:
            orphans = self._managed(api)
            orphans -= frozenset(keep(orphans))
        for sandbox_id in sorted(orphans):
            self.remove(sandbox_id)
            logger.info("orphan sandbox destroyed", extra={"sandbox": sandbox_id})
        return len(orphans)

    def check(self, *, image: str) -> list[Finding]:
        try:
            with self._engine() as api:
                return [*engine_findings(api.version(), api.info()), *self._image_finding(image)]
        except SandboxUnavailable as error:
            hint = "Start the engine, or let this user reach its socket (group docker)."
            return [_finding("engine_unreachable", str(error), hint)]

    def close(self) -> None:
        with self._connecting:
            if self._connected is not None:
                self._connected.close()
                self._connected = None
        if self._doors:
            self._doors.close_all()

    # --- what its sandboxes need ---

    def attach(
        self, sandbox_id: str, command: Command, *, environment: Mapping[str, str]
    ) -> Channel:
        with self._engine() as api:
            made = api.exec_create(
                self._name(sandbox_id),
                list(command.argv),
                stdin=True,
                # Shown in no inspection and no event, unlike the words of the command.
                environment={**environment, **command.env},
                workdir=f"{WORKSPACE}/{command.cwd}".rstrip("/"),
            )
            attached = api.exec_start(made["Id"], socket=True)
        return Channel(_own_socket(attached), multiplexed=True)

    def kill(self, sandbox_id: str) -> None:
        with self._engine() as api:
            try:
                api.kill(self._name(sandbox_id))
            except NotFound:
                return
            except APIError as error:
                if error.status_code != HTTPStatus.CONFLICT:  # it does not run any more
                    raise

    def pause(self, sandbox_id: str) -> None:
        """Stop its processes where they are, trying as often as the engine says that it could not."""
        name = self._name(sandbox_id)
        with self._engine() as api, _ended_otherwise():
            for _ in range(_FREEZE_TRIES - 1):
                if _paused(api, name):
                    return
                # Who was busy beside it may be done by then. A kill does not wait for this.
                time.sleep(_FREEZE_PAUSE_S)
            api.pause(name)

    def resume(self, sandbox_id: str) -> None:
        with self._engine() as api, _ended_otherwise():
            api.unpause(self._name(sandbox_id))

    def pack(self, sandbox_id: str) -> Iterator[bytes]:
        """The workspace as the engine's own archive. It takes links as links, and needs nobody inside."""
        with self._engine() as api, _ended_otherwise():
            pieces, _ = api.get_archive(self._name(sandbox_id), f"{WORKSPACE}/.")
            yield from pieces

    def unpack(self, sandbox_id: str, archive: IO[bytes]) -> None:
        with self._engine() as api:
            try:
                api.put_archive(self._name(sandbox_id), WORKSPACE, archive)
            except APIError as error:
                if _NO_ROOM in engine.one_line(error):
                    raise WorkspaceFull(path=".") from error
                raise

    def remove(self, sandbox_id: str) -> None:
        """Remove the container and its volume, as often as the engine says "not yet"."""
        name = self._name(sandbox_id)
        self._close_door(sandbox_id)
        with self._engine() as api:
            for attempt in range(_REMOVAL_TRIES):
                if _removed(api, name):
                    return
                time.sleep(_REMOVAL_PAUSE_S * (1 + attempt / 10))
        raise SandboxUnavailable(driver=self.name, detail=f"{name} cannot be removed.")

    def saw_out_of_memory(self, sandbox_id: str) -> bool:
        """Whether the engine reported an out-of-memory kill; the report may lag a little."""
        deadline = time.monotonic() + _OOM_PATIENCE_S
        try:
            with self._engine() as api:
                while True:
                    if self._oom_events(api, sandbox_id):
                        return True
                    if time.monotonic() >= deadline:
                        return False
                    time.sleep(0.05)
        except SandboxUnavailable:
            return False

    # --- how ---

    def _name(self, sandbox_id: str) -> str:
        return f"aos-{self.instance}-{sandbox_id}"

    @contextmanager
    def _engine(self) -> Iterator[docker.APIClient]:
        """The engine's client. What goes wrong inside is said as ``SandboxUnavailable``."""
        client = self._client()
        with engine.said_plainly():
            yield client

    def _client(self) -> docker.APIClient:
        with self._connecting:
            if self._connected is None:
                client = engine.connect(base_url=self._base_url, timeout_s=self._timeout_s)
                with engine.said_plainly():
                    told = client.info()
                self._cpus = int(told.get("NCPU") or 1)
                self._runtimes = frozenset(told.get("Runtimes") or RUNTIMES[:1])
                self._connected = client
            else:
                engine.probe(self._base_url)
            return self._connected

    def _image(self, api: docker.APIClient, image: str) -> str:
        """The exact image behind a name, so that a run can say what it ran in."""
        found = engine.find_image(api, image)
        if found is None:
            raise ImageMissing(image=image)
        return str(found["Id"])

    def _door(self, spec: SandboxSpec, sandbox_id: str) -> Door | None:
        """The sandbox's way out, where its spec has one."""
        if spec.egress.mode == EgressMode.NONE:
            return None
        if self._doors is None:
            raise SandboxUnavailable(driver=self.name, detail="it has no folder for ways out.")
        try:
            return self._doors.open(sandbox_id, spec.egress)
        except FileExistsError as error:
            raise SandboxExists(sandbox_id=sandbox_id) from error

    def _close_door(self, sandbox_id: str) -> None:
        if self._doors:
            self._doors.close(sandbox_id)

    def _create(
        self,
        api: docker.APIClient,
        spec: SandboxSpec,
        *,
        image: str,
        sandbox_id: str,
        door: Door | None,
    ) -> str:
        name = self._name(sandbox_id)
        marks = labels(self.instance, sandbox_id)
        mount = self._doors.mount_of(door) if self._doors and door else ""
        config = container_config(
            spec, image=image, name=name, labels=marks, cpus=self._cpus, door=mount
        )
        api.create_volume(name=name, driver="local", driver_opts=volume_config(spec), labels=marks)
        try:
            made = api.create_container_from_config(config, name=name)  # type: ignore[no-untyped-call]
            return str(made["Id"])
        except APIError as error:
            if (
                error.status_code == HTTPStatus.CONFLICT
            ):  # another start with this id won the race, and uses it
                raise SandboxExists(sandbox_id=sandbox_id) from error
            api.remove_volume(name, force=True)
            raise

    def _exists(self, api: docker.APIClient, name: str) -> bool:
        try:
            api.inspect_volume(name)
        except NotFound:
            return False
        return True

    def _enter(self, api: docker.APIClient, name: str, spec: SandboxSpec) -> Session:
        """Start the container and the supervisor in it, or say that the image has none."""
        try:
            api.start(name)
            made = api.exec_create(name, SUPERVISOR, stdin=True, user=spec.user, workdir=WORKSPACE)
            attached = api.exec_start(made["Id"], socket=True)
        except APIError as error:
            told = engine.one_line(error)
            if any(words in told for words in _UNFIT_WORDS):
                raise ImageUnfit(image=spec.image, detail=told) from error
            raise
        channel = Channel(_own_socket(attached), multiplexed=True)
        return Session(channel, silence_s=self._silence_s, patience_s=self._patience_s)

    def _managed(self, api: docker.APIClient) -> frozenset[str]:
        filters = {"label": [f"{LABEL}=1", f"{INSTANCE_LABEL}={self.instance}"]}
        # One that the engine is removing is its business. Docker lists some for ever that are long gone: the kernel
        # told of their memory after the end.
        found = [
            each
            for each in api.containers(all=True, filters=filters)
            if each["State"] != "removing"
        ]
        found += api.volumes(filters=filters).get("Volumes") or []
        marks = [item.get("Labels") or {} for item in found]
        doors = self._doors.found() if self._doors else frozenset()
        return doors | {mark[SANDBOX_LABEL] for mark in marks if SANDBOX_LABEL in mark}

    def _oom_events(self, api: docker.APIClient, sandbox_id: str) -> bool:
        # Not api.events: that one waits without a limit when the engine hangs.
        asked = {"container": [self._name(sandbox_id)], "event": ["oom"]}
        answer = api.get(
            f"{api.base_url}/v{api.api_version}/events",
            params={"since": "1", "until": f"{time.time():.9f}", "filters": json.dumps(asked)},
            timeout=_OOM_ANSWER_S,
        )
        return answer.ok and bool(answer.content.strip())

    def _remove_quietly(self, sandbox_id: str) -> None:
        try:
            self.remove(sandbox_id)
        except SandboxError as error:
            logger.warning(
                "sandbox left to the reaper", extra={"sandbox": sandbox_id, "error": str(error)}
            )

    def _image_finding(self, image: str) -> list[Finding]:
        try:
            with self._engine() as api:
                self._image(api, image)
        except ImageMissing as error:
            return [_finding("image_missing", str(error), "Run: manage.py images build")]
        return []


class DockerSandbox(SupervisedSandbox):
    isolation = "docker"

    def __init__(
        self,
        session: Session,
        *,
        driver: DockerDriver,
        spec: SandboxSpec,
        sandbox_id: str,
        image: str,
        handle: str,
        door: Door | None,
    ) -> None:
        super().__init__(
            session, sandbox_id=sandbox_id, workspace=WORKSPACE, image=image, handle=handle
        )
        self._driver = driver
        self._user = spec.user
        self._door = door

    def watch_egress(self, tell: Callable[[Denial], None]) -> None:
        if self._door:
            self._door.watch(tell)

    def traffic(self) -> Traffic | None:
        return self._door.traffic if self._door else None

    def attach(self, command: Command) -> Channel:
        return self._driver.attach(self.id, command, environment=_environment(self._door))

    @property
    def _owner(self) -> tuple[int, int]:
        user, _, group = self._user.partition(":")
        return int(user), int(group)

    def _freeze(self) -> None:
        self._driver.pause(self.id)

    def _thaw(self) -> None:
        self._driver.resume(self.id)

    def _pack(self) -> Iterator[bytes]:
        return self._driver.pack(self.id)

    def _unpack(self, archive: IO[bytes]) -> None:
        self._driver.unpack(self.id, archive)

    def _end(self) -> None:
        self._driver.kill(self.id)

    def _remove(self) -> None:
        self._driver.remove(self.id)

    def _saw_out_of_memory(self) -> bool:
        return self._driver.saw_out_of_memory(self.id)


def _environment(door: Door | None) -> dict[str, str]:
    """What every command of a sandbox finds: its home, and the way out where there is one."""
    if door is None:
        return {"HOME": WORKSPACE}
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    ways = {spelled: PROXY_URL for name in names for spelled in (name, name.lower())}
    near = dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1,::1")
    return {"HOME": WORKSPACE, "NODE_USE_ENV_PROXY": "1"} | ways | near


def _own_socket(attached: Any) -> socket.socket:
    """The attached connection as a socket of ours, whatever the client library wrapped it in."""
    if isinstance(attached, ssl.SSLSocket):
        return attached
    try:
        return socket.socket(fileno=os.dup(attached.fileno()))
    finally:
        attached._response.close()  # noqa: SLF001 - the client library keeps it nowhere else


@contextmanager
def _ended_otherwise() -> Iterator[None]:
    """A container that is not there, or does not run, has ended; the engine itself is well."""
    try:
        yield
    except APIError as error:
        if error.status_code in {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}:
            raise SandboxLost(detail=engine.one_line(error)) from error
        raise


def _paused(api: docker.APIClient, name: str) -> bool:
    """One try; false when the container would not stand still and goes on."""
    try:
        api.pause(name)
    except APIError as error:
        if _NOT_FROZEN in engine.one_line(error):
            return False
        raise
    return True


def _removed(api: docker.APIClient, name: str) -> bool:
    """One try; false when the engine is still busy with the container or its volume.

    A busy engine says so in two ways: 409, or a 500 such as "device or resource busy" and "tried to
    kill container, but did not receive an exit event".
    """
    try:
        with suppress(NotFound):
            api.remove_container(name, force=True, v=True)
        with suppress(NotFound):
            api.remove_volume(name, force=True)
    except APIError as error:
        if error.status_code == HTTPStatus.CONFLICT or error.is_server_error():
            logger.debug(
                "engine is busy", extra={"container": name, "error": engine.one_line(error)}
            )
            return False
        raise
    return True


def _finding(code: str, message: str, hint: str, *, is_error: bool = True) -> Finding:
    return Finding(is_error=is_error, code=code, message=message, hint=hint)


def engine_findings(version: Mapping[str, Any], info: Mapping[str, Any]) -> Iterator[Finding]:
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", str(version.get("Version")))
    engine = tuple(map(int, found.groups())) if found else (0, 0, 0)
    if engine < _OLDEST_ENGINE:
        yield _finding(
            "engine_too_old",
            f"Docker engine {version.get('Version')} is older than 20.10.10.",
            "Upgrade the engine.",
        )
    for flag, what in (("MemoryLimit", "memory"), ("PidsLimit", "pids"), ("CPUCfsQuota", "CPU")):
        if not info.get(flag, info.get(flag.replace("CPU", "Cpu"))):
            yield _finding(
                "limit_not_enforced",
                f"The engine cannot enforce {what} limits.",
                "Enable the cgroup controllers on this host.",
            )
    if not info.get("SwapLimit"):
        yield _finding(
            "swap_not_limited",
            "The engine cannot forbid swap, so a sandbox may use more memory than its limit.",
            "Boot with swapaccount=1, or turn swap off.",
            is_error=False,
        )
    filters = [option for option in info.get("SecurityOptions") or [] if "seccomp" in str(option)]
    if not filters or any("unconfined" in str(option) for option in filters):
        yield _finding(
            "seccomp_missing",
            "The engine runs containers without a system call filter.",
            "Use an engine with the default seccomp profile.",
        )
