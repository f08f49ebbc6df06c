"""NormalizerEstimator: log Z of any queries against any keys."""

from numbers import Integral, Real

import numpy as np
from scipy.special import logsumexp
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ._core.kernels import KERNELS
from ._core.normalizer import exact_attention, gaussian_log_mass
from ._core.operators import block_runner, row_blocks
from ._core.statistics import KeyStatistics, block_statistics, merge
from ._sklearn import BaseEstimator, Interval, StrOptions, VersionedState, _fit_context, partition

# `score` compares on at most so many queries.
_SCORED_QUERIES = 1000


class NormalizerEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, VersionedState, BaseEstimator):
    """Normalisation constants of attention in linear time.

    ``log Z(q) = log sum_j f(q . k_j / temperature)`` of any queries q against any keys k. The keys are replaced by a
    mixture of Gaussians, whose expectation of the attention kernel f has a closed form [1]_. Fitting takes one pass
    over the keys, a query costs O(n_clusters * d^2) whatever their number.

    Read more in the :ref:`User Guide <normalizer>`.

    Parameters
    ----------
    kernel : {"softmax", "squared", "expressive"}, default="softmax"
        ``f(s) = exp(s)``; ``s^2``, for which the Gaussian value is exact; or ``s^2 / (1 + s^2)`` [2]_.

    method : {"gaussian", "exact"}, default="gaussian"
        The mixture, or the sum over all keys, which costs O(n_queries * n_keys).

    temperature : float, default=1.0
        Scores are divided by it.

    n_clusters : int, default=1
        Gaussians, fitted to clusters of the keys found by k-means. More are more accurate.

    random_state : int, RandomState instance or None, default=None
        Seed of k-means.

    n_jobs : int or None, default=None
        Threads. None is 1 unless in a :obj:`joblib.parallel_config` context, -1 is all cores. The result does not
        depend on it.

    Attributes
    ----------
    weights_ : ndarray of shape (n_clusters,)
        Number of keys in each cluster. Empty clusters are dropped, so there may be fewer than asked for.

    means_ : ndarray of shape (n_clusters, n_features)
        Mean key of each cluster.

    covariances_ : ndarray of shape (n_clusters, n_features, n_features)
        Covariance of the keys of each cluster.

    labels_ : ndarray of int of shape (n_keys,)
        Cluster of each key.

    n_features_in_ : int
        Columns of the keys.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where all are strings.

    See Also
    --------
    sklearn_attnembed.metrics.log_normalizer_exact : The exact value as a function.
    AttentionEmbedding : Embeddings trained with this normaliser.

    Notes
    -----
    The keys are kept, by reference where possible: `score` and ``method="exact"`` need them.

    References
    ----------
    .. [1] L. Dall'Amico, E. M. Belliardo, "Learning distributed representations with efficient SoftMax
       normalization", TMLR 2025, arXiv:2303.17475, section 2.
    .. [2] C. Gros, "Reorganizing attention-space geometry with expressive attention", arXiv:2407.18601.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_attnembed import NormalizerEstimator
    >>> rng = np.random.default_rng(0)
    >>> keys = rng.standard_normal((20_000, 16)) / 4
    >>> estimate = NormalizerEstimator().fit(keys).score_samples(keys[:100])
    >>> exact = NormalizerEstimator(method="exact").fit(keys).score_samples(keys[:100])
    >>> bool(np.median(np.abs(estimate - exact)) < 0.01)
    True
    """

    _parameter_constraints = {
        "kernel": [StrOptions(set(KERNELS))],
        "method": [StrOptions({"gaussian", "exact"})],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self, kernel="softmax", *, method="gaussian", temperature=1.0, n_clusters=1, random_state=None, n_jobs=None
    ):
        self.kernel = kernel
        self.method = method
        self.temperature = temperature
        self.n_clusters = n_clusters
        self.random_state = random_state
        self.n_jobs = n_jobs

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Take in the keys.

        Parameters
        ----------
        X : array-like of shape (n_keys, n_features)
            The keys.
        y : Ignored
            Present for API consistency.

        Returns
        -------
        self : NormalizerEstimator

        Raises
        ------
        ValueError
            If `X` is not a matrix of finite numbers.
        """
        X = validate_data(self, X, dtype=[np.float64, np.float32])
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        labels = partition(X, self.n_clusters, seed)
        n_clusters = labels.max() + 1
        bounds = row_blocks([len(X)], X.shape[1])
        with block_runner(self.n_jobs) as run:
            statistics = merge(
                run(lambda b: block_statistics(X[bounds[b]], None, labels[bounds[b]], n_clusters), range(len(bounds)))
            )
        self.labels_ = labels
        self.weights_, self.means_, self.covariances_ = statistics.weight, statistics.mean, statistics.covariance
        self._keys = X
        return self

    def score_samples(self, X):
        """log Z of queries.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            The queries.

        Returns
        -------
        log_z : ndarray of shape (n_queries,), float64
            ``log sum_j f(q . k_j / temperature)``, in nats; -inf where every score is zero and f(0) = 0.

        Raises
        ------
        ValueError
            If `X` has other columns than the keys.
        """
        return logsumexp(self._log_mass(self._validate_queries(X), self.method), axis=1)

    def transform(self, X):
        """Log of the attention mass that each cluster of keys receives; log Z is its logsumexp.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            The queries.

        Returns
        -------
        log_mass : ndarray of shape (n_queries, n_clusters)
            In nats, not normalised. Masses of zero (squared and expressive kernel, query orthogonal to all of a
            cluster's keys) are given as the logarithm of the smallest positive number of the dtype, not as -inf,
            so that estimators can go on with them.
        """
        X = self._validate_queries(X)
        return np.maximum(self._log_mass(X, self.method), np.log(np.finfo(X.dtype).tiny)).astype(X.dtype)

    def score(self, X, y=None):
        """Minus the mean absolute error of log Z against its exact value, on at most 1,000 queries at even steps.

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
        estimate, exact = (logsumexp(self._log_mass(X, method), axis=1) for method in (self.method, "exact"))
        same = estimate == exact  # -inf twice is no error
        return -float(np.mean(np.abs(np.subtract(estimate, exact, where=~same, out=np.zeros(len(X))))))

    def _validate_queries(self, X):
        check_is_fitted(self)
        return validate_data(self, X, dtype=[np.float64, np.float32], reset=False)

    def _log_mass(self, X, method):
        """Log attention mass of each cluster, for validated queries."""
        kernel, beta = KERNELS[self.kernel], 1 / self.temperature
        statistics = KeyStatistics(
            self.weights_, self.means_, self.covariances_ * np.asarray(self.weights_)[:, None, None]
        )
        members = [self._keys[self.labels_ == a] for a in range(len(self.weights_))] if method == "exact" else []
        bounds = row_blocks([len(X)], 4 * X.shape[1])

        def log_mass(block):
            queries = X[bounds[block]].astype(np.float64)
            if method == "gaussian":
                return gaussian_log_mass(queries, statistics, kernel, beta)
            return np.stack([exact_attention(queries, keys, None, kernel, beta)[0] for keys in members], axis=1)

        with block_runner(self.n_jobs) as run:
            return np.concatenate(list(run(log_mass, range(len(bounds)))))

    @property
    def _n_features_out(self):
        return len(self.weights_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
