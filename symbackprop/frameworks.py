"""Running hand-written code: NumPy functions, `torch.autograd.Function`, torch modules, JAX `custom_vjp`, functions around them.

Each way of running makes, at a point, the results by name. A function that takes what comes from above is a backward pass and
returns derivatives; one that does not, and is written for torch or JAX, is differentiated by torch or JAX.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import numpy as np

from .calling import Argument, Setting, array_value, bound, named_results, parameters_of, value_of
from .errors import DataError
from .evidence import Point
from .judge import Subject
from .missteps import is_upstream
from .notation import Network

Results = dict[str, Any]
Fits = Callable[[str, Any, Point], bool]  # whether an output of a formula has its right value at a point


class ForwardDiffers(DataError):
    """The values of the function itself are not those of the formula."""


class Runner(Protocol):
    """What calls a function at a point; `takes_above` says whether the derivative from above a formula is taken into account."""

    takes_above: bool

    def __call__(self, point: Point) -> Results: ...


def runner(function: Any, subject: Subject, setting: Setting, fits: Fits, trial: Point) -> Runner:
    """What calls the function at a point; `trial` is a point at which the order of arguments without known names is found."""
    kind = kind_of(function)
    if kind == "numpy":
        return _Plain(function, subject, setting)
    make = _Torch if kind.startswith("torch") else _Jax
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


def guarded(call: Callable[[], Any], arguments: Sequence[tuple[str, Any]]) -> Any:
    """Somebody's function, called; whatever it raises becomes a `DataError` that says with what it was called."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception as problem:
        shapes = ", ".join(f"{n}: {'×'.join(map(str, v.shape)) or 'a number'}" for n, v in arguments if hasattr(v, "shape"))
        first = str(problem).strip().splitlines()
        raise DataError(
            f"the function fails: {type(problem).__name__}: {first[0] if first else 'no message'} (called with {shapes}); if its "
            "code needs certain sizes or types, declare them: sizes={'k': 4}, dtype='float32', constants={…}, arguments=[…]"
        ) from problem


class _Plain:
    """A NumPy function: it returns derivatives."""

    def __init__(self, function: Any, subject: Subject, setting: Setting) -> None:
        self.function, self.subject, self.setting = function, subject, setting
        self.arguments = bound(parameters_of(function), subject, setting)
        self.takes_above = takes_above(self.arguments)

    def __call__(self, point: Point) -> Results:
        pairs = [(a.parameter, _typed(value_of(a, self.subject, point), self.setting.dtype)) for a in self.arguments]
        result = _called(self.function, self.arguments, [v for _, v in pairs], pairs)
        return named_results(result, self.subject, self.setting, self.arguments)


def takes_above(arguments: Sequence[Argument]) -> bool:
    """Whether one of the arguments is what comes from above."""
    return any(a.kind == "array" and is_upstream(a.name) for a in arguments)


def _typed(value: Any, dtype: str) -> Any:
    if isinstance(value, dict):
        return {k: _typed(v, dtype) for k, v in cast(dict[str, Any], value).items()}
    if isinstance(value, np.ndarray) and value.dtype == np.float64 and dtype != "float64":
        if dtype not in ("float32", "float16"):
            raise DataError(f"NumPy has no {dtype}; dtype= is float64, float32 or float16 for NumPy functions")
        return value.astype(dtype)
    return value


def _called(function: Any, arguments: Sequence[Argument], values: Sequence[Any], pairs: Sequence[tuple[str, Any]]) -> Any:
    positional = [v for a, v in zip(arguments, values, strict=True) if not a.by_name]
    named = {a.parameter: v for a, v in zip(arguments, values, strict=True) if a.by_name}
    if isinstance(function, np.ufunc):
        raise DataError("the function does not tell its parameters; wrap it, as in lambda x, dout: function(x)*dout")
    with np.errstate(all="ignore"):
        return guarded(lambda: function(*positional, **named), pairs)


# ---------------------------------------------------------------------- what torch and JAX have in common


class _Framework:
    """A function of torch or JAX with its arguments in order."""

    def __init__(self, function: Any, kind: str, subject: Subject, setting: Setting, fits: Fits, trial: Point) -> None:
        self.function, self.kind, self.subject, self.setting, self.fits = function, kind, subject, setting, fits
        self.arguments = self._arguments(trial)
        self.is_backward = takes_above(self.arguments)
        self.takes_above = True

    def parameters(self) -> list[inspect.Parameter]:
        """The parameters to find arguments for."""
        return parameters_of(self.function)

    def forward(self, arguments: Sequence[Argument], point: Point) -> list[Any]:
        """The outputs as NumPy arrays."""
        raise NotImplementedError

    def _arguments(self, trial: Point) -> list[Argument]:
        parameters = self.parameters()
        try:
            return bound(parameters, self.subject, self.setting)
        except DataError:
            if self.setting.arguments or not self.setting.upstream:
                raise
            fitting = [a for a in self._orders(parameters) if self._is_forward(a, trial)]
            if len(fitting) != 1:
                raise
            return fitting[0]

    def _orders(self, parameters: Sequence[inspect.Parameter]) -> list[list[Argument]]:
        """The orders in which a formula's inputs can stand for parameters whose names say nothing."""
        network = self.subject.derivation.network
        inputs = [a.name for a in network.arrays if a.role == "input" and not is_upstream(a.name)]
        own = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if len(own) == len(parameters) == len(inputs) and len(inputs) <= 5:
            orders = itertools.permutations(inputs)
        elif len(parameters) == 1 and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL and len(inputs) <= 5:
            orders = itertools.permutations(inputs)
        else:
            return []
        return [[Argument(n, "array", n) for n in order] for order in orders]

    def _is_forward(self, arguments: list[Argument], trial: Point) -> bool:
        try:
            outputs = self.forward(arguments, trial)
        except DataError:
            return False
        return all(self.fits(n, v, trial) for n, v in zip(self._outputs(), outputs, strict=False))

    def _outputs(self) -> tuple[str, ...]:
        return self.setting.outputs or (self.subject.derivation.network.loss,)

    def check_forward(self, outputs: Sequence[Any], point: Point) -> None:
        """Raise `ForwardDiffers` where an output is not the formula's."""
        names = self._outputs()
        if len(outputs) < len(names):
            raise DataError(f"the function returns {len(outputs)} outputs, and the formula has {len(names)}: {', '.join(names)}")
        for name, value in zip(names, outputs, strict=False):
            if not self.fits(name, value, point):
                raise ForwardDiffers("the forward pass differs from the formula: its derivative cannot be compared")

    def above(self, point: Point) -> list[np.ndarray]:
        """What comes from above each output that the formula has."""
        upstream = self.setting.upstream
        return [array_value(self.subject, point, upstream[o]) if o in upstream else np.ones(()) for o in self._outputs()]

    def wanted(self, name: str) -> bool:
        """Whether the derivative by an argument is asked for."""
        return name in self.setting.wanted


# ---------------------------------------------------------------------- torch


class _Torch(_Framework):
    def __init__(self, function: Any, kind: str, subject: Subject, setting: Setting, fits: Fits, trial: Point) -> None:
        self.torch: Any = importlib.import_module("torch")  # an extra: only for those who bring a torch function
        self.type = getattr(self.torch, setting.dtype, None)
        if not isinstance(self.type, self.torch.dtype):
            raise DataError(f"torch has no type '{setting.dtype}'; dtype= is float64, float32, bfloat16 or float16")
        self.weights: dict[str, str] = {}
        if kind == "torch module":
            known = {a.name for a in subject.derivation.network.arrays}
            for own, _ in function.named_parameters():
                name = own.replace(".", "_")
                if name not in known:
                    raise DataError(f"the module's parameter '{own}' is no array of the formula; write it as {name}[…]")
                self.weights[own] = name
        super().__init__(function, kind, subject, setting, fits, trial)

    def parameters(self) -> list[inspect.Parameter]:
        if self.kind == "torch function":
            base: Any = self.torch.autograd.Function
            return parameters_of(self.function.forward, 1 if self.function.setup_context is base.setup_context else 0)
        return parameters_of(self.function.forward if self.kind == "torch module" else self.function)

    def __call__(self, point: Point) -> Results:
        values = self._tensors(self.arguments, point)
        if self.is_backward:
            result = self._run(self.arguments, values)
            return {k: self._array(v) for k, v in named_results(result, self.subject, self.setting, self.arguments).items()}
        weights = {n: self._tensor(array_value(self.subject, point, name), self.wanted(name)) for n, name in self.weights.items()}
        result = self._run(self.arguments, values, weights)
        outputs = list(cast(tuple[Any, ...], result)) if isinstance(result, (tuple, list)) else [result]
        if not self.setting.upstream and not (len(outputs) == 1 and self._is_scalar(outputs[0])):
            return {k: self._array(v) for k, v in named_results(result, self.subject, self.setting, self.arguments).items()}
        self.check_forward([self._array(o) for o in outputs], point)
        leaves = {a.name: v for a, v in zip(self.arguments, values, strict=True) if a.kind == "array" and self.wanted(a.name)}
        leaves |= {name: weights[n] for n, name in self.weights.items() if self.wanted(name)}
        above = [self._tensor(v, False) for v in self.above(point)]
        used = [(o, g) for o, g in zip(outputs, above, strict=False) if o.requires_grad]
        if not used:
            raise DataError("the outputs do not depend on the inputs for torch: the function detaches them")
        found = guarded(
            lambda: self.torch.autograd.grad(
                [o for o, _ in used], list(leaves.values()), [g for _, g in used], allow_unused=True
            ),
            list(leaves.items()),
        )
        return {f"d{n}": self._array(g) for n, g in zip(leaves, found, strict=True)}

    def forward(self, arguments: Sequence[Argument], point: Point) -> list[Any]:
        result = self._run(arguments, self._tensors(arguments, point), {})
        return [self._array(o) for o in (result if isinstance(result, (tuple, list)) else [result])]

    def _is_scalar(self, value: Any) -> bool:
        return isinstance(value, self.torch.Tensor) and value.numel() == 1 and value.requires_grad

    def _run(self, arguments: Sequence[Argument], values: Sequence[Any], weights: dict[str, Any] | None = None) -> Any:
        pairs = [(a.parameter, v) for a, v in zip(arguments, values, strict=True)]
        if self.kind == "torch function":
            return guarded(lambda: self.function.apply(*values), pairs)
        if self.kind == "torch module" and weights:
            return guarded(lambda: self.torch.func.functional_call(self.function, weights, tuple(values)), pairs)
        return _called(self.function, arguments, values, pairs)

    def _tensors(self, arguments: Sequence[Argument], point: Point) -> list[Any]:
        def tensor(a: Argument) -> Any:
            value = value_of(a, self.subject, point)
            if isinstance(value, dict):
                return {k: self._tensor(v, self.wanted(k)) for k, v in cast(dict[str, Any], value).items()}
            return self._tensor(value, self.wanted(a.name)) if isinstance(value, np.ndarray) else value

        return [tensor(a) for a in arguments]

    def _tensor(self, value: np.ndarray, needed: bool) -> Any:
        whole = value.dtype == np.int64
        kind = self.torch.int64 if whole else self.type
        try:
            made = self.torch.tensor(value, dtype=kind, device=self.setting.device)
        except (RuntimeError, AssertionError) as problem:
            raise DataError(f"torch makes no array on the device '{self.setting.device}': {problem}") from problem
        return made.requires_grad_(needed and not whole)

    def _array(self, value: Any) -> Any:
        return value.detach().to("cpu", self.torch.float64).numpy() if isinstance(value, self.torch.Tensor) else value


# ---------------------------------------------------------------------- JAX


class _Jax(_Framework):
    def __init__(self, function: Any, kind: str, subject: Subject, setting: Setting, fits: Fits, trial: Point) -> None:
        self.jax: Any = importlib.import_module("jax")  # an extra: only for those who bring a JAX function
        if not hasattr(self.jax.numpy, setting.dtype):
            raise DataError(f"JAX has no type '{setting.dtype}'; dtype= is float64, float32, bfloat16 or float16")
        with self.jax.enable_x64(True):
            super().__init__(function, kind, subject, setting, fits, trial)

    def __call__(self, point: Point) -> Results:
        with self.jax.enable_x64(True):
            return self._results(point)

    def _results(self, point: Point) -> Results:
        values = self._values(self.arguments, point)
        pairs = [(a.parameter, v) for a, v in zip(self.arguments, values, strict=True)]
        if self.is_backward:
            return self._named(_called(self.function, self.arguments, values, pairs))
        places = [k for k, a in enumerate(self.arguments) if a.kind == "array" and self.wanted(a.name)]

        def varied(*own: Any) -> Any:
            every = list(values)
            for k, v in zip(places, own, strict=True):
                every[k] = v
            return _called(self.function, self.arguments, every, pairs)

        outputs = varied(*(values[k] for k in places))
        several = list(cast(tuple[Any, ...], outputs)) if isinstance(outputs, (tuple, list)) else [outputs]
        if not self.setting.upstream and not (len(several) == 1 and np.ndim(several[0]) == 0):
            return self._named(outputs)
        self.check_forward([self._array(o) for o in several], point)
        _, back = guarded(lambda: self.jax.vjp(varied, *(values[k] for k in places)), pairs)
        above = self.above(point)
        seeds = [self._typed(above[k]) if k < len(above) else self.jax.numpy.zeros_like(o) for k, o in enumerate(several)]
        seed: Any = type(cast(Any, outputs))(seeds) if isinstance(outputs, (tuple, list)) else seeds[0]
        found = guarded(lambda: back(seed), pairs)
        return {f"d{self.arguments[k].name}": self._array(g) for k, g in zip(places, found, strict=True)}

    def _named(self, result: Any) -> Results:
        return {k: self._array(v) for k, v in named_results(result, self.subject, self.setting, self.arguments).items()}

    def forward(self, arguments: Sequence[Argument], point: Point) -> list[Any]:
        values = self._values(arguments, point)
        pairs = [(a.parameter, v) for a, v in zip(arguments, values, strict=True)]
        result = _called(self.function, arguments, values, pairs)
        return [self._array(o) for o in (result if isinstance(result, (tuple, list)) else [result])]

    def _values(self, arguments: Sequence[Argument], point: Point) -> list[Any]:
        def value(a: Argument) -> Any:
            found = value_of(a, self.subject, point)
            if isinstance(found, dict):
                return {k: self._typed(v) for k, v in cast(dict[str, Any], found).items()}
            return self._typed(found) if isinstance(found, np.ndarray) else found

        return [value(a) for a in arguments]

    def _typed(self, value: np.ndarray) -> Any:
        return self.jax.numpy.asarray(value, dtype="int64" if value.dtype == np.int64 else self.setting.dtype)

    def _array(self, value: Any) -> Any:
        return value if value is None else np.asarray(value, dtype=float)
