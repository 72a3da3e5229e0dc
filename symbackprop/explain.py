"""A derivation explained: as text, Markdown, LaTeX, a web page, or JSON, all of them views of the recorded steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .document import Explanation
from .errors import SymbackpropError, suggest
from .latex import LatexWriter
from .notation import DISPLAYS, Derivation, Equation
from .page import page
from .reader import read_notation
from .render import render
from .unicode_text import TextWriter

FORMATS = ("text", "markdown", "latex", "html", "json")
FORMS = ("index", "matrix", "scalar")


def explain(
    derivation: Derivation,
    format: str = "text",
    form: str = "index",
    values: Mapping[str, Any] | None = None,
    seed: int = 0,
    notation: str = "",
) -> str:
    """The explanation of a derivation.

    `format` is text, markdown, latex (a document), html (a page that needs no network) or json; `form` says how results are
    written: index, matrix or scalar (each weight by name, for small networks). The page also shows every line with numbers:
    `values` gives arrays by name as nested lists, what is left out is drawn from `seed`. `notation` is the reader's, such as
    "batch=columns, layer=[l], derivative=d, prediction=ŷ, layout=numerator" (JSON keeps the network's own).

    Raises `SymbackpropError` for an unknown format, form or notation, and `DataError` for values that do not fit.
    """
    if format not in FORMATS:
        raise SymbackpropError(f"unknown format '{format}'{suggest(format, FORMATS)}; known: {', '.join(FORMATS)}")
    if form not in FORMS:
        raise SymbackpropError(f"unknown form '{form}'{suggest(form, FORMS)}; known: {', '.join(FORMS)}")
    chosen = read_notation(notation)
    writing = Explanation(derivation, form, chosen)  # type: ignore[arg-type]
    if format == "json":
        return json.dumps(writing.as_json(), indent=2, ensure_ascii=False) + "\n"
    if format == "html":
        return page(derivation, values, seed, chosen)
    name = {"text": "derivation.txt", "markdown": "derivation.md", "latex": "derivation.tex"}[format]
    return render(name, writing.document())


def fragment(derivation: Derivation, format: str = "latex", form: str = "index", notation: str = "") -> str:
    """The formulas of the results alone, one a line, to be put into a paper: `format` is latex or text.

    Each derivative that was asked for is written in forward values, without the shared derivatives, where that is short.
    """
    writing = Explanation(derivation, form, read_notation(notation))  # type: ignore[arg-type]
    formulas = [writing.chosen(f) for f in writing.closed()]
    return "".join(f"{f.latex if format == 'latex' else f.text}\n" for f in formulas)


def mime_bundle(derivation: Derivation) -> dict[str, str]:
    """What a notebook shows of a derivation: its results as LaTeX, and as plain text where there is no typesetting."""
    writing = Explanation(derivation, "matrix")
    formulas = [writing.equation(e, form="matrix") for e in derivation.equations]
    rows = r" \\ ".join("&" + f.latex for f in formulas)
    latex = rf"$$\begin{{aligned}} {rows} \end{{aligned}}$$"
    return {"text/latex": latex, "text/plain": "\n".join(f.text for f in formulas)}


def equation_bundle(equation: Equation) -> dict[str, str]:
    """What a notebook shows of one equation, such as a Jacobian."""
    return {"text/latex": f"$${LatexWriter().equation(equation)}$$", "text/plain": TextWriter().equation(equation)}


DISPLAYS[Derivation] = mime_bundle
DISPLAYS[Equation] = equation_bundle
