"""The ClientApp of a real device: it lives in its folder, and Flower starts a new process for every order."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.app import answer, carry_out, conclude, read
from clients.budget import Budget
from clients.device import Device
from clients.federation.folder import DeviceFolder
from clients.federation.settings import DeviceSpec
from clients.settings import AdaptationSpec
from clients.sources.quarantine import put
from fedtp.errors import FedtpError, WireError
from fedtp.federation import FOLDER_VARIABLE
from fedtp.learner import learner_of
from fedtp.run_config import ConfigValue
from fedtp.wire import Order, Report

log = logging.getLogger("flwr.fedtp")

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Carry out an order, or send again what the server has not heard."""
    folder = DeviceFolder(Path(os.environ[FOLDER_VARIABLE]))
    try:
        with folder.alone():
            result = work(folder, read(message), dict(context.run_config))
    except FedtpError as error:
        log.warning("%s", error)
        result = str(error)
    return answer(message, result)


def work(folder: DeviceFolder, order: Order | FedtpError, config: dict[str, ConfigValue]) -> Report | str:
    """Return a device's answer to an order, which is then on disk with all that has led to it.

    Parameters
    ----------
    folder
        The device's.
    order
        What it is asked, or why that cannot be read.
    config
        What the server told: the network, and how it learns.

    Raises
    ------
    FedtpError
        If the device cannot take part: its file, its state or its data is not as it must be.
    """
    spec = DeviceSpec.read(folder.path)
    if (told := config.get("schema")) is not None and told != spec.data.digest:
        raise WireError(
            "schema",
            f"the columns of device {spec.name} are not those of the federation: give [data] in its device.toml what "
            "federation.toml says",
        )
    learner = learner_of(config)
    budget = Budget.from_config({**config, **{f"budget.{key}": value for key, value in spec.budget.items()}})
    stream = spec.open_stream(folder.path, config)
    device = Device.new(learner, stream, int(config.get("buffer", 0)), budget, AdaptationSpec.from_config(config))
    folder.restore(device)
    if isinstance(order, Order) and (again := folder.to_send_again(order)) is not None:
        log.info("the server has not heard report %s: sending it again", again.id)
        folder.commit(device, again)
        return again
    (done,) = carry_out([order], [[device]])
    result = conclude(done)
    bad = getattr(stream, "bad", [])
    if isinstance(result, str):  # the rows will be read again
        return result
    put(folder.path / "quarantine", bad)
    if result.samples:
        folder.reports += 1
        result = replace(result, id=f"{spec.name}-{folder.reports}")
    folder.commit(device, result if result.samples else folder.unheard)
    log.info("round %d: %d samples, %d right, %d bad rows", *_counts(order, result), len(bad))
    return result


def _counts(order: Order | FedtpError, report: Report) -> tuple[int, int, int]:
    return (order.round if isinstance(order, Order) else 0), report.samples, report.correct
