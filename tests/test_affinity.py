"""Affinities from distances and adjacencies."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.neighbors import KNeighborsTransformer, kneighbors_graph
from sklearn.pipeline import make_pipeline
from sklearn.utils._param_validation import InvalidParameterError

from sklearn_attnembed import AttentionEmbedding
from sklearn_attnembed.affinity import local_scale, neighbor_affinity, random_walk

WEIGHTINGS = ["perplexity", "self_tuning", "biweight", "uniform"]
every = pytest.mark.parametrize("weighting", WEIGHTINGS)


def graph(*rows, width=6):
    """A graph of distances with explicit entries only."""
    indptr = np.cumsum([0] + [len(row) for row in rows])
    indices = np.concatenate([np.arange(len(row)) for row in rows])
    return sp.csr_array((np.concatenate(rows).astype(float), indices, indptr), shape=(len(rows), width))


def test_biweight_up_to_the_next_neighbour():
    """Two of five neighbors get weights, the third is the edge, and the others are ignored."""
    weights = neighbor_affinity(
        graph([3.0, 0.0, 1.0, 2.0, 9.0], [4.0, 5.0, 1.0, 2.0], [0.0, 2.0, 1.0]), n_neighbors=2, weighting="biweight"
    )
    assert weights.nnz == 9
    assert_allclose(weights.toarray()[0], [0, 1, (1 - 1 / 4) ** 2, 0, 0, 0], atol=2e-7)
    assert_allclose(weights.toarray()[1], [0, 0, (1 - 1 / 16) ** 2, (1 - 1 / 4) ** 2, 0, 0], atol=2e-7)
    assert_allclose(weights.toarray()[2], [1, 0, (1 - 1 / 4) ** 2, 0, 0, 0], atol=2e-7)


def test_short_rows_use_what_they_have():
    weights = neighbor_affinity(graph([0.0, 1.0, 2.0], [0.0], []), n_neighbors=5, weighting="biweight").toarray()
    assert_allclose(weights[0, :3], [1, 9 / 16, 0], atol=2e-7)
    assert_allclose(weights[1, 0], 1, atol=2e-7)
    assert not weights[2].any()


def test_equidistant_and_coincident_neighbours_count_alike():
    weights = neighbor_affinity(graph([2.0, 2, 2, 2], [0.0, 0, 0, 0]), n_neighbors=3).toarray()
    for row in weights:
        assert_allclose(row[:4], row[0])
        assert row[0] > 0


def test_ties_at_the_edge_do_not_matter():
    """The last one of tied neighbors, whichever it is, has hardly any weight."""
    one = neighbor_affinity(graph([0.0, 1, 2, 2]), n_neighbors=2).toarray()
    other = neighbor_affinity(graph([0.0, 1, 2.0000001, 2]), n_neighbors=2).toarray()
    assert_allclose(one, other, atol=1e-6)


def test_scale_does_not_matter_and_input_stays():
    distances = graph([0.0, 3, 1, 2], [1.0, 2, 3, 4])
    before = distances.copy()
    assert_allclose(neighbor_affinity(7 * distances, 2).toarray(), neighbor_affinity(distances, 2).toarray())
    assert_array_equal(distances.toarray(), before.toarray())
    assert_array_equal(distances.indices, before.indices)


def test_random_walk_and_teleport():
    A = np.array([[0, 3, 1], [1, 0, 0], [0, 0, 0]])
    assert_allclose(random_walk(A).toarray(), [[0, 0.75, 0.25], [1, 0, 0], [0, 0, 0]])
    assert_allclose(random_walk(A, teleport=0.2).toarray(), [[0.2, 0.6, 0.2], [0.8, 0.2, 0], [0, 0, 1]])
    assert random_walk(A.astype(np.float32)).dtype == np.float32


# Weightings ----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def points():
    """Points in the plane, with varying density."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((300, 2)) * np.exp(rng.standard_normal((300, 1)))


def distances_of(points, n_neighbors=16, keys=None):
    """Distances between points, and those of queries to keys."""
    if keys is None:
        return kneighbors_graph(points, n_neighbors, mode="distance", include_self=True)
    return KNeighborsTransformer(n_neighbors=n_neighbors - 1, mode="distance").fit(keys).transform(points)


def weigh(*rows, n_neighbors=None, scale=None, width=8, **params):
    """Compute the weights of rows of distances, with keys of scale one for "self_tuning"."""
    if params.get("weighting") == "self_tuning":
        params["key_scale"] = np.full(width, 1.0 if scale is None else scale)
    return neighbor_affinity(graph(*rows, width=width), n_neighbors or max(map(len, rows)) - 1, **params).toarray()


def embedding(**params):
    """An estimator with a few iterations."""
    return AttentionEmbedding(4, **{"max_iter": 6, "tol": 0, "random_state": 0, **params})


def effective_number(weights):
    """Compute the perplexity of rows of weights."""
    share = weights / weights.sum(axis=1, keepdims=True)
    return np.exp(-np.sum(share * np.log(np.where(share > 0, share, 1)), axis=1))


@pytest.mark.parametrize("perplexity", [2, 5.5, 10])
def test_perplexity_is_reached_where_neighbours_are_many(perplexity, points):
    """With many neighbors the tapering takes hardly any weight, except for the outermost points."""
    weights = neighbor_affinity(distances_of(points, 101), 100, perplexity=perplexity).toarray()
    assert_allclose(np.median(effective_number(weights)), perplexity, rtol=1e-4)
    assert_allclose(effective_number(weights), perplexity, rtol=0.1)


def test_perplexity_is_a_third_of_the_neighbours_unless_given(points):
    distances = distances_of(points, 31)
    assert_array_equal(
        neighbor_affinity(distances, 30).toarray(), neighbor_affinity(distances, 30, perplexity=10).toarray()
    )
    assert_array_equal(
        neighbor_affinity(distances, 3).toarray(), neighbor_affinity(distances, 3, perplexity=1.5).toarray()
    )


def test_gaussians_of_perplexity():
    """Before the tapering, log weights are linear in squared distances, in any dimension."""
    r = np.linspace(0, 3, 31)
    (weights,) = weigh(r, n_neighbors=30, perplexity=6, width=31)
    slope = np.diff(np.log(weights[:20])) / np.diff(r[:20] ** 2)
    assert_allclose(slope, slope[0], rtol=1e-9)
    ramp = weights[20:] / np.exp(slope[0] * (r[20:] ** 2 - r[0]))
    assert_allclose(ramp, np.linspace(1, 0, 11), atol=1e-6)


def test_extreme_perplexities_leave_the_nearest_alone_or_all_alike():
    nearest, flat = (weigh([0.0, 1, 2, 3, 4, 5], perplexity=perplexity)[0] for perplexity in (1, 1000))
    assert_allclose(nearest, [1, 0, 0, 0, 0, 0, 0, 0], atol=1e-4)
    assert_allclose(flat[:4], 1, rtol=1e-9)


def test_self_tuning_is_its_formula(points):
    """Before the tapering, weights follow the formula with distances to the seventh neighbor as scales."""
    distances = distances_of(points, 16)
    full = np.sort(np.linalg.norm(points[:, None] - points, axis=2), axis=1)
    scale = full[:, 7]
    assert_allclose(local_scale(distances), scale)
    weights = neighbor_affinity(distances, 15, weighting="self_tuning").tocoo()
    r = np.linalg.norm(points[weights.row] - points[weights.col], axis=1)
    below = r <= full[weights.row, 10]
    expected = np.exp(-(r**2) / (scale[weights.row] * scale[weights.col]))
    assert below.sum() == 300 * 11
    assert_allclose(weights.data[below], expected[below])
    ramp = (full[weights.row, 15] - r) / (full[weights.row, 15] - full[weights.row, 10])
    assert_allclose(weights.data[~below], (expected * ramp)[~below], atol=1e-6)


def test_self_tuning_of_queries_wants_the_scales_of_the_keys(points):
    keys, queries = points[:200], points[200:]
    key_scale = local_scale(distances_of(keys))
    distances = distances_of(queries, 16, keys)
    weights = neighbor_affinity(distances, 15, weighting="self_tuning", key_scale=key_scale.tolist()).tocoo()
    full = np.sort(np.linalg.norm(queries[:, None] - keys, axis=2), axis=1)
    r = np.linalg.norm(queries[weights.row] - keys[weights.col], axis=1)
    below = r <= full[weights.row, 10]
    expected = np.exp(-(r**2) / (full[weights.row, 7] * key_scale[weights.col]))
    ratio = (weights.data / expected)[below].reshape(100, 11)  # rows are divided by their sums in any case
    assert_allclose(ratio, np.tile(ratio[:, :1], 11))
    with pytest.raises(ValueError, match=r"needs key_scale, .* its shape is \(100, 200\). Pass key_scale=local_scale"):
        neighbor_affinity(distances, 15, weighting="self_tuning")


@pytest.mark.parametrize(
    "n_neighbors",
    [*(k for k in (2, 5)), 7, 15],
)
def test_without_scales_the_graph_is_that_of_the_keys(n_neighbors, points):
    distances = distances_of(points)
    given = neighbor_affinity(distances, n_neighbors, weighting="self_tuning", key_scale=local_scale(distances))
    assert_allclose(neighbor_affinity(distances, n_neighbors, weighting="self_tuning").toarray(), given.toarray())


def test_local_scale_of_few_neighbours_is_the_last_distance():
    assert_array_equal(local_scale(graph([0.0, 3, 1], [0.0], [2.0] * 9, width=9)), [3, 0, 2])


def test_uniform_counts_all_alike_but_the_one_at_the_edge():
    weights = weigh([0.0, 1, 2, 3], [5.0, 5, 5, 5], [7.0], weighting="uniform", n_neighbors=3)
    assert_allclose(weights[:2, :4], [[1, 1, 1, 0]] * 2, atol=2e-7)
    assert_allclose(weights[2, 0], 1)


# Of every weighting --------------------------------------------------------------------------------------------
@every
def test_weights_fall_with_distance(weighting, points):
    distances = distances_of(points)
    scale = {"key_scale": np.full(300, 0.3)} if weighting == "self_tuning" else {}
    weights = neighbor_affinity(distances, 15, weighting=weighting, **scale)
    assert weights.nnz == 300 * 16
    for row in range(300):
        order = np.argsort(distances[[row]].toarray()[0, weights[[row]].indices])
        assert np.all(np.diff(weights[[row]].data[order]) <= 0)
        before_the_edge = weights[[row]].data[order][:-1]
        assert before_the_edge.min() > 0 or weighting == "self_tuning"
        assert weights[[row]].data[order][-1] <= 1e-7


@every
@pytest.mark.parametrize("scale", [1e-6, 0.01, 1e6])
@pytest.mark.parametrize("row", [[0.0, 1, 2, 3, 4, 5], [1.0, 2, 3, 4, 5, 6]], ids=str)
def test_unit_of_distance_does_not_matter(weighting, row, scale):
    assert_allclose(
        weigh(scale * np.array(row), weighting=weighting, scale=scale), weigh(row, weighting=weighting), rtol=1e-6
    )


@pytest.mark.parametrize("weighting", ["perplexity", "self_tuning"])
@pytest.mark.parametrize("scale", [1e-6, 0.01])
@pytest.mark.parametrize("row", [[0.0, 0, 0, 2, 2, 2], [0.0, 1, 2, 2, 2, 2]], ids=str)
def test_unit_of_distance_does_not_matter_with_ties(weighting, row, scale):
    assert_allclose(
        weigh(scale * np.array(row), weighting=weighting, scale=scale), weigh(row, weighting=weighting), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("weighting", "row"),
    [
        *((weighting, [0.0, 1, 2, 3, 4, 4]) for weighting in WEIGHTINGS[:3]),
        *(("biweight", row) for row in ([0.0, 1, 2, 3, 3, 3], [0.0, 1, 2, 2, 2, 2], [0.0, 0, 0, 1, 1, 1])),
        ("perplexity", [0.0, 1, 2, 2, 2, 2]),
        *(("self_tuning", row) for row in ([0.0, 1, 2, 3, 3, 3], [0.0, 1, 2, 2, 2, 2], [0.0, 0, 0, 1, 1, 1])),
    ],
    ids=str,
)
def test_ties_at_the_edge_may_be_broken_either_way(weighting, row):
    """Weights are continuous, so equal and almost equal distances give almost equal weights."""
    tied = weigh(row, weighting=weighting)
    for place in (3, 4, 5):
        nudged = np.array(row)
        nudged[place] += 1e-10
        broken = weigh(nudged, weighting=weighting)
        assert_allclose(broken / broken.sum(), tied / tied.sum(), atol=1e-3)


@every
def test_rows_do_not_see_each_other(weighting):
    """Rows of different lengths, also empty ones, do not affect each other."""
    rows = [[2.0, 1, 4, 3, 7, 9, 8], [0.5, 0.7], [], [3.0], [1.0, 1.1, 1.3, 1.2]]
    together = weigh(*rows, n_neighbors=5, weighting=weighting)
    assert not together[2].any()
    for row, weights in zip(rows, together, strict=True):
        assert_allclose(weigh(row, n_neighbors=5, weighting=weighting)[0], weights, rtol=1e-9)
        assert np.all(np.isfinite(weights))
        assert weights.any() == bool(row)


@every
def test_graph_without_any_entry(weighting):
    empty = neighbor_affinity(sp.csr_array((4, 4)), 2, weighting=weighting)
    assert empty.shape == (4, 4)
    assert empty.nnz == 0


@pytest.mark.parametrize("weighting", WEIGHTINGS[:3])
def test_coincident_points_count_alike(weighting):
    for row in ([0.0] * 6, [0.0, 0, 0, 0, 1, 2], [0.0, 1, 1, 1, 1, 1]):
        weights = weigh(row, weighting=weighting)[0]
        assert np.all(np.isfinite(weights))
        assert_allclose(weights[:6][np.equal(row, 0)], weights[0])
        assert weights[0] > 0


@every
def test_single_precision_stays_and_is_close(weighting, points):
    distances = distances_of(points)
    single = neighbor_affinity(distances.astype(np.float32), 15, weighting=weighting)
    assert single.dtype == np.float32
    double = neighbor_affinity(distances, 15, weighting=weighting)
    assert double.dtype == np.float64
    assert_allclose(single.toarray(), double.toarray(), atol=1e-5)


@every
def test_whole_numbers_are_distances_too(weighting):
    distances = graph([0.0, 1, 2, 4], [1.0, 2, 2, 3], width=4)
    scale = {"key_scale": np.ones(4)} if weighting == "self_tuning" else {}
    whole = neighbor_affinity(distances.astype(int), 3, weighting=weighting, **scale)
    assert_allclose(whole.toarray(), neighbor_affinity(distances, 3, weighting=weighting, **scale).toarray())


@every
def test_farther_neighbours_are_cut(weighting, points):
    """Neighbors beyond the edge are ignored, and so is the order of entries in a row."""
    few, many = distances_of(points, 16), distances_of(points, 40).tocoo()
    shuffled = np.random.default_rng(0).permutation(many.nnz)
    many = sp.coo_array((many.data[shuffled], (many.row[shuffled], many.col[shuffled])), many.shape).tocsr()
    assert_allclose(
        neighbor_affinity(many, 15, weighting=weighting).toarray(),
        neighbor_affinity(few, 15, weighting=weighting).toarray(),
        rtol=1e-9,
    )


@every
def test_input_stays(weighting):
    """The input is not changed, although rows of different lengths have to be sorted."""
    distances = graph([3.0, 0, 1], [4.0, 1, 2, 0], [5.0])
    before = distances.copy()
    neighbor_affinity(distances, 2, weighting=weighting, key_scale=np.ones(6))
    for name in ("data", "indices", "indptr"):
        assert_array_equal(getattr(distances, name), getattr(before, name))


def split(matrix):
    """Split every entry into two, shuffled, with 64-bit indices."""
    matrix = sp.csr_array(matrix)
    order = np.concatenate([np.tile(np.arange(a, b), 2)[::-1] for a, b in pairwise(matrix.indptr)]).astype(int)
    out = sp.csr_array(matrix.shape)
    share = np.concatenate([np.repeat([0.75, 0.25], b - a) for a, b in pairwise(matrix.indptr)])
    out.data, out.indices = matrix.data[order] * share, matrix.indices[order].astype(np.int64)
    out.indptr = 2 * matrix.indptr.astype(np.int64)
    return out


@every
def test_split_entries_add_up(weighting, points):
    distances = distances_of(points)
    before = split(distances)
    messy = before.copy()
    assert_allclose(
        neighbor_affinity(messy, 15, weighting=weighting).toarray(),
        neighbor_affinity(distances, 15, weighting=weighting).toarray(),
        rtol=1e-12,
    )
    assert_allclose(local_scale(messy), local_scale(distances), rtol=1e-14)
    for name in ("data", "indices", "indptr"):
        assert_array_equal(getattr(messy, name), getattr(before, name))
        assert getattr(messy, name).dtype == getattr(before, name).dtype


@every
@pytest.mark.parametrize(
    "rows",
    [[[], [3.0]], [[], [], [0.0, 2, 1, 3], [1.0, 0, 2]], [[], [0.0, 1, 2, 4, 3]]],
    ids=["one", "some", "last two"],
)
def test_empty_rows_come_first(rows, weighting):
    """Empty rows come first even if only the last two entries are out of order."""
    n_empty = rows.count([])
    weights = weigh(*rows, n_neighbors=2, weighting=weighting)
    assert not weights[:n_empty].any()
    for row, found in zip(rows[n_empty:], weights[n_empty:], strict=True):
        wanted = weigh(sorted(row), n_neighbors=2, weighting=weighting)[0, np.argsort(np.argsort(row))]
        assert_allclose(found[: len(row)], wanted)
    assert_array_equal(local_scale(graph(*rows)), [max(row, default=0) for row in rows])


@every
@pytest.mark.parametrize("unit", [1e-300, 1e-160, 1e160, 1e300])
def test_unit_of_distance_does_not_matter_however_large(weighting, unit, points):
    distances = distances_of(points / np.abs(points).max())
    assert_allclose(
        neighbor_affinity(distances * unit, 15, weighting=weighting).toarray(),
        neighbor_affinity(distances, 15, weighting=weighting).toarray(),
        rtol=1e-6,
    )


@every
def test_neighbours_beyond_all_counting(weighting, points):
    distances = distances_of(points)
    assert_allclose(
        neighbor_affinity(distances, 10**15, weighting=weighting, perplexity=5).toarray(),
        neighbor_affinity(distances, distances.shape[1], weighting=weighting, perplexity=5).toarray(),
    )


@pytest.mark.parametrize("function", [neighbor_affinity, local_scale])
def test_a_graph_whose_indices_are_out_of_range(function):
    distances = graph([0.0, 1, 2], [1.0])
    distances.indices[1] = 6
    with pytest.raises(ValueError, match=r"distances must be .* index 6, out of range for 6\. Build it anew"):
        function(distances)


# In AttentionEmbedding ---------------------------------------------------------------------------------------
@every
@pytest.mark.parametrize("affinity", ["nearest_neighbors", "precomputed_nearest_neighbors"])
@pytest.mark.parametrize("normalizer", ["gaussian", "exact", "neighbors"])
def test_fit_transform_equals_transform(weighting, normalizer, affinity, digits):
    """Digits in three shades of gray have many ties."""
    form = np.asarray if affinity == "nearest_neighbors" else distances_of
    for X in (form(digits[0][:120]), form(np.round(2 * digits[0][:120]))):
        model = embedding(affinity=affinity, weighting=weighting, normalizer=normalizer, n_exact=20).fit(X)
        assert_allclose(np.linalg.norm(model.embedding_, axis=1), 1)
        assert_allclose(model.transform(X), model.embedding_, atol=1e-9)
        assert_allclose(model.transform(X[100:110]), model.embedding_[100:110], atol=1e-6)


@every
@pytest.mark.parametrize("n_neighbors", [15, 16, 30])
def test_graph_of_a_pipeline_is_that_of_the_built_in_search(weighting, n_neighbors, digits):
    """The graph may have more neighbors than necessary. There are no ties, which "uniform" breaks arbitrarily."""
    X = digits[0][:160] + np.random.default_rng(0).normal(scale=1e-3, size=(160, 64))
    pipeline = make_pipeline(
        KNeighborsTransformer(n_neighbors=n_neighbors, mode="distance"),
        embedding(affinity="precomputed_nearest_neighbors", weighting=weighting),
    ).fit(X[:120])
    built_in = embedding(weighting=weighting).fit(X[:120])
    assert_allclose(pipeline.transform(X[:120]), built_in.embedding_, atol=1e-6)
    assert_allclose(pipeline.transform(X[120:]), built_in.transform(X[120:]), atol=1e-6)


@every
def test_new_points_far_from_all_have_neighbours(weighting, digits):
    X = digits[0][:120]
    assert_allclose(np.linalg.norm(embedding(weighting=weighting).fit(X).transform(X[:3] + 1e3), axis=1), 1)
    assert_allclose(
        np.linalg.norm(embedding(weighting=weighting).fit_transform(np.vstack([X, X[:1] + 1e3])), axis=1), 1
    )


@every
def test_new_points_among_copies_of_others_have_neighbours(weighting, digits):
    X = np.repeat(digits[0][:12], 12, axis=0)
    vectors = embedding(weighting=weighting).fit(X).transform(digits[0][12:18])
    assert_allclose(np.linalg.norm(vectors, axis=1), 1)


def test_weightings_differ(digits):
    vectors = [embedding(weighting=weighting).fit_transform(digits[0][:120]) for weighting in WEIGHTINGS]
    for i, one in enumerate(vectors):
        assert not any(np.allclose(one, other, atol=1e-2) for other in vectors[:i])


def test_fitted_on_affinities_averaged_with_their_transpose(digits):
    """Training points also attend to points that they are neighbors of; new points to their own neighbors only."""
    X = digits[0][:120]
    weights = neighbor_affinity(distances_of(X), 15)
    P = sp.csr_array(weights / weights.sum(axis=1)[:, None])
    model = embedding().fit(X)
    symmetric, one_way = (embedding(affinity="precomputed").fit(affinity) for affinity in (P + P.T, P))
    assert_allclose(model.key_embedding_, symmetric.key_embedding_, atol=1e-6)
    assert not np.allclose(model.key_embedding_, one_way.key_embedding_, atol=1e-2)


# Bad input -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "params",
    [
        {"distances": np.ones((3, 3))},
        {"n_neighbors": 0},
        {"weighting": "gaussian"},
        {"perplexity": 0.5},
        {"key_scale": 1.0},
    ],
    ids=str,
)
def test_bad_parameters(params):
    (name,) = params
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter of neighbor_affinity must be"):
        neighbor_affinity(**{"distances": graph([0.0, 1.0]), **params})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0], ids=str)
def test_distances_that_are_none(bad):
    for function in (neighbor_affinity, local_scale):
        with pytest.raises(ValueError, match="distances"):
            function(graph([0.0, bad, 2.0]))


@pytest.mark.parametrize("key_scale", [[1.0], [1.0] * 5 + [np.nan], [1.0] * 5 + [-1.0]], ids=str)
def test_scales_that_are_none(key_scale):
    with pytest.raises(ValueError, match="key_scale"):
        neighbor_affinity(graph([0.0, 1.0, 2.0]), 2, weighting="self_tuning", key_scale=key_scale)
