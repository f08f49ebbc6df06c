"""Displays: the numbers, their order, and names that can be read."""

import sys
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse.linalg import aslinearoperator
from sklearn.base import clone
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.exceptions import NotFittedError

from sklearn_attnembed import AttentionEmbedding, NormalizerEstimator, inspection
from sklearn_attnembed.datasets import make_block_model
from sklearn_attnembed.inspection import (
    AttentionScoresDisplay,
    EmbeddingDisplay,
    LossCurveDisplay,
    NormalizerErrorDisplay,
)


@pytest.fixture(scope="module")
def model(graph):
    """An embedding of a graph with four communities."""
    return AttentionEmbedding(8, affinity="precomputed", random_state=0).fit(graph[0])


@pytest.fixture(scope="module")
def large():
    """An embedding of six hundred samples, more than a heat map shows, and their communities."""
    A, y = make_block_model(600, 4, mean_degree=20, random_state=0)
    return AttentionEmbedding(8, affinity="precomputed", random_state=0).fit(A), y


@pytest.fixture(scope="module")
def table(counts):
    return AttentionEmbedding(4, affinity="bipartite", random_state=0).fit(counts)


@pytest.fixture(scope="module")
def normalizer():
    return NormalizerEstimator(random_state=0).fit(KEYS)


@pytest.fixture
def ax():
    return Figure(figsize=(5.6, 5.2)).subplots()


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


KEYS = np.random.default_rng(0).standard_normal((1000, 6)) / 2
NAMES = [f"node {i}" for i in range(299)]


def texts_of(ax):
    return [text.get_text() for text in ax.texts]


def overlapping(texts):
    """Return the pairs of texts that overlap."""
    boxes = {text.get_text(): text.get_window_extent() for text in texts}
    return [pair for pair in combinations(boxes, 2) if boxes[pair[0]].overlaps(boxes[pair[1]])]


def ticks_of(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


# Axes, figures, settings ------------------------------------------------------------------------------------
DRAWINGS = {
    "heat map": lambda model, ax: AttentionScoresDisplay.from_estimator(model, ax=ax),
    "query": lambda model, ax: AttentionScoresDisplay.from_estimator(model, query=3, ax=ax),
    "embedding": lambda model, ax: EmbeddingDisplay.from_estimator(model, y=np.arange(299) % 3, names=NAMES, ax=ax),
    "numbers": lambda model, ax: EmbeddingDisplay.from_estimator(model, y=np.linspace(0, 1, 299), ax=ax),
    "loss": lambda model, ax: LossCurveDisplay.from_estimator(model, name="a", ax=ax),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawn_into_the_axes_that_are_given(name, model, ax):
    current = plt.figure()
    settings = dict(mpl.rcParams)
    display = DRAWINGS[name](model, ax)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    assert plt.get_fignums() == [current.number]
    assert plt.gcf() is current
    assert not current.axes
    assert dict(mpl.rcParams) == settings
    ax.figure.canvas.draw()


@pytest.mark.parametrize("name", DRAWINGS)
def test_new_axes_are_of_one_new_figure(name, model):
    display = DRAWINGS[name](model, None)
    assert plt.get_fignums() == [display.figure_.number]
    assert display.ax_ in display.figure_.axes


def test_errors_are_drawn_into_the_axes_that_are_given(normalizer):
    axes = Figure().subplots(1, 2)
    current, settings = plt.figure(), dict(mpl.rcParams)
    display = NormalizerErrorDisplay.from_estimator(normalizer, KEYS[:50], return_std=True, axes=axes, name="a")
    assert [*display.axes_] == [*axes]
    assert display.figure_ is axes[0].figure
    assert plt.gcf() is current
    assert len(plt.get_fignums()) == 1
    assert dict(mpl.rcParams) == settings
    assert len(NormalizerErrorDisplay([0.0], [0.1]).plot().axes_) == 2
    assert len(plt.get_fignums()) == 2


@pytest.mark.parametrize("plot", [LossCurveDisplay([1.0]).plot, NormalizerErrorDisplay([1.0], [1.1]).plot])
def test_missing_extra_is_named(plot, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'sklearn-attnembed\[plot\]'"):
        plot()


@pytest.mark.parametrize("display", [AttentionScoresDisplay, EmbeddingDisplay, LossCurveDisplay])
def test_not_fitted(display):
    with pytest.raises(NotFittedError):
        display.from_estimator(AttentionEmbedding())


# Heat maps --------------------------------------------------------------------------------------------------
def test_heat_map_is_attention_in_the_order_of_clusters(model, graph, ax):
    y, n = np.array([2, 0, 3, 1])[graph[1]], len(graph[1])
    display = AttentionScoresDisplay.from_estimator(model, labels=y, ax=ax)
    attention = model.attention_scores()
    assert_allclose(display.attention.sum(axis=1), 1)
    assert_array_equal(display.query_labels, np.sort(y))
    assert_array_equal(display.key_labels, np.sort(y))
    image = ax.images[0].get_array()
    assert_allclose(image, display.attention * n, err_msg="in units of uniform attention")
    # Rows and columns are the same, in the order of clusters, and each element is that of one pair.
    for a in range(4):
        for b in range(4):
            part = display.attention[np.ix_(display.query_labels == a, display.key_labels == b)]
            assert_allclose(np.sort(part, axis=None), np.sort(attention[np.ix_(y == a, y == b)], axis=None))
    assert np.diag(image[:, :]).mean() > 4 * image.mean(), "rows and columns are in the same order"


def test_marks_of_clusters(model, graph, ax):
    y = graph[1]
    AttentionScoresDisplay.from_estimator(model, labels=np.array(["a", "b", "c", "d"])[y], ax=ax)
    borders = np.cumsum(np.bincount(y))[:-1] - 0.5
    assert_allclose([line.get_ydata()[0] for line in ax.lines[:3]], borders)
    assert_allclose([line.get_xdata()[0] for line in ax.lines[3:]], borders)
    middles = [np.flatnonzero(np.sort(y) == k).mean() for k in range(4)]
    for axis in (ax.xaxis, ax.yaxis):
        assert ticks_of(axis) == ["a", "b", "c", "d"]
        assert_allclose(axis.get_ticklocs(), middles)
    assert ax.get_xlabel() == "keys"
    assert ax.get_ylabel() == "queries"
    assert ax.yaxis_inverted()


def test_colours_are_of_the_ratio_to_uniform_attention(model, graph, ax):
    AttentionScoresDisplay.from_estimator(model, labels=graph[1], ax=ax)
    image = ax.images[0]
    assert isinstance(image.norm, mpl.colors.LogNorm)
    ratio = AttentionScoresDisplay.from_estimator(model, labels=graph[1], ax=Figure().subplots()).attention * 299
    assert image.norm.vmin == np.clip(np.quantile(ratio, 0.05), 0.05, 0.5)
    assert_allclose(image.norm.vmax, np.quantile(ratio, 0.999))
    _, scale = ax.figure.axes
    assert scale.get_ylabel() == "attention / uniform attention"
    other = Figure().subplots()
    AttentionScoresDisplay.from_estimator(
        model, labels=graph[1], ax=other, colorbar=False, cmap="viridis", norm=None, alpha=0.5
    )
    assert other.figure.axes == [other]
    assert other.images[0].get_cmap().name == "viridis"
    assert other.images[0].get_alpha() == 0.5
    assert not isinstance(other.images[0].norm, mpl.colors.LogNorm)


def test_clusters_are_found_where_none_are_given(model, ax):
    display = AttentionScoresDisplay.from_estimator(model, ax=ax)
    assert ticks_of(ax.xaxis) == [str(k) for k in range(8)]
    assert np.all(np.diff(display.key_labels) >= 0)
    assert len(ax.lines) == 14
    same = AttentionScoresDisplay.from_estimator(model, ax=Figure().subplots())
    assert_array_equal(same.attention, display.attention)


def test_more_keys_than_picture_elements_are_summed(large, ax):
    model, y = large
    display = AttentionScoresDisplay.from_estimator(model, labels=y, ax=ax)
    assert display.attention.shape == (400, 400)
    assert np.sum(display.key_sizes) == 600
    assert_allclose(display.attention.sum(axis=1), 1)
    assert_allclose(ax.images[0].get_array(), display.attention / (display.key_sizes / 600))
    # Each cluster of 150 keys takes 100 columns, so no column has keys of two clusters.
    shown = np.stack([display.attention[:, display.key_labels == k].sum(axis=1) for k in range(4)], axis=1)
    whole = model.attention_scores() @ (y[:, None] == np.arange(4))
    for cluster, row in zip(display.query_labels, shown, strict=True):
        assert np.abs(whole[y == cluster] - row).max(axis=1).min() < 1e-12, "each row is that of a sample"
    assert_array_equal(np.bincount(display.query_labels), [100] * 4)


def test_heat_map_of_new_rows(model, graph, ax):
    A, y = graph
    new = A[:25]
    display = AttentionScoresDisplay.from_estimator(model, new, labels=y, ax=ax)
    attention = model.attention_scores(new)
    by_cluster = attention @ (y[:, None] == np.arange(4))
    assert_array_equal(display.query_labels, by_cluster.argmax(axis=1), "queries go where they attend to most")
    assert_allclose(display.attention @ (display.key_labels[:, None] == np.arange(4)), by_cluster)
    order = np.argsort(display.query_labels, kind="stable")
    assert_allclose(ax.images[0].get_array(), display.attention[order] * len(y))
    assert ax.images[0].get_array().shape == (25, len(y))


def test_heat_map_of_a_table(table, counts, ax):
    tastes = np.repeat(["first", "second"], 20)
    display = AttentionScoresDisplay.from_estimator(table, labels=tastes, ax=ax)
    assert display.attention.shape == (60, 40)
    assert_array_equal(display.query_labels, np.repeat(["first", "second"], 30))
    assert_allclose(display.attention.sum(axis=1), 1)
    again = AttentionScoresDisplay.from_estimator(table, counts[::3], labels=tastes, ax=Figure().subplots())
    assert_allclose(again.attention, display.attention[::3], rtol=1e-6)


def test_heat_map_of_an_operator(graph, ax):
    model = AttentionEmbedding(8, affinity="precomputed", random_state=0).fit(aslinearoperator(graph[0]))
    display = AttentionScoresDisplay.from_estimator(model, labels=graph[1], ax=ax)
    assert_allclose(display.attention.sum(axis=1), 1)


def test_heat_map_of_few_distinct_keys(ax):
    model = AttentionEmbedding(1, affinity="precomputed", random_state=0).fit(np.kron(np.eye(2), np.ones((10, 10))))
    AttentionScoresDisplay.from_estimator(model, ax=ax)


@pytest.mark.parametrize(
    "labels", [np.arange(299), np.array([f"a very long name {k}" for k in range(8)])[np.arange(299) % 8]]
)
def test_names_of_clusters_do_not_overlap(labels, model, ax):
    AttentionScoresDisplay.from_estimator(model, labels=labels, ax=ax)
    ax.figure.draw_without_rendering()
    for axis in (ax.xaxis, ax.yaxis):
        assert not overlapping(axis.get_ticklabels())


def test_heat_map_of_any_attention(ax):
    display = AttentionScoresDisplay([[0.5, 0.25, 0.25], [1, 0, 0]])
    assert display.plot(ax) is display
    assert_allclose(ax.images[0].get_array(), [[1.5, 0.75, 0.75], [3, 0, 0]])
    assert not len(ax.get_xticks())
    assert not len(ax.get_yticks())
    assert not ax.lines
    ax = Figure().subplots()
    display = AttentionScoresDisplay([[0.5, 0.25, 0.25], [1, 0, 0]], query_labels=["b", "a"], key_labels=[2, 1, 2])
    display.plot(ax)
    assert_allclose(ax.images[0].get_array(), [[0, 3, 0], [0.75, 1.5, 0.75]])
    assert ticks_of(ax.yaxis) == ["a", "b"]
    assert ticks_of(ax.xaxis) == ["1", "2"]


@pytest.mark.parametrize("form", [list, pd.Series, pd.Categorical], ids=lambda form: form.__name__)
def test_labels_of_any_form(form, model, graph, ax):
    AttentionScoresDisplay.from_estimator(model, labels=form(np.array(["a", "b", "c", "d"])[graph[1]]), ax=ax)
    assert ticks_of(ax.xaxis) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("labels", [[0, 1], np.zeros((299, 1)), np.zeros(300)], ids=["fewer", "2-d", "more"])
def test_labels_that_are_not_one_for_each_key(labels, model):
    with pytest.raises(ValueError, match="labels must be one for each of the 299 keys"):
        AttentionScoresDisplay.from_estimator(model, labels=labels)


# Queries ----------------------------------------------------------------------------------------------------
def bars_of(ax):
    return [bar.get_width() for bar in ax.patches]


def marks_of(ax):
    return ax.collections[0].get_offsets()


def test_query_shows_the_keys_that_it_attends_to_most(model, ax):
    display = AttentionScoresDisplay.from_estimator(model, query=7, n_keys=12, ax=ax)
    table = model.explain(7)[:12]
    assert_allclose(bars_of(ax), table["attention"])
    near = table["target"] <= ax.get_xlim()[1]
    assert 0 < near.sum() < 12
    assert_allclose(marks_of(ax), np.column_stack([table["target"], np.arange(12)])[near])
    assert texts_of(ax) == [f"{target:.2g} ►" for target in table["target"][~near]], "beyond the axis"
    assert ticks_of(ax.yaxis) == [str(key) for key in table["key"]]
    assert ax.get_xlabel() == "attention of query 7"
    assert ax.get_xlim()[0] == 0
    assert ax.yaxis_inverted(), "the most attended is at the top"
    assert sorted(text.get_text() for text in ax.get_legend().get_texts()) == ["attention", "target"]
    assert display.attention.shape == (1, 299)


def test_names_of_keys(model, table, counts, ax):
    AttentionScoresDisplay.from_estimator(model, query=7, key_names=NAMES, ax=ax)
    assert ticks_of(ax.yaxis) == [NAMES[key] for key in model.explain(7)["key"][:10]]
    items = [f"item {i}" for i in range(40)]
    named = clone(table).fit(pd.DataFrame(counts, columns=items))
    ax = AttentionScoresDisplay.from_estimator(named, query=0, ax=Figure().subplots()).ax_
    assert ticks_of(ax.yaxis) == named.explain(0)["key"][:10].tolist()
    assert set(ticks_of(ax.yaxis)) < set(items)


def test_query_of_new_rows(model, graph, ax):
    AttentionScoresDisplay.from_estimator(model, graph[0][50:60], query=3, ax=ax, color="C2", height=0.5)
    table = model.explain(53)[:10]
    assert_allclose(bars_of(ax), table["attention"], rtol=1e-5)
    assert_allclose(marks_of(ax)[:, 0], table["target"][table["target"] <= ax.get_xlim()[1]])
    assert ax.patches[0].get_facecolor() == mpl.colors.to_rgba("C2")
    assert ax.patches[0].get_height() == 0.5


def test_query_of_an_operator_has_no_target(graph, ax):
    model = AttentionEmbedding(8, affinity="precomputed", random_state=0).fit(aslinearoperator(graph[0]))
    AttentionScoresDisplay.from_estimator(model, query=3, ax=ax)
    assert_allclose(bars_of(ax), np.sort(model.attention_scores(rows=[3])[0])[:-11:-1])
    assert not ax.collections
    assert ax.get_legend() is None


def test_query_of_any_attention(ax):
    display = AttentionScoresDisplay(
        [[1, 0, 0], [0.2, 0.5, 0.3]], key_names=["a", "b", "c"], target=np.full((2, 3), 1 / 3)
    )
    assert display.plot_query(1, ax, n_keys=2) is display
    assert bars_of(ax) == [0.5, 0.3]
    assert ticks_of(ax.yaxis) == ["b", "c"]
    assert_allclose(marks_of(ax), [[1 / 3, 0], [1 / 3, 1]])


def test_no_more_bars_than_keys(ax):
    AttentionScoresDisplay([[0.2, 0.5, 0.3]]).plot_query(ax=ax, n_keys=10)
    assert len(bars_of(ax)) == 3


@pytest.mark.parametrize("query", [-1, 299, "0"], ids=repr)
def test_no_query(query, model):
    with pytest.raises(ValueError, match=f"from 0 to 298, but is {query!r}"):
        AttentionScoresDisplay.from_estimator(model, query=query)


# Embeddings -------------------------------------------------------------------------------------------------
def test_embedding_is_drawn_by_principal_components(model, ax):
    display = EmbeddingDisplay.from_estimator(model, ax=ax)
    expected = PCA(2, random_state=0).fit_transform(model.embedding_)
    assert_allclose(display.points, expected)
    assert_allclose(ax.collections[0].get_offsets(), expected)
    assert ax.get_aspect() == 1
    assert not texts_of(ax)


def test_new_rows_are_drawn(model, graph, ax):
    display = EmbeddingDisplay.from_estimator(model, graph[0][:9], y=graph[1][:9], ax=ax)
    assert display.points.shape == (9, 2)
    assert_allclose(display.points, PCA(2).fit_transform(model.transform(graph[0][:9])))


def test_reducer_is_left_as_it_was(model, ax):
    reducer = TruncatedSVD(2, random_state=0)
    display = EmbeddingDisplay.from_estimator(model, reducer=reducer, ax=ax)
    assert not hasattr(reducer, "components_")
    assert_allclose(display.points, clone(reducer).fit_transform(model.embedding_))


def test_two_dimensions_are_drawn_as_they_are(graph, ax):
    model = AttentionEmbedding(2, affinity="precomputed", random_state=0).fit(graph[0])
    assert_array_equal(EmbeddingDisplay.from_estimator(model, ax=ax).points, model.embedding_)


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (np.repeat([3, 1, 2], 20), ["1", "2", "3"]),
        (np.repeat(["tea", "cup", "pot"], 20), ["cup", "pot", "tea"]),
        (np.repeat([True, False], 30), ["False", "True"]),
        (np.zeros(60, int), ["0"]),
        (["a"] * 60, ["a"]),
        (pd.Series(np.repeat(["tea", "cup"], 30), index=np.arange(60) + 5), ["cup", "tea"]),
        (pd.Categorical(np.repeat(["tea", "cup"], 30)), ["cup", "tea"]),
    ],
    ids=["integers", "strings", "booleans", "one", "one, of a list", "Series", "Categorical"],
)
def test_classes_are_named_in_their_midst(y, names, ax):
    points = np.random.default_rng(0).random((60, 2)) + 5 * np.unique(y, return_inverse=True)[1][:, None]
    EmbeddingDisplay(points, y=y).plot(ax)
    assert texts_of(ax) == names
    for text in ax.texts:
        members = points[np.asarray(y).astype(str) == text.get_text()]
        assert_allclose(text.xy, np.median(members, axis=0))
    assert len(ax.figure.axes) == 1


@pytest.mark.parametrize("n_classes", [2, 10, 15, 20, 33])
def test_classes_have_colours_of_their_own(n_classes, ax):
    y = np.arange(5 * n_classes) % n_classes
    EmbeddingDisplay(np.random.default_rng(0).random((len(y), 2)), y=y).plot(ax)
    ax.figure.draw_without_rendering()
    colors = ax.collections[0].get_facecolors()
    assert len(np.unique(colors, axis=0)) == n_classes
    for label in range(n_classes):
        assert len(np.unique(colors[y == label], axis=0)) == 1
    if n_classes <= 20:
        assert_allclose(colors[:2], mpl.colormaps["tab10" if n_classes <= 10 else "tab20"]([0, 1]))


@pytest.mark.parametrize("n_classes", [20, 40])
def test_names_of_classes_do_not_overlap(n_classes, ax):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(n_classes), 10)
    centers = rng.standard_normal((5, 2))[np.arange(n_classes) % 5]  # of several classes the same
    points = centers[y] + rng.standard_normal((len(y), 2)) / 5
    EmbeddingDisplay(points, y=np.array([f"name {k}" for k in range(n_classes)])[y]).plot(ax)
    assert len(ax.texts) == n_classes
    if n_classes == 20:
        assert not overlapping(ax.texts)


def test_colormaps_of_classes(ax):
    EmbeddingDisplay(np.eye(2), y=[0, 1]).plot(ax, cmap=mpl.colormaps["coolwarm"])
    assert ax.collections[0].get_cmap().name == "coolwarm"


@pytest.mark.parametrize("given", [{"names": [r"$\frac$", "b"]}, {"y": [r"$\frac$", "b"]}], ids=["names", "classes"])
def test_names_are_no_formulas(given, ax):
    EmbeddingDisplay(np.eye(2), **given).plot(ax)
    ax.figure.canvas.draw()


def test_names_in_a_subfigure():
    EmbeddingDisplay(np.eye(2), y=[0, 1]).plot(Figure().subfigures(1, 2)[0].subplots())


def test_missing_class(ax):
    EmbeddingDisplay(np.random.default_rng(0).random((6, 2)), y=[0, 1, np.nan, 0, 1, 0]).plot(ax)
    assert len(ax.figure.axes) == 1, "classes, not a colour scale"


def test_names_of_samples_do_not_cover_those_of_classes(ax):
    points = np.random.default_rng(0).standard_normal((299, 2))
    EmbeddingDisplay(points, y=["one"] * 299, names=NAMES).plot(ax)
    assert not overlapping(ax.texts)


def test_numbers_are_drawn_on_a_colour_scale(ax):
    points, y = np.random.default_rng(0).random((50, 2)), np.linspace(0, 3, 50)
    EmbeddingDisplay(points, y=y).plot(ax, cmap="magma")
    assert not texts_of(ax)
    assert len(ax.figure.axes) == 2
    assert_array_equal(ax.collections[0].get_array(), y)
    assert ax.collections[0].get_cmap().name == "magma"


def test_whole_numbers_are_classes_whatever_their_type(ax):
    EmbeddingDisplay(np.random.default_rng(0).random((50, 2)), y=np.arange(50) % 2 * 1.0).plot(ax)
    assert len(ax.texts) == 2
    assert len(ax.figure.axes) == 1


def test_names_of_samples_do_not_overlap(ax):
    points = np.random.default_rng(0).standard_normal((300, 2))
    EmbeddingDisplay(points[:299], names=NAMES).plot(ax)
    assert 20 < len(ax.texts) < 299
    assert ax.texts[0].get_text() == "node 0", "the first ones first"
    assert not overlapping(ax.texts)
    for text in ax.texts:
        assert_array_equal(text.xy, points[NAMES.index(text.get_text())])


def test_names_far_apart_are_all_written(ax):
    points = [[0, 0], [0, 1], [1, 0], [1, 1]]
    EmbeddingDisplay(points, names=("a", "b", "c", "d")).plot(ax)
    assert texts_of(ax) == ["a", "b", "c", "d"]
    assert [text.get_position() for text in ax.texts] == [(14, 0)] * 4, "beside their points"


def test_names_of_many_samples_take_no_time(ax, monkeypatch):
    monkeypatch.setattr(inspection, "_NAMES", 5)
    points = np.column_stack([np.arange(8), np.zeros(8)])
    EmbeddingDisplay(points, names=list("abcdefgh")).plot(ax)
    assert texts_of(ax) == list("abcde")


def test_style_of_points(ax):
    sizes = []
    for n in (100, 2000, 100_000):
        sizes.append(EmbeddingDisplay(np.zeros((n, 2))).plot(Figure().subplots()).ax_.collections[0].get_sizes()[0])
    assert sizes == [24, 3, 2]
    EmbeddingDisplay(np.zeros((9, 2)), y=[0, 1, 2] * 3).plot(ax, s=7, alpha=0.5, marker="s", linewidths=1)
    assert ax.collections[0].get_sizes() == [7]
    assert ax.collections[0].get_alpha() == 0.5
    assert ax.collections[0].get_linewidths() == [1]


@pytest.mark.parametrize("given", [{}, {"y": []}, {"y": [], "names": []}], ids=str)
def test_no_points(given, ax):
    EmbeddingDisplay(np.empty((0, 2)), **given).plot(ax)
    assert not texts_of(ax)


def test_display_shows_what_it_is_given(model, graph):
    y = graph[1].tolist()
    display = EmbeddingDisplay.from_estimator(model, y=y, names=NAMES, ax=Figure().subplots())
    assert display.y.tolist() == y
    assert_array_equal(display.names, NAMES)


# Losses -----------------------------------------------------------------------------------------------------
def test_loss_curve(model, ax):
    display = LossCurveDisplay.from_estimator(model, ax=ax)
    assert_array_equal(ax.lines[0].get_xdata(), np.arange(1, model.n_iter_ + 1))
    assert ax.lines[0].get_ydata().tolist() == model.loss_curve_
    best = int(np.argmin(model.loss_curve_))
    assert ax.collections[0].get_offsets().tolist() == [[best + 1, model.loss_curve_[best]]]
    assert ax.get_legend() is None
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("iteration", "loss per row (nats)")
    LossCurveDisplay([3.0, 1.0, 2.0]).plot(display.ax_, name="other", color="r", linestyle="--")
    assert len(ax.lines) == 2
    assert ax.lines[1].get_color() == "r"
    assert_array_equal(ax.collections[1].get_offsets(), [[2, 1]])
    assert_array_equal(ax.collections[1].get_facecolor()[0], mpl.colors.to_rgba("r"))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["other"]


def test_iterations_are_whole_numbers(ax):
    LossCurveDisplay([3.0, 1.0]).plot(ax)
    assert all(tick == round(tick) for tick in ax.get_xticks())


# Errors of normalisers --------------------------------------------------------------------------------------
def test_errors_are_drawn(normalizer):
    axes = Figure().subplots(1, 2)
    display = NormalizerErrorDisplay.from_estimator(normalizer, KEYS[:100], axes=axes, name="one")
    log_z, exact = normalizer.score_samples(KEYS[:100]), normalizer.score_samples_exact(KEYS[:100])
    assert_allclose(display.error, np.abs(np.exp(log_z) / np.exp(exact) - 1), rtol=1e-6)
    assert_array_equal(axes[0].collections[0].get_offsets(), np.column_stack([exact, log_z - exact]))
    assert_array_equal(axes[1].lines[0].get_xdata(), np.sort(display.error))
    assert_allclose(axes[1].lines[0].get_ydata(), np.arange(1, 101) / 100)
    assert axes[1].get_xscale() == "log"
    again = NormalizerErrorDisplay([0.0, 0.1], [0.1, 0.0]).plot(display.axes_, name="two", color="r")
    assert [text.get_text() for text in axes[1].get_legend().get_texts()] == ["one", "two"]
    assert axes[1].lines[1].get_color() == "r"
    assert_array_equal(axes[0].collections[-1].get_facecolor()[0, :3], [1, 0, 0])
    assert again.figure_ is display.figure_


def test_queries_without_z_are_left_out():
    display = NormalizerErrorDisplay([0.0, -np.inf, 1.0], [0.1, 0.0, -np.inf], std=[1.0, 2.0, 3.0])
    assert_array_equal(display.log_z, [0])
    assert_array_equal(display.std, [1])
    assert len(display.plot(Figure().subplots(1, 2)).error) == 1


def test_legend_says_what_the_bars_cover():
    axes = Figure().subplots(1, 2)
    NormalizerErrorDisplay([0.0, 0.0, 0.0, 0.0], [0.1, -0.19, 0.2, 0.0], std=[0.1] * 4).plot(axes)
    assert [text.get_text() for text in axes[1].get_legend().get_texts()] == ["95 % bars cover 75 %"]
    axes = Figure().subplots(1, 2)
    NormalizerErrorDisplay([0.0, 0.0], [0.1, 0.0], std=[0.01] * 2).plot(axes, name="mine")
    assert [text.get_text() for text in axes[1].get_legend().get_texts()] == ["mine, 95 % bars cover 50 %"]


@pytest.mark.parametrize("n", [3, 40, 79, 1000])
def test_bars_are_of_forty_queries(n):
    axes = Figure().subplots(1, 2)
    exact = np.random.default_rng(0).random(n)
    NormalizerErrorDisplay(exact + 0.01, exact, std=np.full(n, 0.1)).plot(axes)
    (bars,) = (each for each in axes[0].collections if isinstance(each, mpl.collections.LineCollection))
    segments = np.array(bars.get_segments())
    assert len(segments) == min(n, 40)
    assert_allclose(segments[:, 1, 1] - segments[:, 0, 1], 2 * 1.96 * 0.1)
    assert set(segments[:, 0, 0]) <= set(exact)
    assert np.ptp(segments[:, 0, 0]) > 0.8 * np.ptp(exact), "of all sizes"


def test_errors_of_nothing():
    NormalizerErrorDisplay([1.0, 2.0], [1.0, 2.0]).plot(Figure().subplots(1, 2)).figure_.canvas.draw()


@pytest.mark.parametrize("std", [None, []])
def test_no_queries(std):
    axes = Figure().subplots(1, 2)
    display = NormalizerErrorDisplay([], [], std=std).plot(axes)
    assert len(display.error) == 0
    assert axes[1].get_legend() is None


def test_sparse_rows_can_be_drawn(model, graph, ax):
    new = sp.csr_array(graph[0][:5])
    assert EmbeddingDisplay.from_estimator(model, new, ax=ax).points.shape == (5, 2)
