"""Formulas of a backward pass with one part changed: a factor left out, a power, a sign, an array in place of another.

    dz1 = da1*(1 - a1^2)   ->   da1*(1 - a1), da1, da1*(1 - z1^2), …

The parts are those of the folded formulas, which are what people write; the steps of the chain rule are changed in `missteps`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import sympy
from sympy import Expr

from .missteps import (
    Misstep,
    Program,
    above,
    activations,
    extra_activations,
    other_activations,
    paths,
    plain_text,
    shared_factors,
    signs,
)
from .notation import Call, Derivation, Element, Equation, Term, indices_of, is_index, size_symbol

_LARGE = 150  # nodes of a term whose parts are changed one by one
_SMALL = 0.02  # numbers that keep a quotient or a root from zero are below this


def missteps(derivation: Derivation, within: set[str] | None = None) -> Iterator[Misstep]:
    """All that may go wrong in one place, the likelier first; `within` keeps to the equations of some derivatives."""
    program = Program(derivation, within)
    for family in _FAMILIES:
        yield from family(program)


def _wholes(program: Program) -> Iterator[Misstep]:
    """A derivative with a constant factor."""
    for e in reversed(program.derivation.raw):
        if e.name in program.own:
            yield Misstep(f"{e.name} is zero", e.name, {e.name: replace(e, terms=())}, "scale")


# ---------------------------------------------------------------------- parts


def _formulas(program: Program) -> Iterator[tuple[Equation, int, Term]]:
    """The terms of the folded formulas, and of the chain rule where it gives others."""
    raw = {e.name: e for e in program.derivation.raw if e.name in program.own}
    seen: set[tuple[str, Term]] = set()
    for equation in (*program.folded, *raw.values()):
        for k, term in enumerate(equation.terms):
            if (equation.name, term) not in seen and sum(1 for _ in sympy.preorder_traversal(term.body)) <= _LARGE:
                seen.add((equation.name, term))
                yield equation, k, term


def _with(equation: Equation, k: int, term: Term | None, words: str) -> Misstep:
    new = equation.terms[:k] + ((term,) if term is not None else ()) + equation.terms[k + 1 :]
    return Misstep(words, equation.name, {equation.name: replace(equation, terms=new)})


def _parts(program: Program) -> Iterator[Misstep]:
    """Each part left out, with another sign or another power."""
    for equation, k, term in _formulas(program):
        forms = dict.fromkeys((term.body, _factored(term.body)))
        for body, words in itertools.chain.from_iterable(map(_changes, forms)):
            if body.has(sympy.zoo, sympy.nan):
                continue
            yield _with(equation, k, replace(term, body=body), words)


def _common(program: Program) -> Iterator[Misstep]:
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


# ---------------------------------------------------------------------- arrays and indices


def _exchanged(program: Program) -> Iterator[Misstep]:
    """An array in place of another of the same sizes: a gate for another, an output for an input."""
    between: dict[tuple[str, str | None], str] = {}
    for s in program.steps:
        if s.kind == "activation":
            words = f"the derivative of the activation, {plain_text(s.before)}, is missing: "
            between[s.adjoint.name, program.derivation.adjoints.get(s.target.name)] = words
    for equation, k, term in _formulas(program):
        for element in sorted(term.body.atoms(Element), key=str):
            for other in program.alike(element.name):
                if other != equation.name:
                    body = cast(Expr, term.body.xreplace({element: _as(element, other)}))
                    words = f"{between.get((element.name, other), '')}{other} stands where {element.name} belongs"
                    yield _with(equation, k, replace(term, body=body), words)
                    rest = cast(Expr, term.body / element)
                    if element in term.body.args and rest.has(element):
                        for one in (rest * _as(element, other), element * rest.xreplace({element: _as(element, other)})):
                            yield _with(equation, k, replace(term, body=cast(Expr, one)), words)


def _applied_twice(program: Program) -> Iterator[Misstep]:
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
                        yield _with(equation, k, replace(term, body=new), words)


def _ends(program: Program) -> Iterator[Misstep]:
    """A sum over the places of a recurrence of which only the first or the last one is kept."""
    moved = {i.name for e in program.network.equations for t in e.terms for i in _shifted(t.body)}
    for equation, k, term in _formulas(program):
        for letter in (i for i in term.over if i.name in moved):
            over = tuple(i for i in term.over if i != letter)
            last = size_symbol(program.size_of[letter.name.rstrip("'")]) - 1
            for place, words in ((sympy.S.Zero, "first"), (last, "last")):
                kept = Term(cast(Expr, term.body.xreplace({letter: place})), over)
                said = f"only the {words} place of the sum over {letter.name} is there: the others are missing"
                yield _with(equation, k, kept, said)


def _as(element: Element, other: str) -> Element:
    return Element(other, *element.indices)


def _turned(program: Program) -> Iterator[Misstep]:
    """A square array transposed, or a place before or after the right one."""
    moved = {i.name for e in program.network.equations for t in e.terms for i in _shifted(t.body)}
    for equation, k, term in _formulas(program):
        for element in sorted(term.body.atoms(Element), key=str):
            sizes, own = program.sizes(element.name), element.indices
            if len(own) == 2 and sizes[0] == sizes[1]:
                body = cast(Expr, term.body.xreplace({element: Element(element.name, own[1], own[0])}))
                yield _with(equation, k, replace(term, body=body), f"{element.name} is transposed")
            for place, i in enumerate(own):
                if not any(x.name in moved for x in indices_of(i)):
                    continue
                for step, words in ((-1, "one place too early"), (1, "one place too late")):
                    new = Element(element.name, *own[:place], cast(Expr, i + step), *own[place + 1 :])
                    body = cast(Expr, term.body.xreplace({element: new}))
                    yield _with(equation, k, replace(term, body=body), f"{element.name} is taken {words}")


def _shifted(body: Expr) -> Iterator[sympy.Symbol]:
    for e in body.atoms(Element):
        for i in e.indices:
            if not is_index(i) and len(indices_of(i)) == 1 and not i.atoms(Element):
                yield from indices_of(i)


def _diagonals(program: Program) -> Iterator[Misstep]:
    """A sum of which only the place itself is kept."""
    for equation, k, term in _formulas(program):
        for letter in term.over:
            size = program.size_of.get(letter.name.rstrip("'"))
            for own in equation.target.letters:
                if program.size_of.get(own.name.rstrip("'")) == size:
                    body = cast(Expr, term.body.xreplace({letter: own}))
                    kept = Term(body, tuple(i for i in term.over if i != letter))
                    words = f"only the diagonal of the Jacobian is there: the sum over {letter.name} is missing"
                    yield _with(equation, k, kept, words)


def _counts(program: Program) -> Iterator[Misstep]:
    """A number of places, such as that of the kept ones, taken for the number of all."""
    totals = {
        e.name: e.terms[0].over
        for e in program.network.equations
        if len(e.terms) == 1 and e.terms[0].over and e.terms[0].reduce == "sum" and e.name != program.network.loss
    }
    for equation, k, term in _formulas(program):
        for element in sorted(term.body.atoms(Element), key=str):
            over = totals.get(element.name)
            if over is not None:
                names = [program.size_of[i.name.rstrip("'")] for i in over]
                body = cast(Expr, term.body.xreplace({element: sympy.Mul(*map(size_symbol, names))}))
                text = "*".join(names)
                words = f"{text}, the number of all, stands where {element.name}, that of the kept, belongs"
                yield _with(equation, k, replace(term, body=body), words)


# ---------------------------------------------------------------------- forward values and weights


def _small_constants(program: Program) -> Iterator[Misstep]:
    """What keeps a quotient or a root from zero, forgotten where the backward pass computes a forward value once more."""
    constants = {n: abs(float(v)) for n, v in program.network.constants}
    for equation in program.network.equations:
        for k, term in enumerate(equation.terms):
            if len(equation.terms) > 1 and term.body.is_number and 0 < abs(float(term.body)) < _SMALL:
                words = f"the small constant {plain_text(term.body)} is forgotten in {equation.name}"
                yield replace(_with(equation, k, None, words), probe="constant")
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


def _updates(program: Program) -> Iterator[Misstep]:
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


_FAMILIES: tuple[Callable[[Program], Iterator[Misstep]], ...] = (
    _wholes,
    paths,
    activations,
    signs,
    above,
    _small_constants,
    _updates,
    other_activations,
    shared_factors,
    _diagonals,
    _counts,
    _common,
    _parts,
    _turned,
    _ends,
    _exchanged,
    _applied_twice,
    extra_activations,
)
