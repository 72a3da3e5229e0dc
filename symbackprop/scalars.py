"""The derivatives of a small network weight by weight: every sum but that over the examples is written out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import sympy
from sympy import Expr, Symbol

from .derive import closed_form
from .errors import NetworkError
from .latex import LatexWriter, latex_name
from .notation import Derivation, Element, Equation, Network, Term, base_name, size_symbol
from .unicode_text import TextWriter
from .write import Formula, Style

_MOST_WEIGHTS = 36  # that are written out one by one
_LONGEST = 60  # terms of one formula


def scalar_results(derivation: Derivation, style: Style, latex_style: Style) -> dict[str, list[Formula]]:
    """∂L/∂w for each weight, by the name of its array; empty where there are too many weights or terms."""
    network = derivation.network
    sizes = {i.name: i.number for i in network.indices}
    axes = {a.name: a.axes for a in network.arrays}
    result: dict[str, list[Formula]] = {}
    count = 0
    for name in derivation.wrt:
        numbers = [sizes[a] for a in axes[name]]
        if any(n is None for n in numbers):
            return {}
        equation = closed_form(derivation, name)
        result[name] = []
        for place in itertools.product(*(range(1, cast(int, n) + 1) for n in numbers)):
            count += 1
            one = _at(equation, place, derivation) if count <= _MOST_WEIGHTS else None
            if one is None:
                return {}
            result[name].append(_for_one_example(name, place, one, network, style, latex_style))
    return result


def _at(equation: Equation, place: Sequence[int], derivation: Derivation) -> Equation | None:
    """The equation for one element, or None where it has too many terms. Places are counted from 1 in names, from 0 as values."""
    network = derivation.network
    axes = {a.name: a.axes for a in network.arrays} | {
        e.name: tuple(i.name for i in e.target.letters) for e in derivation.equations
    }
    sizes = {i.name: i.number for i in network.indices}
    known: dict[Expr, Expr] = {size_symbol(i.size): sympy.Integer(i.number) for i in network.indices if i.number is not None}
    start = {**known, **{i: sympy.Integer(k - 1) for i, k in zip(equation.target.indices, place, strict=True)}}
    merged: dict[tuple[Symbol, ...], Expr] = {}
    count = 0
    for term in equation.terms:
        inner = [i for i in term.over if sizes[base_name(i.name)] is not None]
        kept = tuple(i for i in term.over if i not in inner)
        if any(i.name != network.batch for i in kept):
            return None
        for values in itertools.product(*(range(cast(int, sizes[base_name(i.name)])) for i in inner)):
            count += 1
            if count > _LONGEST:
                return None
            rename = {**start, **dict(zip(inner, map(sympy.Integer, values), strict=True))}
            merged[kept] = merged.get(kept, sympy.S.Zero) + _placed(term.body, rename, axes, sizes)
    if any(body.has(sympy.zoo, sympy.nan, sympy.oo) for body in merged.values()):
        raise NetworkError(f"with these sizes '{equation.name}' divides by zero")
    target = Element(equation.name, *map(sympy.Integer, place))
    return Equation(target, tuple(Term(body, over) for over, body in merged.items()))


def _placed(expr: Expr, at: Mapping[Expr, Expr], axes: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int | None]) -> Expr:
    """An expression with numbers for letters: an element by the number of its place from 1, zero where it has none."""
    if isinstance(expr, Element):
        places = [cast(Expr, i.xreplace(dict(at))) for i in expr.indices]
        for i, axis in zip(places, axes[expr.name], strict=True):
            count = sizes[base_name(axis)]
            if i.is_number and not (i.is_Integer and i >= 0 and (count is None or i < count)):
                return sympy.S.Zero
        return Element(expr.name, *(i + 1 if i.is_Integer else i for i in places))
    if not expr.args:
        return at.get(expr, expr)
    return cast(Expr, expr.func(*(_placed(cast(Expr, a), at, axes, sizes) for a in expr.args)))


def _for_one_example(
    name: str, place: Sequence[int], equation: Equation, network: Network, style: Style, latex_style: Style
) -> Formula:
    """One weight's derivative; that it is a mean over the examples is said once, in front, and their index is left out."""
    batch, terms = network.batch, equation.terms
    hidden = frozenset((batch,)) if batch else frozenset[str]()
    over, latex_over = "", ""
    if batch is not None and len(terms) == 1 and [i.name for i in terms[0].over] == [batch]:
        size = size_symbol(style.sizes[batch])
        mean = sympy.Add(*(a * size for a in sympy.Add.make_args(terms[0].body)))
        if mean.has(size):
            over, latex_over, terms = f"Σ_{batch} ", rf"\sum_{{{latex_name(batch)}}} ", (Term(terms[0].body),)
        else:
            over, latex_over, terms = f"mean_{batch} ", rf"\operatorname*{{mean}}_{{{latex_name(batch)}}} \; ", (Term(mean),)
    target, loss = Element(name, *map(sympy.Integer, place)), Element(network.loss)
    text, latex = TextWriter(replace(style, hidden=hidden)), LatexWriter(replace(latex_style, hidden=hidden))
    right, latex_right = text.terms(terms), latex.terms(terms)
    if over:
        right, latex_right = f"[{right}]", rf"\left[{latex_right}\right]"
    return Formula(
        f"∂{text.element(loss)}/∂{text.element(target)} = {over}{right}",
        rf"\frac{{\partial {latex.element(loss)}}}{{\partial {latex.element(target)}}} = {latex_over}{latex_right}",
    )
