"""A checkpoint is whole, of this very scenario, and a recorder goes on from it as if nothing had happened."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from safetensors.numpy import save_file

from fedtp.errors import DataError
from fedtp.streaming.state import Part, State
from server.app import Round
from simulations import simulate
from simulations.checkpoint import Checkpoint, from_frame, to_frame
from simulations.errand import Errand
from simulations.recorder import Recorder
from simulations.results import CHECKPOINT
from simulations.world import World

DRIFT = """
[[drift]]
kind = "sudden"
concept = "turned"
at_seconds = 120
"""


def states() -> dict[str, State]:
    return {
        "server": State({"0": np.arange(3, dtype=np.float32)}, {"now": 60.0}),
        "recorder": State({}, {"refusals": {}}),
    }


def test_what_was_saved_is_read(small, tmp_path: Path) -> None:
    Checkpoint(small(), 2, states()).save(tmp_path)
    found = Checkpoint.load(tmp_path, small())
    assert found.round == 2
    assert found.states["server"].record == {"now": 60.0}
    np.testing.assert_array_equal(found.states["server"].arrays["0"], np.arange(3, dtype=np.float32))
    assert found.states["recorder"] == states()["recorder"]
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_the_one_before_stays_until_the_next_is_complete(
    small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Checkpoint(small(), 1, states()).save(tmp_path)

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(DataError, match="No space left on device"):
            Checkpoint(small(), 2, states()).save(tmp_path)
    assert Checkpoint.load(tmp_path, small()).round == 1
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
    Checkpoint(small(), 2, states()).save(tmp_path)
    assert Checkpoint.load(tmp_path, small()).round == 2


def test_what_is_damaged_or_foreign_is_refused(small, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        Checkpoint.load(tmp_path, small())
    Checkpoint(small(), 2, states()).save(tmp_path)
    with pytest.raises(DataError, match="belongs to a run of other settings"):
        Checkpoint.load(tmp_path, small("run.seed=2"))
    whole = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match="is damaged"):
        Checkpoint.load(tmp_path, small())
    save_file({"a": np.zeros(1)}, tmp_path / CHECKPOINT)
    with pytest.raises(DataError, match="holds no checkpoint of a simulation"):
        Checkpoint.load(tmp_path, small())


def test_components_and_states_must_be_the_same(small) -> None:
    world = World(small())
    checkpoint = Checkpoint(small(), 1, {"recorder": State({}), "battery": State({})})
    with pytest.raises(DataError, match="of another version: battery is not in both"):
        checkpoint.restore({"recorder": Recorder(world)})
    with pytest.raises(DataError, match="the checkpoint's recorder cannot be gone on with: a table is missing"):
        Checkpoint(small(), 1, {"recorder": State({})}).restore({"recorder": Recorder(world)})
    whole = Recorder(world).state()
    with pytest.raises(DataError, match="2 of its notes do not fit"):
        Recorder(world).load_state(State(whole.arrays, {**whole.record, "same": "many", "other": 1}))


def test_a_table_with_other_columns_is_refused() -> None:
    with pytest.raises(DataError, match="a table has the columns a, not b"):
        to_frame(from_frame(pl.DataFrame({"a": [1]})), {"b": pl.Int64})


class Broken(Recorder):
    """A recorder that after each round gives all that it knows to a new one, through a file."""

    folder: Path

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.heir: Recorder = Recorder(world)

    def errand(self, errand: Errand) -> None:
        self.heir.errand(errand)

    def round(self, done: Round) -> None:
        self.heir.round(done)
        scenario = self._world.scenario
        Checkpoint(scenario, done.number, {"recorder": self.heir.state()}).save(self.folder)
        self.heir = Recorder(self._world)
        Checkpoint.load(self.folder, scenario).restore({"recorder": self.heir})
        vars(self).update(vars(self.heir))


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["devices=[{class='pi', count=3}, {class='mcu', count=3}]"],
        ["arrival.label_delay_seconds=90", "arrival.buffer=20"],
    ],
)
def test_a_recorder_goes_on_as_if_nothing_had_happened(
    small, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = small("server.rounds=5", "devices.0.loss_probability=0.3", *settings, toml=DRIFT)
    expected = simulate(scenario)
    monkeypatch.setattr(Broken, "folder", tmp_path, raising=False)
    monkeypatch.setattr("simulations.simulation.Recorder", Broken)
    found = simulate(scenario)
    assert {**found.summary, "wall_seconds": 0} == {**expected.summary, "wall_seconds": 0}
    for name in ("rounds", "devices", "events"):
        assert_frame_equal(getattr(found, name), getattr(expected, name))


def test_all_that_a_recorder_knows_is_saved(small) -> None:
    """Whoever lets it remember more has to save that too, in `state` and `load_state`, and then name it here."""
    recorder = Recorder(World(small()))
    tables = {"_rounds", "_devices", "_errands", "_confusion", "_last_label"}
    notes = {"_refusals", "_updates", "_peaks", "_detections", "_same", "_label_delay", "_until"}
    of_the_world = {"_world", "_window", "_drift_times"}
    assert vars(recorder).keys() == tables | notes | of_the_world
    assert isinstance(recorder, Part)
