"""The ``fedtp`` command: it only gathers the commands that packages register as entry points.

A package adds a command by an entry point in the group ``fedtp.commands`` that names a function with Typer's
annotations. ``federation.init`` is the command ``fedtp federation init``: several packages may extend one group.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import fedtp
from fedtp.errors import FedtpError

GROUP = "fedtp.commands"
#: What groups of commands are for.
GROUPS = {"federation": "Run a real federation: a server, and devices that learn where their data is."}


class _Commands(TyperGroup):
    """Shows errors that a person can put right as a message, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except FedtpError as error:
            typer.echo("error: " + str(error).replace("\n", "\n       "), err=True)
            raise typer.Exit(2) from None


def build() -> typer.Typer:
    """Return the command line with every registered command."""
    app = typer.Typer(
        cls=_Commands,
        name="fedtp",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    groups = {"": app}
    for command in sorted(entry_points(group=GROUP), key=lambda command: command.name):
        group, _, name = command.name.rpartition(".")
        if group not in groups:
            groups[group] = typer.Typer(no_args_is_help=True)
            app.add_typer(groups[group], name=group, help=GROUPS[group])
        groups[group].command(name)(command.load())
    return app


def main() -> None:
    """Run the command line."""
    build()(prog_name="fedtp")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedtp {fedtp.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Fleets of small devices that learn together from drifting streams, without backpropagation."""
