from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.drift import Change, Timeline, timelines
from simulations.specs import DriftSpec

HALF = np.full(1, 0.5)


def drift(kind: str = "sudden", concept: str = "b", at_seconds: float = 100.0, **other: float) -> DriftSpec:
    return DriftSpec(kind=kind, concept=concept, at_seconds=at_seconds, **other)


def lines(*drifts: DriftSpec, devices: int = 50, duration: float = 1000.0, seed: int = 1) -> list[Timeline]:
    return timelines("a", drifts, devices, duration, np.random.default_rng(seed))


def concepts(line: Timeline, *seconds: float) -> str:
    return "".join(line.concepts(np.array(seconds), np.full(len(seconds), 0.5)))


def test_without_drifts_nothing_changes() -> None:
    assert lines() == [Timeline("a")] * 50
    assert concepts(Timeline("a"), -60, 0, 1e9) == "aaa"
    assert Timeline("a").concepts(np.empty(0), np.empty(0)) == []


def test_a_sudden_drift_in_step_comes_for_all_at_once() -> None:
    for line in lines(drift()):
        assert line.changes == (Change(100.0, "b"),)
        assert concepts(line, 99.999, 100.0, 100.001) == "abb"


def test_staggered_devices_drift_each_in_its_time() -> None:
    starts = [line.changes[0].at_seconds for line in lines(drift(stagger_seconds=200.0), devices=400)]
    assert len(set(starts)) == 400
    assert min(starts) >= 100.0
    assert max(starts) < 300.0
    assert np.mean(starts) == pytest.approx(200.0, abs=10)


@pytest.mark.parametrize(("fraction", "count"), [(0.01, 1), (0.3, 15), (1.0, 50)])
def test_a_fraction_of_the_devices_drifts(fraction: float, count: int) -> None:
    assert sum(bool(line.changes) for line in lines(drift(fraction=fraction))) == count


def test_drifts_choose_their_devices_independently() -> None:
    drawn = lines(drift(fraction=0.5), drift(concept="c", at_seconds=200.0, fraction=0.5), devices=400)
    kinds = [len(line.changes) for line in drawn]
    assert all(kinds.count(number) > 60 for number in (0, 1, 2))


def test_a_gradual_drift_rises_evenly() -> None:
    (line,) = lines(drift("gradual", width_seconds=100.0), devices=1)
    seconds = np.repeat([99.0, 110.0, 150.0, 190.0, 200.0], 10_000)
    chance = np.tile(np.random.default_rng(0).random(10_000), 5)
    share = (np.array(line.concepts(seconds, chance)) == "b").reshape(5, -1).mean(1)
    np.testing.assert_allclose(share, [0, 0.1, 0.5, 0.9, 1], atol=0.02)


def test_a_recurring_drift_alternates_until_the_end() -> None:
    (line,) = lines(drift("recurring", at_seconds=100.0, period_seconds=300.0), devices=1)
    assert [(change.at_seconds, change.concept) for change in line.changes] == [(100, "b"), (400, "a"), (700, "b")]
    assert concepts(line, 99, 100, 399, 400, 699, 700, 999) == "abbaabb"


def test_a_recurring_drift_returns_to_what_was_before_it() -> None:
    recurring = drift("recurring", "c", at_seconds=500.0, period_seconds=100.0)
    (line,) = lines(drift(at_seconds=200.0), recurring, devices=1)
    assert concepts(line, 100, 300, 550, 650, 750, 850, 950) == "abcbcbc"


def test_only_what_begins_before_the_end_is_there() -> None:
    drawn = lines(drift(at_seconds=900.0, stagger_seconds=200.0), devices=400)
    starts = [change.at_seconds for line in drawn for change in line.changes]
    assert 150 < len(starts) < 250
    assert max(starts) < 1000.0
    (line,) = lines(drift("recurring", at_seconds=100.0, period_seconds=450.0), devices=1)
    assert [change.at_seconds for change in line.changes] == [100.0, 550.0]


def test_changes_come_in_the_order_of_time() -> None:
    (line,) = lines(drift(concept="c", at_seconds=500.0), drift(at_seconds=100.0), devices=1)
    assert concepts(line, 50, 300, 700) == "abc"


@pytest.mark.parametrize(("at", "concept"), [(99.0, "a"), (149.0, "a"), (150.0, "b"), (300.0, "b")])
def test_the_concept_in_force_is_the_one_that_prevails(at: float, concept: str) -> None:
    (line,) = lines(drift("gradual", width_seconds=100.0), devices=1)
    assert line.last(at) == concept


def test_timelines_follow_from_the_seed() -> None:
    drifts = drift(stagger_seconds=200.0, fraction=0.5)
    assert lines(drifts) == lines(drifts)
    assert lines(drifts) != lines(drifts, seed=2)


changes = st.builds(Change, st.floats(0, 100), st.sampled_from("abc"), st.one_of(st.just(0.0), st.floats(0.1, 50)))


@given(st.lists(changes, max_size=5), st.lists(st.tuples(st.floats(-50, 200), st.floats(0, 0.999)), max_size=20))
def test_a_sample_has_the_concept_of_the_last_change_that_reached_it(
    drawn: list[Change], samples: list[tuple[float, float]]
) -> None:
    line = Timeline("i", tuple(sorted(drawn, key=lambda change: change.at_seconds)))
    samples.sort()
    found = line.concepts(np.array([s for s, _ in samples]), np.array([c for _, c in samples]))
    for (seconds, chance), concept in zip(samples, found, strict=True):
        expected = "i"
        for change in line.changes:
            if seconds >= change.at_seconds + chance * change.width_seconds:
                expected = change.concept
        assert concept == expected
