import os

import numpy as np
import pytest

from fedtp.data import load
from fedtp.errors import DataError

HEADER = "date,day,period,nswprice,nswdemand,vicprice,vicdemand,transfer,class\n"
ROW = "0,2,0.25,0.099,0.5,0,1,0.5,UP\n"


def write(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "electricity.csv").write_text(text)


@pytest.mark.parametrize("subfolder", ["", "Elec2"])
def test_scaling_is_by_published_ranges(tmp_path, subfolder):
    write(tmp_path / subfolder, HEADER + ROW)
    data = load("elec2", path=tmp_path)
    half = np.sqrt(12) / 2
    np.testing.assert_allclose(data.x[0], [-half, -1, -half / 2, 1, 0, -3, half, 0], rtol=1e-5, atol=1e-6)
    assert data.classes[data.y[0]] == "UP"
    assert data.ordered


def test_no_row_depends_on_another(tmp_path):
    write(tmp_path / "short", HEADER + ROW)
    write(tmp_path / "long", HEADER + ROW + "1,7,1,1,1,1,1,1,DOWN\n" * 9)
    assert np.array_equal(load("elec2", path=tmp_path / "short").x, load("elec2", path=tmp_path / "long").x[:1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as a table"),
        ("a,b\n1,2\n", "no column date, day"),
        (HEADER, "damaged: it has no rows"),
        (HEADER + ROW + "0,2,0.25\n", "damaged: row 2"),
        (HEADER + ROW + ROW.replace("UP", "UPWARDS"), "damaged: row 2"),
        (HEADER + ROW.replace("UP", "1"), "damaged: row 1"),
        (HEADER + ROW.replace("0.099", "nan"), "damaged: row 1"),
        (HEADER + ROW.replace("0.099", "cheap"), "cannot be read as a table"),
    ],
)
def test_damaged_file(tmp_path, text, message):
    write(tmp_path, text)
    with pytest.raises(DataError, match=message):
        load("elec2", path=tmp_path)


@pytest.mark.skipif("RIVER_DATA" not in os.environ, reason="RIVER_DATA is not set")
def test_rows_are_those_of_river():
    from river import datasets

    data = load("elec2")
    assert len(data) == 45312
    ranges = np.array([[0, 1], [1, 7], *[[0, 1]] * 6])
    for index, (x, up) in enumerate(datasets.Elec2()):
        if index % 997:
            continue
        values = np.array(list(x.values()))
        assert tuple(x) == data.feature_names
        assert ((ranges[:, 0] <= values) & (values <= ranges[:, 1])).all()
        expected = (values - ranges.mean(axis=1)) / np.where(ranges[:, 1] == 7, 2, 1 / np.sqrt(12))
        expected[[3, 5]] = 2 * np.log10(values[[3, 5]] + 0.001) + 3
        np.testing.assert_allclose(data.x[index], expected, rtol=1e-5, atol=1e-5)
        assert data.y[index] == up
