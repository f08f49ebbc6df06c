"""Affinities between nodes at different times, from contacts in time."""

from __future__ import annotations

from datetime import timedelta
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from sklearn.preprocessing import normalize

from .._sklearn import Interval, StrOptions, check_array, validate_params
from .._sparse import compact
from .._typing import Float64, Integers, Labels, Table, Vectors
from ._relations import _check_weights, _codes, _is_frame, read_weights


class TemporalWalk(NamedTuple):
    """Walk between states, the result of :func:`temporal`.

    A state is a node in a time slice in which it has a contact.

    Parameters
    ----------
    affinity : csr_array of shape (n_states, n_states)
        Transition probabilities between states, for ``AttentionEmbedding(affinity="precomputed")``. Rows sum to one, or
        to zero for states without outgoing transitions, which occur with directed contacts.
    node : ndarray of int of shape (n_states,)
        Index of the node of each state in `nodes`. States are sorted by node, then by time.
    slice : ndarray of int of shape (n_states,)
        Index of the time slice of each state.
    nodes : ndarray of shape (n_nodes,)
        Labels of the nodes.
    start : float or datetime64
        Start of the first slice.
    width : float or timedelta64
        Length of a slice.
    n_slices : int
        Number of slices, including those without contacts.

    See Also
    --------
    temporal : Compute the walk from contacts.

    Examples
    --------
    >>> from sklearn_attnembed.affinity import temporal
    >>> walk = temporal([[0, 1, 2], [5, 2, 3]], n_slices=2)
    >>> walk.edges.tolist()
    [0.0, 2.5, 5.0]
    >>> walk.nodes[walk.node].tolist(), walk.slice.tolist()
    ([1, 2, 2, 3], [0, 0, 1, 1])
    """

    affinity: sp.csr_array
    node: Integers
    slice: Integers
    nodes: NDArray[Any]
    start: Any
    width: Any
    n_slices: int

    @property
    def edges(self) -> NDArray[Any]:
        """Boundaries of the slices, an ndarray of shape (n_slices + 1,)."""
        return self.start + np.arange(self.n_slices + 1) * self.width

    def by_node(self, embedding: ArrayLike) -> Vectors:
        """Compute one vector for each node, the mean over its states with equal weights.

        Parameters
        ----------
        embedding : array-like of shape (n_states, n_components)
            Vectors of the states.

        Returns
        -------
        vectors : ndarray of shape (n_nodes, n_components)
            Vectors in the order of `nodes`, zero for nodes without contacts.

        Raises
        ------
        ValueError
            If `embedding` does not have one row for each state.

        Examples
        --------
        >>> from sklearn_attnembed.affinity import temporal
        >>> walk = temporal([[0, 1, 2], [5, 2, 3]], n_slices=2)
        >>> walk.by_node([[1.0], [2.0], [4.0], [8.0]]).tolist()
        [[1.0], [3.0], [8.0]]
        """
        X = self._checked(embedding)
        member = sp.csc_array((np.ones(len(X), X.dtype), self.node, np.arange(len(X) + 1)), (len(self.nodes), len(X)))
        return np.asarray(normalize(member.tocsr(), "l1") @ X)

    def at(self, embedding: ArrayLike, slice: int) -> Vectors:
        """Compute one vector for each node at a time slice, that of its latest state up to then.

        Parameters
        ----------
        embedding : array-like of shape (n_states, n_components)
            Vectors of the states.
        slice : int
            Index of the slice, from 0 to ``n_slices - 1``.

        Returns
        -------
        vectors : ndarray of shape (n_nodes, n_components)
            Vectors in the order of `nodes`, zero for nodes without contacts up to then.

        Raises
        ------
        ValueError
            If `embedding` does not have one row for each state, or if there is no such slice.

        Examples
        --------
        >>> from sklearn_attnembed.affinity import temporal
        >>> walk = temporal([[0, 1, 2], [5, 2, 3]], n_slices=2)
        >>> walk.at([[1.0], [2.0], [4.0], [8.0]], slice=0).tolist()
        [[1.0], [2.0], [0.0]]
        """
        X = self._checked(embedding)
        if not (isinstance(slice, Integral) and 0 <= slice < self.n_slices):
            raise ValueError(
                f"slice must be from 0 to {self.n_slices - 1}, one of the slices there are; got {slice!r}. Look in "
                "edges for when each begins."
            )
        vectors = np.zeros((len(self.nodes), X.shape[1]), X.dtype)
        until = self.slice <= slice
        latest = until & ~np.append((self.node[1:] == self.node[:-1]) & until[1:], False)
        vectors[self.node[latest]] = X[latest]
        return vectors

    def _checked(self, embedding: ArrayLike) -> Vectors:
        X = check_array(embedding, dtype=[np.float64, np.float32], input_name="embedding")
        if len(X) != len(self.node):
            raise ValueError(
                f"embedding must have a row for each of the {len(self.node)} states; it has {len(X)}. Pass that of "
                "the affinity of this walk."
            )
        return X


@validate_params(
    {
        "contacts": "no_validation",
        "width": "no_validation",
        "n_slices": [Interval(Integral, 1, 2**53, closed="both"), None],
        "direction": [StrOptions({"both", "forward", "backward"})],
        "advance": [Interval(Real, 0, 1, closed="neither")],
        "directed": ["boolean"],
        "nodes": ["array-like", None],
    },
    prefer_skip_nested_validation=True,
)
def temporal(
    contacts: Table | ArrayLike,
    *,
    width: float | str | timedelta | np.timedelta64 | None = None,
    n_slices: int | None = None,
    direction: Literal["both", "forward", "backward"] = "both",
    advance: float = 0.5,
    directed: bool = False,
    nodes: Labels | None = None,
) -> TemporalWalk:
    """Compute the transition probabilities of the time-respecting walk on contacts in time.

    Time is divided into slices of equal length. The walk [1]_ goes from a node in a slice to a node that it has contact
    with in that slice or, with probability `advance`, to itself in the next slice in which it has any contact. It never
    goes back in time. From the last slice of a node all steps are contacts. An embedding of this walk distinguishes
    nodes that meet the same nodes at different times, which a graph of all contacts cannot.

    Parameters
    ----------
    contacts : pandas DataFrame or array-like of shape (n_contacts, 3 or 4)
        Table with a row for each contact. The columns of a DataFrame are those named "time", "i", "j" and, if it
        exists,
        "weight"; without these names, the first three columns in this order. The columns of an array are in this order,
        the weight being optional. Times are numbers or dates and need not be sorted; i and j are labels of any hashable
        type. Contacts of a node with itself are dropped.
    width : float, str, timedelta or None, default=None
        Length of a slice, in the unit of the times. For dates, a timedelta or a string that pandas converts to one,
        such as "20min".
    n_slices : int or None, default=None
        Number of slices. Exactly one of `width` and `n_slices` must be given.
    direction : {"both", "forward", "backward"}, default="both"
        Direction of the walk in time. "forward" is the time-respecting walk and "backward" the same with time reversed.
        "both" chooses one of them with equal probability at each step, so that vectors depend on the past and on the
        future.
    advance : float in (0, 1), default=0.5
        Probability of a step in time rather than to a contact.
    directed : bool, default=False
        Whether a contact leads from i to j only.
    nodes : array-like of labels or None, default=None
        Labels of all nodes, including those without contacts, in order. If None, they are in order of first appearance.

    Returns
    -------
    walk : TemporalWalk
        Named tuple of the `affinity` between states, the `node` and `slice` of each state, and the nodes and slices.
        Its methods convert vectors of states to vectors of nodes (:meth:`TemporalWalk.by_node`) and of nodes at a slice
        (:meth:`TemporalWalk.at`).

    Raises
    ------
    ValueError
        If times or weights are not finite, if neither or both of `width` and `n_slices` are given, or if no contact has
        two different nodes and a positive weight.

    See Also
    --------
    random_walk : Compute transition probabilities from edges without times.

    Notes
    -----
    States are the pairs of node and slice that occur, at most two for each contact, and the transition matrix is
    sparse. Memory is therefore linear in the number of contacts, however long the time. For walks of several steps use
    ``AttentionEmbedding(walk_length=...)``, which does not form powers of the matrix.

    References
    ----------
    .. [1] L. Dall'Amico, A. Barrat, C. Cattuto, "An embedding-based distance for temporal graphs", Nature
       Communications 2024, where nodes of a temporal graph are embedded by time-respecting walks.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_attnembed.affinity import temporal
    >>> contacts = pd.DataFrame({"time": [0, 5, 20], "i": ["Ann", "Bob", "Ann"], "j": ["Bob", "Cem", "Cem"]})
    >>> walk = temporal(contacts, width=10, direction="forward")
    >>> [(str(walk.nodes[i]), int(s)) for i, s in zip(walk.node, walk.slice)]
    [('Ann', 0), ('Ann', 2), ('Bob', 0), ('Cem', 0), ('Cem', 2)]
    >>> walk.affinity.toarray()[0].tolist()
    [0.0, 0.5, 0.5, 0.0, 0.0]
    """
    time, first, second, weights = _contacts(contacts)
    ends = np.empty((len(first), 2), object)
    ends[:, 0], ends[:, 1] = first, second
    codes, labels = _codes(ends.ravel(), nodes, "nodes")
    i, j = codes.reshape(-1, 2).T
    kept = (i != j) & (weights > 0)
    if not kept.any():
        raise ValueError(
            f"contacts must hold at least one of two different nodes and positive weight, but none of {len(kept)} rows "
            "is one. Check the columns i, j and weight."
        )
    start, width, n_slices, at = _slices(time[kept], width, n_slices)
    i, j, weights = i[kept], j[kept], weights[kept]

    occupied, at = np.unique(at, return_inverse=True)  # no more slices than contacts, however long the time
    states, place = np.unique(np.concatenate([i, j]) * len(occupied) + np.tile(at, 2), return_inverse=True)
    node, slot = states // len(occupied), occupied[states % len(occupied)]
    n = len(states)
    meets = sp.coo_array((weights, (place[: len(i)], place[len(i) :])), shape=(n, n)).tocsr()
    if not directed:
        meets = meets + meets.T
    meets = sp.csr_array(normalize(meets, "l1"))
    before = np.flatnonzero(node[1:] == node[:-1])
    following = sp.coo_array((np.ones(len(before)), (before, before + 1)), shape=(n, n)).tocsr()
    steps = {"forward": [following], "backward": [following.T], "both": [following, following.T]}[direction]
    walk = normalize(sum(_step(meets, on.tocsr(), advance) for on in steps), "l1")
    return TemporalWalk(compact(walk), node, slot, labels, start, width, n_slices)


def _step(meets: Any, on: Any, advance: float) -> Any:
    """Mix steps to contacts (`meets`) with steps in time (`on`); rows without one kind take all of the other."""
    can_meet, can_go = np.diff(meets.indptr) > 0, np.diff(on.indptr) > 0
    share = np.where(can_go, np.where(can_meet, advance, 1), 0)
    return sp.diags_array(1 - share) @ meets + sp.diags_array(share) @ on


def _contacts(contacts: Any) -> tuple[Any, NDArray[Any], NDArray[Any], Float64]:
    """Return times (as numbers or dates), labels of both ends, and weights."""
    if not _is_frame(contacts):
        table = np.asarray(contacts)
        if table.ndim != 2 or table.shape[1] not in (3, 4):
            raise ValueError(
                "contacts must be a DataFrame or an array of columns time, i, j and, if wanted, weight, but its shape "
                f"is {table.shape}. Pass a row for each contact."
            )
        time, first, second = table[:, 0], table[:, 1], table[:, 2]
        weights = np.asarray(table[:, 3], np.float64) if table.shape[1] == 4 else np.ones(len(table))
        _check_weights(weights, "contacts[:, 3]")
    else:
        columns = ["time", "i", "j"]
        if not set(columns) <= set(contacts.columns):
            if contacts.shape[1] < 3:
                raise ValueError(
                    f"contacts needs columns time, i and j, but has {list(contacts.columns)}. Add what is missing."
                )
            columns = list(contacts.columns[:3])
        time, first, second = (contacts[name].to_numpy() for name in columns)
        weights = read_weights(contacts, "weight", "contacts")
    time = _times(time)
    bad = ~np.isfinite(time)
    if bad.any():
        raise ValueError(f"contacts: {bad.sum()} of {len(time)} times are missing or infinite. Drop or fill such rows.")
    return time, first, second, weights


def _times(time: NDArray[Any]) -> Any:
    """Convert times to float64 or, if they are dates or durations, to datetime64 (in UTC) or timedelta64."""
    if time.dtype.kind in "mM":  # a unit fine enough for fractions of a slice
        return time.astype(np.result_type(time.dtype, f"{time.dtype.kind}8[us]"))
    if time.dtype.kind == "c":
        raise ValueError(
            f"contacts: times must be numbers or dates, but are of type {time.dtype}. Convert them to real numbers."
        )
    try:
        return time.astype(np.float64)
    except (TypeError, ValueError):
        import pandas

        try:
            return pandas.to_datetime(time, utc=True).tz_localize(None).to_numpy()
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"contacts: times must be numbers or dates, but {error}. Convert or drop such rows."
            ) from error


def _slices(time: Any, width: Any, n_slices: int | None) -> tuple[Any, Any, int, Integers]:
    """Return the start of the first slice, width and number of slices, and the slice of each contact."""
    if (width is None) == (n_slices is None):
        raise ValueError(
            "Give either width or n_slices, how long slices are or how many; got "
            f"width={width!r}, n_slices={n_slices!r}."
        )
    start, span = time.min(), time.max() - time.min()
    if n_slices is not None:
        share = (time - start) / span if span else np.zeros(len(time))
        return start, span / n_slices, n_slices, np.minimum(np.floor(share * n_slices), n_slices - 1).astype(np.int64)
    length = _length(width, time.dtype.kind in "mM")
    if length is None or not length > 0 * length:
        raise ValueError(
            "width must be a positive length of time: a number in the unit of the times or, where these are dates, a "
            f"timedelta or a string like '20min'; got {width!r} for times of type {time.dtype}."
        )
    with np.errstate(over="ignore"):
        n_slices = np.floor(span / length) + 1
    if not n_slices < 2**62:
        raise ValueError(
            f"width must cut the times into slices that can be counted, but {width!r} makes {n_slices:.4g} of them. "
            "Pass a longer width, in the unit of the times."
        )
    at = np.floor((time - start) / length).astype(np.int64)
    return start, length, int(at.max()) + 1, at


def _length(width: Any, is_of_dates: bool) -> Any:
    """Convert a duration to the unit of the times; return None if that is impossible."""
    is_number = isinstance(width, Real) and not isinstance(width, np.timedelta64)
    if is_of_dates == is_number:
        return None
    if is_number:
        return width
    import pandas

    try:
        return pandas.Timedelta(width).to_timedelta64()
    except (AttributeError, TypeError, ValueError):
        return None
