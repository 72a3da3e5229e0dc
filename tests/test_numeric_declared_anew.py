"""What is declared means the same wherever it stands, and what stands for something else than usual is told."""

import itertools

import numpy as np
import pytest

from symbackprop import FormulaError, SymbackpropError, declare, derive, emit, explain

from .conftest import oracle

START = ["h[-1] = r", "h[t] = u*h[t-1] + x[t]", "q = tanh(s)", "r = q*s"]
STARTED = {"inputs": ["x[t]"], "parameters": ["u", "s"], "sizes": {"t": 4}}


@pytest.mark.parametrize("order", [p for p in itertools.permutations(START) if p.index(START[2]) < p.index(START[3])])
def test_a_start_value_counts_wherever_it_stands(order):
    network = declare({**STARTED, "equations": "\n".join([*order, "L = h[T-1]^2"])})
    point = {"x": np.array([0.3, -0.2, 0.5, 0.1]), "u": np.array(0.7), "s": np.array(1.3)}
    h = np.tanh(1.3) * 1.3
    for x in point["x"]:
        h = 0.7 * h + x
    assert oracle(network, point, {"t": 4}, network.equations)["L"][()] == pytest.approx(h**2)


def test_a_start_value_after_the_loss_counts_as_well():
    network = declare({**STARTED, "equations": "h[t] = u*h[t-1] + x[t]\nL = h[T-1]^2\nh[-1] = s"})
    assert network.loss == "L"
    assert any(e.name == "ds" and e.terms for e in derive(network).equations)


@pytest.mark.parametrize(
    ("equations", "word"),
    [
        ("h[-1] = s\nh[-1] = u\nh[t] = u*h[t-1]\nL = h[T-1]", "has a start value already"),
        ("h[t] = u*h[t-1]\nh[-1] = g\ng = h[T-1]\nL = g", "depends on itself"),
        ("h[-1] = s\nL = s", "no equation defines it"),
    ],
)
def test_what_cannot_start_is_refused(equations, word):
    with pytest.raises(SymbackpropError, match=word):
        declare({**STARTED, "equations": equations})


RELU = {"network": "2 -> dense(2, relu) -> squared_error", "activation": {"relu": {"formula": "z"}}}


@pytest.mark.parametrize("format", ["text", "latex", "markdown", "html", "json"])
def test_a_built_in_declared_anew_is_told_to_every_reader(format):
    assert "relu is this network" in explain(derive(RELU), format=format).replace("\\", "")
    assert "this network" not in explain(derive("2 -> dense(2, relu) -> squared_error"), format=format)


@pytest.mark.parametrize(
    ("network", "note"),
    [
        (RELU, "relu is this network's own, not the built-in one: relu(z) = z"),
        (
            {"network": "2 -> dense(2, identity) -> squared_error", "activation": {"identity": {"formula": "2*z"}}},
            "identity(z) = 2*z",
        ),
        (
            {"network": "2 -> dense(2, relu) -> squared_error", "activation": {"relu": {"equations": "a[k] = z[k]^2"}}},
            "a[k] = z[k]^2",
        ),
        ({"network": "2 -> dense(2) -> squared_error", "loss": {"squared_error": {"formula": "(p - y)^4"}}}, "(p - y)^4"),
        ({"equations": "L = relu(x)", "parameters": ["x"], "functions": ["relu"]}, "relu is left abstract"),
        ("2 -> dense(3) -> binary_cross_entropy", "put a sigmoid before it, or take the loss on logits, sigmoid_cross_entropy"),
        ("2 -> dense(3, relu) -> dropout(0.1) -> cross_entropy", "put a softmax before it"),
    ],
)
def test_notes_of_a_declaration(network, note):
    assert any(note in found for found in declare(network).notes)


@pytest.mark.parametrize(
    "chain", ["2 -> dense(3, sigmoid) -> bce", "2 -> dense(3) -> softmax -> cross_entropy", "2 -> dense(1) -> squared_error"]
)
def test_nothing_is_told_of_what_is_usual(chain):
    assert declare(chain).notes == ()


def test_a_function_of_the_users_own_is_not_folded_to(module_of):
    """The derivative of softplus is the sigmoid only as long as sigmoid is what it is elsewhere."""
    network = {"network": "2 -> dense(2, softplus) -> squared_error", "activation": {"sigmoid": {"formula": "2*z"}}}
    assert "sigmoid(z1" not in explain(derive(network))
    assert module_of(network).check_gradients() < 1e-6


def test_a_usual_slip_makes_a_page_and_no_check_passes(module_of):
    page = explain(derive("2 -> dense(3) -> binary_cross_entropy"), format="html")
    assert "takes probabilities" in page
    with np.errstate(all="ignore"):
        assert not module_of("2 -> dense(3) -> binary_cross_entropy").check_gradients() < 1e-6


@pytest.mark.parametrize("formula", ["floor(z)", "pi*z - floor(z)", "exp(1)*z", "exp(exp(1))*z + 1/exp(1)"])
def test_activations_with_steps_and_constants(formula, module_of):
    network = {"network": "2 -> dense(2, f) -> squared_error", "activation": {"f": {"formula": formula}}}
    for style in ("fast", "plain"):
        assert module_of(network, style=style).check_gradients() < 1e-6
    for format in ("text", "latex", "html"):
        explain(derive(network), format=format)


LONG = "+".join
MANY = 20_000


@pytest.mark.parametrize(
    "network",
    [
        {"equations": "L = " + LONG(["c"] * MANY), "parameters": ["c"]},
        {"equations": "L = x[" + LONG(["1"] * MANY) + "]", "parameters": ["x[n]"]},
        {"network": "2 -> dense(2, f) -> squared_error", "activation": {"f": {"formula": LONG(["z"] * MANY)}}},
        {"network": "2 -> dense(2) -> f", "loss": {"f": {"formula": LONG(["p"] * MANY)}}},
        {"network": "2 -> f -> squared_error", "layer": {"f": {"equations": "o[i] = " + LONG(["x[i]"] * MANY)}}},
    ],
    ids=["equation", "index", "activation", "loss", "layer"],
)
def test_a_formula_of_very_many_terms_is_refused(network):
    with pytest.raises(FormulaError, match="more than 2000 operations"):
        declare(network)


@pytest.mark.parametrize("inner", ["residual(", "residual(concat("])
def test_very_many_branches_within_one_another_are_refused(inner):
    with pytest.raises(FormulaError, match="more than 60 nested branches"):
        declare(f"2 -> {inner * 2000}dense(2){')' * inner.count('(') * 2000} -> squared_error")


@pytest.mark.parametrize("text", ["b/(b - b)", "(2 - 2)^-1*b", "log(b - b)"])
def test_what_divides_by_zero_is_refused(text):
    with pytest.raises(FormulaError, match="zero"):
        declare({"equations": f"L = {text}", "parameters": ["b"]})


REDUCED = {"inputs": ["x[n]"], "targets": ["y[n]"], "parameters": ["c", "v[h]"], "sizes": {"h": 3, "k": 2}}
BODIES = [
    "q[n] = c*x[n]\nL = mean(n, (q[n] - y[n])^2) + logsumexp(h, c)",
    "q[n] = logsumexp(h, c*x[n])\nL = mean(n, (q[n] - y[n])^2)",
    "a[n,h] = logsumexp(k, v[h])\nq[n] = sum(h, a[n,h])\nL = mean(n, (q[n] - y[n])^2)",
    "q[n] = max(h, c + v[h])\nL = mean(n, (q[n] - y[n])^2)",
    "q[n] = prod(k, h, v[h]) + sum(k, c) + mean(k, x[n]) + min(h, v[h])\nL = mean(n, (q[n] - y[n])^2)",
]


@pytest.mark.parametrize("equations", BODIES)
def test_a_reduction_of_what_does_not_vary(equations, module_of):
    for options in ({"style": "fast"}, {"style": "plain"}):
        trains_as_derived(module_of({**REDUCED, "equations": equations}, **options))


@pytest.mark.parametrize("equations", [BODIES[0], BODIES[3]])
def test_a_reduction_of_what_does_not_vary_compiled(equations, module_of):
    trains_as_derived(module_of({**REDUCED, "equations": equations}, target="numba"))


def trains_as_derived(module, examples=5):
    """The derivatives are finite differences, and a step of the trainer follows them."""
    assert module.check_gradients() < 1e-6
    rng = np.random.default_rng(0)
    sizes = {s: n or 3 + 2 * k for k, (s, n) in enumerate(module.SIZES.items())}

    def drawn(shapes):
        return {key: rng.standard_normal([sizes.get(s, 0) if s else examples for s in shape]) for key, shape in shapes.items()}

    X, Y = drawn(module.INPUTS), drawn(module.TARGETS)
    params = module.init(1, np.float64, {s: n for s, n in sizes.items() if module.SIZES[s] is None})
    params = {k: w + 0.2 * rng.standard_normal(w.shape) for k, w in params.items()}
    trainer = module.Trainer(params, optimizer="sgd", learning_rate=0.01)
    for _ in range(2):
        before = {k: w.copy() for k, w in trainer.params.items()}
        value, gradients = module.loss_and_gradients(before, X, Y)
        assert trainer.step(X, Y) == pytest.approx(value)
        for k, w in trainer.params.items():
            assert np.allclose(w, before[k] - 0.01 * gradients.get(k, 0))


@pytest.mark.parametrize(
    ("network", "wrt"),
    [
        ("3 -> tanh -> squared_error", ["x"]),
        ("3 -> dense(2, tanh) -> squared_error", ["x", "W1"]),
        ("3 -> dense(2, tanh) -> squared_error", ["b1", "W1"]),
    ],
)
@pytest.mark.parametrize("options", [{"style": "fast"}, {"style": "plain"}, {"target": "numba"}], ids=str)
def test_derivatives_of_data_and_of_some_parameters(network, wrt, options, module_of):
    module = module_of(derive(network, wrt=wrt), **options)
    assert {*module.loss_and_gradients(module.init(), np.ones((2, 3)), np.ones((2, 3 if "tanh ->" in network else 2)))[1]} == {
        *wrt
    }
    trains_as_derived(module)


def test_nothing_to_differentiate_is_told():
    with pytest.raises(SymbackpropError, match="wrt"):
        emit("3 -> tanh -> squared_error")


@pytest.mark.parametrize(
    "network",
    [
        "3 -> dense(auto, tanh) -> dense(auto) -> squared_error",
        {"parameters": ["c[h]"], "equations": "L = sum(h, c[h]*tanh(c[h]))"},
    ],
)
def test_sizes_that_the_weights_tell_compiled(network, module_of):
    trains_as_derived(module_of(network, target="numba"))


def test_parameters_in_another_order_are_the_same_parameters(module_of):
    module = module_of("3 -> dense(2, tanh) -> dense(1) -> squared_error", target="numba")
    params = module.init(0)
    X, Y = np.ones((2, 3)), np.ones((2, 1))
    losses = [module.Trainer(dict(p)).step(X, Y) for p in (params.items(), reversed(params.items()))]
    assert losses[0] == losses[1]


def test_data_laid_out_by_columns_trains_as_well(module_of):
    module = module_of("3 -> dense(2, tanh) -> residual(dense(2) -> layer_norm) -> dense(1) -> squared_error")
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((5, 3)), rng.standard_normal((5, 1))
    one, other = (module.Trainer(module.init(0), learning_rate=0.01) for _ in range(2))
    for _ in range(3):
        assert one.step(X, Y) == pytest.approx(other.step(np.asfortranarray(X), np.asfortranarray(Y)))


def test_a_condition_within_a_recurrence_may_ask_about_the_step_before(module_of):
    network = {
        "equations": "h[n,t,j] = tanh(u*h[n,t-1,j] + where(h[n,t-1,j] > v[j], x[n,t], s))\nL = mean(n, (h[n,T-1,1] - y[n])^2)",
        "inputs": ["x[n,t]"],
        "targets": ["y[n]"],
        "parameters": ["u", "s", "v[j]"],
        "sizes": {"j": 2},
    }
    for style in ("fast", "plain"):
        trains_as_derived(module_of(network, style=style))


def test_the_absolute_value_of_a_logarithm_is_real(module_of):
    network = {"equations": "L = sum(n, abs(y[n]/(3 + log(b^2 + 1))))", "parameters": ["y[n]", "b"], "sizes": {"n": 3}}
    assert module_of(network).check_gradients() < 1e-6
