from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from fedtp.data import (
    AnyConcept,
    Blur,
    Chain,
    Contrast,
    Gain,
    Generator,
    Identity,
    LabelSwap,
    Noise,
    Permutation,
    Prior,
    Rotation,
    Stuck,
    apply,
    between,
)
from fedtp.data.concepts import Concept
from fedtp.errors import DataError


def kinds(concept=Concept):
    for kind in concept.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_every_concept_can_be_named():
    union = get_args(get_args(AnyConcept)[0])
    assert set(kinds()) == set(union)
    names = [kind.model_fields["kind"].default for kind in union]
    assert len(set(names)) == len(names)


def test_every_concept_says_what_drift_it_is():
    for kind in set(kinds()) - {Identity, Chain}:
        assert any(
            f"{word} drift" in kind.__doc__ or f"{word}," in kind.__doc__ for word in ("virtual", "real", "prior")
        )


def test_identity_changes_nothing(digits):
    assert apply(Identity(), digits) is digits


def test_a_chain_applies_one_after_another(digits):
    concepts = [Rotation(degrees=90), LabelSwap(swaps=[(1, 2)]), Contrast(factor=0.5)]
    seen = digits
    for concept in concepts:
        seen = apply(concept, seen)
    chained = apply(Chain(concepts=concepts), digits)
    np.testing.assert_array_equal(chained.y, seen.y)
    np.testing.assert_allclose(chained.x, seen.x, atol=1e-6)


def test_the_links_of_a_chain_refer_to_the_data_before_all_of_them(digits):
    dim = apply(Contrast(factor=0.1), digits)
    noisy = apply(Chain(concepts=[Contrast(factor=0.1), Noise(sigma=0.1)]), digits)
    spread = digits.x.max() - digits.x.min()
    assert (noisy.x - dim.x).std() == pytest.approx(0.1 * spread, rel=0.1)


def test_noise_twice_is_not_the_same_noise_twice(sea):
    once = apply(Chain(concepts=[Noise(sigma=1)]), sea).x - sea.x
    twice = apply(Chain(concepts=[Noise(sigma=1), Noise(sigma=1)]), sea).x - sea.x
    assert abs(np.corrcoef(once.ravel(), (twice - once).ravel())[0, 1]) < 0.2


def test_a_generator_behind_others(sea):
    chain = Chain(concepts=[Gain(factor=2), Generator(parameters={"variant": 1})])
    with pytest.raises(DataError, match="behind other concepts"):
        apply(chain, sea)


@pytest.mark.parametrize(
    ("concept", "kind"),
    [
        (Gain(factor=2), "concept gain needs a table of features, which data set 'digits' is not"),
        (Generator(parameters={}), "concept generator needs a generator, which data set 'digits' is not"),
        (Chain(concepts=[Blur(sigma_pixels=1), Gain(factor=2)]), "concept gain needs a table"),
    ],
)
def test_concepts_that_do_not_suit_images(digits, concept, kind):
    with pytest.raises(DataError, match=kind):
        apply(concept, digits)


def test_a_table_cannot_be_turned(sea):
    with pytest.raises(DataError, match="rotation needs images, which data set 'sea' is not"):
        apply(Rotation(degrees=90), sea)


# Between two concepts.


@given(st.floats(-360, 360), st.floats(-360, 360), st.floats(0, 1))
def test_between_two_angles(first, last, share):
    angle = between(Rotation(degrees=first), Rotation(degrees=last), share).degrees
    assert min(first, last) - 1e-9 <= angle <= max(first, last) + 1e-9
    assert angle == pytest.approx((1 - share) * first + share * last)


def test_the_ends_are_the_concepts_themselves():
    one, other = Gain(factor=2, features=[1]), Gain(factor=-3, features=[1])
    assert between(one, other, 0) == one
    assert between(one, other, 1) == other


@pytest.mark.parametrize(
    ("concept", "half"),
    [
        (Rotation(degrees=90), Rotation(degrees=45)),
        (Contrast(factor=0.5), Contrast(factor=0.75)),
        (Gain(factor=-1, features=["f"]), Gain(factor=0, features=["f"])),
        (Prior(weights={"1": 5}), Prior(weights={"1": 3})),
        (Prior(weights={"1": 1}, others=0), Prior(weights={"1": 1}, others=0.5)),
        (
            Chain(concepts=[Noise(sigma=0.2), Rotation(degrees=10)]),
            Chain(concepts=[Noise(sigma=0.1), Rotation(degrees=5)]),
        ),
    ],
)
def test_half_way_to_and_from_the_data_as_it_is(concept, half):
    assert between(Identity(), concept, 0.5) == half
    assert between(concept, Identity(), 0.5) == half


def test_a_class_that_one_mix_does_not_name_moves_from_that_of_the_others():
    moved = between(Prior(weights={"1": 4}, others=2), Prior(weights={"2": 0}), 0.5)
    assert moved == Prior(weights={"1": 2.5, "2": 1}, others=1.5)


def test_what_is_equal_in_two_chains_stays():
    swap = LabelSwap(swaps=[(1, 2)])
    one, other = (Chain(concepts=[swap, Rotation(degrees=angle)]) for angle in (0, 60))
    assert between(one, other, 0.5) == Chain(concepts=[swap, Rotation(degrees=30)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Identity(), LabelSwap(swaps=[(1, 2)])),
        (Permutation(number=1), Permutation(number=2)),
        (Rotation(degrees=1), Blur(sigma_pixels=1)),
        (Gain(factor=2, features=[1]), Gain(factor=3, features=[2])),
        (Identity(), Stuck(value=2)),
        (Chain(concepts=[Blur(sigma_pixels=1)]), Blur(sigma_pixels=1)),
        (Chain(concepts=[Blur(sigma_pixels=1)]), Chain(concepts=[Blur(sigma_pixels=1), Contrast(factor=1)])),
        (Identity(), Chain(concepts=[Blur(sigma_pixels=1), Permutation()])),
        (Generator(parameters={"variant": 1}), Generator(parameters={"variant": 2})),
    ],
)
def test_there_is_nothing_between_some(one, other):
    with pytest.raises(DataError, match=f"nothing between the concepts {one.kind} and {other.kind}"):
        between(one, other, 0.5)


def test_stuck_values_move_between_each_other():
    assert between(Stuck(value=1), Stuck(value=3), 0.5) == Stuck(value=2)


# Reading them.


def test_concepts_are_told_apart_by_kind():
    read = TypeAdapter(AnyConcept).validate_python
    assert read({"kind": "rotation", "degrees": 90}) == Rotation(degrees=90)
    assert read({"kind": "label-swap", "swaps": [[1, "a"]]}) == LabelSwap(swaps=((1, "a"),))
    assert read({"kind": "gain", "factor": 2, "features": [1, "a"]}).features == (1, "a")
    values = {"a": True, "b": 1, "c": 1.0, "d": "1"}
    parameters = read({"kind": "generator", "parameters": values}).parameters
    assert [type(value) for value in parameters.values()] == [bool, int, float, str]


@pytest.mark.parametrize(
    "concept",
    [
        {"kind": "rotate", "degrees": 90},
        {"kind": "rotation"},
        {"kind": "rotation", "degrees": float("nan")},
        {"kind": "rotation", "degrees": 90, "angle": 1},
        {"kind": "label-swap", "swaps": []},
        {"kind": "label-swap", "swaps": [[1, 2, 3]]},
        {"kind": "gain", "factor": float("inf")},
        {"kind": "brightness", "change": 1.5},
        {"kind": "blur", "sigma_pixels": -1},
        {"kind": "missing", "share": 1.1},
        {"kind": "prior", "weights": {}},
        {"kind": "prior", "weights": {"1": -1}},
        {"kind": "groups", "groups": []},
        {"kind": "chain", "concepts": []},
        {"kind": "chain", "concepts": [{"kind": "chain", "concepts": [{"kind": "identity"}]}]},
    ],
)
def test_malformed_concepts(concept):
    with pytest.raises(ValidationError):
        TypeAdapter(AnyConcept).validate_python(concept)
