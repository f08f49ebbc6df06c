"""AttentionRecommender: what it recommends, its two stages, held-out items, and the sampling that it rests on."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_attnembed import AttentionEmbedding, AttentionRecommender
from sklearn_attnembed._core.item_products import largest_products
from sklearn_attnembed._core.normalizers import EXACT, SAMPLING
from sklearn_attnembed._core.normalizers.neighbors import AttendedKeys
from sklearn_attnembed._core.normalizers.sampled import N_SAMPLED
from sklearn_attnembed._core.sampling import systematic_sample
from sklearn_attnembed._core.statistics import block_statistics
from sklearn_attnembed._recommend import hold_out


def taste(n_users=300, n_items=120, n_groups=6, seed=0, share=0.8):
    """Users who choose fifteen items, most of them of their own group, popular ones more often."""
    rng = np.random.default_rng(seed)
    weight = 1 / np.arange(4, n_items + 4)
    table = np.zeros((n_users, n_items), np.float32)
    for user, row in enumerate(table):
        chance = np.where(np.arange(n_items) % n_groups == user % n_groups, share, (1 - share) / n_groups) * weight
        row[rng.choice(n_items, 15, replace=False, p=chance / chance.sum())] = 1
    return table


TABLE = taste()


def recommender(**params):
    return AttentionRecommender(**{"n_components": 8, "random_state": 0, **params})


@pytest.fixture(scope="module")
def fitted():
    return recommender().fit(TABLE)


# scikit-learn ------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:.*have no affinity:UserWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(
    [AttentionRecommender(), AttentionRecommender(temperature=0.3, normalizer="sampling", item_share=0)], legacy=True
)
def test_scikit_learn(estimator, check):
    check(estimator)


def test_unseen_users_are_predicted_in_a_grid_search():
    search = GridSearchCV(recommender(temperature=0.3), {"item_share": [0.0, 1.0]}, cv=2, error_score="raise")
    scores = search.fit(TABLE).cv_results_["mean_test_score"]
    assert scores.shape == (2,)
    assert np.all(scores > 0.2)
    shuffled = np.random.default_rng(0).permuted(TABLE, axis=1)
    assert search.best_estimator_.score(TABLE) > 2 * search.best_estimator_.score(shuffled)


def test_names_of_items_are_kept():
    frame = pd.DataFrame(TABLE, columns=[f"item {j}" for j in range(TABLE.shape[1])])
    model = recommender(temperature=0.3).fit(frame)
    assert model.feature_names_in_[3] == "item 3"
    with pytest.raises(ValueError, match="feature names"):
        model.recommend(frame[frame.columns[::-1]])


# Recommendations ---------------------------------------------------------------------------------------
def test_users_get_items_of_their_group(fitted):
    items, chances = fitted.recommend(TABLE, 3)
    right = items % 6 == np.arange(len(TABLE))[:, None] % 6
    assert right.mean() > 0.8
    assert np.all(np.diff(chances, axis=1) <= 0)
    assert not np.take_along_axis(TABLE, items, 1).any()


def test_users_not_seen_in_fit_are_recommended_as_well_as_known_ones(fitted):
    others = taste(seed=1)
    model, known = recommender().fit(others[:200]), fitted
    items = [each.recommend(others[200:], 5)[0] for each in (model, known)]
    right = [(part % 6 == np.arange(200, 300)[:, None] % 6).mean() for part in items]
    assert min(right) > 0.8


def test_chances_of_all_items_sum_to_one(fitted):
    items, chances = fitted.recommend(TABLE[:4], TABLE.shape[1], exclude_known=False)
    assert np.allclose(chances.sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(np.sort(items, axis=1), np.tile(np.arange(TABLE.shape[1]), (4, 1)))


def test_chances_are_the_mixture_of_both_attentions(fitted):
    rows = TABLE[:5]
    items, chances = fitted.recommend(rows, TABLE.shape[1], exclude_known=False)
    attention = fitted.model_.attention_scores(rows)
    of_items = rows @ fitted.item_attention_.toarray()
    mixture = 0.5 * attention + 0.5 * of_items / of_items.sum(axis=1, keepdims=True)
    assert np.allclose(np.take_along_axis(mixture, items, 1), chances, atol=1e-6)


def test_without_the_attention_of_items_the_embedding_ranks():
    model = recommender(item_share=0, temperature=0.3).fit(TABLE)
    assert model.item_attention_ is None
    items, _ = model.recommend(TABLE[:20], 1)
    assert np.array_equal(items, model.model_.recommend(TABLE[:20], 1)[0])


def test_a_user_without_items_gets_the_most_popular(fitted):
    items, _ = fitted.recommend(np.zeros((1, TABLE.shape[1])), 5)
    popular = TABLE.sum(axis=0)
    assert popular[items[0]].min() >= np.sort(popular)[-6]


def test_where_there_are_no_more_items_minus_one_stands(fitted):
    rows = np.ones((1, TABLE.shape[1]))
    rows[0, 7] = 0
    items, chances = fitted.recommend(rows, 3)
    assert items.tolist() == [[7, -1, -1]]
    assert chances[0, 0] > 0 == chances[0, 1] == chances[0, 2]


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.coo_array, sp.csc_array, np.asarray])
def test_any_format_gives_the_same_and_stays_untouched(kind, fitted):
    given = kind(TABLE.astype(np.float64))
    before = given.copy()
    model = recommender().fit(given)
    assert np.array_equal(model.embedding_, fitted.embedding_)
    assert abs(given - before).sum() == 0


def test_explicit_zeros_are_no_choices(fitted):
    table = sp.csr_array(TABLE)
    table.data = np.concatenate([table.data[:-1], [0]]).astype(np.float32)
    dense = recommender().fit(table.toarray())
    assert np.array_equal(recommender().fit(table).embedding_, dense.embedding_)
    assert np.array_equal(dense.recommend(table, 3)[0], dense.recommend(table.toarray(), 3)[0])


def test_counts_weigh():
    counts = TABLE.copy()
    counts[:, 0] *= 50
    assert not np.allclose(recommender().fit(counts).embedding_, recommender().fit(TABLE).embedding_)


def test_popularity_power_lifts_rare_items():
    popular = TABLE.sum(axis=0)
    means = [
        popular[recommender(popularity_power=power, item_share=0, temperature=0.3).fit(TABLE).recommend(TABLE, 5)[0]]
        for power in (0.0, 1.0)
    ]
    assert means[0].mean() < means[1].mean()


def test_item_power_lifts_rare_items():
    popular = TABLE.sum(axis=0)
    means = [
        popular[recommender(item_power=power, item_share=1, temperature=0.3).fit(TABLE).recommend(TABLE, 5)[0]].mean()
        for power in (0.0, 1.0)
    ]
    assert means[1] < means[0]


def test_user_power_changes_the_weight_of_busy_users():
    table = np.zeros((3, 4))
    table[0] = 1  # a user of all items
    table[1, :2] = table[2, 2:] = 1
    even, less = (recommender(user_power=power, item_power=0, temperature=0.3).fit(table) for power in (0.0, 1.0))
    A = [model.item_attention_.toarray() for model in (even, less)]
    assert np.allclose([A[0][0, 1] / A[0][0, 2], A[1][0, 1] / A[1][0, 2]], [2, 1 + (1 / 4) / (1 / 16)], atol=1e-5)


# Held-out items ----------------------------------------------------------------------------------------
def test_the_temperature_is_the_best_that_was_tried(fitted):
    gains = {(normalizer, temperature): gain for normalizer, temperature, gain in fitted.validation_}
    assert gains[fitted.normalizer_, fitted.temperature_] > max(gains.values()) - 0.02
    for name in ("gaussian", "sampling"):
        temperatures = [temperature for normalizer, temperature in gains if normalizer == name]
        assert temperatures == sorted(temperatures, reverse=True)
        of_name = [gains[name, temperature] for temperature in temperatures]
        assert of_name[-1] < max(of_name) or len(of_name) == {"gaussian": 3, "sampling": 6}[name]


@pytest.mark.parametrize("normalizer", ["gaussian", "sampling"])
def test_what_is_given_is_kept(normalizer):
    model = recommender(temperature=0.21, normalizer=normalizer).fit(TABLE)
    assert (model.temperature_, model.normalizer_) == (0.21, normalizer)
    assert model.model_.normalizer == normalizer
    assert model.validation_ == []


def test_what_is_open_is_found_at_what_is_given():
    model = recommender(temperature=0.21).fit(TABLE)
    assert [tried[:2] for tried in model.validation_] == [("gaussian", 0.21), ("sampling", 0.21)]
    assert model.temperature_ == 0.21
    model = recommender(normalizer="sampling").fit(TABLE)
    assert {tried[0] for tried in model.validation_} == {"sampling"}


def test_too_few_users_to_judge_by_get_the_usual_temperature():
    model = recommender(n_components=2).fit(TABLE[:12])
    assert (model.temperature_, model.normalizer_, model.validation_) == (0.2, "gaussian", [])


def test_verbose_tells_the_temperatures(capsys):
    model = recommender(verbose=1).fit(TABLE)
    lines = capsys.readouterr().out.splitlines()
    told = [line for line in lines if "temperature" in line]
    assert len(told) == len(model.validation_)
    assert f"NDCG@20 {model.validation_[0][2]:.4f}" in told[0]
    assert len(lines) - len(told) == model.model_.n_iter_


def test_holding_out_leaves_each_user_something():
    table = sp.csr_array(TABLE)
    rows, kept, held_out = hold_out(table, 0)
    assert (kept[rows] + held_out != table[rows]).nnz == 0
    assert np.diff(held_out.indptr).tolist() == [3] * 300
    single = sp.csr_array(np.eye(5, 6, dtype=np.float32))
    assert len(hold_out(single, 0)[0]) == 0
    two = sp.csr_array(np.ones((4, 2), np.float32))
    assert np.diff(hold_out(two, 0)[1].indptr).tolist() == [1] * 4


def test_score_needs_a_user_with_two_items(fitted):
    with pytest.raises(ValueError, match="a user with two items"):
        fitted.score(np.eye(3, TABLE.shape[1]))


# Policies ----------------------------------------------------------------------------------------------
def test_bits_do_not_depend_on_threads(fitted):
    two = recommender(n_jobs=2).fit(TABLE)
    assert np.array_equal(two.embedding_, fitted.embedding_)
    assert two.validation_ == fitted.validation_
    assert (two.item_attention_ != fitted.item_attention_).nnz == 0


def test_embedding_is_that_of_transform(fitted):
    assert np.allclose(fitted.transform(TABLE), fitted.embedding_, atol=1e-5)
    assert fitted.embedding_.dtype == np.float32


def test_a_failed_fit_leaves_the_model_as_it_was(fitted):
    model = clone(fitted).fit(TABLE)
    with pytest.raises(ValueError, match="no affinity at all"):
        model.fit(np.zeros((3, 4)))
    assert np.array_equal(model.embedding_, fitted.embedding_)


def test_errors_come_before_work(fitted):
    with pytest.raises(ValueError, match="n_items must be an integer from 1 to the 120 columns; got 121"):
        fitted.recommend(TABLE, 121)
    with pytest.raises(ValueError, match="Negative values"):
        recommender().fit(-TABLE)
    with pytest.raises(NotFittedError):
        recommender().recommend(TABLE)


# Core --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("k", [1, 5, 500])
def test_largest_products_are_those_of_the_whole_matrix(k, monkeypatch):
    rng = np.random.default_rng(0)
    A = sp.csr_array(np.where(rng.random((60, 40)) < 0.3, rng.random((60, 40)), 0))
    whole = (A.T @ A).toarray()
    np.fill_diagonal(whole, 0)
    for block in (10, 2**23):
        monkeypatch.setattr("sklearn_attnembed._core.item_products._BLOCK_PRODUCTS", block)
        found = largest_products(A, k, map)
        assert np.diff(found.indptr).max() <= k
        assert np.allclose(found.max(axis=1).toarray().ravel(), whole.max(axis=1))
        kept = found.toarray()
        least = np.sort(whole, axis=1)[:, -min(k, 40)]
        assert np.allclose(kept, np.where(whole >= np.maximum(least, 1e-300)[:, None], whole, 0))


def test_a_systematic_sample_is_unbiased():
    weights = np.concatenate([np.full(5, 100.0), np.arange(1, 200.0), [0, 0]])
    x = np.sin(np.arange(len(weights)))
    estimates, sizes = [], []
    for seed in range(400):
        drawn, chance = systematic_sample(weights, 40, [seed])
        assert len(np.unique(drawn)) == len(drawn)
        assert np.all(weights[drawn] > 0)
        sizes.append(len(drawn))
        estimates.append(np.sum(weights[drawn] * x[drawn] / chance))
    assert set(sizes) <= {39, 40, 41}
    error = np.std(estimates) / 20
    assert abs(np.mean(estimates) - weights @ x) < 4 * error


def test_numbers_that_outweigh_all_others_are_always_drawn():
    weights = np.ones(1000)
    weights[[3, 17]] = 500
    drawn, chance = systematic_sample(weights, 50, [0])
    assert chance[np.isin(drawn, [3, 17])].tolist() == [1, 1]
    assert len(systematic_sample(np.ones(10), 30, [0])[0]) == 10


@pytest.mark.parametrize("n_keys", [50, 6000])
def test_log_z_of_a_sample_is_near_the_exact_one(n_keys):
    rng = np.random.default_rng(0)
    keys = rng.standard_normal((n_keys, 8))
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    weights = 1 / np.arange(1, n_keys + 1)
    X = keys[::10]
    statistics = block_statistics(keys, weights, None, 1)
    attended = AttendedKeys(statistics, keys, weights, 4.0, seed=(0, 1, 2))
    (a, slope_a), (b, slope_b) = (each.field(attended)(X, slice(0, len(X))) for each in (SAMPLING, EXACT))
    tolerance = 1e-12 if n_keys < N_SAMPLED else 0.1
    assert np.abs(a - b).max() < tolerance
    assert np.abs(slope_a - slope_b).max() < tolerance


@pytest.mark.parametrize("objective", ["queries", "joint"])
def test_sampling_reaches_the_loss_of_exact(objective):
    table = taste(n_users=2600, n_items=60)
    params = {"affinity": "bipartite", "key_weight": "degree", "temperature": 0.3, "random_state": 0}
    losses = [
        AttentionEmbedding(8, normalizer=normalizer, objective=objective, **params).fit(table).exact_loss_
        for normalizer in ("sampling", "exact")
    ]
    assert losses[0] < losses[1] + 0.05
