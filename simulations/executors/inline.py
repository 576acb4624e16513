"""Learning in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flwr.app import Message

from clients.app import Done, answer, carry_out
from clients.device import Device
from clients.training import Outcome
from simulations.executors.executor import Devices


class InlineExecutor:
    """Learns in this process; devices with the same kind of order learn together as ``[devices, ...]`` tensors.

    Parameters
    ----------
    open_device
        Makes the device of a number, from 0, when its first order comes.
    """

    def __init__(self, open_device: Callable[[int], Device]) -> None:
        self._open_device = open_device
        self._devices: dict[int, Device] = {}
        self._done: dict[int, Done] = {}

    def learn(self, messages: Sequence[Message], devices: Devices) -> list[list[Outcome]]:
        """Let devices of each message's node carry it out; return what came of it on each."""
        found = carry_out(messages, [[self._device(number) for number in node] for node in devices])
        self._done = {
            number: done
            for numbers, node in zip(devices, found, strict=True)
            for number, done in zip(numbers, node, strict=True)
        }
        return [[outcome for _, outcome in node] for node in found]

    def report(self, messages: Sequence[Message], devices: Devices) -> list[Message]:
        """Return the replies to some of the messages of the last `learn`."""
        replies = [
            answer(message, [self._done[number] for number in node])
            for message, node in zip(messages, devices, strict=True)
        ]
        self._done = {}
        return replies

    def _device(self, number: int) -> Device:
        device = self._devices.get(number)
        if device is None:
            device = self._devices[number] = self._open_device(number)
        return device
