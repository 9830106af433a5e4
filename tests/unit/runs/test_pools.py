"""Labels, what requires them, and which workers a message goes to."""

from __future__ import annotations

from uuid import uuid4

import pytest
from django.core.exceptions import ImproperlyConfigured

from aos_project import env
from apps.core import labels
from apps.runs.services.pools import Pool, Pools

PLAIN = Pool(pool="plain", labels={"version": "1"}, free=2)


def pools():
    return Pools(
        [
            Pool(pool="both", labels={"version": "1", "gpu": "true", "zone": "eu"}, free=1),
            Pool(pool="plain", labels={"version": "1"}, free=2),
            Pool(pool="eu", labels={"version": "1", "zone": "eu"}, free=1),
        ]
    )


def test_a_run_goes_where_the_least_besides_what_it_requires_is_used_up():
    found = pools()

    assert [found.take({"zone": "eu"}) for _ in range(3)] == ["eu", "both", None]


def test_room_is_counted_over_all_workers_that_meet_a_requirement():
    found = pools()

    assert [found.free(wanted) for wanted in ({"version": "1"}, {"zone": "eu"}, {"gpu": "x"})] == [
        4, 2, 0,
    ]  # fmt: skip


def test_what_several_requirements_share_is_given_once():
    found = pools()

    assert found.take({"gpu": "true"}) == "both"
    assert found.free({"gpu": "true", "zone": "eu"}) == 0
    assert found.take({"gpu": "true", "zone": "eu"}) is None


def test_equal_requirements_of_an_organization_share_a_home_and_others_do_not():
    mine, other = uuid4(), uuid4()
    wanted = {"zone": "eu", "gpu": "true"}

    assert labels.home_of(mine, wanted) == labels.home_of(mine, dict(reversed(wanted.items())))
    assert labels.home_of(mine, wanted) != labels.home_of(other, wanted)
    assert labels.home_of(mine, {"zone": "eu"}) != labels.home_of(mine, wanted)
    assert labels.home_of(mine, {}) is None


def test_workers_of_two_versions_are_two_pools():
    assert labels.pool_of({}, version="1") != labels.pool_of({}, version="2")
    assert labels.pool_of({"a": "1", "b": "2"}, version="1") == labels.pool_of(
        {"b": "2", "a": "1"}, version="1"
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("GPU=true", "begin with a letter"),
        ("gpu=yes please", "that of gpu is not"),
        ("gpu", "not key=value"),
        ("version=3", "has by itself"),
        (",".join(f"l{n}=1" for n in range(17)), "at most 16"),
    ],
)
def test_a_worker_with_labels_that_are_none_does_not_start(monkeypatch, text, why):
    monkeypatch.setenv("AOS_WORKER_LABELS", text)

    with pytest.raises(ImproperlyConfigured, match=why):
        env.labels("AOS_WORKER_LABELS", default="")


def test_labels_are_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("AOS_WORKER_LABELS", "gpu=true, zone=eu-1")

    assert env.labels("AOS_WORKER_LABELS", default="") == {"gpu": "true", "zone": "eu-1"}
