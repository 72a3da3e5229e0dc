"""Side by side in one run: contenders take turns, ratios are taken within a round, medians over rounds."""

import statistics
import time


def interleaved(contenders, rounds, seconds):
    """Seconds a call of each contender in each round: a dict from name to list. All take turns within a round."""
    counts = {}
    for name, call in contenders.items():
        call()  # whatever is compiled or allocated once
        call()
        start = time.perf_counter()
        call()
        counts[name] = max(1, int(seconds / max(time.perf_counter() - start, 1e-7)))
    found = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            count = counts[name]
            start = time.perf_counter()
            for _ in range(count):
                call()
            found[name].append((time.perf_counter() - start) / count)
    return found


def ratios(found, base):
    """The median over rounds of each contender's time over the base's."""
    return {n: statistics.median(a / b for a, b in zip(own, found[base], strict=True)) for n, own in found.items()}


def table(header, rows):
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, r)) + " |" for r in rows)]) + "\n"
