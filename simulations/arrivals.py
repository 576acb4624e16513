"""When the samples of a device arrive, and when their labels do.

Nothing here remembers what it gave out: when a sample arrives follows from the seed, the device and its number in the
stream. So a stream can go on from anywhere, and asking more often changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from simulations.seeding import Purpose, generator
from simulations.specs import ArrivalSpec

Times = NDArray[np.float64]

# Gaps are drawn so many at a time: a chunk is about what an order finds.
_CHUNK = 64


class Arrivals(Protocol):
    """When the samples of a stream arrive."""

    def until(self, first: int, now: float, most: int) -> Times:
        """Return when the samples from number `first` on arrive, s: those that do by `now`, and `most` at the most."""
        ...


@dataclass(frozen=True)
class PerOrder:
    """Whoever asks finds so many samples, which have arrived just now.

    Parameters
    ----------
    count
        How many.
    """

    count: int

    def until(self, first: int, now: float, most: int) -> Times:
        """Return the times of the next samples."""
        return np.full(min(self.count, most), float(now))


@dataclass(frozen=True)
class Constant:
    """Samples at equal distances.

    Parameters
    ----------
    rate
        Samples per second.
    phase
        Which part of the first gap has passed at the start, from 0 to 1; so that a fleet's samples do not all arrive
        at the same moments.
    start_seconds
        When the first samples began to arrive, s.
    """

    rate: float
    phase: float
    start_seconds: float = 0.0

    def until(self, first: int, now: float, most: int) -> Times:
        """Return the times of the next samples."""
        end = min(int((now - self.start_seconds) * self.rate + self.phase), first + most)
        return self.start_seconds + (np.arange(first, end, dtype=np.float64) + 1 - self.phase) / self.rate


class Irregular:
    """Samples one by one by chance, or in bursts.

    Parameters
    ----------
    rate
        Samples per second, mean.
    burst_samples
        How many samples a burst has, mean, the numbers being geometrically distributed; 1 for a Poisson process.
    burst_share
        Which part of the time, on average, is within a burst: from 0, all its samples arrive at once, to below 1.
    start_seconds
        When the first samples began to arrive, s.
    seed, device
        What the gaps are drawn from.

    Notes
    -----
    Each gap is exponentially distributed: a long one if the sample begins a burst, which it does with probability
    1 / `burst_samples`, a short one if it goes on with it. Such a stream is one of a source that is switched on and off
    at exponentially distributed times (Kuczura, "The Interrupted Poisson Process as an Overflow Process", 1973).
    """

    def __init__(
        self,
        rate: float,
        burst_samples: float = 1.0,
        burst_share: float = 0.0,
        *,
        start_seconds: float = 0.0,
        seed: int = 0,
        device: int = 0,
    ) -> None:
        self._key = seed, Purpose.GAPS, device
        self._begins = 1 / burst_samples
        # Of every `burst_samples` gaps one is long; together they take `burst_samples / rate`.
        self._long = (1 - burst_share) * burst_samples / rate
        self._short = burst_share * burst_samples / rate / max(burst_samples - 1, 1)
        self._start = start_seconds
        self._chunk = -1
        self._times = np.array([start_seconds])

    def until(self, first: int, now: float, most: int) -> Times:
        """Return the times of the next samples."""
        parts = []
        chunk, skip = divmod(first, _CHUNK)
        while True:
            times = self._times_of(chunk)
            parts.append(times[skip:])
            if times[-1] > now or most <= len(times) - skip:
                break
            chunk, skip, most = chunk + 1, 0, most - (len(times) - skip)
        parts[-1] = parts[-1][: min(most, int(np.searchsorted(parts[-1], now, "right")))]
        return np.concatenate(parts)

    def _times_of(self, chunk: int) -> Times:
        """Return the times of a chunk's samples; those before it are drawn again if it is not the next one."""
        if chunk < self._chunk:
            self._chunk, self._times = -1, np.array([self._start])
        while self._chunk < chunk:
            self._chunk += 1
            rng = generator(*self._key, self._chunk)
            gaps = rng.standard_exponential(_CHUNK)
            if self._begins == 1:
                gaps *= self._long
            else:
                gaps *= np.where(rng.random(_CHUNK) < self._begins, self._long, self._short)
            self._times = self._times[-1] + np.cumsum(gaps)
        return self._times


def arrivals(spec: ArrivalSpec, rate: float, start_seconds: float, seed: int, device: int) -> Arrivals:
    """Return when the samples of a device arrive.

    Parameters
    ----------
    spec
        What the scenario says of all devices.
    rate
        The device's own, samples per second.
    start_seconds
        When the first samples began to arrive, s.
    seed, device
        What is drawn is drawn from these.
    """
    if spec.samples_per_order:
        return PerOrder(spec.samples_per_order)
    if spec.kind == "constant":
        return Constant(rate, float(generator(seed, Purpose.ARRIVAL, device).random()), start_seconds)
    bursts = (spec.burst_samples, spec.burst_share) if spec.kind == "bursts" else ()
    return Irregular(rate, *bursts, start_seconds=start_seconds, seed=seed, device=device)


@dataclass(frozen=True)
class Labels:
    """When the labels of samples become known.

    Parameters
    ----------
    delay_seconds
        How long after the sample, mean.
    delay
        Whether that is the same for all, or exponentially distributed.
    fraction
        Which share of the labels becomes known at all.
    """

    delay_seconds: float = 0.0
    delay: Literal["constant", "exponential"] = "constant"
    fraction: float = 1.0

    @classmethod
    def of(cls, spec: ArrivalSpec) -> Labels | None:
        """Return what a scenario says, None where all labels are known at once."""
        if not spec.label_delay_seconds and spec.label_fraction == 1:
            return None
        return cls(spec.label_delay_seconds, spec.label_delay, spec.label_fraction)

    def known(self, seconds: Times, chance: Times) -> Times:
        """Return when the labels of samples become known, s; infinity where they never do.

        Parameters
        ----------
        seconds
            When the samples arrive.
        chance
            A number from [0, 1) for each.

        Examples
        --------
        >>> Labels(60.0, fraction=0.5).known(np.array([10.0, 20.0, 30.0]), np.array([0.4, 0.6, 0.1]))
        array([70., inf, 90.])
        """
        delays = np.full(len(seconds), self.delay_seconds)
        if self.delay == "exponential":
            # What decides whether a label comes is, where it does, evenly spread from 0 to `fraction`.
            delays *= -np.log1p(-np.minimum(chance / self.fraction, 1 - 1e-16))
        return seconds + np.where(chance < self.fraction, delays, math.inf)
