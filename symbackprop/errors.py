"""Every error that a user can cause, and the way it is told: what, where, what to do.

    SymbackpropError
    ├── FormulaError        a text that is not a formula (or a chain of layers)
    ├── NetworkError        formulas that do not make a network
    ├── EmitError           a network that cannot be emitted as it is
    ├── DataError           training data that does not fit the network
    └── FileError           a file that cannot be read, or must not be overwritten

An error carries its `Place` and prints as `FILE:LINE:COLUMN: message`, the line itself, and a caret.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

_SHOWN = 100  # characters of the offending line that are shown around the caret


@dataclass(frozen=True)
class Place:
    """A character in a text: the name of the text, its line and column (from 1), and the line itself."""

    name: str
    line: int
    column: int
    text: str

    def caret(self) -> str:
        """The line, cut to a readable width around the column, with a caret below the column."""
        start = max(0, self.column - 1 - _SHOWN // 2) if len(self.text) > _SHOWN else 0
        shown = self.text[start : start + _SHOWN].replace("\t", " ")
        shown = "".join(c if c.isprintable() else "?" for c in shown)
        return f"    {shown}\n    {' ' * (self.column - 1 - start)}^"


@dataclass(frozen=True)
class Source:
    """A text or a part `[start, end)` of it; offsets always count from the beginning of the whole text."""

    name: str
    whole: str
    start: int = 0
    end: int | None = None

    @property
    def text(self) -> str:
        """The part itself."""
        return self.whole[self.start : self.end]

    def part(self, start: int, end: int) -> Source:
        """A part of the same text, by offsets into the whole."""
        return Source(self.name, self.whole, start, end)

    def place(self, offset: int) -> Place:
        """Where an offset lies, for people."""
        offset = max(0, min(offset, len(self.whole)))
        line = self.whole.count("\n", 0, offset) + 1
        begin = self.whole.rfind("\n", 0, offset) + 1
        stop = self.whole.find("\n", offset)
        return Place(self.name, line, offset - begin + 1, self.whole[begin : stop if stop >= 0 else None])


class SymbackpropError(Exception):
    """The root of every error a user can cause; `str()` of it is the whole message for people."""

    def __init__(self, message: str, place: Place | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.place = place

    def __str__(self) -> str:
        if self.place is None:
            return self.message
        p = self.place
        return f"{p.name}:{p.line}:{p.column}: {self.message}\n{p.caret()}"


class FormulaError(SymbackpropError):
    """A text that is not a formula, or a chain that names no known layer."""


class NetworkError(SymbackpropError):
    """Formulas that do not make a network: ranks, sizes, names, order."""


class EmitError(SymbackpropError):
    """A network that cannot be emitted as it is, for example with an abstract activation."""


class DataError(SymbackpropError):
    """Training data that cannot be read or does not fit the network."""


class FileError(SymbackpropError):
    """A file that is not there, cannot be read, or would be overwritten."""


def suggest(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the nearest known name, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""
