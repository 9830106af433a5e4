"""A laptop: the local sandbox is allowed and shown as such."""

from __future__ import annotations

from aos_project.settings.base import *

SECRET_KEY = SECRET_KEY or "dev-only-never-in-production"
AOS_TOKEN_PEPPER = AOS_TOKEN_PEPPER or SECRET_KEY
AOS_ALLOW_LOCAL_SANDBOX = True
