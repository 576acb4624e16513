"""The report of a fleet: what its devices learnt, round by round, what drifted and what it cost."""

from fedtp.report.fleet.report import fleet_report
from fedtp.report.fleet.results import FleetResults

__all__ = ["FleetResults", "fleet_report"]
