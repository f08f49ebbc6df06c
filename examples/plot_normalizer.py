"""
===================================================
Normalisers: how far from the exact value, and when
===================================================

log Z of attention over 20,000 keys: the method that ``method="auto"`` takes, and the errors of four methods at a mild
and at a sharp temperature, with what their error bars say.
"""

# %%
# Keys on the sphere, in fifty groups
# -----------------------------------
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_blobs
from sklearn.preprocessing import normalize

from sklearn_attnembed import NormalizerEstimator
from sklearn_attnembed.inspection import NormalizerErrorDisplay

X, _ = make_blobs(20_500, n_features=32, centers=50, cluster_std=8.0, random_state=0)
keys, queries = normalize(X[:20_000]), normalize(X[20_000:])

# %%
# The cheapest method that is good enough
# ---------------------------------------
for temperature in (1 / 2, 1 / 5, 1 / 20):
    model = NormalizerEstimator(method="auto", tol=5e-3, temperature=temperature, random_state=0).fit(keys)
    error = np.median(np.abs(np.expm1(model.score_samples(queries) - model.score_samples_exact(queries))))
    print(f"1/{1 / temperature:<4g}{model.method_:16} expects {model.estimated_error_:.1e}, has {error:.1e}")

# %%
# Errors, and what the bars say of them
# -------------------------------------
# Dots are the errors of the estimates of log Z, bars 95 % intervals of some of them. At temperature 1/2 every score is
# near the others: a Gaussian or a control variate has errors below a thousandth, a tenth of those of sampling or less.
# At 1/20 a few near keys hold most of Z: only `neighbors` finds them. The others are off by a third or more, and their
# bars, wider still, say so.
figure, axes = plt.subplots(2, 2, figsize=(10, 8), layout="constrained")
for row, temperature, limit in zip(axes, (1 / 2, 1 / 20), (0.05, 6), strict=True):
    for method in ("sampling", "gaussian", "control_variate", "neighbors"):
        model = NormalizerEstimator(method=method, temperature=temperature, random_state=0).fit(keys)
        display = NormalizerErrorDisplay.from_estimator(model, queries, return_std=True, axes=row, name=method)
        print(
            f"1/{1 / temperature:<4g}{method:16} median error {np.median(display.error):.1e}, "
            f"bars +-{1.96 * np.median(display.std):.1e}"
        )
    row[0].set(title=f"temperature 1/{1 / temperature:g}", ylim=(-limit, limit))
plt.show()
