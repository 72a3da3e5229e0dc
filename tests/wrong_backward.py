"""Backward passes written by hand, and what goes wrong in them: one line of code changed, and words that name the cause.

`BASES` are right; each entry of `SLIPS` is (base, the right line, the wrong one, words, any of which the answer holds). The search for
causes was written with two of every three; the third was first run when it was done, and 25 of its 31 causes were named then.
"""

import numpy as np

SIGMOID = "\ndef sigmoid(u):\n    return 1 / (1 + np.exp(-u))\n"

BASES = {
    "mlp": (
        "3 -> dense(4, tanh) -> dense(2) -> squared_error",
        """
def f(x, W1, b1, W2, b2, y):
    n = len(x)
    a1 = np.tanh(x @ W1 + b1)
    dz2 = 2 * (a1 @ W2 + b2 - y) / n
    dW2 = a1.T @ dz2
    db2 = dz2.sum(0)
    dz1 = dz2 @ W2.T * (1 - a1**2)
    dW1 = x.T @ dz1
    db1 = dz1.sum(0)
    return dict(W1=dW1, b1=db1, W2=dW2, b2=db2)
""",
    ),
    "deep": (
        "5 -> dense(6, relu) -> dense(4, sigmoid) -> dense(3, softmax) -> cross_entropy",
        """
def f(x, W1, b1, W2, b2, W3, b3, y):
    n = x.shape[0]
    z1 = x @ W1 + b1
    a1 = np.maximum(z1, 0)
    z2 = a1 @ W2 + b2
    a2 = sigmoid(z2)
    z3 = a2 @ W3 + b3
    e = np.exp(z3 - z3.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    dz3 = (p - y) / n
    dW3, db3 = a2.T @ dz3, dz3.sum(0)
    da2 = dz3 @ W3.T
    dz2 = da2 * a2 * (1 - a2)
    dW2, db2 = a1.T @ dz2, dz2.sum(0)
    da1 = dz2 @ W2.T
    dz1 = da1 * (z1 > 0)
    dW1, db1 = x.T @ dz1, dz1.sum(0)
    return dW1, db1, dW2, db2, dW3, db3
""",
    ),
    "norm": (
        "m[n] = mean(k, x[n,k])\nd[n,k] = x[n,k] - m[n]\nv[n] = mean(k, d[n,k]^2)\nr[n] = 1/sqrt(v[n] + 0.001)\n"
        "out[n,k] = gamma[k]*d[n,k]*r[n] + beta[k]",
        """
def f(x, gamma, beta, dout):
    d = x - x.mean(1, keepdims=True)
    r = 1 / np.sqrt((d**2).mean(1, keepdims=True) + 1e-3)
    h = d * r
    dgamma = (dout * h).sum(0)
    dbeta = dout.sum(0)
    g = dout * gamma
    dx = r * (g - g.mean(1, keepdims=True) - h * (g * h).mean(1, keepdims=True))
    return dx, dgamma, dbeta
""",
    ),
    "softmax": (
        "p[n,k] = exp(z[n,k])/sum(j, exp(z[n,j]))",
        """
def f(z, dout):
    e = np.exp(z - z.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    s = (dout * p).sum(1, keepdims=True)
    return p * (dout - s)
""",
    ),
    "silu": (
        "x*sigmoid(x)",
        """
def f(x, dout):
    s = sigmoid(x)
    return dout * (s + x * s * (1 - s))
""",
    ),
    "swiglu": (
        "out[n,k] = u[n,k]*sigmoid(u[n,k])*v[n,k]",
        """
def f(u, v, dout):
    s = sigmoid(u)
    du = dout * v * (s + u * s * (1 - s))
    dv = dout * u * s
    return du, dv
""",
    ),
    "lstm": (
        "i[n,h] = sigmoid(zi[n,h])\nf[n,h] = sigmoid(zf[n,h])\no[n,h] = sigmoid(zo[n,h])\ng[n,h] = tanh(zg[n,h])\n"
        "c[n,h] = f[n,h]*c0[n,h] + i[n,h]*g[n,h]\nout[n,h] = o[n,h]*tanh(c[n,h])",
        """
def f(zi, zf, zo, zg, c0, dout):
    i, f, o, g = sigmoid(zi), sigmoid(zf), sigmoid(zo), np.tanh(zg)
    c = f * c0 + i * g
    t = np.tanh(c)
    do = dout * t
    dc = dout * o * (1 - t**2)
    di, dg, df = dc * g, dc * i, dc * c0
    dc0 = dc * f
    dzi = di * i * (1 - i)
    dzf = df * f * (1 - f)
    dzo = do * o * (1 - o)
    dzg = dg * (1 - g**2)
    return dict(zi=dzi, zf=dzf, zo=dzo, zg=dzg, c0=dc0)
""",
    ),
    "rnn": (
        "T x 3 -> rnn(4, tanh) -> last -> dense(2) -> squared_error",
        """
def f(x, W1, U1, b1, W3, b3, y):
    n, T, _ = x.shape
    h = np.zeros((n, T + 1, len(U1)))
    for t in range(T):
        h[:, t] = np.tanh(x[:, t] @ W1 + h[:, t - 1] @ U1 + b1)
    dz3 = 2 * (h[:, T - 1] @ W3 + b3 - y) / n
    dW3, db3 = h[:, T - 1].T @ dz3, dz3.sum(0)
    dW1, dU1, db1 = np.zeros_like(W1), np.zeros_like(U1), np.zeros_like(b1)
    dh = dz3 @ W3.T
    for t in reversed(range(T)):
        dz = dh * (1 - h[:, t] ** 2)
        dW1 += x[:, t].T @ dz
        dU1 += h[:, t - 1].T @ dz
        db1 += dz.sum(0)
        dh = dz @ U1.T
    return dict(W1=dW1, U1=dU1, b1=db1, W3=dW3, b3=db3)
""",
    ),
    "masked": (
        {
            "name": "masked",
            "equations": "z[n,k] = sum(d, x[n,d]*W[d,k]) + b[k]\nL = sum(n, k, m[n]*(z[n,k] - y[n,k])^2)/sum(n, m[n])",
            "inputs": ["x[n,d]", "m[n]"],
            "targets": ["y[n,k]"],
            "parameters": ["W[d,k]", "b[k]"],
        },
        """
def f(x, m, W, b, y):
    n, k = y.shape
    z = x @ W + b
    dz = 2 * m[:, None] * (z - y) / m.sum()
    dW = x.T @ dz
    db = dz.sum(0)
    return {"dW": dW, "db": db}
""",
    ),
    "step": (
        "4 -> dense(5, sigmoid) -> dense(3) -> mean_squared_error",
        """
def f(x, W1, b1, W2, b2, y):
    lr = 0.05
    a1 = sigmoid(x @ W1 + b1)
    dz2 = 2 * (a1 @ W2 + b2 - y) / y.size
    dW2, db2 = a1.T @ dz2, dz2.sum(0)
    V = W2
    da1 = dz2 @ V.T
    dz1 = da1 * a1 * (1 - a1)
    dW1, db1 = x.T @ dz1, dz1.sum(0)
    return {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2}
""",
    ),
    "batch": (
        "6 -> dense(5) -> batch_norm -> relu -> dense(3) -> squared_error",
        """
def f(x, W1, b1, g2, b2, W3, b3, y):
    n = len(x)
    z = x @ W1 + b1
    d = z - z.mean(0)
    v = (d**2).mean(0)
    r = 1 / np.sqrt(v + 1e-5)
    h = d * r
    y2 = g2 * h + b2
    a = np.maximum(y2, 0)
    dz3 = 2 * (a @ W3 + b3 - y) / n
    dW3, db3 = a.T @ dz3, dz3.sum(0)
    dy2 = dz3 @ W3.T * (y2 > 0)
    dg2, db2 = (dy2 * h).sum(0), dy2.sum(0)
    dh = dy2 * g2
    dz = r * (dh - dh.mean(0) - h * (dh * h).mean(0))
    dW1, db1 = x.T @ dz, dz.sum(0)
    return dict(W1=dW1, b1=db1, g2=dg2, b2=db2, W3=dW3, b3=db3)
""",
    ),
    "attention": (
        "s[n,t,u] = sum(d, q[n,t,d]*k[n,u,d])/3\na[n,t,u] = exp(s[n,t,u])/sum(w, exp(s[n,t,w]))\nout[n,t,e] = sum(u, a[n,t,u]*v[n,u,e])",
        """
def f(q, k, v, dout):
    s = q @ k.transpose(0, 2, 1) / 3
    e = np.exp(s - s.max(2, keepdims=True))
    a = e / e.sum(2, keepdims=True)
    dv = a.transpose(0, 2, 1) @ dout
    da = dout @ v.transpose(0, 2, 1)
    ds = a * (da - (da * a).sum(2, keepdims=True))
    dq = ds @ k / 3
    dk = ds.transpose(0, 2, 1) @ q / 3
    return dq, dk, dv
""",
    ),
    "ridge": (
        {
            "name": "ridge",
            "equations": "z[n] = sum(d, x[n,d]*w[d]) + b\np[n] = sigmoid(z[n])\n"
            "L = -mean(n, y[n]*log(p[n]) + (1 - y[n])*log(1 - p[n])) + lam*sum(d, w[d]^2)/2",
            "inputs": ["x[n,d]"],
            "targets": ["y[n]"],
            "parameters": ["w[d]", "b"],
            "constants": {"lam": 0.3},
        },
        """
def f(x, w, b, y, lam):
    p = sigmoid(x @ w + b)
    dz = (p - y) / len(y)
    dw = x.T @ dz + lam * w
    db = dz.sum()
    return dw, db
""",
    ),
    "unit": (
        "r[n] = 1/sqrt(sum(k, x[n,k]^2) + 0.01)\nout[n,k] = x[n,k]*r[n]",
        """
def f(x, dout):
    r = 1 / np.sqrt((x**2).sum(1, keepdims=True) + 0.01)
    o = x * r
    return r * (dout - o * (dout * o).sum(1, keepdims=True))
""",
    ),
    "gru": (
        "z[n,h] = sigmoid(az[n,h])\nr[n,h] = sigmoid(ar[n,h])\nc[n,h] = tanh(u[n,h] + r[n,h]*q[n,h])\nout[n,h] = (1 - z[n,h])*c[n,h] + z[n,h]*h0[n,h]",
        """
def f(az, ar, u, q, h0, dout):
    z, r = sigmoid(az), sigmoid(ar)
    c = np.tanh(u + r * q)
    dz = dout * (h0 - c)
    dc = dout * (1 - z)
    dh0 = dout * z
    du = dc * (1 - c**2)
    dr, dq = du * q, du * r
    return dict(az=dz * z * (1 - z), ar=dr * r * (1 - r), u=du, q=dq, h0=dh0)
""",
    ),
}

UP = ("comes from above",)
SLIPS = [
    ("mlp", "/ n", "/ 1", ("the factor 1/N is missing",)),
    ("mlp", "2 * (a1 @ W2", "(a1 @ W2", ("a factor 2 is missing",)),
    ("mlp", "dz2 @ W2.T * (1 - a1**2)", "dz2 @ W2.T", ("derivative of the activation",)),
    ("mlp", "(1 - a1**2)", "(1 - a1)", ("where tanh(z1)^2 belongs", "where a1**2 belongs")),
    ("mlp", "(1 - a1**2)", "(1 - np.tanh(a1)**2)", ("taken at its output a1",)),
    ("mlp", "(1 - a1**2)", "a1", ("where its derivative", "stands where")),
    ("mlp", "+ b2 - y)", "+ b2 + y)", ("sign of y", "sign of -2*y", "sign of")),
    ("mlp", "x.T @ dz1", "x.T @ (dz2 @ W2.T)", ("derivative of the activation",)),
    ("mlp", "dz1.sum(0)", "dz1.mean(0)", ("a factor 1/N too many",)),
    ("deep", "da2 * a2 * (1 - a2)", "da2 * (1 - a2)", ("the factor a2 is missing", "factor sigmoid(z2) is missing")),
    ("deep", "da2 * a2 * (1 - a2)", "da2 * z2 * (1 - z2)", ("z2 stands where a2 belongs",)),
    ("deep", "da1 * (z1 > 0)", "da1 * a1 * (1 - a1)", ("derivative of sigmoid",)),
    ("deep", "da2 * a2 * (1 - a2)", "da2 * (1 - a2**2)", ("derivative of tanh",)),
    ("deep", "da1 * (z1 > 0)", "da1", ("the condition is left out", "derivative of the activation", "is missing")),
    ("deep", "a1.T @ dz2, dz2.sum(0)", "z1.T @ dz2, dz2.sum(0)", ("z1 stands where a1 belongs",)),
    ("deep", "da2 * a2 * (1 - a2)", "da2 * (z2 > 0)", ("derivative of relu",)),
    ("deep", "dz3 = (p - y) / n", "dz3 = (p - y) * p * (1 - p) / n", ("there twice", "does not belong", "Jacobian")),
    ("deep", "dz3 = (p - y) / n", "dz3 = (y - p) / n", ("sign is the other way round",)),
    ("deep", "return dW1, db1, dW2, db2, dW3, db3", "return dW3, db3, dW2, db2, dW1, db1", ("exchanged", "this is dW3")),
    ("norm", "dout * gamma\n", "dout\n", ("gamma is missing",)),
    ("norm", "- g.mean(1, keepdims=True) ", "", ("through m is missing", "m depends on x", "is missing")),
    ("norm", " - h * (g * h).mean(1, keepdims=True)", "", ("through v is missing", "v depends on", "is missing")),
    ("norm", " + 1e-3", "", ("small constant", "forgotten")),
    ("norm", "dx = r * (", "dx = (", ("factor r is missing",)),
    ("norm", "(dout * h).sum(0)", "(dout * d).sum(0)", ("d stands where", "factor r is missing")),
    ("norm", "h * (g * h)", "h * (g * d)", ("factor r is missing", "r^2 stands where", "r^3", "stands where")),
    ("norm", "return dx, dgamma, dbeta", "return dx, dbeta, dgamma", ("exchanged",)),
    ("softmax", "p * (dout - s)", "p * dout", ("only the diagonal", "path from z")),
    ("softmax", "p * (dout - s)", "p * (1 - p) * dout", ("only the diagonal",)),
    ("softmax", "p * (dout - s)", "dout - s", ("factor p is missing", "exp(z)", "is missing")),
    ("softmax", "(dout * p).sum(1", "(dout * p).mean(1", ("1/K too many", "1/J too many", "a mean where a sum")),
    ("softmax", "(dout * p).sum(1", "(dout).sum(1", ("factor p is missing", "is missing")),
    ("softmax", "p * (dout - s)", "p * (s - dout)", ("sign is the other way round",)),
    ("silu", "dout * (s", "(s", UP),
    ("silu", "s + x * s * (1 - s)", "s * (1 - s)", ("derivative of sigmoid",)),
    ("silu", "s + x * s * (1 - s)", "s + x * s", ("is missing",)),
    ("silu", "x * s * (1 - s)", "s * (1 - s)", ("factor x is missing",)),
    ("silu", "s + x * s * (1 - s)", "x * s * (1 - s)", ("is missing",)),
    ("silu", "s + x", "s - x", ("sign",)),
    ("swiglu", "du = dout * v * (", "du = dout * (", ("factor v is missing",)),
    ("swiglu", "return du, dv", "return dv, du", ("exchanged",)),
    ("swiglu", "dv = dout * u * s", "dv = dout * u", ("is missing",)),
    ("swiglu", "dv = dout * u * s", "dv = u * s", UP),
    ("swiglu", "dv = dout * u * s", "dv = dout * v * s", ("v stands where u belongs",)),
    ("swiglu", "u * s * (1 - s)", "u * (1 - s)", ("is missing", "where 1/(1 + exp(-u))**2 belongs")),
    ("lstm", "do * o * (1 - o)", "dc * o * (1 - o)", ("dc stands where do belongs",)),
    ("lstm", "dc = dout * o * (1 - t**2)", "dc = dout * o", ("is missing",)),
    ("lstm", "di, dg, df = dc * g, dc * i, dc * c0", "di, dg, df = dc * g, dc * i, dc * c", ("c stands where c0 belongs",)),
    ("lstm", "dzf = df * f * (1 - f)", "dzf = di * f * (1 - f)", ("di stands where df belongs", "g stands where c0 belongs")),
    ("lstm", "dzg = dg * (1 - g**2)", "dzg = dg * g * (1 - g)", ("derivative of sigmoid",)),
    ("lstm", "di, dg, df = dc * g, dc * i,", "di, dg, df = dc * i, dc * g,", ("stands where",)),
    ("lstm", "dict(zi=dzi, zf=dzf", "dict(zi=dzf, zf=dzi", ("exchanged",)),
    ("lstm", "dc = dout * o * (1 - t**2)", "dc = dout * (1 - t**2)", ("factor o is missing",)),
    ("lstm", "dc0 = dc * f", "dc0 = dc * i", ("i stands where f belongs",)),
    ("rnn", "dh = dz @ U1.T", "dh = dz @ U1", ("U1 is transposed",)),
    ("rnn", "dh = dz @ U1.T", "dh = 0 * dz", ("path from h1 through z1 is missing",)),
    ("rnn", "dU1 += h[:, t - 1].T", "dU1 += h[:, t].T", ("one place too late", "taken one place")),
    ("rnn", "dh * (1 - h[:, t] ** 2)", "dh * (1 - h[:, t - 1] ** 2)", ("place too early", "taken one place")),
    ("rnn", "dz = dh * (1 - h[:, t] ** 2)", "dz = dh", ("derivative of the activation",)),
    ("rnn", "db1 += dz.sum(0)", "db1 = dz.sum(0)", ("is missing", "only")),
    ("masked", "/ m.sum()", "/ n", ("number of all", "of the kept")),
    ("masked", "2 * m[:, None] * ", "2 * ", ("factor m is missing",)),
    ("masked", "/ m.sum()", "/ (m.sum() * k)", ("1/K too many",)),
    ("masked", "/ m.sum()", "", ("factor 1/s1 is missing", "is missing")),
    ("masked", "/ m.sum()", "* m.sum()", ("stands where",)),
    ("masked", "m[:, None] * ", "m[:, None]**2 * ", ("factor m is there twice",)),
    ("step", "V = W2", "V = W2 - lr * dW2", ("W2 is used after its update",)),
    ("step", "/ y.size", "/ len(y)", ("the factor 1/K is missing",)),
    ("step", "a1 * (1 - a1)", "(1 - a1**2)", ("derivative of tanh",)),
    ("step", "a1 * (1 - a1)", "a1 * (1 + a1)", ("sign",)),
    ("step", "da1 * a1", "a1", UP),
    ("step", "(1 - a1)\n", "(1 - sigmoid(a1))\n", ("taken at its output", "stands where")),
    ("batch", "dh - dh.mean(0) - h * (dh * h).mean(0)", "dh", ("treated as constants", "are missing", "is missing")),
    ("batch", "(dh * h).mean(0)", "(dh * h).sum(0)", ("1/N is missing", "a sum where a mean", "a sum where the loss is a mean")),
    ("batch", "* (y2 > 0)", "* (h > 0)", ("h2 stands where y2 belongs", "d2 stands where y2 belongs")),
    ("batch", "dh = dy2 * g2", "dh = dy2", ("g2 is missing", "dy2 stands where dh2")),
    ("batch", "dz = r * (", "dz = r**2 * (", ("factor r2 is there twice", "stands where")),
    ("batch", "(dy2 * h).sum(0)", "(dy2 * y2).sum(0)", ("y2 stands where h2 belongs",)),
    (
        "attention",
        "dq = ds @ k / 3",
        "dq = ds @ k",
        ("a factor 3", "factor 1/3 is missing", "factor 3 too many", "the factor 1/3"),
    ),
    ("attention", "ds = a * (da - (da * a).sum(2, keepdims=True))", "ds = a * da", ("path from s", "only the diagonal")),
    ("attention", "ds = a * (da", "ds = (da", ("is missing",)),
    ("attention", "da = dout", "da = 2 * dout", ("a factor 2 too many",)),
    ("attention", "(da * a).sum(2", "(da * a).mean(2", ("too many", "a mean where a sum")),
    ("attention", "dq = ds @ k / 3\n", "dq = da @ k / 3\n", ("da stands where ds belongs",)),
    ("ridge", " + lam * w", "", ("regulariser",)),
    ("ridge", "lam * w", "2 * lam * w", ("regulariser", "factor 2 too many")),
    ("ridge", "lam * w", "lam * w**2", ("w is there twice", "factor w", "stands where")),
    ("ridge", "(p - y) / len(y)", "(p - y) * p * (1 - p) / len(y)", ("there twice",)),
    ("ridge", "/ len(y)", "", ("1/N is missing",)),
    ("ridge", "lam * w", "lam * np.sign(w)", ("regulariser", "sign(w)")),
    ("unit", " + 0.01)", ")", ("small constant",)),
    ("unit", "return r * (", "return (", ("factor r is missing",)),
    ("unit", "dout - o * (dout * o)", "dout - x * (dout * o)", ("factor r is missing", "stands where")),
    ("unit", "(dout - o * (dout * o).sum(1, keepdims=True))", "dout", ("through r is missing", "through s1 is missing")),
]
TRAINED = [s for k, s in enumerate(SLIPS) if k % 3 != 2]
HELD_OUT = [s for k, s in enumerate(SLIPS) if k % 3 == 2]


def function_of(text):
    """The function that a source text defines."""
    room = {"np": np}
    exec(SIGMOID + text, room)
    return room["f"]


def wrong_function(base, right, wrong):
    """The function of a base with one piece of code changed."""
    text = BASES[base][1]
    assert text.count(right) >= 1, (base, right)
    return function_of(text.replace(right, wrong, 1))
