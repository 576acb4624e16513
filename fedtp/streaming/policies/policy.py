"""What a policy is: settings, and a network in its hands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

from fedtp.errors import DataError, ModelError
from fedtp.projection import Label
from fedtp.streaming.drift import DriftReport
from fedtp.streaming.features import Vector
from fedtp.streaming.state import Part, State

if TYPE_CHECKING:
    from fedtp.streaming.learner import Adaptable

    #: Makes a network as it would be if nothing had been learnt yet, with all inputs and outputs that have appeared.
    Fresh = Callable[[], Adaptable]


class Policy(ABC):
    """Says what is done with a network where a drift is detected; settings that never change, and no state."""

    @abstractmethod
    def manage(self, network: Adaptable) -> Managed:
        """Take a new network in hand."""


class Managed(ABC):
    """A network in the hands of a policy, to be used like one; what a policy must remember is kept here.

    Parameters
    ----------
    network
        What learns. To begin with, it does so as if nobody watched.
    """

    def __init__(self, network: Adaptable) -> None:
        self.network = network

    @abstractmethod
    def drifted(self, report: DriftReport, fresh: Fresh) -> None:
        """Do what the policy says, once the sample at which the drift was flagged has been learnt."""

    @property
    def blocks(self) -> list[str]:  # noqa: D102
        return self.network.blocks

    def grow_inputs(self, names: Sequence[Hashable]) -> None:  # noqa: D102
        self.network.grow_inputs(names)

    def grow_outputs(self, keys: Sequence[Label]) -> None:  # noqa: D102
        self.network.grow_outputs(keys)

    def forward(self, x: Vector) -> Vector:  # noqa: D102
        return self.network.forward(x)

    def guesses(self) -> Vector:  # noqa: D102
        return self.network.guesses()

    def learn(self, target: Vector, guesses: Vector | None = None) -> None:  # noqa: D102
        self.network.learn(target, guesses)

    def forward_many(self, x: Vector) -> Vector:  # noqa: D102
        return self.network.forward_many(x)

    def learn_many(self, target: Vector) -> None:  # noqa: D102
        self.network.learn_many(target)

    def readings(self, x: Vector) -> Vector:  # noqa: D102
        return self.network.readings(x)

    def state(self) -> State:
        """Return what the network has learnt, and what the policy remembers."""
        memory = self._memory()
        arrays, record = packed("network", self.network)
        return State(arrays | memory.arrays, record | memory.record)

    def load_state(self, state: State) -> None:
        """Take over what another network in the hands of the same policy has learnt."""
        self._remember(state)
        unpack("network", state, self.network)

    def _memory(self) -> State:
        """Return what the policy remembers."""
        return State({})

    def _remember(self, state: State) -> None:  # noqa: B027  # most have nothing to remember
        """Take over what `_memory` returned, once it is checked."""


def packed(name: str, network: Adaptable) -> tuple[dict[str, Vector], dict[str, Any]]:
    """Return the arrays and the record of a network as parts of a larger state."""
    if not isinstance(network, Part):
        raise ModelError(f"a model whose network is {type(network).__name__} cannot be saved: it has no state()")
    state = network.state()
    return {f"{name}/{key}": array for key, array in state.arrays.items()}, {name: state.record}


def unpack(name: str, state: State, network: Adaptable) -> None:
    """Load a network from where `packed` put it."""
    if not isinstance(network, Part):
        raise DataError(f"a network that is {type(network).__name__} cannot be loaded: it has no load_state()")
    record = state.record.get(name)
    if not isinstance(record, dict):
        raise DataError(f"the record of {name!r} is missing")
    begin = f"{name}/"
    arrays = {key.removeprefix(begin): array for key, array in state.arrays.items() if key.startswith(begin)}
    network.load_state(State(arrays, record))
