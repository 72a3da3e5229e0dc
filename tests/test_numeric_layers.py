"""Every layer of the catalogue against PyTorch at odd sizes, random compositions, memory, and what is refused.

A network here is a shape and a list of `Layer`s. Each spells itself for the chain and computes itself with PyTorch from
the same parameters, so that one list gives both the chain and what its emitted module is compared with.
"""

import itertools
import math
import re
import tracemalloc
import types
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from symbackprop import SymbackpropError, declare, emit
from symbackprop.chain import BRANCHES
from symbackprop.layer_rows import LAYER_NAMES

from .test_numeric_gradients import ACTIVATE

TOLERANCE = 1e-9


@dataclass(frozen=True)
class Layer:
    """`apply` takes the layer's own parameters, without their number, and x; for a branch what enters and what leaves it."""

    text: str
    apply: Callable
    inner: tuple["Layer", ...] = ()


def spell(name, *arguments, **options):
    """`conv(4, 3x2, relu, stride=2)`, without what is None."""

    def one(value):
        return "x".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()

    given = [one(a) for a in arguments if a is not None] + [f"{k}={one(v)}" for k, v in options.items() if v is not None]
    return f"{name}({', '.join(given)})" if given else name


def spell_chain(shape, layers):
    return " -> ".join([" x ".join(map(str, shape)), *(layer.text for layer in layers), "squared_error"])


# ---------------------------------------------------------------------------------------------- the layers with PyTorch


def activate(name, z):
    return ACTIVATE[name or "identity"](z)


def dense(units, activation=None, bias=None):
    text = spell("dense", units, activation, bias=bias)
    return Layer(text, lambda w, x: activate(activation, F.linear(x, w["W"].T, w.get("b"))))


def channels_first(f, x, *arguments, **options):
    """A function of PyTorch, which has the channels behind the examples, for channels at the end."""
    return f(x.movedim(-1, 1), *arguments, **options).movedim(1, -1)


def of_dimension(name, x):
    return getattr(F, name.format(x.ndim - 2))


def conv(channels, kernel, activation=None, groups=None, bias=None, **options):
    def apply(w, x):
        W = w["W"].movedim((-2, -1, -3), (0, 1, 2)).flatten(0, 1) if groups else w["W"].movedim((-1, -2), (0, 1)).contiguous()
        z = channels_first(of_dimension("conv{}d", x), x, W, w.get("b"), groups=groups or 1, **options)
        return activate(activation, z)

    return Layer(spell("conv", channels, kernel, activation, groups=groups, bias=bias, **options), apply)


def depthwise(kernel, activation=None, bias=None, **options):
    def apply(w, x):
        W = w["W"].movedim(-1, 0)[:, None]
        return activate(activation, channels_first(of_dimension("conv{}d", x), x, W, w.get("b"), groups=len(W), **options))

    return Layer(spell("depthwise", kernel, activation, bias=bias, **options), apply)


def reshape(shape):
    return Layer(f"reshape({'x'.join(map(str, shape))})", lambda w, x: x.unflatten(-1, shape))


def conv_transpose(channels, kernel, activation=None, bias=None, **options):
    def apply(w, x):
        W = w["W"].movedim((-2, -1), (0, 1)).contiguous()
        return activate(activation, channels_first(of_dimension("conv_transpose{}d", x), x, W, w.get("b"), **options))

    return Layer(spell("conv_transpose", channels, kernel, activation, bias=bias, **options), apply)


def pool(kind, kernel, **options):
    text = spell(f"{kind}pool", kernel, **options)
    return Layer(text, lambda w, x: channels_first(of_dimension(f"{kind}_pool{{}}d", x), x, kernel, **options))


def global_pool(kind):
    def apply(w, x):
        return channels_first(of_dimension(f"{kind}_pool{{}}d", x), x, x.shape[1:-1]).flatten(1)

    return Layer(f"global_{kind}pool", apply)


def batch_norm(epsilon=None):
    def apply(w, x):
        averages = (None, None) if w["training"] else (w["average_mu"].detach(), w["average_v"].detach())
        return channels_first(F.batch_norm, x, *averages, w["g"], w["b"], training=w["training"], eps=epsilon or 1e-5)

    return Layer(spell("batch_norm", epsilon=epsilon), apply)


def layer_norm(epsilon=None):
    text = spell("layer_norm", epsilon=epsilon)
    return Layer(text, lambda w, x: F.layer_norm(x, x.shape[-1:], w["g"], w["b"], epsilon or 1e-5))


def rms_norm(epsilon=None):
    return Layer(spell("rms_norm", epsilon=epsilon), lambda w, x: F.rms_norm(x, x.shape[-1:], w["g"], epsilon or 1e-5))


def group_norm(groups, epsilon=None):
    text = spell("group_norm", groups, epsilon=epsilon)
    return Layer(text, lambda w, x: channels_first(F.group_norm, x, groups, w["k"], w["b"], epsilon or 1e-5))


def dropout(rate):
    return Layer(spell("dropout", rate), lambda w, x: w.get("m", 1) * x)


def embedding(rows, width):
    return Layer(spell("embedding", rows, width), lambda w, x: F.embedding(x, w["E"]))


def bilinear(units, activation=None, bias=None):
    text = spell("bilinear", units, activation, bias=bias)
    return Layer(text, lambda w, x: activate(activation, F.bilinear(x, x, w["W"].movedim(-1, 0), w.get("b"))))


MODULES = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
CELLS = {"lstm": torch.lstm_cell, "gru": torch.gru_cell}


def recurrent_weights(w):
    """Weights as PyTorch lays them out, gates and units on one axis, for the input and for the state before."""
    W, U = (w[name].movedim(0, -1).flatten(0, -2) for name in "WU")
    b = w["b"].flatten()
    return W, U, b, w["c"].flatten() if "c" in w else torch.zeros_like(b)


def recurrent_module(kind, activation, w, x):
    """Outputs and final state of PyTorch's own module for whole sequences, `x` a tensor or packed."""
    W, U, b, c = recurrent_weights(w)
    options = {"nonlinearity": activation} if activation else {}
    module = MODULES[kind](W.shape[1], U.shape[1], batch_first=True, dtype=torch.float64, **options)
    return functional_call(module, {"weight_ih_l0": W, "weight_hh_l0": U, "bias_ih_l0": b, "bias_hh_l0": c}, (x,))


def recurrent_steps(kind, activation, w, x, mask, truncate):
    """Step after step: where the mask is 0 the state stays as it is, and it is cut off before each `truncate`-th step."""
    W, U, b, c = recurrent_weights(w)
    state, outputs = (x.new_zeros(len(x), U.shape[1]),) * (2 if kind == "lstm" else 1), []
    for t in range(x.shape[1]):
        state = tuple(s.detach() for s in state) if truncate and t % truncate == 0 else state
        if kind == "rnn":
            new = (activate(activation or "tanh", F.linear(x[:, t], W, b) + F.linear(state[0], U)),)
        else:
            new = CELLS[kind](x[:, t], state if kind == "lstm" else state[0], W, U, b, c)
            new = new if kind == "lstm" else (new,)
        state = new if mask is None else tuple(torch.where(mask[:, t, None] > 0, n, s) for n, s in zip(new, state, strict=True))
        outputs.append(state[0])
    return torch.stack(outputs, 1)


def recurrent(kind, units, activation=None, mask=None, truncate=None):
    def apply(w, x):
        if mask or truncate or activation not in (None, "tanh", "relu"):
            return recurrent_steps(kind, activation, w, x, w["mask"] if mask else None, truncate)
        return recurrent_module(kind, activation, w, x)[0]

    return Layer(spell(kind, units, activation, mask=mask, truncate=truncate), apply)


def packed(kind, units):
    """A masked recurrent layer by packed sequences; its final state stands for the whole sequence."""

    def apply(w, x):
        x = nn.utils.rnn.pack_padded_sequence(x, w["mask"].sum(1).long(), batch_first=True, enforce_sorted=False)
        final = recurrent_module(kind, None, w, x)[1]
        return (final[0] if kind == "lstm" else final)[0][:, None]

    return Layer(spell(kind, units, mask=True), apply)


def allowed(w, x, causal, mask):
    """Which place may look at which: examples, heads, places looking, places looked at."""
    T = x.shape[1]
    seen = torch.ones(T, T, dtype=torch.bool).tril() if causal else torch.ones(T, T, dtype=torch.bool)
    return seen & (w["mask"] > 0)[:, None, None, :] if mask else seen[None, None]


def attention(heads, causal=None, mask=None, bias=None):
    def apply(w, x):
        q, k, v = (torch.einsum("nti,ihe->nhte", x, w[f"W{p}"]) + w.get(f"b{p}", torch.zeros(1, 1))[:, None] for p in "qkv")
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed(w, x, causal, mask))
        return torch.einsum("nhte,heo->nto", a, w["Wo"]) + w.get("bo", 0)

    return Layer(spell("attention", heads, causal=causal, mask=mask, bias=bias), apply)


def attention_module(heads, causal=None, mask=None, bias=None):
    """The same by PyTorch's own module."""

    def apply(w, x):
        module = nn.MultiheadAttention(x.shape[-1], heads, bias=bias is not False, batch_first=True, dtype=torch.float64)
        own = {"in_proj_weight": torch.cat([w[f"W{p}"].flatten(1).T for p in "qkv"]), "out_proj.weight": w["Wo"].flatten(0, 1).T}
        if bias is not False:
            own |= {"in_proj_bias": torch.cat([w[f"b{p}"].flatten() for p in "qkv"]), "out_proj.bias": w["bo"]}
        options = {"key_padding_mask": w["mask"] == 0 if mask else None, "need_weights": False}
        options |= {"attn_mask": ~allowed(w, x, True, None)[0, 0] if causal else None}
        return functional_call(module, own, (x, x, x), options)[0]

    return Layer(attention(heads, causal, mask, bias).text, apply)


def dot_product_attention(causal=None, mask=None):
    def apply(w, x):
        x = x[:, None]
        return F.scaled_dot_product_attention(x, x, x, attn_mask=allowed(w, x[:, 0], causal, mask))[:, 0]

    return Layer(spell("dot_product_attention", causal=causal, mask=mask), apply)


def _sinusoids(T, C):
    waves = [[(math.cos if c % 2 else math.sin)(t / 10000 ** (c // 2 * 2 / C)) for c in range(C)] for t in range(T)]
    return torch.tensor(waves, dtype=torch.float64)


def learned_positions(rows):
    def apply(w, x):
        known = min(rows, x.shape[1])
        return x + F.pad(w["P"][:known], (0, 0, 0, x.shape[1] - known))

    return Layer(spell("learned_positions", rows), apply)


def swiglu(units, bias=None):
    def apply(w, x):
        return F.silu(F.linear(x, w["W"].T, w.get("b"))) * F.linear(x, w["V"].T, w.get("c"))

    return Layer(spell("swiglu", units, bias=bias), apply)


def mixture(units, experts):
    def apply(w, x):
        gates = F.softmax(F.linear(x, w["V"].T, w["c"]), -1)
        outputs = [F.linear(x, W.T, b) for W, b in zip(w["W"], w["b"], strict=True)]
        return sum(gates[..., e, None] * output for e, output in enumerate(outputs))

    return Layer(spell("mixture", units, experts), apply)


def branch(name, *inner):
    joins = {"residual": torch.add, "concat": lambda x, f: torch.cat([x, f], -1)}
    return Layer(f"{name}({' -> '.join(layer.text for layer in inner)})", joins[name], inner)


FLATTEN = Layer("flatten", lambda w, x: x.flatten(1))
LAST = Layer("last", lambda w, x: x[:, -1])
GLU = Layer("glu", lambda w, x: F.glu(x, -1))
POSITIONS = Layer("positions", lambda w, x: x + _sinusoids(*x.shape[1:]))


# ---------------------------------------------------------------------------------------------- comparison


def through(layers, values, x, numbers):
    """The prediction of the layers, numbered by `numbers` but for branches and activations, from all values by name."""
    for layer in layers:
        if layer.inner or layer.text in ACTIVATE:
            x = layer.apply(x, *([through(layer.inner, values, x, numbers)] if layer.inner else []))
            continue
        number = str(next(numbers))
        split = {name: re.fullmatch(r"(\D+)(\d*)", name).groups() for name in values}
        x = layer.apply({split[n][0]: v for n, v in values.items() if split[n][1] in ("", number)}, x)
    return x


def by_torch(layers, params, data, noise=None, training=True):
    """The prediction, and the parameters as tensors that take gradients."""
    weights = {k: torch.tensor(v, requires_grad=True) for k, v in params.items()}
    given = {k: torch.tensor(v) for k, v in {**data, **(noise or {})}.items()}
    return through(layers, {**weights, **given, "training": training}, given["x"], itertools.count(1)), weights


def close(found, expected, floor=0.0):
    """Equal to within the tolerance; an array that is zero but for rounding is as large as `floor`."""
    expected = expected.detach().numpy() if isinstance(expected, torch.Tensor) else expected
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * max(np.abs(expected).max(), floor), (found, expected)


def normal(rng, shape):
    return rng.standard_normal(shape)


def draw_data(shape, layers, rng, examples, steps, inputs=normal):
    """The input, whole numbers for an embedding, and a mask where a layer has one; the first step is always there."""
    sizes = (examples, *(steps if isinstance(size, str) else size for size in shape))
    rows = re.match(r"embedding\((\d+)", layers[0].text)
    data = {"x": rng.integers(int(rows[1]), size=sizes) if rows else inputs(rng, sizes)}
    if "mask=true" in spell_chain(shape, layers):
        data["mask"] = np.hstack([np.ones((examples, 1)), rng.integers(2, size=(examples, sizes[1] - 1)).astype(float)])
    return data


def fresh(module, shape, steps, seed=0):
    return module.init(seed, sizes={"T": steps} if "T" in shape else None)


def compare(module_of, shape, layers, examples=3, steps=5, seed=0, inputs=normal, weights=None, **data):
    """Loss, prediction and all gradients of the emitted module are those of PyTorch."""
    module, rng = module_of(spell_chain(shape, layers)), np.random.default_rng(seed)
    data = draw_data(shape, layers, rng, examples, steps, inputs) | data
    params = fresh(module, shape, steps, seed)
    params = {k: weights(rng, v.shape) if weights else v + rng.uniform(-0.3, 0.3, v.shape) for k, v in params.items()}
    noise = module.draw_noise(rng, data) if hasattr(module, "draw_noise") else None
    prediction, tensors = by_torch(layers, params, data, noise)
    Y = rng.standard_normal(prediction.shape)
    expected = ((prediction - torch.tensor(Y)) ** 2).sum() / len(Y)
    expected.backward()
    given = (params, data, Y) if noise is None else (params, data, Y, noise)
    value, gradients = module.loss_and_gradients(*given)
    assert value == module.loss(*given) == pytest.approx(expected.item(), rel=TOLERANCE)
    assert gradients.keys() == params.keys()
    right = {k: torch.zeros_like(w) if w.grad is None else w.grad for k, w in tensors.items()}
    floor = 1e-4 * max(g.abs().max().item() for g in right.values())
    for name, g in gradients.items():
        close(g, right[name], floor)
    close(module.forward(params, data), by_torch(layers, params, data, training=False)[0])
    return gradients


IMAGE, SEQUENCE, ODD = (7, 5, 2), ("T", 3), (5, 3)
CASES = [
    # dense
    ((5,), [dense(4), dense(3, "tanh"), dense(2, bias=False)]),
    (ODD, [dense(4, "gelu"), dense(2)]),
    (IMAGE, [dense(4, "sigmoid"), dense(3, "softmax")]),
    # convolutions
    (SEQUENCE, [dense(4, "tanh"), conv(2, 3)]),
    ((9, 3), [conv(4, 2, "tanh"), conv(2, 3, stride=2, padding=1)]),
    ((8, 3), [conv(4, 2, "silu"), conv(3, 2, stride=3, dilation=2), conv(2, 2, padding=2, bias=False)]),
    (IMAGE, [conv(3, (3, 2), "tanh"), conv(2, (2, 3), stride=(2, 1), padding=(1, 2), dilation=(1, 2))]),
    (IMAGE, [dense(3), conv(4, (3, 2), "relu", stride=2, padding=1), FLATTEN, dense(2)]),
    (IMAGE, [dense(3), conv(2, (2, 1), stride=(3, 2), bias=False), conv(3, 2, padding=1)]),
    (IMAGE, [conv(4, (3, 2), "tanh"), conv(6, (2, 3), groups=2, stride=(2, 1), padding=1)]),
    (IMAGE, [dense(6), conv(3, (2, 3), "tanh", groups=3, dilation=(2, 1)), conv(2, 1, groups=1)]),
    (IMAGE, [dense(4), conv(4, (3, 2), groups=4, padding=(2, 0))]),
    (IMAGE, [dense(3, "tanh"), depthwise((3, 2)), conv(2, 1)]),
    (IMAGE, [conv(3, 2), depthwise((2, 3), "tanh", stride=(1, 2), padding=(1, 2), dilation=(2, 1))]),
    (IMAGE, [dense(3), depthwise(2, bias=False), depthwise(3, padding=1)]),
    ((4, 3), [conv(2, 2, "tanh"), conv_transpose(3, 3)]),
    (SEQUENCE, [dense(4, "tanh"), conv_transpose(3, 3, stride=2, padding=1)]),
    ((4, 3), [dense(2), conv_transpose(3, 2, "tanh", stride=3, dilation=2, padding=2), conv_transpose(2, 2, bias=False)]),
    ((4, 3, 2), [conv(4, (2, 1), "tanh"), conv_transpose(3, (2, 3), stride=2, padding=1)]),
    ((3, 4, 2), [dense(3), conv_transpose(2, (3, 2), "sigmoid", stride=(1, 3), padding=(2, 1), dilation=(2, 1))]),
    ((3, 2, 2), [dense(3), conv_transpose(2, (3, 2), bias=False, stride=(3, 1), dilation=(1, 3)), conv(2, 2)]),
    (SEQUENCE, [conv(4, 2, "tanh", stride=2, padding=1), recurrent("rnn", 3), conv(2, 2)]),
    # pooling
    *((s, [conv(3, 2, "tanh"), pool(kind, 3), dense(2)]) for kind in ("max", "avg") for s in ((9, 2), (9, 8, 2))),
    *(((9, 2), [conv(4, 2), pool(kind, 3, stride=2, padding=1), conv(2, 2)]) for kind in ("max", "avg")),
    *(((8, 3), [dense(4), pool(kind, 2, stride=3)]) for kind in ("max", "avg")),
    *((SEQUENCE, [dense(4), pool(kind, 2, stride=1), pool(kind, 2)]) for kind in ("max", "avg")),
    *((IMAGE, [conv(4, 2), pool(kind, (3, 2), stride=(2, 1), padding=1)]) for kind in ("max", "avg")),
    *((IMAGE, [dense(4), pool(kind, (2, 3), padding=(1, 0)), FLATTEN, dense(3)]) for kind in ("max", "avg")),
    *((IMAGE, [dense(4), pool(kind, (1, 2), stride=(3, 2)), pool(kind, 2)]) for kind in ("max", "avg")),
    *((s, [conv(4, 2), global_pool(kind), dense(2)]) for kind in ("max", "avg") for s in (IMAGE, (6, 3))),
    *((SEQUENCE, [dense(4, "tanh"), global_pool(kind), dense(2)]) for kind in ("max", "avg")),
    (IMAGE, [conv(3, (2, 3)), FLATTEN, dense(4, "tanh"), dense(2)]),
    (ODD, [dense(4, "tanh"), FLATTEN, dense(3)]),
    (SEQUENCE, [dense(4, "tanh"), FLATTEN, dense(3)]),
    # normalisation and dropout
    ((5,), [dense(4), batch_norm(), dense(2)]),
    (SEQUENCE, [dense(4), batch_norm(epsilon=0.01), dense(2, "tanh")]),
    ((5, 4, 3), [conv(3, 2), batch_norm(), Layer("relu", torch.relu), FLATTEN, dense(2)]),
    *((s, [dense(4), norm, dense(2)]) for s in ((5,), SEQUENCE, IMAGE) for norm in (layer_norm(), rms_norm())),
    *(((5,), [dense(6, "tanh"), norm]) for norm in (layer_norm(0.1), rms_norm(0.1), group_norm(2, 0.1))),
    *((s, [dense(6), group_norm(g), dense(2)]) for s in ((5,), SEQUENCE, IMAGE) for g in (1, 3)),
    (IMAGE, [conv(4, 2), group_norm(4), FLATTEN, dense(2)]),
    *((s, [dense(4), dropout(rate), dense(2)]) for s, rate in (((5,), 0.3), (SEQUENCE, 0.5), (IMAGE, 0.25), ((3,), 0))),
    ((6,), [dropout(0.5), dense(4, "tanh"), dropout(0.1), dense(2)]),
    # embedding, products
    (("T",), [embedding(7, 3), dense(2, "tanh")]),
    (("T",), [embedding(2, 3), recurrent("rnn", 4), LAST, dense(2)]),
    ((4,), [embedding(5, 2), FLATTEN, dense(3)]),
    ((5,), [dense(4), bilinear(3)]),
    (SEQUENCE, [dense(2), bilinear(3, "tanh", bias=False), dense(2)]),
    (IMAGE, [dense(3), bilinear(2)]),
    ((5,), [dense(6), GLU, dense(2)]),
    (SEQUENCE, [dense(4, "tanh"), GLU]),
    ((5, 3, 4), [dense(2), GLU, dense(3)]),
    *((s, [dense(4), swiglu(3, bias), dense(2)]) for s, bias in (((5,), None), (SEQUENCE, False), (IMAGE, True))),
    *((s, [dense(4, "tanh"), mixture(3, experts), dense(2)]) for s, experts in (((5,), 2), (SEQUENCE, 4), (IMAGE, 1))),
    # recurrent layers
    *((SEQUENCE, [dense(2), recurrent(kind, 4), LAST, dense(2)]) for kind in MODULES),
    *((ODD, [dense(2, "tanh"), recurrent(kind, 3), dense(2)]) for kind in MODULES),
    *((SEQUENCE, [dense(2), recurrent(kind, 4, mask=True), dense(2)]) for kind in MODULES),
    *((SEQUENCE, [dense(2), recurrent("rnn", 4, a), recurrent("rnn", 3)]) for a in ("relu", "sigmoid", "identity", "softsign")),
    (SEQUENCE, [recurrent("lstm", 2), recurrent("gru", 3), LAST, dense(2)]),
    (SEQUENCE, [dense(2), recurrent("gru", 2, mask=True), recurrent("lstm", 3), LAST]),
    # attention, positions
    (SEQUENCE, [dense(6), attention(2)]),
    (SEQUENCE, [dense(6), attention(3, causal=True), dense(2)]),
    (SEQUENCE, [dense(4, "tanh"), attention(1, mask=True), dense(2)]),
    ((4, 3), [dense(4), attention(2, causal=True, mask=True, bias=False), attention(4)]),
    *((SEQUENCE, [dense(6), attention_module(heads, *how), dense(2)]) for heads, *how in ((3,), (2, True), (3, None, True))),
    (ODD, [dense(4), attention_module(2, True, True, False), dense(2)]),
    *((s, [dense(4), dot_product_attention(*how)]) for s, *how in ((SEQUENCE,), (ODD, True), (SEQUENCE, None, True))),
    (SEQUENCE, [dense(3), dot_product_attention(True, True), dense(2)]),
    (SEQUENCE, [dense(4), POSITIONS, attention(2)]),
    (ODD, [dense(5, "tanh"), POSITIONS, dense(2)]),
    *((SEQUENCE, [dense(4, "tanh"), learned_positions(rows), dense(2)]) for rows in (5, 9, 3)),
    # branches
    ((5,), [dense(4), branch("residual", dense(3, "tanh"), dense(4)), dense(2)]),
    (IMAGE, [dense(3), branch("residual", conv(3, 3, "tanh", padding=1), conv(3, 1)), conv(2, 2)]),
    (SEQUENCE, [dense(4), branch("residual", layer_norm(), attention(2), dropout(0.3)), LAST]),
    ((5,), [dense(4), branch("concat", dense(3, "tanh")), dense(2)]),
    (IMAGE, [dense(2), branch("concat", conv(3, (3, 1), "tanh", padding=(1, 0))), conv(2, 2)]),
    (SEQUENCE, [dense(2), branch("concat", recurrent("rnn", 3), dense(1)), recurrent("rnn", 2)]),
    ((5,), [dense(3), branch("residual", branch("concat", dense(2, "tanh")), dense(3)), branch("concat", rms_norm()), dense(2)]),
    (("T", 4), [branch("residual", layer_norm(), attention(2)), branch("residual", layer_norm(), dense(6), dense(4))]),
    ((4,), [dense(3), branch("concat", layer_norm()), branch("residual", rms_norm()), layer_norm(), group_norm(2)]),
]


# One place on an axis, one group, one step, a size of zero: where a window or a letter has nothing to run over.
CASES += [
    (("T", 4), [dense(6), conv(4, 3, "tanh", groups=2, stride=2, padding=1), depthwise(2)]),
    ((9, 4), [dense(4), depthwise(3, "relu", dilation=2, padding=1), FLATTEN, dense(2)]),
    ((5,), [dense(12), reshape((2, 3, 2)), conv(2, (2, 1)), FLATTEN, dense(2)]),
    ((5,), [dense(12), reshape((4, 3)), recurrent("gru", 2), dense(2)]),
    ((3, 3), [dense(2), conv(2, 3)]),
    ((3, 3), [dense(2), pool("avg", 3, stride=1)]),
    ((1, 1, 3), [dense(2), pool("max", 1), dense(2)]),
    ((3, 4, 3), [dense(2), depthwise((3, 1))]),
    ((3, 4, 3), [dense(2), conv(4, (3, 2), groups=2)]),
    ((5, 4, 3), [dense(1), conv(2, 2, groups=1)]),
    ((5, 4, 3), [dense(4), conv(4, (3, 2), groups=2, bias=False)]),
    ((1, 3), [dense(2), recurrent("rnn", 3)]),
    (IMAGE, [dense(2), conv(3, 2, padding=(0, 1))]),
    (
        (4,),
        [dense(3), Layer("relu", torch.relu), Layer("tanh", torch.tanh), dense(2, "tanh")],
    ),
]


@pytest.mark.parametrize(("shape", "layers"), CASES, ids=[spell_chain(*case) for case in CASES])
def test_layer_equals_torch(shape, layers, module_of):
    compare(module_of, shape, layers)


def test_every_layer_of_the_catalogue_is_compared():
    names = {name for case in CASES for name in re.findall(r"\w+", spell_chain(*case))}
    assert {*LAYER_NAMES, *BRANCHES} <= names


@pytest.mark.parametrize("factor", [1 + 1e-8, 0.99])
def test_a_wrong_gradient_is_noticed(factor, module_of):
    def wrong(w, x):
        return dense(3).apply({k: w[k] + (factor - 1) * (w[k] - w[k].detach()) for k in "Wb"}, x)

    with pytest.raises(AssertionError):
        compare(module_of, (4,), [Layer("dense(3)", wrong)])


@pytest.mark.parametrize(("examples", "steps"), [(1, 1), (2, 1), (1, 2), (4, 9)])
@pytest.mark.parametrize("layer", [*(recurrent(kind, 3) for kind in MODULES), attention(1, causal=True)], ids=lambda x: x.text)
def test_short_and_long_sequences(layer, examples, steps, module_of):
    compare(module_of, ("T", 2), [dense(3), layer, dense(2)], examples, steps)


# ---------------------------------------------------------------------------------------------- what only some layers have


def integers(low, high):
    return lambda rng, shape: rng.integers(low, high, shape).astype(float)


TIES = [
    ((9, 2), [learned_positions(9), pool("max", 3, stride=2, padding=1)]),
    ((9, 2), [learned_positions(9), pool("max", 2, stride=1)]),
    ((8, 2), [learned_positions(8), global_pool("max")]),
    ((7, 6, 2), [conv(3, 1), pool("max", (3, 2), stride=(2, 1), padding=1)]),
    ((7, 6, 2), [conv(3, 1), pool("max", (2, 4), padding=(1, 2))]),
    ((7, 6, 2), [conv(3, 1), pool("max", 3, stride=1)]),
    ((4, 3, 5), [conv(3, 1), global_pool("max")]),
]


@pytest.mark.parametrize("below", [False, True], ids=["about zero", "below zero"])
@pytest.mark.parametrize(("shape", "layers"), TIES, ids=itertools.starmap(spell_chain, TIES))
def test_the_first_of_equal_values_is_the_largest_and_padding_never_is(shape, layers, below, module_of):
    about, negative = integers(-1, 2), integers(-3, 0)
    inputs = negative if layers[0].text.startswith("learned") else integers(0, 3)  # with negative weights all is below zero
    compare(module_of, shape, layers, inputs=inputs if below else about, weights=negative if below else about)


@pytest.mark.parametrize("shape", [(5,), ("T", 5), (4, 3, 5)], ids=str)
def test_running_averages_are_those_of_torch_but_for_the_unbiased_variance(shape, module_of):
    rng = np.random.default_rng(0)
    layers = [dense(4), batch_norm(), dense(2)]
    module = module_of(spell_chain(shape, layers))
    X = rng.standard_normal((3, *(2 if s == "T" else s for s in shape)))
    trainer = module.Trainer(module.init(1), learning_rate=0.05)
    norm = nn.BatchNorm1d(4, dtype=torch.float64)  # a share of 0.1 of the newest
    for _ in range(3):
        before = {k: torch.tensor(v) for k, v in trainer.params.items()}
        var = norm.running_var.numpy().copy()
        hidden = F.linear(torch.tensor(X), before["W1"].T, before["b1"]).reshape(-1, 4)
        norm(hidden)
        Y = rng.standard_normal((*X.shape[:-1], 2))
        trainer.step(X, Y)
        count = len(hidden)
        close(trainer.params["average_mu2"], norm.running_mean)
        newest = (norm.running_var.numpy() - 0.9 * var) / 0.1
        close(trainer.params["average_v2"] - 0.9 * before["average_v2"].numpy(), 0.1 * newest * (count - 1) / count)
    by_averages, by_batch = (by_torch(layers, trainer.params, {"x": X}, training=t)[0] for t in (False, True))
    close(module.forward(trainer.params, X), by_averages)
    assert (by_averages - by_batch).abs().max() > 0.01


@pytest.mark.parametrize(("shape", "rate"), [((40,), 0.3), (("T", 11), 0.75), ((6, 5, 4), 0.5)])
def test_dropout_draws_zero_or_the_inverse_of_the_share_kept(shape, rate, module_of):
    layers = [dense(8, "tanh"), dropout(rate), dense(2)]
    module, rng = module_of(spell_chain(shape, layers)), np.random.default_rng(0)
    data, params = draw_data(shape, layers, rng, 100, 7), module.init(1)
    (mask,) = module.draw_noise(rng, data).values()
    assert mask.shape == (*data["x"].shape[:-1], 8)
    assert set(np.unique(mask)) == {0, 1 / (1 - rate)}
    assert mask.mean() == pytest.approx(1, abs=5 * math.sqrt(rate / (1 - rate) / mask.size))
    assert not np.array_equal(mask, module.draw_noise(rng, data)["m2"])
    at_rest = by_torch(layers, params, data)[0].detach().numpy()
    close(module.forward(params, data), at_rest)
    assert module.loss(params, data, 0 * at_rest) == pytest.approx((at_rest**2).sum() / 100, rel=TOLERANCE)


@pytest.mark.parametrize("kind", MODULES)
def test_masked_states_are_those_of_packed_sequences(kind, module_of):
    mask = (np.arange(6) < np.array([[4], [6], [1], [3]])).astype(float)
    compare(module_of, SEQUENCE, [dense(2), packed(kind, 4), LAST, dense(2)], examples=4, steps=6, mask=mask)


@pytest.mark.parametrize("kind", MODULES)
def test_a_state_without_any_step_stays_zero(kind, module_of):
    mask = np.array([[0, 0, 0, 0.0], [0, 1, 0, 1], [1, 0, 0, 0]])
    compare(module_of, SEQUENCE, [dense(2), recurrent(kind, 3, mask=True), LAST, dense(2)], steps=4, mask=mask)


@pytest.mark.parametrize(
    ("kind", "truncate", "mask"),
    [("rnn", 1, None), ("rnn", 3, True), ("lstm", 2, None), ("lstm", 9, True), ("gru", 1, True), ("gru", 3, None)],
)
def test_truncation_equals_detaching(kind, truncate, mask, module_of):
    layers = [dense(2), recurrent(kind, 3, mask=mask, truncate=truncate), dense(2)]
    truncated = compare(module_of, SEQUENCE, layers, steps=7)
    whole = compare(module_of, SEQUENCE, [dense(2), recurrent(kind, 3, mask=mask), dense(2)], steps=7)
    assert all(np.allclose(truncated[name], whole[name]) == (truncate > 7 or name in ("W3", "b3")) for name in whole)


def test_truncation_with_another_activation_and_two_layers(module_of):
    layers = [recurrent("rnn", 3, "sigmoid", truncate=2), recurrent("lstm", 2, truncate=3), LAST]
    compare(module_of, SEQUENCE, layers, steps=8)


# ---------------------------------------------------------------------------------------------- random compositions


FEWEST = 1  # places on an axis that compositions have


def _anywhere(pick, shape):
    """A layer that keeps all axes but the last, and the shape after it."""
    *places, c = shape
    units, activation = pick([2, 3, 4]), pick([None, "tanh", "relu", "gelu", "softmax"])
    groups = pick([g for g in range(1, c) if c % g == 0] or [1])
    layer, width = pick(
        [
            (dense(units, activation), units),
            (dense(units, bias=False), units),
            (swiglu(units), units),
            (bilinear(units, activation), units),
            (mixture(units, 2), units),
            (rms_norm(), c),
            (batch_norm(), c),
            *([(layer_norm(), c), (group_norm(groups), c)] if c > 1 else []),  # of one value nothing would be left
            (dropout(0.3), c),
            (branch("residual", dense(units, activation), dense(c)), c),
            (branch("concat", dense(units, activation)), c + units),
            *([(GLU, c // 2)] if c % 2 == 0 else []),
        ]
    )
    return layer, (*places, width)


def _windows(pick, shape):
    """A convolution or a pool over all axes but the last, and the shape after it."""
    *places, c = shape
    kernel = tuple(pick(range(1, min(3, n) + 1)) for n in places)
    stride, padding = tuple(pick([1, 2]) for _ in places), pick([0, 1]) if min(kernel) > 1 else 0
    fewer = [(n + 2 * padding - k) // s + 1 for n, k, s in zip(places, kernel, stride, strict=True)]
    more = [(n - 1) * s - 2 * padding + k for n, k, s in zip(places, kernel, stride, strict=True)]
    units, activation = pick([1, 2, 3]), pick([None, "tanh", "relu"])
    kernel, stride = (kernel, stride) if places[1:] else (kernel[0], stride[0])
    options = {"stride": stride, "padding": padding}
    layers = [
        (conv(units, kernel, activation, **options), fewer, units),
        (conv_transpose(units, kernel, activation, **options), more, units),
        (pool("max", kernel, **options), fewer, c),
        (pool("avg", kernel, **options), fewer, c),
    ]
    if places[1:]:
        layers += [(depthwise(kernel, activation, **options), fewer, c)]
    if places[1:] and c > 1:
        layers += [(conv(2 * c, kernel, groups=c, **options), fewer, 2 * c)]
    layers = [row for row in layers if min(row[1]) >= FEWEST and max(row[1]) < 12]
    layer, sizes, width = pick([*layers, (dense(units), places, units)])
    return layer, (*sizes, width)


def _along_time(pick, shape):
    """A layer for sequences that keeps the time, and the shape after it."""
    T, c = shape
    units, flag = pick([2, 3]), pick([None, True])
    heads = pick([h for h in range(1, c + 1) if c % h == 0])
    layer, width = pick(
        [
            (recurrent(pick([*MODULES]), units, mask=flag), units),
            (recurrent("rnn", units, pick(["relu", "sigmoid"]), truncate=pick([None, 2])), units),
            (attention(heads, causal=flag, mask=pick([None, True])), c),
            (dot_product_attention(flag), c),
            (POSITIONS, c),
            (learned_positions(T + 1), c),
        ]
    )
    return layer, (T, width)


def _to_vector(pick, shape):
    """What makes a vector, and its shape."""
    ends = [(FLATTEN, math.prod(shape)), (global_pool("max"), shape[-1]), (global_pool("avg"), shape[-1])]
    layer, width = pick([*ends, (LAST, shape[-1])] if len(shape) == 2 else ends)
    return layer, (width,)


@st.composite
def networks(draw):
    """A shape and two to five layers; the first has parameters, so that every layer's input gradient counts."""

    def pick(options):
        return draw(st.sampled_from(options))

    start = pick([(4,), (6, 3), (5, 4, 2)])
    shape, layers = (*start[:-1], units := pick([2, 3, 4])), [dense(units, pick([None, "tanh"]))]
    for _ in range(pick([1, 2, 3, 4])):
        kinds = {
            1: [_anywhere],
            2: [_anywhere, _windows, _along_time, _along_time, _to_vector],
            3: [_anywhere, _windows, _windows, _to_vector],
        }
        layer, after = pick(kinds[len(shape)])(pick, shape)
        if "mask=true" not in layer.text or shape[:-1] == start[:-1]:  # the mask is that of the sequence as it comes in
            layers, shape = [*layers, layer], after
    return start, layers if layers[1:] else [*layers, dense(2)]


def load(network):
    """The emitted module without a file, whose changing name would make equal failures look different."""
    module = types.ModuleType("emitted")
    exec(emit(network), module.__dict__)
    return module


def test_random_compositions_equal_torch(sweep):
    # Nothing is made smaller: a chain of five layers is small, and deriving hundreds takes minutes.
    @settings(max_examples=150 if sweep else 12, deadline=None, derandomize=True, phases=[Phase.generate])
    @given(networks(), st.integers(0, 9))
    def equal(network, seed):
        note(spell_chain(*network))
        compare(load, *network, examples=4, seed=seed)

    equal()


# ---------------------------------------------------------------------------------------------- memory


def peak(module, shape, layers, examples, steps=5):
    """The most memory that a pass holds, in bytes."""
    data, params = draw_data(shape, layers, np.random.default_rng(0), examples, steps), fresh(module, shape, steps)
    Y = np.zeros(module.forward(params, data).shape)
    tracemalloc.start()
    try:
        module.loss_and_gradients(params, data, Y)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


LINEAR = [
    ((6, 5, 1), [conv(2, (3, 2), "relu", padding=1), pool("max", 2), conv(3, 2), FLATTEN, dense(2, "softmax")]),
    (SEQUENCE, [recurrent("lstm", 3), LAST, dense(2)]),
    ((5,), [dense(4, "softmax"), layer_norm(), batch_norm(), dense(2)]),
]


@pytest.mark.parametrize(("shape", "layers"), LINEAR, ids=itertools.starmap(spell_chain, LINEAR))
def test_memory_grows_linearly_with_the_examples(shape, layers, module_of):
    module = module_of(spell_chain(shape, layers))
    assert 1.8 < peak(module, shape, layers, 2000) / peak(module, shape, layers, 1000) < 2.1


def test_memory_grows_linearly_with_time_but_for_attention(module_of):
    grown = {}
    for layer in (recurrent("lstm", 3), conv(3, 2), attention(1)):
        layers = [dense(3), layer, dense(1)]
        module = module_of(spell_chain(SEQUENCE, layers))
        grown[layer.text] = peak(module, SEQUENCE, layers, 2, 800) / peak(module, SEQUENCE, layers, 2, 400)
    assert grown.pop("attention(1)") > 3.5
    assert all(1.8 < g < 2.1 for g in grown.values()), grown


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("chain", "sizes"),
    [
        ("T x 3 -> conv(2, 3) -> squared_error", None),
        ("T x 3 -> dense(2) -> maxpool(2) -> squared_error", None),
        ("T x D -> attention(2) -> squared_error", {"D": 6}),
    ],
)
def test_sizes_that_the_data_tell(chain, sizes, module_of):
    module = module_of(chain)
    assert module.init(sizes=sizes)
    assert module.check_gradients() < 1e-6


@pytest.mark.parametrize(
    ("chain", "word"),
    [
        ("5x4x3 -> conv(2, 2x2) -> maxpool(2, padding=3) -> squared_error", "padding"),  # windows of padding alone
        ("4 -> dense(3) -> embedding(5, 2) -> squared_error", "whole numbers"),
        ("T x 4 -> attention(3)", "ends in a loss"),
        ("T x 4 -> attention(3) -> squared_error", "no whole number"),
        ("T x 4 -> attention(1.5) -> squared_error", "no whole number"),
        ("T x 4 -> attention -> squared_error", "needs heads"),
        ("T x 4 -> attention(2, causal=2) -> squared_error", "true or false"),
        ("5 -> conv(3, 3) -> squared_error", "takes 2 axes"),
        ("5 -> lstm(3) -> squared_error", "takes 2 axes"),
        ("5 -> dense(3) -> flatten -> squared_error", "takes 2 axes"),
        ("5 -> depthwise(2) -> squared_error", "takes 2 axes"),
        ("12 -> reshape(2x5) -> squared_error", "takes 10 values, and there are 12"),
        ("4x4x1 -> conv(2, 7x7) -> squared_error", "leaves no place"),
        ("4x4x1 -> conv(2, 2x2, dilation=4) -> squared_error", "leaves no place"),
        ("4x4x1 -> dense(2) -> maxpool(5) -> squared_error", "leaves no place"),
        ("4x4x1 -> conv_transpose(2, 2x2, padding=4) -> squared_error", "leaves no place"),
        ("4x4x3 -> conv(4, 2x2, groups=2) -> squared_error", "no whole number"),
        ("4x4x2 -> conv(3, 2x2, groups=2) -> squared_error", "no whole number"),
        ("4x4x2 -> conv(3, 2x2, stride=0) -> squared_error", "'stride' is a whole number"),
        ("4x4x2 -> conv(3, 2x2, padding=1x1x1) -> squared_error", "one for every axis"),
        ("4x4x2 -> conv(3, 2x2x2) -> squared_error", "is a positive whole number"),
        ("4x4x2 -> conv(3) -> squared_error", "needs kernel"),
        ("4x4x2 -> avgpool -> squared_error", "needs kernel"),
        ("3 -> dropout(1) -> squared_error", "'rate' is the share"),
        ("3 -> dropout -> squared_error", "needs rate"),
        ("5 -> glu -> squared_error", "no whole number"),
        ("4 -> group_norm(3) -> squared_error", "no whole number"),
        ("4 -> group_norm -> squared_error", "needs groups"),
        ("4 -> batch_norm(3) -> squared_error", "an argument too many"),
        ("4 -> embedding(5) -> squared_error", "needs width"),
        ("4 -> mixture(3) -> squared_error", "needs experts"),
        ("5 -> dense(4) -> residual(dense(3)) -> squared_error", "keeps the shape"),
        ("5x4x3 -> concat(conv(4, 2x2)) -> squared_error", "keeps the shape"),
        ("5x4x3 -> residual(flatten) -> squared_error", "keeps the number of axes"),
        ("T x 3 -> lstm(4, truncate=0) -> squared_error", "positive whole number of steps"),
        ("T x 3 -> lstm(4, mask=2) -> squared_error", "true or false"),
        ("T x 3 -> gru(4, stride=2) -> squared_error", "no argument 'stride'"),
        ("T x 3 -> rnn(4, softmax) -> squared_error", "unknown activation"),
        ("T x 3 -> rms_nrom -> dense(2) -> squared_error", "did you mean 'rms_norm'"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(chain, word):
    with pytest.raises(SymbackpropError, match=word):
        emit(chain)


def test_letters_of_heads_and_units_are_not_taken_for_one_another():
    """The heads of layer 4 and the units of the fourth wide layer would both be h4."""
    network = declare("tiny_transformer")
    sizes = {i.name: i.number for i in network.indices}
    shapes = {a.name: tuple(sizes[i] for i in a.axes) for a in network.arrays if a.role == "parameter"}
    assert shapes["W6"] == shapes["W11"] == (32, 64)
    assert shapes["W7"] == shapes["W12"] == (64, 32)
    assert shapes["Wq4"] == shapes["Wq9"] == (32, 4, 8)
    declare(
        "T x 64 -> residual(layer_norm -> attention(4)) -> residual(layer_norm -> dense(256, gelu_tanh) -> dense(64)) "
        "-> last -> dense(10) -> softmax_cross_entropy"
    )
