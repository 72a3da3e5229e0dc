"""What all ways of running hand-written code share: its arguments, calling it, and comparing its values with the formula's."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from .calling import Argument, Setting, array_value, bound, parameters_of
from .errors import DataError
from .evidence import Point
from .judge import Subject
from .missteps import is_upstream

Results = dict[str, Any]
Fits = Callable[[str, Any, Point], bool]  # whether an output of a formula has its right value at a point


class ForwardDiffers(DataError):
    """The values of the function itself are not those of the formula."""


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


def called(function: Any, arguments: Sequence[Argument], values: Sequence[Any], pairs: Sequence[tuple[str, Any]]) -> Any:
    """The function called with these values, by position or by name."""
    positional = [v for a, v in zip(arguments, values, strict=True) if not a.by_name]
    named = {a.parameter: v for a, v in zip(arguments, values, strict=True) if a.by_name}
    if isinstance(function, np.ufunc):
        raise DataError("the function does not tell its parameters; wrap it, as in lambda x, dout: function(x)*dout")
    with np.errstate(all="ignore"):
        return guarded(lambda: function(*positional, **named), pairs)


def takes_above(arguments: Sequence[Argument]) -> bool:
    """Whether one of the arguments is what comes from above."""
    return any(a.kind == "array" and is_upstream(a.name) for a in arguments)


class Framework:
    """A function of torch or JAX with its arguments in order."""

    def __init__(self, function: Any, kind: str, subject: Subject, setting: Setting, fits: Fits, trial: Point) -> None:
        self.function, self.kind, self.subject, self.setting, self.fits = function, kind, subject, setting, fits
        self.arguments = self._arguments(trial)
        self.is_backward = takes_above(self.arguments)
        self.takes_above = True

    def parameters(self) -> list[inspect.Parameter]:
        """The parameters to find arguments for."""
        return parameters_of(self.function)

    @staticmethod
    def listed(outputs: Any) -> list[Any]:
        """One output or several, as a list."""
        return list(cast("tuple[Any, ...]", outputs)) if isinstance(outputs, (tuple, list)) else [outputs]

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
        is_open = len(parameters) == 1 and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL
        if len(inputs) > 5 or not (is_open or len(own) == len(parameters) == len(inputs)):
            return []
        orders = itertools.permutations(inputs)
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
