"""A device between rounds: where it is in its stream, the model it has, what its detector has seen."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from clients.adaptation import AS_USUAL, Adaptation, Treatment
from clients.budget import Budget
from clients.inbox import Inbox
from clients.settings import AdaptationSpec
from fedtp.blocks import Packed
from fedtp.data.stream import Stream
from fedtp.detection import make_detector
from fedtp.learner import Learner
from fedtp.wire import pack_array, unpack_array

_NO_LIMITS = Budget()
_NO_ADAPTATION = AdaptationSpec()


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
        The model it has, packed by block: at first the one that the fleet begins with. A block's weights come first,
        then its readout, if that learns.
    momentum
        The optimizer's memory, packed like `weights`; empty before it first learns, and without momentum.
    detector
        A River drift detector, or None.
    inbox
        The samples that wait for their labels, and how many it can keep.
    budget
        What it can afford for an order.
    adaptation
        What it does about drift, or None.
    """

    learner: Learner
    stream: Stream
    weights: dict[str, Packed] = field(default_factory=dict)
    momentum: dict[str, Packed] = field(default_factory=dict)
    detector: Any | None = None
    inbox: Inbox = field(default_factory=Inbox)
    budget: Budget = _NO_LIMITS
    adaptation: Adaptation | None = None

    @classmethod
    def new(
        cls,
        learner: Learner,
        stream: Stream,
        buffer: int = 0,
        budget: Budget = _NO_LIMITS,
        adaptation: AdaptationSpec = _NO_ADAPTATION,
    ) -> Device:
        """Return a device that has seen nothing yet and has the fleet's initial model.

        Parameters
        ----------
        learner, stream
            What it trains, and where its samples come from.
        buffer
            How many samples it can keep between orders; 0: any number.
        budget
            What it can afford for an order.
        adaptation
            What it does about drift.
        """
        detector = make_detector(learner.spec.detector, clock=1)
        return cls(learner, stream, learner.initial(), {}, detector, Inbox(buffer), budget, Adaptation.of(adaptation))

    def take_over(self, weights: Mapping[str, Packed]) -> Treatment:
        """Take over what the server sends as the device's adaptation will have it; return how to learn then."""
        if self.adaptation is not None:
            return self.adaptation.receive(self, weights)
        self.receive(weights)
        return AS_USUAL

    def receive(self, weights: Mapping[str, Packed]) -> None:
        """Take over what the server sends of each block; a readout that does not travel stays as it is."""
        for name, sent in weights.items():
            stays = self.weights[name][sent.size :]
            # What comes whole is kept as it is: that all were sent the same can be told by its identity.
            self.weights[name] = np.concatenate([sent, stays]) if stays.size else sent

    def send(self, block: str) -> Packed:
        """Return what of a block travels."""
        return self.weights[block][: self.learner.sizes[block]]

    def suspend(self, state: RecordDict, name: str = "device") -> None:
        """Write what must survive until the next message into Flower's ``context.state``, under a name."""
        state[name] = ConfigRecord({"position": self.stream.position, "detector": pickle.dumps(self.detector)})
        state[f"{name}-weights"] = _arrays(self.weights)
        state[f"{name}-momentum"] = _arrays(self.momentum)
        state[f"{name}-inbox"] = ArrayRecord({key: Array(kept) for key, kept in self.inbox.to_arrays().items()})
        if self.adaptation is not None:
            state[f"{name}-adaptation"], state[f"{name}-samples"] = self.adaptation.suspend()

    @classmethod
    def resume(
        cls,
        state: Mapping[str, Any],
        learner: Learner,
        stream: Stream,
        name: str = "device",
        buffer: int = 0,
        budget: Budget = _NO_LIMITS,
        adaptation: AdaptationSpec = _NO_ADAPTATION,
    ) -> Device:
        """Return the device that `suspend` wrote, or a new one where nothing was written."""
        kept = state.get(name)
        if kept is None:
            return cls.new(learner, stream, buffer, budget, adaptation)
        adapting = Adaptation.of(adaptation)
        if adapting is not None and f"{name}-adaptation" in state:
            adapting.resume(state[f"{name}-adaptation"], state[f"{name}-samples"])
        stream.position = int(kept["position"])
        return cls(
            learner,
            stream,
            _packed(state[f"{name}-weights"]),
            _packed(state[f"{name}-momentum"]),
            # Only this process writes `context.state`, and it never leaves the device.
            pickle.loads(kept["detector"]),
            Inbox.from_arrays(buffer, {key: kept.numpy() for key, kept in state[f"{name}-inbox"].items()}),
            budget,
            adapting,
        )


def _arrays(weights: Mapping[str, Packed]) -> ArrayRecord:
    return ArrayRecord({name: pack_array(packed) for name, packed in weights.items()})


def _packed(arrays: ArrayRecord) -> dict[str, Packed]:
    return {name: unpack_array(name, array) for name, array in arrays.items()}
