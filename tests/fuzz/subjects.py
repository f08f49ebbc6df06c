"""Functions that each call a part of the public interface with a random input and check the result."""

import copy
import pickle

import numpy as np
import pandas as pd
import scipy.sparse as sp
from inputs import chance, counts, extreme, graph, parameters, pick, points, size, sparse, store, wrong
from outcome import Refused, expect, expect_close, fingerprint
from sklearn.base import clone

from sklearn_attnembed import (
    AttentionEmbedding,
    AttentionWordVectors,
    ExpressiveKernel,
    NormalizerEstimator,
    attention,
    expressive_kernel,
)
from sklearn_attnembed.affinity import (
    bipartite,
    concatenate_affinities,
    cooccurrence,
    local_scale,
    mix_affinities,
    neighbor_affinity,
    random_walk,
    temporal,
)
from sklearn_attnembed.datasets import make_block_model, make_modular_sequences
from sklearn_attnembed.metrics import attention_cross_entropy, attention_scores, log_normalizer_exact, relative_error

SUBJECTS = []
TEMPERATURES = (1e-300, 1e-30, 1e-6, 1e6, 1e300, np.inf, 10**30)
LARGE = (10**6, 10**9, 10**12, 10**30)


def subject(often=1):
    """Register a function, to be run with this relative frequency."""
    return lambda function: SUBJECTS.extend([function] * often) or function


# AttentionEmbedding ----------------------------------------------------------------------------------------
def inner(X, Y):
    """A callable affinity, never negative."""
    if sp.issparse(X) or sp.issparse(Y):
        scores = X @ Y.T
        return np.maximum(scores.toarray() if sp.issparse(scores) else scores, 0)
    return np.maximum(np.einsum("ij,kj->ik", X, Y), 0)  # X @ Y.T is rounded differently if Y is X


EMBEDDING = {
    "n_components": (1, 2, 3, 8),
    "n_neighbors": (1, 2, 5, 15),
    "weighting": ("perplexity", "self_tuning", "biweight", "uniform"),
    "metric": ("euclidean", "manhattan", "cosine", "chebyshev"),
    "walk_length": (1, 2, 3),
    "kernel": ("softmax", "softmax", "softmax", "expressive"),
    "temperature": (0.02, 0.2, 1, 5.0),
    "n_clusters": (1, 2, 5),
    "null_model": ("uniform", "degree", 0.5),
    "key_weight": ("uniform", "degree", 0.5),
    "normalizer": ("gaussian", "neighbors", "exact"),
    "n_exact": (1, 4, 64),
    "solver": ("accelerated", "gradient"),
    "max_iter": (1, 2, 5, 20),
    "tol": (0, 1e-3, 1e-2),
    "warm_start": (False, True),
    "n_jobs": (None, 1, 2, -1),
}
ABSURD_EMBEDDING = {
    "n_neighbors": LARGE,
    "metric": ("haversine", "jaccard", "precomputed", "nothing"),
    "walk_length": (30,),
    "temperature": TEMPERATURES,
    "n_clusters": LARGE,
    "null_model": (2.0, 200.0, 1e300, np.inf, np.ones(5), np.zeros(5), "x"),
    "key_weight": (2.0, 200.0, 1e300, np.inf),
    "n_exact": LARGE,
    "tol": (1e-300, 1e300, np.inf),
}
AFFINITIES = ("nearest_neighbors", "precomputed", "precomputed_nearest_neighbors", "bipartite", inner)


def distances(rng, n):
    """Return distances of points to their nearest neighbors, and zero elsewhere."""
    P = points(rng, n, 2)
    D = np.sqrt(np.square(P[:, None] - P).sum(axis=2))
    return np.where(np.sort(D, axis=1)[:, min(n, 6) - 1 :][:, :1] >= D, D, 0) if n else D


def relations(rng, affinity, n, d):
    """Return a matrix that suits an affinity."""
    if affinity == "precomputed":
        return graph(rng, n)
    if affinity == "precomputed_nearest_neighbors":
        return distances(rng, n)
    return counts(rng, n, d) if affinity == "bipartite" else points(rng, n, d)


def embedder(rng, watch, share=0.35):
    """Return a model, an input, the same as an array or None, and whether all of it is usual."""
    affinity, n, d = pick(rng, *AFFINITIES), size(rng), int(pick(rng, 1, 2, 5, 8))
    A, what = extreme(rng, relations(rng, affinity, n, d), share)
    X, plain, how = store(rng, A)
    params, is_usual = parameters(rng, EMBEDDING, ABSURD_EMBEDDING, 0.2)
    params = {"n_components": 3, "max_iter": 10, "random_state": 0, "affinity": affinity, **params}
    watch.note = f"{what}, {how}, {np.shape(A)}, AttentionEmbedding({params})"
    return AttentionEmbedding(**params), X, plain, is_usual and what == "usual" and plain is not None


def check_vectors(vectors, isolated=None):
    """Check that rows are finite and of unit norm, or zero if isolated."""
    expect(np.isfinite(vectors).all(), "vectors are not finite")
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    is_zero = norms == 0
    expect(np.allclose(norms[~is_zero], 1, rtol=0, atol=1e-5), f"rows of norm {norms[~is_zero].min(initial=1)}")
    if isolated is not None:
        expect(np.array_equal(is_zero, isolated), "zero rows are not those that are isolated")


def tolerance(vectors):
    """Return the tolerance for one row computed alone instead of with others."""
    return 1e-4 if vectors.dtype == np.float32 else 1e-6


@subject(6)
def embedding(rng, watch):
    """Fit a model and call one of its methods."""
    model, X, _, _ = embedder(rng, watch)
    task = pick(rng, rows, likelihood, tables, recommendations, links, columns, copies, memory)
    watch.note += f", {task.__name__}"
    expect(watch.call(model.fit, X) is model, "fit does not return self")
    check_vectors(model.embedding_, model.isolated_)
    check_vectors(model.key_embedding_)
    expect(np.isfinite(model.key_weight_).all() and (model.key_weight_ >= 0).all(), "key_weight_ is negative")
    expect(np.isfinite(model.loss_curve_).all(), "losses are not finite")
    expect(1 <= len(model.loss_curve_) == model.n_iter_ <= model.max_iter, "n_iter_ is not the number of losses")
    expect(isinstance(model.converged_, bool | np.bool_), "converged_ is no bool")
    if isinstance(X, np.ndarray):
        expected = np.float32 if X.dtype == np.float32 else np.float64
        expect(model.embedding_.dtype == expected, f"{X.dtype} became {model.embedding_.dtype}")
    task(rng, watch, model, X)


def queries_for(rng, model, X, n=None):
    """Return new rows with as many columns as in fit, as an array and in some storage."""
    n, affinity = size(rng) if n is None else n, model.affinity
    if affinity in ("precomputed", "precomputed_nearest_neighbors"):
        A = counts(rng, n, model.n_features_in_)
    else:
        A = relations(rng, affinity, n, model.n_features_in_)
    return store(rng, extreme(rng, A, 0.2)[0])


def rows(rng, watch, model, X):
    """Transform new rows together, one by one and in another order, and the training rows."""
    if not chance(rng, 0.1) and not np.isscalar(X):
        vectors = watch.call(model.transform, X)
        expect_close(vectors, model.embedding_, tolerance(vectors), "transform against embedding_")
    Q, plain, how = queries_for(rng, model, X)
    watch.note += f" {how}"
    vectors = watch.call(model.transform, Q)
    check_vectors(vectors)
    if plain is None or len(vectors) < 2 or isinstance(Q, pd.DataFrame):
        return
    order = rng.permutation(len(vectors))
    Q = Q.tocsr() if sp.issparse(Q) else np.asarray(Q)
    expect_close(watch.call(model.transform, Q[order]), vectors[order], tolerance(vectors), "rows in another order")
    expect_close(watch.call(model.transform, Q[:1]), vectors[:1], tolerance(vectors), "one row against many")


def likelihood(rng, watch, model, X):
    """Check score, perplexity and attention."""
    score = watch.call(model.score, X)
    expect(np.isfinite(score) and score <= tolerance(model.embedding_) * 1e-2, f"a log likelihood of {score}")
    perplexity = watch.call(model.perplexity, X)  # infinite if it overflows
    expect_close(min(np.log(perplexity), 709), min(-score, 709), 1e-6, "perplexity against score")
    chosen = pick(rng, None, [0], [-1], [], slice(0, 2), np.array([True]), [99], "x", 1.5)
    scores = watch.call(model.attention_scores, rows=chosen)
    expect(scores.ndim == 2 and scores.shape[1] == len(model.key_embedding_), f"attention of shape {scores.shape}")
    expect((scores >= 0).all() and np.allclose(scores.sum(axis=1), 1), "rows of attention do not sum to one")


def tables(rng, watch, model, X):
    """Check the tables of the explain methods."""
    X = pick(rng, None, X)
    table = watch.call(model.explain, pick(rng, 0, 0, 1, -1, 99, 1.0, "x", True), X)
    expect(np.isclose(table["attention"].sum(), 1), "attention does not sum to one")
    total = table["target"].sum()
    is_walk = 0 <= total <= 1.00001 and model.walk_length > 1  # walks may end at rows without affinity
    expect(is_walk or min(abs(total - 1), total) < 1e-5, "the target does not sum to one")
    table = watch.call(model.explain_rows, X, rows=pick(rng, None, [0], [], [99], [1.5], slice(0, 3)))
    expect(np.isfinite(table.to_numpy()).all(), "explain_rows is not finite")
    expect((table["divergence"] > -1e-5 * (1 + table["loss"].abs())).all(), "a loss below the entropy")
    labels = pick(rng, None, np.arange(len(model.key_embedding_)) % 2, ["a"], "x")
    table = watch.call(model.explain_clusters, X, labels=labels, rows=pick(rng, None, [0], slice(0, 3)))
    expect(np.isfinite(table["share"]).all(), "shares are not finite")


def recommendations(rng, watch, model, X):
    """Check recommendations."""
    Q = pick(rng, X, queries_for(rng, model, X)[0])
    is_known = pick(rng, True, False)
    items, scores = watch.call(model.recommend, Q, pick(rng, 1, 1, 2, 5, 10**9, 1.5, "x"), exclude_known=is_known)
    expect(items.shape == scores.shape and (items < model.n_features_in_).all(), "items that there are not")
    expect(np.array_equal(items < 0, np.isneginf(scores)), "-1 and -inf are not at the same places")
    with np.errstate(invalid="ignore"):
        expect(not (np.diff(scores, axis=1) > 0).any(), "not the best first")


def links(rng, watch, model, X):
    """Check links that are not there yet."""
    n_rows, n_keys = len(model.embedding_), len(model.key_embedding_)
    pairs, scores = watch.call(
        model.predict_links, pick(rng, 1, 2, 5, 10**6, 0, "x"), n_candidates=pick(rng, 1, 3, 64, 10**9, 1.5)
    )
    expect(pairs.shape == (len(scores), 2) and (pairs < (n_rows, n_keys)).all(), "pairs that there are not")
    expect(np.isfinite(scores).all() and not (np.diff(scores) > 0).any(), "not the best first")
    expect(np.array_equal(watch.call(model.score_links, pairs), scores), "other scores of the same pairs")


def columns(rng, watch, model, X):
    """Check vectors of new columns of a table."""
    n = len(model.embedding_)
    vectors = watch.call(model.transform_keys, store(rng, extreme(rng, counts(rng, n, size(rng)))[0])[0])
    check_vectors(vectors)


def copies(rng, watch, model, X):
    """Check that clones, threads, pickles and parameters set after fit change nothing."""
    if hasattr(X, "send") or isinstance(model.random_state, np.random.RandomState | None):
        return
    before = model.embedding_.tobytes()
    jobs = model.n_jobs if model.n_jobs is None or model.n_jobs != 2 else 1
    twin = watch.call(clone(model).set_params(n_jobs=1 if jobs == 2 else 2).fit, X)
    expect(twin.embedding_.tobytes() == before, "another number of threads, other bits")
    vectors = watch.call(model.transform, X)
    loaded = pickle.loads(pickle.dumps(model)) if model.affinity is not inner else copy.deepcopy(model)
    expect(watch.call(loaded.transform, X).tobytes() == vectors.tobytes(), "other bits from a copy")
    name = pick(rng, *EMBEDDING)
    loaded.set_params(**{name: pick(rng, *EMBEDDING[name], wrong(rng)), "affinity": model.affinity})
    watch.note += f", then {name}={getattr(loaded, name)!r}"
    if name != "n_jobs":
        expect(
            watch.call(loaded.transform, X).tobytes() == vectors.tobytes(), f"{name} set after fit changes transform"
        )


def memory(rng, watch, model, X):
    """Check estimates of memory."""
    n = pick(rng, 0, 1, 10, 10**9, -1, 1.5, "x", None)
    n_bytes = watch.call(model.estimate_memory, n, pick(rng, 0, 5, -1), pick(rng, np.float32, "float64", "x"))
    expect(n_bytes >= 0, f"{n_bytes} bytes")


@subject(2)
def refit(rng, watch):
    """Check that a fit does not depend on an earlier one, and that a failed fit keeps the model."""
    model, A, _, _ = embedder(rng, watch, 0)
    before = watch.note
    other, B, _, _ = embedder(rng, watch)
    watch.note = f"{before}, then {watch.note}"
    watch.call(model.fit, A)
    old = copy.deepcopy(model)
    model.set_params(**{**other.get_params(), "warm_start": False})
    try:
        watch.call(model.fit, B)
    except Refused:
        mine, theirs = ({k: fingerprint(v) for k, v in vars(m).items() if k.endswith("_")} for m in (model, old))
        expect(mine == theirs, "a fit that is refused changes the model")
        raise
    if not hasattr(B, "send"):
        fresh = watch.call(other.set_params(warm_start=False).fit, B)
        expect(fresh.embedding_.tobytes() == model.embedding_.tobytes(), "the former data are not forgotten")
        expect(set(vars(fresh)) == set(vars(model)), f"left over: {set(vars(fresh)) ^ set(vars(model))}")


@subject()
def same_relations(rng, watch):
    """Check that storage and scale of rows of the affinities do not change the embedding."""
    model, X, plain, is_usual = embedder(rng, watch, 0)
    model.set_params(temperature=1.0, max_iter=3, n_clusters=1, kernel="softmax", n_jobs=None)
    first = watch.call(model.fit, X).embedding_
    if not is_usual or (model.affinity == "precomputed_nearest_neighbors" and not sp.issparse(X)):
        return
    if np.ndim(plain) < 2 or min(plain.shape) < 2 or np.all(plain == plain[0]):
        return  # with one key, or equal rows, all vectors have the same loss, and rounding decides
    Y = plain if chance(rng, 0.7) and not sp.issparse(X) else sparse(rng, plain)[0]
    dtype = getattr(Y, "dtype", None)
    if (
        model.affinity in ("precomputed", "bipartite")
        and {model.null_model, model.key_weight} == {"uniform"}
        and chance(rng, 0.5)
    ):
        Y = plain * np.exp(rng.standard_normal((len(plain), 1)))
        Y = Y if model.affinity == "precomputed" else plain * 3.0
    elif sp.issparse(Y) and not np.array_equal(Y.toarray(), plain):
        return
    if model.affinity == "precomputed_nearest_neighbors" and X.nnz != Y.nnz:
        return  # explicit zeros are distances
    second = watch.call(clone(model).fit, Y).embedding_
    limit = 1e-2 if np.float32 in (first.dtype, second.dtype, dtype) else 1e-6
    expect_close(first, second, limit, f"{type(X).__name__} against {type(Y).__name__}")


# NormalizerEstimator ---------------------------------------------------------------------------------------
def lorentz(scores):
    """Compute a custom kernel."""
    return 1 / (1 + np.square(np.minimum(np.abs(scores), 1e150)))


METHODS = (
    "gaussian",
    "control_variate",
    "sampling",
    "neighbors",
    "random_fourier",
    "positive_features",
    "exact",
    "auto",
)
NORMALIZER = {
    "kernel": ("softmax", "softmax", "squared", "expressive", lorentz),
    "method": METHODS,
    "temperature": (0.02, 0.2, 1, 5.0),
    "n_clusters": (1, 2, 5),
    "covariance_type": ("full", "diag"),
    "n_samples": (8, 50, 1000),
    "n_exact": (1, 4, 64),
    "n_heavy": (0, 1, 5),
    "n_components": (1, 10, 100),
    "tol": (1e-3, 0.1),
    "n_jobs": (None, 1, 2, -1),
}
ABSURD_NORMALIZER = {
    "temperature": TEMPERATURES,
    **dict.fromkeys(("n_clusters", "n_samples", "n_exact", "n_heavy"), LARGE),
    "n_components": (10**12, 10**30),
    "tol": (1e-300, 1e300, np.inf),
}


def normalizer(rng, watch, share=0.35):
    """Return a model, keys, the same as an array, weights, and whether all of it is usual."""
    n, d = size(rng), int(pick(rng, 1, 2, 5, 8))
    A, what = extreme(rng, points(rng, n, d), share)
    X, plain, how = store(rng, A, False)
    params, is_usual = parameters(rng, NORMALIZER, ABSURD_NORMALIZER, 0.4)
    weight = pick(rng, None, None, np.ones(n), rng.integers(0, 3, n), rng.random(n) * 1e300, np.zeros(n), wrong(rng))
    watch.note = f"{what}, {how}, {np.shape(A)}, weight {weight!r:.30}, NormalizerEstimator({params})"
    model = NormalizerEstimator(**{"random_state": 0, **params})
    return model, X, plain, weight, is_usual and what == "usual" and plain is not None


@subject(3)
def log_normalizers(rng, watch):
    """Check log Z of any method, fitted at once or in chunks."""
    model, X, plain, weight, _ = normalizer(rng, watch)
    n_chunks = pick(rng, 0, 1, 2)
    if n_chunks and hasattr(model, "partial_fit"):
        watch.note += f", {n_chunks} chunks"
        watch.call(model.partial_fit, X, sample_weight=weight)
        if n_chunks == 2:
            more = store(rng, points(rng, size(rng), model.n_features_in_), False)[0]
            other = watch.call(clone(model).partial_fit, more)
            watch.call(*pick(rng, (model.merge, other), (model.partial_fit, more)))
    else:
        watch.call(model.fit, X, sample_weight=weight)
    Q, plain, how = store(rng, extreme(rng, points(rng, size(rng), model.n_features_in_), 0.3)[0], False)
    watch.note += f", queries {how}"
    log_z, std = watch.call(model.score_samples, Q, return_std=True)
    expect(len(log_z) == len(std) and log_z.dtype == std.dtype == np.float64, "shape or dtype of log Z")
    expect((log_z < np.inf).all(), "log Z is infinite")
    expect((model.kernel == "softmax" and np.isfinite(log_z).all()) or model.kernel != "softmax", "log Z is -inf")
    expect((std >= 0).all() and np.isfinite(std).all(), "a standard error that is none")
    masses = watch.call(model.transform, Q)
    expect(masses.shape == (len(log_z), len(model.get_feature_names_out())), "shape of the masses")
    expect(np.isfinite(masses).all(), "masses are not finite")
    if len(log_z) and plain is not None and not isinstance(Q, pd.DataFrame):
        one = watch.call(model.score_samples, np.asarray(Q)[:1])
        expect_close(one, log_z[:1], 1e-9, "one query against many")
    if n_chunks == 0:
        exact = watch.call(model.score_samples_exact, Q)
        expect((exact < np.inf).all(), "the exact log Z is infinite")
        expect(watch.call(model.score, Q) <= 0, "a positive score")


@subject()
def same_keys(rng, watch):
    """Check log Z of the same keys in other storage, chunks, order or rotation, duplicated, and by a copy."""
    model, X, plain, _, is_usual = normalizer(rng, watch, 0)
    model.set_params(n_clusters=1, n_heavy=0, method=pick(rng, "gaussian", "exact"), temperature=1.0)
    watch.call(model.fit, X)
    if not is_usual:
        return
    Q = points(rng, 5, plain.shape[1])
    log_z = watch.call(model.score_samples, Q)
    limit = 1e-3 if X is not plain and getattr(X, "dtype", None) in (np.float32, np.float16) else 1e-8
    turn = np.linalg.qr(rng.standard_normal((plain.shape[1],) * 2))[0]

    def again(K, queries=Q, **weights):
        return watch.call(watch.call(clone(model).fit, K, **weights).score_samples, queries)

    expect_close(again(plain), log_z, limit, "other storage")
    expect_close(again(plain[::-1]), log_z, limit, "keys in another order")
    if model.covariance_type == "full" or model.method == "exact":
        expect_close(again(plain @ turn, Q @ turn), log_z, limit, "rotated")
    expect_close(again(np.repeat(plain, 2, axis=0)), log_z + np.log(2), limit, "keys twice")
    expect_close(again(plain, sample_weight=np.full(len(plain), 2.0)), log_z + np.log(2), limit, "keys of weight two")
    loaded = pickle.loads(pickle.dumps(model)).set_params(temperature=3.0, n_jobs=2, n_clusters=2)
    expect(watch.call(loaded.score_samples, Q).tobytes() == log_z.tobytes(), "other bits after set_params")
    if model.method == "gaussian" and len(plain) > 3:
        chunked = watch.call(watch.call(clone(model).partial_fit, plain[:2]).partial_fit, plain[2:])
        expect_close(watch.call(chunked.score_samples, Q), log_z, limit, "chunks against whole")
    if model.method == "exact":
        exact = log_normalizer_exact(Q, plain, kernel=model.kernel)
        expect_close(log_z, exact, limit, "against metrics.log_normalizer_exact")


@subject()
def refit_keys(rng, watch):
    """Check that a fit does not depend on an earlier one, and that a failed fit keeps the model."""
    make = pick(rng, normalizer, features)
    model, A, *_ = make(rng, watch, 0)
    before = watch.note
    other, B, *_ = make(rng, watch)
    watch.note = f"{before}, then {watch.note}"
    watch.call(model.fit, A)
    state = {name: fingerprint(value) for name, value in vars(model).items() if name.endswith("_")}
    model.set_params(**other.get_params())
    try:
        watch.call(model.fit, B)
    except Refused:
        now = {name: fingerprint(value) for name, value in vars(model).items() if name.endswith("_")}
        expect(now == state, "a fit that is refused changes the model")
        raise
    if not hasattr(B, "send"):
        fresh = watch.call(other.fit, B)
        expect(set(vars(fresh)) == set(vars(model)), f"left over: {set(vars(fresh)) ^ set(vars(model))}")
        for name in state:
            expect(
                fingerprint(getattr(fresh, name, 0)) == fingerprint(getattr(model, name, 0)), f"{name} is not forgotten"
            )


# Expressive kernel and attention ---------------------------------------------------------------------------
KERNEL = {
    "kernel": ("expressive", "squared", "softmax"),
    "method": ("landmarks", "exact", "sketch"),
    "n_components": (1, 2, 8),
    "temperature": (0.02, 1, 5.0),
    "normalize": (True, False),
}
ABSURD_KERNEL = {
    "temperature": TEMPERATURES,
    "landmarks": ([[1.0, 2.0]], np.zeros((3, 2)), [], "x", np.full((2, 2), 1e300), [[np.nan, 1.0]], sp.eye_array(2)),
}


def features(rng, watch, share=0.35):
    """Return an ExpressiveKernel, rows, the same as an array, and whether all of it is usual."""
    A, what = extreme(rng, points(rng, size(rng), int(pick(rng, 1, 2, 5))), share)
    X, plain, how = store(rng, A)
    params, is_usual = parameters(rng, KERNEL, ABSURD_KERNEL, 0.5)
    watch.note = f"{what}, {how}, {np.shape(A)}, ExpressiveKernel({params})"
    model = ExpressiveKernel(**{"n_components": 4, "random_state": 0, **params})
    return model, X, plain, is_usual and what == "usual" and plain is not None


@subject()
def kernel_features(rng, watch):
    """Check features of expressive attention."""
    model, X, plain, is_usual = features(rng, watch)
    out = watch.call(watch.call(model.fit, X).transform, X)
    expect(out.shape[1] == len(model.get_feature_names_out()), f"features of shape {out.shape}")
    expect(np.isfinite(out.data if sp.issparse(out) else out).all(), "features are not finite")
    if model.method == "landmarks" and model.normalize:
        expect(np.allclose(out.sum(axis=1), 1, atol=1e-5), "attention to landmarks does not sum to one")
    if is_usual and model.method == "exact":
        limit = 1e-3 if out.dtype == np.float32 or getattr(X, "dtype", None) == np.float32 else 1e-9
        expect_close(out @ out.T, np.square(plain @ plain.T / model.temperature), limit, "squared scores")
    if is_usual and model.method == "landmarks":
        limit = 1e-3 if out.dtype == np.float32 or getattr(X, "dtype", None) == np.float32 else 1e-6
        expect_close(watch.call(model.transform, plain), out, limit, "features of other storage")


@subject()
def kernel_matrix(rng, watch):
    """Check weights of pairs."""
    d = int(pick(rng, 1, 2, 5))
    X, Y = (store(rng, extreme(rng, points(rng, size(rng), d))[0])[0] for _ in range(2))
    temperature = pick(rng, 1.0, 0.02, *TEMPERATURES, wrong(rng))
    watch.note = f"{type(X).__name__}, {type(Y).__name__}, temperature={temperature!r}"
    out = watch.call(expressive_kernel, X, pick(rng, None, Y), temperature)
    expect(np.all(np.asarray(out) >= 0) and np.all(np.asarray(out) <= 1), "weights beyond 0 and 1")


ATTENTION = {
    "kernel": ("softmax", "squared", "expressive", lorentz),
    "temperature": (0.02, 1.0, 5),
    "causal": (False, True),
    "method": ("exact", "gaussian"),
    "n_clusters": (1, 2, 8),
    "n_jobs": (None, 1, 2),
}


@subject()
def attention_over_values(rng, watch):
    """Check that attention is a mean of values."""
    d, n, m = int(pick(rng, 1, 2, 5)), size(rng), size(rng)
    contents = [extreme(rng, A, 0.15) for A in (points(rng, n, d), points(rng, m, d), points(rng, m, 2))]
    (Q, _, _), (K, _, _), (V, plain, _) = (
        store(rng, A, False) if chance(rng, 0.5) else (A, A, "") for A, _ in contents
    )
    params, _ = parameters(rng, ATTENTION, {"temperature": TEMPERATURES, "n_clusters": LARGE}, 0.5)
    mask = pick(
        rng, None, None, None, rng.random((n, m)) < 0.5, sp.csr_array(rng.random((n, m)) < 0.5), np.ones((n, m)), "x"
    )
    watch.note = f"{[what for _, what in contents]}, {n}, {m}, {type(mask).__name__}, attention({params})"
    out, log_z = watch.call(attention, Q, K, V, mask=mask, return_log_normalizer=True, random_state=0, **params)
    expect(out.shape == (n, 2) and log_z.shape == (n,), f"output of shape {out.shape}")
    expect(np.isfinite(out).all(), "output is not finite")
    expect((log_z < np.inf).all(), "log Z is infinite")
    if params.get("method") != "gaussian" and plain is not None:
        slack = 1e-5 * np.abs(plain).max(initial=1)
        low, high = np.minimum(plain.min(axis=0), 0), np.maximum(plain.max(axis=0), 0)
        expect((out >= low - slack).all() and (out <= high + slack).all(), "output beyond the values")


# Metrics and generators ------------------------------------------------------------------------------------
@subject()
def measures(rng, watch):
    """Check exact scores, their normalizers and cross entropy."""
    d, n, m = int(pick(rng, 1, 2, 5)), size(rng), size(rng)
    (Q, _q, _), (K, _k, _) = (store(rng, extreme(rng, points(rng, rows, d))[0], False) for rows in (n, m))
    kernel = pick(rng, "softmax", "squared", "expressive", lorentz, wrong(rng))
    temperature = pick(rng, 1.0, 1.0, 0.02, 5, *TEMPERATURES, wrong(rng))
    watch.note = f"{type(Q).__name__}, {type(K).__name__}, {n}, {m}, {kernel!r}, {temperature!r}"
    which = pick(rng, "log Z", "scores", "cross entropy", "error")
    watch.note += f", {which}"
    if which == "log Z":
        weight = pick(rng, None, np.ones(m), rng.random(m) * 1e300, 2, wrong(rng))
        log_z = watch.call(log_normalizer_exact, Q, K, key_weight=weight, kernel=kernel, temperature=temperature)
        expect((log_z < np.inf).all() and len(log_z) == n, "log Z is infinite")
    elif which == "scores":
        scores = watch.call(attention_scores, Q, K, kernel=kernel, temperature=temperature)
        expect(scores.shape == (n, n if K is None else m) and (scores >= 0).all(), "scores are negative")
        expect(np.allclose(scores.sum(axis=1), 1), "rows do not sum to one")
    elif which == "error":
        log_z = pick(rng, np.array([-np.inf, 0.0]), np.array([1e308, -1e308]), np.array([np.nan, 0]), Q, wrong(rng))
        error = watch.call(relative_error, log_z, pick(rng, log_z, np.array([-np.inf, 1.0])))
        expect(np.all(error >= 0), "an error below zero")
    else:
        A, _a, _ = store(rng, extreme(rng, counts(rng, n, m))[0])
        chosen = pick(rng, None, [0], [-1], [], [99], np.ones(n, bool), wrong(rng))
        length = pick(rng, 1, 1, 2, wrong(rng))
        loss = watch.call(attention_cross_entropy, A, Q, K, rows=chosen, temperature=temperature, walk_length=length)
        expect((np.isfinite(loss) and loss >= -1e-9 * max(1, abs(loss))) or length != 1, f"a cross entropy of {loss}")


@subject()
def generators(rng, watch):
    """Check generators of data sets."""
    usual = {
        "n_samples": (2, 5, 40),
        "n_classes": (1, 2, 50),
        "mean_degree": (0.5, 5),
        "mixing": (0, 0.5, 1),
        "degree_spread": (0, 1),
    }
    absurd = {"mean_degree": (1e-300, 1e4), "degree_spread": (1e3, 1e300, np.inf), "n_classes": LARGE}
    params, _ = parameters(rng, usual, absurd, 0.5)
    watch.note = f"make_block_model({params})"
    if chance(rng, 0.5):
        A, y = watch.call(make_block_model, **{"n_samples": 20, "random_state": 0, **params})
        expect(len(y) == A.shape[0] == A.shape[1] and (A != A.T).nnz == 0, "a graph that is not symmetric")
        expect(set(np.unique(A.data)) <= {1.0} and not A.diagonal().any(), "entries other than 0 and 1, or loops")
        return
    usual = {"n_sequences": (1, 5), "base": (2, 5), "delay": (1, 3), "length": (None, 1, 10)}
    params, _ = parameters(rng, usual, {"base": (10**9, 10**30)}, 0.5)
    watch.note = f"make_modular_sequences({params})"
    x = watch.call(make_modular_sequences, random_state=0, **{"n_sequences": 3, **params})
    expect(x.dtype == np.int64 and (x >= 0).all(), "numbers below zero")


# Affinities ------------------------------------------------------------------------------------------------
LABELS = ("a", "b", "c", 1, 2.5, ("x", 1), np.nan, None, pd.NA, [1], "1", True)


def labels(rng, n):
    """Return labels of nodes, some of them invalid."""
    good, every = ("a", "b", "c", "d"), LABELS
    chosen = every if chance(rng, 0.2) else good
    column = np.empty(n, object)
    column[:] = [pick(rng, *chosen) for _ in range(n)]
    return column


def weights(rng, n):
    """Return weights of edges."""
    return extreme(rng, rng.random((n, 1)), 0.3)[0][:, 0]


@subject()
def walks(rng, watch):
    """Check random walks on matrices and tables of edges."""
    n = size(rng)
    X, plain, how = store(rng, extreme(rng, graph(rng, n))[0])
    if chance(rng, 0.4):
        X, plain, how = (
            pd.DataFrame({"i": labels(rng, n), "j": labels(rng, n), "weight": weights(rng, n)}),
            None,
            "edges",
        )
    usual = {
        "teleport": (0.0, 0.3),
        "directed": (False, True),
        "weight": ("weight", None),
        "nodes": (None, list("abcd"), np.arange(n)),
    }
    params, is_usual = parameters(rng, usual, {"teleport": (1e-300, 1 - 1e-16)})
    watch.note = f"{how}, {n}, random_walk({params})"
    P = watch.call(random_walk, X, **params)
    sums = P.sum(axis=1)
    expect((P.data >= 0).all() and P.has_canonical_format, "negative or untidy")
    expect(np.all(np.isclose(sums, 1, atol=1e-5) | (sums == 0)), "rows do not sum to one")
    is_table = isinstance(X, pd.DataFrame)  # of edges
    if is_usual and plain is not None and np.isfinite(plain).all() and not is_table:
        expect_close(
            P, watch.call(random_walk, plain, **params), 1e-3 if P.dtype == np.float32 else 1e-12, "other storage"
        )


@subject()
def tables_of_pairs(rng, watch):
    """Check counts from long tables."""
    n = size(rng)
    table = pd.DataFrame({"user": labels(rng, n), "item": labels(rng, n), "weight": weights(rng, n)})
    table = pick(
        rng, table, table, table, table[["user", "item"]], table[["user"]], table.T, store(rng, graph(rng, n))[0]
    )
    params, _ = parameters(
        rng, {"weight": ("weight", None), "rows": (None, list("abcd"), ["a", "a"]), "columns": (None, ["a"])}
    )
    watch.note = f"{n}, bipartite({params})"
    counted, rows, items = watch.call(bipartite, table, nan=True, **params)
    expect(counted.shape == (len(rows), len(items)), "labels do not fit the table")
    expect((counted.data >= 0).all() and np.isfinite(counted.data).all(), "counts that are none")


@subject()
def several_relations(rng, watch):
    """Check mixtures of relations, and relations side by side."""
    n = size(rng)
    relations = [store(rng, graph(rng, n))[0] for _ in range(rng.integers(1, 4))]
    weights = pick(rng, None, np.ones(len(relations)), rng.random(len(relations)), -np.ones(len(relations)))
    watch.note = f"{n}, {len(relations)} relations, weights={weights}"
    mixed = watch.call(mix_affinities, relations, weights)
    joined = watch.call(concatenate_affinities, relations, weights)
    for P in (mixed.affinity, joined):
        sums = P.sum(axis=1)
        expect((P.data >= 0).all() and P.has_canonical_format, "negative or untidy")
        expect(np.all(np.isclose(sums, 1, atol=1e-5) | (sums == 0)), "rows do not sum to one")


@subject()
def contacts(rng, watch):
    """Check walks on contacts in time."""
    n = size(rng)
    time = extreme(rng, rng.random((n, 1)))[0][:, 0]
    with np.errstate(invalid="ignore"):
        imaginary = time * 1j
    time = pick(
        rng, time, pd.date_range("2020", periods=n).to_numpy(), labels(rng, n), rng.integers(9, size=n), imaginary
    )
    table = pd.DataFrame({"time": time, "i": labels(rng, n), "j": labels(rng, n), "weight": weights(rng, n)})
    table = pick(
        rng,
        table,
        table,
        table,
        table.to_numpy(),
        table[["time", "i", "j"]].to_numpy(),
        table[["i"]],
        store(rng, graph(rng, n))[0],
    )
    usual = {"width": (0.1, 1, "1D", None), "n_slices": (None, 1, 5), "direction": ("both", "forward", "backward"),
             "advance": (0.1, 0.9), "directed": (False, True), "nodes": (None, list("abcd"))}  # fmt: skip
    absurd = {"width": (1e-300, 1e300, np.inf, "1ns", "-1D", "x"), "n_slices": LARGE, "advance": (1e-300, 1 - 1e-16)}
    params, _ = parameters(rng, usual, absurd)
    if not {"width", "n_slices"} & set(params):
        params["n_slices"] = 3
    watch.note = f"{n}, {time.dtype}, temporal({params})"
    walk = watch.call(temporal, table, nan=True, **params)
    sums = walk.affinity.sum(axis=1)
    expect(not np.isnan(walk.affinity.data).any() and (walk.affinity.data >= 0).all(), "not probabilities")
    expect(np.all(np.isclose(sums, 1) | (sums == 0)), "rows do not sum to one")
    expect((walk.slice >= 0).all() and (walk.slice < walk.n_slices).all(), "a slice that is not there")
    vectors = watch.call(walk.by_node, np.ones((len(walk.node), 2)))
    expect(vectors.shape == (len(walk.nodes), 2), "a row for each node")
    watch.call(walk.at, np.ones((len(walk.node), 2)), pick(rng, 0, 0, -1, 10**9, wrong(rng)))
    expect(len(walk.edges) == walk.n_slices + 1 if walk.n_slices < 10**6 else True, "edges")


@subject()
def neighbors(rng, watch):
    """Check affinities of nearest neighbors."""
    n = size(rng)
    A, what = extreme(rng, distances(rng, n))
    X, how = sparse(rng, A) if chance(rng, 0.8) else store(rng, A)[::2]
    usual = {"n_neighbors": (1, 2, 5, 15), "weighting": ("perplexity", "self_tuning", "biweight", "uniform"),
             "perplexity": (None, 1.0, 5), "key_scale": (None, np.ones(n), rng.random(n))}  # fmt: skip
    absurd = {
        "n_neighbors": LARGE,
        "perplexity": (1e300, np.inf),
        "key_scale": (np.zeros(n), np.full(n, 1e300), -np.ones(n)),
    }
    params, is_usual = parameters(rng, usual, absurd, 0.5)
    watch.note = f"{what}, {how}, {n}, neighbor_affinity({params})"
    scale = watch.call(local_scale, X)
    expect(scale.shape == (n,) and (scale >= 0).all(), "scales that are none")
    W = watch.call(neighbor_affinity, X, **params)
    expect(W.shape == X.shape and (W.data >= 0).all() and np.isfinite(W.data).all(), "weights that are none")
    tidy = sp.csr_array(X.astype(np.float64) if sp.issparse(X) and X.dtype == bool else X, copy=True)
    tidy.sum_duplicates()
    if is_usual and what == "usual":
        limit = 1e-4 if X.dtype == np.float32 else 1e-10
        expect_close(W, watch.call(neighbor_affinity, tidy, **params), limit, "split, unsorted or other storage")
        expect_close(scale, watch.call(local_scale, tidy), limit, "scale of other storage")


# Words -----------------------------------------------------------------------------------------------------
DOCUMENTS = (
    "tea cup pot",
    "sea ship port tea",
    "",
    "a",
    ["tea", "sea"],
    [],
    [1, 2, 1],
    ("x", None),
    b"tea cup",
    "Ä ß 漢字 tea",
)


def cut(document):
    """Return words of documents of any type, a custom analyzer."""
    return str(document).split()


TEXTS = {
    "window": (1, 2, 5),
    "min_count": (1, 2),
    "subsample": (None, 1e-5, 0.1),
    "window_weight": ("uniform", "linear", "harmonic"),
    "gamma": (0, 0.75, 1),
    "analyzer": ("word", "char", "char_wb", cut),
    "n_jobs": (None, 1, 2),
}
ABSURD_TEXTS = {
    "window": (10**4, 10**9, 10**30),
    "min_count": LARGE,
    "subsample": (1e-300, 1e300, np.inf, 5e-324),
    "gamma": (200.0, 1e300, np.inf),
}


def documents(rng):
    """Return texts, mostly valid."""
    bad = (None, 1, 1.5, np.nan, {"a": 1}, [[1]], [np.nan])
    chosen = DOCUMENTS[:5] + (bad if chance(rng, 0.15) else DOCUMENTS[5:] if chance(rng, 0.3) else ())
    texts = [pick(rng, *chosen) for _ in range(size(rng))]
    if chance(rng, 0.1):
        return pick(rng, "text", b"text", None, 5, {"a": "b"}, pd.DataFrame({"a": ["tea"]}), np.array("tea"), np.eye(2))
    return pick(rng, texts, texts, tuple(texts), pd.Series(texts, dtype=object), iter(texts), (text for text in texts))


@subject()
def words(rng, watch):
    """Check vectors of words and of documents."""
    params, _ = parameters(rng, TEXTS, ABSURD_TEXTS)
    params = {"min_count": 1, **params}
    if chance(rng, 0.4):
        watch.note = f"cooccurrence({params})"
        counted = watch.call(cooccurrence, documents(rng), **params)
        expect(counted.affinity.shape == (len(counted.vocabulary),) * 2, "the vocabulary does not fit")
        expect(np.isfinite(counted.affinity.data).all() and np.isfinite(counted.p0).all(), "not finite")
        expect(abs(counted.affinity - counted.affinity.T).sum() == 0, "co-occurrence is not symmetric")
        expect(np.isclose(counted.p0.sum(), 1), "p0 does not sum to one")
        return
    usual = {"n_components": (1, 3), "temperature": (0.02, 1), "tol": (0, 1e-2), "max_iter": (1, 5)}
    more, _ = parameters(rng, usual, {"temperature": TEMPERATURES, "tol": (1e300, np.inf)})
    params = {"n_components": 3, "max_iter": 5, "random_state": 0, **params, **more}
    watch.note = f"AttentionWordVectors({params})"
    model = AttentionWordVectors(**params)
    texts = documents(rng)
    vectors = watch.call(pick(rng, model.fit_transform, lambda texts: model.fit(texts).embedding_), texts)
    check_vectors(model.embedding_, model.isolated_)
    expect(np.isfinite(vectors).all(), "vectors are not finite")
    out = watch.call(model.transform, documents(rng))
    expect(
        out.shape[1] == model.embedding_.shape[1] and np.linalg.norm(out, axis=1).max(initial=0) < 1.001,
        "means beyond one",
    )
    word = pick(rng, next(iter(model.vocabulary_)), "tea", ["tea", "sea"], "nothing", [], None, 5, {})
    similar = watch.call(model.most_similar, word, pick(rng, 3, 0, 10**9, -1, 1.5, "x"), nan=True)  # NaN as a word
    expect(all(-1.001 <= cosine <= 1.001 for _, cosine in similar), "a cosine beyond one")
