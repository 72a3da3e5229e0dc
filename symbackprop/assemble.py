"""A network from equations as written: names get their roles, formulas their meaning, the whole is checked."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any, cast

import sympy
from sympy import Expr

from . import catalogue
from .errors import FormulaError, NetworkError, Source, suggest
from .functions import catalogue_functions, make_function
from .layer_rows import LAYER_NAMES
from .lower import BUILT_IN, REDUCTIONS, Lowering, Scope, is_start
from .notation import (
    SAFE_NAME,
    Array,
    Call,
    Draw,
    Element,
    Fact,
    Function,
    Labels,
    Network,
    Role,
    Start,
    Term,
    size_symbol,
)
from .parse import Item, Name, parse_definition, parse_expression, split_lines
from .sizes import Sizes
from .spec import Own, Spec, is_number

# Names that mean a function everywhere.
KEPT = frozenset(BUILT_IN) | {*REDUCTIONS, "where", "pad", "stop"}


class Assembly:
    """What a network is made of while it is being read; `equations` reads a spec that lists them."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.roles: dict[str, Role] = {}
        self.starts: dict[str, Start] = {}
        self.aliases: dict[str, str] = {}
        self.penalties: list[Term] = []
        self.draws: dict[str, Draw] = {}
        self.averages: dict[str, tuple[float, float]] = {}
        self.notes: list[str] = []
        self.links: set[str] = set()  # the names in a chain
        for table, names in (
            ("constants", spec.constants),
            ("activation", spec.activations),
            ("loss", spec.losses),
            ("layer", spec.layers),
            ("sizes", spec.sizes),
        ):
            for name in names:
                if not SAFE_NAME.fullmatch(name) or name in KEPT:
                    raise NetworkError(f"{name[:40]!r} cannot be a name in [{table}]", spec.source.place(0))
        self.scope = Scope({}, dict(catalogue_functions()), Sizes(spec.sizes))
        for own in spec.activations.values():
            if own.formula is not None:
                constants = self._constants(own)
                self.scope.functions[own.name] = make_function(own.name, own.formula, constants, self.scope.functions)
        for source in spec.functions:
            node = parse_expression(source)
            if not isinstance(node, Name) or node.name in KEPT:
                raise FormulaError("the name of an abstract function of your own, such as f", source.place(node.at))
            if node.name in self.scope.functions and self.scope.functions[node.name].body is None:
                raise NetworkError(f"the function '{node.name}' is declared twice", source.place(node.at))
            self.scope.functions[node.name] = Function(node.name, ())
        for name in spec.constants:
            self._add(name, (), "constant", spec.source, 0)

    def _constants(self, own: Own) -> dict[str, Any]:
        for key, value in own.others.items():
            if not is_number(value) or not SAFE_NAME.fullmatch(key):
                raise NetworkError(f"'{key}' of '{own.name}' must be a number", own.source.place(own.source.start))
        return dict(own.others)

    def _add(self, name: str, axes: tuple[str, ...], role: Role, source: Source, at: int) -> None:
        if name in self.scope.axes:
            raise NetworkError(f"the name '{name}' is declared twice", source.place(at))
        if name in KEPT:
            raise NetworkError(f"'{name}' is the name of a function", source.place(at))
        for axis in axes:
            self.scope.sizes.add(axis)
        self.scope.axes[name] = axes
        self.roles[name] = role

    def equations(self) -> Network:
        """The network of a spec that lists its equations."""
        spec = self.spec
        lists: tuple[tuple[Role, tuple[Source, ...]], ...] = (
            ("input", spec.inputs),
            ("target", spec.targets),
            ("parameter", spec.parameters),
        )
        for role, entries in lists:
            for source in entries:
                self._entry(source, role)
        for source, draw in spec.noise:
            self._entry(source, "noise")
            self.draws[list(self.roles)[-1]] = draw
        assert spec.equations is not None
        self.scope.examples = self._batch()
        self.scope.parameters = frozenset(n for n, r in self.roles.items() if r == "parameter")
        lines = [(line, parse_definition(line)) for line in split_lines(spec.equations)]
        Lowering.all(lines, self.scope)
        last = next((line for line, d in reversed(lines) if not is_start(d)), spec.equations)
        if not self.scope.equations:
            raise NetworkError("a network needs at least one equation", spec.equations.place(spec.equations.start))
        loss = self.scope.equations[-1].target
        begin = last.start + len(last.text) - len(last.text.lstrip())
        if loss.indices:
            letters = ", ".join(map(str, loss.indices))
            raise NetworkError(
                f"the loss must be a scalar, but '{loss.name}' has the indices {letters}; end with its sum or mean",
                last.place(begin),
            )
        prediction = spec.prediction
        if prediction is not None and prediction not in self.scope.axes:
            raise NetworkError(
                f"the prediction '{prediction}' is not defined{suggest(prediction, self.scope.axes)}",
                spec.source.place(0),
            )
        for name, start in spec.averages.items():
            if self.scope.axes.get(name) is None or name in self.roles or name == loss.name:
                known = suggest(name, self.scope.axes)
                raise NetworkError(f"'{name}' in [averages] is no array that an equation computes{known}", spec.source.place(0))
            self.averages[name] = (0.1, start)
        facts = self._declared_facts()
        labels: Labels = "one-hot" if self._targets_sum_to_one(facts) else "real"
        try:
            return self._network(prediction or self._last_without_target(), self._batch(), facts, labels)
        except NetworkError as problem:
            # What is wrong with the whole is told at the equation that it names.
            named = re.match(r"in the equation of '([^']+'*)'", problem.message)
            where = next((s for s, d in lines if named and getattr(d.left, "name", "") == named[1]), None)
            if problem.place is not None or where is None:
                raise
            raise NetworkError(problem.message, where.place(where.start + len(where.text) - len(where.text.lstrip()))) from None

    def _targets_sum_to_one(self, facts: Iterable[Fact]) -> bool:
        """Whether a declared fact says that the one target's last axis sums to one: then it holds classes."""
        names = [n for n, r in self.roles.items() if r == "target"]
        return len(names) == 1 and any(
            isinstance(f.term.body, Element)
            and f.term.body.name == names[0]
            and f.term.over == f.term.body.indices[-1:]
            and f.value == 1
            for f in facts
        )

    def _entry(self, source: Source, role: Role) -> None:
        node = parse_expression(source)
        if isinstance(node, Name):
            self._add(node.name, (), role, source, node.at)
            return
        if not isinstance(node, Item) or not all(isinstance(i, Name) for i in node.indices):
            raise FormulaError("an array is declared as a name with its letters, such as x[n,d]", source.place(node.at))
        axes = tuple(i.name for i in cast("tuple[Name, ...]", node.indices))
        if len(set(axes)) < len(axes):
            raise FormulaError(f"'{node.name}' needs a letter of its own for each axis", source.place(node.at))
        self._add(node.name, axes, role, source, node.at)
        if role == "parameter" and len(axes) >= 2:
            start = catalogue.INITIALISERS[self.spec.train.get("initialiser", "glorot_uniform")]
            self.starts[node.name] = Start(start.distribution, start.scale, axes[:-1], axes[-1:])

    def _last_without_target(self) -> str | None:
        """What the network predicts, unless told: the last array that no target enters."""
        tainted = {n for n, r in self.roles.items() if r == "target"}
        reached = {n for n, r in self.roles.items() if r == "input"} or set(self.roles)
        found: str | None = None
        for equation in self.scope.equations[:-1]:
            used = {e.name for t in equation.terms for e in t.body.atoms(Element)}
            if used & tainted:
                tainted.add(equation.name)
            elif used & reached:
                reached.add(equation.name)
                found = equation.name
        return found

    def _batch(self) -> str | None:
        """The letter of the examples: first of every input and target, and in no parameter."""
        data = [self.scope.axes[n] for n, r in self.roles.items() if r in ("input", "target")]
        firsts = {axes[0] for axes in data if axes}
        own = {a for n, r in self.roles.items() if r == "parameter" for a in self.scope.axes[n]}
        if len(firsts) == 1 and all(data) and not firsts & own:
            return firsts.pop()
        return None

    def _declared_facts(self) -> tuple[Fact, ...]:
        facts: list[Fact] = []
        for left, right in self.spec.facts:
            letters = frozenset(i.name for i in self.scope.sizes.indices())
            reading = Lowering(left, self.scope)
            node = parse_expression(left)
            bound = letters - {a.name for a in getattr(node, "arguments", ())[:-1] if isinstance(a, Name)}
            terms = reading.terms(node, bound)
            value = Lowering(right, self.scope).scalar(parse_expression(right), bound)
            if len(terms) != 1 or terms[0].body == 0:
                raise NetworkError("a fact is about one sum or one value", left.place(left.start))
            facts.append(Fact(terms[0], value))
        return tuple(facts)

    def _rename_sizes(self) -> dict[Expr, Expr]:
        """The names of sizes that are not to stay, in the equations as well; what became of them.

        A range that turned out to be another's has that one's size; and no size has the name of an array: `N` for the letter n,
        where something else is called N.
        """
        taken = {*self.scope.axes, *self.scope.functions, *self.aliases}
        swap = self.scope.sizes.renamed()
        for letter in self.scope.sizes.letters():
            old = self.scope.sizes.symbol(letter)
            if old.name in taken:
                new = f"{old.name}_{letter}"
                while new in taken:
                    new += "_"
                taken.add(new)
                self.scope.sizes.extend({letter: new})
                swap |= {s: size_symbol(new) for s, now in [*swap.items(), (old, old)] if now == old}
        if swap:
            self.scope.equations[:] = [
                replace(e, terms=tuple(replace(t, body=t.body.xreplace(swap)) for t in e.terms)) for e in self.scope.equations
            ]
        return swap

    def _own_notes(self, used: Collection[str]) -> list[str]:
        """What stands for something else here than elsewhere: the built-ins that were declared anew, of those that are `used`."""
        spec, lines = self.spec, list[str]()
        for owns, built_in in (
            (spec.activations, {*catalogue.ACTIVATIONS, *catalogue.FUNCTIONS}),
            (spec.losses, {*catalogue.LOSSES, *catalogue.LOSS_NAMES}),
            (spec.layers, {*LAYER_NAMES}),
        ):
            for own in (o for n, o in owns.items() if n in built_in and n in used):
                if own.formula is not None and owns is spec.activations:
                    said = f"{own.name}({self.scope.functions[own.name].parameters[0]}) = {own.formula.text.strip()}"
                else:
                    text = own.formula or own.equations
                    assert text is not None
                    said = "; ".join(line.text.partition("#")[0].strip() for line in split_lines(text))
                given = "".join(f", {k} = {v}" for k, v in own.others.items() if is_number(v))
                lines.append(f"{own.name} is this network's own, not the built-in one: {said}{given}")
        for name in {f.text.strip() for f in spec.functions} & {*catalogue.ACTIVATIONS, *catalogue.FUNCTIONS} & {*used}:
            lines.append(f"{name} is left abstract in this network: it stands for any function, not for the built-in one")
        return sorted(lines)

    def _network(self, prediction: str | None, batch: str | None, facts: tuple[Fact, ...], labels: Labels) -> Network:
        spec, scope = self.spec, self.scope
        swap = self._rename_sizes()
        facts = tuple(
            replace(f, term=replace(f.term, body=f.term.body.xreplace(swap)), value=cast(Expr, f.value.xreplace(swap)))
            for f in facts
        )
        arrays = [Array(n, axes, self.roles.get(n, "stored")) for n, axes in scope.axes.items()]
        used = {c.name for e in scope.equations for t in e.terms for c in t.body.atoms(Call)}
        # Derivatives may be written with built-in functions: that a name is taken must be known.
        used |= {n for n in spec.activations if n in scope.functions and n in catalogue_functions()}
        todo = list(used)
        while todo:
            body = scope.functions[todo.pop()].body
            more = {c.name for c in body.atoms(Call)} - used if body is not None else set[str]()
            used |= more
            todo += more
        return Network(
            name=spec.name.strip(),
            equations=tuple(scope.equations),
            arrays=tuple(arrays),
            indices=scope.sizes.indices(),
            functions=tuple(f for n, f in scope.functions.items() if n in used),
            constants=tuple((n, sympy.Rational(repr(v))) for n, v in spec.constants.items()),
            facts=facts,
            aliases=tuple(self.aliases.items()),
            starts=tuple(self.starts.items()),
            draws=tuple(self.draws.items()),
            averages=tuple((name, share, start) for name, (share, start) in self.averages.items()),
            prediction=prediction,
            batch=batch,
            labels=labels,
            text=spec.chain.text.strip() if spec.chain is not None else "",
            notes=(*self.notes, *self._own_notes({*used, *self.links})),
            training={"rate": spec.rate, **spec.train},
        )


def fact(source: Source, scope: Scope, bound: frozenset[str], why: str) -> Fact:
    """The fact that a text such as `sum(k, y[k]) = 1` states."""
    definition = parse_definition(source)
    term = Lowering(source, scope).terms(definition.left, bound)[0]
    return Fact(term, Lowering(source, scope).scalar(definition.right, bound), why)
