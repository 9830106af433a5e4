from __future__ import annotations

import pytest

from benchmarks import stats


def test_a_percentile_lies_between_its_neighbours():
    values = [40.0, 10.0, 30.0, 20.0]

    assert stats.percentile(values, 0) == 10
    assert stats.percentile(values, 0.5) == 25
    assert stats.percentile(values, 1) == 40


def test_a_percentile_of_one_value_is_that_value():
    assert stats.percentile([7.0], 0.99) == 7


def test_there_is_no_percentile_of_nothing():
    with pytest.raises(ValueError, match="nothing"):
        stats.percentile([], 0.5)


def test_a_share_beyond_one_is_refused():
    with pytest.raises(ValueError, match="from 0 to 1"):
        stats.percentile([1.0], 50)


def test_a_ratio_is_taken_round_by_round_so_that_a_slow_spell_cancels_out():
    ours = [20.0, 200.0, 22.0]
    theirs = [10.0, 100.0, 10.0]

    assert stats.ratio(ours, theirs) == 2.0


def test_a_round_in_which_the_peer_had_no_value_gives_no_ratio():
    assert stats.ratio([1.0, 3.0], [0.0, 2.0]) == 1.5
    assert stats.ratio([1.0], [0.0]) is None


def test_a_slope_is_what_each_step_adds():
    assert stats.slope([(1, 12), (2, 14), (4, 18)]) == pytest.approx(2)


def test_a_slope_through_one_point_is_refused():
    with pytest.raises(ValueError, match="apart"):
        stats.slope([(1, 12), (1, 14)])
