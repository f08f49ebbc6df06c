"""Types, docstrings, examples and the API reference of every public name."""

import ast
import importlib
import inspect
import io
import re
import tokenize
import typing
from pathlib import Path

import pytest

import sklearn_attnembed

PACKAGE = Path(sklearn_attnembed.__file__).parent
REFERENCE = Path(__file__).parents[1] / "doc" / "api.rst"
MODULES = ["", ".affinity", ".metrics", ".datasets", ".inspection", ".nn"]

# Checks of numpydoc that docstrings need not pass.
EXCEPTIONS = {
    "GL01": "where the text begins is a matter of layout: here, behind the quotes",
    "GL02": "where the quotes end",
    "GL03": "blank lines",
    "ES01": "what one sentence says needs no second",
    "SS06": "a summary of two lines",
    "RT02": "a result has a name, as in scikit-learn: the description of it, and of others, can refer to it",
}
# Checks that methods and properties need not pass, because their class has examples and related names.
OF_METHODS = {"SA01": "See Also", "EX01": "Examples"}
# Metaphors and British spellings, and descriptions that begin without a noun.
METAPHORS = r"crowd|pull(?:s|ed)?|push(?:es|ed)?|is had|taking in|giving out|ledger|census"
BRITISH = r"(?:un)?normalis\w+|\w*neighbour\w*|colour\w*|cent(?:re|red)s?|regularis\w+|minimis\w+|recognis\w+"
UNCLEAR = re.compile(rf"\b(?i:{METAPHORS}|{BRITISH})\b|^ {{8,}}(?:Of|What|Where|As) ", re.MULTILINE)
# Classes of optional packages, which annotations name by strings.
FOR_CHECKERS = ["Axes", "BlockMask", "DataFrame"]


def _public(module):
    """Return the names in `__all__` without importing the module, because nn needs the extra torch."""
    path = PACKAGE.joinpath(*module[1:].split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for statement in ast.parse(path.read_text(encoding="utf8")).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            return [name for name in ast.literal_eval(statement.value) if name != "__version__"]
    raise AssertionError(f"{path} has no __all__")


NAMES = [f"sklearn_attnembed{module}.{name}" for module in MODULES for name in _public(module)]


def _load(name):
    module, _, name = name.rpartition(".")
    if module.endswith(".nn"):
        pytest.importorskip("torch", reason="it comes with the extra torch")
    return getattr(importlib.import_module(module), name)


def _is_ours(kind):
    return kind.__module__.split(".")[0] == "sklearn_attnembed"


def _members(public):
    """Yield names and functions of the public methods and properties that a class has from this package."""
    for kind in inspect.getmro(public) if inspect.isclass(public) else ():
        for name, member in vars(kind).items() if _is_ours(kind) else ():
            if name.startswith("_"):
                continue
            for function in (getattr(member, place, None) for place in ("fget", "func", "fn", "__func__")):
                if inspect.isfunction(function):  # of a property, an available_if, a class method
                    yield name, function
                    break
            else:
                if inspect.isfunction(member):
                    yield name, member


def _without_annotation(function):
    signature = inspect.signature(function)
    for place, (name, parameter) in enumerate(signature.parameters.items()):
        if parameter.annotation is parameter.empty and not (place == 0 and name in ("self", "cls")):
            yield f"parameter {name}"
    if signature.return_annotation is signature.empty:
        yield "what is returned"


@pytest.mark.parametrize("name", NAMES)
def test_types(name):
    """Every parameter and result is annotated with names that exist."""
    public = _load(name)
    functions = dict(_members(public))
    if not inspect.isclass(public):
        functions[name] = public
    elif "__init__" in vars(public):
        functions["__init__"] = public.__init__
    missing = [f"{each}: {what}" for each, function in functions.items() for what in _without_annotation(function)]
    assert not missing, "\n".join(missing)
    for function in functions.values():
        typing.get_type_hints(function, localns=dict.fromkeys(FOR_CHECKERS, object))


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_short(name):
    """What `help` shows of a parameter fits on a line: the name of a type, not the union that it stands for."""
    public = _load(name)
    for function in [public, *(function for _, function in _members(public))]:
        signature = inspect.signature(function)
        assert len(str(signature.return_annotation)) <= 60
        for parameter in signature.parameters.values():
            assert len(str(parameter)) <= 100, f"{function.__qualname__}: {parameter}"


@pytest.mark.parametrize("name", NAMES)
def test_docstring(name):
    validate = pytest.importorskip("numpydoc.validate", reason="it comes with the extra doc").validate
    members = [f"{name}.{member}" for member, _ in _members(_load(name))]
    errors = [
        f"{each}: {code} {text}"
        for each in [name, *members]
        for code, text in validate(each)["errors"]
        if code not in EXCEPTIONS and (each == name or code not in OF_METHODS)
    ]
    assert not errors, "\n".join(errors)


def _prose(path):
    """Yield the docstrings and comments of a file."""
    source = path.read_text(encoding="utf8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node, clean=False) or ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_words(path):
    """Docstrings and comments use the words of the field, and descriptions begin with a noun."""
    unclear = [f"{match[0].strip()} in {text[:60]!r}" for text in _prose(path) for match in UNCLEAR.finditer(text)]
    assert not unclear, "\n".join(unclear)


@pytest.mark.parametrize("name", NAMES)
def test_example(name):
    assert ">>> " in inspect.getdoc(_load(name)), "no doctest"


def test_reference():
    """The API page lists every public name and nothing else."""
    there, module = [], ""
    for line in REFERENCE.read_text(encoding="utf8").splitlines():
        if directive := re.fullmatch(r"\.\. (?:current)?module:: ([\w.]+)", line):
            module = directive[1]
        elif entry := re.fullmatch(r"   (\w+)", line):
            there.append(f"{module}.{entry[1]}")
    assert sorted(there) == sorted(NAMES)


def test_typed():
    """Type checkers use the annotations of a package only if it has this file."""
    assert (PACKAGE / "py.typed").is_file()
