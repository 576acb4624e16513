"""Learning in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flwr.app import Message

from clients.app import answer
from clients.device import Device
from clients.training import Outcome
from fedtp.streaming.state import State
from simulations.executors.executor import Devices
from simulations.executors.fleet_state import stacked, unstacked
from simulations.executors.orders import distinct
from simulations.executors.shard import Shard


class InlineExecutor:
    """Learns in this process.

    Parameters
    ----------
    open_device
        Makes the device of a number, from 0, when its first order comes.
    """

    def __init__(self, open_device: Callable[[int], Device]) -> None:
        self._shard = Shard(open_device)

    def learn(self, messages: Sequence[Message], devices: Devices) -> list[list[Outcome]]:
        """Let devices of each message's node carry it out; return what came of it on each."""
        return self._shard.learn(*distinct(messages), devices)

    def report(self, messages: Sequence[Message], devices: Devices) -> list[Message]:
        """Return the replies to some of the messages of the last `learn`."""
        return [answer(message, report) for message, report in zip(messages, self._shard.report(devices), strict=True)]

    def state(self) -> State:
        """Return what the devices must keep from one order to the next."""
        return stacked(self._shard.states())

    def load_state(self, state: State) -> None:
        """Have the devices go on where those of another executor of the same world were."""
        self._shard.load_states(unstacked(state))

    def close(self) -> None:
        """Do nothing: it has started nothing."""
