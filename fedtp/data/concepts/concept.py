"""What every concept is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from fedtp.data.dataset import DataSet, Features
from fedtp.errors import DataError

Need: TypeAlias = Literal["", "images", "a table of features", "a generator", "unordered samples", "groups of samples"]

_FITS: Mapping[Need, Callable[[DataSet], bool]] = {
    "": lambda dataset: True,
    "images": lambda dataset: dataset.is_image,
    "a table of features": lambda dataset: not dataset.is_image,
    "a generator": lambda dataset: dataset.generate is not None,
    "unordered samples": lambda dataset: not dataset.ordered,
    "groups of samples": lambda dataset: bool(dataset.groups) and not dataset.ordered,
}


class Concept(BaseModel, ABC):
    """One distribution of data, told as what becomes of a data set.

    A concept is a *virtual* drift if it changes the inputs P(x), a *real* one if it changes what is true of them,
    P(y|x), and a *prior* one if it changes how frequent the classes are, P(y).

    Parameters
    ----------
    kind
        Its name.

    Attributes
    ----------
    needs
        What a data set has to be for the concept to suit it; empty: anything.
    moving
        The numbers that may move little by little, each with the value at which it changes nothing; None where
        there is no such value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    needs: ClassVar[Need] = ""
    moving: ClassVar[Mapping[str, float | None]] = {}

    kind: str

    @abstractmethod
    def see(self, dataset: DataSet, original: DataSet, seed: tuple[int, ...]) -> DataSet:
        """See a data set under the concept.

        Parameters
        ----------
        dataset
            What the concept is applied to.
        original
            The data set before any concept: its levels are what parameters refer to.
        seed
            What randomness is drawn from.
        """

    def check(self, dataset: DataSet) -> None:
        """Refuse a data set that the concept does not suit."""
        if not _FITS[self.needs](dataset):
            raise DataError(f"concept {self.kind} needs {self.needs}, which data set {dataset.name!r} is not")

    def at_rest(self) -> Self | None:
        """Return a concept like this one that changes nothing, if there is one."""
        rest = dict(self.moving)
        return self.model_copy(update=rest) if rest and None not in rest.values() else None

    def toward(self, other: Concept, share: float) -> Concept | None:
        """Return the concept at a share of the way to another, if the two differ in numbers that move and no more."""
        if self == other:
            return self
        rest = {key: getattr(self, key) for key in self.moving}
        if not isinstance(other, type(self)) or other.model_copy(update=rest) != self:
            return None
        moved = {key: (1 - share) * value + share * getattr(other, key) for key, value in rest.items()}
        return self.model_copy(update=moved)


def generator(seed: tuple[int, ...]) -> np.random.Generator:
    """Return a generator for a seed and what it is refined by."""
    return np.random.default_rng(np.random.SeedSequence(seed[0], spawn_key=seed[1:]))


def index_of(key: int | str, known: Sequence[str], what: str, dataset: DataSet) -> int:
    """Return the index of a class or a feature that is named by its label or its index.

    Raises
    ------
    DataError
        If there is none.
    """
    if isinstance(key, str) and key in known:
        return known.index(key)
    if isinstance(key, int) and 0 <= key < len(known):
        return key
    raise DataError(
        f"data set {dataset.name!r} has no {what} {key!r}: name one of {', '.join(known[:20])}"
        f"{', ...' if len(known) > 20 else ''}, or its index from 0 to {len(known) - 1}"
    )


def columns_of(features: Sequence[int | str], dataset: DataSet) -> NDArray[np.int64]:
    """Return the columns of some features, of all if none is named; a feature of a sequence is one of all its steps."""
    width = dataset.x.shape[1] if dataset.lengths is None else dataset.shape[-1]
    names = dataset.feature_names[:width]
    chosen = [index_of(feature, names, "feature", dataset) for feature in features]
    columns = np.arange(dataset.x.shape[1]).reshape(-1, width)
    return columns[:, chosen or slice(None)].ravel()


def keep_padding(x: Features, dataset: DataSet) -> Features:
    """Set to zero, in place, the steps that are behind the ends of sequences."""
    if dataset.lengths is not None:
        steps = x.reshape(len(x), dataset.shape[0], -1)
        steps[np.arange(dataset.shape[0]) >= dataset.lengths[:, None]] = 0
    return x
