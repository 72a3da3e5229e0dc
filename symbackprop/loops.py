"""Equations to loops for a compiler: the same plan as the array statements, with one loop over what several equations share.

    z1[n,h] = sum(d, x[n,d]*W1[d,h]) + b1[h]          np.dot(x, W1, z1)
    a1[n,h] = tanh(z1[n,h])                           for n in range(N):
                                                          for h in range(H):
                                                              z1[n, h] += b1[h]
                                                              a1[n, h] = _tanh(z1[n, h])

A contraction of two arrays is a matrix product, for which windows and turned axes are copied into rows; everything else is a
`Nest`: one statement within loops and conditions. Nests join the loops of earlier ones as far as what they read allows.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import sympy
from sympy import Expr, Symbol

from .loop_nests import Block, Nest, joined, place, reads_of, writes_of
from .loop_products import Products
from .loop_text import LoopWriter
from .notation import (
    Element,
    Equation,
    Term,
    direction,
    elements_of,
    groups_of,
    indices_of,
    is_index,
    is_recurrence,
    size_symbol,
    unwrapped,
    within_step,
)
from .plan import Planner
from .write import is_indicator


@dataclass(frozen=True)
class Part:
    """A function of the program: its lines, the names that it is given, and the numbers that it gives back."""

    name: str
    lines: tuple[str, ...]
    given: tuple[str, ...]
    returned: tuple[str, ...]


@dataclass
class Program:
    """A function of loops: `lines`, which call the `parts`, and the arrays that it needs: name, shape, and the name of the room
    that each lies in; `whole` are arrays of whole numbers."""

    lines: list[str]
    parts: list[Part]
    arrays: list[tuple[str, tuple[str, ...], str]]
    rooms: dict[str, tuple[str, ...]]
    whole: list[tuple[str, tuple[str, ...]]] = field(default_factory=list[tuple[str, tuple[str, ...]]])


@dataclass(frozen=True)
class _Placed:
    """A term: its body, the place that it adds to, conditions, letters of the target that have one value, letters summed over."""

    body: Expr
    place: Element
    tests: tuple[Any, ...]
    pinned: frozenset[Symbol]
    over: tuple[Symbol, ...]


class Loops:
    """Plans equations as loops; `numbers` are the sizes that are known, `given` arrays that are there already."""

    def __init__(
        self, writer: LoopWriter, formula: Any, numbers: Mapping[str, int | None], given: Iterable[str], taken: Iterable[str]
    ) -> None:
        self.writer, self.formula, self.numbers = writer, formula, numbers
        self.given = set(given)
        self._taken = set(taken)
        self._start: list[Nest] = []  # what is added to within a loop over something else is zero before all
        self._shapes: dict[str, tuple[Symbol, ...]] = {}
        self.products = Products(writer, numbers, lambda stem: self._aux(stem, ()).name)

    def program(self, equations: Sequence[Equation], kept: Iterable[str]) -> Program:
        """The lines that compute the equations; `kept` are read by whoever calls them."""
        for e in equations:
            self._shapes[e.name] = e.target.letters
        groups: list[Block | list[Nest]] = []
        for group in groups_of(equations):
            items = self._recurrence(group) if is_recurrence(group) else self._items(group[0], ())
            for item in items:
                place(groups, item, self.writer.size_name)
        for nest in self._start:
            groups.insert(0, [nest])
        return self._allocated(groups, set(kept))

    # ------------------------------------------------------------------ an equation in parts

    def _items(
        self, equation: Equation, fixed: tuple[Symbol, ...], begun: bool = False, terms: Sequence[Term] | None = None
    ) -> list[Block | Nest]:
        """What computes an equation; `begun` where something is in the target already, which is added to."""
        target, formula = equation.target, self.formula(equation)
        frame = tuple(i for i in target.letters if i not in fixed)
        ready = [p for t in (equation.terms if terms is None else terms) for p in self._parts(t)]
        if len(ready) == 1 and ready[0].reduce != "sum":
            return self._greatest(ready[0], target, frame, formula)
        blocks: list[Block | Nest] = []
        nests: list[Nest] = []
        plain: list[Expr] = []
        filled = begun
        for term in ready:
            part = self._pinned(term, target, frame, fixed)
            own = tuple(i for i in frame if i not in part.pinned)
            if not part.over:
                if part.tests or part.pinned:
                    nests.append(Nest(formula, part.place, "+=", part.body, _levels(own, part.tests)))
                else:
                    plain.append(part.body)
                continue
            front, inside = Planner.pull(Term(part.body, part.over))
            inner = tuple(i for i in own if i in indices_of(inside))
            whole = not part.pinned and all(indices_of(t) <= set(fixed) for t in part.tests)
            product = self.products.find(inside, inner, part.over, fixed) if whole else None
            alone = len(ready) == 1 and not begun and not part.tests
            if product is not None and inner == own and (front == 1 or alone):
                if part.tests and not filled:
                    blocks.append(Nest("", target, "=", sympy.S.Zero, frame))
                op = "+=" if filled or part.tests else "="
                before, sides = self._sides(product.factors, (*own, *part.over), target.name, fixed)
                blocks += [*before, self.products.block(product, sides, part.place, formula, op, fixed, part.tests)]
                filled = True
                if front != 1:
                    nests.append(Nest(formula, target, "*=", front, frame))
            elif product is not None or (inner != own and (len(ready) > 1 or front != 1)):
                # A sum with fewer axes than the target, or with something before it, is computed on its own.
                aux = self._aux(equation.name, inner)
                blocks += self._items(Equation(aux, (Term(inside, part.over),)), fixed)
                nests.append(Nest(formula, part.place, "+=", front * aux, _levels(own, part.tests)))
            else:
                order = self._order(own, part.over, inside, part.place)
                if own and order[-1] in part.over:
                    levels = _levels(own, part.tests)
                    nests.append(Nest(formula, part.place, "+=", inside, levels, part.over, "sum", front))
                else:
                    nests.append(Nest(formula, part.place, "+=", front * inside, _levels(order, part.tests)))
        if plain:
            nests.insert(sum(n.op == "*=" for n in nests), Nest(formula, target, "+=", sympy.Add(*plain), frame))
        return [*([] if filled else self._begun(target, frame, nests, fixed)), *blocks, *nests]

    def _begun(
        self, target: Element, frame: tuple[Symbol, ...], nests: list[Nest], fixed: tuple[Symbol, ...]
    ) -> list[Block | Nest]:
        """What makes a target ready to be added to: the first statement where it reaches every place, zeros otherwise."""
        first = nests[0] if nests else None
        if first is not None and first.op == "+=" and set(first.levels) == set(frame) and first.target == target:
            nests[0] = replace(first, op="=")
            return []
        zero = Nest("", target, "=", sympy.S.Zero, frame)
        if first is not None and not fixed and (not frame or first.levels[:1] != frame[:1]):
            self._start.append(zero)  # it is added to within a loop over something else
            return []
        return [zero]

    def _sides(
        self, factors: Sequence[Expr], letters: Sequence[Symbol], name: str, fixed: tuple[Symbol, ...]
    ) -> tuple[list[Block | Nest], list[Element]]:
        """The factors of a product as elements: what is none is computed first."""
        before: list[Block | Nest] = []
        sides: list[Element] = []
        for f in factors:
            if isinstance(f, Element):
                sides.append(f)
            else:
                sides.append(self._aux(name, tuple(i for i in letters if i in indices_of(f))))
                before += self._items(Equation(sides[-1], (Term(f),)), fixed)
        return before, sides

    def _parts(self, term: Term) -> list[Term]:
        """A sum of products, some of which count only at some places, as terms."""
        body = term.body
        special = any(
            is_indicator(f) or (isinstance(f, Element) and self.writer.limits(f))
            for a in body.args
            for f in sympy.Mul.make_args(a)
        )
        if isinstance(body, sympy.Add) and term.reduce == "sum" and special:
            return [p for a in body.args for p in self._parts(replace(term, body=cast(Expr, a)))]
        if term.reduce != "sum":
            return [term]
        absent = [i for i in term.over if i not in indices_of(body)]
        sizes = [size_symbol(self.writer.size_name(i)) for i in absent]
        return [Term(body * sympy.Mul(*sizes), tuple(i for i in term.over if i not in absent))]

    def _pinned(self, term: Term, target: Element, frame: Sequence[Symbol], fixed: Sequence[Symbol]) -> _Placed:
        """A term whose factors say where it counts."""
        body, over, where = term.body, list(term.over), target
        tests: list[Any] = []
        pinned: set[Symbol] = set()
        changed = True
        while changed:
            changed = False
            for f in sympy.Mul.make_args(body):
                test = f.args[0].args[1] if is_indicator(f) else None
                if test is None:
                    continue
                rest = sympy.Mul(*(g for g in sympy.Mul.make_args(body) if g != f))
                pin = self._pin(test, frame, over, fixed, pinned)
                if pin is not None:
                    letter, value = pin
                    body = cast(Expr, rest.xreplace({letter: value}))
                    tests = [t.xreplace({letter: value}) for t in tests]
                    if letter in over:
                        over.remove(letter)
                    else:
                        where = cast(Element, where.xreplace({letter: value}))
                        pinned.add(letter)
                    tests += self._within(letter, value)
                elif self.writer.is_whole(test) and not test.atoms(Element):
                    body = rest
                    tests.append(test)
                else:
                    continue
                changed = True
                break
        for f in sympy.Mul.make_args(body):
            if isinstance(f, Element):
                tests += [t for t in self.writer.limits(f) if t not in tests and indices_of(t) <= set(fixed)]
        return _Placed(body, where, tuple(tests), frozenset(pinned), tuple(over))

    def _pin(
        self, test: Any, frame: Sequence[Symbol], over: Sequence[Symbol], fixed: Sequence[Symbol], pinned: set[Symbol]
    ) -> tuple[Symbol, Expr] | None:
        """The letter that a condition gives one value, and the value."""
        if not isinstance(test, sympy.Eq) or not self.writer.is_whole(test):
            return None
        for letter, value in (test.args, tuple(reversed(test.args))):
            loose = is_index(letter) and letter not in fixed and letter not in pinned and letter in (*frame, *over)
            plain = not value.atoms(sympy.Mod, sympy.floor) and sympy.denom(sympy.together(value)) == 1
            if loose and plain and letter not in indices_of(value):
                return cast(Symbol, letter), cast(Expr, value)
        return None

    def _within(self, letter: Symbol, value: Expr) -> list[Any]:
        if value.is_Integer:
            return []
        return [sympy.Ge(value, 0, evaluate=False), sympy.Lt(value, self.writer.shapes.size(letter.name), evaluate=False)]

    def _greatest(self, term: Term, target: Element, frame: tuple[Symbol, ...], formula: str) -> list[Block | Nest]:
        tests = tuple(dict.fromkeys(t for e in elements_of(term.body) for t in self.writer.limits(e)))
        order = self._order(frame, term.over, term.body, target)
        if term.reduce == "max" and order[-1] not in term.over and frame:
            start = Nest(formula, target, "=", sympy.S.NegativeInfinity, frame)
            return [start, Nest("", target, "max", term.body, _levels(order, tests))]
        return [Nest(formula, target, "=", term.body, frame, term.over, term.reduce, tests=tests)]

    def _order(self, frame: Sequence[Symbol], over: Sequence[Symbol], body: Expr, target: Element) -> list[Symbol]:
        """The order of loops of a reduction: the innermost runs along the last axis of as many arrays as can be."""
        letters = {*frame, *over}
        elements = [e for e in elements_of(body) if e.indices]

        def of(e: Element) -> list[Symbol]:
            found: list[Symbol] = []
            for i in e.indices:
                inner = [j for j in sorted(indices_of(i), key=lambda j: -abs(_pace(i, j))) if j in letters]
                found += [j for j in inner if j not in found]
            return found

        orders = [o for e in elements if (o := of(e))]
        if not orders:
            return [*frame, *over]
        orders += [of(target)] if frame else []
        lasts = [o[-1] for o in orders if len(o) > 1] or [orders[0][-1]]
        last = max(letters, key=lambda i: (lasts.count(i), i in frame, str(i)))
        longest = max(orders, key=len)
        if set(longest) == letters and longest[-1] == last:
            return longest
        begin = [o[0] for o in orders if o[0] != last]
        first = [frame[0]] if frame and frame[0] in begin[: len(orders) - 1] else begin[:1]
        rest = [i for i in (*frame, *over) if i not in first and i != last]
        return [*first, *rest, last]

    def _aux(self, name: str, letters: tuple[Symbol, ...]) -> Element:
        """An array for a part of an equation."""
        number = 1
        while f"{name}_{number}" in self._taken:
            number += 1
        self._taken.add(f"{name}_{number}")
        aux = Element(f"{name}_{number}", *letters)
        self._shapes[aux.name] = letters
        axes = {**self.writer.shapes.axes, aux.name: tuple(i.name for i in letters)}
        self.writer.shapes = replace(self.writer.shapes, axes=axes)
        return aux

    # ------------------------------------------------------------------ recurrences

    def _recurrence(self, group: Sequence[Equation]) -> list[Block | Nest]:
        letter, way = direction(group)
        own = {e.name for e in group}
        before: list[Block | Nest] = []
        groups: list[Block | list[Nest]] = []
        for equation in within_step(group, letter):
            outer = [
                t for t in equation.terms if t.over and t.reduce == "sum" and not any(e.name in own for e in elements_of(t.body))
            ]
            if outer:
                # What does not depend on the recurrence is there before it begins.
                before += self._items(equation, (), False, outer)
            inner = [t for t in equation.terms if t not in outer]
            for item in self._items(equation, (letter,), bool(outer), inner) if inner or not outer else ():
                place(groups, item, self.writer.size_name)
        counter, size = self.writer.letter(letter), self.writer.size(letter)
        head = f"for {counter} in range({size}):" if way > 0 else f"for {counter} in range({size} - 1, -1, -1):"
        lines = [head, *("    " + line for g in groups for line in self._text(g))]
        writes = set[str]().union(*(writes_of(g) for g in groups))
        reads = set[str]().union(*(reads_of(g) for g in groups))
        room = tuple(r for g in groups if isinstance(g, Block) for r in g.room)
        return [*before, Block(tuple(lines), writes, reads, room)]

    # ------------------------------------------------------------------ text

    def _text(self, group: Block | list[Nest]) -> list[str]:
        if isinstance(group, Block):
            return list(group.lines)
        return self._nests(group)

    def _nests(self, nests: Sequence[Nest], assumed: frozenset[Any] = frozenset()) -> list[str]:
        lines: list[str] = []
        todo = list(nests)
        while todo:
            first = todo.pop(0)
            if not first.levels:
                self.writer.assumed = assumed
                lines += self._statement(first)
                self.writer.assumed = frozenset()
                continue
            level = first.levels[0]
            run = [first]
            while todo and (next_one := joined(run, todo[0], self.writer.size_name)) is not None:
                run.append(next_one)
                todo.pop(0)
            inner = [replace(n, levels=n.levels[1:]) for n in run]
            if is_index(level):
                lines.append(f"for {self.writer.letter(level)} in range({self.writer.size(level)}):")
            else:
                lines.append(f"if {self.writer.relation(level)}:")
            holds = assumed if is_index(level) else assumed | {level}
            lines += ["    " + line for line in self._nests(inner, holds)]
        return lines

    def _statement(self, nest: Nest) -> list[str]:
        place = self.writer.at(nest.target)
        comment = [f"# {nest.formula}"] if nest.formula else []
        if not nest.inner:
            value = self.writer.expression(nest.body)
            lines = self.writer.taken()
            if nest.op == "max":
                lines.append(f"{place} = {place} if {place} >= {value} else {value}")
            else:
                lines.append(f"{place} {nest.op} {value}")
            return [*comment, *lines]
        value = self.writer.expression(nest.body)
        body = self.writer.taken()
        if nest.reduce == "sum":
            front = self.writer.expression(nest.front, 2)
            after = self.writer.taken()
            value_of = "total" if nest.front == 1 else f"{front} * total"
            begin, body = ["total = real(0)"], [*body, f"total += {value}"]
            end = [*after, f"{place} {nest.op} {value_of}"]
        elif nest.reduce == "max":
            begin, body = ["best = real(-np.inf)"], [*body, f"value = {value}", "best = best if value <= best else value"]
            end = [f"{place} = best"]
        else:
            count: Expr = sympy.S.Zero
            for i in nest.inner:
                count = count * self.writer.shapes.size(i.name) + i
            begin = ["best = real(-np.inf)", f"{place} = 0"]
            where = self.writer.index(sympy.expand(count))
            body = [*body, f"value = {value}", "if value > best:", "    best = value", f"    {place} = {where}"]
            end = []
        if nest.tests:
            body = [f"if {self.writer.tests(nest.tests)}:", *("    " + line for line in body)]
        return [*comment, *begin, *self.writer.nested(nest.inner, body), *end]

    # ------------------------------------------------------------------ where arrays lie

    def _allocated(self, groups: Sequence[Block | list[Nest]], kept: set[str]) -> Program:
        """The text of all groups, and an array for each result: room that nothing reads any more is used again."""
        own = {n: letters for n, letters in self._shapes.items() if n not in self.given and letters}
        last: dict[str, int] = {}
        for k, g in enumerate(groups):
            last |= dict.fromkeys(reads_of(g) | writes_of(g), k)
        free: dict[tuple[str, ...], list[str]] = {}
        rooms: dict[str, tuple[str, ...]] = {}
        arrays: list[tuple[str, tuple[str, ...], str]] = []
        whole: list[tuple[str, tuple[str, ...]]] = []
        lying: dict[str, tuple[str, tuple[str, ...]]] = {}
        names = self.writer.names

        def lend(name: str, shape: tuple[str, ...]) -> None:
            key = tuple(sorted(shape))
            waiting = free.setdefault(key, [])
            room = waiting.pop() if waiting else name
            if room == name:
                rooms[name] = shape
            arrays.append((names[name], tuple(names[s] for s in shape), names[room]))
            lying[name] = room, key

        for k, g in enumerate(groups):
            for name in sorted(writes_of(g)):
                if name in own and name not in lying and name in self.writer.whole:
                    lying[name] = name, ("whole",)
                    whole.append((names[name], tuple(names[self.writer.size_name(i)] for i in own[name])))
                elif name in own and name not in lying:
                    lend(name, tuple(map(self.writer.size_name, own[name])))
            borrowed = g.room if isinstance(g, Block) else ()
            for name, shape in borrowed:
                lend(name, shape)
            for name in [*(n for n in lying if last.get(n) == k and n not in kept), *(n for n, _ in borrowed)]:
                room, key = lying[name]
                if key != ("whole",):
                    free[key].append(room)
        lines: list[str] = []
        parts: list[Part] = []
        for g in groups:
            text = self._text(g)
            if isinstance(g, list) and len(g) == 1 and g[0].body == 0 and g[0].levels == g[0].target.indices != ():
                lines.append(f"{names[g[0].target.name]}[:] = real(0)")
            elif any(line.startswith(("for ", "if ")) for line in text):
                part = self._as_part(text, writes_of(g), parts)
                parts.append(part)
                call = f"{part.name}({', '.join(part.given)})"
                lines += [f"{', '.join(part.returned)} = {call}" if part.returned else call]
            else:
                lines += text
        return Program(lines, parts, arrays, {names[r]: tuple(names[s] for s in shape) for r, shape in rooms.items()}, whole)

    def _as_part(self, lines: Sequence[str], writes: set[str], others: Sequence[Part]) -> Part:
        """Loops as a function of their own: a compiler does better with few arrays in sight."""
        tree = ast.parse("\n".join(lines))
        stored = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        found = dict.fromkeys(n.id for n in ast.walk(tree) if isinstance(n, ast.Name))
        names = self.writer.names
        scalars = [names[w] for w in sorted(writes) if not self._shapes.get(w) and w not in self.given]
        known = {names[s] for s, n in self.numbers.items() if n is not None}
        begun = _begun_in(tree)
        outside = [n for n in found if (n not in stored or (n in scalars and n not in begun)) and n not in {*known, *_FOUND}]
        stem = "_" + "_".join(names[w] for w in sorted(writes)[:3])
        name, number = stem, 1
        while any(p.name == name for p in others):
            number += 1
            name = f"{stem}_{number}"
        sizes = [f"{n} = {self.numbers[s]}" for s in self.numbers if (n := names[s]) in found and n in known]
        said: str | None = None
        shown: list[str] = []
        for line in lines:
            if (bare := line.strip()).startswith("# "):
                if bare == said:
                    continue
                said = bare
            shown.append(line)
        real = ["real = weights.dtype.type"] if "real" in found else []
        given = [*outside, *(["weights"] if real else [])]
        return Part(name, (*real, *sizes, *shown), tuple(given), tuple(n for n in scalars if n in found))


# Names that the emitted module itself has.
_FOUND = {"np", "math", "range", "abs", "real", "_exp", "_expm1", "_tanh"}


def _begun_in(tree: ast.Module) -> set[str]:
    """The names that lines give a value before they read it."""
    first: dict[str, tuple[int, bool]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            line, read = first.get(node.id, (node.lineno, False))
            if node.lineno <= line:
                first[node.id] = node.lineno, (read and node.lineno == line) or isinstance(node.ctx, ast.Load)
    added = {(n.target.id, n.lineno) for n in ast.walk(tree) if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name)}
    return {name for name, (line, read) in first.items() if not read and (name, line) not in added}


def _pace(i: Expr, letter: Symbol) -> float:
    pace = sympy.expand(unwrapped(i)).coeff(letter, 1)
    return float(pace) if pace.is_number else 1.0


def _levels(order: Sequence[Symbol], tests: Iterable[Any]) -> tuple[Any, ...]:
    """Letters and conditions: as far out as their letters allow, but within a loop that others may join."""
    waiting = list(tests)
    levels: list[Any] = []
    bound: set[Symbol] = set()
    loops = set(order)
    for k, i in enumerate((None, *order)):
        if i is not None:
            levels.append(i)
            bound.add(i)
        if k < min(1, len(order) - 1):
            continue
        ready = [t for t in waiting if not (indices_of(t) & loops) - bound]
        levels += ready
        waiting = [t for t in waiting if t not in ready]
    return tuple(levels)
