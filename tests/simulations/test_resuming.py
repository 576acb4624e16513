"""A server, a fleet and a recorder that others go on from, between any two rounds, as if nothing had happened."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from polars.testing import assert_frame_equal

from clients.training import Outcome
from fedtp.blocks import Packed
from fedtp.errors import DataError
from fedtp.streaming.state import Part, State
from server.app import make_server_app, weights_of
from server.round import Round
from simulations.checkpoint import Checkpoint, to_frame
from simulations.errand import COLUMNS, Errand, from_table, to_table
from simulations.executors import InlineExecutor
from simulations.fleet import FleetGrid
from simulations.flower import make_context
from simulations.recorder import Recorder
from simulations.scenario import Scenario
from simulations.virtual_time import Replies
from simulations.world import World

DRIFT = """
[[drift]]
kind = "sudden"
concept = "turned"
at_seconds = 100
"""
# Reports of the microcontrollers take about a minute, and some are lost.
STRAGGLERS = """
[[devices]]
class = "mcu"
count = 4
up_mbps = 0.0006
plan = "whole"
loss_probability = 0.3

[[devices]]
class = "phone-low"
count = 4
availability = "duty-cycle"
on_seconds = 100
off_seconds = 60
dropout_probability = 0.2
"""
BATTERIES = """
[[devices]]
class = "mcu"
count = 4
up_mbps = 0.0012
plan = "whole"
battery_wh = 0.0004
charge_watts = 0.002
idle_watts = 0.012
"""
ROUNDS = 6
BUFFERED = ("server.mode=buffered", "server.interval_seconds=15", "server.buffer_size=7")
DETECTING = ("arrival.rate=2", "learner.lr=0.2", "learner.detector=hddm-w")
SCENARIOS = {
    "synchronous": ("server.deadline_seconds=40", "server.timeout_seconds=130", "server.fraction=0.7"),
    "eager": ("server.interval_seconds=5", "server.over_selection=0.4", "server.quorum=0.6"),
    "buffered": BUFFERED,
    "FedAvgM": (*BUFFERED, "server.strategy=FedAvgM", "server.strategy_options={server_momentum=0.5}"),
    "FedAdam": ("server.strategy=FedAdam", "server.lr=0.5"),
    "gateways": (*BUFFERED, "run.devices_per_node=2"),
    "assignment": (*BUFFERED, "devices.0.plan=assigned", "devices.0.plan_blocks=1", "learner.hidden=[8, 8]"),
    "participation": (*DETECTING, "adaptation.server.reaction=participation", "server.fraction=0.5"),
    "boost": (
        *DETECTING,
        "adaptation.server.reaction=boost",
        "adaptation.server.share=0.05",
        "adaptation.server.rounds=3",
    ),
    "reset": (
        *DETECTING,
        "adaptation.server.reaction=reset",
        "adaptation.server.share=0.05",
        "adaptation.server.rounds=3",
    ),
    "batteries": (),
}


class BreakOffError(Exception):
    """A run breaks off."""


@dataclass
class Run:
    """A run of a scenario's server, fleet and recorder, and what they knew after rounds."""

    scenario: Scenario
    folder: Path
    #: Calls off the run after rounds for which this is true.
    broken: Callable[[int], bool] = lambda number: False
    saved: list[Checkpoint] = field(default_factory=list)
    weights: dict[str, Packed] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.world = World(self.scenario)
        self.executor = InlineExecutor(self.world.device)
        self.recorder, self.grid = self.begin()
        while not self.go_on():
            before = self.grid
            self.recorder, self.grid = self.begin()
            found = Checkpoint.load(self.folder, self.scenario)
            parts = {"recorder": self.recorder, "grid": self.grid}
            Checkpoint(self.scenario, found.round, {name: found.states[name] for name in parts}).restore(parts)
            self.saved.append(found)
            assert_same_devices(self.grid, before)

    def begin(self) -> tuple[Recorder, FleetGrid]:
        recorder = Recorder(self.world)
        return recorder, FleetGrid(
            self.world.fleet,
            self.executor,
            seed=self.scenario.run.seed,
            devices_per_node=self.scenario.run.devices_per_node,
            patience_seconds=self.scenario.server.deadline_seconds,
            on_errand=recorder.errand,
        )

    def go_on(self) -> bool:
        """Run from the latest checkpoint, to the end or until a round after which the run breaks off."""
        begun = self.saved[-1].states["server"] if self.saved else None
        with suppress(BreakOffError):
            make_server_app(self.grid.clock, self.ended, begun)(self.grid, make_context(self.world.run_config()))
            return True
        return False

    def ended(self, done: Round) -> None:
        self.recorder.round(done)
        self.weights.update(done.weights)
        if self.broken(done.number):
            states = {"server": done.state(), "grid": self.grid.state(), "recorder": self.recorder.state()}
            Checkpoint(self.scenario, done.number, states).save(self.folder)
            raise BreakOffError


@pytest.fixture(scope="module")
def unbroken(small, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    @cache
    def run(name: str) -> Run:
        fleet = {"batteries": BATTERIES}.get(name, STRAGGLERS)
        scenario = small(f"server.rounds={ROUNDS}", *SCENARIOS[name], toml=DRIFT + fleet)
        return Run(scenario, tmp_path_factory.mktemp("none"))

    return run


def assert_same_devices(found: FleetGrid, expected: FleetGrid) -> None:
    assert vars(found.clock) == vars(expected.clock)
    assert found._sent == expected._sent
    for one, other in ((found.batteries, expected.batteries), (found._luck, expected._luck)):
        for key, value in vars(other).items():
            if key != "_spec":
                np.testing.assert_array_equal(vars(one)[key], value)


def assert_same(found: Run, expected: Run) -> None:
    assert found.recorder.summary() == expected.recorder.summary()
    for name in ("rounds", "devices"):
        assert_frame_equal(getattr(found.recorder, name)(), getattr(expected.recorder, name)())
    assert_frame_equal(found.recorder.events()[0], expected.recorder.events()[0])
    for name, packed in expected.weights.items():
        np.testing.assert_array_equal(found.weights[name], packed)
    assert_same_devices(found.grid, expected.grid)


@pytest.mark.parametrize("number", [1, 4, ROUNDS])
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_run_that_was_broken_off_ends_like_one_that_was_not(unbroken, name: str, number: int, tmp_path: Path) -> None:
    expected = unbroken(name)
    broken = Run(expected.scenario, tmp_path, lambda done: done == number)
    assert [checkpoint.round for checkpoint in broken.saved] == [number]
    assert_same(broken, expected)


@pytest.mark.parametrize("name", ["eager", "buffered", "FedAdam", "reset"])
def test_a_run_may_break_off_after_every_round(unbroken, name: str, tmp_path: Path) -> None:
    expected = unbroken(name)
    broken = Run(expected.scenario, tmp_path, lambda done: True)
    assert [checkpoint.round for checkpoint in broken.saved] == expected.recorder.rounds()["round"].to_list()
    assert len(broken.saved) >= ROUNDS
    assert_same(broken, expected)
    last = weights_of(broken.saved[-1].states["server"])
    assert last.keys() == expected.weights.keys()
    for name, packed in expected.weights.items():
        np.testing.assert_array_equal(last[name], packed)


def test_the_scenarios_of_these_tests_do_what_they_are_meant_to(unbroken) -> None:
    """Else they would prove nothing."""
    for name in ("synchronous", "eager", "buffered", "FedAdam"):
        rounds = unbroken(name).recorder.rounds()
        assert rounds["late"].sum(), name
        assert rounds["lost"].sum(), name
    assert unbroken("eager").recorder.summary()["refusals"].keys() == {"quorum"}
    assert "battery empty" in unbroken("batteries").recorder.devices()["reason"].to_list()
    assert {"0", "2", "4"} <= set(unbroken("assignment").recorder.devices()["blocks"])
    for name in ("participation", "boost", "reset"):
        assert unbroken(name).recorder.rounds()["detections"][:3].sum(), name


def test_a_checkpoint_holds_what_is_on_its_way(unbroken, tmp_path: Path) -> None:
    """Orders, replies, errands and updates that wait, a reaction under way, and moments."""
    (buffered,) = Run(unbroken("buffered").scenario, tmp_path, lambda done: done == 4).saved
    server, grid, recorder = (buffered.states[name] for name in ("server", "grid", "recorder"))
    assert server.record["dispatcher"]["mailbox"]["sent"]
    assert any(server.record["buffers"].values())
    assert len(grid.arrays["replies/sent"]) > 1000
    assert len(to_frame(recorder.arrays["errands"], COLUMNS)) > 0
    (reset,) = Run(unbroken("reset").scenario, tmp_path, lambda done: done == 4).saved
    noted = reset.states["server"].record["strategy"]["reactions"]
    assert noted["began"] == noted["anew"] == 4
    assert noted["drifted"] == [3, 4] or noted["drifted"] == [4, 3]
    (adam,) = Run(unbroken("FedAdam").scenario, tmp_path, lambda done: done == 4).saved
    assert adam.states["server"].arrays["strategy/block 0/v_t"].any()


# --- What is saved, part by part ------------------------------------------------------------------------------------


def test_errands_are_read_back_whatever_came_of_them() -> None:
    labels = np.array([1, 2], np.int64)
    whole = Outcome(labels, labels[::-1].copy(), 1, 0.5, [1], ("0", "2"), 7.5, 90, 1, 2, 3.0, "")
    found = [
        Errand(3, 2, 0.1, 5.0, 1, 2, 0.3, 0.4, 0.5, whole),
        Errand(4, 3, 60.0, math.inf, 1, 0, 0.0, 0.0, math.nan, Outcome(error="broken"), "went off", delivered=False),
    ]
    for one, other in zip(from_table(to_table(found)), found, strict=True):
        for kind in (vars, lambda errand: vars(errand.outcome)):
            for mine, theirs in zip(kind(one).values(), kind(other).values(), strict=True):
                if not isinstance(theirs, Outcome):
                    np.testing.assert_array_equal(mine, theirs)
        assert type(one.outcome.blocks) is tuple
    assert to_table([]).schema == to_table(found).schema == COLUMNS


def test_all_of_an_errand_is_in_its_table() -> None:
    own = [one.name for one in fields(Errand) if one.name != "outcome"]
    assert [*own, *(f"outcome.{one.name}" for one in fields(Outcome))] == list(COLUMNS)


def test_replies_are_read_back_as_flower_sends_them(send) -> None:
    replies, found = Replies(), Replies()
    order = send(RecordDict({"": ConfigRecord({"a": [1.5, math.inf]}), "m": MetricRecord({"loss": math.nan})}), 7)
    replies.put("12", 5.0, Message(order.content, reply_to=order))
    replies.put("9", 5.0, Message(Error(2, "broken"), reply_to=order))
    found.load_state(replies.state())
    assert found.arrivals(["9", "12", "3"]) == [5.0, 5.0]
    assert found.take(["12", "9"], 4.9) == []
    error, whole = found.take(["12", "9"], 5.0)
    assert (error.error.code, error.error.reason) == (2, "broken")
    assert repr(whole.content) == repr(order.content)
    for reply in (error, whole):
        assert reply.metadata.src_node_id == 7
        assert reply.metadata.reply_to_message_id == order.metadata.message_id
    found.load_state(Replies().state())
    assert found.arrivals(["9", "12"]) == []


def test_replies_that_are_not_whole_are_refused() -> None:
    whole = {"ids": np.zeros(1, np.int64), "arrivals": np.zeros(1), "lengths": np.ones(1, np.int64)}
    with pytest.raises(DataError, match="a message cannot be read"):
        Replies().load_state(State({**whole, "sent": np.array([255], np.uint8)}))
    with pytest.raises(DataError, match="are 2 bytes long, not 1"):
        Replies().load_state(State({**whole, "sent": np.zeros(2, np.uint8)}))


def test_what_belongs_to_another_fleet_is_refused(small) -> None:
    def grid(*settings: str) -> FleetGrid:
        world = World(small(*settings))
        return FleetGrid(world.fleet, InlineExecutor(world.device), seed=1)

    state = grid().state()
    with pytest.raises(DataError, match=r"the array 'joules' is float64 \[5\], not float64 \[4\]"):
        grid("devices.0.count=4").load_state(state)
    with pytest.raises(DataError, match="clock is not in both"):
        grid().load_state(State({}, {name: part for name, part in state.record.items() if name != "clock"}))


def test_all_that_a_grid_knows_is_saved(small) -> None:
    """Whoever lets one of these remember more has to save that too, in `state` and `load_state`, and name it here."""
    world = World(small())
    grid = FleetGrid(world.fleet, InlineExecutor(world.device), seed=1)
    constant = {"_fleet", "_executor", "_devices_per_node", "_nodes", "_patience", "_on_errand"}
    assert vars(grid).keys() == constant | {"clock", "batteries", "_luck", "_sent", "_replies"}
    assert vars(grid.clock).keys() == {"_now", "_arrivals"}
    assert vars(grid._replies).keys() == {"_there"}
    assert vars(grid._luck).keys() == {"_key"} | {"orders"}
    assert vars(grid.batteries).keys() == {"_spec", "_limited"} | {"_now", "joules", "charged", "spent", "_off"}
    for part in (grid, grid.clock, grid._replies, grid._luck, grid.batteries):
        assert isinstance(part, Part)
