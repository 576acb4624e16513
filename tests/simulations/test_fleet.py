"""The simulated network: times, costs, losses, and that it is a Grid as Flower's own code expects one."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.training import Outcome
from fedtp.errors import FedtpError
from fedtp.wire import content_bytes
from simulations.devices import Availability, BatterySpec, Fleet
from simulations.errand import Errand
from simulations.fleet import FleetGrid
from simulations.virtual_time import FleetClock


def fleet_of(devices: int = 3, **columns: Sequence[float] | float) -> Fleet:
    """Devices of 1,000 bytes per second, 100 FLOP/s, half a second of latency, 2 W of radio and 5 W of work."""
    defaults = {
        "flops_per_second": 100.0,
        "down_bytes_per_second": 1000.0,
        "up_bytes_per_second": 1000.0,
        "down_cv": 0.0,
        "up_cv": 0.0,
        "latency_seconds": 0.5,
        "power_watts": 5.0,
        "receive_watts": 2.0,
        "send_watts": 2.0,
        "memory_bytes": math.inf,
        "loss_probability": 0.0,
        "dropout_probability": 0.0,
        "on_seconds": 300.0,
        "off_seconds": 0.0,
        "phase_seconds": 0.0,
        "capacity_joules": math.inf,
        "start_joules": math.inf,
        "charge_watts": 0.0,
        "charge_from_seconds": 0.0,
        "charge_seconds": 86_400.0,
        "idle_watts": 0.0,
    }
    arrays = {name: np.broadcast_to(np.asarray(v, float), devices) for name, v in {**defaults, **columns}.items()}
    battery = BatterySpec(*(arrays.pop(field.name) for field in fields(BatterySpec)))
    on, off, phase = (arrays.pop(f"{name}_seconds") for name in ("on", "off", "phase"))
    windows = np.arange(devices), np.zeros(devices), on
    return Fleet(
        classes=("pi",) * devices,
        availability=Availability.of(on + off, windows, phase),
        batteries=battery,
        **arrays,
    )


class Toy:
    """Answers with so many bytes and FLOPs per node; None: with an error."""

    def __init__(
        self, sizes: Callable[[int], int | None] = lambda node: 0, flops: Callable[[int], float] = float
    ) -> None:
        self.sizes, self.flops = sizes, flops

    def learn(self, messages, devices):
        return [[self.outcome(device + 1) for device in node] for node in devices]

    def outcome(self, device):
        size = self.sizes(device)
        return Outcome(error="no") if size is None else Outcome(flops=self.flops(device), bytes_up=size)

    def report(self, messages, devices):
        return [self.answer(message, node) for message, node in zip(messages, devices, strict=True)]

    def answer(self, message, devices):
        if all(self.sizes(device + 1) is None for device in devices):
            return Message(Error(2, "no"), reply_to=message)
        return Message(RecordDict({"": ConfigRecord({"devices": list(devices)})}), reply_to=message)


def order(node: int, size: int = 0) -> Message:
    return Message(RecordDict({"": ConfigRecord({"": bytes(size)})}), dst_node_id=node, message_type="train")


def sources(messages: Sequence[Message]) -> list[int]:
    return [message.metadata.src_node_id for message in messages]


@pytest.fixture
def errands() -> list[Errand]:
    return []


@pytest.fixture
def make_grid(errands):
    def make(fleet: Fleet, executor: Toy | None = None, seed: int = 1) -> FleetGrid:
        return FleetGrid(fleet, executor or Toy(), seed=seed, on_errand=errands.append)

    return make


# --- Virtual time ---------------------------------------------------------------------------------------------------


def test_time_stands_still_until_somebody_waits() -> None:
    clock = FleetClock()
    assert clock.now() == 0.0
    clock.expect(5.0)
    assert clock.now() == 0.0


@given(
    arrivals=st.lists(st.floats(0, 100), max_size=8),
    waits=st.lists(st.tuples(st.floats(0, 120), st.integers(0, 6)), max_size=8),
)
def test_waiting_ends_when_enough_has_arrived_or_time_is_out(
    arrivals: list[float], waits: list[tuple[float, int]]
) -> None:
    clock = FleetClock()
    for arrival in arrivals:
        clock.expect(arrival)
    for until, messages in waits:
        before = clock.now()
        to_come = sorted(arrival for arrival in arrivals if arrival > before)
        clock.wait(until, messages)
        assert before <= clock.now() <= max(before, until)
        if messages and before > 0 and len(to_come) >= messages:
            assert clock.now() == max(before, min(until, to_come[messages - 1]))
        elif before > 0:
            assert clock.now() == max(before, until)


def test_waiting_for_messages_always_moves_on() -> None:
    """However many old messages nobody asked for: a server that looks again and again comes to its deadline."""
    clock = FleetClock()
    for arrival in (0.0, 1.0, 1.0, 2.0, 30.0):
        clock.expect(arrival)
    clock.wait(10.0, 0)
    for _ in range(10):
        if clock.now() >= 20.0:
            break
        clock.wait(20.0, 3)
    assert clock.now() == 20.0


# --- Times and costs ------------------------------------------------------------------------------------------------


def test_a_reply_takes_its_way_and_its_work(make_grid, errands) -> None:
    grid = make_grid(fleet_of(latency_seconds=[0.5, 1.0, 0.0]), Toy(lambda n: 3000 * n, lambda n: 200.0 * n))
    ids = grid.push_messages([order(node, size=2000) for node in (1, 2, 3)])
    assert [errand.arrived for errand in errands] == [1 + 2 + 2 + 3, 2 + 2 + 4 + 6, 0 + 2 + 6 + 9]
    assert [errand.transfer_seconds for errand in errands] == [5, 8, 11]
    assert [errand.compute_seconds for errand in errands] == [2, 4, 6]
    assert [errand.joules for errand in errands] == [5 * 2 + 2 * 5, 5 * 4 + 2 * 8, 5 * 6 + 2 * 11]
    assert [(errand.bytes_down, errand.bytes_up) for errand in errands] == [(2000, 3000), (2000, 6000), (2000, 9000)]
    grid.clock.wait(7.999, 0)
    assert grid.pull_messages(ids) == []
    grid.clock.wait(14.0, 0)
    assert sources(grid.pull_messages(ids)) == [1, 2]
    grid.clock.wait(1e9, 0)
    assert sources(grid.pull_messages(ids)) == [3]
    assert grid.pull_messages(ids) == []


def test_later_orders_start_from_their_own_time(make_grid, errands) -> None:
    grid = make_grid(fleet_of(), Toy(flops=lambda n: 0.0))
    grid.push_messages([order(1)])
    grid.clock.wait(100.0, 0)
    grid.push_messages([order(1)])
    assert [(errand.started, errand.arrived) for errand in errands] == [(0, 1), (100, 101)]


def test_replies_come_in_the_order_of_arrival(make_grid) -> None:
    delays = {1: 50.0, 2: 10.0, 3: 30.0, 4: 10.0, 5: 20.0}
    grid = make_grid(fleet_of(5), Toy(flops=lambda n: delays[n]))
    for call in (grid.send_and_receive, lambda m: pull_all(grid, m)):
        assert sources(call([order(node) for node in (4, 1, 3, 2, 5)])) == [4, 2, 5, 3, 1]


def pull_all(grid: FleetGrid, messages: Sequence[Message]) -> list[Message]:
    ids = grid.push_messages(messages)
    grid.clock.wait(1e9, 0)
    return grid.pull_messages(reversed(ids))


def test_an_error_costs_the_way_there_only(make_grid, errands) -> None:
    grid = make_grid(fleet_of(), Toy(lambda node: None))
    (reply,) = grid.send_and_receive([order(2, size=1000)])
    assert reply.has_error()
    (errand,) = errands
    assert (errand.bytes_down, errand.bytes_up, errand.compute_seconds, errand.outcome.error) == (1000, 0, 0.0, "no")
    assert errand.arrived == 2.0


def test_bytes_are_those_of_the_content(make_grid, errands) -> None:
    content = RecordDict(
        {
            "weights": ArrayRecord({"a": Array(np.zeros(10, np.float32)), "b": Array(np.zeros((2, 3), np.float32))}),
            "metrics": MetricRecord({"n": [1, 2], "loss": 0.5}),
        }
    )
    grid = make_grid(fleet_of())
    grid.push_messages([Message(content, dst_node_id=1, message_type="train")])
    arrays = 2 * 128 + 4 * 16
    assert errands[0].bytes_down == arrays + len("weightsabmetricsnloss") + 3 * 8
    assert errands[0].bytes_down == content_bytes(Message(content, dst_node_id=1, message_type="train"))


def test_links_vary_about_their_speed(make_grid, errands) -> None:
    grid = make_grid(fleet_of(4000, down_cv=0.5, latency_seconds=0.0), Toy(flops=lambda n: 0.0))
    grid.push_messages([order(node, size=1000) for node in range(1, 4001)])
    speed = 1.0 / np.array([errand.transfer_seconds for errand in errands])
    assert speed.mean() == pytest.approx(1.0, abs=0.03)
    assert speed.std() == pytest.approx(0.5, rel=0.1)
    grid.push_messages([order(node, size=1000) for node in range(1, 4001)])
    again = 1.0 / np.array([errand.transfer_seconds for errand in errands[4000:]])
    assert abs(np.corrcoef(speed, again)[0, 1]) < 0.1


def test_what_is_drawn_depends_on_nobody_else(make_grid, errands) -> None:
    """Neither on who else was asked, nor on what was answered."""
    fleet = fleet_of(20, down_cv=0.5, up_cv=0.5, loss_probability=0.3)
    drawn: list[dict[int, list[float]]] = []
    for nodes, executor in (
        (range(1, 21), Toy(lambda n: 500, lambda n: 1.0)),
        (range(20, 0, -2), Toy(lambda n: 500, lambda n: 70.0)),
        (range(4, 16, 2), Toy(lambda n: 500 if n % 4 else None)),
    ):
        grid = make_grid(fleet, executor)
        errands.clear()
        for _ in range(4):
            grid.push_messages([order(node, size=700) for node in nodes])
        per_node: dict[int, list[float]] = {}
        for errand in errands:
            lost = math.inf if errand.arrived == math.inf else 0.0
            per_node.setdefault(errand.node, []).append(errand.transfer_seconds + lost)
        drawn.append(per_node)
    everyone, even, mixed = drawn
    assert all(even[node] == everyone[node] for node in even)
    assert all(mixed[node] == everyone[node] for node in mixed if node % 4)
    assert all(np.isinf(mixed[node]).tolist() == np.isinf(everyone[node]).tolist() for node in mixed)


def test_another_seed_draws_other_links(make_grid, errands) -> None:
    for seed in (1, 1, 2):
        make_grid(fleet_of(1, down_cv=0.5), seed=seed).push_messages([order(1, size=1000)])
    one, same, other = (errand.transfer_seconds for errand in errands)
    assert one == same != other


# --- Loss and availability ------------------------------------------------------------------------------------------


def test_what_is_lost_never_comes(make_grid, errands) -> None:
    grid = make_grid(fleet_of(3, loss_probability=[0.0, 1.0, 0.0]))
    ids = grid.push_messages([order(node) for node in (1, 2, 3)])
    grid.clock.wait(1e9, 3)
    assert sources(grid.pull_messages(ids)) == [1, 3]
    assert errands[1].arrived == math.inf
    assert errands[1].joules > 0
    assert errands[1].outcome.flops > 0


def test_replies_are_lost_as_often_as_the_fleet_says(make_grid, errands) -> None:
    grid = make_grid(fleet_of(1000, loss_probability=0.2))
    for _ in range(5):
        grid.push_messages([order(node) for node in range(1, 1001)])
    lost = np.array([errand.arrived == math.inf for errand in errands]).reshape(5, 1000)
    np.testing.assert_allclose(lost.mean(1), 0.2, atol=0.05)
    assert lost.all(0).sum() < 5


def test_only_devices_that_are_there_have_a_node(make_grid) -> None:
    grid = make_grid(fleet_of(3, on_seconds=60.0, off_seconds=[0.0, 60.0, 60.0], phase_seconds=[0.0, 0.0, 60.0]))
    seen = {}
    for now in (0.0, 59.0, 60.0, 119.0, 120.0):
        grid.clock.wait(now, 0)
        seen[now] = grid.get_node_ids()
    assert seen == {0.0: [1, 2], 59.0: [1, 2], 60.0: [1, 3], 119.0: [1, 3], 120.0: [1, 2]}
    assert [node.node_id for node in grid.get_nodes()] == [1, 2]


@pytest.mark.parametrize("node", [0, 4, -1])
def test_an_unknown_node_is_refused(make_grid, errands, node: int) -> None:
    grid = make_grid(fleet_of(3))
    with pytest.raises(FedtpError, match=rf"no node {node} in a fleet of 3"):
        grid.push_messages([order(1), order(node)])
    assert errands == []


def test_an_order_to_a_device_that_is_not_there_is_lost(make_grid, errands) -> None:
    grid = make_grid(fleet_of(2, on_seconds=60.0, off_seconds=60.0, phase_seconds=[0.0, 60.0]))
    ids = grid.push_messages([order(1), order(2)])
    grid.clock.wait(1e9, 2)
    assert sources(grid.pull_messages(ids)) == [1]
    assert [errand.device for errand in errands] == [0]


# --- Broken off -----------------------------------------------------------------------------------------------------

# With no CV, of these devices an order of 2,000 bytes, 500 FLOPs and an answer of 3,000 bytes takes 0.5 s there, 2 s of
# download at 2 W, 5 s of work at 5 W, 3 s of upload at 2 W, and 0.5 s back: 35 J.


def asked(grid: FleetGrid) -> list[Message]:
    ids = grid.push_messages([order(1, size=2000)])
    grid.clock.wait(1e9, 0)
    return grid.pull_messages(ids)


@pytest.mark.parametrize(
    ("left", "bytes_down", "bytes_up", "compute", "transfer", "joules"),
    [(9.0, 2000, 1500, 5.0, 3.5, 32.0), (4.5, 2000, 0, 2.0, 2.0, 14.0), (1.5, 1000, 0, 0.0, 1.0, 2.0)],
)
def test_a_device_that_goes_off_answers_no_more_but_has_spent(
    make_grid, errands, left, bytes_down, bytes_up, compute, transfer, joules
) -> None:
    fleet = fleet_of(1, on_seconds=60.0, off_seconds=40.0, phase_seconds=60.0 - left)
    assert asked(make_grid(fleet, Toy(lambda n: 3000, lambda n: 500.0))) == []
    (errand,) = errands
    assert (errand.lost, errand.arrived, errand.delivered) == ("went off", math.inf, False)
    assert (errand.bytes_down, errand.bytes_up) == (bytes_down, bytes_up)
    taken = (errand.compute_seconds, errand.transfer_seconds, errand.joules)
    assert taken == pytest.approx((compute, transfer, joules))


def test_a_device_that_stays_just_long_enough_answers(make_grid) -> None:
    fleet = fleet_of(1, on_seconds=64.0, off_seconds=64.0, phase_seconds=53.5)
    assert len(asked(make_grid(fleet, Toy(lambda n: 3000, lambda n: 500.0)))) == 1


def test_a_device_without_power_is_gone_until_it_is_charged(make_grid, errands) -> None:
    battery = {"capacity_joules": 100.0, "start_joules": 49.0, "charge_watts": 1.0}
    grid = make_grid(fleet_of(1, **battery), Toy(lambda n: 3000, lambda n: 500.0))
    seen = []
    for _ in range(3):
        grid.push_messages([order(node, size=2000) for node in grid.get_node_ids()])
        grid.clock.wait(grid.clock.now() + 4.0, 0)
        seen.append(grid.get_node_ids())
    assert seen == [[1], [], [1]]
    assert [errand.lost for errand in errands] == ["", "battery empty"]
    assert [errand.joules for errand in errands] == pytest.approx([35.0, 18.0])
    assert [errand.compute_seconds for errand in errands] == pytest.approx([5.0, 2.8])


def test_devices_drop_out_as_often_as_the_fleet_says(make_grid, errands) -> None:
    grid = make_grid(fleet_of(4000, dropout_probability=0.2), Toy(lambda n: 3000, lambda n: 500.0))
    replies = grid.send_and_receive([order(node, size=2000) for node in range(1, 4001)], timeout=100.0)
    lost = [errand for errand in errands if errand.lost]
    assert {errand.lost for errand in lost} == {"dropped out"}
    assert len(lost) == 4000 - len(replies) == pytest.approx(800, abs=80)
    # At any moment of their ten seconds of work.
    worked = np.array([errand.compute_seconds + errand.transfer_seconds for errand in lost])
    np.testing.assert_allclose(np.histogram(worked, 5, (0, 10))[0] / len(lost), 0.2, atol=0.05)


ROUNDS = st.lists(st.tuples(st.floats(0, 40), st.sets(st.integers(1, 4))), min_size=1, max_size=6)


@settings(deadline=None)
@given(rounds=ROUNDS, seed=st.integers(0, 9), order_of_work=st.permutations([1, 2, 3, 4]))
def test_the_world_keeps_its_books(rounds, seed, order_of_work) -> None:
    """Nothing arrives before it was sent; energy adds up; and nothing depends on the order in which work is done."""
    fleet = fleet_of(
        4,
        down_cv=0.5,
        loss_probability=0.1,
        dropout_probability=0.2,
        on_seconds=30.0,
        off_seconds=[0.0, 10.0, 10.0, 5.0],
        phase_seconds=[0.0, 7.0, 25.0, 33.0],
        capacity_joules=[math.inf, 100.0, 60.0, 200.0],
        start_joules=[math.inf, 100.0, 20.0, 200.0],
        charge_watts=1.0,
        idle_watts=0.25,
    )
    histories = []
    for arrangement in (sorted, lambda nodes: sorted(nodes, key=order_of_work.index)):
        told: list[Errand] = []
        grid = FleetGrid(fleet, Toy(lambda n: 700 * n, lambda n: 150.0 * n), seed=seed, on_errand=told.append)
        replies, ids = [], []
        for wait, nodes in rounds:
            sent, before = grid.clock.now(), len(told)
            ids += grid.push_messages([order(node, size=1000) for node in arrangement(nodes)])
            assert all(errand.started == sent for errand in told[before:])
            grid.clock.wait(sent + wait, 0)
            arrived = grid.pull_messages(ids)
            replies += [(message.metadata.src_node_id, sent + wait) for message in arrived]
        grid.clock.wait(1e6, 0)
        replies += [(message.metadata.src_node_id, 1e6) for message in grid.pull_messages(ids)]
        for errand in told:
            least = errand.transfer_seconds + errand.compute_seconds
            assert errand.arrived >= errand.started + least
            assert math.isinf(errand.arrived) == bool(errand.lost)
        answered = [errand for errand in told if not errand.lost]
        assert sorted(node for node, _ in replies) == sorted(errand.node for errand in answered)
        grid.get_node_ids()
        ledger = grid.batteries
        work = np.bincount([e.device for e in told], [e.joules for e in told], 4)
        idle = ledger.spent - work
        assert (idle >= -1e-6).all()
        assert (idle <= 0.25 * 1e6 + 1e-6).all()
        limited = np.isfinite(fleet.batteries.capacity_joules)
        held = fleet.batteries.start_joules + ledger.charged - ledger.spent
        np.testing.assert_allclose(ledger.joules[limited], held[limited], atol=1e-6)
        histories.append(sorted((e.started, e.node, e.arrived, e.joules, e.bytes_up, e.lost) for e in told))
    assert histories[0] == histories[1]


@given(delays=st.lists(st.floats(0, 100), min_size=1, max_size=6))
def test_replies_come_one_by_one_in_the_order_of_arrival(delays) -> None:
    told: list[Errand] = []
    grid = FleetGrid(fleet_of(len(delays)), Toy(flops=lambda n: delays[n - 1]), seed=1, on_errand=told.append)
    ids = grid.push_messages([order(node) for node in range(1, len(delays) + 1)])
    arrivals, waiting = {errand.node: errand.arrived for errand in told}, list(ids)
    came: list[int] = []
    while len(came) < len(delays):
        before = grid.clock.now()
        grid.clock.wait(1e9, 1)
        assert grid.clock.now() > before
        news = sources(grid.pull_messages(waiting))
        assert all(before < arrivals[node] <= grid.clock.now() for node in news)
        came += news
    assert came == sorted(arrivals, key=lambda node: (arrivals[node], node))


# --- Gateways -------------------------------------------------------------------------------------------------------


def hosts(replies: Sequence[Message]) -> dict[int, list[int]]:
    return {reply.metadata.src_node_id: reply.content[""]["devices"] for reply in replies}


def test_a_gateway_answers_when_the_last_of_its_devices_has(errands) -> None:
    grid = FleetGrid(fleet_of(5), Toy(flops=lambda n: 1000.0 * n), seed=1, devices_per_node=2, on_errand=errands.append)
    assert grid.get_node_ids() == [1, 2, 3]
    ids = grid.push_messages([order(node) for node in (3, 1, 2)])
    assert [(errand.node, errand.device) for errand in errands] == [(3, 4), (1, 0), (1, 1), (2, 2), (2, 3)]
    grid.clock.wait(20.9, 0)
    assert grid.pull_messages(ids) == []
    grid.clock.wait(21.0, 0)
    assert hosts(grid.pull_messages(ids)) == {1: [0, 1]}
    grid.clock.wait(1e9, 0)
    assert hosts(grid.pull_messages(ids)) == {2: [2, 3], 3: [4]}


def test_a_gateway_goes_without_devices_that_are_lost_late_or_off(errands) -> None:
    fleet = fleet_of(
        6,
        loss_probability=[0, 1, 0, 0, 1, 1],
        on_seconds=60.0,
        off_seconds=[0, 0, 0, 60, 0, 0],
        phase_seconds=[0, 0, 0, 60, 0, 0],
    )
    work = [1.0, 1.0, 5000.0, 1.0, 1.0, 1.0]
    grid = FleetGrid(
        fleet,
        Toy(flops=lambda n: work[n - 1]),
        seed=1,
        devices_per_node=4,
        patience_seconds=10.0,
        on_errand=errands.append,
    )
    ids = grid.push_messages([order(1), order(2)])
    grid.clock.wait(1e9, 0)
    assert hosts(grid.pull_messages(ids)) == {1: [0]}
    assert [(errand.device, errand.delivered) for errand in errands] == [
        (0, True),
        (1, False),
        (2, False),
        (4, False),
        (5, False),
    ]


# --- Flower's Grid --------------------------------------------------------------------------------------------------


def test_every_message_has_an_id_of_its_own_that_its_reply_names(make_grid) -> None:
    grid = make_grid(fleet_of(3))
    messages = [order(node) for node in (1, 2, 3, 1)]
    ids = [*grid.push_messages(messages[:3]), *grid.push_messages(messages[3:])]
    assert len(set(ids)) == 4
    assert [message.metadata.message_id for message in messages] == ids
    grid.clock.wait(1e9, 0)
    for reply in grid.pull_messages(ids):
        assert (
            reply.metadata.src_node_id == messages[ids.index(reply.metadata.reply_to_message_id)].metadata.dst_node_id
        )
    assert grid.pull_messages(["unknown"]) == []


def test_send_and_receive_waits_for_all(make_grid) -> None:
    grid = make_grid(fleet_of(3), Toy(flops=lambda n: 1000.0 * n))
    assert sources(grid.send_and_receive(order(node) for node in (1, 2, 3))) == [1, 2, 3]
    assert grid.clock.now() == 31.0


def test_send_and_receive_waits_no_longer_than_it_may(make_grid) -> None:
    grid = make_grid(fleet_of(3), Toy(flops=lambda n: 1000.0 * n))
    assert sources(grid.send_and_receive([order(node) for node in (1, 2, 3)], timeout=21.0)) == [1, 2]
    assert grid.clock.now() == 21.0


def test_send_and_receive_waits_in_vain_for_what_is_lost_but_not_for_ever(make_grid) -> None:
    grid = make_grid(fleet_of(3, loss_probability=[0.0, 1.0, 0.0]), Toy(flops=lambda n: 0.0))
    assert sources(grid.send_and_receive([order(node) for node in (1, 2)], timeout=600.0)) == [1]
    assert grid.clock.now() == 600.0
    assert sources(grid.send_and_receive([order(node) for node in (1, 2)])) == [1]
    assert grid.clock.now() == 601.0
    assert grid.send_and_receive([]) == grid.send_and_receive([], timeout=5.0) == []
    assert grid.clock.now() == 601.0


def test_the_rest_of_the_interface(make_grid) -> None:
    grid = make_grid(fleet_of(3))
    grid.set_run(grid.run)
    assert grid.run.run_id == 1
    message = grid.create_message(RecordDict(), "train", 2, "group")
    assert (message.metadata.dst_node_id, message.metadata.group_id) == (2, "group")


class Averaging:
    """What a ClientApp for FedAvg would do: node n pulls the model towards n, with n examples."""

    def learn(self, messages, devices):
        return [[Outcome() for _ in node] for node in devices]

    def report(self, messages, devices):
        return [self.answer(message) for message in messages]

    def answer(self, message):
        node = message.metadata.dst_node_id
        if message.metadata.message_type == "evaluate":
            value = float(message.content["arrays"]["w"].numpy().mean())
            return Message(
                RecordDict({"metrics": MetricRecord({"num-examples": node, "value": value})}), reply_to=message
            )
        w = message.content["arrays"]["w"].numpy()
        content = RecordDict(
            {
                "arrays": ArrayRecord({"w": Array((w + node) / 2)}),
                "metrics": MetricRecord({"num-examples": node, "loss": float(node)}),
            }
        )
        return Message(content, reply_to=message)


@pytest.mark.parametrize("lost", [False, True])
def test_flowers_own_strategy_runs_on_it(lost: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "flwr")
    fleet = fleet_of(4, loss_probability=[0.0, 0.0, 0.0, float(lost)])
    grid = FleetGrid(fleet, Averaging(), seed=1)
    initial = ArrayRecord({"w": Array(np.zeros(3, np.float32))})
    result = FedAvg(min_available_nodes=4).start(grid, initial, num_rounds=3, timeout=100.0)
    nodes = np.arange(1, 4 if lost else 5)
    expected = 0.0
    for _ in range(3):
        expected = np.average((expected + nodes) / 2, weights=nodes)
    np.testing.assert_allclose(result.arrays["w"].numpy(), expected, rtol=1e-6)
    assert result.train_metrics_clientapp[3]["loss"] == pytest.approx(np.average(nodes, weights=nodes))
    assert result.evaluate_metrics_clientapp[3]["value"] == pytest.approx(expected)
    assert grid.clock.now() == 600.0 if lost else grid.clock.now() < 10.0


def test_flowers_strategy_gives_the_same_twice(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "flwr")
    fleet = replace(fleet_of(30), down_cv=np.full(30, 0.5), up_cv=np.full(30, 0.5))
    initial = ArrayRecord({"w": Array(np.zeros(3, np.float32))})
    results = [
        FedAvg().start(FleetGrid(fleet, Averaging(), seed=1), initial, num_rounds=2).arrays["w"].data for _ in range(2)
    ]
    assert results[0] == results[1]
