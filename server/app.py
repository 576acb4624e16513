"""The ServerApp: it trains by a schedule, synchronous or buffered, and tells of every round."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedtp.blocks import Packed
from fedtp.errors import FedtpError
from fedtp.learner import Learner, learner_of
from fedtp.model_file import save_model
from fedtp.streaming.state import State
from server.aggregation import aggregation_for
from server.buffered import Buffered
from server.clock import Clock, SystemClock
from server.layerwise import LayerwiseStrategy
from server.reactions import NO_REACTIONS
from server.round import Round
from server.settings import PrivacySpec, ReactionSpec, ServerSpec, TrustSpec
from server.synchronous import Synchronous
from server.verdict import score

# Flower shows what its own logger and those below it are told.
log = logging.getLogger("flwr.fedtp")

_BELIEVING = TrustSpec()
_OPEN = PrivacySpec()


def make_server_app(
    clock: Clock | None = None,
    on_round: Callable[[Round], None] | None = None,
    begun: State | None = None,
    *,
    noise_seed: int | None = None,
) -> ServerApp:
    """Return a ServerApp that runs the rounds its run config asks for.

    Parameters
    ----------
    clock
        Where the server reads the time and waits; the computer's clock by default.
    on_round
        Called after every round.
    begun
        Where to go on, from an earlier `Round.state`; at the beginning by default.
    noise_seed
        Of the noise that privacy needs. By default nobody knows it: whoever does can take the noise away.

    Notes
    -----
    Where the run config names a file under ``model``, the weights after each round are written to it, see
    `fedtp.model_file`.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        spec = ServerSpec.from_config(context.run_config)
        learner, reactions = learner_of(context.run_config), ReactionSpec.from_config(context.run_config)
        trust, privacy = TrustSpec.from_config(context.run_config), PrivacySpec.from_config(context.run_config)
        model = str(context.run_config.get("model", ""))

        def ended(done: Round) -> None:
            if model:
                save_model(model, learner, done.weights)
            (on_round or _log_round)(done)

        run_schedule(
            grid,
            learner,
            spec,
            clock or SystemClock(),
            ended,
            reactions,
            begun,
            trust=trust,
            privacy=privacy,
            noise_seed=noise_seed,
        )

    return app


def run_schedule(
    grid: Grid,
    learner: Learner,
    spec: ServerSpec,
    clock: Clock,
    on_round: Callable[[Round], None],
    reactions: ReactionSpec = NO_REACTIONS,
    begun: State | None = None,
    *,
    trust: TrustSpec = _BELIEVING,
    privacy: PrivacySpec = _OPEN,
    noise_seed: int | None = None,
    same_grid: bool = True,
) -> None:
    """Train by the schedule that the settings name.

    Parameters
    ----------
    grid, learner, spec, clock, on_round, reactions, trust, privacy, noise_seed
        What it works with.
    begun
        Where to go on.
    same_grid
        Whether the grid knows of the orders that were on their way then; of those that it does not no answer comes.

    Raises
    ------
    DataError
        If the schedule cannot go on where it is told to.
    FedtpError
        If the settings do not go together.
    """
    if found := privacy.conflicts(spec, trust, reactions):
        raise FedtpError("\n".join(problem.text for problem in found))
    aggregation = aggregation_for(spec.strategy, spec.strategy_options)
    strategy = LayerwiseStrategy(
        learner, aggregation, lr=spec.lr, reactions=reactions, trust=trust, privacy=privacy, noise_seed=noise_seed
    )
    kind = Buffered if spec.mode == "buffered" else Synchronous
    schedule = kind(grid, strategy, spec, clock)
    if begun is not None:
        schedule.load_state(begun)
        if not same_grid:
            schedule.mailbox.give_up(math.inf)
    while not schedule.over:
        on_round(schedule.round())


def weights_of(begun: State) -> dict[str, Packed]:
    """Return the weights in what `Round.state` returned, packed by block."""
    prefix = "strategy/weights/"
    return {key.removeprefix(prefix): packed for key, packed in begun.arrays.items() if key.startswith(prefix)}


def _log_round(done: Round) -> None:
    samples, correct = score(done.verdicts.values())
    log.info(
        "round %d: %d orders, %d replies, %.3g aggregations, accuracy %s",
        done.number,
        len(done.ordered),
        len(done.verdicts),
        done.aggregations,
        f"{correct / samples:.3f}" if samples else "unknown",
    )


#: The app that ``pyproject.toml`` names.
app = make_server_app()
