"""A folder of CSV and JSON-lines files that are appended to, as a stream."""

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from clients.sources.quarantine import BadRow
from fedtp.data.schema import Schema
from fedtp.data.stream import Samples
from fedtp.errors import DataError

# Flower shows what its own logger and those below it are told.
log = logging.getLogger("flwr.fedtp")

#: A line longer than this is no row.
_LONGEST = 10_000_000
_SUFFIXES = (".csv", ".jsonl", ".ndjson")
_LONGEST_KEPT = 1_000_000
#: So much of bad rows is held in memory at most, bytes: what comes behind them waits for the next order.
_MOST_BAD = 20_000_000
#: So many of the files that have been read are known again.
_KNOWN = 100


class DirectoryStream:
    """Rows in the files of a folder, in the order of the files' names.

    Files only grow at their ends, and later files have later names: ``2026-11-25.csv``, say. A file that has been read
    to its end is left for the next one when there is one; a last line without its end waits. So the folder is the
    buffer: what is not taken yet stays there, and files that have been read may be removed. What comes too late, into a
    file before the one that is being read, is not read; that is told among the bad rows.

    Parameters
    ----------
    folder
        Where the files are: ``.csv`` with a line of names on top, ``.jsonl`` or ``.ndjson`` with an object a line.
    schema
        The columns.
    limit
        How many samples are taken at a time at most; 0: all.

    Attributes
    ----------
    position
        How many samples have been taken. It is for counting; `cursor` says where the stream goes on.
    cursor
        The file that is being read, the byte to go on from, its columns, and how long the files before it are; empty
        at the beginning.
    bad
        Rows that were left out by the last `take`.
    """

    def __init__(self, folder: Path, schema: Schema, limit: int = 0) -> None:
        self.position = 0
        self.cursor: dict[str, Any] = {}
        self.bad: list[BadRow] = []
        self._folder = folder
        self._schema = schema
        self._limit = limit
        self._bad_bytes = 0

    def take(self, now: float) -> Samples:
        """Return the samples that are there and were not taken yet, as having arrived at `now`, s.

        Raises
        ------
        DataError
            If the folder cannot be read.
        """
        self.bad, self._bad_bytes = [], 0
        inputs, labels = [], []
        for x, y in self._rows():
            inputs.append(x)
            labels.append(y)
            if len(inputs) == self._limit:
                break
        self.position += len(inputs)
        known = [label is not None for label in labels]
        return Samples(
            x=np.array(inputs, np.float32).reshape(-1, len(self._schema.features)),
            y=np.array([label or 0 for label in labels], np.int64),
            seconds=np.full(len(inputs), now),
            label_seconds=None if all(known) else np.where(known, now, np.inf),
        )

    def _rows(self) -> Iterator[tuple[Any, int | None]]:
        """Give parsed rows, with the cursor behind each."""
        names, sizes = self._names()
        for name in names:
            if name != self.cursor.get("file"):
                left = {self.cursor["file"]: self.cursor["offset"]} if self.cursor else {}
                self.cursor = {"file": name, "offset": 0, "columns": None, "before": {**_before(name, sizes), **left}}
            try:
                with (self._folder / name).open("rb") as file:
                    self._find_place(file, name)
                    while line := file.readline(_LONGEST):
                        whole = line.endswith(b"\n")
                        while not whole and len(line) >= _LONGEST and (more := file.readline(_LONGEST)):
                            whole = more.endswith(b"\n")
                        # Of a file that another one follows, the last line has its end.
                        if not whole and name == names[-1]:
                            break
                        offset, self.cursor["offset"] = self.cursor["offset"], file.tell()
                        found = self._parse(name, offset, line)
                        if found is not None:
                            yield found
                        if self._bad_bytes > _MOST_BAD:
                            return
            except OSError as error:
                raise DataError(f"{self._folder / name} cannot be read: {error.strerror}") from None

    def _names(self) -> tuple[list[str], dict[str, int]]:
        """Return the files to read, the one that is being read and later ones, and the sizes of all."""
        sizes: dict[str, int] = {}
        try:
            for path in self._folder.iterdir():
                if path.suffix.lower() in _SUFFIXES:
                    with suppress(FileNotFoundError):  # it has just been removed
                        sizes[path.name] = path.stat().st_size
        except OSError as error:
            raise DataError(f"{self._folder} cannot be read: {error.strerror}; put the device's files there") from None
        reading = self.cursor.get("file", "")
        self._tell_late(reading, sizes)
        return sorted(name for name in sizes if name >= reading), sizes

    def _tell_late(self, reading: str, sizes: Mapping[str, int]) -> None:
        """Tell of files before the one that is being read that are new, or have grown: nobody reads that."""
        known: dict[str, int] | None = self.cursor.get("before")
        if known is None:
            return
        there = _before(reading, sizes)
        for name, size in there.items():
            all_known = len(known) < _KNOWN or name > min(known)
            before = known.get(name, 0 if all_known else size)
            if size > before:
                reason = f"it comes too late, since {reading} is being read: give what is new a later name"
                self._leave_out(BadRow(name, before, reason, ""))
        self.cursor["before"] = there

    def _leave_out(self, row: BadRow) -> None:
        self.bad.append(row)
        self._bad_bytes += len(row.row) + 200

    def _find_place(self, file: Any, name: str) -> None:
        size, inode = file.seek(0, 2), os.fstat(file.fileno()).st_ino
        if size < self.cursor["offset"] or self.cursor.setdefault("inode", inode) != inode:
            self._leave_out(BadRow(name, self.cursor["offset"], "it is another file now, and is read anew", ""))
            self.cursor |= {"offset": 0, "columns": None, "inode": inode}
        file.seek(self.cursor["offset"])

    def _parse(self, name: str, offset: int, line: bytes) -> tuple[Any, int | None] | None:
        try:
            if len(line) >= _LONGEST:
                raise DataError("the line is far too long to be a row")
            text = line.decode("utf-8-sig" if offset == 0 else "utf-8").strip("\r\n")
            if not text.strip():
                return None
            row = self._row(name, text)
            return None if row is None else self._schema.parse(row)
        except (DataError, ValueError, RecursionError, csv.Error) as error:
            shown = line[:_LONGEST_KEPT].decode("utf-8", "backslashreplace").rstrip("\r\n")
            self._leave_out(BadRow(name, offset, " ".join(str(error).split()), shown))
            return None

    def _row(self, name: str, text: str) -> Mapping[str, object] | None:
        """Return a line as a row; None of a line of names."""
        if not name.lower().endswith(".csv"):
            row = json.loads(text)
            if not isinstance(row, dict):
                raise DataError("the line is not a JSON object")
            return row
        cells = next(csv.reader([text], strict=True))
        if self.cursor["columns"] is None:
            missing = [one for one in self._schema.features if one not in cells]
            if missing:
                # Without its names no row of the file can be read; each says so.
                self.cursor["columns"] = []
                raise DataError(f"the first line lacks the columns {', '.join(missing[:5])}")
            if self._schema.label not in cells:
                log.warning("%s has no column %r: nothing can be learnt from its rows", name, self._schema.label)
            self.cursor["columns"] = cells
            return None
        columns = self.cursor["columns"]
        if len(cells) != len(columns):
            raise DataError(f"the line has {len(cells)} cells, and the first one names {len(columns)} columns")
        return dict(zip(columns, cells, strict=True))


def _before(name: str, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the sizes of the files before one, of the latest of them."""
    return {one: sizes[one] for one in sorted(one for one in sizes if one < name)[-_KNOWN:]}
