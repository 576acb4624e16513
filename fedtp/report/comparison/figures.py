"""The figures of a run by which runs are compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedtp.interval import Interval
from fedtp.report.figures import number, score, share, size, time, work


@dataclass(frozen=True)
class Figure:
    """A figure that every run has.

    Parameters
    ----------
    key
        Its name in a run's summary, and in tables.
    label
        What a person calls it.
    text
        How it is written.
    more_is_better
        None where neither more nor less is better by itself.
    always
        Whether it is shown also where it is the same in all runs.
    part, whole
        Of a share: the figures of the summary that it is made from.
    """

    key: str
    label: str
    text: Callable[[Interval], str]
    more_is_better: bool | None = False
    always: bool = False
    part: str = ""
    whole: str = ""

    def read(self, summary: Mapping[str, object]) -> float | None:
        """Return the figure of a run, None where it has none."""
        value = _number(summary.get(self.part or self.key))
        if value is None or not self.whole:
            return value
        whole = _number(summary.get(self.whole))
        return value / whole if whole else None


#: All of them, the most telling first.
FIGURES = (
    Figure("prequential_accuracy", "prequential accuracy", share, more_is_better=True, always=True),
    Figure("final_accuracy", "final accuracy", share, more_is_better=True, always=True),
    Figure("bytes_up", "bytes up", size),
    Figure("joules", "energy", work),
    Figure("peak_bytes", "peak memory", size),
    Figure(
        "detected_share",
        "drifts detected",
        share,
        more_is_better=True,
        part="drifts_detected",
        whole="drifts_true",
    ),
    Figure("kappa", "kappa", score, more_is_better=True),
    Figure("kappa_t", "kappa_t", score, more_is_better=True),
    Figure("false_alarms", "false alarms", number),
    Figure("bytes_down", "bytes down", size),
    Figure("virtual_seconds", "virtual time", time),
    Figure("staleness", "staleness", score),
    Figure("samples", "samples", number, more_is_better=None),
    Figure("samples_dropped", "samples dropped", number),
    Figure("samples_unlabelled", "samples unlabelled", number),
    Figure("label_delay_seconds", "label delay", time),
    Figure("client_rounds", "client rounds", number, more_is_better=None),
    Figure("updates_accepted", "updates accepted", number, more_is_better=None),
    Figure("updates_late", "updates late", number),
    Figure("updates_lost", "updates lost", number),
    Figure("updates_refused", "updates refused", number),
)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
