"""From a parsed tree to terms in the notation: names are looked up, sums become `Term`s, sums inside functions get a name.

    log(sum(k, exp(z[n,k])))   gives   s1[n] = sum(k, exp(z[n,k]))   and   log(s1[n])

An undeclared name is an error with its place. Constants are computed beside in floating point first, so that no
formula can make SymPy build a number too large to hold.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, cast

import sympy
from sympy import Dummy, Expr, Symbol

from .errors import FormulaError, Source, suggest
from .notation import Beyond, Call, Element, Equation, Function, Term, index, indices_of, is_index
from .parse import Apply, Binary, Definition, Item, Name, Negate, Node, Number, nodes_of
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
    "mod": (2, sympy.Mod, math.fmod),
    "max": (0, _greatest, max),
    "min": (0, _least, min),
}
# Words that begin a reduction over index letters: max(k, x[n,k]).
REDUCTIONS = ("sum", "mean", "max", "min", "prod", "logsumexp")
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
    A `closed` scope (a function's formula) cannot make equations of its own. `coming` are the arrays that a later equation
    defines, which a recurrence may use at an earlier place; `initial` what stands before their first place, `truncated` how
    many steps derivatives go back.
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
    coming: dict[str, tuple[str, ...]] = field(default_factory=dict[str, "tuple[str, ...]"])
    truncated: Mapping[str, int] = field(default_factory=dict[str, int])
    initial: dict[str, tuple[Element, int, Expr]] = field(default_factory=dict[str, "tuple[Element, int, Expr]"])

    def names(self) -> list[str]:
        """Every name that a formula may use here."""
        return [*self.renamed, *self.values, *self.axes, *self.functions, *BUILT_IN, *REDUCTIONS, "where", "pad", "pi"]

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
        self._defining = ""

    def error(self, message: str, node: Node) -> FormulaError:
        """An error at a node."""
        return FormulaError(message, self.source.place(node.at))

    # ------------------------------------------------------------------ equations

    @staticmethod
    def all(lines: Sequence[tuple[Source, Definition]], scope: Scope) -> None:
        """Lower equations in their order, but a start value, and what it is computed from, before it is used."""
        for source, definition in lines:
            Lowering(source, scope).announce(definition)
        lefts = [cast("Name | Item", d.left).name for _, d in lines]
        rights = [{n.name for n in nodes_of(d.right) if isinstance(n, (Name, Item))} for _, d in lines]
        starting = {k for k, (_, d) in enumerate(lines) if is_start(d)}
        todo = dict(enumerate(lines))

        def lower(k: int) -> None:
            if k not in todo:
                return
            source, definition = todo.pop(k)
            before = {j for j in starting if lefts[j] in rights[k]}
            if k in starting:
                names, found = set[str](), rights[k]
                while found - names:
                    names |= found
                    found = set[str]().union(*(rights[j] for j in todo if lefts[j] in names))
                before |= {j for j in todo if lefts[j] in names}
            for j in sorted(before):
                lower(j)
            Lowering(source, scope).equation(definition)

        for k in range(len(lines)):
            lower(k)

    def announce(self, definition: Definition) -> None:
        """Make known that an equation for this array is coming, so that a recurrence may use it before."""
        if not is_start(definition):
            target = self._target(definition.left)
            self.scope.coming.setdefault(target.name, tuple(i.name for i in target.letters))

    def equation(self, definition: Definition) -> Equation | None:
        """`target[i,…] = …`; the target becomes known after its right side was read. A start value makes no equation."""
        if is_start(definition):
            self._start(definition)
            return None
        target = self._target(definition.left)
        letters = tuple(i.name for i in target.letters)
        for i in letters:
            self.scope.sizes.add(i, opened=True)
        self.scope.coming.setdefault(target.name, letters)
        self._defining = target.name
        terms = self.terms(definition.right, frozenset(letters))
        self.scope.axes[target.name] = letters
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

    def _start(self, definition: Definition) -> None:
        """`h[n,-1,k] = …`: what stands before the first place of an array that a recurrence defines."""
        left = definition.left
        assert isinstance(left, Item)
        name = self.scope.renamed.get(left.name, left.name)
        if name in self.scope.initial:
            raise self.error(f"'{left.name}' has a start value already", left)
        axes = self.scope.coming.get(name, ())
        place = next(k for k, i in enumerate(left.indices) if _is_before_first(i))
        led = list(self.scope.leading) if name in self.scope.led else []
        letters = [*led, *(self._letter(i) if k != place else "" for k, i in enumerate(left.indices))]
        if len(letters) != len(axes) or len(set(letters)) < len(letters):
            raise self.error(f"'{left.name}' starts at -1, but no equation defines it with {len(letters)} indices", left)
        for letter, axis in zip(letters, axes, strict=True):
            if letter:
                self.scope.sizes.add(letter, opened=True)
                self.scope.sizes.unify(letter, axis)
        terms = self.terms(definition.right, frozenset(filter(None, letters)))
        value = self._as_scalar(terms, frozenset(filter(None, letters)))
        pattern = Element(name, *(index(i or axes[k]) for k, i in enumerate(letters)))
        self.scope.initial[name] = pattern, len(led) + place, value

    def _letter(self, node: Node) -> str:
        if not isinstance(node, Name):
            raise self.error("an index is a plain letter or name here, such as i in x[i]", node)
        if node.name in self.scope.axes:
            raise self.error(f"'{node.name}' is an array and cannot be an index as well", node)
        return self.scope.letters.get(node.name, node.name)

    def _index(self, node: Node, bound: frozenset[str]) -> Expr:
        """An index: a letter, or whole numbers, letters, sizes and elements under `+ - * /`, `floor` and `mod`."""
        scope = self.scope
        match node:
            case Number(value=value) if value.denominator == 1:
                return sympy.Integer(int(value))
            case Name(name=name) if name in scope.values:
                return scope.values[name]
            case Name(name=name) if scope.renamed.get(name, name) not in scope.axes:
                letter = scope.letters.get(name, name)
                if letter not in bound and letter not in scope.leading and (size := self._size(name)) is not None:
                    return size
                if letter not in bound and letter not in scope.leading and not scope.free:
                    raise self.error(f"the index '{letter}' is neither summed nor on the left side", node)
                scope.sizes.add(letter, opened=True)
                return index(letter)
            case Name() | Item():
                return self._element(node, bound)[0]
            case Negate(operand=operand):
                return -self._index(operand, bound)
            case Binary(operator=operator) if operator in "+-*/":
                return self._index_arithmetic(node, bound)
            case Apply(name="floor", arguments=(inner,)):
                return sympy.floor(self._index(inner, bound))
            case Apply(name="mod", arguments=(inner, period)):
                return sympy.Mod(self._index(inner, bound), self._index(period, bound))
            case _:
                raise self.error("an index is made of letters, whole numbers, sizes and elements, such as 2*i + p - 1", node)

    def _index_arithmetic(self, node: Binary, bound: frozenset[str]) -> Expr:
        spine, first = list[Binary](), cast(Node, node)
        while isinstance(first, Binary) and first.operator in "+-*/":
            spine.append(first)
            first = first.left
        a = self._index(first, bound)
        for step in reversed(spine):
            self._count(step)
            b = self._index(step.right, bound)
            if step.operator == "/" and b == 0:
                raise self.error("division by zero", step)
            a = {"+": a + b, "-": a - b, "*": a * b}[step.operator] if step.operator != "/" else a / b
        return a

    def _count(self, node: Node) -> None:
        """One operation more, or that there are too many."""
        self._operations += 1
        if self._operations > MAX_OPERATIONS:
            raise self.error(f"more than {MAX_OPERATIONS} operations in one formula; give parts of it names of their own", node)

    def size_of(self, node: Node) -> Expr:
        """A size from a formula of other sizes."""
        return self._index(node, frozenset())

    def _size(self, name: str) -> Expr | None:
        """The size of that name: `N`, or within a layer's formulas that of its own letter."""
        sizes, own = self.scope.sizes, self.scope.letters.get(name.lower())
        letter = own if own is not None and name.isupper() else sizes.index_of_size(name)
        if letter is None:
            return None
        number = sizes.number(letter) if own is not None else None
        return sizes.symbol(letter) if number is None else sympy.Integer(number)

    # ------------------------------------------------------------------ terms

    def terms(self, node: Node, bound: frozenset[str]) -> tuple[Term, ...]:
        """An expression as a sum of terms; `bound` are the letters that have a meaning here."""
        if not self._holds_reduction(node, bound):
            return (Term(self.scalar(node, bound)),)
        if isinstance(node, Negate):
            return tuple(replace(t, body=-t.body) for t in self._sums(node.operand, bound))
        if isinstance(node, Binary):
            return (self._sum_of if node.operator in "+-" else self._product)(node, bound)
        assert isinstance(node, Apply)
        return self._reduction(node, bound)

    def _sum_of(self, node: Node, bound: frozenset[str]) -> tuple[Term, ...]:
        # Along the left spine in a loop: a sum of a thousand terms is a tree a thousand deep.
        parts: list[tuple[Term, ...]] = []
        while isinstance(node, Binary) and node.operator in ("+", "-"):
            right = self._sums(node.right, bound)
            parts.append(right if node.operator == "+" else tuple(replace(t, body=-t.body) for t in right))
            node = node.left
        parts.append(self._sums(node, bound))
        return tuple(t for part in reversed(parts) for t in part)

    def _sums(self, node: Node, bound: frozenset[str]) -> tuple[Term, ...]:
        """Terms that may be scaled: a greatest value gets a name of its own first."""
        terms = self.terms(node, bound)
        if any(t.reduce != "sum" for t in terms):
            return (Term(self._as_scalar(terms, bound, always=True, stem="m")),)
        return terms

    def _product(self, node: Node, bound: frozenset[str]) -> tuple[Term, ...]:
        spine: list[Binary] = []
        while isinstance(node, Binary) and node.operator in ("*", "/"):
            spine.append(node)
            node = node.left
        product = self._sums(node, bound)
        for step in reversed(spine):
            if step.operator == "/" or not self._holds_reduction(step.right, bound) or any(t.over for t in product):
                factor = self.scalar(step.right, bound)
                if step.operator == "/":
                    if factor == 0:
                        raise self.error("division by zero", step)
                    factor = 1 / factor
                product = tuple(_times(t, factor) for t in product)
            else:
                factor = self._as_scalar(product, bound)
                product = tuple(_times(t, factor) for t in self._sums(step.right, bound))
        return product

    def _reduction(self, node: Apply, bound: frozenset[str]) -> tuple[Term, ...]:
        if len(node.arguments) < 2:
            raise self.error(f"'{node.name}' needs an index and a body: {node.name}(i, …)", node)
        if node.arguments[0] == Name(node.arguments[0].at, "batch") and self.scope.leading:
            # Within a layer: over all axes before its own.
            names = [Name(node.arguments[0].at, i) for i in self.scope.leading]
            node = replace(node, arguments=(*names, *node.arguments[1:]))
        letters = [self._letter(a) for a in node.arguments[:-1]]
        for letter, argument in zip(letters, node.arguments, strict=False):
            if letter in bound:
                raise self.error(f"the index '{letter}' has a meaning here already; sum over another letter", argument)
            if letter in self.scope.functions or letter in BUILT_IN:
                raise self.error(f"'{letter}' is a function and cannot be an index", argument)
            self.scope.sizes.add(letter, opened=True)
        body = node.arguments[-1]
        if node.name in ("max", "min"):
            inside = self.scalar(body, bound | set(letters))
            for letter, argument in zip(letters, node.arguments, strict=False):
                if index(letter) not in indices_of(inside):
                    if not self.scope.sizes.is_open(letter):
                        raise self.error(
                            f"the {node.name} over '{letter}' is of values that do not vary with '{letter}'", argument
                        )
                    raise self.error(f"unknown name '{letter}'{suggest(letter, self.scope.names())}", argument)
            if node.name == "max":
                return (Term(inside, tuple(map(index, letters)), "max"),)
            greatest = (Term(-inside, tuple(map(index, letters)), "max"),)
            return (Term(-self._as_scalar(greatest, bound, always=True, stem="m")),)
        if node.name == "prod":
            return (Term(self._running_product(letters, body, bound)),)
        if node.name == "logsumexp":
            powers = (Term(sympy.exp(self.scalar(body, bound | set(letters))), tuple(map(index, letters))),)
            return (Term(sympy.log(self._as_scalar(powers, bound))),)
        inside = self.terms(body, bound | set(letters))
        if any(t.reduce != "sum" for t in inside):
            inside = (Term(self._as_scalar(inside, bound | set(letters), always=True, stem="m")),)
        scale = sympy.Mul(*(1 / self.scope.sizes.symbol(i) for i in letters)) if node.name == "mean" else sympy.S.One
        return tuple(Term(t.body * scale, (*map(index, letters), *t.over)) for t in inside)

    def _running_product(self, letters: list[str], body: Node, bound: frozenset[str]) -> Expr:
        """A product as a recurrence, `c[k] = x[k]*c[k-1]`: its derivative divides by nothing."""
        *outer, letter = letters
        inside = self.scalar(body, bound | set(letters))
        for k in (letter, *reversed(outer)):
            here, free = index(k), indices_of(inside) - {index(k)}
            order = [index(i) for i in (*self.scope.leading, *sorted(bound | set(letters))) if index(i) in free]
            name = self.scope.fresh("c")
            self.scope.axes[name] = (*(i.name for i in dict.fromkeys(order)), k)
            kept = dict.fromkeys(order)
            before = sympy.Piecewise((1, sympy.Eq(here, 0)), (Element(name, *kept, here - 1), True))
            self.scope.equations.append(Equation(Element(name, *kept, here), (Term(before * inside),)))
            inside = Element(name, *kept, self.scope.sizes.symbol(k) - 1)
        return inside

    def _is_reduction(self, node: Node, bound: frozenset[str]) -> bool:
        """Whether this is a sum, a greatest value, … over letters, not a function of values."""
        if not isinstance(node, Apply) or node.name not in REDUCTIONS:
            return False
        if node.name not in ("max", "min"):
            return True
        scope = self.scope
        letters = [a.name for a in node.arguments[:-1] if isinstance(a, Name)]
        taken = {*scope.axes, *scope.renamed, *scope.values, *scope.functions, *BUILT_IN, "pi"}
        return len(letters) == len(node.arguments) - 1 > 0 and not any(
            i in taken or scope.letters.get(i, i) in bound or (i not in scope.sizes and self._size(i) is not None)
            for i in letters
        )

    def _holds_reduction(self, node: Node, bound: frozenset[str]) -> bool:
        """Whether there is a reduction over an index outside of functions, powers and denominators."""
        while isinstance(node, Binary) and node.operator in ("+", "-", "*", "/"):
            if node.operator != "/" and self._holds_reduction(node.right, bound):
                return True
            node = node.left
        if isinstance(node, Negate):
            return self._holds_reduction(node.operand, bound)
        return self._is_reduction(node, bound)

    def _as_scalar(self, terms: tuple[Term, ...], bound: frozenset[str], always: bool = False, stem: str = "s") -> Expr:
        """One expression for the terms: sums get a name and an equation of their own."""
        if not always and not any(t.over for t in terms):
            return sympy.Add(*(t.body for t in terms))
        free = {i for t in terms for i in indices_of(t.body) - set(t.over)}
        order = [i for i in (*self.scope.leading, *sorted(bound)) if index(i) in free]
        target = Element(self.scope.fresh(stem), *dict.fromkeys(index(i) for i in order))
        self.scope.axes[target.name] = tuple(i.name for i in target.letters)
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
        value = self._scalar(node, bound)[0]
        if value.has(sympy.zoo, sympy.nan, sympy.oo):
            raise self.error("this divides by zero, or is the logarithm of it", node)
        return value

    def _scalar(self, node: Node, bound: frozenset[str]) -> tuple[Expr, float | None]:
        """The expression, and its value where it is constant: that is looked at before SymPy builds anything."""
        self._count(node)
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

    def _element(self, node: Name | Item, bound: frozenset[str], padded: bool = False) -> tuple[Expr, float | None]:
        """An element; a `padded` one may reach beyond its axes."""
        scope = self.scope
        if isinstance(node, Name) and node.name in scope.values:
            value = scope.values[node.name]
            return value, float(value) if value.is_number else None
        name = scope.renamed.get(node.name, node.name)
        if name not in scope.axes and not (name in scope.coming and isinstance(node, Item) and _is_moved(node)):
            return self._not_an_array(node, bound)
        own: list[Node] = list(node.indices) if isinstance(node, Item) else []
        axes = scope.axes[name] if name in scope.axes else scope.coming[name]
        led = [index(i) for i in scope.leading] if name in scope.led else []
        if len(led) + len(own) != len(axes):
            given = f"{len(own)} {'index' if len(own) == 1 else 'indices'}"
            shape = f"{name}[{','.join(axes)}]" if axes else f"'{name}', a scalar"
            raise self.error(f"'{node.name}' has {given} here but is declared as {shape}", node)
        indices = [*led, *(self._index(i, bound) for i in own)]
        places: list[Node] = [*[node] * len(led), *own]
        for k, (i, axis, place) in enumerate(zip(indices, axes, places, strict=True)):
            if i == index(scope.examples or "") and name in scope.parameters:
                raise self.error(f"'{i}' counts the examples and cannot index the parameter {name}[{','.join(axes)}]", place)
            if padded:
                indices[k] = Beyond(cast(Symbol, i)) if is_index(i) and scope.sizes.root(str(i)) != scope.sizes.root(axis) else i
            elif is_index(i):
                if wrong := scope.sizes.unify(str(i), axis):
                    raise self.error(f"in {Element(name, *indices)}: {wrong}", place)
            elif name in scope.axes and not scope.free and (wrong := scope.sizes.fit(i, axis)):
                text = Element(name, *indices)
                raise self.error(f"in {text}: the index '{i}' {wrong}; write pad({text}) where zeros are meant beyond it", place)
        element = Element(name, *indices)
        if name in scope.truncated and (letter := next((i for i in indices_of(element) if element.has(i - 1)), None)) is not None:
            # Truncated back-propagation: every so many steps the state before counts as constant.
            start = sympy.Eq(sympy.Mod(letter, scope.truncated[name]), 0)
            return sympy.Piecewise((Call("stop", (0,), element), start), (element, True)), None
        return (self._started(element, node) if name in scope.initial else element), None

    def _started(self, element: Element, node: Node) -> Expr:
        """An element of a recurrence with its start value where it would stand before the first place."""
        start, k, value = self.scope.initial[element.name]
        letter = next(iter(indices_of(element.indices[k])), None)
        if letter is None or element.indices[k] == letter:
            return element
        if element.indices[k] != letter - 1:
            raise self.error(f"'{element.name}' has a start value at -1 and is used at '{element.indices[k]}'", node)
        here = value.xreplace(dict(zip(start.letters, element.indices, strict=True)))
        return sympy.Piecewise((here, sympy.Eq(letter, 0)), (element, True))

    def _not_an_array(self, node: Name | Item, bound: frozenset[str]) -> tuple[Expr, float | None]:
        scope, name = self.scope, node.name
        if isinstance(node, Name):
            if name == "pi":
                return sympy.pi, math.pi
            letter = scope.letters.get(name, name)
            if letter in bound or letter in scope.leading:
                return index(letter), None
            if (size := self._size(name)) is not None:
                number = size if size.is_Integer else scope.sizes.numeric(size)
                return size, float(number) if number.is_number else None
        if name in scope.functions or name in BUILT_IN:
            raise self.error(f"'{name}' is a function: write {name}(…)", node)
        if isinstance(node, Name) and name in scope.sizes:
            raise self.error(f"the index '{name}' is neither summed nor on the left side here", node)
        if scope.renamed.get(name, name) in scope.coming and isinstance(node, Item):
            here = "the equation that uses it" if self._defining == scope.renamed.get(name, name) else "a later equation"
            raise self.error(f"'{name}' is computed by {here}; only an earlier place of it is known, such as h[t-1]", node)
        raise self.error(f"unknown name '{name}'{suggest(name, scope.names())}", node)

    def _apply(self, node: Apply, bound: frozenset[str]) -> tuple[Expr, float | None]:
        if self._is_reduction(node, bound):
            terms = self._reduction(node, bound)
            return self._as_scalar(terms, bound, stem="m" if terms[0].reduce == "max" else "s"), None
        if node.name == "pad":
            inner = node.arguments[0]
            if len(node.arguments) != 1 or not isinstance(inner, Item):
                raise self.error("'pad' takes one element: pad(x[n,i-1]) is zero where the index leaves its axis", node)
            return self._element(inner, bound, padded=True)
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
        known = [*self.scope.functions, *BUILT_IN, *REDUCTIONS, "where", "pad"]
        if node.name in self.scope.axes:
            raise self.error(f"'{node.name}' is an array: write {node.name}[…]", node)
        raise self.error(f"unknown function '{node.name}'{suggest(stem, known)}", node)

    def _built_in(self, node: Apply, bound: frozenset[str]) -> tuple[Expr, float | None]:
        count, function, floating = BUILT_IN[node.name]
        if node.name in ("max", "min") and len(node.arguments) < 2:
            raise self.error(f"'{node.name}' needs two values or more", node)
        if count and len(node.arguments) != count:
            raise self.error(f"'{node.name}' takes {count} argument, not {len(node.arguments)}", node)
        pairs = [self._scalar(a, bound) for a in node.arguments]
        values = [v for _, v in pairs if v is not None]
        value: float | None = None
        if len(values) == len(pairs):
            try:
                value = floating(*values)
            except OverflowError:
                raise self.error("this constant is too large", node) from None
            except (ValueError, ZeroDivisionError):
                raise self.error(f"'{node.name}' of {values[-1]:g} is not a real number", node) from None
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


def _is_before_first(node: Node) -> bool:
    return isinstance(node, Negate) and isinstance(node.operand, Number) and node.operand.value == 1


def is_start(definition: Definition) -> bool:
    """Whether a definition gives what stands before the first place of an array: `h[n,-1,k] = …`."""
    return isinstance(definition.left, Item) and any(map(_is_before_first, definition.left.indices))


def _is_moved(node: Item) -> bool:
    """Whether an element is taken at another place than the one being computed."""
    return not all(isinstance(i, Name) for i in node.indices)


def _times(term: Term, factor: Expr) -> Term:
    """`factor * term`, the summed indices renamed where the factor uses the same letters."""
    clash = set(term.over) & indices_of(factor)
    if clash:
        swap = {i: index(i.name + "'") for i in clash}
        term = Term(cast(Expr, term.body.xreplace(swap)), tuple(swap.get(i, i) for i in term.over), term.reduce)
    return replace(term, body=term.body * factor)
