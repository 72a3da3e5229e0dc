"""The slow, obviously right interpreter of the notation: one equation after the other, one element after the other.

Values are dicts from index tuples to numbers, `{(0, 1): 0.5, …}`; a scalar has the empty tuple. The kind of number is
the caller's: Python floats, or mpmath's of any precision. Nothing is vectorised and nothing is rewritten, so that this
can be the oracle for everything that is. An element beyond its array is zero, and no place of a maximum.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import mpmath
import sympy
from sympy import Expr

from .errors import SymbackpropError
from .notation import (
    Beyond,
    Call,
    Element,
    Equation,
    Function,
    Term,
    base_name,
    direction,
    groups_of,
    is_index,
    is_recurrence,
    within_step,
)

Values = dict[tuple[int, ...], Any]

_FUNCTIONS: Mapping[Any, Callable[[Any], Any]] = {
    sympy.exp: mpmath.exp,
    sympy.log: mpmath.log,
    sympy.tanh: mpmath.tanh,
    sympy.sinh: mpmath.sinh,
    sympy.cosh: mpmath.cosh,
    sympy.sin: mpmath.sin,
    sympy.cos: mpmath.cos,
    sympy.erf: mpmath.erf,
    sympy.sign: mpmath.sign,
    sympy.floor: mpmath.floor,
    sympy.Abs: abs,
}
_TESTS: Mapping[Any, Callable[[Any, Any], bool]] = {
    sympy.Gt: operator.gt,
    sympy.Lt: operator.lt,
    sympy.Ge: operator.ge,
    sympy.Le: operator.le,
    sympy.Eq: operator.eq,
    sympy.Ne: operator.ne,
}


def evaluate(
    equations: Iterable[Equation],
    values: Mapping[str, Values],
    sizes: Mapping[str, int],
    functions: Iterable[Function] = (),
    size_names: Mapping[str, str] | None = None,
) -> dict[str, Values]:
    """The values of all arrays after the equations, in their order.

    `sizes` gives the number of each index letter, `size_names` the name of its size in formulas (`N` for `n`);
    raises `SymbackpropError` where a value is missing or a function has no formula.
    """
    machine = _Machine(dict(values), sizes, functions, size_names or {})
    for group in groups_of(list(equations)):
        if is_recurrence(group):
            machine.run(group)
        else:
            machine.compute(group[0])
    return machine.values


class _Machine:
    def __init__(
        self,
        values: dict[str, Values],
        sizes: Mapping[str, int],
        functions: Iterable[Function],
        size_names: Mapping[str, str],
    ) -> None:
        self.values = values
        self.sizes = sizes
        self.functions = {f.name: f for f in functions}
        self.numbers = {name: sizes[i] for i, name in size_names.items() if i in sizes}
        self.beyond = False

    def compute(self, equation: Equation, fixed: Mapping[sympy.Symbol, int] | None = None) -> None:
        """The values of an equation, those at the `fixed` indices alone where there are such."""
        indices, fixed = equation.target.letters, fixed or {}
        result = self.values[equation.name] if fixed else Values()
        for place in itertools.product(*((fixed[i],) if i in fixed else range(self._size(i)) for i in indices)):
            at = dict(zip(indices, place, strict=True))
            result[place] = sum((self._term(t, at) for t in equation.terms), start=mpmath.mpf(0))
        self.values[equation.name] = result

    def run(self, group: Sequence[Equation]) -> None:
        """A recurrence, one step of its index after the other."""
        letter, way = direction(group)
        for equation in group:
            self.values[equation.name] = {}
        for step in range(self._size(letter))[::way]:
            for equation in within_step(group, letter):
                self.compute(equation, {letter: step})

    def _size(self, i: sympy.Symbol) -> int:
        if base_name(i.name) not in self.sizes:
            raise SymbackpropError(f"the size of the index '{i.name}' is not given")
        return self.sizes[base_name(i.name)]

    def _term(self, term: Term, at: Mapping[sympy.Symbol, int]) -> Any:
        places = itertools.product(*(range(self._size(i)) for i in term.over))
        if term.reduce == "sum":
            found = (self.number(term.body, {**at, **dict(zip(term.over, p, strict=True))}) for p in places)
            return sum(found, start=mpmath.mpf(0))
        best: tuple[Any, int] | None = None
        for position, place in enumerate(places):
            self.beyond = False
            value = self.number(term.body, {**at, **dict(zip(term.over, place, strict=True))})
            if not self.beyond and (best is None or value > best[0]):
                best = value, position
        if best is None:
            raise SymbackpropError(f"no place of the maximum over {', '.join(map(str, term.over))} lies within its array")
        return best[0] if term.reduce == "max" else mpmath.mpf(best[1])

    def number(self, expr: Expr, at: Mapping[sympy.Symbol, int]) -> Any:
        """The value of an expression where its indices have the values `at`."""
        if isinstance(expr, Element):
            return self._element(expr, [self._place(i, at) for i in expr.indices])
        if is_index(expr):
            return mpmath.mpf(at[expr])  # type: ignore[index]
        if isinstance(expr, sympy.Rational):
            return mpmath.mpf(expr.p) / expr.q
        if isinstance(expr, sympy.Symbol):
            return self.numbers[expr.name]
        if expr == sympy.pi:
            return mpmath.pi()
        if expr == sympy.E:
            return mpmath.e()
        if isinstance(expr, sympy.Piecewise):
            return self._piecewise(expr, at)
        if isinstance(expr, Call):
            return self._call(expr, [self.number(a, at) for a in expr.arguments])
        arguments = [self.number(a, at) for a in expr.args]
        if isinstance(expr, sympy.Add):
            return sum(arguments, start=mpmath.mpf(0))
        if isinstance(expr, sympy.Mul):
            return mpmath.fprod(arguments)
        if isinstance(expr, sympy.Pow):
            return mpmath.power(*arguments)
        if isinstance(expr, sympy.Mod):
            return arguments[0] - arguments[1] * mpmath.floor(arguments[0] / arguments[1])
        return _FUNCTIONS[type(expr)](arguments[0])

    def _place(self, expr: Expr, at: Mapping[sympy.Symbol, int]) -> int:
        """The value of an index; -1, which is no place, where it is no whole number."""
        if isinstance(expr, Beyond):
            return self._place(expr.args[0], at)
        if expr in at:
            return at[expr]  # type: ignore[index]
        value = self.number(expr, at)
        return int(value) if value == int(value) else -1

    def _element(self, e: Element, place: Sequence[int]) -> Any:
        if e.name not in self.values:
            raise SymbackpropError(f"'{e.name}' has no value")
        value = self.values[e.name].get(tuple(place))
        self.beyond |= value is None
        return mpmath.mpf(0) if value is None else value

    def _piecewise(self, expr: Expr, at: Mapping[sympy.Symbol, int]) -> Any:
        for value, test in (branch.args for branch in expr.args):
            if self._holds(test, at):
                return self.number(value, at)
        raise SymbackpropError("no branch of a 'where' holds")

    def _holds(self, test: Any, at: Mapping[sympy.Symbol, int]) -> bool:
        if test in (True, False):
            return bool(test)
        if isinstance(test, sympy.And):
            return all(self._holds(part, at) for part in test.args)
        return _TESTS[type(test)](*(self.number(a, at) for a in test.args))

    def _call(self, call: Call, arguments: Sequence[Any]) -> Any:
        function = self.functions.get(call.name)
        if function is None or function.body is None or any(call.orders):
            raise SymbackpropError(f"the function '{call}' has no formula")
        own = {p: {(): a} for p, a in zip(function.parameters, arguments, strict=True)}
        return _Machine(own, {}, self.functions.values(), {}).number(function.body, {})
