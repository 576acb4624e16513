"""Concepts that change what is true of the same inputs: real drift."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from fedtp.data.concepts.concept import Concept, Need, index_of
from fedtp.data.dataset import DataSet
from fedtp.errors import DataError


class LabelSwap(Concept):
    """Some classes change names (real drift).

    Parameters
    ----------
    swaps
        Pairs of classes that are exchanged, each by its index or by its label; a class may be in one pair
        only.
    """

    kind: Literal["label-swap"] = "label-swap"
    swaps: Annotated[tuple[tuple[int | str, int | str], ...], Field(min_length=1)]

    def see(self, dataset: DataSet, original: DataSet, seed: tuple[int, ...]) -> DataSet:
        """Exchange labels."""
        pairs = [[index_of(label, dataset.classes, "class", dataset) for label in pair] for pair in self.swaps]
        swapped = [label for pair in pairs for label in pair]
        for label in swapped:
            if swapped.count(label) > 1:
                raise DataError(f"concept label-swap names class {dataset.classes[label]!r} more than once")
        new = np.arange(len(dataset.classes))
        for one, other in pairs:
            new[one], new[other] = other, one
        return replace(dataset, y=new[dataset.y])


class Generator(Concept):
    """The same generator under other parameters (real, virtual or prior drift, as the generator has it).

    Parameters
    ----------
    parameters
        Parameters of River's class, such as ``{"variant": 3}`` for ``sea``.
    """

    kind: Literal["generator"] = "generator"
    parameters: dict[str, bool | int | float | str]

    needs: ClassVar[Need] = "a generator"

    def see(self, dataset: DataSet, original: DataSet, seed: tuple[int, ...]) -> DataSet:
        """Draw samples anew."""
        assert dataset.generate is not None  # `check` has seen to it
        x, y = dataset.generate(self.parameters)
        return replace(dataset, x=x, y=y)
