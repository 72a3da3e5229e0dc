"""A backward pass that somebody wrote by hand, against the derived one: NumPy, torch, JAX.

    verify(backward, "3 -> dense(4, tanh) -> dense(2) -> squared_error")     backward(x, W1, b1, …) -> {"W1": …} or (…)
    verify(Mish, "x*tanh(log(1 + exp(x)))")                                  a Function whose forward is a formula

All that is asked for has to be there and right, at points of every kind (`trials`). What is wrong is said in the words of
claims, "dW1 is transposed", and the slip behind it is named once (`blame`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .blame import Blame
from .calling import Setting
from .check import Checker
from .errors import DataError, suggest
from .evidence import Point
from .formula_networks import formula_network, is_formula
from .frameworks import ForwardDiffers, Results, runner
from .judge import Subject
from .missteps import is_upstream
from .notation import Derivation, Network
from .trials import Trial, depends_on_sizes, generic_points, has_declared_sizes, moved, sized_subjects, trials
from .truths import Truths, array_at, set_above

# Bits of a number, how far right values may be apart (a share of the largest), and the largest number.
_TYPES: Mapping[str, tuple[int, float, float]] = {
    "float64": (52, 1e-7, 1e300),
    "float32": (23, 2e-4, 1e37),
    "bfloat16": (7, 6e-2, 1e37),
    "float16": (10, 1e-2, 6e4),
}


@dataclass(frozen=True)
class Finding:
    """What became of one result: its name, whether it is right, what is wrong (or remarkable), and the result it follows from."""

    name: str
    right: bool
    reason: str = ""
    follows: str = ""

    def __str__(self) -> str:
        if self.follows:
            return f"{self.name}: wrong, which follows from {self.follows}"
        if self.right:
            return f"{self.name}: right{' ' + self.reason if self.reason else ''}"
        return self.reason


@dataclass(frozen=True)
class Verification:
    """The findings of `verify`; true where everything is right, and printed for people."""

    findings: tuple[Finding, ...]
    note: str = ""

    def __bool__(self) -> bool:
        return bool(self.findings) and all(f.right for f in self.findings)

    def __str__(self) -> str:
        return "\n".join([*map(str, self.findings), *([f"({self.note})"] if self.note else [])])


def verify(
    function: Any,
    network: Derivation | Network | str | Path | Mapping[str, Any],
    wrt: Sequence[str] = (),
    *,
    arguments: Sequence[str] = (),
    constants: Mapping[str, Any] | None = None,
    sizes: Mapping[str, int] | None = None,
    dtype: str = "float64",
    device: str = "cpu",
    rtol: float | None = None,
) -> Verification:
    """Compare a hand-written backward pass with the derived one.

    `function` is a NumPy function, a `torch.autograd.Function`, a torch module, a JAX `custom_vjp`, or a function around one;
    `network` anything that `derive` takes, or a formula such as "x*sigmoid(x)" whose inputs are the names in it. Parameters are
    arrays by name (`x`, `W1`, `a1` for stored values, `dz2`, and `dout` for what comes from above a formula; `params`, `X`, `Y`),
    or in the order of `arguments`; results are a dict by name or a tuple in the order of `wrt` (all parameters by default, or the
    formula's inputs), with the loss before them or second derivatives behind them. Without what comes from above, a formula's
    results are its Jacobian. `constants` are numbers by name, for the formula and for the function; `sizes` the sizes of letters;
    `rtol` how far values may be apart, as a share of the largest. Raises `DataError` for what is not understood.
    """
    if dtype not in _TYPES:
        raise DataError(f"'{dtype}' is no type for verify; known: {', '.join(_TYPES)}")
    numbers = {n: v for n, v in (constants or {}).items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    outputs: tuple[str, ...] = ()
    upstream: Mapping[str, str] = {}
    if isinstance(network, str) and is_formula(network):
        formula = formula_network(network, numbers, sizes or {})
        network, outputs, upstream = formula.network, formula.outputs, formula.upstream
    elif sizes:
        raise DataError("sizes= is for formulas; a network declares its sizes itself")
    derivation = Checker(network).subject.derivation
    wanted = _wanted(derivation, tuple(wrt), bool(upstream))
    setting = Setting(wanted, bool(wrt), tuple(arguments), constants or {}, dtype, device, outputs, upstream)
    return _Verifying(function, derivation, setting, rtol).findings()


def assert_formula(network: Derivation | Network | str | Path | Mapping[str, Any], claim: str, notation: str = "") -> None:
    """For tests: raise `AssertionError`, with what is wrong, unless a claim about a network holds."""
    verdict = Checker(network).check(claim, notation)
    if verdict.verdict not in ("proved", "agrees"):
        raise AssertionError(str(verdict))


def _wanted(derivation: Derivation, wrt: tuple[str, ...], formula: bool) -> tuple[str, ...]:
    network = derivation.network
    if not wrt:
        role = "input" if formula else "parameter"
        wrt = tuple(a.name for a in network.arrays if a.role == role and not is_upstream(a.name) and a.name in derivation.adjoints)
        if not wrt:
            raise DataError("the network has no parameters; say with wrt= by which arrays the function differentiates")
    aliases = dict(network.aliases)
    wrt = tuple(aliases.get(n, n) for n in wrt)
    for n in wrt:
        if n not in derivation.adjoints:
            raise DataError(f"there is no array '{n}' to differentiate by{suggest(n, derivation.adjoints)}")
    return wrt


class _Verifying:
    """One function at all points."""

    def __init__(self, function: Any, derivation: Derivation, setting: Setting, rtol: float | None) -> None:
        self.function, self.derivation, self.setting = function, derivation, setting
        self.bits, tolerance, self.largest = _TYPES[setting.dtype]
        self.tolerance = rtol if rtol is not None else tolerance
        self.inputs = [a.name for a in derivation.network.arrays if a.role == "input"]
        self.subjects = sized_subjects(derivation, declared=True)
        self.points = generic_points(self.subjects, self.bits)
        self.call = runner(function, self.subjects[0], setting, self._fits, self.points[0])
        self.is_plain = bool(setting.upstream) and not self.call.takes_above
        self.truths = Truths(derivation, setting.outputs, list(setting.upstream.values()), self.is_plain)

    def _fits(self, output: str, value: Any, point: Point) -> bool:
        truth = array_at(point, output)
        return not np.all(np.isfinite(truth)) or self._close(value, truth)

    def _close(self, value: Any, truth: np.ndarray) -> bool:
        value = np.asarray(value, dtype=float)
        if value.shape != truth.shape:
            return False
        scale = float(np.abs(truth).max(initial=0))
        # What cancels to zero comes out as rounding noise.
        scale = scale if scale > 200 * 2.0**-self.bits else 1e-4
        return bool(np.all(np.isfinite(value)) and np.abs(value - truth).max(initial=0) <= self.tolerance * scale)

    def results(self, point: Point) -> Results:
        """The results at a point; what is asked for and not there is None."""
        if self.is_plain:
            set_above(point, self.inputs)
        found = {k: None if v is None else _array(k, v) for k, v in self.call(point).items()}
        return {f"d{n}": None for n in self.setting.wanted} | found

    # ------------------------------------------------------------------ judging

    def findings(self) -> Verification:
        """The verdict on each result."""
        try:
            results = [self.results(p) for p in self.points]
        except ForwardDiffers as problem:
            raise DataError(problem.message) from None
        missing = [n for n in results[0] if any(r.get(n) is None for r in results)]
        found: dict[str, Finding] = {}
        for name in missing:
            if not all(self._is_zero(name, p) for p in self.points):
                found[name] = Finding(name, False, f"{name} is missing")
        given = [n for n in results[0] if n not in missing]
        values = {n: [r[n] for r in results] for n in given}
        truths = {n: [self.truths.of(n, v, p) for v, p in zip(values[n], self.points, strict=True)] for n in given}
        wrong = [n for n in given if not all(self._close(v, t) for v, t in zip(values[n], truths[n], strict=True))]
        found |= {n: f for n, f in self._explained(wrong, values, truths).items()}
        note = self._note()
        right = [n for n in results[0] if n not in found]
        if not found:
            for trial in trials(self.subjects[0], self.bits):
                for name, finding in self._tried(trial).items():
                    if name not in found or (found[name].right and not finding.right):
                        found[name] = finding
                if any(not f.right for f in found.values()):
                    break
        every = {n: found.get(n) or Finding(n, True) for n in [*results[0], *right]}
        return Verification(tuple(every.values()), note)

    def _note(self) -> str:
        if self.setting.dtype == "float64":
            return ""
        return f"in {self.setting.dtype}, within a share of {self.tolerance:g} of the largest value"

    def _is_zero(self, name: str, point: Point) -> bool:
        adjoint = self.derivation.adjoints.get(name[1:])
        return adjoint is not None and not np.any(array_at(point, adjoint))

    def _tried(self, trial: Trial) -> dict[str, Finding]:
        """What is wrong at one of the later points."""
        try:
            results = self.results(trial.point)
        except ForwardDiffers:
            return {}  # where the forward pass overflows, there is nothing to compare
        found: dict[str, Finding] = {}
        for name, value in results.items():
            if value is None:
                continue
            truth = self.truths.of(name, value, trial.point)
            if not np.all(np.abs(truth) < self.largest) or self._close(value, truth):
                continue
            if not np.all(np.isfinite(value)):
                found[name] = self._not_finite(name, trial)
            elif trial.kind != "zero" or not self._is_subgradient(name, value, trial):
                found[name] = Finding(name, False, f"{name} is wrong where {trial.words}")
        return found

    def _not_finite(self, name: str, trial: Trial) -> Finding:
        """Code that is right where it is finite: from where on it is not."""
        if trial.kind != "large":
            return Finding(name, False, f"{name} is not finite where {trial.words}")
        sign = -1.0 if "negative" in trial.words else 1.0
        low, high = 1.0, 800.0
        for _ in range(12):
            middle = (low + high) / 2
            try:
                value = self.results(moved(self.subjects[0], trial.array, sign * middle, self.bits))[name]
                finite = value is not None and bool(np.all(np.isfinite(value)))
            except DataError:
                finite = False
            low, high = (middle, high) if finite else (low, middle)
        words = f"where it is finite; overflows from {trial.array} = {sign * high:.3g}: it is not finite where {trial.words}"
        return Finding(name, True, words)

    def _is_subgradient(self, name: str, value: np.ndarray, trial: Trial) -> bool:
        """Whether a value at a kink lies between the derivatives on both sides."""
        sides: list[np.ndarray] = []
        for shift in (1e-9, -1e-9):
            point = moved(self.subjects[0], trial.array, shift, self.bits)
            if self.is_plain:
                set_above(point, self.inputs)
            sides.append(self.truths.of(name, value, point))
        low, high = np.minimum(*sides), np.maximum(*sides)
        slack = 10 * self.tolerance * max(float(np.abs(high).max(initial=0)), float(np.abs(low).max(initial=0)), 1e-12)
        return bool(np.all(value >= low - slack) and np.all(value <= high + slack)) and not np.allclose(low, high, atol=slack)

    # ------------------------------------------------------------------ explaining

    def _explained(
        self, wrong: Sequence[str], values: Mapping[str, list[np.ndarray]], truths: Mapping[str, list[np.ndarray]]
    ) -> dict[str, Finding]:
        found: dict[str, Finding] = {}
        searched: list[str] = []
        for name in wrong:
            words = self._shape_words(name, values[name], truths[name])
            if words is not None:
                found[name] = Finding(name, False, words)
            elif name[1:] in self.derivation.adjoints and not self.is_plain:
                searched.append(name)
            else:
                found[name] = Finding(name, False, self._plain_words(name, values[name], truths[name]))
        if searched:
            found |= self._blamed(searched, values, truths)
        return {n: found[n] for n in wrong}

    def _blamed(
        self, wrong: Sequence[str], values: Mapping[str, list[np.ndarray]], truths: Mapping[str, list[np.ndarray]]
    ) -> dict[str, Finding]:
        subject, points = self.subjects[0], self.points
        if (generic := self._elsewhere(wrong)) is not None:
            subject, points, values, truths = generic
        own = [n for n in values if n[1:] in self.derivation.adjoints and not (n[:2] == "d2" and n[2:] in self.derivation.adjoints)]
        own = [n for n in own if all(v.shape == t.shape for v, t in zip(values[n], truths[n], strict=True))]
        blame = Blame(
            subject.names, points, {n[1:]: values[n] for n in own}, {n[1:]: truths[n] for n in own}, self.tolerance
        )
        causes = blame.causes([n[1:] for n in wrong])
        found: dict[str, Finding] = {}
        for name in wrong:
            cause = causes.get(name[1:])
            if cause is None:
                found[name] = Finding(name, False, f"{name} is wrong")
            elif cause.root == name[1:]:
                found[name] = Finding(name, False, f"{name}: {cause.words}")
            else:
                found[name] = Finding(name, False, f"{name}: {cause.words}", f"d{cause.root}")
        return found

    def _elsewhere(
        self, wrong: Sequence[str]
    ) -> tuple[Subject, list[Point], dict[str, list[np.ndarray]], dict[str, list[np.ndarray]]] | None:
        """The same with sizes that are all unlike, where the function runs with these and is wrong in the same results."""
        network = self.derivation.network
        if not has_declared_sizes(network) or depends_on_sizes(network):
            return None
        subjects = sized_subjects(self.derivation, declared=False)
        try:
            points = generic_points(subjects, self.bits)
            results = [self.results(p) for p in points]
        except DataError:
            return None
        values = {n: [r[n] for r in results] for n in results[0] if all(r.get(n) is not None for r in results)}
        truths = {n: [self.truths.of(n, v, p) for v, p in zip(values[n], points, strict=True)] for n in values}
        now = [n for n in values if not all(self._close(v, t) for v, t in zip(values[n], truths[n], strict=True))]
        fits = all(v.shape == t.shape for n in wrong if n in values for v, t in zip(values[n], truths[n], strict=True))
        return (subjects[0], points, values, truths) if set(now) == set(wrong) and fits else None

    def _shape_words(self, name: str, values: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> str | None:
        value, truth = values[0], truths[0]
        if value.shape == truth.shape:
            return None if all(np.all(np.isfinite(v)) for v in values) else f"{name} is not finite"

        def mends(change: Callable[[np.ndarray], np.ndarray]) -> bool:
            return all(self._close(change(v), t) for v, t in zip(values, truths, strict=True))

        if value.ndim > 1 and mends(np.transpose):
            return f"{name} is transposed"
        for axis in range(value.ndim):
            for kind, change in (("sum", np.sum), ("mean", np.mean)):
                if mends(lambda v, axis=axis, change=change: change(v, axis=axis)):
                    return f"{name}: the {kind} over axis {axis} is missing"
        if all(v.size == t.size and self._close(v.reshape(t.shape), t) for v, t in zip(values, truths, strict=True)):
            return f"{name} has the shape {value.shape}, not {truth.shape}; its values are right"
        axes = self.subjects[0].names.axes.get(name[1:], ())
        sizes = "×".join(self.subjects[0].names.size_of[i] for i in axes) or "a number"
        return f"{name} has the shape {value.shape}, not {truth.shape}{'' if self.is_plain else ': ' + sizes}"

    def _plain_words(self, name: str, values: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> str:
        """What is wrong with a loss, a Jacobian or a Hessian."""
        for words, change in (
            ("the sign is the other way round", lambda v: -v),
            ("a factor 2 is missing", lambda v: 2 * v),
            ("there is a factor 2 too many", lambda v: v / 2),
        ):
            if all(self._close(change(v), t) for v, t in zip(values, truths, strict=True)):
                return f"{name}: {words}"
        return f"{name} is wrong"


def _array(name: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise DataError(f"the result {name} is no array of numbers: {type(value).__name__}") from None


__all__ = ["Finding", "Verification", "assert_formula", "verify"]
