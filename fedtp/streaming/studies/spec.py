"""Models and streams as a person writes them: names, calls with literal arguments, and pipelines.

The text is parsed, never evaluated. ``a.b.C(x=1) | d.E`` becomes a `Pipe` of two `Call`.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from fedtp.errors import FedtpError


@dataclass(frozen=True)
class Call:
    """Something by its name or import path, with arguments.

    Parameters
    ----------
    path
        The name, such as ``tp``, or the import path, such as ``river.tree.HoeffdingTreeClassifier``.
    args, keywords
        The arguments: literals, and again calls and pipes.
    """

    path: str
    args: tuple[object, ...] = ()
    keywords: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Pipe:
    """Steps that follow each other."""

    steps: tuple[Node, ...]


Node: TypeAlias = Call | Pipe


def parse(text: str) -> Node:
    """Parse what a person wrote.

    Raises
    ------
    FedtpError
        If it is neither a name, nor a call with literal arguments, nor a pipeline of them.

    Examples
    --------
    >>> parse("tp(hidden=(32,), policy='reset-head')")
    Call(path='tp', args=(), keywords={'hidden': (32,), 'policy': 'reset-head'})
    >>> parse("random-rbf(n_classes=3)")
    Call(path='random-rbf', args=(), keywords={'n_classes': 3})
    """
    try:
        return _node(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise FedtpError(
            f'"{text}" cannot be read ({reason}): write a name or an import path, with literal arguments in '
            'parentheses if need be, such as tp(policy="reset-head"), and steps of a pipeline between |'
        ) from None


def named(text: str) -> tuple[str | None, str]:
    """Split ``name = what it names``; the name is None where there is none.

    Examples
    --------
    >>> named("small = tp(hidden=(8,))"), named("tp(hidden=(8,))")
    (('small', 'tp(hidden=(8,))'), (None, 'tp(hidden=(8,))'))
    """
    name, equals, rest = text.partition("=")
    if equals and name.strip() and not any(sign in name for sign in "(|'\""):
        return name.strip(), rest.strip()
    return None, text.strip()


def short(node: object) -> str:
    """Write what was parsed, without the modules.

    Examples
    --------
    >>> short(parse("river.preprocessing.StandardScaler | river.linear_model.Perceptron(l2=0.1)"))
    'StandardScaler | Perceptron(l2=0.1)'
    """
    match node:
        case Pipe(steps):
            return " | ".join(short(step) for step in steps)
        case Call(path, args, keywords):
            given = [short(value) for value in args]
            given += [f"{key}={short(value)}" for key, value in keywords.items()]
            return path.rpartition(".")[2] + (f"({', '.join(given)})" if given else "")
        case list():
            return f"[{', '.join(short(value) for value in node)}]"
        case _:
            return repr(node)


def _node(tree: ast.expr) -> Node:
    match tree:
        case ast.BinOp(left, ast.BitOr(), right):
            steps = [step for side in (left, right) for step in _steps(_node(side))]
            return Pipe(tuple(steps))
        case ast.BinOp(left, ast.Sub(), right):  # a name such as no-change, maybe with arguments
            last = _node(right)
            if isinstance(last, Pipe):
                raise ValueError(f"{ast.unparse(right)} is no name")
            return Call(f"{_path(left)}-{last.path}", last.args, last.keywords)
        case ast.Call(function, args, keywords):
            unpacked = [key for key in keywords if key.arg is None]
            if unpacked:
                raise ValueError("arguments cannot be unpacked")
            return Call(
                _path(function),
                tuple(_value(value) for value in args),
                {str(key.arg): _value(key.value) for key in keywords},
            )
        case _:
            return Call(_path(tree))


def _steps(node: Node) -> tuple[Node, ...]:
    return node.steps if isinstance(node, Pipe) else (node,)


def _path(tree: ast.expr) -> str:
    match tree:
        case ast.Name(name):
            return name
        case ast.Attribute(value, name):
            return f"{_path(value)}.{name}"
        case ast.BinOp(left, ast.Sub(), right):
            return f"{_path(left)}-{_path(right)}"
        case _:
            raise ValueError(f"{ast.unparse(tree)} is no name")


def _value(tree: ast.expr) -> object:
    match tree:
        case ast.List(items):
            return [_value(item) for item in items]
        case ast.Call() | ast.Attribute() | ast.BinOp(op=ast.BitOr()):
            return _node(tree)
        case _:
            try:
                return ast.literal_eval(tree)
            except ValueError:
                raise ValueError(f"the argument {ast.unparse(tree)} is no literal") from None
