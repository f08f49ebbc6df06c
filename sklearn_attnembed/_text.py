"""AttentionWordVectors: documents -> word vectors -> features of documents."""

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
    """Word vectors from texts, and mean word vectors as features of documents.

    Words are embedded so that the attention of a word goes to the words that occur near it: co-occurrences
    (:func:`~sklearn_attnembed.affinity.cooccurrence`) are embedded by :class:`AttentionEmbedding`.

    Read more in the :ref:`User Guide <words>`.

    Parameters
    ----------
    n_components : int, default=100
        Dimension of the vectors.
    window : int, default=5
        Words to the left and to the right that count as near.
    min_count : int, default=5
        Words that occur less often have no vector.
    subsample : float or None, default=1e-5
        Thins out words that make up a larger share of the text than this.
    window_weight : {"uniform", "linear", "harmonic"}, default="uniform"
        What pairs count by their distance.
    gamma : float, default=0.75
        Vectors are pushed away from the mean over words in proportion to their counts to this power.
    analyzer : {"word", "char", "char_wb"} or callable, default="word"
        How strings become words, as of :class:`sklearn.feature_extraction.text.CountVectorizer`. Documents that are
        lists of words are taken as they are.
    temperature : float, default=0.125
        Of the attention; the sharper, the finer the distinctions. Small texts want it higher.
    max_iter : int, default=100
        Iterations at most.
    tol : float, default=1e-3
        When to stop, see :class:`AttentionEmbedding`.
    random_state : int, RandomState instance or None, default=None
        Seed. The same seed gives the same bits, whatever `n_jobs`.
    n_jobs : int or None, default=None
        Threads.
    verbose : int, default=0
        If positive, print every iteration.

    Attributes
    ----------
    vocabulary_ : dict
        Row of each word in `embedding_`; the most frequent first.
    embedding_ : ndarray of shape (n_words, n_components), float32
        Unit vectors of the words; zero for words that are never near another.
    isolated_ : ndarray of bool of shape (n_words,)
        Words that are never near another.
    n_iter_ : int
        Iterations run.
    loss_curve_ : list of float
        The surrogate loss of a word, in nats, at the start of each iteration.

    See Also
    --------
    AttentionEmbedding : ``affinity="bipartite"`` embeds documents and words together, from a table of counts.
    sklearn.feature_extraction.text.TfidfVectorizer : One column for each word.

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
    >>> len(model.most_similar("cats", topn=3))
    3
    """

    # Documents are what X is elsewhere, no metadata.
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
        """Learn vectors of the words.

        Parameters
        ----------
        documents : iterable of str, or of iterables of words
            Read once and never held.
        y : Ignored
            Present for API consistency.

        Returns
        -------
        self : AttentionWordVectors
            The fitted model.

        Raises
        ------
        ValueError
            If `documents` is one string, or no two words are frequent enough.

        Warns
        -----
        ConvergenceWarning
            If `max_iter` was reached first.
        UserWarning
            If words are never near another.
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
            random_state=self.random_state,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )
        with warnings.catch_warnings():  # said below, of words
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
        """Learn vectors of the words and return those of the documents: the same as ``fit(X).transform(X)``.

        Parameters
        ----------
        documents : iterable of str, or of iterables of words
            Read twice: of what can be read once alone, as of a generator, a list is made.
        y : Ignored
            Present for API consistency.

        Returns
        -------
        X : ndarray of shape (n_documents, n_components), float32
            Zero for documents without any word that is known, with one warning.
        """
        documents = list(documents) if isinstance(documents, Iterator) else documents
        return self.fit(documents).transform(documents)

    def transform(self, documents: Documents) -> Vectors:
        """Mean vectors of documents over the words known, every occurrence counted.

        Parameters
        ----------
        documents : iterable of str, or of iterables of words
            Read once and never held.

        Returns
        -------
        X : ndarray of shape (n_documents, n_components), float32
            Zero for documents without any word that is known, with one warning.
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
        """Find the words whose vectors point the same way.

        Parameters
        ----------
        word : str or list of str
            One word, or several whose vectors are added.
        topn : int, default=10
            How many.
        negative : list of str, default=()
            Words whose vectors are subtracted: "king" - "man" + "woman" is
            ``most_similar(["king", "woman"], negative=["man"])``.

        Returns
        -------
        similar : list of (word, cosine)
            The most similar first; the words asked for are left out.

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
        """Write the vectors as text in word2vec's format, complete or not at all.

        A line with the number of words and dimensions, then one for each word. ``gensim.models.KeyedVectors``
        reads it by ``load_word2vec_format(path)``.

        Parameters
        ----------
        path : str or path-like
            The file, which is replaced if it is there.

        Raises
        ------
        ValueError
            If a word is no string or holds white space, which the format cannot tell from what lies between columns.

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
        """Make a model with the vectors of a text file in word2vec's format, ready to transform.

        Parameters
        ----------
        path : str or path-like
            The file.
        **params : dict
            Parameters of the model, say `analyzer`.

        Returns
        -------
        model : AttentionWordVectors
            With `vocabulary_`, `embedding_` and `isolated_`.

        Raises
        ------
        ValueError
            If the file is not in that format; the line is named.

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
    """Words and vectors of an open text file."""
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
