"""What most tests of runs begin with."""

from __future__ import annotations

from datetime import timedelta

import pytest

from apps.identity.types import Role
from apps.runs.services import leadership
from tests.factories import make_actor, make_agent, make_project


@pytest.fixture
def seat(settings):
    """The leader's seat, which a ``StandIn`` shares and a busy machine does not cost."""
    settings.AOS_LEADER_TTL = timedelta(hours=1)
    return leadership.take("stand-in")


@pytest.fixture
def scene():
    """A person who may submit, a project and an agent: what ``make_run`` takes."""
    project = make_project()
    return {
        "by": make_actor(Role.OPERATOR, organization=project.organization),
        "project": project,
        "agent": make_agent(organization=project.organization, slug="work"),
    }
