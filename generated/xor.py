"""xor: forward pass, loss, derivatives and training in NumPy.

Written by symbackprop (`symbackprop emit`); do not edit, derive it again.

    2 -> dense(4, tanh) -> dense(1, sigmoid) -> binary_cross_entropy

Forward:

    z1[n,h] = sum(d, x[n,d]*W1[d,h]) + b1[h]
    a1[n,h] = tanh(z1[n,h])
    z2[n,k] = sum(h, a1[n,h]*W2[h,k]) + b2[k]
    a2[n,k] = sigmoid(z2[n,k])
    L = sum(n, k, -(1 - y[n,k])*log(1 - a2[n,k]) - y[n,k]*log(a2[n,k]))/N

Derivatives of L (d<name> is the derivative with respect to <name>):

    dz2[n,k] = (a2[n,k] - y[n,k])/N
    dW2[h,k] = sum(n, dz2[n,k]*a1[n,h])
    da1[n,h] = sum(k, dz2[n,k]*W2[h,k])
    db2[k] = sum(n, dz2[n,k])
    dz1[n,h] = da1[n,h]*(1 - a1[n,h]**2)
    dW1[d,h] = sum(n, dz1[n,h]*x[n,d])
    db1[h] = sum(n, dz1[n,h])

From Python:  params, history = fit(X, Y)       predict(params, X)       check_gradients()
From a shell: python FILE.py fit DATA.npz       python FILE.py predict DATA.npz       python FILE.py check
"""

import argparse
import csv
import json
import math
import os
import sys

import numpy as np

DTYPE = np.float64
SIZES = {
    "D": 2,
    "N": None,
    "H": 4,
    "K": 1,
}  # None: known from the data
SHAPES = {
    "W1": ("D", "H"),
    "b1": ("H",),
    "W2": ("H", "K"),
    "b2": ("K",),
}
INPUTS = {
    "x": (None, "D"),
}  # None: the examples
TARGETS = {
    "y": (None, "K"),
}


# ---------------------------------------------------------------------------------------------- functions


@np.errstate(over="ignore")  # where an exponential overflows, one over it is the zero that it should be
def sigmoid(z):
    """sigmoid(z) = 1/(1 + exp(-z))"""
    return 1 / (1 + np.exp(-z))


def softplus(z):
    """softplus(z) = log(1 + exp(z))"""
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


# ---------------------------------------------------------------------------------------------- data


def _array(value, key, shape, dtype, one_hot=False):
    """One input or target as an array of the right shape; class numbers become one-hot rows."""
    value = np.asarray(value)
    if value.dtype.kind not in "biuf":
        raise ValueError(f"'{key}' must hold numbers, not {value.dtype}")
    if one_hot and value.ndim == len(shape) - 1 and value.dtype.kind in "biu":
        classes = SIZES[shape[-1]] or int(value.max()) + 1
        if value.size and (value.min() < 0 or value.max() >= classes):
            raise ValueError(f"the classes in '{key}' must be 0 to {classes - 1}, found {value.min()} to {value.max()}")
        value = np.eye(classes, dtype=dtype)[value]
    if value.ndim == len(shape) - 1 and shape and SIZES.get(shape[-1]) == 1:
        value = value[..., None]
    if value.ndim == 2 and value.shape[1] == 1 and len(shape) == 1:
        value = value[:, 0]
    expected = tuple(SIZES.get(s) if s else None for s in shape)
    if value.ndim == 2 and len(shape) > 2 and None not in expected[1:] and value.shape[1] == math.prod(expected[1:]):
        value = value.reshape(len(value), *expected[1:])  # an example written in one row
    if value.ndim != len(shape) or any(e not in (None, s) for e, s in zip(expected, value.shape)):
        wanted = ", ".join("N" if s is None else str(SIZES.get(s) or s) for s in shape)
        raise ValueError(f"'{key}' must have the shape ({wanted}), not {value.shape}")
    return value.astype(dtype, order="C", copy=False)


def _arrays(data, shapes, dtype, one_hot=False):
    """The arrays by name: from a dict, from one array, or from the columns of a matrix, in the order of declaration."""
    if not isinstance(data, dict):
        data = np.asarray(data)
        if len(shapes) == 1:
            data = {next(iter(shapes)): data}
        elif data.ndim == 2 and data.shape[1] == len(shapes) and all(len(s) == 1 for s in shapes.values()):
            data = dict(zip(shapes, data.T))
        else:
            raise ValueError(f"give a dict with {', '.join(map(repr, shapes))}, or a matrix with one column each")
    missing = [key for key in shapes if key not in data]
    if missing:
        raise ValueError(f"the data lack {', '.join(map(repr, missing))}")
    arrays = [_array(data[key], key, shape, dtype, one_hot) for key, shape in shapes.items()]
    lengths = {len(a) for a, shape in zip(arrays, shapes.values()) if None in shape}
    if len(lengths) > 1:
        raise ValueError(f"the arrays have different numbers of examples: {sorted(lengths)}")
    return arrays


def inputs(X, dtype=DTYPE):
    """The inputs as a list of arrays: x."""
    return _arrays(X, INPUTS, dtype)


def targets(Y, dtype=DTYPE):
    """The targets as a list of arrays: y; what is assumed of them is checked."""
    return _arrays(Y, TARGETS, dtype, one_hot=False)


def _count(x, y):
    """The number of examples, the same in all arrays; None where the data have no such axis."""
    shapes = [*INPUTS.values(), *TARGETS.values()]
    lengths = {len(a) for a, shape in zip([*x, *y], shapes) if None in shape}
    if len(lengths) > 1:
        raise ValueError(f"inputs and targets have different numbers of examples: {sorted(lengths)}")
    return lengths.pop() if lengths else None


def _examples(X, Y, dtype):
    """Inputs and targets as lists of arrays of equal length."""
    x, y = inputs(X, dtype), targets(Y, dtype)
    _count(x, y)
    return x, y


# ---------------------------------------------------------------------------------------------- the network


def init(seed=0, dtype=DTYPE, sizes=None):
    """Fresh parameters, a dict from name to array; `sizes` gives the sizes that the network leaves to the data."""
    size = {**SIZES, **(sizes or {})}
    unknown = sorted({s for shape in SHAPES.values() for s in shape if size[s] is None})
    if unknown:
        raise ValueError(f"give the size of {', '.join(unknown)}: init(sizes={{{unknown[0]!r}: …}})")
    rng = np.random.default_rng(seed)
    params = {}
    shape = (size["D"], size["H"])
    fan_in = size["D"]
    fan_out = size["H"]
    scale = math.sqrt(6 / (fan_in + fan_out))
    params["W1"] = np.asarray(rng.uniform(-scale, scale, shape), dtype)
    shape = (size["H"],)
    params["b1"] = np.full(shape, 0, dtype)
    shape = (size["H"], size["K"])
    fan_in = size["H"]
    fan_out = size["K"]
    scale = math.sqrt(6 / (fan_in + fan_out))
    params["W2"] = np.asarray(rng.uniform(-scale, scale, shape), dtype)
    shape = (size["K"],)
    params["b2"] = np.full(shape, 0, dtype)
    return params


def _dtype(params):
    return next(iter(params.values())).dtype


def _forward(params, x):
    """The values of the forward pass that later parts read, by name."""
    W1 = params["W1"]
    b1 = params["b1"]
    W2 = params["W2"]
    b2 = params["b2"]
    # z1[n,h] = sum(d, x[n,d]*W1[d,h]) + b1[h]
    z1 = x @ W1 + b1
    # a1[n,h] = tanh(z1[n,h])
    a1 = np.tanh(z1)
    # z2[n,k] = sum(h, a1[n,h]*W2[h,k]) + b2[k]
    z2 = a1 @ W2 + b2
    # a2[n,k] = sigmoid(z2[n,k])
    a2 = sigmoid(z2)
    return {"a1": a1, "z2": z2, "a2": a2}


def _loss(params, stored, x, y):
    """The loss; what only the loss computes and the derivatives read is stored as well."""
    z2 = stored["z2"]
    N = z2.shape[0]
    # f1[n,k] = softplus(-z2[n,k])
    f1 = softplus(-z2)
    # L = sum(n, k, (1 - y[n,k])*(z2[n,k] + f1[n,k]) + y[n,k]*f1[n,k])/N
    L = ((1 - y) * (f1 + z2) + y * f1).sum() / N
    return L


def _backward(params, stored, x, y):
    """The derivatives of the loss, from the loss back to the inputs, each shared factor computed once."""
    W2 = params["W2"]
    a1, a2 = stored["a1"], stored["a2"]
    N = x.shape[0]
    # dz2[n,k] = (a2[n,k] - y[n,k])/N
    dz2 = (a2 - y) / N
    # dW2[h,k] = sum(n, dz2[n,k]*a1[n,h])
    dW2 = a1.T @ dz2
    # da1[n,h] = sum(k, dz2[n,k]*W2[h,k])
    da1 = dz2 @ W2.T
    # db2[k] = sum(n, dz2[n,k])
    db2 = dz2.sum(axis=0)
    # dz1[n,h] = da1[n,h]*(1 - a1[n,h]**2)
    dz1 = da1 * (1 - a1 ** 2)
    # dW1[d,h] = sum(n, dz1[n,h]*x[n,d])
    dW1 = x.T @ dz1
    # db1[h] = sum(n, dz1[n,h])
    db1 = dz1.sum(axis=0)
    return {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2}


@np.errstate(over="ignore")  # where an exponential overflows, one over it is the zero that it should be
def _train(params, grads, buffers, x, y):
    """One pass of training: the loss; the derivatives go into `grads`, all else into `buffers`, so that later passes allocate nothing."""
    W1 = params["W1"]
    b1 = params["b1"]
    W2 = params["W2"]
    b2 = params["b2"]
    N = x.shape[0]
    dW1 = grads["W1"]
    db1 = grads["b1"]
    dW2 = grads["W2"]
    db2 = grads["b2"]
    z1, z2, a2, one, f1, t1, zero, t2, t3, count_N, da1, ones_N = buffers or [None] * 12
    one = np.asarray(1, _dtype(params)) if one is None else one
    zero = np.asarray(0, _dtype(params)) if zero is None else zero
    count_N = np.asarray(N, _dtype(params)) if count_N is None else count_N
    ones_N = np.ones(N, _dtype(params)) if ones_N is None else ones_N
    # z1[n,h] = sum(d, x[n,d]*W1[d,h]) + b1[h]
    z1 = np.dot(x, W1, out=z1)
    z1 = np.add(z1, b1, out=z1)
    # a1[n,h] = tanh(z1[n,h])
    a1 = np.tanh(z1, out=z1)
    # z2[n,k] = sum(h, a1[n,h]*W2[h,k]) + b2[k]
    z2 = np.dot(a1, W2, out=z2)
    z2 = np.add(z2, b2, out=z2)
    # a2[n,k] = sigmoid(z2[n,k])
    a2 = np.negative(z2, out=a2)
    a2 = np.exp(a2, out=a2)
    a2 = np.add(one, a2, out=a2)
    a2 = np.divide(one, a2, out=a2)
    # f1[n,k] = softplus(-z2[n,k])
    t1 = np.negative(z2, out=t1)
    f1 = np.maximum(t1, zero, out=f1)
    t2 = np.abs(t1, out=t2)
    t2 = np.negative(t2, out=t2)
    t2 = np.exp(t2, out=t2)
    t2 = np.log1p(t2, out=t2)
    f1 = np.add(f1, t2, out=f1)
    # L = sum(n, k, (1 - y[n,k])*(z2[n,k] + f1[n,k]) + y[n,k]*f1[n,k])/N
    t2 = np.subtract(one, y, out=t2)
    t1 = np.add(f1, z2, out=t1)
    t2 = np.multiply(t2, t1, out=t2)
    t3 = np.multiply(y, f1, out=t3)
    t2 = np.add(t2, t3, out=t2)
    L = np.add.reduce(t2, None) / N
    # dz2[n,k] = (a2[n,k] - y[n,k])/N
    a2 = np.subtract(a2, y, out=a2)
    dz2 = np.divide(a2, count_N, out=a2)
    # dW2[h,k] = sum(n, dz2[n,k]*a1[n,h])
    np.dot(a1.T, dz2, out=dW2)
    # da1[n,h] = sum(k, dz2[n,k]*W2[h,k])
    da1 = np.dot(dz2, W2.T, out=da1)
    # db2[k] = sum(n, dz2[n,k])
    np.dot(ones_N, dz2, out=db2)
    # dz1[n,h] = da1[n,h]*(1 - a1[n,h]**2)
    z1 = np.square(a1, out=z1)
    z1 = np.subtract(one, z1, out=z1)
    dz1 = np.multiply(da1, z1, out=z1)
    # dW1[d,h] = sum(n, dz1[n,h]*x[n,d])
    np.dot(x.T, dz1, out=dW1)
    # db1[h] = sum(n, dz1[n,h])
    np.dot(ones_N, dz1, out=db1)
    if not buffers:
        buffers += [z1, z2, a2, one, f1, t1, zero, t2, t3, count_N, da1, ones_N]
    return float(L)


def forward(params, X):
    """The prediction for every example in `X`."""
    x = inputs(X, _dtype(params))
    return _forward(params, *x)["a2"]


def loss(params, X, Y):
    """The loss over the examples in `X` with the targets `Y`, a float."""
    x, y = _examples(X, Y, _dtype(params))
    return float(_loss(params, _forward(params, *x), *x, *y))


def loss_and_gradients(params, X, Y):
    """The loss, a float, and its derivatives, a dict with the keys and shapes of `params`."""
    return _pass(params, *_examples(X, Y, _dtype(params)))[:2]


def _pass(params, x, y):
    """Forward and backward: the loss, its derivatives, and what was stored on the way."""
    stored = _forward(params, *x)
    value = float(_loss(params, stored, *x, *y))
    return value, _backward(params, stored, *x, *y), stored


def predict(params, X):
    """The label of every example, 0 or 1."""
    return (forward(params, X) >= 0.5).astype(int)


def score(params, X, Y):
    """The share of examples that are classified correctly."""
    (y,) = targets(Y, _dtype(params))
    return float(np.mean(predict(params, X) == y))


# ---------------------------------------------------------------------------------------------- training


def sgd(w, g, state, buffers, eta, t):
    """One update of the weights `w` by their gradient `g`, in place."""
    t1, = buffers or [None] * 1
    # w = w - eta*g
    t1 = np.multiply(eta, g, out=t1)
    np.subtract(w, t1, out=w)
    if not buffers:
        buffers += [t1]



def momentum(w, g, state, buffers, eta, t, mu=0.9):
    """One update of the weights `w` by their gradient `g`, in place (Polyak 1964)."""
    v = state["v"]
    t1, = buffers or [None] * 1
    # v = mu*v + g
    np.multiply(mu, v, out=v)
    np.add(v, g, out=v)
    # w = w - eta*v
    t1 = np.multiply(eta, v, out=t1)
    np.subtract(w, t1, out=w)
    if not buffers:
        buffers += [t1]



def nesterov(w, g, state, buffers, eta, t, mu=0.9):
    """One update of the weights `w` by their gradient `g`, in place (Nesterov 1983; Sutskever, Martens, Dahl, Hinton 2013)."""
    v = state["v"]
    t1, = buffers or [None] * 1
    # v = mu*v + g
    np.multiply(mu, v, out=v)
    np.add(v, g, out=v)
    # w = w - eta*(g + mu*v)
    t1 = np.multiply(mu, v, out=t1)
    t1 = np.add(t1, g, out=t1)
    t1 = np.multiply(eta, t1, out=t1)
    np.subtract(w, t1, out=w)
    if not buffers:
        buffers += [t1]



def adagrad(w, g, state, buffers, eta, t, epsilon=1e-10):
    """One update of the weights `w` by their gradient `g`, in place (Duchi, Hazan, Singer 2011)."""
    v = state["v"]
    t1, t2 = buffers or [None] * 2
    # v = v + g^2
    t1 = np.square(g, out=t1)
    np.add(v, t1, out=v)
    # w = w - eta*g/(sqrt(v) + epsilon)
    t1 = np.multiply(eta, g, out=t1)
    t2 = np.sqrt(v, out=t2)
    t2 = np.add(t2, epsilon, out=t2)
    t1 = np.divide(t1, t2, out=t1)
    np.subtract(w, t1, out=w)
    if not buffers:
        buffers += [t1, t2]



def rmsprop(w, g, state, buffers, eta, t, rho=0.99, epsilon=1e-08):
    """One update of the weights `w` by their gradient `g`, in place (Tieleman, Hinton 2012)."""
    v = state["v"]
    t1, t2 = buffers or [None] * 2
    # v = rho*v + (1 - rho)*g^2
    np.multiply(rho, v, out=v)
    t1 = np.square(g, out=t1)
    t1 = np.multiply(1 - rho, t1, out=t1)
    np.add(t1, v, out=v)
    # w = w - eta*g/(sqrt(v) + epsilon)
    t1 = np.multiply(eta, g, out=t1)
    t2 = np.sqrt(v, out=t2)
    t2 = np.add(t2, epsilon, out=t2)
    t1 = np.divide(t1, t2, out=t1)
    np.subtract(w, t1, out=w)
    if not buffers:
        buffers += [t1, t2]



def adam(w, g, state, buffers, eta, t, beta_1=0.9, beta_2=0.999, epsilon=1e-08):
    """One update of the weights `w` by their gradient `g`, in place (Kingma, Ba 2015)."""
    m = state["m"]
    v = state["v"]
    t1, = buffers or [None] * 1
    # m = beta_1*m + (1 - beta_1)*g
    np.multiply(beta_1, m, out=m)
    t1 = np.multiply(1 - beta_1, g, out=t1)
    np.add(t1, m, out=m)
    # v = beta_2*v + (1 - beta_2)*g^2
    np.multiply(beta_2, v, out=v)
    t1 = np.square(g, out=t1)
    t1 = np.multiply(1 - beta_2, t1, out=t1)
    np.add(t1, v, out=v)
    # w = w - eta*(m/(1 - beta_1^t))/(sqrt(v/(1 - beta_2^t)) + epsilon)
    t1 = np.divide(v, 1 - beta_2 ** t, out=t1)
    t1 = np.sqrt(t1, out=t1)
    t1 = np.add(t1, epsilon, out=t1)
    t1 = np.divide(m, t1, out=t1)
    t1 = np.multiply(eta / (1 - beta_1 ** t), t1, out=t1)
    np.subtract(w, t1, out=w)
    if not buffers:
        buffers += [t1]



def adamw(w, g, state, buffers, eta, t, beta_1=0.9, beta_2=0.999, epsilon=1e-08, lambda_=0.01):
    """One update of the weights `w` by their gradient `g`, in place (Loshchilov, Hutter 2019)."""
    m = state["m"]
    v = state["v"]
    t1, t2 = buffers or [None] * 2
    # m = beta_1*m + (1 - beta_1)*g
    np.multiply(beta_1, m, out=m)
    t1 = np.multiply(1 - beta_1, g, out=t1)
    np.add(t1, m, out=m)
    # v = beta_2*v + (1 - beta_2)*g^2
    np.multiply(beta_2, v, out=v)
    t1 = np.square(g, out=t1)
    t1 = np.multiply(1 - beta_2, t1, out=t1)
    np.add(t1, v, out=v)
    # w = w - eta*((m/(1 - beta_1^t))/(sqrt(v/(1 - beta_2^t)) + epsilon) + lambda*w)
    t1 = np.multiply(lambda_, w, out=t1)
    t2 = np.divide(v, 1 - beta_2 ** t, out=t2)
    t2 = np.sqrt(t2, out=t2)
    t2 = np.add(t2, epsilon, out=t2)
    t2 = np.multiply(1 - beta_1 ** t, t2, out=t2)
    t2 = np.divide(m, t2, out=t2)
    t1 = np.add(t1, t2, out=t1)
    t1 = np.multiply(eta, t1, out=t1)
    np.subtract(w, t1, out=w)
    if not buffers:
        buffers += [t1, t2]



BLOCK = 32768  # weights that are updated at a time: what this takes stays in the processor's cache
# name: (update, names of its state, usual learning rate, names of its constants)
OPTIMIZERS = {
    "sgd": (sgd, (), 0.1, ()),
    "momentum": (momentum, ("v",), 0.05, ("mu",)),
    "nesterov": (nesterov, ("v",), 0.05, ("mu",)),
    "adagrad": (adagrad, ("v",), 0.1, ("epsilon",)),
    "rmsprop": (rmsprop, ("v",), 0.01, ("rho", "epsilon")),
    "adam": (adam, ("m", "v"), 0.01, ("beta_1", "beta_2", "epsilon")),
    "adamw": (adamw, ("m", "v"), 0.01, ("beta_1", "beta_2", "epsilon", "lambda_")),
}


def constant(eta_0, t):
    """The learning rate after `t` updates: eta_0"""
    return eta_0


def inverse_time(eta_0, t, decay=0.001):
    """The learning rate after `t` updates: eta_0/(1 + decay*t)"""
    return eta_0 / (1 + decay * t)


def exponential(eta_0, t, decay=0.001):
    """The learning rate after `t` updates: eta_0*exp(-decay*t)"""
    return eta_0 * np.exp(-decay * t)


def staircase(eta_0, t, factor=0.5, every=1000):
    """The learning rate after `t` updates: eta_0*factor^floor(t/every)"""
    return eta_0 * factor ** np.floor(t / every)


def cosine(eta_0, t, total=10000):
    """The learning rate after `t` updates: eta_0*(1 + cos(pi*min(t, total)/total))/2"""
    return eta_0 * (1 + np.cos(np.pi * np.minimum(t, total) / total)) / 2


# name: (learning rate, names of its constants)
SCHEDULES = {
    "constant": (constant, ()),
    "inverse_time": (inverse_time, ("decay",)),
    "exponential": (exponential, ("decay",)),
    "staircase": (staircase, ("factor", "every")),
    "cosine": (cosine, ("total",)),
}


class Trainer:
    """Mini-batch training: `step` averages the gradient over a batch and updates `params` in place.

    `optimizer` is one of sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw; `schedule` one of
    constant, inverse_time, exponential, staircase, cosine; their constants (`mu`, `beta_1`, `decay`, …) are given by
    name. `state` holds the optimiser's arrays by parameter, `steps` counts updates.
    """

    def __init__(self, params, batch_size=4, optimizer="sgd", learning_rate=None, schedule="constant", **constants):
        for name, table in ((optimizer, OPTIMIZERS), (schedule, SCHEDULES)):
            if name not in table:
                raise ValueError(f"unknown {name!r}: choose one of {', '.join(table)}")
        if batch_size < 1:
            raise ValueError("batch_size must be at least 1")
        self._dtype = _dtype(params)
        shapes = {name: np.shape(params[name]) for name in SHAPES}
        # All weights lie in one vector, their gradients and the optimiser's state in others: an update is a few operations.
        self._weights, self.params = _flat(shapes, self._dtype)
        self._gradient, self._grads = _flat(shapes, self._dtype)
        for name, w in self.params.items():
            w[...] = params[name]
        self._buffers, self._known = {}, set()
        self.batch_size = batch_size
        self.optimizer, self.schedule = optimizer, schedule
        self._update, states, usual, own = OPTIMIZERS[optimizer]
        self.learning_rate = usual if learning_rate is None else float(learning_rate)
        self._constants = {k: constants.pop(k) for k in own if k in constants}
        self._rate, own = SCHEDULES[schedule]
        self._rate_constants = {k: constants.pop(k) for k in own if k in constants}
        if constants:
            raise TypeError(f"{optimizer} and {schedule} have no constant {next(iter(constants))!r}")
        flat = {s: _flat(shapes, self._dtype) for s in states}
        self.state = {name: {s: views[name] for s, (_, views) in flat.items()} for name in shapes}
        self._blocks = []
        for start in range(0, len(self._weights), BLOCK):
            part = slice(start, start + BLOCK)
            self._blocks.append((self._weights[part], self._gradient[part], {s: v[part] for s, (v, _) in flat.items()}, []))
        self.steps = 0

    def _checked(self, X, Y):
        """The arrays of a batch: checked and converted, except where arrays of these shapes and the right type were checked before."""
        ready = type(X) is np.ndarray and X.dtype == self._dtype and type(Y) is np.ndarray and Y.dtype == self._dtype
        ready = ready and X.flags.c_contiguous and Y.flags.c_contiguous
        if ready and (X.shape, Y.shape) in self._known:
            return [X], [Y]
        x, y = _examples(X, Y, self._dtype)
        if ready and x[0] is X and y[0] is Y:
            self._known.add((X.shape, Y.shape))
        return x, y

    def step(self, X, Y):
        """One update on a batch; returns its loss before the update."""
        return self._step(*self._checked(X, Y))

    def _step(self, x, y):
        """One update on arrays that were checked before."""
        buffers = self._buffers.setdefault(tuple([a.shape for a in [*x, *y]]), [])
        value = _train(self.params, self._grads, buffers, *x, *y)
        eta = float(self._rate(self.learning_rate, self.steps, **self._rate_constants))
        self.steps += 1
        for w, g, state, own in self._blocks:
            self._update(w, g, state, own, eta, self.steps, **self._constants)
        return value


def _flat(shapes, dtype):
    """A vector of zeros and views of its parts by name; each begins where a cache line does."""
    starts, total = {}, 0
    for name, shape in shapes.items():
        starts[name] = total
        total += -(-math.prod(shape) // 16) * 16
    vector = np.zeros(total, dtype)
    return vector, {name: vector[k : k + math.prod(shapes[name])].reshape(shapes[name]) for name, k in starts.items()}


def _rows(arrays, shapes, rows):
    """Some of the examples, of the arrays that have such."""
    return [a[rows] if None in shape else a for shape, a in zip(shapes.values(), arrays)]


def fit(
    X,
    Y,
    *,
    epochs=500,
    batch_size=4,
    optimizer="adam",
    learning_rate=0.05,
    schedule="constant",
    seed=0,
    dtype=DTYPE,
    params=None,
    validation=None,
    checkpoint=None,
    resume=False,
    progress=None,
    **constants,
):
    """Train on `X`, `Y`; returns the parameters and the history, a list with a dict for each epoch.

    Every epoch goes once through the examples in a new order (drawn from `seed` and the epoch, so that a resumed run
    repeats an uninterrupted one to the last bit) in batches of `batch_size`. `validation` is a pair (X, Y) whose score
    is recorded. `checkpoint` names a file written after every epoch; with `resume` training goes on from it.
    `progress` is called with the newest record.
    """
    x, y = _examples(X, Y, dtype)
    total = _count(x, y)
    if total == 0:
        raise ValueError("there are no examples")
    if epochs < 1:
        raise ValueError("epochs must be at least 1")
    for key, a in zip([*INPUTS, *TARGETS], [*x, *y]):
        if not np.all(np.isfinite(a)):
            raise ValueError(f"'{key}' holds values that are not finite numbers")
    if params is None:
        shapes = [*INPUTS.values(), *TARGETS.values()]
        found = {s: n for a, shape in zip([*x, *y], shapes) for s, n in zip(shape, a.shape) if s}
        params = init(seed, dtype, {s: found[s] for s, n in SIZES.items() if n is None and s in found})
    trainer = Trainer(params, batch_size, optimizer, learning_rate, schedule, **constants)
    settings = {
        "optimizer": optimizer,
        "learning_rate": trainer.learning_rate,
        "schedule": schedule,
        "batch_size": batch_size,
        "seed": seed,
        **constants,
    }
    history = []
    if resume and checkpoint is None:
        raise ValueError("resume needs the checkpoint's file")
    if checkpoint is not None and os.path.exists(checkpoint):
        history = _restore(checkpoint, trainer, settings) if resume else _replaceable(checkpoint)
    for epoch in range(len(history) + 1, epochs + 1):
        order = np.random.default_rng([seed, epoch]).permutation(total or 1)
        weighted = 0.0
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch_loss = trainer._step(_rows(x, INPUTS, rows), _rows(y, TARGETS, rows))
            weighted += batch_loss * len(rows)
        record = {"epoch": epoch, "loss": weighted / len(order)}
        if validation is not None:
            record["score"] = score(trainer.params, *validation)
        history.append(record)
        if checkpoint is not None:
            _checkpoint(checkpoint, trainer, history, settings)
        if progress is not None:
            progress(record)
        if not math.isfinite(record["loss"]):
            raise FloatingPointError(f"the loss became {record['loss']} in epoch {epoch}: try a smaller learning rate")
    return trainer.params, history


# ---------------------------------------------------------------------------------------------- files


def _write(path, arrays):
    """An .npz file, whole or not at all: written beside, then renamed."""
    beside = f"{path}.{os.getpid()}.part"
    try:
        with open(beside, "wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        if os.path.exists(beside):
            os.remove(beside)


def save(path, params):
    """Write parameters to an .npz file."""
    _write(path, {f"params/{name}": value for name, value in params.items()})


def load(path):
    """Read parameters from an .npz file that `save` or a checkpoint wrote."""
    with _open(path) as file:
        params = {name: file[f"params/{name}"] for name in SHAPES if f"params/{name}" in file}
    if len(params) < len(SHAPES):
        raise ValueError(f"{path} does not hold the parameters of this network: {', '.join(SHAPES)}")
    return params


def _open(path):
    """An .npz file, opened without ever unpickling."""
    try:
        return np.load(path, allow_pickle=False)
    except ValueError:
        raise ValueError(f"{path} is no .npz file") from None


def _checkpoint(path, trainer, history, settings):
    arrays = {f"params/{name}": value for name, value in trainer.params.items()}
    arrays |= {f"state/{name}/{s}": a for name, state in trainer.state.items() for s, a in state.items()}
    about = {"steps": trainer.steps, "history": history, "settings": settings}
    _write(path, {**arrays, "about": np.array(json.dumps(about))})


def _about(path):
    """What a checkpoint says of itself, or None where the file is none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return json.loads(str(file["about"]))
    except (OSError, ValueError, KeyError):
        return None


def _replaceable(path):
    """An empty history, if the file there is an older checkpoint and nothing else of the user's."""
    if _about(path) is None:
        raise ValueError(f"{path} exists and is no checkpoint: choose another name for the checkpoint")
    return []


def _restore(path, trainer, settings):
    """Put a checkpoint's arrays into the trainer; returns its history."""
    about = _about(path)
    if about is None:
        raise ValueError(f"{path} is no checkpoint")
    for key in {**settings, **about["settings"]}:
        old, new = about["settings"].get(key), settings.get(key)
        if old != new:
            raise ValueError(f"{path} was made with {key} {old}, not {new}: resume with the same, or start anew")
    params = load(path)
    with np.load(path, allow_pickle=False) as file:
        for name, w in trainer.params.items():
            w[...] = params[name]
            for s, a in trainer.state[name].items():
                a[...] = file[f"state/{name}/{s}"]
    trainer.steps = about["steps"]
    return about["history"]


def read_data(path, targets_too=True):
    """`X` and `Y` from an .npz file that holds them, or from a .csv file whose last columns are the targets."""
    if str(path).endswith(".npz"):
        with _open(path) as file:
            wanted = {"X": INPUTS, "Y": TARGETS} if targets_too and TARGETS else {"X": INPUTS}
            found = {}
            for name, arrays in wanted.items():
                if name in file:
                    found[name] = file[name]
                elif all(key in file for key in arrays):
                    found[name] = {key: file[key] for key in arrays}
                else:
                    known = " and ".join(n if len(a) == 1 else ", ".join(a) for n, a in wanted.items())
                    raise ValueError(f"{path} must hold {known}; it holds {', '.join(file.files) or 'nothing'}")
            return found["X"], found.get("Y")
    if not str(path).endswith(".csv"):
        raise ValueError(f"{path} is neither .npz nor .csv")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error):
        raise ValueError(f"{path} is no .csv file") from None
    first = 0
    try:
        [float(cell) for cell in rows[0]] if rows else None
    except ValueError:
        first = 1  # a header
    values = []
    for number, row in enumerate(rows[first:], first + 1):
        try:
            values.append([float(cell) for cell in row])
        except ValueError:
            raise ValueError(f"{path}, row {number}: not every cell is a number") from None
        if len(row) != len(values[0]):
            raise ValueError(f"{path}, row {number}: {len(row)} cells where the first row has {len(values[0])}")
    if not values:
        raise ValueError(f"{path} holds no examples")
    table = np.array(values)
    count = sum(SIZES[shape[-1]] or 1 if len(shape) > 1 else 1 for shape in TARGETS.values())
    width = sum(SIZES[shape[-1]] or table.shape[1] if len(shape) > 1 else 1 for shape in INPUTS.values())
    if not targets_too:
        # a file to train on may be predicted as well: its targets are left out
        return (table[:, :width] if table.shape[1] == width + count else table), None
    if table.shape[1] <= count:
        raise ValueError(f"{path} has {table.shape[1]} columns; inputs come first, then {count} of targets")
    X, Y = table[:, :-count], table[:, -count:]
    return X, Y


# ---------------------------------------------------------------------------------------------- checks


def check_gradients(seed=0, directions=5):
    """The largest relative difference between the derivatives and finite differences along random directions."""
    rng = np.random.default_rng(seed)
    # odd sizes, none alike, where the network leaves them open
    sizes = {s: n or 3 + 2 * i for i, (s, n) in enumerate(SIZES.items())}
    draw = lambda shape: rng.standard_normal([sizes.get(s, 0) if s else 7 for s in shape])  # noqa: E731
    X = {key: draw(shape) for key, shape in INPUTS.items()}
    Y = {key: draw(shape) for key, shape in TARGETS.items()}
    Y = {key: (value > 0).astype(float) for key, value in Y.items()}
    params = init(seed, np.float64, {s: n for s, n in sizes.items() if s in SIZES and SIZES[s] is None})
    params = {name: w + 0.1 * rng.standard_normal(w.shape) for name, w in params.items()}
    _, gradients = loss_and_gradients(params, X, Y)
    norm = lambda arrays: math.sqrt(sum(float(np.sum(a * a)) for a in arrays))  # noqa: E731
    typical = norm(gradients.values()) / math.sqrt(sum(w.size for w in params.values()))
    worst, h = 0.0, 1e-5
    for _ in range(directions):
        along = {name: rng.standard_normal(w.shape) for name, w in params.items()}
        along = {name: a / norm(along.values()) for name, a in along.items()}
        derived = sum(float(np.sum(gradients[name] * along[name])) for name in params)
        # A short step: a longer one would walk over the kinks of relu and its like.
        above = loss({name: w + h * along[name] for name, w in params.items()}, X, Y)
        below = loss({name: w - h * along[name] for name, w in params.items()}, X, Y)
        numeric = (above - below) / (2 * h)
        # What is no number must not pass for a small one.
        worst = np.maximum(worst, abs(derived - numeric) / max(abs(numeric), typical, 1e-12))
    return float(worst)


# ---------------------------------------------------------------------------------------------- command line


def main(arguments=None):
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Train and use this network.")
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("fit", help="train on DATA (.npz with X and Y, or .csv) and save the parameters")
    training.add_argument("data")
    training.add_argument("-o", "--output", default="params.npz", help="where the parameters go (params.npz)")
    training.add_argument("--force", action="store_true", help="overwrite that file if it exists")
    training.add_argument("--epochs", type=int, default=500)
    training.add_argument("--batch-size", type=int, default=4)
    training.add_argument("--optimizer", choices=list(OPTIMIZERS), default="adam")
    training.add_argument("--learning-rate", type=float, default=0.05)
    training.add_argument("--schedule", choices=list(SCHEDULES), default="constant")
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--dtype", choices=["float32", "float64"], default=np.dtype(DTYPE).name)
    training.add_argument("--checkpoint", help="a file written after every epoch")
    training.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    prediction = commands.add_parser("predict", help="print a prediction for every example in DATA")
    prediction.add_argument("data")
    prediction.add_argument("--params", default="params.npz")
    checking = commands.add_parser("check", help="compare the derivatives with finite differences")
    checking.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        if options.command == "fit":
            if os.path.exists(options.output) and not options.force and not options.resume:
                raise ValueError(f"{options.output} exists already: use --force to overwrite it, or another -o FILE")
            X, Y = read_data(options.data)
            params, history = fit(
                X,
                Y,
                epochs=options.epochs,
                batch_size=options.batch_size,
                optimizer=options.optimizer,
                learning_rate=options.learning_rate,
                schedule=options.schedule,
                seed=options.seed,
                dtype=np.dtype(options.dtype).type,
                checkpoint=options.checkpoint,
                resume=options.resume,
                progress=lambda r: print(f"epoch {r['epoch']:>4}  loss {r['loss']:.6f}", flush=True),
            )
            save(options.output, params)
            print(f"score on the training data {score(params, X, Y):.4f}")
            print(f"wrote {options.output}")
        elif options.command == "predict":
            X, _ = read_data(options.data, targets_too=False)
            params = load(options.params)
            np.savetxt(sys.stdout, np.atleast_1d(predict(params, X)), fmt="%.9g", delimiter=",")
        else:
            worst = check_gradients(options.seed)
            print(f"largest relative difference from finite differences: {worst:.2e}")
            return int(not worst < 1e-6)
    except (ValueError, OSError, FloatingPointError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
