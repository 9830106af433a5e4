from __future__ import annotations

from http import HTTPStatus

from apps.core.errors import AosError


class RunError(AosError):
    """Anything a caller of ``apps.runs.services`` may want to catch."""


class LeaseLost(RunError):
    """Another worker owns the run now: drop the work, report nothing, do not retry."""

    code = "lease_lost"
    title = "Lease lost"
    status = HTTPStatus.CONFLICT
    template = "The lease on run {run_id} is no longer held."


class RunIsOver(RunError):
    code = "run_is_over"
    title = "The run is over"
    status = HTTPStatus.CONFLICT
    template = "This run has already {state}; there is nothing left to cancel."


class AgentNotReleased(RunError):
    code = "agent_not_released"
    title = "Agent not released"
    status = HTTPStatus.CONFLICT
    template = "The agent {agent!r} has no released version yet. Release one first."


class AgentInUse(RunError):
    code = "agent_in_use"
    title = "Agent in use"
    status = HTTPStatus.CONFLICT
    template = (
        "The agent {agent!r} cannot be deleted: {count} of its runs are not over. "
        "Wait for them or cancel them, then delete it."
    )


class NoDeadLetter(RunError):
    code = "not_a_dead_letter"
    title = "Not a dead letter"
    status = HTTPStatus.CONFLICT
    template = (
        "This run is {state} and no dead letter: only one that failed, expired or is dead can be "
        "requeued or dismissed. Run it again instead."
    )


class LetterSettled(RunError):
    code = "dead_letter_settled"
    title = "Already settled"
    status = HTTPStatus.CONFLICT
    template = "This dead letter was {how} before. Run it again if you want another."


class ParentIsOver(RunError):
    code = "parent_is_over"
    title = "The parent is over"
    status = HTTPStatus.CONFLICT
    template = "The parent is {state}: it gets no more children. Submit the run by itself."


class TooDeep(RunError):
    code = "children_too_deep"
    title = "Too many generations"
    status = HTTPStatus.CONFLICT
    template = (
        "There may be {most} generations of children below a run, and as many are there. Ask the "
        "operator to raise AOS_CHILD_DEPTH."
    )


class TooManyChildren(RunError):
    code = "too_many_children"
    title = "Too many children"
    status = HTTPStatus.CONFLICT
    template = (
        "There may be {most} runs below one that has no parent, and as many are there, ended ones "
        "among them. Ask the operator to raise AOS_CHILDREN."
    )


class BudgetSpent(RunError):
    code = "budget_spent"
    title = "The budget is spent"
    status = HTTPStatus.CONFLICT
    template = (
        "The runs of this tree hold all of the {granted} run seconds of its budget. What they do not "
        "use is free again when they have ended."
    )


class ChildKeyReused(RunError):
    code = "child_key_reused"
    title = "The key of a child reused"
    status = HTTPStatus.CONFLICT
    template = (
        "The run has another child under the key {key!r}. Give each of them a key of its own."
    )


class BulkIsOver(RunError):
    code = "bulk_act_is_over"
    title = "The bulk act is over"
    status = HTTPStatus.CONFLICT
    template = "This bulk act is {state}; there is nothing left to {act}."


class NothingMatches(RunError):
    code = "nothing_matches"
    title = "No run matches"
    status = HTTPStatus.CONFLICT
    template = "No run matches this filter that you could {verb}. Ask for a preview first."


class QueueFull(RunError):
    code = "queue_full"
    title = "Too many runs wait"
    status = HTTPStatus.TOO_MANY_REQUESTS
    retryable = True
    template = (
        "{limit} runs of your organization may wait, and as many do. Submit again when some have "
        "started, or ask an administrator to raise queue_limit."
    )


class KeyMissing(RunError):
    code = "idempotency_key_missing"
    title = "Idempotency-Key missing"
    status = HTTPStatus.BAD_REQUEST
    template = "Send an Idempotency-Key header of 16 to 255 visible ASCII characters."


class KeyReused(RunError):
    code = "idempotency_key_reused"
    title = "Idempotency-Key reused"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    template = "This Idempotency-Key was used for a different request. Use a new key."


class KeyBusy(RunError):
    code = "idempotency_key_busy"
    title = "Request in progress"
    status = HTTPStatus.CONFLICT
    retryable = True
    template = "A request with this Idempotency-Key is still being handled. Try again in a second."
