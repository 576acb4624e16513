"""Accuracy over virtual time, a line for each group with a band where it has several runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl

from fedtp.measures import confidence_margin
from fedtp.report.comparison.results import ComparisonResults
from fedtp.report.figures import brief
from fedtp.report.fleet.timeline import MOST_COLUMNS, Floats, share, trailing_share, window
from fedtp.report.page import Note, Panel, Part
from fedtp.report.plots import axis, band, figure, line_style, plain
from fedtp.report.units import percent, time_unit

#: Of a name in a figure.
LONGEST = 44
# More lines than this are drawn only when the legend is clicked.
_MOST_LINES = 8


@dataclass(frozen=True, eq=False)
class _Curve:
    """A group's accuracy: when, mean over its runs, and half the width of the confidence interval (NaN: none)."""

    seconds: Floats
    mean: Floats
    margin: Floats


def accuracy_part(results: ComparisonResults) -> Part:
    """Show accuracy over virtual time, of late and since the start."""
    title = "Accuracy over time"
    if not results.rounds["samples"].sum():
        return Note(title, "No sample was seen.", wide=True)
    several = " The bands are 95% confidence intervals over seeds." if results.repeated else ""
    hidden = len(results.groups) - _MOST_LINES
    more = f" {hidden} more lines are drawn when their names are clicked." if hidden > 0 else ""
    spoken = ", ".join(f"{group} {percent(_mean(results, group))}" for group in results.groups)
    return Panel(
        title=title,
        views={"Of late": _figure(results, False), "Since the start": _figure(results, True)},
        alt=f"Line chart of accuracy over virtual time. Over the whole time: {spoken}.",
        caption=f"Each sample is predicted by the model that its device then had, and learnt from afterwards.{several}"
        + more,
        height=420 + 12 * min(len(results.groups), 10),
        wide=True,
    )


def _mean(results: ComparisonResults, group: str) -> float | None:
    mean = results.of(group)["prequential_accuracy"].mean()
    return float(mean) if isinstance(mean, float) else None


def _figure(results: ComparisonResults, since_start: bool) -> go.Figure:
    end = float(results.rounds["ended_seconds"].max())  # type: ignore[arg-type]
    unit = time_unit(end)
    traces: list[Any] = []
    for index, group in enumerate(results.groups):
        curve = _curve(results, group, since_start)
        x = curve.seconds / unit.size
        shown = True if index < _MOST_LINES else "legendonly"
        known = ~np.isnan(curve.margin)
        if known.any():
            low, high = (np.clip(curve.mean + sign * curve.margin, 0, 1)[known] for sign in (-1, 1))
            traces.append(band(x[known], low, high, index).update(legendgroup=group, visible=shown))
        traces.append(
            go.Scatter(
                x=x.astype("f4"),
                y=curve.mean.astype("f4"),
                name=plain(brief(group, LONGEST)),
                legendgroup=group,
                visible=shown,
                mode="lines" if len(x) > 1 else "markers",
                line=line_style(index),
                hovertemplate="%{y:.1%}",
            )
        )
    title = {"text": f"%{{x:.4~g}} {unit.name}"}
    return figure(
        traces,
        hovermode="x unified",
        showlegend=True,
        xaxis=axis(f"virtual time ({unit.name})", range=[0, end / unit.size], unifiedhovertitle=title),
        yaxis=axis("accuracy", tickformat=".0%", autorangeoptions={"clipmin": 0, "clipmax": 1}),
    )


def _curve(results: ComparisonResults, group: str, since_start: bool) -> _Curve:
    """Lay the runs of a group over steps of time that they share."""
    runs = results.of(group).select("run").with_row_index("row")
    rounds = runs.join(results.rounds, on="run")
    end = float(rounds["ended_seconds"].max())  # type: ignore[arg-type]
    fewest = rounds.group_by("run").len()["len"].min()
    steps = min(MOST_COLUMNS, int(fewest))  # type: ignore[arg-type]
    # A round that starts where a step does belongs to it, whatever the last bit says.
    step = (pl.col("started_seconds") / end * steps + 1e-6).floor().clip(0, steps - 1).cast(pl.Int64)
    sums = rounds.group_by("row", step=step).agg(pl.col("samples", "correct").sum())
    samples, correct = np.zeros((2, runs.height, steps))
    samples[sums["row"], sums["step"]] = sums["samples"]
    correct[sums["row"], sums["step"]] = sums["correct"]
    if since_start:
        values = share(np.cumsum(correct, axis=1), np.cumsum(samples, axis=1))
    else:
        length = window(steps, samples.sum() / runs.height)
        values = np.array([trailing_share(part, whole, length) for part, whole in zip(correct, samples, strict=True)])
    known = np.count_nonzero(~np.isnan(values), axis=0)
    mean = share(np.nansum(values, axis=0), known)
    margin = confidence_margin(values) if runs.height > 1 else np.full(steps, np.nan)
    return _Curve(np.arange(steps) * end / steps, mean, margin)
