"""Production: no secret has a default, and an unsafe value stops the process at start-up."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured

from aos_project import env
from aos_project.settings.base import *

SECRET_KEY = env.secret("AOS_SECRET_KEY")
AOS_TOKEN_PEPPER = env.secret("AOS_TOKEN_PEPPER", default=SECRET_KEY)
AOS_ENVIRONMENT = env.text("AOS_ENVIRONMENT", default="prod")
ALLOWED_HOSTS = env.words("AOS_ALLOWED_HOSTS")
# Base has defaults for these; here they must be given.
env.secret("DATABASE_URL")
AOS_REDIS_URL = env.secret("REDIS_URL")
CELERY_BROKER_URL = env.secret("BROKER_URL", default=AOS_REDIS_URL)

SECURE_SSL_REDIRECT = env.flag("AOS_SSL_REDIRECT", default=True)
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# Programs are refused instead: ``apps.core.transport``.
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$", r"^api(/|$)"]
SECURE_HSTS_SECONDS = 31_536_000
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
SECURE_HSTS_PRELOAD = True
SESSION_COOKIE_SECURE = True
SESSION_COOKIE_NAME = "__Host-sessionid"
CSRF_COOKIE_SECURE = True
CSRF_COOKIE_NAME = "__Host-csrftoken"
CSRF_COOKIE_HTTPONLY = True


def _refuse(reason: str) -> None:
    raise ImproperlyConfigured(f"AOS will not start in production: {reason}")


if len(SECRET_KEY) < 32 or SECRET_KEY.startswith(("dev-only", "django-insecure", "change")):
    _refuse("AOS_SECRET_KEY is a default or shorter than 32 characters; set a random one.")
if any(len(key) < 32 for key in (*SECRET_KEY_FALLBACKS, AOS_TOKEN_PEPPER)):
    _refuse("AOS_SECRET_KEY_FALLBACKS or AOS_TOKEN_PEPPER has a key of fewer than 32 characters.")
if len({SECRET_KEY, *SECRET_KEY_FALLBACKS}) != 1 + len(SECRET_KEY_FALLBACKS):
    _refuse("AOS_SECRET_KEY is among AOS_SECRET_KEY_FALLBACKS, or one is named twice.")
if SECRET_KEY_FALLBACKS and AOS_TOKEN_PEPPER == SECRET_KEY:
    _refuse(
        "AOS_SECRET_KEY has changed and AOS_TOKEN_PEPPER is not set, so that no API token would be"
        " accepted; set AOS_TOKEN_PEPPER to the key that AOS was installed with."
    )
if not ALLOWED_HOSTS or "*" in ALLOWED_HOSTS:
    _refuse("AOS_ALLOWED_HOSTS must name the hosts you serve, and '*' is not a name.")
if env.flag("DEBUG", default=False) or env.flag("AOS_DEBUG", default=False):
    _refuse("DEBUG is on; unset it.")
if "*" in env.words("FORWARDED_ALLOW_IPS", default=("127.0.0.1",)):
    _refuse(
        "FORWARDED_ALLOW_IPS=* believes whatever a client says its address is; name the proxies."
    )
if AOS_SANDBOX_DRIVER == "local":
    _refuse("AOS_SANDBOX_DRIVER=local isolates nothing; use docker.")
