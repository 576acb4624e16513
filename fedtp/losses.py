"""Local losses: what a block's output is compared by, and the error that follows.

Every loss is a sum over features and is given per sample; the optimizer takes the mean over the batch.
The *error* is minus the derivative of the loss by the output, the direction in which the output should move.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fedtp.errors import ModelError

Space = Literal["label", "target"]


class Loss(ABC):
    """A loss between an output ``[..., batch, features]`` and a target of the same shape."""

    #: The spaces in which the loss makes sense for a hidden block.
    spaces: ClassVar[frozenset[Space]] = frozenset({"label", "target"})
    #: How fast the error changes with the output: what tells how far the steps of alike samples may add up.
    curvature: ClassVar[float] = 1.0
    #: What a hidden block's label-space output ``a Pᵀ / √features`` is multiplied by before it is compared.
    gain: ClassVar[float] = 1.0

    @abstractmethod
    def value(self, output: Tensor, target: Tensor) -> Tensor:
        """Loss of each sample, ``[..., batch]``, differentiable."""

    @abstractmethod
    def value_and_error(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each sample and minus its derivative by `output`. `output` is left as it was."""


class Squared(Loss):
    """``½ ‖output - target‖²``.

    >>> value, error = Squared().value_and_error(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]))
    >>> value.tolist(), error.tolist()
    ([2.5], [[-1.0, 2.0]])
    """

    def value(self, output: Tensor, target: Tensor) -> Tensor:  # noqa: D102
        return (target - output).square().sum(-1).mul(0.5)

    def value_and_error(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        error = target - output
        return torch.linalg.vecdot(error, error).mul_(0.5), error


class Absolute(Loss):
    """``‖output - target‖₁``; its error is the sign of the difference."""

    def value(self, output: Tensor, target: Tensor) -> Tensor:  # noqa: D102
        return (target - output).abs().sum(-1)

    def value_and_error(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        difference = target - output
        return torch.linalg.vector_norm(difference, ord=1, dim=-1), difference.sign_()


class CrossEntropy(Loss):
    """``-Σ target · log softmax(output)``: the output holds one logit per class, the target is a distribution."""

    spaces = frozenset({"label"})
    # p (1 - p) is at most 1/4, and mostly far below it; half of it was found to do (docs/findings.md).
    curvature = 1 / 8
    # Logits of unit variance cannot name a class with confidence, so a block's error would never vanish.
    gain = 3.0

    def value(self, output: Tensor, target: Tensor) -> Tensor:  # noqa: D102
        return torch.log_softmax(output, -1).mul(target).sum(-1).neg()

    def value_and_error(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        log_probability = torch.log_softmax(output, -1)
        value = torch.linalg.vecdot(log_probability, target).neg_()
        return value, target - log_probability.exp_()


LOSSES: dict[str, type[Loss]] = {
    "squared": Squared,
    "absolute": Absolute,
    "cross_entropy": CrossEntropy,
}


def loss_named(name: str, space: Space) -> Loss:
    """Return the loss called `name`, if it makes sense in `space`.

    Raises
    ------
    ModelError
        If there is no such loss, or it compares with labels and `space` is the target space.
    """
    kind = LOSSES.get(name.replace("-", "_"))
    if kind is None:
        raise ModelError(f"There is no loss called {name!r}; choose one of {', '.join(LOSSES)}.")
    if space not in ("label", "target"):
        raise ModelError(f"There is no space called {space!r}; choose label or target.")
    if space not in kind.spaces:
        raise ModelError(
            f"The {name} loss compares with labels, so a hidden block cannot use it in target space; "
            "choose space='label', or the squared or absolute loss."
        )
    return kind()
