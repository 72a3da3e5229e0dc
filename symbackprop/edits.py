"""Small changes of a formula tree, each with its name: what a wrong claim would have to be to be right.

Every edit is a slip that people make, turned round: a factor left out is put in, a quotient becomes a product, `f'(a)` becomes
`f'(z)`. Whether one explains a claim is decided by numbers, elsewhere.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from .parse import Apply, Binary, Item, Name, Negate, Node, Number
from .trees import ONE, Path, at, children, is_sum, letters_in, nodes_of, put, renamed_tree, span_of, walk


@dataclass(frozen=True)
class Edit:
    """A changed tree, what was wrong in words, and the characters that are wrong where these can be pointed at."""

    tree: Node
    words: str
    span: tuple[int, int] | None = None


@dataclass(frozen=True)
class Material:
    """What edits may put in: the arrays by name with the sizes of their axes, activations, and how to speak of them."""

    axes: Mapping[str, tuple[str, ...]]
    letters: Mapping[str, str]  # the size of each letter
    activations: Sequence[tuple[str, str, str]]  # function, the array it is applied to, its output
    words: Mapping[str, str]  # `the layer's input x`
    shown: Mapping[str, str]  # the name as the claim writes it
    free: tuple[str, ...]
    left: tuple[str, ...]  # the letters of the other side
    neighbours: Mapping[str, tuple[str, ...]]  # arrays that could be mistaken for one another
    factors: tuple[Node, ...] = ()  # what the right formula is a product of
    functions: tuple[str, ...] = ()  # of which a claim about a function speaks
    variables: tuple[str, ...] = ()  # what they are functions of
    stems: Mapping[str, str] = field(default_factory=dict[str, str])  # a letter for each size
    calls: tuple[tuple[str, str], ...] = ()  # functions that the network applies to arrays within longer formulas
    steps: Mapping[tuple[str, str], str] = field(default_factory=dict["tuple[str, str]", str])  # between two derivatives


def _is_product(node: Node) -> bool:
    return isinstance(node, Negate) or (isinstance(node, Binary) and node.operator in "*/")


def factors(node: Node, path: Path = (), power: int = 1) -> Iterator[tuple[Path, Node, int]]:
    """The factors of a product, those below the line with power -1; whole powers count with their exponent."""
    match node:
        case Negate(operand=operand):
            yield from factors(operand, (*path, 0), power)
        case Binary(operator="*", left=left, right=right):
            yield from factors(left, (*path, 0), power)
            yield from factors(right, (*path, 1), power)
        case Binary(operator="/", left=left, right=right):
            yield from factors(left, (*path, 0), power)
            yield from factors(right, (*path, 1), -power)
        case Apply() if is_sum(node) and _is_product(node.arguments[-1]):
            yield path, node, power
            # what is inside a sum counts as factors too: they can be lost or turned over there
            yield from factors(node.arguments[-1], (*path, len(node.arguments) - 1), power)
        case _:
            yield path, node, power


def product_roots(tree: Node) -> Iterator[tuple[Path, Node]]:
    """The places where a factor can be put in: whole terms and the bodies of sums."""

    def visit(node: Node, path: Path, inside: bool) -> Iterator[tuple[Path, Node]]:
        if not inside:
            yield path, node
        match node:
            case Binary(operator="+" | "-", left=left, right=right):
                yield from visit(left, (*path, 0), False)
                yield from visit(right, (*path, 1), False)
            case Binary(operator="*" | "/", left=left, right=right):
                yield from visit(left, (*path, 0), True)
                yield from visit(right, (*path, 1), True)
            case Negate(operand=operand):
                yield from visit(operand, (*path, 0), True)
            case Apply(arguments=arguments) if is_sum(node):
                yield from visit(arguments[-1], (*path, len(arguments) - 1), False)
            case _:
                return

    yield from visit(tree, (), False)


# ---------------------------------------------------------------------- the slips


def text_of(node: Node, material: Material) -> str:
    """A part of a claim in words: arrays by the names that the claim gives them."""
    match node:
        case Name(name=name) | Item(name=name):
            return material.shown.get(name, name)
        case Apply(name=name, arguments=arguments) if not is_sum(node):
            return f"{name}({', '.join(text_of(a, material) for a in arguments)})"
        case Apply(name=name, arguments=arguments):
            return f"{name}({text_of(arguments[-1], material)})"
        case Number(value=value):
            return str(value) if value.denominator < 10 else f"{float(value):g}"
        case Negate(operand=operand):
            return f"-{text_of(operand, material)}"
        case Binary(operator=operator, left=left, right=right):
            texts = [text_of(p, material) for p in (left, right)]
            if operator in "*/^":
                texts = [
                    f"({t})" if isinstance(p, Binary) and p.operator in "+-" else t
                    for t, p in zip(texts, (left, right), strict=True)
                ]
            return f" {operator} ".join(texts) if operator in "+-" else operator.join(texts)
        case _:
            return "?"


def in_words(node: Node, material: Material) -> str:
    """A factor by what it is: the derivative of an activation, the layer's input, a weight on the path."""
    text = text_of(node, material)
    if isinstance(node, Apply) and node.name.endswith("'"):
        return f"the derivative of the activation, {text}"
    if isinstance(node, (Item, Name)):
        return material.words.get(node.name, text)
    return f"the factor {text}" if isinstance(node, Binary) else text


def edits(tree: Node, material: Material) -> Iterator[Edit]:
    """All single edits of a tree, the usual slips first."""
    yield from _misplaced_primes(tree, material)
    yield from _exchanged(tree, material)
    yield from _indexed(tree, material)
    yield from _removed(tree, material)
    yield from _turned(tree, material)
    yield from _powers(tree)
    yield from _applied(tree, material)
    yield from _inserted(tree, material)
    yield from _summed(tree, material)
    yield from _added(tree, material)
    yield from _replaced(tree, material)
    yield from _all_places(tree, material)
    yield from _corrected(tree, material)


def _applied(tree: Node, material: Material) -> Iterator[Edit]:
    """`z(1 - z)` for `σ(z)(1 - σ(z))`, and the other way round."""
    for f in material.functions:
        for variable in material.variables:
            new = tree
            for path, node in list(walk(tree)):
                if isinstance(node, Name) and node.name == variable:
                    new = put(new, path, Apply(node.at, f, (node,), end=node.end))
            plain = material.shown.get(variable, variable)
            yield Edit(new, f"{plain} stands where {f}({plain}) belongs: the argument is the input, not the output")
            new = tree
            for path, node in sorted(walk(tree), key=lambda p: -len(p[0])):
                if isinstance(node, Apply) and node.name == f:
                    new = put(new, path, node.arguments[0])
            yield Edit(new, f"{f}({plain}) stands where {plain} belongs")


def _replaced(tree: Node, material: Material) -> Iterator[Edit]:
    """One array at one place for any other that fits the letters there, or for a function of it; one gate for all of them."""
    for path, node in walk(tree):
        if not isinstance(node, (Item, Name)) or node.name not in material.axes:
            continue
        for f, z in material.calls:
            if z == node.name:
                new = Apply(node.at, f, (node,), end=node.end)
                words = f"{text_of(node, material)} stands where {text_of(new, material)} belongs"
                yield Edit(put(tree, path, new), words, span_of(node))
        scope = _scope(tree, path, material)
        for other in material.axes:
            if other != node.name and other not in material.neighbours.get(node.name, ()):
                for new in _elements(other, scope, material):
                    words = f"{text_of(node, material)} stands where {in_words(new, material)} belongs"
                    yield Edit(put(tree, path, replace(new, at=node.at, end=node.end)), words, span_of(node))


def _all_places(tree: Node, material: Material) -> Iterator[Edit]:
    """A number as an index where the sum over all of that axis belongs."""
    for root, node in product_roots(tree):
        numbers = {i.value for n in nodes_of(node) if isinstance(n, Item) for i in n.indices if isinstance(i, Number)}
        for value in sorted(numbers):
            for size in dict.fromkeys(
                s
                for n in nodes_of(node)
                if isinstance(n, Item) and n.name in material.axes
                for i, s in zip(n.indices, material.axes[n.name], strict=True)
                if isinstance(i, Number) and i.value == value
            ):
                stem = next((i for i, s in material.letters.items() if s == size), None) or material.stems.get(size)
                if stem is None:
                    continue
                letter = stem + "'" * 50
                new = node
                for path, inner in list(walk(node)):
                    if isinstance(inner, Item):
                        indices = tuple(
                            Name(-1, letter) if isinstance(i, Number) and i.value == value else i for i in inner.indices
                        )
                        new = put(new, path, replace(inner, indices=indices))
                total = Apply(node.at, "sum", (Name(-1, letter), new), end=node.end)
                yield Edit(
                    put(tree, root, total),
                    f"the sum over all {size} places is missing: only number {value} is there",
                    span_of(node),
                )


def _scope(tree: Node, path: Path, material: Material) -> list[str]:
    """The letters that have a meaning at a path."""
    found = list(material.free)
    for k in range(len(path) + 1):
        node = at(tree, path[:k])
        if is_sum(node) and k < len(path):
            found += [a.name for a in children(node)[:-1] if isinstance(a, Name)]
    return found


def _elements(name: str, scope: Sequence[str], material: Material) -> Iterator[Node]:
    """An array at the letters in scope that run over its axes."""
    axes = material.axes[name]
    if not axes:
        yield Name(-1, name)
        return
    choices = [[i for i in scope if material.letters.get(i) == size] for size in axes]
    for letters in itertools.islice(itertools.product(*choices), 6):
        if len(set(letters)) == len(letters):
            yield Item(-1, name, tuple(Name(-1, i) for i in letters))


def _misplaced_primes(tree: Node, material: Material) -> Iterator[Edit]:
    outputs = {out: (f, z) for f, z, out in material.activations}
    inputs = {z: (f, out) for f, z, out in material.activations}
    for path, node in walk(tree):
        if not isinstance(node, Apply) or is_sum(node) or len(node.arguments) != 1:
            continue
        argument, text = node.arguments[0], text_of(node, material)
        if node.name.endswith("'"):
            if isinstance(argument, (Item, Name)) and argument.name in outputs:
                z = outputs[argument.name][1]
                moved = replace(node, arguments=(replace(argument, name=z),))
                words = f"{text} takes the derivative at the output; it belongs at the input: {text_of(moved, material)}"
                yield Edit(put(tree, path, moved), words, span_of(node))
            for name, z, _ in material.activations:
                other = replace(node, name=name + "'")
                if name + "'" != node.name and isinstance(argument, (Item, Name)):
                    if argument.name == z:
                        yield Edit(
                            put(tree, path, other), f"{text} is not this layer's activation; it has {name}'", span_of(node)
                        )
                    elif len(material.axes.get(z, ())) == len(children(argument)):
                        moved = replace(other, arguments=(replace(argument, name=z),))
                        words = f"{text} is of another layer; {text_of(moved, material)} belongs here"
                        yield Edit(put(tree, path, moved), words, span_of(node))
            yield Edit(
                put(tree, path, replace(node, name=node.name[:-1])),
                f"{text} stands where the function itself belongs",
                span_of(node),
            )
        elif any(node.name == f for f, _, _ in material.activations):
            primed = replace(node, name=node.name + "'")
            yield Edit(
                put(tree, path, primed), f"{text} stands where its derivative {text_of(primed, material)} belongs", span_of(node)
            )
    # f(z) written as the array a, where f'(z) belongs
    for path, node in walk(tree):
        if isinstance(node, (Item, Name)) and node.name in outputs:
            f, z = outputs[node.name]
            primed = Apply(node.at, f + "'", (replace(node, name=z),), end=node.end)
            words = f"{text_of(node, material)} stands where the derivative {text_of(primed, material)} belongs"
            yield Edit(put(tree, path, primed), words, span_of(node))
        if isinstance(node, (Item, Name)) and node.name in inputs:
            f, _ = inputs[node.name]
            primed = Apply(node.at, f + "'", (node,), end=node.end)
            words = f"{text_of(node, material)} stands where the derivative {text_of(primed, material)} belongs"
            yield Edit(put(tree, path, primed), words, span_of(node))


def _exchanged(tree: Node, material: Material) -> Iterator[Edit]:
    """One array for another, everywhere or at one place."""
    used = [n for n in dict.fromkeys(n.name for n in nodes_of(tree) if isinstance(n, (Item, Name))) if n in material.axes]
    for name in used:
        places = [(p, n) for p, n in walk(tree) if isinstance(n, (Item, Name)) and n.name == name]
        for other in material.neighbours.get(name, ()):
            new = tree
            for path, node in places:
                new = put(new, path, replace(node, name=other))
            words = f"{text_of(places[0][1], material)} stands where {material.words.get(other, other)} belongs"
            if (name, other) in material.steps:
                words += f": {material.steps[name, other]}"
            yield Edit(new, words, span_of(places[0][1]))
            if len(places) > 1:
                for path, node in places:
                    yield Edit(put(tree, path, replace(node, name=other)), words, span_of(node))
    # names exchanged with one another
    for one, other in itertools.combinations(used, 2):
        if other in material.neighbours.get(one, ()):
            new = tree
            for path, node in list(walk(tree)):
                if isinstance(node, (Item, Name)) and node.name in (one, other):
                    new = put(new, path, replace(node, name=other if node.name == one else one))
            words = f"{material.shown.get(one, one)} and {material.shown.get(other, other)} are exchanged"
            yield Edit(new, words)
    # everything one layer up or down
    shifted = _other_layer(tree, material)
    yield from shifted


def _other_layer(tree: Node, material: Material) -> Iterator[Edit]:
    for step in (1, -1):
        new, changed = tree, False
        for path, node in list(walk(tree)):
            if isinstance(node, (Item, Name)) and (m := re.fullmatch(r"(\D+?)(\d+)('*)", node.name)):
                other = f"{m[1]}{int(m[2]) + step}{m[3]}"
                if other in material.axes and material.axes[other] and len(material.axes[other]) == len(children(node)):
                    new, changed = put(new, path, replace(node, name=other)), True
        if changed:
            yield Edit(new, "the layers are off by one")


def _removed(tree: Node, material: Material) -> Iterator[Edit]:
    for root, node in product_roots(tree):
        found = list(factors(node))
        if len(found) < 2:
            continue
        texts = [text_of(f, material) for _, f, _ in found]
        for path, factor, power in found:
            if is_sum(factor):
                continue
            new = put(tree, (*root, *path), replace(ONE, at=factor.at, end=factor.end))
            text = text_of(factor, material)
            if power < 0:
                words = f"the division by {text} does not belong here"
            elif isinstance(factor, Apply) and factor.name.endswith("'") and texts.count(text) > 1:
                words = f"{in_words(factor, material)}, is there twice"
            else:
                words = f"the factor {text} does not belong here"
            yield Edit(new, words, span_of(factor))


def _turned(tree: Node, material: Material) -> Iterator[Edit]:
    for root, node in product_roots(tree):
        found = [f for f in factors(node) if not is_sum(f[1])]
        below = [f for f in found if f[2] < 0 and not isinstance(f[1], Number)]
        for path, factor, power in found:
            if isinstance(factor, Number):
                continue
            text = text_of(factor, material)
            new = _times(put(tree, (*root, *path), replace(ONE, at=factor.at, end=factor.end)), root, factor, power)
            words = (
                f"{text} divides where it should multiply: a quotient where a product belongs"
                if power < 0
                else f"{text} multiplies where it should divide: a product where a quotient belongs"
            )
            yield Edit(new, words, span_of(factor))
        if len(below) > 1:
            new = tree
            for path, factor, _ in below:
                new = put(new, (*root, *path), replace(ONE, at=factor.at, end=factor.end))
            for _, factor, _ in below:
                new = _times(new, root, factor, -1)
            yield Edit(new, "a quotient where a product belongs: what is below the line multiplies", span_of(below[0][1]))


def _times(tree: Node, root: Path, factor: Node, power: int) -> Node:
    """A factor moved to the other side of the fraction line."""
    inside = at(tree, root)
    return put(tree, root, Binary(inside.at, "*" if power < 0 else "/", inside, factor, end=inside.end))


def _inserted(tree: Node, material: Material) -> Iterator[Edit]:
    for root, node in product_roots(tree):
        scope = _scope(tree, root, material)
        candidates: list[Node] = []
        for f, z in material.calls if material.axes else ():
            for element in _elements(z, scope, material):
                candidates += [Apply(-1, f + "'", (element,)), Apply(-1, f, (element,))]
        for f, z, _ in material.activations if material.axes else ():
            candidates += [Apply(-1, f + "'", (e,)) for e in _elements(z, scope, material)]
        for name in material.axes:
            candidates += list(_elements(name, scope, material))
        known = {*material.axes, *material.letters.values()}
        candidates += [f for f in material.factors if letters_in(f) - known <= set(scope)]
        for candidate in candidates:
            new = put(tree, root, Binary(node.at, "*", node, candidate, end=node.end))
            yield Edit(
                new, f"{in_words(candidate, material)}{',' if isinstance(candidate, Apply) else ''} is missing", span_of(node)
            )


def _indexed(tree: Node, material: Material) -> Iterator[Edit]:
    """Indices in another order, of another letter, or one step away."""
    yield from _letters_exchanged(tree, material)
    yield from _numbers_exchanged(tree, material)
    for path, node in walk(tree):
        if not isinstance(node, Item):
            continue
        text = text_of(node, material)
        if len(node.indices) > 1:
            for order in _orders(len(node.indices)):
                if order != tuple(range(len(node.indices))):
                    turned = replace(node, indices=tuple(node.indices[k] for k in order))
                    yield Edit(put(tree, path, turned), f"the indices of {text} are exchanged: it is transposed", span_of(node))
        yield from _windowed(tree, path, node, material)
        yield from _moved(tree, path, node, material)


def _letters_exchanged(tree: Node, material: Material) -> Iterator[Edit]:
    """Two free letters exchanged, or a sum over the wrong axis."""
    free = [i for i in material.free if any(isinstance(n, Name) and n.name == i for n in nodes_of(tree))]
    for a, b in itertools.combinations(free, 2):
        if material.letters.get(a) == material.letters.get(b):
            words = f"the indices {_letter(a, material)} and {_letter(b, material)} are exchanged: it is transposed"
            yield Edit(renamed_tree(tree, {a: b, b: a}), words)
    for path, node in walk(tree):
        if not is_sum(node) or not isinstance(node, Apply) or len(node.arguments) != 2:
            continue
        over, body = node.arguments
        assert isinstance(over, Name)
        inside = {n.name for n in nodes_of(body) if isinstance(n, Name)}
        size = material.letters.get(over.name)
        for kept in inside:
            for other in _scope(tree, path, material):
                if (
                    kept != over.name
                    and other not in inside
                    and material.letters.get(kept) == material.letters.get(other) == size
                ):
                    turned = renamed_tree(body, {over.name: other, kept: over.name})
                    words = f"the sum runs over the wrong axis: the indices of {text_of(body, material)} are exchanged"
                    yield Edit(put(tree, path, replace(node, arguments=(over, turned))), words, span_of(node))


def _numbers_exchanged(tree: Node, material: Material) -> Iterator[Edit]:
    """A number as an index in place of another, at one place or everywhere."""
    numbers = sorted({i.value for n in nodes_of(tree) if isinstance(n, Item) for i in n.indices if isinstance(i, Number)})
    for old, other in itertools.permutations(dict.fromkeys((*numbers, *(v + s for v in numbers for s in (1, -1)))), 2):
        if old not in numbers or other < 0:
            continue
        whole = tree
        for path, node in list(walk(tree)):
            if isinstance(node, Item):
                turned = tuple(replace(i, value=other) if isinstance(i, Number) and i.value == old else i for i in node.indices)
                one = replace(node, indices=turned)
                whole = put(whole, path, one)
                if one != node:
                    yield Edit(put(tree, path, one), f"{text_of(node, material)} stands at the wrong index", span_of(node))
        yield Edit(whole, f"the index {old + 1} should be {other + 1}")
        swapped = tree
        for path, node in list(walk(tree)):
            if isinstance(node, Item):
                values = {old: other, other: old}
                turned = tuple(
                    replace(i, value=values.get(i.value, i.value)) if isinstance(i, Number) else i for i in node.indices
                )
                swapped = put(swapped, path, replace(node, indices=turned))
        yield Edit(swapped, "the indices are exchanged: it is transposed")


def _windowed(tree: Node, path: Path, node: Item, material: Material) -> Iterator[Edit]:
    """A window that runs the other way, or in steps of another size."""
    text = text_of(node, material)
    if sum(isinstance(i, Binary) for i in node.indices) > 1:
        turned = {"+": "-", "-": "+"}
        moved = tuple(
            replace(i, operator=turned[i.operator]) if isinstance(i, Binary) and i.operator in turned else i for i in node.indices
        )
        words = f"{text}: the window runs the other way"
        yield Edit(put(tree, path, replace(node, indices=moved)), words, span_of(node))
        swapped = tuple(
            replace(i, left=i.right, right=i.left) if isinstance(i, Binary) and i.operator == "-" else i for i in node.indices
        )
        yield Edit(put(tree, path, replace(node, indices=swapped)), f"{text}: the index is the other way round", span_of(node))
    if any(isinstance(i, Binary) for i in node.indices):
        for stride in (2, 3):
            wide = tuple(
                replace(i, left=Binary(i.at, "*", Number(-1, Fraction(stride)), i.left, end=i.end))
                if isinstance(i, Binary) and i.operator == "+" and isinstance(i.left, Name)
                else i
                for i in node.indices
            )
            yield Edit(put(tree, path, replace(node, indices=wide)), f"{text}: the stride {stride} is missing", span_of(node))


def _moved(tree: Node, path: Path, node: Item, material: Material) -> Iterator[Edit]:
    """One index of an element as another letter, or a step away."""
    text, scope = text_of(node, material), _scope(tree, path, material)
    for k, i in enumerate(node.indices):
        if isinstance(i, Name) and i.name in material.letters:
            for other in scope:
                if other != i.name and material.letters.get(other) == material.letters[i.name]:
                    new = replace(node, indices=(*node.indices[:k], replace(i, name=other), *node.indices[k + 1 :]))
                    yield Edit(put(tree, path, new), f"{text} stands at the wrong index", span_of(node))
            for step in ("-", "+"):
                moved = Binary(i.at, step, i, Number(-1, Fraction(1)), end=i.end)
                new = replace(node, indices=(*node.indices[:k], moved, *node.indices[k + 1 :]))
                yield Edit(put(tree, path, new), f"{text} is off by one step", span_of(node))
        elif isinstance(i, Binary) and i.operator in "+-" and isinstance(i.right, Number):
            turned = replace(i, operator="+" if i.operator == "-" else "-")
            for moved in (i.left, turned):
                new = replace(node, indices=(*node.indices[:k], moved, *node.indices[k + 1 :]))
                yield Edit(put(tree, path, new), f"{text} is off by one step", span_of(node))
        elif isinstance(i, Binary) and i.operator in "+-":
            turned = replace(i, operator="+" if i.operator == "-" else "-")
            swapped = replace(i, left=i.right, right=i.left)
            for moved, words in ((turned, "the window runs the other way"), (swapped, "the index is the other way round")):
                new = replace(node, indices=(*node.indices[:k], moved, *node.indices[k + 1 :]))
                yield Edit(put(tree, path, new), f"{text}: {words}", span_of(node))


def _orders(count: int) -> Iterator[tuple[int, ...]]:
    """Orders of indices: all of up to three, pairs exchanged of more."""
    if count <= 3:
        yield from itertools.permutations(range(count))
        return
    for a, b in itertools.combinations(range(count), 2):
        order = list(range(count))
        order[a], order[b] = b, a
        yield tuple(order)


def _summed(tree: Node, material: Material) -> Iterator[Edit]:
    loose = [i for i in material.free if i not in material.left]
    if loose:
        for kind in ("sum", "mean"):
            new: Node = Apply(tree.at, kind, (*(Name(-1, i) for i in loose), tree), end=tree.end)
            letters = ", ".join(material.shown.get(i, i) for i in loose)
            yield Edit(new, f"the {kind} over {letters} is missing", span_of(tree))
    for path, node in walk(tree):
        if is_sum(node) and isinstance(node, Apply):
            body = node.arguments[-1]
            letters = [a for a in node.arguments[:-1] if isinstance(a, Name)]
            for letter in letters:
                rest = [a for a in letters if a is not letter]
                for other in _scope(tree, path, material):
                    if material.letters.get(other) == material.letters.get(letter.name):
                        inner = renamed_tree(body, {letter.name: other})
                        kept = replace(node, arguments=(*rest, inner)) if rest else inner
                        yield Edit(
                            put(tree, path, kept), f"the sum over {_shown(letter.name)} does not belong here", span_of(node)
                        )
    for path, node in product_roots(tree):
        for size in sorted(set(material.letters.values())):
            inner = [
                i
                for i, s in material.letters.items()
                if s == size and i in {n.name for n in nodes_of(node) if isinstance(n, Name)}
            ]
            for i in inner:
                if i in material.left and not path:
                    own = i + "'" * 40
                    total = Apply(node.at, "sum", (Name(-1, own), renamed_tree(node, {i: own})), end=node.end)
                    yield Edit(put(tree, path, total), f"the sum over {_shown(i)} is missing", span_of(node))


def _added(tree: Node, material: Material) -> Iterator[Edit]:
    """Terms of sums that are too many, have the wrong sign, or the wrong size."""
    for path, node in walk(tree):
        if not isinstance(node, Binary) or node.operator not in "+-":
            continue
        left, right = node.left, node.right
        yield Edit(put(tree, path, left), f"the term {text_of(right, material)} does not belong here", span_of(right))
        second = right if node.operator == "+" else Negate(right.at, right, end=right.end)
        yield Edit(put(tree, path, second), f"the term {text_of(left, material)} does not belong here", span_of(left))
        turned = replace(node, operator="-" if node.operator == "+" else "+")
        yield Edit(put(tree, path, turned), f"the sign of {text_of(right, material)} is the other way round", span_of(right))
        for factor, words in ((2, "a factor 2 is missing in"), (Fraction(1, 2), "there is a factor 2 too many in")):
            for k, part in enumerate((left, right)):
                scaled = Binary(part.at, "*", Number(-1, Fraction(factor)), part, end=part.end)
                yield Edit(put(tree, (*path, k), scaled), f"{words} the term {text_of(part, material)}", span_of(part))
        for size in dict.fromkeys(material.letters.values()):
            if size == "?":
                continue
            for k, part in enumerate((left, right)):
                for operator, words in (
                    ("/", f"the factor 1/{size} is missing in"),
                    ("*", f"there is a factor 1/{size} too many in"),
                ):
                    scaled = Binary(part.at, operator, part, Name(-1, size), end=part.end)
                    yield Edit(put(tree, (*path, k), scaled), f"{words} the term {text_of(part, material)}", span_of(part))


def _powers(tree: Node) -> Iterator[Edit]:
    for path, node in walk(tree):
        if isinstance(node, Binary) and node.operator == "^" and isinstance(node.right, Number):
            yield Edit(put(tree, path, node.left), "the power does not belong here", span_of(node))
            for value in (node.right.value + 1, node.right.value - 1):
                new = replace(node, right=Number(-1, value))
                yield Edit(put(tree, path, new), f"the power {node.right.value} should be {value}", span_of(node))
        elif (isinstance(node, (Item, Name, Apply)) and not is_sum(node)) or (isinstance(node, Binary) and node.operator in "+-"):
            new = Binary(node.at, "^", node, Number(-1, Fraction(2)), end=node.end)
            yield Edit(put(tree, path, new), "the square is missing", span_of(node))
            if isinstance(node, Apply) and node.name == "sqrt":
                yield Edit(put(tree, path, node.arguments[0]), "the square root does not belong here", span_of(node))


def _corrected(tree: Node, material: Material) -> Iterator[Edit]:
    """What optimisers add: a small constant below the line, a root, the power t of a constant."""
    if "g" not in material.axes or "w_before" not in material.axes:
        return
    for path, node in walk(tree):
        if isinstance(node, (Item, Name, Apply, Binary)) and not is_sum(node):
            text = text_of(node, material)
            if "epsilon" in material.axes:
                new = Binary(node.at, "+", node, Name(-1, "epsilon"), end=node.end)
                yield Edit(put(tree, path, new), f"the small constant epsilon is missing beside {text}", span_of(node))
            root = Apply(node.at, "sqrt", (node,), end=node.end)
            yield Edit(put(tree, path, root), f"the square root of {text} is missing", span_of(node))
        if isinstance(node, Name) and "t" in material.axes and node.name in material.axes:
            new = Binary(node.at, "^", node, Name(-1, "t"), end=node.end)
            yield Edit(put(tree, path, new), f"the power t of {text_of(node, material)} is missing", span_of(node))


def _letter(letter: str, material: Material) -> str:
    return material.shown.get(letter, _shown(letter))


def _shown(letter: str) -> str:
    return letter.rstrip("'")
