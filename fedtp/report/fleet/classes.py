"""What the device classes have in common and what sets them apart: accuracy, time per order, cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import polars as pl

from fedtp.report.fleet.drifts import delays
from fedtp.report.fleet.results import FleetResults
from fedtp.report.fleet.timeline import (
    MOST_COLUMNS,
    rounds_per_step,
    share,
    steps,
    trailing_share,
    virtual_time,
    window,
)
from fedtp.report.page import Note, Panel, Part, Table
from fedtp.report.plots import axis, colour, dash, figure, plain
from fedtp.report.units import MISSING, count, data_size, duration, energy, percent

# Seconds.
_TICKS = (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1, 10, 60, 600, 3_600, 36_000, 86_400, 864_000)


def class_accuracy_part(results: FleetResults) -> Part:
    """Show accuracy over virtual time, a line per device class."""
    title = "Accuracy by device class"
    if not results.devices["samples"].sum():
        return Note(title, "No sample was seen.")
    grid = steps(results.rounds, MOST_COLUMNS)
    times = grid.unique("step", keep="first", maintain_order=True)
    scale = virtual_time(results)
    x = scale(times["step_seconds"]).astype("f4")
    samples = int(results.devices["samples"].sum())
    length = window(times.height, samples / len(results.classes))
    sums = (
        results.devices.join(grid.select("round", "step"), on="round")
        .group_by("device_class", "step")
        .agg(pl.col("samples", "correct").sum())
    )
    traces = []
    for index, name in enumerate(results.classes):
        of_class = times.select("step").join(
            sums.filter(pl.col("device_class") == name), on="step", how="left", maintain_order="left"
        )
        traces.append(
            go.Scatter(
                x=x,
                y=trailing_share(of_class["correct"].fill_null(0), of_class["samples"].fill_null(0), length).astype(
                    "f4"
                ),
                name=plain(name),
                mode="lines" if times.height > 1 else "markers",
                cliponaxis=False,
                line={"color": colour(index), "dash": dash(index), "width": 2},
                hovertemplate="%{y:.1%}",
            )
        )
    spoken = ", ".join(
        f"{row['device_class']} {percent(row['accuracy'])}" for row in _table(results).iter_rows(named=True)
    )
    rounds = length * rounds_per_step(results.rounds.height, MOST_COLUMNS)
    return Panel(
        title=title,
        views={
            "": figure(
                traces,
                hovermode="x unified",
                showlegend=True,
                xaxis=axis(scale.title, range=scale.range, unifiedhovertitle={"text": scale.hover}),
                yaxis=axis("accuracy", tickformat=".0%", autorangeoptions={"clipmin": 0, "clipmax": 1}),
            )
        },
        alt=f"Line chart of accuracy over virtual time for each device class. Over the whole run: {spoken}.",
        caption=f"Over the last {rounds} rounds." if rounds > 1 else "",
    )


def class_time_part(results: FleetResults) -> Part:
    """Show the time from an order to its reply per device class: computing and transfer."""
    title = "Time per order"
    worked = pl.col("compute_seconds") + pl.col("transfer_seconds")
    times = (
        results.devices.filter(pl.col("status") != "empty", worked > 0)
        .group_by("device_class")
        .agg(
            pl.col("device").min(),
            pl.col("compute_seconds", "transfer_seconds").mean(),
            mean=worked.mean(),
            slow=worked.quantile(0.95),
        )
        .sort("device")
    )
    if not times.height:
        return Note(title, "No device had work to do.")
    names = [plain(name) for name in times["device_class"]]
    traces = [
        go.Scatter(
            y=names,
            # On a logarithmic axis there is no place for 0: what takes no time is not drawn.
            x=times[column].replace(0.0, None).to_numpy().astype("f4"),
            name=name,
            mode="markers",
            marker={"symbol": symbol, "size": 11, "color": paint},
            cliponaxis=False,
            customdata=[duration(value) for value in times[column]],
            hovertemplate="%{customdata}",
        )
        for column, name, symbol, paint in (
            ("compute_seconds", "computing (mean)", "circle", colour(0)),
            ("transfer_seconds", "transfer (mean)", "square", colour(1)),
            ("slow", "95% take less in all", "line-ns-open", "var(--ink)"),
        )
    ]
    traces[-1].marker.line = {"width": 2.5}
    spoken = ", ".join(f"{name} {duration(mean)}" for name, mean in times.select("device_class", "mean").iter_rows())
    return Panel(
        title=title,
        views={
            "": figure(
                traces,
                hovermode="y unified",
                xaxis=axis("virtual time per order, logarithmic", type="log", **_clock_ticks(traces)),
                yaxis=axis(type="category", range=[times.height - 0.5, -0.5]),
            )
        },
        alt=f"Chart of the mean time per order for each device class: {spoken}.",
        caption="From sending an order to its reply, orders that found no samples left out.",
    )


def _clock_ticks(traces: Sequence[go.Scatter]) -> dict[str, object]:
    """Put the ticks of a logarithmic axis at times that people name."""
    shown = np.concatenate([trace.x for trace in traces])
    low, high = 0.7 * float(np.nanmin(shown)), 1.5 * float(np.nanmax(shown))
    below = [tick for tick in _TICKS if tick <= low] or [low]
    above = [tick for tick in _TICKS if tick >= high] or [high]
    return {
        "range": [math.log10(below[-1]), math.log10(above[0])],
        "tickvals": _TICKS,
        "ticktext": [duration(tick) for tick in _TICKS],
    }


def class_table(results: FleetResults) -> Table:
    """List the device classes in numbers."""
    rows = [
        (
            row["device_class"],
            count(row["devices"]),
            count(row["samples"]),
            percent(row["accuracy"]),
            duration(row["time"]),
            data_size(row["bytes"]),
            energy(row["joules"]),
            f"{count(row['detected'])} of {count(row['drifts'])}" if row["drifts"] else MISSING,
            duration(row["delay"]),
        )
        for row in _table(results).iter_rows(named=True)
    ]
    return Table(
        title="Device classes in numbers",
        columns=(
            "class",
            "devices",
            "samples",
            "accuracy",
            "median time per order",
            "data per device",
            "energy per device",
            "drifts detected",
            "median delay",
        ),
        rows=rows,
        wide=True,
    )


def _table(results: FleetResults) -> pl.DataFrame:
    devices = pl.col("device").n_unique()
    drifts = (
        delays(results)
        .group_by("device_class")
        .agg(drifts=pl.len(), detected=pl.col("detected").sum(), delay=pl.col("delay").median())
    )
    time = (pl.col("compute_seconds") + pl.col("transfer_seconds")).filter(pl.col("status") != "empty")
    table = (
        results.devices.group_by("device_class")
        .agg(
            first=pl.col("device").min(),
            devices=devices,
            samples=pl.col("samples").sum(),
            correct=pl.col("correct").sum(),
            time=time.median(),
            bytes=(pl.col("bytes_up") + pl.col("bytes_down")).sum() / devices,
            joules=pl.col("joules").sum() / devices,
        )
        .join(drifts, on="device_class", how="left")
        .sort("first")
    )
    accuracy = share(table["correct"], table["samples"])
    return table.with_columns(accuracy=pl.Series(accuracy, dtype=pl.Float64, nan_to_null=True))
