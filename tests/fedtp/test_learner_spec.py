from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedtp.errors import ModelError
from fedtp.learner_spec import LearnerSpec


def choices(name: str) -> st.SearchStrategy[str]:
    return st.sampled_from(get_args(LearnerSpec.model_fields[name].annotation))


specs = st.builds(
    LearnerSpec,
    method=choices("method"),
    hidden=st.lists(st.integers(1, 65_536), max_size=5),
    activation=choices("activation"),
    loss=choices("loss"),
    projection=choices("projection"),
    pretrained=st.none() | st.text(min_size=1),
    adaptor=choices("adaptor"),
    adaptor_size=st.integers(1, 65_536),
    lr=st.floats(1e-300, 1e6),
    momentum=st.floats(0, 1, exclude_max=True),
    weight_decay=st.floats(0, 1e6),
    normalize=st.booleans(),
    batch_size=st.integers(1, 1_000_000),
    epochs=st.integers(1, 10_000),
    freeze_after_seconds=st.none() | st.floats(0, 1e12),
    detector=choices("detector"),
    seed=st.integers(0, 2**63 - 1),
)


@given(specs, st.sampled_from(["learner.", "", "a.b."]))
def test_config_round_trip(spec: LearnerSpec, prefix: str) -> None:
    config = spec.to_config(prefix)
    assert all(type(value) in (bool, int, float, str) for value in config.values())
    assert all(key.startswith(prefix) for key in config)
    assert LearnerSpec.from_config(config, prefix) == spec


def test_config_leaves_other_keys_alone() -> None:
    assert LearnerSpec.from_config({"server.lr": -1, "lr": "x"}) == LearnerSpec()


def test_one_hidden_layer_may_be_typed_as_a_number() -> None:
    assert LearnerSpec.from_config({"learner.hidden": 64}).hidden == (64,)


def test_no_hidden_layer() -> None:
    assert LearnerSpec.from_config(LearnerSpec(hidden=()).to_config()).hidden == ()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("lr", 0, "learner.lr is 0, but must be a finite number, above 0 and at most 1,000,000"),
        ("lr", float("nan"), "learner.lr is nan, but must be a finite number"),
        ("lr", "1", 'learner.lr is "1", but must be a finite number'),
        ("momentum", 1.0, "learner.momentum is 1.0, but must be a finite number, at least 0 and below 1"),
        ("normalize", 1, "learner.normalize is 1, but must be true or false"),
        ("batch_size", 2.0, "learner.batch_size is 2.0, but must be a whole number from 1 to 1,000,000"),
        ("hidden", "64,x", 'learner.hidden.1 is "x", but must be a whole number from 1 to 65,536'),
        (
            "method",
            "tpsdg",
            'learner.method is "tpsdg", but must be "tpsgd" or "backprop"; did you mean "tpsgd"?',
        ),
        ("space", "target", 'learner.space is "target", but the loss "cross-entropy" compares with labels'),
        ("readout", "learned", 'learner.readout is "learned", but must be "fixed", "learnt" or "shared"'),
        ("adaptor", "lora", 'learner.adaptor is "lora", but must be "none", "scale-shift", "bottleneck" or "low-rank"'),
        ("adaptor_size", 0, "learner.adaptor_size is 0, but must be a whole number from 1 to 65,536"),
        ("pretrained", "", 'learner.pretrained is "", but must be text'),
        ("metod", "tpsgd", 'learner.metod is not a known key; did you mean "learner.method"?'),
    ],
)
def test_config_errors_say_what_is_allowed(key: str, value: object, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        LearnerSpec.from_config({f"learner.{key}": value})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("readout", ["learnt", "shared"])
def test_a_readout_learns_only_where_blocks_are_read_out(readout: str) -> None:
    for settings, what in (
        ({"space": "target", "loss": "squared"}, 'space is "target"'),
        ({"method": "backprop"}, 'method is "backprop"'),
    ):
        LearnerSpec.from_config({f"learner.{key}": value for key, value in settings.items()})
        with pytest.raises(ModelError, match=f'learner.readout is "{readout}", but {what}, where no block is read out'):
            LearnerSpec.from_config(
                {f"learner.{key}": value for key, value in {**settings, "readout": readout}.items()}
            )


def test_every_problem_has_a_line() -> None:
    with pytest.raises(ModelError) as caught:
        LearnerSpec.from_config({"learner.lr": -1, "learner.epochs": 0, "learner.x": 1})
    assert len(str(caught.value).splitlines()) == 3


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        LearnerSpec().lr = 2.0  # type: ignore[misc]


def test_choices_are_those_of_the_learner() -> None:
    from fedtp import adaptors
    from fedtp.losses import LOSSES
    from fedtp.models import ACTIVATIONS
    from fedtp.projection import Kind

    assert set(get_args(LearnerSpec.model_fields["activation"].annotation)) == set(ACTIVATIONS)
    losses = get_args(LearnerSpec.model_fields["loss"].annotation)
    assert {name.replace("-", "_") for name in losses} == set(LOSSES)
    assert set(get_args(LearnerSpec.model_fields["projection"].annotation)) == set(get_args(Kind))
    assert set(get_args(LearnerSpec.model_fields["adaptor"].annotation)) == {"none", *get_args(adaptors.Kind)}
