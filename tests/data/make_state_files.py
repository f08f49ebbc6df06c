"""Write the files of models that every later version has to load: ``python tests/data/make_state_files.py``.

To be run at a release, once: the folder named after the version is never changed afterwards.
"""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import kneighbors_graph

from sklearn_attnembed import (
    AttentionEmbedding,
    AttentionWordVectors,
    ExpressiveKernel,
    NormalizerEstimator,
    __version__,
    save,
)

# Parameters that are functions, which files do not hold.
FUNCTIONS = {"embedding_function": {"affinity": rbf_kernel}}


def frame(X):
    """With names of columns."""
    return pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])


def models():
    """Small fitted models, with inputs to ask them about."""
    rng = np.random.default_rng(0)
    points, keys = rng.random((40, 3)), rng.standard_normal((150, 3))
    graph = kneighbors_graph(rng.random((270, 3)).astype(np.float32), 3)
    graph = sp.csr_array(graph + graph.T, dtype=np.float32)
    small = sp.csr_array(rbf_kernel(points) * (rng.random((40, 40)) < 0.3) + np.eye(40))
    counts = rng.poisson(np.kron(np.eye(2), np.full((10, 6), 2)) + 0.3).astype(np.float64)
    texts = ["tea cup pot", "sea ship port", "tea pot", "ship port"] * 5

    def embedding(n_components=3, **params):
        return AttentionEmbedding(n_components, **{"random_state": 0, "tol": 0, "max_iter": 20, **params})

    def normalizer(**params):
        return NormalizerEstimator(random_state=0, **params)

    calibrated = normalizer(n_clusters=2).fit(keys, sample_weight=1 + np.arange(150) % 3)
    calibrated.score_samples(keys[:1], return_std=True)
    chunks = normalizer(method="control_variate", n_samples=20, n_heavy=2)
    for chunk in np.split(keys, 3):
        chunks.partial_fit(chunk)
    return {
        "embedding_gaussian": (embedding(affinity="precomputed", n_clusters=2).fit(small), small[:9].toarray()),
        "embedding_exact": (
            embedding(affinity="precomputed", normalizer="exact").fit(small), small[:9].toarray() + 0.1,
        ),
        "embedding_neighbors": (
            embedding(2, affinity="precomputed", normalizer="neighbors", n_exact=8).fit(graph), graph[:9].toarray(),
        ),
        "embedding_points": (embedding(n_neighbors=6, weighting="self_tuning").fit(frame(points)), frame(points[:9])),
        "embedding_function": (embedding(affinity=rbf_kernel).fit(points), points[:9]),
        "embedding_bipartite": (
            embedding(affinity="bipartite", key_weight="degree", walk_length=2).fit(counts), counts[:9],
        ),
        "embedding_expressive": (
            embedding(affinity="precomputed", kernel="expressive", temperature=1).fit(small), small[:9].toarray(),
        ),
        "normalizer_gaussian": (calibrated, keys[:9]),
        "normalizer_control_variate": (chunks, keys[:9]),
        "normalizer_neighbors": (normalizer(method="neighbors", n_samples=20, n_exact=4).fit(keys), keys[:9]),
        "normalizer_random_fourier": (normalizer(method="random_fourier", n_components=40).fit(keys), keys[:9]),
        "kernel_landmarks": (ExpressiveKernel(n_components=5, random_state=0).fit(frame(points)), frame(points[:9])),
        "kernel_exact": (ExpressiveKernel(method="exact", temperature=0.5).fit(points), points[:9]),
        "kernel_sketch": (ExpressiveKernel(method="sketch", n_components=7, random_state=0).fit(points), points[:9]),
        "words": (AttentionWordVectors(3, min_count=1, tol=0, max_iter=20, random_state=0).fit(texts), texts[:3]),
    }  # fmt: skip


def answers(model, X):
    """Arrays that a model gives, by method."""
    found = {"transform": np.asarray(model.transform(X))}
    if isinstance(model, AttentionEmbedding):
        found |= {"score": np.asarray(model.score(X)), "attention_scores": model.attention_scores(X)[:, ::10]}
        if model.affinity == "bipartite":
            found |= dict(zip(("items", "rated"), model.recommend(X, 3), strict=True))
    if isinstance(model, NormalizerEstimator):
        found |= dict(zip(("log_z", "std"), model.score_samples(X, return_std=True), strict=True))
    return found


def main():
    """Write one file for each model, and one of inputs and what they give."""
    folder = Path(__file__).parent / __version__
    folder.mkdir(exist_ok=True)
    expected = {}
    for name, (model, X) in models().items():
        save(model, folder / f"{name}.npz")
        expected |= {f"{name}/{key}": value for key, value in {"X": np.asarray(X), **answers(model, X)}.items()}
    np.savez_compressed(folder / "expected.npz", **expected)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
