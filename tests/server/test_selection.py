from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.selection import choose


@given(st.sets(st.integers(1, 2**64 - 1), max_size=30), st.integers(0, 40))
def test_it_chooses_as_many_as_are_wanted_and_there(nodes: set[int], count: int) -> None:
    chosen = choose(nodes, count, 1, 2)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= nodes
    assert len(chosen) == min(count, len(nodes))


def test_the_choice_follows_from_its_key_alone() -> None:
    nodes = range(1, 101)
    first = choose(nodes, 20, 0, 1)
    assert first == choose(list(reversed(nodes)), 20, 0, 1)
    assert first != choose(nodes, 20, 0, 2)
    assert first != choose(nodes, 20, 1, 1)


def test_all_nodes_are_chosen_alike() -> None:
    times = dict.fromkeys(range(10), 0)
    for number in range(1000):
        for node in choose(times, 3, 5, number):
            times[node] += 1
    assert all(count == pytest.approx(300, abs=60) for count in times.values())


@given(st.integers(1, 12), st.sets(st.integers(0, 15)), st.integers(0, 1000))
def test_some_are_chosen_before_the_others(count: int, first: set[int], number: int) -> None:
    nodes = range(12)
    chosen = choose(nodes, count, 5, number, first=first)
    assert len(chosen) == min(count, 12)
    assert len(first & set(chosen)) == min(count, len(first & set(nodes)))


def test_who_comes_beside_them_is_left_to_chance() -> None:
    seen = [choose(range(10), 3, 5, number, first={4, 7}) for number in range(200)]
    assert set().union(*seen) == set(range(10))
    alone = [choose(range(10), 1, 5, number, first={4, 7})[0] for number in range(200)]
    assert set(alone) == {4, 7}
