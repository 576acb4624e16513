import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import metrics

from fedtp.measures import kappa, kappa_t, match_detections


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
