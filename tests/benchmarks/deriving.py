"""How long deriving takes and how long the source gets, against depth, beside peers that differentiate a graph."""

import sys
import time

from symbackprop import declare, derive, emit

from .measure import interleaved, ratios, table


def chain(depth, width=8):
    return f"{width} -> " + " -> ".join([f"dense({width}, sigmoid)"] * depth) + " -> half_squared_error"


def fresh(chain_text, emitting=True):
    """Everything anew: what SymPy and this package remember is forgotten first."""
    from sympy.core.cache import clear_cache

    import symbackprop

    clear_cache()
    for name, module in list(sys.modules.items()):
        if name.startswith(symbackprop.__name__):
            for value in vars(module).values():
                if hasattr(value, "cache_clear") and value.__module__ == name and value.__name__ != "catalogue_functions":
                    value.cache_clear()
    derivation = derive(declare(chain_text))
    return emit(derivation) if emitting else derivation


def jax_trace(depth, width=8):
    import jax
    import jax.numpy as jnp

    params = [(jnp.ones((width, width)), jnp.ones(width)) for _ in range(depth)]
    x = jnp.ones((4, width))

    def loss(params, x, y):
        for w, b in params:
            x = jax.nn.sigmoid(x @ w + b)
        return ((x - y) ** 2).sum() / 8

    return lambda: jax.make_jaxpr(jax.grad(loss))(params, x, x)


def main(options):
    depths = [2] if options.short else [2, 4, 8, 16, 32, 64]
    rows = []
    for depth in depths:
        contenders = {"ours": lambda depth=depth: fresh(chain(depth))}
        if not options.short:
            contenders["JAX trace"] = jax_trace(depth)
        found = interleaved(contenders, 1 if options.short else 5, 0.01)
        own = ratios(found, "ours")
        start = time.perf_counter()
        source = emit(chain(depth))
        rows.append(
            (depth, f"{sorted(found['ours'])[len(found['ours']) // 2]:.2f}", f"{own.get('JAX trace', 0):.3f}", len(source))
        )
        print(
            f"depth {depth:4}: derived and emitted in {rows[-1][1]} s, {len(source)} characters ({time.perf_counter() - start:.2f} s)",
            flush=True,
        )
    if options.output:
        header = ["layers", "seconds, derived and emitted", "JAX trace over ours", "characters of source"]
        (options.output / "deriving.md").write_text(table(header, rows), encoding="utf-8")
    return 0
