"""How a simulation itself runs."""

from __future__ import annotations

from pydantic import Field

from simulations.specs.table import Table


class RunSpec(Table):
    """How the simulation itself runs.

    Parameters
    ----------
    seed
        Everything random is drawn from it.
    threads
        That PyTorch computes with.
    devices_per_node
        With 1, each device answers the server itself. With more, so many are behind a gateway, which answers with
        their weighted mean.
    """

    seed: int = Field(default=1, ge=0, le=2**63 - 1)
    threads: int = Field(default=1, ge=1, le=1024)
    devices_per_node: int = Field(default=1, ge=1, le=1_000_000)
