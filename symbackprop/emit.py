"""A derivation to a standalone module: the equations are stabilised, planned and printed by a template."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import sympy
from sympy import Expr

from . import catalogue
from .buffered import Buffering
from .code_shapes import Helper
from .code_text import tuple_of, words_of
from .derive import FOLDED_TO, derive
from .errors import EmitError, suggest
from .functions import catalogue_functions
from .layer_dicts import quoted, say_layers_once
from .layered import blocks_once, entries_once, said_once
from .layout import steps_first
from .lengthen import lengthened, repeated_layers
from .loop_text import LoopWriter
from .loops import Loops
from .notation import (
    Array,
    Call,
    Derivation,
    Element,
    Equation,
    Fact,
    Function,
    Network,
    Term,
    base_name,
    data_indices,
    elements_of,
    size_symbol,
)
from .numpy_text import Names, NumpyWriter
from .plan import Planner, Statement
from .recipes import number_text, rules_of_training
from .recurrences import Recurrences
from .render import render
from .shares import is_mean_over_examples
from .stabilise import saturates, share, stabilise, stable_function
from .views import shapes_of
from .write import Style, Writer, style_of

TARGETS = ("numpy", "numba")
STYLES = ("fast", "plain")
_BLOCK = 32768
# Names that the emitted module itself uses.
_RESERVED = [
    "np",
    "math",
    "os",
    "sys",
    "json",
    "argparse",
    "time",
    "params",
    "X",
    "Y",
    "init",
    "forward",
    "loss",
    "predict",
    "fit",
    "score",
    "save",
    "load",
    "stored",
    "loss_and_gradients",
    "check_gradients",
    "Trainer",
    "SHAPES",
    "SIZES",
    "OPTIMIZERS",
    "SCHEDULES",
    "read_data",
    "main",
    "inputs",
    "targets",
    "dtype",
    "len",
    "float",
    "range",
    "dict",
    "list",
    "tuple",
    "int",
    "str",
    "print",
    "abs",
    "min",
    "max",
    "sum",
    "erf",
]


# Functions of the emitted module that come only where they are used.
_HELPERS = ("window", "take", "gather", "scatter", "greatest", "place_of_greatest", "part_of")
# Names that a compiled training pass uses besides.
_OF_LOOPS = ("numba", "njit", "weights", "gradient", "space", "whole", "real", "at", "total", "best", "value")


def emit(
    derivation: Derivation | Network | str | Path | Mapping[str, Any],
    target: str = "numpy",
    dtype: Literal["float64", "float32"] = "float64",
    sizes: Mapping[str, int] | None = None,
    style: Literal["fast", "plain"] = "fast",
) -> str:
    """The source text of a standalone module that trains the network.

    `derivation` is a `Derivation` or anything that `derive` takes; `sizes` gives numbers to index letters whose size is
    still symbolic; `dtype` is the module's default. The `plain` style writes each formula as one line and lets NumPy make new
    arrays; the `fast` one trains with buffers that are kept from step to step. With the target `numba` the training step is
    loops that Numba compiles (the module then needs `numba` and `scipy`); all else is NumPy. Raises `EmitError` where a
    function is abstract or a target unknown.
    """
    if target not in TARGETS:
        raise EmitError(f"there is no target '{target}'{suggest(target, TARGETS)}; known: {', '.join(TARGETS)}")
    if dtype not in ("float64", "float32"):
        raise EmitError(f"the dtype is float64 or float32, not '{dtype}'")
    if style not in STYLES:
        raise EmitError(f"the style is {' or '.join(STYLES)}, not '{style}'")
    if target == "numba" and style == "plain":
        raise EmitError("the plain style is NumPy's: for Numba leave it out")
    # Compiled passes have no loops over layers yet: nothing could be lengthened.
    if target == "numpy" and isinstance(derivation, str) and (chain := repeated_layers(derivation)) is not None:
        made = lengthened(chain, lambda text: emit(text, target, dtype, sizes, style))
        if made is not None:
            return made
    if not isinstance(derivation, Derivation):
        derivation = derive(derivation)
    return render("module.py", _Module(derivation, dtype, dict(sizes or {}), style, target).data())


class _Module:
    def __init__(
        self, derivation: Derivation, dtype: str, sizes: Mapping[str, int], style: str = "fast", target: str = "numpy"
    ) -> None:
        self.derivation = derivation
        self.compiled = target == "numba"
        self.fast = style == "fast" and not self.compiled
        self.network = derivation.network
        self.dtype = dtype
        self.arrays = {a.name: a for a in self.network.arrays}
        self.numbers = {i.size: sizes.get(i.name, i.number) for i in self.network.indices}
        known = {size_symbol(n): sympy.Integer(v) for n, v in self.numbers.items() if v is not None}
        self.formulas: dict[str, Expr] = {}
        for i in self.network.indices:
            if i.formula is not None and self.numbers[i.size] is None:
                value = cast(Expr, i.formula.xreplace(dict(known)))
                if value.is_Integer:
                    self.numbers[i.size] = int(value)
                else:
                    self.formulas[i.size] = value
        first = {v: n for n, v in reversed(self.numbers.items()) if v is not None}
        # of the sizes that are one number
        self._first_size = {n: n if v is None else first[v] for n, v in self.numbers.items()}
        own = {f.name: f for f in self.network.functions}
        self.functions: dict[str, Function] = {**{n: catalogue_functions()[n] for n in FOLDED_TO}, **own}
        for f in own.values():
            if f.body is None:
                raise EmitError(
                    f"'{f.name}' is abstract: give it a formula in [activation.{f.name}] to emit code, "
                    f'for example formula = "tanh(z)"'
                )
        if not derivation.wrt:
            raise EmitError(
                f"'{self.network.name}' has no parameters to train; say what to differentiate with respect to, "
                f'such as derive(…, wrt=["{self.network.arrays[0].name}"])'
            )
        self.trained = [a.name for a in self.network.arrays if a.role == "parameter" and a.name in derivation.wrt]
        names = [a.name for a in self.network.arrays]
        self.style = style_of(self.network, derivation.adjoints)
        everything = (*self.network.equations, *derivation.equations)
        stable = stabilise(everything, self.functions, [*names, *derivation.adjoints.values()])
        self.equations = share(self._needed(stable), names)
        self.names = Names([*_RESERVED, *(_OF_LOOPS if self.compiled else ())])
        for a in self.network.arrays:
            _ = self.names[a.name]
        shapes = shapes_of(self.network, self.equations)
        shapes = replace(shapes, indices=[replace(i, number=self.numbers[i.size]) for i in shapes.indices])
        self.planner = Recurrences(self.names, self._full_style(), style_of(self.network), shapes)

    def _full_style(self) -> Style:
        order = dict(self.style.order)
        last = 0
        for equation in self.equations:
            last = order.setdefault(equation.name, last)
        return replace(self.style, order=order, adjoints={})

    def _needed(self, equations: Sequence[Equation]) -> tuple[Equation, ...]:
        """The equations that the loss, the prediction or a gradient asks for."""
        wanted = {self.network.loss, *(self.derivation.adjoints[w] for w in self.derivation.wrt)}
        if self.network.prediction:
            wanted.add(self.network.prediction)
        wanted = _closure(wanted, equations)
        return tuple(e for e in equations if e.name in wanted)

    # ------------------------------------------------------------------ the parts of the module

    def data(self) -> dict[str, Any]:
        network, derivation = self.network, self.derivation
        forward, loss, backward = self._parts()
        names = {a.name for a in network.arrays if a.role == "parameter"}
        # What a later function reads of an earlier one.
        later_of_forward = {u for e in (*loss, *backward) for u in _used(e)}
        averaged = {name for name, _, _ in network.averages}
        kept_forward = [
            e.name for e in forward if e.name in later_of_forward or e.name == network.prediction or e.name in averaged
        ]
        kept_loss = [e.name for e in loss if e.name in {u for b in backward for u in _used(b)}]
        parts: dict[str, dict[str, Any]] = {
            "forward": self._part(forward, (), names),
            "loss": self._part(loss, kept_forward, names),
            "backward": self._part(backward, [*kept_forward, *kept_loss], names),
            "predict": self._part(self._at_rest(forward), (), names),
            "noise": {"sizes": self._size_lines([], (), self._noise_shapes())},
        }
        parts["train"] = self._train_part(parts, names) if self.fast else {"buffers": [], "statements": []}
        gradients = [(w, self.names[derivation.adjoints[w]]) for w in derivation.wrt]
        parts["forward"]["returned"] = [(self.names[n], self.names[n]) for n in kept_forward]
        parts["loss"]["returned"] = [(self.names[n], self.names[n]) for n in kept_loss]
        parts["backward"]["returned"] = gradients
        parts["train"]["taken"] = [(w, g) for w, g in gradients if w in self.trained]
        taken = (*_RESERVED, *self.names.all())
        same = {self.names[n]: self.names[self._first_size[n]] for n in self.numbers}
        named = {self.names[n]: v for n, v in self.numbers.items()}
        data = [self.names[a.name] for a in network.arrays if a.role in ("input", "noise", "target")]
        for part in ("forward", "loss", "backward", "predict", *(("train",) if self.fast else ())):
            say_layers_once(parts[part], taken, same, named, data)
        loops = self._loops() if self.compiled else None
        parameters = [
            *(self._parameter(a) for a in network.arrays if a.role == "parameter"),
            *(self._average(n, start) for n, _, start in network.averages),
        ]
        writer, forward_writer = Writer(self.style), Writer(style_of(network))
        helpers = self._helpers
        spelled_out = any(saturates(t.body) for e in self.equations for t in e.terms)
        defaults = network.training
        optimizer = str(defaults.get("optimizer", "momentum"))
        if optimizer not in catalogue.OPTIMISERS:
            raise EmitError(f"unknown optimiser '{optimizer}'{suggest(optimizer, catalogue.OPTIMISERS)}")
        schedule = str(defaults.get("schedule", "inverse_time"))
        if schedule not in catalogue.SCHEDULES:
            raise EmitError(f"unknown schedule '{schedule}'{suggest(schedule, catalogue.SCHEDULES)}")
        return {
            "title": _plain(network.name),
            "network": _plain(network.text),
            "equations": said_once([_plain(forward_writer.equation(e)) for e in network.equations]),
            "derivatives": said_once([_plain(writer.equation(e)) for e in derivation.equations]),
            "sums": self._sums_of_targets(),
            "facts": [self._fact(f) for f in network.facts if self._is_about_data(f)],
            "assumed": [_plain(self._fact_text(f)) for f in network.facts],
            "dtype": self.dtype,
            "sizes": entries_once([(quoted(n), str(v)) for n, v in self.numbers.items() if n not in self.formulas]),
            "derived": self._derived(),
            "places": self._places(),
            "stops": any(c.name == "stop" for e in network.equations for t in e.terms for c in t.body.atoms(Call)),
            "noise": [self._noise(a) for a in network.arrays if a.role == "noise"],
            "averages": [
                {"key": _average(n), "name": self.names[n], "share": share, "shape": self._shape(n)}
                for n, share, _ in network.averages
            ],
            "constants": [(self.names[n], number_text(v), n) for n, v in network.constants],
            "parameters": entries_once([(quoted(p["key"]), tuple_of(map(quoted, p["shape"]))) for p in parameters]),
            "starts": blocks_once([_start(p) for p in parameters]),
            "inputs": [self._data_array(a) for a in network.arrays if a.role == "input"],
            "targets": [self._data_array(a) for a in network.arrays if a.role == "target"],
            "labels": network.labels,
            "logits": self._is_logits(),
            "helpers": helpers,
            "spelled_out": spelled_out,
            "saturates": spelled_out or any(h["saturates"] for h in helpers),
            "uses_erf": any(e.has(sympy.erf) for e in self._bodies()),
            "uses": {name: any(f"{name}(" in line for line in self._lines(parts)) for name in _HELPERS},
            "parts": parts,
            "block": _BLOCK,
            "fast": self.fast,
            "shared": self.compiled and is_mean_over_examples(network),
            "loops": loops,
            "kept_loss": [self.names[n] for n in kept_loss],
            "loss": self.names[network.loss],
            "prediction": self.names[network.prediction] if network.prediction else None,
            **rules_of_training("compiled" if self.compiled else "fast" if self.fast else "plain"),
            "partial": {*derivation.wrt} != names,
            "defaults": {
                "epochs": int(defaults.get("epochs", 100)),
                "batch_size": int(defaults.get("batch_size", 32)),
                "optimizer": optimizer,
                "learning_rate": defaults.get("learning_rate"),
                "schedule": schedule,
            },
        }

    def _bodies(self) -> list[Expr]:
        own = [t.body for e in self.equations for t in e.terms]
        return own + [f.body for f in self._used_functions if f.body is not None]

    def _parts(self) -> tuple[list[Equation], list[Equation], list[Equation]]:
        """The equations of the prediction, of the loss besides, and the rest, which only gradients need."""
        prediction = self._ancestors(self.network.prediction) if self.network.prediction else set[str]()
        prediction -= {self.network.loss}
        loss = self._ancestors(self.network.loss) - prediction
        return (
            [e for e in self.equations if e.name in prediction],
            [e for e in self.equations if e.name in loss],
            [e for e in self.equations if e.name not in prediction | loss],
        )

    def _ancestors(self, name: str) -> set[str]:
        return _closure({name}, self.equations)

    def _part(self, equations: Sequence[Equation], available: Iterable[str], parameters: set[str]) -> dict[str, Any]:
        own = {e.name for e in equations}
        outside = {u for e in self.equations if e.name not in own for u in _used(e)}
        outside |= {self.derivation.adjoints[w] for w in self.derivation.wrt} | {self.network.prediction or self.network.loss}
        statements = self.planner.statements(equations, outside)
        return self._part_of([self._like_parameter(s) for s in statements], equations, available, parameters)

    def _part_of(
        self, statements: list[Statement], equations: Sequence[Equation], available: Iterable[str], parameters: set[str]
    ) -> dict[str, Any]:
        used, made = {u for e in equations for u in _used(e)}, {e.name for e in equations}
        return {
            "statements": statements,
            "parameters": [
                *((self.names[n], n) for n in self.arrays if n in parameters and n in used),
                *(
                    (self.names[n], _average(n))
                    for n, _, _ in self.network.averages
                    if n in used and n not in made | set(available)
                ),
            ],
            "stored": [self.names[n] for n in dict.fromkeys(available) if n in used],
            "inputs": [self.names[a.name] for a in self.network.arrays if a.role == "input" and a.name in used],
            "targets": [self.names[a.name] for a in self.network.arrays if a.role == "target" and a.name in used],
            "sizes": self._size_lines(statements, equations),
        }

    def _train_part(self, parts: Mapping[str, Mapping[str, Any]], parameters: set[str]) -> dict[str, Any]:
        """One pass for training: all statements in order, each writing into a buffer that is kept."""
        statements, axes = self._statements_of_training(parts)
        shapes: dict[str, tuple[str, ...]] = {self.names[a.name]: tuple(self._shape(a.name)) for a in self.network.arrays}
        shapes |= {self.names[n]: tuple(self._size_of(base_name(i)) for i in own) for n, own in axes.items()}
        shapes |= {self.names[i.size]: () for i in self.network.indices}
        shapes |= {self.names[n]: () for n, _ in self.network.constants}
        gradients = {self.names[self.derivation.adjoints[w]] for w in self.trained}
        helpers = {
            h["name"]: Helper(
                tuple(a.partition("=")[0] for a in h["arguments"].split(", ")),
                tuple((line.partition(" = ")[0], line.partition(" = ")[2]) for line in h["lines"]),
                h["value"],
                {a.partition("=")[0]: a.partition("=")[2] for a in h["arguments"].split(", ") if "=" in a},
            )
            for h in self._helpers
        }
        sizes = {i.size: self.names[i.size] for i in self.network.indices}
        kept = [self.names[n] for n, _, _ in self.network.averages]
        buffering = Buffering(shapes, gradients, helpers, sizes, self._first_size, self.numbers, "_dtype(params)")
        rewritten = buffering.rewrite(statements, kept)
        part = self._part_of(rewritten, self.equations, (), parameters)
        part["buffers"] = buffering.buffers
        return part

    def _statements_of_training(
        self, parts: Mapping[str, Mapping[str, Any]]
    ) -> tuple[list[Statement], Mapping[str, tuple[str, ...]]]:
        """All statements of a pass in order, and the axes of the arrays: those that loops fill lie step by step."""
        kept = {n for n, _, _ in self.network.averages}
        kept |= {self.network.loss, *(self.derivation.adjoints[w] for w in self.derivation.wrt)}
        equations = steps_first(self.equations, kept)
        if equations == self.equations:
            own = [cast("list[Statement]", parts[part]["statements"]) for part in ("forward", "loss", "backward")]
            return [s for statements in own for s in statements], self.planner.shapes.axes
        shapes = replace(self.planner.shapes, axes=shapes_of(self.network, equations).axes)
        planner = Recurrences(self.names, self.planner.style, style_of(self.network), shapes)
        return [self._like_parameter(s) for s in planner.statements(equations, kept)], planner.shapes.axes

    def _loops(self) -> dict[str, Any]:
        """One pass for training as loops for a compiler."""
        weights = [a.name for a in self.network.arrays if a.role == "parameter"]
        gradients = [self.derivation.adjoints[w] for w in self.trained]
        averages = [n for n, _, _ in self.network.averages]
        wanted = _closure({self.network.loss, *gradients, *averages}, self.equations)
        equations = [e for e in self.equations if e.name in wanted]
        whole = data_indices(equations) | {e.name for e in equations if e.terms and e.terms[0].reduce == "argmax"}
        data = [a for a in self.network.arrays if a.role in ("input", "noise", "target")]
        scalars = {n: f"{self.names[n]}[0]" for n in (*weights, *gradients)}
        scalars |= {a.name: f"{self.names[a.name]}[()]" for a in data}
        scalars |= {n: f"real({self.names[n]})" for n, _ in self.network.constants}
        planner = self.planner
        writer = LoopWriter(self.names, planner.style, planner.shapes, self.functions, whole, scalars)
        given = {a.name for a in data} | set(weights) | set(gradients)
        taken = {*self.arrays, *(e.name for e in self.equations)}
        program = Loops(writer, planner.formula, self.numbers, given, taken).program(equations, averages)
        words = set(words_of(" ".join(program.lines))) | {s for _, shape, _ in program.arrays for s in shape}
        words |= {self.names[s] for w in weights for s in self._shape(w)}
        used = [i.size for i in self.network.indices if self.names[i.size] in words]
        known = [(self.names[s], self.numbers[s]) for s in dict.fromkeys(used) if self.numbers[s] is not None]
        unknown = [s for s in dict.fromkeys(used) if self.numbers[s] is None]
        # A size that no array of the data has is read off the weights once.
        basic = {x.name for s in unknown if s in self.formulas for x in self.formulas[s].free_symbols} | set(unknown)
        loose = sorted(s for s in basic - set(self.formulas) if self._axis_of(s, [a.role for a in data]) is None)
        places = {s: cast("tuple[str, int]", self._axis_of(s, ("parameter",))) for s in loose if self.numbers[s] is None}
        own = [self.names[a.name] for a in data]
        return {
            "known": known,
            "given": ", ".join([*own, *(self.names[s] for s in places)]),
            "arguments": ", ".join([*own, *(self.names[s] for s in unknown)]),
            "of_weights": [f"self.params[{quoted(name)}].shape[{axis}]" for name, axis in places.values()],
            "sizes": self._size_lines([], equations, [*unknown, *places]),
            "weights": [(self.names[w], [self.names[s] for s in self._shape(w)]) for w in weights],
            "gradients": [
                self.names[self.derivation.adjoints[w]] if w in self.trained else self.names.local(f"no_d{w}") for w in weights
            ],
            "arrays": [(n, shape, room) for n, shape, room in program.arrays],
            "rooms": list(program.rooms.items()),
            "shapes": program.rooms,
            "whole": program.whole,
            "lines": program.lines,
            "parts": program.parts,
        }

    def _like_parameter(self, statement: Statement) -> Statement:
        """A derivative that is zero has the shape of its parameter."""
        if not statement.formula.endswith("= 0"):
            return statement
        array = {self.names[v]: k for k, v in self.derivation.adjoints.items()}.get(statement.name)
        if array is None:
            return statement
        return replace(statement, lines=(f"{statement.name} = np.zeros_like(params[{array!r}])",))

    def _size_lines(self, statements: Sequence[Statement], equations: Sequence[Equation], asked: Iterable[str] = ()) -> list[str]:
        """Where the sizes that the statements mention come from; those that are `asked` for, from the data where it has them."""
        lines: dict[str, str] = {}
        words = set(words_of(" ".join(line for s in statements for line in s.lines)))
        used, made = {u for e in equations for u in _used(e)}, {e.name for e in equations}

        def say(size: str) -> None:
            if size in lines:
                return
            if self.numbers[size] is not None:
                lines[size] = f"{self.names[size]} = {self.numbers[size]}"
            elif size in self.formulas:
                for s in self.formulas[size].free_symbols:
                    say(s.name)
                lines[size] = f"{self.names[size]} = {NumpyWriter(self.names, self.style).symbols(self.formulas[size])}"
            else:
                lines[size] = "" if size in asked else f"{self.names[size]} = {self._holding(size, used, made)}"
                if size in asked and (place := self._axis_of(size, ("input", "noise", "target"))) is not None:
                    lines[size] = f"{self.names[size]} = {self.names[place[0]]}.shape[{place[1]}]"

        for i in self.network.indices:
            if self.names[i.size] in words or i.size in asked:
                say(i.size)
        return [line for line in lines.values() if line]

    def _axis_of(self, size: str, roles: Sequence[str]) -> tuple[str, int] | None:
        """The first array with one of these roles that has an axis of this size, and which axis that is."""
        own = [a for a in self.network.arrays if a.role in roles]
        return next(((a.name, k) for a in own for k, x in enumerate(a.axes) if self._size_of(x) == size), None)

    def _holding(self, size: str, used: set[str], made: set[str]) -> str:
        """An array that has an axis of this size, and the place of that axis in its shape."""
        holding = [a for a in self.network.arrays if any(self._size_of(x) == size for x in a.axes)]
        # Inputs are arguments of every part; what is computed in this part has no shape yet where it begins.
        holding = [a for a in holding if a.role in ("input", "parameter") or (a.name in used and a.name not in made)]
        if not holding:
            raise EmitError(f"the size '{size}' is not known: give it in [sizes]")
        source = min(holding, key=lambda a: (a.name not in used, a.role != "input"))
        axis = next(k for k, x in enumerate(source.axes) if self._size_of(x) == size)
        name = self.names[source.name]
        if source.name not in used and source.role == "parameter":
            name = f"params[{source.name!r}]"
        return f"{name}.shape[{axis}]"

    @staticmethod
    def _lines(parts: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
        return (line for p in parts.values() for s in cast("list[Statement]", p.get("statements", [])) for line in s.lines)

    def _derived(self) -> list[tuple[str, str, list[str]]]:
        """Sizes that follow from others, in the order in which they can be computed: name, formula, what it needs."""
        order: list[str] = []
        while len(order) < len(self.formulas):
            for size, formula in self.formulas.items():
                if size not in order and not {s.name for s in formula.free_symbols} & (set(self.formulas) - set(order)):
                    order.append(size)
        plain = {s.name: Element(f"size[{s.name!r}]") for f in self.formulas.values() for s in f.free_symbols}
        writer = NumpyWriter(Names(given={e.name: e.name.replace("'", '"') for e in plain.values()}), Style())
        swap = {size_symbol(n): e for n, e in plain.items()}
        return [
            (
                size,
                writer.symbols(cast(Expr, self.formulas[size].xreplace(dict(swap)))),
                sorted(s.name for s in self.formulas[size].free_symbols),
            )
            for size in order
        ]

    def _places(self) -> list[tuple[str, str | None]]:
        """The arrays of the data that hold whole numbers, and the size that these must stay below."""
        whole = data_indices(self.network.equations)
        axes = {a.name: a.axes for a in self.network.arrays}
        found: dict[str, str | None] = {
            a.name: None for a in self.network.arrays if a.role in ("input", "target") and a.name in whole
        }
        for equation in self.network.equations:
            for e in (e for t in equation.terms for e in t.body.atoms(Element)):
                for i, axis in zip(e.indices, axes[e.name], strict=True):
                    if isinstance(i, Element) and i.name in found:
                        found[i.name] = self._size_of(axis)
        return list(found.items())

    def _noise_shapes(self) -> set[str]:
        return {self._size_of(x) for a in self.network.arrays if a.role == "noise" for x in a.axes}

    def _noise(self, array: Array) -> dict[str, Any]:
        draw = dict(self.network.draws)[array.name]
        axes = self._data_array(array)["shape"]
        shape = ", ".join(self.names[self._size_of(a)] for a in array.axes) + ("," if len(array.axes) == 1 else "")
        return {"key": array.name, "name": self.names[array.name], "shape": f"({shape})", "axes": axes, "rest": draw.rest} | (
            {"distribution": draw.distribution, "keep": draw.keep}
        )

    def _shape(self, name: str) -> list[str]:
        return [self._size_of(a) for a in self.arrays[name].axes]

    def _average(self, name: str, start: float) -> dict[str, Any]:
        """The running average of an array, kept among the parameters."""
        return {"key": _average(name), "shape": self._shape(name), "distribution": "constant", "scale": f"{start:g}", "fans": []}

    def _at_rest(self, forward: Sequence[Equation]) -> list[Equation]:
        """What a prediction computes: running averages stand in for what is computed from a batch."""
        if not self.network.averages or not self.network.prediction:
            return []
        averaged = {name for name, _, _ in self.network.averages}
        rest = [e for e in forward if e.name not in averaged]
        wanted = _closure({self.network.prediction}, rest)
        return [e for e in rest if e.name in wanted]

    def _size_of(self, axis: str) -> str:
        return self.style.sizes[axis]

    def _parameter(self, array: Array) -> dict[str, Any]:
        start = dict(self.network.starts).get(array.name)
        shape = [self._size_of(a) for a in array.axes]
        product = {
            name: " * ".join(f'size["{self._size_of(a)}"]' for a in axes) or "1"
            for name, axes in (("fan_in", start.fan_in if start else ()), ("fan_out", start.fan_out if start else ()))
        }
        scale = start.scale if start else "0" if array.axes else "0.1"
        return {
            "key": array.name,
            "shape": shape,
            "distribution": start.distribution if start else "constant" if array.axes else "normal",
            # The catalogue's formula is Python as it stands, but for the name of the root.
            "scale": scale.replace("sqrt(", "math.sqrt(").replace("/", " / "),
            "fans": [(name, code) for name, code in product.items() if name in scale],
        }

    def _data_array(self, array: Array) -> dict[str, Any]:
        return {
            "key": array.name,
            "name": self.names[array.name],
            "shape": [None if a == self.network.batch else self._size_of(a) for a in array.axes],
        }

    def _is_logits(self) -> bool:
        aliases = dict(self.network.aliases)
        return "p" in self.arrays and "p" not in aliases

    # ------------------------------------------------------------------ functions, facts, optimisers

    @functools.cached_property
    def _used_functions(self) -> list[Function]:
        used: set[str] = set()
        todo = [c.name for e in self.equations for t in e.terms for c in t.body.atoms(Call)]
        while todo:
            name = todo.pop()
            if name not in used:
                used.add(name)
                body = self.functions[name].body
                todo += [c.name for c in cast(Expr, body).atoms(Call)]
        return [f for n, f in self.functions.items() if n in used]

    @functools.cached_property
    def _helpers(self) -> list[dict[str, Any]]:
        helpers: list[dict[str, Any]] = []
        for function in self._used_functions:
            body = cast(Expr, stable_function(function).body)
            lines = share((Equation(Element("value"), (Term(body),)),), function.parameters)
            names = Names(("np", "erf", *(self.names[f] for f in self.functions)))
            given = {f: self.names[f] for f in self.functions} | {p: names[p] for p in function.parameters}
            own = Names(given=given)
            planner = Planner(own, Style())
            statements = [planner.statement(e) for e in lines]
            defaults = [""] * (len(function.parameters) - len(function.defaults)) + [
                f"={number_text(d)}" for d in function.defaults
            ]
            helpers.append(
                {
                    "name": self.names[function.name],
                    "arguments": ", ".join(names[p] + d for p, d in zip(function.parameters, defaults, strict=True)),
                    "formula": _plain(
                        f"{function.name}({', '.join(function.parameters)}) = {Writer().expression(cast(Expr, function.body))}"
                    ),
                    "saturates": saturates(body),
                    "lines": [f"{s.name} = {s.code}" for s in statements[:-1]],
                    "value": statements[-1].code,
                }
            )
        return helpers

    def _is_about_data(self, fact: Fact) -> bool:
        return all(self.arrays[e.name].role in ("input", "target") for e in fact.term.body.atoms(Element))

    def _sums_of_targets(self) -> list[tuple[str, int, str]]:
        """Facts of the form "this target sums to a number over an axis", which random data can be made to satisfy."""
        found: list[tuple[str, int, str]] = []
        for f in self.network.facts:
            body = f.term.body
            if isinstance(body, Element) and len(f.term.over) == 1 and f.value.is_number and self.network.labels != "one-hot":
                found.append((body.name, body.indices.index(f.term.over[0]), number_text(f.value)))
        return found

    def _fact_text(self, fact: Fact) -> str:
        return f"{Writer(self.style).term(fact.term)[0]} = {Writer(self.style).expression(fact.value)}"

    def _fact(self, fact: Fact) -> dict[str, Any]:
        over = set(fact.term.over)
        free = [i for e in fact.term.body.atoms(Element) for i in e.indices if i not in over]
        left = Element("left", *dict.fromkeys(free))
        writer = NumpyWriter(self.names, self.style, left.letters)
        return {
            "left": self.planner.statement(Equation(left, (fact.term,))).code,
            "right": writer.expression(fact.value),
            "text": _plain(self._fact_text(fact)),
            "arrays": [self.names[a] for a in self.arrays if a in {e.name for e in fact.term.body.atoms(Element)}],
        }


def _used(equation: Equation) -> set[str]:
    return {e.name for t in equation.terms for e in elements_of(t.body)}


def _start(parameter: Mapping[str, Any]) -> list[str]:
    """The lines that make a fresh parameter."""
    place = f"params[{quoted(parameter['key'])}]"
    lines = [f"shape = {tuple_of(f'size[{quoted(s)}]' for s in parameter['shape'])}"]
    lines += [f"{name} = {code}" for name, code in parameter["fans"]]
    if parameter["distribution"] == "constant":
        return [*lines, f"{place} = np.full(shape, {parameter['scale']}, dtype)"]
    drawn = (
        "rng.uniform(-scale, scale, shape)" if parameter["distribution"] == "uniform" else "scale * rng.standard_normal(shape)"
    )
    return [*lines, f"scale = {parameter['scale']}", f"{place} = np.asarray({drawn}, dtype)"]


def _average(name: str) -> str:
    """The name of a running average among the parameters."""
    return f"average_{name}"


def _closure(wanted: set[str], equations: Sequence[Equation]) -> set[str]:
    """The arrays and all that they are computed from."""
    found, before = set(wanted), -1
    while len(found) > before:  # once more for every recurrence
        before = len(found)
        for equation in reversed(equations):
            if equation.name in found:
                found |= _used(equation)
    return found


def _plain(text: str) -> str:
    """Text that can stand in a docstring or a comment whatever it holds."""
    return text.replace("\\", "/").replace('"""', "'''").replace("\n", " ").replace("\r", " ")
