"""What we share with scikit-learn: the only module that touches its private or experimental names."""

import warnings

import numpy as np
from sklearn.base import BaseEstimator, _fit_context
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning, InconsistentVersionWarning
from sklearn.utils._param_validation import Interval, StrOptions, validate_params
from sklearn.utils.validation import _check_sample_weight

from ._core.operators import block_runner

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn 1.8 has none

    class CallbackSupportMixin:
        """No callbacks."""

    def with_callbacks(method):
        """No callbacks."""
        return method


from ._version import __version__

__all__ = [
    "BaseEstimator",
    "CallbackSupportMixin",
    "FitTask",
    "Interval",
    "StrOptions",
    "VersionedState",
    "_check_sample_weight",
    "_fit_context",
    "validate_params",
    "with_callbacks",
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


class FitTask:
    """The fit of an estimator as its callbacks see it: one task, an iteration each a part of it.

    Where scikit-learn has no callbacks, or the estimator none, nothing is done.
    """

    def __init__(self, estimator, X, y, n_iterations):
        # As functions: an operator would be taken for one. Scores are asked for only where there is a y, needed or not.
        self._data = {"X": lambda: X, "y": lambda: np.zeros(X.shape[0]) if y is None else y}
        self._estimator, self._whole, self._part = estimator, None, None
        if hasattr(estimator, "_init_callback_context"):
            self._whole = estimator._init_callback_context(max_subtasks=n_iterations)
            self._whole.call_on_fit_task_begin(estimator=estimator, **self._data)

    def begin(self):
        """An iteration begins."""
        if self._whole is not None:
            self._part = self._whole.subcontext(task_name="iteration")
            self._part.call_on_fit_task_begin(estimator=self._estimator, **self._data)

    def end(self, attributes=None):
        """An iteration ends, or the fit if none is under way; return whether a callback wants to stop.

        `attributes` is a function of what a model stopped here would have been left with.
        """
        task, self._part = self._part or self._whole, None
        if task is None:
            return False
        return task.call_on_fit_task_end(estimator=self._estimator, reconstruction_attributes=attributes, **self._data)


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
