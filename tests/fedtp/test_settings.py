from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError, model_validator

from fedtp.settings import Conflict, Problem, did_you_mean, dotted, literal, problems


class Circle(BaseModel, extra="forbid"):
    kind: Literal["circle"]
    radius: float = Field(gt=0)


class Square(BaseModel, extra="forbid"):
    kind: Literal["square"]
    side: float
    tags: tuple[int | str, ...] = ()


class Sheet(BaseModel, extra="forbid"):
    low: int = 0
    high: int = 1

    @model_validator(mode="after")
    def _ordered(self) -> "Sheet":
        if self.low > self.high:
            raise Conflict([Problem(("low",), f"low is {self.low}, above high")])
        return self


class Drawing(BaseModel, extra="forbid"):
    shapes: dict[str, Annotated[Circle | Square, Field(discriminator="kind")]] = {}
    sheets: tuple[Sheet, ...] = Field(default=(), max_length=2)
    corner: tuple[int, int] = (0, 0)
    scale: float | None = Field(default=None, ge=1, le=2000)
    title: str = "untitled"


def explain(data: object) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Drawing.model_validate(data)
    return [problem.text for problem in problems(caught.value, Drawing, data)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"titel": "x"}, ['titel is not a known key; did you mean "title"?']),
        ({"zzz": 1}, ["zzz is not a known key; the keys there are shapes, sheets, corner, scale, title"]),
        ({"scale": 0}, ["scale is 0, but must be a finite number from 1 to 2,000"]),
        ({"title": 3}, ["title is 3, but must be text"]),
        ({"corner": [1]}, ["corner.1 is missing: it must be a whole number"]),
        ({"corner": "x"}, ['corner is "x", but must be a list of 2, each a whole number']),
        ({"sheets": [{"low": "a"}]}, ['sheets.0.low is "a", but must be a whole number']),
        ({"sheets": [{}, {"low": 3}]}, ["sheets.1.low is 3, above high"]),
        (
            {"sheets": [{}] * 3},
            ["sheets is [{}, {}, {}], but must be a list of 0 to 2 entries, each a table "],
        ),
        (
            {"sheets": 1},
            ["sheets is 1, but must be a list of 0 to 2 entries, each a table with the keys low, high"],
        ),
        (
            {"shapes": {"a": {"kind": "circle", "radius": -1}}},
            ["shapes.a.radius is -1, but must be a finite number"],
        ),
        (
            {"shapes": {"a": {"kind": "circle"}}},
            ["shapes.a.radius is missing: it must be a finite number, above 0"],
        ),
        (
            {"shapes": {"a": {"kind": "circle", "radius": 1, "radios": 1}}},
            ['shapes.a.radios is not a known key; did you mean "shapes.a.radius"?'],
        ),
        (
            {"shapes": {"a": {"kind": "cirle"}}},
            ['shapes.a.kind is "cirle", but must be "circle" or "square"; did you mean "circle"?'],
        ),
        ({"shapes": {"a": {}}}, ['shapes.a.kind is missing: it must be "circle" or "square"']),
        ({"shapes": {"a": 1}}, ['shapes.a is 1, but must be a table whose kind is "circle" or "square"']),
        (
            {"shapes": {"a b": {"kind": "square", "side": 1, "tags": [1, [2]]}}},
            ['shapes."a b".tags.1 is [2], but must be a whole number or text'],
        ),
        ("no table", ['"no table"']),
    ],
)
def test_sentences(data: object, expected: list[str]) -> None:
    texts = explain(data)
    assert len(texts) == len(expected)
    for text, start in zip(texts, expected, strict=True):
        assert start in text


def test_a_key_of_another_table_is_offered() -> None:
    class Nested(BaseModel, extra="forbid"):
        drawing: Drawing

    data = {"drawing": {}, "scale": 2}
    with pytest.raises(ValidationError) as caught:
        Nested.model_validate(data)
    assert problems(caught.value, Nested, data)[0].text.endswith('did you mean "drawing.scale"?')


def test_names() -> None:
    assert dotted(("a", 0, "b c")) == 'a.0."b c"'
    assert literal("x" * 100).endswith("...")
    assert did_you_mean("PHONE_LOW", ["phone-low"]) == '; did you mean "phone-low"?'
