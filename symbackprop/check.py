"""Is a claimed formula right, and if not, where does it go wrong?

    \\frac{\\partial L}{\\partial v_1} = -(y-y')\\,f_B'(z_B)\\,o_1

A claim is a chain of equalities, in LaTeX or formula text, in index or matrix form, about derivatives, functions, updates or
numbers. Every equality is judged: first by numbers at generic points, then by algebra. Where a text can be read in several
ways, all are tried, and the verdict says which one holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from .catalogue import OPTIMISERS
from .claim import Misfit
from .derive import derive
from .errors import SymbackpropError
from .judge import Judge, Outcome, Subject, is_number, read_settings
from .notation import Derivation, Displayed, Network, data_indices
from .prove import prove
from .restate import restated
from .slips import Found, unexplained, wrong_equality, wrong_shapes
from .updates import optimiser_network

Judgement = Literal["proved", "agrees", "refuted", "not understood"]


@dataclass(frozen=True)
class Verdict(Displayed):
    """What became of one claim.

    `verdict` is proved, agrees (numerically, not proved), refuted, or not understood. For a refuted claim `ratio` is
    claim over truth where that is one number, `reason` says what is wrong where a usual slip explains it, `correct` is the
    right formula in the claim's notation and `counterexample` a place with both values; `declaration` says for which
    declaration it would be right, `marked` the characters that are wrong. `read_as` is the claim as it was read, in the network's
    own names and indices, and `reading` tells which way an ambiguous text was read.
    `holds` counts the equalities that hold, out of `equalities`.
    """

    claim: str
    verdict: Judgement
    ratio: str | None = None
    reason: str | None = None
    correct: str | None = None
    counterexample: Mapping[str, Any] | None = None
    declaration: str | None = None
    marked: tuple[int, int] | None = None
    reading: str | None = None
    read_as: str | None = None
    holds: int = 0
    equalities: int = 0

    def __str__(self) -> str:
        lines = [f"{self.verdict}: {self.claim}"]
        if self.marked is not None and "\n" not in self.claim:
            indent = len(self.verdict) + 2 + self.marked[0]
            lines.append(" " * indent + "^" * max(self.marked[1] - self.marked[0], 1))
        lines += [f"    {self.reason}"] if self.reason else []
        lines += [f"    {self.declaration}"] if self.declaration else []
        lines += [f"    read as {self.read_as}"] if self.read_as else []
        lines += [f"    ({self.reading})"] if self.reading else []
        lines += [f"    correct: {self.correct}"] if self.correct and self.verdict == "refuted" else []
        return "\n".join(lines)


def check(
    derivation: Derivation | Network | str | Path | Mapping[str, Any],
    claim: str,
    *,
    values: Mapping[str, Any] | None = None,
    notation: str = "",
) -> Verdict:
    """Judge one claim, a text, about a derivation or anything that `derive` takes.

    `values` gives inputs, targets and parameters, where the claim holds numbers; `notation` settles what a text leaves open, such
    as "examples=one, delta=minus, batch=columns". A claim that cannot be read gets the verdict "not understood" with the reason
    and the place; nothing is guessed.
    """
    return Checker(derivation, values=values).check(claim, notation)


class Checker:
    """Judges any number of claims about one network: the derivation and the numbers are shared.

    Raises what `derive` raises; `values` are the numbers that claims with numbers are about.
    """

    def __init__(
        self, network: Derivation | Network | str | Path | Mapping[str, Any], values: Mapping[str, Any] | None = None
    ) -> None:
        if isinstance(network, str) and network in OPTIMISERS:
            network = optimiser_network(network)
        derivation = network if isinstance(network, Derivation) else derive(network)
        whole = data_indices(derivation.network.equations)
        arrays = [a.name for a in derivation.network.arrays if a.role != "target" and a.name not in whole]
        missing = [a for a in arrays if a not in derivation.adjoints and a != derivation.network.loss]
        derivation = derive(derivation.network, [*derivation.wrt, *missing]) if missing else derivation
        self.subject = Subject(derivation, values)
        self._optimisers: dict[str, Subject] = {}

    def check(self, claim: str, notation: str = "") -> Verdict:
        """The verdict on one claim, a text in which `notation` settles what is left open.

        What speaks of no array of the network and is the rule of an optimiser is judged as that.
        """
        verdict = _judged(self.subject, claim, notation)
        if verdict.verdict != "not understood" or not _RULE.search(claim):
            return verdict
        own = str(self.subject.derivation.network.training.get("optimizer", "sgd"))
        found = {name: _judged(self._optimiser(name), claim, notation) for name in dict.fromkeys((own, *OPTIMISERS))}
        for wanted in (("proved", "agrees"), ("refuted",)):
            for name, other in found.items():
                if other.verdict in wanted:
                    return replace(other, reading="; ".join(filter(None, (f"read as the update of {name}", other.reading))))
        return verdict

    def _optimiser(self, name: str) -> Subject:
        if name not in self._optimisers:
            self._optimisers[name] = Subject(derive(optimiser_network(name)))
        return self._optimisers[name]


# What the rules of optimisers speak of: a gradient, a moment, a weight, at a step.
_RULE = re.compile(r"(?<![A-Za-z])(?:g|m|v|\\theta|θ)(?:\}?_\{?t|\[t|_t)|\\beta_|β_|β[₁₂]")


def _judged(subject: Subject, claim: str, notation: str) -> Verdict:
    try:
        judge = Judge(subject, claim, read_settings(notation))
        try:
            outcome = judge.best()
        except Misfit as problem:
            return _misfit(judge, problem)
        return _right(judge, outcome) if outcome.holds else _wrong(judge, outcome)
    except SymbackpropError as problem:
        return Verdict(claim, "not understood", reason=str(problem))
    except RecursionError:
        return Verdict(claim, "not understood", reason="<claim>:1:1: this is too long to be judged; give parts of it names")


def _right(judge: Judge, outcome: Outcome) -> Verdict:
    case, count = outcome.case, len(outcome.right)
    numbers = judge.subject.given is not None and any(map(is_number, case.trees[1:]))
    proved, why = (False, None) if numbers else prove(judge, case)
    verdict: Judgement = "proved" if proved else "agrees"
    return Verdict(
        judge.claim,
        verdict,
        reason=why,
        reading="; ".join(case.notes) or None,
        read_as=restated(case, judge.names),
        holds=count,
        equalities=count,
    )


def _wrong(judge: Judge, outcome: Outcome) -> Verdict:
    read_as = restated(outcome.case, judge.names)
    try:
        found = wrong_equality(judge, outcome)
    except SymbackpropError:
        found = unexplained(outcome)  # the search for a cause explains a verdict and never changes it
    found = replace(found, correct=_accepted(judge, found.correct))
    return Verdict(
        judge.claim,
        "refuted",
        found.ratio,
        found.words or None,
        found.correct,
        found.counterexample,
        found.declaration,
        found.span,
        "; ".join(outcome.case.notes) or None,
        read_as,
        sum(outcome.right) if found.counterexample is not None else 0,
        len(outcome.right),
    )


def _accepted(judge: Judge, correct: str | None) -> str | None:
    """A formula that is printed as correct, if it is judged right when it is handed back."""
    if correct is None:
        return None
    try:
        return correct if Judge(judge.subject, correct, judge.settled).best().holds else None
    except (SymbackpropError, RecursionError):
        return None


def _misfit(judge: Judge, problem: Misfit) -> Verdict:
    try:
        found = wrong_shapes(judge, problem)
    except SymbackpropError:
        found = Found(problem.message)
    found = replace(found, correct=_accepted(judge, found.correct))
    count = len(judge.text.sides) - 1
    return Verdict(
        judge.claim, "refuted", None, found.words, found.correct, None, found.declaration, found.span, None, None, 0, count
    )
