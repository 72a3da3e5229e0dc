"""What the library knows by name, as forward formulas and nothing else: activations, losses, initialisers, optimisers, schedules.

Formulas are in the text notation of `parse` and are written for one example: axes that come before (the batch, later
time) are implied. No table holds a derivative; `derive` finds them all from these lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    assumed of the target and checked by emitted modules; `labels` says which values the target takes. `on_logits` names the same
    loss of what enters the sigmoid or the softmax.
    """

    name: str
    formula: str = ""
    equations: tuple[str, ...] = ()
    takes: Literal["p", "z"] = "p"
    constants: Mapping[str, str] = field(default_factory=dict[str, str])
    facts: tuple[str, ...] = ()
    labels: Literal["real", "one-hot", "zero-one", "signed", "count"] = "real"
    on_logits: str = ""
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
        Loss(
            "binary_cross_entropy",
            "-(y*log(p) + (1 - y)*log(1 - p))",
            labels="zero-one",
            on_logits="sigmoid_cross_entropy",
        ),
        Loss(
            "sigmoid_cross_entropy",
            equations=("p[k] = sigmoid(z[k])", "c = sum(k, softplus(z[k]) - y[k]*z[k])"),
            takes="z",
            labels="zero-one",
        ),
        Loss(
            "cross_entropy",
            "-sum(k, y[k]*log(p[k]))",
            facts=_ONE_HOT,
            labels="one-hot",
            on_logits="softmax_cross_entropy",
        ),
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
