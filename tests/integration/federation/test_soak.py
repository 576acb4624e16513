"""Eight devices for many rounds: nothing long-lived grows, in memory or on disk."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.soak

ROUNDS = 44
#: Memory is that of so many rounds, in the median: after the first five, and at the end.
SETTLED, SPAN = 5, 8


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_nothing_grows(federation: Callable[..., Any]) -> None:
    # One round follows the other as soon as all have answered.
    pace = ["server.rounds=1000", "server.round_seconds=60", "server.interval_seconds=1", "drift.0.at_seconds=400"]
    fed = federation("devices.0.count=8", *pace)
    memory: dict[tuple[str, int], dict[int, int]] = {}
    sizes: dict[int, dict[Path, int]] = {}

    def look(status: dict[str, Any]) -> None:
        number = status["round"]
        if number in sizes or status["state"] != "learning":
            return
        sizes[number] = {path.relative_to(fed.path): path.stat().st_size for path in files(fed.path)}
        for name, process in fed.long_lived():
            memory.setdefault((name, process.pid), {})[number] = process.memory_full_info().uss

    fed.start()
    fed.learn_for(ROUNDS, look)
    print()
    grown = []
    for (name, _), found in sorted(memory.items()):
        # Each lived all the time: none was started again.
        assert set(found) >= set(range(SETTLED + 1, ROUNDS)), (name, sorted(found), fed.logs())
        first, last = (
            statistics.median(found[number] for number in numbers)
            for numbers in (range(SETTLED + 1, SETTLED + 1 + SPAN), range(ROUNDS - SPAN, ROUNDS))
        )
        print(f"{name:40} {first / 1e6:7.1f} MB {last / first - 1:+7.2%}")
        if last > 1.05 * first:
            grown.append(name)
    half, end = sizes[ROUNDS // 2], sizes[ROUNDS - 1]
    for path, size in sorted(end.items()):
        if size > half.get(path, 0):
            print(f"{path}: {half.get(path, 0):,} -> {size:,} bytes")
    assert not grown
