"""The server's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedtp.run_config import ConfigValue, from_config, to_config
from fedtp.settings import Conflict, Problem

PositiveSeconds = Annotated[float, Field(gt=0, le=1e9)]
Share = Annotated[float, Field(gt=0, le=1)]


class ServerSpec(BaseModel):
    """What the server does.

    Parameters
    ----------
    rounds, round_seconds
        How many rounds there are, and how long after one the next begins.
    deadline_seconds
        Replies that come later than this after the start of their round are late; the whole round by default.
    fraction
        The share of the available devices that get an order.
    strategy
        ``"mean"``, weighted by samples, or a strategy of Flower by the name of its class, run block by block.
    strategy_options
        The keyword arguments of Flower's strategy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    rounds: int = Field(default=60, ge=1, le=1_000_000)
    round_seconds: PositiveSeconds = 60.0
    deadline_seconds: PositiveSeconds = Field(default_factory=lambda earlier: float(earlier["round_seconds"]))
    fraction: Share = 1.0
    strategy: Literal[
        "mean",
        "FedAvg",
        "FedAvgM",
        "FedAdagrad",
        "FedAdam",
        "FedYogi",
        "FedMedian",
        "FedTrimmedAvg",
        "Krum",
        "MultiKrum",
        "Bulyan",
    ] = "mean"
    strategy_options: dict[str, bool | int | float | str] = {}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        found = []
        if self.deadline_seconds > self.round_seconds:
            text = f"deadline_seconds is {self.deadline_seconds:g}, but must be at most "
            text += f"the {self.round_seconds:g} of round_seconds"
            found.append(Problem(("deadline_seconds",), text))
        if self.strategy == "mean" and self.strategy_options:
            text = 'strategy_options are given, but the strategy "mean" has none: '
            text += "leave them out or name a strategy of Flower"
            found.append(Problem(("strategy_options",), text))
        if found:
            raise Conflict(found)
        return self

    def to_config(self) -> dict[str, ConfigValue]:
        """Return the settings for Flower's run config, each key with ``server.`` before it."""
        return to_config(self, "server.")

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Self:
        """Read the settings back from a run config.

        Raises
        ------
        ModelError
            If a setting is unknown or has a value that is not allowed.
        """
        return from_config(cls, config, "server.")
