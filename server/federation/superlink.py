"""Flower's SuperLink: the process that devices connect to, and what can be asked of it."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import psutil

from fedtp.errors import FedtpError
from fedtp.federation import CA, flower_environment, tool
from fedtp.folder import write_whole
from fedtp.supervision import Program
from server.federation import link
from server.federation.bundle import write_bundle
from server.federation.folder import ServerFolder
from server.federation.spec import FederationSpec

log = logging.getLogger("fedtp.federation")

#: The name of the SuperLink in Flower's config.
_LINK = "federation"


class SuperLink:
    """The SuperLink of a federation.

    Parameters
    ----------
    folder
        The federation's.
    spec
        Where it listens, and what is learnt.

    Attributes
    ----------
    program
        Its process, which is started again when it ends.
    """

    def __init__(self, folder: ServerFolder, spec: FederationSpec) -> None:
        self._folder = folder
        self._spec = spec
        self._environment = flower_environment(folder.home, folder.path)
        network, server = spec.network, folder.server
        secure = [
            *("--ssl-ca-certfile", server / CA),
            *("--ssl-certfile", server / "server.pem"),
            *("--ssl-keyfile", server / "server.key"),
            "--enable-supernode-auth",
        ]
        command = [
            *(sys.executable, "-P", "-m", link.__name__),
            *(["--insecure"] if network.insecure else map(str, secure)),
            *("--host", network.listen, "--port", str(network.port)),
            *("--database", str(server / "flower.db")),
        ]
        self.program = Program(
            "superlink", command, folder.logs, self._environment, folder=server, explain=self._why_it_ended
        )

    def configure(self) -> None:
        """Tell Flower's commands where the SuperLink is."""
        address = "127.0.0.1" if self._spec.network.listen in ("0.0.0.0", "::") else self._spec.network.listen
        safety = (
            "insecure = true" if self._spec.network.insecure else f'root-certificates = "{self._folder.server / CA}"'
        )
        text = (
            f'[superlink]\ndefault = "{_LINK}"\n[superlink.{_LINK}]\naddress = "{address}:{self._spec.network.port}"\n'
        )
        write_whole(self._folder.home / "config.toml", text + safety + "\n")

    @property
    def listening(self) -> bool:
        """Whether something answers at its port."""
        with socket.socket(socket.AF_INET6 if ":" in self._near else socket.AF_INET) as probe:
            probe.settimeout(1)
            return self.program.running and probe.connect_ex((self._near, self._spec.network.port)) == 0

    @property
    def _near(self) -> str:
        """The address by which this host reaches it."""
        listen = self._spec.network.listen
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen, listen)

    def register(self) -> None:
        """Make devices known whose keys are new.

        Raises
        ------
        FedtpError
            If Flower refuses a key.
        """
        names = self._folder.names()
        for key in self._folder.keys:
            if key.stem in names.values():
                continue
            found = self._ask("supernode", "register", str(key), _LINK, "--name", key.stem)
            names[str(found["node-id"])] = key.stem
            self._folder.write_names(names)
            log.info("device %s is known now", key.stem)

    def submit(self) -> str:
        """Begin a run, with the settings as they are now; return its id.

        Raises
        ------
        FedtpError
            If it cannot be begun.
        """
        app = write_bundle(self._folder.server / "app", self._folder.spec().run_config())
        return str(self._ask("run", str(app), _LINK)["run-id"])

    def state(self, run: str) -> str:
        """Return how a run is doing: ``"running"``, ``"finished:completed"`` and the like; empty if it is not known."""
        found = self._ask("list", _LINK).get("runs", [])
        return next((str(one["status"]) for one in found if str(one.get("run-id")) == run), "")

    @property
    def learning(self) -> bool:
        """Whether a ServerApp runs."""
        return any(_is_server_app(process) for process in self.program.family())

    def end(self, run: str) -> None:
        """End a run at once."""
        self._ask("stop", run, _LINK)

    def _ask(self, *arguments: str) -> dict[str, Any]:
        """Run one of Flower's commands, and return what it answers."""
        try:
            done = subprocess.run(
                [tool("flwr"), *arguments, "--format", "json"],
                cwd=self._folder.server,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            # Flower may say something before it answers.
            answer = json.loads(done.stdout[done.stdout.index("{") :])
        except subprocess.TimeoutExpired:
            raise FedtpError(f"the SuperLink did not answer `flwr {arguments[0]}` in time") from None
        except ValueError:
            raise FedtpError(f"`flwr {arguments[0]}` failed: {_last_line(done.stdout + done.stderr)}") from None
        if not isinstance(answer, dict) or not answer.get("success"):
            raise FedtpError(f"`flwr {arguments[0]}` failed: {answer.get('error-message', answer)}")
        return answer

    def _why_it_ended(self, printed: Sequence[str]) -> str | None:
        text = "\n".join(printed)
        if "address already in use" in text.lower():
            return f"port {self._spec.network.port} is in use by another program: end it, or choose another port"
        return None


def _is_server_app(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return any("flwr-serverapp" in word for word in (process.name(), *process.cmdline()))
    return False


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no answer")
