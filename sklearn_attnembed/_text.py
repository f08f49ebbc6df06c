"""AttentionWordVectors, which learns word vectors from documents and turns documents into features."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterator, Sequence
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self, TextIO

import numpy as np
import scipy.sparse as sp
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import normalize
from sklearn.utils import metadata_routing
from sklearn.utils.validation import check_is_fitted

from ._embedding import AttentionEmbedding
from ._sklearn import BaseEstimator, Interval, _fit_context, warn, whole_or_as_before
from ._typing import Analyzer, Documents, RandomState, Vectors
from .affinity import cooccurrence
from .affinity._words import PARAMETER_CONSTRAINTS, documents_to_words, hashable_words


class AttentionWordVectors(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Word vectors learned from texts, and mean word vectors as features of documents.

    Words are embedded so that each word attends to the words that occur near it [1]_: their co-occurrences, counted by
    :func:`~sklearn_attnembed.affinity.cooccurrence`, are embedded by :class:`AttentionEmbedding`.

    Read more in the :ref:`User Guide <words>`.

    Parameters
    ----------
    n_components : int, default=100
        Dimension of the vectors.
    window : int, default=5
        Size of the context window: two words co-occur if they are at most this many words apart in a document.
    min_count : int, default=5
        Minimal number of occurrences of a word. Words that occur less often get no vector.
    subsample : float or None, default=1e-5
        Threshold for down-weighting frequent words: words that make up a larger fraction of the text count less, see
        :func:`~sklearn_attnembed.affinity.cooccurrence`. None counts all words equally.
    window_weight : {"uniform", "linear", "harmonic"}, default="uniform"
        Weight of a co-occurrence as a function of the distance of its words, see
        :func:`~sklearn_attnembed.affinity.cooccurrence`.
    gamma : float, default=0.75
        Exponent of the null model. The repulsion between words averages over all words in proportion to their counts to
        this power.
    analyzer : {"word", "char", "char_wb"} or callable, default="word"
        How strings are split into words, as in :class:`sklearn.feature_extraction.text.CountVectorizer`. Documents that
        are lists of words are not split further.
    temperature : float, default=0.125
        Temperature of the attention. Scores are divided by it, so lower values make finer distinctions; small texts
        need higher values.
    max_iter : int, default=100
        Maximum number of iterations.
    tol : float, default=1e-3
        Tolerance of the stopping rule, see :class:`AttentionEmbedding`.
    random_state : int, RandomState instance or None, default=None
        Seed of the random number generator. Results with the same seed are identical for every `n_jobs`.
    n_jobs : int or None, default=None
        Number of threads.
    verbose : int, default=0
        Verbosity. If positive, every iteration is printed.

    Attributes
    ----------
    vocabulary_ : dict
        Mapping of each word to its row in `embedding_`, with the most frequent word first.
    embedding_ : ndarray of shape (n_words, n_components), float32
        Vectors of the words, of unit norm. Isolated words have zero vectors.
    isolated_ : ndarray of bool of shape (n_words,)
        Whether a word never co-occurs with another word of the vocabulary.
    n_iter_ : int
        Number of iterations run.
    loss_curve_ : list of float
        Mean surrogate loss per word, in nats, at the start of each iteration.

    See Also
    --------
    AttentionEmbedding : Embed documents and words together, with ``affinity="bipartite"``, from a table of counts.
    sklearn.feature_extraction.text.TfidfVectorizer : Features of documents with one column for each word.

    References
    ----------
    .. [1] L. Dall'Amico, E. M. Belliardo, "Learning distributed representations with efficient SoftMax
       normalization", TMLR 2025, arXiv:2303.17475, section 3.3.

    Examples
    --------
    >>> from sklearn_attnembed import AttentionWordVectors
    >>> texts = ["cats purr and dogs bark", "dogs and cats run", "a cat is not a dog"] * 20
    >>> model = AttentionWordVectors(8, random_state=0).fit(texts)
    >>> model.transform(["dogs purr", "cats bark"]).shape
    (2, 8)
    >>> sorted(word for word, cosine in model.most_similar("cats", topn=2))
    ['and', 'dogs']
    """

    # Documents take the place of X, so they are not metadata to be routed.
    __metadata_request__fit = {"documents": metadata_routing.UNUSED}
    __metadata_request__transform = {"documents": metadata_routing.UNUSED}

    _parameter_constraints = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        **PARAMETER_CONSTRAINTS,
        "temperature": [Interval(Real, 1e-9, 1e9, closed="both")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        n_components: int = 100,
        *,
        window: int = 5,
        min_count: int = 5,
        subsample: float | None = 1e-5,
        window_weight: Literal["uniform", "linear", "harmonic"] = "uniform",
        gamma: float = 0.75,
        analyzer: Analyzer = "word",
        temperature: float = 0.125,
        max_iter: int = 100,
        tol: float = 1e-3,
        random_state: RandomState = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_components = n_components
        self.window = window
        self.min_count = min_count
        self.subsample = subsample
        self.window_weight = window_weight
        self.gamma = gamma
        self.analyzer = analyzer
        self.temperature = temperature
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    @whole_or_as_before()
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, documents: Documents, y: Any = None) -> Self:
        """Learn a vector for each word.

        Parameters
        ----------
        documents : iterable of str, or of iterables of words
            Texts. They are read once and not kept in memory.
        y : Ignored
            Present for API consistency.

        Returns
        -------
        self : AttentionWordVectors
            The fitted model.

        Raises
        ------
        ValueError
            If `documents` is a single string, or if fewer than two words are frequent enough.

        Warns
        -----
        ConvergenceWarning
            If `max_iter` is reached before convergence.
        UserWarning
            If words of the vocabulary never co-occur with another.
        """
        affinity, vocabulary, p0, _ = cooccurrence(
            documents,
            self.window,
            min_count=self.min_count,
            subsample=self.subsample,
            window_weight=self.window_weight,
            gamma=self.gamma,
            analyzer=self.analyzer,
            n_jobs=self.n_jobs,
        )
        if len(vocabulary) < 2:
            raise ValueError(
                f"documents must hold two different words that occur min_count={self.min_count} times or more, but "
                f"only {next(iter(vocabulary))!r} does. Pass more text, or lower min_count."
            )
        if affinity.nnz == 0:
            raise ValueError(
                f"No two of the {len(vocabulary)} words that occur min_count={self.min_count} times are ever in one "
                "document, so none is near another. Pass longer documents, or lower min_count."
            )
        model = AttentionEmbedding(
            self.n_components,
            affinity="precomputed",
            temperature=self.temperature,
            null_model=p0,
            key_weight="degree",
            max_iter=self.max_iter,
            tol=self.tol,
            check_loss=False,
            n_negative=0,
            random_state=self.random_state,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )
        with warnings.catch_warnings():  # the same warnings, worded for words, follow below
            warnings.filterwarnings("ignore", ".* rows have no affinity")
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(affinity)
        self.vocabulary_, self.embedding_, self.isolated_ = vocabulary, model.embedding_, model.isolated_
        self._analyzer = self.analyzer
        self.n_iter_, self.loss_curve_ = model.n_iter_, model.loss_curve_
        if self.isolated_.any():
            warn(
                f"{self.isolated_.sum()} of {len(vocabulary)} words are never near another word that is kept: their "
                "vectors are zero, see isolated_. Raise window, or lower min_count."
            )
        if not model.converged_ and self.tol > 0:
            warn(
                f"AttentionWordVectors did not converge in max_iter={self.max_iter} iterations, tol={self.tol:g}. "
                "Raise max_iter, tol or the temperature.",
                ConvergenceWarning,
            )
        return self

    def fit_transform(self, documents: Documents, y: Any = None) -> Vectors:
        """Learn a vector for each word and return the vectors of the documents.

        The result is that of ``fit(documents).transform(documents)``.

        Parameters
        ----------
        documents : iterable of str, or of iterables of words
            Texts. They are read twice, so an iterator, such as a generator, is first turned into a list.
        y : Ignored
            Present for API consistency.

        Returns
        -------
        X : ndarray of shape (n_documents, n_components), float32
            Mean word vectors. They are zero for documents without any known word, which causes a warning.
        """
        documents = list(documents) if isinstance(documents, Iterator) else documents
        return self.fit(documents).transform(documents)

    def transform(self, documents: Documents) -> Vectors:
        """Compute the mean of the word vectors of each document, over all occurrences of known words.

        Parameters
        ----------
        documents : iterable of str, or of iterables of words
            Texts. They are read once and not kept in memory.

        Returns
        -------
        X : ndarray of shape (n_documents, n_components), float32
            Mean word vectors. They are zero for documents without any known word, which causes a warning.
        """
        check_is_fitted(self)
        rows: list[int] = []
        ends = [0]
        with hashable_words():
            for words in documents_to_words(documents, self._analyzer):
                rows.extend(row for word in words if (row := self.vocabulary_.get(word)) is not None)
                ends.append(len(rows))
        counts = sp.csr_array(
            (np.ones(len(rows), np.float32), np.array(rows, np.intp), ends), (len(ends) - 1, len(self.embedding_))
        )
        n_unknown = np.count_nonzero(np.diff(ends) == 0)
        if n_unknown:
            warn(
                f"{n_unknown} of {len(ends) - 1} documents hold no word of the vocabulary: their vectors are zero. "
                "Drop them, or fit with them and a lower min_count."
            )
        if not len(ends) - 1:
            return np.zeros((0, self.embedding_.shape[1]), self.embedding_.dtype)
        return np.asarray(normalize(counts, "l1") @ self.embedding_)

    def most_similar(
        self, word: Hashable | Sequence[Hashable], topn: int = 10, *, negative: Hashable | Sequence[Hashable] = ()
    ) -> list[tuple[Any, float]]:
        """Find the words whose vectors have the largest cosine similarity with given words.

        Parameters
        ----------
        word : str or list of str
            One word, or several words whose unit vectors are added.
        topn : int, default=10
            Number of words to return.
        negative : list of str, default=()
            Words whose unit vectors are subtracted. The analogy "king" - "man" + "woman" is
            ``most_similar(["king", "woman"], negative=["man"])``.

        Returns
        -------
        similar : list of (word, cosine)
            Words and their cosine similarities, the most similar first. The given words are left out.

        Raises
        ------
        ValueError
            If a word is not in `vocabulary_`.

        Examples
        --------
        >>> from sklearn_attnembed import AttentionWordVectors
        >>> texts = ["cats purr and dogs bark", "dogs and cats run", "a cat is not a dog"] * 20
        >>> model = AttentionWordVectors(8, random_state=0).fit(texts)
        >>> sorted(word for word, cosine in model.most_similar("cat", topn=3))
        ['dog', 'is', 'not']
        """
        check_is_fitted(self)
        if not isinstance(topn, Integral):
            raise ValueError(f"topn must be an integer, the number of words wanted, but is {topn!r}. Pass 10.")
        word, negative = (list(each) if isinstance(each, list | tuple) else [each] for each in (word, negative))
        for name, each in [("word", each) for each in word] + [("negative", each) for each in negative]:
            if not isinstance(each, Hashable) or each not in self.vocabulary_:
                raise ValueError(
                    f"{name} must be one of the {len(self.vocabulary_)} words of vocabulary_, but {each!r} is not: it "
                    "occurs less than min_count times, or is written otherwise. Take a word of vocabulary_."
                )
        own = [self.vocabulary_[each] for each in (*word, *negative)]
        unit = normalize(self.embedding_)
        wanted = np.where(np.arange(len(own)) < len(word), 1, -1) @ unit[own]
        cosine = unit @ wanted / max(np.linalg.norm(wanted), np.finfo(np.float32).tiny)
        cosine[own] = -np.inf
        words = list(self.vocabulary_)
        best = np.argsort(-cosine, kind="stable")[: max(min(topn, len(words) - len(set(own))), 0)]
        return [(words[row], float(cosine[row])) for row in best]

    def save_word2vec_format(self, path: str | PathLike[str]) -> None:
        """Write the word vectors to a text file in the format of word2vec.

        The first line holds the number of words and of dimensions, and each further line a word and its vector.
        ``gensim.models.KeyedVectors.load_word2vec_format(path)`` reads the file. An interrupted call leaves no
        incomplete file.

        Parameters
        ----------
        path : str or path-like
            File to write, which is replaced if it exists.

        Raises
        ------
        ValueError
            If a word is not a string, or contains white space, which is the separator of the format.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sklearn_attnembed import AttentionWordVectors
        >>> model = AttentionWordVectors(4, random_state=0).fit(["cats purr", "dogs bark"] * 10)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "vectors.txt")
        ...     model.save_word2vec_format(path)
        ...     copy = AttentionWordVectors.load_word2vec_format(path)
        >>> bool((copy.transform(["dogs"]) == model.transform(["dogs"])).all())
        True
        """
        check_is_fitted(self)
        for word in self.vocabulary_:
            if not isinstance(word, str) or len(word.split()) != 1 or word.split()[0] != word:
                raise ValueError(
                    f"word2vec's format holds words without white space only, but vocabulary_ has {word!r}. Replace "
                    "it, or pickle the model."
                )
        path = Path(path)
        partial = path.with_name(path.name + ".part")
        try:
            with open(partial, "w", encoding="utf8", newline="\n") as file:
                file.write(f"{len(self.embedding_)} {self.embedding_.shape[1]}\n")
                for word, vector in zip(self.vocabulary_, self.embedding_.tolist(), strict=True):
                    file.write(f"{word} {' '.join(map('{:.9g}'.format, vector))}\n")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load_word2vec_format(cls, path: str | PathLike[str], **params: Any) -> Self:
        """Create a model from word vectors in a text file in the format of word2vec.

        Parameters
        ----------
        path : str or path-like
            File to read.
        **params : dict
            Parameters of the model, such as `analyzer`.

        Returns
        -------
        model : AttentionWordVectors
            Model with the attributes `vocabulary_`, `embedding_` and `isolated_`, ready to transform documents.

        Raises
        ------
        ValueError
            If the file is not in this format. The message names the line.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sklearn_attnembed import AttentionWordVectors
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "vectors.txt")
        ...     _ = path.write_text("2 3\\ncat 1 0 0\\ndog 0 1 0\\n")
        ...     model = AttentionWordVectors.load_word2vec_format(path)
        >>> model.transform(["cat dog"])
        array([[0.5, 0.5, 0. ]], dtype=float32)
        """
        try:
            with open(path, encoding="utf8", newline="\n") as file:
                vocabulary, vectors = _read_word2vec(path, file)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no text in UTF-8 ({error}). Convert binary files to text first.") from error
        model = cls(vectors.shape[1], **params)
        model.vocabulary_, model.embedding_, model._analyzer = vocabulary, vectors, model.analyzer
        model.isolated_ = ~vectors.any(axis=1)
        return model

    @property
    def _n_features_out(self) -> int:
        return self.embedding_.shape[1]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.input_tags.sparse = False
        return tags


def _read_word2vec(path: str | PathLike[str], file: TextIO) -> tuple[dict[Any, int], Vectors]:
    """Read words and vectors from an open text file."""
    header = file.readline().split()
    if len(header) != 2 or not all(len(number) < 20 and number.isdecimal() and int(number) > 0 for number in header):
        raise ValueError(
            f"{path}: the first line has to be the number of words and of dimensions, but is "
            f"{' '.join(header)[:80]!r}. Convert binary files to text first."
        )
    n_words, n_components = map(int, header)
    vocabulary, vectors = {}, []
    for place, line in enumerate(file):
        word, *numbers = line.rstrip("\n ").split(" ")
        try:
            with np.errstate(over="ignore"):
                vector = np.array(numbers, np.float64).astype(np.float32)
        except ValueError:
            vector = np.array([np.nan])
        if not word or word in vocabulary or len(numbers) != n_components or not np.isfinite(vector).all():
            raise ValueError(
                f"{path}: line {place + 2} has to be a new word and {n_components} finite numbers, but is "
                f"{line[:60]!r}. The file may be damaged: write it anew."
            )
        vocabulary[word] = place
        vectors.append(vector)
    if len(vectors) != n_words:
        raise ValueError(
            f"{path}: the first line promises {n_words} words, but {len(vectors)} follow. The file may be cut: write "
            "it anew."
        )
    return vocabulary, np.stack(vectors)
