from __future__ import annotations

import io

import pytest
from django.core.management import CommandError, call_command

from apps.identity.models import Binding, User

pytestmark = pytest.mark.django_db


def _found(monkeypatch, slug="acme", password="four grey pebbles 1"):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{password}\n"))
    call_command("found", slug, "--owner", f"ada-{slug}", "--email", "ada@acme.test", "--stdin")


def test_an_organization_is_founded_from_the_shell(monkeypatch):
    _found(monkeypatch)

    user = User.objects.get(username="ada-acme")
    assert user.check_password("four grey pebbles 1")
    assert Binding.objects.get(user=user).role == "owner"


def test_a_second_one_of_the_name_is_refused(monkeypatch):
    _found(monkeypatch)

    with pytest.raises(CommandError, match="already an organization"):
        _found(monkeypatch)


def test_a_weak_password_is_refused_and_nothing_is_founded(monkeypatch):
    with pytest.raises(CommandError):
        _found(monkeypatch, password="short")

    assert not User.objects.exists()
