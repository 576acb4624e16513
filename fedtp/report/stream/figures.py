"""A measure of a model, as a person reads it where a mean alone would mislead."""

from __future__ import annotations

from fedtp.interval import Interval
from fedtp.report.figures import number
from fedtp.report.stream.results import StreamResults


def recovery(results: StreamResults, model: str) -> str:
    """Write the recovery time of a model, and of how many drifts it is if not of all."""
    recovered = results.figure(model, "drifts_recovered").mean
    drifts = len(results.true_drifts)
    text = number(results.figure(model, "recovery_samples"))
    if recovered is None or recovered == drifts:
        return text
    return f"{text} ({number(Interval(recovered, None, 1))} of {drifts})" if recovered else "never"
