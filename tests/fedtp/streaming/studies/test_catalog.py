from __future__ import annotations

import itertools

import pytest
from river import datasets
from river.datasets import synth

from fedtp.data import load
from fedtp.data.generators import STREAMS
from fedtp.errors import DataError, FedtpError
from fedtp.streaming.studies import names, open_source

FROM_FILES = {"elec2", "mnist"}


def first(name: str, count: int, seed: int = 1) -> list:
    return list(itertools.islice(open_source(name).samples(seed), count))


@pytest.mark.parametrize("name", ["rbf-abrupt", "rbf-incremental", "sea-abrupt", "sea"])
def test_seed_0_is_a_seed(name: str) -> None:
    assert len(first(name, 5, seed=0)) == 5


@pytest.mark.parametrize("name", sorted(set(names()) - FROM_FILES))
def test_every_stream_opens(name: str) -> None:
    source = open_source(name)
    samples = list(source.limited(samples=30).samples(1))
    assert len(samples) == 30
    assert all(isinstance(x, dict) for x, _ in samples)
    assert samples == first(name, 30)
    assert source.name == name
    assert source.title == names()[name]
    if source.binary:
        assert {label for _, label in samples} <= {False, True}


@pytest.mark.parametrize("name", sorted({*STREAMS, "rbf-abrupt", "rbf-incremental", "sea-abrupt"} - {"anomaly-sine"}))
def test_another_seed_draws_other_samples(name: str) -> None:
    assert first(name, 200, seed=1) != first(name, 200, seed=2)
    assert first(name, 200, seed=2) == first(name, 200, seed=2)


def test_bundled_data_are_rivers() -> None:
    assert list(open_source("phishing").samples(5)) == list(datasets.Phishing())


def test_a_generator_draws_the_samples_of_the_data_set() -> None:
    dataset = load("sea", samples=300, seed=4)
    assert [int(label) for _, label in first("sea", 300, seed=4)] == dataset.y.tolist()


def test_the_benchmark_streams_of_seed_1() -> None:
    form = {"n_classes": 4, "n_features": 10, "n_centroids": 20}
    before = synth.RandomRBF(seed_model=1, seed_sample=11, **form)
    after = synth.RandomRBF(seed_model=2, seed_sample=22, **form)
    samples = first("rbf-abrupt", 10_050)
    assert samples[:50] == list(before.take(50))
    assert samples[10_000:] == list(after.take(50))
    sea = synth.ConceptDriftStream(
        synth.SEA(seed=42, variant=0), synth.SEA(seed=43, variant=3), position=10_000, width=100, seed=1
    )
    assert first("sea-abrupt", 11_000) == list(sea.take(11_000))
    moving = synth.RandomRBFDrift(seed_model=42, seed_sample=42, change_speed=0.001, n_drift_centroids=10, **form)
    assert first("rbf-incremental", 500) == list(moving.take(500))


def test_known_drifts() -> None:
    assert open_source("rbf-abrupt").drifts == open_source("sea-abrupt").drifts == (10_000,)
    assert open_source("sea").drifts == ()
    assert open_source("rbf-incremental").drifts is open_source("random-rbf-drift").drifts is None


def test_parameters() -> None:
    assert first("sea(variant=3)", 300) != first("sea", 300)
    assert len(first("random-rbf(n_features=3)", 1)[0][0]) == 3


def test_the_length_can_be_chosen() -> None:
    assert open_source("sea").limited(samples=50_000).length == 50_000
    assert open_source("phishing").limited(samples=50_000).length == 1_250
    assert open_source("rbf-abrupt").limited(samples=5_000).drifts == ()
    assert open_source("sea").limited(drift_at=[30, 10, 30]).drifts == (10, 30)


@pytest.mark.parametrize("drift", [0, -1, 20_000])
def test_a_drift_must_be_within_the_stream(drift: int) -> None:
    with pytest.raises(DataError, match="is not within the stream sea"):
        open_source("sea").limited(drift_at=[drift])


def test_no_samples() -> None:
    with pytest.raises(DataError, match="has no samples"):
        open_source("sea").limited(samples=0)


def test_elec2_is_rivers(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    header = "date,day,period,nswprice,nswdemand,vicprice,vicdemand,transfer,class\n"
    (tmp_path / "electricity.csv").write_text(header + "0,2,0.5,0.1,0.2,0.3,0.4,0.5,UP\n0,3,0,0,0,0,0,0,DOWN\n")
    monkeypatch.setenv("RIVER_DATA", str(tmp_path))
    samples = list(open_source("elec2").samples(1))
    assert [label for _, label in samples] == [True, False]
    assert samples[0][0]["day"] == 2
    assert samples[0][0]["transfer"] == 0.5


def test_a_missing_file_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RIVER_DATA", raising=False)
    with pytest.raises(DataError, match="RIVER_DATA"):
        open_source("elec2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sae", "no stream 'sae': did you mean 'sea'"),
        ("sea(variant=9)", r"cannot draw samples from sea\(variant=9\): Unknown variant"),
        ("sea(vriant=3)", "has no parameter 'vriant'"),
        ("phishing(x=1)", "takes no parameters: leave out x"),
        ("sea(3)", "does not name a stream"),
        ("sea | sea", "does not name a stream"),
        ("sea(", "cannot be read"),
    ],
)
def test_what_is_no_stream(text: str, message: str) -> None:
    with pytest.raises(FedtpError, match=message):
        open_source(text)
