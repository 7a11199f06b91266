"""What is written is true: examples in docstrings run, and documents name what exists."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import spectrovae
import spectrovae.tuning

ROOT = Path(__file__).parents[1]
PACKAGES = {"spectrovae.": spectrovae.__path__, "spectrovae.tuning.": spectrovae.tuning.__path__}
MODULES = sorted(
    {
        module.name
        for prefix, path in PACKAGES.items()
        for module in pkgutil.walk_packages(path, prefix)
        if not module.name.endswith("__main__")
    }
)
DOCUMENTS = sorted(path for path in ROOT.rglob("*.md") if not any(part.startswith(".") for part in path.parts))


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert not doctest.testmod(importlib.import_module(name), optionflags=options).failed


@pytest.mark.parametrize("name", spectrovae.__all__)
def test_public_names_have_an_example(name):
    assert ">>>" in inspect.getdoc(getattr(spectrovae, name))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_name_what_exists(path):
    text = path.read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (path.parent / target).exists(), target
    for script in re.findall(r"python ((?:examples|tests)/\S+\.py)", text):
        assert (ROOT / script).exists(), script
    for test in re.findall(r"`([\w/]*test_\w+\.py)`", text):
        assert (path.parent / test).exists() or (ROOT / test).exists(), test
    for names in re.findall(r"^from spectrovae import (.+)$", text, flags=re.MULTILINE):
        assert set(names.split(", ")) <= set(spectrovae.__all__), names


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
