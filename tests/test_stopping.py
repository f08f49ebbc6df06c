"""The stopping rule: fits end near rest, on tables and graphs of all sorts, and come to rest where they are let."""

import numpy as np
import pytest
import scipy.sparse as sp

from sklearn_attnembed import AttentionEmbedding
from sklearn_attnembed.datasets import make_block_model


def table(n, m, per_row):
    """Users and items with tastes, whose numbers of ratings differ as those of films do."""
    rng = np.random.default_rng(0)
    taste, kind = rng.dirichlet(np.full(6, 0.3), n), rng.dirichlet(np.full(6, 0.3), m)
    chance = (taste * rng.lognormal(0, 1, (n, 1))) @ (kind * rng.lognormal(0, 1.4, (m, 1))).T
    B = rng.random((n, m)) < chance * (per_row * n / chance.sum())
    B = B[B.any(axis=1)]
    return sp.csr_array(B[:, B.any(axis=0)].astype(float))


def communities(n=300, share=1.0):
    """Communities, whose links have one direction only with a smaller share."""
    A = sp.csr_array(make_block_model(n, 6, mean_degree=20, random_state=0)[0])
    A.data *= np.random.default_rng(0).random(A.nnz) < share
    return sp.csr_array(A + sp.eye_array(n))


def hubs(n=200):
    A = sp.lil_array((n, n))
    for hub in range(5):
        A[hub, hub::5] = A[hub::5, hub] = 1
    A[0, :5] = A[:5, 0] = 1
    return sp.csr_array(A)


def ring(n=200):
    return sp.csr_array(sp.diags_array([1.0] * 6, offsets=[1, -1, 2, -2, n - 1, 1 - n], shape=(n, n)))


DATA = {
    "films": lambda: table(300, 500, 30),
    "few films": lambda: table(150, 100, 10),
    "communities": communities,
    "one direction": lambda: communities(share=0.5),
    "hubs": hubs,
    "ring": ring,
}


@pytest.mark.parametrize("temperature", [1.0, 0.2, 0.1])
@pytest.mark.parametrize("name", DATA)
@pytest.mark.filterwarnings("ignore:AttentionEmbedding ended at a loss")  # small graphs at sharp temperatures
def test_fits_end_near_rest(name, temperature):
    """Momentum must not keep vectors circling, nor may a loss that passes through a minimum end the fit.

    With the default tolerance nine tenths of the decrease of the loss are there, and with a smaller one all of it.
    """
    X = DATA[name]()
    kind = "bipartite" if "films" in name else "precomputed"
    options = {"affinity": kind, "temperature": temperature, "random_state": 0, "check_loss": False}
    model = AttentionEmbedding(16, **options).fit(X)
    rest = AttentionEmbedding(16, tol=1e-5, max_iter=300, **options).fit(X)
    assert rest.n_iter_ < 300
    lowest = min(rest.loss_curve_)
    assert min(model.loss_curve_) - lowest < 0.15 * (rest.loss_curve_[0] - lowest)
