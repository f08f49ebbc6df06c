"""Attention kernels: log f(s), log E f(s) of Gaussian scores, derivatives, and what embedding by pairs needs.

A kernel is one entry of `KERNELS`. To add one, write its functions and add the entry.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import wofz

from .logsum import log_of
from .types import Array, Complex

# Nodes and weights of Gauss-Hermite quadrature; the weights sum to one.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(32)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()

# Below this variance, or this part of the squared mean, the quadrature of the expressive kernel is exact to machine
# precision, because its poles at +-i are many standard deviations away. The closed form would cancel there.
_SMALL_VARIANCE, _SMALL_RATIO = 0.1, 1e-3


# Least standard deviation, relative to the mean, over which the derivatives of a callable are taken.
_LEAST_RELATIVE_DEVIATION = 1e-5

# Any standard deviation below this is taken to be zero, and any sum below _TINY too small to divide by.
_LEAST_DEVIATION, _TINY = 1e-150, np.finfo(np.float64).tiny


class PairTerms(NamedTuple):
    """What embedding by pairs needs of a kernel f, which the attraction of a pair follows the slope of.

    Attributes
    ----------
    terms : callable
        ``(s, background) -> (log (f + background), its first derivative, its second derivative)``.
    background : float
        Constant that is added to f in the fitted model. It bounds the slope of log f where f vanishes.
    largest_curvature : float
        Upper bound of f'', from which the step length follows.
    """

    terms: Callable[[Array, float], tuple[Array, Array, Array]]
    background: float
    largest_curvature: float


class Kernel(NamedTuple):
    """An attention kernel f, given by log f and by g(m, v) = log E f(s) for s ~ N(m, v).

    Attributes
    ----------
    name : str
    log_value : callable
        ``s -> log f(s)``, which is -inf where f vanishes.
    log_expectation : callable
        ``(m, v) -> g``.
    derivatives : callable
        ``(m, v) -> (dg/dm, dg/dv)``.
    has_squared_features : bool
        Whether features of the squared score can represent the kernel, exactly or for small scores.
    pairs : PairTerms or None
        Functions that embedding by pairs needs; None if the kernel has no such embedding.
    """

    name: str
    log_value: Callable[[Array], Array]
    log_expectation: Callable[[Array, Array], Array]
    derivatives: Callable[[Array, Array], tuple[Array, Array]]
    has_squared_features: bool = False
    pairs: PairTerms | None = None


def _quadrature(f: Callable[[Array], Array], m: Array, v: Array) -> Array:
    """Compute E f(s) for s ~ N(m, v) by Gauss-Hermite quadrature, one node at a time."""
    scale = np.sqrt(v)
    values = (weight * f(m + scale * node) for node, weight in zip(_NODES, _WEIGHTS, strict=True))
    return sum(values, np.zeros(()))


def _softmax_derivatives(m: Array, v: Array) -> tuple[Array, Array]:
    return np.ones_like(m), np.full_like(m, 0.5)


def _squared_expectation(m: Array, v: Array) -> Array:
    return 2 * log_of(np.hypot(m, np.sqrt(v)))  # m^2 + v would underflow long before m does


def _squared_derivatives(m: Array, v: Array) -> tuple[Array, Array]:
    total = np.maximum(m * m + v, _TINY)
    return 2 * m / total, 1 / total


def expressive(s: Array, background: float = 0.0) -> Array:
    """s^2 / (1 + s^2) + background for scores of any size."""
    s = np.abs(s)
    return np.square(s / np.hypot(1, s)) + background


def _expressive_log_value(s: Array) -> Array:
    # Three times as fast as log_of(expressive(s)).
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        return -np.log1p(1 / np.square(s))


def _expressive_slopes(s: Array) -> tuple[Array, Array, Array]:
    """1 / (1 + s^2), and the first two derivatives of s^2 / (1 + s^2)."""
    rest = 1 / (1 + s * s)
    return rest, 2 * s * rest * rest, 2 * (4 * rest - 3) * rest * rest


def expressive_terms(s: Array, background: float) -> tuple[Array, Array, Array]:
    """log f and its first two derivatives, for f = s^2 / (1 + s^2) + background."""
    rest, slope, curvature = _expressive_slopes(s)
    f = 1 - rest + background
    slope /= f
    return np.log(f), slope, curvature / f - slope * slope


def _by_variance(
    m: Array, v: Array, small: Callable[[Array, Array], Array], large: Callable[[Array, Array], Array]
) -> Array:
    """Evaluate `small` where the variance is small and `large` elsewhere."""
    m, v = np.broadcast_arrays(np.asarray(m, np.float64), np.asarray(v, np.float64))
    out = np.empty(m.shape)
    is_small = v < np.maximum(_SMALL_VARIANCE, _SMALL_RATIO * m * m)
    out[is_small] = small(m[is_small], v[is_small])
    out[~is_small] = large(m[~is_small], v[~is_small])
    return out


def _faddeeva(m: Array, v: Array) -> tuple[Complex, Complex, Array]:
    """Return the Faddeeva function w at z = (m + i) / sqrt(2v), with z and the factor sqrt(pi / 2v)."""
    z = (m + 1j) / np.sqrt(2 * v)
    return wofz(z), z, np.sqrt(np.pi / (2 * v))


def _expressive_expectation(m: Array, v: Array) -> Array:
    def large(m: Array, v: Array) -> Array:
        w, _, factor = _faddeeva(m, v)
        return np.maximum(1 - factor * w.real, 0)

    return log_of(_by_variance(m, v, lambda m, v: _quadrature(expressive, m, v), large))


def _expressive_derivatives(m: Array, v: Array) -> tuple[Array, Array]:
    def slope(m: Array, v: Array) -> Array:
        w, z, factor = _faddeeva(m, v)
        dw = 2j / np.sqrt(np.pi) - 2 * z * w
        by_mean: Array = -factor * (dw / np.sqrt(2 * v)).real
        return by_mean

    def half_curvature(m: Array, v: Array) -> Array:  # dE/dv = E f'' / 2, by the heat equation
        w, z, factor = _faddeeva(m, v)
        dw = 2j / np.sqrt(np.pi) - 2 * z * w
        by_variance: Array = factor * ((w + z * dw) / (2 * v)).real
        return by_variance

    value = np.maximum(np.exp(_expressive_expectation(m, v)), _TINY)
    dm = _by_variance(m, v, lambda m, v: _quadrature(lambda s: _expressive_slopes(s)[1], m, v), slope)
    dv = _by_variance(m, v, lambda m, v: _quadrature(lambda s: _expressive_slopes(s)[2], m, v) / 2, half_curvature)
    return dm / value, dv / value


SOFTMAX = Kernel("softmax", lambda s: s, lambda m, v: m + v / 2, _softmax_derivatives)


SQUARED = Kernel(
    "squared", lambda s: 2 * log_of(np.abs(s)), _squared_expectation, _squared_derivatives, has_squared_features=True
)


EXPRESSIVE = Kernel(
    "expressive",
    _expressive_log_value,
    _expressive_expectation,
    _expressive_derivatives,
    has_squared_features=True,
    pairs=PairTerms(expressive_terms, background=0.01, largest_curvature=2.0),
)


KERNELS = {kernel.name: kernel for kernel in (SOFTMAX, SQUARED, EXPRESSIVE)}


def with_background(kernel: Kernel, background: float) -> Kernel:
    """Return the kernel f + background."""
    if background == 0:
        return kernel

    def log_expectation(m: Array, v: Array) -> Array:
        return np.log(np.exp(kernel.log_expectation(m, v)) + background)

    def derivatives(m: Array, v: Array) -> tuple[Array, Array]:
        value = np.exp(kernel.log_expectation(m, v))
        by_mean, by_variance = (part * value / (value + background) for part in kernel.derivatives(m, v))
        return by_mean, by_variance

    log_background = log_of(np.array(background))
    return kernel._replace(
        log_value=lambda s: np.logaddexp(kernel.log_value(s), log_background),  # exp(s) of softmax may overflow
        log_expectation=log_expectation,
        derivatives=derivatives,
    )


def _from_callable(f: Callable[[Array], Array]) -> Kernel:
    """Return the kernel of any non-negative function, with expectations by quadrature."""

    def value(s: Array) -> Array:
        s = np.asarray(s, np.float64)
        with np.errstate(all="ignore"):  # values that are not finite raise an error below
            out = np.asarray(f(s), np.float64)
        if out.shape != s.shape:
            raise ValueError(
                f"A function given as kernel has to return one value for each score, but made shape {out.shape} of "
                f"{s.shape}. Use functions that work entry by entry, as numpy.exp does."
            )
        wrong = ~(np.isfinite(out) & (out >= 0))
        if wrong.any():
            raise ValueError(
                "A function given as kernel has to be finite and non-negative, but is "
                f"{out[wrong][0]:.4g} at a score of {s[wrong][0]:.4g}: clip it, or raise the temperature."
            )
        return out

    def derivatives(m: Array, v: Array) -> tuple[Array, Array]:  # by Stein's identity, without derivatives of f
        # Over a narrower range differences of f are rounding errors.
        scale = np.maximum(np.sqrt(v), _LEAST_RELATIVE_DEVIATION * np.abs(m))
        scale = np.where(scale > _LEAST_DEVIATION, scale, _LEAST_RELATIVE_DEVIATION)
        values = [(node, weight * value(m + scale * node)) for node, weight in zip(_NODES, _WEIGHTS, strict=True)]
        total = np.maximum(sum(part for _, part in values), _TINY)
        slope = sum(node * part for node, part in values) / total
        curvature = sum((node * node - 1) * part for node, part in values) / total
        return slope / scale, curvature / scale / scale / 2

    name = getattr(f, "__name__", type(f).__name__)
    return Kernel(name, lambda s: log_of(value(s)), lambda m, v: log_of(_quadrature(value, m, v)), derivatives)


def as_kernel(kernel: str | Callable[[Array], Array]) -> Kernel:
    """Return the kernel of that name, or of that function."""
    return KERNELS[kernel] if isinstance(kernel, str) else _from_callable(kernel)


def squared_features(X: Array) -> Array:
    """Return the d (d + 1) / 2 products x_a x_b, those with a < b times sqrt(2); their inner product is (x.y)^2."""
    a, b = np.triu_indices(X.shape[1])
    return X[:, a] * X[:, b] * np.where(a == b, 1, np.sqrt(2)).astype(X.dtype)


def embedded(kernel: Kernel) -> Kernel:
    """Return the kernel as an embedding uses it, with the background of its pairs."""
    return kernel if kernel.pairs is None else with_background(kernel, kernel.pairs.background)
