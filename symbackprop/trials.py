"""The points at which hand-written code is tried out: generic ones, and those where code goes wrong that is right elsewhere.

Sizes are unlike one another, and the declared ones are kept: code may depend on them. An axis that is only reached by windows,
`x[n,2*i+p]`, is as long as they reach. Later points have a batch of one, small and large values, both sides of every number
that a formula compares with, zeros, and values that overflow.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import sympy
from sympy import Expr

from .errors import DataError, SymbackpropError
from .evidence import Point, Setting, random_point
from .judge import Subject
from .missteps import is_upstream
from .names import Names
from .notation import Derivation, Element, Index, Network, data_indices, indices_of, is_index, size_symbol, unwrapped

_SIZES = ((3, 5, 6, 7, 9, 8), (5, 7, 3, 6, 8, 11))
_EXTREMES = (("zero", 0.0), ("large", 800.0), ("large and negative", -800.0), ("small", 1e-8))
_SCALES = (
    (0.05, "the values are small"),
    (4.0, "the values are between 1 and 7"),
    (12.0, "the values are between 2 and 20"),
    (100.0, "the values are between 20 and 170"),
)
Kind = Literal["generic", "zero", "large", "other"]


@dataclass(frozen=True)
class Grid:
    """What values may be: numbers of so many bits, and labels that are one class each."""

    bits: int = 52
    one_hot: bool = False


@dataclass(frozen=True)
class Trial:
    """A point, what is special about it, and which input that is."""

    words: str
    point: Point
    kind: Kind = "other"
    array: str = ""


def sized_subjects(derivation: Derivation, declared: bool) -> list[Subject]:
    """The derivation with two choices of sizes; `declared` numbers are kept, or all are replaced."""
    return [Subject(replace(derivation, network=_sized(derivation.network, k, declared)), rough=False) for k in range(2)]


def has_declared_sizes(network: Network) -> bool:
    """Whether some size is a number."""
    return any(i.number is not None for i in network.indices)


def depends_on_sizes(network: Network) -> bool:
    """Whether sizes follow from one another, so that they cannot be chosen one by one where some are declared."""
    return any(i.formula is not None for i in network.indices) or bool(_reached(network))


def generic_points(subjects: list[Subject], grid: Grid) -> list[Point]:
    """One point for each choice of sizes, at which the loss is a real number."""
    found: list[Point] = []
    for k, subject in enumerate(subjects):
        for attempt in range(20):
            point = _point(subject.names, k + 2 * attempt, k, positive=attempt >= 10)
            _round(point, grid)
            if np.isfinite(float(_value(point, subject.derivation.network.loss))):
                found.append(point)
                break
        else:
            raise SymbackpropError(
                "the loss is no real number at any point that was tried; give sizes or constants that make it one"
            )
    return found


def _point(names: Names, seed: int, number: int = 0, one: bool = False, positive: bool = False) -> Point:
    """A point with the declared sizes and constants, which code may have built in."""
    held = frozenset(c for c, _ in names.network.constants)
    modes = {a.name: "positive" for a in names.network.arrays} if positive else None
    point = random_point(names, seed, Setting(one, declared=True, held=held), number, modes=modes)
    point.table.values["eta"] = np.asarray(point.table.number(Fraction(37, 100)))  # the same step size at all points
    return point


def trials(subject: Subject, grid: Grid) -> Iterator[Trial]:
    """Points that are anything but generic, one after the other."""
    names, network = subject.names, subject.derivation.network
    whole = data_indices(network.equations)
    given = [a for a in network.arrays if a.role in ("input", "parameter") and a.name not in whole]
    inputs = [a.name for a in given if a.role == "input" and not is_upstream(a.name)]
    if network.batch is not None:
        yield Trial("the batch holds one example", _rounded(_point(names, 7, one=True), grid))
    for number, (scale, words) in enumerate(_SCALES):
        point = _point(names, 21 + number)
        for name in inputs:
            point.table.values[name] = point.table.values[name] * point.table.number(sympy.Rational(str(scale)))
        yield Trial(words, _rounded(point, grid))
    for edge in _edges(network):
        for name in inputs:
            point = _point(names, 31)
            near = [edge + 0.25, edge - 0.25, edge + 0.03125, edge - 0.03125]
            yield Trial(f"{name} is near {edge:g}", _rounded(_with(point, name, near), grid))
    for (words, value), name in itertools.product(_EXTREMES, inputs):
        kind: Kind = "zero" if value == 0 else "large" if abs(value) > 1 else "other"
        point = _rounded(_point(names, 11), grid)
        values = [value, None, 0.95 * value, None, 0.9 * value, None] if kind == "large" else [value, None]  # no ties
        yield Trial(f"{name} is {words}", _with(point, name, values), kind, name)


def moved(subject: Subject, name: str, value: float, grid: Grid) -> Point:
    """The point of the extremes with another value in every second place of one input."""
    return _with(_rounded(_point(subject.names, 11), grid), name, [value, None])


def _with(point: Point, name: str, values: Sequence[float | None]) -> Point:
    """The point with these values in turn in one array; None keeps what is there."""
    array = point.table.values[name]
    flat = array.reshape(-1).copy()
    for k in range(flat.size):
        value = values[k % len(values)]
        if value is not None:
            flat[k] = point.table.number(sympy.Rational(float(value)))
    point.table.values[name] = flat.reshape(array.shape)
    return point


# ---------------------------------------------------------------------- numbers of few digits


def _round(point: Point, grid: Grid) -> None:
    """Give inputs and parameters values that numbers with so many bits hold, so that only the code rounds."""
    bits = grid.bits
    if grid.one_hot:
        for a in point.names.network.arrays:
            if a.role == "target":
                value = point.table.values[a.name].astype(float)
                hot = np.eye(value.shape[-1])[np.argmax(value, axis=-1)]
                point.table.values[a.name] = np.frompyfunc(lambda v, p=point: p.table.number(sympy.Integer(int(v))), 1, 1)(hot)
                if not point.exact:
                    point.table.values[a.name] = hot
    if bits >= 52:
        return
    for a in point.names.network.arrays:
        if a.role in ("input", "parameter", "target", "noise"):
            fraction, power = np.frexp(point.table.values[a.name].astype(float))
            plain = np.ldexp(np.rint(fraction * 2**bits) / 2**bits, power)
            exact = np.frompyfunc(lambda v, p=point: p.table.number(sympy.Rational(float(v))), 1, 1)
            point.table.values[a.name] = np.asarray(exact(plain)) if point.exact else plain


def _rounded(point: Point, grid: Grid) -> Point:
    _round(point, grid)
    return point


def _value(point: Point, name: str) -> Any:
    point.ensure([name])
    return np.asarray(point.table.values[name], dtype=float)


# ---------------------------------------------------------------------- sizes and edges


def _sized(network: Network, which: int, declared: bool) -> Network:
    """The network with a number for every size."""
    by_size: dict[str, int] = {}
    batch = next((i for i in network.indices if i.name == network.batch), None)
    reached = _reached(network)
    for i in network.indices:
        if i.size in by_size or i.name in reached:
            continue
        if declared and i.number is not None:
            by_size[i.size] = i.number
        elif batch is not None and i.size == batch.size:
            by_size[i.size] = 4 + 3 * which
        else:
            by_size[i.size] = _SIZES[which][sum(1 for s in by_size if batch is None or s != batch.size) % len(_SIZES[which])]
    numbers = {size_symbol(s): sympy.Integer(n) for s, n in by_size.items()}
    for letter, uses in reached.items():
        index = next(i for i in network.indices if i.name == letter)
        if declared and index.number is not None:
            by_size[index.size] = index.number
        else:
            by_size[index.size] = 1 + max(_furthest(u, network, by_size) for u in uses)
        numbers[size_symbol(index.size)] = sympy.Integer(by_size[index.size])
    own_batch = network.batch if batch is None or not (declared and batch.number is not None) else None
    indices = tuple(Index(i.name, i.size, by_size[i.size]) for i in network.indices)
    return replace(network, indices=indices, batch=own_batch)


def _reached(network: Network) -> Mapping[str, list[Expr]]:
    """The letters of axes that only windows reach, with the indices that reach them."""
    axes = {a.name: a.axes for a in network.arrays}
    uses: dict[str, list[Expr]] = {}
    plain: set[str] = set()
    for e in network.equations:
        plain |= {i.name for i in e.target.letters} | {i.name for t in e.terms for i in t.over}
        for element in {x for t in e.terms for x in t.body.atoms(Element)}:
            for axis, i in zip(axes.get(element.name, ()), element.indices, strict=False):
                if not is_index(unwrapped(i)) and not i.atoms(Element) and len(indices_of(i)) > 0:
                    uses.setdefault(axis, []).append(unwrapped(i))
    return {axis: own for axis, own in uses.items() if axis not in plain}


def _furthest(use: Expr, network: Network, by_size: Mapping[str, int]) -> int:
    sizes = {i.name: by_size.get(i.size, 1) for i in network.indices}
    known: dict[Expr, Expr] = {size_symbol(i.size): sympy.Integer(by_size.get(i.size, 1)) for i in network.indices}
    letters = sorted(indices_of(use), key=str)
    corners = itertools.product(*((0, sizes[i.name] - 1) for i in letters))
    values = [use.xreplace({**known, **{i: sympy.Integer(v) for i, v in zip(letters, c, strict=True)}}) for c in corners]
    numbers = [int(v) for v in values if v.is_Integer]
    if not numbers:
        raise DataError(f"it is not clear how far the index {use} reaches; give sizes=, such as sizes={{'{letters[0]}': 4}}")
    return max(numbers)


def _edges(network: Network) -> list[float]:
    """The numbers that a formula compares with, other than zero."""
    found: set[float] = set()
    bodies = [t.body for e in network.equations for t in e.terms]
    bodies += [f.body for f in network.functions if f.body is not None]
    for body in bodies:
        for p in body.atoms(sympy.Piecewise):
            for branch in p.args:
                for relation in branch.args[1].atoms(sympy.Lt, sympy.Le, sympy.Gt, sympy.Ge, sympy.Eq, sympy.Ne):
                    for side in relation.args:
                        found |= {float(n) for n in side.atoms(sympy.Rational)}
    return sorted(v for v in found if 1e-3 < abs(v) < 100)[:8]
