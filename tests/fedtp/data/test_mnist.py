import contextlib
import gzip
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtp.data import load
from fedtp.data.mnist import read_idx
from fedtp.errors import DataError


def idx(values, kind=8):
    values = np.asarray(values, dtype=np.uint8)
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, kind, values.ndim]) + sizes + values.tobytes()


def write(folder, compress=False, **changes):
    """Write a data set of 3 + 2 images of 2x3 pixels, with some files replaced."""
    images = np.arange(30, dtype=np.uint8).reshape(5, 2, 3) * 8
    files = {
        "train-images-idx3-ubyte": idx(images[:3]),
        "train-labels-idx1-ubyte": idx([7, 0, 1]),
        "t10k-images-idx3-ubyte": idx(images[3:]),
        "t10k-labels-idx1-ubyte": idx([9, 2]),
    }
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        content = changes.get(name.split("-idx")[0].replace("-", "_"), content)
        if content is not None:
            (folder / (name + ".gz" * compress)).write_bytes(gzip.compress(content) if compress else content)
    return images


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("place", ["path", "path/mnist", "environment"])
def test_both_parts_are_read_in_order(tmp_path, monkeypatch, compress, place):
    images = write(tmp_path / "mnist", compress)
    monkeypatch.setenv("FEDTP_DATA", str(tmp_path))
    path = {"path": tmp_path / "mnist", "path/mnist": tmp_path, "environment": None}[place]
    data = load("mnist", path=path)
    np.testing.assert_allclose(data.x, (images.reshape(5, 6) / 255 - 0.1307) / 0.3081, rtol=1e-5, atol=1e-6)
    assert data.y.tolist() == [7, 0, 1, 9, 2]
    assert data.shape == (2, 3)
    train, test = data.split()
    assert set(train.y) == {7, 0, 1}
    assert set(test.y) == {9, 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": b"PNG!"}, "train-images.* is not an IDX file: it starts with 50 4e 47 21"),
        ({"train_images": b""}, "starts with nothing"),
        ({"train_images": idx(np.zeros((3, 2, 3)), kind=0x0D)}, "IDX type 0x0d"),
        ({"train_labels": idx(np.zeros((3, 1)))}, "train-labels.* has 2 dimensions, but 1 are expected"),
        ({"train_labels": idx([7, 0, 1])[:6]}, "truncated: its header ends after 6 of 8 bytes"),
        (
            {"t10k_images": idx(np.zeros((2, 2, 3)))[:-1]},
            r"t10k-images.* is truncated.* 2 x 2 x 3 = 12 values, and 11",
        ),
        ({"t10k_images": idx(np.zeros((2, 2, 3))) + b"0"}, "t10k-images.* is too long"),
        ({"t10k_labels": idx([9])}, "holds 2 images, but .* 1 labels"),
        ({"t10k_labels": idx([9, 10])}, "the label 10"),
        ({"t10k_labels": None}, "neither t10k-labels-idx1-ubyte.gz nor t10k-labels-idx1-ubyte"),
        ({"t10k_images": idx(np.zeros((2, 3, 2)))}, "differ in size"),
    ],
)
def test_damaged_files_are_named(tmp_path, changes, message):
    write(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        load("mnist", path=tmp_path)


def test_damaged_gzip_is_named(tmp_path):
    write(tmp_path, compress=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    content = file.read_bytes()
    file.write_bytes(content[:-12])
    with pytest.raises(DataError, match=r"train-images.*gz is truncated"):
        load("mnist", path=tmp_path)
    file.write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=r"train-images.*gz is not a valid gzip file"):
        load("mnist", path=tmp_path)


@given(st.binary(max_size=40))
def test_any_bytes_give_an_array_or_a_clear_error(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "bytes-ubyte"
    file.write_bytes(content)
    with contextlib.suppress(DataError):
        assert idx(read_idx(file, dimensions=1)) == content


@pytest.mark.skipif("FEDTP_DATA" not in os.environ, reason="FEDTP_DATA is not set")
def test_the_real_files():
    data = load("mnist")
    assert data.x.shape == (70000, 784)
    assert data.x[:60000].mean() == pytest.approx(0, abs=1e-3)
    assert data.x[:60000].std() == pytest.approx(1, abs=1e-3)
    assert data.y[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.y[60000:60005].tolist() == [7, 2, 1, 0, 4]
    assert data.test_rows == 10000
