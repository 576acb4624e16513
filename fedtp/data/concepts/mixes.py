"""Concepts that change which samples are drawn, not what they are like."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat

from fedtp.data.concepts.concept import Concept, Need, index_of
from fedtp.data.dataset import DataSet
from fedtp.errors import DataError

Weight = Annotated[FiniteFloat, Field(ge=0, le=1e9)]


class Prior(Concept):
    """Some classes become more, others less frequent (prior drift).

    Parameters
    ----------
    weights
        How many times as often as before the samples of each class are drawn, in relation to the others, by the
        class's label.
    others
        The same for the classes that are not named.
    """

    kind: Literal["prior"] = "prior"
    weights: Annotated[dict[str, Weight], Field(min_length=1)]
    others: Weight = 1.0

    needs: ClassVar[Need] = "unordered samples"

    def see(self, dataset: DataSet, original: DataSet, seed: tuple[int, ...]) -> DataSet:
        """Weigh every sample by its class."""
        of_class = np.full(len(dataset.classes), float(self.others))
        for label, weight in self.weights.items():
            of_class[index_of(label, dataset.classes, "class", dataset)] = weight
        return _weighed(dataset, of_class[dataset.y], "prior")

    def at_rest(self) -> Self | None:
        """Return the concept under which all classes are as frequent as before."""
        return self.model_copy(update={"weights": dict.fromkeys(self.weights, 1.0), "others": 1.0})

    def toward(self, other: Concept, share: float) -> Concept | None:
        """Return the mix at a share of the way to another."""
        if not isinstance(other, Prior):
            return None
        pairs = {
            label: (self.weights.get(label, self.others), other.weights.get(label, other.others))
            for label in (*self.weights, *other.weights)
        }
        weights = {label: (1 - share) * start + share * end for label, (start, end) in pairs.items()}
        return Prior(weights=weights, others=(1 - share) * self.others + share * other.others)


class Groups(Concept):
    """Only the samples of some groups come, such as those of one speaker (virtual drift: a shift of domain).

    Parameters
    ----------
    groups
        Their names.
    """

    kind: Literal["groups"] = "groups"
    groups: Annotated[tuple[str, ...], Field(min_length=1)]

    needs: ClassVar[Need] = "groups of samples"

    def see(self, dataset: DataSet, original: DataSet, seed: tuple[int, ...]) -> DataSet:
        """Leave the other groups out."""
        known = sorted(set(dataset.groups))
        for name in self.groups:
            index_of(name, known, "group", dataset)
        return _weighed(dataset, np.isin(dataset.groups, list(self.groups)).astype(np.float64), "groups")


def _weighed(dataset: DataSet, weights: NDArray[np.float64], kind: str) -> DataSet:
    if dataset.weights is not None:
        weights = weights * dataset.weights
    if not weights.any():
        raise DataError(f"concept {kind} leaves no sample of data set {dataset.name!r}")
    return replace(dataset, weights=weights)
