"""Production does not start with what must never run there."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOOD = {
    "PATH": "/usr/bin",
    "DJANGO_SETTINGS_MODULE": "aos_project.settings.production",
    "AOS_SECRET_KEY": "k" * 50,
    "AOS_ALLOWED_HOSTS": "aos.example",
    "DATABASE_URL": "postgresql://aos:x@db/aos",
    "REDIS_URL": "redis://redis:6379/0",
}
READ = "from django.conf import settings; print(settings.DEBUG, settings.AOS_SANDBOX_DRIVER)"


def boot(**changed: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in (GOOD | changed).items() if value is not None}
    return subprocess.run(
        [sys.executable, "-c", READ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_production_starts_with_good_settings():
    done = boot()

    assert done.stdout.strip() == "False docker", done.stderr


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"AOS_SECRET_KEY": None}, "AOS_SECRET_KEY is required"),
        ({"AOS_SECRET_KEY": "dev-only-never-in-production-but-long"}, "is a default"),
        ({"AOS_SECRET_KEY": "short"}, "shorter than 32"),
        ({"AOS_ALLOWED_HOSTS": None}, "must name the hosts"),
        ({"AOS_ALLOWED_HOSTS": "aos.example,*"}, "'*' is not a name"),
        ({"DEBUG": "1"}, "DEBUG is on"),
        ({"AOS_DEBUG": "yes"}, "DEBUG is on"),
        ({"AOS_SANDBOX_DRIVER": "local"}, "isolates nothing"),
        ({"DATABASE_URL": None}, "DATABASE_URL is required"),
        ({"DATABASE_URL": "mysql://db/aos"}, "must look like postgresql://"),
        ({"REDIS_URL": None}, "REDIS_URL is required"),
        ({"AOS_WORKER_SLOTS": "many"}, "is not a whole number"),
        ({"AOS_SECRET_KEY_FALLBACKS": "o" * 50}, "set AOS_TOKEN_PEPPER to the key"),
        ({"AOS_SECRET_KEY_FALLBACKS": "k" * 50, "AOS_TOKEN_PEPPER": "p" * 50}, "is among"),
        ({"AOS_SECRET_KEY_FALLBACKS": f"{'o' * 50},{'o' * 50}"}, "named twice"),
        ({"AOS_SECRET_KEY_FALLBACKS": "short"}, "fewer than 32"),
        ({"AOS_TOKEN_PEPPER": "short"}, "fewer than 32"),
        ({"AOS_LIMIT_READ": "fast"}, "is not a rate such as 600/m"),
        ({"AOS_LIMIT_READ": "0/m"}, "is not a rate such as 600/m"),
        ({"AOS_LIMIT_READ": "5/d"}, "is not a rate such as 600/m"),
        ({"AOS_ALLOWED_NETWORKS": "10.1.2.3/8"}, "has host bits set"),
        ({"AOS_ADMIN_NETWORKS": "home"}, "AOS_ADMIN_NETWORKS"),
        ({"FORWARDED_ALLOW_IPS": "*"}, "name the proxies"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_production_refuses_and_says_why(changed, told):
    done = boot(**changed)

    assert done.returncode != 0
    assert "ImproperlyConfigured" in done.stderr
    assert told in done.stderr


def test_a_changed_key_is_taken_with_its_former_ones():
    done = boot(AOS_SECRET_KEY_FALLBACKS=f"{'o' * 50}, {'p' * 50}", AOS_TOKEN_PEPPER="o" * 50)

    assert done.stdout.strip() == "False docker", done.stderr


def test_djangos_own_deployment_checks_find_nothing_and_none_is_silenced():
    environment = GOOD | {"AOS_SECRET_KEY": secrets.token_urlsafe(48)}
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "INFO"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "System check identified no issues (0 silenced)."


COOKIES = """
from django.conf import settings as s
for kind in ("SESSION", "CSRF"):
    print(*(getattr(s, f"{kind}_COOKIE_{part}") for part in
        ("NAME", "SECURE", "HTTPONLY", "SAMESITE", "PATH", "DOMAIN")))
print(s.SECURE_HSTS_SECONDS, s.SECURE_HSTS_INCLUDE_SUBDOMAINS, s.SECURE_SSL_REDIRECT)
print(s.SECURE_CROSS_ORIGIN_OPENER_POLICY, s.SECURE_REFERRER_POLICY, s.SECURE_CONTENT_TYPE_NOSNIFF)
print(s.X_FRAME_OPTIONS, s.USE_X_FORWARDED_HOST)
"""


def test_cookies_and_headers_of_production_are_strict():
    done = subprocess.run(
        [sys.executable, "-c", COOKIES],
        cwd=ROOT,
        env=GOOD,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines() == [
        "__Host-sessionid True True Lax / None",
        "__Host-csrftoken True True Lax / None",
        "31536000 True True",
        "same-origin same-origin True",
        "DENY False",
    ]


def test_passwords_are_stored_with_argon2_and_nothing_else():
    told = """
from django.conf import settings
import django; django.setup()
from django.contrib.auth.hashers import check_password, make_password
stored = make_password("correct horse")
print(stored[:17], check_password("correct horse", stored), len(settings.PASSWORD_HASHERS))
"""
    done = subprocess.run(
        [sys.executable, "-c", told], cwd=ROOT, env=GOOD, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "argon2$argon2id$v True 1"


def test_no_settings_of_the_product_arm_places_to_crash_at():
    settings = (ROOT / "aos_project" / "settings").glob("*.py")
    named = {path.name: path.read_text("utf-8").count("AOS_FAILPOINTS") for path in settings}

    assert named.pop("base.py") == 1
    assert not any(named.values())
    hostile = GOOD | {"AOS_FAILPOINTS": str(ROOT), "TEST_FAILPOINTS": str(ROOT)}
    told = "from django.conf import settings; print(settings.AOS_FAILPOINTS)"
    done = subprocess.run(
        [sys.executable, "-c", told],
        env=hostile,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "None"
