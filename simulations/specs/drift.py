"""What changes, when, and for whom."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, Strict, model_validator

from fedtp.settings import Problem, alternatives
from simulations.specs.table import PositiveSeconds, Seconds, Share, Table, or_conflict

#: The change-point matrices of FedDrift (Jothimurugesan et al., arXiv 2206.00799): ten clients, eleven time steps.
MATRICES = {
    "A": (
        "0000000000 0100000000 0100000100 0111010100 0111010110 1011011010 1001001010 1000101011 1000101001 1000101001 "
        "1000101001"
    ),
    "B": (
        "0000000000 1110000000 1112220000 2212222100 2221222130 2321233130 3321133210 3033133213 0033313223 0003311322 "
        "0003311322"
    ),
    "C": (
        "0000000000 1112220000 1112220030 2211222130 2221232130 2321133130 3323133210 3033313213 0033313223 0003311322 "
        "0003311322"
    ),
    "W": (
        "0000000000 0000000000 0100000100 0100000100 0111010100 0111010110 1111011110 1111011110 1111111111 1111111111 "
        "1111111111"
    ),
}

Kind = Literal["sudden", "gradual", "incremental", "recurring", "random"]

_OneOrMore = Annotated[
    tuple[str, ...],
    Strict(False),
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    PlainSerializer(lambda value: value[0] if len(value) == 1 else list(value)),
    Field(min_length=1, json_schema_extra={"description": "or one in a text of its own"}),
]


class DriftSpec(Table):
    """A change of concept.

    Parameters
    ----------
    kind
        ``"sudden"``; ``"gradual"`` (more and more samples are of the new concept); ``"incremental"`` (the concept
        itself moves, step by step); ``"recurring"`` (the new concepts and the one before take turns); or ``"random"``
        (each device goes from one of the concepts to another by chance, again and again).
    concepts
        Called ``concept`` in TOML. The new concept. Of several, each device gets one by chance; a recurring drift
        goes through all of them, and a random one draws from them again and again.
    at_seconds
        When it begins.
    stagger_seconds
        Each device drifts at a time of its own, drawn uniformly from this many seconds after `at_seconds`; if
        0, all drift in step.
    groups
        If above 0, the devices drift in so many groups instead, one after another, at equal distances within
        `stagger_seconds`.
    width_seconds
        Of a gradual drift: the time over which the share of the new concept rises from 0 to 1; of an incremental one:
        the time that the concept is on its way.
    steps
        Of an incremental drift: in how many equal steps the concept moves, the first at `at_seconds`, the last
        `width_seconds` later; 10 if None.
    period_seconds
        Of a recurring drift: the time spent in each concept; of a random one: its mean, the times being
        exponentially distributed.
    fraction
        The share of the devices that drift.
    """

    kind: Kind
    concepts: _OneOrMore = Field(alias="concept")
    at_seconds: Seconds
    stagger_seconds: Seconds = 0.0
    groups: int = Field(default=0, ge=0, le=1_000_000)
    width_seconds: Seconds = 0.0
    steps: int | None = Field(default=None, ge=2, le=1000)
    period_seconds: Seconds = 0.0
    fraction: Share = 1.0

    @model_validator(mode="before")
    @classmethod
    def _has_steps(cls, table: Any) -> Any:
        if isinstance(table, dict) and table.get("kind") == "incremental":
            return {**table, "steps": table.get("steps") or 10}
        return table

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        found = []
        needs: tuple[tuple[str, tuple[str, ...]], ...] = (
            ("width_seconds", ("gradual", "incremental")),
            ("period_seconds", ("recurring", "random")),
            ("steps", ("incremental",)),
        )
        for key, kinds in needs:
            value = getattr(self, key)
            if self.kind in kinds and not value:
                drift = f"{'an' if self.kind == 'incremental' else 'a'} {self.kind} drift"
                found.append(Problem((key,), f"{key} is missing: {drift} needs a time above 0"))
            elif self.kind not in kinds and value:
                text = f"{key} is {value:g}, but only {alternatives(kinds)} drifts have one: leave it out"
                found.append(Problem((key,), text))
        if self.groups and not self.stagger_seconds:
            found.append(Problem(("groups",), f"groups is {self.groups}, but stagger_seconds is 0: all drift in step"))
        if self.kind == "random" and len(set(self.concepts)) < 2:
            found.append(
                Problem(("concept",), "concept must be a list of at least 2 where a random drift draws from it")
            )
        return or_conflict(self, found)


class DriftMatrixSpec(Table):
    """Who sees which concept when, as a change-point matrix.

    Parameters
    ----------
    matrix
        ``"A"``, ``"B"``, ``"C"`` or ``"W"`` of FedDrift, or rows of one's own: a row for each time step, a digit for
        each device, the number of its concept. Devices beyond the columns take the columns in turn.
    concepts
        The concepts that the digits stand for, from 0.
    step_seconds
        How long a time step is; None: the run divided by the rows.
    """

    matrix: Literal["A", "B", "C", "W"] | Annotated[tuple[str, ...], Strict(False)]
    concepts: Annotated[tuple[str, ...], Strict(False), Field(min_length=1, max_length=10)]
    step_seconds: PositiveSeconds | None = None

    @property
    def rows(self) -> tuple[tuple[int, ...], ...]:
        """The numbers of the concepts, row by row."""
        rows = MATRICES[self.matrix].split() if isinstance(self.matrix, str) else self.matrix
        return tuple(tuple(map(int, row)) for row in rows)

    @model_validator(mode="after")
    def _is_a_matrix(self) -> Self:
        if not isinstance(self.matrix, str):
            bad = [row for row in self.matrix if not (row.isascii() and row.isdigit())]
            if bad or not self.matrix or len({len(row) for row in self.matrix}) > 1:
                text = "matrix must be rows of digits, all of one length"
                return or_conflict(self, [Problem(("matrix",), text)])
        most = max(map(max, self.rows))
        if most >= len(self.concepts):
            text = f"concepts has {len(self.concepts)} entries, but the matrix speaks of concept {most}, counted from 0"
            return or_conflict(self, [Problem(("concepts",), text)])
        return self
