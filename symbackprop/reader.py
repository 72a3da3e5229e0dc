"""The reader's notation: how layers, derivatives and the prediction are written, and which way round matrices stand.

    batch=columns, layer=[l], derivative=d, prediction=ŷ, layout=numerator

Names that somebody declared stay as they are; only those that a chain made up can be written another way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import SymbackpropError, suggest
from .latex import latex_element
from .notation import Network
from .write import Formula

CHOICES: Mapping[str, tuple[str, ...]] = {
    "batch": ("rows", "columns"),
    "layer": ("(l)", "[l]", "sub"),
    "derivative": ("∂", "d", "∇"),
    "layout": ("gradient", "numerator"),
    "prediction": ("declared", "ŷ", "a", "o", "h", "p"),
}
_PLAIN = {"partial": "∂", "nabla": "∇", "yhat": "ŷ", "l": "(l)", "subscript": "sub"}


@dataclass(frozen=True)
class Notation:
    """One choice for each of `CHOICES`; the first of each is what is written unless told."""

    batch: str = "rows"
    layer: str = "(l)"
    derivative: str = "∂"
    layout: str = "gradient"
    prediction: str = "declared"


def read_notation(text: str) -> Notation:
    """The notation that a text such as `batch=columns, layer=[l]` asks for. Raises `SymbackpropError` for what is unknown."""
    chosen: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, equals, value = (p.strip() for p in part.partition("="))
        if not equals or key not in CHOICES:
            known = ", ".join(CHOICES)
            raise SymbackpropError(
                f"'{part}' is no choice of notation{suggest(key, CHOICES)}; known: {known}, such as batch=columns"
            )
        value = _PLAIN.get(value, value)
        if value not in CHOICES[key]:
            raise SymbackpropError(f"'{key}' is one of {', '.join(CHOICES[key])}, not '{value}'")
        chosen[key] = value
    return Notation(**chosen)


def flipped(notation: Notation, network: Network, adjoints: Mapping[str, str]) -> frozenset[str]:
    """The arrays whose matrix stands the other way round: signals where examples are columns, derivatives in numerator layout."""
    signals = {a.name for a in network.arrays if len(a.axes) == 2 and a.axes[0] == network.batch}
    turned = set(signals) if notation.batch == "columns" else set[str]()
    for array, adjoint in adjoints.items():
        if (array in turned) != (notation.layout == "numerator"):
            turned.add(adjoint)
    return frozenset(turned)


def rewritten(formula: Formula, notation: Notation, network: Network) -> Formula:
    """A formula in the reader's notation."""
    text, latex = formula.text, formula.latex
    if notation.prediction != "declared" and network.text and network.prediction:
        name = network.prediction
        shown = {"ŷ": r"\hat{y}"}.get(notation.prediction, notation.prediction)
        old = latex_element(name, [], layered=True)
        large = r"\hat{Y}" if shown == r"\hat{y}" else shown.upper()
        for before, after in ((old, shown), (old[0].upper() + old[1:], large)):
            latex = re.sub(rf"(?<![A-Za-z\\]){re.escape(before)}", lambda _, text=after: text, latex)
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", notation.prediction, text)
        text = re.sub(rf"(?<!\w){re.escape(name[0].upper() + name[1:])}(?!\w)", notation.prediction.upper(), text)
    if notation.layer == "[l]":
        latex = re.sub(r"\^\{\((\d+|l[+-]?\d*)\)", r"^{[\1]", latex)
    elif notation.layer == "sub":
        latex = re.sub(r"\^\{\((\d+)\)\}_\{", r"_{\1,", latex)
        latex = re.sub(r"\^\{\((\d+)\)\}", r"_{\1}", latex)
        latex = re.sub(r"\^\{\((\d+)\)\\top\}", r"_{\1}^\\top", latex)
    if notation.derivative == "d":
        latex, text = latex.replace(r"\partial", r"\mathrm{d}"), text.replace("∂", "d")
    elif notation.derivative == "∇":
        latex = _gradients(latex, network.loss)
        text = re.sub(rf"∂{re.escape(network.loss)}/∂([\w']+(?:\[[^\]]*\])?)", rf"∇_{{\1}} {network.loss}", text)
    return Formula(text, latex)


def _gradients(latex: str, loss: str) -> str:
    """`\\frac{\\partial L}{\\partial W}` as `\\nabla_{W} L`."""
    head = re.compile(r"\\frac\{\\partial ((?:\\kind\{\w+\}\{)?" + re.escape(latex_element(loss, [])) + r"\}?)\}\{\\partial ")
    while (found := head.search(latex)) is not None:
        depth, at = 1, found.end()
        while depth:
            depth += (latex[at] == "{") - (latex[at] == "}")
            at += 1
        inner = latex[found.end() : at - 1]
        latex = rf"{latex[: found.start()]}\nabla_{{{inner}}} {found[1]}{latex[at:]}"
    return latex
