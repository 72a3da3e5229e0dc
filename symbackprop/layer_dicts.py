"""A function of an emitted module whose like layers are loops: where its arrays come from, lie, and go to.

W = {layer: params[f"W{layer}"] for layer in range(1, 11)}
…
return {**{f"a{layer}": a[layer] for layer in range(1, 10)}, "z10": z[10]}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .layered import VARIABLE, layered, numbers_text


def say_layers_once(
    part: dict[str, Any], taken: Iterable[str], same: Mapping[str, str], numbers: Mapping[str, int | None], data: Sequence[str]
) -> None:
    """Layers that are alike become loops in a part of a module, and their arrays lie in dicts by the number of the layer.

    `taken` are names that no dict may have, `same` gives each size the first that is the same number, `numbers` are the
    sizes' numbers, `data` the arguments of the part.
    """
    made = layered(part["statements"], taken, same)
    part["statements"] = made.statements
    dicts: list[str] = []
    known: set[str] = set()

    def lay(values: Sequence[tuple[str, str]], source: str) -> list[tuple[str, str]]:
        """Numbered names that come from a dict of arrays, by their keys, lie in one of their own."""
        alone, grouped = made.grouped(name for name, _ in values)
        keys = dict(values)
        for stem, own in grouped.items():
            dicts.append(f"{made.stems[stem]} = {_comprehension(own, stem, keys, source)}")
            known.add(stem)
        return [(n, keys[n]) for n in alone]

    part["parameters"] = lay(part["parameters"], "params")
    part["stored"] = [n for n, _ in lay([(n, n) for n in part["stored"]], "stored")]
    part["taken"] = lay([(n, k) for k, n in part.get("taken", ())], "grads")
    for stem, own in made.grouped(data)[1].items():
        pairs = [f"{n}: {name}" for n, name in ((n, stem.replace("#", str(n))) for n in own)]
        dicts.append(f"{made.stems[stem]} = {{{', '.join(pairs)}}}")
        known.add(stem)
    buffers, grouped = made.grouped(part.get("buffers", ()))
    known |= set(grouped)
    part["buffers"] = [
        *((n, "None") for n in buffers),
        *((made.stems[s], f"dict.fromkeys({numbers_text(own)})") for s, own in grouped.items()),
    ]
    if fresh := [name for stem, name in made.stems.items() if stem not in known]:
        dicts.append(f"{', '.join(fresh)} = {', '.join(['{}'] * len(fresh))}")
    part["dicts"] = dicts
    if made.stems:
        words = {w for s in made.statements for line in s.lines for w in re.findall(r"\w+", line)}
        lines = [line for line in part["sizes"] if line.partition(" = ")[0] in words]
        there = {line.partition(" = ")[0] for line in lines}
        lines += [f"{n} = {v}" for n, v in numbers.items() if v is not None and n in words and n not in there]
        part["sizes"] = [made.text(line) for line in lines]
    values = [(n, k) for k, n in part.get("returned", ())]
    alone, grouped = made.grouped(n for n, _ in values)
    keys = dict(values)
    shown = {n: f'"{keys[n]}": {n}' for n in alone}
    for stem, own in grouped.items():
        # in the place of the first of them
        first = stem.replace("#", str(own[0]))
        many = f"**{_comprehension(own, stem, keys, made.stems[stem], names=True)}"
        shown[first] = many if len(own) > 1 else f"{quoted(keys[first])}: {made.text(first)}"
    part["returned"] = [shown[n] for n, _ in values if n in shown]
    part["text"] = made.text


def _comprehension(numbers: Sequence[int], stem: str, keys: Mapping[str, str], source: str, names: bool = False) -> str:
    """A dict from number to array out of one from key to array, or (with `names`) the other way round."""
    own = [keys[stem.replace("#", str(n))] for n in numbers]
    numbered = [re.fullmatch(r"(.*?)(\d+)", key) for key in own]
    starts = {m[1] if m and int(m[2]) == n else None for m, n in zip(numbered, numbers, strict=True)}
    start = next(iter(starts))
    if len(starts) > 1 or start is None:
        pairs = zip(numbers, map(quoted, own), strict=True)
        shown = [f"{k}: {source}[{n}]" if names else f"{n}: {source}[{k}]" for n, k in pairs]
        return f"{{{', '.join(shown)}}}"
    key = f'f"{start}{{{VARIABLE}}}"'
    pair = f"{key}: {source}[{VARIABLE}]" if names else f"{VARIABLE}: {source}[{key}]"
    return f"{{{pair} for {VARIABLE} in {numbers_text(numbers)}}}"


def quoted(text: str) -> str:
    """A name as a string of Python."""
    return json.dumps(text, ensure_ascii=False)
