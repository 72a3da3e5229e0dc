"""What a claim says: its text in the network's own terms, as formula trees over index letters.

    X^T ((p - y) W2^T ∘ σ'(z1)) / N      sum(n, x[n,d]*sum(k, (p[n,k] - y[n,k])*W2[h,k])*sigmoid'(z1[n,h]))/N

Matrix products become sums over letters, names are looked up as `names` says, derivatives become arrays whose values follow
from the chain rule. Where a text can be read in two ways (a power or a layer, one example or the batch, σ the sigmoid or the
layer's own activation), each choice is on record and the other readings can be asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from . import maths
from .errors import FormulaError, Source, suggest
from .lower import BUILT_IN
from .maths import COMPARISONS, Call, Cases, Derivative, Reduce, Symbol, Transpose, reader_for
from .names import GENERIC, Meaning, Names, Reading
from .notation import base_name
from .parse import Apply, Binary, Item, Name, Negate, Node, Number
from .trees import indicator, names_in, nodes_of, number, put_indices, renamed_tree

# Letters that may count the places of an axis whatever the network calls it.
_COUNTERS = frozenset("abcdhijklmnpqrstuvαβμντ")


class Misfit(FormulaError):
    """Shapes or indices that do not fit: the claim is understood and cannot be right as it stands."""


@dataclass(frozen=True)
class Value:
    """A tree and its axes that have no letter in the text: each has a letter of its own here. A `row` is a transposed vector."""

    node: Node
    axes: tuple[str, ...] = ()
    row: bool = False


@dataclass(frozen=True)
class Side:
    """One side of an equality, resolved: the tree, its own axes, the letters that the text leaves free, and where it stands."""

    node: Node
    axes: tuple[str, ...]
    letters: tuple[str, ...]
    text: str
    source: Source
    given: Node


class Resolver:
    """Resolves the sides of one claim in one reading."""

    def __init__(self, names: Names, reading: Reading, sizes: dict[str, str] | None = None) -> None:
        self.names, self.network, self.reading = names, names.network, reading
        self.sizes: dict[str, str] = sizes if sizes is not None else {}  # the name of each letter's size
        self.hints: dict[str, str] = {}  # for letters that only stand within i+p
        self.letters: dict[str, None] = {}  # letters of the text, in the order of their first use
        self.bound: list[str] = []
        self.used: set[str] = set()
        self.spelled: dict[str, str] = {}
        self.misfit: str | None = None
        self._fresh = 0
        self.least: dict[str, int] = {}  # sizes of which a place is named by its number
        self.example: str | None = None  # the letter of the one example
        self.one = reading.chosen.get("examples") == "one"
        self.rows = reading.chosen.get("vectors") == "rows"
        self.rate: str | None = None  # what the claim calls the step size
        self.counts = False  # whether a letter stands as a value
        self.from_one: dict[str, bool] = {}  # letters whose values count from 1, as the limits of their sums say
        self.mixed = False  # whether the claim has both ∂ and d
        self.turned = names.turned(reading.chosen)
        self.source = Source("<claim>", "")

    def side(self, source: Source, tree: Node) -> Side:
        """One side of the claim."""
        self.source = source
        self.letters = {}
        value = self.value(tree)
        letters = tuple(i for i in self.letters if i not in self.bound)
        return Side(value.node, value.axes, letters, source.text.strip(), source, tree)

    # ------------------------------------------------------------------ letters

    def error(self, message: str, node: Node) -> FormulaError:
        """An error at a place of the claim."""
        return FormulaError(message, self.source.place(node.at))

    def fresh(self, letter: str) -> str:
        """A letter of its own that runs as far as another."""
        self._fresh += 1
        stem = self.names.letter_for(self.size(letter)) or base_name(letter)
        name = stem + "'" * (8 + self._fresh)
        self.sizes[name] = self.size(letter)
        return name

    def size(self, letter: str) -> str:
        """The name of a letter's size; `?` for one that runs as far as what it meets."""
        return self.sizes.get(letter) or self.names.size_of.get(base_name(letter)) or self.hints.get(letter, "?")

    def _letter(self, node: Node, axis: str, moved: bool = False, bracketed: bool = False) -> Node:
        """An index at an axis: a letter that stands there alone learns how far it runs; any letter may stand in brackets."""
        name = self.letter_name(node)
        if name is not None and name not in self.bound and self.names.is_size(name):
            if not moved and self.names.same_size(name, self.names.size_of[base_name(axis)]):
                raise Misfit(f"there is no place {name} among {name}, counted from 0", self.source.place(node.at))
            return Name(node.at, name, end=node.end)  # T-1, the last place
        if name is not None and not self._may_count(name) and not (bracketed and self._is_letter(name)):
            raise self.error(f"'{name}' is no index: an index is a letter, a number, or a letter moved by a number", node)
        if name is not None:
            wanted = self.names.size_of[base_name(axis)]
            own = self.names.size_of.get(name)
            if name in self.names.steps and name not in self.bound and not self.names.same_size(own or wanted, wanted):
                raise self.error(f"'{name}' counts the steps of a recurrence and stands where {wanted} are counted", node)
            if moved:
                # within i+p a letter may run less far than the axis
                self.hints.setdefault(name, wanted)
                if name not in self.bound:
                    self.letters.setdefault(name)
                return Name(node.at, name, end=node.end)
            known = self.sizes.setdefault(name, wanted)
            if known != wanted and not self.names.same_size(known, wanted):
                self.misfit = self.misfit or f"the index '{name}' runs over {known} values and stands where {wanted} are counted"
            if name not in self.bound:
                self.letters.setdefault(name)
            return Name(node.at, name, end=node.end)
        match node:
            case Binary(operator=operator, left=left, right=right) if operator in "+-*/ ":
                if not moved:
                    self._within(node, axis)
                sides = [self._letter(part, axis, True, bracketed) for part in (left, right)]
                return Binary(node.at, "*" if operator == " " else operator, *sides, end=node.end)
            case Negate(operand=operand):
                return Negate(node.at, self._letter(operand, axis, True, bracketed), end=node.end)
            case Call(head=head, arguments=arguments) if head.name in ("floor", "mod"):
                return Apply(node.at, head.name, tuple(self._letter(a, axis, True, bracketed) for a in arguments), end=node.end)
            case Number(value=value):
                if not moved:
                    self._has_place(value, axis, node)
                return node
            case Symbol() if any(m.name in self.names.counted for m in self.names.arrays(node, self.reading)):
                return self.value(node).node  # data that says which row
            case _:
                raise self.error("an index is a letter, a number, or a letter moved by a number", node)

    def _within(self, node: Binary, axis: str) -> None:
        """Refuses K+1, which is beyond any axis of K places."""
        first: Node = node
        offset = Fraction(0)
        while isinstance(first, Binary) and first.operator in ("+", "-") and isinstance(first.right, Number):
            offset += first.right.value if first.operator == "+" else -first.right.value
            first = first.left
        name = self.letter_name(first)
        size = self.names.size_of[base_name(axis)]
        if offset >= 0 and name is not None and self.names.is_size(name) and self.names.same_size(name, size):
            raise Misfit(f"there is no such place among {size}", self.source.place(node.at))

    def _may_count(self, name: str) -> bool:
        """Whether a name can be an index: a letter that is bound or declared, or a usual one that nothing else is called by."""
        if name in self.bound or name in self.letters or base_name(name) in self.names.size_of:
            return True
        stem = base_name(name)
        is_scalar = self.names.axes.get(name) == () or name in self.names.variables
        return not is_scalar and (stem in _COUNTERS or stem[1:].isdigit())

    def _is_letter(self, name: str) -> bool:
        """Whether a name is one letter that is no array's."""
        return len(base_name(name)) == 1 and name not in self.names.axes and name not in self.names.variables

    def _has_place(self, value: Fraction, axis: str, node: Node) -> None:
        """Notes that an axis has a place of this number, counted from 0. Raises `FormulaError` where it cannot have it."""
        size = self.names.size_of[base_name(axis)]
        declared = self.names.declared_size(size)
        if value.denominator != 1 or value < 0 or (declared is not None and value >= declared):
            message = f"there is no place {value} among {declared or size}, counted from 0"
            raise Misfit(message, self.source.place(node.at))
        self.least[size] = max(self.least.get(size, 0), int(value) + 1)

    @staticmethod
    def letter_name(node: Node) -> str | None:
        """The letter that an index is, if it is one."""
        if isinstance(node, Symbol) and not node.below and node.indices is None and node.layer is None and node.raised is None:
            return node.name + "'" * node.primes
        return None

    # ------------------------------------------------------------------ values

    def value(self, node: Node) -> Value:
        """A tree of the text in the network's terms."""
        match node:
            case Number():
                return Value(node)
            case Negate(operand=operand):
                inner = self.value(operand)
                return replace(inner, node=Negate(node.at, inner.node, end=node.end))
            case Symbol():
                return self._symbol(node)
            case Transpose(operand=operand, letter=letter):
                value = self.value(operand)
                if letter and not value.axes and (self.names.is_size("T") or not self.names.is_free("T")):
                    return self._elementwise("^", value, self.value(Symbol(node.end - 1, "T", end=node.end)), node)
                return self._transposed(value, node)
            case Binary():
                return self._binary(node)
            case Call():
                return self._call(node)
            case Reduce():
                return self._reduce(node)
            case Derivative():
                return self._derivative(node)
            case Cases():
                return self._cases(node)
            case maths.Differential(operand=Symbol() as operand):
                return self._adjoint(operand, node)
            case _:
                raise self.error("this is not a number", node)

    def _transposed(self, value: Value, node: Node) -> Value:
        if len(value.axes) < 2:
            return replace(value, row=not value.row)
        if len(value.axes) > 2:
            *rest, a, b = value.axes
            return replace(value, axes=(*rest, b, a))
        return replace(value, axes=value.axes[::-1], row=False, node=replace(value.node, at=node.at, end=node.end))

    # ------------------------------------------------------------------ products

    def _binary(self, node: Binary) -> Value:
        if node.operator in COMPARISONS:
            return self._indicator(self._test(node), node)  # (z > 0) as a number
        if node.operator == "^":
            if isinstance(node.left, Symbol) and self._is_euler(node.left):
                power = self.value(node.right)
                return replace(power, node=Apply(node.at, "exp", (power.node,), end=node.end))
            base, exponent = self.value(node.left), self.value(node.right)
            return self._elementwise("^", base, exponent, node)
        left, right = self.value(node.left), self.value(node.right)
        if node.operator in ("+", "-"):
            return self._elementwise(node.operator, left, right, node)
        if node.operator in ("/", "⊘"):
            return self._elementwise("/", left, right, node)
        if node.operator == "·" and len(left.axes) == len(right.axes) == 1 and self.fits(left.axes[0], right.axes[0]):
            notes = {"inner": "· between two vectors is read as their inner product"}
            if self.reading.choose("dot", ("elementwise", "inner"), notes) == "inner":
                return self._matrix(replace(left, row=True), replace(right, row=False), node)
        if node.operator == "⊙" or not left.axes or not right.axes:
            return self._elementwise("*", left, right, node)
        if node.operator in ("*", "·"):
            try:
                return self._elementwise("*", left, right, node)
            except Misfit:
                return self._matrix(left, right, node)
        try:
            return self._matrix(_as_row(left, right) if node.operator == "@" else left, right, node)
        except Misfit as problem:
            if node.operator == "@":
                raise
            try:
                return self._elementwise("*", left, right, node)
            except Misfit:
                raise problem from None

    def _test(self, node: Node) -> Value:
        """A comparison, for every element."""
        if isinstance(node, Binary) and node.operator == "∧":
            parts = [self._test(part) for part in (node.left, node.right)]
            one, other = (replace(p, node=indicator(p.node, node)) for p in parts)
            return self._elementwise("*", one, other, node)
        if not isinstance(node, Binary) or node.operator not in COMPARISONS:
            raise self.error("a comparison belongs here, such as z > 0", node)
        left, right = (self._plain_or_letter(n) for n in (node.left, node.right))
        self.counts |= any(isinstance(v.node, Name) and v.node.name in {*self.bound, *self.letters} for v in (left, right))
        extreme = any(names_in(v.node) & self.names.extremes for v in (left, right))
        if node.operator in ("==", "!=") and not extreme and not all(map(self._counts_places, (left, right))):
            return self._labelled(left, right, node)
        return self._elementwise(node.operator, left, right, node)

    def _counts_places(self, value: Value) -> bool:
        """Whether a value is a whole number by its nature: letters, sizes, numbers, and data that says which row."""
        arrays = names_in(value.node) & self.names.axes.keys()
        return not value.axes and arrays <= self.names.counted and not names_in(value.node) & set(self.names.variables.values())

    def _labelled(self, left: Value, right: Value, node: Binary) -> Value:
        """1[y = k] for a target that holds one-hot labels is its element k."""
        for value, other in ((left, right), (right, left)):
            letter = other.node
            target = value.node
            if (
                isinstance(target, Item)
                and isinstance(letter, Name)
                and self.names.is_one_hot(target.name)
                and len(value.axes) == 1
                and (letter.name in self.letters or letter.name in self.bound)
            ):
                size = self.size(value.axes[0])
                if not self.names.same_size(self.sizes.setdefault(letter.name, size), size):
                    raise self.error(f"'{letter.name}' does not count the classes", node)
                element = renamed_tree(target, {value.axes[0]: letter.name})
                same: Node = Binary(node.at, ">", element, number(Fraction(1, 2)), end=node.end)
                # Labels may be soft at the points that are tried: the element stands for the indicator.
                return Value(Binary(node.at, "label", element, same, end=node.end))
        raise self.error("values that can be any number are compared with < or >, indices with =", node)

    def _indicator(self, test: Value, node: Node) -> Value:
        """1 where a comparison holds, 0 elsewhere."""
        if isinstance(test.node, Binary) and test.node.operator == "label":
            return replace(test, node=test.node.left)
        return replace(test, node=indicator(test.node, node))

    def condition(self, source: Source, tree: Node) -> Node:
        """The condition of a claim, over its letters."""
        self.source = source
        value = self._test(tree)
        if value.axes:
            raise self.error("a condition is about single values: give them indices", tree)
        return value.node

    def _plain_or_letter(self, node: Node) -> Value:
        if isinstance(node, Symbol) and (name := self.letter_name(node)) is not None and self.names.is_free(name):
            known = name in self.bound or name in self.letters or name in self.sizes
            declared = self.names.is_size(name) or any(self.names.arrays(node, self.reading)) or name in self.names.variables
            if known or (not declared and self._may_count(name)):
                if name not in self.bound:
                    self.letters.setdefault(name)
                return Value(Name(node.at, name, end=node.end))
        return self.value(node)

    def fits(self, a: str, b: str) -> bool:
        """Whether two axes have the same size."""
        one, other = self.size(a), self.size(b)
        return "?" in (one, other) or self.names.same_size(one, other)

    def shape(self, value: Value) -> str:
        """The shape of a value in words: N×K."""
        sizes = [self.size(a) for a in value.axes]
        if len(sizes) == 1:
            return f"1×{sizes[0]}" if value.row else f"{sizes[0]}×1"
        return "×".join(sizes)

    def _elementwise(self, operator: str, left: Value, right: Value, node: Node) -> Value:
        if not left.axes or not right.axes:
            axes = left.axes or right.axes
            return Value(Binary(node.at, operator, left.node, right.node, end=node.end), axes, left.row or right.row)
        longer, shorter = (left, right) if len(left.axes) >= len(right.axes) else (right, left)
        pairs = self._aligned(longer, shorter)
        if pairs is None:
            words = {"+": "added", "-": "subtracted", "/": "divided"}.get(operator, "multiplied element by element")
            problem = f"the shapes {self.shape(left)} and {self.shape(right)} do not fit to be {words}"
            raise Misfit(problem, self.source.place(node.at))
        renamed = renamed_tree(shorter.node, {b: a for a, b in pairs})
        one, other = (longer.node, renamed) if longer is left else (renamed, longer.node)
        axes = list(longer.axes)
        for a, b in pairs:
            if self.size(a) == "?":
                self.sizes[a] = self.size(b)
        return Value(Binary(node.at, operator, one, other, end=node.end), tuple(axes), longer.row and shorter.row)

    def _aligned(self, longer: Value, shorter: Value) -> list[tuple[str, str]] | None:
        """Which axis of the longer each axis of the shorter meets."""
        if len(longer.axes) == len(shorter.axes):
            pairs = list(zip(longer.axes, shorter.axes, strict=True))
            return pairs if all(self.fits(a, b) for a, b in pairs) else None
        tail = list(zip(longer.axes[-len(shorter.axes) :], shorter.axes, strict=True))
        if all(self.fits(a, b) for a, b in tail):
            return tail
        if len(shorter.axes) == 1:
            meeting = [a for a in longer.axes if self.fits(a, shorter.axes[0])]
            return [(meeting[0], shorter.axes[0])] if len(meeting) == 1 else None
        return None

    def _matrix(self, left: Value, right: Value, node: Node) -> Value:
        a, b = left.axes[-1], right.axes[0]
        if len(left.axes) == len(right.axes) == 1 and not left.row:
            if right.row:
                return Value(Binary(node.at, "*", left.node, right.node, end=node.end), (*left.axes, *right.axes))
            raise Misfit(f"two columns, {self.shape(left)} and {self.shape(right)}, have no product", self.source.place(node.at))
        if len(left.axes) == 1 and not left.row and len(right.axes) > 1:
            raise Misfit(
                f"the shapes {self.shape(left)} and {self.shape(right)} do not fit for a product", self.source.place(node.at)
            )
        if len(right.axes) == 1 and right.row and len(left.axes) > 1:
            raise Misfit(
                f"the shapes {self.shape(left)} and {self.shape(right)} do not fit for a product", self.source.place(node.at)
            )
        if not self.fits(a, b):
            problem = f"the shapes {self.shape(left)} and {self.shape(right)} do not fit for a product"
            raise Misfit(f"{problem}: {self.size(a)} is not {self.size(b)}", self.source.place(node.at))
        known = a if self.size(a) != "?" else b
        over = self.fresh(known)
        one, other = renamed_tree(left.node, {a: over}), renamed_tree(right.node, {b: over})
        product = Binary(node.at, "*", one, other, end=node.end)
        body = Apply(node.at, "sum", (Name(node.at, over), product), end=node.end)
        return Value(body, (*left.axes[:-1], *right.axes[1:]), len(left.axes) == 1 and len(right.axes) > 1)

    # ------------------------------------------------------------------ names

    def _symbol(self, node: Symbol) -> Value:
        name = self.letter_name(node)
        if name is not None and name in self.bound:
            return Value(self._counted(name, node))
        if node.name == "𝟏" and node.raised is None and not node.below and node.indices is None:
            axis = self.fresh("?")
            self.sizes[axis] = "?"
            return Value(Number(node.at, Fraction(1), end=node.end), (axis,))
        is_unit = node.name == "I" and self.names.is_free("I") and not self.names.is_size("I")
        if node.name == "𝟏" or is_unit or (node.name == "δ" and self._is_kronecker(node)):
            return self._kronecker(node)
        if node.raised is not None and self._is_euler(node):
            power = self.value(node.raised)
            return replace(power, node=Apply(node.at, "exp", (power.node,), end=node.end))
        if (update := self._update(node)) is not None:
            return update
        if self.names.is_size(node.name) and not node.below and node.indices is None and node.layer is None:
            return self._other_name(node, node.name)
        problem: FormulaError | None = None
        for meaning in self._likeliest(node):
            try:
                return self._array(node, meaning)
            except Misfit:
                raise
            except FormulaError as error:
                problem = problem or error
        if problem is not None:
            raise problem
        return self._other_name(node, name)

    def _likeliest(self, node: Symbol) -> list[Meaning]:
        """What a symbol may mean, first what fits the letters whose range is known; other readings are on record."""
        found = list(self.names.arrays(node, self.reading))
        if exact := [m for m in found if self.names.is_exact(node, m)]:
            places = [m for m in found if m.below and self.names.is_last(m.name)]
            if not places or len(node.below) != 1 or not isinstance(node.below[0], Number):
                return exact[:1]
            shown = self.source.whole[node.at : node.end]
            notes = {"elements": f"{shown} is read as an element of {places[0].name}"}
            way = self.reading.choose("subscripts", ("names", "elements"), notes)
            return places[:1] if way == "elements" else exact[:1]
        if len(found) < 2:
            return found
        fits = [self._conflicts(m) for m in found]
        best = [m for m, f in zip(found, fits, strict=True) if f == min(fits)]
        names = tuple(dict.fromkeys(m.name for m in best))
        if len(names) > 1 and not any(m.name == node.name for m in best):
            shown = self.source.whole[node.at : node.end]
            chosen = self.reading.choose(f"which {shown}", names, {n: f"{shown} is read as {n}" for n in names[1:]})
            best.sort(key=lambda m: m.name != chosen)
        return [*best, *(m for m in found if m not in best)]

    def _conflicts(self, meaning: Meaning) -> int:
        """How many of an array's subscripts are known to run over something else."""
        axes = self.names.axes[meaning.name]
        below = meaning.below
        own = axes if len(below) == len(axes) else [a for a in axes if a != self.network.batch]
        if len(below) != len(own):
            return len(below) and 2
        letters = map(self.letter_name, below)
        return sum(
            i in self.sizes and not self.names.same_size(self.sizes[i], self.names.size_of[a])
            for i, a in zip(letters, own, strict=True)
            if i is not None
        )

    def _counted(self, name: str, node: Node) -> Node:
        """A letter as a value: counted from 0 in formula text, from 1 where a sum says so; else both are tried in LaTeX."""
        letter: Node = Name(node.at, name, end=node.end)
        from_one = self.from_one.get(name)
        self.counts = True
        if from_one is None and any(self.from_one.values()):
            from_one = True  # as the letters of sums in the same formula are
        if from_one is None and "\\" in self.source.whole:
            notes = {"one": "places are counted from 1"}
            from_one = self.reading.choose("places", ("zero", "one"), notes) == "one"
        return Binary(node.at, "+", letter, number(1, node), end=node.end) if from_one else letter

    def _is_euler(self, node: Symbol) -> bool:
        """Whether e, here with an exponent, is Euler's number; where an array is called so, both are tried."""
        if node.name != "e" or node.below or node.indices is not None or node.layer is not None or node.accent:
            return False
        if self.names.is_free("e"):
            return True
        ways = ("array", "number") if self.names.axes.get("e") == () else ("number", "array")
        return self.reading.choose("e", ways, {"number": "e is read as Euler's number"}) == "number"

    def _is_kronecker(self, node: Symbol) -> bool:
        sizes = {self.names.size_of.get(i) for i in filter(None, map(self.letter_name, node.below))}
        return (
            len(node.below) == 2
            and (len(sizes) == 1 or None in sizes)
            and node.layer is None
            and node.raised is None
            and not any(map(self.names.is_scalar, filter(None, map(self.letter_name, node.below))))
            and not self.names.delta_has(len(node.below), self.one)
        )

    def _kronecker(self, node: Symbol) -> Value:
        inside = node.below or node.indices or ()
        if node.name == "𝟏" and node.indices and len(node.indices) == 1 and isinstance(node.indices[0], Binary):
            return self._indicator(self._test(node.indices[0]), node)
        if len(inside) == 1 and isinstance(inside[0], Binary):
            return self._indicator(self._test(inside[0]), node)
        if len(inside) == 2:
            letters = [self.letter_name(i) for i in inside]
            for letter in letters:
                if letter is not None and letter not in self.bound:
                    self.letters.setdefault(letter)
            sides = [
                Name(node.at, letter, end=node.end) if letter is not None else self.value(i).node
                for letter, i in zip(letters, inside, strict=True)
            ]
            known = next((self.sizes[i] for i in letters if i in self.sizes), None)
            if known is not None:
                for letter in letters:
                    self.sizes.setdefault(letter or "", known)
            test = Binary(node.at, "==", *sides, end=node.end)
        else:
            axes = (self.fresh("?"), self.fresh("?"))
            for a in axes:
                self.sizes[a] = "?"
            test = Binary(node.at, "==", Name(node.at, axes[0]), Name(node.at, axes[1]), end=node.end)
            return Value(indicator(test, node), axes)
        return Value(indicator(test, node))

    def _array(self, node: Symbol, meaning: Meaning) -> Value:
        """An array with its indices; axes without one stay whole, the examples' is implied where one example is meant."""
        name, below = meaning.name, meaning.below
        axes = self.names.axes[name]
        self.used.add(name)
        if node.end > 0 and node.indices is None and node.raised is None and (not below or self.names.is_optimiser):
            self.spelled.setdefault(name, self.source.whole[node.at : node.end])
        places: list[Node | None] = [None] * len(axes)
        batch = self.network.batch
        turned = name in self.turned
        if node.indices is not None:
            if len(node.indices) != len(axes):
                given = f"{len(node.indices)} {'index' if len(node.indices) == 1 else 'indices'}"
                shape = f"{name}[{','.join(axes)}]" if axes else f"'{name}', a scalar"
                raise self.error(f"'{node.name}' has {given} here but is declared as {shape}", node)
            places = [self._letter(i, a, bracketed=True) for i, a in zip(node.indices, axes, strict=True)]
        elif below or meaning.example is not None:
            back = {v: k for k, v in self.names.adjoints.items()}
            if turned and self.names.is_parameter(back.get(name, name)) and len(below) == 2:
                meaning = replace(meaning, below=below[::-1])  # w_jk: to, from
            self._place_below(node, name, axes, meaning, places)
        if meaning.example is not None and batch not in axes:
            raise self.error(f"{name} has no axis of examples: its axes are [{','.join(axes)}]", node)
        if self.one and batch in axes:
            self._only_example(places[axes.index(batch)], node)
        whole: list[str] = []
        indices: list[Node] = []
        for axis, place in zip(axes, places, strict=True):
            if place is not None:
                indices.append(place)
            elif axis != batch and self.names.declared_size(self.names.size_of[axis]) == 1:
                indices.append(number(0, node))  # the only place
            elif axis == batch and self.one:
                self.letters.setdefault(axis)
                self.sizes[axis] = self.names.size_of[axis]
                indices.append(Name(node.at, axis))
            else:
                letter = self.fresh(axis)
                whole.append(letter)
                indices.append(Name(node.at, letter))
        tree: Node = Item(node.at, name, tuple(indices), end=node.end) if axes else Name(node.at, name, end=node.end)
        tree = self.names.with_sign(tree, meaning)
        if turned and len(whole) == 2:
            whole.reverse()
        if meaning.power is not None:
            power = self.value(meaning.power)
            tree = Binary(node.at, "^", tree, power.node, end=node.end)
        return Value(tree, tuple(whole), self.rows and self.one and len(whole) == 1)

    def _only_example(self, place: Node | None, node: Node) -> None:
        """Where one example is meant, every array is that example's, by one letter or none."""
        if place is None:
            return
        settled = isinstance(place, Number) and place.value == 0 and self.example is None
        if settled:
            return
        if not isinstance(place, Name) or place.name in self.bound or self.example not in (None, place.name):
            raise self.error("several examples are named here", node)
        self.example = place.name

    def _place_below(self, node: Symbol, name: str, axes: Sequence[str], meaning: Meaning, places: list[Node | None]) -> None:
        """Which axis each subscript stands at."""
        below, batch = meaning.below, self.network.batch
        if len(below) < len(axes):
            below = self._apart(below)
        rest = [k for k, a in enumerate(axes) if a != batch]
        example = meaning.example
        if example is not None and batch in axes:
            k = axes.index(batch)
            places[k] = self._letter(example, axes[k])
        if len(below) == len(axes) and example is None:
            chosen = list(range(len(axes)))
        elif len(below) == len(rest) and (self.one or example is not None or batch not in axes):
            chosen = rest
        elif len(below) < len(axes):
            letters = [self.letter_name(i) or _first_letter(i) for i in below]
            if len(below) == len(rest) and batch in axes and batch not in letters:
                # z_k: one example is meant
                raise self.error(f"say which example: {name} has the axes [{','.join(axes)}]", node)
            chosen = [axes.index(i) for i in letters if i in axes]
            if len(chosen) != len(below):
                given = f"{len(below)} {'index' if len(below) == 1 else 'indices'}"
                raise self.error(f"'{node.name}' has {given} here but is declared as {name}[{','.join(axes)}]", node)
        else:
            shape = f"{name}[{','.join(axes)}]" if axes else f"'{name}', a scalar"
            raise self.error(f"'{node.name}' has {len(below)} indices here but is declared as {shape}", node)
        for k, place in zip(chosen, below, strict=True):
            # numbers in subscripts count from 1
            places[k] = self._letter(self._from_zero(place), axes[k])

    def _apart(self, below: Sequence[Node]) -> tuple[Node, ...]:
        """Subscripts in which a digit is an index of its own: W_{d1} is the element d, 1 where no letter is called d1."""
        found: list[Node] = []
        for node in below:
            split = re.fullmatch(r"([^\W\d_])(\d)", node.name) if isinstance(node, Symbol) else None
            if split is None or node.name in self.names.size_of or node.name in self.bound:  # type: ignore[attr-defined]
                found.append(node)
            else:
                found += [Symbol(node.at, split[1], end=node.at + 1), Number(node.at + 1, Fraction(split[2]), end=node.end)]
        return tuple(found)

    def _from_zero(self, place: Node) -> Node:
        """Numbers and sizes in subscripts count from 1."""
        first = place
        while isinstance(first, Binary):
            first = first.left
        name = self.letter_name(first)
        if isinstance(place, Number):
            return replace(place, value=place.value - 1)
        if name is not None and name not in self.bound and self.names.is_size(name):
            return Binary(place.at, "-", place, number(1, place), end=place.end)
        return place

    def _other_name(self, node: Symbol, name: str | None) -> Value:
        plain = name or node.name
        size = self.names.size_named(plain if not node.below_text else "")
        if size is not None:
            tree: Node = Name(node.at, size, end=node.end)
            if node.raised is not None:
                tree = Binary(node.at, "^", tree, self.value(node.raised).node, end=node.end)
            return Value(tree)
        constant = self.names.constant(node, self.reading)
        if constant == "eta" and self.rate is not None and node.name != self.rate:
            raise self.error(f"'{self.rate}' is the step size here; what is '{node.name}'?", node)
        if constant is not None:
            self.rate = node.name if constant == "eta" else self.rate
            self.spelled.setdefault(constant, self.source.whole[node.at : node.end])
            tree = Name(node.at, constant, end=node.end)
            if node.raised is not None:
                tree = Binary(node.at, "^", tree, self.value(node.raised).node, end=node.end)
            return Value(tree)
        if plain in ("π", "pi") and not node.below and node.layer is None and node.indices is None and not node.accent:
            return Value(Name(node.at, "pi", end=node.end))
        if name is not None and (name in self.sizes or name in self.letters):
            self.letters.setdefault(name)
            return Value(self._counted(name, node))
        if self.names.is_function(node):
            raise self.error(f"'{plain}' is a function: write {plain}(…)", node)
        known = [*self.names.axes, *self.names.functions, *self.names.size_of.values()]
        shown = self.source.whole[node.at : node.end] if node.end > node.at else plain
        raise self.error(f"unknown name '{shown}'{suggest(plain, known)}", node)

    # ------------------------------------------------------------------ updates

    def _update(self, node: Symbol) -> Value | None:
        """`w_{t+1}` is the weight after a step of gradient descent, `w_t` before it."""
        step = self.names.step_of(node)
        if step is None:
            return None
        bare, ahead = step
        current = self._symbol(bare)
        return self._moved_by(current, bare, node) if ahead else current

    def _moved_by(self, current: Value, parameter: Symbol, node: Node) -> Value:
        change = self._change(parameter, node)
        return self._elementwise("+", current, change, node)

    def _change(self, parameter: Symbol, node: Node) -> Value:
        """−η ∂L/∂w."""
        gradient = self._adjoint(parameter, node)
        rate = Name(node.at, self.names.rate(self.reading))
        return replace(gradient, node=Negate(node.at, Binary(node.at, "*", rate, gradient.node, end=node.end), end=node.end))

    def moved(self, parameter: Symbol) -> Value:
        """What `w ← …` sets: the weight after a step."""
        return self._moved_by(self._symbol(parameter), parameter, parameter)

    # ------------------------------------------------------------------ functions

    def _call(self, node: Call) -> Value:
        head = node.head
        if head.name == "Δ":
            parameter = node.arguments[0]
            assert isinstance(parameter, Symbol)
            return self._change(parameter, node)
        name = self.names.function(head)
        self._wholly_read(head, name, node)
        if node.options and head.name not in ("sum", "mean"):
            raise self.error(f"the option '{node.options[0][0]}' is not understood", node.options[0][1])
        if head.name in ("sum", "mean") and (node.options or len(node.arguments) == 1):
            return self._total(node)
        if head.name in ("dot", "matmul") and len(node.arguments) == 2:
            one, other = map(self.value, node.arguments)
            return self._matrix(_as_row(one, other), other, node)
        if head.name == "outer" and len(node.arguments) == 2:
            one, other = map(self.value, node.arguments)
            return self._matrix(replace(one, row=False), replace(other, row=True), node)
        if head.name == "multiply" and len(node.arguments) == 2:
            one, other = map(self.value, node.arguments)
            return self._elementwise("*", one, other, node)
        if head.name == "where":
            if len(node.arguments) != 3:
                raise self.error("'where' takes a condition and two values: where(z > 0, z, 0)", node)
            test, then, other = self._test(node.arguments[0]), *(self.value(a) for a in node.arguments[1:])
            test = replace(test, node=_plain_test(test.node))
            return self._joined("where", (test, then, other), node)
        arguments = tuple(map(self.value, node.arguments))
        if head.name == "diag" and len(arguments) == 1 and len(arguments[0].axes) == 1:
            axis = arguments[0].axes[0]
            other = self.fresh(axis)
            test = Binary(node.at, "==", Name(node.at, axis), Name(node.at, other), end=node.end)
            return Value(Apply(node.at, "where", (test, arguments[0].node, number(0)), end=node.end), (axis, other))
        if head.name == "norm_1":
            total = Value(Apply(node.at, "abs", (arguments[0].node,), end=node.end), arguments[0].axes)
            return self._over(total, total.axes, "sum", node)
        if head.name == "norm":
            squared = Binary(node.at, "^", arguments[0].node, number(2), end=node.end)
            total = self._over(Value(squared, arguments[0].axes), arguments[0].axes, "sum", node)
            return replace(total, node=Apply(node.at, "sqrt", (total.node,), end=node.end))
        if head.name == "softmax" or (name == "softmax" and len(arguments) == 1):
            return self._placed(self._softmax(arguments[0], node), head)
        if head.below and name == "log":
            base = self.value(head.below[0])
            top, bottom = (Apply(node.at, "log", (v.node,), end=node.end) for v in (arguments[0], base))
            return replace(arguments[0], node=Binary(node.at, "/", top, bottom, end=node.end))
        if name is None:
            name = self.names.generic(head, arguments[0].node, self.reading)
        if name is None:
            known = [*self.names.functions, *BUILT_IN]
            raise self.error(f"unknown function '{head.name}'{suggest(head.name, known)}", head)
        return self._applied(name, head.primes, arguments, node)

    def _wholly_read(self, head: Symbol, name: str | None, node: Node) -> None:
        """Refuses what hangs on a function's name and has no meaning there."""
        plain = name is None or self.names.is_declared_function(head)
        known = head.name in ("softmax", "log") and len(head.below) == 1
        layered = head.layer is not None and head.name not in GENERIC
        refused = (head.primes and head.name in _WITHOUT_PRIMES) or head.accent or layered or head.indices is not None
        if (head.below and not plain and not known) or refused:
            shown = self.source.whole[head.at : head.end]
            raise self.error(f"'{shown}' is not understood as a function", node)

    def _placed(self, value: Value, head: Symbol) -> Value:
        """softmax_j(z): the element j."""
        if not head.below:
            return value
        axis = value.axes[-1]
        place = self._letter(self._from_zero(head.below[0]), base_name(axis))
        return Value(put_indices(value.node, {axis: place}), value.axes[:-1], value.row)

    def _applied(self, name: str, primes: int, arguments: tuple[Value, ...], node: Node) -> Value:
        if name in _REWRITTEN and not primes:
            return replace(arguments[0], node=_REWRITTEN[name](arguments[0].node))
        expected = self.names.arguments_of(name)
        if expected is not None and not expected[0] <= len(arguments) <= expected[1]:
            words = str(expected[1]) if expected[0] == expected[1] else f"{expected[0]} to {expected[1]}"
            raise self.error(f"'{name}' takes {words} arguments, not {len(arguments)}", node)
        return self._joined(name + "'" * primes, arguments, node)

    def _joined(self, name: str, arguments: tuple[Value, ...], node: Node) -> Value:
        """A function of several values, brought onto the same axes."""
        widest = max(arguments, key=lambda a: len(a.axes))
        trees: list[Node] = []
        for a in arguments:
            pairs = self._aligned(widest, a) if a.axes else []
            if pairs is None:
                raise Misfit(f"the shapes {self.shape(widest)} and {self.shape(a)} do not fit", self.source.place(node.at))
            trees.append(renamed_tree(a.node, {b: x for x, b in pairs}))
        return replace(widest, node=Apply(node.at, name, tuple(trees), end=node.end))

    def _softmax(self, value: Value, node: Node) -> Value:
        if not value.axes:
            raise self.error("softmax is a function of a vector", node)
        axis = value.axes[-1]
        other = self.fresh(axis)
        top = Apply(node.at, "exp", (value.node,), end=node.end)
        total = Apply(node.at, "sum", (Name(node.at, other), renamed_tree(top, {axis: other})), end=node.end)
        return replace(value, node=Binary(node.at, "/", top, total, end=node.end))

    def _total(self, node: Call) -> Value:
        """`np.sum(dz, axis=0)`."""
        inner = self.value(node.arguments[0])
        options = dict(node.options)
        axis = options.pop("axis", None)
        options.pop("keepdims", None)  # an axis of one place meets any
        if options:
            raise self.error(f"the option '{next(iter(options))}' is not understood", next(iter(options.values())))
        axes = inner.axes
        if axis is not None:
            sign, number = (-1, axis.operand) if isinstance(axis, Negate) else (1, axis)
            if not isinstance(number, Number) or int(number.value) - (sign < 0) >= len(axes):
                raise self.error("the axis is a number, and there must be that many", axis)
            axes = (axes[sign * int(number.value)],)
        return self._over(inner, axes, node.head.name, node)

    def _over(self, value: Value, axes: Iterable[str], kind: str, node: Node) -> Value:
        tree = value.node
        for a in axes:
            over = self.fresh(a)
            tree = Apply(node.at, kind, (Name(node.at, over), renamed_tree(tree, {a: over})), end=node.end)
        return Value(tree, tuple(a for a in value.axes if a not in axes))

    def _reduce(self, node: Reduce) -> Value:
        if node.kind in ("sum", "prod") and not node.letters:
            if node.kind == "prod":
                raise self.error("a product runs over letters: \\prod_k", node)
            inner = self.value(node.body)
            # Σ without a letter: over the examples, or over the only axis there is
            axes = tuple(a for a in inner.axes if self.network.batch and self.fits(a, self.network.batch)) or inner.axes
            if not axes and self.network.batch and not self.one:
                raise self.error("say what the sum runs over: \\sum_n", node)
            return self._over(inner, axes, "sum", node)
        names = [s.name + "'" * s.primes for s in node.letters]
        for name, symbol in zip(names, node.letters, strict=True):
            if self.names.axes.get(name) == ():
                raise self.error(f"'{name}' is an array and cannot be an index as well", symbol)
        outer, sizes, ones = list(self.bound), dict(self.sizes), dict(self.from_one)
        for name in names:
            self.sizes.pop(name, None)
            self.from_one.pop(name, None)
            if node.lower is not None:
                self.from_one[name] = isinstance(node.lower, Number) and node.lower.value == 1
        free_before = dict(self.letters)
        self.bound += names
        inner = self.value(node.body)
        tree = inner.node
        if node.condition is not None:
            tree = self._under(_plain_test(self._test(node.condition).node), tree, node)
        axes = list(inner.axes)
        over: list[Name] = []
        for name, symbol in zip(names, node.letters, strict=True):
            whole = next((a for a in axes if base_name(a) == base_name(name) or self.size(a) == self.size(name)), None)
            if not _mentions(tree, name) and whole is not None:
                tree = renamed_tree(tree, {whole: name})
                axes.remove(whole)
            if self.size(name) == "?":
                counted = self.names.size_from(node.tally)
                if counted is None:
                    raise self.error(f"the index '{name}' is not used in the sum", symbol)
                self.sizes[name] = counted
            for limit in self._limits(name, node):
                tree = self._under(limit, tree, node)
            own = self.fresh(name)
            tree = renamed_tree(tree, {name: own})
            over.append(Name(symbol.at, own, end=symbol.end))
        self.bound, self.from_one = outer, ones
        for name in names:
            self.sizes.pop(name, None)
            if name in sizes:
                self.sizes[name] = sizes[name]
            if name not in free_before:
                self.letters.pop(name, None)
        if node.kind == "min":
            tree = Negate(node.at, tree, end=node.end)
        kind = "greatest" if node.kind in ("max", "min") else node.kind
        result: Node = Apply(node.at, kind, (*over, tree), end=node.end)
        return Value(Negate(node.at, result, end=node.end) if node.kind == "min" else result, tuple(axes))

    def _under(self, test: Node, tree: Node, node: Reduce) -> Node:
        """The body of a sum or product where a condition holds: 0 or 1 elsewhere."""
        if node.kind == "sum":
            return Binary(node.at, "*", tree, indicator(test, node), end=node.end)
        if node.kind == "prod":
            return Apply(node.at, "where", (test, tree, number(1, node)), end=node.end)
        raise self.error(f"a {node.kind} over some of the places is not understood", node)

    def _limits(self, name: str, node: Reduce) -> Iterator[Node]:
        """What the limits of a sum ask of its letter, where they are not those of the axis; `\\sum_{k=1}^{K}` is the whole."""
        letter = Name(node.at, name)
        lower, upper = node.lower, node.tally
        if lower is not None and not (isinstance(lower, Number) and lower.value in (0, 1)):
            bare = self.letter_name(lower)
            first = Value(Name(node.at, bare)) if bare in {*self.bound, *self.letters} else self.value(lower)  # type: ignore[arg-type]
            if first.axes:
                raise self.error("a sum begins at a number or a letter", lower)
            begins = number(1, node) if isinstance(lower, Number) else number(0, node)
            yield Binary(node.at, ">=", Binary(node.at, "+", letter, begins), first.node, end=node.end)
        if upper is None:
            return
        last = self.names.size_from(upper)
        if last is not None and self.names.same_size(last, self.size(name)) and not self._is_zero(lower):
            return
        if isinstance(upper, Binary) and self._is_zero(lower) and self._is_last(upper, name):
            return
        end = self.value(upper)
        if end.axes:
            raise self.error("a sum ends at a number, a size or a letter", upper)
        # Sizes and numbers count from 1, and so the letter does, unless the sum begins at 0; letters count alike.
        counts = bool(names_in(end.node) & {*self.bound, *self.letters}) and not self.from_one.get(name)
        shift = number(0 if counts or self._is_zero(lower) else 1, node)
        yield Binary(node.at, "<=", Binary(node.at, "+", letter, shift), end.node, end=node.end)

    @staticmethod
    def _is_zero(node: Node | None) -> bool:
        return isinstance(node, Number) and node.value == 0

    def _is_last(self, upper: Binary, name: str) -> bool:
        """Whether a limit is N-1, the last place counted from 0."""
        size = self.names.size_from(upper.left)
        one = isinstance(upper.right, Number) and upper.right.value == 1
        return upper.operator == "-" and one and size is not None and self.names.same_size(size, self.size(name))

    def _cases(self, node: Cases) -> Value:
        value: Node | None = None
        for branch, condition in reversed(node.branches):
            inner = self.value(branch)
            if inner.axes:
                raise self.error("cases are told apart by indices: write these", branch)
            if condition is None or (value is None and self._is_rest(node)):
                value = inner.node
            else:
                test = self._test(condition)
                if test.axes:
                    raise self.error("cases are told apart by indices: write these", condition)
                if value is None:
                    value = Binary(node.at, "/", number(0, node), number(0, node), end=node.end)  # nothing is said of the rest
                value = Apply(node.at, "where", (_plain_test(test.node), inner.node, value), end=node.end)
        assert value is not None
        return Value(value)

    @staticmethod
    def _is_rest(node: Cases) -> bool:
        """Whether the last of two conditions is all that the first leaves, but for a kink: z > 0 and z <= 0."""
        if len(node.branches) != 2:
            return False
        one, other = (condition for _, condition in node.branches)
        if not isinstance(one, Binary) or not isinstance(other, Binary):
            return False
        rest = {"<": (">", ">="), "<=": (">", ">="), ">": ("<", "<="), ">=": ("<", "<="), "==": ("!=",), "!=": ("==",)}
        same = _plain_text(one.left) == _plain_text(other.left) and _plain_text(one.right) == _plain_text(other.right)
        return same and other.operator in rest.get(one.operator, ())

    # ------------------------------------------------------------------ derivatives

    def _derivative(self, node: Derivative) -> Value:
        of, (first, *more) = node.of, node.wrt
        if self.names.is_optimiser and isinstance(of, Symbol) and self.names.is_loss(of):
            if more or (self.names.state_of(first) or ("",))[0] != "w":
                raise self.error("a rule differentiates the loss by its weight: ∂L/∂w", first)
            return Value(Name(node.at, "g", end=node.end))
        if node.partial and self.mixed and not more:
            notes = {"direct": "∂ is read with all other arguments held fixed, d as the whole derivative"}
            if self.reading.choose("partial", ("total", "direct"), notes) == "direct":
                return self._direct(of, first, node)
        if isinstance(of, Symbol) and self.names.is_loss(of):
            self._of_one(of)
            return self._by(self._adjoint(first, node), more, node)
        if more:
            inner = Derivative(node.at, of, node.wrt[:-1], end=node.end)
            return self._by(self._derivative(inner), more[-1:], node)
        variable = self.letter_name(first)
        if variable is not None and variable in self.names.variables:
            return self._by_variable(self.value(of), self.names.variables[variable], node)
        return self._by(self.value(of), [first], node)

    def _of_one(self, loss: Symbol) -> None:
        """L_i is the loss of one example."""
        if not loss.below or loss.below_text in ("total", "tot"):
            return
        if self.network.batch is not None and not self.one:
            raise self.error(f"{loss.name}_{loss.below_text} is the loss of one example", loss)
        self.reading.notes["loss"] = f"{loss.name}_{loss.below_text} is read as the loss" + (
            " of one example" if self.one else ""
        )

    def _direct(self, of: Node, wrt: Symbol, node: Node) -> Value:
        """∂f/∂x by the places at which x stands in the formula of f itself."""
        value, target = self.value(of), self.value(wrt)
        element = target.node
        if not isinstance(element, (Item, Name)) or element.name not in self.names.axes or value.axes or target.axes:
            raise self.error("a partial derivative beside a whole one is read for single values: give them indices", node)
        indices = element.indices if isinstance(element, Item) else ()
        return Value(self.names.direct(value.node, Item(element.at, element.name, indices), node, self))

    def _by(self, value: Value, wrt: Sequence[Symbol], node: Node) -> Value:
        for symbol in wrt:
            target = self.value(symbol)
            element = target.node
            if not isinstance(element, (Item, Name)) or element.name not in self.names.axes:
                raise self.error("name the array to differentiate with respect to", symbol)
            if isinstance(element, Name):
                element = Item(element.at, element.name, (), end=element.end)
            batch = self.names.network.batch
            shared = [(a, b) for a in value.axes for b in target.axes if base_name(a) == base_name(b) == batch]
            if self._place_by_place(value, target, element.name):
                places = dict(zip(target.axes, value.axes, strict=True))
                element = replace(element, indices=tuple(renamed_tree(i, places) for i in element.indices))
                target = replace(target, axes=())
            elif shared and self.names.are_apart(names_in(value.node), element.name):
                # the examples stand once: each has a derivative of its own
                a, b = shared[0]
                element = replace(element, indices=tuple(renamed_tree(i, {b: a}) for i in element.indices))
                target = replace(target, axes=tuple(i for i in target.axes if i != b))
            tree = self.names.derivative(value.node, element, node, self)
            value = Value(tree, (*value.axes, *target.axes))
        return value

    def _place_by_place(self, value: Value, target: Value, wrt: str) -> bool:
        """Whether da/dz of an activation is read as its derivative at each place rather than as a matrix."""
        axes = [a for a in target.axes if base_name(a) != self.network.batch]
        alike = len(value.axes) == len(target.axes) and all(map(self.fits, value.axes, target.axes))
        if not axes or not alike or not self.names.is_elementwise(value.node, wrt):
            return False
        notes = {"elementwise": "the derivative of an activation is read place by place"}
        return self.reading.choose("derivative", ("matrix", "elementwise"), notes) == "elementwise"

    def _by_variable(self, value: Value, variable: str, node: Node) -> Value:
        return replace(value, node=self.names.derivative(value.node, Item(node.at, variable, ()), node, self))

    def _adjoint(self, symbol: Symbol, node: Node) -> Value:
        """∂L/∂symbol as the array that the derivation computes."""
        known = self._likeliest(symbol)
        if not known:
            value = self._symbol(symbol)  # says what is unknown
            raise self.error("name one array to differentiate with respect to", node if value.axes else symbol)
        problem: FormulaError | None = None
        for meaning in known:
            try:
                value = self._array(symbol, meaning)
            except FormulaError as error:
                problem = problem or error
                continue
            element = value.node
            if isinstance(element, (Item, Name)):
                adjoint = self.names.adjoint(element.name)
                if adjoint is None:
                    names = [a for a in self.names.adjoints]
                    raise self.error(
                        f"there is no derivative with respect to '{element.name}'{suggest(element.name, names)}", symbol
                    )
                tree = (
                    Name(node.at, adjoint, end=node.end)
                    if isinstance(element, Name)
                    else Item(node.at, adjoint, element.indices, end=node.end)
                )
                self.used.add(adjoint)
                turned = (adjoint in self.turned) != (element.name in self.turned) and len(value.axes) == 2
                return replace(value, node=tree, axes=value.axes[::-1] if turned else value.axes)
        raise problem or self.error("name one array to differentiate with respect to", symbol)


def _as_row(left: Value, right: Value) -> Value:
    """What NumPy takes a vector before a product for: a row."""
    return replace(left, row=True) if len(left.axes) == 1 and not left.row and not right.row else left


def _plain_test(test: Node) -> Node:
    """A comparison that a choice can be made by; 1[y = k] is its label's size."""
    return test.right if isinstance(test, Binary) and test.operator == "label" else test


def _plain_text(node: Node) -> str:
    """A tree without its places, to compare."""
    return re.sub(r"\b(?:at|end)=-?\d+,? ?", "", repr(node))


def _first_letter(node: Node) -> str | None:
    """The letter of `t-1`."""
    match node:
        case Binary(left=left):
            return _first_letter(left)
        case Symbol(name=name):
            return name
        case _:
            return None


def _reciprocal(name: str) -> Callable[[Node], Node]:
    def made(argument: Node) -> Node:
        inner: Node = Apply(argument.at, name, (argument,), end=argument.end)
        return Binary(argument.at, "/", number(1), inner, end=argument.end)

    return made


_WITHOUT_PRIMES = ("sum", "mean", "dot", "matmul", "outer", "multiply", "where", "diag", "norm", "norm_1", "softmax")
_REWRITTEN: Mapping[str, Callable[[Node], Node]] = {
    "square": lambda a: Binary(a.at, "^", a, number(2), end=a.end),
    "sech": _reciprocal("cosh"),
    "coth": _reciprocal("tanh"),
    "ln": lambda a: Apply(a.at, "log", (a,), end=a.end),
    "sgn": lambda a: Apply(a.at, "sign", (a,), end=a.end),
    "identity": lambda a: a,
    "id": lambda a: a,
}


def _mentions(node: Node, letter: str) -> bool:
    return any(isinstance(n, Name) and n.name == letter for n in nodes_of(node))


# ---------------------------------------------------------------------- the text of a claim

# What a side condition begins with: words, or a space before brackets.
_BEGINS = re.compile(
    r"(?P<word>(?:(?<!\\)[,;]|\\q?quad(?![a-z])|\\[,;: ]|\s|\()*(?:\\(?:text|mathrm|mbox|textrm)\s*\{\s*)?"
    r"\b(?:if|for|when|where|whenever|provided|falls|wenn)\b\s*(?:all|every)?(?:\s*\})?)"
    r"|(?P<space>(?<!\\)[,;]?\s*\\q?quad(?![a-z])\s*(?=\(|\[))|(?P<comma>(?<!\\)[,;]\s*(?:\\[,;: ]|\\q?quad(?![a-z])|\s)*)"
)
_RELATION = re.compile(r"<|>|=|≠|≤|≥|\\(?:neq?|leq?|geq?|lt|gt|not)(?![a-zA-Z])")
_LETTERS_ALIKE = re.compile(r"\(?\s*[^\W\d_]'?\s*(?:=|==|\\equiv)\s*[^\W\d_]'?\s*\)?\s*")
_EQUALS = re.compile(r"(?<![<>=!:])(?:=|:=|≈|\\approx(?![a-z])|\\equiv(?![a-z])|←|\\leftarrow(?![a-z])|\\gets(?![a-z]))(?![=])")


@dataclass(frozen=True)
class Text:
    """A claim cut into its sides: where each stands, whether it sets a weight (`w ← …`), and the condition it holds under."""

    sides: tuple[Source, ...]
    sets: bool = False
    condition: Source | None = None


def cut(claim: str, name: str = "<claim>") -> Text:
    """The sides of a claim. Raises `FormulaError` where there is no equality or a side is empty."""
    if (opened := _unclosed(claim)) is not None:
        raise FormulaError(f"this '{claim[opened]}' is not closed", Source(name, claim).place(opened))
    stop = len(re.sub(r"[\s.,;$]+$", "", claim)) if claim.strip() else len(claim)
    condition = _condition(claim, stop, name)
    if condition is not None:
        begin, condition_source = condition
        stop = len(re.sub(r"[\s.,;$]+$", "", claim[:begin]))
    else:
        condition_source = None
    cuts = [m for m in _EQUALS.finditer(claim, 0, stop) if _is_outside(claim, m.start())]
    starts, ends = [0, *(m.end() for m in cuts)], [*(m.start() for m in cuts), stop]
    sides = tuple(Source(name, claim, a, b) for a, b in zip(starts, ends, strict=True))
    for side in sides:
        if not re.sub(r"[\s$]", "", side.text):
            raise FormulaError("one side of this equality is empty", side.place(side.start))
    if len(sides) < 2:
        raise FormulaError("a claim is an equality, such as dL/dW = …", Source(name, claim).place(0))
    sets = bool(cuts) and cuts[0].group() in ("←", ":=", "\\leftarrow", "\\gets")
    return Text(sides, sets, condition_source)


def _condition(claim: str, stop: int, name: str) -> tuple[int, Source] | None:
    """Where the side condition of a claim begins, and its text: `…, if i ≠ j`, `…\\quad (x < 0)`, `…, z > 0`."""
    for found in _BEGINS.finditer(claim, 0, stop):
        begin, rest = found.start(), claim[found.end() : stop]
        outside = _is_outside(claim, begin) and any(_is_outside(claim, m.start()) for m in _EQUALS.finditer(claim, 0, begin))
        if not outside or not found.group() or not _is_relation(rest):
            continue
        if re.search(r"[-+*/=(^_,]\s*$", claim[:begin]) or (found["word"] and re.match(r"where\(", found["word"].strip() + rest)):
            continue  # the function where(…)
        if found["comma"] is not None and found["word"] is None and _EQUALS.search(rest) and not _LETTERS_ALIKE.fullmatch(rest):
            continue  # another statement, no condition
        if (
            found["comma"] is not None
            and found["word"] is None
            and any(_is_outside(rest, m.start()) for m in _BEGINS.finditer(rest) if m.group() and m["comma"] is None)
        ):
            continue  # the condition proper comes later
        return begin, Source(name, claim, found.end(), stop)
    return None


def _is_relation(text: str) -> bool:
    """Whether a text compares something outside of brackets, but for those around the whole."""
    text = re.sub(r"^[\s$]*\\?(?:left)?[(\[](.*)(?:\\right)?[)\]][\s.$]*$", r"\1", text, flags=re.DOTALL)
    return any(_is_outside(text, m.start()) for m in _RELATION.finditer(text))


def _unclosed(text: str) -> int | None:
    """Where a brace is opened that nothing closes."""
    opened: list[int] = []
    for k, c in enumerate(text):
        if text[k - 1 : k] == "\\":
            continue
        if c == "{":
            opened.append(k)
        elif c == "}" and opened:
            opened.pop()
    return opened[-1] if opened else None


def _is_outside(text: str, at: int) -> bool:
    """Whether no bracket is open at a place: `axis=0` and `\\sum_{i=1}` are no equalities of the claim."""
    depth = text.count("\\begin{", 0, at) - text.count("\\end{", 0, at)
    for c in text[:at]:
        depth += (c in "([{") - (c in ")]}")
    return depth <= 0


def read_sides(text: Text, names: Names) -> list[Sequence[Node]]:
    """The trees of each side: one, or two where a fraction can be read in two ways."""
    return [reader_for(s, names.known, names.is_function, names.axes, names.depends) for s in text.sides]


def read_condition(text: Text, names: Names) -> Node | None:
    """The tree of the condition that a claim holds under."""
    if text.condition is None:
        return None
    return reader_for(text.condition, names.known, names.is_function, names.axes, names.depends, condition=True)[0]
