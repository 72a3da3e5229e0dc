"""A training step beside the peers': forward, loss, backward and update."""

import functools
import importlib.util
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from symbackprop import emit

from . import peers
from .measure import interleaved, ratios, table
from .networks import CASES

RATE = 1e-4  # small, so that nothing converges while the clock runs: tiny gradients become slow subnormal numbers


def load(chain, dtype, **options):
    path = Path(tempfile.mkdtemp()) / "network.py"
    path.write_text(emit(chain, dtype=np.dtype(dtype).name, **options), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("network", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def batches(case, dtype, count=4):
    rng = np.random.default_rng(1)
    shape = {"mlp": (*case.widths[:1],), "conv": (28, 28, 1), "lstm": (32, 64), "transformer": (32, 64)}[case.kind]
    outputs = case.widths[-1] if case.kind == "mlp" else 10
    for _ in range(count):
        X = rng.normal(size=(case.batch, *shape)).astype(dtype)
        Y = (
            rng.random((case.batch, outputs))
            if case.loss == "squares"
            else np.eye(outputs)[rng.integers(outputs, size=case.batch)]
        )
        yield X, np.asarray(Y, dtype)


def contenders(case, optimizer, dtype, wanted):
    module = load(case.chain, dtype)
    threads = int(os.environ.get("BENCHMARK_THREADS", "1"))
    compiled = functools.partial(load, case.chain, dtype, target="numba")
    made = {
        "ours": lambda: peers.ours(case, optimizer, dtype, module, RATE),
        "ours, compiled": lambda: peers.ours(case, optimizer, dtype, compiled(), RATE),
        "ours, compiled, shared": lambda: peers.ours(case, optimizer, dtype, compiled(), RATE, threads=threads),
        "plain style": lambda: peers.ours(case, optimizer, dtype, load(case.chain, dtype, style="plain"), RATE),
        "NumPy as people write it": lambda: peers.plain(case, optimizer, dtype, module, RATE) if not case.time else None,
        "PyTorch": lambda: peers.torch_step(case, optimizer, dtype, RATE),
        "torch.compile": lambda: peers.torch_step(case, optimizer, dtype, RATE, compiled=True),
        "JAX": lambda: peers.jax_step(case, optimizer, dtype, RATE),
        "autograd": lambda: peers.autograd_step(case, optimizer, dtype, RATE),
        "scikit-learn": lambda: peers.sklearn_step(case, optimizer, dtype, RATE),
        "matrix products alone": lambda: peers.floor_step(case, dtype),
    }
    steps = {name: made[name]() for name in made if name in wanted}
    data = list(batches(case, dtype))
    calls = {}
    for name, step in steps.items():
        if step is not None:
            turn = itertools.cycle(data)
            calls[name] = lambda step=step, turn=turn: step(*next(turn))
    return calls


_CHILD = """
import sys, time
import numpy as np
from tests.benchmarks import training
from tests.benchmarks.networks import CASES
name, optimizer, dtype, who = sys.argv[1:]
call = training.contenders(CASES[name], optimizer, np.dtype(dtype).type, [who]).get(who)
print("ready" if call else "none", flush=True)
for line in sys.stdin:
    time.sleep(0.03)  # threads of the one before go to sleep
    for _ in range(max(2, int(line) // 4)):  # ours wake up, and the caches are filled
        call()
    start = time.perf_counter()
    for _ in range(int(line)):
        call()
    print(time.perf_counter() - start, flush=True)
"""


def apart(name, optimizer, dtype, wanted):
    """The contenders in processes of their own, which wait while it is not their turn: threads of one would disturb the others."""
    children, calls = [], {}
    for who in wanted:
        command = [sys.executable, "-c", _CHILD, name, optimizer, dtype, who]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        children.append(child)
        if child.stdout.readline().strip() != "ready":
            continue

        def call(count=1, child=child):
            child.stdin.write(f"{count}\n")
            child.stdin.flush()
            return float(child.stdout.readline())

        calls[who] = call
    return children, calls


def run_apart(names, optimizers, dtypes, rounds, seconds, wanted, say=print):
    """As `run`, each contender in a process of its own; `seconds` should be longer, since threads and caches begin each turn anew."""
    rows = []
    for name, optimizer, dtype in itertools.product(names, optimizers, dtypes):
        children, calls = apart(name, optimizer, dtype, wanted)
        counts = {w: max(1, int(seconds / max(min(call(2) / 2 for _ in range(3)), 1e-7))) for w, call in calls.items()}
        found = {w: [] for w in calls}
        for _ in range(rounds):
            for w, call in calls.items():
                found[w].append(call(counts[w]) / counts[w])
        for child in children:
            child.stdin.close()
            child.wait()
        own = ratios(found, "ours")
        rows.append((name, optimizer, dtype, own))
        say(f"{name:12} {optimizer:9} {dtype:8} " + "  ".join(f"{n} {r:.2f}" for n, r in own.items() if n != "ours"), flush=True)
    return rows


def run(names, optimizers, dtypes, rounds, seconds, wanted, say=print):
    rows = []
    for name in names:
        case = CASES[name]
        for optimizer, dtype in itertools.product(optimizers, dtypes):
            found = interleaved(contenders(case, optimizer, np.dtype(dtype).type, wanted), rounds, seconds)
            own = ratios(found, "ours")
            rows.append((name, optimizer, dtype, own))
            say(
                f"{name:12} {optimizer:9} {dtype:8} " + "  ".join(f"{n} {r:.2f}" for n, r in own.items() if n != "ours"),
                flush=True,
            )
    return rows


def report(rows, wanted):
    header = ["network", "optimiser", "type", *(n for n in wanted if n != "ours")]
    body = [(n, o, d, *(f"{r[w]:.2f}" if w in r else "-" for w in header[3:])) for n, o, d, r in rows]
    return table(header, body)


def picture(rows, path):
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 4.5))
    names = [f"{n}, {o}" for n, o, _, _ in rows]
    peers_ = [p for p in dict.fromkeys(k for *_, r in rows for k in r) if p not in ("ours", "matrix products alone")]
    for p in peers_:
        at = [k for k, (*_, r) in enumerate(rows) if p in r]
        axes.plot(at, [rows[k][3][p] for k in at], "o", label=p)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_yscale("log")
    axes.set_xticks(range(len(names)), names, fontsize=8, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_ylabel("time over ours")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
