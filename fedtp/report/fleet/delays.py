"""How long devices took to notice their drifts."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from fedtp.report.fleet.drifts import delays
from fedtp.report.fleet.results import FleetResults
from fedtp.report.page import Note, Panel, Part
from fedtp.report.plots import axis, colour, figure
from fedtp.report.units import count, duration, percent, time_unit

_BINS = 20


def delay_part(results: FleetResults) -> Part:
    """Show how many drifts were detected after how long."""
    drifts = delays(results)
    found = drifts["delay"].drop_nulls().to_numpy()
    if not len(found):
        return Note("Delay of detection", f"None of {count(drifts.height)} drifts was detected.")
    unit = time_unit(float(found.max()))
    # A drift that is detected at once still needs a bin of some width.
    counts, edges = np.histogram(found / unit.size, bins=_BINS, range=(0.0, max(float(found.max()) / unit.size, 1e-3)))
    text = (
        f"{count(len(found))} of {count(drifts.height)} drifts detected "
        f"({percent(len(found) / drifts.height)}), half of them within {duration(float(np.median(found)))}."
    )
    return Panel(
        title="Delay of detection",
        views={
            "": figure(
                [
                    go.Bar(
                        x=((edges[1:] + edges[:-1]) / 2).astype("f4"),
                        y=counts.astype("i4"),
                        width=0.92 * float(edges[1] - edges[0]),
                        marker={"color": colour(2), "line": {"width": 0}},
                        hovertemplate=f"about %{{x:.2~f}} {unit.name}: %{{y}} drifts<extra></extra>",
                    )
                ],
                xaxis=axis(f"virtual time from drift to detection ({unit.name})", rangemode="tozero"),
                yaxis=axis("drifts", rangemode="tozero", **({"dtick": 1} if counts.max() < 5 else {})),
            )
        },
        alt=f"Histogram of the time from a drift to its detection: {text}",
        caption=text,
    )
