"""Who acts: the person, and the token they act through."""

from __future__ import annotations

from dataclasses import dataclass

from apps.events.types import ActorRef
from apps.identity.models import ApiToken, User


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """The responsible person, or service account, behind a service call. Services take it as ``by=``."""

    user: User
    token: ApiToken | None = None
    # Acts through a session that has not proved lately who it is (see ``policy.require``).
    is_stale: bool = False

    @property
    def ref(self) -> ActorRef:
        """The same by value, for records that outlive the rows."""
        return ActorRef(
            kind="service" if self.user.is_service_account else "user",
            id=self.user.pk,
            name=self.user.username,
            organization_id=self.user.organization_id,
            token_id=self.token.pk if self.token else None,
        )
