"""Five devices among a hundred send what they must not: they are refused and named, and the fleet does not notice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from flwr.app import Message, RecordDict

from fedtp.wire import pack_array, unpack_array
from simulations import Run, Scenario, simulate


def nan(records: RecordDict) -> None:
    weights = unpack_array("0", records["weights"]["0"]).copy()
    weights[17] = np.nan
    records["weights"]["0"] = pack_array(weights)


def wrong_shape(records: RecordDict) -> None:
    records["weights"]["2"] = pack_array(unpack_array("2", records["weights"]["2"])[:-1])


def foreign_digest(records: RecordDict) -> None:
    records["report"]["digest"] = "0123456789abcdef" * 2


def negative_count(records: RecordDict) -> None:
    records["metrics"]["examples"] = [-count for count in records["metrics"]["examples"]]


def extra_key(records: RecordDict) -> None:
    records["weights"]["backdoor"] = pack_array(np.ones(3, np.float32))
    records["metrics"]["examples"] = [*records["metrics"]["examples"], 1]


# Node ids, one of each class of the fleet among them.
HOSTILE: dict[int, tuple[Callable[[RecordDict], None], str]] = {
    3: (nan, "not finite"),
    25: (wrong_shape, "shape"),
    40: (foreign_digest, "digest"),
    60: (negative_count, "examples"),
    95: (extra_key, "extra block"),
}


def tamper_with(replies: list[Message]) -> None:
    for reply in replies:
        tamper, _ = HOSTILE.get(reply.metadata.src_node_id, (None, ""))
        if tamper is not None and reply.content["metrics"]["samples"]:
            tamper(reply.content)


@pytest.fixture(scope="module")
def runs(overhear) -> tuple[Run, Run]:
    """The same scenario with five hostile devices, and with all of them honest."""
    scenario = Scenario.load("digits-rotating", ["server.rounds=16", "drift.0.at_seconds=300"])
    return simulate(scenario, executor=overhear(replied=tamper_with)), simulate(scenario)


def test_the_fleet_ends_as_accurate_as_with_all_of_them_honest(runs: tuple[Run, Run]) -> None:
    hostile, honest = runs
    assert honest.summary["updates_refused"] == 0
    assert honest.summary["final_accuracy"] > 0.7
    for accuracy in ("final_accuracy", "prequential_accuracy"):
        assert hostile.summary[accuracy] == pytest.approx(honest.summary[accuracy], abs=0.01)
    assert all(np.isfinite(packed).all() for packed in hostile.weights.values())


def test_each_refusal_is_named(runs: tuple[Run, Run]) -> None:
    hostile, _ = runs
    refused = hostile.devices.filter(pl.col("status") == "refused")
    named = set(refused.select("device", "reason").rows())
    assert named == {(node - 1, reason) for node, (_, reason) in HOSTILE.items()}
    counts = dict(refused.group_by("reason").len().rows())
    assert hostile.summary["refusals"] == counts
    assert hostile.summary["updates_refused"] == sum(counts.values()) == hostile.rounds["refused"].sum()
    assert min(counts.values()) >= 10


def test_nothing_that_a_hostile_device_sent_was_used(runs: tuple[Run, Run]) -> None:
    hostile, _ = runs
    theirs = hostile.devices.filter(pl.col("device").is_in([node - 1 for node in HOSTILE]))
    assert "accepted" not in set(theirs["status"])
    others = hostile.devices.filter(~pl.col("device").is_in([node - 1 for node in HOSTILE]))
    assert "refused" not in set(others["status"])
    assert others.filter(pl.col("status") != "lost")["reason"].is_null().all()


def test_the_fleet_goes_on_where_all_are_hostile(small, overhear) -> None:
    """Then nothing is learnt, and the run still ends."""

    def spoil(replies: list[Message]) -> None:
        for reply in replies:
            nan(reply.content)

    run = simulate(small(), executor=overhear(replied=spoil))
    assert run.summary["updates_refused"] == run.summary["client_rounds"] == 20
    assert run.summary["refusals"] == {"not finite": 20}
    for name, packed in run.learner.initial_weights().items():
        np.testing.assert_array_equal(run.weights[name], packed)
