"""Progress of a fit, which `verbose` prints."""

import math
import time


class Progress:
    """Formatter of one line per iteration, with loss, displacement and an estimate of the remaining time.

    The displacement decreases almost geometrically. Its mean rate so far gives the number of iterations until it
    reaches `tol`, which `max_iter` bounds.
    """

    def __init__(self, name: str, max_iter: int, tol: float):
        self._name, self._max_iter, self._tol = name, max_iter, tol
        self._start, self._first = time.perf_counter(), math.inf

    def line(self, iteration: int, loss: float, displacement: float) -> str:
        """Return the line for `iteration`, counted from 0."""
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
        """Return the expected number of iterations until convergence, infinite if there is no estimate."""
        if displacement <= self._tol and self._tol > 0:
            return 0
        if self._tol <= 0 or displacement >= self._first:
            return math.inf
        return math.log(displacement / self._tol) / math.log(self._first / displacement) * iteration


def _duration(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
