"""How many bytes a fit of an embedding takes at its peak, as a sum of what it allocates.

The stages follow each other, and what one of them needs for itself is gone in the next: the largest counts.
"""

from typing import NamedTuple

from ._core import inverted_index, pairwise_objective, parallel, sampling
from ._core.normalizers import exact

# Above so many rows k-means takes mini-batches and no copies.
_COPIED = 20_000


# Rows whose blocks are as large as those of more.
_MANY = 2**20


class Size(NamedTuple):
    """What is fitted.

    Attributes
    ----------
    sides : list of int
        Rows and, if they are embedded too, columns.
    d : int
        Dimension of the embedding.
    itemsize : int
        Bytes of a number of the embedding.
    n_affinities : int
        Of the input, not zero.
    kernel, normalizer, n_init, n_clusters, n_exact, walk_length
        As of the estimator.
    n_threads : int
    is_symmetrized : bool
        Whether the affinities are averaged with their transpose.
    """

    sides: list[int]
    d: int
    itemsize: int
    n_affinities: int
    kernel: str
    normalizer: str
    n_init: int
    n_clusters: int
    n_exact: int
    walk_length: int
    n_threads: int
    is_symmetrized: bool

    @property
    def n(self) -> int:
        """All rows."""
        return sum(self.sides)

    @property
    def vectors(self) -> int:
        """Bytes of one copy of the vectors."""
        return self.n * self.d * self.itemsize

    @property
    def is_bipartite(self) -> bool:
        """Whether there are two sides."""
        return len(self.sides) > 1

    def blocks(self, width: int, n_sides: int = 2) -> int:
        """Elements of the blocks that are worked on at a time."""
        most = max(_block_rows(side, width) for side in self.sides[:n_sides])
        return self.d * min(most * self.n_threads, sum(self.sides[:n_sides]))


def _block_rows(side: int, width: int) -> int:
    """Rows of the blocks that so many rows are cut into."""
    bounds = parallel.row_blocks([min(side, _MANY)], width)
    return max((rows.stop - rows.start for rows in bounds), default=0)


def peak(size: Size) -> int:
    """Bytes at the peak of a fit beyond its input."""
    kept = _affinities(size) + _of_each_row(size)
    return max(_reading(size), kept + _solving(size), kept + _responding(size))


def _entries(size: Size) -> int:
    """A CSR array of the embedding's precision and 32-bit indices."""
    return size.n_affinities * (size.itemsize + 4)


def _reading(size: Size) -> int:
    """Affinities divided by their row sums, and what they are made from."""
    z, n = size.n_affinities, size.n
    dividing = 12 * z + _entries(size) + 32 * n  # in double precision, and the result
    if not size.is_bipartite:
        return dividing
    # The second direction is divided while the first is there; then both are there, and joined.
    return max(_entries(size) + dividing, 4 * _entries(size) + 32 * n)


def _affinities(size: Size) -> int:
    """What is kept of them."""
    # Those that a row brings to be transformed, and, if the solver has others, those: of both directions.
    return _entries(size) * (3 if size.is_bipartite or size.is_symmetrized else 1)


def _of_each_row(size: Size) -> int:
    """Null model, labels, where the rows of matrices begin."""
    return 24 * size.n


def _solving(size: Size) -> int:
    """Copies of the vectors, and the larger of what a sweep and looking things up need besides."""
    if size.kernel == "expressive":  # two for each start, and one to write
        return (2 * size.n_init + 1) * size.vectors + _pairs(size, size.itemsize) + 4 * size.blocks(size.d)
    n_copies = 5 if size.walk_length > 1 else 4  # as it is, before, next and best; where walks lead
    return n_copies * size.vectors + _lists(size) + max(_sweep(size), _looking(size))


def _lists(size: Size) -> int:
    """Near keys of every row."""
    return 4 * size.n * size.n_exact if size.normalizer == "neighbors" else 0


def _sweep(size: Size) -> int:
    """Blocks of rows, and what the normaliser needs for them."""
    block, s = size.blocks(size.d), size.itemsize
    if size.normalizer == "exact":
        return _scores(size, s) + (9 + s) * block
    if size.normalizer == "neighbors":
        return _near_and_sampled(size, s) + 2 * s * block
    return (4 + (size.n_clusters if size.n_clusters > 1 else 0)) * s * block


def _scores(size: Size, itemsize: int) -> int:
    """Return the bytes of a block of scores with all keys, and of their exponentials in double precision."""
    return (8 + itemsize) * exact._BLOCK_ELEMENTS * size.n_threads


def _near_and_sampled(size: Size, itemsize: int) -> int:
    """Near keys gathered; of each its label, score and shares, and of the sample the powers of scores."""
    elements = 2 * exact._BLOCK_ELEMENTS * size.n_threads
    numbers, sampled = elements / size.d, elements / (size.d * size.n_exact) * sampling.SAMPLE_SIZE
    return int(elements * itemsize + 48 * numbers + 10.5 * itemsize * sampled)


def _looking(size: Size) -> int:
    """Clusters, and near keys found anew while the old lists are there."""
    copied = max((side for side in size.sides if side <= _COPIED), default=0)  # twice, by k-means
    clusters = 2 * copied * size.d * size.itemsize if size.n_clusters > 1 else 0
    if size.normalizer != "neighbors":
        return clusters
    n_looked_at = max(inverted_index.n_keys_scanned(size.n_exact) * inverted_index._AGAIN, size.n_exact)
    block = inverted_index._BLOCK_ELEMENTS
    # Scores and their order, and the vectors of the known lists gathered.
    scores = int(block * (size.itemsize + 8) + block / n_looked_at * size.n_exact * size.d * size.itemsize)
    lists = _lists(size) + 32 * size.n + scores * size.n_threads
    # k-means on every eighth row in double precision, copied twice.
    centers = 3 * size.n // 8 * size.d * 8
    return max(clusters, lists, centers)


def _responding(size: Size) -> int:
    """The solution, the model and the vectors that are the result."""
    out = size.sides[0] * size.d * size.itemsize
    double = size.n * size.d * 8
    in_double = double if size.itemsize < 8 else 0  # where walks lead, in the precision that iterations want
    known = 2 * size.vectors + out + (size.vectors if size.walk_length > 1 else 0)
    block = size.blocks(size.d, 1)
    if size.kernel == "expressive":
        return known + in_double + _pairs(size, 8) + 38 * block
    if size.normalizer == "gaussian" and size.n_clusters == 1:
        return known + (6 * size.itemsize + 16) * block
    # L-BFGS remembers 16 vectors of a row; 21 more are temporary, and one for each cluster.
    history = 8 * (37 + size.n_clusters)
    if size.normalizer == "gaussian":
        return known + in_double + history * size.blocks(size.d * size.n_clusters, 1)
    known += in_double + _lists(size) + size.sides[-1] * size.d * 8  # the keys, in double precision
    if size.is_bipartite:
        scores = _scores(size, 8) if size.normalizer == "exact" else _near_and_sampled(size, 8)
        return known + scores + history * size.blocks(size.d * size.n_clusters, 1)
    # Rows are recognised by four numbers of each, in a tree.
    return known + 96 * size.n + 3 * 8 * block


def _pairs(size: Size, itemsize: int) -> int:
    """Affinities of a block: vectors of both ends, gathered by parts, scores, slopes and curvatures."""
    share = max(_block_rows(side, size.d) / max(side, 1) for side in size.sides)
    n_pairs = int(size.n_affinities * min(share * size.n_threads, 1))
    gathered = min(pairwise_objective.PAIR_ELEMENTS * size.n_threads, n_pairs * size.d)
    return 2 * gathered * itemsize + 48 * n_pairs
