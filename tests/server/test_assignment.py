"""Every block is asked of somebody, wherever somebody can."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedtp.wire import Report
from server.assignment import Assignment

BLOCKS = ("a", "b", "c", "d")
WISHES = st.dictionaries(
    st.integers(1, 12), st.tuples(st.sets(st.sampled_from(BLOCKS), min_size=1), st.integers(1, 4)), max_size=8
)


def report(*trained: str, trainable: tuple[str, ...] = (), wanted: int = 0) -> Report:
    return Report(
        "",
        dict.fromkeys(trained, np.zeros(1, np.float32)),
        dict.fromkeys(trained, 1),
        1,
        0,
        trainable=trainable,
        wanted=wanted,
    )


@given(wishes=WISHES, others=st.sets(st.integers(20, 25)))
def test_nodes_are_asked_for_what_they_can_and_as_much_as_they_want(wishes, others) -> None:
    assignment = Assignment(BLOCKS)
    for node, (names, wanted) in wishes.items():
        assignment.note(node, report(trainable=tuple(sorted(names)), wanted=wanted))
    chosen = assignment.choose([*wishes, *others])
    assert list(chosen) == [*wishes, *others]
    for node, (names, wanted) in wishes.items():
        assert set(chosen[node]) <= names
        assert len(chosen[node]) == min(wanted, len(names))
        assert list(chosen[node]) == sorted(chosen[node])
    assert all(chosen[node] == BLOCKS for node in others)


@given(count=st.integers(4, 30), rounds=st.integers(1, 5))
def test_alike_nodes_share_the_blocks_evenly(count, rounds) -> None:
    assignment = Assignment(BLOCKS)
    for node in range(count):
        assignment.note(node, report(trainable=BLOCKS, wanted=1))
    for _ in range(rounds):
        chosen = assignment.choose(range(count))
        counts = Counter(name for names in chosen.values() for name in names)
        assert max(counts.values()) - min(counts[name] for name in BLOCKS) <= 1
        for node, names in chosen.items():
            assignment.note(node, report(*names, trainable=BLOCKS, wanted=1))
    assert max(assignment.coverage.values()) - min(assignment.coverage.values()) <= 1


def test_those_with_little_choice_come_first() -> None:
    assignment = Assignment(BLOCKS)
    assignment.note(1, report(trainable=("a", "b"), wanted=1))
    assignment.note(2, report(trainable=("a",), wanted=1))
    assert assignment.choose([1, 2]) == {1: ("b",), 2: ("a",)}


def test_what_others_trained_last_is_expected_of_them_again() -> None:
    assignment = Assignment(BLOCKS)
    assignment.note(1, report("a", "b", "c"))
    assignment.note(2, report(trainable=BLOCKS, wanted=1))
    assert assignment.choose([1, 2])[2] == ("d",)
    # Without that node in the round, blocks are wanted that have had the fewest updates.
    assert assignment.choose([2])[2] == ("d",)
    assignment.note(2, report("d", trainable=BLOCKS, wanted=1))
    assignment.note(2, report("d", trainable=BLOCKS, wanted=1))
    assert assignment.choose([2])[2] == ("a",)


def test_a_node_that_had_no_samples_keeps_its_wish() -> None:
    assignment = Assignment(BLOCKS)
    assignment.note(1, report(trainable=("b",), wanted=1))
    assignment.note(1, report())
    assert assignment.choose([1]) == {1: ("b",)}
