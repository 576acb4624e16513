"""CIFAR-10 from an archive of JPEG files, or from its published binary archive."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedtp.data.dataset import DataSet
from fedtp.data.files import find_folder
from fedtp.errors import DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
JPEG, BINARY = "cifar10-jpeg.tar.xz", "cifar-10-binary.tar.gz"
SHAPE = (3, 32, 32)

# The mean and the spread of all training pixels of a colour, as fractions of 255: the constants everybody uses.
MEAN = (0.4914, 0.4822, 0.4465)
SPREAD = (0.2470, 0.2435, 0.2616)

Images = NDArray[np.uint8]
Part = tuple[Images, NDArray[np.int64]]


def load_cifar10(path: str | Path | None = None) -> DataSet:
    """Load the 32x32 colour images: 50,000 training images, then the 10,000 of the standard test set.

    Parameters
    ----------
    path
        The folder with ``cifar10-jpeg.tar.xz`` (members ``train/<class>/<number>.jpg`` and ``test/...``; lossy, so
        compare methods on the same files only) or the published ``cifar-10-binary.tar.gz``; if both are there, the
        latter is read. None means the folder that the environment variable ``FEDTP_DATA`` names. In both cases its
        subfolder ``cifar10`` will do as well.

    Returns
    -------
    DataSet
        Images with 3,072 features, colour by colour, scaled by the usual constants; its `test_rows` keep the
        standard test set apart. JPEG files come in the order of their numbers, a class after the other for each
        number, so that any first part of the rows holds all classes.

    Raises
    ------
    DataError
        If the archive is missing, damaged, or not what its name promises.

    References
    ----------
    Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    hint = "get CIFAR-10 as an archive"
    folder = find_folder("cifar10", (BINARY, JPEG), path=path, variable="FEDTP_DATA", subfolder="cifar10", hint=hint)
    file = folder / (BINARY if (folder / BINARY).is_file() else JPEG)
    try:
        parts = _binary(file) if file.name == BINARY else _jpegs(file)
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise DataError(f"{file} is damaged: {error}; get it anew") from None
    (train, train_labels), (test, test_labels) = parts
    images, labels = np.concatenate([train, test]), np.concatenate([train_labels, test_labels])
    levels = np.arange(256)[:, None] / 255
    scaled = ((levels - MEAN) / SPREAD).astype(np.float32)  # [level, colour]
    x = np.empty(images.shape, np.float32)
    for colour in range(3):
        x[:, colour] = scaled[images[:, colour], colour]
    colours = ("red", "green", "blue")
    return DataSet(
        name="cifar10",
        x=x.reshape(len(x), -1),
        y=labels,
        classes=CLASSES,
        shape=SHAPE,
        feature_names=tuple(f"{c}-{row}-{column}" for c in colours for row in range(32) for column in range(32)),
        test_rows=len(test_labels),
    )


def _jpegs(file: Path) -> tuple[Part, Part]:
    found: dict[str, list[tuple[str, int, Images]]] = {"train": [], "test": []}
    with tarfile.open(file, "r:xz") as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if not member.isfile() or name.suffix != ".jpg":
                continue
            *_, part, label, _ = ("", "", *name.parts)
            if part not in found or label not in CLASSES:
                raise DataError(f"{file} holds {name}, not train/<class>/<number>.jpg or test/<class>/<number>.jpg")
            stream = archive.extractfile(member)
            assert stream is not None
            image = np.asarray(Image.open(io.BytesIO(stream.read())).convert("RGB"))
            if image.shape != (32, 32, 3):
                raise DataError(f"{file}: {name} is {image.shape[1]} by {image.shape[0]} pixels, not 32 by 32")
            found[part].append((name.stem, CLASSES.index(label), image))
    train, test = (_ordered(file, part, found[part]) for part in ("train", "test"))
    return train, test


def _ordered(file: Path, part: str, found: list[tuple[str, int, Images]]) -> Part:
    if not found:
        raise DataError(f"{file} holds no images to {'learn from' if part == 'train' else 'test on'}")
    found.sort(key=lambda image: (len(image[0]), image[0], image[1]))
    images = np.stack([image for _, _, image in found]).transpose(0, 3, 1, 2)
    return images, np.array([label for _, label, _ in found], np.int64)


def _binary(file: Path) -> tuple[Part, Part]:
    batches: dict[str, Images] = {}
    with tarfile.open(file, "r:gz") as archive:
        for member in archive:
            name = PurePosixPath(member.name).name
            if name.endswith(".bin"):
                stream = archive.extractfile(member)
                assert stream is not None
                batches[name] = np.frombuffer(stream.read(), np.uint8).reshape(-1, 1 + 3072)
    names = sorted(name for name in batches if name.startswith("data_batch_"))
    if not names or "test_batch.bin" not in batches:
        raise DataError(f"{file} does not hold data_batch_1.bin to data_batch_5.bin and test_batch.bin")
    train, test = np.concatenate([batches[name] for name in names]), batches["test_batch.bin"]
    if max(train[:, 0].max(), test[:, 0].max()) >= len(CLASSES):
        raise DataError(f"{file} is damaged: it holds labels beyond 9; get it anew")
    return _rows(train), _rows(test)


def _rows(batch: Images) -> Part:
    return batch[:, 1:].reshape(-1, *SHAPE), batch[:, 0].astype(np.int64)
