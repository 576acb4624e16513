"""Buffered asynchronous aggregation: its arithmetic, and its pace against nodes that answer, dawdle or lie."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from flwr.app import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedtp.wire import Order, Report
from server.aggregation import weighted_mean
from server.app import run_schedule
from server.buffered import Buffers
from server.layerwise import LayerwiseStrategy
from server.round import Round
from server.settings import ServerSpec
from server.verdict import Verdict

NEVER = float("inf")
A, B, C, D = 101, 102, 103, 104

floats = st.floats(-1e3, 1e3, width=32)


def accepted(strategy: LayerwiseStrategy, weights: dict[str, np.ndarray], examples: int = 10) -> Verdict:
    report = Report(strategy.learner.digest, weights, dict.fromkeys(weights, examples), samples=examples)
    return Verdict("accepted", report=report)


def learnt(strategy: LayerwiseStrategy, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=size).astype(np.float32) for name, size in strategy.learner.sizes.items()}


# --- The arithmetic -------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(data=st.data(), devices=st.integers(1, 6))
def test_a_buffer_of_all_devices_without_staleness_is_a_round_of_fedavg(
    make_learner, data: st.DataObject, devices: int
) -> None:
    strategy = LayerwiseStrategy(make_learner())
    size = strategy.learner.sizes["2"]
    updates = data.draw(st.lists(arrays(np.float32, size, elements=floats), min_size=devices, max_size=devices))
    counts = data.draw(st.lists(st.integers(1, 10**6), min_size=devices, max_size=devices))
    buffers = Buffers(strategy, ServerSpec(buffer_size=devices))
    for sent, weights, count in zip(strategy.orders(range(1, devices + 1), 1, 0.0), updates, counts, strict=True):
        buffers.add(sent, accepted(strategy, {"2": weights}, count))
    mean = weighted_mean(strategy.weights["2"], list(zip(updates, counts, strict=True)))
    np.testing.assert_allclose(strategy.weights["2"], mean, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(updates).max()))
    assert strategy.versions == {"0": 0, "2": 1}


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    size=st.integers(1, 4),
    lr=st.sampled_from([1.0, 0.3]),
    kind=st.sampled_from(["constant", "hinge", "polynomial"]),
)
def test_the_weights_follow_fedbuffs_equation(make_learner, seed: int, size: int, lr: float, kind: str) -> None:
    """w + lr * sum(n s(t) change) / sum(n), against one that is worked out by hand, for orders of any age."""
    spec = ServerSpec(buffer_size=size, staleness=kind, staleness_a=0.7, staleness_b=1.0)
    strategy = LayerwiseStrategy(make_learner(), lr=lr)
    buffers, rng = Buffers(strategy, spec), np.random.default_rng(seed)
    weight = {
        "constant": lambda t: 1.0,
        "hinge": lambda t: 1.0 if t <= 1 else 1 / (0.7 * (t - 1) + 1),
        "polynomial": lambda t: (t + 1) ** -0.7,
    }[kind]
    expected = strategy.weights["2"].astype(float)
    version, held = 0, []
    orders = [(0, expected, strategy.orders([1], 1, 0.0)[0])]
    for number in range(3 * size):
        sent_version, base, sent = orders[int(rng.integers(len(orders)))]
        weights, examples = learnt(strategy, number)["2"], int(rng.integers(1, 50))
        buffers.add(sent, accepted(strategy, {"2": weights}, examples))
        held.append((examples, weight(version - sent_version) * (weights - base)))
        if len(held) == size:
            total = sum(count for count, _ in held)
            expected = expected + lr * sum(count * change for count, change in held) / total
            version, held = version + 1, []
            orders.append((version, expected, strategy.orders([1], 1, float(number))[0]))
        np.testing.assert_allclose(strategy.weights["2"], expected, rtol=1e-4, atol=1e-5)
    assert strategy.versions["2"] == version == 3


def test_each_block_has_a_buffer_of_its_own(make_learner) -> None:
    strategy = LayerwiseStrategy(make_learner())
    buffers = Buffers(strategy, ServerSpec(buffer_size=2))
    for node, blocks in enumerate([("0",), ("2",), ("0", "2"), ("2",), ()], 1):
        (sent,) = strategy.orders([node], 1, 0.0)
        buffers.add(sent, accepted(strategy, {name: learnt(strategy, node)[name] for name in blocks}))
    assert strategy.versions == {"0": 1, "2": 1}
    np.testing.assert_allclose(
        strategy.weights["0"], (learnt(strategy, 1)["0"] + learnt(strategy, 3)["0"]) / 2, atol=1e-6
    )
    np.testing.assert_allclose(
        strategy.weights["2"], (learnt(strategy, 2)["2"] + learnt(strategy, 3)["2"]) / 2, atol=1e-6
    )


@pytest.mark.parametrize("status", ["empty", "refused"])
def test_what_is_not_accepted_never_enters_a_buffer(make_learner, status) -> None:
    strategy = LayerwiseStrategy(make_learner())
    (sent,) = strategy.orders([A], 1, 0.0)
    report = accepted(strategy, learnt(strategy, 1)).report
    Buffers(strategy, ServerSpec(buffer_size=1)).add(sent, Verdict(status, report=report))
    assert strategy.version == 0


# --- The schedule ---------------------------------------------------------------------------------------------------


@pytest.fixture
def run(make_learner, make_grid):
    """Run periods of 60 s with at least 20 s between orders on a grid that the test makes."""

    def run_(delays, rounds=3, prepare=lambda grid: None, **settings):
        grid = make_grid({node: lambda n, answer=delay: answer for node, delay in delays.items()})
        grid.times = {node: [] for node in delays}
        push = grid.push

        def note(message: Message):
            grid.times[message.metadata.dst_node_id].append(grid.clock.time)
            return push(message)

        grid.push = note
        prepare(grid)
        done: list[Round] = []
        choices = {"interval_seconds": 20.0, "buffer_size": 2, **settings}
        spec = ServerSpec(mode="buffered", rounds=rounds, round_seconds=60.0, **choices)
        run_schedule(grid, make_learner(), spec, grid.clock, done.append)
        assert [round_.number for round_ in done] == list(range(1, rounds + 1))
        assert [round_.ended for round_ in done] == [60.0 * number for number in range(1, rounds + 1)]
        assert done[-1].waiting == frozenset()
        return grid, done

    return run_


def test_a_device_gets_its_next_order_when_it_has_answered_and_rested(run) -> None:
    grid, _ = run({A: 0.0, B: 31.0, C: 70.0})
    for node, gap in ((A, 20), (B, 31), (C, 70)):
        gaps = [after - before for before, after in pairwise(grid.times[node])]
        assert gaps
        # It is asked again at the next tick.
        assert all(gap <= found <= gap + 2 for found in gaps), node


def test_nobody_waits_for_the_slowest(run) -> None:
    """Two fast devices fill buffers while a slow one is at work on weights of long ago."""
    _, done = run({A: 1.0, B: 1.0, C: 100.0})
    assert [round_.aggregations for round_ in done] == [3.0, 3.0, pytest.approx(3, abs=1)]
    assert done[0].waiting == {(C, 0.0)}
    staleness = {key: verdict.staleness for round_ in done for key, verdict in round_.verdicts.items()}
    assert staleness[C, 0.0] == 5.0
    assert all(stale <= 1 for (node, _), stale in staleness.items() if node != C)


def test_with_everyone_prompt_it_is_the_synchronous_schedule(run, make_learner, make_grid) -> None:
    _, done = run({A: 0.0, B: 0.0, C: 0.0}, buffer_size=3, interval_seconds=60.0)
    grid = make_grid(dict.fromkeys((A, B, C), lambda n: 0.0))
    expected: list[Round] = []
    run_schedule(grid, make_learner(), ServerSpec(rounds=3, round_seconds=60.0), grid.clock, expected.append)
    for ours, theirs in zip(done, expected, strict=True):
        assert ours.ordered == theirs.ordered
        assert ours.verdicts.keys() == theirs.verdicts.keys()
        assert ours.aggregations == theirs.aggregations == 1
        for name in theirs.weights:
            np.testing.assert_allclose(ours.weights[name], theirs.weights[name], rtol=1e-6)


def test_no_more_than_a_share_of_the_fleet_is_at_work(run) -> None:
    working: list[int] = []

    def prepare(grid) -> None:
        pull = grid.pull_messages

        def count(ids):
            ids = list(ids)
            working.append(len(ids))
            return pull(ids)

        grid.pull_messages = count

    grid, _ = run(dict.fromkeys((A, B, C, D), 7.0), fraction=0.5, prepare=prepare, rounds=6)
    assert max(working) == 2
    assert all(len(times) >= 6 for times in grid.times.values())  # everybody's turn comes


def test_a_lost_answer_costs_a_device_the_time_out(run) -> None:
    grid, done = run({A: 0.0, B: NEVER}, rounds=4, timeout_seconds=90.0)
    assert grid.times[B] == [0.0, pytest.approx(90.0, abs=2), pytest.approx(180.0, abs=4)]
    assert not any(node == B for round_ in done for node, _ in round_.verdicts)
    assert [sorted(node for node, _ in round_.waiting) for round_ in done] == [[B], [B], [B], []]


def test_an_answer_after_the_time_out_leaves_no_trace(run) -> None:
    _, done = run({A: 0.0, B: 95.0}, rounds=4, timeout_seconds=90.0)
    assert not any(node == B for round_ in done for node, _ in round_.verdicts)
    assert done[-1].weights["2"][0] == pytest.approx(A)


def test_hostile_answers_are_refused_and_the_device_goes_on_being_asked(run, honestly) -> None:
    def answer(message: Message, order: Order) -> Message:
        reply = honestly(message, order)
        if message.metadata.dst_node_id == B:
            reply.content["report"]["digest"] = "foreign"
        return reply

    grid, done = run({A: 0.0, B: 0.0, C: 0.0}, prepare=lambda grid: setattr(grid, "answer", answer))
    reasons = [v.reason for round_ in done for (node, _), v in round_.verdicts.items() if node == B]
    assert reasons == ["digest"] * len(grid.times[B])
    assert len(reasons) == 9
    # Two honest devices, a buffer of two: one aggregation for every turn.
    assert sum(round_.aggregations for round_ in done) == 9
    assert done[-1].weights["2"][0] == pytest.approx((A + C) / 2)


def test_an_answer_twice_over_or_in_anothers_name_counts_for_nothing(run, honestly) -> None:
    def prepare(grid) -> None:
        pull = grid.pull_messages
        grid.pull_messages = lambda ids: [reply for reply in pull(ids) for _ in range(2)]

    def forge(message: Message, order: Order) -> Message:
        reply = honestly(message, order)
        if message.metadata.dst_node_id == B:
            reply.metadata.__dict__["_src_node_id"] = A
        return reply

    def prepare_both(grid) -> None:
        prepare(grid)
        grid.answer = forge

    _, done = run({A: 0.0, B: 0.0}, buffer_size=1, prepare=prepare_both)
    assert {node for round_ in done for node, _ in round_.verdicts} == {A}
    assert [round_.aggregations for round_ in done] == [3.0, 3.0, 3.0]


def test_devices_may_come_and_go(run) -> None:
    def prepare(grid) -> None:
        grid.get_node_ids = lambda: [A] if grid.clock.time < 60 else [B]

    grid, _ = run({A: 0.0, B: 0.0}, rounds=2, prepare=prepare)
    assert grid.times[A] == [pytest.approx(t, abs=2) for t in (0, 20, 40)]
    assert grid.times[B] == [pytest.approx(t, abs=2) for t in (60, 80, 100)]


@pytest.mark.parametrize("delays", [{}, {A: NEVER}])
def test_a_fleet_of_nobody_or_of_silence_ends_in_time(run, make_learner, delays) -> None:
    _, done = run(delays)
    for name, packed in make_learner().initial_weights().items():
        np.testing.assert_array_equal(done[-1].weights[name], packed)
    assert all(round_.aggregations == 0 for round_ in done)


def test_a_strategy_of_flowers_aggregates_buffers_too(run) -> None:
    _, done = run({A: 0.0, B: 0.0, 900: 0.0}, rounds=1, buffer_size=3, strategy="FedMedian", interval_seconds=60.0)
    assert done[0].weights["0"][0] == pytest.approx(B)
