"""What a real device's rows look like: declared once, and the same for all who learn together."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator

from fedtp.errors import DataError
from fedtp.settings import Conflict, Problem, did_you_mean, literal

Name = Annotated[str, Field(min_length=1, max_length=200)]
Names = Annotated[tuple[Name, ...], Strict(False)]
Numbers = Annotated[tuple[float, ...], Strict(False)]

# Inputs are squared when a device learns; those beyond this are of no use to it.
_LARGEST = 1e15


class Schema(BaseModel):
    """The columns of a row, and what becomes of them.

    Parameters
    ----------
    features
        Names of the columns that hold numbers, in the order of the network's inputs.
    label
        Name of the column that holds the class.
    classes
        What may stand there, in the order of the network's outputs.
    offset, scale
        For each feature: the network sees ``(value - offset) / scale``. All devices share them, or the mean of their
        weights would mean nothing; none by default.
    shape
        The shape of a sample, for networks that need one: ``(height, width)`` of an image, say. By default a row.

    Examples
    --------
    >>> schema = Schema(features=("hour", "load"), label="price", classes=("DOWN", "UP"), scale=(24.0, 1.0))
    >>> x, y = schema.parse({"hour": "12", "load": 0.25, "price": "UP"})
    >>> x.tolist(), y
    ([0.5, 0.25], 1)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    features: Names = Field(min_length=1, max_length=1_000_000)
    label: Name = "label"
    classes: Names = Field(min_length=2, max_length=100_000)
    offset: Numbers = ()
    scale: Numbers = ()
    shape: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Strict(False)] = ()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        found = []
        for name in ("features", "classes"):
            names = getattr(self, name)
            if len(set(names)) < len(names):
                twice = next(name for name, count in Counter(names).items() if count > 1)
                found.append(Problem((name,), f"{name} name {literal(twice)} twice"))
        if self.label in self.features:
            found.append(Problem(("label",), f"label is {literal(self.label)}, which is one of the features too"))
        for name in ("offset", "scale"):
            if (values := getattr(self, name)) and len(values) != len(self.features):
                text = (
                    f"{name} has {len(values)} numbers, but must have one for each of the {len(self.features)} features"
                )
                found.append(Problem((name,), text))
        if any(value <= 0 for value in self.scale):
            found.append(Problem(("scale",), "scale holds a number that is not above 0"))
        if self.shape and math.prod(self.shape) != len(self.features):
            text = f"shape is {literal(list(self.shape))}, but there are {len(self.features)} features"
            found.append(Problem(("shape",), text))
        if found:
            raise Conflict(found)
        return self

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of a sample."""
        return self.shape or (len(self.features),)

    @property
    def digest(self) -> str:
        """A short hash of all that those who learn together must agree on."""
        return hashlib.blake2b(json.dumps(self.model_dump()).encode(), digest_size=8).hexdigest()

    def parse(self, row: Mapping[str, object]) -> tuple[NDArray[np.float32], int | None]:
        """Return a row as the network sees it, ``[features]``, and the index of its class.

        Parameters
        ----------
        row
            Numbers or text by column, as CSV or JSON give them; further columns are ignored.

        Returns
        -------
        tuple
            The index is None where the label is missing or empty.

        Raises
        ------
        DataError
            If a feature is missing or not a finite number of usable size, or the label is no class.
        """
        values = np.array([_number(name, row) for name in self.features], np.float64)
        if self.offset:
            values -= self.offset
        if self.scale:
            values /= self.scale
        if np.abs(values).max() > _LARGEST:
            name = self.features[int(np.abs(values).argmax())]
            raise DataError(f"{literal(name)} is {literal(row[name])}, which is too large to learn from")
        given = row.get(self.label)
        if given is None or given == "":
            return values.astype(np.float32), None
        text = _text(given)
        if text not in self.classes:
            hint = did_you_mean(text, self.classes)
            raise DataError(f"{literal(self.label)} is {literal(given)}, which is none of the classes{hint}")
        return values.astype(np.float32), self.classes.index(text)

    @classmethod
    def infer(cls, rows: Iterable[Mapping[str, object]], label: str) -> Self:
        """Return the schema that fits rows: all other columns are features, scaled to mean 0 and deviation 1.

        Raises
        ------
        DataError
            If there are no rows, one lacks a column or holds no number, or there are not two classes.
        """
        table = list(rows)
        if not table:
            raise DataError("there are no rows to tell the columns from")
        if label not in table[0]:
            hint = did_you_mean(label, table[0])
            raise DataError(f"there is no column {literal(label)}{hint}")
        features = [name for name in table[0] if name != label]
        if not features:
            raise DataError(f"there is no column beside {literal(label)} to learn from")
        values = np.empty((len(table), len(features)))
        for index, row in enumerate(table):
            try:
                values[index] = [_number(name, row) for name in features]
            except DataError as error:
                raise DataError(f"row {index + 1}: {error}; leave such columns out") from None
        classes = _ordered({_text(row[label]) for row in table if row.get(label) not in (None, "")})
        if len(classes) < 2:
            raise DataError(f"column {literal(label)} must hold at least two classes, and holds {len(classes)}")
        spread = values.std(axis=0)
        return cls(
            features=tuple(features),
            label=label,
            classes=tuple(classes),
            # As exact as the spread asks for: times in seconds since 1970, say, are large and lie close together.
            offset=tuple(
                round(mean, 6 - math.floor(math.log10(deviation))) if deviation else mean
                for mean, deviation in zip(values.mean(axis=0).tolist(), spread.tolist(), strict=True)
            ),
            scale=tuple(float(f"{deviation:.6g}") if deviation else 1.0 for deviation in spread),
        )


def _number(name: str, row: Mapping[str, object]) -> float:
    value: Any = row.get(name)
    if value is None or value == "":
        raise DataError(f"{literal(name)} is missing")
    if isinstance(value, str | int | float):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    raise DataError(f"{literal(name)} is {literal(value)}, which is not a finite number")


def _text(label: object) -> str:
    """Return a label as text: JSON tells 1 from "1", CSV does not."""
    if isinstance(label, bool):
        return str(label).lower()
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def _ordered(classes: Iterable[str]) -> Sequence[str]:
    names = sorted(classes)
    try:
        return sorted(names, key=float)
    except ValueError:
        return names
