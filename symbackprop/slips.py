"""What is wrong with a wrong claim: the slip that explains it, the declaration that would make it right, the right formula.

A cause is named only where it is confirmed by numbers at every point: the claim with one change is the truth up to a constant
that has a name, or the claim is what the chain rule gives with one step left out.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import sympy
from sympy import Expr

from .answer import derived, written
from .claim import Misfit
from .derive import closed_form
from .differentiate import differentiate, read_for
from .edits import Edit, Material, edits, text_of
from .errors import SymbackpropError
from .evidence import Point
from .judge import Case, Judge, Outcome, Subject
from .missteps import Misstep, path_words
from .mistakes import mistakes
from .names import Reading
from .notation import Call, Derivation, Element, Equation, Network, Step, index, size_symbol
from .parse import Apply, Binary, Item, Name, Negate, Node
from .ratios import CLOSE, TRIES, constant_ratio, constants_of, is_plausible, named_ratio, tries_for
from .replay import Replay
from .shapes import reshaped
from .tabulate import Table, tree_of
from .trees import names_in, nodes_of, renamed_tree
from .variants import variants
from .write import Writer


@dataclass(frozen=True)
class Found:
    """A cause in words, claim over truth where that is one number, the repaired tree, the characters that are wrong.

    Of a whole claim also the right formula, the declaration it would be right for, and a place with both values.
    """

    words: str
    ratio: str | None = None
    tree: Node | None = None
    span: tuple[int, int] | None = None
    correct: str | None = None
    declaration: str | None = None
    counterexample: Mapping[str, Any] | None = None


def wrong_equality(judge: Judge, outcome: Outcome) -> Found:
    """What is wrong with a claim that does not hold in any reading: the first wrong equality, and its cause."""
    case = outcome.case
    if outcome.wrong_at is None:
        diagnosis = Diagnosis(judge, case, 0)
        found = diagnosis.repaired_indices() or Found("")
        reason = "; ".join(filter(None, (case.misfit or "the indices do not fit", found.words)))
        return replace(found, words=reason, correct=diagnosis.correct(found))
    k, point, place, one, other = outcome.wrong_at
    given = point is judge.subject.given
    diagnosis = Diagnosis(judge, case, k, None if given else point)
    if case.misfit and (mended := _mended(judge, case)) is not None:
        return Found(
            f"{case.misfit}; {mended[0]}", None, None, mended[1] or diagnosis.side_span(), mended[2] or diagnosis.correct(None)
        )
    found = Found(_number_words(one, other), span=diagnosis.side_span()) if given else diagnosis.cause()
    wrong = [n + 1 for n, r in enumerate(outcome.right) if not r]
    branch = None if given or point in judge.evidence.points(judge.setting(case)) else _branch_words(point, one, other)
    first = f"equality {wrong[0]} of {len(outcome.right)} is the first that does not hold" if len(outcome.right) > 1 else None
    return Found(
        "; ".join(filter(None, (first, branch, case.misfit, found.words if found and not branch else None))),
        found.ratio if found else diagnosis.plain_ratio(),
        None,
        (found and found.span) or diagnosis.side_span(),
        diagnosis.correct(found),
        None if given else diagnosis.declaration(),
        _counterexample(case, place, one, other),
    )


def _branch_words(point: Point, one: Any, other: Any) -> str:
    """Where a claim that is right on some branches fails on another."""
    at = [f"{name} = {float(v):.4g}" for name, v in sorted(point.drawn.items()) if np.ndim(v) == 0][:4]
    where = ", ".join(at).replace("_free", "") or "other values"
    values = [f"{float(v):.6g}" if np.isfinite(float(v)) else "no real number" for v in (one, other)]
    return f"this holds for some values only: at {where} the left side is {values[0]}, the right side {values[1]}"


def _number_words(one: Any, other: Any) -> str:
    """What a number should be, with enough digits to see the difference."""
    for digits in range(6, 17):
        right, said = f"{float(one):.{digits}g}", f"{float(other):.{digits}g}"
        if float(right) != float(said) and abs(float(right) - float(said)) > 0.3 * abs(float(one) - float(other)):
            return f"the number is wrong: it is {right}, not {said}"
    return f"the number is wrong: it is {float(one)!r}"


def unexplained(outcome: Outcome) -> Found:
    """A wrong equality of which no cause is known: where it fails."""
    case = outcome.case
    if outcome.wrong_at is None:
        return Found(case.misfit or "")
    _, _, place, one, other = outcome.wrong_at
    return Found("", counterexample=_counterexample(case, place, one, other))


def _counterexample(case: Case, place: Sequence[int], one: Any, other: Any) -> Mapping[str, Any]:
    where = {case.shown[i].rstrip("'"): n + 1 for i, n in zip(case.free, place, strict=False)}
    return {"at": where, "left": float(one), "right": float(other)}


def wrong_shapes(judge: Judge, problem: Misfit) -> Found:
    """What is wrong with a claim whose shapes do not fit: which transpose, order or sum would mend it."""
    repaired = _mended(judge)
    span: tuple[int, int] | None = None
    if problem.place is not None:
        span = (problem.place.column - 1, problem.place.column)
    if repaired is None:
        return Found(problem.message, None, None, span, _first_side(judge), _settled(judge))
    words, mended, correct = repaired
    return Found(f"{problem.message}; {words}", None, None, mended or span, correct or _first_side(judge), _settled(judge))


# ---------------------------------------------------------------------- the search


class Diagnosis:
    """The search for what is wrong with one equality of a claim."""

    def __init__(self, judge: Judge, case: Case, equality: int, wrong_at: Point | None = None) -> None:
        self.judge, self.case, self.names = judge, case, judge.names
        self.points = judge.evidence.points(judge.setting(case))
        if wrong_at is not None and wrong_at not in self.points:
            self.points = [wrong_at, *self.points]  # on another branch
        left, right = equality, equality + 1
        # A bare derivative is the truth, whichever side it stands on.
        if _is_plain_derivative(case.trees[right], self.names) and not _is_plain_derivative(case.trees[left], self.names):
            left, right = right, left
        self.left, self.right = left, right
        self.truth, self.tree = case.trees[left], case.trees[right]
        self.tries = tries_for(self.points[0])

    def side_span(self) -> tuple[int, int] | None:
        """The characters of the wrong side."""
        source = self.case.sides[self.right].source
        text = source.text
        start = source.start + len(text) - len(text.lstrip())
        return start, start + len(text.strip())

    @cached_property
    def targets(self) -> list[np.ndarray]:
        """The true values at each point."""
        return [self._float(self.truth, p) for p in self.points]

    @cached_property
    def claimed(self) -> list[np.ndarray]:
        """The claimed values at each point."""
        return [self._float(self.tree, p) for p in self.points]

    @cached_property
    def masks(self) -> list[np.ndarray | None]:
        """The places that the claim is about."""
        condition = self.case.condition
        if condition is None:
            return [None for _ in self.points]
        return [np.asarray(self.judge.value(self.case, condition, p, True), dtype=bool) for p in self.points]

    def _float(self, tree: Node, point: Point) -> np.ndarray:
        """The values of a tree in floating point: enough to look for a cause."""
        with np.errstate(all="ignore"):
            view = self._views.get(id(point))
            if view is None or any(n not in view.values and n in self.names.axes for n in names_in(tree)):
                point.ensure(names_in(tree))
                view = self._views[id(point)] = point.view(self.case.letters, floating=True)
            return np.asarray(view.value(tree, self.case.free), dtype=float)

    @cached_property
    def _views(self) -> dict[int, Table]:
        return {}

    def _ratio(self, tree: Node | None, which: int) -> float | None:
        """Tree over truth at a point where that is one number."""
        try:
            value = self.claimed[which] if tree is None else self._float(tree, self.points[which])
        except (SymbackpropError, IndexError, ValueError, ZeroDivisionError, FloatingPointError, KeyError):
            return None
        return constant_ratio(value, self.targets[which], self.masks[which])

    def named(self, tree: Node | None) -> tuple[str, str] | None:
        """The name of what a tree is off by, at all points; words are empty where it is right."""
        first = self._ratio(tree, 0)
        if first is None or not (is_plausible(first, self.points[0]) or self._is_constant_ratio(first)):
            return None
        ratios = [first, *(self._ratio(tree, k) for k in range(1, len(self.points)))]
        if any(r is None for r in ratios):
            return None
        return named_ratio(self.names, ratios, self.points)  # type: ignore[arg-type]

    def _is_constant_ratio(self, ratio: float) -> bool:
        return any(abs(abs(ratio) - v) < 1e-6 * v or abs(abs(ratio) * v - 1) < 1e-6 for v in self._numbers)

    @cached_property
    def _numbers(self) -> list[float]:
        return [n * v for _, v in constants_of(self.names) for n in (0.5, 1.0, 2.0)]

    def plain_ratio(self) -> str | None:
        """Claim over truth where that is one number without a name."""
        ratios = [self._ratio(None, k) for k in range(len(self.points))]
        if any(r is None or abs(ratios[0] - r) > 1e-9 * abs(r) for r in ratios):  # type: ignore[operator]
            return None
        return f"{ratios[0]:.8g}"

    def cause(self) -> Found | None:
        """The simplest slip that explains the claim."""
        plain = self.named(None)
        if plain is not None and plain[1]:
            return Found(plain[1], plain[0], self._rescaled(plain[0]), self.side_span())
        is_jacobian = bool({j.name for j in self.names.jacobians.values()} & names_in(self.truth))
        found = self._zero() or (self._by_places() if is_jacobian else None) or self._other_derivative() or self._by_edits()
        if found is None:
            found = self.missing_terms() or self._diagonal() or self.by_chain_rule() or self._by_places()
        if found is None:
            found = self._by_two_edits() or self._by_powers()
        return found

    def _rescaled(self, ratio: str) -> Node | None:
        return Binary(self.tree.at, "/", self.tree, tree_of(ratio), end=self.tree.end)

    def _zero(self) -> Found | None:
        """A claim that is zero because something in it does not depend on what it is differentiated by."""
        if not names_in(self.tree) - set(self.case.free) and names_in(self.truth):
            return Found("a number stands where a formula belongs: this is not constant")
        pairs = self.names.independent
        if not pairs or any(np.abs(c).max(initial=0) > 0 for c in self.claimed):
            return None
        of, wrt = pairs[-1]
        return Found(f"∂{of}/∂{wrt} is zero: {of} does not depend on {wrt}, the path goes another way")

    def _other_derivative(self) -> Found | None:
        """The derivative with respect to another array: a step of the chain rule is missing."""
        target = self._differentiated
        if target is None or not _is_plain_derivative(self.truth, self.names):
            return None
        item = next(
            (n for n in nodes_of(self.truth) if isinstance(n, (Item, Name)) and n.name in self.names.adjoints.values()), None
        )
        if item is None:
            return None
        shape = self.names.axes[target]
        for other in self.names.adjoints:
            axes = self.names.axes[other]
            if other in (target, self.names.network.loss) or [self.names.size_of[i] for i in axes] != [
                self.names.size_of[i] for i in shape
            ]:
                continue
            swapped = replace(item, name=self.names.adjoints[other])
            ratios = [self._ratio_of(c, self._float(swapped, p)) for c, p in zip(self.claimed, self.points, strict=True)]
            if all(r is not None and abs(r - 1) < 1e-9 for r in ratios) and self._comes_before(target, other):
                step = self._jacobian_of(other, target)
                if step is not None:
                    return Found(f"this is the derivative by {other}: the step from {target} to {other} is missing{step}")
        return None

    @staticmethod
    def _ratio_of(value: np.ndarray, truth: np.ndarray) -> float | None:
        return constant_ratio(value, truth)

    def _comes_before(self, one: str, other: str) -> bool:
        order = [e.name for e in self.names.network.equations]
        return other in order and (one not in order or order.index(one) < order.index(other))

    def _jacobian_of(self, name: str, target: str) -> str | None:
        """What the step from one array to another is, where it has a name of its own."""
        equation = next(e for e in self.names.network.equations if e.name == name)
        if all(e.name != target for t in equation.terms for e in t.body.atoms(Element)) or len(equation.terms) != 1:
            return None
        body = equation.terms[0].body
        if body.has(sympy.exp) and len(body.atoms(Element)) > 1:
            return ", the Jacobian of the softmax"
        return ", the derivative of the activation" if isinstance(body, (Call, sympy.Function)) else None

    # ------------------------------------------------------------------ right at some places only

    def _by_places(self) -> Found | None:
        """Only the diagonal is right, or only the rest."""
        free, letters = self.case.free, self.case.letters
        for a, b in itertools.combinations(range(len(free)), 2):
            if letters[free[a]] != letters[free[b]] or self.case.condition is not None:
                continue
            kinds = {True: True, False: True}
            for k in range(len(self.points)):
                one, other = np.broadcast_arrays(self.targets[k], self.claimed[k])
                shape = one.shape
                if shape[a] != shape[b] or shape[a] < 2:
                    return None
                same = np.equal(*np.ogrid[tuple(slice(0, n) for n in shape)][a : b + 1 : b - a])
                same = np.broadcast_to(same, shape)
                close = np.abs(one - other) <= 1e-9 * max(np.abs(one).max(), 1e-20)
                for diagonal in (True, False):
                    kinds[diagonal] &= bool(close[same == diagonal].all())
            i, j = (self.case.shown[free[n]].rstrip("'") for n in (a, b))
            if kinds[True] and not kinds[False]:
                return Found(f"only the diagonal: this is right for {i} = {j} and not for {i} ≠ {j}")
            if kinds[False] and not kinds[True]:
                return Found(f"this is right for {i} ≠ {j}; the diagonal, {i} = {j}, is another formula")
        return None

    # ------------------------------------------------------------------ edits of the claim

    @cached_property
    def material(self) -> Material:
        """What edits may put in."""
        names, network = self.names, self.names.network
        case = self.case
        used = {n.name for t in (self.tree, self.truth) for n in nodes_of(t) if isinstance(n, (Item, Name))}
        axes = {a.name: tuple(names.size_of[i] for i in a.axes) for a in network.arrays if a.name != network.loss}
        if not _is_plain_derivative(self.truth, names):
            # what an equation defines is no part of its right side
            axes = {n: s for n, s in axes.items() if n not in names_in(self.truth)}
        if len(axes) > 24:
            axes = {n: s for n, s in axes.items() if n in self._near(used)}
        for n in names_in(self.truth):
            axes.pop(n, None)  # the answer itself mends nothing
        for n in sorted(names_in(self.tree)):
            if n in names.axes:
                axes.setdefault(n, tuple(names.size_of.get(i.rstrip("'"), "?") for i in names.axes[n]))
        has_adjoints = bool(names_in(self.tree) & set(names.adjoints.values()))
        for a in list(axes):
            # derivatives of what is at hand: a signal that was mistaken for another
            adjoint = names.adjoints.get(a)
            if (
                adjoint is not None
                and a != network.loss
                and (adjoint in used or has_adjoints)
                and adjoint not in names_in(self.truth)
            ):
                axes[adjoint] = axes[a]
        activations = activations_of(judge=self.judge)
        words: dict[str, str] = {}
        for a in network.arrays:
            if a.role == "parameter":
                words[a.name] = f"the weight {a.name}"
            elif a.role == "input":
                words[a.name] = f"the layer's input {a.name}"
        for _, _, out in activations:
            words.setdefault(out, f"the layer's output {out}")
        if names.is_optimiser:
            words.clear()
        target = self._differentiated
        for equation in network.equations:
            for t in equation.terms:
                inside = t.body.atoms(Element)
                if target is not None and any(e.name == target for e in inside) and not words.get(equation.name):
                    for e in inside:
                        if (
                            e.name != target
                            and len(inside) <= 3
                            and e.name not in {a.name for a in network.arrays if a.role == "parameter"}
                        ):
                            words[e.name] = f"the layer's input {e.name} (what {target} multiplies)"
        activations = [a for a in activations if a[1] in axes and a[2] in axes]
        neighbours: dict[str, tuple[str, ...]] = {}
        for one, shape in axes.items():
            neighbours[one] = tuple(
                o for o, s in axes.items() if o != one and (s == shape or (_kin(one, o) and len(s) == len(shape)))
            )
        shown = {n: text for n, text in case.resolver.spelled.items()}
        shown |= {i: s.rstrip("'") for i, s in case.shown.items()}
        shown |= {v: k for k, v in names.variables.items()}
        left = tuple(dict.fromkeys(n.name for n in nodes_of(self.truth) if isinstance(n, Name) and n.name in case.free))
        batch = network.batch
        if case.one and batch is not None:
            left = (*left, *(i for i in case.free if case.letters[i] == names.size_of[batch]))
        applied = [n.name.rstrip("'") for n in nodes_of(self.truth) if isinstance(n, Apply) and n.name.endswith("'")]
        functions = tuple(dict.fromkeys(f for f in applied if f in names.functions or f == "tanh")) if names.variables else ()
        variables = tuple(names.variables.values())
        return Material(
            axes,
            case.letters,
            activations,
            words,
            shown,
            case.free,
            left,
            neighbours,
            self._factors,
            functions,
            variables,
            {size: letter for letter, size in reversed(names.size_of.items())},
            tuple((f, z) for f, z in calls_within(network) if z in axes),
            self._steps_between,
        )

    @cached_property
    def _steps_between(self) -> Mapping[tuple[str, str], str]:
        """For the derivatives by two arrays of which one is computed from the other: the step between them."""
        found: dict[tuple[str, str], str] = {}
        for e in self.names.network.equations:
            text = re.sub(r"\[[^\]]*\]", "", Writer().equation(e))
            for inner in {x.name for t in e.terms for x in t.body.atoms(Element)}:
                one, other = self.names.adjoints.get(e.name), self.names.adjoints.get(inner)
                if one is not None and other is not None:
                    found[one, other] = f"the derivative of the step {text} is missing"
        return found

    @cached_property
    def _factors(self) -> tuple[Node, ...]:
        """The sums that the right formula has as factors, such as 1 - a² or 1 - β."""
        right = derived(self.judge, self.case, self.truth)
        sums = {f for t in right.terms for f in sympy.Mul.make_args(t.body) if isinstance(f, sympy.Add)} if right else set[Expr]()
        return tuple(tree_of(Writer().expression(f)) for f in sorted(sums, key=str))

    @property
    def _differentiated(self) -> str | None:
        """The array that the true side differentiates by."""
        back = {v: k for k, v in self.names.adjoints.items()}
        for n in nodes_of(self.truth):
            if isinstance(n, (Item, Name)) and n.name in back:
                return back[n.name]
        for (_, wrt), j in self.names.jacobians.items():
            if any(isinstance(n, (Item, Name)) and n.name == j.name for n in nodes_of(self.truth)):
                return wrt
        return None

    def _near(self, used: set[str]) -> set[str]:
        """The arrays that stand in an equation with those that are used."""
        back = {v: k for k, v in self.names.adjoints.items()}
        around = {back.get(u, u) for u in used}
        found = set(around)
        for e in self.names.network.equations:
            inside = {e.name, *(x.name for t in e.terms for x in t.body.atoms(Element))}
            if inside & around:
                found |= inside
        return found

    def _by_edits(self) -> Found | None:
        best: Found | None = None
        for edit in itertools.islice(edits(self.tree, self.material), self.tries):
            named = self.named(edit.tree)
            if named is None:
                continue
            if not named[1]:
                return Found(edit.words, None, edit.tree, edit.span)
            if best is None:
                best = Found(f"{edit.words}, and {named[1]}", None, None, edit.span)
        return best

    def _by_two_edits(self) -> Found | None:
        first = list(itertools.islice(self._structural(), 60))
        left = self.tries
        for edit in first:
            for more in edits(edit.tree, self.material):
                left -= 1
                if left < 0:
                    return None
                named = self.named(more.tree)
                if named is not None:
                    words = [edit.words, more.words, *([named[1]] if named[1] else [])]
                    return Found(", and ".join(words), None, None if named[1] else more.tree, edit.span or more.span)
        return None

    def _structural(self) -> Iterator[Edit]:
        for edit in edits(self.tree, replace(self.material, axes={}, neighbours={})):
            if "does not belong" in edit.words or "quotient" in edit.words or "belongs" in edit.words:
                yield edit

    def repaired_indices(self) -> Found | None:
        """What mends a claim whose numbers agree although its indices do not fit."""
        return next(
            (Found(e.words, None, e.tree, e.span) for e in edits(self.tree, self.material) if self.named(e.tree) == ("1", "")),
            None,
        )

    # ------------------------------------------------------------------ terms of the truth that the claim lacks

    def missing_terms(self) -> Found | None:
        """The terms of the truth that the claim lacks, or has with the wrong sign."""
        steps = self._own_steps()
        if not 1 < len(steps) <= 8:
            return self._missing_summands()
        values = [[v for p in self.points if (v := self._term(s, p)) is not None] for s in steps]
        if any(len(row) < len(self.points) for row in values):
            return self._missing_summands()
        for count in (1, 2):
            for chosen in itertools.combinations(range(len(steps)), count):
                for scale in (1.0, 0.5, 2.0, -1.0):
                    gaps: list[np.ndarray] = [
                        t - c - scale * sum(values[n][k] for n in chosen)
                        for k, (t, c) in enumerate(zip(self.targets, self.claimed, strict=True))
                    ]
                    if all(
                        np.abs(g).max() <= CLOSE * max(np.abs(t).max(), 1e-20) for g, t in zip(gaps, self.targets, strict=True)
                    ):
                        missing = [path_words(self.names.network, steps[n]) for n in chosen]
                        if scale == 1.0:
                            return Found(" and ".join(missing))
                        if scale == 2.0:
                            return Found(f"the sign of one term is the other way round: {missing[0]}")
                        if scale == 0.5:
                            return Found(f"a factor 2 is missing in one term: half of it: {missing[0]}")
                        return Found(f"there twice: {missing[0]}".replace("is missing", "is there twice"))
        return self._missing_summands()

    def _missing_summands(self) -> Found | None:
        """Terms of the right formula that the claim lacks: paths that were forgotten."""
        right = derived(self.judge, self.case, self.truth)
        if right is None:
            return None
        terms = [
            replace(t, body=b)
            for t in right.terms
            for b in (sympy.Add.make_args(sympy.expand(t.body)) if not t.over else (t.body,))
        ]
        if not 1 < len(terms) <= 8:
            return None
        trees = [tree_of(Writer().terms([t])) for t in terms]
        values = [[self._float(tree, p) for p in self.points] for tree in trees]
        for count in range(1, len(terms)):
            for chosen in itertools.combinations(range(len(terms)), count):
                gaps = [
                    t - c - sum(values[n][k] for n in chosen)  # type: ignore[operator]
                    for k, (t, c) in enumerate(zip(self.targets, self.claimed, strict=True))
                ]
                if all(np.abs(g).max() <= CLOSE * max(np.abs(t).max(), 1e-20) for g, t in zip(gaps, self.targets, strict=True)):
                    texts = [text_of(trees[n], self.material) for n in chosen]
                    return Found(f"a path is missing: the term{'s' if count > 1 else ''} {' and '.join(texts)}")
        return None

    def _diagonal(self) -> Found | None:
        """A sum of the right formula of which only the place itself was kept: the diagonal of a Jacobian."""
        right = derived(self.judge, self.case, self.truth)
        if right is None:
            return None
        for number, term in enumerate(right.terms):
            for letter in term.over:
                size = self.names.size_of.get(letter.name.rstrip("'"))
                for own in right.target.indices:
                    if self.case.letters.get(str(own)) != size:
                        continue
                    kept = replace(term, body=term.body.xreplace({letter: own}), over=tuple(i for i in term.over if i != letter))
                    terms = [*right.terms[:number], kept, *right.terms[number + 1 :]]
                    tree = tree_of(Writer().terms(terms))
                    values = [self._float(tree, p) for p in self.points]
                    if all(constant_ratio(c, v) is not None for c, v in zip(self.claimed, values, strict=True)):
                        ratios = [constant_ratio(c, v) for c, v in zip(self.claimed, values, strict=True)]
                        if all(r is not None and abs(r - 1) < 1e-9 for r in ratios):
                            return Found(f"only the diagonal of the Jacobian is there: the sum over {letter.name} is missing")
        return None

    def _own_steps(self) -> list[Step]:
        target = self._differentiated
        if target is None or not _is_plain_derivative(self.truth, self.names):
            return []
        return [s for s in self.names.derivation.steps if s.source.name == target]

    def _term(self, step: Step, point: Point) -> np.ndarray | None:
        """The value of one step's contribution, at the letters of the true side."""
        item = next((n for n in nodes_of(self.truth) if isinstance(n, (Item, Name)) and n.name == step.adjoint.name), None)
        if item is None:
            return None
        tree = tree_of(Writer().terms([step.contribution]))
        if isinstance(item, Item):
            if not all(isinstance(i, Name) for i in item.indices):
                return None
            over = {i.name for i in step.contribution.over}
            swap = {a.name: i.name for a, i in zip(step.adjoint.letters, item.indices, strict=True) if isinstance(i, Name)}
            if over & set(swap.values()):
                return None
            tree = renamed_tree(tree, swap)
        return self._float(tree, point)

    # ------------------------------------------------------------------ the chain rule with a step gone wrong

    def by_chain_rule(self) -> Found | None:
        """What the claim is: the derivative with a step left out, or with the activation's derivative gone wrong."""
        derivation = self.names.derivation
        target = self._differentiated
        if target is None or not _is_plain_derivative(self.truth, self.names):
            return None
        adjoint = self.names.adjoints.get(target)
        if adjoint is None:
            return None
        needed = read_for(derivation.raw, {adjoint}) & {e.name for e in derivation.raw}
        likely = (m for m in mistakes(derivation, needed) if m.probe != "rate" and not m.is_zero)
        for step in itertools.islice(likely, self.tries // 20):
            named = self._after(step, adjoint)
            if named is not None:
                return Found(step.words if not named[1] else f"{step.words}, and {named[1]}")
        return None

    @cached_property
    def _replay(self) -> Replay:
        return Replay(self.names, self.points, self.names.derivation)

    def _after(self, step: Misstep, adjoint: str) -> tuple[str, str] | None:
        """What the claim is off by from the derivative after a misstep."""
        ratios: list[float] = []
        for k, point in enumerate(self.points):
            after = self._replay.values(k, step.equations, {}, {adjoint})
            if not after:
                return None
            view = point.view(self.case.letters, floating=True)
            table = Table({**view.values, **after}, view.sizes, view.size_names, view.functions, view.exact)
            try:
                with np.errstate(all="ignore"):
                    value = np.asarray(table.value(self.truth, self.case.free), dtype=float)
            except (SymbackpropError, ValueError, KeyError):
                return None
            ratio = constant_ratio(self.claimed[k], value, self.masks[k])
            if ratio is None or not is_plausible(ratio, point):
                return None
            ratios.append(ratio)
        return named_ratio(self.names, ratios, self.points)

    # ------------------------------------------------------------------ factors by their powers

    def _by_powers(self) -> Found | None:
        """Claim and truth as products of the same factors: which of them have the wrong power."""
        try:
            claim = self._monomial(self.tree)
            truth = self._truth_monomial()
        except (SymbackpropError, AttributeError):
            return None
        if claim is None or truth is None:
            return None
        if claim == 0 or (truth / claim).has(sympy.zoo, sympy.nan):
            return None
        ratio = sympy.cancel(sympy.together(truth / claim)) if (truth / claim).count_ops() < 400 else truth / claim
        sign = 1
        words: list[str] = []
        material = self.material
        for factor, power in _powers(ratio):
            if factor.is_number:
                sign = -sign if factor < 0 else sign
                value = abs(factor**power)
                if value != 1:
                    words.append(f"a factor {value} is missing" if value > 1 else f"there is a factor {1 / value} too many")
                continue
            if not power.is_Integer or (isinstance(factor, sympy.Add) and not self._is_declared(factor)):
                return None
            text = re.sub(r"\[[^\]]*\]", "", Writer().expression(factor))
            if isinstance(factor, Element):
                text = material.words.get(factor.name, text)
            elif isinstance(factor, Call) and any(factor.orders):
                text = f"the derivative {text}"
            inverse = (claim * factor).has(factor) is False
            if power == 2 and (inverse or _power_in(claim, factor) < 0):
                words.append(f"{text} divides where it should multiply")
            elif power > 0:
                words.append(f"{text} is missing")
            else:
                words.append(f"{text} does not belong here")
        if not words or len(words) > 8:
            return None
        if sum("divides where" in w for w in words) > 0:
            words.insert(0, "a quotient where a product belongs")
        if sign < 0:
            words.append("the sign is the other way round")
        return Found("; ".join(words), None, None, self.side_span())

    def _is_declared(self, add: Expr) -> bool:
        """Whether a sum is one of the network's own, such as y - y'."""
        own = {a for e in self.names.network.equations for t in e.terms for a in t.body.atoms(sympy.Add)}
        return add in own or -add in own

    def _monomial(self, tree: Node) -> Expr | None:
        resolver = self.case.resolver
        resolver.sizes |= self.case.letters
        terms, inner = self.names.lowered(tree, resolver)
        if inner or len(terms) != 1 or terms[0].over:
            return None
        return self._single(terms[0].body)

    def _single(self, body: Expr) -> Expr:
        batch = self.names.network.batch
        if self.case.one and batch is not None:
            body = body.xreplace({size_symbol(self.names.size_of[batch]): sympy.S.One})
            body = body.xreplace({i: index(batch) for i in body.free_symbols if i.name.rstrip("'") == batch})  # type: ignore[attr-defined]
        return body

    def _truth_monomial(self) -> Expr | None:
        scale: Expr = sympy.S.One
        tree = self.truth
        while isinstance(tree, Negate):
            tree, scale = tree.operand, -scale
        if isinstance(tree, Binary) and tree.operator == "*" and isinstance(tree.left, Name) and tree.left.name == "eta":
            tree, scale = tree.right, scale * Element("eta")
        target = self._differentiated
        if target is None:
            return None
        equation = closed_form(self.judge.subject.derivation_of(target), target)
        terms = equation.terms
        if self.case.one:
            terms = tuple(
                replace(t, over=tuple(i for i in t.over if i.name.rstrip("'") != self.names.network.batch)) for t in terms
            )
        if len(terms) != 1 or terms[0].over:
            return None
        return self._single(scale * terms[0].body)

    # ------------------------------------------------------------------ what it would be right for

    def declaration(self) -> str | None:
        """The declaration under which the claim would be right, where a usual one does it."""
        settled = _settled(self.judge, self.case)
        if settled is not None:
            return settled
        subject = self.judge.subject
        constants = self.names.network.constants
        if constants and self.judge.outcome(self.case, held=frozenset(c for c, _ in constants)).holds:
            values = ", ".join(f"{c} = {Writer().expression(v)}" for c, v in constants)
            return f"correct for {values} alone"
        if not names_in(self.tree) or self.names.variables:
            return None  # a number is right for too much
        for words, make in variants(subject.derivation.network):
            if words not in subject.variants:
                subject.variants[words] = _other_subject(subject, make)
            other = subject.variants[words]
            if other is not None and _holds_for(other, self.judge.claim, self.case.chosen):
                return f"correct {words}"
        return None

    # ------------------------------------------------------------------ the right formula

    def correct(self, found: Found | None) -> str | None:
        """The right formula in the claim's own notation: from the derivation, or the claim with its slip mended."""
        case, side = self.case, self.case.sides[self.left if _is_plain_derivative(self.truth, self.names) else 0]
        right = derived(self.judge, case, self.truth)
        if right is not None:
            return written(self.judge, case, side.text, right)
        if found is not None and found.tree is not None:
            try:
                if not self.judge.outcome(replace(case, trees=(self.truth, found.tree))).holds:
                    return None
                resolver = case.resolver
                resolver.sizes |= case.letters
                terms, inner = self.names.lowered(found.tree, resolver)
                if not inner:
                    return written(self.judge, case, side.text, Equation(Element("@", *map(index, case.free)), terms))
            except SymbackpropError:
                return None
        return None


def _is_plain_derivative(tree: Node, names: Any) -> bool:
    """Whether a side is nothing but a derivative, up to the sign and step size of an update."""
    while True:
        match tree:
            case Negate(operand=operand):
                tree = operand
            case Binary(operator="*", left=Name(name="eta"), right=right):
                tree = right
            case Item(name=name) | Name(name=name):
                return name in names.adjoints.values() or any(name == j.name for j in names.jacobians.values())
            case _:
                return False


def _kin(one: str, other: str) -> bool:
    """Whether two names differ in their number alone: W1 and W2."""
    return re.sub(r"\d", "", one) == re.sub(r"\d", "", other)


def activations_of(judge: Judge) -> list[tuple[str, str, str]]:
    """The activations of a network: function, the array it is applied to, its output."""
    found: list[tuple[str, str, str]] = []
    for e in judge.names.network.equations:
        if len(e.terms) == 1 and not e.terms[0].over:
            body = e.terms[0].body
            inner = body.arguments[0] if isinstance(body, Call) else body.args[0] if isinstance(body, sympy.Function) else None
            if isinstance(inner, Element) and not isinstance(body, sympy.Piecewise) and inner.indices == e.target.indices:
                name = body.name if isinstance(body, Call) else type(body).__name__.lower()
                if name not in ("stop", "log", "sqrt", "abs") and inner.name in judge.names.adjoints:
                    found.append((name, inner.name, e.name))
    return found


def calls_within(network: Network) -> list[tuple[str, str]]:
    """Functions that a network applies to arrays within longer formulas, such as tanh(c) in o*tanh(c)."""
    found: dict[tuple[str, str], None] = {}
    for e in network.equations:
        for t in e.terms:
            for f in t.body.atoms(sympy.Function, Call):
                inner = f.arguments[0] if isinstance(f, Call) else f.args[0]
                name = f.name if isinstance(f, Call) else type(f).__name__.lower()
                if isinstance(inner, Element) and f != t.body and name in ("tanh", "sigmoid", "relu", "softplus", "sin", "cos"):
                    found[name, inner.name] = None
    return list(found)


def _powers(expr: Expr) -> Iterator[tuple[Any, Any]]:
    coefficient, rest = expr.as_coeff_Mul()
    yield coefficient, sympy.S.One
    for factor in sympy.Mul.make_args(rest):
        base, power = factor.as_base_exp()
        yield (factor, sympy.S.One) if isinstance(factor, sympy.exp) else (base, power)


def _power_in(expr: Expr, factor: Expr) -> Any:
    return next((p for b, p in _powers(expr) if b == factor), sympy.S.Zero)


# ---------------------------------------------------------------------- other declarations


def _other_subject(subject: Subject, make: Callable[[], Network]) -> Subject | None:
    """A variant of the network, differentiated; None where there is none."""
    try:
        network = make()
        names = [a.name for a in network.arrays if a.role != "target" and a.name in subject.derivation.adjoints]
        raw, steps, adjoints = differentiate(network, names)
    except SymbackpropError:
        return None
    return Subject(Derivation(network, raw, raw, steps, (), adjoints, (), tuple(names)), rough=True)


def _holds_for(other: Subject, claim: str, settled: Mapping[str, str]) -> bool:
    try:
        return Judge(other, claim, settled).holds_with({}, readings=1)
    except SymbackpropError:
        return False


# ---------------------------------------------------------------------- settings and shapes


_SETTLED = (
    ({"batch": "columns"}, "correct with columns as the batch"),
    ({"layout": "numerator"}, "correct in numerator layout, which is the transposed"),
    ({"weights": "out-in"}, "correct with weights as W[out, in]"),
    ({"batch": "columns", "weights": "out-in"}, "correct with columns as the batch and weights as W[out, in]"),
    ({"examples": "one"}, "correct for one example"),
    ({"batch": "columns", "examples": "one"}, "correct for one example as a column"),
    (
        {"batch": "columns", "weights": "out-in", "examples": "one"},
        "correct for one example as a column, with weights as W[out, in]",
    ),
    ({"delta": "minus"}, "correct with δ = −∂L/∂z"),
)


def _settled(judge: Judge, case: Case | None = None) -> str | None:
    """The notation in which the claim would be right."""
    for settings, words in _SETTLED:
        if "examples" in settings and (judge.names.implies_examples or not judge.names.has_examples):
            continue  # tried before, where a chain implies the examples
        if any(k in judge.settled for k in settings) or (case is not None and case.one and settings == {"examples": "one"}):
            continue
        if judge.holds_with(settings):
            size = judge.names.mean_size
            if settings == {"examples": "one"} and size is not None:
                return f"{words}: of the mean over {size} it is 1/{size} of that"
            return words
    return None


def _mended(judge: Judge, misfit: Case | None = None) -> tuple[str, tuple[int, int] | None, str | None] | None:
    """The smallest change of transposes, order, indices, arrays or sums that makes the shapes fit and the claim right."""
    wrong = len(judge.trees) - 1
    settings = {"examples": "all", **judge.settled} if misfit is None else dict(misfit.chosen)
    arrays = [n for n, axes in judge.names.axes.items() if len(axes) > 1 and not n.startswith("J")]
    for tree, words, span in itertools.islice(reshaped(judge.trees[wrong][0], arrays), TRIES):
        trees = [*judge.trees[:wrong], [tree]]
        try:
            case = judge.case_of(Reading(dict(settings)), trees)
            if case.misfit is not None or _says_itself(case):
                continue
            diagnosis = Diagnosis(judge, case, len(case.trees) - 2)
            named = diagnosis.named(None)
        except SymbackpropError:
            continue
        if named is not None:
            said = words if not named[1] else f"{words}, and {named[1]}"
            return said, span, diagnosis.correct(None)
    return None


def _says_itself(case: Case) -> bool:
    """Whether a changed side is the left side itself: that explains nothing."""
    return names_in(case.trees[0]) <= names_in(case.trees[-1]) and len(names_in(case.trees[-1]) - set(case.free)) <= 2


def _first_side(judge: Judge) -> str | None:
    """The right formula for the first side of a claim of which no reading fits."""
    try:
        case = judge.case_of(Reading({"examples": "all", **judge.settled}), [judge.trees[0], judge.trees[0]], sides=(0, 0))
    except SymbackpropError:
        return None
    right = derived(judge, case, case.trees[0])
    return None if right is None else written(judge, case, case.sides[0].text, right)
