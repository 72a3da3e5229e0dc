"""Formula trees as data: their parts, places and letters. What they mean is decided elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from .parse import Apply, Binary, Item, Name, Negate, Node, Number, nodes_of

Path = tuple[int, ...]


def children(node: Node) -> tuple[Node, ...]:
    """The parts of a node, in order."""
    match node:
        case Item(indices=inner) | Apply(arguments=inner):
            return inner
        case Negate(operand=operand):
            return (operand,)
        case Binary(left=left, right=right):
            return (left, right)
        case _:
            return ()


def with_children(node: Node, parts: Sequence[Node]) -> Node:
    """The node with other parts."""
    match node:
        case Item():
            return replace(node, indices=tuple(parts))
        case Apply():
            return replace(node, arguments=tuple(parts))
        case Negate():
            return replace(node, operand=parts[0])
        case Binary():
            return replace(node, left=parts[0], right=parts[1])
        case _:
            return node


def put(tree: Node, path: Path, new: Node) -> Node:
    """The tree with another node at a path."""
    if not path:
        return new
    parts = list(children(tree))
    parts[path[0]] = put(parts[path[0]], path[1:], new)
    return with_children(tree, parts)


def walk(tree: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """All nodes with their paths; the letters of sums are not among them."""
    yield path, tree
    parts = children(tree)
    for k, part in enumerate(parts):
        if is_sum(tree) and k < len(parts) - 1:
            continue
        yield from walk(part, (*path, k))


def is_sum(node: Node) -> bool:
    """Whether a node is a reduction over letters."""
    return isinstance(node, Apply) and node.name in ("sum", "mean", "greatest", "prod") and len(node.arguments) > 1


def at(tree: Node, path: Path) -> Node:
    """The node at a path."""
    for k in path:
        tree = children(tree)[k]
    return tree


def span_of(node: Node) -> tuple[int, int] | None:
    """The characters that a node was read from."""
    return (node.at, node.end) if node.end > node.at >= 0 else None


def renamed_tree(node: Node, swap: Mapping[str, str]) -> Node:
    """A tree with letters renamed."""
    if not swap:
        return node
    match node:
        case Name(name=name):
            return replace(node, name=swap[name]) if name in swap else node
        case Item(indices=indices):
            return replace(node, indices=tuple(renamed_tree(i, swap) for i in indices))
        case Apply(arguments=arguments):
            return replace(node, arguments=tuple(renamed_tree(a, swap) for a in arguments))
        case Negate(operand=operand):
            return replace(node, operand=renamed_tree(operand, swap))
        case Binary(left=left, right=right):
            return replace(node, left=renamed_tree(left, swap), right=renamed_tree(right, swap))
        case _:
            return node


def number(value: int | Fraction, node: Node | None = None) -> Number:
    """A number, at the place of a node where one is given."""
    return Number(-1, Fraction(value)) if node is None else Number(node.at, Fraction(value), end=node.end)


def indicator(test: Node, node: Node) -> Node:
    """1 where a comparison holds, 0 elsewhere."""
    return Apply(node.at, "where", (test, number(1), number(0)), end=node.end)


def put_indices(node: Node, letters: Mapping[str, Node]) -> Node:
    """A tree with other indices in place of letters."""
    if isinstance(node, Name):
        return letters.get(node.name, node)
    parts = [put_indices(part, letters) for part in children(node)]
    return with_children(node, parts) if parts else node


def names_in(tree: Node) -> set[str]:
    """The names that a resolved tree uses."""
    return {n.name for n in nodes_of(tree) if isinstance(n, (Item, Name))}


def letters_in(tree: Node) -> set[str]:
    """The names in a tree that no reduction within it binds."""
    bound = {
        a.name
        for n in nodes_of(tree)
        if isinstance(n, Apply) and n.name in ("sum", "mean", "greatest", "prod", "max")
        for a in n.arguments[:-1]
        if isinstance(a, Name)
    }
    return {n.name for n in nodes_of(tree) if isinstance(n, Name)} - bound


ONE = Number(-1, Fraction(1))
