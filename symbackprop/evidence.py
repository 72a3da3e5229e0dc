"""Numbers to judge claims by: the arrays of a derivation at generic points, computed once and shared by all claims.

Sizes are small, unlike one another and never 1 (a batch of one hides a lost 1/N, a square matrix a lost transpose), scales are
not 1, labels obey the declared facts, and abstract functions are stood in for by functions none of whose derivatives are alike.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import mpmath
import numpy as np
import sympy

from .differentiate import read_for
from .errors import DataError, SymbackpropError
from .names import Jacobian, Names
from .notation import Element, Function, Network, data_indices
from .tabulate import Table

DIGITS = 30  # decimal digits of the evaluation
_AFFORDABLE = 60_000  # elements that are worked out in all digits
POINTS = 2
ROUGH = 1e-8  # how far equal values may be apart, relatively, in floating point
# The sizes at each point: unlike one another, and each unlike itself at the other point, so that no 1/K looks like a constant.
# 2 and 4 are none of them: a lost 2 must not look like a lost 1/K.
_SIZES = ((3, 5, 6, 7, 9, 8), (5, 7, 3, 6, 8, 11))


class Point:
    """The arrays of a network at one point; what is asked for is computed when it is asked for first."""

    def __init__(
        self,
        names: Names,
        sizes: Mapping[str, int],
        values: Mapping[str, Any],
        functions: Mapping[str, Function],
        rough: bool = False,
    ) -> None:
        self.names, network = names, names.network
        self.functions = functions
        self.sizes = dict(sizes)
        self.size_names = {i.name: i.size for i in network.indices}
        self.by_size = {i.size: sizes[i.name] for i in network.indices}
        self.exact = not rough and self.work <= _AFFORDABLE
        with mpmath.workdps(DIGITS):
            number = np.frompyfunc(mpmath.mpf, 1, 1) if self.exact else np.asarray
            given = {k: np.asarray(number(np.asarray(v, dtype=float))) for k, v in values.items()}
            given |= {
                c: np.asarray(number(mpmath.mpf(int(v.p)) / int(v.q) if self.exact else float(v))) for c, v in network.constants
            }
            _obey_facts(network, given)
            given["eta"] = np.asarray(number(np.asarray(0.37)))
        self.table = Table(given, self.sizes, self.size_names, functions, self.exact)
        self._floating: Table | None = None

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
        for name in variables:
            self.table.values[name] = np.asarray(self.table.number(_third(name)))
        needed = set(missing) - {j.name for j in jacobians} - set(variables)
        for j in jacobians:
            if j.equation is not None:
                needed |= {e.name for t in j.equation.terms for e in t.body.atoms(Element)}
        everything = [*self.names.network.equations, *self.names.derivation.raw]
        needed = read_for(everything, needed)
        equations = [e for e in everything if e.name in needed]
        with mpmath.workdps(DIGITS), np.errstate(all="ignore"):
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
            result[place] = row
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


def _third(name: str) -> Any:
    """A value for a variable that nothing computes."""
    rng = random.Random(name)
    return Fraction(rng.randint(300, 900), 1000)


class Evidence:
    """The points that claims about one derivation are judged at."""

    def __init__(self, names: Names, rough: bool = False) -> None:
        self.names, self.rough = names, rough
        self._points: dict[tuple[bool, bool], list[Point]] = {}

    @property
    def is_windowed(self) -> bool:
        """Whether the declared sizes have to be kept."""
        return self.names.is_windowed

    def points(self, one: bool, declared: bool = False) -> list[Point]:
        """Two generic points; with `one` example, or with the `declared` sizes."""
        declared = declared or self.is_windowed
        if (one, declared) not in self._points:
            self._points[one, declared] = [self._real_point(seed, one, declared) for seed in range(POINTS)]
        return self._points[one, declared]

    def _real_point(self, seed: int, one: bool, declared: bool) -> Point:
        """A point at which the loss is a real number: log(p) wants p > 0."""
        loss = self.names.network.loss
        for attempt in range(20):
            point = random_point(self.names, seed + POINTS * attempt, one, declared, attempt >= 10, seed, self.rough)
            point.ensure([loss])
            if math.isfinite(float(point.table.values[loss][()])):
                return point
        raise SymbackpropError("the loss is no real number at any point that was tried")


def random_point(
    names: Names,
    seed: int,
    one: bool = False,
    declared: bool = False,
    positive: bool = False,
    batch: int = 0,
    rough: bool = False,
) -> Point:
    """A generic point: sizes small and unlike unless the `declared` ones are wanted."""
    network, rng = names.network, random.Random(seed)
    letters = [i for i in network.indices]
    roots: dict[str, int] = {}
    batch_size = names.size_of[network.batch] if network.batch is not None else None
    for i in letters:
        if i.size == batch_size:
            roots[i.size] = 1 if one else 4 + 3 * batch
        elif i.size not in roots:
            others = [r for r in roots if r != batch_size]
            small = _SIZES[batch][len(others) % len(_SIZES[batch])]
            roots[i.size] = i.number if i.number is not None and declared else small
    sizes = {i.name: roots[i.size] for i in letters}
    functions = {n: f if f.body is not None else _concrete(f, rng) for n, f in names.functions.items()}
    ranges = _ranges(network, sizes)
    values: dict[str, Any] = {}
    for a in network.arrays:
        if a.role in ("input", "parameter", "target", "noise"):
            shape = tuple(sizes[x] for x in a.axes)
            count = math.prod(shape)
            if a.name in ranges:
                drawn = [rng.randrange(ranges[a.name]) for _ in range(count)]
            elif a.role == "target" and network.labels == "zero-one":
                drawn = [rng.uniform(0.1, 0.9) for _ in range(count)]
            else:
                # Weights of large arrays are drawn smaller, so that nothing saturates.
                scale = 1.0 if count < 200 or a.role != "parameter" else 0.3
                signs = (1,) if positive else (1, -1)
                drawn = [scale * rng.uniform(0.2, 1.7) * rng.choice(signs) for _ in range(count)]
            if a.role == "target" and network.labels == "count":
                drawn = [abs(v) for v in drawn]
            if a.role == "target" and network.labels == "signed":
                drawn = [math.copysign(1, v) for v in drawn]
            values[a.name] = np.array(drawn, dtype=float).reshape(shape)
    return Point(names, sizes, values, functions, rough)


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
    return Point(names, sizes, arrays, names.functions)


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


def difference(one: np.ndarray, other: np.ndarray, tolerance: float, where: np.ndarray | None = None) -> tuple[int, ...] | None:
    """The first place at which two arrays differ by more than a share of their largest value; None where they agree."""
    one, other = np.broadcast_arrays(one, other)
    gap = np.abs(one - other)
    size = [float(np.max(np.abs(v), initial=0)) if v.size else 0.0 for v in (one.astype(float), other.astype(float))]
    if not all(map(math.isfinite, size)):
        raise SymbackpropError("the values overflow where the claim is tried out")
    scale = max(*size, 1e-20)
    # What is zero comes out as rounding noise.
    wrong = np.asarray(gap > max(scale * tolerance, tolerance * 1e-4), dtype=bool)
    if where is not None:
        wrong = wrong & where
    places = np.argwhere(wrong)
    return tuple(int(i) for i in places[0]) if len(places) else None
