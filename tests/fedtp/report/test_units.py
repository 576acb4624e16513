"""Numbers as a person reads them."""

from __future__ import annotations

import pytest

from fedtp.report.units import count, data_size, duration, energy, joule_unit, percent, time_unit


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0, "0 s"),
        (7.4e-6, "7.4 µs"),
        (0.01, "10 ms"),
        (59.94, "59.9 s"),
        (60, "1 min"),
        (61.4, "1 min 1 s"),
        (3_599.9, "1 h"),
        (3_600, "1 h"),
        (86_399, "1 d"),
        (90_000, "1 d 1 h"),
        (1e7, "115 d 18 h"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "–"), (0, "0 B"), (999, "999 B"), (1_000, "1 kB"), (21_400, "21.4 kB"), (3.2e12, "3.2 TB")],
)
def test_data_size(number, text):
    assert data_size(number) == text


@pytest.mark.parametrize(
    ("joules", "text"), [(None, "–"), (0, "0 J"), (0.02, "20 mJ"), (3e-9, "3e-09 J"), (13_600, "13.6 kJ")]
)
def test_energy(joules, text):
    assert energy(joules) == text


def test_missing_numbers_are_dashes():
    assert percent(None) == count(None) == "–"


def test_units_of_axes():
    assert [time_unit(seconds).name for seconds in (0, 60, 600, 36_000, 1e6)] == ["s", "s", "min", "h", "d"]
    assert joule_unit(0).name == "J"
