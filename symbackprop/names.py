"""What a name in a claim may mean: arrays by their many spellings, sizes, functions, step sizes; and one array by another.

`W^{(1)}`, `W_1`, `W1`, `w^1` are W1; `\\hat y`, `p` and `a^L` the prediction; `δ^{(2)}`, `\\bar z_2`, `dZ2` the derivative with
respect to z2. Declared names always come first. What is not understood is refused.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, cast

import sympy
from sympy import Expr

from .derive import closed_form, network_name
from .differentiate import partial, resolve
from .errors import FormulaError, NetworkError, Source
from .functions import catalogue_functions
from .lower import BUILT_IN, Lowering, Scope
from .maths import Symbol
from .maths_tokens import GREEK_NAMES
from .notation import (
    Call,
    Derivation,
    Element,
    Equation,
    Function,
    Network,
    Term,
    base_name,
    data_indices,
    direction,
    elements_of,
    groups_of,
    index,
    is_index,
    is_moved,
    is_recurrence,
    size_symbol,
)
from .parse import Apply, Binary, Item, Name, Negate, Node, Number
from .second import gradient_network, is_elementwise, jacobian_terms, keeps_examples, vector_jacobian
from .shares import has_independent_examples
from .sizes import Sizes
from .tabulate import tree_of
from .trees import indicator, letters_in, number, put_indices
from .write import Writer

LOSS_NAMES = ("L", "C", "E", "J", "ℓ", "loss", "cost", "Loss", "Cost")
PREDICTIONS = ("p", "o", "q", "yhat", "y_hat", "ypred", "y_pred", "pred", "out", "h", "a", "f")
TARGETS = ("t", "target", "label", "d", "ℓ", "y", "y_true")
RATES = ("η", "α", "eta", "alpha", "lr", "γ", "gamma", "learning_rate", "ε", "μ", "λ")
_BEFORE = {"z": ("net", "s", "in", "u", "net_in", "pre", "h"), "a": ("out", "o", "h", "x", "y")}
# How the states and constants of optimisers are called.
_STATES: Mapping[str, tuple[str, ...]] = {
    "w": ("w", "W", "θ", "theta", "x", "p", "φ"),
    "m": ("m", "M"),
    "v": ("v", "V", "u", "s", "r", "G", "E", "velocity"),
    "g": ("g", "grad", "G", "dx", "dw"),
}
_CONSTANTS = (
    (("η", "α", "lr", "γ", "eta", "alpha"), "eta"),
    (("μ", "γ", "β", "ρ", "m"), "mu"),
    (("ρ", "β", "γ", "α"), "rho"),
    (("λ", "lambda", "wd"), "decay"),
    (("ε", "eps", "ϵ", "δ"), "epsilon"),
)
GENERIC = ("σ", "f", "g", "φ", "ϕ", "h", "ψ", "sigma", "phi", "act")
SPELLED = {
    "maximum": "max",
    "minimum": "min",
    "σ": "sigmoid",
    "ReLU": "relu",
    "Sigmoid": "sigmoid",
    "logistic": "sigmoid",
    "sig": "sigmoid",
    "Tanh": "tanh",
    "th": "tanh",
}


@dataclass
class Reading:
    """The choices of one reading, and those that came up on the way."""

    chosen: Mapping[str, str]
    met: dict[str, tuple[str, ...]] = field(default_factory=dict[str, "tuple[str, ...]"])
    notes: dict[str, str] = field(default_factory=dict[str, str])

    def choose(self, what: str, ways: tuple[str, ...], notes: Mapping[str, str]) -> str:
        """One of several ways to read something; the first one unless another was asked for."""
        self.met[what] = ways
        way = self.chosen.get(what, ways[0])
        if way in notes:
            self.notes[what] = notes[way]
        return way


@dataclass(frozen=True)
class Meaning:
    """An array that a symbol may stand for, and what is left of the symbol: subscripts, the example, a power, a sign."""

    name: str
    below: tuple[Node, ...] = ()
    example: Node | None = None
    power: Node | None = None
    sign: int = 1


@dataclass(frozen=True)
class Jacobian:
    """∂of/∂wrt as an array over the axes of both; the axis at `shared` (the examples) stands once."""

    name: str
    axes: tuple[str, ...]
    shared: tuple[int, int] | None
    equation: Equation | None
    back: Derivation
    seed: str


class Spoken(Protocol):
    """What a claim says beside its trees: how far its letters run, and its text for errors."""

    sizes: dict[str, str]
    source: Source


class Names:
    """The names of one derivation, and what claims about it may call them."""

    def __init__(self, derivation: Derivation) -> None:
        self.derivation, self.network = derivation, derivation.network
        network = self.network
        self.axes: dict[str, tuple[str, ...]] = {a.name: a.axes for a in network.arrays}
        self.adjoints = dict(derivation.adjoints)
        self.axes |= {d: self.axes[a] for a, d in self.adjoints.items() if a in self.axes}
        for equation in derivation.raw:
            self.axes.setdefault(equation.name, tuple(i.name for i in equation.target.letters))
        self.functions: dict[str, Function] = {**catalogue_functions(), **{f.name: f for f in network.functions}}
        self.size_of = {i.name: i.size for i in network.indices}
        self.aliases = dict(network.aliases)
        self.variables: dict[str, str] = {}  # the claim's own variables, and what they are called in trees
        self.jacobians: dict[tuple[str, str], Jacobian] = {}
        self.constants = {n for n, _ in network.constants}
        self.independent: list[tuple[str, str]] = []  # derivatives that are zero as one does not depend on the other
        self.ahead = False  # whether the claim is an update
        # In an optimiser's network: which of a claim's times (-1 for t-1, …) is before the step and which after.
        self.is_optimiser = any(a.name.endswith("_before") for a in network.arrays)
        self.times: dict[str, tuple[int, ...]] = {}
        self.updated: str | None = None  # the name that a rule without times sets
        self.is_first = True  # whether the first side is read

    @cached_property
    def everything(self) -> tuple[Equation, ...]:
        """The forward equations and those of the chain rule."""
        return (*self.network.equations, *self.derivation.raw)

    @cached_property
    def implies_examples(self) -> bool:
        """Whether the declaration leaves the examples to be understood, as a chain does."""
        return bool(self.network.text)

    @cached_property
    def has_examples(self) -> bool:
        """Whether the loss is a sum or a mean over examples that do not depend on one another, by the equations."""
        targets = any(self.network.batch in a.axes for a in self.network.arrays if a.role == "target")
        return (targets or self.mean_size is not None) and has_independent_examples(self.network)

    @cached_property
    def mean_size(self) -> str | None:
        """The size that the loss is a mean over: that of the examples."""
        size = self.size_of.get(self.network.batch or "")
        total = self.network.equations[-1].terms
        return size if size is not None and any(size_symbol(size) in t.body.free_symbols for t in total) else None

    @cached_property
    def for_one_example(self) -> str:
        """What is said of a claim that is read for one example."""
        size = self.mean_size
        return "read for one example" + (f"; with a batch, the mean over {size} examples puts 1/{size} before it" if size else "")

    # ------------------------------------------------------------------ for the reader

    @cached_property
    def known(self) -> frozenset[str]:
        """Every name that a run of letters may be made of."""
        names = {*self.axes, *self.aliases, *self.functions, *BUILT_IN, *self.size_of, *self.size_of.values(), *self.constants}
        names |= {n.rstrip("'") for n in names}
        if self.is_optimiser:
            names |= {n for s in _STATES.values() for n in s} | {n for s, _ in _CONSTANTS for n in s}
        names |= {"η", "α", "lr", "sech", "coth", "sgn", "ln", "diag", "softmax", "ReLU", "𝟏"}
        names |= {n[0].swapcase() + n[1:] for n in self.axes if n[0].isalpha()}
        return frozenset(names)

    def is_function(self, symbol: Symbol) -> bool:
        """Whether brackets behind a name hold the arguments of a function."""
        plain = symbol.name
        if self._declared_function(symbol) is not None or plain in SPELLED or plain in BUILT_IN or plain in self.functions:
            return True
        if plain in ("sech", "coth", "ln", "sgn", "norm", "softmax", "square", "matmul", "outer", "multiply"):
            return True
        declared = plain in self.axes or plain in self.aliases or plain + "'" * symbol.primes in self.axes
        return plain in GENERIC and not (declared or (symbol.below and any(self.arrays(symbol, None))))

    def is_free(self, name: str) -> bool:
        """Whether nothing declared has this name."""
        return name not in self.axes and name not in self.aliases and name not in self.constants

    def is_scalar(self, name: str) -> bool:
        """Whether a name is a scalar of the network or a free variable, hence no index letter."""
        return (name in self.axes and not self.axes[name] and name not in self.size_of) or name in self.variables.values()

    def delta_has(self, count: int, one: bool) -> bool:  # noqa: ARG002
        """Whether δ with this many subscripts is an array of the network rather than the Kronecker symbol."""
        return any(n in self.axes for n in ("δ", "delta"))

    def depends(self, symbol: Symbol, on: Sequence[Node]) -> bool:
        """Whether a symbol is an array that is computed from all of these: `f(x)` is f as a function of x."""
        own = [m.name for m in self.arrays(symbol, None)][:1]
        if not own or symbol.indices is not None:
            return False
        return all(
            isinstance(s, Symbol) and any(m.name != own[0] and self._reaches(m.name, own[0]) for m in self.arrays(s, None))
            for s in on
        )

    @cached_property
    def counted(self) -> frozenset[str]:
        """The arrays that hold whole numbers: which row, which class."""
        places = {e.name for e in self.everything if any(t.reduce == "argmax" for t in e.terms)}
        return frozenset(data_indices(self.network.equations) | places)

    @cached_property
    def steps(self) -> frozenset[str]:
        """The letters along which recurrences run."""
        groups = [g for g in groups_of(list(self.network.equations)) if is_recurrence(g)]
        return frozenset(base_name(direction(g)[0].name) for g in groups)

    def is_last(self, name: str) -> bool:
        """Whether an array belongs to the last layer, by its number."""
        return bool(self.layers) and name.endswith(str(self.layers[-1]))

    @cached_property
    def extremes(self) -> frozenset[str]:
        """The arrays that are the greatest of several values."""
        return frozenset(e.name for e in self.network.equations if any(t.reduce == "max" for t in e.terms))

    def is_exact(self, symbol: Symbol, meaning: Meaning) -> bool:
        """Whether a meaning is the array that is declared under just this name: b_2 is b2 and no element of b1."""
        if meaning.name in self.adjoints.values() or symbol.layer is not None or symbol.accent:
            return False
        text = symbol.below_text
        own = "'" * symbol.primes
        for base in (symbol.name, GREEK_NAMES.get(symbol.name, symbol.name)):
            names = (f"{base}_{text}{own}", f"{base}{text}{own}") if text else (base + own,)
            if meaning.name in names and not meaning.below:
                return True
        return False

    def is_elementwise(self, value: Node, wrt: str) -> bool:
        """Whether an array depends on another place by place."""
        return isinstance(value, Item) and value.name != wrt and is_elementwise(self.network, value.name, wrt)

    def are_apart(self, names: Collection[str], wrt: str) -> bool:
        """Whether every array among these depends, example by example, on the same example of another alone."""
        network = self.with_gradient if any(n in self.adjoints.values() for n in names) else self.network
        arrays = {a.name for a in network.arrays}
        own = {of for (of, _), j in self.jacobians.items() if j.name in names}
        own |= {n for n in names if n in arrays and self._reaches(wrt, n)}
        return all(n == wrt or keeps_examples(network, n, wrt) for n in own if network.batch in self.axes[n])

    def is_one_hot(self, name: str) -> bool:
        """Whether an array holds labels, one of them 1 and the others 0."""
        return self.network.labels == "one-hot" and any(a.name == name and a.role == "target" for a in self.network.arrays)

    def is_declared_function(self, symbol: Symbol) -> bool:
        """Whether a symbol, with all that hangs on it, is a function that the network declares."""
        return self._declared_function(symbol) is not None

    # ------------------------------------------------------------------ sizes

    def declared_size(self, size: str) -> int | None:
        """The number that a size is declared to be."""
        return self._counts.get(size)

    def same_size(self, one: str, other: str) -> bool:
        """Whether two sizes are one."""
        return one == other or (self.is_windowed and one in self._counts and self._counts.get(other) == self._counts[one])

    @cached_property
    def is_windowed(self) -> bool:
        """Whether sizes follow from one another, so that the declared ones have to be kept."""
        elements = (x for e in self.network.equations for t in e.terms for x in t.body.atoms(Element))
        return any(is_moved(i) for x in elements for i in x.indices) or any(i.formula is not None for i in self.network.indices)

    @cached_property
    def _counts(self) -> dict[str, int]:
        return {i.size: i.number for i in self.network.indices if i.number is not None}

    def letter_for(self, size: str) -> str | None:
        """A declared letter that runs that far."""
        return next((i for i, s in self.size_of.items() if s == size), None)

    def is_size(self, name: str) -> bool:
        """Whether a name is that of a size and of nothing else."""
        return name in self.size_of.values() and self.is_free(name)

    def size_named(self, name: str) -> str | None:
        """The size that a name stands for: its own, or one of the usual ones for the number of examples."""
        if not self.is_free(name):
            return None
        if name in self.size_of.values():
            return name
        batch = self.network.batch
        if batch is not None and name in ("m", "N", "n", "B", "M") and (name not in self.size_of or name == "n"):
            return self.size_of[batch]
        return None

    def size_from(self, node: Node | None) -> str | None:
        """The size that the upper limit of a sum names."""
        return self.size_named(node.name) if isinstance(node, Symbol) else None

    # ------------------------------------------------------------------ arrays

    def is_parameter(self, name: str) -> bool:
        """Whether an array is a parameter."""
        return any(a.name == name and a.role == "parameter" for a in self.network.arrays)

    def turned(self, chosen: Mapping[str, str]) -> frozenset[str]:
        """The arrays that are written the other way round: examples as columns, W[out, in], derivatives in numerator layout."""
        found: set[str] = set()
        for a in self.network.arrays:
            if len(a.axes) == 2:
                columns = chosen.get("batch") == "columns" and a.axes[0] == self.network.batch
                outward = chosen.get("weights") == "out-in" and a.role == "parameter"
                if columns or outward:
                    found.add(a.name)
        for array, adjoint in self.adjoints.items():
            if (array in found) != (chosen.get("layout") == "numerator"):
                found.add(adjoint)
        return frozenset(found)

    @cached_property
    def layers(self) -> list[int]:
        """The numbers of the layers."""
        found = {int(m[1]) for n in self.axes if (m := re.fullmatch(r"[az](\d+)", n))}
        return sorted(found)

    def layer_number(self, node: Node | None, reading: Reading | None) -> int | None:
        """The number that a superscript such as `2`, `L`, `l-1` stands for."""
        match node:
            case Number(value=value) if value.denominator == 1:
                return int(value)
            case Symbol(name="L", below=(), layer=None, raised=None) if self.layers:
                return self.layers[-1]
            case Symbol(name="l" | "ℓ", below=(), layer=None, raised=None) if reading is not None and self.layers:
                numbers = tuple(map(str, self.layers))
                return int(reading.choose("layer", numbers, {}))
            case Binary(operator="+" | "-" as operator, left=left, right=Number(value=value)):
                base = self.layer_number(left, reading)
                return None if base is None else base + int(value) * (1 if operator == "+" else -1)
            case _:
                return None

    def arrays(self, symbol: Symbol, reading: Reading | None) -> Iterator[Meaning]:
        """The arrays that a symbol may mean, the likeliest first."""
        if symbol.name in self.variables and not symbol.below and symbol.indices is None:
            return
        seen: set[tuple[str, tuple[Node, ...], bool]] = set()
        for meaning in self._by_brackets(symbol, reading):
            key = (meaning.name, meaning.below, meaning.power is None)
            if key not in seen:
                seen.add(key)
                yield meaning

    def _by_brackets(self, s: Symbol, reading: Reading | None) -> Iterator[Meaning]:
        """What a symbol may mean with a superscript in brackets: z**(2) and z^(2) are powers, W^{(2)} is a layer first."""
        if s.layer is None or not s.bracket.endswith("("):
            yield from self._arrays(s, reading)
            return
        power = replace(s, layer=None, bracket="", raised=None)
        powers = [replace(m, power=s.layer) for m in self._arrays(power, reading) if m.power is None]
        layers = [m for m in self._arrays(s, reading) if m.example is None or self.network.batch in self.axes[m.name]]
        layers = [m for m in layers if m.example is None or isinstance(m.example, (Symbol, Number))]
        if s.bracket == "(" and powers:
            yield from powers
        elif layers:
            yield from layers
        else:
            yield from powers

    def state_of(self, s: Symbol) -> tuple[str, int] | None:
        """The state of an optimiser that a symbol names, and the time that it speaks of; 0 where it names none."""
        base = next((k for k, names in _STATES.items() if s.name in names and (k in self.axes or k == "w")), None)
        if base is None:
            return None
        text = s.below_text or _plain(s.layer) or _plain(s.raised)
        offset = {"": 0, "t": 0, "t-1": -1, "t+1": 1, "k": 0, "k-1": -1, "k+1": 1, "new": 1, "old": -1}.get(text)
        return None if offset is None else (base, offset)

    def _states(self, s: Symbol) -> Iterator[Meaning]:
        """The names of an optimiser: weight, gradient and moments before and after the step, and its constants."""
        found = self.state_of(s)
        if found is not None:
            base, offset = found
            if base == "g" and offset not in (0, max((t for n in self.times.values() for t in n), default=0)):
                return  # the gradient of another step
            power = s.raised if s.below_text or s.layer is not None or not _plain(s.raised) else None
            times = self.times.get(base, ())
            after = offset == max(times, default=0) and (len(times) > 1 or offset >= 0)
            if s.name == self.updated and not self.is_first:
                after = False  # v = mu*v + g, as code has it
            name = f"{base}_hat" if s.accent == "hat" else base if base == "g" or after else f"{base}_before"
            if name in self.axes:
                yield Meaning(name, power=power)
            return
        plain = replace(s, below=(), below_text="") if s.below_text in ("t", "k") else s
        for base in (*self._spellings(plain.name), *(c for names, c in _CONSTANTS if plain.name in names and c in self.axes)):
            yield from self._by_base(plain, base, None, None, None)

    def _arrays(self, s: Symbol, reading: Reading | None) -> Iterator[Meaning]:
        if self.is_optimiser:
            yield from self._states(s)
            return
        if s.accent and (own := next((n for n in self._accented(s) if self._has(n)), None)) is not None:
            yield from self._by_base(replace(s, accent=""), own, self.layer_number(s.layer, reading), None, reading)
            return
        if s.accent == "star":
            return
        if s.accent == "tilde":
            # \\tilde c is c_tilde, in an LSTM the candidate g; never c itself
            plain = replace(s, accent="")
            yield from self._by_base(plain, f"{s.name}_tilde", self.layer_number(s.layer, reading), None, reading)
            if s.name in ("c", "C"):
                yield from self._synonyms(replace(plain, name="g"), None, None, reading)
            return
        if s.accent == "hat":
            yield from self._hatted(s)
            return
        if s.accent == "bar" and any(re.search(r"_?bar$", n) for n in self.axes):
            return  # bars are names here
        if s.accent == "bar" or s.name in ("δ", "delta", "Δ", "∂") or re.fullmatch(r"[δΔ]\d+", s.name):
            yield from self._deltas(s, reading)
            if s.accent == "bar":
                return  # never the array without its bar
        number = self.layer_number(s.layer, reading)
        example = s.layer if s.layer is not None and number is None else None
        for base in self._spellings(s.name):
            found = list(self._by_base(s, base, number, example, reading))
            yield from found
            if found:
                break  # E is e only where no E is declared
        if s.name[0] == "d" and len(s.name) > 1:
            inner = replace(s, name=s.name[1:])
            for meaning in self._arrays(inner, reading):
                if (adjoint := self.adjoint(meaning.name)) is not None:
                    yield replace(meaning, name=adjoint)
        yield from self._synonyms(s, number, example, reading)

    def _accented(self, s: Symbol) -> Iterator[str]:
        """The names that an accented symbol may be declared under: \\bar x is x_bar or xbar."""
        for base in self._spellings(s.name):
            yield from (f"{base}_{s.accent}", f"{base}{s.accent}", f"{s.accent}_{base}")

    def _spellings(self, name: str) -> list[str]:
        found = [name]
        if name in GREEK_NAMES:
            found.append(GREEK_NAMES[name])
        found += [g for g, n in GREEK_NAMES.items() if n == name]
        found.append(name[0].swapcase() + name[1:])
        return found

    def _by_base(
        self, s: Symbol, base: str, number: int | None, example: Node | None, reading: Reading | None
    ) -> Iterator[Meaning]:
        primes = "'" * s.primes
        below, text = s.below, s.below_text
        if number is not None:
            for name in (f"{base}{number}", f"{base}_{number}", f"{base}{text}_{number}", f"{base}_{text}{number}"):
                if self._has(name + primes):
                    yield Meaning(self._own(name + primes), () if text and text in name else below, power=s.raised)
            if number == 0 and base in ("a", "A", "x", "h") and (start := self._input()) is not None:
                yield Meaning(start, below, power=s.raised)
            return
        if s.layer is not None and example is None:
            return
        for count in range(len(below), 0, -1):
            own = text if count == len(below) else "".join(map(_script, below[:count]))
            spelled = "".join(GREEK_NAMES.get(c, c) for c in own)
            for name in dict.fromkeys((f"{base}_{own}", f"{base}{own}", f"{base}_{spelled}", f"{base}{spelled}")):
                if own and self._has(name + primes):
                    yield Meaning(self._own(name + primes), below[count:], example, s.raised)
        raised = self.layer_number(s.raised, reading) if s.raised is not None else None
        if raised is not None and self._has(f"{base}{raised}{primes}"):
            layered = Meaning(self._own(f"{base}{raised}{primes}"), below, example)
            plain = self._has(base + primes) or not isinstance(s.raised, Number)
            powers = [m for m in self._by_base(replace(s, raised=None), base, None, example, reading)] if plain else []
            if powers and isinstance(s.raised, Number) and reading is not None:
                notes = {"layer": f"{base}^{raised} is read as layer {raised}", "power": f"{base}^{raised} is read as a power"}
                if reading.choose("raised", ("layer", "power"), notes) == "power":
                    yield replace(powers[0], power=s.raised)
                    return
            yield layered
            return
        if raised == 0 and base in ("a", "A") and (start := self._input()) is not None:
            yield Meaning(start, below, example)
        if below and isinstance(below[0], Symbol) and below[0].name in ("L", "l") and reading is not None:
            layer = self.layer_number(below[0], reading)
            if layer is not None and self._has(f"{base}{layer}{primes}"):
                yield Meaning(self._own(f"{base}{layer}{primes}"), below[1:], example, s.raised)
        if self._has(base + primes):
            yield Meaning(self._own(base + primes), below, example, s.raised)

    def _has(self, name: str) -> bool:
        return self.aliases.get(name, name) in self.axes

    def _own(self, name: str) -> str:
        return self.aliases.get(name, name)

    def _input(self) -> str | None:
        inputs = [a.name for a in self.network.arrays if a.role == "input"]
        return inputs[0] if len(inputs) == 1 else None

    def _target(self) -> str | None:
        targets = [a.name for a in self.network.arrays if a.role == "target"]
        return targets[0] if len(targets) == 1 else None

    def _hatted(self, s: Symbol) -> Iterator[Meaning]:
        example = s.layer if s.layer is not None and not isinstance(s.layer, Number) else None
        for name in (f"{s.name}_hat", f"{s.name}hat", f"{s.name}h"):
            if self._has(name):
                yield Meaning(self._own(name), s.below, example, s.raised)
        prediction = self.network.prediction
        if prediction is not None and s.name in ("y", "Y", "p", "P", "t", "h", "o"):
            if self.network.text and prediction != "p" and "p" in self.axes and self._reaches(prediction, "p"):
                yield Meaning("p", s.below, example, s.raised)  # a loss that takes logits computes the probabilities itself
            yield Meaning(prediction, s.below, example, s.raised)

    def _deltas(self, s: Symbol, reading: Reading | None) -> Iterator[Meaning]:
        """δ of a layer: the derivative of the loss with respect to what its activation is applied to."""
        if s.accent == "bar":
            for meaning in self._arrays(replace(s, accent=""), reading):
                if (adjoint := self.adjoint(meaning.name)) is not None:
                    yield replace(meaning, name=adjoint)
            return
        if (digits := re.fullmatch(r"[δΔ](\d+)", s.name)) is not None:
            inner = replace(s, name="z" + digits[1])
        else:
            inner = replace(s, name="z")
        sign = 1
        if reading is not None and s.name != "Δ":
            notes = {"minus": "δ is read as −∂L/∂z"}
            sign = -1 if reading.choose("delta", ("plus", "minus"), notes) == "minus" else 1
        found = [m for m in self._arrays(inner, reading)]
        if not found and s.layer is None:
            found = [Meaning(n, s.below, None, s.raised) for n in reversed(self._pre_activations())]
        for meaning in found:
            if (adjoint := self.adjoint(meaning.name)) is not None:
                yield replace(meaning, name=adjoint, sign=sign)

    def _pre_activations(self) -> list[str]:
        """The arrays that an activation or a softmax is applied to, in the order of the network."""
        return self._pre

    @cached_property
    def _pre(self) -> list[str]:
        computed = [e.name for e in self.network.equations]
        found = {n for n in computed if re.match(r"z(?:\d|_|$|net)", n)}
        own = {f.name for f in self.network.functions}
        for e in self.network.equations:
            for t in e.terms:
                body = t.body
                if isinstance(body, Call) and not t.over and body.name in own and body.name not in ("stop", "max", "min"):
                    inner: Any = body.arguments[0]
                elif isinstance(body, sympy.exp if t.over and t.reduce == "sum" else sympy.tanh):
                    inner = body.args[0]
                else:
                    continue
                if isinstance(inner, Element):
                    found.add(inner.name)
        return [n for n in computed if n in found]

    def _synonyms(self, s: Symbol, number: int | None, example: Node | None, reading: Reading | None) -> Iterator[Meaning]:
        primes = "'" * s.primes
        if s.indices is not None or (primes and s.name not in ("y", "Y")):
            return  # formula text names its arrays exactly
        rest = (s.below, example, s.raised)
        if number is None and s.layer is None:
            prediction, target = self.network.prediction, self._target()
            if primes and prediction is not None:
                yield Meaning(prediction, *rest)
                return
            numbered = [n for n in self.axes if re.fullmatch(re.escape(s.name) + r"\d+", n)]
            numbered += [n for n in self.axes if re.fullmatch(re.escape(s.name[0].swapcase() + s.name[1:]) + r"\d+", n)]
            if s.name in ("z", "Z", "net") and self._pre_activations():
                # bare z: the last one first, the others where its indices do not fit
                for n in reversed(self._pre_activations()):
                    yield Meaning(n, *rest)
            elif len(numbered) == 1:
                yield Meaning(numbered[0], *rest)
            if (
                (s.name in PREDICTIONS or s.name.lower() == "p")
                and prediction is not None
                and self._may_predict(s.name)
                and not numbered
            ):
                yield Meaning(prediction, *rest)
            if len(numbered) > 1 and s.below:
                for n in reversed(numbered):
                    yield Meaning(n, *rest)
            if s.name in TARGETS and target is not None and s.name not in self.size_of:
                yield Meaning(target, *rest)
            if s.name in LOSS_NAMES and not s.below:
                yield Meaning(self.network.loss, *rest)
            if s.name in ("X", "x") and (start := self._input()) is not None:
                yield Meaning(start, *rest)
        for plain, others in _BEFORE.items():
            if s.name in others:
                yield from self._by_base(replace(s, name=plain), plain, number, example, reading)

    def _may_predict(self, name: str) -> bool:
        """Whether a name is a usual one for the prediction: q and p for probabilities alone, h, a and f for layers of chains."""
        if name.lower() == "p":
            return True
        if name == "q":
            return self.network.labels in ("one-hot", "zero-one") and bool(self.network.text)
        return len(name) > 1 or name == "o" or bool(self.network.text)

    def adjoint(self, name: str) -> str | None:
        """The array that holds the loss' derivative with respect to an array."""
        return self.adjoints.get(network_name(self.network, name))

    def is_loss(self, symbol: Symbol) -> bool:
        """Whether a symbol is the loss that is differentiated."""
        name = symbol.name + (f"_{symbol.below_text}" if symbol.below_text else "") + "'" * symbol.primes
        plain = symbol.name if not symbol.below_text else name
        label = len(symbol.below) == 1 and isinstance(symbol.below[0], Symbol) and symbol.below_text in tuple("intjkm")
        if plain == self.network.loss or (label and symbol.name == self.network.loss and name not in self.axes):
            return True
        total = symbol.below_text in ("total", "tot", "") or label
        return symbol.name in LOSS_NAMES and total and symbol.indices is None and symbol.name not in self.axes

    @staticmethod
    def with_sign(tree: Node, meaning: Meaning) -> Node:
        """The tree, negated where δ is the other way round."""
        return Negate(tree.at, tree, end=tree.end) if meaning.sign < 0 else tree

    # ------------------------------------------------------------------ constants and updates

    def constant(self, symbol: Symbol, reading: Reading) -> str | None:
        """A declared constant, a free variable, or the step size of an update."""
        for name in (symbol.name + (f"_{symbol.below_text}" if symbol.below_text else ""), *self._spellings(symbol.name)):
            if name in self.variables:
                return self.variables[name]
            if name in self.constants:
                return name
        if self.ahead and symbol.name in RATES and not symbol.below:
            return self.rate(reading)
        return None

    @staticmethod
    def rate(reading: Reading) -> str:  # noqa: ARG004
        """The name of the step size."""
        return "eta"

    def is_ahead(self, symbol: Symbol) -> bool:
        """Whether a symbol is a weight after a step: `w_{t+1}`, `w^{new}`."""
        found = self._step(symbol)
        return found is not None and found[1]

    def step_of(self, symbol: Symbol) -> tuple[Symbol, bool] | None:
        """`w_{t+1}`, `w^{(t+1)}`, `w_{new}`: the weight after a step (True), `w_t`, `w_{old}`: before it."""
        return self._step(symbol) if self.ahead else None

    def _step(self, symbol: Symbol) -> tuple[Symbol, bool] | None:
        for text, bare in (
            (symbol.below_text, replace(symbol, below=(), below_text="")),
            (_plain(symbol.layer), replace(symbol, layer=None)),
            (_plain(symbol.raised), replace(symbol, raised=None)),
        ):
            if text and not any(self.is_parameter(m.name) for m in itertools.islice(self.arrays(bare, None), 1)):
                continue
            if text in ("t+1", "k+1", "n+1", "new", "i+1", "neu"):
                return bare, True
            if text in ("t", "k", "old", "alt", "n") and any(self.axes[m.name] == () for m in self.arrays(bare, None)):
                return bare, False
            if text in ("t", "old"):
                return bare, False
        return None

    # ------------------------------------------------------------------ functions

    def _declared_function(self, symbol: Symbol) -> str | None:
        below = symbol.below_text
        for base in self._spellings(symbol.name):
            for name in (f"{base}_{below}", f"{base}{below}") if below else (base,):
                if name in self.functions and name in {f.name for f in self.network.functions}:
                    return name
        return None

    def function(self, symbol: Symbol) -> str | None:
        """The function of that name."""
        if (declared := self._declared_function(symbol)) is not None:
            return declared
        name = symbol.name
        if name in SPELLED and name not in GENERIC:
            return SPELLED[name]
        if (
            name in self.functions
            or name in BUILT_IN
            or name in ("sech", "coth", "ln", "sgn", "identity", "id", "softmax", "pad")
        ):
            return name
        return None

    def arguments_of(self, name: str) -> tuple[int, int] | None:
        """How many arguments a function takes, fewest and most."""
        if name in self.functions and self.functions[name].parameters:
            f = self.functions[name]
            return len(f.parameters) - len(f.defaults), len(f.parameters)
        if name in BUILT_IN and BUILT_IN[name][0]:
            return BUILT_IN[name][0], BUILT_IN[name][0]
        return None

    def generic(self, symbol: Symbol, argument: Node, reading: Reading) -> str | None:
        """σ, f, g, φ: the activation that the network applies to the argument; σ is the sigmoid first of all."""
        abstract = any(f.body is None for f in self.network.functions)
        if symbol.name not in GENERIC or (abstract and symbol.name not in ("σ", "sigma")):
            return None  # the network's own functions have names
        own = self._activation_at(argument, symbol, reading)
        if symbol.name in ("σ", "sigma"):
            ways = ("sigmoid", "own") if own is not None and own != "sigmoid" else ("sigmoid",)
            notes = {"own": f"σ is read as the activation of its layer, {own}"}
            return "sigmoid" if reading.choose("sigma", ways, notes) == "sigmoid" else own
        return own

    def _activation_at(self, argument: Node, symbol: Symbol, reading: Reading) -> str | None:
        found: dict[str, str] = {}
        after: dict[str, str] = {}
        for equation in self.network.equations:
            if len(equation.terms) != 1 or equation.terms[0].over:
                continue
            body = equation.terms[0].body
            name = (
                body.name if isinstance(body, Call) else type(body).__name__.lower() if isinstance(body, sympy.Function) else None
            )
            if name is not None and (name in self.functions or name in BUILT_IN):
                inner = body.arguments[0] if isinstance(body, Call) else body.args[0]
                if isinstance(inner, Element):
                    found[inner.name] = after[equation.name] = name
        if isinstance(argument, (Item, Name)):
            if argument.name in found:
                return found[argument.name]
            if argument.name in after:
                return after[argument.name]
        number = self.layer_number(symbol.layer, reading)
        if number is not None and f"z{number}" in found:
            return found[f"z{number}"]
        kinds = set(found.values())
        return kinds.pop() if len(kinds) == 1 else None

    # ------------------------------------------------------------------ derivatives of one array by another

    @cached_property
    def with_gradient(self) -> Network:
        """The network with the derivatives of its loss as further equations: for second derivatives."""
        return gradient_network(self.network, [a for a in self.adjoints if a != self.network.loss])

    def jacobian(self, of: str, wrt: str) -> Jacobian:
        """∂of/∂wrt as an array of its own."""
        if (of, wrt) in self.jacobians:
            return self.jacobians[of, wrt]
        network = self.with_gradient if of in self.adjoints.values() else self.network
        back = vector_jacobian(network, of, wrt)
        seed = next(a.name for a in reversed(back.network.arrays) if a.role == "input")
        batch = network.batch
        shared = None
        if batch is not None and keeps_examples(network, of, wrt):
            shared = (self.axes[of].index(batch), self.axes[wrt].index(batch))
        outer = [i if shared is not None and k == shared[0] else i + "'" * 7 for k, i in enumerate(self.axes[of])]
        name = f"J{len(self.jacobians) + 1}_"
        while name in self.axes:
            name += "_"
        axes = (*outer, *(i for k, i in enumerate(self.axes[wrt]) if shared is None or k != shared[1]))
        terms = jacobian_terms(closed_form(back, wrt, limit=4000), seed, outer, {e.name for e in back.raw})
        equation = None if terms is None else Equation(Element(name, *map(index, axes)), terms)
        found = Jacobian(name, axes, shared, equation, back, seed)
        self.jacobians[of, wrt] = found
        self.axes[name] = axes
        return found

    def derivative(self, tree: Node, element: Item, node: Node, spoken: Spoken) -> Node:
        """The derivative of a tree with respect to one element, by the chain rule through the network."""
        if isinstance(tree, (Item, Name)) and tree.name in self.axes:
            return self._element_by(
                Item(tree.at, tree.name, tree.indices if isinstance(tree, Item) else ()), element, node, spoken
            )
        lowered, inner = self.lowered(tree, spoken)
        parts: list[Node] = []
        wanted = element.name
        by_name = {e.name: e for e in inner}

        def contributions(terms: tuple[Term, ...], factor: Expr, over: tuple[Any, ...]) -> None:
            for term in terms:
                for e in elements_of(term.body):
                    local = resolve(partial(term.body, e), self.functions)
                    if local == 0:
                        continue
                    if e.name in by_name:
                        rename = dict(zip(by_name[e.name].target.indices, e.indices, strict=True))
                        deeper = tuple(Term(cast(Expr, t.body.xreplace(dict(rename))), t.over) for t in by_name[e.name].terms)
                        contributions(deeper, factor * local, (*over, *term.over))
                        continue
                    own = self.variables.values()
                    if e.name in own or wanted in own:
                        if e.name != wanted:
                            continue
                        outer: Node = number(1, node)
                    else:
                        indices = tuple(_index_tree(i) for i in e.indices)
                        outer = self._element_by(Item(node.at, e.name, indices), element, node, spoken)
                    if isinstance(outer, Number) and outer.value == 0:
                        continue
                    body: Node = Binary(node.at, "*", tree_of(Writer().expression(factor * local)), outer, end=node.end)
                    letters = (*over, *term.over)
                    if letters:
                        body = Apply(node.at, "sum", (*(Name(node.at, i.name) for i in letters), body), end=node.end)
                    parts.append(body)

        contributions(lowered, sympy.S.One, ())
        if not parts:
            return number(0, node)
        result = parts[0]
        for part in parts[1:]:
            result = Binary(node.at, "+", result, part, end=node.end)
        return replace(result, at=node.at, end=node.end)

    def direct(self, tree: Node, element: Item, node: Node, spoken: Spoken) -> Node:
        """The derivative by the places at which an element stands in a formula itself, all else held fixed."""
        equation = next((e for e in self.network.equations if isinstance(tree, (Item, Name)) and e.name == tree.name), None)
        if equation is not None:
            indices = tree.indices if isinstance(tree, Item) else ()
            letters = {i.name: place for i, place in zip(equation.target.letters, indices, strict=True)}
            tree = put_indices(tree_of(Writer().terms(equation.terms)), letters)
        self._held = True
        try:
            if isinstance(tree, (Item, Name)):
                tree = Binary(node.at, "*", number(1, node), tree, end=node.end)
            return self.derivative(tree, element, node, spoken)
        finally:
            self._held = False

    _held = False  # whether arrays count as independent of one another

    def _element_by(self, of: Item, wrt: Item, node: Node, spoken: Spoken) -> Node:
        """∂of[…]/∂wrt[…]."""
        zero = number(0, node)
        if self._held:
            return _equal(zip(of.indices, wrt.indices, strict=True), node) if of.name == wrt.name else zero
        if of.name == wrt.name and not self._reaches(wrt.name, of.name):
            return _equal(zip(of.indices, wrt.indices, strict=True), node)
        if of.name in self.variables.values() or wrt.name in self.variables.values():
            return zero
        own = next((j for j in self.jacobians.values() if j.name == of.name), None)
        if own is not None:
            return self._jacobian_by(own, of, wrt, node, spoken)
        if of.name not in self._computed or not self._reaches(wrt.name, of.name):
            self.independent.append((of.name, wrt.name))
            return zero
        if of.name == self.network.loss and (adjoint := self.adjoint(wrt.name)) is not None:
            return Item(node.at, adjoint, wrt.indices, end=node.end) if wrt.indices else Name(node.at, adjoint, end=node.end)
        try:
            found = self.jacobian(of.name, wrt.name)
        except NetworkError as error:
            raise FormulaError(error.message, None) from None
        own = [i for k, i in enumerate(wrt.indices) if found.shared is None or k != found.shared[1]]
        places = (*of.indices, *own)
        tree: Node = Item(node.at, found.name, places, end=node.end) if places else Name(node.at, found.name, end=node.end)
        if found.shared is not None:
            one, other = of.indices[found.shared[0]], wrt.indices[found.shared[1]]
            same = _equal([(one, other)], node)
            if not isinstance(same, Number):
                tree = Binary(node.at, "*", tree, same, end=node.end)
        return tree

    def _jacobian_by(self, own: Jacobian, of: Item, wrt: Item, node: Node, spoken: Spoken) -> Node:
        """The derivative of a derivative: that of the equation that it stands for."""
        if own.equation is None:
            raise FormulaError("this second derivative cannot be formed", spoken.source.place(node.at))
        tree = tree_of(Writer().terms(own.equation.terms))
        letters = {i.name: place for i, place in zip(own.equation.target.letters, of.indices, strict=True)}
        return self.derivative(put_indices(tree, letters), wrt, node, spoken)

    @cached_property
    def _computed(self) -> set[str]:
        return {e.name for e in self.network.equations} | set(self.adjoints.values())

    def _reaches(self, source: str, target: str) -> bool:
        """Whether one array depends on another, or on earlier values of its own."""
        if target in self.adjoints.values():
            return source != target
        found: set[str] = set()
        before = -1
        while len(found) > before:
            before = len(found)
            for e in self.network.equations:
                if any(x.name in found or x.name == source for t in e.terms for x in t.body.atoms(Element)):
                    found.add(e.name)
        return target in found

    def lowered(self, tree: Node, spoken: Spoken) -> tuple[tuple[Term, ...], list[Equation]]:
        """A resolved tree as terms, and the equations of the sums within its functions."""
        sizes = Sizes({i.name: i.size for i in self.network.indices})
        for letter, size in spoken.sizes.items():
            stem = self.letter_for(size)
            if stem is not None and base_name(letter) != stem:
                sizes.unify(letter, stem)
        axes = {**self.axes, **dict.fromkeys(self.variables.values(), ()), "eta": ()}
        scope = Scope(axes, dict(self.functions), sizes, free=True, reserved=frozenset(self.axes))
        lowering = Lowering(spoken.source, scope)
        sizes_named = {*self.size_of.values(), "pi"}
        free = frozenset(n for n in letters_in(tree) if n not in axes and n not in sizes_named)
        terms = lowering.terms(_for_lowering(tree), free)
        return terms, list(scope.equations)


def _script(node: Node) -> str:
    """A subscript as part of a name."""
    match node:
        case Number(value=value):
            return str(value)
        case Symbol(name=name, primes=primes):
            return name + "'" * primes
        case _:
            return "\0"


def _plain(node: Node | None) -> str:
    match node:
        case Symbol(name=name, below=(), layer=None, raised=None):
            return name
        case Binary(operator=operator, left=Symbol(name=name), right=Number(value=value)):
            return f"{name}{operator}{value}"
        case _:
            return ""


def _for_lowering(node: Node) -> Node:
    """A resolved tree as formula text has it."""
    match node:
        case Apply(name=name, arguments=arguments):
            return replace(node, name="max" if name == "greatest" else name, arguments=tuple(map(_for_lowering, arguments)))
        case Negate(operand=operand):
            return replace(node, operand=_for_lowering(operand))
        case Binary(left=left, right=right):
            return replace(node, left=_for_lowering(left), right=_for_lowering(right))
        case _:
            return node


def _index_tree(expr: Expr) -> Node:
    return Name(-1, expr.name) if is_index(expr) else tree_of(Writer().index(expr))  # type: ignore[attr-defined]


def _equal(pairs: Any, node: Node) -> Node:
    """1 where all pairs of indices agree, 0 elsewhere."""
    tree: Node = number(1, node)
    for one, other in pairs:
        if one == other or (isinstance(one, Name) and isinstance(other, Name) and one.name == other.name):
            continue
        test = Binary(node.at, "==", one, other, end=node.end)
        same = indicator(test, node)
        tree = same if isinstance(tree, Number) else Binary(node.at, "*", tree, same, end=node.end)
    return tree
