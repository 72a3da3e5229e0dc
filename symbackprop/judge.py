"""The judgement of one claim: its readings, and which of its equalities hold at generic points or at given ones."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mpmath
import numpy as np

from .claim import Misfit, Resolver, Side, Text, Value, cut, read_sides
from .derive import derive
from .errors import FormulaError, Source, SymbackpropError
from .evidence import DIGITS, ROUGH, Evidence, Point, difference, given_point
from .maths import Call, Derivative, Reduce, Symbol
from .names import Names, Reading
from .notation import Derivation
from .parse import Binary, Name, Negate, Node, Number
from .trees import names_in, nodes_of, renamed_tree

_READINGS = 12  # of one claim
_AFFORDABLE = 20_000  # numbers of one product that are worked out in all digits


SETTINGS: Mapping[str, tuple[str, ...]] = {
    "examples": ("all", "one"),
    "delta": ("plus", "minus"),
    "sigma": ("sigmoid", "own"),
    "raised": ("layer", "power"),
    "fraction": ("loose", "tight"),
    "batch": ("rows", "columns"),
    "layout": ("gradient", "numerator"),
    "weights": ("in-out", "out-in"),
}


def read_settings(text: str) -> dict[str, str]:
    """What a notation such as `examples=one, delta=minus` settles. Raises `SymbackpropError` for what is unknown."""
    chosen: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, equals, value = (p.strip() for p in part.partition("="))
        if not equals or value not in SETTINGS.get(key, ()):
            known = "; ".join(f"{k}={'|'.join(v)}" for k, v in SETTINGS.items())
            raise SymbackpropError(f"'{part}' is no choice of notation for claims; known: {known}")
        chosen[key] = value
    return chosen


class Subject:
    """What claims are about: a derivation, its names, its arrays at generic points, and given values."""

    def __init__(self, derivation: Derivation, values: Mapping[str, Any] | None = None, rough: bool = False) -> None:
        self.derivation = derivation
        self.names = Names(derivation)
        self.evidence = Evidence(self.names, rough)
        self.given = given_point(self.names, values) if values is not None else None
        self.variants: dict[str, Subject | None] = {}
        self._more: dict[str, Derivation] = {}

    def derivation_of(self, name: str) -> Derivation:
        """A derivation whose folded form has the derivative by this array."""
        if any(e.name == self.derivation.adjoints.get(name) for e in self.derivation.equations):
            return self.derivation
        if name not in self._more:
            self._more[name] = derive(self.derivation.network, [*self.derivation.wrt, name])
        return self._more[name]


@dataclass(frozen=True)
class Case:
    """One reading of a claim, ready to be evaluated: sides over the same letters, and what was chosen."""

    sides: tuple[Side, ...]
    trees: tuple[Node, ...]
    free: tuple[str, ...]
    letters: Mapping[str, str]  # the name of each letter's size
    shown: Mapping[str, str]  # what the text calls a letter
    one: bool
    notes: tuple[str, ...]
    resolver: Resolver
    chosen: Mapping[str, str]
    misfit: str | None
    condition: Node | None


@dataclass(frozen=True)
class Outcome:
    """Which equalities of a reading hold, and the first place where one does not."""

    case: Case
    right: tuple[bool, ...]
    wrong_at: tuple[int, Point, tuple[int, ...], Any, Any] | None

    @property
    def holds(self) -> bool:
        """Whether every equality holds and all indices fit."""
        return all(self.right) and self.case.misfit is None


class Judge:
    """Reads one claim about a subject and says which of its equalities hold in which reading."""

    def __init__(self, subject: Subject, claim: str, settled: Mapping[str, str]) -> None:
        self.subject, self.claim, self.settled = subject, claim, settled
        self.names, self.evidence = subject.names, subject.evidence
        self.text: Text = cut(claim)
        self.names.variables = {}
        self.names.ahead = self.ahead = not self.names.is_optimiser and self._is_update()
        self.trees = read_sides(self.text, self.names)
        self.names.times = self._times()
        self.names.variables = self.variables = self._variables()

    # ------------------------------------------------------------------ what kind of claim

    def _times(self) -> dict[str, tuple[int, ...]]:
        """The times at which a claim about an optimiser speaks of each state."""
        found: dict[str, set[int]] = {}
        if self.names.is_optimiser:
            states = [s for side in self.trees for s in maths_symbols(side[0]) if s.accent != "hat"]
            for state in filter(None, map(self.names.state_of, states)):
                found.setdefault(state[0], set()).add(state[1])
        return {k: tuple(sorted(v)) for k, v in found.items()}

    def _is_update(self) -> bool:
        first = self.text.sides[0].text
        return self.text.sets or "Δ" in first or "\\Delta" in first or "t+1" in self.claim.replace(" ", "") or "new" in first

    def _variables(self) -> dict[str, str]:
        """The variables of a claim about a function: `σ'(z) = …`, `d/dx tanh(x) = …`, where nothing declared is called so."""
        first = self.trees[0][0]
        found: set[str] = set()
        todo: list[Node] = [first]
        while todo:
            node = todo.pop()
            if isinstance(node, Call):
                inner = node.arguments
                found |= {
                    a.name for a in inner if isinstance(a, Symbol) and not a.below and a.indices is None and a.layer is None
                }
                todo += inner
            elif isinstance(node, Derivative):
                found |= {w.name for w in node.wrt if not w.below and w.indices is None and w.layer is None}
                todo.append(node.of)
            elif isinstance(node, Negate):
                todo.append(node.operand)
        blocked = {a for a, axes in self.names.axes.items() if not axes} | {*self.names.constants, *self.names.functions}
        # A bare z, a or x that the network has too is a variable only where nothing else needs the network.
        return {v: f"{v}_free" for v in sorted(found - blocked) if len(v) <= 2 and self._stands_alone(v)}

    def _stands_alone(self, name: str) -> bool:
        symbols = [s for side in self.trees for s in maths_symbols(side[0])]
        others = [s for s in symbols if s.name != name]
        known = {
            *self.names.functions,
            "e",
            "sech",
            "coth",
            "ln",
            "sgn",
            "σ",
            "exp",
            "log",
            "tanh",
            "sqrt",
            "sinh",
            "cosh",
            "sign",
            "abs",
            "f",
            "g",
            "φ",
        }
        if any(s.below or s.indices is not None or s.layer is not None for s in symbols if s.name == name):
            return False
        return all(s.name in known or s.name.rstrip("'") in known or not s.name.isalpha() for s in others)

    # ------------------------------------------------------------------ readings

    def cases(self) -> Iterator[Case]:
        """The readings of the claim, the plain one first; raises the first problem where none can be read."""
        problem: FormulaError | None = None
        seen: set[tuple[tuple[str, str], ...]] = set()
        waiting: list[dict[str, str]] = [{"examples": "all", **self.settled}]
        if "examples" not in self.settled:
            waiting.append({"examples": "one", **self.settled})
        if "fraction" not in self.settled and any(len(t) > 1 for t in self.trees):
            waiting += [{**w, "fraction": "tight"} for w in list(waiting)]
        found = 0
        while waiting and found < _READINGS:
            chosen = waiting.pop(0)
            key = tuple(sorted(chosen.items()))
            if key in seen:
                continue
            seen.add(key)
            reading = Reading(chosen)
            try:
                case = self._case(reading)
            except Misfit as error:
                case = None
                problem = problem if isinstance(problem, Misfit) else error
            except FormulaError as error:
                case = None
                problem = problem or error
            for what, ways in reading.met.items():
                if what not in self.settled and what != "layer":
                    waiting += [{**chosen, what: way} for way in ways if way != reading.chosen.get(what, ways[0])]
            if case is not None and self._makes_sense(case):
                found += 1
                yield case
        if not found and problem is not None:
            raise problem

    def _makes_sense(self, case: Case) -> bool:
        """One example is meant where the text names no other: no letter, size or sum of the examples."""
        if not case.one or self.settled.get("examples") == "one":
            return True
        batch = self.names.network.batch
        if batch is None:
            return False
        counted = {batch, self.names.size_of[batch], "m", "N"}
        for side in self.trees:
            for s in maths_symbols(side[0]):
                if s.name in counted and not s.below and self.names.is_free(s.name):
                    return False
                if any(isinstance(i, Symbol) and i.name == batch for i in (*(s.indices or ()),)):
                    return False
                if s.indices is not None and any(batch in self.names.axes[m.name] for m in self.names.arrays(s, None)):
                    return False
        if any(isinstance(n, Reduce) and not n.letters for side in self.trees for n in maths_nodes(side[0])):
            return False
        used = {n for n in case.resolver.used if batch in self.names.axes.get(n, ())}
        whole = any(len(s.axes) > 0 for s in case.sides)
        deep = any(len(self.names.axes[n]) > 1 for n in used)
        # Whole matrices hold the examples: one of them alone is not what is written.
        return bool(used) and not (whole and deep)

    def holds_with(self, settings: Mapping[str, str], readings: int = 3) -> bool:
        """Whether the claim holds in the notation that these settings make, in one of its first readings."""
        judge = object.__new__(Judge)
        judge.__dict__ |= self.__dict__
        self.names.times = judge._times()
        judge.settled = {**self.settled, **settings}
        self.names.variables, self.names.ahead = judge.variables, judge.ahead
        try:
            return any(judge.outcome(case).holds for case in itertools.islice(judge.cases(), readings))
        except SymbackpropError:
            return False

    def _case(self, reading: Reading) -> Case:
        return self.case_of(reading, self.trees)

    def case_of(self, reading: Reading, all_trees: Sequence[Sequence[Node]], sides: Sequence[int] | None = None) -> Case:
        """The sides in one reading, from other trees than those of the text where these are given."""
        self.names.independent.clear()
        resolver = Resolver(self.names, reading)
        tight = reading.chosen.get("fraction") == "tight"
        sources = self.text.sides if sides is None else [self.text.sides[k] for k in sides]
        return self._resolved_sides(resolver, reading, tight, sources, all_trees)

    def _resolved_sides(
        self, resolver: Resolver, reading: Reading, tight: bool, sources: Sequence[Source], all_trees: Sequence[Sequence[Node]]
    ) -> Case:
        sides: list[Side] = []
        first = all_trees[0][0]
        bare = isinstance(first, Symbol) and not first.below and first.layer is None and not first.accent
        self.names.updated = first.name if bare and isinstance(first, Symbol) else None
        for k, (source, trees) in enumerate(zip(sources, all_trees, strict=True)):
            self.names.is_first = k == 0
            tree = trees[-1] if tight else trees[0]
            if k == 0 and self.text.sets and isinstance(tree, Symbol) and not self.names.is_optimiser:
                resolver.source = source
                value = resolver.moved(tree)
                sides.append(Side(value.node, value.axes, tuple(resolver.letters), source.text.strip(), source, tree))
                continue
            sides.append(resolver.side(source, tree))
        return self._aligned(sides, resolver, reading)

    def _aligned(self, sides: list[Side], resolver: Resolver, reading: Reading) -> Case:
        """The sides over the same letters: axes without letters are brought together, the letters renamed by how far they run."""
        first = max(sides, key=lambda s: len(s.axes))
        trees: list[Node] = []
        for side in sides:
            if (side.axes and len(side.axes) != len(first.axes)) or (not side.axes and first.axes and not is_number(side.node)):
                left, right = (
                    resolver.shape(Value(s.node, s.axes)) or "a number"
                    for s in (sides[0], side if side is not sides[0] else first)
                )
                raise Misfit(f"the left side is {left}, this is {right}", side.source.place(side.given.at))
            if not all(resolver.fits(a, b) for a, b in zip(first.axes, side.axes, strict=False)):
                left, right = (resolver.shape(Value(s.node, s.axes)) for s in (sides[0], side if side is not sides[0] else first))
                raise Misfit(f"the left side is {left}, this is {right}", side.source.place(side.given.at))
            trees.append(renamed_tree(side.node, dict(zip(side.axes, first.axes, strict=False))))
        free = list(dict.fromkeys((*(i for s in sides for i in s.letters), *first.axes)))
        for i in free:
            if resolver.size(i) == "?":
                raise FormulaError(f"it is not clear how far '{i}' runs", sides[0].source.place(sides[0].given.at))
        condition: Node | None = None
        swap: dict[str, str] = {}
        for i in free:
            size = resolver.size(i)
            stem = self.names.letter_for(size) or i
            swap[i] = resolver.fresh(stem)
        if self.text.condition is not None:
            a, sign, b = self.text.condition
            for letter in (a, b):
                if letter not in swap:
                    raise FormulaError(
                        f"the index '{letter}' of the condition is not used", sides[0].source.place(sides[0].source.start)
                    )
            condition = Binary(0, sign, Name(0, swap[a]), Name(0, swap[b]))
        return Case(
            tuple(sides),
            tuple(renamed_tree(t, swap) for t in trees),
            tuple(swap.values()),
            {i: resolver.size(i) for i in (*swap.values(), *resolver.sizes)},
            {v: k for k, v in swap.items()},
            resolver.one,
            tuple(reading.notes.values()) + (("read for one example",) if resolver.one and self._says_one(resolver) else ()),
            resolver,
            reading.chosen,
            resolver.misfit,
            condition,
        )

    def _says_one(self, resolver: Resolver) -> bool:
        batch = self.names.network.batch
        return "examples" not in self.settled and any(batch in self.names.axes.get(n, ()) for n in resolver.used)

    # ------------------------------------------------------------------ judging

    def outcome(self, case: Case, points: Sequence[Point] | None = None) -> Outcome:
        """Which equalities hold at all points."""
        points = points or self.evidence.points(case.one)
        right = [True] * (len(case.trees) - 1)
        first: tuple[int, Point, tuple[int, ...], Any, Any] | None = None
        for point in points:
            # In all digits where that is soon done.
            rough = any(self.volume(case, tree, point) > _AFFORDABLE for tree in case.trees)
            tolerance = max(point.tolerance, ROUGH) if rough else point.tolerance
            values = [self.value(case, tree, point, rough) for tree in case.trees]
            where = self.value(case, case.condition, point) if case.condition is not None else None
            mask = None if where is None else np.asarray(where, dtype=bool)
            for k, (one, other) in enumerate(itertools.pairwise(values)):
                place = difference(one, other, tolerance, mask)
                if place is not None:
                    right[k] = False
                    if first is None or k < first[0]:
                        a, b = np.broadcast_arrays(one, other)
                        first = k, point, place, a[place], b[place]
        return Outcome(case, tuple(right), first)

    def volume(self, case: Case, tree: Node, point: Point) -> int:
        """How many numbers the largest product in a tree has."""
        letters = {n.name for n in nodes_of(tree) if isinstance(n, Name) and n.name in case.letters}
        return math.prod(point.by_size.get(case.letters[i], 1) for i in letters)

    def value(self, case: Case, tree: Node, point: Point, floating: bool = False) -> np.ndarray:
        """The values of a tree of this reading at a point."""
        point.ensure(names_in(tree))
        with mpmath.workdps(DIGITS), np.errstate(all="ignore"):
            return point.view(case.letters, floating).value(tree, case.free)

    def best(self) -> Outcome:
        """The first reading that holds, or the likeliest of those that do not. Raises `Misfit` where no shapes fit."""
        best: Outcome | None = None
        try:
            for case in self.cases():
                outcome = self._judged(case)
                if outcome.holds:
                    return outcome
                if best is None or _rank(outcome) > _rank(best):
                    best = outcome
        except Misfit:
            if best is None:
                raise
        assert best is not None
        return best

    def _judged(self, case: Case) -> Outcome:
        numeric = [k for k, t in enumerate(case.trees) if is_number(t)]
        if numeric and len(numeric) < len(case.trees) and not all(is_number(t) for t in case.trees):
            return self._with_numbers(case, numeric)
        outcome = self.outcome(case)
        if not outcome.holds and not self.evidence.is_windowed and self._has_numbers():
            declared = self.outcome(case, self.evidence.points(case.one, declared=True))
            return declared if declared.holds else outcome
        return outcome

    def _has_numbers(self) -> bool:
        batch = self.names.network.batch
        return any(i.number is not None for i in self.names.network.indices if i.name != batch)

    def _with_numbers(self, case: Case, numeric: Sequence[int]) -> Outcome:
        """A chain that ends in numbers: the formulas are judged at generic points, the numbers at the given ones."""
        if self.subject.given is None:
            symbolic = self.outcome(case)
            if symbolic.holds:
                return symbolic
            constants = [float(self.value(case, case.trees[k], self.evidence.points(case.one)[0]).ravel()[0]) for k in numeric]
            if all(c in (0.0, 1.0, -1.0, 2.0, 0.5) for c in constants):
                return symbolic
            source = case.sides[numeric[0]].source
            raise FormulaError(
                "a number can be judged where values are given: check(…, values=…) or --values FILE",
                source.place(case.sides[numeric[0]].given.at),
            )
        given = self.subject.given
        points = self.evidence.points(case.one)
        symbolic = [k for k in range(len(case.trees)) if k not in numeric]
        right: list[bool] = []
        first: tuple[int, Point, tuple[int, ...], Any, Any] | None = None
        for k in range(len(case.trees) - 1):
            if k in symbolic and k + 1 in symbolic:
                part = self.outcome(replace(case, trees=case.trees[k : k + 2], sides=case.sides[k : k + 2]), points)
                right.append(part.right[0])
                if part.wrong_at is not None and first is None:
                    first = (k, *part.wrong_at[1:])
                continue
            one, other = (np.asarray(self.value(case, case.trees[j], given), dtype=float) for j in (k, k + 1))
            absolute, relative = max(_rounding(case.sides[j]) for j in (k, k + 1) if j in numeric)
            a, b = np.broadcast_arrays(one, other)
            gap = np.abs(a - b)
            scale = np.maximum(np.abs(a), np.abs(b))
            bad = np.argwhere(gap > absolute + relative * scale + 1e-12)
            right.append(len(bad) == 0)
            if len(bad) and first is None:
                place = tuple(int(i) for i in bad[0])
                first = k, given, place, a[place], b[place]
        return Outcome(case, tuple(right), first)


def _rank(outcome: Outcome) -> tuple[bool, int]:
    """Which of several wrong readings is the likeliest: one whose indices fit and of whose equalities most hold."""
    return outcome.case.misfit is None, sum(outcome.right)


def is_number(tree: Node) -> bool:
    """Whether a side is made of numbers alone."""
    return not names_in(tree)


def _rounding(side: Side) -> tuple[float, float]:
    """How far a number may be off, absolutely and relatively: half a unit of its last digit, and as much for each factor."""
    numbers = [n for n in nodes_of(side.node) if isinstance(n, Number)]
    texts = [side.source.whole[n.at : n.end] for n in numbers if n.end > n.at]
    if len(texts) == 1:
        decimals = len(texts[0].partition(".")[2])
        return 0.5000001 * 10.0**-decimals, 0.0
    digits = [len(t.replace(".", "").lstrip("0")) for t in texts if "." in t]
    return 0.0, 0.5 * 10.0 ** (1 - min(digits, default=12)) * max(len(digits), 1)


def maths_nodes(node: Node) -> Iterator[Node]:
    """All nodes of a tree as it was read."""
    todo: list[Any] = [node]
    while todo:
        current = todo.pop()
        if isinstance(current, Node):
            yield current
            todo += [getattr(current, f.name) for f in dataclasses.fields(current)]
        elif isinstance(current, tuple):
            todo += current


def maths_symbols(node: Node) -> list[Symbol]:
    """The names in a tree as it was read."""
    return [n for n in maths_nodes(node) if isinstance(n, Symbol)]
