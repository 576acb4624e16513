from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from fedtp.errors import ModelError
from server.reactions import Reactions
from server.settings import ReactionSpec

INITIAL = {"0": np.arange(4, dtype=np.float32), "2": np.ones(2, np.float32)}
BLOCKS = ("0", "2")


def reactions(**spec: object) -> Reactions:
    return Reactions(ReactionSpec.model_validate(spec), INITIAL)


def told(given: Reactions, number: int, detections: Mapping[int, int]) -> None:
    for node, count in detections.items():
        given.note(node, number, count)


def test_devices_that_have_drifted_of_late_are_asked_first() -> None:
    given = reactions(reaction="participation", rounds=3)
    told(given, 1, {10: 0, 12: 1, 25: 2})
    told(given, 2, {12: 0, 13: 1})
    assert [set(given.first(number)) for number in (2, 3, 4, 5, 6)] == [
        {12, 25},
        {12, 13, 25},
        {12, 13, 25},
        {13},
        set(),
    ]


@pytest.mark.parametrize("reaction", ["none", "boost", "reset"])
def test_without_that_reaction_all_are_alike(reaction: str) -> None:
    given = reactions(reaction=reaction)
    told(given, 1, {12: 1})
    assert given.first(2) == frozenset()


def test_all_learn_faster_once_enough_have_drifted() -> None:
    given = reactions(reaction="boost", rounds=2, share=0.5, factor=3.0, blocks="last")
    told(given, 1, {1: 1, 2: 0, 3: 0, 4: 0})
    assert given.paces(BLOCKS, 2) == ()
    told(given, 2, {1: 0, 2: 1, 3: 0, 4: 0})
    assert [given.paces(BLOCKS, number) for number in (3, 4, 5)] == [(1.0, 3.0), (1.0, 3.0), ()]
    assert given.begun_anew(3) == {}


def test_paces_are_those_of_the_blocks_that_are_ordered() -> None:
    given = reactions(reaction="boost", factor=3.0, blocks="last")
    told(given, 1, {1: 1})
    assert (given.paces(("2",), 2), given.paces(("0",), 2), given.paces((), 2)) == ((3.0,), (1.0,), ())


def test_what_was_reported_long_ago_does_not_count() -> None:
    given = reactions(reaction="boost", rounds=2, share=0.5)
    told(given, 1, {1: 1, 2: 0, 3: 0, 4: 0})
    told(given, 3, {1: 0, 2: 1, 3: 0, 4: 0})
    assert given.paces(BLOCKS, 4) == ()


@pytest.mark.parametrize(("blocks", "names"), [("all", ["0", "2"]), ("last", ["2"])])
def test_blocks_begin_anew_once(blocks: str, names: list[str]) -> None:
    given = reactions(reaction="reset", rounds=2, blocks=blocks)
    told(given, 1, {1: 1, 2: 0})
    anew = given.begun_anew(2)
    assert list(anew) == names
    for name, packed in anew.items():
        np.testing.assert_array_equal(packed, INITIAL[name])
        assert not np.shares_memory(packed, INITIAL[name])
    assert given.begun_anew(2) == {}
    told(given, 2, {1: 1, 2: 1})  # the same drift
    assert given.begun_anew(3) == {}
    told(given, 3, {1: 1, 2: 1})
    assert list(given.begun_anew(4)) == names
    assert given.paces(BLOCKS, 4) == ()


@pytest.mark.parametrize("reaction", ["none", "participation", "boost", "reset"])
def test_nobody_reacts_to_nothing(reaction: str) -> None:
    given = reactions(reaction=reaction)
    assert (given.paces(BLOCKS, 1), given.begun_anew(1), given.first(1)) == ((), {}, frozenset())
    told(given, 1, {1: 0})
    assert (given.paces(BLOCKS, 2), given.begun_anew(2), given.first(2)) == ((), {}, frozenset())


def test_settings_cross_the_run_config() -> None:
    spec = ReactionSpec(reaction="reset", blocks="last", share=0.7)
    assert ReactionSpec.from_config({**spec.to_config(), "server.rounds": 1}) == spec
    assert ReactionSpec.from_config({}) == ReactionSpec()
    with pytest.raises(ModelError, match=r"reactions\.share"):
        ReactionSpec.from_config({"reactions.share": 0.0})
