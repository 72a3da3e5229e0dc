"""Running torch code: a `torch.autograd.Function`, a module, or a function around one."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from .calling import Argument, Setting, array_value, named_results, parameters_of, value_of
from .errors import DataError
from .evidence import Point
from .judge import Subject
from .running import Fits, Framework, Results, called, guarded


class TorchCode(Framework):
    """A function or module of torch; torch differentiates what is no backward pass itself."""

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
        """The parameters of the forward pass."""
        if self.kind == "torch function":
            base: Any = self.torch.autograd.Function
            return parameters_of(self.function.forward, 1 if self.function.setup_context is base.setup_context else 0)
        return parameters_of(self.function.forward if self.kind == "torch module" else self.function)

    def __call__(self, point: Point) -> Results:
        """The results by name."""
        values = self._tensors(self.arguments, point)
        if self.is_backward:
            result = self._run(self.arguments, values)
            return {k: self._array(v) for k, v in named_results(result, self.subject, self.setting, self.arguments).items()}
        weights = {n: self._tensor(array_value(self.subject, point, name), self.wanted(name)) for n, name in self.weights.items()}
        result = self._run(self.arguments, values, weights)
        outputs = self.listed(result)
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
        """The outputs as NumPy arrays."""
        result = self._run(arguments, self._tensors(arguments, point), {})
        return [self._array(o) for o in self.listed(result)]

    def _is_scalar(self, value: Any) -> bool:
        return isinstance(value, self.torch.Tensor) and value.numel() == 1 and value.requires_grad

    def _run(self, arguments: Sequence[Argument], values: Sequence[Any], weights: dict[str, Any] | None = None) -> Any:
        pairs = [(a.parameter, v) for a, v in zip(arguments, values, strict=True)]
        if self.kind == "torch function":
            return guarded(lambda: self.function.apply(*values), pairs)
        if self.kind == "torch module" and weights:
            return guarded(lambda: self.torch.func.functional_call(self.function, weights, tuple(values)), pairs)
        return called(self.function, arguments, values, pairs)

    def _tensors(self, arguments: Sequence[Argument], point: Point) -> list[Any]:
        def tensor(a: Argument) -> Any:
            value = value_of(a, self.subject, self.setting, point)
            if isinstance(value, dict):
                return {k: self._tensor(v, self.wanted(k)) for k, v in cast(dict[str, Any], value).items()}
            return (
                self._tensor(cast("np.ndarray[Any, Any]", value), self.wanted(a.name)) if isinstance(value, np.ndarray) else value
            )

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
