"""Claims in files: TOML with one claim an entry, or a Markdown or LaTeX document whose equations are all claims.

    network = "digits"                       <!-- symbackprop: network = digits -->
    [[claim]]                                $$\\frac{\\partial L}{\\partial z_k} = p_k - y_k$$
    name = "Ada"
    text = "dL/dz2 = (p - y)/N"
    notation = "examples=all"

In documents a comment `symbackprop: network = …` says what the equations after it are about, `symbackprop: notation = …` how they
are read, and `symbackprop: skip` that the next equation is no claim.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from .errors import FileError, FormulaError, Place


@dataclass(frozen=True)
class Entry:
    """One claim of a file: its text, whose it is, how it is read, what it is about, how many points it gives, its line."""

    text: str
    name: str = ""
    notation: str = ""
    network: str | None = None
    points: float = 1.0
    line: int = 1


def read_claims(path: Path) -> list[Entry]:
    """The claims of a file. Raises `FileError` where it cannot be read and `FormulaError` where an entry is no claim."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise FileError(f"the file '{path}' cannot be read: {getattr(problem, 'strerror', None) or problem}") from None
    if path.suffix == ".toml":
        return list(_from_toml(path, text))
    return list(_from_document(path, text))


# ---------------------------------------------------------------------- TOML

_KEYS = {"text", "claim", "formula", "name", "student", "notation", "network", "points"}


def _from_toml(path: Path, text: str) -> Iterator[Entry]:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        found = re.search(r"line (\d+), column (\d+)", str(problem))
        line, column = (int(found[1]), int(found[2])) if found else (1, 1)
        raise FormulaError(f"this is no TOML: {problem}", _place(path, text, line, column)) from None
    common = {"notation": content.get("notation", ""), "network": content.get("network")}
    entries: Any = content.get("claim", content.get("claims", []))
    if isinstance(entries, Mapping):
        entries = [{"name": name, **_keys(e)} for name, e in cast(Mapping[str, Any], entries).items()]
    if not isinstance(entries, list) or not entries:
        raise FormulaError("there is no claim here: write [[claim]] with a text", _place(path, text, 1, 1))
    at = 0
    for number, entry in enumerate(cast(list[Any], entries), 1):
        own = _keys(entry)
        claim = own.get("text", own.get("claim", own.get("formula")))
        if not isinstance(claim, str):
            raise FormulaError(f"claim {number} has no text", _place(path, text, _line(text, at), 1))
        if unknown := sorted(set(own) - _KEYS):
            raise FormulaError(f"claim {number} has an unknown key '{unknown[0]}'", _place(path, text, _line(text, at), 1))
        found = text.find(claim, at)
        at = found + len(claim) if found >= 0 else at
        notation = own.get("notation", common["notation"])
        if isinstance(notation, Mapping):
            notation = ", ".join(f"{k}={v}" for k, v in cast(Mapping[str, Any], notation).items())
        name = str(own.get("name", own.get("student", "")))
        network = own.get("network", common["network"])
        points = float(own.get("points", 1))
        yield Entry(claim.strip(), name, str(notation), network, points, _line(text, max(found, 0)))


def _keys(entry: Any) -> Mapping[str, Any]:
    """What an entry says; one that is no table is the text itself."""
    return cast(Mapping[str, Any], entry) if isinstance(entry, Mapping) else {"text": entry}


# ---------------------------------------------------------------------- documents

_DIRECTIVE = r"(?:<!--|%)\s*symbackprop:\s*(?P<key>\w+)\s*(?:=\s*(?P<value>[^\n]*?))?\s*(?:-->|(?=\n)|$)"
_MATHS = (
    r"(?P<fence>^```.*?^```)"
    r"|\$\$(?P<double>.+?)\$\$"
    r"|\\\[(?P<bracket>.+?)\\\]"
    r"|\\begin\{(?P<kind>equation|align|gather|multline|eqnarray|displaymath|math)\*?\}(?P<body>.+?)\\end\{(?P=kind)\*?\}"
    r"|(?<![\\$])\$(?=\S)(?P<inline>[^$\n]+?)(?<=\S)\$(?!\d)"
)
_PIECES = re.compile(f"{_DIRECTIVE}|{_MATHS}|(?P<comment>(?m:^\\s*%[^\n]*$))", re.DOTALL | re.MULTILINE)


def _from_document(path: Path, text: str) -> Iterator[Entry]:
    network: str | None = None
    notation, skip = "", False
    for found in _PIECES.finditer(text):
        if found["key"] is not None:
            value = (found["value"] or "").strip()
            if found["key"] == "network":
                network = value
            elif found["key"] == "notation":
                notation = value
            elif found["key"] == "skip":
                skip = True
            else:
                known = "network = …, notation = … or skip"
                raise FormulaError(
                    f"'{found['key']}' is no directive; {known}", _place(path, text, _line(text, found.start()), 1)
                )
            continue
        body = next((found[g] for g in ("double", "bracket", "body", "inline") if found[g] is not None), None)
        if body is None or not re.search(r"(?<![<>!:\\])=", body):
            continue
        if skip:
            skip = False
            continue
        for claim in _rows(body):
            at = text.find(claim[:20], found.start())
            yield Entry(claim, "", notation, network, 1.0, _line(text, max(at, found.start())))


def _rows(body: str) -> list[str]:
    """The equations of a display: a row that begins with an equals sign goes on with the one before."""
    body = re.sub(r"\\(?:label|tag)\{[^}]*\}|\\(?:nonumber|notag)\b", "", body)
    body = re.sub(r"\\(?:begin|end)\{(?:aligned|split|gathered|array)\}(?:\{[^}]*\})?", "", body)
    if "\\begin{cases}" in body:
        return [body.strip()]
    rows: list[str] = []
    for row in (part for line in re.split(r"\\\\(?:\[[^\]]*\])?", body) for part in _apart(line)):
        plain = row.replace("&", " ").strip().rstrip(",.;")
        if not plain:
            continue
        if rows and re.match(r"=|\\approx|\+|-", plain):
            rows[-1] += " " + plain
        else:
            rows.append(plain)
    return [r for r in rows if "=" in r]


def _apart(row: str) -> list[str]:
    """Equations side by side in one row; a condition such as `(i = j)` stays with its equation."""
    parts: list[str] = []
    for part in re.split(r"[,;]?\s*(?:\\q?quad\s*)+", row):
        condition = re.fullmatch(r"\s*\(?\s*(?:\\text\{[^}]*\})?\s*\w'?\s*(?:=|\\neq?|≠|<|>)\s*\w'?\s*\)?[\s.,]*", part)
        if parts and (condition or "=" not in part):
            parts[-1] += " \\quad " + part
        else:
            parts.append(part)
    return parts


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _place(path: Path, text: str, line: int, column: int) -> Place:
    lines = text.splitlines() or [""]
    return Place(str(path), line, column, lines[min(line, len(lines)) - 1])
