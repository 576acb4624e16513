"""All processes of a federation on this machine, on loopback: for a first try, and to compare with a simulation."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedtp.data.schema import Schema
from fedtp.errors import FedtpError
from fedtp.federation import free_port, tool
from fedtp.supervision import Program
from server.federation.folder import LEARN, REST, ServerFolder, make_federation
from server.federation.spec import FederationSpec, NetworkSpec
from server.settings import ReactionSpec
from simulations.federation.results import run_of
from simulations.run import Run
from simulations.scenario import Scenario
from simulations.world import World

_SCENARIO = "scenario.toml"
#: Seconds that a round may last beyond its time, and that all may take to begin.
_PATIENCE, _SETUP = 60.0, 180.0


def make_local(folder: Path, scenario: Scenario, *, insecure: bool = False) -> ServerFolder:
    """Make the folder of a federation whose devices have a scenario's streams.

    Parameters
    ----------
    folder
        Where; it must not exist, or be empty.
    scenario
        Its network, its rounds, its devices' data. Classes of devices, links and batteries are this machine's.
    insecure
        Neither encryption nor keys.
    """
    world = World(scenario)
    data, config = world.data, scenario.adaptation.to_config()
    spec = FederationSpec(
        title=scenario.title,
        network=NetworkSpec(port=free_port(), insecure=insecure, min_devices=scenario.device_count),
        data=Schema(features=data.feature_names, classes=data.classes, shape=data.shape, label="class"),
        learner=scenario.learner,
        server=scenario.server,
        trust=scenario.trust,
        privacy=scenario.privacy,
        buffer=scenario.arrival.buffer,
        reactions=ReactionSpec.from_config(config),
        adaptation={
            key.removeprefix("adaptation."): value for key, value in config.items() if key.startswith("adaptation.")
        },
    )
    source = {
        "kind": "function",
        "function": "simulations.world:open_stream",
        "options": {"scenario": str(folder.resolve() / _SCENARIO), "settings": "", "partition-id": "{index}"},
    }
    made = make_federation(folder, spec, names_of(scenario), source)
    (made.path / _SCENARIO).write_text(scenario.to_toml(), "utf-8")
    return made


def names_of(scenario: Scenario) -> list[str]:
    """Return the names of a scenario's devices in a federation."""
    digits = len(str(scenario.device_count))
    return [f"device-{number:0{digits}d}" for number in range(1, scenario.device_count + 1)]


@contextmanager
def processes(folder: ServerFolder) -> Iterator[list[Program]]:
    """Keep the server and all devices of a federation running, and end them."""
    environment = dict(os.environ)
    programs = [
        Program(name, [tool("fedtp"), "federation", *command], folder.server / "logs", environment, folder=folder.path)
        for name, command in [
            ("up-server", ("server", str(folder.path))),
            *((f"up-{own.name}", ("device", str(own))) for own in sorted((folder.path / "devices").iterdir())),
        ]
    ]
    try:
        yield programs
    finally:
        for program in reversed(programs):
            program.stop(30)


def learn(folder: ServerFolder, on_status: Callable[[dict[str, Any]], None] = lambda _: None) -> Run:
    """Have a federation that `make_local` made learn all its rounds; return what came of it.

    Raises
    ------
    FedtpError
        If learning fails, or nothing happens for too long: the sentence names the log that tells more.
    """
    began = time.monotonic()
    scenario = Scenario.load(folder.path / _SCENARIO)
    folder.write_wish(LEARN)
    latest, since = -1, began
    with processes(folder) as programs:
        while True:
            for program in programs:
                program.step()
            status = folder.status()
            on_status(status)
            if status.get("state") == "finished":
                break
            if status.get("state") == "failed":
                raise FedtpError(f"the federation failed; {folder.events} and the logs in {folder.logs} say why")
            if (number := status.get("round", 0)) != latest:
                latest, since = number, time.monotonic()
            patience = _SETUP if latest <= 0 else _PATIENCE + 2 * scenario.server.round_seconds
            if time.monotonic() - since > patience:
                raise FedtpError(f"nothing has happened for {patience:.0f} s; the logs in {folder.logs} say more")
            time.sleep(0.5)
    folder.write_wish(REST)
    return run_of(scenario, folder.events, folder.model, names_of(scenario), time.monotonic() - began)
