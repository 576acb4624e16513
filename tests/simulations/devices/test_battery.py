"""Energy comes from somewhere and goes somewhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.devices import Batteries, BatterySpec
from simulations.devices.battery import RESTART_SHARE


def batteries(
    capacity: float = 100.0,
    start: float = 50.0,
    *,
    charge: float = 0.0,
    idle: float = 0.0,
    from_seconds: float = 0.0,
    seconds: float = 86_400.0,
    devices: int = 1,
) -> Batteries:
    values = (capacity, start, charge, from_seconds, seconds, idle)
    return Batteries(BatterySpec(*(np.full(devices, float(value)) for value in values)))


@given(
    start=st.floats(0, 100),
    charge=st.floats(0, 5),
    idle=st.floats(0, 5),
    steps=st.lists(st.tuples(st.floats(0, 50_000), st.floats(0, 200)), max_size=10),
)
def test_what_a_battery_holds_is_what_went_in_less_what_came_out(start, charge, idle, steps) -> None:
    cell, now = batteries(100.0, start, charge=charge, idle=idle, from_seconds=40_000.0, seconds=10_000.0), 0.0
    for wait, work in steps:
        now += wait
        cell.advance(now)
        cell.spend(np.array([0]), np.array([work]))
        assert cell.joules[0] == pytest.approx(start + cell.charged[0] - cell.spent[0], abs=1e-6)
        assert 0 <= cell.joules[0] <= 100.0 + 1e-9
        assert not cell.alive[0] or cell.joules[0] > 0


def test_a_battery_charges_at_its_time_of_day() -> None:
    cell = batteries(1e9, 0.0, charge=2.0, from_seconds=80_000.0, seconds=10_000.0)
    charged = []
    for now in (1000.0, 3600.0, 50_000.0, 81_000.0, 86_400.0 + 3600.0, 3 * 86_400.0 + 3600.0):
        cell.advance(now)
        charged.append(cell.joules[0])
    assert charged == [2000.0, 7200.0, 7200.0, 9200.0, 27_200.0, 67_200.0]
    cell.advance(0.0)
    assert cell.joules[0] == 67_200.0


def test_an_empty_battery_is_back_when_it_is_charged_again() -> None:
    cell = batteries(100.0, 10.0, charge=1.0)
    assert cell.alive[0]
    cell.spend(np.array([0]), np.array([10.0]))
    alive = []
    for now in (1.0, 4.0, 5.0, 6.0):
        cell.advance(now)
        alive.append(bool(cell.alive[0]))
    assert alive == [False, False, True, True]
    assert RESTART_SHARE == 0.05


def test_idling_empties_a_battery_too() -> None:
    cell = batteries(100.0, 50.0, idle=1.0, devices=2)
    cell.spend(np.array([1]), np.array([20.0]))
    cell.advance(30.0)
    assert cell.alive.tolist() == [True, False]
    assert cell.spent.tolist() == [30.0, 50.0]


def test_the_mains_never_run_dry() -> None:
    socket = batteries(np.inf, np.inf, charge=1.0, idle=1.0)
    socket.spend(np.array([0]), np.array([1e12]))
    socket.advance(1e9)
    assert socket.alive[0]
    assert socket.joules[0] == np.inf
    assert socket.spent[0] == 1e12 + 1e9
