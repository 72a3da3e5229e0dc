"""Solving index equations: which index of a term makes an element the one that is wanted.

    r = 2*i + p - 1   for i   gives   i = (r + 1 - p)/2        (a convolution solved backwards is a transposed convolution)
    v = x[n]                  gives   the condition x[n] = v   (the gradient of an embedding is a scatter-add)
    r = floor(f/3), c = mod(f, 3)   gives   f = 3*r + c        (flattening, undone)

This is the only tensor step of the chain rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import sympy
from sympy import Expr, Symbol

from .notation import Beyond, Element, indices_of, is_index, unwrapped


@dataclass
class Solution:
    """What each letter is, and the equations that no letter could be solved from."""

    letters: dict[Symbol, Expr] = field(default_factory=dict[Symbol, Expr])
    conditions: list[Any] = field(default_factory=list[Any])

    def put(self, expr: Expr) -> Expr:
        """An expression with the solved letters replaced."""
        while (new := cast(Expr, expr.xreplace(dict(self.letters)))) != expr:
            expr = new
        return new


def solve(
    wanted: Sequence[tuple[Symbol, Expr]],
    preferred: Sequence[Symbol],
    others: Sequence[Symbol],
    size: Callable[[Symbol], Expr],
    numbers: Mapping[Expr, Expr],
) -> Solution:
    """The solution of `axis = index` for the letters `preferred` first, then `others`; `size` gives a letter's size.

    `numbers` are the sizes that are known. An equation without a letter to solve for becomes a condition.
    """
    found = Solution()
    unknown = {*preferred, *others}
    todo: list[tuple[Expr, Expr]] = []
    for axis, expr in wanted:
        bare = unwrapped(expr)
        if is_index(bare) and bare in unknown and bare not in found.letters:
            found.letters[cast(Symbol, bare)] = Beyond(axis) if size(cast(Symbol, bare)) != size(axis) else axis
        else:
            todo.append((axis, expr))
    todo = _join_digits(todo, unknown, found)
    for axis, expr in todo:
        # A letter with one value stands still; it is not solved for.
        for i in indices_of(unwrapped(expr)) & unknown - set(found.letters):
            if size(i).xreplace(dict(numbers)) == 1:
                found.letters[i] = sympy.S.Zero
        right = found.put(unwrapped(expr))
        free = [i for i in (*preferred, *others) if i in indices_of(right) and i not in found.letters]
        if (digits := _digits(right, free, size, numbers)) is not None:
            rest, steps = digits
            for i, step in steps:
                above = sympy.floor((axis - rest) / step)
                found.letters[i] = above if i == steps[0][0] else sympy.Mod(above, size(i))
            continue
        letter = next((i for i in free if _is_linear(right, i)), None)
        if letter is None:
            found.conditions.append(sympy.Eq(axis, right))
        else:
            step = right.coeff(letter, 1)
            value = sympy.expand((axis - (right - step * letter)) / step)
            if is_index(value):
                ends = [size(cast(Symbol, i)).xreplace(dict(numbers)) for i in (value, letter)]
                value = Beyond(cast(Symbol, value)) if ends[0] != ends[1] else value
            found.letters[letter] = value
    return found


def _is_linear(expr: Expr, letter: Symbol) -> bool:
    step = expr.coeff(letter, 1)
    return bool(step.is_Rational and step != 0 and letter not in (expr - step * letter).expand().free_symbols)


def _join_digits(equations: list[tuple[Expr, Expr]], unknown: set[Symbol], found: Solution) -> list[tuple[Expr, Expr]]:
    """`r = floor(f/m)` and `c = mod(f, m)` are one equation, `f = m*r + c`."""
    equations = list(equations)
    joined = True
    while joined:
        joined = False
        for low in equations:
            remainder = low[1]
            if not isinstance(remainder, sympy.Mod):
                continue
            whole, m = cast("tuple[Expr, Expr]", remainder.args)
            high = next((e for e in equations if e[1] == sympy.floor(whole / m)), None)
            if high is None:
                continue
            equations = [e for e in equations if e not in (low, high)]
            value = m * high[0] + low[0]
            if is_index(whole) and whole in unknown and whole not in found.letters:
                found.letters[cast(Symbol, whole)] = value
            else:
                equations.append((value, whole))
            joined = True
            break
    return equations


def _digits(
    expr: Expr, free: Sequence[Symbol], size: Callable[[Symbol], Expr], numbers: Mapping[Expr, Expr]
) -> tuple[Expr, list[tuple[Symbol, Expr]]] | None:
    """The letters as digits of a number, the highest first, where each counts through exactly one step of the one above."""
    if len(free) < 2:
        return None
    steps = [(i, expr.coeff(i, 1)) for i in free]
    rest = sympy.expand(expr - sympy.Add(*(i * c for i, c in steps)))
    if set(free) & indices_of(rest):
        return None
    ordered: list[tuple[Symbol, Expr]] = []
    step: Expr = sympy.S.One
    while len(ordered) < len(steps):
        wanted = step.xreplace(dict(numbers))
        one = next((pair for pair in steps if pair[1].xreplace(dict(numbers)) == wanted and pair not in ordered), None)
        if one is None:
            return None
        ordered.insert(0, one)
        step = sympy.expand(step * size(one[0]))
    return rest, ordered


def bounds(expr: Expr, letters: Mapping[Symbol, Expr], size: Expr) -> list[Any]:
    """What must hold for an index to lie within an axis: only what can fail."""
    if isinstance(expr, sympy.Mod) and expr.args[1] == size:
        return []
    whole = sympy.denom(sympy.together(expr))
    found: list[Any] = []
    if whole != 1:
        found.append(sympy.Eq(sympy.Mod(sympy.expand(expr * whole), whole), 0))
    for test in (sympy.expand(expr) >= 0, sympy.expand(expr - size) < 0):
        if test != True and not _always(test, letters):  # noqa: E712
            found.append(test)
    return found


def _always(test: Any, letters: Mapping[Symbol, Expr]) -> bool:
    """Whether a bound holds for all values of the letters, as far as their ends tell."""
    difference = test.lhs - test.rhs
    upper = isinstance(test, (sympy.Lt, sympy.Le))
    steps = {i: difference.coeff(i, 1) for i in indices_of(difference)}
    rest = sympy.expand(difference - sympy.Add(*(i * c for i, c in steps.items())))
    if indices_of(rest) or rest.atoms(Element) or not all(c.is_Rational for c in steps.values()):
        return False
    ends = sympy.Add(*(c * (letters[i] - 1) for i, c in steps.items() if i in letters and (c > 0) == upper))
    extreme = sympy.expand(rest + ends)
    return bool(extreme.is_negative if upper else extreme.is_nonnegative)
