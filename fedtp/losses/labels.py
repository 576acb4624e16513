"""Losses that compare logits with labels: one class of several, or yes and no for each of several labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fedtp.errors import ModelError
from fedtp.losses.base import Loss


class CrossEntropy(Loss):
    """``-Σ weight · target · log softmax(output)``: one logit per class, and a target that is a distribution.

    Parameters
    ----------
    weight
        One number per class, from 0 up: how much its samples count. None: all alike.
    label_smoothing
        Share of the target that is spread over all classes, from 0 to 1 (Szegedy et al., arXiv 1512.00567).

    Both mean what they mean in ``torch.nn.CrossEntropyLoss(reduction="none")`` with a distribution as target.

    Raises
    ------
    ModelError
        If one of them is out of range.
    """

    spaces = frozenset({"label"})
    tasks = frozenset({"classes"})
    # p (1 - p) is at most 1/4, and mostly far below it; half of it was found to do (docs/findings.md).
    curvature = 1 / 8
    # Logits of unit variance cannot name a class with confidence, so a block's error would never vanish.
    gain = 3.0

    def __init__(self, weight: Sequence[float] | Tensor | None = None, label_smoothing: float = 0.0) -> None:
        if not 0 <= label_smoothing <= 1:
            raise ModelError(f"label_smoothing is a share from 0 to 1, got {label_smoothing!r}.")
        self.label_smoothing = label_smoothing
        self.weight = None if weight is None else torch.as_tensor(weight, dtype=torch.float64)
        if self.weight is not None:
            if self.weight.dim() != 1 or not all(0 <= w < math.inf for w in self.weight.tolist()):
                raise ModelError(f"Class weights are one number per class, from 0 up; got {weight!r}.")
            self.curvature = self.curvature * float(self.weight.max())

    def value(self, output: Tensor, target: Tensor) -> Tensor:  # noqa: D102
        return torch.log_softmax(output, -1).mul(self._goal(target)).sum(-1).neg()

    def value_and_error(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        goal = self._goal(target)
        log_probability = torch.log_softmax(output, -1)
        value = torch.linalg.vecdot(log_probability, goal).neg_()
        probability = log_probability.exp_()
        if self.weight is not None:
            probability.mul_(goal.sum(-1, keepdim=True))
        return value, goal - probability

    def _goal(self, target: Tensor) -> Tensor:
        if self.label_smoothing:
            target = target * (1 - self.label_smoothing) + self.label_smoothing / target.shape[-1]
        if self.weight is None:
            return target
        if len(self.weight) != target.shape[-1]:
            raise ModelError(f"There are {len(self.weight)} class weights for {target.shape[-1]} classes.")
        return target * self.weight.to(target)


class BinaryCrossEntropy(Loss):
    """``-Σ target log σ(output) + (1 - target) log (1 - σ(output))``: every output answers a question of its own.

    For several labels that may hold at once; of one class in several it asks each class by itself.
    """

    spaces = frozenset({"label"})
    tasks = frozenset({"classes", "labels"})
    curvature = 1 / 8  # as for the cross-entropy: the same p (1 - p)
    gain = 3.0

    def value(self, output: Tensor, target: Tensor) -> Tensor:  # noqa: D102
        return functional.binary_cross_entropy_with_logits(output, target, reduction="none").sum(-1)

    def value_and_error(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        return self.value(output, target), target - torch.sigmoid(output)


class Hinge(Loss):
    """``Σ max(0, 1 - sign · output)`` with ``sign`` 1 where the target is 1 and -1 where it is 0: one against the rest.

    Source: Rifkin and Klautau, *In Defense of One-Vs-All Classification*, JMLR 5 (2004).
    """

    spaces = frozenset({"label"})
    tasks = frozenset({"classes", "labels"})
    gain = 3.0

    def value(self, output: Tensor, target: Tensor) -> Tensor:  # noqa: D102
        return (1 - (2 * target - 1) * output).clamp_min(0).sum(-1)

    def value_and_error(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        sign = 2 * target - 1
        margin = 1 - sign * output
        return margin.clamp_min(0).sum(-1), sign * (margin > 0)
