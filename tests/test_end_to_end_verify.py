"""Hand-written backward passes: right ones in all their forms, wrong ones with their causes, and what is asked for."""

import functools
import math

import numpy as np
import pytest

from symbackprop import SymbackpropError, verify
from symbackprop.errors import DataError

from .test_end_to_end_claims import MLP, backward
from .wrong_backward import BASES, HELD_OUT, TRAINED, function_of, wrong_function

MATMUL = "out[n,k] = sum(d, x[n,d]*W[d,k])"
SOFTMAX = "p[n,k] = exp(z[n,k])/sum(j, exp(z[n,j]))"
RMS = "r[n] = 1/sqrt(mean(k, x[n,k]^2) + eps)\nout[n,k] = x[n,k]*r[n]*w[k]"
ROTARY = "out[n,q] = x[n,q]*c[n] + where(q < 1, -x[n,1]*s[n], x[n,0]*s[n])"


# ---------------------------------------------------------------------- causes


@pytest.mark.parametrize("base", BASES)
def test_what_is_right_is_right(base):
    result = verify(function_of(BASES[base][1]), BASES[base][0])
    assert result, result


@pytest.mark.parametrize(("base", "right", "wrong", "words"), TRAINED)
def test_the_cause_is_named_once(base, right, wrong, words):
    result = verify(wrong_function(base, right, wrong), BASES[base][0])
    assert not result
    assert any(w in str(result) for w in words), result
    roots = {f.follows for f in result.findings if f.follows}
    assert all(any(f.name == r and not f.follows for f in result.findings) for r in roots)


def test_causes_of_slips_that_were_not_looked_at_before():
    named = 0
    for base, right, wrong, words in HELD_OUT:
        result = verify(wrong_function(base, right, wrong), BASES[base][0])
        assert not result, (base, right, wrong)
        named += any(w in str(result) for w in words)
    assert named >= 0.8 * len(HELD_OUT)


def test_what_follows_is_listed_as_following():
    result = verify(wrong_function("mlp", "/ n", "/ 1"), MLP)
    assert [f.follows for f in result.findings] == ["dW2", "dW2", "", "dW2"]
    assert str(result).count("1/N is missing") == 1


def test_two_slips_are_both_named():
    text = BASES["mlp"][1].replace("/ n", "/ 1").replace("(1 - a1**2)", "1")
    result = str(verify(function_of(text), MLP))
    assert "the factor 1/N is missing" in result
    assert "the derivative of the activation" in result


# ---------------------------------------------------------------------- what is missing


def test_what_is_missing_is_wrong():
    result = verify(lambda x, W1, b1, W2, b2, y: {}, MLP)
    assert str(result) == "dW1 is missing\ndb1 is missing\ndW2 is missing\ndb2 is missing"
    without = BASES["mlp"][1].replace("b1=db1, ", "")
    assert str(verify(function_of(without), MLP)) == "dW1: right\ndb1 is missing\ndW2: right\ndb2: right"
    assert verify(function_of(without), MLP, wrt=["W1", "W2"])


def test_none_of_torch_is_missing():
    import torch

    class Half(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, W):
            ctx.save_for_backward(W)
            return x @ W

        @staticmethod
        def backward(ctx, g):
            return g @ ctx.saved_tensors[0].T, None

    for wrt in ((), ("x", "W")):
        assert str(verify(Half, MATMUL, wrt)) == "dx: right\ndW is missing"
    assert verify(Half, MATMUL, ["x"])


# ---------------------------------------------------------------------- arguments


def test_an_array_comes_before_what_comes_from_above():
    assert verify(lambda x, g, dout: (dout * g, dout * x), "x*g")
    assert verify(lambda x, dy, dout: (dout * dy, dout * x), "x*dy")
    assert verify(lambda x, dout, upstream: (upstream * dout, upstream * x), "x*dout")
    assert verify(lambda x, g: g * np.cos(x), "sin(x)")
    assert verify(lambda a, b, c: (c * b, c * a), "x*g", arguments=["x", "g", "dout"])
    assert verify(lambda *a: (a[2] * a[1], a[2] * a[0]), "x*g", arguments=["x", "g", "dout"])


@pytest.mark.parametrize(
    ("function", "formula", "options", "words"),
    [
        (lambda a, b, dout: (dout * b, dout * a), "x*g", {}, "say what stands for it with arguments="),
        (lambda g, x, dout: (dout * x, dout * g), "x*g", {}, "say with wrt= in which order"),
        (lambda x, eps, dout: dout, "x", {}, "constants={'eps': …}"),
        (lambda *a: a[0], "x", {}, "arguments=['x', 'dout']"),
        (np.sin, "sin(x)", {}, "does not tell its parameters"),
        (dict, "x", {}, "no torch.autograd.Function"),
        (lambda x, dout: dout.reshape(2, 5), "x", {}, "the function fails: ValueError"),
        (lambda x, dout: "text", "x", {}, "no array of numbers"),
        (lambda x, dout: dout + 1j, "x", {}, "complex"),
        (lambda x, dout: (dout, dout, dout), "x", {}, "returns 3 arrays, and 1 are expected"),
        (lambda x, dout: dout, "x", {"dtype": "int8"}, "no type"),
        (lambda x, dout: dout, "x", {"wrt": ["q"]}, "no array 'q'"),
        (lambda x, dout: dout, "x*W[", {}, "expected a number"),
        (backward, MLP, {"sizes": {"d": 4}}, "a network declares its sizes itself"),
    ],
)
def test_what_is_not_clear_is_asked_for(function, formula, options, words):
    with pytest.raises(SymbackpropError) as caught:
        verify(function, formula, **options)
    assert words in str(caught.value)


# ---------------------------------------------------------------------- sizes


def rotary(x, c, s, dout):
    one, two = dout[:, 0], dout[:, 1]
    dx = np.stack([one * c + two * s, two * c - one * s], -1)
    return dx, (dout * x).sum(-1), two * x[:, 0] - one * x[:, 1]


def rotary_layer(x, c, s, v):
    return rotary(x, c, s, v)


def convolution(x, w, dout):
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for p in range(len(w)):
        dx[:, p : p + dout.shape[1]] += dout * w[p]
        dw[p] = (dout * x[:, p : p + dout.shape[1]]).sum()
    return dx, dw


def pooling(x, dout):
    pairs = x.reshape(len(x), -1, 2)
    return ((pairs == pairs.max(2, keepdims=True)) * dout[..., None]).reshape(x.shape)


def gated_halves(x, dout):
    a, b = np.split(x, 2, 1)
    s = 1 / (1 + np.exp(-b))
    return np.concatenate([dout * s, dout * a * s * (1 - s)], 1)


def test_declared_sizes_are_kept():
    assert verify(rotary, ROTARY, sizes={"q": 2})
    table = {
        "name": "rotary",
        "equations": f"{ROTARY}\nL = sum(n, q, out[n,q]*v[n,q])",
        "inputs": ["x[n,q]", "c[n]", "s[n]", "v[n,q]"],
        "sizes": {"q": 2},
    }
    assert verify(rotary_layer, table, wrt=["x", "c", "s"])


def test_windows_and_halves():
    assert verify(convolution, "out[n,i] = sum(p, x[n,i+p]*w[p])")
    assert verify(pooling, "out[n,i] = max(p, x[n,2*i+p])", sizes={"p": 2})
    assert verify(gated_halves, "out[n,i] = x[n,i]*sigmoid(x[n,i+I])")
    assert verify(gated_halves, "out[n,i] = x[n,i]*sigmoid(x[n,i+3])", sizes={"i": 3})
    assert not verify(lambda x, dout: gated_halves(x, dout) * 2, "out[n,i] = x[n,i]*sigmoid(x[n,i+I])")


# ---------------------------------------------------------------------- signatures


def rms(x, w, eps, dout):
    r = 1 / np.sqrt((x**2).mean(1, keepdims=True) + eps)
    g = dout * w
    return r * (g - x * r * r * (g * x).mean(1, keepdims=True)), (dout * x * r).sum(0)


def test_constants():
    assert verify(rms, RMS, constants={"eps": 1e-2})
    assert verify(lambda x, w, dout, eps=1e-2: rms(x, w, eps, dout), RMS.replace("eps", "0.01"))
    result = verify(lambda x, w, dout: rms(x, w, 0, dout), RMS, constants={"eps": 1e-2})
    assert "the small constant eps is forgotten" in str(result)


def test_classes_by_their_numbers():
    def function(x, W1, b1, y):
        z = x @ W1 + b1
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        p[np.arange(len(x)), y] -= 1
        return {"loss": 0.0, "W1": x.T @ p / len(x), "b1": p.mean(0)}

    result = verify(function, "4 -> dense(3, softmax) -> cross_entropy")
    assert "dW1: right" in str(result)
    assert "L is wrong" in str(result)


def test_second_derivatives_and_jacobians():
    def objective(f, y):
        s = 1 / (1 + np.exp(-f))
        return s - y, s * (1 - s)

    formula = "log(1 + exp(f)) - y*f"
    assert str(verify(objective, formula, wrt=["f"])) == "df: right\nd2f: right"
    assert "d2f is wrong" in str(verify(lambda f, y: (objective(f, y)[0],) * 2, formula, wrt=["f"]))

    def quartic(w):
        return {"grad": 4 * w * (w @ w), "hess": 4 * (w @ w) * np.eye(len(w)) + 8 * np.outer(w, w)}

    assert verify(quartic, "L = sum(d, w[d]^2)^2")

    def jacobian(z):
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        return p[:, :, None] * (np.eye(z.shape[1]) - p[:, None, :])

    assert verify(jacobian, SOFTMAX)
    assert verify(lambda x: 1 - np.tanh(x) ** 2, "tanh(x)")
    result = verify(lambda z: jacobian(z) * np.eye(z.shape[1]), SOFTMAX)
    assert "only the diagonal" in str(result)


def test_torch_signatures():
    import torch

    class Norm(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight, eps):
            r = torch.rsqrt((x**2).mean(-1, keepdim=True) + eps)
            ctx.save_for_backward(x, weight, r)
            return x * r * weight

        @staticmethod
        def backward(ctx, g):
            x, w, r = ctx.saved_tensors
            return r * (g * w - x * r * r * (g * w * x).mean(-1, keepdim=True)), (g * x * r).sum(0), None

    class Pair(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *args):
            ctx.save_for_backward(*args)
            return args[0] * args[1] ** 2, args[0] + args[1]

        @staticmethod
        def backward(ctx, g, h):
            a, b = ctx.saved_tensors
            return g * b**2 + h, 2 * g * a * b + h

    class Single(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            if x.dtype != torch.float32:
                raise TypeError("float32 only")
            ctx.save_for_backward(x)
            return torch.tanh(x)

        @staticmethod
        def backward(ctx, g):
            return g * (1 - torch.tanh(ctx.saved_tensors[0]) ** 2) * 1.001

    assert verify(Norm, RMS, constants={"eps": 1e-2})
    assert verify(lambda x, w: Norm.apply(x, w, 1e-2), RMS, constants={"eps": 1e-2})
    for dtype in ("float32", "bfloat16", "float16"):
        assert verify(Norm, RMS, constants={"eps": 1e-2}, dtype=dtype, device="cpu")
    assert verify(Pair, "a = x*w^2\nb = x + w")  # which argument is which is seen from the forward pass
    assert "1.001 times what it should be" in str(verify(Single, "tanh(x)", dtype="float32"))
    assert verify(Single, "tanh(x)", dtype="float32", rtol=0.01)
    with pytest.raises(DataError, match="float32 only"):
        verify(Single, "tanh(x)")
    assert verify(torch.nn.Linear(3, 2), "out[n,k] = sum(d, input[n,d]*weight[k,d]) + bias[k]")
    assert verify(lambda x, dout: dout * torch.cos(x), "sin(x)")
    with pytest.raises(DataError, match="the forward pass differs"):
        verify(torch.nn.Tanh(), "sigmoid(input)")


def test_jax_signatures():
    jax = pytest.importorskip("jax")

    @functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
    def leaky(x, alpha):
        return jax.numpy.where(x > 0, x, alpha * x)

    leaky.defvjp(lambda x, alpha: (leaky(x, alpha), x), lambda alpha, x, g: (jax.numpy.where(x > 0, g, alpha * g),))
    assert verify(leaky, "where(x > 0, x, alpha*x)", constants={"alpha": 0.1})
    assert verify(lambda x: leaky(x, 0.1), "where(x > 0, x, 0.1*x)", dtype="float32")

    @jax.custom_vjp
    def square(x):
        return x**2

    square.defvjp(lambda x: (x**2, x), lambda x, g: (g * x,))
    assert "a factor 2 is missing" in str(verify(square, "x^2"))


# ---------------------------------------------------------------------- points


@pytest.mark.parametrize(
    ("function", "formula", "words"),
    [
        (lambda x, dout: dout, "abs(x)", "dx"),
        (lambda x, dout: dout * (x > 0), "min(max(x, 0), 6)", "dx is wrong where the values are between 1 and 7"),
        (lambda x, dout: dout * np.where(x < -3, 0, (2 * x + 3) / 6), "x*min(max(x + 3, 0), 6)/6", "dx"),
        (lambda x, dout: np.where(x > 25, 2, 1) * dout, "x", "between 20 and 170"),
        (lambda x, dout: 2 * np.abs(x) * dout + (x == 0), "abs(x)*x", "where x is zero"),
        (lambda x, dout: dout * x if len(x) > 1 else x[0], "x^2/2", "where the batch holds one example"),
    ],
)
def test_a_wrong_function_does_not_pass(function, formula, words):
    result = verify(function, formula)
    assert not result
    assert words in str(result)


def test_what_overflows_is_right_where_it_is_finite():
    with np.errstate(all="ignore"):
        result = verify(lambda x, dout: dout * np.exp(x) / (1 + np.exp(x)), "log(1 + exp(x))")
    assert result
    assert "right where it is finite; overflows from x = 709" in str(result)


def test_any_derivative_at_a_kink_is_right():
    assert verify(lambda x, dout: dout * (x >= 0), "relu(x)")
    assert verify(lambda x, dout: dout * np.sign(x), "abs(x)")


def test_a_formula_with_erf():
    erf = np.vectorize(math.erf)
    normal = "x*(1 + erf(x/sqrt(2)))/2"
    assert verify(lambda x, dout: dout * ((1 + erf(x / 2**0.5)) / 2 + x * np.exp(-x * x / 2) / (2 * np.pi) ** 0.5), normal)
