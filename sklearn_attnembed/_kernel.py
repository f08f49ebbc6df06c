"""Expressive attention as a transformer and as a kernel."""

from __future__ import annotations

import math
import warnings
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_approximation import PolynomialCountSketch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ._core.kernels import KERNELS, expressive
from ._core.normalizers.exact import attention_rows
from ._core.parallel import block_runner
from ._magnitude import bounded_scores, product_features, row_exponents, saturated, scale_rows
from ._sklearn import (
    BaseEstimator,
    Interval,
    StrOptions,
    _fit_context,
    check_array,
    check_pairwise_arrays,
    validate_data,
    warn,
    whole_or_as_before,
)
from ._sparse import canonical
from ._typing import KernelName, MatrixLike, RandomState, Vectors


class FittedKernel(NamedTuple):
    """Parameters that an ExpressiveKernel was fitted with."""

    method: str
    kernel: str
    temperature: float
    normalize: bool


class ExpressiveKernel(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Features of expressive attention, which is high for parallel and antiparallel pairs alike.

    Expressive attention [1]_ weights a pair by ``z^2 / (1 + z^2)``, where z is its dot product divided by the
    temperature. The weight is zero for orthogonal pairs and the same for z and -z.

    Read more in the :ref:`User Guide <expressive>`.

    Parameters
    ----------
    kernel : {"expressive", "squared", "softmax"}, default="expressive"
        Attention kernel: ``z^2 / (1 + z^2)``, ``z^2`` or ``exp(z)``, for ``method="landmarks"``. The other methods give
        features of the squared score, for "expressive" as for "squared"; "softmax" has none.

    method : {"landmarks", "exact", "sketch"}, default="landmarks"
        Method that computes the features.

        - "landmarks": attention of each row to k-means centers of the training rows, or to given `landmarks`.
        - "exact": the ``d (d + 1) / 2`` features whose inner product is the squared score; sparse for sparse rows.
        - "sketch": `n_components` features whose inner product approximates the squared score, by
          :class:`sklearn.kernel_approximation.PolynomialCountSketch`.

    n_components : int, default=100
        Number of landmarks (clipped, with a warning, to the number of rows) or of features of the sketch.

    landmarks : array-like of shape (n_landmarks, n_features), default=None
        Landmarks to use instead of k-means centers, for ``method="landmarks"``. `n_components` is ignored then.

    temperature : float, default=1.0
        Temperature of the attention. Scores are divided by it.

    normalize : bool, default=True
        Whether to divide by the sum over landmarks, so that rows sum to one, for ``method="landmarks"``. A row
        orthogonal to every landmark then attends uniformly. The weights of n landmarks are numbers about 1 / n, too
        small for a model that penalizes large coefficients: use a :class:`sklearn.preprocessing.StandardScaler` after
        them, or False. With False, weights are from 0 to 1, those of softmax from 0 to the largest number of the dtype.

    random_state : int, RandomState instance or None, default=None
        Seed of k-means and of the sketch.

    Attributes
    ----------
    landmarks_ : ndarray of shape (n_landmarks, n_features)
        The k-means centers, or the given landmarks; for ``method="landmarks"``.

    sketch_ : PolynomialCountSketch
        The fitted sketch; for ``method="sketch"``.

    n_features_in_ : int
        Number of columns seen during `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if all are strings.

    See Also
    --------
    expressive_kernel : Matrix of the kernel.
    sklearn.kernel_approximation.Nystroem : Landmarks for positive definite kernels.

    Notes
    -----
    ``z^2 / (1 + z^2)`` is not positive definite, so it is not the inner product of any features. Those of "exact" and
    "sketch" belong to ``z^2``, which is positive definite. Weights of landmarks are ordinary features for any model.

    Numbers of any size are accepted. A feature that would be infinite is set to the largest number of the dtype.

    References
    ----------
    .. [1] C. Gros, "Reorganizing attention-space geometry with expressive attention", arXiv:2407.18601.

    Examples
    --------
    Here the class does not depend on the sign of a point, and neither do these features:

    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_attnembed import ExpressiveKernel
    >>> rng = np.random.default_rng(0)
    >>> X = rng.choice([-1, 1], (200, 1)) * np.eye(2)[np.arange(200) % 2] + 0.1 * rng.standard_normal((200, 2))
    >>> y = np.arange(200) % 2
    >>> LogisticRegression().fit(X, y).score(X, y) < 0.8
    True
    >>> features = ExpressiveKernel(n_components=20, random_state=0)
    >>> make_pipeline(features, StandardScaler(), LogisticRegression()).fit(X, y).score(X, y)
    1.0
    """

    _parameter_constraints = {
        "kernel": [StrOptions(set(KERNELS))],
        "method": [StrOptions({"landmarks", "exact", "sketch"})],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "landmarks": ["array-like", None],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "normalize": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        kernel: KernelName = "expressive",
        *,
        method: Literal["landmarks", "exact", "sketch"] = "landmarks",
        n_components: int = 100,
        landmarks: ArrayLike | None = None,
        temperature: float = 1.0,
        normalize: bool = True,
        random_state: RandomState = None,
    ) -> None:
        self.kernel = kernel
        self.method = method
        self.n_components = n_components
        self.landmarks = landmarks
        self.temperature = temperature
        self.normalize = normalize
        self.random_state = random_state

    @whole_or_as_before()
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: MatrixLike, y: Any = None) -> Self:
        """Fit the landmarks or the sketch.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows, one for each sample.
        y : Ignored
            Present for API consistency.

        Returns
        -------
        self : ExpressiveKernel
            The fitted estimator.

        Raises
        ------
        ValueError
            If `X` is not a matrix of finite numbers, or the kernel has no features of this method.
        """
        if self.method != "landmarks" and not KERNELS[self.kernel].has_squared_features:
            others = sorted(name for name, kernel in KERNELS.items() if kernel.has_squared_features)
            raise ValueError(
                f"method={self.method!r} gives features of the squared score, but kernel={self.kernel!r}. Use "
                f"kernel={' or '.join(map(repr, others))}, or method='landmarks'."
            )
        if self.landmarks is not None and self.method != "landmarks":
            raise ValueError(
                f"landmarks were given, but method={self.method!r} has none. Use method='landmarks', or leave them out."
            )
        X = validate_data(self, canonical(X), accept_sparse="csr", dtype=[np.float64, np.float32])
        self._fitted = FittedKernel(self.method, self.kernel, float(self.temperature), bool(self.normalize))
        if self.method == "landmarks":
            self.landmarks_ = self._find_landmarks(X)
        elif self.method == "sketch":
            sketch = PolynomialCountSketch(
                gamma=1 / max(self._fitted.temperature, np.finfo(np.float64).tiny),
                degree=2,
                coef0=0.0,
                n_components=self.n_components,
                random_state=self.random_state,
            )
            self.sketch_ = sketch.set_output(transform="default").fit(np.zeros((1, X.shape[1])))
        return self

    def _find_landmarks(self, X: Any) -> Vectors:
        """Return the given landmarks, validated, or k-means centers."""
        if self.landmarks is not None:
            landmarks = check_array(self.landmarks, dtype=X.dtype, copy=True, input_name="landmarks")
            if landmarks.shape[1] != X.shape[1]:
                raise ValueError(
                    f"landmarks need the {X.shape[1]} columns of X, but have {landmarks.shape[1]}. Pass points of the "
                    "same space."
                )
            return landmarks
        n_landmarks = min(int(self.n_components), X.shape[0])
        if n_landmarks < self.n_components:
            warn(
                f"n_components={self.n_components} is more than n_samples={X.shape[0]}, which is taken instead. Lower "
                "n_components, or pass more rows."
            )
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        with block_runner(1), warnings.catch_warnings():  # the order of sums depends on the number of threads
            warnings.simplefilter(
                "ignore", ConvergenceWarning
            )  # some centers coincide if there are fewer distinct rows
            exponent = row_exponents(X).max()  # or squares of distances could overflow
            model = KMeans(n_landmarks, n_init=1, random_state=seed, copy_x=False).fit(scale_rows(X, -exponent))
            return scale_rows(model.cluster_centers_, exponent)

    def transform(self, X: MatrixLike) -> Vectors | sp.csr_array:
        """Compute the features of rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows, one for each sample.

        Returns
        -------
        features : {ndarray, csr_array} of shape (n_samples, n_features_out)
            Features, one for each landmark or component, or ``d (d + 1) / 2`` for ``method="exact"``.
        """
        check_is_fitted(self)
        X = validate_data(self, canonical(X), accept_sparse="csr", dtype=[np.float64, np.float32], reset=False)
        method, kernel, temperature, is_normalized = self._fitted
        if method == "exact":
            return product_features(X, temperature)
        if method == "sketch":
            return self._sketch(X)
        scores = bounded_scores(X.astype(np.float64), self.landmarks_.astype(np.float64), temperature)
        log_f = KERNELS[kernel].log_value(scores)
        largest = np.log(float(np.finfo(X.dtype).max))
        features = attention_rows(log_f) if is_normalized else np.exp(np.minimum(log_f, largest))
        return features.astype(X.dtype, copy=False)

    def _sketch(self, X: Any) -> Vectors:
        """Compute the features of the sketch, which are quadratic in each row, of rows scaled to the size of one."""
        gain = math.frexp(self.sketch_.gamma)[1] // 2
        exponents = row_exponents(X) + np.intc(gain)
        features = self.sketch_.transform(scale_rows(X.astype(np.float64, copy=False), -exponents))
        return saturated(scale_rows(features, 2 * exponents), X.dtype)

    @property
    def _n_features_out(self) -> int:
        if self._fitted.method == "exact":
            return self.n_features_in_ * (self.n_features_in_ + 1) // 2
        return self.sketch_.n_components if self._fitted.method == "sketch" else len(self.landmarks_)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_fitted")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def expressive_kernel(X: MatrixLike, Y: MatrixLike | None = None, temperature: float = 1.0) -> Vectors | float:
    """Compute the matrix of expressive weights between rows.

    The weights are ``z^2 / (1 + z^2)`` with ``z = X Y' / temperature`` [1]_. The function can be given to estimators:
    ``SVC(kernel=expressive_kernel)``, ``KernelRidge(kernel=expressive_kernel)``, or, with a temperature,
    ``SVC(kernel=functools.partial(expressive_kernel, temperature=0.5))``.

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_X, n_features), or array-like of shape (n_features,)
        Rows, or one row.
    Y : {array-like, sparse matrix} of shape (n_Y, n_features), or array-like of shape (n_features,), default=None
        Other rows. They are those of `X` if None.
    temperature : float, default=1.0
        Temperature of the attention. Scores are divided by it.

    Returns
    -------
    kernel : ndarray of shape (n_X, n_Y), or float for two single rows
        Weights in [0, 1).

    Raises
    ------
    ValueError
        If `temperature` is not positive, or `X` and `Y` are not finite or differ in columns.

    See Also
    --------
    ExpressiveKernel : Features instead of the matrix.
    sklearn.metrics.pairwise.polynomial_kernel : The squared score with ``degree=2, coef0=0``, positive definite.

    Notes
    -----
    The matrix is symmetric but **not positive definite**. Its negative eigenvalues are a large share of the spectrum,
    unless all `z` are small, where it approaches ``z^2``, which has none. The consequences are:

    - A support vector machine has no unique optimum. libsvm ends at a stationary point, which may classify well, but
      another start or order of samples may end at another one, and its margin has no meaning.
    - Kernel ridge regression needs an `alpha` well above minus the smallest eigenvalue. Below that its system is
      indefinite, and near an eigenvalue predictions explode, without an error and at most with a warning.
    - Methods that compute a Cholesky factor or a square root, like Gaussian processes and kernel PCA, fail or drop
      directions.

    To avoid this, use ``polynomial_kernel(X, Y, degree=2, coef0=0)`` of scikit-learn, which is ``z^2`` up to a factor,
    or the features of :class:`ExpressiveKernel`, which suit any model. KernelRidge calls a function for one pair of
    dense rows at a time; ``kernel="precomputed"`` is much faster and accepts sparse rows.

    References
    ----------
    .. [1] C. Gros, "Reorganizing attention-space geometry with expressive attention", arXiv:2407.18601.

    Examples
    --------
    >>> from sklearn_attnembed import expressive_kernel
    >>> expressive_kernel([[1.0, 0.0]], [[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0]])
    array([[0.9, 0.9, 0. ]])
    """
    if not (isinstance(temperature, Real) and temperature > 0):
        raise ValueError(f"temperature must be > 0; got {temperature!r}. Pass 1.0 to leave scores as they are.")
    X = X if sp.issparse(X) else check_array(X, ensure_2d=False, allow_nd=True, input_name="X")
    is_pair = not sp.issparse(X) and X.ndim == 1
    if is_pair:  # KernelRidge calls it with single rows
        X, Y = np.atleast_2d(X), np.atleast_2d(X if Y is None else Y)
    X, Y = check_pairwise_arrays(canonical(X), canonical(Y, "Y"))
    kernel = expressive(bounded_scores(X, Y, temperature))
    return float(kernel[0, 0]) if is_pair else kernel
