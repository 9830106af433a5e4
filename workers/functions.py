"""Agents of kind ``function``: a call in this process instead of a command in a sandbox.

For code that the operator has installed beside the worker and named in ``AOS_FUNCTIONS``. It is trusted
as AOS itself is; nobody can add any through the web. A function gets a ``Call`` and returns what its
receipt shall say. It takes no sandbox, so many short calls fit in one message and one commit.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.utils.module_loading import import_string

from apps.core import failpoints, tracing
from apps.core.errors import AosError
from apps.core.failpoints import Place
from apps.runs.errors import LeaseLost
from apps.runs.models import Run
from apps.runs.services import children, leases
from apps.runs.types import FINAL, Entry, EventKind, Failure, Lease, Report, RunState, Started
from workers import ends
from workers.insist import insist
from workers.node import Node, Task
from workers.runlog import RunLog
from workers.taskevents import TaskEvents

logger = logging.getLogger(__name__)

ISOLATION: Final = "none"
# Ends are gathered for this long before they are written.
_GATHER_S: Final = 0.05
# When one call takes this long, the runs behind it are given back for others to take.
_PATIENCE_S: Final = 1.0
_LINE_LIMIT: Final = 16 * 1024
_SUMMARY_LIMIT: Final = 2000
_FACTS_LIMIT: Final = 30
_TEXT_LIMIT: Final = 500
# How often a function that waits for its children looks at them: often at first.
_WAIT_S: Final = 0.05
_LONGEST_WAIT_S: Final = 1.0


class FunctionFailed(AosError):
    code = "function_failed"
    template = "{reason}"


class FunctionUnknown(AosError):
    code = "function_unknown"
    retryable = True
    template = "This worker has no function {name!r}: see its AOS_FUNCTIONS."


class BadResult(AosError):
    code = "bad_result"
    template = "The function's result {why}."


class Stopped(AosError):
    code = "stopped"
    template = "The run was stopped while it waited for its children."


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A run that a function has started, as it stood when it was looked at."""

    id: str
    state: str
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    @property
    def is_over(self) -> bool:
        return self.state in FINAL

    @property
    def succeeded(self) -> bool:
        return self.state == RunState.SUCCEEDED


class Call:
    """What a function is called with."""

    def __init__(self, started: Started, task: Task) -> None:
        self._started = started
        self.input: dict[str, Any] = started.spec["input"]
        self.run_id = str(started.public_id)
        self.attempt = started.attempt
        self._task = task

    @property
    def is_stopped(self) -> bool:
        """Whether the run was cancelled, lost or drained. A function that takes long looks at it."""
        return self._task.stopped is not None

    def log(self, text: str, *, level: str = "INFO") -> None:
        """Add a line to the run's log."""
        payload = {"level": level, "source": "function", "text": _printable(text)[:_LINE_LIMIT]}
        self._task.log.add([Entry(kind=EventKind.LOG, payload=payload)])

    def start(self, agent: str, input: dict[str, Any], *, key: str, **more: Any) -> Child:  # noqa: A002
        """Start a child of this run: a run of another agent, in the name of who submitted this one.

        The same key gives the same child, when the function is called again too. ``more``: priority, queue,
        timeout_s, total_deadline_s, labels, requires, concurrency_key, on_parent_end (see ``children.Wish``).
        """
        run = children.start(
            self._started, children.Wish(agent=agent, input=input, **more), key=key
        )
        self.log(f"Child {key}: {run.name} ({run.public_id})")
        return _child(run)

    def look(self, *those: Child) -> list[Child]:
        """The same children as they stand now."""
        return [_child(run) for run in children.look(self._started, [UUID(c.id) for c in those])]

    def wait(self, *those: Child) -> list[Child]:
        """Wait until all of these children have ended. The slot and all limits stay taken meanwhile.

        Raises ``Stopped`` when this run is cancelled, lost or drained; then the function should end.
        """
        pause = _WAIT_S
        while not self.is_stopped:
            found = self.look(*those)
            if all(child.is_over for child in found):
                return found
            time.sleep(pause)
            pause = min(_LONGEST_WAIT_S, 1.5 * pause)
        raise Stopped


def _child(run: Run) -> Child:
    return Child(id=str(run.public_id), state=run.state, result=run.result, error=run.error)


Function = Callable[[Call], dict[str, Any] | None]


def echo(call: Call) -> dict[str, Any]:
    """Answer with the input: shows that runs are taken up, without doing anything."""
    facts = {name: value for name, value in call.input.items() if _is_fact(value)}
    return {
        "summary": str(call.input.get("text", "Nothing was asked."))[:_SUMMARY_LIMIT],
        "facts": facts,
    }


@cache
def find(name: str) -> Function:
    """The function of this name; raises ``FunctionUnknown`` where this worker does not have it."""
    place = settings.AOS_FUNCTIONS.get(name)
    if place is None:
        raise FunctionUnknown(name=name)
    found: Function = import_string(place.replace(":", "."))
    return found


def execute(started: Sequence[Started], *, node: Node, events: TaskEvents | None = None) -> None:
    """Call the functions of these runs one after the other and report their ends together."""
    group = _Group(started, node=node, events=events)
    with node.holding(group.tasks, tick=group.tick):
        group.carry_out()


class _Group:
    """The runs of one message: those that wait, and the ends that were not written yet."""

    def __init__(
        self, started: Sequence[Started], *, node: Node, events: TaskEvents | None
    ) -> None:
        self.tasks = [Task(each.lease, RunLog(each)) for each in started]
        self._waiting = deque(zip(started, self.tasks, strict=True))
        self._lock = threading.Lock()
        self._node = node
        self._events = events
        self._reports: list[tuple[Started, Task, Report]] = []
        self._moments: dict[int, tuple[float, float]] = {}
        self._written = self._busy_since = time.monotonic()
        if events:
            events.received(started)

    def carry_out(self) -> None:
        while (following := self._next()) is not None:
            self._work_on(*following)
            if time.monotonic() - self._written > _GATHER_S:
                self._write()
        self._write()

    def tick(self) -> None:
        """Called by the node now and then: do not let many wait behind one that takes long."""
        if not self._waiting or time.monotonic() - self._busy_since < _PATIENCE_S:
            return
        with self._lock:
            behind = list(self._waiting)
            self._waiting.clear()
        for started, _ in behind:
            try:
                leases.give_back(started)
            except LeaseLost:
                logger.info("lease lost before its turn", extra={"run": str(started.public_id)})

    def _next(self) -> tuple[Started, Task] | None:
        with self._lock:
            self._busy_since = time.monotonic()
            return self._waiting.popleft() if self._waiting else None

    def _work_on(self, started: Started, task: Task) -> None:
        # What is reported of a run that was stopped before its turn depends on why (``ends.report``).
        failure = leases.CANCELLED
        began = time.time()
        clock = time.perf_counter()
        if not task.stopped:
            try:
                function = find(started.agent_spec["function"])
                # Anew: to load its module takes longer than most calls, once.
                clock = time.perf_counter()
                with _span(started):
                    result = _call(function, started, task)
                failpoints.hit(Place.WORKED)
            except AosError as error:
                failure = Failure(code=error.code, detail=str(error), retryable=error.retryable)
            else:
                took = time.perf_counter() - clock
                self._node.paces.add(started.version_id, took)
                self._note(started, task, result, began=began, took=took)
                return
        self._end(started, task, failure)
        if self._events:
            took = time.perf_counter() - clock
            self._events.ended(started, began=began, took=took, failure=failure)

    def _note(
        self, started: Started, task: Task, result: dict[str, Any], *, began: float, took: float
    ) -> None:
        after, lines = task.log.take()
        report = Report(
            lease=started.lease,
            state=RunState.SUCCEEDED,
            after=after,
            result=result,
            isolation=ISOLATION,
            lines=lines,
        )
        self._reports.append((started, task, report))
        self._moments[started.lease.run_id] = (began, took)

    def _end(self, started: Started, task: Task, failure: Failure) -> None:
        try:
            ends.report(started, task, failure)
        except LeaseLost:
            logger.warning("lease lost, work dropped", extra={"run": str(started.public_id)})

    def _write(self) -> None:
        self._written = time.monotonic()
        reports, self._reports = self._reports, []
        if len(reports) == 1:
            # It shares a statement with those of other messages, and nobody waits for that here.
            ((started, task, report),) = reports
            self._node.finisher.put(task, report, partial(self._told, started))
        elif reports:
            ours = insist(lambda: leases.finish([report for *_, report in reports]))
            for started, *_ in reports:
                self._told(started, ours)

    def _told(self, started: Started, ours: Collection[Lease]) -> None:
        if started.lease not in ours:
            logger.warning("lease lost, work dropped", extra={"run": str(started.public_id)})
        if self._events:
            began, took = self._moments[started.lease.run_id]
            self._events.ended(started, began=began, took=took, failure=None)


def _call(function: Function, started: Started, task: Task) -> dict[str, Any]:
    try:
        return _checked(function(Call(started, task)))
    except AosError:
        raise
    except Exception as error:
        # The edge to code that is not ours: whatever it raises is the run's failure.
        logger.exception("function broke", extra={"run": str(started.public_id)})
        reason = _printable(f"{type(error).__name__}: {error}")[:1500]
        raise FunctionFailed(reason=reason) from error


def _checked(result: object) -> dict[str, Any]:
    """What the receipt will say: a summary and facts, as bounded as a script's."""
    if result is None:
        return {}
    if not isinstance(result, dict) or not result.keys() <= {"summary", "facts"}:
        raise BadResult(why="must be a dict with summary and facts, or None")
    summary, facts = result.get("summary", ""), result.get("facts", {})
    if not isinstance(summary, str) or len(summary) > _SUMMARY_LIMIT:
        raise BadResult(why=f"has a summary that is not a text of at most {_SUMMARY_LIMIT} letters")
    if not isinstance(facts, dict) or len(facts) > _FACTS_LIMIT:
        raise BadResult(why=f"has facts that are not a dict of at most {_FACTS_LIMIT}")
    if not all(isinstance(name, str) and _is_fact(value) for name, value in facts.items()):
        raise BadResult(
            why=f"has a fact that is not a text of at most {_TEXT_LIMIT}, number or flag"
        )
    try:
        text = json.dumps(result, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except ValueError as error:
        raise BadResult(why="cannot be stored") from error
    if b"\\u0000" in text:
        raise BadResult(why="holds a NUL")
    return result


def _is_fact(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _TEXT_LIMIT
    return value is None or isinstance(value, bool | int | float)


def _printable(text: str) -> str:
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _span(started: Started) -> AbstractContextManager[Any]:
    """The call's place in its trace, where somebody collects traces: it costs as much as a short call."""
    if not settings.OTLP_ENDPOINT:
        return nullcontext()
    return tracing.TRACER.start_as_current_span(
        f"run {started.agent_slug}",
        context=tracing.context_of(started.trace),
        attributes={"aos.run.id": started.task_id, "gen_ai.agent.name": started.agent_slug},
    )
