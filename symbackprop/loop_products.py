"""Sums of products of two arrays as products of matrices, for a compiler whose `np.dot` writes into a given matrix.

    z1[n,h] = sum(d, x[n,d]*W1[d,h])            np.dot(x, W1, z1)
    z[n,i,h] = sum(p, x[n,i+p]*W[p,h])          for n in range(N):
                                                    z_1[i, p] = x[n, i + p]  (within loops over i and p)
                                                    np.dot(z_1, W, z[n])

An array that does not lie as a matrix (a window, axes the other way round) is copied into one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from sympy import Expr, Symbol

from .algebra import group_factors
from .loop_nests import Block
from .loop_text import LoopWriter, elements_in
from .notation import Element, indices_of, is_index, unwrapped
from .views import is_plain

# A product of matrices smaller than this is faster in loops than in a call; sizes that are not known count as `_USUAL`.
_SMALL, _USUAL = 4096, 32


@dataclass(frozen=True)
class Product:
    """Two factors, and the letters of batch, rows, sum and columns; `peeled` is a letter of the sum that is looped over."""

    factors: tuple[Expr, Expr]
    batch: tuple[Symbol, ...]
    rows: tuple[Symbol, ...]
    over: tuple[Symbol, ...]
    columns: tuple[Symbol, ...]
    peeled: tuple[Symbol, ...] = ()

    @property
    def outer(self) -> tuple[Symbol, ...]:
        """The letters that are looped over."""
        return (*self.batch, *self.peeled)


class Products:
    """Finds products of matrices and writes them; `scratch` names an array that lives for one product only."""

    def __init__(self, writer: LoopWriter, numbers: Mapping[str, int | None], scratch: Callable[[str], str]) -> None:
        self.writer, self.numbers, self.scratch = writer, numbers, scratch
        self._room: list[tuple[str, tuple[str, ...]]] = []

    def find(self, inside: Expr, frame: Sequence[Symbol], over: Sequence[Symbol], fixed: Sequence[Symbol]) -> Product | None:
        """A sum over letters as a product of matrices, where it is one and worth a call."""
        factors = group_factors(inside)
        if len(factors) != 2:
            return None
        own = [indices_of(f) - set(fixed) for f in factors]
        batch = tuple(i for i in frame if i in own[0] and i in own[1])
        rows = tuple(i for i in frame if i in own[0] and i not in own[1])
        columns = tuple(i for i in frame if i in own[1] and i not in own[0])
        if not rows or not columns or not all(set(over) <= o for o in own):
            return None
        if frame.index(columns[0]) < frame.index(rows[0]):
            factors, rows, columns = factors[::-1], columns, rows
        work = math.prod(self._number(i) for i in (*rows, *columns, *over))
        return Product((factors[0], factors[1]), batch, rows, tuple(over), columns) if work >= _SMALL else None

    def _number(self, i: Symbol) -> int:
        return self.numbers.get(self.writer.size_name(i)) or _USUAL

    def block(
        self,
        product: Product,
        sides: Sequence[Element],
        place: Element,
        formula: str,
        op: str,
        fixed: Sequence[Symbol],
        tests: Sequence[Any],
    ) -> Block:
        """The lines of a product whose factors are elements: `place op product`, where the conditions hold."""
        product = _peeled(product, sides, fixed)
        plain = [e for e in sides if is_plain(e)]
        if plain:
            order = max(plain, key=self._weight).indices
            over = product.over
            product = replace(
                product, over=(*(cast(Symbol, i) for i in order if i in over), *(i for i in over if i not in order))
            )
        self._room = []
        self.writer.assumed = frozenset(tests)
        lines = self._lines(product, sides, place, op, {*product.outer, *fixed})
        self.writer.assumed = frozenset()
        if tests:
            lines = [f"if {self.writer.tests(tests)}:", *("    " + line for line in lines)]
        reads = {e.name for e in elements_in(sides)}
        return Block(
            (f"# {formula}", *lines), {place.name}, reads | ({place.name} if op != "=" else set[str]()), tuple(self._room)
        )

    def _weight(self, e: Element) -> int:
        return math.prod(self._number(i) for i in e.letters)

    def _lines(self, product: Product, sides: Sequence[Element], place: Element, op: str, around: set[Symbol]) -> list[str]:
        rows, over, columns = product.rows, product.over, product.columns
        ahead: list[str] = []
        inside: list[str] = []
        texts: list[str] = []
        for e, one, two in ((sides[0], rows, over), (sides[1], over, columns)):
            text, copy = self._matrix(e, one, two, around, place.name)
            texts.append(text)
            (inside if indices_of(e) & set(product.outer) else ahead).extend(copy)
        a, b = texts
        out, turned = self._whole_part(place, rows, columns, around)
        straight = op == "=" and not product.peeled
        if out and straight:
            inside.append(f"np.dot({_turned(b)}, {_turned(a)}, {out})" if turned else f"np.dot({a}, {b}, {out})")
        else:
            letters = (*rows, *columns)
            name = self._copy(place.name, letters)
            inside.append(f"np.dot({a}, {b}, {self._shaped(name, rows, columns)})")
            frame = [cast(Symbol, i) for i in map(unwrapped, place.indices) if i in letters]
            index = ", ".join(map(self.writer.letter, letters))
            inside += self.writer.nested(frame, [f"{self.writer.at(place)} {'=' if straight else '+='} {name}[{index}]"])
        begin: list[str] = []
        if product.peeled and op == "=":
            begin = self.writer.nested([i for i in place.letters if i not in around], [f"{self.writer.at(place)} = real(0)"])
        return [*begin, *ahead, *self.writer.nested(product.outer, inside)]

    # ------------------------------------------------------------------ arrays as matrices

    def _sized(self, letters: Sequence[Symbol]) -> str:
        return " * ".join(map(self.writer.size, letters))

    def _shaped(self, text: str, rows: Sequence[Symbol], columns: Sequence[Symbol]) -> str:
        """An array that lies as rows and columns, as a matrix."""
        if len(rows) == len(columns) == 1:
            return text
        return f"{text}.reshape(({self._sized(rows)}, {self._sized(columns)}))"

    def _copy(self, stem: str, letters: Sequence[Symbol]) -> str:
        name = self.scratch(stem)
        self._room.append((name, tuple(map(self.writer.size_name, letters))))
        return self.writer.names[name]

    def _part(self, e: Element, around: set[Symbol]) -> tuple[str, tuple[Symbol, ...]] | None:
        """A part of an array that lies in one piece, and its letters: indices that loops give come first."""
        if not is_plain(e):
            return None
        inside = [i not in around for i in e.letters]
        count = inside.index(True) if True in inside else len(inside)
        if not all(inside[count:]):
            return None
        before = ", ".join(map(self.writer.letter, e.letters[:count]))
        return self.writer.names[e.name] + (f"[{before}]" if before else ""), e.letters[count:]

    def _matrix(
        self, e: Element, rows: Sequence[Symbol], columns: Sequence[Symbol], around: set[Symbol], stem: str
    ) -> tuple[str, list[str]]:
        """An element as a matrix, and the lines that copy it where it does not lie as one."""
        if e.name not in self.writer.whole:
            text, turned = self._whole_part(e, rows, columns, around)
            if text:
                return (f"{text}.T" if turned else text), []
        # The copy lies so that what lies together stays together.
        last = next((i for i in reversed(e.indices) if indices_of(i) - around), None)
        turned = last is not None and not indices_of(last) & set(columns)
        order = [*columns, *rows] if turned else [*rows, *columns]
        name = self._copy(stem, order)
        index = ", ".join(map(self.writer.letter, order))
        copy = self.writer.nested(order, [f"{name}[{index}] = {self.writer.element(e)}"])
        return (f"{self._shaped(name, columns, rows)}.T" if turned else self._shaped(name, rows, columns)), copy

    def _whole_part(
        self, e: Element, rows: Sequence[Symbol], columns: Sequence[Symbol], around: set[Symbol]
    ) -> tuple[str | None, bool]:
        """An array that lies as a matrix with these rows and columns, or (then true) the other way round."""
        part = self._part(e, around)
        if part is None:
            return None, False
        text, letters = part
        if letters == (*rows, *columns):
            return self._shaped(text, rows, columns), False
        return (self._shaped(text, columns, rows), True) if letters == (*columns, *rows) else (None, False)


def _turned(matrix: str) -> str:
    return matrix[:-2] if matrix.endswith(".T") else f"{matrix}.T"


def _peeled(product: Product, sides: Sequence[Element], fixed: Sequence[Symbol]) -> Product:
    """A window is copied for one example at a time, so that its rows stay in the cache."""
    for e, own in zip(sides, ("rows", "columns"), strict=True):
        first = e.indices[0]
        window = any(len(indices_of(i) - set(fixed)) > 1 for i in e.indices)
        if not window or not is_index(first) or product.batch:
            continue
        letters: tuple[Symbol, ...] = getattr(product, own)
        if first in letters and len(letters) > 1:
            return replace(product, batch=(first,), **{own: tuple(i for i in letters if i != first)})
        if first in product.over and len(product.over) > 1:
            return replace(product, peeled=(first,), over=tuple(i for i in product.over if i != first))
    return product
