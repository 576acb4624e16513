"""Averaging block by block: each over the devices that trained it.

Flower's own strategies refuse replies whose arrays differ, so devices that train a part of the network cannot be
averaged by them. Here every block is aggregated by itself, by a weighted mean or by any Flower strategy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal, Protocol, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.app.exception import AppExitException
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, Strategy

from fedtp.blocks import Packed
from fedtp.errors import FedtpError, WireError
from fedtp.learner import Learner
from fedtp.wire import Order, Report, pack_array, unpack_array
from server.assignment import Assignment
from server.validation import check_update

# Flower shows what its own logger and those below it are told.
log = logging.getLogger("flwr.fedtp")


class Aggregation(Protocol):
    """How the updates of one block become its new weights."""

    def __call__(self, current: Packed, updates: Sequence[tuple[Packed, int]]) -> Packed:
        """Return the new weights, given the current ones and each device's with its number of examples."""
        ...


def weighted_mean(current: Packed, updates: Sequence[tuple[Packed, int]]) -> Packed:
    """Average the devices' weights, each in proportion to its examples (FedAvg, McMahan et al. 2017, eq. 3).

    Examples
    --------
    >>> ones = np.ones(2, np.float32)
    >>> weighted_mean(ones, [(ones, 30), (5 * ones, 10)])
    array([2., 2.], dtype=float32)
    """
    total = sum(examples for _, examples in updates)
    mean = np.zeros(current.size, np.float32)
    scaled = np.empty_like(mean)
    for weights, examples in updates:
        mean += np.multiply(weights, np.float32(examples / total), out=scaled)
    return mean


class FlowerAggregation:
    """A Flower strategy, run on one block: FedAdam, FedMedian, Krum ... as Flower has them.

    The strategy keeps its own state, so every block has an instance of its own. (Krum may then choose different
    devices for different blocks.)

    Parameters
    ----------
    strategy
        A strategy whose ``aggregate_train`` needs nothing but arrays and numbers of examples.
    """

    def __init__(self, strategy: FedAvg) -> None:
        self.strategy = strategy
        self._round = 0

    def __call__(self, current: Packed, updates: Sequence[tuple[Packed, int]]) -> Packed:
        """Let the strategy aggregate the block; one that fails to, for too few updates say, leaves it as it is."""
        self._round += 1  # FedAdam's first steps depend on it
        # Strategies with a memory learn the current arrays where they configure a round.
        arrays = ArrayRecord({"block": pack_array(current)})
        self.strategy.configure_train(self._round, arrays, ConfigRecord(), _NO_NODES)
        key = self.strategy.weighted_by_key
        replies = [
            Message(
                RecordDict(
                    {
                        "arrays": ArrayRecord({"block": pack_array(weights)}),
                        "metrics": MetricRecord({key: examples}),
                    }
                ),
                dst_node_id=0,
                message_type=MessageType.TRAIN,
            )
            for weights, examples in updates
        ]
        try:
            new, _ = self.strategy.aggregate_train(self._round, replies)
        except (AppExitException, ValueError, IndexError, ZeroDivisionError) as error:
            log.warning("%s kept the old weights: %s", type(self.strategy).__name__, error)
            return current
        return current if new is None else new["block"].numpy().astype(np.float32)


class _NoNodes:
    """All that a strategy asks of a grid when it configures a round, without nodes."""

    def get_node_ids(self) -> list[int]:
        return []


_NO_NODES = cast("Grid", _NoNodes())


def aggregation_for(name: str, options: Mapping[str, Any]) -> Callable[[], Aggregation]:
    """Return what makes an aggregation for one block.

    Parameters
    ----------
    name
        ``"mean"``, or a strategy of ``flwr.serverapp.strategy`` by the name of its class.
    options
        Keyword arguments of Flower's strategy, those of its own: what all strategies share concerns the choice of
        nodes, which is not theirs here.

    Raises
    ------
    FedtpError
        If there is no such strategy, or it does not take these options.
    """
    if name == "mean":
        return lambda: weighted_mean
    kind = getattr(flower, name, None)
    if not (isinstance(kind, type) and issubclass(kind, FedAvg)):
        raise FedtpError(f'server.strategy is "{name}", but Flower has no such strategy that averages arrays.')

    _check_options(kind, options)

    def make() -> Aggregation:
        # With a minimum of nodes it would wait for them.
        return FlowerAggregation(kind(min_train_nodes=0, min_available_nodes=0, **options))

    try:
        make()
    except (TypeError, ValueError) as error:
        raise FedtpError(f"server.strategy_options do not fit Flower's {name}: {error}") from None
    return make


def _check_options(kind: type[FedAvg], options: Mapping[str, Any]) -> None:
    shared = signature(FedAvg).parameters
    own = {key: option for key, option in signature(kind).parameters.items() if key not in shared}
    for key, value in options.items():
        if key not in own:
            known = f"those of {kind.__name__} are {', '.join(own)}" if own else f"{kind.__name__} has none"
            raise FedtpError(f'server.strategy_options has "{key}", but {known}.')
        default = own[key].default
        if type(value) is not type(default) and not (type(value) is int and type(default) is float):
            raise FedtpError(
                f"server.strategy_options.{key} is {value!r}, but Flower's {kind.__name__} takes "
                f"a value like {default!r} there."
            )


@dataclass(frozen=True)
class Verdict:
    """What became of a reply.

    Parameters
    ----------
    status
        ``"accepted"``, ``"empty"`` (the device had no new samples) or ``"refused"``.
    reason
        Why it was refused, in a few words for counting; empty otherwise.
    detail
        The same as a sentence.
    report
        What the device reported, unless it was refused.
    """

    status: Literal["accepted", "empty", "refused"]
    reason: str = ""
    detail: str = ""
    report: Report | None = None


def score(verdicts: Iterable[Verdict]) -> tuple[int, int]:
    """Return how many samples the devices scored, and how many of them they predicted rightly."""
    reports = [verdict.report for verdict in verdicts if verdict.report is not None]
    return sum(report.samples for report in reports), sum(report.correct for report in reports)


class LayerwiseStrategy(Strategy):
    """A Flower strategy that orders blocks and averages each over the devices that trained it.

    Parameters
    ----------
    learner
        The network, and the projections that every device must share.
    aggregation
        Makes the aggregation of one block.
    fraction
        The share of the available nodes that get an order.
    seed
        Of the choice of nodes.

    Attributes
    ----------
    weights
        The current weights, packed by block.
    verdicts
        Of the latest `aggregate_train`: what became of each reply, by node.
    """

    def __init__(
        self,
        learner: Learner,
        aggregation: Callable[[], Aggregation] = lambda: weighted_mean,
        *,
        fraction: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.learner = learner
        self.weights: dict[str, Packed] = learner.initial_weights()
        self.verdicts: dict[int, Verdict] = {}
        self._aggregations = {name: aggregation() for name in self.weights}
        self._fraction = fraction
        self._seed = seed
        self._assignment = Assignment(self.weights)
        self._ordered: dict[int, tuple[str, ...]] = {}

    def summary(self) -> None:
        """Log the settings."""
        log.info("\t├──> Layerwise: %d blocks, fraction %.2f", len(self.weights), self._fraction)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Choose nodes and write one order for all of them.

        Parameters
        ----------
        server_round
            Number of the round, from 1.
        arrays
            The current blocks, as `arrays` gives them.
        config
            ``now``: the time of the order, s. ``busy``: node ids that still owe an answer.
        grid
            Asked for the nodes that are there.
        """
        busy = set(cast("list[int]", config.get("busy", [])))
        nodes = sorted(node for node in grid.get_node_ids() if node not in busy)
        if self._fraction < 1 and nodes:
            count = max(1, round(self._fraction * len(nodes)))
            rng = np.random.default_rng((self._seed, server_round))
            # By position: Flower's ids need all of 64 bits, and NumPy may make doubles of such numbers.
            nodes = [nodes[position] for position in sorted(rng.choice(len(nodes), count, replace=False))]
        self._ordered = self._assignment.choose(nodes)
        weights = {name: unpack_array(name, array) for name, array in arrays.items()}
        now = float(cast("float", config.get("now", 0.0)))
        # Messages to nodes with the same blocks share one content: it is built, and by the simulation read, once.
        contents = {
            blocks: Order(server_round, now, self.learner.digest, weights, blocks).to_records()
            for blocks in set(self._ordered.values())
        }
        return [Message(contents[self._ordered[node]], node, MessageType.TRAIN) for node in nodes]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check every reply, and aggregate each block over the devices that trained it."""
        self.verdicts = {}
        updates: dict[str, list[tuple[Packed, int]]] = {name: [] for name in self.weights}
        # The order in which replies came must not show in the sum.
        for reply in sorted(replies, key=lambda r: r.metadata.src_node_id):
            node = reply.metadata.src_node_id
            if node in self.verdicts:
                continue
            try:
                ordered = self._ordered.get(node, tuple(self.weights))
                report = check_update(reply, self.learner.sizes, self.learner.digest, ordered)
            except WireError as error:
                self.verdicts[node] = Verdict("refused", error.reason, str(error))
                log.warning("round %d: refused the update of node %d: %s", server_round, node, error)
                continue
            self.verdicts[node] = Verdict("accepted" if report.samples else "empty", report=report)
            self._assignment.note(node, report)
            for name, weights in report.weights.items():
                updates[name].append((weights, report.examples[name]))
        for name, trained in updates.items():
            if trained:
                self.weights[name] = self._aggregations[name](self.weights[name], trained)
        return self.arrays(), self._metrics()

    def arrays(self) -> ArrayRecord:
        """Return the current weights as Flower's record."""
        return ArrayRecord({name: pack_array(weights) for name, weights in self.weights.items()})

    def _metrics(self) -> MetricRecord | None:
        samples, correct = score(self.verdicts.values())
        if not samples:
            return None
        return MetricRecord({"samples": samples, "accuracy": correct / samples})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Order no evaluation: devices score every sample before they learn from it."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing was ordered, so there is nothing to aggregate."""
        return None
