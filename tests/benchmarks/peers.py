"""The same training step by each peer: a callable that takes a batch and updates its own weights."""

import numpy as np


def ours(case, optimizer, dtype, module, rate, **options):
    sizes = {"T": case.time} if case.time else {}
    params = (
        module.init(0, dtype, sizes)
        if any(v is None for k, v in module.SIZES.items() if k != "N" and k not in sizes)
        else module.init(0, dtype)
    )
    trainer = module.Trainer(params, case.batch, optimizer, learning_rate=rate, **options)
    return trainer.step


def plain(case, optimizer, dtype, module, rate):
    """NumPy as people write it: a new array for every result, a dict of gradients, an update for each weight."""
    params = module.init(0, dtype)
    state = {k: [np.zeros_like(v), np.zeros_like(v)] for k, v in params.items()}
    count = [0]

    def step(X, Y):
        value, grads = module.loss_and_gradients(params, X, Y)
        count[0] += 1
        t = count[0]
        for k, g in grads.items():
            if optimizer == "sgd":
                params[k] -= rate * g
            elif optimizer == "momentum":
                state[k][0] = 0.9 * state[k][0] + g
                params[k] -= rate * state[k][0]
            else:
                m = state[k][0] = 0.9 * state[k][0] + 0.1 * g
                v = state[k][1] = 0.999 * state[k][1] + 0.001 * g * g
                params[k] -= rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        return value

    return step


# ---------------------------------------------------------------------- PyTorch


def torch_model(case):
    import torch
    from torch import nn

    names = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
    if case.kind == "mlp":
        layers = []
        for a, b in zip(case.widths, case.widths[1:], strict=False):
            layers += [nn.Linear(a, b), names[case.activation]()]
        return nn.Sequential(*(layers if case.loss == "squares" else layers[:-1]))
    if case.kind == "conv":
        return nn.Sequential(
            nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        )  # fmt: skip
    if case.kind == "lstm":

        class Lstm(nn.Module):
            def __init__(self):
                super().__init__()
                self.lstm, self.head = nn.LSTM(64, 64, batch_first=True), nn.Linear(64, 10)

            def forward(self, x):
                return self.head(self.lstm(x)[0][:, -1])

        return Lstm()

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(64), nn.LayerNorm(64)
            self.qkv, self.out = nn.Linear(64, 192), nn.Linear(64, 64)
            self.up, self.down, self.head = nn.Linear(64, 256), nn.Linear(256, 64), nn.Linear(64, 10)

        def forward(self, x):
            n, t, _ = x.shape
            q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, 4, 16).permute(2, 0, 3, 1, 4)
            a = nn.functional.scaled_dot_product_attention(q, k, v)
            x = x + self.out(a.transpose(1, 2).reshape(n, t, 64))
            x = x + self.down(nn.functional.gelu(self.up(self.norm2(x)), approximate="tanh"))
            return self.head(x[:, -1])

    torch.manual_seed(0)
    return Block()


def torch_step(case, optimizer, dtype, rate, compiled=False):
    import torch

    model = torch_model(case).to(getattr(torch, np.dtype(dtype).name))
    weights = list(model.parameters())
    kinds = {
        "sgd": lambda: torch.optim.SGD(weights, rate, fused=True),
        "momentum": lambda: torch.optim.SGD(weights, rate, momentum=0.9, fused=True),
        "adam": lambda: torch.optim.Adam(weights, rate, fused=True),
    }
    update = kinds[optimizer]()

    def loss_of(x, y):
        z = model(x)
        return ((z - y) ** 2).sum() / (2 * len(x)) if case.loss == "squares" else torch.nn.functional.cross_entropy(z, y)

    loss_of = torch.compile(loss_of) if compiled else loss_of

    def step(X, Y):
        x, y = torch.from_numpy(X), torch.from_numpy(Y)
        if case.kind == "conv":
            x = x.permute(0, 3, 1, 2)
        update.zero_grad(set_to_none=True)
        loss = loss_of(x, y)
        loss.backward()
        update.step()
        return loss.item()

    return step


# ---------------------------------------------------------------------- JAX


def jax_step(case, optimizer, dtype, rate):
    import jax
    import jax.numpy as jnp

    if case.kind != "mlp":
        return None
    jax.config.update("jax_enable_x64", np.dtype(dtype) == np.float64)
    rng = np.random.default_rng(0)
    params = [
        (jnp.asarray(rng.normal(size=(a, b)) / np.sqrt(a), dtype), jnp.zeros(b, dtype))
        for a, b in zip(case.widths, case.widths[1:], strict=False)
    ]
    act = {"relu": jax.nn.relu, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}[case.activation]

    def loss_of(params, x, y):
        for k, (w, b) in enumerate(params):
            x = x @ w + b
            if k < len(params) - 1 or case.loss == "squares":
                x = act(x)
        if case.loss == "squares":
            return ((x - y) ** 2).sum() / (2 * x.shape[0])
        return -(y * jax.nn.log_softmax(x)).sum() / x.shape[0]

    zeros = jax.tree.map(jnp.zeros_like, params)

    def update(params, m, v, t, x, y):
        value, g = jax.value_and_grad(loss_of)(params, x, y)
        if optimizer == "sgd":
            return jax.tree.map(lambda p, d: p - rate * d, params, g), m, v, t + 1, value
        if optimizer == "momentum":
            m = jax.tree.map(lambda a, d: 0.9 * a + d, m, g)
            return jax.tree.map(lambda p, a: p - rate * a, params, m), m, v, t + 1, value
        m = jax.tree.map(lambda a, d: 0.9 * a + 0.1 * d, m, g)
        v = jax.tree.map(lambda a, d: 0.999 * a + 0.001 * d * d, v, g)
        c, d = 1 - 0.9 ** (t + 1), 1 - 0.999 ** (t + 1)
        return jax.tree.map(lambda p, a, b: p - rate * (a / c) / (jnp.sqrt(b / d) + 1e-8), params, m, v), m, v, t + 1, value

    jitted = jax.jit(update, donate_argnums=(0, 1, 2))
    state = [params, zeros, jax.tree.map(jnp.zeros_like, params), jnp.asarray(0, dtype)]

    def step(X, Y):
        *state[:], value = jitted(*state, X, Y)
        return float(value)

    return step


# ---------------------------------------------------------------------- the others


def autograd_step(case, optimizer, dtype, rate):
    if case.kind != "mlp" or optimizer != "sgd":
        return None
    import autograd.numpy as anp
    from autograd import value_and_grad

    rng = np.random.default_rng(0)
    params = [
        (np.asarray(rng.normal(size=(a, b)) / np.sqrt(a), dtype), np.zeros(b, dtype))
        for a, b in zip(case.widths, case.widths[1:], strict=False)
    ]
    act = {"relu": lambda z: anp.maximum(z, 0), "tanh": anp.tanh, "sigmoid": lambda z: 1 / (1 + anp.exp(-z))}[case.activation]

    def loss_of(params, x, y):
        for k, (w, b) in enumerate(params):
            x = anp.dot(x, w) + b
            if k < len(params) - 1 or case.loss == "squares":
                x = act(x)
        if case.loss == "squares":
            return anp.sum((x - y) ** 2) / (2 * len(y))
        s = x - anp.max(x, axis=1, keepdims=True)
        return -anp.sum(y * (s - anp.log(anp.sum(anp.exp(s), axis=1, keepdims=True)))) / len(y)

    gradient = value_and_grad(loss_of)

    def step(X, Y):
        value, grads = gradient(params, X, Y)
        for (w, b), (dw, db) in zip(params, grads, strict=True):
            np.subtract(w, rate * dw, w)
            np.subtract(b, rate * db, b)
        return float(value)

    return step


def sklearn_step(case, optimizer, dtype, rate):
    if case.kind != "mlp" or case.loss == "squares" or np.dtype(dtype) != np.float32:
        return None
    from sklearn.neural_network import MLPClassifier

    solver = "adam" if optimizer == "adam" else "sgd"
    model = MLPClassifier(
        case.widths[1:-1], activation=case.activation, solver=solver, alpha=0, batch_size=case.batch, learning_rate_init=rate,
        momentum=0.9 if optimizer == "momentum" else 0, nesterovs_momentum=False, shuffle=False,
    )  # fmt: skip
    classes = np.arange(case.widths[-1])

    def step(X, Y):
        model.partial_fit(X, Y.argmax(axis=1), classes=classes)
        return model.loss_

    return step


def floor_step(case, dtype):
    """The bare matrix products of a step: what no arrangement of the rest can avoid."""
    if case.kind != "mlp":
        return None
    rng = np.random.default_rng(0)
    products = []
    for k, (a, b) in enumerate(zip(case.widths, case.widths[1:], strict=False)):
        x, w, d = (rng.normal(size=s).astype(dtype) for s in ((case.batch, a), (a, b), (case.batch, b)))
        products += [(x, w, np.empty((case.batch, b), dtype)), (x.T, d, np.empty((a, b), dtype))]
        products += [(d, w.T, np.empty((case.batch, a), dtype))] if k else []

    def step(X, Y):
        for one, other, out in products:
            np.dot(one, other, out)

    return step
