"""How low the exact loss gets: vectors that move as queries, or as queries and keys, against L-BFGS.

L-BFGS minimizes the exact loss with the gradient of both sides, written anew here, from a random start. Ours are fitted
with ``tol=1e-4``. Classification by either objective has three seeds of the embedding and of the split.

Run ``python benchmarks/bench_objective.py`` from the repository's root.

Needs ``pip install -e .``.

Data: ``ATTNEMBED_DATA`` names the folder, which has amazon, cora, email_eu_core, lastfm_asia and ppi. The losses
are of the 1,000 nodes around the one with most links; classification is of whole graphs.

Takes about 5 minutes on two cores; with ``--quick`` one graph and one temperature, in less than one, printed only.

Writes ``benchmarks/bench_objective.md``.
"""

import time
import warnings

import numpy as np
import scipy.sparse as sp
from _common import loaders, options, protocols, write
from scipy.optimize import minimize
from scipy.sparse.csgraph import breadth_first_order
from sklearn.preprocessing import normalize

from sklearn_attnembed import AttentionEmbedding

GRAPHS = ("email_eu_core", "cora", "ppi", "lastfm_asia", "amazon")
TEMPERATURES = (1.0, 0.2, 0.1)
NORMALIZERS = ("gaussian", "neighbors", "exact")
D, L, LARGEST, SEEDS = 32, 3, 1000, (0, 1, 2)


def graph(name, largest=None):
    """Adjacency matrix and labels of the nodes that have links, or of so many around the hub."""
    data = getattr(loaders(), name)()
    degree = np.asarray(data.A.sum(axis=1)).ravel()
    kept = np.flatnonzero(degree > 0)
    if largest is not None and len(kept) > largest:
        kept = np.sort(breadth_first_order(data.A, int(degree.argmax()), return_predecessors=False)[:largest])
    labels = data.Y.toarray() if hasattr(data, "Y") else protocols().one_hot(data.y)
    return sp.csr_array(data.A, dtype=np.float64)[kept][:, kept], labels[kept]


def walk(P, Y):
    """The average of the first powers of P, times Y."""
    H = Y
    for _ in range(L - 1):
        H = Y + P @ H
    return P @ H / L


def loss_and_gradient(P, Y, beta):
    """The exact loss of a row with its null model, and its gradient by all vectors in both of their roles."""
    n, mean = len(Y), Y.mean(axis=0)
    scores = beta * (Y @ Y.T)
    top = scores.max(axis=1, keepdims=True)
    attention = np.exp(scores - top, out=scores)
    total = attention.sum(axis=1, keepdims=True)
    attention /= total
    forward = walk(P, Y)
    pull = forward + walk(P.T, Y) - 2 * mean
    loss = np.mean(np.log(total) + top) - beta * np.sum(Y * forward) / n + beta * mean @ mean
    return loss, beta / n * (attention @ Y + attention.T @ Y - pull)


def lbfgs(P, beta, seed):
    """The exact loss that L-BFGS ends with, over vectors that are divided by their norms."""
    start = np.random.default_rng(seed).standard_normal((P.shape[0], D))

    def objective(flat):
        V = flat.reshape(start.shape)
        norm = np.linalg.norm(V, axis=1, keepdims=True)
        Y = V / norm
        loss, gradient = loss_and_gradient(P, Y, beta)
        gradient -= np.sum(gradient * Y, axis=1, keepdims=True) * Y
        return loss, (gradient / norm).ravel()

    options = {"maxiter": 250, "maxfun": 300, "ftol": 1e-9, "maxcor": 20}
    return minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=options).fun


def losses(names, temperatures):
    """Exact losses of all solutions, and how far they are above L-BFGS's."""
    for name in names:
        A, _ = graph(name, LARGEST)
        P = normalize(A, "l1")
        for temperature in temperatures:
            start = time.perf_counter()
            best = lbfgs(P, 1 / temperature, 0)
            seconds = time.perf_counter() - start
            yield name, A.shape[0], temperature, "L-BFGS", "", f"{best:.4f}", "", f"{seconds:.1f}"
            for normalizer in NORMALIZERS:
                for objective in ("queries", "joint"):
                    start = time.perf_counter()
                    model = AttentionEmbedding(
                        D, affinity="precomputed", walk_length=L, temperature=temperature, normalizer=normalizer,
                        objective=objective, n_negative=0, tol=1e-4, max_iter=600, random_state=0, n_jobs=2,
                    ).fit(A)  # fmt: skip
                    seconds = time.perf_counter() - start
                    loss = loss_and_gradient(P, model.key_embedding_, 1 / temperature)[0]
                    above = f"{100 * (loss - best) / abs(best):+.2f}"
                    row = name, A.shape[0], temperature, normalizer, objective, f"{loss:.4f}", above
                    yield *row, f"{seconds:.1f}"


def classification(names):
    """Micro-F1 of both objectives, three seeds, and NMI for Amazon."""
    for name in names:
        A, labels = graph(name)
        found = {}
        for objective in ("queries", "joint"):
            for seed in SEEDS:
                start = time.perf_counter()
                model = AttentionEmbedding(
                    128, affinity="precomputed", walk_length=L, objective=objective, random_state=seed, n_jobs=2
                ).fit(A)
                seconds = time.perf_counter() - start
                X = model.embedding_
                if name == "amazon":
                    scores = [100 * protocols().community_nmi(X, labels.argmax(axis=1), seeds=(seed,))] * 2
                else:
                    scores = [
                        protocols().node_classification(X, labels, share, seeds=(seed,))["micro_f1"]
                        for share in (0.1, 0.5)
                    ]
                found.setdefault(objective, []).append([*scores, seconds])
        for objective, values in found.items():
            mean, spread = np.mean(values, axis=0), np.std(values, axis=0, ddof=1)
            cells = [f"{m:.1f} ± {s:.1f}" for m, s in zip(mean[:2], spread[:2], strict=True)]
            yield name, objective, *cells, f"{np.median(values, axis=0)[2]:.2f}"


def main():
    """Everything."""
    quick = options(__doc__).parse_args().quick
    names, temperatures = (GRAPHS[:1], TEMPERATURES[1:2]) if quick else (GRAPHS, TEMPERATURES)
    warnings.simplefilter("ignore")
    write(
        "bench_objective",
        "Queries alone, and queries and keys",
        [
            (
                "Exact losses",
                f"Exact loss of a row with the null model's term, in nats, of the vectors at the end; d = {D}, walks "
                f"of length {L}; percent above L-BFGS on the exact loss; seconds.",
                ("graph", "nodes", "temperature", "normaliser", "objective", "loss", "% above L-BFGS", "seconds"),
                list(losses(names, temperatures)),
            ),
            (
                "Classification",
                "Micro-F1 in percent with 10 and 50 % of the labels (NMI for Amazon, twice), d = 128, defaults but for "
                "walks of length 3; mean and standard deviation over three seeds; median seconds of a fit.",
                ("graph", "objective", "10 %", "50 %", "seconds"),
                list(classification(names)),
            ),
        ],
        not quick,
    )


if __name__ == "__main__":
    main()
