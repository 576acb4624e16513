"""The devices of a simulation, drawn from their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simulations.devices.availability import (
    DAY_SECONDS,
    SESSION_SECONDS,
    Availability,
    always,
    duty_cycle,
    join,
    time_of_day,
)
from simulations.devices.battery import BatterySpec
from simulations.devices.classes import CLASSES, LINKS, SPEED_MEMORY_CORRELATION, DeviceClass, Link
from simulations.devices.trace import trace_availability
from simulations.specs import DeviceSpec

Floats = NDArray[np.float64]

# Of a duty cycle; [A] an assumption.
_ON_SECONDS = _OFF_SECONDS = 300.0

# How full batteries are at the start, at least; [A] an assumption.
_LEAST_CHARGE = 0.3


@dataclass(frozen=True, eq=False)
class Fleet:
    """The devices of a simulation, one array element each.

    Parameters
    ----------
    classes
        Name of each device's class.
    flops_per_second, memory_bytes, down_bytes_per_second, up_bytes_per_second
        Effective speeds, and memory for training.
    down_cv, up_cv
        Variation of each link from transfer to transfer.
    latency_seconds, power_watts, receive_watts, send_watts, loss_probability, dropout_probability
        As in `DeviceClass` and `Link`.
    availability
        When each device can be reached.
    batteries
        What each runs on.
    """

    classes: tuple[str, ...]
    flops_per_second: Floats
    memory_bytes: Floats
    down_bytes_per_second: Floats
    up_bytes_per_second: Floats
    down_cv: Floats
    up_cv: Floats
    latency_seconds: Floats
    power_watts: Floats
    receive_watts: Floats
    send_watts: Floats
    loss_probability: Floats
    dropout_probability: Floats
    availability: Availability
    batteries: BatterySpec

    def __len__(self) -> int:
        return len(self.classes)

    @classmethod
    def draw(cls, groups: Sequence[DeviceSpec], rng: np.random.Generator) -> Fleet:
        """Draw every device of the groups from its class.

        Raises
        ------
        DataError
            If a trace of availability cannot be read.
        """
        kinds = [_with_overrides(group) for group in groups]
        counts = [group.count for group in groups]
        devices = sum(counts)

        def of(values: Sequence[float]) -> Floats:
            return np.repeat(np.array(values, float), counts)

        def spread(median: Floats, sigma: Floats, normal: Floats) -> Floats:
            return median * np.exp(sigma * normal)

        quick, down, up = (rng.standard_normal(devices) for _ in range(3))
        phases, own, charge = rng.random(devices), rng.standard_normal(devices), rng.random(devices)
        roomy = SPEED_MEMORY_CORRELATION * quick + np.sqrt(1 - SPEED_MEMORY_CORRELATION**2) * own
        return cls(
            classes=tuple(name for group in groups for name in (group.device_class,) * group.count),
            flops_per_second=spread(
                of([kind.speed_gflops * 1e9 for kind, _ in kinds]), of([kind.speed_sigma for kind, _ in kinds]), quick
            ),
            memory_bytes=spread(
                of([kind.memory_kb * 1024 for kind, _ in kinds]), of([kind.memory_sigma for kind, _ in kinds]), roomy
            ),
            down_bytes_per_second=spread(
                of([link.down_mbps * 1e6 / 8 for _, link in kinds]), of([link.down_sigma for _, link in kinds]), down
            ),
            up_bytes_per_second=spread(
                of([link.up_mbps * 1e6 / 8 for _, link in kinds]), of([link.up_sigma for _, link in kinds]), up
            ),
            down_cv=of([link.down_cv for _, link in kinds]),
            up_cv=of([link.up_cv for _, link in kinds]),
            latency_seconds=of([link.latency_seconds for _, link in kinds]),
            power_watts=of([kind.power_watts for kind, _ in kinds]),
            receive_watts=of([link.receive_watts for _, link in kinds]),
            send_watts=of([link.send_watts for _, link in kinds]),
            loss_probability=of([kind.loss_probability for kind, _ in kinds]),
            dropout_probability=of([kind.dropout_probability for kind, _ in kinds]),
            availability=join(
                [
                    _availability(group, part, rng)
                    for group, part in zip(groups, np.split(phases, np.cumsum(counts)[:-1]), strict=True)
                ]
            ),
            batteries=_batteries(groups, [kind for kind, _ in kinds], charge),
        )


def _with_overrides(group: DeviceSpec) -> tuple[DeviceClass, Link]:
    """Return the group's class and link, with the constants that the scenario gives instead."""
    given = group.model_dump(exclude_none=True)
    kind, link = CLASSES[group.device_class], LINKS[group.network or CLASSES[group.device_class].network]
    return (
        replace(kind, **{key: value for key, value in given.items() if hasattr(kind, key)}),
        replace(link, **{key: value for key, value in given.items() if hasattr(link, key)}),
    )


def _availability(group: DeviceSpec, phases: Floats, rng: np.random.Generator) -> Availability:
    if group.availability == "duty-cycle":
        return duty_cycle(group.on_seconds or _ON_SECONDS, group.off_seconds or _OFF_SECONDS, phases)
    if group.availability == "time-of-day":
        return time_of_day(
            group.count,
            rng,
            starts_at=group.starts_at_seconds,
            session_seconds=group.session_seconds or SESSION_SECONDS,
        )
    if group.availability == "trace":
        return trace_availability(str(group.trace), group.count, starts_at=group.starts_at_seconds)
    return always(group.count)


def _batteries(groups: Sequence[DeviceSpec], kinds: Sequence[DeviceClass], charge: Floats) -> BatterySpec:
    def of(values: Sequence[float]) -> Floats:
        return np.repeat(np.array(values, float), [group.count for group in groups])

    capacity = of([kind.battery_wh * 3600 if kind.battery_wh else np.inf for kind in kinds])
    from_seconds = [
        (kind.charge_from_seconds - group.starts_at_seconds) % DAY_SECONDS
        for group, kind in zip(groups, kinds, strict=True)
    ]
    return BatterySpec(
        capacity_joules=capacity,
        start_joules=capacity * (_LEAST_CHARGE + (1 - _LEAST_CHARGE) * charge),
        charge_watts=of([kind.charge_watts for kind in kinds]),
        charge_from_seconds=of(from_seconds),
        charge_seconds=of([kind.charge_seconds for kind in kinds]),
        idle_watts=of([kind.idle_watts for kind in kinds]),
    )
