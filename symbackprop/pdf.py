"""A derivation as PDF, by what is installed: pdflatex for the document, else Chromium, which prints the page.

Neither may read or write outside of a folder that is made for it and thrown away, and each has a minute.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from .errors import SymbackpropError
from .explain import explain
from .notation import Derivation

_SECONDS = 60
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def pdf(derivation: Derivation, form: str = "index", notation: str = "") -> bytes:
    """The PDF of a derivation, whose results are written in this form (index, matrix or scalar).

    Raises `SymbackpropError` where no program that makes a PDF is installed, or none of them succeeds.
    """
    tried: list[str] = []
    with tempfile.TemporaryDirectory(prefix="symbackprop-") as place:
        folder = Path(place)
        if (program := shutil.which("pdflatex")) is not None:
            (folder / "derivation.tex").write_text(explain(derivation, "latex", form, notation=notation), encoding="utf-8")
            options = ("-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "derivation.tex")
            if (found := _made([program, *options], folder)) is not None:
                return found
            tried.append("pdflatex")
        browser = next((path for name in _BROWSERS if (path := shutil.which(name)) is not None), None)
        if browser is not None:
            (folder / "derivation.html").write_text(explain(derivation, "html", form, notation=notation), encoding="utf-8")
            options = ("--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", "--disable-background-networking")
            own = (f"--user-data-dir={folder / 'profile'}", f"--print-to-pdf={folder / 'derivation.pdf'}")
            if (found := _made([browser, *options, *own, (folder / "derivation.html").as_uri()], folder)) is not None:
                return found
            tried.append(Path(browser).name)
    if tried:
        raise SymbackpropError(f"{' and '.join(tried)} could not make the PDF; take --format html and print the page")
    raise SymbackpropError(
        "no program that makes a PDF is installed: install pdflatex (TeX Live) or Chromium, "
        "or take --format html and print the page"
    )


def _made(command: list[str], folder: Path) -> bytes | None:
    """The PDF that a command leaves in the folder, None where it leaves none."""
    # TeX reads and writes nothing outside of the folder, whatever a document says.
    environment = {**os.environ, "openin_any": "p", "openout_any": "p", "TEXMFOUTPUT": str(folder)}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
        )
    except (subprocess.TimeoutExpired, OSError):
        return None
    result = folder / "derivation.pdf"
    return result.read_bytes() if done.returncode == 0 and result.is_file() else None
