"""What we share with scikit-learn: the only module that touches its private or experimental names."""

import warnings

import numpy as np
from sklearn.base import BaseEstimator, _fit_context
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning, InconsistentVersionWarning
from sklearn.utils._param_validation import Interval, StrOptions, validate_params
from sklearn.utils.validation import _check_sample_weight

from ._core.operators import block_runner
from ._version import __version__

__all__ = [
    "BaseEstimator",
    "Interval",
    "StrOptions",
    "VersionedState",
    "_check_sample_weight",
    "_fit_context",
    "validate_params",
]

# Above this many rows clusters come from mini-batches.
_MINI_BATCH = 20_000


class VersionedState:
    """Stamp the state with our version, as scikit-learn does for its own estimators alone."""

    def __getstate__(self):
        return {**super().__getstate__(), "_attnembed_version": __version__}

    def __setstate__(self, state):
        state = dict(state)
        stored = state.pop("_attnembed_version", __version__)
        if _release(stored) > _release(__version__):
            warnings.warn(
                InconsistentVersionWarning(
                    estimator_name=type(self).__name__,
                    current_sklearn_version=f"sklearn_attnembed {__version__}",
                    original_sklearn_version=f"sklearn_attnembed {stored}",
                ),
                stacklevel=2,
            )
        super().__setstate__(state)


def _release(version):
    return tuple(int(part) for part in version.split(".")[:2])


def cluster_centers(X, weights, n_clusters, random_state):
    """At most `n_clusters` centers of the rows of `X` by k-means, none of them empty."""
    model = KMeans(min(n_clusters, len(X)), n_init=1, max_iter=10, random_state=random_state)
    occupied = np.unique(_labels(model, X, weights))
    return model.cluster_centers_[occupied]


def partition(X, n_clusters, random_state):
    """Cluster labels of the rows of `X` by k-means, without gaps; at most `n_clusters` of them."""
    n_clusters = min(n_clusters, len(X))
    if n_clusters < 2:
        return np.zeros(len(X), dtype=np.intp)
    kind = KMeans if len(X) <= _MINI_BATCH else MiniBatchKMeans
    model = kind(n_clusters, n_init=1, max_iter=50, random_state=random_state)
    return np.unique(_labels(model, X), return_inverse=True)[1]


def _labels(model, X, weights=None):
    """Fitted labels. On one thread: scikit-learn sums centres in an order that depends on the number of threads."""
    with block_runner(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters: fine
        return model.fit_predict(X, sample_weight=weights)
