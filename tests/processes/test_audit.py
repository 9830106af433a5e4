"""A leading engine seals what happens, signs it, and brings it outside, without being asked."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django.db import transaction

from apps.events.models import AuditInbox, AuditSeal
from apps.events.services import delivery, outbox
from apps.events.sinks.file import FILE
from tests.factories import make_actor
from tests.support.platform import wait_for
from tests.support.receiver import Receiver

pytestmark = [pytest.mark.processes, pytest.mark.slow]


def _act(by):
    with transaction.atomic():
        outbox.audit(by.ref, "run.submit", resource_type="run", resource_id="r1")


def test_an_engine_seals_signs_and_brings_checkpoints_to_every_sink(platform, settings, capsys):
    receiver = Receiver()
    receiver.start()
    settings.AOS_AUDIT_FOLDER = settings.AOS_DATA_DIR / "audit"
    settings.AOS_AUDIT_SINKS = ["file:", f"{receiver.url}/audit"]
    platform.overrides["AOS_AUDIT_SINKS"] = ",".join(settings.AOS_AUDIT_SINKS)
    by = make_actor()
    _act(by)
    try:
        platform.engine()
        path = settings.AOS_AUDIT_FOLDER / FILE
        wait_for("the file", lambda: path.exists() and path.read_text().count("\n"), seconds=30)
        wait_for("the webhook", lambda: 1 in receiver.kept, seconds=30)
        wait_for("what was noted", lambda: not any(s.waiting for s in delivery.standings()))

        assert receiver.kept[1].decode() == path.read_text().splitlines()[0]
        assert AuditSeal.objects.filter(organization_id=by.user.organization_id).exists()
        assert not AuditInbox.objects.exists()
        call_command("audit_verify")
        assert "1 checkpoints, intact" in capsys.readouterr().out
    finally:
        receiver.stop()
