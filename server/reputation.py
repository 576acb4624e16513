"""Which nodes the server has come to distrust, and for how long it leaves them alone."""

from __future__ import annotations

from collections.abc import Collection

from fedtp.streaming.state import State
from server.notes import Notes, by_node, of_nodes

#: What is not a device's fault.
_EXCUSED = frozenset({"quorum"})
#: No quarantine is longer than so many times the first.
_LONGEST = 64


class _Noted(Notes):
    """What is known of each node, each once: strikes, the round in which its quarantine ends, how many it had."""

    strikes: list[int]
    until: list[int]
    times: list[int]


class Reputation:
    """Counts refused updates: a node with too many gets no orders for some rounds, and after a relapse for longer.

    A node that answers with errors is treated alike: one that cannot take part is asked less and less often.

    Parameters
    ----------
    after
        So many refused updates put a node into quarantine; each accepted one makes up for one. 0: none ever is.
    rounds
        For how many rounds, the first time.

    Examples
    --------
    >>> reputation = Reputation(after=2, rounds=3)
    >>> for number in (1, 2):
    ...     reputation.note(7, number, "norm")
    >>> [number for number in range(3, 9) if 7 in reputation.quarantined(number)]
    [3, 4, 5]
    >>> reputation.note(7, 6, "norm")  # on probation one is enough
    >>> [number for number in range(7, 20) if 7 in reputation.quarantined(number)]
    [7, 8, 9, 10, 11, 12]
    """

    def __init__(self, after: int, rounds: int) -> None:
        self._after = after
        self._rounds = rounds
        self._strikes: dict[int, int] = {}
        self._until: dict[int, int] = {}
        self._times: dict[int, int] = {}

    def note(self, node: int, number: int, reason: str) -> None:
        """Take note of what became of a node's answer to an order of a round: why it was refused, or nothing."""
        if not self._after or reason in _EXCUSED:
            return
        strikes = max(0, self._strikes.get(node, 0) + (1 if reason else -1))
        self._strikes[node] = strikes
        if not strikes:  # what it did is made up for
            self._times.pop(node, None)
        if strikes >= self._after:
            times = self._times.get(node, 0)
            self._until[node] = number + self._rounds * min(2**times, _LONGEST)
            self._times[node] = times + 1
            self._strikes[node] = self._after - 1

    def quarantined(self, number: int) -> Collection[int]:
        """Return the nodes that get no order in a round."""
        return {node for node, until in self._until.items() if number <= until}

    def state(self) -> State:
        """Return what was noted."""
        strikes, counted = by_node(self._strikes)
        until, ends = by_node(self._until)
        times, numbers = by_node(self._times)
        notes = _Noted(strikes=counted, until=ends, times=numbers)
        return State({"strikes": strikes, "until": until, "times": times}, notes.saved())

    def load_state(self, state: State) -> None:
        """Take over what was noted.

        Raises
        ------
        DataError
            If it is of something else.
        """
        notes = _Noted.of(state)
        strikes, until = of_nodes(state, "strikes", notes.strikes), of_nodes(state, "until", notes.until)
        times = of_nodes(state, "times", notes.times)
        self._strikes, self._until, self._times = strikes, until, times
