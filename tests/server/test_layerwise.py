from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Error, Message
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtp.wire import Report
from server.layerwise import LayerwiseStrategy
from server.mailbox import Sent
from server.settings import ReactionSpec


@pytest.fixture
def strategy(make_learner) -> LayerwiseStrategy:
    return LayerwiseStrategy(make_learner())


def order_one(strategy: LayerwiseStrategy, node: int = 4) -> Sent:
    (sent,) = strategy.orders([node], 1, 60.0)
    return sent


def reply_with(content: Report | Error, send, sent: Sent) -> Message:
    order = send(sent.order, sent.node)
    return Message(content.to_records() if isinstance(content, Report) else content, reply_to=order)


# --- Orders ---------------------------------------------------------------------------------------------------------


def test_an_order_holds_all_that_a_device_needs(strategy: LayerwiseStrategy) -> None:
    sent = strategy.orders([9, 5], 3, 60)
    assert [one.node for one in sent] == [9, 5]
    assert sent[0].order is sent[1].order
    order = sent[0].order
    assert (order.round, order.now, order.digest, order.blocks) == (3, 60.0, strategy.learner.digest, ("0", "2"))
    assert sent[0].key == (9, 60.0)
    for name, packed in strategy.learner.initial_weights().items():
        np.testing.assert_array_equal(order.weights[name], packed)


def test_an_order_stays_as_it_was_sent(strategy: LayerwiseStrategy) -> None:
    sent = order_one(strategy)
    ones = np.ones(strategy.learner.sizes["2"], np.float32)
    strategy.aggregate({"2": [(ones, 5)]})
    np.testing.assert_array_equal(sent.order.weights["2"], strategy.learner.initial_weights()["2"])
    assert sent.versions == {"0": 0, "2": 0}
    assert strategy.versions == {"0": 0, "2": 1}
    assert strategy.version == 0.5


def answered(strategy: LayerwiseStrategy, send, number: int, detections: int) -> Sent:
    (sent,) = strategy.orders([4], number, 60.0 * number)
    weights = {name: np.full(size, 0.5, np.float32) for name, size in strategy.learner.sizes.items()}
    report = Report(strategy.learner.digest, weights, dict.fromkeys(weights, 5), 5, 4, 0.5, detections, 1.0)
    assert strategy.judge(sent, reply_with(report, send, sent)).status == "accepted"
    strategy.aggregate({name: [(packed, 5)] for name, packed in weights.items()})
    return sent


def test_what_devices_report_of_drift_comes_back_in_the_next_order(make_learner, send) -> None:
    spec = ReactionSpec(reaction="boost", factor=3.0, blocks="last")
    strategy = LayerwiseStrategy(make_learner(), reactions=spec)
    paces = [answered(strategy, send, number, detections=1).order.paces for number in (1, 2)]
    assert paces == [(), (1.0, 3.0)]


def test_a_reset_replaces_what_was_averaged(make_learner, send) -> None:
    strategy = LayerwiseStrategy(make_learner(), reactions=ReactionSpec(reaction="reset", blocks="last"))
    answered(strategy, send, 1, detections=1)
    (sent,) = strategy.orders([4], 2, 120.0)
    np.testing.assert_array_equal(sent.order.weights["2"], strategy.learner.initial_weights()["2"])
    assert set(sent.order.weights["0"]) == {np.float32(0.5)}
    assert strategy.versions == {"0": 1, "2": 2}


# --- Verdicts -------------------------------------------------------------------------------------------------------


def test_a_report_is_accepted_with_its_staleness(strategy: LayerwiseStrategy, send) -> None:
    sent = order_one(strategy)
    zeros = {name: np.zeros(size, np.float32) for name, size in strategy.learner.sizes.items()}
    for _ in range(3):
        strategy.aggregate({"2": [(zeros["2"], 5)]})
    report = Report(strategy.learner.digest, zeros, dict.fromkeys(zeros, 4), samples=4)
    verdict = strategy.judge(sent, reply_with(report, send, sent))
    assert (verdict.status, verdict.staleness) == ("accepted", 1.5)
    assert list(verdict.report.weights) == ["0", "2"]


def test_a_device_without_samples_is_not_to_blame(strategy: LayerwiseStrategy, send) -> None:
    sent = order_one(strategy)
    assert strategy.judge(sent, reply_with(Report(strategy.learner.digest), send, sent)).status == "empty"


def test_a_block_that_this_node_was_not_asked_for_is_refused(strategy: LayerwiseStrategy, make_order, send) -> None:
    sent = Sent(4, make_order(strategy.learner, blocks=("0",)), strategy.versions)
    two = {"2": np.zeros(strategy.learner.sizes["2"], np.float32)}
    report = Report(strategy.learner.digest, two, {"2": 4}, samples=4)
    verdict = strategy.judge(sent, reply_with(report, send, sent))
    assert (verdict.status, verdict.reason, verdict.report) == ("refused", "extra block", None)


def test_an_error_is_refused_by_its_reason(strategy: LayerwiseStrategy, send) -> None:
    sent = order_one(strategy)
    verdict = strategy.judge(sent, reply_with(Error(2, "no memory"), send, sent))
    assert (verdict.status, verdict.reason) == ("refused", "device error")
    assert "no memory" in verdict.detail


# --- Aggregation ----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), lr=st.sampled_from([1.0, 0.5, 2.0]))
def test_each_block_goes_its_way_to_the_mean_of_those_who_trained_it(make_learner, seed: int, lr: float) -> None:
    strategy = LayerwiseStrategy(make_learner(), lr=lr)
    rng = np.random.default_rng(seed)
    updates = {
        name: [
            (rng.normal(size=size).astype(np.float32), int(rng.integers(1, 40))) for _ in range(int(rng.integers(0, 6)))
        ]
        for name, size in strategy.learner.sizes.items()
    }
    strategy.aggregate(updates)
    for name, before in strategy.learner.initial_weights().items():
        if updates[name]:
            mean = np.average([w for w, _ in updates[name]], axis=0, weights=[n for _, n in updates[name]])
            np.testing.assert_allclose(strategy.weights[name], before + lr * (mean - before), rtol=1e-4, atol=1e-5)
            assert strategy.weights[name].dtype == np.float32
        else:
            np.testing.assert_array_equal(strategy.weights[name], before)
        assert strategy.versions[name] == bool(updates[name])


def test_without_updates_nothing_changes(strategy: LayerwiseStrategy) -> None:
    before = dict(strategy.weights)
    strategy.aggregate({})
    assert strategy.weights == before
    assert strategy.version == 0
