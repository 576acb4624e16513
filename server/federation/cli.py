"""What of the commands ``fedtp federation`` is the server's: from ``init`` to ``report``."""

from __future__ import annotations

import csv
import itertools
import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from fedtp.errors import DataError, FedtpError

if TYPE_CHECKING:
    from fedtp.data.schema import Schema

_SAMPLE_ROWS = 100_000
Dir = Annotated[Path, typer.Argument(metavar="DIR", show_default=False, help="The federation's folder.")]


def init(
    folder: Dir,
    like: Annotated[Path, typer.Option(metavar="CSV", help="A file of rows as the devices will have them.")],
    label: Annotated[str, typer.Option(help="The column that is to be predicted.")] = "label",
    devices: Annotated[int, typer.Option(min=1, max=10_000, help="How many devices there are.")] = 2,
    address: Annotated[str, typer.Option(help="By which devices reach the server.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 8443,
    hidden: Annotated[str, typer.Option(help="Units of the hidden layers, with commas between.")] = "64",
    insecure: Annotated[bool, typer.Option("--insecure", help="Neither encryption nor keys: for trials only.")] = False,
) -> None:
    """Make the folder of a federation: keys and certificates, what is learnt, and a folder for each device.

    Columns, classes and their scales come from a sample of rows; federation.toml in the folder holds all of it, to be
    changed before the first start.
    """
    from fedtp.learner_spec import LearnerSpec
    from server.federation.folder import make_federation
    from server.federation.spec import FederationSpec, NetworkSpec
    from server.settings import TrustSpec

    units = [int(one) if one.strip().isdecimal() else one for one in hidden.split(",")]
    try:
        learner = LearnerSpec.from_config({"learner.hidden": ",".join(map(str, units))})
    except FedtpError as error:
        raise FedtpError(f"--hidden: {error}") from None
    listen = "127.0.0.1" if address in ("127.0.0.1", "localhost") else "0.0.0.0"
    spec = FederationSpec(
        network=NetworkSpec(address=address, listen=listen, port=port, insecure=insecure, min_devices=1),
        data=_schema_of(like, label),
        learner=learner,
        trust=TrustSpec(norm_bound=20.0, quarantine_after=3),
    )
    names = [f"device-{number}" for number in range(1, devices + 1)]
    made = make_federation(folder, spec, names)
    if insecure:
        _warn("without --insecure the devices prove who they are, and nobody else can read or change what is sent")
    typer.echo(f"{made.path / 'federation.toml'}: what is learnt")
    typer.echo(f"{made.path / 'devices'}: a folder for each device, with its key; copy it there and nowhere else")
    typer.echo(f"next: fedtp federation server {folder}")


def add(folder: Dir, name: Annotated[str, typer.Argument(show_default=False, help="The device's name.")]) -> None:
    """Give one more device a folder and a key; a server that runs learns of it by itself."""
    from server.federation.folder import ServerFolder, add_device

    made = add_device(ServerFolder.of(folder), name)
    typer.echo(f"{made}: copy it to the device and nowhere else")


def renew(
    folder: Dir,
    days: Annotated[float, typer.Option(help="How long the certificate is valid.")] = 825.0,
) -> None:
    """Make a new certificate for the server, signed by the same authority: devices need nothing new."""
    from fedtp.federation import holder
    from server.federation.certificates import expiry, write_server
    from server.federation.folder import ServerFolder

    found = ServerFolder.of(folder)
    network = found.spec().network
    if network.insecure:
        raise FedtpError(f"{folder} is insecure: it has no certificate")
    write_server(found.server, [network.address, network.listen], days=days)
    typer.echo(f"the certificate is valid until {expiry(found.server / 'server.pem'):%Y-%m-%d}")
    if holder(found.server) is not None:
        typer.echo("the server that runs takes it up within seconds; a round in flight is begun again")


def server(folder: Dir) -> None:
    """Run the server, until it is stopped by Ctrl-C or SIGTERM; it waits for `start`."""
    from fedtp.federation import log_to, until_signalled
    from server.federation.folder import ServerFolder
    from server.federation.serve import serve

    found = ServerFolder.of(folder)
    log_to(found.logs / "server.log")
    with until_signalled() as stop:
        serve(found, stop)


def start(folder: Dir) -> None:
    """Have the server learn: from the beginning, or on from where it was."""
    from server.federation.folder import LEARN

    _wish(folder, LEARN, "learns as soon as devices are there")


def stop(folder: Dir) -> None:
    """Have the server rest after the round in flight; `start` goes on from there."""
    from server.federation.folder import REST

    _wish(folder, REST, "rests after the round in flight")


def status(
    folder: Dir,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing how things are, until Ctrl-C.")] = False,
) -> None:
    """Show how things are: rounds, accuracy, and each device."""
    from server.federation.folder import ServerFolder

    found = ServerFolder.of(folder)
    if as_json:
        typer.echo(json.dumps(_told(found), indent=2))
        return
    console = Console()
    if not watch:
        console.print(_shown(_told(found)))
        return
    try:
        with Live(_shown(_told(found)), console=console, auto_refresh=False, screen=False) as live:
            while True:
                time.sleep(1)
                live.update(_shown(_told(found)), refresh=True)
    except KeyboardInterrupt:
        pass


def report(
    folder: Dir,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="By default DIR/report.html.")] = None,
) -> None:
    """Write a report on all rounds so far: the same page as a simulation's, as far as a real federation knows it."""
    from fedtp.folder import write_whole
    from fedtp.report.fleet import fleet_report
    from server.federation.folder import ServerFolder
    from server.federation.results import fleet_results

    found = ServerFolder.of(folder)
    path = out or folder / "report.html"
    write_whole(path, fleet_report(fleet_results(found)))
    typer.echo(f"report: {path}")


def _schema_of(path: Path, label: str) -> Schema:
    from fedtp.data.schema import Schema

    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return Schema.infer(itertools.islice(csv.DictReader(file), _SAMPLE_ROWS), label)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _wish(folder: Path, wish: str, said: str) -> None:
    from fedtp.federation import holder
    from server.federation.folder import ServerFolder

    found = ServerFolder.of(folder)
    found.spec()  # what is wrong with it is better said now
    found.write_wish(wish)
    typer.echo(f"the server {said}")
    if holder(found.server) is None:
        _warn(f"no server runs here: fedtp federation server {folder}")


def _told(found: Any) -> dict[str, Any]:
    from fedtp.federation import holder

    told = {"title": found.spec().title, "process": holder(found.server), "wish": found.wish, **found.status()}
    known: dict[str, Any] = {path.stem: {} for path in found.keys}
    told["devices"] = {**known, **told.get("devices", {})}
    return told


def _shown(told: dict[str, Any]) -> Group:
    head = Table(box=None, show_header=False, pad_edge=False, title=escape(told["title"]), title_justify="left")
    accuracy, epsilon = told.get("accuracy"), told.get("epsilon")
    refusals = ", ".join(f"{count} {reason}" for reason, count in told.get("refusals", {}).items())
    runs = f"process {told['process']}" if told["process"] else "does not run"
    for label, text in (
        ("server", f"{runs}, shall {told['wish']}"),
        ("state", told.get("state", "has not learnt yet")),
        ("round", f"{told.get('round', 0):,} of {told.get('rounds', 0):,}"),
        ("accuracy of the last round", "-" if accuracy is None else f"{accuracy:.4f}"),
        ("samples", f"{told.get('samples', 0):,}"),
        ("drifts detected", f"{told.get('drifts', 0):,}"),
        ("refused", refusals or "-"),
        *([] if epsilon is None else [("privacy loss", f"ε {epsilon:.3g}, of any device at most")]),
        ("learning for", str(timedelta(seconds=round(told.get("seconds", 0))))),
    ):
        head.add_row(label, escape(text))
    table = Table("device", "last answer", box=None, pad_edge=False)
    for column in ("rounds", "samples", "accuracy", "drifts", "refused"):
        table.add_column(column, justify="right")
    table.add_column("said")
    for name, device in sorted(told["devices"].items()):
        seen, samples = device.get("last_seen"), device.get("samples", 0)
        table.add_row(
            escape(name),
            "never" if seen is None else f"{timedelta(seconds=round(max(0.0, time.time() - seen)))} ago",
            f"{device.get('rounds', 0):,}",
            f"{samples:,}",
            f"{device['correct'] / samples:.4f}" if samples else "-",
            f"{device.get('drifts', 0):,}",
            f"{device.get('refused', 0):,}",
            escape(device.get("said", "")),
        )
    return Group(head, "", table)


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)
