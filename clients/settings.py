"""A device's settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedtp.run_config import Settings

Count = Annotated[int, Field(ge=1, le=1_000_000)]


class AdaptationSpec(Settings):
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

    prefix = "adaptation."

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
