"""The devices of a fleet, by class."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedtp.settings import Problem
from simulations.specs.table import PositiveSeconds, Table, or_conflict

MOST_DEVICES = 1_000_000

ClassName = Literal["mcu", "pi", "phone-low", "phone-mid", "phone-high", "gateway"]
NetworkName = Literal["wifi", "lte", "low-power", "wired"]
PlanName = Literal["everything", "whole", "first", "rotation", "random", "assigned"]
PositiveNumber = Annotated[float, Field(gt=0, le=1e6)]
Probability = Annotated[float, Field(ge=0, le=1)]

#: Keys that say more about one kind of availability, and mean nothing to the others.
_AVAILABILITY_OF = {
    "on_seconds": "duty-cycle",
    "off_seconds": "duty-cycle",
    "session_seconds": "time-of-day",
    "trace": "trace",
}


class DeviceSpec(Table):
    """Some devices of one class.

    Parameters
    ----------
    device_class
        Called ``class`` in TOML.
    count
        How many devices.
    network
        The kind of link, instead of the class's.
    availability
        When devices can be reached: ``"always"``; on a ``"duty-cycle"``; in a session at a ``"time-of-day"`` of their
        own; or as the clients of a ``"trace"``.
    on_seconds, off_seconds
        Of a duty cycle; 300 each by default.
    session_seconds
        Mean length of the daily session at a time of day; 720 by default.
    trace
        A file in FedScale's format.
    starts_at_seconds
        The local time of day, s after midnight, when the run begins; of a trace, how far into it.
    speed_gflops, memory_kb, power_watts, idle_watts, battery_wh, charge_watts, loss_probability, dropout_probability
        Instead of the constants of the class, see `simulations.devices.DeviceClass`.
    down_mbps, up_mbps
        Instead of those of the link, see `simulations.devices.Link`.
    plan, plan_blocks
        How a device chooses among the blocks that it can afford to train, and how many it trains at most (1 by
        default, no limit for ``"everything"`` and ``"whole"``), see `clients.budget.Budget`.
    """

    device_class: ClassName = Field(alias="class")
    count: int = Field(ge=0, le=MOST_DEVICES)
    network: NetworkName | None = None
    availability: Literal["always", "duty-cycle", "time-of-day", "trace"] = "always"
    on_seconds: PositiveSeconds | None = None
    off_seconds: PositiveSeconds | None = None
    session_seconds: PositiveSeconds | None = None
    trace: str | None = Field(default=None, min_length=1)
    starts_at_seconds: float = Field(default=0.0, ge=0, le=1e9)
    loss_probability: Probability | None = None
    dropout_probability: Probability | None = None
    speed_gflops: PositiveNumber | None = None
    memory_kb: float | None = Field(default=None, gt=0, le=1e9)
    down_mbps: PositiveNumber | None = None
    up_mbps: PositiveNumber | None = None
    power_watts: float | None = Field(default=None, ge=0, le=1e6)
    idle_watts: float | None = Field(default=None, ge=0, le=1e6)
    battery_wh: float | None = Field(default=None, ge=0, le=1e6)
    charge_watts: float | None = Field(default=None, ge=0, le=1e6)
    plan: PlanName = "everything"
    plan_blocks: int | None = Field(default=None, ge=1, le=10_000)

    @model_validator(mode="after")
    def _keys_belong_together(self) -> Self:
        found = []
        for key, kind in _AVAILABILITY_OF.items():
            value = getattr(self, key)
            if value is not None and self.availability != kind:
                shown = f"{value:g}" if isinstance(value, float) else f'"{value}"'
                text = f'{key} is {shown}, but availability is "{self.availability}": make it "{kind}"'
                found.append(Problem((key,), text))
        if self.plan in ("everything", "whole") and self.plan_blocks is not None:
            text = f'plan_blocks is {self.plan_blocks}, but plan is "{self.plan}": leave it out, or choose another plan'
            found.append(Problem(("plan_blocks",), text))
        if self.availability == "trace" and self.trace is None:
            found.append(Problem(("trace",), 'trace is missing: availability is "trace", which is read from a file'))
        return or_conflict(self, found)
