"""How long deriving takes and how long the source gets, against depth, beside peers that differentiate a graph."""

import sys

from symbackprop import emit

from .measure import interleaved, ratios, table

NAMED = ["xor", "lenet", "char_lstm", "tiny_transformer"]


def chain(depth, width=8):
    return f"{width} -> " + " -> ".join([f"dense({width}, sigmoid)"] * depth) + " -> half_squared_error"


def fresh_emit(chain_text):
    """A module, with everything worked out anew: what SymPy and this package remember is forgotten first."""
    from sympy.core.cache import clear_cache

    import symbackprop

    clear_cache()
    for name, module in list(sys.modules.items()):
        if name.startswith(symbackprop.__name__):
            for value in vars(module).values():
                if hasattr(value, "cache_clear") and value.__module__ == name and value.__name__ != "catalogue_functions":
                    value.cache_clear()
    return emit(chain_text)


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


def measured(depth, width, rounds, peers=True):
    """Seconds of ours, the peers' times over ours, characters and weights."""
    contenders = {"ours": lambda: fresh_emit(chain(depth, width))}
    if peers:
        contenders["JAX trace"] = jax_trace(depth, width)
    found = interleaved(contenders, rounds, 0.01)
    # What else the machine does only ever adds to a time.
    return min(found["ours"]), ratios(found, "ours").get("JAX trace"), len(emit(chain(depth, width))), depth * width * (width + 1)


def main(options):
    depths = [2] if options.short else [2, 4, 8, 16, 32, 64, 256, 1000]
    widths = [] if options.short else [8, 32, 128, 512]
    rows = []
    for depth, width in [*((d, 8) for d in depths), *((8, w) for w in widths if w != 8)]:
        seconds, jax, characters, weights = measured(depth, width, 1 if options.short else 5, not options.short and depth <= 64)
        rows.append((depth, width, weights, seconds, jax, characters))
        print(f"depth {depth:4} width {width:4}: {seconds:.2f} s, {characters} characters", flush=True)
    named = {n: min(interleaved({n: lambda n=n: fresh_emit(n)}, 1 if options.short else 5, 0.01)[n]) for n in NAMED}
    print("  ".join(f"{n}: {seconds:.2f} s" for n, seconds in named.items()))
    if options.output:
        header = ["layers", "width", "weights", "seconds, derived and emitted", "JAX trace over ours", "characters of source"]
        body = [(d, w, n, f"{s:.2f}", f"{j:.3f}" if j else "-", c) for d, w, n, s, j, c in rows]
        bundled = table(["network", "seconds, derived and emitted"], [(n, f"{s:.2f}") for n, s in named.items()])
        (options.output / "deriving.md").write_text(f"{table(header, body)}\n{bundled}", encoding="utf-8")
        picture(rows, options.output / "deriving.svg")
    return 0


def picture(rows, path):
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6))
    deep = [r for r in rows if r[1] == 8]
    wide = sorted((r for r in rows if r[0] == 8), key=lambda r: r[1])
    axes[0].loglog([r[0] for r in deep], [r[3] for r in deep], "o-", label="ours: derived and emitted")
    traced = [r for r in deep if r[4]]
    axes[0].loglog([r[0] for r in traced], [r[3] * r[4] for r in traced], "s-", label="JAX: gradient traced")
    axes[0].set_xlabel("layers (width 8)")
    axes[0].set_ylabel("seconds")
    axes[0].legend(fontsize=8)
    axes[1].loglog([r[0] for r in deep], [r[5] for r in deep], "o-")
    axes[1].set_xlabel("layers (width 8)")
    axes[1].set_ylabel("characters of source")
    axes[1].set_ylim(1e4, 1e6)
    axes[2].loglog([r[2] for r in wide], [r[3] for r in wide], "o-", label="8 layers, wider and wider")
    axes[2].set_xlabel("weights")
    axes[2].set_ylabel("seconds")
    axes[2].set_ylim(0.05, 5)
    axes[2].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
