"""Recurrences as loops over their index: what a step computes from those before it; what needs no step comes before the loop."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import sympy
from sympy import Expr, Symbol

from .notation import Element, Equation, Term, direction, elements_of, groups_of, indices_of, is_recurrence, within_step
from .numpy_text import NumpyWriter, is_plain_choice
from .plan import Part, Planner, Statement
from .views import View
from .write import is_indicator


class Recurrences(Planner):
    """Plans equations, those that need one another as loops."""

    def statements(self, equations: Sequence[Equation], outside: Collection[str] = ()) -> list[Statement]:
        """The statements of equations in order; `outside` are arrays that something else reads."""
        result: list[Statement] = []
        groups = groups_of(equations)
        for group in groups:
            if is_recurrence(group):
                own = {e.name for e in group}
                readers = {
                    e.name for other in groups if other is not group for q in other for t in q.terms for e in elements_of(t.body)
                }
                result += self.loop(group, (readers | set(outside)) & own)
            else:
                result.append(self.statement(group[0]))
        return result

    def loop(self, group: Sequence[Equation], kept: Collection[str]) -> list[Statement]:
        """A recurrence as a loop over its index; arrays that are not `kept` live for one step."""
        letter, way = direction(group)
        own = {e.name for e in group}
        before: list[Statement] = []
        steps: list[Equation] = []
        for equation in within_step(group, letter):
            step, ahead = self._hoisted(equation, own)
            steps.append(step)
            before += [self.statement(e) for e in ahead]
        shifted = {
            e.name for q in group for t in q.terms for e in elements_of(t.body) if e.name in own and letter not in e.indices
        }
        momentary = {e.name: letter for e in group if e.name not in shifted and e.name not in kept}
        counter = self.names.counter(letter.name)
        count = self.size(letter)
        lines: list[str] = []
        for equation in steps:
            if equation.name not in momentary:
                kind = "int" if equation.terms and equation.terms[0].reduce == "argmax" else "_dtype(params)"
                lines.append(f"{self.names[equation.name]} = np.zeros({self._shape(equation.target.letters)}, {kind})")
        lines.append(f"for {counter} in {f'range({count})' if way > 0 else f'reversed(range({count}))'}:")
        for equation in steps:
            lines.append(f"    # {self.formula(equation)}")
            lines += [f"    {line}" for line in self._step(equation, {letter: counter}, momentary)]
        names = ", ".join(self.names[e.name] for e in group)
        return [*before, Statement(names, "\n".join(lines), "", tuple(lines))]

    def _hoisted(self, equation: Equation, own: Collection[str]) -> tuple[Equation, list[Equation]]:
        """What of an equation does not depend on the recurrence, summed up in an array of its own before the loop."""
        outer = [t for t in equation.terms if not any(e.name in own for e in elements_of(t.body)) and t.reduce == "sum"]
        if not any(t.over for t in outer):
            return equation, []
        target = Element(f"{equation.name}_in", *equation.target.letters)
        self.shapes = replace(self.shapes, axes={**self.shapes.axes, target.name: tuple(i.name for i in target.letters)})
        rest = tuple(t for t in equation.terms if t not in outer)
        return replace(equation, terms=(Term(target), *rest)), [Equation(target, tuple(outer))]

    def _step(self, equation: Equation, fixed: Mapping[Symbol, str], momentary: Mapping[str, Symbol]) -> list[str]:
        """The lines that compute an equation at one step of a loop."""
        (letter, counter), name = next(iter(fixed.items())), self.names[equation.name]
        frame = tuple(i for i in equation.target.letters if i != letter)
        if equation.name not in momentary:
            axis = equation.target.letters.index(letter)
            name += f"[{', '.join([':'] * axis + [counter])}]"
        whole, parts = self._parts(equation, tuple(fixed))
        free: list[tuple[Term, View]] = []
        tied: list[tuple[list[Any], tuple[Term, View]]] = []
        lines: list[str] = []
        # Parts that fill places of their own.
        spots = [p.places for p in parts]
        alone = not whole and len(set(spots)) == len(spots) and _constant(spots)
        for part in (*map(Part, whole), *parts):
            view = self._view(fixed, momentary)
            body, conditions = self._at_step(part.term.body, view, fixed)
            term = replace(part.term, body=body)
            places = dict(part.places)
            if not places:
                (tied.append((conditions, (term, view))) if conditions else free.append((term, view)))
                continue
            left = tuple(i for i in frame if i not in places)
            whole_frame = frame if equation.name in momentary else equation.target.letters
            target = self._target(self.names[equation.name], part, whole_frame, view, fixed)
            sign = "=" if alone and not conditions else "+="
            lines += self._tied(conditions, fixed, f"{target} {sign} {self._expression([(term, view)], left)}")
        groups: dict[tuple[Any, ...], list[tuple[Term, View]]] = {}
        for conditions, own in tied:
            groups.setdefault(tuple(conditions), []).append(own)
        if not lines and not free and len(groups) == 2 and self._either(list(groups), letter):
            then, other = (self._whole(own, frame) for own in groups.values())
            return [*self._tied(next(iter(groups)), fixed, f"{name} = {then}"), "else:", f"    {name} = {other}"]
        if not lines and equation.name in momentary and len(groups) == 1:
            # An array of this step alone is computed at once in either case.
            ((conditions, own),) = groups.items()
            then, other = self._whole([*free, *own], frame), self._whole(free, frame)
            return [*self._tied(conditions, fixed, f"{name} = {then}"), "else:", f"    {name} = {other}"]
        if not lines and not groups and len(free) == 1 and (choices := _choices(free[0][0].body)):
            return self._by_cases(choices, free[0], frame, name)
        later = [line for c, own in tied for line in self._tied(c, fixed, f"{name} += {self._expression([own], frame)}")]
        lines = [*later, *lines]
        if free:
            value = self._expression(free, frame)
            if equation.name in momentary and lines:
                # What is added to in place must be an array of its own, with all axes.
                value = self._whole(free, frame)
                bare = len(free) == 1 and isinstance(free[0][0].body, Element) and not free[0][0].over
                value = f"{value}.copy()" if bare else value
            return [f"{name} = {value}", *lines]
        start = [f"{name} = np.zeros({self._shape(frame)}, _dtype(params))"] if equation.name in momentary else []
        return [*start, *lines]

    def _by_cases(self, choices: Sequence[Expr], own: tuple[Term, View], frame: Sequence[Symbol], name: str) -> list[str]:
        """A value in which the loop's variable decides, once for either case."""
        term, view = own
        values = [
            self._whole(
                [(replace(term, body=cast(Expr, term.body.xreplace({c: c.args[place].args[0] for c in choices}))), view)], frame
            )
            for place in (0, 1)
        ]
        test = NumpyWriter(self.names, self.style, (), view.pieces).relation(cast(Expr, choices[0].args[0].args[1]))
        return [f"if {test}:", f"    {name} = {values[0]}", "else:", f"    {name} = {values[1]}"]

    def _tied(self, conditions: Sequence[Any], fixed: Mapping[Symbol, str], line: str) -> list[str]:
        """A line of a step that counts where conditions on the loop's variable hold."""
        tests = " and ".join(self._condition(c, fixed) for c in conditions)
        return [f"if {tests}:", f"    {line}"] if tests else [line]

    def _whole(self, terms: Sequence[tuple[Term, View]], frame: Sequence[Symbol]) -> str:
        """The value of terms with all axes of the frame."""
        zeros = f"np.zeros({self._shape(frame)}, _dtype(params))"
        if not terms:
            return zeros
        value = self._expression(terms, frame)
        return value if self._covers([t for t, _ in terms], frame) else f"{zeros} + {value}"

    def _either(self, conditions: Sequence[Sequence[Any]], letter: Symbol) -> bool:
        """Whether of two conditions on a letter one holds at an end of its range, and the other everywhere else."""
        if any(len(c) != 1 for c in conditions):
            return False
        found = [_about(test, letter) for (test,) in conditions]
        if None in found:
            return False
        (one, place), (other, edge) = sorted((f for f in found if f is not None), key=lambda f: f[0] != "==")
        ends = {"<": self.shapes.size(letter.name) - 1, ">": sympy.S.Zero}
        if one != "==" or other[0] not in ends:
            return False
        # as a strict inequality
        edge += {"<=": 1, ">=": -1}.get(other, 0)
        return sympy.expand(place - edge) == 0 and self.shapes.numeric(sympy.expand(edge - ends[other[0]])) == 0

    @staticmethod
    def _covers(terms: Iterable[Term], frame: Sequence[Symbol]) -> bool:
        return set(frame) <= {i for t in terms for i in indices_of(t.body)}

    def _at_step(self, body: Expr, view: View, fixed: Mapping[Symbol, str]) -> tuple[Expr, list[Any]]:
        """A term's body at one step, and what must hold for it to count."""
        conditions: list[Any] = []
        kept: list[Expr] = []
        for f in sympy.Mul.make_args(body):
            test = f.args[0].args[1] if is_indicator(f) else None
            if test is not None and not test.atoms(Element) and indices_of(test) <= set(fixed):
                conditions.append(test)
            else:
                kept.append(f)
        new = sympy.Mul(*(view.plain(f, factor=True) for f in kept))
        return new, [*conditions, *view.conditions]

    def _condition(self, test: Any, fixed: Mapping[Symbol, str]) -> str:
        """A condition on a loop's variable, the variable on the left."""
        (letter, counter) = next(iter(fixed.items()))
        writer = NumpyWriter(self.names, self.style)
        if (found := _about(test, letter)) is not None:
            sign, other = found
            return f"{counter} > 0" if sign == ">=" and other == 1 else f"{counter} {sign} {writer.symbols(other)}"
        swap = {i: Symbol(f"@{i}") for i in fixed}
        return writer.relation(test.xreplace(swap))


def _about(test: Any, letter: Symbol) -> tuple[str, Expr] | None:
    """The sign and the other side of a condition with a letter on its left; None where it is no multiple of one."""
    signs: dict[str, tuple[str, str]] = {">=": (">=", "<="), ">": (">", "<"), "<=": ("<=", ">="), "<": ("<", ">")}
    rest = sympy.expand(test.lhs - test.rhs)
    step = rest.coeff(letter, 1)
    if step not in (1, -1) or test.rel_op not in (*signs, "==", "!="):
        return None
    sign = signs.get(test.rel_op, (test.rel_op, test.rel_op))[bool(step < 0)]
    return sign, cast(Expr, sympy.expand((step * letter - rest) / step))


def _choices(body: Expr) -> list[Expr]:
    """The choices between two values that a loop's variable makes, all of them by one condition."""
    found = [c for c in body.atoms(sympy.Piecewise) if len(c.args) == 2 and is_plain_choice(c.args[0].args[1])]
    return found if len({c.args[0].args[1] for c in found}) == 1 else []


def _constant(spots: Sequence[tuple[tuple[Symbol, Expr], ...]]) -> bool:
    """Whether places are numbers along the same axes."""
    letters = {tuple(i for i, _ in spot) for spot in spots}
    return len(letters) == 1 and all(v.is_Integer for spot in spots for _, v in spot)
