"""A server whose disk is full: its whole folder on a small file system."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedtp.data.schema import Schema
from fedtp.learner_spec import LearnerSpec
from fedtp.model_file import load_model
from server.federation import app as module
from server.federation.checkpoints import Checkpoints
from server.federation.folder import ServerFolder, make_federation
from server.federation.journal import Journal
from server.federation.spec import FederationSpec
from server.settings import ServerSpec


@pytest.fixture
def folder(disk: Path) -> ServerFolder:
    spec = FederationSpec(
        data=Schema(features=("a", "b", "c"), label="y", classes=("no", "yes")),
        # So large that a checkpoint does not fit into what is left between two others.
        learner=LearnerSpec(hidden=(4_000,)),
        server=ServerSpec(rounds=6, round_seconds=1.0),
    )
    return make_federation(disk / "federation", spec, ["one", "two"])


def test_rounds_go_on_and_what_was_saved_stays_whole(folder: ServerFolder, learn, fill, monkeypatch) -> None:
    """There is no room in rounds 3 and 4."""
    kept, real = Checkpoints(folder.checkpoints, 5), Journal.round
    fillers: list[Path] = []

    def noted(self: Journal, done, sizes, digest) -> None:
        if done.number > 1:
            latest = kept.latest()
            assert latest is not None
            assert latest.round == {4: 2, 5: 2}.get(done.number, done.number - 1)
            assert load_model(folder.model).round == latest.round
        if done.number == 3:
            fillers.append(fill())
        if done.number == 5:
            fillers.pop().unlink()
        real(self, done, sizes, digest)

    monkeypatch.setattr(module.Journal, "round", noted)
    learn(**{"server.rounds": 6})
    assert folder.status()["state"] == "finished"
    latest = kept.latest()
    assert latest is not None
    assert latest.round == 6
    rounds = [event["round"] for event in map(json.loads, folder.events.read_text().splitlines()) if "orders" in event]
    assert rounds in (
        [1, 2, 5, 6],
        [1, 2, 3, 5, 6],
        [1, 2, 3, 4, 5, 6],
    )  # of the others there may be no room for a line
    assert not list(folder.path.rglob("*.new"))
