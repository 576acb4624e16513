"""What the parts of a stream's model have learnt, as arrays and what JSON can hold: for files and for averages.

A part of a model that is to be saved, or averaged with those of others, is a `Part`: it gives its `State`, and takes
one. A model names its parts in ``_parts()``.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedtp.errors import DataError, ModelError


@dataclass(frozen=True)
class State:
    """What a part of a model has learnt.

    Parameters
    ----------
    arrays
        By name, without what can be made anew. They may be the part's own: whoever changes them copies them first.
    record
        Numbers, strings, lists and dicts, as JSON holds them: above all how large the arrays are.
    features, classes
        Of the arrays with a place for each feature, or each class: along which axis. All places of other arrays are
        every model's; a place of these is averaged over the models that have learnt something about it.
    """

    arrays: dict[str, NDArray[Any]]
    record: dict[str, Any] = field(default_factory=dict)
    features: Mapping[str, int] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)

    def array(self, name: str, *shape: int) -> NDArray[np.float64]:
        """Return a copy of an array of numbers, if it has that shape, and they are finite.

        Raises
        ------
        DataError
            If there is no such array.
        """
        found: NDArray[np.float64] = self.typed(name, np.float64, *shape)
        if not np.isfinite(found).all():
            raise DataError(f"the array {name!r} holds numbers that are not finite")
        return found

    def typed(self, name: str, dtype: type[np.generic], *shape: int | None) -> NDArray[Any]:
        """Return a copy of an array, if it has that type and shape; None stands for any length.

        Raises
        ------
        DataError
            If there is no such array.
        """
        found = self.arrays.get(name)
        if found is None:
            raise DataError(f"the array {name!r} is missing")
        fits = len(found.shape) == len(shape) and all(n in (m, None) for m, n in zip(found.shape, shape, strict=True))
        if found.dtype != dtype or not fits:
            wanted = f"{np.dtype(dtype)} [{', '.join('any' if n is None else str(n) for n in shape)}]"
            raise DataError(f"the array {name!r} is {found.dtype} {list(found.shape)}, not {wanted}")
        return np.array(found, order="C")

    def whole(self, name: str, least: int = 0) -> int:
        """Return a whole number of the record.

        Raises
        ------
        DataError
            If it is none, or too small.
        """
        found = self.record.get(name)
        if type(found) is not int or found < least:
            raise DataError(f"{name!r} is {found!r}, not a whole number from {least} up")
        return found


def together(states: Mapping[str, State]) -> State:
    """Return several states as one, under their names.

    >>> whole = together({"server": State({"0": np.arange(2)}, {"now": 60.0}), "clock": State({})})
    >>> list(whole.arrays), whole.record
    (['server/0'], {'server': {'now': 60.0}, 'clock': {}})
    """
    return State(
        {f"{name}/{key}": array for name, state in states.items() for key, array in state.arrays.items()},
        {name: state.record for name, state in states.items()},
    )


def apart(state: State) -> dict[str, State]:
    """Return the states that `together` made one of.

    Raises
    ------
    DataError
        If it is none of these.
    """
    arrays: dict[str, dict[str, NDArray[Any]]] = {name: {} for name in state.record}
    for key, array in state.arrays.items():
        name, _, rest = key.partition("/")
        if name not in arrays:
            raise DataError(f"the array {key!r} belongs to nothing")
        arrays[name][rest] = array
    if not all(isinstance(record, dict) for record in state.record.values()):
        raise DataError("what it consists of has no records")
    return {name: State(arrays[name], record) for name, record in state.record.items()}


@runtime_checkable
class Part(Protocol):
    """A part of a model that can be saved."""

    def state(self) -> State:
        """Return what has been learnt."""
        ...

    def load_state(self, state: State) -> None:
        """Take over what another part of the same kind, made with the same arguments, has learnt.

        All of it is checked first.

        Raises
        ------
        DataError
            If it is none of this part's; nothing has been taken over then.
        """
        ...


def plain(name: Hashable, what: str) -> str | int | float | bool:
    """Return a feature's name, or a label, as JSON holds it, type included; a NumPy scalar as the Python value it is.

    Raises
    ------
    ModelError
        If it is of another type, or not finite.

    Examples
    --------
    >>> plain(np.int64(3), "label"), plain("three", "label")
    (3, 'three')
    """
    value = name.item() if isinstance(name, np.generic) else name
    if type(value) not in (str, int, float, bool) or (isinstance(value, float) and not math.isfinite(value)):
        raise ModelError(f"the {what} {name!r} cannot be saved: only strings, finite numbers and booleans can")
    return value  # type: ignore[return-value]


def names(found: Any, what: str) -> list[Any]:
    """Return names or labels that were read, if `plain` can have written them and they are all different.

    Raises
    ------
    DataError
        If not.
    """
    if not isinstance(found, list) or any(type(name) not in (str, int, float, bool) for name in found):
        raise DataError(f"the {what}s are not a list of strings, numbers and booleans")
    if len(set(found)) < len(found):
        raise DataError(f"a {what} is there twice")
    return found


def counts(found: Any, size: int, what: str) -> list[int]:
    """Return counts that were read, if they are that many.

    Raises
    ------
    DataError
        If not, or if one is no whole number from 0 up.
    """
    if not isinstance(found, Sequence) or len(found) != size or any(type(n) is not int or n < 0 for n in found):
        raise DataError(f"{what} are not {size} whole numbers from 0 up")
    return list(found)


def parted(state: State, names: Iterable[str]) -> dict[str, State]:
    """Return the states that `together` made one of, if they are of these names.

    Raises
    ------
    DataError
        If not.
    """
    states = apart(state)
    if differing := sorted(states.keys() ^ set(names)):
        raise DataError(f"{', '.join(differing)} is not in both")
    return states
