"""The luck of orders: numbers drawn for a device's n-th order, whoever else takes part and whatever came before.

A generator would have to be moved on for every device that might take part. A hash of the seed, the device and the
number of the order needs nothing but these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtp.streaming.state import State
from simulations.seeding import Purpose, generator

Floats = NDArray[np.float64]

# The constants of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
_GOLDEN, _FIRST, _SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_STEPS = np.arange(1, 6, dtype=np.uint64)[:, None] * _GOLDEN


@dataclass(frozen=True, eq=False)
class Luck:
    """How orders fare, one array element each.

    Parameters
    ----------
    down, up
        Standard normal: how fast the links are this time.
    loss, dropout, moment
        Uniform on [0, 1): whether the reply is lost, whether the device gives up, and when.
    """

    down: Floats
    up: Floats
    loss: Floats
    dropout: Floats
    moment: Floats


class LuckOfOrders:
    """Draws the luck of orders.

    Parameters
    ----------
    seed
        The scenario's.
    devices
        How many devices there are.

    Attributes
    ----------
    orders
        How many orders each device has had.
    """

    def __init__(self, seed: int, devices: int) -> None:
        self._key = generator(seed, Purpose.TRANSPORT).integers(2**64, dtype=np.uint64)
        self.orders = np.zeros(devices, np.uint64)

    def draw(self, devices: NDArray[np.intp]) -> Luck:
        """Draw for the next order of each of these devices."""
        number = self.orders[devices]
        self.orders[devices] += np.uint64(1)
        state = _mixed(_mixed(self._key ^ _mixed(devices.astype(np.uint64))) ^ number)
        radius, angle, loss, dropout, moment = _uniform(_mixed(state + _STEPS))
        # Box and Muller: two normal numbers from two uniform ones, of which the first must not be 0.
        length = np.sqrt(-2.0 * np.log1p(-radius))
        return Luck(length * np.cos(2 * np.pi * angle), length * np.sin(2 * np.pi * angle), loss, dropout, moment)

    def state(self) -> State:
        """Return how many orders each device has had."""
        return State({"orders": self.orders})

    def load_state(self, state: State) -> None:
        """Go on where the luck of as many devices was.

        Raises
        ------
        DataError
            If there were more, or fewer.
        """
        self.orders = state.typed("orders", np.uint64, len(self.orders))


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return SplitMix64's hash: each bit of the result depends on every bit given."""
    bits = bits + _GOLDEN
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    return bits ^ (bits >> np.uint64(31))


def _uniform(bits: NDArray[np.uint64]) -> Floats:
    """Return numbers on [0, 1) from the 53 highest bits."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
