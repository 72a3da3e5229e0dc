"""How hand-written code is called: which of its parameters is which array, and in which order its results come.

By name first: `x`, `W1`, `a1` for a stored value, `dz2` for a derivative, `dout` for what comes from above a formula, `params`,
`X`, `Y` as in emitted modules, `N` for a size, the names of constants. A parameter with a default keeps it. What no name settles
is asked for and never guessed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from .errors import DataError, suggest
from .evidence import Point
from .judge import Subject
from .missteps import is_upstream
from .notation import data_indices

# What people call the derivative that comes from above; an array of the formula's own with that name comes first.
_ABOVE = (
    "dout",
    "grad_output",
    "grad_out",
    "grad_outputs",
    "upstream",
    "dy",
    "gy",
    "gout",
    "grad",
    "g",
    "ct",
    "cotangent",
    "d_out",
)
_USUAL = {
    "input": ("x", "X", "inp"),
    "inp": ("x",),
    "weight": ("w", "W", "weight"),
    "weights": ("w", "W"),
    "bias": ("b", "B"),
    "target": ("y", "t"),
    "targets": ("y", "t"),
    "labels": ("y",),
    "gamma": ("g", "γ"),
    "beta": ("b", "β"),
}


@dataclass(frozen=True)
class Setting:
    """What `verify` was told about the code, and the outputs of a formula with what comes from above each."""

    wanted: tuple[str, ...]
    explicit: bool  # whether `wrt` was given
    arguments: tuple[str, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict[str, Any])
    dtype: str = "float64"
    device: str = "cpu"
    outputs: tuple[str, ...] = ()
    upstream: Mapping[str, str] = field(default_factory=dict[str, str])
    classes: bool = False  # labels are given as the numbers of classes


@dataclass(frozen=True)
class Argument:
    """One parameter of somebody's function: its name, what stands for it, and whether it is passed by its name."""

    parameter: str
    kind: str  # array, size, constant, params, inputs, targets
    name: str
    value: Any = None
    by_name: bool = False


def parameters_of(function: Callable[..., Any], skip: int = 0) -> list[inspect.Parameter]:
    """The parameters of a function, without the first ones (`ctx`). Raises `DataError` where it does not tell."""
    try:
        return list(inspect.signature(function).parameters.values())[skip:]
    except (TypeError, ValueError):
        raise DataError("the function does not tell its parameters; wrap it, as in lambda x, dout: function(x, dout)") from None


def bound(parameters: Sequence[inspect.Parameter], subject: Subject, setting: Setting) -> list[Argument]:
    """What each parameter is called with. Raises `DataError` for one that is not understood."""
    found: list[Argument] = []
    given = list(setting.arguments)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
    if given and any(p.kind is p.VAR_POSITIONAL for p in positional):
        return [_named(n, n, subject, setting, False) for n in given]
    if len(given) > len(positional):
        raise DataError(f"arguments= has {len(given)} names, and the function takes {len(positional)}")
    for p in parameters:
        if p.kind is p.VAR_KEYWORD:
            continue
        if p.kind is p.VAR_POSITIONAL:
            raise DataError(
                f"the function takes *{p.name}; say what with arguments=, such as arguments={_example(subject, setting)}"
            )
        wish = given.pop(0) if given and p in positional else p.name
        argument = _lookup(p.name, wish, subject, setting, p.kind is p.KEYWORD_ONLY)
        if argument is None and p.default is not p.empty:
            if p.kind is not p.KEYWORD_ONLY:
                found.append(Argument(p.name, "constant", p.name, p.default, p.kind is p.POSITIONAL_OR_KEYWORD))
            continue
        found.append(argument or _named(p.name, wish, subject, setting, False))
    return found


def _named(parameter: str, wish: str, subject: Subject, setting: Setting, by_name: bool) -> Argument:
    found = _lookup(parameter, wish, subject, setting, by_name)
    if found is None:
        known = [n for n in subject.names.axes if not is_upstream(n)]
        raise DataError(
            f"the parameter '{parameter}' is no array of this network{suggest(wish, known)}; say what stands for it with "
            f"arguments= (in order, such as {_example(subject, setting)}), or give a number with constants={{'{parameter}': …}}"
        )
    return found


def _example(subject: Subject, setting: Setting) -> str:
    names = [a.name for a in subject.derivation.network.arrays if a.role in ("input", "parameter") and not is_upstream(a.name)]
    return str([*names[:3], *(["dout"] if setting.upstream else [])])


def _lookup(parameter: str, wish: str, subject: Subject, setting: Setting, by_name: bool) -> Argument | None:
    network, names = subject.derivation.network, subject.names
    own = {a.name: a for a in network.arrays}

    def array(name: str) -> Argument:
        return Argument(parameter, "array", name, None, by_name)

    for key in (parameter, wish):
        if key in setting.constants and key not in own:
            return Argument(parameter, "constant", key, setting.constants[key], by_name)
    if wish in own and not is_upstream(wish):
        return array(wish)
    above = _above(wish, setting)
    if above is not None:
        return array(above)
    if wish == "params":
        return Argument(parameter, "params", wish, None, by_name)
    plain = {"X": "input", "Y": "target"}
    if wish in plain:
        found = [a.name for a in network.arrays if a.role == plain[wish] and not is_upstream(a.name)]
        return array(found[0]) if len(found) == 1 else Argument(parameter, plain[wish], wish, None, by_name)
    if wish in dict(network.constants):
        return Argument(parameter, "constant", wish, float(dict(network.constants)[wish]), by_name)
    for candidate in (names.aliases.get(wish, wish), *_USUAL.get(wish, ())):
        if candidate in names.axes:
            return array(candidate)
    size = next((i.name for i in network.indices if wish == i.size), None)
    size = size or (network.batch if wish in ("N", "n", "m", "batch_size") else None)
    return Argument(parameter, "size", size, None, by_name) if size is not None else None


def _above(wish: str, setting: Setting) -> str | None:
    """The array that comes from above, by what people call it."""
    for output, array in setting.upstream.items():
        if wish in (f"d{output}", f"grad_{output}", f"g_{output}", f"d_{output}", f"{output}_grad", array):
            return array
    if len(setting.upstream) == 1 and wish in _ABOVE:
        return next(iter(setting.upstream.values()))
    return None


def value_of(argument: Argument, subject: Subject, setting: Setting, point: Point) -> Any:
    """The value of an argument at a point, as NumPy has it."""
    network = subject.derivation.network
    if argument.kind == "array":
        return given_value(subject, setting, point, argument.name)
    if argument.kind == "size":
        return point.sizes[argument.name]
    if argument.kind == "constant":
        return argument.value
    role = {"params": "parameter"}.get(argument.kind, argument.kind)
    names = [a.name for a in network.arrays if a.role == role and not is_upstream(a.name)]
    return {n: given_value(subject, setting, point, n) for n in names}


def given_value(subject: Subject, setting: Setting, point: Point, name: str) -> np.ndarray:
    """An array as the code wants it: classes by their numbers where it does."""
    value = array_value(subject, point, name)
    is_target = any(a.name == name and a.role == "target" for a in subject.derivation.network.arrays)
    return np.argmax(value, axis=-1) if setting.classes and is_target else value


def array_value(subject: Subject, point: Point, name: str) -> np.ndarray:
    """An array at a point: whole numbers for one that is used as an index."""
    point.ensure([name])
    value = np.array(point.view({}, floating=True).values[name], dtype=float)
    return value.astype(np.int64) if name in data_indices(subject.derivation.network.equations) else value


# ---------------------------------------------------------------------- results


def named_results(result: Any, subject: Subject, setting: Setting, arguments: Sequence[Argument]) -> dict[str, Any]:
    """The results of a function by name: `dW1`, `L` for the loss, `d2f` for second derivatives; None for what is missing.

    Raises `DataError` where it is not clear which is which.
    """
    loss = subject.derivation.network.loss
    if isinstance(result, tuple) and len(cast(tuple[Any, ...], result)) == 2 and isinstance(result[1], Mapping):
        return {loss: result[0], **_from_mapping(cast(Mapping[Any, Any], result[1]), subject, setting)}
    if isinstance(result, Mapping):
        return _from_mapping(cast(Mapping[Any, Any], result), subject, setting)
    values = list(cast(Iterable[Any], result)) if isinstance(result, (tuple, list)) else [result]
    wanted = setting.wanted
    arrays = [a.name for a in arguments if a.kind == "array" and not is_upstream(a.name)]
    if len(values) == len(wanted) + 1 and not setting.upstream and np.ndim(values[0]) == 0 and values[0] is not None:
        return {loss: values[0], **{f"d{n}": v for n, v in zip(wanted, values[1:], strict=True)}}
    if len(values) == len(wanted):
        _same_order(wanted, arrays, setting)
        return {f"d{n}": v for n, v in zip(wanted, values, strict=True)}
    if len(values) == 2 * len(wanted) and _are_second(values):
        names = [*(f"d{n}" for n in wanted), *(f"d2{n}" for n in wanted)]
        return dict(zip(names, values, strict=True))
    if len(values) == len(arguments) and set(wanted) <= set(arrays):
        pairs = zip(arguments, values, strict=True)
        return {f"d{a.name}": v for a, v in pairs if a.kind == "array" and not is_upstream(a.name) and a.name in wanted}
    if len(values) == len(arrays) and set(wanted) <= set(arrays):
        return {f"d{n}": v for n, v in zip(arrays, values, strict=True) if n in wanted}
    raise DataError(
        f"the function returns {len(values)} arrays, and {len(wanted)} are expected: {', '.join(wanted)}; say with wrt= by which "
        "arrays it differentiates, in the order of its results, and with constants= what is a number"
    )


def _are_second(values: Sequence[Any]) -> bool:
    """Whether the second half of some results has the shapes of Hessians, or of their diagonals, of the first half."""
    half = len(values) // 2
    for first, second in zip(values[:half], values[half:], strict=True):
        if first is None or second is None:
            return False
        shape = np.shape(first)
        if np.shape(second) not in (shape, (*shape, *shape), (int(np.prod(shape)),) * 2):
            return False
    return True


def _same_order(wanted: Sequence[str], arrays: Sequence[str], setting: Setting) -> None:
    """A formula's inputs and the function's parameters must come in one order, or the results could be either."""
    own = [a for a in arrays if a in wanted]
    if not setting.explicit and setting.upstream and len(own) == len(wanted) and own != list(wanted):
        raise DataError(
            f"the function takes {', '.join(own)} and the formula has {', '.join(wanted)}: say with wrt= in which order the "
            f"results come, such as wrt={own}"
        )


def _from_mapping(result: Mapping[Any, Any], subject: Subject, setting: Setting) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in result.items():
        found[_result_name(subject, setting, str(key))] = value
    return found


def _result_name(subject: Subject, setting: Setting, key: str) -> str:
    adjoints = subject.derivation.adjoints
    if key in ("loss", subject.derivation.network.loss):
        return subject.derivation.network.loss
    if len(setting.wanted) == 1 and key in ("grad", "gradient"):
        return f"d{setting.wanted[0]}"
    if len(setting.wanted) == 1 and key in ("hess", "hessian", "H"):
        return f"d2{setting.wanted[0]}"
    shorter = [key.removeprefix(p) for p in ("grad_", "d_", "g_", "d") if key.startswith(p)]
    for name in (key, *shorter, key.removesuffix("_grad")):
        if name in adjoints and not is_upstream(name):
            return f"d{name}"
    raise DataError(f"the result '{key}' is no derivative of this network{suggest(key, list(adjoints))}")
