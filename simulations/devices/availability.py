"""When devices can be reached: windows of time that repeat.

Always, a duty cycle, a time of day and a trace are one and the same thing: windows within a period, device by device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Devices = NDArray[np.intp]

DAY_SECONDS = 86_400.0
_DAYS = 7

# Venn: the time of day at which a phone checks in, and how long it then stays, in steps of 144 s.
_CHECK_IN_SECONDS, _CHECK_IN_SIGMA = 43_200.0, 20_000.0
_SESSION_STEPS = 5
SESSION_SECONDS = _SESSION_STEPS * 144.0


@dataclass(frozen=True, eq=False)
class Availability:
    """Windows in which each device can be reached.

    Parameters
    ----------
    period_seconds
        After how long a device's windows repeat, ``[devices]``.
    phase_seconds
        How far into its period each device is at the start, ``[devices]``.
    starts, ends
        The windows of all devices, in order: a device's number, plus where in its period the window begins and ends,
        as a share of it. No two of a device overlap or touch.
    """

    period_seconds: Floats
    phase_seconds: Floats
    starts: Floats
    ends: Floats

    @classmethod
    def of(
        cls,
        period_seconds: ArrayLike,
        windows: tuple[ArrayLike, ArrayLike, ArrayLike],
        phase_seconds: ArrayLike = 0.0,
    ) -> Self:
        """Put windows in order, and join those of a device that overlap.

        Parameters
        ----------
        period_seconds
            Of each device, ``[devices]``.
        windows
            For each window its device's number, and where in the period it begins and ends, s. One that ends past
            its period goes on at the beginning of it.
        phase_seconds
            How far into its period each device is at the start.
        """
        period = np.asarray(period_seconds, float)
        owner, start, end = (np.asarray(part) for part in windows)
        start, end = start / period[owner], end / period[owner]
        beyond = end > 1.0
        owner = np.concatenate([owner, owner[beyond]])
        start, end = (
            np.concatenate([start, np.zeros(beyond.sum())]),
            np.concatenate([np.minimum(end, 1.0), np.minimum(end[beyond] - 1.0, 1.0)]),
        )
        kept = end > start
        start, end = (owner + start)[kept], (owner + end)[kept]
        order = np.argsort(start, kind="stable")
        start, reached = start[order], np.maximum.accumulate(end[order])
        # The windows of two devices may touch, and are two all the same.
        first = np.diff(np.floor(start), prepend=-1.0) > 0
        first[1:] |= start[1:] > reached[:-1]
        last = np.append(first[1:], True) if len(first) else first
        return cls(period, np.broadcast_to(np.asarray(phase_seconds, float), period.shape), start[first], reached[last])

    def __len__(self) -> int:
        return len(self.period_seconds)

    def now(self, seconds: float) -> NDArray[np.bool_]:
        """Return which devices can be reached at a time, s.

        Examples
        --------
        >>> cycle = Availability.of([90.0, 90.0], ([0, 1], [0.0, 0.0], [60.0, 60.0]), phase_seconds=[0.0, 45.0])
        >>> cycle.now(30.0)
        array([ True, False])
        """
        return self._window(np.arange(len(self)), seconds)[0]

    def remaining(self, seconds: float, devices: Devices) -> Floats:
        """Return for how long, s, devices can still be reached: 0 for those that cannot be, infinite for always."""
        there, window, place = self._window(devices, seconds)
        left = np.zeros(len(devices))
        device, held = devices[there], window[there]
        end, length = self.ends[held] - place[there], np.zeros(len(held))
        # What lasts to the end of its period may go on in the next.
        opening = np.searchsorted(self.starts, device)
        onward = (self.ends[held] == device + 1) & (self.starts[opening] == device)
        length[onward] = np.where(
            opening[onward] == held[onward], np.inf, self.ends[opening[onward]] - self.starts[opening[onward]]
        )
        left[there] = (end + length) * self.period_seconds[device]
        return left

    def _window(self, devices: Devices, seconds: float) -> tuple[NDArray[np.bool_], Devices, Floats]:
        """Return whether devices are in a window, in which one if so, and where they are, as `starts` counts."""
        period = self.period_seconds[devices]
        place = devices + (seconds + self.phase_seconds[devices]) % period / period
        # Rounding must not move anyone into the windows of the next device.
        place = np.minimum(place, np.nextafter(devices + 1.0, 0.0))
        window = np.searchsorted(self.starts, place, side="right") - 1
        there = np.zeros(len(devices), bool)
        known = window >= 0
        begun = window[known]
        there[known] = (self.starts[begun] >= devices[known]) & (place[known] < self.ends[begun])
        return there, window, place


def join(parts: Sequence[Availability]) -> Availability:
    """Return the availability of several groups of devices, one after the other."""
    before = np.cumsum([0, *map(len, parts)])
    return Availability(
        np.concatenate([part.period_seconds for part in parts]),
        np.concatenate([part.phase_seconds for part in parts]),
        np.concatenate([part.starts + n for part, n in zip(parts, before, strict=False)]),
        np.concatenate([part.ends + n for part, n in zip(parts, before, strict=False)]),
    )


def always(devices: int) -> Availability:
    """Return devices that can always be reached."""
    return Availability.of(np.ones(devices), (np.arange(devices), np.zeros(devices), np.ones(devices)))


def duty_cycle(on_seconds: float, off_seconds: float, phases: Floats) -> Availability:
    """Return devices that come and go.

    Parameters
    ----------
    on_seconds, off_seconds
        How long a device can be reached, and then not.
    phases
        Where in its cycle each device begins, as a share of it.
    """
    devices, period = len(phases), on_seconds + off_seconds
    windows = np.arange(devices), np.zeros(devices), np.full(devices, on_seconds)
    return Availability.of(np.full(devices, period), windows, phases * period)


def time_of_day(
    devices: int, rng: np.random.Generator, *, starts_at: float = 0.0, session_seconds: float = SESSION_SECONDS
) -> Availability:
    """Return devices that check in once a day, for a session.

    The check-in time is normal about noon, and the session a Poisson number of steps (Venn: Normal(43,200 s,
    20,000 s), and Poisson(5) steps of 144 s). A week is drawn, and repeated.

    Parameters
    ----------
    devices
        How many.
    rng
        Draws the sessions.
    starts_at
        The local time of day at the start, s after midnight.
    session_seconds
        Mean length of a session.
    """
    check_in = rng.normal(_CHECK_IN_SECONDS, _CHECK_IN_SIGMA, (devices, _DAYS)) % DAY_SECONDS
    session = rng.poisson(_SESSION_STEPS, (devices, _DAYS)) * (session_seconds / _SESSION_STEPS)
    start = check_in + DAY_SECONDS * np.arange(_DAYS)
    owner = np.repeat(np.arange(devices), _DAYS)
    return Availability.of(
        np.full(devices, _DAYS * DAY_SECONDS), (owner, start.ravel(), (start + session).ravel()), starts_at
    )
