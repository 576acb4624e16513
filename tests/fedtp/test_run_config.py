import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from fedtp.errors import ModelError
from fedtp.learner_spec import LearnerSpec
from fedtp.run_config import from_config, to_config


class Everything(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    flag: bool = False
    whole: int = 0
    number: float = 0.0
    text: str = ""
    maybe: float | None = None
    sizes: tuple[int, ...] = (64,)
    table: dict[str, bool | int | float | str] = {}


everything = st.builds(
    Everything,
    flag=st.booleans(),
    whole=st.integers(-(2**63), 2**63 - 1),
    number=st.floats(allow_nan=False, allow_infinity=False),
    text=st.text(max_size=10),
    maybe=st.none() | st.floats(0, 1),
    sizes=st.lists(st.integers(0, 100), max_size=4),
    table=st.dictionaries(st.text(max_size=5), st.booleans() | st.integers(0, 9) | st.text(max_size=5), max_size=3),
)


@settings(max_examples=50, deadline=None)
@given(everything, st.sampled_from(["learner.", "", "a.b."]))
def test_settings_come_back_as_they_were(settings: Everything, prefix: str) -> None:
    config = to_config(settings, prefix)
    assert all(type(value) in (bool, int, float, str) for value in config.values()), "Flower takes nothing else"
    assert all(name.startswith(prefix) for name in config)
    assert from_config(Everything, config, prefix) == settings


def test_the_form_that_a_person_sees() -> None:
    settings = Everything(sizes=(32, 16), table={"beta": 0.5})
    assert to_config(settings, "a.") == {
        "a.flag": False,
        "a.whole": 0,
        "a.number": 0.0,
        "a.text": "",
        "a.sizes": "32,16",
        "a.table": '{"beta": 0.5}',
    }


@pytest.mark.parametrize(("typed", "sizes"), [("", ()), (8, (8,)), ("8", (8,)), (" 8, 9 ,", (8, 9)), ("8,-1", (8, -1))])
def test_lists_as_they_are_typed(typed: object, sizes: tuple[int, ...]) -> None:
    assert from_config(Everything, {"sizes": typed}, "").sizes == sizes


def test_an_empty_list_is_not_the_default() -> None:
    assert from_config(LearnerSpec, to_config(LearnerSpec(hidden=()), "x."), "x.").hidden == ()


def test_keys_of_others_are_left_alone() -> None:
    assert from_config(Everything, {"b.flag": 3, "aflag": 3, "flag": 3, "a.whole": 2}, "a.") == Everything(whole=2)


def test_what_is_left_out_has_its_default() -> None:
    assert from_config(Everything, {}, "a.") == Everything()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("a.whole", "many", 'a.whole is "many", but must be a whole number'),
        ("a.sizes", "8,big", 'a.sizes.1 is "big", but must be a whole number'),
        ("a.sizes", "8,1.5", 'a.sizes.1 is "1.5", but must be a whole number'),
        ("a.table", "{beta", "a.table is "),
        ("a.table", "[1]", "a.table is "),
        ("a.flagg", True, 'a.flagg is not a known key; did you mean "a.flag"?'),
    ],
)
def test_what_does_not_fit_is_named(key: str, value: object, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        from_config(Everything, {key: value}, "a.")
    assert str(caught.value).startswith(message)


def test_every_problem_has_its_line() -> None:
    with pytest.raises(ModelError) as caught:
        from_config(Everything, {"whole": "x", "number": "y", "more": 1}, "")
    assert len(str(caught.value).splitlines()) == 3
