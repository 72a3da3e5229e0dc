"""How arrays lie in memory where a loop fills them: the index that a recurrence runs along comes first.

    h[n,t,j]     becomes     h[t,n,j]

What one step of the loop reads and writes then lies together. What is computed from such arrays place by place, or for a loop,
lies like them, so that nothing is turned in between.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import cast

from sympy import Expr

from .notation import Element, Equation, direction, elements_of, groups_of, is_recurrence


def steps_first(equations: Sequence[Equation], fixed: Collection[str] = ()) -> tuple[Equation, ...]:
    """The equations with the axis of the steps first in every array that a recurrence computes; `fixed` arrays stay."""
    by_name = {e.name: e for e in equations}
    places: dict[str, int] = {}
    for group in groups_of(equations):
        if not is_recurrence(group):
            continue
        letter, _ = direction(group)
        places |= {e.name: e.target.letters.index(letter) for e in group}
        for e in (e for q in group for t in q.terms for e in elements_of(t.body)):
            # what the loop reads step by step
            if e.name in by_name and letter in e.indices and letter in by_name[e.name].target.letters:
                places.setdefault(e.name, by_name[e.name].target.letters.index(letter))
    if not any(places.values()):
        return tuple(equations)
    for equation in equations:
        letters = equation.target.letters
        read = [e for t in equation.terms for e in elements_of(t.body) if e.name in places]
        steps = [e.indices[places[e.name]] for e in read]
        if equation.name not in places and steps and steps[0] in letters and all(s == steps[0] for s in steps):
            places[equation.name] = letters.index(steps[0])  # type: ignore[arg-type]
    places = {name: place for name, place in places.items() if name not in fixed}

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
