import copy
import os
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fedtp.data import Identity, Rotation, load, names
from fedtp.data.generators import STREAMS
from fedtp.errors import ScenarioError
from simulations import Scenario, shipped
from simulations.scenario import IMAGES, ORDERED
from simulations.specs.devices import ClassName

SMALL = """\
title = "Small"

[data]
name = "digits"

[[devices]]
class = "pi"
count = 10
"""


def small(*overrides: str, text: str = SMALL, seed: int | None = None) -> Scenario:
    return Scenario.from_toml(text, overrides, seed, source="small.toml")


def refusal(*overrides: str, text: str = SMALL) -> str:
    with pytest.raises(ScenarioError) as caught:
        small(*overrides, text=text)
    return str(caught.value)


# What a valid scenario says.


def test_defaults() -> None:
    scenario = small()
    assert scenario.name == "scenario"
    assert scenario.device_count == 10
    assert scenario.duration_seconds == 3600
    assert scenario.server.deadline_seconds == scenario.server.round_seconds == 60
    assert scenario.concepts == {"initial": Identity()}
    assert scenario.devices[0].device_class == "pi"
    assert scenario.drift == ()


def test_no_initial_concept_is_added_where_one_is_named() -> None:
    scenario = small("data.initial=up", "concepts.up.kind=rotation", "concepts.up.degrees=90")
    assert scenario.concepts == {"up": Rotation(degrees=90)}


def test_the_initial_concept_may_be_defined() -> None:
    scenario = small("concepts.initial.kind=rotation", "concepts.initial.degrees=90")
    assert scenario.concepts == {"initial": Rotation(degrees=90)}


def test_the_learner_shares_the_seed() -> None:
    assert small().learner.seed == small().run.seed == 1
    assert small(seed=7).learner.seed == 7
    assert small("run.seed=5", seed=7).run.seed == 7
    assert small("learner.seed=3", seed=7).learner.seed == 3


def test_a_resolved_scenario_takes_another_seed() -> None:
    again = Scenario.from_toml(small().to_toml(), seed=9)
    assert (again.run.seed, again.learner.seed) == (9, 9)


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        small().title = "x"  # type: ignore[misc]


def test_in_python() -> None:
    scenario = Scenario.model_validate(
        {"title": "t", "data": {"name": "sea"}, "devices": [{"device_class": "mcu", "count": 3}]}
    )
    assert Scenario.from_toml(scenario.to_toml()) == scenario


def test_light_import() -> None:
    heavy = {"torch", "flwr", "river", "sklearn", "polars"}
    code = f"import sys, simulations.cli; print(*({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_public_names() -> None:
    import simulations

    assert set(simulations.__all__) <= set(dir(simulations))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = simulations.nothing


def test_images_are_what_the_data_say() -> None:
    assert set(names()) >= IMAGES | ORDERED
    for name in ("digits", "shuttle", "sea", "random-rbf-drift"):
        assert load(name, **{"samples": 50} if name in STREAMS else {}).is_image == (name in IMAGES)
        assert load(name, **{"samples": 50} if name in STREAMS else {}).ordered == (name in ORDERED)


def test_device_classes_are_those_there_are() -> None:
    from simulations.devices import CLASSES

    assert get_args(ClassName) == tuple(CLASSES)


# Files.


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped(name: str) -> None:
    scenario = Scenario.load(name)
    assert scenario.name == name
    assert shipped()[name].read_text().startswith("#")
    assert Scenario.load(shipped()[name]) == scenario
    assert Scenario.from_toml(scenario.to_toml()) == scenario


def test_a_file_is_named_by_its_stem_unless_it_says(tmp_path: Path) -> None:
    file = tmp_path / "my scénario.toml"
    file.write_text(SMALL)
    assert Scenario.load(file).name == "my-sc-nario"
    file.write_text('name = "mine"\n' + SMALL)
    assert Scenario.load(str(file)).name == "mine"
    hidden = tmp_path / "---.toml"
    hidden.write_text(SMALL)
    assert Scenario.load(hidden).name == "scenario"


def test_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_bytes(b"\xef\xbb\xbf" + SMALL.encode())
    assert Scenario.load(file).title == "Small"


def load_refusal(name: str | Path) -> str:
    with pytest.raises(ScenarioError) as caught:
        Scenario.load(name)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_unknown_name() -> None:
    message = load_refusal("digits-rotatng")
    assert message == ('there is no scenario "digits-rotatng", shipped or in a file; did you mean "digits-rotating"?')
    assert "shipped are" in load_refusal("zzz")


def test_missing_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(SMALL)
    message = load_refusal(tmp_path / "mime.toml")
    assert message == f'{tmp_path}/mime.toml: there is no such file; did you mean "mine.toml"?'
    assert 'did you mean "digits-rotating"?' in load_refusal("digits-rotatin.toml")
    assert "there is no such file" in load_refusal(tmp_path / "no" / "such" / "s.toml")


def test_folder(tmp_path: Path) -> None:
    assert "this is a folder, and a scenario is a TOML file" in load_refusal(tmp_path)
    (tmp_path / "scenario.toml").write_text(SMALL)
    assert f'did you mean "{tmp_path}/scenario.toml"?' in load_refusal(str(tmp_path))


def test_unreadable(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(SMALL)
    assert "Not a directory" in load_refusal(file / "s.toml")
    loop = tmp_path / "loop.toml"
    loop.symlink_to(loop)
    assert "this cannot be read" in load_refusal(loop)
    assert "this cannot be read" in load_refusal("a\0b.toml")
    if os.geteuid():
        file.chmod(0)
        assert "Permission denied" in load_refusal(file)


def test_not_text(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_bytes(b"\x89PNG\r\n\xff\xfe")
    assert "not text in UTF-8" in load_refusal(file)
    file.write_bytes(b"#" * 1_000_001)
    assert "larger than 1,000,000 bytes" in load_refusal(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[run]\nseed 1", "small.toml: not valid TOML at line 2, column 6: expected '='"),
        ("[run", "small.toml: not valid TOML at end of document: expected ']'"),
        ("[run]\n[run]", "small.toml: not valid TOML at line 2, column 5: cannot declare ('run',) twice"),
        ("a = 1\0", "small.toml: not valid TOML at line 1, column 6: "),
        ("a = " + "9" * 5000, "small.toml: not valid TOML: a number in it has too many digits"),
        ("a = " + "[" * 5000, "small.toml: not valid TOML: its lists are nested too deep"),
    ],
)
def test_not_toml(text: str, message: str) -> None:
    assert refusal(text=text).startswith(message)


# Values: each refusal is one line that says where, what, and what is allowed.


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("server.rouns=3", 'server.rouns is not a known key; did you mean "server.rounds"?'),
        ("rounds=3", 'rounds is not a known key; did you mean "server.rounds"?'),
        ("srever.rounds=3", 'srever is not a known key; did you mean "server"?'),
        ("devices.0.klass=mcu", 'devices.0.klass is not a known key; did you mean "devices.0.class"?'),
        ("devices.0.device_class=mcu", "devices.0.device_class is not a known key"),
        ("devices.0.class=phone-lo", 'devices.0.class is "phone-lo", but must be "mcu", "pi", "phone-low"'),
        ("devices.0.count=0", "devices has 0 in all, but must have from 1 to 1,000,000"),
        ("devices.0.count=-1", "devices.0.count is -1, but must be a whole number from 0 to 1,000,000"),
        (
            "devices.0.count=1000001",
            "devices.0.count is 1000001, but must be a whole number from 0 to 1,000,000",
        ),
        ("devices=[]", "devices is [], but must be a list of 1 to 10,000 entries"),
        ("devices=pi", 'devices is "pi", but must be a list'),
        ("server=3", "server is 3, but must be a table with the keys mode, rounds"),
        ("server.rounds=0", "server.rounds is 0, but must be a whole number from 1 to 1,000,000"),
        ("server.rounds=2000000", "server.rounds is 2000000, but must be"),
        ("server.rounds=3.0", "server.rounds is 3.0, but must be a whole number"),
        ("server.rounds=ten", 'server.rounds is "ten", but must be a whole number'),
        ("server.rounds=true", "server.rounds is true, but must be a whole number"),
        ("server.round_seconds=0", "server.round_seconds is 0, but must be a finite number, above 0"),
        ("server.round_seconds=nan", "server.round_seconds is nan, but must be a finite number"),
        (
            "server.deadline_seconds=90",
            "server.deadline_seconds is 90, but must be at most the 60 of round_seconds",
        ),
        ("server.fraction=1.5", "server.fraction is 1.5, but must be a finite number, above 0 and at most 1"),
        ("server.strategy=krum", 'did you mean "Krum"?'),
        (
            "server.strategy_options.x=1",
            'server.strategy_options are given, but the strategy "mean" has none',
        ),
        ("run.threads=0", "run.threads is 0, but must be a whole number from 1 to 1,024"),
        ("run.seed=-1", "run.seed is -1, but must be a whole number from 0 to 9,223,372,036,854,775,807"),
        ("run.seed=1e400", "run.seed is inf, but must be a finite number"),
        ("run.seed=9223372036854775808", "run.seed is 9223372036854775808, more than 64 bits can hold"),
        ("data.name=digit", 'did you mean "digits"?'),
        ("data.samples=100", 'data.samples is 100, but the data set "digits" is not drawn: leave it out'),
        (
            "data.path=/x",
            'data.path is given, but the data set "digits" is not read from files: leave it out',
        ),
        (
            "data.test_fraction=0.95",
            "data.test_fraction is 0.95, but must be a finite number from 0.01 to 0.9",
        ),
        ("data.initial=up", 'data.initial is "up", but the concepts are '),
        ("partition.alpha=0", "partition.alpha is 0, but must be a finite number, above 0"),
        ("partition.kind=dirichelt", 'did you mean "dirichlet"?'),
        ("arrival.rate=-inf", "arrival.rate is -inf, but must be a finite number"),
        (
            "learner.freeze_after_seconds=3600",
            "learner.freeze_after_seconds is 3600, but must be before the end",
        ),
        (
            "learner.space=target",
            'learner.space is "target", but the loss "cross-entropy" compares with labels',
        ),
        ("learner.hidden=[64, 0]", "learner.hidden.1 is 0, but must be a whole number from 1 to 65,536"),
        (
            "concepts.a.kind=rotate",
            'concepts.a.kind is "rotate", but must be "blur", "brightness", "chain"',
        ),
        ("concepts.a.degrees=3", "concepts.a.kind is missing: it must be "),
        (
            "concepts.a={kind = 'rotation', degrees = nan}",
            "concepts.a.degrees is nan, but must be a finite number",
        ),
        (
            "concepts.a={kind = 'gain', factor = 2}",
            'concepts.a.kind is "gain", which needs a table of features',
        ),
        (
            "concepts.a={kind = 'generator', parameters = {}}",
            "which needs a generator and does not suit the data",
        ),
        ("concepts={'a b' = {kind = 'identity'}}", 'concepts."a b" must be named with at most 64 letters'),
        ("name=../x", 'name is "../x", but must be text (at most 80 letters'),
        ('title="""\na\nb"""', 'title is "a\\nb", but must be text (one line'),
        (
            "devices.0={class = 'pi', count = 1, availability = 'always', on_seconds = 3}",
            "but availability is",
        ),
        ("devices.0={class = 'pi', count = 1, off_seconds = 3}", "but availability is"),
        (
            "devices.0={class = 'pi', count = 1, loss_probability = 1.1}",
            "devices.0.loss_probability is 1.1, but",
        ),
    ],
)
def test_refused_settings(override: str, message: str) -> None:
    text = refusal(override)
    assert text.startswith(f"--set {override}: ")
    assert message in text
    assert "\n" not in text.removeprefix(f"--set {override}: ")


MATRIX = "drift_matrix={matrix = 'W', concepts = ['initial', 'initial']}"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("drift_matrix.matrix=Z", 'drift_matrix.matrix is "Z", but must be "A", "B", "C" or "W" or a list'),
        ('drift_matrix.matrix=["01", "1"]', "drift_matrix.matrix must be rows of digits, all of one length"),
        ('drift_matrix.matrix=["0x"]', "drift_matrix.matrix must be rows of digits, all of one length"),
        ("drift_matrix.matrix=[]", "drift_matrix.matrix must be rows of digits, all of one length"),
        ('drift_matrix.matrix=[""]', "drift_matrix.matrix must be rows of digits, all of one length"),
        (
            'drift_matrix.concepts=["initial"]',
            "concepts has 1 entries, but the matrix speaks of concept 1, counted from 0",
        ),
        ('drift_matrix.concepts=["initial", "b"]', 'drift_matrix.concepts is "b", but the concepts are "initial"'),
        (
            "drift=[{kind = 'sudden', concept = 'initial', at_seconds = 10}]",
            "drift_matrix is given, and drift too: leave out one of them",
        ),
    ],
)
def test_refused_matrices(override: str, message: str) -> None:
    assert message in refusal(MATRIX, override)


@pytest.mark.parametrize(
    ("data", "concept", "needs"),
    [
        ("sea", "{kind = 'blur', sigma_pixels = 1}", '"blur", which needs images'),
        (
            "sea",
            "{kind = 'chain', concepts = [{kind = 'brightness', change = 0.5}]}",
            '"brightness", which needs images',
        ),
        ("digits", "{kind = 'stuck', value = 1}", '"stuck", which needs a table of features'),
        ("digits", "{kind = 'groups', groups = ['theo']}", '"groups", which needs groups of samples'),
        ("elec2", "{kind = 'prior', weights = {'0' = 2}}", '"prior", which needs unordered samples'),
    ],
)
def test_concepts_that_do_not_suit_the_data(data: str, concept: str, needs: str) -> None:
    text = refusal(f"data.name={data}", f"concepts.a={concept}")
    assert f'concepts.a.kind is {needs} and does not suit the data set "{data}"' in text


@pytest.mark.parametrize(
    "settings",
    [
        (MATRIX,),
        ("drift_matrix={matrix = ['01', '10'], concepts = ['initial', 'initial'], step_seconds = 7}",),
        ("drift=[{kind = 'incremental', concept = 'initial', at_seconds = 1, width_seconds = 2}]",),
        (
            "drift=[{kind = 'random', concept = ['initial', 'b'], at_seconds = 1, period_seconds = 2}]",
            "concepts.b.kind=blur",
            "concepts.b.sigma_pixels=1",
        ),
        ("concepts.b={kind = 'chain', concepts = [{kind = 'prior', weights = {'3' = 2}}, {kind = 'identity'}]}",),
        ("arrival.kind=bursts", "arrival.buffer=30", "arrival.label_fraction=0.5", "arrival.label_delay=exponential"),
    ],
)
def test_what_is_written_is_read_again(settings: tuple[str, ...]) -> None:
    scenario = small(*settings)
    assert Scenario.from_toml(scenario.to_toml()) == scenario


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("arrival.kind=bursty", 'must be "constant", "poisson" or "bursts"; did you mean "bursts"?'),
        ("arrival.burst_samples=1", "arrival.burst_samples is 1, but must be a finite number, above 1"),
        ("arrival.label_fraction=0", "arrival.label_fraction is 0, but must be a finite number, above 0 and at most 1"),
        ("arrival.buffer=-1", "arrival.buffer is -1, but must be a whole number from 0"),
    ],
)
def test_refused_arrivals(override: str, message: str) -> None:
    assert message in refusal(override)


def test_samples_arrive_by_the_order_or_by_themselves() -> None:
    text = refusal("arrival.samples_per_order=5", "arrival.kind=poisson")
    assert 'arrival.kind is "poisson", but samples_per_order says what every order finds' in text


DRIFT = "drift=[{kind = 'sudden', concept = 'initial', at_seconds = 10}]"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("drift.0.at_seconds=3600", "must be before the end of the run at 3600 (60 rounds of 60 seconds)"),
        ("drift.0.concept=initail", 'but the concepts are "initial"; did you mean "initial"?'),
        ("drift.0.kind=gradual", "drift.0.width_seconds is missing: a gradual drift needs a time above 0"),
        (
            "drift.0.kind=recurring",
            "drift.0.period_seconds is missing: a recurring drift needs a time above 0",
        ),
        (
            "drift.0.width_seconds=3",
            'drift.0.width_seconds is 3, but only "gradual" or "incremental" drifts have one: leave it out',
        ),
        ("drift.0.fraction=0", "drift.0.fraction is 0, but must be a finite number, above 0 and at most 1"),
        ("drift.0.stagger_seconds=-1", "drift.0.stagger_seconds is -1, but must be a finite number from 0"),
        ("drift.0.groups=3", "drift.0.groups is 3, but stagger_seconds is 0: all drift in step"),
        ("drift.0.kind=random", "drift.0.concept must be a list of at least 2"),
        ("drift.0.kind=incremental", "drift.0.width_seconds is missing: an incremental drift needs a time above 0"),
        ("drift.0.steps=5", 'drift.0.steps is 5, but only "incremental" drifts have one: leave it out'),
        ("drift.0.concept=[]", "drift.0.concept is [], but must be a list"),
        ('drift.0.concept=["initial", "c"]', 'drift.0.concept is "c", but the concepts are'),
    ],
)
def test_refused_drifts(override: str, message: str) -> None:
    text = refusal(DRIFT, override)
    assert text.startswith("--set drift")
    assert message in text


def test_rotation_needs_images() -> None:
    rotation = ("concepts.a.kind=rotation", "concepts.a.degrees=90")
    assert 'is "rotation", which needs images' in refusal("data.name=shuttle", *rotation)
    assert small("data.name=mnist", *rotation).concepts["a"] == Rotation(degrees=90)


def test_infinity_is_refused_in_tables_of_free_form() -> None:
    text = refusal("data.name=sea", "concepts.a={kind = 'generator', parameters = {x = [1, inf]}}")
    assert "concepts.a.parameters.x.1 is inf, but must be a finite number" in text


def test_missing_tables() -> None:
    assert [line.split(" is missing")[0] for line in refusal(text="").splitlines()] == [
        "small.toml: title",
        "small.toml: data",
        "small.toml: devices",
    ]


def test_lines_of_the_file() -> None:
    text = SMALL.replace("count = 10", "# some\ncount = 1.5\nlos_probability = 2")
    assert refusal(text=text).splitlines() == [
        "small.toml, line 9: devices.0.count is 1.5, but must be a whole number from 0 to 1,000,000",
        'small.toml, line 10: devices.0.los_probability is not a known key; did you mean "devices.0.loss_probability"?',
    ]


def test_what_misses_is_sought_where_its_table_is() -> None:
    no_class = refusal(text=SMALL.replace('class = "pi"\n', ""))
    assert no_class.startswith("small.toml, line 6: devices.0.class is missing")
    assert refusal("devices.1.count=3").startswith("--set devices.1.count=3: devices.1.class is missing")


def test_the_last_of_two_settings_is_blamed() -> None:
    assert refusal("server.rounds=1", "server.rounds=0").startswith("--set server.rounds=0:")
    assert refusal("learner.lr=0", "learner.momentum=0").startswith("--set learner.lr=0:")


def test_dates_are_refused() -> None:
    text = refusal(text=SMALL + "loss_probability = 2024-01-01\n")
    assert text.startswith("small.toml, line 9: devices.0.loss_probability is 2024-01-01, but no setting is a date")


def test_at_most_ten_problems() -> None:
    lines = refusal(*(f"key{number}=1" for number in range(14))).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "... and 4 more problems"


# Properties.


positive = st.floats(1e-6, 1e6)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=50)
words = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | texts


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a valid scenario as the tables of a TOML file."""
    name = draw(st.sampled_from(names()))
    kinds = [
        st.fixed_dictionaries({"kind": st.just("identity")}),
        st.fixed_dictionaries(
            {
                "kind": st.just("label-swap"),
                "swaps": st.lists(st.tuples(st.integers(0, 9), words), min_size=1, max_size=3),
            }
        ),
    ]
    if name in IMAGES:
        kinds.append(st.fixed_dictionaries({"kind": st.just("rotation"), "degrees": st.floats(-360, 360)}))
    else:
        kinds.append(
            st.fixed_dictionaries(
                {"kind": st.just("gain"), "factor": st.floats(-5, 5)},
                optional={"features": st.lists(st.integers(0, 5) | words, max_size=3)},
            )
        )
    concepts = draw(st.dictionaries(words, st.one_of(kinds), min_size=1, max_size=4))
    concept = st.sampled_from(sorted(concepts))
    rounds, round_seconds = draw(st.integers(1, 1_000_000)), draw(st.floats(1e-3, 1e6))
    before_end = st.floats(0, min(1e9, rounds * round_seconds), exclude_max=True)
    drift = st.fixed_dictionaries(
        {"kind": st.just("sudden"), "concept": concept, "at_seconds": before_end},
        optional={"stagger_seconds": st.floats(0, 1e6), "fraction": st.floats(0.01, 1)},
    )
    width, period = (
        st.fixed_dictionaries({"kind": st.just(kind), "concept": concept, "at_seconds": before_end, key: positive})
        for kind, key in (("gradual", "width_seconds"), ("recurring", "period_seconds"))
    )
    classes = {"class": st.sampled_from(get_args(ClassName)), "count": st.integers(1, 1000)}
    duty_cycle = st.fixed_dictionaries(
        {**classes, "availability": st.just("duty-cycle")},
        optional={"on_seconds": positive, "off_seconds": positive},
    )
    always = st.fixed_dictionaries(
        classes,
        optional={
            "availability": st.just("always"),
            "loss_probability": st.floats(0, 1),
            "speed_gflops": positive,
            "down_mbps": positive,
            "up_mbps": positive,
        },
    )
    learner = st.fixed_dictionaries(
        {},
        optional={
            "method": st.sampled_from(["tpsgd", "backprop"]),
            "hidden": st.lists(st.integers(1, 1000), max_size=4),
            "lr": positive,
            "normalize": st.booleans(),
            "freeze_after_seconds": before_end,
            "seed": st.integers(0, 2**63 - 1),
        },
    )
    strategy = st.fixed_dictionaries(
        {"strategy": st.just("FedAdam"), "strategy_options": st.dictionaries(words, scalars, max_size=3)}
    )
    return {
        "title": draw(texts),
        "description": draw(st.text(st.characters(codec="utf-8"), max_size=200)),
        "run": draw(st.fixed_dictionaries({}, optional={"seed": st.integers(0, 2**63 - 1)})),
        "data": {"name": name, "initial": draw(concept)},
        "concepts": concepts,
        "drift": draw(st.lists(drift | width | period, max_size=3)),
        "learner": draw(learner),
        "server": {"rounds": rounds, "round_seconds": round_seconds, **draw(st.just({}) | strategy)},
        "devices": draw(st.lists(duty_cycle | always, min_size=1, max_size=4)),
    }


relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)


@relaxed
@given(tables())
def test_round_trip(drawn: dict[str, Any]) -> None:
    scenario = Scenario.model_validate(drawn)
    text = scenario.to_toml()
    again = Scenario.from_toml(text)
    assert again == scenario
    assert again.to_toml() == text


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(deeper for key, child in inner for deeper in paths(child, (*path, key)))]


anything = st.recursive(
    scalars | st.floats() | st.dates() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
FULL = tomllib.loads(Scenario.load("digits-rotating", ["server.strategy=FedAdam"]).to_toml())


@relaxed
@given(st.sampled_from(paths(FULL)[1:]), anything)
def test_any_value_anywhere_fits_or_is_refused_in_words(path: tuple[Any, ...], value: object) -> None:
    import tomli_w

    changed = copy.deepcopy(FULL)
    *above, key = path
    place: Any = changed
    for part in above:
        place = place[part]
    place[key] = value
    try:
        scenario = Scenario.from_toml(tomli_w.dumps(changed))
    except ScenarioError:
        pass
    else:
        assert Scenario.from_toml(scenario.to_toml()) == scenario


@relaxed
@given(
    st.lists(
        st.text(max_size=30) | st.from_regex(r"(server|devices|drift|x)(\.[a-z0-9]{1,3}){0,3}=.{0,9}"),
        max_size=3,
    )
)
def test_any_setting_fits_or_is_refused_in_words(overrides: list[str]) -> None:
    with suppress(ScenarioError):
        small(*overrides)


@relaxed
@given(st.text(max_size=60))
def test_any_text_is_refused_in_words(text: str) -> None:
    assert refusal(text=text)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["adaptation.policy=boost"], "adaptation.policy"),
        (["adaptation.policy=reset", "learner.detector=none"], 'learner.detector is "none"'),
        (["adaptation.server.reaction=boost", "learner.detector=none"], "adaptation.server.reaction"),
        (["adaptation.policy=reset", "adaptation.blocks=moved", "learner.method=backprop"], "answer by themselves"),
        (["adaptation.server.reaction=participation"], "server.fraction is 1"),
    ],
)
def test_an_adaptation_that_could_do_nothing_is_refused(overrides: list[str], words: str) -> None:
    assert words in refusal(*overrides)


def test_an_adaptation_reaches_devices_and_server() -> None:
    scenario = small("adaptation.policy=keep-own", "adaptation.memory=50", "adaptation.server.reaction=reset")
    config = scenario.adaptation.to_config()
    assert (config["adaptation.policy"], config["adaptation.memory"]) == ("keep-own", 50)
    assert config["reactions.reaction"] == "reset"
    assert not any("server" in key for key in config)
    assert Scenario.from_toml(scenario.to_toml()) == scenario
