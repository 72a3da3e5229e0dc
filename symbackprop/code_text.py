"""Code of array statements as trees: reading a line, taking parts of it, putting others in."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from .contractions import Shape

UFUNCS = {
    "exp", "log", "sqrt", "tanh", "sinh", "cosh", "sin", "cos", "abs", "sign", "maximum", "minimum", "log1p", "expm1", "floor",
}  # fmt: skip


class Opaque(Exception):
    """An expression of a kind that is left to NumPy as it stands."""


def expression_of(text: str) -> ast.expr:
    """The tree of an expression."""
    return ast.parse(text, mode="eval").body


def parted(line: str) -> tuple[str, str, str]:
    """The target of a line, its sign, and the value."""
    before, sign, after = line.partition(" += ") if " += " in line else line.partition(" = ")
    return before, sign.strip(), after


def root_of(target: str) -> str:
    """The array of a place."""
    return target.partition("[")[0]


def words_of(text: str) -> list[str]:
    """The names and numbers in a text, in order."""
    return "".join(c if c.isalnum() or c == "_" else " " for c in text).split()


def tuple_of(items: Iterable[str]) -> str:
    """A tuple of expressions."""
    items = list(items)
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


def tidy(text: str) -> str:
    """An expression without brackets that it does not need."""
    return ast.unparse(expression_of(text))


class _Putting(ast.NodeTransformer):
    def __init__(self, given: Mapping[str, ast.expr]) -> None:
        self.given = given

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.given.get(node.id, node)


def put(tree: ast.expr, given: Mapping[str, ast.expr]) -> ast.expr:
    """A tree with others in place of names."""
    made = _Putting(given).visit(tree)
    assert isinstance(made, ast.expr)
    return made


def count_of(part: ast.Slice) -> ast.expr:
    """The I of the slices `p:p + I` and `p:p + 2 * I - 1:2`."""
    match part:
        case ast.Slice(lower=lower, upper=ast.BinOp(op=ast.Add(), left=left, right=count), step=None):
            pass
        case ast.Slice(
            lower=lower,
            upper=ast.BinOp(op=ast.Sub(), left=ast.BinOp(op=ast.Add(), left=left, right=ast.BinOp(right=count)), right=_),
            step=ast.Constant(),
        ):
            pass
        case _:
            raise Opaque
    if lower is None or ast.unparse(lower) != ast.unparse(left):
        raise Opaque
    return count


def axes_of(node: ast.Call, rank: int) -> tuple[int, ...]:
    """The axes that a reduction goes over, all of them where it names none."""
    for k in node.keywords:
        if k.arg == "axis":
            values = k.value.elts if isinstance(k.value, ast.Tuple) else [k.value]
            return tuple(number_of(v) % rank for v in values)
    return tuple(range(rank))


def number_of(node: ast.expr) -> int:
    """A whole number as code says it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        return -int(str(node.operand.value))
    raise Opaque


@dataclass(frozen=True)
class Window:
    """`window(value, axis, counts, steps, start)`: windows of an array, `apart` where its places do not follow one another."""

    call: ast.Call
    value: ast.expr
    axis: int
    counts: tuple[ast.expr, ...]
    steps: tuple[int, ...]
    start: ast.expr
    apart: bool


def window_of(node: ast.AST) -> Window | None:
    """Windows read off their text; None for anything else."""
    match node:
        case (
            ast.Call(
                func=ast.Name(id="window"), args=[value, axis, ast.Tuple(elts=counts), ast.Tuple(elts=steps), start, *apart]
            ) as call
        ):
            return Window(call, value, number_of(axis), tuple(counts), tuple(map(number_of, steps)), start, bool(apart))
        case _:
            return None


def is_product(node: ast.AST) -> bool:
    """Whether code is a product of matrices or a contraction."""
    match node:
        case ast.BinOp(op=ast.MatMult()) | ast.Call(func=ast.Attribute(attr="tensordot")):
            return True
        case _:
            return False


def is_reduction(node: ast.AST) -> bool:
    """Whether code sums an array up, or the like."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("sum", "max", "mean")


def broadcast(a: Shape, b: Shape) -> Shape:
    """The shape of an operation on arrays of two shapes."""
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    padded = ("1",) * (len(longer) - len(shorter)) + shorter
    found: list[str] = []
    for x, y in zip(longer, padded, strict=True):
        if x != y and "1" not in (x, y):
            raise Opaque
        found.append(y if x == "1" else x)
    return tuple(found)


class AtPlace:
    """A value at one place of its first axis; only of what is computed element by element."""

    def __init__(self, shape_of: Callable[[ast.expr], Shape], shape: Shape, counter: str) -> None:
        self.shape_of, self.shape, self.counter = shape_of, shape, counter

    def visit(self, node: ast.expr) -> ast.expr:
        """The tree with the variable in place of the first axis."""
        match node:
            case ast.Name() | ast.Subscript(value=ast.Name()):
                return self._leaf(node)
            case ast.Constant():
                return node
            case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.Pow(), left=left, right=right):
                return ast.BinOp(self.visit(left), node.op, self.visit(right))
            case ast.UnaryOp(operand=operand):
                return ast.UnaryOp(node.op, self.visit(operand))
            case ast.Compare(left=left, comparators=others):
                return ast.Compare(self.visit(left), node.ops, [self.visit(o) for o in others])
            case ast.Call(func=ast.Attribute(value=ast.Name(id="np"), attr=name) | ast.Name(id=name), args=args, keywords=[]) if (
                name in UFUNCS or name == "where" or isinstance(node.func, ast.Name)
            ):
                return ast.Call(node.func, [self.visit(a) for a in args], [])
            case _:
                raise Opaque

    def _leaf(self, node: ast.Name | ast.Subscript) -> ast.expr:
        own = self.shape_of(node)
        if len(own) < len(self.shape):
            return node
        place = ast.Name(self.counter, ast.Load())
        if isinstance(node, ast.Name):
            if own[0] != self.shape[0]:
                raise Opaque
            return ast.Subscript(node, place, ast.Load())
        match node.slice:
            case ast.Tuple(elts=[ast.Slice(lower=None, upper=None), *rest]):
                return ast.Subscript(node.value, ast.Tuple([place, *rest], ast.Load()), ast.Load())
            case _:
                raise Opaque
