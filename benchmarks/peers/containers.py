"""A container by hand: ``docker run`` and the client library, hardened exactly as ours.

Both are made from the same description as our sandboxes, but that the command is the container's own
process instead of one given to a supervisor inside.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import docker

from workers.sandbox.base import SandboxSpec
from workers.sandbox.docker import WORKSPACE, container_config, labels, volume_config


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Seconds until the command's first output, and until nothing is left."""

    first_output: float
    all: float


class Containers:
    """Makes containers of one instance, so that a reaper finds what a crash leaves behind."""

    def __init__(self, spec: SandboxSpec, *, instance: str, cpus: int) -> None:
        self._spec = spec
        self._instance = instance
        self._cpus = cpus
        self.api = docker.APIClient(version="auto")

    def close(self) -> None:
        self.api.close()

    def run_by_cli(self, argv: Sequence[str]) -> Taken:
        """``docker run --rm``: what a person types."""
        begun = time.perf_counter()
        words = ["docker", "run", "--rm", *self._flags(argv[0]), self._spec.image, *argv[1:]]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            _expect(process.stdout.readline() if process.stdout else b"")
            first = time.perf_counter() - begun
            if process.wait():
                raise RuntimeError(f"docker run ended with {process.returncode}")
        return Taken(first_output=first, all=time.perf_counter() - begun)

    def run_by_api(self, argv: Sequence[str]) -> Taken:
        """Create, attach, start, wait, remove, by the client library that ours uses too."""
        begun = time.perf_counter()
        name = self._create(argv)
        stream = self.api.attach(name, stream=True)
        self.api.start(name)
        _expect(next(iter(stream)))
        first = time.perf_counter() - begun
        if status := self.api.wait(name)["StatusCode"]:
            raise RuntimeError(f"the container ended with {status}")
        self._remove(name)
        return Taken(first_output=first, all=time.perf_counter() - begun)

    def standing(self) -> tuple[str, Callable[[], None]]:
        """A container that waits for ``exec``: its name, and how to remove it."""
        name = self._create(["sleep", "600"])
        self.api.start(name)
        return name, lambda: self._remove(name)

    def memory_mib(self, names: Sequence[str]) -> float:
        """What the engine counts for each container, on average."""
        total = 0
        for name in names:
            told = self.api.stats(name, stream=False, one_shot=True)["memory_stats"]
            dropped = told["stats"].get("total_inactive_file") or told["stats"].get("inactive_file")
            total += told["usage"] - (dropped or 0)
        return total / len(names) / (1024 * 1024)

    def copy_in(self, name: str, data: bytes) -> None:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            member = tarfile.TarInfo("data")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        self.api.put_archive(name, WORKSPACE, packed.getvalue())

    def copy_out(self, name: str, size: int) -> None:
        pieces, _ = self.api.get_archive(name, f"{WORKSPACE}/data")
        if sum(map(len, pieces)) < size:
            raise RuntimeError("the archive is shorter than the file")

    def pause(self, name: str) -> None:
        self.api.pause(name)

    def unpause(self, name: str) -> None:
        self.api.unpause(name)

    def commit(self, name: str) -> None:
        """The container's own layer as an image, which is taken away again."""
        made = self.api.commit(name)
        self.api.remove_image(made["Id"], force=True)

    def exec_by_cli(self, name: str, argv: Sequence[str]) -> None:
        _expect(
            subprocess.run(["docker", "exec", name, *argv], check=True, capture_output=True).stdout
        )

    def exec_by_api(self, name: str, argv: Sequence[str]) -> None:
        made = self.api.exec_create(name, list(argv))
        _expect(self.api.exec_start(made["Id"]))
        if self.api.exec_inspect(made["Id"])["ExitCode"]:
            raise RuntimeError("the command failed")

    def _create(self, argv: Sequence[str]) -> str:
        name, config = self._config(argv)
        marks = config["Labels"]
        self.api.create_volume(
            name=name, driver="local", driver_opts=volume_config(self._spec), labels=marks
        )
        self.api.create_container_from_config(config, name=name)  # type: ignore[no-untyped-call]
        return name

    def _remove(self, name: str) -> None:
        self.api.remove_container(name, force=True, v=True)
        self.api.remove_volume(name, force=True)

    def _config(self, argv: Sequence[str]) -> tuple[str, dict[str, Any]]:
        ident = uuid.uuid4().hex[:12]
        name = f"aos-{self._instance}-{ident}"
        marks = labels(self._instance, ident)
        config = container_config(
            self._spec, image=self._spec.image, name=name, labels=marks, cpus=self._cpus
        )
        return name, config | {"Entrypoint": [argv[0]], "Cmd": list(argv[1:])}

    def _flags(self, entrypoint: str) -> list[str]:
        """The same description as words of a command line."""
        _, config = self._config([entrypoint])
        host = config["HostConfig"]
        user, _, group = config["User"].partition(":")
        workspace = f"size={self._spec.workspace_mb}m,uid={user},gid={group},mode=0755"
        flags = ["--network=none", "--cap-drop=ALL", "--read-only", "--init", "--log-driver=none"]
        flags += [f"--security-opt={option}" for option in host["SecurityOpt"]]
        flags += [f"--tmpfs={place}:{how}" for place, how in host["Tmpfs"].items()]
        flags += [f"--tmpfs={WORKSPACE}:rw,nosuid,nodev,exec,{workspace}"]
        flags += [f"--memory={host['Memory']}b", f"--memory-swap={host['MemorySwap']}b"]
        flags += [f"--cpus={host['NanoCpus'] / 1e9}", f"--pids-limit={host['PidsLimit']}"]
        flags += [f"--ulimit={u['Name']}={u['Soft']}:{u['Hard']}" for u in host["Ulimits"]]
        flags += [f"--oom-score-adj={host['OomScoreAdj']}", f"--shm-size={host['ShmSize']}b"]
        flags += [f"--ipc={host['IpcMode']}", f"--cgroupns={host['CgroupnsMode']}"]
        flags += [f"--user={config['User']}", f"--workdir={WORKSPACE}", "--no-healthcheck"]
        flags += [f"--label={name}={value}" for name, value in config["Labels"].items()]
        return [*flags, f"--entrypoint={entrypoint}"]


def _expect(said: bytes) -> None:
    if b"ready" not in said:
        raise RuntimeError(f"the command said {said[:200]!r}")
