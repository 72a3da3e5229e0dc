"""Expressions and equations in LaTeX, without any package beyond amsmath and amssymb."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

import sympy
from sympy import Expr, Symbol

from .notation import Call, Element, base_name, is_index, unwrapped
from .write import ATOM, POWER, PRODUCT, Writer, is_indicator

GREEK = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "pi",
    "rho",
    "sigma",
    "tau",
    "upsilon",
    "phi",
    "chi",
    "psi",
    "omega",
    "Gamma",
    "Delta",
    "Theta",
    "Lambda",
    "Xi",
    "Pi",
    "Sigma",
    "Phi",
    "Psi",
    "Omega",
]
GREEK_LETTERS = dict(zip("αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ", [g for g in GREEK], strict=False)) | {"ℓ": "ell"}


class LatexWriter(Writer):
    """LaTeX without any package beyond amsmath and amssymb."""

    times = r" \, "
    _SIGNS: ClassVar = {">": ">", "<": "<", ">=": r"\ge", "<=": r"\le", "==": "=", "!=": r"\ne"}

    def bracket(self, text: str) -> str:
        return rf"\left({text}\right)"

    def sign(self, sign: str) -> str:
        return self._SIGNS[sign]

    def symbol(self, s: Symbol) -> str:
        return latex_name(s.name)

    def index(self, i: Expr) -> str:
        i = unwrapped(i)
        if is_index(i):
            return latex_index(str(i))
        if isinstance(i, sympy.floor):
            above, below = sympy.fraction(sympy.together(i.args[0]))
            return rf"\lfloor {self.index(above)}/{self.index(below)} \rfloor"
        if isinstance(i, sympy.Mod):
            return rf"{self.index(i.args[0])} \bmod {self.index(i.args[1])}"
        if isinstance(i, sympy.Add) and sympy.denom(sympy.together(i)) != 1:
            above, below = sympy.fraction(sympy.together(i))
            return f"({self.index(above)})/{self.index(below)}"
        if isinstance(i, sympy.Add):
            parts = [self.index(a) for a in sorted(i.args, key=lambda a: (a.could_extract_minus_sign(), a.is_number, str(a)))]
            return "+".join(parts).replace("+-", "-")
        if isinstance(i, sympy.Mul):
            return " ".join("-" if a == -1 else self.index(a) for a in i.args).replace("- ", "-")
        return self.expression(i)

    def element(self, e: Element) -> str:
        kind = self.style.kinds.get(e.name)
        return rf"\kind{{{kind}}}{{{self._element(e)}}}" if kind else self._element(e)

    def _element(self, e: Element) -> str:
        shown = [self.index(i) for i in e.indices if base_name(str(i)) not in self.style.hidden]
        array = self.style.adjoints.get(e.name)
        if array in self.style.deltas:
            return with_subscript(rf"\delta^{{({array[1:]})}}", shown)
        if array is not None:
            return (
                rf"\frac{{\partial {latex_name(self.style.loss)}}}{{\partial {latex_element(array, shown, self.style.layered)}}}"
            )
        if e.name in self.style.names:
            return with_subscript(self.style.names[e.name], shown)
        return latex_element(e.name, shown, self.style.layered)

    def large(self, value: Expr) -> str:
        digits, _, zeros = super().large(value).partition("e")
        return (rf"{digits} \cdot 10^{{{zeros}}}" if digits != "1" else f"10^{{{zeros}}}") if zeros else digits

    def fraction(self, above: list[Expr], below: list[Expr]) -> tuple[str, int]:
        if not below:
            return self.factors(above), PRODUCT
        top = self.expression(above[0]) if len(above) == 1 else self.factors(above) if above else "1"
        bottom = self.expression(below[0]) if len(below) == 1 else self.factors(below)
        return rf"\frac{{{top}}}{{{bottom}}}", PRODUCT + 1

    def power(self, base: Expr, exponent: Expr) -> tuple[str, int]:
        text = self.expression(base, ATOM)
        if isinstance(base, Element) and ("^" in text or "'" in text) and not text.startswith(r"\left("):
            text = self.bracket(text)
        return f"{text}^{{{self.expression(exponent)}}}", POWER

    def root(self, base: Expr) -> tuple[str, int]:
        return rf"\sqrt{{{self.expression(base)}}}", ATOM

    def exponential(self, exponent: Expr) -> tuple[str, int]:
        return f"e^{{{self.expression(exponent)}}}", POWER

    def function(self, name: str, argument: Expr) -> str:
        inside = self.expression(argument)
        if name == "abs":
            return rf"\left|{inside}\right|"
        if name == "floor":
            return rf"\left\lfloor {inside}\right\rfloor"
        known = ("log", "tanh", "sinh", "cosh", "sin", "cos")
        head = f"\\{name}" if name in known else rf"\operatorname{{{name}}}"
        return rf"{head}\left({inside}\right)"

    def pi(self) -> str:
        return r"\pi"

    def call(self, c: Call) -> str:
        text = self._call(c)
        return rf"\kind{{activation}}{{{text}}}" if any(c.orders) and self.style.kinds else text

    def _call(self, c: Call) -> str:
        name = self.style.functions.get(c.name) or latex_name(c.name)
        if any(c.orders[1:]):
            parts = "".join(str(k + 1) * o for k, o in enumerate(c.orders))
            name = rf"\partial_{{{parts}}} {name}"
        elif c.orders[0]:
            name += "'" * c.orders[0]
        return rf"{name}\left({', '.join(map(self.expression, self.shown(c)))}\right)"

    def shown(self, c: Call) -> tuple[Expr, ...]:
        return tuple(a for i, a in enumerate(c.arguments) if i == 0 or not a.is_Rational)

    def piecewise(self, expr: Expr) -> tuple[str, int]:
        branches = list(expr.args)
        if is_indicator(expr):
            return rf"\mathbb{{1}}\left[{self.relation(branches[0].args[1])}\right]", ATOM
        rows = [
            f"{self.expression(b.args[0])} & "
            + (r"\text{otherwise}" if b.args[1] == True else rf"\text{{if }} {self.relation(b.args[1])}")  # noqa: E712
            for b in branches
        ]
        return r"\begin{cases}" + r" \\ ".join(rows) + r"\end{cases}", ATOM

    def reduction(self, name: str, over: Iterable[Symbol], inside: Expr) -> str:
        letters = [latex_index(str(i)) for i in over]
        below = ("" if all(len(i) == 1 for i in letters) else ",").join(letters)
        body = self.expression(inside, PRODUCT)
        if name == "mean":
            sizes = r" \, ".join(latex_name(self.style.sizes[base_name(i.name)]) for i in over)
            return rf"\frac{{1}}{{{sizes}}} \sum_{{{below}}} {body}"
        head = r"\operatorname*{argmax}" if name == "argmax" else f"\\{name}"
        return f"{head}_{{{below}}} {body}"

    def scaled(self, outside: Expr, name: str, over: Iterable[Symbol], inside: Expr) -> tuple[str, int]:
        text = self.reduction(name, over, inside)
        if outside == 1:
            return text, PRODUCT
        return f"{self.expression(outside, PRODUCT + (not outside.is_Mul))} {text}", PRODUCT


def latex_name(name: str) -> str:
    """A name without indices: `w_11` is w with a subscript, `alpha` a Greek letter, `y'` keeps its prime."""
    return latex_element(name, [])


def latex_index(name: str) -> str:
    """An index letter: `h1` is h with a subscript."""
    stem = base_name(name)
    match = re.fullmatch(r"([^\W\d_]+)_?(\d+)", stem)
    text = f"{_letter(match[1])}_{{{match[2]}}}" if match else _letter(stem)
    return text + "'" * (len(name) - len(stem))


def _letter(text: str) -> str:
    if text in GREEK:
        return f"\\{text}"
    if text in GREEK_LETTERS:
        return f"\\{GREEK_LETTERS[text]}"
    if len(text) == 1 and text.isascii():
        return text
    return rf"\mathrm{{{''.join(map(_in_roman, text))}}}"


def _in_roman(letter: str) -> str:
    """A letter inside a longer name: what no font is sure to have is written by its number."""
    if letter in GREEK_LETTERS:
        return f"\\{GREEK_LETTERS[letter]} "
    return letter.replace("_", r"\_") if letter.isascii() else f"u{ord(letter):04X}"


def latex_element(name: str, indices: list[str], layered: bool = False) -> str:
    """An array's name with its indices below; the number of a layer goes above them."""
    stem = name.rstrip("'")
    primes = "'" * (len(name) - len(stem))
    head, _, below = stem.partition("_")
    number = re.fullmatch(r"([^\W\d_]+)(\d+)", head)
    parts: list[str] = []
    if number and not below:
        head = number[1]
        if layered:
            return with_subscript(f"{_letter(head)}^{{({number[2]}){chr(92) + 'prime' if primes else ''}}}", indices)
        parts.append(number[2])
    elif below:
        short = len(below) <= 3 and below.isascii()
        parts.append(below.replace("_", ",") if short else ",".join(_letter(b) for b in below.split("_") if b))
    return with_subscript(_letter(head) + primes, [*parts, *indices], "," if parts and indices else None)


def with_subscript(head: str, indices: list[str], comma: str | None = None) -> str:
    """A name with indices below it; a comma between them where one has more than one letter."""
    if not indices:
        return head
    joint = comma if comma is not None else "" if all(len(i.rstrip("'")) == 1 for i in indices) else ","
    return f"{head}_{{{joint.join(indices)}}}"
