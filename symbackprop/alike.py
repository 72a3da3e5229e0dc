"""Formulas of layers that differ in their number alone, written once for a general layer l.

z7[n,h7] = … a6 … W7      and      z8[n,h8] = … a7 … W8      are both      z₍ₗ₎ = … a₍ₗ₋₁₎ … W₍ₗ₎
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_LAYER = re.compile(r"(?<=[^\W\d_])(\d+)(?!\d)")
_UNDER = re.compile(r"(?:Σ|mean|max|argmax)_[\w',]*$")
_SMALL = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


@dataclass(frozen=True)
class Alike:
    """The formula of one layer, `own`, that stands for those of all the layers `numbers`; its `text` is for a general one."""

    text: str
    own: int
    numbers: tuple[int, ...]


def alike(texts: Sequence[str], least: int) -> Iterator[tuple[int, Alike | None]]:
    """The positions of the formulas to show: of at least `least` that are alike only the first, with what it stands for."""
    patterns = [pattern(text) for text in texts]
    groups: dict[str, list[int]] = {}
    for found in patterns:
        if found is not None:
            groups.setdefault(found[0], []).append(found[1])
    done: set[str] = set()
    for position, found in enumerate(patterns):
        if found is None or len(groups[found[0]]) < least:
            yield position, None
        elif found[0] not in done:
            done.add(found[0])
            yield position, Alike(*found, tuple(groups[found[0]]))


def pattern(text: str) -> tuple[str, int] | None:
    """A formula with the numbers of its layers counted from its own, and that number; None where it has none.

    Letters of indices count along only where they belong to this layer or the one beside it: the width of a block stays.
    """
    numbers = [int(n) for n in _LAYER.findall(text)]
    if not numbers:
        return None
    own = numbers[0]

    def relative(match: re.Match[str]) -> str:
        off, before = int(match[1]) - own, text[: match.start()]
        letter = before.count("[") > before.count("]") or _UNDER.search(before) is not None
        if letter and abs(off) > 1:
            return match[1]
        return "₍ₗ₎" if off == 0 else f"₍ₗ{'₊' if off > 0 else '₋'}{str(abs(off)).translate(_SMALL)}₎"

    return _LAYER.sub(relative, text), own


def general(latex: str, own: int) -> str:
    """The LaTeX of a layer's formula with l for its number."""

    def relative(match: re.Match[str]) -> str:
        off = int(match[2]) - own
        if match[1].startswith("_") and abs(off) > 1:
            return match[0]
        return f"{match[1]}l{'' if off == 0 else f'{off:+d}'}{match[3]}"

    latex = re.sub(r"(\^\{\()(\d+)(\))", relative, latex)
    return re.sub(r"(_\{)(\d+)(\}|,)", relative, latex)


def ranges(numbers: Sequence[int]) -> str:
    """The numbers of layers in words: 2, …, 20."""
    ordered = sorted(set(numbers))
    if ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]}, …, {ordered[-1]}"
    return ", ".join(map(str, ordered))
