"""A claim that agrees by numbers, proved by algebra: what is known is put in until the difference of the sides is zero.

Within bounds: polynomials that would take long are left alone, and so is the proof once its time is over.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import sympy
from sympy import Expr

from .algebra import clean, insert_equation, rationally, split_term, unfold_calls
from .differentiate import resolve
from .errors import SymbackpropError
from .judge import Case, Judge
from .notation import Element, Equation, Term, groups_of, index, is_index, is_recurrence, size_symbol
from .parse import Name
from .simplify import collected
from .write import Writer, is_indicator

_SECONDS = 4.0  # for the proof of one claim
_DEFINITIONS = 8  # that are put in


def prove(judge: Judge, case: Case) -> tuple[bool, str | None]:
    """Whether all equalities of a reading are proved, and the rewriting that connects unfamiliar forms."""
    prover = _Prover(judge, case)
    why: str | None = None
    try:
        for one, other in itertools.pairwise(case.trees):
            done, how = prover.same(one, other)
            if not done:
                return False, None
            why = why or how
    except SymbackpropError:
        return False, None  # too large or of a kind that algebra does not reach: the numbers agree
    return True, why


class _Prover:
    def __init__(self, judge: Judge, case: Case) -> None:
        self.judge, self.case = judge, case
        self.names = judge.names
        self.network, self.derivation = self.names.network, self.names.derivation
        self.functions = self.names.functions
        self.until = time.monotonic() + _SECONDS

    def same(self, left: Any, right: Any) -> tuple[bool, str | None]:
        """Whether the difference of two trees is zero as an expression."""
        resolver = self.case.resolver
        resolver.sizes |= self.case.letters
        one, inner = self.names.lowered(left, resolver)
        other, more = self.names.lowered(right, resolver)
        minus = tuple(Term(-t.body, t.over, t.reduce) for t in other)
        free = [index(i) for i in self.case.free]
        difference = Equation(Element("@difference", *free), (*one, *minus))
        if any(t.reduce != "sum" for t in difference.terms):
            return False, None
        own = {e.name: e for e in (*inner, *more)}
        jacobians = {j.name: j.equation for j in self.names.jacobians.values() if j.equation is not None}
        for known in (self.derivation.equations, self.derivation.raw):
            table = {e.name: e for e in known} | jacobians | own
            if self.case.one:
                table = {k: self._of_one(e) for k, e in table.items()}
                difference = self._of_one(difference)
            equation = self._put_in(difference, table)
            if self._vanishes(equation):
                return True, None
        return self._by_exponentials(self._put_in(difference, table), one, other)

    def _of_one(self, equation: Equation) -> Equation:
        """An equation where there is one example: a sum over the examples is its only term."""
        batch = self.network.batch
        if batch is None:
            return equation
        size = size_symbol(self.names.size_of[batch])
        terms: list[Term] = []
        for t in equation.terms:
            gone = [i for i in t.over if i.name.rstrip("'") == batch]
            body = t.body.xreplace({size: sympy.S.One, **{i: index(batch) for i in gone}})
            terms.append(replace(t, body=body, over=tuple(i for i in t.over if i not in gone)))
        letters = {i: index(batch) for i in equation.target.letters if i.name.rstrip("'") == batch}
        terms = [replace(t, body=t.body.xreplace(dict(letters))) for t in terms]
        return Equation(cast(Element, equation.target.xreplace(dict(letters))), tuple(terms))

    def _put_in(self, equation: Equation, known: Mapping[str, Equation]) -> Equation:
        """The equation with every derivative in it replaced by its own equation, as far as that goes."""
        passed = {e.name for group in groups_of(list(known.values())) if is_recurrence(group) for e in group}
        while time.monotonic() < self.until:
            names = sorted({e.name for t in equation.terms for e in t.body.atoms(Element)} - passed)
            name = next((n for n in names if n in known), None)
            if name is None:
                return equation
            merged = insert_equation(equation, known[name])
            if merged is None or len(merged.terms) > 60:
                passed.add(name)
            else:
                equation = merged
        return equation

    def _vanishes(self, equation: Equation) -> bool:
        if self._is_zero(equation, unfold=False) or self._is_zero(equation, unfold=True):
            return True
        # Definitions are put in one after the other, from the output backwards: a = sigmoid(z).
        order = {e.name: k for k, e in enumerate(self.network.equations) if len(e.terms) == 1 and not e.terms[0].over}
        for _ in range(_DEFINITIONS):
            inside = [e for t in equation.terms for e in t.body.atoms(Element) if e.name in order]
            if not inside or time.monotonic() > self.until:
                return False
            last = max(inside, key=lambda e: order[e.name]).name
            d = next(e for e in self.network.equations if e.name == last)
            terms: list[Term] = []
            for t in equation.terms:
                own = [e for e in t.body.atoms(Element) if e.name == last]
                swap = {e: d.terms[0].body.xreplace(dict(zip(d.target.indices, e.indices, strict=True))) for e in own}
                terms.append(replace(t, body=cast(Expr, t.body.xreplace(dict(swap)))))
            equation = replace(equation, terms=tuple(terms))
            if self._is_zero(equation, unfold=True):
                return True
        return False

    def _is_zero(self, equation: Equation, unfold: bool) -> bool:
        """Whether the terms of an equation cancel, with functions written out or as they are."""
        if time.monotonic() > self.until:
            return False
        plain = replace(equation, terms=tuple(replace(t, body=self._plain(t.body, unfold)) for t in equation.terms))
        return all(clean(rationally(t.body, "expand")) == 0 for t in collected(_canonical(self._at_indicators(plain))).terms)

    def _at_indicators(self, equation: Equation) -> Equation:
        """What an indicator pins down is written with one letter; a sum over it is its one term; a claim's condition pins too."""
        terms: list[Term] = []
        for whole in (replace(t, body=_by_indicators(t.body)) for t in equation.terms):
            for term in split_term(whole) if whole.body.has(sympy.Piecewise) else (whole,):
                body, over = term.body, list(term.over)
                for f in list(sympy.Mul.make_args(body)):
                    test = f.args[0].args[1] if is_indicator(f) else None
                    if not isinstance(test, sympy.Eq) or not all(map(is_index, test.args)):
                        continue
                    a, b = sorted(cast("tuple[Any, Any]", test.args), key=str)
                    pinned, other = (a, b) if a in over else (b, a)
                    rest = cast(Expr, (body / f).xreplace({pinned: other}))
                    if pinned in over:
                        over.remove(pinned)
                        body = rest
                    else:
                        body = rest * f
                terms.append(replace(term, body=self._conditioned(body), over=tuple(over)))
        return replace(equation, terms=tuple(terms))

    def _conditioned(self, body: Expr) -> Expr:
        condition = self.case.condition
        if condition is None:
            return body
        sides = [side for side in (condition.left, condition.right) if isinstance(side, Name)]  # type: ignore[attr-defined]
        if len(sides) != 2 or not {s.name for s in sides} <= set(self.case.free):
            return body  # what holds everywhere holds under a condition too
        one, other = (index(side.name) for side in sides)
        if condition.operator == "==":  # type: ignore[attr-defined]
            return cast(Expr, body.xreplace({one: other}).doit())
        if condition.operator == "!=":  # type: ignore[attr-defined]
            return cast(Expr, body.xreplace({sympy.Eq(one, other): sympy.false, sympy.Eq(other, one): sympy.false}).doit())
        return body

    def _plain(self, body: Expr, unfold: bool) -> Expr:
        return clean(unfold_calls(resolve(body, self.functions), self.functions)) if unfold else body

    def _by_exponentials(self, equation: Equation, one: tuple[Term, ...], other: tuple[Term, ...]) -> tuple[bool, str | None]:
        """Forms that look unlike, such as sech² and 4/(eˣ + e⁻ˣ)²: the same once all functions are written with exp."""
        if time.monotonic() > self.until or sum(t.body.count_ops() for t in equation.terms) > 200:
            return False, None

        def rewritten(body: Expr) -> Expr:
            plain = unfold_calls(resolve(body, self.functions), self.functions)
            names = {e: sympy.Dummy(real=True) for e in plain.atoms(Element)}
            held = plain.xreplace(dict(names)).rewrite(sympy.exp)
            forms = (sympy.cancel(sympy.expand(held, power_exp=True)), sympy.powsimp(sympy.cancel(held)))
            form = min(forms, key=lambda f: f.count_ops())
            return cast(Expr, form.xreplace({v: k for k, v in names.items()}))

        used = {
            type(f).__name__
            for t in (*one, *other)
            for f in unfold_calls(resolve(t.body, self.functions), self.functions).atoms(sympy.Function)
        }
        hyperbolic = sorted(used & {"tanh", "sinh", "cosh"})
        if not all(
            not t.over and rewritten(t.body) == 0
            for t in collected(replace(equation, terms=tuple(replace(t, body=rewritten(t.body)) for t in equation.terms))).terms
        ):
            return False, None
        if not hyperbolic or len(one) != 1 or len(other) != 1:
            return True, None
        form = Writer().expression(rewritten(one[0].body))
        definitions = {
            "tanh": "tanh(u) = (exp(u) - exp(-u))/(exp(u) + exp(-u))",
            "cosh": "cosh(u) = (exp(u) + exp(-u))/2",
            "sinh": "sinh(u) = (exp(u) - exp(-u))/2",
        }
        return True, f"both sides are {_shown(form)}, with {' and '.join(definitions[h] for h in hyperbolic)}"


def _by_indicators(body: Expr) -> Expr:
    """Cases told apart by indices as sums with indicators: a where i = j, b elsewhere is b + 1[i = j](a - b)."""
    swap: dict[Expr, Expr] = {}
    for p in body.atoms(sympy.Piecewise):
        if len(p.args) == 2 and not is_indicator(p):
            (one, test), (other, _) = (cast("tuple[Expr, Any]", branch.args) for branch in p.args)
            if isinstance(test, sympy.Eq) and all(map(is_index, test.args)):
                swap[p] = other + sympy.Piecewise((1, test), (0, True)) * (one - other)
    return cast(Expr, body.xreplace(swap)) if swap else body


def _canonical(equation: Equation) -> Equation:
    """The equation with the letters of its sums renamed alike in all terms."""
    terms: list[Term] = []
    for t in equation.terms:
        taken = {i.name for i in equation.target.letters}
        swap: dict[Expr, Expr] = {}
        for i in sorted(t.over, key=lambda i: i.name):
            name = i.name.rstrip("'")
            while name in taken:
                name += "'"
            taken.add(name)
            swap[i] = index(name)
        # Letters change places, so that none is taken for another on the way.
        aside = {i: sympy.Dummy(integer=True, nonnegative=True) for i in swap}
        body = t.body.xreplace(dict(aside)).xreplace({aside[i]: v for i, v in swap.items()})
        terms.append(replace(t, body=cast(Expr, body), over=tuple(cast(Any, swap[i]) for i in t.over)))
    return replace(equation, terms=tuple(terms))


def _shown(text: str) -> str:
    """Letters without the primes that keep them apart."""
    return re.sub(r"'{3,}|_free\b", "", text)
