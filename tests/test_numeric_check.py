"""Claims, right and wrong: none right is refuted, none wrong is accepted, usual slips are named."""

import json
import subprocess
import sys

import pytest

from symbackprop import check, derive

SEED = "two_hidden_one_output"
MLP = "3 -> dense(4, tanh) -> dense(2, softmax) -> cross_entropy"
LINE = "line"
RIGHT = [
    (SEED, "dC/dv_1 = mean(i, -(y[i] - y'[i])*f_B'(z_B[i])*o_1[i])"),
    (SEED, "∂C/∂w_12 = mean(i, (y'[i] - y[i])*f_B'(z_B[i])*v_2*f_A2'(z_A2[i])*x1[i])"),
    (SEED, "dC/dz_B[i] = -(y[i] - y'[i])*f_B'(z_B[i])/m"),
    (SEED, "dC/dv_1 = sum(i, dz_B[i]*o_1[i]) = mean(i, -(y[i] - y'[i])*f_B'(z_B[i])*o_1[i])"),
    (MLP, "dL/dz2[n,k] = (p[n,k] - y[n,k])/N"),
    (MLP, "dL/dW2[h,k] = mean(n, (a2[n,k] - y[n,k])*a1[n,h])"),
    (MLP, "dL/dz1[n,h] = sum(k, dz2[n,k]*W2[h,k])*(1 - a1[n,h]^2)"),
    (MLP, "dL/dW1[i,j] = sum(n, dz1[n,j]*x[n,i])"),
    (MLP, "tanh'(z1[n,h]) = 1 - tanh(z1[n,h])^2"),
    (MLP, "sigmoid'(z1[n,h]) = sigmoid(z1[n,h])*(1 - sigmoid(z1[n,h]))"),
    (LINE, "dL/dslope = mean(n, -2*(y[n] - y'[n])*x[n])"),
    (MLP, "dL/db1[j] = sum(n, dL/dz1[n,j])"),
    (MLP, "dL/dW2[i,j] = sum(n, ∂L/∂z2[n,j]*a1[n,i])"),
    (SEED, "dE[i]/dv_1 = -(y[i] - y'[i])*f_B'(z_B[i])*o_1[i]"),
]
WRONG = [
    (SEED, "dC/dv_1 = mean(i, (y[i] - y'[i])*f_B'(z_B[i])*o_1[i])", "sign"),
    (SEED, "dC/dv_1 = sum(i, -(y[i] - y'[i])*f_B'(z_B[i])*o_1[i])", "1/m is missing"),
    (SEED, "dC/dv_1 = mean(i, -2*(y[i] - y'[i])*f_B'(z_B[i])*o_1[i])", "factor 2 too many"),
    (SEED, "dC/dv_1 = mean(i, -(y[i] - y'[i])*o_1[i])", None),
    (SEED, "dC/dv_1 = mean(i, -(y[i] - y'[i])*f_B(z_B[i])*o_1[i])", None),
    (SEED, "dC/dw_11 = mean(i, -(y[i] - y'[i])*f_B'(z_B[i])*f_A1'(z_A1[i])*x1[i])", None),
    (SEED, "dC/dv_1 = mean(i, -(y[i] - y'[i])*f_B'(z_B[i])/o_1[i])", None),
    (MLP, "dL/dz2[n,k] = p[n,k] - y[n,k]", "1/N is missing"),
    (MLP, "dL/dz2[n,k] = (y[n,k] - p[n,k])/N", "sign"),
    (MLP, "dL/dz2[n,k] = (p[n,k] - y[n,k])/N/N", "1/N too many"),
    (MLP, "dL/dz2[n,k] = (p[n,k] - y[n,k])*p[n,k]*(1 - p[n,k])/N", None),
    (MLP, "dL/dz1[n,h] = sum(k, dz2[n,k]*W2[h,k])*(1 - a1[n,h])*a1[n,h]", None),
    (MLP, "dL/dW1[d,h] = sum(n, dz1[n,h]*x[n,d]) = mean(n, dz1[n,h]*x[n,d])", None),
    (LINE, "dL/dslope = mean(n, -(y[n] - y'[n])*x[n])", "factor 2 is missing"),
]
UNREAD = [
    (SEED, "dC/dq = 3"),
    (SEED, "dC/dv_1 = -(y"),
    (SEED, "dC/dv_1"),
    (MLP, "dL/dz2[n] = p[n,k]"),
    (MLP, "dL/dz2[n,k] = q[n,k]"),
    (MLP, "dL/dz2[n,k] = = 3"),
]
DERIVED = {name: derive(name) for name in (SEED, MLP, LINE)}


@pytest.mark.parametrize(("network", "claim"), RIGHT)
def test_right_claims_are_proved(network, claim):
    assert check(DERIVED[network], claim).verdict == "proved"


def test_an_unfamiliar_form_agrees():
    claim = "tanh'(z1[n,h]) = 4/(exp(z1[n,h]) + exp(-z1[n,h]))^2"
    assert check(DERIVED[MLP], claim).verdict in ("proved", "agrees")


@pytest.mark.parametrize(("network", "claim", "reason"), WRONG)
def test_wrong_claims_are_refuted_with_a_counterexample(network, claim, reason):
    verdict = check(DERIVED[network], claim)
    assert verdict.verdict == "refuted"
    assert verdict.counterexample is not None
    assert verdict.counterexample["left"] != verdict.counterexample["right"]
    if reason is not None:
        assert reason in (verdict.reason or "")
    assert check(DERIVED[network], verdict.correct or "").verdict == "proved"


def test_declared_sizes_are_kept():
    network = derive("3 -> dense(2) -> mean_squared_error")
    assert check(network, "dL/dz1[n,k] = (p[n,k] - y[n,k])/N").verdict in ("proved", "agrees")
    assert check(network, "dL/dz1[n,k] = 2/K*(p[n,k] - y[n,k])/N").verdict == "proved"
    assert check(network, "dL/dz1[n,k] = 1/2*(p[n,k] - y[n,k])/N").verdict == "refuted"


@pytest.mark.parametrize(("network", "claim"), UNREAD)
def test_what_cannot_be_read_is_not_guessed(network, claim):
    verdict = check(DERIVED[network], claim)
    assert verdict.verdict == "not understood"
    assert "<claim>:1:" in (verdict.reason or "")


def test_command_line(tmp_path):
    def run(*claims):
        command = [sys.executable, "-m", "symbackprop", "check", MLP, *claims]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert run(RIGHT[4][1]).returncode == 0
    wrong = run(RIGHT[4][1], WRONG[8][1], "--json")
    assert wrong.returncode == 1
    for entry in json.loads(wrong.stdout):
        assert set(entry) >= {"claim", "verdict", "ratio", "reason", "correct", "counterexample"}
    assert run("nonsense").returncode == 2


@pytest.mark.parametrize(
    ("network", "claim", "verdict"),
    [
        (
            "5x4x1 -> conv(2, 2x3) -> maxpool(2x1) -> flatten -> dense(2) -> softmax_cross_entropy",
            "dL/dz4[n,k] = (p[n,k] - y[n,k])/N",
            "proved",
        ),
        (
            "5x4x1 -> conv(2, 2x3) -> maxpool(2x1) -> flatten -> dense(2) -> softmax_cross_entropy",
            "dL/dz4[n,k] = (y[n,k] - p[n,k])/N",
            "refuted",
        ),
        ("T x 2 -> rnn(3) -> last -> dense(1) -> squared_error", "dL/db1[h] = sum(n, t, dz1[n,t,h])", "proved"),
        ("T x 2 -> rnn(3) -> last -> dense(1) -> squared_error", "dL/dU1[j1,h] = sum(n, t, dz1[n,t,h]*h1[n,t-1,j1])", "proved"),
        ("T x 2 -> rnn(3) -> last -> dense(1) -> squared_error", "dL/dU1[j1,h] = sum(n, t, dz1[n,t,h]*h1[n,t,j1])", "refuted"),
    ],
)
def test_claims_about_windows_and_recurrences(network, claim, verdict):
    assert check(derive(network), claim).verdict == verdict
