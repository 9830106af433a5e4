"""Recording who holds which sandbox, so that nothing is left behind unseen."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from uuid import UUID

from apps.core import clock
from apps.sandboxes.models import Sandbox
from apps.sandboxes.types import SandboxState


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What is known of a sandbox before it exists."""

    organization_id: UUID
    project_id: UUID
    run_id: UUID
    attempt: int
    driver: str
    isolation: str
    image: str
    worker: str


def opening(facts: Opening) -> Sandbox:
    """Write the row before the sandbox exists: a crash then leaves a row without a sandbox."""
    return Sandbox.objects.create(**asdict(facts))


def opened(sandbox: Sandbox, *, container_id: str, image: str) -> None:
    """Note what was really made: ``image`` is exact now, not a tag."""
    Sandbox.objects.filter(pk=sandbox.pk).update(
        state=SandboxState.CLAIMED, container_id=container_id, image=image
    )


def gone(sandbox: Sandbox) -> None:
    Sandbox.objects.filter(pk=sandbox.pk).alive().update(
        state=SandboxState.GONE, gone_at=clock.now()
    )


def failed(sandbox: Sandbox) -> None:
    Sandbox.objects.filter(pk=sandbox.pk).alive().update(
        state=SandboxState.FAILED, gone_at=clock.now()
    )


def alive_ids() -> set[str]:
    """Ids of sandboxes that may still be in use, for the reaper to spare."""
    return {str(pk) for pk in Sandbox.objects.alive().values_list("pk", flat=True)}
