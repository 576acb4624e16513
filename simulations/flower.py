"""Flower's private parts that a grid of one's own must touch, all in one place (flwr is pinned for them)."""

from __future__ import annotations

from flwr.app import Context, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.supercore.task_identity import TaskIdentity
from google.protobuf.message import DecodeError

from fedtp.errors import DataError
from fedtp.run_config import ConfigValue

#: Outside a SuperLink there is one run and one task.
RUN_ID = 1
SERVER_NODE_ID = 1


def identify() -> None:
    """Say which run this process works for: without it Flower builds no messages."""
    TaskIdentity.run_id = RUN_ID
    TaskIdentity.task_id = RUN_ID
    TaskIdentity.node_id = SERVER_NODE_ID


def number(message: Message, message_id: str) -> None:
    """Give a message its id, as a SuperLink does."""
    message.metadata.__dict__["_message_id"] = message_id


def to_bytes(message: Message) -> bytes:
    """Return a message as Flower sends it."""
    sent: bytes = message_to_proto(message).SerializeToString()
    return sent


def from_bytes(sent: bytes) -> Message:
    """Return the message that `to_bytes` wrote.

    Raises
    ------
    DataError
        If it is none.
    """
    try:
        return message_from_proto(ProtoMessage.FromString(sent))
    except (DecodeError, ValueError, TypeError) as error:
        raise DataError(f"a message cannot be read: {error}") from None


def make_context(
    run_config: dict[str, ConfigValue], node_id: int = SERVER_NODE_ID, node_config: dict[str, ConfigValue] | None = None
) -> Context:
    """Return the context that Flower gives an app."""
    return Context(
        run_id=RUN_ID, node_id=node_id, node_config=node_config or {}, state=RecordDict(), run_config=run_config
    )
