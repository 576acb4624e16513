"""The interface of a rule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Rule(ABC):
    """How a layer's input and the error at its output change its parameters.

    Parameters
    ----------
    layer
        The layer whose parameters are trained.
    """

    #: Whether the rule also trains ``[devices, ...]`` parameters.
    batches_devices = False

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    @property
    def devices(self) -> int:
        """How many devices' copies the parameters hold; 0 for an ordinary layer."""
        return 0

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The layer's parameters, in the order of its ``state_dict``."""
        return list(self.layer.parameters())

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer's output from its input ``[..., batch, features]``."""

    @abstractmethod
    def accumulate(self, into: Sequence[Tensor], x: Tensor, error: Tensor, keep: float) -> None:
        """Set ``into = keep * into + descent direction``, in place.

        Parameters
        ----------
        into
            One tensor per parameter: the parameters themselves, or their momentum.
        x
            The input that `forward` was given.
        error
            Minus the derivative of the block's loss by the layer's output, already scaled by whatever
            the step is to be scaled by.
        keep
            What the old value is multiplied by.
        """

    def squared_norm(self, x: Tensor) -> Tensor:
        """Squared norm of each sample of the input, ``[..., batch]``."""
        return torch.linalg.vector_norm(x.flatten(1), dim=-1).square_()

    @abstractmethod
    def forward_flops(self, x: Tensor) -> int:
        """Floating-point operations of `forward` for one sample."""
