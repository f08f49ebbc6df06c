"""Expressive attention as a transformer, as a kernel and as attention over values."""

import warnings
from numbers import Integral, Real

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_approximation import PolynomialCountSketch
from sklearn.metrics.pairwise import check_pairwise_arrays
from sklearn.utils import check_array, check_random_state
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.validation import check_is_fitted, validate_data

from ._core.kernels import EXPRESSIVE, KERNELS, squared_features
from ._core.normalizer import attention_rows, exact_attention
from ._core.operators import block_runner, row_blocks
from ._sklearn import BaseEstimator, Interval, StrOptions, VersionedState, _fit_context, validate_params


class ExpressiveKernel(ClassNamePrefixFeaturesOutMixin, TransformerMixin, VersionedState, BaseEstimator):
    """Features of expressive attention, which is high for parallel and antiparallel pairs alike.

    Expressive attention [1]_ weighs a pair by ``z^2 / (1 + z^2)``, z its dot product divided by the temperature:
    zero for orthogonal pairs, the same for z and -z.

    Read more in the :ref:`User Guide <expressive>`.

    Parameters
    ----------
    kernel : {"expressive", "squared", "softmax"}, default="expressive"
        ``z^2 / (1 + z^2)``, ``z^2`` or ``exp(z)``, for ``method="landmarks"``. The other methods are features of the
        squared score, which both "expressive" and "squared" stand for; "softmax" has none.

    method : {"landmarks", "exact", "sketch"}, default="landmarks"
        - "landmarks": attention of each row to k-means centres of the training rows.
        - "exact": the ``d (d + 1) / 2`` features whose inner product is the squared score.
        - "sketch": `n_components` features whose inner product is close to that, by
          :class:`sklearn.kernel_approximation.PolynomialCountSketch`.

    n_components : int, default=100
        Landmarks (clipped, with a warning, to the number of rows) or features of the sketch.

    temperature : float, default=1.0
        Scores are divided by it.

    normalize : bool, default=True
        For ``method="landmarks"``: divide by the sum over landmarks, so that rows sum to one. A row orthogonal to
        every landmark attends uniformly. Without it weights stop at the largest number of the dtype.

    random_state : int, RandomState instance or None, default=None
        Seed of k-means and of the sketch.

    Attributes
    ----------
    landmarks_ : ndarray of shape (n_components, n_features)
        The k-means centres; for ``method="landmarks"``.

    sketch_ : PolynomialCountSketch
        The fitted sketch; for ``method="sketch"``.

    n_features_in_ : int
        Columns seen during `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where all are strings.

    See Also
    --------
    expressive_kernel : The kernel matrix.
    sklearn.kernel_approximation.Nystroem : Landmarks for positive definite kernels.

    References
    ----------
    .. [1] C. Gros, "Reorganizing attention-space geometry with expressive attention", arXiv:2407.18601.

    Examples
    --------
    The sign of a point carries no class here, and a linear model on these features is right not to look at it:

    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_attnembed import ExpressiveKernel
    >>> rng = np.random.default_rng(0)
    >>> X = rng.choice([-1, 1], (200, 1)) * np.eye(2)[np.arange(200) % 2] + 0.1 * rng.standard_normal((200, 2))
    >>> y = np.arange(200) % 2
    >>> LogisticRegression().fit(X, y).score(X, y) < 0.8
    True
    >>> features = ExpressiveKernel(n_components=20, random_state=0)
    >>> make_pipeline(features, LogisticRegression(C=100)).fit(X, y).score(X, y)
    1.0
    """

    _parameter_constraints = {
        "kernel": [StrOptions(set(KERNELS))],
        "method": [StrOptions({"landmarks", "exact", "sketch"})],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "normalize": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        kernel="expressive",
        *,
        method="landmarks",
        n_components=100,
        temperature=1.0,
        normalize=True,
        random_state=None,
    ):
        self.kernel = kernel
        self.method = method
        self.n_components = n_components
        self.temperature = temperature
        self.normalize = normalize
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Find the landmarks, or draw the sketch.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.
        y : Ignored
            Present for API consistency.

        Returns
        -------
        self : ExpressiveKernel

        Raises
        ------
        ValueError
            If `X` is not a matrix of finite numbers, or `kernel` has no features of this `method`.
        """
        X = validate_data(self, X, dtype=[np.float64, np.float32])
        if self.kernel == "softmax" and self.method != "landmarks":
            raise ValueError(
                f"method={self.method!r} gives features of the squared score, but kernel='softmax'. Use "
                "kernel='expressive' or 'squared', or method='landmarks'."
            )
        if self.method == "landmarks":
            n_landmarks = min(self.n_components, len(X))
            if n_landmarks < self.n_components:
                warnings.warn(
                    f"n_components={self.n_components} is more than n_samples={len(X)}, which is taken instead.",
                    stacklevel=3,
                )
            seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
            with block_runner(1), warnings.catch_warnings():  # one thread: the order of its sums depends on them
                warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than landmarks: some coincide
                self.landmarks_ = KMeans(n_landmarks, n_init=1, random_state=seed).fit(X).cluster_centers_
        elif self.method == "sketch":
            sketch = PolynomialCountSketch(
                gamma=1 / self.temperature, degree=2, n_components=self.n_components, random_state=self.random_state
            )
            self.sketch_ = sketch.set_output(transform="default").fit(X)
        return self

    def transform(self, X):
        """Features of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features_out)
            ``n_components`` columns, or ``d (d + 1) / 2`` for ``method="exact"``.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        if self.method == "exact":
            return squared_features(X) / X.dtype.type(self.temperature)
        if self.method == "sketch":
            return self.sketch_.transform(X).astype(X.dtype, copy=False)
        log_f = KERNELS[self.kernel].log_value(X.astype(np.float64) @ self.landmarks_.T / self.temperature)
        largest = np.log(np.finfo(X.dtype).max)
        features = attention_rows(log_f) if self.normalize else np.exp(np.minimum(log_f, largest))
        return features.astype(X.dtype, copy=False)

    @property
    def _n_features_out(self):
        if self.method == "exact":
            return self.n_features_in_ * (self.n_features_in_ + 1) // 2
        return self.sketch_.n_components if self.method == "sketch" else len(self.landmarks_)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "n_features_in_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def expressive_kernel(X, Y=None, temperature=1.0):
    """Matrix of expressive weights between rows.

    ``z^2 / (1 + z^2)`` with ``z = X Y' / temperature``. It can be given to estimators as ``kernel=expressive_kernel``.
    It is symmetric but not positive definite: a support vector machine then looks for a stationary point and not for
    the only optimum, and a kernel ridge regression needs an `alpha` above minus the smallest eigenvalue.

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_X, n_features)
        Rows.
    Y : {array-like, sparse matrix} of shape (n_Y, n_features), default=None
        Other rows; `X` if None.
    temperature : float, default=1.0
        Scores are divided by it.

    Returns
    -------
    kernel : ndarray of shape (n_X, n_Y)
        Weights in [0, 1).

    References
    ----------
    .. [1] C. Gros, "Reorganizing attention-space geometry with expressive attention", arXiv:2407.18601.

    Examples
    --------
    >>> from sklearn_attnembed import expressive_kernel
    >>> expressive_kernel([[1.0, 0.0]], [[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0]])
    array([[0.9, 0.9, 0. ]])
    """
    X, Y = check_pairwise_arrays(X, Y)
    return np.exp(EXPRESSIVE.log_value(safe_sparse_dot(X, Y.T, dense_output=True) / temperature))


@validate_params(
    {
        "kernel": [StrOptions(set(KERNELS))],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "n_jobs": [Integral, None],
    },
    prefer_skip_nested_validation=True,
)
def attention(Q, K, V, *, kernel="softmax", temperature=1.0, n_jobs=None):
    """Attention of queries over keys, applied to values, in bounded memory.

    ``output_i = sum_j a_ij v_j``, ``a_ij = f(q_i . k_j / temperature) / Z_i``. For ``kernel="squared"`` the sums over
    the keys are taken once, O((n_queries + n_keys) d^2), where that is cheaper than O(n_queries n_keys d).

    Parameters
    ----------
    Q : array-like of shape (n_queries, d)
        Queries.
    K : array-like of shape (n_keys, d)
        Keys.
    V : array-like of shape (n_keys, d_v)
        Values.
    kernel : {"softmax", "squared", "expressive"}, default="softmax"
        The f above: ``exp(s)``, ``s^2`` or ``s^2 / (1 + s^2)`` [1]_.
    temperature : float, default=1.0
        Scores are divided by it; ``sqrt(d)`` is the scale of transformers.
    n_jobs : int or None, default=None
        Threads; the result does not depend on it.

    Returns
    -------
    output : ndarray of shape (n_queries, d_v)
        A query whose weights are all zero attends uniformly: its output is the mean value.

    Raises
    ------
    ValueError
        If shapes do not fit or anything is not finite.

    References
    ----------
    .. [1] C. Gros, "Reorganizing attention-space geometry with expressive attention", arXiv:2407.18601.

    Examples
    --------
    >>> from sklearn_attnembed import attention
    >>> keys, values = [[1.0, 0.0], [0.0, 1.0]], [[1.0], [2.0]]
    >>> attention([[5.0, 0.0], [0.0, -5.0]], keys, values, kernel="expressive")
    array([[1.],
           [2.]])
    """
    Q, K, V = (
        check_array(A, dtype=[np.float64, np.float32], input_name=name) for A, name in ((Q, "Q"), (K, "K"), (V, "V"))
    )
    if Q.shape[1] != K.shape[1]:
        raise ValueError(f"Q and K need the same number of columns, but Q has {Q.shape[1]} and K {K.shape[1]}.")
    if len(K) != len(V):
        raise ValueError(f"K and V need the same number of rows, one for each key, but K has {len(K)} and V {len(V)}.")
    dtype, beta = np.result_type(Q, K, V), 1 / temperature
    Q, K, V = (A.astype(np.float64, copy=False) for A in (Q, K, V))
    n_features, width = K.shape[1] * (K.shape[1] + 1) // 2, K.shape[1] + V.shape[1]
    is_linear = kernel == "squared" and (len(Q) + len(K)) * n_features * (V.shape[1] + 1) < len(Q) * len(K) * width
    bounds = row_blocks([len(Q)], 512)

    with block_runner(n_jobs) as run:
        if is_linear:
            sums = _squared_sums(K, V)
            parts = run(lambda b: _squared_attention(Q[bounds[b]], K, V, sums), range(len(bounds)))
        else:
            parts = run(lambda b: exact_attention(Q[bounds[b]], K, V, KERNELS[kernel], beta)[1], range(len(bounds)))
        return np.concatenate(list(parts)).astype(dtype, copy=False)


def _squared_sums(K, V):
    """sum_j phi(k_j) [v_j, 1], over blocks of keys."""
    bounds = row_blocks([len(K)], K.shape[1] ** 2)
    ones = np.ones((len(V), 1))
    return sum(squared_features(K[rows]).T @ np.hstack([V[rows], ones[rows]]) for rows in bounds)


def _squared_attention(Q, K, V, sums):
    """Squared attention from the sums over the keys; queries nearly orthogonal to all of them the long way."""
    values = squared_features(Q) @ sums
    bound = np.einsum("ij,ij->i", Q, Q) * np.einsum("ij,ij", K, K)
    cancelled = values[:, -1] <= 1e-6 * bound
    output = values[:, :-1] / np.where(cancelled, 1, values[:, -1])[:, None]
    if cancelled.any():
        output[cancelled] = exact_attention(Q[cancelled], K, V, KERNELS["squared"], 1.0)[1]
    return output
