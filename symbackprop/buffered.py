"""Array statements without allocation: every operation writes into a buffer that is kept from one step to the next.

    z1 = x @ W1 + b1      becomes      z1 = np.dot(x, W1, out=z1)
                                       z1 = np.add(z1, b1, out=z1)

A buffer that is `None` is made by the first step, as NumPy does when it is given none; later steps write over it. Values that are
not read any more lend their buffers to later ones of the same shape. Loops are rewritten line by line: what they fill place by
place is an array that is kept, too. What is not understood here stays as it is.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .contractions import Contraction, Operand, Shape, contraction_of, joined
from .plan import Statement
from .rooms import Length, Rooms

_NUMBERS = {"0": "zero", "1": "one", "2": "two", "0.5": "half", "1 / 2": "half"}
_LONG = 5  # operations in a chain that is done block by block
_FEW, _MANY = 1024, 32768  # the numbers that a block may have
_TYPICAL = 32  # of a size that is not known
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
    over them; `same` gives a size the first that is the same number, `numbers` the number where it is known,
    `kind` says in code which kind of numbers arrays hold.
    """

    def __init__(
        self,
        shapes: Mapping[str, Shape],
        outputs: Iterable[str],
        helpers: Mapping[str, Helper],
        sizes: Mapping[str, str] | None = None,
        kept: Iterable[str] = (),
        same: Mapping[str, str] | None = None,
        numbers: Mapping[str, int | None] | None = None,
        kind: str = "",
    ) -> None:
        # Sizes that are one number are one size: arrays may then lie in each other's buffers.
        self._same = same or {}
        self._numbers = numbers or {}
        self._named_kind = kind
        self._said = dict(shapes)
        self.shapes = {name: tuple(self._same.get(s, s) for s in shape) for name, shape in shapes.items()}
        self.kept = set(kept)
        self.outputs = set(outputs)
        self.helpers = helpers
        self.sizes = dict(sizes or {})  # the Python name of each size
        self._size_named = {name: size for size, name in self.sizes.items()}
        self._first: dict[str, str] = {}  # what is made before all else: vectors of ones, numbers as arrays
        self._rooms = Rooms(self._length_of, _TYPICAL)
        self._base: dict[str, str] = {}  # the buffer that a value lies in
        self._pinned: set[str] = set()
        self._lines: list[str] = []
        self._count = 0
        self._taken = {"x", *self.shapes}
        self._lent: tuple[str, str] | None = None  # an operand and its buffer, which the result is written over
        self._saved: list[str] = []  # temporaries of a line
        self._bound: set[str] = set()  # buffers that hold an array by now
        self._certain = True  # whether a line is reached in every pass

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
        words = {w for s in result for line in s.lines for w in _words(line)}
        first = tuple(f"{name} = {code} if {name} is None else {name}" for name, code in self._first.items() if name in words)
        self._rooms.drop(n for n in self._first if n not in words)
        return [Statement("", "", "", first), *result] if first else result

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
        self._rooms.give_back(base)

    # ------------------------------------------------------------------ statements

    def _statement(self, statement: Statement, reads: Sequence[str], dying: set[str]) -> list[str]:
        self._lines, self._saved, self._lent = [], [], None
        name = statement.name
        if len(statement.lines) > 1:
            return self._several(statement, reads)
        line = "".join(statement.lines)
        value = line.partition(" = ")[2]
        if name.isidentifier() and (lines := self._tried(lambda: self._bind(name, _expression(value), dying))):
            return lines
        self._pin(reads)
        return [f"{name}[...] = {value}" if name in self.outputs else line]

    def _tried(self, write: Callable[[], None]) -> list[str] | None:
        """The lines that a rewriting makes; None, with nothing changed, where it meets what it does not understand."""
        before = self._rooms.copy(), dict(self._base), dict(self.shapes), set(self._bound)
        try:
            write()
            return self._finished()
        except _Opaque:
            self._rooms, self._base, self.shapes, self._bound = before
            self._lines, self._saved, self._lent = [], [], None
            return None

    def _bind(self, name: str, tree: ast.expr, dying: set[str], within: bool = False) -> None:
        """A value into a buffer of its name, or of one that is read for the last time; `within` a loop it is that of one step."""
        shape = self._shape(tree)
        if not within and shape != self.shapes.get(name, shape):
            raise _Opaque
        if shape == ():
            value = _tidy(self._scalar(tree))
            self._lines.append(f"{name}{'[...]' if name in self.outputs else ''} = {value}")
            return
        self.shapes[name] = shape
        out = name if name in self.outputs else self._base.get(name) or self._buffer_for(name, shape, tree, dying)
        block = self._block(tree, shape)
        if block is None or within or name in self.outputs:
            self._compute(tree, out, name)
        else:
            self._by_blocks(*block, shape, out, name)

    def _block(self, tree: ast.expr, shape: Shape) -> tuple[str, ast.expr] | None:
        """A variable for the first axis, and a value at one place of it, where a long chain of operations is better done so.

        What one place has must fit into a cache, and what all have must not.
        """
        if len(shape) < 2 or len(self.buffers) == 0 or self._operations(tree) < _LONG:
            return None
        lengths = [math.prod(map(self._length, own)) for own in (shape[1:], shape)]
        if not _FEW <= lengths[0] <= _MANY < lengths[1]:
            return None
        counter = self.sizes.get(shape[0], "n").lower()
        while counter in self._taken:
            counter += "_"
        try:
            place = _AtPlace(self._shape, shape, counter).visit(ast.parse(ast.unparse(tree), mode="eval").body)
        except _Opaque:
            return None
        return counter, place

    def _operations(self, tree: ast.expr) -> int:
        """How many operations a value takes, those of functions among them."""
        calls = [
            self.helpers[n.func.id]
            for n in ast.walk(tree)
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id in self.helpers
        ]
        within = [_expression(code) for h in calls for code in (*(code for _, code in h.lines), h.value)]
        own = sum(isinstance(n, (ast.BinOp, ast.Call, ast.Compare)) for n in ast.walk(tree))
        return own + sum(map(self._operations, within))

    def _by_blocks(self, counter: str, value: ast.expr, shape: Shape, out: str, bind: str) -> None:
        """A chain of operations for one place of the first axis after the other."""
        self._allocated(out, shape)
        self.shapes[counter] = ()
        before, self._lines = self._lines, []
        self._compute(value, f"{out}[{counter}]", f"{out}[{counter}]")
        head = f"for {counter} in range({self.sizes.get(shape[0], shape[0])}):"
        self._lines = [*before, head, *(f"    {line}" for line in self._lines)]
        self._named(bind, out)

    def _pin(self, names: Iterable[str]) -> None:
        """What is not understood may keep views of what it reads: these arrays are never written over."""
        self._pinned |= {self._base[n] for n in names if n in self._base}

    def _several(self, statement: Statement, reads: Sequence[str]) -> list[str]:
        """The lines of a loop, or of an array that is filled place by place."""
        result: list[str] = []
        changed = _filled_in_part(statement.lines)
        depth_of_test = None
        for line in statement.lines:
            code = line.lstrip()
            indent = line[: len(line) - len(code)]
            if depth_of_test is not None and len(indent) <= depth_of_test:
                depth_of_test = None
            self._certain = depth_of_test is None
            if code.startswith("#") or code.endswith(":"):
                if code.startswith("for "):
                    # A loop's variables are numbers.
                    self.shapes |= dict.fromkeys(_words(code[4:].partition(" in ")[0]), ())
                elif code.startswith(("if ", "else:")) and depth_of_test is None:
                    depth_of_test = len(indent)
                result.append(line)
                continue
            lines = self._tried(lambda code=code: self._line(code, changed))
            if lines is None:
                self._pin(reads)
                target, sign, value = _parted(code)
                lines = [f"{target}[...] {sign} {value}"] if target in self.outputs else [code]
            result += [indent + made for made in lines]
        self._certain = True
        return result

    def _line(self, code: str, changed: Collection[str]) -> None:
        """One line: an array of zeros, a value, or what is put or added at places of an array."""
        target, sign, text = _parted(code)
        value = _expression(text)
        root = _root(target)
        if text.startswith("np.zeros("):
            self._zeros(target, value, target in changed)
            return
        if sign == "=" and target == root:
            match value:
                case ast.Call(func=ast.Attribute(value=ast.Name(id=whole), attr="reshape")) if self._base.get(whole) == whole:
                    # The same array with other axes, by the new name from now on.
                    self.shapes[target] = self._shape(value)
                    del self._base[whole]
                    self._base[target] = target
                    self._rooms.view(target, self.shapes[target], whole)
                    self._lines.append(code)
                case _:
                    self._bind(target, value, set(), within=True)
            return
        shape = self._shape(_expression(target))
        if (root not in self._base and root not in self.outputs) or _broadcast(shape, self._shape(value)) != shape:
            raise _Opaque
        if sign == "+=":
            self._lines.append(f"np.add({target}, {self._operand(value)}, out={target})")
        elif self._shape(value) == shape:
            self._compute(value, target, target)
        else:
            raise _Opaque

    def _zeros(self, name: str, value: ast.expr, again: bool) -> None:
        """An array of zeros that is kept; what is only added to begins every pass at zero."""
        match value:
            case ast.Call(args=[ast.Tuple(elts=sizes), ast.Call(func=ast.Name(id="_dtype"))]):
                self.shapes[name] = tuple(map(self._size, sizes))
            case _:
                raise _Opaque
        if name in self.outputs:
            self._lines.append(f"{name}[...] = 0")
            return
        self._base[name] = name
        self._rooms.make(name, self.shapes[name])
        self._make(name, ast.unparse(value))
        if again or not self._certain:
            self._lines.append(f"{name}.fill(0)")

    def _allocated(self, name: str, shape: Shape) -> None:
        """A buffer that is there before something is written into it that would not make it."""
        if name not in self._bound:
            self._make(name, f"np.empty({_tuple(self.sizes.get(s, s) for s in shape)}, _dtype(params))")

    def _make(self, name: str, code: str) -> None:
        """A buffer that the first pass makes by itself."""
        self._lines.append(f"{name} = {code} if {name} is None else {name}")
        if self._certain:
            self._bound.add(name)

    def _finished(self) -> list[str]:
        for temporary in self._saved:
            self._rooms.give_back(temporary)
        lines, self._lines, self._saved = self._lines, [], []
        return lines

    def _buffer_for(self, name: str, shape: Shape, tree: ast.expr, dying: set[str]) -> str:
        """Where a value goes: over an operand that is read for the last time, into a free buffer, or into one of its own."""
        if not isinstance(tree, ast.BinOp) or not isinstance(tree.op, ast.MatMult):
            products = {
                n for node in ast.walk(tree) if _is_product(node) or _is_reduction(node) for n in _words(ast.unparse(node))
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
        self._base[name] = self._room(shape, "number", name)
        return self._base[name]

    def _room(self, shape: Shape, kind: str, wish: str | None = None) -> str:
        """A free buffer of a shape, one that lies in a larger one of another shape, or a new one."""
        if found := self._rooms.borrow(shape, kind):
            return found
        name = wish or self._fresh()
        if (whole := self._rooms.share(name, shape, kind, self._bound)) is not None:
            self._make(name, f"part_of({whole}, {', '.join(self.sizes.get(s, s) for s in shape)})")
        else:
            self._rooms.make(name, shape, kind)
        return name

    def _temporary(self, shape: Shape, kind: str = "number") -> str:
        name = self._room(shape, kind)
        self._saved.append(name)
        return name

    def _fresh(self) -> str:
        """A name for a buffer that no value is called after."""
        name = "x"
        while name in self._taken:
            self._count += 1
            name = f"t{self._count}"
        self._taken.add(name)
        return name

    @property
    def buffers(self) -> list[str]:
        """The buffers that are kept from step to step."""
        return list(self._rooms.buffers)

    def _length_of(self, shape: Shape) -> Length:
        """How many numbers a shape has: a number, times sizes that are not known."""
        known = [int(s) if s.isdigit() else self._numbers.get(s) for s in shape]
        return math.prod(n for n in known if n), tuple(sorted(s for s, n in zip(shape, known, strict=True) if not n))

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
                return self._subscript(self._shape(value), index)
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
            case ast.Attribute(value=value, attr="copy"):
                return self._shape(value)
            case ast.Attribute(attr="reshape"):
                return tuple(map(self._size, node.args))
            case ast.Attribute(attr="tensordot") if (found := contraction_of(node)) is not None:
                sides = zip((found.left, found.right), found.over, strict=True)
                return tuple(s for side, over in sides for k, s in enumerate(self._shape(side)) if k not in over)
            case ast.Name(id="window"):
                value, axis, counts = node.args[:3]
                own, k = self._shape(value), _number(axis)
                assert isinstance(counts, ast.Tuple)
                return (*own[:k], *map(self._size, counts.elts), *own[k + 1 :])
            case _:
                raise _Opaque

    def _size(self, node: ast.expr) -> str:
        """The size that a name stands for."""
        name = ast.unparse(node)
        if name.isdigit():
            return name
        if name not in self._size_named:
            raise _Opaque
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
                raise _Opaque
            size = rest.pop(0)
            match part:
                case ast.Slice(lower=None, upper=None, step=None):
                    found.append(size)
                case ast.Slice():
                    found.append(self._size(_count_of(part)))
                case _ if self._shape(part) != ():
                    raise _Opaque
                case _:
                    pass  # one place: the axis is gone
        return (*found, *rest)

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
        rebinds = bind.isidentifier() and bind not in self.outputs
        self._lines.append(f"{bind} = {call}" if rebinds else call)
        if rebinds and self._certain:
            self._bound.add(bind)

    def _compute(self, node: ast.expr, out: str, bind: str) -> None:
        """Lines that compute a value into a buffer and bind it to a name."""
        shape = self._shape(node)
        match node:
            case ast.BinOp(op=ast.MatMult(), left=left, right=right):
                a, b = self._operand(left), self._operand(right)
                plain = len(self._shape(left)) <= 2 and len(self._shape(right)) <= 2
                self._say(bind, f"np.{'dot' if plain else 'matmul'}({a}, {b}, out={out})")
            case _ if (contraction := contraction_of(node)) is not None:
                self._contract(contraction, shape, out, bind)
            case ast.Call(func=ast.Attribute(value=ast.BinOp(op=ast.MatMult()) as inner, attr="transpose"), args=args):
                self._turned_product(inner, list(map(_number, args)), shape, out, bind)
            case ast.Call(func=ast.Attribute(value=value, attr="copy")):
                self._say(bind, f"np.positive({self._operand(value)}, out={out})")
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
                # Whole numbers are compared with whole numbers.
                limit = self._constant(right) if isinstance(left, ast.Name) and left.id in self._base else None
                self._say(bind, f"{_COMPARE[type(op)]}({self._operand(left)}, {limit or self._operand(right)}, out={out})")
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

    # ------------------------------------------------------------------ contractions

    def _contract(self, c: Contraction, shape: Shape, out: str, bind: str) -> None:
        """A contraction as one product of matrices, written where its result goes."""
        left, right = self._laid(c.left), self._laid(c.right)
        free = [[k for k in range(len(o.order)) if k not in over] for o, over in zip((left, right), c.over, strict=True)]
        sides = [0] * len(free[0]) + [1] * len(free[1])
        places = [*free[0], *free[1]]
        if c.turn is not None:
            sides, places = [sides[k] for k in c.turn], [places[k] for k in c.turn]
        over = list(c.over)
        if sides == sorted(sides, reverse=True) and sides != sorted(sides):
            left, right, sides = right, left, [1 - s for s in sides]
            over.reverse()
        if sides != sorted(sides) or not sides:
            raise _Opaque
        own = [[p for s, p in zip(sides, places, strict=True) if s == side] for side in (0, 1)]
        # The summed axes in the order in which they lie in one of the operands, so that it need not be copied.
        orders = [sorted(range(len(over[0])), key=lambda k: o.order[axes[k]]) for o, axes in ((left, over[0]), (right, over[1]))]
        pairs = [[[axes[k] for k in order] for axes in over] for order in orders]

        def copies(pair: list[list[int]]) -> int:
            kinds = (left, left.is_matrix(own[0], pair[0])), (right, right.is_matrix(pair[1], own[1]))
            return sum(len(operand.shape) for operand, as_it_lies in kinds if not as_it_lies)

        summed = min(pairs, key=copies)
        a = self._as_matrix(left, own[0], summed[0])
        b = self._as_matrix(right, summed[1], own[1])
        to = out if out.isidentifier() else self._temporary(shape)
        if to not in self.outputs:
            said = self._said.get(bind, ())
            self._allocated(to, said if len(said) == len(shape) else shape)
        split = len(own[0])
        if 0 < split < len(shape) and len(shape) > 2:
            flat = f"{to}.reshape({joined(shape[:split], shape[split:], self.sizes)})"
        else:
            flat = f"{to}.reshape(-1)" if len(shape) > 2 or (len(shape) == 2 and split != 1) else to
        self._lines.append(f"np.dot({a}, {b}, out={flat})")
        if to != out:
            self._say(bind, f"np.positive({to}, out={out})")
        else:
            self._named(bind, out)

    def _named(self, bind: str, out: str) -> None:
        """What lies in a buffer by the name of the value."""
        if bind != out and bind not in self.outputs:
            self._lines.append(f"{bind} = {out}")

    def _turned_product(self, product: ast.BinOp, turn: Sequence[int], shape: Shape, out: str, bind: str) -> None:
        """Matrix products whose result is turned are written where it goes, seen with their own axes."""
        if len(shape) < 3 or not out.isidentifier():
            raise _Opaque
        a, b = self._operand(product.left), self._operand(product.right)
        self._allocated(out, shape)
        back = sorted(range(len(turn)), key=turn.__getitem__)
        self._lines.append(f"np.matmul({a}, {b}, out={out}.transpose({', '.join(map(str, back))}))")
        self._named(bind, out)

    def _laid(self, node: ast.expr) -> Operand:
        """An operand of a contraction as it lies in memory."""
        match node:
            case ast.Attribute(value=value, attr="T"):
                inner = self._laid(value)
                return replace(inner, order=inner.order[::-1])
            case ast.Call(func=ast.Attribute(value=value, attr="transpose"), args=args):
                inner = self._laid(value)
                return replace(inner, order=tuple(inner.order[_number(a)] for a in args))
            case _:
                shape = self._shape(node)
                own = tuple(range(len(shape)))
                if isinstance(node, ast.Call) and _is_window(node):
                    moved = self._moved(node, shape)
                    return Operand(moved or ast.unparse(node), shape, own, moved is not None, self._steps(node))
                return Operand(self._operand(node), shape, own, True, self._steps(node))

    def _steps(self, node: ast.expr) -> tuple[tuple[int, int], ...]:
        """The length of each axis of an array, or of windows of it, and how far apart its numbers lie in memory."""
        if isinstance(node, ast.Call) and _is_window(node):
            value, axis, counts, steps = node.args[:4]
            inner, k = self._steps(value), _number(axis)
            assert isinstance(counts, ast.Tuple) and isinstance(steps, ast.Tuple)
            pairs = zip(map(self._size, counts.elts), map(_number, steps.elts), strict=True)
            return (*inner[:k], *((self._length(n), s * inner[k][1]) for n, s in pairs), *inner[k + 1 :])
        found: list[tuple[int, int]] = []
        for size in reversed(self._shape(node)):
            found.insert(0, (self._length(size), math.prod(n for n, _ in found)))
        return tuple(found)

    def _length(self, size: str) -> int:
        """How many places a size has, or may have."""
        return int(size) if size.isdigit() else self._numbers.get(size) or _TYPICAL

    def _moved(self, window: ast.Call, shape: Shape) -> str | None:
        """An array moved along an axis, with zeros where nothing comes from, as an array of its own."""
        value, axis, counts, steps, start = window.args[:5]
        if not isinstance(value, ast.Name) or self._shape(value) != shape or len(window.args) > 5:
            return None
        if not isinstance(counts, ast.Tuple) or len(counts.elts) > 1 or ast.unparse(steps) != "(1,)":
            return None
        by = _number(start)
        name = self._fresh()
        self.shapes[name] = shape
        self._rooms.make(name, shape)
        self._make(name, f"np.zeros({value.id}.shape, _dtype(params))")
        before = ":, " * _number(axis)
        there, here = (f"{-by}:", f":{by}") if by < 0 else (f":{-by}", f"{by}:")
        self._lines.append(f"{name}[{before}{there}] = {value.id}[{before}{here}]")
        return name

    def _as_matrix(self, operand: Operand, rows: Sequence[int], columns: Sequence[int]) -> str:
        """A matrix whose rows and columns are joined axes: a view where it can be, else a copy in the order read fastest."""
        if not operand.is_matrix(rows, columns):
            r, c = operand.axes(rows), operand.axes(columns)
            order = max(r + c, c + r, key=operand.stretch)
            shape = tuple(operand.shape[a] for a in order)
            name = self._temporary(shape)
            self.shapes[name] = shape
            self._allocated(name, shape)
            self._lines.append(f"np.copyto({name}, {operand.text}.transpose({', '.join(map(str, order))}))")
            back = {a: k for k, a in enumerate(order)}
            operand = Operand(name, shape, tuple(range(len(order))), True)
            rows, columns = [back[a] for a in r], [back[a] for a in c]
        return operand.matrix(rows, columns, self.sizes)

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
        return self._beforehand(f"ones_{self.sizes[size]}", f"np.ones({self.sizes[size]}, _dtype(params))")

    def _beforehand(self, name: str, code: str) -> str:
        """A buffer that is the same in every step, made before all statements."""
        while self._first.get(name, code) != code or (name not in self._first and name in self._taken):
            name += "_"
        self._first[name] = code
        self._rooms.keep(name)
        return name

    def _constant(self, node: ast.expr) -> str | None:
        """A number as an array without axes, which NumPy need not convert in every step; None for what may change."""
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        if not self._named_kind or self._shape(node) != () or not names <= {*self._size_named, "np"}:
            return None
        text = _tidy(self._scalar(node))
        name = _NUMBERS.get(text) or (f"count_{text}" if text.isidentifier() else None)
        if name is None:
            same = [n for n, code in self._first.items() if code == f"np.asarray({text}, {self._named_kind})"]
            name = same[0] if same else f"number_{sum(n.startswith('number_') for n in self._first) + 1}"
        return self._beforehand(name, f"np.asarray({text}, {self._named_kind})")

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
            return a, self._constant(right) or self._operand(right)
        if fits[1] and not reads[0]:
            b = self._within(right, shape, out)
            return self._constant(left) or self._operand(left), b
        return self._constant(left) or self._operand(left), self._constant(right) or self._operand(right)

    def _reads(self, node: ast.expr, out: str) -> bool:
        """Whether a value is computed from what lies in a buffer."""
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        out = _root(out)
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


def _root(target: str) -> str:
    """The array of a place."""
    return target.partition("[")[0]


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _count_of(part: ast.Slice) -> ast.expr:
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
            raise _Opaque
    if lower is None or ast.unparse(lower) != ast.unparse(left):
        raise _Opaque
    return count


def _parted(line: str) -> tuple[str, str, str]:
    """The target of a line, its sign, and the value."""
    before, sign, after = line.partition(" += ") if " += " in line else line.partition(" = ")
    return before, sign.strip(), after


def _filled_in_part(lines: Iterable[str]) -> set[str]:
    """The arrays that something is added to at places that were not written before: they begin at zero."""
    written: set[str] = set()
    found: set[str] = set()
    for line in lines:
        target, sign, text = _parted(line.lstrip())
        if sign == "=" and not text.startswith("np.zeros("):
            written.add(target)
        elif sign == "+=" and target not in written:
            found.add(_root(target))
    return found


def _tuple(items: Iterable[str]) -> str:
    items = list(items)
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


def _is_window(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "window"


class _AtPlace(ast.NodeTransformer):
    """A value at one place of its first axis; only of what is computed element by element."""

    def __init__(self, shape_of: Callable[[ast.expr], Shape], shape: Shape, counter: str) -> None:
        self.shape_of, self.shape, self.counter = shape_of, shape, counter

    def visit(self, node: ast.AST) -> ast.expr:
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
                name in _UFUNCS or name == "where" or isinstance(node.func, ast.Name)
            ):
                return ast.Call(node.func, [self.visit(a) for a in args], [])
            case _:
                raise _Opaque

    def _leaf(self, node: ast.Name | ast.Subscript) -> ast.expr:
        own = self.shape_of(node)
        if len(own) < len(self.shape):
            return node
        place = ast.Name(self.counter, ast.Load())
        if isinstance(node, ast.Name):
            if own[0] != self.shape[0]:
                raise _Opaque
            return ast.Subscript(node, place, ast.Load())
        match node.slice:
            case ast.Tuple(elts=[ast.Slice(lower=None, upper=None), *rest]):
                return ast.Subscript(node.value, ast.Tuple([place, *rest], ast.Load()), ast.Load())
            case _:
                raise _Opaque


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


def _is_product(node: ast.AST) -> bool:
    match node:
        case ast.BinOp(op=ast.MatMult()) | ast.Call(func=ast.Attribute(attr="tensordot")):
            return True
        case _:
            return False


def _is_reduction(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("sum", "max", "mean")
