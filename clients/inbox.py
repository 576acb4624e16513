"""What a device keeps between orders: inputs whose labels it waits for, as many as its buffer holds.

Of a sample whose label comes late the prediction counts that was made when its input was first seen. So an input is
predicted at the first order after its arrival, and scored and learnt from at the first order after its label has come.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedtp.data.stream import Samples
from fedtp.errors import DataError
from fedtp.streaming.state import State

# In place of a prediction that has not been made yet.
_UNSEEN = -1


@dataclass(frozen=True, eq=False)
class Delivery:
    """What a device works on for an order.

    Parameters
    ----------
    samples
        Those whose labels are known and which have not been learnt from, in the order in which their labels came.
    predicted
        What was predicted of each of them when it was first seen, ``[samples]``, -1 if that is now; None: now, of all.
    unlabelled
        Those that are seen for the first time, and whose labels are not known: to be predicted only. None: there are
        none.
    dropped
        How many were pushed out of the buffer since the last order, before they could be learnt from.
    """

    samples: Samples
    predicted: NDArray[np.int64] | None = None
    unlabelled: Samples | None = None
    dropped: int = 0

    @property
    def never_labelled(self) -> int:
        """How many have been seen now of which no label will ever come."""
        if self.unlabelled is None or self.unlabelled.label_seconds is None:
            return 0
        return int(np.count_nonzero(np.isinf(self.unlabelled.label_seconds)))

    @property
    def label_delay_seconds(self) -> float:
        """How long the labels of the samples took to come, s, mean; 0 without samples."""
        if self.samples.label_seconds is None or not len(self.samples):
            return 0.0
        return float(np.mean(self.samples.label_seconds - self.samples.seconds))


class Inbox:
    """A device's buffer of samples.

    Parameters
    ----------
    capacity
        How many samples it holds, those that arrive between orders and those that wait for their labels together; a
        new one pushes out the oldest. 0: any number.

    Attributes
    ----------
    waiting
        Samples that were predicted and whose labels have yet to come, in the order of their arrival. None: there have
        never been any.
    predicted
        What was predicted of each.

    Notes
    -----
    An input whose label never comes is predicted, and forgotten.
    """

    def __init__(self, capacity: int = 0) -> None:
        self.capacity = capacity
        self.waiting: Samples | None = None
        self.predicted: NDArray[np.int64] = np.empty(0, np.int64)

    def take(self, arrived: Samples, now: float) -> Delivery:
        """Put in the samples that have arrived since the last order, and take out what can be worked on by now, s.

        What is `Delivery.unlabelled` has then to be predicted, and `note` be told.
        """
        if arrived.label_seconds is None and self.waiting is None:
            over = len(arrived) - self.capacity if self.capacity else 0
            return Delivery(arrived.rows(slice(over, None)), dropped=over) if over > 0 else Delivery(arrived)

        if arrived.label_seconds is None:
            arrived = replace(arrived, label_seconds=arrived.seconds)
        held = arrived if self.waiting is None else Samples.join([self.waiting, arrived])
        predicted = np.concatenate([self.predicted, np.full(len(arrived), _UNSEEN)])
        over = max(0, len(held) - self.capacity) if self.capacity else 0
        held, predicted = held.rows(slice(over, None)), predicted[over:]

        label_seconds = held.label_seconds
        assert label_seconds is not None
        known = label_seconds <= np.maximum(now, held.seconds)
        ready = np.flatnonzero(known)
        ready = ready[np.argsort(label_seconds[ready], kind="stable")]
        unlabelled = ~known & (predicted == _UNSEEN)
        wait = ~known & np.isfinite(label_seconds)
        self.waiting, self.predicted = held.rows(wait), predicted[wait]
        return Delivery(held.rows(ready), predicted[ready], held.rows(unlabelled) if unlabelled.any() else None, over)

    def note(self, unlabelled: Samples, predicted: NDArray[np.int64]) -> None:
        """Keep what was predicted of the samples that `take` said were unlabelled."""
        assert unlabelled.label_seconds is not None
        self.predicted[self.predicted == _UNSEEN] = predicted[np.isfinite(unlabelled.label_seconds)]

    def state(self) -> State:
        """Return what has to be kept while the device sleeps; nothing if there is nothing."""
        return State({} if self.waiting is None else {**self.waiting.columns(), "predicted": self.predicted})

    def load_state(self, state: State) -> None:
        """Take over what another inbox kept.

        Raises
        ------
        DataError
            If it was none.
        """
        columns = dict(state.arrays)
        predicted = columns.pop("predicted", np.empty(0, np.int64))
        waiting = Samples.from_columns(columns) if columns else None
        if predicted.dtype != np.int64 or predicted.shape != (len(waiting or ()),):
            raise DataError("of samples that wait for their labels it is not known what was predicted")
        self.waiting, self.predicted = waiting, predicted.copy()
