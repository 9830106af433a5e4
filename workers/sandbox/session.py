"""The worker's half of session protocol 2: requests out, checked answers in.

A session does one thing at a time, for one thread; ``cut`` and ``stop`` may come from any other.
Whatever the supervisor does - lie, stall, flood, vanish - each call ends with an answer or with a
``SandboxError``, within the worker's own clock. After an error the session is of no more use.
"""

from __future__ import annotations

import itertools
import json
import time
import zlib
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

from workers.sandbox import protocol
from workers.sandbox.artifacts import ArtifactLimits
from workers.sandbox.base import Command, Output
from workers.sandbox.channel import Channel, LineClosed
from workers.sandbox.errors import (
    FileRefused,
    SandboxError,
    SandboxKilled,
    SandboxLost,
    SandboxProtocolError,
    WorkspaceFull,
)

_F = TypeVar("_F", bound=protocol.Frame)
_Bytes = TypeVar("_Bytes", bytes, memoryview)

_ANSWER_S: Final = 60.0
_SEND_S: Final = 30.0
_TRANSFER_S: Final = 600.0
#: What the supervisor may send beyond the limit: marked lines, line ends it had to complete.
_OUTPUT_SLACK: Final = (1 << 20) + (64 << 10)
#: How much longer than a command's limit and grace the worker waits before it stops believing.
_PATIENCE_S: Final = 10.0
_HEARTBEAT_S: Final = 5.0
_HEARTBEATS_SPARE: Final = 20


class CommandOverdue(Exception):
    """A command's end did not come when it had to: the supervisor no longer keeps time."""


class _Tally:
    """What passed on this side of the line, to be compared with what the other side says of it.

    Against accidents: whoever changes bytes on purpose can change the sum as well.
    """

    def __init__(self) -> None:
        self._size = self._sum = 0

    def add(self, data: _Bytes) -> _Bytes:
        self._size += len(data)
        self._sum = zlib.crc32(data, self._sum)
        return data

    def compare(self, done: protocol.Done) -> None:
        if (done.size, done.crc32) != (self._size, self._sum):
            raise SandboxProtocolError(detail="bytes were lost or changed on the way")


class Session:
    """One conversation with one supervisor."""

    def __init__(
        self, channel: Channel, *, silence_s: float = 30.0, patience_s: float = _PATIENCE_S
    ) -> None:
        self._channel = channel
        self._silence_s = silence_s
        self._patience_s = patience_s
        self._ids = map(str, itertools.count(1))
        self._inbox = protocol.Inbox()
        self._opened = self._heard = time.monotonic()
        self._beats = 0
        self._busy = False
        self._cut = False

    # --- from any thread ---

    def cut(self) -> None:
        """End the conversation now; whoever waits gets ``SandboxKilled``."""
        self._cut = True
        self._channel.cut()

    def close(self) -> None:
        self.cut()
        self._channel.close()

    def stop(self, ident: str) -> None:
        """Ask a command to end. One that has ended already does not mind, nor does a closed line."""
        with suppress(SandboxError):
            self._send("stop", id=ident)

    # --- from the one thread that uses the sandbox ---

    def greet(
        self,
        *,
        env: Mapping[str, str],
        rlimits: Mapping[str, int],
        folders: Collection[str],
        own_cgroup: bool,
    ) -> protocol.Hello:
        with self._request():
            self._send(
                "hello",
                v=protocol.VERSION,
                env=dict(env),
                rlimits=dict(rlimits),
                folders=list(folders),
                own_cgroup=own_cgroup,
            )
            hello = self._frame(time.monotonic() + _ANSWER_S)
        if not isinstance(hello, protocol.Hello):
            raise SandboxProtocolError(detail="it did not begin with hello")
        if hello.v != protocol.VERSION:
            raise SandboxProtocolError(
                detail=f"it speaks version {hello.v}, not {protocol.VERSION}"
            )
        return hello

    def execute(self, command: Command) -> tuple[str, Generator[Output, None, protocol.Ended]]:
        """Start a command; returns its id and the stream of its output."""
        self._begin()
        ident = next(self._ids)
        fields: dict[str, object] = {"cwd": command.cwd} if command.cwd else {}
        self._send(
            "exec",
            command.stdin,
            id=ident,
            argv=list(command.argv),
            env=dict(command.env),
            timeout_s=command.timeout.total_seconds(),
            grace_s=command.grace.total_seconds(),
            head=command.head_limit,
            tail=command.tail_limit,
            mark=command.mark,
            **fields,
        )
        return ident, self._outputs(ident, command)

    def _outputs(self, ident: str, command: Command) -> Generator[Output, None, protocol.Ended]:
        allowed = command.timeout + command.grace
        until = time.monotonic() + allowed.total_seconds() + self._patience_s
        room = command.output_limit + _OUTPUT_SLACK
        for seq in itertools.count():
            try:
                frame = self._next(until)
                data = self._body(frame, until) if isinstance(frame, protocol.Out) else b""
            except TimeoutError as error:
                raise CommandOverdue from error
            self._belongs(frame, ident)
            if isinstance(frame, protocol.Ended):
                self._busy = False
                return frame
            if isinstance(frame, protocol.Failed):
                raise SandboxLost(detail=frame.detail)
            if not isinstance(frame, protocol.Out) or frame.seq != seq:
                raise SandboxProtocolError(detail="output came out of order")
            room -= len(data)
            if room < 0:
                raise SandboxProtocolError(detail="it sent more output than was agreed")
            yield Output(fd=frame.fd, data=data, skipped=frame.skipped)
        raise AssertionError("itertools.count ended")

    def put(self, path: str, data: bytes, *, mode: int) -> None:
        _require_text(path)
        tally = _Tally()
        whole = memoryview(data)
        until = time.monotonic() + _TRANSFER_S
        with self._request() as ident:
            for at in range(0, len(data), protocol.BODY_LIMIT) or (0,):
                end = at + protocol.BODY_LIMIT
                piece = tally.add(whole[at:end])
                if time.monotonic() >= until:
                    raise SandboxLost(detail="it did not take a file in time")
                self._send("put", piece, id=ident, path=path, mode=mode, more=end < len(data))
            tally.compare(self._reply(protocol.Done, ident, path))

    def get(self, path: str, *, limit: int) -> bytes:
        _require_text(path)
        with self._request() as ident:
            self._send("get", id=ident, path=path, limit=limit)
            data = bytearray()
            for piece in self._pieces(ident, path, until=time.monotonic() + _ANSWER_S):
                data += piece
                if len(data) > limit:
                    raise SandboxProtocolError(detail="it sent more of a file than was asked for")
        return bytes(data)

    def listing(self, path: str, *, depth: int) -> tuple[protocol.Entry, ...]:
        _require_text(path)
        with self._request() as ident:
            self._send("list", id=ident, path=path, depth=depth)
            return self._reply(protocol.Listing, ident, path).entries

    def stat(self, path: str) -> protocol.Entry:
        _require_text(path)
        with self._request() as ident:
            self._send("stat", id=ident, path=path)
            return self._reply(protocol.Info, ident, path).entry

    def archive(
        self, base: str, regexes: Collection[str], limits: ArtifactLimits
    ) -> Generator[bytes, None, list[tuple[str, str]]]:
        """The matching files as a tar stream; returns what the supervisor refused to send."""
        with self._request() as ident:
            self._send(
                "tar_out",
                id=ident,
                base=base,
                patterns=list(regexes),
                file_limit=limits.file_bytes,
                total_limit=limits.total_bytes,
                count_limit=limits.count,
            )
            rejected = yield from self._pieces(ident, base, until=time.monotonic() + _TRANSFER_S)
            return rejected

    def ping(self) -> None:
        with self._request() as ident:
            self._send("ping", id=ident)
            self._reply(protocol.Pong, ident, "")

    # --- how a request is made and its answer read ---

    def _begin(self) -> None:
        if self._cut:
            raise SandboxKilled
        if self._busy:
            raise SandboxLost(detail="an earlier request to it was left unfinished")
        self._busy = True
        # What was said while nobody listened is still to be read: silence counts from now.
        self._heard = time.monotonic()

    @contextmanager
    def _request(self) -> Iterator[str]:
        self._begin()
        try:
            yield next(self._ids)
        except (FileRefused, WorkspaceFull):
            self._busy = False  # refused, but answered
            raise
        self._busy = False

    def _send(self, kind: str, body: bytes | memoryview = b"", /, **fields: object) -> None:
        if body:
            fields["length"] = len(body)
        line = json.dumps({"type": kind, **fields}, separators=(",", ":")).encode() + b"\n"
        try:
            # In one go: a stop from another thread must not come between a line and its bytes.
            self._channel.send(b"".join((line, body)), timeout=_SEND_S)
        except LineClosed as error:
            raise self._ending("its line is closed") from error

    def _pieces(
        self, ident: str, path: str, *, until: float
    ) -> Generator[bytes, None, list[tuple[str, str]]]:
        tally = _Tally()
        while not isinstance(frame := self._expected(ident, path, until=until), protocol.Done):
            if not isinstance(frame, protocol.Data):
                raise SandboxProtocolError(detail=f"{type(frame).__name__} is no part of a file")
            with _answered_in_time():
                data = self._body(frame, until)
            yield tally.add(data)
        tally.compare(frame)
        return list(frame.rejected)

    def _reply(self, kind: type[_F], ident: str, path: str) -> _F:
        frame = self._expected(ident, path, until=time.monotonic() + _ANSWER_S)
        if not isinstance(frame, kind):
            raise SandboxProtocolError(detail=f"{type(frame).__name__} is no answer to that")
        return frame

    def _expected(self, ident: str, path: str, *, until: float) -> protocol.Frame:
        frame = self._frame(until)
        self._belongs(frame, ident)
        if isinstance(frame, protocol.Failed):
            if frame.code == "no_space":
                raise WorkspaceFull(path=path)
            raise FileRefused(path=path, detail=frame.detail)
        return frame

    def _frame(self, until: float) -> protocol.Frame:
        with _answered_in_time():
            return self._next(until)

    def _belongs(self, frame: protocol.Frame, ident: str) -> None:
        if getattr(frame, "id", None) != ident:
            raise SandboxProtocolError(detail="an answer belongs to no request")

    def _next(self, until: float) -> protocol.Frame:
        """The next frame that means something. Raises ``TimeoutError`` at ``until``."""
        while True:
            while (line := self._inbox.line()) is None:
                self._fill(until)
            frame = protocol.parse(line)
            if isinstance(frame, protocol.Heartbeat):
                self._count_heartbeat()
            elif isinstance(frame, protocol.Fault):
                raise SandboxProtocolError(detail=f"it did not understand: {frame.detail}")
            else:
                return frame

    def _body(self, frame: protocol.Out | protocol.Data, until: float) -> bytes:
        """The bytes a frame announced. Raises ``TimeoutError`` at ``until``."""
        while (data := self._inbox.exactly(frame.length)) is None:
            self._fill(until)
        return data

    def _count_heartbeat(self) -> None:
        self._beats += 1
        expected = (time.monotonic() - self._opened) / _HEARTBEAT_S
        if self._beats > 2 * expected + _HEARTBEATS_SPARE:
            raise SandboxProtocolError(detail="it sends heartbeats without end")

    def _fill(self, until: float) -> None:
        now = time.monotonic()
        silent_at = self._heard + self._silence_s
        if now >= until:
            raise TimeoutError
        if now >= silent_at:
            raise SandboxLost(detail=f"it has said nothing for {self._silence_s:g} s")
        data = self._channel.receive(min(until, silent_at) - now)
        if data is None:
            return
        if not data:
            raise self._ending(self._channel.complaint or "it ended")
        self._heard = time.monotonic()
        self._inbox.feed(data)

    def _ending(self, detail: str) -> SandboxError:
        return SandboxKilled() if self._cut else SandboxLost(detail=detail)


def _require_text(path: str) -> None:
    """Half a character is no name; the supervisor would not understand the question."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise FileRefused(path=ascii(path), detail="a path must be text") from error


@contextmanager
def _answered_in_time() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise SandboxLost(detail="it did not answer in time") from error
