"""Geometry of rows on the unit sphere."""

from types import ModuleType

import numpy as np

from .types import Array

# Rows are padded to a multiple of this number, because BLAS multiplies a few rows by other code than many.
_FULL = 128


def row_dots(A: Array, B: Array, xp: ModuleType = np) -> Array:
    """Return the dot product of each row of `A` with the same row of `B`."""
    return np.asarray(np.einsum("ij,ij->i", A, B)) if xp is np else xp.sum(A * B, axis=1)


def dot(A: Array, B: Array, xp: ModuleType = np) -> float:
    """Return the sum of the products of all entries."""
    return float(np.vdot(A, B) if xp is np else xp.sum(A * B))


def unit_rows(X: Array, xp: ModuleType = np) -> Array:
    """Divide rows by their norm, in place; rows of zeros stay zero."""
    norms = xp.sqrt(row_dots(X, X, xp))
    X /= xp.where(norms > 0, norms, norms + 1)[:, None]
    return X


def tangent(G: Array, X: Array) -> Array:
    """Project the rows of `G` onto the tangent space of the sphere at the unit rows `X`."""
    return np.asarray(G - row_dots(G, X)[:, None] * X)


def batchless_product(X: Array, A: Array) -> Array:
    """Return ``X @ A``, every row with the same bits whatever rows are with it."""
    return (padded(X) @ A)[: len(X)]


def padded(X: Array) -> Array:
    """Append rows of zeros up to a full block."""
    missing = -len(X) % _FULL
    return X if missing == 0 else np.concatenate([X, np.zeros((missing, X.shape[1]), X.dtype)])
