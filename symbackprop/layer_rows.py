"""The layers of the catalogue, as forward formulas and nothing else; `catalogue.Layer` says what a row holds.

    dense    z[o] = sum(i, x[i]*W[i,o]) + b[o]

No row holds a derivative, and no layer has code of its own anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from .catalogue import Layer

# How many places a window has on an axis: {1} places, windows of {2}; and the other way round for a transposed convolution.
_CONVOLVED = "floor(({1} + 2*padding{0} - dilation{0}*({2} - 1) - 1)/stride{0}) + 1"
_POOLED = "floor(({1} + 2*padding{0} - {2})/stride{0}) + 1"
_SPREAD = "({1} - 1)*stride{0} - 2*padding{0} + dilation{0}*({2} - 1) + 1"

_POOLING = {
    "maxpool": "As PyTorch: places beyond the image do not take part; of equal values the first wins, row by row.",
    "avgpool": "As PyTorch with count_include_pad=True: zeros beyond the image count.",
}

_STEPS = {"stride": "1", "padding": "0", "dilation": "1"}


@dataclass(frozen=True)
class _Axes:
    """The letters of a layer with windows over one axis or two, and where in the image a place of a window lies."""

    places: str
    image: str
    kernel: str

    def _each(self, formula: str, joint: str = ", ") -> str:
        letters = zip(self.places.split(","), self.kernel.split(","), strict=True)
        return joint.join(formula.format(k, place, at) for k, (place, at) in enumerate(letters, 1))

    @property
    def window(self) -> str:
        return self._each("{2}")

    @property
    def reach(self) -> str:
        return self._each("stride{0}*{1} + dilation{0}*{2} - padding{0}")

    @property
    def pooled(self) -> str:
        return self._each("stride{0}*{1} + {2} - padding{0}")

    @property
    def origin(self) -> str:
        return self._each("({1} + padding{0} - dilation{0}*{2})/stride{0}")

    def sizes(self, formula: str) -> dict[str, str]:
        """How many places there are along each axis."""
        letters = zip(self.places.split(","), self.image.upper().split(","), self.kernel.upper().split(","), strict=True)
        return {place: formula.format(k, whole, window) for k, (place, whole, window) in enumerate(letters, 1)}


_AXES = (_Axes("i", "u", "p"), _Axes("i,j", "u,v", "p,q"))

# Where several rows have one name, the one that takes most of the axes at hand is meant.
LAYERS: tuple[Layer, ...] = (
    Layer(
        "dense",
        ("z[o] = sum(i, x[i]*W[i,o]) + b[o]",),
        parameters=("W[i,o]", "b[o]"),
        arguments={"units": "o"},
        optional={"bias": "b"},
        starts={"b": "zeros"},
    ),
    *(
        Layer(
            "conv",
            (f"z[{a.places},o] = sum({a.window}, c, pad(x[{a.reach}, c])*W[{a.kernel},c,o]) + b[o]",),
            inputs=f"x[{a.image},c]",
            parameters=(f"W[{a.kernel},c,o]", "b[o]"),
            arguments={"channels": "o", "kernel": a.kernel},
            options=_STEPS,
            sizes=a.sizes(_CONVOLVED),
            optional={"bias": "b"},
            starts={"b": "zeros"},
        )
        for a in _AXES
    ),
    *(
        Layer(
            "conv",
            (
                f"s[{a.places},g,o] = sum({a.window}, m, pad(x[{a.reach}, M*g + m])*W[{a.kernel},m,g,o])",
                f"z[{a.places},f] = s[{a.places},floor(f/O),mod(f,O)] + b[f]",
            ),
            variant="groups",
            inputs=f"x[{a.image},c]",
            parameters=(f"W[{a.kernel},m,g,o]", "b[f]"),
            fans={"W": (f"{a.kernel.replace(',', '')}m", "o")},
            arguments={"channels": "f", "kernel": a.kernel},
            options=_STEPS | {"groups": "1"},
            sizes=a.sizes(_CONVOLVED) | {"g": "groups", "m": "C/groups", "o": "F/groups"},
            optional={"bias": "b"},
            starts={"b": "zeros"},
        )
        for a in _AXES
    ),
    *(
        Layer(
            "depthwise",
            (f"z[{a.places},c] = sum({a.window}, pad(x[{a.reach}, c])*W[{a.kernel},c]) + b[c]",),
            inputs=f"x[{a.image},c]",
            parameters=(f"W[{a.kernel},c]", "b[c]"),
            arguments={"kernel": a.kernel},
            options=_STEPS,
            sizes=a.sizes(_CONVOLVED),
            optional={"bias": "b"},
            starts={"b": "zeros"},
        )
        for a in _AXES
    ),
    *(
        Layer(
            "conv_transpose",
            (f"z[{a.places},o] = sum({a.window}, c, pad(x[{a.origin}, c])*W[{a.kernel},c,o]) + b[o]",),
            inputs=f"x[{a.image},c]",
            parameters=(f"W[{a.kernel},c,o]", "b[o]"),
            arguments={"channels": "o", "kernel": a.kernel},
            options=_STEPS,
            sizes=a.sizes(_SPREAD),
            optional={"bias": "b"},
            starts={"b": "zeros"},
        )
        for a in _AXES
    ),
    *(
        Layer(
            name,
            (f"y[{a.places},c] = {reduction}({a.window}, pad(x[{a.pooled}, c]))",),
            inputs=f"x[{a.image},c]",
            arguments={"kernel": a.kernel},
            options={"stride": "kernel", "padding": "0"},
            sizes=a.sizes(_POOLED),
            notes=_POOLING[name],
        )
        for name, reduction in (("maxpool", "max"), ("avgpool", "mean"))
        for a in _AXES
    ),
    *(
        layer
        for name, reduction in (("global_maxpool", "max"), ("global_avgpool", "mean"))
        for layer in (
            Layer(name, (f"y[c] = {reduction}(u, x[u,c])",), inputs="x[u,c]"),
            Layer(name, (f"y[c] = {reduction}(u, v, x[u,v,c])",), inputs="x[u,v,c]"),
        )
    ),
    Layer("flatten", ("y[f] = x[floor(f/C),mod(f,C)]",), inputs="x[u,c]", sizes={"f": "U*C"}),
    Layer(
        "flatten",
        ("y[f] = x[floor(floor(f/C)/V),mod(floor(f/C),V),mod(f,C)]",),
        inputs="x[u,v,c]",
        sizes={"f": "U*V*C"},
    ),
    Layer(
        "reshape",
        ("y[t,c] = x[C*t + c]",),
        inputs="x[f]",
        arguments={"shape": "t,c"},
        sizes={"f": "T*C"},
        notes="From any other shape through `flatten`.",
    ),
    Layer("reshape", ("y[i,j,c] = x[J*C*i + C*j + c]",), inputs="x[f]", arguments={"shape": "i,j,c"}, sizes={"f": "I*J*C"}),
    Layer(
        "batch_norm",
        (
            "mu[c] = mean(batch, x[c])",
            "d[c] = x[c] - mu[c]",
            "v[c] = mean(batch, d[c]^2)",
            "r[c] = 1/sqrt(v[c] + epsilon)",
            "h[c] = d[c]*r[c]",
            "y[c] = g[c]*h[c] + b[c]",
        ),
        inputs="x[c]",
        parameters=("g[c]", "b[c]"),
        options={"epsilon": "1e-5", "momentum": "0.1"},
        whole=("mu", "v", "r"),
        averages={"mu": 0, "v": 1},
        starts={"g": "ones", "b": "zeros"},
        source="Ioffe, Szegedy 2015",
        notes=(
            "As PyTorch: epsilon 1e-5, biased variance in the normalisation, running averages with share 0.1 of the "
            "newest batch for predictions. Unlike PyTorch, the running variance averages the biased variance of each "
            "batch (PyTorch and the paper: the unbiased one)."
        ),
    ),
    Layer(
        "layer_norm",
        (
            "mu = mean(c, x[c])",
            "d[c] = x[c] - mu",
            "v = mean(c, d[c]^2)",
            "r = 1/sqrt(v + epsilon)",
            "h[c] = d[c]*r",
            "y[c] = g[c]*h[c] + b[c]",
        ),
        inputs="x[c]",
        parameters=("g[c]", "b[c]"),
        options={"epsilon": "1e-5"},
        starts={"g": "ones", "b": "zeros"},
        source="Ba, Kiros, Hinton 2016",
        notes="As PyTorch: over the last axis, epsilon 1e-5, biased variance.",
    ),
    Layer(
        "rms_norm",
        ("v = mean(c, x[c]^2)", "r = 1/sqrt(v + epsilon)", "h[c] = x[c]*r", "y[c] = g[c]*h[c]"),
        inputs="x[c]",
        parameters=("g[c]",),
        options={"epsilon": "1e-5"},
        starts={"g": "ones"},
        source="Zhang, Sennrich 2019",
        notes="As PyTorch with eps=1e-5; PyTorch's default is the precision of the number type.",
    ),
    *(
        Layer(
            "group_norm",
            (
                f"s[{place}g,m] = x[{place}M*g + m]",
                f"mu[g] = mean({over}m, s[{place}g,m])",
                f"d[{place}g,m] = s[{place}g,m] - mu[g]",
                f"v[g] = mean({over}m, d[{place}g,m]^2)",
                "r[g] = 1/sqrt(v[g] + epsilon)",
                f"h[{place}g,m] = d[{place}g,m]*r[g]",
                f"y[{place}c] = k[c]*h[{place}floor(c/M),mod(c,M)] + b[c]",
            ),
            inputs=f"x[{place}c]",
            parameters=("k[c]", "b[c]"),
            options={"groups": "", "epsilon": "1e-5"},
            sizes={"g": "groups", "m": "C/groups"},
            starts={"k": "ones", "b": "zeros"},
            source="Wu, He 2018",
        )
        for place, over in (("", ""), ("i,", "i, "), ("i,j,", "i, j, "))
    ),
    Layer(
        "dropout",
        ("y[c] = m[c]*x[c]",),
        inputs="x[c]",
        options={"rate": ""},
        noise={"m": "bernoulli"},
        source="Srivastava et al. 2014",
        notes="As PyTorch: what is kept is divided by its probability; predictions and `loss` use the value at rest, 1.",
    ),
    Layer(
        "embedding",
        ("y[e] = E[x,e]",),
        inputs="x",
        parameters=("E[v,e]",),
        arguments={"rows": "v", "width": "e"},
        starts={"E": "standard_normal"},
        notes="As PyTorch: rows start normal with deviation 1; no padding row.",
    ),
    Layer(
        "bilinear",
        ("z[o] = sum(i, j, x[i]*W[i,j,o]*x[j]) + b[o]",),
        inputs="x[i]",
        parameters=("W[i,j,o]", "b[o]"),
        arguments={"units": "o"},
        sizes={"j": "I"},
        optional={"bias": "b"},
        starts={"b": "zeros"},
    ),
    Layer(
        "rnn",
        ("z[t,o] = sum(i, x[t,i]*W[i,o]) + sum(j, h[t-1,j]*U[j,o]) + b[o]", "h[t,o] = activation(z[t,o])"),
        inputs="x[t,i]",
        parameters=("W[i,o]", "U[j,o]", "b[o]"),
        arguments={"units": "o"},
        sizes={"j": "O"},
        activation="tanh",
        state=("h",),
        starts={"b": "zeros"},
        source="Elman 1990",
        notes=(
            "PyTorch has two biases, whose sum is b. The state before the first step is zero. `mask=true` takes a "
            "second input `mask[n,t]`: where it is 0 the state stays. `truncate=8` stops derivatives every 8 steps."
        ),
    ),
    Layer(
        "lstm",
        (
            "z[t,q,u] = sum(d, x[t,d]*W[d,q,u]) + sum(j, h[t-1,j]*U[j,q,u]) + b[q,u]",
            "i[t,u] = sigmoid(z[t,0,u])",
            "f[t,u] = sigmoid(z[t,1,u])",
            "g[t,u] = tanh(z[t,2,u])",
            "o[t,u] = sigmoid(z[t,3,u])",
            "c[t,u] = f[t,u]*c[t-1,u] + i[t,u]*g[t,u]",
            "h[t,u] = o[t,u]*tanh(c[t,u])",
        ),
        inputs="x[t,d]",
        parameters=("W[d,q,u]", "U[j,q,u]", "b[q,u]"),
        fans={"W": ("d", "u"), "U": ("j", "u")},
        arguments={"units": "u"},
        sizes={"j": "U", "q": "4"},
        state=("h", "c"),
        starts={"b": "zeros"},
        source="Hochreiter, Schmidhuber 1997; Gers, Schmidhuber, Cummins 2000; gates in the order input, forget, cell, output",
        notes=(
            "PyTorch has two biases, whose sum is b; its weights hold the gates one below the other, transposed. Mask "
            "and truncation as for `rnn`."
        ),
    ),
    Layer(
        "gru",
        (
            "s[t,q,u] = sum(d, x[t,d]*W[d,q,u]) + b[q,u]",
            "w[t,q,u] = sum(j, h[t-1,j]*U[j,q,u]) + c[q,u]",
            "r[t,u] = sigmoid(s[t,0,u] + w[t,0,u])",
            "z[t,u] = sigmoid(s[t,1,u] + w[t,1,u])",
            "g[t,u] = tanh(s[t,2,u] + r[t,u]*w[t,2,u])",
            "h[t,u] = (1 - z[t,u])*g[t,u] + z[t,u]*h[t-1,u]",
        ),
        inputs="x[t,d]",
        parameters=("W[d,q,u]", "U[j,q,u]", "b[q,u]", "c[q,u]"),
        fans={"W": ("d", "u"), "U": ("j", "u")},
        arguments={"units": "u"},
        sizes={"j": "U", "q": "3"},
        state=("h",),
        starts={"b": "zeros", "c": "zeros"},
        source="Cho et al. 2014; gates in the order reset, update, candidate",
        notes=(
            "As PyTorch, the reset gate acts after the product with U (b and c are PyTorch's two biases). Mask and "
            "truncation as for `rnn`."
        ),
    ),
    Layer("last", ("y[c] = x[T - 1,c]",), inputs="x[t,c]"),
    Layer(
        "attention",
        (
            "q[t,h,e] = sum(i, x[t,i]*Wq[i,h,e]) + bq[h,e]",
            "k[t,h,e] = sum(i, x[t,i]*Wk[i,h,e]) + bk[h,e]",
            "v[t,h,e] = sum(i, x[t,i]*Wv[i,h,e]) + bv[h,e]",
            "r[h,t,s] = sum(e, q[t,h,e]*k[s,h,e])/sqrt(E)",
            "m[h,t,s] = where(allowed, r[h,t,s], -1e30)",
            "Z[h,t] = sum(s, exp(m[h,t,s]))",
            "P[h,t,s] = exp(m[h,t,s])/Z[h,t]",
            "a[t,h,e] = sum(s, P[h,t,s]*v[s,h,e])",
            "y[t,o] = sum(h, e, a[t,h,e]*Wo[h,e,o]) + bo[o]",
        ),
        inputs="x[t,i]",
        parameters=("Wq[i,h,e]", "Wk[i,h,e]", "Wv[i,h,e]", "Wo[h,e,o]", "bq[h,e]", "bk[h,e]", "bv[h,e]", "bo[o]"),
        fans={"Wq": ("i", "he"), "Wk": ("i", "he"), "Wv": ("i", "he"), "Wo": ("he", "o")},
        options={"heads": ""},
        sizes={"h": "heads", "e": "I/heads", "s": "T", "o": "I"},
        conditions={"causal": "s <= t", "mask": "mask[s] > 0"},
        optional={"bias": "bq bk bv bo"},
        starts={"bq": "zeros", "bk": "zeros", "bv": "zeros", "bo": "zeros"},
        source="Vaswani et al. 2017",
        notes=(
            "As PyTorch's MultiheadAttention on one sequence, batch first. `causal=true` lets a place see itself and "
            "earlier ones; `mask=true` takes an input `mask[n,t]` that is 1 where there is something. Masked scores "
            "are -1e30, so that a row that sees nothing is uniform (PyTorch: not a number)."
        ),
    ),
    Layer(
        "dot_product_attention",
        (
            "r[t,s] = sum(e, x[t,e]*x[s,e])/sqrt(E)",
            "m[t,s] = where(allowed, r[t,s], -1e30)",
            "Z[t] = sum(s, exp(m[t,s]))",
            "P[t,s] = exp(m[t,s])/Z[t]",
            "y[t,e] = sum(s, P[t,s]*x[s,e])",
        ),
        inputs="x[t,e]",
        sizes={"s": "T"},
        conditions={"causal": "s <= t", "mask": "mask[s] > 0"},
        source="Vaswani et al. 2017, without projections",
    ),
    Layer(
        "positions",
        ("y[t,c] = x[t,c] + where(mod(c, 2) == 0, sin(t*10000^(-c/C)), cos(t*10000^(-(c - 1)/C)))",),
        inputs="x[t,c]",
        source="Vaswani et al. 2017",
    ),
    Layer(
        "learned_positions",
        ("y[t,c] = x[t,c] + pad(P[t,c])",),
        inputs="x[t,c]",
        parameters=("P[r,c]",),
        arguments={"rows": "r"},
        starts={"P": "normal"},
    ),
    Layer(
        "glu",
        ("y[o] = pad(x[o])*sigmoid(x[o + O])",),
        inputs="x[c]",
        sizes={"o": "C/2"},
        source="Dauphin, Fan, Auli, Grangier 2017",
    ),
    Layer(
        "swiglu",
        ("z[o] = sum(i, x[i]*W[i,o]) + b[o]", "u[o] = sum(i, x[i]*V[i,o]) + c[o]", "y[o] = silu(z[o])*u[o]"),
        inputs="x[i]",
        parameters=("W[i,o]", "V[i,o]", "b[o]", "c[o]"),
        arguments={"units": "o"},
        optional={"bias": "b c"},
        starts={"b": "zeros", "c": "zeros"},
        source="Shazeer 2020",
    ),
    Layer(
        "mixture",
        (
            "s[e] = sum(i, x[i]*V[i,e]) + c[e]",
            "Z = sum(e, exp(s[e]))",
            "P[e] = exp(s[e])/Z",
            "u[e,o] = sum(i, x[i]*W[e,i,o]) + b[e,o]",
            "y[o] = sum(e, P[e]*u[e,o])",
        ),
        inputs="x[i]",
        parameters=("W[e,i,o]", "b[e,o]", "V[i,e]", "c[e]"),
        fans={"W": ("i", "o")},
        arguments={"units": "o", "experts": "e"},
        starts={"b": "zeros", "c": "zeros"},
        source="Jacobs, Jordan, Nowlan, Hinton 1991",
    ),
)


def layers_named(name: str) -> list[Layer]:
    """The rows of a layer, the one that takes the most axes first."""
    return sorted((row for row in LAYERS if row.name == name), key=lambda row: -row.inputs.count(","))


LAYER_NAMES: tuple[str, ...] = tuple(dict.fromkeys(row.name for row in LAYERS))
