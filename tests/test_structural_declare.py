"""Three spellings of one thing, the user's own formulas, and errors that say what, where and what to do."""

import subprocess
import sys
import time

import numpy as np
import pytest

from symbackprop import SymbackpropError, declare, derive, emit
from symbackprop.declare import bundled

HEAD = 'inputs = ["x[n,d]"]\ntargets = ["y[n]"]\nparameters = ["w[d]", "b"]\n'


def equations(text, head=HEAD, tail=""):
    return f"{head}equations = '''\n{text}\n'''\n{tail}"


GOOD = "z[n] = sum(d, x[n,d]*w[d]) + b\nL = mean(n, (z[n] - y[n])^2)"


def test_chain_toml_and_dict_are_the_same():
    chain = "4 -> dense(3, tanh) -> dense(2, softmax) -> cross_entropy"
    by_toml = declare(f'name = "network"\nnetwork = "{chain}"\n')
    by_dict = declare({"network": chain})
    assert str(declare(chain)) == str(by_toml) == str(by_dict)


def test_file(tmp_path):
    path = tmp_path / "n.toml"
    path.write_text(equations(GOOD), encoding="utf-8")
    assert declare(str(path)).name == "n"
    assert str(declare(path)) == str(declare(equations(GOOD)))


def test_bundled_networks_declare_and_derive():
    assert {"line", "two_hidden_one_output", "layered", "xor", "iris", "digits"} <= set(bundled())
    for name in bundled():
        derive(name)


def test_own_activation_loss_and_layer(module_of):
    text = """
    network = "3 -> dense(4, swish) -> shift -> dense(2) -> weighted"
    [activation.swish]
    formula = "z/(1 + exp(-beta*z))"
    beta = 1.5
    [layer.shift]
    equations = "z[i] = g[i]*x[i] + c[i]"
    parameters = ["g[i]", "c[i]"]
    [loss.weighted]
    formula = "weight*abs(p - y)^1.5"
    weight = 2
    """
    module = module_of(text)
    assert {"g2", "c2"} <= set(module.init())
    assert module.check_gradients() < 1e-6


def test_sum_inside_a_function_gets_a_name(module_of):
    text = equations("L = mean(n, log(1 + sum(d, x[n,d]*w[d])^2) + b*y[n])")
    network = declare(text)
    assert [e.name for e in network.equations] == ["s1", "L"]
    assert module_of(text, sizes={"d": 3}).check_gradients() < 1e-6


def test_the_same_letter_may_be_summed_twice(module_of):
    text = equations("L = mean(n, sum(d, x[n,d]*w[d])*sum(d, w[d]^2) + b*y[n])")
    assert module_of(text, sizes={"d": 3}).check_gradients() < 1e-6


def test_keywords_greek_letters_and_primes_as_names(module_of):
    text = equations(
        "lambda'[n] = sum(d, x[n,d]*θ[d]) + if_\nL = mean(n, (lambda'[n] - y[n])^2)",
        'inputs = ["x[n,d]"]\ntargets = ["y[n]"]\nparameters = ["θ[d]", "if_"]\n',
    )
    assert module_of(text, sizes={"d": 3}).check_gradients() < 1e-6


def test_network_without_examples(module_of):
    text = 'inputs = ["x"]\ntargets = ["y"]\nparameters = ["w", "v"]\nequations = "L = (v*tanh(w*x) - y)^2"'
    module = module_of(text)
    assert module.check_gradients() < 1e-6
    params, history = module.fit({"x": 0.5}, {"y": 0.3}, epochs=50, learning_rate=0.5, schedule="constant")
    assert history[-1]["loss"] < 1e-3 * history[0]["loss"]
    assert np.shape(params["w"]) == ()


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("64 -> dens(10) -> cross_entropy", "unknown layer 'dens'; did you mean 'dense'?", (1, 7)),
        ("64 -> dense(10, rellu) -> cross_entropy", "did you mean 'relu'?", (1, 17)),
        ("64 -> dense(10) -> cros_entropy", "did you mean 'cross_entropy'?", (1, 20)),
        ("64 -> dense() -> cross_entropy", "needs units", (1, 7)),
        ("64 -> dense(relu) -> cross_entropy", "needs units before the activation", (1, 13)),
        ("64 -> dense(0) -> cross_entropy", "positive whole number", (1, 13)),
        ("64 -> dense(3, bias=maybe) -> squared_error", "true or false", (1, 21)),
        ("64 -> dense(3, unit=4) -> squared_error", "has no argument 'unit'", (1, 21)),
        ("64 -> dense(3) -> dense(2)", "ends in a loss", (1, 19)),
        ("-> dense(3) -> squared_error", "shape of one example", (1, 1)),
        ("64 -> dense(3 -> squared_error", "to close 'dense('", (1, 15)),
        (equations("z[n] = sum(d, x[n,d]*w[d]) + c\nL = mean(n, z[n])"), "unknown name 'c'", (5, 30)),
        (equations("z[n] = sum(d, x[n,d]*w[d]) + b\nL = mean(n, tanhh(z[n]))"), "did you mean 'tanh'?", (6, 13)),
        (equations("z[n] = sum(d, x[d]*w[d])\nL = mean(n, z[n])"), "'x' has 1 index here but is declared as x[n,d]", (5, 15)),
        (equations("z[n] = x[n,d]*w[d]\nL = mean(n, z[n])"), "'d' is neither summed nor on the left", (5, 12)),
        (equations("z[n] = b\nz[n] = b\nL = mean(n, z[n])"), "'z' is already defined", (6, 1)),
        (equations("L = mean(n, z[n])\nz[n] = b"), "'z' is computed by a later equation", (5, 13)),
        (equations("z[n] = sum(d, x[n,d]*w[d])"), "the loss must be a scalar", (5, 1)),
        (equations(GOOD, HEAD + 'functions = ["f g"]\n'), "expected an operator or the end", (4, 17)),
        (equations(GOOD, HEAD.replace('"b"', '"w[n]"')), "declared twice", (3, 24)),
        (equations(GOOD, HEAD + "inputz = []\n"), "unknown key 'inputz'; did you mean 'inputs'?", (4, 1)),
        (equations(GOOD, tail="[sizes]\nd = -3\n"), "positive whole number", (9, 1)),
        (equations("z[n] = 1/0\nL = mean(n, z[n])"), "division by zero", (5, 9)),
        (equations("z[n] = (b\nL = mean(n, z[n])"), "to close the bracket", (6, 1)),
        (equations("z[n] = b @ 3\nL = b"), "has no place in a formula", (5, 10)),
        (equations("z[n] = where(b, 1, 0)\nL = b"), "is a comparison", (5, 14)),
        (equations(GOOD, "inputs = ['x[n,d]'\n"), "this is not TOML", None),
    ],
)
def test_a_bad_network_is_told_with_its_place(text, message, place):
    with pytest.raises(SymbackpropError) as caught:
        declare(text)
    assert message in str(caught.value)
    if place is not None:
        assert caught.value.place is not None
        assert (caught.value.place.line, caught.value.place.column) == place
        assert "^" in str(caught.value)


def test_sizes_that_contradict_each_other():
    text = equations("L = sum(d, x[e,d]*w[e]) + b*sum(n, y[n])", tail="[sizes]\nn = 3\nd = 4\ne = 5\n")
    with pytest.raises(SymbackpropError):
        declare(text)


def test_facts_are_used_and_checked(module_of):
    text = """
    inputs = ["x[n,d]"]
    targets = ["t[n,k]"]
    parameters = ["W[d,k]"]
    equations = '''
    z[n,k] = sum(d, x[n,d]*W[d,k])
    S[n] = sum(k, exp(z[n,k]))
    q[n,k] = exp(z[n,k])/S[n]
    L = mean(n, -sum(k, t[n,k]*log(q[n,k])))
    '''
    [sizes]
    d = 3
    k = 4
    [facts]
    "sum(k, t[n,k])" = "1"
    """
    derivation = derive(text)
    assert any(f.why == "declared" for f in derivation.facts)
    module = module_of(text)
    assert "(q - t) / N" in emit(derivation)
    with pytest.raises(ValueError, match="must satisfy"):
        module.loss(module.init(), np.zeros((2, 3)), np.ones((2, 4)))


@pytest.mark.parametrize(
    ("activation", "deviation"),
    [("relu", np.sqrt(2 / 400)), ("selu", np.sqrt(1 / 400)), ("tanh", np.sqrt(6 / 700) / np.sqrt(3))],
)
def test_weights_start_as_the_activation_asks(activation, deviation, module_of):
    weights = module_of(f"400 -> dense(300, {activation}) -> squared_error").init(seed=0)
    assert np.std(weights["W1"]) == pytest.approx(deviation, rel=0.02)
    assert not weights["b1"].any()


def test_missing_file_and_near_names(tmp_path):
    with pytest.raises(SymbackpropError, match="did you mean 'digits'"):
        declare("digitz")
    (tmp_path / "mine.toml").write_text("")
    with pytest.raises(SymbackpropError, match=r"did you mean 'mine\.toml'"):
        declare(str(tmp_path / "mime.toml"))


def test_abstract_functions_cannot_be_emitted():
    with pytest.raises(SymbackpropError, match=r"\[activation\.f_A1\]"):
        emit("two_hidden_one_output")


HOSTILE = [
    equations("L = __import__('os').system('touch /tmp/owned')"),
    equations("L = eval(b)"),
    equations("L = b.__class__"),
    equations("L = lambda: 0"),
    equations("L = 9**9**9**9"),
    equations("L = 9^9^9^9 + b"),
    equations("L = max(0, exp(exp(exp(exp(100)))))"),
    equations("L = b*10^(10^10)"),
    equations("L = b^(1/3)^1000000"),
    equations("L = " + "(" * 5000 + "b" + ")" * 5000),
    equations("L = " + "-" * 5000 + "b"),
    equations("L = " + "b^" * 5000 + "b"),
    equations("L = " + "9" * 100_000),
    equations("L = 1e999999999"),
    equations("L = " + "+".join(["b"] * 120_000)),
    equations(GOOD, 'inputs = ["x[n,d]; import os"]\n'),
    equations(GOOD, HEAD + 'functions = ["f\\nimport os"]\n'),
    equations(GOOD, HEAD.replace('"b"', "\"b'''\\\"\"")),
    equations(GOOD, tail='[activation."f(x):\\n    import os"]\nformula = "z"\n'),
    equations(GOOD, tail="[constants]\n\"__import__('os')\" = 1\n"),
    equations(GOOD, 'name = "a\\nimport os"\n' + HEAD),
    equations(GOOD, tail="[train]\nlearning_rate = \"__import__('os').system('touch owned')\"\n"),
    equations(GOOD, tail='[train]\nepochs = "evil()"\n'),
    equations(GOOD, tail="[train]\nbatch_size = [1]\n"),
    equations(GOOD, tail='[train]\ndata = "../../secret"\n'),
    "9" * 5000 + " -> dense(3) -> squared_error",
    "3 -> " + "dense(" * 5000,
    "a = " + "[" * 5000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_specs_are_refused_at_once(text):
    began = time.process_time()
    with pytest.raises(SymbackpropError):
        declare(text)
    assert time.process_time() - began < 2


def test_names_cannot_run_in_the_emitted_module(tmp_path):
    """A docstring, a comment or a name of the module holds nothing that could be code."""
    text = 'name = "\\"\\"\\" + evil() #\\\\"\n' + equations(GOOD)
    source = emit(text)
    compile(source, "module", "exec")
    assert "evil()" not in source.replace("''' + evil()", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["derive", "64 -> dens(10) -> cross_entropy"],
        ["derive", "nowhere.toml"],
        ["derive", "digits", "--wrt", "W9"],
        ["emit", "two_hidden_one_output", "-o", "out.py"],
        ["emit", "digits", "-o", "out.py", "--target", "nump"],
        ["emit", "digits", "-o", "nowhere/out.py"],
        ["train", "two_hidden_one_output"],
        ["train", "digits", "nowhere.csv"],
        ["train", "digits", "--optimizer", "adams"],
    ],
)
def test_the_command_line_ends_with_2_and_writes_nothing(arguments, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "symbackprop", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()
    assert list(tmp_path.iterdir()) == []
