"""Other shapes of a matrix formula as it was read: transposes put in or taken away, products turned round, sums put in.

A claim whose shapes do not fit is the right one with such a change, or it is not understood; numbers decide which.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from . import maths
from .parse import Binary, Node, Number
from .trees import span_of


def reshaped(tree: Node, arrays: Sequence[str] = ()) -> Iterator[tuple[Node, str, tuple[int, int] | None]]:
    """A tree as it was read with transposes put in or taken away, products turned round, sums over the examples put in."""
    sites = list(_sites(tree))

    def changes(site: tuple[tuple[Any, ...], Node]) -> list[tuple[Node, str]]:
        _, node = site
        found: list[tuple[Node, str]] = []
        if isinstance(node, maths.Transpose):
            found.append((node.operand, "the transpose does not belong here"))
        else:
            found.append((maths.Transpose(node.at, node, end=node.end), "transposed: a transpose is missing"))
        if isinstance(node, Binary) and node.operator in (" ", "*", "@"):
            found.append((replace(node, left=node.right, right=node.left), "the order of the product is the other way round"))
            for operator, words in (("⊙", "an element-wise product belongs here"), ("@", "a matrix product belongs here")):
                found.append((replace(node, operator=operator), words))
        if isinstance(node, Binary) and node.operator == "⊙":
            found.append((replace(node, operator="@"), "a matrix product belongs where ⊙ stands"))
        return found

    for path, node in sites:
        if isinstance(node, maths.Symbol) and len(node.indices or node.below) > 1:
            # w_{kj} for w_{jk}
            turned = replace(node, indices=node.indices[::-1]) if node.indices else replace(node, below=node.below[::-1])
            yield _put(tree, path, turned), f"the indices of {node.name} are exchanged: it is transposed", span_of(node)
    for path, node in _totals(tree):
        for axis in (0, 1):
            other = replace(node, options=(("axis", Number(node.at, Fraction(axis))),))
            yield _put(tree, path, other), f"the sum runs over the wrong axis: axis {axis} belongs here", span_of(node)
    for site in sites:
        for new, words in changes(site):
            yield _put(tree, site[0], new), words, span_of(site[1])
    for path, node in sites:
        if isinstance(node, maths.Symbol) and not node.below and node.indices is None:
            for other in arrays:
                if other != node.name:
                    new = maths.Symbol(node.at, other, end=node.end)
                    yield _put(tree, path, new), f"{node.name}{_number(node)} stands where {other} belongs", span_of(node)
    numbered = [
        (p, n, s) for p, n in sites if isinstance(n, maths.Symbol) for s in [_shifted(n, -1), _shifted(n, 1)] if s is not None
    ]
    for (one, first, new), (other, second, more) in itertools.combinations(numbered, 2):
        if one != other:
            words = f"{_named(first)} and {_named(second)} are of another layer: {_named(new)} and {_named(more)} belong here"
            yield _put(_put(tree, one, new), other, more), words, span_of(first)
    summed = maths.Reduce(tree.at, "sum", (), tree, end=tree.end)
    yield summed, "the sum over the examples is missing", span_of(tree)
    for one, other in itertools.combinations(sites, 2):
        if one[0] == other[0][: len(one[0])]:
            # the inner one first
            inner = [(_put(tree, other[0], new), words) for new, words in changes(other)]
            for changed, words in inner:
                node = _get(changed, one[0])
                for new, more in changes((one[0], node)):
                    yield _put(changed, one[0], new), f"{more}, and {words}", span_of(one[1])
            continue
        for first, words in changes(one):
            changed = _put(tree, one[0], first)
            for second, more in changes(other):
                said = words if words == more else f"{words}, and {more}"
                yield _put(changed, other[0], second), said, span_of(one[1])


def _shifted(node: maths.Symbol, step: int) -> maths.Symbol | None:
    """The array of the same name one layer up or down."""
    if isinstance(node.layer, Number):
        return replace(node, layer=replace(node.layer, value=node.layer.value + step))
    found = re.fullmatch(r"(\D+)(\d+)", node.name)
    return None if found is None else replace(node, name=f"{found[1]}{int(found[2]) + step}")


def _named(node: maths.Symbol) -> str:
    return f"{node.name}{_number(node)}"


def _number(node: maths.Symbol) -> str:
    return str(node.layer.value) if isinstance(node.layer, Number) else ""


def _totals(node: Node, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], maths.Call]]:
    """Sums over an axis by its number."""
    if isinstance(node, maths.Call):
        if any(k == "axis" for k, _ in node.options):
            yield path, node
        for k, a in enumerate(node.arguments):
            yield from _totals(a, (*path, ("arguments", k)))
    for name in ("left", "right", "operand", "body"):
        inner = getattr(node, name, None)
        if isinstance(inner, Node):
            yield from _totals(inner, (*path, name))


def _sites(node: Node, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Node]]:
    if isinstance(node, Number):
        return
    if (
        isinstance(node, (maths.Symbol, maths.Transpose, maths.Differential, maths.Derivative))
        or (isinstance(node, Binary) and node.operator in (" ", "*", "@", "⊙"))
        or (isinstance(node, Binary) and node.operator in "+-")
    ):
        yield path, node
    for name in ("left", "right", "operand", "body"):
        inner = getattr(node, name, None)
        if isinstance(inner, Node) and not isinstance(node, (maths.Differential, maths.Derivative)):
            yield from _sites(inner, (*path, name))
    if isinstance(node, maths.Call):
        for k, a in enumerate(node.arguments):
            yield from _sites(a, (*path, ("arguments", k)))


def _get(tree: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        tree = tree.arguments[step[1]] if isinstance(step, tuple) else getattr(tree, step)
    return tree


def _put(tree: Any, path: tuple[Any, ...], new: Node) -> Any:
    if not path:
        return new
    step = path[0]
    if isinstance(step, tuple):
        arguments = list(tree.arguments)
        arguments[step[1]] = _put(arguments[step[1]], path[1:], new)
        return replace(tree, arguments=tuple(arguments))
    return replace(tree, **{step: _put(getattr(tree, step), path[1:], new)})
