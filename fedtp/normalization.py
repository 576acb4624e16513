"""How far a step may go, told from what a layer's units see."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: A batch of so many samples has few products.
_FEW = 16


def mean_squared_norm(inputs: Tensor, shares: Tensor | None) -> Tensor:
    """Return the mean squared norm of a batch's inputs, ``[]`` or ``[devices]``.

    Parameters
    ----------
    inputs
        ``[..., samples, features]``.
    shares
        Each sample's share in the mean, ``[..., samples]``; equal for None.
    """
    if shares is None:
        total: Tensor = torch.linalg.vector_norm(inputs, dim=(-2, -1))
        return total.div_(math.sqrt(inputs.shape[-2])).square_()  # in this order half precision does not overflow
    norms: Tensor = torch.linalg.vector_norm(inputs, dim=-1)
    return norms.square_().mul_(shares).sum(-1)


def spectral_norm(inputs: Tensor, shares: Tensor | None) -> Tensor:
    """Return the largest eigenvalue of a batch's second moment ``Σ share x xᵀ``, ``[]`` or ``[devices]``.

    It is the mean squared norm where all samples point the same way, and far below it where they differ. Two
    power iterations give it from below, closely enough for a step size.

    Parameters
    ----------
    inputs, shares
        As `mean_squared_norm` takes them.
    """
    samples = inputs.shape[-2]
    weights = inputs.new_full((samples, 1), 1 / samples) if shares is None else shares.unsqueeze(-1)
    # Of a few samples, all their products are sooner had than four passes over them.
    products = inputs @ inputs.mT if samples <= _FEW else None
    v = weights
    for _ in range(2):
        v = v / torch.linalg.vector_norm(v, dim=(-2, -1), keepdim=True).clamp_min_(1e-30)
        v = weights * (inputs @ (inputs.mT @ v) if products is None else products @ v)
    largest: Tensor = torch.linalg.vector_norm(v, dim=(-2, -1))
    return largest
