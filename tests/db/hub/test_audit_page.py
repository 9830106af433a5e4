from __future__ import annotations

import json
from datetime import timedelta
from http import HTTPStatus

import pytest
from django.db import transaction
from django.urls import reverse

from apps.core import clock
from apps.events import sinks
from apps.events.models import AuditEntry, AuditSink
from apps.events.services import chain, checkpoints, outbox
from apps.events.types import platform
from apps.hub.audit import words
from apps.identity import denials
from apps.identity.actor import Actor
from apps.identity.services import bindings, tokens
from apps.identity.types import Role
from apps.projects.services import projects
from apps.runs.services import acts
from tests.faces import session
from tests.factories import make_agent, make_cast, make_project, make_run, make_user
from tests.support.stand_in import StandIn
from tests.support.tampering import by_hand

pytestmark = pytest.mark.django_db
HTMX = {"HTTP_HX_REQUEST": "true"}


@pytest.fixture
def cast():
    return make_cast()


@pytest.fixture
def page(cast):
    return session(cast.olivia)


def _act(user, action="run.cancel", *, on="r1", kind="run", **told):
    with transaction.atomic():
        return outbox.audit(
            Actor(user=user).ref, action, resource_type=kind, resource_id=on, **told
        )


def _aged(entry, **age):
    by_hand(
        "UPDATE events_auditentry SET at = %(at)s WHERE id = %(id)s",
        at=clock.now() - timedelta(**age),
        id=entry.pk,
    )
    return entry


def _shown(page, query="", **headers):
    response = page.get(f"/audit{query}", **headers)
    assert response.status_code == HTTPStatus.OK
    return [line.entry.pk for line in response.context["lines"]]


# Who may see what


@pytest.mark.parametrize("name", ["oscar", "vera"])
@pytest.mark.parametrize("path", ["", "/entries/1", "/export?form=csv", "/verify"])
def test_without_the_right_there_is_a_refusal_that_says_why(cast, name, path):
    response = session(getattr(cast, name)).get(f"/audit{path}")

    assert response.status_code == HTTPStatus.FORBIDDEN
    assert b"Your role does not allow audit.read" in response.content


def test_the_admin_of_one_project_does_not_read_the_organizations_log(cast):
    project = make_project(organization=cast.organization)
    adam = make_user(role=Role.ADMIN, project=project)

    assert session(adam).get("/audit").status_code == HTTPStatus.FORBIDDEN


def test_a_refused_look_at_the_log_is_in_the_log(cast, page):
    denials.forget()
    session(cast.vera).get("/audit")

    assert "was refused audit.read: no role allows it" in page.get("/audit").content.decode()


def test_the_way_there_is_shown_to_those_who_may_go(cast, page):
    link = 'href="/audit"'

    assert link in page.get("/").content.decode()
    assert link not in session(cast.vera).get("/").content.decode()
    assert b"Audit log" in page.get("/palette?q=audit", **HTMX).content
    assert b"Audit log" not in session(cast.vera).get("/palette?q=audit", **HTMX).content


def test_other_organizations_entries_do_not_exist(cast, page):
    mine, theirs = _act(cast.olivia), _act(cast.sam)

    assert _shown(page) == [mine.pk]
    assert _shown(page, f"?actor={cast.sam.username}") == []
    assert page.get(f"/audit/entries/{theirs.pk}").status_code == HTTPStatus.NOT_FOUND


# Filters


def test_every_filter_narrows_and_they_combine(cast, page):
    cancel = _act(cast.olivia, on="r1")
    submit = _act(cast.olivia, "run.submit", on="r2")
    other = _act(cast.adam, "token.revoke", on="t1", kind="token")

    assert _shown(page, "?action=run.cancel") == [cancel.pk]
    assert _shown(page, "?action=run.*") == [submit.pk, cancel.pk]
    assert _shown(page, f"?actor={cast.adam.username}") == [other.pk]
    assert _shown(page, "?resource=token") == [other.pk]
    assert _shown(page, "?id=r2") == [submit.pk]
    assert _shown(page, f"?actor={cast.olivia.username}&action=run.*&id=r1") == [cancel.pk]
    assert _shown(page, f"?actor={cast.adam.username}&action=run.*") == []


def test_a_trace_id_finds_what_happened_in_the_trace(cast, page):
    entry = _act(cast.olivia)
    by_hand(
        "UPDATE events_auditentry SET trace_id = %(t)s WHERE id = %(id)s", t="ab12", id=entry.pk
    )
    _act(cast.olivia)

    assert _shown(page, "?id=ab12") == [entry.pk]


def test_time_narrows_by_a_period_or_from_and_to(cast, page):
    now = _act(cast.olivia)
    yesterday = _aged(_act(cast.olivia), hours=20)
    long_ago = _aged(_act(cast.olivia), days=300)

    assert _shown(page, "?period=1h") == [now.pk]
    assert _shown(page, "?period=24h") == [yesterday.pk, now.pk]
    since = (clock.now() - timedelta(days=301)).strftime("%Y-%m-%dT%H:%M:%SZ")
    until = (clock.now() - timedelta(days=299)).strftime("%Y-%m-%dT%H:%M")
    assert _shown(page, f"?period=between&since={since}&until={until}") == [long_ago.pk]


def test_an_offset_in_the_address_counts(cast, page):
    entry = _aged(_act(cast.olivia), minutes=30)
    half_past = (entry.__class__.objects.get(pk=entry.pk).at + timedelta(hours=9)).isoformat()[:16]

    assert _shown(page, f"?period=between&since={half_past}%2B09:00") == [entry.pk]
    assert _shown(page, f"?period=between&since={half_past}") == []


@pytest.mark.parametrize(
    "query",
    ["period=ever", "before=x", "before=²", "period=between&since=soon", f"actor={'x' * 151}"],
)
def test_an_address_that_no_page_makes_is_refused(page, query):
    assert page.get(f"/audit?{query}").status_code == HTTPStatus.BAD_REQUEST


def test_a_filtered_page_has_an_address_to_send(cast, page):
    _act(cast.olivia)

    answer = page.get("/audit?actor=&action=run.cancel&resource=&id=&period=", **HTMX)

    assert answer.headers["HX-Push-Url"] == "/audit?action=run.cancel"
    assert b"<html" not in answer.content
    restored = page.get("/audit?action=run.cancel", HTTP_HX_HISTORY_RESTORE_REQUEST="true", **HTMX)
    assert b"<html" in restored.content


# Paging


def test_older_entries_follow_without_gap_or_repetition(cast, page):
    made = [_act(cast.olivia, on=f"r{number}").pk for number in range(120)]
    first = page.get("/audit")
    _act(cast.olivia, on="in between")

    seen, more = [line.entry.pk for line in first.context["lines"]], first.context["more"]
    while more:
        answer = page.get(more, **HTMX)
        seen += [line.entry.pk for line in answer.context["lines"]]
        more = answer.context["more"]

    assert seen == made[::-1]


def test_the_page_costs_the_same_with_many_entries(cast, page, django_assert_max_num_queries):
    for _ in range(30):
        make_run(by=Actor(user=cast.olivia), project=make_project(organization=cast.organization))

    with django_assert_max_num_queries(24):
        page.get("/audit")


# What an entry says


def test_an_entry_is_a_sentence_with_its_token_its_place_and_its_run(cast, page):
    token, _ = tokens.issue(by=Actor(user=cast.olivia), name="nightly", scopes=["run:write"])
    project = make_project(organization=cast.organization)
    run = make_run(project=project, by=Actor(user=cast.olivia, token=token))
    chain.seal()

    text = page.get("/audit?action=run.submit").content.decode()

    assert f"submitted a run of {run.agent_version.agent.slug} in {project.slug}" in text
    assert "through the token nightly" in text
    assert reverse("run", args=[run.public_id]) in text
    assert "Sealed, place" in text


def test_a_role_is_told_with_the_place_it_is_over(cast, page):
    project = make_project(organization=cast.organization, name="Rain")
    place = projects.place(cast.olivia, project.slug)
    bindings.grant(by=Actor(user=cast.olivia), subject=cast.vera, role=Role.OPERATOR, place=place)

    text = page.get("/audit?action=binding.grant").content.decode()

    assert "the role operator over the project Rain" in text


def test_what_a_run_did_is_told_with_its_person_its_agent_and_the_run(cast, page):
    project = make_project(organization=cast.organization)
    agent = make_agent(organization=cast.organization, title="CSV report")
    run = make_run(project=project, agent=agent, by=Actor(user=cast.oscar))
    acts.refused(StandIn(run).started, "sandbox.egress", reason="not_listed", detail={})
    refused = AuditEntry.objects.get(action="access.denied")

    rows = page.get("/audit?action=access.denied").content.decode()
    entry = page.get(f"/audit/entries/{refused.pk}").content.decode()

    for text in (rows, entry):
        assert f"<b>{cast.oscar.username}</b>, by a run of CSV report, was refused" in text
        assert reverse("run", args=[run.public_id]) in text


def test_a_place_that_takes_no_checkpoints_is_told(cast, page, settings):
    (sink,) = sinks.configured()
    AuditSink.objects.create(name=sink.name, away_since=clock.now(), why="secret/path")

    text = page.get("/audit").content.decode()

    assert "takes no checkpoints since" in text
    assert "secret/path" not in text


def test_what_changed_is_told_field_by_field_and_secrets_are_hidden(cast, page):
    entry = _act(
        cast.olivia,
        "user.change",
        on=cast.vera.pk,
        kind="user",
        before={"email": "old@example.com", "password": "one"},
        after={"email": "<b>new@example.com</b>", "password": "two"},
    )

    for headers in ({}, HTMX):
        text = page.get(f"/audit/entries/{entry.pk}", **headers).content.decode()
        assert "old@example.com" in text
        assert "&lt;b&gt;new@example.com" in text
        assert text.count("hidden</span>") == 2
        assert f"changed the account of {cast.vera.username}" in text


def test_what_is_gone_or_unknown_is_still_told(cast, page):
    with transaction.atomic():
        outbox.audit(
            platform("clock", organization_id=cast.organization.pk),
            "moon.landing",
            resource_type="moon",
            resource_id="{0.__class__}",
        )

    text = page.get("/audit").content.decode()

    assert "did moon.landing on moon {0.__class__}" in text


def test_every_word_of_a_sentence_is_missing_without_harm(cast):
    for action in words.SENTENCES:
        entry = AuditEntry(action=action, resource_type="run", resource_id="r1", detail={})
        assert words.sentence(entry, resource="{danger}")


def test_the_chain_is_told_with_what_waits_and_the_checkpoint(cast, page):
    _act(cast.olivia)
    chain.seal()
    checkpoints.sign()
    _act(cast.olivia)

    state = page.get("/audit").context["chain"]

    assert (state.last.seq, state.waiting, state.checkpoint.seq) == (1, 1, 1)


# Verify and export


def test_the_verification_names_the_first_broken_entry(cast, page):
    _act(cast.olivia)
    wrong = _act(cast.olivia)
    chain.seal()
    before = page.get("/audit/verify", **HTMX).content.decode()
    by_hand("UPDATE events_auditentry SET action = 'x' WHERE id = %(id)s", id=wrong.pk)

    for headers in ({}, HTMX):
        after = page.get("/audit/verify", **headers).content.decode()
        assert "The log was tampered with." in after
        assert reverse("audit_entry", args=[wrong.pk]) in after
        assert "is not what was sealed at place" in after
    assert "Nothing was changed." in before


def test_an_entry_that_was_removed_is_named_without_a_link_to_nowhere(cast, page):
    gone = _act(cast.olivia)
    chain.seal()
    by_hand("DELETE FROM events_auditentry WHERE id = %(id)s", id=gone.pk)

    text = page.get("/audit/verify", **HTMX).content.decode()

    assert f"entry {gone.pk}" in text
    assert reverse("audit_entry", args=[gone.pk]) not in text


def test_the_export_is_what_the_filter_shows(cast, page):
    wanted = _act(cast.olivia)
    _act(cast.olivia, "run.submit")
    _act(cast.sam)

    answer = page.get("/audit/export?form=jsonl&action=run.cancel")

    (line,) = b"".join(answer.streaming_content).decode().splitlines()
    assert json.loads(line)["id"] == wanted.pk
    assert AuditEntry.objects.get(action="audit.export").detail == {
        "form": "jsonl",
        "asked": {"action": "run.cancel"},
    }


def test_an_export_without_a_fresh_proof_leads_there_and_back_to_a_page_that_waits(client, cast):
    client.force_login(cast.olivia)
    _act(cast.olivia)

    answer = client.get("/audit/export?form=csv&action=run.cancel")

    back = "/account/verify?next=%2Faudit%3Faction%3Drun.cancel%26export%3Dcsv"
    assert (answer.status_code, answer.headers["Location"]) == (302, back)
    waiting = client.get("/audit?action=run.cancel&export=csv").content.decode()
    assert "Your export is ready." in waiting
    assert not AuditEntry.objects.filter(action__in=["audit.export", "access.denied"]).exists()


def test_an_unknown_form_is_refused(page):
    assert page.get("/audit/export?form=exe").status_code == HTTPStatus.BAD_REQUEST
