from __future__ import annotations

import json
import random
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction

from apps.events import sinks
from apps.events.models import AuditCheckpoint, AuditEntry, AuditInbox, AuditSeal
from apps.events.services import chain, checkpoints, delivery, outbox, proof
from apps.events.sinks.file import FILE
from apps.events.types import ActorRef
from tests.support import tampering
from tests.support.tampering import by_hand

pytestmark = pytest.mark.django_db


@pytest.fixture
def file(settings):
    return settings.AOS_AUDIT_FOLDER / FILE


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


def _sign():
    """Sign the ends of the chains and bring the checkpoint to every sink."""
    checkpoints.sign()
    for sink in sinks.configured():
        delivery.deliver(sink)


def test_an_untouched_log_is_intact():
    organization = _acts(7)
    other = _acts(3)
    _seal_all()
    _sign()

    report = proof.verify()

    assert report.is_intact
    assert {v.organization_id: v.checked for v in report.verdicts} == {organization: 7, other: 3}
    assert not AuditInbox.objects.exists()


@pytest.mark.parametrize("model", [AuditEntry, AuditSeal, AuditCheckpoint])
def test_the_log_is_append_only(model):
    _acts(1)
    _seal_all()
    _sign()

    with pytest.raises(IntegrityError), transaction.atomic():
        model.objects.all().delete()


@pytest.mark.parametrize("model", [AuditEntry, AuditSeal, AuditCheckpoint])
def test_the_log_cannot_be_emptied(model):
    table = model._meta.db_table
    with connection.cursor() as cursor:
        # The suite needs this trigger off between its tests.
        cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER {table}_keep")

        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            cursor.execute(f"TRUNCATE {table} CASCADE")

        cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER {table}_keep")


def _entries():
    return list(AuditEntry.objects.order_by("id").values_list("id", flat=True))


@pytest.mark.parametrize("kind", tampering.KINDS)
def test_G8_each_kind_of_tampering_is_found_and_named(kind):  # noqa: N802
    organization = _acts(20)
    _acts(20)
    _seal_all()
    _sign()
    log = tampering.Log(organization)
    target = log.links[10]

    expected = tampering.KINDS[kind](log, target, random.Random(8))

    (verdict,) = proof.verify(organization).verdicts
    assert expected.matches(verdict), (expected, verdict)
    assert verdict.advice


@pytest.mark.parametrize("column", tampering.COLUMNS)
def test_G8_no_column_of_an_entry_can_be_changed(column):  # noqa: N802
    organization = _acts(5)
    _seal_all()
    log = tampering.Log(organization)

    expected = tampering.change(log, log.links[2], column, random.Random(8))

    (verdict,) = proof.verify(organization).verdicts
    assert expected.matches(verdict), (expected, verdict)


def test_every_column_is_among_those_that_are_tried():
    columns = {field.column for field in AuditEntry._meta.concrete_fields}

    assert set(tampering.COLUMNS) == columns


def test_a_number_that_python_would_take_for_the_same_is_another_one():
    """What is hashed are PostgreSQL's own words: 1 and 1.0 differ, and so do digits past a float's."""
    organization = _acts(3)
    _seal_all()

    by_hand("""UPDATE events_auditentry SET detail = jsonb_set(detail, '{n}', '1.0')
        WHERE resource_id = '1'""")

    assert not chain.verify(organization).is_intact


@pytest.mark.parametrize("setting", ["TimeZone = 'Asia/Tokyo'", "DateStyle = 'German'"])
def test_a_setting_of_the_session_is_no_tampering(setting):
    organization = _acts(3)
    _seal_all()

    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL {setting}")

    assert chain.verify(organization).is_intact


def _rewrite_everything(organization):
    """Forge an entry and compute every later hash anew, as an owner of the database can."""
    log = tampering.Log(organization)
    tampering.KINDS["rewritten"](log, log.links[3], random.Random(8))


def test_a_rewritten_chain_is_found_by_its_checkpoint():
    organization = _acts(10)
    _seal_all()
    _sign()

    _rewrite_everything(organization)

    (verdict,) = proof.verify(organization).verdicts
    assert verdict.why.startswith("places 1 to 10 were rewritten")


def test_without_checkpoints_a_rewritten_chain_would_pass():
    organization = _acts(10)
    _seal_all()

    _rewrite_everything(organization)

    assert chain.verify(organization).is_intact


def test_a_chain_cut_short_of_its_checkpoint_is_found():
    organization = _acts(10)
    _seal_all()
    _sign()

    by_hand("DELETE FROM events_auditentry WHERE resource_id::int >= 8")
    by_hand("DELETE FROM events_auditseal WHERE seq > 8")

    assert not proof.verify(organization).is_intact


@pytest.mark.parametrize(
    ("tamper", "fault"),
    [
        (lambda lines: lines[:-1], "it ends at checkpoint 2, but took 3"),
        (lambda _: [], "it ends at checkpoint 0, but took 3"),
        (lambda lines: lines[1:], "checkpoint 1 is missing before number 2"),
        (lambda lines: [lines[0], *lines[2:]], "checkpoint 2 is missing before number 3"),
        (lambda lines: [lines[1], lines[0], lines[2]], "checkpoint 1 is missing before number 2"),
        (lambda lines: [_edited(lines[0]), *lines[1:]], "checkpoint 1 was changed"),
        (lambda lines: [lines[0], _edited(lines[1]), lines[2]], "checkpoint 2 was changed"),
        (lambda lines: [*lines[:2], _edited(lines[2])], "checkpoint 3 is not signed by our key"),
        (lambda _: ["not json"], "line 1 is not a checkpoint"),
        (lambda lines: [*lines, lines[-1]], "checkpoint 4 is missing before number 3"),
    ],
    ids=[
        "last gone",
        "all gone",
        "first gone",
        "middle gone",
        "swapped",
        "first edited",
        "middle edited",
        "last edited",
        "garbage",
        "doubled",
    ],
)
def test_tampered_checkpoints_are_found_and_named(file, tamper, fault):
    for _ in range(3):
        _acts(2)
        _seal_all()
        _sign()
    file.write_text("".join(f"{line}\n" for line in tamper(file.read_text().splitlines())))

    report = proof.verify()

    assert report.checkpoint_fault == f"file:{file.parent}: {fault}"
    assert not report.is_intact


def _edited(line):
    """The same checkpoint with another head, still well-formed."""
    found = json.loads(line)
    head = next(iter(found["body"]["heads"].values()))
    head[1] = "00" * 32
    return json.dumps(found, sort_keys=True)


def test_checkpoints_signed_by_another_key_are_not_ours(settings, file, tmp_path):
    organization = _acts(5)
    _seal_all()
    _sign()
    ours = settings.AOS_AUDIT_FOLDER
    settings.AOS_AUDIT_FOLDER = tmp_path / "another"
    by_hand("DELETE FROM events_auditcheckpoint")
    by_hand("DELETE FROM events_auditsink")
    _rewrite_everything(organization)
    _sign()
    (settings.AOS_AUDIT_FOLDER / FILE).replace(file)
    settings.AOS_AUDIT_FOLDER = ours

    report = proof.verify()

    assert report.checkpoint_fault.endswith("checkpoint 1 is not signed by our key")


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        (
            "DELETE FROM events_auditcheckpoint WHERE number = 3",
            "it holds checkpoint 3, which the database has lost",
        ),
        (
            "DELETE FROM events_auditcheckpoint WHERE number = 2",
            "it holds checkpoint 2, which the database has lost",
        ),
        (
            "UPDATE events_auditcheckpoint SET line = replace(line, '[2', '[1') WHERE number = 3",
            "its checkpoint 3 is another one than the database's",
        ),
    ],
    ids=["last gone", "middle gone", "edited"],
)
def test_the_databases_copies_are_held_against_the_file(file, statement, fault):
    for _ in range(3):
        _acts(2)
        _seal_all()
        _sign()

    by_hand(statement)

    report = proof.verify()
    assert not report.is_intact
    assert fault in report.checkpoint_fault


def test_a_shortened_file_is_not_continued_as_if_nothing_had_happened(file):
    for _ in range(3):
        _acts(1)
        _seal_all()
        _sign()
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:1]))

    _sign()

    assert json.loads(file.read_text().splitlines()[-1])["body"]["number"] == 4
    assert proof.verify().checkpoint_fault


def test_checkpoints_cut_out_of_the_database_do_not_stop_what_is_signed_next(file):
    for _ in range(3):
        _acts(1)
        _seal_all()
        _sign()
    by_hand("DELETE FROM events_auditcheckpoint WHERE number > 1")
    by_hand("DELETE FROM events_auditsink")

    _acts(1)
    _seal_all()
    _sign()
    _sign()

    numbers = [json.loads(line)["body"]["number"] for line in file.read_text().splitlines()]
    assert numbers == [1, 2, 3, 4]
    assert not proof.verify().is_intact


def test_an_entry_that_waits_is_no_fault():
    organization = _acts(3)
    _seal_all()
    _acts(2, organization)

    report = proof.verify(organization)
    assert report.is_intact
    assert report.waiting == 2


def test_verifying_makes_no_key(settings):
    assert proof.verify().is_intact
    assert not settings.AOS_AUDIT_FOLDER.exists()


def test_who_verifies_needs_the_public_key_only(settings):
    _acts(2)
    _seal_all()
    _sign()
    (settings.AOS_AUDIT_FOLDER / "signing.key").unlink()

    assert proof.verify().is_intact
    (settings.AOS_AUDIT_FOLDER / "signing.pub").unlink()
    assert "not signed by our key" in proof.verify().checkpoint_fault


def test_the_command_names_what_is_broken(capsys):
    _acts(3)
    _seal_all()
    _sign()
    call_command("audit_verify")
    assert "3 entries checked, intact" in capsys.readouterr().out
    wrong = _entries()[1]
    by_hand("UPDATE events_auditentry SET action = 'nothing' WHERE id = %(id)s", id=wrong)

    with pytest.raises(CommandError, match="tampered"):
        call_command("audit_verify")

    told = capsys.readouterr().out
    assert f"entry {wrong} is not what was sealed at place 2" in told
    assert f"[place 2, entry {wrong}]" in told
    assert "compare this entry with a backup" in told
    assert "1 checkpoints, intact" in told


def test_sealing_again_changes_nothing():
    _acts(5)
    _seal_all()
    before = list(AuditSeal.objects.order_by("seq").values_list("seq", "entry_id"))

    assert chain.seal() == 0
    assert list(AuditSeal.objects.order_by("seq").values_list("seq", "entry_id")) == before
