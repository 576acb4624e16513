"""How the normalised steps of a batch's samples should add up, so that one learning rate serves all batch sizes.

784-500-10 on MNIST, tanh, label space, one epoch; error in % on the last 5,000 training images, which are held back, at
three learning rates. What is kept in fedtp is the last variant of tpSGD. Needs MNIST (FEDTP_DATA).

    python benchmarks/batch_steps.py
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from machine import publish
from torch import Tensor, nn

from fedtp import TPSGD
from fedtp.baselines import Backprop
from fedtp.data import load
from fedtp.models import mlp

HELD_BACK = 5000
BATCHES = (8, 64, 512)
Optimizers = Callable[[nn.Module, float, int], TPSGD | Backprop]


def tpsgd(*, mean: bool, curvature: float, gain: float) -> Optimizers:
    """Return tpSGD with the steps of a batch averaged or added up, held back by a curvature, with a gain of logits."""

    def make(model: nn.Module, lr: float, batch: int) -> TPSGD:
        optimizer = TPSGD(model, seed=7, lr=lr / batch if mean else lr)
        optimizer.loss.curvature, optimizer.loss.gain = curvature, gain  # type: ignore[misc]
        return optimizer

    return make


VARIANTS: dict[str, tuple[Optimizers, tuple[float, ...]]] = {
    "tpSGD, mean of steps": (tpsgd(mean=True, curvature=0.0, gain=1.0), (0.3, 1.0, 3.0)),
    "tpSGD, sum of steps": (tpsgd(mean=False, curvature=0.0, gain=1.0), (0.3, 1.0, 3.0)),
    "tpSGD, sum held back": (tpsgd(mean=False, curvature=1 / 8, gain=1.0), (0.3, 1.0, 3.0)),
    "tpSGD, sum held back, gain 3": (tpsgd(mean=False, curvature=1 / 8, gain=3.0), (0.3, 1.0, 3.0)),
    "backpropagation": (lambda model, lr, _: Backprop(model, lr=lr), (0.03, 0.1, 0.3)),
}


def error(make: Optimizers, lr: float, batch: int, x: Tensor, y: Tensor) -> float:
    """Train for one epoch and return the error on the images held back."""
    model = mlp(784, [500], 10, seed=0)
    optimizer = make(model, lr, batch)
    learnt = len(y) - HELD_BACK
    for rows in torch.randperm(learnt, generator=torch.Generator().manual_seed(0)).split(batch):
        optimizer.step(x[rows], y[rows])
    with torch.no_grad():
        return round(100 * (model(x[learnt:]).argmax(1) != y[learnt:]).double().mean().item(), 2)


def main() -> None:
    """Try every variant at every batch size and learning rate."""
    train, _ = load("mnist").split()
    x, y = torch.from_numpy(train.x), torch.from_numpy(train.y)
    rows = []
    for name, (make, rates) in VARIANTS.items():
        for batch in BATCHES:
            errors = [error(make, lr, batch, x, y) for lr in rates]
            rates_text = " / ".join(f"{lr:g}" for lr in rates)
            rows.append({"method": name, "batch": batch, "lr": rates_text, "error": " / ".join(map(str, errors))})
    publish("batch_steps", "Error in % after one epoch, at three learning rates", rows)


if __name__ == "__main__":
    main()
