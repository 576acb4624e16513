"""The folder of a federation: where what is, and how it begins."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from fedtp.errors import DataError, FedtpError
from fedtp.federation import CA, DEVICE_FILE, DEVICE_KEY
from fedtp.folder import Results, write_whole
from fedtp.settings_file import read_settings
from server.federation.certificates import write_authority, write_device, write_server
from server.federation.spec import FederationSpec

SPEC = "federation.toml"
#: What the server shall do; it finds out by looking.
LEARN, REST = "learn", "rest"
FEDERATIONS = Results("federation", (SPEC,), replaceable=False)


@dataclass(frozen=True)
class ServerFolder:
    """What the server has in its folder.

    Parameters
    ----------
    path
        The federation's folder.
    """

    path: Path

    @classmethod
    def of(cls, path: Path) -> ServerFolder:
        """Return the folder of a federation.

        Raises
        ------
        FedtpError
            If it is none.
        """
        if not (path / SPEC).is_file() or not (path / "server").is_dir():
            raise FedtpError(f"{path} is not the folder of a federation: make one with `fedtp federation init {path}`")
        return cls(path.resolve())

    @property
    def server(self) -> Path:
        """What stays on the server's host."""
        return self.path / "server"

    @property
    def home(self) -> Path:
        """Flower's own folder."""
        return self.server / "flower"

    @property
    def logs(self) -> Path:
        """What the processes print."""
        return self.server / "logs"

    @property
    def checkpoints(self) -> Path:
        """What the server knows after each of the last rounds."""
        return self.server / "checkpoints"

    @property
    def model(self) -> Path:
        """The model after the last round."""
        return self.server / "model.safetensors"

    @property
    def events(self) -> Path:
        """What happened, a JSON object a line."""
        return self.server / "events.jsonl"

    @property
    def keys(self) -> list[Path]:
        """The public keys of the devices; a key's stem is the device's name."""
        return sorted((self.server / "keys").glob("*.pub"))

    def spec(self) -> FederationSpec:
        """Read ``federation.toml``.

        Raises
        ------
        DataError
            If it does not hold what it must.
        """
        return read_settings(FederationSpec, self.path / SPEC)

    def names(self) -> dict[str, str]:
        """Return the devices' names by the ids under which Flower knows them."""
        return self._read("devices.json")

    def write_names(self, names: Mapping[str, str]) -> None:
        """Note the devices' names."""
        write_whole(self.server / "devices.json", json.dumps(dict(names), indent=2) + "\n")

    def status(self) -> dict[str, Any]:
        """Return what the server last told of itself; nothing if it never has."""
        return self._read("status.json")

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Tell how things are."""
        write_whole(self.server / "status.json", json.dumps(dict(status), indent=1) + "\n")

    @property
    def wish(self) -> str:
        """What the server shall do."""
        try:
            return (self.server / "wish").read_text("utf-8").strip()
        except OSError:
            return REST

    def write_wish(self, wish: str) -> None:
        """Say what the server shall do."""
        write_whole(self.server / "wish", wish + "\n")

    def _read(self, name: str) -> dict[str, Any]:
        path = self.server / name
        try:
            found = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path} cannot be read: {error}") from None
        if not isinstance(found, dict):
            raise DataError(f"{path} does not hold what the server writes there")
        return found


def make_federation(
    path: Path, spec: FederationSpec, devices: Sequence[str], source: Mapping[str, Any] | None = None
) -> ServerFolder:
    """Make the folder of a new federation, all or nothing.

    Parameters
    ----------
    path
        Where; it must not exist, or be empty.
    spec
        What is learnt, and where the server is.
    devices
        The devices' names: each gets a folder, and a key.
    source
        Where a device's data comes from, ``[source]`` in its file; a value ``"{index}"`` becomes the device's number,
        from 0. By default a folder of CSV or JSON-lines files.

    Raises
    ------
    FedtpError
        If there is something already, or it cannot be written.
    """
    for name in devices:
        if not _is_name(name):
            raise FedtpError(f'a device cannot be called "{name}": letters, digits, dots, dashes and underscores')
        if list(devices).count(name) > 1:
            raise FedtpError(f"there are two devices called {name}: give each a name of its own")
    with FEDERATIONS.fresh_folder(path) as fresh:
        fresh.chmod(0o700)
        server = fresh / "server"
        for folder in (server, server / "keys", server / "flower", server / "logs", server / "checkpoints"):
            folder.mkdir(mode=0o700)
        (fresh / SPEC).write_text(tomli_w.dumps(_tables(spec)), "utf-8")
        if not spec.network.insecure:
            write_authority(server / CA, server / "ca.key")
            write_server(server, [spec.network.address, spec.network.listen])
        (fresh / "devices").mkdir(mode=0o700)
        for index, name in enumerate(devices):
            _write_device(fresh, spec, name, index, source or {"kind": "directory", "path": "data"})
    return ServerFolder(path.resolve())


def add_device(folder: ServerFolder, name: str, source: Mapping[str, Any] | None = None) -> Path:
    """Give a further device its folder and key; return the folder.

    Raises
    ------
    FedtpError
        If there is one of this name.
    """
    if not _is_name(name):
        raise FedtpError(f'a device cannot be called "{name}": letters, digits, dots, dashes and underscores')
    own = folder.path / "devices" / name
    if own.exists() or (folder.server / "keys" / f"{name}.pub").exists():
        raise FedtpError(f"there is a device called {name} already: choose another name")
    index = len(list((folder.path / "devices").iterdir()))
    _write_device(folder.path, folder.spec(), name, index, source or {"kind": "directory", "path": "data"})
    return own


def _write_device(path: Path, spec: FederationSpec, name: str, index: int, source: Mapping[str, Any]) -> None:
    own = path / "devices" / name
    own.mkdir(mode=0o700)
    network = spec.network
    tables = {
        "name": name,
        "server": f"{network.address}:{network.port}",
        "insecure": network.insecure,
        "source": {key: _numbered(value, index) for key, value in source.items()},
        "data": _tables(spec.data),
    }
    (own / DEVICE_FILE).write_text(tomli_w.dumps(tables), "utf-8")
    if source.get("kind") == "directory":
        (own / "data").mkdir()
    if not network.insecure:
        write_device(own / DEVICE_KEY, path / "server" / "keys" / f"{name}.pub")
        (own / CA).write_bytes((path / "server" / CA).read_bytes())


def _numbered(value: Any, index: int) -> Any:
    if isinstance(value, dict):
        return {key: _numbered(part, index) for key, part in value.items()}
    return index if value == "{index}" else value


def _tables(settings: Any) -> dict[str, Any]:
    """Return settings as TOML has them, without what is empty."""
    tables = settings.model_dump(exclude_none=True, exclude_defaults=True)
    return {key: value for key, value in tables.items() if value != {}}


def _is_name(name: str) -> bool:
    return (
        0 < len(name) <= 64
        and name[0].isalnum()
        and all(one.isascii() and (one.isalnum() or one in "._-") for one in name)
    )
