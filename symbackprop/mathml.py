"""LaTeX as the writers print it to MathML Core: for pages that need no program to show formulas.

    \\frac{\\partial L}{\\partial w}   gives   <mfrac><mrow><mo>∂</mo><mi>L</mi></mrow>…</mfrac>

Only what `latex` and `matrix` print is read; anything else raises `ValueError`, which a test would show. `\\kind{weight}{…}`
marks a part by what it is, as a class that a style sheet colours. Everything that comes from names is escaped.
"""

from __future__ import annotations

import html
import re

from .latex import GREEK as _GREEK_NAMES

_TOKEN = re.compile(r"\\[A-Za-z]+\*?|\\.|[{}^_&]|[0-9]+(?:\.[0-9]+)?(?:e-?[0-9]+)?|\s+|.", re.DOTALL)
_GREEK: dict[str, str] = dict(
    zip(
        [*_GREEK_NAMES, "ell"],
        "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩℓ",
        strict=True,
    )
)
_OPERATORS = {
    "partial": "∂",
    "odot": "⊙",
    "cdot": "⋅",
    "top": "⊤",
    "ge": "≥",
    "le": "≤",
    "ne": "≠",
    "sum": "∑",
    "prod": "∏",
    "prime": "′",
    "bmod": "mod",
    "to": "→",
    "leftarrow": "←",
    "nabla": "∇",
    "approx": "≈",
    "circ": "∘",
    "lfloor": "⌊",
    "rfloor": "⌋",
    "langle": "⟨",
    "rangle": "⟩",
}
# Short names for the classes, of which a page has thousands.
KINDS = {
    "loss": "l",
    "activation": "a",
    "weight": "w",
    "signal": "s",
    "upstream": "u",
    "penalty": "p",
    "one": "n",
    "other": "o",
}
_FUNCTIONS = {"log", "tanh", "sinh", "cosh", "sin", "cos", "max", "min", "exp"}
_SPACES = {",": "0.17em", ";": "0.28em", "!": "-0.17em", "quad": "1em", " ": "0.33em"}


def mathml(latex: str, display: bool = False, annotated: bool = True) -> str:
    """A `<math>` element for a formula, with its LaTeX as an annotation for those who copy it.

    Raises `ValueError` for LaTeX that the writers of this package do not print.
    """
    body = _Reader(latex).row()
    plain = re.sub(r"\\kind\{\w+\}", "", latex)
    mode = ' display="block"' if display else ""
    if not annotated:
        return f"<math{mode}>{body}</math>"
    note = f'<annotation encoding="application/x-tex">{html.escape(plain, quote=False)}</annotation>'
    return f"<math{mode}><semantics><mrow>{body}</mrow>{note}</semantics></math>"


class _Reader:
    def __init__(self, latex: str) -> None:
        self._tokens: list[str] = _TOKEN.findall(latex)
        self._next = 0

    def peek(self) -> str:
        while self._next < len(self._tokens) and self._tokens[self._next].isspace():
            self._next += 1
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def take(self) -> str:
        token = self.peek()
        if not token:
            raise ValueError("the formula ends too soon")
        self._next += 1
        return token

    def row(self, ends: tuple[str, ...] = ("",)) -> str:
        """Atoms with their indices and powers up to one of the ends, which is not taken."""
        return "".join(self.parts(ends))

    def parts(self, ends: tuple[str, ...]) -> list[str]:
        """The elements of a row."""
        found: list[str] = []
        while self.peek() not in ends:
            found.append(self.scripted())
        return found

    def group(self) -> str:
        """`{…}`, or one atom."""
        if self.peek() != "{":
            return self.atom()
        self.take()
        inside = self.parts(("}",))
        self.take()
        return inside[0] if len(inside) == 1 else f"<mrow>{''.join(inside)}</mrow>"

    def text(self) -> str:
        """The characters within `{…}`, as they stand."""
        depth, parts = 0, list[str]()
        self.peek()
        while self._next < len(self._tokens):
            # Spaces count here.
            token = self._tokens[self._next]
            self._next += 1
            depth += (token == "{") - (token == "}")
            if token not in "{}":
                parts.append(token[1:] if token[0] == "\\" and len(token) == 2 else _named(token))
            if depth == 0:
                return "".join(parts)
        raise ValueError("a text without its end")

    def scripted(self) -> str:
        base = self.atom()
        below = above = ""
        while True:
            if self.peek() == "_" and not below:
                self.take()
                below = self.group()
            elif self.peek() == "^" and not above:
                self.take()
                above = self.group()
            elif self.peek() == "'" and not above:
                primes = 0
                while self.peek() == "'":
                    self.take()
                    primes += 1
                above = f"<mo>{'′' * primes}</mo>"
            else:
                break
        large = base.startswith(("<mo>∑", "<mo>∏")) or 'class="reduction"' in base
        if below and above:
            return f"<{'munderover' if large else 'msubsup'}>{base}{below}{above}</{'munderover' if large else 'msubsup'}>"
        if below:
            return f"<{'munder' if large else 'msub'}>{base}{below}</{'munder' if large else 'msub'}>"
        return f"<msup>{base}{above}</msup>" if above else base

    def atom(self) -> str:
        token = self.take()
        if token == "{":
            self._next -= 1
            return self.group()
        if token[0] == "\\":
            return self.command(token[1:])
        if token[0].isdigit():
            return f"<mn>{token}</mn>"
        if token == "-":
            return "<mo>−</mo>"
        if token.isalpha():
            return f"<mi>{html.escape(token)}</mi>"
        if token in "()[]|":
            return f'<mo stretchy="false">{token}</mo>'
        if token in "+=<>,/*:;.!?'\"…·":
            return f"<mo>{html.escape(token)}</mo>"
        if token in "}^_&":
            raise ValueError(f"'{token}' has no place in this formula")
        return f"<mi>{html.escape(token)}</mi>"

    def command(self, name: str) -> str:
        if name in _GREEK:
            # Capital Greek letters stand upright, as in LaTeX.
            upright = ' mathvariant="normal"' if _GREEK[name].isupper() else ""
            return f"<mi{upright}>{_GREEK[name]}</mi>"
        if name in _OPERATORS:
            stretchy = ' stretchy="false"' if name in ("lfloor", "rfloor", "langle", "rangle") else ""
            return f"<mo{stretchy}>{_OPERATORS[name]}</mo>"
        if name in ("max", "min"):
            return f'<mi class="reduction">{name}</mi>'
        if name in _FUNCTIONS:
            return f"<mi>{name}</mi>"
        if name in _SPACES:
            return f'<mspace width="{_SPACES[name]}"></mspace>'
        if name in ("_", "{", "}", "%", "#", "&", "$"):
            return f"<mo>{html.escape(name)}</mo>"
        match name:
            case "frac":
                above, below = self.group(), self.group()
                return f"<mfrac>{above}{below}</mfrac>"
            case "sqrt":
                return f"<msqrt>{self.group()}</msqrt>"
            case "kind":
                kind = self.text()
                self.take()
                inside = self.parts(("}",))
                self.take()
                one = re.fullmatch(r"<(\w+)>(.*)</\1>", inside[0], re.DOTALL) if len(inside) == 1 else None
                if one is not None and one[1] in ("mi", "mn", "msub", "msup", "msubsup", "mfrac"):
                    return f'<{one[1]} class="k{KINDS[kind]}">{one[2]}</{one[1]}>'
                return f'<mrow class="k{KINDS[kind]}">{"".join(inside)}</mrow>'
            case "hat":
                return f"<mover>{self.group()}<mo>^</mo></mover>"
            case "mathrm" | "operatorname" | "text":
                word = html.escape(self.text())
                return f"<mtext>{word}</mtext>" if name == "text" else f'<mi mathvariant="normal">{word}</mi>'
            case "operatorname*":
                return f'<mi class="reduction">{html.escape(self.text())}</mi>'
            case "mathbf":
                return f"<mn>{html.escape(self.text()).replace('1', '𝟏')}</mn>"
            case "mathbb":
                return "<mi>𝟙</mi>" if self.text() == "1" else ""
            case "left":
                return self.fenced()
            case "begin":
                return self.cases()
            case _:
                raise ValueError(f"the command \\{name} is not one that is printed")

    def fenced(self) -> str:
        opening = self._fence()
        inside = self.row(("\\right",))
        self.take()
        return f"<mrow>{opening}{inside}{self._fence()}</mrow>"

    def _fence(self) -> str:
        sign = self.take()
        sign = {"\\lfloor": "⌊", "\\rfloor": "⌋", "\\{": "{", "\\}": "}", ".": ""}.get(sign, sign)
        return f"<mo>{html.escape(sign)}</mo>" if sign else ""

    def cases(self) -> str:
        if self.text() != "cases":
            raise ValueError("only cases are printed")
        rows: list[str] = []
        while self.peek() != "\\end":
            value = self.row(("&",))
            self.take()
            test = self.row(("\\\\", "\\end"))
            rows.append(f"<mtr><mtd>{value}</mtd><mtd>{test}</mtd></mtr>")
            if self.peek() == "\\\\":
                self.take()
        self.take()
        self.text()
        return f'<mrow><mo>{{</mo><mtable columnalign="left">{"".join(rows)}</mtable></mrow>'


def _named(token: str) -> str:
    return _GREEK.get(token[1:], token) if token[0] == "\\" else token
