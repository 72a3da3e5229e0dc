"""Hand-written code at points: its results there, and how near a result has to be to the right one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .calling import Setting
from .errors import DataError
from .evidence import Point
from .frameworks import runner
from .notation import Derivation
from .running import ForwardDiffers, Results
from .trials import Grid, generic_points, sized_subjects
from .truths import Truths, array_at

Values = Mapping[str, list[np.ndarray]]  # of each result, at each point

# Bits of a number, how far right values may be apart (a share of the largest), and the largest number.
TYPES: Mapping[str, tuple[int, float, float]] = {
    "float64": (52, 1e-7, 1e300),
    "float32": (23, 2e-4, 1e37),
    "bfloat16": (7, 6e-2, 1e37),
    "float16": (10, 1e-2, 6e4),
}


class Handwritten:
    """One function, the points that it is judged at, and the way it is called."""

    def __init__(self, function: Any, derivation: Derivation, setting: Setting, rtol: float | None) -> None:
        self.function, self.derivation, self.setting = function, derivation, setting
        self.bits, tolerance, self.largest = TYPES[setting.dtype]
        self.tolerance = rtol if rtol is not None else tolerance
        self.subjects = sized_subjects(derivation, declared=True)
        self.grid = Grid(self.bits)
        self.points = generic_points(self.subjects, self.grid)
        self.call = runner(function, self.subjects[0], setting, self._fits, self.points[0])
        if derivation.network.labels == "one-hot" and self._wants_classes():
            self.grid = Grid(self.bits, one_hot=True)
            self.points = generic_points(self.subjects, self.grid)
            self.call = runner(function, self.subjects[0], replace(setting, classes=True), self._fits, self.points[0])
        self.is_plain = bool(setting.upstream) and not self.call.takes_above
        self.truths = Truths(derivation, setting.outputs, list(setting.upstream.values()), self.is_plain)

    def _wants_classes(self) -> bool:
        """Whether the function takes classes by their numbers: it fails with vectors of labels, and not with numbers."""
        try:
            self.call(self.points[0])
        except ForwardDiffers:
            return False
        except DataError:
            setting = replace(self.setting, classes=True)
            try:
                runner(self.function, self.subjects[0], setting, self._fits, self.points[0])(self.points[0])
            except DataError:
                return False
            return True
        return False

    def _fits(self, output: str, value: Any, point: Point) -> bool:
        truth = array_at(point, output)
        return not np.all(np.isfinite(truth)) or self.close(value, truth)

    def close(self, value: Any, truth: np.ndarray, largest: float = 1.0) -> bool:
        """Whether a value is the right one, up to rounding in numbers of which some are as large as `largest`."""
        value = np.asarray(value, dtype=float)
        if value.shape != truth.shape:
            return False
        scale = float(np.abs(truth).max(initial=0))
        # What cancels, or is zero, comes out as rounding noise.
        noise = 16 * largest * 2.0 ** -(self.bits + 1)
        allowed = self.tolerance * (scale if scale > 200 * 2.0**-self.bits else 1e-4) + noise
        return bool(np.all(np.isfinite(value)) and np.abs(value - truth).max(initial=0) <= allowed)

    def all_close(self, values: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> bool:
        """Whether the values at all points are the right ones."""
        return all(self.close(v, t) for v, t in zip(values, truths, strict=True))

    def results(self, point: Point) -> Results:
        """The results at a point; what is asked for and not there is None."""
        found = {k: None if v is None else _array(k, v) for k, v in self.call(point).items()}
        return {f"d{n}": None for n in self.setting.wanted} | found


def _array(name: str, value: Any) -> np.ndarray:
    if np.iscomplexobj(value):
        raise DataError(f"the result {name} has complex numbers")
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise DataError(f"the result {name} is no array of numbers: {type(value).__name__}") from None
