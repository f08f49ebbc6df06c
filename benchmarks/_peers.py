"""The methods of bench_embedding.py, each a function (adjacency, dimension, walk length, seed) -> vectors of the nodes.

Peers are given as many threads as ``OMP_NUM_THREADS`` says, two without it, and their own settings. They are imported
where used: what is not installed is skipped. Isolated nodes get zero vectors where a peer does not know them.

NRP (R. Yang et al., VLDB 2020) and STRAP (Y. Yin and Z. Wei, KDD 2019) are not here: their authors' code is C++ and
MATLAB to be compiled by hand, and the package index has neither.
"""

import os
from functools import partial
from importlib.util import find_spec

import numpy as np
import scipy.sparse as sp
from scipy import linalg
from scipy.special import iv
from sklearn.manifold import SpectralEmbedding
from sklearn.preprocessing import normalize
from sklearn.utils.extmath import randomized_svd

from sklearn_attnembed import AttentionEmbedding

N_JOBS = int(os.environ.get("OMP_NUM_THREADS", "2"))
NETMF_NODES = 10_000  # of the largest graph that NetMF is run on


def attnembed(A, d, walk_length, seed=0, **params):
    """Ours, with the defaults of everything else."""
    settings = {"affinity": "precomputed", "walk_length": walk_length, "n_jobs": N_JOBS, "random_state": seed}
    return AttentionEmbedding(d, **settings, **params).fit(A).embedding_


def edrep(A, d, walk_length, seed=0):
    """EDRep at its own settings: 30 epochs, the average of the powers from a list of the same matrix."""
    from EDRep import CreateEmbedding

    np.random.seed(seed)
    return CreateEmbedding([normalize(A, "l1")] * walk_length, dim=d, sum_partials=True, verbose=False).X


def edges(A):
    """Ends of the undirected edges, as lists."""
    upper = sp.triu(A, 1).tocoo()
    return upper.row.tolist(), upper.col.tolist()


def walks(graph, seed):
    """Ten walks of 80 steps from every node of fastnode2vec's graph."""
    from fastnode2vec.node2vec import set_seed

    set_seed(seed)  # of the thread that asks for walks
    rng = np.random.default_rng(seed)
    for _ in range(10):
        for node in rng.permutation(len(graph.node_names)):
            yield graph.generate_random_walk(80, 1, 1, node)


def deepwalk(A, d, walk_length, seed=0):
    """DeepWalk: walks by fastnode2vec, skip-gram of window 10 with 5 negatives by gensim.

    Not fastnode2vec's own trainer: it counts every node once, so negatives ignore degrees, and repeats the same
    random numbers in every batch if seeded; figures are better this way.
    """
    from fastnode2vec import Graph
    from gensim.models import Word2Vec

    graph = Graph(zip(*edges(A), strict=True), directed=False, weighted=False, verbose=False)
    model = Word2Vec(vector_size=d, window=10, sg=1, negative=5, sample=0, min_count=1, workers=N_JOBS, seed=seed)
    degrees = np.diff(graph.indptr)
    counts = np.maximum(degrees * 800 * len(degrees) // degrees.sum(), 1)  # visits to be expected
    model.build_vocab_from_freq(dict(zip(graph.node_names.tolist(), counts.tolist(), strict=True)))
    model.train(walks(graph, seed), total_examples=10 * len(degrees), epochs=1)
    X = np.zeros((A.shape[0], d), np.float32)
    X[model.wv.index_to_key] = model.wv.vectors
    return X


def prone(A, d, walk_length, order=10, mu=0.2, theta=0.5, seed=0):
    """ProNE from the equations of its paper: J. Zhang et al., IJCAI 2019, sections 3.1 and 3.2."""
    # Factorise log p_ij - log q_j on the edges, where q are the probabilities of negatives.
    P = normalize(A, "l1").tocsr()
    q = np.asarray(P.sum(axis=0)).ravel() ** 0.75
    M = sp.csr_matrix((np.log(P.data) - np.log(q / q.sum())[P.indices], P.indices, P.indptr), P.shape)
    U, s, _ = randomized_svd(M, d, n_iter=5, random_state=seed)
    R = normalize(U * np.sqrt(s))

    # Filter by exp(-theta ((lambda - mu)^2 - 1) / 2) of the Laplacian with self-loops, in Chebyshev polynomials.
    identity = sp.eye_array(len(R), dtype=A.dtype, format="csr")
    walk = normalize(identity + A, "l1")
    shifted = ((1 - mu) * identity - walk).astype(A.dtype)

    def modulated(X):
        return (shifted @ (shifted @ X) - X) / 2

    bessel = iv(range(order), theta).astype(A.dtype)
    before, now = R, modulated(R)
    smooth = bessel[0] * before - 2 * bessel[1] * now
    for i in range(2, order):
        before, now = now, 2 * modulated(now) - before
        smooth += 2 * (-1) ** i * bessel[i] * now
    U, s, _ = linalg.svd(walk @ (R - smooth), full_matrices=False, check_finite=False)
    return normalize(U * np.sqrt(s))


def netmf(A, d, walk_length, window=10, seed=0):
    """NetMF from the equations of its paper, exact: J. Qiu et al., WSDM 2018, theorem 2.3 and section 3.

    The matrix that DeepWalk factorizes implicitly, log max(1, M) with one negative, where ``M = vol(A) / window
    (P + ... + P^window) D^-1``, is formed as a dense matrix; ``window=1`` is LINE's. At most `NETMF_NODES` nodes.
    """
    if A.shape[0] > NETMF_NODES:
        raise ValueError(f"NetMF forms an n x n matrix: at most {NETMF_NODES:,} nodes, got {A.shape[0]:,}")
    degrees = np.asarray(A.sum(axis=1), dtype=float).ravel()
    inverse = np.divide(1, degrees, out=np.zeros_like(degrees), where=degrees > 0)
    P = (sp.diags_array(inverse) @ A).tocsr().astype(np.float32)
    M = np.zeros(A.shape, np.float32)
    for _ in range(window):
        M.flat[:: len(M) + 1] += inverse * degrees.sum() / window
        M = P @ M
    np.log(np.maximum(M, 1, out=M), out=M)
    U, s, _ = randomized_svd(M, d, n_iter=5, random_state=seed)
    return U * np.sqrt(s)


def cleora(A, d, walk_length, seed=0):
    """Cleora at its documented settings: 40 iterations, whitened."""
    from pycleora import SparseMatrix, embed

    lines = (f"{i} {j}" for i, j in zip(*edges(A), strict=True))
    graph = SparseMatrix.from_iterator(lines, "complex::reflexive::product")
    X = np.zeros((A.shape[0], d), np.float32)
    X[np.array(graph.entity_ids, dtype=int)] = embed(graph, feature_dim=d, seed=seed, num_workers=N_JOBS)
    return X


def spectral(A, d, walk_length, seed=0):
    """Eigenvectors of the normalised Laplacian."""
    return SpectralEmbedding(d, affinity="precomputed", random_state=seed).fit_transform(A)


def walk_svd(A, d, walk_length, seed=0):
    """Truncated SVD of the average of the powers, never formed: five randomised subspace iterations, like sklearn's."""
    P = normalize(A, "l1").tocsr()
    back = P.T.tocsr()

    def average(P, X):
        total = X = P @ X
        for _ in range(walk_length - 1):
            X = P @ X
            total = total + X
        return total / walk_length

    def orthogonal(X):
        return linalg.qr(X, mode="economic", overwrite_a=True, check_finite=False)[0]

    Q = np.random.default_rng(seed).standard_normal((len(P.indptr) - 1, d + 10), dtype=P.dtype)
    for _ in range(5):
        Q = orthogonal(average(back, orthogonal(average(P, Q))))
    Q = orthogonal(average(P, Q))
    U, s, _ = linalg.svd(average(back, Q).T, full_matrices=False, check_finite=False)
    return ((Q @ U) * s)[:, :d]


# name: (label, function, modules beyond ours, colour, marker)
METHODS = {
    "attnembed": ("AttentionEmbedding", attnembed, (), "tab:red", "o"),
    "attnembed-t1": ("AttentionEmbedding, temperature=1", partial(attnembed, temperature=1.0), (), "tab:orange", "^"),
    "attnembed-plain": (
        "AttentionEmbedding, n_negative=0",
        partial(attnembed, n_negative=0),
        (),
        "lightcoral",
        "h",
    ),
    "attnembed-nn": ("AttentionEmbedding, neighbors", partial(attnembed, normalizer="neighbors"), (), "darkred", "s"),
    "edrep": ("edrep", edrep, ("EDRep",), "tab:blue", "D"),
    "deepwalk": ("DeepWalk", deepwalk, ("fastnode2vec", "gensim"), "tab:green", "v"),
    "prone": ("ProNE", prone, (), "tab:purple", "X"),
    "netmf": ("NetMF, window 10", netmf, (), "tab:olive", "P"),
    "netmf-1": ("NetMF, window 1", partial(netmf, window=1), (), "darkkhaki", "<"),
    "cleora": ("Cleora", cleora, ("pycleora",), "tab:brown", "h"),
    "spectral": ("SpectralEmbedding", spectral, (), "tab:gray", "p"),
    "walk-svd": ("SVD of the walks", walk_svd, (), "tab:cyan", "*"),
    "attnembed-20": ("AttentionEmbedding, 20 iterations", partial(attnembed, max_iter=20, tol=0), (), "k", "."),
}
PEERS = [module for method in METHODS.values() for module in method[2]]


LARGEST = {"netmf": NETMF_NODES, "netmf-1": NETMF_NODES}  # nodes that a method is made for


def missing(name):
    """Modules a method lacks."""
    return [module for module in METHODS[name][2] if find_spec(module) is None]
