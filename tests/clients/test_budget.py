"""A device trains what it can afford, and no more."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.budget import Budget, peak_bytes, work_flops
from clients.device import Device
from clients.training import learn, plan, report
from fedtp.errors import BudgetError
from fedtp.learner import Learner, learner_for
from fedtp.learner_spec import LearnerSpec
from fedtp.wire import Order

DEEP = learner_for(LearnerSpec(hidden=(50, 40, 30, 20), batch_size=5), 60, 4)
WHOLE = learner_for(LearnerSpec(hidden=(50, 40, 30, 20), batch_size=5, method="backprop"), 60, 4)
NAMES = tuple(DEEP.sizes)


def order_of(learner: Learner, number: int = 1, blocks: tuple[str, ...] = NAMES) -> Order:
    return Order(number, 0.0, learner.digest, learner.initial_weights(), blocks)


ORDER = order_of(DEEP)


def seconds(budget: Budget, learner: Learner, blocks: tuple[str, ...], samples: int) -> float:
    down = 4 * sum(learner.sizes.values()) / budget.down_bytes_per_second
    up = 4 * sum(learner.sizes[name] for name in blocks) / budget.up_bytes_per_second
    return down + work_flops(learner, samples, blocks) / budget.flops_per_second + up


BUDGETS = st.builds(
    Budget,
    memory_bytes=st.floats(600, 60_000),
    flops_per_second=st.floats(1e4, 1e8),
    down_bytes_per_second=st.floats(1e3, 1e6),
    up_bytes_per_second=st.floats(1e3, 1e6),
    deadline_seconds=st.floats(1, 100),
    plan=st.sampled_from(["everything", "whole", "first", "rotation", "random", "assigned"]),
    plan_blocks=st.integers(1, 5),
    turn=st.integers(0, 10),
)


@settings(max_examples=200, deadline=None)  # the first example of each set of blocks measures its memory
@given(
    budget=BUDGETS,
    number=st.integers(1, 20),
    asked=st.sets(st.sampled_from(NAMES)),
    samples=st.integers(1, 50),
    learner=st.sampled_from([DEEP, WHOLE]),
)
def test_no_device_ever_exceeds_its_budget(budget, number, asked, samples, learner) -> None:
    order = order_of(learner, number, tuple(name for name in NAMES if name in asked))
    if learner.scoring_bytes() > budget.memory_bytes:
        with pytest.raises(BudgetError, match="it takes no part"):
            budget.check(learner)
        return
    budget.check(learner)
    choice = budget.choose(learner, order, samples)
    assert set(choice.blocks) <= asked
    assert list(choice.blocks) == [name for name in NAMES if name in choice.blocks]
    assert peak_bytes(learner, choice.blocks) <= budget.memory_bytes
    if choice.blocks and budget.plan != "whole":
        assert seconds(budget, learner, choice.blocks, samples) <= budget.deadline_seconds
    if budget.plan not in ("everything", "whole") and learner is DEEP:
        assert len(choice.blocks) <= budget.plan_blocks
    if learner is WHOLE or budget.plan == "whole":
        assert choice.blocks in (order.blocks, ())


@settings(deadline=None)
@given(budget=BUDGETS, samples=st.integers(1, 50))
def test_everything_leaves_out_only_what_does_not_fit_beside_the_rest(budget, samples) -> None:
    budget = replace(budget, plan="everything")
    chosen = budget.choose(DEEP, ORDER, samples).blocks
    for name in set(NAMES) - set(chosen):
        more = tuple(other for other in NAMES if other == name or other in chosen)
        too_much = DEEP.training_bytes(more) > budget.memory_bytes
        assert too_much or seconds(budget, DEEP, more, samples) > budget.deadline_seconds


def test_without_limits_all_that_is_asked_is_trained() -> None:
    assert Budget().choose(DEEP, ORDER, 10).blocks == NAMES
    assert Budget().choose(DEEP, order_of(DEEP, 1, ("2", "6")), 10).blocks == ("2", "6")
    assert Budget().choose(WHOLE, order_of(WHOLE), 10).blocks == NAMES


def test_memory_decides_block_by_block() -> None:
    """Of 60-50-40-30-20-4 the first block is the largest, and a device of its size can train each."""
    need = {name: DEEP.training_bytes((name,)) for name in NAMES}
    assert max(need, key=need.__getitem__) == "0"
    roomy = Budget(memory_bytes=need["0"])
    assert roomy.choose(DEEP, ORDER, 10).blocks == NAMES
    assert replace(roomy, memory_bytes=need["0"] - 1).choose(DEEP, ORDER, 10).blocks == NAMES[1:]
    assert WHOLE.training_bytes() > need["0"]
    assert roomy.choose(WHOLE, order_of(WHOLE), 10).blocks == ()


def test_time_is_for_as_many_blocks_as_possible() -> None:
    """What is sent alone counts: the cheapest come first, the largest block last."""
    size = {name: 4 * DEEP.sizes[name] for name in NAMES}
    slow = Budget(up_bytes_per_second=1.0)
    for name in ("8", "6", "4"):
        enough = sum(size[other] for other in NAMES[NAMES.index(name) :])
        assert replace(slow, deadline_seconds=enough).choose(DEEP, ORDER, 10).blocks == NAMES[NAMES.index(name) :]
        assert len(replace(slow, deadline_seconds=enough - 1).choose(DEEP, ORDER, 10).blocks) == len(
            NAMES[NAMES.index(name) + 1 :]
        )


def test_the_whole_network_is_trained_however_late() -> None:
    late = Budget(plan="whole", deadline_seconds=1.0, flops_per_second=1.0)
    assert late.choose(DEEP, ORDER, 10).blocks == NAMES
    assert replace(late, plan="everything").choose(DEEP, ORDER, 10).blocks == ()
    assert replace(late, memory_bytes=DEEP.training_bytes(("2",))).choose(DEEP, ORDER, 10).blocks == ()


def test_the_first_blocks() -> None:
    assert Budget(plan="first", plan_blocks=2).choose(DEEP, ORDER, 10).blocks == ("0", "2")
    small = Budget(plan="first", memory_bytes=DEEP.training_bytes(("2",)))
    assert small.choose(DEEP, ORDER, 10).blocks == ("2",)


@pytest.mark.parametrize("blocks", [1, 2])
def test_rotation_comes_to_every_block_and_devices_are_at_different_ones(blocks: int) -> None:
    chosen = [
        [
            Budget(plan="rotation", plan_blocks=blocks, turn=turn).choose(DEEP, order_of(DEEP, n), 10).blocks
            for n in range(1, 6)
        ]
        for turn in range(5)
    ]
    for device in chosen:
        assert sorted(name for names in device for name in names) == sorted(NAMES * blocks)
    for at_once in zip(*chosen, strict=True):
        assert sorted(name for names in at_once for name in names) == sorted(NAMES * blocks)


def test_random_blocks_are_drawn_anew_for_every_order() -> None:
    device = Budget(plan="random", turn=3)
    chosen = [device.choose(DEEP, order_of(DEEP, n), 10).blocks for n in range(1, 51)]
    assert chosen == [device.choose(DEEP, order_of(DEEP, n), 10).blocks for n in range(1, 51)]
    counts = [sum(names == (name,) for names in chosen) for name in NAMES]
    assert sum(counts) == 50
    assert min(counts) >= 3


def test_what_the_server_assigns_is_trained_and_what_could_be_is_told() -> None:
    device = Budget(plan="assigned", memory_bytes=DEEP.training_bytes(("2",)))
    able = NAMES[1:]
    for name in able:
        choice = device.choose(DEEP, order_of(DEEP, 7, (name,)), 10)
        assert (choice.blocks, choice.trainable) == ((name,), able)
    unassigned = [device.choose(DEEP, order_of(DEEP, n), 10).blocks for n in range(1, 5)]
    assert sorted(unassigned) == sorted((name,) for name in able)
    assert Budget(plan="rotation").choose(DEEP, ORDER, 10).trainable == ()


def test_a_device_reports_what_it_could_train_unless_it_is_behind_a_gateway(
    make_learner, make_order, stream, samples
) -> None:
    learner = make_learner()
    devices = [
        Device.new(learner, stream([samples(4)]), budget=Budget(plan="assigned", turn=turn)) for turn in range(2)
    ]
    plans = [plan(make_order(learner), device) for device in devices]
    done = list(zip(plans, learn(plans), strict=True))
    alone = report(done[:1])
    assert (alone.trainable, alone.wanted) == (tuple(learner.sizes), 1)
    assert list(alone.weights) == ["0"]
    assert list(report(done[1:]).weights) == ["2"]
    assert (report(done).trainable, report(done).wanted) == ((), 0)


def test_a_device_without_room_for_a_prediction_takes_no_part(make_learner, make_order, stream, samples) -> None:
    device = Device.new(make_learner(), stream([samples(4)]), budget=Budget(memory_bytes=10.0))
    with pytest.raises(BudgetError, match=r"This device has 10 bytes of memory, but a prediction takes \d+"):
        plan(make_order(device.learner), device)
    assert device.stream.position == 0


def test_a_node_may_be_told_its_budget() -> None:
    config = {
        "budget.memory_bytes": 262_144,
        "budget.plan": "rotation",
        "partition-id": 4,
        "server.deadline_seconds": 30.0,
        "lr": 0.1,
    }
    assert Budget.from_config(config) == Budget(memory_bytes=262_144.0, plan="rotation", deadline_seconds=30.0, turn=4)
    assert Budget.from_config({**config, "budget.deadline_seconds": 5, "budget.turn": 1}).deadline_seconds == 5.0
    assert Budget.from_config({"partition-id": "kitchen"}) == Budget()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("memory", 1, "budget.memory is not a known key: a budget has memory_bytes, flops_per_second,"),
        ("memory_bytes", "1", "budget.memory_bytes is '1', but must be of type float"),
        ("memory_bytes", 0.0, "budget.memory_bytes is 0.0, but must be above 0"),
        ("deadline_seconds", math.nan, "budget.deadline_seconds is nan, but must be above 0"),
        ("plan", "best", 'budget.plan is "best", but must be one of everything, whole'),
        ("plan_blocks", 0, "budget.plan_blocks is 0, but must be at least 1"),
        ("plan_blocks", 1.0, "budget.plan_blocks is 1.0, but must be of type int"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(key, value, message) -> None:
    with pytest.raises(BudgetError, match=message):
        Budget.from_config({f"budget.{key}": value})
