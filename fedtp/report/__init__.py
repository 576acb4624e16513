"""Reports: self-contained HTML pages on what was learnt, by a fleet for now.

`page` is the shell that every report shares; each kind of report has a package of its own beside it.
"""

from typing import TYPE_CHECKING

from fedtp.lazy import lazily

if TYPE_CHECKING:
    from fedtp.report.fleet import FleetResults, fleet_report

__all__ = ["FleetResults", "fleet_report"]

# Plotly is not imported for the units.
__getattr__ = lazily(__name__, {"FleetResults": "fedtp.report.fleet", "fleet_report": "fedtp.report.fleet"})
