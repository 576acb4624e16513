"""Losses that measure how far an output is from a target, whatever the numbers stand for."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedtp.errors import ModelError
from fedtp.losses.base import Loss


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


class Huber(Loss):
    """Squared up to a distance `delta` per feature, absolute beyond (Huber, 1964): a far-off target pulls no harder.

    Parameters
    ----------
    delta
        Where the one becomes the other, above 0.

    Raises
    ------
    ModelError
        If `delta` is not a number above 0.

    >>> value, error = Huber(1.0).value_and_error(torch.tensor([[0.5, 3.0]]), torch.zeros(1, 2))
    >>> value.tolist(), error.tolist()
    ([2.625], [[-0.5, -1.0]])
    """

    def __init__(self, delta: float = 1.0) -> None:
        if not 0 < delta < math.inf:
            raise ModelError(f"The Huber loss turns linear at a distance above 0, got delta={delta!r}.")
        self.delta = delta

    def value(self, output: Tensor, target: Tensor) -> Tensor:  # noqa: D102
        return torch.nn.functional.huber_loss(output, target, reduction="none", delta=self.delta).sum(-1)

    def value_and_error(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        return self.value(output, target), (target - output).clamp_(-self.delta, self.delta)


class Cosine(Loss):
    """``1 - cos(output, target)``: the direction counts, the length does not.

    Where one of the two is zero it is 1, and its error 0.
    """

    #: Per unit of length of the output; longer outputs turn more slowly.
    curvature = 1.0

    def value(self, output: Tensor, target: Tensor) -> Tensor:  # noqa: D102
        return 1 - torch.nn.functional.cosine_similarity(output, target, dim=-1, eps=1e-12)

    def value_and_error(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        tiny = torch.finfo(output.dtype).tiny
        length = torch.linalg.vector_norm(output, dim=-1, keepdim=True)
        direction = output / length.clamp_min(tiny)
        goal = target / torch.linalg.vector_norm(target, dim=-1, keepdim=True).clamp_min_(tiny)
        cosine = torch.linalg.vecdot(direction, goal).unsqueeze(-1)
        error = torch.where(length > 0, (goal - cosine * direction) / length.clamp_min(tiny), 0)
        return (1 - cosine).squeeze(-1), error
