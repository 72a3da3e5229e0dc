"""Expressions, terms and equations as text: formula text that `parse` reads back, Unicode for terminals, LaTeX.

One walk decides the order of factors, signs and brackets; the writers differ only in how a sum, a fraction or a name
looks. Factors are written from the loss towards the input, the way the chain rule produces them, and a difference
is written the way round it was declared: `-(y - y')*f'(z)*o`, not `(y' - y)*f'(z)*o`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import sympy
from sympy import Expr, Symbol

from .errors import FormulaError
from .notation import (
    Call,
    Element,
    Equation,
    Network,
    Term,
    base_name,
    common_factors,
    index_text,
    indices_of,
    is_index,
    most_shared,
    names_of,
    text_of,
    without,
)

SUM, PRODUCT, POWER, ATOM = 1, 2, 4, 5

_NAMES: Mapping[Any, str] = {
    sympy.Abs: "abs",
    sympy.exp: "exp",
    sympy.log: "log",
    sympy.tanh: "tanh",
    sympy.sinh: "sinh",
    sympy.cosh: "cosh",
    sympy.sin: "sin",
    sympy.cos: "cos",
    sympy.sign: "sign",
    sympy.erf: "erf",
    sympy.floor: "floor",
}


@dataclass(frozen=True)
class Style:
    """What the writers need to know of a network: the order of arrays, declared differences, sizes, and names to show.

    `names` maps an array to a display name (LaTeX in the LaTeX writer); `adjoints` maps the name of a derivative to its
    array: for people it reads ∂L/∂a, or δ for the arrays in `deltas`; where the network is `layered`, the number at the
    end of a name is its layer; `hidden` are indices that are not shown. `kinds` says what
    arrays are (weight, signal, upstream), so that a page can colour them; `flipped` arrays are written as matrices the other
    way round (examples as columns).
    """

    order: Mapping[str, int] = field(default_factory=dict[str, int])
    differences: frozenset[Expr] = frozenset()
    sizes: Mapping[str, str] = field(default_factory=dict[str, str])
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    functions: Mapping[str, str] = field(default_factory=dict[str, str])
    adjoints: Mapping[str, str] = field(default_factory=dict[str, str])
    deltas: frozenset[str] = frozenset()
    loss: str = "L"
    layered: bool = False
    kinds: Mapping[str, str] = field(default_factory=dict[str, str])
    flipped: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Formula:
    """One formula in the two forms that people read."""

    text: str
    latex: str


def style_of(network: Network, adjoints: Mapping[str, str] | None = None) -> Style:
    """The style of a network: arrays later in the computation come first in a product.

    Without `adjoints`, for forward equations, matrices stand behind the signals that they multiply.
    """
    order = {a.name: 0 for a in network.arrays}
    for position, equation in enumerate(network.equations, 1):
        order[equation.name] = 2 * position
        for term in equation.terms:
            for e in term.body.atoms(Element):
                # a parameter or a target belongs where it is used
                order[e.name] = order.get(e.name, 0) or 2 * position - 1
    for a in network.arrays:
        if adjoints is None and a.role == "parameter" and len(a.axes) > 1:
            order[a.name] = -1
        elif a.role == "input":
            order[a.name] = order[a.name] or 1
    for name, adjoint in (adjoints or {}).items():
        order[adjoint] = 10**6 + order.get(name, 0)
    differences = {
        a for e in network.equations for t in e.terms for a in t.body.atoms(sympy.Add) if len(a.args) == 2 and not _mixed(a)
    }
    deltas = frozenset(n for n in order if re.fullmatch(r"z\d+", n)) if network.text else frozenset[str]()
    return Style(
        order,
        frozenset(differences),
        {i.name: i.size for i in network.indices},
        functions={},
        adjoints={v: k for k, v in (adjoints or {}).items()},
        deltas=deltas,
        loss=network.loss,
        layered=bool(network.text),
    )


def _mixed(add: Expr) -> bool:
    return any(a.is_number for a in add.args)


class Writer:
    """Writes formula text; the subclasses change how things look."""

    times, over_, minus = "*", "/", "-"

    def __init__(self, style: Style | None = None) -> None:
        self.style = style or Style()

    # ------------------------------------------------------------------ the walk

    def expression(self, expr: Expr, binding: int = 0) -> str:
        """The text of an expression, in brackets where the place binds tighter than it."""
        text, own = self._write(expr)
        return self.bracket(text) if own < binding else text

    def _write(self, expr: Expr) -> tuple[str, int]:
        if isinstance(expr, Element):
            return self.element(expr), ATOM
        if isinstance(expr, sympy.Rational):
            return self.number(expr)
        if isinstance(expr, Symbol):
            return self.index(expr) if is_index(expr) else self.symbol(expr), ATOM
        if isinstance(expr, sympy.Add):
            if -expr in self.style.differences and expr not in self.style.differences:
                return f"{self.minus}{self.bracket(self._sum(-expr))}", SUM
            return self._sum(expr), SUM
        if isinstance(expr, sympy.Mul):
            return self._product(expr)
        if isinstance(expr, sympy.Pow):
            return self._power(expr)
        if isinstance(expr, sympy.Piecewise):
            return self.piecewise(expr)
        if isinstance(expr, Call):
            return self.call(expr), ATOM
        if expr == sympy.pi:
            return self.pi(), ATOM
        if isinstance(expr, sympy.exp) or expr == sympy.E:
            return self.exponential(expr.args[0] if expr.args else sympy.S.One)  # exp(1) is a constant of SymPy's
        if isinstance(expr, sympy.Mod):
            return f"mod({self.expression(expr.args[0])}, {self.expression(expr.args[1])})", ATOM
        if type(expr) in _NAMES:
            return self.function(_NAMES[type(expr)], expr.args[0]), ATOM
        raise FormulaError(f"there is no text for {type(expr).__name__}", None)

    def rank(self, expr: Expr) -> int:
        """Where an expression stands in the computation: the latest of its arrays."""
        return max((self.style.order.get(name, 0) for name in names_of(expr)), default=-1)

    def _sum(self, expr: Expr) -> str:
        parts = [(a, self._is_negative(a)) for a in cast("tuple[Expr, ...]", expr.args)]
        parts.sort(key=lambda p: (p[1], not p[0].is_number, -self.rank(p[0]), text_of(p[0])))
        text = ""
        for part, negative in parts:
            one = self.expression(-part if negative else part, PRODUCT if negative else SUM)
            text += (f" {self.minus} " if text else self.minus) if negative else (" + " if text else "")
            text += one
        return text

    def _is_negative(self, expr: Expr) -> bool:
        return self.split(expr)[0] < 0 if isinstance(expr, sympy.Mul) else expr.could_extract_minus_sign()

    def _orient(self, add: Expr) -> tuple[int, Expr, bool]:
        """The way round of a difference: sign, the difference, and whether either way would do."""
        if add in self.style.differences:
            return 1, add, False
        if -add in self.style.differences:
            return -1, -add, False
        negative = [a.could_extract_minus_sign() for a in add.args]
        if all(negative) or (any(n and a.is_number for a, n in zip(add.args, negative, strict=True)) and not add.has(sympy.exp)):
            return -1, -add, False
        return 1, add, any(negative) and not any(a.is_number for a in add.args)

    def split(self, expr: Expr) -> tuple[int, list[Expr], list[Expr]]:
        """Sign, factors and divisors of a product, in the order they are written."""
        coefficient, factors = expr.as_coeff_mul()
        sign = -1 if coefficient < 0 else 1
        coefficient = abs(coefficient)
        above: list[Expr] = []
        below: list[Expr] = []
        for f in cast("tuple[Expr, ...]", factors):
            if isinstance(f, sympy.Pow) and f.exp.could_extract_minus_sign():
                below.append(f.base ** (-f.exp))
            else:
                above.append(f)
        free: list[tuple[list[Expr], int]] = []
        turned: list[tuple[list[Expr], int]] = []
        for group in (above, below):
            for i, f in enumerate(group):
                if isinstance(f, sympy.Add):
                    s, group[i], either = self._orient(f)
                    sign *= s
                    if either:
                        free.append((group, i))
                    elif s < 0 and f not in self.style.differences and -f not in self.style.differences:
                        turned.append((group, i))
                elif isinstance(f, sympy.Pow) and isinstance(f.base, sympy.Add) and f.exp.is_Integer and f.exp % 2 == 0:
                    group[i] = self._even(f)
        if sign < 0 and (free or turned):
            group, i = (free or turned)[-1]
            group[i], sign = -group[i], 1
        for group in (above, below):
            group.sort(key=lambda f: (-self.rank(f), isinstance(f, sympy.Add), text_of(f)))
            # numbers and sizes come first
            group.sort(key=lambda f: f.has(Element))
        if not self.plain_fraction(coefficient):
            above.insert(0, coefficient)
        else:
            if coefficient.p != 1:
                above.insert(0, sympy.Integer(coefficient.p))
            if coefficient.q != 1:
                below.insert(0, sympy.Integer(coefficient.q))
        return sign, above, below

    def _even(self, power: Expr) -> Expr:
        base = power.args[0]
        flipped = -base in self.style.differences or (
            base not in self.style.differences and all(a.could_extract_minus_sign() for a in base.args)
        )
        return sympy.Pow(-base, power.args[1], evaluate=False) if flipped else power

    @staticmethod
    def plain_fraction(number: Expr) -> bool:
        """Whether a number is written as a fraction rather than as a decimal."""
        # 81/256 is shorter than its decimal; 7/30 has none, and what is printed must be what was meant.
        if number.q <= 20 or _not_decimal(number.q):
            return True
        return bool(number.q < 10**5 and number.q % 10 != 0 and len(exact_decimal(number)) > 8)

    def _product(self, expr: Expr) -> tuple[str, int]:
        sign, above, below = self.split(expr)
        text, binding = self.fraction(above, below)
        if sign < 0:
            return self.minus + text, min(binding, SUM)
        return text, binding

    def factors(self, factors: list[Expr]) -> str:
        """A product of factors; only the last may go unbracketed if it is the only one."""
        if len(factors) == 1:
            return self.expression(factors[0], PRODUCT)
        return self.times.join(self.expression(f, PRODUCT + 1) for f in factors)

    def _power(self, expr: Expr) -> tuple[str, int]:
        base, exponent = cast("tuple[Expr, Expr]", expr.args)
        if exponent == sympy.Rational(1, 2):
            return self.root(base)
        if exponent.could_extract_minus_sign():
            return self.fraction([], [base**-exponent])
        if isinstance(base, sympy.Add) and exponent == 2:
            base = cast(Expr, self._even(expr).args[0])
        return self.power(base, exponent)

    # ------------------------------------------------------------------ how things look

    def bracket(self, text: str) -> str:
        """In brackets."""
        return f"({text})"

    def element(self, e: Element) -> str:
        """`a[i,j]`."""
        name = self.style.names.get(e.name, e.name)
        shown = [self.index(i) for i in e.indices if base_name(text_of(i)) not in self.style.hidden]
        return f"{name}[{','.join(shown)}]" if shown else name

    def index(self, i: Expr) -> str:
        """An index."""
        return index_text(i)

    def symbol(self, s: Symbol) -> str:
        """A size."""
        return s.name

    def number(self, value: Expr) -> tuple[str, int]:
        """A number, as a fraction or a decimal."""
        if value < 0:
            text, binding = self.number(-value)
            return self.minus + text, min(binding, SUM)
        if value.q == 1:
            return (str(value.p) if value.p < 10**12 else self.large(value)), ATOM
        if self.plain_fraction(value):
            return self.fraction([sympy.Integer(value.p)], [sympy.Integer(value.q)])
        return self.decimal(value), ATOM

    def large(self, value: Expr) -> str:
        """A whole number with its zeros counted."""
        digits = str(value.p)
        zeros = len(digits) - len(digits.rstrip("0"))
        return f"{digits[: len(digits) - zeros]}e{zeros}" if zeros > 6 else digits

    def decimal(self, value: Expr) -> str:
        """An exact decimal."""
        return exact_decimal(value)

    def fraction(self, above: list[Expr], below: list[Expr]) -> tuple[str, int]:
        """Factors over divisors."""
        top = self.factors(above) if above else "1"
        if not below:
            return top, PRODUCT
        if len(above) == 1:
            top = self.expression(above[0], PRODUCT + 1)
        bottom = self.factors(below)
        if len(below) > 1:
            bottom = f"({bottom})"
        elif len(below) == 1:
            bottom = self.expression(below[0], PRODUCT + 1)
        return f"{top}{self.over_}{bottom}", PRODUCT

    def power(self, base: Expr, exponent: Expr) -> tuple[str, int]:
        """`base**exponent`."""
        return f"{self.expression(base, ATOM)}**{self.expression(exponent, ATOM)}", POWER

    def root(self, base: Expr) -> tuple[str, int]:
        """The square root."""
        return f"sqrt({self.expression(base)})", ATOM

    def exponential(self, exponent: Expr) -> tuple[str, int]:
        """The exponential function."""
        return self.function("exp", exponent), ATOM

    def function(self, name: str, argument: Expr) -> str:
        """A function of one argument."""
        return f"{name}({self.expression(argument)})"

    def pi(self) -> str:
        """The number π."""
        return "pi"

    def call(self, c: Call) -> str:
        """A named function with its primes."""
        primes = "'" * c.orders[0] if not any(c.orders[1:]) else "'" + "".join(str(k + 1) * o for k, o in enumerate(c.orders))
        return f"{self.style.functions.get(c.name, c.name)}{primes}({', '.join(map(self.expression, self.shown(c)))})"

    def shown(self, c: Call) -> tuple[Expr, ...]:
        """The arguments that are written."""
        return c.arguments

    def relation(self, test: Expr) -> str:
        """A comparison."""
        signs: Mapping[Any, str] = {sympy.Gt: ">", sympy.Lt: "<", sympy.Ge: ">=", sympy.Le: "<=", sympy.Eq: "==", sympy.Ne: "!="}
        left, right = cast("tuple[Expr, Expr]", test.args)
        return f"{self.expression(left)} {self.sign(signs[type(test)])} {self.expression(right)}"

    def sign(self, sign: str) -> str:
        """A comparison sign."""
        return sign

    def piecewise(self, expr: Expr) -> tuple[str, int]:
        """`where(condition, then, else)`, nested for more branches."""
        branches = list(expr.args)
        text = self.expression(branches[-1].args[0])
        for branch in reversed(branches[:-1]):
            text = f"where({self.relation(branch.args[1])}, {self.expression(branch.args[0])}, {text})"
        return text, ATOM

    # ------------------------------------------------------------------ terms and equations

    def pulled(self, term: Term) -> tuple[Expr, Expr]:
        """A term's body as (what does not depend on the summed indices, the rest)."""
        outside, inside = cast(
            "tuple[Expr, Expr]",
            term.body.as_independent(*[e for e in term.body.atoms(Element) if set(e.indices) & set(term.over)], as_Add=False),
        )
        if inside == 1:
            return sympy.S.One, term.body
        if any(indices_of(outside) & {i} for i in term.over):
            return sympy.S.One, term.body
        return outside, inside

    def term(self, term: Term) -> tuple[str, int]:
        """A term with its sum."""
        if not term.over:
            return self._write(term.body)
        if term.reduce != "sum":
            return self.reduction(term.reduce, term.over, term.body), ATOM
        outside, inside = self.pulled(term)
        name, scale = "sum", sympy.S.One
        for i in term.over:
            scale = scale * Symbol(self.style.sizes.get(base_name(i.name), "?"), integer=True, positive=True)
        if outside != 1 and not (outside * scale).has(scale) and len(term.over) == 1:
            name, outside = "mean", outside * scale
        negative = self.split(outside)[0] < 0
        if negative:
            outside = -outside
        elif inside.could_extract_minus_sign() and not isinstance(inside, sympy.Add):
            negative, inside = True, -inside
        if isinstance(inside, sympy.Add) and -inside in self.style.differences and inside not in self.style.differences:
            negative, inside = not negative, -inside
        text, binding = self.scaled(outside, name, term.over, inside)
        return (self.minus + text, SUM) if negative else (text, binding)

    def scaled(self, outside: Expr, name: str, over: Iterable[Symbol], inside: Expr) -> tuple[str, int]:
        """A sum times a factor."""
        text = self.reduction(name, over, inside)
        if outside == 1:
            return text, ATOM
        _, above, below = self.split(outside)
        if not above:
            bottom = self.factors(below)
            return f"{text}{self.over_}{bottom if len(below) == 1 else f'({bottom})'}", PRODUCT
        return f"{self.expression(outside, PRODUCT)}{self.times}{text}", PRODUCT

    def reduction(self, name: str, over: Iterable[Symbol], inside: Expr) -> str:
        """`sum(i, body)`."""
        return f"{name}({', '.join(map(str, over))}, {self.expression(inside)})"

    def terms(self, terms: Iterable[Term]) -> str:
        """A sum of terms: what all of them have is written once, before a bracket; a minus comes later where it can."""
        terms = tuple(terms)
        together = most_shared(terms) if len(terms) > 1 else []
        if any(terms[k].over for k in together):
            inside = [terms[k] for k in together]
            shared = common_factors(inside)
            front = cast(Expr, sympy.Mul(*shared))
            inner = self.bracket(self.terms(replace(t, body=without(t.body, shared)) for t in inside))
            grouped = f"{self.expression(front, PRODUCT)}{self.times}{inner}"
            rest = [t for k, t in enumerate(terms) if k not in together]
            return f"{self.terms(rest)} + {grouped}" if rest else grouped
        terms = tuple(sorted(terms, key=lambda t: self.term(t)[0].startswith(self.minus))) if len(terms) > 1 else terms
        text = ""
        for term in terms:
            one = self.term(term)[0]
            if one.startswith(self.minus) and text:
                text += f" {self.minus} {one[len(self.minus) :]}"
            else:
                text += (" + " if text else "") + one
        return text or "0"

    def equation(self, equation: Equation) -> str:
        """`target = terms`."""
        return f"{self.element(equation.target)} = {self.terms(equation.terms)}"


def is_indicator(expr: Expr) -> bool:
    """Whether an expression is 1 where a condition holds and 0 elsewhere."""
    return isinstance(expr, sympy.Piecewise) and [b.args[0] for b in expr.args] == [1, 0]


def _not_decimal(q: int) -> bool:
    for p in (2, 5):
        while q % p == 0:
            q //= p
    return q != 1


def exact_decimal(value: Expr) -> str:
    """A terminating decimal in full."""
    digits = 0
    while (value.q and (value * 10**digits).q) != 1:
        digits += 1
    whole = str((value * 10**digits).p).rjust(digits + 1, "0")
    return f"{whole[:-digits]}.{whole[-digits:]}"


def formula(expr: Expr, over: Iterable[Symbol] = (), style: Style | None = None) -> str:
    """An expression, summed over indices, as formula text."""
    return Writer(style).term(Term(expr, tuple(over)))[0]
