"""What is done about drift, on the devices and by the server."""

from __future__ import annotations

from pydantic import Field

from clients.settings import AdaptationSpec
from fedtp.run_config import ConfigValue
from server.settings import ReactionSpec


class AdaptationTable(AdaptationSpec):
    """The devices' policy, and in a table of its own how the server reacts.

    Parameters
    ----------
    server
        What the server does about drift.
    """

    server: ReactionSpec = Field(default=ReactionSpec())

    def to_config(self, prefix: str | None = None) -> dict[str, ConfigValue]:
        """Return the settings for Flower's run config, the server's under a prefix of their own."""
        devices = AdaptationSpec.model_validate(self.model_dump(exclude={"server"}))
        return {**devices.to_config(prefix), **self.server.to_config()}
