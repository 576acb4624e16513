"""Which blocks the server asks of nodes that leave it the choice: those that are trained least."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from fedtp.errors import DataError
from fedtp.streaming.state import State
from fedtp.wire import Report
from server.notes import Notes, by_node, of_nodes


class _Noted(Notes):
    """What nodes wished for and trained, each once, and how often blocks were trained."""

    wishes: list[tuple[tuple[str, ...], int]]
    latest: list[tuple[str, ...]]
    coverage: dict[str, int]


class Assignment:
    """Spreads the blocks of a network over the nodes, so that each is trained by somebody.

    A node that can train a part of the network only says in its report which blocks, and of how many it wants orders.
    All others are asked for all blocks, and choose themselves.

    Parameters
    ----------
    blocks
        Names of the blocks, in the order of the network.

    Attributes
    ----------
    coverage
        How many updates there were of each block so far.

    Examples
    --------
    >>> assignment = Assignment(["0", "2", "4"])
    >>> for node in (7, 8):
    ...     assignment.note(node, Report("", trainable=("0", "2"), wanted=1))
    >>> assignment.choose([7, 8, 9])
    {7: ('0',), 8: ('2',), 9: ('0', '2', '4')}
    """

    def __init__(self, blocks: Iterable[str]) -> None:
        self._blocks = tuple(blocks)
        self._wishes: dict[int, tuple[tuple[str, ...], int]] = {}
        self._latest: dict[int, tuple[str, ...]] = {}
        self.coverage = dict.fromkeys(self._blocks, 0)

    def note(self, node: int, report: Report) -> None:
        """Note what a node trained, and what it could."""
        self._latest[node] = tuple(report.weights)
        for name in report.weights:
            self.coverage[name] += 1
        if report.trainable:
            self._wishes[node] = report.trainable, report.wanted

    def choose(self, nodes: Sequence[int]) -> dict[int, tuple[str, ...]]:
        """Return for each node the names of the blocks to ask it for.

        Each gets those of its blocks that are expected least in this round, and of these those that were trained least
        so far. Nodes that choose themselves are expected to train what they trained last; those with little choice
        come first.
        """
        leaving = sorted((n for n in nodes if n in self._wishes), key=lambda node: (len(self._wishes[node][0]), node))
        expected = Counter(name for node in nodes if node not in self._wishes for name in self._latest.get(node, ()))
        chosen = dict.fromkeys(nodes, self._blocks)
        for node in leaving:
            names, wanted = self._wishes[node]
            # Ties go to the earlier block.
            able = [name for name in self._blocks if name in names]
            able.sort(key=lambda name: (expected[name], self.coverage[name]))
            expected.update(able[:wanted])
            chosen[node] = tuple(name for name in self._blocks if name in able[:wanted])
        return chosen

    def state(self) -> State:
        """Return what was noted."""
        wishing, wishes = by_node(self._wishes)
        answering, latest = by_node(self._latest)
        notes = _Noted(wishes=wishes, latest=latest, coverage=self.coverage)
        return State({"wishes": wishing, "latest": answering}, notes.saved())

    def load_state(self, state: State) -> None:
        """Take over what was noted of the same blocks.

        Raises
        ------
        DataError
            If it was of others.
        """
        notes = _Noted.of(state)
        if tuple(notes.coverage) != self._blocks:
            raise DataError(f"it is of the blocks {', '.join(notes.coverage)}, not {', '.join(self._blocks)}")
        wishes, latest = of_nodes(state, "wishes", notes.wishes), of_nodes(state, "latest", notes.latest)
        self._wishes, self._latest, self.coverage = wishes, latest, notes.coverage
