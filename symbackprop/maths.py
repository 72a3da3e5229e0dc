r"""Mathematics as people write it, LaTeX or plain text, to a tree that remembers its places; what names mean is not decided here.

    \frac{\partial L}{\partial v_1} = -(y-y')\,f_B'(z_B)\,o_1        dL/dW1 = X^T ((p - y) W2^T ∘ σ'(z1)) / N

One grammar reads both. Products may be written by putting factors side by side; names carry subscripts, superscripts, accents
and primes; a run of letters that is no known name is read as a product of known ones. The whole text is consumed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Any, cast

from .errors import FormulaError, Source
from .maths_tokens import ACCENTS, FUNCTIONS, GREEK, HATTED, IGNORED, REDUCTIONS, STYLES, VULGAR, Piece, pieces_of
from .parse import MAX_DEPTH, Binary, Negate, Node, Number


@dataclass(frozen=True)
class Symbol(Node):
    r"""A name with what hangs on it: `\hat y^{(1)}_{ij}`, `W1[i,j]`, `a^2` (a power or a layer), `f'`."""

    name: str
    accent: str = ""
    below: tuple[Node, ...] = ()
    below_text: str = ""
    layer: Node | None = None
    raised: Node | None = None
    primes: int = 0
    indices: tuple[Node, ...] | None = None
    bracket: str = ""  # how the layer was bracketed: "(" as code has powers, "{(" as LaTeX has layers and examples


@dataclass(frozen=True)
class Call(Node):
    """A function of values; which function, its symbol says."""

    head: Symbol
    arguments: tuple[Node, ...]
    options: tuple[tuple[str, Node], ...] = ()


@dataclass(frozen=True)
class Transpose(Node):
    """The transposed of a matrix; `letter` where it is written with a T, which may be a size."""

    operand: Node
    letter: bool = False


@dataclass(frozen=True)
class Reduce(Node):
    """A sum, mean, product or greatest value over letters, perhaps under a condition on them."""

    kind: str
    letters: tuple[Symbol, ...]
    body: Node
    condition: Node | None = None
    tally: Node | None = None  # the upper limit, which counts
    lower: Node | None = None


@dataclass(frozen=True)
class Differential(Node):
    """`∂w`, `dL`, `∂²L`: half of a derivative."""

    operand: Node | None
    order: int = 1
    powered: Node | None = None  # the same with what may be a power or a layer: ∂w²
    partial: bool = False  # ∂, where d is the whole derivative


@dataclass(frozen=True)
class Derivative(Node):
    """The derivative of something with respect to one array after another."""

    of: Node
    wrt: tuple[Symbol, ...]
    partial: bool = False


@dataclass(frozen=True)
class Cases(Node):
    """Values under conditions; the last one may hold otherwise."""

    branches: tuple[tuple[Node, Node | None], ...]


COMPARISONS = ("<", ">", "<=", ">=", "==", "!=", "∧")


def read(source: Source, known: Collection[str], tight: bool = False) -> Node:
    """The tree of an expression; the whole text is consumed.

    `known` are the names that a run of letters may be taken apart into. In the `tight` reading, what is put side by side
    behind a `/` belongs to the denominator: `1/2m` is 1/(2m).
    """
    reader = _Reader(source, known, tight)
    node = reader.expression()
    if reader.token.kind != "end":
        raise reader.error(f"expected an operator or the end, found {reader.found()}")
    return node


class _Reader:
    def __init__(self, source: Source, known: Collection[str], tight: bool) -> None:
        self.source, self.known, self.tight = source, known, tight
        self.pieces = [p for p in pieces_of(source) if p.text != "&" or "cases" in source.text]
        stop = len(source.whole) if source.end is None else source.end
        last = source.start + len(source.whole[source.start : stop].rstrip())
        self.pieces.append(Piece("end", "", last, last))
        self.next = 0
        self.depth: int = 0
        self.bars: int = 0
        self.is_flat = False  # whether a fraction could be read in two ways, such as 1/2m

    @property
    def token(self) -> Piece:
        return self.pieces[self.next]

    def ahead(self, *signs: str) -> bool:
        return self.token.kind == "sign" and self.token.text in signs

    def take(self) -> Piece:
        token = self.token
        if token.kind != "end":
            self.next += 1
        return token

    @property
    def reached(self) -> int:
        """Where what was read so far ends."""
        return self.pieces[self.next - 1].end if self.next else self.source.start

    def found(self) -> str:
        return f"'{self.source.whole[self.token.at : self.token.end]}'" if self.token.kind != "end" else "the end"

    def error(self, message: str, at: int | None = None) -> FormulaError:
        return FormulaError(message, self.source.place(self.token.at if at is None else at))

    def expect(self, sign: str, after: str) -> None:
        if not self.ahead(sign):
            raise self.error(f"expected '{sign}' {after}, found {self.found()}")
        self.take()

    # ------------------------------------------------------------------ sums and products

    def relation(self) -> Node:
        left = self.expression()
        whole: Node | None = None
        while self.ahead("<", ">", "<=", ">=", "==", "!=", "="):
            sign = self.take().text
            right = self.expression()
            test = Binary(left.at, "==" if sign == "=" else sign, left, right, end=self.reached)
            # 0 < z < 1 is both: a product of indicators
            whole = test if whole is None else Binary(whole.at, "∧", whole, test, end=self.reached)
            left = right
        return left if whole is None else whole

    def condition_whole(self) -> Node:
        """Relations joined by `and` or commas; the whole text is consumed."""
        node = self.relation()
        while self.token.text in ("and", "∧", ",") and self.token.kind in ("name", "sign", "command"):
            self.take()
            right = self.relation()
            node = Binary(node.at, "∧", node, right, end=self.reached)
        if self.token.kind != "end":
            raise self.error(f"expected the end of the condition, found {self.found()}")
        if not isinstance(node, Binary) or node.operator not in ("∧", "<", ">", "<=", ">=", "==", "!="):
            raise self.error("a condition is a comparison, such as z > 0", node.at)
        return node

    def expression(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(f"more than {MAX_DEPTH} nested brackets or signs")
        start = self.token.at
        left = self.product()
        while self.ahead("+", "-"):
            sign = self.take().text
            right = self.product()
            left = Binary(start, sign, left, right, end=self.reached)
        self.depth -= 1
        return left

    def product(self) -> Node:
        """Factors with signs between or side by side; what is side by side binds before ⊙ does."""
        if self.ahead("-", "+"):
            sign = self.take()
            inner = self.product()
            return Negate(sign.at, inner, end=self.reached) if sign.text == "-" else inner
        segments: list[Node] = []
        joints: list[str] = []
        segments.append(self.segment())
        while self.ahead("⊙", "⊘"):
            joints.append(self.take().text)
            segments.append(self.segment())
        result = segments[0]
        for sign, segment in zip(joints, segments[1:], strict=True):
            result = Binary(result.at, sign, result, segment, end=segment.end)
        return result

    def derived(self) -> Node:
        """A factor, or the derivative that begins with it: `x·∂z/∂v` is x times a derivative."""
        node = self.factor()
        top = self.differential(node) if self.ahead("/") else None
        if top is None:
            return self.applied(node)
        before = self.next
        self.take()
        below = self.factor()
        bottom = self.differentials(below)
        while bottom and sum(b.order for b in bottom) < top.order and self.begins_factor():
            more = self.factor()
            below = Binary(below.at, " ", below, more, end=more.end)
            bottom = self.differentials(below)
        if bottom:
            return self.applied(self.quotient(node, below))
        self.next = before
        return node

    def applied(self, node: Node) -> Node:
        """∂/∂v applies to all that follows."""
        if not (isinstance(node, Derivative) and isinstance(node.of, Number) and node.of.end < 0):
            return node
        if self.ahead("*", "·"):
            self.take()
        if not self.begins_factor():
            raise self.error("a derivative needs something to differentiate: ∂/∂v z", node.at)
        rest = self.derived()
        while self.begins_factor() or self.ahead("*", "/", "·"):
            if self.ahead("/"):
                self.take()
                rest = self.quotient(rest, self.signed_factor())
            else:
                sign = self.take().text if self.ahead("*", "·") else " "
                rest = self.times(rest, sign, self.factor())
        return replace(node, of=rest, end=rest.end)

    def segment(self) -> Node:
        result = self.derived()
        while True:
            if self.ahead("*", "/", "@", "·"):
                sign = self.take().text
                other = self.signed_factor()
                self.is_flat |= sign == "/" and self.begins_factor()
                if sign == "/" and self.tight:
                    while self.begins_factor():
                        more = self.factor()
                        other = Binary(other.at, " ", other, more, end=more.end)
                result = self.quotient(result, other) if sign == "/" else self.times(result, sign, other)
            elif self.begins_factor():
                result = self.times(result, " ", self.derived())
            else:
                return result

    def signed_factor(self) -> Node:
        if self.ahead("-", "+"):
            sign = self.take()
            inner = self.signed_factor()
            return Negate(sign.at, inner, end=inner.end) if sign.text == "-" else inner
        return self.derived()

    def times(self, left: Node, sign: str, right: Node) -> Node:
        return Binary(left.at, sign, left, right, end=right.end)

    def quotient(self, above: Node, below: Node) -> Node:
        """A fraction, or a derivative where both sides are differentials."""
        top, bottom = self.differential(above), self.differentials(below)
        if top is not None and isinstance(below, Transpose) and self.differentials(below.operand):
            return Transpose(above.at, self.quotient(above, below.operand), end=below.end)  # dL/dS^T
        if top is not None and bottom and sum(b.order for b in bottom) != top.order:
            # ∂b² is the array b² of layer 2 where the order of the derivative says so
            bottom = [replace(b, operand=b.powered, order=1) if b.powered is not None else b for b in bottom]
        if top is not None and bottom:
            wrt: list[Symbol] = []
            for part in bottom:
                if not isinstance(part.operand, Symbol):
                    raise self.error("name the array to differentiate with respect to", part.at)
                wrt += [part.operand] * part.order
            if len(wrt) != top.order and not (top.order == 1 and len(wrt) == 1):
                raise self.error(f"a derivative of order {top.order} by {len(wrt)} variables", above.at)
            nothing = Number(above.at, Fraction(0))
            return Derivative(above.at, top.operand or nothing, tuple(wrt), top.partial, end=below.end)
        return Binary(above.at, "/", above, below, end=below.end)

    def differential(self, node: Node) -> Differential | None:
        found = self.differentials(node)
        return found[0] if len(found) == 1 else None

    def differentials(self, node: Node) -> list[Differential]:
        """What a numerator or denominator of a derivative is made of; nothing where it is none."""
        match node:
            case Differential():
                return [node]
            case Binary(operator=" ", left=Symbol(name="d", below=(), layer=None, indices=None) as d, right=right):
                order = int(d.raised.value) if isinstance(d.raised, Number) else 1
                return [self._with_power(Differential(node.at, right, order, end=node.end))]
            case Binary(operator=" " | "*" | "·", left=left, right=right):
                first, second = self.differentials(left), self.differentials(right)
                return [*first, *second] if first and second else []
            case Symbol(name="d", below=(), layer=None, indices=None, primes=0):
                return [
                    Differential(node.at, None, int(node.raised.value) if isinstance(node.raised, Number) else 1, end=node.end)
                ]
            case Symbol(name=name) if len(name) > 1 and name[0] == "d" and name not in self.known_plain:
                return [self._with_power(Differential(node.at, replace(node, name=name[1:], at=node.at + 1), end=node.end))]
            case Call(head=Symbol(name="d"), arguments=(inner,)):
                return [Differential(node.at, inner, end=node.end)]
            case Call(head=Symbol(name=name), arguments=_) if len(name) > 1 and name[0] == "d" and name not in self.known:
                return [Differential(node.at, replace(node, head=replace(node.head, name=name[1:])), end=node.end)]
            case _:
                return []

    @functools.cached_property
    def known_plain(self) -> frozenset[str]:
        """Names that begin with a d and are no differentials."""
        return frozenset(k for k in self.known if k.startswith("d") and k[1:] not in self.known)

    @staticmethod
    def _with_power(node: Differential) -> Differential:
        """`∂w²` differentiates twice by w."""
        operand = node.operand
        if isinstance(operand, Symbol) and isinstance(operand.raised, Number) and node.order == 1 and operand.raised.value == 2:
            return replace(node, operand=replace(operand, raised=None), order=2, powered=operand)
        return node

    # ------------------------------------------------------------------ factors

    def begins_factor(self) -> bool:
        token = self.token
        if token.kind in ("number", "name", "greek", "vulgar"):
            return token.text not in ("if", "for", "when", "otherwise", "and", "or")
        if token.kind == "command":
            return token.text not in ("end", "approx", "text", "mbox", "\\")
        if token.kind != "sign":
            return False
        if token.text == "|":
            return self.bars == 0
        return token.text in ("(", "[", "{", "∂", "∇", "∑", "∏", "√", "⌊", "‖", "𝟏")

    def factor(self) -> Node:
        start = self.token.at
        node = self.primary()
        while True:
            if self.ahead("^", "**"):
                node = self.superscript(node)
            elif self.ahead(".T") or (self.ahead("'") and isinstance(node, Transpose)):
                self.take()
                node = Transpose(start, node, end=self.reached)
            elif self.ahead(".sum", ".mean", ".dot", ".transpose"):
                node = self.method(node)
            else:
                return node

    def method(self, node: Node) -> Node:
        """`dz1.sum(axis=0)`, `x.T.dot(dz1)`."""
        name = self.take().text[1:]
        self.expect("(", "after a method")
        if self.ahead(")"):
            self.take()
            if name == "transpose":
                return Transpose(node.at, node, end=self.reached)
            return Call(node.at, Symbol(node.at, name), (node,), end=self.reached)
        made = self.finished_call(Symbol(node.at, name))
        assert isinstance(made, Call)
        if name == "dot":
            return replace(made, at=node.at, arguments=(node, *made.arguments))
        options = made.options or tuple(("axis", a) for a in made.arguments)
        return replace(made, at=node.at, arguments=(node,), options=options)

    def superscript(self, base: Node) -> Node:
        is_code = self.take().text == "**"
        if self.ahead("⊙"):
            self.take()  # an element-wise power
        if self.ahead("⊤"):
            self.take()
            return self.transposed(base)
        if self.token.kind == "name" and self.token.text == "T" and not is_code:
            self.take()
            return self.transposed(base, letter=True)
        if self.ahead("{"):
            return self._braced_superscript(base)
        if self.token.kind == "script":
            value = self._script_number()
        elif self.ahead("-"):
            sign = self.take()
            inner = self.primary()
            value = Negate(sign.at, inner, end=inner.end)
        else:
            value = self.primary()
        return Binary(base.at, "^", base, value, end=self.reached)

    def transposed(self, base: Node, letter: bool = False) -> Node:
        """The transposed; 1ᵀ is a row of ones."""
        if isinstance(base, Number) and base.value == 1:
            base = Symbol(base.at, "𝟏", end=base.end)
        return Transpose(base.at, base, letter, end=self.reached)

    def _script_number(self) -> Node:
        piece = self.take()
        inner = read(Source("<script>", piece.text), self.known)
        return replace(inner, at=piece.at, end=piece.end)

    def _braced_superscript(self, base: Node) -> Node:
        self.take()
        value: Node | None = None
        node = base
        while not self.ahead("}"):
            if self.ahead("⊤") or (
                self.token.kind == "name" and self.token.text == "T" and self.pieces[self.next + 1].text in ("}", "⊤")
            ):
                node = self.transposed(node, letter=self.take().text == "T")
            elif self.ahead("⊙"):
                self.take()  # an element-wise power
            elif self.token.kind == "command" and self.token.text in STYLES:
                self.take()
                self.expect("{", "after a change of type")
                word = self.take()
                self.expect("}", "to close the group")
                if word.text not in ("T", "⊤"):
                    raise self.error(f"the exponent '{word.text}' is not understood", word.at)
                node = Transpose(base.at, node, end=self.reached)
            elif value is None:
                value = self.expression()
            else:
                raise self.error(f"expected '}}' to close the exponent, found {self.found()}")
        self.take()
        node = replace(node, end=self.reached)
        return node if value is None else Binary(base.at, "^", node, value, end=self.reached)

    def primary(self) -> Node:
        token = self.take()
        if token.kind == "number":
            if token.text == "1" and self.ahead("["):
                return self.decorated("𝟏", "", token.at)  # 1[z > 0]
            return Number(token.at, Fraction(token.text), end=token.end)
        if token.kind == "vulgar":
            return Number(token.at, VULGAR[token.text], end=token.end)
        if token.kind == "name":
            return self.named(token)
        if token.kind == "greek":
            return self.decorated(token.text, "", token.at)
        if token.kind == "command":
            return self.command(token)
        match token.text:
            case "(" | "[" | "{":
                inside = self.relation()
                self.expect({"(": ")", "[": "]", "{": "}"}[token.text], "to close the bracket")
                return replace(inside, at=token.at, end=self.reached)
            case "|" | "‖":
                self.bars += 1
                inside = self.expression()
                self.bars -= 1
                self.expect(token.text, "to close the bars")
                head = Symbol(token.at, "abs" if token.text == "|" else "norm")
                if token.text == "‖" and self.ahead("_"):
                    _, kind = self.scripts_below()
                    if kind not in ("1", "2", "F"):
                        raise self.error(f"the norm with '{kind}' is not understood; 1, 2 and F are", self.reached - 1)
                    head = replace(head, name="norm_1" if kind == "1" else "norm")
                return Call(token.at, head, (inside,), end=self.reached)
            case "⌊":
                inside = self.expression()
                self.expect("⌋", "to close the bracket")
                return Call(token.at, Symbol(token.at, "floor"), (inside,), end=self.reached)
            case "∂":
                return self.partial(token)
            case "∇":
                return self.gradient(token)
            case "∑" | "∏":
                return self.reduction(REDUCTIONS[token.text], token.at)
            case "√":
                inside = self.primary()
                return Call(token.at, Symbol(token.at, "sqrt"), (inside,), end=self.reached)
            case "𝟏":
                return self.decorated("𝟏", "", token.at)
            case _:
                self.next -= token.kind != "end"
                raise self.error(f"expected a number, a name or a bracket, found {self.found()}")

    def partial(self, token: Piece) -> Node:
        order = 1
        if self.ahead("^"):
            self.take()
            exponent = self._script_number() if self.token.kind == "script" else self.primary()
            if not isinstance(exponent, Number):
                raise self.error("the order of a derivative is a number", exponent.at)
            order = int(exponent.value)
        if not self.begins_factor() and not (self.token.kind == "command" and self.token.text in STYLES):
            return Differential(token.at, None, order, partial=True, end=self.reached)
        operand = self.factor()
        node = Differential(token.at, operand, order, partial=True, end=self.reached)
        match operand:
            case Binary(operator="^", left=Symbol() as left, right=Number(value=value)) if value == 2:
                return Differential(token.at, left, 2, partial=True, end=self.reached)  # ∂w² in a denominator
            case _:
                return self._with_power(node)

    def gradient(self, token: Piece) -> Node:
        self.expect("_", "after ∇: ∇_W L")
        braced = self.ahead("{")
        if braced:
            self.take()
            wrt = self.factor()
            self.expect("}", "to close the group")
        else:
            wrt = self.factor()
        if not isinstance(wrt, Symbol):
            raise self.error("name one array to differentiate with respect to", wrt.at)
        times = (wrt,)
        if not braced and isinstance(wrt.raised, Number):
            if wrt.raised.value != 2:
                raise self.error("the order of ∇ is not understood", wrt.at)
            times = (replace(wrt, raised=None),) * 2  # ∇_z^2
        of = self.factor()
        while _is_numeric(of) and self.begins_factor():
            more = self.factor()
            of = Binary(of.at, " ", of, more, end=more.end)
        return Derivative(token.at, of, times, end=self.reached)

    # ------------------------------------------------------------------ names

    def named(self, token: Piece) -> Node:
        word = token.text
        if word in ("np", "jnp", "torch", "numpy") and self.ahead("."):
            self.take()
            return self.named(self.take())
        if word in ("np", "jnp", "torch", "numpy") and self.ahead(".sum", ".mean", ".dot", ".transpose"):
            return self.decorated(self.take().text[1:], "", token.at)
        if word in ("sum", "mean", "prod", "max", "min", "logsumexp") and self.ahead("_"):
            return self.reduction(word, token.at)
        if (joint := re.fullmatch(r"(sum|mean|prod|max|min)_(\w+)", word)) and word not in self.known:
            letters = tuple(Symbol(token.at, c) for c in joint[2])
            return self._body(joint[1], letters, None, None, token.at)
        head, _, tail = word.partition("_")
        if "_" in tail and head and word not in self.known and "\\" in self.source.whole:
            # In TeX a script takes one token: p_1p_2 is a product.
            own = re.match(r"\d+|.", tail)
            length = len(head) + 1 + (own.end() if own is not None else 0)
            rest = Piece("name", word[length:].lstrip("_"), token.at + length, token.end)
            self.pieces[self.next - 1 : self.next] = [replace(token, text=word[:length], end=token.at + length), rest]
            return self.named(self.pieces[self.next - 1])
        if word in HATTED:
            return self.decorated(HATTED[word], "hat", token.at)
        parts = self.segments(word)
        at = token.at
        if len(parts) > 1:
            # A run of letters that is no name: the factors one after the other, the last one with what hangs on it.
            factors: list[Node] = []
            for part in parts[:-1]:
                factors.append(self._split_symbol(part, at, at + len(part)))
                at += len(part)
            last: Node = self.decorated(parts[-1], "", at)
            while self.ahead("^"):
                last = self.superscript(last)
            result = factors[0]
            for f in [*factors[1:], last]:
                result = Binary(token.at, " ", result, f, end=f.end)
            return result
        return self.decorated(word, "", token.at)

    def segments(self, word: str) -> list[str]:
        """A run of letters as known names, as few as possible; the word itself where that does not work out."""
        if self.is_known(word) or len(word) == 1:
            return [word]
        best: dict[int, list[str]] = {0: []}
        for end in range(1, len(word) + 1):
            ways = [
                [*best[start], word[start:end]]
                for start in range(end)
                if start in best
                and self.is_known(word[start:end], whole=False)
                and not word[start].isdigit()
                and word[start] != "_"
            ]
            if ways:
                best[end] = min(ways, key=len)
        return best.get(len(word), [word])

    def is_known(self, word: str, whole: bool = True) -> bool:
        """Whether a word is a name, with or without a number or a subscript behind it."""
        if word in self.known or word in FUNCTIONS:
            return True
        if whole and word[0] in "d∂Δδ" and len(word) > 1 and (self.is_known(word[1:]) or word[1:] in ("L", "C", "E", "J")):
            return True
        head = word.partition("_")[0]
        return whole and (head in self.known or head.rstrip("0123456789") in self.known)

    def _split_symbol(self, word: str, at: int, end: int) -> Symbol:
        return Symbol(at, word, end=end)

    def command(self, token: Piece) -> Node:
        word = token.text
        if word in ("frac", "tfrac", "dfrac", "cfrac"):
            above = self.braced()
            below = self.braced()
            return replace(self.quotient(above, below), at=token.at, end=self.reached)
        if word == "sqrt":
            inside = self.braced()
            return Call(token.at, Symbol(token.at, "sqrt"), (inside,), end=self.reached)
        if word in ACCENTS:
            return self.accented(token)
        if word == "mathbb" and self.ahead("{") and self.pieces[self.next + 1].text == "1":
            self.next += 3
            return self.decorated("𝟏", "", token.at)
        if word in STYLES:
            return self.styled(token)
        if word == "begin":
            return self.cases(token)
        if word in FUNCTIONS or word == "ln":
            if word in ("max", "min") and self.ahead("_"):
                return self.reduction(word, token.at)
            return self.decorated(word, "", token.at)
        raise self.error(f"the command \\{word} is not understood", token.at)

    def accented(self, token: Piece) -> Node:
        inner = self.braced()
        if not isinstance(inner, Symbol):
            raise self.error("an accent belongs to one name", token.at)
        if self.scripts_follow():
            return self.decorated(inner.name, ACCENTS[token.text], token.at, inner)
        return replace(inner, accent=ACCENTS[token.text], at=token.at, end=self.reached)

    def scripts_follow(self) -> bool:
        return self.ahead("_", "^", "'", "[", "(")

    def styled(self, token: Piece) -> Node:
        """`\\mathbf{W}`, `\\mathrm{net}`, `\\operatorname{mean}_i`: one name whatever its letters."""
        self.expect("{", f"after \\{token.text}")
        if self.token.kind in ("greek", "command"):
            inner = self.factor()
            self.expect("}", "to close the group")
            if not isinstance(inner, Symbol):
                return inner
            return self.decorated(inner.name, inner.accent, token.at, inner)
        start = self.token.at
        depth = 1
        while depth:
            piece = self.take()
            if piece.kind == "end":
                raise self.error("expected '}' to close the group, found the end")
            depth += (piece.text == "{") - (piece.text == "}")
        text = self.source.whole[start : self.pieces[self.next - 1].at]
        word = re.sub(r"[\s\\]", "", text).strip()
        if word in ("1", "𝟏"):
            return self.decorated("𝟏", "", token.at)
        if not re.fullmatch(r"[^\W\d]\w*'*", word):
            raise self.error(f"'{text}' is not a name", start)
        primes = len(word) - len(word.rstrip("'"))
        word = word.rstrip("'")
        if word in REDUCTIONS and self.ahead("_"):
            return self.reduction(REDUCTIONS[word], token.at)
        return self.decorated(word, "", token.at, Symbol(token.at, word, primes=primes))

    def braced(self) -> Node:
        """The argument of a command: a group, or one character."""
        if self.ahead("{"):
            self.take()
            start = self.token.at
            if self.ahead("∂") and self.pieces[self.next + 1].text == "}":
                self.next += 2
                return Differential(start, None, partial=True, end=self.reached)
            inside = self.expression()
            self.expect("}", "to close the group")
            return inside
        token = self.token
        if token.kind == "number" and len(token.text) > 1 and token.text.isdecimal():
            # \frac12
            self.pieces[self.next] = Piece("number", token.text[1:], token.at + 1, token.end)
            return Number(token.at, Fraction(token.text[0]), end=token.at + 1)
        if token.kind == "name" and len(token.text) > 1:
            # \frac1m, \hat yz, \hat y_k
            rest = [Piece("sign", "_", token.at + 1, token.at + 2)] if token.text[1] == "_" else []
            start = token.at + 1 + len(rest)
            self.pieces[self.next : self.next + 1] = [*rest, Piece("name", token.text[1:].lstrip("_"), start, token.end)]
            return Symbol(token.at, token.text[0], end=token.at + 1)
        if token.kind in ("name", "greek"):
            self.take()
            return Symbol(token.at, token.text, end=token.end)
        return self.primary()

    def cases(self, token: Piece) -> Node:
        self.expect("{", "after \\begin")
        kind = self.take()
        self.expect("}", "to close the group")
        if kind.text != "cases":
            raise self.error(f"'{kind.text}' is not understood here; cases can be read", kind.at)
        branches: list[tuple[Node, Node | None]] = []
        while not (self.token.kind == "command" and self.token.text == "end"):
            value = self.expression()
            while self.ahead(",", "&"):
                self.take()
            branches.append((value, self.condition()))
            while self.token.kind == "command" and self.token.text == "\\":
                self.take()
            if self.token.kind == "end":
                raise self.error("expected \\end{cases}")
        self.take()
        self.expect("{", "after \\end")
        self.take()
        self.expect("}", "to close the group")
        return Cases(token.at, tuple(branches), end=self.reached)

    def condition(self) -> Node | None:
        """`\\text{if } i \\ne j`, `\\text{otherwise}`."""
        while True:
            if self.ahead("&", ","):
                self.take()
            elif self.token.kind == "command" and self.token.text in ("text", "mathrm", "mbox"):
                self.take()
                self.expect("{", "after \\text")
                while not self.ahead("}"):
                    word = self.take()
                    if word.text in ("otherwise", "else", "sonst"):
                        self.expect("}", "to close the group")
                        return None
                    if word.text not in ("if", "for", "when", "where", "and", ","):
                        raise self.error(f"'{word.text}' is not understood in a condition", word.at)
                self.take()
            elif self.token.kind == "name" and self.token.text in ("if", "for", "when"):
                self.take()
            elif self.token.kind == "name" and self.token.text in ("otherwise", "else"):
                self.take()
                return None
            else:
                return self.relation()

    # ------------------------------------------------------------------ what hangs on a name

    def decorated(self, name: str, accent: str, at: int, inner: Symbol | None = None) -> Node:
        """A name with its scripts, primes and indices; a call where brackets follow a function."""
        symbol = replace(inner, at=at, accent=accent) if inner is not None else Symbol(at, name, accent)
        if symbol.name == name and "_" in name and name not in self.known and not symbol.below:
            head, _, tail = name.partition("_")
            below, text = self._script_indices(tail, at + len(head) + 1)
            symbol = replace(symbol, name=head, below=below, below_text=text)
        while True:
            if self.ahead("_"):
                below, text = self.scripts_below()
                symbol = replace(symbol, below=(*symbol.below, *below), below_text=symbol.below_text + text)
            elif self.ahead("'"):
                self.take()
                symbol = replace(symbol, primes=symbol.primes + 1)
            elif self.ahead("^") and symbol.raised is None and symbol.layer is None:
                before = self.next
                found = self.script_above(symbol)
                if found is None:
                    self.next = before
                    break
                symbol = found
            elif self.ahead("[") and symbol.indices is None and self.takes_indices(symbol):
                self.take()
                symbol = replace(symbol, indices=self.listed("]"))
            else:
                break
        symbol = replace(symbol, end=self.reached)
        if symbol.name == "Δ" and not symbol.below and self.token.kind in ("name", "greek") and self.token.text != "Δ":
            operand = self.factor()
            if isinstance(operand, Symbol):
                return Call(at, symbol, (operand,), end=self.reached)
            raise self.error("an update belongs to one parameter: Δw", operand.at)
        return self.call(symbol)

    def takes_indices(self, symbol: Symbol) -> bool:
        return symbol.name not in ("mean", "sum") and symbol.name not in FUNCTIONS

    def call(self, symbol: Symbol) -> Node:
        is_function = self.is_function(symbol)
        if self.ahead("(") and (is_function or symbol.name in ("sum", "mean", "prod", "where", "pad", "logsumexp", "dot", "d")):
            self.take()
            made = self.finished_call(symbol)
            if symbol.name == "softmax" and isinstance(made, Call) and self.ahead("_"):
                below, text = self.scripts_below()  # softmax(z)_j
                made = replace(made, head=replace(made.head, below=below, below_text=text), end=self.reached)
            return made
        if self.ahead("(") and symbol.name in ("𝟏", "I") and self._is_plain(symbol):
            before = self.next, list(self.pieces)
            self.take()
            inside = self.relation()
            if isinstance(inside, Binary) and inside.operator in COMPARISONS and self.ahead(")"):
                self.take()
                return replace(symbol, name="𝟏", indices=(inside,), end=self.reached)
            self.next, self.pieces = before
            if symbol.name == "𝟏":
                raise self.error("an indicator holds a condition: 1[y = k]")
        is_adjacent = self.token.at == self.reached
        if self.ahead("(") and symbol.name in ("J", "L", "C", "E", "ℓ") and not symbol.below and is_adjacent:
            at = self.take().at
            for item in self.listed(")"):  # what the loss is a function of
                bare = isinstance(item, Symbol) and item.indices is None and item.raised is None
                if not bare or item.below_text not in ("", "t"):  # type: ignore[attr-defined]
                    raise self.error("a loss is written with the names that it depends on: J(W, b)", at)
            return replace(symbol, end=self.reached)
        if self.ahead("(") and not is_function and is_adjacent and self._takes_arguments(symbol):
            return replace(symbol, end=self.reached)
        if symbol.name in FUNCTIONS and symbol.name not in self.known_arrays and self.begins_factor():
            raised = symbol.raised
            argument = self.factor()
            while isinstance(argument, (Number, Binary)) and _is_numeric(argument) and self.begins_factor():
                # \sin 2x is the sine of both
                more = self.factor()
                argument = Binary(argument.at, " ", argument, more, end=more.end)
            node: Node = Call(symbol.at, replace(symbol, raised=None), (argument,), end=self.reached)
            return Binary(symbol.at, "^", node, raised, end=self.reached) if raised is not None else node
        return symbol

    def _is_plain(self, symbol: Symbol) -> bool:
        return symbol.name not in self.known_arrays and not symbol.below and symbol.indices is None

    def _takes_arguments(self, symbol: Symbol) -> bool:
        """Takes the brackets of `f(x)` where f is an array that is computed from x: what it is a function of."""
        before = self.next, list(self.pieces), self.depth, self.bars
        self.take()
        try:
            items = self.listed(")")
        except FormulaError:
            items = ()
        bare = all(isinstance(i, Symbol) and i.indices is None for i in items)
        if items and bare and self.depends is not None and self.depends(symbol, items):
            return True
        self.next, self.pieces, self.depth, self.bars = before
        return False

    depends: Callable[[Symbol, Sequence[Node]], bool] | None = None  # whether an array is computed from others

    def finished_call(self, symbol: Symbol) -> Node:
        arguments: list[Node] = []
        options: list[tuple[str, Node]] = []
        while True:
            follows = self.pieces[self.next + 1]
            if self.token.kind == "name" and follows.kind == "sign" and follows.text == "=":
                key = self.take().text
                self.take()
                options.append((key, self.expression()))
            else:
                arguments.append(self.relation())
            if not self.ahead(","):
                break
            self.take()
        self.expect(")", "or a comma")
        raised = symbol.raised
        node: Node = Call(symbol.at, replace(symbol, raised=None), tuple(arguments), tuple(options), end=self.reached)
        if symbol.name in ("sum", "mean", "prod", "max", "min") and len(arguments) > 1 and not options:
            letters = arguments[:-1]
            if all(isinstance(a, Symbol) for a in letters) and (
                symbol.name not in ("max", "min") or all(_counts(arguments[-1], a.name) for a in letters)  # type: ignore[attr-defined]
            ):
                node = Reduce(symbol.at, symbol.name, tuple(letters), arguments[-1], end=self.reached)  # type: ignore[arg-type]
        return Binary(symbol.at, "^", node, raised, end=self.reached) if raised is not None else node

    known_arrays: Collection[str] = ()

    def is_function(self, symbol: Symbol) -> bool:
        return symbol.name in FUNCTIONS or (self.callable is not None and self.callable(symbol))

    callable: Callable[[Symbol], bool] | None = None  # whether a symbol is a function of the network

    def listed(self, closing: str) -> tuple[Node, ...]:
        items = [self.relation()]
        while self.ahead(","):
            self.take()
            items.append(self.relation())
        self.expect(closing, "or a comma")
        return tuple(items)

    def scripts_below(self) -> tuple[tuple[Node, ...], str]:
        self.take()
        token = self.token
        if token.kind == "script":
            self.take()
            return self._script_indices(token.text, token.at)
        if self.ahead("{"):
            self.take()
            start, depth, stop = self.token.at, 1, self.token.at
            while depth:
                piece = self.take()
                if piece.kind == "end":
                    raise self.error("expected '}' to close the subscript, found the end")
                depth += (piece.text == "{") - (piece.text == "}")
                stop = piece.at
            return self._script_indices(self.source.whole[start:stop], start)
        self.take()
        text = self.source.whole[token.at : token.end]
        if token.kind == "number" and len(text) > 1:
            return self._script_indices(text, token.at)
        if token.kind not in ("name", "greek", "number"):
            raise self.error(f"expected a subscript, found '{text}'", token.at)
        return self._script_indices(token.text, token.at)

    def _script_indices(self, text: str, at: int) -> tuple[tuple[Node, ...], str]:
        """The indices that a subscript stands for, and its letters as text."""
        plain = re.sub(r"\\(?:mathrm|text|mathit|operatorname|mathbf)\s*\{([^{}]*)\}", r"\1", text)
        unknown = [m[1] for m in re.finditer(r"\\([A-Za-z]+)", plain) if m[1] not in GREEK and m[1] not in IGNORED]
        if unknown:
            raise self.error(f"the command \\{unknown[0]} is not understood in a subscript", at)
        plain = re.sub(r"\\([A-Za-z]+|[,;:! ])", lambda m: GREEK.get(m[1], ""), plain)
        plain = re.sub(r"(?<=[^\W\d_])_\{?(\d+)\}?", r"\1", plain)  # h_{2} is a letter with a number
        compact = re.sub(r"[\s{}_]", "", plain)
        parts = re.split(r",", plain) if "," in plain else [plain]
        found: list[Node] = []
        for part in parts:
            word = part.strip()
            if re.fullmatch(r"[^\W\d_]+'*|\d+", word) and "," not in plain and len(word.rstrip("'")) > 1:
                found += [self._index_node(c, at) for c in re.findall(r"[^\W\d_]'*|\d", word)]
            elif re.fullmatch(r"(?:[^\W\d_]\d?'*)+", word):
                found += [self._index_node(c, at) for c in re.findall(r"[^\W\d_]\d?'*", word)]
            elif word:
                try:
                    inner = _Reader(Source(self.source.name, word), self.known, False)
                    node = inner.relation()
                    if inner.token.kind != "end":
                        raise inner.error("left over")
                except FormulaError:
                    raise self.error(f"the subscript '{word}' is not understood", at) from None
                found.append(_moved(node, at))
        return tuple(found), compact.replace(",", "")

    def _index_node(self, text: str, at: int) -> Node:
        if text.isdigit():
            return Number(at, Fraction(text), end=at + len(text))
        stem = text.rstrip("'")
        return Symbol(at, stem, primes=len(text) - len(stem), end=at + len(text))

    def script_above(self, symbol: Symbol) -> Symbol | None:
        """A superscript of a name: a layer in brackets, a prime, or something that may be a power; None for other things."""
        self.take()
        if self.token.kind == "script":
            text = self.token.text
            if bracketed := re.fullmatch(r"\((.+)\)", text):
                piece = self.take()
                inner = read(Source("<script>", bracketed[1]), self.known)
                return replace(symbol, layer=_moved(inner, piece.at))
            return replace(symbol, raised=self._script_number()) if text.isdigit() else None
        if self.ahead("'"):
            self.take()
            return replace(symbol, primes=symbol.primes + 1)
        if self.ahead("*"):
            self.take()
            return replace(symbol, accent="star")
        if self.ahead("(", "["):
            opening = self.take().text
            inner = self.expression()
            self.expect(")" if opening == "(" else "]", "to close the bracket")
            return replace(symbol, layer=inner, bracket=opening)
        if not self.ahead("{"):
            if self.token.kind == "number":
                token = self.take()
                return replace(symbol, raised=Number(token.at, Fraction(token.text), end=token.end))
            if self.token.kind == "name" and self.token.text in ("l", "L") and symbol.name not in ("e",):
                token = self.take()
                return replace(symbol, raised=Symbol(token.at, token.text, end=token.end))
            if self.token.kind == "greek" and self.token.text == "ℓ":
                token = self.take()
                return replace(symbol, raised=Symbol(token.at, "l", end=token.end))
            return None
        self.take()
        if self.ahead("'"):
            while self.ahead("'"):
                self.take()
                symbol = replace(symbol, primes=symbol.primes + 1)
            self.expect("}", "to close the exponent")
            return symbol
        if self.ahead("(", "[", "<"):
            return self._bracketed_layer(symbol)
        if symbol.name == "e":
            return None
        if self.token.kind in ("number", "name") and self.token.text not in ("T",):
            try:
                inner = self.expression()
            except FormulaError:
                return None
            if self.ahead("}"):
                self.take()
                return replace(symbol, raised=inner)
        return None

    def _bracketed_layer(self, symbol: Symbol) -> Symbol | None:
        opening = self.take().text
        inner = self.expression()
        closing = {"(": ")", "[": "]", "<": ">"}[opening]
        if not self.ahead(closing):
            return None
        self.take()
        while self.ahead("'"):
            self.take()
            symbol = replace(symbol, primes=symbol.primes + 1)
        if self.ahead("}"):
            self.take()
            return replace(symbol, layer=inner, bracket="{" + opening)
        if self.ahead("⊤") or (self.token.kind == "name" and self.token.text == "T"):
            # W^{(2)T}: the layer here, the transpose as an exponent of its own
            piece = self.take()
            if self.ahead("}"):
                self.take()
                self.next -= 1
                self.pieces[self.next - 1 : self.next + 1] = [
                    Piece("sign", "^", piece.at, piece.at),
                    Piece("sign", "⊤", piece.at, self.pieces[self.next].end),
                ]
                self.next -= 1
                return replace(symbol, layer=inner)
        return None

    # ------------------------------------------------------------------ reductions

    def reduction(self, kind: str, at: int) -> Node:
        letters: tuple[Symbol, ...] = ()
        condition: Node | None = None
        tally: Node | None = None
        lower: Node | None = None
        while self.ahead("_", "^"):
            if self.ahead("_"):
                letters, condition, lower = self._letters_below()
            else:
                self.take()
                tally = self.braced()
        return replace(self._body(kind, letters, condition, tally, at), lower=lower)

    def _letters_below(self) -> tuple[tuple[Symbol, ...], Node | None, Node | None]:
        """The letters below a sum, a condition on them, and where they begin."""
        self.take()
        if not self.ahead("{"):
            token = self.take()
            if token.kind not in ("name", "script"):
                raise self.error("a sum runs over letters: \\sum_k", token.at)
            found = re.findall(r"[^\W\d_]\d*'*", token.text)
            if len(token.text) > 1 and token.text in self.known:
                found = [token.text]
            return tuple(Symbol(token.at, c, end=token.at) for c in found), None, None
        self.take()
        start, depth, stop = self.token.at, 1, self.token.at
        while depth:
            piece = self.take()
            if piece.kind == "end":
                raise self.error("expected '}' below the sum")
            depth += (piece.text == "{") - (piece.text == "}")
            stop = piece.at
        text = re.sub(r"\\[,;: ]|\s|\\ell(?![a-z])", lambda m: "l" if m[0] == "\\ell" else "", self.source.whole[start:stop])
        text, begins, first = text.partition("=") if re.match(r"[^=!<>\\]+=[^=]", text) else (text, "", "")
        lower = _moved(read(Source("<sum>", first), self.known), start) if begins else None
        text = re.sub(r"(?<=[^\W\d_])_\{?(\d+)\}?", r"\1", text)
        if unequal := re.fullmatch(r"([^\W\d_])(?:\\neq?|!=|≠)([^\W\d_])", text):
            one, other = (Symbol(start, c, end=stop) for c in unequal.groups())
            return (one,), Binary(start, "!=", one, other, end=stop), None
        if not re.fullmatch(r"(?:[^\W\d_]\d*'*,?)+", text):
            raise self.error(f"'{self.source.whole[start:stop]}' below a sum is not understood", start)
        letters = [
            c for part in text.split(",") if part for c in ([part] if part in self.known else re.findall(r"[^\W\d_]\d*'*", part))
        ]
        return tuple(_letter(c, start, stop) for c in letters), None, lower

    def _body(self, kind: str, letters: tuple[Symbol, ...], condition: Node | None, tally: Node | None, at: int) -> Reduce:
        while self.ahead(","):
            self.take()
        body = self.product()
        return Reduce(at, kind, letters, body, condition, tally, end=self.reached)


def _is_numeric(node: Node) -> bool:
    """Whether a factor is a number, or a product of numbers and names that begins with one."""
    if isinstance(node, Binary) and node.operator == "/":
        return isinstance(node.left, Number) and isinstance(node.right, Number)
    return isinstance(node, Number) or (isinstance(node, Binary) and node.operator == " " and _is_numeric(node.left))


def _counts(node: Node, letter: str) -> bool:
    """Whether a letter is an index in a tree."""
    for inner in nodes_below(node):
        if isinstance(inner, Symbol):
            for i in (*inner.below, *(inner.indices or ())):
                if any(isinstance(s, Symbol) and s.name == letter for s in nodes_below(i)):
                    return True
    return False


def nodes_below(node: Node) -> Iterator[Node]:
    """All nodes of a tree as it was read, the tree itself first."""
    todo: list[Any] = [node]
    while todo:
        current = todo.pop()
        if isinstance(current, Node):
            yield current
            todo += [getattr(current, f.name) for f in fields(current)]
        elif isinstance(current, tuple):
            todo += cast("tuple[Any, ...]", current)


def _letter(text: str, at: int, end: int) -> Symbol:
    stem = text.rstrip("'")
    return Symbol(at, stem, primes=len(text) - len(stem), end=end)


def _moved(node: Node, at: int) -> Node:
    """A tree that was read from a piece of text, at its place in the whole."""
    match node:
        case Binary(left=left, right=right):
            return replace(node, at=node.at + at, end=node.end + at, left=_moved(left, at), right=_moved(right, at))
        case Negate(operand=operand):
            return replace(node, at=node.at + at, end=node.end + at, operand=_moved(operand, at))
        case _:
            return replace(node, at=node.at + at, end=node.end + at if node.end >= 0 else -1)


def reader_for(
    source: Source,
    known: Collection[str],
    is_function: Callable[[Symbol], bool],
    arrays: Collection[str],
    depends: Callable[[Symbol, Sequence[Node]], bool],
    condition: bool = False,
) -> Sequence[Node]:
    """The readings of a text: one, or two where a fraction typed flat can be read in two ways; of a `condition` always one."""
    trees: list[Node] = []
    for tight in (False, True):
        reader = _Reader(source, known, tight)
        reader.callable = is_function
        reader.known_arrays = arrays
        reader.depends = depends
        if condition:
            return [reader.condition_whole()]
        node = reader.expression()
        if reader.token.kind != "end":
            raise reader.error(f"expected an operator or the end, found {reader.found()}")
        trees.append(node)
        if not reader.is_flat:
            break
    return trees
