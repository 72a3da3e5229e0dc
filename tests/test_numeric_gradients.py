"""Derivatives against PyTorch, against finite differences, and against the interpreter of the notation."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from symbackprop import declare, derive
from symbackprop.catalogue import ACTIVATIONS, LOSSES

from .conftest import oracle, random_targets

ACTIVATE = {
    "identity": lambda z: z,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "softplus": F.softplus,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
    "mish": F.mish,
    "softsign": F.softsign,
    "softmax": lambda z: F.softmax(z, -1),
    "log_softmax": lambda z: F.log_softmax(z, -1),
}


def _sum(f):
    """A loss summed over the outputs, averaged over the examples."""
    return lambda p, y: f(p, y).sum(-1).mean()


LOSE = {
    "squared_error": _sum(lambda p, y: (p - y) ** 2),
    "half_squared_error": _sum(lambda p, y: (p - y) ** 2 / 2),
    "mean_squared_error": F.mse_loss,
    "absolute_error": _sum(lambda p, y: (p - y).abs()),
    "huber": _sum(lambda p, y: F.huber_loss(p, y, reduction="none")),
    "log_cosh": _sum(lambda p, y: torch.log(torch.cosh(p - y))),
    "binary_cross_entropy": _sum(lambda p, y: F.binary_cross_entropy(p, y, reduction="none")),
    "sigmoid_cross_entropy": _sum(lambda z, y: F.binary_cross_entropy_with_logits(z, y, reduction="none")),
    "cross_entropy": _sum(lambda p, y: -y * torch.log(p)),
    "softmax_cross_entropy": F.cross_entropy,
    "negative_log_likelihood": lambda z, y: F.nll_loss(z, y.argmax(-1)),
    "hinge": _sum(lambda p, y: torch.relu(1 - y * p)),
    "squared_hinge": _sum(lambda p, y: torch.relu(1 - y * p) ** 2),
    "kl_divergence": lambda p, y: F.kl_div(torch.log(p), y, reduction="batchmean"),
    "poisson": _sum(lambda p, y: F.poisson_nll_loss(p, y, log_input=False, eps=0, reduction="none")),
    "poisson_log": _sum(lambda z, y: F.poisson_nll_loss(z, y, log_input=True, reduction="none")),
    "gaussian_nll": _sum(lambda p, y: F.gaussian_nll_loss(p, y, torch.ones_like(p), full=True, reduction="none")),
    "focal": _sum(lambda p, y: -y * (1 - p) ** 2 * torch.log(p)),
}
# What a loss needs of the prediction decides which activations make sense before it.
_PROBABILITY = ("sigmoid", "softmax")
_POSITIVE = ("sigmoid", "softmax", "softplus")
MEANS = {
    "binary_cross_entropy": _PROBABILITY,
    "cross_entropy": _POSITIVE,
    "kl_divergence": _POSITIVE,
    "focal": _PROBABILITY,
    "poisson": _POSITIVE,
    "negative_log_likelihood": ("log_softmax", "identity", "tanh"),
}
PAIRS = [(a, loss) for loss in LOSSES for a in MEANS.get(loss, ACTIVATIONS)]
SIZES = [(5, 3, 4, 2), (2, 7, 3, 5), (9, 2, 6, 3)]  # examples, inputs, hidden, outputs


def _problem(activation, loss, sizes, hidden="tanh", seed=0):
    examples, inputs, units, outputs = sizes
    chain = f"{inputs} -> dense({units}, {hidden}) -> dense({outputs}, {activation}) -> {loss}"
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((examples, inputs))
    Y = random_targets(LOSSES[loss].labels, (examples, outputs), rng)
    return chain, X, Y


def _by_torch(params, X, Y, activations, loss):
    weights = {k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in params.items()}
    a = torch.tensor(X)
    for layer, name in enumerate(activations, 1):
        a = ACTIVATE[name](a @ weights[f"W{layer}"] + weights[f"b{layer}"])
    value = LOSE[loss](a, torch.tensor(Y))
    value.backward()
    return value.item(), {k: w.grad.numpy() for k, w in weights.items()}


def _close(found, expected, tolerance):
    scale = max(np.abs(expected).max(), 1e-6)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * scale, (found, expected)


@pytest.mark.parametrize(("activation", "loss"), PAIRS, ids=lambda p: p)
def test_every_pair_equals_torch(activation, loss, module_of, sweep):
    for sizes in SIZES if sweep else SIZES[:1]:
        chain, X, Y = _problem(activation, loss, sizes)
        module = module_of(chain)
        params = module.init(seed=1)
        params = {k: v + 0.1 * np.random.default_rng(2).standard_normal(v.shape) for k, v in params.items()}
        value, gradients = module.loss_and_gradients(params, X, Y)
        expected, by_torch = _by_torch(params, X, Y, ("tanh", activation), loss)
        assert value == pytest.approx(expected, rel=1e-10)
        for name, g in gradients.items():
            _close(g, by_torch[name], 1e-10)


@pytest.mark.parametrize("hidden", ACTIVATIONS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_hidden_activation_equals_torch_at_odd_sizes(hidden, sizes, module_of):
    chain, X, Y = _problem("softmax", "cross_entropy", sizes, hidden)
    module = module_of(chain)
    params = module.init(seed=3)
    value, gradients = module.loss_and_gradients(params, X, Y)
    expected, by_torch = _by_torch(params, X, Y, (hidden, "softmax"), "cross_entropy")
    assert value == pytest.approx(expected, rel=1e-10)
    for name, g in gradients.items():
        _close(g, by_torch[name], 1e-10)


@pytest.mark.parametrize(("activation", "loss"), PAIRS[::7], ids=lambda p: p)
def test_finite_differences_along_random_directions(activation, loss, module_of):
    chain, _, _ = _problem(activation, loss, (5, 3, 4, 2))
    assert module_of(chain).check_gradients(seed=4) < 1e-6


@pytest.mark.parametrize(
    "chain",
    [
        "3 -> dense(4, sigmoid) -> dense(2, softmax) -> cross_entropy",
        "2 -> dense(3, selu, l2=0.1) -> dense(2, bias=false) -> softmax_cross_entropy",
        "3 -> dense(2, mish, l1=0.2) -> dense(2, sigmoid) -> binary_cross_entropy",
        "2 -> dense(3, log_softmax) -> negative_log_likelihood",
        "2 -> dense(3, softmax) -> focal(1.5)",
        "2 -> dense(3, gelu_tanh) -> dense(2, softsign) -> huber(delta=0.3)",
    ],
)
def test_interpreter_agrees_with_emitted_code_and_with_unfolded_equations(chain, module_of):
    network = declare(chain)
    derivation = derive(network)
    module = module_of(network)
    sizes = {i.name: i.number or 4 for i in network.indices}
    arrays = {a.name: a for a in network.arrays}
    rng = np.random.default_rng(5)
    X = rng.standard_normal([sizes[i] for i in arrays["x"].axes])
    Y = random_targets(network.labels, [sizes[i] for i in arrays["y"].axes], rng)
    params = {k: v + 0.1 * rng.standard_normal(v.shape) for k, v in module.init(seed=6).items()}
    folded = oracle(network, {"x": X, "y": Y, **params}, sizes, (*network.equations, *derivation.equations))
    raw = oracle(network, {"x": X, "y": Y, **params}, sizes, (*network.equations, *derivation.raw))
    value, gradients = module.loss_and_gradients(params, X, Y)
    assert value == pytest.approx(float(folded["L"]), rel=1e-12)
    _close(module.forward(params, X), folded[network.prediction], 1e-12)
    for name, g in gradients.items():
        _close(g, folded[derivation.adjoints[name]], 1e-12)
        _close(raw[derivation.adjoints[name]], folded[derivation.adjoints[name]], 1e-12)


EXTREME = [
    ("softmax", "cross_entropy"),
    ("identity", "softmax_cross_entropy"),
    ("log_softmax", "negative_log_likelihood"),
    ("sigmoid", "binary_cross_entropy"),
    ("identity", "sigmoid_cross_entropy"),
    ("softmax", "focal"),
    ("softmax", "kl_divergence"),
    ("identity", "log_cosh"),
    ("tanh", "squared_error"),
    ("sigmoid", "log_cosh"),
    ("softmax", "poisson"),
    ("silu", "log_cosh"),
    ("mish", "log_cosh"),
    ("leaky_relu", "squared_error"),
    ("sigmoid", "squared_error"),
    ("elu", "squared_error"),
    ("selu", "absolute_error"),
    ("gelu", "squared_error"),
    ("gelu_tanh", "huber"),
    ("silu", "squared_error"),
    ("mish", "squared_error"),
    ("softplus", "squared_error"),
    ("softsign", "squared_error"),
]
STABLE = {
    ("softmax", "poisson"): _sum(
        lambda z, y: F.softmax(z, -1) - y * F.log_softmax(z, -1)
    ),  # the same values, written by hand so that PyTorch computes them without overflow
    ("softmax", "cross_entropy"): F.cross_entropy,
    ("log_softmax", "negative_log_likelihood"): F.cross_entropy,
    ("sigmoid", "binary_cross_entropy"): LOSE["sigmoid_cross_entropy"],
    ("softmax", "focal"): _sum(lambda z, y: -y * (1 - F.softmax(z, -1)) ** 2 * F.log_softmax(z, -1)),
    ("softmax", "kl_divergence"): F.cross_entropy,
}


def _log_cosh(p, y):
    return ((p - y).abs() + F.softplus(-2 * (p - y).abs()) - np.log(2)).sum(-1).mean()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("activation", "loss"), EXTREME, ids=lambda p: p)
def test_logits_of_a_thousand_are_finite_and_right(activation, loss, dtype, module_of):
    module = module_of(f"1 -> dense(3, {activation}) -> {loss}", dtype=dtype)
    X = np.array([[1000.0], [-1000.0], [1.0], [0.5]])
    Y = random_targets(LOSSES[loss].labels, (4, 3), np.random.default_rng(0))
    params = {"W1": np.array([[1.0, -1.0, 0.25]]).astype(dtype), "b1": np.array([0.5, -0.25, 0.0]).astype(dtype)}
    with warnings.catch_warnings(), np.errstate(over="raise", invalid="raise", divide="raise"):
        warnings.simplefilter("error")
        value, gradients = module.loss_and_gradients(params, X, Y)
    weights = {k: torch.tensor(v.astype(float), requires_grad=True) for k, v in params.items()}
    z = torch.tensor(X) @ weights["W1"] + weights["b1"]
    after = _log_cosh if loss == "log_cosh" else LOSE[loss]
    lose = STABLE.get((activation, loss)) or (lambda z, y: after(ACTIVATE[activation](z), y))
    expected = lose(z, torch.tensor(Y))
    expected.backward()
    tolerance = 1e-10 if dtype == "float64" else 2e-5
    assert value == pytest.approx(expected.item(), rel=tolerance)
    for name, g in gradients.items():
        assert g.dtype == dtype
        assert np.all(np.isfinite(g))
        _close(g, weights[name].grad.numpy(), tolerance)


def test_lambdify_of_the_plain_derivative_is_not_stable():
    """The reason for stable rewriting: the textbook expression fails in an identical place."""
    import sympy

    z = sympy.Symbol("z", real=True)
    plain = sympy.lambdify(z, sympy.diff(sympy.log(1 + sympy.exp(z)), z), "numpy")
    with np.errstate(all="ignore"):
        assert np.isnan(plain(np.float64(710)))
