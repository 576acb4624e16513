"""CSV files as streams: read twice, once to learn what is in them, and never held in memory."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedtp.errors import DataError
from fedtp.streaming.studies.source import Sample, Source

#: What stands for a value that is not there. In small letters "none" is left to those who mean it.
MISSING = frozenset({"", "?", "NA", "N/A", "na", "n/a", "NaN", "nan", "NULL", "null", "None"})

#: A text column becomes one feature for each of its values, so they must not be too many.
MOST_VALUES = 1_000
MOST_CLASSES = 100


def open_csv(
    path: str | Path, target: str, *, text: Sequence[str] = (), drop: Sequence[str] = (), separator: str = ","
) -> Source:
    r"""Open a CSV file with a header as a stream of its rows, in their order.

    A column of numbers is a feature. A column with anything else in it is text, and becomes a feature
    ``column=value`` for each of its values, which is 1 in the rows that have the value and else 0. A feature whose
    value is missing is left out of that row's sample. Labels that are whole numbers are taken as such, others as text.

    Parameters
    ----------
    path
        The file, in UTF-8.
    target
        The column with the label.
    text
        Columns of numbers that are names of something, and to be taken as text.
    drop
        Columns to leave out.
    separator
        The character between two fields.

    Raises
    ------
    DataError
        If the file cannot be read; a column does not exist; a row has more or fewer fields than the header; a label is
        missing; a number is infinite; a text column has more than 1,000 different values; or the target has only one
        value, or so many that it is no class. Where it is a row's fault, with its line.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "weather.csv")
    ...     _ = file.write_text("sky,warmth,rain\nclear,21.5,no\ngrey,,yes\n")
    ...     list(open_csv(file, "rain").samples(seed=1))
    [({'sky=clear': 1.0, 'sky=grey': 0.0, 'warmth': 21.5}, 'no'), ({'sky=clear': 0.0, 'sky=grey': 1.0}, 'yes')]
    """
    path = Path(path)
    columns, length = _scan(path, target, text, drop, separator)
    labels = columns[target]
    features = [column for column in columns.values() if column is not labels]
    whole = all(_whole(value) for value in labels.values)

    def draw(_: int) -> Iterator[Sample]:
        for _line, fields in _rows(path, separator):
            x: dict[str, Any] = {}
            for column in features:
                x.update(column.features(fields[column.index]))
            label = fields[labels.index]
            yield x, int(float(label)) if whole else label

    return Source(
        path.stem,
        draw,
        length,
        title=f"{path.name}, target {target}",
        binary=whole and {int(float(value)) for value in labels.values} == {0, 1},
    )


@dataclass
class _Column:
    """What is known of a column."""

    name: str
    index: int
    declared_text: bool = False
    values: dict[str, None] = field(default_factory=dict)  # a set in the order of the file
    first_text: tuple[int, str] | None = None
    first_infinite: int | None = None

    @property
    def is_text(self) -> bool:
        return self.declared_text or self.first_text is not None

    def see(self, line: int, value: str) -> None:
        if len(self.values) <= MOST_VALUES:
            self.values[value] = None
        if self.first_text is None:
            number = _number(value)
            if number is None:
                self.first_text = line, value
            elif self.first_infinite is None and math.isinf(number):
                self.first_infinite = line

    def features(self, value: str) -> dict[str, float]:
        if _missing(value):
            return {}
        if self.is_text:
            return {f"{self.name}={known}": float(known == value) for known in self.values}
        return {self.name: float(value)}


def _scan(
    path: Path, target: str, text: Sequence[str], drop: Sequence[str], separator: str
) -> tuple[dict[str, _Column], int]:
    """Read the whole file once: its columns but for those dropped, by name, and how many rows it has."""
    header = _header(path, separator)
    for what, wanted in (("target", [target]), ("text", text), ("drop", drop)):
        for name in wanted:
            if name not in header:
                raise DataError(f"{path} has no column {name!r} ({what}); it has: {', '.join(header)}{_hint(header)}")
    if target in drop:
        raise DataError(f"{path}: the target {target!r} cannot be dropped")
    columns = {
        name: _Column(name, index, declared_text=name in text) for index, name in enumerate(header) if name not in drop
    }
    if len(columns) < 2:
        raise DataError(f"{path} has no column to learn from beside the target {target!r}{_hint(header)}")
    length = 0
    for line, fields in _rows(path, separator):
        length += 1
        for column in columns.values():
            value = fields[column.index]
            if not _missing(value):
                column.see(line, value)
            elif column.name == target:
                raise DataError(
                    f"{path}, line {line}: the target {target!r} is missing; every row needs a label, or has to go"
                )
    if not length:
        raise DataError(f"{path} has no rows below its header")
    for column in columns.values():
        if column.name == target:
            _check_target(path, column)
        else:
            _check_feature(path, column)
    return columns, length


def _check_target(path: Path, column: _Column) -> None:
    count = len(column.values)
    if count == 1:
        raise DataError(f"{path}: the target {column.name!r} has the same value in every row, so nothing can be learnt")
    fractions = not column.is_text and not all(_whole(value) for value in column.values)
    if count > MOST_CLASSES or (fractions and count > 20):
        many = f"more than {MOST_VALUES:,}" if count > MOST_VALUES else f"{count:,}"
        raise DataError(
            f"{path}: the target {column.name!r} has {many} different values, which is a quantity or a name and no "
            f"class; choose a column of at most {MOST_CLASSES} classes, or sort the values into some"
        )


def _check_feature(path: Path, column: _Column) -> None:
    if column.is_text and len(column.values) > MOST_VALUES:
        line, value = column.first_text or (0, "")
        why = f"as text, since line {line} has {value!r}," if line else "as text"
        raise DataError(
            f"{path}: column {column.name!r}, taken {why} has more than {MOST_VALUES:,} different values; drop it, or "
            "write numbers in all of its rows"
        )
    if not column.is_text and column.first_infinite is not None:
        raise DataError(f"{path}, line {column.first_infinite}: column {column.name!r} is infinite")


def _header(path: Path, separator: str) -> list[str]:
    for _, fields in _records(path, separator):
        header = [name or f"column {number}" for number, name in enumerate(fields, start=1)]
        for name in header:
            if header.count(name) > 1:
                raise DataError(f"{path}, line 1: two columns are called {name!r}; each needs a name of its own")
        return header
    raise DataError(f"{path} is empty: its first line has to name the columns")


def _rows(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    records = _records(path, separator)
    _, header = next(records)
    for line, fields in records:
        if len(fields) != len(header):
            raise DataError(f"{path}, line {line}: {len(fields)} fields, but the header names {len(header)} columns")
        yield line, fields


def _records(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Read one record after the other, each with its first line; lines with nothing in them are passed over."""
    line = 1
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=separator, strict=True)
            for fields in reader:
                stripped = [value.strip() for value in fields]
                if len(stripped) > 1 or any(stripped):
                    yield line, stripped
                line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {line}: {error}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, after line {line - 1}: it is not UTF-8 text ({error.reason})") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except TypeError as error:  # what the csv module says to a separator of two characters
        raise DataError(f"the separator {separator!r} cannot be used: {error}") from None


def _hint(header: Sequence[str]) -> str:
    if len(header) == 1:
        for sign in (";", "\t", "|", ","):
            if sign in header[0]:
                return f"; its columns seem to be separated by {sign!r}: say so with --separator"
    return ""


def _missing(value: str) -> bool:
    return value in MISSING


def _number(value: str) -> float | None:
    """Read a number; Python would take 1_000 for one."""
    try:
        return None if "_" in value else float(value)
    except ValueError:
        return None


def _whole(value: str) -> bool:
    number = _number(value)
    return number is not None and math.isfinite(number) and number.is_integer()
