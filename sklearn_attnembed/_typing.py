"""Types that recur in signatures."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator

# Vectors, or what is made of them, in float32 or float64.
Vectors: TypeAlias = NDArray[np.floating]
# Numbers in float64, whatever the input.
Float64: TypeAlias = NDArray[np.float64]
# Labels and places.
Integers: TypeAlias = NDArray[np.integer]
# A dense or sparse matrix.
MatrixLike: TypeAlias = ArrayLike | sp.sparray | sp.spmatrix
# A sparse matrix or array of scipy, of any format.
SparseMatrix: TypeAlias = sp.sparray | sp.spmatrix
# Features, counts, affinities or distances, as `affinity` says.
Relations: TypeAlias = MatrixLike | LinearOperator
# Where affinities come from.
Affinity: TypeAlias = (
    Literal["nearest_neighbors", "precomputed", "precomputed_nearest_neighbors", "bipartite"]
    | Callable[[Any, Any], Any]
)
# How those of neighbours depend on distance.
Weighting: TypeAlias = Literal["perplexity", "self_tuning", "biweight", "uniform"]
# A seed.
RandomState: TypeAlias = int | np.random.RandomState | None
# A non-negative function of scores, elementwise.
ScoreFunction: TypeAlias = Callable[[Vectors], Vectors]
# An attention kernel, by name or as a function of scores.
KernelName: TypeAlias = Literal["softmax", "squared", "expressive"]
KernelLike: TypeAlias = KernelName | ScoreFunction
# Labels, in order.
Labels: TypeAlias = ArrayLike | Sequence[Hashable]
# Texts, or their words.
Documents: TypeAlias = Iterable[str | Iterable[Hashable]]
# How a text becomes words.
Analyzer: TypeAlias = Literal["word", "char", "char_wb"] | Callable[[Any], Iterable[Hashable]]


class Table(Protocol):
    """A pandas DataFrame, or what looks like one."""

    @property
    def columns(self) -> Any: ...
    @property
    def iloc(self) -> Any: ...


class Graph(Protocol):
    """A NetworkX graph of any kind."""

    def is_multigraph(self) -> bool: ...
