"""The examples in the docstrings run, and every public thing has one."""

import doctest
import importlib
import inspect
import pkgutil

import numpy as np
import pytest
import tensorflow as tf

import spectrovae

MODULES = [
    module.name
    for module in pkgutil.walk_packages(spectrovae.__path__, "spectrovae.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(name)
    names = {"np": np, "tf": tf} | {key: getattr(spectrovae, key) for key in spectrovae.__all__}
    results = doctest.testmod(module, extraglobs=names, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert not results.failed


@pytest.mark.parametrize("name", spectrovae.__all__)
def test_public_names_have_an_example(name):
    assert ">>>" in inspect.getdoc(getattr(spectrovae, name))
