"""The ClientApp: a device's answer to the server's orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from clients.device import Device
from clients.training import Outcome, Plan, learn, plan, report
from fedtp.data.stream import Stream
from fedtp.errors import FedtpError
from fedtp.learner import learner_of
from fedtp.loading import load_object
from fedtp.run_config import ConfigValue
from fedtp.wire import Order

#: Opens a device's stream, given Flower's run config and node config in one.
OpenStream = Callable[[Mapping[str, ConfigValue]], Stream]

#: Flower's code for an exception of the ClientApp's.
_CLIENT_APP_RAISED = 2


def make_client_app(open_stream: OpenStream | None = None) -> ClientApp:
    """Return a ClientApp whose devices read the streams that `open_stream` opens.

    Parameters
    ----------
    open_stream
        From a device's config to its stream. By default the function that the run config names by import path
        under ``stream``, as in ``"simulations.world:open_stream"``.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        config = {**context.run_config, **context.node_config}
        opener = open_stream or load_object(str(config.get("stream", "")), "stream")
        device = Device.resume(context.state, learner_of(config), opener(config))
        (reply, _) = answer([message], [device])[0]
        device.suspend(context.state)
        return reply

    return app


def answer(messages: Sequence[Message], devices: Sequence[Device]) -> list[tuple[Message, Outcome | None]]:
    """Carry out one order per device; all that can learn together do.

    Returns
    -------
    list
        For each message its reply, and what came of it: None for an order that could not be carried out, whose
        reply is an error that says why.
    """
    orders: dict[int, Order] = {}
    replies: list[tuple[Message, Outcome | None] | None] = [None] * len(messages)
    plans: dict[int, Plan] = {}
    for index, (message, device) in enumerate(zip(messages, devices, strict=True)):
        try:
            # A server sends one and the same content to many: it is read once.
            order = orders.get(id(message.content)) or Order.from_records(message.content)
            orders[id(message.content)] = order
            plans[index] = plan(order, device)
        except FedtpError as error:
            replies[index] = Message(Error(_CLIENT_APP_RAISED, str(error)), reply_to=message), None
    for index, outcome in zip(plans, learn(list(plans.values())), strict=True):
        replies[index] = Message(report(outcome).to_records(), reply_to=messages[index]), outcome
    return [reply for reply in replies if reply is not None]


#: The app that ``pyproject.toml`` names.
app = make_client_app()
