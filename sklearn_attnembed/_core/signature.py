"""The signature of an embedding: components in which a positive product of two vectors counts against their relation.

With an ordinary product as the score, samples that are related have vectors near each other. Words that follow each
other are of different kinds, and so are users and items: their affinities have large negative eigenvalues, which no
ordinary product can express. In an indefinite product ``sum_k S_k x_k y_k`` with some S_k = -1, vectors of related
samples are apart in these components, as in the generalized random dot product graph (P. Rubin-Delanchy et al., JRSS B
2022).
"""

import numpy as np
from scipy.linalg import qr

from .affinity_matrix import BlockedAffinity, multiply
from .parallel import Runner
from .types import Array

# Columns of the search for the largest eigenvalues.
N_COLUMNS = 40
# Products after which the subspace is good enough for a share.
_N_STEPS = 4
# Fewer rows have no spectrum to speak of.
_ROWS_PER_COLUMN = 8
# Share of negative eigenvalues, in squares, that tells of kinds. It is at most 0.05 for social, citation and protein
# networks, and 0.14 to 0.55 for words that follow each other.
_SHARE = 0.1


def signs(n_components: int, n_negative: int) -> Array | None:
    """Return the signature, negative in the last components; None if it is positive."""
    return np.where(np.arange(n_components) < n_components - n_negative, 1.0, -1.0) if n_negative else None


def relates_kinds(affinity: BlockedAffinity, degrees: Array, dtype: np.dtype, seed: int, run: Runner) -> bool:
    """Return whether rows are related to rows of other kinds, rather than to their own.

    Looks at the eigenvalues of ``D^-1/2 A D^-1/2`` that links drawn at random would not have. The mean degree is added
    to D: without it stars and pairs, which every sparse graph has, would look like two kinds each.
    """
    n = len(degrees)
    if n < _ROWS_PER_COLUMN * N_COLUMNS or affinity.pieces is None:
        return False
    shares = (degrees / degrees.mean())[:, None]
    inward = (1 / np.sqrt(shares + 1)).astype(dtype)
    outward = shares.astype(dtype) * inward

    def product(basis: Array) -> Array:
        out = multiply(affinity, inward * basis, np.empty_like(basis), run)
        out *= outward
        return out

    basis = np.random.default_rng(seed).standard_normal((n, N_COLUMNS), dtype)
    for _ in range(_N_STEPS):
        basis = qr(product(basis), mode="economic", overwrite_a=True, check_finite=False)[0]
        basis = np.ascontiguousarray(basis)
    restricted = (basis.T @ product(basis)).astype(np.float64)
    values = np.sort(np.linalg.eigvalsh((restricted + restricted.T) / 2))[:-1]  # but that of the degrees
    signal = values[np.abs(values) > _noise(affinity, inward, outward, run)]
    return bool((signal[signal < 0] ** 2).sum() > _SHARE * (signal**2).sum())


def _noise(affinity: BlockedAffinity, inward: Array, outward: Array, run: Runner) -> float:
    """Return the largest eigenvalue that links drawn at random would have, by the semicircle law."""
    pieces, squares = affinity.pieces, inward**2
    assert pieces is not None
    sums = run(lambda block: (pieces[block] ** 2) @ squares, range(len(affinity.bounds)))
    rows = np.concatenate(list(sums)).astype(np.float64) * outward**2
    return float(2 * np.sqrt((rows**2).sum() / (rows.sum() or 1)))
