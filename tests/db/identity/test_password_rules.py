"""What a password must not be."""

from __future__ import annotations

import gzip
import hashlib
import math
import re
from pathlib import Path

import pytest
from django.contrib.auth import password_validation
from django.contrib.auth.password_validation import CommonPasswordValidator, validate_password
from django.core.exceptions import ValidationError

from apps.identity import validators
from apps.identity.actor import Actor
from apps.identity.services import departments, second_factor
from apps.identity.types import Role
from tests.factories import make_organization, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def person():
    home = make_organization(name="Acme Aviation", slug="acme")
    return make_user(role=Role.OWNER, organization=home, username="olivia", email="o@example.com")


def refused(password, person):
    try:
        validate_password(password, person)
    except ValidationError as error:
        return {problem.code for problem in error.error_list}
    return set()


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery",
        "three rivers meet at dawn",
        "Kx9!vQ2#mLp7&wTz",
        "acme has 7 green umbrellas",
        "the sandbox is full of tigers",
    ],
)
def test_a_long_sentence_is_good_whatever_its_letters(person, password):
    assert refused(password, person) == set()


@pytest.mark.parametrize(
    "password",
    [
        "Liverpool1234",
        "!!!!Football!!!!",
        "F00tb4ll-2026",
        "footballfootball",
        "123412341234",
        "dragondragondragon",
        "1qaz2wsx3edc",
    ],
)
def test_a_known_password_is_refused_however_it_is_dressed_up(person, password):
    assert "password_too_common" in refused(password, person)


@pytest.mark.parametrize(
    "password",
    [
        "Acme-Admin-2026!",
        "acmeaviation01",
        "4cm3 4v!at!0n",
        "aos operator aos",
        "AOS-Platform-2026",
        "Flight Safety 1",
        "Concorde!!2026",
        "aos.example.com",
    ],
)
def test_what_is_made_of_words_of_the_place_is_refused(person, password, settings):
    settings.AOS_PASSWORD_WORDS = ["Concorde"]
    settings.ALLOWED_HOSTS = ["aos.example.com"]
    departments.create(by=Actor(user=person), name="Flight Safety")

    assert "password_of_known_words" in refused(password, person)


def test_words_of_another_organization_are_none_of_ours(person):
    make_organization(name="Zeppelin Works", slug="zeppelin")

    assert refused("zeppelinworks", person) == set()


def test_the_documented_words_are_those_that_are_looked_for(person):
    page = (Path(__file__).parents[3] / "docs/explanation/security.md").read_text("utf-8")
    told = re.search(r"Always known: (.+?)\.\n", page, re.DOTALL)

    assert set(re.findall(r"[a-z]+", told[1])) == validators._OURS
    assert "password_of_known_words" in refused("Platform!Engine!7", person)


@pytest.fixture
def breached(tmp_path, settings):
    """A list as Pwned Passwords gives it out, of passwords that nothing else would refuse."""
    found = [f"grey pebble {number} afloat" for number in range(1_000)]
    hashes = sorted(hashlib.sha1(each.encode()).hexdigest().upper() for each in found)  # noqa: S324
    path = tmp_path / "pwned.txt"
    path.write_bytes(b"\r\n".join(f"{each}:{n}".encode() for n, each in enumerate(hashes)))
    settings.AOS_BREACHED_PASSWORDS = str(path)
    return found


def test_every_password_of_the_list_of_breaches_is_found_and_no_other(person, breached):
    missed = [each for each in breached if refused(each, person) != {"password_breached"}]
    wrong = [each for each in breached if refused(f"{each}!", person)]

    assert missed == []
    assert wrong == []


def test_an_empty_list_of_breaches_refuses_nothing(person, breached, settings):
    Path(settings.AOS_BREACHED_PASSWORDS).write_bytes(b"")

    assert refused(breached[0], person) == set()


def test_a_list_of_breaches_as_large_as_the_real_one_is_looked_up_in_a_few_steps(
    person, breached, settings, monkeypatch
):
    steps = []
    opened = Path.open

    def counted(path, *args, **kwargs):
        file = opened(path, *args, **kwargs)
        read = file.readline

        class Counted:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def readline(self):
                steps.append(1)
                return read()

            def __getattr__(self, name):
                return getattr(file, name)

        return Counted()

    monkeypatch.setattr(Path, "open", counted)
    refused(breached[0], person)

    size = Path(settings.AOS_BREACHED_PASSWORDS).stat().st_size
    assert 0 < len(steps) <= 2 * (math.log2(size) + 2)


def test_the_built_in_list_is_one_of_breaches_and_holds_more_than_three_thousand():
    path = CommonPasswordValidator().DEFAULT_PASSWORD_LIST_PATH
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        assert sum(1 for _ in lines) > 19_000


def test_without_our_rules_those_passwords_would_be_taken(person, settings):
    settings.AUTH_PASSWORD_VALIDATORS = [
        rule for rule in settings.AUTH_PASSWORD_VALIDATORS if "apps." not in rule["NAME"]
    ]
    password_validation.get_default_password_validators.cache_clear()
    try:
        assert refused("Acme-Admin-2026!", person) == set()
        assert refused("footballfootball", person) == set()
    finally:
        password_validation.get_default_password_validators.cache_clear()


def test_a_recovery_code_has_so_many_bits_that_a_plain_hash_keeps_it(person):
    codes = second_factor._renew_codes(person)

    letters = {len(code.replace("-", "")) for code in codes}
    assert letters == {24}
    assert 24 * math.log2(len(second_factor._ALPHABET)) >= 112
    assert len(set(codes)) == 10
