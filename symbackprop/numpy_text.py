"""Expressions as NumPy: element by element over a frame of axes, every array turned and widened to line up with it."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import sympy
from sympy import Expr, Symbol

from .notation import Call, Element, elements_of, indices_of
from .write import ATOM, POWER, PRODUCT, Style, Writer, is_indicator


class Names:
    """Python names for arrays, functions and constants: safe, unique, as close to the mathematics as can be."""

    def __init__(self, reserved: Iterable[str] = (), given: Mapping[str, str] | None = None) -> None:
        self._given = dict(given or {})
        self._taken = {*reserved, *keyword.kwlist, *keyword.softkwlist, *self._given.values()}

    def all(self) -> tuple[str, ...]:
        """The names that were given so far."""
        return tuple(self._given.values())

    def counter(self, letter: str, wish: str = "") -> str:
        """The name of a loop's variable."""
        return self._name(f"@{letter}", wish or letter)

    def local(self, wish: str) -> str:
        """A name for a value that lives within one function."""
        return self._name(f"${wish}", wish)

    def __getitem__(self, name: str) -> str:
        return self._name(name, name)

    def _name(self, name: str, wish: str) -> str:
        if name not in self._given:
            plain = unicodedata.normalize("NFKC", wish.replace("'", "_prime"))
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
        integers: bool = False,
    ) -> None:
        super().__init__(style)
        self.names = names
        self.frame = tuple(frame)
        self.pieces: Mapping[str, str] = {} if pieces is None else pieces
        self.scalars = scalars
        self.integers = integers

    def element(self, e: Element) -> str:
        text = self.pieces.get(e.name) or self.names[e.name]
        if " @ " in text and aligned(text, e.letters, self.frame) != text:
            text = f"({text})"
        return aligned(text, e.letters, self.frame)

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
        if isinstance(expr, sympy.Mod):
            return f"{self.expression(expr.args[0], ATOM)} % {self.expression(expr.args[1], ATOM)}", PRODUCT
        if self.integers and isinstance(expr, sympy.floor):
            above, below = sympy.fraction(sympy.together(expr.args[0]))
            return f"{self.expression(above, PRODUCT)} // {self.expression(below, ATOM)}", PRODUCT
        if expr == sympy.S.NegativeInfinity:
            return "-np.inf", ATOM
        if (power := exponent_less_one(expr)) is not None:
            return self.narrow("np.expm1", power), ATOM
        return super()._write(expr)

    def symbols(self, expr: Expr) -> str:
        """A size that is computed from others, as whole numbers."""
        if isinstance(expr, sympy.floor):
            above, below = sympy.fraction(sympy.together(expr.args[0]))
            return f"({self.symbols(above)}) // {self.symbols(below)}"
        if isinstance(expr, sympy.Add):
            parts = [self.symbols(a) for a in sorted(expr.args, key=lambda a: (a.is_number, str(a)))]
            return " + ".join(parts).replace("+ -", "- ")
        if isinstance(expr, sympy.Mul) and not expr.args[0].is_Integer and expr.args[0].is_Rational:
            above, below = sympy.fraction(expr)
            return f"{self.symbols(above)} // {below}"
        if isinstance(expr, sympy.Mul):
            parts = [f"({self.symbols(a)})" if isinstance(a, (sympy.Add, sympy.floor)) else self.symbols(a) for a in expr.args]
            return "-" + " * ".join(parts[1:]) if parts[0] == "-1" else " * ".join(parts)
        return self.expression(expr)

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
            if is_plain_choice(test):
                # Of loop variables and numbers alone: Python chooses, and the other branch is not computed.
                chosen = self.expression(then, PRODUCT), self.relation(cast(Expr, test)), self.expression(other, PRODUCT)
                return f"({chosen[0]} if {chosen[1]} else {chosen[2]})", ATOM
            if is_indicator(expr):
                return f"({self.relation(test)}).astype({self._kind(test)})", ATOM
            left, right = cast("tuple[Expr, Expr]", test.args[:2])
            if (then, other) == (left, right) and not self.scalars:
                name = "maximum" if isinstance(test, (sympy.Gt, sympy.Ge)) else "minimum"
                return f"np.{name}({self.expression(left)}, {self.expression(right)})", ATOM
        text = self.expression(branches[-1][0])
        for then, test in reversed(branches[:-1]):
            text = f"np.where({self.relation(cast(Expr, test))}, {self.expression(then)}, {text})"
        if not any(elements_of(value) for value, _ in branches):
            # of numbers alone NumPy would make an array of double precision
            text += f".astype({self._kind(branches[0][1])})"
        return text, ATOM

    def _kind(self, test: object) -> str:
        """The kind of number to compute in, read off an array that a condition asks about."""
        names = [e.name for e in elements_of(cast(Expr, test)) if not e.name.startswith("@")]
        return f"{self.names[names[0]]}.dtype" if names else "_dtype(params)"

    def relation(self, test: Expr) -> str:
        if isinstance(test, sympy.And):
            joint = " and " if is_plain_choice(test) else " & "
            parts = sorted((self.relation(part) for part in test.args), key=str)
            return joint.join(p if joint == " and " else f"({p})" for p in parts)
        return super().relation(test)


def exponent_less_one(expr: Expr) -> Expr | None:
    """The x of `exp(x) - 1`, which `expm1` computes without losing digits; None for anything else."""
    if isinstance(expr, sympy.Add) and len(expr.args) == 2 and sympy.S.NegativeOne in expr.args:
        power = expr + 1
        if isinstance(power, sympy.exp):
            return cast(Expr, power.args[0])
    return None


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


def is_plain_choice(test: object) -> bool:
    """Whether a condition asks about loop variables and numbers alone."""
    return all(not e.indices and e.name.startswith("@") for e in cast(Expr, test).atoms(Element))
