"""Scalar algebra that knows no rule of the calculus: operation counts, poles, fractions in functions, substitution.

SymPy's polynomial routines see elements and functions as plain symbols here; that keeps them fast and predictable.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import cast

import sympy
from sympy import Dummy, Expr, Symbol

from .notation import (
    Call,
    Element,
    Equation,
    Function,
    Term,
    calls_of,
    common_factors,
    element_order,
    elements_of,
    index,
    indices_of,
    is_index,
    is_moved,
    most_shared,
)


def unfold_calls(expr: Expr, functions: Mapping[str, Function]) -> Expr:
    """Write the formula of every function that has one in place of its name."""
    while True:
        swap: dict[Expr, Expr] = {}
        for call in calls_of(expr):
            function = functions.get(call.name)
            if function is not None and function.body is not None and not any(call.orders):
                arguments = dict(zip(map(Element, function.parameters), call.arguments, strict=True))
                swap[call] = cast(Expr, function.body.xreplace(arguments))
        if not swap or cost(expr) > 40 * _LARGEST:
            return expr
        expr = cast(Expr, expr.xreplace(swap))


def plain_names(*parts: Expr) -> tuple[dict[Expr, Expr], dict[Expr, Expr]]:
    """Names by position for all elements, and the way back: what differs in its names alone is worked out once."""
    elements = sorted({e for part in parts for e in elements_of(part)}, key=element_order)
    names: dict[Expr, Expr] = {e: Element(f"e{k:03d}") for k, e in enumerate(elements)}
    return names, {v: k for k, v in names.items()}


# ---------------------------------------------------------------------- cost


@functools.lru_cache(maxsize=65536)
def cost(expr: Expr) -> int:
    """How many operations an expression asks for; a function counts five, a division by something computed three."""
    if isinstance(expr, Element) or not expr.args:
        return 0
    if isinstance(expr, sympy.Add):
        return len(expr.args) - 1 + sum(map(cost, expr.args))
    if isinstance(expr, sympy.Mul):
        factors = [a for a in expr.args if a not in (1, -1)]
        return max(len(factors) - 1, 0) + sum(map(cost, factors))
    if isinstance(expr, sympy.Pow):
        base, exponent = expr.args
        if exponent == -1:
            return (3 if base.has(Element) else 0) + cost(base)
        if exponent.is_Integer:
            above = 1 if exponent == 2 or not base.has(Element) else 2
            return (above if exponent > 0 else 4 if base.has(Element) else 1) + cost(base)
        return 5 + cost(base) + cost(exponent)
    if isinstance(expr, sympy.Piecewise):
        return 2 + sum(cost(branch) + (0 if test == True else 1) for branch, test in expr.args)  # noqa: E712
    arguments = expr.arguments if isinstance(expr, Call) else expr.args
    return 5 + sum(map(cost, arguments))


def equation_cost(equation: Equation) -> int:
    """Operations of an equation, a sum counted as one, a factor that several terms share once."""
    terms = equation.terms
    together = most_shared(terms) if len(terms) > 1 else []
    shared = len(common_factors([terms[k] for k in together])) * (len(together) - 1) if together else 0
    return max(len(terms) - 1, 0) + sum(cost(t.body) + len(t.over) for t in terms) - shared


@functools.lru_cache(maxsize=65536)
def poles(expr: Expr) -> frozenset[Expr]:
    """What an expression divides by, apart from numbers and sizes."""
    found: set[Expr] = set()
    for power in expr.atoms(sympy.Pow):
        if power.exp.could_extract_minus_sign() and power.base.has(Element):
            # a factor's sign does not matter
            factors = sympy.Mul.make_args(power.base)
            found |= {cast(Expr, -f if f.could_extract_minus_sign() else f) for f in factors if f.has(Element)}
    return frozenset(found)


def is_product(expr: Expr) -> bool:
    """Whether an expression is a product of stored values alone."""
    factors = [f for f in sympy.Mul.make_args(expr) if not f.is_number]
    return len(factors) > 1 and all(isinstance(f, Element) for f in factors)


# ---------------------------------------------------------------------- rational functions of kernels

_FUNCTIONS = (sympy.Function, Call)


def kernels(expr: Expr) -> list[Expr]:
    """The outermost functions in an expression."""
    found: list[Expr] = []
    todo = [expr]
    while todo:
        node = todo.pop()
        if isinstance(node, _FUNCTIONS) and not isinstance(node, sympy.Piecewise):
            if node not in found:
                found.append(node)
        elif isinstance(node, sympy.Pow) and not node.exp.is_Integer:
            found.append(node)
        elif isinstance(node, (sympy.Add, sympy.Mul, sympy.Pow)):
            todo += node.args  # type: ignore[arg-type]
    return sorted(found, key=str)


# Polynomials beyond this many operations are left as they are: working them out could take minutes.
_LARGEST = 80


def _cancelled(expr: Expr) -> Expr:
    """`cancel`; where nothing but products is divided by, the same by bringing all terms under one product."""
    below = [p.base for p in expr.atoms(sympy.Pow) if p.exp.is_negative]
    if not all(isinstance(base, Symbol) for base in below):
        return sympy.cancel(expr)
    expanded = sympy.expand(expr)
    if not below:
        return expanded
    terms = [term.as_coeff_Mul() for term in sympy.Add.make_args(expanded)]
    powers = [rest.as_powers_dict() for _, rest in terms]
    product = sympy.Mul(*(s ** max(0, *(-p.get(s, 0) for p in powers)) for s in dict.fromkeys(below)))
    if product == 1:
        return expanded
    number = math.lcm(*(int(c.q) for c, _ in terms))
    return sympy.expand(expanded * product * number) / (number * product)


def _factored(expr: Expr) -> Expr:
    """`factor`, which takes its time for what cannot be split."""
    expr = _in_plain_symbols(expr, "cancel")
    above, below = sympy.fraction(expr)
    if _is_irreducible(above) and _is_irreducible(below):
        return sympy.factor_terms(expr)
    return _signed(sympy.factor(expr))


def _signed(product: Expr) -> Expr:
    """A product whose minus, if it has one, went into a difference."""
    coefficient, rest = product.as_coeff_Mul()
    if coefficient.is_negative:
        for factor in sympy.Mul.make_args(rest):
            if isinstance(factor, sympy.Add) and any(a.could_extract_minus_sign() for a in factor.args):
                return -coefficient * (rest / factor) * -factor
    return product


def _is_irreducible(polynomial: Expr) -> bool:
    """Whether a polynomial is a product of symbols and one other factor, as far as its values at one large place tell.

    p = a*v + b, where a and b do not hold v, is split by the factors that a and b have in common and by nothing else. With
    large primes for the symbols what a and b have in common is large as well, unless it is a product of symbols and numbers.
    """
    symbols = sorted(polynomial.free_symbols, key=str)
    if not symbols:
        return True
    at: dict[Expr, int] = dict(zip(symbols, _primes(len(symbols)), strict=True))
    for v in symbols:
        rest, first, far = (_value(polynomial, {**at, v: t}) for t in (0, 1, _FAR))
        if rest == 0 or far - rest != _FAR * (first - rest):
            continue  # a factor itself, or not linear
        whole = math.lcm(rest.denominator, first.denominator)
        common = math.gcd(int(rest * whole), int((first - rest) * whole))
        for prime in at.values():
            while common % prime == 0:
                common //= prime
        return common < _SMALL
    return all(_value(polynomial, {**at, v: 0}) == 0 for v in symbols)


# Places for symbols lie far apart, so that differences are large too; what two large numbers have in common by chance is small.
_FAR, _SMALL = 10**14 + 7, 10**10


@functools.cache
def _primes(count: int) -> list[int]:
    return [int(sympy.nextprime(7 ** (20 + k))) for k in range(count)]


def _value(expr: Expr, at: Mapping[Expr, int]) -> int | Fraction:
    """A polynomial's value at whole numbers."""
    if isinstance(expr, sympy.Rational):
        return Fraction(int(expr.p), int(expr.q)) if expr.q != 1 else int(expr.p)
    if isinstance(expr, sympy.Add):
        return sum((_value(cast(Expr, a), at) for a in expr.args), 0)
    if isinstance(expr, sympy.Mul):
        return math.prod(_value(cast(Expr, a), at) for a in expr.args)
    if isinstance(expr, sympy.Pow):
        return _value(expr.base, at) ** int(expr.exp)
    return at[expr]


_WAYS = {
    "cancel": _cancelled,
    "factor": _factored,
    "expand": sympy.expand,
    "terms": sympy.factor_terms,
    "together": sympy.together,
}


@functools.lru_cache(maxsize=16384)
def rationally(expr: Expr, how: str) -> Expr:
    """`cancel`, `factor`, `expand`, … with everything that is no sum, product or whole power held as a symbol."""
    names: dict[Expr, Symbol] = {}

    def hold(node: Expr) -> Expr:
        if node.is_Rational:
            return node
        if isinstance(node, (sympy.Add, sympy.Mul)):
            return node.func(*map(hold, node.args))
        if isinstance(node, sympy.Pow) and node.exp.is_Integer and abs(node.exp) <= 8:
            return sympy.Pow(hold(node.base), node.exp)
        if node not in names:
            names[node] = Symbol(f"v{len(names):02d}")
        return names[node]

    held = hold(expr)
    if len(names) > 12 or cost(held) > _LARGEST:
        return expr
    return _in_plain_symbols(held, how).xreplace({v: k for k, v in names.items()})


@functools.lru_cache(maxsize=16384)
def _in_plain_symbols(held: Expr, how: str) -> Expr:
    # Layers that differ in their names alone meet here and are worked out once.
    if not held.has(sympy.Add):
        return held
    return _WAYS[how](held)


@functools.lru_cache(maxsize=16384)
def clean(expr: Expr) -> Expr:
    """The cheapest of an expression, its common-denominator form and its factored form."""
    if not isinstance(expr, (sympy.Add, sympy.Mul, sympy.Pow)) or not 2 <= cost(expr) <= 4 * _LARGEST:
        return expr
    forms = [expr]
    try:
        cancelled = rationally(expr, "cancel")
        forms += [cancelled, rationally(cancelled, "terms"), rationally(expr, "factor")]
    except sympy.PolynomialError:
        return expr
    # The poles count first of all; among equals a product, then the earlier form.
    return min(forms, key=lambda f: (len(poles(f)), cost(f), isinstance(f, sympy.Add)))


def eliminate(expr: Expr, kernel: Expr, left: Expr, right: Expr) -> Iterator[Expr]:
    """`expr` without the function `kernel`, which is solved for in `left = right`; nothing where that is no fraction."""
    unknown = Dummy()
    if isinstance(kernel, sympy.exp):
        right = rationally(_in_powers_of(right, kernel, unknown), "cancel")
        plain = _in_powers_of(expr, kernel, unknown)
        cancelled = rationally(plain, "cancel")
        if right.has(kernel) or plain.has(kernel):
            return
        # exp(u) may occur in even powers only, as in the hyperbolic functions
        step = math.gcd(*(_exponents(right, unknown) | _exponents(cancelled, unknown) | {0}))
        forms = [plain, cancelled]
        if step > 1:
            right, forms = _take_root(right, unknown, step), [_take_root(cancelled, unknown, step)]
    else:
        right, forms = right.xreplace({kernel: unknown}), [expr.xreplace({kernel: unknown})]
    numerator, denominator = sympy.fraction(rationally(right, "together"))
    equation = rationally(left * denominator - numerator, "expand")
    linear, rest = equation.coeff(unknown, 1), equation.coeff(unknown, 0)
    remains = rationally(equation - linear * unknown - rest, "expand")
    if remains != 0 or linear == 0 or linear.has(unknown) or rest.has(unknown):
        return
    for form in forms:
        if form.has(unknown):
            yield form.xreplace({unknown: -rest / linear})


def _in_powers_of(expr: Expr, kernel: Expr, unknown: Expr) -> Expr:
    """`exp(c*u)` as a power of `exp(u)` wherever `c` is a whole number."""
    exponent = kernel.args[0]
    swap: dict[Expr, Expr] = {}
    for other in expr.atoms(sympy.exp):
        ratio = sympy.cancel(other.args[0] / exponent) if other != kernel else sympy.S.One
        if ratio.is_Integer and abs(ratio) <= 8:
            swap[other] = unknown**ratio
    return expr.xreplace(swap)


def _exponents(expr: Expr, unknown: Expr) -> set[int]:
    """The powers in which a symbol occurs."""
    powers = {p for p in expr.atoms(sympy.Pow) if p.base == unknown}
    bare = expr.xreplace({p: sympy.S.One for p in powers}).has(unknown)
    return {int(p.exp) for p in powers} | ({1} if bare else set())


def _take_root(expr: Expr, unknown: Expr, step: int) -> Expr:
    return expr.xreplace({p: unknown ** (p.exp / step) for p in expr.atoms(sympy.Pow) if p.base == unknown})


# ---------------------------------------------------------------------- equations


def split_term(term: Term) -> tuple[Term, ...]:
    """A term whose body is a product with a sum in it as several terms."""
    expanded = rationally(term.body, "expand")
    if not isinstance(expanded, sympy.Add):
        return (term,)
    return tuple(replace(term, body=cast(Expr, a)) for a in expanded.args)


def insert_equation(equation: Equation, definition: Equation) -> Equation | None:
    """The equation with an array replaced by its definition, or None where it is not a plain factor."""
    terms: list[Term] = []
    parts = [t for term in equation.terms for t in (split_term(term) if _is_inside_sum(term, definition.name) else (term,))]
    for term in parts:
        found = [e for e in elements_of(term.body) if e.name == definition.name]
        if not found:
            terms.append(term)
            continue
        if len(found) > 1 or term.reduce != "sum":
            return None
        factor = found[0] in sympy.Mul.make_args(term.body)
        rest = (term.body / found[0]) if factor else rationally(term.body / found[0], "cancel")
        if rest.has(found[0]) or any(t.reduce != "sum" for t in definition.terms):
            return None
        rename = dict(zip(definition.target.indices, found[0].indices, strict=True))
        moved = {i for i in found[0].indices if is_moved(i)}
        if any(not moved <= guards(cast(Expr, t.body.xreplace(rename))) for t in definition.terms):
            return None
        taken = set(equation.target.indices) | set(term.over)
        for part in definition.terms:
            own: dict[Expr, Expr] = dict(rename)
            kept = taken | {i for i in part.over if i not in taken}
            for i in part.over:
                fresh = i
                while fresh in taken or (fresh != i and fresh in kept):
                    fresh = index(fresh.name + "'")
                kept.add(fresh)
                own[i] = fresh
            body = cast(Expr, part.body.xreplace(own)) * rest
            terms.append(Term(body, (*term.over, *(cast(Symbol, own[i]) for i in part.over))))
    return replace(equation, terms=tuple(terms))


def _is_inside_sum(term: Term, name: str) -> bool:
    return any(name in {e.name for e in a.atoms(Element)} for a in term.body.atoms(sympy.Add))


def meet(pattern: Element, e: Element) -> dict[Expr, Expr] | None:
    """What the letters of a pattern must be for it to be the element, if it can be."""
    if e.name != pattern.name:
        return None
    rename: dict[Expr, Expr] = {}
    pairs = list(zip(pattern.indices, e.indices, strict=True))
    for own, given in pairs:
        if is_index(own) and rename.setdefault(own, given) != given:
            return None
    met = all(is_index(own) or own.xreplace(rename) == given for own, given in pairs)
    return rename if met else None


@functools.lru_cache(maxsize=16384)
def guards(body: Expr) -> frozenset[Expr]:
    """The moved indices of the arrays that are factors: beyond the ends of these the whole product is zero."""
    factors = sympy.Mul.make_args(body)
    return frozenset(i for f in factors if isinstance(f, Element) for i in f.indices if is_moved(i))


def span(equation: Equation) -> int:
    """The most letters that anything computed element by element has: the rank of the largest array on the way."""
    largest = len(equation.target.indices)
    for term in equation.terms:
        inside = sympy.Mul(*(f for f in sympy.Mul.make_args(term.body) if indices_of(cast(Expr, f)) & set(term.over)))
        largest = max([largest, *(len(indices_of(g)) for g in group_factors(cast(Expr, inside)))])
    return largest


def join_exponentials(expr: Expr) -> Expr:
    """`exp(a)*exp(b)` as `exp(a + b)`, everywhere."""
    if not expr.args or isinstance(expr, Element):
        return expr
    arguments = [join_exponentials(a) if isinstance(a, Expr) else a for a in expr.args]
    if isinstance(expr, sympy.Mul):
        powers = [a for a in arguments if isinstance(a, sympy.exp)]
        if len(powers) > 1:
            rest = [a for a in arguments if not isinstance(a, sympy.exp)]
            return cast(Expr, sympy.Mul(*rest, sympy.exp(sympy.Add(*(a.args[0] for a in powers)))))
    return cast(Expr, expr.func(*arguments))


def group_factors(body: Expr) -> list[Expr]:
    """The factors of a product, multiplied together where the indices of one contain those of another."""
    groups: list[tuple[frozenset[Symbol], list[Expr]]] = []
    for factor in sorted(sympy.Mul.make_args(body), key=lambda f: (-len(indices_of(f)), str(f))):
        own = indices_of(factor)
        for indices, factors in groups:
            if own <= indices:
                factors.append(factor)
                break
        else:
            groups.append((own, [factor]))
    return [sympy.Mul(*factors) for _, factors in groups]
