"""The executor that a scenario asks for."""

from __future__ import annotations

from simulations.executors.executor import Executor
from simulations.executors.inline import InlineExecutor
from simulations.world import World


def executor_for(world: World) -> Executor:
    """Return the executor that a world's scenario asks for; whoever asks for it closes it.

    Raises
    ------
    FedtpError
        If Ray is asked for, and is not installed or not there.
    """
    scenario, run = world.scenario, world.scenario.run
    if run.executor == "ray":
        from simulations.executors.ray import RayExecutor

        return RayExecutor(scenario.to_toml(), run.processes, run.devices_per_node)
    if run.processes > 1:
        from simulations.executors.processes import ProcessExecutor

        return ProcessExecutor(scenario.to_toml(), run.processes, run.devices_per_node)
    return InlineExecutor(world.device)
