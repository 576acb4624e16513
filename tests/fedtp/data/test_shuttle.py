import numpy as np
import pytest
from river import datasets

from fedtp.data import load


@pytest.fixture(scope="module")
def shuttle():
    return load("shuttle")


def test_rows_are_those_of_river(shuttle):
    rows = [(list(x.values()), y) for x, y in datasets.Shuttle().take(2000)]
    values = np.array([x for x, _ in rows], dtype=float)
    expected = np.clip((values - values[:1000].mean(axis=0)) / values[:1000].std(axis=0), -10, 10)
    np.testing.assert_allclose(shuttle.x[:2000], expected, rtol=1e-5, atol=1e-6)
    assert shuttle.y[:2000].tolist() == [y for _, y in rows]


def test_one_class_is_rare(shuttle):
    assert len(shuttle) == 49097
    assert np.count_nonzero(shuttle.y) == 3511
    assert shuttle.classes == ("normal", "anomaly")
    assert np.isfinite(shuttle.x).all()


def test_order_means_nothing(shuttle):
    """Published shuffled: a row tells nothing of the next."""
    for column in np.clip(shuttle.x, -3, 3).T:
        assert abs(np.corrcoef(column[1:], column[:-1])[0, 1]) < 0.02
        assert abs(np.corrcoef(column, np.arange(len(column)))[0, 1]) < 0.02
    assert not shuttle.ordered
