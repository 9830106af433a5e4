"""G8 at length: random tampering is found and named, untouched logs raise no alarm, and it is quick."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from django.db import connection, transaction

from apps.events import sinks
from apps.events.models import AuditEntry
from apps.events.services import chain, checkpoints, delivery, outbox, proof
from apps.events.types import ActorRef
from tests.support import tampering

FILL = """
INSERT INTO events_auditentry (organization_id, actor_kind, actor_id, actor_name, token_id, action,
       resource_type, resource_id, detail, trace_id, at)
SELECT %(organization)s, 'user', %(actor)s, 'olivia', gen_random_uuid(), 'run.submit', 'run',
       gen_random_uuid()::text,
       jsonb_build_object('agent', 'csv-report', 'n', n, 'changes', jsonb_build_object(
           'name', jsonb_build_array('before ' || n, 'after ' || n))),
       md5(n::text), now() - n * interval '1 second'
  FROM generate_series(1, %(count)s) AS n
"""


def fill(count, *, every=1000):
    """A sealed log with a checkpoint every so many entries; the places they vouch for."""
    organization = uuid4()
    with connection.cursor() as cursor:
        cursor.execute(FILL, {"organization": organization, "actor": uuid4(), "count": count})
    places, sealed = [], 0
    while sealed < count:
        with transaction.atomic():
            sealed += chain.seal(limit=min(every, count - sealed))
            checkpoints.sign()
        places.append(sealed)
    for sink in sinks.configured():
        while not delivery.deliver(sink):
            pass
    return tampering.Log(organization, checkpoints=tuple(places))


def mutate(log, rounds, *, seed=8):
    """Tamper, verify, undo; the rounds whose tampering was not found or not named rightly."""
    dice = random.Random(seed)
    wrong, tried = [], dict.fromkeys(tampering.KINDS, 0)
    for number in range(rounds):
        kind = dice.choice(list(tampering.KINDS))
        tried[kind] += 1
        with transaction.atomic():
            expected = tampering.KINDS[kind](log, dice.choice(log.links), dice)

            (verdict,) = proof.verify(log.organization).verdicts

            if not expected.matches(verdict):
                wrong.append((number, kind, expected, verdict))
            transaction.set_rollback(True)
        if number % 20 == 0:
            # What was rolled back would slow the next rounds down.
            with connection.cursor() as cursor:
                cursor.execute("VACUUM events_auditentry, events_auditseal, pg_trigger")
    assert all(tried.values()), tried
    return wrong


@pytest.mark.django_db(transaction=True)
def test_G8_random_tampering_is_always_found_and_named():  # noqa: N802
    log = fill(200, every=40)

    assert mutate(log, 100) == []
    assert proof.verify(log.organization).is_intact


@pytest.mark.proof
@pytest.mark.django_db(transaction=True)
def test_G8_a_thousand_random_mutations_are_found_and_named():  # noqa: N802
    log = fill(10_000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE events_auditentry, events_auditseal, events_auditinbox")

    wrong = mutate(log, 1000)

    assert wrong == []
    assert proof.verify(log.organization).is_intact


def works_while(act, done):
    """Repeat an act in a thread of its own until told to end; how often it was done."""
    count = 0
    try:
        while not done.wait(0.01):
            act()
            count += 1
    finally:
        connection.close()
    return count


def write(organizations, dice):
    """One transaction of one to five entries, some rolled back."""
    with transaction.atomic():
        for _ in range(dice.randint(1, 5)):
            organization = dice.choice(organizations)
            by = ActorRef(kind="user", id=uuid4(), name="olivia", organization_id=organization)
            outbox.audit(by, "run.submit", resource_type="run", resource_id=dice.random())
        transaction.set_rollback(dice.random() < 0.1)


def seal(dice):
    """What the engine does; it signs more often."""
    with transaction.atomic():
        chain.seal(limit=50)
        if dice.random() < 0.1:
            checkpoints.sign()


def bring():
    for sink in sinks.configured():
        delivery.deliver(sink)


def verify_beside_writers(rounds):
    """Verify again and again while others write, seal and sign; what was said that is not true.

    Goes on past ``rounds`` until the writers have done as much.
    """
    organizations, done, alarms = [uuid4() for _ in range(3)], threading.Event(), []
    dice = random.Random(8)
    acts = [*[lambda: write(organizations, dice)] * 4, lambda: seal(dice), bring]

    def enough():
        return AuditEntry.objects.count() > 3 * rounds

    with ThreadPoolExecutor(len(acts)) as pool:
        working = [pool.submit(works_while, act, done) for act in acts]
        try:
            verified = 0
            while verified < rounds or not (enough() or any(each.done() for each in working)):
                verified += 1
                report = proof.verify()
                if not report.is_intact:
                    alarms.append(report)
        finally:
            done.set()
        assert all(each.result() > 0 for each in working)
    return alarms


@pytest.mark.django_db(transaction=True)
def test_G8_an_untouched_log_raises_no_alarm_while_others_write():  # noqa: N802
    assert verify_beside_writers(20) == []


@pytest.mark.proof
@pytest.mark.django_db(transaction=True)
def test_G8_a_hundred_verifications_beside_writers_raise_no_alarm():  # noqa: N802
    assert verify_beside_writers(100) == []
    print(f"\n{AuditEntry.objects.count()} entries written meanwhile")


@pytest.mark.proof
@pytest.mark.django_db
def test_G8_a_hundred_thousand_entries_are_verified_within_five_seconds():  # noqa: N802
    log = fill(100_000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE events_auditentry, events_auditseal, events_auditinbox")

    taken = []
    for _ in range(3):
        began = time.perf_counter()
        report = proof.verify(log.organization)
        taken.append(time.perf_counter() - began)

    assert report.is_intact
    assert report.verdicts[0].checked == 100_000
    print(f"\n100,000 entries, {report.checkpoints} checkpoints: {min(taken):.2f} s")
    assert min(taken) <= 5
