"""Shared fixtures: tiny, seeded, read-only."""

import os

os.environ["SCIPY_ARRAY_API"] = "1"  # before anything imports scipy: scikit-learn's array checks want it

import importlib.util
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.datasets import load_digits

from sklearn_attnembed.datasets import make_block_model

matplotlib.use("Agg")


def frozen(X):
    """Make a dense or sparse array refuse to be written to."""
    for part in (X,) if isinstance(X, np.ndarray) else (X.data, X.indices, X.indptr):
        part.flags.writeable = False
    return X


@pytest.fixture(scope="session")
def digits():
    """400 digits, scaled to [0, 1], and their classes."""
    X, y = load_digits(return_X_y=True)
    return frozen(X[:400] / 16), frozen(y[:400])


@pytest.fixture(scope="session")
def graph():
    """A connected-looking graph of 300 nodes in 4 communities, without isolated nodes."""
    A, y = make_block_model(300, 4, mean_degree=12, random_state=0)
    kept = A.sum(axis=1) > 0
    return frozen(A[kept][:, kept].tocsr()), frozen(y[kept])


@pytest.fixture(scope="session")
def hubs():
    """A graph of very unequal degrees: far from symmetric once its rows are divided by their sums."""
    A, _ = make_block_model(300, 4, mean_degree=20, degree_spread=1.5, random_state=0)
    A = A + sp.diags_array((A.sum(axis=1) == 0).astype(float))
    return A.tocsr()


@pytest.fixture(scope="session")
def counts():
    """A table of 60 users by 40 items with two tastes."""
    rng = np.random.default_rng(0)
    taste = np.kron(np.eye(2), np.ones((30, 20)))
    return frozen(rng.poisson(0.2 + 2 * taste).astype(np.float64) + np.eye(60, 40))


@pytest.fixture(scope="session")
def real():
    """The loaders of the real data sets, if they are there (environment variable ATTNEMBED_DATA)."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ATTNEMBED_DATA", default))
    if not (folder / "loaders.py").exists():
        pytest.skip(f"no real data in {folder}: set ATTNEMBED_DATA")
    return _module(folder / "loaders.py")


@pytest.fixture(scope="session")
def protocols(real):
    """How embeddings are scored, beside the real data."""
    return _module(Path(real.__file__).resolve().parents[1] / "protocols.py")


def _module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Watcher:
    """A callback that counts, scores and stops."""

    def __init__(self, last=None):
        self.last, self.events, self.scores = last, [], []

    def setup(self, estimator, context):
        self.events.append("setup")

    def teardown(self, estimator, context):
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.events.append("begin")

    def on_fit_task_end(self, estimator, context, *, X=None, fitted_estimator=None):
        self.events.append("end")
        if fitted_estimator is not None:
            self.scores.append(fitted_estimator.score(X))
        return context.parent is not None and context.task_id == self.last


@pytest.fixture
def watcher_class():
    """Of callbacks to watch a fit with."""
    return Watcher
