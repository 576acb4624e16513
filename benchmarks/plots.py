"""Pictures of what the other benchmarks measured: results/*.csv drawn as SVG into docs/images.

- accuracy.svg: test accuracy of every method on every task of peers.py, mean and range of the seeds
- accuracy_curves.svg: the same after every epoch, mean of the seeds
- memory.svg: peak memory of a step against depth and sequence length (costs.py)
- step_time.svg: time of a step over tpSGD's (costs.py)
- stream_rates.svg: prequential accuracy against the learning rate (streams.py)

Nothing is measured here. A picture whose results are missing is left out, and so is a method on a task where it has
fewer seeds than the others. The same results give the same files. Needs matplotlib, `pip install -e '.[bench]'`.

    python benchmarks/plots.py
    python benchmarks/plots.py --results FOLDER --images FOLDER
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl
import typer
from machine import read_rows
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from peers import best_lr

ROOT = Path(__file__).parent
Rows = list[dict[str, str]]

#: Okabe and Ito's palette, which colour-blind readers can tell apart; the marker says it again without colour.
STYLES = {
    "tpSGD": ("#0072B2", "o"),
    "tpSGD, label space": ("#0072B2", "o"),
    "tpSGD, label space, learnt readouts": ("#56B4E9", "D"),
    "tpSGD, target space": ("#CC79A7", "p"),
    "backpropagation": ("#000000", "s"),
    "FA": ("#009E73", "v"),
    "DFA": ("#E69F00", "^"),
    "DRTP": ("#D55E00", "X"),
}
#: For methods that the above does not name.
SPARE = (("#7A5C3E", "P"), ("#6B6B6B", "h"), ("#8A7FBF", "<"), ("#A3A500", ">"), ("#5A3D7A", "*"))

SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "fedtp",  # the same element names every time
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "figure.facecolor": "white",  # a white card is legible on a dark page, too
    "savefig.facecolor": "white",
}
WIDTH = 9.0  # inches
PANEL = 2.3
COLUMNS = 3


@dataclass
class Styles:
    """The colour and marker of every method, the same in all pictures."""

    known: dict[str, tuple[str, str]] = field(default_factory=lambda: dict(STYLES))

    def add(self, methods: Iterable[str]) -> None:
        """Give each method that has none a style, in alphabetical order."""
        new = sorted(set(methods) - set(self.known))
        self.known |= dict(zip(new, cycle(SPARE), strict=False))

    def ordered(self, methods: Iterable[str]) -> list[str]:
        """Return methods in the order of the palette."""
        return sorted(set(methods), key=list(self.known).index)

    def line(self, method: str) -> dict[str, Any]:
        """Return what ``Axes.plot`` is told of a method."""
        colour, marker = self.known[method]
        return {"color": colour, "marker": marker}


def panels(count: int, *, columns: int = COLUMNS, height: float = PANEL, top: float = 0.6) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels, with room for a legend above them, `top` inches."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(WIDTH, rows * height + top), layout="constrained")
    whole = figure.get_layout_engine()
    assert whole is not None
    whole.set(rect=(0, 0, 1, 1 - top / (rows * height + top)), h_pad=0.08, w_pad=0.08)  # type: ignore[call-arg]
    axes = [figure.add_subplot(rows, columns, number + 1) for number in range(count)]
    return figure, axes


def per_line(methods: Sequence[str]) -> int:
    """Return how many methods stand side by side in a legend."""
    return 5 if len(methods) <= 5 else 4


def headroom(methods: Sequence[str]) -> float:
    """Return the inches that a legend needs above the panels."""
    return 0.2 + 0.2 * math.ceil(len(methods) / per_line(methods))


def legend(figure: Figure, methods: Sequence[str], styles: Styles, *, lines: bool) -> None:
    """Explain the colours above the panels."""
    handles = [
        Line2D([], [], label=method, linestyle="-" if lines else "none", **styles.line(method)) for method in methods
    ]
    figure.legend(
        handles=handles, loc="upper left", ncols=per_line(methods), frameon=False, columnspacing=1.5, handlelength=1.8
    )


def plain(axis_values: Sequence[float]) -> tuple[FixedLocator, FuncFormatter]:
    """Return ticks at the values that were measured, written without powers of ten."""
    return FixedLocator(list(axis_values)), FuncFormatter(lambda value, _: f"{value:g}")


def tested(rows: Rows) -> dict[str, Rows]:
    """Return the runs that were scored on the test set, by method, of the methods that have all their seeds."""
    runs: dict[str, Rows] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        best = best_lr(rows, method)
        mine = [row for row in rows if row["method"] == method and row["split"] == "test"]
        runs[method] = [row for row in mine if float(row["lr"]) == best]
    seeds = max(map(len, runs.values()), default=0)
    return {method: found for method, found in runs.items() if len(found) == seeds}


def accuracy(tasks: Mapping[str, dict[str, Rows]], styles: Styles) -> Figure:
    """Draw the test accuracy of every method, a panel per task."""
    methods = styles.ordered(method for runs in tasks.values() for method in runs)
    figure, axes = panels(len(tasks), height=0.9 + 0.21 * len(methods), top=0.1)
    for number, (panel, (task, runs)) in enumerate(zip(axes, tasks.items(), strict=True)):
        for place, method in enumerate(methods):
            if method not in runs:
                panel.text(
                    0.02, place, "not measured", transform=panel.get_yaxis_transform(), va="center", color="#777"
                )
                continue
            seeds = [float(row["accuracy"]) for row in runs[method]]
            panel.plot([min(seeds), max(seeds)], [place, place], color=styles.known[method][0])
            panel.plot(mean(seeds), place, linestyle="none", **styles.line(method))
            panel.text(1.02, place, f"{mean(seeds):.1f}", transform=panel.get_yaxis_transform(), va="center")
        panel.set(title=task, ylim=(len(methods) - 0.5, -0.5), yticks=range(len(methods)))
        panel.set_yticklabels(methods if number % COLUMNS == 0 else [])
        panel.margins(x=0.08)
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel.tick_params(axis="y", length=0)
        panel.set_xlabel("test accuracy, %")
    return figure


def accuracy_curves(tasks: Mapping[str, dict[str, Rows]], styles: Styles) -> Figure:
    """Draw the accuracy after every epoch, a panel per task."""
    methods = styles.ordered(method for runs in tasks.values() for method in runs)
    figure, axes = panels(len(tasks), top=headroom(methods))
    for number, (panel, (task, runs)) in enumerate(zip(axes, tasks.items(), strict=True)):
        for method in styles.ordered(runs):
            curves = [[float(value) for value in row["curve"].split()] for row in runs[method]]
            curve = [mean(values) for values in zip(*curves, strict=True)]
            panel.plot(range(1, len(curve) + 1), curve, **styles.line(method))
        panel.set(title=task, xlabel="epoch")
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if number % COLUMNS == 0:
            panel.set_ylabel("test accuracy, %")
    legend(figure, methods, styles, lines=True)
    return figure


def sizes(rows: Rows) -> dict[str, list[tuple[int, str]]]:
    """Return the columns such as "8 layers" and "100 steps": by unit, the numbers and the columns' names."""
    columns: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name in rows[0] if rows else []:
        if found := re.fullmatch(r"(\d+) (\w+)", name):
            columns[found[2]].append((int(found[1]), name))
    return {unit: sorted(numbered) for unit, numbered in columns.items()}


def ratios(rows: Rows) -> dict[str, str]:
    """Return the methods whose time is given over tpSGD's, by the column's name."""
    names = rows[0] if rows else []
    return {name: found[1] for name in names if (found := re.fullmatch(r"(.+) / tpSGD", name))}


def memory(rows: Rows, styles: Styles) -> Figure:
    """Draw peak memory against whatever it was measured against, a panel each."""
    columns = sizes(rows)
    methods = styles.ordered(row["method"] for row in rows)
    figure, axes = panels(len(columns), columns=2, height=2.7, top=headroom(methods))
    labels = {"layers": ("Depth", "hidden layers"), "steps": ("Sequence length", "time steps")}
    for panel, (unit, numbered) in zip(axes, columns.items(), strict=True):
        for place, row in enumerate(sorted(rows, key=lambda row: methods.index(row["method"]))):
            points = [(number, float(row[name])) for number, name in numbered if row[name]]
            # Methods that need the same lie on one another: the later ones are smaller, so that all are seen.
            size = 1 - place / len(rows)
            style = styles.line(row["method"])
            panel.plot(*zip(*points, strict=True), linewidth=1 + 2.5 * size, markersize=4 + 4 * size, **style)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log", base=2)
        title, label = labels.get(unit, (unit.capitalize(), unit))
        panel.set(title=title, xlabel=label)
        locator, formatter = plain([number for number, _ in numbered])
        panel.xaxis.set_major_locator(locator)
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(formatter)
        panel.yaxis.set_major_formatter(formatter)
    axes[0].set_ylabel("peak MiB of a step")
    legend(figure, methods, styles, lines=True)
    return figure


def step_time(rows: Rows, styles: Styles) -> Figure:
    """Draw step times over tpSGD's, a panel per network."""
    columns = ratios(rows)
    networks = list(dict.fromkeys(row["network"] for row in rows))
    methods = styles.ordered(columns.values())
    values = [1.0, *(float(row[name]) for row in rows for name in columns if row[name])]
    lowest, highest = min(values), max(values)
    figure, axes = panels(len(networks), columns=2, height=2.7, top=headroom(methods))
    for panel, network in zip(axes, networks, strict=True):
        measured = [row for row in rows if row["network"] == network]
        for name, method in sorted(columns.items(), key=lambda item: methods.index(item[1])):
            # Side by side, since several methods take about the same time.
            aside = 0.16 * (methods.index(method) - (len(methods) - 1) / 2)
            points = [(place + aside, float(row[name])) for place, row in enumerate(measured) if row[name]]
            panel.plot(*zip(*points, strict=True), linestyle="none", **styles.line(method))
        panel.axhline(1, color=styles.known["tpSGD"][0])
        panel.set_yscale("log", base=2)
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.set(
            title=network,
            xlabel="batch",
            ylim=(lowest / 1.3, highest * 1.3),
            xlim=(-0.5, len(measured) - 0.5),
            xticks=range(len(measured)),
        )
        panel.set_xticklabels([row["batch"] for row in measured])
        panel.grid(visible=False, axis="x")
    axes[0].set_ylabel("time of a step / tpSGD's")
    axes[0].text(
        0.01, 1.02, "tpSGD", transform=axes[0].get_yaxis_transform(), color=styles.known["tpSGD"][0], va="bottom"
    )
    legend(figure, methods, styles, lines=False)
    return figure


def stream_rates(rows: Rows, chosen: Mapping[str, float], styles: Styles) -> Figure:
    """Draw accuracy against the learning rate over the one that was chosen elsewhere, a panel per stream."""
    streams = [name for name in rows[0] if name not in ("method", "lr", "mean", "machine")]
    methods = styles.ordered(row["method"] for row in rows)
    figure, axes = panels(len(streams), columns=2, height=2.7, top=headroom(methods))
    for number, (panel, stream) in enumerate(zip(axes, streams, strict=True)):
        for method in methods:
            points = [(float(r["lr"]) / chosen[method], float(r[stream])) for r in rows if r["method"] == method]
            panel.plot(*zip(*sorted(points), strict=True), **styles.line(method))
        panel.set_xscale("log")
        panel.set(title=stream, xlabel="learning rate / the one chosen on other streams")
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        if number % 2 == 0:
            panel.set_ylabel("prequential accuracy")
    legend(figure, methods, styles, lines=True)
    return figure


def best_rates(rows: Rows) -> dict[str, float]:
    """Return the learning rate with the best mean, by method."""
    ranked = sorted(rows, key=lambda row: float(row["mean"]))
    return {row["method"]: float(row["lr"]) for row in ranked}


def main(results: Path = ROOT / "results", images: Path = ROOT.parent / "docs" / "images") -> None:
    """Draw what there is."""
    peers = {file.stem: tested(read_rows(file)) for file in (results / "peers").glob("*.csv")}
    peers = {task: runs for task, runs in sorted(peers.items()) if runs}
    depth_and_length, times = read_rows(results / "memory.csv"), read_rows(results / "step_time.csv")
    rates, tuning = read_rows(results / "streams_rates.csv"), read_rows(results / "streams_tune.csv")
    styles = Styles()
    styles.add(method for runs in peers.values() for method in runs)
    styles.add(row["method"] for row in depth_and_length)
    styles.add(ratios(times).values())
    images.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(SETTINGS):
        figures = {
            "accuracy": accuracy(peers, styles) if peers else None,
            "accuracy_curves": accuracy_curves(peers, styles) if peers else None,
            "memory": memory(depth_and_length, styles) if sizes(depth_and_length) else None,
            "step_time": step_time(times, styles) if ratios(times) else None,
            "stream_rates": stream_rates(rates, best_rates(tuning), styles) if rates and tuning else None,
        }
        for name, figure in figures.items():
            if figure is not None:
                figure.savefig(images / f"{name}.svg", metadata={"Date": None, "Creator": None})
                print(images / f"{name}.svg")


if __name__ == "__main__":
    typer.run(main)
