from collections import ChainMap
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedtp.errors import ModelError
from fedtp.learner_spec import LearnerSpec


def choices(name: str) -> st.SearchStrategy[str]:
    return st.sampled_from(get_args(LearnerSpec.model_fields[name].annotation))


def networks() -> st.SearchStrategy[dict[str, object]]:
    """The settings of a network that belong to each other."""
    widths = st.lists(st.integers(1, 65_536), max_size=5).map(tuple)
    mlps = st.fixed_dictionaries({"hidden": widths, "activation": choices("activation")})
    odd = st.integers(0, 50).map(lambda half: 2 * half + 1)
    cnns = st.fixed_dictionaries(
        {
            "network": st.just("cnn"),
            "hidden": widths,
            "channels": widths.filter(bool),
            "kernel": st.none() | odd,
            "activation": choices("activation"),
        }
    )
    layers = st.tuples(st.integers(1, 65_536), st.integers(1, 4)).map(lambda form: (form[0],) * form[1])
    cells = st.sampled_from([None, "rnn", "gru", "lstm"])
    recurrents = st.fixed_dictionaries({"network": st.just("recurrent"), "hidden": layers, "cell": cells})
    return mlps | cnns | recurrents


def losses() -> st.SearchStrategy[dict[str, object]]:
    smoothed = st.fixed_dictionaries({"label_smoothing": st.floats(0, 1, exclude_max=True)})
    return smoothed | st.fixed_dictionaries({"loss": choices("loss")})


def methods() -> st.SearchStrategy[dict[str, str]]:
    pairs = st.fixed_dictionaries({"method": choices("method"), "adaptor": choices("adaptor")})
    return pairs.filter(lambda pair: pair != {"method": "fa", "adaptor": "low-rank"})


others = st.fixed_dictionaries(
    {
        "projection": choices("projection"),
        "pretrained": st.none() | st.text(min_size=1),
        "adaptor_size": st.integers(1, 65_536),
        "lr": st.floats(1e-300, 1e6),
        "momentum": st.floats(0, 1, exclude_max=True),
        "weight_decay": st.floats(0, 1e6),
        "normalize": st.booleans(),
        "batch_size": st.integers(1, 1_000_000),
        "epochs": st.integers(1, 10_000),
        "freeze_after_seconds": st.none() | st.floats(0, 1e12),
        "detector": choices("detector"),
        "seed": st.integers(0, 2**63 - 1),
    }
)
specs = st.builds(lambda *parts: LearnerSpec(**dict(ChainMap(*parts))), networks(), methods(), losses(), others)


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
            'learner.method is "tpsdg", but must be "tpsgd", "backprop", "fa", "dfa", "sdfa", "drtp" or '
            '"last"; did you mean "tpsgd"?',
        ),
        ("space", "target", 'learner.space is "target", but the loss "cross-entropy" compares with labels'),
        ("label_smoothing", 1.0, "learner.label_smoothing is 1.0, but must be a finite number, at least 0 and below 1"),
        ("readout", "learned", 'learner.readout is "learned", but must be "fixed", "learnt" or "shared"'),
        ("adaptor", "lora", 'learner.adaptor is "lora", but must be "none", "scale-shift", "bottleneck" or "low-rank"'),
        ("adaptor_size", 0, "learner.adaptor_size is 0, but must be a whole number from 1 to 65,536"),
        ("pretrained", "", 'learner.pretrained is "", but must be text'),
        ("kernel", 3, 'learner.kernel is 3, but network is "mlp": leave it out, or choose "cnn"'),
        ("cell", "gru", 'learner.cell is "gru", but network is "mlp": leave it out, or choose "recurrent"'),
        ("channels", "8,16", 'learner.channels is [8, 16], but network is "mlp": leave it out, or choose "cnn"'),
        ("network", "cnn", "learner.channels is missing: a cnn has a number of channels for each convolution"),
        ("network", "vgg", 'learner.network is "vgg", but must be "mlp", "cnn" or "recurrent"'),
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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": "recurrent", "hidden": "64,32"}, "hidden is [64, 32], but must be one width, repeated"),
        ({"network": "recurrent", "hidden": ""}, "hidden is [], but must be one width, repeated"),
        ({"network": "recurrent", "activation": "relu"}, 'activation is "relu", but a recurrent network has that of'),
        ({"network": "recurrent", "channels": 8}, 'channels is [8], but network is "recurrent": leave it out'),
        ({"network": "cnn", "channels": 8, "kernel": 4}, "kernel is 4, but must be odd, to keep the size of a picture"),
        ({"network": "cnn", "channels": 8, "cell": "rnn"}, 'cell is "rnn", but network is "cnn": leave it out'),
        ({"method": "dfa", "space": "target", "loss": "squared"}, 'space is "target", but method is "dfa"'),
        (
            {"label_smoothing": 0.1, "loss": "hinge"},
            'label_smoothing is 0.1, but loss is "hinge": leave it out, or choose "cross-entropy"',
        ),
        ({"method": "fa", "adaptor": "low-rank"}, 'adaptor is "low-rank", but method is "fa", which has no feedback'),
    ],
)
def test_what_does_not_fit_each_other_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        LearnerSpec.from_config({f"learner.{key}": value for key, value in settings.items()})
    assert str(caught.value).startswith(f"learner.{message}")
    assert len(str(caught.value).splitlines()) == 1


def test_every_problem_has_a_line() -> None:
    with pytest.raises(ModelError) as caught:
        LearnerSpec.from_config({"learner.lr": -1, "learner.epochs": 0, "learner.x": 1})
    assert len(str(caught.value).splitlines()) == 3


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        LearnerSpec().lr = 2.0  # type: ignore[misc]


def test_choices_are_those_of_the_learner() -> None:
    from fedtp import adaptors
    from fedtp.baselines import direct
    from fedtp.losses import LOSSES
    from fedtp.models import ACTIVATIONS, CELLS
    from fedtp.projection import Kind

    assert set(get_args(LearnerSpec.model_fields["activation"].annotation)) == set(ACTIVATIONS)
    losses = get_args(LearnerSpec.model_fields["loss"].annotation)
    assert {name.replace("-", "_") for name in losses} == set(LOSSES)
    assert set(get_args(LearnerSpec.model_fields["projection"].annotation)) == set(get_args(Kind))
    assert set(get_args(LearnerSpec.model_fields["adaptor"].annotation)) == {"none", *get_args(adaptors.Kind)}
    assert set(get_args(LearnerSpec.model_fields["method"].annotation)) == {
        "tpsgd",
        "backprop",
        "fa",
        *get_args(direct.Method),
    }
    assert set(CELLS) == {"rnn", "gru", "lstm"}
