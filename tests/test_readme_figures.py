"""Every figure of the README's comparison is in the result table that its row links to."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROWS = re.findall(
    r"^\| \[[^\]]+\]\((benchmarks/bench_\w+\.md)\)[^|]* \| (.*) \|$",
    (ROOT / "README.md").read_text(encoding="utf8"),
    re.MULTILINE,
)
# With a decimal point or an exponent, or before a unit: not the numbers of settings, such as 20 epochs.
FIGURE = r"\d+\.\d+(?:e-?\d+)?|\d+(?= (?:ms|MB|s)\b)"


def shown(figure):
    """Whether a number is printed as this figure, given as many decimals, or as many digits before an exponent."""
    kind = "e" if "e" in figure else "f"
    decimals = len(figure.partition(".")[2].partition("e")[0])

    def is_it(number):
        return float(f"{float(number):.{decimals}{kind}}") == float(figure)

    return is_it


def test_rows_are_found():
    assert len(ROWS) >= 11


@pytest.mark.parametrize(("table", "cells"), ROWS)
def test_figures_are_in_the_table(table, cells):
    numbers = re.findall(r"(?<![\w.])\d[\d.]*(?:e-?\d+)?", (ROOT / table).read_text(encoding="utf8").replace(",", ""))
    numbers = [number.rstrip(".") for number in numbers if number.count(".") <= 1]
    figures = re.findall(FIGURE, cells)
    assert figures
    missing = [figure for figure in figures if not any(map(shown(figure), numbers))]
    assert not missing, f"not in {table}: {missing}"
