"""Layers of a chain, placed: catalogued formulas for one example get this network's names, letters and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import sympy
from sympy import Expr

from . import catalogue
from .assemble import Assembly
from .chain import Link, as_link, as_size, as_sizes
from .errors import NetworkError, Source, suggest
from .layer_rows import LAYER_NAMES, layers_named
from .lower import Lowering
from .notation import SAFE_NAME, Beyond, Draw, Element, Equation, Start, Term, index
from .parse import Item, Name, Node, Number, nodes_of, parse_definition, parse_expression, split_lines
from .spec import Own

# Arguments that give the last axis of what a layer computes.
WIDTHS = ("units", "channels", "width")


@dataclass
class Current:
    """The array that a chain has reached: its name and letters."""

    name: str
    axes: tuple[str, ...]


@dataclass
class _Choice:
    """What a link says about its layer: the sizes of letters, numbers, parameters left out, conditions, and what follows."""

    letters: dict[str, str]
    values: dict[str, Expr] = field(default_factory=dict[str, Expr])
    absent: set[str] = field(default_factory=set[str])
    conditions: list[str] = field(default_factory=list[str])
    masked: bool = False
    truncate: int | None = None
    activation: Link | None = None


class Layers(Assembly):
    """Places layers one after the other."""

    unit_letters: frozenset[str] = frozenset()  # of layers with units, given out before

    def _own_letter(self, letter: str, count: int) -> str:
        """The letter of a layer with its number: h2 may be the units of another layer, not the heads of layer 2: j2 then."""
        numbered = any(u[:1] == letter and u[1:].isdigit() for u in self.unit_letters)
        name = f"{'j' if numbered else letter}{count}"  # the same in all blocks; no layer of the catalogue has a letter j
        while name in self.unit_letters:
            name = letter + name
        return name

    def layers_named(self, name: str) -> list[catalogue.Layer]:
        """The rows of a layer: the user's own, or the catalogue's."""
        own = self.spec.layers.get(name)
        return [self._own_layer(own)] if own is not None else layers_named(name)

    def layer_names(self) -> list[str]:
        """Every name of a layer or an activation."""
        return [*self.spec.layers, *LAYER_NAMES, *catalogue.ACTIVATIONS, *self.spec.activations, *self.scope.functions]

    @staticmethod
    def _own_layer(own: Own) -> catalogue.Layer:
        text = own.formula or own.equations
        assert text is not None
        lines = tuple(line.text for line in split_lines(text))
        inputs = _input_of(lines)
        return catalogue.Layer(
            own.name, lines, tuple(own.others.get("parameters", ())), own.others.get("arguments", {}), inputs=inputs
        )

    def is_activation(self, name: str) -> bool:
        """Whether a name is an activation."""
        return name in catalogue.ACTIVATIONS or name in self.spec.activations or name in self.scope.functions

    def is_identity(self, name: str) -> bool:
        """Whether a name is the activation that changes nothing."""
        return name == "identity" and name not in self.spec.activations

    def layer(
        self, link: Link, count: int, current: Current, letter: str, after: Link | None, source: Source
    ) -> tuple[Current, Link | None]:
        """Place a layer; returns what it computes, and the activation that it asks for after it."""
        layer = self._variant(link, current, source)
        own_axes = _axes(layer.inputs)
        cut = len(current.axes) - len(own_axes)
        choice = _Choice(dict(zip(own_axes, current.axes[cut:], strict=True)))
        named = dict(link.named or {})
        self._read_arguments(layer, link, named, count, letter, choice, source)
        penalties = {kind: named.pop(kind) for kind in catalogue.PENALTIES if kind in named}
        start = named.pop("initialiser", None)
        if named:
            key, node = next(iter(named.items()))
            known = [
                *layer.arguments,
                *layer.options,
                *layer.optional,
                *layer.conditions,
                *catalogue.PENALTIES,
                "activation",
                "initialiser",
            ]
            raise NetworkError(f"'{link.name}' has no argument '{key}'{suggest(key, known)}", source.place(node.at))
        chooses = choice.activation or (after if after is not None and self.is_activation(after.name) else None)
        initialiser = self._initialiser(start, chooses, source)
        result = self._place(
            layer, count, current, cut, choice, initialiser, Source(source.name, source.whole, link.at, source.end)
        )
        self._penalise(layer, count, penalties, source)
        if layer.activation or (choice.activation is not None and self.is_identity(choice.activation.name)):
            return result, None
        return result, choice.activation

    def _variant(self, link: Link, current: Current, source: Source) -> catalogue.Layer:
        """The row of the catalogue that fits the axes at hand and the options given."""
        rows, axes = self.layers_named(link.name), len(current.axes) - 1
        variants = {row.variant for row in rows}
        wanted = next((v for v in variants if v and v in (link.named or {})), "")
        rows = [row for row in rows if row.variant == wanted] or rows
        fitting = [row for row in rows if len(_axes(row.inputs)) <= axes]
        if not fitting:
            fewest = min(len(_axes(row.inputs)) for row in rows)
            raise NetworkError(
                f"'{link.name}' takes {fewest} axes of an example, and '{current.name}' has {axes}", source.place(link.at)
            )
        # A shape says by the number of its axes which row is meant.
        given = as_sizes(link.arguments[0]) if link.arguments else None
        meant = [row for row in fitting if given and len(row.arguments.get("shape", "").split(",")) == len(given)]
        return meant[0] if meant else fitting[0]

    # ------------------------------------------------------------------ arguments

    def _read_arguments(
        self,
        layer: catalogue.Layer,
        link: Link,
        named: dict[str, Node],
        count: int,
        letter: str,
        choice: _Choice,
        source: Source,
    ) -> None:
        positional = list(link.arguments)
        for argument, own in layer.arguments.items():
            node = named.pop(argument, None) or (positional.pop(0) if positional else None)
            if node is None:
                example = {"kernel": "3x3", "shape": "4x4x2"}.get(argument, "32")
                raise NetworkError(f"'{layer.name}' needs {argument}, such as {layer.name}({example})", source.place(link.at))
            letters = own.split(",")
            if argument in ("kernel", "shape"):
                for k, (i, size) in enumerate(zip(letters, self._kernel(node, len(letters), source), strict=True)):
                    choice.letters[i] = self._own_letter(i, count)
                    self.scope.sizes.extend({choice.letters[i]: size})
                    choice.values[f"kernel{k + 1}"] = sympy.Integer(size)
            else:
                choice.letters[own] = letter if argument in WIDTHS else self._own_letter(own, count)
                self._size(layer, argument, node, choice.letters[own], source)
        for option, default in layer.options.items():
            node = named.pop(option, None)
            if node is None and not default and positional:
                node = positional.pop(0)
            self._option(layer, option, default, node, choice, link, source)
        flags = [*layer.conditions, *(("mask", "truncate") if layer.state else ())]
        for flag in flags:
            node = named.pop(flag, None)
            if flag == "truncate":
                choice.truncate = None if node is None else as_size(node)
                if node is not None and not choice.truncate:
                    raise NetworkError("'truncate' is a positive whole number of steps", source.place(node.at))
            elif node is not None and self._flag(flag, node, source):
                choice.masked = choice.masked or flag == "mask"
                if flag in layer.conditions:
                    choice.conditions.append(layer.conditions[flag])
        choice.activation = as_link(positional[0]) if positional else None
        if "activation" in named:
            choice.activation = as_link(named.pop("activation"))
        if positional[1:] or (positional and choice.activation is None):
            extra = positional[1] if positional[1:] else positional[0]
            raise NetworkError(f"'{link.name}' has an argument too many here", source.place(extra.at))
        for flag, parameters in layer.optional.items():
            if not self._flag(flag, named.pop(flag, None), source):
                choice.absent |= set(parameters.split())

    @staticmethod
    def _kernel(node: Node, axes: int, source: Source) -> tuple[int, ...]:
        sizes = as_sizes(node)
        if sizes is None or 0 in sizes or len(sizes) not in (1, axes):
            example = "x".join(["3"] * axes)
            raise NetworkError(
                f"the kernel or shape is a positive whole number for every axis, such as {example}", source.place(node.at)
            )
        return sizes if len(sizes) == axes else sizes * axes

    def _option(
        self, layer: catalogue.Layer, option: str, default: str, node: Node | None, choice: _Choice, link: Link, source: Source
    ) -> None:
        """A number for every axis of the kernel (`stride1`, `stride2`), or one (`groups`, `epsilon`, `rate`)."""
        axes = len(layer.arguments.get("kernel", "").split(",")) if option in ("stride", "padding", "dilation") else 0
        if node is None and not default:
            raise NetworkError(f"'{layer.name}' needs {option}, such as {layer.name}(2)", source.place(link.at))
        if not axes:
            if node is not None and (not isinstance(node, Number) or not 0 <= node.value <= 10**6):
                raise NetworkError(f"'{option}' is a number", source.place(node.at))
            if isinstance(node, Number) and option == "rate" and node.value >= 1:
                raise NetworkError("'rate' is the share that is left out, from 0 to below 1", source.place(node.at))
            value = (
                sympy.Rational(node.value.numerator, node.value.denominator)
                if isinstance(node, Number)
                else sympy.Rational(default)
            )
            choice.values[option] = value
            return
        given = as_sizes(node) if node is not None else None
        if node is not None and (given is None or len(given) not in (1, axes) or (0 in given and option != "padding")):
            raise NetworkError(f"'{option}' is a whole number, or one for every axis such as 2x1", source.place(node.at))
        for k in range(1, axes + 1):
            usual = choice.values[f"kernel{k}"] if default == "kernel" else sympy.Integer(default or 0)
            choice.values[f"{option}{k}"] = sympy.Integer(given[k - 1 if len(given) > 1 else 0]) if given else usual
            pooled = option == "padding" and layer.name in ("maxpool", "avgpool")
            if node is not None and pooled and 2 * choice.values[f"padding{k}"] > choice.values[f"kernel{k}"]:
                raise NetworkError(
                    "padding is at most half the kernel: a window must hold more than padding", source.place(node.at)
                )

    def _size(self, layer: catalogue.Layer, argument: str, node: Node, letter: str, source: Source) -> None:
        size = as_size(node)
        if size is None and not (isinstance(node, Name) and SAFE_NAME.fullmatch(node.name)):
            raise NetworkError(f"{argument} must be a positive whole number, a letter or auto", source.place(node.at))
        if size is None and self.is_activation(cast(Name, node).name):
            raise NetworkError(f"'{layer.name}' needs {argument} before the activation", source.place(node.at))
        if letter in self.scope.sizes:
            return
        known: dict[str, int | str | Expr] = {letter: size if size is not None else cast(Name, node).name}
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

    # ------------------------------------------------------------------ equations

    def _place(
        self,
        layer: catalogue.Layer,
        count: int,
        current: Current,
        cut: int,
        choice: _Choice,
        initialiser: catalogue.Initialiser,
        where: Source,
    ) -> Current:
        """Write a layer's equations with the names and letters of this network."""
        texts = _masked(layer) if choice.masked and layer.state else list(layer.equations)
        texts = [_allowed(t, choice.conditions) for t in texts]
        texts = [t for t in texts if t]
        if layer.activation:
            chosen = choice.activation.name if choice.activation else layer.activation
            own = self.spec.activations.get(chosen)
            vector = own.equations is not None if own is not None else chosen in ("softmax", "log_softmax")
            if vector or not self.is_activation(chosen):
                raise NetworkError(f"unknown activation '{chosen}'", where.place(where.start))
            texts = [t.replace("activation(", "(" if self.is_identity(chosen) else f"{chosen}(") for t in texts]
        letters, leading = choice.letters, current.axes[:cut]
        sources = [Source(f"<layer {layer.name}>", text) for text in texts]
        definitions = [parse_definition(s) for s in sources]
        targets = [cast("Name | Item", d.left).name for d in definitions]
        self._own_letters(layer, count, choice, where)
        renamed = {"x": current.name, **{t: f"{t}{count}" for t in targets}}
        if layer.conditions and not choice.conditions:
            renamed["m"] = renamed["r"]  # nothing is masked
        led = {current.name, *(renamed[t] for t in targets if t not in layer.whole)}
        for text in layer.parameters:
            self._parameter(layer, text, count, choice, initialiser, renamed)
        for name, distribution in layer.noise.items():
            assert distribution == "bernoulli"
            renamed[name] = f"{name}{count}"
            self._add(renamed[name], current.axes, "noise", where, where.start)
            self.draws[renamed[name]] = Draw("bernoulli", 1, float(1 - choice.values["rate"]))
            led.add(renamed[name])
        if choice.masked:
            axes = (*leading, letters["t"])
            renamed["mask"] = "mask"
            if "mask" not in self.scope.axes:
                self._add("mask", axes, "input", where, where.start)
            led.add("mask")
        scope = replace(
            self.scope,
            renamed=renamed,
            letters=letters,
            leading=leading,
            led=frozenset(led),
            values=choice.values,
            truncated={renamed[s]: choice.truncate for s in layer.state} if choice.truncate else {},
        )
        first = len(self.scope.equations)
        Lowering.all(list(zip(sources, definitions, strict=True)), scope)
        gone = {renamed[p] for p in choice.absent}
        for i, equation in enumerate(self.scope.equations[first:], first):
            self.scope.equations[i] = replace(equation, terms=tuple(_without(t, gone) for t in equation.terms))
            self.scope.equations[i] = replace(equation, terms=tuple(t for t in self.scope.equations[i].terms if t.body != 0))
        for name in gone:
            del self.scope.axes[name], self.roles[name], self.starts[name]
        for name, start in layer.averages.items():
            self.averages[renamed[name]] = (float(choice.values["momentum"]), start)
        last = self.scope.equations[-1].target
        return Current(last.name, tuple(i.name for i in last.letters))

    def _own_letters(self, layer: catalogue.Layer, count: int, choice: _Choice, where: Source) -> None:
        """Names and sizes for the letters that only this layer has."""
        for letter, formula in layer.sizes.items():
            choice.letters.setdefault(letter, self._own_letter(letter, count))
            source = Source(f"<layer {layer.name}>", formula)
            scope = replace(self.scope, letters=choice.letters, values=choice.values)
            size = self.scope.sizes.numeric(Lowering(source, scope).size_of(parse_expression(source)))
            if size.is_number and not (size.is_Integer and size > 0):
                what = "is no whole number" if size > 0 else "leaves no place"
                raise NetworkError(
                    f"'{layer.name}' does not fit here: {formula} is {size}, which {what}", where.place(where.start)
                )
            known = self.scope.sizes.number(choice.letters[letter]) if choice.letters[letter] in self.scope.sizes else None
            if known is not None and size.is_Integer and size != known:
                message = f"'{layer.name}' does not fit here: it takes {size} values, and there are {known}"
                raise NetworkError(message, where.place(where.start))
            if choice.letters[letter] not in self.scope.sizes:
                self.scope.sizes.extend({choice.letters[letter]: size})

    def _parameter(
        self,
        layer: catalogue.Layer,
        text: str,
        count: int,
        choice: _Choice,
        usual: catalogue.Initialiser,
        renamed: dict[str, str],
    ) -> None:
        node = cast("Name | Item", parse_expression(Source(f"<layer {layer.name}>", text)))
        own = tuple(cast(Name, i).name for i in getattr(node, "indices", ()))
        axes = tuple(choice.letters.setdefault(i, i) for i in own)
        renamed[node.name] = f"{node.name}{count}"
        self._add(renamed[node.name], axes, "parameter", self.spec.source, 0)
        chosen = catalogue.INITIALISERS[layer.starts[node.name]] if node.name in layer.starts else usual
        fan_in, fan_out = layer.fans.get(node.name, ("".join(own[:-1]), "".join(own[-1:])))
        found = dict(zip(own, axes, strict=True))
        fans = (
            [tuple(found[i] for i in own if i in fan) for fan in (fan_in, fan_out)]
            if layer.fans.get(node.name)
            else [axes[:-1], axes[-1:]]
        )
        self.starts[renamed[node.name]] = Start(chosen.distribution, chosen.scale, fans[0], fans[1])

    def _penalise(self, layer: catalogue.Layer, count: int, penalties: Mapping[str, Node], source: Source) -> None:
        for kind, node in penalties.items():
            if not isinstance(node, Number) or not layer.parameters:
                raise NetworkError(f"'{kind}' is a number, such as {kind}=0.001, for a layer with weights", source.place(node.at))
            name = f"{cast('Name | Item', parse_expression(Source('', layer.parameters[0]))).name}{count}"
            axes = tuple(index(a) for a in self.scope.axes[name])
            formula = Source(f"<{kind} penalty>", catalogue.PENALTIES[kind])
            scope = replace(self.scope, values={"w": Element(name, *axes)})
            body = Lowering(formula, scope).scalar(parse_expression(formula))
            coefficient = sympy.Rational(node.value.numerator, node.value.denominator)
            self.penalties.append(Term(coefficient * body, axes))

    # ------------------------------------------------------------------ branches

    def join(self, link: Link, before: Current, after: Current, count: int, source: Source) -> Current:
        """`residual`: x + f(x); `concat`: x with f(x) behind it along the last axis; named after the last layer of the branch."""
        if len(before.axes) != len(after.axes):
            raise NetworkError(
                f"'{link.name}' needs a branch that keeps the number of axes; it goes from {len(before.axes) - 1} to "
                f"{len(after.axes) - 1}",
                source.place(link.at),
            )
        shared = before.axes if link.name == "residual" else before.axes[:-1]
        for one, other in zip(shared, after.axes, strict=False):
            if wrong := self.scope.sizes.unify(one, other):
                raise NetworkError(f"'{link.name}' needs a branch that keeps the shape: {wrong}", source.place(link.at))
        name = f"x{count}" if f"x{count}" not in self.scope.axes else self.scope.fresh(f"x{count}_")
        x = [index(i) for i in before.axes]
        if link.name == "residual":
            terms = (Term(Element(before.name, *x)), Term(Element(after.name, *x)))
            axes = before.axes
        else:
            sizes, letter = self.scope.sizes, f"c{name}"
            axes = (*before.axes[:-1], letter)
            last, first = index(letter), sizes.symbol(before.axes[-1])
            sizes.extend({letter: first + sizes.symbol(after.axes[-1])})
            terms = (
                Term(Element(before.name, *x[:-1], Beyond(last))),
                Term(Element(after.name, *x[:-1], sizes.numeric(last - first))),
            )
        self.scope.equations.append(Equation(Element(name, *map(index, axes)), terms))
        self.scope.axes[name] = axes
        return Current(name, axes)


def _without(term: Term, gone: set[str]) -> Term:
    """A term without the summands in which an array that is left out occurs."""
    kept = [a for a in sympy.Add.make_args(term.body) if not {e.name for e in a.atoms(Element)} & gone]
    return replace(term, body=cast(Expr, sympy.Add(*kept)))


def _axes(inputs: str) -> tuple[str, ...]:
    """The letters in `x[u,v,c]`."""
    return tuple(inputs.partition("[")[2].rstrip("]").split(",")) if "[" in inputs else ()


def _input_of(lines: tuple[str, ...]) -> str:
    """The first `x[…]` in a layer's equations, whose letters are the axes that it takes."""
    for line in lines:
        for node in nodes_of(parse_definition(Source("<layer>", line)).right):
            if isinstance(node, Item) and node.name == "x":
                return f"x[{','.join(i.name if isinstance(i, Name) else '?' for i in node.indices)}]"
    return "x"


def _allowed(text: str, conditions: list[str]) -> str:
    """`where(allowed, a, b)` with the conditions in place of `allowed`; nothing where there are none."""
    head, found, tail = text.partition("where(allowed, ")
    if not found:
        return text
    value, other = tail.rsplit(",", 1)
    other = other.strip().rstrip(")")
    for condition in conditions:
        value = f"where({condition}, {value}, {other})"
    return head + value if conditions else ""


def _masked(layer: catalogue.Layer) -> list[str]:
    """The equations of a recurrent layer whose state stays as it is where the mask is 0."""
    lines: list[str] = []
    for text in layer.equations:
        target, _, right = text.partition(" = ")
        name, _, place = target.partition("[")
        if name in layer.state:
            lines.append(f"{name}_new[{place} = {right}")
            before = place.replace("t", "t-1", 1)
            lines.append(f"{target} = mask[t]*{name}_new[{place} + (1 - mask[t])*{name}[{before}")
        else:
            lines.append(text)
    return lines
