"""The diagram of a network: its values as nodes, their uses as edges, the weights on the edges, and the paths to the loss.

Small networks are drawn unit by unit, large ones array by array, in columns by how far they are from the input.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import sympy
from sympy import Expr

from .notation import Element, Equation, Network, Term, elements_of, groups_of, index, is_index

_MOST_UNITS = 24  # nodes that are drawn unit by unit
_MOST_PATHS = 24  # of one weight that are listed
_COLUMN, _ROW = 156, 108


@dataclass
class Node:
    """A value: an array or one unit of it, and where it is drawn."""

    element: Element
    kind: str
    column: int = 0
    row: float = 0.0

    @property
    def x(self) -> float:
        """The centre, from the left."""
        return 52 + self.column * _COLUMN

    @property
    def y(self) -> float:
        """The centre, from the top."""
        return 52 + self.row * _ROW


@dataclass(frozen=True)
class Edge:
    """A use of `source` in the equation of `target`, with the weights that multiply it there."""

    source: str
    target: str
    weights: tuple[Element, ...] = ()


@dataclass
class Graph:
    """Nodes by name, edges, and whether units are drawn one by one."""

    nodes: dict[str, Node] = field(default_factory=dict[str, Node])
    edges: list[Edge] = field(default_factory=list[Edge])
    units: bool = False

    @property
    def width(self) -> float:
        """The width of the drawing."""
        return max((n.x for n in self.nodes.values()), default=0) + 52

    @property
    def height(self) -> float:
        """The height of the drawing."""
        return max((n.y for n in self.nodes.values()), default=0) + 52


def graph_of(network: Network) -> Graph:
    """The diagram of a network."""
    unrolled = _unrolled(network)
    graph = Graph(units=unrolled is not None)
    equations = unrolled if unrolled is not None else list(network.equations)
    roles = {a.name: a.role for a in network.arrays}
    own = {a.name: Element(a.name, *map(index, a.axes)) for a in network.arrays}
    for equation in equations:
        target = _key(equation.target, graph.units)
        graph.nodes.setdefault(target, Node(equation.target, "loss" if equation.name == network.loss else "stored"))
        for body in (cast(Expr, a) for t in equation.terms for a in sympy.Add.make_args(t.body)):
            weights = tuple(e for e in elements_of(body) if roles.get(e.name) == "parameter")
            if not graph.units:
                weights = tuple(dict.fromkeys(Element(w.name) for w in weights))
            signals = [e for e in elements_of(body) if roles.get(e.name) not in ("parameter", "constant")]
            for e in signals:
                if e.name == equation.name:
                    continue
                graph.nodes.setdefault(_key(e, graph.units), Node(e if graph.units else own[e.name], roles.get(e.name, "stored")))
                _add(graph, Edge(_key(e, graph.units), target, weights))
            if not signals and weights:
                _add(graph, Edge("", target, weights))
    _lay_out(graph, equations)
    return graph


def _add(graph: Graph, edge: Edge) -> None:
    for k, other in enumerate(graph.edges):
        if (other.source, other.target) == (edge.source, edge.target):
            merged = tuple(dict.fromkeys((*other.weights, *edge.weights)))
            graph.edges[k] = Edge(edge.source, edge.target, merged)
            return
    graph.edges.append(edge)


def _key(e: Element, units: bool) -> str:
    """One node for an array, or for each unit of it, whose place is a number."""
    places = [str(i) for i in e.indices if i.is_Integer] if units else []
    return "_".join([e.name, *places])


def _unrolled(network: Network) -> list[Equation] | None:
    """The equations unit by unit, all axes but the examples written out; None where these are too many or not all known."""
    numbers = {i.name: i.number for i in network.indices}
    count = 0
    result: list[Equation] = []
    for equation in network.equations:
        if any(not is_index(i) for t in equation.terms for e in t.body.atoms(Element) for i in e.indices):
            return None
        if any(t.reduce != "sum" for t in equation.terms):
            return None
        own = [i for i in equation.target.letters if i.name != network.batch]
        if any(numbers.get(i.name) is None for i in own):
            return None
        for place in itertools.product(*(range(1, cast(int, numbers[i.name]) + 1) for i in own)):
            count += 1
            if count > _MOST_UNITS:
                return None
            at: dict[Expr, Expr] = dict(zip(own, map(sympy.Integer, place), strict=True))
            terms: list[Term] = []
            for term in equation.terms:
                over = [i for i in term.over if i.name != network.batch]
                sizes = [numbers.get(i.name.rstrip("'")) for i in over]
                if any(n is None for n in sizes):
                    return None
                for inner in itertools.product(*(range(1, cast(int, n) + 1) for n in sizes)):
                    swap = {**at, **dict(zip(over, map(sympy.Integer, inner), strict=True))}
                    terms.append(Term(cast(Expr, term.body.xreplace(swap)), tuple(i for i in term.over if i not in over)))
            result.append(Equation(cast(Element, equation.target.xreplace(at)), tuple(terms)))
    return result


def _lay_out(graph: Graph, equations: Sequence[Equation]) -> None:
    """Columns by the longest way from an input, rows centred."""
    order = (
        [_key(e.target, graph.units) for group in groups_of(equations) for e in group]
        if not graph.units
        else [_key(e.target, graph.units) for e in equations]
    )
    column = dict.fromkeys(graph.nodes, 0)
    into: dict[str, list[str]] = {}
    for edge in graph.edges:
        if edge.source:
            into.setdefault(edge.target, []).append(edge.source)
    for name in order:
        column[name] = 1 + max((column[s] for s in into.get(name, ()) if s != name), default=-1 if name not in into else 0)
    # What is only used late, such as a target, stands just before its use.
    for name, node in graph.nodes.items():
        if node.kind in ("target", "noise") or (node.kind == "input" and name not in into):
            users = [column[e.target] for e in graph.edges if e.source == name]
            if node.kind != "input":
                column[name] = max(min(users, default=1) - 1, 0)
    tall: dict[int, list[str]] = {}
    for name in graph.nodes:
        tall.setdefault(column[name], []).append(name)
    most = max(map(len, tall.values()), default=1)
    for k, names in tall.items():
        names.sort(key=lambda n: (graph.nodes[n].kind in ("target", "noise"), list(graph.nodes).index(n)))
        for row, name in enumerate(names):
            graph.nodes[name].column = k
            graph.nodes[name].row = row + (most - len(names)) / 2


def paths_to_loss(graph: Graph, weight: Element, loss: str, most: int = _MOST_PATHS) -> tuple[list[list[str]], bool]:
    """Every path of nodes from where a weight enters to the loss, and whether there are more than `most`, which are listed."""
    onward: dict[str, list[str]] = {}
    for edge in graph.edges:
        if edge.source:
            onward.setdefault(edge.source, []).append(edge.target)
    found: list[list[str]] = []
    starts = list(dict.fromkeys(e.target for e in graph.edges if weight in e.weights))
    stack = [[s] for s in reversed(starts)]
    while stack and len(found) <= most:
        path = stack.pop()
        if path[-1] == loss:
            found.append(path)
            continue
        stack += [[*path, n] for n in reversed(onward.get(path[-1], [])) if n not in path]
    return found[:most], len(found) > most


def weights_of(graph: Graph) -> list[Element]:
    """The weights in the order of the drawing."""
    return list(dict.fromkeys(w for e in graph.edges for w in e.weights))
