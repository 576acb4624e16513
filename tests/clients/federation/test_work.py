"""A real device between orders: on disk, whatever happens in between."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from clients.federation.app import work
from clients.federation.folder import DeviceFolder
from clients.federation.place import ARCHIVE, Place
from fedtp.data.schema import Schema
from fedtp.errors import DataError, WireError
from fedtp.learner import learner_of
from fedtp.learner_spec import LearnerSpec
from fedtp.wire import Order, Report

SCHEMA = Schema(features=("a", "b"), label="y", classes=("no", "yes"))
CONFIG = {
    **LearnerSpec(hidden=(4,), batch_size=2, momentum=0.5, detector="adwin").to_config(),
    "shape": "2",
    "classes": 2,
    "schema": SCHEMA.digest,
}
LEARNER = learner_of(CONFIG)
ORDER = Order(1, 60.0, LEARNER.digest, LEARNER.initial_weights(), tuple(LEARNER.sizes))
#: Kills itself at the nth call of a function.
KILLED = """
import importlib, os, sys
from pathlib import Path
module, owner, function, when, number, tests, folder = sys.argv[1:]
sys.path.insert(0, tests)
import test_work
place = importlib.import_module(module)
place = getattr(place, owner) if owner else place
real, calls = getattr(place, function), 0
def killed(*arguments, **named):
    global calls
    calls += 1
    if calls == int(number) and when == "before":
        os.kill(os.getpid(), 9)
    result = real(*arguments, **named)
    if calls == int(number):
        os.kill(os.getpid(), 9)
    return result
setattr(place, function, killed)
test_work.work(test_work.DeviceFolder(Path(folder)), test_work.ORDER, test_work.CONFIG)
"""
MOMENTS = {
    "before it takes samples": ("clients.sources.directory", "DirectoryStream", "take", "before", 1),
    "before it learns": ("clients.app", "", "learn", "before", 1),
    "when it has learnt": ("clients.app", "", "learn", "after", 1),
    "before bad rows are kept": ("clients.federation.app", "", "put", "before", 1),
    "when bad rows are kept": ("clients.federation.app", "", "put", "after", 1),
    "while the state is written": ("os", "", "fsync", "before", 1),
    "before the state is in place": ("pathlib", "Path", "replace", "before", 1),
    "when the state is in place": ("pathlib", "Path", "replace", "after", 1),
}


def table(first: int, count: int) -> str:
    rng = np.random.default_rng(first)
    x = rng.normal(size=(count, 2)).round(3)
    return "".join(f"{a},{b},{'yes' if a > b else 'no'}\n" for a, b in x)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    own = tmp_path / "one"
    (own / "data").mkdir(parents=True)
    tables = {
        "name": "one",
        "server": "127.0.0.1:1",
        "insecure": True,
        "data": SCHEMA.model_dump(exclude_defaults=True),
    }
    (own / "device.toml").write_text(tomli_w.dumps(tables))
    (own / "data" / "1.csv").write_text("a,b,y\n" + table(1, 20) + "bad\n")
    return own


@pytest.fixture
def device(folder: Path) -> Callable[[Order], Report]:
    """Carry out an order in what could be a process of its own."""

    def carry_out(order: Order) -> Report:
        result = work(DeviceFolder(folder), order, CONFIG)
        assert isinstance(result, Report)
        return result

    return carry_out


def same(one: Report, other: Report) -> bool:
    return replace(one, weights={}) == replace(other, weights={}) and all(
        np.array_equal(one.weights[name], other.weights[name]) for name in {**one.weights, **other.weights}
    )


def test_it_learns_and_says_so(folder: Path, device) -> None:
    report = device(ORDER)
    assert (report.samples, report.id, set(report.weights)) == (20, "one-1", set(LEARNER.sizes))
    (kept,) = (folder / "quarantine" / "rows.jsonl").read_text().splitlines()
    assert '"row": "bad"' in kept


def test_a_report_is_sent_until_it_is_heard(folder: Path, device) -> None:
    first = device(ORDER)
    with (folder / "data" / "1.csv").open("a") as file:
        file.write(table(2, 10))
    assert same(device(replace(ORDER, round=2)), first)
    second = device(replace(ORDER, round=3, heard=("other-7", "one-1")))
    assert (second.samples, second.id) == (10, "one-2")
    assert same(device(replace(ORDER, round=4, heard=("one-1",))), second)
    assert device(replace(ORDER, round=5, heard=("one-2",))).samples == 0


def test_what_the_server_does_not_want_is_not_sent_for_ever(folder: Path, device) -> None:
    first = device(ORDER)
    for _ in range(9):
        assert same(device(ORDER), first)
    assert device(ORDER).samples == 0
    assert device(ORDER).samples == 0


def test_a_report_on_other_blocks_is_of_no_use(device) -> None:
    device(ORDER)
    assert device(replace(ORDER, blocks=("0",))).samples == 0


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_no_sample_is_learnt_twice_and_none_is_lost(
    folder: Path, device, moment: str, tmp_path: Path
) -> None:
    expected = work(DeviceFolder(_copy(folder, tmp_path / "unbroken")), ORDER, CONFIG)
    command = [sys.executable, "-c", KILLED, *map(str, MOMENTS[moment]), str(Path(__file__).parent), str(folder)]
    done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == -signal.SIGKILL, done.stderr
    # The report never left; the next order is another one.
    report = device(replace(ORDER, round=2))
    assert isinstance(expected, Report)
    assert same(report, expected)
    assert device(replace(ORDER, round=3, heard=("one-1",))).samples == 0
    assert not list(folder.rglob(".*"))


def test_a_disk_that_is_full_takes_nothing(folder: Path, device, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("fedtp.folder.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(DataError, match="No space left on device"):
            device(ORDER)
    assert device(ORDER).samples == 20


def test_a_device_on_a_disk_that_is_full_loses_nothing(folder: Path, disk: Path, fill) -> None:
    """What no trick of a test shows: the whole device on a small file system, which is full for some orders."""
    own = _copy(folder, disk / "one")
    first = work(DeviceFolder(own), ORDER, CONFIG)
    assert isinstance(first, Report)
    with (own / "data" / "1.csv").open("a") as file:
        file.write(table(2, 30))
    filler, second = fill(), replace(ORDER, round=2, heard=(first.id,))
    for _ in range(3):
        with pytest.raises(DataError, match="No space left on device"):
            work(DeviceFolder(own), second, CONFIG)
    filler.unlink()
    done = work(DeviceFolder(own), second, CONFIG)
    assert isinstance(done, Report)
    assert (done.samples, done.id) == (30, "one-2")
    assert {path.name for path in (own / "state").iterdir()} == {"device.safetensors"}


def test_bad_rows_are_kept_when_they_have_been_passed(folder: Path, device, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise DataError("no")

    with monkeypatch.context() as patch:
        patch.setattr("clients.training._check_samples", fail)
        for _ in range(3):
            assert work(DeviceFolder(folder), ORDER, CONFIG) == "no"
    assert not (folder / "quarantine").exists()
    device(ORDER)
    assert len((folder / "quarantine" / "rows.jsonl").read_text().splitlines()) == 1


def test_where_the_device_reads_is_looked_up_when_it_has_changed(folder: Path, device, monkeypatch) -> None:
    one, reads = Place(folder), []
    read = ARCHIVE.read
    monkeypatch.setattr(type(ARCHIVE), "read", lambda self, path: (reads.append(path), read(path))[1])
    assert one.reading() == ""
    device(ORDER)
    reads.clear()
    assert [one.reading() for _ in range(5)] == ["1.csv"] * 5
    assert len(reads) == 1
    (folder / "data" / "2.csv").write_text("a,b,y\n" + table(2, 20))
    device(replace(ORDER, round=2, heard=("one-1",)))
    assert one.reading() == "2.csv"


def test_damage_is_said(folder: Path, device) -> None:
    device(ORDER)
    path = DeviceFolder(folder).state
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match="move it away to have the device begin anew"):
        device(ORDER)
    path.unlink()
    assert device(ORDER).samples == 20


def test_other_columns_are_said_once_and_for_all(folder: Path) -> None:
    with pytest.raises(WireError, match="the columns of device one are not those of the federation"):
        work(DeviceFolder(folder), ORDER, {**CONFIG, "schema": "other"})


def test_an_order_for_another_network_is_an_answer(folder: Path) -> None:
    said = work(DeviceFolder(folder), replace(ORDER, digest="other"), CONFIG)
    assert isinstance(said, str)
    assert "server and device must be given the same seed" in said
    assert not DeviceFolder(folder).state.exists()


def test_a_source_may_be_a_function(folder: Path) -> None:
    text = (folder / "device.toml").read_text()
    source = {"kind": "function", "function": "simulations.world:open_stream"}
    options = {"scenario": "sea-sudden", "partition-id": 0}
    (folder / "device.toml").write_text(text + tomli_w.dumps({"source": {**source, "options": options}}))
    assert "must yield inputs of 2 features" in str(work(DeviceFolder(folder), ORDER, CONFIG))


def _copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))
