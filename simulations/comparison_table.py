"""Runs side by side on a terminal: as many figures as it is wide enough for, the most telling first."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedtp.report.comparison.figures import Figure
from fedtp.report.comparison.results import ComparisonResults
from fedtp.report.figures import signed


def show(results: ComparisonResults, console: Console) -> None:
    """Print the figures of every group and, where there are several, their differences from the first."""
    spread = ", mean over seeds ± half a 95 % confidence interval" if results.repeated else ""
    console.print(f"{escape(results.title)}{spread}", highlight=False)
    _print(results, console, results.groups, lambda group, one: one.text(results.interval(group, one)))
    first, *others = results.groups
    if others:
        paired = ", paired by seed" if results.repeated else ""
        console.print(f"\nagainst {escape(first)}{paired}", highlight=False)
        _print(results, console, others, lambda group, one: signed(results.difference(group, one), one.text))


def _print(results: ComparisonResults, console: Console, groups: list[str], cell: Callable[[str, Figure], str]) -> None:
    shown = results.shown
    table = _table(shown, groups, cell)
    endless = console.options.update(max_width=100_000)
    while len(shown) > 1 and console.measure(table, options=endless).maximum > console.width:
        shown = shown[:-1]
        table = _table(shown, groups, cell)
    console.print(table)


def _table(shown: list[Figure], groups: list[str], cell: Callable[[str, Figure], str]) -> Table:
    table = Table("", box=None, pad_edge=False)
    for one in shown:
        table.add_column(one.label.replace(" ", "\n", 1), justify="right")
    for group in groups:
        table.add_row(escape(group), *(cell(group, one) for one in shown))
    return table
