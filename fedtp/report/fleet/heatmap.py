"""Accuracy of every device over time, as a map in which the eye finds who fell behind and when."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl

from fedtp.report.fleet.results import FleetResults
from fedtp.report.fleet.timeline import (
    MOST_COLUMNS,
    Floats,
    Scale,
    rounds_per_step,
    share,
    steps,
    virtual_time,
)
from fedtp.report.page import Note, Panel, Part
from fedtp.report.plots import axis, figure, plain
from fedtp.report.units import count

MOST_ROWS = 200
# More marks than this hide the map.
MOST_MARKS = 2_000
# Pixels: what surrounds the map, and the two lines that name a class beside it.
_AROUND = 120
_LABEL = 36


def heatmap_part(results: FleetResults) -> Part:
    """Show accuracy by device and time, devices of a class together, in the order of their first drifts."""
    title = "Accuracy of every device"
    if not results.devices["samples"].sum():
        return Note(title, "No device saw a sample.", wide=True)
    rows = _rows(results)
    height = _AROUND + max(int(np.clip(4.6 * _row_count(rows), 120, 500)), _LABEL * len(results.classes))
    marks = _marks(results, rows)
    return Panel(
        title=title,
        views={"": _map(results, rows, marks, virtual_time(results), height)},
        alt=f"Heat map of accuracy: {rows.height} devices in {len(results.classes)} classes downwards, "
        f"virtual time to the right. {_caption(results, rows, marks)}",
        caption=_caption(results, rows, marks),
        height=height,
        wide=True,
    )


def _rows(results: FleetResults) -> pl.DataFrame:
    """Give each device a row of the map: one of its own, or one with its neighbours where they are many."""
    first_drift = results.drifts.group_by("device").agg(first_drift=pl.col("time_seconds").min())
    order = {name: place for place, name in enumerate(results.classes)}
    devices = (
        results.devices.group_by("device")
        .agg(pl.col("device_class").first())
        .join(first_drift, on="device", how="left")
        .with_columns(place=pl.col("device_class").replace_strict(order, default=0, return_dtype=pl.Int64))
        .sort("place", "first_drift", "device", nulls_last=True)
    )
    size = pl.len().over("place")
    rank = pl.int_range(pl.len()).over("place")
    most = max(1.0, devices.height / MOST_ROWS)
    kept = (size / most).round().clip(1).cast(pl.Int64)
    return devices.with_columns(row=rank * kept // size, rows=kept)


def _row_count(rows: pl.DataFrame) -> int:
    return int(rows.unique("place")["rows"].sum())


def _marks(results: FleetResults, rows: pl.DataFrame) -> pl.DataFrame:
    """Place the marks of drifts: the n-th drift of a row's devices, at the mean of their times."""
    return (
        results.drifts.with_columns(nth=pl.int_range(pl.len()).over("device"))
        .join(rows.select("device", "place", "row"), on="device")
        .group_by("place", "row", "nth")
        .agg(pl.col("time_seconds").mean())
        .sort("place", "row", "nth")
    )


def _bands(rows: pl.DataFrame, height: int) -> list[Floats]:
    """Lay out the edges of each class's rows, from 0 at the top to 1, with room for every class's name."""
    sizes = rows.group_by("place").agg(pl.len(), pl.col("rows").first()).sort("place")
    shares = np.maximum(sizes["len"].to_numpy() / rows.height, _LABEL / (height - _AROUND))
    edges = np.append(0.0, np.cumsum(shares / shares.sum()))
    return [np.linspace(edges[i], edges[i + 1], kept + 1) for i, kept in enumerate(sizes["rows"])]


def _map(results: FleetResults, rows: pl.DataFrame, marks: pl.DataFrame, scale: Scale, height: int) -> go.Figure:
    grid = steps(results.rounds, MOST_COLUMNS)
    starts = grid.unique("step", keep="first", maintain_order=True)["step_seconds"].to_numpy()
    x = scale(np.append(starts, results.end_seconds)).astype("f4")
    sums = (
        results.devices.filter(pl.col("samples") > 0)
        .join(rows.select("device", "place", "row"), on="device")
        .join(grid.select("round", "step"), on="round")
        .group_by("place", "row", "step")
        .agg(pl.col("samples", "correct").sum())
    )
    bands = _bands(rows, height)
    traces: list[Any] = []
    for place, edges in enumerate(bands):
        here = sums.filter(pl.col("place") == place)
        z = np.full((len(edges) - 1, len(x) - 1), np.nan, "f4")
        z[here["row"].to_numpy(), here["step"].to_numpy()] = share(here["correct"], here["samples"])
        who = rows.filter(pl.col("place") == place)
        names = who.group_by("row").agg(pl.col("device").min(), pl.len()).sort("row")
        alone = rows.height == _row_count(rows)
        of = names["device"] if alone else names["len"]
        traces.append(
            go.Heatmap(
                x=x,
                y=edges.astype("f4"),
                z=z,
                coloraxis="coloraxis",
                name=plain(results.classes[place]),
                customdata=np.repeat(of.to_numpy().astype("i4")[:, None], len(x) - 1, axis=1),
                hoverongaps=False,
                hovertemplate=(
                    f"{'device %{customdata}' if alone else '%{customdata} devices'} "
                    f"(%{{fullData.name}})<br>{scale.hover}: %{{z:.0%}}<extra></extra>"
                ),
            )
        )
    shown = marks if marks.height <= MOST_MARKS else marks.clear()
    if shown.height:
        traces.append(_drift_marks(shown, bands, scale, height))
    low, high = _range(traces[: len(bands)])
    borders = [edges[0] for edges in bands[1:]]
    return figure(
        traces,
        margin={"t": 12},
        plot_bgcolor="var(--void)",
        showlegend=False,
        xaxis=axis(showgrid=False, ticks="", range=scale.range),
        # plotly.js 4.1 draws a title of the axis over its numbers where a colour bar lies above the plot.
        annotations=[_below(scale.title)],
        yaxis=axis(
            range=[1, 0],
            showgrid=False,
            ticks="",
            tickvals=[float(edges.mean()) for edges in bands],
            ticktext=[
                f"{plain(name)}<br>{count(size)} device{'' if size == 1 else 's'}"
                for name, size in zip(results.classes, rows.group_by("place").len().sort("place")["len"], strict=True)
            ],
        ),
        shapes=[
            {
                "type": "line",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": y,
                "y1": y,
                "line": {"color": "var(--surface)", "width": 3},
            }
            for y in borders
        ],
        coloraxis={
            "colorscale": "Viridis",
            "cmin": low,
            "cmax": high,
            "colorbar": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": 1.0,
                "yanchor": "bottom",
                "len": 230,
                "lenmode": "pixels",
                "thickness": 10,
                "outlinewidth": 0,
                "tickformat": ".0%",
                "tickvals": (low, (low + high) / 2, high),
                "title": {"text": "accuracy ", "side": "right"},
            },
        },
    )


def _below(title: str) -> dict[str, Any]:
    """Write a title under the horizontal axis, where that of an axis would be."""
    place = {"xref": "paper", "x": 0.5, "yref": "paper", "y": 0, "yanchor": "top", "yshift": -18}
    return {**place, "text": title, "showarrow": False, "font": {"size": 14}}


def _drift_marks(marks: pl.DataFrame, bands: list[Floats], scale: Scale, height: int) -> go.Scatter:
    middles = [(edges[1:] + edges[:-1]) / 2 for edges in bands]
    thinnest = min(float(np.diff(edges).min()) for edges in bands) * (height - _AROUND)
    return go.Scatter(
        x=scale(marks["time_seconds"]).astype("f4"),
        y=np.array([middles[place][row] for place, row in marks.select("place", "row").iter_rows()], "f4"),
        mode="markers",
        marker={
            "symbol": "diamond",
            "size": float(np.clip(1.3 * thinnest, 4, 9)),
            "color": "#ffffff",
            "line": {"color": "#14181f", "width": 1},
        },
        name="drift",
        hovertemplate=f"drift<br>{scale.hover}<extra></extra>",
    )


def _range(maps: list[go.Heatmap]) -> tuple[float, float]:
    """Stretch the colours from the worst twentieth to the best: a few bad cells do not wash out the rest."""
    values = np.concatenate([trace.z.ravel() for trace in maps])
    low, high = np.nanquantile(values, [0.05, 0.95])
    low, high = np.floor(10 * low) / 10, np.ceil(10 * high) / 10
    return (float(low), float(high)) if high > low else (max(0.0, float(low) - 0.1), min(1.0, float(high) + 0.1))


def _caption(results: FleetResults, rows: pl.DataFrame, marks: pl.DataFrame) -> str:
    shown = _row_count(rows)
    parts = [
        "One row per device."
        if shown == rows.height
        else f"{count(rows.height)} devices in {shown} rows, about {rows.height / shown:.0f} in each."
    ]
    together = rounds_per_step(results.rounds.height, MOST_COLUMNS)
    if together > 1:
        parts.append(f"A column is {together} rounds.")
    if 0 < marks.height <= MOST_MARKS:
        whose = "a drift of the device" if shown == rows.height else "the mean time of a drift in the row"
        parts.append(f"Within a class, devices stand in the order of their first drift; a diamond is {whose}.")
    elif marks.height:
        parts.append(f"Its {count(marks.height)} drifts are too many to mark.")
    parts.append("Grey: no sample to predict.")
    return " ".join(parts)
