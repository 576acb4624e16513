"""When samples arrive, and their labels."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from fedtp.settings import Problem
from simulations.specs.table import Seconds, Share, Table, or_conflict


class ArrivalSpec(Table):
    """When samples arrive at the devices, how many of them a device can keep, and when it learns what they were.

    Parameters
    ----------
    rate
        Samples per virtual second and device, mean over the fleet.
    kind
        ``"constant"`` (at equal distances), ``"poisson"`` (one by one by chance), or ``"bursts"``.
    burst_samples
        How many samples a burst has, mean.
    burst_share
        Which part of the time is within bursts; 0: the samples of a burst arrive all at once.
    samples_per_order
        If above 0, every order finds exactly so many new samples, whatever the rate.
    buffer
        How many samples a device can keep between orders; a new one pushes out the oldest. 0: any number.
    label_delay_seconds
        How long after a sample its label becomes known, mean.
    label_delay
        Whether that is ``"constant"`` or ``"exponential"``.
    label_fraction
        Which share of the labels becomes known at all.
    """

    rate: float = Field(default=0.2, gt=0, le=1e6)
    kind: Literal["constant", "poisson", "bursts"] = "constant"
    burst_samples: float = Field(default=20.0, gt=1, le=1e6)
    burst_share: float = Field(default=0.1, ge=0, le=0.99)
    samples_per_order: int = Field(default=0, ge=0, le=1_000_000)
    buffer: int = Field(default=0, ge=0, le=100_000_000)
    label_delay_seconds: Seconds = 0.0
    label_delay: Literal["constant", "exponential"] = "constant"
    label_fraction: Share = 1.0

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        found = []
        if self.kind != "constant" and self.samples_per_order:
            text = f'kind is "{self.kind}", but samples_per_order says what every order finds: leave out one of them'
            found.append(Problem(("kind",), text))
        return or_conflict(self, found)
