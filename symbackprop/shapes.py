"""Other shapes of a matrix formula as it was read: transposes put in or taken away, products turned round, sums put in.

A claim whose shapes do not fit is the right one with such a change, or it is not understood; numbers decide which.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from . import maths
from .parse import Binary, Node, Number
from .trees import span_of


def reshaped(tree: Node) -> Iterator[tuple[Node, str, tuple[int, int] | None]]:
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

    for site in sites:
        for new, words in changes(site):
            yield _put(tree, site[0], new), words, span_of(site[1])
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
