"""A claim as it was read, in the network's own names and indices, so that a misreading is seen by whoever asked.

∂L/∂W1[d,h] = Σ_n x[n,d]*∂L/∂z1[n,h], over the batch
"""

from __future__ import annotations

from fractions import Fraction

from .judge import Case
from .names import Names
from .parse import Apply, Binary, Item, Name, Negate, Node, Number

_SUM, _PRODUCT, _POWER, _ATOM = 1, 2, 3, 4
_BINDING = {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "^": _POWER}
_REDUCTIONS = {"sum": "Σ", "prod": "∏", "mean": "mean", "greatest": "max", "max": "max", "argmax": "argmax"}


def restated(case: Case, names: Names) -> str:
    """All sides of a reading, what they hold for, and over which examples."""
    writer = _Restater(case, names)
    text = " = ".join(writer.text(tree) for tree in case.trees)
    condition = f", where {writer.text(case.condition)}" if case.condition is not None else ""
    batch = names.network.batch
    examples = ""
    if batch is not None and names.has_examples and any(batch in names.axes.get(n, ()) for n in case.resolver.used):
        examples = ", for one example" if case.one else ", over the batch"
    free = ", for any number " + " and ".join(writer.variables) if writer.variables else ""
    return f"{text}{condition}{examples}{free}"


class _Restater:
    def __init__(self, case: Case, names: Names) -> None:
        self.case, self.names = case, names
        self.jacobians = {j.name: (of, wrt, j) for (of, wrt), j in names.jacobians.items()}
        self.adjoints = {v: k for k, v in names.adjoints.items()}
        self.free = {v: k for k, v in names.variables.items()}
        self.variables: list[str] = []
        self.letters: dict[str, str] = {}
        self.taken: set[str] = set()
        for letter in case.free:
            self._letter(letter)

    def _letter(self, letter: str) -> str:
        """A letter for people: the claim's own, or the network's with as few primes as keep it apart."""
        if letter not in self.letters:
            wish = self.case.shown.get(letter, letter).rstrip("'")
            while wish in self.taken:
                wish += "'"
            self.taken.add(wish)
            self.letters[letter] = wish
        return self.letters[letter]

    def text(self, node: Node, binding: int = 0) -> str:
        text, own = self._write(node)
        return f"({text})" if own < binding else text

    def _write(self, node: Node) -> tuple[str, int]:
        match node:
            case Number(value=value):
                return _number(value)
            case Name(name=name):
                return self._name(name), _ATOM
            case Item(name=name, indices=indices):
                return self._element(name, indices), _ATOM
            case Negate(operand=operand):
                return f"-{self.text(operand, _PRODUCT)}", _SUM
            case Binary(operator="label", left=left):
                return f"1[{self.text(left)} is the label]", _ATOM
            case Binary(operator=operator, left=left, right=right) if operator in _BINDING:
                own = _BINDING[operator]
                one, other = self.text(left, own + (operator == "^")), self.text(right, own + (operator in "-/"))
                return (f"{one} {operator} {other}" if own == _SUM else f"{one}{operator}{other}"), own
            case Binary(operator=operator, left=left, right=right):
                return f"{self.text(left)} {operator} {self.text(right)}", 0
            case Apply(name="where", arguments=(test, Number(value=one), Number(value=zero))) if (one, zero) == (1, 0):
                return f"1[{self.text(test)}]", _ATOM
            case Apply(name=name, arguments=arguments) if name in _REDUCTIONS and len(arguments) > 1 and self._counts(node):
                letters = ",".join(self._letter(a.name) for a in arguments[:-1] if isinstance(a, Name))
                return f"{_REDUCTIONS[name]}_{letters} {self.text(arguments[-1], _PRODUCT)}", _SUM
            case Apply(name=name, arguments=arguments):
                return f"{name}({', '.join(map(self.text, arguments))})", _ATOM
            case _:
                return "?", _ATOM

    def _counts(self, node: Apply) -> bool:
        first = node.arguments[:-1]
        return all(isinstance(a, Name) and a.name not in self.names.axes and a.name not in self.free for a in first)

    def _name(self, name: str) -> str:
        if name in self.free:
            if self.free[name] not in self.variables:
                self.variables.append(self.free[name])
            return self.free[name]
        if name in self.case.letters or name in self.letters:
            return self._letter(name)
        return self._element(name, ())

    def _element(self, name: str, indices: tuple[Node, ...]) -> str:
        if name in self.jacobians:
            of, wrt, j = self.jacobians[name]
            count = len(self.names.axes[of])
            own, rest = list(indices[:count]), list(indices[count:])
            if j.shared is not None:
                rest.insert(j.shared[1], own[j.shared[0]])
            if of in self.adjoints:
                first = self._plain(self.adjoints[of], own)
                return f"∂²{self.names.network.loss}/(∂{first} ∂{self._plain(wrt, rest)})"
            return f"∂{self._plain(of, own)}/∂{self._plain(wrt, rest)}"
        return self._plain(name, indices)

    def _plain(self, name: str, indices: tuple[Node, ...] | list[Node]) -> str:
        shown = f"∂{self.names.network.loss}/∂{self.adjoints[name]}" if name in self.adjoints else name
        if self.case.one:
            # the only example is not written
            batch, axes = self.names.network.batch, self.names.axes.get(name, ())
            indices = [i for i, a in zip(indices, axes, strict=False) if a != batch]
        return f"{shown}[{','.join(self.text(i).replace(' ', '') for i in indices)}]" if indices else shown


def _number(value: Fraction) -> tuple[str, int]:
    if value.denominator == 1:
        return str(value), _ATOM if value >= 0 else _SUM
    rest = value.denominator
    for p in (2, 5):
        while rest % p == 0:
            rest //= p
    if rest != 1 or value.denominator <= 8:
        return str(value), _PRODUCT
    text = repr(float(value))
    return (text, _ATOM) if Fraction(text) == value else (str(value), _PRODUCT)
