from __future__ import annotations

import csv
import io
import json

import pytest
from django.db import transaction

from apps.events.models import AuditEntry
from apps.events.services import chain, outbox
from apps.events.types import ActorRef
from apps.identity.types import Role
from tests.faces import session
from tests.factories import make_actor, make_project, make_user
from tests.support.tampering import by_hand

pytestmark = pytest.mark.django_db


@pytest.fixture
def by():
    return make_actor(Role.ADMIN)


@pytest.fixture
def client(by):
    return session(by.user)


def _act(by, action="run.submit", resource_id="r1", **detail):
    ref = by.ref if not isinstance(by, ActorRef) else by
    with transaction.atomic():
        return outbox.audit(
            ref, action, resource_type="run", resource_id=resource_id, detail=detail
        )


def _body(response):
    return b"".join(response.streaming_content).decode()


def test_entries_come_newest_first_and_only_ones_own(client, by):
    first, second = _act(by), _act(by, "run.cancel")
    _act(make_actor(Role.ADMIN))

    answer = client.get("/api/audit/logs").json()

    assert [row["id"] for row in answer["results"]] == [second.pk, first.pk]
    assert answer["results"][0]["actor_name"] == by.user.username


@pytest.mark.parametrize(
    ("wanted", "count"),
    [("action=run.cancel", 1), ("resource_id=r2", 1), ("actor=nobody", 0), ("limit=2", 2)],
)
def test_the_log_is_filtered(client, by, wanted, count):
    _act(by)
    _act(by, resource_id="r2")
    _act(by, "run.cancel")

    assert len(client.get(f"/api/audit/logs?{wanted}").json()["results"]) == count


def test_an_unknown_filter_is_refused(client):
    assert client.get("/api/audit/logs?who=me").status_code == 422


def test_the_export_is_complete_in_both_forms(client, by):
    for number in range(3):
        _act(by, resource_id=f"r{number}", n=number)

    asked = "/api/audit/export?action=run.submit"
    lines = [json.loads(line) for line in _body(client.get(asked)).splitlines()]
    table = list(csv.DictReader(io.StringIO(_body(client.get(f"{asked}&form=csv")))))

    assert [line["resource_id"] for line in lines] == ["r0", "r1", "r2"]
    assert [json.loads(row["detail"]) for row in table] == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_an_export_is_on_record_and_not_in_itself(client, by):
    _act(by)

    body = _body(client.get("/api/audit/export?actor=nobody&form=csv"))

    noted = AuditEntry.objects.get(action="audit.export")
    assert noted.detail == {"form": "csv", "asked": {"actor": "nobody"}}
    assert "audit.export" not in body


def test_the_admin_of_a_project_does_not_read_the_organizations_log():
    project = make_project()
    adam = session(make_user(role=Role.ADMIN, project=project))

    answers = [adam.get(f"/api/audit/{name}").status_code for name in ("logs", "export", "verify")]

    assert answers == [403, 403, 403]


def test_a_spreadsheet_finds_no_formula_in_the_export(client, by):
    _act(by, resource_id="=HYPERLINK(1)")

    (row,) = csv.DictReader(io.StringIO(_body(client.get("/api/audit/export?form=csv"))))

    assert row["resource_id"] == "'=HYPERLINK(1)"


def test_the_verification_names_what_was_tampered_with(client, by):
    _act(by)
    wrong = _act(by)
    chain.seal()
    before = client.get("/api/audit/verify").json()

    by_hand("UPDATE events_auditentry SET action = 'x' WHERE id = %(id)s", id=wrong.pk)
    after = client.get("/api/audit/verify").json()

    assert before["intact"]
    assert not after["intact"]
    assert (after["seq"], after["entry"]) == (2, wrong.pk)
    assert AuditEntry.objects.get(pk=wrong.pk).action == "x"
