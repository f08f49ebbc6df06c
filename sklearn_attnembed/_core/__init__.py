"""Pure functions on validated arrays: kernels, key statistics, normalisers, operators, solver."""
