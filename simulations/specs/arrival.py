"""When samples arrive."""

from __future__ import annotations

from pydantic import Field

from simulations.specs.table import Table


class ArrivalSpec(Table):
    """When samples arrive at the devices.

    Parameters
    ----------
    rate
        Samples per virtual second and device, mean over the fleet.
    samples_per_order
        If above 0, every order finds exactly so many new samples, whatever the rate.
    """

    rate: float = Field(default=0.2, gt=0, le=1e6)
    samples_per_order: int = Field(default=0, ge=0, le=1_000_000)
