"""Watching a learner on a stream: whether its errors have become worse, and which of its blocks have to do with it.

The error of a network says that something has drifted, not what. The local losses do not say it as they are: hidden
blocks are compared with the label too, so when labels change their meaning, all losses rise alike. What tells the two
apart is how much of the rise *another name for each answer* would explain. If classes were merely renamed, or values
rescaled, a hidden block still keeps apart what has to be kept apart, and its answers only have to be read anew. If what
comes in has changed, no reading helps. So a hidden block's loss is counted after the best reading, the last block's as
it is: input drift shows in the low blocks, label drift in the high ones. docs/streams.md has the trials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from river import base

from fedtp.attribution import moved, reread_classes
from fedtp.detection import worsened
from fedtp.errors import DataError, ModelError
from fedtp.streaming.detector_codecs import decode, encode
from fedtp.streaming.features import Vector
from fedtp.streaming.state import State

#: How many samples are remembered one by one: more than most detectors need to flag a drift.
RECENT = 100
#: Over how many samples the long run is averaged.
LONG = 1000
#: The least samples that are taken for a new concept.
LEAST = 10
#: The least deviation of losses that a rise is divided by: without it, one error would be a rise without bounds.
_LEAST_DEVIATION = 0.05


@dataclass(frozen=True)
class DriftReport:
    """What was found when a drift was flagged.

    Parameters
    ----------
    sample
        How many samples had been learnt, the one that was flagged among them.
    since
        How many of them are estimated to be of the new concept, at most `RECENT`.
    blocks
        How far the local loss of each block rose, in standard deviations of its own long-run losses; of a hidden block
        what is left of it under the best reading of its answers.
    from_block
        The first block that moved: what comes in or how it is represented has changed if it is a low one, what is made
        of it if it is the last.

    Examples
    --------
    >>> report = DriftReport(sample=1040, since=38, blocks={"0": 0.1, "2": 2.3}, from_block="2")
    >>> [block for block in report.blocks if report.moved(block)]
    ['2']
    """

    sample: int
    since: int
    blocks: Mapping[str, float]
    from_block: str

    def moved(self, block: str) -> bool:
        """Whether the loss of a block rose, measured by the rise at the last one."""
        return moved(self.blocks[block], list(self.blocks.values())[-1])


class DriftWatch:
    """Shows a detector a learner's errors, and remembers what its blocks answered, in memory that does not grow.

    Parameters
    ----------
    detector
        One of River's; it is cloned.
    blocks
        Their names, first to last.
    classes
        Whether answers are classes: then losses are wrong answers, and otherwise squares of what answers are wrong by.

    Raises
    ------
    ModelError
        If the detector is none of River's.

    Examples
    --------
    Two classes change their names, which the hidden block's answers (the first of each pair) keep apart as before:

    >>> from river import drift
    >>> watch = DriftWatch(drift.ADWIN(), ["0", "2"], classes=True)
    >>> for position in range(1000):
    ...     answer = position % 2
    ...     label = answer if position < 800 else 1 - answer
    ...     if report := watch.observe(float(answer != label), np.eye(2)[[answer, answer]], np.eye(2)[label]):
    ...         break
    >>> report
    DriftReport(sample=832, since=32, blocks={'0': 0.0, '2': 20.0}, from_block='2')
    """

    def __init__(self, detector: Any, blocks: Sequence[str], *, classes: bool) -> None:
        if not isinstance(detector, base.DriftDetector | base.BinaryDriftDetector):
            raise ModelError(f"detector must be one of River's drift detectors, such as ADWIN(), got {detector!r}")
        self.detector = detector.clone()
        self.blocks = tuple(blocks)
        self.classes = classes
        self.samples = 0
        #: Of the latest samples, oldest first: the error, the target, what each block answered. There is room for twice
        #: as many as are looked at, so that it is not every sample that something is moved.
        self.recent = np.zeros((2 * RECENT, 2 + len(self.blocks)))
        self.filled = 0
        #: Of all the earlier ones: the means of the error and of each block's losses, and the losses' mean squares.
        self.earlier = 0
        self.usual, self.squares = np.zeros(1 + len(self.blocks)), np.zeros(1 + len(self.blocks))

    def observe(self, error: float, scores: Vector, target: Vector) -> DriftReport | None:
        """Take the next sample, as it was answered before it was learnt; return a report if a drift is flagged.

        Parameters
        ----------
        error
            The learner's own.
        scores
            What each block answered, ``[blocks, outputs]``: the largest is the class, or the one is the value.
        target
            What it should have been, ``[outputs]``.
        """
        self.samples += 1
        if self.filled == len(self.recent):
            self._age()
        row = self.recent[self.filled]
        row[0] = error
        row[1] = target.argmax() if self.classes else target[0]
        row[2:] = scores.argmax(1) if self.classes else scores[:, 0]
        self.filled += 1
        binary = isinstance(self.detector, base.BinaryDriftDetector)
        # A detector of right and wrong takes a value for wrong that is off by more than values mostly deviate.
        shown = bool(error > (0.5 if self.classes else 1.0)) if binary else error
        if not worsened(self.detector, shown):
            return None
        recent = self.recent[max(self.filled - RECENT, 0) : self.filled]
        # Page-Hinkley's and KSWIN may watch both ways, and do not tell which it was.
        if not hasattr(self.detector, "estimation") and recent[:, 0].mean() <= self.usual[0]:
            return None
        report = self._report(recent)
        # The next drift is not blamed for this one's errors, and compared with what is usual from now on.
        self.filled = self.earlier = 0
        return report

    def state(self) -> State:
        """Return what is remembered, the detector's state included."""
        whole = {"samples": self.samples, "filled": self.filled, "earlier": self.earlier}
        arrays = {"recent": self.recent, "usual": self.usual, "squares": self.squares}
        return State(arrays, whole | {"detector": encode(self.detector)})

    def load_state(self, state: State) -> None:
        """Take over what another watch with the same detector and blocks remembers."""
        samples, filled, earlier = (state.whole(name) for name in ("samples", "filled", "earlier"))
        if filled > len(self.recent):
            raise DataError(f"{filled} samples are remembered, but there is only room for {len(self.recent)}")
        arrays = [state.array("recent", *self.recent.shape)]
        arrays += [state.array(name, len(self.usual)) for name in ("usual", "squares")]
        detector = decode(state.record.get("detector"))
        if type(detector) is not type(self.detector):
            raise DataError(f"the detector is {type(detector).__name__}, not {type(self.detector).__name__}")
        self.recent, self.usual, self.squares = arrays
        self.samples, self.filled, self.earlier = samples, filled, earlier
        self.detector = detector

    def _age(self) -> None:
        """Take the older half of what is remembered into the long run."""
        rows = self.recent[:RECENT]
        self.earlier += RECENT
        values = np.concatenate([rows[:, :1], self._losses(rows)], 1)
        rate = max(RECENT / self.earlier, RECENT / LONG)
        self.usual += rate * (values.mean(0) - self.usual)
        self.squares += rate * ((values * values).mean(0) - self.squares)
        self.filled = RECENT
        self.recent[:RECENT] = self.recent[RECENT:]

    def _losses(self, rows: Vector) -> Vector:
        """Return the loss of each block for some samples, ``[samples, blocks]``."""
        wrong = rows[:, 2:] - rows[:, 1:2]
        return (wrong != 0.0).astype(np.float64) if self.classes else wrong * wrong

    def _report(self, recent: Vector) -> DriftReport:
        # The most likely beginning of the new concept: what lies behind it is the least likely by chance.
        excess = np.cumsum(recent[::-1, 0] - self.usual[0])
        lengths = np.arange(1, len(excess) + 1)
        least = min(LEAST, len(excess)) - 1
        since = least + 1 + int((excess / np.sqrt(lengths))[least:].argmax())
        rows = recent[-since:]
        losses = self._losses(rows).mean(0)
        for hidden in range(len(losses) - 1):
            reread = reread_classes if self.classes else _reread_values
            losses[hidden] = min(losses[hidden], reread(rows[:, 2 + hidden], rows[:, 1]))
        deviations = np.sqrt(np.maximum(self.squares - self.usual**2, _LEAST_DEVIATION**2))[1:]
        rises = ((losses - self.usual[1:]) / deviations).tolist()
        first = next(block for block, rise in enumerate(rises) if block == len(rises) - 1 or moved(rise, rises[-1]))
        return DriftReport(self.samples, since, dict(zip(self.blocks, rises, strict=True)), self.blocks[first])


def _reread_values(answers: Vector, values: Vector) -> float:
    """Return the mean square of what a line through the others leaves of each value, if values' variance were 1.

    They are standardised, so it mostly is; and if they have been rescaled, what is left of them has been, too.
    """
    centred, deviations = answers - answers.mean(), values - values.mean()
    spread, variance = float(centred @ centred), float(deviations @ deviations) / len(values)
    if not variance > 0.0:
        return 0.0
    slope, shares = (float(centred @ values) / spread, centred**2 / spread) if spread > 0.0 else (0.0, 0.0 * centred)
    left = (deviations - slope * centred) / np.maximum(1.0 - 1.0 / len(values) - shares, 1e-3)
    return float(np.mean(left**2)) / variance
