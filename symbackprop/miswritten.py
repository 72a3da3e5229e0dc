"""Missteps in the parts of formulas: a factor left out, a power, a sign; and in what is taken from the forward pass.

    dz1 = da1*(1 - a1^2)   ->   da1*(1 - a1), da1, da1*(1 + a1^2), …

The parts are those of the folded formulas, which are what people write, and of the chain rule.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

import sympy
from sympy import Expr

from .missteps import Misstep, Program, formulas, plain_text, with_term
from .notation import Call, Element, Equation

_SMALL = 0.02  # numbers that keep a quotient or a root from zero are below this


def parts(program: Program) -> Iterator[Misstep]:
    """Each part left out, with another sign or another power."""
    for equation, k, term in formulas(program):
        forms = dict.fromkeys((term.body, _factored(term.body)))
        for body, words in itertools.chain.from_iterable(map(_changes, forms)):
            if body.has(sympy.zoo, sympy.nan):
                continue
            yield with_term(equation, k, replace(term, body=body), words)


def common(program: Program) -> Iterator[Misstep]:
    """A factor of all terms of a formula, left out or there twice."""
    for equation in program.folded:
        if len(equation.terms) < 2:
            continue
        powers = [t.body.as_powers_dict() for t in equation.terms]
        shared = [f for f, n in powers[0].items() if not f.is_number and all(p[f] >= 1 for p in powers) and n >= 1]
        for f in sorted(shared, key=str):
            for new, said in ((1 / f, "is missing"), (f, "is there twice")):
                terms = tuple(replace(t, body=t.body * new) for t in equation.terms)
                words = f"the factor {plain_text(f)} {said}"
                yield Misstep(words, equation.name, {equation.name: replace(equation, terms=terms)})


def _factored(body: Expr) -> Expr:
    if body.has(sympy.Piecewise) or not (body.is_Add or any(f.is_Add for f in body.args)):
        return body
    return cast(Expr, sympy.Mul(*(sympy.factor(f) if f.is_Add else f for f in sympy.Mul.make_args(body))))


def _changes(expr: Expr) -> Iterator[tuple[Expr, str]]:
    if expr.is_Mul:
        for k, f in enumerate(expr.args):
            if f == -1:
                continue
            rest = [*expr.args[:k], *expr.args[k + 1 :]]
            yield sympy.Mul(*rest), f"the factor {plain_text(cast(Expr, f))} is missing"
            if not f.is_number:
                yield expr * f, f"the factor {plain_text(cast(Expr, f))} is there twice"
            for new, words in _changes(cast(Expr, f)):
                yield sympy.Mul(*rest, new), words
    elif expr.is_Add:
        for k, s in enumerate(expr.args):
            rest = [*expr.args[:k], *expr.args[k + 1 :]]
            text = plain_text(cast(Expr, s))
            yield sympy.Add(*rest), f"the term {text} is missing beside {plain_text(sympy.Add(*rest))}"
            yield sympy.Add(*rest, -s), f"the sign of {text} is the other way round in {plain_text(expr)}"
            for new, words in _changes(cast(Expr, s)):
                yield sympy.Add(*rest, new), words
    elif isinstance(expr, sympy.Pow):
        base, power = expr.args
        text = plain_text(expr)
        for other in (1, power + 1, power - 1, -power):
            if power.is_number and other not in (0, power):
                new = cast(Expr, base**other)
                yield new, f"{plain_text(new)} stands where {text} belongs"
        for new, words in _changes(cast(Expr, base)):
            if new != 0:
                yield cast(Expr, new**power), words
    elif isinstance(expr, (sympy.Function, Call)) and not isinstance(expr, sympy.Piecewise):
        argument = expr.arguments[0] if isinstance(expr, Call) else expr.args[0]
        if expr.func is not sympy.exp:
            yield cast(Expr, argument), f"{plain_text(cast(Expr, argument))} stands where {plain_text(expr)} belongs"
    elif isinstance(expr, sympy.Piecewise):
        for branch in expr.args:
            if branch.args[0] != 0:
                yield cast(Expr, branch.args[0]), "the condition is left out"
            for new, words in _changes(cast(Expr, branch.args[0])):
                others = [(new, b.args[1]) if b == branch else b.args for b in expr.args]
                yield cast(Expr, sympy.Piecewise(*others)), words


# ---------------------------------------------------------------------- forward values and weights


def small_constants(program: Program) -> Iterator[Misstep]:
    """What keeps a quotient or a root from zero, forgotten where the backward pass computes a forward value once more."""
    constants = {n: abs(float(v)) for n, v in program.network.constants}
    for equation in program.network.equations:
        for k, term in enumerate(equation.terms):
            if len(equation.terms) > 1 and term.body.is_number and 0 < abs(float(term.body)) < _SMALL:
                words = f"the small constant {plain_text(term.body)} is forgotten in {equation.name}"
                yield replace(with_term(equation, k, None, words), probe="constant")
            for add in term.body.atoms(sympy.Add):
                for part in add.args:
                    value = abs(float(part)) if part.is_number and part.is_real else None
                    value = constants.get(part.name) if isinstance(part, Element) else value
                    if value is not None and 0 < value < _SMALL:
                        words = f"the small constant {plain_text(cast(Expr, part))} is forgotten in {equation.name}"
                        every = (*program.network.equations, *program.derivation.raw)
                        yield Misstep(words, equation.name, _swapped(every, add, cast(Expr, add - part)), "constant")


def _swapped(equations: Sequence[Equation], old: Expr, new: Expr) -> dict[str, Equation]:
    """The equations that hold an expression, with another in its place."""
    found: dict[str, Equation] = {}
    for e in equations:
        terms = tuple(replace(t, body=cast(Expr, t.body.xreplace({old: new}))) for t in e.terms)
        if terms != e.terms:
            found[e.name] = replace(e, terms=terms)
    return found


def updates(program: Program) -> Iterator[Misstep]:
    """A weight used after its own update."""
    back = program.derivation.adjoints
    for a in program.network.arrays:
        if a.role not in ("parameter", "input") or a.name not in back or back[a.name] not in program.axes:
            continue
        equations: dict[str, Equation] = {}
        for e in program.derivation.raw:
            used = [x for t in e.terms for x in t.body.atoms(Element) if x.name == a.name]
            if used and e.name in program.own and e.name != back[a.name]:
                swap = {x: x - Element("eta") * Element(back[a.name], *x.indices) for x in used}
                terms = tuple(replace(t, body=cast(Expr, t.body.xreplace(swap))) for t in e.terms)
                equations[e.name] = replace(e, terms=terms)
        if equations and a.role == "parameter":
            words = f"{a.name} is used after its update: the derivatives need the weights of the forward pass"
            yield Misstep(words, min(equations), equations, "rate")
