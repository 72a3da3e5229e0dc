"""`symbackprop generate`: a few modules and derivations kept in the repository, rewritten or compared by one command."""

from __future__ import annotations

import difflib
from pathlib import Path

from . import catalogue
from .declare import declare
from .derive import derive
from .emit import emit
from .explain import explain
from .files import write_file
from .layer_rows import LAYERS
from .render import render

MODULES = ("line", "xor", "iris", "digits", "char_lstm")
DERIVATIONS = (
    ("line.txt", "text", "scalar"),
    ("two_hidden_one_output.txt", "text", "scalar"),
    ("two_hidden_one_output.json", "json", "index"),
    ("layered.md", "markdown", "matrix"),
    ("digits.tex", "latex", "matrix"),
    ("digits.md", "markdown", "index"),
    ("tiny_transformer.txt", "text", "index"),
)


def folder() -> Path:
    """`generated/` of the checkout, or of the current folder."""
    root = Path(__file__).parent.parent
    return (root if (root / "pyproject.toml").is_file() else Path.cwd()) / "generated"


def contents() -> dict[str, str]:
    """Every file's name and text."""
    files = {f"{name}.py": emit(derive(declare(name))) for name in MODULES}
    for file, form, layout in DERIVATIONS:
        files[file] = explain(derive(declare(file.partition(".")[0])), form, layout)
    files["layers.md"] = render("layers.md", {"rows": [_row(layer) for layer in LAYERS]})
    return files


def _row(layer: catalogue.Layer) -> dict[str, object]:
    """What the table of layers says of one."""
    options = [n if not d else f"{n}={d}" for n, d in layer.options.items()]
    flags = [*layer.conditions, *(("mask", "truncate") if layer.state else ())]
    activation = f"activation={layer.activation}" if layer.activation else ""
    own = [*layer.arguments, activation, *options, *(f"{f}=…" for f in flags)]
    sizes = [f"`{letter}` is {formula}" for letter, formula in layer.sizes.items()]
    return {
        "call": f"{layer.name}({', '.join(filter(None, own))})".replace("()", ""),
        "equations": layer.equations,
        "parameters": ", ".join(f"`{p}`" for p in layer.parameters),
        "optional": ", ".join(f"`{p}`" for p in " ".join(layer.optional.values()).split()),
        "sizes": "; ".join(sizes),
        "notes": layer.notes,
        "source": layer.source,
    }


def generate() -> list[Path]:
    """Rewrite all files; what is no longer made is removed."""
    place = folder()
    place.mkdir(exist_ok=True)
    wanted = contents()
    for name in stale(place, wanted):
        (place / name).unlink()
    for name, text in wanted.items():
        write_file(place / name, text, force=True)
    return [place / name for name in sorted(wanted)]


def stale(place: Path, wanted: dict[str, str]) -> list[str]:
    """Files there that nothing makes any more."""
    return sorted(p.name for p in place.glob("*.*") if p.is_file() and p.name not in wanted)


def differences() -> list[str]:
    """What `generate` would change, as unified diffs."""
    place, wanted = folder(), contents()
    found = [f"{place / name}: nothing makes this file any more" for name in stale(place, wanted)]
    for name, text in sorted(wanted.items()):
        path = place / name
        old = path.read_text(encoding="utf-8") if path.is_file() else ""
        if old != text:
            lines = difflib.unified_diff(
                old.splitlines(), text.splitlines(), f"generated/{name}", f"generated/{name} (new)", lineterm="", n=2
            )
            found.append("\n".join(lines))
    return found
