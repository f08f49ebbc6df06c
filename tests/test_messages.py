"""Every error and warning of the package names the argument, the rule, the value and the remedy.

All of them are listed: the places that the calls of the list reach are all places in the source that raise or warn.
"""

import ast
import importlib
import importlib.util
import io
import json
import sys
import tempfile
import traceback
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import kneighbors_graph
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import sklearn_attnembed
from sklearn_attnembed import (
    AttentionEmbedding,
    AttentionRecommender,
    AttentionWordVectors,
    ExpressiveKernel,
    NormalizerEstimator,
    __main__,
    _sklearn,
    attention,
    expressive_kernel,
)
from sklearn_attnembed._schema import FileError
from sklearn_attnembed.affinity import (
    bipartite,
    concatenate_affinities,
    cooccurrence,
    mix_affinities,
    neighbor_affinity,
    random_walk,
    temporal,
)
from sklearn_attnembed.datasets import make_block_model
from sklearn_attnembed.inspection import EmbeddingDisplay, LossCurveDisplay
from sklearn_attnembed.metrics import attention_cross_entropy, attention_scores, log_normalizer_exact, relative_error

PACKAGE = Path(sklearn_attnembed.__file__).parent
HAS_TORCH = importlib.util.find_spec("torch") is not None
if HAS_TORCH:
    import torch

    from sklearn_attnembed import nn

# Places that no call reaches, and why.
UNREACHED: dict[tuple[str, str], str] = {}

# Inputs ----------------------------------------------------------------------------------------------------
POINTS = np.random.default_rng(0).random((12, 5))
A = POINTS @ POINTS.T
MANY = np.random.default_rng(0).random((50, 50))
BLOCKS = make_block_model(600, 3, mean_degree=40, random_state=0)[0]
COUNTS = np.kron(np.eye(2), np.ones((6, 4)))
LONELY = np.block([[A, np.zeros((12, 1))], [np.zeros((1, 13))]])
EDGES = pd.DataFrame({"i": ["a", "b"], "j": ["b", "c"], "weight": [1.0, 2.0]})
CONTACTS = pd.DataFrame({"time": [0.0, 1.0, 5.0], "i": ["a", "b", "a"], "j": ["b", "c", "c"]})
TEXTS = ["tea cup pot"] * 5 + ["sea ship port"] * 5


def precomputed(X=A, **params):
    return AttentionEmbedding(2, affinity="precomputed", random_state=0, **params).fit(X)


def without_degrees(model):
    """Forget what files of earlier versions do not have."""
    model._fitted = model._fitted._replace(row_sums=None, column_sums=None)
    return model


def table(**params):
    return AttentionEmbedding(2, affinity="bipartite", random_state=0, **params).fit(COUNTS)


def normalizer(X=POINTS, **params):
    return NormalizerEstimator(random_state=0, **params).fit(X)


def words(texts=TEXTS, **params):
    return AttentionWordVectors(2, **{"min_count": 1, "tol": 0, "max_iter": 3, "random_state": 0, **params}).fit(texts)


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def read(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npy"
        path.write_bytes(content)
        return __main__.embed(path, Path(folder) / "vectors.npy")


def written_to(target):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npy"
        path.write_bytes(npy(POINTS))
        return __main__.embed(path, target)


def without_attribute(owner, name, call, *args):
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(owner, name)
        return call(*args)


def import_anew():
    spec = importlib.util.spec_from_file_location("sklearn_attnembed._anew", _sklearn.__file__)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def out_of_range():
    matrix = sp.csr_array(POINTS)
    matrix.indices[3] = 99
    return matrix


def refitted(model, X, **params):
    return model.set_params(**params).fit(X)


def load(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.txt"
        path.write_bytes(content)
        return AttentionWordVectors.load_word2vec_format(path)


def save(*vocabulary):
    model = AttentionWordVectors(1)
    model.vocabulary_, model.embedding_ = {word: i for i, word in enumerate(vocabulary)}, np.ones((2, 1))
    model.save_word2vec_format("never written")


def without(module, call):
    """Call a function as if a package were not installed."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [module, *(name for name in sys.modules if name.startswith(f"{module}."))]:
            patch.setitem(sys.modules, name, None)
        call()


def import_nn():
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "sklearn_attnembed.nn", raising=False)
        importlib.import_module("sklearn_attnembed.nn")


def of_another_version(model):
    return type(model)().__setstate__({**model.__getstate__(), "_attnembed_version": "99.0"})


def saved_and_loaded(model, change=lambda path: None):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.npz"
        sklearn_attnembed.save(model, path)
        change(path)
        sklearn_attnembed.load(path)


def holding(landmarks):
    model = ExpressiveKernel(n_components=3, random_state=0).fit(POINTS)
    model.landmarks = landmarks
    return model


def by_function():
    return AttentionEmbedding(2, affinity=rbf_kernel, tol=0, max_iter=2, random_state=0).fit(POINTS)


def of_later_format(path):
    content = dict(format="sklearn_attnembed", format_version=2, versions={"sklearn_attnembed": "99.0"})
    np.savez(path, model=np.frombuffer(json.dumps(content).encode(), np.uint8))


def networkx_graph(*edges):
    return pytest.importorskip("networkx").Graph(edges)


def zeros(*shapes, **settings):
    return [torch.zeros(shape, **settings) for shape in shapes]


def heads(*shapes, attn_mask=None, **settings):
    return nn.ExpressiveMultiheadAttention(4, 2)(*zeros(*shapes), attn_mask=attn_mask, **settings)


def nested():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a prototype, says PyTorch
        tensor = torch.nested.nested_tensor(zeros((2, 4), (3, 4)))
    return nn.expressive_attention(tensor, tensor, tensor)


# The list --------------------------------------------------------------------------------------------------
# The call, its error or warning, and parts of the text: name, rule, value ("" if the name says it), remedy.
MESSAGES = {
    # AttentionEmbedding: affinities
    "precomputed, not square": (
        lambda: precomputed(POINTS), ValueError,
        "affinity='precomputed'", "needs a square matrix of samples by samples", "X has shape (12, 5)",
        "use affinity='nearest_neighbors'",
    ),
    "precomputed, other labels": (
        lambda: precomputed(pd.DataFrame(A[:2, :2], ["a", "b"], ["b", "a"])), ValueError,
        "X must have", "rows and columns in the same order", "row 0 is 'a' and column 0 'b'", "Pass X[X.index]",
    ),
    "precomputed, distances": (
        lambda: precomputed(np.abs(MANY[:, :1] - MANY[:, 0]), max_iter=999), UserWarning,
        "affinity='precomputed'", "takes affinities, which are large where samples are near", "X looks like distances",
        "affinity='precomputed_nearest_neighbors', or make affinities of them",
    ),
    "precomputed, a graph of distances": (
        lambda: precomputed(kneighbors_graph(MANY, 3, mode="distance"), max_iter=999), UserWarning,
        "affinity='precomputed'", "takes affinities, which are large where samples are near", "in ascending order",
        "affinity='precomputed_nearest_neighbors', or make affinities of them",
    ),
    "precomputed, features": (
        lambda: precomputed(MANY, max_iter=999), UserWarning,
        "affinity='precomputed'", "takes affinities of samples by samples", "X looks like features",
        "use affinity='nearest_neighbors'",
    ),
    "neighbours, of relations": (
        lambda: AttentionEmbedding(2, random_state=0, max_iter=999).fit(MANY + MANY.T), UserWarning,
        "affinity='nearest_neighbors'", "rows for points", "X looks like relations",
        "use affinity='precomputed'",
    ),
    "table, transposed": (
        lambda: table().transform(COUNTS.T), ValueError,
        "X has", "expecting 8", "X has 8 rows", "probably transposed: pass X.T",
    ),
    "precomputed, negative": (
        lambda: precomputed(-A), ValueError,
        "data passed to AttentionEmbedding with affinity='precomputed'", "weights >= 0", "smallest is -",
        "embed signed edges by affinity='bipartite' and concatenate_affinities([abs(X) + X, abs(X) - X])",
    ),
    "precomputed, an operator with bad sums": (
        lambda: precomputed(aslinearoperator(-A)), ValueError,
        "X, an operator with affinity='precomputed'", "finite row sums >= 0", "ranges from -",
        "Pass non-negative weights",
    ),
    "precomputed, an operator of other columns": (
        lambda: precomputed().transform(aslinearoperator(A[:, :11])), ValueError,
        "X has", "expecting 12", "11 columns", "pass affinities to each sample seen in fit",
    ),
    "a graph of NetworkX": (
        lambda: AttentionEmbedding().fit(networkx_graph((0, 1))), TypeError,
        "X", "must be a matrix", "is a Graph of NetworkX", "Pass affinity.random_walk(X), with affinity='precomputed'",
    ),
    "precomputed, nothing": (
        lambda: precomputed(0 * A), ValueError,
        "X has no affinity", "at least one has to be positive", "each of its 12 rows sums to 0", "Pass weights",
    ),
    "affinity, of another shape": (
        lambda: AttentionEmbedding(2, affinity=lambda X, Y: A[:5]).fit(POINTS), ValueError,
        "affinity(X, Y)", "must return shape (12, 12)", "got (5, 12)", "one row for each of X",
    ),
    "n_neighbors, too many": (
        lambda: AttentionEmbedding(2, random_state=0).fit(POINTS), UserWarning,
        "n_neighbors=15", "more than n_samples - 1 = 11", "=15", "which is taken instead",
    ),
    "points, too large": (
        lambda: AttentionEmbedding(2).fit(1e200 * POINTS), ValueError,
        "X must have", "finite distances between its rows", "numbers of size", "Divide X by its largest number",
    ),
    "expressive, of an operator": (
        lambda: precomputed(aslinearoperator(A), kernel="expressive"), ValueError,
        "kernel='expressive'", "needs affinities one by one", "X is a LinearOperator",
        "Pass a sparse matrix, or use kernel='softmax'",
    ),
    "expressive, of walks": (
        lambda: precomputed(kernel="expressive", walk_length=3), ValueError,
        "kernel='expressive'", "needs walk_length=1", "but it is 3", "Set it back, or use kernel='softmax'",
    ),
    # AttentionEmbedding: the fit
    "null_model, of another shape": (
        lambda: precomputed(null_model=np.ones(5)), ValueError,
        "null_model", "one entry for each of the 12 samples", "has shape (5,)", "Pass a power of the degree",
    ),
    "null_model, negative": (
        lambda: precomputed(null_model=-np.ones(12)), ValueError,
        "null_model", "must be >= 0 with a positive sum", "smallest is -1", "Clip it",
    ),
    "null_model, of an operator without adjoint": (
        lambda: precomputed(LinearOperator(A.shape, matvec=lambda x: A @ x, dtype=A.dtype), null_model="degree"),
        ValueError,
        "null_model by degree", "needs column sums", "the operator has no rmatvec", "use null_model='uniform'",
    ),
    "objective, of an operator without adjoint": (
        lambda: precomputed(LinearOperator(A.shape, matvec=lambda x: A @ x, dtype=A.dtype), objective="joint"),
        ValueError,
        "objective='joint'", "needs products with the transposed", "the operator has no rmatvec", "objective='queries'",
    ),
    "warm_start, of another width": (
        lambda: refitted(precomputed(warm_start=True), A, n_components=3), ValueError,
        "n_components=3", "warm_start=True goes on from vectors of", "2 dimensions", "set warm_start=False",
    ),
    "AttentionEmbedding, not converged": (
        lambda: precomputed(max_iter=1), ConvergenceWarning,
        "max_iter=1", "did not converge", "the last displacement was", "Raise max_iter",
    ),
    "AttentionEmbedding, an impossible loss": (
        lambda: AttentionEmbedding(64, temperature=0.05, random_state=0).fit(MANY), ConvergenceWarning,
        "temperature=0.05, normalizer='gaussian'", "a true loss lies between", "ended at a loss of",
        "Raise the temperature, or use normalizer='neighbors'",
    ),
    "AttentionEmbedding, a loss that is not true": (
        lambda: AttentionEmbedding(16, affinity="precomputed", temperature=0.06, random_state=0).fit(BLOCKS),
        ConvergenceWarning,
        "ended at a loss of", "the exact loss of a sample of", "temperature=0.06, normalizer='gaussian'",
        "use normalizer='neighbors', or lower max_iter; check_loss=False turns this check off",
    ),
    "n_negative, too many": (
        lambda: AttentionEmbedding(2, n_negative=3).fit(MANY), ValueError,
        "n_negative", "must be at most n_components=2", "is 3", "Lower it, or use 'auto'",
    ),
    "n_negative, of a table": (
        lambda: AttentionEmbedding(2, affinity="bipartite", n_negative=1).fit(np.eye(4)), ValueError,
        "n_negative", "has no effect with affinity='bipartite'", "n_negative=1", "Use 0 or 'auto'",
    ),
    "n_clusters, too many": (
        lambda: precomputed(n_clusters=13, max_iter=999), UserWarning,
        "n_clusters=13", "more than there are keys with affinities, 12", "=13", "which is taken instead",
    ),
    "degrees, all zero": (
        lambda: precomputed(np.eye(4, k=2)[:, :4], key_weight="degree"), ValueError,
        "key_weight='degree'", "needs degrees", "all of these degrees are 0", "Set key_weight='uniform'",
    ),
    "rows, none of them": (
        lambda: precomputed().attention_scores(rows=[99]), ValueError,
        "rows must be", "integers from 0 to 11", "[99]", "Pass existing rows, or None for all",
    ),
    "rows without affinity": (
        lambda: precomputed(LONELY), UserWarning,
        "rows have no affinity", "their vectors are zero", "1 of 13", "Drop them",
    ),
    # AttentionEmbedding: other methods
    "transform_keys, no table": (
        lambda: precomputed().transform_keys(A), ValueError,
        "transform_keys", "which only affinity='bipartite' has", "affinity='precomputed'", "use transform",
    ),
    "transform_keys, other rows": (
        lambda: table().transform_keys(COUNTS[:5]), ValueError,
        "X has", "transform_keys is expecting 12", "5 rows", "one for each sample seen in fit, in the same order",
    ),
    "recommend, no table": (
        lambda: precomputed().recommend(A), ValueError,
        "recommend", "which only", "affinity='precomputed'", "affinity='bipartite'",
    ),
    "score, nothing to predict": (
        lambda: AttentionRecommender(2, temperature=0.3, random_state=0).fit(COUNTS).score(np.eye(len(COUNTS.T))),
        ValueError, "X", "two items", "has none", "Pass users with more items",
    ),
    "recommend, too many": (
        lambda: table().recommend(COUNTS, n_items=9), ValueError,
        "n_items", "must be an integer", "got 9", "from 1 to the 8 columns",
    ),
    "score_links, another kernel": (
        lambda: precomputed(kernel="expressive", temperature=1).score_links([[0, 1]]), ValueError,
        "Scores of links", "need kernel='softmax'", "kernel='expressive'", "Fit with",
    ),
    "score_links, operator": (
        lambda: precomputed(aslinearoperator(A)).predict_links(), ValueError,
        "Scores of links", "need the affinities one by one", "LinearOperator", "Fit a sparse matrix",
    ),
    "score_links, no degrees": (
        lambda: without_degrees(precomputed()).predict_links(), ValueError,
        "Scores of links", "need the degrees", "of an earlier version", "Fit it again",
    ),
    "score_links, no pairs": (
        lambda: precomputed().score_links([1, 2]), ValueError,
        "pairs", "must be integers of shape (n_pairs, 2)", "shape (2,)", "Pass numbers",
    ),
    "score_links, too large": (
        lambda: precomputed().score_links([[1, 12]]), ValueError,
        "pairs", "must be from 0 to the 12 rows and 12 columns", "(1, 12)", "Drop",
    ),
    "predict_links, none": (
        lambda: precomputed().predict_links(n_candidates=0), ValueError,
        "n_candidates", "must be an integer >= 1", "got 0", "Pass how many",
    ),
    "estimate_memory, no number": (
        lambda: AttentionEmbedding().estimate_memory(-5), ValueError,
        "n_samples", "must be an integer >= 0", "got -5", "Pass what the data will have",
    ),
    "score, of nothing": (
        lambda: precomputed().score(0 * A), ValueError,
        "X has no row", "any affinity", "no row", "so there is nothing to score",
    ),
    "explain, no row": (
        lambda: precomputed().explain(12), ValueError, "i must be", "an integer from 0", "is 12", "0 to 11",
    ),
    "explain, of an operator": (
        lambda: precomputed(aslinearoperator(A)).explain(0), ValueError,
        "X of fit", "are not kept", "is a LinearOperator", "Pass rows of them as X, or fit a sparse matrix",
    ),
    "explain_clusters, other labels": (
        lambda: precomputed().explain_clusters(labels=[0, 1]), ValueError,
        "labels", "one for each of the 12 keys", "shape (2,)", "Pass an array as long as key_embedding_",
    ),
    "explain, without pandas": (
        lambda: without("pandas", precomputed().explain_rows), ImportError,
        "explain_rows", "needs pandas", "", "pip install 'sklearn-attnembed[pandas]'",
    ),
    "explain, an operator": (
        lambda: precomputed().explain(0, X=aslinearoperator(A)), ValueError,
        "X", "must have rows to be explained", "is a LinearOperator", "Pass a sparse matrix",
    ),
    "pictures, classes of other points": (
        lambda: EmbeddingDisplay(POINTS[:, :2], y=[0, 1]), ValueError,
        "y", "must have one entry for each of the 12 points", "has shape (2,)", "Pass an array as long as points",
    ),
    "pictures, without matplotlib": (
        lambda: without("matplotlib", LossCurveDisplay([1.0, 0.5]).plot), ImportError,
        "A display", "needs matplotlib", "", "pip install 'sklearn-attnembed[plot]'",
    ),
    # attention
    "attention, widths": (
        lambda: attention(POINTS, POINTS[:, :3], POINTS), ValueError,
        "Q and K", "same number of columns", "Q has 5 and K 3", "Project one",
    ),
    "attention, lengths": (
        lambda: attention(POINTS, POINTS, POINTS[:7]), ValueError,
        "K and V", "same number of rows, one for each key", "K has 12 and V 7", "Pass a value for every key",
    ),
    "attention, a mask for sums": (
        lambda: attention(POINTS, POINTS, POINTS, method="gaussian", causal=True), ValueError,
        "method='gaussian'", "sums over all keys alike", "a mask or causal=True", "Use method='exact', or kernel=",
    ),
    "attention, no boolean mask": (
        lambda: attention(POINTS, POINTS, POINTS, mask=np.ones((12, 12))), ValueError,
        "mask", "must be boolean, True where a query may attend, of shape", "got float64 of shape (12, 12)",
        "Use mask.astype(bool)",
    ),
    # kernels
    "kernel, a function of another shape": (
        lambda: attention_scores(POINTS, kernel=np.sum), ValueError,
        "A function given as kernel", "one value for each score", "shape () of (12, 12)",
        "Use functions that work entry by entry",
    ),
    "kernel, a negative function": (
        lambda: attention_scores(POINTS, kernel=np.negative), ValueError,
        "A function given as kernel", "finite and non-negative", "is -", "clip it, or raise the temperature",
    ),
    "sparse, arrays that do not fit together": (
        lambda: ExpressiveKernel(n_components=2).fit(out_of_range()), ValueError,
        "X", "must be a sparse matrix whose arrays fit together", "has index 99, out of range for 5", "Build it anew",
    ),
    "ExpressiveKernel, no features": (
        lambda: ExpressiveKernel("softmax", method="exact").fit(POINTS), ValueError,
        "method='exact'", "gives features of the squared score", "kernel='softmax'", "Use kernel='expressive'",
    ),
    "ExpressiveKernel, landmarks for nothing": (
        lambda: ExpressiveKernel(method="sketch", landmarks=POINTS).fit(POINTS), ValueError,
        "landmarks were given", "has none", "method='sketch'", "Use method='landmarks', or leave them out",
    ),
    "ExpressiveKernel, other landmarks": (
        lambda: ExpressiveKernel(landmarks=POINTS[:, :3]).fit(POINTS), ValueError,
        "landmarks", "need the 5 columns of X", "have 3", "Pass points of the same space",
    ),
    "ExpressiveKernel, too many": (
        lambda: ExpressiveKernel(n_components=99).fit(POINTS), UserWarning,
        "n_components=99", "more than n_samples=12, which is taken", "=99", "Lower n_components",
    ),
    "expressive_kernel, temperature": (
        lambda: expressive_kernel(POINTS, temperature=-1.0), ValueError,
        "temperature", "must be > 0", "got -1.0", "Pass 1.0",
    ),
    # NormalizerEstimator
    "merge, of keys": (
        lambda: NormalizerEstimator(method="exact").merge, AttributeError,
        "partial_fit and merge", "keep no keys", "method='exact'", 'use fit, which takes a memory map too, or method="',
    ),
    "merge, another estimator": (
        lambda: normalizer().merge(ExpressiveKernel(n_components=3).fit(POINTS)), TypeError,
        "other", "must be a NormalizerEstimator", "got ExpressiveKernel", "Pass one fitted with the parameters of this",
    ),
    "merge, other parameters": (
        lambda: normalizer().merge(normalizer(temperature=2.0)), ValueError,
        "temperature", "merge needs equal parameters", "is 1 here and 2 there", "Fit other with 1",
    ),
    "merge, other columns": (
        lambda: normalizer().merge(normalizer(POINTS[:, :3])), ValueError,
        "merge", "needs keys of equal width", "5 and 3 features", "Fit other on the columns of this one",
    ),
    "score, without keys": (
        lambda: NormalizerEstimator().partial_fit(POINTS).score(POINTS), ValueError,
        "score and score_samples_exact", "need the keys", "partial_fit and merge keep none", "use fit, or",
    ),
    "method, of softmax alone": (
        lambda: normalizer(kernel="squared", method="random_fourier"), ValueError,
        "method='random_fourier'", "defined for kernel='softmax' alone", "got kernel='squared'",
        "use method='control_variate'",
    ),
    "key weights, none": (
        lambda: log_normalizer_exact(POINTS, key_weight=np.zeros(12)), ValueError,
        "key_weight", "a weight >= 0 for each of the 12 keys, and not zero for all", "entries from 0 to 0",
        "leave it out for equal weights",
    ),
    "key weights, huge": (
        lambda: NormalizerEstimator().fit(POINTS, sample_weight=np.full(12, 1e300)), ValueError,
        "sample_weight", "largest", "must be between 1e-80 and 1e+80, but is 1e+300", "Divide all by it",
    ),
    "scores, huge": (
        lambda: log_normalizer_exact(1e154 * POINTS, temperature=2.0), ValueError,
        "Entries of queries and keys", "must be below 1e+105", "largest entries are 9.97e+153", "raise the temperature",
    ),
    "values, huge": (
        lambda: attention(POINTS, POINTS, np.full((12, 1), 1e300)), ValueError,
        "Entries of V", "at most 1e+80 in size", "the largest is 1e+300", "multiply the output by as much",
    ),
    "n_jobs, none": (
        lambda: normalizer(n_jobs=0), ValueError,
        "n_jobs", "must be a number of threads, or negative", "got 0", "Pass 1",
    ),
    # metrics
    "relative error, of NaN": (
        lambda: relative_error([np.nan], [0.0]), ValueError,
        "log_estimate and log_exact", "one shape and no NaN", "with 1 and 0 NaN", "Pass both for the same queries",
    ),
    "cross entropy, of nothing": (
        lambda: attention_cross_entropy(0 * A, POINTS), ValueError,
        "affinities", "need a positive entry", "0 of 12 rows and 12 of 12 keys", "Pass other rows",
    ),
    "cross entropy, of other rows": (
        lambda: attention_cross_entropy(A, POINTS, rows=[99]), ValueError,
        "rows", "whole numbers from 0 to 11", "[99] of type int64", "leave rows out for all of them",
    ),
    "queries, of another width": (
        lambda: attention_scores(POINTS, POINTS[:, :3]), ValueError,
        "queries and keys", "same number of columns", "5 and 3", "Project one",
    ),
    "cross entropy, of another shape": (
        lambda: attention_cross_entropy(A[:, :5], POINTS), ValueError,
        "affinities", "shape (n_queries, n_keys) = (12, 12)", "have (12, 5)", "Pass a row for each query and a column",
    ),
    "cross entropy, negative": (
        lambda: attention_cross_entropy(-A, POINTS), ValueError,
        "affinities", "have to be non-negative", "smallest is -", "Clip them",
    ),
    "cross entropy, walks on a table": (
        lambda: attention_cross_entropy(COUNTS, POINTS, POINTS[:8], walk_length=2), ValueError,
        "walk_length=2", "needs square affinities", "shape (12, 8)", "Use walk_length=1",
    ),
    # neighbours
    "neighbours, no scale": (
        lambda: neighbor_affinity(sp.csr_array(A[:5]), weighting="self_tuning"), ValueError,
        "weighting='self_tuning'", "needs key_scale", "shape is (5, 12)", "Pass key_scale=local_scale(",
    ),
    "neighbours, negative": (
        lambda: neighbor_affinity(sp.csr_array(-A)), ValueError,
        "distances", "must be >= 0", "smallest is -", "Use another metric, or clip them",
    ),
    "neighbours, another scale": (
        lambda: neighbor_affinity(sp.csr_array(A), weighting="self_tuning", key_scale=[1.0, -2.0]), ValueError,
        "key_scale", "must hold a distance >= 0 for each of the 12 keys", "shape is (2,) and its smallest entry -2",
        "Pass local_scale(",
    ),
    # graphs and tables
    "graph, of no known kind": (
        lambda: random_walk("a graph"), ValueError,
        "adjacency", "must be a matrix", "of type str", "Convert it to one of these",
    ),
    "graph, not square": (
        lambda: random_walk(COUNTS), ValueError,
        "adjacency", "must be square, nodes by nodes", "(12, 8)", "AttentionEmbedding(affinity='bipartite')",
    ),
    "graph, negative": (
        lambda: random_walk(-A), ValueError,
        "adjacency", "finite weights >= 0", "holds -",
        "Clip or drop such entries. Edges of either sign are two relations, for concatenate_affinities",
    ),
    "nodes, too few": (
        lambda: random_walk(A, nodes=["a", "b"]), ValueError,
        "nodes", "adjacency has 12 rows", "has 2 labels", "Pass one label for each row",
    ),
    "nodes, of another graph": (
        lambda: random_walk(networkx_graph((0, 1)), nodes=[0, 1, 2]), ValueError,
        "nodes", "must be those of the graph", "2 is in one of the two alone", "Name each node of the graph once",
    ),
    "nodes, one lacking": (
        lambda: random_walk(EDGES, nodes=["a", "b"]), ValueError,
        "nodes", "must name every node", "lacks 'c'", "Add it, or drop its edges",
    ),
    "nodes, one twice": (
        lambda: random_walk(EDGES, nodes=["a", "b", "c", "a"]), ValueError,
        "nodes", "must name each label once", "has 'a' twice", "Drop one",
    ),
    "nodes, one missing": (
        lambda: random_walk(EDGES, nodes=["a", "b", None]), ValueError,
        "nodes", "a label is missing", "(None)", "Drop or fill such rows",
    ),
    "nodes, not hashable": (
        lambda: random_walk(EDGES, nodes=["a", "b", []]), ValueError,
        "nodes", "labels must be hashable", "one is []", "Make it a string",
    ),
    "table, none": (
        lambda: bipartite(COUNTS), ValueError,
        "table", "must be a pandas DataFrame, a row for each pair", "of type ndarray", "Convert it",
    ),
    "table, one column": (
        lambda: bipartite(EDGES[["i"]]), ValueError,
        "table", "needs two columns, one for each end", "has 1: ['i']", "Add the other end",
    ),
    "edges, transposed": (
        lambda: random_walk(pd.DataFrame(np.arange(12).reshape(2, 6))), ValueError,
        "adjacency", "must have a row for each pair", "has 2 rows and 6 columns", "Pass adjacency.T",
    ),
    "weight, among the labels": (
        lambda: bipartite(EDGES, weight="j"), ValueError,
        "weight='j'", "one of the first two columns of table, which are labels", "='j'", "Reorder them",
    ),
    "weight, no column": (
        lambda: bipartite(EDGES, weight="size"), ValueError,
        "weight='size'", "must be a column of table", "which has ['i', 'j', 'weight']", "Pass one of these, or None",
    ),
    # several relations
    "relations, no sequence": (
        lambda: mix_affinities(sp.csr_array(A)), ValueError,
        "affinities", "must be a sequence of matrices", "of type csr_array", "Pass a list, [affinities]",
    ),
    "relations, of several shapes": (
        lambda: mix_affinities([A, COUNTS]), ValueError,
        "affinities", "must be of one shape", "[(12, 12), (12, 8)]", "side by side, by concatenate_affinities",
    ),
    "relations, of several numbers of rows": (
        lambda: concatenate_affinities([A, A[:5]]), ValueError,
        "affinities", "must have one number of rows", "[12, 5]", "Pass a row for each sample",
    ),
    "relations, negative": (
        lambda: concatenate_affinities([A, -A]), ValueError,
        "affinities[1]", "finite weights >= 0", "holds -", "Clip or drop such entries",
    ),
    "relations, weights": (
        lambda: mix_affinities([A, A], weights=[1, -1]), ValueError,
        "weights", "a finite number >= 0 for each of the 2 affinities", "[1.0, -1.0]", "Pass None for equal weights",
    ),
    "relations, nothing to learn weights by": (
        lambda: mix_affinities([A, A], "held_out"), ValueError,
        "weights='held_out'", "needs an estimator", "estimator is None", "Pass AttentionEmbedding(affinity='precomp",
    ),
    "relations, to learn weights from a table": (
        lambda: mix_affinities([COUNTS], "held_out", estimator=AttentionEmbedding(affinity="precomputed")), ValueError,
        "weights='held_out'", "needs square affinities", "(12, 8)", "Learn the weights from training samples",
    ),
    "relations, too few edges": (
        lambda: mix_affinities(
            [np.eye(2)], "held_out", estimator=AttentionEmbedding(affinity="precomputed"), held_out_share=1e-9
        ), ValueError,
        "weights='held_out'", "needs edges to hold out", "held_out_share=1e-09 of 2", "Change held_out_share, or pass",
    ),
    # data sets
    "block model, more classes than nodes": (
        lambda: make_block_model(4, 5), ValueError,
        "n_classes", "at most n_samples=4", "got 5", "Lower n_classes",
    ),
    "estimate_memory, no dtype": (
        lambda: AttentionEmbedding().estimate_memory(9, dtype="x"), ValueError,
        "dtype", "must be one of NumPy's types", "got 'x'", "Pass 'float32' or 'float64'",
    ),
    # contacts in time
    "contacts, of another shape": (
        lambda: temporal(A, width=1), ValueError,
        "contacts", "a DataFrame or an array of columns time, i, j", "shape is (12, 12)", "Pass a row for each contact",
    ),
    "contacts, two columns": (
        lambda: temporal(CONTACTS[["time", "i"]], width=1), ValueError,
        "contacts", "needs columns time, i and j", "has ['time', 'i']", "Add what is missing",
    ),
    "contacts, no numbers": (
        lambda: temporal(CONTACTS.assign(time="soon"), width=1), ValueError,
        "contacts", "times must be numbers or dates", "soon", "Convert or drop such rows",
    ),
    "contacts, no time": (
        lambda: temporal(CONTACTS.assign(time=np.nan), width=1), ValueError,
        "contacts", "times are missing or infinite", "3 of 3", "Drop or fill such rows",
    ),
    "contacts, none": (
        lambda: temporal(CONTACTS.assign(i="a", j="a"), width=1), ValueError,
        "contacts", "at least one of two different nodes and positive weight", "none of 3 rows", "Check the columns",
    ),
    "slices, by nothing": (
        lambda: temporal(CONTACTS), ValueError,
        "width or n_slices", "either", "got width=None, n_slices=None", "Give",
    ),
    "slices, no length": (
        lambda: temporal(CONTACTS, width=-1), ValueError,
        "width", "must be a positive length of time", "got -1 for times of type float64", "a string like '20min'",
    ),
    "slices, none of them": (
        lambda: (walk := temporal(CONTACTS, width=1)).at(np.ones((len(walk.node), 2)), 9), ValueError,
        "slice", "must be from 0 to 5", "got 9", "Look in edges",
    ),
    "slices, another embedding": (
        lambda: temporal(CONTACTS, width=1).by_node(POINTS), ValueError,
        "embedding", "must have a row for each of the 6 states", "has 12", "Pass that of the affinity",
    ),
    # words
    "documents, one string": (
        lambda: words("one text"), ValueError,
        "documents", "must be an iterable of documents", "is one string: 'one text'", "pass it in a list",
    ),
    "documents, a table": (
        lambda: words(pd.DataFrame({"text": TEXTS})), ValueError,
        "documents", "must be an iterable of documents", "is a DataFrame", "Pass the column",
    ),
    "documents, a number": (
        lambda: words(7), ValueError,
        "documents", "must be an iterable of documents", "of type int", "Pass a list of texts",
    ),
    "documents, words in lists": (
        lambda: cooccurrence([[["tea"], ["cup"]]]), TypeError,
        "documents", "must hold words of a hashable kind", "'list'", "Pass a list of lists of strings",
    ),
    "documents, one missing": (
        lambda: words(["tea cup", None]), ValueError,
        "documents", "must be strings or iterables of words", "number 1 is None", "Drop it, or put ''",
    ),
    "words, too rare": (
        lambda: cooccurrence(TEXTS, min_count=9), ValueError,
        "min_count=9", "No word occurs", "30 words, the most frequent of them 5 times", "Lower min_count",
    ),
    "words, only one": (
        lambda: words(["tea tea"]), ValueError,
        "documents", "must hold two different words that occur min_count=1", "only 'tea' does", "Pass more text",
    ),
    "words, none near another": (
        lambda: words(["tea", "cup"]), ValueError,
        "min_count=1", "are ever in one document", "the 2 words", "Pass longer documents, or lower min_count",
    ),
    "words, one never near another": (
        lambda: words([*TEXTS, "alone"]), UserWarning,
        "words are never near another", "their vectors are zero", "1 of 7", "Raise window, or lower min_count",
    ),
    "words, not converged": (
        lambda: words(max_iter=1, tol=1e-3), ConvergenceWarning,
        "max_iter=1", "did not converge", "tol=0.001", "Raise max_iter",
    ),
    "documents, of unknown words": (
        lambda: words().transform(["tea", "x y"]), UserWarning,
        "documents hold no word of the vocabulary", "their vectors are zero", "1 of 2", "Drop them, or fit with them",
    ),
    "most_similar, no number": (
        lambda: words().most_similar("tea", topn=1.5), ValueError,
        "topn", "must be an integer", "1.5", "Pass 10",
    ),
    "most_similar, unknown": (
        lambda: words().most_similar("tea", negative=["x"]), ValueError,
        "negative", "must be one of the 6 words of vocabulary_", "'x' is not", "Take a word of vocabulary_",
    ),
    "word2vec, white space": (
        lambda: save("tea", "two cups"), ValueError,
        "vocabulary_", "holds words without white space only", "'two cups'", "Replace it, or pickle the model",
    ),
    "word2vec, binary": (
        lambda: load(b"1 2\na \xff\xfe\x80?\n"), ValueError,
        "vectors.txt", "is no text in UTF-8", "byte 0xff", "Convert binary files to text",
    ),
    "word2vec, no header": (
        lambda: load(b"a 1 2\n"), ValueError,
        "vectors.txt", "first line has to be the number of words", "'a 1 2'", "Convert binary files to text",
    ),
    "word2vec, a bad line": (
        lambda: load(b"1 2\na 1 ?\n"), ValueError,
        "vectors.txt", "line 2 has to be a new word and 2 finite numbers", "'a 1 ?", "write it anew",
    ),
    "word2vec, cut": (
        lambda: load(b"2 2\na 1 2\n"), ValueError,
        "vectors.txt", "promises 2 words", "1 follow", "write it anew",
    ),
    "contacts, too many slices": (
        lambda: temporal(CONTACTS, width=1e-300), ValueError,
        "width", "must cut the times into slices that can be counted", "1e-300 makes 5e+300", "Pass a longer width",
    ),
    "contacts, complex times": (
        lambda: temporal(np.array([[1j, 0, 1], [2, 1, 2]]), n_slices=2), ValueError,
        "contacts", "times must be numbers or dates", "of type complex128", "Convert them to real numbers",
    ),
    # the command line
    "command line, a damaged file": (
        lambda: read(b"no array"), ValueError,
        "data.npy", "cannot be read", "pickled", "write it anew",
    ),
    "command line, no matrix": (
        lambda: read(npy(np.zeros(3))), ValueError,
        "data.npy", "must hold a matrix of numbers", "holds shape (3,)", "Write a plain matrix",
    ),
    "command line, a folder": (
        lambda: written_to(PACKAGE), IsADirectoryError,
        "sklearn_attnembed", "is a folder", "sklearn_attnembed is", "Name a file in it",
    ),
    # pickles
    "pickle, of another version": (
        lambda: of_another_version(normalizer()), _sklearn._OtherVersionWarning,
        "NormalizerEstimator", "holds for the version that wrote it alone", "written by sklearn_attnembed 99.0",
        "write files that last by sklearn_attnembed.save",
    ),
    # scikit-learn
    "scikit-learn, without a private name": (
        lambda: without_attribute(sklearn.base, "_fit_context", import_anew), ImportError,
        "sklearn.base._fit_context", "is tested with scikit-learn 1.8 and 1.9", "does not have", "install one of these",
    ),
    "scikit-learn, without validation": (
        lambda: without_attribute(sklearn.base.BaseEstimator, "_validate_params", saved_and_loaded, normalizer()),
        ImportError, "BaseEstimator._validate_params", "is tested with", "does not have", "install one of these",
    ),
    # files that last
    "save, a pipeline": (
        lambda: sklearn_attnembed.save(make_pipeline(normalizer()), "never written"), TypeError,
        "model", "must be one of AttentionEmbedding, ", "sklearn.pipeline.Pipeline", "Save the steps",
    ),
    "save, what is no data": (
        lambda: saved_and_loaded(holding([{"a"}])), TypeError,
        "params/landmarks/0", "must be made of numbers, strings", "it is a set", "Replace it, or pickle the model",
    ),
    "save, another function": (
        lambda: saved_and_loaded(by_function().set_params(affinity=np.multiply.outer)), ValueError,
        "affinity is <built-in method", "one function for each parameter", "<function rbf_kernel", "fit again",
    ),
    "load, without the function": (
        lambda: saved_and_loaded(normalizer(kernel=np.exp)), FileError,
        "kernel was the function", "files hold no functions", "numpy.exp", "load(path, kernel=...)",
    ),
    "load, no file of ours": (
        lambda: saved_and_loaded(normalizer(), lambda path: path.write_text("a")), FileError,
        "model.npz", "has to be a file of sklearn_attnembed.save", "BadZipFile", "write it anew",
    ),
    "load, another npz": (
        lambda: saved_and_loaded(normalizer(), lambda path: np.savez(path, a=1)), FileError,
        "model.npz: the description", "has to be in the entry model.npy", "is missing", "write it anew",
    ),
    "load, of a later format": (
        lambda: saved_and_loaded(normalizer(), of_later_format), FileError,
        "model.npz", "reads formats up to 1", "is of format 2, of sklearn_attnembed 99.0", "Upgrade",
    ),
    # nn
    "nn, without torch": (
        lambda: without("torch", import_nn), ImportError,
        "sklearn_attnembed.nn", "needs PyTorch", "is not installed", "pip install 'sklearn-attnembed[torch]'",
    ),
    "nn, no heads": (
        lambda: nn.expressive_attention(*zeros((3, 4, 5), (2, 4, 5), (2, 4, 5)), enable_gqa=True), ValueError,
        "enable_gqa=True", "those of query a multiple of those of key", "got shapes (3, 4, 5)", "Pass (..., heads, ",
    ),
    "nn, another dtype": (
        lambda: nn.expressive_attention(*zeros((4, 5)), *zeros((4, 5), (4, 5), dtype=torch.float64)), ValueError,
        "key", "a floating tensor of at least two dimensions, of the dtype of query", "and torch.float64",
        "Use to(dtype), or unsqueeze",
    ),
    "nn, widths": (
        lambda: nn.expressive_attention(*zeros((4, 5), (4, 3), (4, 5))), ValueError,
        "query and key", "need the same last dimension", "got shapes (4, 5), (4, 3), (4, 5)", "Project one",
    ),
    "nn, leading dimensions": (
        lambda: nn.expressive_attention(*zeros((2, 4, 5), (3, 4, 5), (3, 4, 5))), ValueError,
        "leading dimensions of query, key and value", "need to broadcast", "got shapes (2, 4, 5)", "Make them equal",
    ),
    "nn, mask and causal": (
        lambda: nn.expressive_attention(*zeros((4, 5), (4, 5), (4, 5), (4, 4)), is_causal=True), ValueError,
        "attn_mask", "and is_causal=True", "were both given", "put the causal part into the mask",
    ),
    "nn, an integer mask": (
        lambda: nn.expressive_attention(*zeros((4, 5), (4, 5), (4, 5)), *zeros((4, 4), dtype=torch.int64)), ValueError,
        "attn_mask", "must be boolean (True: attend) or floating", "got torch.int64", "Use attn_mask.bool()",
    ),
    "nn, a mask of another shape": (
        lambda: nn.expressive_attention(*zeros((4, 5), (4, 5), (4, 5), (3, 4))), ValueError,
        "attn_mask", "must broadcast to the scores, (4, 4)", "got shape (3, 4)", "Pass shape (4, 4)",
    ),
    "nn, nested": (
        nested, ValueError, "query, key and value", "must be no nested tensors", "nested", "pad them",
    ),
    "nn, squared, lengths": (
        lambda: nn.squared_attention(*zeros((4, 5), (3, 5), (3, 5)), is_causal=True), ValueError,
        "query, key and value", "need equal leading dimensions and, if is_causal, equal lengths", "got shapes (4, 5)",
        "Use expand(), or is_causal=False",
    ),
    "nn, module, causal": (
        lambda: heads((3, 1, 4), (3, 1, 4), (3, 1, 4), is_causal=True), ValueError,
        "is_causal=True", "says that attn_mask is causal", "attn_mask is None", "Pass the mask too",
    ),
    "nn, module, dimensions": (
        lambda: heads((3, 1, 4), (3, 4), (3, 4)), ValueError,
        "query, key and value", "need 3 dimensions, or 2 without a batch", "got 3, 2 and 2", "Pass all with a batch",
    ),
    "nn, module, a mask": (
        lambda: heads((3, 1, 4), (3, 1, 4), (3, 1, 4), attn_mask=torch.zeros(2, 2)), ValueError,
        "attn_mask", "boolean (True: ignore) or floating (added to log weights), of shape (3, 3)",
        "got torch.float32 of shape (2, 2)", "Use attn_mask.bool(), or another shape",
    ),
    "nn, recurrent, heads": (
        lambda: nn.SquaredRecurrentAttention(5, 2), ValueError,
        "embed_dim", "must be a positive multiple of num_heads", "got 5 and 2", "Change one",
    ),
}  # fmt: skip


# Where they come from --------------------------------------------------------------------------------------
def _sites():
    """Map each line of a statement that raises or warns to its file, function and first line."""
    sites = {}
    for path in PACKAGE.rglob("*.py"):
        parents = {}
        for node in ast.walk(tree := ast.parse(path.read_text(encoding="utf8"))):
            parents |= dict.fromkeys(ast.iter_child_nodes(node), node)
        for node in ast.walk(tree):
            assert not (isinstance(node, ast.ImportFrom) and node.module == "warnings"), f"{path}: import warnings"
            raises = isinstance(node, ast.Raise) and node.exc is not None
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if not raises and called not in ("warn", "warnings.warn", "warnings.warn_explicit"):
                continue
            function, above = "", node
            while above := parents.get(above):
                function = function or (above.name if isinstance(above, ast.FunctionDef | ast.ClassDef) else "")
            if (path.name, function) == ("_sklearn.py", "warn"):  # what the others call
                continue
            site = (path.relative_to(PACKAGE).as_posix(), function, node.lineno)
            sites |= {(str(path), line): site for line in range(node.lineno, node.end_lineno + 1)}
    return sites


SITES = _sites()


def _needs_torch(name):
    return name.startswith("nn, ") and name != "nn, without torch"


@cache
def outcome(name):
    """Return the error or warning of a call, its text, its place and, for a warning, the file it points at."""
    call, kind, *_ = MESSAGES[name]
    shown, original = [], warnings.warn

    def recorder(message, category=None, stacklevel=1, **others):
        before = len(caught)
        original(message, category, stacklevel + 1, **others)
        frame = sys._getframe(1)
        frame = frame.f_back if frame.f_code is _sklearn.warn.__code__ else frame
        if len(caught) > before and (frame.f_code.co_filename, frame.f_lineno) in SITES:
            shown.append((caught[-1], SITES[frame.f_code.co_filename, frame.f_lineno]))

    with warnings.catch_warnings(record=True) as caught, pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("always")
        patch.setattr(warnings, "warn", recorder)
        try:
            call()
        except kind as error:
            while error is not None:  # what is raised, or what it was raised from
                inside = [
                    (frame.f_code.co_filename, line)
                    for frame, line in traceback.walk_tb(error.__traceback__)
                    if Path(frame.f_code.co_filename).is_relative_to(PACKAGE)
                ]
                if inside and inside[-1] in SITES:
                    return type(error), str(error), SITES[inside[-1]], None
                error = error.__cause__
            raise
    assert len(shown) == 1, f"{len(shown)} warnings or errors of this package, not one"
    ((warning, site),) = shown
    return warning.category, str(warning.message), site, warning.filename


@pytest.mark.parametrize("name", MESSAGES)
def test_message(name):
    if _needs_torch(name) and not HAS_TORCH:
        pytest.skip("needs the extra torch")
    _, kind, *parts = MESSAGES[name]
    given, text, _, file = outcome(name)
    assert given is kind
    for what, part in zip(("name", "rule", "value", "remedy"), parts, strict=True):
        assert part in text, f"the {what}, {part!r}, is not in: {text}"
        assert part or what == "value"
    assert file in (None, __file__), "a warning has to point at the user's line"


def test_all_messages_are_listed():
    reached = {outcome(name)[2] for name in MESSAGES if HAS_TORCH or not _needs_torch(name)}
    there = {site for site in SITES.values() if HAS_TORCH or site[:2] == ("nn.py", "") or site[0] != "nn.py"}
    left = there - reached
    assert {site[:2] for site in left} == set(UNREACHED), f"no entry of MESSAGES leads to {sorted(left)}"


# Where warnings point at -----------------------------------------------------------------------------------
def _embedding(affinity="precomputed"):
    return AttentionEmbedding(2, affinity=affinity, random_state=0)


PLACES = {
    "fit": lambda: _embedding().fit(LONELY),
    "fit_transform": lambda: _embedding().fit_transform(LONELY),
    "transform": lambda: _embedding("bipartite").fit(COUNTS).transform(0 * COUNTS[:1]),
    "transform_keys": lambda: _embedding("bipartite").fit(COUNTS).transform_keys(0 * COUNTS[:, :1]),
    "set_output": lambda: _embedding().set_output(transform="pandas").fit_transform(LONELY),
    "pipeline": lambda: make_pipeline(FunctionTransformer(), _embedding()).fit(LONELY),
    "fit, neighbours": lambda: _embedding("nearest_neighbors").fit(POINTS),
    "fit_transform, neighbours": lambda: _embedding("nearest_neighbors").fit_transform(POINTS),
    "fit, landmarks": lambda: ExpressiveKernel().fit(POINTS),
    "fit_transform, landmarks": lambda: ExpressiveKernel().fit_transform(POINTS),
    "fit, words": lambda: AttentionWordVectors(2, min_count=1, tol=0, max_iter=2).fit([*TEXTS, "alone"]),
    "fit_transform, words": lambda: AttentionWordVectors(2, min_count=1, max_iter=1).fit_transform(TEXTS),
}


@pytest.mark.parametrize("name", PLACES)
def test_warnings_point_at_the_line_of_the_call(name):
    call = PLACES[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert caught
    assert {(each.filename, each.lineno) for each in caught} == {(__file__, call.__code__.co_firstlineno)}
