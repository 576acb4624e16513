from __future__ import annotations

import pytest
from river import base, compose, dummy, linear_model, multiclass, naive_bayes, preprocessing, tree

from fedtp.errors import FedtpError
from fedtp.streaming.studies.models import models_of, suited


class Seeded(base.Classifier):
    """A classifier that does nothing with its seed."""

    def __init__(self, seed: int = 1, part: base.Classifier | None = None) -> None:
        self.seed = seed
        self.part = part

    def predict_one(self, x: object, **kwargs: object) -> None:
        return None

    def learn_one(self, x: object, y: object) -> None:
        return None


SEEDED = f"{Seeded.__module__}.Seeded"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --import-mode=importlib a test's module cannot be imported by its name."""
    import sys
    from types import SimpleNamespace

    monkeypatch.setitem(sys.modules, "seeded_models", SimpleNamespace(Seeded=Seeded))  # type: ignore[arg-type]


def make(text: str, seed: int = 7) -> object:
    (model,) = models_of([text])
    return model.make(seed)


def test_an_import_path_makes_an_estimator() -> None:
    made = make("river.tree.HoeffdingTreeClassifier(grace_period=50)")
    assert isinstance(made, tree.HoeffdingTreeClassifier)
    assert made.grace_period == 50


def test_a_short_name() -> None:
    assert isinstance(make("no-change"), dummy.NoChangeClassifier)


def test_a_pipeline() -> None:
    made = make("river.preprocessing.StandardScaler | river.linear_model.LogisticRegression(l2=0.5)")
    assert isinstance(made, compose.Pipeline)
    assert made["LogisticRegression"].l2 == 0.5


def test_models_in_models() -> None:
    made = make("river.multiclass.OneVsRestClassifier(river.linear_model.LogisticRegression(l2=0.5))")
    assert isinstance(made, multiclass.OneVsRestClassifier)
    assert made.classifier.l2 == 0.5


def test_what_takes_a_seed_gets_it_unless_it_was_given_one() -> None:
    made = make("seeded_models.Seeded(part=seeded_models.Seeded())")
    assert (made.seed, made.part.seed) == (7, 7)
    assert make("seeded_models.Seeded(seed=3)").seed == 3
    assert make("seeded_models.Seeded(3)").seed == 3
    assert make("river.preprocessing.StandardScaler | seeded_models.Seeded")["Seeded"].seed == 7


def test_an_estimator_is_cloned_with_the_seed() -> None:
    original = preprocessing.StandardScaler() | Seeded(part=Seeded())
    (model,) = models_of([original])
    made = model.make(7)
    assert model.name == "StandardScaler | Seeded"
    assert (made["Seeded"].seed, made["Seeded"].part.seed, original["Seeded"].seed) == (7, 7, 1)
    assert model.make(7) is not made


def test_an_estimator_keeps_its_parameters() -> None:
    (model,) = models_of([linear_model.LogisticRegression(l2=0.5)])
    assert model.make(1).l2 == 0.5


def test_names() -> None:
    given = ["no-change", "mine = no-change", "river.preprocessing.StandardScaler | river.naive_bayes.GaussianNB()"]
    assert [model.name for model in models_of(given)] == ["no-change", "mine", "StandardScaler | GaussianNB"]
    by_name = models_of({"a": "no-change", "b": naive_bayes.GaussianNB(), "c": lambda seed: Seeded(seed)})
    assert [model.name for model in by_name] == ["a", "b", "c"]
    assert by_name[2].make(5).seed == 5


def test_a_single_text_is_one_model() -> None:
    assert [model.name for model in models_of("no-change")] == ["no-change"]


def test_every_model_is_fresh() -> None:
    (model,) = models_of(["no-change"])
    first = model.make(1)
    first.learn_one({}, "a")
    assert model.make(1).predict_one({}) is None


def test_two_classes_only() -> None:
    scaled = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    assert suited(scaled, binary=True) is scaled
    adapted = suited(scaled, binary=False)
    assert isinstance(list(adapted.steps.values())[-1], multiclass.OneVsRestClassifier)
    bayes = naive_bayes.GaussianNB()
    assert suited(bayes, binary=False) is bayes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nobody", 'no model "nobody": use tp, no-change, or an import path'),
        ("river.nothing.Model", "cannot be imported: No module named 'river.nothing'"),
        ("river.tree.Nothing", "cannot be imported: .*Nothing"),
        ("river.tree.HoeffdingTreeClassifier(grace=1)", "unexpected keyword argument 'grace'; it takes: grace_period"),
        ("river.linear_model.LogisticRegression(l1=1.0, l2=1.0)", "cannot be made: .*Error: "),
        ("river.linear_model.LinearRegression", "is no classifier but a LinearRegression"),
        ("river.preprocessing.StandardScaler", "is no River classifier"),
        ("river.preprocessing.StandardScaler | river.linear_model.LinearRegression", "is no classifier"),
        ("river.naive_bayes.GaussianNB | river.preprocessing.StandardScaler", "no"),
        ("os.system('true')", '"os.system" .* is no estimator'),
        ("fedtp.errors.FedtpError", "is no estimator"),
        ("tp(", "cannot be read"),
    ],
)
def test_what_is_no_model_is_refused_in_a_sentence(text: str, message: str) -> None:
    with pytest.raises(FedtpError, match=message) as caught:
        models_of([text])
    assert "\n" not in str(caught.value)


def test_nothing_is_called_that_is_no_estimator(tmp_path) -> None:
    with pytest.raises(FedtpError):
        models_of([f"pathlib.Path.touch('{tmp_path / 'x'}')"])
    assert not list(tmp_path.iterdir())


def test_no_model_and_two_of_a_name() -> None:
    with pytest.raises(FedtpError, match="no model to study"):
        models_of([])
    with pytest.raises(FedtpError, match='two models called "no-change"'):
        models_of(["no-change", "river.dummy.NoChangeClassifier", "no-change"])
    with pytest.raises(FedtpError, match="3 is no model"):
        models_of([3])
