from __future__ import annotations

import pytest
from django.db import connection
from django.test import override_settings

from apps.runs.models import Run
from tests.chaos.arena import arena as make_arena


@pytest.fixture(scope="module")
def arena(django_db_blocker, tmp_path_factory):
    """Servers and processes of the module's own. Their logs are shown when a test fails."""
    folder = tmp_path_factory.mktemp("arena")
    with django_db_blocker.unblock(), make_arena(folder, seed=20261121) as built:
        ours = {
            # Where this process rings, and what it may submit.
            "AOS_REDIS_URL": built.servers.redis_url,
            "AOS_INSTANCE": built.platform.env["AOS_INSTANCE"],
            "AOS_FUNCTIONS": {"test.work": ""},
        }
        with override_settings(**ours):
            yield built
        for run in Run.objects.open().values("id", "state", "attempts", "crash_count", "error")[
            :20
        ]:
            print(run)
        print(built.platform.logs())
        connection.close()
