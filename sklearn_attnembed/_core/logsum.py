"""Sums of exponentials in the log domain, which neither overflow nor underflow, one block of terms after another."""

from typing import NamedTuple

import numpy as np

from .types import Array


def log_of(x: Array) -> Array:
    """Natural logarithm, -inf at zero without a warning."""
    with np.errstate(divide="ignore"):
        return np.log(x)


def log_difference(a: Array, b: Array) -> Array:
    """a - b of logarithms; zero where both are -inf."""
    return np.subtract(a, b, where=a != b, out=np.zeros(np.shape(a)))


def finite_or_zero(reference: Array) -> Array:
    """Replace -inf by zero, so that differences from it are defined."""
    return np.where(np.isfinite(reference), reference, 0)


def exponentials(log_terms: Array, axis: int = -1) -> tuple[Array, Array]:
    """Return the largest logarithm along an axis, and exp(log_terms - it).

    Terms that are all zero, and so have no largest logarithm, stay zero.
    """
    reference = log_terms.max(axis=axis, initial=-np.inf)
    terms = log_terms - np.expand_dims(finite_or_zero(reference), axis)
    return reference, np.exp(terms, out=terms)


def log_sum(log_terms: Array, axis: int = -1) -> Array:
    """Return log sum exp(log_terms) along an axis."""
    return LogSum.of(log_terms, axis=axis).log()


class LogSum(NamedTuple):
    """Sums of exponentials of any size, to which more terms can be added; a streaming logsumexp.

    ``LogSum.of(log_terms).add_terms(more).log()`` is the logarithm of the sum over both.

    Attributes
    ----------
    reference : ndarray of shape (n,)
        Largest logarithm of the terms of each sum; -inf where there are none.
    total : ndarray of shape (n,), or of a shape that ends with n
        Sum of the terms, divided by exp(reference) where that is not zero.
    weighted : ndarray of shape (n, n_values) or None
        Sum of the terms times values, divided likewise.
    """

    reference: Array
    total: Array
    weighted: Array | None = None

    @classmethod
    def empty(cls, n: int, n_values: int | None = None) -> "LogSum":
        """Return `n` sums of no terms, with or without values."""
        return cls(np.full(n, -np.inf), np.zeros(n), None if n_values is None else np.zeros((n, n_values)))

    @classmethod
    def of(cls, log_terms: Array, values: Array | None = None, axis: int = -1) -> "LogSum":
        """Sum exp(log_terms) along an axis, and the terms of rows times `values`, a row for each term."""
        reference, terms = exponentials(log_terms, axis)
        return cls(reference, terms.sum(axis=axis), None if values is None else terms @ values)

    def add_terms(self, log_terms: Array, values: Array | None = None) -> "LogSum":
        """Return the sums with the terms of a matrix, row by row, added."""
        return self.merge(LogSum.of(log_terms, values))

    def merge(self, other: "LogSum") -> "LogSum":
        """Return the sums over the terms of both."""
        reference = np.maximum(self.reference, other.reference)
        a, b = (np.exp(part.reference - finite_or_zero(reference)) for part in (self, other))
        weighted = None
        if self.weighted is not None and other.weighted is not None:
            weighted = self.weighted * a[:, None] + other.weighted * b[:, None]
        return LogSum(reference, self.total * a + other.total * b, weighted)

    def log(self) -> Array:
        """Return the logarithms of the sums."""
        return log_of(self.total) + finite_or_zero(self.reference)
