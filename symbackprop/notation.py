"""The one representation: a network is a list of equations in index notation.

    z1[n,h] = sum(d, x[n,d]*W1[d,h]) + b1[h]

is `Equation(z1[n,h], (Term(x[n,d]*W1[d,h], over=(d,)), Term(b1[h])))`. Bodies are ordinary scalar SymPy
expressions whose leaves are `Element`s (rank 0 included) and whose unknown or catalogued functions are `Call`s.
Forward equations, derivatives and optimiser updates are all written this way. The dataclasses are frozen and carry
no behaviour; `Network` checks itself once.

An index is a letter (`i`), or whole numbers, letters, sizes and elements combined by `+ - * /`, `floor` and `mod`: shifted
`h[n,t-1]`, affine `x[n,2*i+p]`, data `W[x[n],d]`. Letters count from 0 and may be used as values. **An element whose index
leaves its axis, or is no whole number, is zero; a maximum is taken over the places where no index does so.** An equation
may use its own array, or those of equations after it, at earlier values of one index (or at later ones): a recurrence.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import sympy
from sympy import Expr, Symbol

from .errors import NetworkError

Labels = Literal["real", "one-hot", "zero-one", "signed", "count"]
Role = Literal["input", "target", "parameter", "constant", "stored", "noise"]
Reduction = Literal["sum", "max", "argmax"]
SAFE_NAME = re.compile(r"[^\W\d]\w{0,63}'{0,8}")


class Element(Expr):
    """One element `a[i,j]` of an array; a scalar is an element without indices."""

    is_commutative = True
    is_real = True

    def __new__(cls, name: str | Symbol, *indices: Expr) -> Element:
        """An element by name and indices; SymPy rebuilds it from `args`, hence the symbol beside the text."""
        label = name if isinstance(name, Symbol) else Symbol(name)
        return Expr.__new__(cls, label, *map(_unmarked, indices))

    @property
    def name(self) -> str:
        """The array's name."""
        return self.args[0].name  # type: ignore[attr-defined]

    @property
    def indices(self) -> tuple[Expr, ...]:
        """The index of each axis."""
        return self.args[1:]  # type: ignore[return-value]

    @property
    def letters(self) -> tuple[Symbol, ...]:
        """The indices of an element all of whose indices are letters, such as the target of an equation."""
        return self.args[1:]  # type: ignore[return-value]

    def _eval_derivative(self, s: Any) -> Expr:  # noqa: ARG002
        return sympy.S.Zero

    def _sympystr(self, printer: Any) -> str:  # noqa: ARG002
        return f"{self.name}[{','.join(map(index_text, self.indices))}]" if self.indices else self.name


def _unmarked(i: Expr) -> Expr:
    """An index in which no mark stands within arithmetic, as when `i` in `2*i + p` came to be a letter that counts beyond."""
    if not i.args or isinstance(i, Beyond) or not i.has(Beyond):
        return i
    return cast(Expr, i.xreplace({b: b.args[0] for b in i.atoms(Beyond)}))


class Beyond(Expr):
    """A letter as an index of an axis with another range than its own: `x[n,c]` where `c` counts further than `x` does."""

    is_integer = True
    is_real = True

    def __new__(cls, letter: Symbol) -> Beyond:
        """The letter, marked; SymPy rebuilds it from `args`, and another expression in its place needs no mark."""
        return Expr.__new__(cls, letter) if is_index(letter) else letter  # type: ignore[return-value]

    def _sympystr(self, printer: Any) -> str:
        return printer._print(self.args[0])


class Call(Expr):
    """A function of the catalogue, of the user, or an abstract one; `orders` counts derivatives per argument.

    `f(z)` is `Call("f", (0,), z)` and `f'(z)` is `Call("f", (1,), z)`: differentiating a call only ever adds a
    prime. Whether the primed function has a closed form is decided by whoever knows its definition.
    """

    is_commutative = True
    is_real = True

    def __new__(cls, name: str | Symbol, orders: Sequence[int] | sympy.Tuple, *arguments: Expr) -> Call:
        """A call by name, orders and arguments; SymPy rebuilds it from `args`."""
        label = name if isinstance(name, Symbol) else Symbol(name)
        return Expr.__new__(cls, label, sympy.Tuple(*orders), *arguments)

    @property
    def name(self) -> str:
        """The function's name, without primes."""
        return self.args[0].name  # type: ignore[attr-defined]

    @property
    def orders(self) -> tuple[int, ...]:
        """How often it is differentiated with respect to each argument."""
        return tuple(int(k) for k in self.args[1].args)

    @property
    def arguments(self) -> tuple[Expr, ...]:
        """The arguments."""
        return self.args[2:]  # type: ignore[return-value]

    def _eval_derivative(self, s: Any) -> Expr:
        parts: list[Expr] = []
        for k, argument in enumerate(self.arguments):
            inner = argument.diff(s)
            if inner != 0:
                orders = tuple(o + (j == k) for j, o in enumerate(self.orders))
                parts.append(Call(self.args[0], orders, *self.arguments) * inner)  # type: ignore[arg-type]
        return sympy.Add(*parts)

    def _sympystr(self, printer: Any) -> str:
        return f"{self.name}{_primes(self.orders)}({', '.join(printer._print(a) for a in self.arguments)})"


def _primes(orders: Sequence[int]) -> str:
    if sum(orders) == 0:
        return ""
    if not any(orders[1:]):
        return "'" * orders[0]
    return "'" + "".join(str(k + 1) * o for k, o in enumerate(orders))


# How a notebook shows what it is given: the modules that know how fill this in.
DISPLAYS: dict[type, Callable[[Any], Mapping[str, str]]] = {}


class Displayed:
    """Something that a notebook shows as more than its text."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Mapping[str, str]:  # noqa: ARG002
        display = DISPLAYS.get(type(self))
        return display(self) if display is not None else {"text/plain": str(self)}


@dataclass(frozen=True)
class Term:
    """`reduce` over the indices `over` of `body`: a sum unless said otherwise; no index is a plain value.

    `argmax` is the position of the first greatest value, counted through `over` with the last index fastest.
    """

    body: Expr
    over: tuple[Symbol, ...] = ()
    reduce: Reduction = "sum"

    def __post_init__(self) -> None:
        if len(set(self.over)) < len(self.over):
            raise ValueError(f"a term over {', '.join(map(str, self.over))} runs over one letter twice")


@dataclass(frozen=True)
class Equation(Displayed):
    """`target = sum of terms`, for every value of the target's indices."""

    target: Element
    terms: tuple[Term, ...]

    @property
    def name(self) -> str:
        """The name of the array that the equation defines."""
        return self.target.name


@dataclass(frozen=True)
class Array:
    """A named array: an index name for each axis (none for a scalar) and what it is for."""

    name: str
    axes: tuple[str, ...]
    role: Role


@dataclass(frozen=True)
class Index:
    """An index letter, the name of its size (`n` runs over `N`), and the size as a number where it is known.

    `formula` says how the size follows from others: a convolution of T places with a kernel of 3 has T - 2.
    """

    name: str
    size: str
    number: int | None = None
    formula: Expr | None = None


@dataclass(frozen=True)
class Fact:
    """`term = value`: something that may be assumed (labels sum to one), and why."""

    term: Term
    value: Expr
    why: str = "declared"


@dataclass(frozen=True)
class Function:
    """A scalar function: its parameters (after the first `variables` ones they are constants with defaults), its forward formula.

    `body` is None for an abstract function, whose derivative prints as `f'`.
    """

    name: str
    parameters: tuple[str, ...]
    body: Expr | None = None
    defaults: tuple[Expr, ...] = ()


@dataclass(frozen=True)
class Start:
    """How a parameter is initialised: `shape` of the distribution, its scale as a number or a formula of fan-in and fan-out."""

    distribution: Literal["uniform", "normal", "constant"]
    scale: str
    fan_in: tuple[str, ...] = ()
    fan_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draw:
    """How an array of noise is drawn at each step of training, and the value at rest, which predictions use.

    `normal` has mean 0 and variance 1; `bernoulli` is 1/keep with probability `keep`, 0 otherwise.
    """

    distribution: Literal["normal", "bernoulli"]
    rest: int
    keep: float = 1.0


@dataclass(frozen=True)
class Network(Displayed):
    """Equations in the order of computation; the last target is the scalar that is differentiated.

    `draws` says how arrays of noise are drawn; `averages` names stored arrays whose running average (with this share of the
    newest value) stands in for them in predictions, and where that average starts. `notes` are what a reader should be told of
    how the network was declared.
    """

    name: str
    equations: tuple[Equation, ...]
    arrays: tuple[Array, ...]
    indices: tuple[Index, ...] = ()
    functions: tuple[Function, ...] = ()
    constants: tuple[tuple[str, sympy.Rational], ...] = ()
    facts: tuple[Fact, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    starts: tuple[tuple[str, Start], ...] = ()
    draws: tuple[tuple[str, Draw], ...] = ()
    averages: tuple[tuple[str, float, float], ...] = ()
    prediction: str | None = None
    batch: str | None = None
    labels: Labels = "real"
    text: str = ""
    notes: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        check_network(self)

    @property
    def loss(self) -> str:
        """The name of the scalar that is differentiated."""
        return self.equations[-1].name

    def __str__(self) -> str:
        return "\n".join(str_equation(e) for e in self.equations)


@dataclass(frozen=True)
class Step:
    """One use of the chain rule: `source` is used in the equation of `target`; `local` is ∂(term)/∂(source).

    `kind` says which derivative it is: of the loss, of an activation, a weight on the path, a stored signal, or a
    penalty; "one" for a plain sum. `before` is the local derivative as the chain rule leaves it (with `f'`), `local` after
    the formula of `f` was differentiated.
    """

    target: Element
    source: Element
    kind: Literal["loss", "activation", "weight", "signal", "penalty", "one", "other"]
    before: Expr
    local: Expr
    contribution: Term
    adjoint: Element


@dataclass(frozen=True)
class Rewrite:
    """One rewriting of an equation: the rule, why it holds, and the equation before and after."""

    rule: str
    why: str
    before: Equation
    after: Equation


@dataclass(frozen=True)
class Derivation(Displayed):
    """The backward equations of a network, and how they came about.

    `raw` is what the chain rule gives, `equations` the folded form in the order of computation; `adjoints` maps
    each array to the name of its derivative (`dz1` for `z1`).
    """

    network: Network
    raw: tuple[Equation, ...]
    equations: tuple[Equation, ...]
    steps: tuple[Step, ...]
    rewrites: tuple[Rewrite, ...]
    adjoints: Mapping[str, str]
    facts: tuple[Fact, ...]
    wrt: tuple[str, ...]


def index(name: str) -> Symbol:
    """The symbol of an index; indices count from 0."""
    return Symbol(name, integer=True, nonnegative=True)


def index_text(expr: Expr) -> str:
    """An index as formula text, without spaces."""
    whole = sympy.denom(sympy.together(expr)) if expr.is_Add else 1
    if whole != 1:
        return f"({index_text(sympy.expand(expr * whole))})/{whole}"
    if expr.is_Add:
        # Letters before numbers, a minus never first where it can be helped: t-1, 2*i+p-1.
        parts = sorted(map(index_text, expr.args), key=lambda a: (a.startswith("-"), a[:1].isdigit() and "*" not in a, a))
        return "+".join(parts).replace("+-", "-")
    return text_of(expr).replace(" ", "").replace("Mod(", "mod(")


def size_symbol(name: str) -> Symbol:
    """The symbol of a size."""
    return Symbol(name, integer=True, positive=True)


def base_name(index_name: str) -> str:
    """An index made to avoid a capture (`k'`) runs over the same values as the one it was made from (`k`)."""
    return index_name.rstrip("'")


def elements_of(expr: Expr) -> list[Element]:
    """The distinct elements in an expression, in a fixed order."""
    return list(_elements(expr))


@functools.lru_cache(maxsize=65536)
def _elements(expr: Expr) -> tuple[Element, ...]:
    return tuple(sorted(expr.atoms(Element), key=element_order))


@functools.lru_cache(maxsize=65536)
def text_of(expr: Expr) -> str:
    """An expression as SymPy writes it, for orders that do not depend on the run."""
    return expr.name if isinstance(expr, Symbol) else str(expr)


@functools.lru_cache(maxsize=65536)
def names_of(expr: Expr) -> frozenset[str]:
    """The arrays in an expression."""
    return frozenset(e.name for e in _elements(expr))


@functools.lru_cache(maxsize=65536)
def element_order(e: Element) -> tuple[str, str]:
    """Where an element stands among others."""
    return e.name, str(e.indices)


def is_index(symbol: Any) -> bool:
    """Whether a symbol is an index letter (sizes are positive, names of arrays are no integers)."""
    return bool(isinstance(symbol, Symbol) and symbol.is_integer and symbol.is_positive is None)


def unwrapped(expr: Expr) -> Expr:
    """An index without the mark of a letter that counts beyond the axis."""
    return expr.args[0] if isinstance(expr, Beyond) else expr


def is_moved(expr: Expr) -> bool:
    """Whether an index depends on letters and is not just one: such an index may leave its axis."""
    return not is_index(expr) and bool(indices_of(expr))


@functools.lru_cache(maxsize=65536)
def indices_of(expr: Expr) -> frozenset[Symbol]:
    """The indices that an expression depends on."""
    return frozenset(s for s in expr.free_symbols if is_index(s))  # type: ignore[misc]


def common_factors(terms: Sequence[Term]) -> list[Expr]:
    """The factors that stand before every one of several terms, outside of its sum."""
    own = list(map(_outer_factors, terms))
    return sorted(set[Expr].intersection(*own), key=text_of) if own else []


def without(body: Expr, factors: Collection[Expr]) -> Expr:
    """A product without factors that it has; a division would leave what is no number where a factor is 0."""
    return cast(Expr, sympy.Mul(*(f for f in sympy.Mul.make_args(body) if f not in factors)))


def _outer_factors(term: Term) -> set[Expr]:
    if term.reduce != "sum":
        return set()
    return {f for f in sympy.Mul.make_args(term.body) if not indices_of(f) & set(term.over) and f.has(Element)}


def most_shared(terms: Sequence[Term]) -> list[int]:
    """The positions of the terms that share the factor which most have before them; at least two, or none."""
    own = list(map(_outer_factors, terms))
    best: list[int] = []
    for factor in sorted(set[Expr]().union(*own), key=text_of):
        having = [k for k, factors in enumerate(own) if factor in factors]
        if len(having) > max(len(best), 1):
            best = having
    return best


def data_indices(equations: Iterable[Equation]) -> set[str]:
    """The arrays whose values are used as indices: these hold whole numbers."""
    found: set[str] = set()
    for equation in equations:
        for term in equation.terms:
            for e in term.body.atoms(Element):
                found |= {inner.name for i in e.indices for inner in i.atoms(Element)}
    return found


def calls_of(expr: Expr) -> list[Call]:
    """The distinct function calls in an expression, outermost last."""
    return sorted(expr.atoms(Call), key=lambda c: (c.count_ops(), text_of(c)))


def str_equation(equation: Equation) -> str:
    """An equation for debugging; `write` has the printers for people."""
    parts = [
        f"{t.reduce}({', '.join(map(str, t.over))}, {sympy.sstr(t.body)})" if t.over else sympy.sstr(t.body)
        for t in equation.terms
    ]
    return f"{sympy.sstr(equation.target)} = {' + '.join(parts) or '0'}"


def groups_of(equations: Sequence[Equation]) -> list[tuple[Equation, ...]]:
    """The equations in order, those that need one another (a recurrence) together, in the place of the first of them.

    What a recurrence needs comes before it even where it was written between its equations.
    """
    by_name = {e.name: e for e in equations}
    uses = {e.name: [n for n in _array_names(e) if n in by_name] for e in equations}
    reach: dict[str, set[str]] = {}
    position = {e.name: k for k, e in enumerate(equations)}
    # Only equations that a later definition feeds can be in a recurrence; the others stand as they are.
    if all(position[u] < position[n] for n in by_name for u in uses[n]):
        return [(e,) for e in equations]
    for name in by_name:
        found: set[str] = set()
        todo = list(uses[name])
        while todo:
            other = todo.pop()
            if other not in found:
                found.add(other)
                todo += uses[other]
        reach[name] = found
    groups: list[tuple[Equation, ...]] = []
    placed: set[str] = set()

    def place(name: str) -> None:
        stack = [name]
        while stack:
            current = stack[-1]
            if current in placed:
                stack.pop()
                continue
            own = [n for n in by_name if n == current or (n in reach[current] and current in reach[n])]
            before = [u for n in own for u in uses[n] if u not in placed and u not in own]
            if before:
                stack.append(before[0])
                continue
            placed.update(own)
            groups.append(tuple(by_name[n] for n in own))
            stack.pop()

    for equation in equations:
        place(equation.name)
    return groups


def _array_names(equation: Equation) -> Iterable[str]:
    return dict.fromkeys(e.name for t in equation.terms for e in elements_of(t.body))


def is_recurrence(group: Sequence[Equation]) -> bool:
    """Whether equations of `groups_of` need one another."""
    return len(group) > 1 or group[0].name in _array_names(group[0])


def direction(group: Sequence[Equation]) -> tuple[Symbol, int]:
    """The index that a recurrence runs along, and 1 for upwards or -1 for downwards.

    Raises `NetworkError` where a value would need itself or, in one direction, its own future.
    """
    names = {e.name for e in group}
    letters = [i for i in group[0].target.letters if all(i in e.target.letters for e in group)]
    # The array to speak of is one that is used at another place than its own: sums within have names of their own.
    used = [
        e for q in group for t in q.terms for e in elements_of(t.body) if e.name in names and not all(map(is_index, e.indices))
    ]
    own = used[0].name if used else group[0].name
    problem = f"'{own}' depends on itself at the same place"
    for letter in letters:
        shifts: dict[tuple[str, str], list[int]] = {}
        wrong = _shifts(group, names, letter, shifts)
        if wrong is not None:
            problem = f"'{wrong}' is needed before it is computed"
            continue
        found = {s for values in shifts.values() for s in values}
        if max(found) > 0 and min(found) < 0:
            problem = f"'{own}' looks into its own future: along '{letter}' it is used both before and after"
            continue
        same = {pair for pair, values in shifts.items() if 0 in values}
        if found != {0} and not _circular(names, same):
            return letter, 1 if min(found) < 0 else -1
    raise NetworkError(f"in the equation of '{own}': {problem}; a recurrence uses an earlier value, such as h[t-1]")


def _shifts(
    group: Sequence[Equation], names: set[str], letter: Symbol, shifts: dict[tuple[str, str], list[int]]
) -> Element | None:
    """How far apart along a letter the arrays of a recurrence are used; an element for which that is no fixed number."""
    axis = {e.name: e.target.letters.index(letter) for e in group}
    for equation in group:
        for e in (e for t in equation.terms for e in elements_of(t.body) if e.name in names):
            shift = e.indices[axis[e.name]] - letter
            if not shift.is_Integer:
                return e
            shifts.setdefault((equation.name, e.name), []).append(int(shift))
    return None


def _circular(names: Iterable[str], edges: set[tuple[str, str]]) -> bool:
    """Whether arrays depend on themselves at one step."""
    todo = set(names)
    while todo:
        free = {n for n in todo if not any(user == n and used in todo for user, used in edges)}
        if not free:
            return True
        todo -= free
    return False


def within_step(group: Sequence[Equation], letter: Symbol) -> list[Equation]:
    """The equations of a recurrence in the order in which one step computes them."""
    axis = {e.name: e.target.letters.index(letter) for e in group}
    todo, done = list(group), list[Equation]()
    while todo:
        waiting = {e.name for e in todo}
        for equation in todo:
            now = {
                e.name
                for t in equation.terms
                for e in elements_of(t.body)
                if e.name in axis and e.indices[axis[e.name]] == letter
            }
            if not now & waiting:
                done.append(equation)
                todo.remove(equation)
                break
        else:
            raise NetworkError(f"'{todo[0].target}' depends on itself at the same step")
    return done


def check_network(network: Network) -> None:
    """Raise `NetworkError` unless names are safe and unique, arrays are defined before use, ranks fit, and the loss is scalar."""
    arrays = {a.name: a for a in network.arrays}
    if len(arrays) != len(network.arrays):
        names = [a.name for a in network.arrays]
        twice = next(n for n in names if names.count(n) > 1)
        raise NetworkError(f"the name '{twice}' is declared twice")
    known_indices = {i.name for i in network.indices}
    functions = {f.name for f in network.functions}
    for name in [*arrays, *known_indices, *functions]:
        if not SAFE_NAME.fullmatch(name):
            raise NetworkError(f"{name!r} is not a name: use letters, digits and underscores, primes at the end")
    if not network.equations:
        raise NetworkError("a network needs at least one equation")
    defined = {a.name for a in network.arrays if a.role != "stored"}
    twice = [e.name for e in network.equations]
    for group in groups_of(network.equations):
        for equation in group:
            if equation.name in defined or twice.count(equation.name) > 1:
                raise NetworkError(f"in the equation of '{equation.name}': '{equation.name}' is already defined")
        own = {e.name for e in group} if is_recurrence(group) else set[str]()
        if own:
            direction(group)
        for equation in group:
            _check_equation(equation, defined | own, arrays, known_indices, functions)
        defined |= {e.name for e in group}
    whole = {a.name for a in network.arrays if a.role in ("input", "target")}
    whole |= {e.name for e in network.equations if len(e.terms) == 1 and e.terms[0].reduce == "argmax"}
    for equation in network.equations:
        if computed := sorted(data_indices([equation]) - whole):
            raise NetworkError(
                f"in the equation of '{equation.name}': '{computed[0]}' is used as an index, which takes whole numbers: "
                f"an input or a target, not a computed value"
            )
    if network.equations[-1].target.indices:
        letters = ", ".join(map(str, network.equations[-1].target.indices))
        raise NetworkError(f"the loss '{network.loss}' must be a scalar, but has the indices {letters}")


def _check_equation(
    equation: Equation, defined: set[str], arrays: Mapping[str, Array], known_indices: set[str], functions: set[str]
) -> None:
    where = f"in the equation of '{equation.name}': "
    bound = set(equation.target.letters)
    for term in equation.terms:
        for e in term.body.atoms(Element):
            if e.name not in defined:
                raise NetworkError(f"{where}'{e.name}' is used before it is defined")
            if len(e.indices) != len(arrays[e.name].axes):
                raise NetworkError(f"{where}'{e.name}' has {len(arrays[e.name].axes)} axes, not {len(e.indices)}")
        if loose := indices_of(term.body) - bound - set(term.over):
            raise NetworkError(f"{where}the index '{min(map(str, loose))}' is neither summed nor on the left")
        for c in term.body.atoms(Call):
            if c.name not in functions:
                raise NetworkError(f"{where}the function '{c.name}' is not declared")
    for i in {*bound, *(i for t in equation.terms for i in t.over)}:
        if base_name(i.name) not in known_indices:
            raise NetworkError(f"{where}the index '{i.name}' has no size")
