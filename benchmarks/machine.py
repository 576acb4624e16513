"""What every benchmark shares: the machine's description, and results as CSV."""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import torch
from rich.console import Console
from rich.table import Table

#: Where results go, unless the environment variable FEDTP_RESULTS names another folder.
RESULTS = Path(os.environ.get("FEDTP_RESULTS", Path(__file__).parent / "results"))


def machine() -> str:
    """Describe the machine in a line."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores; Python {platform.python_version()}, PyTorch {torch.__version__}"


def show(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows as a table."""
    table = Table(title=title, caption=machine())
    for heading, value in rows[0].items():
        table.add_column(heading, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        table.add_row(*(f"{value:,.4g}" if isinstance(value, float) else f"{value}" for value in row.values()))
    Console(width=150).print(table)


def publish(name: str, title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows as a table, and write them to ``results/NAME.csv`` with the machine beside them."""
    show(title, rows)
    RESULTS.mkdir(parents=True, exist_ok=True)
    pl.DataFrame([{**row, "machine": machine()} for row in rows]).write_csv(RESULTS / f"{name}.csv")


def read_rows(file: Path) -> list[dict[str, str]]:
    """Return the configurations that a file holds; none if it is not there yet."""
    if not file.is_file():
        return []
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def append_row(file: Path, row: Mapping[str, object]) -> None:
    """Write down a configuration that has been measured, so that a benchmark that is broken off can go on after it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = not file.exists()
    with file.open("a", newline="") as text:
        writer = csv.DictWriter(text, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
