"""Functions that make affinities from points, graphs, tables of counts, contacts in time and texts."""

from ._neighbors import local_scale, neighbor_affinity
from ._relations import Bipartite, bipartite, random_walk
from ._temporal import TemporalWalk, temporal
from ._words import Cooccurrence, cooccurrence

__all__ = [
    "Bipartite",
    "Cooccurrence",
    "TemporalWalk",
    "bipartite",
    "cooccurrence",
    "local_scale",
    "neighbor_affinity",
    "random_walk",
    "temporal",
]
