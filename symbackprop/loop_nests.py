"""Statements within loops, and which of them may share a loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sympy
from sympy import Expr, Symbol

from .loop_text import elements_in, letters_in
from .notation import Element, indices_of, is_index


@dataclass(frozen=True)
class Nest:
    """`target op front*body` within `levels`: letters to loop over and conditions; `inner` letters are reduced within."""

    formula: str
    target: Element
    op: str
    body: Expr
    levels: tuple[Any, ...] = ()
    inner: tuple[Symbol, ...] = ()
    reduce: str = "sum"
    front: Expr = sympy.S.One
    tests: tuple[Any, ...] = ()

    @property
    def writes(self) -> set[str]:
        """The arrays that it writes."""
        return {self.target.name}

    @property
    def elements(self) -> list[Element]:
        """The elements that it reads."""
        conditions = [x for x in self.levels if not is_index(x)]
        return elements_in([self.body, self.front, *self.target.indices, *conditions, *self.tests])

    @property
    def reads(self) -> set[str]:
        """The arrays that it reads."""
        return {e.name for e in self.elements}

    def letters(self) -> set[Symbol]:
        """All letters in it."""
        return letters_in([self.body, self.front, self.target, *self.tests]) | {
            i for x in (*self.levels, *self.inner) for i in indices_of(x)
        }

    def renamed(self, old: Symbol, new: Symbol) -> Nest:
        """With one letter for another."""
        swap = {old: new}

        def put(expr: Any) -> Any:
            return expr.xreplace(swap)

        return replace(
            self,
            target=put(self.target),
            body=put(self.body),
            front=put(self.front),
            levels=tuple(map(put, self.levels)),
            inner=tuple(map(put, self.inner)),
            tests=tuple(map(put, self.tests)),
        )


@dataclass(frozen=True)
class Block:
    """Lines that stand as they are: a matrix product with its copies, or a recurrence; `room` are arrays that they borrow."""

    lines: tuple[str, ...]
    writes: set[str]
    reads: set[str]
    room: tuple[tuple[str, tuple[str, ...]], ...] = ()


def place(groups: list[Block | list[Nest]], item: Block | Nest, size: Callable[[Symbol], str]) -> None:
    """Put an item into the loops of the earliest group that it may join, or behind all."""
    if isinstance(item, Block) or not item.levels or not is_index(item.levels[0]):
        groups.append([item] if isinstance(item, Nest) else item)
        return
    least = 0
    for k, group in enumerate(groups):
        shared = (writes_of(group) & (item.reads | item.writes)) or (reads_of(group) & item.writes)
        if shared:
            joins = isinstance(group, list) and joined(group, item, size) is not None
            least = k if joins else k + 1
    for group in groups[least:]:
        if isinstance(group, list) and (new := joined(group, item, size)) is not None:
            group.append(new)
            return
    groups.append([item])


def joined(group: Sequence[Nest], item: Nest, size: Callable[[Symbol], str]) -> Nest | None:
    """The item with the letter of the group's loop, if it may run within this loop."""
    if not group[0].levels or not item.levels:
        return None
    letter, own = group[0].levels[0], item.levels[0]
    if not is_index(letter) or not is_index(own):
        return item if own == letter else None
    if size(letter) != size(own):
        return None
    if own != letter:
        if letter in item.letters():
            return None
        item = item.renamed(own, letter)
    return item if all(_may_share(g, item, letter) for g in group) else None


def writes_of(group: Block | list[Nest]) -> set[str]:
    """The arrays that a group writes."""
    return group.writes if isinstance(group, Block) else set[str]().union(*(n.writes for n in group))


def reads_of(group: Block | list[Nest]) -> set[str]:
    """The arrays that a group reads, those that it adds to as well."""
    if isinstance(group, Block):
        return group.reads
    added = {n.target.name for n in group if n.op != "="}
    return set[str]().union(added, *(n.reads for n in group))


def _may_share(first: Nest, second: Nest, letter: Symbol) -> bool:
    """Whether two statements may run in one loop over a letter: what one writes, the other touches only at the same place."""
    touched = (first.writes & (second.reads | second.writes)) | (first.reads & second.writes)
    for name in touched:
        if name not in first.reads | second.reads and first.op == second.op == "+=":
            continue  # both only add
        places = [e for e in (first.target, second.target, *first.elements, *second.elements) if e.name == name]
        axes = {tuple(k for k, i in enumerate(e.indices) if letter in indices_of(i)) for e in places}
        if len(axes) != 1 or len(axis := next(iter(axes))) != 1 or any(e.indices[axis[0]] != letter for e in places):
            return False
    return True
