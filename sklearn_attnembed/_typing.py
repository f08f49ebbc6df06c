"""Type aliases that recur in signatures."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator

# Vectors, or arrays computed from them, in float32 or float64.
Vectors: TypeAlias = NDArray[np.floating]
# Results in float64, whatever the dtype of the input.
Float64: TypeAlias = NDArray[np.float64]
# Labels and indices.
Integers: TypeAlias = NDArray[np.integer]
# Dense or sparse matrix.
MatrixLike: TypeAlias = ArrayLike | sp.sparray | sp.spmatrix
# Sparse matrix or array of SciPy, in any format.
SparseMatrix: TypeAlias = sp.sparray | sp.spmatrix
# Input of AttentionEmbedding: features, counts, affinities or distances, depending on `affinity`.
Relations: TypeAlias = MatrixLike | LinearOperator
# Source of affinities, by the name it has in affinity/_sources.py or as a function.
Affinity: TypeAlias = (
    Literal["nearest_neighbors", "precomputed", "precomputed_nearest_neighbors", "bipartite"]
    | Callable[[Any, Any], Any]
)
# Dependence of nearest-neighbor affinities on distance.
Weighting: TypeAlias = Literal["perplexity", "self_tuning", "biweight", "uniform"]
# Seed of a random number generator.
RandomState: TypeAlias = int | np.random.RandomState | None
# Non-negative function of scores that works element by element.
ScoreFunction: TypeAlias = Callable[[Vectors], Vectors]
# Attention kernel, by name or as a function of scores.
KernelName: TypeAlias = str
KernelLike: TypeAlias = KernelName | ScoreFunction
# Labels of rows or columns, in their order.
Labels: TypeAlias = ArrayLike | Sequence[Hashable]
# Texts, or sequences of words.
Documents: TypeAlias = Iterable[str | Iterable[Hashable]]
# Splitting of a text into words, by name or as a function.
Analyzer: TypeAlias = Literal["word", "char", "char_wb"] | Callable[[Any], Iterable[Hashable]]


class Table(Protocol):
    """A pandas DataFrame, or an object with the same attributes."""

    @property
    def columns(self) -> Any: ...
    @property
    def iloc(self) -> Any: ...


class Graph(Protocol):
    """A NetworkX graph of any kind."""

    def is_multigraph(self) -> bool: ...
