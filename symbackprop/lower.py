"""From a parsed tree to terms in the notation: names are looked up, sums become `Term`s, sums inside functions get a name.

    log(sum(k, exp(z[n,k])))   gives   s1[n] = sum(k, exp(z[n,k]))   and   log(s1[n])

An undeclared name is an error with its place. Constants are computed beside in floating point first, so that no
formula can make SymPy build a number too large to hold.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, cast

import sympy
from sympy import Dummy, Expr

from .errors import FormulaError, Source, suggest
from .notation import Call, Element, Equation, Function, Term, index, indices_of
from .parse import Apply, Binary, Definition, Item, Name, Negate, Node, Number
from .sizes import Sizes

MAX_BITS = 4096  # of a constant power
MAX_EXPONENT = 1000
MAX_NESTED = 12  # functions within functions: each doubles what a derivative holds
MAX_CALLS = 4  # functions that stand for a formula, within one another
MAX_OPERATIONS = 2000  # of one equation


def _greatest(*arguments: Expr) -> Expr:
    # Not SymPy's Max: its derivative is 1/2 where two arguments are equal.
    return functools.reduce(lambda a, b: Call("max", (0, 0), a, b), arguments)


def _least(*arguments: Expr) -> Expr:
    return functools.reduce(lambda a, b: Call("min", (0, 0), a, b), arguments)


def _sign(x: float) -> float:
    return float((x > 0) - (x < 0))


# name: (how many arguments, SymPy's function, the same in floating point)
BUILT_IN: Mapping[str, tuple[int, Callable[..., Any], Callable[..., Any]]] = {
    "exp": (1, sympy.exp, math.exp),
    "log": (1, sympy.log, math.log),
    "sqrt": (1, sympy.sqrt, math.sqrt),
    "tanh": (1, sympy.tanh, math.tanh),
    "sinh": (1, sympy.sinh, math.sinh),
    "cosh": (1, sympy.cosh, math.cosh),
    "sin": (1, sympy.sin, math.sin),
    "cos": (1, sympy.cos, math.cos),
    "abs": (1, sympy.Abs, abs),
    "sign": (1, sympy.sign, _sign),
    "erf": (1, sympy.erf, math.erf),
    "floor": (1, sympy.floor, math.floor),
    "max": (0, _greatest, max),
    "min": (0, _least, min),
}
_COMPARE: Mapping[str, Callable[..., object]] = {
    "<": sympy.Lt,
    ">": sympy.Gt,
    "<=": sympy.Le,
    ">=": sympy.Ge,
    "==": sympy.Eq,
    "!=": sympy.Ne,
}


@dataclass
class Scope:
    """What names mean: arrays with their axes, functions, sizes, and the equations made on the way.

    `renamed` and `leading` serve formulas written for one example: their names stand for others, and the arrays
    that are not parameters get the leading axes in front. Where `free`, letters need not be bound (claims leave them so).
    A `closed` scope (a function's formula) cannot make equations of its own.
    """

    axes: dict[str, tuple[str, ...]]
    functions: dict[str, Function]
    sizes: Sizes
    equations: list[Equation] = field(default_factory=list[Equation])
    renamed: Mapping[str, str] = field(default_factory=dict[str, str])
    letters: Mapping[str, str] = field(default_factory=dict[str, str])
    values: Mapping[str, Expr] = field(default_factory=dict[str, Expr])
    leading: tuple[str, ...] = ()
    led: frozenset[str] = frozenset()
    reserved: frozenset[str] = frozenset()
    examples: str | None = None
    free: bool = False
    closed: bool = False
    parameters: frozenset[str] = frozenset()

    def names(self) -> list[str]:
        """Every name that a formula may use here."""
        return [*self.renamed, *self.values, *self.axes, *self.functions, *BUILT_IN, "where", "sum", "mean", "pi"]

    def fresh(self, stem: str) -> str:
        """A name not in use."""
        number = 1
        while f"{stem}{number}" in self.axes or f"{stem}{number}" in self.reserved:
            number += 1
        return f"{stem}{number}"


class Lowering:
    """Turns the trees of one source into terms."""

    def __init__(self, source: Source, scope: Scope) -> None:
        self.source = source
        self.scope = scope
        self._nested = 0
        self._calls = 0
        self._operations = 0

    def error(self, message: str, node: Node) -> FormulaError:
        """An error at a node."""
        return FormulaError(message, self.source.place(node.at))

    # ------------------------------------------------------------------ equations

    def equation(self, definition: Definition) -> Equation:
        """`target[i,…] = …`; the target becomes known after its right side was read."""
        target = self._target(definition.left)
        terms = self.terms(definition.right, frozenset(i.name for i in target.indices))
        for i in target.indices:
            self.scope.sizes.add(i.name)
        self.scope.axes[target.name] = tuple(i.name for i in target.indices)
        equation = Equation(target, tuple(t for t in terms if t.body != 0))
        self.scope.equations.append(equation)
        return equation

    def _target(self, node: Node) -> Element:
        if not isinstance(node, (Name, Item)):
            raise self.error("the left side of an equation is a name, with its indices in square brackets", node)
        letters = [self._letter(i) for i in node.indices] if isinstance(node, Item) else []
        name = self.scope.renamed.get(node.name, node.name)
        if name in self.scope.led:
            letters = [*self.scope.leading, *letters]
        if name in self.scope.axes:
            raise self.error(f"'{name}' is already defined", node)
        if len(set(letters)) < len(letters):
            raise self.error(f"'{name}' has the same index twice on the left side", node)
        return Element(name, *(index(i) for i in letters))

    def _letter(self, node: Node) -> str:
        if not isinstance(node, Name):
            raise self.error("an index is a plain letter or name here, such as i in x[i]", node)
        if node.name in self.scope.axes:
            raise self.error(f"'{node.name}' is an array and cannot be an index as well", node)
        return self.scope.letters.get(node.name, node.name)

    # ------------------------------------------------------------------ terms

    def terms(self, node: Node, bound: frozenset[str]) -> tuple[Term, ...]:
        """An expression as a sum of terms; `bound` are the letters that have a meaning here."""
        if not _holds_reduction(node):
            return (Term(self.scalar(node, bound)),)
        if isinstance(node, Negate):
            return tuple(replace(t, body=-t.body) for t in self.terms(node.operand, bound))
        if isinstance(node, Binary):
            return (self._sum_of if node.operator in "+-" else self._product)(node, bound)
        assert isinstance(node, Apply)
        return self._reduction(node, bound)

    def _sum_of(self, node: Node, bound: frozenset[str]) -> tuple[Term, ...]:
        # Along the left spine in a loop: a sum of a thousand terms is a tree a thousand deep.
        parts: list[tuple[Term, ...]] = []
        while isinstance(node, Binary) and node.operator in ("+", "-"):
            right = self.terms(node.right, bound)
            parts.append(right if node.operator == "+" else tuple(replace(t, body=-t.body) for t in right))
            node = node.left
        parts.append(self.terms(node, bound))
        return tuple(t for part in reversed(parts) for t in part)

    def _product(self, node: Node, bound: frozenset[str]) -> tuple[Term, ...]:
        spine: list[Binary] = []
        while isinstance(node, Binary) and node.operator in ("*", "/"):
            spine.append(node)
            node = node.left
        product = self.terms(node, bound)
        for step in reversed(spine):
            if step.operator == "/" or not _holds_reduction(step.right) or any(t.over for t in product):
                factor = self.scalar(step.right, bound)
                if step.operator == "/":
                    if factor == 0:
                        raise self.error("division by zero", step)
                    factor = 1 / factor
                product = tuple(_times(t, factor) for t in product)
            else:
                factor = self._as_scalar(product, bound)
                product = tuple(_times(t, factor) for t in self.terms(step.right, bound))
        return product

    def _reduction(self, node: Apply, bound: frozenset[str]) -> tuple[Term, ...]:
        if len(node.arguments) < 2:
            raise self.error(f"'{node.name}' needs an index and a body: {node.name}(i, …)", node)
        letters = [self._letter(a) for a in node.arguments[:-1]]
        for letter, argument in zip(letters, node.arguments, strict=False):
            if letter in bound:
                raise self.error(f"the index '{letter}' has a meaning here already; sum over another letter", argument)
            if letter in self.scope.functions or letter in BUILT_IN:
                raise self.error(f"'{letter}' is a function and cannot be an index", argument)
            self.scope.sizes.add(letter)
        inside = self.terms(node.arguments[-1], bound | set(letters))
        scale = sympy.Mul(*(1 / self.scope.sizes.symbol(i) for i in letters)) if node.name == "mean" else sympy.S.One
        return tuple(Term(t.body * scale, (*map(index, letters), *t.over)) for t in inside)

    def _as_scalar(self, terms: tuple[Term, ...], bound: frozenset[str], always: bool = False) -> Expr:
        """One expression for the terms: sums get a name and an equation of their own."""
        if not always and not any(t.over for t in terms):
            return sympy.Add(*(t.body for t in terms))
        free = {i for t in terms for i in indices_of(t.body) - set(t.over)}
        order = [i for i in (*self.scope.leading, *sorted(bound)) if index(i) in free]
        target = Element(self.scope.fresh("s"), *dict.fromkeys(index(i) for i in order))
        self.scope.axes[target.name] = tuple(i.name for i in target.indices)
        self.scope.equations.append(Equation(target, terms))
        return target

    def _named(self, expr: Expr, node: Node, bound: frozenset[str]) -> Expr:
        """A value with branches gets a name where a condition asks about it: SymPy cannot hold one inside the other."""
        if not self._has_branches(expr):
            return expr
        if self.scope.closed:
            raise self.error("a condition cannot ask about a value that has conditions itself; give that value a name", node)
        return self._as_scalar((Term(expr),), bound, always=True)

    def _has_branches(self, expr: Expr) -> bool:
        bodies = [self.scope.functions[c.name].body for c in expr.atoms(Call) if c.name in self.scope.functions]
        return expr.has(sympy.Piecewise) or any(b is not None and self._has_branches(b) for b in bodies)

    # ------------------------------------------------------------------ scalars

    def scalar(self, node: Node, bound: frozenset[str] = frozenset()) -> Expr:
        """An expression as one scalar."""
        return self._scalar(node, bound)[0]

    def _scalar(self, node: Node, bound: frozenset[str]) -> tuple[Expr, float | None]:
        """The expression, and its value where it is constant: that is looked at before SymPy builds anything."""
        self._operations += 1
        if self._operations > MAX_OPERATIONS:
            raise self.error(f"more than {MAX_OPERATIONS} operations in one formula; give parts of it names of their own", node)
        match node:
            case Number(value=value):
                return sympy.Rational(value.numerator, value.denominator), float(value)
            case Name() | Item():
                return self._element(node, bound)
            case Negate(operand=operand):
                inner, value = self._scalar(operand, bound)
                return -inner, None if value is None else -value
            case Binary(operator=operator) if operator in "+-*/^":
                return self._binary(node, bound)
            case Binary():
                raise self.error("a comparison belongs into where(condition, then, else)", node)
            case Apply():
                self._nested += 1
                if self._nested > MAX_NESTED:
                    raise self.error(f"more than {MAX_NESTED} functions within one another; give the inner ones names", node)
                result = self._apply(node, bound)
                self._nested -= 1
                return result
            case _:
                raise self.error("this is not a number", node)

    def _binary(self, node: Binary, bound: frozenset[str]) -> tuple[Expr, float | None]:
        spine: list[Binary] = []
        first: Node = node
        while isinstance(first, Binary) and first.operator in "+-*/^":
            spine.append(first)
            first = first.left
        left, value = self._scalar(first, bound)
        for step in reversed(spine):
            self._nested += step.operator == "^"
            if self._nested > MAX_NESTED:
                raise self.error(f"more than {MAX_NESTED} powers within one another; give the inner ones names", step)
            right, other = self._scalar(step.right, bound)
            self._nested -= step.operator == "^"
            new = None if value is None or other is None else self._float(step, value, other)
            if step.operator == "^":
                self._bounded_power(step, left, value, right, other)
                left = left**right
            elif step.operator == "/":
                if right == 0:
                    raise self.error("division by zero", step)
                left = left / right
            else:
                left = left + right if step.operator == "+" else left - right if step.operator == "-" else left * right
            value = new
        return left, value

    def _float(self, node: Binary, a: float, b: float) -> float:
        try:
            result = {
                "+": lambda: a + b,
                "-": lambda: a - b,
                "*": lambda: a * b,
                "/": lambda: a / b,
                "^": lambda: a**b,
            }[node.operator]()
        except ZeroDivisionError:
            raise self.error("division by zero", node) from None
        except OverflowError:
            raise self.error("this constant is too large", node) from None
        if isinstance(result, complex) or not math.isfinite(result):
            raise self.error("this constant is not a finite real number", node)
        return result

    def _bounded_power(self, node: Node, base: Expr, a: float | None, exponent: Expr, b: float | None) -> None:
        if b is None:
            return
        bits = 1.0
        if a is not None and isinstance(base, sympy.Rational):
            fraction = Fraction(int(base.p), int(base.q))
            bits = max(abs(fraction.numerator).bit_length(), fraction.denominator.bit_length())
        if abs(b) > MAX_EXPONENT or abs(b) * bits > MAX_BITS:
            raise self.error(f"the exponent {b:g} is too large", node)
        if isinstance(exponent, sympy.Rational) and exponent.q > MAX_EXPONENT * 1000:
            raise self.error("this exponent has too many digits", node)

    def _element(self, node: Name | Item, bound: frozenset[str]) -> tuple[Expr, float | None]:
        scope = self.scope
        if isinstance(node, Name) and node.name in scope.values:
            value = scope.values[node.name]
            return value, float(value) if value.is_number else None
        name = scope.renamed.get(node.name, node.name)
        if name not in scope.axes:
            return self._not_an_array(node)
        letters = [self._letter(i) for i in node.indices] if isinstance(node, Item) else []
        if name in scope.led:
            letters = [*scope.leading, *letters]
        axes = scope.axes[name]
        if len(letters) != len(axes):
            given = f"{len(letters)} {'index' if len(letters) == 1 else 'indices'}"
            shape = f"{name}[{','.join(axes)}]" if axes else f"'{name}', a scalar"
            raise self.error(f"'{node.name}' has {given} here but is declared as {shape}", node)
        for letter, axis, place in zip(letters, axes, self._index_nodes(node, len(letters)), strict=True):
            if letter not in bound and letter not in scope.leading and not scope.free:
                raise self.error(f"the index '{letter}' is neither summed nor on the left side", place)
            if letter == scope.examples and name in scope.parameters:
                raise self.error(f"'{letter}' counts the examples and cannot index the parameter {name}[{','.join(axes)}]", place)
            if wrong := scope.sizes.unify(letter, axis):
                raise self.error(f"in {name}[{','.join(letters)}]: {wrong}", place)
        return Element(name, *(index(i) for i in letters)), None

    @staticmethod
    def _index_nodes(node: Name | Item, count: int) -> list[Node]:
        own: list[Node] = list(node.indices) if isinstance(node, Item) else []
        return [node] * (count - len(own)) + own

    def _not_an_array(self, node: Name | Item) -> tuple[Expr, float | None]:
        scope, name = self.scope, node.name
        if isinstance(node, Name):
            if name == "pi":
                return sympy.pi, math.pi
            if (letter := scope.sizes.index_of_size(name)) is not None:
                number = scope.sizes.number(letter)
                return scope.sizes.symbol(letter), None if number is None else float(number)
        if name in scope.functions or name in BUILT_IN:
            raise self.error(f"'{name}' is a function: write {name}(…)", node)
        if isinstance(node, Name) and name in scope.sizes:
            raise self.error(f"'{name}' is an index, not a value; its size is '{scope.sizes.symbol(name)}'", node)
        raise self.error(f"unknown name '{name}'{suggest(name, scope.names())}", node)

    def _apply(self, node: Apply, bound: frozenset[str]) -> tuple[Expr, float | None]:
        if node.name in ("sum", "mean"):
            return self._as_scalar(self._reduction(node, bound), bound), None
        if node.name == "where":
            return self._where(node, bound)
        if node.name in self.scope.functions and node.name not in self.scope.axes and node.name not in BUILT_IN:
            return self._call(node, node.name, 0, bound), None
        if node.name in BUILT_IN:
            return self._built_in(node, bound)
        stem = node.name.rstrip("'")
        primes = len(node.name) - len(stem)
        if stem in self.scope.functions:
            return self._call(node, stem, primes, bound), None
        if stem in BUILT_IN and len(node.arguments) == 1 and primes <= 2:
            variable = Dummy(real=True)
            derivative = BUILT_IN[stem][1](variable)
            for _ in range(primes):
                derivative = derivative.diff(variable)
            return derivative.xreplace({variable: self.scalar(node.arguments[0], bound)}), None
        known = [*self.scope.functions, *BUILT_IN, "where", "sum", "mean"]
        if node.name in self.scope.axes:
            raise self.error(f"'{node.name}' is an array: write {node.name}[…]", node)
        raise self.error(f"unknown function '{node.name}'{suggest(stem, known)}", node)

    def _built_in(self, node: Apply, bound: frozenset[str]) -> tuple[Expr, float | None]:
        count, function, floating = BUILT_IN[node.name]
        if node.name in ("max", "min") and len(node.arguments) < 2:
            raise self.error(f"'{node.name}' needs two values or more", node)
        if count and len(node.arguments) != count:
            raise self.error(f"'{node.name}' takes {count} argument, not {len(node.arguments)}", node)
        first = node.arguments[0]
        if node.name in ("max", "min") and isinstance(first, Name) and first.name in self.scope.sizes:
            raise self.error(f"'{node.name}' over an index cannot be used in a network yet; give it values", node)
        pairs = [self._scalar(a, bound) for a in node.arguments]
        values = [v for _, v in pairs if v is not None]
        value: float | None = None
        if len(values) == len(pairs):
            try:
                value = floating(*values)
            except OverflowError:
                raise self.error("this constant is too large", node) from None
            except ValueError:
                raise self.error(f"'{node.name}' of {values[0]:g} is not a real number", node) from None
            if value is None or not math.isfinite(value):
                raise self.error("this constant is too large", node)
        arguments = [e for e, _ in pairs]
        if node.name in ("max", "min") and value is None:
            arguments = [self._named(e, a, bound) for e, a in zip(arguments, node.arguments, strict=True)]
            while len(arguments) > 2:
                arguments = [self._named(function(*arguments[:2]), node, bound), *arguments[2:]]
        return function(*arguments), value

    def _call(self, node: Apply, name: str, primes: int, bound: frozenset[str]) -> Expr:
        function = self.scope.functions[name]
        self._calls += function.body is not None
        if self._calls > MAX_CALLS:
            raise self.error(f"more than {MAX_CALLS} functions like '{name}' within one another; give the inner ones names", node)
        arguments = [self.scalar(a, bound) for a in node.arguments]
        self._calls -= function.body is not None
        if function.body is not None and self._has_branches(function.body):
            arguments = [self._named(e, a, bound) for e, a in zip(arguments, node.arguments, strict=True)]
        most = len(function.parameters)
        fewest = most - len(function.defaults)
        if function.parameters and not fewest <= len(arguments) <= most:
            expected = str(most) if fewest == most else f"{fewest} to {most}"
            raise self.error(f"'{name}' takes {expected} arguments, not {len(arguments)}", node)
        if function.parameters and len(arguments) < most:
            arguments += function.defaults[len(arguments) - most :]
        if primes and (primes > 2 or len(arguments) < 1):
            raise self.error(f"'{name}' is differentiated at most twice here", node)
        return Call(name, (primes, *(0 for _ in arguments[1:])), *arguments)

    def _where(self, node: Apply, bound: frozenset[str]) -> tuple[Expr, float | None]:
        if len(node.arguments) != 3:
            raise self.error("'where' takes a condition and two values: where(z > 0, z, 0)", node)
        test, then, other = node.arguments
        if not isinstance(test, Binary) or test.operator not in _COMPARE:
            raise self.error("the first argument of 'where' is a comparison, such as z > 0", test)
        sides = [self._named(self.scalar(side, bound), side, bound) for side in (test.left, test.right)]
        condition = _COMPARE[test.operator](*sides)
        return sympy.Piecewise((self.scalar(then, bound), condition), (self.scalar(other, bound), True)), None


def _holds_reduction(node: Node) -> bool:
    """Whether there is a sum over an index outside of functions, powers and denominators."""
    while isinstance(node, Binary) and node.operator in ("+", "-", "*", "/"):
        if node.operator != "/" and _holds_reduction(node.right):
            return True
        node = node.left
    if isinstance(node, Negate):
        return _holds_reduction(node.operand)
    return isinstance(node, Apply) and node.name in ("sum", "mean")


def _times(term: Term, factor: Expr) -> Term:
    """`factor * term`, the summed indices renamed where the factor uses the same letters."""
    clash = set(term.over) & indices_of(factor)
    if clash:
        swap = {i: index(i.name + "'") for i in clash}
        term = Term(cast(Expr, term.body.xreplace(swap)), tuple(swap.get(i, i) for i in term.over), term.reduce)
    return replace(term, body=term.body * factor)
