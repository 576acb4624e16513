"""What the server knows between two rounds is saved, all of it, and no more than once."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest

from fedtp.errors import DataError
from fedtp.streaming.state import Part, State
from fedtp.wire import Report
from server.aggregation import FlowerAggregation, aggregation_for
from server.app import run_schedule, weights_of
from server.assignment import Assignment
from server.buffered import Buffered, Buffers, Dispatcher
from server.layerwise import LayerwiseStrategy
from server.mailbox import Mailbox
from server.notes import by_node, of_nodes
from server.privacy import NoisyMean
from server.reactions import Reactions
from server.round import Round
from server.settings import PrivacySpec, ReactionSpec, ServerSpec
from server.synchronous import Synchronous

A, B, C = 101, 102, 2**64 - 1
OPTIONS = {
    "FedAvgM": {"server_momentum": 0.5, "server_learning_rate": 0.7},
    "Krum": {"num_malicious_nodes": 1},
    "MultiKrum": {"num_malicious_nodes": 1},
}
FLOWERS = [name for name in get_args(ServerSpec.model_fields["strategy"].annotation) if name != "mean"]


def flowers(name: str) -> FlowerAggregation:
    made = aggregation_for(name, OPTIONS.get(name, {}))()
    assert isinstance(made, FlowerAggregation)
    return made


def call(aggregation: FlowerAggregation, number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    updates = [(rng.normal(size=3).astype(np.float32), 10) for _ in range(7)]
    return aggregation(rng.normal(size=3).astype(np.float32), updates)


@pytest.fixture
def saved(make_learner, make_grid) -> Callable[..., State]:
    """The state of a server after the first of some rounds."""

    def run(**settings: object) -> State:
        grid = make_grid({A: lambda _: 1.0, B: lambda _: 70.0})
        done: list[State] = []
        spec = ServerSpec(rounds=2, **settings)
        run_schedule(grid, make_learner(), spec, grid.clock, lambda round_: done.append(round_.state()))
        return done[0]

    return run


@pytest.mark.parametrize("name", FLOWERS)
def test_flowers_strategies_go_on_where_another_was(name: str) -> None:
    one = flowers(name)
    for number in range(3):
        call(one, number)
        other = flowers(name)
        other.load_state(one.state())
        assert other.state().record == one.state().record
        one = other if number == 1 else one
    whole = flowers(name)
    for number in range(3):
        call(whole, number)
    for number in (3, 4):
        np.testing.assert_array_equal(call(other, number), call(whole, number))


@pytest.mark.parametrize("name", FLOWERS)
def test_all_that_changes_in_one_of_flowers_strategies_is_saved(name: str) -> None:
    """A new version of Flower may have strategies remember more, or in another form."""
    aggregation = flowers(name)
    before = dict(vars(aggregation.strategy))
    call(aggregation, 1)
    after = vars(aggregation.strategy)
    assert before.keys() == after.keys()
    assert aggregation.state().arrays.keys() == {key for key in after if after[key] is not before[key]}
    assert vars(aggregation).keys() == {"strategy", "_round"}


def test_what_another_strategy_remembers_is_refused() -> None:
    adam = flowers("FedAdam")
    call(adam, 1)
    with pytest.raises(DataError, match="Flower's FedMedian remembers no 'current_arrays'"):
        flowers("FedMedian").load_state(adam.state())
    with pytest.raises(DataError, match="does not say what its arrays are"):
        flowers("FedAdam").load_state(State(adam.state().arrays, {"round": 1, "forms": {}}))


def test_what_nodes_share_is_saved_once(make_learner, make_grid) -> None:
    strategy = LayerwiseStrategy(make_learner())
    grid = make_grid(dict.fromkeys((A, B, C), lambda _: 0.0))
    mailbox, other = Mailbox(grid), Mailbox(grid)
    mailbox.send(strategy.orders([A, B], 1, 0.5))
    strategy.aggregate({"2": [(strategy.weights["2"] + 1, 5)]})
    mailbox.send(strategy.orders([C], 2, 60.0))
    state = mailbox.state()
    assert len(state.arrays) == 3  # block "0" is the same in all orders
    other.load_state(state)
    assert list(other.waiting) == list(mailbox.waiting)
    for message_id, sent in other.waiting.items():
        was = mailbox.waiting[message_id]
        assert (sent.key, sent.versions, sent.order.blocks) == (was.key, was.versions, was.order.blocks)
        assert sent.order.to_records() == was.order.to_records()
    first, second, third = other.waiting.values()
    assert first.order is second.order
    assert first.order.weights["0"] is third.order.weights["0"]
    with pytest.raises(DataError, match="weights, is missing"):
        other.load_state(State({"0": state.arrays["0"]}, state.record))


def test_what_is_known_of_nodes_is_read_back() -> None:
    """By ids of 64 bits, of which a float would know 53."""
    found = {C: ("0", 1), A: ("2", 2), B: ("0", 1), C - 1: ("2", 2)}
    rows, values = by_node(found)
    assert of_nodes(State({"rows": rows}), "rows", values) == found
    assert list(of_nodes(State({"rows": rows}), "rows", values)) == list(found)
    assert of_nodes(State({"rows": by_node({})[0]}), "rows", []) == {}
    with pytest.raises(DataError, match="names more than there is"):
        of_nodes(State({"rows": rows}), "rows", values[:1])


def test_the_weights_of_a_saved_server_are_those_of_its_round(make_learner, make_grid) -> None:
    grid = make_grid({A: lambda _: 0.0})
    done: list[tuple[Round, State]] = []
    spec = ServerSpec(rounds=2)
    run_schedule(grid, make_learner(), spec, grid.clock, lambda round_: done.append((round_, round_.state())))
    for round_, state in done:
        found = weights_of(state)
        assert found.keys() == round_.weights.keys()
        for name, packed in round_.weights.items():
            np.testing.assert_array_equal(found[name], packed)


@pytest.mark.parametrize("mode", ["synchronous", "buffered"])
def test_what_another_server_knew_is_refused(saved, make_learner, make_grid, mode: str) -> None:
    state = saved(mode=mode)

    def go_on(learner, state: State, **settings: object) -> None:
        grid = make_grid({A: lambda _: 0.0})
        spec = ServerSpec(rounds=2, **{"mode": mode, **settings})
        run_schedule(grid, learner, spec, grid.clock, lambda _: None, begun=state)

    other = {"synchronous": "buffered", "buffered": "synchronous"}[mode]
    with pytest.raises(DataError, match="mailbox is not in both"):
        go_on(make_learner(), state, mode=other)
    with pytest.raises(DataError, match="block 0, block 2 is not in both"):
        go_on(make_learner(), state, strategy="FedAdam")
    with pytest.raises(DataError, match=r"the array '0' is float32 \[\d+\], not float32 \[\d+\]"):
        go_on(make_learner(hidden=(9,)), state)
    with pytest.raises(DataError, match="is not in both"):
        go_on(make_learner(), State({}, {}))


def test_what_was_noted_of_nodes_is_taken_over(make_learner, make_grid) -> None:
    grid = make_grid({A: lambda _: 1.0, B: lambda _: 1.0, C: lambda _: 1.0})
    strategy, spec = (
        LayerwiseStrategy(make_learner(), reactions=ReactionSpec(reaction="reset")),
        ServerSpec(fraction=0.5),
    )

    def make() -> list[Part]:
        reactions = Reactions(strategy.reactions.spec, strategy.weights)
        return [Assignment(["0", "2"]), reactions, Dispatcher(grid, strategy, spec)]

    assignment, reactions, dispatcher = parts = make()
    assignment.note(A, Report("", weights={"2": np.zeros(2, np.float32)}, trainable=("0", "2"), wanted=1))
    assignment.note(C, Report("", weights={"0": np.zeros(2, np.float32)}))
    for node, number, detections in ((A, 1, 1), (B, 2, 0), (C, 2, 1)):
        reactions.note(node, number, detections)
    assert reactions.begun_anew(3)
    assert dispatcher.dispatch(1, 0.0)
    assert not dispatcher.dispatch(1, 60.0)
    for part, fresh in zip(parts, make(), strict=True):
        assert known(fresh) != known(part)
        fresh.load_state(part.state())
        assert known(fresh) == known(part)


def known(part: Part) -> dict[str, object]:
    """What a part has noted of nodes: all of its fields that are numbers, or dicts of what is not an array."""
    fields = {key: value for key, value in vars(part).items() if isinstance(value, int | dict)}
    return {key: value for key, value in fields.items() if key != "_initial"}


@pytest.mark.parametrize("part", [Assignment(["0", "2"]), Reactions(ReactionSpec(), {})])
def test_notes_of_something_else_are_refused(part: Part) -> None:
    whole = part.state()
    with pytest.raises(DataError, match="of its notes do not fit"):
        part.load_state(State(whole.arrays, {**whole.record, "more": 1}))
    with pytest.raises(DataError, match="is missing"):
        part.load_state(State({}, whole.record))


def test_assignments_are_of_the_same_blocks() -> None:
    assignment = Assignment(["0", "2"])
    assignment.note(A, Report("", trainable=("0",), wanted=1))
    with pytest.raises(DataError, match="it is of the blocks 0, 2, not 0, 2, 4"):
        Assignment(["0", "2", "4"]).load_state(assignment.state())


def test_all_that_the_server_knows_is_saved(make_learner, make_grid) -> None:
    """Whoever lets one of these remember more has to save that too, in `state` and `load_state`, and name it here.

    A schedule carries nothing from one round to the next but what is in its fields.
    """
    grid = make_grid({A: lambda _: 0.0})
    strategy = LayerwiseStrategy(make_learner())
    spec = ServerSpec()
    constant = {"_grid", "_strategy", "_spec", "_clock", "_size", "_weight", "_blocks", "spec", "_initial"}
    constant |= {"learner", "_lr", "_after", "_rounds", "_bound", "_deviation", "_seed", "_block"}
    synchronous = Synchronous(grid, strategy, spec, grid.clock)
    buffered = Buffered(grid, strategy, spec, grid.clock)
    remembered: list[tuple[object, set[str]]] = [
        (synchronous, {"number", "start", "mailbox"}),
        (buffered, {"number", "dispatcher", "buffers"}),
        (Dispatcher(grid, strategy, spec), {"mailbox", "_times", "_last"}),
        (Buffers(strategy, spec), {"_updates"}),
        (Mailbox(grid), {"waiting"}),
        (
            strategy,
            {
                "weights",
                "versions",
                "_aggregations",
                "_assignment",
                "reactions",
                "heard",
                "reputation",
                "_norms",
                "privacy",
            },
        ),
        (strategy._assignment, {"_wishes", "_latest", "coverage"}),
        (strategy.reputation, {"_strikes", "_until", "_times"}),
        (strategy._norms, {"_latest"}),
        (strategy.privacy, {"_times"}),
        (NoisyMean(PrivacySpec(clip=1.0, noise=1.0), 1, 0), {"_times"}),
        (strategy.reactions, {"_reported", "_drifted", "_began", "_ends", "_anew"}),
    ]
    for part, names in remembered:
        assert vars(part).keys() - constant == names, type(part).__name__
        assert isinstance(part, Part)
