"""Affinities from graphs and tables, with labels of any kind."""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from .._core.affinity_matrix import row_stochastic
from .._sklearn import Interval, check_array, validate_params
from .._sparse import canonical, compact
from .._typing import Float64, Graph, Integers, Labels, MatrixLike, Table


class Bipartite(NamedTuple):
    """Table of counts with the labels of its rows and columns, the result of :func:`bipartite`.

    Parameters
    ----------
    affinity : csr_array of shape (n_rows, n_columns)
        Counts, for ``AttentionEmbedding(affinity="bipartite")``.
    rows, columns : ndarray of shape (n_rows,) and (n_columns,)
        Labels of the rows and of the columns, in order.

    See Also
    --------
    bipartite : Read counts from a long table.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_attnembed.affinity import bipartite
    >>> counts = bipartite(pd.DataFrame({"user": ["Ann", "Bob"], "item": ["blues", "rock"]}))
    >>> counts.rows.tolist(), counts.columns.tolist(), counts.affinity.shape
    (['Ann', 'Bob'], ['blues', 'rock'], (2, 2))
    """

    affinity: sp.csr_array
    rows: NDArray[Any]
    columns: NDArray[Any]


@overload
def random_walk(
    adjacency: MatrixLike | Table | Graph,
    *,
    teleport: float = ...,
    directed: bool = ...,
    weight: str | None = ...,
    nodes: Labels | None = ...,
    return_nodes: Literal[False] = ...,
) -> sp.csr_array: ...
@overload
def random_walk(
    adjacency: MatrixLike | Table | Graph,
    *,
    teleport: float = ...,
    directed: bool = ...,
    weight: str | None = ...,
    nodes: Labels | None = ...,
    return_nodes: Literal[True],
) -> tuple[sp.csr_array, NDArray[Any]]: ...
@validate_params(
    {
        "adjacency": "no_validation",
        "teleport": [Interval(Real, 0, 1, closed="left")],
        "directed": ["boolean"],
        "weight": [str, None],
        "nodes": ["array-like", None],
        "return_nodes": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def random_walk(
    adjacency: MatrixLike | Table | Graph,
    *,
    teleport: float = 0.0,
    directed: bool = False,
    weight: str | None = "weight",
    nodes: Labels | None = None,
    return_nodes: bool = False,
) -> sp.csr_array | tuple[sp.csr_array, NDArray[Any]]:
    """Compute the transition probabilities of the random walk on a graph.

    Parameters
    ----------
    adjacency : sparse matrix, ndarray, pandas DataFrame of edges or NetworkX graph
        Graph, in one of these forms:

        - a matrix of shape (n, n) of non-negative weights, whose entry (i, j) is the weight of the edge from i to j;
        - a table with one edge per row, whose first two columns hold the labels of the ends, of any hashable type.
          The weights of repeated edges are added;
        - a NetworkX graph of any type.

        The input is not changed.
    teleport : float in [0, 1), default=0
        Probability of staying at the node, as in a random walk with restart. With ``teleport > 0``, a node without
        outgoing edges stays where it is with probability 1 instead of being isolated.
    directed : bool, default=False
        Whether the edges of a table lead from the first column to the second only. Matrices and NetworkX graphs are
        directed or not by themselves, and the parameter is ignored.
    weight : str or None, default="weight"
        Column of the table, or attribute of the NetworkX edges, that holds the weights. All weights are 1 if it is
        None, or if it is the default and there is none of that name.
    nodes : array-like of labels or None, default=None
        Labels of all nodes, including those without edges, in the order of the rows of the result. If None, the nodes
        of a table are in order of first appearance.
    return_nodes : bool, default=False
        Whether to return the labels of the rows as well.

    Returns
    -------
    P : csr_array of shape (n, n)
        Transition probabilities. Rows sum to one, or to zero for nodes without outgoing edges if `teleport` is 0. They
        are float32 if a float32 matrix is passed, and float64 otherwise.
    nodes : ndarray of shape (n,)
        Labels of the rows, if `return_nodes`.

    Raises
    ------
    ValueError
        If weights are negative or not finite, if the label of an end is missing, or if `nodes` lacks or repeats a
        label.

    See Also
    --------
    bipartite : Read tables whose two columns are labels of different kinds.
    temporal : Compute transition probabilities from contacts in time.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_attnembed.affinity import random_walk
    >>> random_walk([[0, 3, 1], [1, 0, 0], [0, 0, 0]]).toarray()
    array([[0.  , 0.75, 0.25],
           [1.  , 0.  , 0.  ],
           [0.  , 0.  , 0.  ]])
    >>> edges = pd.DataFrame({"from": ["Ann", "Ann"], "to": ["Bob", 7], "weight": [3, 1]})
    >>> P, nodes = random_walk(edges, return_nodes=True)
    >>> nodes.tolist(), P.toarray()[0].tolist()
    (['Ann', 'Bob', 7], [0.0, 0.75, 0.25])
    """
    if hasattr(adjacency, "is_multigraph"):
        A, labels = _of_networkx(adjacency, weight, nodes)
    elif _is_frame(adjacency):
        A, labels = _of_edges(adjacency, weight, nodes, directed)
    else:
        A, labels = adjacency, nodes
        if not (sp.issparse(A) or isinstance(A, np.ndarray | list | tuple)):
            raise ValueError(
                "adjacency must be a matrix, dense or sparse, a pandas DataFrame of edges or a NetworkX graph, but is "
                f"of type {type(A).__name__}. Convert it to one of these."
            )
    A = canonical(A, "adjacency")
    A = check_array(
        A, accept_sparse="csr", dtype=[np.float64, np.float32], ensure_min_samples=0, ensure_min_features=0,
        input_name="adjacency",
    )  # fmt: skip
    _check_weights(A.data if sp.issparse(A) else A, "adjacency")
    n = A.shape[0]
    if A.shape[1] != n:
        raise ValueError(
            f"adjacency must be square, nodes by nodes, but its shape is {A.shape}. Embed a table of counts as it is, "
            "by AttentionEmbedding(affinity='bipartite')."
        )
    labels = np.arange(n) if labels is None else _as_labels(labels)
    if len(labels) != n:
        raise ValueError(f"nodes has {len(labels)} labels, but adjacency has {n} rows. Pass one label for each row.")
    _codes(labels[:0], labels, "nodes")
    P, isolated = row_stochastic(sp.csr_array(A), A.dtype)
    if teleport:
        P = (1 - teleport) * P + sp.diags_array(np.where(isolated, 1, teleport).astype(P.dtype))
    P = compact(P)
    return (P, labels) if return_nodes else P


@validate_params(
    {"table": "no_validation", "weight": [str, None], "rows": ["array-like", None], "columns": ["array-like", None]},
    prefer_skip_nested_validation=True,
)
def bipartite(
    table: Table, *, weight: str | None = "weight", rows: Labels | None = None, columns: Labels | None = None
) -> Bipartite:
    """Read counts, such as users by items or documents by words, from a long table.

    The counts can be embedded by ``AttentionEmbedding(affinity="bipartite")``. A wide table, with a row for each user
    and a column for each item, needs no conversion: pass it as a DataFrame, array or sparse matrix.

    Parameters
    ----------
    table : pandas DataFrame
        Table with a row for each pair. Its first two columns hold the labels of row and column, of any hashable type.
        The weights of repeated pairs are added.
    weight : str or None, default="weight"
        Column that holds the weights of the pairs. All weights are 1 if it is None, or if it is the default and there
        is no such column.
    rows, columns : array-like of labels or None, default=None
        Labels of the rows and columns of the result, in order. If None, they are in order of first appearance. Pairs
        with other labels are dropped; this way the counts of new users get the columns that a model was fitted on.

    Returns
    -------
    result : Bipartite
        Named tuple of `affinity` (csr_array) and the labels `rows` and `columns`.

    Raises
    ------
    ValueError
        If weights are negative or not finite, if a label is missing, or if `rows` or `columns` repeats a label.

    See Also
    --------
    random_walk : Read tables of edges between nodes of one kind.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_attnembed.affinity import bipartite
    >>> plays = pd.DataFrame({"user": ["Ann", "Bob", "Ann"], "item": ["blues", "rock", "rock"], "weight": [5, 2, 1]})
    >>> counts, users, items = bipartite(plays)
    >>> counts.toarray().tolist(), users.tolist(), items.tolist()
    ([[5.0, 1.0], [0.0, 2.0]], ['Ann', 'Bob'], ['blues', 'rock'])
    """
    first, second, weights = _columns(table, weight, "table")
    i, row_labels = _codes(first, rows, "rows", keep_unknown=False)
    j, column_labels = _codes(second, columns, "columns", keep_unknown=False)
    known = (i >= 0) & (j >= 0)
    shape = (len(row_labels), len(column_labels))
    counts = sp.coo_array((weights[known], (i[known], j[known])), shape=shape).tocsr()
    return Bipartite(compact(counts), row_labels, column_labels)


# Readers ---------------------------------------------------------------------------------------------
def _of_networkx(graph: Any, weight: str | None, nodes: Any) -> tuple[sp.csr_array, list[Any]]:
    """Return adjacency matrix and labels of a NetworkX graph."""
    import networkx

    labels = list(graph) if nodes is None else list(nodes)
    _codes(np.zeros(0, object), labels, "nodes")
    missing = set(graph).symmetric_difference(labels)
    if missing:
        raise ValueError(
            f"nodes must be those of the graph, but {next(iter(missing))!r} is in one of the two alone. Name each "
            "node of the graph once."
        )
    if not labels:
        return sp.csr_array((0, 0)), labels
    return networkx.to_scipy_sparse_array(graph, nodelist=labels, weight=weight, dtype=np.float64), labels


def _of_edges(table: Any, weight: str | None, nodes: Any, directed: bool) -> tuple[sp.csr_array, NDArray[Any]]:
    """Return adjacency matrix and labels of a table of edges."""
    first, second, weights = _columns(table, weight, "adjacency")
    ends = np.empty((len(first), 2), object)
    ends[:, 0], ends[:, 1] = first, second
    codes, labels = _codes(ends.ravel(), nodes, "nodes")
    i, j = codes.reshape(-1, 2).T
    if not directed:
        proper = i != j  # a self-loop is counted once
        i, j, weights = (
            np.concatenate([i, j[proper]]),
            np.concatenate([j, i[proper]]),
            np.concatenate([weights, weights[proper]]),
        )
    return sp.coo_array((weights, (i, j)), shape=(len(labels),) * 2).tocsr(), labels


def _is_frame(table: object) -> bool:
    return hasattr(table, "columns") and hasattr(table, "iloc")


def _columns(table: Any, weight: str | None, name: str) -> tuple[NDArray[Any], NDArray[Any], Float64]:
    """Return the first and second column, and the weights, of a DataFrame."""
    if not _is_frame(table):
        raise ValueError(
            f"{name} must be a pandas DataFrame, a row for each pair, but is of type {type(table).__name__}. Convert "
            "it; a matrix of counts can be embedded as it is."
        )
    if table.shape[1] < 2:
        raise ValueError(
            f"{name} needs two columns, one for each end, but has {table.shape[1]}: {list(table.columns)}. Add the "
            "other end, or reset_index() if it is the index."
        )
    if table.shape[0] in (2, 3) and table.shape[1] > 4 and list(table.columns) == list(range(table.shape[1])):
        raise ValueError(
            f"{name} must have a row for each pair, but has {table.shape[0]} rows and {table.shape[1]} columns without "
            f"names: it is probably transposed. Pass {name}.T."
        )
    if weight in list(table.columns[:2]):
        raise ValueError(
            f"weight={weight!r} is one of the first two columns of {name}, which are labels. Reorder them."
        )
    weights = read_weights(table, weight, name)
    return table.iloc[:, 0].to_numpy(object), table.iloc[:, 1].to_numpy(object), weights


def read_weights(table: Any, weight: str | None, name: str) -> Float64:
    """Return the validated weights of the rows of a DataFrame; ones if it has no such column."""
    if weight not in table.columns:
        if weight not in ("weight", None):
            raise ValueError(
                f"weight={weight!r} must be a column of {name}, which has {list(table.columns)}. Pass one of these, or "
                "None for equal weights."
            )
        return np.ones(len(table))
    weights = np.asarray(table[weight], np.float64)
    _check_weights(weights, f"{name}[{weight!r}]")
    return weights


def _check_weights(weights: Any, name: str) -> None:
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        raise ValueError(
            f"{name} must hold finite weights >= 0, but holds {weights[bad][0]}. Clip or drop such entries. "
            "Edges of either sign are two relations, for concatenate_affinities."
        )


def _as_labels(labels: Any) -> NDArray[Any]:
    """Return labels as a one-dimensional array, of objects if their types differ."""
    array = np.asarray(labels) if not isinstance(labels, list) or len({type(x) for x in labels}) == 1 else None
    if array is not None and array.ndim == 1:
        return array
    array = np.empty(len(labels), object)
    array[:] = labels
    return array


def _codes(labels: Any, known: Any, name: str, keep_unknown: bool = True) -> tuple[Integers, NDArray[Any]]:
    """Number labels by their place among known labels, or by first appearance; return numbers and distinct labels.

    Unknown labels raise an error or, unless `keep_unknown`, get the number -1.
    """
    numbers: dict[Any, int] = {}
    _refuse_missing(labels, name)
    if known is not None:
        _refuse_missing(known, name)
    for label in labels if known is None else known:
        if known is not None and label in numbers:
            raise ValueError(f"{name} must name each label once, but has {label!r} twice. Drop one of the two.")
        numbers.setdefault(label, len(numbers))
    codes = np.fromiter((numbers.get(label, -1) for label in labels), np.intp, len(labels))
    if keep_unknown and (codes < 0).any():
        raise ValueError(
            f"{name} must name every node, but lacks {labels[np.argmax(codes < 0)]!r}. Add it, or drop its edges."
        )
    return codes, _as_labels(list(numbers))


def _refuse_missing(labels: Any, name: str) -> None:
    """Raise an error if a label is missing or not hashable."""
    for label in labels:
        try:
            hash(label)
            is_missing = label is None or bool(label != label)  # noqa: PLR0124 (NaN)
        except TypeError as error:
            if "hash" in str(error):
                raise ValueError(f"{name}: labels must be hashable, but one is {label!r}. Make it a string.") from error
            is_missing = True  # pandas.NA
        if is_missing:
            raise ValueError(f"{name}: a label is missing ({label!r}). Drop or fill such rows.")
