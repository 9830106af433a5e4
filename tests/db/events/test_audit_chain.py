from __future__ import annotations

import json
import random
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction

from apps.core import sql
from apps.events.models import AuditCheckpoint, AuditEntry, AuditInbox, AuditSeal
from apps.events.services import chain, checkpoints, outbox, proof
from apps.events.types import ActorRef
from tests.support.tampering import by_hand

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _folder(settings, tmp_path):
    settings.AOS_AUDIT_FOLDER = tmp_path / "audit"


def _acts(count, organization=None):
    organization = organization or uuid4()
    by = ActorRef(kind="user", id=uuid4(), name="olivia", organization_id=organization)
    for number in range(count):
        outbox.audit(
            by,
            "run.submit",
            resource_type="run",
            resource_id=number,
            detail={"n": number, "é": "ü"},
        )
    return organization


def _seal_all():
    while chain.seal():
        pass


def test_an_untouched_log_is_intact():
    organization = _acts(7)
    other = _acts(3)
    _seal_all()
    checkpoints.write()

    report = proof.verify()

    assert report.is_intact
    assert {v.organization_id: v.checked for v in report.verdicts} == {organization: 7, other: 3}
    assert not AuditInbox.objects.exists()


@pytest.mark.parametrize("model", [AuditEntry, AuditSeal, AuditCheckpoint])
def test_the_log_is_append_only(model):
    _acts(1)
    _seal_all()
    checkpoints.write()

    with pytest.raises(IntegrityError), transaction.atomic():
        model.objects.all().delete()


MUTATIONS = {
    "words": "UPDATE events_auditentry SET actor_name = 'mallory' WHERE id = %(id)s",
    "time": "UPDATE events_auditentry SET at = at + interval '1 second' WHERE id = %(id)s",
    "detail": "UPDATE events_auditentry SET detail = '{}' WHERE id = %(id)s",
    "entry removed": "DELETE FROM events_auditentry WHERE id = %(id)s",
    "seal removed": "DELETE FROM events_auditseal WHERE entry_id = %(id)s",
    "entry slipped in": """
        INSERT INTO events_auditentry (organization_id, actor_kind, actor_name, action,
               resource_type, resource_id, detail, trace_id, at)
        SELECT organization_id, actor_kind, 'mallory', action, resource_type, resource_id, detail,
               trace_id, at FROM events_auditentry WHERE id = %(id)s""",
    "hash": "UPDATE events_auditseal SET hash = sha256(hash) WHERE entry_id = %(id)s",
    "swapped": """
        WITH gone AS (DELETE FROM events_auditseal WHERE entry_id IN (%(id)s, %(other)s)
                      RETURNING *)
        INSERT INTO events_auditseal (organization_id, seq, entry_id, hash)
        SELECT a.organization_id, a.seq, b.entry_id, a.hash
          FROM gone AS a JOIN gone AS b ON a.entry_id <> b.entry_id""",
}


@pytest.mark.parametrize("statement", MUTATIONS.values(), ids=MUTATIONS.keys())
def test_G8_each_kind_of_tampering_is_found_and_named(statement):  # noqa: N802
    organization = _acts(20)
    _seal_all()
    ids = list(AuditEntry.objects.order_by("id").values_list("id", flat=True))
    target, other = ids[10], ids[14]

    by_hand(statement, id=target, other=other)

    (verdict,) = proof.verify(organization).verdicts
    assert not verdict.is_intact
    assert verdict.seq == 11 or verdict.entry_id is not None


def test_G8_random_tampering_is_always_found():  # noqa: N802
    organization = _acts(50)
    _seal_all()
    ids = list(AuditEntry.objects.order_by("id").values_list("id", flat=True))
    dice = random.Random(8)
    for _ in range(60):
        name, statement = dice.choice(list(MUTATIONS.items()))
        target, other = dice.sample(ids, 2)
        point = transaction.savepoint()

        by_hand(statement, id=target, other=other)

        assert not proof.verify(organization).is_intact, (name, target)
        transaction.savepoint_rollback(point)
    assert proof.verify(organization).is_intact


def _rewrite_everything(organization):
    """Forge an entry and compute every later hash anew, as an owner of the database can."""
    by_hand("UPDATE events_auditentry SET actor_name = 'mallory' WHERE resource_id = '3'")
    rows = sql.fetch(
        chain.SQL["chain"], {"organization_id": organization, "after": 0, "limit": 1000}
    )
    before = chain.GENESIS
    for row in rows:
        before = chain.digest(row, seq=row["seq"], before=before)
        by_hand(
            "UPDATE events_auditseal SET hash = %(hash)s WHERE entry_id = %(id)s",
            hash=before,
            id=row["id"],
        )


def test_a_rewritten_chain_is_found_by_its_checkpoint():
    organization = _acts(10)
    _seal_all()
    checkpoints.write()

    _rewrite_everything(organization)

    (verdict,) = proof.verify(organization).verdicts
    assert verdict.why == "the hash differs from the signed checkpoint"


def test_without_checkpoints_a_rewritten_chain_would_pass():
    organization = _acts(10)
    _seal_all()

    _rewrite_everything(organization)

    assert chain.verify(organization).is_intact


def test_a_chain_cut_short_of_its_checkpoint_is_found():
    organization = _acts(10)
    _seal_all()
    checkpoints.write()

    by_hand("DELETE FROM events_auditentry WHERE resource_id::int >= 8")
    by_hand("DELETE FROM events_auditseal WHERE seq > 8")

    assert not proof.verify(organization).is_intact


@pytest.mark.parametrize(
    "tamper",
    [
        lambda lines: lines[:-1],
        lambda lines: lines[1:],
        lambda lines: [lines[0], *lines[2:]],
        lambda lines: [line.replace('"seq"', '"Seq"').replace("0", "1", 1) for line in lines],
        lambda _: ["not json"],
    ],
    ids=["last gone", "first gone", "middle gone", "edited", "garbage"],
)
def test_tampered_checkpoints_are_found(settings, tamper):
    for _ in range(3):
        _acts(2)
        _seal_all()
        checkpoints.write()
    path = settings.AOS_AUDIT_FOLDER / "checkpoints.jsonl"
    path.write_text("\n".join([*tamper(path.read_text().splitlines()), ""]))

    assert proof.verify().checkpoint_fault


def test_a_shortened_file_is_not_continued_as_if_nothing_had_happened(settings):
    for _ in range(3):
        _acts(1)
        _seal_all()
        checkpoints.write()
    path = settings.AOS_AUDIT_FOLDER / "checkpoints.jsonl"
    path.write_text("\n".join([*path.read_text().splitlines()[:1], ""]))

    checkpoints.write()

    assert json.loads(path.read_text().splitlines()[-1])["body"]["number"] == 4
    assert proof.verify().checkpoint_fault


def test_an_entry_that_waits_is_no_fault():
    organization = _acts(3)
    _seal_all()
    _acts(2, organization)

    assert proof.verify(organization).is_intact


def test_the_command_says_what_is_broken():
    _acts(3)
    _seal_all()
    call_command("audit_verify")
    by_hand("UPDATE events_auditentry SET action = 'nothing' WHERE resource_id = '1'")

    with pytest.raises(CommandError, match="tampered"):
        call_command("audit_verify")


def test_sealing_again_changes_nothing():
    _acts(5)
    _seal_all()
    before = list(AuditSeal.objects.order_by("id").values_list("seq", "entry_id"))

    assert chain.seal() == 0
    assert list(AuditSeal.objects.order_by("id").values_list("seq", "entry_id")) == before
