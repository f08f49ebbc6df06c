"""Rows on the unit sphere."""

import numpy as np

from .types import Array


def unit_rows(X: Array) -> Array:
    """Divide rows by their norm, in place; zero rows stay zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", X, X))
    X /= np.where(norms > 0, norms, 1)[:, None]
    return X


# Rows are padded to a multiple of so many: BLAS multiplies few rows by other code than many.
_FULL = 128


def _batchless(X: Array, A: Array) -> Array:
    """X @ A with every row the same whatever rows are with it."""
    return (_padded(X) @ A)[: len(X)]


def _padded(X: Array) -> Array:
    """Rows of zeros put behind, to full blocks."""
    missing = -len(X) % _FULL
    return X if missing == 0 else np.concatenate([X, np.zeros((missing, X.shape[1]), X.dtype)])


def _dots(A: Array, B: Array) -> Array:
    """Products of rows with rows."""
    return np.asarray(np.einsum("ij,ij->i", A, B))


def _tangent(G: Array, X: Array) -> Array:
    """The parts of rows that are tangent to the sphere at unit rows."""
    return np.asarray(G - _dots(G, X)[:, None] * X)
