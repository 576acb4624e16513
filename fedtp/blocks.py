"""A model as a chain of blocks: the unit that learns, travels and is averaged.

A block is one layer with parameters and the parameterless layers after it. It is named as its layer is in the
model's ``state_dict``, and travels *packed*: its parameters flattened and joined, in ``state_dict`` order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedtp.errors import ModelError
from fedtp.rules import Rule, Tail, rule_for, tail_for

#: A packed block, ``[size]``.
Packed = NDArray[np.float32]


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

    @property
    def batches_devices(self) -> bool:
        """Whether all its layers can work over a leading device axis."""
        return self.rule.batches_devices and all(tail.batches_devices for tail in self.tail)

    @property
    def frozen(self) -> bool:
        """Whether a parameter asks for no gradient: such a block is passed through, and never trained."""
        return not all(p.requires_grad for p in self.parameters)

    def apply(self, x: Tensor) -> Tensor:
        """Return the block's output, as a prediction computes it; autograd can follow it."""
        a = self.rule.apply(x)
        for tail in self.tail:
            a = tail.layer(a)
        return a

    def forward(self, x: Tensor) -> tuple[Tensor, list[Any]]:
        """Return the block's output, and what `accumulate` will need."""
        a, kept = self.rule.forward(x)
        saved = [kept]
        for tail in self.tail:
            a, kept = tail.forward(a)
            saved.append(kept)
        return a, saved

    def accumulate(self, into: Sequence[Tensor], saved: list[Any], error: Tensor, keep: float) -> None:
        """Carry an error from the block's output to its layer, and no further: ``into = keep * into + descent``.

        Parameters
        ----------
        into
            One tensor per parameter: the parameters themselves, or their momentum.
        saved
            What `forward` returned with the output.
        error
            Minus the derivative of the block's loss by its output, shaped as the output, scaled as the step is.
        keep
            What the old value is multiplied by.
        """
        for tail in reversed(self.tail):
            error = tail.backward(error, saved.pop())
        self.rule.accumulate(into, saved.pop(), error, keep)

    def pack(self) -> Tensor:
        """Return the parameters as one vector, ``[size]``, or ``[devices, size]`` for a stack of devices."""
        return self.join(self.parameters)

    def join(self, parts: Iterable[Tensor]) -> Tensor:
        """Return as one vector what is shaped as the parameters are: them, or their momentum."""
        return torch.cat([part.detach().flatten(1 if self.devices else 0) for part in parts], -1)

    def split(self, packed: Tensor) -> list[Tensor]:
        """Return the parts of a packed vector, each shaped as its parameter, the device axis as in the vector."""
        shapes = [p.shape[1:] if self.devices else p.shape for p in self.parameters]
        parts = packed.split([shape.numel() for shape in shapes], -1)
        return [part.reshape(*part.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True)]

    def unpack(self, packed: Tensor) -> None:
        """Set the parameters from one vector, which every device of a stack gets, or from ``[devices, size]``."""
        with torch.no_grad():
            for parameter, part in zip(self.parameters, self.split(packed), strict=True):
                parameter.copy_(part)

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
                f"Block {self.name!r} is a {type(self.rule.layer).__name__}, whose width depends on its input. "
                "The last block must be an nn.Linear with one output per class, "
                "and where digests are compared all others must be nn.Linear too."
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
    devices
        How many devices' copies the model holds; 0 for an ordinary model.

    Raises
    ------
    ModelError
        If `model` is not a Sequential, has nothing to learn, or uses parameters twice.

    Examples
    --------
    >>> chain = Chain(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    >>> [block.name for block in chain], [block.size for block in chain]
    (['1', '3'], [15, 8])
    """

    def __init__(self, model: nn.Module) -> None:
        if not _is_sequence(model):
            raise ModelError(
                "A model is an nn.Sequential of layers, so that it can be split into blocks; "
                f"got {type(model).__name__}."
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
        parameters = [parameter for block in self.blocks for parameter in block.parameters]
        if len(set(parameters)) < len(parameters):
            raise ModelError("The model uses a layer with parameters twice; every block needs its own.")
        self.devices = self.blocks[0].devices
        self._positions = {block.name: position for position, block in enumerate(self.blocks)}

    def __iter__(self) -> Iterator[Block]:
        return iter(self.blocks)

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, name: str) -> Block:
        return self.blocks[self._positions[name]]

    def enter(self, x: Tensor) -> Tensor:
        """Pass the input through the stem."""
        for layer in self.stem:
            x = layer(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return the model's output, for an ordinary model or a stack of devices; autograd can follow it."""
        x = self.enter(x)
        for block in self.blocks:
            x = block.apply(x)
        return x

    def positions(self, blocks: Iterable[int | str] | None) -> frozenset[int]:
        """Return the positions of the blocks to train, given by name or position; all for None.

        Blocks that are frozen are left out.

        Raises
        ------
        ModelError
            If the model has no such block.
        """
        positions = set()
        for block in range(len(self)) if blocks is None else [blocks] if isinstance(blocks, str) else blocks:
            position = self._positions.get(block, -1) if isinstance(block, str) else block
            if not 0 <= position < len(self):
                raise ModelError(
                    f"The model has no block {block!r}; "
                    f"its blocks are {', '.join(self._positions)}, or 0 to {len(self) - 1}."
                )
            if not self.blocks[position].frozen:
                positions.add(position)
        return frozenset(positions)

    def prepare(self, x: Tensor, y: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Check a batch, and return what the blocks learn from.

        Parameters
        ----------
        x, y, weights
            Inputs, labels and sample weights, as `fedtp.TPSGD.step` takes them.

        Returns
        -------
        x
            The first block's input.
        target
            The labels as zeros and ones, ``[..., batch, classes]``.
        weights
            Each sample's share, summing to one over a batch; None if all are equal.

        Raises
        ------
        ModelError
            If they do not belong together, or one of them holds what cannot be learnt from.
        """
        self._check_form(x, y)
        if y.is_floating_point() or y.dtype == torch.bool:
            raise ModelError(f"Labels are class indices of an integer type, got {y.dtype}.")
        classes = self.blocks[-1].outputs
        low, high = (int(v) for v in y.aminmax())
        if low < 0 or high >= classes:
            raise ModelError(
                f"A label is {low if low < 0 else high}, but the model has {classes} outputs: "
                f"labels are 0 to {classes - 1}."
            )
        if x.is_floating_point() and not all(map(math.isfinite, x.aminmax())):
            raise ModelError("The input holds NaN or infinity; clean it before learning from it.")
        target = torch.zeros(*y.shape, classes, dtype=self.blocks[0].parameters[0].dtype, device=y.device)
        target.scatter_(-1, y.long().unsqueeze(-1), 1)
        if weights is not None:
            weights = _shares(weights.to(target.dtype), y)
        return self.enter(x), target, weights

    def _check_form(self, x: Tensor, y: Tensor) -> None:
        axes = 2 if self.devices else 1
        if y.dim() == axes and x.shape[:axes] == y.shape and x.numel() and self.devices in (0, len(y)):
            return
        form = f"[{self.devices}, batch" if self.devices else "[batch"
        raise ModelError(
            f"A batch is inputs {form}, ...] and labels {form}], at least one; "
            f"got {tuple(x.shape)} and {tuple(y.shape)}."
        )


def _shares(weights: Tensor, y: Tensor) -> Tensor:
    total = weights.sum(-1, keepdim=True)
    if weights.shape != y.shape or not ((weights >= 0) & (total > 0) & total.isfinite()).all():
        raise ModelError(
            f"Weights are numbers from 0 up, of the labels' shape {tuple(y.shape)}, not all 0 in a batch; "
            f"got {weights.dtype} of shape {tuple(weights.shape)}."
        )
    return weights / total


def _is_sequence(layer: nn.Module) -> TypeGuard[nn.Sequential]:
    """Whether a module does no more than pass its input through its children, one after the other."""
    return isinstance(layer, nn.Sequential) and type(layer).forward is nn.Sequential.forward


def _layers(model: nn.Sequential, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    # Not named_children(), which leaves out the second use of a layer.
    for name, layer in zip(model._modules, model, strict=True):
        if _is_sequence(layer):
            yield from _layers(layer, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", layer
