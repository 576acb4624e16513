"""The command ``fedtp sweep``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from fedtp.report.units import duration
from simulations.cli import quieten_flower
from simulations.sweeps.plan import Plan
from simulations.sweeps.workers import Advanced, Begun, Event, Failed, Finished


def sweep(
    scenario: Annotated[str, typer.Argument(metavar="NAME_OR_FILE", show_default=False)],
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=A,B,...", help="Take a setting's values in turn. Repeatable: all combinations."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Run everything with so many seeds.")] = 1,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The first of them.", show_default="the scenario's own")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=256, help="Runs at a time, each in a process of its own.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="That each run computes with.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of all runs. Repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.", show_default="runs/sweep-NAME")] = None,
    force: Annotated[bool, typer.Option("--force", help="Begin anew if the folder holds a sweep.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")] = False,
) -> None:
    """Run a scenario with its settings varied, and compare: a table and a report with confidence intervals.

    Whatever interrupts it, the same command goes on where it was; finished runs are kept.
    """
    overrides = [*(settings or []), *([] if threads is None else [f"run.threads={threads}"])]
    plan = Plan.make(scenario, vary or [], seeds=seeds, overrides=overrides, seed=seed)
    folder = out or Path("runs", f"sweep-{plan.scenario.name}")

    quieten_flower()
    from simulations.sweeps.sweep import run_sweep

    with _progress(len(plan.trials), jobs) as bar:
        try:
            done = run_sweep(plan, folder, jobs=jobs, force=force, on_event=bar.show, on_kept=bar.keep)
        except KeyboardInterrupt:
            typer.echo(f"stopped: {bar.done} of {bar.runs} runs are finished; the same command goes on", err=True)
            raise

    console = Console()
    if as_json:
        typer.echo(json.dumps(done.summary, indent=2))
    elif done.results is not None:
        from simulations.comparison_table import show

        show(done.results, console)
        console.print(f"\nreport: {escape(str(folder / 'report.html'))}", soft_wrap=True, highlight=False)
    for name, reason in done.failed.items():
        typer.echo(f"failed: {name}: {reason}", err=True)
    if done.failed:
        typer.echo(f"{len(done.failed)} of {len(plan.trials)} runs failed; see {folder / 'failures.txt'}", err=True)
        raise typer.Exit(1)


class _Bar:
    """How many runs are finished, and when all will be.

    Parameters
    ----------
    runs
        How many there are.
    jobs
        How many go on at a time.
    bar, task
        What is drawn.
    """

    def __init__(self, runs: int, jobs: int, bar: Progress, task: TaskID) -> None:
        self.runs = runs
        self.done = 0
        self._failed = 0
        self._jobs = jobs
        self._bar, self._task = bar, task
        self._seconds: list[float] = []
        self._running: dict[str, tuple[float, float]] = {}

    def keep(self, seconds: Sequence[float]) -> None:
        """Note the runs that are there already, and how long they took."""
        self.done += len(seconds)
        self._seconds += seconds
        self._draw()

    def show(self, event: Event) -> None:
        """Note what has happened."""
        name = event.trial.name
        match event:
            case Begun():
                self._running[name] = time.monotonic(), 0.0
            case Advanced(_, done):
                self._running[name] = self._running[name][0], done
            case Finished(_, seconds):
                del self._running[name]
                self.done += 1
                self._seconds.append(seconds)
            case Failed(_, reason):
                del self._running[name]
                self._failed += 1
                self._bar.console.print(f"failed: {name}: {reason}", markup=False, highlight=False)
        self._draw()

    def left(self) -> float | None:
        """Return the seconds until all is done, as long as runs take what they took so far; None before one knows."""
        now = time.monotonic()
        known = self._seconds or [(now - began) / done for began, done in self._running.values() if done]
        if not known:
            return None
        runs = self.runs - self.done - self._failed - sum(done for _, done in self._running.values())
        return runs * sum(known) / len(known) / max(1, min(self._jobs, self.runs - self.done - self._failed))

    def _draw(self) -> None:
        left = self.left()
        state = "starting" if left is None else f"{duration(round(left))} left"
        failed = f"{self._failed} failed  " if self._failed else ""
        share = self.done + self._failed + sum(done for _, done in self._running.values())
        self._bar.update(self._task, completed=share, runs=f"{self.done}/{self.runs}", state=failed + state)


@contextmanager
def _progress(runs: int, jobs: int) -> Iterator[_Bar]:
    """Show a bar on a terminal's standard error, and nothing where nobody looks."""
    console = Console(stderr=True)
    columns = (
        TextColumn("runs {task.fields[runs]}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.fields[state]}", markup=False),
    )
    with Progress(*columns, console=console, expand=True, disable=not console.is_terminal) as bar:
        yield _Bar(runs, jobs, bar, bar.add_task("", total=runs, runs=f"0/{runs}", state="starting"))
