"""A pytest plugin that keeps the formulas of a project's documents under test.

[tool.pytest.ini_options]
check_formulas = ["docs/*.md"]
check_formulas_network = "digits"        where a document does not say `symbackprop: network = …` itself
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from .claim_files import Entry, read_claims
from .errors import SymbackpropError


def pytest_addoption(parser: pytest.Parser) -> None:
    """The settings."""
    parser.addini("check_formulas", "documents whose equations are checked (patterns)", type="args", default=[])
    parser.addini("check_formulas_network", "the network that they are about unless they say it", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Collect the documents too, where no files were named on the command line."""
    source = getattr(config, "args_source", None)
    if source is not None and source.name != "ARGS":
        config.args += [str(p) for p in _documents(config) if str(p) not in config.args]


def _documents(config: pytest.Config) -> list[Path]:
    patterns: list[str] = config.getini("check_formulas")
    return sorted({p for pattern in patterns for p in config.rootpath.glob(pattern)})


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A document is a file of tests."""
    if file_path in _documents(parent.config):
        return cast(Any, FormulaFile).from_parent(parent, path=file_path)
    return None


class FormulaFile(pytest.File):
    """A document: each of its equations is a test."""

    def collect(self) -> Iterator[pytest.Item]:
        """The equations."""
        default: str = self.config.getini("check_formulas_network")
        shared: dict[str, Any] = {}
        for entry in read_claims(self.path):
            network = entry.network or default
            yield cast(Any, Formula).from_parent(
                self, name=f"line {entry.line}: {entry.text[:60]}", entry=entry, network=network, shared=shared
            )


class Wrong(Exception):
    """A formula that is not right."""


class Formula(pytest.Item):
    """One equation."""

    def __init__(self, *, entry: Entry, network: str, shared: dict[str, Any], **options: Any) -> None:
        cast(Any, super()).__init__(**options)
        self.entry, self.network, self.shared = entry, network, shared

    def runtest(self) -> None:
        """Judge the equation."""
        from .check import Checker  # SymPy is imported when a formula is checked, not when pytest starts

        if not self.network:
            raise Wrong("say what it is about: <!-- symbackprop: network = … --> or check_formulas_network")
        if self.network not in self.shared:
            self.shared[self.network] = Checker(self._network())
        verdict = self.shared[self.network].check(self.entry.text, self.entry.notation)
        if verdict.verdict not in ("proved", "agrees"):
            raise Wrong(str(verdict))

    def _network(self) -> str | Path:
        beside = self.path.parent / self.network
        return beside if self.network.endswith(".toml") and beside.is_file() else self.network

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """What is wrong, without a traceback."""
        if isinstance(excinfo.value, (Wrong, SymbackpropError)):
            return f"{self.path}:{self.entry.line}: {excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where the equation stands."""
        return self.path, self.entry.line - 1, self.name
