"""River's drift detectors as JSON, and back, to go on exactly where they were.

What a detector knows lies in attributes of its own, which are written one by one; nothing is pickled. ADWIN is River's
compiled code: it gives its state as bytes, which only the same version of River is sure to understand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple, TypeAlias

from fedtp.errors import DataError, ModelError

Detector: TypeAlias = Any  # River's detectors have no common base class that is public


class _Kind(NamedTuple):
    """How an attribute is written, and read by a detector that was made with the same parameters."""

    write: Callable[[Any], Any]
    read: Callable[[Any, Detector], Any]


def encode(detector: Detector) -> dict[str, Any]:
    """Return a detector as JSON holds it.

    Raises
    ------
    ModelError
        If it is none that can be saved.

    Examples
    --------
    >>> from river import drift
    >>> detector = drift.binary.DDM()
    >>> for error in (True, False):
    ...     detector.update(error)
    >>> encode(detector)["state"]["_p"]
    [2.0, 0.5]
    """
    name = type(detector).__name__
    kinds = _attributes().get(name)
    if kinds is None or type(detector) is not _types()[name]:
        raise ModelError(
            f"the drift detector {name} cannot be saved: choose one of {', '.join(_types())}, or save without it"
        )
    parameters = detector._get_params()
    if vars(detector).keys() != _expected(name, parameters):
        raise ModelError(f"the {name} of River {version('river')} keeps its state in a way that is not known here")
    return {
        "type": name,
        "parameters": parameters,
        "state": {attribute: kind.write(getattr(detector, attribute)) for attribute, kind in kinds.items()},
        "river": _river(),
    }


def decode(record: Any, *, restart: bool = False) -> Detector:
    """Return the detector that `encode` wrote.

    Parameters
    ----------
    record
        What it wrote.
    restart
        Return it as it was before it saw anything: so that of another version of River can be read too.

    Raises
    ------
    DataError
        If it was written by another version of River whose state this one may not understand, or not by `encode`.

    Examples
    --------
    >>> from river import drift
    >>> detector = drift.ADWIN(delta=0.01)
    >>> for i in range(1000):
    ...     detector.update(i >= 900)
    >>> decode(encode(detector)).estimation == detector.estimation
    True
    >>> decode(encode(detector), restart=True)
    ADWIN (
      delta=0.01
      clock=32
      max_buckets=5
      min_window_length=5
      grace_period=10
    )
    """
    if not isinstance(record, Mapping) or record.get("type") not in _types():
        raise DataError("a drift detector is none of those that can be saved")
    name = record["type"]
    detector = _made(name, record.get("parameters"))
    if restart:
        return detector
    if name == "ADWIN" and record.get("river") != _river():
        raise DataError(
            f"the state of ADWIN was saved by River {record.get('river')}, and only that version is sure to understand "
            f"it, not {version('river')}: load with restart_detectors=True to have detectors start anew"
        )
    kinds, state = _attributes()[name], record.get("state")
    if not isinstance(state, Mapping) or state.keys() != kinds.keys():
        raise DataError(f"the state of {name} is incomplete")
    if vars(detector).keys() != _expected(name, detector._get_params()):
        raise DataError(
            f"the {name} of River {version('river')} is another than that of River {record.get('river')}: load with "
            "restart_detectors=True to have detectors start anew"
        )
    try:
        values = {attribute: kind.read(state[attribute], detector) for attribute, kind in kinds.items()}
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"the state of {name} is not one that it can have") from None
    for attribute, value in values.items():
        setattr(detector, attribute, value)
    return detector


def _made(name: str, parameters: Any) -> Detector:
    """Return a detector that has seen nothing, if each parameter is of the kind of its default."""
    made = _types()[name]
    defaults = made()._get_params()
    if not isinstance(parameters, Mapping) or not parameters.keys() <= defaults.keys():
        raise DataError(f"the parameters of {name} are none that it has")
    for parameter, value in parameters.items():
        default = defaults[parameter]
        alike = type(value) is type(default)
        if isinstance(default, float) and not isinstance(value, bool):
            alike = isinstance(value, int | float) and math.isfinite(value)
        if not alike:
            raise DataError(f"the parameter {parameter} of {name} is {value!r}, but must be like {default!r}")
    try:
        return made(**parameters)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"the parameters of {name} are none that it takes: {error}") from None


def _expected(name: str, parameters: Mapping[str, Any]) -> set[str]:
    return {*parameters, *_attributes()[name], *_DERIVED.get(name, ())}


@cache
def _river() -> str:
    return version("river")


#: What parameters alone decide.
_DERIVED = {"PageHinkley": ("_test_drift",)}


@cache
def _types() -> dict[str, type[Detector]]:
    from river import drift  # takes longer to import than a small run

    binary = drift.binary
    made = (drift.ADWIN, drift.PageHinkley, binary.DDM, binary.EDDM, binary.HDDMA, binary.HDDMW)
    return {detector.__name__: detector for detector in made}


@cache
def _attributes() -> dict[str, dict[str, _Kind]]:
    from river import stats
    from river.drift.binary.hddm_w import SampleInfo

    def flag(value: Any, _: Detector) -> bool:
        if not isinstance(value, bool):
            raise ValueError(value)
        return value

    def numeral(value: float) -> Any:
        # JSON has no infinite numbers.
        value = value if isinstance(value, int) else float(value)
        return value if math.isfinite(value) else str(value)

    def read_number(value: Any, _: Detector) -> float:
        if value in ("inf", "-inf"):
            return float(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(value)
        return value

    def read_count(value: Any, detector: Detector) -> float:
        if not 0 <= read_number(value, detector) < math.inf:
            raise ValueError(value)
        return value  # type: ignore[no-any-return]

    def read_mean(value: Any, detector: Detector) -> Any:
        n, mean = value
        return stats.Mean._from_state(read_count(n, detector), read_number(mean, detector))

    def read_variance(value: Any, detector: Detector) -> Any:
        n, mean, squares = value
        made = stats.Var()
        made.mean, made._S = read_mean((n, mean), detector), read_count(squares, detector)
        return made

    def read_moving(value: Any, detector: Detector) -> Any:
        begun, mean, bound = value
        made = SampleInfo(detector.lambda_val)
        if flag(begun, detector):
            made._ewma.update(read_number(mean, detector))  # of a single value the mean is the value
        made._is_init, made._ibc = begun, read_count(bound, detector)
        return made

    boolean = _Kind(bool, flag)
    number = _Kind(numeral, read_number)
    count = _Kind(numeral, read_count)
    maybe = _Kind(
        lambda value: None if value is None else numeral(value),
        lambda value, detector: None if value is None else read_number(value, detector),
    )
    mean = _Kind(lambda value: [float(value.n), float(value.get())], read_mean)
    variance = _Kind(lambda value: [float(value.mean.n), float(value.mean.get()), float(value._S)], read_variance)
    moving = _Kind(lambda value: [value.is_init, value.ewma, value.ibc], read_moving)
    window = _Kind(lambda value: value.__getstate__().hex(), _read_window)

    drift, warned = {"_drift_detected": boolean}, {"_drift_detected": boolean, "_warning_detected": boolean}
    return {
        "ADWIN": drift | {"_helper": window},
        "PageHinkley": drift
        | {"_x_mean": mean, "_sum_increase": number, "_sum_decrease": number}
        | {"_min_increase": number, "_max_decrease": number},
        "DDM": warned | {"_p": mean, "_p_min": maybe, "_s_min": maybe, "_ps_min": number},
        "EDDM": warned
        | {"_error_distances": variance, "_n": count, "_last_error": count, "_n_errors": count}
        | {"_p2s_prime_max": number},
        "HDDMA": warned | dict.fromkeys(("_x_min", "_x_max", "_z"), mean),
        "HDDMW": warned
        | dict.fromkeys(("_total", "_s1_decr", "_s1_incr", "_s2_decr", "_s2_incr"), moving)
        | {"_incr_cutpoint": number, "_decr_cutpoint": number},
    }


def _read_window(value: Any, detector: Detector) -> Any:
    """Return ADWIN's window, if it is one that it can go on with."""
    from river._river_rust.drift import AdaptiveWindowing

    state = bytes.fromhex(value)
    arguments = detector._helper.__getnewargs__()
    window, trial = AdaptiveWindowing(*arguments), AdaptiveWindowing(*arguments)
    try:
        window.__setstate__(state)
        trial.__setstate__(state)
        for _ in range(2):
            trial.update(0.0)
        for _ in range(min(2 * detector.clock, 1000)):
            trial.update(1.0)
    except BaseException as error:  # what is no such state has River's Rust code panic, and that is no `Exception`
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError("not a window") from None
    numbers = window.get_width(), window.get_total(), window.get_variance()
    if window.__getnewargs__() != arguments or window.__getstate__() != state or not all(map(math.isfinite, numbers)):
        raise ValueError("not this window")
    return window
