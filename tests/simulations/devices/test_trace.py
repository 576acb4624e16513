"""FedScale's traces, and files that only look like them."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from fedtp.errors import DataError
from simulations.devices.trace import trace_availability

# A client of FedScale's own file, shortened.
CLIENT = {
    "duration": 211_625,
    "inactive": [65_881, 133_574, 208_292],
    "finish_time": 518_400,
    "active": [12_788, 100_044, 188_992],
    "model": "CPH1801",
}


@pytest.mark.parametrize("kind", ["trace.json", "trace.pkl", "trace.pickle"])
def test_clients_are_taken_in_turn(tmp_path: Path, kind: str) -> None:
    path, clients = tmp_path / kind, {1: CLIENT, 2: {"active": [0], "inactive": [50_000], "finish_time": 100_000}}
    path.write_bytes(json.dumps(clients).encode() if kind.endswith("json") else pickle.dumps(clients))
    there = trace_availability(path, 3)
    assert there.now(20_000.0).tolist() == [True, True, True]
    assert there.now(70_000.0).tolist() == [False, False, False]
    assert there.now(120_000.0).tolist() == [True, True, True]
    assert there.remaining(120_000.0, np.arange(3)) == pytest.approx([13_574.0, 30_000.0, 13_574.0])
    np.testing.assert_array_equal(there.now(518_400.0 + 20_000.0)[[0, 2]], True)
    assert trace_availability(path, 1, starts_at=60_000.0).now(10_000.0).tolist() == [False]


class Command:
    def __reduce__(self):
        return os.system, ("false",)


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.pkl"
    path.write_bytes(pickle.dumps({1: Command()}))
    with pytest.raises(DataError, match=r"not a file of plain numbers .* posix.system"):
        trace_availability(path, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "must hold a table of clients, but holds a list"),
        ("{}", "holds no clients"),
        ("nonsense", "not a file of plain numbers"),
        ('{"7": 3}', "no table for client 7"),
        ('{"7": {"active": [1], "inactive": [2]}}', "no finish_time above 0 for client 7"),
        ('{"7": {"active": [1], "inactive": [2], "finish_time": NaN}}', "no finish_time above 0 for client 7"),
        ('{"7": {"active": [1, 2], "inactive": [2], "finish_time": 9}}', "as many times of active as of inactive"),
        ('{"7": {"active": ["1"], "inactive": [2], "finish_time": 9}}', "as many times of active as of inactive"),
        ('{"7": {"active": [3], "inactive": [2], "finish_time": 9}}', "0 <= active <= inactive <= finish_time"),
        ('{"7": {"active": [3], "inactive": [12], "finish_time": 9}}', "0 <= active <= inactive <= finish_time"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "trace.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        trace_availability(path, 1)


def test_a_broken_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.pkl"
    path.write_bytes(b"\x80\x04nonsense")
    with pytest.raises(DataError, match="not a file of plain numbers"):
        trace_availability(path, 1)


def test_a_client_that_never_came_is_never_there(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"a": {"active": [], "inactive": [], "finish_time": 10}}))
    assert not trace_availability(path, 2).now(5.0).any()
