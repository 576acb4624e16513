"""What became of the orders that the server sent, and why updates were refused."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go
import polars as pl

from fedtp.report.fleet.results import FleetResults
from fedtp.report.fleet.timeline import MOST_COLUMNS, rounds_per_step, share, steps
from fedtp.report.page import Note, Panel, Part, Table
from fedtp.report.plots import axis, figure, plain
from fedtp.report.units import count, percent

# In the order in which they are stacked.
OUTCOMES = ("accepted", "empty", "late", "refused", "lost")


def outcome_part(results: FleetResults) -> Part:
    """Show the outcomes of the orders, per round and per device class."""
    totals = {name: int(results.rounds[name].sum()) for name in OUTCOMES}
    spoken = ", ".join(f"{count(number)} {name}" for name, number in totals.items())
    if not sum(totals.values()):
        return Note("Outcomes of orders", "No order was sent.")
    return Panel(
        title="Outcomes of orders",
        views={"Per round": _per_round(results), "Per class": _per_class(results)},
        alt=f"Stacked bar chart of the outcomes of {count(sum(totals.values()))} orders: {spoken}.",
        caption="Empty: no sample had arrived. Late: the reply came after the deadline. Lost: it never came.",
    )


def outcome_table(results: FleetResults) -> Table:
    """List the outcomes in numbers, refusals by their reasons, the most frequent first."""
    totals = {name: int(results.rounds[name].sum()) for name in OUTCOMES}
    orders = sum(totals.values())
    counted = results.summary.get("refusals")
    reasons = dict(counted) if isinstance(counted, Mapping) else {}
    rows = []
    for name, number in totals.items():
        rows.append((name, count(number), percent(number / orders if orders else None)))
        if name == "refused":
            ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
            rows += [
                (f"refused: {reason}", count(times), percent(times / orders if orders else None))
                for reason, times in ordered
            ]
    return Table(
        title="Outcomes in numbers",
        columns=("outcome", "orders", "share"),
        rows=rows,
        caption="The server checks every update before it counts, and names what it refuses.",
    )


def _per_round(results: FleetResults) -> go.Figure:
    grid = (
        results.rounds.join(steps(results.rounds, MOST_COLUMNS).drop("step_seconds"), on="round", maintain_order="left")
        .group_by("step", "step_label", maintain_order=True)
        .agg(pl.col("round").mean(), pl.col(*OUTCOMES).mean())
    )
    together = rounds_per_step(results.rounds.height, MOST_COLUMNS)
    traces = [
        go.Bar(
            x=grid["round"].to_numpy().astype("f4"),
            y=grid[name].to_numpy().astype("f4"),
            width=0.9 * together,
            name=name,
            marker={"color": f"var(--{name})", "line": {"width": 0}},
            hovertemplate="%{y:.3~g}",
        )
        for name in OUTCOMES
        if grid[name].sum()
    ]
    return figure(
        traces,
        barmode="stack",
        hovermode="x unified",
        showlegend=True,
        xaxis=axis("round", unifiedhovertitle={"text": "round %{x:.4~g}"}),
        yaxis=axis("orders per round", rangemode="tozero"),
    )


def _per_class(results: FleetResults) -> go.Figure:
    table = results.devices.group_by("device_class", "status").len()
    names = [plain(name) for name in results.classes]
    totals = [int(table.filter(pl.col("device_class") == name)["len"].sum()) for name in results.classes]
    traces = []
    for status in OUTCOMES:
        found = dict(table.filter(pl.col("status") == status).select("device_class", "len").iter_rows())
        if not found:
            continue
        counts = [found.get(name, 0) for name in results.classes]
        traces.append(
            go.Bar(
                y=names,
                x=share(counts, totals).astype("f4"),
                name=status,
                orientation="h",
                marker={"color": f"var(--{status})", "line": {"width": 0}},
                customdata=counts,
                hovertemplate="%{x:.1%} (%{customdata})",
            )
        )
    return figure(
        traces,
        barmode="stack",
        bargap=0.35,
        hovermode="y unified",
        showlegend=True,
        xaxis=axis("share of orders", tickformat=".0%", dtick=0.25, range=[0, 1.001]),
        yaxis=axis(autorange="reversed", showgrid=False),
    )
