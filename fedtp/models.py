"""Builders of plain ``nn.Sequential`` networks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from fedtp.errors import ModelError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky-relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
}


def mlp(
    features: int, hidden: Sequence[int], classes: int, *, activation: str = "tanh", seed: int = 0
) -> nn.Sequential:
    """Build a multilayer perceptron, initialised from `seed` alone.

    Parameters
    ----------
    features, classes
        Numbers of inputs and outputs.
    hidden
        Width of each hidden layer; none for a linear model.
    activation
        One of `ACTIVATIONS`.
    seed
        Of the initial weights, drawn as PyTorch draws them (uniform on ``±1/√inputs``).

    Examples
    --------
    >>> [tuple(p.shape) for p in mlp(4, [8], 3).parameters()]
    [(8, 4), (8,), (3, 8), (3,)]
    """
    if activation not in ACTIVATIONS:
        raise ModelError(f"There is no activation {activation!r}; choose one of {', '.join(ACTIVATIONS)}.")
    widths = [features, *hidden, classes]
    if min(widths) < 1:
        raise ModelError(f"Every layer needs at least one unit, got widths {widths}.")
    generator = torch.Generator().manual_seed(seed % 2**63)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        linear = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
        bound = inputs**-0.5
        for parameter in linear.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        layers += [linear, ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])
