"""Arrays that are filled place by place: what one step of a short loop puts, or adds, to many places at once.

    y[i] = sum(p, h, x[i-p,h]*W[p,h])      y[p:p + K] += x @ W[p]                for each p of the kernel
    y[i] = x[floor(i/2)]*[mod(i,2) = 1]    y.reshape(I // 2, 2)[:, q] = x*[q = 1]    for each rest q

Each step then is a product of matrices, or a few operations on whole arrays, and nothing is copied to line windows up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import sympy
from sympy import Expr, Symbol

from .notation import Element, Term, elements_of, index, indices_of, is_index
from .views import Shapes


@dataclass(frozen=True)
class Axis:
    """An axis of the array that is filled: its size (a letter or a number), and where along it one step goes.

    That is everywhere, at the place of a letter, or at `count` places from there on (or from the number `begin`), `pace` apart.
    """

    size: Symbol | int
    at: Symbol | None = None
    count: Symbol | int | None = None
    pace: int = 1
    begin: int | None = None

    def text(self, counters: Mapping[Symbol, str], size: Callable[[Symbol | int], str]) -> str:
        """The subscript, with the loop's variables by their names."""
        start = str(self.begin) if self.begin is not None else counters[self.at] if self.at is not None else ""
        if not start or self.count is None:
            return start or ":"
        if self.pace == 1:
            return f"{start}:{start} + {size(self.count)}"
        return f"{start}:{start} + {self.pace} * {size(self.count)} - {self.pace - 1}:{self.pace}"


@dataclass(frozen=True)
class Filling:
    """What each step puts or adds (`sign`): a `term` over the axes `frame`, for all values of the letters `over`.

    Where the array has other axes than the result its name ends in `stem`; `cut` says which part of it is the result.
    """

    term: Term
    over: Mapping[Symbol, Symbol | int]
    frame: tuple[Symbol, ...]
    axes: tuple[Axis, ...]
    sign: str
    stem: str = ""
    cut: tuple[Axis, ...] = ()


@dataclass(frozen=True)
class _Shift:
    """An index (i - p + behind)/step of an axis whose own letter is `source`."""

    source: Symbol
    target: Symbol
    kernel: Symbol
    step: int
    behind: int


def spread(term: Term, frame: Sequence[Symbol], shapes: Shapes) -> Filling | None:
    """A sum over windows, the other way round: for each place of the kernel, what all windows get from there is added up.

    sum(p, h, x[i-p,h]*W[p,h]) for all i is what sum(h, x[k,h]*W[p,h]) adds to i = k + p, for p after p.
    """
    factors = cast("tuple[Expr, ...]", sympy.Mul.make_args(term.body))
    sides = [f for f in factors if isinstance(f, Element)]
    if term.reduce != "sum" or len(sides) != len(factors) or len(sides) != 2:
        return None
    moved = [e for e in sides if not all(map(is_index, e.indices))]
    if len(moved) != 1:
        return None
    e, w = moved[0], sides[1 - sides.index(moved[0])]
    own: list[Expr] = []
    shifts: dict[Symbol, _Shift] = {}
    for i, axis in zip(e.indices, shapes.axes[e.name], strict=True):
        if is_index(i):
            own.append(i)
            continue
        found = _shift(i, index(axis), frame, term.over, shapes)
        if found is None:
            return None
        shifts[found.target] = found
        own.append(index(axis))
    kernel = {s.kernel: s.kernel for s in shifts.values()}
    sources = {s.source for s in shifts.values()}
    apart = set(kernel) <= set(w.indices) and not set(kernel) & set(own) and not set(shifts) & {*own, *w.indices}
    if not apart or len(set(own)) < len(own) or sources & {*frame, *term.over, *w.indices}:
        return None
    body = Element(e.args[0], *own) * w  # type: ignore[arg-type]
    axes: list[Axis] = []
    cut: list[Axis] = []
    for i in frame:
        if i not in shifts:
            axes.append(Axis(i))
            cut.append(Axis(i))
            continue
        s = shifts[i]
        whole = s.step * (_count(shapes, s.source) - 1) + _count(shapes, s.kernel)
        fits = not s.behind and whole <= _count(shapes, i)
        axes.append(Axis(i if fits else whole, s.kernel, s.source, s.step))
        cut.append(Axis(i) if fits else Axis(i, count=i, begin=s.behind))
    if all(c.begin is None for c in cut):
        cut = []
    left = tuple(i for i in term.over if i not in kernel)
    turned = tuple(shifts[i].source if i in shifts else i for i in frame)
    return Filling(Term(body, left), kernel, turned, tuple(axes), "+=", "wide" if cut else "", tuple(cut))


def _shift(expr: Expr, source: Symbol, frame: Sequence[Symbol], over: Sequence[Symbol], shapes: Shapes) -> _Shift | None:
    """Where an index is (i - p)/step + c: its own letter, i, p, the step, and how far i lies behind step*source + p."""
    letters = indices_of(expr)
    target = [i for i in letters if i in frame]
    summed = [i for i in letters if i in over]
    if len(target) != 1 or len(summed) != 1 or len(letters) != 2 or expr.atoms(Element, sympy.floor, sympy.Mod):
        return None
    (i,), (p,) = target, summed
    pace = expr.coeff(i, 1)
    rest = sympy.expand(expr - pace * (i - p))
    sizes = [shapes.extent(x.name) for x in (source, i, p)]
    if not (pace.is_Rational and pace > 0 and pace.p == 1) or not rest.is_Rational or not all(s.is_Integer for s in sizes):
        return None
    step, behind = int(pace.q), rest * pace.q
    length, reach, width = map(int, sizes)
    if not behind.is_Integer or behind < 0 or int(behind) + reach > step * (length - 1) + width:
        return None
    return _Shift(source, i, p, step, int(behind))


def _count(shapes: Shapes, letter: Symbol) -> int:
    return int(shapes.extent(letter.name))


def by_rest(term: Term, frame: Sequence[Symbol], shapes: Shapes) -> Filling | None:
    """What depends on indices by quotient and rest alone, floor(i/2) and mod(i, 2), is filled rest by rest.

    y[i] = x[floor(i/2)]*[mod(i, 2) = k[floor(i/2)]] is a matrix of i//2 and i % 2 whose columns are x[i]*[q = k[i]].
    """
    if term.over or term.reduce != "sum" or not any(i.has(sympy.floor) for e in elements_of(term.body) for i in e.indices):
        return None
    body = shapes.numeric(term.body)
    parted: dict[Symbol, tuple[Symbol, Symbol, int]] = {}
    for e in elements_of(body):
        for i, axis in zip(e.indices, shapes.axes[e.name], strict=True):
            letter, size = _quotient(i)
            if letter is None or letter not in frame:
                continue
            if shapes.extent(letter.name) != size * shapes.extent(axis) or index(axis) in frame:
                return None
            parted.setdefault(letter, (index(axis), index(f"{letter.name}%"), size))
    swap: dict[Expr, Expr] = {}
    for letter, (whole, rest, size) in parted.items():
        swap |= {sympy.floor(letter / size): whole, sympy.Mod(letter, size): rest}
    body = cast(Expr, body.xreplace(swap))
    if not parted or set(parted) & indices_of(body) or len({whole for whole, *_ in parted.values()}) < len(parted):
        return None
    axes: list[Axis] = []
    for i in frame:
        if i in parted:
            whole, rest, size = parted[i]
            axes += [Axis(whole), Axis(size, rest)]
        else:
            axes.append(Axis(i))
    over = {rest: size for _, rest, size in parted.values()}
    turned = tuple(parted[i][0] if i in parted else i for i in frame)
    return Filling(Term(body), over, turned, tuple(axes), "=", "parts")


def _quotient(expr: Expr) -> tuple[Symbol | None, int]:
    """The letter and the number of floor(letter/number)."""
    if isinstance(expr, sympy.floor):
        for letter in indices_of(expr):
            size = letter / expr.args[0]
            if size.is_Integer and size > 1:
                return letter, int(size)
    return None, 0
