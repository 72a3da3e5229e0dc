"""Networks that once went wrong, or could: each emitted module agrees with finite differences and the interpreter."""

import time

import numpy as np
import pytest

from symbackprop import SymbackpropError, declare, derive, emit, explain

from .conftest import oracle

HEAD = 'inputs = ["x[n,d]"]\ntargets = ["y[n]"]\nparameters = ["w[d]", "c"]\n'


def network(equations, head=HEAD, tail="[sizes]\nd = 3\n"):
    return f"{head}equations = '''\n{equations}\n'''\n{tail}"


O = "o[n] = c*sum(d, x[n,d]*w[d])\n"  # noqa: E741
CASES = {
    "sum over an index that the body lacks": network(O + "L = mean(n, sum(d, (o[n] - y[n])^2))"),
    "the same, the other way round": network(O + "L = sum(d, mean(n, (o[n] - y[n])^2))"),
    "product of two sums": network("o[n] = sum(d, c)*sum(d, x[n,d]*w[d])\nL = mean(n, (o[n] - y[n])^2)"),
    "sums of parameters alone": network(O + "L = mean(n, (o[n] - y[n])^2) + sum(d, c^2) + sum(n, c)"),
    "a parameter with the name of a size": network(
        "o[n] = N*sum(d, x[n,d]*w[d])\nL = mean(n, (o[n] - y[n])^2)", HEAD.replace('"c"', '"N"')
    ),
    "an array with the name of a size": network("D[n] = c*sum(d, x[n,d]*w[d])\nL = mean(n, mean(d, D[n]*w[d]) + y[n]^2)"),
    "an unused parameter": network("L = mean(n, (sum(d, x[n,d]*w[d]) - y[n])^2)", HEAD.replace('"c"', '"c", "q[d]"')),
    "a term that is zero": network(O + "L = mean(n, (o[n] - y[n])^2) + sum(n, y[n])*0*c"),
    "no targets": network("o[n] = c*sum(d, x[n,d]*w[d])\nL = mean(n, o[n]^2)", HEAD.replace('"y[n]"', "")),
    "no data": network("L = w^2*v + w", 'parameters = ["w", "v"]\n', ""),
    "the largest of three": network("o[n] = max(0.1, sum(d, x[n,d]*w[d]), y[n]*c)\nL = mean(n, (o[n] - 1)^2)"),
    "the smallest of three": network(O + "L = mean(n, min(o[n], 2, 3*y[n])^2)"),
    "sign and floor": network(O + "L = mean(n, (sign(o[n])*o[n] + floor(o[n])*c - y[n])^2)"),
    "a derivative in the network": network(O + "L = mean(n, (tanh'(o[n]) - y[n])^2)"),
    "nested sums": network("L = mean(n, log(1 + sum(d, exp(x[n,d]*w[d]))^2)*c + y[n])"),
    "a fact of its own": network(
        "z[n,k] = sum(d, x[n,d]*W[d,k])\nS[n] = sum(k, exp(z[n,k]))\nL = mean(n, -sum(k, y[n,k]*(z[n,k] - log(S[n]))))",
        'inputs = ["x[n,d]"]\ntargets = ["y[n,k]"]\nparameters = ["W[d,k]"]\n',
        '[sizes]\nd = 3\nk = 4\n[facts]\n"sum(k, y[n,k])" = "1"\n',
    ),
    "outer products": network(
        "u[n,e] = sum(d, x[n,d]*B[d,e])\nL = mean(n, sum(d, e, u[n,e]*x[n,d]*B[d,e]) + y[n])",
        'inputs = ["x[n,d]"]\ntargets = ["y[n]"]\nparameters = ["B[d,e]"]\n',
        "[sizes]\nd = 3\ne = 2\n",
    ),
    "three axes": network(
        "u[n,k] = sum(d, e, x[n,d]*T[d,e,k]*x[n,e])\nL = mean(n, sum(k, u[n,k]^2) + y[n])",
        'inputs = ["x[n,d]"]\ntargets = ["y[n]"]\nparameters = ["T[d,e,k]"]\n',
        "[sizes]\nd = 3\ne = 3\nk = 2\n",
    ),
    "a condition on a value with branches": network(
        "L = mean(n, where(where(c > 0, c, w[1]) > 1, c, 2*c)*y[n])".replace("w[1]", "-c")
    ),
    "the smaller of two with kinks": network(O + "L = mean(n, min(relu(o[n]), y[n], c)^2)"),
    "relu of a value with branches": network("L = mean(n, relu(c*where(y[n] > 0, c, 2)) + sum(d, w[d]^2))"),
    "a constant exponential in a sum": network("L = mean(n, (sum(d, exp(-1/4)) - c*y[n])^2) + sum(d, w[d]^2)"),
    "a sum that only a condition asks about": network(
        "h[n] = where(c > sum(d, w[d]), c, exp(-c^2))\nL = mean(n, (sqrt(1 + h[n]^2) - y[n])^2)"
    ),
    "examples counted by an intermediate value alone": network("h[n] = c\nL = mean(n, (h[n] - 1)^2) + sum(d, w[d]^2)"),
    "a constant function value": network("L = mean(n, sigmoid(0.5)*c*y[n] + softplus(2)*c^2) + sum(d, w[d]^2)"),
    "leaky": "3 -> dense(4, leaky_relu(0.3)) -> dense(2, selu) -> huber(0.5)",
}


@pytest.mark.parametrize("text", CASES.values(), ids=CASES)
def test_case(text, module_of):
    assert module_of(text).check_gradients() < 1e-6
    derivation = derive(text)
    for form in ("index", "matrix", "scalar"):
        for kind in ("text", "markdown", "latex", "json"):
            assert explain(derivation, kind, form)


@pytest.mark.parametrize("name", ["sum over an index that the body lacks", "product of two sums", "the largest of three"])
def test_case_equals_the_interpreter(name, module_of):
    text = CASES[name]
    module, net = module_of(text), declare(text)
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((4, 3)), rng.standard_normal(4)
    params = {k: rng.standard_normal(v.shape) for k, v in module.init().items()}
    found = oracle(net, {"x": X, "y": Y, **params}, {"n": 4}, net.equations)
    assert module.loss(params, X, Y) == pytest.approx(float(found["L"]), rel=1e-12)


@pytest.mark.parametrize(
    "chain",
    [
        "3 -> dense(3, leaky_relu) -> squared_error",
        "3 -> dense(2) -> huber",
        CASES["an unused parameter"],
        CASES["a constant function value"],
    ],
)
def test_single_precision_stays_single(chain, module_of):
    module = module_of(chain, dtype="float32")
    rng = np.random.default_rng(0)
    shape = (5,) if "\n" in chain else (5, module.SIZES["K"])
    value, gradients = module.loss_and_gradients(module.init(), rng.standard_normal((5, 3)), rng.standard_normal(shape))
    assert np.isfinite(value)
    assert {np.asarray(g).dtype for g in gradients.values()} == {np.dtype("float32")}
    assert all(np.shape(g) == np.shape(w) for g, w in zip(gradients.values(), module.init().values(), strict=True))


def test_different_numbers_of_examples_are_refused(module_of):
    module = module_of("3 -> dense(2, softmax) -> cross_entropy")
    with pytest.raises(ValueError, match="different numbers of examples"):
        module.fit(np.zeros((30, 3)), np.zeros(40, int))
    with pytest.raises(ValueError, match="not finite"):
        module.fit(np.full((30, 3), np.nan), np.zeros(30, int))


@pytest.mark.parametrize(
    "text",
    [
        "3 -> relu -> squared_error",
        network("z[n] = sum(d, x[n,d]*w[n])\nL = mean(n, z[n]) + c"),
        network("L = c", HEAD.replace("x[n,d]", "x[n,n]")),
        network("L = sum(q, c*w[d])"),
        network("L = c", HEAD + 'functions = ["f", "f"]\n'),
        network("L = c", HEAD + 'functions = ["sum"]\n'),
        "3 -> dense(2, softmax(3)) -> cross_entropy",
        "3 -> dense(2) -> tanh(4) -> squared_error",
        "3 -> squared_error -> dense(2) -> squared_error",
        'network = "3 -> dense(2) -> squared_error"\n[sizes]\nd = 7\n',
        'network = "3 -> dense(2) -> squared_error"\nprediction = "q"\n',
        'network = "3 -> dense(2, f) -> squared_error"\n[activation.f]\nformula = "z/c"\nc = 0\n',
        'network = "3 -> dense(2, f) -> squared_error"\n[activation.f]\nformula = "z/c"\nc = nan\n',
        'network = "3 -> f -> squared_error"\n[layer.f]\nequations = "z[i] = x[i]"\nparameters = 3\n',
        'network = "3 -> f -> squared_error"\n[layer.f]\nequations = "z[i] = x[i]"\nparameters = [3]\n',
        'network = "3 -> f -> squared_error"\n[layer.f]\nequations = "z[i] = x[i]"\narguments = 3\n',
        network("L = c", tail="[train]\ninitialiser = 'foo'\n"),
        network("L = c", tail="[train]\nepochs = 1e400\n"),
        "\n",
        "x" * 300,
    ],
)
def test_refused_with_one_message(text):
    with pytest.raises(SymbackpropError) as caught:
        emit(text)
    assert str(caught.value)


def scalar(formula):
    return f'parameters = ["w"]\nequations = "L = {formula}"'


def nested(name, depth):
    return f"{name}(" * depth + "w" + ")" * depth


@pytest.mark.parametrize(
    "text",
    [
        scalar("*".join(f"(w+{i})" for i in range(200))),
        scalar(nested("gelu", 8)),
        scalar(nested("mish", 6)),
        scalar(nested("exp", 50)),
        scalar("^".join(["w"] * 22)),
        scalar("*".join(f"(1+exp(w^{i}))" for i in range(1, 40))),
        scalar("(" * 30 + "w" + ")^2" * 30),
    ],
    ids=range(7),
)
def test_formulas_made_to_be_slow_are_derived_or_refused_soon(text):
    began = time.process_time()
    try:
        derive(text)
    except SymbackpropError as refusal:
        assert "give" in str(refusal) or "too" in str(refusal) or "more than" in str(refusal)
    assert time.process_time() - began < 4
