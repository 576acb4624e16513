from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from clients.training import Outcome
from fedtp.measures import kappa
from server.round import Round
from server.verdict import Verdict
from simulations.drift import Change, Timeline
from simulations.errand import Errand
from simulations.recorder import DETECTION_WINDOW_ROUNDS, Recorder

ACCEPTED = Verdict("accepted")
EMPTY = Verdict("empty")
FOREIGN = Verdict("refused", "digest", "its projections have digest x, ours y")
BAD = Outcome(error="broken")
BROKEN = Verdict("refused", "not finite", "block '0' holds NaN")


def world(*timelines: Timeline, devices: int = 4) -> SimpleNamespace:
    lines = list(timelines) + [Timeline("a")] * (devices - len(timelines))
    learner = SimpleNamespace(
        classes=3, sizes={"0": 4, "2": 4}, scoring_bytes=lambda: 50, training_bytes=lambda blocks: 100 * len(blocks)
    )
    return SimpleNamespace(
        learner=learner,
        backprop_bytes=lambda: 400,
        timelines=lines,
        fleet=SimpleNamespace(classes=("mcu", "pi") * (devices // 2)),
        scenario=SimpleNamespace(server=SimpleNamespace(round_seconds=60.0, interval_seconds=60.0)),
    )


def outcome(
    y: list[int],
    predicted: list[int],
    loss: float = 1.0,
    detections: list[int] | None = None,
    blocks: tuple[str, ...] = ("0", "2"),
):
    labels, answers = np.array(y, np.int64), np.array(predicted, np.int64)
    return Outcome(labels, answers, int((labels == answers).sum()), loss, detections or [], blocks if y else ())


def errand(
    node: int, result=BAD, started: float = 0.0, arrived: float = 5.0, joules: float = 2.5, lost: str = ""
) -> Errand:
    return Errand(
        node=node,
        device=node - 1,
        started=started,
        arrived=arrived,
        bytes_down=100,
        bytes_up=10 * node,
        compute_seconds=1.0,
        transfer_seconds=2.0,
        joules=joules,
        outcome=result,
        lost=lost,
    )


def play(recorder: Recorder, number: int, errands: list[Errand], verdicts: dict[int, Verdict]) -> None:
    for one in errands:
        recorder.errand(one)
    start = 60.0 * (number - 1)
    nodes = tuple(one.node for one in errands)
    keyed = {(one.node, one.started): verdicts[one.node] for one in errands if one.node in verdicts}
    recorder.round(Round(number, start, start + 50.0, nodes, keyed, (), {}))


@pytest.fixture
def recorder() -> Recorder:
    """Two rounds in which everything happens that may."""
    recorder = Recorder(world(Timeline("a", (Change(30.0, "b"), Change(70.0, "a")))))
    play(
        recorder,
        1,
        [
            errand(1, outcome([0, 0, 1], [0, 1, 1], loss=0.5)),
            errand(2, outcome([], [], loss=math.nan)),
            errand(3, outcome([2, 2], [2, 0], loss=2.0), arrived=55.0),
            errand(4, outcome([1], [1], loss=math.nan), arrived=math.inf),
        ],
        {1: ACCEPTED, 2: EMPTY},
    )
    play(
        recorder,
        2,
        [
            errand(1, outcome([1, 2], [1, 1], detections=[0, 1]), started=60.0),
            errand(2, started=60.0, arrived=61.0),
        ],
        {1: FOREIGN, 2: BROKEN},
    )
    return recorder


def test_every_order_has_a_row_that_says_what_became_of_it(recorder: Recorder) -> None:
    rows = recorder.devices()
    assert rows.columns[:3] == ["round", "device", "device_class"]
    assert rows["status"].to_list() == ["accepted", "empty", "late", "lost", "refused", "refused"]
    assert rows["reason"].to_list() == [None, None, None, None, "digest", "not finite"]
    assert rows["round"].to_list() == [1, 1, 1, 1, 2, 2]
    assert rows["device"].to_list() == [0, 1, 2, 3, 0, 1]
    assert rows["device_class"].to_list() == ["mcu", "pi", "mcu", "pi", "mcu", "pi"]
    assert rows["samples"].to_list() == [3, 0, 2, 1, 2, 0]
    assert rows["correct"].to_list() == [2, 0, 1, 1, 1, 0]
    assert rows["loss"].to_list() == [0.5, None, 2.0, None, 1.0, None]
    assert rows["arrived_seconds"].to_list() == [5.0, 5.0, 55.0, None, 5.0, 61.0]
    assert rows["detections"].to_list() == [0, 0, 0, 0, 2, 0]


def test_every_round_has_a_row_that_adds_them_up(recorder: Recorder) -> None:
    rows = recorder.rounds()
    assert rows["orders"].to_list() == [4, 2]
    for status, counts in (("accepted", [1, 0]), ("empty", [1, 0]), ("late", [1, 0]), ("lost", [1, 0])):
        assert rows[status].to_list() == counts
    assert rows["refused"].to_list() == [0, 2]
    assert rows["samples"].to_list() == [6, 2]
    assert rows["accuracy"].to_list() == [4 / 6, 1 / 2]
    # Each loss as often as there are samples behind it, where it is known.
    assert rows["loss"].to_list() == [pytest.approx((3 * 0.5 + 2 * 2.0) / 5), 1.0]
    assert rows["drifts"].to_list() == [1, 1]
    assert rows["detections"].to_list() == [0, 2]
    assert rows["bytes_up"].to_list() == [100, 30]
    assert rows["joules"].to_list() == [10.0, 5.0]
    assert rows["started_seconds"].to_list() == [0.0, 60.0]
    assert rows["ended_seconds"].to_list() == [50.0, 110.0]


def test_the_summary_adds_up_the_rounds(recorder: Recorder) -> None:
    summary, rounds, devices = recorder.summary(), recorder.rounds(), recorder.devices()
    assert summary["prequential_accuracy"] == 5 / 8
    assert summary["client_rounds"] == 6
    assert summary["refusals"] == {"digest": 1, "not finite": 1}
    for name in ("bytes_up", "bytes_down", "joules", "samples"):
        assert summary[name] == rounds[name].sum() == devices[name].sum()
    for name in ("accepted", "refused", "late", "lost"):
        assert summary[f"updates_{name}"] == rounds[name].sum() == (devices["status"] == name).sum()
    assert summary["orders_empty"] == 1
    assert summary["virtual_seconds"] == 110.0
    assert summary["detection_window_seconds"] == DETECTION_WINDOW_ROUNDS * 60.0


def test_what_became_of_samples_that_were_not_learnt_at_once_is_counted() -> None:
    recorder = Recorder(world())
    late = replace(outcome([0, 1], [0, 0]), dropped=3, unlabelled=5, label_delay_seconds=30.0)
    none = Outcome(dropped=1, unlabelled=2)
    play(recorder, 1, [errand(1, late), errand(2, none)], {1: ACCEPTED, 2: EMPTY})
    play(recorder, 2, [errand(1, replace(outcome([0] * 4, [0] * 4), label_delay_seconds=90.0))], {1: ACCEPTED})
    rows, rounds, summary = recorder.devices(), recorder.rounds(), recorder.summary()
    assert rows["dropped"].to_list() == [3, 1, 0]
    assert rows["unlabelled"].to_list() == [5, 2, 0]
    assert rows["label_delay_seconds"].to_list() == [30.0, None, 90.0]
    assert (rounds["dropped"].to_list(), rounds["unlabelled"].to_list()) == ([4, 0], [7, 0])
    assert (summary["samples_dropped"], summary["samples_unlabelled"]) == (4, 7)
    assert summary["label_delay_seconds"] == pytest.approx((2 * 30 + 4 * 90) / 6)


def test_who_trained_what_and_in_how_much_memory(recorder: Recorder) -> None:
    play(
        recorder,
        3,
        [
            errand(1, outcome([1], [1], blocks=("2",)), started=120.0),
            errand(2, outcome([1], [1], blocks=()), started=120.0),
            errand(3, outcome([1], [1]), started=120.0, arrived=math.inf, lost="went off"),
        ],
        {1: ACCEPTED, 2: ACCEPTED},
    )
    rows = recorder.devices()
    assert rows["blocks"].to_list() == ["0 2", "", "0 2", "0 2", "0 2", "", "2", "", "0 2"]
    assert rows["peak_bytes"].to_list() == [200, 0, 200, 200, 200, 0, 100, 50, 200]
    assert rows["reason"].to_list()[-3:] == [None, None, "went off"]
    summary = recorder.summary()
    assert summary["updates_by_block"] == {"0": 1, "2": 2}
    assert (summary["peak_bytes"], summary["backprop_peak_bytes"]) == (200, 400)


def test_kappa_is_that_of_all_predictions(recorder: Recorder) -> None:
    truth, predicted = [0, 0, 1, 2, 2, 1, 1, 2], [0, 1, 1, 2, 0, 1, 1, 1]
    confusion = np.zeros((3, 3), np.int64)
    np.add.at(confusion, (truth, predicted), 1)
    assert recorder.summary()["kappa"] == kappa(confusion)


def test_kappa_t_compares_with_the_label_before_on_the_same_device(recorder: Recorder) -> None:
    # Labels that repeat: 0 0, 2 2, and device 1's last label 1 before its 1 of the second round.
    observed, before = 5 / 8, 3 / 8
    assert recorder.summary()["kappa_t"] == pytest.approx((observed - before) / (1 - before))


def test_events_tell_drifts_and_whether_a_detection_followed(recorder: Recorder) -> None:
    events = recorder.events()[0]
    assert events.rows() == [
        (0, "mcu", 30.0, "drift", "b", True),
        (0, "mcu", 60.0, "detection", None, None),
        (0, "mcu", 60.0, "detection", None, None),
        (0, "mcu", 70.0, "drift", "a", False),
    ]
    summary = recorder.summary()
    assert (summary["drifts_true"], summary["drifts_detected"], summary["false_alarms"]) == (2, 1, 0)


def test_a_detection_without_a_drift_is_a_false_alarm() -> None:
    recorder = Recorder(world(Timeline("a", (Change(30.0, "b"),))))
    late = 30.0 + DETECTION_WINDOW_ROUNDS * 60.0
    play(recorder, 1, [errand(2, outcome([0], [1], detections=[0]), started=0.0)], {2: ACCEPTED})
    play(recorder, 12, [errand(1, outcome([0], [1], detections=[0]), started=late + 30.0)], {1: ACCEPTED})
    summary = recorder.summary()
    assert (summary["drifts_detected"], summary["false_alarms"]) == (0, 2)


def test_what_a_device_scored_counts_whatever_became_of_its_reply() -> None:
    recorder = Recorder(world())
    play(recorder, 1, [errand(1, outcome([0, 0], [0, 1]), arrived=math.inf)], {})
    play(recorder, 2, [errand(2, outcome([1, 1], [1, 1]))], {2: FOREIGN})
    assert recorder.summary()["prequential_accuracy"] == 3 / 4


def test_rounds_without_orders_or_samples_have_no_accuracy() -> None:
    recorder = Recorder(world())
    play(recorder, 1, [], {})
    assert recorder.latest["accuracy"] is None
    play(recorder, 2, [errand(1, outcome([], [], loss=math.nan))], {1: EMPTY})
    rows, summary = recorder.rounds(), recorder.summary()
    assert rows["accuracy"].to_list() == rows["loss"].to_list() == [None, None]
    assert rows["joules"].to_list() == [0.0, 2.5]
    assert summary["prequential_accuracy"] is summary["kappa"] is summary["kappa_t"] is None
    assert recorder.devices()["samples"].to_list() == [0]


def test_an_empty_run_has_empty_frames_of_the_same_columns(recorder: Recorder) -> None:
    other = Recorder(world())
    play(other, 1, [], {})
    for one, empty in ((recorder.devices(), other.devices()), (recorder.events()[0], other.events()[0])):
        assert one.schema == empty.schema
        assert len(empty) == 0
    assert other.rounds().schema == recorder.rounds().schema
    assert recorder.devices().schema["arrived_seconds"] == pl.Float64


def test_totals_go_up_round_by_round(recorder: Recorder) -> None:
    assert [recorder.total(name) for name in ("orders", "refused", "detections")] == [6, 2, 2]
    assert recorder.latest["round"] == 2


def test_an_order_that_may_still_be_answered_waits_for_its_round() -> None:
    """In buffered mode: sent in one period, answered in the next."""
    recorder = Recorder(world())
    slow, quick = errand(1, outcome([0, 0], [0, 1]), started=10.0), errand(2, outcome([1], [1]), started=20.0)
    again = errand(2, outcome([2], [2]), started=70.0)
    recorder.errand(slow)
    recorder.errand(quick)
    fresh, stale = Verdict("accepted", staleness=0.0), Verdict("accepted", staleness=3.0)
    waiting = frozenset({(1, 10.0)})
    recorder.round(Round(1, 0.0, 60.0, (1, 2), {(2, 20.0): fresh}, (), {}, aggregations=0.0, waiting=waiting))
    recorder.errand(again)
    verdicts = {(1, 10.0): stale, (2, 70.0): fresh}
    recorder.round(Round(2, 60.0, 120.0, (2,), verdicts, (), {}, aggregations=1.5))
    rows = recorder.devices()
    assert rows.select("round", "device", "started_seconds", "staleness").rows() == [
        (1, 1, 20.0, 0.0),
        (2, 0, 10.0, 3.0),
        (2, 1, 70.0, 0.0),
    ]
    assert recorder.rounds().select("orders", "accepted", "samples", "staleness", "aggregations").rows() == [
        (1, 1, 1, 0.0, 0.0),
        (2, 2, 3, 1.5, 1.5),
    ]
    assert recorder.summary()["staleness"] == 1.0
    assert recorder.summary()["aggregations"] == 1.5


def test_a_drift_belongs_to_the_round_that_it_falls_in() -> None:
    """Whether rounds begin on time, late, or as soon as the one before has ended."""
    recorder = Recorder(world(Timeline("a", tuple(Change(t, "b") for t in (30.0, 59.0, 75.0, 95.0)))))
    for number, (start, end) in enumerate([(0.0, 5.0), (60.0, 90.0), (90.0, 91.0)], 1):
        recorder.round(Round(number, start, end, (), {}, (), {}))
    assert recorder.rounds()["drifts"].to_list() == [2, 2, 0]
