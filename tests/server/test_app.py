"""Rounds against a grid whose nodes answer, dawdle, lie or keep silent, in a time of the test's own."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID

from fedtp.errors import FedtpError
from fedtp.wire import Order, Report
from server.app import Round, make_server_app, run_rounds
from server.settings import ServerSpec
from simulations.flower import make_context, number

NEVER = float("inf")
# Flower's ids are random; these are none of the SuperLink's own.
A, B, C = 101, 102, 103


class FakeClock:
    """Looks every second, and fails a test that would wait for ever."""

    def __init__(self) -> None:
        self.time = 0.0
        self.waits = 0

    def now(self) -> float:
        return self.time

    def wait(self, until: float, messages: int) -> None:
        assert until > self.time
        self.waits += 1
        assert self.waits < 10_000
        self.time = min(self.time + 1.0, until)


class FakeGrid:
    """Nodes by id: each has the seconds it takes to answer its 1st, 2nd, ... order."""

    def __init__(self, clock: FakeClock, delays: dict[int, Callable[[int], float]]) -> None:
        self.clock = clock
        self.delays = delays
        self.nodes = list(delays)
        self.orders: dict[int, list[Order]] = defaultdict(list)
        self.answer: Callable[[Message, Order], Message] = honest
        self._mail: dict[str, tuple[float, Message]] = {}
        self._count = 0

    def get_node_ids(self) -> list[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> list[str | None]:
        return [self.push(message) for message in messages]

    def push(self, message: Message) -> str | None:
        self._count += 1
        node = message.metadata.dst_node_id
        order = Order.from_records(message.content)
        delay = self.delays[node](len(self.orders[node]))
        self.orders[node].append(order)
        number(message, f"m{self._count}")
        self._mail[f"m{self._count}"] = self.clock.time + delay, self.answer(message, order)
        return f"m{self._count}"

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        ids = list(message_ids)
        assert all(i in self._mail for i in ids), "asked twice for one reply"
        there = [i for i in ids if self._mail[i][0] <= self.clock.time]
        return [self._mail.pop(i)[1] for i in there]

    def rounds_of(self, node: int) -> list[int]:
        return [order.round for order in self.orders[node]]


def honest(message: Message, order: Order) -> Message:
    """Every weight becomes the node's id, learnt from 10 samples."""
    node = message.metadata.dst_node_id
    weights = {name: np.full(packed.size, node, np.float32) for name, packed in order.weights.items()}
    report = Report(order.digest, weights, dict.fromkeys(weights, 10), samples=10, correct=7)
    return Message(report.to_records(), reply_to=message)


def by_superlink(message: Message, reason: str = "Node Unavailable") -> Message:
    """What Flower's SuperLink answers for a node that is gone."""
    metadata = Metadata(
        run_id=1,
        message_id="",
        src_node_id=SUPERLINK_NODE_ID,
        dst_node_id=SUPERLINK_NODE_ID,
        reply_to_message_id=message.metadata.message_id,
        group_id="",
        message_type="train",
        created_at=0.0,
        ttl=0.0,
    )
    return make_message(metadata=metadata, error=Error(3, reason))


def at_once(_: int) -> float:
    return 0.0


def always(seconds: float) -> Callable[[int], float]:
    return lambda _: seconds


def first(seconds: float, then: float = 0.0) -> Callable[[int], float]:
    return lambda n: seconds if n == 0 else then


@pytest.fixture
def run(make_learner):
    """Run rounds of 60 s with deadlines of 50 s on a grid that the test makes."""

    def run_(delays, rounds=4, prepare=lambda grid: None, on_round=lambda done: None, **settings):
        clock = FakeClock()
        grid = FakeGrid(clock, delays)
        prepare(grid)
        done: list[Round] = []

        def ended(round_: Round) -> None:
            done.append(round_)
            on_round(round_)

        spec = ServerSpec(rounds=rounds, round_seconds=60.0, deadline_seconds=50.0, **settings)
        run_rounds(grid, make_learner(), spec, clock, ended)
        assert [round_.number for round_ in done] == list(range(1, rounds + 1))
        assert clock.time == 60.0 * rounds
        return grid, done

    return run_


def test_rounds_begin_on_time_and_end_when_all_have_answered(run) -> None:
    grid, done = run({A: at_once, B: always(7.0)})
    assert [round_.started for round_ in done] == [0, 60, 120, 180]
    assert [round_.ended for round_ in done] == [7, 67, 127, 240]
    assert [order.now for order in grid.orders[A]] == [0, 60, 120, 180]
    for round_ in done:
        assert round_.ordered == (A, B)
        assert {node: verdict.status for node, verdict in round_.verdicts.items()} == dict.fromkeys((A, B), "accepted")
        assert round_.late == ()
        for packed in round_.weights.values():
            assert packed.tolist() == [101.5] * len(packed)


def test_each_order_carries_the_weights_of_the_round_before(run, make_learner) -> None:
    grid, done = run({A: at_once}, rounds=2)
    for name, packed in make_learner().initial_weights().items():
        np.testing.assert_array_equal(grid.orders[A][0].weights[name], packed)
        np.testing.assert_array_equal(grid.orders[A][1].weights[name], done[0].weights[name])


def test_an_answer_at_the_deadline_counts_and_one_after_it_is_late_once(run) -> None:
    grid, done = run({A: always(50.0), B: first(50.5), C: at_once}, rounds=3)
    assert [sorted(round_.verdicts) for round_ in done] == [[A, C], [A, B, C], [A, B, C]]
    assert [round_.late for round_ in done] == [(), (B,), ()]
    assert [round_.ended for round_ in done] == [50, 110, 180]
    assert grid.rounds_of(B) == [1, 2, 3]
    assert done[0].weights["2"][0] == (A + C) / 2


def test_a_node_that_owes_an_answer_gets_no_order(run) -> None:
    grid, done = run({A: at_once, B: first(70.0)}, rounds=4)
    assert grid.rounds_of(B) == [1, 3, 4]
    assert [round_.ordered for round_ in done] == [(A, B), (A,), (A, B), (A, B)]
    assert [round_.late for round_ in done] == [(), (), (B,), ()]


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_a_node_that_never_answers_is_asked_again_now_and_then(run, rounds: int) -> None:
    grid, done = run({A: at_once, B: always(NEVER)}, rounds=rounds)
    assert grid.rounds_of(B) == [1, 3, 5][: (rounds + 1) // 2]
    assert all(B not in round_.verdicts for round_ in done)
    assert all(round_.late == () for round_ in done)
    assert [round_.ended for round_ in done][:-1] == [50.0 + 60 * n if n % 2 == 0 else 60.0 * n for n in range(rounds)][
        :-1
    ]


def test_one_lost_message_costs_a_node_one_round(run) -> None:
    grid, _ = run({A: first(NEVER)}, rounds=5)
    assert grid.rounds_of(A) == [1, 3, 4, 5]


def test_an_answer_to_the_last_round_may_still_be_late(run) -> None:
    _, done = run({A: always(55.0)}, rounds=1)
    assert done[0].late == (A,)
    assert done[0].verdicts == {}
    assert done[0].ended == 60.0


def test_a_very_late_answer_is_given_up(run) -> None:
    _, done = run({A: first(200.0), B: at_once}, rounds=5)
    assert all(round_.late == () for round_ in done)
    assert [A in round_.verdicts for round_ in done] == [False, False, True, True, True]


def test_a_fleet_that_nobody_belongs_to_ends_in_time(run, make_learner) -> None:
    _, done = run({})
    assert all(round_.ordered == () and round_.verdicts == {} for round_ in done)
    for name, packed in make_learner().initial_weights().items():
        np.testing.assert_array_equal(done[-1].weights[name], packed)


def test_a_fleet_of_silence_ends_in_time(run, make_learner) -> None:
    _, done = run({A: always(NEVER), B: always(NEVER)})
    for name, packed in make_learner().initial_weights().items():
        np.testing.assert_array_equal(done[-1].weights[name], packed)


def test_nodes_may_come_and_go(run) -> None:
    grids: list[FakeGrid] = []

    def change(done: Round) -> None:
        grids[0].nodes = {1: [], 2: [B], 3: [A, B]}[done.number]

    _, done = run(
        {A: at_once, B: at_once}, rounds=4, prepare=grids.append, on_round=lambda d: d.number < 4 and change(d)
    )
    assert [round_.ordered for round_ in done] == [(A, B), (), (B,), (A, B)]


def test_what_is_refused_is_named_and_leaves_no_trace(run) -> None:
    def answer(message: Message, order: Order) -> Message:
        reply = honest(message, order)
        if message.metadata.dst_node_id == B:
            reply.content["report"]["digest"] = "foreign"
        return reply

    _, done = run({A: at_once, B: at_once}, rounds=2, prepare=lambda grid: setattr(grid, "answer", answer))
    for round_ in done:
        assert round_.verdicts[B].status == "refused"
        assert round_.verdicts[B].reason == "digest"
        assert round_.weights["2"][0] == A


def test_flowers_own_answer_for_a_node_that_is_gone_is_nobodys(run, caplog) -> None:
    caplog.set_level(logging.WARNING, "flwr")

    def answer(message: Message, order: Order) -> Message:
        node = message.metadata.dst_node_id
        return by_superlink(message) if node in (B, C) and order.round == 1 else honest(message, order)

    grid, done = run({A: at_once, B: at_once, C: at_once}, 2, prepare=lambda grid: setattr(grid, "answer", answer))
    assert list(done[0].verdicts) == [A]
    assert done[0].late == ()
    assert done[0].ended == 0.0  # nothing is left to wait for
    assert sorted(done[1].verdicts) == [A, B, C]
    assert grid.rounds_of(B) == [1, 2]


def test_orders_that_flower_could_not_send_are_not_waited_for(run) -> None:
    def prepare(grid: FakeGrid) -> None:
        push = grid.push
        grid.push = lambda m: None if m.metadata.dst_node_id == B else push(m)

    _, done = run({A: at_once, B: at_once}, 2, prepare=prepare)
    assert [(round_.ordered, list(round_.verdicts), round_.ended) for round_ in done] == [
        ((A, B), [A], 0.0),
        ((A, B), [A], 120.0),
    ]


def test_a_grid_that_can_send_nothing_at_all_ends_no_run(run) -> None:
    def prepare(grid: FakeGrid) -> None:
        grid.push_messages = lambda messages: []

    _, done = run({A: at_once}, 2, prepare=prepare)
    assert all(round_.verdicts == {} for round_ in done)


def test_answers_that_nobody_asked_for_are_left_out(run) -> None:
    """One twice over, one in another's name, one to a message that was never sent."""

    def prepare(grid: FakeGrid) -> None:
        pull = grid.pull_messages

        def pull_more(ids: Iterable[str]) -> list[Message]:
            replies = pull(ids)
            for reply in list(replies):
                replies.append(reply)
                stray = honest(Message(reply.content, dst_node_id=C, message_type="train"), grid.orders[A][-1])
                replies.append(stray)
            return replies

        grid.pull_messages = pull_more

    _, done = run({A: at_once}, 2, prepare=prepare)
    for round_ in done:
        assert list(round_.verdicts) == [A]
        assert round_.late == ()
        assert round_.weights["2"][0] == A


def test_an_answer_in_anothers_name_is_left_out(run) -> None:
    def answer(message: Message, order: Order) -> Message:
        reply = honest(message, order)
        if message.metadata.dst_node_id == B:
            reply.metadata.__dict__["_src_node_id"] = A
        return reply

    _, done = run({A: at_once, B: at_once}, 1, prepare=lambda grid: setattr(grid, "answer", answer))
    assert list(done[0].verdicts) == [A]


def test_rounds_that_take_too_long_to_work_out_move_the_next(make_learner) -> None:
    clock = FakeClock()
    grid = FakeGrid(clock, {A: at_once})
    starts = []

    def slow(done: Round) -> None:
        starts.append(done.started)
        clock.time += 100.0 if done.number == 1 else 0.0

    run_rounds(grid, make_learner(), ServerSpec(rounds=4, round_seconds=60.0), clock, slow)
    assert starts == [0, 100, 120, 180]


def test_only_a_fraction_is_asked(run) -> None:
    grid, done = run({A: at_once, B: at_once, C: at_once}, rounds=6, fraction=0.34)
    assert all(len(round_.ordered) == 1 for round_ in done)
    assert len({round_.ordered for round_ in done}) > 1
    assert sum(len(orders) for orders in grid.orders.values()) == 6


def test_a_strategy_of_flowers_may_be_named(run) -> None:
    _, done = run({A: at_once, B: at_once, C: at_once}, rounds=1, strategy="FedMedian")
    assert done[0].weights["0"][0] == B


def test_a_strategy_that_does_not_fit_is_refused_before_the_first_order(run) -> None:
    with pytest.raises(FedtpError, match="gamma"):
        run({A: at_once}, strategy="FedAdam", strategy_options={"gamma": 1.0})


def test_the_app_reads_its_settings_from_the_run_config(make_learner, caplog) -> None:
    """By the computer's own clock, with the log that a real server writes."""
    caplog.set_level(logging.INFO, "flwr")
    clock = FakeClock()
    grid = FakeGrid(clock, {A: at_once, B: always(NEVER)})
    spec = ServerSpec(rounds=3, round_seconds=0.05, deadline_seconds=0.02)
    config = {**make_learner().spec.to_config(), **spec.to_config(), "shape": 6, "classes": 3}
    make_server_app()(grid, make_context(config))
    assert grid.rounds_of(A) == [1, 2, 3]
    assert "round 3: 2 orders, 1 replies, accuracy 0.700" in caplog.text


def test_the_app_calls_back_after_every_round(make_learner) -> None:
    clock = FakeClock()
    grid = FakeGrid(clock, {A: at_once})
    config = {
        **make_learner().spec.to_config(),
        **ServerSpec(rounds=2).to_config(),
        "shape": 6,
        "classes": 3,
    }
    done: list[Round] = []
    make_server_app(clock, done.append)(grid, make_context(config))
    assert [round_.number for round_ in done] == [1, 2]
