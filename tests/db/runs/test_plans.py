"""The statements of a run's path find their rows by key, although their plans are made while tables are empty."""

from __future__ import annotations

import pytest

from apps.core import sql
from apps.core.postgres import direct
from apps.events.services import relay
from apps.runs.services import dispatch, leadership, leases
from apps.runs.services.dispatch import Dispatcher
from apps.runs.services.fairness import Room
from apps.runs.types import Lease, Report, RunState
from tests.factories import make_run, make_worker

pytestmark = pytest.mark.django_db(transaction=True)
# What a platform that runs for years has very many of.
GROWING = ("runs_run", "runs_attempt", "runs_event", "events_event")
# What runs pass through: nearly empty now, full in a moment.
PASSING = ("runs_ready", "runs_lease", "events_outboxentry")


@pytest.fixture(autouse=True)
def new_tables(transactional_db):
    """As they are where nothing has run yet: autovacuum has not noted how empty tests leave them."""
    sql.execute(f"TRUNCATE {', '.join(GROWING)} CASCADE", {})


@pytest.fixture
def plans(monkeypatch):
    """The plan of each statement that goes through a line."""
    found = {}
    fetch = direct.fetch

    def explaining(statement, params):
        (row,) = fetch(f"EXPLAIN (FORMAT JSON) {statement}", params)
        found[statement] = row["QUERY PLAN"][0]["Plan"]
        return fetch(statement, params)

    monkeypatch.setattr(direct, "fetch", explaining)
    with direct.line():
        direct.close()
        yield found
        direct.close()


def readings(plan, tables):
    """Each node of a plan that reads one of these tables, but for the oldest of a queue in its order."""
    if plan.get("Relation Name", "").startswith(tables) and "Scan" in plan["Node Type"]:
        yield plan
    for below in plan.get("Plans", ()):
        if plan["Node Type"] not in {"Limit", "LockRows"} or "Index Cond" in below:
            yield from readings(below, tables)


def assert_by_key(plans, tables):
    asked = {leadership.SQL[name] for name in ("claim", "start", "finish")} | {relay.SQL["move"]}
    assert asked <= plans.keys()
    found = [node for statement in asked for node in readings(plans[statement], tables)]
    assert {node["Relation Name"] for node in found} >= set(tables) - {"runs_event"}
    for node in found:
        assert "Index Cond" in node or node["Node Type"] == "Bitmap Heap Scan", node


def carry_out(seat, worker):
    messages = Dispatcher(seat).claim(Room(now=10))
    wanted = [Lease(run_id=d.run_id, token=d.token) for m in messages for d in m.dispatches]
    started = leases.start_many(wanted, worker=worker)
    leases.finish(
        [
            Report(lease=one.lease, state=RunState.SUCCEEDED, after=None, result={}, lines=())
            for one in started
        ]
    )
    with direct.atomic():
        leadership.require(seat)
        return relay.move()


def test_a_runs_path_reads_no_table_that_grows_from_end_to_end(seat, plans):
    for _ in range(2):
        make_run()

    assert carry_out(seat, make_worker()) == 4

    assert_by_key(plans, GROWING)


def test_plans_made_of_a_queue_that_was_just_vacuumed_go_by_key_too(seat, plans):
    """Such a plan is kept: with a reading of the whole index in it an end would take longer with each lease."""
    worker = make_worker()
    for _ in range(9):
        make_run()
    carry_out(seat, worker)
    make_run()
    dispatch.vacuum()
    direct.close()

    assert carry_out(seat, worker) == 2

    assert_by_key(plans, PASSING)


def test_plans_of_the_line_are_kept_and_not_compiled(plans):
    direct.fetch("SELECT 1", {})

    assert sql.fetch("SHOW enable_material", {})[0]["enable_material"] == "on"
    for name, value in (
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_material", "off"),
        ("jit", "off"),
    ):
        assert sql_of_line(name) == value


def sql_of_line(name):
    (row,) = direct.fetch("SELECT current_setting(%(name)s) AS value", {"name": name})
    return row["value"]


def test_only_a_claims_own_commit_does_not_wait_for_the_disk(seat):
    """START waits for it; ``tests/chaos`` lets the database crash at any moment."""
    make_run()
    with direct.line():
        direct.close()
        direct.execute("SET synchronous_commit = on", {})
        with direct.atomic():
            (message,) = Dispatcher(seat).claim(Room(now=1))
            assert sql_of_line("synchronous_commit") == "off"
        assert sql_of_line("synchronous_commit") == "on"

        (claimed,) = message.dispatches
        wanted = [Lease(run_id=claimed.run_id, token=claimed.token)]
        with direct.atomic():
            assert leases.start_many(wanted, worker=make_worker())
            assert sql_of_line("synchronous_commit") == "on"
        direct.close()
