"""Files, whole or not at all: written beside their place, then renamed; what is there already stays unless told."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .errors import FileError


def refuse_existing(path: Path, force: bool) -> None:
    """Raise `FileError` if the file is there and may not be overwritten, or if its folder is not there."""
    if path.is_dir():
        raise FileError(f"'{path}' is a folder; give the name of a file")
    if path.exists() and not force:
        raise FileError(f"'{path}' exists already; use --force to overwrite it, or another name")
    if not path.parent.is_dir():
        raise FileError(f"there is no folder '{path.parent}' to write '{path.name}' into")


def write_file(path: Path, content: str | bytes, force: bool = False) -> None:
    """Write a file, whole or not at all; text in UTF-8 with plain line ends."""
    refuse_existing(path, force)
    try:
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as problem:
        raise FileError(f"'{path}' cannot be written: {problem.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files for the owner alone; a result is as readable as any other new file.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(beside, 0o666 & ~umask)
        os.replace(beside, path)
    except OSError as problem:
        raise FileError(f"'{path}' cannot be written: {problem.strerror}") from None
    finally:
        Path(beside).unlink(missing_ok=True)
