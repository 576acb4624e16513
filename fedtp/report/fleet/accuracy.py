"""Accuracy over time, with the drifts under it; and accuracy around a drift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl

from fedtp.report.fleet.drifts import AFTER, BEFORE, RECOVERED, Around, Wave, around, waves
from fedtp.report.fleet.results import FleetResults
from fedtp.report.fleet.timeline import (
    MOST_COLUMNS,
    MOST_POINTS,
    Floats,
    Scale,
    round_count,
    rounds_per_step,
    share,
    steps,
    trailing_share,
    virtual_time,
    window,
)
from fedtp.report.page import Note, Panel, Part
from fedtp.report.plots import axis, figure, plain
from fedtp.report.units import count, percent

# More waves than this are told by the bars alone.
_MOST_WAVES = 16
# A label shows so many characters; each takes this share of the width, on a telephone.
_LABEL = 24
_CHARACTER = 0.024


def accuracy_part(results: FleetResults) -> Part:
    """Show accuracy over virtual time and over rounds, raw and smoothed, with drifts and detections."""
    title = "Accuracy over time"
    if not results.rounds["samples"].sum():
        return Note(title, "No sample was seen.", wide=True)
    return Panel(
        title=title,
        views={scale.name: _over(results, scale) for scale in (virtual_time(results), round_count(results))},
        alt=_words(results),
        caption="Each sample is predicted by the model that its device then had, and learnt from afterwards.",
        height=460 if results.events.height else 380,
        wide=True,
    )


def around_part(results: FleetResults) -> Part:
    """Show accuracy around a drift: how far devices fall, and how soon they are back."""
    seen = around(results)
    if seen is None:
        return Note("Around a drift", "No drift has samples near it.")
    return Panel(
        title="Around a drift",
        views={"": _around(seen)},
        alt=f"Line chart of accuracy from {BEFORE} rounds before to {AFTER} after a drift. {_recovery(seen)}",
        caption=f"All drifts laid on top of each other, each seen from its own device. {_recovery(seen)}",
    )


def _over(results: FleetResults, scale: Scale) -> go.Figure:
    seen = (
        results.rounds.join(steps(results.rounds, MOST_POINTS), on="round", maintain_order="left")
        .group_by("step", maintain_order=True)
        .agg(pl.col("samples", "correct").sum(), pl.col("step_seconds", "step_label").first())
    )
    x = scale(seen["step_seconds"]).astype("f4")
    raw = share(seen["correct"], seen["samples"])
    length = window(seen.height, int(seen["samples"].sum()))
    smooth = trailing_share(seen["correct"], seen["samples"], length)
    traces: list[Any] = []
    if length > 1:
        traces.append(
            go.Scatter(
                x=x,
                y=raw.astype("f4"),
                name=_step_name(results),
                mode="lines",
                line={"color": "var(--pale)", "width": 1.25},
                hovertemplate="%{y:.1%}",
            )
        )
    traces.append(
        go.Scatter(
            x=x,
            y=smooth.astype("f4"),
            name=f"last {length * rounds_per_step(results.rounds.height, MOST_POINTS)} rounds"
            if length > 1
            else "accuracy",
            mode="lines" if seen.height > 40 else "lines+markers",
            line={"color": "var(--series-1)", "width": 2.5},
            marker={"size": 5},
            cliponaxis=False,
            customdata=np.array([seen["step_label"], [count(n) for n in seen["samples"]]], object).T,
            hovertemplate="%{y:.1%}<br>%{customdata[0]}: %{customdata[1]} samples",
        )
    )
    layout: dict[str, Any] = {
        "hovermode": "x unified",
        "hoversubplots": "axis",
        "xaxis": axis(scale.title, range=scale.range, unifiedhovertitle={"text": scale.hover}),
        "yaxis": axis("accuracy", tickformat=".0%", autorangeoptions={"clipmin": 0, "clipmax": 1}),
    }
    if results.events.height:
        traces += _event_bars(results, scale)
        layout["yaxis"]["domain"] = [0.29, 1]
        layout["yaxis2"] = axis(
            "devices", automargin=True, domain=[0, 0.2], zeroline=True, zerolinecolor="var(--rule)", nticks=4
        )
        layout["yaxis2"].update(_mirrored_ticks(traces[-2:]))
        layout["xaxis"]["anchor"] = "y2"
        layout["barmode"] = "relative"
        layout["bargap"] = 0.15
        shown = waves(results)
        if len(shown) <= _MOST_WAVES:
            layout["shapes"] = [_mark(wave, scale, results.end_seconds) for wave in shown]
            layout["annotations"] = _labels(shown, scale, results.end_seconds)
    return figure(traces, **layout)


def _step_name(results: FleetResults) -> str:
    together = rounds_per_step(results.rounds.height, MOST_POINTS)
    return "each round" if together == 1 else f"every {together} rounds"


def _event_bars(results: FleetResults, scale: Scale) -> list[go.Bar]:
    """Draw drifts upwards and detections downwards, counted from the start of a step to that of the next."""
    starts = np.unique(steps(results.rounds, MOST_COLUMNS // 2)["step_seconds"].to_numpy())
    edges = scale(np.append(starts, results.end_seconds))
    # Before the first round there is no step: what happens there is counted with the first.
    inner = np.append(np.append(-np.inf, starts[1:]), np.inf)
    bars = []
    for name, events, sign, paint in (
        ("true drifts", results.drifts, 1, "var(--wave-line)"),
        ("detections", results.detections, -1, "var(--series-3)"),
    ):
        counts, _ = np.histogram(events["time_seconds"].to_numpy(), bins=inner)
        bars.append(
            go.Bar(
                x=((edges[1:] + edges[:-1]) / 2).astype("f4"),
                y=(sign * counts).astype("i4"),
                width=(0.86 * np.diff(edges)).astype("f4"),
                name=name,
                yaxis="y2",
                marker={"color": paint, "line": {"width": 0}},
                customdata=counts.astype("i4"),
                hovertemplate="%{customdata}",
            )
        )
    return bars


def _mirrored_ticks(bars: Sequence[go.Bar]) -> dict[str, Any]:
    """Put ticks that count away from zero on both sides."""
    up, down = (int(np.abs(bar.y).max(initial=0)) for bar in bars)
    values = sorted({-down, 0, up})
    # The smaller side goes unlabelled where its number would touch the zero.
    values = [v for v in values if v == 0 or abs(v) >= 0.25 * (up + down)]
    return {"tickvals": values, "ticktext": [count(abs(v)) for v in values]}


def _mark(wave: Wave, scale: Scale, end: float) -> dict[str, Any]:
    """Mark a wave by a line where the devices drift in step, by a band where each drifts in its own time."""
    x0, x1 = scale([wave.start, wave.end]).tolist()
    place = {"xref": "x", "yref": "paper", "y0": 0, "y1": 1, "x0": x0, "layer": "below"}
    if wave.end - wave.start < 0.005 * end:
        return {
            **place,
            "type": "line",
            "x1": x0,
            "line": {"color": "var(--wave-line)", "width": 1.5, "dash": "dot"},
        }
    return {**place, "type": "rect", "x1": x1, "fillcolor": "var(--wave)", "line": {"width": 0}}


def _labels(shown: Sequence[Wave], scale: Scale, end: float) -> list[dict[str, Any]]:
    """Name the concepts to which the devices drift, where there is room to."""
    labels: list[dict[str, Any]] = []
    free = 0.0
    for wave in shown:
        text = f"to {wave.concept}"
        text = text if len(text) <= _LABEL else f"{text[: _LABEL - 1]}…"
        width = _CHARACTER * (len(text) + 1) * end
        left = wave.start if wave.start + width <= end else wave.start - width
        if left < free:
            continue
        free = left + width
        labels.append(
            {
                "x": float(scale(wave.start)),
                "y": 0.245,
                "yref": "paper",
                "xanchor": "left" if left == wave.start else "right",
                "yanchor": "middle",
                "text": plain(text),
                "showarrow": False,
                "font": {"size": 11, "color": "var(--wave-line)"},
            }
        )
    return labels


def _around(seen: Around) -> go.Figure:
    traces = [
        go.Scatter(
            x=seen.offsets.astype("f4"),
            y=seen.accuracy.astype("f4"),
            name="accuracy",
            mode="lines+markers",
            line={"color": "var(--series-1)", "width": 2.5},
            marker={"size": 5},
            cliponaxis=False,
            customdata=[count(n) for n in seen.samples],
            hovertemplate="%{y:.1%} of %{customdata} samples",
            showlegend=False,
        )
    ]
    if not np.isnan(seen.before):
        for level, name, style in (
            (1.0, "before", "dash"),
            (RECOVERED, f"{100 * RECOVERED:.0f}% of before", "dot"),
        ):
            traces.append(
                go.Scatter(
                    x=[-BEFORE, AFTER],
                    y=[level * seen.before] * 2,
                    name=name,
                    mode="lines",
                    line={"color": "var(--soft)", "width": 1.25, "dash": style},
                    hoverinfo="skip",
                )
            )
    drift = {"type": "line", "x0": -0.5, "x1": -0.5, "yref": "paper", "y0": 0, "y1": 1}
    return figure(
        traces,
        hovermode="x unified",
        shapes=[{**drift, "line": {"color": "var(--wave-line)", "width": 1.5, "dash": "dot"}, "layer": "below"}],
        xaxis=axis("rounds since the drift", range=[-BEFORE - 0.5, AFTER + 0.5], dtick=5, zeroline=False),
        yaxis=axis("accuracy", tickformat=".0%", autorangeoptions={"clipmin": 0, "clipmax": 1}),
    )


def _recovery(seen: Around) -> str:
    accuracy = seen.accuracy[seen.offsets >= 0]
    if np.isnan(accuracy).all() or np.isnan(seen.before):
        return ""
    lowest = float(np.nanmin(accuracy))
    if lowest >= RECOVERED * seen.before:
        return f"Accuracy never falls below {100 * RECOVERED:.0f}% of its {percent(seen.before)} before."
    fall = f"Accuracy falls from {percent(seen.before)} to {percent(lowest)}"
    if seen.recovery is None:
        return f"{fall} and is not back at {100 * RECOVERED:.0f}% of that within {AFTER} rounds."
    plural = "round" if seen.recovery == 1 else "rounds"
    return f"{fall} and is back at {100 * RECOVERED:.0f}% of that after {seen.recovery} {plural}."


def _words(results: FleetResults) -> str:
    accuracy = share(results.rounds["correct"], results.rounds["samples"])
    known: Floats = accuracy[~np.isnan(accuracy)]
    drifts, detections = results.drifts.height, results.detections.height
    return (
        f"Line chart of accuracy over {len(accuracy)} rounds: first {percent(known[0])}, lowest "
        f"{percent(known.min())}, highest {percent(known.max())}, last {percent(known[-1])}. Bars count "
        f"{drifts} true drifts and {detections} detections."
    )
