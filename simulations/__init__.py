"""Simulated fleets: scenarios, device classes, drift schedules, and the federation in virtual time.

>>> from simulations import Scenario
>>> Scenario.load("digits-rotating").name
'digits-rotating'
"""

from typing import TYPE_CHECKING

from fedtp.lazy import lazily

if TYPE_CHECKING:
    from simulations.run import Run
    from simulations.scenario import Scenario
    from simulations.scenario_file import shipped
    from simulations.simulation import Progress, simulate

__all__ = ["Progress", "Run", "Scenario", "shipped", "simulate"]

# Where the public names live. They are imported when first asked for: PyTorch and Flower take seconds.
_HOMES = {
    "Progress": "simulations.simulation",
    "Run": "simulations.run",
    "Scenario": "simulations.scenario",
    "shipped": "simulations.scenario_file",
    "simulate": "simulations.simulation",
}


__getattr__ = lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
