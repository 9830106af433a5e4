"""Labels of workers: a run goes to a worker that has what it requires, and holds nobody up meanwhile."""

from __future__ import annotations

from datetime import timedelta

import pytest

from apps.core import clock
from apps.core.errors import Invalid
from apps.core.postgres import direct
from apps.identity.types import Role
from apps.runs.models import Attempt, ReadyRun, Run, RunLease, ScheduledRun
from apps.runs.services import (
    dispatch,
    fleet,
    leases,
    limits,
    queues,
    submission,
)
from apps.runs.services.dispatch import Dispatcher
from apps.runs.services.fairness import Room
from apps.runs.services.leadership import SQL
from apps.runs.types import Lease, Priority, TaskSpec
from tests.faces import api, problem, session
from tests.faces import key as idempotency_key
from tests.factories import (
    HELLO,
    make_actor,
    make_agent,
    make_cast,
    make_project,
    make_run,
    make_schedule,
    make_worker,
)

pytestmark = pytest.mark.django_db
GPU = {"gpu": "true"}


@pytest.fixture
def project():
    return make_project()


def runs(number, project, **task):
    return submission.submit_many(
        by=make_actor(organization=project.organization),
        project=project,
        agent=make_agent(organization=project.organization),
        tasks=[TaskSpec(**{"input": {}} | task)] * number,
    )


def sent(seat, slots=50):
    """What one round sends: the runs' keys, and for which workers."""
    messages = Dispatcher(seat).claim(Room(now=slots, slots=slots))
    return {each.run_id: message.pool for message in messages for each in message.dispatches}


def start(*claimed, worker):
    tokens = dict(RunLease.objects.filter(run__in=claimed).values_list("run_id", "token"))
    wanted = [Lease(run_id=run_id, token=tokens[run_id]) for run_id in claimed]
    return leases.start_many(wanted, worker=worker)


# --- who gets what --------------------------------------------------------------------------------


def test_a_run_waits_until_a_worker_has_what_it_requires(seat, project):
    (run,) = runs(1, project, requires=GPU)
    make_worker()
    make_worker(labels={"gpu": "false"})

    assert sent(seat) == {}
    able = make_worker(labels={"gpu": "true", "zone": "eu"})
    assert sent(seat) == {run.pk: able.pool}


def test_a_run_that_requires_nothing_goes_to_any_worker(seat, project):
    (run,) = runs(1, project)
    make_worker(labels=GPU)

    assert sent(seat) == {run.pk: None}


def test_nobody_is_held_up_behind_runs_that_no_worker_can_take(seat, project):
    """They are never looked at: not even as many as fill what one round reads."""
    make_worker()
    runs(300, project, requires=GPU)
    (behind,) = runs(1, project)

    assert list(sent(seat, slots=1)) == [behind.pk]
    assert ReadyRun.objects.exclude(gate=None).count() == 300


def test_rounds_do_not_grow_with_what_no_worker_can_take(seat, project, monkeypatch):
    make_worker()
    runs(200, project, requires=GPU)
    read, fetch = [], direct.fetch

    def counting(query, params):
        rows = fetch(query, params)
        if query in {SQL["heads"], SQL["required"]}:
            read.append(len(rows))
        return rows

    monkeypatch.setattr(direct, "fetch", counting)
    leader = Dispatcher(seat)
    for _ in range(3):
        assert leader.claim(Room(now=5, slots=5)) == []

    # What they require is learnt once, from one of them; none of them is read as a head.
    assert read == [1, 0, 0, 0]


def test_no_more_are_sent_than_the_able_workers_have_slots(seat, project):
    make_worker(slots=10)
    able = make_worker(labels=GPU, slots=2)
    first, second, third = (run.pk for run in runs(3, project, requires=GPU))
    leader = Dispatcher(seat)

    claimed = leader.claim(Room(now=12, slots=12))
    assert [message.dispatches[0].run_id for message in claimed] == [first, second]
    assert leader.claim(Room(now=10, slots=12)) == []
    (started, _) = start(first, second, worker=able)
    assert leader.claim(Room(now=10, slots=12)) == []

    leases.succeed(started, result={})
    (message,) = leader.claim(Room(now=10, slots=12))
    assert (message.dispatches[0].run_id, message.pool) == (third, able.pool)


def test_the_start_refuses_a_worker_that_lacks_what_the_run_requires(seat, project):
    """Whatever the broker did with the message. What any worker may take, any worker starts."""
    (special,), (plain,) = runs(1, project, requires=GPU), runs(1, project)
    able, unable = make_worker(labels=GPU), make_worker()
    sent(seat)

    assert start(special.pk, worker=unable) == []
    assert [each.lease.run_id for each in start(special.pk, worker=able)] == [special.pk]
    assert [each.lease.run_id for each in start(plain.pk, worker=unable)] == [plain.pk]


def test_without_the_pool_on_its_lease_anybody_could_start_it(seat, project):
    (run,) = runs(1, project, requires=GPU)
    make_worker(labels=GPU)
    sent(seat)
    RunLease.objects.update(pool=None)

    assert start(run.pk, worker=make_worker())


def test_what_was_sent_to_workers_that_left_goes_to_others_at_once_and_costs_nothing(seat, project):
    (run,) = runs(1, project, requires=GPU)
    leaving = make_worker(labels=GPU)
    assert sent(seat) == {run.pk: leaving.pool}
    assert dispatch.hand_back_overdue() == 0

    fleet.drain(incarnation=leaving.incarnation)
    assert dispatch.hand_back_overdue() == 1

    other = make_worker(labels=GPU | {"zone": "eu"})
    assert sent(seat) == {run.pk: other.pool}
    assert not Attempt.objects.filter(run=run).exists()


def test_a_retry_waits_for_an_able_worker_again(seat, project):
    (run,) = runs(1, project, requires=GPU)
    able = make_worker(labels=GPU)
    sent(seat)
    (started,) = start(run.pk, worker=able)

    leases.give_back(started)

    ready = ReadyRun.objects.get(run=run)
    assert ready.gate == Run.objects.get(pk=run.pk).pool_gate is not None
    fleet.depart(worker_id=able.pk)
    make_worker()
    assert sent(seat) == {}


def test_a_later_start_waits_for_an_able_worker_too(seat, project):
    later = make_run(project=project, requires=GPU, run_at=clock.now() + timedelta(hours=1))
    ScheduledRun.objects.update(due_at=clock.now() - timedelta(hours=1))

    assert dispatch.promote() == 1
    make_worker()
    assert sent(seat) == {}
    able = make_worker(labels=GPU)
    assert sent(seat) == {later.pk: able.pool}


def test_a_run_has_to_pass_its_limits_as_well(seat, project):
    by = make_actor(Role.ADMIN, organization=project.organization)
    limits.put(by=by, about=limits.of_project(project), cap=1)
    first, second = runs(2, project, requires=GPU)
    able = make_worker(labels=GPU)

    assert sent(seat) == {first.pk: able.pool}
    assert sent(seat) == {}
    (started,) = start(first.pk, worker=able)
    leases.succeed(started, result={})
    assert sent(seat) == {second.pk: able.pool}


def test_a_full_pool_sends_a_run_home_that_a_limit_had_stopped(seat, project):
    by = make_actor(Role.ADMIN, organization=project.organization)
    limit = limits.put(by=by, about=limits.of_project(project), cap=1)
    able = make_worker(labels=GPU, slots=1)
    first, second = runs(2, project, requires=GPU)
    sent(seat)
    ReadyRun.objects.filter(run=second).update(gate=project.pk)
    limits.remove(by=by, about=limits.of_project(project))

    assert limit.cap == 1
    assert sent(seat) == {}
    assert ReadyRun.objects.get(run=second).gate == Run.objects.get(pk=second.pk).pool_gate
    (started,) = start(first.pk, worker=able)
    leases.succeed(started, result={})
    assert sent(seat) == {second.pk: able.pool}


# --- fairness per set of labels -------------------------------------------------------------------


def test_organizations_share_scarce_workers_by_turns(seat):
    mine, theirs = make_project(), make_project()
    many = {run.pk for run in runs(20, mine, requires=GPU)}
    few = {run.pk for run in runs(2, theirs, requires=GPU)}
    make_worker(slots=50)
    make_worker(labels=GPU, slots=4)

    claimed = set(sent(seat, slots=54))

    assert (len(claimed & many), len(claimed & few)) == (2, 2)


def test_an_urgent_run_gets_the_scarce_worker_first(seat, project):
    runs(3, project, requires=GPU)
    (urgent,) = runs(1, project, requires=GPU, priority=Priority.URGENT)
    able = make_worker(labels=GPU, slots=1)

    assert sent(seat) == {urgent.pk: able.pool}


def test_who_requires_a_scarce_worker_does_not_take_turns_from_who_does_not(seat):
    """Four slots, one of them scarce: the backlog for that one leaves the others alone."""
    mine, theirs = make_project(), make_project()
    runs(20, mine, requires=GPU)
    plain = {run.pk for run in runs(20, theirs)}
    make_worker(slots=3)
    make_worker(labels=GPU, slots=1)

    claimed = set(sent(seat, slots=4))

    assert (len(claimed & plain), len(claimed - plain)) == (3, 1)


def test_short_runs_of_one_requirement_share_a_message_and_others_do_not(seat, project, settings):
    agent = make_agent(
        organization=project.organization, spec={"function": "aos.echo"}, kind="function"
    )
    by = make_actor(organization=project.organization)
    tasks = [TaskSpec(input={}, requires=wanted) for wanted in (GPU, {}) for _ in range(4)]
    submission.submit_many(by=by, project=project, agent=agent, tasks=tasks)
    able = make_worker(labels=GPU, slots=2)
    direct.execute(SQL["note_pace"], {"version_id": agent.current_id, "mean_s": 0.001, "runs": 100})
    leader = Dispatcher(seat)
    leader.learn()
    # As a round leaves it that has seen short runs.
    leader._versions = {agent.current_id}

    messages = leader.claim(Room(now=2, slots=2))

    assert sorted((len(each.dispatches), each.pool or "") for each in messages) == [
        (4, ""), (4, able.pool),
    ]  # fmt: skip


def test_urgent_slots_are_counted_by_organization_and_by_message(seat, settings):
    """Half of all slots is an organization's urgent share; what it holds already counts."""
    settings.AOS_URGENT_PERCENT = 50
    mine, theirs = make_project(), make_project()
    held = runs(3, mine, priority=Priority.URGENT)
    assert len(sent(seat, slots=3)) == 3
    # Two of them travel in one message: they take up one slot.
    one, two, _ = (run.pk for run in held)
    RunLease.objects.filter(run__in=[one, two]).update(message=7)
    runs(3, theirs, priority=Priority.NORMAL)
    (other,) = runs(1, theirs, priority=Priority.URGENT)
    sent(seat, slots=1)
    assert RunLease.objects.filter(run=other).exists()

    rows = direct.fetch(SQL["urgent"], {})

    taken = {row["organization_id"]: row["taken"] for row in rows}
    assert taken == {mine.organization_id: 2, theirs.organization_id: 1}


def test_beyond_its_share_an_organizations_urgent_runs_leave_slots_to_others(seat, settings):
    """Eight slots: four are its share, two of which it holds. Without the count it would take all."""
    settings.AOS_URGENT_PERCENT = 50
    mine, theirs = make_project(), make_project()
    runs(10, mine, priority=Priority.URGENT)
    leader = Dispatcher(seat)
    leader.claim(Room(now=2, slots=8))
    normal = {run.pk for run in runs(10, theirs)}

    messages = leader.claim(Room(now=6, slots=8))

    claimed = {each.run_id for message in messages for each in message.dispatches}
    assert len(claimed & normal) >= 2
    assert len(claimed - normal) >= 2


# --- versions -------------------------------------------------------------------------------------


def test_a_version_pin_names_the_code_that_may_run_it(seat, project):
    agent = make_agent(
        organization=project.organization, spec=HELLO | {"requires": {"version": "2.0"}}
    )
    pinned = make_run(project=project, agent=agent)
    make_worker(version="1.0")

    assert sent(seat) == {}
    assert queues.why_waiting(pinned) == "No worker has version=2.0, which it requires."
    new = make_worker(version="2.0")
    assert sent(seat) == {pinned.pk: new.pool}


# --- what is asked for ----------------------------------------------------------------------------


def test_requirements_of_version_and_task_add_up(project):
    agent = make_agent(
        organization=project.organization, spec=HELLO | {"requires": {"version": "2.0"}}
    )

    run = make_run(project=project, agent=agent, requires=GPU)

    assert run.requires == {"version": "2.0", "gpu": "true"}


def test_a_task_may_not_gainsay_its_version(project):
    agent = make_agent(organization=project.organization, spec=HELLO | {"requires": GPU})

    with pytest.raises(Invalid, match="gpu must be true"):
        make_run(project=project, agent=agent, requires={"gpu": "false"})
    assert not Run.objects.exists()


def test_a_rerun_requires_what_the_task_required_and_its_new_version_does(project):
    agent = make_agent(
        organization=project.organization, spec=HELLO | {"requires": {"version": "1"}}
    )
    by = make_actor(organization=project.organization)
    run = make_run(project=project, agent=agent, by=by, requires=GPU)
    agent.current.spec["requires"] = {"version": "2"}

    again = submission.rerun(by=by, run=run).run

    assert again.requires == GPU | {"version": again.agent_version.spec["requires"]["version"]}


def test_a_schedule_keeps_what_its_task_requires(project):
    schedule = make_schedule(project=project, task=TaskSpec(input={}, requires=GPU))
    schedule.refresh_from_db()

    assert schedule.task["requires"] == GPU


def test_the_api_takes_requirements_and_names_what_is_wrong_with_them(project):
    by = make_actor(organization=project.organization)
    agent = make_agent(organization=project.organization)
    client = api(by.user)
    body = {"project": project.slug, "agent": agent.slug, "input": {}}

    made = client.post("/api/run", body | {"requires": GPU}, headers=idempotency_key("good"))
    assert made.status_code == 202, made.content
    shown = client.get(f"/api/runs/{made.json()['id']}")
    assert shown.json()["requires"] == GPU

    for wrong in ({"GPU": "true"}, {"gpu": "a b"}, {f"l{n}": "1" for n in range(17)}):
        refused = client.post(
            "/api/run", body | {"requires": wrong}, headers=idempotency_key("wrong")
        )
        assert problem(refused)["code"] == "invalid", wrong
    assert Run.objects.count() == 1


# --- what people see ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "told"),
    [
        ([{"labels": {}}], "No worker has gpu=true and zone=eu, which it requires."),
        ([{"labels": GPU}], "No worker has zone=eu, which it requires."),
        (
            [{"labels": GPU}, {"labels": {"zone": "eu"}}],
            "No worker has gpu=true and zone=eu together, which it requires.",
        ),
    ],
)
def test_a_waiting_run_says_which_label_no_worker_has(seat, project, workers, told):
    run = make_run(project=project, requires=GPU | {"zone": "eu"})
    for worker in workers:
        make_worker(**worker)

    assert queues.why_waiting(run) == told


def test_a_waiting_run_says_that_the_able_workers_are_busy(seat, project):
    _, waiting = runs(2, project, requires=GPU)
    make_worker(labels=GPU, slots=1)
    sent(seat)

    assert queues.why_waiting(waiting) == "All slots of the workers with gpu=true are taken."


def test_the_queue_page_shows_labels_and_versions():
    cast = make_cast()
    make_worker(labels={"gpu": "true", "zone": "eu"}, version="7.1")

    page = session(cast.adam).get("/queue").content.decode()

    assert "gpu=true" in page
    assert "zone=eu" in page
    assert "7.1" in page
