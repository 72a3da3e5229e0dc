"""A network from a chain of layers: catalogued formulas for one example get this network's names, letters and batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import sympy
from sympy import Expr

from . import catalogue
from .assemble import Assembly, fact
from .chain import Link, Shape, as_link, as_size, parse_chain
from .errors import NetworkError, Source, suggest
from .functions import decimal
from .lower import Lowering
from .notation import (
    SAFE_NAME,
    Call,
    Element,
    Equation,
    Fact,
    Network,
    Start,
    Term,
    index,
    size_symbol,
)
from .parse import Apply, Binary, Item, Name, Negate, Node, Number, parse_definition, parse_expression, split_lines
from .spec import Own


@dataclass
class _Current:
    """The array that a chain has reached: its name and letters."""

    name: str
    axes: tuple[str, ...]


class Chain(Assembly):
    """Reads a chain: the shape of one example, layers and activations, the loss."""

    def chain(self, source: Source) -> Network:
        """The network of a chain."""
        shape, links = parse_chain(source)
        if not links or not self._is_loss(links[-1].name):
            known = [*catalogue.LOSSES, *catalogue.LOSS_NAMES, *self.spec.losses]
            name, at = (links[-1].name, links[-1].at) if links else ("", shape.at)
            if name in self._layer_names():
                raise NetworkError(f"a chain ends in a loss, and '{name}' is none: add -> squared_error", source.place(at))
            raise NetworkError(f"unknown loss '{name}'{suggest(name, known)}", source.place(at))
        current = self._input(shape, source)
        units = sum(link.name in self._all_layers() for link in links)
        letters = ["h"] if units == 2 else [f"h{i}" for i in range(1, units)]
        letters.append("k")
        count = 0
        for position, link in enumerate(links[:-1]):
            if link.name in self._all_layers():
                count += 1
                current = self._layer(link, count, current, letters[count - 1], links[position + 1], source)
            elif self._is_activation(link.name):
                name = f"a{count}" if f"a{count}" not in self.scope.axes else self.scope.fresh("a")
                current = self._activation(link, name, str(count), current, source)
            else:
                if self._is_loss(link.name):
                    raise NetworkError(f"'{link.name}' is a loss: it ends the chain", source.place(link.at))
                known = self._layer_names()
                raise NetworkError(f"unknown layer '{link.name}'{suggest(link.name, known)}", source.place(link.at))
        return self._loss(links[-1], current, source)

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

    def _is_activation(self, name: str) -> bool:
        return name in catalogue.ACTIVATIONS or name in self.spec.activations or name in self.scope.functions

    def _all_layers(self) -> dict[str, catalogue.Layer]:
        own = {name: self._own_layer(layer) for name, layer in self.spec.layers.items()}
        return {**catalogue.LAYERS, **own}

    @staticmethod
    def _own_layer(own: Own) -> catalogue.Layer:
        text = own.formula or own.equations
        assert text is not None
        lines = tuple(line.text for line in split_lines(text))
        return catalogue.Layer(own.name, lines, tuple(own.others.get("parameters", ())), own.others.get("arguments", {}))

    def _layer_names(self) -> list[str]:
        return [*self._all_layers(), *catalogue.ACTIVATIONS, *self.spec.activations, *self.scope.functions]

    def _input(self, shape: Shape, source: Source) -> _Current:
        if len(shape.sizes) != 1:
            raise NetworkError(
                "only vectors can be given to the layers so far: write the number of features", source.place(shape.at)
            )
        letter, size = "d", shape.sizes[0]
        self.scope.sizes.extend({"n": "N", letter: "D" if size == "auto" else size})
        self._add("x", ("n", letter), "input", source, shape.at)
        return _Current("x", ("n", letter))

    def _layer(self, link: Link, count: int, current: _Current, letter: str, after: Link, source: Source) -> _Current:
        layer = self._all_layers()[link.name]
        named = dict(link.named or {})
        positional = list(link.arguments)
        letters: dict[str, str] = {}
        for argument, own_letter in layer.arguments.items():
            node = named.pop(argument, None) or (positional.pop(0) if positional else None)
            self._size(layer, argument, node, letter, link, source)
            letters[own_letter] = letter
        activation = as_link(positional[0]) if positional else None
        if "activation" in named:
            activation = as_link(named.pop("activation"))
        if positional[1:] or (positional and activation is None):
            extra = positional[1] if positional[1:] else positional[0]
            raise NetworkError(f"'{link.name}' has an argument too many here", source.place(extra.at))
        absent = {parameter for flag, parameter in layer.optional.items() if not self._flag(flag, named.pop(flag, None), source)}
        penalties = {kind: named.pop(kind) for kind in catalogue.PENALTIES if kind in named}
        start = named.pop("initialiser", None)
        if named:
            key, node = next(iter(named.items()))
            known = [*layer.arguments, *layer.optional, *catalogue.PENALTIES, "activation", "initialiser"]
            raise NetworkError(f"'{link.name}' has no argument '{key}'{suggest(key, known)}", source.place(node.at))
        chooses = activation or (after if self._is_activation(after.name) else None)
        initialiser = self._initialiser(start, chooses, source)
        result = self._place(layer, count, current, letters, absent, initialiser)
        self._penalise(layer, count, penalties, source)
        if activation is not None and activation.name != "identity":
            return self._activation(activation, f"a{count}", str(count), result, source)
        if f"a{count}" not in self.scope.axes and not self._is_activation(after.name):
            self.aliases[f"a{count}"] = result.name
        return result

    def _size(self, layer: catalogue.Layer, argument: str, node: Node | None, letter: str, link: Link, source: Source) -> None:
        if node is None:
            raise NetworkError(f"'{layer.name}' needs {argument}, such as {layer.name}(32)", source.place(link.at))
        size = as_size(node)
        if size is None and not (isinstance(node, Name) and SAFE_NAME.fullmatch(node.name)):
            raise NetworkError(f"{argument} must be a positive whole number, a letter or auto", source.place(node.at))
        if size is None and self._is_activation(cast(Name, node).name):
            raise NetworkError(f"'{layer.name}' needs {argument} before the activation", source.place(node.at))
        if letter in self.scope.sizes:
            return
        known: dict[str, int | str] = {letter: size if size is not None else cast(Name, node).name}
        if known[letter] == "auto":
            known[letter] = letter.upper()
        self.scope.sizes.extend(known)

    @staticmethod
    def _flag(flag: str, node: Node | None, source: Source) -> bool:
        if node is None:
            return True
        if isinstance(node, Name) and node.name in ("true", "false"):
            return node.name == "true"
        raise NetworkError(f"'{flag}' is true or false", source.place(node.at))

    def _initialiser(self, given: Node | None, activation: Link | None, source: Source) -> catalogue.Initialiser:
        if given is not None:
            name = given.name if isinstance(given, Name) else ""
            if name not in catalogue.INITIALISERS:
                known = suggest(name, catalogue.INITIALISERS)
                raise NetworkError(f"unknown initialiser '{name}'{known}", source.place(given.at))
            return catalogue.INITIALISERS[name]
        row = catalogue.ACTIVATIONS.get(activation.name) if activation else None
        usual = row.initialiser if row else "glorot_uniform"
        return catalogue.INITIALISERS[self.spec.train.get("initialiser", usual)]

    def _place(
        self,
        layer: catalogue.Layer,
        count: int,
        current: _Current,
        letters: Mapping[str, str],
        absent: set[str],
        initialiser: catalogue.Initialiser,
    ) -> _Current:
        """Write a layer's equations with the names and letters of this network."""
        sources = [Source(f"<layer {layer.name}>", text) for text in layer.equations]
        own_axes = self._axes_of_input(sources)
        if len(own_axes) > len(current.axes) - 1:
            raise NetworkError(f"'{layer.name}' takes {len(own_axes)} axes, and '{current.name}' has {len(current.axes) - 1}")
        cut = len(current.axes) - len(own_axes)
        letters = {**dict(zip(own_axes, current.axes[cut:], strict=True)), **letters}
        renamed = {"x": current.name}
        led = {current.name}
        for text in layer.parameters:
            node = parse_expression(Source(f"<layer {layer.name}>", text))
            name = cast("Name | Item", node).name
            axes = tuple(letters.get(cast(Name, i).name, cast(Name, i).name) for i in getattr(node, "indices", ()))
            renamed[name] = f"{name}{count}"
            self._add(renamed[name], axes, "parameter", self.spec.source, 0)
            chosen = catalogue.INITIALISERS[layer.starts[name]] if name in layer.starts else initialiser
            self.starts[renamed[name]] = Start(chosen.distribution, chosen.scale, axes[:-1], axes[-1:])
        first = len(self.scope.equations)
        for source in sources:
            definition = parse_definition(source)
            target = cast("Name | Item", definition.left).name
            renamed[target] = f"{target}{count}"
            led.add(renamed[target])
            scope = replace(self.scope, renamed=renamed, letters=letters, leading=current.axes[:cut], led=frozenset(led))
            Lowering(source, scope).equation(definition)
        gone = {renamed[p] for p in absent}
        for i, equation in enumerate(self.scope.equations[first:], first):
            kept = tuple(t for t in equation.terms if not {e.name for e in t.body.atoms(Element)} & gone)
            self.scope.equations[i] = replace(equation, terms=kept)
        for name in gone:
            del self.scope.axes[name], self.roles[name], self.starts[name]
        last = self.scope.equations[-1].target
        return _Current(last.name, tuple(i.name for i in last.indices))

    @staticmethod
    def _axes_of_input(sources: Iterable[Source]) -> tuple[str, ...]:
        """The letters of the first `x[…]` in a layer's equations."""
        todo: list[Node] = [parse_definition(s).right for s in sources]
        while todo:
            match todo.pop(0):
                case Item(name="x", indices=indices):
                    return tuple(cast(Name, i).name for i in indices)
                case Apply(arguments=arguments):
                    todo += arguments
                case Negate(operand=operand):
                    todo.append(operand)
                case Binary(left=left, right=right):
                    todo += [left, right]
                case _:
                    continue
        return ()

    def _penalise(self, layer: catalogue.Layer, count: int, penalties: Mapping[str, Node], source: Source) -> None:
        for kind, node in penalties.items():
            if not isinstance(node, Number):
                raise NetworkError(f"'{kind}' is a number, such as {kind}=0.001", source.place(node.at))
            name = f"{cast('Name | Item', parse_expression(Source('', layer.parameters[0]))).name}{count}"
            axes = tuple(index(a) for a in self.scope.axes[name])
            formula = Source(f"<{kind} penalty>", catalogue.PENALTIES[kind])
            scope = replace(self.scope, values={"w": Element(name, *axes)})
            body = Lowering(formula, scope).scalar(parse_expression(formula))
            coefficient = sympy.Rational(node.value.numerator, node.value.denominator)
            self.penalties.append(Term(coefficient * body, axes))

    def _activation(self, link: Link, name: str, suffix: str, current: _Current, source: Source) -> _Current:
        if link.name in self.scope.functions or link.name in ("tanh", "identity"):
            target = Element(name, *map(index, current.axes))
            self.scope.equations.append(Equation(target, (Term(self._applied(link, current, source)),)))
            self.scope.axes[name] = current.axes
            return _Current(name, current.axes)
        own = self.spec.activations.get(link.name)
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
        return _Current(renamed["a"], current.axes) if "a" in renamed else _Current(name, current.axes)

    @staticmethod
    def _no_constants(link: Link, source: Source) -> None:
        if link.arguments:
            raise NetworkError(f"'{link.name}' has no constants", source.place(link.arguments[0].at))

    def _applied(self, link: Link, current: _Current, source: Source) -> Expr:
        z = Element(current.name, *map(index, current.axes))
        if link.name in ("tanh", "identity"):
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
        current: _Current,
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

    def _loss(self, link: Link, current: _Current, source: Source) -> Network:
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
        self, text: Source, renamed: dict[str, str], current: _Current, values: Mapping[str, Expr]
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

    def _facts(self, texts: Iterable[str], current: _Current) -> tuple[Fact, ...]:
        facts: list[Fact] = []
        for text in texts:
            source = Source("<fact>", text)
            scope = replace(self.scope, letters={"k": current.axes[-1]}, leading=current.axes[:-1], led=frozenset(("y",)))
            facts.append(fact(source, scope, frozenset(current.axes[:-1]), "assumed of the labels"))
        return tuple(facts)


def _has_items(node: Node) -> bool:
    match node:
        case Item():
            return True
        case Apply(name=name, arguments=arguments):
            return name in ("sum", "mean") or any(map(_has_items, arguments))
        case Negate(operand=operand):
            return _has_items(operand)
        case Binary(left=left, right=right):
            return _has_items(left) or _has_items(right)
        case _:
            return False
