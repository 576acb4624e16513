"""Flower's grid with limits: no device stops the rounds, or fills the server's memory, by what it sends or leaves out.

A message comes in parts. Flower's own grid fetches them one message after the other, waits for up to two hours for a
part that a device has announced and never sent, and takes parts of any size and number. This is the one module that
touches its private parts for that (flwr is pinned for them).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.app.message import make_message
from flwr.common.serde_utils import metadata_from_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    inflate_object_from_contents,
)
from flwr.supercore.run import Run
from flwr.superlink.grid.http_grid import HttpGrid

from server.validation import INCOMPLETE, OVERSIZED, UNREADABLE

#: How long the parts of a message may take to come once the first are there, s.
_PATIENCE = 60.0
#: Flower cuts arrays into parts of 5 MB; each record and array has one more.
_PART_BYTES = 4_000_000


@dataclass
class _Coming:
    """A message of which not all parts are there."""

    message: ProtoMessage
    missing: list[str]
    since: float
    parts: dict[str, bytes] = field(default_factory=dict)


class LimitedGrid(Grid):
    """A grid that waits for no single message, and refuses those that are too large or make no sense.

    Such a message is answered for by an error of its sender with a code of `server.validation`.

    Parameters
    ----------
    grid
        Flower's own.
    most_bytes
        More than any honest message has.
    most_records
        More than any honest message has of arrays and records.
    now
        The time, s.
    """

    def __init__(
        self, grid: HttpGrid, most_bytes: int, most_records: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._grid = grid
        self._most_bytes = most_bytes
        self._most_parts = most_records + most_bytes // _PART_BYTES
        self._now = now
        self._coming: list[_Coming] = []

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run."""
        return self._grid.run

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        """Return a message, as Flower does."""
        return self._grid.create_message(*arguments, **named)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the nodes that are there."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Return the nodes that are there."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages."""
        return self._grid.push_messages(messages)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and wait for the answers, as Flower does."""
        return self._grid.send_and_receive(messages, timeout=timeout)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the answers that are there whole, and errors for those that are refused; wait for none."""
        # Flower gives each answer once, and then says that there never was a question.
        begun = {one.message.metadata.reply_to_message_id for one in self._coming}
        asked = PullAppMessagesRequest(message_ids=[one for one in message_ids if one not in begun])
        answer = self._grid._runtime_client.PullMessages(asked)
        for message, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            self._coming.append(_Coming(message, self._announced(tree), self._now()))
        coming, self._coming = self._coming, []
        messages = []
        for one in coming:
            found = self._fetched(one)
            if found is None:
                self._coming.append(one)
            else:
                messages.append(found)
        return messages

    def _announced(self, tree: ObjectTree) -> list[str]:
        """Return the parts that a message shall have, up to one more than it may."""
        names = dict.fromkeys(
            node.object_id for node in itertools.islice(iterate_object_tree(tree), self._most_parts + 1)
        )
        return list(names)

    def _fetched(self, one: _Coming) -> Message | None:
        """Return a message if it is whole, or why it never will be; None if that is not known yet."""
        run_id, name = self._grid.run.run_id, one.message.metadata.message_id
        client = self._grid._runtime_client
        pull = make_pull_object_fn_protobuf(client.PullObject, self._grid.node, run_id)
        found: Message | None = None
        try:
            if len(one.missing) + len(one.parts) > self._most_parts:
                found = _refused(one, OVERSIZED, f"it has more than {self._most_parts} parts")
            while found is None and one.missing:
                one.parts[one.missing[-1]] = pull(one.missing[-1])
                one.missing.pop()
                if sum(map(len, one.parts.values())) > self._most_bytes:
                    found = _refused(one, OVERSIZED, f"it has more than {self._most_bytes:,} bytes")
        except ObjectUnavailableError:
            if self._now() - one.since < _PATIENCE:
                return None
            found = _refused(one, INCOMPLETE, f"parts of it did not come within {_PATIENCE:.0f} s")
        except ObjectPullError as error:
            found = _refused(one, INCOMPLETE, str(error))
        # The SuperLink forgets it.
        client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=self._grid.node, run_id=run_id, message_object_id=name)
        )
        return found or _built(one)


def _built(one: _Coming) -> Message:
    """Return a message whose parts are all there."""
    name = one.message.metadata.message_id
    try:
        message = inflate_object_from_contents(name, one.parts)
        if not isinstance(message, Message) or not (message.has_error() or isinstance(message.content, RecordDict)):
            raise TypeError("it is no message")
    except Exception as error:  # whatever Flower stumbles over in what a stranger wrote
        return _refused(one, UNREADABLE, f"it cannot be read: {type(error).__name__}: {error}")
    # What its sender says of itself in the parts is not what the SuperLink knows.
    message.metadata.__dict__.update(metadata_from_proto(one.message.metadata).__dict__)
    return message


def _refused(one: _Coming, code: int, reason: str) -> Message:
    return make_message(metadata=metadata_from_proto(one.message.metadata), error=Error(code, reason))
