"""A laptop's settings, with places to crash at. Only the processes of these tests use them."""

from __future__ import annotations

from aos_project import env
from aos_project.settings.dev import *  # noqa: F403  # as the settings themselves do

AOS_FAILPOINTS = env.text("TEST_FAILPOINTS", default="") or None
