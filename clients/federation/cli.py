"""The command ``fedtp federation device``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def device(
    folder: Annotated[Path, typer.Argument(metavar="DIR", show_default=False, help="The device's folder.")],
) -> None:
    """Run a device, until it is stopped by Ctrl-C or SIGTERM: it connects, and learns whenever the server asks."""
    from clients.federation.supernode import run_device
    from fedtp.federation import log_to, until_signalled

    if folder.is_dir():
        log_to(folder / "logs" / "device.log")
    with until_signalled() as stop:
        run_device(folder, stop)
