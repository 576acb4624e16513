"""A sweep over a single sample in NumPy: a small dense network spends its time in PyTorch's dispatch, not its sums.

The arrays are views of the model's parameters, so the two paths train the same numbers, and may take turns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedtp.blocks import Block, Chain
from fedtp.losses import CrossEntropy, Loss, Space, Squared
from fedtp.rules import LinearRule

Vector = NDArray[Any]

#: An activation, and its derivative as a function of its own result.
ACTIVATIONS: dict[type[nn.Module], tuple[Callable[[Vector], Vector], Callable[[Vector], Vector]]] = {
    nn.ReLU: (lambda z: np.maximum(z, 0.0), lambda a: a > 0),
    nn.Tanh: (np.tanh, lambda a: 1.0 - a * a),
    nn.Sigmoid: (lambda z: 1.0 / (1.0 + np.exp(-z)), lambda a: a * (1.0 - a)),
}


@dataclass
class Layer:
    """A dense layer with its activation, as arrays.

    Parameters
    ----------
    weight, bias
        ``[outputs, inputs]`` and ``[outputs]``; there may be no bias.
    activation
        A function of the outputs, and its derivative as a function of its own result; None where there is none.
    readout
        What a hidden layer is compared through, ``[classes, outputs]``; None for the last.
    """

    weight: Vector
    bias: Vector | None
    activation: tuple[Callable[[Vector], Vector], Callable[[Vector], Vector]] | None
    readout: Vector | None

    def forward(self, x: Vector) -> Vector:
        """Return the output of one sample."""
        z: Vector = self.weight.dot(x)
        if self.bias is not None:
            z += self.bias
        return z if self.activation is None else self.activation[0](z)


def softmax_error(logits: Vector, label: int) -> tuple[float, Vector]:
    """Return the cross-entropy of a sample, and minus its derivative by the logits."""
    shifted = logits - logits.max()
    error = np.exp(shifted)
    total = float(error.sum())
    value = math.log(total) - float(shifted[label])
    error *= -1.0 / total
    error[label] += 1.0
    return value, error


def squared_error(output: Vector, label: int) -> tuple[float, Vector]:
    """Return half the squared distance of a sample from its label's one-hot vector, and minus its derivative."""
    error = -output
    error[label] += 1.0
    return 0.5 * float(error.dot(error)), error


ERRORS: dict[type[Loss], Callable[[Vector, int], tuple[float, Vector]]] = {
    CrossEntropy: softmax_error,
    Squared: squared_error,
}


class SingleSample:
    """The layers of a dense model as arrays, and a sweep over one sample through them.

    Parameters
    ----------
    chain
        The model's blocks.
    loss, space, normalize
        As `fedtp.TPSGD` has them.
    readout
        From a hidden block to the matrix that it is compared through, ``[classes, features]``.
    """

    def __init__(
        self, chain: Chain, loss: Loss, space: Space, *, normalize: bool, readout: Callable[[Block], Tensor]
    ) -> None:
        self.chain = chain
        self.error = ERRORS.get(type(loss))
        if isinstance(loss, CrossEntropy) and (loss.weight is not None or loss.label_smoothing):
            self.error = None
        self.space = space
        self.normalize = normalize
        self.readout = readout
        self.layers: list[Layer] = []
        self._parameters = [p for block in chain for p in block.parameters]
        self._seen: list[tuple[int, bool]] = []

    def ready(self) -> bool:
        """Whether the model is plain enough now: dense layers with one activation at most, on the CPU, none frozen.

        A model may be loaded, cast, moved or frozen between two samples; the views are then taken anew.
        """
        seen = [(p.data_ptr(), p.requires_grad) for p in self._parameters]
        if seen != self._seen:
            self._seen = seen
            plain = self.error is not None and not self.chain.devices and not self.chain.stem
            plain = plain and all(_plain(block) for block in self.chain)
            self.layers = [self._layer(block) for block in self.chain] if plain else []
        return bool(self.layers)

    def _layer(self, block: Block) -> Layer:
        weight, *bias = (p.detach().numpy() for p in block.parameters)
        activation = ACTIVATIONS[type(block.tail[0].layer)] if block.tail else None
        readout = None if block is self.chain.blocks[-1] else self.readout(block).numpy()
        return Layer(weight, bias[0] if bias else None, activation, readout)

    def step(
        self, x: Vector, label: int, groups: list[dict[str, Any]], momentum_of: Callable[[Tensor], Tensor]
    ) -> tuple[list[float], Vector]:
        """Learn from one sample.

        Parameters
        ----------
        x
            ``[features]``, finite.
        label
            Its class.
        groups
            The parameter group of each block.
        momentum_of
            From a parameter to its momentum.

        Returns
        -------
        tuple
            The loss of every block, and what the model answered, ``[classes]``.
        """
        assert self.error is not None
        values = []
        for layer, group in zip(self.layers, groups, strict=True):
            a = layer.forward(x)
            if layer.readout is None:
                value, error = self.error(a, label)
            elif self.space == "label":
                value, answer = self.error(layer.readout.dot(a), label)
                error = answer.dot(layer.readout)
            else:
                error = layer.readout[label] - a
                value = 0.5 * float(error.dot(error))
            values.append(value)
            if layer.activation is not None:
                error *= layer.activation[1](a)
            lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
            scale = 1.0 if momentum else lr
            error *= scale / (1.0 + float(x.dot(x))) if self.normalize else scale
            if momentum:
                buffers = [momentum_of(p).numpy() for p in group["params"]]
                for buffer, own in zip(buffers, (layer.weight, layer.bias), strict=False):
                    buffer *= momentum
                    if decay:
                        buffer -= decay * own
                _add(buffers[0], buffers[1] if layer.bias is not None else None, error, x)
                for buffer, own in zip(buffers, (layer.weight, layer.bias), strict=False):
                    own += lr * buffer
            else:
                if decay:
                    layer.weight *= 1.0 - lr * decay
                    if layer.bias is not None:
                        layer.bias *= 1.0 - lr * decay
                _add(layer.weight, layer.bias, error, x)
            x = a
        return values, x


def _add(weight: Vector, bias: Vector | None, error: Vector, x: Vector) -> None:
    weight += error[:, None] * x
    if bias is not None:
        bias += error


def _plain(block: Block) -> bool:
    if not isinstance(block.rule, LinearRule) or block.frozen or len(block.parameters) != len(block.rule.parameters):
        return False
    if len(block.tail) > 1 or any(type(tail.layer) not in ACTIVATIONS for tail in block.tail):
        return False
    return all(p.device.type == "cpu" and p.dtype in (torch.float32, torch.float64) for p in block.parameters)
