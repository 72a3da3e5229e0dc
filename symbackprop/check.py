"""Is a claimed formula right? The claim and the derivative are evaluated side by side, then compared symbolically.

    dL/dW1[d,h] = mean(n, (p[n,k] - y[n,k])*x[n,d])

A claim is a chain of equalities in formula text. A side is a derivative (`dL/dW`, `∂L/∂W[d,h]`), or an expression in the
network's arrays, its derivatives (`dz1`) and functions (`sigmoid'(z1[n,h])`). Every equality is judged.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import mpmath
import sympy
from sympy import Expr, Symbol

from .algebra import clean, insert_equation, rationally, unfold_calls
from .derive import closed_form, derive, network_name
from .differentiate import read_for, resolve, resolved
from .errors import FormulaError, Source, SymbackpropError, suggest
from .evaluate import Values, evaluate
from .functions import catalogue_functions
from .lower import Lowering, Scope
from .notation import (
    Derivation,
    Displayed,
    Element,
    Equation,
    Function,
    Network,
    Term,
    base_name,
    groups_of,
    index,
    indices_of,
    is_moved,
    is_recurrence,
)
from .parse import Item, Name, parse_expression
from .simplify import collected
from .sizes import Sizes
from .write import Writer, style_of

Judgement = Literal["proved", "agrees", "refuted", "not understood"]
_DIGITS = 30  # decimal digits of the evaluation
_POINTS = 2  # random points
_AFFORDABLE = 2000  # elements of one equation, each a number of thirty digits
_DERIVATIVE = re.compile(r"\s*(?:d|∂)\s*([^\W\d]\w*'*)\s*(?:\[[^\]]*\])?\s*/\s*(?:d|∂)\s*(?=[^\W\d])")
_EQUALS = re.compile(r"(?<![<>=!])=(?!=)")
# Factors that get lost, and what their loss is called.
_SLIPS = (
    (sympy.Integer(-1), "the sign is the other way round"),
    (sympy.Integer(2), "there is a factor 2 too many"),
    (sympy.Rational(1, 2), "a factor 2 is missing"),
    (sympy.Integer(-2), "the sign is the other way round, and there is a factor 2 too many"),
    (sympy.Rational(-1, 2), "the sign is the other way round, and a factor 2 is missing"),
)


@dataclass(frozen=True)
class Verdict(Displayed):
    """What became of one claim.

    `verdict` is proved, agrees (numerically, not proved), refuted, or not understood. For a refuted claim `ratio` is
    claim over truth where that is one number, `reason` says what is wrong where a usual slip explains it, `correct` is the
    right formula and `counterexample` a place with both values.
    """

    claim: str
    verdict: Judgement
    ratio: str | None = None
    reason: str | None = None
    correct: str | None = None
    counterexample: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        lines = [f"{self.verdict}: {self.claim}"]
        lines += [f"    {self.reason}"] if self.reason else []
        lines += [f"    correct: {self.correct}"] if self.correct and self.verdict == "refuted" else []
        return "\n".join(lines)


@dataclass(frozen=True)
class _Side:
    """One side of an equality: its terms over free indices, and the text it was read from."""

    terms: tuple[Term, ...]
    text: str


def check(derivation: Derivation | Network | str | Path | Mapping[str, Any], claim: str) -> Verdict:
    """Judge one claim, a text, about a derivation or anything that `derive` takes.

    A claim that cannot be read gets the verdict "not understood" with the reason and the place; nothing is guessed.
    """
    if not isinstance(derivation, Derivation):
        derivation = derive(derivation)
    try:
        return _Judge(derivation, claim).verdict()
    except SymbackpropError as problem:
        return Verdict(claim, "not understood", reason=str(problem))


class _Judge:
    def __init__(self, derivation: Derivation, claim: str) -> None:
        self.claim = claim
        network = derivation.network
        wanted = [m for m in self._wanted(network, claim) if m not in derivation.adjoints]
        if wanted:
            derivation = derive(network, [*derivation.wrt, *wanted])
        self.derivation, self.network = derivation, network
        self.axes = {a.name: a.axes for a in network.arrays}
        self.axes |= {d: self.axes[a] for a, d in derivation.adjoints.items() if a in self.axes}
        self.functions: dict[str, Function] = {**catalogue_functions(), **{f.name: f for f in network.functions}}
        self.sizes = Sizes({i.name: i.size for i in network.indices})
        self.sides = self._read()

    @staticmethod
    def _wanted(network: Network, claim: str) -> list[str]:
        names = [network_name(network, m) for m in re.findall(r"/\s*(?:d|∂)\s*([^\W\d]\w*'*)", claim)]
        return [n for n in names if n in {a.name for a in network.arrays}]

    # ------------------------------------------------------------------ reading

    def _read(self) -> list[_Side]:
        sides: list[_Side] = []
        cuts = [m.start() for m in _EQUALS.finditer(self.claim)]
        for start, end in zip([0, *(c + 1 for c in cuts)], [*cuts, len(self.claim)], strict=True):
            source = Source("<claim>", self.claim, start, end)
            if not source.text.strip():
                raise FormulaError("one side of this equality is empty", source.place(source.start))
            sides.append(self._side(source))
        if len(sides) < 2:
            raise FormulaError("a claim is an equality, such as dL/dW = …", Source("<claim>", self.claim).place(0))
        return sides

    def _side(self, source: Source) -> _Side:
        derivative = _DERIVATIVE.match(source.text)
        if derivative is not None and self._is_one_derivative(source, derivative.end()):
            rest = Source("<claim>", self.claim, source.start + derivative.end(), source.end)
            loss = derivative[1]
            if loss != self.network.loss:
                raise FormulaError(
                    f"'{loss}' is not the loss, which is '{self.network.loss}'", source.place(source.start + derivative.start(1))
                )
            return _Side(self._of_derivative(rest), source.text.strip())
        source = self._with_adjoints(source)
        scope = self._scope()
        terms = Lowering(source, scope).terms(parse_expression(source), frozenset())
        if scope.equations:
            raise FormulaError("a sum inside a function cannot be judged yet", source.place(source.start))
        return _Side(terms, source.text.strip())

    @staticmethod
    def _is_one_derivative(source: Source, start: int) -> bool:
        """Whether nothing but an array follows `dL/d`."""
        return re.fullmatch(r"[^\W\d]\w*'*\s*(\[[^\]]*\])?\s*", source.text[start:]) is not None

    def _with_adjoints(self, source: Source) -> Source:
        """The same text with `dL/dz` written `dz`, every character at its place."""

        def name(match: re.Match[str]) -> str:
            array = network_name(self.network, match[2])
            if match[1] != self.network.loss or array not in self.derivation.adjoints:
                return match[0]
            return self.derivation.adjoints[array].ljust(len(match[0]))

        pattern = r"(?:(?<![\w'])d|∂)\s*([^\W\d]\w*'*)\s*/\s*(?:d|∂)\s*([^\W\d]\w*'*)"
        end = len(source.whole) if source.end is None else source.end
        text = re.sub(pattern, name, source.text)
        return Source(source.name, source.whole[: source.start] + text + source.whole[end:], source.start, end)

    def _of_derivative(self, source: Source) -> tuple[Term, ...]:
        node = parse_expression(source)
        if not isinstance(node, (Name, Item)):
            raise FormulaError("name one array to differentiate with respect to", source.place(node.at))
        name = network_name(self.network, node.name)
        if name not in self.derivation.adjoints:
            raise FormulaError(
                f"there is no derivative with respect to '{node.name}'{suggest(node.name, self.axes)}", source.place(node.at)
            )
        letters = [i.name for i in node.indices if isinstance(i, Name)] if isinstance(node, Item) else list(self.axes[name])
        if len(letters) != len(self.axes[name]):
            raise FormulaError(f"'{name}' has the axes [{','.join(self.axes[name])}]", source.place(node.at))
        for letter, axis in zip(letters, self.axes[name], strict=True):
            self.sizes.unify(letter, axis)
        return (Term(Element(self.derivation.adjoints[name], *map(index, letters))),)

    def _scope(self) -> Scope:
        return Scope(dict(self.axes), dict(self.functions), self.sizes, renamed=dict(self.network.aliases), free=True)

    # ------------------------------------------------------------------ judging

    def verdict(self) -> Verdict:
        points = [self._point(seed) for seed in range(_POINTS)]
        proved = True
        for left, right in itertools.pairwise(self.sides):
            wrong = next((found for p in points if (found := self._difference(left, right, *p)) is not None), None)
            if wrong is not None:
                return self._refuted(left, right, points, wrong)
            proved = proved and self._same(left, right)
        return Verdict(self.claim, "proved" if proved else "agrees")

    def _point(self, seed: int) -> tuple[dict[str, Values], dict[str, int], dict[str, Function]]:
        """Values of all arrays at a random point: sizes small and unlike, facts obeyed."""
        rng = random.Random(seed)
        # Not 1 and not alike, the batch least of all: a lost 1/N must not look like a lost 1/2. Declared sizes are kept
        # (a claim may say 2/3 where K is 3), unless the network is large and the claim names no number.
        numbers = {i.size: i.number for i in self.network.indices if i.number is not None}
        largest = max((math.prod(numbers.get(s, 3) for s in self._sizes_of(e)) for e in self.network.equations), default=1)
        # Windows and digits only fit the sizes that they were declared for.
        moved = any(
            is_moved(i) for e in self.network.equations for t in e.terms for x in t.body.atoms(Element) for i in x.indices
        )
        keep = moved or largest <= _AFFORDABLE or re.search(r"(?<![\w.])\d", self.claim) is not None
        roots = {i.size: i.number if keep and i.number is not None else 2 + k % 3 for k, i in enumerate(self.network.indices)}
        sizes = {i.name: 5 + seed if i.name == self.network.batch else roots[i.size] for i in self.network.indices}
        # The claim's own letters run over what they were used for.
        sizes |= {
            letter: sizes[self.sizes.root(letter)] for letter in self.sizes.all_letters() if self.sizes.root(letter) in sizes
        }
        functions = {n: f if f.body is not None else self._concrete(f, rng) for n, f in self.functions.items()}
        values: dict[str, Values] = {n: {(): mpmath.mpf(v.p) / v.q} for n, v in self.network.constants}
        for a in self.network.arrays:
            if a.role in ("input", "parameter", "target"):
                places = itertools.product(*(range(sizes[x]) for x in a.axes))
                values[a.name] = {place: mpmath.mpf(rng.uniform(0.2, 1.7)) * rng.choice((1, -1)) for place in places}
        with mpmath.workdps(_DIGITS):
            self._obey_facts(values, sizes, rng)
            names = {i.name: i.size for i in self.network.indices}
            given = resolved(self._needed(), functions)
            values = evaluate(given, values, sizes, functions.values(), names)
        return values, sizes, functions

    def _needed(self) -> list[Equation]:
        """The equations that the sides of the claim ask for."""
        everything = [*self.network.equations, *self.derivation.raw]
        wanted = read_for(everything, {e.name for s in self.sides for t in s.terms for e in t.body.atoms(Element)})
        return [e for e in everything if e.name in wanted]

    def _sizes_of(self, equation: Equation) -> set[str]:
        """The sizes of all letters of an equation."""
        letters = {*equation.target.letters, *(i for t in equation.terms for i in t.over)}
        names = {i.name: i.size for i in self.network.indices}
        return {names[base_name(i.name)] for i in letters}

    def _obey_facts(self, values: dict[str, Values], sizes: Mapping[str, int], rng: random.Random) -> None:
        for a in (a for a in self.network.arrays if a.role == "target"):
            if self.network.labels == "zero-one":
                values[a.name] = {p: mpmath.mpf(rng.uniform(0.1, 0.9)) for p in values[a.name]}
            if self.network.labels == "count":
                values[a.name] = {p: abs(v) for p, v in values[a.name].items()}
        for fact in self.network.facts:
            body = fact.term.body
            if not isinstance(body, Element) or len(fact.term.over) != 1 or body.name not in values:
                continue
            axis, target = body.indices.index(fact.term.over[0]), values[body.name]
            for place in target:
                line = [(*place[:axis], k, *place[axis + 1 :]) for k in range(sizes[fact.term.over[0].name])]
                total = sum(abs(target[p]) for p in line)
                for p in line:
                    target[p] = abs(target[p]) / total * mpmath.mpf(fact.value.p) / fact.value.q

    @staticmethod
    def _concrete(function: Function, rng: random.Random) -> Function:
        """A generic function in place of an abstract one: none of its derivatives is like another."""
        variables = [Element(f"u{k}") for k in range(3)]
        numbers = [sympy.Rational(rng.randint(20, 90), 100) for _ in range(6)]
        inner = sympy.Add(*(n * v for n, v in zip(numbers, variables, strict=False)))
        body = sympy.sin(inner + numbers[3]) + numbers[4] * inner**2 + numbers[5] * variables[0] * variables[1]
        return replace(function, parameters=("u0", "u1", "u2"), body=body)

    def _value(
        self,
        side: _Side,
        free: Sequence[Symbol],
        values: dict[str, Values],
        sizes: dict[str, int],
        functions: dict[str, Function],
    ) -> Values:
        names = {i.name: i.size for i in self.network.indices}
        equation = Equation(Element("@side", *free), side.terms)
        with mpmath.workdps(_DIGITS):
            return evaluate(resolved([equation], functions), values, sizes, functions.values(), names)["@side"]

    def _free(self, *sides: _Side) -> list[Symbol]:
        found = {i for s in sides for t in s.terms for i in indices_of(t.body) - set(t.over)}
        return sorted(found, key=str)

    def _difference(
        self, left: _Side, right: _Side, values: dict[str, Values], sizes: dict[str, int], functions: dict[str, Function]
    ) -> dict[str, Any] | None:
        """The first place where the sides differ, with both values, or None."""
        free = self._free(left, right)
        one, other = (self._value(s, free, values, sizes, functions) for s in (left, right))
        scale = max([abs(v) for v in one.values()] + [abs(v) for v in other.values()] + [mpmath.mpf(10) ** -20])
        for place in one:
            if abs(one[place] - other[place]) > scale * mpmath.mpf(10) ** (8 - _DIGITS):
                at = {str(i): k + 1 for i, k in zip(free, place, strict=True)}
                return {"at": at, "left": float(one[place]), "right": float(other[place])}
        return None

    def _refuted(self, left: _Side, right: _Side, points: Sequence[Any], wrong: Mapping[str, Any]) -> Verdict:
        ratio, reason = self._ratio(left, right, points)
        return Verdict(self.claim, "refuted", ratio, reason, self._correct(left) or self._correct(self.sides[0]), wrong)

    def _ratio(self, left: _Side, right: _Side, points: Sequence[Any]) -> tuple[str | None, str | None]:
        """Right over left where that is one number at every place and point, and the slip that it stands for."""
        free = self._free(left, right)
        ratios: list[tuple[Any, dict[str, int]]] = []
        for values, sizes, functions in points:
            one, other = (self._value(s, free, values, sizes, functions) for s in (left, right))
            found = [other[p] / one[p] for p in one if abs(one[p]) > mpmath.mpf(10) ** -15]
            if not found or max(abs(r - found[0]) for r in found) > abs(found[0]) * mpmath.mpf(10) ** -12:
                return None, None
            ratios.append((found[0], sizes))
        for sign, words in ((1, ""), (-1, "the sign is the other way round, and ")):
            size = next((i.size for i in self.network.indices if i.name == self.network.batch), None)
            for power, text in (
                (1, "the factor 1/{} is missing: a sum where the loss is a mean"),
                (-1, "there is a factor 1/{} too many"),
            ):
                if size is not None and all(
                    abs(r - sign * mpmath.mpf(s[str(self.network.batch)]) ** power) < 1e-12 for r, s in ratios
                ):
                    return "-" * (sign < 0) + (size if power > 0 else f"1/{size}"), words + text.format(size)
        first = ratios[0][0]
        if any(abs(r - first) > abs(first) * mpmath.mpf(10) ** -12 for r, _ in ratios):
            return None, None
        for number, words in _SLIPS:
            if abs(first - mpmath.mpf(int(number.p)) / int(number.q)) < 1e-12:
                return str(number), words
        return mpmath.nstr(first, 8), None

    def _correct(self, side: _Side) -> str | None:
        """The derived formula, where the side is a derivative."""
        body = side.terms[0].body
        by_name = {e.name: e for e in self.derivation.equations}
        array = {v: k for k, v in self.derivation.adjoints.items()}.get(body.name) if isinstance(body, Element) else None
        if array is not None and self.derivation.adjoints[array] in by_name:
            equation = closed_form(self.derivation, array)
            return f"{side.text} = {Writer(style_of(self.network, self.derivation.adjoints)).terms(equation.terms)}"
        return None

    # ------------------------------------------------------------------ proving

    def _same(self, left: _Side, right: _Side) -> bool:
        """Whether the difference of the sides is zero as an expression, derivatives and functions put in."""
        free = self._free(left, right)
        minus = tuple(Term(-t.body, t.over) for t in right.terms)
        difference = Equation(Element("@difference", *free), (*left.terms, *minus))
        for known in (self.derivation.equations, self.derivation.raw):
            equation = self._put_in(difference, {e.name: e for e in known})
            if self._vanishes(equation):
                return True
        return False

    @staticmethod
    def _put_in(equation: Equation, known: Mapping[str, Equation]) -> Equation:
        """The equation with every derivative in it replaced by its own equation, as far as that goes."""
        passed = {e.name for group in groups_of(list(known.values())) if is_recurrence(group) for e in group}
        while True:
            names = sorted({e.name for t in equation.terms for e in t.body.atoms(Element)} - passed)
            name = next((n for n in names if n in known), None)
            if name is None:
                return equation
            merged = insert_equation(equation, known[name])
            if merged is None:
                passed.add(name)
            else:
                equation = merged

    def _vanishes(self, equation: Equation) -> bool:
        swap: dict[Expr, Expr] = {}
        forward = {e.name: e for e in self.network.equations if len(e.terms) == 1 and not e.terms[0].over}
        for attempt in range(3):
            plain = replace(
                equation, terms=tuple(replace(t, body=self._plain(t.body, swap, attempt > 0)) for t in equation.terms)
            )
            if all(clean(rationally(t.body, "expand")) == 0 for t in collected(plain).terms):
                return True
            if attempt == 0:
                continue
            # once more with element-wise definitions put in: a = sigmoid(z)
            for t in equation.terms:
                for e in t.body.atoms(Element):
                    if e.name in forward:
                        d = forward[e.name]
                        swap[e] = d.terms[0].body.xreplace(dict(zip(d.target.indices, e.indices, strict=True)))
        return False

    def _plain(self, body: Expr, swap: Mapping[Expr, Expr], unfold: bool) -> Expr:
        return clean(unfold_calls(resolve(body.xreplace(dict(swap)), self.functions), self.functions)) if unfold else body
