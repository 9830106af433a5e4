"""Who goes next, decided on heads laid out by hand."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from itertools import count
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.runs.services.fairness import Head, Manners, Pace, Room, Shares, choose

WORK = timedelta(milliseconds=20)
SCRIPT, LIGHT, BRIEF = uuid4(), uuid4(), uuid4()
PACES = {
    SCRIPT: Pace(mean_s=5),
    LIGHT: Pace(mean_s=0.001, is_light=True),
    BRIEF: Pace(mean_s=0.3),
}
A, B = uuid4(), uuid4()


_seqs = count(1)


def heads(number, *, organization=A, lane=1, version=SCRIPT, priority=1, waited_s=0.0):
    return [
        Head(
            run_id=seq,
            lane_id=lane,
            lane_gate=uuid4(),
            project_id=uuid4(),
            concurrency_key="",
            organization_id=organization,
            priority=priority,
            seq=seq,
            waited_s=waited_s,
            version_id=version,
        )
        for seq in (next(_seqs) for _ in range(number))
    ]


def chosen(waiting, room, shares=None):
    return choose(
        waiting, room=room, paces=PACES, shares=shares or Shares(), work=WORK, keeper=Open()
    )


class Open:
    """No limits."""

    def shuts(self, head):
        return False

    def stops(self, head):
        return False

    def take(self, head):
        pass


def by_organization(messages):
    return Counter(head.organization_id for message in messages for head in message)


def test_a_long_run_is_alone_in_its_message():
    assert [len(message) for message in chosen(heads(9), Room(now=4))] == [1, 1, 1, 1]


def test_short_runs_of_functions_share_a_message_of_about_the_work_it_may_carry():
    messages = chosen(heads(100, version=LIGHT), Room(now=3))

    assert [len(message) for message in messages] == [20, 20, 20]


def test_no_message_carries_more_than_fifty():
    messages = choose(
        heads(200, version=LIGHT),
        room=Room(now=1),
        paces={LIGHT: Pace(mean_s=0.000_01, is_light=True)},
        shares=Shares(),
        work=WORK,
        keeper=Open(),
    )

    assert [len(message) for message in messages] == [50]


def test_what_nobody_has_measured_is_taken_for_long():
    messages = choose(
        heads(5, version=uuid4()),
        room=Room(now=2, ahead=9),
        paces={},
        shares=Shares(),
        work=WORK,
        keeper=Open(),
    )

    assert [len(message) for message in messages] == [1, 1]


def test_only_short_runs_are_sent_ahead_of_free_slots():
    assert chosen(heads(5), Room(now=0, ahead=4)) == []
    assert len(chosen(heads(5, version=BRIEF), Room(now=0, ahead=4))) == 4


def test_more_is_laid_ready_of_what_is_done_in_no_time():
    room = Room(now=1, ahead=3, far=8)

    assert len(chosen(heads(20, version=BRIEF), room)) == 4
    messages = choose(
        heads(20, version=BRIEF),
        room=room,
        paces={BRIEF: Pace(mean_s=0.02)},
        shares=Shares(),
        work=WORK,
        keeper=Open(),
    )
    assert len(messages) == 9


def test_short_runs_do_not_overtake_a_long_one_for_ever():
    """Without the kept place, ``ahead`` is filled up each round and no slot is ever seen free."""
    flood = heads(500, version=LIGHT)
    waits = heads(1, organization=B, lane=2)
    shares = Shares()
    chosen(flood[:100] + waits, Room(now=0, ahead=12), shares)

    assert chosen(flood[100:] + waits, Room(now=0, ahead=12), shares) == []
    assert by_organization(chosen(flood[100:] + waits, Room(now=1, ahead=12), shares))[B] == 1


def test_a_large_backlog_does_not_keep_others_waiting():
    waiting = heads(1000) + heads(3, organization=B, lane=2)

    assert by_organization(chosen(waiting, Room(now=6)))[B] == 3


def test_shares_are_charged_in_seconds_and_not_in_runs():
    shares = Shares()
    given = Counter()
    for _ in range(200):
        waiting = heads(30, version=BRIEF) + heads(30, organization=B, lane=2, version=SCRIPT)
        for message in chosen(waiting, Room(now=1), shares):
            given[message[0].organization_id] += PACES[message[0].version_id].mean_s

    assert given[A] == pytest.approx(given[B], rel=0.2)


def test_who_was_away_does_not_come_back_with_savings():
    shares = Shares()
    for _ in range(50):
        chosen(heads(1), Room(now=1), shares)

    first = by_organization(
        chosen(heads(10) + heads(10, organization=B, lane=2), Room(now=10), shares)
    )

    assert first == {A: 5, B: 5}


def test_lanes_of_one_organization_share_what_it_gets():
    waiting = heads(10, lane=1) + heads(10, lane=2) + heads(10, organization=B, lane=3)
    lanes = Counter(head.lane_id for message in chosen(waiting, Room(now=8)) for head in message)

    assert lanes == {1: 2, 2: 2, 3: 4}


def test_classes_are_strict():
    waiting = heads(3, priority=2) + heads(3, priority=1, lane=2) + heads(3, priority=0, lane=3)

    order = [message[0].priority for message in chosen(waiting, Room(now=7))]

    assert order == [0, 0, 0, 1, 1, 1, 2]


def order(waiting, manners, room=4):
    messages = choose(
        waiting,
        room=Room(now=room),
        paces=PACES,
        shares=Shares(),
        work=WORK,
        keeper=Open(),
        manners=manners,
    )
    return [(head.organization_id, head.priority) for message in messages for head in message]


def test_who_has_waited_long_rises_by_a_class():
    fresh = heads(9, priority=1)
    waiting = fresh + heads(1, priority=2, lane=2, waited_s=901, organization=B)

    assert (B, 2) not in order(waiting, Manners())
    assert (B, 2) in order(waiting, Manners(ageing_s=900))


def test_twice_as_long_rises_by_two_and_no_further():
    waiting = heads(9, priority=0) + heads(1, priority=2, lane=2, waited_s=9000, organization=B)

    assert (B, 2) not in order(waiting, Manners())
    assert (B, 2) in order(waiting, Manners(ageing_s=900))


def test_urgent_runs_beyond_their_share_leave_others_something():
    """Without the share A's urgent runs take every slot."""
    waiting = heads(9, priority=0) + heads(9, priority=1, lane=2, organization=B)

    assert Counter(order(waiting, Manners())) == {(A, 0): 4}
    assert Counter(order(waiting, Manners(urgent_left={A: 2}))) == {(A, 0): 3, (B, 1): 1}
    assert Counter(order(waiting, Manners(urgent_left={A: -5}))) == {(A, 0): 2, (B, 1): 2}


@given(
    st.lists(
        st.tuples(
            st.sampled_from([A, B]),
            st.sampled_from(list(PACES)),
            st.integers(min_value=0, max_value=2),
        ),
        max_size=60,
    ),
    st.integers(min_value=0, max_value=8),
    st.integers(min_value=0, max_value=8),
)
def test_nothing_is_chosen_twice_and_no_room_is_invented(waiting, now, ahead):
    laid = [
        head
        for organization, version, priority in waiting
        for head in heads(
            1, organization=organization, lane=hash((organization, priority)), version=version,
            priority=priority,
        )
    ]  # fmt: skip

    messages = chosen(laid, Room(now=now, ahead=ahead))

    sent = [head.run_id for message in messages for head in message]
    assert len(sent) == len(set(sent))
    assert len(messages) <= now + ahead
    assert sum(message[0].version_id == SCRIPT for message in messages) <= now
    if laid and now:
        assert messages
