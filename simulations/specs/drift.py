"""What changes, when, and for whom."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from fedtp.settings import Problem
from simulations.specs.table import Seconds, Share, Table, or_conflict


class DriftSpec(Table):
    """A change of concept.

    Parameters
    ----------
    kind
        ``"sudden"``, ``"gradual"``, or ``"recurring"`` (alternates between the concept before and this one).
    concept
        The new concept.
    at_seconds
        When it begins.
    stagger_seconds
        Each device drifts at a time of its own, drawn uniformly from this many seconds after `at_seconds`; if
        0, all drift in step.
    width_seconds
        Of a gradual drift: the time over which the share of the new concept rises from 0 to 1.
    period_seconds
        Of a recurring drift: the time spent in each concept.
    fraction
        The share of the devices that drift.
    """

    kind: Literal["sudden", "gradual", "recurring"]
    concept: str
    at_seconds: Seconds
    stagger_seconds: Seconds = 0.0
    width_seconds: Seconds = 0.0
    period_seconds: Seconds = 0.0
    fraction: Share = 1.0

    @model_validator(mode="after")
    def _times_belong_to_kind(self) -> Self:
        found = []
        for key, kind in (("width_seconds", "gradual"), ("period_seconds", "recurring")):
            value = getattr(self, key)
            if self.kind == kind and value == 0:
                found.append(Problem((key,), f"{key} is missing: a {kind} drift needs a time above 0"))
            elif self.kind != kind and value > 0:
                found.append(Problem((key,), f"{key} is {value:g}, but only a {kind} drift has one: leave it out"))
        return or_conflict(self, found)
