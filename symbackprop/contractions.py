"""Contractions of arrays with several axes as matrix products: which operands are matrices as they lie, which are copied.

np.tensordot(x, W1, axes=([2], [0]))     becomes     np.dot(x.reshape(N * T, D), W1.reshape(D, -1), out=…)
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Shape = tuple[str, ...]


@dataclass(frozen=True)
class Operand:
    """An array and its axes: `text` has the axes in the order in which they lie, `order` is where each axis of the value is.

    What is not `contiguous` is copied before its axes can be joined; `steps` are how many numbers each axis has and how far
    apart they lie.
    """

    text: str
    shape: Shape
    order: tuple[int, ...]
    contiguous: bool
    steps: tuple[tuple[int, int], ...] = ()

    def stretch(self, order: Sequence[int]) -> int:
        """How many numbers in a row a copy with the axes in this order reads."""
        length = 1
        for a in reversed(order):
            count, step = self.steps[a]
            if count > 1 and step != length:
                break
            length *= count
        return length

    def axes(self, own: Sequence[int]) -> tuple[int, ...]:
        """Axes of the value as axes of the array as it lies."""
        return tuple(self.order[a] for a in own)

    def is_matrix(self, rows: Sequence[int], columns: Sequence[int]) -> bool:
        """Whether axes joined to rows and columns make a matrix of what lies there, perhaps a transposed one."""
        lies, r, c = tuple(range(len(self.shape))), self.axes(rows), self.axes(columns)
        return (len(r) < 2 and len(c) < 2) or (self.contiguous and lies in (r + c, c + r))

    def matrix(self, rows: Sequence[int], columns: Sequence[int], names: Mapping[str, str]) -> str:
        """The text of that matrix; without columns a vector."""
        r, c = self.axes(rows), self.axes(columns)
        if not r or not c:
            return self.text if len(self.shape) == 1 else f"{self.text}.reshape(-1)"
        turned = r > c
        first, second = (c, r) if turned else (r, c)
        text = self.text
        if len(self.shape) > 2:
            text += f".reshape({joined([self.shape[a] for a in first], [self.shape[a] for a in second], names)})"
        return f"{text}.T" if turned else text


@dataclass(frozen=True)
class Contraction:
    """`np.tensordot(left, right, axes)` with the axes of its result turned by `turn`."""

    left: ast.expr
    right: ast.expr
    over: tuple[tuple[int, ...], tuple[int, ...]]
    turn: tuple[int, ...] | None = None


def joined(rows: Sequence[str], columns: Sequence[str], names: Mapping[str, str]) -> str:
    """The arguments of `reshape` that join axes to rows and columns."""
    if len(columns) == 1 and len(rows) > 1:
        return f"-1, {names.get(columns[0], columns[0])}"
    return f"{' * '.join(names.get(s, s) for s in rows)}, -1"


def contraction_of(node: ast.expr) -> Contraction | None:
    """A contraction read off its text; None for anything else."""
    match node:
        case ast.Call(func=ast.Attribute(value=inner, attr="transpose"), args=args):
            found = contraction_of(inner)
            return found and Contraction(found.left, found.right, found.over, numbers_of(args))
        case ast.Attribute(value=inner, attr="T"):
            found = contraction_of(inner)
            return found and Contraction(found.left, found.right, found.over, (1, 0))
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="np"), attr="tensordot"),
            args=[left, right],
            keywords=[ast.keyword(arg="axes", value=ast.Tuple(elts=[ast.List(elts=one), ast.List(elts=other)]))],
        ):
            return Contraction(left, right, (numbers_of(one), numbers_of(other)))
        case _:
            return None


def numbers_of(nodes: Sequence[ast.expr]) -> tuple[int, ...]:
    """The axes that constants name."""
    return tuple(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, int))
