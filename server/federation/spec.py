"""What a federation learns, and where its server is: ``federation.toml``."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedtp.data.schema import Schema
from fedtp.learner_spec import LearnerSpec
from fedtp.run_config import ConfigValue
from fedtp.settings import Conflict, Problem
from server.settings import PrivacySpec, ReactionSpec, ServerSpec, TrustSpec

Host = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9:._-]+$")]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class NetworkSpec(_Table):
    """Where the server is.

    Parameters
    ----------
    address
        By which devices reach it: a host name or an IP address.
    listen
        The address on its own host that it listens at; ``"0.0.0.0"``: all of them.
    port
        The one port that devices need.
    metrics_port
        Of a page on 127.0.0.1 with figures for Prometheus; 0: none.
    min_devices
        Learning begins when so many are there.
    insecure
        Neither encryption nor keys: whoever can reach the server can read and change everything. For trials only.
    """

    address: Host = "127.0.0.1"
    listen: Host = "127.0.0.1"
    port: int = Field(default=8443, ge=1, le=65_535)
    metrics_port: int = Field(default=0, ge=0, le=65_535)
    min_devices: int = Field(default=1, ge=1, le=1_000_000)
    insecure: bool = False


class KeepSpec(_Table):
    """What the server keeps.

    Parameters
    ----------
    checkpoints
        Of how many rounds, the latest, there are checkpoints.
    """

    checkpoints: int = Field(default=5, ge=1, le=10_000)


class FederationSpec(_Table):
    """A federation.

    Parameters
    ----------
    title
        One line for lists and reports.
    network, keep, learner, server, reactions, trust, privacy
        The tables of those names; ``learner``, ``server``, ``trust`` and ``privacy`` as in a scenario.
    adaptation
        What devices do about drift, as in a scenario; they check it.
    buffer
        How many samples a device keeps between orders while they wait for their labels; 0: any number.
    data
        The columns of the devices' rows.
    """

    title: str = Field(default="A federation", min_length=1, max_length=200)
    network: NetworkSpec = NetworkSpec()
    keep: KeepSpec = KeepSpec()
    buffer: int = Field(default=0, ge=0, le=100_000_000)
    data: Schema
    learner: LearnerSpec = LearnerSpec()
    server: ServerSpec = ServerSpec(rounds=1000, round_seconds=60.0)
    reactions: ReactionSpec = ReactionSpec()
    trust: TrustSpec = TrustSpec()
    privacy: PrivacySpec = PrivacySpec()
    adaptation: dict[str, bool | int | float | str] = Field(default={})

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.learner.pretrained or self.learner.adaptor != "none":
            raise Conflict(
                [Problem(("learner", "pretrained"), "a federation cannot begin from a pretrained network yet")]
            )
        if found := self.privacy.conflicts(self.server, self.trust, self.reactions):
            raise Conflict(found)
        return self

    def run_config(self) -> dict[str, ConfigValue]:
        """Return what server and devices are told, as Flower's run config."""
        adaptation: dict[str, ConfigValue] = {f"adaptation.{key}": value for key, value in self.adaptation.items()}
        return {
            **self.learner.to_config(),
            **self.server.to_config(),
            **self.reactions.to_config(),
            **self.trust.to_config(),
            **self.privacy.to_config(),
            **adaptation,
            "shape": ",".join(map(str, self.data.sample_shape)),
            "classes": len(self.data.classes),
            "buffer": self.buffer,
            "schema": self.data.digest,
        }
