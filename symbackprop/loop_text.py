"""Expressions as scalar Python inside loops over their indices, as a compiler of loops wants them.

    W1[d,h1]*x[n,d]          W1[d, h1] * x[n, d]
    sigmoid(z1[n,h1])        its formula in place of the call, with names for what occurs more than once
    x[n,i+p-1]               (x[n, i + p - 1] if i + p - 1 >= 0 and i + p - 1 < I else real(0))

Numbers are written `real(0.5)`, where `real` is the type of the weights: else single precision would become double.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import sympy
from sympy import Expr, Symbol

from .notation import Call, Element, Equation, Function, Term, elements_of, indices_of, is_index, unwrapped
from .numpy_text import Names, exponent_less_one
from .stabilise import share, stable_function
from .views import Shapes
from .write import ATOM, PRODUCT, Style, Writer

# Functions that the emitted module brings: a loop over them runs in vector registers.
_OWN = {"exp": "_exp", "expm1": "_expm1", "tanh": "_tanh"}


class LoopWriter(Writer):
    """Writes scalar code; what must be computed before an expression is collected in `before`.

    `scalars` are arrays without axes by name and how they are read (`b[0]`), `whole` the arrays of whole numbers.
    """

    times, over_ = " * ", " / "

    def __init__(
        self,
        names: Names,
        style: Style,
        shapes: Shapes,
        functions: Mapping[str, Function],
        whole: Iterable[str],
        scalars: Mapping[str, str],
    ) -> None:
        super().__init__(style)
        self.names, self.shapes, self.functions = names, shapes, functions
        self.whole, self.scalars = set(whole), scalars
        self.before: list[str] = []
        self.assumed: frozenset[Any] = frozenset()  # what holds where the code stands: it is not asked again
        self._held: dict[str, str] = {}
        self._count = 0

    def taken(self) -> list[str]:
        """The lines that were collected, and a fresh list."""
        lines, self.before, self._held, self._count = self.before, [], {}, 0
        return lines

    # ------------------------------------------------------------------ indices

    def letter(self, i: Symbol) -> str:
        """The loop's variable of a letter."""
        return self.names.counter(i.name)

    def size_name(self, i: Symbol) -> str:
        """The name of a letter's size."""
        return str(self.shapes.size(i.name))

    def size(self, i: Symbol) -> str:
        """The Python name of a letter's size."""
        return self.names[self.size_name(i)]

    def nested(self, letters: Iterable[Symbol], lines: Iterable[str]) -> list[str]:
        """Lines within loops over letters."""
        result, indent = list[str](), ""
        for i in letters:
            result.append(f"{indent}for {self.letter(i)} in range({self.size(i)}):")
            indent += "    "
        return [*result, *(indent + line for line in lines)]

    def index(self, i: Expr) -> str:
        return self._whole(unwrapped(i))

    def _whole(self, expr: Expr, tight: bool = False) -> str:
        """Arithmetic of whole numbers."""
        if is_index(expr):
            return self.letter(cast(Symbol, expr))
        if isinstance(expr, Symbol):
            return self.names[expr.name]
        if isinstance(expr, Element):
            return self.at(expr)
        if expr.is_Integer:
            text = str(expr)
        elif isinstance(expr, sympy.floor):
            above, below = sympy.fraction(sympy.together(expr.args[0]))
            text = f"{self._whole(above, True)} // {self._whole(below, True)}"
        elif isinstance(expr, sympy.Mod):
            text = f"{self._whole(expr.args[0], True)} % {self._whole(expr.args[1], True)}"
        elif isinstance(expr, sympy.Add):
            whole = sympy.denom(sympy.together(expr))
            if whole != 1:
                return f"({self._whole(sympy.expand(expr * whole))}) // {whole}"
            parts = sorted(
                (self._whole(a, isinstance(a, sympy.floor)) for a in expr.args),
                key=lambda p: (p.startswith("-"), p[:1].isdigit(), p),
            )
            text = " + ".join(parts).replace("+ -", "- ")
        elif isinstance(expr, sympy.Mul):
            above, below = sympy.fraction(expr)
            if below != 1:
                return f"({self._whole(above)}) // {self._whole(below, True)}"
            sign, factors = ("-", expr.args[1:]) if expr.args[0] == -1 else ("", expr.args)
            return sign + " * ".join(self._whole(f, True) for f in factors)
        else:
            raise TypeError(f"no index arithmetic for {type(expr).__name__}")
        return f"({text})" if tight and not text.isalnum() else text

    def at(self, e: Element) -> str:
        """An element, wherever its indices lead."""
        if not e.indices:
            return self.scalars.get(e.name, self.names[e.name])
        return f"{self.names[e.name]}[{', '.join(map(self.index, e.indices))}]"

    def limits(self, e: Element) -> list[Any]:
        """What must hold for an element to lie within its array."""
        found = [t for t in self.shapes.outside(e) if not self._holds(t)]
        for i, axis in zip(e.indices, self.shapes.axes.get(e.name, ()), strict=True):
            if i.atoms(Element) and not isinstance(i, Element):
                found += [sympy.Ge(i, 0, evaluate=False), sympy.Lt(i, self.shapes.size(axis), evaluate=False)]
        return found

    def _holds(self, test: Any) -> bool:
        """Whether a bound of a letter's digit, floor(i/2) < 12, holds at the letter's end."""
        letters = indices_of(test)
        if len(letters) != 1 or not test.has(sympy.floor) or test.has(sympy.Mod):
            return False
        letter = next(iter(letters))
        end = test.subs(letter, self.shapes.extent(letter.name) - 1), test.subs(letter, 0)
        return all(e == True for e in end)  # noqa: E712

    def element(self, e: Element) -> str:
        if e.name in self._held:
            return self._held[e.name]
        limits = [t for t in self.limits(e) if t not in self.assumed]
        if False in limits:
            return "real(0)"
        text = f"real({self.at(e)})" if e.name in self.whole else self.at(e)
        return f"({text} if {self.tests(limits)} else real(0))" if limits else text

    def tests(self, tests: Iterable[Any]) -> str:
        """Conditions that must all hold."""
        return " and ".join(self.relation(t) for t in tests)

    def relation(self, test: Any) -> str:
        if isinstance(test, sympy.And):
            return self.tests(sorted(test.args, key=str))
        signs: Mapping[Any, str] = {sympy.Gt: ">", sympy.Lt: "<", sympy.Ge: ">=", sympy.Le: "<=", sympy.Eq: "==", sympy.Ne: "!="}
        left, right = cast("tuple[Expr, Expr]", test.args)
        sides = (
            (self._whole(left), self._whole(right)) if self.is_whole(test) else (self.expression(left), self.expression(right))
        )
        return f"{sides[0]} {signs[type(test)]} {sides[1]}"

    def is_whole(self, test: Any) -> bool:
        """Whether a condition compares whole numbers."""
        names = {e.name for e in test.atoms(Element)}
        return names <= self.whole and bool(names or indices_of(test))

    # ------------------------------------------------------------------ values

    def _write(self, expr: Expr) -> tuple[str, int]:
        if is_index(expr) or isinstance(expr, (sympy.Mod, sympy.floor)):
            return f"real({self._whole(expr)})", ATOM
        if expr == sympy.S.NegativeInfinity:
            return "real(-np.inf)", ATOM
        if (power := exponent_less_one(expr)) is not None:
            return self.function("expm1", power), ATOM
        if expr.is_number and not expr.is_Rational:
            return f"real({float(expr)!r})", ATOM
        return super()._write(expr)

    def split(self, expr: Expr) -> tuple[int, list[Expr], list[Expr]]:
        numbers = [a for a in sympy.Mul.make_args(expr) if a.is_number]
        if len(numbers) > 1:  # sqrt(2)/(2*sqrt(pi)) is one number
            rest = [a for a in sympy.Mul.make_args(expr) if not a.is_number]
            expr = sympy.Mul(*rest) * sympy.Rational(repr(float(sympy.Mul(*numbers))))
        return super().split(expr)

    def symbol(self, s: Symbol) -> str:
        return f"real({self.names[s.name]})"

    def number(self, value: Expr) -> tuple[str, int]:
        plain = value.q == 1 and abs(value.p) < 10**15
        return f"real({value.p if plain else repr(float(value))})", ATOM

    def fraction(self, above: list[Expr], below: list[Expr]) -> tuple[str, int]:
        numbers = [b for b in below if b.is_Rational]
        if numbers and all(b.is_Rational for b in below):
            # a number by which is divided is a factor
            return super().fraction([sympy.S.One / sympy.Mul(*numbers), *above], [])
        return super().fraction(above, below)

    def pi(self) -> str:
        return "real(np.pi)"

    def held(self, text: str) -> str:
        """A name for a value that is used more than once."""
        if text.isidentifier() or text.replace(".", "").isdigit():
            return text
        self._count += 1
        name = self.names.local(f"v{self._count}")
        self.before.append(f"{name} = {text}")
        return name

    def power(self, base: Expr, exponent: Expr) -> tuple[str, int]:
        if exponent in (2, 3, 4):
            text = self.expression(base, ATOM)
            text = text if isinstance(base, Element) and not text.startswith("(") else self.held(text)
            return " * ".join([text] * int(exponent)), PRODUCT
        return f"{self.expression(base, ATOM)} ** {self.expression(exponent, ATOM)}", ATOM - 1

    def root(self, base: Expr) -> tuple[str, int]:
        return (f"real({float(sympy.sqrt(base))!r})" if base.is_number else f"math.sqrt({self.expression(base)})"), ATOM

    def function(self, name: str, argument: Expr) -> str:
        if name == "log" and isinstance(argument, sympy.Add) and sympy.S.One in argument.args and argument.has(sympy.exp):
            return f"math.log1p({self.expression(argument - 1)})"
        if name in ("abs", "sign", "floor"):
            return f"{'abs' if name == 'abs' else f'np.{name}'}({self.expression(argument)})"
        return f"{_OWN.get(name) or f'math.{name}'}({self.expression(argument)})"

    def call(self, c: Call) -> str:
        if c.name in ("max", "min"):
            a, b = (self.held(self.expression(x)) for x in c.arguments)
            return f"({b} if {a} {'<=' if c.name == 'max' else '>='} {b} else {a})"
        function = self.functions[c.name]
        held = dict(self._held)
        given = dict(zip(function.parameters, c.arguments, strict=False))
        defaults = dict(
            zip(function.parameters[len(function.parameters) - len(function.defaults) :], function.defaults, strict=True)
        )
        own: dict[str, str] = {}
        for p in function.parameters:
            value = given.get(p, defaults.get(p))
            own[p] = self._argument(cast(Expr, value))
        self._held = held | own
        body = cast(Expr, stable_function(function).body)
        *lines, value = share((Equation(Element("value"), (Term(body),)),), function.parameters)
        for line in lines:
            self._held[line.name] = self.held(self.expression(line.terms[0].body))
        text = self.expression(value.terms[0].body, ATOM)
        self._held = held
        return text

    def _argument(self, value: Expr) -> str:
        text = self.expression(value, ATOM)
        return text if isinstance(value, (Element, sympy.Rational)) and not text.startswith("(") else self.held(text)

    def piecewise(self, expr: Expr) -> tuple[str, int]:
        branches = [(cast(Expr, b.args[0]), b.args[1]) for b in expr.args]
        if len(branches) == 2:
            (then, test), (other, _) = branches
            if isinstance(test, (sympy.Gt, sympy.Ge, sympy.Lt, sympy.Le)) and (then, other) == test.args:
                # Written the other way round: what is no number stays so.
                a, b = self.expression(then, ATOM), self.expression(other, ATOM)
                return f"({b} if {a} {'<=' if isinstance(test, (sympy.Gt, sympy.Ge)) else '>='} {b} else {a})", ATOM
        text = self.expression(branches[-1][0])
        for then, test in reversed(branches[:-1]):
            text = f"({self.expression(then)} if {self.relation(test)} else {text})"
        return text, ATOM


def letters_in(expressions: Iterable[Expr]) -> set[Symbol]:
    """The letters of several expressions."""
    return {i for e in expressions for i in indices_of(e)}


def elements_in(expressions: Iterable[Any]) -> list[Element]:
    """The elements of several expressions, those within indices too."""
    return list(dict.fromkeys(e for x in expressions for e in elements_of(x)))
