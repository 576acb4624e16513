"""The ClientApp: a node's answer to the server's orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from clients.budget import Budget
from clients.device import Device
from clients.settings import AdaptationSpec
from clients.training import Outcome, Plan, learn, plan, report
from fedtp.data.stream import Stream
from fedtp.errors import FedtpError, ModelError
from fedtp.learner import learner_of
from fedtp.loading import load_object
from fedtp.run_config import ConfigValue
from fedtp.wire import Order, Report

#: Opens a device's stream, given Flower's run config and node config in one.
OpenStream = Callable[[Mapping[str, ConfigValue]], Stream]

#: Says what a device can afford, given the same.
OpenBudget = Callable[[Mapping[str, ConfigValue]], Budget]

#: What came of an order on a device, and what it had planned, if it could carry the order out.
Done = tuple[Plan | None, Outcome]

#: Flower's code for an exception of the ClientApp's.
_CLIENT_APP_RAISED = 2


def make_client_app(open_stream: OpenStream | None = None, open_budget: OpenBudget | None = None) -> ClientApp:
    """Return a ClientApp whose devices read the streams that `open_stream` opens.

    Parameters
    ----------
    open_stream
        From a device's config to its stream. By default the function that the run config names by import path
        under ``stream``, as in ``"simulations.world:open_stream"``.
    open_budget
        From a device's config to its budget. By default the function that it names under ``budget``, or else
        `clients.budget.Budget.from_config`, which reads a budget from the config itself.

    Notes
    -----
    Between orders a device keeps at most so many samples as ``buffer`` in the run config says; 0, the default: any
    number.

    A node is one device, or with ``devices-per-node`` above 1 in its config a gateway that hosts so many: node p has
    the devices p n, p n + 1, ..., and each of their streams is opened with its own number as ``partition-id``.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        config = {**context.run_config, **context.node_config}
        opener = open_stream or load_object(str(config.get("stream", "")), "stream")
        named = config.get("budget")
        affords = open_budget or (load_object(str(named), "budget") if named else Budget.from_config)
        learner, adaptation = learner_of(config), AdaptationSpec.from_config(config)
        buffer = int(config.get("buffer", 0))
        devices = {
            name: Device.resume(context.state, learner, opener(own), name, buffer, affords(own), adaptation)
            for name, own in _devices(config).items()
        }
        (done,) = carry_out([read(message)], [list(devices.values())])
        reply = answer(message, conclude(done))
        for name, device in devices.items():
            device.suspend(context.state, name)
        return reply

    return app


def read(message: Message) -> Order | FedtpError:
    """Return the order in a message, or what is wrong with it."""
    try:
        return Order.from_records(message.content)
    except FedtpError as error:
        return error


def carry_out(orders: Sequence[Order | FedtpError], nodes: Sequence[Sequence[Device]]) -> list[list[Done]]:
    """Carry out an order per node; all devices that can learn together do, whichever their node.

    Parameters
    ----------
    orders
        What each node was sent, as `read` returns it.
    nodes
        For each the devices of its node that take part.

    Returns
    -------
    list
        For each node what came of it on each of its devices.
    """
    done: list[list[Done]] = [[] for _ in orders]
    plans: list[Plan] = []
    places: list[tuple[int, int]] = []
    for node, (order, devices) in enumerate(zip(orders, nodes, strict=True)):
        for position, device in enumerate(devices):
            try:
                if isinstance(order, FedtpError):
                    raise order
                item = plan(order, device)
            except FedtpError as error:
                done[node].append((None, Outcome(error=str(error))))
            else:
                done[node].append((item, Outcome()))
                plans.append(item)
                places.append((node, position))
    for (node, position), item, outcome in zip(places, plans, learn(plans), strict=True):
        done[node][position] = item, outcome
    return done


def conclude(done: Sequence[Done]) -> Report | str:
    """Return a node's report on what its devices could do, or why none could do anything."""
    planned = [(item, outcome) for item, outcome in done if item is not None]
    if planned:
        return report(planned)
    return done[0][1].error if done else "no device of this node took part"


def answer(message: Message, result: Report | str) -> Message:
    """Return a node's reply with its report, or with the error that there is none."""
    if isinstance(result, str):
        return Message(Error(_CLIENT_APP_RAISED, result), reply_to=message)
    return Message(result.to_records(), reply_to=message)


def _devices(config: Mapping[str, ConfigValue]) -> dict[str, dict[str, ConfigValue]]:
    """Return the config of each device of a node, by the name under which it is suspended."""
    count = config.get("devices-per-node", 1)
    if count == 1:
        return {"device": dict(config)}
    if type(count) is not int or count < 1:
        raise ModelError(f"devices-per-node is {count!r}, but must be a whole number above 0")
    node = config.get("partition-id", 0)
    if type(node) is not int:
        raise ModelError(f"partition-id is {node!r}, but the devices of a gateway need a whole number there")
    return {f"device-{d}": {**config, "partition-id": d} for d in range(node * count, (node + 1) * count)}


#: The app that ``pyproject.toml`` names.
app = make_client_app()
