"""What the run cost on the network and in energy, over time and by device class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
import polars as pl

from fedtp.report.fleet.results import FleetResults
from fedtp.report.fleet.timeline import MOST_COLUMNS, steps, virtual_time
from fedtp.report.page import Panel
from fedtp.report.plots import axis, colour, dash, figure, plain
from fedtp.report.units import Unit, byte_unit, data_size, energy, joule_unit


@dataclass(frozen=True)
class _Cost:
    """A kind of cost: its name, its columns with their names, the unit and the text of an amount."""

    name: str
    columns: Mapping[str, str]
    unit: Callable[[float], Unit]
    text: Callable[[float], str]


_TRAFFIC = _Cost("traffic", {"bytes_down": "to the devices", "bytes_up": "to the server"}, byte_unit, data_size)
_ENERGY = _Cost("energy", {"joules": "energy"}, joule_unit, energy)


def traffic_panel(results: FleetResults) -> Panel:
    """Show the bytes to and from the devices."""
    down, up = (data_size(float(results.rounds[column].sum())) for column in _TRAFFIC.columns)
    return Panel(
        title="Traffic",
        views=_views(results, _TRAFFIC),
        alt=f"Chart of traffic over virtual time and by device class: {down} to the devices, {up} back.",
        caption="The bytes of the messages between server and devices.",
    )


def energy_panel(results: FleetResults) -> Panel:
    """Show the joules that the devices spent."""
    total = energy(float(results.rounds["joules"].sum()))
    return Panel(
        title="Energy",
        views=_views(results, _ENERGY),
        alt=f"Chart of the energy over virtual time and by device class: {total} in all.",
        caption="What the devices spend on computing and on the radio.",
    )


def _views(results: FleetResults, cost: _Cost) -> dict[str, go.Figure]:
    grid = steps(results.rounds, MOST_COLUMNS)
    sums = (
        results.rounds.join(grid.select("round", "step", "step_seconds"), on="round", maintain_order="left")
        .group_by("step", "step_seconds", maintain_order=True)
        .agg(pl.col(*cost.columns).sum(), rounds=pl.len())
    )
    # Per round also where rounds are taken together, of which the last step may hold fewer.
    means = sums.with_columns(pl.col(*cost.columns) / pl.col("rounds"))
    return {
        "Per round": _over(results, means, cost, "per round"),
        "So far": _over(results, sums.with_columns(pl.col(*cost.columns).cum_sum()), cost, "so far"),
        "Per class": _by_class(results, cost),
    }


def _over(results: FleetResults, sums: pl.DataFrame, cost: _Cost, how: str) -> go.Figure:
    scale = virtual_time(results)
    unit = cost.unit(max((_largest(sums[column]) for column in cost.columns), default=0.0))
    traces = [
        go.Scatter(
            x=scale(sums["step_seconds"]).astype("f4"),
            y=(sums[column] / unit.size).to_numpy().astype("f4"),
            name=name,
            mode="lines" if sums.height > 1 else "markers",
            cliponaxis=False,
            line={"color": colour(index), "dash": dash(index), "width": 2},
            hovertemplate=f"%{{y:.4~g}} {unit.name}",
        )
        for index, (column, name) in enumerate(cost.columns.items())
    ]
    return figure(
        traces,
        hovermode="x unified",
        showlegend=len(traces) > 1,
        xaxis=axis(scale.title, range=scale.range, unifiedhovertitle={"text": scale.hover}),
        yaxis=axis(f"{cost.name} {how} ({unit.name})", rangemode="tozero"),
    )


def _by_class(results: FleetResults, cost: _Cost) -> go.Figure:
    classes = pl.DataFrame({"device_class": results.classes}, schema={"device_class": pl.String})
    sums = results.devices.group_by("device_class").agg(pl.col(*cost.columns).sum(), pl.col("device").n_unique())
    table = classes.join(sums, on="device_class", how="left", maintain_order="left")
    unit = cost.unit(_largest(table.select(pl.sum_horizontal(*cost.columns)).to_series()))
    traces = [
        go.Bar(
            y=[plain(name) for name in table["device_class"]],
            x=(table[column] / unit.size).to_numpy().astype("f4"),
            name=name,
            orientation="h",
            marker={"color": colour(index), "line": {"width": 0}},
            customdata=[cost.text(total / devices) for total, devices in table.select(column, "device").iter_rows()],
            hovertemplate=f"%{{x:.4~g}} {unit.name}, %{{customdata}} per device",
        )
        for index, (column, name) in enumerate(cost.columns.items())
    ]
    return figure(
        traces,
        barmode="stack",
        bargap=0.35,
        hovermode="y unified",
        showlegend=len(traces) > 1,
        xaxis=axis(f"{cost.name} of all devices of a class ({unit.name})", rangemode="tozero"),
        yaxis=axis(autorange="reversed", showgrid=False),
    )


def _largest(amounts: pl.Series) -> float:
    return float(np.max(amounts.to_numpy(), initial=0.0))
