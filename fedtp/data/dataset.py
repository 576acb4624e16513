"""What a data set is: arrays in memory, split into a part to learn from and a part held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from fedtp.errors import DataError

Features = NDArray[np.float32]
Labels = NDArray[np.int64]
Rows = NDArray[np.int64]

TEST_FRACTION = 0.2


@dataclass(frozen=True, eq=False)
class DataSet:
    """Samples in memory, already scaled for learning.

    Parameters
    ----------
    name
        The name it was loaded by.
    x
        Inputs, ``[samples, features]``.
    y
        Class indices, ``[samples]``.
    classes
        The label that each class index stands for.
    shape
        The shape of one sample: ``(height, width)`` for a grey image, ``(colours, height, width)`` for a coloured one,
        ``(steps, features)`` for a sequence, ``(features,)`` for a row of a table.
    feature_names
        One name per column of `x`.
    ordered
        Whether the rows are in the order in which they happened. An ordered data set is split, dealt
        out and replayed in that order, and never twice.
    test_rows
        How many of the last rows are the data set's own, published test set; 0 where it has none.
    lengths
        For sequences: how many steps of each sample are no padding, ``[samples]``.
    groups
        Whom each sample is from, where that is known; one name per sample, or none at all.
    weights
        How many times as often each sample is drawn as under the data set's own distribution, ``[samples]``; None: all
        alike.
    generate
        For synthetic data: draws as many samples as there are in `x` under other parameters of the
        generator.

    Raises
    ------
    DataError
        If the parts do not fit together.

    Examples
    --------
    >>> from fedtp.data import load
    >>> digits = load("digits")
    >>> train, test = digits.split(test_fraction=0.25, seed=1)
    >>> len(digits), len(train), len(test)
    (1797, 1347, 450)
    """

    name: str
    x: Features
    y: Labels
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    feature_names: tuple[str, ...]
    ordered: bool = False
    test_rows: int = 0
    lengths: NDArray[np.int64] | None = field(default=None, repr=False)
    groups: tuple[str, ...] = field(default=(), repr=False)
    weights: NDArray[np.float64] | None = field(default=None, repr=False)
    generate: Callable[[Mapping[str, object]], tuple[Features, Labels]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        columns = prod(self.shape)
        if self.x.shape != (len(self.y), columns) or len(self.feature_names) != columns:
            raise DataError(
                f"data set {self.name!r} does not fit together: {len(self.y)} labels, inputs of shape "
                f"{self.x.shape}, samples of shape {self.shape}, {len(self.feature_names)} feature names"
            )
        if self.lengths is not None and (
            self.lengths.shape != self.y.shape
            or (len(self.y) and not 1 <= int(self.lengths.min()) <= int(self.lengths.max()) <= self.shape[0])
        ):
            raise DataError(f"data set {self.name!r}: every sequence has from 1 to {self.shape[0]} steps")
        if self.groups and len(self.groups) != len(self.y):
            raise DataError(f"data set {self.name!r} has {len(self.y)} samples, but {len(self.groups)} groups")
        if len(self.y) and not 0 <= int(self.y.min()) <= int(self.y.max()) < len(self.classes):
            raise DataError(
                f"data set {self.name!r} has class indices from {self.y.min()} to {self.y.max()}, "
                f"but {len(self.classes)} classes"
            )

    def __len__(self) -> int:
        return len(self.y)

    @property
    def is_image(self) -> bool:
        """Whether a sample is a picture, rather than a row of a table."""
        return len(self.shape) > 1 and self.lengths is None

    def rows(self, index: Rows | slice) -> DataSet:
        """Take only these rows of the data set."""
        return replace(
            self,
            x=self.x[index],
            y=self.y[index],
            lengths=None if self.lengths is None else self.lengths[index],
            groups=tuple(np.array(self.groups)[index].tolist()) if self.groups else (),
            weights=None if self.weights is None else self.weights[index],
            test_rows=0,
            generate=None,
        )

    def split_rows(self, test_fraction: float | None = None, seed: int = 0) -> tuple[Rows, Rows]:
        """Choose the rows to learn from and the rows to hold out.

        The rows depend on `y`, so to see one split under several concepts, split the original data set
        once and take these rows of each.

        Parameters
        ----------
        test_fraction
            The share to hold out, between 0 and 1. None means the data set's own test set where it has
            one (`test_rows`), and 0.2 where it has none.
        seed
            Seed of the shuffling; without effect on an ordered data set.

        Returns
        -------
        tuple
            Row numbers to learn from and to hold out. Of an ordered data set the last rows are held out;
            otherwise the same share of every class, both parts shuffled, and every class keeps at least
            one row to learn from.

        Raises
        ------
        DataError
            If the fraction is not between 0 and 1, or leaves either part without rows.
        """
        if test_fraction is None:
            if self.test_rows:
                cut = len(self) - self.test_rows
                rng = np.random.default_rng(seed)
                return rng.permutation(cut), cut + rng.permutation(self.test_rows)
            test_fraction = TEST_FRACTION
        if not 0 < test_fraction < 1:
            raise DataError(f"test_fraction is {test_fraction}, but must lie between 0 and 1")

        if self.ordered:
            cut = len(self) - round(len(self) * test_fraction)
            train, test = np.arange(cut), np.arange(cut, len(self))
        else:
            train, test = _stratified(self.y, len(self.classes), test_fraction, seed)
        if not len(train) or not len(test):
            raise DataError(
                f"data set {self.name!r} has only {len(self)} samples: holding out {test_fraction:g} of them "
                f"leaves {len(train)} to learn from, {len(test)} to test on"
            )
        return train, test

    def split(self, test_fraction: float | None = None, seed: int = 0) -> tuple[DataSet, DataSet]:
        """Split into a part to learn from and a part held out, as `split_rows` says."""
        train, test = self.split_rows(test_fraction, seed)
        return self.rows(train), self.rows(test)


def _stratified(y: Labels, classes: int, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Shuffle the rows and hold out the first `fraction` of every class."""
    shuffled = np.random.default_rng(seed).permutation(len(y))
    held_out = np.zeros(len(y), dtype=bool)
    for label in range(classes):
        of_class = shuffled[y[shuffled] == label]
        held_out[of_class[: min(round(len(of_class) * fraction), len(of_class) - 1)]] = True
    return shuffled[~held_out[shuffled]], shuffled[held_out[shuffled]]
