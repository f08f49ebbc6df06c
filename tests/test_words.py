"""Co-occurrences against a double loop, word vectors, and files in the format of word2vec."""

import copy
import pickle
import tempfile
import tracemalloc
import weakref
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from sklearn.utils._param_validation import InvalidParameterError

from sklearn_attnembed import AttentionWordVectors
from sklearn_attnembed.affinity import _words, cooccurrence

WINDOW_WEIGHTS = {
    "uniform": lambda distance, window: 1.0,
    "linear": lambda distance, window: 1 - (distance - 1) / window,
    "harmonic": lambda distance, window: 1 / distance,
}


def random_documents(n_documents=60, n_words=25, seed=0):
    """Return token lists of 0 to 19 words, some of which are much more frequent than others."""
    rng = np.random.default_rng(seed)
    p = 1 / np.arange(1, n_words + 1)
    names = [f"w{i}" for i in range(n_words)]
    return [rng.choice(names, rng.integers(20), p=p / p.sum()).tolist() for _ in range(n_documents)]


def naive(documents, window, window_weight, min_count):
    """Compute co-occurrences, vocabulary and numbers of occurrences by a double loop."""
    occurrences = Counter(word for document in documents for word in document)  # ties by first appearance
    kept = {word: count for word, count in occurrences.most_common() if count >= min_count}
    row = {word: i for i, word in enumerate(kept)}
    near = np.zeros((len(row), len(row)))
    for document in documents:
        words = [row[word] for word in document if word in row]
        for i, word in enumerate(words):
            for j, other in enumerate(words):
                if 0 < abs(i - j) <= window:
                    near[word, other] += WINDOW_WEIGHTS[window_weight](abs(i - j), window)
    return near, row, np.array(list(kept.values()))


def assert_same(result, expected):
    """Assert that matrices have identical entries, in any order within a row."""
    one, other = result.affinity.sorted_indices(), expected.affinity.sorted_indices()
    for name in ("indptr", "indices", "data"):
        assert_array_equal(getattr(one, name), getattr(other, name))
    assert list(result.vocabulary.items()) == list(expected.vocabulary.items())
    assert_array_equal(result.p0, expected.p0)
    assert_array_equal(result.counts, expected.counts)


# Co-occurrences ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("min_count", [1, 12])
@pytest.mark.parametrize("window", [1, 2, 5, 30])
@pytest.mark.parametrize("window_weight", WINDOW_WEIGHTS)
def test_counts_are_those_of_a_double_loop(window_weight, window, min_count):
    documents = random_documents()
    result = cooccurrence(documents, window, window_weight=window_weight, min_count=min_count, subsample=None)
    near, vocabulary, counts = naive(documents, window, window_weight, min_count)
    assert_allclose(result.affinity.toarray(), near, rtol=1e-6)
    assert result.affinity.dtype == np.float32
    assert list(result.vocabulary.items()) == list(vocabulary.items())
    assert_array_equal(result.counts, counts)


def test_the_double_loop_by_hand():
    result = cooccurrence([["a", "b", "c", "a"], ["c", "a"]], 2, window_weight="linear", min_count=1, subsample=None)
    assert result.vocabulary == {"a": 0, "c": 1, "b": 2}
    assert_allclose(result.affinity.toarray(), [[0, 2.5, 1.5], [2.5, 0, 1], [1.5, 1, 0]])


def test_rare_words_are_left_out_before_windows_are_laid():
    result = cooccurrence([["a", "rare", "b", "a", "b"]], 1, min_count=2, subsample=None)
    assert_array_equal(result.affinity.toarray(), [[0, 3], [3, 0]])


def test_windows_end_with_the_document():
    apart = cooccurrence([["a"], ["b"], [], ["c", "d"]], 3, min_count=1, subsample=None)
    assert_array_equal(np.argwhere(apart.affinity.toarray()), [[2, 3], [3, 2]])


@pytest.mark.parametrize("documents", [[["a"]], [["a", "b"]], [[], ["b", "a"], []]], ids=str)
def test_texts_shorter_than_the_window(documents):
    result = cooccurrence(documents, 10, min_count=1, subsample=None)
    assert_array_equal(result.affinity.toarray(), naive(documents, 10, "uniform", 1)[0])


def test_a_word_twice_in_a_window_is_near_itself():
    assert_array_equal(cooccurrence([["a", "a"]], 1, min_count=1, subsample=None).affinity.toarray(), [[2]])


def test_frequent_words_are_thinned():
    documents = random_documents()
    near, _, counts = naive(documents, 3, "uniform", 5)
    f = counts / counts.sum()
    kept = np.minimum(1, np.sqrt(0.02 / f) + 0.02 / f)
    assert kept.min() < 0.7
    assert kept.max() == 1
    result = cooccurrence(documents, 3, min_count=5, subsample=0.02)
    assert_allclose(result.affinity.toarray(), kept[:, None] * near * kept, rtol=1e-6)
    assert_array_equal(result.counts, counts)


@pytest.mark.parametrize("gamma", [0, 0.75, 2.0])
def test_p0_is_a_power_of_the_counts(gamma):
    result = cooccurrence(random_documents(), gamma=gamma)
    assert_allclose(result.p0, result.counts**gamma / np.sum(result.counts**gamma))


def test_most_frequent_words_first_and_ties_by_first_appearance():
    result = cooccurrence([["z", "m", "a", "b"], ["b", "a", "y"]], 1, min_count=1)
    assert list(result.vocabulary) == ["a", "b", "z", "m", "y"]
    assert_array_equal(list(result.vocabulary.values()), range(5))
    assert_array_equal(result.counts, [2, 2, 1, 1, 1])


def test_symmetric_without_explicit_zeros():
    affinity = cooccurrence(random_documents()).affinity
    assert abs(affinity - affinity.T).max() == 0
    assert affinity.data.min() > 0
    assert affinity.sorted_indices().has_canonical_format  # no pair twice


# Documents of every kind -------------------------------------------------------------------------------
def test_generators_are_read_once_and_documents_are_not_held():
    documents = random_documents()

    class Document:
        def __init__(self, words):
            self.words = words

        def __iter__(self):
            return iter(self.words)

    alive = weakref.WeakSet()

    def stream():
        for words in documents:
            document = Document(words)
            alive.add(document)
            assert len(alive) <= 2
            yield document

    assert_same(cooccurrence(stream()), cooccurrence(documents))
    assert_same(cooccurrence(map(iter, documents)), cooccurrence(documents))


@pytest.mark.parametrize("container", [list, tuple, np.array, pd.Series, iter])
def test_strings_are_token_lists(container):
    documents = random_documents()
    strings = container([" ".join(words) for words in documents])
    assert_same(cooccurrence(strings), cooccurrence(documents))


def test_words_of_any_hashable_kind():
    documents = random_documents()
    odd = {f"w{i}": (i, None) if i % 2 else i for i in range(25)}
    result = cooccurrence([[odd[word] for word in words] for words in documents])
    expected = cooccurrence(documents)
    assert list(result.vocabulary) == [odd[word] for word in expected.vocabulary]
    assert abs(result.affinity - expected.affinity).max() == 0


@pytest.mark.parametrize(
    ("analyzer", "words"),
    [
        ("word", ["to", "be", "or"]),
        ("char", list("to be or")),
        ("char_wb", [*" to ", *" be ", *" or "]),
        (str.split, ["To", "be", "or", "I"]),
        (CountVectorizer(stop_words=["or"]).build_analyzer(), ["to", "be"]),
    ],
    ids=["word", "char", "char_wb", "split", "stop words"],
)
def test_analyzers(analyzer, words):
    text = "To be or" + (" I" if analyzer in ("word", str.split) else "")
    assert_same(
        cooccurrence([text], 2, min_count=1, analyzer=analyzer), cooccurrence([words], 2, min_count=1, subsample=1e-5)
    )


def test_a_callable_is_given_every_document():
    """This includes token lists and objects that are neither strings nor iterable."""
    documents = random_documents()
    result = cooccurrence(range(len(documents)), analyzer=documents.__getitem__)
    assert_same(result, cooccurrence(documents))
    assert "W0" in cooccurrence(documents, analyzer=lambda words: map(str.upper, words)).vocabulary


def test_documents_are_not_modified():
    documents = random_documents()
    before = copy.deepcopy(documents)
    cooccurrence(documents)
    assert documents == before


# Pieces, files, threads ------------------------------------------------------------------------------------
@pytest.fixture
def in_pieces(monkeypatch):
    """Count a few words at a time, with a temporary file, and record the calls."""
    called = []

    def noting(owner, name):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args: (called.append(name), original(*args))[1])

    def begin(chunk):
        noting(_words, "_count_piece")
        noting(tempfile.SpooledTemporaryFile, "rollover")
        monkeypatch.setattr(_words, "_CHUNK", chunk)
        monkeypatch.setattr(_words, "_IN_MEMORY", 1)
        return called

    return begin


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_pieces_change_nothing(chunk, n_jobs, in_pieces):
    """Windows extend over several pieces; counts are whole numbers, so sums are exact in any order."""
    documents = random_documents()
    whole = cooccurrence(documents, 5)
    called = in_pieces(chunk)
    assert_same(cooccurrence(documents, 5, n_jobs=n_jobs), whole)
    assert called.count("_count_piece") >= sum(map(len, documents)) // (chunk + 20)
    assert "rollover" in called


def test_rare_words_may_fill_whole_pieces(in_pieces):
    documents = [["a", *map(str, range(50)), "b"], [*map(str, range(50, 90))], ["b", "a"]]
    in_pieces(4)
    result = cooccurrence(documents, 2, min_count=2, subsample=None)
    assert_array_equal(result.affinity.toarray(), [[0, 2], [2, 0]])


def test_threads_change_no_bit(in_pieces):
    """The sums are rounded here, so their order matters."""
    in_pieces(16)
    one, two = (cooccurrence(random_documents(), 7, window_weight="harmonic", n_jobs=n_jobs) for n_jobs in (1, 2))
    assert_same(one, two)


# Word vectors ----------------------------------------------------------------------------------------------
N_TOPICS, N_OWN = 3, 12
TOPICS = np.array([[f"{name}{i}" for i in range(N_OWN)] for name in ("sea", "law", "tea")])


@pytest.fixture(scope="module")
def corpus():
    """Return 300 texts, each with words of one topic and some words of none, and the topics."""
    rng = np.random.default_rng(0)
    y = np.arange(300) % N_TOPICS
    common = np.array([f"any{i}" for i in range(8)])
    texts = [" ".join(rng.permutation([*rng.choice(TOPICS[topic], 10), *rng.choice(common, 6)])) for topic in y]
    return texts, y


def vectors(n_components=8, **params):
    return AttentionWordVectors(n_components, **{"random_state": 0, **params})


@pytest.fixture(scope="module")
def model(corpus):
    return vectors().fit(corpus[0])


def test_similar_words_are_of_the_same_topic(model):
    for topic in TOPICS:
        for word in topic:
            similar, cosine = zip(*model.most_similar(word, topn=N_OWN - 1), strict=True)
            assert len(set(similar) & set(topic)) >= N_OWN - 2
            assert word not in similar
            assert list(cosine) == sorted(cosine, reverse=True)


def test_documents_are_classified_by_topic(corpus):
    texts, y = corpus
    pipeline = make_pipeline(vectors(), LogisticRegression(C=10)).fit(texts[:200], y[:200])
    assert pipeline.score(texts[200:], y[200:]) > 0.95


def test_attributes(model, corpus):
    result = cooccurrence(corpus[0])
    assert list(model.vocabulary_.items()) == list(result.vocabulary.items())
    assert model.embedding_.shape == (len(result.vocabulary), 8)
    assert model.embedding_.dtype == np.float32
    assert_allclose(np.linalg.norm(model.embedding_, axis=1), 1, rtol=1e-6)
    assert not model.isolated_.any()
    assert len(model.loss_curve_) == model.n_iter_


def test_documents_are_mean_vectors_of_known_words(model):
    """Every occurrence of a known word counts, and unknown words are ignored."""
    a, b = (model.embedding_[model.vocabulary_[word]] for word in ("sea0", "tea3"))
    expected = [(2 * a + b) / 3, b]
    for documents in (["sea0 sea0 never tea3", "TEA3"], [["sea0", "tea3", "never", "sea0"], ("tea3",)]):
        assert_allclose(model.transform(documents), expected, rtol=1e-6)
        assert_allclose(model.transform(iter(documents)), expected, rtol=1e-6)
    assert model.transform(["sea0"]).dtype == np.float32


def test_documents_without_known_words_are_zero_with_one_warning(model):
    with pytest.warns(UserWarning, match="2 of 3 documents hold no word of the vocabulary") as caught:
        out = model.transform(["", "sea0", "never seen"])
    assert len(caught) == 1
    assert_array_equal(out.any(axis=1), [False, True, False])


@pytest.mark.parametrize("empty", [[], (), iter([])], ids=str)
def test_no_documents_give_no_rows(empty, model):
    out = model.transform(empty)
    assert out.shape == (0, 8)
    assert out.dtype == np.float32


def test_fit_transform_is_fit_then_transform(corpus):
    texts, _ = corpus
    assert_array_equal(vectors().fit_transform(texts), vectors().fit(texts).transform(texts))


def test_fit_transform_of_a_generator_is_that_of_a_list(corpus):
    """A generator is read into a list; it is not silently empty in the second pass."""
    texts, _ = corpus
    try:
        out = vectors().fit_transform(iter(texts))
    except ValueError:
        return
    assert out.shape == (len(texts), 8)


def test_isolated_words_are_zero_with_a_warning(corpus):
    texts = [*corpus[0], *["hermit"] * 6]
    with pytest.warns(UserWarning, match=r"1 of 45 words are never near another.*isolated_") as caught:
        model = vectors().fit(texts)
    assert len(caught) == 1
    assert [word for word, row in model.vocabulary_.items() if model.isolated_[row]] == ["hermit"]
    assert not model.embedding_[model.vocabulary_["hermit"]].any()
    assert not np.any(model.transform(["hermit"]))


def test_not_converged_warns_with_numbers(corpus):
    with pytest.warns(ConvergenceWarning, match=r"did not converge in max_iter=2 iterations.*tol=0.0001.*Raise"):
        assert vectors(max_iter=2, tol=1e-4).fit(corpus[0]).n_iter_ == 2


@pytest.mark.parametrize(
    "change",
    [
        {"window": 1},
        {"min_count": 150},
        {"subsample": None},
        {"window_weight": "harmonic"},
        {"gamma": 0.0},
        {"analyzer": "char"},
        {"temperature": 1.0},
        {"max_iter": 3, "tol": 0},
        {"tol": 0.1},
        {"random_state": 1},
    ],
    ids=str,
)
def test_every_parameter_reaches_the_computation(change, model, corpus):
    changed = vectors(**change).fit(corpus[0]).embedding_
    assert changed.shape != model.embedding_.shape or np.abs(changed - model.embedding_).max() > 1e-4


def test_verbose_prints_each_iteration(corpus, capsys):
    model = vectors(verbose=1).fit(corpus[0])
    assert len(capsys.readouterr().out.splitlines()) == model.n_iter_


@pytest.mark.parametrize("n_jobs", [1, 2, -1])
def test_same_seed_same_bits_whatever_n_jobs(n_jobs, model, corpus, monkeypatch):
    monkeypatch.setattr(_words, "_CHUNK", 256)
    assert vectors(n_jobs=n_jobs).fit(corpus[0]).embedding_.tobytes() == model.embedding_.tobytes()


# Of scikit-learn --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "check",
    [  # those that need no table of numbers: its own vectorizers of text are exempt from the others
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_estimator_tags_renamed",
        "check_get_feature_names_out_error",
        "check_get_params_invariance",
        "check_mixin_order",
        "check_no_attributes_set_in_init",
        "check_param_validation",
        "check_parameters_default_constructible",
        "check_set_params",
        "check_valid_tag_types",
    ],
)
def test_scikit_learn(check):
    getattr(estimator_checks, check)("AttentionWordVectors", AttentionWordVectors())


def test_tags_say_that_it_reads_texts():
    tags = AttentionWordVectors().__sklearn_tags__()
    assert tags.input_tags.string
    assert not tags.input_tags.two_d_array
    assert not tags.input_tags.sparse
    assert not hasattr(AttentionWordVectors, "set_fit_request")  # documents are no metadata
    assert "AttentionWordVectors" in AttentionWordVectors()._repr_html_()


def test_clone_and_parameters(model):
    params = {**AttentionWordVectors().get_params(), "n_components": 3, "window": 2, "analyzer": str.split}
    assert AttentionWordVectors().set_params(**params).get_params() == params
    copied = clone(model)
    assert copied.get_params() == model.get_params()
    assert not hasattr(copied, "embedding_")


def test_pandas_in_and_out(model, corpus):
    texts = pd.Series(corpus[0][:20], index=np.arange(20) * 2)
    out = clone(model).fit(corpus[0]).set_output(transform="pandas").transform(texts)
    assert_array_equal(out.columns, [f"attentionwordvectors{i}" for i in range(8)])
    assert_array_equal(out.columns, model.get_feature_names_out())
    assert_array_equal(out.index, texts.index)
    assert_array_equal(out, model.transform(corpus[0][:20]))


@pytest.mark.parametrize("grid", [{"window": [2, 5]}, {"n_components": [2, 6]}], ids=str)
def test_grid_search_in_a_pipeline(grid, corpus):
    texts, y = corpus
    pipeline = make_pipeline(vectors(4), LogisticRegression(C=10))
    search = GridSearchCV(pipeline, {f"attentionwordvectors__{name}": grid[name] for name in grid}, cv=2)
    assert search.fit(texts, y).best_score_ > 0.9


def test_saved_and_loaded(model, corpus):
    loaded = pickle.loads(pickle.dumps(model))
    assert_array_equal(loaded.transform(corpus[0][:9]), model.transform(corpus[0][:9]))
    assert loaded.most_similar("tea0") == model.most_similar("tea0")


def test_failed_refit_leaves_the_model_as_it_was(model):
    copied = copy.deepcopy(model)
    with pytest.raises(ValueError, match="No word occurs"):
        copied.fit(["too short"])
    assert copied.most_similar("tea0") == model.most_similar("tea0")


def test_analyzer_set_after_fit_waits_for_the_next(model):
    copied = copy.deepcopy(model)
    vectors = copied.transform(["tea0 tea1", "tea2"])
    copied.set_params(analyzer="char")
    assert_array_equal(copied.transform(["tea0 tea1", "tea2"]), vectors)


def test_memory_does_not_depend_on_the_window(monkeypatch):
    """Places are counted a few at a time, and the result is the same."""
    documents = random_documents(400, seed=3)
    expected = cooccurrence(documents, 19, window_weight="harmonic", min_count=1)
    monkeypatch.setattr(_words, "_PAIRS", 19 * 7)
    found = cooccurrence(documents, 19, window_weight="harmonic", min_count=1)
    assert_allclose(found.affinity.toarray(), expected.affinity.toarray(), rtol=1e-6)
    monkeypatch.undo()
    text = [np.random.default_rng(0).integers(50, size=100_000).tolist()]
    tracemalloc.start()
    try:
        cooccurrence(text, 400, min_count=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 400e6  # of all pairs together: 1.6 GB


def test_one_word_is_too_few():
    with pytest.raises(ValueError, match=r"documents must hold two different words .* only 'tea' does"):
        AttentionWordVectors(min_count=1).fit(["tea tea", "tea"])


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.transform(["a"]),
        lambda model: model.most_similar("a"),
        lambda model: model.save_word2vec_format("never"),
        lambda model: model.get_feature_names_out(),
    ],
    ids=["transform", "most_similar", "save_word2vec_format", "get_feature_names_out"],
)
def test_not_fitted(call):
    with pytest.raises(NotFittedError, match="This AttentionWordVectors instance is not fitted yet"):
        call(AttentionWordVectors())


# Similar words ----------------------------------------------------------------------------------------------
@pytest.fixture
def compass():
    """Return a model whose vectors give cosines that can be computed by hand."""
    model = AttentionWordVectors(2)
    model.vocabulary_ = {"east": 0, "north": 1, "west": 2, "far east": 3, "northeast": 4, "nowhere": 5}
    model.embedding_ = np.array([[1, 0], [0, 1], [-1, 0], [5, 0.5], [1, 1], [0, 0]], np.float32)
    return model


def test_cosines_by_hand(compass):
    words, cosine = zip(*compass.most_similar("east", topn=4), strict=True)
    assert words == ("far east", "northeast", "north", "nowhere")
    assert_allclose(cosine, [10 / np.sqrt(101), np.sqrt(0.5), 0, 0], atol=1e-6)


def test_words_are_added_and_subtracted_as_unit_vectors(compass):
    assert compass.most_similar(["east", "north"], topn=1) == [("northeast", pytest.approx(1))]
    assert compass.most_similar(["far east", "north"], negative=["east"])[0] == (
        "northeast",
        pytest.approx(0.7039, abs=1e-4),
    )
    assert compass.most_similar([], negative="east", topn=1) == [("west", pytest.approx(1))]
    assert compass.most_similar("north", negative="west") == compass.most_similar(["north"], negative=["west"])


@pytest.mark.parametrize(("topn", "n"), [(0, 0), (-3, 0), (2, 2), (5, 5), (6, 5), (10**9, 5)])
def test_topn_is_how_many_at_most(topn, n, compass):
    assert len(compass.most_similar("east", topn=topn)) == n


def test_asked_for_twice_is_left_out_once(compass):
    assert len(compass.most_similar(["east", "east"], topn=10)) == 5
    assert len(compass.most_similar(list(compass.vocabulary_), topn=10)) == 0


@pytest.mark.parametrize(
    "call", [{"word": "south"}, {"word": ["east", "south"]}, {"word": "east", "negative": "south"}]
)
def test_unknown_word_is_named(call, compass):
    with pytest.raises(ValueError, match=r"one of the 6 words of vocabulary_, but 'south' is not: it occurs less than"):
        compass.most_similar(**call)


# Files ------------------------------------------------------------------------------------------------------
def test_round_trip_is_exact(model, tmp_path, corpus):
    path = tmp_path / "vectors.txt"
    model.save_word2vec_format(path)
    loaded = AttentionWordVectors.load_word2vec_format(str(path), analyzer=str.split)
    assert loaded.embedding_.dtype == np.float32
    assert loaded.embedding_.tobytes() == model.embedding_.tobytes()
    assert list(loaded.vocabulary_.items()) == list(model.vocabulary_.items())
    assert loaded.get_params()["n_components"] == 8
    assert loaded.get_params()["analyzer"] is str.split
    assert_array_equal(loaded.transform(corpus[0][:9]), model.transform(corpus[0][:9]))
    assert loaded.most_similar("tea0") == model.most_similar("tea0")
    assert_array_equal(loaded.get_feature_names_out(), model.get_feature_names_out())
    assert [file.name for file in tmp_path.iterdir()] == ["vectors.txt"]


def test_round_trip_of_extreme_values_and_words(tmp_path):
    finfo = np.finfo(np.float32)
    model = AttentionWordVectors(4)
    model.vocabulary_ = {"été": 0, "東京": 1, "🜁": 2, "-1.5": 3, "#": 4}
    model.embedding_ = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    model.embedding_[0] = [finfo.max, finfo.tiny, finfo.smallest_subnormal, -0.0]
    model.embedding_[2] = 0
    model.save_word2vec_format(tmp_path / "v")
    loaded = AttentionWordVectors.load_word2vec_format(tmp_path / "v")
    assert loaded.embedding_.tobytes() == model.embedding_.tobytes()
    assert loaded.vocabulary_ == model.vocabulary_
    assert_array_equal(loaded.isolated_, [False, False, True, False, False])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_gensim_reads_it(model, tmp_path):
    gensim = pytest.importorskip("gensim.models")
    model.save_word2vec_format(tmp_path / "v.txt")
    theirs = gensim.KeyedVectors.load_word2vec_format(tmp_path / "v.txt")
    assert theirs.index_to_key == list(model.vocabulary_)
    assert_array_equal(theirs.vectors, model.embedding_)
    ours = model.most_similar(["tea0", "tea1"], negative=["sea0"], topn=5)
    for (word, cosine), (their_word, their_cosine) in zip(
        ours, theirs.most_similar(positive=["tea0", "tea1"], negative=["sea0"], topn=5), strict=True
    ):
        assert word == their_word
        assert cosine == pytest.approx(their_cosine, abs=1e-5)
    theirs.save_word2vec_format(tmp_path / "theirs.txt")
    assert_array_equal(AttentionWordVectors.load_word2vec_format(tmp_path / "theirs.txt").embedding_, model.embedding_)


@pytest.mark.parametrize("line_end", ["\n", " \n", "\r\n"], ids=repr)
def test_line_ends_of_others(line_end, tmp_path):
    (tmp_path / "v").write_text(line_end.join(["2 2", "a 1 2", "b 3 4e-1", ""]), encoding="utf8", newline="")
    loaded = AttentionWordVectors.load_word2vec_format(tmp_path / "v")
    assert_allclose(loaded.embedding_, [[1, 2], [3, 0.4]])
    assert list(loaded.vocabulary_) == ["a", "b"]


MALFORMED = {
    "empty": ("", "first line has to be the number of words and of dimensions, but is ''"),
    "no header": ("the 0.1 0.2\nof 0.3 0.4\n", "first line has to be the number of words.*but is 'the 0.1 0.2'"),
    "header of one number": ("2\na 1\nb 2\n", "first line has to be the number of words.*but is '2'"),
    "negative header": ("-2 3\n", "first line has to be the number of words.*but is '-2 3'"),
    "cut between lines": ("2 3\na 1 2 3\n", "promises 2 words, but 1 follow.*cut"),
    "cut line": ("2 3\na 1 2 3\nb 1 2", "line 3 has to be a new word and 3 finite numbers, but is 'b 1 2'"),
    "too many numbers": ("1 2\na 1 2 3\n", "line 2 has to be a new word and 2 finite numbers, but is 'a 1 2 3"),
    "no number": ("1 2\na one two\n", "line 2 has to be a new word and 2 finite numbers"),
    "tabs": ("1 2\na\t1\t2\n", "line 2 has to be a new word and 2 finite numbers"),
    "twice": ("2 1\na 1\na 2\n", "line 3 has to be a new word.*'a 2"),
    "NaN": ("2 2\na 1 2\nb nan 2\n", "line 3 has to be .* finite numbers"),
    "infinity": ("2 2\na 1 2\nb inf 2\n", "line 3 has to be .* finite numbers"),
    "cut after one number": ("2 3\na 1 2 3\nb 0.5", "line 3 has to be a new word and 3 finite numbers, but is 'b 0.5'"),
    "numbers beyond memory": (
        "1 1000000000000\na x 2\n",
        "line 2 has to be a new word and 1000000000000 finite numbers",
    ),
    "numbers beyond counting": ("1 " + 5000 * "9" + "\na 1 2\n", "first line has to be the number of words"),
    "no dimension": ("2 0\na\nb\n", "v.txt"),
    "no word": ("0 3\n", "v.txt"),
    "binary": (b"1 2\na \xff\xfe\x80?\n", "v.txt"),
}


@pytest.mark.parametrize("name", [name for name in MALFORMED])
def test_malformed_file_is_named(name, tmp_path):
    text, match = MALFORMED[name]
    (tmp_path / "v.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=match) as caught:
        AttentionWordVectors.load_word2vec_format(tmp_path / "v.txt")
    assert "v.txt" in str(caught.value)


@pytest.mark.parametrize("word", ["two words", "tab\t", "\n", "", "no-break\xa0space", 7, ("a", "b")], ids=repr)
def test_words_that_the_format_cannot_hold(word, tmp_path):
    """Nothing is written, and an existing file stays."""
    (tmp_path / "v.txt").write_text("before")
    model = AttentionWordVectors(1)
    model.vocabulary_, model.embedding_ = {"fine": 0, word: 1}, np.ones((2, 1), np.float32)
    with pytest.raises(ValueError, match="holds words without white space only, but vocabulary_ has") as caught:
        model.save_word2vec_format(tmp_path / "v.txt")
    assert repr(word) in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["v.txt"]
    assert (tmp_path / "v.txt").read_text() == "before"


def test_interrupted_save_leaves_the_file_as_it_was(tmp_path):
    """A word that cannot be encoded interrupts the writing."""
    (tmp_path / "v.txt").write_text("before")
    model = AttentionWordVectors(1)
    model.vocabulary_, model.embedding_ = {"fine": 0, "\ud800": 1}, np.ones((2, 1), np.float32)
    with pytest.raises(UnicodeEncodeError):
        model.save_word2vec_format(tmp_path / "v.txt")
    assert (tmp_path / "v.txt").read_text() == "before"
    model.vocabulary_ = {"fine": 0, "too": 1}
    model.save_word2vec_format(tmp_path / "v.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["v.txt"]
    assert (tmp_path / "v.txt").read_text() == "2 1\nfine 1\ntoo 1\n"


# Bad input --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("function", [cooccurrence, AttentionWordVectors(2).fit], ids=["cooccurrence", "fit"])
@pytest.mark.parametrize(
    ("documents", "match"),
    [
        ("one string", r"iterable of documents, but is one string: 'one string'.*pass it in a list"),
        (b"bytes", "iterable of documents, but is one string: b'bytes'"),
        (7, "iterable of documents, but is of type int"),
        (None, "iterable of documents, but is of type NoneType"),
        (["fine", None], r"strings or iterables of words, but number 1 is None. Drop it, or put ''"),
        (["fine", np.nan], "strings or iterables of words, but number 1 is nan"),
        ([], r"No word occurs min_count=5 times or more: the documents hold 0 words, .* 0 times. Lower min_count"),
        ([[], ""], "documents hold 0 words"),
        (["rare words"], r"documents hold 2 words, the most frequent of them 1 times"),
    ],
    ids=str,
)
def test_bad_documents(function, documents, match):
    with pytest.raises(ValueError, match=match):
        function(documents)


@pytest.mark.parametrize(
    ("documents", "match"),
    [
        ("one string", "but is one string"),
        (7, "but is of type int"),
        ([["tea0"], 3], "but number 1 is 3"),
    ],
    ids=str,
)
def test_bad_documents_in_transform(documents, match, model):
    with pytest.raises(ValueError, match=match):
        model.transform(documents)


def test_no_two_words_in_a_document():
    with pytest.raises(ValueError, match=r"No two of the 2 words .* ever in one document.*Pass longer documents"):
        AttentionWordVectors(2).fit([["a"], ["b"]] * 9)


BAD_COUNTS = [
    {"window": 0},
    {"min_count": 0},
    {"subsample": 0},
    {"window_weight": "gaussian"},
    {"gamma": -1},
    {"analyzer": "sentence"},
    {"n_jobs": 1.5},
]


@pytest.mark.parametrize("params", BAD_COUNTS, ids=str)
def test_bad_parameters_of_cooccurrence(params):
    (name,) = params
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter of cooccurrence must be"):
        cooccurrence(["a b"], **params)


@pytest.mark.parametrize(
    "params",
    [
        *BAD_COUNTS,
        {"n_components": 0},
        {"temperature": 1e-10},
        {"temperature": 1e10},
        {"max_iter": 0},
        {"tol": -1.0},
        {"random_state": "seed"},
        {"verbose": -1},
    ],
    ids=str,
)
def test_bad_parameters(params):
    (name,) = params
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter of AttentionWordVectors must be"):
        AttentionWordVectors(**params).fit(["a b"])


@pytest.mark.parametrize("word", [{}, [["cat"]]])
def test_words_that_cannot_be_in_a_vocabulary(word):
    model = AttentionWordVectors(2, min_count=1, random_state=0).fit(["cat dog", "dog cat"] * 5)
    with pytest.raises(ValueError, match="word must be one of the 2 words of vocabulary_"):
        model.most_similar(word)


@pytest.mark.parametrize("window_weight", WINDOW_WEIGHTS)
def test_windows_beyond_any_memory(window_weight):
    """The window is bounded by the number of words."""
    texts, params = [["a", "b", "c", "a"], ["c", "a"]], {"window_weight": window_weight, "min_count": 1}
    found = cooccurrence(texts, 10**30, **params).affinity.toarray()
    assert_allclose(found, cooccurrence(texts, 10**6, **params).affinity.toarray(), rtol=1e-5)


def test_words_that_are_lists(model):
    for call in (lambda texts: cooccurrence(texts, min_count=1), model.transform):
        with pytest.raises(TypeError, match=r"documents must hold words of a hashable kind.* 'list'"):
            call([["tea", ["cup"]]])


@pytest.mark.parametrize("documents", [np.array("tea"), [np.array("tea")]], ids=["all", "one"])
def test_documents_without_dimensions(documents):
    with pytest.raises(ValueError, match="documents must be"):
        cooccurrence(documents, min_count=1)
