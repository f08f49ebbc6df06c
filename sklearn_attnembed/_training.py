"""The training of AttentionEmbedding: from parameters and affinities to a problem, its solution and a fitted model."""

from collections.abc import Callable
from functools import cache, partial
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator

from ._core import affinity_matrix, parallel, sphere
from ._core.affinity_matrix import BlockedAffinity
from ._core.exact_loss import LEAST_ROWS
from ._core.fit import fit_vectors, fitted_model
from ._core.kernels import KERNELS
from ._core.normalizers import NORMALIZERS
from ._core.out_of_sample import Model
from ._core.parallel import Runner
from ._core.problem import KeyIndex, Problem, Strategy
from ._core.signature import relates_kinds, signs
from ._core.solver import Solution, uniform_loss
from ._core.types import Mask
from ._fitted import FittedEmbedding, is_by_pairs, normalized
from ._progress import Progress
from ._sklearn import FitTask, check_array, cluster_centers, csr_matvecs, partition, warn
from ._typing import Float64, Integers, Vectors
from .affinity._sources import Source, source_of

# The least power of a degree. A weight of zero would have no logarithm.
_TINY = 1e-290
# Walk length that classifies nodes well on graphs of all sorts, unless neighbors are of different kinds.
_WALK_OF_GRAPHS = 3
# Error of a loss, in nats, that is not worth a warning.
_SLACK = 0.25


class Training(NamedTuple):
    """A problem to be solved, and how its rows are found among the samples and keys.

    Attributes
    ----------
    problem : Problem
    source : Source
    active : ndarray of bool of shape (n_samples,) or (n_samples + n_columns,)
        The rows and, if they are embedded, the columns that have any affinity: those that the problem is about.
    sizes : list of int
        Number of rows and, if they are embedded, of columns.
    row_sums : ndarray of shape (n_samples,) or None
        Sums that the affinities were divided by, if columns are embedded.
    """

    problem: Problem
    source: Source
    active: Mask
    sizes: list[int]
    row_sums: Float64 | None

    @property
    def active_sides(self) -> list[Mask]:
        """The mask of active rows and, if they are embedded, that of active columns."""
        return np.split(self.active, np.cumsum(self.sizes)[:-1])


def check_kernel(params: Any) -> None:
    """Raise an error for parameters that do not go with the kernel."""
    if params.n_negative != "auto" and params.n_negative > params.n_components:
        raise ValueError(
            f"n_negative must be at most n_components={params.n_components}, but it is {params.n_negative}: it is the "
            "number of components that count negatively. Lower it, or use 'auto'."
        )
    if params.n_negative not in ("auto", 0) and source_of(params.affinity).embeds_columns:
        raise ValueError(
            f"n_negative={params.n_negative} has no effect with affinity={params.affinity!r}, where rows and columns "
            "have vectors of their own. Use 0 or 'auto'."
        )
    if not is_by_pairs(params.kernel):
        return
    needed: dict[str, list[Any]] = {
        "walk_length": [1],
        "null_model": ["uniform", 0],
        "normalizer": ["gaussian"],
        "solver": ["accelerated"],
        "objective": ["queries"],
        "n_negative": ["auto", 0],
    }
    for name, values in needed.items():
        given = getattr(params, name)
        if np.ndim(given) > 0 or given not in values:
            raise ValueError(
                f"kernel={params.kernel!r} needs {name}={values[0]!r}, but it is {given!r}: scores enter one by one, "
                "and their sign is free. Set it back, or use kernel='softmax'."
            )


# The problem -----------------------------------------------------------------------------------------
def build_training(params: Any, source: Source, A: Any, P: Any, isolated: Mask, dtype: Any) -> Training:
    """Return the problem that the parameters and the affinities `A`, normalized `P`, describe."""
    if source.embeds_columns:
        backward, unused = normalized(A.T, dtype, params.kernel)
        active, sizes = ~np.concatenate([isolated, unused]), list(A.shape)
        square = affinity_matrix.both_directions(sp.csr_array(P), sp.csr_array(backward))
    else:
        active, sizes, square = ~isolated, [A.shape[0]], P
        if source.is_symmetrized:  # rows of the sum with the transpose do not sum to one
            square = normalized(P + P.T, dtype, params.kernel)[0]
    counts = [int(np.count_nonzero(side)) for side in np.split(active, np.cumsum(sizes)[:-1])]
    bounds = parallel.row_blocks(counts, params.n_components)
    if is_by_pairs(params.kernel):
        P, square = sp.csr_array(P), sp.csr_array(square)
    null, weight = _null_and_weight(params, A, active, counts)
    square = affinity_matrix.among(square, active)
    problem = Problem(
        affinity=affinity_matrix.blocked(square, bounds, csr_matvecs),
        queries=affinity_matrix.blocked(affinity_matrix.among(P, active), bounds) if len(sizes) == 1 else None,
        group=[int(rows.start >= counts[0]) for rows in bounds],
        key_group=[1, 0] if len(sizes) == 2 else [0],
        sizes=counts,
        null=null,
        weight=weight,
        kernel=KERNELS[params.kernel],
        beta=1 / params.temperature,
        walk_length=longest_walk(params),
        backward=_backward(params, square, bounds),
    )
    row_sums = np.asarray(A.sum(axis=1)).ravel() if source.embeds_columns else None
    return Training(problem, source, active, sizes, row_sums)


def longest_walk(params: Any) -> int:
    """Return the walk length that the parameters allow for."""
    if params.walk_length != "auto":
        return int(params.walk_length)
    return _WALK_OF_GRAPHS if _is_graph(params) else 1


def finds_kinds(params: Any) -> bool:
    """Return whether it depends on the affinities if some components count negatively, or how long walks are."""
    return _is_graph(params) and "auto" in (params.n_negative, params.walk_length)


def _is_graph(params: Any) -> bool:
    """Return whether the affinities are given, and enter by rows."""
    return source_of(params.affinity).is_graph and not is_by_pairs(params.kernel)


def with_signature(params: Any, training: Training, A: Any, dtype: Any, seed: int, run: Runner) -> Training:
    """Return the problem with the signature and the walk length that its affinities ask for."""
    problem, d = training.problem, int(params.n_components)
    has_kinds = False
    if finds_kinds(params) and not isinstance(A, LinearOperator):
        degrees = column_sums(A.T)[training.active]
        has_kinds = relates_kinds(problem.affinity, degrees, dtype, seed, run)
    n_negative = d // 2 * has_kinds if params.n_negative == "auto" else params.n_negative
    walk_length = 1 if has_kinds and params.walk_length == "auto" else problem.walk_length
    return training._replace(problem=problem._replace(signature=signs(d, n_negative), walk_length=walk_length))


def _backward(params: Any, square: Any, bounds: list[slice]) -> BlockedAffinity | None:
    """Return the transposed affinities, which move vectors as keys; None where they move as queries only."""
    if params.objective == "queries":
        return None
    if not isinstance(square, LinearOperator):
        return affinity_matrix.blocked(sp.csr_array(square.T) if sp.issparse(square) else square.T, bounds, csr_matvecs)
    try:
        square.rmatvec(np.zeros(square.shape[0]))
    except NotImplementedError as error:
        raise ValueError(
            "objective='joint' needs products with the transposed affinities, but the operator has no rmatvec. Give "
            "it one, or use objective='queries'."
        ) from error
    return affinity_matrix.blocked(square.T, bounds)


def _null_and_weight(params: Any, A: Any, active: Mask, counts: list[int]) -> tuple[Float64, Float64 | None]:
    """Return the null model and the key weights of the active rows; None for equal weights."""

    @cache
    def degree() -> Float64:
        return np.concatenate([column_sums(side) for side in ([A.T, A] if len(counts) == 2 else [A])])[active]

    def powers(name: str) -> list[Float64]:
        return _degree_powers(name, getattr(params, name), degree, counts)

    if isinstance(params.null_model, str | Real):
        null = np.concatenate([side * (1 / side.sum()) for side in powers("null_model")])
    else:
        null = _given_null(params.null_model, active, len(counts))
    if params.key_weight in ("uniform", 0):
        return null, None
    return null, np.concatenate([side * (len(side) / side.sum()) for side in powers("key_weight")])


def _degree_powers(name: str, given: Any, degree: Callable[[], Float64], counts: list[int]) -> list[Float64]:
    """Return powers of the degree, of rows and columns apart, as the parameter `name` asks for."""
    gamma = {"uniform": 0, "degree": 1}.get(given, given)
    sides = np.split(degree() if gamma else np.ones(sum(counts)), np.cumsum(counts)[:-1])
    if not all(side.any() for side in sides):
        raise ValueError(
            f"{name}={given!r} needs degrees, but no row that has affinities is led to by any: all of "
            f"these degrees are 0. Set {name}='uniform', or embed a table by affinity='bipartite'."
        )
    # No power of these overflows, and no power of a positive degree is zero.
    return [np.where(side > 0, np.maximum((side / side.max()) ** gamma, _TINY), 0) for side in sides]


def _given_null(null_model: Any, active: Mask, n_sides: int) -> Float64:
    """Return the shares of the active rows in a null model that is given as an array."""
    p0 = check_array(null_model, ensure_2d=False, dtype=np.float64, input_name="null_model")
    if n_sides == 2 or p0.shape != active.shape:
        raise ValueError(
            f"null_model has shape {p0.shape}, but an array needs one entry for each of the {len(active)} samples of a "
            "square affinity. Pass a power of the degree instead."
        )
    if p0.min() < 0 or not p0[active].sum() > 0:
        raise ValueError(
            f"null_model must be >= 0 with a positive sum; its smallest is {p0.min():.4g}, its sum over "
            f"active rows {p0[active].sum():.4g}. Clip it, or use 'uniform'."
        )
    return p0[active] / p0[active].sum()


def column_sums(A: Any) -> Float64:
    """Return the degrees of the keys."""
    if isinstance(A, LinearOperator):
        try:
            return np.asarray(A.rmatvec(np.ones(A.shape[0])))
        except NotImplementedError as error:
            raise ValueError(
                "null_model by degree needs column sums, but the operator has no rmatvec. Give it one, or use "
                "null_model='uniform'."
            ) from error
    largest = (A.data if sp.issparse(A) else A).max(initial=0)
    A = A / largest if largest > np.finfo(np.float32).max else A  # sums of larger numbers could overflow
    return np.asarray(A.sum(axis=0), np.float64).ravel()


# The solution ----------------------------------------------------------------------------------------
def first_vectors(
    params: Any, before: FittedEmbedding | None, training: Training, dtype: Any, seed: int
) -> tuple[Vectors, bool]:
    """Return the vectors that the solver starts with, and whether they are those of the previous fit."""
    Y = _initial_vectors(len(training.active), int(params.n_components), dtype, seed)
    if not params.warm_start or before is None:
        return _only(Y, training.active), False
    if before.vectors.shape[1] != params.n_components:
        raise ValueError(
            f"warm_start=True goes on from vectors of {before.vectors.shape[1]} dimensions, but n_components="
            f"{params.n_components}. Set it back, or set warm_start=False to start anew."
        )
    starts = np.cumsum([0, *before.sizes]), np.cumsum([0, *training.sizes])
    for theirs, ours, n_theirs, n_ours in zip(*starts, before.sizes, training.sizes, strict=False):
        n = min(n_theirs, n_ours)  # rows, or columns, that were there before
        vectors = before.vectors[theirs : theirs + n]
        known = np.flatnonzero(vectors.any(axis=1))
        Y[ours + known] = vectors[known]
    return _only(Y, training.active), True


def build_strategy(params: Any, problem: Problem, seed: int) -> Strategy:
    """Return how the solver computes log Z."""
    n_clusters = min(params.n_clusters, *problem.sizes)
    if n_clusters < params.n_clusters:
        warn(
            f"n_clusters={params.n_clusters} is more than there are keys with affinities, {n_clusters}, which is "
            f"taken instead. Set n_clusters to {n_clusters} or less."
        )
    return Strategy(
        NORMALIZERS[params.normalizer],
        n_clusters,
        min(params.n_exact, *problem.sizes),
        partial(partition, n_clusters=n_clusters, random_state=seed),
        lambda points, k, round: cluster_centers(points, None, k, seed + round),
        seed,
    )


def solve(
    params: Any, training: Training, Y: Vectors, is_warm: bool, strategy: Strategy, run: Runner, task: FitTask
) -> Solution:
    """Minimize the loss from the vectors `Y`, and report each iteration to the user and to callbacks."""
    stops_early = not is_by_pairs(params.kernel) and params.solver == "accelerated"
    progress = Progress(type(params).__name__, params.max_iter, params.tol if stops_early else 0)

    def report(iteration: int, loss: float, displacement: float, so_far: Callable[[], Solution]) -> bool:
        if params.verbose:
            print(progress.line(iteration, loss, displacement))
        return task.end(lambda: learned_attributes(params, training, so_far(), strategy, run))

    return fit_vectors(
        training.problem,
        Y,
        strategy,
        is_gradient=params.solver == "gradient",
        is_warm=is_warm,
        max_iter=params.max_iter,
        tol=params.tol,
        n_init=params.n_init,
        checks_loss=params.check_loss,
        run=run,
        begin=task.begin,
        report=report,
    )


def is_overstated(solution: Solution) -> bool:
    """Whether more than half of the gain of the loss over uniform attention is due to errors of log Z."""
    exact, loss = solution.exact, solution.losses[-1]
    if exact is None or exact.n_rows < LEAST_ROWS:
        return False
    gain = uniform_loss(solution.keys) - loss
    return bool(exact.mean - 2 * exact.error - loss > max(gain / 2, _SLACK))


def learned_attributes(
    params: Any, training: Training, solution: Solution, strategy: Strategy, run: Runner
) -> dict[str, Any]:
    """Return the attributes of an estimator that has this solution."""
    problem, sizes, sides = training.problem, training.sizes, training.active_sides
    targets = affinity_matrix.walk_targets(problem.affinity, solution.vectors, problem.walk_length, len(sizes), run)
    vectors, keys = _among_all(solution.vectors, training.active), problem.group_rows(problem.key_group[0])

    def model(group: int) -> Model:
        known = fitted_model(problem, solution, strategy, targets, group, run)
        return known._replace(targets=_among_all(known.targets, sides[problem.key_group[group]]))

    exact = (
        {} if solution.exact is None else {"exact_loss_": solution.exact.mean, "exact_loss_std_": solution.exact.error}
    )
    weight = np.ones(problem.sizes[-1]) if problem.weight is None else problem.weight[keys]
    fitted = FittedEmbedding(
        kernel=params.kernel,
        walk_length=int(problem.walk_length),
        source=training.source,
        keys=np.ascontiguousarray(problem.signed(vectors[-sizes[-1] :])),
        key_weight=_among_all(weight, sides[-1]),
        active=sides[-1],
        labels=_key_labels(solution.key_index, keys, sides[-1]),
        row_model=model(0),
        column_model=model(1) if len(sizes) == 2 else None,
        sizes=sizes,
        vectors=vectors,
        row_sums=training.row_sums,
    )
    return {
        "_fitted": fitted,
        "key_embedding_": fitted.keys,
        "key_weight_": fitted.key_weight,
        "loss_curve_": [float(loss) for loss in solution.losses],
        "n_iter_": len(solution.losses),
        "n_negative_": 0 if problem.signature is None else int(np.count_nonzero(problem.signature < 0)),
        "converged_": solution.converged or solution.stopped_early or params.solver == "gradient",
        **exact,
    }


def _initial_vectors(n_samples: int, n_components: int, dtype: Any, seed: int) -> Vectors:
    """Return random unit rows, the same in any precision, drawn block by block."""
    generator = np.random.default_rng(seed)
    Y = np.empty((n_samples, n_components), dtype)
    for rows in parallel.row_blocks([n_samples], n_components):
        Y[rows] = generator.random((rows.stop - rows.start, n_components), np.float32) - np.float32(0.5)
    return sphere.unit_rows(Y)


def _only(Y: Vectors, active: Mask) -> Vectors:
    """Return the active rows of `Y`; `Y` itself if these are all."""
    return Y if active.all() else Y[active]


def _among_all(values: Any, active: Mask) -> Any:
    """Return the values of active rows among all rows, with zero for the others; `values` itself if all are active."""
    if active.all():
        return values
    out = np.zeros((len(active), *values.shape[1:]), values.dtype)
    out[active] = values
    return out


def _key_labels(index: KeyIndex | None, rows: slice, active: Mask) -> Integers:
    """Return the clusters of the keys, -1 for those without any affinity."""
    n = np.count_nonzero(active)
    labels = np.zeros(n, np.intp) if index is None or index.labels is None else index.labels[rows]
    return _among_all(labels + 1, active) - 1
