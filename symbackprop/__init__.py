"""Back-propagation derived symbolically, explained step by step, and emitted as one readable NumPy file.

    from symbackprop import check, declare, derive, emit, explain

    network = declare("64 -> dense(32, relu) -> dense(10, softmax) -> cross_entropy")
    derivation = derive(network)
    print(explain(derivation, format="text", form="matrix"))
    source = emit(derivation)
    print(check(derivation, "dL/dz2[n,k] = (p[n,k] - y[n,k])/N"))

The verbs are imported when they are first used, so that `symbackprop --help` does not wait for SymPy.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .errors import (
    DataError,
    EmitError,
    FileError,
    FormulaError,
    NetworkError,
    SymbackpropError,
)

if TYPE_CHECKING:
    from .check import Checker, Verdict, check
    from .declare import declare
    from .derive import derive
    from .emit import emit
    from .explain import explain
    from .notation import Derivation, Network
    from .second import gauss_newton_product, hessian_diagonal, hessian_product, jacobian, vector_jacobian
    from .verify import Verification, assert_formula, verify

__version__ = "0.1.0"
__all__ = [
    "Checker",
    "DataError",
    "Derivation",
    "EmitError",
    "FileError",
    "FormulaError",
    "Network",
    "NetworkError",
    "SymbackpropError",
    "Verdict",
    "Verification",
    "assert_formula",
    "check",
    "declare",
    "derive",
    "emit",
    "explain",
    "gauss_newton_product",
    "hessian_diagonal",
    "hessian_product",
    "jacobian",
    "vector_jacobian",
    "verify",
]

_VERBS = ("check", "declare", "derive", "emit", "explain", "verify")
_SECOND = ("gauss_newton_product", "hessian_diagonal", "hessian_product", "jacobian", "vector_jacobian")
_HOMES = {
    **{verb: verb for verb in _VERBS},
    **dict.fromkeys(_SECOND, "second"),
    "Network": "notation",
    "Derivation": "notation",
    "Verdict": "check",
    "Checker": "check",
    "Verification": "verify",
    "assert_formula": "verify",
}


class _Package(ModuleType):
    """The public verbs are functions, and the modules that hold them have the same names.

    Python binds a module to its package when it is imported; here the verb is bound instead, in whatever order
    things are imported.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _VERBS and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        if "IPython" in sys.modules:
            importlib.import_module(".explain", __name__)
            importlib.import_module(".report", __name__)  # a notebook shows what the verbs return
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


sys.modules[__name__].__class__ = _Package
