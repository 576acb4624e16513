"""CIFAR-10 and the spoken digits, from small archives made here, and from the real ones where they are."""

import io
import os
import tarfile
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedtp.data import load
from fedtp.data.cifar10 import CLASSES
from fedtp.data.concepts import Rotation, apply
from fedtp.data.spoken_digits import log_mel
from fedtp.errors import DataError

DATA = Path(os.environ.get("FEDTP_DATA", "nowhere"))


def jpeg(red, size=(32, 32)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (red, 0, 255)).save(buffer, "JPEG", quality=100)
    return buffer.getvalue()


def archive(file, members, mode="w:xz"):
    with tarfile.open(file, mode) as out:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))


def test_jpegs_come_by_their_numbers(tmp_path):
    members = {f"cifar10/train/{label}/{n:04}.jpg": jpeg(25 * n) for n in (2, 1) for label in CLASSES}
    archive(tmp_path / "cifar10-jpeg.tar.xz", members | {"cifar10/test/ship/0001.jpg": jpeg(255)})
    data = load("cifar10", path=tmp_path)
    assert (len(data), data.test_rows, data.shape, data.is_image) == (21, 1, (3, 32, 32), True)
    assert data.y.tolist() == [*range(10), *range(10), CLASSES.index("ship")]
    red, green, blue = (data.x.reshape(21, 3, 1024).mean(-1)[:, colour] for colour in range(3))
    np.testing.assert_allclose(red[:10], (25 / 255 - 0.4914) / 0.2470, atol=0.05)
    np.testing.assert_allclose(red[20], (1 - 0.4914) / 0.2470, atol=0.05)
    np.testing.assert_allclose(green, -0.4822 / 0.2435, atol=0.05)
    np.testing.assert_allclose(blue, (1 - 0.4465) / 0.2616, atol=0.05)


def test_the_published_binary_archive(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3073), dtype=np.uint8)
    pixels[:, 0] = [3, 9, 0, 5]
    members = {
        "cifar-10-batches-bin/data_batch_2.bin": pixels[2:3],
        "cifar-10-batches-bin/data_batch_1.bin": pixels[:2],
    }
    members["cifar-10-batches-bin/test_batch.bin"] = pixels[3:]
    archive(tmp_path / "cifar-10-binary.tar.gz", {n: v.tobytes() for n, v in members.items()}, "w:gz")
    data = load("cifar10", path=tmp_path)
    assert (data.y.tolist(), data.test_rows) == ([3, 9, 0, 5], 1)
    np.testing.assert_allclose(data.x[1, 1024], (pixels[1, 1025] / 255 - 0.4822) / 0.2435, rtol=1e-5)


def test_coloured_images_turn_colour_by_colour(tmp_path):
    members = {"train/cat/1.jpg": jpeg(9), "test/dog/1.jpg": jpeg(9)}
    archive(tmp_path / "cifar10-jpeg.tar.xz", members)
    data = load("cifar10", path=tmp_path)
    data.x[:] = np.arange(3072)
    turned = apply(Rotation(degrees=90), data)
    wanted = np.rot90(data.x.reshape(2, 3, 32, 32), 1, (2, 3)).reshape(2, -1)
    np.testing.assert_array_equal(turned.x, wanted)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"train/cat/1.jpg": b"no picture", "test/cat/1.jpg": jpeg(1)}, "is damaged"),
        ({"train/cat/1.jpg": jpeg(1, (8, 9)), "test/cat/1.jpg": jpeg(1)}, "8 by 9 pixels, not 32 by 32"),
        ({"train/cow/1.jpg": jpeg(1)}, "holds train/cow/1.jpg, not train/<class>"),
        ({"train/cat/1.jpg": jpeg(1)}, "no images to test on"),
    ],
)
def test_archives_of_images_that_cannot_be(tmp_path, members, message):
    archive(tmp_path / "cifar10-jpeg.tar.xz", members)
    with pytest.raises(DataError, match=message):
        load("cifar10", path=tmp_path)


@pytest.mark.parametrize("name", ["cifar10-jpeg.tar.xz", "cifar-10-binary.tar.gz"])
def test_a_truncated_archive(tmp_path, name):
    mode = "w:xz" if name.endswith("xz") else "w:gz"
    archive(tmp_path / name, {"train/cat/1.jpg": os.urandom(5000)}, mode)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:3000])
    with pytest.raises(DataError, match="is damaged"):
        load("cifar10", path=tmp_path)


def sound(seconds=0.5, hertz=440.0, rate=8000, channels=1):
    buffer = io.BytesIO()
    signal = 20000 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)
    signal += np.random.default_rng(0).normal(scale=1000, size=signal.shape)
    with wave.open(buffer, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(np.repeat(signal.astype("<i2"), channels).tobytes())
    return buffer.getvalue()


def recordings(folder, members):
    with zipfile.ZipFile(folder / "free-spoken-digit-dataset.zip", "w") as out:
        for name, content in members.items():
            out.writestr(name, content)


def test_recordings_become_sequences(tmp_path):
    members = {
        f"x/recordings/{digit}_ann_{index}.wav": sound(0.1 * (digit + 1)) for digit in (0, 4) for index in (0, 5)
    }
    recordings(tmp_path, members | {"x/recordings/4_bob_7.wav": sound(2.0), "x/README.md": b""})
    data = load("spoken-digits", path=tmp_path)
    assert (len(data), data.test_rows, data.shape, data.is_image) == (5, 2, (100, 40), False)
    assert data.y.tolist() == [0, 4, 4, 0, 4]
    assert data.groups == ("ann", "ann", "bob", "ann", "ann")
    assert data.lengths.tolist() == [8, 48, 100, 8, 48]  # frames of 25 ms every 10 ms
    frames = data.x.reshape(5, 100, 40)
    assert not frames[0, 8:].any()
    learnt = np.concatenate([frames[row, : data.lengths[row]] for row in range(3)])
    np.testing.assert_allclose(learnt.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(learnt.std(0), 1, atol=1e-3)
    train, test = data.split()
    assert (len(train), len(test), train.lengths.max(), set(test.groups)) == (3, 2, 100, {"ann"})


def test_a_tone_is_loudest_in_its_band():
    loudest = [
        int(log_mel(np.sin(2 * np.pi * hertz * np.arange(8000) / 8000)).mean(0).argmax()) for hertz in (200, 1000, 3500)
    ]
    mel = lambda hertz: 2595 * np.log10(1 + hertz / 700)  # noqa: E731
    centres = np.linspace(mel(20), mel(4000), 42)[1:-1]
    assert loudest == [int(np.abs(centres - mel(hertz)).argmin()) for hertz in (200, 1000, 3500)]
    assert log_mel(np.zeros(3)).shape == (1, 40)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"recordings/1_ann_0.wav": sound(), "recordings/1_ann_5.wav": b"RIFF"}, "1_ann_5.wav is damaged"),
        (
            {"recordings/1_ann_0.wav": sound(rate=16000), "recordings/1_ann_5.wav": sound()},
            "16000 Hz, 1 channels, 16 bits",
        ),
        ({"recordings/1_ann_0.wav": sound()}, "to learn from and to test on"),
        ({}, "holds no recordings"),
    ],
)
def test_recordings_that_cannot_be(tmp_path, members, message):
    recordings(tmp_path, members)
    with pytest.raises(DataError, match=message):
        load("spoken-digits", path=tmp_path)


def test_no_zip_archive(tmp_path):
    (tmp_path / "free-spoken-digit-dataset.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="is damaged"):
        load("spoken-digits", path=tmp_path)


@pytest.mark.skipif(not (DATA / "fsdd").is_dir(), reason="FEDTP_DATA names no folder with fsdd")
def test_the_real_spoken_digits():
    data = load("spoken-digits")
    assert (len(data), data.test_rows) == (3000, 300)
    assert np.bincount(data.y).tolist() == [300] * 10
    assert len(set(data.groups)) == 6


@pytest.mark.skipif(not (DATA / "cifar10").is_dir(), reason="FEDTP_DATA names no folder with cifar10")
def test_the_real_cifar10():
    data = load("cifar10")
    assert (len(data), data.test_rows) == (60_000, 10_000)
    assert np.bincount(data.y[:50_000]).tolist() == [5000] * 10
    assert abs(data.x[:50_000].mean()) < 0.01
    assert abs(data.x[:50_000].std() - 1) < 0.02
