"""Numbers to judge claims by: the arrays of a derivation at generic points, computed once and shared by all claims.

Sizes are small, unlike one another and 1 only where that is declared (a batch of one hides a lost 1/N, a square matrix a lost
transpose), scales are not 1, everything has both signs where the loss stays a real number, constants have other values than
the declared ones, labels obey the declared facts, and abstract functions are stood in for by functions none of whose
derivatives are alike.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, cast

import mpmath
import numpy as np
import sympy

from .differentiate import read_for
from .errors import DataError, SymbackpropError
from .names import Jacobian, Names
from .notation import Element, Function, Network, data_indices
from .tabulate import Table, Trace

DIGITS = 30  # decimal digits of the evaluation
FINE = 90  # where numbers are so small that rounding and a value cannot be told apart
_AFFORDABLE = 60_000  # elements that are worked out in all digits
POINTS = 2
ROUGH = 1e-8  # how far equal values may be apart, relatively, in floating point
# The sizes at each point: unlike one another, and each unlike itself at the other point, so that no 1/K looks like a constant.
# 2 and 4 are none of them: a lost 2 must not look like a lost 1/K.
_SIZES = ((3, 5, 6, 7, 9, 8), (5, 7, 3, 6, 8, 11), (7, 3, 8, 5, 11, 6))
# How the values of an array are drawn: of both signs unless the loss is no real number then.
_MODES = ("both", "positive", "unit", "above", "negative")
# By what the values of further points are multiplied: near zero, far out, and between.
_SCALES = (0.2, 5.0, 1.0, 2.0, 0.5, 1.0, 3.0, 30.0)
_COUNTS = (3, 6, 7, 10)  # what constants that are whole numbers become


@dataclass(frozen=True)
class Setting:
    """Which points: for `one` example, with the `declared` sizes, with these constants `held` at their values.

    `least` gives sizes that must have at least so many places, since a claim names one of them.
    """

    one: bool = False
    declared: bool = False
    held: frozenset[str] = frozenset()
    least: tuple[tuple[str, int], ...] = ()


class Point:
    """The arrays of a network at one point; what is asked for is computed when it is asked for first."""

    def __init__(
        self,
        names: Names,
        sizes: Mapping[str, int],
        values: Mapping[str, Any],
        functions: Mapping[str, Function],
        rough: bool = False,
        constants: Mapping[str, Fraction] | None = None,
        seed: int = 0,
        digits: int = DIGITS,
    ) -> None:
        self.names, network = names, names.network
        self.digits = digits
        self.functions = functions
        self.sizes = dict(sizes)
        self.size_names = {i.name: i.size for i in network.indices}
        self.by_size = {i.size: sizes[i.name] for i in network.indices}
        self.exact = not rough and self.work <= _AFFORDABLE
        self.seed, self.drawn = seed, dict(values)
        self.constants = {c: Fraction(int(v.p), int(v.q)) for c, v in network.constants} | dict(constants or {})
        with mpmath.workdps(digits):
            number = np.frompyfunc(mpmath.mpf, 1, 1) if self.exact else np.asarray
            given = {k: np.asarray(number(np.asarray(v, dtype=float))) for k, v in values.items() if not k.endswith("_free")}
            _obey_facts(network, given)
            given["eta"] = np.asarray(number(np.asarray(0.37 + 0.11 * (seed % 5))))
        self.table = Table(given, self.sizes, self.size_names, functions, self.exact)
        with mpmath.workdps(digits):
            self.table.values |= {c: np.asarray(self.table.number(v)) for c, v in self.constants.items()}
        self.table.trace = Trace() if rough else None
        self._floating: Table | None = None
        self._exact: Point | None = None
        self._fine: Point | None = None
        self._rough: Point | None = None

    @property
    def affordable(self) -> bool:
        """Whether all digits can be worked out in reasonable time."""
        return self.work <= _AFFORDABLE

    def exactly(self) -> Point:
        """The same point in all digits."""
        if self._exact is None:
            self._exact = self.remade(self.drawn, rough=False)
        return self._exact

    def roughly(self) -> Point:
        """The same point in floating point, with a trace of what is compared."""
        if self._rough is None:
            self._rough = self.remade(self.drawn, rough=True)
        return self._rough

    def finely(self) -> Point:
        """The same point in three times as many digits."""
        if self._fine is None:
            self._fine = self.remade(self.drawn, rough=False, digits=FINE)
        return self._fine

    def remade(self, drawn: Mapping[str, Any], rough: bool, digits: int = DIGITS) -> Point:
        """The point with other values of what is drawn, or with the same in other precision."""
        return Point(self.names, self.sizes, drawn, self.functions, rough, self.constants, self.seed, digits)

    @cached_property
    def work(self) -> int:
        """How many values the network's equations take."""
        letters = {e.name: {*e.target.letters, *(i for t in e.terms for i in t.over)} for e in self.names.network.equations}
        return sum(math.prod(self.sizes[i.name.rstrip("'")] for i in own) for own in letters.values())

    @property
    def tolerance(self) -> float:
        """How far equal values may be apart, relatively."""
        return 10.0 ** (8 - DIGITS) if self.exact else ROUGH

    def ensure(self, wanted: Iterable[str]) -> None:
        """Compute the arrays that are not there yet."""
        missing = [w for w in wanted if w not in self.table.values and (w in self.names.axes or w.endswith("_free"))]
        if not missing:
            return
        jacobians = [j for j in self.names.jacobians.values() if j.name in missing]
        variables = [w for w in missing if w not in self.names.axes]
        with mpmath.workdps(self.digits):
            for name in variables:
                self.drawn.setdefault(name, float(_free_value(name, self.seed)))
                self.table.values[name] = np.asarray(self.table.number(Fraction(self.drawn[name])))
        needed = set(missing) - {j.name for j in jacobians} - set(variables)
        for j in jacobians:
            if j.equation is not None:
                needed |= {e.name for t in j.equation.terms for e in t.body.atoms(Element)}
        everything = [*self.names.network.equations, *self.names.derivation.raw]
        needed = read_for(everything, needed)
        equations = [e for e in everything if e.name in needed]
        with mpmath.workdps(self.digits), np.errstate(all="ignore"):
            self.table.compute(equations)
            for j in jacobians:
                self._jacobian(j)
        self._floating = None

    def _jacobian(self, j: Jacobian) -> None:
        if j.equation is not None:
            stripped = {i.rstrip("'"): self.sizes[i.rstrip("'")] for i in j.axes}
            table = Table(self.table.values, self.sizes | stripped, self.size_names, self._with(j.back.network), self.exact)
            table.compute([j.equation])
            self.table.values[j.name] = table.values[j.name]
            return
        # Row by row: the seed is one at one place.
        of = next(k for k, v in self.names.jacobians.items() if v is j)
        shape = tuple(self.sizes[i] for i in self.names.axes[of[0]])
        network = j.back.network
        wanted = j.back.adjoints[of[1]]
        everything = [*network.equations, *j.back.raw]
        needed = read_for(everything, {wanted})
        equations = [e for e in everything if e.name in needed]
        rows: dict[tuple[int, ...], np.ndarray] = {}
        for place in itertools.product(*map(range, shape)):
            seed = np.full(shape, self.table.number(0), dtype=object if self.exact else float)
            seed[place] = self.table.number(1)
            own = {k: v for k, v in self.table.values.items() if k not in {e.name for e in j.back.raw}} | {j.seed: seed}
            table = Table(
                own, self.sizes, self.size_names | {i.name: i.size for i in network.indices}, self._with(network), self.exact
            )
            table.compute(equations)
            rows[place] = table.values[wanted]
        result = np.empty(tuple(self.sizes[i.rstrip("'")] for i in j.axes), dtype=object if self.exact else float)
        for place, row in rows.items():
            if j.shared is not None:
                row = np.take(row, place[j.shared[0]], axis=j.shared[1])  # noqa: PLW2901
            result[place] = row[()]
        self.table.values[j.name] = result

    def _with(self, network: Network) -> dict[str, Function]:
        return {**{f.name: f for f in network.functions if f.body is not None}, **self.functions}

    def view(self, letters: Mapping[str, str], floating: bool = False) -> Table:
        """The table with the sizes of a claim's letters, given by the names of these sizes."""
        table = self.table
        if floating:
            if self._floating is None:
                self._floating = self.table.floating() if self.exact else self.table
            table = self._floating
        sizes = {i.rstrip("'"): self.by_size[s] for i, s in letters.items() if s in self.by_size}
        # What a letter stands for comes before what the network calls by the same letter.
        return Table(table.values, self.sizes | sizes, self.size_names, self.functions, table.exact)


def _free_value(name: str, seed: int) -> Fraction:
    """A value for a variable that nothing computes: of either sign, near and far."""
    rng = random.Random(f"{name} {seed}")
    size = Fraction(rng.randint(300, 900), 1000)
    factor = 1 if seed < POINTS else Fraction(rng.choice((1, 5, 20, 60, 200, 4000)), 10)
    sign = (-1 if seed % 2 else 1) if seed < POINTS else rng.choice((-1, 1))
    return size * factor * sign


class Evidence:
    """The points that claims about one derivation are judged at."""

    def __init__(self, names: Names, rough: bool = False) -> None:
        self.names, self.rough = names, rough
        self._points: dict[Setting, list[Point]] = {}
        self._further: dict[tuple[Setting, int], Point | None] = {}

    @property
    def is_windowed(self) -> bool:
        """Whether the declared sizes have to be kept."""
        return self.names.is_windowed

    def points(self, setting: Setting = Setting()) -> list[Point]:
        """Two generic points. Raises `SymbackpropError` where the loss is a real number at none that was tried."""
        if setting not in self._points:
            self._points[setting] = [self._base(setting, number) for number in range(POINTS)]
        return self._points[setting]

    def _base(self, setting: Setting, number: int) -> Point:
        for attempt in range(4):
            point = self._drawn(setting, number, number + POINTS * attempt, self.rough)
            if is_real(point):
                return point
        raise SymbackpropError("the loss is no real number at any point that was tried")

    def further(self, setting: Setting, number: int) -> Point | None:
        """One of any number of other points, in floating point: near zero, far out, of other signs; None without a real loss."""
        if (setting, number) not in self._further:
            self._further[setting, number] = self._far(setting, number)
        return self._further[setting, number]

    def _far(self, setting: Setting, number: int) -> Point | None:
        scale = _SCALES[number % len(_SCALES)]
        if number % 2 and any(mode not in ("both", "held") for mode in self._modes.values()):
            # Where each array alone must keep its sign, all together may have others: log(w*x).
            for attempt in range(20):
                seed = 5000 + 100 * number + attempt
                point = random_point(self.names, seed, setting, POINTS + number, True, {}, scale)
                if is_real(point):
                    return point
        point = self._drawn(setting, POINTS + number, 1000 + number, True, scale)
        return point if is_real(point) else None

    def _drawn(self, setting: Setting, number: int, seed: int, rough: bool, scale: float = 1.0) -> Point:
        return random_point(self.names, seed, setting, number, rough, self._modes, scale)

    @cached_property
    def _modes(self) -> dict[str, str]:
        """How each array and the constants are drawn so that the loss is a real number, both signs wherever that may be."""
        network = self.names.network
        free = [a.name for a in network.arrays if a.role in ("input", "parameter", "target", "noise")]
        free += [c for c, _ in network.constants]

        def works(modes: Mapping[str, str]) -> bool:
            return all(is_real(random_point(self.names, 77 + s, Setting(), s % POINTS, True, modes)) for s in range(4))

        rng = random.Random(5)
        tried: list[dict[str, str]] = [dict.fromkeys(free, mode) for mode in _MODES[:4]]
        tried += [{**dict.fromkeys(free, mode), **{c: "held" for c, _ in network.constants}} for mode in _MODES[:4]]
        tried += [{name: rng.choice(_MODES) for name in free} for _ in range(40)]
        found = next((m for m in tried if works(m)), None)
        if found is None:
            return {}
        for name in free if found != tried[0] else ():
            for mode in ("both", "positive"):
                if found[name] != "both" and works(found | {name: mode}):
                    found |= {name: mode}
                    break
        return found


def is_real(point: Point) -> bool:
    """Whether the loss is a real number: log(p) wants p > 0."""
    loss = point.names.network.loss
    try:
        point.ensure([loss])
    except (ZeroDivisionError, OverflowError):
        return False
    value = point.table.values[loss][()]
    return bool(mpmath.isfinite(value)) if point.exact else math.isfinite(float(value))


def random_point(
    names: Names,
    seed: int,
    setting: Setting = Setting(),
    number: int = 0,
    rough: bool = False,
    modes: Mapping[str, str] | None = None,
    scale: float = 1.0,
) -> Point:
    """A generic point, the `number`th of its kind: sizes small and unlike unless the declared ones are wanted."""
    network, rng, modes = names.network, random.Random(seed), modes or {}
    kind = number % len(_SIZES)
    least = dict(setting.least)
    declared = setting.declared or names.is_windowed
    roots: dict[str, int] = {}
    batch_size = names.size_of[network.batch] if network.batch is not None else None
    for i in network.indices:
        kept = i.number is not None and (declared or (i.number == 1 and i.size != batch_size))
        if i.size == batch_size:
            roots[i.size] = 1 if setting.one else cast(int, i.number) if kept else max(4 + 3 * kind, least.get(i.size, 0))
        elif i.size not in roots:
            others = [r for r in roots if r != batch_size]
            small = _SIZES[kind][len(others) % len(_SIZES[kind])]
            roots[i.size] = cast(int, i.number) if kept else max(small, least.get(i.size, 0))
    sizes = {i.name: roots[i.size] for i in network.indices}
    functions = {n: f if f.body is not None else _concrete(f, rng) for n, f in names.functions.items()}
    ranges = _ranges(network, sizes)
    values: dict[str, Any] = {}
    for a in network.arrays:
        if a.role in ("input", "parameter", "target", "noise"):
            shape = tuple(sizes[x] for x in a.axes)
            count = math.prod(shape)
            if a.name in ranges:
                drawn: list[float] = [rng.randrange(ranges[a.name]) for _ in range(count)]
            elif a.role == "target" and network.labels == "zero-one":
                drawn = [rng.uniform(0.1, 0.9) for _ in range(count)]
            else:
                # Weights of large arrays are drawn smaller, so that nothing saturates.
                small = scale if count < 200 or a.role != "parameter" else 0.3 * scale
                drawn = [_drawn_value(rng, modes.get(a.name, "both"), small) for _ in range(count)]
            if a.role == "target" and network.labels == "count":
                drawn = [abs(v) for v in drawn]
            if a.role == "target" and network.labels == "signed":
                drawn = [math.copysign(1, v) for v in drawn]
            values[a.name] = np.array(drawn, dtype=float).reshape(shape)
    constants = {
        c: _other_value(Fraction(int(v.p), int(v.q)), rng, number)
        for c, v in network.constants
        if c not in setting.held and modes.get(c, "both") != "held"
    }
    return Point(names, sizes, values, functions, rough, constants, number)


def _drawn_value(rng: random.Random, mode: str, scale: float) -> float:
    if mode == "unit":
        return rng.uniform(0.05, 0.95)
    value = scale * rng.uniform(0.2, 1.7)
    if mode == "above":
        return 1 + value
    return value if mode == "positive" else -value if mode == "negative" else value * rng.choice((1, -1))


def _other_value(value: Fraction, rng: random.Random, number: int) -> Fraction:
    """Another value for a constant: a share stays one, a whole number too (it may be an exponent), and the sign stays."""
    if value.denominator == 1 and value != 0:
        others = [c for c in _COUNTS if c != abs(value)]
        return (1 if value > 0 else -1) * Fraction(others[number % len(others)])
    if 0 <= value < 1:
        return Fraction(rng.randint(150, 850), 1000)  # a small one grows: that it was left out must show
    return value * Fraction(rng.randint(600, 1700), 1000)


def given_point(names: Names, values: Mapping[str, Any]) -> Point:
    """The point that somebody's own numbers make. Raises `DataError` for what is missing or does not fit."""
    network = names.network
    sizes = {i.name: i.number for i in network.indices if i.number is not None}
    arrays: dict[str, np.ndarray] = {}
    for a in network.arrays:
        if a.role not in ("input", "parameter", "target", "noise"):
            continue
        if a.name not in values:
            raise DataError(f"'{a.name}' has no value; numbers are judged where all inputs, targets and parameters are given")
        array = np.asarray(values[a.name], dtype=float)
        if array.ndim == len(a.axes) - 1 and network.batch in a.axes:
            array = np.expand_dims(array, a.axes.index(network.batch))
        if array.ndim != len(a.axes):
            raise DataError(f"'{a.name}' has {array.ndim} axes, not {len(a.axes)}: [{','.join(a.axes)}]")
        for letter, size in zip(a.axes, array.shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise DataError(f"'{a.name}' has {size} values along '{letter}', not {sizes[letter]}")
        arrays[a.name] = array
    by_size = {names.size_of[i]: n for i, n in sizes.items()}
    for i in network.indices:
        sizes.setdefault(i.name, by_size.get(i.size, 1))
    abstract = [f.name for f in names.functions.values() if f.body is None]
    if abstract:
        raise DataError(f"the function '{abstract[0]}' has no formula, so its values are not known")
    point = Point(names, sizes, arrays, names.functions)
    rate = values.get("eta", network.training.get("learning_rate"))
    if rate is None:
        del point.table.values["eta"]  # a step size that nobody gave has no value
    else:
        point.table.values["eta"] = np.asarray(point.table.number(Fraction(str(rate))))
    return point


def _ranges(network: Network, sizes: Mapping[str, int]) -> dict[str, int]:
    """How far each array goes that is used as an index."""
    whole = data_indices(network.equations)
    axes = {a.name: a.axes for a in network.arrays}
    found: dict[str, int] = {}
    for equation in network.equations:
        for term in equation.terms:
            for e in term.body.atoms(Element):
                for i, axis in zip(e.indices, axes[e.name], strict=True):
                    for inner in i.atoms(Element):
                        if inner.name in whole:
                            found[inner.name] = min(found.get(inner.name, 10**9), sizes[axis])
    return found


def _obey_facts(network: Network, values: dict[str, Any]) -> None:
    for fact in network.facts:
        body = fact.term.body
        if not isinstance(body, Element) or len(fact.term.over) != 1 or body.name not in values:
            continue
        axis = body.indices.index(fact.term.over[0])
        array = np.abs(values[body.name])
        values[body.name] = array / array.sum(axis=axis, keepdims=True) * int(fact.value.p) / int(fact.value.q)


def _concrete(function: Function, rng: random.Random) -> Function:
    """A generic function in place of an abstract one: none of its derivatives is like another."""
    variables = [Element(f"u{k}") for k in range(3)]
    numbers = [sympy.Rational(rng.randint(20, 90), 100) for _ in range(6)]
    inner = sympy.Add(*(n * v for n, v in zip(numbers, variables, strict=False)))
    body = sympy.sin(inner + numbers[3]) + numbers[4] * inner**2 + numbers[5] * variables[0] * variables[1]
    zero = sympy.S.Zero
    return replace(function, parameters=("u0", "u1", "u2"), body=body, defaults=(zero, zero))


def is_finite(values: np.ndarray) -> np.ndarray:
    """Where values are real numbers and not overflown."""
    if values.dtype == object:
        return np.asarray(np.frompyfunc(mpmath.isfinite, 1, 1)(values), dtype=bool)
    return np.isfinite(values.astype(float))


def is_tiny(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether all values are so small that what differs could be rounding."""
    finite = [v[is_finite(v)] for v in (one, other)]
    size = max(np.max(np.abs(v), initial=0) for v in finite)
    return bool(size < 1e-12)


def difference(
    one: np.ndarray, other: np.ndarray, tolerance: float, where: np.ndarray | None = None, floor: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """At which places two arrays differ by more than a share of their largest value, and at which they can be compared.

    Places at which neither is a real number are left out; where one is and the other is not, they differ.
    """
    one, other = np.broadcast_arrays(one, other)
    real = is_finite(one), is_finite(other)
    compared = real[0] | real[1]
    if where is not None:
        compared = compared & where
    both = real[0] & real[1] & compared
    gap = np.abs(np.where(both, one, 0) - np.where(both, other, 0))
    size = [np.max(np.abs(v[both]), initial=0) for v in (one, other)]
    # What is zero comes out as rounding noise.
    least = tolerance * 1e-4 if floor is None else mpmath.mpf(floor)
    wrong = np.asarray(gap > max(*(s * tolerance for s in size), least), dtype=bool)
    return (wrong | (compared & ~both)) & compared, compared
