"""The ways of orders: what they take, finished or broken off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.journeys import Journeys

PART = st.tuples(st.floats(0, 100), st.floats(0, 10))


def journey(*parts: tuple[float, float], back: float = 1.0) -> Journeys:
    """One way: seconds and watts of the latency, the download, the work and the upload."""
    seconds, watts = np.array(parts, float).T[:, :, None]
    return Journeys(seconds, watts, np.array([back]))


WAY = journey((1, 0), (4, 2), (10, 5), (5, 3))


@pytest.mark.parametrize(
    ("stop", "down", "up", "compute", "transfer", "joules"),
    [
        (np.inf, 1, 1, 10, 9, 8 + 50 + 15),
        (20, 1, 1, 10, 9, 8 + 50 + 15),
        (16, 1, 0.2, 10, 5, 8 + 50 + 3),
        (7, 1, 0, 2, 4, 8 + 10),
        (3, 0.5, 0, 0, 2, 4),
        (0.5, 0, 0, 0, 0, 0),
    ],
)
def test_what_is_broken_off_takes_what_it_took_by_then(stop, down, up, compute, transfer, joules) -> None:
    spent = WAY.broken_off(np.array([float(stop)]))
    assert spent.download_share[0] == down
    assert spent.upload_share[0] == pytest.approx(up)
    assert (spent.compute_seconds[0], spent.transfer_seconds[0]) == (compute, transfer)
    assert spent.joules[0] == joules


@pytest.mark.parametrize(("joules", "stop"), [(100, np.inf), (73, np.inf), (70, 19), (33, 10), (4, 3), (0, 1)])
def test_a_device_gets_as_far_as_its_energy(joules: float, stop: float) -> None:
    assert WAY.until_exhausted(np.array([float(joules)]))[0] == stop


@given(parts=st.tuples(PART, PART, PART, PART), share=st.floats(0, 1))
def test_no_way_spends_more_than_a_device_has(parts, share) -> None:
    way = journey(*parts)
    needed = float((way.seconds * way.watts).sum())
    stop = way.until_exhausted(np.array([share * needed]))
    assert way.broken_off(stop).joules[0] == pytest.approx(min(share * needed, needed), abs=1e-6 + 1e-9 * needed)


@given(parts=st.tuples(PART, PART, PART, PART), share=st.floats(0, 1))
def test_devices_give_up_while_they_are_at_it(parts, share) -> None:
    way = journey(*parts)
    stop = way.until_dropped(np.array([share]))[0]
    assert parts[0][0] <= stop * (1 + 1e-12)
    assert stop <= way.device_seconds[0] * (1 + 1e-12)
