"""Hostile and ordinary requests over the whole OpenAPI document, as every role and as nobody."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from apps.events.models import AuditEntry
from apps.identity.models import ApiToken
from apps.identity.types import Role
from tests.fuzz import campaign
from tests.fuzz.answers import Expected, listed_codes
from tests.fuzz.campaign import Report
from tests.fuzz.world import CANARY, World, digest, make_world

# Roles, and nobody.
CALLERS = [*Role, None]
# What a viewer may do: make and revoke tokens of their own. Refusals go on record too.
OWN_ACTS = {"token.issue", "token.revoke", "access.denied"}
OWN_TABLES = frozenset({"identity_apitoken", "events_auditentry", "events_auditinbox"})


@pytest.fixture
def worlds(db, transactional_db) -> tuple[World, World]:
    return make_world("zvqown"), make_world(CANARY)


def expected(other: World, caller: Role | None) -> Expected:
    ids = [str(other.organization.pk), *(word for words in other.words.values() for word in words)]
    return Expected(
        codes=listed_codes(),
        # Short words (a version's number, a file's name) are everybody's.
        foreign=[CANARY, *(word for word in ids if len(word) > 16)],
        anonymous=caller is None,
    )


def words(own: World, other: World) -> dict[str, Sequence[str]]:
    """Ids of both organizations, ours thrice as often.

    A concurrency key is not theirs alone: whoever limits the one of this name has a limit that is called so.
    """
    return {
        name: [*own.words[name] * 3, *(word for word in other.words[name] if len(word) > 2)]
        for name in own.words
    } | {"key": own.words["key"]}


def send(
    web: str,
    worlds: tuple[World, World],
    caller: Role | None,
    *,
    examples: int,
    phases: Sequence[str],
) -> Report:
    """One caller's campaign; whatever it did, the other organization must be as it was."""
    own, other = worlds
    token = None if caller is None else own.token(caller)
    before = digest(organization=other.organization.pk)
    everything = digest(without=OWN_TABLES) if caller in {Role.VIEWER, None} else None
    report = campaign.run(
        web,
        token=token,
        expected=expected(other, caller),
        examples=examples,
        words=words(own, other),
        phases=phases,
    )
    assert report.is_clean, report.told()
    assert digest(organization=other.organization.pk) == before
    if everything is not None:
        assert digest(without=OWN_TABLES) == everything
    return report


@pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: caller or "nobody")
def test_every_answer_is_as_documented(web, worlds, caller):
    report = send(web, worlds, caller, examples=4, phases=("examples", "fuzzing"))

    assert report.cases > 100
    assert len(report.operations) >= len(operations())
    # A token that its own campaign revoked would prove the rest of it on refusals alone.
    assert caller is None or report.share(200) > 0.02


def test_a_viewer_changes_nothing_but_tokens_of_their_own(web, worlds):
    own, _ = worlds
    vera = own.people[Role.VIEWER]
    tokens = tuple(others_tokens(vera))
    newest = AuditEntry.objects.latest("pk").pk

    send(web, worlds, Role.VIEWER, examples=6, phases=("fuzzing",))

    assert tuple(others_tokens(vera)) == tokens
    noted = AuditEntry.objects.filter(pk__gt=newest)
    assert set(noted.values_list("actor_name", flat=True)) == {vera.username}
    assert set(noted.values_list("action", flat=True)) <= OWN_ACTS


def others_tokens(person):
    return ApiToken.objects.exclude(user=person).order_by("pk").values_list("pk", "revoked_at")


@pytest.mark.proof
@pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: caller or "nobody")
def test_twenty_thousand_cases(web, worlds, caller):
    """Each caller's share of them; apart, so that one can be sent again without the others."""
    report = send(web, worlds, caller, examples=25, phases=("examples", "coverage", "fuzzing"))

    print(f"\n{report.told()}")
    assert report.cases >= 20_000 / len(CALLERS)


def test_every_parameter_of_a_path_has_words_that_exist(worlds):
    named = {name for path in operations() for name in re.findall(r"{(\w+)}", path)}

    # With made-up ids alone, an operation would be tested on its 404 only: see tests/fuzz/world.py.
    assert named <= set(worlds[0].words)


def operations() -> list[str]:
    paths = campaign.published()["paths"]
    return [f"{method} {path}" for path, item in paths.items() for method in item]


class TestTheCampaignItselfCanFail:
    """Each kind of lie in the document is found."""

    @pytest.fixture
    def lying(self):
        document = campaign.published()
        document["paths"] = {"/api/me": copy.deepcopy(document["paths"]["/api/me"])}
        return document

    def found(self, web, worlds, document, caller: Role | None = Role.OWNER) -> str:
        own, other = worlds
        report = campaign.run(
            web,
            token=None if caller is None else own.token(caller),
            expected=expected(other, caller),
            examples=2,
            words=words(own, other),
            phases=("coverage", "fuzzing"),
            document=document,
        )
        assert not report.is_clean
        return report.told()

    def test_a_wrong_type(self, web, worlds, lying):
        lying["components"]["schemas"]["User"]["properties"]["username"] = {"type": "integer"}

        assert "response_schema_conformance" in self.found(web, worlds, lying)

    def test_a_status_nobody_told_of(self, web, worlds, lying):
        del lying["paths"]["/api/me"]["get"]["responses"]["401"]

        assert "status_code_conformance" in self.found(web, worlds, lying, None)

    def test_a_parameter_that_is_not_looked_at(self, web, worlds, lying):
        lying["paths"]["/api/me"]["get"]["parameters"] = [
            {"name": "n", "in": "query", "required": True, "schema": {"type": "integer"}}
        ]

        assert "negative_data_rejection" in self.found(web, worlds, lying)


class TestWhatIsLookedFor:
    def faults(
        self, status, body, *, uri="http://x/api/me", kind="application/problem+json", **how
    ):
        request = SimpleNamespace(method="GET", uri=uri, body=None)
        headers = {"content-type": [kind], "x-trace-id": ["1"]}
        response = SimpleNamespace(status_code=status, content=body, headers=headers)
        return list(
            Expected(codes={"not_found": {404}}, foreign=["theirs"], **how).faults(
                request, response
            )
        )

    def problem(self, detail="There is no run 'theirs' that you can see.", code="not_found"):
        body = f'"code":"{code}","title":"T","detail":"{detail}","status":404,"params":{{}}'
        return f'{{"type":"about:blank",{body}}}'.encode()

    def test_a_good_error_passes(self):
        assert self.faults(404, self.problem(), uri="http://x/api/runs/theirs") == []

    @pytest.mark.parametrize(
        ("status", "body", "how"),
        [
            (404, b"<h1>Not found</h1>", {"kind": "text/html"}),
            (404, b"{}", {}),
            (404, b"PROBLEM", {"code": "unlisted", "detail": "There is no such run."}),
            (404, b"PROBLEM", {"detail": "no"}),
            (404, b"PROBLEM", {"detail": "psycopg.errors.UndefinedTable is what happened"}),
            (404, b"PROBLEM", {}),
            (200, b'{"name": "theirs"}', {}),
            (200, b"{}", {"anonymous": True}),
        ],
    )
    def test_a_bad_one_does_not(self, status, body, how):
        said = {name: how.pop(name) for name in ("code", "detail") if name in how}
        if body == b"PROBLEM":
            body = self.problem(**said)

        assert len(self.faults(status, body, **how)) == 1
