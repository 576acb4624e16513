"""Rows that cannot be learnt from: kept as they came, with the reason, in case they can be put right."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fedtp.errors import DataError
from fedtp.folder import append_lines

_BYTES, _FILES = 20_000_000, 5


@dataclass(frozen=True)
class BadRow:
    """A row that was left out.

    Parameters
    ----------
    file
        Where it stands.
    offset
        From which byte on.
    reason
        What is wrong with it.
    row
        The row as it was read.
    """

    file: str
    offset: int
    reason: str
    row: str


def put(folder: Path, rows: Sequence[BadRow]) -> None:
    """Append rows to the quarantine; its oldest file goes when there are too many.

    Raises
    ------
    DataError
        If they cannot be written: then they have not been taken.
    """
    if not rows:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"time": time.time(), **asdict(row)}) for row in rows]
        append_lines(folder / "rows.jsonl", lines, most_bytes=_BYTES, files=_FILES)
    except OSError as error:
        raise DataError(f"bad rows cannot be put into {folder}: {error.strerror}") from None
