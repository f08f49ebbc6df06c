"""
===================================================
Normalizers: how far from the exact value, and when
===================================================

For log Z of attention over 20,000 keys, this example shows which method ``method="auto"`` chooses, and the errors and
error bars of four methods at a high and at a low temperature.
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
# Errors and error bars
# ---------------------
# At temperature 1/2 the scores are close to each other: a Gaussian mixture and a control variate have errors below a
# thousandth, at most a tenth of those of sampling, most of which lie outside the panel. At 1/20 a few near keys
# contribute most of Z, and only `neighbors` finds them. The other methods have errors of a third or more, and their
# error bars are wider still. The printed share is that of errors within the error bars, for every method. The figure
# shows the error bars of the control variate for forty queries.
figure, axes = plt.subplots(2, 2, figsize=(10, 8.5), layout="constrained")
for row, temperature, limit in zip(axes, (1 / 2, 1 / 20), (0.005, 5), strict=True):
    for method in ("sampling", "gaussian", "neighbors", "control_variate"):
        model = NormalizerEstimator(method=method, temperature=temperature, random_state=0).fit(keys)
        display = NormalizerErrorDisplay.from_estimator(
            model, queries, return_std=method == "control_variate", axes=row, name=method
        )
        std = model.score_samples(queries, return_std=True)[1]
        covered = np.mean(np.abs(display.log_z - display.log_z_exact) <= 1.96 * std)
        print(
            f"1/{1 / temperature:<4g}{method:16} median error {np.median(display.error):.1e}, "
            f"bars +-{1.96 * np.median(std):.1e}, cover {covered:.0%}"
        )
    row[0].set(title=f"temperature 1/{1 / temperature:g}", ylim=(-limit, limit))
    row[0].set(xlabel="exact log Z (nats)", ylabel="error of log Z (nats)")
    row[1].set(title="share of queries with a smaller error")
    row[1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, frameon=False)
plt.show()
