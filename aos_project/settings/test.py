"""The suite: fast hashing, short leases, no static manifest to build first."""

from __future__ import annotations

from datetime import timedelta

from aos_project.settings.base import *

SECRET_KEY = "test"  # noqa: S105  # signs nothing outside a test run
AOS_TOKEN_PEPPER = "test"  # noqa: S105
AOS_ENVIRONMENT = "test"
AOS_ALLOW_LOCAL_SANDBOX = True
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "testserver"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES = STORAGES | {
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
}
WHITENOISE_AUTOREFRESH = True
# A pool would keep sessions of threads that ended, and so the test database from being dropped.
del DATABASES["default"]["OPTIONS"]["pool"]
DATABASES["default"]["CONN_MAX_AGE"] = None
# Room for a suite that asks as fast as it can. Tests of the limits set their own.
AOS_LIMITS = dict.fromkeys(AOS_LIMITS, (1_000_000, 60))
AOS_STREAMS_PER_PERSON = 10_000
AOS_LEADER_TTL = timedelta(seconds=2)
# No Flower that happens to run on this machine.
AOS_FLOWER_URL = "http://127.0.0.1:9"
