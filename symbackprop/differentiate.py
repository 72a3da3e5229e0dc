"""The chain rule in index notation: forward equations to backward equations, one step recorded for each use.

For every element `a[..]` used in a term of `y[..]`,

    da[..] += sum over the indices of the term that are not in a of dy[..] * ∂body/∂a

where `∂body/∂a` is SymPy's derivative of a scalar expression in which the element is an independent symbol, and
"the element at the indices I want" is found by solving for the term's indices (`solve`). The greatest of several values
passes its derivative on to the first place that attains it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, cast

import sympy
from sympy import Dummy, Expr, Symbol

from .algebra import cost, plain_names, unfold_calls
from .errors import NetworkError, suggest
from .notation import (
    Beyond,
    Call,
    Element,
    Equation,
    Function,
    Network,
    Step,
    Term,
    base_name,
    direction,
    elements_of,
    groups_of,
    index,
    indices_of,
    is_index,
    is_recurrence,
    size_symbol,
    unwrapped,
    within_step,
    without,
)
from .solve import bounds, solve

_LARGEST = 2000  # operations in what a function is applied to
_ABS = Symbol("@abs")
_MOST_FACTORS = 120  # of a product: its derivative holds their square
Kind = Literal["loss", "activation", "weight", "signal", "penalty", "one", "other"]


def differentiate(network: Network, wrt: Sequence[str] = ()) -> tuple[tuple[Equation, ...], tuple[Step, ...], dict[str, str]]:
    """The derivatives of the loss with respect to `wrt` (all parameters by default) and all arrays on the way.

    Returns the equations in reverse order of computation, the steps, and the names of the adjoints. Raises
    `NetworkError` for a name that is no array of the network.
    """
    axes = {a.name: a.axes for a in network.arrays}
    wrt = tuple(wrt) or tuple(a.name for a in network.arrays if a.role == "parameter")
    for name in wrt:
        if name not in axes:
            raise NetworkError(f"there is no array '{name}' to differentiate with respect to{suggest(name, axes)}")
    needed = _depends_on(network, wrt) & read_for(network.equations, {network.loss})
    adjoints = name_adjoints(network, needed | set(wrt))
    tainted = _depends_on(network, [a.name for a in network.arrays if a.role == "target"])
    parameters = {a.name for a in network.arrays if a.role == "parameter"}
    functions = {f.name: f for f in network.functions}
    collected: dict[str, list[Term]] = {name: [] for name in needed | set(wrt)}
    used = [e for e in network.equations if e.name in needed]
    last_use = {a: e.name for e in reversed(used) for t in e.terms for a in _names(t) if a in needed}
    equations: list[Equation] = []
    winners: dict[tuple[str, int], Equation] = {}
    steps: list[Step] = []
    solving = _Solving(network)

    def close(name: str) -> None:
        target = Element(adjoints[name], *(index(i) for i in axes[name]))
        equations.append(Equation(target, tuple(collected[name])))

    for equation in reversed(used):
        seed = sympy.S.One
        if equation.name != network.loss:
            seed = Element(adjoints[equation.name], *equation.target.indices)
        for number, term in enumerate(equation.terms):
            for element in elements_of(term.body):
                if element.name not in needed:
                    continue
                if term.reduce == "argmax":
                    continue  # a place does not change with the values
                before = partial(term.body, element)
                if before == 0:
                    continue
                if term.reduce == "max":
                    if (equation.name, number) not in winners:
                        winners[equation.name, number] = _winner(equation, number, {*axes, *adjoints.values()})
                    winner = winners[equation.name, number]
                    before = before * _indicator(sympy.Eq(winner.target, solving.position(term.over)))
                local = resolve(before, functions)
                kind = _kind(equation, term, element, before, network, tainted, parameters)
                contribution = solving.contribution(seed * local, equation, term, element, axes[element.name])
                adjoint = Element(adjoints[element.name], *(index(i) for i in axes[element.name]))
                steps.append(Step(equation.target, element, kind, before, local, contribution, adjoint))
                collected[element.name].append(contribution)
        for name, where in last_use.items():
            if where == equation.name and (name in wrt or name != network.loss):
                close(name)
    for name in wrt:
        if name not in last_use and name != network.loss:
            close(name)
    return tuple(_in_order([*winners.values(), *equations])), tuple(steps), adjoints


def _in_order(equations: Sequence[Equation]) -> list[Equation]:
    """Recurrences together, each in the order of one step."""
    ordered: list[Equation] = []
    for group in groups_of(equations):
        ordered += within_step(group, direction(group)[0]) if is_recurrence(group) else group
    return ordered


def _winner(equation: Equation, number: int, taken: Iterable[str]) -> Equation:
    """Which place attained the greatest value, the first of equals."""
    term, name = equation.terms[number], f"place_{equation.name}{number or ''}"
    while name in taken:
        name += "_"
    return Equation(Element(name, *equation.target.indices), (Term(term.body, term.over, "argmax"),))


def _indicator(condition: object) -> Expr:
    """1 where a condition holds, 0 elsewhere."""
    return sympy.Piecewise((1, condition), (0, True))


def _names(term: Term) -> Iterable[str]:
    return (e.name for e in elements_of(term.body))


def _depends_on(network: Network, roots: Iterable[str]) -> set[str]:
    """The arrays among `roots` and everything computed from them."""
    found, before = set(roots), -1
    while len(found) > before:  # once more for every recurrence
        before = len(found)
        for equation in network.equations:
            if any(name in found for t in equation.terms for name in _names(t)):
                found.add(equation.name)
    return found


def read_for(equations: Sequence[Equation], roots: Iterable[str]) -> set[str]:
    """The arrays that `roots` are computed from, and these."""
    found, before = set(roots), -1
    while len(found) > before:  # once more for every recurrence
        before = len(found)
        for equation in reversed(equations):
            if equation.name in found:
                found |= {name for t in equation.terms for name in _names(t)}
    return found


def name_adjoints(network: Network, names: Iterable[str]) -> dict[str, str]:
    """`dz1` for `z1`, or the next free name."""
    taken = {a.name for a in network.arrays}
    result: dict[str, str] = {}
    for name in sorted(names):
        adjoint = f"d{name}"
        while adjoint in taken:
            adjoint = "d" + adjoint
        taken.add(adjoint)
        result[name] = adjoint
    return result


def partial(body: Expr, element: Element) -> Expr:
    """∂body/∂element, all other elements held fixed."""
    if isinstance(body, sympy.Mul) and len(body.args) > _MOST_FACTORS:
        raise NetworkError(f"the derivative of a product of {len(body.args)} factors grows too large; give parts of it names")
    names, back = plain_names(body, element)
    return cast(Expr, _partial(cast(Expr, body.xreplace(names)), names[element]).xreplace(back))


@functools.lru_cache(maxsize=4096)
def _partial(body: Expr, element: Expr) -> Expr:
    variable = Dummy(real=True)
    # Step functions are constant wherever they have a derivative, and `stop` says that its value counts as constant.
    steps = (f for f in body.atoms(sympy.sign, sympy.floor, sympy.Mod, Call) if not isinstance(f, Call) or f.name == "stop")
    held: dict[Expr, Expr] = {f: Dummy(real=True) for f in steps if f.has(element)}
    plain = _without_abs((body.xreplace(held) if held else body).xreplace({element: variable}))
    derivative = _with_abs(plain.diff(variable)).xreplace({variable: element})
    return derivative.xreplace({v: k for k, v in held.items()}) if held else derivative


def _without_abs(body: Expr) -> Expr:
    """Absolute values of what SymPy does not know to be real, a logarithm say, as a function of its own.

    SymPy would differentiate their real and imaginary parts; here all is real.
    """
    if all(f.args[0].is_extended_real for f in body.atoms(sympy.Abs)):
        return body
    return body.replace(sympy.Abs, lambda u: Call(_ABS, (0,), u))


def _with_abs(derivative: Expr) -> Expr:
    """Absolute values and their derivative, which SymPy gives for a real number, in place of that function."""
    if not derivative.has(_ABS):
        return derivative
    real = Dummy(real=True)

    def written(call: Call) -> Expr:
        value = sympy.Abs(real)
        return cast(Expr, (value.diff(real) if any(call.orders) else value).xreplace({real: call.arguments[0]}))

    return derivative.replace(lambda e: isinstance(e, Call) and e.args[0] == _ABS, written)


def resolve(expr: Expr, functions: Mapping[str, Function]) -> Expr:
    """Write the derivative of each function that has a formula in place of its primes; abstract ones stay."""
    swap: dict[Expr, Expr] = {}
    for call in expr.atoms(Call):
        function = functions.get(call.name)
        if any(call.orders) and function is not None and function.body is not None:
            if cost(call) > _LARGEST:
                raise NetworkError(f"the derivative of '{call.name}' grows too large here; give what it is applied to a name")
            swap[call] = derivative_of(function, call.orders, functions_key(functions)).xreplace(
                dict(zip(map(Element, function.parameters), call.arguments, strict=True))
            )
    return cast(Expr, expr.xreplace(swap)) if swap else expr


def functions_key(functions: Mapping[str, Function]) -> tuple[Function, ...]:
    """The functions as something hashable."""
    return tuple(functions.values())


@functools.lru_cache(maxsize=512)
def derivative_of(function: Function, orders: tuple[int, ...], functions: tuple[Function, ...]) -> Expr:
    """The derivative of a function's formula, with the functions inside it resolved as well."""
    assert function.body is not None
    body = function.body
    for parameter, order in zip(function.parameters, orders, strict=True):
        for _ in range(order):
            body = resolve(partial(body, Element(parameter)), {f.name: f for f in functions})
    return body


def resolved(equations: Sequence[Equation], functions: Mapping[str, Function]) -> list[Equation]:
    """The equations with all functions and all their primes replaced by formulas; a constant left out counts as zero."""

    def plain(body: Expr) -> Expr:
        padded: dict[Expr, Expr] = {}
        for c in body.atoms(Call):
            missing = len(functions[c.name].parameters) - len(c.arguments)
            if missing > 0:
                padded[c] = Call(c.args[0], (*c.orders, *([0] * missing)), *c.arguments, *([sympy.S.Zero] * missing))
        return unfold_calls(resolve(cast(Expr, body.xreplace(padded)), functions), functions)

    return [replace(e, terms=tuple(replace(t, body=plain(t.body)) for t in e.terms)) for e in equations]


def _kind(
    equation: Equation,
    term: Term,
    element: Element,
    local: Expr,
    network: Network,
    tainted: set[str],
    parameters: set[str],
) -> Kind:
    """Which derivative this is, read off the equation itself."""
    if equation.name in tainted:
        uses_target = any(name in tainted for t in equation.terms for name in _names(t))
        own = equation.name == network.loss and not any(n in tainted for n in _names(term)) and element.name in parameters
        return "penalty" if own and uses_target else "loss"
    if local.has(element) or local.atoms(Call):
        return "activation" if element.indices or term.body.has(sympy.Function, Call) else "other"
    if not local.atoms(Element):
        return "one"
    names = {e.name for e in local.atoms(Element)}
    if element.name in parameters:
        return "other" if names <= parameters else "signal"
    return "weight" if names <= parameters else "other"


class _Solving:
    """Finds, for an element in a term, the indices at which it is the one wanted."""

    def __init__(self, network: Network) -> None:
        self._sizes = {i.name: size_symbol(i.size) for i in network.indices}
        self._numbers: dict[Expr, Expr] = {
            size_symbol(i.size): sympy.Integer(i.number) for i in network.indices if i.number is not None
        }

    def size(self, letter: Symbol) -> Expr:
        """The size of a letter."""
        return self._sizes[base_name(letter.name)]

    def position(self, over: Sequence[Symbol]) -> Expr:
        """The number of a place, counted through the letters with the last one fastest."""
        number: Expr = sympy.S.Zero
        for i in over:
            number = number * self.size(i) + i
        return number

    def contribution(self, body: Expr, equation: Equation, term: Term, element: Element, axes: tuple[str, ...]) -> Term:
        """What one use of an element adds to its derivative: `body` at the indices where it is the element at `axes`."""
        free = [index(a) for a in axes]
        own = tuple(dict.fromkeys((*equation.target.letters, *term.over)))
        # The term's letters step aside, so that none is taken for an axis of the result.
        aside = {i: sympy.Dummy(i.name, integer=True, nonnegative=True) for i in own}
        home: dict[Symbol, Symbol] = {d: i for i, d in aside.items()}
        wanted = [(a, cast(Expr, i.xreplace(aside))) for a, i in zip(free, element.indices, strict=True)]
        targets = [aside[i] for i in equation.target.letters]
        solution = solve(
            wanted,
            targets,
            [aside[i] for i in own if aside[i] not in targets],
            lambda i: self.size(home.get(i, i)),
            self._numbers,
        )
        rest = [d for d in aside.values() if d not in solution.letters]
        back, taken = dict[Expr, Expr](), set(free)
        for d in rest:
            name = base_name(home[d].name)
            while index(name) in taken:
                name += "'"
            back[d] = index(name)
            taken.add(index(name))
        rename = {i: cast(Expr, solution.put(d).xreplace(back)) for i, d in aside.items()}
        tests = [solution.put(c).xreplace(back) for c in solution.conditions]
        moved = {i: v for i, v in rename.items() if not is_index(v)}
        if moved:
            factors = [f for f in sympy.Mul.make_args(body) if isinstance(f, Element)]
            ends = {i: self.size(i) for v in moved.values() for i in indices_of(v)}
            for i, value in moved.items():
                # An array that ends with the letter's range is zero beyond it; where none does, it must be said.
                if not any(i in f.indices for f in factors):
                    tests += bounds(unwrapped(value), ends, self.size(i))
        if changed := {i: v for i, v in rename.items() if i != v}:
            body = cast(Expr, body.xreplace(changed))
            body = _as_values(body) if any(isinstance(v, Beyond) for v in changed.values()) else body
        body = body * sympy.Mul(*map(_indicator, tests)) if tests else body
        # What the body lacks is summed all the same: "times its size"; a visible rule of `simplify` says so.
        result = _at_one_place(Term(body, tuple(cast(Symbol, back[d]) for d in rest)))
        assert indices_of(result.body) <= set(free) | set(result.over), (result, free)
        return result


def _as_values(expr: Expr) -> Expr:
    """A letter as a value carries no mark: only as an index of an element does it count beyond an axis."""
    if isinstance(expr, Element) or not expr.has(Beyond):
        return expr
    if isinstance(expr, Beyond):
        return cast(Expr, expr.args[0])
    return cast(Expr, expr.func(*map(_as_values, expr.args)))


def _at_one_place(term: Term) -> Term:
    """A sum over a letter that only one value of it reaches, `[t = 0]`, is what is summed at that value."""
    for factor in sympy.Mul.make_args(term.body):
        test = factor.args[0].args[1] if isinstance(factor, sympy.Piecewise) and factor.args[0].args[0] == 1 else None
        if isinstance(test, sympy.Eq) and [b.args[0] for b in factor.args] == [1, 0]:
            letter, value = test.args if is_index(test.args[0]) else reversed(test.args)
            plain = value.is_Integer or (not indices_of(value) and not value.atoms(Element))
            if letter in term.over and plain:
                body = cast(Expr, without(term.body, (factor,)).xreplace({letter: value}))
                return _at_one_place(Term(body, tuple(i for i in term.over if i != letter), term.reduce))
    return term
