"""What the tables of a scenario have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from fedtp.settings import Conflict, Problem

Seconds = Annotated[float, Field(ge=0, le=1e9)]
PositiveSeconds = Annotated[float, Field(gt=0, le=1e9)]
Share = Annotated[float, Field(gt=0, le=1)]


class Table(BaseModel):
    """A table of a scenario: it never changes, and holds nothing unknown, and no value of another type."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
    )


AnyTable = TypeVar("AnyTable", bound=Table)


def or_conflict(table: AnyTable, found: Sequence[Problem]) -> AnyTable:
    """Return a table if nothing in it conflicts."""
    if found:
        raise Conflict(found)
    return table
