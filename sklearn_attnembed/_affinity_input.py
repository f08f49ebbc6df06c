"""What is given to AttentionEmbedding, validated and turned into affinities."""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator
from sklearn.neighbors import NearestNeighbors

from ._core import affinity_matrix
from ._core.parallel import n_threads
from ._core.sampling import rounded
from ._mistakes import given_as_affinities, given_as_points
from ._sklearn import check_array, validate_data, warn
from ._sparse import canonical
from ._typing import Float64, Vectors, Weighting
from .affinity import local_scale, neighbor_affinity
from .affinity._neighbors import pair_distances
from .affinity._relations import _is_frame

PAIRWISE = ("precomputed", "precomputed_nearest_neighbors")
NEIGHBORS = ("nearest_neighbors", "precomputed_nearest_neighbors")


class Fitted(NamedTuple):
    """The parameters that a model was fitted with and that its methods depend on: `set_params` does not reach them."""

    affinity: Any
    kernel: str
    temperature: float
    walk_length: int


class AffinityInput:
    """The part of AttentionEmbedding that knows what `affinity` and `kernel` ask of X."""

    affinity: Any
    kernel: str
    temperature: float
    walk_length: int
    _fitted: Fitted
    metric: Any
    weighting: Weighting
    n_neighbors: int
    n_jobs: int | None
    key_embedding_: Vectors
    n_features_in_: int
    _key_scale: Float64 | None

    def _training_affinities(self, X: Any) -> tuple[Any, Any]:
        """Validate `X` and turn it into affinities, not yet divided by row sums, and the embedding's dtype."""
        _check_kind(X)
        self._check_operator(X)
        if self.affinity in PAIRWISE:
            _check_labels(X)
        if self.affinity == "precomputed" and isinstance(X, LinearOperator):
            self.n_features_in_ = X.shape[1]
            A, dtype = X, np.float32 if X.dtype == np.float32 else np.float64
        else:
            given, X = X, canonical(X)
            A = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32], ensure_min_samples=2)
            dtype = A.dtype
        if self.affinity in PAIRWISE and A.shape[0] != A.shape[1]:
            raise ValueError(
                f"affinity={self.affinity!r} needs a square matrix of samples by samples, but X has shape {A.shape}. "
                "For points use affinity='nearest_neighbors', for counts affinity='bipartite'."
            )
        if self.affinity == "nearest_neighbors":
            _check_size(A)
            self._neighbors = NearestNeighbors(metric=self.metric, n_jobs=n_threads(self.n_jobs)).fit(A)
        if self.affinity == "nearest_neighbors" or callable(self.affinity):
            self._points = A
        if self.affinity in NEIGHBORS:
            self._weighting, self._key_scale = self.weighting, None
            self._n_neighbors = min(self.n_neighbors, A.shape[0] - 1)
            if self._n_neighbors < self.n_neighbors:
                warn(
                    f"n_neighbors={self.n_neighbors} is more than n_samples - 1 = {self._n_neighbors}, which is "
                    f"taken instead. Set n_neighbors to {self._n_neighbors} or less."
                )
        affinities = self._affinities(A)
        mistake = None  # where X is probably not what affinity says
        if self.affinity == "nearest_neighbors" and self.metric != "precomputed":
            mistake = given_as_points(A)
        elif callable(self.affinity):
            mistake = given_as_affinities(affinities, self.affinity)
        elif self.affinity == "precomputed" and not isinstance(A, LinearOperator):
            raw = given if sp.issparse(given) else A  # the order of entries tells
            mistake = given_as_affinities(raw, self.affinity)
        if mistake is not None:
            warn(mistake)
        return affinities, dtype

    def _query_affinities(self, X: Any) -> tuple[Any, NDArray[np.bool_]]:
        """Validate `X` and turn it into row-stochastic affinities to the fitted keys."""
        self._check_operator(X)
        if isinstance(X, LinearOperator) and self._fitted.affinity == "precomputed":
            if X.shape[1] != self.n_features_in_:
                raise ValueError(
                    f"X has {X.shape[1]} columns, but AttentionEmbedding is expecting {self.n_features_in_}: pass "
                    "affinities to each sample seen in fit."
                )
        else:
            try:
                X = validate_data(self, canonical(X), accept_sparse="csr", dtype=[np.float64, np.float32], reset=False)
            except ValueError as error:
                shape: Any = getattr(X, "shape", ())
                if len(shape) == 2 and shape[0] == self.n_features_in_ != shape[1]:
                    raise ValueError(
                        f"{error} X has {shape[0]} rows, so it is probably transposed: pass X.T."
                    ) from error
                raise
        if self._fitted.affinity == "nearest_neighbors":
            _check_size(X)
        return self._stochastic(self._affinities(X), self.key_embedding_.dtype)

    def _stochastic(self, A: Any, dtype: Any) -> tuple[Any, NDArray[np.bool_]]:
        """Affinities divided by their row sums, and which rows have none.

        Rounded for the expressive kernel, whose search is chaotic: the same relations, however they are written, must
        give the same bits.
        """
        P, isolated = affinity_matrix.row_stochastic(A, dtype)
        if self._fitted.kernel == "softmax":
            return P, isolated
        exact = sp.csr_array(P)
        exact.data = rounded(exact.data)
        exact, isolated = affinity_matrix.row_stochastic(exact, dtype)
        return exact if sp.issparse(P) else exact.toarray(), isolated

    def _affinities(self, X: Any) -> Any:
        """Affinities of the rows of validated `X` to the keys."""
        if isinstance(X, LinearOperator):
            total = np.asarray(X @ np.ones(X.shape[1]))
            if not np.all(total >= 0) or not np.all(np.isfinite(total)):
                raise ValueError(
                    "X, an operator with affinity='precomputed', needs finite row sums >= 0, but its product with ones "
                    f"ranges from {total.min():.4g} to {total.max():.4g}. Pass non-negative weights."
                )
            return X
        affinity = self._fitted.affinity
        if affinity == "nearest_neighbors":
            with np.errstate(over="ignore"):  # squares of float32, farther than any neighbor
                distances, indices = self._neighbors.kneighbors(X, n_neighbors=self._n_neighbors + 1)
            if self._neighbors.effective_metric_ == "euclidean":  # scikit-learn's are rounded as the batch has it
                distances = pair_distances(X, self._points, indices)
            pointers = np.arange(len(indices) + 1) * indices.shape[1]
            shape = (len(indices), self._neighbors.n_samples_fit_)
            return self._weigh(sp.csr_array((distances.ravel(), indices.ravel(), pointers), shape))
        if callable(affinity):
            A = canonical(affinity(X, self._points), "affinity(X, Y)")
            A = check_array(A, accept_sparse="csr", dtype=[np.float64, np.float32])
            expected = (X.shape[0], self._points.shape[0])
            if A.shape != expected:
                raise ValueError(
                    f"affinity(X, Y) must return shape {expected}, one row for each of X; got {A.shape}. "
                    "Return a number for every pair of X and Y."
                )
            X = A
        lowest = (X.data if sp.issparse(X) else X).min(initial=0)  # a sparse matrix's own min() sorts it in place
        if lowest < 0:
            raise ValueError(
                f"Negative values in data passed to {type(self).__name__} with affinity={affinity!r}: the "
                f"smallest is {lowest:.4g}, but it takes weights >= 0 only. Clip them, or use "
                "affinity='nearest_neighbors' for features."
            )
        if affinity != "precomputed_nearest_neighbors":
            return X
        if not sp.issparse(X):  # every distance explicit, zeros too
            X = sp.csr_array(
                (X.ravel(), np.tile(np.arange(X.shape[1]), len(X)), np.arange(len(X) + 1) * X.shape[1]), X.shape
            )
        return self._weigh(X)

    def _weigh(self, distances: Any) -> Any:
        """Weights of nearest neighbours; in fit, where these are each other's, their local scales are learned."""
        if self._weighting == "self_tuning" and self._key_scale is None:
            self._key_scale = local_scale(distances)
        return neighbor_affinity(distances, self._n_neighbors, weighting=self._weighting, key_scale=self._key_scale)

    def _check_kernel(self) -> None:
        """Refuse the parameters that the expressive kernel does not go with."""
        if self.kernel == "softmax":
            return
        needed: dict[str, list[Any]] = {
            "walk_length": [1],
            "null_model": ["uniform", 0],
            "normalizer": ["gaussian"],
            "solver": ["accelerated"],
        }
        for name, values in needed.items():
            given = getattr(self, name)
            if np.ndim(given) > 0 or given not in values:
                raise ValueError(
                    f"kernel='expressive' needs {name}={values[0]!r}, but it is {given!r}: scores enter one by one, "
                    "and their sign is free. Set it back, or use kernel='softmax'."
                )

    def _check_operator(self, X: Any) -> None:
        """Refuse a LinearOperator for the expressive kernel."""
        if self._fitted.kernel != "softmax" and isinstance(X, LinearOperator):
            raise ValueError(
                "kernel='expressive' looks at affinities one by one, but X is a LinearOperator, which has products "
                "only. Pass a sparse matrix, or use kernel='softmax'."
            )


def _check_size(X: Any) -> None:
    """Squares of distances have to be finite."""
    largest = np.abs(X.data if sp.issparse(X) else X).max(initial=0)
    if largest > np.sqrt(np.finfo(np.float64).max / X.shape[1]) / 2:
        raise ValueError(
            f"X must have finite distances between its rows, but holds numbers of size {largest:.4g}, whose squares "
            "overflow. Divide X by its largest number, or standardize it."
        )


def _check_kind(X: Any) -> None:
    """A NetworkX graph is no matrix."""
    if hasattr(X, "is_multigraph"):
        raise TypeError(
            f"X must be a matrix, but is a {type(X).__name__} of NetworkX. Pass affinity.random_walk(X), with "
            "affinity='precomputed'."
        )


def _check_labels(X: Any) -> None:
    """Rows and columns of a DataFrame of relations have to be the same samples in the same order."""
    if not _is_frame(X) or len(X.index) != len(X.columns):
        return
    rows, columns = list(X.index), list(X.columns)
    if rows != columns and set(rows) == set(columns):
        where = next(i for i, (row, column) in enumerate(zip(rows, columns, strict=True)) if row != column)
        raise ValueError(
            f"X must have rows and columns in the same order, but row {where} is {rows[where]!r} and column {where} "
            f"{columns[where]!r}. Pass X[X.index]."
        )
