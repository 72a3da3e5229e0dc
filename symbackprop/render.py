"""The only module that knows Jinja: a template's name and its data to text.

Templates lie in `templates/` beside the package in a checkout and in `_templates/` inside the installed package.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from jinja2.bccache import Bucket

from .cache import usable_folder

_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "∂": r"\ensuremath{\partial}",
    "δ": r"\ensuremath{\delta}",
    "η": r"\ensuremath{\eta}",
    "α": r"\ensuremath{\alpha}",
    "ℓ": r"\ensuremath{\ell}",
    "Σ": r"\ensuremath{\Sigma}",
    "·": r"\ensuremath{\cdot}",
    "−": r"\ensuremath{-}",
    "²": r"\ensuremath{^2}",
    "³": r"\ensuremath{^3}",
    "≥": r"\ensuremath{\ge}",
    "≤": r"\ensuremath{\le}",
    "√": r"\ensuremath{\surd}",
    "π": r"\ensuremath{\pi}",
    "′": "'",
    "’": "'",
}
_HERE = Path(__file__).parent


class _Kept(jinja2.FileSystemBytecodeCache):
    """Templates that were read before, where they can be kept."""

    def dump_bytecode(self, bucket: Bucket) -> None:
        with contextlib.suppress(OSError):
            super().dump_bytecode(bucket)


@functools.cache
def environment() -> jinja2.Environment:
    """The environment: an undefined name in a template is an error, and HTML is escaped."""
    checkout = _HERE.parent / "templates"
    # A checkout's own templates win over copies that an old installation left behind.
    folders = [checkout] if (_HERE.parent / "pyproject.toml").is_file() else []
    loader = jinja2.FileSystemLoader([*folders, _HERE / "_templates"])
    kept = usable_folder()
    made = jinja2.Environment(
        loader=loader,
        # Reading the large template takes longer than filling it: what came of it is kept.
        bytecode_cache=_Kept(str(kept)) if kept else None,
        undefined=jinja2.StrictUndefined,
        autoescape=lambda name: bool(name) and ".html" in str(name),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["tex"] = tex
    return made


def tex(text: str) -> str:
    """Plain text for LaTeX: nothing in it is a command; letters beyond the font become mathematics."""
    return "".join(_TEX.get(c, c if c.isascii() else f"\\texttt{{U+{ord(c):04X}}}") for c in text)


def render(template: str, data: Mapping[str, Any]) -> str:
    """The text of a template with its data."""
    return environment().get_template(f"{template}.jinja").render(**data)
