"""Hand-written code at all points: which of its results are right, and what is said about the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .blame import Blame
from .calling import Setting
from .errors import DataError
from .evidence import Point
from .frameworks import runner
from .judge import Subject
from .misshapen import ratio_words, shape_words
from .notation import Derivation
from .running import ForwardDiffers, Results
from .trials import Grid, Trial, depends_on_sizes, generic_points, has_declared_sizes, moved, sized_subjects, trials
from .truths import Truths, array_at

Values = Mapping[str, list[np.ndarray]]  # of each result, at each point

# Bits of a number, how far right values may be apart (a share of the largest), and the largest number.
TYPES: Mapping[str, tuple[int, float, float]] = {
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


class Handwritten:
    """One function at all points."""

    def __init__(self, function: Any, derivation: Derivation, setting: Setting, rtol: float | None) -> None:
        self.function, self.derivation, self.setting = function, derivation, setting
        self.bits, tolerance, self.largest = TYPES[setting.dtype]
        self.tolerance = rtol if rtol is not None else tolerance
        self.subjects = sized_subjects(derivation, declared=True)
        self.grid = Grid(self.bits)
        self.points = generic_points(self.subjects, self.grid)
        self.call = runner(function, self.subjects[0], setting, self._fits, self.points[0])
        if derivation.network.labels == "one-hot" and self._wants_classes():
            self.grid = Grid(self.bits, one_hot=True)
            self.points = generic_points(self.subjects, self.grid)
            self.call = runner(function, self.subjects[0], replace(setting, classes=True), self._fits, self.points[0])
        self.is_plain = bool(setting.upstream) and not self.call.takes_above
        self.truths = Truths(derivation, setting.outputs, list(setting.upstream.values()), self.is_plain)

    def _wants_classes(self) -> bool:
        """Whether the function takes classes by their numbers: it fails with vectors of labels, and not with numbers."""
        try:
            self.call(self.points[0])
        except ForwardDiffers:
            return False
        except DataError:
            setting = replace(self.setting, classes=True)
            try:
                runner(self.function, self.subjects[0], setting, self._fits, self.points[0])(self.points[0])
            except DataError:
                return False
            return True
        return False

    def _fits(self, output: str, value: Any, point: Point) -> bool:
        truth = array_at(point, output)
        return not np.all(np.isfinite(truth)) or self._close(value, truth)

    def _close(self, value: Any, truth: np.ndarray, largest: float = 1.0) -> bool:
        value = np.asarray(value, dtype=float)
        if value.shape != truth.shape:
            return False
        scale = float(np.abs(truth).max(initial=0))
        # What cancels, or is zero, comes out as rounding noise.
        noise = 16 * largest * 2.0 ** -(self.bits + 1)
        allowed = self.tolerance * (scale if scale > 200 * 2.0**-self.bits else 1e-4) + noise
        return bool(np.all(np.isfinite(value)) and np.abs(value - truth).max(initial=0) <= allowed)

    def _all_close(self, values: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> bool:
        return all(self._close(v, t) for v, t in zip(values, truths, strict=True))

    def results(self, point: Point) -> Results:
        """The results at a point; what is asked for and not there is None."""
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
        wrong = [n for n in given if not self._all_close(values[n], truths[n])]
        found |= {n: f for n, f in self._explained(wrong, values, truths).items()}
        note = self._note()
        right = [n for n in results[0] if n not in found]
        if not found:
            for trial in trials(self.subjects[0], self.grid):
                found |= {n: f for n, f in self._tried(trial).items() if n not in found or not f.right}
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
        except DataError as problem:
            names = [f"d{n}" for n in self.setting.wanted]
            first = Finding(names[0], False, f"where {trial.words}, {problem.message}")
            return {n: Finding(n, False, first.reason, names[0]) for n in names} | {names[0]: first}
        found: dict[str, Finding] = {}
        wrong: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        largest = 1000.0 if trial.kind == "large" else 1.0
        for name, value in results.items():
            if value is None:
                if not self._is_zero(name, trial.point):
                    found[name] = Finding(name, False, f"{name} is missing where {trial.words}")
                continue
            truth = self.truths.of(name, value, trial.point)
            if not np.all(np.abs(truth) < self.largest) or self._close(value, truth, largest):
                continue
            finite = np.isfinite(value)
            if value.shape == truth.shape and not finite.all() and self._close(value[finite], truth[finite], largest):
                found[name] = self._not_finite(name, trial)
            elif trial.kind != "zero" or not self._is_subgradient(name, value, trial):
                wrong[name] = value, truth
        return found | self._wrong_there(trial, wrong)

    def _wrong_there(self, trial: Trial, wrong: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Finding]:
        """Results that are right at generic points and wrong at a special one, with the cause where one shows itself."""
        plain = {n: f"{n} is wrong where {trial.words}" for n in wrong}
        own = {n: p for n, p in wrong.items() if n[1:] in self.derivation.adjoints and p[0].shape == p[1].shape}
        if not own or self.is_plain or not all(np.all(np.isfinite(v)) for v, _ in own.values()):
            return {n: Finding(n, False, words) for n, words in plain.items()}
        values = {n[1:]: [v] for n, (v, _) in own.items()}
        truths = {n[1:]: [t] for n, (_, t) in own.items()}
        blame = Blame(self.subjects[0].names, [trial.point], values, truths, self.tolerance)
        causes = blame.causes([n[1:] for n in own])
        return {
            n: Finding(n, False, f"{words}: {causes[n[1:]].words}" if n[1:] in causes else words) for n, words in plain.items()
        }

    def _not_finite(self, name: str, trial: Trial) -> Finding:
        """Code that is right where it is finite: from where on it is not."""
        if trial.kind != "large":
            return Finding(name, False, f"{name} is not finite where {trial.words}")
        sign = -1.0 if "negative" in trial.words else 1.0
        low, high = 1.0, 800.0
        for _ in range(12):
            middle = (low + high) / 2
            try:
                value = self.results(moved(self.subjects[0], trial.array, sign * middle, self.grid))[name]
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
            point = moved(self.subjects[0], trial.array, shift, self.grid)
            sides.append(self.truths.of(name, value, point))
        low, high = np.minimum(*sides), np.maximum(*sides)
        slack = 10 * self.tolerance * max(float(np.abs(high).max(initial=0)), float(np.abs(low).max(initial=0)), 1e-12)
        return bool(np.all(value >= low - slack) and np.all(value <= high + slack)) and not np.allclose(low, high, atol=slack)

    # ------------------------------------------------------------------ explaining

    def _explained(self, wrong: Sequence[str], values: Values, truths: Values) -> dict[str, Finding]:
        found: dict[str, Finding] = {}
        searched: list[str] = []
        for name in wrong:
            other = next((o for o in truths if o != name and self._all_close(values[name], truths[o])), None)
            words = f"{name}: this is {other}" if other is not None and values[name][0].shape != truths[name][0].shape else None
            words = words or shape_words(name, values[name], truths[name], self._close, self._sizes(name))
            if words is not None:
                found[name] = Finding(name, False, words)
            elif name[1:] in self.derivation.adjoints and name[:2] != "d2":
                searched.append(name)
            else:
                found[name] = Finding(name, False, ratio_words(name, values[name], truths[name], self._close))
        if searched:
            found |= self._blamed(searched, values, truths)
        return {n: found[n] for n in wrong}

    def _sizes(self, name: str) -> str:
        names = self.subjects[0].names
        axes = names.axes.get(name[1:], ())
        return "" if self.is_plain else "×".join(names.size_of[i] for i in axes) or "a number"

    def _blamed(self, wrong: Sequence[str], values: Values, truths: Values) -> dict[str, Finding]:
        subject, points = self.subjects[0], self.points
        if (generic := self._elsewhere(wrong)) is not None:
            subject, points, values, truths = generic
        own = [n for n in values if n[1:] in self.derivation.adjoints and n[:2] != "d2"]
        own = [n for n in own if all(v.shape == t.shape for v, t in zip(values[n], truths[n], strict=True))]
        if self.is_plain:
            values, truths = self._from_above(own, values, points)
            own = list(values)
        blame = Blame(subject.names, points, {n[1:]: values[n] for n in own}, {n[1:]: truths[n] for n in own}, self.tolerance)
        causes = blame.causes([n[1:] for n in wrong if n in own])
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

    def _from_above(self, names: Sequence[str], values: Values, points: Sequence[Point]) -> tuple[Values, Values]:
        """Jacobians times what comes from above, so that the steps of the chain rule can be seen in them."""
        products: dict[str, list[np.ndarray]] = {}
        truths: dict[str, list[np.ndarray]] = {}
        for n in names:
            own = [self.truths.contracted(n[1:], v, p) for v, p in zip(values[n], points, strict=True)]
            plain = [v for v in own if v is not None]
            if len(plain) == len(points):
                products[n] = plain
                truths[n] = [array_at(p, self.derivation.adjoints[n[1:]]) for p in points]
        return products, truths

    def _elsewhere(self, wrong: Sequence[str]) -> tuple[Subject, list[Point], Values, Values] | None:
        """The same with sizes that are all unlike, where the function runs with these and is wrong in the same results."""
        network = self.derivation.network
        if not has_declared_sizes(network) or depends_on_sizes(network):
            return None
        subjects = sized_subjects(self.derivation, declared=False)
        try:
            points = generic_points(subjects, self.grid)
            results = [self.results(p) for p in points]
        except DataError:
            return None
        values = {n: [r[n] for r in results] for n in results[0] if all(r.get(n) is not None for r in results)}
        truths = {n: [self.truths.of(n, v, p) for v, p in zip(values[n], points, strict=True)] for n in values}
        now = [n for n in values if not self._all_close(values[n], truths[n])]
        fits = all(v.shape == t.shape for n in wrong if n in values for v, t in zip(values[n], truths[n], strict=True))
        return (subjects[0], points, values, truths) if set(now) == set(wrong) and fits else None


def _array(name: str, value: Any) -> np.ndarray:
    if np.iscomplexobj(value):
        raise DataError(f"the result {name} has complex numbers")
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise DataError(f"the result {name} is no array of numbers: {type(value).__name__}") from None
