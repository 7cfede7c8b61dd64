"""What a keep ratio takes, and which ratio stays within a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sparsetok.engine.pace import SMALLEST, Pace


def truth(ratio: float, always: float, slope: float, stages: int) -> float:
    return always + slope * sum(ratio**k for k in range(1, stages + 1)) / stages


@given(st.floats(0.01, 1.0), st.floats(0.01, 2.0), st.integers(1, 4), st.floats(0.02, 4.0))
def test_the_ratio_it_picks_is_the_largest_that_stays_within_the_time(always, slope, stages, limit):
    pace = Pace(stages)
    for ratio in (0.1, 0.4, 1.0):
        pace.add(ratio, truth(ratio, always, slope, stages))
    picked = pace.ratio_for(limit)
    assert picked is not None
    if truth(SMALLEST, always, slope, stages) > limit:
        assert picked == SMALLEST
    else:
        assert truth(picked, always, slope, stages) <= limit * (1 + 1e-6)
    if picked < 1.0 and abs(truth(picked + 0.01, always, slope, stages) - limit) > 1e-6:
        assert truth(picked + 0.01, always, slope, stages) > limit


def test_without_a_measurement_nothing_is_claimed():
    assert Pace(2).ratio_for(0.1) is None
    assert Pace(2).seconds_at(0.1) is None


def test_one_time_is_enough_for_a_guess_that_rises_with_the_ratio():
    pace = Pace(2)
    pace.add(0.25, 0.2)
    assert pace.seconds_at(0.25) == pytest.approx(0.2)
    assert pace.seconds_at(0.05) < 0.2 < pace.seconds_at(1.0)


def test_a_machine_that_got_slower_is_believed():
    pace = Pace(1)
    for _ in range(24):
        pace.add(0.2, 0.1)
        pace.add(0.8, 0.2)
    fast = pace.ratio_for(0.15)
    for _ in range(12):
        pace.add(0.2, 0.2)
        pace.add(0.8, 0.4)
    assert len(pace) == 24
    assert pace.ratio_for(0.15) < fast


def test_another_size_of_windows_is_believed_at_its_first_time():
    pace = Pace(2)
    for _ in range(8):
        for ratio in (0.1, 0.5, 1.0):
            pace.add(ratio, 0.03 + 0.03 * ratio, 200)
    pace.add(0.5, 0.45, 2000)  # ten times as long as one of the small windows
    assert pace.seconds_at(0.1) == pytest.approx(0.33, rel=0.1)
    assert pace.seconds_at(1.0) == pytest.approx(0.6, rel=0.1)
    pace.add(0.5, 0.046, 200)
    assert pace.seconds_at(1.0) == pytest.approx(0.06, rel=0.1)


@given(st.lists(st.tuples(st.floats(0.01, 1.0), st.floats(0.001, 10.0)), min_size=1, max_size=30))
def test_noise_gives_a_ratio_all_the_same(times):
    pace = Pace(3)
    for ratio, seconds in times:
        pace.add(ratio, seconds)
    assert 0.01 <= pace.ratio_for(0.1) <= 1
    assert pace.seconds_at(0.01) <= pace.seconds_at(1.0)
