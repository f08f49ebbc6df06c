"""Failed and interrupted fits leave the estimator unchanged, and successful fits leave nothing of the last one."""

import os
import pickle
import sys

import numpy as np
import pytest
import scipy.sparse as sp

import sklearn_attnembed
from sklearn_attnembed import AttentionEmbedding, AttentionWordVectors, ExpressiveKernel, NormalizerEstimator

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

FOLDER = os.path.dirname(sklearn_attnembed.__file__)
RNG = np.random.default_rng(0)
NARROW, WIDE = RNG.random((80, 5)), RNG.random((90, 7))
TEXTS = ["cats purr and dogs bark", "dogs and cats run", "a cat is not a dog"] * 20
OTHER_TEXTS = ["rain falls on hills", "snow falls on roofs and hills"] * 20


def named(X, letter):
    """A DataFrame with named columns."""
    pd = pytest.importorskip("pandas")
    return pd.DataFrame(X, columns=[f"{letter}{i}" for i in range(X.shape[1])])


def embedding(affinity, **params):
    return AttentionEmbedding(3, affinity=affinity, n_neighbors=5, random_state=0, max_iter=8, n_jobs=1, **params)


def distances(X, Y):
    return np.exp(-((X[:, None] - Y) ** 2).sum(axis=2))


GRAPHS = [sp.csr_array(distances(X, X) > 0.7, dtype=float) for X in (NARROW, WIDE)]
# For each name: an estimator, data for the first and for the second fit, and a method to call.
CASES = {
    "points": (embedding("nearest_neighbors"), NARROW, WIDE, "transform"),
    "graph": (embedding("precomputed"), *GRAPHS, "transform"),
    "neighbors": (embedding("precomputed", normalizer="neighbors", n_exact=4), *GRAPHS, "transform"),
    "exact": (embedding("precomputed", normalizer="exact"), *GRAPHS, "transform"),
    "clusters": (embedding("precomputed", n_clusters=3, walk_length=3), *GRAPHS, "transform"),
    "expressive": (embedding("precomputed", kernel="expressive", temperature=1), *GRAPHS, "transform"),
    "bipartite": (embedding("bipartite"), NARROW, WIDE, "transform"),
    "callable": (embedding(distances), NARROW, WIDE, "transform"),
    "warm": (embedding("precomputed", warm_start=True), *GRAPHS, "transform"),
    "words": (AttentionWordVectors(3, min_count=1, random_state=0), TEXTS, OTHER_TEXTS, "transform"),
    "landmarks": (ExpressiveKernel(n_components=4, random_state=0), NARROW, WIDE, "transform"),
    "products": (ExpressiveKernel(method="exact"), NARROW, WIDE, "transform"),
    "sketch": (ExpressiveKernel(method="sketch", n_components=8, random_state=0), NARROW, WIDE, "transform"),
    **{
        method: (NormalizerEstimator(method=method, n_samples=20, random_state=0), NARROW, WIDE, "score_samples")
        for method in ("gaussian", "control_variate", "neighbors", "random_fourier", "exact", "auto")
    },
}
# Ways to add keys to a fitted model.
FURTHER = {
    "partial_fit": lambda model: model.partial_fit(NARROW[::2]),
    "merge": lambda model: model.merge(type(model)(**model.get_params()).fit(NARROW[:30])),
}


class Fault:
    """Raise at the k-th call of a function of the package, or count the calls."""

    def __init__(self, k=None, error=KeyboardInterrupt):
        self.k, self.error, self.count = k, error, 0

    def __call__(self, frame, event, arg):
        if event == "call" and frame.f_code.co_filename.startswith(FOLDER):
            self.count += 1
            if self.count == self.k:
                sys.setprofile(None)
                raise self.error

    def __enter__(self):
        sys.setprofile(self)
        return self

    def __exit__(self, *error):
        sys.setprofile(None)


def copy(model):
    return pickle.loads(pickle.dumps(model))


def steps(model, action, n=12):
    """Return numbers of calls, from the first to the last, that ``action(model)`` makes."""
    unchanged = copy(model)
    with Fault() as fault:
        action(unchanged)
    return sorted({int(k) for k in np.linspace(1, fault.count, n)})


def assert_same_state(model, state):
    """Assert that every attribute is still the same object."""
    assert vars(model).keys() == state.keys()
    assert all(value is state[name] for name, value in vars(model).items())


def assert_withstands(model, action, error, ask, X):
    """Assert that an error at any of many places of ``action(model)`` leaves the model unchanged and usable."""
    asked, state = getattr(model, ask)(X), dict(vars(model))
    for k in steps(model, action):
        with pytest.raises(error), Fault(k, error):
            action(model)
        assert_same_state(model, state)
    np.testing.assert_array_equal(getattr(model, ask)(X), asked)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("name", CASES)
def test_interrupted_refit_leaves_the_model_as_it_was(name, error):
    model, first, then, ask = CASES[name]
    assert_withstands(copy(model).fit(first), lambda model: model.fit(then), error, ask, first)


@pytest.mark.parametrize("name", FURTHER)
@pytest.mark.parametrize("method", ["gaussian", "control_variate", "sampling", "random_fourier"])
def test_interrupted_addition_of_keys_leaves_the_model_as_it_was(method, name):
    model = NormalizerEstimator(method=method, n_samples=20, n_clusters=2, n_heavy=2, random_state=0).fit(NARROW)
    assert_withstands(model, FURTHER[name], KeyboardInterrupt, "score_samples", NARROW)


@pytest.mark.parametrize("name", CASES)
def test_interrupted_first_fit_leaves_nothing(name):
    model, first, _, _ = CASES[name]
    parameters = vars(model).copy()
    for k in steps(model, lambda model: model.fit(first)):
        with pytest.raises(KeyboardInterrupt), Fault(k):
            model.fit(first)
        assert vars(model) == parameters


@pytest.mark.parametrize("name", CASES)
def test_refit_is_a_first_fit(name):
    """A second fit leaves nothing of the first one, also in a pickle."""
    model, first, then, _ = CASES[name]
    once = copy(model).set_params(**{"warm_start": False} if hasattr(model, "warm_start") else {})
    twice = copy(once).fit(then).fit(first)
    assert vars(once.fit(first)).keys() == vars(twice).keys()
    for attribute, value in vars(once).items():
        assert len(pickle.dumps(value)) == len(pickle.dumps(getattr(twice, attribute))), attribute


def test_refit_of_other_affinities_keeps_no_points_and_no_names():
    model = embedding("nearest_neighbors").fit(named(NARROW, "x"))
    model.set_params(affinity=distances).fit(NARROW)
    assert not hasattr(model, "feature_names_in_")
    assert b"NearestNeighbors" not in pickle.dumps(model)
    many = np.zeros((80, 5000))
    many[:, :5] = NARROW
    size = len(pickle.dumps(model.fit(many)))
    model.set_params(affinity="precomputed").fit(named(GRAPHS[0].toarray(), "x"))
    assert len(pickle.dumps(model)) < size - 7 * 80 * 5000
    model.fit(sp.linalg.aslinearoperator(GRAPHS[0]))
    assert not hasattr(model, "feature_names_in_")
    assert not hasattr(model, "affinity_matrix_")


def test_model_answers_while_it_is_refitted(monkeypatch):
    """Until a fit has ended, other threads and callbacks see the last model whole."""
    model = embedding("nearest_neighbors").fit(NARROW)
    before, answers = model.transform(NARROW), []
    monkeypatch.setattr("builtins.print", lambda *args: answers.append(model.transform(NARROW)))
    model.set_params(verbose=1, affinity="precomputed").fit(GRAPHS[0])
    assert len(answers) == model.n_iter_
    for answer in answers:
        np.testing.assert_array_equal(answer, before)
    assert model.affinity_matrix_.shape == (80, 80)


def test_refit_by_other_methods_keeps_nothing():
    model = ExpressiveKernel(n_components=4).fit(NARROW).set_params(method="sketch").fit(NARROW)
    assert not hasattr(model, "landmarks_")
    model.set_params(method="exact").fit(NARROW)
    assert not hasattr(model, "sketch_")


def test_settings_outlast_fits():
    model = NormalizerEstimator().set_output(transform="default")
    model.note = "ours"
    settings = vars(model).copy()
    model.fit(NARROW).fit(WIDE)
    with pytest.raises(ValueError, match="NaN"):
        model.fit([[np.nan]])
    assert settings.items() <= vars(model).items()


def test_callbacks_are_torn_down_where_a_fit_is_interrupted(watcher_class):
    pytest.importorskip("sklearn.callback")
    model, first, then, _ = CASES["graph"]
    watcher = watcher_class()
    model = copy(model).fit(first).set_callbacks(watcher)
    state = dict(vars(model))
    n_calls = steps(model, lambda model: model.set_callbacks().fit(then), 3)[1]
    with pytest.raises(KeyboardInterrupt), Fault(n_calls):
        model.fit(then)
    assert watcher.events[0] == "setup"
    assert watcher.events[-1] == "teardown"
    assert_same_state(model, state)
