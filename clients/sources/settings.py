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
        ``"directory"``: a folder of CSV and JSON-lines files that are appended to. ``"mqtt"``: a topic of an MQTT
        broker, whose messages are put into such a folder. ``"function"``: a function of yours that opens a stream.
    path
        The folder, from the device's own folder on.
    samples_per_order
        How many samples are taken at most for an order of the server; 0: all that are there. What is left waits.
    function
        By import path, as ``"package.module:name"``. It is given `options` and the settings of the server, and
        returns a `fedtp.data.stream.Stream`.
    options
        What the function is told.
    topic, host, port
        What is subscribed to, and where: each message is a row, a JSON object.
    user, password_file
        The device's name at the broker, and the file with its password; none by default.
    ca_file
        The certificate of the broker's authority; without it there is no TLS.
    cert_file, key_file
        The device's own certificate and its private key, for a broker that knows devices by them; none by default.
    capacity_mb
        So many megabytes of messages wait in the folder at most; the broker keeps what comes then.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    kind: Literal["directory", "mqtt", "function"] = "directory"
    path: str = Field(default="data", min_length=1)
    samples_per_order: int = Field(default=0, ge=0, le=10_000_000)
    function: str = ""
    options: dict[str, ConfigValue] = Field(default={})
    topic: str = Field(default="", max_length=65_535)
    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=1883, ge=1, le=65_535)
    user: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    capacity_mb: float = Field(default=100.0, gt=0, le=1e6)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.kind == "function") != bool(self.function):
            text = 'function must be given for the kind "function", and for no other'
            raise Conflict([Problem(("function",), text)])
        if (self.kind == "mqtt") != bool(self.topic):
            text = 'topic must be given for the kind "mqtt", and for no other'
            raise Conflict([Problem(("topic",), text)])
        if bool(self.cert_file) != bool(self.key_file) or (self.cert_file and not self.ca_file):
            text = "cert_file, key_file and ca_file belong together: a certificate, its key, and the broker's authority"
            raise Conflict([Problem(("cert_file",), text)])
        return self
