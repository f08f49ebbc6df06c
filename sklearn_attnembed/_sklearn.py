"""What we share with scikit-learn: the only module that touches its private or experimental names."""

import os
import pickle
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from numbers import Number
from typing import TYPE_CHECKING, Any, TypeVar

import joblib
import numpy as np
import sklearn
from sklearn.base import BaseEstimator as _BaseEstimator
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning, InconsistentVersionWarning
from sklearn.metrics.pairwise import check_pairwise_arrays as _check_pairwise_arrays
from sklearn.utils import _safe_indexing
from sklearn.utils import check_array as _check_array
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _num_samples
from sklearn.utils.validation import validate_data as _validate_data

from ._core.parallel import block_runner
from ._typing import Float64, Integers, Vectors
from ._version import __version__

if TYPE_CHECKING:  # scikit-learn has no types, and what its decorators are put on would lose its own
    _Function = TypeVar("_Function", bound=Callable[..., Any])

    class CallbackSupportMixin: ...

    def available_if(check: Callable[[Any], Any]) -> Callable[[_Function], _Function]: ...
    def validate_params(
        parameter_constraints: dict[str, Any], *, prefer_skip_nested_validation: bool
    ) -> Callable[[_Function], _Function]: ...
    def _fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[_Function], _Function]: ...
    def with_callbacks(method: _Function) -> _Function: ...
else:
    from sklearn.base import _fit_context
    from sklearn.utils._param_validation import validate_params
    from sklearn.utils.metaestimators import available_if

    try:
        from sklearn.callback import CallbackSupportMixin, with_callbacks
    except ImportError:  # scikit-learn 1.8 has none

        class CallbackSupportMixin:
            """No callbacks."""

        def with_callbacks(method):
            """No callbacks."""
            return method


__all__ = [
    "BaseEstimator",
    "CallbackSupportMixin",
    "FitTask",
    "Interval",
    "StrOptions",
    "_fit_context",
    "_num_samples",
    "_safe_indexing",
    "available_if",
    "check_array",
    "check_pairwise_arrays",
    "check_params",
    "output_container",
    "validate_data",
    "validate_params",
    "warn",
    "whole_or_as_before",
    "with_callbacks",
]

# Files through which a user's calls go.
_FOLDERS = (os.path.join(os.path.dirname(file), "") for file in (__file__, sklearn.__file__, joblib.__file__))
_IN_BETWEEN = (*_FOLDERS, pickle.__file__)

# Where the pages are that notebooks link to.
_DOCUMENTATION = os.environ.get("ATTNEMBED_DOC_URL", "https://sklearn-attnembed.readthedocs.io/en/stable")

# Above this many rows clusters come from mini-batches.
_MINI_BATCH = 20_000


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Warn, with the user's line as the place, however many calls of scikit-learn lie in between."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_IN_BETWEEN):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _quiet(check: Callable[..., Any]) -> Callable[..., Any]:
    """A check of scikit-learn's without NumPy's warnings: it sums huge numbers too, before it looks at each."""

    @wraps(check)
    def quiet(*args: Any, **kwargs: Any) -> Any:
        with np.errstate(over="ignore", invalid="ignore"):
            return check(*args, **kwargs)

    return quiet


check_array, check_pairwise_arrays, validate_data = map(_quiet, (_check_array, _check_pairwise_arrays, _validate_data))


def check_key_weight(weight: Any, keys: Vectors, name: str) -> Float64:
    """Weights of keys as an array, none of them negative and not all of them zero."""
    weight = np.full(len(keys), weight) if isinstance(weight, Number) else weight
    weight = check_array(weight, ensure_2d=False, dtype=np.float64, input_name=name)
    if weight.shape != (len(keys),) or weight.min() < 0 or not weight.any():
        raise ValueError(
            f"{name} must hold a weight >= 0 for each of the {len(keys)} keys, and not zero for all; got shape "
            f"{weight.shape}, entries from {weight.min():.4g} to {weight.max():.4g}. Clip it, or leave it out for "
            "equal weights."
        )
    return weight


class _OtherVersionWarning(InconsistentVersionWarning):
    """scikit-learn's, in our words."""

    def __str__(self) -> str:
        return (
            f"Unpickling {self.estimator_name}: a pickle holds for the version that wrote it alone, but this one was "
            f"written by {self.original_sklearn_version} and is read by {self.current_sklearn_version}. What it gives "
            "may be wrong: fit again, or write files that last by sklearn_attnembed.save in the version that wrote it."
        )


class BaseEstimator(_BaseEstimator):
    """scikit-learn's, with what that does for its own alone: a version in the state, links to their pages."""

    _doc_link_module = "sklearn_attnembed"
    _doc_link_template = f"{_DOCUMENTATION}/generated/{{estimator_module}}.{{estimator_name}}.html"

    def __getstate__(self):
        return {**super().__getstate__(), "_attnembed_version": __version__}

    def __setstate__(self, state):
        state = dict(state)
        stored = state.pop("_attnembed_version", __version__)
        if stored != __version__:
            warn(
                _OtherVersionWarning(
                    estimator_name=type(self).__name__,
                    current_sklearn_version=f"sklearn_attnembed {__version__}",
                    original_sklearn_version=f"sklearn_attnembed {stored}",
                )
            )
        super().__setstate__(state)


def whole_or_as_before(*kept: str, anew: bool = True) -> "Callable[[_Function], _Function]":
    """Decorate a method that fits, such that it changes the estimator completely or, if it raises, not at all.

    The method runs on a copy of the estimator, whose attributes the estimator takes over in one step at the end. If the
    fit is `anew`, the copy starts without the attributes that the previous fit has set, except for those `kept`.
    """

    def decorate(method: Any) -> Any:
        @wraps(method)
        def fit(estimator: Any, *args: Any, **kwargs: Any) -> Any:
            before = dict(vars(estimator))
            learned = {"_set_by_fit", *before.get("_set_by_fit", ())}
            start = {name for name in before if name not in learned or not anew or name in kept}
            trial = object.__new__(type(estimator))
            trial.__dict__.update({name: before[name] for name in start})
            result = method(trial, *args, **kwargs)
            trial.__dict__.pop("_set_by_fit", None)
            new = {name: value for name, value in vars(trial).items() if name not in before or name in learned}
            new["_set_by_fit"] = list(new)
            lasting = {name: value for name, value in vars(estimator).items() if name not in learned}
            estimator.__dict__ = lasting | new  # one step, which cannot be interrupted
            return estimator if result is trial else result

        return fit

    return decorate


class FitTask:
    """The fit of an estimator as its callbacks see it: one task, an iteration each a part of it.

    Where scikit-learn has no callbacks, or the estimator none, nothing is done.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, n_iterations: int) -> None:
        # As functions: an operator would be taken for one. Scores are asked for only where there is a y, needed or not.
        self._data = {"X": lambda: X, "y": lambda: np.zeros(X.shape[0]) if y is None else y}
        self._estimator = estimator
        self._whole: Any = None
        self._part: Any = None
        if hasattr(estimator, "_init_callback_context"):
            self._whole = estimator._init_callback_context(max_subtasks=n_iterations)
            self._whole.call_on_fit_task_begin(estimator=estimator, **self._data)

    def begin(self) -> None:
        """An iteration begins."""
        if self._whole is not None:
            self._part = self._whole.subcontext(task_name="iteration")
            self._part.call_on_fit_task_begin(estimator=self._estimator, **self._data)

    def end(self, attributes: Callable[[], dict[str, Any]] | None = None) -> bool:
        """An iteration ends, or the fit if none is under way; return whether a callback wants to stop.

        `attributes` is a function of what a model stopped here would have been left with.
        """
        task, self._part = self._part or self._whole, None
        if task is None:
            return False
        return task.call_on_fit_task_end(estimator=self._estimator, reconstruction_attributes=attributes, **self._data)


def cluster_centers(X: Vectors, weights: Vectors | None, n_clusters: int, random_state: int) -> Vectors:
    """At most `n_clusters` centers of the rows of `X` by k-means, none of them empty."""
    model = KMeans(min(n_clusters, len(X)), n_init=1, max_iter=10, random_state=random_state)
    occupied = np.unique(_labels(model, X, weights))
    return model.cluster_centers_[occupied]


def partition(X: Vectors, n_clusters: int, random_state: int) -> Integers:
    """Cluster labels of the rows of `X` by k-means, without gaps; at most `n_clusters` of them."""
    n_clusters = min(n_clusters, len(X))
    if n_clusters < 2:
        return np.zeros(len(X), dtype=np.intp)
    kind = KMeans if len(X) <= _MINI_BATCH else MiniBatchKMeans
    model = kind(n_clusters, n_init=1, max_iter=50, random_state=random_state)
    return np.unique(_labels(model, X), return_inverse=True)[1]


def _labels(model: Any, X: Vectors, weights: Vectors | None = None) -> Integers:
    """Fitted labels. On one thread: scikit-learn sums centres in an order that depends on the number of threads."""
    with block_runner(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters: fine
        return model.fit_predict(X, sample_weight=weights)


# What files of models hold -----------------------------------------------------------------------------
def check_params(model: Any) -> None:
    """Refuse invalid parameters, as `fit` does."""
    model._validate_params()


def output_container(model: Any) -> Any:
    """What `set_output` was called with, if it was."""
    return getattr(model, "_sklearn_output_config", {}).get("transform")
