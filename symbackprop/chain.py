"""The one-line spelling of a network: `64 -> dense(32, relu) -> dense(10, softmax) -> cross_entropy` to a list of items."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from .errors import Source
from .parse import Apply, Name, Node, Number, Reader


@dataclass(frozen=True)
class Shape(Node):
    """The shape of one example: numbers, `auto` for what the data tell, or letters for symbolic sizes."""

    sizes: tuple[int | str, ...]


@dataclass(frozen=True)
class Link(Node):
    """A layer, an activation or the loss: its name, arguments by position and by name, or the links within it."""

    name: str
    arguments: tuple[Node, ...] = ()
    named: Mapping[str, Node] | None = None
    inner: tuple[Link, ...] = ()


# What holds a chain of its own: x + f(x), and x with f(x) beside it.
BRANCHES = ("residual", "concat")


def parse_chain(source: Source) -> tuple[Shape, list[Link]]:
    """The shape and the links of a chain; the whole text is consumed."""
    reader = Reader(source)
    shape = _shape(reader)
    links: list[Link] = []
    while reader.token.kind != "end":
        reader.expect("->", "between the layers")
        links.append(_link(reader))
    return shape, links


def _shape(reader: Reader, least: int = 1) -> Shape:
    at, sizes = reader.token.at, list[int | str]()
    while True:
        token = reader.take()
        if token.kind == "number" and token.text.isdigit() and least <= int(token.text[:12]) <= 10**9:
            sizes.append(int(token.text))
        elif token.kind == "name":
            # `28x28x1` is read as the number 28 and the name x28x1.
            pieces = re.fullmatch(r"((?:x\d+)+)", token.text)
            if pieces and sizes:
                sizes += [int(p) for p in token.text[1:].split("x")]
            elif token.text != "x":
                sizes.append(token.text)
            elif not sizes:
                raise reader.error("a chain begins with the shape of one example, such as 64 or 28x28x1", token.at)
        else:
            raise reader.error("a chain begins with the shape of one example, such as 64 or 28x28x1", token.at)
        if reader.token.kind not in ("number", "name"):
            return Shape(at, tuple(sizes))


def _link(reader: Reader) -> Link:
    token = reader.take()
    if token.kind != "name":
        raise reader.error("expected the name of a layer, an activation or a loss", token.at)
    if not reader.ahead("("):
        return Link(token.at, token.text)
    reader.take()
    if token.text in BRANCHES:
        reader.deeper("branches")
        inner = [_link(reader)]
        while reader.ahead("->"):
            reader.take()
            inner.append(_link(reader))
        reader.shallower()
        reader.expect(")", f"to close '{token.text}('")
        return Link(token.at, token.text, inner=tuple(inner))
    arguments: list[Node] = []
    named: dict[str, Node] = {}
    while not reader.ahead(")"):
        if reader.token.kind == "name" and reader.peek(1).text == "=":
            key = reader.take()
            reader.take()
            if key.text in named:
                raise reader.error(f"'{key.text}' is given twice", key.at)
            named[key.text] = _argument(reader)
        elif named:
            raise reader.error("arguments without a name come first")
        else:
            arguments.append(_argument(reader))
        if not reader.ahead(","):
            break
        reader.take()
    reader.expect(")", f"to close '{token.text}('")
    return Link(token.at, token.text, tuple(arguments), named)


def _argument(reader: Reader) -> Node:
    """A value, or sizes such as `3x3`."""
    if reader.token.kind == "number" and re.fullmatch(r"(x\d+)+", reader.peek(1).text):
        return _shape(reader, least=0)
    return reader.expression()


def every_link(links: Iterable[Link]) -> Iterator[Link]:
    """All links in order, those within branches as well."""
    for link in links:
        yield link
        yield from every_link(link.inner)


def as_sizes(node: Node) -> tuple[int, ...] | None:
    """An argument that is one whole number from 0 or several, `2` or `3x3`."""
    if isinstance(node, Shape):
        return tuple(s for s in node.sizes if isinstance(s, int)) if all(isinstance(s, int) for s in node.sizes) else None
    if isinstance(node, Number) and node.value.denominator == 1 and 0 <= node.value <= 10**9:
        return (int(node.value),)
    return None


def as_link(node: Node) -> Link | None:
    """An argument that names something, `leaky_relu` or `leaky_relu(0.2)`, as a link of its own."""
    if isinstance(node, Name):
        return Link(node.at, node.name)
    if isinstance(node, Apply):
        return Link(node.at, node.name, node.arguments)
    return None


def as_size(node: Node) -> int | None:
    """An argument that is a positive whole number."""
    if isinstance(node, Number) and node.value.denominator == 1 and 0 < node.value <= 10**9:
        return int(node.value)
    return None
