"""Kinds of values that files of models are made of, and the reader and writer of such files.

A file is an npz of arrays, one of which holds JSON. Each kind of value writes itself as a piece of JSON that refers to
arrays, and reads and checks such a piece. Nothing in a file is ever executed, imported or unpickled.
"""

import json
import math
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

FLOATS, FLOAT64, BOOL = ("float32", "float64"), ("float64",), ("bool",)
UINT64, INTEGERS = ("uint64",), ("int32", "int64")
_NUMBERS = (*FLOATS, *BOOL, "float16", "uint8", "uint16", "uint32", *UINT64, "int8", "int16", *INTEGERS)
# Name of the array that holds the bytes of the JSON.
_TREE = "model"
# Number of bytes to read at a time.
_CHUNK = 2**24
_NOT_FINITE = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}

# Lengths of axes by name. Axes with the same name must have the same length.
Sizes = dict[str, int]


class FileError(ValueError):
    """Error that a file is damaged, or not one of `save`."""


# Files -----------------------------------------------------------------------------------------------
class Writer:
    """Content of a file to be written: arrays by name, each content once."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params, self.arrays = params, dict[str, NDArray[Any]]()
        self._names: dict[Any, str] = {}

    def array(self, value: Any, name: str) -> dict[str, str]:
        """Add an array and return the reference to it."""
        value = np.asarray(value)
        if value.dtype.name not in _NUMBERS:
            self.refuse(name, f"an array of {value.dtype}")
        name = self._names.setdefault(_digest(value), name)
        self.arrays[name] = value
        return {"array": name}

    def refuse(self, name: str, what: str) -> NoReturn:
        """Raise the error that a value cannot be saved."""
        raise TypeError(
            f"{name} must be made of numbers, strings, None, lists, tuples and numeric arrays to be saved, or be a "
            f"function, of which the name is saved; but it is {what}. Replace it, or pickle the model."
        )

    def save(self, path: Path, tree: dict[str, Any]) -> None:
        """Write the file, completely or not at all. The same content gives the same bytes."""
        text = json.dumps(tree, allow_nan=False, indent=1).encode()
        arrays = {_TREE: np.frombuffer(text, np.uint8), **self.arrays}
        partial = path.with_name(path.name + ".part")
        try:
            with zipfile.ZipFile(partial, "w") as archive:
                for name, array in arrays.items():
                    entry = zipfile.ZipInfo(f"{name}.npy")  # its date is always 1980
                    entry.create_system = 3  # Unix, on any system
                    with archive.open(entry, "w", force_zip64=True) as file:
                        np.lib.format.write_array(file, array, allow_pickle=False)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


class Reader:
    """Content of a file to be read, and the functions that a file cannot hold."""

    def __init__(self, path: Path, stream: BinaryIO, functions: Mapping[str, Any]) -> None:
        self.path, self.functions = path, functions
        self._archive = zipfile.ZipFile(stream)
        self._length = stream.seek(0, os.SEEK_END)

    def fail(self, name: str, rule: str, value: str) -> NoReturn:
        """Raise the error that the content of the file is not valid."""
        raise FileError(
            f"{self.path}: {name} has to be {rule}, but is {value}. The file is damaged, or not one of "
            "sklearn_attnembed.save: write it anew."
        )

    def function(self, parameter: str, what: str) -> Any:
        """Return the function that was passed for a parameter."""
        if not callable(self.functions.get(parameter)):
            raise FileError(
                f"{self.path}: {parameter} was the function {what}, and files hold no functions. Pass the same one: "
                f"load(path, {parameter}=...)."
            )
        return self.functions[parameter]

    def tree(self) -> Any:
        """Return the parsed JSON."""
        return json.loads(self.array({"array": _TREE}, "the description").tobytes())

    def array(self, node: Any, name: str) -> NDArray[Any]:
        """Return the array that `node` refers to, in the byte order of this machine."""
        if not (isinstance(node, dict) and list(node) == ["array"] and isinstance(node["array"], str)):
            self.fail(name, "a reference to an array", _short(node))
        entry = f"{node['array']}.npy"
        if entry not in self._archive.namelist():
            self.fail(name, f"in the entry {entry}", "missing")
        with self._archive.open(entry) as file:
            shape, in_columns, dtype = _header(file)
            left = self._archive.getinfo(entry).file_size - file.tell()
            n_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if dtype.newbyteorder("=").name not in _NUMBERS or left != n_bytes or left > self._room(entry):
                self.fail(name, f"an array of numbers in {left} bytes", f"of {dtype} and shape {shape}")
            flat = np.empty(n_bytes, np.uint8)
            for start in range(0, n_bytes, _CHUNK):
                part = flat[start : start + _CHUNK]
                part[:] = np.frombuffer(file.read(len(part)), np.uint8)
            file.read(1)  # at the end of the entry its checksum is compared
        array = flat.view(dtype).reshape(shape, order="F" if in_columns else "C")
        return array.astype(dtype.newbyteorder("="), copy=False)

    def _room(self, entry: str) -> float:
        """Return the number of bytes that an entry may have once it is unpacked."""
        is_stored = self._archive.getinfo(entry).compress_type == zipfile.ZIP_STORED
        return self._length if is_stored else np.inf


def _in_columns(array: NDArray[Any]) -> bool:
    return array.flags.f_contiguous and not array.flags.c_contiguous


def _digest(array: NDArray[Any]) -> tuple[str, tuple[int, ...], bool, bytes]:
    """Return what distinguishes arrays: dtype, shape, order and a hash of the content."""
    plain = np.ascontiguousarray(array.T if _in_columns(array) else array)
    return array.dtype.str, array.shape, _in_columns(array), blake2b(plain.data, digest_size=32).digest()


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order and dtype of an open npy file."""
    reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    return reader[np.lib.format.read_magic(file)](file)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


# Kinds of values -------------------------------------------------------------------------------------
class Kind(ABC):
    """Kind of value, which can be written to a file and read from it."""

    @abstractmethod
    def write(self, value: Any, file: Writer, name: str) -> Any:
        """Return the JSON that represents `value`, and add its arrays to the file."""

    @abstractmethod
    def read(self, node: Any, file: Reader, name: str, sizes: Sizes) -> Any:
        """Return the value that the JSON represents, checked; add the lengths of new axes to `sizes`."""


@dataclass(frozen=True)
class Scalar(Kind):
    """Number, text or truth value."""

    type: Any
    size: str = ""  # name of the axis whose length the value is
    choices: tuple[str, ...] = ()  # the only values that are allowed, if there are any

    def write(self, value: Any, file: Writer, name: str) -> Any:
        value = self.type(value)
        return value if not isinstance(value, float) or np.isfinite(value) else str(value)

    def read(self, node: Any, file: Reader, name: str, sizes: Sizes) -> Any:
        if self.type is float and isinstance(node, str):
            node = _NOT_FINITE.get(node, node)
        if not isinstance(node, self.type) or (isinstance(node, bool) and self.type is not bool):
            file.fail(name, f"of type {self.type.__name__}", _short(node))
        _check_choice(node, self.choices, file, name)
        if self.size and sizes.setdefault(self.size, node) != node:
            file.fail(name, f"the length {self.size}, {sizes[self.size]}", str(node))
        return node


@dataclass(frozen=True)
class Numbers(Kind):
    """Array with one of the given dtypes and shapes; integers must be from `lowest` to below the length `below`."""

    dtypes: tuple[str, ...]
    shapes: tuple[tuple[str | int, ...], ...]
    below: str = ""
    lowest: int = 0

    def write(self, value: Any, file: Writer, name: str) -> Any:
        return file.array(value, name)

    def read(self, node: Any, file: Reader, name: str, sizes: Sizes) -> Any:
        array = file.array(node, name)
        shape = next((shape for shape in self.shapes if len(shape) == array.ndim), None)
        wanted: list[Any] = [sizes.get(str(axis), axis) for axis in shape or self.shapes[0]]
        fits = shape is not None and all(isinstance(n, str) or n == m for n, m in zip(wanted, array.shape, strict=True))
        if not fits or array.dtype.name not in self.dtypes:
            rule = f"of shape {tuple(wanted)} and {' or '.join(self.dtypes)}"
            file.fail(name, rule, f"of shape {array.shape} and {array.dtype}")
        sizes |= {axis: n for axis, n in zip(shape or (), array.shape, strict=True) if isinstance(axis, str)}
        if self.below in sizes and array.size and not (self.lowest <= array.min() and array.max() < sizes[self.below]):
            rule = f"from {self.lowest} to {sizes[self.below] - 1}"
            file.fail(name, rule, f"from {array.min()} to {array.max()}")
        return array


def numbers(dtypes: tuple[str, ...], *shape: str | int, below: str = "", lowest: int = 0) -> Numbers:
    """Return the kind of an array with a single possible shape."""
    return Numbers(dtypes, (shape,), below, lowest)


@dataclass(frozen=True)
class Matrix(Kind):
    """Matrix of floats, either dense or a CSR array."""

    rows: str
    columns: str

    def write(self, value: Any, file: Writer, name: str) -> Any:
        if not sp.issparse(value):
            return file.array(value, name)
        value = sp.csr_array(value)
        arrays = {part: file.array(getattr(value, part), f"{name}/{part}") for part in ("data", "indices", "indptr")}
        return {"sparse": "csr", "shape": list(value.shape), **arrays}

    def read(self, node: Any, file: Reader, name: str, sizes: Sizes) -> Any:
        if "array" in node:
            return numbers(FLOATS, self.rows, self.columns).read(node, file, name, sizes)
        axes = zip(node["shape"], (self.rows, self.columns), strict=True)
        shape = tuple(Scalar(int, axis).read(n, file, f"{name}/shape", sizes) for n, axis in axes)
        parts = {"data": FLOATS, "indices": INTEGERS, "indptr": INTEGERS}
        arrays = [numbers(dtypes, part).read(node[part], file, f"{name}/{part}", {}) for part, dtypes in parts.items()]
        matrix = sp.csr_array(tuple(arrays), shape=shape)
        matrix.check_format(full_check=True)  # compiled code does not check indices
        return matrix


@dataclass(frozen=True)
class Maybe(Kind):
    """Value that may be None or, as the attribute of an estimator, missing."""

    kind: Kind

    def write(self, value: Any, file: Writer, name: str) -> Any:
        return None if value is None else self.kind.write(value, file, name)

    def read(self, node: Any, file: Reader, name: str, sizes: Sizes) -> Any:
        return None if node is None else self.kind.read(node, file, name, sizes)


@dataclass(frozen=True)
class Listing(Kind):
    """List of values of one kind; names of axes whose length varies between them are not used elsewhere."""

    kind: Kind
    size: str = ""

    def write(self, value: Any, file: Writer, name: str) -> Any:
        return [self.kind.write(each, file, f"{name}/{i}") for i, each in enumerate(value)]

    def read(self, node: Any, file: Reader, name: str, sizes: Sizes) -> Any:
        if not isinstance(node, list):
            file.fail(name, "a list", _short(node))
        if self.size:
            Scalar(int, self.size).read(len(node), file, f"the length of {name}", sizes)
        return [self.kind.read(each, file, f"{name}/{i}", dict(sizes)) for i, each in enumerate(node)]


@dataclass(frozen=True)
class Group(Kind):
    """Values by name.

    Attributes
    ----------
    parts : dict
        For each name in the file, its place in memory (an attribute, also of an attribute, a key or a number) and its
        kind.
    make : callable
        Function that makes the value in memory from a dict by places.
    shared : tuple of str
        Names of axes that are shared with the enclosing group, if they are known there, by the same name or as
        "here=there". Other names of axes belong to this group alone.
    """

    parts: dict[str, tuple[Any, Kind]]
    make: Callable[[dict[Any, Any]], Any] = dict
    shared: tuple[str, ...] = ()

    def write(self, value: Any, file: Writer, name: str) -> Any:
        tree = {}
        for part, (place, kind) in self.parts.items():
            try:
                there = value[place] if isinstance(value, dict) or isinstance(place, int) else attrgetter(place)(value)
            except AttributeError:
                if isinstance(kind, Maybe):
                    continue
                raise
            tree[part] = kind.write(there, file, f"{name}/{part}")
        return tree

    def read(self, node: Any, file: Reader, name: str, sizes: Sizes) -> Any:
        if not isinstance(node, dict) or set(node) - set(self.parts):
            file.fail(name, f"made of {', '.join(self.parts)}", _short(node))
        pairs = [(each.split("=")[0], each.split("=")[-1]) for each in self.shared]
        own = {here: sizes[there] for here, there in pairs if there in sizes}
        values = {}
        for part, (place, kind) in self.parts.items():
            if part in node:
                values[place] = kind.read(node[part], file, f"{name}/{part}", own)
            elif not isinstance(kind, Maybe):
                file.fail(f"{name}/{part}", "there", "missing")
        return self.make(values)


@dataclass(frozen=True)
class Value(Kind):
    """Value of a parameter: any data, or a function, of which the file has the name only."""

    parameter: str
    choices: tuple[str, ...] = ()  # the only values that are allowed besides functions, if there are any

    def write(self, value: Any, file: Writer, name: str) -> Any:
        if isinstance(value, list):
            return [self.write(each, file, f"{name}/{i}") for i, each in enumerate(value)]
        is_float = isinstance(value, float) and not isinstance(value, np.floating) and math.isfinite(value)
        is_plain = value is None or isinstance(value, str | int) or is_float
        return value if is_plain else self._tagged(value, file, name)

    def _tagged(self, value: Any, file: Writer, name: str) -> dict[str, Any]:
        """Return the JSON of a value that JSON has no notation for."""
        if isinstance(value, np.generic) and value.dtype.name in _NUMBERS:
            return {"scalar": value.dtype.name, "value": self.write(value.item(), file, name)}
        if isinstance(value, float):
            return {"float": str(value)}
        if isinstance(value, tuple):
            return {"tuple": self.write(list(value), file, name)}
        if isinstance(value, np.random.RandomState):
            kind, numbers, *others = value.get_state(legacy=True)
            return {"random_state": [kind, file.array(numbers, name), *others]}
        if hasattr(value, "__array__"):
            return file.array(value, name)
        if not callable(value):
            file.refuse(name, f"a {type(value).__name__}")
        if file.params[self.parameter] is not value:
            raise ValueError(
                f"{self.parameter} is {file.params[self.parameter]!r}, but was the function {value!r} in fit: a file "
                "names one function for each parameter. Set it back, or fit again."
            )
        return {
            "function": f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__name__)}"
        }

    def read(self, node: Any, file: Reader, name: str, sizes: Sizes) -> Any:
        if isinstance(node, list):
            return [self.read(each, file, name, sizes) for each in node]
        if not isinstance(node, dict):
            _check_choice(node, self.choices, file, name)
            return node

        def random_state(content: Any) -> np.random.RandomState:
            kind, numbers, *others = content
            state = np.random.RandomState()
            state.set_state((kind, file.array(numbers, name), *others))
            return state

        readers: dict[str, Callable[[Any], Any]] = {
            "scalar": lambda dtype: _scalar(dtype, self.read(node["value"], file, name, sizes)),
            "float": _NOT_FINITE.__getitem__,
            "tuple": lambda parts: tuple(self.read(parts, file, name, sizes)),
            "random_state": random_state,
            "array": lambda _: file.array(node, name),
            "function": lambda what: file.function(self.parameter, what),
        }
        tag = next(iter(node))
        return readers[tag](node[tag])


def _check_choice(value: Any, choices: tuple[str, ...], file: Reader, name: str) -> None:
    """Raise an error for a value that is not one of the choices, if there are any."""
    if choices and value not in choices:
        file.fail(name, f"one of {', '.join(choices)}", _short(value))


def _scalar(dtype: str, value: Any) -> Any:
    return np.dtype(_NUMBERS[_NUMBERS.index(dtype)]).type(value)
