"""Running JAX code: a `custom_vjp`, or a function around one."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from .calling import Argument, Setting, named_results, value_of
from .errors import DataError
from .evidence import Point
from .judge import Subject
from .running import Fits, Framework, Results, called, guarded


class JaxCode(Framework):
    """A function of JAX; JAX differentiates what is no backward pass itself."""

    def __init__(self, function: Any, kind: str, subject: Subject, setting: Setting, fits: Fits, trial: Point) -> None:
        self.jax: Any = importlib.import_module("jax")  # an extra: only for those who bring a JAX function
        if not hasattr(self.jax.numpy, setting.dtype):
            raise DataError(f"JAX has no type '{setting.dtype}'; dtype= is float64, float32, bfloat16 or float16")
        with self.jax.enable_x64(True):
            super().__init__(function, kind, subject, setting, fits, trial)

    def __call__(self, point: Point) -> Results:
        """The results by name."""
        with self.jax.enable_x64(True):
            return self._results(point)

    def _results(self, point: Point) -> Results:
        values = self._values(self.arguments, point)
        pairs = [(a.parameter, v) for a, v in zip(self.arguments, values, strict=True)]
        if self.is_backward:
            return self._named(called(self.function, self.arguments, values, pairs))
        places = [k for k, a in enumerate(self.arguments) if a.kind == "array" and self.wanted(a.name)]

        def varied(*own: Any) -> Any:
            every = list(values)
            for k, v in zip(places, own, strict=True):
                every[k] = v
            return called(self.function, self.arguments, every, pairs)

        outputs = varied(*(values[k] for k in places))
        several = self.listed(outputs)
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
        """The outputs as NumPy arrays."""
        values = self._values(arguments, point)
        pairs = [(a.parameter, v) for a, v in zip(arguments, values, strict=True)]
        result = called(self.function, arguments, values, pairs)
        return [self._array(o) for o in self.listed(result)]

    def _values(self, arguments: Sequence[Argument], point: Point) -> list[Any]:
        def value(a: Argument) -> Any:
            found = value_of(a, self.subject, self.setting, point)
            if isinstance(found, dict):
                return {k: self._typed(v) for k, v in cast(dict[str, Any], found).items()}
            return self._typed(cast("np.ndarray[Any, Any]", found)) if isinstance(found, np.ndarray) else found

        return [value(a) for a in arguments]

    def _typed(self, value: np.ndarray) -> Any:
        return self.jax.numpy.asarray(value, dtype="int64" if value.dtype == np.int64 else self.setting.dtype)

    def _array(self, value: Any) -> Any:
        return value if value is None else np.asarray(value, dtype=float)
