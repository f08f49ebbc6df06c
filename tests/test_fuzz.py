"""A short run of the fuzzer of tests/fuzz: no crash, no hang, and no violation but those still to be cured."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Still to be cured: where, by the names of functions. `python tests/fuzz --inputs 20000` finds what each of them is.
KNOWN = ("_explain._numbers", "_text.most_similar", "_embedding.estimate_memory", "bytes", "metrics.relative_error",
         "statistics.largest_variance", "operators.row_stochastic", "normalizer.field", "_kernel.expressive_kernel",
         "_temporal.at", "_temporal:302", "datasets.make_block_model")  # fmt: skip


def test_inputs_of_any_kind():
    command = [sys.executable, str(ROOT / "tests" / "fuzz"), "--inputs", "150", "--seed", "0"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert re.search(r"150 inputs of seed 0, \d+ violations", run.stdout), run.stderr
    found = [line for line in run.stderr.splitlines() if line.startswith("VIOLATION")]
    assert not [line for line in found if not any(place in line for place in KNOWN)]
