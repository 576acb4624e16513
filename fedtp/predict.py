"""The command ``fedtp predict``: a federation's model scores rows as they come."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, TextIO

import typer

from fedtp.errors import DataError, FedtpError

if TYPE_CHECKING:
    from fedtp.model_file import SavedModel

_CHUNK = 1 << 20
_LONGEST = 10_000_000

Row = Mapping[str, object]


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", show_default=False, help="server/model.safetensors")],
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", show_default=False, help="Standard input by default.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write there instead of to standard output.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write an object a line instead of CSV.")] = False,
    keep: Annotated[str, typer.Option(help="Columns of the rows to write as well, with commas between.")] = "",
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first row that cannot be used.")] = False,
) -> None:
    """Predict the class of rows, CSV with a line of names or JSON lines, by a model that a federation exported.

    Rows are answered as they come. One that cannot be used is told of on standard error, and the exit code is 1 then.
    Where the rows hold labels, standard error says at the end how many were right.
    """
    from fedtp.model_file import load_model

    saved = load_model(model)
    kept = [name.strip() for name in keep.split(",") if name.strip()]
    with ExitStack() as stack:
        try:
            target: TextIO = sys.stdout if out is None else stack.enter_context(out.open("w", encoding="utf-8"))
            sources: list[BinaryIO] = [stack.enter_context(path.open("rb")) for path in files or ()] or [
                sys.stdin.buffer
            ]
        except OSError as error:
            raise FedtpError(f"{error.filename} cannot be opened: {error.strerror}") from None
        names = [str(path) for path in files or ()] or ["standard input"]
        scoring = _Scoring(saved, _writer(target, kept, as_json), target.flush, kept, strict)
        for name, source in zip(names, sources, strict=True):
            scoring.score(name, source)
    if scoring.labelled:
        share = scoring.right / scoring.labelled
        typer.echo(f"{scoring.right} of {scoring.labelled} rows with labels are right: {share:.4f}", err=True)
    if scoring.bad:
        typer.echo(f"{scoring.bad} rows could not be used", err=True)
        raise typer.Exit(1)


class _Scoring:
    """Scores rows, a chunk of input at a time."""

    def __init__(
        self,
        saved: SavedModel,
        write: Callable[[Row], object],
        flush: Callable[[], None],
        kept: list[str],
        strict: bool,
    ) -> None:
        self.bad = self.labelled = self.right = 0
        self._saved = saved
        self._write = write
        self._flush = flush
        self._kept = kept
        self._strict = strict

    def score(self, name: str, source: BinaryIO) -> None:
        """Answer all rows of a file."""
        reader = _Reader()
        for lines in _chunks(source):
            self._answer([found for number, line in lines if (found := self._parse(name, number, line, reader))])
            self._flush()

    def _parse(self, name: str, number: int, line: bytes, reader: _Reader) -> tuple[Row, object, int | None] | None:
        try:
            row = reader.row(line)
            return None if row is None else (row, *self._saved.schema.parse(row))
        except (DataError, ValueError, RecursionError, csv.Error) as error:
            said = f"{name}, line {number}: {' '.join(str(error).split())}"
            if self._strict:
                raise DataError(said) from None
            self.bad += 1
            typer.echo(said, err=True)
            return None

    def _answer(self, rows: list[tuple[Row, object, int | None]]) -> None:
        import numpy as np

        if not rows:
            return
        found = self._saved.probabilities(np.array([x for _, x, _ in rows], np.float32))
        best = found.argmax(axis=1)
        for (row, _, label), index, chances in zip(rows, best.tolist(), found, strict=True):
            kept = {column: row.get(column, "") for column in self._kept}
            answer = {"prediction": self._saved.schema.classes[index], "probability": round(float(chances[index]), 6)}
            self._write({**kept, **answer})
            if label is not None:
                self.labelled += 1
                self.right += label == index


class _Reader:
    """Lines as rows; the first one tells whether they are CSV or JSON."""

    def __init__(self) -> None:
        self._columns: list[str] | None = None
        self._json: bool | None = None

    def row(self, line: bytes) -> Row | None:
        """Return a line as a row; None of an empty one and of a line of names."""
        text = line.decode("utf-8-sig" if self._json is None else "utf-8").strip("\r\n")
        if not text.strip():
            return None
        if self._json is None:
            self._json = text.lstrip().startswith("{")
        if self._json:
            found = json.loads(text)
            if not isinstance(found, dict):
                raise DataError("the line is not a JSON object")
            return found
        cells = next(csv.reader([text], strict=True))
        if self._columns is None:
            self._columns = cells
            return None
        if len(cells) != len(self._columns):
            raise DataError(f"the line has {len(cells)} cells, and the first one names {len(self._columns)} columns")
        return dict(zip(self._columns, cells, strict=True))


def _chunks(source: BinaryIO) -> Iterator[list[tuple[int, bytes]]]:
    """Give whole lines with their numbers, all that are there at a time: who waits for an answer gets it at once."""
    number, left = 0, b""
    descriptor = source.fileno()
    while True:
        chunk = os.read(descriptor, _CHUNK)
        *lines, left = (left + chunk).split(b"\n")
        if not chunk and left:
            lines, left = [left], b""
        if len(left) > _LONGEST:
            raise DataError(f"line {number + len(lines) + 1} is too long to be a row")
        yield [(number + index, line) for index, line in enumerate(lines, 1)]
        number += len(lines)
        if not chunk:
            return


def _writer(target: TextIO, kept: list[str], as_json: bool) -> Callable[[Row], object]:
    """Return what writes an answer."""
    if as_json:
        return lambda answer: target.write(json.dumps(answer) + "\n")
    writer = csv.DictWriter(target, [*kept, "prediction", "probability"], lineterminator="\n")
    writer.writeheader()
    return writer.writerow
