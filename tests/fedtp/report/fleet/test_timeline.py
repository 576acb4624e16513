"""Time in virtual seconds and in rounds."""

from __future__ import annotations

import numpy as np
import pytest

from fedtp.report.fleet.timeline import round_count, rounds_per_step, share, steps, virtual_time, window


def test_scales_agree_on_when_a_round_starts(make):
    results = make(devices=2, rounds=60)
    starts = results.rounds["started_seconds"]
    assert virtual_time(results)(starts).tolist() == pytest.approx(range(60))
    assert round_count(results)(starts).tolist() == pytest.approx(range(1, 61))
    assert round_count(results)([90.0]).tolist() == [2.5]
    assert virtual_time(results).title == "virtual time (min)"


def test_steps_take_rounds_together(make):
    table = steps(make(devices=1, rounds=7).rounds, most=3)
    assert table["step"].to_list() == [0, 0, 0, 1, 1, 1, 2]
    assert table["step_label"].unique(maintain_order=True).to_list() == [
        "rounds 1 to 3",
        "rounds 4 to 6",
        "round 7",
    ]
    assert table["step_seconds"].unique(maintain_order=True).to_list() == [0.0, 180.0, 360.0]


@pytest.mark.parametrize(("rounds", "most", "together"), [(0, 5, 1), (5, 5, 1), (6, 5, 2), (11, 5, 3)])
def test_rounds_per_step(rounds, most, together):
    assert rounds_per_step(rounds, most) == together


def test_windows_never_vanish():
    assert window(0, 0) == window(1, 5) == window(7, 0) == 1


def test_share_of_nothing_is_unknown():
    np.testing.assert_array_equal(share([1, 0, 3], [2, 0, 4]), [0.5, np.nan, 0.75])
