"""Array statements without allocation: every operation writes into a buffer that is kept from one step to the next.

    z1 = x @ W1 + b1      becomes      z1 = np.dot(x, W1, out=z1)
                                       z1 = np.add(z1, b1, out=z1)

A buffer that is `None` is made by the first step, as NumPy does when it is given none; later steps write over it. Values that are
not read any more lend their buffers to later ones. Loops are rewritten line by line: what they fill place by
place is an array that is kept, too. What is not understood here stays as it is.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from .code_text import AtPlace, Opaque, broadcast, expression_of, is_product, is_reduction, parted, root_of, tidy, words_of
from .contractions import Shape
from .operations import Operations
from .plan import Statement

_LONG = 5  # operations in a chain that is done block by block
_FEW, _MANY = 1024, 32768  # the numbers that a block may have


class Buffering(Operations):
    """Rewrites statements in order, once; `outputs` (gradients) are written into, never made."""

    def rewrite(self, statements: Sequence[Statement], kept: Collection[str] = ()) -> list[Statement]:
        """The statements with buffers; nothing later is written over the arrays of names that are `kept`."""
        reads = [self._names(s) for s in statements]
        self._taken |= set[str]().union(*reads, [s.name for s in statements])
        last = {n: k for k, names in enumerate(reads) for n in names if n not in kept}
        result: list[Statement] = []
        for k, s in enumerate(statements):
            result.append(replace(s, lines=tuple(self._statement(s, reads[k], {n for n in reads[k] if last.get(n) == k}))))
            for n in reads[k]:
                if last.get(n) == k:
                    self._release(n)
        words = {w for s in result for line in s.lines for w in words_of(line)}
        first = tuple(f"{name} = {code} if {name} is None else {name}" for name, code in self._first.items() if name in words)
        self._rooms.drop(n for n in self._first if n not in words)
        return [Statement("", "", "", first), *result] if first else result

    @staticmethod
    def _names(statement: Statement) -> list[str]:
        """The names that a statement reads, in the order of their first use."""
        found: dict[str, None] = {}
        for line in statement.lines:
            found |= dict.fromkeys(words_of(line))
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
        if name.isidentifier() and (lines := self._tried(lambda: self._bind(name, expression_of(value), dying))):
            return lines
        self._pin(reads)
        self._loose.add(name)
        return [f"{name}[...] = {value}" if name in self.outputs else line]

    def _tried(self, write: Callable[[], None]) -> list[str] | None:
        """The lines that a rewriting makes; None, with nothing changed, where it meets what it does not understand."""
        before = self._rooms.copy(), dict(self._base), set(self._bound)
        try:
            write()
            return self._finished()
        except Opaque:
            self._rooms, self._base, self._bound = before
            self._lines, self._saved, self._lent = [], [], None
            return None

    def _finished(self) -> list[str]:
        for temporary in self._saved:
            self._rooms.give_back(temporary)
        lines, self._lines, self._saved = self._lines, [], []
        return lines

    def _bind(self, name: str, tree: ast.expr, dying: set[str], within: bool = False) -> None:
        """A value into a buffer of its name, or of one that is read for the last time; `within` a loop it is that of one step."""
        shape = self._shape(tree)
        if not within and shape != self.shapes.get(name, shape):
            raise Opaque
        if shape == ():
            value = tidy(self._scalar(tree))
            self._lines.append(f"{name}{'[...]' if name in self.outputs else ''} = {value}")
            return
        self.shapes[name] = shape
        out = name if name in self.outputs else self._base.get(name) or self._buffer_for(name, shape, tree, dying)
        block = self._block(tree, shape)
        if block is None or within or name in self.outputs:
            self._compute(tree, out, name)
        else:
            self._by_blocks(*block, shape, out, name)

    def _buffer_for(self, name: str, shape: Shape, tree: ast.expr, dying: set[str]) -> str:
        """Where a value goes: over an operand that is read for the last time, into a free buffer, or into one of its own."""
        if not isinstance(tree, ast.BinOp) or not isinstance(tree.op, ast.MatMult):
            products = {
                n for node in ast.walk(tree) if is_product(node) or is_reduction(node) for n in words_of(ast.unparse(node))
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

    def _pin(self, names: Iterable[str]) -> None:
        """What is not understood may keep views of what it reads: these arrays are never written over."""
        self._pinned |= {self._base[n] for n in names if n in self._base}

    # ------------------------------------------------------------------ chains of operations

    def _block(self, tree: ast.expr, shape: Shape) -> tuple[str, ast.expr] | None:
        """A variable for the first axis, and a value at one place of it, where a long chain of operations is better done so.

        What one place has must fit into a cache, and what all have must not.
        """
        if len(shape) < 2 or self._operations(tree) < _LONG:
            return None
        lengths = [math.prod(map(self._length, own)) for own in (shape[1:], shape)]
        if not _FEW <= lengths[0] <= _MANY < lengths[1]:
            return None
        counter = self.sizes.get(shape[0], "n").lower()
        while counter in self._taken:
            counter += "_"
        try:
            place = AtPlace(self._shape, shape, counter).visit(tree)
        except Opaque:
            return None
        return counter, place

    def _operations(self, tree: ast.expr) -> int:
        """How many operations a value takes, those of functions among them."""
        calls = [
            self.helpers[n.func.id]
            for n in ast.walk(tree)
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id in self.helpers
        ]
        within = [expression_of(code) for h in calls for code in (*(code for _, code in h.lines), h.value)]
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

    # ------------------------------------------------------------------ loops

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
                    self.shapes.update(dict.fromkeys(words_of(code[4:].partition(" in ")[0]), ()))
                elif code.startswith(("if ", "else:")) and depth_of_test is None:
                    depth_of_test = len(indent)
                result.append(line)
                continue
            lines = self._tried(lambda code=code: self._line(code, changed))
            if lines is None:
                self._pin(reads)
                target, sign, value = parted(code)
                self._loose.add(root_of(target))
                lines = [f"{target}[...] {sign} {value}"] if target in self.outputs else [code]
            result += [indent + made for made in lines]
        self._certain = True
        return result

    def _line(self, code: str, changed: Collection[str]) -> None:
        """One line: an array of zeros, a value, or what is put or added at places of an array."""
        target, sign, text = parted(code)
        value = expression_of(text)
        root = root_of(target)
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
        shape = self._shape(expression_of(target))
        if (root not in self._base and root not in self.outputs) or broadcast(shape, self._shape(value)) != shape:
            raise Opaque
        if shape == ():
            self._lines.append(f"{target} {sign} {tidy(self._scalar(value))}")
        elif sign == "+=":
            self._lines.append(f"np.add({target}, {self._operand(value)}, out={target})")
        elif self._shape(value) == shape:
            self._compute(value, target, target)
        else:
            raise Opaque

    def _zeros(self, name: str, value: ast.expr, again: bool) -> None:
        """An array of zeros that is kept; what is only added to begins every pass at zero."""
        match value:
            case ast.Call(args=[ast.Tuple(elts=sizes), ast.Call(func=ast.Name(id="_dtype"))]):
                self.shapes[name] = tuple(map(self._size, sizes))
            case _:
                raise Opaque
        if name in self.outputs:
            self._lines.append(f"{name}[...] = 0")
            return
        self._base[name] = name
        self._rooms.make(name, self.shapes[name])
        self._make(name, ast.unparse(value))
        if again or not self._certain:
            self._lines.append(f"{name}.fill(0)")


def _filled_in_part(lines: Iterable[str]) -> set[str]:
    """The arrays that something is added to at places that were not written before: they begin at zero."""
    written: set[str] = set()
    found: set[str] = set()
    for line in lines:
        target, sign, text = parted(line.lstrip())
        if sign == "=" and not text.startswith("np.zeros("):
            written.add(target)
        elif sign == "+=" and target not in written:
            found.add(root_of(target))
    return found
