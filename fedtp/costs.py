"""What a network costs a device, block by block: floating-point operations, and bytes of memory.

Both are read off the model itself. Operations are those of the products of its layers; memory is what is alive at a
time while the model learns from one batch. ``docs/costs.md`` says what is counted, and what is not.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fedtp.blocks import Block, Chain
from fedtp.rules import Activation, GenericRule, RecurrentRule, Reshape, Rule, Tail


class Optimizer(Protocol):
    """What trains a model: `fedtp.TPSGD`, or one of `fedtp.baselines`."""

    chain: Chain
    state: Any

    def step(self, x: Tensor, y: Tensor, *, blocks: Iterable[int | str] | None, weights: Tensor | None) -> Any:
        """Learn from one batch."""

    def feedback(self, block: Block) -> list[Tensor]:
        """Return the matrices that a block's error comes through, beside its weights."""


@dataclass(frozen=True)
class Memory:
    """What is alive at most while one block is at work, bytes.

    Parameters
    ----------
    held
        What the block keeps from step to step: its weights, their momentum, and what its error comes through.
        0 if the block is only passed through: it may be read from flash.
    batch
        The inputs of the batch, where they are still needed.
    working
        All that the step itself makes: what the block puts out and what came in from the one before, errors, what
        layers keep for the way back, gradients.
    """

    held: int
    batch: int
    working: int

    @property
    def total(self) -> int:
        """All together, bytes."""
        return self.held + self.batch + self.working


def memory(
    optimizer: Optimizer, x: Tensor, y: Tensor, blocks: Collection[str] | None = None, *, whole: bool = False
) -> dict[str, Memory]:
    """Return what a step holds at a time, by the block that is at work.

    Parameters
    ----------
    optimizer
        The model's; it learns from the batch, twice.
    x, y
        A batch.
    blocks
        Names of the blocks to train; all by default.
    whole
        Whether the step needs the whole batch, all weights that it trains, and what it keeps with them, to its end, as
        backpropagation does.

    Returns
    -------
    dict
        One for each block that the step comes to.
    """
    trained = [block for i, block in enumerate(optimizer.chain) if i in optimizer.chain.positions(blocks)]
    weights = torch.ones(len(x))  # alike for all: to be sure that PyTorch does the work, and its tensors can be seen
    optimizer.step(x, y, blocks=blocks, weights=weights)  # now there is all that lives from step to step
    held = {block.name: list(_held(optimizer, block)) for block in optimizer.chain}
    with _Ledger(held) as ledger:
        optimizer.step(x, y, blocks=blocks, weights=weights)
    sizes = {block.name: sum(map(_bytes, held[block.name])) for block in trained}
    first = {block.name for block in optimizer.chain.blocks[: max(1, optimizer.chain.temporal)]}
    return {
        name: Memory(
            held=sum(sizes.values()) if whole else sizes.get(name, 0),
            batch=_bytes(x) if whole or name in first else 0,
            working=working,
        )
        for name, working in ledger.peaks.items()
    }


def _held(optimizer: Optimizer, block: Block) -> Iterator[Tensor]:
    """Return what a block keeps from step to step, each tensor once."""
    kept = [t for p in block.parameters for t in (p, *optimizer.state[p].values()) if isinstance(t, Tensor)]
    return iter({_storage(t): t for t in (*kept, *optimizer.feedback(block))}.values())


class _Ledger(TorchDispatchMode):
    """Follows every tensor that is made, and says how much was alive at most while each block was at work.

    The block at work is the one whose weights, momentum or readout were used last.
    """

    def __init__(self, held: Mapping[str, Iterable[Tensor]]) -> None:
        super().__init__()
        self._owners = {_storage(tensor): name for name, tensors in held.items() for tensor in tensors}
        self._block = next(iter(held))
        self._alive: dict[int, int] = {}
        self._now = 0
        self.peaks: dict[str, int] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing here is compiled: do not import PyTorch's compiler, in half a second, to keep it from looking in."""
        return False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_storage(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        self._block = next((self._owners[one] for one in given if one in self._owners), self._block)
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (made := _storage(tensor)) not in given and made not in self._alive:
                self._alive[made] = _bytes(tensor)
                self._now += self._alive[made]
                weakref.finalize(tensor.untyped_storage(), self._free, made)
        self.peaks[self._block] = max(self.peaks.get(self._block, 0), self._now)
        return result

    def _free(self, storage: int) -> None:
        self._now -= self._alive.pop(storage)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()


def scoring_bytes(model: nn.Sequential, x: Tensor) -> int:
    """Return the largest pair of neighbouring activations, bytes.

    Activation functions and reshapings work in place. A recurrent layer passes on one time step at a time, and keeps
    its state.

    Parameters
    ----------
    model
        The network.
    x
        One sample, ``[1, ...]``; of a sequence all time steps are there.
    """
    sizes = [x.numel() * x.element_size()]

    def visit(block: Block, x: Tensor) -> Tensor:
        layers: list[Rule | Tail] = [block.rule, *block.tail]
        for layer in layers:
            x = layer.apply(x)
            if not isinstance(layer, Activation | Reshape):
                states = layer.cell.states if isinstance(layer, RecurrentRule) else 1
                sizes.append(states * x[0].numel() * x.element_size())
        return x

    _traverse(model, x, visit)
    return max(one + next for one, next in pairwise(sizes))


@dataclass(frozen=True)
class Operations:
    """The products of one block for one sample, floating-point operations.

    Parameters
    ----------
    products
        Of each matrix of weights: how many operations it takes forward, and whether it learns.
    rows
        How many outputs there are for a sample: one, or one a time step.
    features
        How many numbers an output has.
    read
        How many a readout reads of them.
    through_time
        Operations that a recurrent layer's error takes back from step to step.
    """

    products: tuple[tuple[int, bool], ...]
    rows: int
    features: int
    read: int
    through_time: int = 0

    @property
    def forward(self) -> int:
        """Of a forward pass."""
        return sum(flops for flops, _ in self.products)

    @property
    def update(self) -> int:
        """Of changing what learns: as many as forward, and past the first twice as many, to reach those before."""
        learning = [flops for flops, learns in self.products if learns]
        return sum(learning) + sum(learning[1:])


def operations(model: nn.Sequential, x: Tensor, width: Callable[[Tensor], int]) -> dict[str, Operations]:
    """Count the operations of every block; next to those of its products, what vectors cost does not count.

    Parameters
    ----------
    model
        The network.
    x
        One sample, ``[1, ...]``.
    width
        From a block's output, its maps not flattened, to how many features a readout has.
    """
    counted: dict[str, Operations] = {}

    def visit(block: Block, x: Tensor) -> Tensor:
        a, saved = block.forward(x)
        # Of a sequence a recurrent rule counts all steps; others get every step as a sample of its own.
        forward = block.rule.forward_flops(x) * (1 if block.recurrent else len(x))
        products, through_time = [(forward, block.rule.parameters[0].requires_grad)], 0
        matrices = [p for p in block.rule.parameters if p.dim() > 1]
        if isinstance(block.rule, RecurrentRule):
            through_time = 2 * len(a) * matrices[1].numel()
        elif isinstance(block.rule, GenericRule) and matrices:
            share = forward / sum(p.numel() for p in matrices)
            products = [(round(share * p.numel()), p.requires_grad) for p in matrices]
        tails = [p for tail in block.tail for p in tail.parameters if p.dim() > 1]
        products += [(2 * len(a) * p.numel(), p.requires_grad) for p in tails]
        read = width(block.maps(a, saved))
        counted[block.name] = Operations(tuple(products), len(a), a[0].numel(), read, through_time)
        return a

    _traverse(model, x, visit)
    return counted


@torch.no_grad()
def _traverse(model: nn.Sequential, x: Tensor, visit: Callable[[Block, Tensor], Tensor]) -> None:
    """Pass a sample through a copy of a model, block by block, so that no statistics move."""
    chain = Chain(copy.deepcopy(model).eval())
    chain.traverse(chain.enter(x), None, lambda position, x: visit(chain.blocks[position], x))
