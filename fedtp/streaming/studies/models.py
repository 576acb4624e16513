"""Models for a study: ours by a short name, and any River classifier by its import path."""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from fedtp.errors import FedtpError, ModelError
from fedtp.streaming.studies.spec import Call, Pipe, named, parse, short

ALIASES = {
    "tp": "fedtp.streaming.TPClassifier",
    "no-change": "river.dummy.NoChangeClassifier",
}

#: What is studied if nobody says otherwise.
DEFAULTS = ("tp", "no-change", "river.preprocessing.StandardScaler | river.linear_model.LogisticRegression")


@dataclass(frozen=True, eq=False)
class Model:
    """A model that a study can make anew as often as it needs to.

    Parameters
    ----------
    name
        What tables and figures call it.
    make
        Makes a fresh one, for a seed.
    spec
        What a person wrote for it, or its parameters.
    """

    name: str
    make: Callable[[int], Any]
    spec: str = ""


Given: TypeAlias = Sequence[Any] | Mapping[str, Any]


def models_of(given: Given) -> list[Model]:
    """Turn what a person gave into models.

    Parameters
    ----------
    given
        Texts, such as ``tp(policy="reset-head")``, ``small = tp(hidden=(8,))`` or
        ``river.preprocessing.StandardScaler | river.naive_bayes.GaussianNB``; River estimators, which are cloned; or
        by name such things or functions that make an estimator for a seed.

    Raises
    ------
    ModelError
        If there is none, a name comes twice, or something is no classifier.

    Examples
    --------
    >>> from river import naive_bayes
    >>> [model.name for model in models_of(["no-change", naive_bayes.GaussianNB()])]
    ['no-change', 'GaussianNB']
    """
    if isinstance(given, str):
        given = [given]
    pairs: Iterable[tuple[str | None, Any]]
    pairs = given.items() if isinstance(given, Mapping) else ((None, model) for model in given)
    models = [_model(name, model) for name, model in pairs]
    if not models:
        raise ModelError("There is no model to study: name at least one.")
    for model in models:
        if sum(other.name == model.name for other in models) > 1:
            raise ModelError(
                f'There are two models called "{model.name}": leave one out, or give them names, such as "one = ...".'
            )
    return models


def suited(model: Any, binary: bool) -> Any:
    """Put a classifier of two classes only behind one-versus-rest, if the labels are not simply false and true."""
    from river import base, compose, multiclass

    if isinstance(model, compose.Pipeline):
        *before, last = model.steps.values()
        adapted = suited(last, binary)
        return model if adapted is last else compose.Pipeline(*before, adapted)
    if binary or not isinstance(model, base.Classifier) or model._multiclass:
        return model
    return multiclass.OneVsRestClassifier(model)


def last_step(model: Any) -> Any:
    """Return the estimator at the end of a pipeline, or the model itself."""
    steps = getattr(model, "steps", None)
    return list(steps.values())[-1] if isinstance(steps, Mapping) and steps else model


def _model(name: str | None, given: Any) -> Model:
    if isinstance(given, Model):
        return given
    if isinstance(given, str):
        own, text = named(given)
        node = parse(text)
        model = Model(name or own or short(node), functools.partial(_build, node, text), text)
    elif hasattr(given, "clone"):
        model = Model(name or _words(given), functools.partial(_reseeded, given), " ".join(repr(given).split()))
    elif callable(given):
        model = Model(name or str(getattr(given, "__name__", "model")), given)
    else:
        raise ModelError(f"{given!r} is no model: give a text, a River classifier, or a function that makes one.")
    _check(model)
    return model


def _check(model: Model) -> None:
    """Make one at once, so that what cannot be made is found before the work begins."""
    made = model.make(1)
    if not (callable(getattr(made, "predict_one", None)) and callable(getattr(made, "learn_one", None))):
        raise ModelError(f'The model "{model.name}" has no predict_one and learn_one: it is no River classifier.')
    from river import base

    if isinstance(made, base.Base) and not isinstance(made, base.Classifier):
        raise ModelError(f'The model "{model.name}" is no classifier but a {type(made).__name__}.')


def _build(node: object, text: str, seed: int) -> Any:
    """Make what a text says; what takes a seed and was given none gets this one."""
    match node:
        case Pipe(steps):
            built = [_build(step, text, seed) for step in steps]
            try:
                return functools.reduce(operator.or_, built)
            except (TypeError, ValueError) as error:
                raise ModelError(f'The steps of "{text}" do not make a pipeline: {error}.') from None
        case Call(path, args, keywords):
            found = _load(ALIASES.get(path, path), text)
            try:
                signature = inspect.signature(found)
                bound = signature.bind(*args, **keywords)
            except (TypeError, ValueError) as error:
                raise ModelError(
                    f'The model "{text}" cannot be made: {path}: {error}; '
                    f"it takes: {', '.join(inspect.signature(found).parameters) or 'nothing'}."
                ) from None
            more = {"seed": seed} if "seed" in signature.parameters and "seed" not in bound.arguments else {}
            values = [_build(value, text, seed) for value in args]
            named_values = {key: _build(value, text, seed) for key, value in keywords.items()}
            try:
                return found(*values, **named_values, **more)
            except FedtpError:
                raise
            except Exception as error:  # whatever a foreign class makes of a wrong value
                raise ModelError(
                    f'The model "{text}" cannot be made: {path}: {type(error).__name__}: {error}.'
                ) from error
        case list():
            return [_build(value, text, seed) for value in node]
        case _:
            return node


def _load(path: str, text: str) -> Any:
    from river import base

    module, _, name = path.rpartition(".")
    if not module:
        raise ModelError(
            f'There is no model "{path}": use {", ".join(ALIASES)}, or an import path such as '
            "river.linear_model.LogisticRegression."
        )
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(f'"{path}" in the model "{text}" cannot be imported: {error}.') from None
    # Nothing but an estimator or a part of one is ever called because a text says so.
    if not (isinstance(found, type) and issubclass(found, base.Base)):
        raise ModelError(f'"{path}" in the model "{text}" is no estimator of River\'s kind.')
    return found


def _reseeded(model: Any, seed: int) -> Any:
    """Clone an estimator, its parts as well, and give this seed to all that take one."""
    from river import compose

    if isinstance(model, compose.Pipeline):
        return compose.Pipeline(*((name, _reseeded(step, seed)) for name, step in model.steps.items()))
    signature = inspect.signature(type(model)).parameters
    if any(parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) for parameter in signature.values()):
        return model.clone()
    parts = {key: getattr(model, key) for key in signature}
    changed = {key: _reseeded(part, seed) for key, part in parts.items() if hasattr(part, "_get_params")}
    if "seed" in parts:
        changed["seed"] = seed
    return type(model)(**{key: changed.get(key, copy.deepcopy(part)) for key, part in parts.items()})


def _words(model: Any) -> str:
    steps = getattr(model, "steps", None)
    return " | ".join(type(step).__name__ for step in steps.values()) if steps else type(model).__name__
