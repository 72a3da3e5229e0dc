"""Whether a batch can be computed in shares: the loss is a mean over examples that do not depend on each other.

Then the loss of a batch is the mean of the losses of its shares, weighted by how many examples each has, and so are the
gradients: shares can go to several threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from sympy import Add, Dummy, Expr, expand

from .notation import Element, Network, Term, base_name, index, size_symbol


def is_mean_over_examples(network: Network) -> bool:
    """Whether the loss of a batch is the mean of those of its shares, by induction over the equations."""
    return network.batch is not None and not network.averages and _Induction(network, network.batch).holds()


def has_independent_examples(network: Network) -> bool:
    """Whether no example depends on another, and the loss is linear in what is summed over them."""
    batch = network.batch
    if batch is None:
        return False
    letter = index(batch)
    axes = {a.name: a.axes for a in network.arrays}
    own = {a.name for a in network.arrays if batch in a.axes and a.role in ("input", "target", "noise")}
    totals: set[str] = set()
    waiting = list(network.equations)
    while True:  # again, for recurrences, until nothing changes
        before = len(own) + len(totals)
        for equation in waiting:
            for term in equation.terms:
                uses = [e for e in term.body.atoms(Element) if e.name in own]
                sums = [e for e in term.body.atoms(Element) if e.name in totals]
                placed = [e.indices[axes[e.name].index(batch)] if batch in axes[e.name] else None for e in uses]
                if any(place != letter for place in placed):
                    return False
                if sums and (uses or not _is_linear(term, sums)):
                    return False
                inside = letter in equation.target.letters
                if uses and inside and letter not in term.over:
                    own.add(equation.name)
                elif uses and not inside and letter in term.over and term.reduce == "sum":
                    totals.add(equation.name)
                elif uses or (sums and inside):
                    return False
                elif sums:
                    totals.add(equation.name)
        if len(own) + len(totals) == before:
            return network.loss in totals


def _is_linear(term: Term, sums: Sequence[Element]) -> bool:
    """Whether a term is a sum of products with one of these at most, each undifferentiated and by itself."""
    if term.reduce != "sum":
        return False
    for product in Add.make_args(expand(term.body)):
        inside = [e for e in sums if product.has(e)]
        if len(inside) > 1 or (inside and (product / inside[0]).has(inside[0])):
            return False
    return True


class _Induction:
    """What arrays are in a share: the `same` as in the whole batch, each example's `own`, a `sum` or a `mean` over examples."""

    def __init__(self, network: Network, batch: str) -> None:
        self.network = network
        self.letter = index(batch)
        sizes = {i.name: i.size for i in network.indices}
        self.examples = {name for name, size in sizes.items() if size == sizes[batch]}
        self.count = size_symbol(sizes[batch])
        self.axes: Mapping[str, Sequence[str]] = {a.name: a.axes for a in network.arrays}
        # What is still to be proved of a computed array, whose earlier places an equation may read, is assumed.
        self.kinds: dict[str, str] = {a.name: "own" if self._counts_examples(a.axes) else "same" for a in network.arrays}

    def _counts_examples(self, axes: Sequence[str]) -> bool:
        return any(base_name(a) in self.examples for a in axes)

    def holds(self) -> bool:
        # The trainer takes shares along the first axis.
        if any(self._counts_examples(a.axes[1:]) for a in self.network.arrays if a.role in ("input", "target", "noise")):
            return False
        if any(i.formula is not None and i.formula.has(self.count) for i in self.network.indices):
            return False
        read: set[str] = set()
        for equation in self.network.equations:
            kinds = {self._kind(t) for t in equation.terms}
            read |= {e.name for t in equation.terms for e in t.body.atoms(Element)}
            kind = _of_sum(kinds)
            if self.letter in equation.target.letters:
                kind = "own" if kind in ("same", "own") else None
            if kind is None or (equation.name in read and kind != self.kinds[equation.name]):
                return False
            self.kinds[equation.name] = kind
        return self.kinds[self.network.loss] in ("mean", "same")

    def _kind(self, term: Term) -> str | None:
        """What a term is, None where it is nothing that shares can be computed of."""
        elements = term.body.atoms(Element)
        summed = self.letter in term.over
        if not all(map(self._at_one_example, elements)) or any(s.name in self.examples for s in term.over if s != self.letter):
            return None
        outside = term.body.xreplace({e: Dummy() for e in elements})
        if self.letter in outside.free_symbols or any(self.count in e.free_symbols for e in elements):
            return None
        kinds = {self.kinds[e.name] for e in elements if e.name in self.kinds}
        if not kinds & {"sum", "mean"}:
            if summed:
                return self._with_factor(term.body, "sum") if term.reduce == "sum" else None
            return None if outside.has(self.count) else "own" if "own" in kinds else "same"
        if summed or "own" in kinds or term.reduce != "sum":
            return None
        return _of_sum(set(map(self._linear, Add.make_args(expand(term.body)))))

    def _linear(self, product: Expr) -> str | None:
        """What a sum or a mean over the examples is when others, the same for all shares, are multiplied with it."""
        totals = [e for e in product.atoms(Element) if self.kinds.get(e.name) in ("sum", "mean")]
        if not totals:
            return None if product.has(self.count) else "same"
        factor, rest = product.as_independent(totals[0], as_Add=False)
        return self._with_factor(factor, self.kinds[totals[0].name]) if rest == totals[0] and len(totals) == 1 else None

    def _with_factor(self, factor: Expr, kind: str) -> str | None:
        """A sum over the examples that is divided by their number is a mean."""
        if not factor.has(self.count):
            return kind
        return "mean" if kind == "sum" and not (factor * self.count).has(self.count) else None

    def _at_one_example(self, element: Element) -> bool:
        """Whether every axis of examples is read at the example's own place, and no other axis there."""
        axes = self.axes.get(element.name, ())
        for axis, at in zip(axes, element.indices, strict=True):
            if base_name(axis) in self.examples:
                if at != self.letter:
                    return False
            elif self.letter in at.free_symbols - {s for e in at.atoms(Element) for s in e.free_symbols}:
                return False
        return True


def _of_sum(kinds: Set[str | None]) -> str | None:
    """What a sum of terms of these kinds is."""
    if kinds == {"sum"}:
        return "sum"
    if "mean" in kinds:
        return "mean" if kinds <= {"mean", "same"} else None
    return ("own" if "own" in kinds else "same") if kinds <= {"own", "same"} else None
