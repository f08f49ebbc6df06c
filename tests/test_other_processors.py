"""The promise about bits across processors: the same fits with other kernels of OpenBLAS, in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_info

from sklearn_attnembed import AttentionEmbedding, NormalizerEstimator
from sklearn_attnembed.datasets import make_block_model

# What the kernels need of the processor.
KERNELS = {"Haswell": "avx2", "Sandybridge": "avx"}


def results():
    """Vectors and log Z of one fit of each kind."""
    X = load_digits().data[:400] / 16
    A, _ = make_block_model(300, 4, mean_degree=12, random_state=0)
    A = A + np.eye(300)
    counts = np.random.default_rng(0).poisson(0.2 + 2 * np.kron(np.eye(2), np.ones((30, 20)))) + 1.0
    fits = {
        "points": (X, {}),
        "points, clusters": (X, {"n_clusters": 8, "temperature": 0.5}),
        "points, float32": (X.astype(np.float32), {}),
        "graph, walks": (A, {"affinity": "precomputed", "walk_length": 3, "temperature": 0.5}),
        "graph, neighbors": (A, {"affinity": "precomputed", "normalizer": "neighbors", "n_exact": 8}),
        "graph, exact": (A, {"affinity": "precomputed", "normalizer": "exact"}),
        "graph, gradient": (A, {"affinity": "precomputed", "solver": "gradient", "temperature": 0.5}),
        "table": (counts, {"affinity": "bipartite", "key_weight": "degree", "temperature": 0.5}),
    }
    out = {
        name: AttentionEmbedding(16, random_state=0, **params).fit(data).embedding_
        for name, (data, params) in fits.items()
    }
    keys = np.random.default_rng(0).standard_normal((2000, 8)) / 3
    for method in ("gaussian", "control_variate", "neighbors", "random_fourier"):
        model = NormalizerEstimator(method=method, n_clusters=2, random_state=0).fit(keys)
        out[f"log Z, {method}"] = model.score_samples(keys[:100])
    return out


def can_choose(kernel):
    """Whether NumPy's OpenBLAS can be told to use it, and the processor has what it takes."""
    cpu = Path("/proc/cpuinfo")
    uses_openblas = any(library["internal_api"] == "openblas" for library in threadpool_info())
    return uses_openblas and cpu.exists() and f" {KERNELS[kernel]} " in cpu.read_text()


@pytest.mark.filterwarnings("ignore:.* ended at a loss:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kernel", KERNELS)
def test_results_of_other_kernels(kernel, tmp_path):
    if not can_choose(kernel):
        pytest.skip(f"this processor, or this NumPy, has no kernels of the name {kernel}")
    path = tmp_path / "results.npz"
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_other_processors as t, numpy"
    )
    program += f"; numpy.savez({str(path)!r}, **t.results())"
    environment = {**os.environ, "OPENBLAS_CORETYPE": kernel, "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=300)
    with np.load(path) as other:
        for name, expected in results().items():
            rtol, atol = (1e-9, 0) if name.startswith("log Z") else (0, 1e-4 if expected.dtype == np.float32 else 1e-6)
            assert_allclose(other[name], expected, rtol=rtol, atol=atol, err_msg=name)
