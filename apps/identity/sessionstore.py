"""Django's sessions in the database, which end when ``lifetime`` says so, and whose new keys are told to
the list of where people are signed in.

Django gives a session a new key by itself when a former ``AOS_SECRET_KEY`` had signed it. Without
this the person could no longer see and end that browser.
"""

from __future__ import annotations

from asgiref.sync import sync_to_async
from django.contrib.sessions.backends import db

from apps.core import tenancy
from apps.identity import lifetime
from apps.identity.models import SignIn


class SessionStore(db.SessionStore):
    def get_session_cookie_age(self) -> int:
        """Of the row as of the cookie: whatever is stored ends at the earlier of both times."""
        return int(lifetime.left(self).total_seconds())

    def cycle_key(self) -> None:
        before = self.session_key
        super().cycle_key()
        if before:
            # The person behind it is just being found out.
            with tenancy.platform():
                SignIn.objects.filter(session_key=before).update(session_key=self.session_key)

    async def acycle_key(self) -> None:
        await sync_to_async(self.cycle_key)()
