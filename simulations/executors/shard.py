"""Some devices of a simulated fleet and their learning, without Flower: it may be done in another process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from clients.app import Done, carry_out, conclude
from clients.device import Device
from clients.training import Outcome
from fedtp.errors import FedtpError
from fedtp.streaming.state import State
from fedtp.wire import Order, Report
from simulations.executors.executor import Devices
from simulations.scenario import Scenario
from simulations.world import World


class Shard:
    """Devices that learn in one process; those with the same kind of order learn as ``[devices, ...]`` tensors.

    Parameters
    ----------
    open_device
        Makes the device of a number, from 0, when its first order comes.
    """

    def __init__(self, open_device: Callable[[int], Device]) -> None:
        self._open_device = open_device
        self._devices: dict[int, Device] = {}
        self._done: dict[int, Done] = {}

    def learn(
        self, orders: Sequence[Order | FedtpError], which: Sequence[int], devices: Devices
    ) -> list[list[Outcome]]:
        """Carry out orders.

        Parameters
        ----------
        orders
            Different orders, as `clients.app.read` returns them.
        which
            For each node the index of its order.
        devices
            For each node its devices that carry it out.
        """
        nodes = [[self.device(number) for number in node] for node in devices]
        found = carry_out([orders[index] for index in which], nodes)
        self._done = {
            number: done
            for numbers, node in zip(devices, found, strict=True)
            for number, done in zip(numbers, node, strict=True)
        }
        return [[outcome for _, outcome in node] for node in found]

    def report(self, devices: Devices) -> list[Report | str]:
        """Return for each node what it tells the server about the last `learn` of these of its devices."""
        reports = [conclude([self._done[number] for number in node]) for node in devices]
        self._done = {}
        return reports

    def states(self) -> dict[int, State]:
        """Return the states of the devices that have had an order, by their numbers."""
        return {number: device.state() for number, device in self._devices.items()}

    def load_states(self, states: Mapping[int, State]) -> None:
        """Have the devices go on where others were; nothing is taken over if one refuses its state."""
        devices = {number: self._open_device(number) for number in states}
        for number, device in devices.items():
            device.load_state(states[number])
        self._devices = devices

    def device(self, number: int) -> Device:
        """Return a device by its number."""
        device = self._devices.get(number)
        if device is None:
            device = self._devices[number] = self._open_device(number)
        return device


class ScenarioShard(Shard):
    """A shard that knows nothing but its scenario, wherever it is.

    Parameters
    ----------
    scenario
        As TOML.
    """

    def __init__(self, scenario: str) -> None:
        world = World(Scenario.from_toml(scenario))
        torch.set_num_threads(world.scenario.run.threads)
        super().__init__(world.device)
