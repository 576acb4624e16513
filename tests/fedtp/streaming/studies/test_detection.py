import pytest

from fedtp.errors import ModelError
from fedtp.streaming.studies.detection import DETECTORS, ErrorWatch


@pytest.mark.parametrize("name", DETECTORS)
def test_a_change_for_the_worse_is_found_and_no_other(name: str) -> None:
    worse, better = ErrorWatch(name), ErrorWatch(name)
    found = [worse.update(error) for error in [False, False, False, True] * 200 + [True] * 300]
    assert any(found[800:]) == (name != "none")
    assert not any(found[:800])
    assert not any(better.update(error) for error in [True, False] * 400 + [False] * 400)


def test_unknown() -> None:
    with pytest.raises(ModelError, match="no drift detector 'x'; choose one of adwin, "):
        ErrorWatch("x")
