"""Device classes: what a kind of device can do, and the devices of a fleet drawn from them.

Sources: [1] FLASH, Yang et al., WWW 2021: on-device training of LEAF's FEMNIST network (0.63, 1.76 and 5.8 GFLOP/s for
a low, middle and high phone), WiFi of 19 users. [2] Venn: speeds of 952 phones, log-normal. [A] An assumption.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulations.specs import DeviceSpec

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DeviceClass:
    """A kind of device.

    Parameters
    ----------
    speed_gflops
        Effective 10⁹ floating-point operations per second, median of the class.
    speed_sigma
        Log-normal spread of the speed within the class.
    power_watts
        While computing.
    radio_watts
        While sending or receiving.
    down_mbps, up_mbps
        Link speeds, 10⁶ bit/s, median over users.
    down_sigma, up_sigma
        Log-normal spread of the links between users.
    down_cv, up_cv
        Coefficient of variation of a user's link from transfer to transfer.
    latency_seconds
        One way.
    availability
        ``"always"``, or ``"duty-cycle"`` of `on_seconds` reachable and `off_seconds` not, from a random phase.
    loss_probability
        That a reply never arrives.
    """

    speed_gflops: float
    power_watts: float
    radio_watts: float
    down_mbps: float
    up_mbps: float
    speed_sigma: float = 0.4  # [2]: 0.35 to 0.5
    down_sigma: float = 0.0
    up_sigma: float = 0.0
    down_cv: float = 0.0
    up_cv: float = 0.0
    latency_seconds: float = 0.02  # [A]
    availability: str = "always"
    on_seconds: float = 300.0  # [A]
    off_seconds: float = 300.0  # [A]
    loss_probability: float = 0.0


_WIFI: dict[str, Any] = {
    "down_mbps": 35.0,  # [1], as are those below
    "up_mbps": 26.0,
    "down_sigma": 0.47,
    "up_sigma": 0.68,
    "down_cv": 0.37,
    "up_cv": 0.40,
    "radio_watts": 0.8,  # [A]
}

CLASSES: dict[str, DeviceClass] = {
    "mcu": DeviceClass(
        speed_gflops=0.02,  # [A]
        power_watts=0.3,
        radio_watts=0.2,  # [A]
        down_mbps=0.5,  # [A]
        up_mbps=0.1,  # [A]
        down_sigma=0.3,  # [A], and the three below
        up_sigma=0.3,
        down_cv=0.4,
        up_cv=0.4,
        latency_seconds=0.1,  # [A]
    ),
    "pi": DeviceClass(speed_gflops=1.5, power_watts=5.0, **_WIFI),  # watts [A], as are those below
    "phone-low": DeviceClass(speed_gflops=0.63, power_watts=2.0, **_WIFI),  # speed [1]
    "phone-mid": DeviceClass(speed_gflops=1.76, power_watts=3.0, **_WIFI),  # speed [1]
    "phone-high": DeviceClass(speed_gflops=5.8, power_watts=4.0, **_WIFI),  # speed [1]
    "gateway": DeviceClass(
        speed_gflops=50.0,  # [A]
        power_watts=15.0,  # [A]
        radio_watts=1.0,  # [A]
        down_mbps=100.0,  # [A], wired
        up_mbps=100.0,  # [A], wired
        latency_seconds=0.005,  # [A]
    ),
}


@dataclass(frozen=True, eq=False)
class Fleet:
    """The devices of a simulation, one array element each.

    Parameters
    ----------
    classes
        Name of each device's class.
    flops_per_second, down_bytes_per_second, up_bytes_per_second
        Effective speeds.
    down_cv, up_cv
        Variation of each link from transfer to transfer.
    latency_seconds, power_watts, radio_watts, loss_probability
        As in `DeviceClass`.
    on_seconds, off_seconds, phase_seconds
        When a device is reachable: always where `off_seconds` is 0.
    """

    classes: tuple[str, ...]
    flops_per_second: Floats
    down_bytes_per_second: Floats
    up_bytes_per_second: Floats
    down_cv: Floats
    up_cv: Floats
    latency_seconds: Floats
    power_watts: Floats
    radio_watts: Floats
    loss_probability: Floats
    on_seconds: Floats
    off_seconds: Floats
    phase_seconds: Floats

    def __len__(self) -> int:
        return len(self.classes)

    @classmethod
    def draw(cls, groups: Sequence[DeviceSpec], rng: np.random.Generator) -> Fleet:
        """Draw every device of the groups from its class."""
        kinds = [(group.device_class, _with_overrides(group)) for group in groups for _ in range(group.count)]

        def of(name: str) -> Floats:
            return np.array([getattr(kind, name) for _, kind in kinds])

        def spread(median: Floats, sigma: Floats) -> Floats:
            return median * np.exp(sigma * rng.standard_normal(len(kinds)))

        duty = np.array([kind.availability == "duty-cycle" for _, kind in kinds])
        on, off = of("on_seconds"), np.where(duty, of("off_seconds"), 0.0)
        return cls(
            classes=tuple(name for name, _ in kinds),
            flops_per_second=spread(of("speed_gflops") * 1e9, of("speed_sigma")),
            down_bytes_per_second=spread(of("down_mbps") * 1e6 / 8, of("down_sigma")),
            up_bytes_per_second=spread(of("up_mbps") * 1e6 / 8, of("up_sigma")),
            down_cv=of("down_cv"),
            up_cv=of("up_cv"),
            latency_seconds=of("latency_seconds"),
            power_watts=of("power_watts"),
            radio_watts=of("radio_watts"),
            loss_probability=of("loss_probability"),
            on_seconds=on,
            off_seconds=off,
            phase_seconds=rng.random(len(kinds)) * (on + off),
        )

    def available(self, now: float) -> NDArray[np.bool_]:
        """Return which devices are reachable at `now`, s."""
        return (now + self.phase_seconds) % (self.on_seconds + self.off_seconds) < self.on_seconds


def _with_overrides(group: DeviceSpec) -> DeviceClass:
    """Return the group's class, with the constants that the scenario gives instead."""
    given = group.model_dump(exclude={"device_class", "count"}, exclude_none=True)
    return replace(CLASSES[group.device_class], **given)
