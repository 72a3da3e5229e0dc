"""Random chains: every layer, branches within branches in every order, emitted for every target and style, against PyTorch.

A module is run forward and backward, trained for three steps by its `Trainer` and by `fit`, and each is held against PyTorch's
automatic differentiation of the same layers.
"""

import itertools
import re

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st

from symbackprop import emit
from symbackprop.chain import BRANCHES
from symbackprop.layer_rows import LAYER_NAMES

from .conftest import import_file
from .test_numeric_layers import (
    FLATTEN,
    GLU,
    LAST,
    MODULES,
    POSITIONS,
    attention,
    batch_norm,
    bilinear,
    branch,
    by_torch,
    close,
    compare,
    conv,
    conv_transpose,
    dense,
    depthwise,
    dot_product_attention,
    draw_data,
    dropout,
    embedding,
    fresh,
    global_pool,
    group_norm,
    layer_norm,
    learned_positions,
    mixture,
    pool,
    recurrent,
    reshape,
    rms_norm,
    spell_chain,
    swiglu,
)

STEPS = 6  # places of a sequence of any length
RATE = 1e-3
TARGETS = [("numpy", "fast"), ("numpy", "plain"), ("numba", "fast")]


def keeping(pick, places, c):
    """A layer that keeps all axes but the last, and the width after it."""
    units, activation = pick([2, 3, 4]), pick([None, "tanh", "relu", "gelu", "softmax"])
    # Two values less their mean are one and the same but for the sign: too little is left to compare.
    norms = [rms_norm(), batch_norm(), *([layer_norm(), group_norm(pick([g for g in (1, 2) if c % g == 0]))] if c > 4 else [])]
    norms += [layer_norm(), group_norm(1)] if 2 < c <= 4 else []
    rows = [
        (dense(units, activation), units),
        (dense(units, bias=False), units),
        (swiglu(units), units),
        (bilinear(units, activation), units),
        (mixture(units, 2), units),
        (dropout(0.3), c),
        *((norm, c) for norm in norms),
        *([(GLU, c // 2)] if c % 2 == 0 else []),
    ]
    if len(places) == 1:
        heads, flag = pick([h for h in range(1, c + 1) if c % h == 0]), pick([None, True])
        rows += [
            (recurrent(pick([*MODULES]), units, mask=flag), units),
            (recurrent("rnn", units, pick(["relu", "sigmoid"]), truncate=pick([None, 2])), units),
            (attention(heads, causal=flag, mask=pick([None, True])), c),
            (dot_product_attention(flag), c),
            (POSITIONS, c),
            (learned_positions(places[0] + 1), c),
        ]
    if places:
        kernel = 3 if len(places) == 1 else (3, 3)
        one = 1 if len(places) == 1 else (1, 1)
        rows += [(conv(units, kernel, activation, padding=1), units), (conv(2 * c, one, groups=c), 2 * c)]
        rows += [(depthwise(kernel, padding=1), c)] if places[1:] else []
        rows += [(pool(kind, kernel, stride=1, padding=1), c) for kind in ("max", "avg")]
    return pick(rows)


def shrinking(pick, places, c):
    """A layer over windows of all axes but the last, and the shape after it."""
    kernel = tuple(pick(range(1, min(3, n) + 1)) for n in places)
    stride, padding = tuple(pick([1, 2]) for _ in places), pick([0, 1]) if min(kernel) > 1 else 0
    fewer = [(n + 2 * padding - k) // s + 1 for n, k, s in zip(places, kernel, stride, strict=True)]
    more = [(n - 1) * s - 2 * padding + k for n, k, s in zip(places, kernel, stride, strict=True)]
    units, activation = pick([1, 2, 3]), pick([None, "tanh", "relu"])
    kernel, stride = (kernel, stride) if places[1:] else (kernel[0], stride[0])
    options = {"stride": stride, "padding": padding}
    rows = [
        (conv(units, kernel, activation, **options), fewer, units),
        (conv_transpose(units, kernel, activation, **options), more, units),
        (conv(2 * c, kernel, activation, groups=c, **options), fewer, 2 * c),
        *((pool(kind, kernel, **options), fewer, c) for kind in ("max", "avg")),
        *([(depthwise(kernel, activation, **options), fewer, c)] if places[1:] else []),
    ]
    rows = [row for row in rows if min(row[1]) >= 1 and max(row[1]) < 12]
    layer, sizes, width = pick([*rows, (dense(units), places, units)])
    return layer, list(sizes), width


def branched(pick, places, c, depth):
    """`residual` or `concat` of one to three layers, which may be such branches themselves; the width after it."""
    name, width, inner = pick([*BRANCHES]), c, []
    for _ in range(pick([1, 2, 3])):
        layer, width = branched(pick, places, width, depth - 1) if depth and pick([0, 0, 1]) else keeping(pick, places, width)
        inner.append(layer)
    if name == "residual" and width != c:
        inner.append(pick([dense(c), dense(c, "tanh"), *([conv(c, (1,) * len(places) if places[1:] else 1)] if places else [])]))
        width = c
    if pick([0, 1]):
        inner.append(pick([rms_norm(), batch_norm(), *([layer_norm(), group_norm(1)] if width > 2 else [])]))
    return branch(name, *inner), c if name == "residual" else c + width


@st.composite
def networks(draw):
    """A shape and two to six layers, branches among them."""

    def pick(options):
        return draw(st.sampled_from(list(options)))

    start = pick([(4,), (3,), (6, 3), ("T", 2), ("T", 4), (5, 4, 2), ("T",)])
    *places, c = (STEPS if size == "T" else size for size in start)
    layers = []
    if start == ("T",):
        layers, places, c = [embedding(7, 3)], [STEPS], 3
    elif pick([0, 1]):
        layers, c = [dense(3)], 3
    begun = places
    for _ in range(pick([2, 3, 4, 5])):
        kinds = ["keep", "branch", "branch", *(["shrink", "vector"] if places else ["shape"])]
        kind = pick(kinds)
        if kind == "branch":
            (layer, width), after = branched(pick, places, c, 2), places
        elif kind == "shrink":
            layer, after, width = shrinking(pick, places, c)
        elif kind == "vector":
            ends = [(FLATTEN, int(np.prod([*places, c]))), (global_pool("max"), c), (global_pool("avg"), c)]
            (layer, width), after = pick([*ends, (LAST, c)] if len(places) == 1 else ends), []
        elif kind == "shape" and c % 2 == 0:
            layer, after, width = reshape((2, c // 2)), [2], c // 2
        else:
            (layer, width), after = keeping(pick, places, c), places
        # the mask is that of the sequence as it comes in
        if "mask=true" not in layer.text or (places == begun and len(places) == 1):
            layers, places, c = [*layers, layer], after, width
    trained = any(re.search(r"dense|conv|norm|embedding", layer.text) for layer in layers)
    return start, layers if trained and pick([0, 1]) else [*layers, dense(2)]


def trained(shape, layers, params, data, Y, noises):
    """The parameters after steps of gradient descent by PyTorch, one for each draw of the noise."""
    params = dict(params)
    for noise in noises:
        prediction, weights = by_torch(layers, params, data, noise)
        (((prediction - torch.tensor(Y)) ** 2).sum() / len(Y)).backward()
        params |= {k: w.detach().numpy() - RATE * w.grad.numpy() for k, w in weights.items() if w.grad is not None}
    return params


def trains_like_torch(module, shape, layers, seed):
    """Three steps of the trainer, and three epochs of `fit` in one batch, are three steps of PyTorch."""
    rng = np.random.default_rng(seed)
    data, params = draw_data(shape, layers, rng, 4, STEPS), fresh(module, shape, STEPS, seed)
    Y = rng.standard_normal(by_torch(layers, params, data, module.draw_noise(rng, data) if noisy(module) else None)[0].shape)
    trainer, noises = module.Trainer(params, optimizer="sgd", learning_rate=RATE), []
    for _ in range(3):
        noises.append(trainer.noise(data) if noisy(module) else None)
        trainer.step(data, Y)
    expected = trained(shape, layers, params, data, Y, noises)
    if not all(np.isfinite(w).all() for w in expected.values()):
        return  # what runs away with PyTorch may run away here
    floor = 1e-3 * max(np.abs(w).max() for w in expected.values())
    for name, w in trainer.params.items():
        if not name.startswith("average_"):
            close(w, expected[name], floor)
    options = {"epochs": 3, "batch_size": 4, "optimizer": "sgd", "learning_rate": RATE, "schedule": "constant"}
    fitted, history = module.fit(data, Y, params=params, **options)
    assert len(history) == 3
    for name, w in fitted.items():
        if not noisy(module):
            close(w, trainer.params[name], floor)


def noisy(module):
    return hasattr(module, "draw_noise")


def assert_like_torch(network, targets, seed, folder, count=itertools.count()):  # noqa: B008
    for target, style in targets:
        path = folder / f"chain_{next(count)}.py"
        path.write_text(emit(spell_chain(*network), target=target, style=style), encoding="utf-8")
        module = import_file(path)
        compare(lambda _, module=module: module, *network, examples=4, steps=STEPS, seed=seed)
        trains_like_torch(module, *network, seed)


def test_random_chains_equal_torch(sweep, tmp_path):
    # Nothing is made smaller: a chain of six layers is small, and deriving hundreds takes minutes.
    @settings(max_examples=400 if sweep else 10, deadline=None, derandomize=True, phases=[Phase.generate])
    @given(networks(), st.integers(0, 9))
    def equal(network, seed):
        note(spell_chain(*network))
        assert_like_torch(network, TARGETS[: 3 if sweep and seed == 0 else 2], seed, tmp_path)

    equal()


SEQUENCE, IMAGE = ("T", 4), (5, 4, 2)
CASES = [
    ((4,), [branch("residual", dense(4), layer_norm()), dense(2)]),
    ((4,), [branch("residual", dense(8), dense(4), layer_norm()), dense(2)]),
    ((4,), [branch("residual", swiglu(4), rms_norm()), dense(2)]),
    (
        SEQUENCE,
        [branch("residual", attention(2), layer_norm()), branch("residual", dense(6, "relu"), dense(4), layer_norm()), LAST],
    ),
    (SEQUENCE, [branch("residual", recurrent("lstm", 4), layer_norm()), LAST, dense(2)]),
    (IMAGE, [branch("residual", conv(2, (3, 3), padding=1), batch_norm()), FLATTEN, dense(2)]),
    (IMAGE, [branch("residual", branch("concat", conv(2, (1, 1)), batch_norm()), dense(2), group_norm(2)), global_pool("avg")]),
    *(((6, 2), [conv(4, 2, groups=2), end, dense(3)]) for end in (LAST, global_pool("avg"), global_pool("max"))),
    (("T", 2), [recurrent("lstm", 2), pool("max", 2), LAST, dense(1)]),
]


@pytest.mark.parametrize("network", CASES, ids=itertools.starmap(spell_chain, CASES))
def test_chain_equals_torch(network, tmp_path):
    assert_like_torch(network, TARGETS[:2], 1, tmp_path)


def test_compiled_chain_equals_torch(tmp_path):
    assert_like_torch(CASES[0], TARGETS[2:], 1, tmp_path)


def test_every_layer_is_drawn():
    seen = set()

    @settings(max_examples=300, deadline=None, derandomize=True, phases=[Phase.generate], database=None)
    @given(networks())
    def look(network):
        seen.update(re.findall(r"\w+", spell_chain(*network)))

    look()
    assert {*LAYER_NAMES, *BRANCHES} <= seen
