"""Which blocks the server asks of nodes that leave it the choice: those that are trained least."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from fedtp.wire import Report


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
        self._wishes: dict[int, tuple[Sequence[str], int]] = {}
        self._latest: dict[int, Iterable[str]] = {}
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
