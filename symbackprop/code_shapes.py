"""Shapes of what code computes: the size of every axis of an expression, by the shapes of the arrays in it."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from .code_text import UFUNCS, Opaque, axes_of, broadcast, count_of, number_of, window_of
from .contractions import Shape, contraction_of
from .rooms import Length

TYPICAL = 32  # of a size that is not known


@dataclass(frozen=True)
class Helper:
    """A function of the emitted module: its parameters, the statements before its value, and the value."""

    parameters: tuple[str, ...]
    lines: tuple[tuple[str, str], ...]
    value: str
    defaults: Mapping[str, str] = field(default_factory=dict[str, str])


class CodeShapes:
    """Shapes of expressions; `shapes` are those of arrays by their Python names, a scalar's is empty.

    `sizes` are the Python names of sizes, `same` gives a size the first that is the same number, `numbers` the number where it
    is known.
    """

    def __init__(
        self,
        shapes: Mapping[str, Shape],
        helpers: Mapping[str, Helper],
        sizes: Mapping[str, str] | None = None,
        same: Mapping[str, str] | None = None,
        numbers: Mapping[str, int | None] | None = None,
    ) -> None:
        # Sizes that are one number are one size: arrays may then lie in each other's buffers.
        self._same = same or {}
        self._numbers = numbers or {}
        self._said = dict(shapes)
        self.shapes = {name: tuple(self._same.get(s, s) for s in shape) for name, shape in shapes.items()}
        self.helpers = helpers
        self.sizes = dict(sizes or {})
        self._size_named = {name: size for size, name in self.sizes.items()}

    def _shape(self, node: ast.expr) -> Shape:
        match node:
            case ast.Constant():
                return ()
            case ast.Name(id=name):
                if name not in self.shapes:
                    raise Opaque
                return self.shapes[name]
            case ast.Attribute(value=value, attr="T"):
                return self._shape(value)[::-1]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._shape(operand)
            case ast.BinOp(op=ast.MatMult(), left=left, right=right):
                a, b = self._shape(left), self._shape(right)
                if len(a) < 2 or len(b) < 2:
                    return (*a[:-1], *b[:-2], *b[-1:]) if len(b) > 1 or len(a) > 1 else ()
                return (*broadcast(a[:-2], b[:-2]), a[-2], b[-1])
            case ast.BinOp(left=left, right=right):
                return broadcast(self._shape(left), self._shape(right))
            case ast.Compare(left=left, comparators=[right]):
                return broadcast(self._shape(left), self._shape(right))
            case ast.Subscript(value=value, slice=index):
                return self._subscript(self._shape(value), index)
            case ast.Call():
                return self._shape_of_call(node)
            case _:
                raise Opaque

    def _shape_of_call(self, node: ast.Call) -> Shape:
        match node.func:
            case ast.Attribute(value=ast.Name(id="np"), attr=name) | ast.Name(id=name) if self._is_elementwise(node.func, name):
                shape: Shape = ()
                for a in node.args:
                    shape = broadcast(shape, self._shape(a))
                return shape
            case ast.Attribute(value=value, attr="sum" | "max" | "mean"):
                own = self._shape(value)
                axes = axes_of(node, len(own))
                return tuple(s for k, s in enumerate(own) if k not in axes)
            case ast.Attribute(value=value, attr="transpose"):
                own = self._shape(value)
                return tuple(own[number_of(a)] for a in node.args)
            case ast.Attribute(value=value, attr="copy"):
                return self._shape(value)
            case ast.Attribute(attr="reshape"):
                return tuple(map(self._size, node.args))
            case ast.Attribute(attr="tensordot") if (found := contraction_of(node)) is not None:
                sides = zip((found.left, found.right), found.over, strict=True)
                return tuple(s for side, over in sides for k, s in enumerate(self._shape(side)) if k not in over)
            case ast.Name(id="greatest"):
                own, axes = self._shape(node.args[0]), node.args[1]
                assert isinstance(axes, ast.Tuple)
                return tuple(s for k, s in enumerate(own) if k not in map(number_of, axes.elts))
            case _ if (window := window_of(node)) is not None:
                own, k = self._shape(window.value), window.axis
                return (*own[:k], *map(self._size, window.counts), *own[k + 1 :])
            case _:
                raise Opaque

    def _is_elementwise(self, function: ast.expr, name: str) -> bool:
        return name in self.helpers if isinstance(function, ast.Name) else name in UFUNCS or name == "where"

    def _size(self, node: ast.expr) -> str:
        """The size that a name stands for."""
        name = ast.unparse(node)
        if name.isdigit():
            return name
        if name not in self._size_named:
            raise Opaque
        return self._same.get(self._size_named[name], self._size_named[name])

    def _subscript(self, shape: Shape, index: ast.expr) -> Shape:
        """The shape behind `[:, None]`, `[t - 1]` or `[:, p:p + I]`."""
        parts = index.elts if isinstance(index, ast.Tuple) else [index]
        found: list[str] = []
        rest = list(shape)
        for part in parts:
            if isinstance(part, ast.Constant) and part.value is None:
                found.append("1")
                continue
            if not rest:
                raise Opaque
            size = rest.pop(0)
            match part:
                case ast.Slice(lower=None, upper=None, step=None):
                    found.append(size)
                case ast.Slice():
                    found.append(self._size(count_of(part)))
                case _ if self._shape(part) != ():
                    raise Opaque
                case _:
                    pass  # one place: the axis is gone
        return (*found, *rest)

    def _known(self, size: str) -> int | None:
        """How many places a size has, where that is known."""
        return int(size) if size.isdigit() else self._numbers.get(size)

    def _length(self, size: str) -> int:
        """How many places a size has, or may have."""
        return self._known(size) or TYPICAL

    def _length_of(self, shape: Shape) -> Length:
        """How many numbers a shape has: a number, times sizes that are not known."""
        known = list(map(self._known, shape))
        return math.prod(n for n in known if n), tuple(sorted(s for s, n in zip(shape, known, strict=True) if not n))

    def _steps(self, node: ast.expr) -> tuple[tuple[int, int], ...]:
        """The length of each axis of an array, or of windows of it, and how far apart its numbers lie in memory."""
        if (window := window_of(node)) is not None:
            inner, k = self._steps(window.value), window.axis
            pairs = zip(map(self._size, window.counts), window.steps, strict=True)
            return (*inner[:k], *((self._length(n), s * inner[k][1]) for n, s in pairs), *inner[k + 1 :])
        found: list[tuple[int, int]] = []
        for size in reversed(self._shape(node)):
            found.insert(0, (self._length(size), math.prod(n for n, _ in found)))
        return tuple(found)
