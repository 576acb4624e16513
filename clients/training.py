"""A device's work on one order, in three steps: plan, learn, report.

`learn` takes a list of devices. A ClientApp hands it the one device of a message; a simulation hands it all devices
that were ordered at once, and they learn as ``[devices, ...]`` tensors. It is the same code either way.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clients.adaptation import AS_USUAL, Treatment
from clients.budget import Choice, work_flops
from clients.device import Device
from clients.inbox import Delivery
from fedtp.averaging import weighted_mean
from fedtp.blocks import Packed
from fedtp.clipping import clipped
from fedtp.cohort import Cohort
from fedtp.data.stream import Samples
from fedtp.detection import detect
from fedtp.errors import DataError, WireError
from fedtp.learner import Learner
from fedtp.wire import Order, Report, report_bytes

# What a device without samples has.
_NONE: NDArray[np.int64] = np.empty(0, np.int64)

# As many devices learn at once as have their weights stay in a processor's cache.
_COHORT_BYTES = 4 * 2**20


@dataclass(frozen=True, eq=False)
class Plan:
    """What a device will do for an order.

    Parameters
    ----------
    device, order
        Who was asked, and for what.
    delivery
        What has arrived since it was last asked, samples and labels.
    blocks
        Names of the blocks that it will train.
    trainable
        Names of those that it could, if it leaves the choice to the server.
    treatment
        What it does besides, since it has drifted.
    """

    device: Device
    order: Order
    delivery: Delivery
    blocks: tuple[str, ...]
    trainable: tuple[str, ...] = ()
    treatment: Treatment = AS_USUAL

    @property
    def paces(self) -> dict[str, float]:
        """What the learning rates of blocks are multiplied with, by name: by the server's word and the device's."""
        paces = dict(zip(self.order.blocks, self.order.paces, strict=False))
        for name, factor in self.treatment.paces.items():
            paces[name] = paces.get(name, 1.0) * factor
        return paces

    @property
    def rehearsed(self) -> tuple[str, ...]:
        """Names of the blocks that learn again from samples that were learnt before; none in most orders."""
        treatment = self.treatment
        return tuple(name for name in treatment.blocks if name in self.blocks) if treatment.passes else ()

    @property
    def samples(self) -> Samples:
        """What is scored and learnt from."""
        return self.delivery.samples


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of an order on a device; it knows neither the samples nor the weights, and travels light.

    Parameters
    ----------
    labels
        The class of each sample, ``[samples]``.
    predicted
        The class predicted for each when it was first seen, ``[samples]``.
    correct
        How many were predicted rightly.
    loss
        Mean loss of the last block; NaN if it was not trained or there were no samples.
    detections
        Positions of the samples at which the detector flagged a drift.
    blocks
        Names of the blocks that were trained.
    flops
        Floating-point operations that the work took.
    bytes_up
        Size of the device's own report.
    dropped
        How many samples were pushed out of the device's full buffer before it could learn from them.
    unlabelled
        Of how many inputs, predicted now for the first time, no label will ever come.
    label_delay_seconds
        How long the labels of the samples took to come, s, mean.
    error
        Why the order could not be carried out; empty if it was.
    """

    labels: NDArray[np.int64] = field(default_factory=lambda: _NONE)
    predicted: NDArray[np.int64] = field(default_factory=lambda: _NONE)
    correct: int = 0
    loss: float = math.nan
    detections: Sequence[int] = ()
    blocks: tuple[str, ...] = ()
    flops: float = 0.0
    bytes_up: int = 0
    dropped: int = 0
    unlabelled: int = 0
    label_delay_seconds: float = 0.0
    error: str = ""

    @property
    def samples(self) -> int:
        """How many samples were scored."""
        return len(self.labels)


def plan(order: Order, device: Device) -> Plan:
    """Check an order, give the device its weights, and take the samples that have arrived.

    Raises
    ------
    WireError
        If the order does not fit the device's network or projections.
    DataError
        If the stream yields what cannot be learnt from.
    BudgetError
        If the device has not the memory to take part.
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
    device.budget.check(learner)
    arrived = device.stream.take(order.now)
    _check_samples(arrived, learner)
    delivery = device.inbox.take(arrived, order.now)
    treatment = device.take_over(order.weights)
    freeze = learner.spec.freeze_after_seconds
    frozen = freeze is not None and order.now >= freeze
    work = _work(learner, delivery.samples)
    # What is gone over again takes its time as well.
    again = treatment.passes / learner.spec.epochs
    choice = Choice() if frozen or not work else device.budget.choose(learner, order, work + again)
    return Plan(device, order, delivery, choice.blocks, choice.trainable, treatment)


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
    lengths, steps = samples.lengths, learner.shape[0]
    if lengths is not None and not (lengths.shape == y.shape and ((lengths >= 1) & (lengths <= steps)).all()):
        raise DataError(f"The stream must yield sequences of 1 to {steps} time steps, and one length each.")


def learn(plans: Sequence[Plan]) -> list[Outcome]:
    """Let every device predict, score and learn from its samples; return outcomes in the order of `plans`."""
    _predict_unlabelled(plans)
    outcomes: dict[int, Outcome] = {}
    for learner, chunk in _cohorts(plans):
        done = _learn_together(learner, [plans[i] for i in chunk])
        outcomes.update(zip(chunk, done, strict=True))
    return [outcomes.get(i) or _outcome(item) for i, item in enumerate(plans)]


def _predict_unlabelled(plans: Sequence[Plan]) -> None:
    """Predict the inputs whose labels are yet to come, by the models as they were sent."""
    first_looks = [
        replace(item, delivery=Delivery(item.delivery.unlabelled), blocks=(), treatment=AS_USUAL)
        for item in plans
        if item.delivery.unlabelled is not None
    ]
    for learner, chunk in _cohorts(first_looks):
        looking = [first_looks[i] for i in chunk]
        cohort = _cohort(learner, len(looking))
        cohort.load({name: _gather([item.device.weights[name] for item in looking]) for name in learner.held})
        x, y, counts, steps = _batches(learner, [item.samples for item in looking])
        predicted, _ = cohort.learn(x, y, counts, (), steps)
        for row, item in enumerate(looking):
            item.device.inbox.note(item.samples, predicted[row, : counts[row]].numpy())


def report(done: Sequence[tuple[Plan, Outcome]]) -> Report:
    """Return what a node tells the server: the blocks that its devices trained, and how it went.

    Parameters
    ----------
    done
        The node's one device with what came of its order; of a gateway, its devices. Of each block a gateway sends the
        mean over those that trained it, weighted by their samples, and the sum of these: for a server that averages
        it is as if each device had answered by itself.
    """
    trained: dict[str, list[tuple[Packed, int]]] = {}
    for item, outcome in done:
        for name in outcome.blocks:
            trained.setdefault(name, []).append((item.device.send(name), outcome.samples))
    order = {name: trained[name] for name in done[0][0].device.learner.sizes if name in trained}
    examples = {name: sum(count for _, count in updates) for name, updates in order.items()}
    losses = [(outcome.loss, outcome.samples) for _, outcome in done if math.isfinite(outcome.loss)]
    learnt = sum(count for _, count in losses)
    # A gateway's devices choose for themselves: the server does not know them.
    trainable = done[0][0].trainable if len(done) == 1 else ()
    asked = done[0][0].order
    weights = {name: weighted_mean(updates) for name, updates in order.items()}
    return Report(
        digest=asked.digest,
        weights=clipped(weights, asked.weights, asked.clip),
        examples=examples,
        samples=sum(outcome.samples for _, outcome in done),
        correct=sum(outcome.correct for _, outcome in done),
        loss=sum(loss * count for loss, count in losses) / learnt if learnt else math.nan,
        detections=sum(len(outcome.detections) for _, outcome in done),
        flops=sum(outcome.flops for _, outcome in done),
        trainable=trainable,
        wanted=done[0][0].device.budget.plan_blocks if trainable else 0,
    )


def _cohorts(plans: Sequence[Plan]) -> Iterable[tuple[Learner, list[int]]]:
    """Group the plans with samples that can be carried out together: same learner, blocks, paces and batches.

    Those whose last batch is not full are a group of their own, so that a device learns the same, to the last bit, in
    whatever company.
    """
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for index, item in enumerate(plans):
        if len(item.samples):
            size = item.device.learner.spec.batch_size
            whole, rest = divmod(len(item.samples), size)
            key = id(item.device.learner), item.blocks, whole, bool(rest), item.order.paces
            groups[*key, item.treatment.kind(size)].append(index)
    for members in groups.values():
        learner = plans[members[0]].device.learner
        limit = max(1, _COHORT_BYTES // (4 * learner.numbers)) if learner.stacks else 1
        for start in range(0, len(members), limit):
            yield learner, members[start : start + limit]


def _learn_together(learner: Learner, plans: Sequence[Plan]) -> list[Outcome]:
    cohort, blocks = _cohort(learner, len(plans)), plans[0].blocks
    devices = [item.device for item in plans]
    cohort.load({name: _gather([d.weights[name] for d in devices]) for name in learner.held})
    momentum = bool(learner.spec.momentum) and bool(blocks)
    if momentum:
        zeros = {name: np.zeros(size, np.float32) for name, size in learner.held.items()}
        cohort.load_momentum({name: np.stack([d.momentum.get(name, zeros[name]) for d in devices]) for name in zeros})
    paces, rehearsed = plans[0].paces, plans[0].rehearsed
    if paces:
        cohort.pace(paces)
    if rehearsed:
        x, y, samples, steps = _batches(learner, [item.treatment.again or item.samples for item in plans])
        cohort.learn(x, y, samples, rehearsed, steps, epochs=plans[0].treatment.epochs)
    x, y, samples, steps = _batches(learner, [item.samples for item in plans])
    answers = cohort.learn(x, y, samples, blocks, steps)
    if paces:
        cohort.pace({})
    predicted, loss = (tensor.numpy() for tensor in answers)
    counts = samples.numpy()
    for row, item in enumerate(plans):
        if item.delivery.predicted is not None:  # what was seen before is scored by what was said then
            late = np.flatnonzero(item.delivery.predicted >= 0)
            predicted[row, late] = item.delivery.predicted[late]
    wrong = predicted != y.numpy()
    correct = counts - np.count_nonzero(wrong & (np.arange(wrong.shape[1]) < counts[:, None]), axis=1)
    for name in blocks:
        packed = cohort.weights(name)
        buffers = cohort.momentum(name) if momentum else None
        for row, device in enumerate(devices):
            device.weights[name] = packed[row]
            if buffers is not None:
                device.momentum[name] = buffers[row]
    rows = zip(plans, counts.tolist(), correct.tolist(), loss.tolist(), strict=True)
    outcomes = []
    for row, (item, count, right, mean) in enumerate(rows):
        errors, device = wrong[row, :count], item.device
        found = detect(device.detector, errors.tolist())
        spent = work_flops(learner, _work(learner, item.samples), blocks)
        if device.adaptation is not None:
            device.adaptation.learnt(item.samples, errors, found)
            spent += item.treatment.flops(learner, rehearsed)
        outcomes.append(
            _outcome(
                item,
                labels=item.samples.y,
                predicted=predicted[row, :count],
                correct=right,
                loss=mean,
                detections=found,
                blocks=blocks,
                flops=spent,
            )
        )
    return outcomes


def _outcome(item: Plan, flops: float = 0.0, **came: Any) -> Outcome:
    """Return what came of a plan, and what its delivery says."""
    delivery = item.delivery
    if delivery.unlabelled is not None:
        learner = item.device.learner
        flops += _work(learner, delivery.unlabelled) * learner.flops(())
    return Outcome(
        **came,
        flops=flops,
        bytes_up=_report_bytes(item),
        dropped=delivery.dropped,
        unlabelled=delivery.never_labelled,
        label_delay_seconds=delivery.label_delay_seconds,
    )


def _work(learner: Learner, samples: Samples) -> float:
    """Return to how many whole samples the work on some amounts: a sequence of half the time steps is half of one."""
    if samples.lengths is None or not learner.sequential:
        return float(len(samples))
    return float(samples.lengths.sum() / learner.shape[0])


def _batches(learner: Learner, given: Sequence[Samples]) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return devices' inputs and labels, filled up to whole batches, how many each has, and the steps of sequences.

    To whole ones, because how many samples the others have must not show.
    """
    counts = [len(samples) for samples in given]
    width = -(-max(counts) // learner.spec.batch_size) * learner.spec.batch_size
    x = np.zeros((len(given), width, learner.features), np.float32)
    y = np.zeros(x.shape[:2], np.int64)
    steps = np.ones(x.shape[:2], np.int64)
    for row, (samples, count) in enumerate(zip(given, counts, strict=True)):
        x[row, :count], y[row, :count] = samples.x, samples.y
        steps[row, :count] = learner.shape[0] if samples.lengths is None else samples.lengths
    lengths = torch.from_numpy(steps) if learner.sequential else None
    return torch.from_numpy(x), torch.from_numpy(y), torch.tensor(counts), lengths


def _report_bytes(item: Plan) -> int:
    sizes = item.device.learner.sizes
    return report_bytes(tuple((name, sizes[name]) for name in item.blocks), item.order.digest, item.trainable)


def _gather(rows: Sequence[Packed]) -> Packed:
    """Return one vector where all devices were sent the same, ``[devices, size]`` otherwise."""
    return rows[0] if all(row is rows[0] for row in rows) else np.stack(rows)


@lru_cache(maxsize=8)
def _cohort(learner: Learner, devices: int) -> Cohort:
    return Cohort(learner, devices)
