"""What a block's step should be divided by when it learns from batches: a trial, not a setting.

784-500-10 on MNIST, tanh, label space, one epoch in batches of 64; error in % on the last 5,000 training images, which
are held back. Needs MNIST (FEDTP_DATA).

    python benchmarks/step_divisor.py
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from machine import publish
from torch import Tensor, nn

from fedtp import TPSGD
from fedtp.baselines import Backprop
from fedtp.blocks import Block
from fedtp.data import load
from fedtp.models import mlp
from fedtp.rules import LinearRule

LEARNING_RATES = (1.0, 3.0, 10.0, 30.0, 100.0)
HELD_BACK = 5000


def spectral_norm(rule: LinearRule, x: Tensor, weights: Tensor | None = None) -> Tensor:
    """Squared spectral norm of the batch over its size, by two power iterations: a single sample's squared norm."""
    c = torch.ones(len(x), 1)
    for _ in range(2):
        c = x @ (x.mT @ (c / torch.linalg.vector_norm(c)))
    return torch.linalg.vector_norm(c) / len(x)


class Louder(TPSGD):
    """TPSGD whose label-space logits are three times as large."""

    def _readout(self, block: Block, a: Tensor) -> Tensor:
        return 3 * super()._readout(block, a)


def error(optimizer_for: Callable[[nn.Module], TPSGD | Backprop], x: Tensor, y: Tensor) -> float:
    """Train for one epoch and return the error on the images held back."""
    model = mlp(784, [500], 10, seed=0)
    optimizer = optimizer_for(model)
    learnt = len(y) - HELD_BACK
    for batch in torch.randperm(learnt, generator=torch.Generator().manual_seed(0)).split(64):
        optimizer.step(x[batch], y[batch])
    with torch.no_grad():
        return round(100 * (model(x[learnt:]).argmax(1) != y[learnt:]).double().mean().item(), 2)


def main() -> None:
    """Try every divisor at every learning rate."""
    train, _ = load("mnist").split()
    x, y = torch.from_numpy(train.x), torch.from_numpy(train.y)
    plain = LinearRule.mean_squared_norm
    rows = []
    for name, norm, kind in (
        ("mean squared norm", plain, TPSGD),
        ("mean squared norm, logits x 3", plain, Louder),
        ("squared spectral norm", spectral_norm, TPSGD),
        ("squared spectral norm, logits x 3", spectral_norm, Louder),
    ):
        LinearRule.mean_squared_norm = norm  # type: ignore[method-assign]
        errors = {f"{lr:g}": error(lambda m, k=kind, r=lr: k(m, seed=7, lr=r), x, y) for lr in LEARNING_RATES}
        rows.append({"divided by": name, **errors})
    LinearRule.mean_squared_norm = plain  # type: ignore[method-assign]
    errors = {f"{lr:g}": error(lambda m, r=lr: Backprop(m, lr=r / 100), x, y) for lr in LEARNING_RATES}
    rows.append({"divided by": "backpropagation, learning rate / 100", **errors})
    publish("step_divisor", "Error in % after one epoch, by learning rate", rows)


if __name__ == "__main__":
    main()
