"""A network as its author wrote it: a TOML file, a TOML text or a dict, read into a `Spec` whose every text knows its place."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from .catalogue import INITIALISERS, OPTIMISERS, SCHEDULES
from .errors import FileError, FormulaError, NetworkError, Source, suggest
from .notation import Draw

KEYS = (
    "name",
    "network",
    "equations",
    "inputs",
    "targets",
    "parameters",
    "functions",
    "prediction",
    "reduction",
    "rate",
    "sizes",
    "constants",
    "facts",
    "noise",
    "averages",
    "activation",
    "loss",
    "layer",
    "train",
)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 1e300


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 10**9


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.isidentifier()


# What each key of [train] takes, in words and as a test; the values go into emitted code.
TRAIN_KEYS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "data": ("the name of a bundled data set", _is_name),
    "epochs": ("a positive whole number", _is_count),
    "batch_size": ("a positive whole number", _is_count),
    "optimizer": (f"one of {', '.join(OPTIMISERS)}", lambda v: v in OPTIMISERS),
    "learning_rate": ("a positive number", lambda v: is_number(v) and v > 0),
    "schedule": (f"one of {', '.join(SCHEDULES)}", lambda v: v in SCHEDULES),
    "seed": ("a whole number from 0", lambda v: v == 0 or _is_count(v)),
    "initialiser": (f"one of {', '.join(INITIALISERS)}", lambda v: v in INITIALISERS),
    "dtype": ("float64 or float32", lambda v: v in ("float64", "float32")),
    "held_out": ("a share from 0 to below 1", lambda v: is_number(v) and 0 <= v < 1),
}
_LISTS = ("inputs", "targets", "parameters", "functions")
_KEY = re.compile(r"""[ \t]*((?:"[^"\n]*"|'[^'\n]*'|[\w-]+)(?:[ \t]*\.[ \t]*(?:"[^"\n]*"|'[^'\n]*'|[\w-]+))*)[ \t]*=""")
_HEADER = re.compile(r"[ \t]*\[+([^\]\n]+)\]+")


@dataclass(frozen=True)
class Own:
    """A table of the user's own: a `formula` or `equations`, and the other keys with their values."""

    name: str
    formula: Source | None
    equations: Source | None
    others: Mapping[str, Any]
    source: Source


@dataclass(frozen=True)
class Spec:
    """What was written, checked for its form only; formulas are still text."""

    name: str
    source: Source
    chain: Source | None = None
    equations: Source | None = None
    inputs: tuple[Source, ...] = ()
    targets: tuple[Source, ...] = ()
    parameters: tuple[Source, ...] = ()
    functions: tuple[Source, ...] = ()
    prediction: str | None = None
    reduction: str = "mean"
    rate: str = "η"
    sizes: Mapping[str, int | str] = field(default_factory=dict[str, "int | str"])
    constants: Mapping[str, float | int] = field(default_factory=dict[str, "float | int"])
    facts: tuple[tuple[Source, Source], ...] = ()
    noise: tuple[tuple[Source, Draw], ...] = ()
    averages: Mapping[str, float | int] = field(default_factory=dict[str, "float | int"])
    activations: Mapping[str, Own] = field(default_factory=dict[str, Own])
    losses: Mapping[str, Own] = field(default_factory=dict[str, Own])
    layers: Mapping[str, Own] = field(default_factory=dict[str, Own])
    train: Mapping[str, Any] = field(default_factory=dict[str, Any])


def read_file(path: Path) -> Spec:
    """The spec in a TOML file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = suggest(path.name, (p.name for p in path.parent.glob("*.toml"))) if path.parent.is_dir() else ""
        raise FileError(f"there is no file '{path}'{near}") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise FileError(f"the file '{path}' cannot be read: {problem}") from None
    return read_toml(Source(str(path), text), path.stem)


def read_toml(source: Source, name: str) -> Spec:
    """The spec in a TOML text."""
    try:
        content = tomllib.loads(source.whole)
    except (tomllib.TOMLDecodeError, RecursionError) as problem:
        message = str(problem)
        found = re.search(r" \(at line (\d+), column (\d+)\)", message)
        if found is None:
            raise FormulaError(f"this is not TOML: {message}", source.place(len(source.whole.rstrip()))) from None
        line, column = int(found[1]), int(found[2])
        starts = [0, *(m.end() for m in re.finditer("\n", source.whole))]
        place = source.place(starts[min(line, len(starts)) - 1] + column - 1)
        raise FormulaError(f"this is not TOML: {message[: found.start()]}", place) from None
    return _Reader(content, source, _regions(source.whole)).spec(name)


def read_dict(content: Mapping[str, Any]) -> Spec:
    """The spec in a dict of the same shape as the TOML file."""
    return _Reader(content, Source("<dict>", ""), {}).spec("network")


def _regions(text: str) -> dict[tuple[str, ...], tuple[int, int]]:
    """Where each key's value lies in a TOML text (tomllib keeps no places)."""
    found: list[tuple[tuple[str, ...], int, int]] = []
    table: tuple[str, ...] = ()
    quote, at = "", 0
    for line in text.splitlines(keepends=True):
        if not quote:
            if (key := _KEY.match(line)) is not None:
                found.append(((*table, *_parts(key[1])), at + len(key[0]) - len(key[0].lstrip()), at + key.end()))
            elif (header := _HEADER.match(line)) is not None:
                table = _parts(header[1])
                found.append((table, at, at + header.end()))
        rest = line
        while True:
            if not quote:
                opening = re.search(r"'''|\"\"\"", rest)
                if opening is None:
                    break
                quote, rest = opening[0], rest[opening.end() :]
            closing = rest.find(quote)
            if closing < 0:
                break
            quote, rest = "", rest[closing + 3 :]
        at += len(line)
    ends = [start for _, start, _ in found[1:]] + [len(text)] * bool(found)
    return {path: (value, end) for (path, _, value), end in zip(found, ends, strict=True)}


def _parts(key: str) -> tuple[str, ...]:
    return tuple(p.strip().strip("\"'") for p in re.findall(r"\"[^\"]*\"|'[^']*'|[^.\"']+", key) if p.strip())


class _Reader:
    def __init__(self, content: Mapping[str, Any], source: Source, regions: Mapping[tuple[str, ...], tuple[int, int]]) -> None:
        self.content = content
        self.source = source
        self.regions = regions

    def locate(self, path: tuple[str, ...], text: str) -> Source:
        """The place of a string in the file, or the string alone where it was written with escapes."""
        if path in self.regions:
            start, end = self.regions[path]
            at = self.source.whole.find(text, start, end)
            if text and at >= 0:
                return self.source.part(at, at + len(text))
        return Source(f"{self.source.name}({'.'.join(path)})", text)

    def error(self, message: str, path: tuple[str, ...]) -> NetworkError:
        if path not in self.regions:
            return NetworkError(message, self.source.place(0)) if self.source.whole else NetworkError(message)
        start, _ = self.regions[path]
        begin = self.source.whole.rfind("\n", 0, start) + 1
        indent = len(self.source.whole[begin:start]) - len(self.source.whole[begin:start].lstrip())
        return NetworkError(message, self.source.place(begin + indent))

    def text(self, path: tuple[str, ...], value: Any) -> Source:
        if not isinstance(value, str):
            raise self.error(f"'{'.'.join(path)}' must be a text in quotes", path)
        return self.locate(path, value)

    def strings(self, key: str) -> tuple[Source, ...]:
        value = self.content.get(key, [])
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise self.error(f"'{key}' must be a list of texts, such as {key} = [\"x[n,d]\"]", (key,))
        return tuple(self.text((key,), v) for v in cast("list[Any]", value))

    def table(self, key: str) -> Mapping[str, Any]:
        value = self.content.get(key, {})
        if not isinstance(value, Mapping):
            raise self.error(f"'{key}' must be a table: [{key}]", (key,))
        return cast("Mapping[str, Any]", value)

    def own(self, kind: str) -> dict[str, Own]:
        result: dict[str, Own] = {}
        for name, table in self.table(kind).items():
            path = (kind, name)
            if not isinstance(table, Mapping):
                raise self.error(f"'{kind}.{name}' must be a table with a formula or equations", path)
            entries = cast("Mapping[str, Any]", table)
            if ("formula" in entries) == ("equations" in entries):
                raise self.error(f"[{kind}.{name}] needs a formula or equations, one of them", path)
            if kind == "layer":
                self.layer_table(path, entries)
            result[name] = Own(
                name,
                self.text((*path, "formula"), entries["formula"]) if "formula" in entries else None,
                self.text((*path, "equations"), entries["equations"]) if "equations" in entries else None,
                {k: v for k, v in entries.items() if k not in ("formula", "equations")},
                self.source.part(*self.regions[path]) if path in self.regions else Source(f"<{kind}.{name}>", ""),
            )
        return result

    def layer_table(self, path: tuple[str, ...], entries: Mapping[str, Any]) -> None:
        for key, value in entries.items():
            if key == "parameters" and not (
                isinstance(value, list) and all(isinstance(v, str) for v in cast("list[Any]", value))
            ):
                raise self.error("'parameters' must be a list of texts, such as [\"g[i]\"]", (*path, key))
            letters = cast("Mapping[str, Any]", value).values() if isinstance(value, Mapping) else [None]
            if key == "arguments" and not all(isinstance(v, str) for v in letters):
                raise self.error("'arguments' must be a table of letters, such as { units = \"o\" }", (*path, key))
            if key not in ("formula", "equations", "parameters", "arguments"):
                raise self.error(f"unknown key '{key}' in a layer", (*path, key))

    def numbers(self, key: str) -> dict[str, float | int]:
        for name, value in self.table(key).items():
            if not is_number(value):
                raise self.error(f"'{key}.{name}' must be a finite number", (key, name))
        return dict(self.table(key))

    def sizes(self) -> dict[str, int | str]:
        for name, value in self.table("sizes").items():
            if not _is_count(value) and not (isinstance(value, str) and value.isidentifier()):
                raise self.error(f"the size of '{name}' must be a positive whole number or a name", ("sizes", name))
        return dict(self.table("sizes"))

    def train(self) -> dict[str, Any]:
        for name in self.table("train"):
            if name not in TRAIN_KEYS:
                raise self.error(f"unknown key '{name}' in [train]{suggest(name, TRAIN_KEYS)}", ("train", name))
            wanted, holds = TRAIN_KEYS[name]
            value = self.table("train")[name]
            if isinstance(value, (list, dict)) or not holds(value):
                raise self.error(f"'{name}' in [train] must be {wanted}", ("train", name))
        return dict(self.table("train"))

    def facts(self) -> tuple[tuple[Source, Source], ...]:
        pairs: list[tuple[Source, Source]] = []
        for left, right in self.table("facts").items():
            path = ("facts", left)
            at = self.source.whole.find(left)
            key = self.source.part(at, at + len(left)) if at >= 0 else Source(f"{self.source.name}(facts)", left)
            pairs.append((key, self.text(path, f"{right:g}" if isinstance(right, (int, float)) else right)))
        return tuple(pairs)

    def noise(self) -> tuple[tuple[Source, Draw], ...]:
        found: list[tuple[Source, Draw]] = []
        for array, text in self.table("noise").items():
            path = ("noise", array)
            kind = re.fullmatch(r"(normal)|bernoulli\((0?\.\d+|1)\)", str(text))
            if kind is None:
                raise self.error(f'\'noise.{array}\' is "normal" or "bernoulli(0.8)", with the share that is kept', path)
            draw = Draw("normal", 0) if kind[1] else Draw("bernoulli", 1, float(kind[2]))
            at = self.source.whole.find(array)
            found.append((self.source.part(at, at + len(array)) if at >= 0 else Source("<noise>", array), draw))
        return tuple(found)

    def spec(self, name: str) -> Spec:
        for key in self.content:
            if key not in KEYS:
                raise self.error(f"unknown key '{key}'{suggest(key, KEYS)}", (key,))
        if ("network" in self.content) == ("equations" in self.content):
            raise self.error("give either 'network' (a chain of layers) or 'equations'", ("equations",))
        reduction = self.content.get("reduction", "mean")
        if reduction not in ("mean", "sum"):
            raise self.error('\'reduction\' is "mean" or "sum"', ("reduction",))
        if "network" in self.content:
            for key in (*_LISTS[:3], "prediction", "noise", "averages"):
                if key in self.content:
                    raise self.error(f"'{key}' goes with 'equations'; a chain names its own arrays", (key,))
        given = {
            key: self.text((key,), self.content[key])
            for key in ("name", "network", "equations", "prediction", "rate")
            if key in self.content
        }
        return Spec(
            name=given["name"].text if "name" in given else name,
            source=self.source,
            chain=given.get("network"),
            equations=given.get("equations"),
            inputs=self.strings("inputs"),
            targets=self.strings("targets"),
            parameters=self.strings("parameters"),
            functions=self.strings("functions"),
            prediction=given["prediction"].text if "prediction" in given else None,
            reduction=reduction,
            rate=given["rate"].text if "rate" in given else "η",
            sizes=self.sizes(),
            constants=self.numbers("constants"),
            facts=self.facts(),
            noise=self.noise(),
            averages=self.numbers("averages"),
            activations=self.own("activation"),
            losses=self.own("loss"),
            layers=self.own("layer"),
            train=self.train(),
        )
