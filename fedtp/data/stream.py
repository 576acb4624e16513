"""A stream, as a device sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedtp.errors import DataError


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples that have arrived, in the order of their arrival.

    Parameters
    ----------
    x
        Inputs, ``[samples, features]``.
    y
        Class indices, ``[samples]``.
    seconds
        When each arrived, s on the server's clock, ``[samples]``.
    label_seconds
        When the label of each becomes known, ``[samples]``, infinity where it never does; None: all labels come with
        their samples.
    lengths
        Of sequences: how many of the first steps of each are no padding, ``[samples]``; None: all.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    seconds: NDArray[np.float64]
    label_seconds: NDArray[np.float64] | None = None
    lengths: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, index: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Samples:
        """Return some of them."""
        return Samples(**{name: column[index] for name, column in self.columns().items()})

    @staticmethod
    def join(parts: Sequence[Samples]) -> Samples:
        """Return samples one after another; all parts must have the same columns."""
        columns = [part.columns() for part in parts]
        return Samples(**{name: np.concatenate([column[name] for column in columns]) for name in columns[0]})

    def columns(self) -> dict[str, Any]:
        """Return the arrays that there are, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: column for name, column in found.items() if column is not None}

    @classmethod
    def from_columns(cls, columns: Mapping[str, NDArray[Any]]) -> Samples:
        """Return the samples that `columns` told of.

        Raises
        ------
        DataError
            If an array is missing or of nothing, or they are not of equal length.
        """
        needed = {field.name for field in fields(cls) if field.default is MISSING}
        known = {field.name for field in fields(cls)}
        if not needed <= columns.keys() <= known or len({column.shape[:1] for column in columns.values()}) > 1:
            raise DataError(f"samples have not the columns {', '.join(columns)}, or not of such lengths")
        return cls(**columns)


class Stream(Protocol):
    """Where a device's samples come from: a simulation, a file, a sensor.

    Attributes
    ----------
    position
        How many samples have been taken. Setting it makes the stream go on from there.
    """

    position: int

    def take(self, now: float) -> Samples:
        """Return the samples that have arrived by `now`, s, and were not taken yet; there may be none."""
        ...
