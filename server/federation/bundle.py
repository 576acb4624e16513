"""The Flower app that a federation runs: two lines that import what is installed where it runs.

So a server hands devices settings, and no code.
"""

from __future__ import annotations

from pathlib import Path

import tomli_w

import fedtp
from fedtp.folder import write_whole
from fedtp.run_config import ConfigValue

_NAME = "fedtp_federation"
_MODULES = {"__init__": "", "server": "server.federation.app", "client": "clients.federation.app"}


def write_bundle(folder: Path, run_config: dict[str, ConfigValue]) -> Path:
    """Write the app into a folder, and return it.

    Parameters
    ----------
    folder
        Where to; an earlier one is replaced.
    run_config
        What server and devices are told.
    """
    (folder / _NAME).mkdir(parents=True, exist_ok=True)
    tables = {
        "build-system": {"requires": ["hatchling"], "build-backend": "hatchling.build"},
        "project": {
            "name": _NAME.replace("_", "-"),
            "version": fedtp.__version__,
            "description": "A federation of fedtp",
            "license": "Apache-2.0",
            "dependencies": [],
        },
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "fedtp",
                    "fab-include": [f"{_NAME}/*.py"],
                    "components": {"serverapp": f"{_NAME}.server:app", "clientapp": f"{_NAME}.client:app"},
                    "config": run_config,
                }
            }
        },
    }
    for name, module in _MODULES.items():
        text = f'from {module} import app\n\n__all__ = ["app"]\n' if module else '"""A federation of fedtp."""\n'
        write_whole(folder / _NAME / f"{name}.py", text)
    write_whole(folder / "pyproject.toml", tomli_w.dumps(tables))
    return folder
