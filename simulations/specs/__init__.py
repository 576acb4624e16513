"""The tables of a scenario, one topic per file."""

from simulations.specs.adaptation import AdaptationTable
from simulations.specs.arrival import ArrivalSpec
from simulations.specs.data import DataSpec, PartitionSpec
from simulations.specs.devices import DeviceSpec
from simulations.specs.drift import DriftMatrixSpec, DriftSpec
from simulations.specs.run import RunSpec

__all__ = [
    "AdaptationTable",
    "ArrivalSpec",
    "DataSpec",
    "DeviceSpec",
    "DriftMatrixSpec",
    "DriftSpec",
    "PartitionSpec",
    "RunSpec",
]
