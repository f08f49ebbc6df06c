"""The package's link to scikit-learn and SciPy: the only module that uses their private or experimental names."""

import os
import pickle
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from numbers import Number
from typing import TYPE_CHECKING, Any, TypeVar

import joblib
import numpy as np
import sklearn
from sklearn.base import BaseEstimator as _BaseEstimator
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning, InconsistentVersionWarning
from sklearn.metrics.pairwise import check_pairwise_arrays as _check_pairwise_arrays
from sklearn.utils import check_array as _check_array
from sklearn.utils.validation import validate_data as _validate_data

from ._core.parallel import block_runner
from ._typing import Float64, Integers, Vectors
from ._version import __version__

# Versions of scikit-learn whose private names are known to be there, and to mean what they should.
_TESTED = "1.8 and 1.9"


def _missing(name: str) -> ImportError:
    """Return the error that says that this scikit-learn lacks a private name."""
    return ImportError(
        f"sklearn_attnembed needs {name}, which scikit-learn {sklearn.__version__} does not have. It is tested with "
        f"scikit-learn {_TESTED}: install one of these, or a newer sklearn_attnembed."
    )


def _private(module: str, name: str) -> Any:
    """Import a private name of scikit-learn that nothing can replace."""
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise _missing(f"{module}.{name}") from error


def _optional(module: str, name: str, fallback: Any) -> Any:
    """Import a private or experimental name, or return what replaces it."""
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError):
        return fallback


def _rows_of(X: Any, rows: Any) -> Any:
    """Select rows of a table, a matrix or a list."""
    return X.iloc[rows] if hasattr(X, "iloc") else (X if hasattr(X, "shape") else np.asarray(X))[rows]


def _n_rows_of(X: Any) -> int:
    """Count the rows of a table, a matrix or a list."""
    return int(X.shape[0]) if hasattr(X, "shape") else len(X)


if TYPE_CHECKING:  # scikit-learn has no types, and its decorators would hide those of what they are put on
    _Function = TypeVar("_Function", bound=Callable[..., Any])

    class CallbackSupportMixin: ...

    Interval: Any
    StrOptions: Any

    def available_if(check: Callable[[Any], Any]) -> Callable[[_Function], _Function]: ...
    def validate_params(
        parameter_constraints: dict[str, Any], *, prefer_skip_nested_validation: bool
    ) -> Callable[[_Function], _Function]: ...
    def _fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[_Function], _Function]: ...
    def with_callbacks(method: _Function) -> _Function: ...
else:
    from sklearn.utils.metaestimators import available_if

    _fit_context = _private("sklearn.base", "_fit_context")
    Interval = _private("sklearn.utils._param_validation", "Interval")
    StrOptions = _private("sklearn.utils._param_validation", "StrOptions")
    validate_params = _private("sklearn.utils._param_validation", "validate_params")
    # scikit-learn 1.8 has no callbacks.
    CallbackSupportMixin = _optional("sklearn.callback", "CallbackSupportMixin", type("CallbackSupportMixin", (), {}))
    with_callbacks = _optional("sklearn.callback", "with_callbacks", lambda method: method)

_safe_indexing = _optional("sklearn.utils", "_safe_indexing", _rows_of)
_num_samples = _optional("sklearn.utils.validation", "_num_samples", _n_rows_of)

# ``out += A @ X`` for the arrays of a CSR matrix A. Without it, plain products give the same more slowly.
csr_matvecs: Callable[..., None] | None = _optional("scipy.sparse._sparsetools", "csr_matvecs", None)

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
    "csr_matvecs",
    "output_container",
    "validate_data",
    "validate_params",
    "warn",
    "whole_or_as_before",
    "with_callbacks",
]

# Folders and files whose frames lie between a user's line and a warning.
_FOLDERS = (os.path.join(os.path.dirname(file), "") for file in (__file__, sklearn.__file__, joblib.__file__))
_IN_BETWEEN = (*_FOLDERS, pickle.__file__)

# Address of the documentation that the display of an estimator in a notebook links to.
_DOCUMENTATION = os.environ.get("ATTNEMBED_DOC_URL", "https://sklearn-attnembed.readthedocs.io/en/stable")

# Queries, keys and scores below this size have squares, and sums of squares, that do not overflow.
_LARGEST_SCORE = 1e105

# Number of rows above which k-means uses mini-batches.
_MINI_BATCH = 20_000


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Warn at the user's line, however many calls of this package and scikit-learn lie in between."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_IN_BETWEEN):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _quiet(check: Callable[..., Any]) -> Callable[..., Any]:
    """Silence NumPy's warnings in a check of scikit-learn, which sums huge numbers before it looks at each."""

    @wraps(check)
    def quiet(*args: Any, **kwargs: Any) -> Any:
        with np.errstate(over="ignore", invalid="ignore"):
            return check(*args, **kwargs)

    return quiet


check_array, check_pairwise_arrays, validate_data = map(_quiet, (_check_array, _check_pairwise_arrays, _validate_data))


def check_scores(temperature: float, **matrices: Vectors) -> None:
    """Raise an error if scores between the named matrices, or of one with itself, could overflow."""
    names, beta = " and ".join(matrices), 1 / float(temperature)
    sizes = [max(float(M.max()), -float(M.min()), 5e-324) for M in matrices.values()]
    width = next(iter(matrices.values())).shape[1]
    if not max(*sizes, sizes[0] * beta, width * sizes[0] * beta * sizes[-1]) < _LARGEST_SCORE:
        largest = " and ".join(f"{size:.3g}" for size in sizes)
        raise ValueError(
            f"Entries of {names}, and their products over the temperature, must be below {_LARGEST_SCORE:g} in size, "
            f"but the largest entries are {largest} at temperature={float(temperature):g}. Divide them, or raise the "
            "temperature."
        )


def check_key_weight(weight: Any, keys: Vectors, name: str) -> Float64:
    """Return weights of keys as an array, or raise an error if one is negative or all are zero."""
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
    """Warning that another version of this package wrote a pickle."""

    def __str__(self) -> str:
        return (
            f"Unpickling {self.estimator_name}: a pickle holds for the version that wrote it alone, but this one was "
            f"written by {self.original_sklearn_version} and is read by {self.current_sklearn_version}. What it gives "
            "may be wrong: fit again, or write files that last by sklearn_attnembed.save in the version that wrote it."
        )


class BaseEstimator(_BaseEstimator):
    """BaseEstimator that also records the version of this package in pickles and links to its documentation."""

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
    """The fit of an estimator as its callbacks see it: a task with a subtask for each iteration.

    It does nothing if scikit-learn does not support callbacks.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, n_iterations: int) -> None:
        # Functions, because callbacks would call a LinearOperator. ScoringMonitor needs some y, even if it is not used.
        self._data = {"X": lambda: X, "y": lambda: np.zeros(X.shape[0]) if y is None else y}
        self._estimator = estimator
        self._whole: Any = None
        self._part: Any = None
        if hasattr(estimator, "_init_callback_context"):
            self._whole = estimator._init_callback_context(max_subtasks=n_iterations)
            self._whole.call_on_fit_task_begin(estimator=estimator, **self._data)

    def begin(self) -> None:
        """Tell the callbacks that an iteration begins."""
        if self._whole is not None:
            self._part = self._whole.subcontext(task_name="iteration")
            self._part.call_on_fit_task_begin(estimator=self._estimator, **self._data)

    def end(self, attributes: Callable[[], dict[str, Any]] | None = None) -> bool:
        """Tell the callbacks that the iteration, or else the fit, ends; return whether one of them wants to stop.

        `attributes` is a function that returns the attributes of a model that stops here.
        """
        task, self._part = self._part or self._whole, None
        if task is None:
            return False
        return task.call_on_fit_task_end(estimator=self._estimator, reconstruction_attributes=attributes, **self._data)


def cluster_centers(X: Vectors, weights: Vectors | None, n_clusters: int, random_state: int) -> Vectors:
    """Return at most `n_clusters` k-means centers of the rows of `X`, none of an empty cluster."""
    model = KMeans(min(n_clusters, len(X)), n_init=1, max_iter=10, random_state=random_state)
    occupied = np.unique(_labels(model, X, weights))
    return model.cluster_centers_[occupied]


def partition(X: Vectors, n_clusters: int, random_state: int) -> Integers:
    """Return k-means labels of the rows of `X`, at most `n_clusters` different ones without gaps."""
    n_clusters = min(n_clusters, len(X))
    if n_clusters < 2:
        return np.zeros(len(X), dtype=np.intp)
    kind = KMeans if len(X) <= _MINI_BATCH else MiniBatchKMeans
    model = kind(n_clusters, n_init=1, max_iter=50, random_state=random_state)
    return np.unique(_labels(model, X), return_inverse=True)[1]


def _labels(model: Any, X: Vectors, weights: Vectors | None = None) -> Integers:
    """Fit on one thread and return the labels: with more, the order of sums depends on the number of threads."""
    with block_runner(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # there may be fewer distinct points than clusters
        return model.fit_predict(X, sample_weight=weights)


# State of estimators -----------------------------------------------------------------------------------
def check_params(model: Any) -> None:
    """Raise an error for invalid parameters, as `fit` does."""
    validate = getattr(model, "_validate_params", None)
    if validate is None:
        raise _missing("sklearn.base.BaseEstimator._validate_params")
    validate()


def output_container(model: Any) -> Any:
    """Return the container that `set_output` was called with, or None."""
    return getattr(model, "_sklearn_output_config", {}).get("transform")
