from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtp.errors import ScenarioError
from simulations.drift import (
    Change,
    Concept,
    GradualDrift,
    IncrementalDrift,
    SuddenDrift,
    Timeline,
    matrix_timelines,
    timelines,
)
from simulations.specs import DriftMatrixSpec, DriftSpec

HALF = np.full(1, 0.5)


def drift(kind: str = "sudden", concept: str | list[str] = "b", at_seconds: float = 100.0, **other) -> DriftSpec:
    return DriftSpec.model_validate({"kind": kind, "concept": concept, "at_seconds": at_seconds, **other})


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


# --- Incremental drift ----------------------------------------------------------------------------------------------


def test_an_incremental_drift_goes_through_the_concepts_between() -> None:
    (line,) = lines(drift("incremental", width_seconds=90.0, steps=4), devices=1)
    (change,) = line.changes
    assert (change.origin, change.concept, change.steps) == ("a", "b", 4)
    assert [stage.name for stage in change.stages] == ["a to b, 1/4", "a to b, 2/4", "a to b, 3/4", "b"]
    seconds = np.array([99.0, 100.0, 129.0, 130.0, 160.0, 189.0, 190.0, 900.0])
    found = line.concepts(seconds, np.full(8, 0.5))
    assert found == ["a", "a to b, 1/4", "a to b, 1/4", "a to b, 2/4", "a to b, 3/4", "a to b, 3/4", "b", "b"]


def test_an_incremental_drift_starts_from_the_concept_in_force() -> None:
    drifts = [drift(), drift("incremental", "c", 500.0, width_seconds=90.0)]
    for written in (drifts, drifts[::-1]):
        (line,) = lines(*written, devices=1)
        assert (line.changes[-1].origin, line.changes[-1].steps) == ("b", 10)


# --- In groups, by chance, between several --------------------------------------------------------------------------


def test_groups_drift_one_after_another() -> None:
    """FedCCFA's: a third of the devices at 100, the next at 110, the last at 120."""
    starts = [line.changes[0].at_seconds for line in lines(drift(stagger_seconds=30.0, groups=3), devices=20)]
    assert sorted(starts) == [100.0] * 7 + [110.0] * 7 + [120.0] * 6
    assert starts != sorted(starts)


def test_each_device_gets_one_of_several_concepts_by_chance() -> None:
    drawn = lines(drift(concept=["b", "c", "d"]), devices=300)
    found = [line.changes[0].concept for line in drawn]
    assert all(len(line.changes) == 1 for line in drawn)
    assert all(80 < found.count(name) < 120 for name in "bcd")


def test_a_recurring_drift_goes_through_all_its_concepts_and_back() -> None:
    (line,) = lines(drift("recurring", ["b", "c"], at_seconds=100.0, period_seconds=200.0), devices=1)
    assert [(change.at_seconds, change.concept) for change in line.changes] == [
        (100, "b"),
        (300, "c"),
        (500, "a"),
        (700, "b"),
        (900, "c"),
    ]


def test_a_random_drift_changes_again_and_again_to_another_concept() -> None:
    drawn = lines(drift("random", ["a", "b", "c"], at_seconds=0.0, period_seconds=50.0), devices=100, duration=5000.0)
    for line in drawn:
        names = [line.initial, *(change.concept for change in line.changes)]
        assert all(first != second for first, second in pairwise(names))
        assert line.changes[0].at_seconds == 0.0
        assert line.changes[-1].at_seconds < 5000.0
    gaps = np.concatenate([np.diff([change.at_seconds for change in line.changes]) for line in drawn])
    assert gaps.mean() == pytest.approx(50.0, rel=0.05)
    assert gaps.std() == pytest.approx(50.0, rel=0.1)
    found = [change.concept for line in drawn for change in line.changes]
    assert all(found.count(name) / len(found) == pytest.approx(1 / 3, abs=0.03) for name in "abc")


# --- As a timeline --------------------------------------------------------------------------------------------------


def test_a_timeline_is_written_as_concepts_with_drifts_between() -> None:
    line = Timeline.of(
        Concept("a"),
        SuddenDrift(10.0),
        Concept("b"),
        GradualDrift(20.0, 5.0),
        Concept("a"),
        IncrementalDrift(30.0, 9.0),
        Concept("c"),
    )
    assert line == Timeline(
        "a", (Change(10.0, "b"), Change(20.0, "a", 5.0), Change(30.0, "c", 9.0, steps=10, origin="a"))
    )
    assert Timeline.of(Concept("a")) == Timeline("a")


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (SuddenDrift(1.0),),
        (Concept("a"), Concept("b"), Concept("c")),
        (Concept("a"), SuddenDrift(1.0)),
        (Concept("a"), SuddenDrift(1.0), SuddenDrift(2.0)),
        (Concept("a"), SuddenDrift(2.0), Concept("b"), SuddenDrift(1.0), Concept("a")),
    ],
)
def test_what_is_no_timeline_is_refused(parts) -> None:
    with pytest.raises(ScenarioError, match="timeline"):
        Timeline.of(*parts)


drifts_of_parts = st.one_of(
    st.builds(SuddenDrift, st.floats(0, 999)),
    st.builds(GradualDrift, st.floats(0, 999), st.floats(0.1, 500)),
    st.builds(IncrementalDrift, st.floats(0, 999), st.floats(0.1, 0.2), st.integers(2, 20)),
)


@given(st.lists(st.tuples(drifts_of_parts, st.sampled_from("abc")), max_size=6))
def test_a_scenario_can_say_what_a_timeline_says(pairs) -> None:
    pairs.sort(key=lambda pair: pair[0].at_seconds)
    line = Timeline.of(Concept("a"), *(part for drift_, name in pairs for part in (drift_, Concept(name))))
    (drawn,) = timelines("a", line.drifts(), 1, 1000.0, np.random.default_rng(0))
    # A change's origin is the concept in force then, which may be none that was written, while another is under way.
    assert [replace(change, origin=None) for change in drawn.changes] == [
        replace(change, origin=None) for change in line.changes
    ]


# --- As a matrix ----------------------------------------------------------------------------------------------------


def test_the_matrices_are_those_of_feddrift() -> None:
    for name, most in (("A", 1), ("B", 3), ("C", 3), ("W", 1)):
        rows = DriftMatrixSpec(matrix=name, concepts=list("wxyz")).rows
        assert (len(rows), {len(row) for row in rows}) == (11, {10})
        assert max(map(max, rows)) == most
        assert set(rows[0]) == {0}


def test_a_matrix_says_who_sees_what_when() -> None:
    spec = DriftMatrixSpec(matrix=["001", "101", "121"], concepts=["a", "b", "c"])
    drawn = matrix_timelines(spec, 3, 300.0)
    assert [concepts(line, 50, 150, 250, 1e6) for line in drawn] == ["abbb", "aacc", "bbbb"]
    assert drawn[0].changes == (Change(100.0, "b"),)
    # More devices than columns take the columns in turn, fewer the first ones.
    assert matrix_timelines(spec, 5, 300.0) == drawn + drawn[:2]
    assert matrix_timelines(spec, 2, 300.0) == drawn[:2]


def test_time_steps_may_be_told_and_what_comes_after_the_end_is_left_out() -> None:
    spec = DriftMatrixSpec(matrix=["0", "1", "0"], concepts=["a", "b"], step_seconds=120.0)
    (line,) = matrix_timelines(spec, 1, 200.0)
    assert line.changes == (Change(120.0, "b"),)


@given(st.integers(1, 6), st.data())
def test_any_matrix_is_read_back_from_its_timelines(width: int, data) -> None:
    rows = data.draw(st.lists(st.text("012", min_size=width, max_size=width), min_size=1, max_size=8))
    drawn = matrix_timelines(DriftMatrixSpec(matrix=rows, concepts=["0", "1", "2"]), width, 10.0 * len(rows))
    seconds = np.arange(len(rows)) * 10.0 + 5.0
    found = ["".join(column) for column in zip(*(line.concepts(seconds, seconds) for line in drawn), strict=True)]
    assert found == rows
