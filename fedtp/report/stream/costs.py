"""What accuracy costs: the processor's time of a sample, and the errors after a drift."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import polars as pl

from fedtp.report.figures import brief, micros, number, share
from fedtp.report.page import Panel
from fedtp.report.plots import axis, colour, figure, lane_label, plain
from fedtp.report.stream.results import StreamResults

_SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "star")


def cost_panel(results: StreamResults) -> Panel:
    """Show accuracy against the processor's time for a sample, a point for each model."""
    traces = []
    for index, model in enumerate(results.models):
        accuracy, cpu = (results.figure(model, name) for name in ("accuracy", "cpu_us_per_sample"))
        traces.append(
            go.Scatter(
                x=[cpu.mean],
                y=[accuracy.mean],
                name=plain(brief(model)),
                mode="markers",
                marker={"size": 12, "color": colour(index), "symbol": _SYMBOLS[(index + index // 6) % 6]},
                error_x=_error(cpu.margin, index),
                error_y=_error(accuracy.margin, index),
                cliponaxis=False,
                hovertemplate=f"{plain(model)}<br>{share(accuracy)}<br>{micros(cpu)} µs<extra></extra>",
            )
        )
    spoken = ", ".join(f"{m} {micros(results.figure(m, 'cpu_us_per_sample'))} µs" for m in results.models)
    return Panel(
        title="Accuracy and time",
        views={
            "": figure(
                traces,
                showlegend=True,
                xaxis=axis("processor time per sample (µs)", type="log", dtick="D2"),
                yaxis=axis("accuracy", tickformat=".0%"),
            )
        },
        alt=f"Points of accuracy against processor time per sample: {spoken}.",
        caption="Predicting and learning, on the machine that made the study. Up and to the left is better.",
        height=400,
    )


def lost_panel(results: StreamResults) -> Panel:
    """Show the area lost after a drift, a bar for each model."""
    figures = [results.figure(model, "area_lost") for model in results.models]
    bars = go.Bar(
        x=[one.mean for one in figures],
        y=list(range(len(figures))),
        width=0.4,
        orientation="h",
        marker={"color": [colour(index) for index in range(len(figures))]},
        error_x={
            "type": "data",
            "array": [one.margin or 0 for one in figures],
            "color": "var(--soft)",
            "visible": any(one.margin for one in figures),
        },
        hovertemplate=[
            f"{plain(model)}: {number(one)}<extra></extra>" for model, one in zip(results.models, figures, strict=True)
        ],
    )
    spoken = ", ".join(f"{model} {number(one)}" for model, one in zip(results.models, figures, strict=True))
    return Panel(
        title="Lost to a drift",
        views={
            "": figure(
                [bars],
                showlegend=False,
                annotations=[
                    lane_label(brief(model), index, yref="y", y=index - 0.22, yanchor="bottom")
                    for index, model in enumerate(results.models)
                ],
                xaxis=axis("extra errors", tickformat=",~g", nticks=6, zeroline=True, zerolinecolor="var(--rule)"),
                yaxis=axis(range=[len(figures) - 0.5, -0.75], showticklabels=False, showgrid=False),
            )
        },
        alt=f"Bars of the errors that a drift costs each model: {spoken}.",
        caption="Errors beyond those at the accuracy of before, until recovery. A model that knew little before a "
        "drift has little to lose by it.",
        height=max(400, 110 + 48 * len(figures)),
    )


def blocks_panel(results: StreamResults) -> Panel:
    """Show, for the drifts that models found themselves, in which blocks the local loss rose."""
    rises = (
        results.events.filter(results.events["kind"] == "reaction")
        .select("model", "rises")
        .explode("rises")
        .drop_nulls()
        .unnest("rises")
    )
    traces = []
    spoken = []
    for index, model in enumerate(results.models):
        of_model = rises.filter(rises["model"] == model)
        if not of_model.height:
            continue
        means = of_model.group_by("block", maintain_order=True).agg(pl.col("rise").mean())
        spoken += [f"{model} block {row['block']} {row['rise']:+.3g}" for row in means.iter_rows(named=True)]
        traces.append(
            go.Bar(
                x=[f"block {plain(name)}" for name in means["block"]],
                y=np.asarray(means["rise"].to_numpy(), "f4"),
                name=plain(brief(model)),
                marker={"color": colour(index)},
                hovertemplate="%{y:.3g}",
            )
        )
    return Panel(
        title="Which block suffered",
        views={
            "": figure(
                traces,
                barmode="group",
                hovermode="x unified",
                showlegend=True,
                xaxis=axis(type="category"),
                yaxis=axis("rise of the local loss", zeroline=True, zerolinecolor="var(--rule)"),
            )
        },
        alt=f"Bars of the mean rise of each block's local loss: {', '.join(spoken)}.",
        caption="Mean over the drifts that a model found itself.",
        height=340,
        wide=True,
    )


def _error(margin: float | None, index: int) -> dict[str, object]:
    return {
        "type": "data",
        "array": [margin or 0],
        "visible": margin is not None,
        "color": colour(index),
        "thickness": 1.5,
    }
