"""Leave to keep looking: what a connection that stays open asks again while it is open.

A request is allowed once; a stream lives for hours. It keeps this small record of who was let in and
how, and asks every few seconds whether that person would be let in now: signed out, disabled,
password changed, token revoked or expired, role withdrawn, each ends it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import auth
from django.http import HttpRequest

from apps.core import memory, tenancy
from apps.core.errors import NotAllowed
from apps.identity import denials, policy
from apps.identity.actor import Actor
from apps.identity.errors import ScopeMissing
from apps.identity.models import ApiToken, User


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """One actor's look at one project, or at one run of it, by value."""

    action: str
    organization_id: UUID
    project_id: UUID
    user_id: UUID
    agent_id: UUID | None = None
    run_id: UUID | None = None
    token_id: UUID | None = None
    session_key: str | None = None

    def holds(self) -> bool:
        """Whether the actor would be let in now. What was withdrawn meanwhile is a refusal on record."""
        memory.forget()
        with tenancy.organization(self.organization_id), denials.recorded():
            return self._holds()

    def _holds(self) -> bool:
        by = self._actor()
        if by is None or by.user.pk != self.user_id:
            return False
        if by.user.organization_id != self.organization_id:
            return False
        try:
            policy.require(
                by,
                self.action,
                project_id=self.project_id,
                agent_id=self.agent_id,
                run_id=self.run_id,
            )
        except (NotAllowed, ScopeMissing):
            return False
        return True

    def _actor(self) -> Actor | None:
        if self.token_id is not None:
            found = (
                ApiToken.objects.usable().select_related("user").filter(pk=self.token_id).first()
            )
            return Actor(user=found.user, token=found) if found else None
        if self.session_key is not None:
            user = signed_in(self.session_key)
        else:
            user = User.objects.filter(pk=self.user_id, is_active=True).first()
        return Actor(user=user) if user else None


def begin(
    by: Actor,
    action: str,
    *,
    project_id: UUID,
    agent_id: UUID | None = None,
    run_id: UUID | None = None,
    session_key: str | None = None,
) -> Watch:
    """Let the actor in, or raise ``NotAllowed`` or ``ScopeMissing``.

    The caller has found the project with ``visible_to``, so it is one of the actor's organization.
    """
    policy.require(by, action, project_id=project_id, agent_id=agent_id, run_id=run_id)
    return Watch(
        action=action,
        organization_id=by.user.organization_id,
        project_id=project_id,
        agent_id=agent_id,
        run_id=run_id,
        user_id=by.user.pk,
        token_id=by.token.pk if by.token else None,
        session_key=None if by.token else session_key,
    )


def signed_in(session_key: str) -> User | None:
    """The active person behind a session that has neither ended nor outlived a password change.

    Only looks: Django would give a session that a former key has signed a new key, and a browser that
    is not being answered would never hear of it.
    """
    engine: Any = import_module(settings.SESSION_ENGINE)
    # The class's name is part of what signs a session.
    looking = type("SessionStore", (engine.SessionStore,), {"cycle_key": _leave, "flush": _leave})
    request = HttpRequest()
    request.session = looking(session_key)
    user = auth.get_user(request)
    return user if isinstance(user, User) else None


def _leave(_session: Any) -> None:
    """Leave the session as it is."""
