"""The global model, block by block: each is aggregated over the devices that trained it.

Flower's own strategies refuse replies whose arrays differ, so devices that train a part of the network cannot be
averaged by them. Here every block is aggregated by itself. When that is done is the schedule's to say.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from flwr.app import Message

from fedtp.blocks import Packed
from fedtp.errors import DataError, WireError
from fedtp.learner import Learner
from fedtp.streaming.state import Part, State, counts, parted, together
from fedtp.wire import Order, Report
from server.aggregation import Aggregation, weighted_mean
from server.assignment import Assignment
from server.mailbox import Sent
from server.norms import Norms
from server.privacy import Privacy, private
from server.reactions import NO_REACTIONS, Reactions
from server.reputation import Reputation
from server.settings import PrivacySpec, ReactionSpec, TrustSpec
from server.validation import check_update
from server.verdict import Verdict

# Flower shows what its own logger and those below it are told.
log = logging.getLogger("flwr.fedtp")

_BELIEVING = TrustSpec()
_OPEN = PrivacySpec()

#: A device's update of one block: weights, packed, and the number of examples behind them.
Update = tuple[Packed, int]


class LayerwiseStrategy:
    """Writes orders, judges replies, and aggregates each block over the devices that trained it.

    Parameters
    ----------
    learner
        The network, and the projections that every device must share.
    aggregation
        Makes the aggregation of one block.
    lr
        The share of the way that the weights go from where they are to what was aggregated.
    reactions
        What is done about drift.
    trust
        Which updates are refused for going too far, and which nodes are asked no more for a while.
    privacy
        How large updates are, and how much noise there is in their mean.
    noise_seed
        Of the noise; by default one that nobody knows.

    Attributes
    ----------
    weights
        The current weights, packed by block. An array that is there is never written to again.
    versions
        How often each block has been aggregated.
    reactions
        Which nodes have drifted of late, and what follows from it.
    heard
        The name of the latest report of each node that names them.
    reputation
        Which nodes are in quarantine.
    privacy
        What the model may have told of a device.
    """

    def __init__(
        self,
        learner: Learner,
        aggregation: Callable[[], Aggregation] = lambda: weighted_mean,
        *,
        lr: float = 1.0,
        reactions: ReactionSpec = NO_REACTIONS,
        trust: TrustSpec = _BELIEVING,
        privacy: PrivacySpec = _OPEN,
        noise_seed: int | None = None,
    ) -> None:
        self.learner = learner
        self.weights: dict[str, Packed] = learner.initial_weights()
        self.versions: dict[str, int] = dict.fromkeys(self.weights, 0)
        make = private(privacy, aggregation, noise_seed)
        self._aggregations = {name: make() for name in self.weights}
        self._lr = lr
        self._assignment = Assignment(self.weights)
        self.reactions = Reactions(reactions, self.weights)
        self.heard: dict[int, str] = {}
        self.reputation = Reputation(trust.quarantine_after, trust.quarantine_rounds)
        self._norms = Norms(trust.norm_bound, self.weights)
        self.privacy = Privacy(privacy)

    @property
    def version(self) -> float:
        """How often blocks have been aggregated, mean over the blocks."""
        return float(np.mean(list(self.versions.values())))

    def orders(self, nodes: Sequence[int], number: int, now: float) -> list[Sent]:
        """Return an order for each of these nodes, with all blocks at their current weights.

        Parameters
        ----------
        nodes
            Ids of the nodes.
        number
            Of the round, from 1.
        now
            The time, s.
        """
        for name, packed in self.reactions.begun_anew(number).items():
            self.weights[name] = packed
            self.versions[name] += 1
        assigned = self._assignment.choose(nodes)
        weights, versions, heard = dict(self.weights), dict(self.versions), tuple(self.heard.values())
        orders = {
            blocks: Order(
                number,
                float(now),
                self.learner.digest,
                weights,
                blocks,
                self.reactions.paces(blocks, number),
                heard,
                self.privacy.spec.clip,
            )
            for blocks in set(assigned.values())
        }
        return [Sent(node, orders[assigned[node]], versions) for node in nodes]

    def judge(self, sent: Sent, reply: Message) -> Verdict:
        """Check the reply to an order. What is wrong with it is logged."""
        try:
            report = check_update(reply, self.learner.sizes, self.learner.digest, sent.order.blocks)
            self._hear(sent.node, report)
            self._norms.check(report.weights, sent.order.weights)
            self.privacy.check(sent.node, report.weights, sent.order.weights)
        except WireError as error:
            log.warning("round %d: refused the update of node %d: %s", sent.order.round, sent.node, error)
            self.reputation.note(sent.node, sent.order.round, error.reason)
            return Verdict("refused", error.reason, str(error))
        self.reputation.note(sent.node, sent.order.round, "")
        self._assignment.note(sent.node, report)
        self.reactions.note(sent.node, sent.order.round, report.detections)
        if not report.samples:
            return Verdict("empty", report=report)
        stale = [self.versions[name] - sent.versions[name] for name in report.weights]
        return Verdict("accepted", report=report, staleness=float(np.mean(stale)) if stale else math.nan)

    def _hear(self, node: int, report: Report) -> None:
        """Note a report that has a name.

        Raises
        ------
        WireError
            If the node has sent it before.
        """
        if report.id and self.heard.get(node) == report.id:
            raise WireError("replay", f"its report {report.id} has been heard before")
        if report.id:
            self.heard[node] = report.id

    def aggregate(self, updates: Mapping[str, Sequence[Update]]) -> None:
        """Aggregate each block over its updates; one without any stays as it is."""
        for name, trained in updates.items():
            if not trained:
                continue
            current = self.weights[name]
            new = self._aggregations[name](current, trained)
            self.weights[name] = new if self._lr == 1 else current + np.float32(self._lr) * (new - current)
            self.versions[name] += 1

    def state(self) -> State:
        """Return the weights, and all that has led to them and bears upon the next."""
        versions, heard = list(self.versions.values()), {str(node): name for node, name in self.heard.items()}
        weights = State(dict(self.weights), {"versions": versions, "heard": heard})
        return together({"weights": weights, **{name: part.state() for name, part in self._parts().items()}})

    def load_state(self, state: State) -> None:
        """Go on where another strategy with the same arguments was.

        Raises
        ------
        DataError
            If it was none; this one is of no use then.
        """
        parts = self._parts()
        states = parted(state, ["weights", *parts])
        self.weights = {
            name: states["weights"].typed(name, np.float32, size) for name, size in self.learner.sizes.items()
        }
        versions = counts(states["weights"].record.get("versions"), len(self.weights), "the versions")
        self.versions = dict(zip(self.weights, versions, strict=True))
        heard = states["weights"].record.get("heard")
        if not isinstance(heard, dict) or not all(node.isdecimal() for node in heard):
            raise DataError("it does not say which reports were heard")
        self.heard = {int(node): str(name) for node, name in heard.items()}
        for name, part in parts.items():
            part.load_state(states[name])

    def _parts(self) -> dict[str, Part]:
        """Return what has a memory of its own: of the aggregations those that have one."""
        remembering = {f"block {name}": part for name, part in self._aggregations.items() if isinstance(part, Part)}
        own: dict[str, Part] = {"assignment": self._assignment, "reactions": self.reactions}
        return {**own, "reputation": self.reputation, "norms": self._norms, "privacy": self.privacy, **remembering}
