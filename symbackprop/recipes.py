"""Optimisers and learning-rate schedules of the catalogue as statements: their equations, planned like any other."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

import sympy
from sympy import Expr

from . import catalogue
from .buffered import Buffering
from .cache import cached
from .errors import Source
from .loop_text import LoopWriter
from .lower import Lowering, Scope
from .notation import Element, elements_of
from .numpy_text import Names, NumpyWriter
from .parse import Name, parse_definition, parse_expression
from .plan import Statement
from .sizes import Sizes
from .views import Shapes
from .write import ATOM, PRODUCT, Style


def update_equations(row: catalogue.Optimiser) -> list[tuple[str, str, Expr]]:
    """The equations of an update rule, in order: as text, the name of the left side, the right side."""
    scope = Scope(dict.fromkeys(("w", "g", "eta", "t", *row.state, *row.constants), ()), {}, Sizes())
    found: list[tuple[str, str, Expr]] = []
    for text in row.equations:
        source = Source(f"<optimiser {row.name}>", text)
        definition = parse_definition(source)
        found.append((text, cast(Name, definition.left).name, Lowering(source, scope).scalar(definition.right)))
    return found


def rule_style(row: catalogue.Optimiser) -> Style:
    """The order of factors in an update rule: rates first, small safety constants last, as the papers write them."""
    order = {"w": 2, "g": 3, **dict.fromkeys(row.state, 4), **dict.fromkeys(row.constants, 5), "eta": 6, "epsilon": 0}
    return Style(order)


def schedule_rate(row: catalogue.Schedule) -> Expr:
    """The learning rate of a schedule."""
    source = Source(f"<schedule {row.name}>", row.formula)
    scope = Scope(dict.fromkeys(("eta_0", "t", *row.constants), ()), {}, Sizes())
    return Lowering(source, scope).scalar(parse_expression(source))


class _PerWeight(LoopWriter):
    """Writes an update rule for one weight: rates and constants stay Python's numbers until they meet the weights."""

    def __init__(self, names: Names, style: Style, arrays: Iterable[str], scalars: Iterable[str]) -> None:
        super().__init__(names, style, Shapes({}, ()), {}, (), {a: f"{a}[i]" for a in arrays})
        self._numbers = set(scalars)
        self._plain = NumpyWriter(names, style, scalars=True)
        self.ahead: dict[str, str] = {}  # what is the same for all weights: the expression, and a name for it

    def _write(self, expr: Expr) -> tuple[str, int]:
        elements = {e.name for e in elements_of(expr)}
        if elements and elements <= self._numbers:
            code = f"real({self._plain.expression(expr)})"
            return self.ahead.setdefault(code, f"c{len(self.ahead) + 1}"), ATOM
        return super()._write(expr)


def rules_of_training(style: Literal["fast", "plain", "compiled"]) -> dict[str, Any]:
    """What the template prints of all optimisers and schedules, the same for every network: kept from run to run."""

    def plan() -> str:
        optimisers = catalogue.OPTIMISERS.values()
        planned = [loop_optimiser(o) if style == "compiled" else plan_optimiser(o, style == "fast") for o in optimisers]
        return json.dumps({"optimizers": planned, "schedules": [plan_schedule(s) for s in catalogue.SCHEDULES.values()]})

    return json.loads(cached(("rules of training", style), plan))


def loop_optimiser(row: catalogue.Optimiser) -> dict[str, Any]:
    """What the template prints of an update rule that is compiled: one loop over all weights."""
    names = Names(("np", "real", "i"))
    arrays = ("w", "g", *row.state)
    writer = _PerWeight(names, rule_style(row), arrays, ("eta", "t", *row.constants))
    lines: list[tuple[str, list[str]]] = []
    for text, left, right in update_equations(row):
        value = writer.expression(-_without_weight(right) if left == "w" else right)
        place = f"{left}[i]" if left in arrays else names[left]
        lines.append((text, [*writer.taken(), f"{place} {'-=' if left == 'w' else '='} {value}"]))
    rule = _rule(row, names, [*arrays, "eta", "t"], lines, ())
    return {**rule, "ahead": [f"{name} = {code}" for code, name in writer.ahead.items()]}


def plan_optimiser(row: catalogue.Optimiser, fast: bool = True) -> dict[str, Any]:
    """What the template prints of an update rule: a statement for each of its equations, with buffers where it is `fast`."""
    names = Names(("np",))
    writer = NumpyWriter(names, rule_style(row), scalars=True)
    arrays = ("w", "g", *row.state)
    scalars = ("eta", "t", *(names[k] for k in row.constants))
    shapes = {**dict.fromkeys(arrays, ("P",)), **dict.fromkeys(scalars, ())}
    buffering = Buffering(shapes, ("w", *row.state), {})
    statements: list[Statement] = []
    for text, left, right in update_equations(row):
        # Of the weights only what is subtracted is an array of its own.
        code = f"w - {writer.expression(-_without_weight(right), PRODUCT)}" if left == "w" else writer.expression(right)
        statements.append(Statement(left, code, text, (f"{left} = {code}",)))
    if fast:
        lines = [(s.formula, s.lines) for s in buffering.rewrite(statements)]
    else:
        # in place: the arrays belong to the trainer
        plain = [f"w -= {s.code[4:]}" if s.name == "w" else f"{s.name}[...] = {s.code}" for s in statements]
        lines = [(s.formula, (line,)) for s, line in zip(statements, plain, strict=True)]
    return _rule(row, names, ["w", "g", "state", "buffers", "eta", "t"], lines, buffering.buffers)


def _rule(
    row: catalogue.Optimiser, names: Names, arguments: Sequence[str], lines: Sequence[Any], buffers: Iterable[str]
) -> dict[str, Any]:
    constants = [f"{names[k]}={number_text(sympy.Rational(v))}" for k, v in row.constants.items()]
    return {
        "name": row.name,
        "arguments": ", ".join([*arguments, *constants]),
        "constants": [(names[k], k, number_text(sympy.Rational(v))) for k, v in row.constants.items()],
        "state": list(row.state),
        "lines": lines,
        "buffers": [(b, "None") for b in buffers],
        "learning_rate": row.learning_rate,
        "source": row.source,
    }


def _without_weight(right: Expr) -> Expr:
    """`right - w` without multiplying anything out."""
    return sympy.Add(*(a for a in sympy.Add.make_args(right) if a != Element("w")))


def plan_schedule(row: catalogue.Schedule) -> dict[str, Any]:
    """What the template prints of a learning-rate schedule."""
    names = Names(("np",))
    body = schedule_rate(row)
    writer = NumpyWriter(names, Style(), scalars=True)
    code = writer.expression(body)
    arguments = ["eta_0", "t", *(f"{names[k]}={number_text(sympy.Rational(v))}" for k, v in row.constants.items())]
    constants = [names[k] for k in row.constants]
    return {"name": row.name, "arguments": ", ".join(arguments), "constants": constants, "code": code, "formula": row.formula}


def number_text(value: Expr) -> str:
    """A constant as Python writes it."""
    return str(value.p) if value.q == 1 and abs(value.p) < 10**15 else repr(float(value))
