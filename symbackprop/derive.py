"""The derivation of a network: the chain rule, then folding; both on record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .algebra import equation_cost, insert_equation
from .declare import declare
from .differentiate import differentiate
from .functions import catalogue_functions
from .notation import Derivation, Element, Equation, Network, groups_of, is_recurrence
from .simplify import collected, simplify

# Functions that a folded derivative may name although the network does not (softplus' is the sigmoid).
FOLDED_TO = ("sigmoid", "softplus")


def derive(network: Network | str | Path | Mapping[str, Any], wrt: Sequence[str] = ()) -> Derivation:
    """The closed-form derivatives of a network's loss, in reverse order, with every step.

    `network` is a `Network` or anything that `declare` takes; `wrt` names arrays, all parameters by default. Raises
    `NetworkError` for an unknown name.
    """
    if not isinstance(network, Network):
        network = declare(network)
    names = tuple(network_name(network, w) for w in wrt)
    raw, steps, adjoints = differentiate(network, names)
    names = names or tuple(a.name for a in network.arrays if a.role == "parameter")
    own = {f.name for f in network.functions}
    functions = {
        name: f for name, f in catalogue_functions().items() if name in FOLDED_TO and (name not in own or f in network.functions)
    }
    equations, rewrites, facts = simplify(raw, network, [adjoints[n] for n in names], functions)
    return Derivation(network, raw, equations, steps, rewrites, adjoints, facts, names)


def closed_form(derivation: Derivation, name: str, limit: int = 400) -> Equation:
    """∂loss/∂name in forward values alone: the shared derivatives are put in, as long as fewer than `limit` operations result."""
    by_name = {e.name: e for e in derivation.equations}
    looped = {e.name for group in groups_of(derivation.equations) if is_recurrence(group) for e in group}
    current = by_name[derivation.adjoints[name]]
    while True:
        inner = next((n for n in _used(current) if n in by_name and n not in looped), None)
        merged = insert_equation(current, by_name[inner]) if inner is not None else None
        if merged is None or equation_cost(merged) > limit:
            return current
        current = collected(merged)


def _used(equation: Equation) -> list[str]:
    return sorted({e.name for t in equation.terms for e in t.body.atoms(Element)})


def network_name(network: Network, name: str) -> str:
    """A name or one of its other spellings (`p` for the prediction)."""
    return dict(network.aliases).get(name, name)
