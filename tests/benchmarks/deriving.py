"""How long deriving takes and how long the source gets, against depth, beside peers that differentiate a graph."""

import sys

from symbackprop import emit

from .measure import interleaved, table

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


def casadi_gradient(depth, width=8):
    import casadi

    def run():
        x, y = casadi.MX.sym("x", 4, width), casadi.MX.sym("y", 4, width)
        a, params = x, []
        for _ in range(depth):
            w, b = casadi.MX.sym("w", width, width), casadi.MX.sym("b", 1, width)
            a = 1 / (1 + casadi.exp(-(a @ w + casadi.repmat(b, 4, 1))))
            params += [w, b]
        loss = casadi.sumsqr(a - y) / 8
        return casadi.Function("gradients", [x, y, *params], [casadi.gradient(loss, p) for p in params])

    return run


def pytensor_gradient(depth, width=8):
    import pytensor
    import pytensor.tensor as pt

    def run():
        x, y = pt.matrix("x"), pt.matrix("y")
        a, params = x, []
        for _ in range(depth):
            w, b = pt.matrix("w"), pt.vector("b")
            a = pt.sigmoid(a @ w + b)
            params += [w, b]
        return pytensor.grad(((a - y) ** 2).sum() / 8, params)

    return run


PEERS = {"JAX: traced": jax_trace, "PyTensor: not rewritten": pytensor_gradient, "CasADi": casadi_gradient}


def measured(depth, width, rounds, peers=True):
    """The least seconds of ours and of each peer, characters and weights."""
    contenders = {"ours": lambda: fresh_emit(chain(depth, width))}
    if peers:
        contenders |= {name: peer(depth, width) for name, peer in PEERS.items()}
    # What else the machine does only ever adds to a time.
    least = {name: min(times) for name, times in interleaved(contenders, rounds, 0.01).items()}
    return least, len(emit(chain(depth, width))), depth * width * (width + 1)


def main(options):
    depths = [2] if options.short else [2, 4, 8, 16, 32, 64, 256, 1000]
    widths = [] if options.short else [8, 32, 128, 512]
    rows = []
    for depth, width in [*((d, 8) for d in depths), *((8, w) for w in widths if w != 8)]:
        least, characters, weights = measured(depth, width, 1 if options.short else 5, not options.short and depth <= 64)
        rows.append((depth, width, weights, least, characters))
        print(f"depth {depth:4} width {width:4}: {least['ours']:.2f} s, {characters} characters", flush=True)
    named = {
        n: min(interleaved({n: lambda n=n: fresh_emit(n)}, 1 if options.short else 5, 0.01)[n])
        for n in NAMED[: 1 if options.short else None]
    }
    print("  ".join(f"{n}: {seconds:.2f} s" for n, seconds in named.items()))
    if options.output:
        header = ["layers", "width", "weights", "derived and emitted, s", *(f"{p}, s" for p in PEERS), "characters of source"]
        body = [
            (d, w, n, f"{least['ours']:.2f}", *(f"{least[p]:.3f}" if p in least else "-" for p in PEERS), c)
            for d, w, n, least, c in rows
        ]
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
    axes[0].loglog([r[0] for r in deep], [r[3]["ours"] for r in deep], "o-", label="ours: derived and emitted")
    for peer in PEERS:
        known = [r for r in deep if peer in r[3]]
        axes[0].loglog([r[0] for r in known], [r[3][peer] for r in known], "s-", label=peer)
    axes[0].set_xlabel("layers (width 8)")
    axes[0].set_ylabel("seconds")
    axes[0].legend(fontsize=8)
    axes[1].loglog([r[0] for r in deep], [r[4] for r in deep], "o-")
    axes[1].set_xlabel("layers (width 8)")
    axes[1].set_ylabel("characters of source")
    axes[1].set_ylim(1e4, 1e6)
    axes[2].loglog([r[2] for r in wide], [r[3]["ours"] for r in wide], "o-", label="8 layers, wider and wider")
    axes[2].set_xlabel("weights")
    axes[2].set_ylabel("seconds")
    axes[2].set_ylim(0.05, 5)
    axes[2].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
