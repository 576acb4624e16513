"""The folder of a run, read back: what is in it is checked before anyone relies on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
from safetensors import SafetensorError, safe_open

from fedtp.errors import DataError, ScenarioError
from fedtp.report.fleet.results import DEVICES, EVENTS, ROUNDS, conform
from simulations.results import RUNS
from simulations.scenario import Scenario

if TYPE_CHECKING:
    import torch

_SCHEMAS: Mapping[str, Mapping[str, type[pl.DataType]]] = {"rounds": ROUNDS, "devices": DEVICES, "events": EVENTS}


@dataclass(frozen=True)
class RunFolder:
    """What `Run.save` wrote, read when it is asked for.

    Parameters
    ----------
    path
        The folder.

    Raises
    ------
    DataError
        If there is no run; and, from every attribute and method, if what is asked for is damaged.
    """

    path: Path

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise DataError(f"{self.path}: there is no such folder")
        if not self.path.is_dir():
            raise DataError(f"{self.path}: this is a file, and a run is a folder")
        if RUNS.unfinished(self.path):
            command = f"fedtp simulate --resume {self.path}"
            raise DataError(f"{self.path}: this run is not finished: go on with it with `{command}`")
        for mark in RUNS.marks:
            if not (self.path / mark).is_file():
                raise DataError(f"{self.path}: this folder holds no run, for there is no {mark} in it")

    @cached_property
    def scenario(self) -> Scenario:
        """What was run."""
        return scenario_of(self.path)

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        """The figures of the whole run."""
        path = self.path / "summary.json"
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise _damaged(path, error) from None
        if not isinstance(summary, dict):
            raise DataError(f"{path} is damaged: it holds no figures by name")
        for key, expected in (("scenario", self.scenario.name), ("seed", self.scenario.run.seed)):
            if summary.get(key) != expected:
                raise DataError(
                    f"{self.path} is damaged: {key} is {expected!r} in scenario.toml and {summary.get(key)!r} in "
                    "summary.json"
                )
        return summary

    def frame(self, name: Literal["rounds", "devices", "events"]) -> pl.DataFrame:
        """Return one of the run's tables."""
        path = self.path / f"{name}.parquet"
        try:
            frame = pl.read_parquet(path)
            conform(frame, name, _SCHEMAS[name])
        except (OSError, pl.exceptions.PolarsError, DataError) as error:
            raise _damaged(path, error) from None
        if name == "rounds" and frame.height != self.summary.get("rounds"):
            raise DataError(f"{path} is damaged: it has {frame.height} rounds, not {self.summary.get('rounds')}")
        return frame

    def model(self) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """Return the ``state_dict`` of the last global model, and what its file says of it."""
        path = self.path / "model.safetensors"
        try:
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise _damaged(path, error) from None


def scenario_of(folder: Path) -> Scenario:
    """Return the scenario in the folder of a run, finished or not.

    Raises
    ------
    DataError
        If it is damaged.
    """
    path = folder / "scenario.toml"
    try:
        return Scenario.load(path)
    except ScenarioError as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    """Say in one line what is wrong with a file."""
    first, *_ = str(error).splitlines() or [type(error).__name__]
    return DataError(f"{path} is damaged: {first.removeprefix(f'{path}: ')}")
