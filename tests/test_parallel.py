"""Blocks of rows, and functions run on them."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sklearn_attnembed._core.parallel import block_runner, row_blocks


@pytest.mark.parametrize(
    ("sizes", "width", "ends"),
    [
        ([10], 4, [10]),
        ([130], 2**18, [43, 86, 130]),  # at least 64 rows, whatever the width
        ([64], 2**18, [64]),
        ([65], 2**18, [32, 65]),
        ([8192], 1, [8192]),  # at most 8,192
        ([8193], 0, [4096, 8193]),
        ([512, 513], 2**9, [512, 768, 1025]),  # 2^18 elements in between
        ([3, 0, 2], 8, [3, 5]),
        ([0], 8, []),
    ],
)
def test_rows_are_cut_into_blocks(sizes, width, ends):
    blocks = row_blocks(sizes, width)
    assert [block.stop for block in blocks] == ends
    assert [block.start for block in blocks] == [0, *ends][: len(ends)]
    assert all(type(block.start) is int and type(block.stop) is int for block in blocks)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_results_are_in_the_order_of_the_blocks(n_jobs):
    with block_runner(n_jobs) as run:
        assert_array_equal(list(run(lambda block: block**2, range(20))), np.arange(20) ** 2)
