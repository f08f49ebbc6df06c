"""Peak memory of the fit of an embedding, as the sum of the arrays that it allocates.

The stages of a fit follow each other, and each frees its temporary arrays. The stage with the largest sum counts.
"""

from typing import NamedTuple

from ._core import exact_loss, inverted_index, pairwise_objective, parallel, sampling, signature
from ._core.normalizers import Normalizer, exact, sampled

# Number of rows above which k-means uses mini-batches, and makes no copies.
_COPIED = 20_000


# Number of rows above which the size of blocks does not grow any more.
_MANY = 2**20


class Size(NamedTuple):
    """Sizes of the data, and the parameters that memory depends on.

    Attributes
    ----------
    sides : list of int
        Number of rows and, if they are embedded too, of columns.
    d : int
        Dimension of the embedding.
    itemsize : int
        Bytes of one number of the embedding.
    n_affinities : int
        Number of nonzero affinities of the input.
    kernel, normalizer, n_init, n_clusters, n_exact, walk_length
        Parameters of the estimator.
    n_threads : int
        Number of threads.
    is_symmetrized : bool
        Whether the affinities are averaged with their transpose.
    is_joint : bool
        Whether vectors move as queries and as keys.
    checks_loss : bool
        Whether the exact loss of a sample of rows is computed.
    finds_kinds : bool
        Whether the largest eigenvalues of the affinities are looked at first.
    """

    sides: list[int]
    d: int
    itemsize: int
    n_affinities: int
    kernel: str
    normalizer: Normalizer
    n_init: int
    n_clusters: int
    n_exact: int
    walk_length: int
    n_threads: int
    is_symmetrized: bool
    is_joint: bool
    checks_loss: bool
    finds_kinds: bool

    @property
    def n(self) -> int:
        """Number of all rows and columns that are embedded."""
        return sum(self.sides)

    @property
    def vectors(self) -> int:
        """Bytes of one copy of all vectors."""
        return self.n * self.d * self.itemsize

    @property
    def is_bipartite(self) -> bool:
        """Whether rows and columns are embedded."""
        return len(self.sides) > 1

    def blocks(self, width: int, n_sides: int = 2) -> int:
        """Return the number of elements of the blocks that all threads process at a time."""
        most = max(_block_rows(side, width) for side in self.sides[:n_sides])
        return self.d * min(most * self.n_threads, sum(self.sides[:n_sides]))


def _block_rows(side: int, width: int) -> int:
    """Return the number of rows of the largest block that `side` rows are cut into."""
    bounds = parallel.row_blocks([min(side, _MANY)], width)
    return max((rows.stop - rows.start for rows in bounds), default=0)


def peak(size: Size) -> int:
    """Return the peak memory of a fit beyond its input, in bytes."""
    kept = _affinities(size) + _row_arrays(size)
    return max(_reading(size), kept + _finding_kinds(size), kept + _solving(size), kept + _finishing(size))


def _entries(size: Size) -> int:
    """Return the bytes of the affinities as a CSR array in the embedding's precision, with 32-bit indices."""
    return size.n_affinities * (size.itemsize + 4)


def _reading(size: Size) -> int:
    """Return the bytes of the stage that divides affinities by their row sums."""
    z, n = size.n_affinities, size.n
    dividing = 12 * z + _entries(size) + 32 * n  # a copy in double precision, and the result
    if not size.is_bipartite:
        return dividing
    # The second direction is divided while the first is kept, and then both are copied into one matrix.
    return max(_entries(size) + dividing, 4 * _entries(size) + 32 * n)


def _affinities(size: Size) -> int:
    """Return the bytes of the affinities that are kept."""
    # These are the affinities of rows to keys and, if the solver uses others, those too: in both directions.
    has_two = size.is_bipartite or size.is_symmetrized
    transposed = (2 if has_two else 1) if size.is_joint else 0
    return _entries(size) * ((3 if has_two else 1) + transposed)


def _row_arrays(size: Size) -> int:
    """Return the bytes of the null model, of labels and of pointers to rows."""
    return 24 * size.n


def _solving(size: Size) -> int:
    """Return the bytes of the solver: copies of the vectors, and the larger of a sweep's and an index's arrays."""
    if size.kernel == "expressive":  # two copies for each initialization, and one to write to
        return (2 * size.n_init + 1) * size.vectors + _pairs(size, size.itemsize) + 4 * size.blocks(size.d)
    n_copies = 5 if size.walk_length > 1 else 4  # current, last, following and best vectors, and averages of walks
    if size.is_joint:  # averages of walks back, and gradients of sums over near keys or clusters
        n_copies += (size.walk_length > 1) + (size.normalizer.sums_keys or size.n_clusters > 1)
    return n_copies * size.vectors + _lists(size) + max(_sweep(size), _indexing(size), _check(size))


def _finding_kinds(size: Size) -> int:
    """Return the bytes of the search for the largest eigenvalues: first vectors, and a basis made orthogonal."""
    return size.vectors + 3 * signature.N_COLUMNS * size.n * size.itemsize if size.finds_kinds else 0


def _lists(size: Size) -> int:
    """Return the bytes of the nearest keys of all rows."""
    return 4 * size.n * size.n_exact if size.normalizer.has_cells else 0


def _sweep(size: Size) -> int:
    """Return the bytes of a sweep: blocks of rows, and what the normalizer needs for them."""
    block, s = size.blocks(size.d), size.itemsize
    if size.normalizer.is_exact:
        return _scores(size, s) + (9 + s) * block
    if size.normalizer.has_cells:
        return _near_and_sampled(size, s) + 2 * s * block
    if size.normalizer.sums_keys:
        return _sampled(size, s) + 3 * s * block
    return (4 + (size.n_clusters if size.n_clusters > 1 else 0)) * s * block


def _check(size: Size) -> int:
    """Return the bytes of the scores of a few rows with all keys, and of their exponentials in double precision."""
    scores = min(exact_loss.AT_ONCE * max(size.sides), exact._BLOCK_ELEMENTS)
    return (16 + size.itemsize) * scores * size.n_threads if size.checks_loss else 0


def _scores(size: Size, itemsize: int) -> int:
    """Return the bytes of a block of scores with all keys, and of their exponentials in double precision."""
    return (8 + itemsize) * exact._BLOCK_ELEMENTS * size.n_threads


def _near_and_sampled(size: Size, itemsize: int) -> int:
    """Return the bytes of gathered near keys, of their labels, scores and shares, and of powers of sampled scores."""
    elements = 2 * exact._BLOCK_ELEMENTS * size.n_threads
    numbers, scores = elements / size.d, elements / (size.d * size.n_exact) * sampling.SAMPLE_SIZE
    return int(elements * itemsize + 48 * numbers + 10.5 * itemsize * scores)


def _sampled(size: Size, itemsize: int) -> int:
    """Return the bytes of a sample of the keys, of its choice, and of blocks of scores and their exponentials."""
    drawn = min(sampled.N_SAMPLED, max(size.sides))
    return drawn * (3 * size.d * itemsize + 3 * sampled._ROWS * itemsize * size.n_threads) + 40 * max(size.sides)


def _indexing(size: Size) -> int:
    """Return the bytes of the search for clusters and for near keys, while the old lists are kept."""
    copied = max((side for side in size.sides if side <= _COPIED), default=0)  # k-means makes two copies
    clusters = 2 * copied * size.d * size.itemsize if size.n_clusters > 1 else 0
    if not size.normalizer.has_cells:
        return clusters
    n_scanned = max(inverted_index.n_keys_scanned(size.n_exact) * inverted_index.SHARE_OF_RESCAN, size.n_exact)
    block = inverted_index._BLOCK_ELEMENTS
    # Scores and their order, and the gathered vectors of the keys that were near before.
    scores = int(block * (size.itemsize + 8) + block / n_scanned * size.n_exact * size.d * size.itemsize)
    lists = _lists(size) + 32 * size.n + scores * size.n_threads
    # k-means makes two copies of every eighth row in double precision.
    centers = 3 * size.n // 8 * size.d * 8
    return max(clusters, lists, centers)


def _finishing(size: Size) -> int:
    """Return the bytes of the last stage: the solution, the fitted model and the vectors of the samples."""
    out = size.sides[0] * size.d * size.itemsize
    double = size.n * size.d * 8
    in_double = double if size.itemsize < 8 else 0  # averages of walks, in the precision that iterations need
    known = 2 * size.vectors + out + (size.vectors if size.walk_length > 1 else 0)
    block = size.blocks(size.d, 1)
    if size.kernel == "expressive":
        return known + in_double + _pairs(size, 8) + 38 * block
    if not size.normalizer.sums_keys and size.n_clusters == 1:
        return known + (6 * size.itemsize + 16) * block
    # The history of L-BFGS has 16 vectors for each row, and 21 more are temporary, plus one for each cluster.
    history = 8 * (37 + size.n_clusters)
    if not size.normalizer.sums_keys:
        return known + in_double + history * size.blocks(size.d * size.n_clusters, 1)
    is_sampled = not size.normalizer.keeps_keys
    n_keys = min(size.sides[-1], sampled.N_SAMPLED) if is_sampled else size.sides[-1]
    known += in_double + _lists(size) + n_keys * size.d * 8  # the keys in double precision
    if size.is_bipartite or is_sampled:
        scores = _near_and_sampled(size, 8) if size.normalizer.has_cells else _scores(size, 8)
        return known + scores + history * size.blocks(size.d * size.n_clusters, 1)
    # Training rows are recognized by four numbers each, in a tree.
    return known + 96 * size.n + 3 * 8 * block


def _pairs(size: Size, itemsize: int) -> int:
    """Return the bytes of the pairs of a block: gathered vectors of both ends, scores, slopes and curvatures."""
    share = max(_block_rows(side, size.d) / max(side, 1) for side in size.sides)
    n_pairs = int(size.n_affinities * min(share * size.n_threads, 1))
    gathered = min(pairwise_objective.PAIR_ELEMENTS * size.n_threads, n_pairs * size.d)
    return 2 * gathered * itemsize + 48 * n_pairs
