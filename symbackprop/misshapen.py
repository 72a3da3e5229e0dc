"""Results of another shape, or off by a sign or a factor 2, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Close = Callable[[np.ndarray, np.ndarray], bool]


def shape_words(name: str, values: Sequence[np.ndarray], truths: Sequence[np.ndarray], close: Close, sizes: str) -> str | None:
    """What is wrong with the shape of a result, or that it is not finite; None where neither is."""
    value, truth = values[0], truths[0]
    if value.shape == truth.shape:
        return None if all(np.all(np.isfinite(v)) for v in values) else f"{name} is not finite"

    def mends(change: Callable[[np.ndarray], np.ndarray]) -> bool:
        return all(close(change(v), t) for v, t in zip(values, truths, strict=True))

    if value.ndim > 1 and mends(np.transpose):
        return f"{name} is transposed"
    for axis in range(value.ndim):
        if mends(lambda v, axis=axis: np.sum(v, axis=axis)):
            return f"{name}: the sum over axis {axis} is missing"
        if mends(lambda v, axis=axis: np.mean(v, axis=axis)):
            return f"{name}: the mean over axis {axis} is missing"
    if all(v.size == t.size and close(v.reshape(t.shape), t) for v, t in zip(values, truths, strict=True)):
        return f"{name} has the shape {value.shape}, not {truth.shape}; its values are right"
    return f"{name} has the shape {value.shape}, not {truth.shape}{': ' + sizes if sizes else ''}"


def ratio_words(name: str, values: Sequence[np.ndarray], truths: Sequence[np.ndarray], close: Close) -> str:
    """What is wrong with a loss, a Jacobian or a Hessian."""
    factors = (
        ("the sign is the other way round", -1.0),
        ("a factor 2 is missing", 2.0),
        ("there is a factor 2 too many", 0.5),
    )
    for words, factor in factors:
        if all(close(factor * v, t) for v, t in zip(values, truths, strict=True)):
            return f"{name}: {words}"
    return f"{name} is wrong"
