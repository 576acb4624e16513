"""The checkpoints of a run: where they are, and when the next one is due."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fedtp.errors import DataError
from simulations.checkpoint import Checkpoint
from simulations.results import RUNS
from simulations.scenario import Scenario

#: Where a scenario does not say after how many rounds: at most so often, s of the computer's time, and so much of it.
INTERVAL_SECONDS = 30.0
MOST_SHARE = 0.05


class Checkpoints:
    """Where a simulation saves how far it has come, and from where it goes on.

    Parameters
    ----------
    folder
        The run's folder. It is made with the first checkpoint.
    force
        Replace earlier results in it then.
    latest
        The checkpoint in it, from which to go on.

    Attributes
    ----------
    latest
        As given; None once a simulation has gone on from it.
    """

    def __init__(self, folder: str | Path, force: bool = False, latest: Checkpoint | None = None) -> None:
        self.latest = latest
        self._folder = Path(folder)
        self._force = force
        self._begun = latest is not None
        self._saved_at = time.perf_counter()
        self._took = 0.0

    @classmethod
    def of(cls, scenario: Scenario, folder: str | Path) -> Checkpoints:
        """Return those with which to go on with a scenario's run; with which to begin anew, where that cannot be."""
        if RUNS.unfinished(folder):
            with suppress(DataError):
                return cls(folder, latest=Checkpoint.load(Path(folder), scenario))
        return cls(folder, force=True)

    def due(self, round_: int, every: int) -> bool:
        """Whether to save after a round, with `run.checkpoint_rounds`."""
        if every:
            return round_ % every == 0
        return time.perf_counter() - self._saved_at >= max(INTERVAL_SECONDS, self._took / MOST_SHARE)

    def save(self, take: Callable[[], Checkpoint]) -> None:
        """Put a checkpoint into the folder; an earlier one stays until this one is there as a whole.

        Parameters
        ----------
        take
            Makes it.

        Raises
        ------
        FedtpError
            If it cannot be written.
        """
        began = time.perf_counter()
        checkpoint = take()
        if self._begun:
            checkpoint.save(self._folder)
        else:
            with RUNS.fresh_folder(self._folder, self._force) as fresh:
                (fresh / "scenario.toml").write_text(checkpoint.scenario.to_toml(), encoding="utf-8")
                checkpoint.save(fresh)
            self._begun = True
        self._saved_at = time.perf_counter()
        self._took = self._saved_at - began
