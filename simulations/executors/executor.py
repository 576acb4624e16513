"""What an executor is: it does the learning of the orders that a simulation's grid was handed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from flwr.app import Message

from clients.training import Outcome
from fedtp.streaming.state import State

#: For each of some nodes the numbers of devices of it, from 0.
Devices = Sequence[Sequence[int]]


class Executor(Protocol):
    """Carries out orders in two steps: between them the grid finds out whose answers get through."""

    def learn(self, messages: Sequence[Message], devices: Devices) -> list[list[Outcome]]:
        """Let devices of each message's node carry it out; return what came of it on each."""
        ...

    def report(self, messages: Sequence[Message], devices: Devices) -> list[Message]:
        """Return the replies to some of the messages of the last `learn`.

        Parameters
        ----------
        messages
            Those whose node answers.
        devices
            For each those of the node's devices whose work gets through, at least one.
        """
        ...

    def state(self) -> State:
        """Return what the devices must keep from one order to the next; not between `learn` and `report`."""
        ...

    def load_state(self, state: State) -> None:
        """Have the devices go on where those of another executor of the same world were.

        Raises
        ------
        DataError
            If they were none of these.
        """
        ...

    def close(self) -> None:
        """End what it started; it is of no use afterwards."""
        ...
