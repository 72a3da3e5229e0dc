"""Second derivatives and Jacobians by the same two operations once more: a gradient is equations, so it can be differentiated.

    H v        d<∂L/∂w, v>/dw                                       `hessian_product`
    diag H     dΣ(∂L/∂p)/dp for a loss that is element-wise in p    `hessian_diagonal`
    JᵀH_L J v  Jv from <Jᵀu, v> differentiated by u, …              `gauss_newton_product`
    J          the coefficient of u in Jᵀu                          `jacobian`

Each returns a `Derivation` whose scalar is G; it is explained, evaluated and emitted like any other. Directions `v_<name>` have
the shape of the parameter and are inputs of the emitted module.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import sympy
from sympy import Expr, Symbol

from .declare import declare
from .derive import closed_form, derive, network_name
from .errors import NetworkError, suggest
from .functions import catalogue_functions
from .notation import Array, Call, Derivation, Element, Equation, Network, Term, index

Source = Network | str | Path | Mapping[str, Any]


class _Growing:
    """A network to which gradients are added as further equations."""

    def __init__(self, source: Source) -> None:
        self.network = source if isinstance(source, Network) else declare(source)
        self.axes = {a.name: a.axes for a in self.network.arrays}
        self.equations = list(self.network.equations)
        self.arrays = list(self.network.arrays)
        self.loss = self.network.loss

    def name(self, wish: str) -> str:
        """The wish, or the next free name."""
        while wish in self.axes:
            wish += "_"
        return wish

    def element(self, name: str) -> Element:
        """An array with its own letters."""
        return Element(name, *(index(a) for a in self.axes[name]))

    def given(self, wish: str, like: str) -> str:
        """A new input with the axes of another array."""
        name = self.name(wish)
        self.axes[name] = self.axes[like]
        self.arrays.append(Array(name, self.axes[like], "input"))
        return name

    def product(self, pairs: Iterable[tuple[str, Expr]]) -> tuple[Term, ...]:
        """The inner product of arrays with factors over the same letters."""
        return tuple(Term(self.element(name) * factor, tuple(index(a) for a in self.axes[name])) for name, factor in pairs)

    def closed(self, terms: tuple[Term, ...], title: str) -> Network:
        """The network whose scalar these terms are."""
        scalar = self.name("G")
        known = {f.name for f in self.network.functions}
        used = {c.name for e in self.equations for t in e.terms for c in t.body.atoms(Call)} | {"stop"}
        more = [f for n, f in catalogue_functions().items() if n in used and n not in known]
        return replace(
            self.network,
            name=f"{self.network.name}, {title}",
            equations=(*self.equations, Equation(Element(scalar), terms)),
            arrays=(*self.arrays, Array(scalar, (), "stored")),
            functions=(*self.network.functions, *more),
            prediction=None,
            averages=(),
            text="",
        )

    def gradient(self, terms: tuple[Term, ...] | None, wrt: Sequence[str]) -> dict[str, str]:
        """Add the derivatives of a scalar (the loss if None) to the equations; their names by array."""
        network = self.network if terms is None else self.closed(terms, "on the way")
        if terms is None:
            network = replace(self.network, equations=tuple(self.equations), arrays=tuple(self.arrays))
        derivation = derive(network, wrt)
        if terms is not None:
            last = network.equations[-1]
            self.equations.append(last)
            self.arrays.append(network.arrays[-1])
            self.axes[last.name] = ()
        for equation in derivation.equations:
            axes = tuple(i.name for i in equation.target.letters)
            self.equations.append(equation)
            self.arrays.append(Array(equation.name, axes, "stored"))
            self.axes[equation.name] = axes
        return {w: derivation.adjoints[w] for w in wrt}

    def parameters(self) -> list[str]:
        """The names of the parameters."""
        return [a.name for a in self.network.arrays if a.role == "parameter"]


def hessian_product(source: Source, wrt: str | None = None) -> Derivation:
    """The product of the loss' Hessian with a direction, ∂²L/∂w² v, for all parameters or for one array.

    The gradient of the result's scalar G = Σ <∂L/∂w, v_w> is H v. `source` is anything that `derive` takes.
    """
    growing = _Growing(source)
    names = growing.parameters() if wrt is None else [network_name(growing.network, wrt)]
    gradients = growing.gradient(None, names)
    pairs = [(gradients[n], Element(growing.given(f"v_{n}", n), *map(index, growing.axes[n]))) for n in names]
    return derive(growing.closed(growing.product(pairs), "Hessian times vector"), names)


def gradient_network(network: Network, names: Sequence[str]) -> Network:
    """The network with the loss' derivatives by arrays as further equations, so that these can be differentiated in turn."""
    growing = _Growing(network)
    growing.gradient(None, names)
    return growing.closed((Term(Element(network.loss)),), "with its gradient")


def hessian_diagonal(source: Source, wrt: str | None = None) -> Derivation:
    """The diagonal of the loss' Hessian with respect to one array, the prediction by default.

    Raises `NetworkError` where the loss is not element-wise in that array: its Hessian is no diagonal then.
    """
    growing = _Growing(source)
    name = _array(growing.network, wrt)
    gradient = growing.gradient(None, [name])[name]
    first = derive(growing.network, [name])
    equation = closed_form(first, name)
    # Arrays that follow from it, place by place: these may stand in its derivative at the same place.
    later = {name: True}
    for e in growing.network.equations:
        used = [x for t in e.terms for x in t.body.atoms(Element) if x.name in later]
        if used:
            whole = any(t.over for t in e.terms) or any(x.indices != e.target.indices or not later[x.name] for x in used)
            later[e.name] = not whole
    for e in (x for t in equation.terms for x in t.body.atoms(Element) if x.name in later):
        if not later[e.name] or e.indices != equation.target.indices:
            raise NetworkError(f"'{growing.loss}' is not element-wise in '{name}': its Hessian has more than a diagonal")
    return derive(growing.closed(growing.product([(gradient, sympy.S.One)]), "diagonal of the Hessian"), [name])


def gauss_newton_product(source: Source, of: str | None = None) -> Derivation:
    """The Gauss-Newton product JᵀH_L J v: J the Jacobian of the prediction (or `of`), H_L the loss' Hessian there.

    The gradient of the result's scalar is the product, for all parameters.
    """
    growing = _Growing(source)
    names, name = growing.parameters(), _array(growing.network, of)
    loss = growing.gradient(None, [name])[name]
    u = growing.given("u", name)
    back = growing.gradient(growing.product([(name, growing.element(u))]), names)
    pairs = [(back[n], Element(growing.given(f"v_{n}", n), *map(index, growing.axes[n]))) for n in names]
    forward = growing.gradient(growing.product(pairs), [u])[u]
    curved = growing.gradient(growing.product([(loss, _held(growing.element(forward)))]), [name])[name]
    return derive(growing.closed(growing.product([(name, _held(growing.element(curved)))]), "Gauss-Newton times vector"), names)


def vector_jacobian(source: Source, of: str | None = None, wrt: str | None = None) -> Derivation:
    """uᵀJ for the Jacobian J of one array (the prediction by default) with respect to another (the input by default)."""
    growing = _Growing(source)
    name = _array(growing.network, of)
    inputs = [a.name for a in growing.network.arrays if a.role == "input"]
    within = _array(growing.network, wrt) if wrt is not None else inputs[0] if inputs else None
    if within is None:
        raise NetworkError(f"'{growing.network.name}' has no input; name the array to differentiate with respect to")
    u = growing.given("u", name)
    return derive(growing.closed(growing.product([(name, growing.element(u))]), "vector times Jacobian"), [within])


def jacobian(source: Source, of: str | None = None, wrt: str | None = None) -> Equation:
    """The Jacobian as one equation, J[…of, …wrt] = ∂of[…]/∂wrt[…] in forward values.

    An axis of examples that do not depend on one another stands once; a letter that both sides have otherwise gets a prime for
    `wrt`. Raises `NetworkError` where intermediate values cannot be put into one another, as in a recurrence.
    """
    derivation = vector_jacobian(source, of, wrt)
    network, within = derivation.network, derivation.wrt[0]
    seed = next(a for a in reversed(network.arrays) if a.role == "input")
    u = next(e for e in network.equations[-1].terms[0].body.atoms(Element) if e.name != seed.name)
    axes = next(a.axes for a in network.arrays if a.name == within)
    shared = network.batch if network.batch in seed.axes and keeps_examples(network, u.name, within) else None
    own = [i if i == shared or i not in seed.axes else i + "'" for i in axes]
    back = closed_form(derivation, within, limit=4000)
    swap = {index(a): index(b) for a, b in zip(axes, own, strict=True) if a != b}
    back = Equation(cast(Element, back.target.xreplace(dict(swap))), tuple(_without_capture(t, swap) for t in back.terms))
    aside = {i: i if i == shared else i + "'" * 6 for i in seed.axes}  # letters that no sum runs over
    terms = jacobian_terms(back, seed.name, tuple(aside.values()), {e.name for e in derivation.raw})
    if terms is None:
        raise NetworkError(f"the Jacobian of '{network.name}' cannot be written as one equation")
    names = {index(a): index(i) for i, a in aside.items() if i != a}
    result = Element("J", *map(index, (*seed.axes, *(i for i in own if i != shared))))
    return Equation(result, tuple(_without_capture(t, names) for t in terms))


def _without_capture(term: Term, swap: Mapping[Symbol, Symbol]) -> Term:
    """A term with letters renamed; a sum over a letter that is a new name runs over another one."""
    taken = {i.name for i in swap.values()} | {i.name for i in term.over} | {str(s) for s in term.body.free_symbols}
    aside: dict[Expr, Expr] = {}
    for i in term.over:
        if i in swap.values() or i in swap:
            name = i.name
            while name in taken:
                name += "'"
            taken.add(name)
            aside[i] = index(name)
    body = term.body.xreplace(aside).xreplace(dict(swap))
    return replace(term, body=cast(Expr, body), over=tuple(cast(Symbol, aside.get(i, i)) for i in term.over))


def keeps_examples(network: Network, of: str, wrt: str) -> bool:
    """Whether each example of one array depends on the same example of another alone, by induction over the equations."""
    batch = network.batch
    axes = {a.name: a.axes for a in network.arrays}
    if batch is None or batch not in axes.get(of, ()) or batch not in axes.get(wrt, ()):
        return False
    letter = index(batch)
    apart = {wrt: True}
    while True:
        before = dict(apart)
        for equation in network.equations:
            uses = [(t, e) for t in equation.terms for e in t.body.atoms(Element) if e.name in apart]
            if not uses or (equation.name == wrt and not apart[wrt]):
                continue
            apart[equation.name] = apart.get(equation.name, True) and all(
                apart[e.name]
                and letter in equation.target.letters
                and letter not in t.over
                and batch in axes[e.name]
                and e.indices[axes[e.name].index(batch)] == letter
                for t, e in uses
            )
        if apart == before:
            return apart.get(of, True)


def is_elementwise(network: Network, of: str, wrt: str) -> bool:
    """Whether one array depends on another place by place: all indices alike on the whole way."""
    alike = {wrt: True}
    for equation in network.equations:
        uses = [(t, e) for t in equation.terms for e in t.body.atoms(Element) if e.name in alike]
        if uses:
            own = all(alike[e.name] and not t.over and e.indices == equation.target.indices for t, e in uses)
            alike[equation.name] = own and alike.get(equation.name, True)
    return of != wrt and alike.get(of, False)


def jacobian_terms(back: Equation, seed: str, outer: Sequence[str], computed: Collection[str]) -> tuple[Term, ...] | None:
    """uᵀJ as J: the seed's letters become those of the result, by the sum over them or by an indicator.

    None where a term is not linear in the seed, or still reads derivatives that were `computed` on the way.
    """
    if {e.name for t in back.terms for e in t.body.atoms(Element)} & set(computed):
        return None
    terms: list[Term] = []
    for term in back.terms:
        if term.reduce != "sum":
            return None
        # A sum within the term that holds the seed is taken apart first.
        bodies = sympy.Add.make_args(sympy.expand(term.body)) if _nested(term.body, seed) else (term.body,)
        for body in bodies:
            found = [f for f in sympy.Mul.make_args(body) if isinstance(f, Element) and f.name == seed]
            if len(found) != 1 or (body / found[0]).has(found[0]):
                return None
            rest, over, tests = body / found[0], list(term.over), list[Expr]()
            swap: dict[Any, Any] = {}
            for i, wanted in zip(found[0].indices, map(index, outer), strict=True):
                if i in over and i not in swap:
                    over.remove(i)  # type: ignore[arg-type]
                    swap[i] = wanted
                elif i != wanted:
                    tests.append(sympy.Piecewise((1, sympy.Eq(i, wanted)), (0, True)))
            rest = (rest * sympy.Mul(*tests)).xreplace(swap)
            terms.append(Term(rest, tuple(over)))
    return tuple(terms)


def _nested(body: Expr, seed: str) -> bool:
    return any(isinstance(f, sympy.Add) and any(e.name == seed for e in f.atoms(Element)) for f in sympy.Mul.make_args(body))


def _held(e: Element) -> Expr:
    """An array that counts as constant."""
    return Call("stop", (0,), e)


def _array(network: Network, name: str | None) -> str:
    known = {a.name for a in network.arrays}
    found = network_name(network, name) if name is not None else network.prediction
    if found is None or found not in known:
        raise NetworkError(
            f"there is no array '{name}'{suggest(str(name), known)}" if name else f"'{network.name}' has no prediction"
        )
    return found
