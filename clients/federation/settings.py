"""A device's own file, ``device.toml``."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from clients.sources.directory import DirectoryStream
from clients.sources.settings import SourceSpec
from fedtp.data.schema import Schema
from fedtp.data.stream import Stream
from fedtp.federation import DEVICE_FILE
from fedtp.loading import load_object
from fedtp.run_config import ConfigValue
from fedtp.settings_file import read_settings


class DeviceSpec(BaseModel):
    """A device.

    Parameters
    ----------
    name
        By which the server calls it.
    server
        Host and port of the server.
    insecure
        Neither encryption nor keys, as the server's file says.
    source
        Where its samples come from.
    data
        The columns of its rows, the same for the whole federation.
    budget
        What it can afford for an order: ``memory_bytes`` and the like, as in docs/devices.md.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    server: str = Field(pattern=r"^.+:\d{1,5}$", description="a host and a port, with a colon between")
    insecure: bool = False
    source: SourceSpec = SourceSpec()
    data: Schema
    budget: dict[str, ConfigValue] = Field(default={})

    @classmethod
    def read(cls, folder: Path) -> DeviceSpec:
        """Read a device's file.

        Raises
        ------
        DataError
            If it does not hold what it must.
        """
        return read_settings(cls, folder / DEVICE_FILE)

    def open_stream(self, folder: Path, config: dict[str, ConfigValue]) -> Stream:
        """Open the device's stream.

        Parameters
        ----------
        folder
            The device's.
        config
            What the server told.
        """
        if self.source.kind == "function":
            opened: Stream = load_object(self.source.function, "source.function")({**config, **self.source.options})
            return opened
        return DirectoryStream(folder / self.source.path, self.data, self.source.samples_per_order)
