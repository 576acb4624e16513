from __future__ import annotations

import polars as pl

from simulations.recovery import DeviceRecovery, recoveries


def orders(*devices: list[tuple[int, int]]) -> pl.DataFrame:
    """One row per device and round: of so many samples so many were right; a round takes a minute."""
    rows = [
        {"round": n + 1, "device": d, "started_seconds": 60.0 * n, "samples": samples, "correct": correct}
        for d, rounds in enumerate(devices)
        for n, (samples, correct) in enumerate(rounds)
    ]
    return pl.DataFrame(rows)


def drifts(*times: tuple[int, float]) -> pl.DataFrame:
    schema = {"device": pl.Int64, "time_seconds": pl.Float64, "kind": pl.String}
    return pl.DataFrame([(device, time, "drift") for device, time in times], schema=schema, orient="row")


GOOD, BAD = (25, 20), (25, 5)


def test_samples_are_counted_from_the_drift_to_the_end_of_the_first_good_window() -> None:
    lines = orders([GOOD] * 4 + [BAD] * 3 + [GOOD] * 3)
    # Fifty samples all good: two orders after three bad ones.
    assert recoveries(lines, drifts((0, 240.0))) == [DeviceRecovery(0, 125, True)]


def test_it_is_compared_with_what_was_before_the_fleets_first_drift() -> None:
    poisoned = [GOOD] * 4 + [BAD] * 6 + [BAD] * 4
    lines = orders([GOOD] * 4 + [GOOD] * 10, poisoned)
    found = recoveries(lines, drifts((0, 240.0), (1, 600.0)))
    # To be as bad as just before its own drift is no recovery.
    assert found == [DeviceRecovery(0, 50, True), DeviceRecovery(1, 100, False)]


def test_who_drifts_again_before_it_is_back_has_not_recovered() -> None:
    lines = orders([GOOD] * 4 + [BAD] * 2 + [GOOD] * 5)
    assert recoveries(lines, drifts((0, 240.0), (0, 360.0))) == [DeviceRecovery(0, 50, False)]


def test_ninety_five_per_cent_is_enough() -> None:
    before = [(50, 40)] * 4
    assert recoveries(orders([*before, (50, 38)]), drifts((0, 240.0))) == [DeviceRecovery(0, 50, True)]
    assert recoveries(orders([*before, (50, 37)]), drifts((0, 240.0))) == [DeviceRecovery(0, 50, False)]


def test_only_the_latest_samples_before_it_count() -> None:
    lines = orders([(100, 0)] * 3 + [(100, 90)] * 2 + [(50, 30)])
    assert recoveries(lines, drifts((0, 300.0))) == [DeviceRecovery(0, 50, False)]


def test_without_enough_before_or_anything_after_there_is_nothing_to_say() -> None:
    assert recoveries(orders([GOOD, GOOD]), drifts((0, 60.0))) == []
    assert recoveries(orders([GOOD] * 4), drifts((0, 500.0))) == []
    assert recoveries(orders([GOOD] * 4), drifts()) == []
    assert recoveries(orders([GOOD] * 8, [GOOD] * 8), drifts((1, 240.0)))[0].device == 1
