"""Where in what a person wrote a setting stands: on which line of a file, or in which ``--set``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from fedtp.settings import Path, Problem
from simulations.overrides import Override

MOST_PROBLEMS = 10

_NAME = r"""(?:[\w-]+|"[^"]*"|'[^']*')"""
_DOTTED = rf"{_NAME}(?:\s*\.\s*{_NAME})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]")
_KEY = re.compile(rf"\s*({_DOTTED})\s*=")


class Places:
    """The places of settings.

    Parameters
    ----------
    source
        What the file is called.
    text
        What is in it: valid TOML.
    overrides
        What was set beside it.
    """

    def __init__(self, source: str, text: str, overrides: Sequence[Override]) -> None:
        self.source = source
        self.lines = key_lines(text)
        self.overrides = overrides

    def place(self, path: Path) -> str:
        """Return where a setting stands, or the nearest table around it that somebody wrote."""
        known = next((end for end in range(len(path), 0, -1) if path[:end] in self.lines), 0)
        ranked = sorted(self.overrides, key=lambda override: (override.sets(path), override.shares(path)))
        if ranked and (ranked[-1].sets(path) or ranked[-1].shares(path) > known):
            return f"--set {ranked[-1].text}"
        return f"{self.source}, line {self.lines[path[:known]]}" if known else self.source

    def report(self, problems: Sequence[Problem]) -> str:
        """Return a line for each problem, place first."""
        lines = [f"{self.place(problem.path)}: {problem.text}" for problem in problems[:MOST_PROBLEMS]]
        if len(problems) > MOST_PROBLEMS:
            lines.append(f"... and {len(problems) - MOST_PROBLEMS} more problems")
        return "\n".join(lines)


def key_lines(text: str) -> dict[Path, int]:
    r"""Find the lines of a valid TOML text's keys and table headers.

    Parameters
    ----------
    text
        Valid TOML. Keys inside inline tables are not found.

    Returns
    -------
    dict
        Line numbers from 1, by path; the entries of an array of tables are numbered from 0.

    Examples
    --------
    >>> key_lines("[run]\nseed = 1\n[[devices]]\nclass = 'pi'")
    {('run',): 1, ('run', 'seed'): 2, ('devices', 0): 3, ('devices', 0, 'class'): 4}
    """
    lines: dict[Path, int] = {}
    entries: Counter[Path] = Counter()
    table: Path = ()
    open_quotes = ""
    for number, line in enumerate(text.split("\n"), start=1):
        if open_quotes:
            if open_quotes in line:
                open_quotes = ""
            continue
        if header := _HEADER.match(line):
            table = _path(header[2])
            if header[1] == "[[":
                entries[table] += 1
                table = (*table, entries[table] - 1)
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            lines.setdefault(table + _path(key[1]), number)
        open_quotes = next((quotes for quotes in ('"""', "'''") if line.count(quotes) % 2), "")
    return lines


def _path(text: str) -> Path:
    return tuple(name.strip("\"'") for name in re.findall(_NAME, text))
