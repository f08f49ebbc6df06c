"""Pure functions on validated arrays: kernels, statistics of keys, normalizers, affinity matrices, solver."""
