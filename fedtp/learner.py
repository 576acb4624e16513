"""A learner: the network and the optimizer that a spec means for data of a given size."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from functools import cache, cached_property, lru_cache

import torch
from torch import nn

from fedtp.baselines import Backprop
from fedtp.blocks import Chain, Packed
from fedtp.errors import ModelError
from fedtp.learner_spec import LearnerSpec
from fedtp.models import mlp
from fedtp.optimizer import TPSGD
from fedtp.run_config import ConfigValue


class Learner:
    """What every device of a fleet trains: the same network from the same seed.

    Parameters
    ----------
    spec
        The network and how it learns.
    features, classes
        Numbers of inputs and outputs.

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
        self.model: nn.Sequential = mlp(features, spec.hidden, classes, activation=spec.activation, seed=spec.seed)
        self.chain = Chain(self.model)
        self.sizes = {block.name: block.size for block in self.chain}

    def initial_weights(self) -> dict[str, Packed]:
        """Return the weights that all devices start from, packed by block."""
        return {block.name: block.pack().numpy() for block in self.chain}

    def network(self, weights: Mapping[str, Packed]) -> nn.Sequential:
        """Return the network with other weights; its own stay, since all who start anew start from them."""
        model = copy.deepcopy(self.model)
        for block in Chain(model):
            block.unpack(torch.tensor(weights[block.name]))
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
            momentum=spec.momentum,
            weight_decay=spec.weight_decay,
            normalize=spec.normalize,
        )

    @cached_property
    def digest(self) -> str:
        """Hash of the projections and the network's form, which all who learn together must share."""
        optimizer = self.optimizer(self.model)
        shared = optimizer.digest() if isinstance(optimizer, TPSGD) else self.spec.method
        return hashlib.blake2b(f"{shared} {self.sizes}".encode(), digest_size=16).hexdigest()

    @cached_property
    def _forward_flops(self) -> dict[str, int]:
        x = self.chain.enter(torch.zeros(1, self.features))
        flops = {}
        with torch.no_grad():
            for block in self.chain:
                flops[block.name] = block.rule.forward_flops(x)
                x, _ = block.forward(x)
        return flops

    @cache  # noqa: B019, learners live as long as their process
    def flops(self, blocks: tuple[str, ...] | None = None) -> int:
        """Floating-point operations for one sample: predicting it and learning from it once.

        A full forward pass is always counted, since every sample is scored. Training a block by tpSGD adds the
        product that changes its weights, as costly as its forward pass, and for a hidden block two products with
        the projection. Backpropagation adds two products per block, less the first block's input gradient.

        Parameters
        ----------
        blocks
            Names of the blocks that are trained; all by default, none for a prediction only.
        """
        forward = self._forward_flops
        scoring = sum(forward.values())
        trained = [block for block in self.chain if blocks is None or block.name in blocks]
        updating = sum(forward[block.name] for block in trained)
        first, last = self.chain.blocks[0], self.chain.blocks[-1]
        if self.spec.method == "backprop":
            passing_back = scoring - forward[first.name] if trained else 0
        else:
            passing_back = sum(4 * block.outputs * self.classes for block in trained if block is not last)
        return scoring + updating + passing_back


@lru_cache(maxsize=32)
def learner_for(spec: LearnerSpec, features: int, classes: int) -> Learner:
    """Return the one `Learner` of these settings in this process: its projections are drawn once."""
    return Learner(spec, features, classes)


def learner_of(config: Mapping[str, ConfigValue]) -> Learner:
    """Return the learner that a run config describes: ``learner.*``, ``features`` and ``classes``."""
    features, classes = config.get("features"), config.get("classes")
    if not (isinstance(features, int) and isinstance(classes, int)):
        raise ModelError("The run config must give the numbers of features and classes, as whole numbers.")
    return learner_for(LearnerSpec.from_config(config), features, classes)
