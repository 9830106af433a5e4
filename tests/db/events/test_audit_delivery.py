"""Checkpoints reach every place outside the database, whenever that place is there."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from apps.core import clock
from apps.events import sinks
from apps.events.errors import SinkAway
from apps.events.models import AuditCheckpoint, AuditSink
from apps.events.services import chain, checkpoints, delivery, outbox, proof
from apps.events.sinks.file import FILE, FileSink
from apps.identity.types import Role
from tests.faces import api, session
from tests.factories import make_actor
from tests.support.receiver import Receiver
from workers.engine import courier
from workers.engine.courier import Courier


def act(by, count=2):
    with transaction.atomic():
        for number in range(count):
            outbox.audit(by.ref, "run.submit", resource_type="run", resource_id=number)


def seal_and_sign():
    with transaction.atomic():
        chain.seal()
        return checkpoints.sign()


def numbers(path):
    return [json.loads(line)["body"]["number"] for line in path.read_text().splitlines()]


@pytest.fixture
def by():
    return make_actor(Role.ADMIN)


@pytest.fixture
def receiver():
    receiver = Receiver()
    receiver.start()
    yield receiver
    receiver.stop()


@pytest.fixture
def both(settings, receiver):
    """The audit folder and a webhook."""
    settings.AOS_AUDIT_SINKS = ["file:", f"{receiver.url}/audit"]
    return sinks.configured()


@pytest.mark.django_db
def test_every_sink_gets_every_checkpoint(settings, by, both, receiver):
    for _ in range(3):
        act(by)
        seal_and_sign()

    assert all(delivery.deliver(sink) for sink in both)

    lines = (settings.AOS_AUDIT_FOLDER / FILE).read_text().splitlines()
    assert lines == list(AuditCheckpoint.objects.order_by("number").values_list("line", flat=True))
    assert [receiver.kept[number].decode() for number in (1, 2, 3)] == lines
    assert len(receiver.requests) == 3


@pytest.mark.django_db
def test_what_was_signed_while_a_sink_was_away_reaches_it_later(by, both, receiver, caplog):
    folder, hook = both
    receiver.stop()
    for _ in range(3):
        act(by)
        seal_and_sign()
        delivery.deliver(folder)
        with pytest.raises(SinkAway):
            delivery.deliver(hook)

    assert [each.waiting for each in delivery.standings()] == [0, 3]
    assert "audit checkpoints wait" in caplog.text
    receiver.start()
    delivery.deliver(hook)

    assert sorted(receiver.kept) == [1, 2, 3]
    assert [each.away_since for each in delivery.standings()] == [None, None]


@pytest.mark.django_db
def test_one_outage_is_one_warning(by, both, receiver, caplog):
    act(by)
    seal_and_sign()
    receiver.stop()

    for _ in range(5):
        with pytest.raises(SinkAway):
            delivery.deliver(both[1])

    assert caplog.text.count("audit checkpoints wait") == 1


@pytest.mark.django_db
def test_a_sink_that_is_added_later_gets_all_from_the_first(settings, by, receiver):
    for _ in range(4):
        act(by)
        seal_and_sign()
        delivery.deliver(sinks.configured()[0])

    settings.AOS_AUDIT_SINKS = ["file:", receiver.url]
    delivery.deliver(sinks.configured()[1])

    assert sorted(receiver.kept) == [1, 2, 3, 4]


@pytest.mark.django_db
def test_a_crash_between_sending_and_noting_sends_again_and_keeps_once(by, both, receiver):
    act(by)
    seal_and_sign()
    delivery.deliver(both[1])
    AuditSink.objects.filter(name=both[1].name).update(delivered=0)

    delivery.deliver(both[1])

    assert len(receiver.requests) == 2
    assert [request.headers["x-aos-checkpoint"] for request in receiver.requests] == ["1", "1"]
    assert receiver.requests[0].body == receiver.requests[1].body
    assert len(receiver.kept) == 1


@pytest.mark.django_db
def test_more_than_a_batch_is_brought_in_several(by, both, monkeypatch):
    monkeypatch.setattr(delivery, "_BATCH", 2)
    for _ in range(5):
        act(by)
        seal_and_sign()

    assert [delivery.deliver(both[0]) for _ in range(3)] == [False, False, True]


@pytest.mark.django_db
def test_what_a_readable_sink_holds_is_compared_and_the_others_are_named(by, both, receiver):
    act(by)
    seal_and_sign()
    for sink in both:
        delivery.deliver(sink)

    folder, hook, own = proof.verify().places

    assert (folder.checkpoints, folder.fault, folder.unread) == (1, "", "")
    assert hook.unread == "it only receives"
    assert (own.name, own.checkpoints) == ("database", 1)


@pytest.mark.django_db
def test_a_place_that_cannot_be_read_is_no_tampering(settings, by, tmp_path, capsys):
    settings.AOS_AUDIT_SINKS = ["file:", f"file://{tmp_path}/gone"]
    act(by)
    seal_and_sign()
    for sink in sinks.configured():
        delivery.deliver(sink)
    (tmp_path / "gone" / FILE).unlink()
    (tmp_path / "gone" / FILE).mkdir()

    call_command("audit_verify")

    assert "not compared: " in capsys.readouterr().out


@pytest.mark.django_db
def test_two_places_must_tell_the_same(settings, by, tmp_path):
    settings.AOS_AUDIT_SINKS = ["file:", f"file://{tmp_path}/second"]
    act(by)
    seal_and_sign()
    for sink in sinks.configured():
        delivery.deliver(sink)
    second = tmp_path / "second" / FILE
    second.write_text(second.read_text().replace("[2,", "[1,"))

    with pytest.raises(CommandError, match="tampered"):
        call_command("audit_verify")

    assert proof.verify().checkpoint_fault.startswith(f"file:{tmp_path}/second: ")


@pytest.mark.django_db
def test_a_far_place_is_not_asked_by_a_web_request(by, both, monkeypatch):
    act(by)
    seal_and_sign()
    monkeypatch.setattr(FileSink, "near", False)

    answer = session(by.user).get("/api/audit/verify").json()

    assert answer["intact"]
    assert [(place["kind"], bool(place["unread"])) for place in answer["places"]] == [
        ("file", True),
        ("http", True),
        ("database", False),
    ]


@pytest.mark.django_db
def test_a_sink_that_is_away_shows_in_readiness_and_metrics(by, both, client):
    act(by)
    seal_and_sign()
    delivery.deliver(both[0])
    name = both[1].name
    AuditSink.objects.create(name=name, away_since=clock.now(), why="x")

    found = client.get("/readyz").json()["checks"]["audit"]
    text = api(by.user).get("/metrics").content.decode()

    assert found == {
        "ok": False,
        "needed": False,
        "detail": "1 places for checkpoints are away, 1 checkpoints wait",
    }
    assert f'aos_audit_checkpoints_waiting{{sink="{name}"}} 1.0' in text
    assert f'aos_audit_sink_away{{sink="{name}"}} 1.0' in text
    assert f'aos_audit_sink_away{{sink="{both[0].name}"}} 0.0' in text


# --- the courier ----------------------------------------------------------------------------------


@contextmanager
def working():
    started = Courier()
    started.work(leading=True)
    try:
        yield started
    finally:
        started.stop()
        started._thread.join(20)
        assert not started._thread.is_alive()


@pytest.fixture
def _quick(monkeypatch):
    monkeypatch.setattr(courier, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(courier, "POLL_S", 0.1)


def becomes(true, seconds=20):
    waited = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if true():
            return True
        waited.wait(0.02)
    return False


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_quick")
def test_a_sink_that_hangs_holds_up_no_seal(by, both, receiver):
    let_go, asked = threading.Event(), threading.Event()

    def hang(request):
        asked.set()
        let_go.wait(8)
        return receiver.keep(request)

    receiver.answer = hang
    act(by)
    seal_and_sign()
    with working() as started:
        assert asked.wait(20)

        for _ in range(5):
            act(by)
            seal_and_sign()
            started.ring()

        assert not receiver.kept
        assert chain.verify(by.user.organization_id).checked == 12
        let_go.set()
        assert becomes(lambda: sorted(receiver.kept) == [1, 2, 3, 4, 5, 6])
    connection.close()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_quick")
def test_a_sink_that_is_away_holds_up_no_other_sink(settings, by, both, receiver):
    receiver.stop()
    with working() as started:
        for _ in range(3):
            act(by)
            seal_and_sign()
            started.ring()
        path = settings.AOS_AUDIT_FOLDER / FILE
        assert becomes(lambda: path.exists() and numbers(path) == [1, 2, 3])
        assert becomes(lambda: delivery.standings()[1].away_since is not None)

        receiver.start()

        assert becomes(lambda: sorted(receiver.kept) == [1, 2, 3])
    assert [each.away_since for each in delivery.standings()] == [None, None]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_quick")
def test_the_pause_grows_while_a_sink_is_away_and_has_a_bound(by, both, receiver, monkeypatch):
    monkeypatch.setattr(courier, "LONGEST_PAUSE_S", 0.2)
    receiver.answer = lambda _: (503, {})
    act(by)
    seal_and_sign()
    started = Courier()
    hook = started._rounds[1]
    hook.pause = courier.FIRST_PAUSE_S

    pauses = []
    for _ in range(5):
        pauses.append(hook.pause)
        hook.due = 0.0
        started._go(hook)

    assert pauses == [0.05, 0.1, 0.2, 0.2, 0.2]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_quick")
def test_who_does_not_lead_brings_nothing(settings, by):
    act(by)
    seal_and_sign()
    with working() as started:
        path = settings.AOS_AUDIT_FOLDER / FILE
        assert becomes(path.exists)
        started.work(leading=False)
        started.ring()
        # Long enough for the round under way to end.
        threading.Event().wait(0.5)
        act(by)
        seal_and_sign()
        threading.Event().wait(0.5)

        assert numbers(path) == [1]
        started.work(leading=True)
        assert becomes(lambda: numbers(path) == [1, 2])
