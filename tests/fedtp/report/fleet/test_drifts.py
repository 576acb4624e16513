"""Drifts told from their events: waves, delays, and accuracy around them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from fedtp.report import FleetResults
from fedtp.report.fleet.drifts import Around, around, delays, waves
from fedtp.report.fleet.results import EVENTS


def events(*rows: tuple[object, ...]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=EVENTS, orient="row")


@pytest.fixture(scope="module")
def quiet(make) -> FleetResults:
    """Two devices, ten rounds of a minute, ten samples each: all right, but half in round 5 of device 0."""
    results = make(devices=2, rounds=10, drift_at=())
    half = (pl.col("device") == 0) & (pl.col("round") == 5)
    devices = results.devices.with_columns(samples=10, correct=pl.when(half).then(5).otherwise(10))
    return replace(results, devices=devices, events=events())


def with_events(results: FleetResults, *rows: tuple[object, ...]) -> FleetResults:
    return FleetResults("", "", {}, results.rounds, results.devices, events(*rows), "")


def test_accuracy_is_seen_from_the_device_that_drifts(quiet):
    # Round 5 starts at 240 s: its order is the first to bring samples from after the drift.
    seen = around(with_events(quiet, (0, "pi", 200.0, "drift", "tilted", True)))
    assert seen is not None
    known = ~np.isnan(seen.accuracy)
    assert seen.offsets[known].tolist() == list(range(-4, 6))
    assert seen.accuracy[known].tolist() == [1, 1, 1, 1, 0.5, 1, 1, 1, 1, 1]
    assert seen.samples[known].tolist() == [10] * 10
    assert seen.before == 1
    assert seen.recovery == 1


def test_a_drift_at_the_start_of_a_round_shows_in_the_next(quiet):
    seen = around(with_events(quiet, (0, "pi", 180.0, "drift", "tilted", True)))
    assert seen is not None
    assert seen.accuracy[seen.offsets == 0].tolist() == [0.5]


def test_samples_between_two_drifts_count_for_both_and_no_further(quiet):
    seen = around(with_events(quiet, (1, "pi", 100.0, "drift", "b", True), (1, "pi", 340.0, "drift", "a", False)))
    assert seen is not None
    # Turns at rounds 3 and 7: rounds 1 2 | 3 4 5 6 | 7 8 9 10.
    assert seen.samples[(seen.offsets >= -4) & (seen.offsets <= 3)].tolist() == [
        10,
        10,
        20,
        20,
        20,
        20,
        20,
        20,
    ]


def test_a_drift_after_the_last_round_is_seen_from_before_only(quiet):
    seen = around(with_events(quiet, (0, "pi", 595.0, "drift", "tilted", None)))
    assert seen is not None
    assert np.isnan(seen.accuracy[seen.offsets >= 0]).all()
    assert seen.recovery is None


def test_without_a_drift_there_is_nothing_around_it(quiet):
    assert around(quiet) is None
    assert waves(quiet) == []


@pytest.mark.parametrize(
    ("after", "recovery"), [([0.9, 0.4, 0.6, 0.86, 0.9], 3), ([0.9, 0.4, 0.6], None), ([0.9, 0.9], 0)]
)
def test_recovery_is_counted_from_the_drift_to_the_first_return_after_the_lowest(after, recovery):
    offsets = np.arange(-1.0, len(after))
    seen = Around(offsets, np.array([0.9, *after]), np.ones_like(offsets), before=0.9)
    assert seen.recovery == recovery


def test_delays_count_only_where_the_drift_was_detected(quiet):
    table = delays(
        with_events(
            quiet,
            (0, "pi", 100.0, "drift", "tilted", True),
            (1, "pi", 100.0, "drift", "tilted", False),
            (0, "pi", 50.0, "detection", None, None),
            (0, "pi", 130.0, "detection", None, None),
            (1, "pi", 590.0, "detection", None, None),
        )
    )
    assert table.sort("device")["delay"].to_list() == [30.0, None]


def test_waves_part_at_concepts_and_at_pauses(quiet):
    gathered = waves(
        with_events(
            quiet,
            (0, "pi", 10.0, "drift", "b", True),
            (1, "pi", 40.0, "drift", "b", False),
            (0, "pi", 300.0, "drift", "a", False),
            (0, "pi", 500.0, "drift", "b", False),
            (0, "pi", 15.0, "detection", None, None),
        )
    )
    assert [(w.concept, w.start, w.end, w.drifts, w.detected) for w in gathered] == [
        ("b", 10.0, 40.0, 2, 1),
        ("a", 300.0, 300.0, 1, 0),
        ("b", 500.0, 500.0, 1, 0),
    ]
    assert gathered[0].median_delay == 5.0
    assert gathered[1].median_delay is None


def test_no_accuracy_before_means_no_recovery():
    seen = Around(np.array([0.0]), np.array([0.5]), np.array([1.0]), before=math.nan)
    assert seen.recovery is None
