"""Small layers that adapt a frozen network to a domain that has shifted.

An adaptor belongs to the block of the layer that it follows, or that it changes: it learns from that block's own loss,
against the very projection that the block was trained by. A block is packed as what of it learns, so in a federation
nothing but the adaptors' weights cross the network.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from fedtp.errors import ModelError

Kind = Literal["scale-shift", "bottleneck", "low-rank"]


class ScaleShift(nn.Module):
    """``w a + b``, a number each per feature, or per channel of maps; it begins as the identity.

    Source: Lian, Zhou, Feng, Wang, *Scaling & Shifting Your Features*, arXiv 2210.08823, eq. 3.

    Parameters
    ----------
    features
        Features ``[batch, features]``, or channels ``[batch, features, *positions]``.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(features))
        self.shift = nn.Parameter(torch.zeros(features))

    def forward(self, a: Tensor) -> Tensor:
        """Scale and shift."""
        shape = (-1, *[1] * (a.dim() - 2))
        return a * self.scale.view(shape) + self.shift.view(shape)


class Bottleneck(nn.Module):
    """``a + U tanh(V a)`` with few units between; it begins as the identity.

    Source: Houlsby et al., *Parameter-Efficient Transfer Learning for NLP*, arXiv 1902.00751, section 2.1.

    Parameters
    ----------
    features
        Features in and out.
    units
        Between.
    generator
        Of the initial ``V``; ``U`` is zero.
    """

    def __init__(self, features: int, units: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.down = nn.Linear(features, units)
        self.up = nn.Linear(units, features)
        nn.init.uniform_(self.down.weight, -(features**-0.5), features**-0.5, generator=generator)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, a: Tensor) -> Tensor:
        """Add what passes through the bottleneck."""
        passed: Tensor = self.up(torch.tanh(self.down(a)))
        return a + passed


class LowRank(nn.Module):
    """A frozen ``nn.Linear`` whose weight is changed by a product of two thin matrices, ``W + U V``.

    Source: Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, arXiv 2106.09685, eq. 3.

    Parameters
    ----------
    linear
        The layer; it is frozen.
    rank
        Of the change.
    generator
        Of the initial ``V``; ``U`` is zero.
    """

    def __init__(self, linear: nn.Linear, rank: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight
        self.down = nn.Parameter(weight.new_empty(rank, linear.in_features))
        self.up = nn.Parameter(weight.new_zeros(linear.out_features, rank))
        self.shift = nn.Parameter(weight.new_zeros(linear.out_features))
        bound = linear.in_features**-0.5
        nn.init.uniform_(self.down, -bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the changed layer's output."""
        z: Tensor = self.linear(x)
        return z + (x @ self.down.mT) @ self.up.mT + self.shift


def adapt(model: nn.Sequential, kind: Kind = "low-rank", *, size: int = 4, seed: int = 0) -> nn.Sequential:
    """Return a frozen copy of a model with adaptors in it.

    Parameters
    ----------
    model
        A trained ``nn.Sequential`` of ``nn.Linear`` layers, convolutions and layers without parameters or
        normalisations; it is left as it is.
    kind
        ``"scale-shift"``: after every layer that mixes features. ``"bottleneck"``: after every hidden ``nn.Linear`` and
        its activation. ``"low-rank"``: at every ``nn.Linear``.
    size
        Units of a bottleneck, or the rank.
    seed
        Of the adaptors' initial weights.

    Returns
    -------
    nn.Sequential
        It answers as `model` does until it is trained; the names of the model's layers are as they were.

    Raises
    ------
    ModelError
        If there is no such kind, nothing to adapt, or the size is below one.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(20, 10), nn.Tanh(), nn.Linear(10, 3))
    >>> adapted = adapt(model, "scale-shift")
    >>> sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    26
    """
    if kind not in _INSERT:
        raise ModelError(f"There is no adaptor {kind!r}; choose one of {', '.join(_INSERT)}.")
    if size < 1:
        raise ModelError(f"An adaptor has a size of at least one, got {size}.")
    generator = torch.Generator().manual_seed(seed)
    layers = list(copy.deepcopy(model).requires_grad_(False).named_children())
    adapted: OrderedDict[str, nn.Module] = OrderedDict()
    _INSERT[kind](adapted, layers, size, generator)
    if not any(p.requires_grad for layer in adapted.values() for p in layer.parameters()):
        raise ModelError(f"The model has no layer that a {kind} adaptor fits; it fits nn.Linear.")
    return nn.Sequential(adapted).train(model.training)


Layers = list[tuple[str, nn.Module]]


def _scale_shift(adapted: OrderedDict[str, nn.Module], layers: Layers, size: int, generator: torch.Generator) -> None:
    for name, layer in layers:
        adapted[name] = layer
        features = getattr(layer, "out_features", getattr(layer, "out_channels", None))
        if isinstance(features, int):
            adapted[f"{name}-adaptor"] = ScaleShift(features).to(next(layer.parameters()))


def _bottleneck(adapted: OrderedDict[str, nn.Module], layers: Layers, size: int, generator: torch.Generator) -> None:
    mixing = [i for i, (_, layer) in enumerate(layers) if isinstance(layer, nn.Linear)]
    for i, (name, layer) in enumerate(layers):
        adapted[name] = layer
        hosts = [m for m in mixing[:-1] if m <= i]
        following = layers[i + 1][1] if i + 1 < len(layers) else None
        if hosts and (following is None or any(True for _ in following.parameters())):
            host_name, host = layers[hosts[-1]]
            if f"{host_name}-adaptor" not in adapted:
                made = Bottleneck(host.out_features, size, generator)  # type: ignore[arg-type]
                adapted[f"{host_name}-adaptor"] = made.to(next(host.parameters()))


def _low_rank(adapted: OrderedDict[str, nn.Module], layers: Layers, size: int, generator: torch.Generator) -> None:
    for name, layer in layers:
        adapted[name] = LowRank(layer, size, generator) if isinstance(layer, nn.Linear) else layer


_INSERT: dict[str, Callable[[OrderedDict[str, nn.Module], Layers, int, torch.Generator], None]] = {
    "scale-shift": _scale_shift,
    "bottleneck": _bottleneck,
    "low-rank": _low_rank,
}
