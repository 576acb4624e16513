"""A model as a chain of blocks: the unit that learns, travels and is averaged.

A block is one layer with parameters and the parameterless layers after it. It is named as its layer is in the
model's ``state_dict``, and travels *packed*: its parameters flattened and joined, in ``state_dict`` order.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedtp.descent import Descent
from fedtp.errors import ModelError
from fedtp.losses import Loss
from fedtp.recurrent import Recurrent
from fedtp.rules import (
    ConvRule,
    LinearRule,
    RecurrentRule,
    Reshape,
    Rule,
    Tail,
    is_tail,
    recurrent_rules,
    rule_for,
    tail_for,
)
from fedtp.rules.recurrent import State
from fedtp.targets import encode

#: A packed block, ``[size]``.
Packed = NDArray[np.float32]


class Block:
    """A layer that mixes features, and the layers after it up to the next such: they learn from one loss.

    Parameters
    ----------
    name
        The layer's name in the model.
    rule
        How its parameters learn.

    Attributes
    ----------
    tail
        The layers after it: activations, normalisation, pooling, dropout, flattening.
    parameters
        What the block learns, each ``[...]`` or ``[devices, ...]``: the parameters of its layers that ask for a
        gradient, in the order of the model's ``state_dict``. If none does, the block is frozen, and these are all.
    """

    def __init__(self, name: str, rule: Rule) -> None:
        self.name = name
        self.rule = rule
        self.tail: list[Tail] = []
        self.parameters: list[nn.Parameter] = []
        self._shares: list[int] = []
        self._gather()

    def append(self, tail: Tail) -> None:
        """Add the next layer to the tail."""
        tail.devices = self.rule.devices
        self.tail.append(tail)
        self._gather()

    def _gather(self) -> None:
        layers = [self.rule.parameters, *(tail.parameters for tail in self.tail)]
        # Which layers of the tail get an input that nobody else needs.
        self._spare, spare = [], not self.rule.keeps_output
        for tail in self.tail:
            self._spare.append(spare)
            spare = spare if tail.passes_on else not tail.keeps_output
        parameters = [p for layer in layers for p in layer]
        self.parameters = [p for p in parameters if p.requires_grad] or parameters
        # Where the first layer with something to learn stands.
        self._first = next((i for i, layer in enumerate(layers) if any(p.requires_grad for p in layer)), 0)

    @property
    def batches_devices(self) -> bool:
        """Whether all its layers can work over a leading device axis."""
        return self.rule.batches_devices and all(tail.batches_devices for tail in self.tail)

    @property
    def recurrent(self) -> bool:
        """Whether it has a state, and takes ``[..., batch, time, features]``."""
        return isinstance(self.rule, RecurrentRule)

    @property
    def normalized(self) -> bool:
        """Whether a normalisation follows the first layer that learns, so that the scale of its weights is free."""
        return any(tail.normalizes for tail in self.tail[self._first :])

    @property
    def frozen(self) -> bool:
        """Whether a parameter asks for no gradient: such a block is passed through, and never trained."""
        return not all(p.requires_grad for p in self.parameters)

    def apply(self, x: Tensor) -> Tensor:
        """Return the block's output, as a prediction computes it; autograd can follow it."""
        a = self.rule.apply(x)
        for tail in self.tail:
            a = tail.apply(a)
        return a

    def forward(self, x: Tensor) -> tuple[Tensor, list[Any]]:
        """Return the block's output, and what `descent` will need, the rule's own first."""
        a, kept = self.rule.forward(x)
        saved = [kept]
        for tail, spare in zip(self.tail, self._spare, strict=True):
            a, kept = tail.forward(a, spare=spare)
            saved.append(kept)
        return a, saved

    def maps(self, a: Tensor, saved: list[Any]) -> Tensor:
        """Return an output as readouts see it.

        Parameters
        ----------
        a, saved
            What `forward` returned.

        Returns
        -------
        Tensor
            The maps of a convolution, ``[..., channels, *positions]``, even where the block flattens them for the next;
            of other layers ``[..., features]``.
        """
        axes, flat = (2 if self.devices else 1), a
        for tail, kept in zip(self.tail[::-1], saved[:0:-1], strict=True):
            if not isinstance(tail, Reshape):
                break
            a = a.reshape(kept)
        return a if isinstance(self.rule, ConvRule) or a.dim() == axes + 3 else flat.flatten(axes)

    def descent(self, saved: list[Any], error: Tensor) -> Descent:
        """Return how the block should change.

        Parameters
        ----------
        saved
            What `forward` returned with the output.
        error
            Minus the derivative of each sample's loss by the output, shaped as the output.
        """
        inputs, factor = self._inputs(saved, error)
        return Descent(self.parameters, inputs, factor, error, partial(self._accumulate, saved), self.normalized)

    def _inputs(self, saved: list[Any], error: Tensor) -> tuple[Tensor, float]:
        """Return what the first layer that learns sees."""
        if self._first == 0:
            return self.rule.inputs(saved[0])
        axes = 2 if self.devices else 1
        return self.tail[self._first - 1].inputs(saved[self._first]) or (error.new_ones(*error.shape[:axes], 1), 1.0)

    def _accumulate(self, saved: list[Any], into: Sequence[Tensor], error: Tensor, keep: float) -> None:
        """Carry an error from the block's output to its layers, and no further: ``into = keep * into + descent``.

        What was saved is given up as soon as it has been used, so that its memory serves the rest of the way.
        """
        rest = list(into)
        for tail in self.tail[::-1]:
            own = self._own(tail, rest)
            error = tail.learn(own, saved.pop(), error, keep) if own else tail.backward(error, saved.pop())
            if not rest:
                return
        self.rule.accumulate(self._own(self.rule, rest), saved.pop(), error, keep)

    def _own(self, layer: Rule | Tail, rest: list[Tensor]) -> list[Tensor]:
        """Take a layer's part off the end of what is to change; what of the layer does not learn, changes nothing."""
        if not any(p.requires_grad for p in layer.parameters):
            return []
        return [rest.pop() if p.requires_grad else torch.empty_like(p) for p in layer.parameters[::-1]][::-1]

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
        width = self.rule.outputs
        if width is None:
            raise ModelError(
                f"Block {self.name!r} is a {type(self.rule.layer).__name__}, whose width depends on its input. "
                "The last block must be an nn.Linear with one output per class."
            )
        return width

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
    temporal
        How many of them see every time step of a sequence, before a `fedtp.Recurrent` that puts out the last only.
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
        self.model: nn.Sequential = model
        self.stem: list[nn.Module] = []
        self.blocks: list[Block] = []
        self.temporal = 0
        for name, layer in _layers(model):
            if isinstance(layer, Recurrent):
                self._append_recurrent(name, layer)
            elif self.blocks and is_tail(layer):
                self.blocks[-1].append(tail_for(layer))
            elif any(True for _ in layer.parameters()):
                self.blocks.append(Block(name, rule_for(layer)))
            else:
                self.stem.append(layer)
        if not self.blocks:
            raise ModelError("The model has no parameters, so there is nothing to learn.")
        parameters = [parameter for block in self.blocks for parameter in block.parameters]
        if len(set(parameters)) < len(parameters):
            raise ModelError("The model uses a layer with parameters twice; every block needs its own.")
        if self.recurrent and not self.temporal:
            self.temporal = len(self.blocks)
        self.devices = self.blocks[0].devices
        self._positions = {block.name: position for position, block in enumerate(self.blocks)}

    def _append_recurrent(self, name: str, layer: Recurrent) -> None:
        """Make a block of every layer of a recurrent network."""
        if self.temporal:
            raise ModelError(f"Block {name!r} needs a sequence, but the one before it puts out the last step only.")
        rules = recurrent_rules(layer)
        for index, rule in enumerate(rules):
            self.blocks.append(Block(f"{name}.l{index}" if len(rules) > 1 else name, rule))
        if layer.output == "last":
            self.temporal = len(self.blocks)

    @property
    def recurrent(self) -> bool:
        """Whether a block has a state, so that the model learns from sequences."""
        return any(block.recurrent for block in self.blocks)

    def begin(self) -> None:
        """Let every recurrent block forget its state: the next time step is a sequence's first."""
        for rule in self._recurrent_rules:
            rule.begin()

    @property
    def state(self) -> tuple[State | None, ...]:
        """What the recurrent blocks keep of the time steps so far, first to last: one tuple of tensors per block.

        Set it to go on from there. No step changes the tensors, so they need not be copied.
        """
        return tuple(rule.state for rule in self._recurrent_rules)

    @state.setter
    def state(self, state: Sequence[State | None]) -> None:
        for rule, part in zip(self._recurrent_rules, state, strict=True):
            rule.state = part

    @property
    def _recurrent_rules(self) -> list[RecurrentRule]:
        return [block.rule for block in self.blocks if isinstance(block.rule, RecurrentRule)]

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

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the model's output, for an ordinary model or a stack of devices; autograd can follow it.

        Parameters
        ----------
        x, lengths
            As `fedtp.TPSGD.step` takes them.
        """
        if self.devices or not self.recurrent:
            return self.traverse(self.enter(x), lengths, lambda position, x: self.blocks[position].apply(x))
        for _, layer in _layers(self.model):  # PyTorch's own recurrent networks are faster to backpropagate through
            x = layer(x, lengths) if isinstance(layer, Recurrent) else layer(x)
        return x

    def traverse(
        self, x: Tensor, lengths: Tensor | None, visit: Callable[[int, Tensor], Tensor], stop: int | None = None
    ) -> Tensor:
        """Pass a batch through the blocks; of sequences, all time steps at once.

        Parameters
        ----------
        x
            The first block's input.
        lengths
            As `fedtp.TPSGD.step` takes them.
        visit
            From a block's position and input to its output, ``[..., batch, ...]``, or for a block that sees every time
            step ``[..., batch * time, ...]``.
        stop
            How many blocks; all for None.

        Returns
        -------
        Tensor
            The last of these blocks' output, ``[..., batch, ...]`` or ``[..., batch, time, ...]``.
        """
        self.begin()
        time = 2 if self.devices else 1
        steps = x.shape[time] if self.recurrent else 1
        for position, block in enumerate(self.blocks[:stop]):
            if position >= self.temporal:
                x = visit(position, x)
                continue
            x = visit(position, x if block.recurrent else x.flatten(time - 1, time))
            x = x.unflatten(time - 1, (-1, steps))
            if position == self.temporal - 1 < len(self) - 1:
                x = last_steps(x, lengths, time)
        return x

    def try_out(self, x: Tensor, stop: int) -> None:
        """Pass one sample through the first blocks, so that layers that do not fit are found before any learns.

        Parameters
        ----------
        x
            The first block's input, of a batch.
        stop
            How many blocks.

        Raises
        ------
        ModelError
            If a layer cannot take what the one before it puts out.
        """
        axes = 2 if self.devices else 1
        one = x[:, :1] if self.devices else x[:1]
        training = [module for module in self.model.modules() if module.training]
        state = self.state
        self.model.eval()  # nothing is dropped, and no statistics move
        try:
            with torch.no_grad():
                output = self.traverse(one, None, self._visit, stop)
        finally:
            for module in training:
                module.training = True
            self.state = state
        if stop < len(self):
            return
        outputs, found = self.blocks[-1].outputs, output.shape[-1] if output.dim() > axes else 1
        if found != outputs:
            raise ModelError(f"The model must end in one number per class, {outputs}, got {found}.")

    def _visit(self, position: int, x: Tensor) -> Tensor:
        block = self.blocks[position]
        try:
            return block.apply(x)
        except ModelError:
            raise
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            kind = type(block.rule.layer).__name__
            raise ModelError(
                f"Block {block.name!r}, {kind} and what follows it, does not fit an input of shape {tuple(x.shape)}: "
                f"{str(error).splitlines()[0]}"
            ) from error

    def widths(self, like: Tensor | None, width: Callable[[Tensor], int]) -> dict[str, int]:
        """Return how many features every hidden block puts out, by name.

        Parameters
        ----------
        like
            An input of the model, ``[batch, ...]``; needed unless all hidden blocks are ``nn.Linear``.
        width
            Tells it from a block's output.

        Raises
        ------
        ModelError
            If `like` is needed and not there.
        """
        hidden = self.blocks[:-1]
        if all(isinstance(block.rule, LinearRule | RecurrentRule) for block in hidden):
            return {block.name: block.outputs for block in hidden}
        if like is None:
            raise ModelError(
                "The widths of the model's blocks depend on its input: give one, as like=torch.zeros(1, 3, 32, 32)."
            )
        model = copy.deepcopy(self.model).eval()
        chain, widths = Chain(model), {}
        with torch.no_grad():
            x = chain.enter(like)
            for block in chain.blocks[:-1]:
                x, saved = block.forward(x)
                widths[block.name] = width(block.maps(x, saved))
        return widths

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

    def prepare(
        self, x: Tensor, y: Tensor, weights: Tensor | None, loss: Loss, *, axes: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Check a batch, and return what the blocks learn from.

        Parameters
        ----------
        x, y, weights
            Inputs, labels and sample weights, as `fedtp.TPSGD.step` takes them.
        loss
            What compares with the labels.
        axes
            How many leading axes `x` and `y` share: the batch, the devices of a stack, and the time steps where they
            have labels of their own.

        Returns
        -------
        x
            The first block's input.
        target
            What the model's output is compared with, ``[..., batch, outputs]``: zeros and ones for class indices.
        weights
            Each sample's share, summing to one over a batch; None if all are equal.

        Raises
        ------
        ModelError
            If they do not belong together, or one of them holds what cannot be learnt from.
        """
        axes = axes or (2 if self.devices else 1)
        self._check_form(x, y, axes)
        dtype = self.blocks[0].parameters[0].dtype
        target = encode(y, self.blocks[-1].outputs, axes=axes, dtype=dtype, loss=loss)
        if x.is_floating_point() and not all(map(math.isfinite, x.aminmax())):
            raise ModelError("The input holds NaN or infinity; clean it before learning from it.")
        if weights is not None:
            weights = _shares(weights.to(dtype), y.shape[:axes])
        return self.enter(x), target, weights

    def _check_form(self, x: Tensor, y: Tensor, axes: int) -> None:
        if y.dim() >= axes and x.shape[:axes] == y.shape[:axes] and x.numel() and self.devices in (0, len(y)):
            return
        form = f"[{self.devices}, batch" if self.devices else "[batch"
        raise ModelError(
            f"A batch is inputs {form}, ...] and labels {form}], at least one; "
            f"got {tuple(x.shape)} and {tuple(y.shape)}."
        )


def last_steps(x: Tensor, lengths: Tensor | None, time: int) -> Tensor:
    """Return what stands at each sequence's own last step, ``[..., batch, features]``.

    Parameters
    ----------
    x
        ``[..., batch, time, features]``.
    lengths
        ``[..., batch]``; all time steps for None.
    time
        The position of the time axis.
    """
    if lengths is None:
        return x.select(time, -1)
    index = (lengths.to(x.device) - 1)[..., None, None].expand(*x.shape[:time], 1, x.shape[-1])
    return x.gather(time, index).squeeze(time)


def _shares(weights: Tensor, shape: torch.Size) -> Tensor:
    total = weights.sum(-1, keepdim=True)
    if weights.shape != shape or not ((weights >= 0) & (total > 0) & total.isfinite()).all():
        raise ModelError(
            f"Weights are numbers from 0 up, of the labels' shape {tuple(shape)}, not all 0 in a batch; "
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
