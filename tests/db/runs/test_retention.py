"""The runs' log by months: made ahead, dropped by policy, kept for runs that are open."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib import import_module
from threading import Event as Flag

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from psycopg.sql import SQL, Identifier

from apps.core import clock, tenancy
from apps.events.models import AuditEntry, OutboxEntry
from apps.runs.models import Run, RunEvent
from apps.runs.services import control, leadership, retention
from apps.runs.services.leadership import SeatLost
from tests.factories import make_actor, make_run
from tests.support.threads import apart

pytestmark = pytest.mark.django_db
LATER = datetime(2031, 3, 10, tzinfo=UTC)


@pytest.fixture
def at(monkeypatch):
    def move(moment):
        monkeypatch.setattr(clock, "now", lambda: moment)

    return move


def keep(seat):
    """As in a transaction of its own: checks of rows written before have been made."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")
    return retention.keep(seat)


def months():
    with connection.cursor() as cursor:
        cursor.execute("SELECT month FROM runs_log_months() ORDER BY upper")
        return [name for (name,) in cursor.fetchall()]


def tables_of(run):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT tableoid::regclass::text FROM runs_event WHERE run_id = %s", [run.pk]
        )
        return {name for (name,) in cursor.fetchall()}


def write(run, at, seq=50):
    RunEvent.objects.create(run=run, seq=seq, kind="log", payload={}, at=at)


def over(run):
    return control.cancel(by=make_actor(organization=run.project.organization), run=run)


def test_the_months_that_come_are_made_once(seat, at):
    at(LATER)

    assert keep(seat) == 3
    assert months()[-3:] == ["runs_event_2031_03", "runs_event_2031_04", "runs_event_2031_05"]
    assert keep(seat) == 0


def test_the_turn_of_the_year_is_a_month_like_any_other(seat, at):
    at(datetime(2031, 12, 31, 23, 59, tzinfo=UTC))

    keep(seat)

    assert months()[-3:] == ["runs_event_2031_12", "runs_event_2032_01", "runs_event_2032_02"]


def test_a_line_lies_in_the_table_of_its_month_and_a_number_is_taken_once(seat, at):
    at(LATER)
    keep(seat)
    run = make_run()

    write(run, LATER)

    assert "runs_event_2031_03" in tables_of(run)
    with pytest.raises(IntegrityError, match="2031_03_once"), transaction.atomic():
        write(run, LATER)
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        RunEvent.objects.filter(run=run).update(payload={"text": "rewritten"})


def test_what_came_while_no_engine_made_the_month_is_not_lost(seat, at):
    run = make_run()
    write(run, LATER)
    assert "runs_event_rest" in tables_of(run)
    at(LATER)

    keep(seat)

    assert "runs_event_2031_03" in tables_of(run)
    assert "runs_event_rest" not in tables_of(run)
    assert RunEvent.objects.filter(run=run, seq=50).count() == 1


def test_without_a_policy_nothing_is_dropped(seat, at):
    over(run := make_run())
    at(LATER)

    keep(seat)

    assert RunEvent.objects.filter(run=run).exists()


def test_months_before_those_that_are_kept_are_dropped_and_records_are_not(seat, at, settings):
    settings.AOS_RUN_LOG_MONTHS = 1
    over(old := make_run())
    at(LATER)
    keep(seat)
    recent = make_run()
    write(recent, datetime(2031, 3, 1, tzinfo=UTC))
    over(recent)
    recorded = (AuditEntry.objects.count(), OutboxEntry.objects.count(), Run.objects.count())

    at(datetime(2031, 4, 30, tzinfo=UTC))
    keep(seat)
    assert "runs_event_2031_03" in months()
    assert RunEvent.objects.filter(run=recent, seq=50).exists()
    assert not RunEvent.objects.filter(run=old).exists()

    at(datetime(2031, 5, 1, tzinfo=UTC))
    keep(seat)
    assert "runs_event_2031_03" not in months()
    assert not RunEvent.objects.filter(run=recent).exists()
    assert recorded == (
        AuditEntry.objects.count(),
        OutboxEntry.objects.count(),
        Run.objects.count(),
    )


def test_the_log_of_an_open_run_is_kept_whole_until_it_is_over(seat, at, settings):
    settings.AOS_RUN_LOG_MONTHS = 1
    waiting, ended = make_run(), make_run()
    over(ended)
    lines = RunEvent.objects.filter(run=waiting).count()
    at(LATER)

    keep(seat)

    assert RunEvent.objects.filter(run=waiting).count() == lines > 0
    assert not RunEvent.objects.filter(run=ended).exists()
    over(waiting)
    keep(seat)
    assert not RunEvent.objects.filter(run=waiting, seq__lte=lines).exists()


def test_a_deposed_leader_drops_and_makes_nothing(seat, at, settings):
    settings.AOS_RUN_LOG_MONTHS = 1
    leadership.leave(seat)
    leadership.take("other")
    before = months()
    at(LATER)

    with pytest.raises(SeatLost):
        keep(seat)

    assert months() == before


def test_web_requests_reach_no_month_past_the_walls(seat):
    run = make_run()
    with tenancy.organization(run.organization_id), connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM runs_event")
        assert cursor.fetchone()[0] > 0
        for table in [*months(), "runs_event_rest"]:
            with pytest.raises(DatabaseError, match="permission denied"), transaction.atomic():
                cursor.execute(SQL("SELECT count(*) FROM {}").format(Identifier(table)))


@pytest.mark.django_db(transaction=True)
def test_a_month_that_somebody_reads_is_dropped_another_time(seat, at, settings):
    settings.AOS_RUN_LOG_MONTHS = 1
    run = over(make_run())
    reading, done = Flag(), Flag()

    def read():
        with transaction.atomic():
            list(RunEvent.objects.all())
            reading.set()
            done.wait(20)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(apart, read)
        try:
            assert reading.wait(10)
            at(LATER)
            retention.keep(seat)
        finally:
            done.set()

    assert RunEvent.objects.filter(run=run).exists()


@pytest.mark.django_db(transaction=True)
def test_the_migration_keeps_every_row_there_and_back():
    name = next(
        name for name, in _applied("runs") if name.endswith("monthly_logs")
    )  # fmt: skip
    migration = import_module(f"apps.runs.migrations.{name}")
    runs = [make_run() for _ in range(3)]
    before = list(RunEvent.objects.order_by("id").values())

    with connection.schema_editor() as editor:
        migration.unswitch(None, editor)
    with connection.cursor() as cursor:
        cursor.execute("SELECT relkind FROM pg_class WHERE oid = 'runs_event'::regclass")
        assert cursor.fetchone() == ("r",)
    runs.append(make_run())
    between = list(RunEvent.objects.order_by("id").values())
    with connection.schema_editor() as editor:
        for statement in (migration.CHECK, migration.VALIDATE):
            editor.execute(statement, params=None)
    with connection.schema_editor() as editor:
        migration.switch(None, editor)
    make_run()

    after = list(RunEvent.objects.order_by("id").values())
    assert between[: len(before)] == before
    assert after[: len(between)] == between
    assert len(after) == len(between) + 1 == len(before) + 2
    assert len({row["id"] for row in after}) == len(after)
    with pytest.raises(IntegrityError, match="append-only"):
        RunEvent.objects.update(payload={})


def _applied(app):
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM django_migrations WHERE app = %s", [app])
        return cursor.fetchall()
