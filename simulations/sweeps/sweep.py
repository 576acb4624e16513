"""The main job of a sweep: carry out what is not finished yet, then say what all runs say together."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fedtp
from fedtp.errors import DataError
from fedtp.folder import write_whole
from fedtp.report.comparison import ComparisonResults, comparison_report
from fedtp.report.units import count
from simulations.comparison import results as compared
from simulations.sweeps.folder import finished, read_record, sweep_folder
from simulations.sweeps.plan import Plan
from simulations.sweeps.workers import Event, Failed, carry_out


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a sweep found.

    Parameters
    ----------
    folder
        Where it is.
    record
        What it was: `Plan.record`.
    results
        The finished runs side by side; None if there is none.
    failed
        Why runs failed, by their names.
    """

    folder: Path
    record: dict[str, Any]
    results: ComparisonResults | None
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> dict[str, Any]:
        """The figures as ``summary.json`` holds them: of each setting and figure a mean over seeds with its margin."""
        return {
            "vary": self.record["vary"],
            "seeds": self.record["seeds"],
            "version": fedtp.__version__,
            "failed": self.failed,
            "settings": self.results.summary() if self.results else {},
        }

    def save(self) -> Path:
        """Write the tables, the summary and the report beside the runs; return the report's path."""
        report = self.folder / "report.html"
        write_whole(self.folder / "summary.json", json.dumps(self.summary, indent=2) + "\n")
        if self.results is not None:
            self.results.runs.write_parquet(part := self.folder / ".sweep.parquet.new")
            part.replace(self.folder / "sweep.parquet")
            write_whole(self.folder / "sweep.csv", self.results.runs.write_csv())
            write_whole(report, comparison_report(self.results))
        return report

    @classmethod
    def load(cls, folder: Path, failed: dict[str, str] | None = None) -> Sweep:
        """Read what is finished of a sweep.

        Raises
        ------
        DataError
            If there is no sweep, or it is damaged.
        """
        record = read_record(folder)
        members = finished(folder)
        if not members:
            return cls(folder, record, None, failed or {})
        scenario = members[0].folder.scenario
        seeds = record["seeds"]
        facts = {
            "Scenario": scenario.name,
            "Varied": ", ".join(record["vary"]) or "nothing but the seed",
            "Seeds": f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0]),
            "Runs": count(len(members)) + (f" of {len(record['runs'])}" if len(members) < len(record["runs"]) else ""),
            **({"Failed": ", ".join(failed)} if failed else {}),
        }
        found = compared(
            members,
            kind="Sweep",
            title=scenario.title,
            description=scenario.description,
            facts=facts,
            scenario_toml=record["scenario"],
        )
        return cls(folder, record, found, failed or {})


def run_sweep(
    plan: Plan,
    folder: str | Path,
    *,
    jobs: int = 1,
    force: bool = False,
    on_event: Callable[[Event], None] = lambda _: None,
    on_kept: Callable[[Sequence[float]], None] = lambda _: None,
) -> Sweep:
    """Run what is not finished of a sweep, and write what it found.

    Parameters
    ----------
    plan
        What to run.
    folder
        Where to: a new folder, or the one that the same sweep began, which then goes on.
    jobs
        How many runs at a time, each in a process of its own.
    force
        Begin anew, whatever sweep is in the folder.
    on_event
        Is told what happens.
    on_kept
        Is told first how many seconds each of the runs took that are finished already.

    Returns
    -------
    Sweep
        What was found. Runs that failed are named in it; the same sweep in the same folder tries them again.

    Raises
    ------
    FedtpError
        If the folder cannot be used.
    """
    folder = Path(folder)
    failed: dict[str, str] = {}
    with sweep_folder(folder, plan, force) as runs:
        kept = {member.name: member.folder for member in finished(folder)}
        left = [trial for trial in plan.trials if trial.name not in kept]
        for trial in plan.trials:
            if trial.name in kept and kept[trial.name].scenario != trial.scenario:
                raise DataError(f"{kept[trial.name].path} holds a run with other settings: remove it")
        on_kept([float(run.summary.get("wall_seconds") or 0) for run in kept.values()])
        with closing(carry_out(left, runs, jobs)) as events:
            for event in events:
                if isinstance(event, Failed):
                    failed[event.trial.name] = event.reason
                    _note(folder, event)
                on_event(event)
        sweep = Sweep.load(folder, failed)
        sweep.save()
    return sweep


def _note(folder: Path, event: Failed) -> None:
    with (folder / "failures.txt").open("a", encoding="utf-8") as file:
        file.write(f"{event.trial.name}\n{event.detail or event.reason}\n\n")
