"""A learner: the network and the optimizer that a spec means for data of a given size."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedtp import costs
from fedtp.adaptors import adapt
from fedtp.baselines import Backprop, DirectFeedback, FeedbackAlignment
from fedtp.blocks import Chain, Packed
from fedtp.errors import ModelError
from fedtp.learner_spec import LearnerSpec
from fedtp.losses import CrossEntropy
from fedtp.models import cnn, mlp, recurrent
from fedtp.optimizer import GRID, TPSGD
from fedtp.pretrained import load_pretrained
from fedtp.readout import width
from fedtp.run_config import ConfigValue

Optimizer = TPSGD | Backprop | DirectFeedback


class Learner:
    """What every device of a fleet trains: the same network from the same seed.

    Parameters
    ----------
    spec
        The network and how it learns.
    shape
        Of a sample, as `fedtp.data.DataSet` has it; a number for a row of so many features.
    classes
        Number of outputs.

    Attributes
    ----------
    features
        How many numbers a sample is; samples come as rows of them.
    input_shape
        As what the network takes a sample: a row, ``[channels, height, width]``, or ``[steps, features]``.
    model
        The network as it begins.
    learning
        Those of its blocks that are not frozen: what is ordered, trained, sent and counted.
    sizes
        How many numbers of each of these travel: its weights, and its readout if that is shared.
    held
        How many a device holds of each: what travels, then the readout if that stays where it learns.

    Raises
    ------
    DataError
        If the file of pretrained weights cannot be read.
    ModelError
        If it is another network's, no layer fits the adaptor, or the network does not suit samples of this shape.

    Examples
    --------
    >>> learner = Learner(LearnerSpec(hidden=(8,), seed=1), 4, classes=3)
    >>> learner.sizes
    {'0': 40, '2': 27}
    >>> learner.flops(()), learner.flops(("0", "2"))
    (112, 320)
    """

    def __init__(self, spec: LearnerSpec, shape: int | Sequence[int], classes: int) -> None:
        self.spec = spec
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        self.features = math.prod(self.shape)
        self.classes = classes
        self.input_shape = _input_shape(spec, self.shape)
        self.model = _network(spec, self.input_shape, classes)
        self.chain = Chain(self.model)
        self.learning = [block for block in self.chain if not block.frozen]
        readouts = self.readouts(self.optimizer(self.model))
        self._initial = {
            block.name: block.join([*block.parameters, *readouts[block.name]]).numpy() for block in self.learning
        }
        self.held = {name: packed.size for name, packed in self._initial.items()}
        self.sizes = self.held if spec.readout == "shared" else {block.name: block.size for block in self.learning}

    @property
    def sequential(self) -> bool:
        """Whether a sample is a sequence, of which steps may be padding."""
        return self.chain.recurrent

    @property
    def stacks(self) -> bool:
        """Whether many devices' copies can be trained at once, as one stack."""
        return self.spec.method != "fa" and all(block.batches_devices for block in self.chain)

    @property
    def partial(self) -> bool:
        """Whether some blocks can be trained without the others: not where errors pass from block to block."""
        return self.spec.method not in ("backprop", "fa")

    @property
    def reads_blocks(self) -> bool:
        """Whether each block answers by itself, so that one can tell which of them are wrong (`Cohort.answers`)."""
        return self.spec.method == "tpsgd" and self.spec.space == "label" and not self.sequential

    @cached_property
    def numbers(self) -> int:
        """How many numbers a device's copy of the network and its readouts are, what is frozen included."""
        readouts = sum(self.held[block.name] - block.size for block in self.learning)
        return readouts + sum(p.numel() for p in self.model.parameters())

    def initial(self) -> dict[str, Packed]:
        """Return what a new device holds of each block, see `held`."""
        return {name: packed.copy() for name, packed in self._initial.items()}

    def initial_weights(self) -> dict[str, Packed]:
        """Return the weights that all devices start from, packed by block as they travel."""
        return {name: self._initial[name][:size].copy() for name, size in self.sizes.items()}

    def network(self, weights: Mapping[str, Packed]) -> nn.Sequential:
        """Return the network with other weights; its own stay, since all who start anew start from them."""
        model = copy.deepcopy(self.model)
        chain = Chain(model)
        for name in self.sizes:
            block = chain[name]
            block.unpack(torch.tensor(weights[name][: block.size]))
        return model

    def optimizer(self, model: nn.Sequential) -> Optimizer:
        """Return the optimizer of the spec for `model`, which may be a stack of devices."""
        spec = self.spec
        loss = CrossEntropy(label_smoothing=spec.label_smoothing) if spec.label_smoothing else spec.loss
        sgd: Any = {"loss": loss, "lr": spec.lr, "momentum": spec.momentum, "weight_decay": spec.weight_decay}
        match spec.method:
            case "tpsgd":
                return TPSGD(
                    model,
                    seed=spec.seed,
                    space=spec.space,
                    projection=spec.projection,
                    readout="fixed" if spec.readout == "fixed" else "learnt",
                    normalize=spec.normalize,
                    **sgd,
                )
            case "backprop":
                return Backprop(model, **sgd)
            case "fa":
                return FeedbackAlignment(model, seed=spec.seed, **sgd)
            case method:
                return DirectFeedback(model, method=method, seed=spec.seed, **sgd)

    def readouts(self, optimizer: Optimizer) -> dict[str, list[Tensor]]:
        """Return, live, the readout that learns with each block of a model: one, or none in the list."""
        found: dict[str, Tensor] = {}
        if isinstance(optimizer, TPSGD):
            devices = optimizer.chain.devices
            found = optimizer.learnt_readouts(torch.zeros(*([devices] if devices else []), 1, *self.input_shape))
        return {block.name: [found[block.name]] if block.name in found else [] for block in self.learning}

    @cached_property
    def digest(self) -> str:
        """Hash of what all who learn together must share: projections, the network's form, what of it is frozen."""
        projections = self.optimizer(copy.deepcopy(self.model)).digest(self._samples(1))
        form = f"{self.spec.method} {projections} {self.sizes} {self.held} {self.input_shape}"
        digest = hashlib.blake2b(form.encode(), digest_size=16)
        for parameter in self.model.parameters():
            if not parameter.requires_grad:
                digest.update(parameter.numpy().tobytes())
        return digest.hexdigest()

    def predict(self, model: nn.Sequential, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the class that a model answers for each sample, ``[samples]``.

        Parameters
        ----------
        model
            With the weights of one device.
        x
            ``[samples, features]``.
        lengths
            Of sequences: how many time steps of each are no padding, ``[samples]``.
        """
        with torch.no_grad():
            steps = lengths if self.sequential else None
            return Chain(model).forward(x.unflatten(-1, self.input_shape), steps).argmax(-1)

    @cache  # noqa: B019, learners live as long as their process
    def flops(self, blocks: tuple[str, ...] | None = None) -> int:
        """Floating-point operations for one sample: predicting it and learning from it once.

        A full forward pass is always counted, since every sample is scored. Training a block adds the product that
        changes its weights, as costly as its forward pass, and what brings it an error: by tpSGD two products of a
        hidden block's output with its readout, three if that learns, one in target space; by DFA, sDFA and DRTP one
        with the feedback matrix; by backpropagation and FA a pass back through all blocks after the first that is
        trained. Of a block with an adaptor only the adaptor's weights change; the error passes back through its second
        product. A sequence has all its time steps.

        Parameters
        ----------
        blocks
            Names of the blocks that are trained; all by default, none for a prediction only.
        """
        trained = [block.name for block in self.learning if blocks is None or block.name in blocks]
        names = list(self._operations)
        scoring = sum(block.forward for block in self._operations.values())
        updating = sum(self._operations[name].update for name in trained)
        passed = names[names.index(trained[0]) + 1 :] if trained else []
        hidden = [self._operations[name] for name in trained if name != names[-1]]
        match self.spec.method:
            case "tpsgd":
                products = 1 if self.spec.space == "target" else 2 if self.spec.readout == "fixed" else 3
                back = sum(2 * products * block.rows * block.read * self.classes for block in hidden)
            case "dfa" | "sdfa" | "drtp":
                back = sum(2 * block.rows * block.features * self.classes for block in hidden)
            case _:
                back = self._operations[trained[0]].through_time if trained else 0
                back += sum(self._operations[name].forward for name in passed)
        return scoring + updating + back

    @cached_property
    def _operations(self) -> dict[str, costs.Operations]:
        return costs.operations(self.model, self._samples(1), lambda a: width(a, 1, GRID))

    @cache  # noqa: B019
    def memory(self, blocks: tuple[str, ...] | None = None) -> dict[str, costs.Memory]:
        """Return what is alive at most while each block is at work in a step from one batch, see `fedtp.costs.memory`.

        Parameters
        ----------
        blocks
            Names of the blocks that are trained; all by default.
        """
        optimizer = self.optimizer(copy.deepcopy(self.model))
        x, y = self._samples(self.spec.batch_size), torch.zeros(self.spec.batch_size, dtype=torch.long)
        trained = [block.name for block in self.learning if blocks is None or block.name in blocks]
        return costs.memory(optimizer, x, y, trained, whole=self.spec.method in ("backprop", "fa"))

    def training_bytes(self, blocks: tuple[str, ...] | None = None) -> int:
        """Return the peak memory of learning from one batch by training some blocks, bytes; 0 for none.

        It is the largest sum of what the block at work holds (weights, momentum, readout) and what is alive beside:
        its input, output and errors, or, for backpropagation, all of every block at once.
        """
        return max((block.total for block in self.memory(blocks).values()), default=0) if blocks != () else 0

    @cache  # noqa: B019
    def scoring_bytes(self) -> int:
        """Return the memory of a prediction: the largest pair of neighbouring activations of one sample, bytes."""
        return costs.scoring_bytes(self.model, self._samples(1))

    def _samples(self, count: int) -> Tensor:
        return torch.zeros(count, *self.input_shape)


def _input_shape(spec: LearnerSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return as what the network takes a sample of some shape."""
    match spec.network, shape:
        case "mlp", _:
            return (math.prod(shape),)
        case "cnn", (height, width):
            return 1, height, width
        case ("cnn", (_, _, _)) | ("recurrent", (_, _)):
            return shape
    what = "pictures" if spec.network == "cnn" else "sequences"
    raise ModelError(f'learner.network is "{spec.network}", which learns from {what}, but a sample has shape {shape}.')


def _network(spec: LearnerSpec, shape: tuple[int, ...], classes: int) -> nn.Sequential:
    model = _plain_network(spec, shape, classes)
    if spec.pretrained is not None:
        load_pretrained(model, spec.pretrained)
    if spec.adaptor != "none":
        model = adapt(model, spec.adaptor, size=spec.adaptor_size, seed=spec.seed)
    if spec.method == "last":
        for block in Chain(model).blocks[:-1]:
            for parameter in block.parameters:
                parameter.requires_grad_(False)
    return model


def _plain_network(spec: LearnerSpec, shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """Return the network as its seed draws it. No normalisation: its running statistics would not travel."""
    match spec.network, shape:
        case "cnn", (channels, height, width):
            return cnn(
                (channels, height, width),
                spec.channels,
                classes,
                hidden=spec.hidden,
                kernel=spec.kernel or 3,
                activation=spec.activation,
                norm=False,
                seed=spec.seed,
            )
        case "recurrent", (_, features):
            return recurrent(
                features, spec.hidden[0], classes, cell=spec.cell or "gru", layers=len(spec.hidden), seed=spec.seed
            )
    return mlp(math.prod(shape), spec.hidden, classes, activation=spec.activation, seed=spec.seed)


def learner_for(spec: LearnerSpec, shape: int | Sequence[int], classes: int) -> Learner:
    """Return the one `Learner` of these settings in this process: its projections are drawn once."""
    whole = (shape,) if isinstance(shape, int) else tuple(shape)
    return _learner(spec, whole, classes, _version(spec.pretrained))


@lru_cache(maxsize=32)
def _learner(spec: LearnerSpec, shape: tuple[int, ...], classes: int, version: object) -> Learner:
    return Learner(spec, shape, classes)


def _version(path: str | None) -> object:
    """Return what changes when a file is written anew, so that nobody goes on with what it held before."""
    file = None if path is None else Path(path).expanduser()
    if file is None or not file.exists():
        return None
    found = file.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def learner_of(config: Mapping[str, ConfigValue]) -> Learner:
    """Return the learner that a run config describes: ``learner.*``, ``shape`` and ``classes``.

    The shape is that of a sample, as text with commas between: ``"28,28"``; a number will do for a row.
    """
    shape = [part.strip() for part in str(config.get("shape", "")).split(",")]
    classes = config.get("classes")
    if not (all(part.isdecimal() and int(part) for part in shape) and isinstance(classes, int)):
        raise ModelError(
            'The run config must give the shape of a sample, as in shape = "28,28", and the number of classes.'
        )
    return learner_for(LearnerSpec.from_config(config), tuple(map(int, shape)), classes)
