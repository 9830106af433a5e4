"""Why a run ended badly, in words, and what the person can do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    title: str
    code: str
    detail: str
    advice: str


# What happened, and what to do about it, by the error's code.
_KNOWN: Final[Mapping[str, tuple[str, str]]] = {
    "command_failed": (
        "The agent ended with an error",
        "Its last lines in the log say why. Change the input or the agent, then run it again.",
    ),
    "command_timed_out": (
        "The agent took too long",
        "Give it less to do, or raise timeout_s in the agent's version.",
    ),
    "run_timed_out": (
        "The agent took too long",
        "Give it less to do, or raise timeout_s in the agent's version.",
    ),
    "out_of_memory": (
        "The agent ran out of memory",
        "Give it a smaller input, or raise memory_mb in the agent's version or its environment.",
    ),
    "workspace_full": (
        "The sandbox is full",
        "Give it a smaller input, or raise workspace_mb in the agent's version or its environment.",
    ),
    "snapshot_too_large": (
        "Its files are too many to be kept",
        "Let the agent leave less in its workspace, or ask who operates AOS to raise "
        "AOS_SANDBOX_SNAPSHOT_MB.",
    ),
    "store_unavailable": (
        "The store of files did not answer",
        "Run it again; if it happens again, ask who operates AOS to look at AOS_ARTIFACT_STORE.",
    ),
    "content_gone": (
        "A file it was given is no longer stored",
        "Upload the file again, then submit a new run.",
    ),
    "artifact_rejected": (
        "A file it left was refused",
        "The agent must write plain files below out/, within the limits of size and number.",
    ),
    "file_refused": (
        "A file could not be used",
        "Look at the file's name and size, then run it again.",
    ),
    "sandbox_spec_invalid": (
        "The agent asks for impossible limits",
        "Correct the limits in a new version of the agent, or in its environment.",
    ),
    "egress_not_allowed": (
        "The agent asks for too much network",
        "List the hosts it needs in a new version, or ask the operator to raise AOS_SANDBOX_EGRESS.",
    ),
    "sandbox_profile_unknown": (
        "The sandbox profile is not there",
        "Name another profile in a new version or the environment, or ask the operator to add it.",
    ),
    "sandbox_profiles_invalid": (
        "The sandbox profiles cannot be read",
        "The operator corrects the file that AOS_SANDBOX_PROFILES names.",
    ),
    "runtime_missing": (
        "The sandbox runtime is missing",
        "The operator installs it on the worker's host, or takes it out of the profile.",
    ),
    "sandbox_unavailable": (
        "No sandbox could be made",
        "Ask the operator whether the Docker engine of the worker's host runs, then run it again.",
    ),
    "image_missing": (
        "The sandbox image is missing",
        "The operator builds it with: manage.py images build",
    ),
    "image_unfit": (
        "The sandbox image does not work",
        "The operator builds it anew with: manage.py images build --force",
    ),
    "local_sandbox_refused": (
        "No sandbox is allowed here",
        "The operator must start a Docker engine; local sandboxes isolate nothing.",
    ),
    "sandbox_lost": ("Its sandbox disappeared", "Run it again; what it did is unknown."),
    "sandbox_protocol": (
        "The sandbox was tampered with",
        "Look at the agent before you run it again: its code reached for the supervisor.",
    ),
    "function_failed": (
        "The function raised an error",
        "The error says why. Change the input, or ask who wrote the function, then run it again.",
    ),
    "function_unknown": (
        "No worker has this function",
        "Ask the operator to name it in AOS_FUNCTIONS where the workers run.",
    ),
    "bad_result": (
        "The function returned something unexpected",
        "Ask who wrote it: a function returns a summary and facts, or nothing.",
    ),
    "worker_lost": (
        "Its worker disappeared",
        "Run it again. If it happens often, ask the operator to look at the workers' hosts.",
    ),
    "killed_its_worker": (
        "It took its workers down",
        "Look at the agent before you run it again: several workers died while running it.",
    ),
    "dependency_failed": (
        "A run it depends on did not succeed",
        "Look at that run. When it is repaired, run both again.",
    ),
    "queue_deadline_passed": (
        "No worker was free in time",
        "Run it again later, or with a longer queue deadline.",
    ),
    "total_deadline_passed": (
        "It did not end in time",
        "See in the log where the time went, then run it again, or with a longer total deadline.",
    ),
    "budget_spent": (
        "Its budget is used up",
        "Look at what its children did, then run it again, or with a larger budget.",
    ),
    "internal_error": (
        "AOS failed, not the agent",
        "Run it again. If it stays, tell the operator the trace id.",
    ),
}
# Somebody wanted it so; there is nothing to explain or repair.
_NO_FAULT: Final = frozenset({"cancelled", "skipped", "parent_ended"})
_AGAIN: Final = "This can pass by itself: run it again."
_LOOK: Final = "Look at the last lines of the log, then change the input or the agent."


def explain(error: Mapping[str, Any] | None) -> Explained | None:
    """``error`` as runs and receipts carry it: code, detail, retryable."""
    code = str((error or {}).get("code") or "")
    if not error or code in _NO_FAULT:
        return None
    title, advice = _KNOWN.get(code, ("The run did not succeed", ""))
    return Explained(
        title=title,
        code=code or "error",
        detail=str(error.get("detail") or ""),
        advice=advice or (_AGAIN if error.get("retryable") else _LOOK),
    )
