"""Sources of affinities: what AttentionEmbedding can be fitted on, a class for each value of `affinity`."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator
from sklearn.neighbors import NearestNeighbors

from .._core.parallel import n_threads
from .._mistakes import given_as_affinities, given_as_points
from .._sklearn import check_array, warn
from .._sparse import canonical
from .._typing import Float64, Weighting
from ._neighbors import local_scale, neighbor_affinity, pair_distances
from ._relations import _is_frame


class Settings(NamedTuple):
    """Parameters of the estimator that sources of affinities depend on."""

    affinity: Any
    n_neighbors: int
    weighting: Weighting
    metric: Any
    n_jobs: int | None


class Source(ABC):
    """A source of affinities, with all that it has to keep of the training samples to relate queries to them.

    Attributes
    ----------
    affinity : str or callable
        The value of the estimator's parameter that chooses this source.
    is_pairwise : bool
        Whether `X` relates samples to samples.
    is_graph : bool
        Whether `X` holds the affinities themselves.
    is_nonnegative : bool
        Whether negative entries of `X` are refused.
    is_symmetrized : bool
        Whether the training affinities are averaged with their transpose.
    embeds_columns : bool
        Whether the columns of `X` are the keys, and get vectors of their own.
    takes_operators : bool
        Whether `X` may be a LinearOperator.
    """

    affinity: Any
    is_pairwise: ClassVar[bool] = False
    is_graph: ClassVar[bool] = False
    is_nonnegative: ClassVar[bool] = False
    is_symmetrized: ClassVar[bool] = False
    embeds_columns: ClassVar[bool] = False
    takes_operators: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def fit(cls, X: Any, settings: Settings, given: Any) -> tuple[Self, Any]:
        """Return the source fitted to validated `X`, and the affinities of the training samples, not normalized.

        `given` is `X` before validation, which has put the entries of sparse rows in order.
        """

    @abstractmethod
    def query(self, X: Any) -> Any:
        """Return the affinities of the rows of validated `X` to the keys, not normalized."""

    @classmethod
    def has_named_keys(cls) -> bool:
        """Return whether the names of the columns are names of the keys."""
        return cls.is_pairwise or cls.embeds_columns

    @classmethod
    def check_input(cls, X: Any) -> None:
        """Raise an error for what cannot be told any more once `X` is validated."""
        if hasattr(X, "is_multigraph"):
            raise TypeError(
                f"X must be a matrix, but is a {type(X).__name__} of NetworkX. Pass affinity.random_walk(X), with "
                "affinity='precomputed'."
            )
        if cls.is_pairwise:
            _check_labels(X)


@dataclass(frozen=True, eq=False)
class Precomputed(Source):
    """Affinities of samples by samples, which are used as they are."""

    affinity = "precomputed"
    is_pairwise = is_graph = is_nonnegative = takes_operators = True

    @classmethod
    def fit(cls, X: Any, settings: Settings, given: Any) -> tuple[Self, Any]:
        _check_square(X, cls.affinity)
        source = cls()
        affinities = source.query(X)
        if not isinstance(X, LinearOperator):
            _warn_of(given_as_affinities(given if sp.issparse(given) else X, cls.affinity))
        return source, affinities

    def query(self, X: Any) -> Any:
        if isinstance(X, LinearOperator):
            _check_row_sums(X)
        else:
            _check_nonnegative(X, self.affinity)
        return X


@dataclass(frozen=True, eq=False)
class Bipartite(Source):
    """A table of counts of rows by columns, both of which are embedded."""

    affinity = "bipartite"
    is_nonnegative = embeds_columns = True

    @classmethod
    def fit(cls, X: Any, settings: Settings, given: Any) -> tuple[Self, Any]:
        source = cls()
        return source, source.query(X)

    def query(self, X: Any) -> Any:
        _check_nonnegative(X, self.affinity)
        return X


@dataclass(frozen=True, eq=False)
class Function(Source):
    """A function of the user's, called with queries and training points."""

    affinity: Any
    points: Any

    @classmethod
    def fit(cls, X: Any, settings: Settings, given: Any) -> tuple[Self, Any]:
        source = cls(settings.affinity, X)
        affinities = source.query(X)
        _warn_of(given_as_affinities(affinities, source.affinity))
        return source, affinities

    def query(self, X: Any) -> Any:
        A = canonical(self.affinity(X, self.points), "affinity(X, Y)")
        A = check_array(A, accept_sparse="csr", dtype=[np.float64, np.float32])
        expected = (X.shape[0], self.points.shape[0])
        if A.shape != expected:
            raise ValueError(
                f"affinity(X, Y) must return shape {expected}, one row for each of X; got {A.shape}. "
                "Return a number for every pair of X and Y."
            )
        _check_nonnegative(A, self.affinity)
        return A


@dataclass(frozen=True, eq=False)
class _OfNeighbors(Source):
    """The part that sources of nearest neighbors share: weights that fall off with distance."""

    weighting: Weighting
    n_neighbors: int
    key_scale: Float64 | None
    is_symmetrized = True

    @abstractmethod
    def distances(self, X: Any) -> sp.csr_array:
        """Return the distances of the rows of `X` to near keys."""

    def query(self, X: Any) -> Any:
        return self._weights(self.distances(X))

    def _fit_weights(self, X: Any) -> tuple[Self, Any]:
        """Learn the local scales of the keys, where these are needed; return the source and the weights."""
        distances = self.distances(X)
        scaled = replace(self, key_scale=local_scale(distances)) if self.weighting == "self_tuning" else self
        return scaled, scaled._weights(distances)

    def _weights(self, distances: sp.csr_array) -> Any:
        return neighbor_affinity(distances, self.n_neighbors, weighting=self.weighting, key_scale=self.key_scale)


@dataclass(frozen=True, eq=False)
class NearestNeighborPoints(_OfNeighbors):
    """Points, whose nearest neighbors are searched for."""

    affinity = "nearest_neighbors"
    points: Any
    index: NearestNeighbors

    @classmethod
    def fit(cls, X: Any, settings: Settings, given: Any) -> tuple[Self, Any]:
        _check_size(X)
        index = neighbor_index(X, settings.metric, settings.n_jobs)
        n_neighbors = _clipped_n_neighbors(settings, X)
        source, affinities = cls(settings.weighting, n_neighbors, None, X, index)._fit_weights(X)
        if settings.metric != "precomputed":
            _warn_of(given_as_points(X))
        return source, affinities

    def query(self, X: Any) -> Any:
        _check_size(X)
        return super().query(X)

    def distances(self, X: Any) -> sp.csr_array:
        with np.errstate(over="ignore"):  # squares in float32 may overflow, but only those of points far away
            distances, indices = self.index.kneighbors(X, n_neighbors=self.n_neighbors + 1)
        if self.index.effective_metric_ == "euclidean":  # the last bits of scikit-learn's depend on the batch
            distances = pair_distances(X, self.points, indices)
        pointers = np.arange(len(indices) + 1) * indices.shape[1]
        shape = (len(indices), self.index.n_samples_fit_)
        return sp.csr_array((distances.ravel(), indices.ravel(), pointers), shape)


@dataclass(frozen=True, eq=False)
class NearestNeighborGraph(_OfNeighbors):
    """A graph of distances to nearest neighbors."""

    affinity = "precomputed_nearest_neighbors"
    is_pairwise = is_nonnegative = True

    @classmethod
    def fit(cls, X: Any, settings: Settings, given: Any) -> tuple[Self, Any]:
        _check_square(X, cls.affinity)
        return cls(settings.weighting, _clipped_n_neighbors(settings, X), None)._fit_weights(X)

    def distances(self, X: Any) -> sp.csr_array:
        _check_nonnegative(X, self.affinity)
        if sp.issparse(X):
            return X
        # Zeros are distances too, and have to be explicit.
        columns, pointers = np.tile(np.arange(X.shape[1]), len(X)), np.arange(len(X) + 1) * X.shape[1]
        return sp.csr_array((X.ravel(), columns, pointers), X.shape)


# Values of `affinity` that are names. Every other value is a function.
SOURCES: dict[str, type[Source]] = {
    source.affinity: source for source in (NearestNeighborPoints, Precomputed, NearestNeighborGraph, Bipartite)
}


def source_of(affinity: str | Callable[..., Any]) -> type[Source]:
    """Return the kind of source that a value of the parameter `affinity` chooses."""
    return SOURCES.get(affinity, Function) if isinstance(affinity, str) else Function


def neighbor_index(points: Any, metric: Any, n_jobs: int | None) -> NearestNeighbors:
    """Return the fitted search for nearest neighbors among some points."""
    return NearestNeighbors(metric=metric, n_jobs=n_threads(n_jobs)).fit(points)


def _clipped_n_neighbors(settings: Settings, X: Any) -> int:
    """Return the number of neighbors, at most that of the other samples."""
    n_neighbors = min(settings.n_neighbors, X.shape[0] - 1)
    if n_neighbors < settings.n_neighbors:
        warn(
            f"n_neighbors={settings.n_neighbors} is more than n_samples - 1 = {n_neighbors}, which is "
            f"taken instead. Set n_neighbors to {n_neighbors} or less."
        )
    return n_neighbors


def _warn_of(suspicion: str | None) -> None:
    """Warn of input that is probably not what `affinity` says."""
    if suspicion is not None:
        warn(suspicion)


def _check_square(X: Any, affinity: Any) -> None:
    if X.shape[0] != X.shape[1]:
        raise ValueError(
            f"affinity={affinity!r} needs a square matrix of samples by samples, but X has shape {X.shape}. "
            "For points use affinity='nearest_neighbors', for counts affinity='bipartite'."
        )


def _check_nonnegative(X: Any, affinity: Any) -> None:
    lowest = (X.data if sp.issparse(X) else X).min(initial=0)  # the min() of a sparse matrix sorts it in place
    if lowest < 0:
        raise ValueError(
            f"Negative values in data passed to AttentionEmbedding with affinity={affinity!r}: the "
            f"smallest is {lowest:.4g}, but it takes weights >= 0 only. Clip them, use "
            "affinity='nearest_neighbors' for features, or embed signed edges by affinity='bipartite' and "
            "concatenate_affinities([abs(X) + X, abs(X) - X])."
        )


def _check_row_sums(X: LinearOperator) -> None:
    total = np.asarray(X @ np.ones(X.shape[1]))
    if not np.all(total >= 0) or not np.all(np.isfinite(total)):
        raise ValueError(
            "X, an operator with affinity='precomputed', needs finite row sums >= 0, but its product with ones "
            f"ranges from {total.min():.4g} to {total.max():.4g}. Pass non-negative weights."
        )


def _check_size(X: Any) -> None:
    """Raise an error if squared distances between rows could overflow."""
    largest = np.abs(X.data if sp.issparse(X) else X).max(initial=0)
    if largest > np.sqrt(np.finfo(np.float64).max / X.shape[1]) / 2:
        raise ValueError(
            f"X must have finite distances between its rows, but holds numbers of size {largest:.4g}, whose squares "
            "overflow. Divide X by its largest number, or standardize it."
        )


def _check_labels(X: Any) -> None:
    """Raise an error if the rows and columns of a DataFrame are the same samples in another order."""
    if not _is_frame(X) or len(X.index) != len(X.columns):
        return
    rows, columns = list(X.index), list(X.columns)
    if rows != columns and set(rows) == set(columns):
        where = next(i for i, (row, column) in enumerate(zip(rows, columns, strict=True)) if row != column)
        raise ValueError(
            f"X must have rows and columns in the same order, but row {where} is {rows[where]!r} and column {where} "
            f"{columns[where]!r}. Pass X[X.index]."
        )
