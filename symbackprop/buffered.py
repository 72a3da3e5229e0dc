"""Array statements without allocation: every operation writes into a buffer that is kept from one step to the next.

    z1 = x @ W1 + b1      becomes      z1 = np.dot(x, W1, out=z1)
                                       z1 = np.add(z1, b1, out=z1)

A buffer that is `None` is made by the first step, as NumPy does when it is given none; later steps write over it. Values that are
not read any more lend their buffers to later ones of the same shape. What is not understood here stays as it is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .plan import Statement

Shape = tuple[str, ...]
_BINARY: Mapping[type, str] = {ast.Add: "np.add", ast.Sub: "np.subtract", ast.Mult: "np.multiply", ast.Div: "np.divide"}
_SIGNS: Mapping[type, str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}
_COMPARE: Mapping[type, str] = {
    ast.Gt: "np.greater",
    ast.Lt: "np.less",
    ast.GtE: "np.greater_equal",
    ast.LtE: "np.less_equal",
    ast.Eq: "np.equal",
    ast.NotEq: "np.not_equal",
}
_UFUNCS = {
    "exp", "log", "sqrt", "tanh", "sinh", "cosh", "sin", "cos", "abs", "sign", "maximum", "minimum", "log1p", "expm1", "floor",
}  # fmt: skip


@dataclass(frozen=True)
class Helper:
    """A function of the emitted module: its parameters, the statements before its value, and the value."""

    parameters: tuple[str, ...]
    lines: tuple[tuple[str, str], ...]
    value: str
    defaults: Mapping[str, str] = field(default_factory=dict[str, str])


class _Opaque(Exception):
    """An expression of a kind that is left to NumPy as it stands."""


class Buffering:
    """Rewrites statements in order; `shapes` are those of arrays by their Python names, a scalar's is empty.

    `outputs` are the names whose arrays the caller keeps (gradients), `kept` those that are returned: nothing later is written
    over them.
    """

    def __init__(
        self,
        shapes: Mapping[str, Shape],
        outputs: Iterable[str],
        helpers: Mapping[str, Helper],
        sizes: Mapping[str, str] | None = None,
        kept: Iterable[str] = (),
    ) -> None:
        self.shapes = dict(shapes)
        self.kept = set(kept)
        self.outputs = set(outputs)
        self.helpers = helpers
        self.sizes = dict(sizes or {})  # the Python name of each size
        self._ones: set[str] = set()  # sizes for which there is a vector of ones
        self.buffers: dict[str, None] = {}
        self._base: dict[str, str] = {}  # the buffer that a value lies in
        self._free: dict[tuple[Shape, str], list[str]] = {}
        self._pinned: set[str] = set()
        self._lines: list[str] = []
        self._count = 0
        self._taken = {"x", *self.shapes}
        self._lent: tuple[str, str] | None = None  # an operand and its buffer, which the result is written over
        self._saved: list[tuple[str, tuple[Shape, str]]] = []

    def rewrite(self, statements: Sequence[Statement]) -> list[Statement]:
        """The statements with buffers."""
        reads = [self._names(s) for s in statements]
        self._taken |= set[str]().union(*reads, [s.name for s in statements])
        last = {n: k for k, names in enumerate(reads) for n in names if n not in self.kept}
        result: list[Statement] = []
        for k, s in enumerate(statements):
            result.append(replace(s, lines=tuple(self._statement(s, reads[k], {n for n in reads[k] if last.get(n) == k}))))
            for n in reads[k]:
                if last.get(n) == k:
                    self._release(n)
        return result

    @staticmethod
    def _names(statement: Statement) -> list[str]:
        """The names that a statement reads, in the order of their first use."""
        found: dict[str, None] = {}
        for line in statement.lines:
            found |= dict.fromkeys(_words(line))
        return [n for n in found if n != statement.name]

    def _release(self, name: str) -> None:
        """A value that is not read any more gives its buffer back."""
        base = self._base.get(name)
        if (
            base is None
            or base in self._pinned
            or name in self.outputs
            or any(n != name and b == base for n, b in self._base.items())
        ):
            self._base.pop(name, None)
            return
        del self._base[name]
        self._free.setdefault((self.shapes[name], "number"), []).append(base)

    # ------------------------------------------------------------------ statements

    def _statement(self, statement: Statement, reads: Sequence[str], dying: set[str]) -> list[str]:
        self._lines, self._saved, self._lent = [], [], None
        name = statement.name
        if len(statement.lines) == 1 and name.isidentifier():
            before = dict(self.buffers), dict(self._base), {k: list(v) for k, v in self._free.items()}, set(self._ones)
            try:
                code = statement.lines[0].partition(" = ")[2]
                tree = ast.parse(code, mode="eval").body
                shape = self._shape(tree)
                if shape != self.shapes.get(name, shape):
                    raise _Opaque
                if shape == ():
                    value = _tidy(self._scalar(tree))
                    return [*self._finished(), f"{name}{'[...]' if name in self.outputs else ''} = {value}"]
                self.shapes[name] = shape
                out = name if name in self.outputs else self._buffer_for(name, shape, tree, dying)
                self._compute(tree, out, name)
                return self._finished()
            except _Opaque:
                self.buffers, self._base, self._free, self._ones = before
        self._pinned |= {self._base[n] for n in reads if n in self._base}
        begin = f"{name} = "
        first, *rest = statement.lines
        if name in self.outputs and first.startswith(begin):
            return [f"{name}[...] = {first[len(begin) :]}", *rest]
        return list(statement.lines)

    def _finished(self) -> list[str]:
        for temporary, key in self._saved:
            self._free.setdefault(key, []).append(temporary)
        lines, self._lines, self._saved = self._lines, [], []
        return lines

    def _buffer_for(self, name: str, shape: Shape, tree: ast.expr, dying: set[str]) -> str:
        """Where a value goes: over an operand that is read for the last time, into a free buffer, or into one of its own."""
        if not isinstance(tree, ast.BinOp) or not isinstance(tree.op, ast.MatMult):
            products = {
                n for node in ast.walk(tree) if _is_matmul(node) or _is_reduction(node) for n in _words(ast.unparse(node))
            }
            for n in sorted(dying):
                base = self._base.get(n)
                uses = sum(isinstance(x, ast.Name) and x.id == n for x in ast.walk(tree))
                if base is None or list(self._base.values()).count(base) > 1:
                    continue
                if base not in self._pinned and self.shapes[n] == shape and uses == 1 and n not in products:
                    del self._base[n]
                    self._base[name] = base
                    self._lent = n, base
                    return base
        free = self._free.get((shape, "number"), [])
        if free:
            base = free.pop()
        else:
            base = name
            self.buffers[name] = None
        self._base[name] = base
        return base

    def _temporary(self, shape: Shape, kind: str = "number") -> str:
        key = (shape, kind)
        free = self._free.get(key, [])
        if free:
            name = free.pop()
        else:
            name = "x"
            while name in self._taken:
                self._count += 1
                name = f"t{self._count}"
            self._taken.add(name)
            self.buffers[name] = None
        self._saved.append((name, key))
        return name

    # ------------------------------------------------------------------ shapes

    def _shape(self, node: ast.expr) -> Shape:
        match node:
            case ast.Constant():
                return ()
            case ast.Name(id=name):
                if name not in self.shapes:
                    raise _Opaque
                return self.shapes[name]
            case ast.Attribute(value=value, attr="T"):
                return self._shape(value)[::-1]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._shape(operand)
            case ast.BinOp(op=ast.MatMult(), left=left, right=right):
                a, b = self._shape(left), self._shape(right)
                if len(a) < 2 or len(b) < 2:
                    return (*a[:-1], *b[:-2], *b[-1:]) if len(b) > 1 or len(a) > 1 else ()
                return (*_broadcast(a[:-2], b[:-2]), a[-2], b[-1])
            case ast.BinOp(left=left, right=right):
                return _broadcast(self._shape(left), self._shape(right))
            case ast.Compare(left=left, comparators=[right]):
                return _broadcast(self._shape(left), self._shape(right))
            case ast.Subscript(value=value, slice=index):
                return _subscript(self._shape(value), index)
            case ast.Call():
                return self._shape_of_call(node)
            case _:
                raise _Opaque

    def _shape_of_call(self, node: ast.Call) -> Shape:
        match node.func:
            case ast.Attribute(value=ast.Name(id="np"), attr=name) | ast.Name(id=name) if self._is_elementwise(node.func, name):
                shape: Shape = ()
                for a in node.args:
                    shape = _broadcast(shape, self._shape(a))
                return shape
            case ast.Attribute(value=value, attr="sum" | "max" | "mean"):
                own = self._shape(value)
                axes = _axes(node, len(own))
                return tuple(s for k, s in enumerate(own) if k not in axes)
            case ast.Attribute(value=value, attr="transpose"):
                own = self._shape(value)
                return tuple(own[_number(a)] for a in node.args)
            case _:
                raise _Opaque

    def _is_elementwise(self, function: ast.expr, name: str) -> bool:
        return name in self.helpers if isinstance(function, ast.Name) else name in _UFUNCS or name == "where"

    # ------------------------------------------------------------------ values

    def _operand(self, node: ast.expr) -> str:
        """A value as an operand: a name, a view of one, a number, or a temporary that it is computed into."""
        shape = self._shape(node)
        if shape == ():
            return _tidy(self._scalar(node))
        match node:
            case ast.Name(id=name):
                return name
            case ast.Attribute(value=value, attr="T"):
                return f"{self._operand(value)}.T"
            case ast.Subscript(value=value, slice=index):
                return f"{self._operand(value)}[{ast.unparse(index).strip('()')}]"
            case ast.Call(func=ast.Attribute(value=value, attr="transpose"), args=args):
                return f"{self._operand(value)}.transpose({', '.join(map(ast.unparse, args))})"
            case _:
                kind = "truth" if isinstance(node, ast.Compare) else "number"
                out = self._temporary(shape, kind)
                self.shapes[out] = shape
                self._compute(node, out, out)
                return out

    def _scalar(self, node: ast.expr) -> str:
        """A number: Python's arithmetic on what arrays are summed up to."""
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.BinOp(op=ast.Mult(), left=left, right=right), attr="sum"), args=[], keywords=[]
            ) if self._shape(left) == self._shape(right) != ():
                return f"np.vdot({self._operand(left)}, {self._operand(right)})"
            case ast.Call(func=ast.Attribute(value=value, attr="sum" | "max" as how)) if self._shape(value) != ():
                reduce = "np.add.reduce" if how == "sum" else "np.maximum.reduce"
                return f"{reduce}({self._operand(value)}, None)"
            case ast.BinOp(op=ast.MatMult(), left=left, right=right):
                return f"np.dot({self._operand(left)}, {self._operand(right)})"
            case ast.BinOp(op=op, left=left, right=right):
                a, b = self._scalar(left), self._scalar(right)
                sign = _SIGNS[type(op)]
                return f"({a} {sign} {b})"
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return f"(-{self._scalar(operand)})"
            case ast.Name() | ast.Constant():
                return ast.unparse(node)
            case _:
                if any(isinstance(n, ast.Name) and self.shapes.get(n.id, ()) for n in ast.walk(node)):
                    raise _Opaque
                return ast.unparse(node)

    def _say(self, bind: str, call: str) -> None:
        if not call.startswith(("np.dot(", "np.add.reduce(", "np.maximum.reduce(")) and (".T" in call or ".transpose(" in call):
            call = f'{call[:-1]}, order="C")'  # a new buffer is laid out in rows whatever its operands are
        self._lines.append(f"{bind} = {call}" if bind not in self.outputs else call)

    def _compute(self, node: ast.expr, out: str, bind: str) -> None:
        """Lines that compute a value into a buffer and bind it to a name."""
        shape = self._shape(node)
        match node:
            case ast.BinOp(op=ast.MatMult(), left=left, right=right):
                a, b = self._operand(left), self._operand(right)
                plain = len(self._shape(left)) <= 2 and len(self._shape(right)) <= 2
                self._say(bind, f"np.{'dot' if plain else 'matmul'}({a}, {b}, out={out})")
            case ast.BinOp(op=ast.Pow(), left=left, right=right):
                self._raise(left, right, out, bind)
            case ast.BinOp(op=ast.Mult() | ast.Div()) if (joined := self._scalars_first(node)) is not None:
                self._compute(joined, out, bind)
            case ast.BinOp(op=op, left=left, right=right) if type(op) in _BINARY:
                a, b = self._both(left, right, shape, out)
                self._say(bind, f"{_BINARY[type(op)]}({a}, {b}, out={out})")
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                self._say(bind, f"np.negative({self._within(operand, shape, out)}, out={out})")
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                self._say(bind, f"{_COMPARE[type(op)]}({self._operand(left)}, {self._operand(right)}, out={out})")
            case ast.Call(func=ast.Attribute(value=ast.Name(id="np"), attr="where"), args=[test, then, other]):
                if self._shape(test) != shape or self._shape(other) != shape or self._reads(test, out) or self._reads(then, out):
                    raise _Opaque
                mask, a = self._operand(test), self._operand(then)
                if isinstance(other, ast.Name):
                    self._say(bind, f"np.positive({other.id}, out={out})")
                else:
                    self._compute(other, out, bind)
                self._lines.append(f"np.copyto({bind}, {a}, where={mask})")
            case ast.Call(func=ast.Attribute(value=ast.Name(id="np"), attr=name), args=args) if name in _UFUNCS:
                if len(args) == 2:
                    a, b = self._both(args[0], args[1], shape, out)
                    self._say(bind, f"np.{name}({a}, {b}, out={out})")
                else:
                    self._say(bind, f"np.{name}({self._within(args[0], shape, out)}, out={out})")
            case ast.Call(func=ast.Attribute(value=value, attr="sum" | "max" as how)):
                self._reduce(value, _axes(node, len(self._shape(value))), how, out, bind)
            case ast.Call(func=ast.Name(id=name), args=args) if name in self.helpers:
                self._inline(self.helpers[name], args, out, bind)
            case ast.Name() | ast.Attribute() | ast.Subscript():
                self._say(bind, f"np.positive({self._operand(node)}, out={out})")
            case _:
                raise _Opaque

    def _reduce(self, value: ast.expr, axes: tuple[int, ...], how: str, out: str, bind: str) -> None:
        """A sum or greatest value along axes; a matrix summed over one axis is its product with ones, which BLAS does faster."""
        operand, shape = self._operand(value), self._shape(value)
        if how == "sum" and len(shape) == 2 and len(axes) == 1 and operand.isidentifier() and shape[axes[0]] in self.sizes:
            ones = self._vector_of_ones(shape[axes[0]])
            self._say(bind, f"np.dot({ones}, {operand}, out={out})" if axes[0] == 0 else f"np.dot({operand}, {ones}, out={out})")
            return
        reduce = "np.add.reduce" if how == "sum" else "np.maximum.reduce"
        if len(axes) > 1 and axes[0] == 0:
            # The first axis first: this adds whole blocks.
            part = self._temporary(shape[1:])
            self.shapes[part] = shape[1:]
            self._say(part, f"{reduce}({operand}, axis=0, out={part})")
            operand, axes = part, tuple(a - 1 for a in axes[1:])
        self._say(bind, f"{reduce}({operand}, axis={axes[0] if len(axes) == 1 else axes}, out={out})")

    def _vector_of_ones(self, size: str) -> str:
        name = f"ones_{self.sizes[size]}"
        if size not in self._ones:
            self._ones.add(size)
            self.buffers[name] = None
            self._lines.append(f"{name} = np.ones({self.sizes[size]}, _dtype(params)) if {name} is None else {name}")
        return name

    def _raise(self, base: ast.expr, exponent: ast.expr, out: str, bind: str) -> None:
        """A power; small whole ones as products."""
        shape = self._shape(base)
        power = exponent.value if isinstance(exponent, ast.Constant) else None
        if power == 2:
            self._say(bind, f"np.square({self._within(base, shape, out)}, out={out})")
        elif power == 3:
            operand, extra = self._operand(base), self._temporary(shape)
            self._say(extra, f"np.square({operand}, out={extra})")
            self._say(bind, f"np.multiply({extra}, {operand}, out={out})")
        else:
            self._say(bind, f"np.power({self._within(base, shape, out)}, {self._operand(exponent)}, out={out})")

    def _scalars_first(self, node: ast.expr) -> ast.expr | None:
        """A product of several numbers and arrays with the numbers multiplied first; None where there is one number at most."""
        above: list[ast.expr] = []
        below: list[ast.expr] = []

        def flatten(part: ast.expr, turned: bool) -> None:
            if self._shape(part) == ():
                (below if turned else above).append(part)
            elif isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mult):
                flatten(part.left, turned)
                flatten(part.right, turned)
            elif isinstance(part, ast.BinOp) and isinstance(part.op, ast.Div):
                flatten(part.left, turned)
                flatten(part.right, not turned)
            else:
                (below if turned else above).append(part)

        flatten(node, False)
        numbers = [[ast.unparse(p) for p in side if self._shape(p) == ()] for side in (above, below)]
        arrays = [[ast.unparse(p) for p in side if self._shape(p) != ()] for side in (above, below)]
        plain = all(self._is_number(p) for p in (*above, *below) if self._shape(p) == ())
        if len(numbers[0]) + len(numbers[1]) < 2 or not arrays[0] or not plain:
            return None

        def quotient(one: list[str], other: list[str]) -> str:
            top = " * ".join(f"({p})" for p in one) or "1"
            return f"{top} / ({' * '.join(f'({p})' for p in other)})" if other else top

        return ast.parse(f"({quotient(*numbers)}) * ({quotient(*arrays)})", mode="eval").body

    def _is_number(self, node: ast.expr) -> bool:
        """Whether a number is no sum over an array: Python computes it before any array is touched."""
        return all(self.shapes.get(n.id, ()) == () for n in ast.walk(node) if isinstance(n, ast.Name))

    def _within(self, node: ast.expr, shape: Shape, out: str) -> str:
        """An operand that may lie in the buffer that the result goes to."""
        if isinstance(node, (ast.Name, ast.Constant, ast.Attribute, ast.Subscript, ast.Compare)) or self._shape(node) != shape:
            return self._operand(node)
        self._compute(node, out, out)
        return out

    def _both(self, left: ast.expr, right: ast.expr, shape: Shape, out: str) -> tuple[str, str]:
        """Two operands, of which one may lie in the buffer of the result where the other does not read what is there."""
        simple = (ast.Name, ast.Constant, ast.Attribute, ast.Subscript, ast.Compare)
        reads = [self._reads(side, out) for side in (left, right)]
        fits = [not isinstance(side, simple) and self._shape(side) == shape for side in (left, right)]
        if fits[0] and not reads[1]:
            a = self._within(left, shape, out)
            return a, self._operand(right)
        if fits[1] and not reads[0]:
            b = self._within(right, shape, out)
            return self._operand(left), b
        return self._operand(left), self._operand(right)

    def _reads(self, node: ast.expr, out: str) -> bool:
        """Whether a value is computed from what lies in a buffer."""
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        lent = self._lent is not None and self._lent[1] == out and self._lent[0] in names
        return lent or any(out in (n, self._base.get(n)) for n in names)

    def _inline(self, helper: Helper, args: Sequence[ast.expr], out: str, bind: str) -> None:
        """A function's formula in place of its call."""
        given: dict[str, ast.expr] = {}
        for parameter, argument in zip(helper.parameters, args, strict=False):
            operand = self._operand(argument)
            given[parameter] = ast.parse(operand, mode="eval").body
        for parameter in helper.parameters[len(args) :]:
            given[parameter] = ast.parse(helper.defaults[parameter], mode="eval").body
        for name, code in helper.lines:
            tree = _put(ast.parse(code, mode="eval").body, given)
            shape = self._shape(tree)
            own = self._temporary(shape, "truth" if isinstance(tree, ast.Compare) else "number")
            self.shapes[own] = shape
            self._compute(tree, own, own)
            given[name] = ast.Name(own, ast.Load())
        self._compute(_put(ast.parse(helper.value, mode="eval").body, given), out, bind)


def _tidy(text: str) -> str:
    """An expression without brackets that it does not need."""
    return ast.unparse(ast.parse(text, mode="eval").body)


class _Putting(ast.NodeTransformer):
    def __init__(self, given: Mapping[str, ast.expr]) -> None:
        self.given = given

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.given.get(node.id, node)


def _put(tree: ast.expr, given: Mapping[str, ast.expr]) -> ast.expr:
    """A tree with others in place of names."""
    made = _Putting(given).visit(tree)
    assert isinstance(made, ast.expr)
    return made


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() or c == "_" else " " for c in text).split()


def _broadcast(a: Shape, b: Shape) -> Shape:
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    padded = ("1",) * (len(longer) - len(shorter)) + shorter
    found: list[str] = []
    for x, y in zip(longer, padded, strict=True):
        if x != y and "1" not in (x, y):
            raise _Opaque
        found.append(y if x == "1" else x)
    return tuple(found)


def _subscript(shape: Shape, index: ast.expr) -> Shape:
    """The shape behind `[:, None]`."""
    parts = index.elts if isinstance(index, ast.Tuple) else [index]
    found: list[str] = []
    rest = list(shape)
    for part in parts:
        if isinstance(part, ast.Constant) and part.value is None:
            found.append("1")
        elif isinstance(part, ast.Slice) and part.lower is part.upper is part.step is None and rest:
            found.append(rest.pop(0))
        else:
            raise _Opaque
    return (*found, *rest)


def _axes(node: ast.Call, rank: int) -> tuple[int, ...]:
    for k in node.keywords:
        if k.arg == "axis":
            values = k.value.elts if isinstance(k.value, ast.Tuple) else [k.value]
            return tuple(_number(v) % rank for v in values)
    return tuple(range(rank))


def _number(node: ast.expr) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        return -int(str(node.operand.value))
    raise _Opaque


def _is_matmul(node: ast.AST) -> bool:
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)


def _is_reduction(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("sum", "max", "mean")
