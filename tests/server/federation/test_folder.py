from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest

from clients.federation.settings import DeviceSpec
from fedtp.data.schema import Schema
from fedtp.errors import DataError, FedtpError
from server.federation.folder import LEARN, REST, SPEC, ServerFolder, add_device, make_federation
from server.federation.spec import FederationSpec, NetworkSpec

DATA = Schema(features=("a", "b"), label="y", classes=("0", "1"), offset=(0.5, 0.0))


def test_what_is_made_can_be_read_back(folder: ServerFolder) -> None:
    spec = folder.spec()
    assert (spec.title, spec.data.features, spec.learner.hidden) == ("Two boards", ("a", "b", "c"), (4,))
    assert ServerFolder.of(folder.path) == folder
    assert [path.stem for path in folder.keys] == ["one", "two"]
    assert (folder.wish, folder.status(), folder.names()) == (REST, {}, {})
    device = DeviceSpec.read(folder.path / "devices" / "one")
    assert (device.name, device.server, device.data, device.source.kind) == (
        "one",
        "127.0.0.1:8443",
        spec.data,
        "directory",
    )
    assert (folder.path / "devices" / "one" / "data").is_dir()


def test_nobody_else_can_read_keys(folder: ServerFolder) -> None:
    private = list(folder.path.rglob("*.key"))
    assert {path.name for path in private} == {"ca.key", "server.key", "device.key"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in private)
    assert stat.S_IMODE(folder.path.stat().st_mode) == stat.S_IMODE(folder.server.stat().st_mode) == 0o700
    # What is copied to a device holds no key but its own.
    assert not [path for path in (folder.path / "devices" / "one").iterdir() if path.name in ("ca.key", "server.key")]


def test_nothing_is_overwritten(folder: ServerFolder) -> None:
    before = (folder.server / "ca.key").read_bytes()
    with pytest.raises(FedtpError, match=r"holds a federation already: choose another folder$"):
        make_federation(folder.path, folder.spec(), ["one"])
    assert (folder.server / "ca.key").read_bytes() == before


def test_all_or_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("server.federation.folder.write_device", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(FedtpError, match="full"):
        make_federation(tmp_path / "some" / "where", FederationSpec(data=DATA), ["one"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("names", [["a", "a"], ["../a"], [""], [".a"], ["a b"], ["a" * 65]])
def test_names_that_cannot_be_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(FedtpError, match="called"):
        make_federation(tmp_path / "new", FederationSpec(data=DATA), names)
    assert not (tmp_path / "new").exists()


def test_sources_are_numbered(tmp_path: Path) -> None:
    source = {"kind": "function", "function": "a:b", "options": {"partition-id": "{index}", "text": "index"}}
    made = make_federation(tmp_path / "new", FederationSpec(data=DATA), ["p", "q"], source)
    options = [DeviceSpec.read(made.path / "devices" / name).source.options for name in "pq"]
    assert options == [{"partition-id": 0, "text": "index"}, {"partition-id": 1, "text": "index"}]
    assert not (made.path / "devices" / "p" / "data").exists()


def test_a_device_is_added(folder: ServerFolder) -> None:
    own = add_device(folder, "three")
    assert DeviceSpec.read(own).data == folder.spec().data
    assert [path.stem for path in folder.keys] == ["one", "three", "two"]
    with pytest.raises(FedtpError, match="called three already"):
        add_device(folder, "three")
    with pytest.raises(FedtpError, match="cannot be called"):
        add_device(folder, "../four")


def test_an_insecure_one_has_no_keys(tmp_path: Path) -> None:
    made = make_federation(tmp_path / "new", FederationSpec(data=DATA, network=NetworkSpec(insecure=True)), ["p"])
    assert not list(made.path.rglob("*.key"))
    assert DeviceSpec.read(made.path / "devices" / "p").insecure


def test_another_folder_is_none(tmp_path: Path) -> None:
    with pytest.raises(FedtpError, match=r"is not the folder of a federation: make one with `fedtp federation init"):
        ServerFolder.of(tmp_path)


def test_what_it_wants_is_kept(folder: ServerFolder) -> None:
    folder.write_wish(LEARN)
    assert folder.wish == LEARN
    folder.write_status({"round": 3})
    assert folder.status() == {"round": 3}
    (folder.server / "status.json").write_text("{")
    with pytest.raises(DataError, match=r"status\.json cannot be read"):
        folder.status()


def test_settings_that_are_wrong_are_named(folder: ServerFolder) -> None:
    path = folder.path / SPEC
    path.write_text(path.read_text().replace("hidden", "hiden"))
    with pytest.raises(DataError, match=r"federation.toml: .*hiden.*did you mean"):
        folder.spec()


def test_the_run_config_is_what_apps_read(folder: ServerFolder) -> None:
    config = folder.spec().run_config()
    assert config["learner.hidden"] == "4"
    assert (config["classes"], config["shape"], config["server.rounds"]) == (2, "3", 3)
    assert tomllib.loads((folder.path / SPEC).read_text())["title"] == "Two boards"
