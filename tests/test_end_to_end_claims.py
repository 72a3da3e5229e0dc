"""Claims by the command line, in files and documents, in tests of other projects, and as hand-written code."""

import json
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from symbackprop import assert_formula, verify
from symbackprop.errors import DataError

MLP = "3 -> dense(4, tanh) -> dense(2) -> squared_error"
TOML = r"""
network = "3 -> dense(4, tanh) -> dense(2, softmax) -> cross_entropy"
[[claim]]
name = "Ada <b>"
text = 'dL/dz2 = (p - y)/N'
[[claim]]
name = "Ben"
points = 4
text = '\frac{\partial L}{\partial z^{(1)}} = \delta^{(1)} = \left(\delta^{(2)} W^{(2)\top}\right) \odot \tanh(z^{(1)})'
[[claim]]
name = "Cem"
notation = "batch=columns"
text = 'dL/dW2 = a1 (p - y)^T / N'
"""
MARKDOWN = r"""
# Notes
<!-- symbackprop: network = two_hidden_one_output -->
The chain rule gives $\frac{\partial z_B}{\partial v_1} = o_1$ and
$$
\begin{aligned}
\frac{\partial L}{\partial v_1} &= -(y-y')\,\frac{\partial y'}{\partial v_1} \\
  &= (y-y')\,f_B'(z_B)\,o_1
\end{aligned}
$$
<!-- symbackprop: skip -->
where $m = 2$ is no claim.
"""


def run(tmp_path, *arguments):
    command = [sys.executable, "-m", "symbackprop", "check", *map(str, arguments)]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)


def test_marking_a_file_of_answers(tmp_path):
    (tmp_path / "answers.toml").write_text(TOML, encoding="utf-8")
    done = run(tmp_path, "--file", "answers.toml", "--report", "marks.html", "--json")
    assert done.returncode == 1, done.stderr
    verdicts = json.loads(done.stdout)
    assert [v["verdict"] for v in verdicts] == ["proved", "refuted", "proved"]
    assert (verdicts[1]["holds"], verdicts[1]["equalities"]) == (1, 2)
    page = (tmp_path / "marks.html").read_text(encoding="utf-8")
    HTMLParser().feed(page)
    assert "Ada &lt;b&gt;" in page
    assert "2 of 4" in page  # half of Ben's points
    assert "4 of 6 points" in page
    assert "<mark>" in page
    again = run(tmp_path, "--file", "answers.toml", "--report", "marks.html")
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_a_document(tmp_path):
    (tmp_path / "notes.md").write_text(MARKDOWN, encoding="utf-8")
    done = run(tmp_path, "--file", "notes.md")
    assert done.returncode == 1
    assert "notes.md:4: proved" in done.stdout
    assert "refuted" in done.stdout
    assert "the sign is the other way round" in done.stdout
    assert "equality 2 of 2" in done.stdout


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        ("claim = 3", "a.toml", "there is no claim here"),
        ("[[claim]]\nname = 'x'", "a.toml", "has no text"),
        ("[[claim]]\ntext = 'a = b'\nnotes = 1", "a.toml", "unknown key 'notes'"),
        ("[[claim]\ntext", "a.toml", "no TOML"),
        ("<!-- symbackprop: netwrk = line -->\n$a = b$", "a.md", "no directive"),
        ("$a = b$", "a.md", "say which network"),
    ],
)
def test_files_that_are_not_understood(tmp_path, content, name, words):
    (tmp_path / name).write_text(content, encoding="utf-8")
    done = run(tmp_path, "--file", name)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_the_pytest_plugin(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "notes.md").write_text(MARKDOWN, encoding="utf-8")
    (tmp_path / "test_own.py").write_text("def test_own():\n    pass\n", encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\ncheck_formulas = docs/*.md\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "the sign is the other way round" in done.stdout
    assert "Traceback" not in done.stdout


# ---------------------------------------------------------------------- hand-written code


def backward(x, W1, b1, W2, b2, y):
    n = len(x)
    a1 = np.tanh(x @ W1 + b1)
    dz2 = 2 * (a1 @ W2 + b2 - y) / n
    dz1 = dz2 @ W2.T * (1 - a1**2)
    return {"dW1": x.T @ dz1, "db1": dz1.sum(0), "dW2": a1.T @ dz2, "db2": dz2.sum(0)}


def changed(key, change):
    def function(x, W1, b1, W2, b2, y):
        found = backward(x, W1, b1, W2, b2, y)
        return {**found, key: change(found[key], x=x, W1=W1, b1=b1, W2=W2, b2=b2, y=y)}

    return function


def without_activation(value, x, W1, b1, W2, b2, y):
    dz2 = 2 * (np.tanh(x @ W1 + b1) @ W2 + b2 - y) / len(x)
    return x.T @ (dz2 @ W2.T)


@pytest.mark.parametrize(
    ("key", "change", "words"),
    [
        ("dW1", lambda v, **_: v.T, "dW1 is transposed"),
        ("db1", lambda v, x, **_: v / len(x), "averaged twice"),
        ("dW2", lambda v, **_: -v, "dW2: the sign is the other way round"),
        ("db2", lambda v, x, **_: v * len(x), "a sum where the loss is a mean"),
        ("dW1", without_activation, "the derivative of the activation"),
    ],
)
def test_a_wrong_backward_pass_is_explained(key, change, words):
    assert verify(backward, MLP)
    result = verify(changed(key, change), MLP)
    assert not result
    assert words in str(result)
    assert str(result).count(": right") == 3


def test_a_backward_pass_that_overflows():
    stable = verify(lambda x, dout: dout / (1 + np.exp(-np.clip(x, -700, 700))), "log(1 + exp(x))")
    assert stable, stable
    with np.errstate(all="ignore"):
        result = verify(lambda x, dout: dout * np.exp(x) / (1 + np.exp(x)), "log(1 + exp(x))")
    assert "not finite where x is large" in str(result)


def test_a_torch_function():
    import torch

    class Mish(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * torch.tanh(torch.nn.functional.softplus(x))

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            t = torch.tanh(torch.nn.functional.softplus(x))
            return grad * (t + x * (1 - t * t) * torch.sigmoid(x))

    class Wrong(Mish):
        @staticmethod
        def backward(ctx, grad):
            return -Mish.backward(ctx, grad)

    assert verify(Mish, "x*tanh(log(1 + exp(x)))")
    assert "the sign is the other way round" in str(verify(Wrong, "x*tanh(softplus(x))"))


def test_a_jax_function():
    jax = pytest.importorskip("jax")

    @jax.custom_vjp
    def product(x, w):
        return x @ w

    def forward(x, w):
        return x @ w, (x, w)

    def wrong(stored, g):
        x, w = stored
        return g @ w.T, 2 * (x.T @ g)

    product.defvjp(forward, wrong)
    result = verify(product, "out[n,k] = sum(d, x[n,d]*w[d,k])")
    assert "dx: right" in str(result)
    assert "dw: there is a factor 2 too many" in str(result)


def test_functions_that_are_not_understood():
    with pytest.raises(DataError, match="the parameter 'weights' is no array"):
        verify(lambda x, weights: x, MLP)
    with pytest.raises(DataError, match="returns 1 arrays, and 4 are expected"):
        verify(lambda x: x, MLP)


def test_assert_formula():
    assert_formula(MLP, "dL/dz2 = 2 (z2 - y)/N")
    with pytest.raises(AssertionError, match="the factor 1/N is missing"):
        assert_formula(MLP, "dL/dz2[n,k] = 2*(z2[n,k] - y[n,k])")
