"""The values of formula trees at all their indices at once, in floating point or in as many digits as wanted.

`evaluate` computes one element after the other and is the oracle; this is for those who ask hundreds of times. Arrays are
NumPy's: of float64, or of mpmath's numbers (`dtype=object`). A tree is what `parse` reads from formula text; each letter has
an axis of its own, so that products broadcast. An element beyond its array is zero and no place of a maximum.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, cast

import mpmath
import numpy as np

from .differentiate import derivative_of, functions_key
from .errors import Source, SymbackpropError
from .lower import BUILT_IN
from .notation import Call, Element, Equation, Function, base_name, direction, groups_of, is_recurrence, within_step
from .parse import Apply, Binary, Item, Name, Negate, Node, Number, parse_expression
from .trees import names_in
from .write import Writer

Tables = dict[str, np.ndarray]


def _mp(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of mpmath on arrays; what is no real number is NaN, as in floating point."""
    return np.frompyfunc(lambda u: _real(function, u), 1, 1)


def _real(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        value = function(*arguments)
    except (ZeroDivisionError, ValueError):
        return mpmath.nan
    return mpmath.nan if isinstance(value, mpmath.mpc) else value


def _quotient(a: Any, b: Any) -> Any:
    return a / b


_divide = np.frompyfunc(lambda a, b: _real(_quotient, a, b), 2, 1)
_power = np.frompyfunc(lambda a, b: _real(pow, a, b), 2, 1)


_EXACT: Mapping[str, Callable[..., Any]] = {
    name: _mp(getattr(mpmath, name))
    for name in ("exp", "log", "sqrt", "tanh", "sinh", "cosh", "sin", "cos", "erf", "floor", "sign")
} | {"abs": np.abs}
_erf = np.vectorize(math.erf, otypes=[float])
_FLOAT: Mapping[str, Callable[..., Any]] = {
    name: getattr(np, name) for name in ("exp", "log", "sqrt", "tanh", "sinh", "cosh", "sin", "cos", "floor", "sign", "abs")
} | {"erf": _erf}
_TESTS: Mapping[str, Callable[[Any, Any], Any]] = {
    ">": np.greater,
    "<": np.less,
    ">=": np.greater_equal,
    "<=": np.less_equal,
    "==": np.equal,
    "!=": np.not_equal,
}


@functools.lru_cache(maxsize=16384)
def tree_of(text: str) -> Node:
    """The tree of formula text that was printed here."""
    return parse_expression(Source("<formula>", text))


@functools.lru_cache(maxsize=16384)
def equation_tree(equation: Equation) -> Node:
    """The right side of an equation as a tree."""
    return tree_of(Writer().terms(equation.terms))


@functools.lru_cache(maxsize=1024)
def _function_tree(function: Function, order: int, functions: tuple[Function, ...]) -> Node:
    orders = (order, *(0 for _ in function.parameters[1:]))
    return tree_of(Writer().expression(derivative_of(function, orders, functions)))


class Trace:
    """What was compared while trees were evaluated: for each place of a formula, by how much one side was above the other.

    A place is the name of what was computed and the number of the comparison in it; the steps of a recurrence lie in a row.
    """

    def __init__(self) -> None:
        self.sites: dict[tuple[str, int], list[np.ndarray]] = {}
        self.words: dict[tuple[str, int], str] = {}
        self._label, self._count = "", 0

    def begin(self, label: str) -> None:
        """What is compared from here on belongs to this array or side."""
        self._label, self._count = label, 0

    def add(self, margin: Any, words: str) -> None:
        """One comparison, by how much its left side is above the right one."""
        site = self._label, self._count
        self._count += 1
        self.words[site] = words
        self.sites.setdefault(site, []).append(np.asarray(margin, dtype=float).ravel())


class Table:
    """Arrays by name, and how far letters run; `exact` numbers are mpmath's, at its precision when they are computed.

    A `trace` notes what is compared; where both sides are equal, `tie` says how the comparison ends (None: as it is written).
    """

    trace: Trace | None = None
    tie: bool | None = None
    edge: Any = False  # at which places of the last value a moved index, as in h[t-1], left its array outside of any sum

    def __init__(
        self,
        values: Mapping[str, np.ndarray],
        sizes: Mapping[str, int],
        size_names: Mapping[str, str],
        functions: Mapping[str, Function],
        exact: bool = True,
    ) -> None:
        self.values: Tables = dict(values)
        self.sizes = dict(sizes)
        self.size_names = size_names  # the name of each letter's size: N for n
        self.functions = functions
        self.exact = exact
        self.size_values = {name: sizes[i] for i, name in size_names.items() if i in sizes}  # the sizes by their own names

    def floating(self) -> Table:
        """The same table in float64."""
        plain = {k: v.astype(float) for k, v in self.values.items()}
        return Table(plain, self.sizes, self.size_names, self.functions, exact=False)

    # ------------------------------------------------------------------ equations

    def compute(self, equations: Iterable[Equation]) -> None:
        """Add the values of equations, in their order; those that are there already are not computed again."""
        todo = [e for e in equations if e.name not in self.values]
        for group in groups_of(todo):
            if not is_recurrence(group):
                self._compute(group[0])
                continue
            letter, way = direction(group)
            order = within_step(group, letter)
            for e in group:
                self.values[e.name] = self._zeros(e)
            for step in range(self.sizes[base_name(letter.name)])[::way]:
                for e in order:
                    self._compute(e, {letter.name: step})

    def _zeros(self, equation: Equation) -> np.ndarray:
        shape = tuple(self.sizes[base_name(i.name)] for i in equation.target.letters)
        return np.full(shape, mpmath.mpf(0), dtype=object) if self.exact else np.zeros(shape)

    def _compute(self, equation: Equation, fixed: Mapping[str, int] | None = None) -> None:
        letters = tuple(i.name for i in equation.target.letters)
        if self.trace is not None:
            self.trace.begin(equation.name)
        value = self.value(equation_tree(equation), letters, fixed)
        if not fixed:
            shape = tuple(self.sizes[base_name(i)] for i in letters)
            self.values[equation.name] = np.broadcast_to(value, shape).copy() if shape else np.asarray(value)
            return
        at = tuple(fixed[i] if i in fixed else slice(None) for i in letters)
        axes = tuple(k for k, i in enumerate(letters) if i in fixed)
        self.values[equation.name][at] = np.squeeze(value, axis=axes)[()] if np.ndim(value) else value[()]

    # ------------------------------------------------------------------ trees

    def value(self, node: Node, free: Sequence[str], fixed: Mapping[str, int] | None = None) -> np.ndarray:
        """The values of a tree with an axis for each free letter, of length 1 where it does not depend on it."""
        letters = [*free, *(i for i in _bound(node, self.values) if i not in free)]
        shape = [1] * len(letters)
        places: dict[str, np.ndarray] = {}
        for k, i in enumerate(letters):
            own = [fixed[i]] if fixed and i in fixed else range(self._size(i))
            places[i] = np.array(own).reshape([len(own) if j == k else 1 for j in range(len(letters))])
        walk = _Walk(self, letters, places)
        found = np.asarray(walk.value(node))
        self.edge = np.asarray(walk.edge)
        if self.edge.ndim == len(letters):
            self.edge = self.edge.reshape(self.edge.shape[: len(free)])
        found = found.reshape(found.shape or shape)
        return found.reshape(found.shape[: len(free)])

    def _size(self, letter: str) -> int:
        if base_name(letter) not in self.sizes:
            raise SymbackpropError(f"the size of the index '{letter}' is not given")
        return self.sizes[base_name(letter)]

    def number(self, value: Any) -> Any:
        """A fraction as a number of this table."""
        return mpmath.mpf(value.numerator) / value.denominator if self.exact else value.numerator / value.denominator


def _bound(node: Node, arrays: Collection[str]) -> list[str]:
    """The letters that reductions within a tree run over."""
    found: dict[str, None] = {}
    todo = [node]
    while todo:
        current = todo.pop()
        match current:
            case Apply(arguments=arguments):
                if is_reduction(current, arrays):
                    found |= dict.fromkeys(a.name for a in arguments[:-1] if isinstance(a, Name))
                todo += arguments
            case Negate(operand=operand):
                todo.append(operand)
            case Binary(left=left, right=right):
                todo += (left, right)
            case Item(indices=indices):
                todo += indices
            case _:
                pass
    return list(found)


def is_reduction(node: Node, arrays: Collection[str]) -> bool:
    """Whether a resolved tree is a sum, a mean, … over letters; `max(a, b)` of two scalar arrays is none."""
    if not isinstance(node, Apply) or len(node.arguments) < 2:
        return False
    return node.name in ("sum", "mean", "greatest", "argmax", "prod") or (
        node.name == "max" and all(isinstance(a, Name) and a.name not in arrays for a in node.arguments[:-1])
    )


class _Walk:
    def __init__(self, table: Table, letters: Sequence[str], places: Mapping[str, np.ndarray]) -> None:
        self.table, self.letters, self.places = table, letters, places
        self.functions = _EXACT if table.exact else _FLOAT
        self.inside = False  # whether this is the formula of a function, whose names are values
        self.beyond: Any = False
        self.edge: Any = False  # where a moved index left its array, outside of any reduction

    def value(self, node: Node) -> Any:
        table = self.table
        match node:
            case Number(value=value):
                return table.number(value)
            case Name(name=name):
                return self._name(name)
            case Item(name=name, indices=indices):
                return self._element(name, indices)
            case Negate(operand=operand):
                return -self.value(operand)
            case Binary(operator=operator, left=left, right=right):
                if operator in _TESTS:
                    data = self.inside or self.table.values.keys() & (names_in(left) | names_in(right))
                    return self._compared(operator, self.value(left), self.value(right), bool(data))
                return self._binary(operator, self.value(left), self.value(right))
            case Apply():
                return self._apply(node)
            case _:
                raise SymbackpropError("this is not a number")

    def _name(self, name: str) -> Any:
        if name in self.places:
            places = self.places[name]
            return places.astype(object) * mpmath.mpf(1) if self.table.exact else places.astype(float)
        if name in self.table.values:
            return self.table.values[name][()]
        if name in self.table.size_values:
            size = self.table.size_values[name]
            return mpmath.mpf(size) if self.table.exact else float(size)
        if name == "pi":
            return +mpmath.pi if self.table.exact else math.pi
        raise SymbackpropError(f"'{name}' has no value")

    def _element(self, name: str, indices: Sequence[Node]) -> Any:
        if name not in self.table.values:
            raise SymbackpropError(f"'{name}' has no value")
        array = self.table.values[name]
        places = [self._place(i) for i in indices]
        inside: Any = True
        for k, (place, size) in enumerate(zip(places, array.shape, strict=True)):
            if place.min(initial=0) < 0 or place.max(initial=0) >= size:
                inside = inside & ((place >= 0) & (place < size))
                places[k] = np.clip(place, 0, size - 1)
        found = array[tuple(places)]
        if inside is True:
            return found
        self.beyond = self.beyond | ~inside
        if any(not isinstance(i, Name) for i in indices):
            self.edge = self.edge | ~inside
        return np.where(inside, found, self.table.number(0))

    def _place(self, node: Node) -> np.ndarray:
        """Indices as whole numbers, -1 where they are none."""
        if isinstance(node, Name) and node.name in self.places:
            return self.places[node.name]
        value = np.asarray(self.value(node))
        plain = np.asarray(value, dtype=float)
        whole = np.rint(plain)
        return np.where(np.abs(plain - whole) < 1e-9, whole, -1).astype(int)

    def _binary(self, operator: str, a: Any, b: Any) -> Any:
        # NumPy's functions: a number of mpmath first tries to make a number of an array, at length
        if operator == "+":
            return np.add(a, b)
        if operator == "-":
            return np.subtract(a, b)
        if operator == "*":
            return np.multiply(a, b)
        if operator == "/":
            return _divide(a, b) if self.table.exact else a / np.asarray(b)
        if operator == "^":
            return _power(a, b) if self.table.exact else np.asarray(a) ** b
        raise SymbackpropError(f"'{operator}' is no operation on numbers")

    def _compared(self, operator: str, a: Any, b: Any, of_data: bool) -> Any:
        """A comparison of values; what only counts places has no kinks."""
        if self.table.trace is not None and of_data and operator not in ("==", "!="):
            self.table.trace.add(a - b, operator)
        found = _TESTS[operator](a, b)
        if self.table.tie is not None and of_data:
            found = np.where(np.equal(a, b), self.table.tie, found)
        return found

    def _noted(self, values: Sequence[Any], name: str) -> None:
        """Functions with a kink compare their argument with zero, and arguments with one another."""
        trace = self.table.trace
        if trace is not None and name in ("abs", "sign"):
            trace.add(values[0], name)
        elif trace is not None and name in ("max", "min"):
            for other in values[1:]:
                trace.add(values[0] - other, name)

    def _apply(self, node: Apply) -> Any:
        name, arguments = node.name, node.arguments
        if is_reduction(node, self.table.values):
            return self._reduction(name, [a.name for a in arguments[:-1] if isinstance(a, Name)], arguments[-1])
        if name == "where":
            return self._where(*arguments)
        if name == "pad":
            return self.value(arguments[0])
        values = [self.value(a) for a in arguments]
        self._noted(values, name)
        if name in self.functions:
            return self.functions[name](values[0])
        if name == "mod":
            ratio = _divide(values[0], values[1]) if self.table.exact else values[0] / np.asarray(values[1])
            return values[0] - values[1] * self.functions["floor"](ratio)
        if name in ("max", "min"):
            return functools.reduce(np.maximum if name == "max" else np.minimum, values)
        return self._call(name, values)

    def _where(self, test: Node, then: Node, other: Node) -> Any:
        """One of two values; what lies beyond an array counts only where it is taken."""
        chosen = np.asarray(self.value(test), dtype=bool)
        before = self.beyond, self.edge
        self.beyond = self.edge = False
        one = self.value(then)
        first = self.beyond, self.edge
        self.beyond = self.edge = False
        two = self.value(other)
        second = self.beyond, self.edge
        self.beyond, self.edge = (
            a if b is False and c is False else a | (chosen & b) | (~chosen & c)
            for a, b, c in zip(before, first, second, strict=True)
        )
        return cast(Any, np.where(chosen, one, two))

    def _call(self, name: str, values: Sequence[Any]) -> Any:
        stem = name.rstrip("'")
        order, functions = len(name) - len(stem), self.table.functions
        if stem not in functions and stem in self.functions:
            # tanh', exp', … of the built-in functions: by their definition as functions of the catalogue
            function = _built_in(stem)
        elif stem in functions and functions[stem].body is not None:
            function = functions[stem]
        else:
            raise SymbackpropError(f"the function '{name}' has no formula")
        given = [*values, *(self.table.number(v) for v in map(_fraction, function.defaults[len(values) - 1 :]))]
        given += [self.table.number(_fraction(0))] * (len(function.parameters) - len(given))
        inner = Table({}, {}, {}, functions, self.table.exact)
        inner.trace, inner.tie = self.table.trace, self.table.tie
        own = dict(zip(function.parameters, given, strict=False))
        walk = _Walk(inner, self.letters, {})
        walk.inside = True
        walk._name = lambda n: own[n] if n in own else _Walk._name(walk, n)  # type: ignore[method-assign]
        assert function.body is not None
        known = functions_key(functions) if function.body.has(Call) else ()
        return walk.value(_function_tree(function, order, known))

    def _which_is_greatest(self, value: Any, axis: int) -> None:
        """Each place of a maximum is a branch: by how much it is above all others."""
        count = value.shape[axis]
        assert self.table.trace is not None
        if value.size <= 200 and 1 < count <= 12:
            for place in range(count):
                rest = np.delete(value, place, axis=axis).max(axis=axis)
                self.table.trace.add(np.take(value, place, axis=axis) - rest, "max")

    def _reduction(self, name: str, letters: Sequence[str], body: Node) -> Any:
        axes = tuple(self.letters.index(i) for i in letters)
        sizes = [self.places[i].size for i in letters]
        before, self.beyond = (self.beyond, self.edge), False
        value = np.asarray(self.value(body))
        value = value.reshape(value.shape or (1,) * len(self.letters))
        beyond = self.beyond
        self.beyond, self.edge = before
        if name in ("sum", "mean"):
            lacking = math.prod(n for n, k in zip(sizes, axes, strict=True) if value.shape[k] == 1)
            total = value.sum(axis=axes, keepdims=True) * lacking
            return total / math.prod(sizes) if name == "mean" else total
        full = tuple(self.places[i].size if i in letters else value.shape[k] for k, i in enumerate(self.letters))
        value = np.broadcast_to(value, full)
        if name == "prod":
            return value.prod(axis=axes, keepdims=True)
        if self.table.trace is not None and len(axes) == 1 and name in ("max", "greatest"):
            self._which_is_greatest(value, axes[0])
        if beyond is not False:
            value = np.where(beyond, mpmath.mpf("-inf") if self.table.exact else -np.inf, value)
        if name != "argmax":
            return value.max(axis=axes, keepdims=True)
        moved = np.moveaxis(value, axes, range(-len(axes), 0))
        flat = moved.reshape(*moved.shape[: -len(axes)], -1)
        best = np.argmax(flat, axis=-1)
        best = np.expand_dims(best, tuple(sorted(axes)))
        return best.astype(object) if self.table.exact else best.astype(float)


def _fraction(value: Any) -> Any:
    return Fraction(int(value.p), int(value.q)) if hasattr(value, "p") else Fraction(value)


@functools.cache
def _built_in(name: str) -> Function:
    return Function(name, ("u",), BUILT_IN[name][1](Element("u")))
