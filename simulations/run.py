"""A run: one scenario executed, and its folder of results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from fedtp.blocks import Chain, Packed
from fedtp.errors import DataError
from fedtp.learner import Learner, learner_for
from fedtp.model_file import save_model
from fedtp.report import FleetResults, fleet_report
from simulations.results import RUNS
from simulations.run_folder import RunFolder
from simulations.scenario import Scenario


@dataclass(frozen=True, eq=False)
class Run:
    """What a simulation leaves behind.

    Parameters
    ----------
    scenario
        What was run.
    summary
        The figures of the whole run, as ``summary.json`` holds them.
    rounds, devices, events
        One row per round, per order, and per drift or detection.
    weights
        The last global model, packed by block.
    learner
        The network that the weights belong to.
    """

    scenario: Scenario
    summary: Mapping[str, Any]
    rounds: pl.DataFrame
    devices: pl.DataFrame
    events: pl.DataFrame
    weights: Mapping[str, Packed]
    learner: Learner

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the last global model as an ordinary ``state_dict`` of its ``nn.Sequential``."""
        return dict(self.learner.network(self.weights).state_dict())

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Read the folder that `save` wrote.

        Its weights are those of the network: readouts that travelled with them are not kept.

        Raises
        ------
        DataError
            If it is no such folder, or damaged: one sentence that says what, and where.
        """
        found = RunFolder(Path(folder))
        tensors, told = found.model()
        path = found.path / "model.safetensors"
        shape, classes = told.get("shape", "").split(","), told.get("classes", "")
        if not all(number.isdecimal() for number in (*shape, classes)):
            raise DataError(f"{path} does not say of what shape samples are, and how many classes there are")
        learner = learner_for(found.scenario.learner, tuple(map(int, shape)), int(classes))
        if told.get("digest") != learner.digest:
            raise DataError(f"{path} is damaged: it is not the model of the scenario beside it")
        model = learner.network(learner.initial_weights())
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            raise DataError(f"{path} is damaged: {' '.join(str(error).split())}") from None
        weights = {block.name: block.join(block.parameters).numpy() for block in Chain(model) if not block.frozen}
        rounds, devices, events = (found.frame(name) for name in ("rounds", "devices", "events"))
        return cls(found.scenario, found.summary, rounds, devices, events, weights, learner)

    def report(self) -> str:
        """Return the run's report, a self-contained HTML page."""
        return fleet_report(
            FleetResults(
                title=self.scenario.title,
                description=self.scenario.description,
                summary=self.summary,
                rounds=self.rounds,
                devices=self.devices,
                events=self.events,
                scenario_toml=self.scenario.to_toml(),
            )
        )

    def save(self, folder: str | Path, force: bool = False) -> Path:
        """Write the folder of results, all or nothing.

        Parameters
        ----------
        folder
            Where to; it must not exist yet, or be empty, or hold a checkpoint of this very run, which is then complete.
        force
            Replace what is there.

        Returns
        -------
        Path
            The report's path.

        Raises
        ------
        FedtpError
            If the folder cannot be written, or holds something and `force` is not given.
        """
        folder = Path(folder)
        begun = RUNS.unfinished(folder) and (folder / "scenario.toml").read_text("utf-8") == self.scenario.to_toml()
        with RUNS.completed(folder) if begun else RUNS.fresh_folder(folder, force) as fresh:
            (fresh / "scenario.toml").write_text(self.scenario.to_toml(), encoding="utf-8")
            self.rounds.write_parquet(fresh / "rounds.parquet")
            self.devices.write_parquet(fresh / "devices.parquet")
            self.events.write_parquet(fresh / "events.parquet")
            (fresh / "summary.json").write_text(json.dumps(self.summary, indent=2) + "\n", encoding="utf-8")
            save_model(fresh / "model.safetensors", self.learner, self.weights)
            (fresh / "report.html").write_text(self.report(), encoding="utf-8")
        return folder / "report.html"
