from __future__ import annotations

import pytest

from apps.runs.types import Failure, RetryPolicy

LOST = Failure(code="worker_lost", detail="", retryable=True)
WRONG = Failure(code="command_failed", detail="")


def test_a_retryable_failure_is_tried_until_the_attempts_are_used_up():
    policy = RetryPolicy(max_attempts=3)

    assert [policy.allows(LOST, attempt=number) for number in (1, 2, 3)] == [True, True, False]


def test_a_policy_can_add_and_exclude_codes():
    policy = RetryPolicy(retry_on=("command_failed",), give_up_on=("worker_lost",))

    assert policy.allows(WRONG, attempt=1)
    assert not policy.allows(LOST, attempt=1)


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 2), (2, 4), (3, 8), (20, 300)])
def test_back_off_doubles_up_to_its_limit(attempt, seconds):
    assert RetryPolicy(jitter=0).delay_s(attempt=attempt, dice=0.5) == seconds


def test_jitter_spreads_around_the_delay():
    policy = RetryPolicy(jitter=0.5, backoff="fixed", base_s=10)

    assert policy.delay_s(attempt=1, dice=0) == 5
    assert policy.delay_s(attempt=1, dice=0.999) == pytest.approx(15, abs=0.1)
