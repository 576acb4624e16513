"""How a federation is doing, as Prometheus reads it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from fedtp.errors import DataError, FedtpError
from server.federation.folder import ServerFolder

_STATES = ("waiting", "learning", "resting", "finished", "failed")


class StatusCollector:
    """The figures in a server's status, read whenever they are asked for.

    Parameters
    ----------
    folder
        The federation's.
    """

    def __init__(self, folder: ServerFolder) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """Give the figures; none while there is no status that can be read."""
        try:
            status = self._folder.status()
        except DataError:
            return
        if not status:
            return
        state = GaugeMetricFamily("fedtp_state", "1 for the state that the server is in", labels=["state"])
        for name in _STATES:
            state.add_metric([name], float(status.get("state") == name))
        yield state
        yield GaugeMetricFamily("fedtp_round", "Rounds that have ended", value=float(status.get("round", 0)))
        if status.get("accuracy") is not None:
            yield GaugeMetricFamily(
                "fedtp_accuracy", "Prequential accuracy of the last round", value=status["accuracy"]
            )
        if status.get("epsilon") is not None:
            yield GaugeMetricFamily(
                "fedtp_epsilon", "Of what the model may have told of any device", value=status["epsilon"]
            )
        yield CounterMetricFamily("fedtp_samples", "Samples scored and learnt from", value=status.get("samples", 0))
        yield CounterMetricFamily("fedtp_correct", "Samples predicted rightly", value=status.get("correct", 0))
        yield CounterMetricFamily("fedtp_drifts", "Drifts that devices detected", value=status.get("drifts", 0))
        refused = CounterMetricFamily("fedtp_refused", "Updates refused, by reason", labels=["reason"])
        for reason, count in status.get("refusals", {}).items():
            refused.add_metric([reason], count)
        yield refused
        yield from _devices(status.get("devices", {}))


def _devices(devices: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    now = time.time()
    samples = CounterMetricFamily("fedtp_device_samples", "Samples of a device", labels=["device"])
    refused = CounterMetricFamily("fedtp_device_refused", "Refused updates of a device", labels=["device"])
    seen = GaugeMetricFamily("fedtp_device_seen_seconds", "Seconds since a device's last answer", labels=["device"])
    for name, device in devices.items():
        samples.add_metric([name], device.get("samples", 0))
        refused.add_metric([name], device.get("refused", 0))
        if device.get("last_seen") is not None:
            seen.add_metric([name], max(0.0, now - device["last_seen"]))
    yield from (samples, refused, seen)


def serve_metrics(folder: ServerFolder, port: int) -> Callable[[], None]:
    """Serve the figures on a port of this host alone; return what ends that.

    Parameters
    ----------
    folder
        The federation's.
    port
        0: they are not served.

    Raises
    ------
    FedtpError
        If the port cannot be used.
    """
    if not port:
        return lambda: None
    registry = CollectorRegistry()
    registry.register(StatusCollector(folder))
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise FedtpError(f"network.metrics_port {port} cannot be used: {error.strerror}") from None

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join(5)

    return close
