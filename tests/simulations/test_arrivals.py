from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.arrivals import Arrivals, Irregular, Labels, arrivals
from simulations.specs import ArrivalSpec

ALL = sys.maxsize
SPECS = {
    "constant": {},
    "poisson": {"kind": "poisson"},
    "bursts": {"kind": "bursts", "burst_samples": 5.0, "burst_share": 0.2},
    "at once": {"kind": "bursts", "burst_samples": 5.0, "burst_share": 0.0},
}
kinds = pytest.mark.parametrize("kind", SPECS)


def made(kind: str, rate: float = 2.0, start: float = 0.0, seed: int = 1, device: int = 0) -> Arrivals:
    return arrivals(ArrivalSpec(rate=rate, **SPECS[kind]), rate, start, seed, device)


@kinds
@given(nows=st.lists(st.floats(-10, 400), min_size=1, max_size=8))
def test_counts_add_up_however_time_is_divided(kind: str, nows: list[float]) -> None:
    nows.sort()
    one, parts, first = made(kind), [], 0
    for now in nows:
        parts.append(one.until(first, now, ALL))
        first += len(parts[-1])
    np.testing.assert_array_equal(np.concatenate(parts), made(kind).until(0, nows[-1], ALL))


@kinds
@given(now=st.floats(0, 400), start=st.floats(-100, 100))
def test_nothing_arrives_before_its_time_nor_out_of_order(kind: str, now: float, start: float) -> None:
    times = made(kind, start=start).until(0, now, ALL)
    assert (np.diff(times) >= 0).all()
    assert (times >= start).all()
    assert (times <= now + 1e-9).all()


@kinds
@given(first=st.integers(0, 500), now=st.floats(0, 400), most=st.integers(0, 200))
def test_any_sample_can_be_the_next(kind: str, first: int, now: float, most: int) -> None:
    """Without those before it having been asked for, and after any others."""
    whole = made(kind).until(0, now, ALL)
    one = made(kind)
    one.until(0, 250.0, ALL)
    for fresh in (made(kind), one):
        np.testing.assert_array_equal(fresh.until(first, now, most), whole[first : first + most])


@kinds
def test_the_mean_rate_is_kept(kind: str) -> None:
    counts = [len(made(kind, rate=3.0, device=device).until(0, 1000.0, ALL)) for device in range(40)]
    assert np.mean(counts) == pytest.approx(3000, rel=0.03)


def test_one_by_one_is_a_poisson_process() -> None:
    times = made("poisson", rate=2.0).until(0, 20_000.0, ALL)
    gaps = np.diff(times)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)
    per_minute = np.bincount((times // 60).astype(int))[:333]
    assert per_minute.var() == pytest.approx(per_minute.mean(), rel=0.15)


def test_bursts_are_as_long_and_as_many_as_told() -> None:
    times = Irregular(1.0, burst_samples=10.0, burst_share=0.1, seed=2).until(0, 50_000.0, ALL)
    per_minute = np.bincount((times // 60).astype(int))
    assert per_minute.var() > 5 * per_minute.mean()
    # A burst's gaps are of 1/9 s, those between bursts of 9 s, mean.
    gaps = np.diff(times)
    assert gaps[gaps < 1].mean() == pytest.approx(0.12, abs=0.02)
    assert np.mean(gaps > 1) == pytest.approx(0.1 * np.exp(-1 / 9), rel=0.1)


def test_a_burst_may_come_all_at_once() -> None:
    times = made("at once", rate=1.0).until(0, 50_000.0, ALL)
    _, sizes = np.unique(times, return_counts=True)
    assert sizes.mean() == pytest.approx(5.0, rel=0.05)
    assert np.mean(sizes == 1) == pytest.approx(1 / 5, rel=0.1)


@kinds
def test_devices_and_seeds_have_times_of_their_own(kind: str) -> None:
    times = [made(kind, seed=seed, device=device).until(0, 60.0, 12) for seed, device in ((1, 0), (1, 1), (2, 0))]
    assert len({tuple(found) for found in times}) == 3


def test_a_fixed_number_comes_whatever_the_time() -> None:
    fixed = arrivals(ArrivalSpec(samples_per_order=4), 1.0, 0.0, 1, 0)
    assert fixed.until(0, 7.0, ALL).tolist() == [7.0] * 4
    assert fixed.until(4, 7.0, 3).tolist() == [7.0] * 3


# Labels.


def test_no_object_where_labels_come_at_once() -> None:
    assert Labels.of(ArrivalSpec()) is None
    assert Labels.of(ArrivalSpec(label_fraction=0.5)) == Labels(0.0, "constant", 0.5)


@pytest.mark.parametrize("delay", ["constant", "exponential"])
@given(chance=st.lists(st.floats(0, 1, exclude_max=True), max_size=20), fraction=st.floats(0.01, 1))
def test_no_label_comes_before_its_sample(delay: str, chance: list[float], fraction: float) -> None:
    seconds = np.arange(float(len(chance)))
    known = Labels(5.0, delay, fraction).known(seconds, np.array(chance))
    assert (known >= seconds).all()
    np.testing.assert_array_equal(np.isfinite(known), np.array(chance) < fraction)


def test_delays_are_exponential_whatever_the_share_of_labels() -> None:
    chance = np.random.default_rng(0).random(40_000)
    delays = Labels(50.0, "exponential", 0.4).known(np.zeros(len(chance)), chance)
    assert np.isfinite(delays).mean() == pytest.approx(0.4, abs=0.01)
    finite = delays[np.isfinite(delays)]
    assert finite.mean() == pytest.approx(50.0, rel=0.03)
    assert finite.std() == pytest.approx(50.0, rel=0.05)
