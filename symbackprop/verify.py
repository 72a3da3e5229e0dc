"""A backward pass that somebody wrote by hand, against the derived one: NumPy, `torch.autograd.Function`, JAX `custom_vjp`.

    verify(backward, "3 -> dense(4, tanh) -> dense(2) -> squared_error")     backward(x, W1, b1, …) -> {"W1": …} or (…)
    verify(Mish, "x*tanh(log(1 + exp(x)))")                                  a Function whose forward is a formula

The same words as for claims: "dW1 is transposed", "db1: there is a factor 1/N too many". Sizes are unlike one another, the batch
is not 1 (and once it is), values are generic, and then large, zero and of both signs.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np

from .check import Checker
from .declare import bundled, declare
from .errors import DataError, SymbackpropError, suggest
from .evidence import Point, Setting, random_point
from .judge import Judge, Subject
from .notation import Derivation, Network, data_indices
from .slips import array_cause

_TOLERANCE = 1e-6  # relative to the largest value
_EXTREMES = (("zero", 0.0), ("large", 800.0), ("large and negative", -800.0), ("small", 1e-8))


@dataclass(frozen=True)
class Finding:
    """What became of one result: its name, whether it is right, and what is wrong in words."""

    name: str
    right: bool
    reason: str = ""


@dataclass(frozen=True)
class Verification:
    """The findings of `verify`; true where everything is right, and printed for people."""

    findings: tuple[Finding, ...]

    def __bool__(self) -> bool:
        return all(f.right for f in self.findings)

    def __str__(self) -> str:
        return "\n".join(f"{f.name}: right" if f.right else f.reason for f in self.findings)


def verify(
    function: Any, network: Derivation | Network | str | Path | Mapping[str, Any], wrt: Sequence[str] = ()
) -> Verification:
    """Compare a hand-written backward pass with the derived one.

    `network` is anything that `derive` takes, or a formula such as "x*sigmoid(x)", whose inputs are the names in it. A function
    is called with arrays by the names of its parameters (`x`, `W1`, `a1` for stored values, `dz2` or `dout` for the derivative
    that comes from above; `params`, `X`, `Y` as in emitted modules) and returns a dict by name, a tuple in the order of `wrt`
    (all parameters by default, or the formula's inputs), or a loss before either. Raises `DataError` where a parameter or a
    result is not understood.
    """
    formula = _formula_network(network)
    checker = Checker(formula if formula is not None else network)
    subject = checker.subject
    call = _caller(function, subject, formula is not None, tuple(wrt))
    findings: dict[str, Finding] = {}
    generic = subject.evidence.points()
    results = [call(p) for p in generic]
    for name in results[0]:
        findings[name] = _compared(subject, name, [r[name] for r in results], generic)
    for words, point in _adversarial(subject):
        if not all(f.right for f in findings.values()):
            break
        for name, value in call(point).items():
            truth = _truth(subject, name, point)
            if np.all(np.isfinite(truth)) and not _close(value, truth):
                bad = "is not finite" if not np.all(np.isfinite(np.asarray(value, dtype=float))) else "is wrong"
                findings[name] = Finding(name, False, f"{name} {bad} where {words}")
    return Verification(tuple(findings.values()))


def assert_formula(network: Derivation | Network | str | Path | Mapping[str, Any], claim: str, notation: str = "") -> None:
    """For tests: raise `AssertionError`, with what is wrong, unless a claim about a network holds."""
    verdict = Checker(network).check(claim, notation)
    if verdict.verdict not in ("proved", "agrees"):
        raise AssertionError(str(verdict))


# ---------------------------------------------------------------------- formulas as networks


def _formula_network(network: Any) -> Network | None:
    """A formula's network: its value times what comes from above, summed. None for everything that is a network already."""
    if (
        not isinstance(network, str)
        or "->" in network
        or "→" in network
        or network in bundled()
        or Path(network).suffix == ".toml"
    ):
        return None
    left, equals, right = (
        network.partition("=") if re.match(r"\s*[A-Za-z_]\w*(\[[^\]]*\])?\s*=(?!=)", network) else ("", "", network)
    )
    words = dict.fromkeys(re.findall(r"(?<![\w'])([A-Za-z_]\w*'*)(?!\w|\s*\()", re.sub(r"\[[^\]]*\]", "", right)))
    indexed = dict(re.findall(r"([A-Za-z_]\w*)\[([^\]]*)\]", right))
    if indexed or (equals and "[" in left):
        output = left.strip() or "out"
        letters = re.findall(r"\w+", output.partition("[")[2])
        bound = {i for axes in indexed.values() for i in re.findall(r"\w+", axes)}
        inputs = [f"{n}[{axes}]" for n, axes in indexed.items()]
        inputs += [w for w in words if w not in indexed and w not in bound and w not in ("pi",)]
    else:
        letters, output = ["n", "k"], f"{left.strip() or 'out'}[n,k]"
        plain = [w for w in words if w != "pi"]
        inputs = [f"{n}[n,k]" for n in plain]
        for n in plain:
            right = re.sub(rf"(?<![\w'])({n})(?![\w'\[])", r"\1[n,k]", right)
    upstream = f"dout[{','.join(letters)}]" if letters else "dout"
    over = f"sum({', '.join(letters)}, " if letters else "("
    text = f"{output} = {right.strip()}\nG = {over}dout{upstream[4:]}*{output})"
    return declare({"name": "formula", "equations": text, "inputs": [*inputs, upstream], "targets": [], "parameters": []})


# ---------------------------------------------------------------------- calling what people wrote


def _caller(function: Any, subject: Subject, formula: bool, wrt: tuple[str, ...]) -> Callable[[Point], dict[str, np.ndarray]]:
    network = subject.derivation.network
    inputs = [a.name for a in network.arrays if a.role == "input" and a.name != "dout"]
    wanted = wrt or (tuple(inputs) if formula else tuple(a.name for a in network.arrays if a.role == "parameter"))
    kind = f"{type(function).__module__}.{type(function).__name__}"
    if inspect.isclass(function) and any(c.__module__.startswith("torch.autograd") for c in function.__mro__):
        return lambda p: _torch(function, subject, wanted, p)
    if "custom_vjp" in kind or "jax" in type(function).__module__:
        return lambda p: _jax(function, subject, wanted, p)
    return lambda p: _plain(function, subject, wanted, p)


def _plain(function: Callable[..., Any], subject: Subject, wanted: tuple[str, ...], point: Point) -> dict[str, np.ndarray]:
    given = {n: _argument(subject, n, point) for n in inspect.signature(function).parameters}
    result = function(**given) if not _positional_only(function) else function(*given.values())
    if (named := _by_name(result)) is not None:
        return {_result_name(subject, str(key)): np.asarray(value, dtype=float) for key, value in named.items()}
    values = list(cast(Sequence[Any], result)) if isinstance(result, (tuple, list)) else [result]
    if len(values) == len(wanted) + 1 and np.ndim(values[0]) == 0:
        values = values[1:]
    if len(values) != len(wanted):
        raise DataError(f"the function returns {len(values)} arrays, and {len(wanted)} are expected: {', '.join(wanted)}")
    return {f"d{n}": np.asarray(v, dtype=float) for n, v in zip(wanted, values, strict=True)}


def _by_name(result: Any) -> Mapping[Any, Any] | None:
    """Results by their names, alone or behind the loss; None where they have none."""
    if isinstance(result, tuple):
        values = cast(tuple[Any, ...], result)
        result = values[1] if len(values) == 2 else None
    return cast(Mapping[Any, Any], result) if isinstance(result, Mapping) else None


def _positional_only(function: Callable[..., Any]) -> bool:
    return any(p.kind is p.POSITIONAL_ONLY for p in inspect.signature(function).parameters.values())


def _result_name(subject: Subject, key: str) -> str:
    for name in (key, re.sub(r"^(?:grad_|d_|g_|d)", "", key), re.sub(r"_grad$", "", key)):
        if name in subject.derivation.adjoints:
            return f"d{name}"
    known = [a for a in subject.derivation.adjoints]
    raise DataError(f"the result '{key}' is no derivative of this network{suggest(key, known)}")


def _argument(subject: Subject, name: str, point: Point) -> Any:
    """The value for a parameter of somebody's function, by its name."""
    network, names = subject.derivation.network, subject.names
    arrays = {a.name: a for a in network.arrays}
    if name == "params":
        return {a.name: _value(point, a.name) for a in network.arrays if a.role == "parameter"}
    plain = {"X": "input", "Y": "target"}
    if name in plain and name not in arrays:
        found = [a.name for a in network.arrays if a.role == plain[name]]
        return _value(point, found[0]) if len(found) == 1 else {n: _value(point, n) for n in found}
    if name in ("dout", "grad_output", "dy", "upstream", "g") and "dout" in arrays:
        return _value(point, "dout")
    for candidate in (name, names.aliases.get(name, name)):
        if candidate in names.axes:
            return _value(point, candidate)
    if name == "N" and network.batch is not None:
        return point.sizes[network.batch]
    raise DataError(f"the parameter '{name}' is no array of this network{suggest(name, names.axes)}")


def _value(point: Point, name: str) -> np.ndarray:
    point.ensure([name])
    value = point.view({}, floating=True).values[name]
    return np.array(value, dtype=float)


def _torch(function: Any, subject: Subject, wanted: tuple[str, ...], point: Point) -> dict[str, np.ndarray]:
    torch: Any = importlib.import_module("torch")  # an extra: only for those who bring a torch function
    parameters = list(inspect.signature(function.forward).parameters)[1:]
    order = [p for p in parameters if p in subject.names.axes] if parameters else []
    order = order if len(order) == len(parameters) else list(wanted)
    tensors = {n: torch.tensor(_value(point, n), dtype=torch.float64, requires_grad=True) for n in order}
    output = function.apply(*tensors.values())
    upstream = (
        torch.tensor(_value(point, "dout"), dtype=torch.float64) if "dout" in subject.names.axes else torch.ones_like(output)
    )
    _forward(subject, output.detach().numpy(), point)
    output.backward(upstream)
    return {f"d{n}": t.grad.numpy() for n, t in tensors.items() if t.grad is not None and n in wanted}


def _jax(function: Any, subject: Subject, wanted: tuple[str, ...], point: Point) -> dict[str, np.ndarray]:
    jax: Any = importlib.import_module("jax")  # an extra: only for those who bring a JAX function
    array = jax.numpy.asarray

    names = list(inspect.signature(function).parameters)
    order = names if all(n in subject.names.axes for n in names) else list(wanted)
    with jax.enable_x64(True):
        arguments = [array(_value(point, n)) for n in order]
        output, back = jax.vjp(function, *arguments)
        upstream = _value(point, "dout") if "dout" in subject.names.axes else np.ones(output.shape)
        _forward(subject, np.asarray(output), point)
        gradients = back(array(upstream))
    return {f"d{n}": np.asarray(g, dtype=float) for n, g in zip(order, gradients, strict=True) if n in wanted}


def _forward(subject: Subject, output: np.ndarray, point: Point) -> None:
    """The value of the function itself has to be the formula's."""
    network = subject.derivation.network
    name = network.equations[-2].name if len(network.equations) > 1 and "dout" in subject.names.axes else network.loss
    truth = _value(point, name)
    if np.all(np.isfinite(truth)) and not _close(output, truth):
        raise DataError("the forward pass differs from the formula: its derivative cannot be compared")


# ---------------------------------------------------------------------- comparing


def _truth(subject: Subject, name: str, point: Point) -> np.ndarray:
    return _value(point, subject.derivation.adjoints[name[1:]])


def _close(value: Any, truth: np.ndarray) -> bool:
    value = np.asarray(value, dtype=float)
    if value.shape != truth.shape:
        return False
    scale = max(float(np.abs(truth).max(initial=0)), 1e-12)
    return bool(np.all(np.isfinite(value)) and np.abs(value - truth).max(initial=0) <= _TOLERANCE * scale)


def _compared(subject: Subject, name: str, values: Sequence[np.ndarray], points: Sequence[Point]) -> Finding:
    truths = [_truth(subject, name, p) for p in points]
    if all(_close(v, t) for v, t in zip(values, truths, strict=True)):
        return Finding(name, True)
    value, truth = values[0], truths[0]
    if not np.all(np.isfinite(value)):
        return Finding(name, False, f"{name} is not finite")
    axes = subject.names.axes[name[1:]]
    sizes = "×".join(subject.names.size_of[i] for i in axes) or "a number"
    if value.shape != truth.shape:
        if value.shape == truth.shape[::-1] and value.ndim > 1:
            turned = [v.T for v in values]
            if all(_close(v, t) for v, t in zip(turned, truths, strict=True)):
                return Finding(name, False, f"{name} is transposed")
        for axis in range(value.ndim):
            for kind in ("sum", "mean"):
                summed = [getattr(v, kind)(axis=axis) for v in values]
                if all(_close(v, t) for v, t in zip(summed, truths, strict=True)):
                    return Finding(name, False, f"{name}: the {kind} over axis {axis} is missing")
        return Finding(name, False, f"{name} has the shape {value.shape}, not {truth.shape}: {sizes}")
    claim = f"d{subject.derivation.network.loss}/d{name[1:]}" + (f"[{','.join(axes)}]" if axes else "")
    judge = Judge(subject, f"{claim} = {claim}", {})
    words = array_cause(judge, judge.best().case, values)
    return Finding(name, False, f"{name}: {words}" if words else f"{name} is wrong")


def _adversarial(subject: Subject) -> Iterator[tuple[str, Point]]:
    """Points that are anything but generic: a batch of one, and inputs of extreme size."""
    names = subject.names
    network = names.network
    if network.batch is not None and not subject.evidence.is_windowed:
        yield "the batch holds one example", random_point(names, 7, Setting(one=True))
    inputs = [a for a in network.arrays if a.role == "input" and a.name != "dout"]
    for (words, value), a in itertools.product(_EXTREMES, inputs):
        point = random_point(names, 11)
        array = point.table.values[a.name]
        if a.name in _whole(network):
            continue
        point.table.values[a.name] = np.where(
            np.arange(array.size).reshape(array.shape) % 2 == 0, point.table.number(Fraction(value)), array
        )
        yield f"{a.name} is {words}", point


def _whole(network: Network) -> set[str]:
    return data_indices(network.equations)


__all__ = ["Finding", "SymbackpropError", "Verification", "assert_formula", "verify"]
