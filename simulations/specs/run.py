"""How a simulation itself runs."""

from __future__ import annotations

from typing import Literal

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
    executor
        What does the devices' learning: ``"inline"``, processes of this machine, or ``"ray"``, actors on a Ray cluster.
    processes
        How many of them; with 1, ``"inline"`` learns in the simulation's own process.
    devices_per_node
        With 1, each device answers the server itself. With more, so many are behind a gateway, which answers with
        their weighted mean.
    checkpoint_rounds
        After every so many rounds the simulation saves how far it has come, to go on from there if it is stopped; with
        0, whenever half a minute has gone by, or twenty times as long as it takes to save.
    """

    seed: int = Field(default=1, ge=0, le=2**63 - 1)
    threads: int = Field(default=1, ge=1, le=1024)
    executor: Literal["inline", "ray"] = "inline"
    processes: int = Field(default=1, ge=1, le=1024)
    devices_per_node: int = Field(default=1, ge=1, le=1_000_000)
    checkpoint_rounds: int = Field(default=0, ge=0, le=1_000_000)
