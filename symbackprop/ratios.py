"""What claim over truth is called where it is one number: a sign, a factor 2, a size, a constant of the network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import sympy

from .evidence import Point
from .names import Names
from .write import Writer

TRIES = 4000  # changed claims of a small network: a count and no clock, so that verdicts are repeatable
CLOSE = 1e-9  # how far equal values may be apart, relatively


def named_ratio(names: Names, ratios: Sequence[float], points: Sequence[Point], close: float = 1e-8) -> tuple[str, str] | None:
    """Claim over truth as a sign, a factor 2 and a size, in symbols and words; the words are empty for 1."""
    batch = names.network.batch
    sizes = list(dict.fromkeys(i.size for i in names.network.indices))
    if batch is not None:
        sizes.sort(key=lambda s: s != names.size_of[batch])
    options: list[tuple[str, str, Callable[[Point], float]]] = [("", "", lambda _: 1.0)]
    for s in sizes:
        mean = (
            "a sum where the loss is a mean" if batch is not None and s == names.size_of[batch] else "a sum where a mean belongs"
        )
        options.append((s, f"the factor 1/{s} is missing: {mean}", lambda p, s=s: float(p.by_size[s])))
        twice = ": averaged twice, or a mean where a sum belongs"
        options.append((f"1/{s}", f"there is a factor 1/{s} too many{twice}", lambda p, s=s: 1.0 / p.by_size[s]))
    numbers = (
        (1, ""),
        (2, "there is a factor 2 too many"),
        (0.5, "a factor 2 is missing"),
        (4, "there is a factor 4 too many"),
        (0.25, "a factor 4 is missing"),
    )
    for text, value in constants_of(names):
        options.append((text, f"there is a factor {text} too many", lambda _, v=value: v))
        options.append((f"1/({text})", f"the factor {text} is missing", lambda _, v=value: 1 / v))
    signs = ((1, ""), (-1, "the sign is the other way round"))
    for (sign, said), (number, factor), (text, size, value) in sorted(
        itertools.product(signs, numbers, options), key=lambda o: (bool(o[0][1]) + bool(o[1][1]) + bool(o[2][1]), bool(o[2][1]))
    ):
        if all(abs(r - sign * number * value(p)) < close * max(abs(r), 1e-30) for r, p in zip(ratios, points, strict=True)):
            words = ", and ".join(filter(None, (said, factor, size)))
            return _in_symbols(sign, number, text), words
    return None


def constants_of(names: Names) -> list[tuple[str, float]]:
    """The numbers in a network's equations that could have been lost: 1/sqrt(d), a regulariser's weight."""
    found: dict[str, float] = {}
    for e in names.network.equations:
        for t in e.terms:
            for product in t.body.atoms(sympy.Mul) | {t.body}:
                numbers = [f for f in sympy.Mul.make_args(product) if f.is_number]
                c = sympy.Mul(*numbers)
                value = abs(float(c)) if c.is_number and c.is_finite else 1.0
                if value and value not in (1.0, 2.0, 0.5, 4.0, 0.25) and 1e-6 < value < 1e6:
                    found[Writer().expression(abs(c))] = value
    return list(found.items())


def _in_symbols(sign: int, number: float, size: str) -> str:
    head = {0.5: "1/2", 0.25: "1/4"}.get(number, str(int(number)) if number >= 1 else str(number))
    if not size:
        return ("-" if sign < 0 else "") + head
    if head != "1":
        return ("-" if sign < 0 else "") + (f"{head}*{size}" if "/" not in size else f"{head}{size[1:]}")
    return ("-" if sign < 0 else "") + size


def constant_ratio(value: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float | None:
    """The one number by which a value is the truth, or None."""
    if not np.all(np.isfinite(value)):
        return None
    shape = np.broadcast_shapes(value.shape, truth.shape)
    if shape != truth.shape and value.size > truth.size:
        return None
    norm = float(np.vdot(truth, truth)) if value.shape == truth.shape and mask is None else -1.0
    if norm < 0:
        value, truth = np.broadcast_arrays(value, truth)
        if mask is not None:
            value, truth = value[np.broadcast_to(mask, shape)], truth[np.broadcast_to(mask, shape)]
        norm = float(np.vdot(truth, truth))
    if norm == 0:
        return None
    ratio = float(np.vdot(value, truth)) / norm
    if ratio == 0 or not math.isfinite(ratio):
        return None
    gap = np.abs(value - ratio * truth).max()
    return ratio if gap <= CLOSE * abs(ratio) * np.abs(truth).max() else None


def is_plausible(ratio: float, point: Point) -> bool:
    """Whether a ratio is a product of 2 and one size, roughly: a cheap test before the exact one."""
    sizes = {1, *point.by_size.values()}
    return any(abs(abs(ratio) - n * v) < 1e-6 * abs(ratio) for n in (0.25, 0.5, 1, 2, 4) for s in sizes for v in (s, 1 / s))


def tries_for(point: Point) -> int:
    """How many changed claims are tried: fewer where arrays are large."""
    return max(200, min(TRIES, TRIES * 2000 // max(point.work, 1)))
