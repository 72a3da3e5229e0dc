"""The closed forms that a reader expects, found by folding alone, and what is on record about them."""

import json
import math
import random

import pytest
import sympy

from symbackprop import declare, derive, explain
from symbackprop.algebra import _is_irreducible
from symbackprop.declare import bundled
from symbackprop.derive import closed_form
from symbackprop.write import Writer, style_of


def written(derivation):
    writer = Writer(style_of(derivation.network, derivation.adjoints))
    return {e.name: writer.terms(e.terms) for e in derivation.equations}


@pytest.mark.parametrize(
    ("chain", "name", "form"),
    [
        ("3 -> dense(4, sigmoid) -> dense(2) -> squared_error", "dz1", "da1[n,h]*a1[n,h]*(1 - a1[n,h])"),
        ("3 -> dense(4, tanh) -> dense(2) -> squared_error", "dz1", "da1[n,h]*(1 - a1[n,h]**2)"),
        ("3 -> dense(4, relu) -> dense(2) -> squared_error", "dz1", "da1[n,h]*where(z1[n,h] > 0, 1, 0)"),
        ("3 -> dense(4, softplus) -> dense(2) -> squared_error", "dz1", "da1[n,h]*sigmoid(z1[n,h])"),
        ("3 -> dense(4, softsign) -> dense(2) -> squared_error", "dz1", "da1[n,h]/(1 + abs(z1[n,h]))**2"),
        ("3 -> dense(2, softmax) -> cross_entropy", "dz1", "(a1[n,k] - y[n,k])/N"),
        ("3 -> dense(2) -> softmax_cross_entropy", "dz1", "(p[n,k] - y[n,k])/N"),
        ("3 -> dense(2, sigmoid) -> binary_cross_entropy", "dz1", "(a1[n,k] - y[n,k])/N"),
        ("3 -> dense(2) -> sigmoid_cross_entropy", "dz1", "(p[n,k] - y[n,k])/N"),
        ("3 -> dense(2, log_softmax) -> negative_log_likelihood", "dz1", "(exp(a1[n,k]) - y[n,k])/N"),
        ("3 -> dense(2, softmax) -> kl_divergence", "dz1", "(a1[n,k] - y[n,k])/N"),
        ("3 -> dense(2) -> half_squared_error", "dz1", "(z1[n,k] - y[n,k])/N"),
    ],
)
def test_textbook_form(chain, name, form):
    assert written(derive(chain))[name] == form


def test_a_sigmoid_that_somebody_spelled_out_folds_like_the_named_one():
    spelled = """
    inputs = ["x[n,d]"]
    targets = ["y[n]"]
    parameters = ["w[d]"]
    equations = '''
    z[n] = sum(d, x[n,d]*w[d])
    q[n] = exp(z[n])/(1 + exp(z[n]))
    L = mean(n, -(y[n]*log(q[n]) + (1 - y[n])*log(1 - q[n])))
    '''
    """
    assert written(derive(spelled))["dz"] == "(q[n] - y[n])/N"


def test_tanh_that_somebody_spelled_out():
    spelled = """
    inputs = ["x[n]"]
    targets = ["y[n]"]
    parameters = ["w"]
    equations = '''
    z[n] = w*x[n]
    a[n] = (exp(z[n]) - exp(-z[n]))/(exp(z[n]) + exp(-z[n]))
    L = mean(n, (a[n] - y[n])^2)
    '''
    """
    form = written(derive(spelled))["dz"]
    assert form in ("da[n]*(1 - a[n]**2)", "da[n]*(1 + a[n])*(1 - a[n])")


def test_seed_network():
    derivation = derive("two_hidden_one_output")
    writer = Writer(style_of(derivation.network, derivation.adjoints))
    forms = {n: writer.terms(closed_form(derivation, n).terms) for n in derivation.wrt}
    assert forms["v_1"] == "mean(i, -(y[i] - y'[i])*f_B'(z_B[i])*o_1[i])"
    assert forms["w_12"] == "v_2*mean(i, -(y[i] - y'[i])*f_B'(z_B[i])*f_A2'(z_A2[i])*x1[i])"
    text = explain(derivation, "text", "scalar")
    assert "−(y − y')·f_B'(z_B)·o_1" in text


def test_layered_prints_an_update_for_every_layer():
    text = explain(derive("layered"), "text", "matrix")
    for layer in "123":
        assert f"ΔP{layer}[" in text
    assert "= −α·∂C/∂P1" in text
    assert "c'(o[n,q], ℓ[n,q])" in text
    assert "s2ᵀ" in text.lower()


def test_matrix_form_uses_the_transposed_input():
    text = explain(derive("3 -> dense(4, tanh) -> dense(2, softmax) -> cross_entropy"), "text", "matrix")
    assert "∂L/∂W1 = Xᵀ Δ1" in text
    assert "∂L/∂W2 = A1ᵀ Δ2" in text
    assert "∂L/∂A1 = Δ2 W2ᵀ" in text
    assert "Δ1 = ∂L/∂A1 ⊙ (1 − A1^⊙2)" in text
    assert "Δ2 = 1/N (A2 − Y)" in text


def test_every_factor_says_which_kind_it_is():
    derivation = derive("3 -> dense(4, tanh, l2=0.1) -> dense(2, softmax) -> cross_entropy")
    kinds = {(s.target.name, s.source.name): s.kind for s in derivation.steps}
    assert kinds["L", "a2"] == "loss"
    assert kinds["a1", "z1"] == "activation"
    assert kinds["z2", "a1"] == "weight"
    assert kinds["z2", "W2"] == "signal"
    assert kinds["L", "W1"] == "penalty"


def test_the_answer_comes_first():
    for name in ("digits", "two_hidden_one_output"):
        head = explain(derive(name), "text").splitlines()[:8]
        assert any("Both: the derivative of the loss once, at the output" in line for line in head)
    only_loss = explain(derive("3 -> dense(2) -> squared_error"), "text")
    assert "Only the derivative of the loss" in only_loss


def test_steps_and_rewrites_chain_from_the_raw_to_the_folded_equation():
    derivation = derive("3 -> dense(4, sigmoid) -> dense(2, softmax) -> cross_entropy")
    final = {e.name: e for e in derivation.equations}
    for raw in derivation.raw:
        if raw.name not in final:
            continue
        current = raw
        for rewrite in derivation.rewrites:
            if rewrite.after.name == raw.name:
                assert rewrite.before == current
                current = rewrite.after
        assert current == final[raw.name]


def test_json_has_the_promised_keys():
    for name in bundled():
        data = json.loads(explain(derive(name), "json"))
        assert {"network", "loss", "gradients", "steps"} <= set(data)
        parameters = {a.name for a in declare(name).arrays if a.role == "parameter"}
        assert set(data["gradients"]) == parameters
        for gradient in data["gradients"].values():
            assert {"index", "matrix", "scalar", "numpy", "formula"} <= set(gradient)
        for step in data["steps"]:
            assert {"rule", "why", "before", "after"} <= set(step)


def test_fact_is_needed_for_softmax_with_cross_entropy():
    """Without the fact that labels sum to one, `p - y` would be wrong, and is not printed."""
    own = """
    network = "3 -> dense(2, softmax) -> own"
    [loss.own]
    formula = "-sum(k, y[k]*log(p[k]))"
    """
    form = written(derive(own))["dz1"]
    assert form != "(a1[n,k] - y[n,k])/N"
    assert "sum(" in form


def test_reduction_sum():
    form = written(derive({"network": "3 -> dense(2, softmax) -> cross_entropy", "reduction": "sum"}))
    assert form["dz1"] == "a1[n,k] - y[n,k]"


def test_wrt_an_input():
    derivation = derive("3 -> dense(2, tanh) -> squared_error", wrt=["x"])
    assert [e.name for e in derivation.equations][-1] == "dx"
    assert written(derivation)["dx"] == "sum(k, dz1[n,k]*W1[d,k])"


CHAIN = "3 -> dense(4, tanh) -> dense(2, softmax) -> cross_entropy"


@pytest.mark.parametrize(
    ("notation", "lines"),
    [
        ("batch=columns", ("∂L/∂W1 = X Δ1ᵀ", "∂L/∂A1 = W2 Δ2", "∂L/∂b2 = Δ2 𝟏", "in matrices examples are columns")),
        ("layout=numerator", ("∂L/∂W1 = Δ1 X", "∂L/∂W2 = Δ2 A1", "numerator layout")),
        ("batch=columns, layout=numerator", ("∂L/∂W1 = Δ1ᵀ Xᵀ", "∂L/∂A1 = Δ2 W2ᵀ")),
        ("prediction=ŷ", ("Δ2 = 1/N (Ŷ − Y)", "ŷ[n,k] = ")),
        ("derivative=d", ("dL/dW1 = Xᵀ Δ1",)),
        ("derivative=nabla", ("∇_{W1} L = Xᵀ Δ1",)),
    ],
)
def test_notation_is_the_readers(notation, lines):
    text = explain(derive(CHAIN), "text", "matrix", notation=notation) + explain(derive(CHAIN), "text", notation=notation)
    for line in lines:
        assert line in text


def test_notation_in_latex_and_that_declared_names_win():
    from symbackprop.explain import fragment

    latex = fragment(derive(CHAIN), "latex", "index", "layer=[l], derivative=∇, prediction=ŷ")
    assert r"\nabla_{W^{[1]}_{dh}} L = " in latex
    assert r"\hat{y}_{nk} - y_{nk}" in latex
    assert r"W_{1,dh}" in fragment(derive(CHAIN), "latex", "index", "layer=sub")
    own = explain(derive("two_hidden_one_output"), "text", "scalar", notation="prediction=a")
    assert "−(y − y')·f_B'(z_B)·o_1" in own


@pytest.mark.parametrize("notation", ["batch=diagonal", "batches=rows", "nonsense"])
def test_unknown_notation_is_refused(notation):
    from symbackprop import SymbackpropError

    with pytest.raises(SymbackpropError):
        explain(derive(CHAIN), "text", notation=notation)


def test_optimisers_are_explained_from_their_own_equations():
    from symbackprop.catalogue import OPTIMISERS

    for name in OPTIMISERS:
        text = explain(derive({"network": CHAIN, "train": {"optimizer": name, "schedule": "cosine"}}), "text")
        assert f"With {name}" in text
        assert "w ← w − " in text
        assert "(cosine)" in text
    page = explain(derive("xor"), "html")
    assert "With adam (Kingma, Ba 2015)" in page


def test_what_is_taken_for_irreducible_cannot_be_split():
    draw, letters = random.Random(1), sympy.symbols("v00:05")

    def polynomial(count):
        parts = [math.prod(draw.choice(letters) ** draw.choice((0, 1, 1, 2)) for _ in range(3)) for _ in range(count)]
        return sum(draw.choice((-3, -1, sympy.Rational(1, 2), 2)) * part for part in parts)

    found = {True: 0, False: 0}
    for k in range(120):
        p = sympy.expand(polynomial(3) if k % 2 else polynomial(2) * polynomial(2))
        factors = [f for f, power in sympy.factor_list(p)[1] for _ in range(power) if f not in letters]
        if _is_irreducible(p):
            assert len(factors) <= 1, p
        found[_is_irreducible(p)] += 1
    assert min(found.values()) > 20
