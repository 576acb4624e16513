"""Measures of online learning that River does not have."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


def kappa(confusion: NDArray[np.int64]) -> float | None:
    """Cohen's kappa: ``(p₀ - pₑ) / (1 - pₑ)``, with pₑ the agreement of chance.

    Parameters
    ----------
    confusion
        How often each class (rows) was predicted as each class (columns).

    Returns
    -------
    float | None
        None where it is undefined: without samples, or if only one class was seen and predicted.

    Notes
    -----
    Cohen, *A coefficient of agreement for nominal scales*, 1960. The pooled kappa of a fleet is that of the
    summed confusion matrices.

    Examples
    --------
    >>> round(kappa(np.array([[40, 10], [10, 40]])), 9)
    0.6
    """
    total = int(confusion.sum())
    if total == 0:
        return None
    observed = float(np.trace(confusion)) / total
    chance = float((confusion.sum(0) / total) @ (confusion.sum(1) / total))
    return None if chance >= 1 else (observed - chance) / (1 - chance)


def kappa_t(correct: int, same: int, samples: int) -> float | None:
    """Kappa-temporal: ``(p₀ - p') / (1 - p')``, with p' the accuracy of "the same label as before".

    Parameters
    ----------
    correct, same, samples
        How many samples were predicted rightly, had the label of the sample before, and were seen.

    Notes
    -----
    Žliobaitė et al., *Evaluation methods and decision theory for classification of streaming data with temporal
    dependence*, Machine Learning 98, 2015, eq. 5.

    Examples
    --------
    >>> round(kappa_t(correct=90, same=80, samples=100), 9)
    0.5
    """
    if samples == 0 or same == samples:
        return None
    observed, before = correct / samples, same / samples
    return (observed - before) / (1 - before)


def match_detections(drifts: Sequence[float], detections: Sequence[float], window: float) -> tuple[list[bool], int]:
    """Tell which drifts of one device were detected, and count the detections that belong to none.

    A drift is detected if a detection follows within `window`, before the device's next drift. Every detection
    within a drift's window belongs to it.

    Parameters
    ----------
    drifts, detections
        When they happened, s, each in order of time.
    window
        How long after a drift a detection still counts as one of it, s.

    Returns
    -------
    detected
        For each drift, whether it was detected.
    false_alarms
        How many detections belong to no drift.

    Examples
    --------
    >>> match_detections([100.0, 500.0], [20.0, 130.0, 140.0, 900.0], window=60.0)
    ([True, False], 2)
    """
    detected = [False] * len(drifts)
    false_alarms = 0
    for time in detections:
        drift = _drift_of(time, drifts, window)
        if drift is None:
            false_alarms += 1
        else:
            detected[drift] = True
    return detected, false_alarms


def detection_delays(drifts: Sequence[float], detections: Sequence[float], window: float) -> list[float | None]:
    """Tell how long it took until each drift was first detected.

    Parameters
    ----------
    drifts, detections, window
        As in `match_detections`, in any unit of time.

    Returns
    -------
    list
        For each drift the time from it to the first detection that belongs to it; None where there is none.

    Examples
    --------
    >>> detection_delays([100, 500], [20, 130, 140, 900], window=60)
    [30, None]
    """
    delays: list[float | None] = [None] * len(drifts)
    for time in detections:
        drift = _drift_of(time, drifts, window)
        if drift is not None and delays[drift] is None:
            delays[drift] = time - drifts[drift]
    return delays


def _drift_of(time: float, drifts: Sequence[float], window: float) -> int | None:
    """Find the drift to which a detection belongs."""
    latest = bisect_right(drifts, time) - 1
    return latest if latest >= 0 and time <= drifts[latest] + window else None


@dataclass(frozen=True)
class Recovery:
    """How accuracy came back after one drift.

    Parameters
    ----------
    drift
        Which sample was the first of the new concept, counted from 0.
    before
        The accuracy before the drift; None where too few samples came before it.
    samples
        The recovery time: how many samples after the drift accuracy was back; None if it was not, or if `before` is
        None.
    area_lost
        How many errors more there were until then than at the accuracy of before; None if `before` is None.
    """

    drift: int
    before: float | None
    samples: int | None
    area_lost: float | None


class RecoveryMeter:
    """Measure recovery time and area lost while a stream passes by, in memory that does not grow with it.

    Accuracy has recovered with the first sample at which the last `window` samples, all of them after the drift, are
    right in at least `share` of the cases in which the samples before the drift were: the last `before` of them, none
    from before an earlier drift, and at least `window`. The area lost lies between the accuracy before the drift and
    that of the samples after it, up to the recovery or else the next drift or the end of the stream.

    Parameters
    ----------
    drifts
        Which samples were the first of a new concept, in order, counted from 0.
    window, before
        In samples.
    share
        From 0 to 1.

    Examples
    --------
    Ten right answers, a drift, three wrong answers and right ones again:

    >>> meter = RecoveryMeter([10], window=4, before=10)
    >>> for correct in [True] * 10 + [False] * 3 + [True] * 10:
    ...     meter.update(correct)
    >>> meter.recoveries
    [Recovery(drift=10, before=1.0, samples=7, area_lost=3.0)]
    """

    def __init__(self, drifts: Sequence[int], window: int = 200, before: int = 2_000, share: float = 0.95) -> None:
        self.drifts = list(drifts)
        self.window = window
        self.share = share
        self.position = 0
        self._earlier: deque[bool] = deque(maxlen=before)
        self._recent: deque[bool] = deque(maxlen=window)
        self._recent_correct = 0
        self._after = self._after_correct = 0
        self._started: list[tuple[int, float | None]] = []
        self._ended: list[Recovery] = []

    def update(self, correct: bool) -> None:
        """Take the next sample's outcome."""
        if len(self._started) < len(self.drifts) and self.position == self.drifts[len(self._started)]:
            self._start()
        self.position += 1
        self._earlier.append(correct)
        if len(self._ended) == len(self._started):
            return
        drift, before = self._started[-1]
        if before is None:
            return
        self._after += 1
        self._after_correct += correct
        if len(self._recent) == self.window:
            self._recent_correct -= self._recent[0]
        self._recent.append(correct)
        self._recent_correct += correct
        # A whole number is compared: what rounding adds to the product must not turn "at least" into "more".
        needed = self.share * before * self.window - 1e-9
        if len(self._recent) == self.window and self._recent_correct >= needed:
            self._ended.append(Recovery(drift, before, self.position - drift, self._area(before)))

    @property
    def recoveries(self) -> list[Recovery]:
        """What has become of each drift so far."""
        return [*self._ended, *self._open()]

    def _open(self) -> list[Recovery]:
        return [
            Recovery(drift, before, None, None if before is None else self._area(before))
            for drift, before in self._started[len(self._ended) :]
        ]

    def _area(self, before: float) -> float:
        return before * self._after - self._after_correct

    def _start(self) -> None:
        self._ended += self._open()
        enough = len(self._earlier) >= self.window
        self._started.append((self.position, sum(self._earlier) / len(self._earlier) if enough else None))
        self._earlier.clear()
        self._recent.clear()
        self._recent_correct = 0
        self._after = self._after_correct = 0


def confidence_margin(values: ArrayLike, confidence: float = 0.95) -> NDArray[np.float64]:
    """Return half the width of the confidence interval of a mean over the first axis, by Student's t.

    Parameters
    ----------
    values
        ``[repetitions, ...]``, at least two of them.
    confidence
        Of a normally distributed value, how often the interval holds the true mean.

    Examples
    --------
    >>> round(float(confidence_margin([1.0, 3.0])), 3)
    12.706
    """
    from scipy.special import stdtrit  # much faster to import than scipy.stats

    repeated = np.asarray(values, np.float64)
    count = len(repeated)
    margin: NDArray[np.float64] = np.asarray(
        stdtrit(count - 1, 0.5 + confidence / 2) * repeated.std(axis=0, ddof=1) / np.sqrt(count)
    )
    return margin
