"""Every figure of every group: a dot with its confidence interval, and a small one for each run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go

from fedtp.interval import Interval
from fedtp.report.comparison.accuracy import LONGEST
from fedtp.report.comparison.figures import Figure
from fedtp.report.comparison.results import ComparisonResults
from fedtp.report.figures import brief, share, size, time, work
from fedtp.report.page import Panel
from fedtp.report.plots import axis, colour, figure, lane_label, plain
from fedtp.report.units import Unit, byte_unit, joule_unit, time_unit

_LANE = 46
_AROUND = 70
# More views than this are too many buttons.
_MOST_VIEWS = 8
_UNITS: dict[Callable[[Interval], str], Callable[[float], Unit]] = {size: byte_unit, work: joule_unit, time: time_unit}


def dots_panel(results: ComparisonResults) -> Panel:
    """Show the groups side by side, a view for each figure."""
    figures = results.shown[:_MOST_VIEWS]
    first = figures[0]
    spoken = ", ".join(f"{group} {first.text(results.interval(group, first))}" for group in results.groups)
    spread = "A small dot is a run, the line a 95% confidence interval of the mean over seeds."
    return Panel(
        title="Side by side",
        views={one.label: _figure(results, one) for one in figures},
        alt=f"A dot for each group, with its confidence interval. {first.label}: {spoken}.",
        caption=spread if results.repeated else "",
        height=_AROUND + _LANE * len(results.groups),
        wide=True,
    )


def _figure(results: ComparisonResults, one: Figure) -> go.Figure:
    unit = _unit(results, one)
    dots, seeds = [], []
    for index, group in enumerate(results.groups):
        found = results.interval(group, one)
        if found.mean is None:
            continue
        hover = f"{plain(group)}<br>{plain(one.text(found))}<extra></extra>"
        dots.append(
            go.Scatter(
                x=[found.mean / unit.size],
                y=[index],
                mode="markers",
                marker={"size": 11, "color": colour(index)},
                error_x={
                    "type": "data",
                    "array": [(found.margin or 0.0) / unit.size],
                    "visible": bool(found.margin),
                    "color": colour(index),
                    "thickness": 2.5,
                    "width": 5,
                },
                hovertemplate=hover,
            )
        )
        values = results.of(group)[one.key].drop_nulls().to_numpy() / unit.size
        if len(values) > 1:
            seeds.append(
                go.Scatter(
                    x=values,
                    y=np.full(len(values), index + 0.24),
                    mode="markers",
                    marker={"size": 6, "color": colour(index), "opacity": 0.5},
                    hoverinfo="skip",
                )
            )
    form = {"tickformat": ".1~%"} if one.text is share else {"tickformat": "~g"}
    return figure(
        [*seeds, *dots],
        showlegend=False,
        hovermode="closest",
        annotations=[
            lane_label(brief(group, LONGEST), index, yref="y", y=index - 0.18, yanchor="bottom")
            for index, group in enumerate(results.groups)
        ],
        xaxis=axis(f"{one.label} ({unit.name})" if unit.name else one.label, nticks=7, **form),
        yaxis=axis(
            range=[len(results.groups) - 0.5, -0.7],
            tickvals=list(range(len(results.groups))),
            showticklabels=False,
            fixedrange=True,
        ),
    )


def _unit(results: ComparisonResults, one: Figure) -> Unit:
    largest = results.runs[one.key].max()
    choose = _UNITS.get(one.text)
    return Unit("", 1.0) if choose is None or not isinstance(largest, float) else choose(largest)
