"""What several tests need: the option for long sweeps, emitted modules, the oracle's values."""

import importlib.util
import itertools

import mpmath
import numpy as np
import pytest

from symbackprop import declare, derive, emit
from symbackprop.evaluate import evaluate


def pytest_addoption(parser):
    parser.addoption("--sweep", action="store_true", help="run the long form of the sweeps")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Tests neither read nor fill the cache of whoever runs them."""
    monkeypatch.setenv("SYMBACKPROP_CACHE", "")


@pytest.fixture
def sweep(request):
    return request.config.getoption("--sweep")


@pytest.fixture
def module_of(tmp_path):
    """Import the module emitted for a network (anything that derive takes)."""
    count = itertools.count()

    def load(network, **options):
        path = tmp_path / f"emitted_{next(count)}.py"
        path.write_text(emit(network, **options), encoding="utf-8")
        return import_file(path)

    return load


def import_file(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def random_targets(labels, shape, rng):
    """Targets of the right kind."""
    if labels == "one-hot":
        return np.eye(shape[-1])[rng.integers(shape[-1], size=shape[:-1])]
    if labels == "zero-one":
        return rng.integers(2, size=shape).astype(float)
    if labels == "signed":
        return rng.choice([-1.0, 1.0], size=shape)
    if labels == "count":
        return rng.integers(4, size=shape).astype(float)
    return rng.standard_normal(shape)


def cells(array):
    """An array as the interpreter's dict."""
    array = np.asarray(array)
    return {place: mpmath.mpf(float(array[place])) for place in np.ndindex(array.shape)}


def oracle(network, values, sizes, equations):
    """The interpreter's values for `equations`, as arrays of floats."""
    names = {i.name: i.size for i in network.indices}
    numbers = {i.name: sizes.get(i.name, i.number) for i in network.indices}
    constants = {n: {(): mpmath.mpf(v.p) / v.q} for n, v in network.constants}
    given = {**constants, **{k: cells(v) for k, v in values.items()}}
    functions = {f.name: f for f in network.functions}
    from symbackprop.functions import catalogue_functions

    result = evaluate(equations, given, numbers, {**catalogue_functions(), **functions}.values(), names)
    out = {}
    for name, found in result.items():
        shape = tuple(max(p[k] for p in found) + 1 for k in range(len(next(iter(found)))))
        array = np.zeros(shape)
        for place, value in found.items():
            array[place] = float(value)
        out[name] = array
    return out


__all__ = ["declare", "derive"]
