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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .plan import Statement

# A name with the number of a layer at its end, or before `_in`: the part of a recurrence that is computed ahead.
_NUMBERED = re.compile(r"\b([^\W\d]\w*?)(\d+)((?:_[^\W\d]+)?)(?!\w)")
_FEWEST, _LONGEST = 5, 64  # repetitions that are worth a loop, statements that one repetition may have
_WIDEST = 12  # the steps at which numbers of layers may lie evenly
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
        return _NUMBERED.sub(lambda m: f"{self.stems[_stem(m)]}[{m[2]}]" if _stem(m) in self.stems else m[0], text)

    def grouped(self, names: Iterable[str]) -> tuple[list[str], dict[str, list[int]]]:
        """Names that stand alone, and the numbers of those that lie in dicts, by their stem (`z#`)."""
        alone: list[str] = []
        numbers: dict[str, list[int]] = {}
        for name in names:
            m = _NUMBERED.fullmatch(name)
            if m and _stem(m) in self.stems:
                numbers.setdefault(_stem(m), []).append(int(m[2]))
            else:
                alone.append(name)
        return alone, numbers


def _stem(m: re.Match[str]) -> str:
    return f"{m[1]}#{m[3]}"


def runs(items: Sequence[str]) -> list[Run]:
    """Where items repeat but for numbers that grow evenly, from the left, the longest first."""
    shapes: dict[str, int] = {}
    kinds = [shapes.setdefault(_NUMBERED.sub(r"\1#\3", item), len(shapes)) for item in items]
    numbers = [tuple(int(m[2]) for m in _NUMBERED.finditer(item)) for item in items]
    found: list[Run] = []
    start = 0
    while start < len(items):
        best: Run | None = None
        for period in range(1, min(_LONGEST, (len(items) - start) // _FEWEST) + 1):
            again = best is not None and period % (best.end - best.start) == 0
            if again or kinds[start] != kinds[start + period]:
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


def layered(statements: Sequence[Statement], taken: Iterable[str], sizes: Mapping[str, str]) -> Layered:
    """The statements with loops; `taken` are names that dicts must not have, `sizes` names that do not move with the layer.

    A size stands for all that are the same number: `sizes` says which.
    """
    plain, fixed = statements, set(sizes)
    known = re.compile(rf"\b({'|'.join(map(re.escape, sizes))})\b") if sizes else re.compile(r"(?!)")
    statements = [replace(s, lines=tuple(known.sub(lambda m: sizes[m[1]], line) for line in s.lines)) for s in statements]
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
            name = stem.replace("#", "")
            while name in words:
                name += "s"
            words.add(name)
            stems.setdefault(stem, name)
    if not found:
        return Layered(list(plain))
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
            if abs(own) > abs(step):
                step, begin = own, int(m[2])
            names[_stem(m)] = None
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
                if _stem(m) not in made.stems:
                    return m[0]
                where = _number(int(m[2]), moves, step, begin)
                return f"{made.stems[_stem(m)]}[{where}]"

            lines.append("    " + _NUMBERED.sub(place, line))
    return Statement("", "\n".join(lines), "", tuple(lines))


def with_variable(text: str, steps: Iterable[int], step: int, begin: int) -> str:
    """Text in which the numbers that grow are said by the loop's variable: `z{layer}`."""
    own = iter(steps)

    def said(m: re.Match[str]) -> str:
        moves = next(own)
        return f"{m[1]}{{{_number(int(m[2]), moves, step, begin)}}}{m[3]}" if moves else m[0]

    return _NUMBERED.sub(said, text)


def _number(first: int, moves: int, step: int, begin: int) -> str:
    """A number that is `first` where the loop's variable is `begin`, and grows by `moves` where that grows by `step`."""
    if not moves:
        return str(first)
    if moves % step == 0:
        times = moves // step
        by = first - begin * times
        own = VARIABLE if times == 1 else f"{times} * {VARIABLE}"
        return own if not by else f"{own} {'+' if by > 0 else '-'} {abs(by)}"
    if step % moves == 0:
        share = step // moves
        by = first * share - begin
        return f"({VARIABLE} {'+' if by >= 0 else '-'} {abs(by)}) // {share}" if by else f"{VARIABLE} // {share}"
    return f"{first} + ({VARIABLE} - {begin}) // {step} * {moves}"


def _range(begin: int, step: int, count: int) -> str:
    end = begin + step * count
    return f"range({begin}, {end})" if step == 1 else f"range({begin}, {end}, {step})"


def numbers_text(numbers: Sequence[int]) -> str:
    """Numbers as a range where they are one, else as a tuple, with ranges where they lie evenly."""
    rest, ranges, others = sorted(numbers), list[str](), list[int]()
    while rest:
        longest: list[int] = []
        for step in range(1, _WIDEST + 1):
            own = [rest[0]]
            while own[-1] + step in rest:
                own.append(own[-1] + step)
            longest = max(longest, own, key=len)
        if len(longest) < 3:
            others.append(rest.pop(0))
        else:
            ranges.append(_range(longest[0], longest[1] - longest[0], len(longest)))
            rest = [n for n in rest if n not in longest]
    if len(ranges) == 1 and not others:
        return ranges[0]
    parts = [*(f"*{r}" for r in ranges), *map(str, others)]
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"


def entries_once(entries: Sequence[tuple[str, str]]) -> list[str]:
    """The entries of a dict as Python, those that repeat but for their numbers as one comprehension."""
    lines = [f"{key}: {value}" for key, value in entries]
    result: list[str] = []
    position = 0
    for run in runs(lines):
        result += lines[position : run.start]
        pairs, numbers = _repeated([f"({key}, {value})" for key, value in entries[run.start : run.end]], run)
        if len(pairs) == 1:
            key, value = _repeated(list(entries[run.start]), replace(run, end=run.start + 2, steps=_halved(run, entries)))[0]
            result.append(f"**{{{key}: {value} for {VARIABLE} in {numbers}}}")
        else:
            result.append(f"**{{key: value for {VARIABLE} in {numbers} for key, value in ({', '.join(pairs)})}}")
        position = run.behind
    return [*result, *lines[position:]]


def _halved(run: Run, entries: Sequence[tuple[str, str]]) -> tuple[tuple[int, ...], ...]:
    """The steps of an entry's key and of its value."""
    count = len(_NUMBERED.findall(entries[run.start][0]))
    return run.steps[0][:count], run.steps[0][count:]


def blocks_once(blocks: Sequence[Sequence[str]]) -> list[str]:
    """Blocks of lines of Python, those that repeat but for the numbers in their strings as loops."""
    texts = ["\n".join(b) for b in blocks]
    result: list[str] = []
    position = 0
    for run in runs(texts):
        result += [line for b in blocks[position : run.start] for line in b]
        bodies, numbers = _repeated(texts[run.start : run.end], run)
        result.append(f"for {VARIABLE} in {numbers}:")
        result += ["    " + line for body in bodies for line in body.split("\n")]
        position = run.behind
    return [*result, *(line for b in blocks[position:] for line in b)]


def _repeated(texts: Sequence[str], run: Run) -> tuple[list[str], str]:
    """One repetition with the loop's variable in its strings, and the numbers that the variable runs over."""
    begin, step = _first(texts, run)
    own = [with_variable(text, steps, step, begin) for text, steps in zip(texts, run.steps, strict=True)]
    return [re.sub(r'"([^"]*\{[^"]*)"', r'f"\1"', text) for text in own], _range(begin, step, run.count)


def _first(texts: Sequence[str], run: Run) -> tuple[int, int]:
    """The first of the numbers that grow most, and its step."""
    pairs = [(m, s) for t, steps in zip(texts, run.steps, strict=True) for m, s in zip(_NUMBERED.finditer(t), steps, strict=True)]
    m, step = max(pairs, key=lambda pair: abs(pair[1]))
    return int(m[2]), step


def said_once(lines: Sequence[str]) -> list[str]:
    """Lines of text, with those that repeat but for their numbers said once."""
    result: list[str] = []
    position = 0
    for run in runs(lines):
        result += lines[position : run.start]
        begin, step = _first(lines[run.start : run.end], run)
        result.append(f"for {VARIABLE} = {begin}, {begin + step}, … {begin + step * (run.count - 1)}:")
        for line, own in zip(lines[run.start : run.end], run.steps, strict=True):
            result.append("    " + with_variable(line, own, step, begin))
        position = run.behind
    return [*result, *lines[position:]]
