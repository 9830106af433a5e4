"""Tells the rest of the platform what sandboxes can be made of on this host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from django.conf import settings

from apps.sandboxes.services import offers
from apps.sandboxes.types import LIMITS, EgressMode, ImageReport, ProfileReport
from workers.sandbox.base import SandboxDriver
from workers.sandbox.profiles import Profile


def tell(host: str, *, driver: SandboxDriver, profiles: Mapping[str, Profile]) -> None:
    """Write it down. Raises ``SandboxError`` when the engine cannot say what it has."""
    told = [_told(profile) for profile in profiles.values()]
    # A driver without images makes sandboxes of what the host has.
    images = list(_images(profiles)) if driver.name == "docker" else []
    offers.report(host=host, profiles=told, images=images)


def _told(profile: Profile) -> ProfileReport:
    allowed = EgressMode(settings.AOS_SANDBOX_EGRESS)
    plain = profile.spec({}, most_egress=allowed)
    return ProfileReport(
        name=profile.name,
        image=profile.image,
        runtime=profile.runtime,
        egress=profile.egress if allowed.covers(profile.egress) else allowed,
        gets={limit: getattr(plain, limit) for limit in LIMITS},
        most={
            limit: min(rule["maximum"], profile.most.get(limit, rule["maximum"]))
            for limit, rule in LIMITS.items()
        },
    )


def _images(profiles: Mapping[str, Profile]) -> Iterator[ImageReport]:
    """Those that can be built here, and those that profiles name besides."""
    # Here, so that a host without Docker never loads its client.
    from workers.sandbox import images

    states = [images.state(name) for name in images.names()]
    ours = {state.tag for state in states}
    named = {profile.image for profile in profiles.values()} - ours
    for state in [*states, *(images.strange(tag) for tag in sorted(named))]:
        yield ImageReport(
            tag=state.tag,
            source=state.name,
            digest=state.digest,
            size=state.size,
            built_at=state.built_at or None,
            base=state.base,
            is_current=state.is_current if state.name and state.is_built else None,
        )
