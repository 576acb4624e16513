"""The command ``fedtp federation up``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from fedtp.errors import FedtpError


def up(
    folder: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="The federation's folder; it must not exist yet.")
    ] = Path("runs/federation"),
    devices: Annotated[int | None, typer.Option(min=1, max=64, help="How many devices there are.")] = None,
    scenario: Annotated[
        str, typer.Option(metavar="NAME_OR_FILE", help="Whose streams the devices have, in real time.")
    ] = "loopback",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as server.rounds=5. Repeatable."),
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Neither encryption nor keys.")] = False,
) -> None:
    """Try a whole federation on this machine: a server and devices as processes of their own, with TLS and keys.

    It learns all rounds, stops everything that it started, and leaves a run with its report in DIR/run.
    """
    from fedtp.federation import log_to
    from simulations.federation.local import learn, make_local
    from simulations.scenario import Scenario

    given = [*(settings or []), *([] if devices is None else [f"devices.0.count={devices}"])]
    chosen = Scenario.load(scenario, given)
    if devices is not None and len(chosen.devices) > 1:
        raise FedtpError(f"{scenario} has devices of {len(chosen.devices)} classes: leave out --devices")
    if chosen.device_count > 64:
        raise FedtpError(f"{scenario} has {chosen.device_count} devices, each some processes here: choose fewer")
    made = make_local(folder, chosen, insecure=insecure)
    log_to(made.logs / "up.log", screen=False)
    with _progress(chosen.server.rounds) as show:
        run = learn(made, show)
    report = run.save(made.path / "run")
    console = Console()
    accuracy = run.summary["prequential_accuracy"]
    console.print(
        f"{run.summary['rounds']} rounds of {chosen.device_count} devices: prequential accuracy "
        f"{'-' if accuracy is None else f'{accuracy:.4f}'}, final accuracy {run.summary['final_accuracy']:.4f}"
    )
    console.print(f"report: {escape(str(report))}", soft_wrap=True, highlight=False)


@contextmanager
def _progress(rounds: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    console = Console(stderr=True)
    columns = (
        TextColumn("round {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=console, expand=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=rounds, state="starting")

        def show(status: dict[str, Any]) -> None:
            accuracy = status.get("accuracy")
            told = f"{status.get('state', 'starting')}  accuracy {'-' if accuracy is None else f'{accuracy:.3f}'}"
            bar.update(task, completed=status.get("round", 0), state=told)

        yield show
