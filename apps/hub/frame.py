"""What surrounds every page: the current project, the others, and where the person may go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.conf import settings
from django.http import HttpRequest

from apps.events.models import Stream
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.models import User
from apps.identity.services import sessions
from apps.projects.models import Project
from apps.runs.models import Run

SESSION_KEY: Final = "aos_project"
_RECENT: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    project: Project | None
    projects: list[Project]
    recent: list[Run]
    # The project's last event when the page was made; the socket asks for what comes after it.
    seq: int
    name: str
    may_admin: bool
    may_watch: bool
    may_audit: bool
    may_see_people: bool
    environment: str


def of(request: HttpRequest, *, project: Project | None = None) -> Frame:
    """The frame for this request. Make it before the page's other queries: then nothing that
    happens in between is lost, it comes again over the socket."""
    user = request.user
    if not isinstance(user, User):
        return _outside()
    if request.session.session_key:
        sessions.seen(user, request.session.session_key)
    projects = list(Project.objects.visible_to(user))
    # A run may be shown to somebody whose role over it, or over its agent, is none in its project.
    if project not in projects:
        project = current(request, projects)
    stream = Stream.objects.filter(project_id=project.pk).first() if project else None
    by = Actor(user=user)
    return Frame(
        project=project,
        projects=projects,
        recent=recent(user, project) if project else [],
        seq=stream.last_seq if stream else 0,
        name=user.get_full_name() or user.username,
        may_admin=policy.allows(by, "admin.view"),
        may_watch=policy.allows(by, "queue.watch"),
        may_audit=policy.allows(by, "audit.read"),
        may_see_people=policy.allows(by, "people.read"),
        environment=settings.AOS_ENVIRONMENT,
    )


def _outside() -> Frame:
    return Frame(
        project=None,
        projects=[],
        recent=[],
        seq=0,
        name="",
        may_admin=False,
        may_watch=False,
        may_audit=False,
        may_see_people=False,
        environment=settings.AOS_ENVIRONMENT,
    )


def current(request: HttpRequest, projects: list[Project]) -> Project | None:
    """The project the person chose last, or the first they may see."""
    chosen = request.session.get(SESSION_KEY)
    for project in projects:
        if str(project.pk) == chosen:
            return project
    return projects[0] if projects else None


def recent(user: User, project: Project) -> list[Run]:
    runs = Run.objects.visible_to(user).filter(project=project).select_related("lease")
    return list(runs.newest(_RECENT))
