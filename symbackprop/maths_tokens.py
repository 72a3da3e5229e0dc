r"""The pieces of mathematics as people write it: LaTeX commands, Unicode signs, names, numbers, scripts, each with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from .errors import FormulaError, Source
from .latex import GREEK_LETTERS
from .parse import MAX_DIGITS, MAX_LENGTH, Token

# The names of Greek letters in LaTeX; variants are the letter itself.
GREEK = {
    **{name: letter for letter, name in GREEK_LETTERS.items()},
    "varepsilon": "ε",
    "vartheta": "θ",
    "varphi": "φ",
}
GREEK_NAMES = dict(GREEK_LETTERS)
_SIGNS = {
    "partial": "∂",
    "nabla": "∇",
    "sum": "∑",
    "prod": "∏",
    "cdot": "·",
    "times": "*",
    "ast": "*",
    "odot": "⊙",
    "circ": "⊙",
    "oslash": "⊘",
    "wedge": "∧",
    "land": "∧",
    "neq": "!=",
    "ne": "!=",
    "le": "<=",
    "leq": "<=",
    "ge": ">=",
    "geq": ">=",
    "lt": "<",
    "gt": ">",
    "top": "⊤",
    "intercal": "⊤",
    "prime": "'",
    "lbrace": "(",
    "rbrace": ")",
    "lvert": "|",
    "rvert": "|",
    "vert": "|",
    "lVert": "‖",
    "rVert": "‖",
    "Vert": "‖",
    "|": "‖",
    "{": "(",
    "}": ")",
    "lfloor": "⌊",
    "rfloor": "⌋",
    "cdots": "…",
    "ldots": "…",
    "dots": "…",
}
_UNICODE = {
    "||": "‖",
    "−": "-",
    "–": "-",
    "⋅": "·",
    "×": "*",
    "∗": "*",
    "⁄": "/",
    "÷": "/",
    "∘": "⊙",
    "○": "⊙",
    "≠": "!=",
    "≤": "<=",
    "≥": ">=",
    "′": "'",
    "’": "'",
    "Σ": "∑",
    "Π": "∏",
    "√": "√",
}
IGNORED = {
    *[
        ",",
        ";",
        ":",
        "!",
        "quad",
        "qquad",
        "left",
        "right",
        "displaystyle",
        "textstyle",
        "limits",
        "nolimits",
        "nonumber",
        "notag",
        "big",
        "Big",
        "bigg",
        "Bigg",
        "bigl",
        "bigr",
        "Bigl",
        "Bigr",
        "biggl",
        "biggr",
        "Biggl",
        "Biggr",
    ],
    " ",
    ">",
}
STYLES = set(
    [
        "mathbf",
        "boldsymbol",
        "bm",
        "mathcal",
        "mathsf",
        "mathit",
        "mathrm",
        "mathbb",
        "text",
        "textrm",
        "textit",
        "textbf",
        "operatorname",
        "vec",
        "mbox",
    ]
)
ACCENTS = {"hat": "hat", "widehat": "hat", "bar": "bar", "overline": "bar", "tilde": "tilde", "widetilde": "tilde"}
FUNCTION_WORDS = frozenset(
    [
        "exp",
        "log",
        "ln",
        "sqrt",
        "tanh",
        "sinh",
        "cosh",
        "sech",
        "coth",
        "sin",
        "cos",
        "abs",
        "sign",
        "sgn",
        "erf",
        "max",
        "min",
        "diag",
        "floor",
        "tr",
        "softmax",
    ]
)
FUNCTIONS = frozenset({*FUNCTION_WORDS, "Re"})
REDUCTIONS = {"∑": "sum", "∏": "prod", "sum": "sum", "mean": "mean", "prod": "prod", "max": "max", "min": "min"}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋ᵢⱼₖₗₘₙₜₚₕₓₐₑₒᵣₛᵤᵥ", "0123456789+-ijklmntphxaeorsuv")
HATTED = {"ŷ": "y", "ĥ": "h", "ŝ": "s", "â": "a", "ê": "e", "ô": "o", "ŵ": "w", "ẑ": "z"}
VULGAR = {"½": Fraction(1, 2), "⅓": Fraction(1, 3), "¼": Fraction(1, 4), "⅔": Fraction(2, 3)}
_SPECIAL = "⁰¹²³⁴-⁹⁺⁻⁽⁾ⁿⁱᵀ₀-₉₊₋ᵢⱼₖₗₘₙₜₚₕₓₐₑₒᵣₛᵤᵥ½⅓¼⅔𝟏"
_LETTER = rf"(?:(?![{_SPECIAL}])[^\W\d_])"
_TOKEN = re.compile(
    r"(?P<space>\s+|\$|~)"
    r"|(?P<aside>\\(?:hspace|vspace|label|tag)\*?\s*\{[^{}]*\})"
    r"|(?P<command>\\(?:[A-Za-z]+\*?|.))"
    r"|(?P<number>(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    rf"|(?P<name>{_LETTER}(?:{_LETTER}|[0-9]|_(?={_LETTER}|[0-9]))*)"
    r"|(?P<raised>[⁰¹²³⁴-⁹⁺⁻⁽⁾ⁿⁱ]+)|(?P<lowered>[₀-₉₊₋ᵢⱼₖₗₘₙₜₚₕₓₐₑₒᵣₛᵤᵥ]+)"
    r"|(?P<sign>\*\*|\|\||==|<=|>=|!=|\.\*|\.(?:T|sum|mean|dot|transpose)\b|:=|[½⅓¼⅔ᵀ𝟏]|[^\w\s]|_)"
)


@dataclass(frozen=True)
class Piece(Token):
    """A token with its end."""

    end: int = -1


def pieces_of(source: Source) -> Iterator[Piece]:
    """The pieces of a text; raises `FormulaError` at a character or number that no formula has."""
    text, at = source.whole, source.start
    stop = len(text) if source.end is None else source.end
    if stop - at > MAX_LENGTH:
        raise FormulaError(f"a formula has at most {MAX_LENGTH:,} characters", source.place(at))
    while at < stop:
        match = _TOKEN.match(text, at, stop)
        if match is None:
            raise FormulaError(f"the character {text[at]!r} has no place in a formula", source.place(at))
        kind, word, end = match.lastgroup or "", match.group(), match.end()
        if kind == "command":
            yield from _command(word[1:].rstrip("*") or "*", at, end)
        elif kind == "number":
            if len(word) > MAX_DIGITS or abs(float(word.lower().partition("e")[2] or 0)) > 300:
                raise FormulaError("this number is too long or too large", source.place(at))
            yield Piece("number", word, at, end)
        elif kind == "name":
            yield from _names(word, at, end)
        elif kind == "raised":
            yield Piece("sign", "^", at, at)
            yield Piece("script", word.translate(_RAISED), at, end)
        elif kind == "lowered":
            yield Piece("sign", "_", at, at)
            yield Piece("script", word.translate(_LOWERED), at, end)
        elif word in VULGAR:
            yield Piece("vulgar", word, at, end)
        elif word == "ᵀ":
            yield from (Piece("sign", "^", at, at), Piece("sign", "⊤", at, end))
        elif kind == "sign":
            yield Piece("sign", {".*": "⊙"}.get(word) or _UNICODE.get(word, word), at, end)
        at = end


def _names(word: str, at: int, end: int) -> Iterator[Piece]:
    if word[0] in "∑ΣΠ∏" or word in ("Σ", "Π"):
        yield Piece("sign", _UNICODE.get(word[0], word[0]), at, at + 1)
        if len(word) > 1:
            # Σ_nk: the letters below
            yield Piece("sign", "_", at + 1, at + 1 + word[1:].startswith("_"))
            yield Piece("name", word[1:].lstrip("_"), at + len(word) - len(word[1:].lstrip("_")), end)
    else:
        yield Piece("name", word, at, end)


def _command(word: str, at: int, end: int) -> Iterator[Piece]:
    if word in IGNORED or word in ("[", "]", "(", ")"):
        return
    if word in _SIGNS:
        yield Piece("sign", _SIGNS[word], at, end)
    elif word in GREEK:
        yield Piece("greek", GREEK[word], at, end)
    elif word in ("lbrack", "rbrack"):
        yield Piece("sign", "[" if word[0] == "l" else "]", at, end)
    elif word in ("leftarrow", "gets"):
        yield Piece("sign", "=", at, end)
    else:
        yield Piece("command", word, at, end)
