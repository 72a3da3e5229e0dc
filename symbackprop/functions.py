"""Scalar functions from their formulas: those of the catalogue, and the user's own."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import sympy

from . import catalogue
from .errors import FormulaError, Source
from .lower import Lowering, Scope
from .notation import Element, Function
from .parse import Item, Name, nodes_of, parse_expression
from .sizes import Sizes


@functools.cache
def catalogue_functions() -> Mapping[str, Function]:
    """The functions that every formula may use, from the catalogue."""
    found: dict[str, Function] = {}
    for row in catalogue.FUNCTIONS.values():
        source = Source(f"<catalogue: {row.name}>", row.formula)
        found[row.name] = make_function(row.name, source, row.constants, found)
    for name, text in catalogue.EXTREMES.items():
        source = Source(f"<catalogue: {name}>", text)
        body = Lowering(source, Scope({"u": (), "v": ()}, {}, Sizes())).scalar(parse_expression(source))
        found[name] = Function(name, ("u", "v"), body)
    return found


def make_function(name: str, formula: Source, constants: Mapping[str, Any], functions: Mapping[str, Function]) -> Function:
    """A scalar function of one variable from its formula: the variable is the one name that is not a constant."""
    node = parse_expression(formula)
    named = [n for n in nodes_of(node) if isinstance(n, (Name, Item)) and n.name not in constants and n.name != "pi"]
    names = {n.name: n.at for n in reversed(named)}
    if len(names) != 1:
        places = sorted(names, key=names.__getitem__)
        listed = ", ".join(f"'{n}'" for n in places) or "none"
        at = names[places[1]] if places else node.at
        raise FormulaError(
            f"the formula of '{name}' must have one variable (its other letters get numbers beside it), but it has {listed}",
            formula.place(at),
        )
    parameters = (*names, *constants)
    scope = Scope(dict.fromkeys(parameters, ()), dict(functions), Sizes(), closed=True)
    body = Lowering(formula, scope).scalar(node)
    given = [sympy.Rational(str(v)) for v in map(decimal, constants.values())]
    numbers = body.xreplace(dict(zip(map(Element, constants), given, strict=True)))
    if numbers.has(sympy.zoo, sympy.nan):
        raise FormulaError(f"the formula of '{name}' divides by zero with its constants", formula.place(node.at))
    defaults = tuple(given)
    return Function(name, parameters, body, defaults)


def decimal(value: Any) -> str:
    """A number as the text it was written as."""
    return value if isinstance(value, str) else repr(value)
