"""A network from a chain: layers placed one after the other, activations and the loss with the names of this network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import sympy
from sympy import Expr

from . import catalogue
from .assemble import fact
from .chain import BRANCHES, Link, Shape, as_link, every_link, parse_chain
from .errors import NetworkError, Source, suggest
from .functions import decimal
from .layers import WIDTHS, Current, Layers
from .lower import Lowering
from .notation import Call, Element, Equation, Fact, Network, Term, index, size_symbol
from .parse import Apply, Item, Name, Node, Number, nodes_of, parse_definition, parse_expression, split_lines

# What hands on the kind of numbers that it is given.
_PASSING = ("dropout", "flatten", "reshape", "last", "maxpool", "avgpool", "global_maxpool", "global_avgpool")


class Chain(Layers):
    """Reads a chain: the shape of one example, layers and activations, the loss."""

    def chain(self, source: Source) -> Network:
        """The network of a chain."""
        shape, links = parse_chain(source)
        if not links or not self._is_loss(links[-1].name):
            known = [*catalogue.LOSSES, *catalogue.LOSS_NAMES, *self.spec.losses]
            name, at = (links[-1].name, links[-1].at) if links else ("", shape.at)
            if name in (*self.layer_names(), *BRANCHES):
                raise NetworkError(f"a chain ends in a loss, and '{name}' is none: add -> squared_error", source.place(at))
            raise NetworkError(f"unknown loss '{name}'{suggest(name, known)}", source.place(at))
        self.source = source
        current = self._input(shape, source, links)
        wide = [
            link for link in every_link(links) if any(w in row.arguments for row in self.layers_named(link.name) for w in WIDTHS)
        ]
        self.links = {name for link in every_link(links) for name in (link.name, *self._activations_of(link))}
        self._letters = dict(zip(map(id, wide), self._unit_letters(len(wide)), strict=True))
        self.unit_letters = frozenset(self._letters.values())
        self._count = 0
        current = self._links(links[:-1], current, links[-1])
        self._note_probabilities(links)
        return self._loss(links[-1], current, source)

    def _activations_of(self, link: Link) -> list[str]:
        """The activations that a link names among its arguments."""
        found = [as_link(node) for node in (*link.arguments, *(link.named or {}).values())]
        return [f.name for f in found if f is not None and self.is_activation(f.name)]

    def _note_probabilities(self, links: Sequence[Link]) -> None:
        """Say so where a loss of probabilities is given anything else: a usual slip."""
        row = catalogue.LOSSES.get(catalogue.LOSS_NAMES.get(links[-1].name, links[-1].name))
        wanted = {"zero-one": "sigmoid", "one-hot": "softmax"}.get(row.labels if row is not None and row.takes == "p" else "")
        if row is None or wanted is None or row.name in self.spec.losses or links[-1].name in self.spec.losses:
            return
        before = next((link for link in reversed(links[:-1]) if link.name not in _PASSING), None)
        if before is None or before.name in (*self.spec.layers, *self.spec.activations, "concat"):
            return
        last = self._activations_of(before)[-1:] or [before.name]
        if last[0] not in ("sigmoid", "softmax", *self.spec.activations):
            logits = f", or take the loss on logits, {row.on_logits}" if row.on_logits else ""
            said = before.name + (f" with {last[0]}" if last[0] != before.name else "")
            self.notes.append(
                f"{row.name} takes probabilities, and {said} gives any number: put a {wanted} before it{logits}; "
                f"elsewhere the loss is no real number"
            )

    @staticmethod
    def _unit_letters(count: int) -> list[str]:
        """`h` and `k` for two layers with units, `h1`, `h2`, …, `k` for more."""
        return ["k"][:count] if count <= 1 else ["h", "k"] if count == 2 else [*(f"h{i}" for i in range(1, count)), "k"]

    def _links(self, links: Iterable[Link], current: Current, end: Link | None) -> Current:
        links = list(links)
        for position, link in enumerate(links):
            after = links[position + 1] if position + 1 < len(links) else end
            if link.name in BRANCHES:
                branch = self._links(link.inner, current, None)
                current = self.join(link, current, branch, self._count, self.source)
            elif self.layers_named(link.name):
                current = self._layer(link, current, after)
            elif self.is_activation(link.name):
                name = f"a{self._count}" if f"a{self._count}" not in self.scope.axes else self.scope.fresh(f"a{self._count}_")
                current = self._activation(link, name, str(self._count), current, self.source)
            else:
                if self._is_loss(link.name):
                    raise NetworkError(f"'{link.name}' is a loss: it ends the chain", self.source.place(link.at))
                known = [*self.layer_names(), *BRANCHES]
                raise NetworkError(f"unknown layer '{link.name}'{suggest(link.name, known)}", self.source.place(link.at))
        return current

    def _layer(self, link: Link, current: Current, after: Link | None) -> Current:
        self._count += 1
        count = self._count
        result, activation = self.layer(link, count, current, self._letters.get(id(link), f"o{count}"), after, self.source)
        if activation is not None:
            return self._activation(activation, f"a{count}", str(count), result, self.source)
        if f"a{count}" not in self.scope.axes and not (after is not None and self.is_activation(after.name)):
            self.aliases[f"a{count}"] = result.name
        return result

    def _input(self, shape: Shape, source: Source, links: list[Link]) -> Current:
        """The input: features `d`, a sequence `t,d`, an image `i,j,c`, or whole numbers `t` for an embedding."""
        usual = {1: "d", 2: "td", 3: "ijc"}.get(len(shape.sizes))
        if usual is None:
            raise NetworkError("an example has one, two or three axes, such as 64, T x 16 or 28x28x1", source.place(shape.at))
        if links[0].name == "embedding":
            usual = {1: "t", 2: "tu"}.get(len(shape.sizes), usual)
        axes: list[str] = []
        for letter, size in zip(usual, shape.sizes, strict=True):
            self.scope.sizes.extend({letter: letter.upper() if size == "auto" else size})
            axes.append(letter)
        self.scope.sizes.extend({"n": "N"})
        self._add("x", ("n", *axes), "input", source, shape.at)
        return Current("x", ("n", *axes))

    def _check_sizes(self, source: Source) -> None:
        """[sizes] may only speak of letters that the chain has, and not against it."""
        letters = {a for axes in self.scope.axes.values() for a in axes}
        for letter, size in self.spec.sizes.items():
            number = self.scope.sizes.number(letter)
            if letter not in letters or (isinstance(size, int) and number != size):
                sizes = self.scope.sizes
                known = ", ".join(f"{i} = {sizes.number(i) or sizes.symbol(i)}" for i in sorted(letters))
                raise NetworkError(
                    f"the size of '{letter}' does not fit the chain, which has {known}", source.place(source.start)
                )

    def _is_loss(self, name: str) -> bool:
        return name in self.spec.losses or catalogue.LOSS_NAMES.get(name, name) in catalogue.LOSSES

    def _activation(self, link: Link, name: str, suffix: str, current: Current, source: Source) -> Current:
        own = self.spec.activations.get(link.name)
        elementwise = own is None or own.equations is None
        if elementwise and (link.name in self.scope.functions or link.name in ("tanh", "identity")):
            target = Element(name, *map(index, current.axes))
            self.scope.equations.append(Equation(target, (Term(self._applied(link, current, source)),)))
            self.scope.axes[name] = current.axes
            return Current(name, current.axes)
        row = catalogue.ACTIVATIONS.get(link.name)
        if own is not None and own.equations is not None:
            sources = list(split_lines(own.equations))
            values = {k: sympy.Rational(repr(v)) for k, v in self._constants(own).items()}
        elif row is not None:
            sources, values = [Source(f"<activation {row.name}>", e) for e in row.equations], {}
        else:
            known = [*catalogue.ACTIVATIONS, *self.spec.activations, *self.scope.functions]
            raise NetworkError(f"unknown activation '{link.name}'{suggest(link.name, known)}", source.place(link.at))
        self._no_constants(link, source)
        renamed = {"z": current.name}
        self._vector_equations(sources, renamed, current, suffix, {"a": name}, values)
        return Current(renamed["a"], current.axes) if "a" in renamed else Current(name, current.axes)

    @staticmethod
    def _no_constants(link: Link, source: Source) -> None:
        if link.arguments:
            raise NetworkError(f"'{link.name}' has no constants", source.place(link.arguments[0].at))

    def _applied(self, link: Link, current: Current, source: Source) -> Expr:
        z = Element(current.name, *map(index, current.axes))
        if link.name == "tanh" or self.is_identity(link.name):
            self._no_constants(link, source)
            return sympy.tanh(z) if link.name == "tanh" else z
        function = self.scope.functions[link.name]
        arguments: list[Expr] = [z]
        for node in link.arguments:
            if not isinstance(node, Number):
                raise NetworkError(f"the constants of '{link.name}' are numbers", source.place(node.at))
            arguments.append(sympy.Rational(node.value.numerator, node.value.denominator))
        if len(arguments) > max(len(function.parameters), 1):
            most = max(len(function.parameters) - 1, 0)
            raise NetworkError(f"'{link.name}' has {most} constants, not {len(arguments) - 1}", source.place(link.at))
        arguments += function.defaults[len(arguments) - 1 :]
        return Call(link.name, (0,) * len(arguments), *arguments)

    def _vector_equations(
        self,
        sources: Iterable[Source],
        renamed: dict[str, str],
        current: Current,
        suffix: str,
        final: Mapping[str, str],
        values: Mapping[str, Expr],
        keep_last: bool = False,
    ) -> tuple[Term, ...]:
        """Equations over the last axis `k`, for every value of the axes before; the terms of the last one if not kept."""
        letters = {"k": current.axes[-1]}
        led = {*(renamed[n] for n in renamed)}
        lines = list(sources)
        for position, source in enumerate(lines):
            definition = parse_definition(source)
            target = cast("Name | Item", definition.left).name
            leading = current.axes[:-1]
            if keep_last and position == len(lines) - 1:
                scope = replace(self.scope, renamed=renamed, letters=letters, leading=leading, led=frozenset(led), values=values)
                return Lowering(source, scope).terms(definition.right, frozenset(leading))
            renamed[target] = final.get(target, target if target == "p" else f"{target}{suffix}")
            led.add(renamed[target])
            scope = replace(self.scope, renamed=renamed, letters=letters, leading=leading, led=frozenset(led), values=values)
            Lowering(source, scope).equation(definition)
        return ()

    def _loss(self, link: Link, current: Current, source: Source) -> Network:
        name = catalogue.LOSS_NAMES.get(link.name, link.name)
        own = self.spec.losses.get(link.name)
        if own is not None:
            texts = [own.formula] if own.formula is not None else list(split_lines(cast(Source, own.equations)))
            row = catalogue.Loss(own.name, formula="own" if own.formula else "", takes="p")
            constants = self._constants(own)
        else:
            row = catalogue.LOSSES[name]
            texts = [Source(f"<loss {name}>", t) for t in ((row.formula,) if row.formula else row.equations)]
            constants = dict(row.constants)
        values = self._loss_constants(link, constants, source)
        self._add("y", current.axes, "target", source, link.at)
        facts = self._facts(row.facts, current)
        renamed = {row.takes: current.name, "y": "y"}
        if row.formula:
            terms = self._formula_loss(texts[0], renamed, current, values)
        else:
            terms = self._vector_equations(texts, renamed, current, "", {}, values, keep_last=True)
        batch = tuple(index(a) for a in current.axes[:-1])
        scale = 1 / size_symbol("N") if self.spec.reduction == "mean" else sympy.S.One
        terms = tuple(Term(t.body * scale, (*batch, *t.over)) for t in terms)
        self.scope.equations.append(Equation(Element("L"), (*terms, *self.penalties)))
        self.scope.axes["L"] = ()
        self._check_sizes(source)
        if "p" not in self.scope.axes:
            self.aliases["p"] = current.name
        return self._network(current.name, "n", (*facts, *self._declared_facts()), row.labels)

    def _loss_constants(self, link: Link, constants: Mapping[str, Any], source: Source) -> dict[str, Expr]:
        values: dict[str, Expr] = {k: sympy.Rational(decimal(v)) for k, v in constants.items()}
        given = dict(zip(values, link.arguments, strict=False)) | dict(link.named or {})
        if len(link.arguments) > len(values):
            raise NetworkError(f"'{link.name}' has {len(values)} constants", source.place(link.arguments[-1].at))
        for key, node in given.items():
            if key not in values:
                raise NetworkError(f"'{link.name}' has no constant '{key}'{suggest(key, values)}", source.place(node.at))
            if not isinstance(node, Number):
                raise NetworkError(f"'{key}' is a number", source.place(node.at))
            values[key] = sympy.Rational(node.value.numerator, node.value.denominator)
        return values

    def _formula_loss(
        self, text: Source, renamed: dict[str, str], current: Current, values: Mapping[str, Expr]
    ) -> tuple[Term, ...]:
        node = parse_expression(text)
        axes = tuple(map(index, current.axes))
        if _has_items(node):
            letters = {"k": current.axes[-1]}
            scope = replace(
                self.scope,
                renamed=renamed,
                letters=letters,
                leading=current.axes[:-1],
                led=frozenset(renamed.values()),
                values=values,
            )
            return Lowering(text, scope).terms(node, frozenset(current.axes[:-1]))
        elements = {own: Element(name, *axes) for own, name in renamed.items()}
        scope = replace(self.scope, values={**values, **elements})
        return (Term(Lowering(text, scope).scalar(node), axes[-1:]),)

    def _facts(self, texts: Iterable[str], current: Current) -> tuple[Fact, ...]:
        facts: list[Fact] = []
        for text in texts:
            source = Source("<fact>", text)
            scope = replace(self.scope, letters={"k": current.axes[-1]}, leading=current.axes[:-1], led=frozenset(("y",)))
            facts.append(fact(source, scope, frozenset(current.axes[:-1]), "assumed of the labels"))
        return tuple(facts)


def _has_items(node: Node) -> bool:
    return any(isinstance(n, Item) or (isinstance(n, Apply) and n.name in ("sum", "mean")) for n in nodes_of(node))
