"""Missteps with arrays and places: an array for another, a place before or after the right one, a place for a whole sum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import sympy
from sympy import Expr

from .missteps import Misstep, Program, formulas, plain_text, with_term
from .notation import Element, Term, indices_of, is_index, size_symbol


def exchanged(program: Program) -> Iterator[Misstep]:
    """An array in place of another of the same sizes: a gate for another, an output for an input."""
    between: dict[tuple[str, str | None], str] = {}
    for s in program.steps:
        if s.kind == "activation":
            words = f"the derivative of the activation, {plain_text(s.before)}, is missing: "
            between[s.adjoint.name, program.derivation.adjoints.get(s.target.name)] = words
    for equation, k, term in formulas(program):
        for element in sorted(term.body.atoms(Element), key=str):
            for other in program.alike(element.name):
                if other != equation.name:
                    body = cast(Expr, term.body.xreplace({element: _as(element, other)}))
                    words = f"{between.get((element.name, other), '')}{other} stands where {element.name} belongs"
                    yield with_term(equation, k, replace(term, body=body), words)
                    rest = cast(Expr, term.body / element)
                    if element in term.body.args and rest.has(element):
                        for one in (rest * _as(element, other), element * rest.xreplace({element: _as(element, other)})):
                            yield with_term(equation, k, replace(term, body=cast(Expr, one)), words)


def applied_twice(program: Program) -> Iterator[Misstep]:
    """The output of an activation sent through the activation once more, everywhere or in one factor."""
    for later in program.network.equations:
        body = later.terms[0].body
        inside = body.atoms(Element)
        if len(later.terms) != 1 or later.terms[0].over or len(inside) != 1 or body in inside:
            continue
        (source,) = inside
        for equation in program.folded:
            for k, term in enumerate(equation.terms):
                for e in (x for x in term.body.atoms(Element) if x.name == later.name):
                    if len(e.indices) != len(source.indices):
                        continue
                    letters = dict(zip(later.target.indices, e.indices, strict=True))
                    twice = cast(Expr, body.xreplace({source: Element("@")}).xreplace(letters).xreplace({Element("@"): e}))
                    parts = [f for f in sympy.Mul.make_args(term.body) if f.has(e)]
                    for f in dict.fromkeys((term.body, *parts)):
                        new = cast(Expr, term.body.xreplace({f: f.xreplace({e: twice})}))
                        words = f"{plain_text(twice)} stands where {e.name} belongs: the activation is applied twice"
                        yield with_term(equation, k, replace(term, body=new), words)


def ends(program: Program) -> Iterator[Misstep]:
    """A sum over the places of a recurrence of which only the first or the last one is kept."""
    moved = {i.name for e in program.network.equations for t in e.terms for i in _shifted(t.body)}
    for equation, k, term in formulas(program):
        for letter in (i for i in term.over if i.name in moved):
            over = tuple(i for i in term.over if i != letter)
            last = size_symbol(program.size_of[letter.name.rstrip("'")]) - 1
            for place, words in ((sympy.S.Zero, "first"), (last, "last")):
                kept = Term(cast(Expr, term.body.xreplace({letter: place})), over)
                said = f"only the {words} place of the sum over {letter.name} is there: the others are missing"
                yield with_term(equation, k, kept, said)


def _as(element: Element, other: str) -> Element:
    return Element(other, *element.indices)


def turned(program: Program) -> Iterator[Misstep]:
    """A square array transposed, or a place before or after the right one."""
    moved = {i.name for e in program.network.equations for t in e.terms for i in _shifted(t.body)}
    for equation, k, term in formulas(program):
        for element in sorted(term.body.atoms(Element), key=str):
            sizes, own = program.sizes(element.name), element.indices
            if len(own) == 2 and sizes[0] == sizes[1]:
                body = cast(Expr, term.body.xreplace({element: Element(element.name, own[1], own[0])}))
                yield with_term(equation, k, replace(term, body=body), f"{element.name} is transposed")
            for place, i in enumerate(own):
                if not any(x.name in moved for x in indices_of(i)):
                    continue
                for step, words in ((-1, "one place too early"), (1, "one place too late")):
                    new = Element(element.name, *own[:place], cast(Expr, i + step), *own[place + 1 :])
                    body = cast(Expr, term.body.xreplace({element: new}))
                    yield with_term(equation, k, replace(term, body=body), f"{element.name} is taken {words}")


def _shifted(body: Expr) -> Iterator[sympy.Symbol]:
    for e in body.atoms(Element):
        for i in e.indices:
            if not is_index(i) and len(indices_of(i)) == 1 and not i.atoms(Element):
                yield from indices_of(i)


def diagonals(program: Program) -> Iterator[Misstep]:
    """A sum of which only the place itself is kept."""
    for equation, k, term in formulas(program):
        for letter in term.over:
            size = program.size_of.get(letter.name.rstrip("'"))
            for own in equation.target.letters:
                if program.size_of.get(own.name.rstrip("'")) == size:
                    body = cast(Expr, term.body.xreplace({letter: own}))
                    kept = Term(body, tuple(i for i in term.over if i != letter))
                    words = f"only the diagonal of the Jacobian is there: the sum over {letter.name} is missing"
                    yield with_term(equation, k, kept, words)


def counts(program: Program) -> Iterator[Misstep]:
    """A number of places, such as that of the kept ones, taken for the number of all."""
    totals = {
        e.name: e.terms[0].over
        for e in program.network.equations
        if len(e.terms) == 1 and e.terms[0].over and e.terms[0].reduce == "sum" and e.name != program.network.loss
    }
    for equation, k, term in formulas(program):
        for element in sorted(term.body.atoms(Element), key=str):
            over = totals.get(element.name)
            if over is not None:
                names = [program.size_of[i.name.rstrip("'")] for i in over]
                body = cast(Expr, term.body.xreplace({element: sympy.Mul(*map(size_symbol, names))}))
                text = "*".join(names)
                words = f"{text}, the number of all, stands where {element.name}, that of the kept, belongs"
                yield with_term(equation, k, replace(term, body=body), words)
