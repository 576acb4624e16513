"""The luck of orders: as random as it should be, and nobody else's business."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from simulations.luck import LuckOfOrders


def drawn(luck: LuckOfOrders, devices: object) -> np.ndarray:
    return np.stack(astuple(luck.draw(np.asarray(devices))))


def test_a_devices_luck_depends_on_its_own_orders_only() -> None:
    everyone, few = LuckOfOrders(1, 10), LuckOfOrders(1, 10)
    first, second = drawn(everyone, range(10)), drawn(everyone, range(10))
    np.testing.assert_array_equal(drawn(few, [7, 2]), first[:, [7, 2]])
    np.testing.assert_array_equal(drawn(few, [2]), second[:, [2]])
    np.testing.assert_array_equal(drawn(few, [3, 7])[:, 0], first[:, 3])
    assert len(np.unique(np.concatenate([first, second], 1))) == 100


def test_another_seed_is_another_luck() -> None:
    one, same, other = (drawn(LuckOfOrders(seed, 5), range(5)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not (one == other).any()


def test_numbers_are_spread_as_they_should_be() -> None:
    luck = LuckOfOrders(1, 2000)
    down, up, loss, dropout, moment = np.concatenate([drawn(luck, range(2000)) for _ in range(20)], 1)
    for normal in (down, up):
        assert normal.mean() == pytest.approx(0, abs=0.02)
        assert normal.std() == pytest.approx(1, abs=0.02)
        assert np.mean(np.abs(normal) < 1.96) == pytest.approx(0.95, abs=0.005)
    for uniform in (loss, dropout, moment):
        assert ((uniform >= 0) & (uniform < 1)).all()
        np.testing.assert_allclose(np.histogram(uniform, 10, (0, 1))[0] / 40_000, 0.1, atol=0.006)
    correlation = np.corrcoef([down, up, loss, dropout, moment]) - np.eye(5)
    assert np.abs(correlation).max() < 0.02
    # From one order of a device to its next, and from a device to its neighbour.
    grid = loss.reshape(20, 2000)
    assert abs(np.corrcoef(grid[1:].ravel(), grid[:-1].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(grid[:, 1:].ravel(), grid[:, :-1].ravel())[0, 1]) < 0.02
