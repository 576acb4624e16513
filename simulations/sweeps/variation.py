"""What a sweep varies, as it is typed: ``key=a,b,c``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from fedtp.errors import ScenarioError

_CLOSING = {"[": "]", "{": "}", "(": ")"}


@dataclass(frozen=True)
class Variation:
    """A setting and the values that it takes in turn.

    Parameters
    ----------
    key
        Dotted, as ``--set`` takes it.
    values
        Each as ``--set`` takes it.

    Examples
    --------
    >>> Variation.parse("learner.hidden=[64],[64,32]")
    Variation(key='learner.hidden', values=('[64]', '[64,32]'))
    """

    key: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what was typed; commas within brackets and quotes belong to a value.

        Raises
        ------
        ScenarioError
            If it is not of that form, or a value is there twice.
        """
        key, equals, rest = text.partition("=")
        if not equals or not key.strip():
            raise ScenarioError(f"--vary {text}: write key=a,b,c, such as learner.lr=0.1,1")
        values = tuple(value.strip() for value in _split(rest, text))
        if not all(values):
            raise ScenarioError(f"--vary {text}: a value is missing; write key=a,b,c, with nothing but commas between")
        if twice := next((value for value in values if values.count(value) > 1), None):
            raise ScenarioError(f"--vary {text}: the value {twice} is there twice")
        return cls(key.strip(), values)


def _split(text: str, typed: str) -> list[str]:
    """Split a text at the commas that lie outside of brackets and quotes."""
    parts = [""]
    closing: list[str] = []
    quote = before = ""
    for character in text:
        if quote:
            # In TOML a backslash escapes within double quotes only.
            if character == quote and not (quote == '"' and before == "\\"):
                quote = ""
        elif character in "\"'":
            quote = character
        elif character in _CLOSING:
            closing.append(_CLOSING[character])
        elif closing and character == closing[-1]:
            closing.pop()
        elif character == "," and not closing:
            parts.append("")
            before = character
            continue
        parts[-1] += character
        before = "" if before == "\\" else character
    if quote or closing:
        raise ScenarioError(f"--vary {typed}: a {quote or closing[-1]} is missing")
    return parts
