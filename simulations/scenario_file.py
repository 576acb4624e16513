"""From a scenario's name, or a file that a person named, to the tables in it."""

from __future__ import annotations

import datetime
import math
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedtp.errors import ScenarioError
from fedtp.settings import Path as KeyPath
from fedtp.settings import Problem, alternatives, did_you_mean, dotted, literal

SHIPPED = Path(__file__).parent / "scenarios"
MOST_BYTES = 1_000_000


def shipped() -> dict[str, Path]:
    """Return the files of the scenarios that come with fedtp, by name.

    >>> "digits-rotating" in shipped()
    True
    """
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}


def find(name_or_path: str | Path) -> Path:
    """Return the file of a shipped scenario, or the path that was given.

    Raises
    ------
    ScenarioError
        If it is neither: the sentence offers the nearest name.
    """
    path = Path(name_or_path)
    if not isinstance(name_or_path, str):
        return path
    known = shipped()
    if name_or_path in known:
        return known[name_or_path]
    is_name = path.name == name_or_path and path.suffix != ".toml"
    if is_name and not path.exists():
        hint = did_you_mean(name_or_path, known) or f"; shipped are {alternatives(known)}"
        raise ScenarioError(f"there is no scenario {literal(name_or_path)}, shipped or in a file{hint}")
    return path


def read(path: Path) -> str:
    """Return a file's text.

    Raises
    ------
    ScenarioError
        If it is missing, unreadable, not text, or far too large for a scenario.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        beside = {file.name for file in path.parent.glob("*.toml")} | set(shipped())
        raise ScenarioError(f"{path}: there is no such file{did_you_mean(path.name, beside)}") from None
    except IsADirectoryError:
        inside = path / "scenario.toml"
        hint = f'; did you mean "{inside}"?' if inside.is_file() else ", and a scenario is a TOML file"
        raise ScenarioError(f"{path}: this is a folder{hint}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ScenarioError(f"{path}: this cannot be read: {reason}") from None
    if len(content) > MOST_BYTES:
        raise ScenarioError(f"{path}: this is no scenario, it is larger than {MOST_BYTES:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ScenarioError(f"{path}: this is no scenario, it is not text in UTF-8") from None


def parse(text: str, source: str) -> dict[str, Any]:
    """Return the tables in TOML text; `source` is what errors call it.

    Raises
    ------
    ScenarioError
        If it is not TOML, with the line and the column.

    Examples
    --------
    >>> parse("rounds 60", "my.toml")
    Traceback (most recent call last):
    fedtp.errors.ScenarioError: my.toml: not valid TOML at line 1, column 8: expected '=' after a key in ...
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, _, where = str(error).removesuffix(")").rpartition(" (at ")
        reason = f" at {where}: {what[:1].lower()}{what[1:]}"
    except ValueError:
        reason = ": a number in it has too many digits"
    except RecursionError:
        reason = ": its lists are nested too deep"
    raise ScenarioError(f"{source}: not valid TOML{reason}")


def unusable(value: object, path: KeyPath = ()) -> Iterator[Problem]:
    """Find the values, however deep, that TOML can hold and no setting can have."""
    match value:
        case dict():
            for key, inner in value.items():
                yield from unusable(inner, (*path, key))
        case list():
            for index, inner in enumerate(value):
                yield from unusable(inner, (*path, index))
        case float() if not math.isfinite(value):
            yield Problem(path, f"{dotted(path)} is {value}, but must be a finite number")
        case int() if not -(2**63) <= value < 2**63:
            yield Problem(path, f"{dotted(path)} is {literal(value)}, more than 64 bits can hold")
        case datetime.date() | datetime.time():
            yield Problem(path, f"{dotted(path)} is {value}, but no setting is a date: times are in seconds")
