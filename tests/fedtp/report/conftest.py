"""Frames such as a run makes, drawn at random: devices that drift one after another, fall and recover."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import numpy as np
import polars as pl
import pytest
from plotly.offline import get_plotlyjs

from fedtp.report import FleetResults

# Per class: share of the fleet, accuracy at which it settles, seconds of computing and of transfer, watts.
CLASSES = {
    "mcu": (0.25, 0.80, 9.0, 14.0, 0.3),
    "pi": (0.40, 0.86, 0.6, 1.5, 5.0),
    "phone-mid": (0.30, 0.88, 0.3, 2.5, 3.0),
    "gateway": (0.05, 0.91, 0.02, 0.2, 12.0),
}
TOML = """\
# Digits that turn.
title = "Digits that turn"

[run]
seed = 1

[concepts.tilted]
kind = "rotation"
degrees = 90
"""


def make_results(
    devices: int = 100,
    rounds: int = 60,
    drift_at: tuple[float, ...] = (0.33,),
    stagger: float = 0.25,
    concepts: tuple[str, ...] = ("tilted", "upright"),
    rate: float = 12.0,
    seed: int = 1,
    round_seconds: float = 60.0,
    **changes: object,
) -> FleetResults:
    """Results of a fleet that never ran; `drift_at` and `stagger` are shares of its duration."""
    rng = np.random.default_rng(seed)
    end = rounds * round_seconds
    names = list(CLASSES)
    shares = np.array([CLASSES[name][0] for name in names])
    kind = np.sort(rng.choice(len(names), devices, p=shares / shares.sum()))
    drifts = np.array(
        [[at * end + rng.uniform(0, max(stagger * end, 1e-9)) for at in drift_at] for _ in range(devices)]
    )
    drifts = drifts.reshape(devices, len(drift_at))

    number = np.repeat(np.arange(1, rounds + 1), devices)
    device = np.tile(np.arange(devices), rounds)
    of = kind[device]
    started = (number - 1) * round_seconds
    settled, compute, transfer, watts = (np.array([CLASSES[n][i] for n in names])[of] for i in (1, 2, 3, 4))
    last = np.zeros(len(number))
    for k in range(len(drift_at)):
        last = np.where(drifts[device, k] <= started, drifts[device, k], last)
    learnt = 1 - np.exp(-(started - last) / (3.0 * round_seconds))
    accuracy = np.where(last > 0, 0.35, 0.15) + (settled - np.where(last > 0, 0.35, 0.15)) * learnt
    samples = np.where(started > 0, rng.poisson(rate, len(number)), 0)
    correct = rng.binomial(samples, accuracy)

    draw = rng.uniform(size=len(number))
    status = np.select(
        [samples == 0, draw < 0.01, draw < 0.05, draw < np.where(of == 0, 0.12, 0.055)],
        ["empty", "refused", "lost", "late"],
        "accepted",
    )
    spread = rng.lognormal(0, 0.4, len(number))
    worked = (samples > 0).astype(float)
    up = np.where(samples > 0, 21_000, 300)
    frame = pl.DataFrame(
        {
            "round": number,
            "device": device,
            "device_class": np.array(names)[of],
            "started_seconds": started.astype(float),
            "arrived_seconds": pl.Series(started + (compute + transfer) * spread).set(
                pl.Series(status == "lost"), None
            ),
            "status": status,
            "reason": pl.Series(status).replace_strict({"refused": "not-finite"}, default=None, return_dtype=pl.String),
            "samples": samples,
            "correct": correct,
            "loss": pl.Series(1.5 - accuracy).set(pl.Series(samples == 0), None),
            "detections": np.zeros(len(number), int),
            "bytes_up": up,
            "bytes_down": np.full(len(number), 21_400),
            "joules": watts * compute * spread * worked + 0.02,
            "compute_seconds": compute * spread * worked,
            "transfer_seconds": transfer * spread,
            "blocks": np.select([samples == 0, of == 0], ["", np.where(number % 2, "0", "2")], "0 2"),
            "peak_bytes": np.select([samples == 0, of == 0], [0, 30_000], 60_000),
        }
    )

    happened = [
        (d, names[kind[d]], t, concepts[k % len(concepts)], bool(rng.uniform() < 0.8))
        for d in range(devices)
        for k, t in enumerate(drifts[d])
    ]
    found = [(d, c, t + rng.gamma(3, 0.7 * round_seconds)) for d, c, t, _, detected in happened if detected]
    alarms = [
        (int(d), names[kind[d]], float(rng.uniform(0.05, 1) * end)) for d in rng.integers(devices, size=devices // 12)
    ]
    events = pl.concat(
        [
            pl.DataFrame(
                [(d, c, t, "drift", concept, detected) for d, c, t, concept, detected in happened],
                schema=EVENT_SCHEMA,
                orient="row",
            ),
            pl.DataFrame(
                [(d, c, t, "detection", None, None) for d, c, t in [*found, *alarms]],
                schema=EVENT_SCHEMA,
                orient="row",
            ),
        ]
    )

    one = pl.col("status")
    per_round = (
        frame.group_by("round", maintain_order=True)
        .agg(
            pl.col("started_seconds").first(),
            pl.len().alias("orders"),
            *[(one == name).sum().alias(name) for name in ("accepted", "refused", "late", "lost", "empty")],
            pl.col("samples", "correct").sum(),
            pl.col("loss").mean(),
            pl.col("bytes_up", "bytes_down", "joules").sum(),
        )
        .with_columns(
            ended_seconds=pl.col("started_seconds") + round_seconds,
            accuracy=pl.when(pl.col("samples") > 0).then(pl.col("correct") / pl.col("samples")),
            drifts=pl.lit(0),
            detections=pl.lit(0),
        )
    )
    total = int(frame["samples"].sum())
    summary: dict[str, object] = {
        "prequential_accuracy": frame["correct"].sum() / total if total else None,
        "final_accuracy": 0.8731,
        "kappa": 0.8123,
        "kappa_t": 0.8055,
        "rounds": rounds,
        "devices": devices,
        "client_rounds": frame.height,
        "virtual_seconds": end,
        "wall_seconds": 41.237,
        "bytes_up": int(frame["bytes_up"].sum()),
        "bytes_down": int(frame["bytes_down"].sum()),
        "joules": float(frame["joules"].sum()),
        **{f"updates_{name}": int(per_round[name].sum()) for name in ("accepted", "refused", "late", "lost")},
        "orders_empty": int(per_round["empty"].sum()),
        "drifts_true": len(happened),
        "drifts_detected": len(found),
        "false_alarms": len(alarms),
        "detection_window_seconds": 300.0,
        "method": "tpsgd",
        "readout": "shared",
        "adaptor": "none",
        "seed": seed,
        "scenario": "digits-rotating",
        "version": "0.1.0",
        "updates_by_block": {"0": 1, "2": 1},
        "backprop_peak_bytes": 240_000,
        "refusals": {"not-finite": 41, "shape": 12, "projection-digest": 3},
    }
    results: dict[str, object] = {
        "title": "Digits that turn",
        "description": "A hundred devices read digits. From a third of the run on, one after another finds "
        "its digits turned by a quarter, and has to learn them anew from what its neighbours send.\n\n"
        "No device ever computes a gradient through the whole network.",
        "summary": summary,
        "rounds": per_round,
        "devices": frame,
        "events": events,
        "scenario_toml": TOML,
    }
    return FleetResults(**{**results, **changes})  # type: ignore[arg-type]


EVENT_SCHEMA = {
    "device": pl.Int64,
    "device_class": pl.String,
    "time_seconds": pl.Float64,
    "kind": pl.String,
    "concept": pl.String,
    "detected": pl.Boolean,
}


class Reader(HTMLParser):
    """Reads a page as far as the tests ask: its elements with their texts, and whether they are balanced."""

    VOID = frozenset({"meta", "br", "hr", "img", "input", "link", "source", "wbr"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.elements: list[tuple[str, dict[str, str | None], str]] = []
        # Not plotly.js, which takes most of the time and has nothing that is ours.
        self.feed(page.replace(get_plotlyjs(), ""))
        self.close()
        assert not self.open, f"never closed: {[tag for tag, _, _ in self.open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.VOID:
            self.elements.append((tag, dict(attrs), ""))
        else:
            self.open.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        opened, attributes, text = self.open.pop()
        assert opened == tag, f"<{opened}> closed by </{tag}>"
        self.elements.append((tag, attributes, "".join(text)))

    def handle_data(self, data: str) -> None:
        for _, _, text in self.open:
            text.append(data)

    def all(self, tag: str, kind: str | None = None) -> list[tuple[dict[str, str | None], str]]:
        """The elements of this tag, and of this class if one is given, in the order in which they end."""
        return [
            (attributes, text)
            for name, attributes, text in self.elements
            if name == tag and (kind is None or kind in (attributes.get("class") or "").split())
        ]

    @property
    def figures(self) -> list[list[dict[str, Any]]]:
        """The views of each figure, as plotly.js gets them."""
        return [json.loads(text) for attributes, text in self.all("script") if attributes.get("type")]


@pytest.fixture(scope="session")
def read() -> Callable[[str], Reader]:
    return Reader


@pytest.fixture(scope="session")
def make() -> Callable[..., FleetResults]:
    return make_results


@pytest.fixture(scope="session")
def fleet() -> FleetResults:
    return make_results()
