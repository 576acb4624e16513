"""A device's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from fedtp.run_config import ConfigValue, from_config, to_config

Count = Annotated[int, Field(ge=1, le=1_000_000)]


class AdaptationSpec(BaseModel):
    """What devices do about drift, in values that fit a TOML table and Flower's run config.

    Parameters
    ----------
    policy
        Once the detector has flagged a drift: ``"boost-lr"`` learns faster; ``"reset"`` begins anew, once;
        ``"keep-own"`` goes on from the device's own blocks instead of the fleet's wherever that errs less on the latest
        samples; ``"window-retrain"`` goes over the latest samples again before each order's new ones.
        ``"none"`` does nothing.
    blocks
        Which blocks adapt: ``"all"``, the ``"last"``, or those that have ``"moved"``: from the first block on whose
        own answers have become wrong.
    samples
        For how many samples after a detection the device adapts.
    factor
        How much faster ``"boost-lr"`` learns.
    memory
        How many of the latest samples a device remembers, for all that looks at them. Of these the ones of the new
        concept are used, as `fedtp.detection.onset` tells.
    epochs
        How often ``"window-retrain"`` goes over them, each time that an order comes.

    Examples
    --------
    >>> spec = AdaptationSpec(policy="window-retrain", epochs=2)
    >>> AdaptationSpec.from_config(spec.to_config()) == spec
    True
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    policy: Literal["none", "boost-lr", "reset", "keep-own", "window-retrain"] = "none"
    blocks: Literal["all", "last", "moved"] = "all"
    samples: Count = 400
    factor: float = Field(default=2.0, gt=0, le=1e6)
    memory: int = Field(default=100, ge=20, le=1_000_000)
    epochs: Annotated[int, Field(ge=1, le=1_000)] = 3

    @property
    def remembers(self) -> bool:
        """Whether samples are needed once they have been learnt."""
        return self.policy in ("keep-own", "window-retrain") or (self.policy != "none" and self.blocks == "moved")

    def to_config(self) -> dict[str, ConfigValue]:
        """Return the settings for Flower's run config, each key with ``adaptation.`` before it."""
        return to_config(self, "adaptation.")

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Self:
        """Read the settings back from a run config.

        Raises
        ------
        ModelError
            If a setting is unknown or has a value that is not allowed.
        """
        return from_config(cls, config, "adaptation.")
