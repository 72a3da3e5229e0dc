"""Elements as arrays: how NumPy reaches `x[n,2*i+p-1,c]`, `W[x[n],d]` or `h[n,t-1,j]` for all values of the letters at once.

    x[n,2*i+p-1,c]     window(x, 1, (I, P), (2, 1), -1)      axes n, i, p, c; zero beyond the ends
    W[x[n],d]          W[x]                                  axes n, d
    h[n,t-1,j]         h[:, t - 1]                           within a loop over t: axes n, j, if t >= 1

A `View` rewrites a term so that each of its elements has letters for indices, and keeps the text that stands for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import sympy
from sympy import Expr, Symbol

from .notation import (
    Beyond,
    Call,
    Element,
    Equation,
    Index,
    Network,
    base_name,
    index,
    indices_of,
    is_index,
    size_symbol,
    unwrapped,
)
from .numpy_text import Names, NumpyWriter
from .solve import bounds
from .write import ATOM, Style


@dataclass(frozen=True)
class Shapes:
    """How far letters run and which axes arrays have."""

    axes: Mapping[str, tuple[str, ...]]
    indices: Sequence[Index]

    def size(self, letter: str) -> Expr:
        """The size of a letter as a symbol."""
        return size_symbol(next(i.size for i in self.indices if i.name == base_name(letter)))

    def extent(self, letter: str) -> Expr:
        """The size of a letter as a number or formula, where it is known."""
        i = next(i for i in self.indices if i.name == base_name(letter))
        return self.numeric(size_symbol(i.size))

    def numeric(self, expr: Expr) -> Expr:
        """An expression with what is known of sizes put in."""
        swap: dict[Expr, Expr] = {}
        for i in self.indices:
            symbol = size_symbol(i.size)
            if symbol in expr.free_symbols:
                swap[symbol] = (
                    sympy.Integer(i.number) if i.number is not None else self.numeric(i.formula) if i.formula else symbol
                )
        return cast(Expr, expr.xreplace(swap))

    def outside(self, e: Element) -> list[Any]:
        """What must hold for an element to lie within its array: only what can fail."""
        found: list[Any] = []
        for i, axis in zip(e.indices, self.axes.get(e.name, ()), strict=True):
            if not is_index(i) and indices_of(i) and not i.atoms(Element):
                ends = {letter: self.extent(letter.name) for letter in indices_of(i)}
                found += bounds(unwrapped(i), ends, self.extent(axis))
        return found


def shapes_of(network: Network, equations: Iterable[Equation]) -> Shapes:
    """The shapes of a network's arrays and of all that the equations compute."""
    axes = {a.name: a.axes for a in network.arrays} | {e.name: tuple(i.name for i in e.target.letters) for e in equations}
    return Shapes(axes, network.indices)


class View:
    """Rewrites the elements of one term; `fixed` are the letters that a loop runs over, with the names of its variables."""

    def __init__(
        self,
        shapes: Shapes,
        names: Names,
        style: Style,
        pieces: dict[str, str],
        fixed: Mapping[Symbol, str] | None = None,
        momentary: Mapping[str, Symbol] | None = None,
    ) -> None:
        self.shapes, self.names, self.style, self.pieces = shapes, names, style, pieces
        self.fixed = fixed or {}
        self.momentary = momentary or {}
        self.conditions: list[Any] = []
        self._known: dict[tuple[Expr, bool], Element] = {}

    def letters(self, expr: Expr) -> list[Symbol]:
        """The letters of an expression that stand for axes, in a fixed order."""
        return sorted((i for i in indices_of(expr) if i not in self.fixed), key=str)

    def plain(self, expr: Expr, whole: bool = False, factor: bool = False) -> Expr:
        """The expression with plain letters for indices; `whole` where whole numbers are compared.

        A `factor` that a loop's variable may lead beyond its array is a condition on the whole product.
        """
        if isinstance(expr, Element):
            return self.element(expr, factor, whole)
        if is_index(expr):
            return self.letter(cast(Symbol, expr), whole)
        if isinstance(expr, sympy.Piecewise):
            return self._choice(expr)
        if not expr.args or not (expr.atoms(Element) or indices_of(expr)):
            return expr
        if isinstance(expr, Call):
            return Call(expr.args[0], expr.orders, *(self.plain(a) for a in expr.arguments))  # type: ignore[arg-type]
        factor = factor and isinstance(expr, sympy.Mul)
        return cast(Expr, expr.func(*(self.plain(a, whole, factor) for a in expr.args)))

    def _choice(self, expr: Expr) -> Expr:
        branches: list[Any] = []
        before: list[Any] = []
        for value, test in (b.args for b in expr.args):
            outer, self.conditions = self.conditions, []
            new = self.plain(value, factor=True)
            # What an earlier branch took away cannot lead beyond the array: t = 0 is gone where h[t-1] is used.
            first = [t.args[0] for t in before if isinstance(t, sympy.Eq) and t.args[1] == 0]
            left = [c for c in self.conditions if not (isinstance(c, (sympy.Ge, sympy.Gt)) and _letter(c) in first)]
            self.conditions = outer
            if left:
                new = sympy.Piecewise((new, self.test(sympy.And(*left))), (0, True))
            branches.append((new, test if test in (True, False) else self.test(test)))
            before.append(test)
        return sympy.Piecewise(*branches)

    def test(self, test: Any) -> Any:
        """A condition with plain letters."""
        if isinstance(test, sympy.And):
            return sympy.And(*(self.test(part) for part in test.args))
        return test.func(*(self.plain(a, whole=True) for a in test.args), evaluate=False)

    def _piece(self, key: tuple[Expr, bool], text: str, axes: Iterable[Symbol]) -> Element:
        if key not in self._known:
            name = f"@{len(self.pieces)}"
            self.pieces[name] = text
            self._known[key] = Element(name, *axes)
        return self._known[key]

    def letter(self, letter: Symbol, whole: bool) -> Element:
        """A letter as a value: the loop's variable, or all values along an axis."""
        if letter in self.fixed:
            return self._piece((letter, whole), self.fixed[letter], ())
        count = self.count(letter)
        text = f"np.arange({count})" if whole else f"np.arange({count}, dtype=_dtype(params))"
        return self._piece((letter, whole), text, (letter,))

    def count(self, letter: Symbol) -> str:
        """The Python name of a letter's size."""
        return self.names[str(self.shapes.size(letter.name))]

    # ------------------------------------------------------------------ elements

    def element(self, e: Element, factor: bool = False, asked: bool = False) -> Expr:
        """An element with plain letters for indices, computed by a piece of text where it has others now.

        What a condition has `asked` about is no choice itself, as SymPy cannot hold one inside the other: the text chooses.
        """
        fixed_axis = self.momentary.get(e.name)
        if not fixed_axis and not any(i in self.fixed for i in indices_of(e)) and is_plain(e):
            return e
        limits = self.shapes.outside(e)
        if False in limits:
            return sympy.S.Zero  # no place of it lies within the array
        tests = [t for t in limits if not self.letters(cast(Expr, t.lhs - t.rhs))] if self.fixed else []
        text, axes = self.text(e)
        if tests and asked:
            inside = NumpyWriter(self.names, self.style, (), self.pieces).relation(self.test(sympy.And(*tests)))
            first = Element(e.args[0], *(i if self.letters(i) or i.atoms(Element) else sympy.S.Zero for i in e.indices))  # type: ignore[arg-type]
            return self._piece((e, True), f"({text} if {inside} else np.zeros_like({self.text(first)[0]}))", axes)
        piece = self._piece((e, False), text, axes)
        if tests and not factor:
            return sympy.Piecewise((piece, self.test(sympy.And(*tests))), (0, True))
        self.conditions += [t for t in tests if t not in self.conditions]
        return piece

    def text(self, e: Element) -> tuple[str, list[Symbol]]:
        """The text of an element for all values of its letters, and the letter of each axis."""
        subscripts: list[str] = []
        rest: list[tuple[Expr, str]] = []
        for i, axis in zip(e.indices, self.shapes.axes[e.name], strict=True):
            bare = unwrapped(i)
            if e.name in self.momentary and index(axis) == self.momentary[e.name]:
                continue  # only the value of this step is kept
            if bare.atoms(Element) or self.letters(bare):
                subscripts.append(":")
                rest.append((bare if self.letters(bare) != [bare] or not isinstance(i, Beyond) else i, axis))
            else:
                subscripts.append(self.place(bare, axis))
        while subscripts and subscripts[-1] == ":":
            subscripts.pop()
        text = self.names[e.name] + (f"[{', '.join(subscripts)}]" if subscripts else "")
        plain = [i for i, _ in rest if is_index(i)]
        shared = [i for i, _ in rest for j, _ in rest if i is not j and set(self.letters(i)) & set(self.letters(j))]
        if (merged := self._merged(rest) or self._split(rest)) is not None:
            return f"{text}.reshape({', '.join(self.count(i) for i in merged)})", merged
        if shared or len(set(plain)) < len(plain):
            return self._gathered(text, rest)
        axes: list[Symbol] = []
        for i, _ in rest:
            if is_index(i):
                axes.append(cast(Symbol, i))
            elif (found := self._affine(i)) is not None:
                text = self._window(text, len(axes), *found)
                axes += found[0]
            else:
                own = self.letters(i)
                places = self.places(i, own)
                beyond = not i.atoms(Element)
                if beyond:
                    text = f"take({text}, {places}, {len(axes)})"
                else:
                    text = f"{text}[{places}]" if not axes else f"np.take({text}, {places}, axis={len(axes)})"
                axes += own
        return text, axes

    def place(self, expr: Expr, axis: str) -> str:
        """An index that no axis is left of: a number, the end, or the loop's variable with an offset."""
        if expr - self.shapes.size(axis) == -1:
            return "-1"
        swap: dict[Expr, Expr] = {i: Symbol(f"@{i}") for i in self.fixed}
        return NumpyWriter(self.names, self.style).symbols(cast(Expr, expr.xreplace(swap)))

    def _affine(self, expr: Expr) -> tuple[list[Symbol], list[int], Expr, int] | None:
        """Letters, steps, start and how far apart the places lie, where an index is a sum of such."""
        if expr.atoms(Element, sympy.floor, sympy.Mod):
            return None
        expr = unwrapped(expr)
        pace = {i: self.shapes.numeric(expr.coeff(i, 1)) for i in self.letters(expr)}
        letters = sorted(pace, key=lambda i: -abs(pace[i]) if pace[i].is_number else 0)
        steps = [pace[i] for i in letters]
        start = sympy.expand(expr - sympy.Add(*(i * expr.coeff(i, 1) for i in letters)))
        if not all(c.is_Rational for c in steps) or set(letters) & indices_of(start):
            return None
        apart = math.lcm(*(int(c.q) for c in steps), *(int(a.q) for a in start.atoms(sympy.Rational)))
        return letters, [int(c * apart) for c in steps], sympy.expand(start * apart), apart

    def _window(self, text: str, at: int, letters: list[Symbol], steps: list[int], start: Expr, apart: int) -> str:
        counts = [self.count(i) for i in letters]
        comma = "," if len(counts) == 1 else ""
        places = ", ".join(counts) + comma
        pace = ", ".join(map(str, steps)) + comma
        begin = NumpyWriter(self.names, self.style).symbols(cast(Expr, start.xreplace({i: Symbol(f"@{i}") for i in self.fixed})))
        return f"window({text}, {at}, ({places}), ({pace}), {begin}{f', {apart}' if apart > 1 else ''})"

    def _split(self, rest: Sequence[tuple[Expr, str]]) -> list[Symbol] | None:
        """The letters where every index is a letter or has letters for its digits: axes are split, nothing is copied."""
        axes: list[Symbol] = []
        for i, axis in rest:
            if is_index(i):
                axes.append(cast(Symbol, i))
                continue
            found = self._affine(i)
            if found is None or found[2] != 0 or found[3] != 1 or len(found[0]) < 2:
                return None
            whole: Expr = sympy.S.One
            for letter, step in zip(reversed(found[0]), reversed(found[1]), strict=True):
                if sympy.expand(whole - step) != 0:
                    return None
                whole = sympy.expand(whole * self.shapes.extent(letter.name))
            if sympy.expand(whole - self.shapes.extent(axis)) != 0:
                return None
            axes += found[0]
        return axes if len(axes) > len(rest) else None

    def _merged(self, rest: Sequence[tuple[Expr, str]]) -> list[Symbol] | None:
        """The letters where consecutive axes are the digits of one letter: floor(f/C), mod(f, C)."""
        first = next((k for k, (i, _) in enumerate(rest) if i.atoms(sympy.floor, sympy.Mod)), None)
        if first is None:
            return None
        letters = self.letters(rest[first][0])
        last = max(k for k, (i, _) in enumerate(rest) if self.letters(i) == letters)
        if len(letters) != 1 or last == first or any(not is_index(i) for i, _ in (*rest[:first], *rest[last + 1 :])):
            return None
        whole: Expr = letters[0]
        for i, axis in reversed(rest[first + 1 : last + 1]):
            size = self.shapes.extent(axis)
            if self.shapes.numeric(i) != sympy.Mod(whole, size):
                return None
            whole = sympy.floor(whole / size)
        if self.shapes.numeric(rest[first][0]) != whole:
            return None
        return [cast(Symbol, i) for i, _ in rest[:first]] + letters + [cast(Symbol, i) for i, _ in rest[last + 1 :]]

    def places(self, expr: Expr, frame: Sequence[Symbol]) -> str:
        """An index as an array of whole numbers over the frame."""
        expr = self.shapes.numeric(expr)
        writer = NumpyWriter(self.names, self.style, frame, self.pieces, integers=True)
        apart = sympy.denom(sympy.together(expr)) if not expr.atoms(Element, sympy.floor, sympy.Mod) else sympy.S.One
        if apart != 1:
            whole = writer.expression(self.plain(sympy.expand(expr * apart), whole=True), ATOM)
            return f"np.where({whole} % {apart} == 0, {whole} // {apart}, -1)"
        return writer.expression(self.plain(expr, whole=True))

    def _gathered(self, text: str, rest: Sequence[tuple[Expr, str]]) -> tuple[str, list[Symbol]]:
        """An element several of whose axes share a letter: every axis by its own array of places."""
        frame = list(dict.fromkeys(j for i, _ in rest for j in self.letters(i)))
        places = [self.places(unwrapped(i), frame) for i, _ in rest]
        beyond = any(not is_index(i) and not i.atoms(Element) for i, _ in rest)
        arrays = ", ".join(places)
        return (f"gather({text}, {arrays})" if beyond else f"{text}[{arrays}]"), frame


def is_plain(e: Element) -> bool:
    """Whether every index is a letter of its own."""
    return all(is_index(i) for i in e.indices) and len(set(e.indices)) == len(e.indices)


def _letter(test: Any) -> Symbol | None:
    letters = indices_of(cast(Expr, test.lhs - test.rhs))
    return next(iter(letters)) if len(letters) == 1 else None
