"""Rows that cannot be learnt from: kept as they came, with the reason, in case they can be put right."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fedtp.errors import DataError

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
    path = folder / "rows.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > _BYTES:
            for number in range(_FILES - 1, 0, -1):
                older = folder / f"rows.jsonl.{number}"
                if older.exists():
                    older.replace(folder / f"rows.jsonl.{number + 1}")
            path.replace(folder / "rows.jsonl.1")
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"time": time.time(), **asdict(row)}) + "\n" for row in rows)
    except OSError as error:
        raise DataError(f"bad rows cannot be put into {folder}: {error.strerror}") from None
