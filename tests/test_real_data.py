"""Quality on real data, where it is there, by the common protocol."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sklearn_attnembed import AttentionEmbedding, NormalizerEstimator
from sklearn_attnembed.metrics import attention_cross_entropy, log_normalizer_exact, relative_error


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
        model = walks(64, normalizer=normalizer).set_params(walk_length=walk_length).fit(A)
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


def test_normalizer_on_word_vectors(real):
    X = real.glove60k().X
    X /= np.linalg.norm(X, axis=1).mean()
    queries = X[np.random.default_rng(0).choice(len(X), 500, replace=False)]
    exact = log_normalizer_exact(queries, X, n_jobs=2)
    for n_clusters, bound in ((1, 6e-4), (8, 1e-4)):
        model = NormalizerEstimator(n_clusters=n_clusters, random_state=0, n_jobs=2).fit(X)
        assert np.median(relative_error(model.score_samples(queries), exact)) <= bound
