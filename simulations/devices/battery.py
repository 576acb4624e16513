"""Batteries: what devices have left, what they are charged and what they spend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtp.streaming.state import State
from simulations.devices.availability import DAY_SECONDS

Floats = NDArray[np.float64]

#: A device whose battery ran empty comes back when it holds this share of its capacity again; [A] an assumption.
RESTART_SHARE = 0.05


@dataclass(frozen=True, eq=False)
class BatterySpec:
    """The batteries of a fleet, one array element each.

    Parameters
    ----------
    capacity_joules
        Infinite on the mains.
    start_joules
        What each holds at the start.
    charge_watts
        While charging.
    charge_from_seconds, charge_seconds
        When it charges, every day: from when on the fleet's own clock, and for how long.
    idle_watts
        What a device draws all the time, beside its work for the fleet.
    """

    capacity_joules: Floats
    start_joules: Floats
    charge_watts: Floats
    charge_from_seconds: Floats
    charge_seconds: Floats
    idle_watts: Floats


class Batteries:
    """What the batteries of a fleet hold as time goes on.

    Charging and idling are counted up to the latest `advance`; within a step a battery is first charged, then drained.

    Parameters
    ----------
    spec
        The batteries.

    Attributes
    ----------
    joules
        What each holds: what it held at the start, plus `charged`, less `spent`. Infinite on the mains.
    charged, spent
        Joules that each took in, and gave away, since the start.
    """

    def __init__(self, spec: BatterySpec) -> None:
        self._spec = spec
        self._limited = np.isfinite(spec.capacity_joules)
        self._now = 0.0
        self.joules = spec.start_joules.copy()
        self.charged = np.zeros(len(self.joules))
        self.spent = np.zeros(len(self.joules))
        self._off = self._limited & (self.joules <= 0)

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Which devices have power: those that ran empty have not before they are charged to `RESTART_SHARE`."""
        return ~self._off

    def advance(self, now: float) -> None:
        """Charge and drain all batteries up to a time, s; one that has passed already changes nothing."""
        if now <= self._now:
            return
        spec, limited = self._spec, self._limited
        room = np.subtract(spec.capacity_joules, self.joules, out=np.zeros(len(self.joules)), where=limited)
        taken = np.minimum(room, spec.charge_watts * (self._charging_until(now) - self._charging_until(self._now)))
        self.joules += taken
        self.charged += taken
        self._take(spec.idle_watts * (now - self._now))
        self._now = now
        self._off &= self.joules < RESTART_SHARE * spec.capacity_joules

    def spend(self, devices: NDArray[np.intp], joules: Floats) -> None:
        """Take energy from the batteries of some devices: no more than they hold."""
        self._take(np.bincount(devices, joules, len(self.joules)).astype(np.float64))

    def state(self) -> State:
        """Return what each holds, and has taken and given."""
        return State(
            {
                "joules": self.joules,
                "charged": self.charged,
                "spent": self.spent,
                "off": self._off,
                "now": np.array([self._now]),
            }
        )

    def load_state(self, state: State) -> None:
        """Go on where the same batteries were.

        Raises
        ------
        DataError
            If they were others.
        """
        size = len(self.joules)
        (now,) = state.array("now", 1).tolist()
        joules, charged, spent = (state.typed(name, np.float64, size) for name in ("joules", "charged", "spent"))
        self._off = state.typed("off", np.bool_, size)
        self.joules, self.charged, self.spent, self._now = joules, charged, spent, now

    def _take(self, joules: Floats) -> None:
        taken = np.minimum(joules, self.joules)
        self.joules -= taken
        self.spent += taken
        self._off |= self.joules <= 0

    def _charging_until(self, now: float) -> Floats:
        """Return for how long each battery was on its charger by a time, s, since some time before the start."""
        spec = self._spec
        days, since = np.divmod(now - spec.charge_from_seconds, DAY_SECONDS)
        total: Floats = days * spec.charge_seconds + np.minimum(since, spec.charge_seconds)
        return total
