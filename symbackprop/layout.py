"""How arrays lie in memory where a loop fills them: the index that a recurrence runs along comes first.

    h[n,t,j]     becomes     h[t,n,j]

What one step of the loop reads and writes then lies together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from sympy import Expr

from .notation import Element, Equation, direction, groups_of, is_recurrence


def steps_first(equations: Sequence[Equation]) -> tuple[Equation, ...]:
    """The equations with the axis of the steps first in every array that a recurrence computes."""
    places: dict[str, int] = {}
    for group in groups_of(equations):
        if is_recurrence(group):
            letter, _ = direction(group)
            places |= {e.name: place for e in group if (place := e.target.letters.index(letter))}
    if not places:
        return tuple(equations)

    def turned(e: Element) -> Element:
        indices = [rewritten(i) for i in e.indices]
        if e.name in places:
            indices.insert(0, indices.pop(places[e.name]))
        return Element(e.name, *indices)

    def rewritten(body: Expr) -> Expr:
        return cast(Expr, body.xreplace({e: turned(e) for e in body.atoms(Element)}))

    return tuple(
        replace(e, target=turned(e.target), terms=tuple(replace(t, body=rewritten(t.body)) for t in e.terms)) for e in equations
    )
