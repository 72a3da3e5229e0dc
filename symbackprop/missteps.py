"""The chain rule with one step changed: what people get when they slip, as equations.

    dz1 = da1*(1 - tanh(z1)^2)   ->   dz1 = da1                     the derivative of the activation is missing
                                      dz1 = da1*(1 - tanh(a1)^2)    a1 stands where z1 belongs

A `Misstep` says in words what went wrong and holds the equations that take the place of the right ones; the rest of the backward
pass stays as it is, so that all that follows from a slip follows here too. Claims and hand-written code are compared with the
same missteps. No number is computed here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import sympy
from sympy import Expr

from .notation import Call, Derivation, Equation, Network, Step, Term
from .write import Writer

_LARGE = 150  # nodes of a term whose parts are changed one by one


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


def is_upstream(name: str) -> bool:
    """Whether an input stands for the derivative that comes from above a formula."""
    return name.startswith("upstream")


def formulas(program: Program) -> Iterator[tuple[Equation, int, Term]]:
    """The terms of the folded formulas, and of the chain rule where it gives others."""
    raw = {e.name: e for e in program.derivation.raw if e.name in program.own}
    seen: set[tuple[str, Term]] = set()
    for equation in (*program.folded, *raw.values()):
        for k, term in enumerate(equation.terms):
            if (equation.name, term) not in seen and sum(1 for _ in sympy.preorder_traversal(term.body)) <= _LARGE:
                seen.add((equation.name, term))
                yield equation, k, term


def with_term(equation: Equation, k: int, term: Term | None, words: str) -> Misstep:
    """The misstep that puts another term, or none, in place of one of a formula."""
    new = equation.terms[:k] + ((term,) if term is not None else ()) + equation.terms[k + 1 :]
    return Misstep(words, equation.name, {equation.name: replace(equation, terms=new)})
