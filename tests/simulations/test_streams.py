from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtp.data import DataSet
from fedtp.data.stream import Samples
from fedtp.errors import ScenarioError
from simulations.arrivals import Labels, arrivals
from simulations.drift import Change, Timeline
from simulations.specs import ArrivalSpec
from simulations.streams import Pool, SimulatedStream

ROWS = np.array([3, 8, 9, 14, 15, 16, 20, 31, 40, 41, 42])


def data(concept: int = 0, ordered: bool = False) -> DataSet:
    """Fifty rows; the input of row i is i, and i + 1000 under another concept, whose label is 1."""
    x = np.arange(50, dtype=np.float32)[:, None] + 1000 * concept
    y = np.full(50, concept, np.int64)
    return DataSet("toy", x, y, ("a", "b"), (1,), ("f",), ordered=ordered)


def few(rows: np.ndarray, others: float = 0.0) -> DataSet:
    """The data, of which these rows are drawn once, and the others so often in relation to them."""
    weights = np.full(50, others)
    weights[rows] = 1
    return replace(data(), weights=weights)


def stream(
    ordered: bool = False,
    timeline: Timeline = Timeline("a"),  # noqa: B008
    rate: float = 0.5,
    start_seconds: float = 0.0,
    seed: int = 3,
    device: int = 4,
    concepts: dict[str, DataSet] | None = None,
    everybody: Pool | None = None,
    **spec,
) -> SimulatedStream:
    arrival = ArrivalSpec(rate=rate, **spec)
    return SimulatedStream(
        concepts or {"a": data(ordered=ordered), "b": data(1, ordered)},
        ROWS,
        timeline,
        arrivals(arrival, rate, start_seconds, seed, device),
        labels=Labels.of(arrival),
        everybody=everybody,
        seed=seed,
        device=device,
    )


def joined(parts: Sequence[Samples]) -> tuple[list[float], ...]:
    names = ("x", "y", "seconds", *(["label_seconds"] if parts[0].label_seconds is not None else []))
    return tuple(np.concatenate([getattr(p, name) for p in parts]).ravel().tolist() for name in names)


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


KINDS = [
    {},
    {"samples_per_order": 5},
    {"kind": "poisson", "label_fraction": 0.5},
    {"kind": "bursts", "burst_samples": 4.0, "label_delay_seconds": 20.0, "label_delay": "exponential"},
]


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("spec", KINDS, ids=str)
@given(nows=st.lists(st.floats(0, 200), min_size=1, max_size=12), cut=st.integers(0, 12))
def test_it_goes_on_from_any_position(ordered: bool, spec: dict, nows: list[float], cut: int) -> None:
    timeline = Timeline("a", (Change(20.0, "b", 40.0), Change(90.0, "a")))
    nows.sort()
    unbroken = stream(ordered, timeline, **spec)
    expected = [unbroken.take(now) for now in nows]
    first = stream(ordered, timeline, **spec)
    parts = [first.take(now) for now in nows[:cut]]
    second = stream(ordered, timeline, **spec)
    second.position = first.position
    parts += [second.take(now) for now in nows[cut:]]
    assert joined(parts) == joined(expected)
    assert second.position == unbroken.position


@pytest.mark.parametrize("spec", [{}, *KINDS[2:]], ids=str)
@given(nows=st.lists(st.floats(0, 300), min_size=1, max_size=12))
def test_it_does_not_matter_how_often_it_is_asked(spec: dict, nows: list[float]) -> None:
    timeline = Timeline("a", (Change(20.0, "b", 40.0), Change(100.0, "few", 10.0)))
    concepts = {"a": data(), "b": data(1), "few": few(ROWS[:3])}
    nows.sort()
    asked, once = (stream(timeline=timeline, concepts=concepts, rate=2.0, **spec) for _ in range(2))
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
        one = stream(timeline=timeline, rate=1.0, concepts=concepts)
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


# --- Concepts that are about which samples are drawn ----------------------------------------------------------------


def test_rows_are_drawn_as_often_as_they_weigh() -> None:
    concept = few(ROWS[:2], others=0.25)
    rows = stream(rate=100.0, concepts={"a": concept}).take(400.0).x.ravel().astype(int)
    counts = np.array([np.count_nonzero(rows == row) for row in ROWS])
    assert counts.sum() == len(rows)
    np.testing.assert_allclose(counts / len(rows), np.where(np.arange(11) < 2, 1, 0.25) / 4.25, atol=0.01)


def test_what_a_device_has_not_comes_from_everybody() -> None:
    rows = np.array([1, 2, 5])
    everybody = Pool(np.arange(6))
    timeline = Timeline("a", (Change(50.0, "few"),))
    one = stream(timeline=timeline, rate=2.0, concepts={"a": data(), "few": few(rows)}, everybody=everybody)
    samples = one.take(100.0)
    seen = samples.x.ravel().astype(int)
    assert set(seen[samples.seconds < 50]) == set(ROWS)
    assert set(seen[samples.seconds >= 50]) == set(rows)


def test_a_concept_of_which_all_is_held_out_is_refused() -> None:
    one = stream(concepts={"a": few(np.array([7]))}, everybody=Pool(np.arange(6)))
    with pytest.raises(ScenarioError, match='concept "a" leaves no sample to learn from'):
        one.take(100.0)


def test_rows_without_weight_are_never_drawn() -> None:
    pool, weights = Pool(np.arange(50)), few(np.array([3, 10, 11, 49])).weights
    concept = replace(data(), weights=weights)
    for chance in (0.0, 0.25, 0.5, np.nextafter(1, 0)):
        (row,) = pool.draw("c", concept, np.array([chance]))
        assert weights[row] == 1


# --- Labels ---------------------------------------------------------------------------------------------------------


def test_labels_at_once_need_no_times() -> None:
    assert stream().take(100.0).label_seconds is None


def test_labels_come_later_or_never() -> None:
    samples = stream(rate=20.0, label_delay_seconds=30.0, label_fraction=0.7).take(500.0)
    late = samples.label_seconds - samples.seconds
    assert np.isinf(late).mean() == pytest.approx(0.3, abs=0.02)
    np.testing.assert_allclose(late[np.isfinite(late)], 30.0)
