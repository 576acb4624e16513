"""The server's settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from fedtp.run_config import Settings
from fedtp.settings import Conflict, Problem
from server.staleness import Staleness

PositiveSeconds = Annotated[float, Field(gt=0, le=1e9)]
Share = Annotated[float, Field(gt=0, le=1)]


def _timeout(earlier: dict[str, Any]) -> float:
    rounds = {"synchronous": 1.5, "buffered": 3.0}[earlier["mode"]]
    return rounds * float(earlier["round_seconds"])


def _deadline(earlier: dict[str, Any]) -> float:
    return float(earlier[{"synchronous": "round_seconds", "buffered": "timeout_seconds"}[earlier["mode"]]])


class ServerSpec(Settings):
    """What the server does.

    Parameters
    ----------
    mode
        ``"synchronous"``: rounds, each with a deadline. ``"buffered"``: a device gets its next order when it has
        answered the last one, and blocks are aggregated whenever enough updates have come.
    rounds, round_seconds
        How many rounds there are, and how long each lasts; together how long the run does. In buffered mode a round
        is just so much time.
    interval_seconds
        The least time between two orders to a device; by default ``round_seconds``. Synchronous rounds follow each
        other so fast, or as soon as one is closed where that takes longer: then there are more than ``rounds``.
    timeout_seconds
        An order that is not answered for so long is given up for lost, and its device may get another; by default one
        and a half rounds, in buffered mode three.
    deadline_seconds
        Devices and gateways answer by then if they can. Synchronous: replies that come later than this after the
        start of their round are late; the whole round by default. Buffered: the time-out by default.
    fraction
        The share of the available devices that get an order; in buffered mode, that have one at a time.
    over_selection
        Synchronous: a round closes when all but this surplus are in, ``1 / (1 + over_selection)`` of those ordered
        (Bonawitz et al. 2019, arXiv 1902.01046).
    quorum
        Synchronous: a round in which a smaller share of those ordered sends an update changes nothing.
    buffer_size
        Buffered: how many updates of a block are aggregated at a time.
    staleness, staleness_a, staleness_b
        Buffered: what an update is worth that was made from older weights, ``"constant"``, ``"hinge"`` or
        ``"polynomial"``, and the parameters of these functions (`server.staleness`).
    lr
        The server's learning rate: the share of the way from the current weights to the aggregated ones.
    strategy
        ``"mean"``, weighted by samples, or a strategy of Flower by the name of its class, run block by block.
    strategy_options
        The keyword arguments of Flower's strategy.
    """

    prefix = "server."

    mode: Literal["synchronous", "buffered"] = "synchronous"
    rounds: int = Field(default=60, ge=1, le=1_000_000)
    round_seconds: PositiveSeconds = 60.0
    interval_seconds: PositiveSeconds = Field(default_factory=lambda earlier: float(earlier["round_seconds"]))
    timeout_seconds: PositiveSeconds = Field(default_factory=_timeout)
    deadline_seconds: PositiveSeconds = Field(default_factory=_deadline)
    fraction: Share = 1.0
    over_selection: float = Field(default=0.0, ge=0, le=100)
    quorum: float = Field(default=0.0, ge=0, le=1)
    buffer_size: int = Field(default=10, ge=1, le=1_000_000)
    staleness: Staleness = "polynomial"
    staleness_a: float = Field(default=0.5, ge=0, le=1e6)
    staleness_b: float = Field(default=4.0, ge=0, le=1e6)
    lr: float = Field(default=1.0, gt=0, le=1e3)
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
    strategy_options: dict[str, bool | int | float | str] = Field(default={})

    @model_validator(mode="after")
    def _fits(self) -> Self:
        found = []
        if self.mode == "synchronous" and self.deadline_seconds > self.round_seconds:
            text = f"deadline_seconds is {self.deadline_seconds:g}, but must be at most "
            text += f"the {self.round_seconds:g} of round_seconds"
            found.append(Problem(("deadline_seconds",), text))
        if self.interval_seconds > self.round_seconds:
            text = f"interval_seconds is {self.interval_seconds:g}, but must be at most "
            text += f"the {self.round_seconds:g} of round_seconds"
            found.append(Problem(("interval_seconds",), text))
        if self.strategy == "mean" and self.strategy_options:
            text = 'strategy_options are given, but the strategy "mean" has none: '
            text += "leave them out or name a strategy of Flower"
            found.append(Problem(("strategy_options",), text))
        if found:
            raise Conflict(found)
        return self

    @property
    def duration_seconds(self) -> float:
        """How long the run lasts, s."""
        return self.rounds * self.round_seconds


class ReactionSpec(Settings):
    """How the server reacts, in values that fit a TOML table and Flower's run config.

    Parameters
    ----------
    reaction
        ``"participation"``: devices that have drifted are asked first, where not all are (`fraction` below 1).
        ``"boost"``: once many have drifted, all devices learn faster for a while. ``"reset"``: all begin anew then,
        once. ``"none"`` does nothing.
    blocks
        Which blocks are boosted or reset: ``"all"``, or the ``"last"``.
    rounds
        For how many rounds after its detection a device counts as one that has drifted, and for how many a boost lasts.
    share
        Of the devices that reported in these rounds, how many must have drifted before all are boosted or reset.
    factor
        How much faster they learn.

    Examples
    --------
    >>> spec = ReactionSpec(reaction="boost", share=0.5)
    >>> ReactionSpec.from_config(spec.to_config()) == spec
    True
    """

    prefix = "reactions."

    reaction: Literal["none", "participation", "boost", "reset"] = "none"
    blocks: Literal["all", "last"] = "all"
    rounds: int = Field(default=5, ge=1, le=1_000_000)
    share: Annotated[float, Field(gt=0, le=1)] = 0.3
    factor: float = Field(default=2.0, gt=0, le=1e6)


class PrivacySpec(Settings):
    """What the model may tell of a device, in values that fit a TOML table and Flower's run config.

    Parameters
    ----------
    clip
        No update of a device has a larger norm, over all blocks together: the device scales a larger one down to it
        before it is sent. 0: any norm.
    noise
        Standard deviation of the Gaussian noise in the sum of the updates, divided by `clip`; 0: none, and no privacy.
        Each update counts alike then, whatever its samples.
    delta
        The δ for which ε is told: far less than one in the number of devices.

    Examples
    --------
    >>> PrivacySpec.from_config(PrivacySpec(clip=1.0, noise=0.5).to_config()).noise
    0.5
    """

    prefix = "privacy."

    clip: float = Field(default=0.0, ge=0, le=1e9)
    noise: float = Field(default=0.0, ge=0, le=1e6)
    delta: float = Field(default=1e-5, gt=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.noise and not self.clip:
            text = f"noise is {self.noise:g}, but clip is 0: noise hides what has a bound, so give one"
            raise Conflict([Problem(("noise",), text)])
        return self

    def conflicts(self, server: ServerSpec, trust: TrustSpec, reactions: ReactionSpec) -> list[Problem]:
        """Return which other settings would tell what the noise hides, or take away its bound."""
        if not self.noise:
            return []
        found = []
        if server.mode != "synchronous" or server.strategy != "mean":
            text = (
                'privacy.noise needs server.mode "synchronous" and server.strategy "mean": the noise is for a mean in '
            )
            found.append(Problem(("privacy", "noise"), text + "which each device is once"))
        if trust.norm_bound:
            text = (
                "privacy.noise is given, and trust.norm_bound: by the norms of some devices others would be refused, "
            )
            found.append(Problem(("privacy", "noise"), text + "which tells of them; privacy.clip bounds norms already"))
        if reactions.reaction != "none":
            text = (
                "privacy.noise is given, and the server reacts to drift, which tells of the devices that have drifted: "
            )
            found.append(Problem(("privacy", "noise"), text + "choose the reaction none"))
        return found


class TrustSpec(Settings):
    """What the server believes of updates that hold what they must, in values that fit a TOML table and a run config.

    Parameters
    ----------
    norm_bound
        An update is refused if what it changes in a block has a norm of more than this many times the running median
        of that block's updates; 0: none is. It is that of the latest 64; nothing is refused before there are 8.
    quarantine_after
        So many refused updates, or errors, of a device put it into quarantine; each accepted one makes up for one.
        0: none ever is.
    quarantine_rounds
        For how many rounds a device in quarantine gets no order: the first time, and twice as many at each relapse.

    Examples
    --------
    >>> TrustSpec.from_config(TrustSpec(norm_bound=10.0).to_config()).norm_bound
    10.0
    """

    prefix = "trust."

    norm_bound: float = Field(default=0.0, ge=0, le=1e9)
    quarantine_after: int = Field(default=0, ge=0, le=1_000_000)
    quarantine_rounds: int = Field(default=10, ge=1, le=1_000_000)
