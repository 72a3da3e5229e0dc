"""Formula text to a tree that remembers its places; needs no SymPy and evaluates nothing.

    sum(d, x[n,d]*W1[d,h]) + b1[h]

is read by a Pratt parser with the precedences of mathematics: comparisons, `+ -`, `* /`, unary minus, `^` (or `**`,
right associative). Names may carry primes at their end. What a name means is not decided here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from .errors import FormulaError, Source

MAX_LENGTH = 200_000  # characters of one formula text
MAX_DEPTH = 60  # nested brackets: each costs a few Python frames here and in the stages after
MAX_DIGITS = 60  # digits and exponent of one number


@dataclass(frozen=True)
class Node:
    """A node and the offsets in the source where it begins and, where that is known, ends."""

    at: int
    end: int = field(default=-1, kw_only=True, compare=False)


@dataclass(frozen=True)
class Number(Node):
    """A decimal number, kept exactly."""

    value: Fraction


@dataclass(frozen=True)
class Name(Node):
    """A name, with its primes."""

    name: str


@dataclass(frozen=True)
class Item(Node):
    """`name[index, …]`."""

    name: str
    indices: tuple[Node, ...]


@dataclass(frozen=True)
class Apply(Node):
    """`name(argument, …)`: a function, a derivative (`f'`), or a reduction (`sum(i, …)`)."""

    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True)
class Negate(Node):
    """`-operand`."""

    operand: Node


@dataclass(frozen=True)
class Binary(Node):
    """`left operator right` with an operator of `+ - * / ^` or a comparison."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Definition:
    """`left = right`."""

    left: Node
    right: Node


@dataclass(frozen=True)
class Token:
    """A piece of text: its kind, the text and its offset."""

    kind: str
    text: str
    at: int


_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+|\#[^\n]*)"
    r"|(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[^\W\d]\w*'*)"
    r"|(?P<sign>\*\*|->|→|<=|>=|==|!=|[-+*/^()\[\],=<>≤≥≠])"
)
_BINDING = {"<": 1, ">": 1, "<=": 1, ">=": 1, "==": 1, "!=": 1, "+": 2, "-": 2, "*": 3, "/": 3, "^": 5}
_MINUS = 4
# What people paste from a page or a paper.
_SAME = str.maketrans({"−": "-", "·": "*", "×": "*", "∗": "*", "⁄": "/", "′": "'", "’": "'"})


def tokens(source: Source) -> Iterator[Token]:
    """The tokens of a text; raises `FormulaError` at a character that no formula has."""
    if len(source.text) > MAX_LENGTH:
        raise FormulaError(f"a formula has at most {MAX_LENGTH:,} characters", source.place(source.start))
    text = source.whole.translate(_SAME)
    at, end = source.start, len(text) if source.end is None else source.end
    while at < end:
        match = _TOKEN.match(text, at, end)
        if match is None:
            raise FormulaError(f"the character {text[at]!r} has no place in a formula", source.place(at))
        if match.lastgroup != "space":
            kind = match.lastgroup or ""
            if kind == "name" and len(match.group()) > 64:
                raise FormulaError("a name has at most 64 characters", source.place(at))
            yield Token(kind, {"**": "^", "→": "->", "≤": "<=", "≥": ">=", "≠": "!="}.get(match.group(), match.group()), at)
        at = match.end()


class Reader:
    """Reads tokens from left to right, one ahead; shared by formulas and chains."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._tokens = list(tokens(source))
        end = len(source.whole) if source.end is None else source.end
        text = source.whole[source.start : end]
        self._tokens.append(Token("end", "", source.start + len(text.rstrip())))
        self._next = 0
        self._depth = 0

    @property
    def token(self) -> Token:
        """The token ahead."""
        return self._tokens[self._next]

    def peek(self, distance: int) -> Token:
        """A token further ahead."""
        return self._tokens[min(self._next + distance, len(self._tokens) - 1)]

    def ahead(self, sign: str) -> bool:
        """Whether this sign comes next."""
        return self.token.kind == "sign" and self.token.text == sign

    def take(self) -> Token:
        """The token ahead, and move on."""
        token = self.token
        if token.kind != "end":
            self._next += 1
        return token

    def expect(self, text: str, after: str) -> Token:
        """Take this sign or say that it is missing."""
        if not self.ahead(text):
            raise self.error(f"expected '{text}' {after}, found {self.found()}")
        return self.take()

    def found(self) -> str:
        """The token ahead, in words."""
        return f"'{self.token.text[:40]}'" if self.token.kind != "end" else "the end"

    def error(self, message: str, at: int | None = None) -> FormulaError:
        """An error with its place."""
        return FormulaError(message, self.source.place(self.token.at if at is None else at))

    def deeper(self, what: str) -> None:
        """Go into a bracket or an operand, or say that there are too many within one another; `shallower` leaves it."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self.error(f"more than {MAX_DEPTH} nested {what}")

    def shallower(self) -> None:
        """Leave what `deeper` went into."""
        self._depth -= 1

    def expression(self, binding: int = 0) -> Node:
        """An expression whose operators bind tighter than `binding`."""
        self.deeper("brackets or signs")
        left = self._operand()
        while self.token.kind == "sign" and _BINDING.get(self.token.text, 0) > binding:
            operator = self.take()
            # `^` is right associative: its right side may hold another one.
            tightness = _BINDING[operator.text] - (operator.text == "^")
            right = self.expression(tightness)
            left = Binary(operator.at, operator.text, left, right)
        self.shallower()
        return left

    def _operand(self) -> Node:
        token = self.take()
        if token.kind == "number":
            return Number(token.at, self._number(token))
        if token.kind == "name":
            return self._named(token)
        if token.text == "-":
            return Negate(token.at, self.expression(_MINUS - 1))
        if token.text == "+":
            return self.expression(_MINUS - 1)
        if token.text == "(":
            inside = self.expression()
            self.expect(")", "to close the bracket")
            return inside
        self._next -= token.kind != "end"
        raise self.error(f"expected a number, a name or a bracket, found {self.found()}")

    def _number(self, token: Token) -> Fraction:
        digits, _, exponent = token.text.lower().partition("e")
        if len(digits) > MAX_DIGITS or len(exponent) > 4 or abs(int(exponent or 0)) > 300:
            raise self.error("this number is too long or too large", token.at)
        return Fraction(token.text)

    def _named(self, token: Token) -> Node:
        follows = self.token.text if self.token.kind == "sign" else ""
        if follows == "[":
            self.take()
            indices = self.listed("]")
            return Item(token.at, token.text, indices)
        if follows == "(":
            self.take()
            return Apply(token.at, token.text, self.listed(")"))
        return Name(token.at, token.text)

    def listed(self, closing: str) -> tuple[Node, ...]:
        """Expressions with commas between, up to and with the closing bracket."""
        items = [self.expression()]
        while self.ahead(","):
            self.take()
            items.append(self.expression())
        self.expect(closing, "or a comma")
        return tuple(items)

    def finish(self) -> None:
        """Say what is left over, if anything."""
        if self.token.kind != "end":
            raise self.error(f"expected an operator or the end, found {self.found()}")


def parse_expression(source: Source) -> Node:
    """The tree of an expression; the whole text is consumed."""
    reader = Reader(source)
    node = reader.expression()
    reader.finish()
    return node


def parse_definition(source: Source) -> Definition:
    """The tree of `left = right`; the whole text is consumed."""
    reader = Reader(source)
    left = reader.expression()
    reader.expect("=", "between the two sides of an equation")
    right = reader.expression()
    reader.finish()
    return Definition(left, right)


def nodes_of(node: Node) -> Iterator[Node]:
    """A tree's nodes in the order of the text; without recursion, as a sum of a thousand terms is a tree a thousand deep."""
    todo = [node]
    while todo:
        node = todo.pop()
        yield node
        match node:
            case Item(indices=inner) | Apply(arguments=inner):
                todo += reversed(inner)
            case Negate(operand=operand):
                todo.append(operand)
            case Binary(left=left, right=right):
                todo += [right, left]
            case _:
                pass


def split_lines(source: Source) -> Iterator[Source]:
    """The equations of a text: one a line, a line that ends inside a bracket goes on; `#` starts a comment."""
    depth, start, at = 0, source.start, source.start
    for line in source.text.splitlines(keepends=True):
        code = line.partition("#")[0]
        depth += sum(code.count(c) for c in "([") - sum(code.count(c) for c in ")]")
        at += len(line)
        if depth <= 0 or at - source.start >= len(source.text):
            part = source.part(start, at)
            if any(t.partition("#")[0].strip() for t in part.text.splitlines()):
                yield part
            depth, start = 0, at
