"""The numbers of a backward pass in which one step went wrong: what the slip changes, computed anew from the right values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .errors import SymbackpropError
from .evidence import Point
from .names import Names
from .notation import Derivation, Element, Equation
from .tabulate import Table


class Replay:
    """The right values of a network and its derivatives at some points, and those after a misstep."""

    def __init__(self, names: Names, points: Sequence[Point], derivation: Derivation) -> None:
        self.names, self.points = names, points
        network = names.network
        self._forward = {e.name: e for e in network.equations}
        self._raw = {e.name: e for e in derivation.raw}
        self._folded = {e.name: e for e in derivation.equations}
        self._reads = {
            id(e): {x.name for t in e.terms for x in t.body.atoms(Element)}
            for table in (self._forward, self._raw, self._folded)
            for e in table.values()
        }
        self._tables: dict[int, Table] = {}

    def table(self, which: int) -> Table:
        """All right values at a point, in floating point."""
        if which not in self._tables:
            point = self.points[which]
            point.ensure([*self._forward, *self._raw])
            table = point.view({}, floating=True)
            more = [e for n, e in self._folded.items() if n not in self._raw and n not in self._forward]
            try:
                with np.errstate(all="ignore"):
                    table.compute(more)
            except SymbackpropError:
                pass  # sums that only the folded form names: what needs them is not replayed
            self._tables[which] = table
        return self._tables[which]

    def order(self, changed: Mapping[str, Equation], before: Mapping[str, Equation]) -> list[Equation]:
        """The equations to compute anew: the changed ones, and all that is computed from them."""
        merged = {**before, **changed}
        found: dict[str, Equation] = dict(merged)
        grew = True
        while grew:
            grew = False
            for table in (self._forward, self._raw, self._folded):
                for name, e in table.items():
                    if name not in found and self._reads[id(e)] & found.keys():
                        found[name] = e
                        grew = True
        return list(found.values())

    def values(
        self, which: int, changed: Mapping[str, Equation], before: Mapping[str, Equation], wanted: Iterable[str]
    ) -> dict[str, np.ndarray] | None:
        """The wanted arrays after a misstep (and those `before` it); None where they cannot be computed."""
        table = self.table(which)
        order = self.order(changed, before)
        dirty = {e.name for e in order}
        kept = {n: v for n, v in table.values.items() if n not in dirty}
        fresh = Table(kept, table.sizes, table.size_names, table.functions, table.exact)
        try:
            with np.errstate(all="ignore"):
                fresh.compute(order)
        except (SymbackpropError, ValueError, KeyError, IndexError, RecursionError, ZeroDivisionError):
            return None
        return {n: np.asarray(fresh.values[n], dtype=float) for n in wanted if n in fresh.values}
