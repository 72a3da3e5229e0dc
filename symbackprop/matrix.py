"""Equations as matrix formulas: `sum(n, x[n,d]*dz1[n,h])` is `X^T Δ1`, element-wise products are `⊙`.

Rows are the first axis (the batch), columns the second. What has more than two axes stays in index form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import sympy
from sympy import Expr, Symbol

from .algebra import group_factors
from .latex import LatexWriter
from .notation import Call, Element, Equation, Term, base_name, elements_of, indices_of, size_symbol
from .unicode_text import TextWriter
from .write import ATOM, POWER, PRODUCT, SUM, Style, Writer


@dataclass(frozen=True)
class Signs:
    """How a form writes the signs of matrix algebra."""

    transpose: str
    hadamard: str
    times: str
    one: str
    power: str


TEXT = Signs("ᵀ", " ⊙ ", " ", "𝟏", "^⊙")
LATEX = Signs(r"^\top", r" \odot ", r" \, ", r"\mathbf{1}", r"^{\odot %s}")


class _NoMatrixForm(Exception):
    """This equation has more than two axes somewhere."""


def matrix_equation(equation: Equation, style: Style, latex: bool) -> str | None:
    """The matrix form of an equation, or None where it has none."""
    elements = [equation.target, *(e for t in equation.terms for e in elements_of(t.body))]
    if not any(e.indices for e in elements):
        return (LatexWriter if latex else TextWriter)(style).equation(equation)
    try:
        writer = _Matrices(style, latex, _axes(equation.target, style))
        parts = [writer.term(t) for t in equation.terms]
    except _NoMatrixForm:
        return None
    minus = "-" if latex else "−"
    text = ""
    for part in parts:
        joined = f" {minus} {part[len(minus) :]}" if part.startswith(minus) else f" + {part}"
        text += joined if text else part
    return f"{writer.name(equation.target)} = {text or '0'}"


def _axes(e: Element, style: Style) -> tuple[Symbol, ...]:
    """The letters of an array's rows and columns as it is written."""
    return tuple(reversed(e.letters)) if e.name in style.flipped else e.letters


class _Matrices:
    """Writes terms over a frame of at most two axes."""

    def __init__(self, style: Style, latex: bool, frame: Sequence[Symbol]) -> None:
        if len(frame) > 2:
            raise _NoMatrixForm
        self.style, self.latex, self.frame = style, latex, tuple(frame)
        self.signs = LATEX if latex else TEXT
        self.writer: Writer = (LatexWriter if latex else TextWriter)(style)

    def name(self, e: Element) -> str:
        """An array as a whole: a capital for a matrix, as it stands for a vector or scalar."""
        array = self.style.adjoints.get(e.name)
        rank = len(e.indices)
        if array is not None:
            if array in self.style.deltas:
                delta = "Δ" if rank == 2 else "δ"
                latex = r"\Delta" if rank == 2 else r"\delta"
                return self._marked(e, f"{latex}^{{({array[1:]})}}") if self.latex else f"{delta}{array[1:]}"
            plain = _Matrices(replace(self.style, kinds={}), self.latex, self.frame)
            inner, loss = plain.name(Element(array, *e.indices)), plain.writer.element(Element(self.style.loss))
            return self._marked(e, rf"\frac{{\partial {loss}}}{{\partial {inner}}}") if self.latex else f"∂{loss}/∂{inner}"
        name = e.name
        if rank == 2 and (len(name) == 1 or not name[1].isalpha()):
            name = name[0].upper() + name[1:]
        plain = type(self.writer)(replace(self.style, kinds={})).element(Element(name))
        return self._marked(e, plain) if self.latex else plain

    def _marked(self, e: Element, text: str) -> str:
        kind = self.style.kinds.get(e.name)
        return rf"\kind{{{kind}}}{{{text}}}" if kind else text

    def term(self, term: Term) -> str:
        """A term: scalars, then what multiplies element by element, then the contraction."""
        if term.reduce != "sum":
            raise _NoMatrixForm
        absent = [i for i in term.over if i not in indices_of(term.body)]
        for i in absent:
            size = size_symbol(self.style.sizes[base_name(i.name)])
            term = Term(term.body * size, tuple(j for j in term.over if j != i))
        if not term.over and not self.frame:
            return self.writer.expression(term.body)
        if not term.over:
            text, binding = self.elementwise(term.body, self.frame)
            if self.frame and not indices_of(term.body):
                one, transpose, times = self.signs.one, self.signs.transpose, self.signs.times
                ones = one if len(self.frame) == 1 else f"{one}{times}{one}{transpose}"
                return f"{self._wrap(text, binding, PRODUCT)}{times}{ones}"
            return text
        outside, inside = self._pull(term)
        contracted = self._contract(inside, term.over)
        kept = [i for i in self.frame if i in indices_of(inside)]
        if len(self.frame) == 2 and kept == [self.frame[0]]:
            contracted = self.signs.times.join((contracted, self.signs.one + self.signs.transpose))
        elif len(self.frame) == 2 and kept == [self.frame[1]]:
            contracted = self.signs.times.join((self.signs.one, self._transposed(self._bracketed(contracted))))
        if outside == 1:
            return contracted
        sign, scalars, arrays = self._factors(outside, self.frame)
        text = self._scalars(scalars)
        body = self.signs.hadamard.join([*arrays, self._bracketed(contracted) if arrays else contracted])
        return ("-" if self.latex else "−") * (sign < 0) + " ".join(filter(None, (text, body)))

    def _pull(self, term: Term) -> tuple[Expr, Expr]:
        inside = [f for f in sympy.Mul.make_args(term.body) if indices_of(cast(Expr, f)) & set(term.over)]
        outside = [f for f in sympy.Mul.make_args(term.body) if f not in inside]
        return sympy.Mul(*outside), sympy.Mul(*inside)

    def _bracketed(self, text: str) -> str:
        return self.writer.bracket(text) if " " in text else text

    def _contract(self, body: Expr, over: Sequence[Symbol]) -> str:
        kept = [i for i in self.frame if i in indices_of(body)]
        groups = self._groups(body, over, kept)
        one, transpose, times = self.signs.one, self.signs.transpose, self.signs.times
        if len(groups) == 1:
            axes = [*kept, *over] if len(over) + len(kept) <= 2 else []
            if not axes:
                raise _NoMatrixForm
            natural = self._natural(body, axes)
            inner, binding = self.elementwise(body, natural)
            inner = self._wrap(inner, binding, PRODUCT + 1)
            if len(over) == 2:
                return times.join((one + transpose, inner, one))
            if not kept:
                return times.join((one + transpose, inner))
            if natural[0] == over[0]:
                return times.join((self._transposed(inner), one))
            return times.join((inner, one))
        if len(groups) != 2 or len(over) != 1:
            raise _NoMatrixForm
        first, second = groups
        if set(indices_of(first) & indices_of(second)) != set(over):
            raise _NoMatrixForm
        own = [[i for i in kept if i in indices_of(g)] for g in groups]
        if (own[0] and own[1] and kept.index(own[1][0]) < kept.index(own[0][0])) or (own[1] and not own[0]):
            first, second, own = second, first, [own[1], own[0]]
        if not kept:
            return times.join((self._transposed(self._oriented(first, over)), self._oriented(second, over)))
        return times.join((self._oriented(first, [*own[0], *over]), self._oriented(second, [*over, *own[1]])))

    def _groups(self, body: Expr, over: Sequence[Symbol], kept: Sequence[Symbol]) -> list[Expr]:
        if len(kept) + len(over) <= 2 and len(kept) < 2:
            factors = [cast(Expr, f) for f in sympy.Mul.make_args(body)]
            matrices = [f for f in factors if len(indices_of(f)) == 2]
            vectors = [f for f in factors if len(indices_of(f)) == 1]
            if len(over) == 1 and kept and matrices and vectors:
                return [sympy.Mul(*matrices), sympy.Mul(*vectors)]
            if len(over) == 1 and not kept and len(factors) == 2:
                return factors
            return [body]
        return group_factors(body)

    def _natural(self, body: Expr, axes: Sequence[Symbol]) -> list[Symbol]:
        best = max(elements_of(body), key=lambda e: len(e.indices))
        first = [i for i in _axes(best, self.style) if i in axes]
        return [*first, *(i for i in axes if i not in first)]

    def _oriented(self, body: Expr, axes: Sequence[Symbol]) -> str:
        natural = self._natural(body, axes)
        text, binding = self.elementwise(body, natural)
        text = self._wrap(text, binding, ATOM if natural != list(axes) else PRODUCT + 1)
        if len(axes) == 1:
            # a vector is a column: a row where the product starts with the summed axis
            return text
        return self._transposed(text) if natural != list(axes) else text

    def _transposed(self, text: str) -> str:
        if self.latex and (marked := re.fullmatch(r"\\kind\{(\w+)\}\{(.*)\}", text)) and r"\kind" not in marked[2]:
            return rf"\kind{{{marked[1]}}}{{{self._transposed(marked[2])}}}"
        if self.latex and (layer := re.fullmatch(r"([^\s{}^]+)\^\{(\(\d+\))\}", text)):
            return rf"{layer[1]}^{{{layer[2]}\top}}"
        if not self.latex and "∂" in text and not text.startswith("("):
            text = f"({text})"
        power = self.latex and ("^" in text or "frac" in text) and not text.startswith(r"\left")
        return (rf"\left({text}\right)" if power else text) + self.signs.transpose

    def _wrap(self, text: str, binding: int, wanted: int) -> str:
        return self.writer.bracket(text) if binding < wanted else text

    # ------------------------------------------------------------------ element by element

    def elementwise(self, expr: Expr, frame: Sequence[Symbol]) -> tuple[str, int]:
        """An expression over the frame and how tightly it binds."""
        if isinstance(expr, Element):
            return self._placed(expr, frame)
        if isinstance(expr, sympy.Add):
            return self._sum(expr, frame), SUM
        if isinstance(expr, sympy.Mul) or (isinstance(expr, sympy.Pow) and expr.exp.could_extract_minus_sign()):
            sign, scalars, arrays = self._factors(expr, frame)
            text = " ".join(filter(None, (self._scalars(scalars), self.signs.hadamard.join(arrays))))
            minus = ("-" if self.latex else "−") if sign < 0 else ""
            return minus + text, SUM if sign < 0 else PRODUCT
        if isinstance(expr, sympy.Pow) and expr.exp.is_Integer:
            base, exponent = self.elementwise(expr.base, frame), str(expr.exp)
            raised = self.signs.power % exponent if self.latex else self.signs.power + exponent
            text = self._wrap(*base, ATOM)
            if self.latex and "^" in text and not text.startswith(r"\left"):
                text = rf"\left({text}\right)"
            return text + raised, POWER
        if not elements_of(expr):
            return self.writer.expression(expr, PRODUCT), PRODUCT
        return self._function(expr, frame), ATOM

    def _sum(self, expr: Expr, frame: Sequence[Symbol]) -> str:
        ordered = sorted(
            cast("tuple[Expr, ...]", expr.args),
            key=lambda a: (self._is_negative(a), not a.is_number, -self.writer.rank(a), str(a)),
        )
        minus = "-" if self.latex else "−"
        text = ""
        for a in ordered:
            negative = self._is_negative(a)
            part = self._wrap(*self.elementwise(-a if negative else a, frame), PRODUCT if negative else SUM)
            text += (f" {minus} " if text else minus) if negative else (" + " if text else "")
            text += part
        return text

    def _is_negative(self, expr: Expr) -> bool:
        return self.writer.split(expr)[0] < 0 if isinstance(expr, sympy.Mul) else expr.could_extract_minus_sign()

    def _factors(self, expr: Expr, frame: Sequence[Symbol]) -> tuple[int, tuple[list[Expr], list[Expr]], list[str]]:
        """Sign, scalar factors (above, below) and the arrays, each ready for an element-wise product."""
        sign, above, below = self.writer.split(expr)
        scalars = ([f for f in above if not elements_of(f)], [f for f in below if not elements_of(f)])
        scalar_arrays = [f for f in above if elements_of(f) and not indices_of(f)]
        arrays = [self._wrap(*self.elementwise(f, frame), PRODUCT + 1) for f in above if indices_of(f)]
        divisors = [f for f in below if elements_of(f)]
        if divisors:
            divisor = self._wrap(*self.elementwise(sympy.Mul(*divisors), frame), PRODUCT)
            top = self.signs.hadamard.join(arrays) or "1"
            text = rf"\frac{{{top}}}{{{divisor}}}" if self.latex else f"{self._bracketed(top)} ⊘ {self._bracketed(divisor)}"
            arrays = [text]
        return sign, ([*scalars[0], *scalar_arrays], scalars[1]), arrays

    def _scalars(self, scalars: tuple[list[Expr], list[Expr]]) -> str:
        above, below = scalars
        if not above and not below:
            return ""
        return self.writer.fraction(above, below)[0]

    def _placed(self, e: Element, frame: Sequence[Symbol]) -> tuple[str, int]:
        text = self.name(e)
        own = _axes(e, self.style)
        if not own or own == tuple(frame):
            return text, ATOM
        if len(own) == 2 and tuple(reversed(own)) == tuple(frame):
            return self._transposed(text), ATOM
        if len(e.indices) == 1 and len(frame) == 2:
            one, transpose, times = self.signs.one, self.signs.transpose, self.signs.times
            if e.indices[0] == frame[0]:
                return f"{text}{times}{one}{transpose}", PRODUCT
            return f"{one}{times}{self._transposed(text)}", PRODUCT
        raise _NoMatrixForm

    def _function(self, expr: Expr, frame: Sequence[Symbol]) -> str:
        """A function applied element by element: its text with whole arrays for elements."""
        swap: Mapping[Element, Element] = {e: Element(f"\0{k}") for k, e in enumerate(elements_of(expr)) if e.indices}
        text = self.writer.expression(cast(Expr, expr.xreplace(dict(swap))))
        for e, placeholder in swap.items():
            if self.latex:
                raised = self.writer.element(placeholder) + "^"
                text = text.replace(raised, rf"\left({self._placed(e, frame)[0]}\right)^")
            text = text.replace(self.writer.element(placeholder), self._wrap(*self._placed(e, frame), PRODUCT))
        if isinstance(expr, Call) or text.endswith((")", "]", "|")) or text.startswith("\\"):
            return text
        return self.writer.bracket(text)
