"""Training writes into buffers that are kept: the same derivatives to the last bit, and a step that allocates nothing large."""

import tracemalloc

import numpy as np
import pytest

from symbackprop import declare
from symbackprop.buffered import Buffering
from symbackprop.plan import Statement

from .conftest import random_targets

NETWORKS = [
    "4 -> dense(5, relu) -> dense(3, softmax) -> cross_entropy",
    "3 -> dense(4, gelu) -> layer_norm -> dense(2) -> softmax_cross_entropy",
    "3 -> dense(4, mish) -> batch_norm -> dense(2) -> huber",
    "6x5x2 -> conv(3, 2x2, relu) -> maxpool(2x2) -> flatten -> dense(2) -> softmax_cross_entropy",
    "6x6x2 -> conv(4, 3x3, stride=2, padding=1, groups=2) -> avgpool(1x1) -> flatten -> dense(2) -> squared_error",
    "T x 3 -> lstm(4) -> last -> dense(2) -> softmax_cross_entropy",
    "T x 3 -> gru(4) -> last -> dense(1) -> squared_error",
    "T x 4 -> attention(2) -> last -> dense(2) -> softmax_cross_entropy",
    "4 -> residual(layer_norm -> dense(4, silu)) -> dense(1, sigmoid) -> binary_cross_entropy",
    "4 -> dense(5, elu) -> dropout(0.5) -> dense(3, selu) -> rms_norm -> dense(2, leaky_relu) -> absolute_error",
    "5 -> dense(4, softplus, l2=0.01) -> dense(3, softsign) -> dense(2) -> hinge",
    "4 -> dense(3, log_softmax) -> negative_log_likelihood",
    "two_tower",
    "variational_autoencoder",
    "5x4x2 -> conv(3, 3x3, relu, padding=1) -> conv(2, 3x2, stride=2, padding=1) -> flatten -> dense(2) -> squared_error",
    "T x 3 -> gru(4) -> dense(2) -> softmax_cross_entropy",
    "word2vec",
    "line",
]


def batch(module, network, count, rng):
    sizes = {**module.SIZES, **{s: 3 for s, n in module.SIZES.items() if n is None}}
    sizes = module._complete(sizes) if hasattr(module, "_complete") else sizes
    places = getattr(module, "PLACES", {})

    def shape(axes):
        return tuple(count if a is None else sizes[a] for a in axes)

    def draw(key, axes, labels):
        if key in places:
            return rng.integers(sizes[places[key]] if places[key] else 2, size=shape(axes))
        return rng.standard_normal(shape(axes)) if labels is None else random_targets(labels, shape(axes), rng)

    X = {k: draw(k, axes, None) for k, axes in module.INPUTS.items()}
    return X, {k: draw(k, axes, network.labels) for k, axes in module.TARGETS.items()}


def assert_training_follows(network, module, optimizer="momentum", counts=(4, 4, 7, 7, 4, 4)):
    """Training passes with these batch sizes have the loss and the derivatives that the separate functions give."""
    rng = np.random.default_rng(0)
    trainer = module.Trainer(module.init(0, np.float64, {s: 3 for s, n in module.SIZES.items() if n is None}), 4, optimizer, 1e-3)
    for count in counts:  # another batch size has buffers of its own
        X, Y = batch(module, network, count, rng)
        noise = {"noise": trainer.noise(X)} if hasattr(trainer, "noise") else {}
        loss, gradients = module.loss_and_gradients({k: w.copy() for k, w in trainer.params.items()}, X, Y, **noise)
        assert trainer.step(X, Y) == pytest.approx(loss, rel=1e-12)
        scale = max(np.abs(g).max() for g in gradients.values())
        for key, g in trainer._grads.items():
            assert np.abs(g - gradients[key]).max() <= 1e-12 * scale


@pytest.mark.parametrize("style", ["fast", "plain"])
@pytest.mark.parametrize("name", NETWORKS)
def test_training_follows_the_derivatives(name, style, module_of, monkeypatch):
    network, module = declare(name), module_of(name, style=style)
    # What an array holds before something is written into it must not matter.
    empty = np.empty

    def poisoned(shape, dtype=float, **options):
        made = empty(shape, dtype, **options)
        if made.dtype.kind == "f":
            made.fill(np.nan)
        return made

    monkeypatch.setattr(np, "empty", poisoned)
    assert_training_follows(network, module)


def test_a_product_is_not_written_over_what_it_reads():
    shapes = {"x": ("N", "T", "H"), "a": ("N", "T", "H"), "W": ("H", "H"), "z": ("N", "T", "H"), "N": (), "T": (), "H": ()}
    codes = {"a": "x + x", "z": "np.tensordot(a, W, axes=([2], [0]))", "b": "z * z", "c": "b @ W", "d": "c * c"}
    statements = [Statement(name, code, "", (f"{name} = {code}",)) for name, code in codes.items()]
    made = Buffering(shapes, (), {}, {"N": "N", "T": "T", "H": "H"}).rewrite(statements)
    lines = [line for s in made for line in s.lines]
    product = next(line for line in lines if line.startswith("np.dot(a"))
    assert "out=z.reshape" in product
    batched = next(line for line in lines if "np.matmul(b" in line or "np.matmul(z" in line)
    assert f"out={batched.partition('(')[2].partition(',')[0]}" not in batched


# Compiling takes seconds: the others when all is asked for.
COMPILED_ALWAYS = {False: {NETWORKS[3], NETWORKS[5]}, True: {NETWORKS[7]}}


@pytest.mark.parametrize("products", [False, True], ids=["loops", "products"])
@pytest.mark.parametrize("name", NETWORKS)
def test_compiled_training_follows_the_derivatives(name, products, sweep, module_of, monkeypatch):
    if not sweep and name not in COMPILED_ALWAYS[products]:
        pytest.skip("compiled with --sweep")
    if products:  # of matrices however small, else these networks have none
        monkeypatch.setattr("symbackprop.loop_products._SMALL", 0)
    assert_training_follows(declare(name), module_of(name, target="numba"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_compiled_functions_are_as_exact_as_numpy(dtype, module_of):
    module = module_of("2 -> dense(2, tanh) -> dense(1, sigmoid) -> binary_cross_entropy", target="numba")
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(scale=s, size=400) for s in (1e-9, 1e-3, 1, 30)]).astype(dtype)
    # In single precision exp is 0 a little before it is too small, and infinite a little before it is too large.
    x = x[np.abs(x) < 86]
    unit = np.finfo(dtype).eps
    for name in ("exp", "expm1", "tanh"):
        own = np.array([getattr(module, f"_{name}")(v) for v in x])
        exact = getattr(np, name)(x.astype(np.longdouble))
        assert np.max(np.abs(own - exact) / np.maximum(np.abs(exact), np.finfo(dtype).tiny)) < 4 * unit, name
    nan, inf = dtype(np.nan), dtype(np.inf)
    assert [module._exp(v) for v in (-inf, dtype(-1e4), dtype(0))] == [0, 0, 1]
    assert module._exp(inf) == module._exp(dtype(1e4)) == module._expm1(inf) == inf
    assert (module._tanh(-inf), module._tanh(inf), module._expm1(-inf)) == (-1, 1, -1)
    assert all(np.isnan(f(nan)) for f in (module._exp, module._expm1, module._tanh))


def test_compiled_training_does_not_swallow_what_is_no_number(module_of):
    module = module_of("3 -> dense(4, relu) -> dense(2) -> softmax_cross_entropy", target="numba")
    params = module.init(0)
    params["W1"][0, 0] = np.nan
    trainer = module.Trainer(params, 4)
    assert np.isnan(trainer.step(np.ones((4, 3)), np.eye(2)[[0, 1, 0, 1]]))


def test_compiled_training_takes_arrays_however_they_lie(module_of):
    module = module_of("3 -> dense(4, tanh) -> dense(2) -> softmax_cross_entropy", target="numba")
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((3, 6)).T, np.eye(2)[rng.integers(2, size=12)][::2]
    losses = [module.Trainer(module.init(0), 6).step(*data) for data in ((X, Y), (X.copy(), Y.copy()), (X.tolist(), Y.tolist()))]
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"])
def test_both_styles_update_alike(optimizer, module_of):
    chain = "4 -> dense(5, tanh) -> dense(3, softmax) -> cross_entropy"
    fast, plain = module_of(chain), module_of(chain, style="plain")
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((6, 4)), np.eye(3)[rng.integers(3, size=6)]
    trainers = [m.Trainer(m.init(0), 6, optimizer, 0.01) for m in (fast, plain)]
    for _ in range(5):
        for t in trainers:
            t.step(X, Y)
    for key, w in trainers[0].params.items():
        assert np.allclose(w, trainers[1].params[key], rtol=1e-12, atol=1e-15)


def test_compiled_updates_are_alike(module_of):
    chain = "4 -> dense(5, tanh) -> dense(3, softmax) -> cross_entropy"
    modules = module_of(chain), module_of(chain, target="numba")
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((6, 4)), np.eye(3)[rng.integers(3, size=6)]
    for optimizer in modules[0].OPTIMIZERS:
        trainers = [m.Trainer(m.init(0), 6, optimizer, 0.01) for m in modules]
        for _ in range(5):
            for t in trainers:
                t.step(X, Y)
        for key, w in trainers[0].params.items():
            assert np.allclose(w, trainers[1].params[key], rtol=1e-12, atol=1e-15), optimizer


SHAPES = {
    "400 -> dense(300, relu) -> dense(200, tanh) -> dense(10) -> softmax_cross_entropy": (400,),
    "T x 64 -> lstm(64) -> dense(10) -> softmax_cross_entropy": (24, 64),
    "T x 64 -> gru(64) -> last -> dense(10) -> softmax_cross_entropy": (24, 64),
    "T x 64 -> residual(layer_norm -> attention(4)) -> dense(128, gelu_tanh) -> last -> dense(10) -> softmax_cross_entropy": (
        24,
        64,
    ),
    "16x16x4 -> conv(8, 3x3, relu) -> conv(8, 3x3, padding=1) -> flatten -> dense(10) -> softmax_cross_entropy": (16, 16, 4),
}


@pytest.mark.parametrize("chain", SHAPES)
def test_a_step_allocates_nothing_large(chain, module_of):
    module = module_of(chain)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((128, *SHAPES[chain]))
    steps = X.shape[:2] if "lstm" in chain else X.shape[:1]
    Y = np.eye(10)[rng.integers(10, size=steps)]
    trainer = module.Trainer(module.init(0, sizes={"T": 24} if "T x" in chain else None), 128, "adam")
    for _ in range(3):
        trainer.step(X, Y)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    trainer.step(X, Y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # NumPy's own buffers of 8192 numbers, in which it turns truth values and strides into numbers in a row; the smallest of the
    # arrays that a step computes for all examples and places has 204 800 bytes.
    assert peak - before < 140_000


@pytest.mark.parametrize("chain", [c for c in SHAPES if "T x" in c])
def test_steps_of_other_lengths_between_leave_no_trace(chain, module_of):
    module = module_of(chain)
    rng = np.random.default_rng(0)
    batches = []
    for examples, length in ((3, 5), (3, 2), (4, 5), (3, 5)):
        Y = np.eye(10)[rng.integers(10, size=(examples, length) if "lstm" in chain else examples)]
        batches.append((rng.standard_normal((examples, length, 64)), Y))
    params = module.init(0, sizes={"T": 5})
    trainer = module.Trainer(params, 3, "sgd", learning_rate=0.0)
    found = []
    for X, Y in batches:
        trainer.step(X, Y)
        found.append({key: np.array(g) for key, g in trainer._grads.items()})
    for (X, Y), gradients in zip(batches, found, strict=True):
        alone = module.Trainer(params, 3, "sgd", learning_rate=0.0)
        alone.step(X, Y)
        for key, g in alone._grads.items():
            assert np.array_equal(g, gradients[key]), key


def test_what_is_not_needed_any_more_makes_room(module_of):
    module = module_of(
        "28x28x1 -> conv(6, 5x5, relu) -> maxpool(2x2) -> conv(16, 5x5, relu) -> flatten -> dense(3) -> softmax_cross_entropy"
    )
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((8, 28, 28, 1)), np.eye(3)[rng.integers(3, size=8)]
    trainer = module.Trainer(module.init(0), 8)
    trainer.step(X, Y)
    ((_, buffers),) = trainer._buffers.items()
    views = [b for b in buffers if b is not None and b.base is not None and any(b.base is other for other in buffers)]
    assert views, "the windows of the second layer lie in those of the first"
    again = module.Trainer(module.init(0), 8)
    for _ in range(2):
        # what a room held before must not matter
        for b in again._buffers.get(((8, 28, 28, 1),), ()):
            if b.ndim > 1 and b.dtype == float:
                b[...] = np.nan
        loss = again.step(X, Y)
    trainer.step(X, Y)
    assert np.isfinite(loss)
    for key, w in trainer.params.items():
        assert np.array_equal(w, again.params[key]), key


def test_wrong_shapes_are_still_refused(module_of):
    module = module_of("4 -> dense(3, softmax) -> cross_entropy")
    trainer = module.Trainer(module.init(0), 2)
    X, Y = np.ones((2, 4)), np.eye(3)[:2]
    trainer.step(X, Y)
    with pytest.raises(ValueError, match="must have the shape"):
        trainer.step(np.ones((2, 5)), Y)
    with pytest.raises(ValueError, match="different numbers"):
        trainer.step(np.ones((3, 4)), Y)


def test_compiled_fit_follows_numpy_and_resumes(module_of, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 4))
    Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
    chain = "4 -> dense(6, relu) -> batch_norm -> dropout(0.8) -> dense(3) -> softmax_cross_entropy"
    options = {"batch_size": 16, "optimizer": "adam", "learning_rate": 0.01}  # the last batch of an epoch is smaller
    found = [module_of(chain, target=target).fit(X, Y, epochs=4, **options) for target in ("numpy", "numba")]
    for key, w in found[0][0].items():
        assert np.allclose(w, found[1][0][key], rtol=1e-9, atol=1e-12), key
    module, state = module_of(chain, target="numba"), tmp_path / "state.npz"
    module.fit(X, Y, epochs=2, checkpoint=state, **options)
    again, history = module.fit(X, Y, epochs=4, checkpoint=state, resume=True, **options)
    assert len(history) == 4
    for key, w in found[1][0].items():
        assert np.array_equal(w, again[key]), key


WRITTEN = {
    "two recurrences, one backwards": """
        h[n,t,k] = tanh(sum(d, x[n,t,d]*W[d,k]) + sum(j, h[n,t-1,j]*U[j,k]))
        g[n,t,k] = tanh(h[n,t,k] + sum(j, g[n,t+1,j]*V[j,k]))
        L = mean(n, sum(t, k, g[n,t,k]^2*h[n,t,k]))""",
    "time last": """
        h[n,k,t] = tanh(sum(d, x[n,t,d]*W[d,k]) + sum(j, h[n,j,t-1]*U[j,k]))
        a[n,k,t] = exp(h[n,k,t])*h[n,k,t]
        L = mean(n, sum(t, k, a[n,k,t]^2*sum(j, V[j,k])))""",
    "several steps back": """
        h[n,t,k] = sin(sum(d, x[n,t,d]*W[d,k]) + U[0,k]*h[n,t-1,k] + V[0,k]*h[n,t-3,k])
        L = mean(n, sum(t, k, h[n,t,k]^2))""",
    "the last step counts more": """
        h[n,t] = sin(sum(d, x[n,t,d]*W[d,0]) + U[0,0]*h[n,t-1])
        L = mean(n, h[n,T-1]^2*V[0,0] + sum(t, h[n,t]))""",
    "a start": """
        h[n,-1,j] = V[0,j]
        h[n,t,k] = tanh(sum(d, x[n,t,d]*W[d,k]) + sum(j, h[n,t-1,j]*U[j,k]))
        L = mean(n, sum(k, (h[n,T-1,k] - 1)^2))""",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_training_follows_the_derivatives_of_written_equations(name, module_of):
    equations = "\n".join(line.strip() for line in WRITTEN[name].splitlines())
    given = 'inputs = ["x[n,t,d]"]\nparameters = ["W[d,k]", "U[j,k]", "V[j,k]"]\n'
    network = declare(f'{given}equations = """{equations}\n"""\n[sizes]\nd = 3\nk = 4\nj = 4\nt = 6\n')
    module = module_of(network)
    rng = np.random.default_rng(0)
    params, X = module.init(0), rng.standard_normal((5, 6, 3))
    stored = module._forward(params, X)
    expected = module._backward(params, stored, X)
    found, buffers = {key: np.full_like(w, np.nan) for key, w in params.items()}, []
    for _ in range(3):
        module._train(params, found, buffers, X)
        for key, g in expected.items():
            assert np.abs(found[key] - g).max() <= 1e-12 * max(np.abs(g).max(), 1), key
