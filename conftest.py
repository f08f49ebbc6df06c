"""What pytest does not collect: modules that need an extra to be imported, where it may be missing."""

from importlib.util import find_spec

collect_ignore = ["doc/conf.py", *([] if find_spec("torch") else ["sklearn_attnembed/nn.py"])]
