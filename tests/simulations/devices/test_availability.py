"""Windows in which devices can be reached, whatever they come from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.devices.availability import Availability, always, duty_cycle, join, time_of_day

WINDOWS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 16), st.integers(0, 20)), max_size=12)


@given(windows=WINDOWS, seconds=st.integers(0, 100), phases=st.lists(st.integers(0, 40), min_size=3, max_size=3))
def test_a_device_is_there_in_its_windows_and_for_as_long_as_they_last(windows, seconds, phases) -> None:
    """Against a table of 16 seconds for each device, which are there or not."""
    table = np.zeros((3, 16), bool)
    for device, start, length in windows:
        table[device, np.arange(start, start + min(length, 16)) % 16] = True
    parts = [np.array([window[i] for window in windows], int) for i in range(3)]
    availability = Availability.of([16.0] * 3, (parts[0], parts[1], parts[1] + np.minimum(parts[2], 16)), phases)
    there = [table[device, (seconds + phase) % 16] for device, phase in enumerate(phases)]
    assert availability.now(seconds).tolist() == there
    left = availability.remaining(seconds, np.arange(3))
    for device, phase in enumerate(phases):
        ahead = np.roll(table[device], -(seconds + phase))
        assert left[device] == (np.inf if ahead.all() else np.argmin(ahead))


def test_devices_are_always_there_unless_they_have_a_duty_cycle() -> None:
    availability = always(50)
    assert all(availability.now(now).all() for now in np.linspace(0, 1e6, 101))
    assert np.isinf(availability.remaining(7.3, np.arange(50))).all()


def test_a_duty_cycle_lasts_as_long_as_it_says() -> None:
    availability = duty_cycle(90.0, 30.0, np.random.default_rng(1).random(40))
    there = np.array([availability.now(now) for now in range(1200)])
    np.testing.assert_allclose(there.mean(0), 0.75, atol=0.01)
    np.testing.assert_array_equal(there[:-120], there[120:])
    # One stretch on and one off in every period, at phases of their own.
    assert (np.abs(np.diff(there.astype(int), axis=0)).sum(0) <= 20).all()
    assert len({tuple(column) for column in there.T}) > 30
    assert 0.5 < there[0].mean() < 1.0


def test_sessions_are_about_noon_once_a_day() -> None:
    availability = time_of_day(4000, np.random.default_rng(1))
    share = np.array([availability.now(hour * 3600.0).mean() for hour in range(24 * 7)]).reshape(7, 24)
    assert share.mean() == pytest.approx(720 / 86_400, rel=0.1)
    assert share[:, 12].mean() > 4 * share[:, 0].mean()
    # A day has sessions of its own.
    days = np.array([availability.now(day * 86_400 + 43_200.0) for day in range(7)])
    assert len({day.tobytes() for day in days}) == 7
    np.testing.assert_array_equal(availability.now(43_200.0), availability.now(7 * 86_400 + 43_200.0))


def test_sessions_last_as_long_as_they_are_told_and_begin_at_the_local_time() -> None:
    rng = np.random.default_rng(1)
    noon = time_of_day(4000, rng, starts_at=43_200.0, session_seconds=7200.0)
    assert noon.now(0.0).mean() > 0.1 > 3 * noon.now(43_200.0).mean()


def test_a_hundred_thousand_devices_do_not_run_into_each_other() -> None:
    """Whatever rounding does to their numbers: none is taken for its neighbour."""
    parts = join([always(1), duty_cycle(1.0, 2.0, np.full(99_998, 0.999_999_999_999)), always(1)])
    assert parts.now(0.0).sum() in (2, 100_000)
    assert np.isinf(parts.remaining(0.0, np.array([0, 99_999]))).all()
    assert len(parts) == 100_000


def test_a_device_without_windows_is_never_there() -> None:
    availability = Availability.of([10.0, 10.0], ([1], [0.0], [10.0]))
    assert availability.now(3.0).tolist() == [False, True]
    assert availability.remaining(3.0, np.array([0, 1])).tolist() == [0.0, np.inf]
