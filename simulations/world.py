"""The world that a scenario describes: its data, who has it, what changes, and the devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from clients.budget import Budget
from clients.device import Device
from fedtp.blocks import Packed
from fedtp.data import load
from fedtp.errors import ScenarioError
from fedtp.learner import Learner, learner_for
from fedtp.run_config import ConfigValue
from simulations.arrivals import Labels, arrivals
from simulations.concepts import Concepts
from simulations.devices import Fleet
from simulations.drift import Timeline, matrix_timelines, timelines
from simulations.partition import partition, quantity_shares
from simulations.scenario import Scenario
from simulations.seeding import Purpose, generator
from simulations.streams import Pool, SimulatedStream


class World:
    """Everything that a scenario fixes before the first round.

    Parameters
    ----------
    scenario
        What to build.

    Attributes
    ----------
    fleet
        The devices.
    timelines
        Each device's concepts.
    data
        The whole data set, under the initial concept.

    Raises
    ------
    DataError
        If the data set is not there, or a concept does not fit it.
    ScenarioError
        If there is too little data for the devices.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        seed, devices = scenario.run.seed, scenario.device_count
        spec = scenario.data
        self._base = load(spec.name, path=spec.path, samples=spec.samples, parameters=spec.parameters, seed=seed)
        self.timelines = self._timelines(devices)
        self.concepts = self._concepts()
        self.data = self.concepts[spec.initial]
        self._groups = np.repeat(np.arange(len(scenario.devices)), [group.count for group in scenario.devices])
        self.fleet = Fleet.draw(scenario.devices, generator(seed, Purpose.FLEET))
        train, self.held_out = self.data.split_rows(spec.test_fraction, seed)
        shares = quantity_shares(devices, scenario.partition.quantity_sigma, generator(seed, Purpose.QUANTITY))
        self._rates = scenario.arrival.rate * shares
        self._rows = self._partition(train, shares)
        self._everybody = Pool(train)

    def _timelines(self, devices: int) -> list[Timeline]:
        scenario = self.scenario
        if scenario.drift_matrix is not None:
            return matrix_timelines(scenario.drift_matrix, devices, scenario.duration_seconds)
        rng = generator(scenario.run.seed, Purpose.DRIFT)
        return timelines(scenario.data.initial, scenario.drift, devices, scenario.duration_seconds, rng)

    def _concepts(self) -> Concepts:
        scenario = self.scenario
        used = [scenario.data.initial, *(name for drift in scenario.drift for name in drift.concepts)]
        if scenario.drift_matrix is not None:
            used += scenario.drift_matrix.concepts
        stages = {stage for line in self.timelines for change in line.changes for stage in change.stages}
        seed = int(generator(scenario.run.seed, Purpose.CONCEPT).integers(2**63))
        return Concepts(self._base, {name: scenario.concepts[name] for name in dict.fromkeys(used)}, stages, seed)

    def _partition(self, train: NDArray[np.int64], shares: NDArray[np.float64]) -> list[NDArray[np.int64]]:
        spec = self.scenario.partition
        if self.data.ordered and spec.kind != "interleaved":
            raise ScenarioError(
                f'partition.kind is "{spec.kind}", but the rows of "{self.data.name}" are in order of time: '
                'choose "interleaved", which keeps it.'
            )
        parts = partition(
            self.data.y[train],
            len(shares),
            generator(self.scenario.run.seed, Purpose.PARTITION),
            kind=spec.kind,
            alpha=spec.alpha,
            shares=shares if spec.quantity_sigma else None,
        )
        return [train[part] for part in parts]

    @cached_property
    def learner(self) -> Learner:
        """The network and how it learns."""
        return learner_for(self.scenario.learner, self.data.shape, len(self.data.classes))

    def backprop_bytes(self) -> int:
        """Return the peak memory of training the whole network by backpropagation, bytes."""
        spec = self.scenario.learner.model_copy(update={"method": "backprop", "space": "label", "readout": "fixed"})
        return learner_for(spec, self.data.shape, len(self.data.classes)).training_bytes()

    def run_config(self) -> dict[str, ConfigValue]:
        """Return what server and devices are told, as Flower's run config."""
        return {
            **self.scenario.learner.to_config(),
            **self.scenario.server.to_config(),
            **self.scenario.trust.to_config(),
            **self.scenario.privacy.to_config(),
            **self.scenario.adaptation.to_config(),
            "buffer": self.scenario.arrival.buffer,
            "shape": ",".join(map(str, self.learner.shape)),
            "classes": self.learner.classes,
        }

    def device(self, number: int) -> Device:
        """Return a device that has seen nothing yet."""
        scenario = self.scenario
        return Device.new(
            self.learner, self.stream(number), scenario.arrival.buffer, self.budget(number), scenario.adaptation
        )

    def stream(self, device: int) -> SimulatedStream:
        """Return a device's stream, from its beginning."""
        spec, seed = self.scenario.arrival, self.scenario.run.seed
        # The first order finds what the other orders find: the samples of one interval between orders.
        start = -self.scenario.server.interval_seconds
        return SimulatedStream(
            self.concepts,
            self._rows[device],
            self.timelines[device],
            arrivals(spec, float(self._rates[device]), start, seed, device),
            labels=Labels.of(spec),
            everybody=self._everybody,
            seed=seed,
            device=device,
        )

    def budget(self, device: int) -> Budget:
        """Return what a device can afford for an order."""
        fleet, group = self.fleet, self.scenario.devices[self._groups[device]]
        return Budget(
            memory_bytes=float(fleet.memory_bytes[device]),
            flops_per_second=float(fleet.flops_per_second[device]),
            down_bytes_per_second=float(fleet.down_bytes_per_second[device]),
            up_bytes_per_second=float(fleet.up_bytes_per_second[device]),
            deadline_seconds=self.scenario.server.deadline_seconds,
            plan=group.plan,
            plan_blocks=group.plan_blocks or 1,
            turn=device,
        )

    def held_out_accuracy(self, weights: Mapping[str, Packed], at: float) -> float:
        """Return a model's accuracy on the held-out data, under the concepts that devices see at a time, s.

        Each concept counts as often as there are devices that see it, and its samples as often as they are drawn under
        it (all alike, if none of those that are held out ever is).
        """
        model = self.learner.network(weights)
        votes = Counter(timeline.last(at) for timeline in self.timelines)
        total = 0.0
        for name, devices in votes.items():
            data = self.concepts[name].rows(self.held_out)
            lengths = None if data.lengths is None else torch.from_numpy(data.lengths)
            right = self.learner.predict(model, torch.from_numpy(data.x), lengths).numpy() == data.y
            mix = data.weights if data.weights is not None and data.weights.any() else None
            total += devices * float(np.average(right, weights=mix))
        return total / len(self.timelines)


@lru_cache(maxsize=1)
def _world(scenario: str, settings: str) -> World:
    return World(Scenario.load(scenario, settings.split()))


def open_stream(config: Mapping[str, ConfigValue]) -> SimulatedStream:
    """Open the stream of a Flower node, from its run config and node config.

    Parameters
    ----------
    config
        ``scenario``: name or file. ``settings``: changes to it, as ``key=value`` with spaces between; none by default.
        ``partition-id``: the number of the device.
    """
    return _world_of(config).stream(int(config["partition-id"]))


def open_budget(config: Mapping[str, ConfigValue]) -> Budget:
    """Return the budget of a Flower node: that of the simulated device, from the same config as its stream."""
    return _world_of(config).budget(int(config["partition-id"]))


def _world_of(config: Mapping[str, ConfigValue]) -> World:
    return _world(str(config["scenario"]), str(config.get("settings", "")))
