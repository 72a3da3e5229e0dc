"""Equations to array statements: which contraction is a matrix product, how axes line up, what each line of NumPy says.

    z1[n,h] = sum(d, x[n,d]*W1[d,h]) + b1[h]     becomes     z1 = x @ W1 + b1

A `Statement` is a name, the text of its value and the formula it computes; templates only print them.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import sympy
from sympy import Expr, Symbol

from .algebra import group_factors
from .notation import Call, Element, Equation, Term, base_name, elements_of, indices_of, size_symbol
from .write import ATOM, POWER, PRODUCT, Style, Writer, is_indicator


@dataclass(frozen=True)
class Statement:
    """`name = code`, and the formula it stands for."""

    name: str
    code: str
    formula: str


class Names:
    """Python names for arrays, functions and constants: safe, unique, as close to the mathematics as can be."""

    def __init__(self, reserved: Iterable[str] = (), given: Mapping[str, str] | None = None) -> None:
        self._given = dict(given or {})
        self._taken = {*reserved, *keyword.kwlist, *keyword.softkwlist, *self._given.values()}

    def __getitem__(self, name: str) -> str:
        if name not in self._given:
            plain = unicodedata.normalize("NFKC", name.replace("'", "_prime"))
            plain = re.sub(r"\W", "_", plain)
            while plain in self._taken:
                plain += "_"
            self._taken.add(plain)
            self._given[name] = plain
        return self._given[name]


class NumpyWriter(Writer):
    """Element-wise NumPy over a frame of axes: every array is turned and widened to line up with the frame."""

    def __init__(
        self,
        names: Names,
        style: Style,
        frame: Sequence[Symbol] = (),
        pieces: Mapping[str, str] | None = None,
        scalars: bool = False,
    ) -> None:
        super().__init__(style)
        self.names = names
        self.frame = tuple(frame)
        self.pieces = pieces or {}
        self.scalars = scalars

    def element(self, e: Element) -> str:
        text = self.pieces.get(e.name) or self.names[e.name]
        if " @ " in text and aligned(text, e.indices, self.frame) != text:
            text = f"({text})"
        return aligned(text, e.indices, self.frame)

    def factors(self, factors: list[Expr]) -> str:
        # An indicator is a boolean array: it may multiply a number, but it is none itself.
        indicators = [f for f in factors if is_indicator(f)]
        others = [f for f in factors if not is_indicator(f)]
        if indicators and any(elements_of(f) for f in others):
            ones = [f"({self.relation(f.args[0].args[1])})" for f in indicators]
            return self.times.join([*(self._factor(f, len(factors)) for f in others), *ones])
        return self.times.join(self._factor(f, len(factors)) for f in factors)

    def _factor(self, f: Expr, count: int) -> str:
        text = self.expression(f, PRODUCT + (count > 1))
        # `@` and `*` have one precedence: a product of both must say which comes first.
        return f"({text})" if count > 1 and isinstance(f, Element) and " @ " in text and not text.startswith("(") else text

    def symbol(self, s: Symbol) -> str:
        return self.names[s.name]

    def number(self, value: Expr) -> tuple[str, int]:
        if value.q == 1 and abs(value.p) < 10**15:
            return (str(value.p), ATOM) if value >= 0 else (f"-{-value.p}", 1)
        if value.q <= 20 and value > 0:
            return f"{value.p} / {value.q}", PRODUCT
        return repr(float(value)), ATOM if value > 0 else 1

    times, over_ = " * ", " / "

    def rank(self, expr: Expr) -> int:
        # A matrix product comes before what is added to it.
        return max(
            (10**7 if e.name in self.pieces else super(NumpyWriter, self).rank(e) for e in expr.atoms(Element)),
            default=-1,
        )

    def split(self, expr: Expr) -> tuple[int, list[Expr], list[Expr]]:
        numbers = [a for a in sympy.Mul.make_args(expr) if a.is_number]
        if any(not n.is_Rational and n != sympy.pi for n in numbers):
            # sqrt(2)/sqrt(pi) is one number, not three operations
            value = sympy.Rational(repr(float(sympy.Mul(*numbers))))
            expr = sympy.Mul(*(a for a in sympy.Mul.make_args(expr) if not a.is_number)) * value
        return super().split(expr)

    def narrow(self, name: str, argument: Expr) -> str:
        """A function of what has fewer axes than the frame is computed on these axes first."""
        own = indices_of(argument)
        inner = self.frame if own >= set(self.frame) else tuple(i for i in self.frame if i in own)
        writer = NumpyWriter(self.names, self.style, inner, self.pieces, self.scalars)
        return aligned(f"{name}({writer.expression(argument)})", inner, self.frame)

    def _write(self, expr: Expr) -> tuple[str, int]:
        if isinstance(expr, sympy.Add) and len(expr.args) == 2 and sympy.S.NegativeOne in expr.args:
            power = expr + 1
            if isinstance(power, sympy.exp):
                return self.narrow("np.expm1", cast(Expr, power.args[0])), ATOM
        return super()._write(expr)

    def root(self, base: Expr) -> tuple[str, int]:
        if base.is_number:
            return repr(float(sympy.sqrt(base))), ATOM
        return f"np.sqrt({self.expression(base)})", ATOM

    def power(self, base: Expr, exponent: Expr) -> tuple[str, int]:
        text = f"{self.expression(base, ATOM)} ** {self.expression(exponent, ATOM)}"
        return text, POWER

    def pi(self) -> str:
        return "np.pi"

    def function(self, name: str, argument: Expr) -> str:
        if name == "log" and isinstance(argument, sympy.Add) and sympy.S.One in argument.args and argument.has(sympy.exp):
            return self.narrow("np.log1p", argument - 1)
        if name == "log" and argument.is_number:
            return repr(float(sympy.log(argument)))
        return self.narrow("erf" if name == "erf" else f"np.{name}", argument)

    def call(self, c: Call) -> str:
        name = {"max": "np.maximum", "min": "np.minimum"}.get(c.name) or self.names[c.name]
        text = f"{name}({', '.join(map(self.expression, c.arguments))})"
        # NumPy's own scalars, unlike Python's, would turn single precision into double.
        return text if elements_of(c) or self.scalars else f"float({text})"

    def piecewise(self, expr: Expr) -> tuple[str, int]:
        branches = [(cast(Expr, b.args[0]), b.args[1]) for b in expr.args]
        if len(branches) == 2:
            (then, test), (other, _) = branches
            if is_indicator(expr):
                anchor = self.names[elements_of(test)[0].name]
                return f"({self.relation(test)}).astype({anchor}.dtype)", ATOM
            left, right = cast("tuple[Expr, Expr]", test.args)
            if (then, other) == (left, right) and not self.scalars:
                name = "maximum" if isinstance(test, (sympy.Gt, sympy.Ge)) else "minimum"
                return f"np.{name}({self.expression(left)}, {self.expression(right)})", ATOM
        text = self.expression(branches[-1][0])
        for then, test in reversed(branches[:-1]):
            text = f"np.where({self.relation(cast(Expr, test))}, {self.expression(then)}, {text})"
        if not any(elements_of(value) for value, _ in branches):
            # of numbers alone NumPy would make an array of double precision
            text += f".astype({self.names[elements_of(branches[0][1])[0].name]}.dtype)"
        return text, ATOM


def aligned(text: str, axes: Sequence[Symbol], frame: Sequence[Symbol]) -> str:
    """An array with these axes, turned into the order of the frame and widened where an inner axis is missing."""
    frame = tuple(frame)
    order = [a for a in frame if a in axes]
    if list(axes) != order:
        turn = [list(axes).index(a) for a in order]
        text += ".T" if turn == [1, 0] else f".transpose({', '.join(map(str, turn))})"
    if order and frame[-len(order) :] != tuple(order):
        first = list(frame).index(order[0])
        text += "[" + ", ".join(":" if a in order else "None" for a in frame[first:]) + "]"
    return text


class Planner:
    """Plans equations one by one; `names` gives Python names, `style` the formulas in the comments.

    `forward` is the style of equations that are no derivatives.
    """

    def __init__(self, names: Names, style: Style, forward: Style | None = None) -> None:
        self.names = names
        self.style = style
        self._derivatives = Writer(style)
        self._forward = Writer(forward or style)

    def statement(self, equation: Equation) -> Statement:
        """The statement that computes an equation."""
        frame = equation.target.indices
        pieces: dict[str, str] = {}
        body: Expr = sympy.S.Zero
        for term in equation.terms:
            body += self._without_sum(term, frame, pieces)
        code = NumpyWriter(self.names, self.style, frame, pieces).expression(body)
        if indices_of(body) != set(frame) or (not frame and not elements_of(body)):
            sizes = ", ".join(self.size(i) for i in frame)
            comma = "," if len(frame) == 1 else ""
            code = f"np.full(({sizes}{comma}), {code}, _dtype(params))" if frame else f"np.asarray({code}, _dtype(params))"
        writer = self._forward if equation.name in self._forward.style.order else self._derivatives
        formula = writer.equation(equation)
        return Statement(self.names[equation.name], code, formula)

    def size(self, i: Symbol) -> str:
        """The Python name of an index' size."""
        return self.names[self.style.sizes[base_name(i.name)]]

    def _without_sum(self, term: Term, frame: Sequence[Symbol], pieces: dict[str, str]) -> Expr:
        """A term as an element-wise expression, its sums computed by pieces of text that stand in as elements."""
        term = self._times_absent(term)
        if not term.over:
            return term.body
        outside, inside = self._pull(term)
        axes = [i for i in frame if i in indices_of(inside)]
        text = self._reduced(replace(term, body=inside), axes)
        name = f"@{len(pieces)}"
        pieces[name] = text
        return outside * Element(name, *axes)

    def _times_absent(self, term: Term) -> Term:
        """A sum over an index that the body lacks is the body times the size of the index."""
        absent = [i for i in term.over if i not in indices_of(term.body)]
        sizes = [size_symbol(self.style.sizes[base_name(i.name)]) for i in absent if term.reduce == "sum"]
        over = tuple(i for i in term.over if i not in absent)
        return Term(term.body * sympy.Mul(*sizes), over, term.reduce) if absent else term

    @staticmethod
    def _pull(term: Term) -> tuple[Expr, Expr]:
        """What does not depend on the summed indices goes in front of the sum."""
        if term.reduce != "sum":
            return sympy.S.One, term.body
        factors = sympy.Mul.make_args(term.body)
        inside = [f for f in factors if indices_of(cast(Expr, f)) & set(term.over)]
        if not inside:
            return sympy.S.One, term.body
        outside = [f for f in factors if f not in inside]
        return sympy.Mul(*outside), sympy.Mul(*inside)

    def _reduced(self, term: Term, axes: Sequence[Symbol]) -> str:
        over = term.over
        groups = group_factors(term.body) if term.reduce == "sum" else [term.body]
        if len(groups) == 2 and (text := self._product(groups, axes, over)) is not None:
            return text
        if len(groups) > 1 and all(set(over) & indices_of(g) for g in groups):
            return self._einsum(groups, axes, over)
        natural = self._natural(term.body, [*axes, *over])
        positions = [natural.index(i) for i in over]
        text = NumpyWriter(self.names, self.style, natural).expression(term.body, ATOM)
        kept = [i for i in natural if i not in over]
        where = "" if not kept else f"axis={positions[0]}" if len(positions) == 1 else f"axis={tuple(positions)}"
        result = f"{text}.{term.reduce}({where})" if not text.startswith("-") else f"({text}).{term.reduce}({where})"
        return aligned(result, kept, list(axes)) if kept != list(axes) else result

    @staticmethod
    def _natural(body: Expr, axes: Sequence[Symbol]) -> list[Symbol]:
        """The order of axes that most arrays of an expression have already."""
        best = max(elements_of(body), key=lambda e: len(e.indices), default=None)
        first = [i for i in best.indices if i in axes] if best is not None else []
        return [*(i for i in axes if i not in first), *first]

    def _product(self, groups: list[Expr], axes: Sequence[Symbol], over: Sequence[Symbol]) -> str | None:
        """A matrix product, where two groups share exactly the summed index and nothing else."""
        first, second = groups
        shared = indices_of(first) & indices_of(second)
        if shared != set(over):
            return None
        own = [[i for i in axes if i in indices_of(g) and i not in over] for g in groups]
        if own[0] and own[1] and list(axes).index(own[1][0]) < list(axes).index(own[0][0]):
            (first, second), own = (second, first), [own[1], own[0]]
        if list(axes) != [*own[0], *own[1]]:
            return None
        if len(over) == 1 and len(own[0]) <= 1 and len(own[1]) <= 1:
            left, right = self._matrix(first, [*own[0], *over]), self._matrix(second, [*over, *own[1]])
            return f"{left} @ {right}"
        left_axes, right_axes = self._natural(first, [*own[0], *over]), self._natural(second, [*over, *own[1]])
        left = NumpyWriter(self.names, self.style, left_axes).expression(first)
        right = NumpyWriter(self.names, self.style, right_axes).expression(second)
        where = ([left_axes.index(i) for i in over], [right_axes.index(i) for i in over])
        return f"np.tensordot({left}, {right}, axes={where})"

    def _matrix(self, factor: Expr, axes: Sequence[Symbol]) -> str:
        natural = self._natural(factor, axes)
        text = NumpyWriter(self.names, self.style, natural).expression(factor, ATOM)
        return aligned(text, natural, axes)

    def _einsum(self, groups: list[Expr], axes: Sequence[Symbol], over: Sequence[Symbol]) -> str:
        letters = {i: "ijklmnopqrstuvwxyz"[k] for k, i in enumerate(dict.fromkeys((*axes, *over)))}
        operands: list[str] = []
        subscripts: list[str] = []
        for g in groups:
            natural = self._natural(g, [i for i in letters if i in indices_of(g)])
            operands.append(NumpyWriter(self.names, self.style, natural).expression(g))
            subscripts.append("".join(letters[i] for i in natural))
        result = "".join(letters[i] for i in axes)
        return f"np.einsum('{','.join(subscripts)}->{result}', {', '.join(operands)}, optimize=True)"
