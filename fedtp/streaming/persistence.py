"""Models of streams in files: saved and checked as a whole, to go on exactly as if they had never been away.

A file is in the safetensors format: arrays, and in the metadata JSON with all else. Nothing in it is code, and nothing
is unpickled. What each part of a model writes and reads is its own `fedtp.streaming.state.State`.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import fedtp.streaming
from fedtp.archive import Archive, Arrays
from fedtp.errors import DataError, FedtpError, ModelError
from fedtp.streaming import policies
from fedtp.streaming.detector_codecs import decode, encode
from fedtp.streaming.learner import StreamLearner
from fedtp.streaming.policies import Managed, Policy
from fedtp.streaming.state import Part, State

M = TypeVar("M", bound=StreamLearner)

MODELS = Archive("fedtp.stream", "model of fedtp.streaming", version=1)
#: What else a model holds beside its arguments, its parts and what `_record` returns.
_OTHER = {"drift", "classes", "class_counts", "_indices", "_targets", "_origin"}


def save(model: StreamLearner, path: str | os.PathLike[str]) -> None:
    """Write a model to one file; see `fedtp.streaming.TPClassifier.save`.

    Examples
    --------
    >>> import tempfile
    >>> from fedtp.streaming import TPClassifier, load
    >>> model = TPClassifier(hidden=(8,), seed=1)
    >>> for i in range(20):
    ...     model.learn_one({"x": i % 2, "y": 1.0}, i % 2 == 0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(f"{folder}/model.safetensors")
    ...     loaded = load(f"{folder}/model.safetensors")
    >>> loaded.predict_proba_one({"x": 1, "y": 1.0}) == model.predict_proba_one({"x": 1, "y": 1.0})
    True
    """
    name = type(model).__name__
    if type(model) is not _class(name):
        raise ModelError(f"{name} cannot be saved: only the classes of fedtp.streaming can")
    arguments = {argument: getattr(model, argument) for argument in inspect.signature(type(model)).parameters}
    parts = model._parts()
    for part, found in parts.items():
        if not isinstance(found, Part):
            raise ModelError(f"{name} cannot be saved: its {part} is {type(found).__name__}, which has no state()")
    for attribute, value in model.__getstate__().items():
        if attribute not in arguments and attribute not in _OTHER and all(value is not part for part in parts.values()):
            if value is None:
                continue
            raise ModelError(f"{name} cannot be saved: nothing says how {attribute!r} is")
    states = {part: found.state() for part, found in parts.items()}
    if model._origin is not None:
        states["origin"] = State(model._origin)
    arrays = {f"{part}/{key}": array for part, state in states.items() for key, array in state.arrays.items()}
    record = {
        "class": name,
        "arguments": {argument: _written(argument, value) for argument, value in arguments.items()},
        "parts": {part: state.record for part, state in states.items()},
        "model": model._record(),
    }
    MODELS.write(Path(path), record, arrays)


def load(
    path: str | os.PathLike[str],
    kind: type[M] = StreamLearner,  # type: ignore[assignment]
    *,
    restart_detectors: bool = False,
    **functions: Any,
) -> M:
    """Return the model that `save` wrote, of whatever class; see `fedtp.streaming.TPClassifier.load`.

    Parameters
    ----------
    path
        The file.
    kind
        The class that it must be of.
    restart_detectors
        Have drift detectors start anew; so models whose ADWIN was saved by another version of River can be loaded.
    functions
        The arguments of the constructor that were functions, which no file holds: ``hidden``, ``loss``.

    Raises
    ------
    DataError
        If the file does not hold such a model, as a whole and without errors.
    """
    record, arrays = MODELS.read(Path(path))
    try:
        return _loaded(record, arrays, kind, functions, restart_detectors)
    except FedtpError as error:
        raise DataError(f"{path} cannot be loaded: {error}") from None


def _loaded(record: Any, arrays: Arrays, kind: type[M], functions: dict[str, Any], restart: bool) -> M:
    for key in ("arguments", "parts", "model"):
        if not isinstance(record.get(key), dict):
            raise DataError(f"its record has no {key}")
    made = _class(record.get("class"))
    if made is None:
        raise DataError(f"it holds a {record.get('class')}, which this version of fedtp does not have")
    if not issubclass(made, kind):
        raise DataError(f"it holds a {made.__name__}, not a {kind.__name__}; fedtp.streaming.load takes either")
    _check_size(record["arguments"], arrays)
    model = _made(made, record["arguments"], functions, restart)
    parts = model._parts()
    origin = {"origin"} & record["parts"].keys()
    if record["parts"].keys() != parts.keys() | origin or not all(
        isinstance(part, dict) for part in record["parts"].values()
    ):
        raise DataError(f"it holds {sorted(record['parts'])}, but such a model has {sorted(parts)}")
    states = {name: State({}, part) for name, part in record["parts"].items()}
    for key, array in arrays.items():
        name, _, rest = key.partition("/")
        if name not in states:
            raise DataError(f"the array {key!r} belongs to nothing")
        states[name].arrays[rest] = array
    model._restore(record["model"])
    for name, part in parts.items():
        if not isinstance(part, Part):
            raise DataError(f"its {name} is {type(part).__name__}, which cannot be loaded")
        if restart and name == "watch":
            continue
        part.load_state(states[name])
        read = part.state().arrays.keys()
        if read != states[name].arrays.keys():
            raise DataError(f"the {name} is made of other arrays: {sorted(read ^ states[name].arrays.keys())}")
    if origin:
        model._origin = _read_origin(states["origin"])
    _check_fit(model)
    return model  # type: ignore[return-value]


def _made(
    made: type[StreamLearner], arguments: Mapping[str, Any], functions: dict[str, Any], restart: bool
) -> StreamLearner:
    """Return a new model, made with the arguments that were saved."""
    known = inspect.signature(made).parameters
    unknown = arguments.keys() - known.keys()
    if unknown:
        raise DataError(f"{made.__name__} takes no arguments {sorted(unknown)}")
    needed = {name for name, value in arguments.items() if isinstance(value, dict) and "function" in value}
    for name in needed - functions.keys():
        function = arguments[name]["function"]
        raise DataError(f"{name} was a function, {function}, which no file holds: give it as load(..., {name}=...)")
    for name in functions.keys() - needed:
        raise DataError(f"{name} was no function, so it is in the file, and cannot be given")
    values = {name: functions[name] if name in needed else _read_value(arguments[name], restart) for name in arguments}
    try:
        return made(**values)
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise DataError(f"{made.__name__} refuses the arguments that it was saved with: {error}") from None


def _check_size(arguments: Mapping[str, Any], arrays: Arrays) -> None:
    """Refuse a network that would be larger than the file says: nothing shall take more memory than what is read."""
    hidden = arguments.get("hidden")
    units = hidden.get("list") if isinstance(hidden, dict) else None
    if units is None:
        return
    if not isinstance(units, list) or not all(type(n) is int and n > 0 for n in units):
        raise DataError(f"hidden is {units!r}, not whole numbers above 0")
    paces = arguments.get("paces")
    copies = len(paces["list"]) if isinstance(paces, dict) and isinstance(paces.get("list"), list) else 1
    size = copies * sum(n * m for n, m in zip([1, *units], [*units, 0], strict=True))
    # Without features, or without classes, a network of PyTorch is not made yet.
    if size > max(sum(array.size for array in arrays.values()), 10_000_000):
        raise DataError(f"its arrays are too small for {copies} networks with {units} hidden units")


def _check_fit(model: StreamLearner) -> None:
    """Refuse networks that are not made for the model's features and classes."""
    found = model._network
    # A policy has a network in hand, or two.
    held = vars(found).values() if isinstance(found, Managed) else [found]
    networks = [part for part in held if isinstance(part, Part)]
    for network in networks:
        state = network.state()
        for axes, size in ((state.features, len(model.features)), (state.classes, len(model._keys()))):
            if any(state.arrays[name].shape[axis] != size for name, axis in axes.items()):
                raise DataError("its network is not made for its features and classes")


def _read_origin(state: State) -> dict[str, NDArray[np.float64]]:
    return {name: state.array(name, *array.shape) for name, array in state.arrays.items()}


def _written(name: str, value: Any) -> Any:
    """Return an argument of the constructor as JSON holds it."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
        return value
    if isinstance(value, list | tuple):
        return {"list": [_written(name, item) for item in value]}
    if isinstance(value, Policy) and is_dataclass(value) and type(value) is getattr(policies, type(value).__name__, 0):
        return {"policy": type(value).__name__, "settings": _written_settings(value)}
    if name == "detector":
        return {"detector": encode(value)}
    if callable(value):
        return {"function": getattr(value, "__qualname__", type(value).__name__)}
    raise ModelError(f"{name}={value!r} cannot be saved")


def _written_settings(policy: Any) -> dict[str, Any]:
    return {name: _written(name, value) for name, value in asdict(policy).items()}


def _read_value(value: Any, restart: bool) -> Any:
    """Return the argument of which `_written` returned this."""
    if not isinstance(value, dict):
        return value
    match value:
        case {"list": list(items)}:
            return tuple(_read_value(item, restart) for item in items)
        case {"policy": str(name), "settings": dict(settings)}:
            made = getattr(policies, name, None)
            if not (isinstance(made, type) and issubclass(made, Policy) and is_dataclass(made)):
                raise DataError(f"there is no policy {name}")
            try:
                return made(**{setting: _read_value(found, restart) for setting, found in settings.items()})
            except TypeError as error:
                raise DataError(f"the policy {name} refuses its settings: {error}") from None
        case {"detector": record}:
            return decode(record, restart=restart)
    raise DataError(f"an argument is {value!r}, which nothing writes")


def _class(name: Any) -> type[StreamLearner] | None:
    """Return one of the classes whose models can be saved."""
    # Only that one is imported: others bring PyTorch.
    found = getattr(fedtp.streaming, name) if name in fedtp.streaming.__all__ else None
    return found if isinstance(found, type) and issubclass(found, StreamLearner) else None
