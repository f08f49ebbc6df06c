"""Functions that make affinities from points, graphs, tables of counts, contacts in time and texts."""

from ._mixtures import MixedAffinities, concatenate_affinities, mix_affinities
from ._neighbors import local_scale, neighbor_affinity
from ._relations import Bipartite, bipartite, random_walk
from ._temporal import TemporalWalk, temporal
from ._words import Cooccurrence, cooccurrence

__all__ = [
    "Bipartite",
    "Cooccurrence",
    "MixedAffinities",
    "TemporalWalk",
    "bipartite",
    "concatenate_affinities",
    "cooccurrence",
    "local_scale",
    "mix_affinities",
    "neighbor_affinity",
    "random_walk",
    "temporal",
]
