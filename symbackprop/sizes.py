"""Index letters and their sizes: which letters run over the same values, and how many these are."""

from __future__ import annotations

from collections.abc import Mapping

from sympy import Symbol

from .notation import Index, base_name, size_symbol


class Sizes:
    """Which index letters run over the same values, and how many these are where that is known."""

    def __init__(self, given: Mapping[str, int | str] | None = None) -> None:
        self._parent: dict[str, str] = {}
        self._size: dict[str, str] = {}
        self._number: dict[str, int] = {}
        self.extend(given or {})

    def extend(self, given: Mapping[str, int | str]) -> None:
        """Give letters their sizes: a number, or the name of a symbolic one."""
        for name, value in given.items():
            self.add(name)
            if isinstance(value, int):
                self._number[name] = value
            else:
                self._size[self.root(name)] = value

    def __contains__(self, name: str) -> bool:
        return name in self._parent

    def add(self, name: str) -> None:
        """Make an index letter known; its size is the upper-case letter unless said otherwise."""
        if name not in self._parent:
            self._parent[name] = name
            self._size[name] = name.upper() if name.upper() != name else name + "_size"

    def root(self, name: str) -> str:
        """The first letter that stood for the same range."""
        self.add(base_name(name))
        name = base_name(name)
        while self._parent[name] != name:
            name = self._parent[name]
        return name

    def unify(self, one: str, other: str) -> str | None:
        """Say that two letters run over the same range; what is wrong with that, or None."""
        a, b = self.root(one), self.root(other)
        if a == b:
            return None
        if a in self._number and b in self._number and self._number[a] != self._number[b]:
            return f"'{one}' runs over {self._number[a]} values and '{other}' over {self._number[b]}"
        order = list(self._parent)
        if order.index(b) < order.index(a):
            a, b = b, a
        self._parent[b] = a
        if b in self._number:
            self._number[a] = self._number.pop(b)
        return None

    def all_letters(self) -> list[str]:
        """Every letter that was used."""
        return list(self._parent)

    def letters(self) -> list[str]:
        """One letter for each range."""
        return [i for i in self._parent if self.root(i) == i]

    def number(self, name: str) -> int | None:
        """The size as a number, if known."""
        return self._number.get(self.root(name))

    def symbol(self, name: str) -> Symbol:
        """The size as a symbol."""
        return size_symbol(self._size[self.root(name)])

    def index_of_size(self, size: str) -> str | None:
        """The letter whose size has this name."""
        return next((i for i in self._parent if self.root(i) == i and self._size[i] == size), None)

    def indices(self) -> tuple[Index, ...]:
        """All letters, for a `Network`."""
        return tuple(Index(i, self._size[self.root(i)], self.number(i)) for i in self._parent)
