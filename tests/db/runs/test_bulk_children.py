"""Children that are submitted many at once: each is judged by itself, as one alone would be."""

from __future__ import annotations

from uuid import uuid4

import pytest

from apps.events.models import AuditEntry
from apps.identity.types import Role
from apps.runs.kin_models import Budget, ChildRun
from apps.runs.models import Run, WaitingRun
from apps.runs.services import control, kin
from apps.runs.types import OnParentEnd, Priority
from tests.faces import api, key
from tests.factories import make_agent, make_binding, make_project, make_run, make_user
from tests.support.threads import at_once

pytestmark = pytest.mark.django_db


def _task(scene, parent=None, **fields):
    under = {"parent": str(parent.public_id)} if parent else {}
    return {"project": scene["project"].slug, "agent": "work", "input": {}} | under | fields


def _post(user, tasks):
    answer = api(user).post(
        "/api/runs/bulk", {"runs": tasks}, format="json", headers=key(uuid4().hex)
    )
    assert answer.status_code == 202, answer.json()
    return answer.json()["results"]


def _codes(results):
    return [each["error"] and each["error"]["code"] for each in results]


def test_they_inherit_what_one_alone_inherits(scene):
    parent = make_run(
        **scene, priority=Priority.BULK, labels={"team": "ops", "of": "it"}, total_deadline_s=600
    )
    [alone] = [
        api(scene["by"].user).post(
            "/api/runs", _task(scene, parent, labels={"of": "me"}), headers=key(uuid4().hex)
        )
    ]

    results = _post(
        scene["by"].user,
        [
            _task(scene, parent, labels={"of": "me"}),
            _task(scene, parent, on_parent_end="leave", priority="urgent"),
            _task(scene),
        ],
    )

    assert _codes(results) == [None] * 3
    single = Run.objects.get(public_id=alone.json()["id"])
    first, second, third = Run.objects.filter(pk__gt=single.pk).order_by("pk")
    for name in ("priority", "labels", "trace", "trace_id", "total_deadline", "kin"):
        assert getattr(first, name) == getattr(single, name), name
    assert (second.priority, second.labels) == (Priority.URGENT, parent.labels)
    rows = ChildRun.objects.filter(run__gt=single.pk).values_list(
        "run", "parent", "root", "depth", "on_parent_end"
    )
    assert list(rows) == [
        (first.pk, parent.pk, parent.pk, 1, OnParentEnd.CANCEL),
        (second.pk, parent.pk, parent.pk, 1, OnParentEnd.LEAVE),
    ]
    assert (third.kin, third.trace_id) == (False, Run.objects.get(pk=third.pk).trace_id)
    told = AuditEntry.objects.filter(action="run.submit_many").order_by("pk")
    assert {(entry.detail.get("parent"), entry.detail["count"]) for entry in told} == {
        (str(parent.public_id), 2),
        (None, 1),
    }


def test_each_is_refused_by_itself_for_what_would_refuse_one_alone(scene, settings):
    settings.AOS_CHILD_DEPTH = 1
    elsewhere = make_project(organization=scene["project"].organization, slug="elsewhere")
    make_binding(scene["by"].user, Role.OPERATOR, elsewhere)
    parent, over, spent = make_run(**scene), make_run(**scene), make_run(**scene, budget_s=300)
    child = make_run(**scene)
    kin.ChildRun.objects.create(
        run=child, parent=parent, root=parent, depth=1, on_parent_end="cancel"
    )
    control.cancel(by=scene["by"], run=over)
    Budget.objects.filter(run=spent).update(taken_s=300)
    tasks = [
        _task(scene, parent),
        _task(scene, over),
        _task(scene, make_run()),
        _task(scene, parent, project="elsewhere"),
        _task(scene, parent, labels={f"l{n}": "x" for n in range(32)}),
        _task(scene, child),
        _task(scene, spent),
        _task(scene, parent, budget_s=10),
        _task(scene, parent),
    ]
    Run.objects.filter(pk=parent.pk).update(labels={"its": "own"})
    user = scene["by"].user

    alone = [
        api(user).post("/api/runs", task, headers=key(uuid4().hex)).json().get("code")
        for task in tasks
    ]
    together = _codes(_post(user, tasks))

    assert together == alone
    assert together == [
        *(
            None,
            "parent_is_over",
            "not_found",
            "invalid",
            "invalid",
            "children_too_deep",
            "budget_spent",
        ),
        *("invalid", None),
    ]


def test_the_bound_of_a_tree_is_met_exactly(scene, settings):
    settings.AOS_CHILDREN = 3
    parent, other = make_run(**scene), make_run(**scene)

    results = _post(scene["by"].user, [_task(scene, parent)] * 5 + [_task(scene, other)])

    assert _codes(results) == [None, None, None, "too_many_children", "too_many_children", None]
    assert ChildRun.objects.filter(root=parent).count() == 3


def test_they_take_of_the_budget_in_their_order(scene):
    parent = make_run(**scene, budget_s=400, timeout_s=100)

    results = _post(scene["by"].user, [_task(scene, parent, timeout_s=120)] * 4)

    assert _codes(results) == [None, None, None, "budget_spent"]
    made = Run.objects.filter(child_of__parent=parent).order_by("pk")
    assert list(made.values_list("timeout_s", flat=True)) == [120, 120, 60]
    assert Budget.objects.get(run=parent).taken_s == 400


def test_a_refused_child_takes_neither_budget_nor_a_place(scene, settings):
    settings.AOS_CHILDREN = 1
    parent = make_run(**scene, budget_s=400, timeout_s=100)
    nothing = {"depends_on": [{"item": 7}]}

    results = _post(scene["by"].user, [_task(scene, parent, **nothing), _task(scene, parent)])

    assert _codes(results) == ["invalid", None]
    assert ChildRun.objects.count() == 1


def test_a_child_may_wait_for_another_of_the_same_request(scene):
    parent = make_run(**scene)

    results = _post(
        scene["by"].user,
        [_task(scene, parent), _task(scene, parent, depends_on=[{"item": 0}])],
    )

    assert _codes(results) == [None, None]
    assert str(WaitingRun.objects.get().run.public_id) == results[1]["run"]["id"]


def test_who_may_only_look_at_the_parent_puts_nothing_under_it(scene):
    parent = make_run(**scene)
    guest = make_user(role=Role.VIEWER, project=scene["project"])
    elsewhere = make_agent(organization=scene["project"].organization, slug="other")
    make_binding(guest, Role.OPERATOR, elsewhere)

    results = _post(guest, [_task(scene, parent), _task(scene, parent, agent="other")])

    assert _codes(results) == ["not_allowed", "not_allowed"]
    assert not ChildRun.objects.exists()


def test_a_thousand_children_ask_the_database_no_more_than_a_thousand_runs(
    scene, django_assert_max_num_queries
):
    parent = make_run(**scene)

    with django_assert_max_num_queries(55):
        results = _post(scene["by"].user, [_task(scene, parent)] * 1000)

    assert _codes(results) == [None] * 1000
    assert ChildRun.objects.filter(parent=parent).count() == 1000


@pytest.mark.django_db(transaction=True)
def test_requests_at_once_do_not_exceed_the_bound_of_a_tree(scene, settings):
    settings.AOS_CHILDREN = 10
    parent = make_run(**scene)

    told = at_once([lambda: _post(scene["by"].user, [_task(scene, parent)] * 4)] * 5)

    accepted = [each for results in told for each in results if each["run"]]
    assert len(accepted) == ChildRun.objects.count() == 10
