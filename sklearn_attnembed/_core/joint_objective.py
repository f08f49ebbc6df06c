"""The softmax loss minimized over all vectors, in both of their roles: as queries and as keys.

:mod:`softmax_objective` moves each vector as a query and takes the keys as given. Here the gradient has both sides, so
that vectors come to rest where the loss is stationary. The keys' side of the attraction is a product with the
transposed affinities; that of the repulsion comes from `key_side`. The loss does not change if all vectors are rotated,
so its gradient has no torque, and no co-rotating frame is needed.
"""

from collections.abc import Callable

import numpy as np

from .affinity_matrix import additions, multiply, walk_targets
from .key_side import Attended, KeySide, key_side
from .normalizers import GAUSSIAN
from .parallel import Runner
from .problem import Problem, Strategy
from .softmax_objective import SoftmaxDescent
from .sweep import StepParams, SweepSums, merged_by_group
from .types import Array, Field, Rows


class JointDescent(SoftmaxDescent):
    """Vectors of all groups, moved along the gradient of both sides, each row with a damping of its own."""

    def __init__(self, problem: Problem, strategy: Strategy, is_warm: bool, run: Runner, Y: Array):
        super().__init__(problem, strategy, is_warm, run, Y)
        assert problem.backward is not None
        self.walked_back = np.empty_like(Y) if problem.walk_length > 1 else None
        self.attracted = self._column_sums()
        self.attended = np.ones(len(Y), Y.dtype)  # attention that each row gets as a key
        self.gradients: Array | None = None
        self.key_sides: list[KeySide] = []
        self.has_uniform_null = all(
            np.ptp(problem.null[problem.group_rows(group)]) == 0 for group in range(len(problem.sizes))
        )

    def _column_sums(self) -> Array:
        """Return the column sums of the averaged powers of the affinities: how much each key is attracted."""
        problem, backward = self.problem, self.problem.backward
        assert backward is not None
        ones = np.ones((len(self.current), 1), self.current.dtype)
        walked = walk_targets(backward, ones, problem.walk_length, len(problem.sizes), self.run)
        return multiply(backward, walked, np.empty_like(ones), self.run)[:, 0]

    def _sweep(self, damping: float, rate: float | None, with_torque: bool) -> list[SweepSums]:
        """Sweep over all rows; where the keys' side needs sums over all queries, first over these alone."""
        if not self._is_closed():
            self._sum_over_queries()
        return super()._sweep(damping, rate, False)

    def _is_closed(self) -> bool:
        """Whether one Gaussian of equal keys describes log Z, so that `StepParams` hold both sides of its gradient."""
        return self.key_index is None and self.problem.weight is None and self.has_uniform_null

    def _sum_over_queries(self) -> None:
        """Compute log Z of all queries, its gradients, and the keys' side of these."""
        problem, current = self.problem, self.current
        if self.gradients is None:
            self.gradients = np.empty_like(current)
        log_z, gradients = np.empty(len(current)), self.gradients
        groups = range(len(problem.sizes))
        fields = [self._query_field(group) for group in groups]

        def one(block: int) -> Array:
            rows = problem.affinity.bounds[block]
            X = current[rows]
            log_z[rows], gradients[rows] = fields[problem.group[block]](X, problem.rows_within_group(block))
            return np.asarray(X.sum(axis=0, dtype=np.float64))

        parts = self.run(one, range(len(problem.group)))
        self.log_z, self.totals = log_z, merged_by_group(problem.group, parts, np.add)
        self.key_sides = [self._key_side(group) for group in groups]

    def _key_side(self, group: int) -> KeySide:
        """Return the keys' side of the gradient for the rows of a group."""
        problem, index, strategy = self.problem, self.key_index, self.strategy
        of_queries = problem.key_group[group]  # with one group it is that one, and with two the other
        rows, queries = problem.group_rows(group), problem.group_rows(of_queries)
        labels = None if index is None else index.labels
        attended = Attended(
            self.keys[group].statistics,
            None if labels is None else labels[rows],
            None if problem.weight is None else problem.weight[rows],
            problem.signed(self.current[queries]),
            None if labels is None else labels[queries],
            self.log_z[queries],
            None if index is None else index.near[group],
            problem.beta,
            [problem.rows_within_group(block) for block, own in enumerate(problem.group) if own == of_queries],
            self.seed_of(group + len(problem.sizes)),
        )
        return key_side(GAUSSIAN if index is None else strategy.normalizer, attended, self.run)

    def _field(self, group: int) -> Field | None:
        """Return log Z and the gradient of both sides for the rows of a group; None where `StepParams` hold them."""
        if self._is_closed():
            return None
        start, side, total = self.problem.group_rows(group).start, self.key_sides[group], self.totals[group]

        def field(Y: Array, rows: Rows) -> tuple[Array, Array]:
            assert isinstance(rows, slice)
            assert self.gradients is not None
            among_all = slice(rows.start + start, rows.stop + start)
            self.attended[among_all], gradient = side(Y, rows)
            gradient += self.gradients[among_all]
            gradient += np.outer(self.problem.null[among_all], total).astype(Y.dtype, copy=False)
            return self.log_z[among_all], gradient

        return field

    def _params(self, group: int, is_closed: bool, damping: float, rate: float | None, with_torque: bool) -> StepParams:
        """Return the parameters of a step; with one Gaussian they hold the keys' side of log Z, too."""
        params = super()._params(group, is_closed, damping, rate, with_torque)
        offset, matrix = params.offset, params.matrix
        if is_closed:
            assert matrix is not None
            sizes, queries = self.problem.sizes, self.problem.key_group[group]
            attention = sizes[queries] / sizes[group]
            signed, statistics = self.problem.signed, self.keys[queries].statistics
            mean, covariance = signed(statistics.mean[0]), signed(signed(statistics.covariance[0]).T)
            moment = attention * self.problem.beta * (covariance + np.outer(mean, mean))
            own = self.keys[group].statistics.mean[0]
            offset = (offset - own - attention * mean + moment @ own).astype(offset.dtype)
            matrix = (matrix - moment).astype(matrix.dtype)
            self.attended[self.problem.group_rows(group)] = attention
        return params._replace(offset=offset, matrix=matrix, loss_offset=params.offset)

    def _damping(self) -> float:
        """Return the part of the damping that is the same for all rows: vectors on one side repel each other, twice."""
        one_sided = 2.4 * max(float(np.linalg.norm(group.null_mean)) for group in self.keys)
        return self.momentum.caution * one_sided

    def _row_damping(self, rows: slice) -> Array | None:
        """Return the damping of each row, which is larger for rows that many others attend to."""
        least = self.least_damping * (1 + self.attracted[rows])
        damping: Array = self.momentum.caution * (least + self.stiffness * (1 + self.attended[rows]))
        return damping.astype(self.current.dtype, copy=False)

    def _attraction(self) -> Callable[[int, Array], Array]:
        """Return the function that adds the attraction of a block of rows, as queries and as keys."""
        problem, backward = self.problem, self.problem.backward
        assert backward is not None
        walk = problem.walk_length, len(problem.sizes)
        targets = walk_targets(backward, self.current, *walk, self.run, self.walked_back, self.following)
        add_forward, add_backward = super()._attraction(), additions(backward, targets)
        return lambda block, out: add_backward(block, add_forward(block, out))
