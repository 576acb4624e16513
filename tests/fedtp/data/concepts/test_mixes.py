import numpy as np
import pytest

from fedtp.data import Chain, Generator, Groups, Prior, apply
from fedtp.errors import DataError


def test_classes_weigh_as_told_and_the_others_as_before(digits):
    seen = apply(Prior(weights={"3": 4, "7": 0}), digits)
    for label, weight in ((3, 4), (7, 0), (5, 1)):
        assert (seen.weights[digits.y == label] == weight).all()
    assert seen.x is digits.x
    assert seen.y is digits.y
    assert (apply(Prior(weights={"3": 1}, others=0), digits).weights == (digits.y == 3)).all()


def test_only_some_groups_come(speakers):
    seen = apply(Groups(groups=["bo", "al"]), speakers)
    assert seen.weights.tolist() == [1, 1, 0, 1]


def test_weights_multiply(speakers):
    both = apply(Chain(concepts=[Groups(groups=["al"]), Prior(weights={"no": 3})]), speakers)
    assert both.weights.tolist() == [1, 0, 0, 3]


def test_rows_keep_their_weights(digits):
    seen = apply(Prior(weights={"3": 4}), digits)
    rows = np.array([3, 13, 0])
    assert seen.rows(rows).weights.tolist() == seen.weights[rows].tolist()


@pytest.mark.parametrize(
    ("concept", "problem"),
    [
        (Prior(weights={"maybe": 2}), "has no class 'maybe': name one of yes, no"),
        (Prior(weights={"yes": 0, "no": 0}), "concept prior leaves no sample of data set 'talk'"),
        (Groups(groups=["cy", "di"]), "has no group 'di': name one of al, bo, cy"),
        (Chain(concepts=[Groups(groups=["bo"]), Prior(weights={"yes": 0})]), "leaves no sample"),
    ],
)
def test_what_is_not_there(speakers, concept, problem):
    with pytest.raises(DataError, match=problem):
        apply(concept, speakers)


def test_what_does_not_suit(digits, sea):
    with pytest.raises(DataError, match="concept groups needs groups of samples, which data set 'digits' is not"):
        apply(Groups(groups=["x"]), digits)
    with pytest.raises(DataError, match="concept prior needs unordered samples"):
        apply(Prior(weights={"0": 2}), ordered(sea))


def test_a_generator_keeps_the_weights_of_nobody(sea):
    """Samples drawn anew are other samples: what weighs them comes behind the generator."""
    chain = Chain(concepts=[Generator(parameters={"variant": 3}), Prior(weights={"1": 3})])
    seen = apply(chain, sea)
    assert (seen.weights == np.where(seen.y == 1, 3, 1)).all()


def ordered(dataset):
    from dataclasses import replace

    return replace(dataset, ordered=True)
