"""Which blocks the devices trained, and the memory that it took them."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl

from fedtp.report.fleet.results import FleetResults
from fedtp.report.fleet.timeline import MOST_COLUMNS, rounds_per_step, steps
from fedtp.report.page import Note, Panel, Part, Table
from fedtp.report.plots import axis, colour, dash, figure, plain
from fedtp.report.units import MISSING, count, data_size, percent


def coverage_part(results: FleetResults) -> Part:
    """Show how many updates the server got of each block, per round and by device class."""
    title = "Updates of each block"
    updates = _updates(results)
    names = _blocks(results, updates)
    if not updates.height:
        return Note(title, "No block was trained.")
    totals = dict(updates.group_by("block").len().iter_rows())
    spoken = ", ".join(f"{count(totals.get(name, 0))} of block {plain(name)}" for name in names)
    together = rounds_per_step(results.rounds.height, MOST_COLUMNS)
    return Panel(
        title=title,
        views={"Per round": _per_round(results, updates, names), "Per class": _per_class(results, updates, names)},
        alt=f"Chart of the updates of each block that the server used, in all: {spoken}.",
        caption=f"In all: {spoken}." + (f" Means over {together} rounds." if together > 1 else ""),
        wide=True,
    )


def memory_table(results: FleetResults) -> Table:
    """List by device class what was trained, and the peak memory beside that of backpropagation."""
    whole = results.number("backprop_peak_bytes")
    worked = results.devices.filter(pl.col("peak_bytes") > 0)
    trained = pl.col("blocks").str.count_matches(r"\S+")
    table = (
        worked.group_by("device_class")
        .agg(
            first=pl.col("device").min(),
            devices=pl.col("device").n_unique(),
            blocks=trained.mean(),
            peak=pl.col("peak_bytes").max(),
        )
        .sort("first")
    )
    return Table(
        title="Memory of training",
        columns=("class", "devices", "blocks per order", "peak memory", "by backpropagation", "share"),
        rows=[
            (
                row["device_class"],
                count(row["devices"]),
                f"{row['blocks']:.2g}",
                data_size(row["peak"]),
                data_size(whole),
                percent(row["peak"] / whole) if whole else MISSING,
            )
            for row in table.iter_rows(named=True)
        ],
        caption="The most that a device of the class needed for an order, and what training the whole network by "
        "backpropagation would need.",
        wide=True,
    )


def _updates(results: FleetResults) -> pl.DataFrame:
    """Return a row for each block of each update that the server used."""
    return (
        results.devices.filter(pl.col("status") == "accepted", pl.col("blocks") != "")
        .select("round", "device_class", block=pl.col("blocks").str.split(" "))
        .explode("block")
    )


def _blocks(results: FleetResults, updates: pl.DataFrame) -> list[str]:
    """Return the names of the blocks, in the order of the network where the summary tells."""
    known = results.summary.get("updates_by_block")
    order = [str(name) for name in known] if isinstance(known, dict) else []
    return order or updates["block"].unique().sort().to_list()


def _per_round(results: FleetResults, updates: pl.DataFrame, names: list[str]) -> go.Figure:
    grid = steps(results.rounds, MOST_COLUMNS)
    means = (
        results.rounds.join(grid.select("round", "step"), on="round")
        .group_by("step")
        .agg(pl.col("round").mean(), rounds=pl.len())
    )
    sums = updates.join(grid.select("round", "step"), on="round").group_by("step", "block").len()
    traces = []
    for index, name in enumerate(names):
        of = means.join(sums.filter(pl.col("block") == name), on="step", how="left").sort("step")
        traces.append(
            go.Scatter(
                x=of["round"].to_numpy().astype("f4"),
                y=(of["len"].fill_null(0) / of["rounds"]).to_numpy().astype("f4"),
                name=plain(name),
                mode="lines" if of.height > 1 else "markers",
                cliponaxis=False,
                line={"color": colour(index), "dash": dash(index), "width": 2},
                hovertemplate="%{y:.3~g}",
            )
        )
    return figure(
        traces,
        hovermode="x unified",
        showlegend=True,
        xaxis=axis("round", unifiedhovertitle={"text": "round %{x:.4~g}"}),
        yaxis=axis("updates per round", rangemode="tozero"),
    )


def _per_class(results: FleetResults, updates: pl.DataFrame, names: list[str]) -> go.Figure:
    totals = updates.group_by("block", "device_class").len()
    traces = []
    for index, device_class in enumerate(results.classes):
        found = dict(totals.filter(pl.col("device_class") == device_class).select("block", "len").iter_rows())
        traces.append(
            go.Bar(
                y=[f"block {plain(name)}" for name in names],
                x=[found.get(name, 0) for name in names],
                name=plain(device_class),
                orientation="h",
                marker={"color": colour(index), "line": {"width": 0}},
                hovertemplate="%{x:,}",
            )
        )
    return figure(
        traces,
        barmode="stack",
        bargap=0.35,
        hovermode="y unified",
        showlegend=True,
        xaxis=axis("updates", rangemode="tozero"),
        yaxis=axis(autorange="reversed", showgrid=False),
    )
