"""The commands ``fedtp simulate`` and ``fedtp scenarios``."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from fedtp.errors import FedtpError
from simulations.results import CHECKPOINT, RUNS
from simulations.scenario import Scenario, shipped

if TYPE_CHECKING:
    from simulations.checkpoint import Checkpoint
    from simulations.simulation import Progress as Round

# Nothing leaves the machine, and nothing is installed, because a fleet is simulated.
FLOWER = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}


def scenarios(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the scenarios that are shipped."""
    found = {name: Scenario.load(path) for name, path in shipped().items()}
    if as_json:
        typer.echo(json.dumps([_described(name, scenario) for name, scenario in found.items()], indent=2))
        return
    table = Table("name", "title", box=None, pad_edge=False)
    table.add_column("devices", justify="right")
    table.add_column("rounds", justify="right")
    for name, scenario in found.items():
        table.add_row(name, escape(scenario.title), f"{scenario.device_count:,}", f"{scenario.server.rounds:,}")
    Console().print(table)


def simulate(
    scenario: Annotated[str | None, typer.Argument(metavar="NAME_OR_FILE", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.", show_default="runs/NAME-SEED")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as server.rounds=10. Repeatable."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the scenario's own seed.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="That PyTorch computes with.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="In which the devices learn.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier run in the folder.")] = False,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with the run in this folder, which was stopped.")
    ] = None,
) -> None:
    """Simulate a fleet and write what happened to a folder, with a report to look at.

    NAME_OR_FILE is a scenario that `fedtp scenarios` lists, or a TOML file of your own. A run of more than half a
    minute that is stopped, in whatever way, goes on with --resume and its folder, and ends as if nothing had happened.
    """
    if resume is None:
        if scenario is None:
            raise FedtpError("Missing argument: name a scenario, or with --resume the folder of a run that was stopped")
        asked = {"run.threads": threads, "run.processes": processes}
        overrides = [*(settings or []), *(f"{key}={value}" for key, value in asked.items() if value is not None)]
        chosen, latest = Scenario.load(scenario, overrides, seed), None
        folder = out or Path("runs", f"{chosen.name}-{chosen.run.seed}")
        RUNS.check_target(folder, force)
    else:
        given = {"NAME_OR_FILE": scenario, "--out": out, "--set": settings or None, "--seed": seed}
        given |= {"--threads": threads, "--processes": processes, "--force": force or None}
        if extra := [name for name, value in given.items() if value is not None]:
            raise FedtpError(f"--resume goes on with a run as it was begun: leave out {', '.join(extra)}")
        if not RUNS.unfinished(resume):
            _say_finished(resume, as_json)
            return
        latest, folder = _latest(resume), resume
        chosen = latest.scenario

    quieten_flower()
    with _progress(chosen) as show:
        from simulations.checkpoints import Checkpoints
        from simulations.simulation import simulate as run_scenario

        run = run_scenario(chosen, on_round=show, checkpoints=Checkpoints(folder, force, latest))
    report = run.save(folder, force=force)

    if as_json:
        typer.echo((folder / "summary.json").read_text(encoding="utf-8").rstrip())
        return
    console = Console()
    console.print(_table(chosen.title, run.summary))
    console.print(f"\nreport: {escape(str(report))}", soft_wrap=True, highlight=False)


def _latest(folder: Path) -> Checkpoint:
    """Return the checkpoint of a run that is not finished."""
    from simulations.checkpoint import Checkpoint
    from simulations.run_folder import scenario_of

    return Checkpoint.load(folder, scenario_of(folder))


def _say_finished(folder: Path, as_json: bool) -> None:
    """Say that there is nothing to go on with, if there is a run."""
    from simulations.run_folder import RunFolder

    summary = RunFolder(folder).summary
    if (folder / CHECKPOINT).exists():  # it was killed when all but this was done
        with RUNS.completed(folder):
            pass
    typer.echo(f"{folder} is finished: there is nothing to go on with", err=as_json)
    if as_json:
        typer.echo(json.dumps(summary, indent=2))


def quieten_flower() -> None:
    """Let Flower, which reads them when it is imported, find the settings of `FLOWER`, unless others are there."""
    for variable, value in FLOWER.items():
        os.environ.setdefault(variable, value)


def _described(name: str, scenario: Scenario) -> dict[str, object]:
    return {
        "name": name,
        "title": scenario.title,
        "description": scenario.description,
        "data": scenario.data.name,
        "devices": scenario.device_count,
        "rounds": scenario.server.rounds,
    }


@contextmanager
def _progress(scenario: Scenario) -> Iterator[Callable[[Round], None]]:
    """Show a bar on a terminal's standard error, and nothing where nobody looks."""
    console = Console(stderr=True)
    columns = (
        TextColumn("round {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=console, expand=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=scenario.server.rounds, state="setting up")
        yield lambda round_: bar.update(task, total=round_.rounds, completed=round_.round, state=_state(round_))


def _state(round_: Round) -> str:
    accuracy = "-" if round_.accuracy is None else f"{round_.accuracy:.3f}"
    counts = f"refused {round_.refused}  late {round_.late}  drifts {round_.detections}"
    return f"{_duration(round_.virtual_seconds)}  accuracy {accuracy}  {counts}"


def _table(title: str, summary: Mapping[str, Any]) -> Table:
    table = Table("", "", box=None, show_header=False, pad_edge=False, title=escape(title), title_justify="left")
    for label, text in _lines(summary):
        table.add_row(label, text)
    return table


def _lines(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    def share(key: str) -> str:
        return "-" if summary[key] is None else f"{summary[key]:.4f}"

    yield "readout", summary["readout"] or "-"
    yield "prequential accuracy", share("prequential_accuracy")
    yield "final accuracy", share("final_accuracy")
    yield "kappa", share("kappa")
    yield "drifts detected", f"{summary['drifts_detected']:,} of {summary['drifts_true']:,}"
    yield "false alarms", f"{summary['false_alarms']:,}"
    fates = ("accepted", "refused", "late", "lost")
    yield "updates", ", ".join(f"{summary[f'updates_{fate}']:,} {fate}" for fate in fates)
    for fate in ("dropped", "unlabelled"):
        if summary[f"samples_{fate}"]:
            yield f"samples {fate}", f"{summary[f'samples_{fate}']:,}"
    if summary["label_delay_seconds"]:
        yield "label delay", _duration(summary["label_delay_seconds"])
    yield "bytes up, down", f"{_bytes(summary['bytes_up'])}, {_bytes(summary['bytes_down'])}"
    yield "energy", f"{summary['joules']:,.0f} J"
    yield "virtual time", _duration(summary["virtual_seconds"])
    yield "wall time", f"{summary['wall_seconds']:.1f} s"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _bytes(count: float) -> str:
    if count < 1000:
        return f"{count:.0f} B"
    power = min(int(math.log10(count)) // 3, 3)
    return f"{count / 1000**power:,.1f} {('kB', 'MB', 'GB')[power - 1]}"
