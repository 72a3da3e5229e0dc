"""What became of the results of hand-written code: data, and how it prints."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What became of one result: its name, whether it is right, what is wrong (or remarkable), and the result it follows from."""

    name: str
    right: bool
    reason: str = ""
    follows: str = ""

    def __str__(self) -> str:
        if self.follows:
            return f"{self.name}: wrong, which follows from {self.follows}"
        if self.right:
            return f"{self.name}: right{' ' + self.reason if self.reason else ''}"
        return self.reason


@dataclass(frozen=True)
class Verification:
    """The findings of `verify`; true where everything is right, and printed for people."""

    findings: tuple[Finding, ...]
    note: str = ""

    def __bool__(self) -> bool:
        return bool(self.findings) and all(f.right for f in self.findings)

    def __str__(self) -> str:
        return "\n".join([*map(str, self.findings), *([f"({self.note})"] if self.note else [])])
