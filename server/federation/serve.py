"""The server's long-lived process: it keeps the SuperLink running, and the learning going while it is wanted."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime

from fedtp.errors import FedtpError
from fedtp.federation import alone
from server.federation.certificates import expiry
from server.federation.folder import LEARN, REST, ServerFolder
from server.federation.metrics import serve_metrics
from server.federation.superlink import SuperLink

log = logging.getLogger("fedtp.federation")

#: Seconds between two looks at the processes, and between two questions of how a run is doing.
_LOOK, _ASK = 0.5, 5.0
#: Seconds between two warnings that the certificate ends.
_REMIND = 86_400.0
#: Days before the certificate ends that a warning says so.
_WARN_DAYS = 30
#: What a ServerApp says of itself that has neither ended nor failed.
_AT_WORK = ("waiting", "learning")


def serve(folder: ServerFolder, stop: threading.Event) -> None:
    """Keep a federation's server going until it is told to stop.

    Raises
    ------
    FedtpError
        If another process does so already, or ``federation.toml`` cannot be used.
    """
    with alone(folder.server, "the server"):
        spec = folder.spec()
        if spec.network.insecure:
            log.warning("INSECURE: whoever can reach port %d can read and change everything", spec.network.port)
        else:
            _check_certificate(folder)
        link = SuperLink(folder, spec)
        link.configure()
        certificate = None if spec.network.insecure else _Certificate(folder, link)
        learning = _Learning(folder, link)
        close_metrics = serve_metrics(folder, spec.network.metrics_port)
        log.info("%s: listening at %s:%d", spec.title, spec.network.listen, spec.network.port)
        try:
            while not stop.wait(_LOOK):
                if certificate is not None:
                    certificate.step()
                link.program.step()
                learning.step()
        finally:
            # A run that is under way ends with the SuperLink; the next one goes on from the last checkpoint.
            link.program.stop()
            close_metrics()
            log.info("stopped")


class _Learning:
    """A run whenever learning is wanted, and a new one that goes on if the last one died."""

    def __init__(self, folder: ServerFolder, link: SuperLink) -> None:
        self._folder = folder
        self._link = link
        self._run = ""
        self._asked = 0.0
        self._starts = -1
        self._failures = 0
        self._learning = False

    def step(self) -> None:
        """Do what there is to do."""
        now = time.monotonic()
        if now < self._asked + min(_ASK * 2**self._failures, 60.0) or not self._link.listening:
            return
        self._asked = now
        try:
            self._look()
            self._failures = 0
        except FedtpError as error:
            self._failures += 1
            log.warning("%s", error)

    def _look(self) -> None:
        link = self._link
        link.register()
        if self._starts != link.program.starts:  # a new SuperLink: what ran has died with the old one
            self._starts, self._run = link.program.starts, ""
        if self._run:
            learning, before = link.learning, self._learning
            self._learning = learning
            state = link.state(self._run)
            if not state.startswith("finished") and state:
                if before and not learning and self._folder.status().get("state") in _AT_WORK:
                    link.end(self._run)  # Flower itself would notice after a minute
                else:
                    return
            self._run, self._learning = "", False
            told = self._folder.status().get("state")
            if told == "finished":
                log.info("all rounds are done")
                self._folder.write_wish(REST)
            elif told == "failed":
                log.warning("learning ended: server/logs/learning.log says why; `fedtp federation start` tries again")
                self._folder.write_wish(REST)
            elif self._folder.wish == LEARN:
                log.warning("the ServerApp died; a new one goes on from the last checkpoint")
        if self._folder.wish == LEARN:
            self._run = link.submit()
            log.info("learning, run %s", self._run)


class _Certificate:
    """The server's certificate: a word before it ends, and a new SuperLink with a new one."""

    def __init__(self, folder: ServerFolder, link: SuperLink) -> None:
        self._folder = folder
        self._link = link
        self._path = folder.server / "server.pem"
        self._used = self._path.read_bytes()
        self._looked = self._said = time.monotonic()

    def step(self) -> None:
        """Do what there is to do."""
        now = time.monotonic()
        if now < self._looked + _ASK:
            return
        self._looked = now
        try:
            found = self._path.read_bytes()
            if found == self._used and now < self._said + _REMIND:
                return
            _check_certificate(self._folder)
            if found != self._used:
                log.info("a new certificate: the SuperLink is started again with it")
                self._link.program.stop()
                self._used = found
        except (OSError, FedtpError) as error:
            log.warning("%s", error)
        self._said = now


def _check_certificate(folder: ServerFolder) -> None:
    """Say if the certificate ends soon.

    Raises
    ------
    FedtpError
        If it has ended.
    """
    end = expiry(folder.server / "server.pem")
    days = (end - datetime.now(UTC)).total_seconds() / 86_400
    renew = f"`fedtp federation renew {folder.path}` makes a new one"
    if days <= 0:
        raise FedtpError(f"the server's certificate ended on {end:%Y-%m-%d}: {renew}")
    if days < _WARN_DAYS:
        log.warning("the server's certificate ends on %s: %s", f"{end:%Y-%m-%d}", renew)
