"""A short run of the fuzzer in tests/fuzz, without crash, hang or violation."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_inputs_of_any_kind():
    command = [sys.executable, str(ROOT / "tests" / "fuzz"), "--inputs", "150", "--seed", "0"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert re.search(r"^150 inputs of seed 0, 0 violations", run.stdout, re.MULTILINE), run.stdout + run.stderr
    assert run.returncode == 0
