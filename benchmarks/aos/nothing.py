"""A sandbox driver without sandboxes: files vanish, every command succeeds at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping
from typing import IO

from workers.sandbox.artifacts import ArtifactLimits, ArtifactSink, Collected
from workers.sandbox.base import (
    Channel,
    Command,
    Execution,
    Exit,
    FileEntry,
    Finding,
    Keep,
    Outcome,
    Output,
    Sandbox,
    SandboxDriver,
    SandboxSpec,
)
from workers.sandbox.egress.policy import Denial
from workers.sandbox.errors import SandboxUnavailable
from workers.sandbox.snapshots import Contents, Sink, SnapshotLimits


class NothingSandbox(Sandbox):
    isolation = "none"
    workspace = "/nowhere"
    handle = "nothing"

    def __init__(self, *, sandbox_id: str, image: str) -> None:
        self.id = sandbox_id
        self.image = image

    def put_files(self, files: Mapping[str, bytes], *, mode: int = 0o644) -> None:
        del files

    def read_file(self, path: str, *, limit: int = 0) -> bytes:
        return b""

    def list_files(self, path: str = "", *, depth: int = 1) -> list[FileEntry]:
        return []

    def run(self, command: Command) -> Execution:
        return Execution(_silence(), stop=lambda: None)

    def attach(self, command: Command) -> Channel:
        raise SandboxUnavailable(driver="nothing", detail="there is no program to talk to.")

    def collect(
        self,
        patterns: Collection[str],
        *,
        sink: ArtifactSink,
        limits: ArtifactLimits | None = None,
    ) -> Collected:
        return Collected()

    def ping(self) -> None:
        return

    def watch_egress(self, tell: Callable[[Denial], None]) -> None:
        return

    def traffic(self) -> None:
        return

    def pause(self) -> None:
        return

    def resume(self) -> None:
        return

    def snapshot(self, sink: Sink, *, limits: SnapshotLimits | None = None) -> Contents:
        return Contents()

    def restore(self, archive: IO[bytes]) -> Contents:
        return Contents()

    def kill(self) -> None:
        return

    def destroy(self) -> None:
        return


class NothingDriver(SandboxDriver):
    name = "nothing"
    isolation = "none"

    def start(self, spec: SandboxSpec, *, sandbox_id: str) -> Sandbox:
        return NothingSandbox(sandbox_id=sandbox_id, image=spec.image)

    def exact_image(self, image: str) -> str:
        return image

    def reap(self, keep: Keep) -> int:
        return 0

    def check(self, *, image: str) -> list[Finding]:
        return []

    def close(self) -> None:
        return


def _silence() -> Generator[Output, None, Exit]:
    yield from ()
    return Exit(outcome=Outcome.SUCCEEDED, code=0)
