"""What parts of the server keep beside arrays, when they are saved."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from fedtp.errors import DataError
from fedtp.streaming.state import State

T = TypeVar("T", bound=Hashable)


class Notes(BaseModel, extra="forbid", allow_inf_nan=False):
    """What a part of the server keeps beside arrays: a model of pydantic that is the record of a `State`."""

    def saved(self) -> dict[str, Any]:
        """Return the record."""
        return self.model_dump(mode="json")

    @classmethod
    def of(cls, state: State) -> Self:
        """Read the record of a state.

        Raises
        ------
        DataError
            If it holds something else.
        """
        try:
            return cls.model_validate(state.record)
        except ValidationError as error:
            raise DataError(f"{error.error_count()} of its notes do not fit") from None


def by_node(found: Mapping[int, T]) -> tuple[NDArray[np.uint64], list[T]]:
    """Return what is known of nodes, of which many share the same: a row for each, of its id and a place in the list.

    Examples
    --------
    >>> rows, values = by_node({7: "a", 9: "b", 8: "a"})
    >>> rows.tolist(), values
    ([[7, 0], [9, 1], [8, 0]], ['a', 'b'])
    """
    places = {value: place for place, value in enumerate(dict.fromkeys(found.values()))}
    # Flower's ids need all of 64 bits.
    rows = [(node, places[value]) for node, value in found.items()]
    return np.array(rows, np.uint64).reshape(-1, 2), list(places)


def of_nodes(state: State, name: str, values: list[T]) -> dict[int, T]:
    """Return what `by_node` wrote, from an array of a state and its list.

    Raises
    ------
    DataError
        If they do not belong together.
    """
    rows: list[list[int]] = state.typed(name, np.uint64, None, 2).tolist()
    if any(place >= len(values) for _, place in rows):
        raise DataError(f"the array {name!r} names more than there is")
    return {node: values[place] for node, place in rows}
