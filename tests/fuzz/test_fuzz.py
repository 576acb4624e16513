"""Whatever comes from outside ends in our own exception, if in any, and leaves nothing half-done behind.

Inputs are valid ones with a few things changed, which go further than random bytes do.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clients.device import Device
from clients.federation.folder import DeviceFolder
from clients.federation.settings import DeviceSpec
from clients.sources.directory import DirectoryStream
from fedtp.archive import Archive
from fedtp.data.schema import Schema
from fedtp.errors import FedtpError
from fedtp.learner import learner_for
from fedtp.learner_spec import LearnerSpec
from fedtp.model_file import load_model, save_model
from fedtp.settings_file import read_settings
from fedtp.streaming import TPClassifier
from fedtp.streaming.state import State
from fedtp.wire import Order, Report
from server.federation.checkpoints import Checkpoints, ServerCheckpoint
from server.federation.folder import make_federation
from server.federation.grid import LimitedGrid
from server.federation.spec import FederationSpec
from server.layerwise import LayerwiseStrategy
from server.settings import TrustSpec
from server.validation import check_update
from simulations import Scenario
from simulations.checkpoint import Checkpoint
from simulations.flower import identify, number
from simulations.scenario_file import shipped

# A few of each in `make test`; in `make fuzz` as many as its profile says.
quick = settings(
    deadline=None,
    max_examples=settings().max_examples if settings.get_current_profile_name() == "fuzz" else 30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

SCHEMA = Schema(features=("a", "b"), label="y", classes=("no", "yes"))
LEARNER = learner_for(LearnerSpec(hidden=(3,), momentum=0.5, detector="adwin"), (2,), 2)
ODD = [0, 1, -1, 2**31, 2**63, 2**64, 10**40, 0.0, -0.0, 1e308, float("nan"), float("inf"), "", "0", "\x00", "é" * 50]
odd = st.one_of(
    st.sampled_from([*ODD, None, True, False, [], {}, [[]], {"": {}}, [None] * 3]),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=8).map(lambda raw: raw.decode("latin-1")),
).map(copy.deepcopy)


@st.composite
def changed_bytes(draw: Any, original: bytes) -> bytes:
    """Flip, cut, insert, repeat and move parts."""
    raw = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(raw) - 1)))
        end = min(len(raw), start + draw(st.sampled_from([1, 2, 8, 64, 1000])))
        match draw(st.sampled_from(["flip", "cut", "insert", "repeat", "end", "move"])):
            case "flip" if raw:
                raw[start] ^= draw(st.integers(1, 255))
            case "cut":
                del raw[start:end]
            case "insert":
                raw[start:start] = draw(st.binary(max_size=20))
            case "repeat":
                raw[start:start] = raw[start:end]
            case "end":
                del raw[start:]
            case "move":
                part = raw[start:end]
                del raw[start:end]
                raw[len(raw) // 2 : len(raw) // 2] = part
    return bytes(raw)


@st.composite
def changed_text(draw: Any, original: str) -> str:
    """Change words and lines of a text."""
    lines = original.splitlines()
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(lines) - 1)))
        line = lines[place] if lines else ""
        match draw(st.sampled_from(["value", "drop", "twice", "move", "key", "bytes"])):
            case "value":
                key, _, _ = line.partition("=")
                value = draw(
                    st.one_of(odd.map(repr), st.text(max_size=12), st.sampled_from(["[", "{", '"', "1e999", "0x"]))
                )
                lines[place : place + 1] = [f"{key}= {value}"]
            case "drop":
                del lines[place : place + 1]
            case "twice":
                lines[place:place] = [line]
            case "move":
                lines.insert(draw(st.integers(0, len(lines))), line)
            case "key":
                lines.insert(place, f"{draw(st.text('abcdefgh_.-[]', max_size=9))} = {draw(st.integers())}")
            case "bytes":
                lines[place : place + 1] = [draw(changed_bytes(line.encode())).decode("latin-1")]
    return "\n".join(lines)


@st.composite
def changed_json(draw: Any, original: Any) -> Any:
    """Change values somewhere in what JSON holds."""
    value = copy.deepcopy(original)
    for _ in range(draw(st.integers(1, 3))):
        parent, key, here = None, None, value
        while isinstance(here, dict | list) and here and draw(st.integers(0, 4)):
            key = draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here))))
            parent, here = here, here[key]
        if parent is None:
            value = value if isinstance(value, dict) and draw(st.booleans()) else draw(odd)
            if isinstance(value, dict):
                value[draw(st.text(max_size=5))] = draw(odd)
        elif draw(st.integers(0, 3)):
            parent[key] = draw(odd)
        else:
            del parent[key]
    return value


@st.composite
def changed_arrays(draw: Any, original: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Change type, shape, numbers, names of arrays."""
    arrays = dict(original)
    for _ in range(draw(st.integers(0, 2)) if arrays else 0):
        name = draw(st.sampled_from(sorted(arrays)))
        array = arrays[name]
        match draw(st.sampled_from(["type", "shape", "value", "drop", "name", "empty"])):
            case "type":
                arrays[name] = array.astype(draw(st.sampled_from(["f8", "i8", "u1", "?", "f2"])))
            case "shape":
                arrays[name] = draw(st.sampled_from([array[:-1], array[None], np.concatenate([array, array])]))
            case "value" if array.size and array.dtype.kind == "f":
                other = array.copy()
                other.flat[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from([np.nan, np.inf, 3e38, -1.0]))
                arrays[name] = other
            case "drop":
                del arrays[name]
            case "name":
                arrays[draw(st.text(max_size=6))] = arrays.pop(name)
            case "empty":
                arrays[name] = array[:0]
            case _:
                pass
        if not arrays:
            break
    return arrays


def sealed(record: Any) -> Any:
    """Return what JSON makes of a record, or nothing of one that it cannot hold."""
    try:
        return json.loads(json.dumps(record, allow_nan=False))
    except (ValueError, RecursionError):
        return {}


def ours(function: Callable[[], object]) -> None:
    """Call a function that may raise our own exceptions, and no other."""
    with suppress(FedtpError):
        function()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def write(place: Path, name: str, content: bytes) -> Path:
    path = place / name
    path.write_bytes(content)
    return path


# --- What a message holds --------------------------------------------------------------------------------------------

WEIGHTS = LEARNER.initial_weights()
ORDER = Order(3, 60.0, LEARNER.digest, WEIGHTS, tuple(WEIGHTS), (1.0, 2.0), ("a-1",))
REPORT = Report(LEARNER.digest, WEIGHTS, dict.fromkeys(WEIGHTS, 5), 9, 4, 0.5, 1, 9.0, ("0",), 1, "a-2")


@st.composite
def changed_records(draw: Any, make: Callable[[], RecordDict]) -> RecordDict:
    records = make()
    for _ in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from(sorted(records)))
        record = records[name]
        if not draw(st.integers(0, 8)):
            other = draw(st.sampled_from([ConfigRecord({"a": 1}), MetricRecord({"a": 1.0}), ArrayRecord({})]))
            records[draw(st.sampled_from([name, "more"]))] = other
            continue
        if not isinstance(record, ArrayRecord):
            key = draw(st.sampled_from([*sorted(record), "more"]))
            kinds = [st.integers(-(2**63), 2**63 - 1), st.floats(), st.lists(st.integers(-9, 9), max_size=3)]
            if isinstance(record, ConfigRecord):
                kinds += [
                    st.text(max_size=200),
                    st.booleans(),
                    st.binary(max_size=5),
                    st.lists(st.text(max_size=5), max_size=3),
                ]
            record[key] = draw(st.one_of(kinds))
        elif record:
            key = draw(st.sampled_from(sorted(record)))
            array = record[key]
            shape = draw(st.sampled_from([array.shape, (), (2,), (10**12,), (*array.shape, 1), (-1,)]))
            data = draw(st.one_of(st.just(array.data), changed_bytes(array.data)))
            kind = draw(st.sampled_from([array.dtype, "float64", "O", ""]))
            record[draw(st.sampled_from([key, "more"]))] = Array(
                kind, shape, draw(st.sampled_from([array.stype, "pickle"])), data
            )
    return records


@quick
@given(changed_records(ORDER.to_records))
def test_orders(records: RecordDict) -> None:
    ours(lambda: Order.from_records(records))


@quick
@given(changed_records(REPORT.to_records))
def test_reports(records: RecordDict) -> None:
    ours(lambda: Report.from_records(records))


@cache
def sent() -> tuple[Message, dict[str, bytes]]:
    """Return a device's reply, and its parts."""
    identify()
    order = Message(RecordDict(), 77, MessageType.TRAIN)
    number(order, "order")
    reply = Message(REPORT.to_records(), reply_to=order)
    number(reply, reply.object_id)
    return reply, {name: part.deflate() for name, part in get_all_nested_objects(reply).items()}


@quick
@given(st.data())
def test_messages_in_parts(data: st.DataObject) -> None:
    """A message is whatever its parts make of it: a report, or an error with one of our codes."""
    reply, parts = sent()
    parts = dict(parts)
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(parts)))
        other = st.sampled_from([*parts.values(), b"\x00", b"Message 0"])
        parts[name] = data.draw(st.one_of(changed_bytes(parts[name]), other)) or b"\x00"
    told = PullAppMessagesResponse(
        messages_list=[message_to_proto(remove_content_from_message(reply))],
        message_object_trees=[get_object_tree(reply)],
    )
    link = SimpleNamespace(
        PullMessages=lambda _: told,
        PullObject=lambda asked: PullObjectResponse(
            object_found=True, object_available=True, object_content=parts[asked.object_id]
        ),
        ConfirmMessageReceived=lambda _: None,
    )
    flower: Any = SimpleNamespace(_runtime_client=link, node=Node(node_id=1), run=SimpleNamespace(run_id=1))
    (message,) = LimitedGrid(flower, 10_000, 20).pull_messages(["order"])
    assert message.metadata.src_node_id == 77
    ours(lambda: check_update(message, LEARNER.sizes, LEARNER.digest, tuple(LEARNER.sizes)))


# --- What is on disk -------------------------------------------------------------------------------------------------


def device() -> Device:
    one = Device.new(LEARNER, DirectoryStream(Path("none"), SCHEMA))
    one.momentum = {name: np.ones(size, np.float32) for name, size in LEARNER.held.items()}
    return one


DEVICE = device().state()


@quick
@given(changed_arrays(DEVICE.arrays), changed_json(DEVICE.record))
def test_states_of_devices(arrays: dict[str, np.ndarray], record: Any) -> None:
    if isinstance(record, dict):
        one = device()
        before = one.state()
        with suppress(FedtpError):
            one.load_state(State(arrays, record))
            return
        after = one.state()
        assert after.record == before.record
        assert all(np.array_equal(after.arrays[name], array) for name, array in before.arrays.items())


@pytest.fixture(scope="module")
def files(place: Path) -> dict[str, bytes]:
    """Valid files of all kinds."""
    folder = DeviceFolder(place / "device")
    folder.commit(device(), REPORT)
    strategy = LayerwiseStrategy(LEARNER, trust=TrustSpec(norm_bound=2.0))
    Checkpoints(place, 1).save(ServerCheckpoint(1, 60.0, LEARNER.digest, strategy.state()))
    save_model(place / "model", LEARNER, WEIGHTS, {"schema": SCHEMA.model_dump_json(), "round": "1"})
    classifier = TPClassifier(seed=1)
    for sample in range(30):
        classifier.learn_one({"a": sample % 3, "b": 1.0}, sample % 2 == 0)
    classifier.save(place / "classifier")
    scenario = Scenario.load("sea-sudden")
    Checkpoint(scenario, 2, {"grid": State({"a": np.arange(3)}, {"b": [1, {"c": 2}]})}).save(place)
    return {
        "device": folder.state.read_bytes(),
        "checkpoint": next(place.glob("round-*")).read_bytes(),
        "model": (place / "model").read_bytes(),
        "classifier": (place / "classifier").read_bytes(),
        "simulation": (place / "checkpoint.safetensors").read_bytes(),
    }


@quick
@given(st.data())
@pytest.mark.parametrize("kind", ["device", "checkpoint", "model", "classifier", "simulation"])
def test_files(files: dict[str, bytes], place: Path, kind: str, data: st.DataObject) -> None:
    raw = data.draw(changed_bytes(files[kind]))
    folder = place / f"new-{kind}"
    folder.mkdir(exist_ok=True)
    match kind:
        case "device":
            (folder / "state").mkdir(exist_ok=True)
            write(folder / "state", "device.safetensors", raw)
            ours(lambda: DeviceFolder(folder).restore(device()))
        case "checkpoint":
            write(folder, "round-000000001.safetensors", raw)
            ours(lambda: Checkpoints(folder, 1).latest())
        case "model":
            ours(lambda: load_model(write(folder, "model", raw)))
        case "classifier":
            ours(lambda: TPClassifier.load(write(folder, "classifier", raw)))
        case "simulation":
            write(folder, "checkpoint.safetensors", raw)
            ours(lambda: Checkpoint.load(folder, Scenario.load("sea-sudden")))


@quick
@given(
    changed_arrays(LayerwiseStrategy(LEARNER).state().arrays), changed_json(LayerwiseStrategy(LEARNER).state().record)
)
def test_states_of_the_server(arrays: dict[str, np.ndarray], record: Any) -> None:
    if isinstance(record, dict):
        ours(lambda: LayerwiseStrategy(LEARNER).load_state(State(arrays, record)))


@quick
@given(st.data())
def test_devices_files_whose_hash_is_right(files: dict[str, bytes], place: Path, data: st.DataObject) -> None:
    """Damage is told by the hash; what a program of another version wrote is not."""
    archive = Archive("fedtp.device", "state of a device", version=1)
    folder = place / "sealed"
    (folder / "state").mkdir(parents=True, exist_ok=True)
    path = folder / "state" / "device.safetensors"
    path.write_bytes(files["device"])
    record, arrays = archive.read(path)
    record = sealed(
        data.draw(changed_json({key: value for key, value in record.items() if key not in ("version", "fedtp")}))
    )
    path.unlink()
    if isinstance(record, dict):
        archive.write(path, record, data.draw(changed_arrays(arrays)))
        ours(lambda: DeviceFolder(folder).restore(device()))


# --- What people write -----------------------------------------------------------------------------------------------

SCENARIOS = {name: path.read_text("utf-8") for name, path in shipped().items()}


@quick
@given(st.sampled_from(sorted(SCENARIOS)).flatmap(lambda name: changed_text(SCENARIOS[name])))
def test_scenarios(text: str) -> None:
    ours(lambda: Scenario.from_toml(text))


@quick
@given(st.text("abcdefghijklmnopqrstuvwxyz_.0123=[]{},'\" ", max_size=40), odd)
def test_overrides(key: str, value: object) -> None:
    ours(lambda: Scenario.load("digits-rotating", [f"{key}={value}"]))


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    made = make_federation(tmp_path_factory.mktemp("made") / "fed", FederationSpec(data=SCHEMA), ["one"])
    return (made.path / "federation.toml").read_text(), (made.path / "devices" / "one" / "device.toml").read_text()


@quick
@given(st.data())
def test_files_of_settings(federation: tuple[str, str], place: Path, data: st.DataObject) -> None:
    path = place / "settings.toml"
    path.write_text(data.draw(changed_text(federation[0])), "utf-8", errors="surrogatepass")
    ours(lambda: read_settings(FederationSpec, path).run_config())
    path.write_text(data.draw(changed_text(federation[1])), "utf-8", errors="surrogatepass")
    ours(lambda: read_settings(DeviceSpec, path))


# --- What sensors write ----------------------------------------------------------------------------------------------

ROWS = {
    "rows.csv": b'a,b,y\n1,2,no\n"3",4.5,yes\n-1e3,0,\n',
    "rows.jsonl": b'{"a": 1, "b": 2, "y": "no"}\n{"a": "3", "b": 4.5, "y": "yes"}\n{"a": null, "b": [1]}\n',
}


@quick
@given(st.sampled_from(sorted(ROWS)), st.data())
def test_rows(place: Path, name: str, data: st.DataObject) -> None:
    folder = place / "rows"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    write(folder, name, data.draw(changed_bytes(ROWS[name])))
    stream = DirectoryStream(folder, SCHEMA)
    samples = stream.take(1.0)
    assert np.isfinite(np.vdot(samples.x, samples.x))
    assert set(samples.y.tolist()) <= {0, 1}
    json.dumps(stream.cursor)
