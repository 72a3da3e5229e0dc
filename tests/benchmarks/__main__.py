"""`python -m tests.benchmarks training|deriving|memory [--short] [--threads N] [-o FOLDER]`: a table and a picture."""

import argparse
import os
import subprocess
import sys
from pathlib import Path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["training", "deriving", "memory"])
    parser.add_argument("--short", action="store_true", help="one small network, one round: only to see that it runs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--networks", nargs="+")
    parser.add_argument("--optimizers", nargs="+", default=["sgd", "adam"])
    parser.add_argument("--dtypes", nargs="+", default=["float32"])
    parser.add_argument("--contenders", nargs="+")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("-o", "--output", type=Path, help="write the table (.md) and the picture (.svg) into this folder")
    options = parser.parse_args()
    if "BENCHMARK_THREADS" not in os.environ:
        # The libraries read this when they are loaded.
        threads = str(options.threads)
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "BENCHMARK_THREADS")
        eigen = (
            f"--xla_cpu_multi_thread_eigen={'false' if options.threads == 1 else 'true'} intra_op_parallelism_threads={threads}"
        )
        environment = {**os.environ, **dict.fromkeys(names, threads), "XLA_FLAGS": eigen}
        return subprocess.run([sys.executable, "-m", "tests.benchmarks", *sys.argv[1:]], env=environment, check=False).returncode
    if hasattr(os, "sched_setaffinity"):
        # Not every library keeps to the number of threads that it is told.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    if options.what == "deriving":
        from . import deriving

        return deriving.main(options)
    if options.what == "memory":
        from . import memory

        return memory.main(options)
    from . import training
    from .networks import CASES

    wanted = options.contenders or [
        "ours, compiled", *(["ours, compiled, shared"] if options.threads > 1 else []), "plain style", "NumPy as people write it", "PyTorch", "torch.compile", "JAX", "autograd", "scikit-learn", "matrix products alone",
    ]  # fmt: skip
    wanted = ["ours", *wanted] if not options.short else ["ours", "plain style"]
    names = ["small"] if options.short else options.networks or list(CASES)
    # Threads of one library that wait for work would take it from the others.
    run, seconds = (training.run, 0.02) if options.threads == 1 else (training.run_apart, 0.1)
    rows = run(names, options.optimizers, options.dtypes, 1 if options.short else options.rounds, seconds, wanted)
    if options.output:
        stem = f"training-{options.threads}-thread{'s' if options.threads > 1 else ''}"
        stem += "-float64" if options.dtypes == ["float64"] else ""
        (options.output / f"{stem}.md").write_text(training.report(rows, wanted), encoding="utf-8")
        training.picture(rows, options.output / f"{stem}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
