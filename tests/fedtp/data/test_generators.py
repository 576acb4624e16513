import pickle

import numpy as np
import pytest
from river import datasets
from river.datasets import synth

from fedtp.data import load
from fedtp.data.generators import STREAMS
from fedtp.errors import DataError

# Not here: regression, several outputs, and streams made of other streams (drift is up to the scenario).
ELSEWHERE = {"ConceptDriftStream", "Friedman", "FriedmanDrift", "Logical", "Mv", "Planes2D"}


def test_every_generator_of_river_is_known():
    assert {stream.river for stream in STREAMS.values() if isinstance(stream.river, str)} == set(
        synth.__all__
    ) - ELSEWHERE
    for name in ELSEWHERE - {"ConceptDriftStream"}:
        assert getattr(synth, name)().task not in (datasets.base.BINARY_CLF, datasets.base.MULTI_CLF)


@pytest.mark.parametrize("name", sorted(STREAMS))
def test_drawn_data(name):
    data = load(name, samples=3000, seed=1)
    assert data.x.shape == (3000, len(data.feature_names))
    assert data.x.dtype == np.float32
    assert np.isfinite(data.x).all()
    assert data.x[:1000].mean(axis=0) == pytest.approx(0, abs=1e-3)
    assert data.x[:1000].std(axis=0) == pytest.approx(1, abs=1e-2)
    assert set(np.unique(data.y)) == set(range(len(data.classes)))


@pytest.mark.parametrize("name", sorted(STREAMS))
def test_the_seed_decides(name):
    one, same, other = (load(name, samples=2500, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.x, same.x)
    assert np.array_equal(one.y, same.y)
    assert not np.array_equal(one.x, other.x)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("sea", {"variant": 3}),
        ("agrawal", {"classification_function": 4}),
        ("random-rbf", {"seed_model": 2}),
        ("random-rbf-drift", {"change_speed": 0.0}),
        ("random-tree", {"seed_tree": 2}),
        ("hyperplane", {"noise_percentage": 0.0}),
        ("hyperplane", {"seed": 2}),
        ("led-drift", {"n_drift_features": 7}),
        ("anomaly-sine", {"n_anomalies": 100}),
        ("mixed", {"classification_function": 1}),
        ("sine", {"classification_function": 2}),
    ],
)
def test_concepts_do_not_share_samples(name, parameters):
    data = load(name, samples=2500, seed=1)
    x, y = data.generate(parameters)
    assert x.shape == data.x.shape
    assert y.shape == data.y.shape
    shared = np.intersect1d(data.x.sum(axis=1), x.sum(axis=1))
    assert len(shared) < 0.05 * len(x) or len(np.unique(data.x, axis=0)) < len(x) / 2


def test_naming_a_default_changes_nothing():
    data = load("sea", samples=300, seed=1)
    x, y = data.generate({"variant": 0})
    assert np.array_equal(x, data.x)
    assert np.array_equal(y, data.y)


def test_concepts_are_scaled_alike():
    """SEA's label is a threshold on the sum of the first two features, seen through the same scaling."""
    data = load("sea", samples=5000, seed=1)
    x, y = data.generate({"variant": 3})
    assert (data.x[:, :2].sum(axis=1)[data.y == 0]).max() < (x[:, :2].sum(axis=1)[y == 0]).max()


def linear_fit(x, y):
    return np.linalg.lstsq(np.c_[x, np.ones(len(x))], 2.0 * y - 1, rcond=None)[0]


@pytest.mark.parametrize("parameters", [{"noise_percentage": 0.0}, {}])
def test_a_hyperplane_stays_where_it_is_under_other_samples(parameters):
    """River draws the plane and the samples from one seed; here only the samples change."""
    first, second = (load("hyperplane", samples=5000, seed=seed) for seed in (1, 2))
    fit, refit = linear_fit(first.x, first.y), linear_fit(*second.generate(parameters))
    moved = linear_fit(*first.generate({"seed": 7}))
    assert np.corrcoef(fit, refit)[0, 1] > 0.98
    assert np.corrcoef(fit, moved)[0, 1] < 0.9


def test_a_model_stays_what_it_is_under_other_samples():
    means = [load("random-rbf", samples=5000, seed=seed) for seed in (1, 2)]
    centres = [[data.x[data.y == label].mean(axis=0) for label in range(4)] for data in means]
    np.testing.assert_allclose(centres[0], centres[1], atol=0.25)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("sea", {"varient": 1}, "sea has no parameter 'varient'; it has: noise, seed, variant"),
        ("anomaly-sine", {"n_samples": 5}, "no parameter 'n_samples'"),
        ("sea", {"variant": 9}, r"River cannot draw 50 samples from sea\(variant=9\): Unknown variant"),
        (
            "random-rbf",
            {"n_features": 3},
            "3 features and 4 classes, but the data set random-rbf has 10 and 4",
        ),
        ("random-rbf", {"n_classes": 5}, "10 features and 5 classes"),
        ("random-rbf", {"n_features": "many"}, "River cannot draw"),
        ("random-rbf-drift", {"n_centroids": 3}, "can not be larger"),
        ("waveform", {"has_noise": True}, "40 features"),
    ],
)
def test_refused_parameters(name, parameters, message):
    samples = 50 if name != "anomaly-sine" else 2500
    with pytest.raises(DataError, match=message):
        load(name, samples=samples).generate(parameters)


@pytest.mark.parametrize(("samples", "seed"), [(1, 0), (-5, 0), (10, -1)])
def test_numbers_out_of_range(samples, seed):
    with pytest.raises(DataError, match=r"samples is|seed is"):
        load("sea", samples=samples, seed=seed)


def test_too_short_for_its_anomalies():
    with pytest.raises(DataError, match="River cannot draw 100 samples from anomaly-sine"):
        load("anomaly-sine", samples=100)


def test_only_streams_that_change_are_ordered():
    ordered = {name for name, stream in STREAMS.items() if stream.ordered}
    assert ordered == {"anomaly-sine", "random-rbf-drift"}


def test_it_can_be_sent_to_another_process():
    data = pickle.loads(pickle.dumps(load("stagger", samples=50)))
    assert len(data.generate({"classification_function": 1})[1]) == 50
