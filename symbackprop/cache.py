"""Results on disk, so that a second run need not derive again: keyed by content, whole or not at all, safe to share.

The key is what the result depends on: the network's own text, the options, and the package's code. A cache that cannot be read or
written is as good as none. `SYMBACKPROP_CACHE` names another folder, or turns it off where it is empty.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from .errors import FileError
from .files import write_file

_MOST = 200  # results; the oldest go


def folder() -> Path | None:
    """Where results are kept; None where they are not."""
    chosen = os.environ.get("SYMBACKPROP_CACHE")
    if chosen is not None:
        return Path(chosen) if chosen else None
    try:
        base = os.environ.get("XDG_CACHE_HOME") or (Path.home() / ".cache")
    except RuntimeError:  # there is no home
        return None
    return Path(base) / "symbackprop"


def cached(parts: Iterable[str], make: Callable[[], str]) -> str:
    """A text by what it depends on: from the cache, or made and put there."""
    home = usable_folder()
    if home is None:
        return make()
    digest = hashlib.sha256("\0".join((_code(), *parts)).encode("utf-8", "surrogatepass")).hexdigest()
    path = home / f"{digest}.txt"
    try:
        found = path.read_text(encoding="utf-8")
        if found:
            return found
    except (OSError, UnicodeDecodeError):
        pass
    text = make()
    try:
        write_file(path, text, force=True)
        for old in sorted(home.glob("*.txt"), key=lambda p: p.stat().st_mtime)[:-_MOST]:
            old.unlink(missing_ok=True)
    except (OSError, FileError):
        pass
    return text


def usable_folder() -> Path | None:
    """The folder of results, made where it was not there; None where nothing can be kept."""
    home = folder()
    if home is None:
        return None
    try:
        home.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return home


@functools.cache
def _code() -> str:
    """The package's own code as a number: what another version made is not taken."""
    here = Path(__file__).parent
    found = hashlib.sha256()
    for base in (here, here / "_templates", here.parent / "templates", here / "networks"):
        for path in sorted(base.glob("*")) if base.is_dir() else ():
            if path.suffix in (".py", ".jinja", ".toml"):
                found.update(path.read_bytes())
    return found.hexdigest()


def network_text(network: str) -> str | None:
    """What a network's name stands for, by content; None where that cannot be told without reading it as one."""
    bundled = Path(__file__).parent / "networks" / f"{network}.toml"
    try:
        if "/" not in network and bundled.is_file():
            return bundled.read_text(encoding="utf-8")
        if network.endswith(".toml"):
            return Path(network).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return network if "->" in network or "→" in network else None
