"""Attention scores into embeddings, in linear time, the scikit-learn way."""

from ._embedding import AttentionEmbedding
from ._kernel import ExpressiveKernel, attention, expressive_kernel
from ._normalizer import NormalizerEstimator
from ._text import AttentionWordVectors
from ._version import __version__

__all__ = [
    "AttentionEmbedding",
    "AttentionWordVectors",
    "ExpressiveKernel",
    "NormalizerEstimator",
    "__version__",
    "attention",
    "expressive_kernel",
]
