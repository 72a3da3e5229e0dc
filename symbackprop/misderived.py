"""Missteps in the chain rule itself: a path, the derivative of an activation, or what comes from above, left out or another.

da1 -> dz1      the derivative of the activation left out, doubled, taken at the output, or that of another activation
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import sympy
from sympy import Expr

from .declare import declare
from .derive import derive
from .errors import SymbackpropError
from .functions import catalogue_functions
from .missteps import Misstep, Program, is_upstream, path_words, plain_text
from .notation import Call, Element, Step, Term

_OTHERS = ("sigmoid", "tanh", "relu", "softplus", "silu", "identity")  # activations that are taken for one another


# ---------------------------------------------------------------------- paths


def paths(program: Program) -> Iterator[Misstep]:
    """A path or two left out, or all but one."""
    network, steps = program.network, program.steps
    for k, step in enumerate(steps):
        yield program.changed(path_words(network, step), {k: None}, "scale")
    by_source: dict[str, list[int]] = {}
    for k, step in enumerate(steps):
        by_source.setdefault(step.source.name, []).append(k)
    for source, own in by_source.items():
        if len(own) > 2:
            for one, other in itertools.combinations(own, 2):
                words = f"{path_words(network, steps[one])} and that through {steps[other].target.name}"
                yield program.changed(words, {one: None, other: None})
            for kept in own:
                words = f"of the paths from {source} only that through {steps[kept].target.name} is there"
                yield program.changed(words, {k: None for k in own if k != kept})
    statistics = [k for k, s in enumerate(steps) if len(s.target.indices) < len(s.source.indices) and s.kind != "loss"]
    for one, other in itertools.combinations(statistics, 2):
        words = f"the statistics {steps[one].target.name} and {steps[other].target.name} are treated as constants"
        yield program.changed(f"{words}: these paths are missing", {one: None, other: None})


def signs(program: Program) -> Iterator[Misstep]:
    """A path with the other sign."""
    for k, step in enumerate(program.steps):
        minus = replace(step.contribution, body=-step.contribution.body)
        words = f"the sign of the path from {step.source.name} through {step.target.name} is the other way round"
        yield program.changed(words, {k: minus})


# ---------------------------------------------------------------------- activations


def activations(program: Program) -> Iterator[Misstep]:
    """The derivative of an activation left out, doubled, not differentiated, or taken at the wrong place."""
    for k, step in enumerate(program.steps):
        if step.kind != "activation":
            continue
        text = plain_text(step.before)

        def put(new: Expr, words: str, k: int = k, step: Step = step) -> Misstep:
            return program.changed(words, {k: _with_local(step, new)})

        yield put(sympy.S.One, f"the derivative of the activation, {text}, is missing")
        yield put(step.local**2, f"the derivative of the activation, {text}, is there twice")
        plain = _undifferentiated(program, step)
        if plain is not None:
            yield put(plain, f"{plain_text(plain)} stands where its derivative {text} belongs")
        output = Element(step.target.name, *step.target.indices)
        if program.sizes(step.target.name) == program.sizes(step.source.name):
            yield put(
                cast(Expr, step.local.xreplace({step.source: output})),
                f"the derivative of the activation is taken at its output {output.name}, not at its input {step.source.name}",
            )


def _undifferentiated(program: Program, step: Step) -> Expr | None:
    """f(z) for a step whose derivative is f'(z)."""
    calls = [c for c in step.before.atoms(Call) if any(c.orders)]
    if calls:
        return Call(calls[0].name, tuple(0 for _ in calls[0].orders), *calls[0].arguments)
    equation = next(e for e in program.network.equations if e.name == step.target.name)
    return equation.terms[0].body if len(equation.terms) == 1 and not equation.terms[0].over else None


def other_activations(program: Program) -> Iterator[Misstep]:
    """The derivative of another activation, by its input or by its output."""
    for k, step in enumerate(program.steps):
        equation = next(e for e in program.network.equations if e.name == step.target.name)
        if step.kind != "activation" or len(equation.terms) != 1:
            continue
        body = equation.terms[0].body
        if any(e != step.source for e in body.atoms(Element)):
            continue
        own = body.name if isinstance(body, Call) else plain_text(body)
        output = Element(step.target.name, *step.target.indices)
        for name in _OTHERS:
            by_input, by_output = derivative_forms(name)
            for form, at in ((by_input, step.source), (by_output, output)):
                if name == own and at is step.source:
                    continue
                if form is None or program.sizes(at.name) != program.sizes(step.source.name):
                    continue
                new = cast(Expr, form.xreplace({Element("u"): at}))
                words = f"the derivative of {name}, {plain_text(new)}, stands where that of {own} belongs"
                yield program.changed(words, {k: _with_local(step, new)})


def _with_local(step: Step, new: Expr) -> Term:
    """A step's contribution with another local derivative."""
    body = step.contribution.body
    changed = cast(Expr, body.xreplace({step.local: new})) if step.local != 1 else body
    if changed == body and not step.local.has(sympy.Piecewise):
        changed = body / step.local * new  # the factors of a product within a product
    return replace(step.contribution, body=changed)


@functools.cache
def derivative_forms(name: str) -> tuple[Expr | None, Expr | None]:
    """The derivative of an activation by its input and, where that is possible, by its output, both of `u`."""
    text = f"a[n] = {name}(z[n])" if name != "identity" else "a[n] = z[n]"
    try:
        network = declare({"name": name, "equations": f"{text}\nL = sum(n, w[n]*a[n])", "inputs": ["z[n]", "w[n]"]})
        derivation = derive(network, ["z"])
    except SymbackpropError:
        return None, None
    z = next(e for e in derivation.equations if e.name == derivation.adjoints["z"])
    local = next(s.local for s in derivation.steps if s.source.name == "z")
    functions = catalogue_functions()
    by_input = None if any(c.name not in functions for c in local.atoms(Call)) else _of_u(local, "z")
    ones = {Element(n, *z.target.indices): sympy.S.One for n in ("w", derivation.adjoints["a"])}
    folded = sympy.Add(*(t.body for t in z.terms)).xreplace(ones)
    return by_input, None if folded.has(sympy.Piecewise) else _of_u(cast(Expr, folded), "a")


def _of_u(expr: Expr, name: str) -> Expr | None:
    elements = expr.atoms(Element)
    if any(e.name != name for e in elements):
        return None
    return cast(Expr, expr.xreplace({e: Element("u") for e in elements}))


def extra_activations(program: Program) -> Iterator[Misstep]:
    """The derivative of an activation where there is none: a loss and its activation have been differentiated together."""
    for equation in program.folded:
        source = next((a for a, d in program.derivation.adjoints.items() if d == equation.name), None)
        for later in program.network.equations:
            inside = {e.name for t in later.terms for e in t.body.atoms(Element)}
            if source not in inside or program.sizes(later.name) != program.sizes(source or "") or not equation.terms:
                continue
            for name in ("sigmoid", "tanh", "relu"):
                form = derivative_forms(name)[1]
                if form is not None:
                    new = cast(Expr, form.xreplace({Element("u"): Element(later.name, *equation.target.indices)}))
                    terms = tuple(replace(t, body=t.body * new) for t in equation.terms)
                    words = f"the derivative of {name}, {plain_text(new)}, does not belong here: it is there twice"
                    yield Misstep(words, equation.name, {equation.name: replace(equation, terms=terms)})


def shared_factors(program: Program) -> Iterator[Misstep]:
    """A factor that is left out on all paths through one formula."""
    for equation in program.network.equations:
        own = [k for k, s in enumerate(program.steps) if s.target.name == equation.name]
        factors = {f for k in own for f in sympy.Mul.make_args(program.steps[k].contribution.body) if isinstance(f, Element)}
        for name in sorted({f.name for f in factors}):
            changes: dict[int, Term | None] = {}
            for k in own:
                term = program.steps[k].contribution
                swap = {f: sympy.S.One for f in sympy.Mul.make_args(term.body) if isinstance(f, Element) and f.name == name}
                if swap:
                    changes[k] = replace(term, body=cast(Expr, term.body.xreplace(swap)))
            if len(changes) > 1:
                yield program.changed(f"the factor {name} is missing", changes)


def above(program: Program) -> Iterator[Misstep]:
    """The derivative that comes from above, left out."""
    for k, step in enumerate(program.steps):
        own = program.derivation.adjoints.get(step.target.name)
        for e in step.contribution.body.atoms(Element):
            if e.name == own or (step.target.name == program.network.loss and is_upstream(e.name)):
                body = cast(Expr, step.contribution.body.xreplace({e: sympy.S.One}))
                words = f"the derivative that comes from above, {e.name}, is left out"
                yield program.changed(words, {k: replace(step.contribution, body=body)})
