"""A formula as a network: what comes in, what goes out, and the derivative that comes from above.

x*sigmoid(x)                               out[n,k] = x[n,k]*sigmoid(x[n,k]), G = sum(n, k, upstream[n,k]*out[n,k])
out[n,k] = sum(d, x[n,d]*w[d,k])           the inputs are the names in it, the letters their axes
m[n] = mean(k, x[n,k])                     several lines: every name that no other line uses goes out
out[n,k] = x[n,k] - m[n]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .declare import bundled, declare
from .errors import FormulaError, Source
from .notation import Network
from .parse import Apply, Binary, Item, Name, Node, parse_expression
from .trees import is_sum, nodes_of


@dataclass(frozen=True)
class Formula:
    """A formula's network, its outputs, and the array of what comes from above for each."""

    network: Network
    outputs: tuple[str, ...]
    upstream: Mapping[str, str]


@dataclass(frozen=True)
class _Line:
    name: str
    letters: tuple[str, ...] | None  # None where the left side has no brackets
    source: Source
    tree: Node


def is_formula(network: Any) -> bool:
    """Whether something is the text of a formula, and no chain, file or bundled name."""
    if not isinstance(network, str) or "->" in network or "→" in network or network in bundled():
        return False
    return Path(network.strip()).suffix != ".toml" and "equations" not in network and "network" not in network


def formula_network(text: str, constants: Mapping[str, float], sizes: Mapping[str, int]) -> Formula:
    """The network of a formula; names among `constants` are numbers, `sizes` says how far letters run."""
    text, sizes = _widened(*_numbered(text, sizes))
    lines = _lines(text)
    left = {line.name for line in lines}
    axes: dict[str, list[str]] = {}
    bound = {i for line in lines for i in _letters(line)} | {a.name for line in lines for a in _bound(line.tree)}
    fresh = (i for i in "tuvwrsq" if i not in bound and i not in axes)
    plain: dict[str, None] = {}
    for line in lines:
        for node in nodes_of(line.tree):
            if isinstance(node, Item) and node.name not in left:
                _axes(axes, node, fresh)
            elif isinstance(node, Name) and node.name not in left | bound | set(constants) | {"pi"}:
                plain[node.name] = None
    used = bound | {i for own in axes.values() for i in own}
    indexed = bool(axes) or any(line.letters for line in lines)
    plain = {n: None for n in plain if n not in axes and not (indexed and n in {i.upper() for i in used} | set(sizes))}
    shared = () if indexed else ("n", "k")
    order = sorted([*axes, *plain], key=lambda n: _first(lines, n))
    inputs = [_bracketed(n, axes.get(n, shared)) for n in order]
    equations = [_equation(line, shared, plain, left) for line in lines]
    read = {n.name for line in lines for n in nodes_of(line.tree) if isinstance(n, (Item, Name))}
    outputs = tuple(line.name for line in lines if line.name not in read) or (lines[-1].name,)
    over = {line.name: line.letters or shared for line in lines}
    taken = {*axes, *plain, *left, *constants}
    upstream = {o: _free("upstream" if len(outputs) == 1 else f"upstream_{o}", taken) for o in outputs}
    inputs += [_bracketed(upstream[o], over[o]) for o in outputs]
    products = [_product(upstream[o], o, over[o]) for o in outputs]
    scalar = _free("G", taken)
    declared: dict[str, Any] = {
        "name": "formula",
        "equations": "\n".join([*equations, f"{scalar} = {' + '.join(products)}"]),
        "inputs": inputs,
        "targets": [],
        "parameters": [],
    }
    if used_constants := {n: v for n, v in constants.items() if n in read}:
        declared["constants"] = used_constants
    if sizes:
        declared["sizes"] = dict(sizes)
    return Formula(declare(declared), outputs, upstream)


def _lines(text: str) -> list[_Line]:
    return [_line(text, start, stop) for start, stop in _pieces(text)]


def _put(text: str, changes: Mapping[tuple[int, int], str]) -> str:
    for (start, stop), new in sorted(changes.items(), reverse=True):
        text = f"{text[:start]}{new}{text[stop:]}"
    return text


def _numbered(text: str, sizes: Mapping[str, int]) -> tuple[str, dict[str, int]]:
    """Sizes within an index, `x[n,i+I]`, as numbers: those given, or 3."""
    known = dict(sizes)
    changes: dict[tuple[int, int], str] = {}
    for line in _lines(text):
        for item in (n for n in nodes_of(line.tree) if isinstance(n, Item)):
            for name in (n for i in item.indices if not isinstance(i, Name) for n in nodes_of(i) if isinstance(n, Name)):
                letter = name.name.lower()
                if name.name.isupper() and letter in {*_letters(line), *(b.name for b in _bound(line.tree))}:
                    changes[name.at, name.at + len(name.name)] = str(known.setdefault(letter, 3))
    return _put(text, changes), known


def _widened(text: str, sizes: Mapping[str, int]) -> tuple[str, dict[str, int]]:
    """A letter that counts less far than its axis, as in `x[n,i]*sigmoid(x[n,i+3])`: written as a window of one place."""
    known, lines = dict(sizes), _lines(text)
    padded = {
        id(n) for line in lines for p in nodes_of(line.tree) if isinstance(p, Apply) and p.name == "pad" for n in nodes_of(p)
    }
    items = [n for line in lines for n in nodes_of(line.tree) if isinstance(n, Item)]
    own = {line.name for line in lines}
    moved = {
        (n.name, k) for n in items if id(n) not in padded and n.name not in own for k, i in enumerate(n.indices) if _is_moved(i)
    }
    used = {n.name for line in lines for n in nodes_of(line.tree) if isinstance(n, Name)} | {
        i for x in lines for i in _letters(x)
    }
    changes: dict[tuple[int, int], str] = {}
    for n in items:
        for k, i in enumerate(n.indices):
            if (n.name, k) in moved and isinstance(i, Name):
                letter = next(c for c in "abcdefghlm" if c not in used)
                known[letter] = 1
                place = i.at + len(i.name)
                changes[place, place] = f"+{letter}"
                changes[n.at, n.at] = f"sum({letter}, "
                changes[n.end, n.end] = ")"
    return _put(text, changes), known


def _is_moved(index: Node) -> bool:
    return isinstance(index, Binary) and any(isinstance(n, Name) for n in nodes_of(index))


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for line in text.replace(";", "\n").split("\n"):
        if line.strip():
            yield start, start + len(line)
        start += len(line) + 1


def _line(text: str, start: int, stop: int) -> _Line:
    source = Source("<formula>", text, start, stop)
    own = source.text
    at = next((k for k, c in enumerate(own) if c == "=" and own[k - 1 : k] not in ("<", ">", "!", "=") and own[k + 1] != "="), -1)
    right = Source("<formula>", text, start + at + 1, stop)
    if at < 0:
        return _Line("out", None, right, parse_expression(right))
    left = parse_expression(Source("<formula>", text, start, start + at))
    if isinstance(left, Name):
        return _Line(left.name, None, right, parse_expression(right))
    if not isinstance(left, Item) or not all(isinstance(i, Name) for i in left.indices):
        raise FormulaError("the left side of a formula is a name with letters, such as out[n,k]", source.place(start))
    letters = tuple(i.name for i in left.indices if isinstance(i, Name))
    return _Line(left.name, letters, right, parse_expression(right))


def _letters(line: _Line) -> tuple[str, ...]:
    return line.letters or ()


def _bound(tree: Node) -> Iterator[Name]:
    """The letters of sums, and those that stand as indices."""
    indices = {
        n.name
        for item in nodes_of(tree)
        if isinstance(item, Item)
        for i in item.indices
        for n in nodes_of(i)
        if isinstance(n, Name)
    }
    for node in nodes_of(tree):
        if isinstance(node, Apply) and (is_sum(node) or node.name in ("max", "argmax", "logsumexp")) and len(node.arguments) > 1:
            # max(x, 0) is the greater of two, max(k, x[n,k]) the greatest of all
            yield from (a for a in node.arguments[:-1] if isinstance(a, Name) and a.name in indices)
        elif isinstance(node, Item):
            yield from (i for i in node.indices if isinstance(i, Name))


def _axes(axes: dict[str, list[str]], node: Item, fresh: Iterator[str]) -> None:
    own = axes.setdefault(node.name, [])
    for k, i in enumerate(node.indices):
        plain = i.name if isinstance(i, Name) else None
        if k < len(own):
            own[k] = plain if plain is not None and own[k].startswith("?") else own[k]
        else:
            own.append(plain if plain is not None and plain not in own else "?" + next(fresh, "z"))


def _first(lines: Sequence[_Line], name: str) -> tuple[int, int]:
    for k, line in enumerate(lines):
        for node in nodes_of(line.tree):
            if isinstance(node, (Item, Name)) and node.name == name:
                return k, node.at
    return len(lines), 0


def _bracketed(name: str, letters: Sequence[str]) -> str:
    plain = [i.lstrip("?") for i in letters]
    return f"{name}[{','.join(plain)}]" if plain else name


def _equation(line: _Line, shared: Sequence[str], plain: Mapping[str, None], left: set[str]) -> str:
    """The line with letters put to names that have none, where the whole formula has none."""
    text = line.source.whole[line.source.start : line.source.end]
    if shared:
        spots = [n for n in nodes_of(line.tree) if isinstance(n, Name) and (n.name in plain or n.name in left)]
        for n in sorted(spots, key=lambda n: -n.at):
            at = n.at - line.source.start
            text = f"{text[:at]}{_bracketed(n.name, shared)}{text[at + len(n.name) :]}"
    return f"{_bracketed(line.name, line.letters or shared)} = {text.strip()}"


def _product(upstream: str, output: str, letters: Sequence[str]) -> str:
    product = f"{_bracketed(upstream, letters)}*{_bracketed(output, letters)}"
    return f"sum({', '.join(letters)}, {product})" if letters else product


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
