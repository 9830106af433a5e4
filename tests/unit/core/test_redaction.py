from __future__ import annotations

import uuid

import pytest

from apps.core import redaction
from apps.core.redaction import HIDDEN

SECRET = "aos_pat_" + "Ab3" * 3 + "_" + "x" * 43 + "_0a1b2c3"


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "new_password",
        "client_secret",
        "api_key",
        "secret_hash",
        "token",
        "totp_secret",
        "pepper",
        "Authorization",
        "session_key",
        "private_pem",
        "recovery_token_value",
        "pin",
    ],
)
def test_a_field_with_a_secret_name_is_hidden(name):
    assert redaction.value(name, "anything") == HIDDEN
    assert redaction.value("outer", {name: "anything"}) == {name: HIDDEN}


@pytest.mark.parametrize(
    "name",
    [
        "name",
        "slug",
        "key_id",
        "token_id",
        "title",
        "monkey",
        "keyboard",
        "author",
        "spinner",
        "tokens_used",
        "description",
        "sha256",
    ],
)
def test_a_field_with_another_name_is_shown(name):
    assert redaction.value(name, "anything") == "anything"


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"Bearer {'a' * 30}",
        "ghp_" + "a" * 36,
        "sk-live-1234567890",
        "AKIA" + "A" * 16,
        "postgresql://aos:hunter22@db/aos",
        "-----BEGIN PRIVATE KEY-----\nMIIE\nabc\n-----END PRIVATE KEY-----",
    ],
)
def test_a_value_that_looks_like_a_secret_is_hidden_wherever_it_stands(text):
    told = redaction.text(f"before {text} after")

    assert HIDDEN in told
    assert "before" in told
    assert "after" in told
    for piece in ("x" * 43, "a" * 30, "1234567890", "hunter22", "MIIE"):
        assert piece not in told


def test_a_long_value_is_shortened_and_still_tells_a_change():
    one, other = (redaction.value("text", "a" * 5_000 + end) for end in "bc")

    assert len(one) < 600
    assert one != other


def test_what_is_kept_is_json():
    told = redaction.value(
        "x", {"n": 1, "none": None, "yes": True, "id": uuid.UUID(int=1), "l": (1, "a")}
    )

    assert told == {"n": 1, "none": None, "yes": True, "id": str(uuid.UUID(int=1)), "l": [1, "a"]}
