"""The derivation of a network: the chain rule, then folding; both on record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .declare import catalogue_functions, declare
from .differentiate import differentiate
from .notation import Derivation, Network
from .simplify import simplify

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
    functions = {name: catalogue_functions()[name] for name in FOLDED_TO}
    equations, rewrites, facts = simplify(raw, network, [adjoints[n] for n in names], functions)
    return Derivation(network, raw, equations, steps, rewrites, adjoints, facts, names)


def network_name(network: Network, name: str) -> str:
    """A name or one of its other spellings (`p` for the prediction)."""
    return dict(network.aliases).get(name, name)
