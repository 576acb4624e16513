"""When real phones could be reached: client traces in FedScale's format.

FedScale's file is a pickle of a dictionary: for each client when it became ``active`` and ``inactive``, in seconds, and
the ``finish_time`` after which its trace repeats. Pickles can run code, so that only those which hold nothing but
plain containers, numbers and text are read; JSON with the same keys does as well.
"""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

import numpy as np

from fedtp.errors import DataError
from simulations.devices.availability import Availability


def trace_availability(path: str | Path, devices: int, *, starts_at: float = 0.0) -> Availability:
    """Return devices that come and go as the clients of a trace did, one after the other and again from the first.

    Parameters
    ----------
    path
        The trace: JSON, or a pickle (``.pkl``, ``.pickle``) that holds plain values only.
    devices
        How many.
    starts_at
        How far into its trace each device is at the start, s.

    Raises
    ------
    DataError
        If the file cannot be read or a client's trace makes no sense.
    """
    clients = [_windows(path, name, client) for name, client in _read(Path(path)).items()]
    if not clients:
        raise DataError(f"{path} holds no clients.")
    used = [clients[device % len(clients)] for device in range(devices)]
    owner = np.repeat(np.arange(devices), [len(active) for active, _, _ in used])
    windows = owner, _joined([active for active, _, _ in used]), _joined([inactive for _, inactive, _ in used])
    return Availability.of([period for _, _, period in used], windows, starts_at)


class _PlainUnpickler(pickle.Unpickler):
    """Builds containers, numbers and text, and refuses whatever would have to be imported."""

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        raise pickle.UnpicklingError(f"it holds a {module_name}.{global_name}")


def _read(path: Path) -> dict[Any, Any]:
    try:
        with path.open("rb") as file:
            pickled = path.suffix in (".pkl", ".pickle")
            content = _PlainUnpickler(file).load() if pickled else json.load(file)
    except OSError as error:
        raise DataError(f"The trace {path} cannot be read: {error.strerror}.") from None
    # A broken pickle raises whatever its bytes happen to lead to.
    except Exception as error:
        raise DataError(f"The trace {path} is not a file of plain numbers and containers: {error}.") from None
    if not isinstance(content, dict):
        raise DataError(f"The trace {path} must hold a table of clients, but holds a {type(content).__name__}.")
    return content


def _windows(path: str | Path, name: object, client: object) -> tuple[list[float], list[float], float]:
    """Return when a client comes, when it goes, and after how long all repeats."""
    if not isinstance(client, dict):
        raise DataError(f"The trace {path} has no table for client {name}.")
    active, inactive, period = (client.get(key) for key in ("active", "inactive", "finish_time"))
    if not (_number(period) and period > 0):
        raise DataError(f"The trace {path} has no finish_time above 0 for client {name}.")
    if not (_numbers(active) and _numbers(inactive) and len(active) == len(inactive)):
        raise DataError(f"The trace {path} must list as many times of active as of inactive for client {name}.")
    if not all(0 <= start <= end <= period for start, end in zip(active, inactive, strict=True)):
        raise DataError(
            f"The trace {path} must have 0 <= active <= inactive <= finish_time all through for client {name}."
        )
    return active, inactive, float(period)


def _numbers(values: Any) -> TypeGuard[list[float]]:
    return isinstance(values, list | tuple) and all(map(_number, values))


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _joined(lists: list[list[float]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.concatenate([np.asarray(values, float) for values in lists])
