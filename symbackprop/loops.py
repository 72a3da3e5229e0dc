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
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import sympy
from sympy import Expr, Symbol

from .algebra import group_factors
from .loop_text import LoopWriter, elements_in, is_plain, letters_in
from .notation import (
    Element,
    Equation,
    Term,
    base_name,
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
from .write import is_indicator

# A product of matrices smaller than this is faster in loops than in a call; sizes that are not known count as `_USUAL`.
_SMALL, _USUAL = 4096, 32


@dataclass(frozen=True)
class Nest:
    """`target op front*body` within `levels`: letters to loop over and conditions; `inner` letters are reduced within."""

    formula: str
    target: Element
    op: str
    body: Expr
    levels: tuple[Any, ...] = ()
    inner: tuple[Symbol, ...] = ()
    reduce: str = "sum"
    front: Expr = sympy.S.One
    tests: tuple[Any, ...] = ()

    @property
    def writes(self) -> set[str]:
        """The arrays that it writes."""
        return {self.target.name}

    @property
    def elements(self) -> list[Element]:
        """The elements that it reads."""
        conditions = [x for x in self.levels if not is_index(x)]
        return elements_in([self.body, self.front, *self.target.indices, *conditions, *self.tests])

    @property
    def reads(self) -> set[str]:
        """The arrays that it reads."""
        return {e.name for e in self.elements}

    def letters(self) -> set[Symbol]:
        """All letters in it."""
        return letters_in([self.body, self.front, self.target, *self.tests]) | {
            i for x in (*self.levels, *self.inner) for i in indices_of(x)
        }

    def renamed(self, old: Symbol, new: Symbol) -> Nest:
        """With one letter for another."""
        swap = {old: new}

        def put(expr: Any) -> Any:
            return expr.xreplace(swap)

        return replace(
            self,
            target=put(self.target),
            body=put(self.body),
            front=put(self.front),
            levels=tuple(map(put, self.levels)),
            inner=tuple(map(put, self.inner)),
            tests=tuple(map(put, self.tests)),
        )


@dataclass(frozen=True)
class Block:
    """Lines that stand as they are: a matrix product with its copies, or a recurrence; `room` are arrays that they need for it."""

    lines: tuple[str, ...]
    writes: set[str]
    reads: set[str]
    room: tuple[tuple[str, tuple[str, ...]], ...] = ()


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


class Loops:
    """Plans equations as loops; `numbers` are the sizes that are known, `zeroed` arrays that may be added to from the start."""

    def __init__(
        self, writer: LoopWriter, formula: Any, numbers: Mapping[str, int | None], given: Iterable[str], taken: Iterable[str]
    ) -> None:
        self.writer, self.formula, self.numbers = writer, formula, numbers
        self.given = set(given)
        self._taken = set(taken)
        self._start: list[Nest] = []  # what is added to within a loop over something else is zero before all
        self._shapes: dict[str, tuple[Symbol, ...]] = {}
        self._room: list[tuple[str, tuple[str, ...]]] = []

    def program(self, equations: Sequence[Equation], kept: Iterable[str]) -> Program:
        """The lines that compute the equations; `kept` are read by whoever calls them, arrays that are `given` come from there."""
        for e in equations:
            self._shapes[e.name] = e.target.letters
        groups: list[Block | list[Nest]] = []
        for group in groups_of(equations):
            items = self._recurrence(group) if is_recurrence(group) else self._items(group[0], ())
            for item in items:
                self._place(groups, item)
        for nest in self._start:
            groups.insert(0, [nest])
        return self._allocated(groups, set(kept))

    # ------------------------------------------------------------------ an equation in parts

    def _items(
        self, equation: Equation, fixed: tuple[Symbol, ...], begun: bool = False, terms: Sequence[Term] | None = None
    ) -> list[Block | Nest]:
        """What computes an equation; `begun` where something is in the target already, which is added to."""
        target = equation.target
        frame = tuple(i for i in target.letters if i not in fixed)
        formula = self.formula(equation)
        result: list[Block | Nest] = []
        rest: list[Expr] = []
        late: list[Nest] = []
        products = 0
        ready = [p for t in (equation.terms if terms is None else terms) for p in self._parts(t)]
        if len(ready) == 1 and ready[0].reduce != "sum":
            return self._greatest(ready[0], target, frame, formula)
        for number, term in enumerate(ready):
            body, place, tests, pinned, over = self._pinned(term, target, frame, fixed)
            own = tuple(i for i in frame if i not in pinned)
            front, inside = _pulled(body, over)
            inner = tuple(i for i in own if i in indices_of(inside))
            if not over:
                if tests or pinned:
                    levels = self._levels(own, tests)
                    late.append(Nest(formula, place, "+=", body, levels))
                else:
                    rest.append(body)
                continue
            plain = not tests or all(indices_of(t) <= set(fixed) for t in tests)
            product = self._product(inside, inner, over, fixed) if plain and not pinned else None
            alone = len(ready) == 1 or (front == 1 and not begun)
            if product and inner == own and alone and not (tests and not begun and number):
                op = "=" if not begun and not products and not tests else "+="
                if op == "+=" and not begun and not products:
                    result.append(self._zero(target, frame))
                result += self._dot(product, place, formula, op, fixed, tests)
                products += 1
                if front != 1:
                    late.append(Nest(formula, target, "*=", front, tuple(frame)))
                continue
            if product or (set(inner) != set(own) and (front != 1 or rest or len(ready) > 1)) or (front.has(Element) and inner != own):
                # A sum with fewer axes than the target is computed on its own.
                aux = self._aux(equation.name, inner)
                result += self._items(Equation(aux, (Term(inside, over),)), fixed)
                late.append(Nest(formula, place, "+=", front * aux, self._levels(own, tests)))
                continue
            order = self._order(own, over, inside, place)
            if order and order[-1] in over and own:
                late.append(Nest(formula, place, "+=", inside, self._levels(own, tests), over, "sum", front))
            else:
                late.append(Nest(formula, place, "+=", front * inside, self._levels(order, tests)))
        if rest:
            late.insert(sum(n.op == "*=" for n in late), Nest(formula, target, "+=", sympy.Add(*rest), tuple(frame)))
        if not begun and not products:
            first = late[0] if late else None
            if first is not None and first.op == "+=" and set(first.levels) == set(frame) and first.target == target:
                late[0] = replace(first, op="=")
            elif not fixed and late and late[0].op == "+=" and (not frame or late[0].levels[:1] != frame[:1]):
                self._start.append(self._zero(target, frame))
            else:
                result.insert(0, self._zero(target, frame))
        return [*result, *late]

    def _parts(self, term: Term) -> list[Term]:
        """A sum of products, some of which count only at some places, as terms."""
        body = term.body
        if isinstance(body, sympy.Add) and term.reduce == "sum" and any(is_indicator(f) for a in body.args for f in sympy.Mul.make_args(a)):
            return [p for a in body.args for p in self._parts(replace(term, body=cast(Expr, a)))]
        if term.reduce != "sum":
            return [term]
        absent = [i for i in term.over if i not in indices_of(body)]
        sizes = [size_symbol(self._size_name(i)) for i in absent]
        return [Term(body * sympy.Mul(*sizes), tuple(i for i in term.over if i not in absent))]

    def _size_name(self, i: Symbol) -> str:
        return str(self.writer.shapes.size(i.name))

    def _pinned(
        self, term: Term, target: Element, frame: Sequence[Symbol], fixed: Sequence[Symbol]
    ) -> tuple[Expr, Element, tuple[Any, ...], set[Symbol], tuple[Symbol, ...]]:
        """A term whose factors say where it counts: the body, the place it adds to, conditions, letters that have one value."""
        body, over, place = term.body, list(term.over), target
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
                        place = cast(Element, place.xreplace({letter: value}))
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
        return body, place, tuple(tests), pinned, tuple(over)

    def _pin(
        self, test: Any, frame: Sequence[Symbol], over: Sequence[Symbol], fixed: Sequence[Symbol], pinned: set[Symbol]
    ) -> tuple[Symbol, Expr] | None:
        """The letter that a condition gives one value, and the value."""
        if not isinstance(test, sympy.Eq) or not self.writer.is_whole(test):
            return None
        for letter, value in (test.args, tuple(reversed(test.args))):
            loose = is_index(letter) and letter not in fixed and letter not in pinned and letter in (*frame, *over)
            if loose and letter not in indices_of(value) and not value.atoms(sympy.Mod, sympy.floor):
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
            return [start, Nest("", target, "max", term.body, self._levels(order, tests))]
        return [Nest(formula, target, "=", term.body, frame, term.over, term.reduce, tests=tests)]

    def _zero(self, target: Element, frame: tuple[Symbol, ...]) -> Nest:
        return Nest("", target, "=", sympy.S.Zero, frame)

    def _levels(self, order: Sequence[Symbol], tests: Iterable[Any]) -> tuple[Any, ...]:
        """Letters and conditions, each condition as far out as its letters allow."""
        waiting = list(tests)
        levels: list[Any] = []
        bound: set[Symbol] = set()
        loops = set(order)
        for i in (None, *order):
            if i is not None:
                levels.append(i)
                bound.add(i)
            ready = [t for t in waiting if not (indices_of(t) & loops) - bound]
            levels += ready
            waiting = [t for t in waiting if t not in ready]
        return tuple(levels)

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
        self.writer.shapes = replace(self.writer.shapes, axes={**self.writer.shapes.axes, aux.name: tuple(i.name for i in letters)})
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
                self._place(groups, item)
        counter, size = self.writer.letter(letter), self.writer.size(letter)
        head = f"for {counter} in range({size}):" if way > 0 else f"for {counter} in range({size} - 1, -1, -1):"
        lines = [head, *("    " + line for g in groups for line in self._text(g))]
        writes = set[str]().union(*(_writes(g) for g in groups))
        reads = set[str]().union(*(_reads(g) for g in groups))
        room = tuple(r for g in groups if isinstance(g, Block) for r in g.room)
        return [*before, Block(tuple(lines), writes, reads, room)]

    # ------------------------------------------------------------------ matrix products

    def _product(
        self, inside: Expr, frame: Sequence[Symbol], over: Sequence[Symbol], fixed: Sequence[Symbol]
    ) -> tuple[list[Expr], list[list[Symbol]]] | None:
        """Two factors and the letters of batch, rows, sum and columns, where the sum is a product of matrices worth a call."""
        factors = group_factors(inside)
        if len(factors) != 2:
            return None
        own = [indices_of(f) - set(fixed) for f in factors]
        batch = [i for i in frame if i in own[0] and i in own[1]]
        rows = [i for i in frame if i in own[0] and i not in own[1]]
        columns = [i for i in frame if i in own[1] and i not in own[0]]
        if not rows or not columns or not all(set(over) <= o for o in own):
            return None
        if frame.index(columns[0]) < frame.index(rows[0]):
            factors, rows, columns = factors[::-1], columns, rows
        work = math.prod(self.numbers.get(self._size_name(i)) or _USUAL for i in (*rows, *columns, *over))
        return (factors, [batch, rows, list(over), columns]) if work >= _SMALL else None

    def _dot(
        self,
        product: tuple[list[Expr], list[list[Symbol]]],
        place: Element,
        formula: str,
        op: str,
        fixed: tuple[Symbol, ...],
        tests: Iterable[Any],
    ) -> list[Block | Nest]:
        factors, (batch, rows, over, columns) = product
        before: list[Block | Nest] = []
        sides: list[Element] = []
        for f, letters in zip(factors, ([*batch, *rows, *over], [*batch, *over, *columns]), strict=True):
            if isinstance(f, Element):
                sides.append(f)
            else:
                aux = self._aux(place.name, tuple(i for i in letters if i in indices_of(f)))
                before += self._items(Equation(aux, (Term(f),)), fixed)
                sides.append(aux)
        # A window is copied for one example at a time: its rows then stay in the cache.
        peeled: Symbol | None = None
        for k, e in enumerate(sides):
            first = e.indices[0]
            if any(len(indices_of(i) - set(fixed)) > 1 for i in e.indices) and is_index(first) and not batch:
                letter = cast(Symbol, first)
                if letter in (rows, columns)[k]:
                    (rows, columns)[k].remove(letter)
                    batch, peeled = [letter], None
                    if not (rows, columns)[k]:
                        (rows, columns)[k].append(letter)
                        batch = []
                    break
                if letter in over and len(over) > 1:
                    peeled = letter
                    over = [i for i in over if i != letter]
                    break
        outer = [*batch, *([peeled] if peeled is not None else [])]
        plain = [e for e in sides if is_plain(e)]
        if plain:
            order = max(plain, key=lambda e: self._weight(e)).indices
            over = [*(cast(Symbol, i) for i in order if i in over), *(i for i in over if i not in order)]
        around = {*outer, *fixed}
        lines: list[str] = []
        room: list[tuple[str, tuple[str, ...]]] = []
        ahead: list[str] = []
        texts: list[str] = []
        for e, one, two in ((sides[0], rows, over), (sides[1], over, columns)):
            text, copy = self._matrix(e, one, two, around, room, place.name)
            texts.append(text)
            (lines if indices_of(e) & set(outer) else ahead).extend(copy)
        a, b = texts
        out, turned = self._whole_part(place, rows, columns, around)
        if out and op == "=" and peeled is None:
            lines.append(f"np.dot({b}.T, {a}.T, {out})" if turned else f"np.dot({a}, {b}, {out})")
            lines = [line.replace(".T.T", "") for line in lines]
        else:
            name = self._scratch(place.name, room, [*rows, *columns])
            lines.append(f"np.dot({a}, {b}, {self._shaped(name, rows, columns)})")
            frame = [*rows, *columns]
            if place.indices:
                frame = [i for i in (unwrapped(i) for i in place.indices) if i in frame]
            add = "=" if op == "=" and peeled is None else "+="
            index = ", ".join(self.writer.letter(i) for i in (*rows, *columns))
            lines += self._nested(frame, [f"{self.writer.at(place)} {add} {name}[{index}]"])
        whole: list[str] = []
        if peeled is not None and op == "=":
            inner = [i for i in place.letters if i not in fixed]
            whole += self._nested(inner, [f"{self.writer.at(place)} = real(0)"])
        whole += [*ahead, *self._nested(outer, lines)]
        if tests:
            whole = [f"if {self.writer.tests(tests)}:", *("    " + line for line in whole)]
        reads = {e.name for e in elements_in(sides)} | ({place.name} if op != "=" else set())
        return [*before, Block((f"# {formula}", *whole), {place.name}, reads, tuple(room))]

    def _weight(self, e: Element) -> int:
        return math.prod(self.numbers.get(self._size_name(cast(Symbol, i))) or _USUAL for i in e.indices)

    def _nested(self, letters: Sequence[Symbol], lines: Sequence[str]) -> list[str]:
        result, indent = list[str](), ""
        for i in letters:
            result.append(f"{indent}for {self.writer.letter(i)} in range({self.writer.size(i)}):")
            indent += "    "
        return [*result, *(indent + line for line in lines)]

    def _sized(self, letters: Sequence[Symbol]) -> str:
        return " * ".join(map(self.writer.size, letters))

    def _shaped(self, text: str, rows: Sequence[Symbol], columns: Sequence[Symbol]) -> str:
        """An array that lies as rows and columns, as a matrix."""
        if len(rows) == len(columns) == 1:
            return text
        return f"{text}.reshape(({self._sized(rows)}, {self._sized(columns)}))"

    def _scratch(self, stem: str, room: list[tuple[str, tuple[str, ...]]], letters: Sequence[Symbol]) -> str:
        aux = self._aux(stem, ())
        name = self.writer.names[aux.name]
        room.append((aux.name, tuple(map(self._size_name, letters))))
        return name

    def _part(self, e: Element, around: set[Symbol]) -> tuple[str, list[Symbol]] | None:
        """A part of an array that lies in one piece, and its letters: indices that loops give come first."""
        if not is_plain(e):
            return None
        inside = [i not in around for i in e.indices]
        count = inside.index(True) if True in inside else len(inside)
        if not all(inside[count:]):
            return None
        before = ", ".join(self.writer.letter(cast(Symbol, i)) for i in e.indices[:count])
        return self.writer.names[e.name] + (f"[{before}]" if before else ""), [cast(Symbol, i) for i in e.indices[count:]]

    def _matrix(
        self, e: Element, rows: list[Symbol], columns: list[Symbol], around: set[Symbol], room: list[Any], stem: str
    ) -> tuple[str, list[str]]:
        """An element as a matrix, and the lines that copy it where it does not lie as one."""
        part = self._part(e, around)
        if part is not None and e.name not in self.writer.whole:
            text, letters = part
            if letters == [*rows, *columns]:
                return self._shaped(text, rows, columns), []
            if letters == [*columns, *rows]:
                return f"{self._shaped(text, columns, rows)}.T", []
        name = self._scratch(stem, room, [*rows, *columns])
        index = ", ".join(map(self.writer.letter, (*rows, *columns)))
        copy = self._nested([*rows, *columns], [f"{name}[{index}] = {self.writer.element(e)}"])
        return self._shaped(name, rows, columns), copy

    def _whole_part(
        self, place: Element, rows: list[Symbol], columns: list[Symbol], around: set[Symbol]
    ) -> tuple[str | None, bool]:
        part = self._part(place, around)
        if part is None:
            return None, False
        text, letters = part
        if letters == [*rows, *columns]:
            return self._shaped(text, rows, columns), False
        return (self._shaped(text, columns, rows), True) if letters == [*columns, *rows] else (None, False)

    # ------------------------------------------------------------------ joining loops

    def _place(self, groups: list[Block | list[Nest]], item: Block | Nest) -> None:
        """Put an item into the loops of the earliest group that it may join, or behind all."""
        if isinstance(item, Block) or not item.levels or not is_index(item.levels[0]):
            groups.append([item] if isinstance(item, Nest) else item)
            return
        least = 0
        for k, group in enumerate(groups):
            shared = (_writes(group) & (item.reads | item.writes)) or (_reads(group) & item.writes)
            if shared:
                joins = isinstance(group, list) and self._joined(group, item) is not None
                least = k if joins else k + 1
        for group in groups[least:]:
            if isinstance(group, list) and (new := self._joined(group, item)) is not None:
                group.append(new)
                return
        groups.append([item])

    def _joined(self, group: Sequence[Nest], item: Nest) -> Nest | None:
        """The item with the letter of the group's loop, if it may run within this loop."""
        if not group[0].levels or not item.levels:
            return None
        letter, own = group[0].levels[0], item.levels[0]
        if not is_index(letter) or not is_index(own):
            return item if own == letter and all(_may_share(g, item, None) for g in group) else None
        if self._size_name(letter) != self._size_name(own):
            return None
        if own != letter:
            if letter in item.letters():
                return None
            item = item.renamed(own, letter)
        return item if all(_may_share(g, item, letter) for g in group) else None

    # ------------------------------------------------------------------ text

    def _text(self, group: Block | list[Nest]) -> list[str]:
        if isinstance(group, Block):
            return list(group.lines)
        return self._nests(group)

    def _nests(self, nests: Sequence[Nest]) -> list[str]:
        lines: list[str] = []
        todo = list(nests)
        while todo:
            first = todo.pop(0)
            if not first.levels:
                lines += self._statement(first)
                continue
            level = first.levels[0]
            run = [first]
            while todo and (joined := self._joined(run, todo[0])) is not None:
                run.append(joined)
                todo.pop(0)
            inner = [replace(n, levels=n.levels[1:]) for n in run]
            if is_index(level):
                lines.append(f"for {self.writer.letter(level)} in range({self.writer.size(level)}):")
            else:
                lines.append(f"if {self.writer.relation(level)}:")
            lines += ["    " + line for line in self._nests(inner)]
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
        return [*comment, *begin, *self._nested(nest.inner, body), *end]

    # ------------------------------------------------------------------ where arrays lie

    def _allocated(self, groups: Sequence[Block | list[Nest]], kept: set[str]) -> Program:
        """The text of all groups, and an array for each result: room that nothing reads any more is used again."""
        own = {n: letters for n, letters in self._shapes.items() if n not in self.given and letters}
        last: dict[str, int] = {}
        for k, g in enumerate(groups):
            last |= dict.fromkeys(_reads(g) | _writes(g), k)
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
            for name in sorted(_writes(g)):
                if name in own and name not in lying and name in self.writer.whole:
                    lying[name] = name, ("whole",)
                    whole.append((names[name], tuple(names[self._size_name(i)] for i in own[name])))
                elif name in own and name not in lying:
                    lend(name, tuple(map(self._size_name, own[name])))
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
                part = self._as_part(text, _writes(g), parts)
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
        outside = [n for n in found if (n not in stored or n in scalars) and n not in known and n not in _FOUND]
        stem = "_" + "_".join(names[w] for w in sorted(writes)[:3])
        name, number = stem, 1
        while any(p.name == name for p in others):
            number += 1
            name = f"{stem}_{number}"
        sizes = [f"{n} = {self.numbers[s]}" for s in self.numbers if (n := names[s]) in found and n in known]
        real = ["real = weights.dtype.type"] if "real" in found else []
        given = [*outside, *(["weights"] if real else [])]
        return Part(name, (*real, *sizes, *lines), tuple(given), tuple(n for n in scalars if n in found))


# Names that the emitted module itself has.
_FOUND = {"np", "math", "range", "abs", "real", "_exp", "_expm1", "_tanh"}


def _writes(group: Block | list[Nest]) -> set[str]:
    return group.writes if isinstance(group, Block) else set[str]().union(*(n.writes for n in group))


def _reads(group: Block | list[Nest]) -> set[str]:
    if isinstance(group, Block):
        return group.reads
    added = {n.target.name for n in group if n.op != "="}
    return set[str]().union(added, *(n.reads for n in group))


def _may_share(first: Nest, second: Nest, letter: Symbol | None) -> bool:
    """Whether two statements may run in one loop over a letter: what one writes, the other touches only at the same place."""
    touched = (first.writes & (second.reads | second.writes)) | (first.reads & second.writes)
    for name in touched:
        if name not in first.reads | second.reads and first.op == second.op == "+=":
            continue  # both only add
        places = [e for e in (first.target, second.target, *first.elements, *second.elements) if e.name == name]
        if letter is None:
            continue
        axes = {tuple(k for k, i in enumerate(e.indices) if letter in indices_of(i)) for e in places}
        if len(axes) != 1 or len(axis := next(iter(axes))) != 1 or any(e.indices[axis[0]] != letter for e in places):
            return False
    return True


def _pulled(body: Expr, over: Sequence[Symbol]) -> tuple[Expr, Expr]:
    """What does not depend on the summed indices, and the rest."""
    if not over:
        return sympy.S.One, body
    factors = cast("tuple[Expr, ...]", sympy.Mul.make_args(body))
    inside = [f for f in factors if indices_of(f) & set(over)]
    return sympy.Mul(*(f for f in factors if f not in inside)), sympy.Mul(*inside)


def _pace(i: Expr, letter: Symbol) -> float:
    pace = sympy.expand(unwrapped(i)).coeff(letter, 1)
    return float(pace) if pace.is_number else 1.0
