"""The ServerApp of a real federation: it goes on where it was, and keeps what it learns."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.superlink.grid.http_grid import HttpGrid

from fedtp.blocks import Packed
from fedtp.errors import DataError, FedtpError
from fedtp.federation import FOLDER_VARIABLE, log_to
from fedtp.learner import Learner, learner_of
from fedtp.model_file import save_model
from fedtp.wire import report_bytes
from server.app import run_schedule
from server.clock import SystemClock
from server.federation.checkpoints import Checkpoints, ServerCheckpoint
from server.federation.folder import LEARN, ServerFolder
from server.federation.grid import LimitedGrid
from server.federation.journal import Journal
from server.round import Round
from server.settings import PrivacySpec, ReactionSpec, ServerSpec, TrustSpec

log = logging.getLogger("flwr.fedtp")

app = ServerApp()

#: What Flower and we add to a report, at most.
_SPARE_BYTES, _SPARE_RECORDS = 100_000, 20


class _Rest(Exception):  # noqa: N818
    """The server shall learn no more for now."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Learn until all rounds are done, or until it is told to rest."""
    folder = ServerFolder.of(Path(os.environ[FOLDER_VARIABLE]))
    log_to(folder.logs / "learning.log", log.name, screen=False)  # Flower keeps it in its database
    try:
        _learn(grid, context, folder)
    except Exception:
        log.exception("learning ended")
        raise


def _learn(grid: Grid, context: Context, folder: ServerFolder) -> None:
    spec, config = folder.spec(), context.run_config
    server, reactions, learner = ServerSpec.from_config(config), ReactionSpec.from_config(config), learner_of(config)
    journal, checkpoints = Journal(folder, server.rounds), Checkpoints(folder.checkpoints, spec.keep.checkpoints)
    latest = checkpoints.latest()
    if latest is not None and latest.digest != learner.digest:
        said = (
            f"the checkpoints in {folder.checkpoints} are of another network: give [learner] and [data] back the "
            "settings that they had, or move the checkpoints away to begin anew"
        )
        journal.say("failed", "failed", why=said)
        raise FedtpError(said)

    def ended(done: Round) -> None:
        try:
            journal.round(done, learner.sizes, learner.digest)
            checkpoints.save(ServerCheckpoint(done.number, done.ended, learner.digest, done.state()))
            _export(folder, learner, done, done.weights)
        except (OSError, FedtpError) as error:
            # The next round may find room; what has been learnt is still in memory, and on the devices.
            log.error("round %d could not be saved: %s", done.number, error)
            with suppress(OSError, FedtpError):
                journal.say("learning", "not saved", round=done.number, why=str(error))
        log.info("round %d: %d orders, %d replies", done.number, len(done.ordered), len(done.verdicts))
        if folder.wish != LEARN:
            raise _Rest

    if isinstance(grid, HttpGrid):
        grid = LimitedGrid(grid, 2 * _largest_report(learner) + _SPARE_BYTES, 2 * len(learner.sizes) + _SPARE_RECORDS)
    try:
        _await(grid, spec.network.min_devices, folder, journal)
        begun = None if latest is None else latest.state
        journal.say("learning", "begun" if latest is None else "gone on", round=0 if latest is None else latest.round)
        clock = SystemClock(begun=0.0 if latest is None else latest.seconds)
        trust, privacy = TrustSpec.from_config(config), PrivacySpec.from_config(config)
        run_schedule(
            grid, learner, server, clock, ended, reactions, begun, trust=trust, privacy=privacy, same_grid=False
        )
    except _Rest:
        journal.say("resting", "rested")
    except DataError as error:
        journal.say("failed", "failed", why=str(error))
        raise
    else:
        journal.say("finished", "finished")


def _await(grid: Grid, devices: int, folder: ServerFolder, journal: Journal) -> None:
    """Wait until so many devices are there."""
    clock, told = SystemClock(poll_seconds=0.5), False
    while len(list(grid.get_node_ids())) < devices:
        if not told:
            log.info("waiting for %d devices", devices)
            journal.say("waiting", "waiting", devices=devices)
            told = True
        if folder.wish != LEARN:
            raise _Rest
        clock.wait(clock.now() + 0.5, 0)


def _largest_report(learner: Learner) -> int:
    """Return the bytes of the largest report that an honest device can send."""
    return report_bytes(tuple(learner.sizes.items()), learner.digest, tuple(learner.sizes))


def _export(folder: ServerFolder, learner: Learner, done: Round, weights: Mapping[str, Packed]) -> None:
    schema = folder.spec().data.model_dump_json()
    save_model(folder.model, learner, weights, {"schema": schema, "round": str(done.number)})
