"""A device between rounds: where it is in its stream, the model it has, what its detector has seen."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from clients.detection import make_detector
from fedtp.blocks import Packed
from fedtp.data.stream import Stream
from fedtp.learner import Learner
from fedtp.wire import pack_array, unpack_array


@dataclass
class Device:
    """One learner with its own stream.

    Parameters
    ----------
    learner
        The network and how it learns, the same for the whole fleet.
    stream
        Where its samples come from.
    weights
        The model it has, packed by block: at first the one that the fleet begins with.
    momentum
        The optimizer's memory, packed by block; empty before it first learns, and without momentum.
    detector
        A River drift detector, or None.
    """

    learner: Learner
    stream: Stream
    weights: dict[str, Packed] = field(default_factory=dict)
    momentum: dict[str, Packed] = field(default_factory=dict)
    detector: Any | None = None

    @classmethod
    def new(cls, learner: Learner, stream: Stream) -> Device:
        """Return a device that has seen nothing yet and has the fleet's initial model."""
        return cls(learner, stream, learner.initial_weights(), {}, make_detector(learner.spec.detector))

    def suspend(self, state: RecordDict) -> None:
        """Write what must survive until the next message into Flower's ``context.state``."""
        state["device"] = ConfigRecord({"position": self.stream.position, "detector": pickle.dumps(self.detector)})
        state["device-weights"] = _arrays(self.weights)
        state["device-momentum"] = _arrays(self.momentum)

    @classmethod
    def resume(cls, state: Mapping[str, Any], learner: Learner, stream: Stream) -> Device:
        """Return the device that `suspend` wrote, or a new one where nothing was written."""
        kept = state.get("device")
        if kept is None:
            return cls.new(learner, stream)
        stream.position = int(kept["position"])
        return cls(
            learner,
            stream,
            _packed(state["device-weights"]),
            _packed(state["device-momentum"]),
            # Only this process writes `context.state`, and it never leaves the device.
            pickle.loads(kept["detector"]),
        )


def _arrays(weights: Mapping[str, Packed]) -> ArrayRecord:
    return ArrayRecord({name: pack_array(packed) for name, packed in weights.items()})


def _packed(arrays: ArrayRecord) -> dict[str, Packed]:
    return {name: unpack_array(name, array) for name, array in arrays.items()}
