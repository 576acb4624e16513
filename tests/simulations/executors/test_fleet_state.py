"""The devices of any executor go on where those of another were, and their state is a few arrays."""

from __future__ import annotations

import json

import numpy as np
import pytest
from polars.testing import assert_frame_equal

from fedtp.errors import DataError
from fedtp.streaming.state import State
from simulations import simulate
from simulations.executors import executor_for
from simulations.executors.fleet_state import stacked, unstacked
from simulations.world import World

KNOWING = (
    "learner.momentum=0.5",
    "arrival.label_delay_seconds=50",
    "adaptation.policy=window-retrain",
    "partition.quantity_sigma=1.0",
    "partition.kind=dirichlet",
)


def states() -> dict[int, State]:
    same = np.arange(3, dtype=np.float32)
    return {
        5: State({"weights/0": same, "inbox/x": np.ones((2, 4), np.float32)}, {"position": 7}),
        2: State({"weights/0": same.copy(), "inbox/x": np.zeros((0, 4), np.float32)}, {"position": 0}),
        9: State({"weights/0": same + 1}, {"position": 1}),
    }


def test_what_was_stacked_is_unstacked() -> None:
    found = unstacked(stacked(states()))
    assert list(found) == [2, 5, 9]
    for number, expected in states().items():
        assert found[number].record == expected.record
        assert found[number].arrays.keys() == expected.arrays.keys()
        for name, array in expected.arrays.items():
            assert found[number].arrays[name].dtype == array.dtype
            np.testing.assert_array_equal(found[number].arrays[name], array)
    assert found[2].arrays["weights/0"] is found[5].arrays["weights/0"]


def test_what_is_equal_is_there_once_and_the_header_stays_small() -> None:
    whole = stacked({n: State({"weights/0": np.full(8, n // 500, np.float32)}, {"n": n}) for n in range(1000)})
    assert whole.arrays["values/weights/0"].shape == (16,)
    assert len(whole.arrays) == 5
    assert len(json.dumps(whole.record)) < 100
    assert unstacked(whole)[999].record == {"n": 999}


def test_no_device_is_a_state_too() -> None:
    assert unstacked(stacked({})) == {}


@pytest.mark.parametrize("name", ["devices/records", "which/weights/0", "lengths/inbox/x"])
def test_what_is_no_state_of_devices_is_refused(name: str) -> None:
    whole = stacked(states())
    for arrays in (
        {key: array for key, array in whole.arrays.items() if key != name},
        {**whole.arrays, name: np.full(2, 77)},
    ):
        with pytest.raises(DataError, match="they are not the states of devices"):
            unstacked(State(arrays, whole.record))


class Relay:
    """An executor that after the third report hands all that its devices know to a new one."""

    def __init__(self, world) -> None:
        self._world, self._executor, self._reports = world, executor_for(world), 0

    def learn(self, messages, devices):
        return self._executor.learn(messages, devices)

    def report(self, messages, devices):
        replies = self._executor.report(messages, devices)
        self._reports += 1
        if self._reports == 3:
            old, self._executor = self._executor, executor_for(self._world)
            self._executor.load_state(old.state())
            old.close()
        return replies

    def close(self) -> None:
        self._executor.close()


@pytest.mark.parametrize(
    ("settings", "detector"),
    [
        ((), "adwin"),
        (("learner.readout=learnt",), "ddm"),
        pytest.param(("run.processes=2", "run.devices_per_node=2"), "hddm-w", marks=pytest.mark.slow),
    ],
)
def test_a_run_is_the_same_whoever_goes_on_with_it(small, settings: tuple[str, ...], detector: str) -> None:
    scenario = small("server.rounds=5", *KNOWING, *settings, f"learner.detector={detector}")
    expected, found = simulate(scenario), simulate(scenario, executor=Relay)
    assert {**found.summary, "wall_seconds": 0} == {**expected.summary, "wall_seconds": 0}
    for name in ("rounds", "devices", "events"):
        assert_frame_equal(getattr(found, name), getattr(expected, name))
    for name, packed in expected.weights.items():
        np.testing.assert_array_equal(found.weights[name], packed)


def test_a_device_that_refuses_leaves_all_as_they_were(small) -> None:
    world = World(small())
    executor = executor_for(world)
    state = stacked({0: world.device(0).state(), 1: State({}, {})})
    with pytest.raises(DataError, match="of a device the"):
        executor.load_state(state)
    assert unstacked(executor.state()) == {}
