"""The map of devices: every cell is the accuracy of its devices in its rounds, blank where there is none."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from fedtp.report.fleet.heatmap import heatmap_part
from fedtp.report.page import Note, Panel


def maps(part):
    assert isinstance(part, Panel)
    return [trace for trace in part.views[""].data if trace.type == "heatmap"]


def test_cells_are_the_accuracies_of_the_devices(make):
    results = make(devices=9, rounds=6)
    shown = 0
    for trace in maps(heatmap_part(results)):
        for row, devices in zip(trace.z, trace.customdata, strict=True):
            own = results.devices.filter(pl.col("device") == int(devices[0])).sort("round")
            accuracy = (own["correct"] / own["samples"]).to_numpy()
            np.testing.assert_allclose(row, accuracy, atol=1e-6)
            shown += 1
    assert shown == 9


def test_devices_without_samples_are_left_blank(make):
    results = make(devices=9, rounds=6)
    assert all(np.isnan(trace.z[:, 0]).all() for trace in maps(heatmap_part(results)))


def test_devices_stand_in_the_order_of_their_first_drift(make):
    results = make(devices=30, rounds=6)
    times = dict(results.drifts.select("device", "time_seconds").iter_rows())
    for trace in maps(heatmap_part(results)):
        order = [times[int(device)] for device in trace.customdata[:, 0]]
        assert order == sorted(order)


@pytest.mark.parametrize("devices", [150, 999])
def test_classes_have_room_for_their_names_and_fill_the_map(make, devices):
    part = heatmap_part(make(devices=devices, rounds=3))
    edges = [trace.y for trace in maps(part)]
    assert edges[0][0] == 0
    assert edges[-1][-1] == pytest.approx(1)
    assert all(last[-1] == pytest.approx(first[0]) for last, first in pairwise(edges))
    assert min(edge[-1] - edge[0] for edge in edges) * (part.height - 120) > 30


def test_many_devices_share_rows_without_losing_a_sample(make):
    results = make(devices=450, rounds=4, rate=40.0)
    part = heatmap_part(results)
    assert "450 devices in" in part.caption
    traces = maps(part)
    assert sum(int(trace.customdata[:, 0].sum()) for trace in traces) == 450
    assert 190 <= sum(len(trace.z) for trace in traces) <= 210


def test_too_many_drifts_are_not_marked(make):
    part = heatmap_part(make(devices=150, rounds=30, drift_at=tuple(i / 20 for i in range(1, 20)), stagger=0.01))
    assert "too many to mark" in part.caption
    assert all(trace.type == "heatmap" for trace in part.views[""].data)


def test_without_samples_there_is_a_note(make):
    assert isinstance(heatmap_part(make(devices=3, rounds=3, rate=0.0)), Note)
