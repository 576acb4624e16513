"""The interface of a rule."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Rule(ABC):
    """How a layer's input and the error at its output change its parameters.

    Parameters
    ----------
    layer
        The layer whose parameters are trained.

    Attributes
    ----------
    parameters
        The layer's parameters, in the order of its ``state_dict``.
    devices
        How many devices' copies the parameters hold; 0 for an ordinary layer.
    """

    #: Whether the rule also trains ``[devices, ...]`` parameters.
    batches_devices = False

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.parameters: list[nn.Parameter] = list(layer.parameters())
        self.devices = 0

    def apply(self, x: Tensor) -> Tensor:
        """Compute the layer's output from its input, as a prediction does; autograd can follow it."""
        output: Tensor = self.layer(x)
        return output

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        """Compute the layer's output, and return with it what `accumulate` will need."""

    @abstractmethod
    def accumulate(self, into: Sequence[Tensor], saved: Any, error: Tensor, keep: float) -> None:
        """Set ``into = keep * into + descent direction``, in place.

        Parameters
        ----------
        into
            One tensor per parameter: the parameters themselves, or their momentum.
        saved
            What `forward` returned for this.
        error
            Minus the derivative of the block's loss by the layer's output, already scaled by whatever
            the step is to be scaled by.
        keep
            What the old value is multiplied by.
        """

    def mean_squared_norm(self, x: Tensor, weights: Tensor | None) -> Tensor:
        """Return the batch's mean squared norm of an input, ``[]`` or ``[devices]``.

        Parameters
        ----------
        x
            The layer's input, ``[batch, ...]`` or ``[devices, batch, ...]``.
        weights
            Each sample's share in the mean, ``[batch]`` or ``[devices, batch]``; equal for None.
        """
        x = x.flatten(2 if self.devices else 1)
        if weights is None:
            total: Tensor = torch.linalg.vector_norm(x, dim=(-2, -1))
            return total.div_(math.sqrt(x.shape[-2])).square_()  # in this order half precision does not overflow
        norms: Tensor = torch.linalg.vector_norm(x, dim=-1)
        return norms.square_().mul_(weights).sum(-1)

    def spectral_norm(self, x: Tensor, weights: Tensor | None) -> Tensor:
        """Return the largest eigenvalue of the batch's second moment ``Σ share x xᵀ``, ``[]`` or ``[devices]``.

        It is the mean squared norm where all samples point the same way, and far below it where they differ. Two
        power iterations give it from below, closely enough for a step size.

        Parameters
        ----------
        x, weights
            As `mean_squared_norm` takes them.
        """
        x = x.flatten(2 if self.devices else 1)
        shares = x.new_full((x.shape[-2], 1), 1 / x.shape[-2]) if weights is None else weights.unsqueeze(-1)
        v = shares
        for _ in range(2):
            v = v / torch.linalg.vector_norm(v, dim=(-2, -1), keepdim=True).clamp_min_(1e-30)
            v = shares * (x @ (x.mT @ v))
        largest: Tensor = torch.linalg.vector_norm(v, dim=(-2, -1))
        return largest

    @abstractmethod
    def forward_flops(self, x: Tensor) -> int:
        """Count the floating-point operations of `apply` for one sample, given a batch."""
