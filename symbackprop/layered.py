"""Like layers as loops: text that repeats with other numbers is said once.

    z2 = a1 @ W2 + b2
    a2 = np.tanh(z2)                for layer in range(2, 32):
    z3 = a2 @ W3 + b3        →          z[layer] = a[layer - 1] @ W[layer] + b[layer]
    …                                   a[layer] = np.tanh(z[layer])

Arrays whose names differ in the number at their end alone then lie in a dict by that number. What repeats is found in the text
of the statements, formulas included: only what is the same but for numbers that grow by the same steps is a loop.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from .plan import Statement

_NUMBERED = re.compile(r"\b([^\W\d]\w*?)(\d+)(?!\w)")
_FEWEST, _LONGEST = 5, 64  # repetitions that are worth a loop, statements that one repetition may have
VARIABLE = "layer"


@dataclass(frozen=True)
class Run:
    """`count` repetitions of the items from `start` to `end`: every number grows by its own step from one to the next."""

    start: int
    end: int
    count: int
    steps: tuple[tuple[int, ...], ...]

    @property
    def behind(self) -> int:
        """The first item behind all repetitions."""
        return self.start + self.count * (self.end - self.start)


@dataclass
class Layered:
    """Statements with loops over like layers, and what the names in `stems` became: the dicts that stand for them."""

    statements: list[Statement]
    stems: dict[str, str] = field(default_factory=dict[str, str])

    def text(self, text: str) -> str:
        """Text with the numbered names of the stems as places in their dicts."""
        return _NUMBERED.sub(lambda m: f"{self.stems[m[1]]}[{m[2]}]" if m[1] in self.stems else m[0], text)

    def grouped(self, names: Iterable[str]) -> tuple[list[str], dict[str, list[int]]]:
        """Names that stand alone, and the numbers of those that lie in dicts, by their stem."""
        alone: list[str] = []
        numbers: dict[str, list[int]] = {}
        for name in names:
            m = _NUMBERED.fullmatch(name)
            if m and m[1] in self.stems:
                numbers.setdefault(m[1], []).append(int(m[2]))
            else:
                alone.append(name)
        return alone, numbers


def runs(items: Sequence[str]) -> list[Run]:
    """Where items repeat but for numbers that grow evenly, from the left, the longest first."""
    shapes: dict[str, int] = {}
    kinds = [shapes.setdefault(_NUMBERED.sub(r"\1#", item), len(shapes)) for item in items]
    numbers = [tuple(int(m[2]) for m in _NUMBERED.finditer(item)) for item in items]
    found: list[Run] = []
    start = 0
    while start < len(items):
        best: Run | None = None
        for period in range(1, min(_LONGEST, (len(items) - start) // _FEWEST) + 1):
            if kinds[start] != kinds[start + period]:
                continue
            run = _run(kinds, numbers, start, period)
            if run is not None and (best is None or run.behind > best.behind):
                best = run
        if best is not None:
            found.append(best)
            start = best.behind
        else:
            start += 1
    return found


def _run(kinds: Sequence[int], numbers: Sequence[tuple[int, ...]], start: int, period: int) -> Run | None:
    def steps(k: int) -> tuple[int, ...]:
        return tuple(b - a for a, b in zip(numbers[k], numbers[k + period], strict=True))

    def alike(k: int) -> bool:
        return k + period < len(kinds) and kinds[k] == kinds[k + period]

    if not all(alike(k) for k in range(start, start + period)):
        return None
    first = tuple(steps(k) for k in range(start, start + period))
    if not any(s for own in first for s in own):
        return None
    count = 2
    while all(
        alike(k) and steps(k) == first[q] for q, k in enumerate(range(start + (count - 1) * period, start + count * period))
    ):
        count += 1
    return Run(start, start + period, count, first) if count >= _FEWEST else None


def layered(statements: Sequence[Statement], taken: Iterable[str], fixed: Iterable[str] = ()) -> Layered:
    """The statements with loops; `taken` are names that dicts must not have, `fixed` numbered names that stay as they are."""
    fixed = set(fixed)
    items = ["\n".join((s.formula, *s.lines)) for s in statements]
    found: list[tuple[Run, int, int]] = []
    stems: dict[str, str] = {}
    words = {*taken, VARIABLE, *(w for i in items for w in re.findall(r"\w+", i))}
    for run in runs(items):
        moving = _moving(run, statements, fixed)
        if moving is None:
            continue
        step, begin, names = moving
        found.append((run, step, begin))
        for stem in names:
            name = stem
            while name in words:
                name += "s"
            words.add(name)
            stems.setdefault(stem, name)
    made = Layered([], stems)
    position = 0
    for run, step, begin in found:
        made.statements += [_placed(s, made) for s in statements[position : run.start]]
        made.statements.append(_loop(statements[run.start : run.end], run, step, begin, made))
        position = run.behind
    made.statements += [_placed(s, made) for s in statements[position:]]
    return made


def _moving(run: Run, statements: Sequence[Statement], fixed: set[str]) -> tuple[int, int, dict[str, None]] | None:
    """The step and the first value of a loop's variable, and the stems that move with it; None where code moves otherwise."""
    step, begin, names = 0, 0, dict[str, None]()
    for s, steps in zip(statements[run.start : run.end], run.steps, strict=True):
        skipped = len(_NUMBERED.findall(s.formula))
        for m, own in zip(_NUMBERED.finditer("\n".join(s.lines)), steps[skipped:], strict=True):
            if own == 0:
                continue
            if m[0] in fixed:
                return None
            step = step or own
            begin = begin or int(m[2])
            if own != step:
                return None
            names[m[1]] = None
    return (step, begin, names) if step else None


def _placed(statement: Statement, made: Layered) -> Statement:
    return replace(statement, name=made.text(statement.name), lines=tuple(map(made.text, statement.lines)))


def _loop(block: Sequence[Statement], run: Run, step: int, begin: int, made: Layered) -> Statement:
    """One loop for all repetitions of a block."""
    lines = [f"for {VARIABLE} in {_range(begin, step, run.count)}:"]
    for s, steps in zip(block, run.steps, strict=True):
        own = iter(steps)
        formula = with_variable(s.formula, own, step, begin)
        if s.formula:
            lines.append(f"    # {formula}")
        for line in s.lines:

            def place(m: re.Match[str], own: Iterable[int] = own) -> str:
                moves = next(iter(own))
                if m[1] not in made.stems:
                    return m[0]
                where = _offset(int(m[2]) - begin) if moves else m[2]
                return f"{made.stems[m[1]]}[{where}]"

            lines.append("    " + _NUMBERED.sub(place, line))
    return Statement("", "\n".join(lines), "", tuple(lines))


def with_variable(text: str, steps: Iterable[int], step: int, begin: int) -> str:
    """Text in which the numbers that grow are said by the loop's variable: `z{layer}`."""
    own = iter(steps)

    def said(m: re.Match[str]) -> str:
        moves = next(own)
        if not moves:
            return m[0]
        if moves == step:
            return f"{m[1]}{{{_offset(int(m[2]) - begin)}}}"
        shift = f"({VARIABLE} - {begin})" if begin else VARIABLE
        grown = f"{shift} // {step}" if abs(step) > 1 else shift
        return f"{m[1]}{{{m[2]} + {grown}{f' * {moves}' if moves != 1 else ''}}}"

    return _NUMBERED.sub(said, text)


def _offset(by: int) -> str:
    return VARIABLE if not by else f"{VARIABLE} {'+' if by > 0 else '-'} {abs(by)}"


def _range(begin: int, step: int, count: int) -> str:
    end = begin + step * count
    return f"range({begin}, {end})" if step == 1 else f"range({begin}, {end}, {step})"


def numbers_text(numbers: Sequence[int]) -> str:
    """Numbers as a range where they are one, as a tuple otherwise."""
    numbers = sorted(numbers)
    steps = {b - a for a, b in zip(numbers, numbers[1:], strict=False)}
    if len(numbers) > 2 and len(steps) == 1:
        return _range(numbers[0], steps.pop(), len(numbers))
    return f"({', '.join(map(str, numbers))}{',' if len(numbers) == 1 else ''})"


def said_once(lines: Sequence[str]) -> list[str]:
    """Lines of text, with those that repeat but for their numbers said once."""
    result: list[str] = []
    position = 0
    for run in runs(lines):
        result += lines[position : run.start]
        step = next(s for own in run.steps for s in own if s)
        first = next(m for line, own in zip(lines[run.start :], run.steps, strict=False) for m, s in zip(_NUMBERED.finditer(line), own, strict=True) if s)
        begin = int(first[2])
        result.append(f"for {VARIABLE} = {begin}, {begin + step}, … {begin + step * (run.count - 1)}:")
        for line, own in zip(lines[run.start : run.end], run.steps, strict=True):
            result.append("    " + with_variable(line, own, step, begin))
        position = run.behind
    return [*result, *lines[position:]]
