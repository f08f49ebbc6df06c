"""Embeddings from attention scores, in linear time, with the interface of scikit-learn."""

from ._attention import attention
from ._embedding import AttentionEmbedding
from ._kernel import ExpressiveKernel, expressive_kernel
from ._normalizer import NormalizerEstimator
from ._recommend import AttentionRecommender
from ._state import load, save
from ._text import AttentionWordVectors
from ._version import __version__

__all__ = [
    "AttentionEmbedding",
    "AttentionRecommender",
    "AttentionWordVectors",
    "ExpressiveKernel",
    "NormalizerEstimator",
    "__version__",
    "attention",
    "expressive_kernel",
    "load",
    "save",
]
