"""Affinities between words from texts."""

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

# Words that are counted at a time, and kept in memory before they go to a temporary file: 4 bytes each.
_CHUNK, _IN_MEMORY = 2**19, 2**24
# Pairs of words that are looked at together.
_PAIRS = 2**22
# Between documents, in the stream of word numbers.
_END = -1


class Cooccurrence(NamedTuple):
    """How often words are near each other.

    Parameters
    ----------
    affinity : csr_array of shape (n_words, n_words), float32
        Symmetric weighted counts, thinned by `subsample`: for ``AttentionEmbedding(affinity="precomputed")``.
    vocabulary : dict
        Row of each word; the most frequent first.
    p0 : ndarray of shape (n_words,)
        ``counts ** gamma``, divided by its sum: for ``AttentionEmbedding(null_model=p0)``.
    counts : ndarray of int of shape (n_words,)
        Occurrences of each word.

    See Also
    --------
    cooccurrence : Counts it in texts.

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
    """Count which words occur near each other.

    Parameters
    ----------
    documents : iterable of str, or of iterables of words
        Read once and never held: a generator that reads a file will do. Strings are cut into words by `analyzer`; words
        of documents that are cut already may be of any hashable kind.
    window : int, default=5
        Words to the left and to the right that count as near. Windows end with the document.
    min_count : int, default=5
        Words that occur less often are left out, before windows are laid.
    subsample : float or None, default=1e-5
        Thin out frequent words: one that makes up a share f of the text counts
        ``min(1, sqrt(subsample / f) + subsample / f)``. That is word2vec's probability to keep an occurrence [1]_; here
        counts are multiplied by it, which is its mean without its noise. None counts all alike.
    window_weight : {"uniform", "linear", "harmonic"}, default="uniform"
        What a pair k words apart counts: 1, ``1 - (k - 1) / window`` as for word2vec on average, or ``1 / k`` as for
        GloVe.
    gamma : float, default=0.75
        Exponent of the counts in `p0`.
    analyzer : {"word", "char", "char_wb"} or callable, default="word"
        How strings become words, as of :class:`sklearn.feature_extraction.text.CountVectorizer`; for stop words,
        n-grams and the like pass ``CountVectorizer(...).build_analyzer()``. A callable is given every document.
    n_jobs : int or None, default=None
        Threads. They change the time alone, not the result.

    Returns
    -------
    result : Cooccurrence
        Named tuple of `affinity`, `vocabulary`, `p0` and `counts`.

    Raises
    ------
    ValueError
        If `documents` is one string, a document is neither a string nor iterable, or no word is frequent enough.
    TypeError
        If a word is not hashable.

    See Also
    --------
    sklearn_attnembed.AttentionWordVectors : Embeds the words, in one step.
    sklearn.feature_extraction.text.CountVectorizer : Counts words in documents: a table for ``affinity="bipartite"``.

    Notes
    -----
    Memory is the vocabulary, the result and a constant: numbers of words, 4 bytes for each in the text, go to a
    temporary file beyond 64 MB.

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
        row = np.full(len(counts) + 1, -2, np.int32)  # the last is that of _END
        row[order], row[_END] = np.arange(len(order)), _END
        spool.seek(0)
        counts = counts[order]
        reach = int(min(window, counts.sum()))  # no document has more words
        distance = np.arange(reach)
        weights = {"uniform": np.ones(reach), "linear": 1 - distance / float(window), "harmonic": 1 / (distance + 1)}
        near = _count(_sequences(spool, row, reach), len(order), weights[window_weight], n_threads(n_jobs))
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
    """Where words are looked up: say what is wrong with one that cannot be."""
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
    """Whether there is something to go through, which there is not in an array without dimensions."""
    return isinstance(value, Iterable) and getattr(value, "ndim", 1) > 0


def documents_to_words(documents: Any, analyzer: Any) -> Iterator[Iterable[Any]]:
    """The words of each document."""
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
    """Write numbers of words to `spool`, with _END after each document; number of each word and how often it is."""
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
    """Rows of the words kept, in pieces, each with its left context before it, and how long that is."""
    left = np.zeros(0, np.int32)
    while raw := spool.read(4 * _CHUNK):
        new = row[np.frombuffer(raw, np.int32)]
        sequence = np.concatenate([left, new[new > -2]])
        yield sequence, len(left)
        left = sequence[-window:]


def _count(pieces: Iterator[tuple[np.ndarray, int]], n_words: int, weights: np.ndarray, n_threads: int) -> sp.csr_array:
    """Symmetric weighted counts. Pieces are counted on threads and summed in order, few of them at a time in memory."""
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
    """Words by words to their left: so many places at a time that memory does not depend on the window."""
    step, window = max(_PAIRS // len(weights), 1), len(weights)
    total = sp.csr_array((n_words, n_words))
    for first in range(n_left, len(sequence), step):
        left = min(first, window)
        total = total + _count_places(sequence[first - left : first + step], left, n_words, weights)
    return total


def _count_places(sequence: np.ndarray, n_left: int, n_words: int, weights: np.ndarray) -> sp.csr_array:
    """Occurrences, words by places, times contexts, places by words."""
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
