"""Any concept: applied to a data set, several one after another, and what lies between two of them."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field

from fedtp.data.concepts.concept import Concept
from fedtp.data.concepts.images import Blur, Brightness, Contrast, Rotation
from fedtp.data.concepts.labels import Generator, LabelSwap
from fedtp.data.concepts.mixes import Groups, Prior
from fedtp.data.concepts.tables import Gain, Missing, Noise, Offset, Permutation, Stuck
from fedtp.data.dataset import DataSet
from fedtp.errors import DataError


class Identity(Concept):
    """The data set as it is."""

    kind: Literal["identity"] = "identity"

    def see(self, dataset: DataSet, original: DataSet, seed: tuple[int, ...]) -> DataSet:
        """Leave everything as it is."""
        return dataset


_Single: TypeAlias = (
    Identity
    | Rotation
    | Blur
    | Brightness
    | Contrast
    | Permutation
    | Noise
    | Gain
    | Offset
    | Missing
    | Stuck
    | LabelSwap
    | Generator
    | Prior
    | Groups
)


class Chain(Concept):
    """Several changes at once.

    Parameters
    ----------
    concepts
        What they are, in the order in which they are applied. A generator comes first, since it draws samples anew.
    """

    kind: Literal["chain"] = "chain"
    concepts: Annotated[tuple[Annotated[_Single, Field(discriminator="kind")], ...], Field(min_length=1)]

    def see(self, dataset: DataSet, original: DataSet, seed: tuple[int, ...]) -> DataSet:
        """Apply one after another."""
        for number, concept in enumerate(self.concepts):
            if number and isinstance(concept, Generator):
                raise DataError("concept chain has a generator behind other concepts, whose work it would undo")
            dataset = concept.see(dataset, original, (*seed, number))
        return dataset

    def check(self, dataset: DataSet) -> None:
        """Refuse a data set that one of the concepts does not suit."""
        for concept in self.concepts:
            concept.check(dataset)

    def at_rest(self) -> Self | None:
        """Return a chain of concepts that change nothing, if there are such of all."""
        resting = [concept.at_rest() for concept in self.concepts]
        return None if None in resting else self.model_copy(update={"concepts": tuple(resting)})

    def toward(self, other: Concept, share: float) -> Concept | None:
        """Return the chain at a share of the way to another, link by link."""
        if not isinstance(other, Chain) or len(other.concepts) != len(self.concepts):
            return None
        moved = [_between(*pair, share) for pair in zip(self.concepts, other.concepts, strict=True)]
        return None if None in moved else self.model_copy(update={"concepts": tuple(moved)})


AnyConcept: TypeAlias = Annotated[_Single | Chain, Field(discriminator="kind")]


def apply(concept: Concept, dataset: DataSet, seed: int = 0) -> DataSet:
    """See a whole data set under a concept.

    Parameters
    ----------
    concept
        What becomes of the data.
    dataset
        A data set as `load` gives it; row i of the result is row i of it, except under `Generator`, which
        draws rows anew.
    seed
        What noise, missing readings and permutations are drawn from.

    Returns
    -------
    DataSet
        A data set with as many rows; arrays that do not change are shared with `dataset`. Where the concept is about
        which samples are drawn (`Prior`, `Groups`), `DataSet.weights` says how often each is.

    Raises
    ------
    DataError
        If the concept does not suit the data: rotation needs images, gain a table, a generator concept a
        data set drawn from a generator; and if a class, a feature or a parameter does not exist.

    Examples
    --------
    >>> from fedtp.data import load
    >>> digits = load("digits")
    >>> digits.y[:5], apply(LabelSwap(swaps=[(1, 2), (3, "4")]), digits).y[:5]
    (array([0, 1, 2, 3, 4]), array([0, 2, 1, 4, 3]))
    """
    concept.check(dataset)
    return concept.see(dataset, dataset, (seed,))


def between(one: Concept, other: Concept, share: float) -> Concept:
    """Return the concept on the way from one to another, as in incremental drift.

    Parameters
    ----------
    one, other
        Two of a kind that differ in numbers that can move (`Concept.moving`) only; or chains of such. One of them may
        be `Identity`, which is the other with the strength that changes nothing.
    share
        How far, from 0 to 1.

    Raises
    ------
    DataError
        If there is nothing between them: that classes have changed names, say, is either so or not.

    Examples
    --------
    >>> between(Identity(), Rotation(degrees=90), 0.25)
    Rotation(kind='rotation', degrees=22.5)
    >>> between(Identity(), LabelSwap(swaps=[(1, 2)]), 0.25)
    Traceback (most recent call last):
    fedtp.errors.DataError: there is nothing between the concepts identity and label-swap: an incremental drift ...
    """
    moved = _between(one, other, share)
    if moved is None:
        raise DataError(
            f"there is nothing between the concepts {one.kind} and {other.kind}: an incremental drift moves the "
            "strength of a change, and all else must be equal; take a sudden or a gradual drift"
        )
    return moved


def _between(one: Concept, other: Concept, share: float) -> Concept | None:
    if one == other:
        return one
    start = other.at_rest() if isinstance(one, Identity) else one
    end = one.at_rest() if isinstance(other, Identity) else other
    return None if start is None or end is None else start.toward(end, share)
