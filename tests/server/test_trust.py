"""Norms that are far off, and nodes that are asked no more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtp.errors import DataError, WireError
from fedtp.streaming.state import State
from server.app import run_schedule
from server.norms import FEW, WINDOW, Norms
from server.reputation import Reputation
from server.settings import ServerSpec, TrustSpec

A, B, C = 101, 102, 2**64 - 1
SENT = {"0": np.ones(4, np.float32), "2": np.zeros(2, np.float32)}


def update(zero: float, two: float = 1.0) -> dict[str, np.ndarray]:
    return {"0": SENT["0"] + np.float32(zero), "2": SENT["2"] + np.float32(two)}


def test_the_bound_is_of_what_was_changed_block_by_block() -> None:
    norms = Norms(3.0, ["0", "2"])
    for _ in range(FEW):
        norms.check(update(1.0), SENT)
    norms.check(update(2.9, 2.9), SENT)
    with pytest.raises(WireError, match="block '2' has a norm of"):
        norms.check(update(1.0, 3.5), SENT)
    norms.check({"0": update(2.9)["0"]}, SENT)


def test_what_is_refused_does_not_move_the_median_and_the_fleet_does() -> None:
    norms = Norms(3.0, ["0", "2"])
    for _ in range(FEW):
        norms.check(update(1.0), SENT)
    for _ in range(WINDOW):
        with pytest.raises(WireError):
            norms.check(update(50.0), SENT)
    # A drift: all have more to learn than before, within the bound.
    for size in np.geomspace(1, 50, 4 * WINDOW):
        norms.check(update(size), SENT)


def test_before_there_are_a_few_nothing_is_too_far() -> None:
    norms = Norms(2.0, ["0", "2"])
    for _ in range(FEW - 1):
        norms.check(update(1.0), SENT)
    norms.check(update(1000.0), SENT)
    with pytest.raises(WireError):
        norms.check(update(1000.0), SENT)


def test_norms_go_on_where_others_were() -> None:
    norms, other = Norms(3.0, ["0", "2"]), Norms(3.0, ["0", "2"])
    for _ in range(FEW):
        norms.check(update(1.0), SENT)
    other.load_state(norms.state())
    with pytest.raises(WireError):
        other.check(update(4.0), SENT)
    with pytest.raises(DataError):
        other.load_state(State({"0": np.zeros(3)}))


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.sampled_from(["", "norm", "quorum"])), max_size=60))
def test_reputation_goes_on_where_another_was(notes: list[tuple[int, str]]) -> None:
    one = Reputation(2, 3)
    for number, (node, reason) in enumerate(notes, 1):
        if number == len(notes) // 2:
            other = Reputation(2, 3)
            other.load_state(one.state())
            one = other
        one.note(node, number, reason)
    whole = Reputation(2, 3)
    for number, (node, reason) in enumerate(notes, 1):
        whole.note(node, number, reason)
    for number in range(1, 100):
        assert set(one.quarantined(number)) == set(whole.quarantined(number))


def test_good_updates_make_up_for_bad_ones() -> None:
    reputation = Reputation(3, 5)
    for number in range(1, 20):
        reputation.note(A, number, "norm" if number % 2 else "")
    assert A not in reputation.quarantined(20)
    for number in (20, 21, 22):
        reputation.note(A, number, "digest")
    assert A in reputation.quarantined(23)


def test_what_is_not_the_devices_fault_does_not_count() -> None:
    reputation = Reputation(1, 5)
    reputation.note(A, 1, "quorum")
    assert not reputation.quarantined(2)
    reputation.note(A, 1, "device error")
    assert A in reputation.quarantined(2)


@pytest.mark.parametrize("mode", ["synchronous", "buffered"])
def test_a_node_in_quarantine_gets_no_orders_and_comes_back(make_learner, make_grid, honestly, mode: str) -> None:
    grid = make_grid({A: lambda _: 0.1, B: lambda _: 0.1})

    def answer(message, order):
        reply = honestly(message, order)
        if message.metadata.dst_node_id == B:
            reply.content["report"]["digest"] = "other"
        return reply

    grid.answer = answer
    spec = ServerSpec(mode=mode, rounds=20, round_seconds=10.0, buffer_size=1)
    trust = TrustSpec(quarantine_after=2, quarantine_rounds=4)
    run_schedule(grid, make_learner(), spec, grid.clock, lambda _: None, trust=trust)
    assert sorted(set(grid.rounds_of(A))) == list(range(1, 21))
    # Two strikes, four rounds, one more strike, eight rounds, and so on.
    assert sorted(set(grid.rounds_of(B))) == [1, 2, 7, 16]
