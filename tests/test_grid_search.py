"""Grid search, with labels through a pipeline and without by the model's own score."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklearn_attnembed import AttentionEmbedding
from sklearn_attnembed.datasets import make_block_model


def test_pipeline_with_a_classifier(digits):
    X, y = digits
    grid = {
        "attentionembedding__temperature": [0.25, 1.0],
        "attentionembedding__n_components": [4, 32],
        "attentionembedding__affinity": ["nearest_neighbors", rbf_kernel],
    }
    model = make_pipeline(AttentionEmbedding(max_iter=300, random_state=0), LogisticRegression(max_iter=500))
    search = GridSearchCV(model, grid, cv=3, error_score="raise").fit(X, y)
    assert search.best_params_["attentionembedding__n_components"] == 32
    assert search.best_params_["attentionembedding__affinity"] == "nearest_neighbors"
    assert search.best_score_ > 0.9
    assert search.predict(X[:3]).shape == (3,)


@pytest.mark.filterwarnings("ignore:.* ended at a loss:sklearn.exceptions.ConvergenceWarning")  # at 1 / 64
def test_label_free_on_a_precomputed_graph():
    A, _ = make_block_model(400, 4, mean_degree=40, mixing=0.1, random_state=0)
    grid = {"n_components": [1, 8], "temperature": [1 / 64, 0.25, 16.0]}
    model = AttentionEmbedding(affinity="precomputed", walk_length=3, random_state=0)
    search = GridSearchCV(model, grid, cv=3, error_score="raise").fit(A)
    assert search.best_params_ == {"n_components": 8, "temperature": 0.25}
    assert np.all(np.isfinite(search.cv_results_["mean_test_score"]))
