"""MNIST from its four standard IDX files, and any data set of grey images published in the same form."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedtp.data.dataset import DataSet
from fedtp.data.files import find_folder
from fedtp.errors import DataError

# The mean and the spread of all training pixels, as fractions of 255: the constants everybody uses.
MEAN, SPREAD = 0.1307, 0.3081

CLASSES = 10
PARTS = ("train", "t10k")
UNSIGNED_BYTES = 0x08


def load_mnist(path: str | Path | None = None) -> DataSet:
    """Load the 28x28 digits: 60,000 training images, then the 10,000 of the standard test set.

    Parameters
    ----------
    path
        The folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte``
        and ``t10k-labels-idx1-ubyte``, each with or without ``.gz``. None means the folder that the
        environment variable ``FEDTP_DATA`` names. In both cases its subfolder ``mnist`` will do as well.

    Returns
    -------
    DataSet
        70,000 images with 784 features, scaled by the usual constants (0.1307, 0.3081); its `test_rows` keep
        the standard test set apart.

    Raises
    ------
    DataError
        If a file is missing, truncated, or not what its name promises.

    References
    ----------
    LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998.
    """
    files = [
        f"{part}-{kind}-ubyte{end}" for part in PARTS for kind in ("images-idx3", "labels-idx1") for end in (".gz", "")
    ]
    folder = find_folder(
        "mnist",
        files,
        path=path,
        variable="FEDTP_DATA",
        subfolder="mnist",
        hint="get the four IDX files of MNIST",
    )
    images, labels = zip(*(_read_part(folder, part) for part in PARTS), strict=True)
    shape = images[0].shape[1:]
    if images[1].shape[1:] != shape:
        raise DataError(
            f"the images in {folder} differ in size: {shape} to learn from, {images[1].shape[1:]} to test on"
        )

    pixels = np.concatenate(images).reshape(-1, prod(shape))
    scaled = ((np.arange(256) / 255 - MEAN) / SPREAD).astype(np.float32)
    return DataSet(
        name="mnist",
        x=scaled[pixels],
        y=np.concatenate(labels).astype(np.int64),
        classes=tuple(str(digit) for digit in range(CLASSES)),
        shape=shape,
        feature_names=tuple(f"pixel-{row}-{column}" for row in range(shape[0]) for column in range(shape[1])),
        test_rows=len(labels[1]),
    )


def _read_part(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    image_file = _existing(folder, f"{part}-images-idx3-ubyte")
    label_file = _existing(folder, f"{part}-labels-idx1-ubyte")
    images, labels = read_idx(image_file, dimensions=3), read_idx(label_file, dimensions=1)
    if len(images) != len(labels):
        raise DataError(f"{image_file} holds {len(images)} images, but {label_file} {len(labels)} labels")
    if labels.size and labels.max() >= CLASSES:
        raise DataError(f"{label_file} holds the label {labels.max()}, but digits go from 0 to {CLASSES - 1}")
    return images, labels


def _existing(folder: Path, name: str) -> Path:
    for file in (folder / f"{name}.gz", folder / name):
        if file.is_file():
            return file
    raise DataError(f"{folder} holds files of MNIST, but neither {name}.gz nor {name}: add that file")


def read_idx(file: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes.

    The format: two zero bytes, a byte for the type of the values, a byte for the number of dimensions, the
    size of each dimension as a big-endian 32-bit integer, then the values in row-major order.

    Parameters
    ----------
    file
        The file; one whose name ends in ``.gz`` is unpacked.
    dimensions
        How many dimensions it must have.

    Returns
    -------
    NDArray
        The values, in the shape that the header gives.

    Raises
    ------
    DataError
        If the file cannot be read, or is not exactly such a file: which file, and what is wrong with it.
    """
    try:
        content = file.read_bytes()
        if file.suffix == ".gz":
            content = gzip.decompress(content)
    except EOFError:
        raise DataError(f"{file} is truncated: it ends in the middle of its gzip data") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{file} is not a valid gzip file: {error}") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from None

    start = 4 + 4 * dimensions
    if len(content) < 4 or content[:2] != b"\0\0":
        raise DataError(
            f"{file} is not an IDX file: it starts with {content[:4].hex(' ') or 'nothing'}, not with 00 00"
        )
    if content[2] != UNSIGNED_BYTES:
        raise DataError(f"{file} holds values of IDX type 0x{content[2]:02x}, but unsigned bytes (0x08) are expected")
    if content[3] != dimensions:
        raise DataError(f"{file} has {content[3]} dimensions, but {dimensions} are expected")
    if len(content) < start:
        raise DataError(f"{file} is truncated: its header ends after {len(content)} of {start} bytes")
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4))
    if len(content) != start + prod(shape):
        wrong = "is truncated" if len(content) < start + prod(shape) else "is too long"
        sizes = " x ".join(str(size) for size in shape)
        raise DataError(
            f"{file} {wrong}: its header promises {sizes} = {prod(shape)} values, and {len(content) - start} follow"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
