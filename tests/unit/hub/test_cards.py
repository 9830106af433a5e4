from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from apps.events.models import Event
from apps.events.types import EventType
from apps.hub.cards import Card, Group, arrange

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
PROJECT = uuid4()


def card(seq: int, at_ms: int, kind: EventType = EventType.MILESTONE, **payload: object) -> Card:
    event = Event(
        seq=seq,
        project_id=PROJECT,
        type=kind,
        at=NOON + timedelta(milliseconds=at_ms),
        payload=payload,
    )
    return Card(event=event, run=None)


def shape(cards: list[Card]) -> list[object]:
    """Sequence numbers of what is shown, and ``"+n"`` for a folded line."""
    return [
        f"+{item.count}" if isinstance(item, Group) else item.event.seq for item in arrange(cards)
    ]


def test_the_first_event_of_a_second_is_shown_with_three_more_and_the_rest_is_one_line():
    burst = [card(seq, at_ms=seq * 10) for seq in range(1, 10)]

    assert shape(burst) == [1, 2, 3, 4, "+5"]


def test_a_new_second_shows_cards_again_after_the_folded_line():
    burst = [card(seq, at_ms=seq * 10) for seq in range(1, 7)]
    later = [card(7, at_ms=1_500), card(8, at_ms=1_510)]

    assert shape([*burst, *later]) == [1, 2, 3, 4, "+2", 7, 8]


def test_slow_events_are_never_folded():
    steady = [card(seq, at_ms=seq * 1_000) for seq in range(1, 30)]

    assert shape(steady) == list(range(1, 30))


def test_receipts_anomalies_and_recoveries_are_shown_in_the_middle_of_a_burst():
    burst = [card(seq, at_ms=seq) for seq in range(1, 7)]
    urgent = [
        card(7, 7, EventType.ANOMALY),
        card(8, 8, EventType.RECOVERY_START),
        card(9, 9, EventType.RECEIPT, state="succeeded"),
    ]
    after = [card(10, 10)]

    assert shape([*burst, *urgent, *after]) == [1, 2, 3, 4, "+2", 7, 8, 9, "+1"]


def test_a_folded_line_leads_to_exactly_the_events_it_hides():
    (group,) = [
        item for item in arrange([card(n, n) for n in range(1, 8)]) if isinstance(item, Group)
    ]

    assert (group.first, group.last, group.count) == (5, 7, 3)
    assert group.href == f"/projects/{PROJECT}/cards?after=4&until=7&all=1"


def test_a_stream_of_one_run_keeps_to_that_run_behind_the_folded_line():
    run = uuid4()

    groups = [
        item
        for item in arrange([card(n, n) for n in range(1, 8)], run_id=run)
        if isinstance(item, Group)
    ]

    assert groups[0].href.endswith(f"&run={run}")


def test_a_receipt_has_the_colour_of_its_state():
    tones = {
        state: card(1, 0, EventType.RECEIPT, state=state).tone
        for state in ("succeeded", "failed", "dead", "cancelled", "expired")
    }

    assert tones == {
        "succeeded": "ok",
        "failed": "bad",
        "dead": "bad",
        "cancelled": "",
        "expired": "warn",
    }


def test_a_card_shows_the_facts_that_say_something_first_and_only_a_few():
    facts = {"none": 0, "rows": 5, "no": False, **{f"more_{n}": n for n in range(1, 9)}}

    shown = card(1, 0, facts=facts).facts

    assert len(shown) == 6
    assert shown[0] == ("rows", 5)
    assert all(value for _, value in shown)


def test_progress_outside_its_bounds_is_kept_inside_the_bar():
    assert card(1, 0, progress=1.7).progress == 1.0
    assert card(1, 0, progress=-3).progress == 0.0
    assert card(1, 0, progress=None).progress is None
    assert card(1, 0, progress="half").progress is None


def test_a_failure_is_not_told_twice():
    error = {
        "code": "out_of_memory",
        "detail": "The script used more than 512 MB.",
        "retryable": False,
    }
    receipt = card(1, 0, EventType.RECEIPT, state="failed", summary=error["detail"], error=error)

    assert receipt.summary == ""
    assert receipt.error is not None
    assert receipt.error.detail == error["detail"]


def test_a_cancelled_run_is_not_presented_as_a_fault():
    error = {"code": "cancelled", "detail": "The run was cancelled before it started."}

    assert card(1, 0, EventType.RECEIPT, state="cancelled", error=error).error is None
