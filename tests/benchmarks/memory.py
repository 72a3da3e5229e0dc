"""How much memory a training step takes beside the weights, their gradients and the optimiser's state: each contender in its own process."""

import json
import subprocess
import sys

import numpy as np

from .measure import table
from .networks import CASES

_CHILD = """
import json, resource, sys
import numpy as np
from tests.benchmarks import peers, training
from tests.benchmarks.networks import CASES
who, name = sys.argv[1:]
case = CASES[name]
module = training.load(case.chain, np.float32, style="plain" if who == "plain style" else "fast")
step = peers.torch_step(case, "adam", np.float32, 1e-4) if who == "PyTorch" else peers.ours(case, "adam", np.float32, module, 1e-4)
# A small batch first: whatever a library needs once is there before anything is counted.
data = list(training.batches(case, np.float32, 2))
for X, Y in data:
    step(X[:1], Y[:1])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
for X, Y in data * 2:
    step(X, Y)
print(json.dumps(peak() - before))
"""


def grown(who, name):
    """Kilobytes by which the peak of a process grows with the first full batches."""
    done = subprocess.run([sys.executable, "-c", _CHILD, who, name], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main(options):
    contenders = ["ours", "plain style", "PyTorch"]
    names = ["small"] if options.short else options.networks or [n for n in CASES if not n.startswith(("tiny", "small"))]
    rows = []
    for name in names:
        found = {w: int(np.median([grown(w, name) for _ in range(1 if options.short else 3)])) for w in contenders}
        rows.append((name, *(f"{found[w] / 1024:.1f}" for w in contenders)))
        print(f"{name:12} " + "  ".join(f"{w} {found[w] / 1024:.1f} MiB" for w in contenders), flush=True)
    if options.output:
        header = ["network (Adam, float32)", *(f"{w}, MiB" for w in contenders)]
        (options.output / "memory.md").write_text(table(header, rows), encoding="utf-8")
    return 0
