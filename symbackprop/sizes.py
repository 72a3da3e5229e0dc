"""Index letters and their sizes: which letters run over the same values, and how many these are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import sympy
from sympy import Expr, Symbol

from .notation import Beyond, Index, base_name, indices_of, is_index, size_symbol, unwrapped


class Sizes:
    """Which index letters run over the same values, and how many these are where that is known.

    A letter is open until something says how far it runs: a declared array, a given size, or the first array that it reaches
    into with an offset or a step.
    """

    def __init__(self, given: Mapping[str, int | str | Expr] | None = None) -> None:
        self._parent: dict[str, str] = {}
        self._size: dict[str, str] = {}
        self._number: dict[str, int] = {}
        self._formula: dict[str, Expr] = {}
        self._open: set[str] = set()
        self.extend(given or {})

    def extend(self, given: Mapping[str, int | str | Expr]) -> None:
        """Give letters their sizes: a number, the name of a symbolic one, or a formula of other sizes."""
        for name, value in given.items():
            self.add(name)
            root = self.root(name)
            self._open.discard(root)
            if isinstance(value, int):
                self._number[root] = value
            elif isinstance(value, str):
                self._size[root] = value
            else:
                self._define(root, value)

    def _define(self, root: str, formula: Expr) -> None:
        formula = self.numeric(formula)
        if formula.is_Integer:
            self._number[root] = int(formula)
        elif isinstance(formula, Symbol):
            self.unify(root, cast(str, self.index_of_size(formula.name)))
        else:
            self._formula[root] = formula

    def __contains__(self, name: str) -> bool:
        return name in self._parent

    def add(self, name: str, opened: bool = False) -> None:
        """Make an index letter known; its size is the upper-case letter unless said otherwise."""
        if name not in self._parent:
            self._parent[name] = name
            self._size[name] = name.upper() if name.upper() != name else name + "_size"
            if opened:
                self._open.add(name)
        elif not opened:
            self._open.discard(self.root(name))

    def is_open(self, name: str) -> bool:
        """Whether nothing has said yet how far a letter runs."""
        return self.root(name) in self._open

    def root(self, name: str) -> str:
        """The first letter that stood for the same range."""
        name = base_name(name)
        if name not in self._parent:
            self.add(name)
        while self._parent[name] != name:
            name = self._parent[name]
        return name

    def unify(self, one: str, other: str) -> str | None:
        """Say that two letters run over the same range; what is wrong with that, or None."""
        a, b = self.root(one), self.root(other)
        if a == b:
            return None
        m, n = self.number(a), self.number(b)
        if m is not None and n is not None and m != n:
            return f"'{one}' runs over {m} values and '{other}' over {n}"
        order = list(self._parent)
        if order.index(b) < order.index(a):
            a, b = b, a
        if a in self._open or b in self._open:
            both = {a, b} - self._open
            self._open -= {a, b}
            if not both:
                self._open.add(a)
        self._parent[b] = a
        for table in (self._number, self._formula):
            if b in table:
                table.setdefault(a, table.pop(b))  # type: ignore[arg-type]
        return None

    def letters(self) -> list[str]:
        """One letter for each range."""
        return [i for i in self._parent if self.root(i) == i]

    def number(self, name: str) -> int | None:
        """The size as a number, if known."""
        root = self.root(name)
        if root not in self._number and root in self._formula:
            value = self.numeric(self._formula[root])
            if value.is_Integer:
                self._number[root] = int(value)
        return self._number.get(root)

    def numeric(self, expr: Expr) -> Expr:
        """An expression with numbers in place of the sizes that are known."""
        swap: dict[Expr, Expr] = {}
        for s in expr.free_symbols:
            letter = None if is_index(s) else self.index_of_size(s.name)
            if letter is not None:
                number = self.number(letter)
                formula = self._formula.get(letter)
                symbol = self.symbol(letter) if formula is None else self.numeric(formula)
                swap[s] = sympy.Integer(number) if number is not None else symbol
        return cast(Expr, expr.xreplace(swap))

    def symbol(self, name: str) -> Symbol:
        """The size as a symbol."""
        return size_symbol(self._size[self.root(name)])

    def index_of_size(self, size: str) -> str | None:
        """The letter whose size has this name; a range that turned out to be another's answers to its old name."""
        named = [i for i in self._parent if self._size[i] == size]
        return next((i for i in named if self.root(i) == i), self.root(named[0]) if named else None)

    def renamed(self) -> dict[Expr, Expr]:
        """The sizes of ranges that turned out to be another's: what was written before has their old names."""
        olds = {size for i, size in self._size.items() if self.root(i) != i}
        news = {size: cast(str, self.index_of_size(size)) for size in sorted(olds)}
        return {size_symbol(old): self.symbol(i) for old, i in news.items() if self._size[i] != old}

    def indices(self) -> tuple[Index, ...]:
        """All letters, for a `Network`."""
        swap, formulas = self.renamed(), {i: self._formula.get(self.root(i)) for i in self._parent}
        return tuple(
            Index(i, self._size[self.root(i)], self.number(i), f if f is None else cast(Expr, f.xreplace(swap)))
            for i, f in formulas.items()
        )

    # ------------------------------------------------------------------ how far an index reaches

    def reach(self, expr: Expr) -> tuple[Expr, Expr] | None:
        """The least and the greatest value of an index, None where that cannot be told (data, floor, mod)."""
        expr = unwrapped(expr)
        letters = indices_of(expr)
        steps = {i: expr.coeff(i, 1) for i in letters}
        rest = sympy.expand(expr - sympy.Add(*(i * c for i, c in steps.items())))
        if indices_of(rest) or not all(c.is_Rational for c in steps.values()) or not _is_size(rest):
            return None
        ends = {i: self.symbol(i.name) - 1 for i in letters}
        low = rest + sympy.Add(*(c * ends[i] for i, c in steps.items() if c < 0))
        high = rest + sympy.Add(*(c * ends[i] for i, c in steps.items() if c > 0))
        return sympy.expand(self.numeric(low)), sympy.expand(self.numeric(high))

    def fit(self, expr: Expr, axis: str) -> str | None:
        """Settle an open letter by how far the axis lets it run, then say what is wrong with an index, or None."""
        opened = [i for i in indices_of(unwrapped(expr)) if self.is_open(i.name)]
        step = expr.coeff(opened[0], 1) if len(opened) == 1 else sympy.S.Zero
        if len(opened) == 1 and step.is_Integer and step > 0:
            one = self.reach(expr.xreplace({opened[0]: sympy.S.Zero}))
            if one is not None:
                size = sympy.floor((self.symbol(axis) - 1 - one[1]) / step) + 1
                self.extend({opened[0].name: self.numeric(size)})
                if (number := self.number(opened[0].name)) is not None and number < 1:
                    return f"leaves no place for '{opened[0]}': '{axis}' has {self.number(axis)} values"
        ends = self.reach(expr)
        if ends is None:
            return None
        low, high = ends
        last = self.numeric(self.symbol(axis) - 1)
        if low.is_negative:
            return f"begins at {low}, before the first place 0"
        if sympy.expand(high - last).is_positive:
            return f"runs to {high}, and the last place is {last}"
        return None


def _is_size(expr: Expr) -> bool:
    """Whether an expression is made of numbers and sizes alone."""
    return all(isinstance(a, Symbol) or a.is_Rational for a in expr.atoms()) and not expr.atoms(Beyond)
