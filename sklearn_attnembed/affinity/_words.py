"""Affinities between words, from their co-occurrences in texts."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.feature_extraction.text import CountVectorizer

from .._core.parallel import n_threads
from .._sklearn import Interval, StrOptions, validate_params
from .._sparse import compact
from .._typing import Analyzer, Documents, Float64

# Number of words that are counted at a time, and that are kept in memory, at 4 bytes each, before a temporary file is
# used.
_CHUNK, _IN_MEMORY = 2**19, 2**24
# Number of pairs of words that are compared at a time.
_PAIRS = 2**22
# Marker of the end of a document in the stream of word numbers.
_END = -1


class Cooccurrence(NamedTuple):
    """Co-occurrences of words, the result of :func:`cooccurrence`.

    Parameters
    ----------
    affinity : csr_array of shape (n_words, n_words), float32
        Symmetric matrix of weighted co-occurrences, down-weighted by `subsample`, for
        ``AttentionEmbedding(affinity="precomputed")``.
    vocabulary : dict
        Mapping of each word to its row, with the most frequent word first.
    p0 : ndarray of shape (n_words,)
        Null model ``counts ** gamma``, divided by its sum, for ``AttentionEmbedding(null_model=p0)``.
    counts : ndarray of int of shape (n_words,)
        Number of occurrences of each word.

    See Also
    --------
    cooccurrence : Count co-occurrences in texts.

    Examples
    --------
    >>> from sklearn_attnembed.affinity import cooccurrence
    >>> words = cooccurrence([["a", "b", "a"], ["a", "c"]], min_count=1, gamma=1)
    >>> words.vocabulary, words.counts.tolist(), words.p0.round(3).tolist()
    ({'a': 0, 'b': 1, 'c': 2}, [3, 1, 1], [0.6, 0.2, 0.2])
    """

    affinity: sp.csr_array
    vocabulary: dict[Any, int]
    p0: Float64
    counts: NDArray[np.int64]


PARAMETER_CONSTRAINTS = {
    "window": [Interval(Integral, 1, None, closed="left")],
    "min_count": [Interval(Integral, 1, None, closed="left")],
    "subsample": [None, Interval(Real, 0, None, closed="neither")],
    "window_weight": [StrOptions({"uniform", "linear", "harmonic"})],
    "gamma": [Interval(Real, 0, None, closed="left")],
    "analyzer": [StrOptions({"word", "char", "char_wb"}), callable],
    "n_jobs": [Integral, None],
}


@validate_params({"documents": "no_validation", **PARAMETER_CONSTRAINTS}, prefer_skip_nested_validation=True)
def cooccurrence(
    documents: Documents,
    window: int = 5,
    *,
    min_count: int = 5,
    subsample: float | None = 1e-5,
    window_weight: Literal["uniform", "linear", "harmonic"] = "uniform",
    gamma: float = 0.75,
    analyzer: Analyzer = "word",
    n_jobs: int | None = None,
) -> Cooccurrence:
    """Count how often words occur near each other.

    Parameters
    ----------
    documents : iterable of str, or of iterables of words
        Texts. They are read once and not kept in memory, so a generator that reads a file can be passed. Strings are
        split into words by `analyzer`. Documents that are split already may contain words of any hashable type.
    window : int, default=5
        Size of the context window: two words co-occur if they are at most this many words apart in a document.
    min_count : int, default=5
        Minimal number of occurrences of a word. Words that occur less often are dropped before co-occurrences are
        counted.
    subsample : float or None, default=1e-5
        Threshold for down-weighting frequent words. The co-occurrences of a word that makes up a fraction f of the text
        are multiplied by ``min(1, sqrt(subsample / f) + subsample / f)``. This is the probability with which word2vec
        keeps an occurrence [1]_; multiplying by it gives the mean of that sampling without its noise. None counts all
        words equally.
    window_weight : {"uniform", "linear", "harmonic"}, default="uniform"
        Weight of a pair of words that are k words apart: 1, or ``1 - (k - 1) / window`` as in word2vec on average, or
        ``1 / k`` as in GloVe.
    gamma : float, default=0.75
        Exponent of the counts in `p0`.
    analyzer : {"word", "char", "char_wb"} or callable, default="word"
        How strings are split into words, as in :class:`sklearn.feature_extraction.text.CountVectorizer`. For stop words
        or n-grams pass ``CountVectorizer(...).build_analyzer()``. A callable is applied to every document.
    n_jobs : int or None, default=None
        Number of threads. The result does not depend on it.

    Returns
    -------
    result : Cooccurrence
        Named tuple of `affinity`, `vocabulary`, `p0` and `counts`.

    Raises
    ------
    ValueError
        If `documents` is a single string, if a document is neither a string nor iterable, or if no word is frequent
        enough.
    TypeError
        If a word is not hashable.

    See Also
    --------
    sklearn_attnembed.AttentionWordVectors : Count co-occurrences and embed the words in one step.
    sklearn.feature_extraction.text.CountVectorizer : Count words in documents, for ``affinity="bipartite"``.

    Notes
    -----
    Memory is that of the vocabulary and of the result plus a constant. The text is encoded in 4 bytes for each word and
    kept in a temporary file if it exceeds 64 MB.

    References
    ----------
    .. [1] T. Mikolov et al., "Distributed representations of words and phrases and their compositionality", NeurIPS
       2013, sections 2.2 and 2.3.

    Examples
    --------
    >>> from sklearn_attnembed.affinity import cooccurrence
    >>> result = cooccurrence(["to be or not to be"], window=1, min_count=1, subsample=None)
    >>> result.vocabulary
    {'to': 0, 'be': 1, 'or': 2, 'not': 3}
    >>> result.affinity.toarray().astype(int)
    array([[0, 2, 0, 1],
           [2, 0, 1, 0],
           [0, 1, 0, 1],
           [1, 0, 1, 0]])
    """
    with tempfile.SpooledTemporaryFile(max_size=4 * _IN_MEMORY) as spool:
        numbers, counts = _encode(documents, analyzer, spool)
        order = np.argsort(-counts, kind="stable")
        order = order[counts[order] >= min_count]
        if len(order) == 0:
            raise ValueError(
                f"No word occurs min_count={min_count} times or more: the documents hold {counts.sum()} words, the "
                f"most frequent of them {counts.max(initial=0)} times. Lower min_count or pass more text."
            )
        row = np.full(len(counts) + 1, -2, np.int32)  # -2 marks dropped words; the last entry is that of _END
        row[order], row[_END] = np.arange(len(order)), _END
        spool.seek(0)
        counts = counts[order]
        width = int(min(window, counts.sum()))  # no document has more words
        distance = np.arange(width)
        weights = {"uniform": np.ones(width), "linear": 1 - distance / float(window), "harmonic": 1 / (distance + 1)}
        near = _count(_sequences(spool, row, width), len(order), weights[window_weight], n_threads(n_jobs))
    if subsample is not None:
        share = counts / counts.sum()
        kept = sp.diags_array(np.minimum(1, np.sqrt(subsample / share) + subsample / share))
        near = kept @ near @ kept
    words = list(numbers)
    p0 = (counts / counts[0]) ** gamma
    return Cooccurrence(
        compact(near.astype(np.float32)), {words[k]: i for i, k in enumerate(order)}, p0 / p0.sum(), counts
    )


@contextmanager
def hashable_words() -> Iterator[None]:
    """Return a context in which the error for an unhashable word names the remedy."""
    try:
        yield
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        raise TypeError(
            f"documents must hold words of a hashable kind, as strings are, but one is not: {error}. Pass a list of "
            "lists of strings."
        ) from error


def _is_iterable(value: Any) -> bool:
    """Return whether a value can be iterated over, which an array without dimensions cannot."""
    return isinstance(value, Iterable) and getattr(value, "ndim", 1) > 0


def documents_to_words(documents: Any, analyzer: Any) -> Iterator[Iterable[Any]]:
    """Yield the words of each document."""
    if isinstance(documents, str | bytes):
        raise ValueError(
            f"documents must be an iterable of documents, but is one string: {documents[:30]!r}. If it is one, pass it "
            "in a list."
        )
    if isinstance(documents, Mapping) or hasattr(documents, "columns"):
        raise ValueError(
            f"documents must be an iterable of documents, but is a {type(documents).__name__}, of which one would get "
            "the names. Pass the column, or the values, that hold the texts."
        )
    if not _is_iterable(documents):
        raise ValueError(
            f"documents must be an iterable of documents, but is of type {type(documents).__name__}. Pass a list of "
            "texts."
        )
    analyze: Callable = analyzer if callable(analyzer) else CountVectorizer(analyzer=analyzer).build_analyzer()
    for place, document in enumerate(documents):
        if isinstance(document, str | bytes) or callable(analyzer):
            yield analyze(document)
        elif _is_iterable(document):
            yield document
        else:
            raise ValueError(
                f"documents must be strings or iterables of words, but number {place} is {document!r}. Drop it, or put "
                "'' in its place."
            )


def _encode(documents: Any, analyzer: Any, spool: Any) -> tuple[dict[Any, int], np.ndarray]:
    """Write the numbers of the words to `spool`, with _END after each document.

    Return the number of each word and how often it occurs.
    """
    numbers: defaultdict[Any, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    counts = np.zeros(0, np.int64)
    buffer: list[int] = []

    def flush() -> None:
        nonlocal counts
        chunk = np.array(buffer, np.int32)
        spool.write(chunk.tobytes())
        new = np.bincount(chunk[chunk >= 0], minlength=len(numbers))
        new[: len(counts)] += counts
        counts = new
        buffer.clear()

    with hashable_words():
        for words in documents_to_words(documents, analyzer):
            stream = map(numbers.__getitem__, words)
            while piece := list(islice(stream, _CHUNK)):  # a document may be long
                buffer.extend(piece)
                if len(buffer) >= _CHUNK:
                    flush()
            buffer.append(_END)
    flush()
    return numbers, counts


def _sequences(spool: Any, row: np.ndarray, window: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the rows of the words in pieces, each after its left context, and the length of that context."""
    left = np.zeros(0, np.int32)
    while raw := spool.read(4 * _CHUNK):
        new = row[np.frombuffer(raw, np.int32)]
        sequence = np.concatenate([left, new[new > -2]])
        yield sequence, len(left)
        left = sequence[-window:]


def _count(pieces: Iterator[tuple[np.ndarray, int]], n_words: int, weights: np.ndarray, n_threads: int) -> sp.csr_array:
    """Return symmetric weighted counts. Threads count pieces, which are summed in order, few in memory at a time."""
    total = sp.csr_array((n_words, n_words))
    waiting: list[Future] = []
    with ThreadPoolExecutor(n_threads) as pool:
        for sequence, n_left in pieces:
            waiting.append(pool.submit(_count_piece, sequence, n_left, n_words, weights))
            if len(waiting) > n_threads:
                total = total + waiting.pop(0).result()
        for piece in waiting:
            total = total + piece.result()
    return total + total.T


def _count_piece(sequence: np.ndarray, n_left: int, n_words: int, weights: np.ndarray) -> sp.csr_array:
    """Count words by words to their left, in parts so small that memory does not depend on the window."""
    step, window = max(_PAIRS // len(weights), 1), len(weights)
    total = sp.csr_array((n_words, n_words))
    for first in range(n_left, len(sequence), step):
        left = min(first, window)
        total = total + _count_places(sequence[first - left : first + step], left, n_words, weights)
    return total


def _count_places(sequence: np.ndarray, n_left: int, n_words: int, weights: np.ndarray) -> sp.csr_array:
    """Count by a product of two matrices: occurrences (words by places) times contexts (places by words)."""
    place = np.arange(n_left, len(sequence))
    back = place[:, None] - np.arange(1, len(weights) + 1)
    context = sequence[np.maximum(back, 0)]
    document = np.cumsum(sequence == _END)
    word = sequence[n_left:]
    near = (
        (back >= 0)
        & (context >= 0)
        & (word >= 0)[:, None]
        & (document[np.maximum(back, 0)] == document[place][:, None])
    )
    indptr = np.concatenate([[0], np.cumsum(near.sum(axis=1))])
    contexts = sp.csr_array(
        (np.broadcast_to(weights, near.shape)[near], context[near], indptr), shape=(len(word), n_words)
    )
    there = np.flatnonzero(word >= 0)
    occurrences = sp.csr_array((np.ones(len(there)), (word[there], there)), shape=(n_words, len(word)))
    return occurrences @ contexts
