"""What a worker does with a run that another left unfinished."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from simulations import Run, simulate
from simulations.checkpoints import Checkpoints
from simulations.results import CHECKPOINT
from simulations.sweeps.plan import Plan
from simulations.sweeps.workers import Advanced, Finished, _carry_out


class KilledError(Exception):
    """A worker is killed."""


@pytest.mark.parametrize(("damaged", "first"), [(False, 3), (True, 1)])
def test_it_goes_on_where_that_was_if_it_can(sea: Path, damaged: bool, first: int, tmp_path: Path) -> None:
    (trial,) = Plan.make(sea, overrides=["server.rounds=4", "run.checkpoint_rounds=1"]).trials

    def kill(progress) -> None:
        if progress.round == 2:
            raise KilledError

    with pytest.raises(KilledError):
        simulate(trial.scenario, kill, checkpoints=Checkpoints(tmp_path / trial.name))
    if damaged:
        (tmp_path / trial.name / CHECKPOINT).write_bytes(b"")
    told: list[Advanced] = []
    event = _carry_out(trial, tmp_path, SimpleNamespace(send=told.append))  # type: ignore[arg-type]
    assert isinstance(event, Finished), event
    assert [advanced.done for advanced in told] == [number / 4 for number in range(first, 5)]
    found, expected = Run.load(tmp_path / trial.name).summary, simulate(trial.scenario).summary
    assert {**found, "wall_seconds": 0} == {**expected, "wall_seconds": 0}
