"""Which project's events, from where on, and may they: what sockets and streams ask first."""

from __future__ import annotations

from typing import Final

from rest_framework import serializers

from apps.core.rest.references import find
from apps.core.rest.strict import StrictSerializer
from apps.identity import watch
from apps.identity.actor import Actor
from apps.identity.watch import Watch
from apps.projects.models import Project

ACTION: Final = "event.read"
_GREATEST_SEQ: Final = 2**63 - 1


class EventQuery(StrictSerializer):
    """``?project=&after=``, the same on every wire."""

    project = serializers.CharField(max_length=64, help_text="The project's id or slug.")
    after = serializers.IntegerField(
        min_value=0,
        max_value=_GREATEST_SEQ,
        default=0,
        help_text="The seq of the last event you have; 0 for all.",
    )


def begin(by: Actor, project: str, *, session_key: str | None) -> Watch:
    """Let the actor watch a project, named by id or slug.

    Raises ``NotFound`` for one the actor cannot see, ``NotAllowed`` or ``ScopeMissing``.
    """
    found = find(Project.objects.visible_to(by.user), project, what="project")
    return watch.begin(by, ACTION, project_id=found.pk, session_key=session_key)
