"""What hosts offer for sandboxes: profiles and images, as the workers there tell it.

The web process reaches no engine and reads no host's file of profiles, so these rows are all it knows.
A host that has been silent for a day is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import groupby
from typing import Any, Final

from django.db import transaction
from django.db.models.functions import Now

from apps.core import clock
from apps.sandboxes.models import HostImage, HostProfile
from apps.sandboxes.types import LIMITS, EgressMode, ImageReport, ProfileReport

FORGOTTEN: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A profile as every host that has it will honor it: the least of what they allow."""

    name: str
    image: str
    hosts: tuple[str, ...]
    egress: EgressMode
    gets: Mapping[str, float]
    most: Mapping[str, float]


@transaction.atomic
def report(*, host: str, profiles: Sequence[ProfileReport], images: Sequence[ImageReport]) -> None:
    """Note what a host offers now; what it offered before and does not any more is forgotten."""
    _write(HostProfile, "name", host, [asdict(each) for each in profiles])
    _write(HostImage, "tag", host, [asdict(each) for each in images])


def _write(model: Any, key: str, host: str, told: list[dict[str, Any]]) -> None:
    # In one order, so that two workers of a host wait for each other and never in a circle.
    rows = sorted(told, key=lambda row: str(row[key]))
    model.objects.bulk_create(
        [model(host=host, seen_at=Now(), **row) for row in rows],
        update_conflicts=True,
        unique_fields=["host", key],
        update_fields=[*(name for row in rows[:1] for name in row if name != key), "seen_at"],
    )
    known = model.objects.filter(host=host)
    known.exclude(**{f"{key}__in": [row[key] for row in rows]}).delete()
    model.objects.filter(seen_at__lt=clock.now() - FORGOTTEN).delete()


def profiles() -> dict[str, Offer]:
    """What may be named in an environment, by name; empty until a worker has told."""
    rows = HostProfile.objects.order_by("name", "host")
    return {name: _merged(name, found) for name, found in groupby(rows, key=lambda row: row.name)}


def images() -> list[HostImage]:
    return list(HostImage.objects.order_by("tag", "host"))


def _merged(name: str, found: Iterable[HostProfile]) -> Offer:
    rows = list(found)
    order = list(EgressMode)
    return Offer(
        name=name,
        image=rows[0].image,
        hosts=tuple(row.host for row in rows),
        egress=min((EgressMode(row.egress) for row in rows), key=order.index),
        gets={limit: min(row.gets[limit] for row in rows) for limit in LIMITS},
        most={limit: min(row.most[limit] for row in rows) for limit in LIMITS},
    )
