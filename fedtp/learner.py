"""A learner: the network and the optimizer that a spec means for data of a given size."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from functools import cache, cached_property, lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from fedtp.adaptors import adapt
from fedtp.baselines import Backprop
from fedtp.blocks import Block, Chain, Packed
from fedtp.errors import ModelError
from fedtp.learner_spec import LearnerSpec
from fedtp.models import mlp
from fedtp.optimizer import TPSGD
from fedtp.pretrained import load_pretrained
from fedtp.rules import Rule, Tail
from fedtp.run_config import ConfigValue


class Learner:
    """What every device of a fleet trains: the same network from the same seed.

    Parameters
    ----------
    spec
        The network and how it learns.
    features, classes
        Numbers of inputs and outputs.

    Attributes
    ----------
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
        If it is another network's, or no layer fits the adaptor.

    Examples
    --------
    >>> learner = Learner(LearnerSpec(hidden=(8,), seed=1), features=4, classes=3)
    >>> learner.sizes
    {'0': 40, '2': 27}
    >>> learner.flops(()), learner.flops(("0", "2"))
    (112, 320)
    """

    def __init__(self, spec: LearnerSpec, features: int, classes: int) -> None:
        self.spec = spec
        self.features = features
        self.classes = classes
        self.model = _network(spec, features, classes)
        self.chain = Chain(self.model)
        self.learning = [block for block in self.chain if not block.frozen]
        readouts = self.readouts(self.optimizer(self.model))
        self._initial = {
            block.name: block.join([*block.parameters, *readouts[block.name]]).numpy() for block in self.learning
        }
        self.held = {name: packed.size for name, packed in self._initial.items()}
        self.sizes = self.held if spec.readout == "shared" else {block.name: block.size for block in self.learning}

    @property
    def stacks(self) -> bool:
        """Whether many devices' copies can be trained at once, as one stack."""
        return all(block.batches_devices for block in self.chain)

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

    def optimizer(self, model: nn.Sequential) -> TPSGD | Backprop:
        """Return the optimizer of the spec for `model`, which may be a stack of devices."""
        spec = self.spec
        if spec.method == "backprop":
            return Backprop(model, lr=spec.lr, loss=spec.loss, momentum=spec.momentum, weight_decay=spec.weight_decay)
        return TPSGD(
            model,
            seed=spec.seed,
            lr=spec.lr,
            loss=spec.loss,
            space=spec.space,
            projection=spec.projection,
            readout="fixed" if spec.readout == "fixed" else "learnt",
            momentum=spec.momentum,
            weight_decay=spec.weight_decay,
            normalize=spec.normalize,
        )

    def readouts(self, optimizer: TPSGD | Backprop) -> dict[str, list[Tensor]]:
        """Return, live, the readout that learns with each block of a model: one, or none in the list."""
        found: dict[str, Tensor] = {}
        if self.spec.readout != "fixed" and isinstance(optimizer, TPSGD):
            found = optimizer.learnt_readouts()
        return {block.name: [found[block.name]] if block.name in found else [] for block in self.learning}

    @cached_property
    def digest(self) -> str:
        """Hash of what all who learn together must share: projections, the network's form, what of it is frozen."""
        optimizer = self.optimizer(self.model)
        like = torch.zeros(1, self.features)
        shared = optimizer.digest(like) if isinstance(optimizer, TPSGD) else self.spec.method
        digest = hashlib.blake2b(f"{shared} {self.sizes} {self.held}".encode(), digest_size=16)
        for parameter in self.model.parameters():
            if not parameter.requires_grad:
                digest.update(parameter.numpy().tobytes())
        return digest.hexdigest()

    @cache  # noqa: B019, learners live as long as their process
    def flops(self, blocks: tuple[str, ...] | None = None) -> int:
        """Floating-point operations for one sample: predicting it and learning from it once.

        A full forward pass is always counted, since every sample is scored. Training a block by tpSGD adds the
        product that changes its weights, as costly as its forward pass, and for a hidden block two products with
        its readout, three if that learns. Of a block with an adaptor only the adaptor's weights change; the error
        passes back through its second product. Backpropagation adds two products per block, less the first block's
        input gradient.

        Parameters
        ----------
        blocks
            Names of the blocks that are trained; all by default, none for a prediction only.
        """
        scoring = sum(map(_product_flops, self.chain))
        trained = [block for block in self.learning if blocks is None or block.name in blocks]
        updating = sum(_update_flops(block) for block in trained)
        first, last = self.chain.blocks[0], self.chain.blocks[-1]
        if self.spec.method == "backprop":
            passing_back = scoring - _product_flops(first) if trained else 0
        else:
            products = 2 if self.spec.readout == "fixed" else 3
            passing_back = sum(2 * products * block.outputs * self.classes for block in trained if block is not last)
        return scoring + updating + passing_back


def _network(spec: LearnerSpec, features: int, classes: int) -> nn.Sequential:
    model = mlp(features, spec.hidden, classes, activation=spec.activation, seed=spec.seed)
    if spec.pretrained is not None:
        load_pretrained(model, spec.pretrained)
    return model if spec.adaptor == "none" else adapt(model, spec.adaptor, size=spec.adaptor_size, seed=spec.seed)


def _matrices(block: Block) -> list[Tensor]:
    """Return the matrices of a block: next to their products, what vectors cost does not count."""
    layers: list[Rule | Tail] = [block.rule, *block.tail]
    return [p for layer in layers for p in layer.parameters if p.dim() == 2]


def _product_flops(block: Block) -> int:
    """Count the operations of a block's forward pass: a product and a sum per number."""
    return sum(2 * matrix.numel() for matrix in _matrices(block))


def _update_flops(block: Block) -> int:
    """Count those of changing what learns: per number as many, twice as many past the first, to reach those before."""
    learning = [2 * matrix.numel() for matrix in _matrices(block) if matrix.requires_grad]
    return sum(learning) + sum(learning[1:])


def learner_for(spec: LearnerSpec, features: int, classes: int) -> Learner:
    """Return the one `Learner` of these settings in this process: its projections are drawn once."""
    return _learner(spec, features, classes, _version(spec.pretrained))


@lru_cache(maxsize=32)
def _learner(spec: LearnerSpec, features: int, classes: int, version: object) -> Learner:
    return Learner(spec, features, classes)


def _version(path: str | None) -> object:
    """Return what changes when a file is written anew, so that nobody goes on with what it held before."""
    file = None if path is None else Path(path).expanduser()
    if file is None or not file.exists():
        return None
    found = file.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def learner_of(config: Mapping[str, ConfigValue]) -> Learner:
    """Return the learner that a run config describes: ``learner.*``, ``features`` and ``classes``."""
    features, classes = config.get("features"), config.get("classes")
    if not (isinstance(features, int) and isinstance(classes, int)):
        raise ModelError("The run config must give the numbers of features and classes, as whole numbers.")
    return learner_for(LearnerSpec.from_config(config), features, classes)
