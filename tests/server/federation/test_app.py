"""The ServerApp of a real federation: what it keeps of a round, and how it goes on."""

from __future__ import annotations

import json

import pytest
from safetensors.numpy import load_file

from fedtp.errors import FedtpError
from fedtp.folder import append_lines
from server.clock import SystemClock
from server.federation import app as module
from server.federation.checkpoints import Checkpoints
from server.federation.folder import LEARN, REST, ServerFolder

A, B = 101, 102


def events(folder: ServerFolder) -> list[dict]:
    return [json.loads(line) for line in folder.events.read_text().splitlines()]


def test_the_clock_goes_on() -> None:
    assert 500 <= SystemClock(begun=500.0).now() < 501


def test_a_round_leaves_all_that_is_needed(folder: ServerFolder, learn) -> None:
    learn()
    status = folder.status()
    assert (status["state"], status["round"], status["rounds"]) == ("finished", 3, 3)
    assert (status["samples"], status["correct"], status["accuracy"]) == (60, 42, 0.7)
    assert {name: (one["rounds"], one["samples"]) for name, one in status["devices"].items()} == {
        "one": (3, 30),
        "two": (3, 30),
    }
    kinds = [event["kind"] for event in events(folder)]
    assert kinds == ["begun", *["round", "order", "order"] * 3, "finished"]
    assert {(event["round"], event["device"]) for event in events(folder) if event["kind"] == "order"} == {
        (number, name) for number in (1, 2, 3) for name in ("one", "two")
    }
    latest = Checkpoints(folder.checkpoints, 5).latest()
    assert latest is not None
    assert latest.round == 3
    assert set(load_file(folder.model)["0.weight"].ravel()) == {101.5}


def test_answers_are_noted_once_where_there_are_no_rounds(folder: ServerFolder, learn) -> None:
    learn(**{"server.mode": "buffered", "server.interval_seconds": 0.25, "server.buffer_size": 2})
    orders = [event for event in events(folder) if event["kind"] == "order"]
    assert all(order["status"] == "accepted" for order in orders)
    assert sum(order["samples"] for order in orders) == folder.status()["samples"] == 10 * len(orders)
    assert sum(one["samples"] for one in folder.status()["devices"].values()) == folder.status()["samples"]
    assert len(orders) > 8


def test_it_rests_after_the_round_in_flight_and_goes_on(folder: ServerFolder, learn, monkeypatch) -> None:
    save = Checkpoints.save

    def then_rest(self: Checkpoints, checkpoint) -> None:
        save(self, checkpoint)
        if checkpoint.round == 2:
            folder.write_wish(REST)

    monkeypatch.setattr(Checkpoints, "save", then_rest)
    learn()
    assert (folder.status()["state"], folder.status()["round"]) == ("resting", 2)
    folder.write_wish(LEARN)
    learn()
    assert (folder.status()["state"], folder.status()["round"], folder.status()["samples"]) == ("finished", 3, 60)
    assert [event["round"] for event in events(folder) if event["kind"] == "round"] == [1, 2, 3]
    assert [event["started_seconds"] for event in events(folder) if event["kind"] == "round"] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("mode", ["synchronous", "buffered"])
def test_orders_of_a_run_that_died_are_not_waited_for(folder: ServerFolder, learn, monkeypatch, mode: str) -> None:
    """Their answers went to another run, and this grid would not know their ids."""

    class Killed(BaseException):
        pass

    export = module._export

    def die(*arguments: object) -> None:
        export(*arguments)
        raise Killed

    monkeypatch.setattr(module, "_export", die)
    with pytest.raises(Killed):
        learn(**{"server.mode": mode})
    monkeypatch.setattr(module, "_export", export)
    learn(**{"server.mode": mode})
    assert folder.status()["state"] == "finished"


def test_a_disk_that_is_full_does_not_end_it(folder: ServerFolder, learn, monkeypatch) -> None:
    real = Checkpoints.save

    def save(self: Checkpoints, checkpoint) -> None:
        if checkpoint.round == 2:
            raise OSError(28, "No space left on device")
        real(self, checkpoint)

    monkeypatch.setattr(Checkpoints, "save", save)
    learn()
    (event,) = [event for event in events(folder) if event["kind"] == "not saved"]
    assert (event["round"], "No space left" in event["why"]) == (2, True)
    assert folder.status()["round"] == 3


def test_events_that_cannot_be_written_do_not_end_it(folder: ServerFolder, learn, monkeypatch) -> None:
    calls = []

    def append(*arguments: object, **named: object) -> None:
        calls.append(arguments)
        if len(calls) in (3, 4):
            raise OSError(28, "No space left on device")
        append_lines(*arguments, **named)

    monkeypatch.setattr("server.federation.journal.append_lines", append)
    learn()
    assert [event["round"] for event in events(folder) if event["kind"] == "round"] == [1, 3]
    assert (folder.status()["state"], folder.status()["samples"]) == ("finished", 60)


def test_checkpoints_of_another_network_are_refused(folder: ServerFolder, learn) -> None:
    learn()
    with pytest.raises(FedtpError, match="are of another network"):
        learn(**{"learner.hidden": "5"})
    assert folder.status()["state"] == "failed"
