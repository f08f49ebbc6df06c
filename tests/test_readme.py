"""Claims of the README about the repository."""

import re
import tomllib
from pathlib import Path

import pytest

import sklearn_attnembed

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
FLOORS = dict(requirement.split(">=") for requirement in PROJECT["project"]["dependencies"])
CI = (ROOT / ".ci" / "run").read_text(encoding="utf8")
BADGES = {
    "version": sklearn_attnembed.__version__,
    "python": PROJECT["project"]["requires-python"].removeprefix(">=") + "+",
    "scikit-learn": FLOORS["scikit-learn"] + "+",
    "licence": PROJECT["project"]["license"],
    "types": "mypy",
    "docstrings": "numpydoc",
}


def test_badges_are_true():
    assert set(re.findall(r"badges/([\w-]+)\.svg", README)) == set(BADGES)
    for name, value in BADGES.items():
        shown = re.findall(
            r">([^<>\n]+)</text>", (ROOT / "doc/images/badges" / f"{name}.svg").read_text(encoding="utf8")
        )
        assert set(shown) == {name, value}


@pytest.mark.parametrize(
    "command", ["bin/mypy\n", "bin/mypy --strict sklearn_attnembed/_core\n", "coverage run -m pytest"]
)
def test_what_badges_speak_of_is_checked(command):
    assert command in CI


def test_two_commands_do_all():
    commands = re.findall(r"```bash\n(.*?)\n```", README, re.DOTALL)
    assert len(commands) == 2
    assert all(command.startswith("python3 -m venv .venv && ") and "\n" not in command for command in commands)


@pytest.mark.parametrize("target", re.findall(r"(?:\]\(|src=\")([^)\"]+)", README))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()


def test_examples_have_ten_lines_at_most():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert [name for block in blocks for name in re.findall(r"from sklearn_attnembed import (\w+)", block)] == [
        "AttentionEmbedding",
        "NormalizerEstimator",
        "ExpressiveKernel",
    ]
    assert all(len(re.findall(r"^>>> ", block, re.MULTILINE)) <= 10 for block in blocks)
