"""Quality on real data, where it is there, by the common protocol."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sklearn_attnembed import AttentionEmbedding, AttentionRecommender, AttentionWordVectors, NormalizerEstimator
from sklearn_attnembed.affinity import temporal
from sklearn_attnembed.metrics import attention_cross_entropy, relative_error


def walks(n_components, **params):
    return AttentionEmbedding(n_components, affinity="precomputed", walk_length=3, random_state=0, n_jobs=2, **params)


def test_amazon_communities(real, protocols):
    data = real.amazon()
    assert protocols.community_nmi(walks(32).fit_transform(data.A), data.y) >= 0.93


@pytest.mark.parametrize(("name", "least"), [("cora", 77.5), ("lastfm_asia", 84.0)])
def test_classification_with_few_labels(name, least, real, protocols):
    data = getattr(real, name)()
    vectors = walks(128).fit_transform(data.A)
    assert protocols.node_classification(vectors, protocols.one_hot(data.y), 0.1)["micro_f1"] >= least


@pytest.mark.filterwarnings("ignore:30 of 3890 rows:UserWarning")
@pytest.mark.parametrize("walk_length", [1, 3])
def test_surrogate_against_exact_twin(walk_length, real):
    A = real.ppi().A
    losses = []
    for normalizer in ("gaussian", "exact"):
        model = walks(64, normalizer=normalizer, temperature=1.0, tol=1e-4).set_params(walk_length=walk_length).fit(A)
        x = model.embedding_[~model.isolated_].astype(np.float64)
        n_keys = len(x)
        cross_entropy = attention_cross_entropy(A, model.embedding_, walk_length=walk_length, n_jobs=2)
        losses.append(cross_entropy - np.log(n_keys) + np.mean(x @ x.mean(axis=0)))
    assert_allclose(losses[0], losses[1], rtol=2e-3)


def test_transform_of_a_real_graph(real):
    A = real.cora().A
    model = walks(128).fit(A)
    assert_allclose(model.transform(A), model.embedding_, atol=1e-6)
    rows = np.random.default_rng(0).permutation(A.shape[0])[:50]
    assert_allclose(np.vstack([model.transform(A[[row]]) for row in rows]), model.embedding_[rows], atol=1e-6)


@pytest.fixture(scope="module")
def words(real):
    """GloVe vectors of mean norm 1 and of unit norm, and 1,000 queries among them."""
    X = real.glove60k().X
    norms = np.linalg.norm(X, axis=1, keepdims=True)
    return {"mean": X / norms.mean(), "unit": X / norms}, np.random.default_rng(0).choice(len(X), 1000, replace=False)


@pytest.mark.parametrize(
    ("norms", "temperature", "params", "bound"),
    [
        ("mean", 1, {}, 2e-4),
        ("mean", 1, {"n_clusters": 8}, 8e-5),
        ("mean", 1, {"method": "control_variate"}, 4e-5),
        ("mean", 1, {"method": "control_variate", "n_clusters": 8}, 1e-5),
        ("unit", 1 / 5, {"method": "control_variate", "n_clusters": 8}, 1.5e-3),
        ("unit", 1 / 10, {"method": "neighbors", "n_clusters": 8}, 1e-2),
        ("unit", 1 / 20, {"method": "neighbors", "n_clusters": 8}, 1e-3),
        ("unit", 1 / 50, {"method": "neighbors"}, 1e-6),
        ("mean", 1, {"kernel": "expressive", "n_clusters": 5}, 5e-3),
        ("mean", 1, {"kernel": "expressive", "method": "control_variate", "n_clusters": 5}, 1.5e-3),
    ],
    ids=str,
)
def test_normalizer_on_word_vectors(words, norms, temperature, params, bound):
    keys, rows = words[0][norms], words[1]
    model = NormalizerEstimator(temperature=temperature, random_state=0, n_jobs=2, **params).fit(keys)
    log_z, std = model.score_samples(keys[rows], return_std=True)
    exact = model.score_samples_exact(keys[rows])
    assert np.median(relative_error(log_z, exact)) <= bound
    assert 0.9 < np.mean(np.abs(log_z - exact) <= 1.96 * std) < 0.98


def test_random_features_are_beaten(words):
    keys, rows = words[0]["mean"], words[1]
    errors = {}
    for method in ("gaussian", "random_fourier", "positive_features"):
        model = NormalizerEstimator(method=method, random_state=0, n_jobs=2).fit(keys)
        errors[method] = np.median(
            relative_error(model.score_samples(keys[rows]), model.score_samples_exact(keys[rows]))
        )
    assert 10 * errors["gaussian"] < min(errors["random_fourier"], errors["positive_features"])


@pytest.mark.parametrize("method", ["gaussian", "control_variate", "sampling"])
def test_error_bars_on_a_learnt_embedding(real, method):
    A = real.ppi().A
    linked = np.diff(A.indptr) > 0
    X = walks(64).fit(A[linked][:, linked]).embedding_.astype(np.float64)
    model = NormalizerEstimator(method=method, n_samples=500, random_state=0).fit(X[1000:])
    for queries in (X[1000:], X[:1000]):
        log_z, std = model.score_samples(queries, return_std=True)
        assert 0.9 < np.mean(np.abs(log_z - model.score_samples_exact(queries)) <= 1.96 * std) < 0.98


# Raw data ----------------------------------------------------------------------------------------------
def sentences(tokens):
    """Lines of lower-cased words."""
    line = []
    for token in tokens:
        if token == "<eos>":
            yield line
            line = []
        else:
            line.append(token.lower())


@pytest.mark.filterwarnings("ignore:1 of 20487 words are never near another:UserWarning")
def test_word_similarity(real, protocols):
    model = AttentionWordVectors(64, random_state=0, n_jobs=2).fit(sentences(real.wikitext2().tokens))
    for name in ("MEN-TR-3k", "WS-353-ALL"):
        judged = real.word_similarity(name)
        spearman, n_pairs = protocols.word_similarity(model.embedding_, model.vocabulary_, judged.pairs, judged.score)
        assert n_pairs > len(judged.score) / 2
        assert spearman > 0.45


def test_documents(real):
    data = real.r8()
    train = np.array(data.split) == "train"
    texts = np.array(data.texts, object)
    model = make_pipeline(
        AttentionWordVectors(64, random_state=0, n_jobs=2), LogisticRegression(C=100, max_iter=3000)
    ).fit(texts[train], data.y[train])
    assert model.score(texts[~train], data.y[~train]) >= 0.95


def test_classes_from_contacts(real, protocols):
    data = real.primary_school()
    walk = temporal(np.column_stack([data.t, data.i, data.j]), width=1800, nodes=np.arange(data.n))
    states = walks(32, temperature=0.5).fit_transform(walk.affinity)
    assert protocols.community_nmi(walk.by_node(states), data.y) >= 0.925


def test_recommender_is_ahead_of_the_embedding_alone(real):
    data = real.lastfm()
    wanted = np.zeros(data.B.shape, bool)
    wanted[tuple(data.test.T)] = True
    tested = wanted.any(axis=1)

    def recall(table, model):
        found = np.take_along_axis(wanted, model.recommend(table, 20)[0], axis=1).sum(axis=1)
        return (found[tested] / wanted.sum(axis=1)[tested]).mean()

    model = AttentionRecommender(64, random_state=0, n_jobs=2).fit(data.B)
    assert recall(data.B, model) > 0.265
    unseen = np.arange(data.B.shape[0]) % 10 == 0
    others = AttentionRecommender(64, temperature=model.temperature_, random_state=0, n_jobs=2).fit(data.B[~unseen])
    tested &= unseen
    assert recall(data.B, others) > 0.95 * recall(data.B, model)


def test_recommendations(real, protocols):
    """By dot products, and the same by `recommend`."""
    data = real.lastfm()
    model = AttentionEmbedding(
        64, affinity="bipartite", key_weight="degree", temperature=0.2, tol=1e-3, random_state=0
    ).fit(data.B)
    users = np.column_stack([model.embedding_ / 0.2, np.ones(len(model.embedding_))])
    with np.errstate(divide="ignore"):
        items = np.column_stack([model.key_embedding_, np.log(model.key_weight_)])
    recall = protocols.recall_at_k(users, items, data.B, data.test)
    assert recall > 0.25
    top, _ = model.recommend(data.B, 20)
    wanted = np.zeros(data.B.shape, bool)
    wanted[tuple(data.test.T)] = True
    tested = wanted.any(axis=1)
    found = np.take_along_axis(wanted, top, axis=1).sum(axis=1)[tested] / wanted.sum(axis=1)[tested]
    assert_allclose(found.mean(), recall, atol=1e-3)
