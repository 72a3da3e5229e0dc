"""Equations to array statements: which contraction is a matrix product, how axes line up, what each line of NumPy says.

    z1[n,h] = sum(d, x[n,d]*W1[d,h]) + b1[h]     becomes     z1 = x @ W1 + b1

A `Statement` is a name, its lines and the formula they compute; templates only print them. Recurrences are loops, which
`recurrences` plans.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import sympy
from sympy import Expr, Symbol

from .algebra import group_factors
from .code_text import tuple_of
from .fillings import Filling, by_rest, spread
from .notation import (
    Element,
    Equation,
    Term,
    base_name,
    common_factors,
    elements_of,
    indices_of,
    is_index,
    size_symbol,
    without,
)
from .numpy_text import Names, NumpyWriter, aligned
from .views import Shapes, View
from .write import ATOM, Style, Writer, is_indicator

_SHORT = 16  # as many places, or fewer, are compared one after the other


@dataclass(frozen=True)
class Statement:
    """What computes an array: `lines`, of which `code` is the value where one expression is all; the formula it stands for."""

    name: str
    code: str
    formula: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A term on its way into code: where it applies, and which places of the target it adds to."""

    term: Term
    places: tuple[tuple[Symbol, Expr], ...] = ()


class Planner:
    """Plans equations; `names` gives Python names, `style` the formulas in the comments.

    `forward` is the style of equations that are no derivatives; `shapes` says how far indices reach.
    """

    def __init__(self, names: Names, style: Style, forward: Style | None = None, shapes: Shapes | None = None) -> None:
        self.names = names
        self.style = style
        self.shapes = shapes or Shapes({}, ())
        self._derivatives = Writer(style)
        self._forward = Writer(forward or style)

    def formula(self, equation: Equation) -> str:
        """The formula that stands above a statement."""
        writer = self._forward if equation.name in self._forward.style.order else self._derivatives
        return writer.equation(equation)

    def statement(self, equation: Equation) -> Statement:
        """The statement that computes an equation."""
        frame = equation.target.letters
        name = self.names[equation.name]
        whole, parts = self._parts(equation, ())
        scattered = [p for p in parts if any(indices_of(v) - {i for i, _ in p.places} for _, v in p.places)]
        placed = [p for p in parts if p not in scattered]
        if not whole and len(scattered) == 1 and not placed:
            code = self._scattered(scattered[0], frame)
            return Statement(name, code, self.formula(equation), (f"{name} = {code}",))
        if len(whole) == 1 and not parts:
            filling = spread(whole[0], frame, self.shapes) or by_rest(whole[0], frame, self.shapes)
            if filling is not None:
                lines = self._place_by_place(name, filling, frame)
                return Statement(name, "\n".join(lines), self.formula(equation), tuple(lines))
        code = self._filled(whole, frame) if whole or not parts else f"np.zeros({self._shape(frame)}, _dtype(params))"
        lines = [f"{name} = {code}"]
        for part in placed:
            left = tuple(i for i in frame if i not in dict(part.places))
            lines.append(f"{self._target(name, part, frame, self._view({}))} += {self._value([part.term], left)}")
        for part in scattered:
            lines.append(f"{name} += {self._scattered(part, frame)}")
        return Statement(name, "\n".join([code, *lines[1:]]), self.formula(equation), tuple(lines))

    @staticmethod
    def _target(name: str, part: Part, frame: Sequence[Symbol], view: View, fixed: Mapping[Symbol, str] | None = None) -> str:
        """The places of an array that a part adds to; letters that are `fixed` are the loop's variables."""
        known = {i: view.place(value, i.name) for i, value in part.places} | dict(fixed or {})
        return f"{name}[{_subscripts([known.get(i, ':') for i in frame])}]"

    # ------------------------------------------------------------------ parts of an equation

    def _view(self, fixed: Mapping[Symbol, str], momentary: Mapping[str, Symbol] | None = None) -> View:
        return View(self.shapes, self.names, self.style, {}, fixed, momentary)

    def _parts(self, equation: Equation, fixed: Sequence[Symbol]) -> tuple[list[Term], list[Part]]:
        """Terms for all places of the target, and those for some: `[q = 3]`, `[v = x[n]]`; sums of such are taken apart."""
        whole: list[Term] = []
        parts: list[Part] = []
        for term in equation.terms:
            pieces = [term]
            if isinstance(term.body, sympy.Add) and term.reduce == "sum":
                split = [replace(term, body=cast(Expr, a)) for a in term.body.args]
                if any(self._is_special(t, equation.target.letters, fixed) for t in split):
                    pieces = split
            for piece in pieces:
                part = self._placed(piece, equation.target.letters, fixed)
                if part.places:
                    parts.append(part)
                else:
                    whole.append(part.term)
        return whole, parts

    def _is_special(self, term: Term, frame: Sequence[Symbol], fixed: Sequence[Symbol]) -> bool:
        moved = any(set(fixed) & indices_of(i) and not is_index(i) for e in elements_of(term.body) for i in e.indices)
        only = any(is_indicator(f) and indices_of(f) & set(fixed) for f in sympy.Mul.make_args(term.body))
        return moved or only or bool(self._placed(term, frame, fixed).places)

    def _placed(self, term: Term, frame: Sequence[Symbol], fixed: Sequence[Symbol]) -> Part:
        """A term whose factors say at which places of the target alone it counts."""
        body, places = term.body, dict[Symbol, Expr]()
        if term.reduce != "sum":
            return Part(term)
        for f in sympy.Mul.make_args(body):
            test = f.args[0].args[1] if is_indicator(f) else None
            if not isinstance(test, sympy.Eq):
                continue
            for letter, value in (test.args, tuple(reversed(test.args))):
                rest = sympy.Mul(*(g for g in sympy.Mul.make_args(body) if g != f))
                alone = not set(frame) & indices_of(value) or bool(set(term.over) & indices_of(value))
                if not is_index(letter) or letter not in frame or letter in fixed or letter in indices_of(value) or not alone:
                    continue
                scattered = bool(indices_of(value) - set(fixed))
                if scattered and (letter in indices_of(rest) or not set(term.over) & indices_of(value)):
                    continue
                body = rest if scattered else cast(Expr, rest.xreplace({letter: value}))
                places[cast(Symbol, letter)] = value
                break
        return Part(replace(term, body=body), tuple(places.items()))

    def _scattered(self, part: Part, frame: Sequence[Symbol]) -> str:
        """Values added up at the places that an array of whole numbers names."""
        places = dict(part.places)
        kept = [i for i in frame if i not in places]
        inner = list(dict.fromkeys(i for v in places.values() for i in sorted(indices_of(v), key=str)))
        # The array of places gives the first axes, in its own order.
        arrays = {v: max(v.atoms(Element), key=lambda e: len(e.indices), default=None) for v in places.values()}
        for e in arrays.values():
            if e is not None:
                inner = [*(cast(Symbol, i) for i in e.indices if i in inner), *(i for i in inner if i not in e.indices)]
                break
        rest = [i for i in kept if i not in inner]
        axes = [*inner, *rest]
        view = self._view({})
        over = tuple(i for i in part.term.over if i not in inner)
        values = self._expression([(replace(part.term, body=view.plain(part.term.body), over=over), view)], axes, fill=True)
        order = [*(i for i in frame if i in places or i not in rest), *rest]
        indices = [view.places(places.get(i, i), inner) for i in order if i not in rest]
        shape = ", ".join(self.size(i) for i in order)
        text = f"scatter(({shape}{',' if len(order) == 1 else ''}), ({', '.join(indices)},), {values})"
        return aligned(text, order, frame)

    def _place_by_place(self, name: str, filling: Filling, frame: Sequence[Symbol]) -> list[str]:
        """The lines of a loop that fills an array."""
        counters = {p: self.names.counter(p.name, p.name.rstrip("0123456789'%")) for p in filling.over}
        view = self._view(counters)
        term = replace(filling.term, body=view.plain(filling.term.body))
        value = self._expression([(term, view)], filling.frame)
        places = [a.text(counters, self.size) for a in filling.axes]
        whole = self.names.local(f"{name}_{filling.stem}") if filling.stem else name
        lines = [
            f"{whole} = np.zeros({tuple_of([self.size(a.size) for a in filling.axes])}, _dtype(params))",
            _for_all(counters.values(), [self.size(n) for n in filling.over.values()]),
            f"    {whole}[{_subscripts(places)}] {filling.sign} {value}",
        ]
        if filling.cut:
            lines.append(f"{name} = {whole}[{_subscripts([c.text({}, self.size) for c in filling.cut])}]")
        elif filling.stem:
            lines.append(f"{name} = {whole}.reshape({', '.join(map(self.size, frame))})")
        return lines

    # ------------------------------------------------------------------ values

    def _value(self, terms: Sequence[Term], frame: Sequence[Symbol]) -> str:
        return self._expression([self._viewed(t) for t in terms], frame)

    def _viewed(self, term: Term) -> tuple[Term, View]:
        view = self._view({})
        body = term.body
        if term.reduce != "sum":
            tests = [t for e in elements_of(body) for t in self.shapes.outside(e)]
            if tests:
                body = sympy.Piecewise((body, sympy.And(*dict.fromkeys(tests))), (sympy.S.NegativeInfinity, True))
        return replace(term, body=view.plain(body)), view

    def _filled(self, terms: Sequence[Term], frame: Sequence[Symbol]) -> str:
        """The value of terms as an array with all axes of the frame."""
        return self._expression([self._viewed(t) for t in terms], frame, fill=True)

    def _expression(self, terms: Sequence[tuple[Term, View]], frame: Sequence[Symbol], fill: bool = False) -> str:
        pieces: dict[str, str] = {}
        body: Expr = sympy.S.Zero
        for term, view in terms:
            body += self._without_sum(_merged(term, view, pieces), frame, pieces)
        if isinstance(body, sympy.Add) and (shared := common_factors([Term(cast(Expr, a)) for a in body.args])):
            front = sympy.Mul(*shared)
            body = front * sympy.Add(*(without(cast(Expr, a), shared) for a in body.args))
        code = NumpyWriter(self.names, self.style, frame, pieces).expression(body)
        if fill and (set(indices_of(body)) != set(frame) or (not frame and not elements_of(body))):
            kind = "np.intp" if any(t.reduce == "argmax" for t, _ in terms) else "_dtype(params)"
            code = f"np.full({self._shape(frame)}, {code}, {kind})" if frame else f"np.asarray({code}, {kind})"
        return code

    def _shape(self, frame: Sequence[Symbol]) -> str:
        return tuple_of([self.size(i) for i in frame])

    def size(self, i: Symbol | int) -> str:
        """The Python name of an index' size, or a number."""
        return str(i) if isinstance(i, int) else self.names[self.style.sizes[base_name(i.name)]]

    def _without_sum(self, term: Term, frame: Sequence[Symbol], pieces: dict[str, str]) -> Expr:
        """A term as an element-wise expression, its sums computed by pieces of text that stand in as elements."""
        term = self._times_absent(term)
        if not term.over:
            return term.body
        outside, inside = self.pull(term)
        axes = [i for i in frame if i in indices_of(inside)]
        text = self._reduced(replace(term, body=inside), axes, pieces)
        name = f"@{len(pieces)}"
        pieces[name] = text
        return outside * Element(name, *axes)

    def _times_absent(self, term: Term) -> Term:
        """A sum over an index that the body lacks is the body times the size of the index."""
        absent = [i for i in term.over if i not in indices_of(term.body)]
        sizes = [size_symbol(self.style.sizes[base_name(i.name)]) for i in absent if term.reduce == "sum"]
        over = tuple(i for i in term.over if i not in absent)
        return Term(term.body * sympy.Mul(*sizes), over, term.reduce) if absent else term

    @staticmethod
    def pull(term: Term) -> tuple[Expr, Expr]:
        """What does not depend on the summed indices goes in front of the sum."""
        if term.reduce != "sum":
            return sympy.S.One, term.body
        factors = sympy.Mul.make_args(term.body)
        inside = [f for f in factors if indices_of(cast(Expr, f)) & set(term.over)]
        if not inside:
            return sympy.S.One, term.body
        outside = [f for f in factors if f not in inside]
        return sympy.Mul(*outside), sympy.Mul(*inside)

    def _reduced(self, term: Term, axes: Sequence[Symbol], pieces: dict[str, str]) -> str:
        over = term.over
        groups = group_factors(term.body) if term.reduce == "sum" else [term.body]
        for k, group in enumerate(groups):
            # What only one of the factors has is summed there first.
            lone = tuple(
                i for i in over if i in indices_of(group) and not any(i in indices_of(g) for g in groups if g is not group)
            )
            if lone and len(groups) > 1 and lone != over:
                inner = [i for i in (*axes, *over) if i in indices_of(group) and i not in lone]
                pieces[f"@{len(pieces)}"] = self._reduced(Term(group, lone), inner, pieces)
                groups[k] = Element(f"@{len(pieces) - 1}", *inner)
                rest = tuple(i for i in over if i not in lone)
                return self._reduced(Term(sympy.Mul(*groups), rest), axes, pieces)
        if len(groups) == 2 and (text := self._product(groups, axes, over, pieces)) is not None:
            return text
        if len(groups) > 1 and all(set(over) & indices_of(g) for g in groups):
            return self._einsum(groups, axes, over, pieces)
        natural = self._natural(term.body, [*axes, *over])
        by_place = term.reduce != "sum" and natural[-1] not in over and self._is_short(over)
        if term.reduce == "argmax" and len(over) > 1 and not by_place:
            natural = [*axes, *over]
        writer = NumpyWriter(self.names, self.style, natural, pieces)
        text = writer.expression(term.body, ATOM)
        if by_place:
            # Along short axes with something behind them it is faster to compare whole arrays, place by place.
            positions = ", ".join(str(natural.index(i)) for i in over)
            kept = [i for i in natural if i not in over]
            name = {"max": "greatest", "argmax": "place_of_greatest"}[term.reduce]
            result = f"{name}({text}, ({positions}{',' if len(over) == 1 else ''}))"
            return aligned(result, kept, list(axes))
        if term.reduce == "argmax" and len(over) > 1:
            shape = ", ".join(self.size(i) for i in axes)
            return f"{text}.reshape({shape}, -1).argmax(axis=-1)" if axes else f"{text}.argmax()"
        positions = [natural.index(i) for i in over]
        kept = [i for i in natural if i not in over]
        where = "" if not kept else f"axis={positions[0]}" if len(positions) == 1 else f"axis={tuple(positions)}"
        result = f"{text}.{term.reduce}({where})" if not text.startswith("-") else f"({text}).{term.reduce}({where})"
        return aligned(result, kept, list(axes)) if kept != list(axes) else result

    def _is_short(self, letters: Sequence[Symbol]) -> bool:
        """Whether letters have few values together."""
        sizes = [self.shapes.extent(i.name) for i in letters]
        return all(s.is_Integer for s in sizes) and math.prod(map(int, sizes)) <= _SHORT

    @staticmethod
    def _natural(body: Expr, axes: Sequence[Symbol]) -> list[Symbol]:
        """The order of axes that most arrays of an expression have already."""
        best = max(elements_of(body), key=lambda e: len(e.indices), default=None)
        first = [i for i in best.letters if i in axes] if best is not None else []
        return [*(i for i in axes if i not in first), *first]

    def _product(
        self, groups: list[Expr], axes: Sequence[Symbol], over: Sequence[Symbol], pieces: Mapping[str, str]
    ) -> str | None:
        """A matrix product, where two groups share the summed indices, and further ones only as a batch in front."""
        first, second = groups
        shared = indices_of(first) & indices_of(second)
        if not set(over) <= shared:
            return None
        batch = [i for i in axes if i in shared]
        own = [[i for i in axes if i in indices_of(g) and i not in shared] for g in groups]
        if own[0] and own[1] and list(axes).index(own[1][0]) < list(axes).index(own[0][0]):
            (first, second), own = (second, first), [own[1], own[0]]
        if len(over) == 1 and len(own[0]) <= 1 and len(own[1]) <= 1 and (not batch or (own[0] and own[1])):
            result = [*batch, *own[0], *own[1]]
            if batch or list(axes) == result:
                left = self._matrix(first, [*batch, *own[0], *over], pieces)
                right = self._matrix(second, [*batch, *over, *own[1]], pieces)
                text = f"{left} @ {right}"
                return text if list(axes) == result else aligned(f"({text})", result, axes)
        if batch:
            return None
        left_axes = self._natural(first, [*own[0], *over])
        right_axes = self._natural(second, [*over, *own[1]])
        result = [*(i for i in left_axes if i not in over), *(i for i in right_axes if i not in over)]
        left = NumpyWriter(self.names, self.style, left_axes, pieces).expression(first)
        right = NumpyWriter(self.names, self.style, right_axes, pieces).expression(second)
        # In the order in which the larger array holds them: its copy is then read in rows.
        larger = left_axes if len(left_axes) >= len(right_axes) else right_axes
        over = sorted(over, key=larger.index)
        where = ([left_axes.index(i) for i in over], [right_axes.index(i) for i in over])
        return aligned(f"np.tensordot({left}, {right}, axes={where})", result, axes)

    def _matrix(self, factor: Expr, axes: Sequence[Symbol], pieces: Mapping[str, str]) -> str:
        natural = self._natural(factor, axes)
        text = NumpyWriter(self.names, self.style, natural, pieces).expression(factor, ATOM)
        return aligned(text, natural, axes)

    def _einsum(self, groups: list[Expr], axes: Sequence[Symbol], over: Sequence[Symbol], pieces: Mapping[str, str]) -> str:
        letters = {i: "ijklmnopqrstuvwxyz"[k] for k, i in enumerate(dict.fromkeys((*axes, *over)))}
        operands: list[str] = []
        subscripts: list[str] = []
        for g in groups:
            natural = self._natural(g, [i for i in letters if i in indices_of(g)])
            operands.append(NumpyWriter(self.names, self.style, natural, pieces).expression(g))
            subscripts.append("".join(letters[i] for i in natural))
        result = "".join(letters[i] for i in axes)
        return f"np.einsum('{','.join(subscripts)}->{result}', {', '.join(operands)}, optimize=True)"


def _subscripts(places: Sequence[str]) -> str:
    """The places along axes, without those at the end that are all."""
    kept = list(places)
    while kept[-1] == ":":
        kept.pop()
    return ", ".join(kept)


def _for_all(counters: Iterable[str], counts: Sequence[str]) -> str:
    """The head of a loop over several letters."""
    values = f"range({counts[0]})" if len(counts) == 1 else f"np.ndindex({', '.join(counts)})"
    return f"for {', '.join(counters)} in {values}:"


def _merged(term: Term, view: View, pieces: dict[str, str]) -> Term:
    """A term whose pieces of text are joined with those of the others."""
    swap: dict[Expr, Expr] = {}
    for e in elements_of(term.body):
        if e.name in view.pieces:
            name = f"@{len(pieces)}"
            pieces[name] = view.pieces[e.name]
            swap[e] = Element(name, *e.indices)
    return replace(term, body=cast(Expr, term.body.xreplace(swap))) if swap else term
