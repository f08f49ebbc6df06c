"""What `verbose` prints of a fit."""

import math
import time


class Progress:
    """A line for each iteration: loss, displacement and the time left.

    The displacement falls next to geometrically: so far, so on until `tol`, or all iterations where they are fewer.
    """

    def __init__(self, name: str, max_iter: int, tol: float):
        self._name, self._max_iter, self._tol = name, max_iter, tol
        self._start, self._first = time.perf_counter(), math.inf

    def line(self, iteration: int, loss: float, displacement: float) -> str:
        """What to print after `iteration`, counted from 0."""
        if iteration == 0:
            self._first = displacement
        left = self._max_iter - iteration - 1
        sooner = self._until_tol(iteration, displacement)
        seconds = (time.perf_counter() - self._start) / (iteration + 1) * min(left, sooner)
        return (
            f"[{self._name}] iteration {iteration + 1:{len(str(self._max_iter))}d} of at most {self._max_iter}  "
            f"loss {loss:.6f}  displacement {displacement:.2e}  "
            f"{'at most' if sooner > left and self._tol > 0 else 'about'} {_duration(seconds)} left"
        )

    def _until_tol(self, iteration: int, displacement: float) -> float:
        """Iterations, infinite where nothing is known."""
        if displacement <= self._tol and self._tol > 0:
            return 0
        if self._tol <= 0 or displacement >= self._first:
            return math.inf
        return math.log(displacement / self._tol) / math.log(self._first / displacement) * iteration


def _duration(seconds: float) -> str:
    """In the units that one would say."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
