"""What pytest does not collect: the examples in docstrings of modules whose extra is missing."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torch") else ["sklearn_attnembed/nn.py"]
