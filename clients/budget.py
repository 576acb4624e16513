"""What a device can afford: which blocks it trains for an order.

Backpropagation needs a whole network at once. Where each block learns by itself, a device trains those that fit in its
memory and that it can finish and send in time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal, NamedTuple, Self, get_args

import numpy as np

from fedtp.errors import BudgetError
from fedtp.learner import Learner
from fedtp.run_config import ConfigValue
from fedtp.wire import Order

#: How a device chooses among the blocks that it can afford.
BlockPlan = Literal["everything", "whole", "first", "rotation", "random", "assigned"]

_BYTES_PER_NUMBER = 4
_PREFIX = "budget."


class Choice(NamedTuple):
    """Which blocks a device trains for an order.

    Parameters
    ----------
    blocks
        Their names, in the order of the network.
    trainable
        Where the server is to choose: the names of those that the device could train. Empty if it chooses itself.
    """

    blocks: tuple[str, ...] = ()
    trainable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Budget:
    """What a device has for one order, and how it chooses the blocks that it trains within it.

    Parameters
    ----------
    memory_bytes
        For training.
    flops_per_second, down_bytes_per_second, up_bytes_per_second
        Speeds that the device counts on.
    deadline_seconds
        How long after an order was sent its answer must be there.
    plan
        ``"everything"``: as many blocks as fit, those first that take least time. ``"whole"``: all blocks, however
        late, or none where the memory does not do: what a device does that cannot train a part. ``"first"``: the first
        blocks that fit. ``"rotation"``: blocks in turn, from order to order, of those that fit. ``"random"``: any that
        fit. ``"assigned"``: those that the server assigns, so that each block is trained by somebody; in turn as long
        as it has not.
    plan_blocks
        How many blocks at most, by all plans but ``"everything"`` and ``"whole"``.
    turn
        Where a device begins its rotation: its number, so that the devices of a fleet are at different blocks.

    Examples
    --------
    >>> from fedtp.learner import learner_for
    >>> from fedtp.learner_spec import LearnerSpec
    >>> learner = learner_for(LearnerSpec(hidden=(100, 10)), 784, 10)
    >>> order = Order(1, 0.0, "", learner.initial_weights(), tuple(learner.sizes))
    >>> Budget().choose(learner, order, samples=20).blocks
    ('0', '2', '4')
    >>> Budget(memory_bytes=50_000).choose(learner, order, samples=20).blocks
    ('2', '4')
    """

    memory_bytes: float = math.inf
    flops_per_second: float = math.inf
    down_bytes_per_second: float = math.inf
    up_bytes_per_second: float = math.inf
    deadline_seconds: float = math.inf
    plan: BlockPlan = "everything"
    plan_blocks: int = 1
    turn: int = 0

    def __post_init__(self) -> None:
        for field in fields(self)[:5]:
            if not getattr(self, field.name) > 0:
                raise BudgetError(f"{_PREFIX}{field.name} is {getattr(self, field.name)}, but must be above 0.")
        if self.plan not in get_args(BlockPlan):
            raise BudgetError(f'{_PREFIX}plan is "{self.plan}", but must be one of {", ".join(get_args(BlockPlan))}.')
        if self.plan_blocks < 1:
            raise BudgetError(f"{_PREFIX}plan_blocks is {self.plan_blocks}, but must be at least 1.")

    @classmethod
    def from_config(cls, config: Mapping[str, ConfigValue]) -> Self:
        """Read the budget of a node from its config: ``budget.memory_bytes`` and so on; what is missing is no limit.

        Without ``budget.deadline_seconds`` the server's own deadline holds, and rotation begins at ``partition-id``.

        Raises
        ------
        BudgetError
            If a key is unknown, or has a value that is not allowed.
        """
        defaults: dict[str, ConfigValue] = {
            "deadline_seconds": config.get("server.deadline_seconds", math.inf),
            "turn": number if isinstance(number := config.get("partition-id"), int) else 0,
        }
        given = {key.removeprefix(_PREFIX): value for key, value in config.items() if key.startswith(_PREFIX)}
        settings: dict[str, ConfigValue] = {}
        for name, value in {**defaults, **given}.items():
            kind = next((type(field.default) for field in fields(cls) if field.name == name), None)
            if kind is None:
                raise BudgetError(f"{_PREFIX}{name} is not a known key: a budget has {_names(cls)}.")
            if kind is float and type(value) is int:
                value = float(value)
            if type(value) is not kind:
                raise BudgetError(f"{_PREFIX}{name} is {value!r}, but must be of type {kind.__name__}.")
            settings[name] = value
        return cls(**settings)  # type: ignore[arg-type]

    def check(self, learner: Learner) -> None:
        """Check that a device can take part.

        Raises
        ------
        BudgetError
            If it has not even the memory for a prediction.
        """
        if self.memory_bytes < math.inf and learner.scoring_bytes() > self.memory_bytes:
            raise BudgetError(
                f"This device has {self.memory_bytes:,.0f} bytes of memory, but a prediction takes "
                f"{learner.scoring_bytes():,}: it takes no part."
            )

    def choose(self, learner: Learner, order: Order, samples: float) -> Choice:
        """Return which blocks of an order a device trains.

        Parameters
        ----------
        learner
            The network and how it learns. One that learns as a whole is trained as a whole or not at all.
        order
            What is asked for.
        samples
            How many samples there are to learn from; a sequence of half the time steps is half of one.
        """
        asked = _in_order(learner, order.blocks)
        work = _Work(self, learner, samples, order.numbers * _BYTES_PER_NUMBER / self.down_bytes_per_second)
        if self.plan == "whole":
            return Choice(asked if work.fits_memory(asked) else ())
        if self.plan == "everything" and work.fits(asked):
            return Choice(asked)
        if not learner.partial:
            return Choice(asked if work.fits(asked) else ())
        # What the server assigned is a part of what it may assign next.
        offered = learner.sizes if self.plan == "assigned" else asked
        trainable = tuple(name for name in offered if work.fits((name,)))
        preferred, most = self._preferred([name for name in trainable if name in asked], order.round, work)
        blocks: tuple[str, ...] = ()
        for name in preferred:
            more = tuple(other for other in asked if other == name or other in blocks)
            if len(blocks) < most and work.fits(more):
                blocks = more
        return Choice(blocks, trainable if self.plan == "assigned" else ())

    def _preferred(self, blocks: Sequence[str], number: int, work: _Work) -> tuple[Sequence[str], int]:
        """Return blocks in the order in which they are wanted, and how many of them."""
        match self.plan:
            case "everything":
                return sorted(blocks, key=lambda name: work.seconds((name,))), len(blocks)
            case "first":
                return blocks, self.plan_blocks
            case "random":
                rng = np.random.default_rng((self.turn, number))
                return [blocks[i] for i in rng.permutation(len(blocks))], self.plan_blocks
        start = ((self.turn + number - 1) * self.plan_blocks) % max(1, len(blocks))
        return [*blocks[start:], *blocks[:start]], self.plan_blocks


class _Work(NamedTuple):
    """What an order takes of a budget, by the blocks that are trained."""

    budget: Budget
    learner: Learner
    samples: float
    down_seconds: float

    def fits(self, blocks: tuple[str, ...]) -> bool:
        return self.fits_memory(blocks) and self.seconds(blocks) <= self.budget.deadline_seconds

    def fits_memory(self, blocks: tuple[str, ...]) -> bool:
        memory = self.budget.memory_bytes
        return memory == math.inf or _training_bytes(self.learner, blocks) <= memory

    def seconds(self, blocks: tuple[str, ...]) -> float:
        flops, numbers = _per_sample(self.learner, blocks)
        computing = self.samples * flops / self.budget.flops_per_second
        return self.down_seconds + computing + numbers * _BYTES_PER_NUMBER / self.budget.up_bytes_per_second


# Most devices of a fleet ask the same of the same learner.
@lru_cache(maxsize=4096)
def _in_order(learner: Learner, blocks: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in learner.sizes if name in blocks)


@lru_cache(maxsize=4096)
def _training_bytes(learner: Learner, blocks: tuple[str, ...]) -> int:
    return learner.training_bytes(blocks)


@lru_cache(maxsize=4096)
def _per_sample(learner: Learner, blocks: tuple[str, ...]) -> tuple[float, int]:
    """Return the operations for a sample, and how many numbers are sent."""
    return work_flops(learner, 1, blocks), sum(learner.sizes[name] for name in blocks)


def work_flops(learner: Learner, samples: float, blocks: tuple[str, ...]) -> float:
    """Return the floating-point operations of scoring samples and learning from them by training some blocks."""
    passes = learner.spec.epochs if blocks else 1
    return float(samples * passes * learner.flops(blocks))


def peak_bytes(learner: Learner, blocks: tuple[str, ...]) -> int:
    """Return the memory that a device needs, bytes: for training some blocks, or for predictions alone."""
    return max(learner.training_bytes(blocks), learner.scoring_bytes())


def _names(kind: type[Budget]) -> str:
    names: Iterable[str] = (field.name for field in fields(kind))
    return ", ".join(names)
