"""Why the results of a hand-written backward pass are wrong: the slip that explains them, named once.

    dz2 -> dW2, db2, dz1 -> dW1, db1        a factor lost in dz2 makes all four wrong; it is named at the first of them

Every misstep of the chain rule is replayed with numbers; the one after which all results are those that the code returns is the
cause. Where no single one explains everything, the one that explains most is taken, and the rest is explained beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .derive import derive
from .errors import SymbackpropError
from .evidence import Point
from .missteps import Misstep
from .mistakes import mistakes
from .names import Names
from .notation import Derivation, Equation
from .ratios import named_ratio
from .replay import Replay

_TRIES = 6000  # missteps of a small network: a count and no clock, so that answers are repeatable
_ROUNDS = 4  # slips of one backward pass that are told apart

Arrays = Mapping[str, list[np.ndarray]]  # by result, a value for each point


@dataclass(frozen=True)
class Cause:
    """What is wrong, and the result that it is told at (its own for the first one that it explains)."""

    words: str
    root: str


@dataclass
class _Best:
    step: Misstep
    explained: list[str]
    spoilt: int
    words: str
    scales: list[float] | None = field(default=None)
    is_plain: bool = True  # False where a derivative that nobody asked for is zero: it is clearer to name the path that uses it

    @property
    def rank(self) -> tuple[bool, int, int, bool]:
        return self.spoilt == 0, len(self.explained), -self.spoilt, self.is_plain


class Blame:
    """The search for the causes; results are named by the arrays that they are derivatives by."""

    def __init__(self, names: Names, points: Sequence[Point], values: Arrays, truths: Arrays, tolerance: float) -> None:
        self.names, self.points, self.tolerance = names, points, tolerance
        self.values = {n: list(v) for n, v in values.items()}
        self.truths = truths
        self.adjoints = names.derivation.adjoints
        # As short as people write it: with the derivatives that were asked for alone.
        self.derivation = self._folded(names.derivation, list(values))
        self.replay = Replay(names, points, self.derivation)
        self.before: dict[str, Equation] = {}
        order = [e.name for e in names.derivation.raw]
        self.order = sorted(values, key=lambda n: order.index(self.adjoints[n]) if self.adjoints[n] in order else len(order))

    @staticmethod
    def _folded(derivation: Derivation, wanted: Sequence[str]) -> Derivation:
        try:
            short = derive(derivation.network, wanted)
        except SymbackpropError:
            return derivation
        same = all(derivation.adjoints.get(n) == d for n, d in short.adjoints.items())
        return replace(derivation, equations=short.equations) if same else derivation

    def causes(self, wrong: Sequence[str]) -> dict[str, Cause]:
        """A cause for each wrong result for which one was found."""
        found: dict[str, Cause] = {}
        left = [n for n in self.order if n in wrong]
        if not any(np.any(v) for n in left for v in self.values[n]):
            return {n: Cause("it is zero", n) for n in left}
        for one, other in self._exchanged(left):
            words = f"d{one} and d{other} are exchanged"
            found |= {one: Cause(words, one), other: Cause(words, one)}
        left = [n for n in left if n not in found]
        for _ in range(_ROUNDS):
            if not left:
                break
            best = self._search(left)
            if best is None:
                break
            root = best.explained[0]
            at = best.step.at
            said = at == self.adjoints[root] or best.words.endswith(f" in {at}")
            words = best.words if said else f"{best.words} (in {at})"
            found |= {n: Cause(words, root) for n in best.explained}
            left = [n for n in left if n not in found]
            self._go_on(best)
        for name in left:
            other = next((o for o in self.adjoints if o != name and self._is_truth_of(name, o)), None)
            if other is not None:
                found[name] = Cause(f"this is the derivative by {other}", name)
        return found

    def _exchanged(self, wrong: Sequence[str]) -> list[tuple[str, str]]:
        pairs = [(a, b) for k, a in enumerate(wrong) for b in wrong[k + 1 :]]
        return [(a, b) for a, b in pairs if self._is_truth_of(a, b) and self._is_truth_of(b, a)]

    def _is_truth_of(self, name: str, other: str) -> bool:
        adjoint = self.adjoints[other]
        for k, value in enumerate(self.values[name]):
            truth = self.truths[other][k] if other in self.truths else self.replay.table(k).values.get(adjoint)
            if truth is None or not self._close(value, np.asarray(truth, dtype=float)):
                return False
        return True

    def _close(self, value: np.ndarray, truth: np.ndarray, slack: float = 0.0) -> bool:
        if value.shape != truth.shape or not np.all(np.isfinite(truth)):
            return False
        scale = max(float(np.abs(truth).max(initial=0)), 1e-12)
        return bool(np.abs(value - truth).max(initial=0) <= self.tolerance * scale + slack)

    # ------------------------------------------------------------------ missteps

    def _search(self, wrong: Sequence[str]) -> _Best | None:
        best: _Best | None = None
        tries = max(400, min(_TRIES, _TRIES * 3000 // max(self.points[0].work, 1)))
        for number, step in enumerate(mistakes(self.derivation)):
            if number >= tries:
                break
            if set(step.equations) & set(self.before):
                continue
            found = self._judge(step, wrong)
            if found is not None and (best is None or found.rank > best.rank):
                best = found
                if found.spoilt == 0 and len(found.explained) == len(wrong) and found.is_plain:
                    break
        return best

    def _judge(self, step: Misstep, wrong: Sequence[str]) -> _Best | None:
        """What a misstep explains, first at one point and then, where it explains something, at the others."""
        explained = list(wrong)
        spoilt: set[str] = set()
        scales: list[float] = []
        for k in range(len(self.points)):
            wanted = {self.adjoints[n]: n for n in self.values}
            after = self.replay.values(k, step.equations, self.before, wanted)
            if after is None:
                return None
            now = {wanted[a]: v for a, v in after.items()}
            right = self._base(k)
            scale = 1.0
            if step.probe:
                fitted = self._fitted(k, explained, now, right, step.probe)
                if fitted is None:
                    return None
                scale = fitted
                scales.append(scale)
                share = 1 - scale if step.probe == "scale" else scale
                now = {n: right[n] + share * (v - right[n]) for n, v in now.items()}
            slack = {n: 0.03 * np.abs(now[n] - right[n]).max() if step.probe == "constant" else 0.0 for n in now}
            explained = [n for n in explained if n in now and self._close(self.values[n][k], now[n], float(slack[n]))]
            explained = [n for n in explained if not self._close(now[n], right[n])]
            if not explained:
                return None
            others = [n for n in now if n not in wrong and n in self.truths]
            spoilt |= {n for n in others if not self._close(self.values[n][k], now[n], float(slack[n]))}
        words = self._worded(step, scales)
        asked = step.at in {self.adjoints[n] for n in self.values}
        is_plain = asked or bool(scales and abs(scales[0]) > 1e-6) or all(e.terms for e in step.equations.values())
        return None if words is None else _Best(step, explained, len(spoilt), words, scales or None, is_plain)

    def _base(self, k: int) -> dict[str, np.ndarray]:
        if not self.before:
            return {n: t[k] for n, t in self.truths.items()}
        wanted = {self.adjoints[n]: n for n in self.values}
        after = self.replay.values(k, {}, self.before, wanted) or {}
        return {n: t[k] for n, t in self.truths.items()} | {wanted[a]: v for a, v in after.items()}

    def _fitted(
        self, k: int, names: Sequence[str], now: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray], probe: str
    ) -> float | None:
        """How often what was left out stands there, or how far a weight went; from the first result that it changes."""
        for n in names:
            if n not in now or now[n].shape != self.values[n][k].shape:
                continue
            change, gap = now[n] - right[n], self.values[n][k] - right[n]
            norm = float(np.vdot(change, change))
            if norm <= (1e-10 * max(float(np.abs(right[n]).max(initial=0)), 1e-12)) ** 2:
                continue
            share = float(np.vdot(gap, change)) / norm
            # Small constants act in proportion, but only roughly.
            if probe == "constant" and np.abs(gap - share * change).max(initial=0) <= 0.03 * np.abs(change).max():
                return share
            if np.abs(gap - share * change).max(initial=0) > self.tolerance * max(float(np.abs(self.values[n][k]).max()), 1e-12):
                continue
            return 1 - share if probe == "scale" else share
        return None

    def _worded(self, step: Misstep, scales: Sequence[float]) -> str | None:
        close = max(1e-6, 20 * self.tolerance)
        if not step.probe:
            return step.words
        if step.probe == "constant":
            return (
                step.words if all(abs(s - 1) < 0.02 for s in scales) else f"another number stands where {_constant(step)} belongs"
            )
        if step.probe == "rate":
            same = all(abs(s - scales[0]) < close * abs(scales[0]) for s in scales)
            return step.words if same and abs(scales[0]) > close else None
        whole = step.is_zero
        if all(abs(s) < close for s in scales):
            return step.words if not whole or step.at in {self.adjoints[n] for n in self.values} else None
        named = named_ratio(self.names, scales, self.points, close)
        if named is not None and named[1]:
            return named[1] if whole else f"{step.words.removesuffix(' is missing')}: {named[1]}"
        if whole and abs(scales[0] - 1) > self.tolerance and all(abs(s - scales[0]) < close * abs(scales[0]) for s in scales):
            return f"it is {scales[0]:.4g} times what it should be"
        return None

    def _go_on(self, best: _Best) -> None:
        """What comes next is explained beyond the slip that was found, where that is one for all results."""
        if best.spoilt:
            return
        if best.scales is None or all(abs(s) < 1e-6 for s in best.scales):
            self.before |= best.step.equations
        elif best.step.is_zero:
            below = {e.name for e in self.replay.order(best.step.equations, {})}
            for n in self.values:
                if self.adjoints[n] in below:
                    self.values[n] = [v / s for v, s in zip(self.values[n], best.scales, strict=True)]


def _constant(step: Misstep) -> str:
    """The small constant that a misstep speaks of."""
    return step.words.removeprefix("the ").replace(" is forgotten", "")
