"""The devices of a fleet, by class."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedtp.settings import Problem
from simulations.specs.table import PositiveSeconds, Table, or_conflict

MOST_DEVICES = 1_000_000

ClassName = Literal["mcu", "pi", "phone-low", "phone-mid", "phone-high", "gateway"]
Mbps = Annotated[float, Field(gt=0, le=1e6)]


class DeviceSpec(Table):
    """Some devices of one class.

    Parameters
    ----------
    device_class
        Called ``class`` in TOML.
    count
        How many devices.
    availability, on_seconds, off_seconds, loss_probability, speed_gflops, down_mbps, up_mbps
        Instead of the constants of the class: whether devices are reachable ``"always"`` or on a
        ``"duty-cycle"`` of so many seconds on and off, the probability that a reply is lost, effective
        GFLOP/s, and Mbit/s.
    """

    device_class: ClassName = Field(alias="class")
    count: int = Field(ge=0, le=MOST_DEVICES)
    availability: Literal["always", "duty-cycle"] | None = None
    on_seconds: PositiveSeconds | None = None
    off_seconds: PositiveSeconds | None = None
    loss_probability: float | None = Field(default=None, ge=0, le=1)
    speed_gflops: float | None = Field(default=None, gt=0, le=1e6)
    down_mbps: Mbps | None = None
    up_mbps: Mbps | None = None

    @model_validator(mode="after")
    def _duty_cycle_has_times(self) -> Self:
        found = [
            Problem((key,), f'{key} is {getattr(self, key):g}, but availability is "always": make it "duty-cycle"')
            for key in ("on_seconds", "off_seconds")
            if self.availability != "duty-cycle" and getattr(self, key) is not None
        ]
        return or_conflict(self, found)
