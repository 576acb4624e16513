"""The interface of a local loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal

from torch import Tensor

Space = Literal["label", "target"]

#: What a user may bring: from an output and a target to one number, as the losses of ``torch.nn`` do.
LossFunction = Callable[[Tensor, Tensor], Tensor]

#: What a target may hold: one class of several, yes or no for each of several labels, or any numbers.
Task = Literal["classes", "labels", "numbers"]


class Loss(ABC):
    """A loss between an output ``[..., batch, features]`` and a target of the same shape.

    It is a sum over features and is given per sample; the optimizer takes the mean over the batch. The *error* is minus
    the derivative of the loss by the output: the direction in which the output should move.
    """

    #: The spaces in which the loss makes sense for a hidden block.
    spaces: ClassVar[frozenset[Space]] = frozenset({"label", "target"})
    #: The tasks that it can learn.
    tasks: ClassVar[frozenset[Task]] = frozenset({"classes", "labels", "numbers"})
    #: How fast the error changes with the output: what tells how far the steps of alike samples may add up.
    curvature: float = 1.0
    #: What a hidden block's label-space output ``a Pᵀ / √features`` is multiplied by before it is compared.
    gain: float = 1.0

    @abstractmethod
    def value(self, output: Tensor, target: Tensor) -> Tensor:
        """Loss of each sample, ``[..., batch]``, differentiable."""

    @abstractmethod
    def value_and_error(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each sample and minus its derivative by `output`. `output` is left as it was."""
