"""A federation's folder, made anew for every test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from fedtp.data.schema import Schema
from fedtp.federation import FOLDER_VARIABLE
from fedtp.learner_spec import LearnerSpec
from server.federation import app as module
from server.federation.folder import LEARN, ServerFolder, make_federation
from server.federation.spec import FederationSpec
from server.settings import ServerSpec

A, B = 101, 102
SPEC = FederationSpec(
    title="Two boards",
    data=Schema(features=("a", "b", "c"), label="y", classes=("no", "yes")),
    learner=LearnerSpec(hidden=(4,)),
    server=ServerSpec(rounds=3, round_seconds=1.0),
)


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    return make_federation(tmp_path / "federation", SPEC, ["one", "two"])


@pytest.fixture
def learn(folder: ServerFolder, make_grid, monkeypatch) -> Callable[..., None]:
    """Run the app in a time of the test's own, on nodes that answer after a second."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder.path))
    folder.write_wish(LEARN)
    folder.write_names({str(A): "one", str(B): "two"})

    def run(**settings: object) -> None:
        config = {**folder.spec().run_config(), **settings}
        grid = make_grid({A: lambda _: 0.0, B: lambda _: 0.0})

        def clock(poll_seconds: float = 0.2, begun: float = 0.0):
            grid.clock.time = max(grid.clock.time, begun)
            return grid.clock

        monkeypatch.setattr(module, "SystemClock", clock)
        module.app(grid, Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config))

    return run
