"""How fast others simulate the same fleet: Flower's own runtime, pfl-research, and a bare NumPy loop.

The set-up is that of `fleet_speed.py`: a client-round is one pass over 50 samples in batches of 10. Rates are those
after the first round; every engine is measured in turn, and fedtp with them, so that ratios are of one run.

fedtp                   by tpSGD, streams, scores, messages, aggregation and records included: one core, and behind
                        gateways on all cores too, in a process for each
Flower's runtime        the same ServerApp, ClientApp, streams and data on Ray, a node per device, 20-32-4 only, each
                        round closed when all have answered: all cores
pfl-research            its FedAvg in one process, PyTorch's backpropagation on samples in memory: one core
NumPy loop              a bound: backpropagation and a running mean, nothing else: one core

    python benchmarks/fleet_peers.py                1,000 clients (784-200-10: 200 for pfl-research and NumPy)
    python benchmarks/fleet_peers.py --nodes 50     a trial

Flower's runtime needs fedtp's extra `ray`, pfl-research `pip install pfl==0.6.0`; what is missing is left out.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import typer
from fleet_speed import NETWORKS, SCENARIO, draw_once, rate, scenario, stay_on_one_core
from machine import publish
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

if TYPE_CHECKING:
    from flwr.app import Context, Message
    from flwr.serverapp import Grid

    from server.round import Round

SAMPLES, BATCH, RATE = 50, 10, 0.1
#: Flower's runtime: only this network, so many rounds.
ON_FLOWER, FLOWER_ROUNDS = "20-32-4", 3
PEER_ROUNDS = 4
#: Clients of the engines that hold samples in memory, at the most.
COHORTS = {"20-32-4": 1000, "784-200-10": 200}
PFL, FLOWER = "pfl-research", "Flower's runtime on Ray"
#: What keeps Flower and Ray from calling home or installing anything.
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@contextmanager
def one_core() -> Iterator[None]:
    """Stay on one core with one thread for a while."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    threads = torch.get_num_threads()
    try:
        with threadpool_limits(1):
            stay_on_one_core()
            torch.set_num_threads(1)
            yield
    finally:
        torch.set_num_threads(threads)
        if cores is not None:
            os.sched_setaffinity(0, cores)


def of_fedtp(network: str, nodes: int, per_node: int, processes: int = 1) -> float:
    """Return client-rounds per second of fedtp."""
    settings = ("learner.detector=none", f"run.devices_per_node={per_node}", f"run.processes={processes}")
    with one_core() if processes == 1 else nullcontext():
        return rate(scenario(network, *settings, devices=nodes, samples=SAMPLES * nodes))


def in_memory(network: str, clients: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return inputs ``[client, sample, feature]`` and labels ``[client, sample]``."""
    features, _, classes, _ = NETWORKS[network]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((clients, SAMPLES, features), dtype=np.float32)
    return x, rng.integers(classes, size=(clients, SAMPLES))


# --- NumPy ----------------------------------------------------------------------------------------------------------


def of_numpy(network: str, clients: int) -> float:
    """Return client-rounds per second of a loop that does nothing but backpropagation and the mean."""
    features, hidden, classes, _ = NETWORKS[network]
    x, labels = in_memory(network, clients)
    y = np.eye(classes, dtype=np.float32)[labels]
    rng = np.random.default_rng(1)
    weights = [
        rng.standard_normal((features, hidden), dtype=np.float32) / np.float32(features**0.5),
        np.zeros(hidden, np.float32),
        rng.standard_normal((hidden, classes), dtype=np.float32) / np.float32(hidden**0.5),
        np.zeros(classes, np.float32),
    ]
    ends = []
    with one_core():
        for _ in range(PEER_ROUNDS):
            total = [np.zeros_like(block) for block in weights]
            for client in range(clients):
                own = [block.copy() for block in weights]
                _epoch(own, x[client], y[client])
                for running, block in zip(total, own, strict=True):
                    running += block * np.float32(SAMPLES)
            weights = [running / np.float32(SAMPLES * clients) for running in total]
            ends.append(time.perf_counter())
    assert all(np.isfinite(block).all() for block in weights)
    return clients * (PEER_ROUNDS - 1) / (ends[-1] - ends[0])


def _epoch(weights: list[NDArray[np.float32]], x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
    """Learn from all samples once, in place: tanh, softmax, cross-entropy, gradient descent."""
    w1, b1, w2, b2 = weights
    for start in range(0, SAMPLES, BATCH):
        inputs = x[start : start + BATCH]
        h = np.tanh(inputs @ w1 + b1)
        p = np.exp(h @ w2 + b2)
        error = (p / p.sum(1, keepdims=True) - y[start : start + BATCH]) * np.float32(RATE / BATCH)
        back = (error @ w2.T) * (1 - h * h)
        w2 -= h.T @ error
        b2 -= error.sum(0)
        w1 -= inputs.T @ back
        b1 -= back.sum(0)


# --- pfl-research ---------------------------------------------------------------------------------------------------


class Network(nn.Sequential):
    """What pfl-research trains: the same multilayer perceptron, with the two methods that it asks for."""

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the mean cross-entropy."""
        return nn.functional.cross_entropy(self(x), y)

    @torch.no_grad()
    def metrics(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        """Return what is evaluated; only the first round, which is not timed, is."""
        from pfl.metrics import Weighted

        return {"loss": Weighted(float(self.loss(x, y)) * len(x), len(x))}


def of_pfl(network: str, clients: int) -> float:
    """Return client-rounds per second of pfl-research's own simulation of FedAvg."""
    # One process, and the processor, wherever this runs.
    os.environ["PFL_PYTORCH_DEVICE"] = "cpu"
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam.base import NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel

    ends: list[float] = []

    class Watch(TrainingProcessCallback):  # type: ignore[misc]
        def after_central_iteration(self, *_: object, **__: object) -> tuple[bool, Any]:
            ends.append(time.perf_counter())
            return False, Metrics()

    features, hidden, classes, _ = NETWORKS[network]
    x, y = (torch.from_numpy(array) for array in in_memory(network, clients))
    users = FederatedDataset.from_slices(
        {client: (x[client], y[client]) for client in range(clients)},
        get_user_sampler("minimize_reuse", list(range(clients))),
    )
    module = Network(nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, classes))
    model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0))
    with one_core():
        FederatedAveraging().run(
            NNAlgorithmParams(
                central_num_iterations=PEER_ROUNDS,
                evaluation_frequency=PEER_ROUNDS,
                train_cohort_size=clients,
                val_cohort_size=0,
            ),
            SimulatedBackend(users, users),
            model,
            NNTrainHyperParams(local_batch_size=BATCH, local_num_epochs=1, local_learning_rate=RATE),
            callbacks=[Watch()],
            send_metrics_to_platform=False,
        )
    assert all(bool(weight.isfinite().all()) for weight in module.parameters())
    return clients * (PEER_ROUNDS - 1) / (ends[-1] - ends[0])


# --- Flower's runtime -----------------------------------------------------------------------------------------------


class AnswersOnly:
    """The server's clock: it waits for answers, and skips all other waiting.

    So a round lasts until everyone has answered, whatever its deadline, and the next one begins at once.
    """

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """Return the time, s."""
        return self._now

    def wait(self, until: float, messages: int) -> None:
        """Give answers a moment to come, or let the time come that is waited for."""
        if messages:
            time.sleep(0.1)
        else:
            self._now = until


def of_flower(nodes: int) -> float:
    """Return client-rounds per second of Flower's runtime, in a process of its own, on all cores."""
    call = f"import fleet_peers; fleet_peers.on_flower({nodes})"
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, "-c", call],
            cwd=Path(__file__).parent,
            env={**os.environ, **QUIET, "FLWR_HOME": home},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise SystemExit(f"Flower's runtime failed:\n{done.stdout}{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def on_flower(nodes: int) -> None:
    """Run fedtp's apps on Flower's runtime, and print the client-rounds per second after the first round as JSON."""
    from flwr.app import Context
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    from clients.app import app as client_app
    from server.app import make_server_app
    from simulations import Scenario
    from simulations.world import World

    logging.getLogger("flwr").setLevel(logging.ERROR)
    features, hidden, classes, _ = NETWORKS[ON_FLOWER]
    text = SCENARIO.format(
        features=features,
        hidden=hidden,
        classes=classes,
        rounds=FLOWER_ROUNDS,
        devices=nodes,
        samples=SAMPLES * nodes,
    )
    rounds: list[tuple[float, int]] = []

    def ended(done: Round) -> None:
        accepted = sum(verdict.status == "accepted" for verdict in done.verdicts.values())
        rounds.append((time.perf_counter(), accepted))

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "speed.toml")
        file.write_text(text)
        settings = "learner.detector=none"
        told = {
            **World(Scenario.load(str(file), [settings])).run_config(),
            "stream": "simulations.world:open_stream",
            "scenario": str(file),
            "settings": settings,
        }

        # `run_simulation` gives apps no run config, and the runtime refuses a context whose run config has changed.
        def informed(context: Context) -> Context:
            return Context(context.run_id, context.node_id, context.node_config, context.state, told)

        server_app, server, client = make_server_app(AnswersOnly(), ended), ServerApp(), ClientApp()

        @server.main()
        def main(grid: Grid, context: Context) -> None:
            # It may begin before the runtime has all its nodes.
            while len(list(grid.get_node_ids())) < nodes:
                time.sleep(0.1)
            server_app(grid, informed(context))

        @client.train()
        def train(message: Message, context: Context) -> Message:
            return client_app(message, informed(context))

        backend = {"client_resources": {"num_cpus": 1}, "init_args": {"log_to_driver": False}}
        run_simulation(server, client, nodes, backend_config=backend)  # type: ignore[arg-type]
    if [accepted for _, accepted in rounds] != [nodes] * FLOWER_ROUNDS:
        raise SystemExit(f"of {nodes} nodes these were accepted in each round: {[accepted for _, accepted in rounds]}")
    print(json.dumps(nodes * (FLOWER_ROUNDS - 1) / (rounds[-1][0] - rounds[0][0])))


# --- The comparison -------------------------------------------------------------------------------------------------


def engines(network: str, nodes: int) -> dict[tuple[str, int], Callable[[], float]]:
    """Return what measures each engine that is installed, by its name and cores."""
    gateway, clients, cores = min(100, nodes), min(nodes, COHORTS[network]), os.cpu_count() or 1
    behind = f"fedtp, gateways of {gateway}"
    found: dict[tuple[str, int], Callable[[], float]] = {
        ("fedtp, one device per node", 1): partial(of_fedtp, network, nodes, 1),
        (behind, 1): partial(of_fedtp, network, nodes, gateway),
        (behind, cores): partial(of_fedtp, network, nodes, gateway, cores),
        ("NumPy loop", 1): partial(of_numpy, network, clients),
    }
    if find_spec("pfl"):
        found[PFL, 1] = partial(of_pfl, network, clients)
    if network == ON_FLOWER and find_spec("ray"):
        found[FLOWER, cores] = partial(of_flower, nodes)
    return found


def main(
    nodes: Annotated[int, typer.Option(min=1, help="How many clients there are.")] = 1000,
    repeats: Annotated[int, typer.Option(min=1, help="How often everything is measured; medians are given.")] = 3,
) -> None:
    """Measure how fast others simulate the same fleet."""
    if not find_spec("pfl"):
        print("pfl-research is left out: it is not installed (pip install pfl==0.6.0)")
    if not find_spec("ray"):
        print("Flower's runtime is left out: Ray is not installed (pip install fedtp[ray])")
    draw_once()
    rows = []
    for network in NETWORKS:
        measures = engines(network, nodes)
        found: dict[tuple[str, int], list[float]] = {engine: [] for engine in measures}
        # In turn, so that what slows the machine down for a while slows them all down.
        for _ in range(repeats):
            for engine, measure in measures.items():
                found[engine].append(measure())
        speeds = {engine: statistics.median(rates) for engine, rates in found.items()}
        named = {engine: speed for (engine, _), speed in speeds.items()}
        rows += [
            {
                "network": network,
                "engine": engine,
                "cores": cores,
                "client-rounds per second": round(speed),
                "lowest": round(min(found[engine, cores])),
                "highest": round(max(found[engine, cores])),
                "times pfl-research": round(speed / named[PFL], 2) if PFL in named else "",
                "times Flower's runtime": round(speed / named[FLOWER], 1) if FLOWER in named else "",
            }
            for (engine, cores), speed in speeds.items()
        ]
    publish("fleet_peers", f"Client-rounds per second of one machine, {nodes:,} clients", rows)


if __name__ == "__main__":
    typer.run(main)
