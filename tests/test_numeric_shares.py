"""A batch in shares: where the loss is a mean over examples, threads train to the same weights; elsewhere they are refused."""

import subprocess
import sys

import numpy as np
import pytest

from symbackprop import declare
from symbackprop.shares import is_mean_over_examples

from .test_numeric_buffers import batch

# Written networks; whether the loss of a batch is the mean of the losses of its shares.
WRITTEN = {
    "z[n,k] = sum(d, x[n,d]*W[d,k])\nL = sum(n, k, (z[n,k] - y[n,k])^2)/N": True,
    "z[n,k] = sum(d, x[n,d]*W[d,k])\nL = sum(n, k, (z[n,k] - y[n,k])^2)": False,
    "z[n,k] = sum(d, x[n,d]*W[d,k])\nS = sum(n, k, (z[n,k] - y[n,k])^2)\nL = S/N + sum(d, k, W[d,k]^2)": True,
    "z[n,k] = sum(d, x[n,d]*W[d,k])\nS = sum(n, k, (z[n,k] - y[n,k])^2)\nL = S/N^2": False,
    "z[n,k] = sum(d, x[n,d]*W[d,k])\nS = sum(n, k, (z[n,k] - y[n,k])^2)\nR = sum(n, k, z[n,k]^2)/N\nL = 2*(S/N + R*W[0,0])": True,
    "z[n,k] = sum(d, x[n,d]*W[d,k])\nS = sum(n, k, (z[n,k] - y[n,k])^2)/N\nL = sqrt(S)": False,
    "z[n,k] = sum(d, x[n,d]*W[d,k])\nS = sum(n, k, (z[n,k] - y[n,k])^2)/N\nR = sum(n, k, z[n,k]^2)/N\nL = S*R": False,
    "m[d] = sum(n, x[n,d])/N\nL = sum(n, k, (sum(d, (x[n,d] - m[d])*W[d,k]) - y[n,k])^2)/N": False,
    "z[n,k] = sum(d, x[n,d]*W[d,k])\nL = sum(n, k, (z[n,k] - pad(z[n-1,k]))^2 + y[n,k]*z[n,k])/N": False,
    "z[n,k] = sum(d, x[n,d]*W[d,k])\nL = sum(n, k, n*(z[n,k] - y[n,k])^2)/N": False,
    "z[n,k] = sum(d, x[n,d]*W[d,k])/N\nL = sum(n, k, (z[n,k] - y[n,k])^2)/N": False,
    "z[n,k] = sum(d, x[n,d]*W[d,k])\nL = max(n, k, (z[n,k] - y[n,k])^2)": False,
    "z[n,k] = sum(d, x[n,d]*W[d,k])\nM = max(n, k, z[n,k])\nL = sum(n, k, (z[n,k] - y[n,k])^2)/N + M": False,
}


def written(equations):
    arrays = {"inputs": ["x[n,d]"], "targets": ["y[n,k]"], "parameters": ["W[d,k]"]}
    return declare({"name": "written", "equations": equations, "sizes": {"d": 3, "k": 2}, **arrays})


def losses(module, network, count, cut):
    """The loss of a batch, and the mean of those of its two shares."""
    rng = np.random.default_rng(3)
    X, Y = batch(module, network, count, rng)
    params = module.init(1, np.float64, {s: 3 for s, n in module.SIZES.items() if n is None})
    take = lambda rows: module.loss(params, {k: a[rows] for k, a in X.items()}, {k: a[rows] for k, a in Y.items()})  # noqa: E731
    shares = cut / count * take(slice(0, cut)) + (1 - cut / count) * take(slice(cut, count))
    return module.loss(params, X, Y), shares


@pytest.mark.parametrize("equations", WRITTEN)
def test_the_proof_says_what_numbers_say(equations, module_of):
    network = written(equations)
    whole, shares = losses(module_of(network), network, 7, 3)
    assert is_mean_over_examples(network) == WRITTEN[equations]
    assert (abs(whole - shares) < 1e-12 * abs(whole)) == WRITTEN[equations]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("xor", True), ("lenet", True), ("char_lstm", True), ("tiny_transformer", True), ("autoencoder", True),
        ("word2vec", True), ("linear_svm", True), ("variational_autoencoder", True), ("two_tower", False),
        ("3 -> dense(4) -> batch_norm -> dense(2) -> squared_error", False),
        ("5 -> dense(4, softplus, l2=0.01) -> dense(2) -> hinge", True),
    ],
)  # fmt: skip
def test_networks_whose_batches_can_be_shared(name, answer, module_of):
    network = declare(name)
    assert is_mean_over_examples(network) == answer
    if "batch_norm" not in name:
        whole, shares = losses(module_of(name), network, 5, 2)
        assert (abs(whole - shares) < 1e-12 * abs(whole)) == answer


@pytest.mark.parametrize(
    "chain",
    [
        "4 -> dense(5, relu) -> dropout(0.5) -> dense(3) -> softmax_cross_entropy",
        "T x 3 -> lstm(4) -> last -> dense(2) -> softmax_cross_entropy",
        "6x5x2 -> conv(3, 2x2, relu) -> maxpool(2x2) -> flatten -> dense(2, l2=0.1) -> squared_error",
        "word2vec",
    ],
)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_threads_train_to_the_same_weights(chain, optimizer, module_of):
    module, network = module_of(chain, target="numba"), declare(chain)
    module.BLOCK = 16  # so that every thread has weights to update
    batches = [batch(module, network, count, np.random.default_rng(count)) for count in (7, 6, 1, 7)]
    start = module.init(0, np.float64, {s: 3 for s, n in module.SIZES.items() if n is None})
    alone = module.Trainer(start, 7, optimizer, 0.05)
    expected = [alone.step(*data) for data in batches]
    for threads in (2, 3, 8):
        trainer = module.Trainer(start, 7, optimizer, 0.05, threads=threads)
        assert np.allclose([trainer.step(*data) for data in batches], expected, rtol=1e-12)
        for key, w in alone.params.items():
            assert np.allclose(trainer.params[key], w, rtol=1e-10, atol=1e-12), (threads, key)


def test_fit_in_threads_and_what_is_refused(module_of, tmp_path):
    module = module_of("4 -> dense(5, tanh) -> dense(3) -> softmax_cross_entropy", target="numba")
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((50, 4)), rng.integers(3, size=50)
    found = [module.fit(X, Y, epochs=3, batch_size=16, threads=threads) for threads in (1, 2, 2)]
    assert [r["loss"] for r in found[0][1]] == pytest.approx([r["loss"] for r in found[1][1]], rel=1e-10)
    assert found[1][1] == found[2][1]  # the same to the last bit with as many threads
    with pytest.raises(ValueError, match="threads must be at least 1"):
        module.Trainer(module.init(0), threads=0)
    norm = module_of("3 -> dense(4) -> batch_norm -> dense(2) -> squared_error", target="numba")
    with pytest.raises(ValueError, match="no mean over examples"):
        norm.Trainer(norm.init(0), threads=2)


def test_threads_on_the_command_line(module_of, tmp_path):
    module = module_of("2 -> dense(3, tanh) -> dense(1, sigmoid) -> binary_cross_entropy", target="numba")
    np.savez(tmp_path / "data.npz", X=np.eye(2), Y=np.array([[0.0], [1.0]]))
    command = [sys.executable, module.__file__, "fit", "data.npz", "--epochs", "2"]
    done = subprocess.run([*command, "--threads", "2"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "epoch    2" in done.stdout
    done = subprocess.run([*command, "--threads", "0", "--force"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: threads must be at least 1\n")
