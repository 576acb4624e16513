"""A device between rounds: where it is in its stream, the model it has, what its detector has seen."""

from __future__ import annotations

import json
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
from fedtp.errors import DataError
from fedtp.learner import Learner
from fedtp.streaming.detector_codecs import decode, encode
from fedtp.streaming.state import State, apart, together

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

    def state(self) -> State:
        """Return what must survive until the next order."""
        detector = None if self.detector is None else encode(self.detector)
        parts = {
            "device": State({}, {"position": self.stream.position, "detector": detector}),
            "weights": State(dict(self.weights)),
            "momentum": State(dict(self.momentum)),
            "inbox": self.inbox.state(),
        }
        if self.adaptation is not None:
            parts["adaptation"] = self.adaptation.state()
        return together(parts)

    def load_state(self, state: State) -> None:
        """Go on where another device with the same learner and stream was.

        Raises
        ------
        DataError
            If it was none; nothing has been taken over then.
        """
        parts = apart(state)
        if missing := {"device", "weights", "momentum", "inbox"} - parts.keys():
            raise DataError(f"of a device the {', '.join(sorted(missing))} is missing")
        device, held = parts["device"], self.learner.held
        weights, momentum = _packed(parts["weights"], held), _packed(parts["momentum"], held)
        if weights.keys() != held.keys():
            raise DataError(f"a device has weights of the blocks {', '.join(weights)}, not {', '.join(held)}")
        position, kept = device.whole("position"), device.record.get("detector")
        detector = None if kept is None else decode(kept)
        if type(detector) is not type(self.detector):
            raise DataError("a device has another drift detector")
        inbox = Inbox(self.inbox.capacity)
        inbox.load_state(parts["inbox"])
        adaptation = self.adaptation
        if "adaptation" in parts:
            if adaptation is None:
                raise DataError("a device adapts to drift, and shall not")
            adaptation = Adaptation(adaptation.spec)
            adaptation.load_state(parts["adaptation"])
        self.stream.position = position
        self.weights, self.momentum, self.detector = weights, momentum, detector
        self.inbox, self.adaptation = inbox, adaptation

    def suspend(self, records: RecordDict, name: str = "device") -> None:
        """Write what must survive until the next message into Flower's ``context.state``, under a name."""
        state = self.state()
        records[name] = ConfigRecord({"record": json.dumps(state.record)})
        records[f"{name}-arrays"] = ArrayRecord({key: Array(array) for key, array in state.arrays.items()})

    @classmethod
    def resume(
        cls,
        records: Mapping[str, Any],
        learner: Learner,
        stream: Stream,
        name: str = "device",
        buffer: int = 0,
        budget: Budget = _NO_LIMITS,
        adaptation: AdaptationSpec = _NO_ADAPTATION,
    ) -> Device:
        """Return the device that `suspend` wrote, or a new one where nothing was written."""
        device = cls.new(learner, stream, buffer, budget, adaptation)
        if name in records:
            arrays = {key: array.numpy() for key, array in records[f"{name}-arrays"].items()}
            device.load_state(State(arrays, json.loads(records[name]["record"])))
        return device


def _packed(state: State, held: Mapping[str, int]) -> dict[str, Packed]:
    """Return what was packed by block, if it is so large."""
    for name, packed in state.arrays.items():
        if packed.dtype != np.float32 or packed.shape != (held.get(name),):
            raise DataError(f"of the block {name!r} a device has {packed.dtype} {list(packed.shape)}, which do not fit")
    return {name: state.arrays[name] for name in held if name in state.arrays}
