from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtp.data import DataSet
from fedtp.data.stream import Samples
from simulations.drift import Change, Timeline
from simulations.streams import SimulatedStream

ROWS = np.array([3, 8, 9, 14, 15, 16, 20, 31, 40, 41, 42])


def data(concept: int = 0, ordered: bool = False) -> DataSet:
    """Fifty rows; the input of row i is i, and i + 1000 under another concept, whose label is 1."""
    x = np.arange(50, dtype=np.float32)[:, None] + 1000 * concept
    y = np.full(50, concept, np.int64)
    return DataSet("toy", x, y, ("a", "b"), (1,), ("f",), ordered=ordered)


def stream(ordered: bool = False, timeline: Timeline = Timeline("a"), rate: float = 0.5, **other) -> SimulatedStream:  # noqa: B008
    concepts = {"a": data(ordered=ordered), "b": data(1, ordered)}
    return SimulatedStream(concepts, ROWS, timeline, rate, **{"seed": 3, "device": 4, **other})


def joined(parts: Sequence[Samples]) -> tuple[list[float], list[int], list[float]]:
    return tuple(np.concatenate([getattr(p, name) for p in parts]).ravel().tolist() for name in ("x", "y", "seconds"))  # type: ignore[return-value]


def test_each_pass_goes_over_all_rows_once_in_an_order_of_its_own() -> None:
    rows = stream().take(100.0).x.ravel().astype(int)
    passes = [rows[start : start + len(ROWS)] for start in range(0, 44, len(ROWS))]
    for one in passes:
        assert sorted(one) == ROWS.tolist()
    assert len({tuple(one) for one in passes}) == 4


def test_ordered_data_comes_once_and_ends() -> None:
    ordered = stream(ordered=True)
    assert ordered.take(10.0).x.ravel().tolist() == ROWS[:5].tolist()
    assert ordered.take(1e6).x.ravel().tolist() == ROWS[5:].tolist()
    for now in (1e6, 2e6):
        assert len(ordered.take(now)) == 0
        assert ordered.position == len(ROWS)


def test_ordered_data_ends_with_a_fixed_number_per_order_too() -> None:
    ordered = stream(ordered=True, samples_per_order=4)
    assert [len(ordered.take(60.0 * n)) for n in range(5)] == [4, 4, 3, 0, 0]


@pytest.mark.parametrize("rate", [0.01, 0.5, 3.0])
def test_samples_arrive_at_the_rate(rate: float) -> None:
    whole = stream(rate=rate)
    taken = [whole.take(now) for now in np.arange(0, 1000, 7.0)]
    assert whole.position == pytest.approx(994 * rate, abs=1)
    seconds = np.concatenate([samples.seconds for samples in taken])
    np.testing.assert_allclose(np.diff(seconds), 1 / rate, rtol=1e-6)
    for now, samples in zip(np.arange(0, 1000, 7.0), taken, strict=True):
        if len(samples):
            assert now - 7.0 - 1e-9 <= samples.seconds[0]
            assert samples.seconds[-1] <= now + 1e-9


def test_devices_begin_at_moments_of_their_own() -> None:
    first = {stream(device=device).take(2.0).seconds[0] for device in range(20)}
    assert len(first) == 20


def test_it_begins_when_it_is_told() -> None:
    early = stream(start_seconds=-60.0)
    samples = early.take(0.0)
    assert len(samples) in (29, 30, 31)
    assert -60 < samples.seconds[0] < -57.9


def test_a_fixed_number_per_order_whatever_the_time() -> None:
    fixed = stream(samples_per_order=6)
    for now in (0.0, 0.0, 1e6):
        samples = fixed.take(now)
        assert len(samples) == 6
        assert (samples.seconds == now).all()
    assert fixed.position == 18


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("samples_per_order", [0, 5])
@given(nows=st.lists(st.floats(0, 200), min_size=1, max_size=12), cut=st.integers(0, 12))
def test_it_goes_on_from_any_position(ordered: bool, samples_per_order: int, nows: list[float], cut: int) -> None:
    timeline = Timeline("a", (Change(20.0, "b", 40.0), Change(90.0, "a")))
    nows.sort()
    unbroken = stream(ordered, timeline, samples_per_order=samples_per_order)
    expected = [unbroken.take(now) for now in nows]
    first = stream(ordered, timeline, samples_per_order=samples_per_order)
    parts = [first.take(now) for now in nows[:cut]]
    second = stream(ordered, timeline, samples_per_order=samples_per_order)
    second.position = first.position
    parts += [second.take(now) for now in nows[cut:]]
    assert joined(parts) == joined(expected)
    assert second.position == unbroken.position


@given(st.lists(st.floats(0, 300), min_size=1, max_size=12))
def test_it_does_not_matter_how_often_it_is_asked(nows: list[float]) -> None:
    timeline = Timeline("a", (Change(20.0, "b", 40.0),))
    nows.sort()
    asked, once = stream(timeline=timeline), stream(timeline=timeline)
    assert joined([asked.take(now) for now in nows]) == joined([once.take(nows[-1])])


def test_time_that_goes_back_brings_nothing() -> None:
    one = stream()
    one.take(50.0)
    position = one.position
    assert len(one.take(20.0)) == 0
    assert one.position == position


def test_concepts_change_at_the_moment_of_arrival() -> None:
    timeline = Timeline("a", (Change(20.0, "b"), Change(41.0, "a")))
    samples = stream(timeline=timeline).take(80.0)
    turned = (samples.seconds >= 20.0) & (samples.seconds < 41.0)
    assert 9 <= turned.sum() <= 11
    np.testing.assert_array_equal(samples.y, turned)
    np.testing.assert_array_equal(samples.x.ravel() >= 1000, turned)
    rows = samples.x.ravel() - 1000 * turned
    assert set(rows.astype(int)) == set(ROWS)


def test_a_gradual_change_mixes_two_concepts() -> None:
    timeline = Timeline("a", (Change(100.0, "b", width_seconds=800.0),))
    samples = stream(timeline=timeline, rate=5.0).take(1000.0)
    share = [samples.y[(samples.seconds >= t) & (samples.seconds < t + 100)].mean() for t in range(0, 1000, 100)]
    np.testing.assert_allclose(share, [0, *np.arange(1, 16, 2) / 16, 1], atol=0.08)


def test_what_it_yields_may_be_changed_without_changing_the_data() -> None:
    concepts = {"a": data(), "b": data(1)}
    for timeline in (Timeline("a"), Timeline("a", (Change(5.0, "b"),))):
        one = SimulatedStream(concepts, ROWS, timeline, 1.0)
        one.take(20.0).x[:] = -1
    assert (concepts["a"].x >= 0).all()
    assert (concepts["b"].x >= 1000).all()


def test_it_follows_from_seed_and_device() -> None:
    whole = stream().take(100.0)
    assert joined([stream().take(100.0)]) == joined([whole])
    for other in ({"seed": 4}, {"device": 5}):
        assert joined([stream(**other).take(100.0)])[0][:40] != joined([whole])[0][:40]


def test_its_types_are_those_that_devices_expect() -> None:
    for samples in (stream().take(0.0), stream().take(50.0)):
        assert samples.x.dtype == np.float32
        assert samples.y.dtype == np.int64
        assert samples.seconds.dtype == np.float64
        assert samples.x.shape == (len(samples), 1)
