from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedtp.data.schema import Schema
from fedtp.errors import DataError
from fedtp.settings import problems

SCHEMA = Schema(features=("a", "b"), label="y", classes=("no", "yes"), offset=(1.0, 0.0), scale=(2.0, 1.0))
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def test_numbers_come_as_text_or_as_numbers() -> None:
    for row in ({"a": "5", "b": " 2.5 ", "y": "yes"}, {"a": 5, "b": 2.5, "y": "yes", "more": None}):
        x, y = SCHEMA.parse(row)
        assert (x.tolist(), y, x.dtype) == ([2.0, 2.5], 1, np.float32)


@pytest.mark.parametrize("label", [None, ""])
def test_a_row_may_have_no_label(label: object) -> None:
    assert SCHEMA.parse({"a": 1, "b": 1, "y": label})[1] is None
    assert SCHEMA.parse({"a": 1, "b": 1})[1] is None


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"b": 1, "y": "no"}, '"a" is missing'),
        ({"a": "", "b": 1}, '"a" is missing'),
        ({"a": "warm", "b": 1}, '"a" is "warm", which is not a finite number'),
        ({"a": "nan", "b": 1}, "not a finite number"),
        ({"a": "1e400", "b": 1}, "not a finite number"),
        ({"a": 10**400, "b": 1}, "not a finite number"),
        ({"a": [1], "b": 1}, "not a finite number"),
        ({"a": 1, "b": 1e30}, '"b" is 1e.30, which is too large to learn from'),
        ({"a": 1, "b": 1, "y": "Yes"}, 'none of the classes; did you mean "yes"'),
    ],
)
def test_what_is_wrong_with_a_row_is_said(row: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        SCHEMA.parse(row)


@given(st.dictionaries(st.sampled_from(["a", "b", "y", "z"]), anything))
def test_whatever_a_row_holds_it_is_learnt_from_or_refused(row: dict[str, object]) -> None:
    try:
        x, y = SCHEMA.parse(row)
    except DataError:
        return
    assert np.isfinite(np.vdot(x, x))
    assert y in (None, 0, 1)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(-9, 9), st.sampled_from("pq")), min_size=4, max_size=40))
def test_rows_are_scaled_as_those_they_were_inferred_from(rows: list[tuple[float, int, str]]) -> None:
    rows = [*rows, (0.5, 1, "p"), (1.5, 2, "q")]
    file = io.StringIO()
    csv.writer(file).writerows([("u", "v", "class"), *rows])
    file.seek(0)
    table = list(csv.DictReader(file))
    schema = Schema.infer(table, "class")
    assert (schema.features, schema.classes) == (("u", "v"), ("p", "q"))
    x = np.array([schema.parse(row)[0] for row in table])
    spread = np.array([(u, v) for u, v, _ in rows]).std(axis=0)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=2e-3 if spread.min() > 1e-3 else np.inf)
    np.testing.assert_allclose(x.std(axis=0)[spread > 1e-3], 1, rtol=1e-3)


def test_classes_that_are_numbers_are_in_their_order() -> None:
    schema = Schema.infer([{"x": i, "label": str(i)} for i in (10, 9, 2)], "label")
    assert schema.classes == ("2", "9", "10")
    assert schema.parse({"x": 1, "label": 9})[1] == schema.parse({"x": 1, "label": "9"})[1] == 1


@pytest.mark.parametrize(
    ("rows", "label", "said"),
    [
        ([], "y", "there are no rows"),
        ([{"x": 1, "label": "a"}], "lable", 'no column "lable"; did you mean "label"'),
        ([{"y": "a"}], "y", "no column beside"),
        ([{"x": 1, "y": "a"}, {"x": "hot", "y": "b"}], "y", 'row 2: "x" is "hot"'),
        ([{"x": 1, "y": "a"}], "y", "at least two classes, and holds 1"),
    ],
)
def test_what_cannot_be_inferred_is_said(rows: list[dict[str, object]], label: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Schema.infer(rows, label)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features": ("a", "a")}, 'features name "a" twice'),
        ({"label": "a"}, "one of the features too"),
        ({"offset": (1.0,)}, "offset has 1 numbers"),
        ({"scale": (1.0, 0.0)}, "not above 0"),
        ({"shape": (3,)}, "but there are 2 features"),
    ],
)
def test_a_schema_that_does_not_fit_together_is_refused(change: dict[str, object], said: str) -> None:
    given = {**SCHEMA.model_dump(), **change}
    with pytest.raises(ValidationError) as raised:
        Schema.model_validate(given)
    assert said in problems(raised.value, Schema, given)[0].text


def test_the_digest_tells_schemas_apart() -> None:
    assert SCHEMA.digest == Schema.model_validate(SCHEMA.model_dump()).digest
    assert SCHEMA.digest != SCHEMA.model_copy(update={"classes": ("yes", "no")}).digest
