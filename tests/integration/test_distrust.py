"""Two of eight devices are hostile: by robust aggregation and bounds the fleet ends as accurate as an honest one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fedtp.wire import pack_array, unpack_array
from simulations import Run, Scenario, simulate
from simulations.world import World

SETTINGS = [
    "partition.kind=iid",
    "drift=[]",
    "devices=[{class='pi',count=8}]",
    "learner.hidden=[32]",
    "server.rounds=20",
    "server.strategy=FedTrimmedAvg",
    "server.strategy_options={beta=0.25}",
    "trust.norm_bound=4.0",
    "trust.quarantine_after=3",
    "trust.quarantine_rounds=5",
]
HOSTILE = (3, 6)

Tamper = Callable[[RecordDict, dict[str, np.ndarray]], None]


def _changed(records: RecordDict, change: Callable[[str, np.ndarray], np.ndarray]) -> None:
    for name, array in list(records["weights"].items()):
        records["weights"][name] = pack_array(change(name, unpack_array(name, array)))


def nan(records: RecordDict, before: dict[str, np.ndarray]) -> None:
    _changed(records, lambda _, weights: np.full_like(weights, np.nan))


def huge(records: RecordDict, before: dict[str, np.ndarray]) -> None:
    _changed(records, lambda _, weights: 1e6 * weights)


def flipped(records: RecordDict, before: dict[str, np.ndarray]) -> None:
    """What it learnt, the other way."""
    _changed(records, lambda name, weights: 2 * before.get(name, weights) - weights)


def oversized(records: RecordDict, before: dict[str, np.ndarray]) -> None:
    records["weights"]["more"] = pack_array(np.zeros(1_000_000, np.float32))
    records["metrics"]["examples"] = [*records["metrics"]["examples"], 1]


def foreign(records: RecordDict, before: dict[str, np.ndarray]) -> None:
    records["report"]["digest"] = "f" * 32


def malformed(records: RecordDict, before: dict[str, np.ndarray]) -> None:
    records["metrics"] = ConfigRecord({"samples": "many"})


class Replayed:
    """The first report that was sent, again and again."""

    def __init__(self) -> None:
        self._first: dict[str, np.ndarray] = {}

    def __call__(self, records: RecordDict, before: dict[str, np.ndarray]) -> None:
        _changed(records, lambda name, weights: self._first.setdefault(name, weights.copy()))


KINDS: dict[str, tuple[Tamper, str]] = {
    "NaN": (nan, "not finite"),
    "huge weights": (huge, "norm"),
    "sign-flipped": (flipped, ""),
    "replayed": (Replayed(), ""),
    "oversized": (oversized, "extra block"),
    "foreign seed": (foreign, "digest"),
    "malformed records": (malformed, "missing record"),
}


@pytest.fixture(scope="module")
def honest() -> Run:
    return simulate(Scenario.load("digits-rotating", SETTINGS))


def hostile(overhear, tamper: Tamper) -> Run:
    latest: dict[str, np.ndarray] = {}

    def spoil(replies: list[Message]) -> None:
        weights = {}
        for reply in replies:
            if reply.has_error() or not reply.content["metrics"].get("samples"):
                continue
            if reply.metadata.src_node_id not in HOSTILE:
                for name, array in reply.content["weights"].items():
                    weights.setdefault(name, []).append(unpack_array(name, array))
                continue
            tamper(reply.content, latest)
        latest.update({name: np.mean(found, axis=0, dtype=np.float32) for name, found in weights.items()})

    return simulate(Scenario.load("digits-rotating", SETTINGS), executor=overhear(replied=spoil))


@pytest.mark.parametrize("kind", KINDS)
def test_the_fleet_ends_as_accurate_as_an_honest_one(honest: Run, overhear, kind: str) -> None:
    tamper, reason = KINDS[kind]
    run = hostile(overhear, tamper)
    assert honest.summary["final_accuracy"] > 0.85
    assert run.summary["final_accuracy"] > honest.summary["final_accuracy"] - 0.02
    assert set(run.summary["refusals"]) == ({reason} if reason else set(run.summary["refusals"]) & {"norm"})
    if reason:
        # Each is refused three times, rests for five rounds, is refused again, and rests for ten.
        refused = run.devices.filter(run.devices["status"] == "refused")
        assert set(refused["device"]) == {node - 1 for node in HOSTILE}
        assert run.summary["refusals"][reason] <= 2 * 5


def test_devices_with_false_labels_do_not_spoil_the_model(honest: Run) -> None:
    swaps = [[number, 9 - number] for number in range(5)]
    matrix = "".join("1" if number + 1 in HOSTILE else "0" for number in range(8))
    settings = [setting for setting in SETTINGS if setting != "drift=[]"] + [
        "drift=[]",
        f"concepts.false={{kind='label-swap',swaps={swaps}}}",
        f"drift_matrix={{matrix=['{matrix}'],concepts=['upright','false']}}",
    ]
    run = simulate(Scenario.load("digits-rotating", settings))
    # Held-out data of the fleet is false in part too; what counts is the truth.
    world = World(Scenario.load("digits-rotating", SETTINGS))
    accuracy = world.held_out_accuracy(run.weights, world.scenario.duration_seconds)
    assert accuracy > honest.summary["final_accuracy"] - 0.02


def test_an_honest_fleet_under_drift_is_refused_nothing() -> None:
    """The bound follows what all have to learn."""
    bounds = ["trust.norm_bound=20.0", "trust.quarantine_after=3", "server.rounds=30", "drift.0.at_seconds=900"]
    run = simulate(Scenario.load("digits-rotating", bounds))
    assert run.summary["refusals"] == {}
