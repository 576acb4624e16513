"""Accuracy over the stream, a line for each model, and below it what was detected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl
from numpy.typing import NDArray

from fedtp.measures import confidence_margin
from fedtp.report.figures import brief
from fedtp.report.page import Panel
from fedtp.report.plots import axis, band, colour, figure, lane_label, line_style, plain
from fedtp.report.stream.results import StreamResults
from fedtp.report.units import count, percent

Floats = NDArray[np.float64]

# CSS pixels: the plot of accuracy, and a model's lane below it.
_PLOT = 340
_LANE = 44
_SPACE = 26
_MARGINS = 110


@dataclass(frozen=True)
class _Line:
    """A model's accuracy, with the ends of the confidence interval where there are several seeds."""

    x: Floats
    y: Floats
    low: Floats | None
    high: Floats | None


def accuracy_panel(results: StreamResults) -> Panel:
    """Show accuracy in windows and since the start, with true drifts, detections and what models found themselves."""
    window = int((results.curves["end"] - results.curves["start"]).max() or 0)  # type: ignore[arg-type]
    spread = f" The bands are 95% confidence intervals over {results.seeds} seeds." if results.seeds > 1 else ""
    return Panel(
        title="Accuracy over the stream",
        views={
            f"Every {count(window)} samples": _figure(results, since_start=False),
            "Since the start": _figure(results, since_start=True),
        },
        alt=_words(results),
        caption=f"Each sample is predicted before it is learnt.{spread}",
        height=_height(results),
        wide=True,
    )


def _height(results: StreamResults) -> int:
    return _PLOT + _MARGINS + (_SPACE + _LANE * len(results.models) if results.events.height else 0)


def _figure(results: StreamResults, since_start: bool) -> go.Figure:
    traces: list[Any] = []
    for index, model in enumerate(results.models):
        line = _line(results, model, since_start)
        if line.low is not None and line.high is not None:
            traces.append(band(line.x, line.low, line.high, index).update(legendgroup=model))
        traces.append(
            go.Scatter(
                x=line.x,
                y=line.y.astype("f4"),
                name=plain(brief(model)),
                legendgroup=model,
                mode="lines" if len(line.x) > 1 else "markers",
                line=line_style(index),
                hovertemplate="%{y:.1%}",
            )
        )
    layout: dict[str, Any] = {
        "hovermode": "x unified",
        "showlegend": True,
        "shapes": [_drift_line(drift) for drift in results.true_drifts],
        "xaxis": axis("sample", range=[0, results.samples], tickformat=",d"),
        "yaxis": axis("accuracy", tickformat=".0%", autorangeoptions={"clipmin": 0, "clipmax": 1}),
    }
    if results.events.height:
        whole = _PLOT + _SPACE + _LANE * len(results.models)
        traces += _lanes(results)
        layout["yaxis"]["domain"] = [1 - _PLOT / whole, 1]
        layout["yaxis2"] = axis(
            domain=[0, _LANE * len(results.models) / whole],
            range=[len(results.models), 0],
            showticklabels=False,
            showgrid=False,
            fixedrange=True,
        )
        layout["xaxis"]["anchor"] = "y2"
        layout["annotations"] = [
            lane_label(brief(model), index, yref="y2", y=index + 0.04, yanchor="top")
            for index, model in enumerate(results.models)
        ]
    return figure(traces, **layout)


def _line(results: StreamResults, model: str, since_start: bool) -> _Line:
    of_model = results.curves.filter(pl.col("model") == model).sort("seed", "start")
    starts, ends, correct = (
        np.asarray(of_model[name].to_numpy(), float).reshape(results.seeds, -1) for name in ("start", "end", "correct")
    )
    if since_start:
        x, values = ends[0], np.cumsum(correct, axis=1) / ends
    else:
        x, values = (starts[0] + ends[0]) / 2, correct / (ends - starts)
    mean: Floats = values.mean(axis=0)
    if results.seeds == 1:
        return _Line(x, mean, None, None)
    margin = confidence_margin(values)
    return _Line(x, mean, np.clip(mean - margin, 0, 1), np.clip(mean + margin, 0, 1))


def _lanes(results: StreamResults) -> list[go.Scatter]:
    """Draw each model's events into a lane of its own, and explain the marks once, without a colour, in the legend."""
    window = int(results.summary["detection_window"])
    since = pl.lit(False)
    for drift in results.true_drifts:
        since = since | pl.col("sample").is_between(drift, drift + window)
    unknown = results.summary["drifts"] is None
    detection = pl.col("kind") == "detection"
    marks = (
        ("detection", detection if unknown else detection & since, {"symbol": "line-ns", "size": 13}),
        ("false alarm", pl.lit(False) if unknown else detection & ~since, {"symbol": "x-thin", "size": 9}),
        ("found by the model", pl.col("kind") == "reaction", {"symbol": "triangle-up-open", "size": 9}),
    )
    traces = []
    for name, chosen, mark in marks:
        events = results.events.filter(chosen)
        for index, model in enumerate(results.models):
            of_model = events.filter(pl.col("model") == model)
            if not of_model.height:
                continue
            traces.append(
                go.Scatter(
                    x=of_model["sample"].to_numpy(),
                    # What a model found itself lies a little lower, so as not to hide what was found from outside.
                    y=np.full(of_model.height, index + (0.82 if name == "found by the model" else 0.66)),
                    yaxis="y2",
                    mode="markers",
                    marker={**mark, "color": colour(index), "line": {"color": colour(index), "width": 2}},
                    opacity=1 if results.seeds == 1 else 0.6,
                    showlegend=False,
                    hovertemplate=f"{plain(model)}: {name} at %{{x:,d}}<extra></extra>",
                )
            )
        if events.height:
            traces.append(
                go.Scatter(
                    x=[None],
                    y=[None],
                    name=name,
                    mode="markers",
                    marker={**mark, "color": "var(--soft)", "line": {"color": "var(--soft)", "width": 2}},
                )
            )
    return traces


def _drift_line(drift: int) -> dict[str, Any]:
    return {
        "type": "line",
        "xref": "x",
        "x0": drift,
        "x1": drift,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "line": {"color": "var(--wave-line)", "width": 1.5, "dash": "dot"},
    }


def _words(results: StreamResults) -> str:
    spoken = ", ".join(f"{model} {percent(results.figure(model, 'accuracy').mean)}" for model in results.models)
    detections = results.events.filter(pl.col("kind") == "detection").height
    return (
        f"Line chart of accuracy over {count(results.samples)} samples for each model. Over all of them: {spoken}. "
        f"{count(len(results.true_drifts))} true drifts are marked, and {count(detections)} detections."
    )
