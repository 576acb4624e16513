"""What a device does about drift, between one order and the next: the policies of the stream learner, for a fleet.

A device that has drifted is served badly by the fleet's model until the others have drifted too. Where its detector
flags that errors have risen, it adapts for a while, each time that an order brings the fleet's model: it learns faster,
begins some blocks anew, keeps its own where they err less, or first goes over its latest samples again. With
``blocks = "moved"`` only those blocks adapt that the drift has to do with (`fedtp.attribution`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from clients.settings import AdaptationSpec
from fedtp.attribution import from_block
from fedtp.blocks import Packed
from fedtp.cohort import Cohort
from fedtp.data.stream import Samples
from fedtp.detection import onset
from fedtp.errors import DataError
from fedtp.learner import Learner
from fedtp.streaming.state import State, names

if TYPE_CHECKING:
    from clients.device import Device


@dataclass(frozen=True, eq=False)
class Treatment:
    """How a device learns from an order, beyond what the learner's settings say.

    Parameters
    ----------
    paces
        What the learning rates of blocks are multiplied with, by name; those that are not named learn as usual.
    again
        Samples to go over before the new ones; None: none.
    blocks
        The blocks that learn from these.
    epochs
        How often.
    scored
        How many samples were predicted to come to this.
    """

    paces: Mapping[str, float] = field(default_factory=dict)
    again: Samples | None = None
    blocks: tuple[str, ...] = ()
    epochs: int = 0
    scored: int = 0

    def kind(self, batch_size: int) -> tuple[object, ...]:
        """Return what devices that learn together have in common."""
        whole, rest = divmod(0 if self.again is None else len(self.again), batch_size)
        return tuple(self.paces.items()), self.blocks, self.epochs, whole, bool(rest)

    @property
    def passes(self) -> int:
        """How many samples are learnt from once more in all."""
        return 0 if self.again is None else len(self.again) * self.epochs

    def flops(self, learner: Learner, rehearsed: tuple[str, ...]) -> float:
        """Count the floating-point operations that it takes, with those blocks rehearsed."""
        again = self.passes * learner.flops(rehearsed) if rehearsed else 0
        return float(again + self.scored * learner.flops(()))


#: What most orders get.
AS_USUAL = Treatment()


class Adaptation:
    """A device's memory of its latest samples, and whether it is adapting.

    Parameters
    ----------
    spec
        The policy and its options.

    Attributes
    ----------
    latest, wrong
        The latest samples, oldest first, and whether each was predicted wrongly; None, and none, if there have not been
        any or the policy looks at none.
    left
        For how many samples more the device adapts.
    new
        How many of the remembered samples are of the new concept.
    flagged
        Whether a drift was flagged since the last order.
    moved
        The blocks that adapt.
    """

    def __init__(self, spec: AdaptationSpec) -> None:
        self.spec = spec
        self.latest: Samples | None = None
        self.wrong: NDArray[np.bool_] = np.empty(0, np.bool_)
        self.left = self.new = 0
        self.flagged = False
        self.moved: tuple[str, ...] = ()

    @classmethod
    def of(cls, spec: AdaptationSpec) -> Adaptation | None:
        """Return what a new device has; None where nothing is to be done."""
        return None if spec.policy == "none" else cls(spec)

    def receive(self, device: Device, weights: Mapping[str, Packed]) -> Treatment:
        """Take over the fleet's weights as the policy says; return how to learn from then on."""
        own = dict(device.weights)
        device.receive(weights)
        if not self.left:
            return AS_USUAL
        scored = self._attribute(device) if self.flagged else 0
        flagged, self.flagged = self.flagged, False
        match self.spec.policy:
            case "boost-lr":
                return Treatment(paces=dict.fromkeys(self.moved, self.spec.factor), scored=scored)
            case "reset":
                if flagged:
                    initial = device.learner.initial()
                    for name in self.moved:
                        device.weights[name] = initial[name]
                        device.momentum.pop(name, None)
            case "keep-own":
                scored += self._keep_better(device, own)
            case "window-retrain":
                again = self._after()
                return Treatment(again=again, blocks=self.moved, epochs=self.spec.epochs, scored=scored)
        return Treatment(scored=scored)

    def learnt(self, samples: Samples, wrong: NDArray[np.bool_], detections: Sequence[int]) -> None:
        """Take note of what was learnt from an order.

        Parameters
        ----------
        samples, wrong
            Its samples, and whether each was predicted wrongly before it was learnt.
        detections
            Positions of those at which a drift was flagged.
        """
        if self.spec.remembers:
            new = replace(samples, label_seconds=None)
            joined = new if self.latest is None else Samples.join([self.latest, new])
            self.latest = joined.rows(slice(-self.spec.memory, None))
            self.wrong = np.concatenate([self.wrong, wrong])[-self.spec.memory :]
        if detections:
            self.flagged = True
            self.left = self.spec.samples
            self.new = onset(self.wrong)
        elif self.left:
            self.left = max(self.left - len(samples), 0)
            self.new = min(self.new + len(samples), len(self.wrong))

    def state(self) -> State:
        """Return what must survive until the next order."""
        numbers = {"left": self.left, "new": self.new, "flagged": self.flagged, "moved": list(self.moved)}
        return State({} if self.latest is None else {**self.latest.columns(), "wrong": self.wrong}, numbers)

    def load_state(self, state: State) -> None:
        """Take over what another adaptation knew.

        Raises
        ------
        DataError
            If it was none.
        """
        columns = dict(state.arrays)
        wrong = columns.pop("wrong", np.empty(0, np.bool_))
        latest = Samples.from_columns(columns) if columns else None
        left, new = state.whole("left"), state.whole("new")
        flagged, moved = state.record.get("flagged"), names(state.record.get("moved"), "block")
        if wrong.dtype != np.bool_ or wrong.shape != (len(latest or ()),) or new > len(wrong):
            raise DataError("of samples that are remembered it is not known how they were predicted")
        self.latest, self.wrong, self.left, self.new = latest, wrong, left, new
        self.flagged, self.moved = bool(flagged), tuple(moved)

    def _after(self) -> Samples | None:
        """Return the remembered samples of the new concept."""
        return None if self.latest is None else self.latest.rows(slice(len(self.latest) - self.new, None))

    def _attribute(self, device: Device) -> int:
        """Find the blocks that adapt; return how many samples were predicted for it."""
        learner = device.learner
        every = tuple(learner.sizes)
        self.moved = every[-1:] if self.spec.blocks == "last" else every
        old = len(self.wrong) - self.new
        if self.spec.blocks != "moved" or self.latest is None or not (old and self.new) or not learner.reads_blocks:
            return 0
        cohort = _alone(learner)
        cohort.load(device.weights)
        named, y = cohort.answers(torch.from_numpy(self.latest.x)[None])[0].numpy(), self.latest.y
        first = from_block(named[:old], y[:old], named[old:], y[old:])
        later = {block.name for block in learner.chain.blocks[first:]}
        self.moved = tuple(name for name in every if name in later) or every[-1:]
        return len(y)

    def _keep_better(self, device: Device, own: Mapping[str, Packed]) -> int:
        """Put the device's own blocks back if they err less on the latest samples; return how many were predicted."""
        new = self._after()
        if new is None or not len(new):
            return 0
        mixed = {**device.weights, **{name: own[name] for name in self.moved}}
        if _errors(device.learner, mixed, new) < _errors(device.learner, device.weights, new):
            device.weights = mixed
        return 2 * len(new)


def _errors(learner: Learner, weights: Mapping[str, Packed], samples: Samples) -> int:
    cohort = _alone(learner)
    cohort.load(weights)
    lengths = torch.from_numpy(samples.lengths)[None] if learner.sequential and samples.lengths is not None else None
    x, y, count = torch.from_numpy(samples.x)[None], torch.from_numpy(samples.y)[None], torch.tensor([len(samples)])
    predicted, _ = cohort.learn(x, y, count, (), lengths)
    return int((predicted != y).sum())


@lru_cache(maxsize=8)
def _alone(learner: Learner) -> Cohort:
    """Return what one device's network is predicted with."""
    return Cohort(learner, 1)
