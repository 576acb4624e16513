"""The commands ``fedtp compare`` and ``fedtp report``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from fedtp.errors import FedtpError
from fedtp.folder import write_whole

if TYPE_CHECKING:
    from simulations.comparison import Member

_PAGE = b"<!DOCTYPE html>"


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", show_default=False)],
    out: Annotated[Path, typer.Option(help="File for the report.")] = Path("runs/comparison.html"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON, and nothing else.")] = False,
) -> None:
    """Set runs side by side: their figures, their accuracy over time, and the settings in which they differ.

    RUN is the folder of a run, or of a sweep. Differences are from the first.
    """
    _check_target(out)
    from simulations.comparison import differing, results

    members = members_of(runs)
    if len({member.group for member in members}) < 2:
        raise FedtpError("there is one run only: name at least two to compare, or a sweep")
    titles = list(dict.fromkeys(member.folder.scenario.title for member in members))
    found = results(
        members,
        kind="Comparison",
        title=titles[0] if len(titles) == 1 else f"{titles[0]}, and {len(titles) - 1} other scenarios",
        description=members[0].folder.scenario.description if len(titles) == 1 else "",
        facts={"Runs": str(len(members)), "First": members[0].group},
        settings=differing(members),
    )

    from fedtp.report.comparison import comparison_report

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FedtpError(f"cannot write {out}: {error.strerror}; choose another place") from None
    write_whole(out, comparison_report(found))
    if as_json:
        typer.echo(json.dumps(found.summary(), indent=2))
        return
    from simulations.comparison_table import show

    console = Console()
    show(found, console)
    console.print(f"\nreport: {escape(str(out))}", soft_wrap=True, highlight=False)


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", show_default=False)],
) -> None:
    """Write the report of a run, or of a sweep, anew from what is saved in its folder."""
    from simulations.sweeps.folder import MARK

    if (run / MARK).is_file():
        from simulations.sweeps.sweep import Sweep

        sweep = Sweep.load(run)
        if sweep.results is None:
            raise FedtpError(f"{run} is a sweep without a finished run: there is nothing to report")
        path = sweep.save()
    else:
        from simulations.run import Run

        path = run / "report.html"
        write_whole(path, Run.load(run).report())
    typer.echo(f"report: {path}")


def members_of(paths: Sequence[Path]) -> list[Member]:
    """Return the runs in these folders, each of a run or a sweep, with names that tell them apart.

    Raises
    ------
    FedtpError
        If a folder is named twice, or holds neither; or a sweep has no finished run.
    """
    from simulations.comparison import Member
    from simulations.run_folder import RunFolder
    from simulations.sweeps.folder import MARK, finished

    whole = [path.resolve() for path in paths]
    if twice := next((path for path, other in zip(paths, whole, strict=True) if whole.count(other) > 1), None):
        raise FedtpError(f"{twice} is named twice: leave one out")
    members: list[Member] = []
    for path, name in zip(paths, _names(whole), strict=True):
        if not (path / MARK).is_file():
            members.append(Member(name, name, RunFolder(path)))
            continue
        runs = finished(path)
        if not runs:
            raise FedtpError(f"{path} is a sweep without a finished run: there is nothing to compare")
        prefix = f"{name}: " if len(paths) > 1 else ""
        members += [Member(prefix + run.group, f"{name}/{run.name}", run.folder) for run in runs]
    return members


def _names(paths: Sequence[Path]) -> list[str]:
    """Return as short an end of every path as tells it from the others."""
    ends = Counter("/".join(path.parts[start:]) for path in paths for start in range(1, len(path.parts)))
    return [
        next(
            (name for start in range(len(path.parts) - 1, 0, -1) if ends[name := "/".join(path.parts[start:])] == 1),
            str(path),
        )
        for path in paths
    ]


def _check_target(path: Path) -> None:
    """Refuse to replace anything but a report, before the work."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_PAGE))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise FedtpError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}; name a file") from None
    if start != _PAGE:
        raise FedtpError(f"cannot write {path}: it holds something that is not a report; choose another file")
