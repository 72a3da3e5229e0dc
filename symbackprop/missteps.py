"""The chain rule with one step changed: what people get when they slip, as equations.

    dz1 = da1*(1 - tanh(z1)^2)   ->   dz1 = da1                     the derivative of the activation is missing
                                      dz1 = da1*(1 - tanh(a1)^2)    a1 stands where z1 belongs

A `Misstep` says in words what went wrong and holds the equations that take the place of the right ones; the rest of the backward
pass stays as it is, so that all that follows from a slip follows here too. Claims and hand-written code are compared with the
same missteps. No number is computed here.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

import sympy
from sympy import Expr

from .declare import declare
from .derive import derive
from .errors import SymbackpropError
from .functions import catalogue_functions
from .notation import Call, Derivation, Element, Equation, Network, Step, Term
from .write import Writer

_OTHERS = ("sigmoid", "tanh", "relu", "softplus", "silu", "identity")  # activations that are taken for one another


@dataclass(frozen=True)
class Misstep:
    """What went wrong, the array whose equation it is in, and the equations in place of the right ones.

    With a `probe` the size of the change is open: `scale` leaves something out that may stand there any number of times,
    `rate` uses a weight after a step of unknown length, `constant` lacks a small constant that may be another one in the code.
    """

    words: str
    at: str
    equations: Mapping[str, Equation]
    probe: Literal["", "scale", "rate", "constant"] = ""

    @property
    def is_zero(self) -> bool:
        """Whether a whole derivative is left out: that says how large it should be, not what is missing in it."""
        return self.words == f"{self.at} is zero"


class Program:
    """A backward pass as terms by array, from the steps of the chain rule."""

    def __init__(self, derivation: Derivation, within: set[str] | None = None) -> None:
        self.derivation, self.network = derivation, derivation.network
        raw = {e.name: e for e in derivation.raw}
        self.steps = [s for s in derivation.steps if s.adjoint.name in raw and (within is None or s.adjoint.name in within)]
        self.own = {s.adjoint.name for s in self.steps}
        self.folded = [e for e in derivation.equations if within is None or e.name in within]
        self._raw = raw
        self.axes = {a.name: a.axes for a in self.network.arrays}
        self.axes |= {d: self.axes[a] for a, d in derivation.adjoints.items()}
        self.size_of = {i.name: i.size for i in self.network.indices}

    def changed(
        self, words: str, changes: Mapping[int, Term | None], probe: Literal["", "scale", "rate", "constant"] = ""
    ) -> Misstep:
        """The misstep that puts other terms (or none) in place of those of some steps, given by their numbers."""
        names = {self.steps[k].adjoint.name for k in changes}
        equations: dict[str, Equation] = {}
        for name in names:
            terms = [changes.get(k, s.contribution) for k, s in enumerate(self.steps) if s.adjoint.name == name]
            equations[name] = replace(self._raw[name], terms=tuple(t for t in terms if t is not None))
        return Misstep(words, self.steps[min(changes)].adjoint.name, equations, probe)

    def sizes(self, name: str) -> tuple[str, ...]:
        """The names of an array's sizes."""
        return tuple(self.size_of.get(i.rstrip("'"), "?") for i in self.axes.get(name, ()))

    def alike(self, name: str) -> list[str]:
        """The other arrays of the same sizes; derivatives for a derivative, values for a value."""
        back = set(self.derivation.adjoints.values())
        return [
            o
            for o in self.axes
            if o != name and (o in back) == (name in back) and self.sizes(o) == self.sizes(name) and o in self._reachable
        ]

    @functools.cached_property
    def _reachable(self) -> set[str]:
        stored = {a.name for a in self.network.arrays if a.name != self.network.loss}
        return stored | set(self._raw)


def plain_text(expr: Expr) -> str:
    """An expression without its indices."""
    return re.sub(r"\[[^\]]*\]", "", Writer().expression(expr))


def path_words(network: Network, step: Step) -> str:
    """That a step is missing, in words."""
    if step.kind == "penalty":
        return f"the regulariser of {step.source.name} is missing"
    equation = next(e for e in network.equations if e.name == step.target.name)
    normalises = any(t.over for t in equation.terms) and any(t.body.has(sympy.exp) for t in equation.terms)
    words = f"the path from {step.source.name} through {step.target.name} is missing"
    if normalises:
        return f"{words}: only the diagonal of the softmax' Jacobian is there"
    if any(t.over and not t.body.atoms(Call) for t in equation.terms) and len(step.target.indices) < len(step.source.indices):
        return f"{words}: the statistic {step.target.name} depends on {step.source.name} too"
    return words


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


def is_upstream(name: str) -> bool:
    """Whether an input stands for the derivative that comes from above a formula."""
    return name.startswith("upstream")
