"""A module for very many layers out of modules for a few: layers that are alike are derived once.

In a module that loops over like layers only numbers tell how many there are. Modules for three small numbers of layers are
compared: where they differ in numbers alone, each of which grows evenly, that of any number of layers follows. Where they
differ otherwise, the whole network is derived.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Fewer repetitions than `_MANY` are derived one by one. The small modules have `_FEW` and more, as many more as buffers that
# take turns from layer to layer may need to come round.
_MANY, _FEW, _ROUND = 64, 18, 6
_NUMBER = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Repeated:
    """A chain of layers, some of which come `count` times."""

    before: tuple[str, ...]
    unit: tuple[str, ...]
    after: tuple[str, ...]
    count: int

    def text(self, count: int) -> str:
        """The chain with another number of repetitions."""
        return " -> ".join((*self.before, *self.unit * count, *self.after))


def repeated_layers(text: str) -> Repeated | None:
    """The layers that a chain repeats many times, if there are such."""
    links = _links(text)
    best: Repeated | None = None
    for period in range(1, 5):
        start = 1
        while start + period * _MANY <= len(links):
            count = 1
            while links[start : start + period] == links[start + period * count : start + period * (count + 1)]:
                count += 1
            if count >= _MANY and (best is None or count * period > best.count * len(best.unit)):
                unit, after = links[start : start + period], links[start + period * count :]
                best = Repeated(tuple(links[:start]), tuple(unit), tuple(after), count)
            start += count if period == 1 else 1
    return best


def _links(text: str) -> list[str]:
    """The parts of a chain between its arrows, as far as these are in no brackets."""
    links, depth, begin = list[str](), 0, 0
    for m in re.finditer(r"[()\[\]]|->", text):
        if m[0] != "->":
            depth += 1 if m[0] in "([" else -1
        elif depth == 0:
            links.append(text[begin : m.start()].strip())
            begin = m.end()
    return [*links, text[begin:].strip()]


def lengthened(chain: Repeated, emit: Callable[[str], str]) -> str | None:
    """What `emit` would write for a chain, found from what it writes for short ones; None where that does not tell."""
    least = _FEW + (chain.count - _FEW) % _ROUND
    counts = range(least, least + 3 * _ROUND, _ROUND)
    texts = [emit(chain.text(c)).replace(chain.text(c), chr(0)) for c in counts]
    a, b, c = (_NUMBER.split(text) for text in texts)
    if not len(a) == len(b) == len(c):
        return None
    result = [_grown(parts, (chain.count - least) // _ROUND) for parts in zip(a, b, c, strict=True)]
    return None if None in result else "".join(p or "" for p in result).replace(chr(0), chain.text(chain.count))


def _grown(parts: Sequence[str], by: int) -> str | None:
    """What stands at one place `by` times as far from the first text as the second is."""
    first, second, third = parts
    if first == second == third:
        return first
    if not all(p.isdigit() for p in parts) or int(second) - int(first) != int(third) - int(second):
        return None
    return str(int(first) + by * (int(second) - int(first)))
