"""The inputs of a stream: dicts of numbers, in which features come and go, made into standardised vectors."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedtp.errors import DataError

Vector: TypeAlias = NDArray[np.float64]

#: What variances start at, instead of 0: far below that of any measured number, and its root can be divided by.
_LEAST_VARIANCE = 1e-60


class Features:
    """The names of the features met so far, each with its column, its mean and its variance.

    A feature that appears takes the next column and moves no other; one that is left out of a sample, or is NaN or
    None there, counts as its mean, which standardised is 0.

    Parameters
    ----------
    standardize
        Whether columns are centred and scaled, by the mean and variance of the values learnt so far (Welford 1962).

    Attributes
    ----------
    names
        Of the features, in the order of their columns.
    counts, means, variances
        Of each feature's values, ``[features]``.

    Examples
    --------
    >>> features = Features()
    >>> for x in ({"b": 1.0, "a": 10.0}, {"b": 3.0, "a": 10.0}, {"b": 5.0, "c": 1.0}):
    ...     _ = features.appear(x)
    ...     values = features.vector(x)
    ...     _ = features.standardized(values)
    ...     features.learn(values)
    >>> features.names, features.means.tolist(), features.counts.tolist()
    (['a', 'b', 'c'], [10.0, 3.0, 1.0], [2.0, 3.0, 1.0])
    >>> features.standardized(features.vector({"b": 3.0})).tolist()
    [0.0, 0.0, 0.0]
    """

    def __init__(self, *, standardize: bool = True) -> None:
        self.standardize = standardize
        self.names: list[Hashable] = []
        self.counts, self.means, self.variances = np.zeros(0), np.zeros(0), np.zeros(0)
        self._refresh()

    def __len__(self) -> int:
        return len(self.names)

    def appear(self, x: Mapping[Hashable, Any]) -> list[Hashable]:
        """Give columns to the names of a sample that are not known yet, and return them: sorted, whatever their order.

        Raises
        ------
        DataError
            If the value of one is not a number, or infinite; no name has become known then.
        """
        if self._columns.keys() >= x.keys():
            return []
        new = sorted(x.keys() - self._columns.keys(), key=lambda name: (type(name).__name__, name))
        values = _numbers(new, [x[name] for name in new])
        self._append(new, values)
        return new

    def appear_many(self, columns: Sequence[Hashable], values: Vector) -> list[Hashable]:
        """Do what `appear` does with the columns of many samples, ``[samples, columns]``."""
        places = {name: place for place, name in enumerate(columns) if name not in self._columns}
        if not places:
            return []
        new = sorted(places, key=lambda name: (type(name).__name__, name))
        _check(new, values[:, [places[name] for name in new]])
        self._append(new, np.full(len(new), np.nan))
        return new

    def _append(self, names: Sequence[Hashable], values: Vector) -> None:
        blank = np.zeros(len(names))
        self.names = [*self.names, *names]
        self.counts = np.concatenate([self.counts, blank])
        # Of a single value the mean is the value, so that the feature starts in the middle.
        self.means = np.concatenate([self.means, np.nan_to_num(values)])
        self.variances = np.concatenate([self.variances, blank + _LEAST_VARIANCE])
        self._refresh()

    def vector(self, x: Mapping[Hashable, Any]) -> Vector:
        """Return the values of a sample, ``[features]``, NaN where it has none; names that are not known are left out.

        Raises
        ------
        DataError
            If a value is not a number, or infinite.
        """
        try:
            values = self._pick(x)
        except KeyError:
            values = tuple(map(x.get, self.names))
        try:
            vector = np.array(values, np.float64)
        except (TypeError, ValueError):
            vector = None
        if vector is None or not vector.dot(vector) < np.inf:
            return _numbers(self.names, values)
        return vector

    def matrix(self, columns: Sequence[Hashable], values: Vector) -> Vector:
        """Return the values of many samples, ``[samples, features]``, given those of some columns; see `vector`."""
        if list(columns) != self.names:
            picked = np.full((len(values), len(self.names)), np.nan)
            known = [i for i, name in enumerate(columns) if name in self._columns]
            picked[:, [self._columns[columns[i]] for i in known]] = values[:, known]
            values = picked
        _check(self.names, values)
        return values

    def standardized(self, values: Vector) -> Vector:
        """Return values, ``[..., features]``, standardised, each as if it were the next that is learnt."""
        if self.standardize:
            deviations = values - self.means
            spread = deviations * deviations
            spread *= self._weights
            spread += self.variances
            self._deviations, self._spread = deviations, spread
            values = deviations / np.sqrt(spread)
        self._complete = _finite(values)
        return values if self._complete else np.nan_to_num(values)

    def learn(self, values: Vector) -> None:
        """Take a sample's values, ``[features]``, which `standardized` was given last, into the means and variances."""
        if not self.standardize:
            return
        if not self._complete:
            self.learn_many(values[None])
            return
        # Welford (1962), going on from where `standardized` stopped.
        weights = self._weights
        self.means += weights * self._deviations
        self.variances = (1.0 - weights) * self._spread
        self.variances += _LEAST_VARIANCE
        self.counts += 1.0
        self._weights = 1.0 / (self.counts + 1.0)

    def learn_many(self, values: Vector) -> None:
        """Take many samples' values, ``[samples, features]``, into the means and variances.

        Notes
        -----
        Chan, Golub and LeVeque, *Updating formulae and a pairwise algorithm for computing sample variances*, 1982.
        """
        if not self.standardize:
            return
        there = ~np.isnan(values)
        added = there.sum(0)
        present = np.where(there, values, 0.0)
        means = present.sum(0) / np.maximum(added, 1)
        squares = np.where(there, (values - means) ** 2, 0.0).sum(0)
        self._merge(added, means, squares)

    def _merge(self, added: Vector, means: Vector, squares: Vector) -> None:
        total = self.counts + added
        divisor = np.maximum(total, 1.0)
        apart = np.where(added > 0, means - self.means, 0.0)
        squares += self.variances * self.counts + apart**2 * self.counts * added / divisor
        self.variances = np.maximum(squares / divisor, _LEAST_VARIANCE)
        self.means = self.means + apart * added / divisor
        self.counts = total
        self._refresh()

    def _refresh(self) -> None:
        self._columns = {name: column for column, name in enumerate(self.names)}
        self._pick = _picker(self.names)
        self._weights = 1.0 / (self.counts + 1.0)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for derived in ("_columns", "_pick", "_weights", "_deviations", "_spread", "_complete"):
            state.pop(derived, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._refresh()


def _picker(names: Sequence[Hashable]) -> Callable[[Mapping[Hashable, Any]], tuple[Any, ...]]:
    if len(names) > 1:
        return itemgetter(*names)
    return lambda x: tuple(x[name] for name in names)


def _numbers(names: Sequence[Hashable], values: Sequence[Any]) -> Vector:
    """Return the values of some features, ``[features]``, as numbers."""
    try:
        vector = np.array(values, np.float64)
    except (TypeError, ValueError):
        for name, value in zip(names, values, strict=True):
            try:
                np.array([value], np.float64)
            except (TypeError, ValueError):
                raise DataError(
                    f"feature {name!r} is {value!r}, but must be a number: encode it first, for example by "
                    "river.preprocessing.OneHotEncoder"
                ) from None
        raise
    _check(names, vector)
    return vector


def _check(names: Sequence[Hashable], values: Vector) -> None:
    if not _finite(values) and np.isinf(values).any():
        column = np.isinf(values).reshape(-1, len(names)).any(0).argmax()
        raise DataError(f"feature {names[column]!r} is infinite: leave it out where it is not known")


def _finite(values: Vector) -> bool:
    """Whether all are finite numbers; also False, which costs no more than time, where squares overflow."""
    flat = values if values.ndim == 1 else values.ravel()
    return bool(flat.dot(flat) < np.inf)
