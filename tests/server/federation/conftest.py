"""A federation's folder, made anew for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedtp.data.schema import Schema
from fedtp.learner_spec import LearnerSpec
from server.federation.folder import ServerFolder, make_federation
from server.federation.spec import FederationSpec
from server.settings import ServerSpec

SPEC = FederationSpec(
    title="Two boards",
    data=Schema(features=("a", "b", "c"), label="y", classes=("no", "yes")),
    learner=LearnerSpec(hidden=(4,)),
    server=ServerSpec(rounds=3, round_seconds=1.0),
)


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    return make_federation(tmp_path / "federation", SPEC, ["one", "two"])
