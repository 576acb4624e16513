"""The states of many devices as one: a few large arrays, however many devices there are.

A file with an array for every block of ten thousand devices would have a header as large as itself. So what devices
have under a name is put one after another into one array, and what is the same on several devices is there once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtp.archive import Arrays
from fedtp.errors import DataError
from fedtp.streaming.state import State, apart, together

_NOTHING = -1


def stacked(states: Mapping[int, State]) -> State:
    """Return the states of devices, by their numbers, as one.

    >>> whole = stacked({7: State({"a": np.zeros(2)}, {"n": 1}), 3: State({"a": np.zeros(2)}, {"n": 2})})
    >>> whole.arrays["values/a"].shape, whole.arrays["which/a"].tolist(), whole.arrays["devices/numbers"].tolist()
    ((2,), [0, 0], [3, 7])
    """
    numbers = sorted(states)
    records = json.dumps([states[number].record for number in numbers]).encode()
    devices: Arrays = {"numbers": np.array(numbers, np.int64), "records": np.frombuffer(records, np.uint8)}
    names = dict.fromkeys(name for number in numbers for name in states[number].arrays)
    columns: dict[str, Arrays] = {"values": {}, "which": {}, "lengths": {}}
    for name in names:
        different, columns["which"][name] = _different([states[number].arrays.get(name) for number in numbers])
        columns["values"][name] = np.concatenate(different)
        columns["lengths"][name] = np.array([len(array) for array in different])
    return together({"devices": State(devices), **{key: State(arrays) for key, arrays in columns.items()}})


def unstacked(state: State) -> dict[int, State]:
    """Return the states of devices, by their numbers, that `stacked` made one of.

    Raises
    ------
    DataError
        If it is none of these.
    """
    parts = {name: part.arrays for name, part in apart(state).items()}
    try:
        numbers, records = parts["devices"]["numbers"].tolist(), json.loads(parts["devices"]["records"].tobytes())
        arrays: list[Arrays] = [{} for _ in numbers]
        for name, values in parts["values"].items():
            ends = np.cumsum(parts["lengths"][name])
            if ends[-1] != len(values):
                raise ValueError(name)
            # Each is an array of its own: whoever keeps one shall not keep all.
            different = [array.copy() for array in np.split(values, ends[:-1])]
            for own, place in zip(arrays, parts["which"][name].tolist(), strict=True):
                if place != _NOTHING:
                    own[name] = different[place]
        return {n: State(own, record) for n, own, record in zip(numbers, arrays, records, strict=True)}
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise DataError(f"they are not the states of devices: {error!r}") from None


def _different(found: Sequence[NDArray[Any] | None]) -> tuple[list[NDArray[Any]], NDArray[np.int64]]:
    """Return the arrays that differ, and for each place which of them it has."""
    places: dict[tuple[bytes, int], int] = {}
    different: list[NDArray[Any]] = []
    which = np.full(len(found), _NOTHING, np.int64)
    for row, array in enumerate(found):
        if array is not None:
            content = hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).digest()
            which[row] = places.setdefault((content, len(array)), len(different))
            if which[row] == len(different):
                different.append(array)
    return different, which
