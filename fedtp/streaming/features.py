"""The inputs of a stream: dicts of numbers, in which features come and go, made into standardised vectors."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Hashable, Mapping, Sequence
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedtp.errors import DataError
from fedtp.streaming import fast
from fedtp.streaming.state import State, names, plain

Vector: TypeAlias = NDArray[np.float64]

#: What variances start at, instead of 0: far below that of any measured number, and its root can be divided by.
LEAST_VARIANCE = 1e-60
#: What larger numbers count as: its fourth power is finite, which is as far as anybody goes.
LARGEST = 1e75


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

    _weights: Vector
    _new: bool

    def __init__(self, *, standardize: bool = True) -> None:
        self._compiled = fast.compiled()
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
            If a value is not a number, or infinite; no name has become known then.
        """
        if self._columns.keys() >= x.keys():
            return []
        new = sorted(x.keys() - self._columns.keys(), key=_rank)
        self.vector(x)  # nothing shall appear by a sample that is refused
        self._append(new, _numbers(new, [x[name] for name in new]))
        return new

    def appear_many(self, columns: Sequence[Hashable], values: Vector) -> list[Hashable]:
        """Do what `appear` does with the columns of many samples, ``[samples, columns]``."""
        places = {name: place for place, name in enumerate(columns) if name not in self._columns}
        if not places:
            return []
        new = sorted(places, key=_rank)
        _checked(columns, values)
        self._append(new, np.full(len(new), np.nan))
        return new

    def _append(self, names: Sequence[Hashable], values: Vector) -> None:
        blank = np.zeros(len(names))
        self.names = [*self.names, *names]
        self.counts = np.concatenate([self.counts, blank])
        # Of a single value the mean is the value, so that the feature starts in the middle.
        self.means = np.concatenate([self.means, np.nan_to_num(values)])
        self.variances = np.concatenate([self.variances, blank + LEAST_VARIANCE])
        self._refresh()

    def withdraw(self, count: int) -> None:
        """Take back the columns that were given last, as if these names had never appeared."""
        self.names = self.names[:-count]
        self.counts, self.means, self.variances = (
            part[:-count].copy() for part in (self.counts, self.means, self.variances)
        )
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
            if math.hypot(*values) < LARGEST:  # all are numbers, and neither NaN nor too large
                return np.frombuffer(self._pack(*values))
        except (KeyError, TypeError, ValueError, OverflowError):
            pass
        return _numbers(self.names, list(map(x.get, self.names)))

    def matrix(self, columns: Sequence[Hashable], values: Vector) -> Vector:
        """Return the values of many samples, ``[samples, features]``, given those of some columns; see `vector`."""
        places = {name: place for place, name in enumerate(columns)}
        if places.keys() >= self._columns.keys():
            values = values.take([places[name] for name in self.names], 1)
        else:
            picked = np.full((len(values), len(self.names)), np.nan)
            known = [i for i, name in enumerate(columns) if name in self._columns]
            picked[:, [self._columns[columns[i]] for i in known]] = values[:, known]
            values = picked
        return _checked(self.names, values)

    def standardized(self, values: Vector) -> Vector:
        """Return values, ``[..., features]``, standardised, each as if it were the next that is learnt."""
        if not self.standardize:
            return values if _whole(values) else np.nan_to_num(values)
        if self._compiled is not None:
            standardize = self._compiled.standardize if values.ndim == 1 else self._compiled.standardize_many
            standardized = np.empty(values.shape)
            standardize(values, self._weights, self.means, self.variances, standardized)
            return standardized
        self._deviations = deviations = values - self.means
        self._spread = spread = deviations * deviations
        spread *= self._weights
        spread += self.variances
        values = deviations / np.sqrt(spread)
        self._complete = _whole(values)
        return values if self._complete else np.nan_to_num(values)

    def learn(self, values: Vector) -> None:
        """Take a sample's values, ``[features]``, which `standardized` was given last, into the means and variances."""
        if not self.standardize:
            return
        if self._compiled is not None:
            known = self.counts, self.means, self.variances, self._weights
            self._compiled.learn_values(values, *known, LEAST_VARIANCE)
            return
        if not self._complete:
            self.learn_many(values[None])
            return
        # Welford (1962), going on from where `standardized` stopped.
        weights = self._weights
        self.means += weights * self._deviations
        self.variances = (self._ones - weights) * self._spread
        if self._new:  # nothing is left of the variance that a new feature started with
            self.variances += LEAST_VARIANCE
            self._new = False
        self.counts += self._ones
        self._weights = self._ones / (self.counts + self._ones)

    def learn_many(self, values: Vector) -> None:
        """Take many samples' values, ``[samples, features]``, into the means and variances.

        Notes
        -----
        Chan, Golub and LeVeque, *Updating formulae and a pairwise algorithm for computing sample variances*, 1982.
        """
        if not self.standardize:
            return
        if self._compiled is not None:
            known = self.counts, self.means, self.variances, self._weights
            self._compiled.learn_values_many(np.ascontiguousarray(values), *known, LEAST_VARIANCE)
            return
        if _whole(values):
            means = values.mean(0)
            deviations = values - means
            deviations *= deviations
            self._merge(len(values), means, deviations.sum(0))
            return
        there = ~np.isnan(values)
        added = there.sum(0)
        means = np.where(there, values, 0.0).sum(0) / np.maximum(added, 1)
        means = np.where(added > 0, means, self.means)
        squares = np.where(there, (values - means) ** 2, 0.0).sum(0)
        self._merge(added, means, squares)

    def _merge(self, added: Vector | int, means: Vector, squares: Vector) -> None:
        """Take in values of which are known: how many they are, their means, and their squared deviations' sums."""
        total = self.counts + added
        divisor = np.maximum(total, 1.0)
        apart = means - self.means
        squares += self.variances * self.counts + apart**2 * self.counts * added / divisor
        self.variances = np.maximum(squares / divisor, LEAST_VARIANCE)
        self.means = self.means + apart * added / divisor
        self.counts = total
        self._weigh()

    def _refresh(self) -> None:
        self._columns = {name: column for column, name in enumerate(self.names)}
        self._pick = _picker(self.names)
        self._pack = struct.Struct(f"{len(self.names)}d").pack
        self._ones = np.ones(len(self.names))
        self._weigh()

    def _weigh(self) -> None:
        """Note how much the next value of each feature counts."""
        self._weights = 1.0 / (self.counts + 1.0)
        self._new = not self.counts.all()

    def state(self) -> State:
        """Return names, counts, means and variances; see `fedtp.streaming.state`."""
        arrays = {"counts": self.counts, "means": self.means, "variances": self.variances}
        return State(arrays, {"names": [plain(name, "feature") for name in self.names]})

    def load_state(self, state: State) -> None:
        """Take over the names, counts, means and variances of others."""
        found = names(state.record.get("names"), "feature")
        counts, means, variances = (state.array(name, len(found)) for name in ("counts", "means", "variances"))
        if (counts < 0).any() or (counts != np.floor(counts)).any() or (variances <= 0).any():
            raise DataError("counts of values must be whole numbers from 0 up, and variances above 0")
        self.names, self.counts, self.means, self.variances = found, counts, means, variances
        self._refresh()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._compiled = fast.compiled()
        self.__dict__.update(state)
        self._refresh()


def _rank(name: Hashable) -> tuple[str, Any]:
    """Return what names are sorted by, of whatever types they are."""
    return type(name).__name__, name if isinstance(name, str | int | float) else repr(name)


def _picker(names: Sequence[Hashable]) -> Callable[[Mapping[Hashable, Any]], tuple[Any, ...]]:
    if len(names) > 1:
        return itemgetter(*names)
    return lambda x: tuple(x[name] for name in names)


def _numbers(names: Sequence[Hashable], values: Sequence[Any]) -> Vector:
    """Return the values of some features, ``[features]``, as numbers; NaN for None."""
    vector = np.full(len(names), np.nan)
    for column, value in enumerate(values):
        try:
            if isinstance(value, str | bytes):
                raise TypeError
            if value is not None:
                vector[column] = float(value)
        except (TypeError, ValueError, OverflowError):
            raise DataError(
                f"feature {names[column]!r} is {value!r}, but must be a number: encode it first, for example by "
                "river.preprocessing.OneHotEncoder"
            ) from None
    return _checked(names, vector)


def _checked(names: Sequence[Hashable], values: Vector) -> Vector:
    """Return values, ``[..., features]``, none of them larger than `LARGEST`, if none is infinite."""
    if (np.abs(values) <= LARGEST).all():
        return values
    infinite = np.isinf(values).reshape(-1, len(names)).any(0)
    if infinite.any():
        raise DataError(f"feature {names[int(infinite.argmax())]!r} is infinite: leave it out where it is not known")
    return np.clip(values, -LARGEST, LARGEST)


def _whole(values: Vector) -> bool:
    """Whether none is missing: one sum takes less time than a look at each."""
    flat = values if values.ndim == 1 else values.ravel()
    return bool(flat.dot(flat) < np.inf)
