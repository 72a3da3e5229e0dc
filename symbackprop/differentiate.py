"""The chain rule in index notation: forward equations to backward equations, one step recorded for each use.

For every element `a[..]` used in a term of `y[..]`,

    da[..] += sum over the indices of the term that are not in a of dy[..] * ∂body/∂a

where `∂body/∂a` is SymPy's derivative of a scalar expression in which the element is an independent symbol, and
"the element at the indices I want" is found by renaming the term's indices.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, cast

import sympy
from sympy import Dummy, Expr, Symbol

from .algebra import cost
from .errors import NetworkError, suggest
from .notation import Call, Element, Equation, Function, Network, Step, Term, base_name, elements_of, index, indices_of

_LARGEST = 2000  # operations in what a function is applied to
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
    needed = _depends_on(network, wrt) & _leads_to_loss(network)
    adjoints = name_adjoints(network, needed | set(wrt))
    tainted = _depends_on(network, [a.name for a in network.arrays if a.role == "target"])
    parameters = {a.name for a in network.arrays if a.role == "parameter"}
    functions = {f.name: f for f in network.functions}
    collected: dict[str, list[Term]] = {name: [] for name in needed | set(wrt)}
    used = [e for e in network.equations if e.name in needed]
    last_use = {a: e.name for e in reversed(used) for t in e.terms for a in _names(t) if a in needed}
    equations: list[Equation] = []
    steps: list[Step] = []

    def close(name: str) -> None:
        target = Element(adjoints[name], *(index(i) for i in axes[name]))
        equations.append(Equation(target, tuple(collected[name])))

    for equation in reversed(used):
        seed = sympy.S.One
        if equation.name != network.loss:
            seed = Element(adjoints[equation.name], *equation.target.indices)
        for term in equation.terms:
            for element in elements_of(term.body):
                if element.name not in needed:
                    continue
                if term.reduce != "sum":
                    raise NetworkError(f"'{term.reduce}' in the equation of '{equation.name}' cannot be differentiated")
                before = partial(term.body, element)
                local = resolve(before, functions)
                kind = _kind(equation, term, element, before, network, tainted, parameters)
                rename = _solve(equation, term, element, axes[element.name])
                contribution = _contribution(seed * local, equation, term, rename, axes[element.name])
                adjoint = Element(adjoints[element.name], *(index(i) for i in axes[element.name]))
                steps.append(Step(equation.target, element, kind, before, local, contribution, adjoint))
                collected[element.name].append(contribution)
        for name, where in last_use.items():
            if where == equation.name and (name in wrt or name != network.loss):
                close(name)
    for name in wrt:
        if name not in last_use and name != network.loss:
            close(name)
    return tuple(equations), tuple(steps), adjoints


def _names(term: Term) -> Iterable[str]:
    return (e.name for e in elements_of(term.body))


def _depends_on(network: Network, roots: Iterable[str]) -> set[str]:
    """The arrays among `roots` and everything computed from them."""
    found = set(roots)
    for equation in network.equations:
        if any(name in found for t in equation.terms for name in _names(t)):
            found.add(equation.name)
    return found


def _leads_to_loss(network: Network) -> set[str]:
    """The arrays that the loss is computed from, and the loss."""
    found = {network.loss}
    for equation in reversed(network.equations):
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


@functools.lru_cache(maxsize=4096)
def partial(body: Expr, element: Element) -> Expr:
    """∂body/∂element, all other elements held fixed."""
    variable = Dummy(real=True)
    # Step functions are constant wherever they have a derivative.
    held: dict[Expr, Expr] = {f: Dummy(real=True) for f in body.atoms(sympy.sign, sympy.floor) if f.has(element)}
    derivative: Expr = body.xreplace(held).xreplace({element: variable}).diff(variable)
    return derivative.xreplace({variable: element}).xreplace({v: k for k, v in held.items()})


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


def _solve(equation: Equation, term: Term, element: Element, axes: tuple[str, ...]) -> dict[Symbol, Symbol]:
    """The renaming of the term's indices that makes `element` the element at `axes`."""
    if len(set(element.indices)) < len(element.indices):
        raise NetworkError(
            f"in the equation of '{equation.name}': '{element.name}' has the same index twice, which cannot be solved yet"
        )
    wanted = dict(zip(element.indices, map(index, axes), strict=True))
    taken = set(wanted.values())
    for other in (*equation.target.indices, *term.over):
        if other in wanted:
            continue
        name = base_name(other.name)
        while index(name) in taken:
            name += "'"
        wanted[other] = index(name)
        taken.add(index(name))
    return {old: new for old, new in wanted.items() if old != new}


def _contribution(body: Expr, equation: Equation, term: Term, rename: Mapping[Symbol, Symbol], axes: tuple[str, ...]) -> Term:
    free = set(map(index, axes))
    body = cast(Expr, body.xreplace(dict(rename)))
    over = (rename.get(i, i) for i in (*equation.target.indices, *term.over))
    summed = tuple(i for i in dict.fromkeys(over) if i not in free)
    # What the body lacks is summed all the same: "times its size"; a visible rule of `simplify` says so.
    assert indices_of(body) <= free | set(summed)
    return Term(body, summed)
