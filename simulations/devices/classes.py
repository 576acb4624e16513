"""Device classes: what a kind of device can do, and by what it is connected.

Sources: [1] FLASH, Yang et al., WWW 2021: on-device training of LEAF's FEMNIST network (0.63, 1.76 and 5.8 GFLOP/s for
a low, middle and high phone), WiFi of 19 users. [2] Venn: 952 phones, speed log-normal, corr(log milliseconds per
sample, log RAM) = -0.80. [3] Huang et al., MobiSys 2012: LTE, median 13 Mbit/s down and 6 up, up to 23 times less
power-efficient than WiFi. [4] On-device training within 256 KB, Lin et al., NeurIPS 2022. [5] An STM32F722: 0.95 mJ
and 3.2 ms per inference. [A] An assumption.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

#: Correlation of the logarithms of speed and memory within a class [2].
SPEED_MEMORY_CORRELATION = 0.8

_KB = 1
_GB = 1024**2 * _KB


@dataclass(frozen=True)
class Link:
    """A kind of network.

    Parameters
    ----------
    down_mbps, up_mbps
        Speeds, 10⁶ bit/s, median over users.
    down_sigma, up_sigma
        Log-normal spread of the speeds between users.
    down_cv, up_cv
        Coefficient of variation of a user's speeds from transfer to transfer.
    latency_seconds
        One way.
    receive_watts, send_watts
        Power of the radio while it receives and while it sends.
    """

    down_mbps: float
    up_mbps: float
    down_sigma: float
    up_sigma: float
    down_cv: float
    up_cv: float
    latency_seconds: float
    receive_watts: float
    send_watts: float

    @property
    def joules_per_byte_down(self) -> float:
        """Energy to receive a byte at the median speed."""
        return self.receive_watts / (self.down_mbps * 1e6 / 8)

    @property
    def joules_per_byte_up(self) -> float:
        """Energy to send a byte at the median speed."""
        return self.send_watts / (self.up_mbps * 1e6 / 8)


LINKS = MappingProxyType(
    {
        "wifi": Link(
            down_mbps=35.0,  # [1], as are the five below
            up_mbps=26.0,
            down_sigma=0.47,
            up_sigma=0.68,
            down_cv=0.37,
            up_cv=0.40,
            latency_seconds=0.02,  # [A]
            receive_watts=0.8,  # [A]
            send_watts=0.8,  # [A]
        ),
        "lte": Link(
            down_mbps=13.0,  # [3]
            up_mbps=6.0,  # [3]
            down_sigma=0.47,  # [A] as WiFi's, and the three below
            up_sigma=0.68,
            down_cv=0.37,
            up_cv=0.40,
            latency_seconds=0.05,  # [A]
            receive_watts=1.5,  # [A]: 5 times WiFi's energy per byte, and below 14 times, within the 23 of [3]
            send_watts=2.5,
        ),
        "low-power": Link(  # [A], all of it
            down_mbps=0.5,
            up_mbps=0.1,
            down_sigma=0.3,
            up_sigma=0.3,
            down_cv=0.4,
            up_cv=0.4,
            latency_seconds=0.1,
            receive_watts=0.2,
            send_watts=0.2,
        ),
        "wired": Link(  # [A], all of it
            down_mbps=100.0,
            up_mbps=100.0,
            down_sigma=0.0,
            up_sigma=0.0,
            down_cv=0.0,
            up_cv=0.0,
            latency_seconds=0.005,
            receive_watts=1.0,
            send_watts=1.0,
        ),
    }
)


@dataclass(frozen=True)
class DeviceClass:
    """A kind of device.

    Parameters
    ----------
    speed_gflops
        Effective 10⁹ floating-point operations per second, median of the class.
    memory_kb
        Memory for training, units of 1,024 bytes, median of the class.
    power_watts
        While computing.
    network
        The name of its `Link`, a key of `LINKS`.
    speed_sigma, memory_sigma
        Log-normal spread of speed and memory within the class; they are drawn together, with
        `SPEED_MEMORY_CORRELATION`.
    idle_watts
        While doing nothing for the fleet: it drains the battery, and is not counted as the fleet's energy.
    battery_wh
        Capacity of the battery; 0: it hangs on the mains.
    charge_watts
        While charging.
    charge_from_seconds, charge_seconds
        The time of day from which it charges, and for how long.
    loss_probability
        That a reply never arrives, though the device did its work.
    dropout_probability
        That a device gives up in the middle of an order.
    """

    speed_gflops: float
    memory_kb: float
    power_watts: float
    network: str = "wifi"
    speed_sigma: float = 0.4  # [2]: 0.35 to 0.5
    memory_sigma: float = 0.0
    idle_watts: float = 0.0
    battery_wh: float = 0.0
    charge_watts: float = 0.0
    charge_from_seconds: float = 0.0
    charge_seconds: float = 86_400.0
    loss_probability: float = 0.0
    dropout_probability: float = 0.0

    @property
    def joules_per_gflop(self) -> float:
        """Energy for 10⁹ floating-point operations at the median speed."""
        return self.power_watts / self.speed_gflops


def _phone(speed_gflops: float, memory_gb: float, power_watts: float, battery_wh: float) -> DeviceClass:
    return DeviceClass(
        speed_gflops=speed_gflops,
        memory_kb=memory_gb * _GB,
        power_watts=power_watts,  # [A]
        battery_wh=battery_wh,  # [A]
        memory_sigma=0.25,  # [A]
        idle_watts=0.3,  # [A]
        charge_watts=10.0,  # [A]
        charge_from_seconds=22 * 3600.0,  # [A], and the line below
        charge_seconds=8 * 3600.0,
    )


CLASSES = MappingProxyType(
    {
        "mcu": DeviceClass(
            speed_gflops=0.02,  # [A]
            memory_kb=256 * _KB,  # [4]
            power_watts=0.3,  # [5]
            network="low-power",
            battery_wh=4.0,  # [A], and the three below: a small cell and a solar panel
            idle_watts=0.001,
            charge_watts=0.2,
            charge_from_seconds=8 * 3600.0,
            charge_seconds=8 * 3600.0,
        ),
        "pi": DeviceClass(
            speed_gflops=1.5,
            memory_kb=4 * _GB,
            power_watts=5.0,  # [A]
            idle_watts=2.0,  # [A]
        ),
        "phone-low": _phone(0.63, memory_gb=3, power_watts=2.0, battery_wh=12.0),  # speed [1]
        "phone-mid": _phone(1.76, memory_gb=6, power_watts=3.0, battery_wh=15.0),  # speed [1]
        "phone-high": _phone(5.8, memory_gb=8, power_watts=4.0, battery_wh=18.0),  # speed [1]
        "gateway": DeviceClass(
            speed_gflops=50.0,  # [A]
            memory_kb=16 * _GB,  # [A]
            power_watts=15.0,  # [A]
            network="wired",
            idle_watts=5.0,  # [A]
        ),
    }
)
