from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedtp.errors import FedtpError
from fedtp.wire import Order, Report, pack_array, unpack_array
from server.layerwise import LayerwiseStrategy, aggregation_for, weighted_mean
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
    """A grid of which only the nodes are asked."""

    def __init__(self, *nodes: int) -> None:
        self.nodes = nodes

    def get_node_ids(self) -> list[int]:
        return list(self.nodes)


def updates_of(seed: int, size: int, devices: int = DEVICES) -> list[tuple[np.ndarray, int]]:
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=size).astype(np.float32), int(rng.integers(1, 50))) for _ in range(devices)]


def answers(updates: Sequence[dict[str, tuple[np.ndarray, int]]], digest: str) -> list[Message]:
    """What nodes 1, 2, ... report, each about the blocks it trained."""
    replies = []
    for node, blocks in enumerate(updates, 1):
        weights = {name: packed for name, (packed, _) in blocks.items()}
        examples = {name: count for name, (_, count) in blocks.items()}
        samples = max(examples.values(), default=0)
        report = Report(digest, weights, examples, samples=samples, correct=samples // 2)
        order = Message(RecordDict(), dst_node_id=node, message_type="train")
        replies.append(Message(report.to_records(), reply_to=order))
    return replies


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
    ours = LayerwiseStrategy(learner, aggregation_for(name, options))
    theirs = getattr(flower, name)(min_train_nodes=0, min_available_nodes=0, **options)
    for number in range(1, 4):
        trained = {block: updates_of(10 * number + len(block), size) for block, size in sizes.items()}
        counts = [count for _, count in trained["2"]]
        replies = answers(
            [{block: (trained[block][d][0], counts[d]) for block in sizes} for d in range(DEVICES)], learner.digest
        )
        theirs.configure_train(number, ours.arrays(), ConfigRecord(), Nodes())
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
        ours.aggregate_train(number, replies)
        for block in sizes:
            np.testing.assert_allclose(ours.weights[block], expected[block].numpy(), rtol=2e-5, atol=1e-6)
            assert ours.weights[block].dtype == np.float32


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


# --- The strategy ---------------------------------------------------------------------------------------------------


@pytest.fixture
def strategy(make_learner) -> LayerwiseStrategy:
    return LayerwiseStrategy(make_learner())


def partial(strategy: LayerwiseStrategy, seed: int = 0) -> list[dict[str, tuple[np.ndarray, int]]]:
    rng = np.random.default_rng(seed)
    return [
        {
            name: (rng.normal(size=size).astype(np.float32), int(rng.integers(1, 40)))
            for name, size in strategy.learner.sizes.items()
            if rng.random() < 0.5
        }
        for _ in range(12)
    ]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000))
def test_each_block_is_averaged_over_those_who_trained_it(make_learner, seed: int) -> None:
    strategy = LayerwiseStrategy(make_learner())
    before, updates = dict(strategy.weights), partial(strategy, seed)
    strategy.aggregate_train(1, answers(updates, strategy.learner.digest))
    for name in strategy.learner.sizes:
        trained = [device[name] for device in updates if name in device]
        if trained:
            expected = np.average([w for w, _ in trained], axis=0, weights=[n for _, n in trained])
            np.testing.assert_allclose(strategy.weights[name], expected, rtol=1e-4, atol=1e-6)
        else:
            np.testing.assert_array_equal(strategy.weights[name], before[name])


@pytest.mark.parametrize("name", ["mean", *STRATEGIES])
def test_the_order_of_replies_does_not_matter(make_learner, name: str) -> None:
    learner = make_learner()
    results = []
    for seed in range(4):
        strategy = LayerwiseStrategy(learner, aggregation_for(name, OPTIONS.get(name, {})))
        replies = answers(partial(strategy), learner.digest)
        random.Random(seed).shuffle(replies)
        strategy.aggregate_train(1, replies)
        results.append(strategy.weights)
    for other in results[1:]:
        for block in learner.sizes:
            np.testing.assert_array_equal(other[block], results[0][block])


def test_blocks_that_nobody_trained_keep_their_weights(strategy: LayerwiseStrategy) -> None:
    before = dict(strategy.weights)
    update = {"2": (np.zeros(strategy.learner.sizes["2"], np.float32), 5)}
    arrays, _ = strategy.aggregate_train(1, answers([update, {}], strategy.learner.digest))
    np.testing.assert_array_equal(unpack_array("0", arrays["0"]), before["0"])
    assert not unpack_array("2", arrays["2"]).any()
    assert [strategy.verdicts[node].status for node in (1, 2)] == ["accepted", "empty"]


def test_without_replies_nothing_changes(strategy: LayerwiseStrategy) -> None:
    before = dict(strategy.weights)
    _, metrics = strategy.aggregate_train(1, [])
    assert metrics is None
    assert strategy.verdicts == {}
    assert strategy.weights == before


def test_a_refused_update_counts_for_nothing(strategy: LayerwiseStrategy) -> None:
    updates = partial(strategy)
    replies = answers(updates, strategy.learner.digest)
    hostile = answers([{}] * 12 + [{"0": (np.full(strategy.learner.sizes["0"], np.nan, np.float32), 9)}], "foreign")
    other = LayerwiseStrategy(strategy.learner)
    other.aggregate_train(1, replies)
    _, metrics = strategy.aggregate_train(1, [hostile[12], *replies])
    for name in strategy.weights:
        np.testing.assert_array_equal(strategy.weights[name], other.weights[name])
    verdict = strategy.verdicts[13]
    assert (verdict.status, verdict.reason, verdict.report) == ("refused", "digest", None)
    assert "foreign" in verdict.detail
    assert metrics["samples"] == sum(max((n for _, n in device.values()), default=0) for device in updates)


def test_only_the_first_of_two_answers_of_a_node_counts(strategy: LayerwiseStrategy) -> None:
    size = strategy.learner.sizes["2"]
    first, second = ({"2": (np.full(size, value, np.float32), 1000)} for value in (1.0, 9.0))
    digest = strategy.learner.digest
    strategy.aggregate_train(1, [*answers([first], digest), *answers([second], digest)])
    assert strategy.weights["2"].tolist() == [1.0] * size
    assert len(strategy.verdicts) == 1


def test_verdicts_are_those_of_the_latest_round(strategy: LayerwiseStrategy) -> None:
    strategy.aggregate_train(1, answers([{}, {}], strategy.learner.digest))
    strategy.aggregate_train(2, answers([{}], "foreign"))
    assert {node: verdict.status for node, verdict in strategy.verdicts.items()} == {1: "refused"}


def test_an_error_is_refused_by_its_reason(strategy: LayerwiseStrategy) -> None:
    order = Message(RecordDict(), dst_node_id=4, message_type="train")
    strategy.aggregate_train(1, [Message(Error(2, "no memory"), reply_to=order)])
    assert strategy.verdicts[4].reason == "device error"
    assert "no memory" in strategy.verdicts[4].detail


# --- Orders ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def order_nodes(make_learner) -> Callable[..., list[Message]]:
    def make(nodes: Sequence[int], fraction: float = 1.0, number: int = 1, seed: int = 0, busy: Sequence[int] = ()):
        strategy = LayerwiseStrategy(make_learner(), fraction=fraction, seed=seed)
        config = ConfigRecord({"now": 60.0, "busy": list(busy)})
        return list(strategy.configure_train(number, strategy.arrays(), config, Nodes(*nodes)))

    return make


def targets(messages: Sequence[Message]) -> list[int]:
    return [message.metadata.dst_node_id for message in messages]


def test_an_order_holds_all_that_a_device_needs(order_nodes, make_learner) -> None:
    (message,) = order_nodes([5], number=3)
    order = Order.from_records(message.content)
    learner = make_learner()
    assert (order.round, order.now, order.digest, order.blocks) == (3, 60.0, learner.digest, ("0", "2"))
    for name, packed in learner.initial_weights().items():
        np.testing.assert_array_equal(order.weights[name], packed)


def test_all_nodes_get_an_order_but_those_that_owe_an_answer(order_nodes) -> None:
    assert targets(order_nodes([4, 2, 9, 7], busy=[9, 1])) == [2, 4, 7]


@pytest.mark.parametrize(("fraction", "count"), [(0.01, 1), (0.25, 5), (0.99, 20), (1.0, 20)])
def test_a_fraction_of_the_nodes_gets_an_order(order_nodes, fraction: float, count: int) -> None:
    chosen = targets(order_nodes(range(1, 21), fraction))
    assert len(chosen) == len(set(chosen)) == count


def test_the_choice_follows_from_seed_and_round(order_nodes) -> None:
    nodes = range(1, 101)
    first = targets(order_nodes(nodes, 0.2))
    assert first == targets(order_nodes(reversed(nodes), 0.2))
    assert first != targets(order_nodes(nodes, 0.2, number=2))
    assert first != targets(order_nodes(nodes, 0.2, seed=1))


def test_no_nodes_no_orders(order_nodes) -> None:
    assert order_nodes([]) == order_nodes([], 0.1) == order_nodes([3], busy=[3]) == []


def test_node_ids_may_have_64_bits(order_nodes) -> None:
    nodes = [2**64 - 1, 2**63, 5, 2**63 + 12345]
    assert targets(order_nodes(nodes)) == sorted(nodes)
    assert targets(order_nodes(nodes, busy=nodes[:2])) == [5, 2**63 + 12345]
    assert set(targets(order_nodes(nodes, 0.5))) < set(nodes)


def test_it_orders_no_evaluation(strategy: LayerwiseStrategy) -> None:
    assert list(strategy.configure_evaluate(1, strategy.arrays(), ConfigRecord(), Nodes(1))) == []
    assert strategy.aggregate_evaluate(1, []) is None
