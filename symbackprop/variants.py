"""Networks that differ from a declared one in a single declaration: another loss, another reduction, another activation.

A wrong formula is often the right one for something else: δ = p − y for a sigmoid with squared error is that of binary
cross-entropy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import sympy

from . import catalogue
from .declare import declare
from .errors import Source, SymbackpropError
from .functions import catalogue_functions
from .lower import Lowering, Scope
from .notation import Call, Element, Network, Term, size_symbol
from .parse import parse_expression
from .sizes import Sizes

_ACTIVATIONS = ("sigmoid", "tanh", "relu", "identity", "softmax")
_TITLES = {
    "squared_error": "squared error",
    "half_squared_error": "half the squared error",
    "mean_squared_error": "the mean squared error",
    "binary_cross_entropy": "binary cross-entropy",
    "cross_entropy": "cross-entropy",
    "absolute_error": "the absolute error",
}


def variants(network: Network) -> Iterator[tuple[str, Callable[[], Network]]]:
    """Each variant as words and how it is made, the nearest first; making one may raise `SymbackpropError`."""
    size = {i.name: i.size for i in network.indices}.get(network.batch or "")
    if size is not None:
        yield "if the loss were summed over the batch", lambda: _summed(network, size)
    for name in catalogue.LOSSES:
        if network.text and not re.search(rf"\b{name}\s*$", network.text.strip()):
            yield f"for {_title(name)}", lambda name=name: _with_loss(network, name)
        elif not network.text and catalogue.LOSSES[name].takes == "p" and catalogue.LOSSES[name].formula:
            yield f"for {_title(name)}", lambda name=name: _equation_loss(network, name)
    if network.text:
        for layer, old in _activation_places(network.text):
            for new in _ACTIVATIONS:
                if new != old:
                    yield (
                        f"if the activation of layer {layer} were {new}",
                        lambda layer=layer, new=new: _with_activation(network, layer, new),
                    )
    for f in network.functions:
        if f.body is None:
            yield f"if {f.name} were the identity", lambda f=f: _concrete(network, f.name, "identity")
            yield f"if {f.name} were the sigmoid", lambda f=f: _concrete(network, f.name, "sigmoid")
            yield f"if {f.name} were tanh", lambda f=f: _concrete(network, f.name, "tanh")


def _title(name: str) -> str:
    return _TITLES.get(name, name.replace("_", " "))


def _summed(network: Network, size: str) -> Network:
    n = size_symbol(size)
    loss = network.equations[-1]
    swap = {n: sympy.S.One}
    terms = tuple(replace(t, body=t.body.xreplace(swap)) for t in loss.terms)
    if terms == loss.terms:
        raise SymbackpropError("the loss is no mean")
    return replace(network, equations=(*network.equations[:-1], replace(loss, terms=terms)))


def _spec(network: Network, text: str) -> Network:
    scaled = any(
        t.body.has(size_symbol(i.size)) for t in network.equations[-1].terms for i in network.indices if i.name == network.batch
    )
    return declare({"name": network.name, "network": text, "reduction": "mean" if scaled else "sum"})


def _with_loss(network: Network, name: str) -> Network:
    text = re.sub(r"\b\w+\s*(\([^()]*\))?\s*$", name, network.text.strip())
    return _spec(network, text)


_LAYER = re.compile(r"(?:dense|conv|rnn|depthwise_conv)\s*\([^()]*\)")


def _activation_places(text: str) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for number, item in enumerate(re.split(r"->|→", text)[1:-1], 1):
        if _LAYER.search(item):
            names = [a for a in catalogue.ACTIVATIONS if re.search(rf"\b{a}\b", item)]
            found.append((number, names[0] if names else "identity"))
    return found


def _with_activation(network: Network, layer: int, new: str) -> Network:
    items = re.split(r"->|→", network.text)
    item = items[layer]
    old = next((a for a in catalogue.ACTIVATIONS if re.search(rf"\b{a}\b", item)), None)
    pattern, written = (rf"\b{old}\b", new) if old is not None else (r"\)\s*$", f", {new}) ")
    items[layer] = re.sub(pattern, written, item)
    return _spec(network, "->".join(items))


def _equation_loss(network: Network, name: str) -> Network:
    """The loss of a network of equations exchanged: where a target and the prediction meet, with the scale that stands before."""
    targets = [a.name for a in network.arrays if a.role == "target"]
    prediction = network.prediction
    if len(targets) != 1 or prediction is None:
        raise SymbackpropError("there is no single target")
    row = catalogue.LOSSES[name]
    body = _loss_body(row)
    equations = list(network.equations)
    for k, equation in enumerate(equations):
        used = {e.name for t in equation.terms for e in t.body.atoms(Element)}
        if used != {targets[0], prediction} or len(equation.terms) != 1:
            continue
        term = equation.terms[0]
        p = next(e for e in term.body.atoms(Element) if e.name == prediction)
        y = next(e for e in term.body.atoms(Element) if e.name == targets[0])
        scale = sympy.Mul(*(f for f in sympy.Mul.make_args(term.body) if not f.has(Element) and not f.is_number))
        new = scale * body.xreplace({Element("p"): p, Element("y"): y})
        equations[k] = replace(equation, terms=(Term(new, term.over),))
        more = tuple(
            f
            for n, f in catalogue_functions().items()
            if n not in {g.name for g in network.functions} and any(c.name == n for c in new.atoms(Call))
        )
        return replace(network, equations=tuple(equations), functions=(*network.functions, *more))
    raise SymbackpropError("the loss has another form")


def _loss_body(row: Any) -> Any:
    text = row.formula
    if "[" in text:
        raise SymbackpropError("this loss is about vectors")
    source = Source(row.name, text)
    scope = Scope({"p": (), "y": (), **dict.fromkeys(row.constants, ())}, dict(catalogue_functions()), Sizes(), closed=True)
    body = Lowering(source, scope).scalar(parse_expression(source))
    return body.xreplace({Element(c): sympy.Rational(v) for c, v in row.constants.items()})


def _concrete(network: Network, name: str, activation: str) -> Network:
    bodies = {"identity": Element("u"), "sigmoid": 1 / (1 + sympy.exp(-Element("u"))), "tanh": sympy.tanh(Element("u"))}
    functions = tuple(replace(f, parameters=("u",), body=bodies[activation]) if f.name == name else f for f in network.functions)
    return replace(network, functions=functions)
