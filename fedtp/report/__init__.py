"""Reports: self-contained HTML pages on what was learnt, by a fleet for now.

`page` is the shell that every report shares; each kind of report has a package of its own beside it.
"""

from fedtp.report.fleet import FleetResults, fleet_report

__all__ = ["FleetResults", "fleet_report"]
