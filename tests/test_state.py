"""Files of models: a loaded model equals the saved one to the bit, and invalid files raise an error."""

import copy
import json
import pickle
import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from numpy.testing import assert_array_equal
from scipy.sparse.linalg import aslinearoperator
from sklearn.exceptions import NotFittedError
from sklearn.metrics.pairwise import laplacian_kernel, rbf_kernel
from sklearn.neighbors import NearestNeighbors, kneighbors_graph
from sklearn.pipeline import make_pipeline

from sklearn_attnembed import (
    AttentionEmbedding,
    AttentionWordVectors,
    ExpressiveKernel,
    NormalizerEstimator,
    _schema,
    _state,
    load,
    save,
)

RNG = np.random.default_rng(0)
POINTS = RNG.random((60, 5))
AFFINITY = rbf_kernel(POINTS) * (RNG.random((60, 60)) < 0.3)
AFFINITY = AFFINITY + AFFINITY.T
COUNTS = RNG.poisson(np.kron(np.eye(2), np.full((15, 10), 2)) + 0.3).astype(np.float64)
MANY = np.random.default_rng(1).random((400, 3))
KEYS = RNG.standard_normal((1500, 3))
TEXTS = ["tea cup pot", "sea ship port", "tea pot", "ship port"] * 5


def manhattan(x, y):
    return np.abs(x - y).sum()


def words_of(text):
    return [tuple(word) for word in text.split()]


def _embedding(n_components=3, **params):
    return AttentionEmbedding(n_components, **{"tol": 0, "max_iter": 8, "random_state": 0, **params})


def _normalizer(**params):
    return NormalizerEstimator(random_state=0, **params)


def _partial(**params):
    model = _normalizer(**params)
    for chunk in np.array_split(KEYS, 3):
        model.partial_fit(chunk)
    return model


def _named(X):
    return pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])


def _asked(model, X=KEYS[:5]):
    """Ask for standard errors, which are calibrated then."""
    model.score_samples(X, return_std=True)
    return model


def _isolated():
    A = np.zeros((62, 62))
    A[1:61, 1:61] = AFFINITY
    with pytest.warns(UserWarning, match="2 of 62 rows have no affinity"):
        return _embedding(affinity="precomputed", normalizer="exact").fit(sp.csr_array(A))


def _near():
    A = kneighbors_graph(MANY, 6)
    return _embedding(affinity="precomputed", normalizer="neighbors", n_exact=8, n_clusters=2).fit(A + A.T)


# Each makes a fitted model; what is saved with it is compared by `answers`.
MODELS = {
    "points": lambda: _embedding().fit(POINTS),
    "points, float32": lambda: _embedding().fit(POINTS.astype(np.float32)),
    "points, names": lambda: _embedding().set_output(transform="pandas").fit(_named(POINTS)),
    "points, sparse": lambda: _embedding(n_jobs=2).fit(sp.csr_array(POINTS * (POINTS > 0.4))),
    "points, function": lambda: _embedding(metric=manhattan).fit(POINTS),
    "points, self-tuning": lambda: _embedding(weighting="self_tuning", walk_length=2).fit(POINTS),
    "points, clusters": lambda: _embedding(n_clusters=3, temperature=0.5).fit(POINTS),
    "precomputed": lambda: _embedding(affinity="precomputed").fit(sp.csr_array(AFFINITY)),
    "precomputed, dense, float32": lambda: _embedding(affinity="precomputed").fit(AFFINITY.astype(np.float32)),
    "precomputed, isolated": _isolated,
    "precomputed, operator": lambda: _embedding(affinity="precomputed").fit(aslinearoperator(AFFINITY)),
    "precomputed, exact": lambda: _embedding(affinity="precomputed", normalizer="exact").fit(AFFINITY),
    "precomputed, neighbors": _near,
    "precomputed, null model": lambda: _embedding(affinity="precomputed", null_model=np.arange(1, 61)).fit(AFFINITY),
    "precomputed, random state": lambda: _embedding(affinity="precomputed", random_state=np.random.RandomState(5)).fit(
        AFFINITY
    ),
    "precomputed, gradient": lambda: _embedding(affinity="precomputed", solver="gradient", max_iter=5).fit(AFFINITY),
    "expressive": lambda: _embedding(affinity="precomputed", kernel="expressive", temperature=1).fit(AFFINITY),
    "distances": lambda: _embedding(affinity="precomputed_nearest_neighbors", n_neighbors=5).fit(
        kneighbors_graph(POINTS, 8, mode="distance")
    ),
    "function": lambda: _embedding(affinity=rbf_kernel).fit(POINTS),
    "function, sparse": lambda: _embedding(affinity=rbf_kernel).fit(sp.csr_array(POINTS)),
    "bipartite": lambda: _embedding(affinity="bipartite", key_weight="degree").fit(_named(COUNTS)),
    "bipartite, walks": lambda: _embedding(affinity="bipartite", walk_length=2, null_model=0.5).fit(
        sp.csr_matrix(COUNTS)
    ),
    "bipartite, exact": lambda: _embedding(affinity="bipartite", normalizer="exact").fit(COUNTS),
    "log Z": lambda: _asked(_normalizer().fit(KEYS)),
    "log Z, float32, names": lambda: _normalizer().fit(_named(KEYS.astype(np.float32))),
    "log Z, weights": lambda: _normalizer(n_heavy=3).fit(KEYS, sample_weight=np.arange(1500) % 4),
    "log Z, diagonal": lambda: _normalizer(n_clusters=3, covariance_type="diag").fit(KEYS),
    "log Z, squared": lambda: _normalizer(kernel="squared", n_clusters=2).fit(KEYS),
    "log Z, function": lambda: _normalizer(kernel=np.exp, n_samples=100).fit(KEYS),
    "log Z, control_variate": lambda: _normalizer(method="control_variate", n_samples=100, n_clusters=2).fit(KEYS),
    "log Z, sampling": lambda: _asked(_normalizer(method="sampling", n_samples=100).fit(KEYS)),
    "log Z, neighbors": lambda: _normalizer(method="neighbors", n_clusters=2, n_samples=50).fit(KEYS),
    "log Z, random_fourier": lambda: _normalizer(method="random_fourier", n_components=50).fit(KEYS),
    "log Z, positive_features": lambda: _normalizer(method="positive_features", n_components=50).fit(KEYS),
    "log Z, exact": lambda: _normalizer(method="exact", kernel="expressive").fit(KEYS),
    "log Z, auto": lambda: _normalizer(method="auto", n_samples=100).fit(KEYS),
    "log Z, chunks": _partial,
    "log Z, chunks, control_variate": lambda: _partial(method="control_variate", n_samples=100, n_heavy=2),
    "log Z, chunks, random_fourier": lambda: _partial(method="random_fourier", n_components=50),
    "log Z, merged": lambda: _partial(method="sampling", n_samples=100).merge(
        _partial(method="sampling", n_samples=100)
    ),
    "landmarks": lambda: ExpressiveKernel(n_components=7, random_state=0).fit(_named(POINTS)),
    "landmarks, given": lambda: ExpressiveKernel(
        "softmax", landmarks=POINTS[:4].tolist(), normalize=False, temperature=np.float32(0.3)
    ).fit(POINTS.astype(np.float32)),
    "products": lambda: ExpressiveKernel(method="exact", temperature=0.5).fit(POINTS),
    "products, sparse": lambda: ExpressiveKernel(method="exact").fit(sp.csr_array(POINTS)),
    "sketch": lambda: ExpressiveKernel(method="sketch", n_components=9, random_state=0).fit(POINTS),
    "words": lambda: AttentionWordVectors(3, min_count=1, tol=0, max_iter=5, random_state=0).fit(TEXTS),
    "words, function": lambda: AttentionWordVectors(
        3, min_count=1, subsample=None, tol=0, max_iter=5, analyzer=words_of, random_state=0
    ).fit(TEXTS),
}
# Attributes that scikit-learn and the decorator of fit set.
OF_THE_MACHINERY = {"_sklearn_output_config", "_set_by_fit"}
FUNCTIONS = {
    "points, function": {"metric": manhattan},
    "function": {"affinity": rbf_kernel},
    "function, sparse": {"affinity": rbf_kernel},
    "log Z, function": {"kernel": np.exp},
    "words, function": {"analyzer": words_of},
}


fitted = cache(lambda name: MODELS[name]())


def queries(model):
    """Return input that the model accepts."""
    if isinstance(model, AttentionWordVectors):
        return TEXTS[:4]
    n = model.n_features_in_
    X = {5: POINTS, 3: KEYS[:50], 20: COUNTS, 60: AFFINITY, 62: None, 400: None}[n]
    if n == 400:
        X = kneighbors_graph(MANY, 6).toarray()[:30]
    if n == 62:
        X = np.ones((3, 62))
    if isinstance(model, AttentionEmbedding) and model.affinity == "precomputed_nearest_neighbors":
        X = kneighbors_graph(POINTS, 8, mode="distance")
    return _named(X) if hasattr(model, "feature_names_in_") else X.copy()  # functions may ask whether X is Y


def answers(model):
    """Yield the results of all methods of a fitted model."""
    X = queries(model)
    yield "transform", model.transform(X)
    if isinstance(model, AttentionEmbedding):
        yield "score", model.score(X)
        yield "explain", model.explain(0, X=X) if hasattr(model, "affinity_matrix_") else None
        yield "attention_scores", model.attention_scores(X)
        yield "explain_clusters", model.explain_clusters()
        if hasattr(model, "affinity_matrix_") and model.kernel == "softmax":
            yield "predict_links", model.predict_links(5)
        if model.affinity == "bipartite":
            yield "recommend", model.recommend(X, 3)
            yield "transform_keys", model.transform_keys(COUNTS[:, :2])
    if isinstance(model, NormalizerEstimator):
        yield "score_samples", model.score_samples(X)
        yield "std", model.score_samples(X, return_std=True)
        if model._keys is not None:
            yield "exact", model.score_samples_exact(X)
            yield "score", model.score(X)
    if isinstance(model, AttentionWordVectors):
        yield "most_similar", model.most_similar([next(iter(model.vocabulary_))])
    yield "names", model.get_feature_names_out()


def assert_same(one, other, where=""):
    """Assert that two objects and all their parts are equal to the bit, in type and dtype."""
    assert type(one) is type(other), where
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype, where
        assert one.flags.f_contiguous == other.flags.f_contiguous, where
        assert_array_equal(one, other, err_msg=where)
    elif sp.issparse(one):
        assert one.shape == other.shape, where
        assert_same(one.tocsr().data, other.tocsr().data, where)
        assert_array_equal(one.toarray(), other.toarray(), err_msg=where)
    elif isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    elif isinstance(one, dict):
        assert set(one) == set(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}[{i}]")
    elif isinstance(one, NearestNeighbors):
        assert_same(one.get_params(), other.get_params(), where)
    elif isinstance(one, np.random.RandomState):
        assert_same(one.get_state(), other.get_state(), where)
    elif hasattr(one, "__dict__") and not callable(one):
        assert_same(vars(one), vars(other), where)
    else:
        np.testing.assert_equal(other, one, err_msg=where)


@pytest.fixture
def saved(tmp_path):
    def saved(model):
        save(model, tmp_path / "model")
        return tmp_path / "model"

    return saved


# There and back --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", MODELS)
def test_there_and_back(name, saved):
    """All methods of a model that was loaded give the bits of the one that was saved."""
    model = fitted(name)
    loaded = load(saved(model), **FUNCTIONS.get(name, {}))
    before, after = dict(answers(model)), dict(answers(loaded))
    assert_same(before, after, name)


@pytest.mark.parametrize("name", MODELS)
def test_parameters(name, saved):
    loaded = load(saved(fitted(name)), **FUNCTIONS.get(name, {}))
    assert_same(fitted(name).get_params(), loaded.get_params(), name)


@pytest.mark.parametrize("name", MODELS)
def test_attributes(name, saved):
    """Every attribute is in the file, follows from others, or does not belong to the model."""
    model = fitted(name)
    loaded = load(saved(model), **FUNCTIONS.get(name, {}))
    layout = _state.LAYOUTS[type(model).__name__]
    kept = {place.split(".")[0] for place, _ in layout.entries.parts.values()} | OF_THE_MACHINERY
    left = set(vars(model)) - set(model.get_params()) - kept - set(layout.derived)
    assert not left, f"neither in the format nor derived: {left}"
    assert set(vars(loaded)) == set(vars(model))
    for key in set(vars(model)) - OF_THE_MACHINERY:
        assert_same(vars(model)[key], vars(loaded)[key], f"{name}, {key}")
    assert set(loaded._set_by_fit) == set(model._set_by_fit)
    if isinstance(model, AttentionWordVectors):
        assert list(loaded.vocabulary_) == list(model.vocabulary_)


@pytest.mark.parametrize("name", MODELS)
def test_same_bytes(name, saved, tmp_path):
    """Saving a loaded model gives the same file."""
    content = saved(fitted(name)).read_bytes()
    save(load(tmp_path / "model", **FUNCTIONS.get(name, {})), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == content
    with np.load(tmp_path / "model", allow_pickle=False) as arrays:  # an npz for everyone
        assert json.loads(bytes(arrays["model"]))["format"] == "sklearn_attnembed"
        assert all(array.dtype.kind in "biuf" for array in arrays.values())


def _other():
    return _partial(method="sampling", n_samples=100)


GO_ON = {
    "warm start": ("precomputed", lambda model: model.set_params(warm_start=True).fit(AFFINITY)),
    "warm start, bipartite": ("bipartite", lambda model: model.set_params(warm_start=True).fit(_named(COUNTS))),
    "random state": ("precomputed, random state", lambda model: model.fit(AFFINITY)),
    "given landmarks": ("landmarks, given", lambda model: model.fit(POINTS)),
    "anew": ("points", lambda model: model.set_params(affinity="precomputed").fit(AFFINITY)),
    "another chunk": ("log Z, chunks", lambda model: model.partial_fit(KEYS[:99])),
    "another chunk, heavy": ("log Z, chunks, control_variate", lambda model: model.partial_fit(2 * KEYS[:99])),
    "another chunk after fit": ("log Z, control_variate", lambda model: model.partial_fit(KEYS[:99])),
    "merge": ("log Z, merged", lambda model: model.merge(_other())),
    "merged": ("log Z, merged", lambda model: _other().merge(model)),
}


@pytest.mark.parametrize("name", GO_ON)
def test_goes_on(name, saved):
    """Fitting a loaded model again or further gives the result of fitting the saved one."""
    start, go_on = GO_ON[name]
    loaded = go_on(load(saved(fitted(start))))
    model = go_on(copy.deepcopy(fitted(start)))
    assert_same(dict(answers(model)), dict(answers(loaded)), name)
    assert set(vars(loaded)) == set(vars(model))


def test_array_like_parameters(saved):
    """Lists stay lists, and other array-likes become arrays."""
    rows = pd.DataFrame(POINTS[:4])
    model = ExpressiveKernel(landmarks=rows).fit(POINTS)
    loaded = load(saved(model))
    assert_array_equal(loaded.landmarks, rows)
    assert_same(loaded.fit(POINTS).transform(POINTS), model.transform(POINTS))


@pytest.mark.parametrize("word", ["tea", "\ud800", "\U0001f375 \n", "", 7, 2.5, -np.inf, True, None, (1, ("a", None))])
def test_words(word, saved):
    model = AttentionWordVectors(2)
    model.vocabulary_, model.embedding_ = {"first": 0, word: 1}, np.eye(2, dtype=np.float32)
    model.isolated_, model._analyzer = np.zeros(2, bool), "word"
    loaded = load(saved(model))
    assert_same(list(loaded.vocabulary_.items()), [("first", 0), (word, 1)])
    assert_same(loaded.transform([[word], ["first", word]]), np.array([[0, 1], [0.5, 0.5]], np.float32))


def test_word2vec(saved, tmp_path):
    """Models that were read from another format can be saved without a fit."""
    (tmp_path / "vectors").write_text("2 2\ntea 1 0\npot 0 1\n")
    model = AttentionWordVectors.load_word2vec_format(tmp_path / "vectors")
    assert_same(load(saved(model)).transform(["tea pot"]), model.transform(["tea pot"]))


def test_each_array_once(saved):
    """Arrays of the same content share an entry."""
    path = saved(fitted("precomputed"))
    with np.load(path) as arrays:
        contents = [(array.dtype, array.shape, array.tobytes()) for array in arrays.values()]
    assert len(set(contents)) == len(contents)
    tree = tree_of(path)
    assert tree["fitted"]["vectors"] == tree["fitted"]["key_embedding"]
    loaded = load(path)
    before = loaded.transform(AFFINITY)
    loaded.embedding_[:] = 0
    assert_same(loaded.transform(AFFINITY), before)


def test_memory_map(saved, tmp_path):
    """Keys in a memory map are written to the file."""
    np.save(tmp_path / "keys.npy", KEYS)
    model = _normalizer(method="exact").fit(np.load(tmp_path / "keys.npy", mmap_mode="r"))
    assert_same(load(saved(model)).score_samples(KEYS[:9]), model.score_samples(KEYS[:9]))


def test_other_parameters(saved):
    loaded = load(saved(fitted("points")), n_jobs=2, verbose=1)
    assert (loaded.n_jobs, loaded.verbose) == (2, 1)
    with pytest.raises(ValueError, match="Invalid parameter 'colour'"):
        load(saved(fitted("points")), colour=1)


def test_other_byte_order(saved, tmp_path):
    """Files from machines with the other byte order can be read."""
    path = saved(fitted("points"))
    with np.load(path) as arrays:
        swapped = {name: array.astype(array.dtype.newbyteorder()) for name, array in arrays.items()}
    np.savez_compressed(tmp_path / "swapped.npz", **swapped)
    loaded = load(tmp_path / "swapped.npz")
    assert loaded.embedding_.dtype.isnative
    assert_same(dict(answers(loaded)), dict(answers(fitted("points"))))


# The page about the format ---------------------------------------------------------------------------------
def _described(kind):
    """Describe a kind of value in the words of the page."""
    dtypes = {
        _schema.FLOATS: "float32/64",
        _schema.INTEGERS: "int32/64",
        (*_schema.FLOATS, *_schema.INTEGERS): "number",
    }
    match kind:
        case _schema.Maybe():
            return f"{_described(kind.kind)}, or none"
        case _schema.Listing():
            return f"list of {_described(kind.kind)}"
        case _schema.Scalar():
            return {bool: "true or false", int: "integer", float: "number", str: "text"}[kind.type]
        case _schema.Matrix():
            return f"matrix ({kind.rows}, {kind.columns})"
        case _schema.Numbers():
            shapes = " or ".join(f"({', '.join(map(str, shape))})" for shape in kind.shapes)
            return f"{dtypes.get(kind.dtypes, kind.dtypes[0])} {shapes}"
    return {"_Names": "list of text", "_Vocabulary": "list of value", "Value": "value"}.get(
        type(kind).__name__, "group"
    )


def _tables(parts):
    """Yield the tables of a group and of the groups in it."""
    yield [(name, _described(kind)) for name, (_, kind) in parts.items()]
    for _, kind in parts.values():
        inner = kind.kind if isinstance(kind, _schema.Maybe | _schema.Listing) else kind
        if isinstance(inner, _schema.Group):
            yield from _tables(inner.parts)


def test_page():
    """The page lists each entry with its type and shape, and no other."""
    page = (Path(__file__).parents[1] / "doc" / "state_format.rst").read_text(encoding="utf8")
    there = [
        [tuple(re.findall("^   ``(.*)`` [|] (.*?) [|] .", row)[0]) for row in table.splitlines() if row[:5] == "   ``"]
        for table in page.split(".. csv-table::")[2:]
    ]
    wanted = [table for layout in _state.LAYOUTS.values() for table in _tables(layout.entries.parts)]
    assert [table for table in wanted if table not in there] == []
    assert [table for table in there if table not in wanted] == []


# Where the file goes ---------------------------------------------------------------------------------------
def test_no_suffix_and_nothing_else(tmp_path):
    save(fitted("landmarks"), str(tmp_path / "model.bin"))
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_complete_or_not_at_all(tmp_path, monkeypatch, error):
    path = tmp_path / "model"
    path.write_bytes(b"before")

    def interrupted(*args, **kwargs):
        raise error

    monkeypatch.setattr(np.lib.format, "write_array", interrupted)
    with pytest.raises(error):
        save(fitted("landmarks"), path)
    assert [each.name for each in tmp_path.iterdir()] == ["model"]
    assert path.read_bytes() == b"before"


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError):
        save(fitted("landmarks"), tmp_path / "nowhere" / "model")
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        save(fitted("landmarks"), tmp_path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")
    assert not list(tmp_path.parent.glob("*.part"))


# What is no model, and what is no data ---------------------------------------------------------------------
def test_only_our_fitted_estimators(tmp_path):
    class Subclass(ExpressiveKernel):
        pass

    for model in (make_pipeline(ExpressiveKernel(n_components=3)).fit(POINTS), Subclass(), "model", ExpressiveKernel):
        with pytest.raises(TypeError, match="must be one of AttentionEmbedding"):
            save(model, tmp_path / "model")
    with pytest.raises(NotFittedError):
        save(ExpressiveKernel(), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_functions_are_given(saved):
    """The file has a function's name, to tell the user; it is never imported."""
    path = saved(fitted("function"))
    assert tree_of(path)["params"]["affinity"] == {"function": "sklearn.metrics.pairwise.rbf_kernel"}
    with pytest.raises(ValueError, match=r"affinity was the function sklearn.metrics.pairwise.rbf_kernel.*affinity="):
        load(path)
    with pytest.raises(ValueError, match=r"^\S* affinity was the function \S*, and files hold no functions"):
        load(path, affinity="precomputed")


def test_two_functions_of_one_parameter(tmp_path):
    model = copy.deepcopy(fitted("function")).set_params(affinity=laplacian_kernel)
    with pytest.raises(ValueError, match=r"affinity is .* in fit.*fit again"):
        save(model, tmp_path / "model")


def test_parameters_set_after_fit(saved):
    """Parameters set after fit are saved, and do not change the fitted model."""
    model = copy.deepcopy(fitted("precomputed")).set_params(temperature=7, affinity="bipartite")
    loaded = load(saved(model))
    assert (loaded.temperature, loaded.affinity) == (7, "bipartite")
    assert_same(loaded.transform(AFFINITY), model.transform(AFFINITY))


@pytest.mark.parametrize(
    "landmarks", [[[object()]], [["a"]], {"a": 1}, np.array([[1 + 2j]]), np.array([[object()]]), [[1j]]]
)
def test_what_is_no_data(landmarks, tmp_path):
    model = copy.deepcopy(fitted("landmarks"))
    model.landmarks = landmarks
    if landmarks == [["a"]]:  # is data
        save(model, tmp_path / "model")
        return
    with pytest.raises((TypeError, ValueError), match="landmarks"):
        save(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())


# Files that are not right ----------------------------------------------------------------------------------
def tree_of(path):
    with np.load(path) as arrays:
        return json.loads(bytes(arrays["model"]))


def changed(path, change):
    """Change the JSON or the arrays of a file, with valid checksums."""
    with np.load(path) as file:
        arrays = dict(file)
    tree = json.loads(bytes(arrays["model"]))
    change(tree, arrays)
    arrays["model"] = np.frombuffer(json.dumps(tree).encode(), np.uint8)
    with open(path, "wb") as file:
        np.savez(file, **arrays)
    return path


def test_parameters_that_there_were_not_yet(saved):
    """A parameter that a file does not have gets its default."""
    model = fitted("precomputed")
    path = changed(saved(model), lambda tree, arrays: tree["params"].pop("n_init"))
    loaded = load(path)
    assert loaded.n_init == 3
    assert_array_equal(loaded.embedding_, model.embedding_)


def test_later_formats(saved):
    def change(tree, arrays):
        tree["format_version"] = 3
        tree["versions"]["sklearn_attnembed"] = "7.1"

    path = changed(saved(fitted("points")), change)
    with pytest.raises(ValueError, match=r"of format 3, of sklearn_attnembed 7\.1, but .* up to 1. Upgrade"):
        load(path)


WRONG = {
    "another format": (lambda tree, arrays: tree.update(format="keras"), "the format has to be 'sklearn_attnembed'"),
    "no estimator of ours": (lambda tree, arrays: tree.update(estimator="SVC"), "the estimator has to be one of"),
    "another parameter": (lambda tree, arrays: tree["params"].update(colour=1), "params has to be among"),
    "a parameter's value": (lambda tree, arrays: tree["params"].update(tol=-1), "'tol' parameter"),
    "an attribute missing": (lambda tree, arrays: tree["fitted"].pop("embedding"), "fitted/embedding has to be there"),
    "another attribute": (lambda tree, arrays: tree["fitted"].update(evil=1), "fitted has to be made of"),
    "a version that is none": (lambda tree, arrays: tree.update(format_version=True), "format_version has to be of"),
    "not of that type": (lambda tree, arrays: tree["fitted"].update(n_iter="2"), "fitted/n_iter has to be of type int"),
    "no reference": (lambda tree, arrays: tree["fitted"].update(embedding=[1.0]), "a reference to an array"),
    "nothing there": (
        lambda tree, arrays: tree["fitted"].update(embedding={"array": "../evil"}), "entry ../evil.npy, but is missing",
    ),
    "an array missing": (lambda tree, arrays: arrays.pop("fitted/embedding"), "fitted/embedding.npy, but is missing"),
    "another shape": (
        lambda tree, arrays: arrays.update({"fitted/embedding": np.ones((59, 3))}), "of shape",
    ),
    "one dimension": (
        lambda tree, arrays: arrays.update({"fitted/key_weight": np.ones((60, 1))}), "of shape",
    ),
    "another dtype": (lambda tree, arrays: arrays.update({"fitted/key_weight": np.ones(60, int)}), "float64"),
    "text": (lambda tree, arrays: arrays.update({"fitted/key_weight": np.full(60, "a")}), "an array of numbers"),
    "a cluster that is not there": (
        lambda tree, arrays: arrays.update({"fitted/key_cluster": np.full(60, 10**9)}), "from -1 to 59",
    ),
    "indices out of range": (
        lambda tree, arrays: arrays["fitted/affinity_matrix/indices"].__setitem__(0, 10**6), "ValueError",
    ),
    "indices below zero": (
        lambda tree, arrays: arrays["fitted/affinity_matrix/indices"].__setitem__(0, -5), "ValueError",
    ),
    "pointers that fall": (
        lambda tree, arrays: arrays["fitted/affinity_matrix/indptr"].__setitem__(1, 10**5), "ValueError",
    ),
    "sparse without indices": (lambda tree, arrays: tree["fitted"]["affinity_matrix"].pop("indices"), "KeyError"),
    "JSON of another kind": (lambda tree, arrays: tree.update(params=[1]), "has to be"),
    "deep": (lambda tree, arrays: tree.update(params=json.loads("[" * 500 + "]" * 500)), "has to be"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_wrong_content(what, saved):
    """Each entry is checked, even if checksums are valid."""
    change, message = WRONG[what]
    path = saved(fitted("precomputed"))
    assert load(changed(path, lambda tree, arrays: None)) is not None
    with pytest.raises(ValueError, match=message) as caught:
        load(changed(path, change))
    assert str(path) in str(caught.value)


def _nodes(tree):
    """Yield each place in a tree of JSON."""
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _nodes(value)


THINGS = [
    None, True, -1, 2**70, 1.5, "nan", [], [1], {}, {"array": "model"}, {"tuple": []}, {"float": "inf"},
    {"function": "os.system"}, {"scalar": "object", "value": 3}, {"sparse": "csr"},
    {"random_state": ["MT19937", {"array": "model"}, 1, 0, 0.0]},
]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["points", "precomputed", "precomputed, neighbors", "log Z, neighbors", "sketch", "words"]
)
def test_any_content(name, saved):
    """Any content with valid checksums gives a model or a ValueError."""
    path, rng, refused = saved(fitted(name)), np.random.default_rng(0), 0
    content = path.read_bytes()
    for trial in range(2 * len(list(_nodes(tree_of(path))))):

        def change(tree, arrays, trial=trial):
            nodes = list(_nodes(tree))
            parent, key = nodes[trial % len(nodes)]
            parent[key] = THINGS[rng.integers(len(THINGS))]

        path.write_bytes(content)
        try:
            load(changed(path, change))
        except ValueError:
            refused += 1
    assert refused > trial / 2


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_never_unpickles(saved, tmp_path):
    path = saved(fitted("precomputed"))
    with open(tmp_path / "evil.npz", "wb") as file:
        np.savez(file, model=np.array([Evil()], object))
    with open(tmp_path / "evil.npy", "wb") as file:
        np.save(file, np.array([Evil()], object))
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    changed(path, lambda tree, arrays: arrays.update({"fitted/embedding": np.array([Evil()] * 60, object)}))
    for name in ("evil.npz", "evil.npy", "evil.pkl", path.name):
        with pytest.raises(ValueError, match=re.escape(name)):
            load(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04" + 30 * b"\0", b"\x93NUMPY", b"text\n" * 100])
def test_no_npz(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=r"has to be a file of sklearn_attnembed\.save"):
        load(tmp_path / "file")


def test_another_npz(tmp_path):
    np.savez(tmp_path / "a.npz", a=1)
    with pytest.raises(ValueError, match=r"in the entry model.npy, but is missing"):
        load(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["precomputed", "log Z, neighbors", "words"])
def test_damaged_files(name, saved, tmp_path):
    """A file with changed, missing or additional bytes raises an error, or gives the same model."""
    model, content, rng = fitted(name), saved(fitted(name)).read_bytes(), np.random.default_rng(0)
    expected = dict(answers(model))
    path, outcomes = tmp_path / "damaged", []
    for trial in range(150):
        damaged = bytearray(content)
        if trial % 3 == 0:
            del damaged[rng.integers(len(content)) :]
        else:
            # Everywhere, or where the directory of the archive is.
            places = rng.integers(0 if trial % 3 == 1 else len(content) - 1500, len(content), size=1 + trial % 2)
            damaged[places[0]] ^= 1 << rng.integers(8)
            damaged[places[-1]] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            loaded = load(path)
        except ValueError as error:
            outcomes.append("refused" if str(path) in str(error) else str(error))
        else:
            outcomes.append("read")
            assert_same(dict(answers(loaded)), expected, f"trial {trial}")
    assert set(outcomes) <= {"refused", "read"}
    assert outcomes.count("refused") > 100


# Others' files ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [name for name in MODELS if name != "words, function"])  # whose words are tuples
def test_skops(name):
    skops = pytest.importorskip("skops.io", reason="it is not one of the extras")
    data = skops.dumps(fitted(name))
    loaded = skops.loads(data, trusted=skops.get_untrusted_types(data=data))
    assert_same(dict(answers(fitted(name))), dict(answers(loaded)), name)
