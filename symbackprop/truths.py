"""What hand-written code should return: derivatives, Jacobians and Hessians of a network or a formula at a point.

dx      ∂G/∂x, with what comes from above                 shape of x
J, x    ∂out/∂x, where nothing comes from above            shape of out and of x; letters of both may stand once
d2x     ∂²G/∂x∂x                                          shape of x twice, or its diagonal
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .evidence import Point
from .judge import Subject
from .notation import Derivation
from .second import hessian_product
from .tabulate import Table

_EINSUM: Any = np.einsum  # with letters as numbers


class Truths:
    """The right results of one derivation."""

    def __init__(self, derivation: Derivation, outputs: Sequence[str], upstream: Sequence[str], jacobian: bool) -> None:
        self.derivation, self.outputs, self.upstream, self.jacobian = derivation, tuple(outputs), tuple(upstream), jacobian
        self._second: dict[str, Derivation] = {}

    def of(self, result: str, value: np.ndarray, point: Point) -> np.ndarray:
        """The right value of a result, in the form in which the code gives it."""
        if result.startswith("d2") and result[2:] in self.derivation.adjoints:
            return self._hessian(result[2:], value, point)
        name = result[1:] if result[1:] in self.derivation.adjoints else None
        if name is None:
            return array_at(point, result)
        if self.jacobian:
            return self._jacobian(name, value, point)
        return array_at(point, self.derivation.adjoints[name])

    # ------------------------------------------------------------------ Jacobians

    def _jacobian(self, name: str, value: np.ndarray, point: Point) -> np.ndarray:
        whole = self._rows(name, self.outputs[0], self.upstream[0], point)
        letters, kept = self._letters(name, value.ndim)
        if len(kept) == len(letters):
            return whole
        for i in kept:
            places = [k for k, own in enumerate(letters) if own == i]
            if len(places) == 2 and not _is_diagonal(whole, *places):
                return whole
        numbers = {i: n for n, i in enumerate(kept)}
        return _EINSUM(whole, [numbers[i] for i in letters], list(range(len(kept))))

    def _letters(self, name: str, rank: int) -> tuple[list[str], list[str]]:
        """The letters of a Jacobian, those of what it is by with a prime where they are not shared, and each of them once."""
        axes = {a.name: a.axes for a in self.derivation.network.arrays}
        output = axes[self.outputs[0]]
        common = [i for i in output if i in axes[name]]
        shared = max(0, min(len(output) + len(axes[name]) - rank, len(common)))
        letters = [*output, *(i if i in common[:shared] else i + "'" for i in axes[name])]
        return letters, list(dict.fromkeys(letters))

    def contracted(self, name: str, value: np.ndarray, point: Point) -> np.ndarray | None:
        """A Jacobian times what comes from above at a point; None where its shape is none of a Jacobian."""
        _, kept = self._letters(name, value.ndim)
        axes = {a.name: a.axes for a in self.derivation.network.arrays}
        above = array_at(point, self.upstream[0])
        if value.ndim != len(kept):
            return None
        numbers = {i: n for n, i in enumerate(kept)}
        over = [numbers[i] for i in axes[self.outputs[0]]]
        by = [numbers.get(i + "'", numbers.get(i, -1)) for i in axes[name]]
        try:
            return _EINSUM(value, list(range(len(kept))), above, over, by)
        except ValueError:
            return None

    def _rows(self, name: str, output: str, above: str, point: Point) -> np.ndarray:
        adjoint = self.derivation.adjoints[name]
        point.ensure([adjoint, output])
        table = point.view({}, floating=True)
        back = {e.name for e in self.derivation.raw}
        kept = {n: v for n, v in table.values.items() if n not in back and n != self.derivation.network.loss}
        shape = table.values[output].shape
        found = np.zeros((*shape, *table.values[name].shape))
        for place in itertools.product(*map(range, shape)):
            seed = np.zeros(shape)
            seed[place] = 1
            fresh = Table(kept | {above: seed}, table.sizes, table.size_names, table.functions, table.exact)
            with np.errstate(all="ignore"):
                fresh.compute(self.derivation.raw)
            found[place] = fresh.values[adjoint]
        return found

    # ------------------------------------------------------------------ Hessians

    def _hessian(self, name: str, value: np.ndarray, point: Point) -> np.ndarray:
        if name not in self._second:
            self._second[name] = hessian_product(self.derivation.network, name)
        second = self._second[name]
        new = replace(second, network=replace(second.network, indices=self.derivation.network.indices, batch=None))
        direction = next(a.name for a in second.network.arrays if a.name.startswith("v_") and a.role == "input")
        point.ensure([e.name for e in self.derivation.network.equations])
        table = point.view({}, floating=True)
        shape = table.values[name].shape
        given = {a.name for a in self.derivation.network.arrays if a.role in ("input", "parameter", "target", "noise")}
        given |= {n for n, _ in self.derivation.network.constants}
        subject = Subject(new, rough=True)
        columns = np.zeros((*shape, *shape))
        for place in itertools.product(*map(range, shape)):
            v = np.zeros(shape)
            v[place] = 1
            values = {n: table.values[n] for n in given if n in table.values} | {direction: v}
            if self.jacobian:
                values |= {n: np.ones(table.values[n].shape) for n in self.upstream}
            sizes = {i.name: point.sizes[i.name] for i in new.network.indices}
            own = Point(subject.names, sizes, values, point.functions, rough=True)
            columns[place] = array_at(own, new.adjoints[name])
        count = len(shape)
        whole = np.moveaxis(columns, range(count), range(count, 2 * count))
        if value.shape == shape and count and all(_is_diagonal(whole, k, count + k) for k in range(count)):
            return _EINSUM(whole, [*range(count), *range(count)], list(range(count)))
        return whole.reshape(_flat(shape)) if value.ndim == 2 and value.size == whole.size else whole


def _flat(shape: Sequence[int]) -> tuple[int, int]:
    count = int(np.prod(shape))
    return count, count


def _is_diagonal(array: np.ndarray, one: int, other: int) -> bool:
    """Whether an array is zero where two of its axes have different places."""
    if array.shape[one] != array.shape[other]:
        return False
    moved = np.moveaxis(array, (one, other), (0, 1))
    off = ~np.eye(array.shape[one], dtype=bool)
    return not np.any(moved[off])


def array_at(point: Point, name: str) -> np.ndarray:
    """An array at a point, in floating point."""
    point.ensure([name])
    return np.array(point.view({}, floating=True).values[name], dtype=float)
