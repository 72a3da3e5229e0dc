"""A derivation as one web page: the answer, the diagram, every step folded to the essential ones, results in four forms, numbers.

The page needs no network and no other file; formulas are MathML with one small font inside. Colours say what a factor is.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import sympy

from .alike import alike, general, ranges
from .catalogue import OPTIMISERS
from .document import KINDS, Explanation, Form
from .errors import DataError
from .graph import Graph, graph_of, paths_to_loss, weights_of
from .latex import LatexWriter
from .mathml import KINDS as CLASSES
from .mathml import mathml
from .matrix import matrix_equation
from .notation import Derivation, Element, Equation, Step, elements_of
from .numbers import Point, differences, follow, one_step, point_of, shown, with_numbers
from .reader import Notation
from .render import render
from .scalars import scalar_results
from .unicode_text import TextWriter
from .write import Formula, Style

_FONT = Path(__file__).parent / "fonts" / "stix-two-math-subset.woff2"
_MOST_STEPS = 40  # weights of one training step that are listed
_MOST_FOLLOWED = 60  # weights of a network that is trained for three steps on the page
_LABELS = 10  # weights whose names stand on the edges of the diagram
_RATE = 0.5
_DRAWS = 8  # of values for the page, at most
# Formulas that differ in the number of their layer alone are shown once from this many on, in a long network from two on.
_ALIKE, _LONG = 3, 30


def page(derivation: Derivation, values: Mapping[str, Any] | None = None, seed: int = 0, notation: Notation | None = None) -> str:
    """The page. `values` gives arrays by name as nested lists; what is left out is drawn from `seed`."""
    return render("page.html", _Page(derivation, values, seed, notation or Notation()).data())


class _Page:
    def __init__(self, derivation: Derivation, values: Mapping[str, Any] | None, seed: int, notation: Notation) -> None:
        self.derivation = derivation
        self.network = derivation.network
        self.writing = Explanation(derivation, "index", notation)
        roles = {a.name: a.role for a in self.network.arrays}
        kinds = {n: "weight" if r == "parameter" else "signal" for n, r in roles.items() if r not in ("target", "constant")}
        kinds |= dict.fromkeys(derivation.adjoints.values(), "upstream")
        kinds.pop(self.network.loss, None)
        # Every formula of the page is coloured by these.
        self.writing.style = replace(self.writing.style, kinds=kinds)
        self.writing.forward_style = replace(self.writing.forward_style, kinds=kinds)
        self.style: Style = self.writing.latex(self.writing.style)
        self.forward: Style = self.writing.latex(self.writing.forward_style)
        self.graph = graph_of(self.network)
        self.long = len(self.network.equations) > _LONG
        self.alike = 2 if self.long else _ALIKE
        self.point = self._point(values, seed)
        self.given = values is not None

    def _point(self, values: Mapping[str, Any] | None, seed: int) -> Point | None:
        """Numbers, where the network is small enough to follow them."""
        cells = 1
        numbers = {i.name: i.number or 3 for i in self.network.indices}
        for e in (*self.network.equations, *self.derivation.equations):
            work = 1
            for i in {*e.target.letters, *(i for t in e.terms for i in t.over)}:
                work *= numbers[i.name.rstrip("'")]
            cells += work
        if values is not None:
            return point_of(self.derivation, values, seed)
        # Values are drawn anew where a formula has none at the first ones, such as the logarithm of what is below zero.
        for k in range(_DRAWS if cells <= 40_000 and not self.long else 0):
            with contextlib.suppress(DataError):
                return point_of(self.derivation, values, seed + 1000 * k)
        return None

    # ------------------------------------------------------------------ the document

    def data(self) -> dict[str, Any]:
        answer = self.writing.answer()
        return {
            "title": self.network.name,
            "network": self.network.text,
            "loss": self.network.loss,
            "font": base64.b64encode(_FONT.read_bytes()).decode("ascii"),
            "answer": answer[0],
            "answer_more": answer[1:],
            "conventions": self.writing.conventions(),
            "forward": self._merged(
                [self._equation(e, self.forward, self.writing.forward_style) for e in self.network.equations]
            ),
            "facts": [self._math(f) for f in self.writing.facts()],
            "functions": [self._math(f) for f in self.writing.function_formulas()],
            "kinds": [(CLASSES[k], words) for k, words in KINDS.items() if any(s.kind == k for s in self.derivation.steps)],
            "uses": self._uses(),
            "diagram": self._diagram(),
            "steps": self._steps(),
            "results": self._results(),
            "stored": self._stored(),
            "numbers": self._numbers(),
            "training": self._training(),
            "rules": self._rules(),
            "updates": self._merged(self.writing.updates()[: 1 if self.long else None]),
        }

    def _math(self, f: Formula) -> dict[str, str]:
        """A formula for the page, in the reader's notation, and its text for those who listen or search."""
        f = self.writing.chosen(f)
        return {"math": self._shown(f.latex, False), "text": f.text, "layers": ""}

    def _shown(self, latex: str, chosen: bool = True) -> str:
        """LaTeX as MathML, in the reader's notation."""
        latex = self.writing.chosen(Formula("", latex)).latex if chosen else latex
        return mathml(latex, annotated=False)

    def _equation(self, equation: Equation, style: Style, text_style: Style) -> Formula:
        return Formula(TextWriter(text_style).equation(equation), LatexWriter(style).equation(equation))

    def _merged(self, formulas: Sequence[Formula]) -> list[dict[str, Any]]:
        """Formulas in order; those that differ in the number of their layer alone are written once, with l."""
        rows: list[dict[str, Any]] = []
        for k, found in alike([f.text for f in formulas], self.alike):
            if found is None:
                rows.append(self._math(formulas[k]))
            else:
                latex = general(formulas[k].latex, found.own)
                rows.append({"math": self._shown(latex), "text": found.text, "layers": f"for l = {ranges(found.numbers)}"})
        return rows

    def _uses(self) -> list[dict[str, Any]]:
        """Which derivative is used where: one row for each kind of local derivative."""
        formulas: list[tuple[str, Formula, Formula]] = []
        for s in self.derivation.steps:
            if self.long and s.kind == "one":
                continue  # sums of plain ones would only fill a long table
            left, value = self.writing.partial(s.target, s.source), self.writing.local(s, s.local)
            both = Formula(f"{left.text} = {value.text}", rf"{left.latex} = \kind{{{s.kind}}}{{{_plain(value.latex)}}}")
            formulas.append((s.kind, both, self.writing.formula(s.adjoint)))
        rows: list[dict[str, Any]] = []
        for k, found in alike([both.text for _, both, _ in formulas], self.alike):
            kind, both, place = formulas[k]
            if found is not None:
                both = Formula(found.text, general(both.latex, found.own))
                place = Formula(place.text, general(place.latex, found.own))
            rows.append(
                {"kind": CLASSES[kind], "words": KINDS[cast(Any, kind)], "formula": self._math(both), "place": self._math(place)}
            )
        return rows

    # ------------------------------------------------------------------ steps and results

    def _steps(self) -> list[dict[str, Any]]:
        """The derivation: for every derivative its essential line, and folded within it all the others."""
        final = {e.name: e for e in self.derivation.equations}
        raws = [(raw, self._equation(final.get(raw.name, raw), self.style, self.writing.style)) for raw in self.derivation.raw]
        rows: list[dict[str, Any]] = []
        for k, found in alike([f.text for _, f in raws], self.alike):
            (raw, essential), layers = raws[k], ""
            if found is not None:
                layers = f"for l = {ranges(found.numbers)}; written here for l = {found.own}"
                essential = Formula(found.text, general(essential.latex, found.own))
            rows.append(self._step(raw, essential, layers, raw.name in final))
        return rows

    def _step(self, raw: Equation, essential: Formula, layers: str, kept: bool) -> dict[str, Any]:
        own = [s for s in self.derivation.steps if s.adjoint.name == raw.name]
        rewrites = [r for r in self.derivation.rewrites if r.after.name == raw.name]
        place = bool(raw.terms) and raw.terms[0].reduce == "argmax"
        lines: list[dict[str, Any]] = []
        # In a long network the table above holds the local derivatives; here they would make the page heavy.
        for s in () if self.long else own:
            lines.append(
                {"rule": "local derivative", "why": _why(s), "formula": self._math(self._use(s)), "kind": CLASSES[s.kind]}
            )
        rule = "place of the greatest value" if place else "chain rule"
        why = (
            "the first place that attains the greatest value gets the whole derivative"
            if place
            else "for every use: what comes from above times the local derivative, summed"
        )
        lines.append(
            {"rule": rule, "why": why, "formula": self._math(self._equation(raw, self.style, self.writing.style)), "kind": ""}
        )
        lines += [
            {
                "rule": r.rule,
                "why": r.why,
                "formula": self._math(self._equation(r.after, self.style, self.writing.style)),
                "kind": "",
            }
            for r in rewrites
        ]
        if kept and not layers:
            lines[-1]["formula"] = None  # it stands above
        return {"essential": self._math(essential), "layers": layers, "lines": lines, "kept": kept}

    def _use(self, s: Step) -> Formula:
        partial, before = self.writing.partial(s.target, s.source), self.writing.local(s, s.before)
        text, latex = f"{partial.text} = {before.text}", rf"{partial.latex} = \kind{{{s.kind}}}{{{_plain(before.latex)}}}"
        if s.local != s.before:
            local = self.writing.local(s, s.local)
            text, latex = f"{text} = {local.text}", rf"{latex} = \kind{{{s.kind}}}{{{_plain(local.latex)}}}"
        return Formula(text, latex)

    def _results(self) -> list[dict[str, Any]]:
        """Each gradient in index, matrix, scalar and NumPy form, with the shape of every factor."""
        derivation = self.derivation
        scalars = scalar_results(derivation, self.writing.style, self.style)
        planner = self.writing.planner()
        wanted = self.writing.gradients()
        shown_equations = [e for e in derivation.equations if e in wanted]
        array = {v: k for k, v in derivation.adjoints.items()}
        rows: list[dict[str, Any]] = []
        texts = [TextWriter(self.writing.style).equation(e) for e in shown_equations]
        for k, found in alike(texts, self.alike):
            e = shown_equations[k]
            layers = f"and likewise for the layers {ranges(found.numbers)}" if found is not None else ""
            matrix = self.writing.equation(e, self.writing.style, cast(Form, "matrix"))
            rows.append(
                {
                    "name": array[e.name],
                    "layers": layers,
                    "index": self._math(self._equation(e, self.style, self.writing.style)),
                    "matrix": self._math(matrix) if matrix_equation(e, self.writing.style, latex=False) is not None else None,
                    "scalar": [self._math(f) for f in scalars.get(array[e.name], [])],
                    "numpy": "\n".join(planner.statement(e).lines),
                    "shapes": self._shapes(e),
                }
            )
        return rows

    def _shapes(self, equation: Equation) -> list[dict[str, Any]]:
        """The shape under every factor of an equation."""
        found = [equation.target, *dict.fromkeys(e for t in equation.terms for e in elements_of(t.body))]
        axes = {a.name: a.axes for a in self.network.arrays}
        axes |= {e.name: tuple(i.name for i in e.target.letters) for e in self.derivation.equations}
        size = {i.name: i for i in self.network.indices}
        rows: dict[str, dict[str, Any]] = {}
        for e in found:
            shape = [str(size[a].number or size[a].size) for a in axes.get(e.name, ())]
            whole = Element(e.name)
            name = Formula(TextWriter(self.writing.style).element(whole), LatexWriter(self.style).element(whole))
            rows.setdefault(e.name, {**self._math(name), "shape": " × ".join(shape) or "scalar"})
        return list(rows.values())

    def _stored(self) -> list[dict[str, Any]]:
        """The forward values that the backward pass reads again, and where."""
        later: dict[str, list[str]] = {}
        array = {v: k for k, v in self.derivation.adjoints.items()}
        for e in self.derivation.equations:
            for name in dict.fromkeys(x.name for t in e.terms for x in elements_of(t.body)):
                later.setdefault(name, []).append(array.get(e.name, e.name))
        rows: list[dict[str, Any]] = []
        for e in self.network.equations:
            if e.name in later:
                whole = Element(e.name)
                name = Formula(e.name, LatexWriter(self.style).element(whole))
                users = [
                    self._math(
                        Formula(TextWriter(self.writing.style).element(Element(self.derivation.adjoints[u])), self._adjoint(u))
                    )
                    for u in later[e.name]
                    if u in self.derivation.adjoints
                ]
                rows.append({"name": self._math(name), "users": users})
        return rows[: 24 if self.long else 60]

    def _adjoint(self, array: str) -> str:
        return LatexWriter(self.style).element(Element(self.derivation.adjoints[array]))

    # ------------------------------------------------------------------ the diagram and its paths

    def _diagram(self) -> dict[str, Any]:
        graph = self.graph
        text = TextWriter(replace(self.writing.forward_style, hidden=self._hidden(graph)))
        nodes = [
            {
                "id": name,
                "x": node.x,
                "y": node.y,
                "kind": node.kind,
                "label": _short(text.element(node.element if graph.units else Element(node.element.name))),
                "full": text.element(node.element),
                "value": self._at(node.element),
                "slope": self._slope(node.element),
            }
            for name, node in graph.nodes.items()
        ]
        edges: list[dict[str, Any]] = []
        leaving = Counter(e.source for e in graph.edges)
        reaching = Counter(e.target for e in graph.edges if e.source)
        for edge in graph.edges:
            target = graph.nodes[edge.target]
            source = graph.nodes.get(edge.source)
            x1, y1 = (source.x, source.y) if source is not None else (target.x - 34, target.y - 44)
            # Where the lines of a fan lie apart: near its many ends.
            share = 0.62 if leaving[edge.source] >= reaching[edge.target] else 0.36
            edges.append(
                {
                    "source": edge.source,
                    "target": edge.target,
                    "x1": x1,
                    "y1": y1,
                    "at": 0.1 if source is None else share,
                    "x2": target.x,
                    "y2": target.y,
                    "bend": source is not None and target.column - source.column > 1 and abs(y1 - target.y) < 1,
                    "weights": [
                        {
                            "id": _slug(text.element(w)),
                            "label": _short(text.element(w if graph.units else Element(w.name))),
                            "value": self._at(w),
                            "slope": self._slope(w),
                        }
                        for w in edge.weights
                    ],
                }
            )
        return {
            "nodes": nodes,
            "edges": edges,
            "width": graph.width,
            "height": graph.height,
            "named": sum(len(e.weights) for e in graph.edges) <= _LABELS or not graph.units,
            "paths": self._paths(text),
        }

    def _hidden(self, graph: Graph) -> frozenset[str]:
        """In the diagram an array stands for itself; of a unit its number is shown."""
        return frozenset(i.name for i in self.network.indices) if not graph.units else frozenset({self.network.batch or ""})

    def _at(self, e: Element) -> str:
        """The value of a node for the first example, if it is one number."""
        if self.point is None or (
            not self.graph.units and any(True for i in e.indices if not i.is_Integer) and not self._single(e)
        ):
            return ""
        return shown(self._cell(e.name, e)).replace(r" \cdot 10^{", "e").rstrip("}")

    def _slope(self, e: Element) -> str:
        adjoint = self.derivation.adjoints.get(e.name)
        if self.point is None or adjoint is None or adjoint not in self.point.values or not self._at(e):
            return ""
        return shown(self._cell(adjoint, e)).replace(r" \cdot 10^{", "e").rstrip("}")

    def _single(self, e: Element) -> bool:
        """Whether an array has one number for an example."""
        assert self.point is not None
        return all(self.point.sizes[i.name] == 1 or i.name == self.network.batch for i in e.letters)

    def _cell(self, name: str, e: Element) -> Any:
        assert self.point is not None
        place = tuple(int(i) - 1 if i.is_Integer else 0 for i in e.indices)
        return self.point.values[name].get(place, 0)

    def _paths(self, text: TextWriter) -> list[dict[str, Any]]:
        """For every weight: the paths from it to the loss, each with its product of local derivatives."""
        result: list[dict[str, Any]] = []
        loss, large = self.network.loss, len(self.graph.nodes) > 40
        steps = {(s.target.name, s.source.name): s for s in self.derivation.steps}
        for weight in weights_of(self.graph):
            paths, more = paths_to_loss(self.graph, weight, loss, 1 if large else 24)
            lines: list[dict[str, Any]] = []
            for path in paths:
                names = [weight.name, *(self.graph.nodes[n].element.name for n in path)]
                factors: list[tuple[str, str, str]] = []
                for below, above in itertools.pairwise(names):
                    s = steps.get((above, below))
                    if s is not None and not large:
                        left, value = self.writing.partial(s.target, s.source), self.writing.local(s, s.before)
                        factors.append((s.kind, left.latex, value.latex))
                latex = r" \; ".join(rf"\kind{{{k}}}{{{_plain(left)}}}" for k, left, _ in reversed(factors))
                product = r" \cdot ".join(rf"\kind{{{k}}}{{{_bracketed(_plain(v))}}}" for k, _, v in reversed(factors))
                lines.append(
                    {
                        "nodes": path,
                        "math": self._shown(f"{latex} = {product}") if factors else "",
                        "text": " → ".join(names),
                    }
                )
            name = text.element(weight)
            result.append({"id": _slug(name), "name": name if self.graph.units else weight.name, "paths": lines, "more": more})
        return result

    # ------------------------------------------------------------------ numbers

    def _numbers(self) -> dict[str, Any] | None:
        """Every line once with symbols and once with numbers, and the differences at the end."""
        if self.point is None:
            return None
        forward = [self._numbered(e, self.forward, self.writing.forward_style) for e in self.network.equations]
        backward = [self._numbered(e, self.style, self.writing.style) for e in self.derivation.equations]
        checks: list[dict[str, Any]] = []
        for name, place, derived, quotient in differences(self.derivation, self.point):
            e = Element(name, *(sympy.Integer(k + 1) for k in place))
            latex = rf"\frac{{\partial {LatexWriter(self.style).element(Element(self.network.loss))}}}"
            latex += rf"{{\partial {LatexWriter(self.style).element(e)}}}"
            checks.append(
                {
                    "name": {"math": self._shown(latex), "text": f"∂{self.network.loss}/∂{e}"},
                    "derived": f"{float(derived):.8g}",
                    "quotient": f"{float(quotient):.8g}",
                    "agrees": abs(derived - quotient) <= 1e-6 * max(abs(quotient), 1e-6),
                }
            )
        given = [
            self._given(a.name)
            for a in self.network.arrays
            if a.role not in ("stored", "constant") and len(self.point.values[a.name]) <= 64
        ]
        return {"forward": forward, "backward": backward, "checks": checks, "given": given, "from_file": self.given}

    def _given(self, name: str) -> dict[str, Any]:
        assert self.point is not None
        cells = self.point.values[name]
        text = ", ".join(f"{float(v):.4g}" for v in cells.values())
        return {**self._math(Formula(name, LatexWriter(self.style).element(Element(name)))), "cells": text}

    def _numbered(self, equation: Equation, style: Style, text_style: Style) -> dict[str, Any]:
        assert self.point is not None
        found = with_numbers(equation, style, self.point)
        row: dict[str, Any] = {"symbols": self._math(self._equation(equation, style, text_style)), "numbers": None}
        if found is not None:
            at = {i: sympy.Integer(1) for i in equation.target.letters}
            left = LatexWriter(style).element(cast(Element, equation.target.xreplace(at)))
            line, value = found
            same = line.strip("()") == value
            row["numbers"] = {
                "math": self._shown(f"{left} = {line}" + ("" if same else f" = {value}")),
                "text": value,
            }
        return row

    def _rules(self) -> dict[str, Any]:
        """The optimiser and the schedule, and the first weight through three updates."""
        rules = self.writing.training_rules()
        followed: list[dict[str, Any]] = []
        names = [n for n in self.derivation.wrt if self.writing.arrays[n].role == "parameter"]
        weights = sum(len(self.point.values[n]) for n in names) if self.point is not None else 0
        if self.point is not None and 0 < weights <= _MOST_FOLLOWED:
            row = OPTIMISERS[rules["name"]]
            with contextlib.suppress(DataError):  # an update may lead to where the loss is no number
                for r in follow(self.derivation, self.point, row, float(row.learning_rate)):
                    numbers = {k: f"{float(v):.5g}" for k, v in {"slope": r["slope"], **r["state"], "after": r["after"]}.items()}
                    followed.append({"t": r["t"], "loss": f"{float(r['loss']):.6g}", "cells": list(numbers.values())})
        first = Element(names[0], *(sympy.Integer(1) for _ in self.writing.arrays[names[0]].axes)) if names else None
        return {
            **rules,
            "lines": [self._math(f) for f in rules["lines"]],
            "schedule": self._math(rules["schedule"]),
            "followed": followed,
            "first": self._shown(LatexWriter(self.style).element(first)) if first is not None else "",
            "rate": OPTIMISERS[rules["name"]].learning_rate,
        }

    def _training(self) -> dict[str, Any] | None:
        """One step of gradient descent with the numbers before and after."""
        if self.point is None:
            return None
        try:
            rows, before, after = one_step(self.derivation, self.point, _RATE)
        except DataError:
            return None  # the step leads to where the loss is no number
        shown_rows = [
            {
                **self._math(Formula(str(e), LatexWriter(self.style).element(e))),
                "before": f"{float(b):.5g}",
                "slope": f"{float(g):.5g}",
                "after": f"{float(a):.5g}",
            }
            for name, place, b, g, a in rows[:_MOST_STEPS]
            for e in [Element(name, *(sympy.Integer(k + 1) for k in place))]
        ]
        return {
            "rows": shown_rows,
            "more": max(0, len(rows) - _MOST_STEPS),
            "rate": f"{_RATE:g}",
            "before": f"{float(before):.6g}",
            "after": f"{float(after):.6g}",
        }


def _why(step: Step) -> str:
    """One sentence on a local derivative."""
    source, target = step.source.name, step.target.name
    words = {
        "loss": f"how the loss changes with {source}: the derivative of the loss, needed once, here",
        "activation": f"{target} is a function of {source}: the derivative of that function at the stored {source}",
        "weight": f"{target} is linear in {source}: what multiplies it is the weight on the path",
        "signal": f"{target} is linear in the weight {source}: what multiplies it is the stored input of the layer",
        "penalty": f"the penalty depends on {source} directly",
        "one": f"{source} is added as it is",
        "other": f"{target} depends on {source} here",
    }
    return words[step.kind]


def _plain(latex: str) -> str:
    """LaTeX without marks: a factor has the one colour of its kind."""
    while (new := re.sub(r"\\kind\{\w+\}\{((?:[^{}]|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})*)\}", r"\1", latex)) != latex:
        latex = new
    return latex


def _bracketed(latex: str) -> str:
    return rf"\left({latex}\right)" if re.search(r"(?<![{(])[+-]", latex.lstrip("-")) or latex.startswith("-") else latex


def _short(text: str) -> str:
    return text if len(text) <= 9 else text[:8] + "…"


def _slug(text: str) -> str:
    """A name as an identifier in the page."""
    return "w-" + "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):x}" for c in text)
