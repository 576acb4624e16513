"""A model as a chain of blocks: the unit that learns, travels and is averaged.

A block is one layer with parameters and the parameterless layers after it. It is named as its layer is in the
model's ``state_dict``, and travels *packed*: its parameters flattened and joined, in ``state_dict`` order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fedtp.errors import ModelError
from fedtp.rules import Rule, Tail, rule_for, tail_for


class Block:
    """One layer with parameters, and the parameterless layers after it.

    Parameters
    ----------
    name
        The layer's name in the model.
    layer
        The layer with parameters.
    """

    def __init__(self, name: str, layer: nn.Module) -> None:
        self.name = name
        self.rule: Rule = rule_for(layer)
        self.tail: list[Tail] = []

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The block's parameters, each ``[...]`` or ``[devices, ...]``."""
        return self.rule.parameters

    def forward(self, x: Tensor) -> tuple[Tensor, list[Any]]:
        """Return the block's output and what `backward` needs."""
        a, saved = self.rule.forward(x), []
        for tail in self.tail:
            a, kept = tail.forward(a)
            saved.append(kept)
        return a, saved

    def backward(self, error: Tensor, saved: list[Any]) -> Tensor:
        """Carry an error from the block's output to its layer's output, and no further."""
        for tail, kept in zip(reversed(self.tail), reversed(saved), strict=True):
            error = tail.backward(error, kept)
        return error

    def pack(self) -> Tensor:
        """Return the parameters as one vector, ``[size]``, or ``[devices, size]`` for a stack of devices."""
        start = 1 if self.devices else 0
        return torch.cat([p.detach().flatten(start) for p in self.parameters], -1)

    def unpack(self, packed: Tensor) -> None:
        """Set the parameters from one vector, which every device of a stack gets, or from ``[devices, size]``."""
        sizes = [p[0].numel() if self.devices else p.numel() for p in self.parameters]
        with torch.no_grad():
            for parameter, part in zip(self.parameters, packed.split(sizes, -1), strict=True):
                shape = parameter.shape[1:] if self.devices else parameter.shape
                parameter.copy_(part.reshape(*part.shape[:-1], *shape))

    @property
    def devices(self) -> int:
        """How many devices' copies the parameters hold; 0 for an ordinary model."""
        return self.rule.devices

    @property
    def outputs(self) -> int:
        """How many features the block puts out, read off its layer."""
        width = getattr(self.rule.layer, "out_features", None)
        if width is None:
            raise ModelError(
                f"Block {self.name!r} is a {type(self.rule.layer).__name__}, whose width depends on its input; "
                "the last block must be an nn.Linear with one output per class."
            )
        return int(width)

    @property
    def size(self) -> int:
        """How many numbers one device's copy of the block holds."""
        return sum(p.numel() for p in self.parameters) // max(self.devices, 1)


class Chain:
    """A model split into blocks.

    Parameters
    ----------
    model
        An ``nn.Sequential``, possibly nested.

    Attributes
    ----------
    stem
        Parameterless layers before the first block.
    blocks
        The blocks, first to last.

    Raises
    ------
    ModelError
        If `model` is not a Sequential or has nothing to learn.

    Examples
    --------
    >>> chain = Chain(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    >>> [block.name for block in chain], [block.size for block in chain]
    (['1', '3'], [15, 8])
    """

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Sequential):
            raise ModelError(
                f"A model is an nn.Sequential of layers, so that it can be split into blocks; got {type(model).__name__}."
            )
        self.stem: list[nn.Module] = []
        self.blocks: list[Block] = []
        for name, layer in _layers(model):
            if any(True for _ in layer.parameters()):
                self.blocks.append(Block(name, layer))
            elif self.blocks:
                self.blocks[-1].tail.append(tail_for(layer))
            else:
                self.stem.append(layer)
        if not self.blocks:
            raise ModelError("The model has no parameters, so there is nothing to learn.")

    def __iter__(self) -> Iterator[Block]:
        return iter(self.blocks)

    def __len__(self) -> int:
        return len(self.blocks)

    def enter(self, x: Tensor) -> Tensor:
        """Pass the input through the stem."""
        for layer in self.stem:
            x = layer(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return the model's output, for an ordinary model or a stack of devices."""
        x = self.enter(x)
        for block in self.blocks:
            x, _ = block.forward(x)
        return x

    def positions(self, blocks: Iterable[int | str] | None) -> frozenset[int]:
        """Return the positions of the blocks given by name or position; all for None.

        Raises
        ------
        ModelError
            If the model has no such block.
        """
        if blocks is None:
            return frozenset(range(len(self)))
        names = {block.name: position for position, block in enumerate(self)}
        positions = frozenset(names.get(b, -1) if isinstance(b, str) else b for b in blocks)
        if not all(0 <= position < len(self) for position in positions):
            raise ModelError(
                f"The model has no such block among {sorted(blocks, key=str)}; "
                f"its blocks are {', '.join(names)}, or 0 to {len(self) - 1}."
            )
        return positions

    def targets(self, x: Tensor, y: Tensor) -> Tensor:
        """Check a batch and return its labels as zeros and ones, ``[..., batch, classes]``.

        Raises
        ------
        ModelError
            If inputs and labels do not belong together, or a label is out of range.
        """
        devices, classes = self.blocks[0].devices, self.blocks[-1].outputs
        axes = 2 if devices else 1
        if y.dim() != axes or x.shape[:axes] != y.shape or y.numel() == 0 or (devices and len(y) != devices):
            form = f"[{devices}, batch" if devices else "[batch"
            raise ModelError(
                f"A batch is inputs {form}, ...] and labels {form}], at least one; "
                f"got {tuple(x.shape)} and {tuple(y.shape)}."
            )
        if y.is_floating_point() or y.dtype == torch.bool:
            raise ModelError(f"Labels are class indices of an integer type, got {y.dtype}.")
        low, high = (int(v) for v in y.aminmax())
        if low < 0 or high >= classes:
            raise ModelError(
                f"A label is {low if low < 0 else high}, but the model has {classes} outputs: "
                f"labels are 0 to {classes - 1}."
            )
        target = torch.zeros(*y.shape, classes, dtype=self.blocks[0].parameters[0].dtype, device=y.device)
        return target.scatter_(-1, y.long().unsqueeze(-1), 1)


def _layers(model: nn.Sequential, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, layer in model.named_children():
        if isinstance(layer, nn.Sequential):
            yield from _layers(layer, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", layer
