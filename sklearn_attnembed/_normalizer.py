"""NormalizerEstimator: estimates of log Z of any queries against any keys."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ._core.calibration import calibration, choose
from ._core.kernels import KERNELS, as_kernel
from ._core.key_sketch import FittedKeys, KeySketch, Plan
from ._core.logsum import log_difference
from ._core.normalizers import AUTO, NORMALIZERS
from ._core.normalizers.evaluation import estimate, exact_log_z, fitted_keys, log_masses
from ._core.parallel import Runner, block_runner
from ._core.sketching import merge_sketches, sketch_keys
from ._sklearn import (
    BaseEstimator,
    Interval,
    StrOptions,
    _fit_context,
    available_if,
    check_key_weight,
    check_scores,
    cluster_centers,
    validate_data,
    whole_or_as_before,
)
from ._typing import Float64, Integers, KernelLike, RandomState, Vectors

# Largest number of queries that `score` compares.
_SCORED_QUERIES = 1000
# Rounding error of sums of many terms, relative to log Z.
_ROUNDING = 1e-15
# Weights up to this can be multiplied by squares of scores without overflow.
_LARGEST_WEIGHT = 1e80
# Parameters that are copied into the plan.
_PLANNED = ("method", "n_clusters", "covariance_type", "n_samples", "n_exact", "n_heavy", "n_components")


def _can_forget(estimator: Any) -> bool:
    """Tell whether the method works without the keys themselves; raise an error that says why if not."""
    method = getattr(estimator, "_method", estimator.method)
    if method == AUTO or NORMALIZERS[method].keeps_keys:
        raise AttributeError(
            f"partial_fit and merge keep no keys, but method={method!r} needs them: use fit, which takes a "
            'memory map too, or method="control_variate".'
        )
    return True


def _in_place(labels: Integers, kept: NDArray[np.bool_]) -> Integers:
    """Return labels of all keys, -1 for those left out."""
    out = np.full(len(kept), -1, labels.dtype)
    out[kept] = labels
    return out


class NormalizerEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Normalization constants of attention in linear time, with standard errors.

    The estimator computes ``log Z(q) = log sum_j w_j f(q . k_j / temperature)`` of any queries q against any keys k.
    Fitting takes one pass over the keys, and the cost of a query does not depend on their number.

    Read more in the :ref:`User Guide <normalizer>`, which also says which method to choose.

    Parameters
    ----------
    kernel : {"softmax", "squared", "expressive"} or callable, default="softmax"
        Attention kernel f: ``f(s) = exp(s)``; ``s^2``, for which the Gaussian value is exact; ``s^2 / (1 + s^2)``
        [2]_; or any function that takes an array of scores and returns as many finite, non-negative numbers.

    method : str, default="gaussian"
        Method that estimates log Z.

        - "gaussian": the scores of the keys in each cluster are taken to be Gaussian. The expectation of f then has a
          closed form [1]_, or is computed by quadrature for a callable. The cheapest method.
        - "control_variate": f is evaluated on a sample of keys and regressed on the scores, whose means and variances
          over all keys are known exactly. The most accurate method unless the temperature is low.
        - "sampling": the mean of f over the sample.
        - "neighbors": the keys around the query, found by a search that does not scan all keys, are summed exactly, and
          the others are estimated by a control variate. The most accurate method at low temperatures.
        - "random_fourier", "positive_features": random features with orthogonal frequencies in pairs [3]_, defined for
          ``kernel="softmax"`` only, for comparison.
        - "exact": the sum over all keys, which costs O(n_queries * n_keys).
        - "auto": the cheapest of "gaussian", "control_variate", "neighbors" and "exact", with its `n_clusters`,
          `n_samples` and `n_exact`, whose estimated median relative error is at most `tol`.

    temperature : float, default=1.0
        Temperature of the attention. Scores are divided by it before the kernel is applied.

    n_clusters : int, default=1
        Number of Gaussians, each fitted to a cluster of keys found by k-means on a sample. More are usually more
        accurate, but not on keys that are normally distributed as a whole.

    covariance_type : {"full", "diag"}, default="full"
        Type of the covariances of the Gaussians. "diag" costs O(d) instead of O(d^2) and is accurate if the columns of
        the keys are uncorrelated. "control_variate" and "neighbors" then use the means of the scores alone.

    n_samples : int, default=1000
        Number of keys drawn for each cluster, ``n_samples * n_clusters`` in all, without replacement and with
        probability in proportion to their weight. Used by "control_variate", "sampling" and "neighbors". The standard
        error of "gaussian" uses so many in all.

    n_exact : int, default=64
        Number of nearest keys of a query that "neighbors" sums exactly. It sums all keys of the cells that contain
        them, about ``512 * sqrt(n_exact)``, which finds nine in ten of the nearest on word vectors.

    n_heavy : int, default=0
        Number of keys, those of the largest ``w_j f(k_j . k_j / temperature)``, that are summed exactly for every query
        and left out of everything else. Without this, a few keys of very large norm make all estimates inaccurate.

    n_components : int, default=1000
        Number of random features, at most 2^20.

    tol : float, default=1e-3
        Largest median relative error of Z that "auto" accepts.

    random_state : int, RandomState instance or None, default=None
        Seed of k-means, of the sample and of random features. Which keys are drawn depends on it and on the keys, not
        on their order.

    n_jobs : int or None, default=None
        Number of threads. None means 1 unless in a :obj:`joblib.parallel_config` context, -1 means all cores. The
        result does not depend on it.

    Attributes
    ----------
    weights_ : ndarray of shape (n_clusters,)
        Total weight of the keys in each cluster, without the `n_heavy` heaviest. Empty clusters are dropped.

    means_ : ndarray of shape (n_clusters, n_features)
        Mean key of each cluster.

    covariances_ : ndarray of shape (n_clusters, n_features, n_features) or (n_clusters, n_features)
        Covariance of the keys of each cluster, or its diagonal.

    labels_ : ndarray of int of shape (n_keys,)
        Cluster of each key of the last call of `fit` or `partial_fit`; -1 for keys of weight zero.

    method_ : str
        Method in use, which "auto" has chosen.

    n_clusters_, n_samples_, n_exact_ : int
        Parameters in use, which "auto" has chosen.

    estimated_error_ : float
        Upper 95 % confidence limit of the median relative error that "auto" expects; nan for other methods.

    n_features_in_ : int
        Number of columns of the keys.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if all are strings.

    See Also
    --------
    sklearn_attnembed.metrics.log_normalizer_exact : Exact log Z as a function.
    sklearn_attnembed.inspection.NormalizerErrorDisplay : Plot of the errors.
    AttentionEmbedding : Embeddings trained with this normalizer.

    Notes
    -----
    After `fit` the keys are kept, by reference where possible: `score`, standard errors and the methods "neighbors"
    and "exact" need them. A memory map of float32 or float64 stays one, so keys need not fit into memory. After
    `partial_fit` they are not kept. Beside them, `fit` keeps 4 bytes per key, "neighbors" 8 more, and "control_variate"
    and "sampling" 16 more, by which they recognize a query that is a key. While `fit` runs, it needs 80 bytes more for
    each of the first million keys, and "control_variate" and "sampling" up to 50 more for every key.

    Standard errors are computed from residuals: of the regression for "control_variate" and "neighbors", of the mean
    for "sampling" and random features, and of the mixture against a control variate for "gaussian". They are then
    scaled by split conformal prediction, with the factor by which 95 % intervals cover their share of some 500 keys.
    The exact log Z of these keys is computed when a standard error is first requested, at O(n_keys) cost. After
    `partial_fit` standard errors are not scaled.

    A query that is one of the keys, to the precision of float32, has its own term summed exactly by
    "control_variate" and "sampling".

    References
    ----------
    .. [1] L. Dall'Amico, E. M. Belliardo, "Learning distributed representations with efficient SoftMax
       normalization", TMLR 2025, arXiv:2303.17475, section 2.
    .. [2] C. Gros, "Reorganizing attention-space geometry with expressive attention", arXiv:2407.18601.
    .. [3] K. Choromanski et al., "Rethinking attention with performers", ICLR 2021, arXiv:2009.14794.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_attnembed import NormalizerEstimator
    >>> rng = np.random.default_rng(0)
    >>> keys = rng.standard_normal((20_000, 16)) / 4
    >>> model = NormalizerEstimator(method="control_variate", random_state=0).fit(keys)
    >>> log_z, std = model.score_samples(keys[:100], return_std=True)
    >>> exact = NormalizerEstimator(method="exact").fit(keys).score_samples(keys[:100])
    >>> round(float(np.median(np.abs(log_z - exact))), 3)
    0.0
    >>> bool(np.mean(np.abs(log_z - exact) < 2 * std) > 0.85)
    True
    """

    _parameter_constraints = {
        "kernel": [StrOptions(set(KERNELS)), callable],
        "method": [StrOptions({*NORMALIZERS, AUTO})],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions({"full", "diag"})],
        "n_samples": [Interval(Integral, 8, None, closed="left")],
        "n_exact": [Interval(Integral, 1, None, closed="left")],
        "n_heavy": [Interval(Integral, 0, None, closed="left")],
        "n_components": [Interval(Integral, 1, 2**20, closed="both")],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
    }

    _keys: Vectors | None
    _key_weights: Float64 | None
    _key_labels: Integers | None
    _scale: list[float]
    _settings: dict[str, Any]
    _method: str

    def __init__(
        self,
        kernel: KernelLike = "softmax",
        *,
        method: str = "gaussian",
        temperature: float = 1.0,
        n_clusters: int = 1,
        covariance_type: Literal["full", "diag"] = "full",
        n_samples: int = 1000,
        n_exact: int = 64,
        n_heavy: int = 0,
        n_components: int = 1000,
        tol: float = 1e-3,
        random_state: RandomState = None,
        n_jobs: int | None = None,
    ) -> None:
        self.kernel = kernel
        self.method = method
        self.temperature = temperature
        self.n_clusters = n_clusters
        self.covariance_type = covariance_type
        self.n_samples = n_samples
        self.n_exact = n_exact
        self.n_heavy = n_heavy
        self.n_components = n_components
        self.tol = tol
        self.random_state = random_state
        self.n_jobs = n_jobs

    @whole_or_as_before()
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the estimator to keys.

        Parameters
        ----------
        X : array-like of shape (n_keys, n_features)
            The keys.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_keys,), default=None
            Non-negative weights w of the keys. A key of weight two counts like a key given twice.

        Returns
        -------
        self : NormalizerEstimator
            The fitted estimator.

        Raises
        ------
        ValueError
            If `X` is not a matrix of finite numbers, or the method is not defined for the kernel.
        """
        plan = self._plan()
        X, weights, kept = self._validate_keys(X, sample_weight, reset=True)
        expected = np.nan
        with block_runner(self.n_jobs) as run:
            if plan.method == AUTO:
                plan, expected = choose(X, weights, plan, self.tol, cluster_centers, run)
            summary, labels = sketch_keys(X, weights, plan, cluster_centers, run)
        self._keep_settings(plan)
        self._keys, self._key_weights, self._key_labels, self.estimated_error_ = X, weights, labels, expected
        return self._store(plan, summary, labels if kept is None else _in_place(labels, kept))

    @available_if(_can_forget)
    @whole_or_as_before(anew=False)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Add keys in one pass, without keeping them.

        The result does not depend on the order of the chunks and, with one cluster, equals that of `fit` on all keys.
        With more clusters, those found in the first chunk are kept, so that it should be a representative sample.

        Parameters
        ----------
        X : array-like of shape (n_keys, n_features)
            A chunk of keys.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_keys,), default=None
            Non-negative weights of the keys.

        Returns
        -------
        self : NormalizerEstimator
            The estimator with more keys.

        Raises
        ------
        AttributeError
            If the method needs the keys themselves: "neighbors", "exact" and "auto".

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn_attnembed import NormalizerEstimator
        >>> keys = np.random.default_rng(0).standard_normal((2000, 4))
        >>> model = NormalizerEstimator()
        >>> for chunk in np.array_split(keys, 4):
        ...     model = model.partial_fit(chunk)
        >>> bool(np.allclose(model.score_samples(keys[:5]), NormalizerEstimator().fit(keys).score_samples(keys[:5])))
        True
        """
        first = not hasattr(self, "_summary")
        plan = self._plan() if first else self._fitted_plan()
        X, weights, kept = self._validate_keys(X, sample_weight, reset=first)
        with block_runner(self.n_jobs) as run:
            before: KeySketch | None = None if first else self._summary
            summary, labels = sketch_keys(X, weights, plan, cluster_centers, run, before)
            if before is not None:
                summary = merge_sketches(before, summary, plan, cluster_centers, run)
        if first:
            self._keep_settings(plan)
        self._keys, self._key_weights, self._key_labels, self.estimated_error_ = None, None, None, np.nan
        return self._store(plan, summary, labels if kept is None else _in_place(labels, kept))

    @available_if(_can_forget)
    @whole_or_as_before(anew=False)
    def merge(self, other: NormalizerEstimator) -> Self:
        """Add the keys of another estimator, so that parts of the keys can be fitted separately.

        Parameters
        ----------
        other : NormalizerEstimator
            Estimator fitted with the same parameters. With more than one cluster, its clusters are added to the nearest
            of `self` unless both have the same, as copies of an estimator that was started by `partial_fit` do.

        Returns
        -------
        self : NormalizerEstimator
            The estimator with the keys of both.

        Raises
        ------
        ValueError
            If the parameters or the features of the other differ.
        TypeError
            If the other is not a NormalizerEstimator.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn_attnembed import NormalizerEstimator
        >>> keys = np.random.default_rng(0).standard_normal((2000, 4))
        >>> shards = [NormalizerEstimator().fit(part) for part in np.split(keys, 2)]
        >>> model = shards[0].merge(shards[1])
        >>> bool(np.allclose(model.score_samples(keys[:5]), NormalizerEstimator().fit(keys).score_samples(keys[:5])))
        True
        """
        check_is_fitted(self)
        if not isinstance(other, NormalizerEstimator):
            raise TypeError(
                f"other must be a NormalizerEstimator, got {type(other).__name__}. Pass one fitted with the parameters "
                "of this one."
            )
        check_is_fitted(other)
        plan, theirs = self._fitted_plan(), other._fitted_plan()
        kernels = self._settings["kernel"], other._settings["kernel"]
        values = {"kernel": kernels, "temperature": (1 / plan.beta, 1 / theirs.beta)}
        names = ["method", "covariance_type", "n_heavy"]
        names += ["n_components", "seed"] if NORMALIZERS[plan.method].feature_sums else ["n_samples"]
        values |= {name: (getattr(plan, name), getattr(theirs, name)) for name in names}
        values["random_state, as a seed,"] = values.pop("seed", (0, 0))
        for name, pair in values.items():
            if pair[0] != pair[1]:
                here, there = (f"{x:g}" if isinstance(x, float) else repr(x) for x in pair)
                raise ValueError(
                    f"merge needs equal parameters, but {name} is {here} here and {there} there. Fit other with {here}."
                )
        if self.n_features_in_ != other.n_features_in_:
            raise ValueError(
                f"merge needs keys of equal width, but they have {self.n_features_in_} and "
                f"{other.n_features_in_} features. Fit other on the columns of this one."
            )
        with block_runner(self.n_jobs) as run:
            summary = merge_sketches(self._summary, other._summary, plan, cluster_centers, run)
        self._keys = self._key_weights = self._key_labels = None
        return self._store(plan, summary, self.labels_)

    @overload
    def score_samples(self, X: ArrayLike, return_std: Literal[False] = ...) -> Float64: ...
    @overload
    def score_samples(self, X: ArrayLike, return_std: Literal[True]) -> tuple[Float64, Float64]: ...
    def score_samples(self, X: ArrayLike, return_std: bool = False) -> Float64 | tuple[Float64, Float64]:
        """Estimate log Z of queries.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            The queries.
        return_std : bool, default=False
            Whether to return a standard error of each too.

        Returns
        -------
        log_z : ndarray of shape (n_queries,), float64
            ``log sum_j w_j f(q . k_j / temperature)``, in nats; -inf where every score is zero and f(0) = 0.
        std : ndarray of shape (n_queries,), float64
            Standard error of log_z, only if `return_std` is True. ``log_z +- 1.96 std`` covers the exact value of about
            95 % of queries that are like the keys. Zero for "exact".

        Raises
        ------
        ValueError
            If `X` has not the columns of the keys.
        """
        X = self._validate_queries(X)
        with block_runner(self.n_jobs) as run:
            estimates = estimate(self._fitted_keys(), X, run, return_std)
            log_z, std = (np.asarray(part, np.float64) for part in estimates)
            if not return_std:
                return log_z
            if NORMALIZERS[self.method_].is_exact:
                return log_z, std
            # Where every key was drawn or scanned, only rounding errors are left.
            rounding = _ROUNDING * (1 + np.abs(log_z, where=np.isfinite(log_z), out=np.zeros(len(X))))
            return log_z, np.where(np.isfinite(log_z), np.maximum(std * self._calibration(run), rounding), 0)

    def transform(self, X: ArrayLike) -> Vectors:
        """Compute the log of the attention mass that each cluster of keys receives; log Z is its logsumexp.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            The queries.

        Returns
        -------
        log_mass : ndarray of shape (n_queries, n_clusters)
            Log masses in nats, not normalized. Their sum is the log Z of the method. Except with "exact", log Z is
            divided among clusters in the proportions of the mixture, and heavy keys are added to their clusters. Masses
            of zero (squared and expressive kernel, query orthogonal to all keys of a cluster) are given as the
            logarithm of the smallest positive number of the dtype instead of -inf, so that other estimators accept
            them, and masses beyond the largest number of float32 as that.
        """
        X = self._validate_queries(X)
        with block_runner(self.n_jobs) as run:
            log_mass = log_masses(self._fitted_keys(), X, run)
        numbers = np.finfo(X.dtype)
        return log_mass.clip(np.log(numbers.tiny), numbers.max).astype(X.dtype)

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Compute minus the mean absolute error of log Z.

        At most 1,000 of the queries, evenly spaced, are compared with their exact values.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            The queries.
        y : Ignored
            Present for API consistency.

        Returns
        -------
        score : float
            Minus the mean absolute error in nats; zero is perfect.
        """
        X = self._validate_queries(X)
        X = X[:: -(-len(X) // _SCORED_QUERIES)]
        exact = self._exact(X)
        with block_runner(self.n_jobs) as run:
            log_z, _ = estimate(self._fitted_keys(), X, run)
        return -float(np.mean(np.abs(log_difference(log_z, exact))))

    def score_samples_exact(self, X: ArrayLike) -> Float64:
        """Compute exact log Z of queries by the sum over all keys, whatever the method.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            The queries.

        Returns
        -------
        log_z : ndarray of shape (n_queries,), float64
            Exact log Z in nats.

        Raises
        ------
        ValueError
            If the keys were given to `partial_fit`, which does not keep them.

        Examples
        --------
        >>> from sklearn_attnembed import NormalizerEstimator
        >>> NormalizerEstimator().fit([[1.0, 0.0], [-1.0, 0.0]]).score_samples_exact([[0.0, 3.0]])
        array([0.69314718])
        """
        return self._exact(self._validate_queries(X))

    def _exact(self, X: Vectors) -> Float64:
        if self._keys is None:
            raise ValueError(
                "score and score_samples_exact need the keys, and partial_fit and merge keep none: use fit, or "
                "score_samples for an estimate."
            )
        with block_runner(self.n_jobs) as run:
            return np.asarray(exact_log_z(self._fitted_keys(), X, run), np.float64)

    def _plan(self) -> Plan:
        """Return the parameters, resolved; raise an error if the method is not defined for the kernel."""
        # As Python integers, because products of NumPy's small integers would overflow.
        planned: dict[str, Any] = {
            name: int(x) if isinstance(x := getattr(self, name), Integral) else x for name in _PLANNED
        }
        plan = Plan(
            kernel=as_kernel(self.kernel),
            beta=1 / self.temperature,
            seed=check_random_state(self.random_state).randint(np.iinfo(np.int32).max),
            **planned,
        )
        if plan.method != AUTO and not NORMALIZERS[plan.method].is_defined_for(plan.kernel):
            raise ValueError(
                f"method={self.method!r} is defined for kernel='softmax' alone, got kernel={self.kernel!r}: use "
                "method='control_variate'."
            )
        return plan

    def _keep_settings(self, plan: Plan) -> None:
        """Store the plan that is used from now on, with its kernel as it was given, so that it can be pickled."""
        self._settings, self._method = {**plan._asdict(), "kernel": self.kernel}, self.method

    def _fitted_plan(self) -> Plan:
        """Return the plan in use."""
        return Plan(**{**self._settings, "kernel": as_kernel(self._settings["kernel"])})

    def _store(self, plan: Plan, summary: KeySketch, labels: Integers) -> Self:
        """Set the fitted attributes."""
        self._summary, self._scale = summary, []
        self.method_, self.n_clusters_ = plan.method, len(summary.centers)
        self.n_samples_, self.n_exact_ = plan.n_samples, plan.n_exact
        self.weights_, self.means_ = summary.statistics.weight, summary.statistics.mean
        self.covariances_ = summary.statistics.covariance
        self.labels_ = labels
        return self

    def _validate_keys(
        self, X: ArrayLike, sample_weight: ArrayLike | None, reset: bool
    ) -> tuple[Vectors, Float64 | None, NDArray[np.bool_] | None]:
        """Return keys of positive weight, their weights or None, and the mask of those kept or None."""
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=reset)
        X = X if X.flags.forc else np.ascontiguousarray(X)  # in the layout that a copy of the model would have
        check_scores(self.temperature if reset else 1 / self._settings["beta"], X=X)
        if sample_weight is None:
            return X, None, None
        weights = check_key_weight(sample_weight, X, "sample_weight")
        largest = float(weights.max())
        if not 1 / _LARGEST_WEIGHT <= largest <= _LARGEST_WEIGHT:
            raise ValueError(
                f"The largest sample_weight must be between {1 / _LARGEST_WEIGHT:g} and {_LARGEST_WEIGHT:g}, but is "
                f"{largest:.3g}. Divide all by it: that takes {np.log(largest):.6g} off log Z."
            )
        kept = weights > 0
        return (X, weights, None) if kept.all() else (X[kept], weights[kept], kept)

    def _validate_queries(self, X: ArrayLike) -> Vectors:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        check_scores(1 / self._settings["beta"], X=X)
        return X

    def _fitted_keys(self) -> FittedKeys:
        """Return everything that log Z of a query is estimated from."""
        return fitted_keys(self._fitted_plan(), self._summary, self._keys, self._key_weights, self._key_labels)

    def _calibration(self, run: Runner) -> float:
        """Return the factor of standard errors, which is computed once."""
        if self._keys is None:
            return 1.0
        if not self._scale:
            self._scale.append(calibration(self._fitted_keys(), run))
        return self._scale[0]

    @property
    def _n_features_out(self) -> int:
        return len(self.weights_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
