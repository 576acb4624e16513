"""What the server does about drift, by the detections that devices report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedtp.blocks import Packed
from fedtp.streaming.state import State
from server.notes import Notes, by_node, of_nodes
from server.settings import ReactionSpec

NO_REACTIONS = ReactionSpec()


class _Noted(Notes):
    """Rounds in which nodes reported, and drifted, each once; and those of the latest reaction for all."""

    reported: list[int]
    drifted: list[int]
    began: int
    ends: int
    anew: int


class Reactions:
    """Which nodes have drifted of late, and what follows from it.

    Parameters
    ----------
    spec
        How the server reacts.
    initial
        The weights that the fleet began with, packed by block.

    Examples
    --------
    >>> import numpy as np
    >>> spec = ReactionSpec(reaction="boost", share=0.5, factor=3.0)
    >>> reactions = Reactions(spec, {"0": np.zeros(2, np.float32), "2": np.zeros(1, np.float32)})
    >>> reactions.note(node=7, number=1, detections=0)
    >>> reactions.note(node=8, number=1, detections=1)
    >>> reactions.paces(("0", "2"), number=2), reactions.paces(("0", "2"), number=7)
    ((3.0, 3.0), ())
    """

    def __init__(self, spec: ReactionSpec, initial: Mapping[str, Packed]) -> None:
        self.spec = spec
        self._initial = dict(initial)
        names = list(initial)
        self._blocks = names if spec.blocks == "all" else names[-1:]
        #: The rounds whose orders each node last answered, and last answered with a drift.
        self._reported: dict[int, int] = {}
        self._drifted: dict[int, int] = {}
        #: The rounds in which the latest reaction for all began and ends, and the one in which blocks began anew.
        self._began = self._ends = self._anew = 0

    def note(self, node: int, number: int, detections: int) -> None:
        """Take note of how many drifts a node reported in answer to an order of a round."""
        if self.spec.reaction == "none":
            return
        self._reported[node] = number
        if detections:
            self._drifted[node] = number

    def first(self, number: int) -> frozenset[int]:
        """Return the nodes that are to be asked before others in a round."""
        if self.spec.reaction != "participation":
            return frozenset()
        return frozenset(self._lately(self._drifted, number))

    def paces(self, blocks: Sequence[str], number: int) -> tuple[float, ...]:
        """Return what the learning rates of blocks are multiplied with in a round; nothing if all learn as usual."""
        if self.spec.reaction != "boost" or not self._reacts(number):
            return ()
        return tuple(self.spec.factor if name in self._blocks else 1.0 for name in blocks)

    def begun_anew(self, number: int) -> dict[str, Packed]:
        """Return the blocks that all begin anew in a round, with their first weights: once for each reaction."""
        if self.spec.reaction != "reset" or not self._reacts(number) or self._anew == self._began:
            return {}
        self._anew = self._began
        return {name: self._initial[name].copy() for name in self._blocks}

    def state(self) -> State:
        """Return what was noted."""
        reporting, reported = by_node(self._reported)
        drifting, drifted = by_node(self._drifted)
        notes = _Noted(reported=reported, drifted=drifted, began=self._began, ends=self._ends, anew=self._anew)
        return State({"reported": reporting, "drifted": drifting}, notes.saved())

    def load_state(self, state: State) -> None:
        """Take over what was noted.

        Raises
        ------
        DataError
            If it is of something else.
        """
        notes = _Noted.of(state)
        reported, drifted = of_nodes(state, "reported", notes.reported), of_nodes(state, "drifted", notes.drifted)
        self._reported, self._drifted = reported, drifted
        self._began, self._ends, self._anew = notes.began, notes.ends, notes.anew

    def _reacts(self, number: int) -> bool:
        """Say whether a reaction for all is under way in a round; begin one if so many have drifted."""
        if number > self._ends:
            drifted = len(self._lately(self._drifted, number))
            if drifted and drifted >= self.spec.share * len(self._lately(self._reported, number)):
                self._began, self._ends = number, number + self.spec.rounds - 1
        return number <= self._ends

    def _lately(self, rounds: Mapping[int, int], number: int) -> list[int]:
        """Return the nodes to which something happened in the rounds before this one that count."""
        return [node for node, last in rounds.items() if number - self.spec.rounds <= last < number]
