"""What is wrong with settings that a person wrote: one sentence a problem, with the nearest valid name.

Pydantic finds the problems; this file says them in the words of the file that the settings came from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

Path = tuple[str | int, ...]
_MISSING = object()


@dataclass(frozen=True)
class Problem:
    """A setting that does not fit.

    Parameters
    ----------
    path
        Keys and list indices that lead to the setting.
    text
        The sentence: the setting's name, its value, and what is allowed. Without a full stop.
    """

    path: Path
    text: str


class Conflict(ValueError):  # noqa: N818
    """Raised by a model's validator for settings that do not fit each other; paths start at that model."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problem.text for problem in self.problems))


def dotted(path: Path) -> str:
    """Return the path as it is typed.

    >>> dotted(("devices", 0, "count"))
    'devices.0.count'
    """
    return ".".join(str(part) if re.fullmatch(r"[\w-]+", str(part)) else literal(part) for part in path)


def literal(value: object) -> str:
    """Return a value as it stands in TOML, shortened if it is long.

    >>> literal(True), literal("sea"), literal([1, 2])
    ('true', '"sea"', '[1, 2]')
    """
    if isinstance(value, dict):
        text = "a table"
    elif isinstance(value, bool | str | list | tuple):
        text = json.dumps(value, ensure_ascii=False, default=str)
    else:
        text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def alternatives(names: Iterable[str]) -> str:
    """Return names as a choice.

    >>> alternatives(["iid", "dirichlet", "interleaved"])
    '"iid", "dirichlet" or "interleaved"'
    """
    return _or([f'"{name}"' for name in names])


def _or(choices: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(choices[:-1]), *choices[-1:]]))


def did_you_mean(name: object, names: Iterable[str], before: str = "") -> str:
    """Return the end of a sentence that offers the nearest of `names`, or nothing if none is near.

    Parameters
    ----------
    name
        What was typed; upper and lower case, dashes and underscores are all one here.
    names
        What could have been meant.
    before
        Put before the offered name.

    Examples
    --------
    >>> did_you_mean("tpsdg", ["tpsgd", "backprop"])
    '; did you mean "tpsgd"?'
    >>> did_you_mean("adam", ["tpsgd", "backprop"])
    ''
    """
    known = {_plain(candidate): candidate for candidate in names}
    near = get_close_matches(_plain(name), known, n=1)
    return f'; did you mean "{before}{known[near[0]]}"?' if near else ""


def _plain(name: object) -> str:
    return str(name).lower().replace("_", "-")


def problems(error: ValidationError, model: type[BaseModel], data: object, prefix: Path = ()) -> list[Problem]:
    """Say in sentences what pydantic found.

    Parameters
    ----------
    error
        What validating `data` as a `model` raised.
    model
        The model, which knows what is allowed where.
    data
        What was validated: tables, lists and scalars, as a TOML file holds them.
    prefix
        The path of `data` in what the person wrote.

    Returns
    -------
    list of Problem
        In pydantic's order, one for each path.

    Examples
    --------
    >>> class Run(BaseModel, extra="forbid"):
    ...     seed: int
    >>> data = {"seed": "one", "thread": 2}
    >>> try:
    ...     Run.model_validate(data)
    ... except ValidationError as error:
    ...     for problem in problems(error, Run, data, prefix=("run",)):
    ...         print(problem.text)
    run.seed is "one", but must be a whole number
    run.thread is not a known key; the keys there are seed
    """
    schema = _Schema(model)
    found: dict[Path, Problem] = {}
    for detail in error.errors(include_url=False):
        if detail["type"] == "default_factory_not_called":  # it follows from another error
            continue
        for problem in schema.problems(detail["type"], detail["loc"], detail.get("ctx", {}), data, prefix):
            found.setdefault(problem.path, problem)
    # Pydantic also finds a list too short when all that is wrong are its entries.
    around = {path[:end] for path in found for end in range(len(path))}
    return [problem for path, problem in found.items() if path not in around]


class _Schema:
    """What a model allows at each path, read from its JSON schema."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.root = _json_schema(model)

    def problems(self, kind: str, loc: Path, context: Mapping[str, Any], data: object, prefix: Path) -> list[Problem]:
        """Translate one of pydantic's errors."""
        path, node, value = self.walk(loc, data)
        if kind in ("union_tag_invalid", "union_tag_not_found"):
            tag = node["discriminator"]["propertyName"]
            path, value = (*path, tag), context.get("tag", _MISSING)
            node = {"enum": list(node["discriminator"]["mapping"])}
        name = dotted(prefix + path)
        cause = context.get("error")
        if isinstance(cause, Conflict):
            # The sentences name their paths from the model on; what leads to the model is put before.
            lead = f"{name}." if name else ""
            return [Problem((*prefix, *path, *inner.path), lead + inner.text) for inner in cause.problems]
        if kind in ("value_error", "assertion_error"):
            text = f"{name}: {cause}" if name else str(cause)
        elif kind == "extra_forbidden":
            text = f"{name} is not a known key{self._where_it_belongs(path, data, prefix)}"
        elif value is _MISSING:
            text = f"{name} is missing: it must be {self.allowed(node)}"
        else:
            text = f"{name} is {literal(value)}, but must be {self.allowed(node)}"
            text += did_you_mean(value, self.resolve(node).get("enum", ()))
        return [Problem(prefix + path, text)]

    def resolve(self, node: Mapping[str, Any]) -> Mapping[str, Any]:
        """Follow a reference, and what may be left out to what it is when it is there."""
        while "$ref" in node:
            node = self.root["$defs"][node["$ref"].rpartition("/")[2]]
        options = [option for option in node.get("anyOf", ()) if option.get("type") != "null"]
        return self.resolve(options[0]) if len(options) == 1 else node

    def walk(self, loc: Path, data: object) -> tuple[Path, Mapping[str, Any], Any]:
        """Return, for a location of pydantic's, the path in `data`, what is allowed and what stands there.

        Pydantic's locations also name the members of unions, which nobody has typed.
        """
        path: Path = ()
        node: Mapping[str, Any] = self.resolve(self.root)
        value: Any = data
        for part in loc:
            if "discriminator" in node:
                node = self.resolve({"$ref": node["discriminator"]["mapping"][part]})
                continue
            if isinstance(value, Mapping) and "anyOf" not in node:
                inner = node.get("properties", {}).get(part, node.get("additionalProperties"))
                value = value.get(part, _MISSING)
            elif isinstance(value, Sequence) and isinstance(part, int):
                fixed = node.get("prefixItems", [])
                inner = fixed[part] if part < len(fixed) else node.get("items")
                value = value[part] if part < len(value) else _MISSING
            else:
                break
            path = (*path, part)
            node = self.resolve(inner if isinstance(inner, Mapping) else {})
        return path, node, value

    def allowed(self, node: Mapping[str, Any]) -> str:
        """Say what is allowed."""
        node = self.resolve(node)
        if "enum" in node or "const" in node:
            return alternatives(node.get("enum", [node.get("const")]))
        if "anyOf" in node:
            return _or([self.allowed(option) for option in node["anyOf"] if option.get("type") != "null"])
        if "discriminator" in node:
            return f"a table whose kind is {alternatives(node['discriminator']['mapping'])}"
        match node.get("type"):
            case "integer":
                return f"a whole number{_range(node)}"
            case "number":
                return f"a finite number{_range(node)}"
            case "boolean":
                return "true or false"
            case "string":
                return f"text{_form(node)}"
            case "array":
                return self._list(node)
            case "object" if "properties" in node:
                return f"a table with the keys {', '.join(node['properties'])}"
            case "object":
                return "a table"
        return "a plain value"

    def _list(self, node: Mapping[str, Any]) -> str:
        fixed = node.get("prefixItems")
        if fixed:
            return f"a list of {len(fixed)}, each {self.allowed(fixed[0])}"
        least, most = node.get("minItems"), node.get("maxItems")
        size = f" of {least or 0} to {_number(most)} entries" if most else f" of at least {least}" if least else ""
        return f"a list{size}, each {self.allowed(node['items'])}"

    def _where_it_belongs(self, path: Path, data: object, prefix: Path) -> str:
        """Offer the same key of another table, else the nearest key of this one, else all of this one."""
        *above, key = path
        _, table, _ = self.walk(self._with_tags(tuple(above), data), data)
        known = list(table.get("properties", {}))
        for other in self.keys():
            if other[-1] == key:
                return f'; did you mean "{dotted(prefix + other)}"?'
        near = did_you_mean(key, known, before="".join(f"{part}." for part in prefix + tuple(above)))
        return near or f"; the keys there are {', '.join(known)}"

    def _with_tags(self, path: Path, data: object) -> Path:
        """Turn a path in `data` into pydantic's location, which names the chosen member of a tagged union."""
        loc: Path = ()
        for end in range(len(path) + 1):
            loc += path[end - 1 : end] if end else ()
            _, node, value = self.walk(loc, data)
            if "discriminator" in node and isinstance(value, Mapping):
                loc = (*loc, str(value.get(node["discriminator"]["propertyName"])))
        return loc

    def keys(self, node: Mapping[str, Any] | None = None) -> Iterable[Path]:
        """Give every key of every table, without those of lists and of tables with free names."""
        node = self.resolve(node or self.root)
        for key, child in node.get("properties", {}).items():
            yield (key,)
            yield from ((key, *inner) for inner in self.keys(child))


@cache
def _json_schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _range(node: Mapping[str, Any]) -> str:
    if "minimum" in node and "maximum" in node:
        return f" from {_number(node['minimum'])} to {_number(node['maximum'])}"
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    bounds = [f"{word} {_number(node[key])}" for key, word in words.items() if key in node]
    return f", {' and '.join(bounds)}" if bounds else ""


def _number(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:,.12g}"


def _form(node: Mapping[str, Any]) -> str:
    return f" ({node['description']})" if "description" in node else ""
