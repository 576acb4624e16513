from __future__ import annotations

from typing import Any

import pytest
from river import dummy, preprocessing

from fedtp.errors import ModelError
from fedtp.streaming.studies import Protocol, prequential
from fedtp.streaming.studies.prequential import Outcome, Reaction


def study(model: Any, source: Any, **protocol: Any) -> Outcome:
    return prequential(model, source.samples(1), source.length, source.drifts, Protocol(**protocol))


def test_each_sample_is_predicted_before_it_is_learnt(recorder, labels):
    model = recorder()
    study(model, labels("abc"))
    assert model.calls == [(what, n) for n in range(3) for what in ("predict", "learn")]


def test_a_late_label_is_learnt_after_the_prediction_it_waits_for(recorder, labels):
    model = recorder()
    outcome = study(model, labels("aaab"), label_delay=2)
    predict, learn = (lambda n: ("predict", n)), (lambda n: ("learn", n))
    # Sample 0 is learnt after sample 2 was predicted; what is left in the end is learnt as well.
    assert model.calls == [
        predict(0), predict(1), predict(2), learn(0), predict(3), learn(1), learn(2), learn(3),
    ]  # fmt: skip
    assert (outcome.samples, outcome.correct) == (4, 3)


def test_more_delay_than_samples(recorder, labels):
    model = recorder()
    assert study(model, labels("ab"), label_delay=100).correct == 1
    assert [what for what, _ in model.calls] == ["predict", "predict", "learn", "learn"]


def test_accuracy_and_kappa_by_hand(recorder, labels):
    outcome = study(recorder("a"), labels("aabbaaaa"))
    assert outcome.accuracy == 6 / 8
    assert outcome.kappa == 0  # always the same answer is chance
    # "The same as before" is right at samples 1, 3, 5, 6, 7: (6 - 5) / (8 - 5).
    assert outcome.kappa_t == pytest.approx(1 / 3)


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_no_change_is_what_kappa_t_compares_with(labels, delay):
    outcome = study(dummy.NoChangeClassifier(), labels("aabbabbbbaab" * 5), label_delay=delay)
    assert outcome.kappa_t == 0
    assert 0 < outcome.accuracy < 1


def test_no_prediction_is_an_error(recorder, labels):
    outcome = study(recorder(None), labels("aaab"))
    assert (outcome.correct, outcome.kappa) == (0, 0)


def test_windows_cover_the_stream(recorder, labels):
    outcome = study(recorder("a"), labels("a" * 50 + "b" * 50 + "a" * 30))
    assert outcome.windows == ((50, 50), (50, 0), (30, 30))
    long = study(recorder("a"), labels("a" * 20_001))
    assert len(long.windows) <= 100
    assert sum(samples for samples, _ in long.windows) == 20_001


def test_a_stream_that_is_longer_than_it_said(recorder, labels):
    source = labels("a" * 1000)
    assert len(prequential(recorder(), source.samples(1), 10).windows) == 20


def test_drift_costs_what_it_costs(recorder, labels):
    outcome = study(recorder("a"), labels("a" * 500 + "b" * 100 + "a" * 400, drifts=(500,)))
    (recovery,) = outcome.recoveries
    # The last 200 must hold 190 right answers: 100 wrong ones, then 190 with ten of those still in the window.
    assert (recovery.before, recovery.samples, recovery.area_lost) == (1.0, 290, 100.0)
    (delay,) = outcome.delays
    assert delay is not None
    assert 0 <= delay < 50
    assert outcome.false_alarms == 0
    assert outcome.detections[0] == 500 + delay


def test_a_detection_is_dated_to_when_its_label_came(recorder, labels):
    text = "a" * 500 + "b" * 300
    at_once, late = (
        study(recorder("a"), labels(text, drifts=(500,)), label_delay=delay).delays[0] for delay in (0, 40)
    )
    assert at_once is not None
    assert late == at_once + 40


def test_errors_that_become_rarer_are_no_drift(recorder, labels):
    outcome = study(recorder("a"), labels("b" * 500 + "a" * 500, drifts=()))
    assert outcome.detections == ()
    assert outcome.false_alarms == 0


@pytest.mark.parametrize("detector", ["adwin", "page-hinkley", "ddm", "hddm-w"])
def test_every_detector_finds_what_is_plain(recorder, labels, detector):
    outcome = study(recorder("a"), labels("aaab" * 300 + "b" * 300, drifts=(1200,)), detector=detector)
    assert outcome.delays[0] is not None


def test_without_a_detector_alarms_are_undefined(recorder, labels):
    outcome = study(recorder("a"), labels("a" * 300 + "b" * 300, drifts=(300,)), detector="none")
    assert (outcome.detections, outcome.delays, outcome.false_alarms) == ((), (None,), None)


def test_without_known_drifts_alarms_are_undefined(recorder, labels):
    outcome = study(recorder("a"), labels("a" * 300 + "b" * 300))
    assert len(outcome.detections) == 1
    assert (outcome.delays, outcome.false_alarms) == ((), None)


def test_what_a_model_reports_itself(recorder, labels):
    text = ["a", "drift", "a", "drift", "a"]
    source = labels("-----")
    samples = [({"n": n}, label) for n, label in enumerate(text)]
    outcome = prequential(recorder(), samples, source.length)
    assert outcome.reactions == (Reaction(1, {"0": 0.25, "head": 0.5}), Reaction(3, {"0": 0.25, "head": 0.5}))


def test_the_end_of_a_pipeline_reports_too(recorder):
    class Reporting(dummy.NoChangeClassifier):
        def __init__(self) -> None:
            super().__init__()
            self.inner = recorder()

        @property
        def drift(self) -> Any:
            return self.inner.drift

        def learn_one(self, x: Any, y: Any) -> None:
            self.inner.learn_one(x, y)

    model = preprocessing.StandardScaler() | Reporting()
    outcome = prequential(model, [({"n": 1.0}, "a"), ({"n": 2.0}, "drift")], 2)
    assert [reaction.sample for reaction in outcome.reactions] == [1]


def test_state_bytes(recorder, labels):
    assert study(dummy.NoChangeClassifier(), labels("ab")).state_bytes > 0
    assert study(recorder(), labels("ab")).state_bytes is None


def test_time_is_that_of_the_model_alone(labels):
    class Slow(dummy.NoChangeClassifier):
        def predict_one(self, x: Any, **kwargs: Any) -> Any:
            return sum(range(100_000)) and super().predict_one(x)

    quick, slow = (study(model, labels("ab" * 20)).cpu_seconds for model in (dummy.NoChangeClassifier(), Slow()))
    assert 0 < quick < slow / 10


@pytest.mark.parametrize(("method", "sample"), [("predict_one", 3), ("learn_one", 2)])
def test_a_model_that_fails_is_named_with_its_sample(recorder, labels, monkeypatch, method, sample):
    model = recorder()
    original = getattr(model, method)

    def fail(x: Any, *y: Any) -> Any:
        if x["n"] == sample:
            raise KeyError("warmth")
        return original(x, *y)

    monkeypatch.setattr(model, method, fail)
    with pytest.raises(ModelError, match=rf"cannot {method[:-4]} sample {sample}: KeyError: 'warmth'"):
        study(model, labels("abcdefg"), label_delay=2)


def test_errors_of_the_stream_are_not_blamed_on_the_model(recorder):
    def broken() -> Any:
        yield {"n": 0}, "a"
        raise KeyError("of the stream")

    with pytest.raises(KeyError, match="of the stream"):
        prequential(recorder(), broken(), 2)


def test_no_samples(recorder):
    with pytest.raises(ModelError, match="no samples"):
        prequential(recorder(), [], 1)


@pytest.mark.parametrize("options", [{"label_delay": -1}, {"detection_window": 0}, {"detector": "nobody"}])
def test_settings_that_make_no_sense(options):
    with pytest.raises(ModelError):
        Protocol(**options)


def test_progress_is_told_now_and_then(recorder, labels):
    told: list[tuple[int, int]] = []
    source = labels("a" * 175)
    prequential(recorder(), source.samples(1), 175, on_sample=lambda *step: told.append(step))
    assert told == [(50, 50), (100, 100), (150, 150)]
