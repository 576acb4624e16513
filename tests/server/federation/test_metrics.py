from __future__ import annotations

import socket
import time
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedtp.errors import FedtpError
from server.federation.folder import ServerFolder
from server.federation.metrics import serve_metrics


def test_prometheus_reads_how_things_are(folder: ServerFolder) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    close = serve_metrics(folder, port)
    try:
        assert read(port) == {}
        device = {"samples": 5, "refused": 1, "last_seen": time.time() - 10}
        status = {"state": "learning", "round": 3, "accuracy": 0.5, "samples": 9, "correct": 6, "drifts": 2}
        folder.write_status({**status, "refusals": {"norm": 4}, "devices": {"one": device, "two": {}}})
        found = read(port)
        assert found["fedtp_state", "learning"] == 1
        assert found["fedtp_state", "failed"] == 0
        assert found["fedtp_accuracy", ""] == 0.5
        assert found["fedtp_refused_total", "norm"] == 4
        assert found["fedtp_device_samples_total", "one"] == 5
        assert 10 <= found["fedtp_device_seen_seconds", "one"] < 15
        assert ("fedtp_device_seen_seconds", "two") not in found
        (folder.server / "status.json").write_text("{")
        assert read(port) == {}
        with pytest.raises(FedtpError, match=f"network.metrics_port {port} cannot be used"):
            serve_metrics(folder, port)
    finally:
        close()
    with pytest.raises(URLError):
        read(port)
    serve_metrics(folder, 0)()


def read(port: int) -> dict[tuple[str, str], float]:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
