"""Settings given as ``key=value`` text, put into a scenario's tables."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any

from fedtp.errors import ScenarioError
from fedtp.settings import Path, dotted, literal


@dataclass(frozen=True)
class Override:
    """A setting as it was typed, and where it went.

    Parameters
    ----------
    text
        ``key=value``.
    path
        The key's path, list indices as numbers.
    """

    text: str
    path: Path

    def shares(self, path: Path) -> int:
        """Return how many keys this and `path` have in common, from the outside in."""
        pairs = zip(self.path, path, strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    def sets(self, path: Path) -> bool:
        """Tell whether it set `path`, a part of it, or a table that `path` lies in."""
        return self.shares(path) == min(len(path), len(self.path))


def apply(overrides: Sequence[str], tables: dict[str, Any]) -> list[Override]:
    """Put settings into tables, in order; a later one wins.

    Parameters
    ----------
    overrides
        Each ``key=value``. The key is dotted, with indices into lists (``devices.0.count=5``; the index after
        the last appends). The value is TOML; what is not, is taken for text.
    tables
        Changed in place. Whether keys and values are allowed is checked later, with the whole scenario.

    Returns
    -------
    list of Override
        Where each went.

    Raises
    ------
    ScenarioError
        If a setting has no ``=``, or its key leads into a list or through a value where there is no way.

    Examples
    --------
    >>> tables = {"server": {"rounds": 60}, "devices": [{"class": "pi"}]}
    >>> _ = apply(["server.rounds=10", "devices.0.class=mcu", "learner.hidden=[8, 4]"], tables)
    >>> tables
    {'server': {'rounds': 10}, 'devices': [{'class': 'mcu'}], 'learner': {'hidden': [8, 4]}}
    """
    return [_apply(text, tables) for text in overrides]


def _apply(text: str, tables: dict[str, Any]) -> Override:
    key, equals, value = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise ScenarioError(f"--set {text}: write key=value, such as server.rounds=10")
    place: Any = tables
    path: Path = ()
    for position, part in enumerate(parts):
        step = _step(text, place, path, part)
        path = (*path, step)
        if position == len(parts) - 1:
            _put(place, step, _value(value.strip()))
        else:
            if not _holds(place, step):
                _put(place, step, [] if parts[position + 1].isdecimal() else {})
            place = place[step]
    return Override(text, path)


def _step(text: str, place: Any, path: Path, part: str) -> str | int:
    """Return the key or the index that `part` means in `place`."""
    if isinstance(place, dict):
        return part
    if not isinstance(place, list):
        raise ScenarioError(f"--set {text}: {dotted(path)} is {literal(place)}, not a table with keys")
    if not part.isdecimal() or int(part) > len(place):
        name, last = dotted(path), len(place)
        indices = f"{name}.0" if not place else f"one of {name}.0 to {name}.{last}, where the last appends"
        raise ScenarioError(f"--set {text}: {name} is a list of {last}: write {indices}")
    return int(part)


def _holds(place: dict[str, Any] | list[Any], step: str | int) -> bool:
    return step in place if isinstance(place, dict) else int(step) < len(place)


def _put(place: Any, step: str | int, value: object) -> None:
    if isinstance(place, list) and step == len(place):
        place.append(value)
    else:
        place[step] = value


def _value(text: str) -> object:
    """Read a value: TOML, or else the bare text."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    value = parsed.pop("value")
    # No setting is a date, and a text with line breaks may have become several keys.
    return text if parsed or isinstance(value, datetime | date | time) else value
