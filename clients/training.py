"""A device's work on one order, in three steps: plan, learn, report.

`learn` takes a list of devices. A ClientApp hands it the one device of a message; a simulation hands it all devices
that were ordered at once, and they learn as ``[devices, ...]`` tensors. It is the same code either way.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from clients.device import Device
from fedtp.blocks import Packed
from fedtp.cohort import Cohort
from fedtp.data.stream import Samples
from fedtp.detection import detect
from fedtp.errors import DataError, WireError
from fedtp.learner import Learner
from fedtp.wire import Order, Report

# As many devices learn at once as have their weights stay in a processor's cache.
_COHORT_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Plan:
    """What a device will do for an order.

    Parameters
    ----------
    device, order
        Who was asked, and for what.
    samples
        What has arrived since it was last asked.
    blocks
        Names of the blocks that it will train.
    """

    device: Device
    order: Order
    samples: Samples
    blocks: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a plan.

    Parameters
    ----------
    plan
        The plan.
    predicted
        The class predicted for each sample before it was learnt from, ``[samples]``.
    loss
        Mean loss of the last block; NaN if it was not trained or there were no samples.
    detections
        Positions of the samples at which the detector flagged a drift.
    """

    plan: Plan
    predicted: NDArray[np.int64]
    loss: float
    detections: Sequence[int]

    @property
    def correct(self) -> int:
        """How many samples were predicted rightly."""
        return int(np.count_nonzero(self.predicted == self.plan.samples.y))

    @property
    def flops(self) -> float:
        """Floating-point operations that the work took."""
        learner, trained = self.plan.device.learner, self.plan.blocks
        passes = learner.spec.epochs if trained else 1
        return float(len(self.plan.samples) * passes * learner.flops(trained))


def plan(order: Order, device: Device) -> Plan:
    """Check an order, give the device its weights, and take the samples that have arrived.

    Raises
    ------
    WireError
        If the order does not fit the device's network or projections.
    DataError
        If the stream yields what cannot be learnt from.
    """
    learner = device.learner
    if order.digest != learner.digest:
        raise WireError(
            "digest",
            f"the order's projections have digest {order.digest}, this device's {learner.digest}: "
            "server and device must be given the same seed, network and classes",
        )
    for name, packed in order.weights.items():
        if packed.size != learner.sizes.get(name):
            raise WireError("shape", f"the order holds {packed.size} weights for block {name!r}")
    if unknown := set(order.blocks) - set(learner.sizes):
        raise WireError("extra block", f"the order asks for unknown blocks {sorted(unknown)}")
    samples = device.stream.take(order.now)
    _check_samples(samples, learner)
    device.receive(order.weights)
    freeze = learner.spec.freeze_after_seconds
    frozen = freeze is not None and order.now >= freeze
    blocks = () if frozen or not len(samples) else tuple(n for n in learner.sizes if n in order.blocks)
    return Plan(device, order, samples, blocks)


def _check_samples(samples: Samples, learner: Learner) -> None:
    """Refuse what a network cannot learn from, before it spoils the learning of a whole cohort."""
    x, y = samples.x, samples.y
    if y.ndim != 1 or x.shape != (len(y), learner.features):
        raise DataError(
            f"The stream must yield inputs of {learner.features} features and one label each; "
            f"got shapes {x.shape} and {y.shape}."
        )
    # Learning squares the inputs, so the sum of their squares must be finite too.
    if not np.isfinite(np.vdot(x, x)):
        raise DataError("The stream must yield finite inputs, small enough to be squared.")
    if not np.issubdtype(y.dtype, np.integer) or (len(y) and not 0 <= y.min() <= y.max() < learner.classes):
        raise DataError(f"The stream must yield whole labels from 0 to {learner.classes - 1}.")


def learn(plans: Sequence[Plan]) -> list[Outcome]:
    """Let every device predict, score and learn from its samples; return outcomes in the order of `plans`."""
    outcomes: dict[int, Outcome] = {}
    for learner, members in _alike(plans):
        limit = max(1, _COHORT_BYTES // (4 * learner.numbers)) if learner.stacks else 1
        for start in range(0, len(members), limit):
            chunk = members[start : start + limit]
            done = _learn_together(learner, [plans[i] for i in chunk])
            outcomes.update(zip(chunk, done, strict=True))
    return [outcomes.get(i) or Outcome(p, np.empty(0, np.int64), math.nan, ()) for i, p in enumerate(plans)]


def report(outcome: Outcome) -> Report:
    """Return what the device tells the server: the blocks that it trained, and how it went."""
    device, samples, blocks = outcome.plan.device, outcome.plan.samples, outcome.plan.blocks
    return Report(
        digest=outcome.plan.order.digest,
        weights={name: device.send(name) for name in blocks},
        examples=dict.fromkeys(blocks, len(samples)),
        samples=len(samples),
        correct=outcome.correct,
        loss=outcome.loss,
        detections=len(outcome.detections),
        flops=outcome.flops,
    )


def _alike(plans: Sequence[Plan]) -> Iterable[tuple[Learner, list[int]]]:
    """Group the plans that can be carried out together: same learner, blocks and number of batches."""
    groups: dict[tuple[int, tuple[str, ...], int], list[int]] = defaultdict(list)
    for index, item in enumerate(plans):
        if len(item.samples):
            batches = -(-len(item.samples) // item.device.learner.spec.batch_size)
            groups[id(item.device.learner), item.blocks, batches].append(index)
    for members in groups.values():
        yield plans[members[0]].device.learner, members


def _learn_together(learner: Learner, plans: Sequence[Plan]) -> list[Outcome]:
    cohort, blocks = _cohort(learner, len(plans)), plans[0].blocks
    devices = [item.device for item in plans]
    cohort.load({name: _gather([d.weights[name] for d in devices]) for name in learner.held})
    momentum = bool(learner.spec.momentum) and bool(blocks)
    if momentum:
        zeros = {name: np.zeros(size, np.float32) for name, size in learner.held.items()}
        cohort.load_momentum({name: np.stack([d.momentum.get(name, zeros[name]) for d in devices]) for name in zeros})
    counts = np.array([len(item.samples) for item in plans])
    x = np.zeros((len(plans), counts.max(), learner.features), np.float32)
    y = np.zeros((len(plans), counts.max()), np.int64)
    for row, item in enumerate(plans):
        x[row, : counts[row]], y[row, : counts[row]] = item.samples.x, item.samples.y
    answers = cohort.learn(torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(counts), blocks)
    predicted, loss = (tensor.numpy() for tensor in answers)
    wrong = predicted != y
    for name in blocks:
        packed = cohort.weights(name)
        buffers = cohort.momentum(name) if momentum else None
        for row, device in enumerate(devices):
            device.weights[name] = packed[row]
            if buffers is not None:
                device.momentum[name] = buffers[row]
    return [
        Outcome(
            item,
            predicted[row, : counts[row]],
            float(loss[row]),
            detect(item.device.detector, wrong[row, : counts[row]].tolist()),
        )
        for row, item in enumerate(plans)
    ]


def _gather(rows: Sequence[Packed]) -> Packed:
    """Return one vector where all devices were sent the same, ``[devices, size]`` otherwise."""
    return rows[0] if all(row is rows[0] for row in rows) else np.stack(rows)


@lru_cache(maxsize=8)
def _cohort(learner: Learner, devices: int) -> Cohort:
    return Cohort(learner, devices)
