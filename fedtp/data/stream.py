"""A stream, as a device sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


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
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    seconds: NDArray[np.float64]
    label_seconds: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.y)


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
