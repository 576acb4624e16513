"""Synchronous rounds against nodes that answer, dawdle, lie or keep silent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID

from fedtp.errors import FedtpError
from fedtp.wire import Order, Report
from server.app import run_schedule
from server.round import Round
from server.settings import ServerSpec
from server.verdict import Verdict

NEVER = float("inf")
# Flower's ids are random; these are none of the SuperLink's own.
A, B, C, D = 101, 102, 103, 104


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


def by_node(done: Round) -> dict[int, Verdict]:
    """What became of each node's replies, if none has two."""
    verdicts = {node: verdict for (node, _), verdict in done.verdicts.items()}
    assert len(verdicts) == len(done.verdicts)
    return verdicts


def at_once(_: int) -> float:
    return 0.0


def always(seconds: float) -> Callable[[int], float]:
    return lambda _: seconds


def first(seconds: float, then: float = 0.0) -> Callable[[int], float]:
    return lambda n: seconds if n == 0 else then


@pytest.fixture
def run(make_learner, make_grid):
    """Run rounds of 60 s with deadlines of 50 s on a grid that the test makes."""

    def run_(delays, rounds=4, prepare=lambda grid: None, on_round=lambda done: None, **settings):
        grid = make_grid(delays)
        prepare(grid)
        done: list[Round] = []

        def ended(round_: Round) -> None:
            done.append(round_)
            on_round(round_)

        spec = ServerSpec(rounds=rounds, round_seconds=60.0, **{"deadline_seconds": 50.0, **settings})
        run_schedule(grid, make_learner(), spec, grid.clock, ended)
        assert [round_.number for round_ in done] == list(range(1, len(done) + 1))
        if "interval_seconds" not in settings:
            assert len(done) == rounds
        assert grid.clock.time == 60.0 * rounds
        return grid, done

    return run_


def test_rounds_begin_on_time_and_end_when_all_have_answered(run) -> None:
    grid, done = run({A: at_once, B: always(7.0)})
    assert [round_.started for round_ in done] == [0, 60, 120, 180]
    assert [round_.ended for round_ in done] == [7, 67, 127, 240]
    assert [order.now for order in grid.orders[A]] == [0, 60, 120, 180]
    for round_ in done:
        assert round_.ordered == (A, B)
        assert {node: verdict.status for node, verdict in by_node(round_).items()} == dict.fromkeys((A, B), "accepted")
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
    assert [sorted(by_node(round_)) for round_ in done] == [[A, C], [A, B, C], [A, B, C]]
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
    assert all(B not in by_node(round_) for round_ in done)
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
    assert [A in by_node(round_) for round_ in done] == [False, False, True, True, True]


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
    grids: list = []

    def change(done: Round) -> None:
        grids[0].nodes = {1: [], 2: [B], 3: [A, B]}[done.number]

    _, done = run(
        {A: at_once, B: at_once}, rounds=4, prepare=grids.append, on_round=lambda d: d.number < 4 and change(d)
    )
    assert [round_.ordered for round_ in done] == [(A, B), (), (B,), (A, B)]


def test_what_is_refused_is_named_and_leaves_no_trace(run, honestly) -> None:
    def answer(message: Message, order: Order) -> Message:
        reply = honestly(message, order)
        if message.metadata.dst_node_id == B:
            reply.content["report"]["digest"] = "foreign"
        return reply

    _, done = run({A: at_once, B: at_once}, rounds=2, prepare=lambda grid: setattr(grid, "answer", answer))
    for round_ in done:
        assert by_node(round_)[B].status == "refused"
        assert by_node(round_)[B].reason == "digest"
        assert round_.weights["2"][0] == A


def test_flowers_own_answer_for_a_node_that_is_gone_is_nobodys(run, honestly, caplog) -> None:
    caplog.set_level(logging.WARNING, "flwr")

    def answer(message: Message, order: Order) -> Message:
        node = message.metadata.dst_node_id
        return by_superlink(message) if node in (B, C) and order.round == 1 else honestly(message, order)

    grid, done = run({A: at_once, B: at_once, C: at_once}, 2, prepare=lambda grid: setattr(grid, "answer", answer))
    assert list(by_node(done[0])) == [A]
    assert done[0].late == ()
    assert done[0].ended == 0.0  # nothing is left to wait for
    assert sorted(by_node(done[1])) == [A, B, C]
    assert grid.rounds_of(B) == [1, 2]


def test_orders_that_flower_could_not_send_are_not_waited_for(run) -> None:
    def prepare(grid) -> None:
        push = grid.push
        grid.push = lambda m: None if m.metadata.dst_node_id == B else push(m)

    _, done = run({A: at_once, B: at_once}, 2, prepare=prepare)
    assert [(round_.ordered, list(by_node(round_)), round_.ended) for round_ in done] == [
        ((A, B), [A], 0.0),
        ((A, B), [A], 120.0),
    ]


def test_a_grid_that_can_send_nothing_at_all_ends_no_run(run) -> None:
    def prepare(grid) -> None:
        grid.push_messages = lambda messages: []

    _, done = run({A: at_once}, 2, prepare=prepare)
    assert all(round_.verdicts == {} for round_ in done)


def test_answers_that_nobody_asked_for_are_left_out(run, honestly) -> None:
    """One twice over, one in another's name, one to a message that was never sent."""

    def prepare(grid) -> None:
        pull = grid.pull_messages

        def pull_more(ids: Iterable[str]) -> list[Message]:
            replies = pull(ids)
            for reply in list(replies):
                replies.append(reply)
                stray = honestly(Message(reply.content, dst_node_id=C, message_type="train"), grid.orders[A][-1])
                replies.append(stray)
            return replies

        grid.pull_messages = pull_more

    _, done = run({A: at_once}, 2, prepare=prepare)
    for round_ in done:
        assert list(by_node(round_)) == [A]
        assert round_.late == ()
        assert round_.weights["2"][0] == A


def test_an_answer_in_anothers_name_is_left_out(run, honestly) -> None:
    def answer(message: Message, order: Order) -> Message:
        reply = honestly(message, order)
        if message.metadata.dst_node_id == B:
            reply.metadata.__dict__["_src_node_id"] = A
        return reply

    _, done = run({A: at_once, B: at_once}, 1, prepare=lambda grid: setattr(grid, "answer", answer))
    assert list(by_node(done[0])) == [A]


def test_rounds_that_take_too_long_to_work_out_move_the_next(make_learner, make_grid) -> None:
    grid = make_grid({A: at_once})
    starts = []

    def slow(done: Round) -> None:
        starts.append(done.started)
        grid.clock.time += 100.0 if done.number == 1 else 0.0

    run_schedule(grid, make_learner(), ServerSpec(rounds=4, round_seconds=60.0), grid.clock, slow)
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


def test_the_order_in_which_answers_come_does_not_show(run, make_learner, honestly) -> None:
    def answer(message: Message, order: Order) -> Message:
        reply = honestly(message, order)
        rng = np.random.default_rng(message.metadata.dst_node_id)
        weights = {name: rng.normal(size=packed.size).astype(np.float32) for name, packed in order.weights.items()}
        reply.content["weights"] = Report(order.digest, weights, dict.fromkeys(weights, 10)).to_records()["weights"]
        return reply

    ends = []
    for delays in ((1.0, 2.0, 3.0), (3.0, 1.0, 2.0), (2.0, 3.0, 1.0)):
        nodes = dict(zip((A, B, C), map(always, delays), strict=True))
        _, done = run(nodes, 2, prepare=lambda grid: setattr(grid, "answer", answer))
        ends.append(done[-1].weights["2"].tolist())
    assert ends[0] == ends[1] == ends[2]


# --- Over-selection -------------------------------------------------------------------------------------------------


def test_a_round_closes_when_enough_of_too_many_are_in(run) -> None:
    """Four are ordered where three are needed: the fourth comes too late, and is not waited for."""
    grid, done = run({A: always(5.0), B: always(9.0), C: always(2.0), D: always(30.0)}, 2, over_selection=0.34)
    assert done[0].ordered == (A, B, C, D)
    assert [by_node(round_).keys() for round_ in done] == [{A, B, C}] * 2
    assert done[0].ended == 9.0
    assert [round_.late for round_ in done] == [(), (D, D)]
    assert done[0].weights["2"][0] == pytest.approx((A + B + C) / 3)
    assert grid.rounds_of(D) == [1, 2]


def test_what_is_refused_does_not_make_enough(run, honestly) -> None:
    def answer(message: Message, order: Order) -> Message:
        reply = honestly(message, order)
        if message.metadata.dst_node_id == A:
            reply.content["report"]["digest"] = "foreign"
        return reply

    _, done = run(
        {A: at_once, B: always(9.0), C: always(20.0)},
        1,
        over_selection=0.5,
        prepare=lambda grid: setattr(grid, "answer", answer),
    )
    assert {node: verdict.status for node, verdict in by_node(done[0]).items()} == {
        A: "refused",
        B: "accepted",
        C: "accepted",
    }


def test_answers_beyond_enough_at_the_same_moment_are_left_out(run) -> None:
    _, done = run({A: at_once, B: at_once, C: at_once}, 1, over_selection=0.5)
    assert len(done[0].verdicts) == 2
    assert len(done[0].late) == 1


# --- Quorum ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("quorum", "changes"), [(0.0, True), (0.5, True), (0.6, False), (1.0, False)])
def test_a_round_without_a_quorum_changes_nothing(run, make_learner, quorum: float, changes: bool) -> None:
    _, done = run({A: at_once, B: always(NEVER)}, 1, quorum=quorum)
    verdict = by_node(done[0])[A]
    initial = make_learner().initial_weights()
    assert done[0].aggregations == changes
    assert np.array_equal(done[0].weights["2"], initial["2"]) != changes
    assert (verdict.status, verdict.reason) == (("accepted", "") if changes else ("refused", "quorum"))
    assert verdict.report.correct == 7  # what it scored is known all the same


def test_the_next_round_may_have_a_quorum_again(run) -> None:
    _, done = run({A: at_once, B: first(NEVER)}, 3, quorum=1.0)
    # B owes an answer in round 2, which is then asked of A alone.
    assert [round_.aggregations for round_ in done] == [0, 1, 1]


# --- Rounds that follow each other ----------------------------------------------------------------------------------


def test_rounds_may_follow_each_other_as_soon_as_they_close(run) -> None:
    grid, done = run({A: always(7.0), B: always(12.0)}, 2, interval_seconds=5.0)
    assert [round_.started for round_ in done] == [12.0 * n for n in range(10)]
    assert [order.now for order in grid.orders[A]] == [12.0 * n for n in range(10)]
    assert done[-1].ended == 120.0


def test_rounds_follow_each_other_no_sooner_than_the_interval(run) -> None:
    _, done = run({A: at_once}, 2, interval_seconds=25.0)
    assert [round_.started for round_ in done] == [0, 25, 50, 75, 100]


def test_no_round_lasts_longer_than_the_run(run) -> None:
    _, done = run({A: always(NEVER), B: always(3.0)}, 1, interval_seconds=40.0)
    assert done[-1].ended == 60.0
