"""A backward pass that somebody wrote by hand, against the derived one: NumPy, torch, JAX.

    verify(backward, "3 -> dense(4, tanh) -> dense(2) -> squared_error")     backward(x, W1, b1, …) -> {"W1": …} or (…)
    verify(Mish, "x*tanh(log(1 + exp(x)))")                                  a Function whose forward is a formula

All that is asked for has to be there and right, at points of every kind (`trials`). What is wrong is said in the words of
claims, "dW1 is transposed", and the slip behind it is named once (`blame`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .calling import Setting
from .check import Checker
from .errors import DataError, suggest
from .findings import Finding, Verification
from .formula_networks import formula_network, is_formula
from .frameworks import sizes_of_module
from .handwritten import TYPES, Handwritten
from .missteps import is_upstream
from .notation import Derivation, Network
from .verdicts import verification


def verify(
    function: Any,
    network: Derivation | Network | str | Path | Mapping[str, Any],
    wrt: Sequence[str] = (),
    *,
    arguments: Sequence[str] = (),
    constants: Mapping[str, Any] | None = None,
    sizes: Mapping[str, int] | None = None,
    dtype: str = "float64",
    device: str = "cpu",
    rtol: float | None = None,
) -> Verification:
    """Compare a hand-written backward pass with the derived one.

    `function` is a NumPy function, a `torch.autograd.Function`, a torch module, a JAX `custom_vjp`, or a function around one;
    `network` anything that `derive` takes, or a formula such as "x*sigmoid(x)" whose inputs are the names in it. Parameters are
    arrays by name (`x`, `W1`, `a1` for stored values, `dz2`, and `dout` for what comes from above a formula; `params`, `X`, `Y`),
    or in the order of `arguments`; results are a dict by name or a tuple in the order of `wrt` (all parameters by default, or the
    formula's inputs), with the loss before them or second derivatives behind them. Without what comes from above, a formula's
    results are its Jacobian. `constants` are numbers by name, for the formula and for the function; `sizes` the sizes of letters;
    `rtol` how far values may be apart, as a share of the largest. Raises `DataError` for what is not understood.
    """
    if dtype not in TYPES:
        raise DataError(f"'{dtype}' is no type for verify; known: {', '.join(TYPES)}")
    numbers = {n: v for n, v in (constants or {}).items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    outputs: tuple[str, ...] = ()
    upstream: Mapping[str, str] = {}
    if isinstance(network, str) and is_formula(network):
        formula = formula_network(network, numbers, sizes or {})
        if (own := sizes_of_module(function, formula.network)) and not sizes:
            formula = formula_network(network, numbers, own)
        network, outputs, upstream = formula.network, formula.outputs, formula.upstream
    elif sizes:
        raise DataError("sizes= is for formulas; a network declares its sizes itself")
    derivation = Checker(network).subject.derivation
    wanted = _wanted(derivation, tuple(wrt), bool(upstream))
    setting = Setting(wanted, bool(wrt), tuple(arguments), constants or {}, dtype, device, outputs, upstream)
    if TYPES[dtype][0] < 20 and rtol is None:
        # What is wrong shows itself better in numbers of more digits, where the code takes them.
        try:
            finer = verification(Handwritten(function, derivation, replace(setting, dtype="float32"), rtol))
        except DataError:
            finer = None
        if finer is not None and not finer:
            return finer
    return verification(Handwritten(function, derivation, setting, rtol))


def assert_formula(network: Derivation | Network | str | Path | Mapping[str, Any], claim: str, notation: str = "") -> None:
    """For tests: raise `AssertionError`, with what is wrong, unless a claim about a network holds."""
    verdict = Checker(network).check(claim, notation)
    if verdict.verdict not in ("proved", "agrees"):
        raise AssertionError(str(verdict))


def _wanted(derivation: Derivation, wrt: tuple[str, ...], formula: bool) -> tuple[str, ...]:
    network = derivation.network
    if not wrt:
        role = "input" if formula else "parameter"
        wrt = tuple(
            a.name for a in network.arrays if a.role == role and not is_upstream(a.name) and a.name in derivation.adjoints
        )
        if not wrt:
            raise DataError("the network has no parameters; say with wrt= by which arrays the function differentiates")
    aliases = dict(network.aliases)
    wrt = tuple(aliases.get(n, n) for n in wrt)
    for n in wrt:
        if n not in derivation.adjoints:
            raise DataError(f"there is no array '{n}' to differentiate by{suggest(n, derivation.adjoints)}")
    return wrt


__all__ = ["Finding", "Verification", "assert_formula", "verify"]
