import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import metrics

from fedtp.measures import (
    Recovery,
    RecoveryMeter,
    confidence_margin,
    detection_delays,
    kappa,
    kappa_t,
    match_detections,
)


def confusion_of(true: list[int], predicted: list[int], classes: int) -> np.ndarray:
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (true, predicted), 1)
    return confusion


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_kappa_is_rivers(pairs: list[tuple[int, int]]) -> None:
    true, predicted = ([pair[i] for pair in pairs] for i in (0, 1))
    river = metrics.CohenKappa()
    for t, p in pairs:
        river.update(t, p)
    found = kappa(confusion_of(true, predicted, 4))
    if found is None:
        assert {*true} == {*predicted}
        assert len({*true}) == 1
    else:
        assert found == pytest.approx(river.get(), abs=1e-12)


def test_kappa_by_hand() -> None:
    # 70 of 100 agree; chance agrees in 0.5 * 0.6 + 0.5 * 0.4 = 0.5
    assert kappa(np.array([[40, 10], [20, 30]])) == pytest.approx(0.4)
    assert kappa(np.array([[7, 0], [0, 3]])) == 1.0
    assert kappa(np.array([[0, 5], [5, 0]])) == -1.0


def test_kappa_of_a_long_stream_does_not_overflow() -> None:
    assert kappa(np.array([[4, 1], [1, 4]], np.int64) * 10**17) == pytest.approx(0.6)


@pytest.mark.parametrize("confusion", [np.zeros((3, 3), np.int64), np.array([[0, 0], [0, 9]])])
def test_kappa_is_undefined_without_a_choice(confusion: np.ndarray) -> None:
    assert kappa(confusion) is None


def test_kappa_t_by_hand() -> None:
    # "the same as before" is right in 6 of 10, the model in 8: it closes half of the gap.
    assert kappa_t(correct=8, same=6, samples=10) == pytest.approx(0.5)
    assert kappa_t(correct=6, same=6, samples=10) == 0
    assert kappa_t(correct=0, same=5, samples=10) == -1
    assert kappa_t(correct=10, same=0, samples=10) == 1


def test_kappa_t_is_undefined_where_nothing_ever_changes() -> None:
    assert kappa_t(0, 0, 0) is None
    assert kappa_t(correct=9, same=10, samples=10) is None


@pytest.mark.parametrize(
    ("drifts", "detections", "detected", "false_alarms"),
    [
        ([], [], [], 0),
        ([], [1, 2], [], 2),
        ([10], [], [False], 0),
        ([10], [9.9], [False], 1),
        ([10], [10], [True], 0),
        ([10], [15], [True], 0),
        ([10], [15.1], [False], 1),
        ([10], [11, 12, 13], [True], 0),
        ([10, 12], [13], [False, True], 0),
        ([10, 12], [11, 18], [True, False], 1),
        ([10, 10], [11], [False, True], 0),
        ([10, 100], [1, 12, 50, 101, 104, 106], [True, True], 3),
    ],
)
def test_detections_belong_to_the_latest_drift(
    drifts: list[float], detections: list[float], detected: list[bool], false_alarms: int
) -> None:
    assert match_detections(drifts, detections, window=5) == (detected, false_alarms)


def test_delays_by_hand() -> None:
    # The first detection of each drift counts; one that comes too late, or before any drift, is none.
    assert detection_delays([10, 100, 200], [1, 12, 14, 106, 203], window=5) == [2, None, 3]
    assert detection_delays([10, 12], [13], window=5) == [None, 1]
    assert detection_delays([], [1], window=5) == []


def recoveries(outcomes: str, drifts: list[int], **options: float) -> list[Recovery]:
    """Measure ``"+"`` for right and ``"-"`` for wrong."""
    meter = RecoveryMeter(drifts, **{"window": 4, "before": 8, "share": 0.95, **options})  # type: ignore[arg-type]
    for outcome in outcomes:
        meter.update(outcome == "+")
    return meter.recoveries


def test_recovery_by_hand() -> None:
    # Before: 6 of 8. Needed: 0.95 * 0.75 * 4 = 2.85, that is 3 of 4. The windows after the drift hold 1, 2, 2, 3.
    assert recoveries("--++++++" + "--+-" + "+-++", [8]) == [
        Recovery(drift=8, before=0.75, samples=8, area_lost=0.75 * 8 - 4)
    ]


def test_recovery_does_not_count_samples_from_before_the_drift() -> None:
    assert recoveries("+" * 8 + "+++", [8])[0].samples is None
    assert recoveries("+" * 8 + "++++", [8])[0] == Recovery(8, 1.0, 4, 0.0)


def test_only_the_last_samples_before_a_drift_tell_what_was_lost() -> None:
    assert recoveries("-" * 50 + "+" * 8 + "----", [58])[0] == Recovery(58, 1.0, None, 4.0)


def test_what_comes_after_the_recovery_is_not_lost() -> None:
    assert recoveries("+" * 8 + "-++++" + "-" * 20, [8])[0] == Recovery(8, 1.0, 5, 1.0)


def test_a_drift_ends_what_the_one_before_it_lost() -> None:
    first, second = recoveries("+" * 8 + "------" + "++++", [8, 14])
    assert first == Recovery(8, 1.0, None, 6.0)
    assert second == Recovery(14, 0.0, 4, -4.0)  # nothing was known, so nothing could be lost


@pytest.mark.parametrize("drifts", [[0], [3]])
def test_recovery_is_undefined_with_too_little_before(drifts: list[int]) -> None:
    assert recoveries("+" * 20, drifts) == [Recovery(drifts[0], None, None, None)]


def test_a_drift_after_another_has_only_what_is_between_them_before_it() -> None:
    assert recoveries("+" * 8 + "--" + "----", [8, 10])[1] == Recovery(10, None, None, None)


def test_a_drift_that_has_not_come_is_not_measured() -> None:
    assert recoveries("+" * 8, [8]) == []


def test_exactly_enough_is_enough() -> None:
    # 0.7 of 10 is 7.000000000000001 of 10 for a computer.
    assert recoveries("+" * 10 + "+" * 7 + "-" * 3, [10], window=10, before=10, share=0.7)[0].samples == 10


def test_the_margin_of_a_mean() -> None:
    # Student's t for 2 degrees of freedom is 4.3027; the spread of 1, 2, 3 is 1.
    assert confidence_margin([1.0, 2.0, 3.0]) == pytest.approx(4.3027 / 3**0.5, abs=1e-4)
    assert confidence_margin([[1.0, 5.0], [1.0, 5.0]]).tolist() == [0, 0]
