"""A network from what somebody wrote: a chain, a TOML file or text, a dict, or the name of a bundled network.

    declare("64 -> dense(32, relu) -> dense(10, softmax) -> cross_entropy")

gives the `Network` whose equations are z1, a1, z2, S2, a2 and the loss L. Layers, activations and losses come from
the catalogue (or the user's own tables) as formulas for one example; here they get their names, letters and the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .assemble import Assembly
from .chains import Chain
from .errors import FileError, NetworkError, Source, suggest
from .notation import Network
from .spec import Spec, read_dict, read_file, read_toml

_BUNDLED = Path(__file__).parent / "networks"


def declare(source: str | Path | Mapping[str, Any]) -> Network:
    """The network that a text, a path or a dict declares.

    `source` is a chain (it contains `->`), the name of a bundled network, the path of a TOML file, a TOML text, or a
    dict with the keys of the TOML file. Raises `FormulaError`, `NetworkError` or `FileError`, with the place.
    """
    return build(read(source))


def bundled() -> dict[str, Path]:
    """The bundled networks: name and file."""
    return {p.stem: p for p in sorted(_BUNDLED.glob("*.toml"))}


def read(source: str | Path | Mapping[str, Any]) -> Spec:
    """What was written, whichever way it was given."""
    if isinstance(source, Mapping):
        return read_dict(source)
    if isinstance(source, Path):
        return read_file(source)
    if ("->" in source or "→" in source) and "=" not in source.replace("→", "->").partition("->")[0]:
        text = Source("<network>", source)
        return Spec("network", text, chain=text)
    if "\n" in source or "=" in source:
        return read_toml(Source("<network>", source), "network")
    if source in bundled():
        return read_file(bundled()[source])
    if source.endswith(".toml") or _is_file(source):
        return read_file(Path(source))
    raise FileError(
        f"'{source[:80]}' is not a bundled network, a TOML file or a chain such as \"4 -> dense(3, softmax) -> "
        f'cross_entropy"{suggest(source, bundled())}'
    )


def _is_file(source: str) -> bool:
    try:
        return Path(source).is_file()
    except (OSError, ValueError):  # too long, or a character that no path has
        return False


def build(spec: Spec) -> Network:
    """The network of a spec."""
    name = spec.name.strip()
    if not name or len(name) > 80 or not name.isprintable():
        raise NetworkError("the name of a network has 1 to 80 printable characters", spec.source.place(0))
    return Chain(spec).chain(spec.chain) if spec.chain is not None else Assembly(spec).equations()
