"""Which processor's kernels the OpenBLAS libraries of NumPy and SciPy compute with.

Without an argument: say so, and also where they are not those that OPENBLAS_CORETYPE names. With ``others``: print two
that this processor can run beside its own, none where a library other than OpenBLAS computes.
"""

import os
import platform
import sys
from pathlib import Path

import numpy as np
import scipy.linalg  # loads SciPy's OpenBLAS
import sklearn
import threadpoolctl

NEEDS = {
    "SkylakeX": {"avx512f", "avx512dq", "avx512bw", "avx512vl"},
    "Haswell": {"avx2", "fma"},
    "Sandybridge": {"avx"},  # before Prescott, with which NumPy 2.5's OpenBLAS crashed here in products of float32
    "Prescott": {"pni"},
}
UNKNOWN = "unknown"  # MKL, Accelerate, a distribution's OpenBLAS
ALSO_CALLED = {"Katmai": "Prescott"}  # which some versions say for the kernels of any x86-64 processor


def kernels_in_use():
    """Map the two libraries to the names of their kernels."""
    pools = threadpoolctl.threadpool_info()
    found = {Path(pool["filepath"]).parent.name: pool["architecture"] for pool in pools if "architecture" in pool}
    names = {library: found.get(f"{library}.libs", UNKNOWN) for library in ("numpy", "scipy")}
    return {library: ALSO_CALLED.get(name, name) for library, name in names.items()}


def others():
    """List two kernels that the processor can run and does not choose by itself; say which it cannot."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    for kernel, needs in NEEDS.items():
        if missing := needs - flags:
            print(f"NOT RUN: {kernel} kernels, this processor lacks {', '.join(sorted(missing))}", file=sys.stderr)
    own = set(kernels_in_use().values())
    if UNKNOWN in own:
        print("NOT RUN: other kernels, NumPy and SciPy have no OpenBLAS of their own here", file=sys.stderr)
        return []
    return [kernel for kernel, needs in NEEDS.items() if needs <= flags and kernel not in own][:2]


def check():
    """Print the kernels in use, and whether others were asked for."""
    used, asked = kernels_in_use(), os.environ.get("OPENBLAS_CORETYPE")
    print(
        f"Python {platform.python_version()}, scikit-learn {sklearn.__version__}, kernels of NumPy {np.__version__}: "
        f"{used['numpy']}, of SciPy {scipy.__version__}: {used['scipy']}"
    )
    if asked and set(used.values()) != {asked}:
        print(f"NOT RUN: {asked} kernels in both, though OPENBLAS_CORETYPE asks for them")


if __name__ == "__main__":
    if sys.argv[1:] == ["others"]:
        print(*others())
    else:
        check()
