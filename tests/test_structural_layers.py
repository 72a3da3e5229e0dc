"""Layers that are alike: loops in the emitted module, derived once for however many there are."""

import numpy as np
import pytest

from symbackprop import declare, derive, emit
from symbackprop.layered import numbers_text, runs
from symbackprop.lengthen import repeated_layers

from .test_numeric_buffers import assert_training_follows

KINDS = {
    "dense": ("6", "dense(8, tanh)", "dense(3) -> softmax_cross_entropy"),
    "residual": ("8", "residual(layer_norm -> dense(8, gelu))", "dense(3) -> softmax_cross_entropy"),
    "batch_norm": ("8", "dense(8, relu) -> batch_norm", "dense(3) -> softmax_cross_entropy"),
    "dropout": ("8", "dense(8, relu) -> dropout(0.5)", "dense(3) -> softmax_cross_entropy"),
    "conv": ("9x9x2", "conv(2, 3x3, relu, padding=1)", "flatten -> dense(3) -> softmax_cross_entropy"),
    "lstm": ("T x 4", "lstm(4)", "last -> dense(3) -> softmax_cross_entropy"),
    "transformer": (
        "T x 4",
        "residual(layer_norm -> attention(2)) -> residual(layer_norm -> dense(6, gelu_tanh) -> dense(4))",
        "last -> dense(3) -> softmax_cross_entropy",
    ),
}


def chain(kind, count):
    before, unit, after = KINDS[kind]
    return " -> ".join((before, *[unit] * count, after))


@pytest.mark.parametrize("kind", KINDS)
def test_loops_over_like_layers_compute_the_derivatives(kind, module_of, sweep):
    if kind == "transformer" and not sweep:
        pytest.skip("eight blocks are derived with --sweep")
    text = chain(kind, 8)
    network, source = declare(text), emit(text)
    assert source.count("for layer in range(") >= 4
    module = module_of(text)
    assert module.check_gradients() < 1e-6
    assert_training_follows(network, module, "sgd", (4, 5, 4))


def test_the_source_does_not_grow_with_depth():
    lines = [emit(chain("dense", n)).count("\n") for n in (12, 24)]
    assert lines[0] == lines[1]


def test_few_layers_are_written_one_by_one():
    assert "for layer in" not in emit(chain("dense", 4))


@pytest.mark.parametrize("options", [{}, {"style": "plain"}], ids=["fast", "plain"])
def test_many_layers_are_what_deriving_all_of_them_gives(options):
    text = chain("dense", 70)
    assert repeated_layers(text).count == 70
    assert emit(text, **options) == emit(derive(declare(text)), **options)


def test_a_thousand_layers(module_of):
    module = module_of(chain("dense", 1000))
    assert len(module.SHAPES) == 2002
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((2, 6)), np.eye(3)[[0, 2]]
    loss, gradients = module.loss_and_gradients(module.init(0), X, Y)
    assert module.Trainer(module.init(0), 2, "sgd").step(X, Y) == pytest.approx(loss, rel=1e-12)
    assert np.abs(gradients["W1"]).max() > 0


@pytest.mark.parametrize(
    ("items", "found"),
    [
        (["a1 = b1", "a2 = b2", "a3 = b3", "a4 = b4", "a5 = b5"], [(0, 1, 5)]),
        (["a1", "b1"] * 3 + ["c"], []),  # nothing grows
        (["x"] + [f"{s}{k}" for k in range(2, 9) for s in "pq"], [(1, 3, 7)]),
        (["a1", "a2", "a3", "a5", "a6", "a7"], []),
    ],
)
def test_what_repeats(items, found):
    assert [(r.start, r.end, r.count) for r in runs(items)] == found


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([1, 2, 3], "range(1, 4)"), ([7], "(7,)"), ([4, 5, 9, 10, 14, 15, 16], "(*range(4, 19, 5), *range(5, 20, 5), 16)")],
)
def test_numbers_in_ranges(numbers, text):
    assert set(eval(text)) == set(numbers)
    if len(numbers) < 4:
        assert numbers_text(numbers) == text
    assert set(eval(numbers_text(numbers))) == set(numbers)


def test_repeated_layers_are_found_outside_brackets():
    assert repeated_layers("4 -> dense(3) -> half_squared_error") is None
    found = repeated_layers(
        " -> ".join(["4", *["residual(layer_norm -> dense(4))", "dropout(0.5)"] * 64, "dense(3)", "squared_error"])
    )
    assert (len(found.unit), found.count) == (2, 64)
