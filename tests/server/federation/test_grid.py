"""The grid that believes no message: parts that never come, that are too many, that make no sense."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, MessageType, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

from fedtp.errors import WireError
from server.federation.grid import LimitedGrid
from server.validation import INCOMPLETE, OVERSIZED, UNREADABLE, check_update
from simulations.flower import identify, number

NODE = 77


@dataclass
class FakeLink:
    """What the ServerApp asks of a SuperLink: messages once, and the parts that are there."""

    parts: dict[str, bytes] = field(default_factory=dict)
    new: list[tuple[Message, ObjectTree]] = field(default_factory=list)
    confirmed: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    pulled: int = 0

    def sent(self, content: RecordDict | Error) -> Message:
        """Have a node answer; all parts are there."""
        order = Message(RecordDict(), NODE, MessageType.TRAIN)
        number(order, f"order-{len(self.new)}")
        reply = Message(content, reply_to=order)
        number(reply, reply.object_id)
        self.parts |= {name: part.deflate() for name, part in get_all_nested_objects(reply).items()}
        self.new.append((reply, get_object_tree(reply)))
        return reply

    def PullMessages(self, request: Any) -> PullAppMessagesResponse:  # noqa: N802
        # Flower tells of a question that it has given the answer to that it never was.
        assert not set(request.message_ids) & set(self.answered)
        new, self.new = self.new, []
        self.answered += [message.metadata.reply_to_message_id for message, _ in new]
        return PullAppMessagesResponse(
            messages_list=[message_to_proto(remove_content_from_message(message)) for message, _ in new],
            message_object_trees=[tree for _, tree in new],
        )

    def PullObject(self, request: Any) -> PullObjectResponse:  # noqa: N802
        self.pulled += 1
        found = self.parts.get(request.object_id, b"")
        return PullObjectResponse(object_found=True, object_available=bool(found), object_content=found)

    def ConfirmMessageReceived(self, request: Any) -> None:  # noqa: N802
        self.confirmed.append(request.message_object_id)


class Setting:
    def __init__(self, most_bytes: int = 10_000, most_records: int = 20) -> None:
        self.link, self.time = FakeLink(), 0.0
        flower = SimpleNamespace(_runtime_client=self.link, node=Node(node_id=1), run=SimpleNamespace(run_id=1))
        self.grid = LimitedGrid(flower, most_bytes, most_records, lambda: self.time)  # type: ignore[arg-type]

    def pull(self, ids: Iterable[str] = ()) -> list[Message]:
        return list(self.grid.pull_messages(ids))


@pytest.fixture(autouse=True)
def _run() -> None:
    identify()


def record(*sizes: int) -> RecordDict:
    arrays = {str(index): Array(np.full(size, index, np.float32)) for index, size in enumerate(sizes)}
    return RecordDict({"weights": ArrayRecord(arrays)})


def test_a_message_arrives_as_it_was_sent() -> None:
    setting = Setting()
    sent = setting.link.sent(record(10, 20))
    (message,) = setting.pull()
    assert message.content == sent.content
    assert message.metadata.src_node_id == NODE
    assert message.metadata.reply_to_message_id == "order-0"
    assert setting.link.confirmed == [sent.metadata.message_id]
    assert setting.pull() == []


def test_an_error_arrives_as_it_was_sent() -> None:
    setting = Setting()
    setting.link.sent(Error(2, "no data"))
    (message,) = setting.pull()
    assert (message.error.code, message.error.reason) == (2, "no data")


def test_a_message_that_is_not_whole_keeps_no_other_waiting() -> None:
    setting, waiting = Setting(), {"order-0", "order-1"}
    lost = setting.link.sent(record(30))
    (array,) = lost.content["weights"].values()
    held = setting.link.parts.pop(array.object_id)
    whole = setting.link.sent(record(10))
    (message,) = setting.pull(waiting)
    assert message.content == whole.content
    waiting.discard(message.metadata.reply_to_message_id)
    setting.time = 30.0
    assert setting.pull(waiting) == []
    setting.link.parts[array.object_id] = held
    (message,) = setting.pull(waiting)
    assert message.content == lost.content


def test_parts_that_never_come_are_not_waited_for() -> None:
    setting = Setting()
    lost = setting.link.sent(record(30))
    del setting.link.parts[lost.content["weights"].object_id]
    assert setting.pull() == []
    setting.time = 61.0
    (message,) = setting.pull()
    assert message.error.code == INCOMPLETE
    assert message.metadata.src_node_id == NODE
    assert setting.link.confirmed == [lost.metadata.message_id]
    setting.time = 1000.0
    assert setting.pull() == []


def test_no_more_is_fetched_than_an_honest_message_has() -> None:
    setting = Setting(most_bytes=10_000)
    setting.link.sent(record(*[1_000] * 4))
    setting.link.sent(record(*range(1, 200)))
    messages = setting.pull()
    assert [message.error.code for message in messages] == [OVERSIZED, OVERSIZED]
    assert setting.link.pulled < 10
    with pytest.raises(WireError, match="more than 10,000 bytes") as caught:
        check_update(messages[0], {}, "", ())
    assert caught.value.reason == "size"


@pytest.mark.parametrize("spoilt", [b"nonsense", b"Message ,, 3\x00abc", b"\xff" * 100])
def test_what_cannot_be_read_is_refused(spoilt: bytes) -> None:
    setting = Setting()
    sent = setting.link.sent(record(10))
    setting.link.parts[sent.object_id] = spoilt
    (message,) = setting.pull()
    assert message.error.code == UNREADABLE
    assert message.metadata.src_node_id == NODE


def test_the_sender_is_who_the_superlink_says() -> None:
    setting = Setting()
    sent = setting.link.sent(record(10))
    (told, tree), setting.link.new = setting.link.new[0], []
    told.metadata.__dict__["_src_node_id"] = 99
    setting.link.new.append((told, tree))
    (message,) = setting.pull()
    assert message.content == sent.content
    assert message.metadata.src_node_id == 99
