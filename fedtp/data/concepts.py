"""Concepts: what can become of a data set's distribution, so that a fleet has something to adapt to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from fedtp.data.dataset import DataSet, Features
from fedtp.errors import DataError


class _Concept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Identity(_Concept):
    """The data set as it is."""

    kind: Literal["identity"] = "identity"


class Rotation(_Concept):
    """Images turned about their centre.

    Parameters
    ----------
    degrees
        The angle, counter-clockwise.
    """

    kind: Literal["rotation"] = "rotation"
    degrees: FiniteFloat


class LabelSwap(_Concept):
    """Some classes change names.

    Parameters
    ----------
    swaps
        Pairs of classes that are exchanged, each by its index or by its label; a class may be in one pair
        only.
    """

    kind: Literal["label-swap"] = "label-swap"
    swaps: Annotated[tuple[tuple[int | str, int | str], ...], Field(min_length=1)]


class Gain(_Concept):
    """A sensor whose amplification changed.

    Parameters
    ----------
    factor
        What the features are multiplied with. They are scaled to lie about zero, so this widens them about
        their ordinary value.
    features
        Which features of a table, by index or by name; none means all.
    """

    kind: Literal["gain"] = "gain"
    factor: FiniteFloat
    features: tuple[int | str, ...] = ()


class Generator(_Concept):
    """The same generator under other parameters.

    Parameters
    ----------
    parameters
        Parameters of River's class, such as ``{"variant": 3}`` for ``sea``.
    """

    kind: Literal["generator"] = "generator"
    parameters: dict[str, bool | int | float | str]


AnyConcept: TypeAlias = Annotated[Identity | Rotation | LabelSwap | Gain | Generator, Field(discriminator="kind")]


def apply(concept: AnyConcept, dataset: DataSet) -> DataSet:
    """See a whole data set under a concept.

    Parameters
    ----------
    concept
        What becomes of the data.
    dataset
        A data set as `load` gives it; row i of the result is row i of it, except under `Generator`, which
        draws rows anew.

    Returns
    -------
    DataSet
        A data set with as many rows; arrays that do not change are shared with `dataset`.

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
    match concept:
        case Identity():
            return dataset
        case Rotation():
            if not dataset.is_image:
                raise DataError(f"concept rotation needs images, but data set {dataset.name!r} is a table")
            return replace(dataset, x=_rotate(dataset.x, dataset.shape, concept.degrees))
        case LabelSwap():
            return replace(dataset, y=_swapped(concept, dataset)[dataset.y])
        case Gain():
            if dataset.is_image:
                raise DataError(f"concept gain needs a table, but data set {dataset.name!r} holds images")
            columns = [_index(feature, dataset.feature_names, "feature", dataset) for feature in concept.features]
            factors = np.ones(dataset.x.shape[1], dtype=np.float32)
            factors[columns or slice(None)] = concept.factor
            return replace(dataset, x=dataset.x * factors)
        case Generator():
            if dataset.generate is None:
                raise DataError(f"concept generator suits drawn data only, but data set {dataset.name!r} is as it is")
            x, y = dataset.generate(concept.parameters)
            return replace(dataset, x=x, y=y)


def _swapped(concept: LabelSwap, dataset: DataSet) -> NDArray[np.int64]:
    """Find the new index of every class."""
    pairs = [[_index(label, dataset.classes, "class", dataset) for label in pair] for pair in concept.swaps]
    swapped = [label for pair in pairs for label in pair]
    for label in swapped:
        if swapped.count(label) > 1:
            raise DataError(f"concept label-swap names class {dataset.classes[label]!r} more than once")
    new = np.arange(len(dataset.classes))
    for one, other in pairs:
        new[one], new[other] = other, one
    return new


def _index(key: int | str, known: Sequence[str], what: str, dataset: DataSet) -> int:
    if isinstance(key, str) and key in known:
        return known.index(key)
    if isinstance(key, int) and 0 <= key < len(known):
        return key
    raise DataError(
        f"data set {dataset.name!r} has no {what} {key!r}: name one of {', '.join(known[:20])}"
        f"{', ...' if len(known) > 20 else ''}, or its index from 0 to {len(known) - 1}"
    )


def _rotate(x: Features, shape: tuple[int, ...], degrees: float) -> Features:
    """Turn flattened images counter-clockwise; quarter turns are exact, other angles bilinear.

    What comes into view from outside the frame is background, the smallest value of the data set.
    """
    *colours, height, width = shape
    if colours:  # colour by colour
        return _rotate(x.reshape(-1, height * width), (height, width), degrees).reshape(x.shape)
    quarters, rest = divmod(degrees, 90)
    if rest == 0 and (height == width or quarters % 2 == 0):
        images = x.reshape(len(x), height, width)
        return np.ascontiguousarray(np.rot90(images, int(quarters) % 4, axes=(1, 2))).reshape(x.shape)

    # Where each pixel of the turned image comes from, as row and column of the original.
    angle = np.deg2rad(degrees)
    down, right = np.mgrid[:height, :width]
    down, right = down.ravel() - (height - 1) / 2, right.ravel() - (width - 1) / 2
    rows = np.cos(angle) * down + np.sin(angle) * right + (height - 1) / 2
    columns = np.cos(angle) * right - np.sin(angle) * down + (width - 1) / 2

    # It is a mean of the four pixels around that place; those outside the frame are one more, last column.
    background = x.min(initial=np.inf)
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    taps = []
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        weight = (1 - abs(rows - row)) * (1 - abs(columns - column))
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        taps.append((weight.astype(np.float32), np.where(inside, row * width + column, height * width)))

    turned = np.zeros_like(x)
    for start in range(0, len(x), 256):  # a few images at a time stay in the processor's cache
        some = slice(start, start + 256)
        padded = np.pad(x[some], ((0, 0), (0, 1)), constant_values=background)
        for weight, source in taps:
            turned[some] += weight * padded.take(source, axis=1)
    return turned
