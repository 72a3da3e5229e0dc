"""The right formula in the claim's own notation: LaTeX or text, matrices or indices, its letters and the names it uses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import sympy
from sympy import Expr

from .algebra import clean, equation_cost
from .derive import closed_form
from .differentiate import derivative_of, functions_key, resolve
from .judge import Case, Judge
from .latex import LatexWriter
from .maths import Derivative
from .matrix import matrix_equation
from .names import Jacobian, Names
from .notation import Element, Equation, Term, index, indices_of, size_symbol
from .parse import Apply, Binary, Item, Name, Negate, Node, Number
from .write import Style, Writer, style_of

_LETTERS = 5  # of one term of a formula that is written out in forward values


def derived(judge: Judge, case: Case, truth: Node) -> Equation | None:
    """The true side in forward values, from the derivation."""
    names = judge.names
    scale: Expr = sympy.S.One
    while True:
        if isinstance(truth, Negate):
            truth, scale = truth.operand, -scale
        elif isinstance(truth, Binary) and truth.operator == "*" and isinstance(truth.left, Name) and truth.left.name == "eta":
            truth, scale = truth.right, scale * Element("eta")
        else:
            break
    if isinstance(truth, Apply) and truth.name.endswith("'") and len(truth.arguments) == 1:
        return _derived_function(judge, case, truth)
    if not isinstance(truth, (Item, Name)) or (isinstance(truth, Name) and truth.name not in names.axes):
        if not isinstance(case.sides[0].given, Derivative):
            return None
        case.resolver.sizes |= case.letters
        terms, inner = names.lowered(truth, case.resolver)
        plain = tuple(replace(t, body=clean(t.body)) for t in terms)
        return None if inner else Equation(Element("@", *map(index, case.free)), plain)
    back = {v: k for k, v in names.adjoints.items()}
    if truth.name in back:
        derivation = judge.subject.derivation_of(back[truth.name])
        by_name = {e.name: e for e in derivation.equations}
        if truth.name not in by_name:
            return None
        equation = closed_form(derivation, back[truth.name])
        # A formula of many letters says less than one in the derivatives that it shares with others.
        if equation_cost(equation) > 120 or any(len(indices_of(t.body)) > _LETTERS for t in equation.terms):
            equation = by_name[truth.name]
    elif truth.name in {e.name for e in names.network.equations}:
        equation = next(e for e in names.network.equations if e.name == truth.name)
    else:
        found = next((j.equation for j in names.jacobians.values() if j.name == truth.name), None)
        if found is None:
            return None
        equation = found
    places = _places(names, truth)
    if places is None:
        return None
    swap = dict(zip(equation.target.letters, places, strict=True))
    terms = tuple(_renamed(replace(t, body=t.body * scale), swap) for t in equation.terms)
    return Equation(Element(equation.name, *swap.values()), terms)


def _places(names: Names, element: Item | Name) -> list[Expr] | None:
    """The indices of an element as expressions; None where data say one of them."""
    found = [_place(names, i) for i in (element.indices if isinstance(element, Item) else ())]
    return None if any(place is None for place in found) else cast("list[Expr]", found)


def _place(names: Names, node: Node) -> Expr | None:
    """An index as an expression; None for one that data say."""
    match node:
        case Number(value=value):
            return sympy.Rational(value.numerator, value.denominator)
        case Name(name=name):
            return size_symbol(name) if names.is_size(name) and name not in names.size_of else index(name)
        case Binary(operator="+" | "-" as sign, left=left, right=right):
            one, other = _place(names, left), _place(names, right)
            return None if one is None or other is None else one + other if sign == "+" else one - other
        case _:
            return None


def _derived_function(judge: Judge, case: Case, truth: Apply) -> Equation | None:
    names = judge.names
    stem = truth.name.rstrip("'")
    function = names.functions.get(stem)
    resolver = case.resolver
    argument, inner = names.lowered(truth.arguments[0], resolver)
    if function is None or function.body is None or inner or len(argument) != 1 or argument[0].over:
        return None
    orders = (len(truth.name) - len(stem), *(0 for _ in function.parameters[1:]))
    body = derivative_of(function, orders, functions_key(names.functions))
    defaults = dict(
        zip(
            map(Element, function.parameters[len(function.parameters) - len(function.defaults) :]), function.defaults, strict=True
        )
    )
    body = resolve(body.xreplace({Element(function.parameters[0]): argument[0].body, **defaults}), names.functions)
    return Equation(Element("@", *map(index, case.free)), (Term(body),))


def _renamed(term: Term, swap: dict[Any, Any]) -> Term:
    aside = {i: sympy.Dummy(integer=True, nonnegative=True) for i in swap}
    body = term.body.xreplace(dict(aside)).xreplace({aside[i]: v for i, v in swap.items()})
    return replace(term, body=body)


def written(judge: Judge, case: Case, left: str, equation: Equation) -> str | None:
    """An equation in the claim's notation: LaTeX or text, matrices or indices, its letters and its names."""
    sign = "="
    if judge.text.sets:
        sign = re.search(r":=|←|\\leftarrow|\\gets", judge.claim)[0]  # type: ignore[index]
    names, network = judge.names, judge.names.network
    latex = "\\" in judge.claim
    style = style_of(network, names.adjoints)
    batch = network.batch
    terms = equation.terms
    if case.one and batch is not None:
        size = size_symbol(names.size_of[batch])
        terms = tuple(
            replace(
                t,
                body=t.body.xreplace({size: sympy.S.One}),
                over=tuple(i for i in t.over if i.name.rstrip("'") != batch),
            )
            for t in terms
        )
        style = replace(style, hidden=style.hidden | {batch})
    terms, letters = _plain_letters(terms, case)
    shown = {v: k for k, v in names.variables.items()} | dict(_spellings(judge, case, latex))
    styled = replace(style, names=shown, deltas=frozenset[str](), adjoints={} if not latex else style.adjoints)
    element: Element | None = None  # what the formula is about, where its indices have to be written
    if case.sides[0].axes and _only_examples(names, case):
        # nothing but the examples to count: their index is not written
        styled = replace(styled, hidden=styled.hidden | set(letters.values()))
    elif case.sides[0].axes:
        whole = [index(letters.get(i, i)) for i in case.free]
        if len(whole) <= 2 and not case.one:
            plain = replace(style, deltas=frozenset[str](), names=shown)
            matrix = matrix_equation(Equation(Element("@", *whole), terms), plain, latex) or _nested_matrix(
                judge, equation, plain, latex
            )
            if matrix is not None:
                return f"{left} {sign} {matrix.partition(' = ')[2]}"
        element = _subject_of(case, names)
        if element is None:
            return None
    writer = (_Latex if latex else _Derivatives)(styled)
    writer.jacobians = {j.name: (of, wrt, j) for (of, wrt), j in names.jacobians.items()}
    writer.axes = names.axes
    if element is not None:
        (bare,), _ = _plain_letters((Term(cast(Expr, element)),), case)
        left = writer.element(cast(Element, bare.body))
        if not latex:
            back = {v: k for k, v in names.adjoints.items()}
            name = cast(Element, bare.body).name
            left = f"d{network.loss}/d{back[name]}{left[len(name) :]}" if name in back else left
            left = _without_example(left, case)
    if latex:
        return f"{left} {sign} {writer.terms(terms)}"
    return f"{left} {sign} {_without_example(writer.terms(terms), case)}"


def _subject_of(case: Case, names: Names) -> Element | None:
    """What a claim is about, with all its indices: the array or the derivative that its first side begins with."""
    tree = case.trees[0]
    while isinstance(tree, (Negate, Binary)):
        if isinstance(tree, Binary) and not case.sides[0].source.text.strip().startswith(("w", "W", "b", "θ", "\\theta")):
            return None
        tree = tree.operand if isinstance(tree, Negate) else tree.left
    if not isinstance(tree, (Item, Name)) or tree.name not in names.axes:
        return None
    places = _places(names, tree)
    return None if places is None else Element(tree.name, *places)


def _only_examples(names: Any, case: Case) -> bool:
    """Whether no array in a claim has any axis but the examples'."""
    batch = names.network.batch
    return all(set(names.axes.get(n, ())) <= {batch} for n in case.resolver.used)


class _Derivatives(Writer):
    """Writes derivatives of one array by another as people do; numbers as indices count from 1 in subscripts."""

    jacobians: Mapping[str, tuple[str, str, Jacobian]]
    axes: Mapping[str, tuple[str, ...]]

    def element(self, e: Element) -> str:
        if e.name not in self.jacobians:
            return super().element(e)
        of, wrt, j = self.jacobians[e.name]
        count = len(self.axes[of])
        own, rest = list(e.indices[:count]), list(e.indices[count:])
        if j.shared is not None:
            rest.insert(j.shared[1], own[j.shared[0]])
        return self.quotient(super().element(Element(of, *own)), super().element(Element(wrt, *rest)))

    def quotient(self, of: str, wrt: str) -> str:
        return f"∂{of}/∂{wrt}"


class _Latex(_Derivatives, LatexWriter):
    def quotient(self, of: str, wrt: str) -> str:
        return rf"\frac{{\partial {of}}}{{\partial {wrt}}}"

    def index(self, i: Expr) -> str:
        # Places counted from 0 are counted from 1 here; a letter moved by a number is not.
        if not indices_of(i):
            i = i + 1
            return str(i) if i.is_Integer else LatexWriter(self.style).index(i)
        return LatexWriter(self.style).index(i)


def _without_example(text: str, case: Case) -> str:
    """Formula text for one example: its index is not written, and what is left stands below, counted from 1."""
    if not case.one:
        return text

    def below(found: re.Match[str]) -> str:
        places = [str(int(i) + 1) if i.isdigit() else i for i in found[1].split(",")]
        plain = all(len(i.rstrip("'")) == 1 for i in places)
        return "_" + "".join(places) if plain else f"_{{{','.join(places)}}}"

    return re.sub(r"(?<=[\w'])\[([^\]<>=]+)\]", below, text)


def _spellings(judge: Judge, case: Case, latex: bool) -> Iterator[tuple[str, str]]:
    """The names that the claim itself uses."""
    if "eta" in case.resolver.spelled:
        yield "eta", case.resolver.spelled["eta"].strip()
    if judge.names.is_optimiser:
        for name in judge.names.axes:
            base = name.removesuffix("_before").removesuffix("_hat")
            if base != name:
                yield name, rf"\hat {base}_t" if name.endswith("_hat") else f"{base}_{{t-1}}"
        yield from ((n, t.strip()) for n, t in case.resolver.spelled.items())
        return
    for name, text in case.resolver.spelled.items():
        axes = judge.names.axes.get(name, ())
        plain = re.fullmatch(r"\\hat\{?\s*[a-zA-Z]\}?|[a-zA-Z]'?", text.strip())
        if latex and plain and name in (judge.names.network.prediction,) and len(axes) > 0:
            yield name, text.strip()


def _plain_letters(terms: Sequence[Term], case: Case) -> tuple[tuple[Term, ...], dict[str, str]]:
    """The claim's own letters, and plain ones for those of sums."""
    shown = {i: s.rstrip("'") if len(s) - len(s.rstrip("'")) > 3 else s for i, s in case.shown.items()}
    taken = set(shown.values())
    result: list[Term] = []
    for t in terms:
        swap: dict[Any, Any] = {index(i): index(s) for i, s in shown.items()}
        used = set(taken)
        for i in t.over:
            name = i.name.rstrip("'")
            while name in used:
                name += "'"
            used.add(name)
            swap[i] = index(name)
        body = _renamed(t, swap).body
        result.append(replace(t, body=body, over=tuple(swap[i] for i in t.over)))
    return tuple(result), shown


def _nested_matrix(judge: Judge, equation: Equation, style: Style, latex: bool) -> str | None:
    """A derivative in matrix form with the shared derivatives that it needs put in as matrices: Xᵀ((P − Y) W₂ᵀ ⊙ …)."""
    back = {v: k for k, v in judge.names.adjoints.items()}
    if equation.name not in back:
        return None
    by_name = {e.name: e for e in judge.subject.derivation_of(back[equation.name]).equations}

    def text(name: str, depth: int) -> str | None:
        own = by_name[name]
        names = dict(style.names)
        for inner in sorted({e.name for t in own.terms for e in t.body.atoms(Element)} & set(by_name)):
            found = text(inner, depth + 1) if depth < 6 else None
            if found is None:
                return None
            shown = inner[0].upper() + inner[1:] if len(own.target.indices) else inner
            names[shown] = names[inner] = rf"\left({found}\right)" if latex else f"({found})"
        matrix = matrix_equation(own, replace(style, names=names, adjoints={}), latex)
        return None if matrix is None else matrix.partition(" = ")[2]

    found = text(equation.name, 0)
    return None if found is None else f" = {found}"
