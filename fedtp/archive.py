"""Arrays with a JSON record in one safetensors file that is there as a whole, or was not written.

Nothing in it is code, and nothing is unpickled; a hash of all that it holds tells damage.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as as_bytes

from fedtp.errors import DataError, FedtpError
from fedtp.folder import write_whole

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Archive:
    """A kind of file.

    Parameters
    ----------
    key
        Under which the record stands in the file; it tells the kind from others.
    what
        What such a file holds, as errors call it: "model of fedtp.streaming".
    version
        Of the format; files of later ones are refused.

    Examples
    --------
    >>> import tempfile
    >>> notes = Archive("fedtp.notes", "note", version=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "one.safetensors")
    ...     notes.write(path, {"text": "three"}, {"numbers": np.arange(3)})
    ...     record, arrays = notes.read(path)
    >>> record["text"], arrays["numbers"].tolist()
    ('three', [0, 1, 2])
    """

    key: str
    what: str
    version: int

    def write(self, path: Path, record: dict[str, Any], arrays: Arrays) -> None:
        """Put a file in place as a whole; an earlier one of the same kind is replaced.

        Raises
        ------
        DataError
            If it cannot be written, or something else is there.
        """
        # Arrays may be views, and safetensors writes what lies in memory.
        whole = {name: np.array(array, order="C") for name, array in arrays.items()}
        metadata = self.described({"version": self.version, "fedtp": version("fedtp"), **record}, whole)
        try:
            there = path.exists()
        except (OSError, ValueError) as error:
            raise DataError(f"cannot write {path}: {error}") from None
        if there:
            self._check_replaceable(path)
        try:
            write_whole(path, as_bytes(whole, metadata))
        except FedtpError as error:
            raise DataError(str(error)) from None

    def read(self, path: Path) -> tuple[dict[str, Any], Arrays]:
        """Return what a file holds, if it is whole.

        Raises
        ------
        DataError
            If there is no such file, or it is of another kind, of a later version, or damaged.
        """
        metadata = self._metadata(path)
        record = None
        with suppress(ValueError, RecursionError):
            record = json.loads(metadata[self.key])
        if not isinstance(record, dict) or type(record.get("version")) is not int:
            raise DataError(f"{path} holds a record that is not of a {self.what}")
        if record["version"] > self.version:
            raise DataError(
                f"{path} was written by fedtp {record.get('fedtp')} in format {record['version']}, and this version "
                f"knows formats up to {self.version}: install a later one"
            )
        try:
            with safe_open(path, "np") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError, TypeError) as error:
            raise DataError(f"{path} cannot be read as a safetensors file: {error}") from None
        if record.pop("digest", None) != _digest(record, arrays):
            raise DataError(f"{path} is damaged: it is not what was saved")
        return record, arrays

    def described(self, record: dict[str, Any], arrays: Arrays) -> dict[str, str]:
        """Return the metadata of a file with these arrays and this record, its version included."""
        return {self.key: json.dumps({"digest": _digest(record, arrays), **record}, allow_nan=False)}

    def _metadata(self, path: Path) -> dict[str, str]:
        try:
            with safe_open(path, "np") as file:
                metadata = file.metadata() or {}
        except (SafetensorError, OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as a safetensors file: {error}") from None
        if self.key not in metadata:
            raise DataError(f"{path} is a safetensors file, but holds no {self.what}")
        return metadata

    def _check_replaceable(self, path: Path) -> None:
        try:
            self._metadata(path)
        except DataError:
            raise DataError(
                f"{path} is there already and not a saved {self.what}: choose another name, or remove it"
            ) from None


def _digest(record: dict[str, Any], arrays: Arrays) -> str:
    """Return a hash of all that a file holds."""
    hashed = hashlib.blake2b(json.dumps(record).encode(), digest_size=16)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        hashed.update(f"\n{name} {array.dtype} {array.shape}\n".encode())
        hashed.update(array.tobytes())
    return hashed.hexdigest()
