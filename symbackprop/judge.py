"""The judgement of one claim: its readings, and which of its equalities hold at generic points or at given ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np

from .claim import Misfit, Resolver, Side, Text, Value, cut, read_condition, read_sides
from .cover import Sites, cover
from .derive import derive
from .differentiate import read_for
from .errors import FormulaError, Source, SymbackpropError
from .evidence import DIGITS, FINE, ROUGH, Evidence, Point, Setting, difference, given_point, is_tiny
from .maths import COMPARISONS, Call, Derivative, Reduce, Symbol, Transpose, nodes_below
from .names import Names, Reading
from .notation import Derivation
from .parse import Apply, Binary, Name, Negate, Node, Number
from .tabulate import Trace
from .trees import names_in, nodes_of, renamed_tree

_READINGS = 12  # of one claim
_AFFORDABLE = 20_000  # numbers of one product that are worked out in all digits
_SMALL = 3_000  # values of a network that are worked out in all digits at every point
_SHARES = tuple(map(Fraction, ("1", "2", "1/2", "4", "3")))  # of a constant, that a claim may have put its number into
_PLACES = 60  # of an axis of which a claim names a place


SETTINGS: Mapping[str, tuple[str, ...]] = {
    "examples": ("all", "one"),
    "vectors": ("columns", "rows"),
    "subscripts": ("names", "elements"),
    "derivative": ("matrix", "elementwise"),
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
    least: tuple[tuple[str, int], ...] = ()  # sizes that must have so many places, since numbers of them are named


@dataclass(frozen=True)
class Outcome:
    """Which equalities of a reading hold, and the first place where one does not."""

    case: Case
    right: tuple[bool, ...]
    wrong_at: tuple[int, Point, tuple[int, ...], Any, Any] | None
    seen: tuple[bool, ...] = ()  # which equalities could be judged anywhere
    beyond: bool = False  # whether places were left out at which an index leaves its array
    one_holds: bool = False  # whether the claim is right for one example, where the whole batch is meant

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
        self.names.ahead = False
        self.trees = read_sides(self.text, self.names)
        self.names.ahead = self.ahead = not self.names.is_optimiser and self._is_update()
        kinds = {n.partial for t in self.trees for n in nodes_below(t[0]) if isinstance(n, Derivative)}
        self.mixed = len(kinds) == 2  # both ∂ and d
        self.given_condition = read_condition(self.text, self.names)
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
        first = self.trees[0][0]
        return self.text.sets or any(
            (isinstance(n, Call) and n.head.name == "Δ") or (isinstance(n, Symbol) and self.names.is_ahead(n))
            for n in nodes_below(first)
        )

    def _variables(self) -> dict[str, str]:
        """The variables of a claim about functions alone: `σ'(z) = …`, `d/dx tanh(x) = …`.

        What is declared is no variable, but for an array that a function of its elements is differentiated by.
        """
        found: set[str] = set()
        differentiated: set[str] = set()
        symbols: list[Symbol] = []
        for side in self.trees:
            for node in nodes_below(side[0]):
                if isinstance(node, Symbol):
                    symbols.append(node)
                elif isinstance(node, Call):
                    found |= {s.name for a in node.arguments for s in maths_symbols(a) if _is_bare(s)}
                elif isinstance(node, Derivative):
                    inner = {s.name for s in maths_symbols(node.of) if _is_bare(s)}
                    found |= {w.name for w in node.wrt if _is_bare(w)}
                    differentiated |= {w.name for w in node.wrt if _is_bare(w)} & inner
        heads = {n.head for side in self.trees for n in nodes_below(side[0]) if isinstance(n, Call)}
        found = {f for f in found if not self._is_function_name(f)}
        if any(s not in heads and not (_is_bare(s) and (s.name in found or s.name in ("e", "π", "pi"))) for s in symbols):
            if any(s not in heads and s.name not in found and not self._is_function_name(s.name) for s in symbols):
                return {}
            if not all(_is_bare(s) for s in symbols if s.name in found):
                return {}
        declared = {f for f in found if not self.names.is_free(f) or f in self.names.size_of.values()}
        if any(self.names.axes.get(f) == () or f not in differentiated for f in declared):
            found -= declared
            if declared and found:
                return {}  # what stands beside the network's arrays is not made up
        return {v: f"{v}_free" for v in sorted(found) if len(v) <= 2}

    def _is_function_name(self, name: str) -> bool:
        """Whether a name is that of a function and of no array."""
        return self.names.is_free(name) and (self.names.is_function(Symbol(0, name)) or name in ("e", "π", "pi"))

    # ------------------------------------------------------------------ readings

    def cases(self) -> Iterator[Case]:
        """The readings of the claim, the plain one first; raises the first problem where none can be read."""
        problem: FormulaError | None = None
        seen: set[tuple[tuple[str, str], ...]] = set()
        waiting: list[dict[str, str]] = [{"examples": "all", **self.settled}]
        if "examples" not in self.settled and self.names.has_examples:
            waiting.append({"examples": "one", **self.settled})
        waiting += [{**w, "vectors": "rows"} for w in waiting if w["examples"] == "one" and "vectors" not in w]
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
                case = self.case_of(reading, self.trees)
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
        """One example is meant where the text names no other: no letter, size, sum or matrix of the examples."""
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
                if s.name[0].isupper() and any(
                    batch in self.names.axes[m.name] and m.name[0] == s.name[0].lower() for m in self.names.arrays(s, None)
                ):
                    return False  # X, P: the examples as rows of a matrix
        if any(isinstance(n, Reduce) and not n.letters for side in self.trees for n in nodes_below(side[0])):
            return False
        return any(batch in self.names.axes.get(n, ()) for n in case.resolver.used)

    def holds_with(self, settings: Mapping[str, str], readings: int = 3) -> bool:
        """Whether the claim holds in the notation that these settings make, in one of its first readings."""
        judge = object.__new__(Judge)
        judge.__dict__ |= self.__dict__
        self.names.times = judge._times()
        judge.settled = {"examples": "all", **self.settled, **settings}
        self.names.variables, self.names.ahead = judge.variables, judge.ahead
        try:
            return any(judge.outcome(case).holds for case in itertools.islice(judge.cases(), readings))
        except SymbackpropError:
            return False

    def case_of(self, reading: Reading, all_trees: Sequence[Sequence[Node]], sides: Sequence[int] | None = None) -> Case:
        """The sides in one reading, from other trees than those of the text where these are given."""
        self.names.independent.clear()
        resolver = Resolver(self.names, reading)
        resolver.mixed = self.mixed
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
        resolved: Node | None = None
        letters = dict.fromkeys(i for s in sides for i in s.letters)
        if self.given_condition is not None and self.text.condition is not None:
            resolver.letters = dict(letters)
            resolved = resolver.condition(self.text.condition, self.given_condition)
            if more := [i for i in resolver.letters if i not in letters]:
                raise FormulaError(
                    f"the index '{more[0]}' of the condition is not used in the claim",
                    self.text.condition.place(self.given_condition.at),
                )
        free = list(dict.fromkeys((*letters, *first.axes)))
        for i in free:
            if resolver.size(i) == "?":
                raise FormulaError(f"it is not clear how far '{i}' runs", sides[0].source.place(sides[0].given.at))
        condition: Node | None = None
        swap: dict[str, str] = {}
        for i in free:
            size = resolver.size(i)
            stem = self.names.letter_for(size) or i
            swap[i] = resolver.fresh(stem)
        if resolved is not None:
            condition = renamed_tree(resolved, swap)
        return Case(
            tuple(sides),
            tuple(renamed_tree(t, swap) for t in trees),
            tuple(swap.values()),
            {i: resolver.size(i) for i in (*swap.values(), *resolver.sizes)},
            {v: k for k, v in swap.items()},
            resolver.one,
            tuple(reading.notes.values()) + ((self.names.for_one_example,) if resolver.one and self._says_one(resolver) else ()),
            resolver,
            reading.chosen,
            resolver.misfit,
            condition,
            self._least(resolver, free, [*(s.node for s in sides), *([resolved] if resolved is not None else [])]),
        )

    def _least(self, resolver: Resolver, free: Sequence[str], trees: Sequence[Node]) -> tuple[tuple[str, int], ...]:
        """How many places axes need so that each number that a claim compares places with is one of them."""
        least = dict(resolver.least)
        if resolver.counts:
            nodes = [n for tree in trees for n in nodes_of(tree)]
            numbers = [n.value for n in nodes if isinstance(n, Number) and n.value > 1]
            whole = [int(v) for v in numbers if v.denominator == 1]
            if whole and max(whole) > _PLACES:
                raise FormulaError(f"a place {max(whole)} is too far out to be tried", resolver.source.place(0))
            used = {n.name for n in nodes if isinstance(n, Name)}
            for letter in {*free, *resolver.sizes}:
                size = resolver.size(letter)
                if letter in used and whole and size != "?" and self.names.declared_size(size) is None:
                    least[size] = max(least.get(size, 0), max(whole) + 2)
        return tuple(sorted(least.items()))

    def _says_one(self, resolver: Resolver) -> bool:
        batch = self.names.network.batch
        return "examples" not in self.settled and any(batch in self.names.axes.get(n, ()) for n in resolver.used)

    # ------------------------------------------------------------------ judging

    def setting(self, case: Case, declared: bool = False, held: frozenset[str] = frozenset()) -> Setting:
        """Which points a reading is judged at."""
        return Setting(case.one, declared, held, case.least)

    def outcome(self, case: Case, declared: bool = False, held: frozenset[str] = frozenset()) -> Outcome:
        """Which equalities hold at two generic points and then on all branches."""
        setting = self.setting(case, declared, held)
        outcome = self._at_points(case, self.evidence.points(setting))
        if not outcome.holds or self.evidence.rough:
            return outcome
        further, unreached = cover(self.evidence, setting, lambda point: self._sites(case, point))
        further = [p.exactly() if self._cost(case, p) <= _SMALL else p for p in further]
        more = self._at_points(case, further)
        for k, (one, other) in enumerate(zip(outcome.seen, more.seen, strict=True)):
            if not one and not other:
                side = case.sides[k + 1]
                problem = "no values were found at which both sides are real numbers and the condition holds"
                raise FormulaError(problem, side.source.place(side.given.at))
        notes = [_BEYOND] if outcome.beyond or more.beyond else []
        where = [f"the equation of {label}" if label else "the claim" for label in unreached]
        notes += [f"no input was found that reaches both branches of {' and of '.join(where)}"] if where else []
        case = replace(case, notes=(*case.notes, *notes))
        right = tuple(a and b for a, b in zip(outcome.right, more.right, strict=True))
        return Outcome(case, right, more.wrong_at, beyond=outcome.beyond or more.beyond)

    def _cost(self, case: Case, point: Point) -> int:
        """How many values a point takes: the network once, and again for each row of a derivative without a formula."""
        names = set[str]().union(*map(names_in, case.trees))
        rows = 1
        for (of, _), j in self.names.jacobians.items():
            if j.name in names and j.equation is None:
                rows += 4 * math.prod(point.sizes[i] for i in self.names.axes[of])
        return point.work * rows

    def _at_points(self, case: Case, points: Sequence[Point]) -> Outcome:
        right = [True] * (len(case.trees) - 1)
        seen = [False] * len(right)
        spoken = any(self._speaks_of_places(case, tree) for tree in case.trees)
        first: tuple[int, Point, tuple[int, ...], Any, Any] | None = None
        beyond = False
        for point in points:
            for k, (wrong, compared, edge, values) in enumerate(self._compared(case, point)):
                seen[k] |= bool(compared.any())
                inner = wrong if spoken else wrong & ~edge
                # What is left where indices leave their arrays must say something: 0 = 0 elsewhere does not.
                telling = compared & ~edge & np.asarray(np.broadcast_to(values[0], wrong.shape) != 0, dtype=bool)
                if wrong.any() and not inner.any() and telling.any():
                    beyond = True
                    continue
                place = next(iter(np.argwhere(inner if inner.any() else wrong).tolist()), None)
                if place is not None:
                    right[k] = False
                    if first is None or k < first[0]:
                        a, b = (np.broadcast_to(v, wrong.shape)[tuple(place)] for v in values)
                        first = k, point, tuple(place), a, b
        return Outcome(case, tuple(right), first, tuple(seen), beyond)

    @staticmethod
    def _speaks_of_places(case: Case, tree: Node) -> bool:
        """Whether a side tells single places apart, such as t = T-1: then it is about all of them."""
        free = set(case.free)
        for n in nodes_of(tree):
            if isinstance(n, Binary) and n.operator in COMPARISONS:
                names = names_in(n)
                if names & free and (names - free or isinstance(n.left, Number) or isinstance(n.right, Number)):
                    return True
        return False

    def _compared(self, case: Case, point: Point) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, tuple[Any, Any]]]:
        """For each equality at a point: where it is wrong, where it can be judged, and where it leaves an array."""
        # In all digits where that is soon done.
        rough = not point.exact or any(self.volume(case, tree, point) > _AFFORDABLE for tree in case.trees)
        tolerance = max(point.tolerance, ROUGH) if rough else point.tolerance
        found = [self._value_and_edge(case, tree, point, rough) for tree in case.trees]
        where = self.value(case, case.condition, point) if case.condition is not None else None
        mask = None if where is None else np.asarray(where, dtype=bool)
        again: list[tuple[np.ndarray, Any]] | None = None
        fine: list[tuple[np.ndarray, Any]] | None = None
        for k, ((one, a), (other, b)) in enumerate(itertools.pairwise(found)):
            values = one, other
            wrong, compared = difference(one, other, tolerance, mask)
            if not rough and (wrong.any() or is_tiny(one, other)):
                # What is tiny, or what cancels far out, may be a number or rounding: more digits tell.
                fine = fine or self._finely(case, point)
                values = fine[k][0], fine[k + 1][0]
                wrong, compared = difference(*values, tolerance, mask, 10.0 ** (15 - FINE))
            if wrong.any() and rough and point.affordable and not self.evidence.rough:
                # Floating point says no only where all digits do.
                again = again or self._exactly(case, point)
                values = again[k][0], again[k + 1][0]
                wrong, compared = difference(*values, 10.0 ** (8 - DIGITS), mask)
            yield wrong, compared, np.broadcast_to(a | b, wrong.shape), values

    def _finely(self, case: Case, point: Point) -> list[tuple[np.ndarray, Any]]:
        other = point.finely()
        return [self._value_and_edge(case, tree, other, False) for tree in case.trees]

    def _exactly(self, case: Case, point: Point) -> list[tuple[np.ndarray, Any]]:
        exact = point.exactly()
        return [self._value_and_edge(case, tree, exact, False) for tree in case.trees]

    def _sites(self, case: Case, point: Point) -> Sites | None:
        """What the network and the claim compare at a point in floating point; None where that cannot be evaluated."""
        trees = [*case.trees, *([case.condition] if case.condition is not None else [])]
        try:
            with np.errstate(all="ignore"):
                point.ensure({self.names.network.loss}.union(*map(names_in, trees)))
                view = point.view(case.letters)
                view.trace = Trace()
                for k, tree in enumerate(trees):
                    view.trace.begin(f"@{k}")
                    view.value(tree, case.free)
        except (ArithmeticError, SymbackpropError):
            return None
        assert point.table.trace is not None
        needed = read_for(self.names.everything, self._behind(trees))
        sites = {s: v for s, v in point.table.trace.sites.items() if s[0] in needed} | view.trace.sites
        return {s: np.concatenate(v) for s, v in sites.items()}

    def _behind(self, trees: Iterable[Node]) -> set[str]:
        """The arrays that trees speak of; behind a derivative of one by another, the network as far as the one."""
        names = set[str]().union(*map(names_in, trees))
        for (of, _), j in self.names.jacobians.items():
            if j.name in names:
                names.add(of)
        return names

    def volume(self, case: Case, tree: Node, point: Point) -> int:
        """How many numbers the largest product in a tree has."""
        letters = {n.name for n in nodes_of(tree) if isinstance(n, Name) and n.name in case.letters}
        return math.prod(point.by_size.get(case.letters[i], 1) for i in letters)

    def value(self, case: Case, tree: Node, point: Point, floating: bool = False) -> np.ndarray:
        """The values of a tree of this reading at a point."""
        return self._value_and_edge(case, tree, point, floating)[0]

    def _value_and_edge(self, case: Case, tree: Node, point: Point, floating: bool) -> tuple[np.ndarray, Any]:
        point.ensure(names_in(tree))
        with mpmath.workdps(point.digits), np.errstate(all="ignore"):
            view = point.view(case.letters, floating)
            return view.value(tree, case.free), view.edge

    def best(self) -> Outcome:
        """The first reading that holds, or the likeliest of those that do not. Raises `Misfit` where no shapes fit.

        Where the declaration writes the examples out, the whole batch is meant as soon as a reading of it fits.
        """
        best: Outcome | None = None
        aside: Outcome | None = None  # right for one example, where the batch is meant
        try:
            for case in self.cases():
                if case.one and best is not None and not self.names.implies_examples and "examples" not in self.settled:
                    if aside is None and (outcome := self._judged(case)).holds:
                        aside = outcome
                    continue
                outcome = self._judged(case)
                if outcome.holds:
                    return outcome
                if best is None or _rank(outcome) > _rank(best):
                    best = outcome
        except Misfit:
            if best is None:
                self._name_all()
                raise
        assert best is not None
        return replace(best, one_holds=aside is not None)

    def _name_all(self) -> None:
        """Raises the first name that is unknown: what is not understood has no shape that could be wrong."""
        resolver = Resolver(self.names, Reading({"examples": "all", **self.settled}))
        for source, trees in zip(self.text.sides, self.trees, strict=True):
            resolver.source = source
            todo: list[Any] = [trees[0]]
            while todo:
                node = todo.pop()
                if isinstance(node, Symbol):
                    try:
                        resolver.value(node)
                    except FormulaError as error:
                        if error.message.startswith("unknown name"):
                            raise
                elif isinstance(node, Call):
                    todo += node.arguments
                elif isinstance(node, (Binary, Negate, Transpose)):
                    todo += [n for n in (getattr(node, k, None) for k in ("left", "right", "operand")) if n is not None]

    def _judged(self, case: Case) -> Outcome:
        numeric = [k for k, t in enumerate(case.trees) if is_number(t)]
        if len(numeric) == len(case.trees):
            return self._of_numbers(case)
        if numeric:
            return self._with_numbers(case, numeric)
        outcome = self.outcome(case)
        if outcome.holds:
            return self._at_declared_constants(case, outcome)
        if not self.evidence.is_windowed and self._has_numbers() and (other := self.outcome(case, declared=True)).holds:
            return other
        held = self._unnamed_constants(case)
        if held and (other := self.outcome(case, held=held)).holds:
            values = {c: v for c, v in self.names.network.constants}
            words = ", ".join(f"{c} = {_decimal(values[c])}" for c in sorted(held))
            return replace(other, case=replace(other.case, notes=(*other.case.notes, f"with {words}")))
        return outcome

    def _at_declared_constants(self, case: Case, outcome: Outcome) -> Outcome:
        """What holds for any constants must hold for the declared ones."""
        held = frozenset(c for c, _ in self.names.network.constants)
        if not held:
            return outcome
        declared = self._at_points(case, self.evidence.points(self.setting(case, held=held)))
        return outcome if declared.holds else declared

    def _has_numbers(self) -> bool:
        return any(i.number is not None for i in self.names.network.indices)

    def _unnamed_constants(self, case: Case) -> frozenset[str]:
        """The constants of the network for which a claim may have written their numbers: 4u for 2u/τ with τ = 1/2."""
        named = set[str]().union(*map(names_in, case.trees))
        numbers = {n.value for t in case.trees for n in nodes_of(t) if isinstance(n, Number)} - {0, 1, 2, Fraction(1, 2)}
        constants = [(c, abs(Fraction(int(v.p), int(v.q)))) for c, v in self.names.network.constants if c not in named]
        return frozenset(
            c for c, v in constants if v and numbers & {v * k for k in _SHARES} | {k / v for k in _SHARES if v} & numbers
        )

    def _of_numbers(self, case: Case) -> Outcome:
        """Numbers alone: what was printed is judged by its digits, what is computed in all of them."""
        point = self.evidence.points(self.setting(case))[0]
        right: list[bool] = []
        first: tuple[int, Point, tuple[int, ...], Any, Any] | None = None
        notes: list[str] = []
        for k in range(len(case.trees) - 1):
            close, values, kink = self._close(case, k, point, exact=True)
            notes += [kink] if kink else []
            right.append(close)
            if not close and first is None:
                first = k, point, (), *values
        return Outcome(replace(case, notes=(*case.notes, *notes)), tuple(right), first)

    def _close(self, case: Case, k: int, point: Point, exact: bool = False) -> tuple[bool, tuple[Any, Any], str]:
        """Whether two sides of which one is a number agree, with their values; at a kink any subgradient will do.

        What is computed from numbers is `exact`, or a product of printed ones that may be as far off as these.
        """
        pair = case.trees[k], case.trees[k + 1]
        sides = case.sides[k], case.sides[k + 1]
        one, other = (np.asarray(self.value(case, tree, point), dtype=float) for tree in pair)
        bad, a, b = _apart(one, other, sides, exact)
        place = next(iter(np.argwhere(bad).tolist()), None)
        if place is None:
            return True, (a.flat[0], b.flat[0]), ""
        values = a[tuple(place)], b[tuple(place)]
        printed = 0 if _is_printed(sides[0]) else 1
        ends = [self._at_tie(case, pair[1 - printed], point, tie) for tie in (False, True)]
        if np.any(ends[0] != ends[1]):
            low, high = np.minimum(*ends), np.maximum(*ends)
            claimed = (one, other)[printed]
            slack = 1e-12 * np.maximum(np.abs(low), np.abs(high))
            if np.all((claimed >= low - slack) & (claimed <= high + slack)):
                return True, values, "another subgradient at the kink"
        return False, values, ""

    def _at_tie(self, case: Case, tree: Node, point: Point, tie: bool) -> np.ndarray:
        """The value of a tree where comparisons of equal values end one way: the derivative from one side of a kink."""
        other = point.exactly() if point.exact else point.remade(point.drawn, False)
        other.table.tie = tie
        with mpmath.workdps(DIGITS), np.errstate(all="ignore"):
            other.ensure(names_in(tree))
            view = other.view(case.letters)
            view.tie = tie
            return np.asarray(view.value(tree, case.free), dtype=float)

    def _with_numbers(self, case: Case, numeric: Sequence[int]) -> Outcome:
        """A chain that ends in numbers: the formulas are judged at generic points, the numbers at the given ones."""
        if self.subject.given is None:
            symbolic = self.outcome(case)
            if symbolic.holds:
                return self._at_declared_constants(case, symbolic)
            if not self.evidence.is_windowed and self._has_numbers():
                declared = self.outcome(case, declared=True)
                if declared.holds:
                    return declared
            held = self._unnamed_constants(case)
            if held and (other := self.outcome(case, held=held)).holds:
                return other
            point = self.evidence.points(self.setting(case))[0]
            constants = [float(self.value(case, case.trees[k], point).ravel()[0]) for k in numeric]
            if all(c in (0.0, 1.0, -1.0, 2.0, 0.5) for c in constants):
                return symbolic
            source = case.sides[numeric[0]].source
            raise FormulaError(
                "a number can be judged where values are given: check(…, values=…) or --values FILE",
                source.place(case.sides[numeric[0]].given.at),
            )
        given = self.subject.given
        symbolic = [k for k in range(len(case.trees)) if k not in numeric]
        right: list[bool] = []
        notes: list[str] = []
        first: tuple[int, Point, tuple[int, ...], Any, Any] | None = None
        for k in range(len(case.trees) - 1):
            if k in symbolic and k + 1 in symbolic:
                part = self.outcome(replace(case, trees=case.trees[k : k + 2], sides=case.sides[k : k + 2]))
                right.append(part.right[0])
                if part.wrong_at is not None and first is None:
                    first = (k, *part.wrong_at[1:])
                continue
            close, values, kink = self._close(case, k, given)
            notes += [kink] if kink else []
            right.append(close)
            if not close and first is None:
                first = k, given, (0,) * len(case.free), *values
        return Outcome(replace(case, notes=(*case.notes, *notes)), tuple(right), first)


_BEYOND = "read for the places at which every index lies within its array"


def _rank(outcome: Outcome) -> tuple[bool, int]:
    """Which of several wrong readings is the likeliest: one whose indices fit and of whose equalities most hold."""
    return outcome.case.misfit is None, sum(outcome.right)


def is_number(tree: Node) -> bool:
    """Whether a side is made of numbers alone."""
    return not names_in(tree) - {"pi"}


def _is_printed(side: Side) -> bool:
    """Whether a side is a number that was printed, such as -0.0822, and nothing to compute."""
    node = side.node.operand if isinstance(side.node, Negate) else side.node
    return isinstance(node, Number)


def _apart(
    one: np.ndarray, other: np.ndarray, sides: tuple[Side, Side], exact: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where two sides differ by more than the digits that were printed, or than those of the numbers they are computed from."""
    a, b = np.broadcast_arrays(one, other)
    gap, scale = np.abs(a - b), np.maximum(np.abs(a), np.abs(b))
    absolute, relative = zip(*(_rounding(s, exact) for s in sides), strict=True)
    within = gap <= max(absolute) + max(relative) * scale + 1e-13 * scale
    # Half a unit of the last digit is much where there are few digits: 0 is no rounding of 0.2.
    most = 0.1 if any(map(_is_printed, sides)) and not max(relative) else 0.02
    return np.asarray(~(within & (gap <= most * scale + 1e-300)) & ~(gap <= 1e-13 * scale), dtype=bool), a, b


def _rounding(side: Side, exact: bool) -> tuple[float, float]:
    """How far a number may be off, absolutely and relatively: half a unit of its last digit, and as much for each factor."""
    numbers = [n for n in nodes_of(side.node) if isinstance(n, Number)]
    texts = [side.source.whole[n.at : n.end] for n in numbers if n.end > n.at]
    if _is_printed(side) and len(texts) == 1:
        digits, _, power = texts[0].lower().partition("e")
        if "." not in digits and not power:
            return 0.0, 0.0  # a whole number is what it says
        return 0.5000001 * 10.0 ** (int(power or 0) - len(digits.partition(".")[2])), 0.0
    decimals = [len(t.replace(".", "").lstrip("0")) for t in texts if "." in t]
    if exact or not decimals or not is_number(side.node) or any(isinstance(n, Apply) for n in nodes_of(side.node)):
        return 0.0, 0.0
    return 0.0, 0.5 * 10.0 ** (1 - min(decimals)) * len(decimals)


def _decimal(value: Any) -> str:
    return f"{float(value):.12g}"


def _is_bare(s: Symbol) -> bool:
    """Whether nothing but a power or primes hangs on a name."""
    return not s.below and s.indices is None and s.layer is None and not s.accent


def maths_symbols(node: Node) -> list[Symbol]:
    """The names in a tree as it was read."""
    return [n for n in nodes_below(node) if isinstance(n, Symbol)]
