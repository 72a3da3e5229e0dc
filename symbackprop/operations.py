"""Operations that write into buffers: an expression becomes lines, each of which computes one operation into a given array.

da*(1 - a**2)      becomes      t1 = np.square(a, out=t1)
                                t1 = np.subtract(one, t1, out=t1)
                                dz = np.multiply(da, t1, out=dz)
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from .code_shapes import TYPICAL, CodeShapes, Helper
from .code_text import (
    UFUNCS,
    Opaque,
    Window,
    axes_of,
    expression_of,
    is_product,
    number_of,
    put,
    root_of,
    tidy,
    tuple_of,
    window_of,
    words_of,
)
from .contractions import Contraction, Operand, Shape, contraction_of, joined
from .rooms import Rooms

_NUMBERS = {"0": "zero", "1": "one", "2": "two", "0.5": "half", "1 / 2": "half"}
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


class Operations(CodeShapes):
    """Writes operations; `outputs` are the names whose arrays the caller keeps, `kind` says in code which numbers arrays hold."""

    def __init__(
        self,
        shapes: Mapping[str, Shape],
        outputs: Iterable[str],
        helpers: Mapping[str, Helper],
        sizes: Mapping[str, str] | None = None,
        same: Mapping[str, str] | None = None,
        numbers: Mapping[str, int | None] | None = None,
        kind: str = "",
    ) -> None:
        super().__init__(shapes, helpers, sizes, same, numbers)
        self.outputs = set(outputs)
        self._kind = kind
        self._first: dict[str, str] = {}  # what is made before all else: vectors of ones, numbers as arrays
        self._rooms = Rooms(self._length_of, TYPICAL)
        self._base: dict[str, str] = {}  # the buffer that a value lies in
        self._lines: list[str] = []
        self._count = 0
        self._taken = {"x", *self.shapes}
        self._pinned: set[str] = set()  # buffers that are never written over
        self._lent: tuple[str, str] | None = None  # an operand and its buffer, which the result is written over
        self._saved: list[str] = []  # temporaries of a line
        self._bound: set[str] = set()  # buffers that hold an array by now
        self._loose: set[str] = set()  # arrays of lines that stay as they are: they may lie in any order
        self._certain = True  # whether a line is reached in every pass

    # ------------------------------------------------------------------ buffers

    @property
    def buffers(self) -> list[str]:
        """The buffers that are kept from step to step."""
        return list(self._rooms.buffers)

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
        """A buffer for what one line needs on the way."""
        name = self._room(shape, kind)
        self.shapes[name] = shape
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

    def _allocated(self, name: str, shape: Shape) -> None:
        """A buffer that is there before something is written into it that would not make it."""
        if name not in self._bound:
            self._make(name, f"np.empty({tuple_of(self.sizes.get(s, s) for s in shape)}, _dtype(params))")

    def _make(self, name: str, code: str) -> None:
        """A buffer that the first pass makes by itself."""
        self._lines.append(f"{name} = {code} if {name} is None else {name}")
        if self._certain:
            self._bound.add(name)

    def _beforehand(self, name: str, code: str) -> str:
        """A buffer that is the same in every step, made before all statements."""
        while self._first.get(name, code) != code or (name not in self._first and name in self._taken):
            name += "_"
        self._first[name] = code
        self._rooms.keep(name)
        return name

    def _vector_of_ones(self, size: str) -> str:
        return self._beforehand(f"ones_{self.sizes[size]}", f"np.ones({self.sizes[size]}, _dtype(params))")

    def _constant(self, node: ast.expr) -> str | None:
        """A number as an array without axes, which NumPy need not convert in every step; None for what may change."""
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        if not self._kind or self._shape(node) != () or not names <= {*self._size_named, "np"}:
            return None
        text = tidy(self._scalar(node))
        name = _NUMBERS.get(text) or (f"count_{text}" if text.isidentifier() else None)
        if name is None:
            same = [n for n, code in self._first.items() if code == f"np.asarray({text}, {self._kind})"]
            name = same[0] if same else f"number_{sum(n.startswith('number_') for n in self._first) + 1}"
        return self._beforehand(name, f"np.asarray({text}, {self._kind})")

    # ------------------------------------------------------------------ operands

    def _operand(self, node: ast.expr) -> str:
        """A value as an operand: a name, a view of one, a number, or a temporary that it is computed into."""
        shape = self._shape(node)
        if shape == ():
            return tidy(self._scalar(node))
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
                self._compute(node, out, out)
                return out

    def _scalar(self, node: ast.expr) -> str:
        """A number: Python's arithmetic on what arrays are summed up to."""
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.BinOp(op=ast.Mult(), left=left, right=right), attr="sum"), args=[], keywords=[]
            ) if self._shape(left) == self._shape(right) != () and not (_is_turned(left) or _is_turned(right)):
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
            case ast.Name() | ast.Constant() | ast.Subscript(value=ast.Name()):
                return ast.unparse(node)
            case _:
                if any(isinstance(n, ast.Name) and self.shapes.get(n.id, ()) for n in ast.walk(node)):
                    raise Opaque
                return f"({ast.unparse(node)})"

    def _is_number(self, node: ast.expr) -> bool:
        """Whether a number is no sum over an array: Python computes it before any array is touched."""
        return all(self.shapes.get(n.id, ()) == () for n in ast.walk(node) if isinstance(n, ast.Name))

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

        return expression_of(f"({quotient(*numbers)}) * ({quotient(*arrays)})")

    def _within(self, node: ast.expr, shape: Shape, out: str) -> str:
        """An operand that may lie in the buffer that the result goes to."""
        if _is_seen(node) or self._shape(node) != shape or _is_apart(out):
            return self._operand(node)
        self._compute(node, out, out)
        return out

    def _both(self, left: ast.expr, right: ast.expr, shape: Shape, out: str) -> tuple[str, str]:
        """Two operands, of which one may lie in the buffer of the result where the other does not read what is there."""
        fits = [not (_is_seen(side) or _is_apart(out)) and self._shape(side) == shape for side in (left, right)]
        if fits[0] and not self._reads(right, out):
            a = self._within(left, shape, out)
            return a, self._argument(right)
        if fits[1] and not self._reads(left, out):
            b = self._within(right, shape, out)
            return self._argument(left), b
        return self._argument(left), self._argument(right)

    def _argument(self, node: ast.expr) -> str:
        """An operand, a number as an array where it can be."""
        return self._constant(node) or self._operand(node)

    def _reads(self, node: ast.expr, out: str) -> bool:
        """Whether a value is computed from what lies in a buffer."""
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        out = root_of(out)
        lent = self._lent is not None and self._lent[1] == out and self._lent[0] in names
        return lent or any(out in (n, self._base.get(n)) for n in names)

    # ------------------------------------------------------------------ operations

    def _say(self, bind: str, call: str) -> None:
        # A new buffer is laid out in rows whatever its operands are.
        loose = bool(self._loose & {*words_of(call)})
        if call.startswith(("np.add.reduce(", "np.maximum.reduce(", "greatest(")):
            out = call.rpartition("out=")[2][:-1]
            if loose and out.isidentifier() and out not in self.outputs:
                self._allocated(out, self.shapes[bind])
        elif not call.startswith("np.dot(") and (loose or ".T" in call or ".transpose(" in call):
            call = f'{call[:-1]}, order="C")'
        rebinds = bind.isidentifier() and bind not in self.outputs
        self._lines.append(f"{bind} = {call}" if rebinds else call)
        if rebinds and self._certain:
            self._bound.add(bind)

    def _named(self, bind: str, out: str) -> None:
        """What lies in a buffer by the name of the value."""
        if bind != out and bind not in self.outputs:
            self._lines.append(f"{bind} = {out}")

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
                self._turned_product(inner, list(map(number_of, args)), shape, out, bind)
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
                    raise Opaque
                mask, a = self._operand(test), self._operand(then)
                if isinstance(other, ast.Name):
                    self._say(bind, f"np.positive({other.id}, out={out})")
                else:
                    self._compute(other, out, bind)
                self._lines.append(f"np.copyto({bind}, {a}, where={mask})")
            case ast.Call(func=ast.Attribute(value=ast.Name(id="np"), attr=name), args=args) if name in UFUNCS:
                if len(args) == 2:
                    a, b = self._both(args[0], args[1], shape, out)
                    self._say(bind, f"np.{name}({a}, {b}, out={out})")
                else:
                    self._say(bind, f"np.{name}({self._within(args[0], shape, out)}, out={out})")
            case ast.Call(func=ast.Attribute(value=value, attr="sum" | "max" as how)):
                self._reduce(value, axes_of(node, len(self._shape(value))), how, out, bind)
            case ast.Call(func=ast.Name(id="greatest"), args=[value, axes]):
                self._say(bind, f"greatest({self._seen(value)}, {ast.unparse(axes)}, out={out})")
            case ast.Call(func=ast.Name(id=name), args=args) if name in self.helpers:
                self._inline(self.helpers[name], args, out, bind)
            case ast.Name() | ast.Attribute() | ast.Subscript():
                self._say(bind, f"np.positive({self._operand(node)}, out={out})")
            case _:
                raise Opaque

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
            self._say(part, f"{reduce}({operand}, axis=0, out={part})")
            operand, axes = part, tuple(a - 1 for a in axes[1:])
        self._say(bind, f"{reduce}({operand}, axis={axes[0] if len(axes) == 1 else axes}, out={out})")

    def _inline(self, helper: Helper, args: Sequence[ast.expr], out: str, bind: str) -> None:
        """A function's formula in place of its call."""
        given: dict[str, ast.expr] = {}
        for parameter, argument in zip(helper.parameters, args, strict=False):
            given[parameter] = expression_of(self._operand(argument))
        for parameter in helper.parameters[len(args) :]:
            given[parameter] = expression_of(helper.defaults[parameter])
        for name, code in helper.lines:
            tree = put(expression_of(code), given)
            shape = self._shape(tree)
            own = self._temporary(shape, "truth" if isinstance(tree, ast.Compare) else "number")
            self._compute(tree, own, own)
            given[name] = ast.Name(own, ast.Load())
        self._compute(put(expression_of(helper.value), given), out, bind)

    def _seen(self, node: ast.expr) -> str:
        """An array, or windows of one or the same with other axes, none of which is copied."""
        match node:
            case ast.Call(func=ast.Name(id="window"), args=[value, *rest]):
                return f"window({', '.join([self._seen(value), *map(ast.unparse, rest)])})"
            case ast.Call(func=ast.Attribute(value=value, attr="reshape"), args=args):
                return f"{self._seen(value)}.reshape({', '.join(map(ast.unparse, args))})"
            case _:
                return self._operand(node)

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
            raise Opaque
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

    def _turned_product(self, product: ast.BinOp, turn: Sequence[int], shape: Shape, out: str, bind: str) -> None:
        """Matrix products whose result is turned are written where it goes, seen with their own axes."""
        if len(shape) < 3 or not out.isidentifier():
            raise Opaque
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
                return replace(inner, order=tuple(inner.order[number_of(a)] for a in args))
            case _:
                shape = self._shape(node)
                own = tuple(range(len(shape)))
                if (window := window_of(node)) is not None:
                    moved = self._moved(window, shape)
                    text = moved or ast.unparse(self._with_borders(node))
                    return Operand(text, shape, own, moved is not None, self._steps(node))
                return Operand(self._operand(node), shape, own, True, self._steps(node))

    def _moved(self, window: Window, shape: Shape) -> str | None:
        """An array moved along an axis, with zeros where nothing comes from, as an array of its own."""
        value = window.value
        if not isinstance(value, ast.Name) or self._shape(value) != shape or window.apart or window.steps != (1,):
            return None
        by = number_of(window.start)
        name = self._fresh()
        self.shapes[name] = shape
        self._rooms.make(name, shape)
        self._make(name, f"np.zeros({value.id}.shape, _dtype(params))")
        before = ":, " * window.axis
        there, here = (f"{-by}:", f":{by}") if by < 0 else (f":{-by}", f"{by}:")
        self._lines.append(f"{name}[{before}{there}] = {value.id}[{before}{here}]")
        return name

    def _with_borders(self, node: ast.expr) -> ast.expr:
        """Windows that reach beyond an array as windows of a larger one, a buffer with zeros around it."""
        windows: list[Window] = []
        base = node
        while (window := window_of(base)) is not None:
            windows.insert(0, window)
            base = window.value
        if not isinstance(base, ast.Name) or any(w.apart for w in windows):
            return node
        shape, places = list(self._shape(base)), [":"] * len(self._shape(base))
        starts: list[int] = []
        extra = 0  # axes that the windows within have made
        for w in windows:
            axis, start = w.axis - extra, number_of(w.start)
            whole, counts = self._known(shape[axis]), [self._known(self._size(c)) for c in w.counts]
            if whole is None or None in counts:
                return node
            reach = [s * (n - 1) for s, n in zip(w.steps, counts, strict=True) if n is not None]
            before, after = (
                max(0, -start - sum(min(0, r) for r in reach)),
                max(0, start + sum(max(0, r) for r in reach) + 1 - whole),
            )
            if before or after:
                shape[axis], places[axis] = str(before + whole + after), f"{before}:{before + whole}"
            starts.append(start + before)
            extra += len(counts) - 1
        if set(places) == {":"}:
            return node
        wide = self._temporary(tuple(shape))
        self._allocated(wide, tuple(shape))
        self._lines += [f"{wide}.fill(0)", f"{wide}[{', '.join(places)}] = {base.id}"]
        made: ast.expr = ast.Name(wide)
        for w, start in zip(windows, starts, strict=True):
            made = ast.Call(w.call.func, [made, *w.call.args[1:4], ast.Constant(start)], [])
        return made

    def _as_matrix(self, operand: Operand, rows: Sequence[int], columns: Sequence[int]) -> str:
        """A matrix whose rows and columns are joined axes: a view where it can be, else a copy in the order read fastest."""
        if not operand.is_matrix(rows, columns):
            r, c = operand.axes(rows), operand.axes(columns)
            order = max(r + c, c + r, key=operand.stretch)
            shape = tuple(operand.shape[a] for a in order)
            name = self._temporary(shape)
            self._allocated(name, shape)
            self._lines.append(f"np.copyto({name}, {operand.text}.transpose({', '.join(map(str, order))}))")
            back = {a: k for k, a in enumerate(order)}
            operand = Operand(name, shape, tuple(range(len(order))), True)
            rows, columns = [back[a] for a in r], [back[a] for a in c]
        return operand.matrix(rows, columns, self.sizes)


def _is_turned(node: ast.expr) -> bool:
    """Whether an operand does not lie in memory as it is read, which only an element-wise operation takes without a copy."""
    match node:
        case ast.Attribute(value=value) | ast.Call(func=ast.Attribute(value=value, attr="transpose")):
            return not is_product(value)
        case _:
            return False


def _is_seen(node: ast.expr) -> bool:
    """Whether an operand is there already, or is a view of what is, or goes into an array of truth values."""
    return isinstance(node, (ast.Name, ast.Constant, ast.Subscript, ast.Compare)) or _is_turned(node)


def _is_apart(place: str) -> bool:
    """Whether the numbers of a place of an array do not lie together: only the last operation writes there."""
    return bool(re.search(r"\[.*:.*, [^:]*\]$", place))
