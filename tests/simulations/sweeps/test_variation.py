from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtp.errors import ScenarioError
from simulations.sweeps.variation import Variation


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("learner.lr=0.1,1", "learner.lr", ("0.1", "1")),
        ("learner.hidden=[64],[64,32]", "learner.hidden", ("[64]", "[64,32]")),
        ("devices=[{class='pi', count=3}],[{class='mcu', count=3}]", "devices", None),
        ("data.name= sea , sine ", "data.name", ("sea", "sine")),
        ("""title="a, b",'c, d'""", "title", ('"a, b"', "'c, d'")),
        (r'title="a\", b",c', "title", (r'"a\", b"', "c")),
        (r"title='a\',b", "title", (r"'a\'", "b")),
        ("server.strategy_options={a=1,b=2},{}", "server.strategy_options", ("{a=1,b=2}", "{}")),
        ("learner.lr=1", "learner.lr", ("1",)),
    ],
)
def test_commas_within_a_value_are_its_own(text: str, key: str, values: tuple[str, ...] | None) -> None:
    found = Variation.parse(text)
    assert found.key == key
    assert found.values == (values or ("[{class='pi', count=3}]", "[{class='mcu', count=3}]"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learner.lr", "write key=a,b,c"),
        ("=1,2", "write key=a,b,c"),
        ("learner.lr=", "a value is missing"),
        ("learner.lr=1,,2", "a value is missing"),
        ("learner.lr=1,2,", "a value is missing"),
        ("learner.lr=1,2,1", "the value 1 is there twice"),
        ("learner.hidden=[64,32", "a ] is missing"),
        ("learner.hidden=[{a=1]", "a } is missing"),
        ('title="a,b', 'a " is missing'),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(ScenarioError) as refused:
        Variation.parse(text)
    assert message in str(refused.value)
    assert str(refused.value).startswith(f"--vary {text}: ")


@given(
    st.lists(st.text(st.characters(blacklist_characters=",[]{}()\"'=\\"), min_size=1), min_size=1, unique_by=str.strip)
)
def test_plain_values_are_split_at_every_comma(values: list[str]) -> None:
    values = [value.strip() for value in values if value.strip()]
    if values:
        assert Variation.parse("key=" + ",".join(values)).values == tuple(values)
