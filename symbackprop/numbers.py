"""The same equations with numbers: values given or drawn, every line once more with them, and a check by differences."""

from __future__ import annotations

import itertools
import json
import random
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import mpmath
import sympy
from sympy import Expr, Symbol

from .catalogue import Optimiser
from .differentiate import resolved
from .errors import DataError, FileError, suggest
from .evaluate import Values, evaluate
from .functions import catalogue_functions
from .latex import LatexWriter
from .notation import Call, Derivation, Element, Equation, Function, Network, Term, base_name, data_indices, indices_of, unwrapped
from .recipes import update_equations
from .write import Style

_LONGEST = 6  # summands that are written out


@dataclass
class Point:
    """Sizes and the values of all arrays at one point, forward and backward."""

    sizes: dict[str, int]
    names: dict[str, str]
    values: dict[str, Values]
    functions: dict[str, Function]

    @property
    def lengths(self) -> dict[str, int]:
        """The number that each size is, by the name of the size."""
        return {name: self.sizes[letter] for letter, name in self.names.items()}


def read_values(path: Path) -> dict[str, Any]:
    """Arrays by name from a TOML or JSON file: `w = 0.5`, `x = [1, 2]`, `W1 = [[1, 2], [3, 4]]`."""
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as problem:
        raise FileError(f"the file '{path}' cannot be read: {getattr(problem, 'strerror', problem)}") from None
    except ValueError as problem:
        raise DataError(f"'{path}' holds no values that can be read: {problem}") from None


def point_of(derivation: Derivation, given: Mapping[str, Any] | None = None, seed: int = 0) -> Point:
    """Values for every array: those given, the rest drawn from a seed. Raises `DataError` where the given ones do not fit."""
    network = derivation.network
    arrays = {a.name: a for a in network.arrays}
    cells = {name: _cells(name, value) for name, value in (given or {}).items()}
    for name in cells:
        if name not in arrays or arrays[name].role == "stored":
            raise DataError(f"there is no array '{name}' to give values to{suggest(name, arrays)}")
    numbers = _sizes(network, {n: s for n, (s, _) in cells.items()})
    sizes = {i.name: numbers[i.size] for i in network.indices}
    rng = random.Random(seed)
    values: dict[str, Values] = {n: {(): mpmath.mpf(v.p) / v.q} for n, v in network.constants}
    whole = data_indices(network.equations)
    for a in network.arrays:
        if a.role in ("stored", "constant"):
            continue
        places = list(itertools.product(*(range(sizes[x]) for x in a.axes)))
        if a.name in cells:
            values[a.name] = cells[a.name][1]
        elif a.name in whole:
            values[a.name] = {p: mpmath.mpf(rng.randrange(2)) for p in places}
        elif a.role == "target":
            values[a.name] = _targets(network, places, rng, sizes[a.axes[-1]] if a.axes else 1)
        else:
            values[a.name] = {p: mpmath.mpf(str(round(rng.uniform(-1, 1), 1) or 0.5)) for p in places}
    calls = [c for e in network.equations for t in e.terms for c in t.body.atoms(Call)]
    counts = {c.name: len(c.arguments) for c in calls}
    functions = {n: f if f.body is not None else _sample(f, counts.get(n, 1)) for n, f in _functions(network).items()}
    point = Point(sizes, {i.name: i.size for i in network.indices}, values, functions)
    point.values = values_at(derivation, point)
    return point


def _functions(network: Network) -> dict[str, Function]:
    return {**catalogue_functions(), **{f.name: f for f in network.functions}}


def _sample(function: Function, arguments: int) -> Function:
    """A function in place of an abstract one: the logistic one; of two arguments half the square of their difference."""
    u = [Element(f"u{k}") for k in range(arguments)]
    body = 1 / (1 + sympy.exp(-u[0])) if arguments == 1 else (u[0] - u[1]) ** 2 / 2
    return replace(function, parameters=tuple(e.name for e in u), body=body)


def _cells(name: str, value: Any) -> tuple[tuple[int, ...], Values]:
    """The shape and the values of nested lists of numbers."""
    shape: list[int] = []
    inner = value
    while isinstance(inner, list):
        shape.append(len(cast("list[Any]", inner)))
        if not inner:
            raise DataError(f"'{name}' holds an empty list")
        inner = cast("list[Any]", inner)[0]
    found: Values = {}
    for place in itertools.product(*map(range, shape)):
        here = value
        for k in place:
            if not isinstance(here, list) or k >= len(cast("list[Any]", here)):
                raise DataError(f"the rows of '{name}' differ in length")
            here = cast("list[Any]", here)[k]
        if not isinstance(here, (int, float)) or isinstance(here, bool):
            raise DataError(f"'{name}' must hold numbers, found {here!r}")
        found[place] = mpmath.mpf(repr(here))
    return tuple(shape), found


def _sizes(network: Network, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    numbers = {i.size: i.number for i in network.indices if i.number is not None}
    for a in network.arrays:
        if a.name in shapes:
            size = {i.name: i.size for i in network.indices}
            if len(shapes[a.name]) != len(a.axes):
                raise DataError(f"'{a.name}' has the axes [{','.join(a.axes)}], and its values have {len(shapes[a.name])}")
            for axis, n in zip(a.axes, shapes[a.name], strict=True):
                if numbers.setdefault(size[axis], n) != n:
                    raise DataError(f"'{a.name}' has {n} values along '{axis}', which runs over {numbers[size[axis]]}")
    for i in network.indices:
        if i.size not in numbers and i.formula is None:
            numbers[i.size] = 2 if i.name == network.batch else 3
    for _ in network.indices:
        for i in network.indices:
            if i.size not in numbers and i.formula is not None:
                value = i.formula.xreplace(
                    {s: sympy.Integer(numbers[s.name]) for s in i.formula.free_symbols if s.name in numbers}
                )
                if value.is_Integer:
                    numbers[i.size] = int(value)
    return numbers


def _targets(network: Network, places: Sequence[tuple[int, ...]], rng: random.Random, classes: int) -> Values:
    if network.labels == "one-hot":
        chosen: dict[tuple[int, ...], int] = {}
        for p in places:
            chosen.setdefault(p[:-1], rng.randrange(classes))
        return {p: mpmath.mpf(int(chosen[p[:-1]] == p[-1])) for p in places}
    if network.labels in ("zero-one", "count"):
        return {p: mpmath.mpf(rng.randrange(2)) for p in places}
    if network.labels == "signed":
        return {p: mpmath.mpf(rng.choice((-1, 1))) for p in places}
    return {p: mpmath.mpf(str(round(rng.uniform(-1, 1), 1) or 0.5)) for p in places}


def values_at(derivation: Derivation, point: Point) -> dict[str, Values]:
    """The values of all arrays, computed anew from those that are given."""
    equations = (*derivation.network.equations, *resolved(derivation.equations, point.functions))
    return _evaluated(equations, _given(derivation.network, point), point)


def _evaluated(equations: Sequence[Equation], given: Mapping[str, Values], point: Point) -> dict[str, Values]:
    """The values of equations. Raises `DataError` where one is no finite real number."""
    try:
        found = evaluate(equations, given, point.sizes, point.functions.values(), point.names)
    except (ZeroDivisionError, OverflowError):
        raise DataError("at these values an equation divides by zero") from None
    for e in equations:
        if any(isinstance(v, mpmath.mpc) or not mpmath.isfinite(v) for v in found[e.name].values()):
            raise DataError(f"at these values '{e.name}' is no finite real number")
    return found


def _given(network: Network, point: Point) -> dict[str, Values]:
    """The values that no equation computes."""
    given = {a.name for a in network.arrays if a.role != "stored"}
    return {n: v for n, v in point.values.items() if n in given}


# ---------------------------------------------------------------------- lines with numbers


def shown(value: Any) -> str:
    """A value for people: four significant digits."""
    text = f"{float(value):.4g}"
    if "e" in text:
        mantissa, _, power = text.partition("e")
        return rf"{mantissa} \cdot 10^{{{int(power)}}}"
    return text


class NumberWriter(LatexWriter):
    """Writes formulas with the values of elements in place of their names, at one place of the letters."""

    def __init__(self, style: Style, point: Point, at: Mapping[Symbol, int]) -> None:
        super().__init__(replace(style, kinds={}))
        self.point, self.at = point, dict(at)

    def value_of(self, e: Element) -> Any:
        """The value of an element at this place."""
        place = tuple(self.place(i) for i in e.indices)
        return self.point.values[e.name].get(place, mpmath.mpf(0))

    def place(self, i: Expr) -> int:
        """An index as a number, counted from 0; -1 where it is none."""
        i = unwrapped(i)
        swap: dict[Expr, Expr] = {letter: sympy.Integer(self.at[letter]) for letter in indices_of(i)}
        swap |= {e: sympy.Integer(int(self.value_of(e))) for e in i.atoms(Element)}
        sizes = self.point.lengths
        swap |= {s: sympy.Integer(sizes[s.name]) for s in i.free_symbols if s.name in sizes and s not in swap}
        value = i.xreplace(swap)
        return int(value) if value.is_Integer else -1

    def element(self, e: Element) -> str:
        value = self.value_of(e)
        return shown(value) if value >= 0 else f"({shown(value)})"

    def index(self, i: Expr) -> str:
        return str(self.place(i))

    def symbol(self, s: Symbol) -> str:
        return str(self.point.lengths.get(s.name, s.name))

    times = r" \cdot "

    def summed(self, term: Term) -> str:
        """A term with its sum written out."""
        if term.reduce != "sum" or not term.over:
            return self.term(term)[0] if term.reduce == "sum" else ""
        ranges = [range(self.point.sizes[base_name(i.name)]) for i in term.over]
        parts: list[str] = []
        for count, place in enumerate(itertools.product(*ranges)):
            if count == _LONGEST:
                parts.append(r"\text{…}")
                break
            writer = NumberWriter(self.style, self.point, {**self.at, **dict(zip(term.over, place, strict=True))})
            parts.append(writer.expression(term.body))
        return " + ".join(parts).replace("+ -", "- ")


def with_numbers(equation: Equation, style: Style, point: Point) -> tuple[str, str] | None:
    """An equation at its first place with numbers, and the value; None where there is no such line (a greatest value)."""
    at = dict.fromkeys(equation.target.letters, 0)
    writer = NumberWriter(style, point, at)
    if any(t.reduce != "sum" for t in equation.terms):
        return None
    parts = [writer.summed(t) for t in equation.terms]
    return " + ".join(parts).replace("+ -", "- ") or "0", shown(writer.value_of(equation.target))


def differences(derivation: Derivation, point: Point) -> list[tuple[str, tuple[int, ...], Any, Any]]:
    """For each array: one element's derivative beside the difference quotient of the loss."""
    found: list[tuple[str, tuple[int, ...], Any, Any]] = []
    with mpmath.workdps(30):
        for name in derivation.wrt:
            place = max(point.values[name], key=lambda p: abs(point.values[derivation.adjoints[name]].get(p, 0)))
            h = mpmath.mpf(10) ** -8
            ends = [
                _loss_at(derivation, point, {name: {**point.values[name], place: point.values[name][place] + s}}) for s in (h, -h)
            ]
            quotient = (ends[0] - ends[1]) / (2 * h)
            found.append((name, place, point.values[derivation.adjoints[name]].get(place, mpmath.mpf(0)), quotient))
    return found


def _loss_at(derivation: Derivation, point: Point, changed: Mapping[str, Values]) -> Any:
    network = derivation.network
    start = _given(network, point) | dict(changed)
    return _evaluated(network.equations, start, point)[network.loss][()]


def follow(derivation: Derivation, point: Point, row: Optimiser, rate: float, steps: int = 3) -> list[dict[str, Any]]:
    """The first weight through some updates: the step, its derivative, the state and the weight after it, and the loss."""
    names = [a.name for a in derivation.network.arrays if a.role == "parameter" and a.name in derivation.wrt]
    equations = update_equations(row)
    constants = {k: {(): mpmath.mpf(v)} for k, v in row.constants.items()}
    state = {n: {p: dict.fromkeys(row.state, mpmath.mpf(0)) for p in point.values[n]} for n in names}
    values, rows = dict(point.values), list[dict[str, Any]]()
    first = (names[0], next(iter(values[names[0]])))
    for t in range(1, steps + 1):
        here = values_at(derivation, replace(point, values=values))
        changed: dict[str, Values] = {n: {} for n in names}
        for name in names:
            for place, weight in values[name].items():
                slope = here[derivation.adjoints[name]].get(place, mpmath.mpf(0))
                scalars: dict[str, Values] = {
                    "w": {(): weight},
                    "g": {(): slope},
                    "eta": {(): mpmath.mpf(rate)},
                    "t": {(): mpmath.mpf(t)},
                }
                scalars |= {k: {(): v} for k, v in state[name][place].items()} | constants
                for _, left, right in equations:
                    scalars[left] = evaluate([Equation(Element("@new"), (Term(right),))], scalars, {})["@new"]
                changed[name][place] = scalars["w"][()]
                state[name][place] = {k: scalars[k][()] for k in row.state}
                if (name, place) == first:
                    rows.append({"t": t, "slope": slope, "state": dict(state[name][place]), "after": scalars["w"][()]})
        rows[-1]["loss"] = here[derivation.network.loss][()]
        values = {**values, **changed}
    return rows


def one_step(
    derivation: Derivation, point: Point, rate: float
) -> tuple[list[tuple[str, tuple[int, ...], Any, Any, Any]], Any, Any]:
    """One step of gradient descent: (array, place, before, derivative, after) for every weight, the loss before and after."""
    rows: list[tuple[str, tuple[int, ...], Any, Any, Any]] = []
    changed: dict[str, Values] = {}
    for name in derivation.wrt:
        if not any(a.name == name and a.role == "parameter" for a in derivation.network.arrays):
            continue
        changed[name] = {}
        for place, value in point.values[name].items():
            slope = point.values[derivation.adjoints[name]].get(place, mpmath.mpf(0))
            changed[name][place] = value - rate * slope
            rows.append((name, place, value, slope, changed[name][place]))
    before = point.values[derivation.network.loss][()]
    return rows, before, _loss_at(derivation, point, changed)
