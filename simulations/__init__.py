"""Simulated fleets: scenarios, device classes, drift schedules, and the federation in virtual time.

>>> from simulations import Scenario
>>> Scenario.load("digits-rotating").name
'digits-rotating'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
