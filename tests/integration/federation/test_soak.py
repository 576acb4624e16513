"""Eight devices for many rounds: nothing long-lived grows, in memory or on disk."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.soak

ROUNDS = 44
#: What is there is the median of so many rounds: of memory after the first five and at the end, of files in the middle
#: and at the end.
SETTLED, SPAN = 5, 8


def sizes_in(folder: Path) -> dict[Path, int]:
    """Return the sizes of the files in a folder, bytes."""
    found = {}
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # it was there for a moment
            if path.is_file():
                found[path.relative_to(folder)] = path.stat().st_size
    return found


def kept_in(sizes: dict[Path, int]) -> Counter[Path]:
    """Return the bytes in each folder, without the files that begin anew when they are large."""
    folders = Counter[Path]()
    for path, size in sizes.items():
        if ".log" not in path.suffixes and not path.name.startswith("events.jsonl"):
            folders[path.parent] += size
    return folders


def median(folders: dict[int, Counter[Path]], rounds: range, folder: Path) -> float:
    return statistics.median(folders[number][folder] for number in rounds)


def test_nothing_grows(federation: Callable[..., Any]) -> None:
    # One round follows the other as soon as all have answered.
    pace = ["server.rounds=1000", "server.round_seconds=60", "server.interval_seconds=1", "drift.0.at_seconds=400"]
    fed = federation("devices.0.count=8", *pace)
    memory: dict[tuple[str, int], dict[int, int]] = {}
    folders: dict[int, Counter[Path]] = {}

    def look(status: dict[str, Any]) -> None:
        number = status["round"]
        if number in folders or status["state"] != "learning":
            return
        folders[number] = kept_in(sizes_in(fed.path))
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
    middle = {folder: median(folders, range(ROUNDS // 2 - SPAN, ROUNDS // 2), folder) for folder in folders[ROUNDS - 1]}
    end = {folder: median(folders, range(ROUNDS - SPAN, ROUNDS), folder) for folder in middle}
    for folder in sorted(end):
        print(f"{folder!s:40} {middle[folder]:11,.0f} -> {end[folder]:11,.0f} bytes")
    assert not grown
    assert not [folder for folder in end if end[folder] > 1.05 * middle[folder]]
