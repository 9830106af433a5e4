"""One run from its START to its receipt."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from functools import partial
from typing import Final

from opentelemetry import trace

from apps.core import blobs, failpoints, mediatypes, tracing
from apps.core.errors import AosError
from apps.core.failpoints import Place
from apps.runs.errors import LeaseLost
from apps.runs.services import leases
from apps.runs.types import ArtifactData, Failure, Report, RunState, Started
from apps.sandboxes.services import tracking
from apps.sandboxes.types import EgressMode
from workers import ends
from workers.held import Held
from workers.insist import insist
from workers.node import Node, Stop, Task
from workers.output import Transcript
from workers.runlog import RunLog
from workers.sandbox.base import Execution, Output, Sandbox, SandboxSpec
from workers.supply import Supply
from workers.taskevents import TaskEvents
from workers.workspace import command_for, files_for, sandbox_spec

logger = logging.getLogger(__name__)

STDERR: Final = 2


class RunFailed(AosError):
    """The attempt ended badly for a reason that is told to people; carries the ``Failure``."""

    code = "run_failed"
    template = "{failure}"

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure=failure)
        self.failure = failure


def execute(
    started: Started, *, node: Node, supply: Supply, events: TaskEvents | None = None
) -> None:
    """Execute one attempt and report its end. Raises ``LeaseLost`` when the run is not ours."""
    log = RunLog(started)
    task = Task(started.lease, log)
    attempt = _Attempt(started, task=task, node=node, supply=supply)
    telling = events.telling(started, failure=lambda: attempt.failure) if events else nullcontext()
    began = time.monotonic()
    with node.holding([task]), telling:
        with tracing.TRACER.start_as_current_span(
            f"run {started.agent_slug}",
            context=tracing.context_of(started.trace),
            kind=trace.SpanKind.CONSUMER,
            attributes={
                "aos.run.id": str(started.public_id),
                "aos.run.attempt": started.attempt,
                "aos.project.id": str(started.project_id),
                "gen_ai.agent.name": started.agent_slug,
            },
        ):
            attempt.carry_out()
        node.paces.add(started.version_id, time.monotonic() - began)


class _Attempt:
    """The steps of one attempt, sharing the sandbox's record and the transcript."""

    def __init__(self, started: Started, *, task: Task, node: Node, supply: Supply) -> None:
        self._started = started
        self._task = task
        self._node = node
        self._supply = supply
        self._transcript = Transcript()
        self._execution: Execution | None = None
        #: How it ended, if not well.
        self.failure: Failure | None = None

    def carry_out(self) -> None:
        """Run, then report exactly one outcome: result, failure, cancellation or give-back."""
        try:
            artifacts = self._in_sandbox()
        except LeaseLost:
            raise
        except RunFailed as error:
            self._report(error.failure)
        except AosError as error:
            self._report(Failure(code=error.code, detail=str(error), retryable=error.retryable))
        except Exception:
            # The outermost edge of a run: a bug of ours must not leave the run open for ever.
            logger.exception("run broke", extra={"run": str(self._started.public_id)})
            self._report(
                Failure(
                    code="internal_error",
                    detail="AOS failed while executing this run; the worker's log says why.",
                    retryable=True,
                )
            )
        else:
            self._succeed(artifacts)

    def _succeed(self, artifacts: list[ArtifactData]) -> None:
        after, lines = self._task.log.take()
        report = Report(
            lease=self._started.lease,
            state=RunState.SUCCEEDED,
            after=after,
            result=self._transcript.result,
            lines=lines,
            artifacts=artifacts,
        )
        if not insist(lambda: self._node.finish_run(report)):
            raise LeaseLost(run_id=self._started.public_id)

    def _report(self, failure: Failure) -> None:
        self.failure = failure
        ends.report(self._started, self._task, failure)

    def _in_sandbox(self) -> list[ArtifactData]:
        leases.note_isolation(self._started, self._supply.driver.isolation)
        spec = sandbox_spec(self._started)
        with self._supply.hold(spec, self._use()) as held:
            try:
                return self._used(held, spec)
            except AosError:
                self._keep_workspace(held)
                raise

    def _used(self, held: Held, spec: SandboxSpec) -> list[ArtifactData]:
        with held.awake() as sandbox:
            self._task.on_stop(partial(self._stop, held))
            failpoints.hit(Place.SANDBOX_READY)
            self._task.log.say(f"Sandbox ready, isolation: {sandbox.isolation}")
            self._attend_egress(sandbox, spec)
            self._run_command(sandbox)
            failpoints.hit(Place.WORKED)
            return self._collect(sandbox)

    @property
    def _keeps(self) -> bool:
        return bool(self._started.agent_spec.get("keep_workspace"))

    def _stop(self, held: Held) -> None:
        """End everything; of a workspace that another attempt shall have, only its command."""
        if self._execution and self._keeps and self._task.stopped is Stop.DRAINED:
            self._execution.stop()
        else:
            held.kill()

    def _keep_workspace(self, held: Held) -> None:
        """Put the workspace away for the next attempt, if there may be one. It is no reason to fail."""
        if not self._keeps or self._task.stopped in {Stop.CANCELLED, Stop.LOST}:
            return
        try:
            contents = held.put_away()
        except AosError as error:
            self._task.log.say(f"The workspace is not kept: {error}", level="WARN")
            return
        if contents:
            self._task.log.say(f"The workspace is kept for the next attempt: {contents}")

    def _attend_egress(self, sandbox: Sandbox, spec: SandboxSpec) -> None:
        sandbox.watch_egress(self._task.log.note_denial)
        driver = self._supply.driver
        if spec.egress.mode != EgressMode.NONE and not driver.supports_network_policy:
            self._task.log.say(
                f"The {driver.name} sandbox driver cannot limit the network: "
                "what the version says of it is not enforced.",
                level="WARN",
            )

    def _use(self) -> tracking.Use:
        return tracking.Use(
            organization_id=self._started.organization_id,
            project_id=self._started.project_id,
            run_id=self._started.public_id,
            attempt=self._started.attempt,
        )

    def _run_command(self, sandbox: Sandbox) -> None:
        if sandbox.is_restored:
            self._task.log.say("The workspace is as an earlier attempt left it.")
        else:
            for path, data in files_for(self._started):
                sandbox.put_files({path: data})
        with tracing.TRACER.start_as_current_span("sandbox exec") as span:
            execution = sandbox.run(command_for(self._started, workspace=sandbox.workspace))
            self._execution = execution
            for output in execution:
                self._note(output)
            self._task.log.add(self._transcript.close())
            span.set_attribute("aos.sandbox.outcome", execution.exit.outcome)
        if traffic := sandbox.traffic():
            self._task.log.say(str(traffic))
        if error := execution.exit.error():
            raise RunFailed(self._explained(error))

    def _note(self, output: Output) -> None:
        if output.skipped:
            self._task.log.say(
                f"{output.skipped:,} bytes of output were left out: the limit was reached.",
                level="WARN",
            )
        stream = "stderr" if output.fd == STDERR else "stdout"
        self._task.log.add(self._transcript.feed(stream, output.data))

    def _explained(self, error: AosError) -> Failure:
        """The failure with the script's own last words, which usually say what is wrong."""
        said = "\n".join(self._transcript.complaints)[-1500:]
        detail = f"{error}\n{said}" if said else str(error)
        return Failure(code=error.code, detail=detail, retryable=error.retryable)

    def _collect(self, sandbox: Sandbox) -> list[ArtifactData]:
        store = _Store()
        with tracing.TRACER.start_as_current_span("artifacts collect"):
            collected = sandbox.collect(
                tuple(self._started.agent_spec.get("artifacts", ["*"])), sink=store
            )
        if error := collected.error():
            raise error
        return [
            ArtifactData(
                name=item.name,
                sha256=item.sha256,
                size=item.size,
                media_type=mediatypes.sniff(item.name, store.head(item.name)),
            )
            for item in collected.artifacts
        ]


class _Store:
    """Collected files go straight to the blob store; only how they begin stays in memory."""

    def __init__(self) -> None:
        self._writers: dict[str, blobs.Writer] = {}

    def open(self, name: str, *, size: int) -> blobs.Writer:
        self._writers[name] = writer = blobs.Writer()
        return writer

    def head(self, name: str) -> bytes:
        return self._writers[name].head
