"""Running hand-written code: NumPy functions, `torch.autograd.Function`, torch modules, JAX `custom_vjp`, functions around them.

Each way of running makes, at a point, the results by name. A function that takes what comes from above is a backward pass and
returns derivatives; one that does not, and is written for torch or JAX, is differentiated by torch or JAX.
"""

from __future__ import annotations

import inspect
from typing import Any, Protocol, cast

import numpy as np

from .calling import Setting, bound, named_results, parameters_of, value_of
from .errors import DataError
from .evidence import Point
from .jax_code import JaxCode
from .judge import Subject
from .notation import Network
from .running import Fits, Results, called, takes_above
from .torch_code import TorchCode


class Runner(Protocol):
    """What calls a function at a point; `takes_above` says whether the derivative from above a formula is taken into account."""

    takes_above: bool

    def __call__(self, point: Point) -> Results:
        """The results by name."""
        ...


def runner(function: Any, subject: Subject, setting: Setting, fits: Fits, trial: Point) -> Runner:
    """What calls the function at a point; `trial` is a point at which the order of arguments without known names is found."""
    kind = kind_of(function)
    if kind == "numpy":
        return _Plain(function, subject, setting)
    make = TorchCode if kind.startswith("torch") else JaxCode
    return make(function, kind, subject, setting, fits, trial)


def kind_of(function: Any) -> str:
    """What a function is written for: numpy, torch function, torch module, torch, jax."""
    if inspect.isclass(function):
        if any(c.__module__.startswith("torch.autograd") for c in function.__mro__):
            return "torch function"
        raise DataError(f"{function.__name__} is a class and no torch.autograd.Function; give the function that is to be judged")
    if any(f"{c.__module__}.{c.__name__}" == "torch.nn.modules.module.Module" for c in type(function).__mro__):
        return "torch module"
    if type(function).__module__.split(".")[0] in ("jax", "jaxlib"):
        return "jax"
    for value in _closure(function):
        module = (getattr(value, "__module__", None) or getattr(value, "__name__", "")) if value is not None else ""
        classes = [c.__module__ for c in getattr(value, "__mro__", type(value).__mro__)]
        for name in ("torch", "jax"):
            if any(str(m).split(".")[0] in (name, f"{name}lib") for m in (module, *classes)):
                return name
    return "numpy"


def sizes_of_module(function: Any, network: Network) -> dict[str, int]:
    """The sizes of letters that the parameters of a torch module have."""
    if not any(f"{c.__module__}.{c.__name__}" == "torch.nn.modules.module.Module" for c in type(function).__mro__):
        return {}
    axes = {a.name: a.axes for a in network.arrays}
    found: dict[str, int] = {}
    for own, value in function.named_parameters():
        letters = axes.get(own.replace(".", "_"), ())
        if len(letters) != value.ndim:
            raise DataError(
                f"the module's parameter '{own}' has {value.ndim} axes, and the formula writes it with {len(letters)}"
            )
        for letter, size in zip(letters, value.shape, strict=True):
            if found.setdefault(letter, int(size)) != size:
                raise DataError(f"the module's parameter '{own}' has {size} values along '{letter}', another has {found[letter]}")
    return found


def _closure(function: Any, depth: int = 2) -> list[Any]:
    """What a function refers to, and what those functions refer to."""
    try:
        inner = inspect.unwrap(getattr(function, "func", function))
        found = inspect.getclosurevars(inner)
    except (TypeError, ValueError):
        return []
    values = [*found.globals.values(), *found.nonlocals.values()]
    values += [getattr(v, "__self__", None) for v in values]
    if depth:
        for v in list(values):
            if inspect.isfunction(v):
                values += _closure(v, depth - 1)
    return values


class _Plain:
    """A NumPy function: it returns derivatives."""

    def __init__(self, function: Any, subject: Subject, setting: Setting) -> None:
        self.function, self.subject, self.setting = function, subject, setting
        self.arguments = bound(parameters_of(function), subject, setting)
        self.takes_above = takes_above(self.arguments)

    def __call__(self, point: Point) -> Results:
        pairs = [
            (a.parameter, _typed(value_of(a, self.subject, self.setting, point), self.setting.dtype)) for a in self.arguments
        ]
        result = called(self.function, self.arguments, [v for _, v in pairs], pairs)
        return named_results(result, self.subject, self.setting, self.arguments)


def _typed(value: Any, dtype: str) -> Any:
    if isinstance(value, dict):
        return {k: _typed(v, dtype) for k, v in cast(dict[str, Any], value).items()}
    array: Any = value
    if dtype == "float64" or not isinstance(value, np.ndarray):
        return array
    if dtype not in ("float32", "float16"):
        raise DataError(f"NumPy has no {dtype}; dtype= is float64, float32 or float16 for NumPy functions")
    return array if array.dtype == np.int64 else array.astype(dtype)
