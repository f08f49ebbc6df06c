"""Generators of data sets."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.utils._param_validation import InvalidParameterError

from sklearn_attnembed import datasets
from sklearn_attnembed.datasets import make_modular_sequences


@pytest.mark.parametrize("base", [2, 3, 16])
@pytest.mark.parametrize("delay", [1, 2, 7])
@pytest.mark.parametrize("length", [None, 20])
def test_sequences_follow_their_rule(base, delay, length):
    x = make_modular_sequences(50, base, delay, length, random_state=0)
    assert x.shape == (50, length or delay + 1)
    assert x.dtype == np.int64
    assert x.min() >= 0
    assert x.max() == base - 1
    for t in range(delay, x.shape[1]):
        assert_array_equal(x[:, t], (x[:, t - 1] + x[:, t - delay]) % base)


def test_defaults():
    assert make_modular_sequences(random_state=0).shape == (100, 6)


def test_first_numbers_are_free():
    """The first numbers are uniformly distributed."""
    x = make_modular_sequences(9000, 3, 2, random_state=0)
    counts = np.bincount(3 * x[:, 0] + x[:, 1], minlength=9)
    assert counts.min() > 900
    assert counts.max() < 1100


@pytest.mark.parametrize("length", [1, 3, 5, 6, 30])
def test_length_only_cuts(length):
    longest = make_modular_sequences(10, 5, 5, 30, random_state=0)
    assert_array_equal(make_modular_sequences(10, 5, 5, length, random_state=0), longest[:, :length])


def test_seed():
    first, same, other = (make_modular_sequences(random_state=seed) for seed in (0, np.random.RandomState(0), 1))
    assert_array_equal(first, same)
    assert not np.array_equal(first, other)
    assert make_modular_sequences(2).shape == (2, 6)


def test_periods_are_those_of_linear_recurrences():
    """The Fibonacci sequence modulo 2, x(t) = x(t - 1) + x(t - 2), has period 3."""
    x = make_modular_sequences(20, 2, 2, 14, random_state=0)
    assert_array_equal(x[:, 3:], x[:, :-3])


BAD = {"n_sequences": 0, "base": 1, "delay": 0, "length": 0, "random_state": "a"}


@pytest.mark.parametrize(("name", "value"), [*BAD.items(), ("length", 2.5)])
def test_bad_parameters(name, value):
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter of make_modular_sequences must be"):
        make_modular_sequences(**{name: value})


def test_communities_each_have_a_node():
    assert_array_equal(datasets.make_block_model(4, 4, random_state=0)[1], range(4))
    with pytest.raises(ValueError, match="n_classes must be at most n_samples=4"):
        datasets.make_block_model(4, 5)


def test_block_model_of_endless_degree():
    with pytest.raises(InvalidParameterError, match="The 'mean_degree' parameter of make_block_model must be"):
        datasets.make_block_model(mean_degree=1e300)


@pytest.mark.parametrize("spread", [1e3, 1e308])
def test_block_model_of_any_spread(spread):
    A, y = datasets.make_block_model(200, 4, degree_spread=spread, random_state=0)
    assert A.shape == (200, 200)
    assert len(y) == 200
