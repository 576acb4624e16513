"""What the device classes have in common and what sets them apart: accuracy, time per order, cost."""

from __future__ import annotations

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
from fedtp.report.units import MISSING, count, data_size, duration, energy, percent, time_unit


def class_accuracy_part(results: FleetResults) -> Part:
    """Accuracy over virtual time, a line per device class."""
    title = "Accuracy by device class"
    if not results.devices["samples"].sum():
        return Note(title, "No sample was seen.")
    grid = steps(results.rounds, MOST_COLUMNS)
    times = grid.unique("step", keep="first", maintain_order=True)
    scale = virtual_time(results)
    x = scale(times["step_seconds"]).astype("f4")
    length = window(times.height)
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
        samples, correct = of_class["samples"].fill_null(0), of_class["correct"].fill_null(0)
        traces.append(
            go.Scatter(
                x=x,
                y=trailing_share(correct, samples, length).astype("f4"),
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
    """The time of an order, from sending it to the reply, per device class: computing and transfer."""
    times = (
        results.devices.filter(pl.col("status") != "empty")
        .with_columns(total=pl.col("compute_seconds") + pl.col("transfer_seconds"))
        .group_by("device_class")
        .agg(pl.col("compute_seconds", "transfer_seconds").mean(), slow=pl.col("total").quantile(0.95))
    )
    table = pl.DataFrame({"device_class": results.classes}, schema={"device_class": pl.String}).join(
        times, on="device_class", how="left", maintain_order="left"
    )
    table = table.drop_nulls()
    if not table.height:
        return Note("Time per order", "No device had work to do.")
    slowest = table["slow"].max()
    unit = time_unit(float(slowest) if isinstance(slowest, float) else 0.0)
    names = [plain(name) for name in table["device_class"]]
    traces: list[object] = [
        go.Bar(
            y=names,
            x=(table[column] / unit.size).to_numpy().astype("f4"),
            name=name,
            orientation="h",
            marker={"color": paint, "line": {"width": 0}},
            customdata=[duration(value) for value in table[column]],
            hovertemplate="%{customdata}",
        )
        for column, name, paint in (
            ("compute_seconds", "computing (mean)", colour(0)),
            ("transfer_seconds", "transfer (mean)", colour(1)),
        )
    ]
    traces.append(
        go.Scatter(
            y=names,
            x=(table["slow"] / unit.size).to_numpy().astype("f4"),
            name="95% are faster",
            mode="markers",
            marker={"symbol": "diamond", "size": 9, "color": "var(--ink)"},
            customdata=[duration(value) for value in table["slow"]],
            hovertemplate="%{customdata}",
        )
    )
    means = table.with_columns(mean=pl.col("compute_seconds") + pl.col("transfer_seconds"))
    spoken = ", ".join(
        f"{name} {duration(mean)}" for name, mean in means.select("device_class", "mean").iter_rows()
    )
    return Panel(
        title="Time per order",
        views={
            "": figure(
                traces,
                barmode="stack",
                hovermode="y unified",
                bargap=0.35,
                xaxis=axis(f"virtual time per order ({unit.name})", rangemode="tozero"),
                yaxis=axis(autorange="reversed", showgrid=False),
            )
        },
        alt=f"Bar chart of the mean time per order for each device class: {spoken}.",
        caption="From sending an order to its reply, orders that found no samples left out.",
    )


def class_table(results: FleetResults) -> Table:
    """The device classes in numbers."""
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
