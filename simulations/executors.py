"""What does the learning of the messages that a simulation's grid was handed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from flwr.app import Message

from clients.app import answer
from clients.device import Device
from clients.training import Outcome


class Executor(Protocol):
    """Carries out orders."""

    def __call__(self, messages: Sequence[Message]) -> list[tuple[Message, Outcome | None]]:
        """Return the reply to each message, and what came of it on the device (None: an error)."""
        ...


class InlineExecutor:
    """Learns in this process; devices with the same kind of order learn together as ``[devices, ...]`` tensors.

    Parameters
    ----------
    open_device
        Makes the device of a node id when its first message comes.
    """

    def __init__(self, open_device: Callable[[int], Device]) -> None:
        self._open_device = open_device
        self._devices: dict[int, Device] = {}

    def __call__(self, messages: Sequence[Message]) -> list[tuple[Message, Outcome | None]]:
        """Let each message's device answer it."""
        return answer(messages, [self._device(message.metadata.dst_node_id) for message in messages])

    def _device(self, node: int) -> Device:
        device = self._devices.get(node)
        if device is None:
            device = self._devices[node] = self._open_device(node)
        return device
