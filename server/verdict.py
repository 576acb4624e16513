"""What became of the orders that were answered."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from fedtp.wire import Report


@dataclass(frozen=True)
class Verdict:
    """What became of a reply.

    Parameters
    ----------
    status
        ``"accepted"``, ``"empty"`` (the device had no new samples) or ``"refused"``.
    reason
        Why it was refused, in a few words for counting; empty otherwise.
    detail
        The same as a sentence.
    report
        What the device reported, unless a check refused it.
    staleness
        How often the blocks that it trained had been aggregated since they were sent to the device, mean over them;
        NaN if it was not used.
    """

    status: Literal["accepted", "empty", "refused"]
    reason: str = ""
    detail: str = ""
    report: Report | None = None
    staleness: float = math.nan


def score(verdicts: Iterable[Verdict]) -> tuple[int, int]:
    """Return how many samples the devices scored, and how many of them they predicted rightly."""
    reports = [verdict.report for verdict in verdicts if verdict.report is not None]
    return sum(report.samples for report in reports), sum(report.correct for report in reports)
