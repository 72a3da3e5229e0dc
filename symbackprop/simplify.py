"""Folding: wherever the right side of an equation occurs, write its left side; small named rules, each use recorded.

    exp(-z)/(1 + exp(-z))**2   becomes   a*(1 - a)          with a = sigmoid(z)
    exp(z[n,k])/S[n]           becomes   p[n,k]             with p = softmax(z)
    sum(k, y[n,k])             becomes   1                  with the fact that labels sum to one

A rule is kept only where the operation count falls and no new pole appears, so that a form that is undefined where
the old one was not is never chosen. `RULES` is the order; `simplify` repeats it until nothing changes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import sympy
from sympy import Expr, Symbol

from .algebra import (
    clean,
    cost,
    eliminate,
    equation_cost,
    guards,
    insert_equation,
    is_product,
    kernels,
    meet,
    plain_names,
    poles,
    rationally,
    span,
    split_term,
    unfold_calls,
)
from .notation import (
    Call,
    Element,
    Equation,
    Fact,
    Function,
    Network,
    Rewrite,
    Term,
    base_name,
    elements_of,
    index,
    indices_of,
    is_index,
    is_moved,
    names_of,
    size_symbol,
    text_of,
)
from .write import formula

# Bodies with more operations than this are left as the chain rule gives them: looking for folds could take minutes.
_LARGEST = 300
_CENTRED = 30  # what is centred or normalised is short


@dataclass(frozen=True)
class Known:
    """What may be folded to: element-wise definitions, sums, and functions known by name."""

    definitions: tuple[tuple[Expr, Expr], ...]
    sums: tuple[Fact, ...]
    functions: Mapping[str, Function]
    sizes: Mapping[str, Symbol]

    @functools.cached_property
    def by_name(self) -> dict[str, list[tuple[Expr, Expr]]]:
        """The definitions that read each array: only these can apply where the array occurs."""
        found: dict[str, list[tuple[Expr, Expr]]] = {}
        for target, body in self.definitions:
            for name in dict.fromkeys(e.name for e in elements_of(body)):
                found.setdefault(name, []).append((target, body))
        return found

    @functools.cached_property
    def with_formula(self) -> tuple[Function, ...]:
        """The functions that are not abstract."""
        return tuple(f for f in self.functions.values() if f.body is not None)

    @functools.cached_property
    def summed(self) -> frozenset[str]:
        """The arrays whose own sums are known."""
        return frozenset(f.term.body.name for f in self.sums if isinstance(f.term.body, Element))


def simplify(
    equations: Sequence[Equation], network: Network, keep: Iterable[str], functions: Mapping[str, Function]
) -> tuple[tuple[Equation, ...], tuple[Rewrite, ...], tuple[Fact, ...]]:
    """Fold backward equations (in order of computation); drop those that no other and none of `keep` needs.

    `functions` are the names a fold may introduce. Returns the equations, what was rewritten, and the facts that were
    used or found.
    """
    known = _known(network, functions)
    rewrites: list[Rewrite] = []
    done: dict[str, Equation] = {}
    kept = set(keep)
    uses = _count_uses(equations)
    zero: set[str] = set()
    for original in equations:
        # A derivative that is zero takes what it multiplies with it.
        alive = tuple(t for t in original.terms if not zero & names_of(t.body))
        equation = replace(original, terms=alive)
        if alive != original.terms:
            rewrites.append(Rewrite("zero", "a derivative that is zero is left out", original, equation))
        current = _apply_rules(equation, known, rewrites)
        current = _inline(current, done, kept, uses, known, rewrites)
        done[current.name] = current
        if not current.terms:
            zero.add(current.name)
    order = [done[e.name] for e in equations]
    needed = set(kept)
    for equation in reversed(order):
        if equation.name in needed:
            needed |= {e.name for t in equation.terms for e in t.body.atoms(Element)}
    return tuple(e for e in order if e.name in needed), tuple(rewrites), known.sums


def _count_uses(equations: Iterable[Equation]) -> dict[str, int]:
    uses: dict[str, int] = {}
    for equation in equations:
        for name in {e.name for t in equation.terms for e in t.body.atoms(Element)}:
            uses[name] = uses.get(name, 0) + 1
    return uses


def _known(network: Network, functions: Mapping[str, Function]) -> Known:
    own = {f.name: f for f in network.functions}
    definitions: list[tuple[Expr, Expr]] = []
    sums: list[Fact] = list(network.facts)
    for equation in network.equations[:-1]:
        if len(equation.terms) != 1:
            continue
        term = equation.terms[0]
        if term.reduce != "sum":
            continue
        if term.over and not isinstance(_numerator(term.body), Element):
            sums.append(Fact(term, equation.target, "definition"))
        elif not term.over and is_product(term.body):
            definitions.append((equation.target, term.body))
        elif not term.over and kernels(term.body):
            definitions.append((equation.target, term.body))
            unfolded = unfold_calls(term.body, own)
            if unfolded != term.body:
                definitions.append((equation.target, unfolded))
            if any(isinstance(a, sympy.log) or isinstance(-a, sympy.log) for a in sympy.Add.make_args(unfolded)):
                # a = z - log(S) also says exp(a) = exp(z)/S
                definitions.append((sympy.exp(equation.target), sympy.exp(unfolded)))
    sizes = {i.name: size_symbol(i.size) for i in network.indices}
    known = Known(tuple(definitions), tuple(sums), {**functions, **own}, sizes)
    for equation in network.equations[:-1]:
        if len(equation.terms) == 1 and not equation.terms[0].over:
            known = replace(known, sums=(*known.sums, *_sums_that_follow(equation, network, known)))
    return known


def _sums_that_follow(equation: Equation, network: Network, known: Known) -> Iterator[Fact]:
    """What an array sums to by its definition: softmax to one, what was centred to zero."""
    body, target = equation.terms[0].body, equation.target
    if cost(body) > _CENTRED:
        return
    present = names_of(body)
    means = [
        Fact(e.terms[0], e.target, "definition")
        for e in network.equations[:-1]
        if len(e.terms) == 1
        and e.terms[0].reduce == "sum"
        and not present.isdisjoint(names_of(e.terms[0].body))
        and isinstance(_numerator(e.terms[0].body), Element)
    ]
    ways: set[tuple[Symbol, ...]] = {(i,) for i in target.letters}
    for mean in means:
        own = next(iter(elements_of(mean.term.body)))
        ways |= {tuple(cast(Symbol, m.get(i, i)) for i in mean.term.over) for m in _matches(own, body)}
    for fact in known.sums:
        if isinstance(fact.term.body, Element) and fact.term.body.name in present:
            ways |= {tuple(cast(Symbol, m.get(i, i)) for i in fact.term.over) for m in _matches(fact.term.body, body)}
    knowing = replace(known, sums=(*known.sums, *means))
    for over in sorted(ways, key=str):
        if not set(over) <= set(target.letters):
            continue
        total: Expr = sympy.S.Zero
        for part in sympy.Add.make_args(rationally(body, "expand") if body.is_Add else body):
            lacks = [i for i in over if i not in indices_of(part)]
            if lacks == list(over):
                total += part * sympy.Mul(*(known.sizes[base_name(i.name)] for i in over))
            elif (summed := _fold_sum(Term(part, over), knowing)) is not None and not summed.over:
                total += summed.body
            else:
                break
        else:
            total = clean(total)
            if total in (0, 1):
                yield Fact(Term(target, over), total, "follows from its definition")


def _numerator(expr: Expr) -> Expr:
    return expr.as_numer_denom()[0] if isinstance(expr, sympy.Mul) else expr


# ---------------------------------------------------------------------- rules on one equation


def _matches(pattern: Element, expr: Expr) -> Iterator[dict[Expr, Expr]]:
    """How the indices of a pattern must be renamed to meet each element of the same array."""
    if pattern.name not in names_of(expr):
        return
    for e in elements_of(expr):
        rename = meet(pattern, e)
        # Beyond its axis an element is zero, and what it was computed from is not: another factor must be zero there too.
        if rename is not None and all(v in guards(expr) for v in rename.values() if is_moved(v)):
            yield rename


def _anchors(target: Expr, body: Expr, expr: Expr) -> Iterator[tuple[Expr, Expr]]:
    """The instances of `target = body` that could occur in an expression."""
    seen: set[Expr] = set()
    for e in elements_of(body):
        if indices_of(target) <= {i for i in e.indices if is_index(i)}:
            for rename in _matches(e, expr):
                instance = cast(Expr, target.xreplace(rename))
                if instance not in seen:
                    seen.add(instance)
                    yield instance, cast(Expr, body.xreplace(rename))


def _better(new: Expr, old: Expr, right: Expr) -> bool:
    return cost(new) < cost(old) and poles(new) <= poles(old) | poles(right) and guards(old) <= guards(new)


def _fold_body(expr: Expr, known: Known) -> tuple[Expr, str] | None:
    """One use of a definition in an expression, the best one; and the definition, in words."""
    best: tuple[Expr, str] | None = None
    if cost(expr) > _LARGEST:
        return None
    present = dict.fromkeys(e.name for e in elements_of(expr))
    near = dict.fromkeys(pair for name in present for pair in known.by_name.get(name, ()))
    anchored = [pair for definition in near for pair in _anchors(*definition, expr)]
    for target, body in anchored:
        names, back = plain_names(expr, target, body)
        for folded in _folded_once(*(cast(Expr, part.xreplace(names)) for part in (expr, target, body))):
            new = cast(Expr, folded.xreplace(back))
            if _better(new, expr, body) and (best is None or cost(new) < cost(best[0])):
                best = new, f"{formula(body)} is {formula(target)}"
    names, back = plain_names(expr)
    for folded, *pair in _folded_to_functions(cast(Expr, expr.xreplace(names)), known.with_formula):
        # The way back to the names takes longer than the comparison, which needs none.
        if best is None or cost(folded) < cost(best[0]):
            new, target, body = (cast(Expr, part.xreplace(back)) for part in (folded, *pair))
            if _better(new, expr, body):
                best = new, f"{formula(body)} is {formula(target)}"
    return best


@functools.lru_cache(maxsize=4096)
def _folded_once(expr: Expr, target: Expr, body: Expr) -> tuple[Expr, ...]:
    return tuple(_folded(expr, target, body))


@functools.lru_cache(maxsize=4096)
def _folded_to_functions(expr: Expr, functions: tuple[Function, ...]) -> tuple[tuple[Expr, Expr, Expr], ...]:
    """Shorter forms by functions known by name, each with the call and what it stands for."""
    return tuple(
        (new, target, body)
        for target, body in _function_instances(expr, functions)
        for new in _folded(expr, target, body)
        if cost(new) < cost(expr)
    )


def _folded(expr: Expr, target: Expr, body: Expr) -> Iterator[Expr]:
    if is_product(body):
        yield _take_product(expr, target, body)
        return
    if isinstance(body, sympy.Pow) and not body.exp.is_Integer:
        powers = {p: p.exp / body.exp for p in expr.atoms(sympy.Pow) if p.base == body.base}
        yield clean(cast(Expr, expr.xreplace({p: target**k for p, k in powers.items() if k.is_Integer})))
    for kernel in kernels(body):
        present = _holds_power(expr, kernel) if isinstance(kernel, sympy.exp) else expr.has(kernel)
        if not present:
            continue
        if expr.has(body):
            yield clean(cast(Expr, expr.xreplace({body: target})))
        if isinstance(body, sympy.Mul):
            yield cast(Expr, expr.subs(body, target))
        yield _locally(expr, kernel, target, body)
        for new in eliminate(expr, kernel, target, body):
            yield clean(new)


def _take_product(expr: Expr, target: Expr, body: Expr) -> Expr:
    """A product of stored values wherever all its factors stand together."""
    if isinstance(expr, sympy.Add):
        return sympy.Add(*(_take_product(a, target, body) for a in expr.args))
    powers = expr.as_powers_dict()
    wanted = {f: n for f, n in body.as_powers_dict().items() if not f.is_number}
    if all(powers.get(f, 0) >= n for f, n in wanted.items()):
        return expr / body * target
    return expr


def _holds_power(expr: Expr, kernel: Expr) -> bool:
    """Whether an exponential of the same elements occurs."""
    elements = kernel.atoms(Element)
    return any(e.atoms(Element) == elements for e in expr.atoms(sympy.exp))


def _locally(expr: Expr, kernel: Expr, target: Expr, body: Expr) -> Expr:
    """Eliminate a function from just the factors that hold it, so that the rest of a sum or product stays as it is."""
    if isinstance(expr, sympy.Add):
        return sympy.Add(*(_locally(a, kernel, target, body) for a in expr.args))
    if isinstance(expr, sympy.Mul):
        holding = [f for f in expr.args if f.has(kernel) or (isinstance(kernel, sympy.exp) and f.has(sympy.exp))]
        if not holding:
            return expr
        if len(holding) < len(expr.args):
            rest = sympy.Mul(*(f for f in expr.args if f not in holding))
            return rest * _locally(sympy.Mul(*holding), kernel, target, body)
    forms = [clean(form) for form in eliminate(expr, kernel, target, body)]
    return min((expr, *forms), key=cost)


@functools.lru_cache(maxsize=64)
def _branched(functions: tuple[Function, ...]) -> frozenset[str]:
    """The names of functions whose formulas make a choice."""
    by_name = {f.name: f for f in functions}
    bodies = {f.name: unfold_calls(f.body, by_name) for f in functions if f.body is not None}
    return frozenset(name for name, body in bodies.items() if body.has(sympy.Piecewise))


def _function_instances(expr: Expr, functions: Sequence[Function]) -> Iterator[tuple[Expr, Expr]]:
    """Functions known by name, at the arguments that stand under an exponential or in a call of the expression."""
    arguments = {a for e in expr.atoms(sympy.exp) for a in (e.args[0], -e.args[0])}
    arguments |= {a for c in expr.atoms(Call) for a in c.arguments[:1]}
    by_name = {f.name: f for f in functions}
    branched = _branched(tuple(functions))
    for argument in sorted(arguments, key=text_of):
        branches = argument.has(sympy.Piecewise) or any(c.name in branched for c in argument.atoms(Call))
        for function in functions:
            if function.body is None or len(function.parameters) != 1 or isinstance(argument, sympy.Rational):
                continue
            if branches and function.name in branched:
                continue  # SymPy cannot hold a choice within the condition of another one
            z = Element(function.parameters[0])
            body = cast(Expr, function.body.xreplace({z: argument}))
            yield Call(function.name, (0,), argument), body
            unfolded = unfold_calls(body, by_name)
            if unfolded != body and function.name not in ("gelu", "gelu_tanh"):
                yield Call(function.name, (0,), argument), unfolded
    for angle in {f.args[0] for f in expr.atoms(sympy.sinh)}:
        yield sympy.tanh(angle), sympy.sinh(angle) / sympy.cosh(angle)


def _fold_sum(term: Term, known: Known) -> Term | None:
    """A term in which a known sum was recognised."""
    present = names_of(term.body)
    for fact in known.sums:
        pattern = fact.term
        if present.isdisjoint(names_of(pattern.body)):
            continue
        for e in elements_of(pattern.body):
            for rename in _matches(e, term.body):
                summed = [rename.get(i, i) for i in pattern.over]
                if not set(summed) <= set(term.over) or len(set(summed)) < len(summed) or term.reduce != "sum":
                    continue
                body = cast(Expr, pattern.body.xreplace(rename))
                rest = clean(term.body / body)
                if indices_of(rest) & set(summed) or not poles(rest) <= poles(term.body):
                    continue
                value = cast(Expr, fact.value.xreplace(rename))
                if not guards(term.body) <= guards(rest * value):
                    continue
                over = tuple(i for i in term.over if i not in summed)
                return Term(clean(rest * value), over)
    return None


def _absent_index(equation: Equation, known: Known) -> tuple[Equation, str] | None:
    for position, term in enumerate(equation.terms):
        for i in term.over:
            if i not in indices_of(term.body):
                size = known.sizes[base_name(i.name)]
                new = Term(term.body * size, tuple(j for j in term.over if j != i))
                return _with_term(equation, position, (new,)), f"nothing depends on {i}: the sum is {size} times the same"
    return None


def _fold(equation: Equation, known: Known) -> tuple[Equation, str] | None:
    for position, term in enumerate(equation.terms):
        if (found := _fold_body(term.body, known)) is not None:
            return _with_term(equation, position, (replace(term, body=found[0]),)), found[1]
    return None


def _fold_a_sum(equation: Equation, known: Known) -> tuple[Equation, str] | None:
    for position, term in enumerate(equation.terms):
        if not term.over:
            continue
        whole = _fold_sum(term, known)
        parts = (term,) if whole is not None else split_term(term)
        folded = [whole] if whole is not None else [_fold_sum(t, known) for t in parts]
        if not any(f is not None for f in folded):
            continue
        new = _with_term(equation, position, tuple(f or t for f, t in zip(folded, parts, strict=True)))
        new = collected(new)
        if equation_cost(new) < equation_cost(equation):
            used = next(t for f, t in zip(folded, parts, strict=True) if f is not None)
            return new, f"the sum in {formula(used.body, used.over)} is known"
    return None


def _cancel(equation: Equation, known: Known) -> tuple[Equation, str] | None:  # noqa: ARG001
    for position, term in enumerate(equation.terms):
        new = clean(term.body)
        if new != term.body and cost(new) < cost(term.body) and guards(term.body) <= guards(new):
            return _with_term(equation, position, (replace(term, body=new),)), "common factors cancel"
    return None


def _sign_times_argument(equation: Equation, known: Known) -> tuple[Equation, str] | None:  # noqa: ARG001
    for position, term in enumerate(equation.terms):
        for f in sorted(term.body.atoms(sympy.sign), key=str):
            u = cast(Expr, f.args[0])
            new = clean(cast(Expr, term.body.xreplace({f: sympy.Abs(u) / u})))
            if _better(new, term.body, sympy.S.One):
                return _with_term(equation, position, (replace(term, body=new),)), f"{formula(f * u)} is {formula(abs(u))}"
    return None


def collected(equation: Equation) -> Equation:
    """Terms over the same indices as one term, unless two products of matrices would become one array of all their indices."""
    merged: list[Term] = []
    for term in equation.terms:
        if term.reduce != "sum":
            return equation
        term = _plain_letters(term, equation.target.letters)  # noqa: PLW2901
        for position, other in enumerate(merged):
            if set(other.over) == set(term.over) and _have_in_common(other.body, term.body):
                both = replace(other, body=clean(other.body + term.body))
                if not term.over or _span(equation, both) <= max(_span(equation, other), _span(equation, term)):
                    merged[position] = both
                    break
        else:
            merged.append(term)
    return replace(equation, terms=tuple(t for t in merged if t.body != 0))


def _have_in_common(one: Expr, other: Expr) -> bool:
    """Whether two expressions share an element or a size: else nothing can cancel between them."""
    sizes = (one.free_symbols & other.free_symbols) - indices_of(one)
    return bool(sizes or one.atoms(Element) & other.atoms(Element) or not (one.atoms(Element) and other.atoms(Element)))


def _span(equation: Equation, term: Term) -> int:
    return span(replace(equation, terms=(term,)))


def _plain_letters(term: Term, free: Iterable[Symbol]) -> Term:
    """Bound indices without primes, where the plain letter is free."""
    taken = set(free) | set(term.over)
    swap: dict[Symbol, Symbol] = {}
    for i in term.over:
        plain = index(base_name(i.name))
        if plain not in taken:
            swap[i] = plain
            taken.add(plain)
    return Term(cast(Expr, term.body.xreplace(swap)), tuple(swap.get(i, i) for i in term.over), term.reduce) if swap else term


def _collect(equation: Equation, known: Known) -> tuple[Equation, str] | None:  # noqa: ARG001
    new = collected(equation)
    if len(new.terms) < len(equation.terms) and equation_cost(new) <= equation_cost(equation):
        return new, "terms over the same indices are added"
    return None


def _with_term(equation: Equation, position: int, terms: tuple[Term, ...]) -> Equation:
    kept = tuple(t for t in terms if t.body != 0)
    return replace(equation, terms=equation.terms[:position] + kept + equation.terms[position + 1 :])


Rule = Callable[[Equation, Known], "tuple[Equation, str] | None"]
RULES: tuple[tuple[str, Rule], ...] = (
    ("sum over an absent index", _absent_index),
    ("sign times its argument", _sign_times_argument),
    ("fold", _fold),
    ("fold a sum", _fold_a_sum),
    ("cancel", _cancel),
    ("collect terms", _collect),
)


def _apply_rules(equation: Equation, known: Known, rewrites: list[Rewrite] | None) -> Equation:
    """Every rule in order, from the first again after each use, until none applies."""
    changed = True
    while changed:
        changed = False
        for name, rule in RULES:
            result = rule(equation, known)
            if result is not None:
                new, why = result
                if rewrites is not None:
                    rewrites.append(Rewrite(name, why, equation, new))
                equation, changed = new, True
                break
    return equation


# ---------------------------------------------------------------------- inlining


def _array_names(equation: Equation) -> list[str]:
    return list(dict.fromkeys(e.name for t in equation.terms for e in elements_of(t.body)))


def _stored_before(equation: Equation, done: Mapping[str, Equation]) -> list[str]:
    return [n for n in _array_names(equation) if n in done]


def _inline(
    equation: Equation,
    done: dict[str, Equation],
    kept: set[str],
    uses: dict[str, int],
    known: Known,
    rewrites: list[Rewrite],
) -> Equation:
    """Put the derivatives used by an equation into it where that makes the whole shorter (softmax into its loss)."""
    changed = True
    while changed:
        changed = False
        names = _stored_before(equation, done)
        for name in names:
            if not _may_cancel(equation, done[name], known):
                continue
            # With a derivative goes what both it and the equation read: in a norm, the mean of what is centred.
            both = [n for n in _array_names(done[name]) if n in names and n not in _array_names(done[n])]
            for inner in ((name,), *((name, n) for n in both)):
                found = _inserted(equation, inner, done, kept, uses, known)
                if found is not None:
                    log, equation = found
                    rewrites += log
                    for n in inner:
                        uses[n] -= 1
                    changed = True
                    break
            if changed:
                break
    return equation


def _may_cancel(equation: Equation, inner: Equation, known: Known) -> bool:
    """Whether anything can cancel when a derivative is put in: a shared array or size or, in a sum, an array whose sum is known.

    What reads itself, at another time, would still be there.
    """
    inside, read = set(_array_names(inner)), set(_array_names(equation))
    if inner.name in inside:
        return False
    if any(t.over and inner.name in names_of(t.body) for t in equation.terms):
        read |= known.summed
    if not inside.isdisjoint(read | _met_by(read, known)):
        return True
    return not _sizes_outside(equation).isdisjoint(_sizes_outside(inner))


def _sizes_outside(equation: Equation) -> set[Symbol]:
    """The sizes in terms without sums."""
    bodies = [t.body for t in equation.terms if not t.over]
    return {cast(Symbol, s) for b in bodies for s in b.free_symbols - indices_of(b)}


def _met_by(names: Iterable[str], known: Known) -> set[str]:
    """The arrays that definitions which read one of these multiply it with or divide it by."""
    bodies = {body for n in names for _, body in known.by_name.get(n, ())}
    return {e.name for b in bodies for e in (elements_of(b) if is_product(b) else poles(b)) if isinstance(e, Element)}


def _inserted(
    equation: Equation, names: tuple[str, ...], done: dict[str, Equation], kept: set[str], uses: dict[str, int], known: Known
) -> tuple[list[Rewrite], Equation] | None:
    """The equation with derivatives put in one after the other, if the whole becomes shorter that way."""
    log: list[Rewrite] = []
    new, saved, widest = equation, 0, span(equation)
    for position, name in enumerate(names):
        merged = insert_equation(new, done[name])
        if merged is None:
            return None
        log.append(Rewrite("insert", f"{done[name].target} is put in, so that factors cancel", new, merged))
        new = _apply_rules(merged, known, log)
        # The last reader of a derivative takes it along; what an inserted one reads is read no more either.
        saved += equation_cost(done[name]) if uses.get(name, 0) <= 1 + position and name not in kept else 0
        widest = max(widest, span(done[name]))
    # Two equations fewer are worth an operation.
    if span(new) <= widest and equation_cost(new) < equation_cost(equation) + saved + len(names) - 1:
        return log, new
    return None
