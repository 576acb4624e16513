"""The folder of a sweep: what was asked for, and the runs that are finished; killed at any moment, it can go on."""

from __future__ import annotations

import fcntl
import json
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedtp.errors import DataError, FedtpError
from fedtp.folder import Results
from fedtp.settings import Path as KeyPath
from fedtp.settings import dotted, literal
from simulations.comparison import Member
from simulations.results import RUNS
from simulations.run_folder import RunFolder
from simulations.sweeps.plan import Plan

MARK = "sweep.json"
SWEEPS = Results("sweep", (MARK,))


@contextmanager
def sweep_folder(folder: Path, plan: Plan, force: bool = False) -> Iterator[Path]:
    """Make a sweep's folder, or take up the one that the same sweep began.

    Parameters
    ----------
    folder
        The folder.
    plan
        What the sweep will run.
    force
        Begin anew, whatever sweep is there.

    Yields
    ------
    Path
        Where the runs belong. Nobody else writes there meanwhile.

    Raises
    ------
    FedtpError
        If another sweep is there, or something else, or one that is going on right now.
    """
    if force or not (folder / MARK).is_file():
        if (folder / MARK).is_file():
            with _alone(folder):
                pass
        with SWEEPS.fresh_folder(folder, force) as fresh:
            (fresh / "runs").mkdir()
            (fresh / MARK).write_text(json.dumps(plan.record(), indent=2) + "\n", encoding="utf-8")
    with _alone(folder):
        _check_same(folder, read_record(folder), plan.record())
        runs = folder / "runs"
        _sweep_up(runs)
        try:
            yield runs
        finally:
            _sweep_up(runs)


def read_record(folder: Path) -> dict[str, Any]:
    """Return what a sweep's folder says that it is: `Plan.record`.

    Raises
    ------
    DataError
        If it is damaged.
    """
    try:
        record = json.loads((folder / MARK).read_text(encoding="utf-8"))
        tomllib.loads(record["scenario"])
        for key, kind in (("vary", dict), ("seeds", list), ("runs", dict)):
            if not isinstance(record[key], kind):
                raise TypeError(f"its {key} are no {kind.__name__}")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{folder / MARK} is damaged: {error}") from None
    return dict(record)


def finished(folder: Path) -> list[Member]:
    """Return the finished runs of a sweep, in the order of their settings, then of their seeds.

    Raises
    ------
    DataError
        If the sweep's folder, or one of its runs, is damaged.
    """
    runs, settings = folder / "runs", read_record(folder)["runs"]
    place = {setting: number for number, setting in enumerate(dict.fromkeys(settings.values()))}
    return [
        Member(setting, name, RunFolder(runs / name))
        for name, setting in sorted(settings.items(), key=lambda item: place[item[1]])
        if all((runs / name / mark).is_file() for mark in RUNS.marks)
    ]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other sweeps out of a folder; the lock is gone with the process, however it ends."""
    try:
        file = (folder / MARK).open()
    except OSError as error:
        raise FedtpError(f"cannot read {folder / MARK}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise FedtpError(f"{folder} is being written by another sweep right now: wait for it, or end it") from None
        yield


def _sweep_up(runs: Path) -> None:
    """Remove what runs left that were killed while they were written."""
    for left in runs.glob(".*"):
        shutil.rmtree(left, ignore_errors=True)


def _check_same(folder: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    if there == here:
        return
    before, now = ({**record, "scenario": tomllib.loads(record["scenario"])} for record in (there, here))
    path, old, new = next(_differences(before, now))
    name = dotted(path[1:] if path[0] == "scenario" else path)
    raise FedtpError(
        f"{folder} holds a sweep with other settings, where {name} is {_said(old)} instead of {_said(new)}: "
        "choose another folder with --out, or begin anew with --force"
    )


def _differences(one: Any, other: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any, Any]]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one | other:
            yield from _differences(one.get(key), other.get(key), (*path, key))
    elif one != other:
        yield path, one, other


def _said(value: object) -> str:
    return "nothing" if value is None else literal(value)
