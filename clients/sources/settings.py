"""Where a device's samples come from, as its own file says under ``[source]``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedtp.run_config import ConfigValue
from fedtp.settings import Conflict, Problem


class SourceSpec(BaseModel):
    """A source of samples.

    Parameters
    ----------
    kind
        ``"directory"``: a folder of CSV and JSON-lines files that are appended to. ``"function"``: a function of yours
        that opens a stream.
    path
        The folder, from the device's own folder on.
    samples_per_order
        How many samples are taken at most for an order of the server; 0: all that are there. What is left waits.
    function
        By import path, as ``"package.module:name"``. It is given `options` and the settings of the server, and
        returns a `fedtp.data.stream.Stream`.
    options
        What the function is told.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    kind: Literal["directory", "function"] = "directory"
    path: str = Field(default="data", min_length=1)
    samples_per_order: int = Field(default=0, ge=0, le=10_000_000)
    function: str = ""
    options: dict[str, ConfigValue] = Field(default={})

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.kind == "function") != bool(self.function):
            text = 'function must be given for the kind "function", and for no other'
            raise Conflict([Problem(("function",), text)])
        return self
