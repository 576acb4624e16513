"""The command ``fedtp stream``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fedtp.detection import DETECTORS
from fedtp.errors import FedtpError
from fedtp.streaming.studies.catalog import names, open_source
from fedtp.streaming.studies.csv_file import open_csv
from fedtp.streaming.studies.models import DEFAULTS
from fedtp.streaming.studies.result import STUDIES
from fedtp.streaming.studies.source import Source

if TYPE_CHECKING:
    from fedtp.streaming.studies.study import Progress as Step


def stream(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", show_default=False)] = None,
    csv: Annotated[Path | None, typer.Option(help="A CSV file with a header, instead of NAME.")] = None,
    target: Annotated[str | None, typer.Option(help="The column of the CSV file with the label.")] = None,
    text: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Take a column of numbers as text. Repeatable.")
    ] = None,
    drop: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="Leave out a column. Repeatable.")] = None,
    separator: Annotated[str, typer.Option(help="Between the fields of the CSV file.")] = ",",
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="tp, no-change or the import path of a River classifier, with literal arguments in parentheses; "
            "| makes pipelines and NAME=MODEL gives a name. Repeatable.",
            show_default="tp, no-change and a scaled logistic regression",
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Take so many samples.", show_default="all, or 20,000 of a generator")
    ] = None,
    drift_at: Annotated[
        list[int] | None,
        typer.Option(metavar="SAMPLE", help="The first sample, from 0, of a new concept. Repeatable."),
    ] = None,
    label_delay: Annotated[int, typer.Option(min=0, help="Samples predicted before a label is known.")] = 0,
    detector: Annotated[str, typer.Option(help=f"Watches the errors: {', '.join(DETECTORS)}.")] = "adwin",
    detection_window: Annotated[int, typer.Option(min=1, help="Samples in which a drift has to be detected.")] = 1_000,
    seeds: Annotated[int, typer.Option(min=1, help="Repeat with so many seeds.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="The first of them.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.", show_default="runs/stream-NAME")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier study in the folder.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="List the streams and exit.")] = False,
) -> None:
    """Study models side by side on a stream: each sample is predicted, scored and then learnt from.

    NAME is a stream that `fedtp stream --list` shows; a generator takes parameters, such as "sea(variant=3)".
    """
    if listing:
        _list(as_json)
        return
    source = _source(name, csv, target, text or [], drop or [], separator).limited(samples, drift_at)
    folder = out or Path("runs", f"stream-{source.name}")
    STUDIES.check_target(folder, force)

    from fedtp.streaming.studies.study import Study

    study = Study(
        source,
        models or DEFAULTS,
        seeds=range(seed, seed + seeds),
        label_delay=label_delay,
        detector=detector,
        detection_window=detection_window,
    )
    with _progress() as show:
        result = study.run(on_progress=show)
    report = result.save(folder, force=force)

    if as_json:
        typer.echo((folder / "summary.json").read_text(encoding="utf-8").rstrip())
        return
    console = Console()
    console.print(_table(result.summary))
    console.print(f"\nreport: {escape(str(report))}", soft_wrap=True, highlight=False)


def _source(
    name: str | None, csv: Path | None, target: str | None, text: list[str], drop: list[str], separator: str
) -> Source:
    if (name is None) == (csv is None):
        raise FedtpError(
            "name one stream, or a file with --csv FILE --target COLUMN; `fedtp stream --list` shows the names"
        )
    if csv is not None:
        if target is None:
            raise FedtpError(f"which column of {csv} is the label? Name it with --target COLUMN")
        return open_csv(csv, target, text=text, drop=drop, separator=separator)
    if target is not None or text or drop or separator != ",":
        raise FedtpError("--target, --text, --drop and --separator belong to --csv FILE")
    return open_source(str(name))


def _list(as_json: bool) -> None:
    found = names()
    if as_json:
        typer.echo(json.dumps([{"name": name, "title": title} for name, title in found.items()], indent=2))
        return
    table = Table("name", "what it is", box=None, pad_edge=False)
    for name, title in found.items():
        table.add_row(name, escape(title))
    Console().print(table)


@contextmanager
def _progress() -> Iterator[Callable[[Step], None]]:
    """Show a bar on a terminal's standard error, and nothing where nobody looks."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.percentage:3.0f} %"),
        BarColumn(bar_width=None),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}", markup=False),
    )
    with Progress(*columns, console=console, expand=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None, state="setting up")
        yield lambda step: bar.update(
            task,
            total=step.total,
            completed=step.done,
            state=f"{step.model}  seed {step.seed}  accuracy {step.accuracy:.3f}",
        )


# What the terminal shows of each model: the measure, what it is called, its digits and its scale.
_SHOWN = (
    ("accuracy", "accuracy", 4, 1.0),
    ("kappa", "kappa", 4, 1.0),
    ("kappa_t", "kappa_t", 4, 1.0),
    ("recovery_samples", "recovery, samples", 0, 1.0),
    ("area_lost", "area lost, errors", 0, 1.0),
    ("detection_delay", "delay, samples", 0, 1.0),
    ("false_alarms", "false alarms", 1, 1.0),
    ("detections", "detections", 1, 1.0),
    ("reactions", "found by itself", 1, 1.0),
    ("cpu_us_per_sample", "CPU per sample, µs", 1, 1.0),
    ("state_bytes", "state, kB", 1, 1e-3),
)


def _table(summary: Mapping[str, Any]) -> Table:
    """Set the models side by side; what is defined for none of them is left out."""
    title = f"{summary['stream']}: {summary['samples']:,} samples"
    if summary["label_delay"]:
        title += f", labels {summary['label_delay']:,} samples late"
    if len(summary["seeds"]) > 1:
        title += f", mean of {len(summary['seeds'])} seeds ± half a 95 % confidence interval"
    table = Table("", box=None, pad_edge=False, title=escape(title), title_justify="left")
    models = summary["models"]
    for name in models:
        table.add_column(escape(name), justify="right", overflow="fold")
    for measure, label, digits, scale in _SHOWN:
        figures = [figures[measure] for figures in models.values()]
        # Where there were drifts to recover from, no recovery means more than a dash says.
        missing = "never" if measure == "recovery_samples" and summary["drifts"] else "-"
        if missing == "never" or any(figure["mean"] is not None for figure in figures):
            table.add_row(label, *(_cell(figure, digits, scale, missing) for figure in figures))
    return table


def _cell(figure: Mapping[str, Any], digits: int, scale: float, missing: str) -> str:
    if figure["mean"] is None:
        return missing
    margin = f" ± {scale * figure['margin']:,.{digits}f}" if figure["margin"] else ""
    return f"{scale * figure['mean']:,.{digits}f}{margin}"
