"""Random inputs: matrices of any shape, content, storage and defect, and parameters valid, extreme and invalid."""

import tempfile
import warnings

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.sparse.linalg import aslinearoperator

FORMATS = ("csr", "csc", "coo", "bsr", "dia", "lil", "dok")
SIZES = (2, 3, 5, 8, 13, 24, 40)


def pick(rng, *values):
    """Return one of the values."""
    return values[rng.integers(len(values))]


def chance(rng, share):
    """Return True with this probability."""
    return rng.random() < share


def size(rng):
    """Return a number of rows, which is rarely zero or one."""
    return int(pick(rng, 0, 1)) if chance(rng, 0.04) else int(pick(rng, *SIZES))


# Contents --------------------------------------------------------------------------------------------------
def points(rng, n, d):
    """Return ordinary points."""
    return rng.standard_normal((n, d)) * pick(rng, 0.3, 1, 3)


def counts(rng, n, d):
    """Return ordinary counts, many of them zero."""
    return rng.poisson(pick(rng, 0.2, 1, 4), (n, d)).astype(np.float64)


def graph(rng, n):
    """Return an adjacency matrix, directed or not, weighted or not."""
    A = (rng.random((n, n)) < pick(rng, 0.1, 0.3, 1)) * pick(rng, np.ones((n, n)), rng.random((n, n)))
    return pick(rng, A, A + A.T)


EXTREMES = {
    "zeros": lambda rng, A: A * 0,
    "ones": lambda rng, A: A * 0 + 1,
    "identical rows": lambda rng, A: A[:1].repeat(len(A), 0),
    "duplicated rows": lambda rng, A: A[rng.integers(max(len(A), 1), size=len(A))],
    "zero rows": lambda rng, A: A * (rng.random((len(A), 1)) < 0.5),
    "one huge": lambda rng, A: put(rng, A, pick(rng, 1e6, 1e20, 1e154, 1e300)),
    "denormal": lambda rng, A: A * 5e-324,
    "tiny": lambda rng, A: A * pick(rng, 1e-300, 1e-160, 1e-30),
    "large": lambda rng, A: A * pick(rng, 1e3, 1e30, 1e154, 1e300),
    "lognormal": lambda rng, A: A * np.exp(pick(rng, 1, 10, 50) * rng.standard_normal((len(A), 1))),
    "negative": lambda rng, A: put(rng, A, -1.0),
    "NaN": lambda rng, A: put(rng, A, np.nan),
    "infinite": lambda rng, A: put(rng, A, pick(rng, np.inf, -np.inf)),
}


def put(rng, A, value):
    """Return a copy with one entry replaced."""
    A = A.copy()
    if A.size:
        A.flat[rng.integers(A.size)] = value
    return A


def extreme(rng, A, share=0.35):
    """Return the content, often distorted, and a description."""
    if not chance(rng, share):
        return A, "usual"
    name = pick(rng, *EXTREMES)
    with np.errstate(all="ignore"):
        return EXTREMES[name](rng, A), name


# Storage ---------------------------------------------------------------------------------------------------
DENSE = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": lambda A: np.repeat(np.repeat(A, 2, 0), 2, 1)[::2, ::2],
    "reversed": lambda A: np.ascontiguousarray(A[::-1, ::-1])[::-1, ::-1],
    "broadcast": lambda A: np.broadcast_to(A[:1], A.shape) if np.all(A[:1] == A) else A,
    "big-endian": lambda A: A.astype(">f8"),
    "memory map": lambda A: memory_map(A),  # noqa: PLW0108 (defined below)
    "list": lambda A: A.tolist(),
    "tuple": lambda A: tuple(map(tuple, A.tolist())),
    "frame": pd.DataFrame,
    "named frame": lambda A: pd.DataFrame(A, columns=[f"c{j}" for j in range(A.shape[1])]),
    "mixed frame": lambda A: pd.DataFrame({j: A[:, j].astype(f"f{4 + 4 * (j % 2)}") for j in range(A.shape[1])}),
    "longdouble": lambda A: A.astype(np.longdouble),
    "float32": lambda A: A.astype(np.float32),
    "float16": lambda A: A.astype(np.float16),
    "object": lambda A: A.astype(object),
    **{kind: (lambda A, kind=kind: A.astype(kind)) for kind in ("int8", "int32", "int64", "uint8", "uint64", "bool")},
}
WRONG = {
    "complex": lambda A: A * 1j,
    "str": lambda A: A.astype(str),
    "word": lambda A: np.full(A.shape, "word"),
    "datetime": lambda A: np.full(A.shape, np.datetime64("2020-01-01")),
    "objects": lambda A: np.full(A.shape, object()),
    "3-D": lambda A: A[None],
    "1-D": lambda A: A.ravel(),
    "scalar": lambda A: 1.0,
    "None": lambda A: None,
    "text": lambda A: "text",
    "generator": lambda A: (row for row in A),
    "ragged": lambda A: [[1.0], [1.0, 2.0]],
    "dict": lambda A: {0: [1.0]},
    "masked": lambda A: np.ma.masked_greater(A, 0),
}


def memory_map(A):
    """Return the array as a read-only memory map."""
    with tempfile.NamedTemporaryFile() as file:
        if not A.size:
            return A
        np.memmap(file.name, A.dtype, "w+", shape=A.shape)[:] = A
        return np.memmap(file.name, A.dtype, "r", shape=A.shape)


def sparse(rng, A):
    """Return the matrix in a sparse format, possibly not canonical, and a description."""
    form, kind = pick(rng, *FORMATS), pick(rng, "array", "matrix")
    with np.errstate(all="ignore"):
        A = A.astype(pick(rng, np.float64, np.float64, np.float32, np.int64, bool))
    X = getattr(sp, f"{form}_{kind}")(A)
    if form not in ("csr", "csc", "coo") or chance(rng, 0.4):
        return X, f"{form}_{kind}"
    if form == "coo":
        X = sp.coo_array((np.r_[X.data, X.data], tuple(np.r_[part, part] for part in X.coords)), X.shape)
        return X, "split coo_array"
    defect = pick(rng, "unsorted", "split", "explicit zeros", "int64 indices", "read-only")
    data, indices, counts = X.data, X.indices, np.diff(X.indptr)
    if defect == "unsorted":
        order = np.lexsort((-indices, np.repeat(np.arange(len(counts)), counts)))
        data, indices = data[order], indices[order]
    elif defect == "split":
        data, indices, counts = np.repeat(data, 2), np.repeat(indices, 2), counts * 2
        if X.dtype.kind == "f":
            data = data / 2
    elif defect == "explicit zeros" and min(X.shape) > 0:
        data, indices = np.append(data, data[:0].sum()), np.append(indices, 0)
        counts[-1:] += 1
    indptr = np.append(0, np.cumsum(counts)).astype(X.indptr.dtype)
    if defect == "int64 indices":
        indices, indptr = indices.astype(np.int64), indptr.astype(np.int64)
    Y = getattr(sp, f"{form}_{kind}")(X.shape, dtype=data.dtype)
    Y.data, Y.indices, Y.indptr = data, indices.astype(indptr.dtype), indptr
    if defect == "read-only":
        for part in (Y.data, Y.indices, Y.indptr):
            part.flags.writeable = False
    return Y, f"{defect} {form}_{kind}"


def broken(rng, A):
    """Return a sparse matrix with inconsistent arrays and a description. It must not be read."""
    X = getattr(sp, pick(rng, "csr_array", "csr_matrix", "csc_array"))(A + (A == 0))
    lie = pick(rng, "index out of range", "negative index", "falling pointers", "pointer beyond", "too few data")
    if lie == "index out of range":
        X.indices[rng.integers(X.nnz)] = pick(rng, max(X.shape), 10**6, 2**31 - 1)
    elif lie == "negative index":
        X.indices[rng.integers(X.nnz)] = -int(pick(rng, 1, 10**6))
    elif lie == "falling pointers":
        X.indptr[1] = X.nnz + 1
    elif lie == "pointer beyond":
        X.indptr[-1] = X.nnz + int(pick(rng, 1, 10**6))
    else:
        X.data = X.data[: X.nnz // 2]
    return X, None, lie


def store(rng, A, takes_sparse=True):
    """Return a matrix in some form, the same as a float64 array (None if invalid), and a description."""
    share = rng.random() if takes_sparse or chance(rng, 0.1) else 0.45 * rng.random()
    if share < 0.25:
        return A, A, "plain"
    if share < 0.42:
        return dense(rng, A)
    if share < 0.45:
        name = pick(rng, *WRONG)
        with np.errstate(invalid="ignore"):
            return WRONG[name](A), None, name
    if share < 0.5 and min(A.shape) > 1:
        return broken(rng, A)
    if share < 0.53:
        return aslinearoperator(A), None, "operator"
    X, name = sparse(rng, A)
    return X, X.astype(np.float64).toarray(), name  # duplicate entries are summed, also those of type bool


def dense(rng, A):
    """Return the matrix as a dense array, a DataFrame or a list, in some order and dtype."""
    name = pick(rng, *DENSE)
    if name == "broadcast" and not len(A):
        name = "C"
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        X = DENSE[name](A)
        plain = np.asarray(X, np.float64).reshape(A.shape)
    if isinstance(X, np.ndarray) and X.flags.owndata and chance(rng, 0.3):
        X.flags.writeable = False
    return X, plain, name


# Parameters ------------------------------------------------------------------------------------------------
def wrong(rng):
    """Return a value that hardly any parameter accepts."""
    return pick(
        rng, None, "x", "", b"x", -1, 0, -0.5, 1.5, np.nan, np.inf, -np.inf, 2 + 1j, True, [], [1, 2], (), {}, object(),
        np.array([1.0, 2.0]), np.float32(1), np.int8(1), np.datetime64("2020-01-01"), int, np.array(1), "gaussian",
    )  # fmt: skip


def parameters(rng, usual, absurd=None, share=0.3):
    """Return some parameters with usual values, rarely an extreme or invalid one, and whether all are usual."""
    chosen = {name: pick(rng, *values) for name, values in usual.items() if chance(rng, share)}
    kind = pick(rng, "usual", "usual", "usual", "usual", "usual", "absurd", "absurd", "wrong")
    if kind == "absurd" and absurd:
        name = pick(rng, *absurd)
        chosen[name] = pick(rng, *absurd[name])
    elif kind == "wrong":
        chosen[pick(rng, *usual)] = wrong(rng)
    return chosen, kind == "usual"
