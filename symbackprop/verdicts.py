"""Which results of hand-written code are right, and what is said about the others: at generic points, then at special ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .blame import Blame
from .errors import DataError
from .evidence import Point
from .findings import Finding, Verification
from .handwritten import Handwritten, Values
from .judge import Subject
from .misshapen import ratio_words, shape_words
from .running import ForwardDiffers
from .trials import Trial, depends_on_sizes, generic_points, has_declared_sizes, moved, sized_subjects, trials
from .truths import array_at


def verification(code: Handwritten) -> Verification:
    """The verdict on each result."""
    try:
        results = [code.results(p) for p in code.points]
    except ForwardDiffers as problem:
        raise DataError(problem.message) from None
    missing = [n for n in results[0] if any(r.get(n) is None for r in results)]
    found: dict[str, Finding] = {}
    for name in missing:
        if not all(_is_zero(code, name, p) for p in code.points):
            found[name] = Finding(name, False, f"{name} is missing")
    given = [n for n in results[0] if n not in missing]
    values = {n: [r[n] for r in results] for n in given}
    truths = {n: [code.truths.of(n, v, p) for v, p in zip(values[n], code.points, strict=True)] for n in given}
    wrong = [n for n in given if not code.all_close(values[n], truths[n])]
    found |= {n: f for n, f in _explained(code, wrong, values, truths).items()}
    note = _note(code)
    right = [n for n in results[0] if n not in found]
    if not found:
        for trial in trials(code.subjects[0], code.grid):
            found |= {n: f for n, f in _tried(code, trial).items() if n not in found or not f.right}
            if any(not f.right for f in found.values()):
                break
    every = {n: found.get(n) or Finding(n, True) for n in [*results[0], *right]}
    return Verification(tuple(every.values()), note)


def _note(code: Handwritten) -> str:
    if code.setting.dtype == "float64":
        return ""
    return f"in {code.setting.dtype}, within a share of {code.tolerance:g} of the largest value"


def _is_zero(code: Handwritten, name: str, point: Point) -> bool:
    adjoint = code.derivation.adjoints.get(name[1:])
    return adjoint is not None and not np.any(array_at(point, adjoint))


def _tried(code: Handwritten, trial: Trial) -> dict[str, Finding]:
    """What is wrong at one of the later points."""
    try:
        results = code.results(trial.point)
    except ForwardDiffers:
        return {}  # where the forward pass overflows, there is nothing to compare
    except DataError as problem:
        names = [f"d{n}" for n in code.setting.wanted]
        first = Finding(names[0], False, f"where {trial.words}, {problem.message}")
        return {n: Finding(n, False, first.reason, names[0]) for n in names} | {names[0]: first}
    found: dict[str, Finding] = {}
    wrong: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    largest = _largest(code, trial.point)
    for name, value in results.items():
        if value is None:
            if not _is_zero(code, name, trial.point):
                found[name] = Finding(name, False, f"{name} is missing where {trial.words}")
            continue
        truth = code.truths.of(name, value, trial.point)
        if not np.all(np.abs(truth) < code.largest) or code.close(value, truth, largest):
            continue
        finite = np.isfinite(value)
        if value.shape == truth.shape and not finite.all() and code.close(value[finite], truth[finite], largest):
            found[name] = _not_finite(code, name, trial)
        elif trial.kind != "zero" or not _is_subgradient(code, name, value, trial):
            wrong[name] = value, truth
    return found | _wrong_there(code, trial, wrong)


def _largest(code: Handwritten, point: Point) -> float:
    """How large the given values are: what cancels among them leaves noise of that size."""
    given = [a.name for a in code.derivation.network.arrays if a.role in ("input", "parameter", "target")]
    return max(1.0, *(2 * float(np.abs(array_at(point, n)).max(initial=0)) for n in given))


def _wrong_there(code: Handwritten, trial: Trial, wrong: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Finding]:
    """Results that are right at generic points and wrong at a special one, with the cause where one shows itself."""
    plain = {n: f"{n} is wrong where {trial.words}" for n in wrong}
    own = {n: p for n, p in wrong.items() if n[1:] in code.derivation.adjoints and p[0].shape == p[1].shape}
    if not own or code.is_plain or not all(np.all(np.isfinite(v)) for v, _ in own.values()):
        return {n: Finding(n, False, words) for n, words in plain.items()}
    values = {n[1:]: [v] for n, (v, _) in own.items()}
    truths = {n[1:]: [t] for n, (_, t) in own.items()}
    blame = Blame(code.subjects[0].names, [trial.point], values, truths, code.tolerance)
    causes = blame.causes([n[1:] for n in own])
    return {n: Finding(n, False, f"{words}: {causes[n[1:]].words}" if n[1:] in causes else words) for n, words in plain.items()}


def _not_finite(code: Handwritten, name: str, trial: Trial) -> Finding:
    """Code that is right where it is finite: from where on it is not."""
    if trial.kind != "large":
        return Finding(name, False, f"{name} is not finite where {trial.words}")
    sign = -1.0 if "negative" in trial.words else 1.0
    low, high = 1.0, 800.0
    for _ in range(12):
        middle = (low + high) / 2
        try:
            value = code.results(moved(code.subjects[0], trial.array, sign * middle, code.grid))[name]
            finite = value is not None and bool(np.all(np.isfinite(value)))
        except DataError:
            finite = False
        low, high = (middle, high) if finite else (low, middle)
    words = f"where it is finite; overflows from {trial.array} = {sign * high:.3g}: it is not finite where {trial.words}"
    return Finding(name, True, words)


def _is_subgradient(code: Handwritten, name: str, value: np.ndarray, trial: Trial) -> bool:
    """Whether a value at a kink lies between the derivatives on both sides."""
    sides: list[np.ndarray] = []
    for shift in (1e-9, -1e-9):
        point = moved(code.subjects[0], trial.array, shift, code.grid)
        sides.append(code.truths.of(name, value, point))
    low, high = np.minimum(*sides), np.maximum(*sides)
    if value.shape != low.shape:
        return False
    slack = 10 * code.tolerance * max(float(np.abs(high).max(initial=0)), float(np.abs(low).max(initial=0)), 1e-12)
    return bool(np.all(value >= low - slack) and np.all(value <= high + slack)) and not np.allclose(low, high, atol=slack)


# ---------------------------------------------------------------------- explaining


def _explained(code: Handwritten, wrong: Sequence[str], values: Values, truths: Values) -> dict[str, Finding]:
    found: dict[str, Finding] = {}
    searched: list[str] = []
    for name in wrong:
        other = next((o for o in truths if o != name and code.all_close(values[name], truths[o])), None)
        words = f"{name}: this is {other}" if other is not None and values[name][0].shape != truths[name][0].shape else None
        words = words or shape_words(name, values[name], truths[name], code.close, _sizes(code, name))
        if words is not None:
            found[name] = Finding(name, False, words)
        elif name[1:] in code.derivation.adjoints and name[:2] != "d2":
            searched.append(name)
        else:
            found[name] = Finding(name, False, ratio_words(name, values[name], truths[name], code.close))
    if searched:
        found |= _blamed(code, searched, values, truths)
    return {n: found[n] for n in wrong}


def _sizes(code: Handwritten, name: str) -> str:
    names = code.subjects[0].names
    axes = names.axes.get(name[1:], ())
    return "" if code.is_plain else "×".join(names.size_of[i] for i in axes) or "a number"


def _blamed(code: Handwritten, wrong: Sequence[str], values: Values, truths: Values) -> dict[str, Finding]:
    subject, points = code.subjects[0], code.points
    if (generic := _elsewhere(code, wrong)) is not None:
        subject, points, values, truths = generic
    own = [n for n in values if n[1:] in code.derivation.adjoints and n[:2] != "d2"]
    own = [n for n in own if all(v.shape == t.shape for v, t in zip(values[n], truths[n], strict=True))]
    if code.is_plain:
        values, truths = _from_above(code, own, values, points)
        own = list(values)
    blame = Blame(subject.names, points, {n[1:]: values[n] for n in own}, {n[1:]: truths[n] for n in own}, code.tolerance)
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


def _from_above(code: Handwritten, names: Sequence[str], values: Values, points: Sequence[Point]) -> tuple[Values, Values]:
    """Jacobians times what comes from above, so that the steps of the chain rule can be seen in them."""
    products: dict[str, list[np.ndarray]] = {}
    truths: dict[str, list[np.ndarray]] = {}
    for n in names:
        own = [code.truths.contracted(n[1:], v, p) for v, p in zip(values[n], points, strict=True)]
        plain = [v for v in own if v is not None]
        if len(plain) == len(points):
            products[n] = plain
            truths[n] = [array_at(p, code.derivation.adjoints[n[1:]]) for p in points]
    return products, truths


def _elsewhere(code: Handwritten, wrong: Sequence[str]) -> tuple[Subject, list[Point], Values, Values] | None:
    """The same with sizes that are all unlike, where the function runs with these and is wrong in the same results."""
    network = code.derivation.network
    if not has_declared_sizes(network) or depends_on_sizes(network):
        return None
    subjects = sized_subjects(code.derivation, declared=False)
    try:
        points = generic_points(subjects, code.grid)
        results = [code.results(p) for p in points]
    except DataError:
        return None
    values = {n: [r[n] for r in results] for n in results[0] if all(r.get(n) is not None for r in results)}
    truths = {n: [code.truths.of(n, v, p) for v, p in zip(values[n], points, strict=True)] for n in values}
    now = [n for n in values if not code.all_close(values[n], truths[n])]
    fits = all(v.shape == t.shape for n in wrong if n in values for v, t in zip(values[n], truths[n], strict=True))
    return (subjects[0], points, values, truths) if set(now) == set(wrong) and fits else None
