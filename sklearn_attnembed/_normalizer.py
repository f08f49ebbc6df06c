"""NormalizerEstimator: log Z of any queries against any keys."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ._core.calibration import calibration, choose
from ._core.kernels import KERNELS, as_kernel, check_scores
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
    cluster_centers,
    validate_data,
    whole_or_as_before,
)
from ._typing import Float64, Integers, KernelLike, RandomState, Vectors

# `score` compares on at most so many queries.
_SCORED_QUERIES = 1000
# Relative to log Z: what sums of many terms lose at most.
_ROUNDING = 1e-15
# Weights up to this can be multiplied by squares of scores.
_LARGEST_WEIGHT = 1e80
# Parameters that go into the plan as they are.
_PLANNED = ("method", "n_clusters", "covariance_type", "n_samples", "n_exact", "n_heavy", "n_components")


def _can_forget(estimator: Any) -> bool:
    """Whether a summary of the keys is enough; an error that says why not."""
    method = getattr(estimator, "_method", estimator.method)
    if method == AUTO or NORMALIZERS[method].keeps_keys:
        raise AttributeError(
            f"partial_fit and merge keep no keys, but method={method!r} needs them: use fit, which takes a "
            'memory map too, or method="control_variate".'
        )
    return True


def _in_place(labels: Integers, kept: NDArray[np.bool_]) -> Integers:
    """Labels of all keys, -1 for those left out."""
    out = np.full(len(kept), -1, labels.dtype)
    out[kept] = labels
    return out


class NormalizerEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Normalisation constants of attention in linear time, with standard errors.

    ``log Z(q) = log sum_j w_j f(q . k_j / temperature)`` of any queries q against any keys k. Fitting takes one pass
    over the keys, and a query costs the same however many there are.

    Read more in the :ref:`User Guide <normalizer>`, which says which method to take where.

    Parameters
    ----------
    kernel : {"softmax", "squared", "expressive"} or callable, default="softmax"
        ``f(s) = exp(s)``; ``s^2``, for which the Gaussian value is exact; ``s^2 / (1 + s^2)`` [2]_; or any
        function that takes an array of scores and returns as many finite, non-negative numbers.

    method : str, default="gaussian"
        - "gaussian": the keys of each cluster count as a Gaussian, whose expectation of f has a closed form [1]_,
          or one by quadrature for a callable. The cheapest.
        - "control_variate": f on a sample of keys, by regression on the scores, whose means and variances over
          all keys are known exactly. The most accurate at temperatures that are not sharp.
        - "sampling": the mean of f over the sample.
        - "neighbors": the keys around the query are summed exactly, found by a search that does not look at all
          keys; a control variate stands for the others. The most accurate at sharp temperatures.
        - "random_fourier", "positive_features": random features, for ``kernel="softmax"`` alone, with orthogonal
          frequencies in pairs [3]_. To compare with.
        - "exact": the sum over all keys, which costs O(n_queries * n_keys).
        - "auto": the cheapest of "gaussian", "control_variate", "neighbors" and "exact", with its `n_clusters`,
          `n_samples` and `n_exact`, whose estimated median relative error is at most `tol`.

    temperature : float, default=1.0
        Scores are divided by it.

    n_clusters : int, default=1
        Gaussians, fitted to clusters of the keys found by k-means on a sample. More are more accurate.

    covariance_type : {"full", "diag"}, default="full"
        Covariances of the Gaussians. "diag" costs O(d) in place of O(d^2) and is right where the columns of the keys
        are uncorrelated; "control_variate" and "neighbors" then use the scores' means alone.

    n_samples : int, default=1000
        Keys drawn for each cluster, ``n_samples * n_clusters`` in all, without replacement and with probability in
        proportion to their weight. For "control_variate", "sampling" and "neighbors"; the standard error of
        "gaussian" takes so many in all.

    n_exact : int, default=64
        How many of a query's nearest keys "neighbors" has to sum exactly. It sums all keys of the cells that hold
        them, about ``512 * sqrt(n_exact)``, which finds nine in ten of the nearest on word vectors.

    n_heavy : int, default=0
        So many keys of the largest ``w_j f(k_j . k_j / temperature)`` are summed exactly for every query and left
        out of everything else. A few keys of very large norm ruin every smooth estimate.

    n_components : int, default=1000
        Random features, at most 2^20.

    tol : float, default=1e-3
        Median relative error of Z allowed to "auto".

    random_state : int, RandomState instance or None, default=None
        Seed of k-means, of the sample and of random features. Which keys are drawn depends on it and on the keys, not
        on their order.

    n_jobs : int or None, default=None
        Threads. None is 1 unless in a :obj:`joblib.parallel_config` context, -1 is all cores. The result does not
        depend on it.

    Attributes
    ----------
    weights_ : ndarray of shape (n_clusters,)
        Total weight of the keys in each cluster, without the heaviest. Empty clusters are dropped.

    means_ : ndarray of shape (n_clusters, n_features)
        Mean key of each cluster.

    covariances_ : ndarray of shape (n_clusters, n_features, n_features) or (n_clusters, n_features)
        Covariance of the keys of each cluster, or its diagonal.

    labels_ : ndarray of int of shape (n_keys,)
        Cluster of each key of the last call of `fit` or `partial_fit`; -1 for keys of weight zero.

    method_ : str
        The method in use; what "auto" chose.

    n_clusters_, n_samples_, n_exact_ : int
        The parameters in use; what "auto" chose.

    estimated_error_ : float
        Median relative error that "auto" expects, to be exact its upper 95 % confidence limit; nan for other methods.

    n_features_in_ : int
        Columns of the keys.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where all are strings.

    See Also
    --------
    sklearn_attnembed.metrics.log_normalizer_exact : The exact value as a function.
    sklearn_attnembed.inspection.NormalizerErrorDisplay : Its errors as a picture.
    AttentionEmbedding : Embeddings trained with this normaliser.

    Notes
    -----
    After `fit` the keys are kept, by reference where possible: `score`, standard errors and the methods "neighbors"
    and "exact" need them. A memory map of float32 or float64 stays one, so keys need not fit into memory. After
    `partial_fit` they are not kept. Beside them, `fit` keeps 4 bytes a key, "neighbors" 8 more, and "control_variate"
    and "sampling" 16 more, to know a query for one. While it runs it takes 80 bytes more for each of the first million
    keys, whatever the method, and "control_variate" and "sampling" up to 50 for each of all.

    Standard errors start from residuals: of the regression for "control_variate" and "neighbors", of the mean for
    "sampling" and random features, and for "gaussian" of the mixture against a control variate. They are then scaled
    by split conformal prediction: by the one factor with which 95 % intervals cover their share of some 500 keys. The
    exact log Z of these is computed when a standard error is first asked for, at O(n_keys) cost. After `partial_fit`
    standard errors are not scaled.

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
    >>> bool(np.median(np.abs(log_z - exact)) < 1e-3)
    True
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
        """Take in the keys.

        Parameters
        ----------
        X : array-like of shape (n_keys, n_features)
            The keys.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_keys,), default=None
            Non-negative weights w of the keys; a weight of two is a key given twice.

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
        """Take in more keys, in one pass and without keeping them.

        The result does not depend on the order of chunks and, with one cluster, is that of `fit` on all of them. With
        more, those found in the first chunk stay: let it be a fair sample.

        Parameters
        ----------
        X : array-like of shape (n_keys, n_features)
            A chunk of keys.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_keys,), default=None
            Weights of the keys.

        Returns
        -------
        self : NormalizerEstimator
            The estimator, with more keys.

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
        """Take in the keys of another estimator, so that shards can be fitted apart.

        Parameters
        ----------
        other : NormalizerEstimator
            Fitted with the same parameters. With more than one cluster, its clusters go to the nearest of `self`
            unless both share them, as copies of an estimator that was started by `partial_fit` do.

        Returns
        -------
        self : NormalizerEstimator
            The estimator, with the keys of both.

        Raises
        ------
        ValueError
            If the other's parameters or features differ.
        TypeError
            If the other is no NormalizerEstimator.

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
            Also give a standard error of each.

        Returns
        -------
        log_z : ndarray of shape (n_queries,), float64
            ``log sum_j w_j f(q . k_j / temperature)``, in nats; -inf where every score is zero and f(0) = 0.
        std : ndarray of shape (n_queries,), float64
            Standard error of log_z, if asked for: ``log_z +- 1.96 std`` covers the exact value of some 95 % of queries
            like the keys. Zero for "exact".

        Raises
        ------
        ValueError
            If `X` has other columns than the keys.
        """
        X = self._validate_queries(X)
        with block_runner(self.n_jobs) as run:
            estimates = estimate(self._fitted_keys(), X, run, return_std)
            log_z, std = (np.asarray(part, np.float64) for part in estimates)
            if not return_std:
                return log_z
            if NORMALIZERS[self.method_].is_exact:
                return log_z, std
            # Where every key was drawn or reached rounding is left.
            rounding = _ROUNDING * (1 + np.abs(log_z, where=np.isfinite(log_z), out=np.zeros(len(X))))
            return log_z, np.where(np.isfinite(log_z), np.maximum(std * self._calibration(run), rounding), 0)

    def transform(self, X: ArrayLike) -> Vectors:
        """Log of the attention mass that each cluster of keys receives; log Z is its logsumexp.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            The queries.

        Returns
        -------
        log_mass : ndarray of shape (n_queries, n_clusters)
            In nats, not normalised. log Z is the method's; except by "exact" it is split as the mixture splits it, and
            heavy keys count to their clusters. Masses of zero (squared and expressive kernel, query orthogonal to all
            of a cluster's keys) are given as the logarithm of the smallest positive number of the dtype, not as
            -inf, so that estimators can go on with them; and masses beyond the largest number of float32 as that.
        """
        X = self._validate_queries(X)
        with block_runner(self.n_jobs) as run:
            log_mass = log_masses(self._fitted_keys(), X, run)
        numbers = np.finfo(X.dtype)
        return log_mass.clip(np.log(numbers.tiny), numbers.max).astype(X.dtype)

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Mean absolute error of log Z against its exact value, times minus one.

        On at most 1,000 of the queries, at even steps.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            The queries.
        y : Ignored
            Present for API consistency.

        Returns
        -------
        score : float
            Zero is perfect.
        """
        X = self._validate_queries(X)
        X = X[:: -(-len(X) // _SCORED_QUERIES)]
        exact = self._exact(X)
        with block_runner(self.n_jobs) as run:
            log_z, _ = estimate(self._fitted_keys(), X, run)
        return -float(np.mean(np.abs(log_difference(log_z, exact))))

    def score_samples_exact(self, X: ArrayLike) -> Float64:
        """Sum over all keys for log Z of queries, whatever the method.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            The queries.

        Returns
        -------
        log_z : ndarray of shape (n_queries,), float64
            In nats.

        Raises
        ------
        ValueError
            If the keys came by `partial_fit` and were not kept.

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
        """The parameters, resolved; an error where they do not go together."""
        # As Python's own integers: products of small ones of NumPy's would overflow.
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
        """Store the plan to go on with, whatever becomes of the parameters; its kernel as it was given, for pickles."""
        self._settings, self._method = {**plan._asdict(), "kernel": self.kernel}, self.method

    def _fitted_plan(self) -> Plan:
        """The plan in use."""
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
        """Keys of positive weight, their weights or None, and the mask of those kept or None."""
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=reset)
        X = X if X.flags.forc else np.ascontiguousarray(X)  # as a copy of the model would hold them
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
        """Everything that log Z of a query is estimated from."""
        return fitted_keys(self._fitted_plan(), self._summary, self._keys, self._key_weights, self._key_labels)

    def _calibration(self, run: Runner) -> float:
        """What standard errors are multiplied by, computed once."""
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
