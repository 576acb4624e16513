from __future__ import annotations

import numpy as np
import pytest

from fedtp.detection import detect, make_detector
from fedtp.errors import ModelError

NAMES = ["adwin", "page-hinkley", "ddm", "hddm-w"]


def errors(*parts: tuple[int, float], seed: int = 1) -> list[bool]:
    """Errors at one rate after another."""
    rng = np.random.default_rng(seed)
    return [bool(e) for count, rate in parts for e in rng.random(count) < rate]


@pytest.mark.parametrize("name", NAMES)
def test_every_detector_notices_that_errors_became_frequent(name: str) -> None:
    flagged = detect(make_detector(name, clock=1), errors((300, 0.1), (300, 0.9)))
    assert any(300 < position < 400 for position in flagged)


@pytest.mark.parametrize("name", NAMES)
def test_none_flags_that_errors_became_rare(name: str) -> None:
    assert detect(make_detector(name, clock=1), errors((300, 0.9), (300, 0.05))) == []


def test_a_relapse_after_an_improvement_is_flagged() -> None:
    flagged = detect(make_detector("adwin", clock=1), errors((200, 0.9), (200, 0.02), (200, 0.9)))
    assert flagged
    assert all(400 <= position < 450 for position in flagged)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_it_does_not_matter_how_many_errors_come_at_once(name: str, chunk: int) -> None:
    shown = errors((200, 0.8), (300, 0.05), (200, 0.9))
    whole = detect(make_detector(name, clock=1), shown)
    detector, pieces = make_detector(name, clock=1), []
    for start in range(0, len(shown), chunk):
        pieces += [start + position for position in detect(detector, shown[start : start + chunk])]
    assert pieces == whole


def test_without_a_detector_nothing_is_flagged() -> None:
    assert make_detector("none") is None
    assert detect(None, [True] * 100) == []


def test_an_unknown_detector_is_refused_with_the_names_of_the_known() -> None:
    with pytest.raises(ModelError, match="adwin, page-hinkley, ddm, hddm-w, none"):
        make_detector("adwim")
