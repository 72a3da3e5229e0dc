"""The one representation: a network is a list of equations in index notation.

    z1[n,h] = sum(d, x[n,d]*W1[d,h]) + b1[h]

is `Equation(z1[n,h], (Term(x[n,d]*W1[d,h], over=(d,)), Term(b1[h])))`. Bodies are ordinary scalar SymPy
expressions whose leaves are `Element`s (rank 0 included) and whose unknown or catalogued functions are `Call`s.
Forward equations, derivatives and optimiser updates are all written this way. The dataclasses are frozen and carry
no behaviour; `Network` checks itself once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import sympy
from sympy import Expr, Symbol

from .errors import NetworkError

Labels = Literal["real", "one-hot", "zero-one", "signed", "count"]
Role = Literal["input", "target", "parameter", "constant", "stored"]
SAFE_NAME = re.compile(r"[^\W\d]\w{0,63}'{0,8}")


class Element(Expr):
    """One element `a[i,j]` of an array; a scalar is an element without indices."""

    is_commutative = True
    is_real = True

    def __new__(cls, name: str | Symbol, *indices: Expr) -> Element:
        """An element by name and indices; SymPy rebuilds it from `args`, hence the symbol beside the text."""
        label = name if isinstance(name, Symbol) else Symbol(name)
        return Expr.__new__(cls, label, *indices)

    @property
    def name(self) -> str:
        """The array's name."""
        return self.args[0].name  # type: ignore[attr-defined]

    @property
    def indices(self) -> tuple[Symbol, ...]:
        """The index of each axis."""
        return self.args[1:]  # type: ignore[return-value]

    def _eval_derivative(self, s: Any) -> Expr:  # noqa: ARG002
        return sympy.S.Zero

    def _sympystr(self, printer: Any) -> str:  # noqa: ARG002
        return f"{self.name}[{','.join(str(i) for i in self.indices)}]" if self.indices else self.name


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


@dataclass(frozen=True)
class Term:
    """`reduce` over the indices `over` of `body`: a sum unless said otherwise; no index is a plain value."""

    body: Expr
    over: tuple[Symbol, ...] = ()
    reduce: Literal["sum", "max"] = "sum"


@dataclass(frozen=True)
class Equation:
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
    """An index letter, the name of its size (`n` runs over `N`), and the size as a number where it is known."""

    name: str
    size: str
    number: int | None = None


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
class Network:
    """Equations in the order of computation; the last target is the scalar that is differentiated."""

    name: str
    equations: tuple[Equation, ...]
    arrays: tuple[Array, ...]
    indices: tuple[Index, ...] = ()
    functions: tuple[Function, ...] = ()
    constants: tuple[tuple[str, sympy.Rational], ...] = ()
    facts: tuple[Fact, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    starts: tuple[tuple[str, Start], ...] = ()
    prediction: str | None = None
    batch: str | None = None
    labels: Labels = "real"
    text: str = ""
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
class Derivation:
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
    """The symbol of an index."""
    return Symbol(name, integer=True)


def size_symbol(name: str) -> Symbol:
    """The symbol of a size."""
    return Symbol(name, integer=True, positive=True)


def base_name(index_name: str) -> str:
    """An index made to avoid a capture (`k'`) runs over the same values as the one it was made from (`k`)."""
    return index_name.rstrip("'")


def elements_of(expr: Expr) -> list[Element]:
    """The distinct elements in an expression, in a fixed order."""
    return sorted(expr.atoms(Element), key=lambda e: (e.name, str(e.indices)))


def indices_of(expr: Expr) -> set[Symbol]:
    """The indices that an expression depends on."""
    return {i for e in expr.atoms(Element) for i in e.indices}


def calls_of(expr: Expr) -> list[Call]:
    """The distinct function calls in an expression, outermost last."""
    return sorted(expr.atoms(Call), key=lambda c: (c.count_ops(), str(c)))


def str_equation(equation: Equation) -> str:
    """An equation for debugging; `write` has the printers for people."""
    parts = [
        f"{t.reduce}({', '.join(map(str, t.over))}, {sympy.sstr(t.body)})" if t.over else sympy.sstr(t.body)
        for t in equation.terms
    ]
    return f"{sympy.sstr(equation.target)} = {' + '.join(parts) or '0'}"


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
    for equation in network.equations:
        where = f"in the equation of '{equation.name}': "
        if equation.name in defined:
            raise NetworkError(f"{where}'{equation.name}' is already defined")
        bound = set(equation.target.indices)
        for term in equation.terms:
            for e in term.body.atoms(Element):
                if e.name not in defined:
                    raise NetworkError(f"{where}'{e.name}' is used before it is defined")
                if len(e.indices) != len(arrays[e.name].axes):
                    raise NetworkError(f"{where}'{e.name}' has {len(arrays[e.name].axes)} axes, not {len(e.indices)}")
                if loose := set(e.indices) - bound - set(term.over):
                    raise NetworkError(f"{where}the index '{min(map(str, loose))}' is neither summed nor on the left")
            for c in term.body.atoms(Call):
                if c.name not in functions:
                    raise NetworkError(f"{where}the function '{c.name}' is not declared")
        for i in {*bound, *(i for t in equation.terms for i in t.over)}:
            if base_name(i.name) not in known_indices:
                raise NetworkError(f"{where}the index '{i.name}' has no size")
        defined.add(equation.name)
    if network.equations[-1].target.indices:
        letters = ", ".join(map(str, network.equations[-1].target.indices))
        raise NetworkError(f"the loss '{network.loss}' must be a scalar, but has the indices {letters}")
