"""Expressions and equations in Unicode for a terminal; indices stay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from sympy import Expr, Symbol

from .notation import Call, Element
from .write import ATOM, POWER, PRODUCT, Writer, is_indicator

_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class TextWriter(Writer):
    """Unicode for a terminal; indices stay."""

    times, minus = "·", "−"
    _SIGNS: ClassVar = {">": ">", "<": "<", ">=": "≥", "<=": "≤", "==": "=", "!=": "≠"}

    def element(self, e: Element) -> str:
        array = self.style.adjoints.get(e.name)
        if array is None:
            return super().element(e)
        head = f"δ{array[1:]}" if array in self.style.deltas else f"∂{self.style.loss}/∂{array}"
        return super().element(Element(head, *e.indices))

    def large(self, value: Expr) -> str:
        digits, _, zeros = super().large(value).partition("e")
        raised = f"10{zeros.translate(_RAISED)}"
        return (f"{digits}·{raised}" if digits != "1" else raised) if zeros else digits

    def sign(self, sign: str) -> str:
        return self._SIGNS[sign]

    def power(self, base: Expr, exponent: Expr) -> tuple[str, int]:
        raised = str(exponent).translate(_RAISED)
        if exponent.is_Integer:
            return f"{self.expression(base, ATOM)}{raised}", POWER
        return f"{self.expression(base, ATOM)}^{self.expression(exponent, ATOM)}", POWER

    def root(self, base: Expr) -> tuple[str, int]:
        return f"√({self.expression(base)})", ATOM

    def pi(self) -> str:
        return "π"

    def function(self, name: str, argument: Expr) -> str:
        if name == "abs":
            return f"|{self.expression(argument)}|"
        return f"{name}({self.expression(argument)})"

    def shown(self, c: Call) -> tuple[Expr, ...]:
        return tuple(a for i, a in enumerate(c.arguments) if i == 0 or not a.is_Rational)

    def piecewise(self, expr: Expr) -> tuple[str, int]:
        branches = list(expr.args)
        if is_indicator(expr):
            return f"1[{self.relation(branches[0].args[1])}]", ATOM
        return super().piecewise(expr)

    def reduction(self, name: str, over: Iterable[Symbol], inside: Expr) -> str:
        letters = "".join(map(str, over)) if all(len(str(i)) == 1 for i in over) else ",".join(map(str, over))
        signs = {"sum": "Σ"}
        if name != "sum" and (inside.is_Mul or inside.is_Add):
            return f"{signs.get(name, name)}_{letters} [{self.expression(inside)}]"
        return f"{signs.get(name, name)}_{letters} {self.expression(inside, PRODUCT)}"

    def scaled(self, outside: Expr, name: str, over: Iterable[Symbol], inside: Expr) -> tuple[str, int]:
        text = self.reduction(name, over, inside)
        if outside == 1:
            return text, PRODUCT
        return f"{self.expression(outside, PRODUCT)}{self.times}{text}", PRODUCT
