"""The look that all figures share: colours that follow the theme, axes with units, room for the legend.

A colour is written ``var(--name)`` and defined in ``page.css``, once for light pages and once for dark ones.
The series are the colours of Okabe and Ito, safe for the colour-blind, darkened or lightened until they stand
out from the page; each series has a dash of its own too, for print and for those who see no colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

_SERIES = 6
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
CLEAR = "rgba(0, 0, 0, 0)"


def colour(index: int) -> str:
    """Name the colour of the series `index`."""
    return f"var(--series-{index % _SERIES + 1})"


def dash(index: int) -> str:
    """Name the dash of the series `index`."""
    return _DASHES[index % len(_DASHES)]


def line_style(index: int) -> dict[str, Any]:
    """Choose the line of the series `index`: after six the colours come again, with other dashes."""
    return {"color": colour(index), "dash": dash(index + index // _SERIES), "width": 2.25}


def lane_label(name: str, index: int, **place: Any) -> dict[str, Any]:
    """Write the name of the series `index` into a figure, where beside it there would be no room on a telephone."""
    return {
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "text": plain(name),
        "showarrow": False,
        "font": {"size": 11, "color": colour(index)},
        **place,
    }


def band(x: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], index: int) -> go.Scatter:
    """Draw the band of uncertainty of the series `index`, about a line that is drawn beside it."""
    return go.Scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([high, low[::-1]]).astype("f4"),
        fill="toself",
        fillcolor=colour(index),
        line={"width": 0},
        opacity=0.18,
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
    )


def plain(text: str) -> str:
    """Escape `text` for a figure, where Plotly would read tags and entities in it.

    Examples
    --------
    >>> plain("<b>hot & cold</b>")
    '&lt;b&gt;hot &amp; cold&lt;/b&gt;'
    """
    return escape(text, quote=False)


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    """Set up an axis: `title` with its unit, and whatever Plotly's ``xaxis`` takes."""
    return {
        "title": {"text": title, "standoff": 8},
        "gridcolor": "var(--grid)",
        "linecolor": "var(--rule)",
        "zeroline": False,
        **more,
    }


def figure(traces: Sequence[Any], **layout: Any) -> go.Figure:
    """Make a figure of these traces that follows the theme of the page and the width of its place.

    Titles belong to the page. The legend lies in one or more lines above the plot, which makes room for it.
    """
    shared: dict[str, Any] = {
        "template": {},
        "autosize": True,
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "font": {"family": _FONT, "size": 12, "color": "var(--soft)"},
        "margin": {"l": 8, "r": 16, "t": 12, "b": 40},
        # The numbers and the title of the horizontal axis always fit into the lower margin.
        "yaxis": {"automargin": True},
        "hoverlabel": {
            "bgcolor": "var(--surface)",
            "bordercolor": "var(--rule)",
            "font": {"family": _FONT, "size": 12, "color": "var(--ink)"},
        },
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1.02,
            "yanchor": "bottom",
            "traceorder": "normal",
        },
        "modebar": {"bgcolor": "var(--surface)", "color": "var(--soft)", "activecolor": "var(--ink)"},
    }
    # Where the pointer's whole column or row is read out, a thin line shows which.
    if layout.get("hovermode") in {"x unified", "y unified"}:
        along = f"{layout['hovermode'][0]}axis"
        shared[along] = {**shared.get(along, {}), "spikecolor": "var(--soft)", "spikethickness": 1}
    return go.Figure(data=list(traces), layout=_merged(shared, layout))


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        known = merged.get(key)
        merged[key] = _merged(known, value) if isinstance(known, dict) and isinstance(value, Mapping) else value
    return merged
