"""A derivation as a document: the answer first, then what is used where, the steps, the results.

The document is data, with every formula as text and as LaTeX; the templates only lay it out. All of it is read off
the recorded steps and rewrites, so nothing is explained that was not done.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, cast

import sympy
from sympy import Expr, Symbol

from . import catalogue
from .derive import closed_form
from .functions import catalogue_functions
from .latex import LatexWriter, latex_name
from .matrix import matrix_equation
from .notation import Derivation, Element, Equation, Network, Step, Term, index, indices_of, size_symbol
from .numpy_text import Names
from .plan import Planner
from .reader import Notation, flipped, rewritten
from .recipes import rule_style, schedule_rate, update_equations
from .scalars import scalar_results
from .unicode_text import TextWriter
from .views import shapes_of
from .write import Formula, Style, Writer, style_of

Form = Literal["index", "matrix", "scalar"]

# What a factor of the chain rule is, in words.
KINDS = {
    "loss": "derivative of the loss",
    "activation": "derivative of the activation",
    "weight": "weight on the path",
    "signal": "stored signal (the input of the layer)",
    "penalty": "derivative of the penalty",
    "one": "one (a plain sum)",
    "other": "derivative of this step",
}


class Explanation:
    """What can be said of a derivation, as data: every formula as text and as LaTeX; templates lay it out."""

    def __init__(self, derivation: Derivation, form: Form, notation: Notation | None = None) -> None:
        self.notation = notation or Notation()
        self.derivation = derivation
        self.network: Network = derivation.network
        self.form = form
        self.forward_style = style_of(self.network)
        self.style = style_of(self.network, derivation.adjoints)
        turned = flipped(self.notation, self.network, derivation.adjoints)
        self.style = replace(self.style, flipped=turned)
        self.forward_style = replace(self.forward_style, flipped=turned)
        self.functions = {f.name: f for f in self.network.functions}
        self.arrays = {a.name: a for a in self.network.arrays}

    # ------------------------------------------------------------------ formulas

    def formula(self, expr: Expr) -> Formula:
        """An expression in both forms."""
        return Formula(TextWriter(self.style).expression(expr), LatexWriter(self.latex(self.style)).expression(expr))

    def latex(self, style: Style) -> Style:
        """The style with the usual symbols of functions."""
        own = {n for n, f in self.functions.items() if f != catalogue_functions().get(n)}
        symbols = {n: r.latex for n, r in catalogue.ACTIVATIONS.items() if r.latex and r.formula and n not in own}
        return replace(style, functions=symbols)

    def equation(self, equation: Equation, style: Style | None = None, form: Form = "index") -> Formula:
        """An equation in both forms, as a matrix formula where that is asked for and there is one."""
        style = style or self.style
        if form == "matrix":
            text = matrix_equation(equation, style, latex=False)
            latex = matrix_equation(equation, self.latex(style), latex=True)
            if text is not None and latex is not None:
                return Formula(text, latex)
        return Formula(TextWriter(style).equation(equation), LatexWriter(self.latex(style)).equation(equation))

    # ------------------------------------------------------------------ the document

    def document(self) -> dict[str, Any]:
        """Everything that a template of a whole document lays out, in the reader's notation."""
        return cast("dict[str, Any]", self.chosen(self._document()))

    def chosen(self, found: Any) -> Any:
        """Data with every formula in it in the reader's notation."""
        if isinstance(found, Formula):
            return rewritten(found, self.notation, self.network)
        if isinstance(found, dict):
            return {k: self.chosen(v) for k, v in cast("dict[str, Any]", found).items()}
        if isinstance(found, list):
            return [self.chosen(v) for v in cast("list[Any]", found)]
        return found

    def _document(self) -> dict[str, Any]:
        network = self.network
        scalars = [f for formulas in self.scalars().values() for f in formulas] if self.form == "scalar" else []
        return {
            "title": network.name,
            "network": network.text,
            "loss": self.formula(Element(network.loss)),
            "answer": self.answer(),
            "conventions": self.conventions(),
            "uses": self.uses(),
            "forward": [self.equation(e, self.forward_style, self.layout) for e in network.equations],
            "facts": self.facts(),
            "functions": self.function_formulas(),
            "steps": self.steps(),
            "results": [self.equation(e, form=self.layout) for e in self.derivation.equations],
            "scalars": scalars,
            "updates": self.updates(),
            "rules": self.training_rules(),
            "form": self.form,
            "too_large": self.form == "scalar" and not scalars,
        }

    @property
    def layout(self) -> Form:
        """How equations are written where each weight by name is asked for as well."""
        return "matrix" if self.form == "matrix" else "index"

    def scalars(self) -> dict[str, list[Formula]]:
        """The results weight by weight, empty where there are too many."""
        return scalar_results(self.derivation, self.style, self.latex(self.style))

    def gradients(self) -> list[Equation]:
        """The equations of what was asked for."""
        by_name = {e.name: e for e in self.derivation.equations}
        return [by_name[self.derivation.adjoints[w]] for w in self.derivation.wrt]

    def answer(self) -> list[str]:
        """The question most people come with, answered for this network."""
        kinds = {s.kind for s in self.derivation.steps}
        losses = [s for s in self.derivation.steps if s.kind == "loss"]
        active = [s for s in self.derivation.steps if s.kind == "activation"]
        lines: list[str] = []
        if "activation" in kinds:
            lines.append(
                "Which derivative is used where? Both: the derivative of the loss once, at the output, and the "
                "derivative of each activation at every layer on the way back."
            )
        else:
            lines.append(
                "Which derivative is used where? Only the derivative of the loss, at the output: "
                "there is no activation to differentiate on the way back."
            )
        if "weight" in kinds:
            lines.append("Between layers the weights on the path multiply them.")
        if "signal" in kinds:
            lines.append("At each weight the stored input of its layer is the last factor.")
        gone = self.cancelled()
        if gone and losses and active:
            names = " and ".join(gone)
            lines.append(
                f"At the output the two cancel to a difference: {names}. "
                "That is why no activation derivative is to be seen there; it has been used."
            )
        return lines

    def cancelled(self) -> list[str]:
        """The derivatives at the output in which an activation's derivative met the loss' and vanished."""
        present = {e.name for e in self.derivation.equations}
        found: list[str] = []
        for e in self.derivation.equations:
            own = [s for s in self.derivation.steps if s.adjoint.name == e.name and s.kind == "activation"]
            if own and all(self.derivation.adjoints.get(s.target.name) not in present for s in own):
                target = {x.name for t in e.terms for x in t.body.atoms(Element)}
                if target & {a.name for a in self.network.arrays if a.role == "target"}:
                    found.append(TextWriter(self.style).equation(e))
        return found

    def conventions(self) -> list[str]:
        """What holds throughout, in sentences."""
        network = self.network
        lines = [*network.notes, f"The scalar that is differentiated is {network.loss}."]
        if network.batch is not None:
            size = self.style.sizes[network.batch]
            how = self.over_examples(size)
            lines.append(f"{network.batch} counts examples and comes first: rows are examples.{how}")
            if self.notation.batch == "columns":
                lines[-1] = f"{network.batch} counts examples; in matrices examples are columns.{how}"
        weights = [a for a in network.arrays if a.role == "parameter" and len(a.axes) == 2]
        if weights:
            a = next((w for w in weights if w.name.startswith("W")), weights[0])
            lines.append(f"Weights are {a.name}[{a.axes[0]},{a.axes[1]}]: from {a.axes[0]} to {a.axes[1]}.")
        if self.style.deltas & set(self.derivation.adjoints):
            lines.append(f"δ of a layer is ∂{network.loss}/∂z, the derivative with respect to what enters its activation.")
        if self.notation.layout == "numerator":
            lines.append("Matrices of derivatives are in numerator layout: transposed to what they are taken with respect to.")
        else:
            lines.append("Every derivative has the shape of what it is taken with respect to.")
        return lines

    def over_examples(self, size: str) -> str:
        """Whether the loss is a mean or a sum over the examples, where that can be read off its equation."""
        terms = [t for t in self.network.equations[-1].terms if self.network.batch in {i.name for i in t.over}]
        symbol = size_symbol(size)
        if not terms or any(len(sympy.Mul.make_args(t.body)) > 1 and self.divides(t.body, symbol) for t in terms):
            return ""
        means = [not (t.body * symbol).has(symbol) for t in terms]
        if len(set(means)) > 1:
            return ""
        return f" {self.network.loss} is the {'mean' if means[0] else 'sum'} over the {size} examples."

    @staticmethod
    def divides(body: Expr, symbol: Symbol) -> bool:
        """Whether a body divides by something computed, so that its sum is no plain mean or sum."""
        below = sympy.fraction(body)[1]
        return bool(below.atoms(Element)) or (below.has(symbol) and (body * symbol).has(symbol))

    def uses(self) -> list[dict[str, Any]]:
        """Each local derivative: its kind, the formula, where it is used."""
        rows: list[dict[str, Any]] = []
        for s in self.derivation.steps:
            rows.append(
                {
                    "kind": KINDS[s.kind],
                    "key": s.kind,
                    "factor": self.partial(s.target, s.source),
                    "value": self.local(s, s.before),
                    "for": self.formula(s.adjoint),
                }
            )
        return rows

    def local(self, step: Step, value: Expr) -> Formula:
        """A local derivative, summed over the indices that neither side of it has."""
        free = indices_of(step.target) | indices_of(step.source)
        over = tuple(sorted(indices_of(value) - free, key=str))
        text = TextWriter(self.style).term(Term(value, over))[0]
        return Formula(text, LatexWriter(self.latex(self.style)).term(Term(value, over))[0])

    def partial(self, above: Element, below: Element) -> Formula:
        """The symbol of a local derivative."""
        text, latex = TextWriter(self.style), LatexWriter(self.latex(self.style))
        return Formula(
            f"∂{text.element(above)}/∂{text.element(below)}",
            rf"\frac{{\partial {latex.element(above)}}}{{\partial {latex.element(below)}}}",
        )

    def facts(self) -> list[Formula]:
        """The facts that were used or found."""
        result: list[Formula] = []
        for f in self.derivation.facts:
            if f.why == "definition":
                continue
            text = f"{TextWriter(self.style).term(f.term)[0]} = {TextWriter(self.style).expression(f.value)}"
            writer = LatexWriter(self.latex(self.style))
            result.append(
                Formula(
                    f"{text}  ({f.why})",
                    rf"{writer.term(f.term)[0]} = {writer.expression(f.value)} \quad\text{{({f.why})}}",
                )
            )
        return result

    def function_formulas(self) -> list[Formula]:
        """The formulas of the functions."""
        result: list[Formula] = []
        for f in self.network.functions:
            if f.body is None:
                continue
            z = [Element(p) for p in f.parameters[: len(f.parameters) - len(f.defaults)]]
            shown = dict(zip(map(Element, f.parameters[len(z) :]), f.defaults, strict=True))
            body = cast(Expr, f.body.xreplace(shown)) if shown else f.body
            name = self.latex(self.style).functions.get(f.name, latex_name(f.name))
            arguments = ", ".join(e.name for e in z)
            result.append(
                Formula(
                    f"{f.name}({arguments}) = {TextWriter(self.style).expression(body)}",
                    rf"{name}({arguments}) = {LatexWriter(self.latex(self.style)).expression(body)}",
                )
            )
        return result

    def steps(self) -> list[dict[str, Any]]:
        """For each derivative in order: the uses of its array, the chain rule, what was rewritten, the result."""
        present = {e.name: e for e in self.derivation.equations}
        result: list[dict[str, Any]] = []
        for raw in self.derivation.raw:
            own = [s for s in self.derivation.steps if s.adjoint.name == raw.name]
            rewrites = [r for r in self.derivation.rewrites if r.after.name == raw.name]
            final = present.get(raw.name)
            rule, why = "chain rule", "every use of the array contributes: upstream derivative times local derivative"
            if raw.terms and raw.terms[0].reduce == "argmax":
                rule, why = "place of the greatest value", "the first place that attains it gets the whole derivative"
            lines = [{"rule": rule, "why": why, "formula": self.equation(raw)}]
            lines += [{"rule": r.rule, "why": r.why, "formula": self.equation(r.after)} for r in rewrites]
            result.append(
                {
                    "of": self.formula(raw.target),
                    "uses": [self.use(s) for s in own],
                    "lines": lines,
                    "kept": final is not None,
                    "matrix": self.equation(final, form="matrix") if final is not None and self.form == "matrix" else None,
                }
            )
        return result

    def use(self, step: Step) -> dict[str, Any]:
        """One use of an array: its local derivative before and after the formula of a function was put in."""
        partial, before = self.partial(step.target, step.source), self.local(step, step.before)
        text, latex = f"{partial.text} = {before.text}", f"{partial.latex} = {before.latex}"
        if step.local != step.before:
            local = self.local(step, step.local)
            text, latex = f"{text} = {local.text}", f"{latex} = {local.latex}"
        return {"formula": Formula(text, latex), "kind": KINDS[step.kind], "key": step.kind}

    def updates(self) -> list[Formula]:
        """Gradient descent for every parameter, with the declared name of the learning rate."""
        rate = str(self.network.training.get("rate", "η"))
        loss, latex_loss = self.network.loss, latex_name(self.network.loss)
        result: list[Formula] = []
        for name in self.derivation.wrt:
            if self.arrays[name].role != "parameter":
                continue
            axes = tuple(index(a) for a in self.arrays[name].axes)
            text = TextWriter(self.style).element(Element(name, *axes))
            latex = LatexWriter(self.latex(self.style)).element(Element(name, *axes))
            result.append(
                Formula(
                    f"Δ{text} = −{rate}·∂{loss}/∂{text}",
                    rf"\Delta {latex} = -{latex_name(rate)} \, \frac{{\partial {latex_loss}}}{{\partial {latex}}}",
                )
            )
        return result

    def training_rules(self) -> dict[str, Any]:
        """The update rule and the schedule that the network trains with, from their own equations."""
        row = catalogue.OPTIMISERS[str(self.network.training.get("optimizer", "sgd"))]
        schedule = catalogue.SCHEDULES[str(self.network.training.get("schedule", "constant"))]
        style = rule_style(row)
        lines = [
            Formula(
                f"{left} ← {TextWriter(style).expression(right)}",
                rf"{latex_name(left)} \leftarrow {LatexWriter(style).expression(right)}",
            )
            for _, left, right in update_equations(row)
        ]
        rate = schedule_rate(schedule)
        constants = {**row.constants, **schedule.constants}
        return {
            "name": row.name,
            "lines": lines,
            "schedule": Formula(f"eta = {TextWriter(style).expression(rate)}", rf"\eta = {LatexWriter(style).expression(rate)}"),
            "schedule_name": schedule.name,
            "state": list(row.state),
            "constants": ", ".join(f"{k} = {v}" for k, v in constants.items()),
            "source": row.source,
        }

    def closed(self) -> list[Formula]:
        """The results in forward values alone, as far as that is short; weight by weight in the scalar form."""
        if self.form == "scalar" and (scalars := self.scalars()):
            return [f for name in self.derivation.wrt for f in scalars.get(name, [])]
        return [self.equation(closed_form(self.derivation, name), form=self.layout) for name in self.derivation.wrt]

    def planner(self) -> Planner:
        """What prints an equation as NumPy, each array by its own name."""
        shapes = shapes_of(self.network, (*self.network.equations, *self.derivation.equations))
        return Planner(Names(("np",)), replace(self.style, adjoints={}, kinds={}), shapes=shapes)

    # ------------------------------------------------------------------ JSON

    def as_json(self) -> dict[str, Any]:
        """The derivation for programs."""
        derivation, plain = self.derivation, Writer(self.style)
        planner = self.planner()
        scalars = self.scalars()
        gradients: dict[str, Any] = {}
        for name, equation in zip(derivation.wrt, self.gradients(), strict=True):
            matrix = matrix_equation(equation, self.latex(self.style), latex=True)
            latex = LatexWriter(self.latex(self.style)).equation(equation)
            gradients[name] = {
                "index": latex,
                "matrix": matrix if matrix is not None else latex,
                "scalar": [f.latex for f in scalars.get(name, [])],
                "numpy": planner.statement(equation).code,
                "formula": plain.terms(closed_form(derivation, name).terms),
            }
        steps = [self._step_json(s) for s in derivation.steps]
        steps += [
            {"rule": r.rule, "why": r.why, "before": plain.equation(r.before), "after": plain.equation(r.after)}
            for r in derivation.rewrites
        ]
        return {
            "network": self.network.name,
            "loss": self.network.loss,
            "equations": [Writer(self.forward_style).equation(e) for e in self.network.equations],
            "answer": " ".join(self.answer()),
            "gradients": gradients,
            "backward": [plain.equation(e) for e in derivation.equations],
            "facts": [f.text for f in self.facts()],
            "notes": list(self.network.notes),
            "steps": steps,
        }

    def _step_json(self, step: Step) -> dict[str, str]:
        plain = Writer(self.style)
        after = plain.expression(step.before)
        if step.local != step.before:
            after += f" = {plain.expression(step.local)}"
        return {
            "rule": "chain rule",
            "why": f"{step.source} is used in {step.target}: {KINDS[step.kind]}",
            "kind": step.kind,
            "before": f"d({plain.element(step.target)})/d({plain.element(step.source)})",
            "after": after,
        }
