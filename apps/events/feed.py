"""The live feed of a web process: logs are read once and followed by any number of listeners.

Three parts, from the outside in:

* A ``Listener`` is one reader's position in one log. It gives every frame behind that position, in
  order, without gaps or doubles. It holds no frames of its own, so a slow reader costs no memory.
* A ``_Topic`` follows one log while somebody listens: it reads what is new once, makes it text once,
  and keeps the newest frames. A listener that is further behind than that reads the log itself.
* The ``Feed`` has the process's one channel-layer subscription. A hint makes a topic look, and so
  does a clock: lost hints cost seconds, never an event.

The log is the truth throughout; what is kept in memory is a copy of its end.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, ClassVar, Final, Protocol
from uuid import UUID
from weakref import WeakKeyDictionary

from channels.layers import get_channel_layer
from redis.exceptions import RedisError

from apps.core import tenancy, together
from apps.events import hints, models, wire
from apps.events.readers import Answer, Readers

logger = logging.getLogger(__name__)

RESYNC: Final = "resync"
# How many rows are read at once, and how much of a log's end is kept while somebody listens.
PAGE: Final = 500
KEPT: Final = 1_000
KEPT_CHARACTERS: Final = 1_000_000
# How long a topic waits for a hint before it looks by itself: while hints come, and while they don't.
POLL_S = 15.0
DEAF_POLL_S = 2.0
# The subscription listens to its own echo this often. It is made anew when three do not come back.
ECHO_S = 2.0
_PATIENCE_S: Final = 1.0
_LOST_ECHOES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One entry of a log, ready to be sent. ``text`` is JSON on one line."""

    seq: int
    type: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    frames: list[Frame]
    # Nothing will ever follow these frames.
    closed: bool = False


class Source(Protocol):
    """A log with gapless numbers from 1. Its methods run in a reader thread."""

    @property
    def topic(self) -> str:
        """The name of the log in hints."""

    @property
    def far(self) -> int:
        """A listener further behind than this is told to start anew instead of being fed it all."""

    def head(self) -> int:
        """The last number given out, 0 for an empty log."""

    def read(self, after: int, limit: int) -> Page:
        """The frames behind ``after``, in order, at most ``limit``."""


@dataclass(frozen=True, slots=True)
class ProjectLog:
    """A project's value events."""

    project_id: UUID
    organization_id: UUID
    far: ClassVar[int] = 5_000

    @property
    def topic(self) -> str:
        return hints.project_topic(self.project_id)

    def head(self) -> int:
        with tenancy.organization(self.organization_id):
            row = models.Stream.objects.filter(pk=self.project_id).first()
        return row.last_seq if row else 0

    def read(self, after: int, limit: int) -> Page:
        with tenancy.organization(self.organization_id):
            events = list(models.Event.objects.after(after, project_id=self.project_id)[:limit])
        return Page(
            frames=[
                Frame(seq=event.seq, type=event.type, text=wire.as_text(wire.as_json(event)))
                for event in events
            ]
        )


class _Topic:
    """One log, as this process follows it."""

    def __init__(self, source: Source, readers: Readers, patience: Callable[[], float]) -> None:
        self.source = source
        self.listeners = 0
        # None until the log was asked for the first time.
        self.head: int | None = None
        self.closed = False
        self._readers = readers
        self._patience = patience
        self._newest: deque[Frame] = deque()
        self._characters = 0
        self._look = asyncio.Event()
        self._changed = asyncio.Event()

    def look(self) -> None:
        """There may be something new."""
        self._look.set()

    def close(self) -> None:
        """Nothing will follow: let listeners finish."""
        self.closed = True
        self._announce()

    async def follow(self) -> None:
        """Read on whenever the log may have grown, until it is closed."""
        try:
            self.head = await self._readers.ask(self.source.head)
            self._announce()
            while not self.closed:
                self._look.clear()
                if await self._read_on() < PAGE:
                    await _wait(self._look, self._patience())
        finally:
            # After a bug, too: listeners that end come back, listeners that wait forever do not.
            self.close()

    async def _read_on(self) -> int:
        head = self.head or 0
        page = await self._readers.ask(lambda: self.source.read(head, PAGE))
        for frame in page.frames:
            self._keep(frame)
        if page.closed:
            self.close()
        elif page.frames:
            self._announce()
        return len(page.frames)

    def _keep(self, frame: Frame) -> None:
        self.head = frame.seq
        self._newest.append(frame)
        self._characters += len(frame.text)
        while len(self._newest) > KEPT or self._characters > KEPT_CHARACTERS:
            self._characters -= len(self._newest.popleft().text)

    def _announce(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def has_news(self, seq: int) -> bool:
        """Whether a listener at ``seq`` has something to do: frames, the end, or a cursor to mend."""
        return self.closed or (self.head is not None and self.head > seq)

    async def news(self, seq: int, timeout_s: float) -> None:
        """Wait until there is news for a listener at ``seq``, or for ``timeout_s``."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while not self.has_news(seq) and (left := until - loop.time()) > 0:
            await _wait(self._changed, left)

    def newest(self, seq: int) -> list[Frame] | None:
        """The frames behind ``seq``; ``None`` when they are no longer all kept."""
        if not self._newest or self._newest[0].seq > seq + 1:
            return None
        found = list(takewhile(lambda frame: frame.seq > seq, reversed(self._newest)))
        found.reverse()
        return found


class Listener:
    """One reader's position in a log. Iterate over it, or call ``read`` to keep the time."""

    def __init__(self, topic: _Topic, readers: Readers, *, after: int) -> None:
        # The number of the last frame given.
        self.seq = after
        # Nothing will follow: the log is closed and read to its end, or the process stops.
        self.over = False
        self._topic = topic
        self._readers = readers
        self._checked = False

    async def __aiter__(self) -> AsyncIterator[Frame]:
        while not self.over:
            for frame in await self.read(timeout_s=POLL_S):
                yield frame

    async def read(self, *, timeout_s: float) -> Sequence[Frame]:
        """The next frames, as soon as there are any; none when the time is up or all is ``over``.

        A frame of type ``resync`` says that the reader is too far behind, or ahead of the log: it
        must fetch the present state by other means, and goes on behind the frame's number.
        """
        frames = await self._next(timeout_s)
        if frames:
            self.seq = frames[-1].seq
        head = self._topic.head
        self.over = self._topic.closed and (head is None or self.seq >= head)
        return frames

    async def _next(self, timeout_s: float) -> Sequence[Frame]:
        if not self._checked and (head := await self._ahead(timeout_s)) is not None:
            return [_resync(head)]
        await self._topic.news(self.seq, timeout_s)
        head = self._topic.head
        if head is None or head <= self.seq:
            return []
        if head - self.seq > self._topic.source.far:
            return [_resync(head)]
        kept = self._topic.newest(self.seq)
        return kept or await self._from_log() or [_resync(head)]

    async def _from_log(self) -> Sequence[Frame]:
        seq = self.seq
        page = await self._readers.ask(lambda: self._topic.source.read(seq, PAGE))
        return page.frames

    async def _ahead(self, timeout_s: float) -> int | None:
        """The head of the log if the reader claims to be beyond it: its cursor is of another log."""
        await self._topic.news(-1, timeout_s)
        head = self._topic.head
        if head is not None and self.seq > head:
            # The reader may have met a newer head elsewhere: the log decides, not what is kept.
            head = await self._readers.ask(self._topic.source.head)
        self._checked = head is not None
        return head if head is not None and self.seq > head else None


class Feed:
    """All that one event loop follows. Made and started by the first listener."""

    def __init__(self) -> None:
        self.readers = Readers()
        self._topics: dict[str, _Topic] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._subscription = _Subscription(self._look)
        self._closed = False

    @asynccontextmanager
    async def follow(self, source: Source, *, after: int) -> AsyncIterator[Listener]:
        topic = self._join(source)
        try:
            yield Listener(topic, self.readers, after=after)
        finally:
            self._leave(topic)

    def start(self) -> None:
        self._subscription.start()

    def close(self) -> None:
        """Let all listeners finish, now and from now on."""
        self._closed = True
        for topic in self._topics.values():
            topic.close()

    async def stop(self) -> None:
        self.close()
        await together.end(*self._tasks.values())
        await self._subscription.stop()
        await self.readers.close()

    @property
    def following(self) -> int:
        """How many logs are followed."""
        return len(self._topics)

    def _join(self, source: Source) -> _Topic:
        self.start()
        topic = self._topics.get(source.topic)
        if topic is None:
            topic = _Topic(source, self.readers, self._patience)
            self._topics[source.topic] = topic
            self._tasks[source.topic] = asyncio.create_task(topic.follow())
        if self._closed:
            topic.close()
        topic.listeners += 1
        return topic

    def _leave(self, topic: _Topic) -> None:
        topic.listeners -= 1
        if not topic.listeners:
            del self._topics[topic.source.topic]
            self._tasks.pop(topic.source.topic).cancel()

    def _patience(self) -> float:
        return POLL_S if self._subscription.hears else DEAF_POLL_S

    def _look(self, topics: Iterable[str] | None) -> None:
        for name in self._topics if topics is None else topics:
            if topic := self._topics.get(name):
                topic.look()


class _Subscription:
    """The process's one subscription to hints: made anew when it breaks, and never trusted.

    It owns the channel layer of its event loop; nothing else in a web process uses that.
    """

    def __init__(self, look: Callable[[Iterable[str] | None], None]) -> None:
        # Unknown until the first echo.
        self.hears: bool | None = None
        self._look = look
        self._task: asyncio.Task[None] | None = None
        self._heard_at = 0.0

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._keep_up())

    async def stop(self) -> None:
        if self._task is not None:
            await together.end(self._task)

    async def _keep_up(self) -> None:
        layer: Any = get_channel_layer()
        try:
            while True:
                try:
                    await self._listen(layer)
                except (RedisError, OSError, TimeoutError) as error:
                    self._note(hears=False, reason=str(error) or type(error).__name__)
                await layer.flush()
                await asyncio.sleep(_PATIENCE_S)
        finally:
            await layer.flush()

    async def _listen(self, layer: Any) -> None:
        async with asyncio.timeout(2 * _PATIENCE_S):
            channel = await layer.new_channel()
            await layer.group_add(hints.GROUP, channel)
        await together.first_of(self._hear(layer, channel), self._mind(layer, channel))

    async def _hear(self, layer: Any, channel: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            message = await layer.receive(channel)
            self._heard_at = loop.time()
            self._look(message.get("topics", ()))

    async def _mind(self, layer: Any, channel: str) -> None:
        """Talk to ourselves: the only proof that a hint would arrive."""
        loop = asyncio.get_running_loop()
        lost = 0
        try:
            while lost < _LOST_ECHOES:
                sent_at = loop.time()
                async with asyncio.timeout(_PATIENCE_S):
                    await layer.send(channel, {"type": "echo"})
                await asyncio.sleep(min(_PATIENCE_S, ECHO_S))
                came_back = self._heard_at >= sent_at
                self._note(hears=came_back, reason="no echo")
                lost = 0 if came_back else lost + 1
                await asyncio.sleep(max(0.0, ECHO_S - _PATIENCE_S))
            raise TimeoutError("no echo")
        finally:
            # Before the other task is cancelled: it would try to unsubscribe from what is gone.
            await layer.flush()

    def _note(self, *, hears: bool, reason: str) -> None:
        if hears == self.hears:
            return
        self.hears = hears
        if hears:
            logger.info("hints arrive")
        else:
            logger.warning("no hints arrive, polling goes on", extra={"error": reason})
        # Heard again: hints were missed. Not heard: the clock goes faster from now on.
        self._look(None)


_feeds: WeakKeyDictionary[asyncio.AbstractEventLoop, Feed] = WeakKeyDictionary()


def current() -> Feed:
    """The feed of the running event loop: a web process has one loop, so one feed."""
    loop = asyncio.get_running_loop()
    feed = _feeds.get(loop)
    if feed is None:
        feed = _feeds[loop] = Feed()
    return feed


def start() -> None:
    """Subscribe to hints now instead of with the first listener."""
    current().start()


async def stop() -> None:
    if feed := _feeds.pop(asyncio.get_running_loop(), None):
        await feed.stop()


async def ask(question: Callable[[], Answer]) -> Answer:
    """Ask the database something in one of the reader threads."""
    return await current().readers.ask(question)


@asynccontextmanager
async def follow(source: Source, *, after: int) -> AsyncIterator[Listener]:
    """Listen to a log: everything behind ``after``, then whatever comes."""
    async with current().follow(source, after=after) as listener:
        yield listener


def project(
    project_id: UUID, *, organization_id: UUID, after: int
) -> AbstractAsyncContextManager[Listener]:
    """Listen to a project's value events."""
    return follow(ProjectLog(project_id, organization_id), after=after)


def _resync(head: int) -> Frame:
    return Frame(seq=head, type=RESYNC, text=wire.as_text({"type": RESYNC, "seq": head}))


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
