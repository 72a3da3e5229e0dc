"""Equations that hold in floating point: the same values, rewritten so that nothing overflows on the way.

    log(a[n,k])  with  a = exp(z)/S          becomes   z[n,k] - log(S[n])
    S[n] = sum(k, exp(z[n,k]))               becomes   S[n] = sum(k, exp(z[n,k] - m[n])), m[n] = max(k, z[n,k])
    exp(z)/(1 + exp(z))                      becomes   where(z >= 0, 1, t)/(1 + t) with t = exp(-abs(z))
    log(1 + exp(z))                          becomes   max(z, 0) + log(1 + exp(-abs(z)))

1/(1 + exp(-z)) stays as it is: where the exponential overflows, one over it is the zero that it should be (`saturates`).

Every rule is about forms, none about a layer or a loss: a sigmoid that somebody spelled out is treated like a named one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import sympy
from sympy import Dummy, Expr

from .algebra import insert_equation, join_exponentials, poles, rationally, unfold_calls
from .notation import Call, Element, Equation, Function, Term, elements_of, index, indices_of


def stabilise(equations: Sequence[Equation], functions: Mapping[str, Function], taken: Iterable[str]) -> tuple[Equation, ...]:
    """All equations of a computation, in order, rewritten; new arrays get names that are not `taken`."""
    definitions = {e.name: e for e in equations if len(e.terms) == 1 and not e.terms[0].over}
    result = [_logs_of_stored(_going_on(e), definitions, functions) for e in equations]
    result = _join_sums(_cancel_poles(result))
    result, shifted = _shift_exponentials(result, set(taken))
    return tuple(
        replace(e, terms=tuple(replace(t, body=stable(t.body, shifted)) for t in e.terms)) if _unsafe(e) else e for e in result
    )


def stable_function(function: Function) -> Function:
    """A function whose formula holds in floating point."""
    return function if function.body is None else replace(function, body=stable(function.body))


def _unsafe(equation: Equation) -> bool:
    return any(t.body.has(sympy.exp, sympy.cosh, sympy.log) for t in equation.terms)


def _going_on(equation: Equation) -> Equation:
    """`stop(u)` is `u` where values are computed."""
    terms: list[Term] = []
    for t in equation.terms:
        stops = {c: c.arguments[0] for c in t.body.atoms(Call) if c.name == "stop"}
        terms.append(replace(t, body=cast(Expr, t.body.xreplace(dict(stops)))) if stops else t)
    return replace(equation, terms=tuple(terms))


# ---------------------------------------------------------------------- logarithms of stored values


def _logs_of_stored(equation: Equation, definitions: Mapping[str, Equation], functions: Mapping[str, Function]) -> Equation:
    """The logarithm of a probability as a difference of what the probability was computed from."""
    if not any(t.body.has(sympy.log) for t in equation.terms):
        return equation
    terms: list[Term] = []
    for term in equation.terms:
        swap: dict[Expr, Expr] = {}
        for log in term.body.atoms(sympy.log):
            argument = unfolded = cast(Expr, log.args[0])
            if argument.atoms(sympy.Function, Call):
                continue
            for e in elements_of(argument):
                if e.name in definitions and e.name != equation.name:
                    d = definitions[e.name]
                    body = cast(Expr, d.terms[0].body.xreplace(dict(zip(d.target.indices, e.indices, strict=True))))
                    unfolded = unfolded.xreplace({e: body})
            unfolded = unfold_calls(unfolded, functions)
            if _is_own_softplus(functions):
                continue
            if unfolded != argument and unfolded.has(sympy.exp) and not unfolded.has(sympy.Piecewise):
                split = _log_of(unfolded)
                # Better only if no logarithm is left of something that may underflow.
                if not any(rest.has(sympy.exp) for rest in split.atoms(sympy.log)):
                    swap[log] = split
        terms.append(replace(term, body=cast(Expr, term.body.xreplace(swap))))
    return replace(equation, terms=tuple(terms))


def _is_own_softplus(functions: Mapping[str, Function]) -> bool:
    """Whether softplus, which `_log_of` writes, is something else in this network."""
    body = functions["softplus"].body if "softplus" in functions else None
    return body is None or body != sympy.log(1 + sympy.exp(Element(functions["softplus"].parameters[0])))


def _log_of(expr: Expr) -> Expr:
    """The logarithm of a product or quotient as a sum of logarithms."""
    above, below = cast("tuple[Expr, Expr]", sympy.fraction(rationally(expr, "together")))
    result: Expr = sympy.S.Zero
    for sign, part in ((1, above), (-1, below)):
        for factor in sympy.Mul.make_args(rationally(part, "factor")):
            base, exponent = cast("tuple[Expr, Expr]", factor.as_base_exp()) if isinstance(factor, sympy.Pow) else (factor, 1)
            if isinstance(base, sympy.exp):
                result += sign * exponent * base.args[0]
            elif (pair := _two_exponentials(cast(Expr, base))) is not None:
                u, v = pair
                result += sign * exponent * (v + Call("softplus", (0,), (u - v)))
            else:
                result += sign * exponent * sympy.log(base)
    return result


def _two_exponentials(expr: Expr) -> tuple[Expr, Expr] | None:
    """`exp(u) + exp(v)` as (u, v), a one counting as `exp(0)`."""
    if not isinstance(expr, sympy.Add) or len(expr.args) != 2:
        return None
    found: list[Expr] = []
    for a in expr.args:
        if a == 1:
            found.append(sympy.S.Zero)
        elif isinstance(a, sympy.exp):
            found.append(cast(Expr, a.args[0]))
        else:
            return None
    return (found[1], found[0]) if found[0] == 0 else (found[0], found[1])


# ---------------------------------------------------------------------- divisions that cancel


def _cancel_poles(equations: Sequence[Equation]) -> list[Equation]:
    """Put an equation that divides by a stored value into those where the division cancels (`da/a*a`)."""
    done: dict[str, Equation] = {}
    for equation in equations:
        current = equation
        for name in {e.name for t in equation.terms for e in t.body.atoms(Element)}:
            if name in done and (bad := _equation_poles(done[name])):
                merged = insert_equation(current, done[name])
                if merged is None:
                    continue
                multiplied = replace(merged, terms=tuple(replace(t, body=rationally(t.body, "cancel")) for t in merged.terms))
                for form in (merged, multiplied):
                    if not _equation_poles(form) & bad and not _equation_poles(form) - _equation_poles(current):
                        current = form
                        break
        done[equation.name] = current
    return list(done.values())


def _equation_poles(equation: Equation) -> set[Expr]:
    """The stored values that an equation divides by, sums of positive things apart."""
    found: set[Expr] = set()
    for t in equation.terms:
        found |= {p for p in poles(t.body) if isinstance(p, Element) or (isinstance(p, sympy.Add) and not p.has(sympy.Abs))}
    return found


# ---------------------------------------------------------------------- sums of exponentials


def _join_sums(equations: Sequence[Equation]) -> list[Equation]:
    """A division by a sum of exponentials is put where the exponentials are: apart, neither can be kept in range."""
    sums = {e.name for e in equations if len(e.terms) == 1 and e.terms[0].over and isinstance(e.terms[0].body, sympy.exp)}
    done: dict[str, Equation] = {}
    for equation in equations:
        current = equation
        for name in {e.name for t in equation.terms for e in t.body.atoms(Element)}:
            divides = name in done and any(
                isinstance(p, Element) and p.name in sums
                for t in done[name].terms
                for p in poles(t.body)
                if not t.body.has(sympy.exp)
            )
            if divides and any(t.body.has(sympy.exp) for t in current.terms):
                current = insert_equation(current, done[name]) or current
        done[equation.name] = current
    return list(done.values())


@dataclass(frozen=True)
class _Shift:
    """`sum` stands for itself times `exp(maximum)`; `argument` is `shifted + maximum`."""

    sum: Element
    argument: Expr
    maximum: Element
    shifted: Element

    def at(self, e: Element) -> _Shift:
        """The same for another element of the sum, with its own indices."""
        rename = dict(zip(self.sum.indices, e.indices, strict=True))
        return _Shift(*(part.xreplace(rename) for part in (self.sum, self.argument, self.maximum, self.shifted)))


def _shift_exponentials(equations: Sequence[Equation], taken: set[str]) -> tuple[list[Equation], frozenset[str]]:
    """Take the maximum out of every sum of exponentials; also the names of the arrays that are never positive then."""
    shifts: dict[str, _Shift] = {}
    result: list[Equation] = []
    for equation in equations:
        current = replace(equation, terms=tuple(replace(t, body=_with_shift(t.body, shifts)) for t in equation.terms))
        term = current.terms[0] if len(current.terms) == 1 else None
        is_sum = term is not None and bool(term.over) and term.reduce == "sum"
        if term is not None and is_sum and isinstance(term.body, sympy.exp) and elements_of(term.body):
            argument = cast(Expr, term.body.args[0])
            maximum = Element(_fresh("m", equation.name, taken), *equation.target.indices)
            axes = [*equation.target.indices, *(i for i in term.over if i in indices_of(argument))]
            shifted = Element(_fresh("s", equation.name, taken), *axes)
            shifts[equation.name] = _Shift(equation.target, argument, maximum, shifted)
            result.append(Equation(maximum, (Term(argument, term.over, "max"),)))
            result.append(Equation(shifted, (Term(argument - maximum),)))
            current = replace(equation, terms=(replace(term, body=sympy.exp(shifted)),))
        result.append(current)
    return result, frozenset(s.shifted.name for s in shifts.values())


def _fresh(stem: str, beside: str, taken: set[str]) -> str:
    """`m2` beside `S2`, or the next free name."""
    name = stem + beside[1:] if beside.startswith("S") else f"{stem}_{beside}"
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _with_shift(body: Expr, shifts: Mapping[str, _Shift]) -> Expr:
    for e in elements_of(body):
        if e.name in shifts:
            here = shifts[e.name].at(e)
            # The logarithm first: its argument must not be rewritten on its own.
            body = cast(Expr, body.xreplace({sympy.log(e): sympy.log(e) + here.maximum, e: e * sympy.exp(here.maximum)}))
            for letters in _summed_letters(here, body):
                body = cast(Expr, body.subs(letters.argument, letters.shifted + letters.maximum))
            body = join_exponentials(body)
    return body


def _summed_letters(shift: _Shift, body: Expr) -> list[_Shift]:
    """The shift with its summed letter as it occurs in the body (`k` and `k'` may both)."""
    anchor = max(elements_of(shift.argument), key=lambda e: len(e.indices))
    found: list[_Shift] = []
    for e in elements_of(body):
        if e.name == anchor.name:
            rename = dict(zip(anchor.indices, e.indices, strict=True))
            if all(rename.get(i, i) == i for i in shift.sum.indices):
                found.append(replace(shift, argument=shift.argument.xreplace(rename), shifted=shift.shifted.xreplace(rename)))
    return found


# ---------------------------------------------------------------------- one expression


def stable(expr: Expr, shifted: frozenset[str] = frozenset()) -> Expr:
    """The forms above in one scalar expression; `shifted` are arrays that are never positive."""
    if isinstance(expr, sympy.Piecewise):
        return _guarded(expr, shifted)
    if isinstance(expr, sympy.log):
        return _stable_log(expr, shifted)
    if isinstance(expr, (sympy.Add, sympy.Mul, sympy.Pow)) and (split := _split_by_sign(expr, shifted)) is not None:
        return split
    if isinstance(expr, Element) or not expr.args:
        return expr
    if isinstance(expr, Call):
        return Call(expr.args[0], expr.orders, *(stable(a, shifted) for a in expr.arguments))  # type: ignore[arg-type]
    return cast(Expr, expr.func(*(stable(a, shifted) if isinstance(a, Expr) else a for a in expr.args)))


def _stable_log(log: Expr, shifted: frozenset[str]) -> Expr:
    argument = cast(Expr, log.args[0])
    if isinstance(argument, sympy.cosh):
        u = cast(Expr, argument.args[0])
        return sympy.Abs(u) + sympy.log(1 + sympy.exp(-2 * sympy.Abs(u))) - sympy.log(2)
    pair = _two_exponentials(argument)
    if pair is None:
        return cast(Expr, sympy.log(stable(argument, shifted)))
    u, v = pair
    gap = u - v
    return v + sympy.Piecewise((gap, gap > 0), (0, True)) + sympy.log(1 + sympy.exp(-sympy.Abs(gap)))


def _split_by_sign(expr: Expr, shifted: frozenset[str]) -> Expr | None:
    """A fraction in `exp(u)` by the sign of `u`, in `t = exp(-|u|)`, which never overflows."""
    exponentials = [e for e in expr.atoms(sympy.exp) if not _bounded(e, shifted)]
    above, below = cast("tuple[Expr, Expr]", sympy.fraction(rationally(expr, "together")))
    if len(exponentials) != 1 or not below.has(sympy.exp) or expr.has(sympy.Piecewise):
        return None
    if not above.has(sympy.exp) and saturates(1 / below):
        return None
    u = cast(Expr, exponentials[0].args[0])
    if u.could_extract_minus_sign():
        u = -u
    t = Dummy(positive=True)
    for_positive = rationally(cast(Expr, expr.xreplace({sympy.exp(u): 1 / t, sympy.exp(-u): t})), "cancel")
    for_negative = rationally(cast(Expr, expr.xreplace({sympy.exp(u): t, sympy.exp(-u): 1 / t})), "cancel")
    if for_positive.has(sympy.exp) or for_negative.has(sympy.exp):
        return None
    (p, q), (r, s) = sympy.fraction(for_positive), sympy.fraction(for_negative)
    small = {t: sympy.exp(-sympy.Abs(u))}
    if sympy.expand(q - s) == 0:
        result = sympy.Piecewise((p, u >= 0), (r, True)) / q
    else:
        result = sympy.Piecewise((p / q, u >= 0), (r / s, True))
    return cast(Expr, result.xreplace(small))


def saturates(expr: Expr) -> bool:
    """Whether an expression divides by sums such as `1 + exp(u)`, which may become infinite: the quotient is then zero."""
    return any(
        p.exp.is_negative
        and isinstance(p.base, sympy.Add)
        and any(_is_large(a) for a in p.base.args)
        and all(map(_is_plus, p.base.args))
        for p in expr.atoms(sympy.Pow)
    )


def _is_large(term: Expr) -> bool:
    power = term.as_coeff_Mul()[1]
    return isinstance(power, sympy.exp) and not _bounded(power, frozenset())


def _is_plus(term: Expr) -> bool:
    number, rest = term.as_coeff_Mul()
    return bool(number.is_positive) and (rest == 1 or isinstance(rest, sympy.exp))


def _bounded(exponential: Expr, shifted: frozenset[str]) -> bool:
    """Whether an exponential cannot overflow: minus a square, minus an absolute value, minus a maximum."""
    argument = cast(Expr, exponential.args[0])
    if isinstance(argument, Element):
        return argument.name in shifted
    return bool((-argument).is_nonnegative)


def _guarded(piecewise: Expr, shifted: frozenset[str]) -> Expr:
    """Branches that are computed everywhere but used in part: keep them finite where they are not used."""
    branches: list[tuple[Expr, object]] = []
    before: list[Expr] = []
    for branch in piecewise.args:
        value, test = stable(branch.args[0], shifted), branch.args[1]
        holds = [test] if test != True else [sympy.Not(b) for b in before]  # noqa: E712
        for relation in holds:
            value = _within(value, cast(Expr, relation))
        before.append(cast(Expr, test))
        branches.append((value, test))
    return sympy.Piecewise(*branches)


def _within(value: Expr, relation: Expr) -> Expr:
    """A value that is only used where `u < 0` (or `u > 0`) holds."""
    if not isinstance(relation, (sympy.Gt, sympy.Ge, sympy.Lt, sympy.Le)) or relation.args[1] != 0:
        return value
    u = cast(Expr, relation.args[0])
    swap: dict[Expr, Expr] = {}
    if isinstance(relation, (sympy.Lt, sympy.Le)):
        for e in value.atoms(sympy.exp):
            rate = sympy.cancel(e.args[0] / u)
            if rate.is_positive and rate.is_number:
                swap[e] = sympy.exp(rate * sympy.Piecewise((u, u < 0), (0, True)))
    else:
        for e in value.atoms(sympy.log):
            if e.args[0] == u:
                swap[e] = sympy.log(sympy.Piecewise((u, u > 0), (1, True)))
    return cast(Expr, value.xreplace(swap))


def share(equations: Sequence[Equation], taken: Iterable[str]) -> tuple[Equation, ...]:
    """Give a name to every function value that is needed more than once, before its first use."""
    from_where: dict[Expr, int] = {}
    for equation in equations:
        for term in equation.terms:
            for node in sympy.preorder_traversal(term.body):
                if isinstance(node, (sympy.exp, sympy.log, sympy.tanh, sympy.erf, Call)) and elements_of(node):
                    from_where[node] = from_where.get(node, 0) + 1
    names = set(taken) | {e.name for e in equations}
    shared: dict[Expr, Element] = {}
    result: list[Equation] = []
    for equation in equations:
        terms: list[Term] = []
        for term in equation.terms:
            repeated = [n for n in sympy.preorder_traversal(term.body) if from_where.get(n, 0) > 1]
            body = term.body
            for node in repeated:
                if isinstance(body, type(node)) and body == node and not term.over:
                    continue
                if node not in shared and body.has(node):
                    shared[node] = _named(node, equation, term, names)
                    result.append(Equation(shared[node], (Term(node),)))
                if node in shared:
                    body = cast(Expr, body.xreplace({node: shared[node]}))
            terms.append(replace(term, body=body))
        result.append(replace(equation, terms=tuple(terms)))
    return tuple(result)


def _named(node: Expr, equation: Equation, term: Term, names: set[str]) -> Element:
    stems: dict[Any, str] = {sympy.exp: "e", sympy.log: "l", sympy.tanh: "t"}
    stem = stems.get(type(node), "f")
    number = 1
    while f"{stem}{number}" in names:
        number += 1
    names.add(f"{stem}{number}")
    free = indices_of(node)
    order = [i for i in (*equation.target.letters, *term.over) if i in free]
    return Element(f"{stem}{number}", *(index(i.name) for i in order))
