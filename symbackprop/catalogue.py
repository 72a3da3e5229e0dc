"""What the library knows by name, as forward formulas and nothing else: activations, losses, initialisers, optimisers, schedules.

Formulas are in the text notation of `parse` and are written for one example: axes that come before (the batch, later
time) are implied. No table holds a derivative; `derive` finds them all from these lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal


@dataclass(frozen=True)
class Activation:
    """An activation: element-wise as a `formula` in `z`, or as `equations` from `z[k]` to `a[k]` over the last axis.

    `initialiser` names the usual start of the weights before it; `latex` its usual symbol; `constants` the defaults
    of the other letters in the formula.
    """

    name: str
    formula: str = ""
    equations: tuple[str, ...] = ()
    constants: Mapping[str, str] = field(default_factory=dict[str, str])
    initialiser: str = "glorot_uniform"
    latex: str = ""
    source: str = ""


@dataclass(frozen=True)
class Layer:
    """A layer for one example: `equations` from `x` to the last target, and its parameters as text, such as `W[i,o]`.

    `inputs` names the axes that `x` has here; axes before them are implied. `arguments` are, in order, the letters whose sizes
    the user gives (`units` is the size of `o`, a kernel `3x3` that of `p,q`), `options` numbers with defaults (none where
    it must be given; `stride` is `stride1` along the first axis), `sizes` those that follow. A parameter listed in
    `optional` can be left out by that flag: the terms that it occurs in go with it. `starts` names initialisers (a parameter
    without one starts as the activation after it asks), `fans` the letters that count as fan-in and fan-out. `whole` arrays
    are computed once for all examples, over the letter `batch`; `averages` run on for predictions. `conditions` are flags
    that let through only some places (`allowed`); `state` arrays are kept where a mask is 0; `noise` is drawn anew each step.
    `notes` say how the layer compares with PyTorch's.
    """

    name: str
    equations: tuple[str, ...]
    parameters: tuple[str, ...] = ()
    arguments: Mapping[str, str] = field(default_factory=dict[str, str])
    optional: Mapping[str, str] = field(default_factory=dict[str, str])
    starts: Mapping[str, str] = field(default_factory=dict[str, str])
    inputs: str = "x[i]"
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    sizes: Mapping[str, str] = field(default_factory=dict[str, str])
    fans: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, "tuple[str, str]"])
    variant: str = ""
    activation: str = ""
    whole: tuple[str, ...] = ()
    averages: Mapping[str, float] = field(default_factory=dict[str, float])
    conditions: Mapping[str, str] = field(default_factory=dict[str, str])
    state: tuple[str, ...] = ()
    noise: Mapping[str, str] = field(default_factory=dict[str, str])
    source: str = ""
    notes: str = ""


@dataclass(frozen=True)
class Loss:
    """A loss for one example, from the prediction (`p`, or `z` where it takes logits) and the target `y`.

    A `formula` without indices is summed over the outputs. `equations` end in the value of one example. `facts` are
    assumed of the target and checked by emitted modules; `labels` says which values the target takes.
    """

    name: str
    formula: str = ""
    equations: tuple[str, ...] = ()
    takes: Literal["p", "z"] = "p"
    constants: Mapping[str, str] = field(default_factory=dict[str, str])
    facts: tuple[str, ...] = ()
    labels: Literal["real", "one-hot", "zero-one", "signed", "count"] = "real"
    source: str = ""


@dataclass(frozen=True)
class Initialiser:
    """How weights start: the distribution and its half-width or standard deviation from fan-in and fan-out."""

    name: str
    distribution: Literal["uniform", "normal", "constant"]
    scale: str
    source: str = ""


@dataclass(frozen=True)
class Optimiser:
    """An update rule: equations for the weight `w`, its gradient `g`, the rate `eta`, the step count `t` and the state."""

    name: str
    equations: tuple[str, ...]
    state: tuple[str, ...] = ()
    constants: Mapping[str, str] = field(default_factory=dict[str, str])
    learning_rate: str = "0.1"
    source: str = ""


@dataclass(frozen=True)
class Schedule:
    """A learning rate from the first one `eta_0`, the number of updates done `t` and constants."""

    name: str
    formula: str
    constants: Mapping[str, str] = field(default_factory=dict[str, str])
    source: str = ""


_HE = "he_normal"

ACTIVATIONS: Mapping[str, Activation] = {
    row.name: row
    for row in (
        Activation("identity", "z", latex=r"\mathrm{id}"),
        Activation("sigmoid", "1/(1 + exp(-z))", latex=r"\sigma"),
        Activation("tanh", "tanh(z)", latex=r"\tanh"),
        Activation("relu", "where(z > 0, z, 0)", initialiser=_HE, latex=r"\mathrm{ReLU}"),
        Activation(
            "leaky_relu",
            "where(z > 0, z, alpha*z)",
            constants={"alpha": "0.01"},
            initialiser=_HE,
            latex=r"\mathrm{LReLU}",
            source="Maas, Hannun, Ng 2013",
        ),
        Activation(
            "elu",
            "where(z > 0, z, alpha*(exp(z) - 1))",
            constants={"alpha": "1"},
            initialiser=_HE,
            latex=r"\mathrm{ELU}",
            source="Clevert, Unterthiner, Hochreiter 2016",
        ),
        Activation(
            "selu",
            "scale*where(z > 0, z, alpha*(exp(z) - 1))",
            constants={"alpha": "1.6732632423543772", "scale": "1.0507009873554805"},
            initialiser="lecun_normal",
            latex=r"\mathrm{SELU}",
            source="Klambauer, Unterthiner, Mayr, Hochreiter 2017",
        ),
        Activation("softplus", "log(1 + exp(z))", latex=r"\zeta"),
        Activation("silu", "z*sigmoid(z)", latex=r"\mathrm{SiLU}", source="Elfwing, Uchibe, Doya 2018"),
        Activation(
            "gelu",
            "z*(1 + erf(z/sqrt(2)))/2",
            initialiser=_HE,
            latex=r"\mathrm{GELU}",
            source="Hendrycks, Gimpel 2016",
        ),
        Activation(
            "gelu_tanh",
            "z*(1 + tanh(sqrt(2/pi)*(z + 0.044715*z^3)))/2",
            initialiser=_HE,
            latex=r"\mathrm{GELU}_{\tanh}",
            source="Hendrycks, Gimpel 2016",
        ),
        Activation("mish", "z*tanh(softplus(z))", initialiser=_HE, latex=r"\mathrm{Mish}", source="Misra 2019"),
        Activation("softsign", "z/(1 + abs(z))", latex=r"\mathrm{softsign}"),
        Activation("softmax", equations=("S = sum(k, exp(z[k]))", "a[k] = exp(z[k])/S"), latex=r"\mathrm{softmax}"),
        Activation("log_softmax", equations=("S = sum(k, exp(z[k]))", "a[k] = z[k] - log(S)"), latex=r"\log\mathrm{softmax}"),
    )
}

# How many places a window has on an axis: {1} places, windows of {2}; and the other way round for a transposed convolution.
_CONVOLVED = "floor(({1} + 2*padding{0} - dilation{0}*({2} - 1) - 1)/stride{0}) + 1"
_POOLED = "floor(({1} + 2*padding{0} - {2})/stride{0}) + 1"
_SPREAD = "({1} - 1)*stride{0} - 2*padding{0} + dilation{0}*({2} - 1) + 1"

_POOLING = {
    "maxpool": "As PyTorch: places beyond the image do not take part; of equal values the first wins, row by row.",
    "avgpool": "As PyTorch with count_include_pad=True: zeros beyond the image count.",
}

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
    Layer(
        "conv",
        ("z[i,o] = sum(p, c, pad(x[stride1*i + dilation1*p - padding1, c])*W[p,c,o]) + b[o]",),
        inputs="x[u,c]",
        parameters=("W[p,c,o]", "b[o]"),
        arguments={"channels": "o", "kernel": "p"},
        options={"stride": "1", "padding": "0", "dilation": "1"},
        sizes={"i": _CONVOLVED.format("1", "U", "P")},
        optional={"bias": "b"},
        starts={"b": "zeros"},
    ),
    Layer(
        "conv",
        (
            "z[i,j,o] = sum(p, q, c, pad(x[stride1*i + dilation1*p - padding1, "
            "stride2*j + dilation2*q - padding2, c])*W[p,q,c,o]) + b[o]",
        ),
        inputs="x[u,v,c]",
        parameters=("W[p,q,c,o]", "b[o]"),
        arguments={"channels": "o", "kernel": "p,q"},
        options={"stride": "1", "padding": "0", "dilation": "1"},
        sizes={"i": _CONVOLVED.format("1", "U", "P"), "j": _CONVOLVED.format("2", "V", "Q")},
        optional={"bias": "b"},
        starts={"b": "zeros"},
    ),
    Layer(
        "conv",
        (
            "s[i,g,o] = sum(p, m, pad(x[stride1*i + dilation1*p - padding1, M*g + m])*W[p,m,g,o])",
            "z[i,f] = s[i,floor(f/O),mod(f,O)] + b[f]",
        ),
        variant="groups",
        inputs="x[u,c]",
        parameters=("W[p,m,g,o]", "b[f]"),
        fans={"W": ("pm", "o")},
        arguments={"channels": "f", "kernel": "p"},
        options={"stride": "1", "padding": "0", "dilation": "1", "groups": "1"},
        sizes={"i": _CONVOLVED.format("1", "U", "P"), "g": "groups", "m": "C/groups", "o": "F/groups"},
        optional={"bias": "b"},
        starts={"b": "zeros"},
    ),
    Layer(
        "conv",
        (
            "s[i,j,g,o] = sum(p, q, m, pad(x[stride1*i + dilation1*p - padding1, "
            "stride2*j + dilation2*q - padding2, M*g + m])*W[p,q,m,g,o])",
            "z[i,j,f] = s[i,j,floor(f/O),mod(f,O)] + b[f]",
        ),
        variant="groups",
        inputs="x[u,v,c]",
        parameters=("W[p,q,m,g,o]", "b[f]"),
        fans={"W": ("pqm", "o")},
        arguments={"channels": "f", "kernel": "p,q"},
        options={"stride": "1", "padding": "0", "dilation": "1", "groups": "1"},
        sizes={
            "i": _CONVOLVED.format("1", "U", "P"),
            "j": _CONVOLVED.format("2", "V", "Q"),
            "g": "groups",
            "m": "C/groups",
            "o": "F/groups",
        },
        optional={"bias": "b"},
        starts={"b": "zeros"},
    ),
    Layer(
        "depthwise",
        ("z[i,c] = sum(p, pad(x[stride1*i + dilation1*p - padding1, c])*W[p,c]) + b[c]",),
        inputs="x[u,c]",
        parameters=("W[p,c]", "b[c]"),
        arguments={"kernel": "p"},
        options={"stride": "1", "padding": "0", "dilation": "1"},
        sizes={"i": _CONVOLVED.format("1", "U", "P")},
        optional={"bias": "b"},
        starts={"b": "zeros"},
    ),
    Layer(
        "depthwise",
        (
            "z[i,j,c] = sum(p, q, pad(x[stride1*i + dilation1*p - padding1, "
            "stride2*j + dilation2*q - padding2, c])*W[p,q,c]) + b[c]",
        ),
        inputs="x[u,v,c]",
        parameters=("W[p,q,c]", "b[c]"),
        arguments={"kernel": "p,q"},
        options={"stride": "1", "padding": "0", "dilation": "1"},
        sizes={"i": _CONVOLVED.format("1", "U", "P"), "j": _CONVOLVED.format("2", "V", "Q")},
        optional={"bias": "b"},
        starts={"b": "zeros"},
    ),
    Layer(
        "conv_transpose",
        ("z[i,o] = sum(p, c, pad(x[(i + padding1 - dilation1*p)/stride1, c])*W[p,c,o]) + b[o]",),
        inputs="x[u,c]",
        parameters=("W[p,c,o]", "b[o]"),
        arguments={"channels": "o", "kernel": "p"},
        options={"stride": "1", "padding": "0", "dilation": "1"},
        sizes={"i": _SPREAD.format("1", "U", "P")},
        optional={"bias": "b"},
        starts={"b": "zeros"},
    ),
    Layer(
        "conv_transpose",
        (
            "z[i,j,o] = sum(p, q, c, pad(x[(i + padding1 - dilation1*p)/stride1, "
            "(j + padding2 - dilation2*q)/stride2, c])*W[p,q,c,o]) + b[o]",
        ),
        inputs="x[u,v,c]",
        parameters=("W[p,q,c,o]", "b[o]"),
        arguments={"channels": "o", "kernel": "p,q"},
        options={"stride": "1", "padding": "0", "dilation": "1"},
        sizes={"i": _SPREAD.format("1", "U", "P"), "j": _SPREAD.format("2", "V", "Q")},
        optional={"bias": "b"},
        starts={"b": "zeros"},
    ),
    *(
        replace(layer, notes=_POOLING[name])
        for name, reduction in (("maxpool", "max"), ("avgpool", "mean"))
        for layer in (
            Layer(
                name,
                (f"y[i,c] = {reduction}(p, pad(x[stride1*i + p - padding1, c]))",),
                inputs="x[u,c]",
                arguments={"kernel": "p"},
                options={"stride": "kernel", "padding": "0"},
                sizes={"i": _POOLED.format("1", "U", "P")},
            ),
            Layer(
                name,
                (f"y[i,j,c] = {reduction}(p, q, pad(x[stride1*i + p - padding1, stride2*j + q - padding2, c]))",),
                inputs="x[u,v,c]",
                arguments={"kernel": "p,q"},
                options={"stride": "kernel", "padding": "0"},
                sizes={"i": _POOLED.format("1", "U", "P"), "j": _POOLED.format("2", "V", "Q")},
            ),
        )
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

# Functions that formulas may use besides the element-wise activations.
FUNCTIONS: Mapping[str, Activation] = {
    row.name: row
    for row in (
        *(a for a in ACTIVATIONS.values() if a.formula and a.name not in ("tanh", "identity")),
        Activation("xlogx", "where(z > 0, z*log(z), 0)"),
        # A value that counts as constant in derivatives.
        Activation("stop", "z"),
    )
}

# The larger and the smaller of two values; where they are equal the first one counts, also for the derivative.
EXTREMES: Mapping[str, str] = {"max": "where(u >= v, u, v)", "min": "where(u <= v, u, v)"}

_ONE_HOT = ("sum(k, y[k]) = 1",)

LOSSES: Mapping[str, Loss] = {
    row.name: row
    for row in (
        Loss("squared_error", "(p - y)^2"),
        Loss("half_squared_error", "(p - y)^2/2"),
        Loss("mean_squared_error", "mean(k, (p[k] - y[k])^2)"),
        Loss("absolute_error", "abs(p - y)"),
        Loss(
            "huber",
            "where(abs(p - y) <= delta, (p - y)^2/2, delta*(abs(p - y) - delta/2))",
            constants={"delta": "1"},
            source="Huber 1964",
        ),
        Loss("log_cosh", "log(cosh(p - y))"),
        Loss("binary_cross_entropy", "-(y*log(p) + (1 - y)*log(1 - p))", labels="zero-one"),
        Loss(
            "sigmoid_cross_entropy",
            equations=("p[k] = sigmoid(z[k])", "c = sum(k, softplus(z[k]) - y[k]*z[k])"),
            takes="z",
            labels="zero-one",
        ),
        Loss("cross_entropy", "-sum(k, y[k]*log(p[k]))", facts=_ONE_HOT, labels="one-hot"),
        Loss(
            "softmax_cross_entropy",
            equations=("S = sum(k, exp(z[k]))", "p[k] = exp(z[k])/S", "c = -sum(k, y[k]*(z[k] - log(S)))"),
            takes="z",
            facts=_ONE_HOT,
            labels="one-hot",
        ),
        Loss("negative_log_likelihood", "-sum(k, y[k]*z[k])", takes="z", facts=_ONE_HOT, labels="one-hot"),
        Loss("hinge", "relu(1 - y*p)", labels="signed"),
        Loss("squared_hinge", "relu(1 - y*p)^2", labels="signed"),
        Loss(
            "kl_divergence",
            "sum(k, xlogx(y[k]) - y[k]*log(p[k]))",
            facts=_ONE_HOT,
            labels="one-hot",
            source="Kullback, Leibler 1951",
        ),
        Loss("poisson", "p - y*log(p)", labels="count"),
        Loss("poisson_log", "exp(z) - y*z", takes="z", labels="count"),
        Loss("gaussian_nll", "log(2*pi*v)/2 + (y - p)^2/(2*v)", constants={"v": "1"}),
        Loss(
            "focal",
            "-sum(k, y[k]*(1 - p[k])^gamma*log(p[k]))",
            constants={"gamma": "2"},
            facts=_ONE_HOT,
            labels="one-hot",
            source="Lin, Goyal, Girshick, He, Dollár 2017",
        ),
    )
}

# Other names in use for the same losses.
LOSS_NAMES: Mapping[str, str] = {
    "mse": "mean_squared_error",
    "mae": "absolute_error",
    "bce": "binary_cross_entropy",
    "binary_cross_entropy_with_logits": "sigmoid_cross_entropy",
    "cross_entropy_with_logits": "softmax_cross_entropy",
    "nll": "negative_log_likelihood",
}

# Penalties on one weight `w`, times a coefficient, summed over all weights of a layer.
PENALTIES: Mapping[str, str] = {"l2": "w^2", "l1": "abs(w)"}

INITIALISERS: Mapping[str, Initialiser] = {
    row.name: row
    for row in (
        Initialiser("glorot_uniform", "uniform", "sqrt(6/(fan_in + fan_out))", "Glorot, Bengio 2010"),
        Initialiser("glorot_normal", "normal", "sqrt(2/(fan_in + fan_out))", "Glorot, Bengio 2010"),
        Initialiser("he_uniform", "uniform", "sqrt(6/fan_in)", "He, Zhang, Ren, Sun 2015"),
        Initialiser("he_normal", "normal", "sqrt(2/fan_in)", "He, Zhang, Ren, Sun 2015"),
        Initialiser("lecun_uniform", "uniform", "sqrt(3/fan_in)", "LeCun, Bottou, Orr, Müller 1998"),
        Initialiser("lecun_normal", "normal", "sqrt(1/fan_in)", "LeCun, Bottou, Orr, Müller 1998"),
        Initialiser("normal", "normal", "0.1"),
        Initialiser("standard_normal", "normal", "1"),
        Initialiser("zeros", "constant", "0"),
        Initialiser("ones", "constant", "1"),
    )
}

OPTIMISERS: Mapping[str, Optimiser] = {
    row.name: row
    for row in (
        Optimiser("sgd", ("w = w - eta*g",)),
        Optimiser(
            "momentum",
            ("v = mu*v + g", "w = w - eta*v"),
            state=("v",),
            constants={"mu": "0.9"},
            learning_rate="0.05",
            source="Polyak 1964",
        ),
        Optimiser(
            "nesterov",
            ("v = mu*v + g", "w = w - eta*(g + mu*v)"),
            state=("v",),
            constants={"mu": "0.9"},
            learning_rate="0.05",
            source="Nesterov 1983; Sutskever, Martens, Dahl, Hinton 2013",
        ),
        Optimiser(
            "adagrad",
            ("v = v + g^2", "w = w - eta*g/(sqrt(v) + epsilon)"),
            state=("v",),
            constants={"epsilon": "1e-10"},
            source="Duchi, Hazan, Singer 2011",
        ),
        Optimiser(
            "rmsprop",
            ("v = rho*v + (1 - rho)*g^2", "w = w - eta*g/(sqrt(v) + epsilon)"),
            state=("v",),
            constants={"rho": "0.99", "epsilon": "1e-8"},
            learning_rate="0.01",
            source="Tieleman, Hinton 2012",
        ),
        Optimiser(
            "adam",
            (
                "m = beta_1*m + (1 - beta_1)*g",
                "v = beta_2*v + (1 - beta_2)*g^2",
                "w = w - eta*(m/(1 - beta_1^t))/(sqrt(v/(1 - beta_2^t)) + epsilon)",
            ),
            state=("m", "v"),
            constants={"beta_1": "0.9", "beta_2": "0.999", "epsilon": "1e-8"},
            learning_rate="0.01",
            source="Kingma, Ba 2015",
        ),
        Optimiser(
            "adamw",
            (
                "m = beta_1*m + (1 - beta_1)*g",
                "v = beta_2*v + (1 - beta_2)*g^2",
                "w = w - eta*((m/(1 - beta_1^t))/(sqrt(v/(1 - beta_2^t)) + epsilon) + lambda*w)",
            ),
            state=("m", "v"),
            constants={"beta_1": "0.9", "beta_2": "0.999", "epsilon": "1e-8", "lambda": "0.01"},
            learning_rate="0.01",
            source="Loshchilov, Hutter 2019",
        ),
    )
}

SCHEDULES: Mapping[str, Schedule] = {
    row.name: row
    for row in (
        Schedule("constant", "eta_0"),
        Schedule("inverse_time", "eta_0/(1 + decay*t)", {"decay": "1e-3"}, "Robbins, Monro 1951"),
        Schedule("exponential", "eta_0*exp(-decay*t)", {"decay": "1e-3"}),
        Schedule("staircase", "eta_0*factor^floor(t/every)", {"factor": "0.5", "every": "1000"}),
        Schedule("cosine", "eta_0*(1 + cos(pi*min(t, total)/total))/2", {"total": "10000"}, "Loshchilov, Hutter 2017"),
    )
}
