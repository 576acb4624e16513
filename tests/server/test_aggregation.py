from __future__ import annotations

import logging

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedtp.errors import FedtpError
from fedtp.wire import pack_array
from server.aggregation import aggregation_for, weighted_mean
from server.settings import ServerSpec

STRATEGIES = [name for name in ServerSpec.model_fields["strategy"].annotation.__args__ if name != "mean"]
OPTIONS = {
    "FedAvgM": {"server_learning_rate": 0.7, "server_momentum": 0.9},
    "FedAdagrad": {"eta": 0.05, "tau": 0.01},
    "FedAdam": {"eta": 0.05, "beta_1": 0.8, "beta_2": 0.9},
    "FedYogi": {"eta": 0.05},
    "FedTrimmedAvg": {"beta": 0.3},
    "Krum": {"num_malicious_nodes": 1},
    "MultiKrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 3},
    "Bulyan": {"num_malicious_nodes": 1},
}
DEVICES = 9

floats = st.floats(-1e6, 1e6, width=32)


class Nodes:
    """A grid without nodes."""

    def get_node_ids(self) -> list[int]:
        return []


def updates_of(seed: int, size: int, devices: int = DEVICES) -> list[tuple[np.ndarray, int]]:
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=size).astype(np.float32), int(rng.integers(1, 50))) for _ in range(devices)]


# --- The weighted mean ----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.data(), st.integers(1, 20), st.integers(1, 8))
def test_the_mean_is_numpys(data: st.DataObject, size: int, devices: int) -> None:
    weights = data.draw(st.lists(arrays(np.float32, size, elements=floats), min_size=devices, max_size=devices))
    counts = data.draw(st.lists(st.integers(1, 10**9), min_size=devices, max_size=devices))
    mean = weighted_mean(np.zeros(size, np.float32), list(zip(weights, counts, strict=True)))
    exact = np.average(np.array(weights, np.float64), axis=0, weights=np.array(counts, np.float64))
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, exact, rtol=1e-5, atol=1e-6 * max(1.0, np.abs(weights).max()))


@given(arrays(np.float32, 5, elements=floats), st.integers(1, 10**12))
def test_the_mean_of_one_is_that_one(weights: np.ndarray, count: int) -> None:
    np.testing.assert_array_equal(weighted_mean(np.zeros(5, np.float32), [(weights, count)]), weights)


def test_the_mean_leaves_what_it_was_given() -> None:
    current, updates = np.ones(3, np.float32), updates_of(0, 3)
    before = [weights.copy() for weights, _ in updates]
    weighted_mean(current, updates)
    assert current.tolist() == [1, 1, 1]
    for (weights, _), copy in zip(updates, before, strict=True):
        np.testing.assert_array_equal(weights, copy)


# --- Flower's strategies, block by block ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRATEGIES)
def test_each_block_becomes_what_flower_makes_of_the_whole_model(make_learner, name: str) -> None:
    """With full replies, for several rounds: Flower's strategies work number by number, or choose among devices."""
    learner = make_learner()
    # Those that choose devices by their whole model see one block here, so that both choose alike.
    sizes = {"2": learner.sizes["2"]} if name in ("Krum", "MultiKrum", "Bulyan") else learner.sizes
    options = OPTIONS.get(name, {})
    make = aggregation_for(name, options)
    ours = {block: make() for block in learner.sizes}
    weights = learner.initial_weights()
    theirs = getattr(flower, name)(min_train_nodes=0, min_available_nodes=0, **options)
    for number in range(1, 4):
        trained = {block: updates_of(10 * number + len(block), size) for block, size in sizes.items()}
        counts = [count for _, count in trained["2"]]
        current = ArrayRecord({block: pack_array(packed) for block, packed in weights.items()})
        theirs.configure_train(number, current, ConfigRecord(), Nodes())
        whole = [
            RecordDict(
                {
                    "arrays": ArrayRecord({block: pack_array(trained[block][d][0]) for block in sizes}),
                    "metrics": MetricRecord({"num-examples": counts[d]}),
                }
            )
            for d in range(DEVICES)
        ]
        if hasattr(theirs, "current_arrays") and name != "FedAvgM":
            theirs.current_arrays = {block: theirs.current_arrays[block] for block in sizes}
        order = Message(RecordDict(), dst_node_id=1, message_type="train")
        expected, _ = theirs.aggregate_train(number, [Message(content, reply_to=order) for content in whole])
        for block in sizes:
            updates = [(trained[block][d][0], counts[d]) for d in range(DEVICES)]
            weights[block] = ours[block](weights[block], updates)
            np.testing.assert_allclose(weights[block], expected[block].numpy(), rtol=2e-5, atol=1e-6)
            assert weights[block].dtype == np.float32


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("devices", [1, 2, 3, 5])
def test_no_number_of_updates_ends_the_run(name: str, devices: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "flwr")
    aggregate = aggregation_for(name, OPTIONS.get(name, {}))()
    current = np.zeros(4, np.float32)
    for number in range(2):
        new = aggregate(current, updates_of(number, 4, devices))
        assert new.shape == (4,)
        assert np.isfinite(new).all()


def test_bulyan_keeps_the_old_weights_where_updates_are_too_few() -> None:
    current = np.arange(4, dtype=np.float32)
    aggregate = aggregation_for("Bulyan", {"num_malicious_nodes": 1})()
    np.testing.assert_array_equal(aggregate(current, updates_of(0, 4, 6)), current)
    assert not np.array_equal(aggregate(current, updates_of(0, 4, 7)), current)


def test_what_flower_cannot_aggregate_keeps_the_old_weights(caplog: pytest.LogCaptureFixture) -> None:
    aggregate = aggregation_for("FedMedian", {})()
    current = np.zeros(3, np.float32)
    assert aggregate(current, [(np.ones(3, np.float32), 1), (np.ones(2, np.float32), 1)]) is current
    assert "kept the old weights" in caplog.text


@pytest.mark.parametrize("name", ["FedMedian", "FedTrimmedAvg", "Krum", "MultiKrum", "Bulyan"])
def test_robust_strategies_withstand_one_device_that_is_far_off(name: str) -> None:
    updates = updates_of(1, 6)
    updates[4] = (np.full(6, 1e6, np.float32), 1)
    assert np.abs(aggregation_for(name, OPTIONS.get(name, {}))()(np.zeros(6, np.float32), updates)).max() < 5


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("FedSomething", {}, "FedSomething"),
        ("DifferentialPrivacyServerSideFixedClipping", {}, "no such strategy"),
        ("FedXgbBagging", {"trees": 3}, "trees"),
        ("FedMedian", {"beta": 0.1}, "FedMedian has none"),
        ("FedTrimmedAvg", {"betta": 0.1}, "FedTrimmedAvg are beta"),
        ("FedTrimmedAvg", {"beta": 0.7}, "beta"),
        ("FedTrimmedAvg", {"beta": "a lot"}, "strategy_options.beta"),
        ("FedTrimmedAvg", {"beta": True}, "strategy_options.beta"),
        ("Krum", {"num_malicious_nodes": 1.5}, "num_malicious_nodes"),
        ("Bulyan", {"selection_rule": "mine"}, "selection_rule"),
        # It would wait for ever for so many nodes, in the computer's time.
        ("FedAdam", {"min_available_nodes": 3}, "min_available_nodes"),
        ("FedAdam", {"fraction_train": 0.5}, "fraction_train"),
    ],
)
def test_options_that_do_not_fit_are_refused_with_a_sentence(name: str, options: dict, words: str) -> None:
    with pytest.raises(FedtpError, match=words):
        aggregation_for(name, options)


def test_a_whole_number_will_do_where_flower_has_a_fraction() -> None:
    aggregation_for("FedAdam", {"eta": 1})
