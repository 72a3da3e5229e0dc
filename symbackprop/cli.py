"""The command line: `symbackprop derive|check|emit|train|generate|networks|catalogue`.

Exit status 0: done; 1: something differs (`generate --check`) or a claim is wrong (`check`);
2: an error, told in one place and without a traceback.
SymPy and NumPy are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import SymbackpropError

NETWORK_HELP = "a bundled network's name, a TOML file, or a chain such as '4 -> dense(3, softmax) -> cross_entropy'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except SymbackpropError as error:
        print(f"{error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader has gone (`… | head`): nothing more to say, and nothing to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="symbackprop", description=__doc__.partition("\n")[0] if __doc__ else None)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    _derive_options(commands.add_parser("derive", help="derive the gradients of a network and explain them"))
    _check_options(commands.add_parser("check", help="say whether claimed formulas are right"))
    _emit_options(commands.add_parser("emit", help="write a standalone module that trains the network"))
    _train_options(commands.add_parser("train", help="derive, explain, emit, and train on data"))

    generate = commands.add_parser("generate", help="rewrite generated/, or say what differs")
    generate.add_argument("--check", action="store_true", help="only compare; exit status 1 where something differs")
    generate.set_defaults(run=_generate)

    networks = commands.add_parser("networks", help="list the bundled networks")
    networks.set_defaults(run=_networks)

    catalogue = commands.add_parser("catalogue", help="list layers, activations, losses, optimisers and their formulas")
    catalogue.set_defaults(run=_catalogue)
    return top


def _derive_options(derive: argparse.ArgumentParser) -> None:
    derive.add_argument("network", help=NETWORK_HELP)
    derive.add_argument("--wrt", nargs="+", default=[], metavar="NAME", help="differentiate with respect to these arrays")
    derive.add_argument("--form", choices=["index", "matrix", "scalar"], default="index")
    derive.add_argument("--format", choices=["text", "latex", "markdown", "html", "pdf", "json"], default="text")
    derive.add_argument("--fragment", action="store_true", help="only the formulas of the results, one a line (text, latex)")
    derive.add_argument(
        "--notation",
        default="",
        metavar="CHOICES",
        help="such as 'batch=columns, layer=[l], derivative=d, prediction=ŷ'",
    )
    derive.add_argument("--values", type=Path, metavar="FILE", help="numbers for the page: arrays by name in a TOML or JSON file")
    derive.add_argument("--seed", type=int, default=0, help="of the numbers that are not given (html)")
    _output(derive, required=False)
    derive.set_defaults(run=_derive)


def _check_options(check: argparse.ArgumentParser) -> None:
    check.add_argument("network", nargs="?", help=f"{NETWORK_HELP}; or an optimiser's name; not needed where FILE says it")
    check.add_argument(
        "claims", nargs="*", metavar="CLAIM", help=r"such as 'dL/dz2 = (p - y)/N' or '\frac{\partial L}{\partial w} = …'"
    )
    check.add_argument(
        "--file", type=Path, metavar="FILE", help="claims in TOML, or a Markdown or LaTeX document: all its equations"
    )
    check.add_argument("--values", type=Path, metavar="VALUES", help="inputs, targets and parameters for claims with numbers")
    check.add_argument(
        "--notation", default="", metavar="CHOICES", help="how claims are read, such as 'examples=one, delta=minus'"
    )
    check.add_argument("--report", type=Path, metavar="REPORT", help="write a web page with one line a claim, and points")
    check.add_argument("--force", action="store_true", help="overwrite REPORT if it exists")
    check.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    check.set_defaults(run=_check)


def _emit_options(emit: argparse.ArgumentParser) -> None:
    emit.add_argument("network", help=NETWORK_HELP)
    emit.add_argument("--target", default="numpy", help="numpy, or numba: the training step compiled to loops")
    emit.add_argument("--dtype", choices=["float64", "float32"], default="float64")
    emit.add_argument("--style", choices=["fast", "plain"], default="fast", help="plain: each formula is one line, for teaching")
    _output(emit, required=True)
    emit.set_defaults(run=_emit)


def _train_options(train: argparse.ArgumentParser) -> None:
    train.add_argument("network", help=NETWORK_HELP)
    train.add_argument("data", nargs="?", help=".npz with X and Y, or .csv with the target last (bundled data if absent)")
    train.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="where the results go (default: NAME-trained)")
    train.add_argument("--force", action="store_true", help="overwrite files in FOLDER")
    train.add_argument("--epochs", type=_positive)
    train.add_argument("--batch-size", type=_positive)
    train.add_argument("--optimizer")
    train.add_argument("--schedule")
    train.add_argument("--learning-rate", type=float)
    train.add_argument("--seed", type=int)
    train.add_argument("--dtype", choices=["float64", "float32"])
    train.add_argument("--held-out", type=float, metavar="SHARE", help="share of the examples kept for the score")
    train.set_defaults(run=_train)


def _output(command: argparse.ArgumentParser, required: bool) -> None:
    command.add_argument("-o", "--output", type=Path, metavar="FILE", required=required)
    command.add_argument("--force", action="store_true", help="overwrite FILE if it exists")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not '{text}'")
    return int(text)


def _deliver(text: str | bytes, options: argparse.Namespace) -> int:
    from .files import write_file

    if options.output is None:
        print(text if isinstance(text, str) else "", end="")
    else:
        write_file(options.output, text, options.force)
        print(f"wrote {options.output}")
    return 0


def _derive(options: argparse.Namespace) -> int:
    from .cache import cached, network_text
    from .files import refuse_existing

    if options.fragment and options.format not in ("text", "latex"):
        raise SymbackpropError(f"--fragment goes with --format text or latex, not {options.format}")
    if options.format == "pdf" and options.output is None:
        raise SymbackpropError("a PDF needs a file to go to: add -o FILE.pdf")
    if options.output is not None:
        refuse_existing(options.output, options.force)
    if options.format == "pdf":
        from .derive import derive
        from .pdf import pdf

        return _deliver(pdf(derive(options.network, options.wrt), options.form, options.notation), options)

    def make() -> str:
        from .derive import derive
        from .explain import explain, fragment
        from .numbers import read_values

        values = read_values(options.values) if options.values is not None else None
        derivation = derive(options.network, options.wrt)
        if options.fragment:
            return fragment(derivation, options.format, options.form, options.notation)
        return explain(derivation, options.format, options.form, values, options.seed, options.notation)

    text = network_text(options.network)
    if text is None or options.values is not None:
        return _deliver(make(), options)
    chosen = (options.wrt, options.format, options.form, options.fragment, options.notation, options.seed)
    return _deliver(cached(("derive", text, repr(chosen)), make), options)


def _check(options: argparse.Namespace) -> int:
    from .check import Checker
    from .claim_files import Entry, read_claims
    from .files import refuse_existing, write_file
    from .numbers import read_values
    from .report import report

    if options.report is not None:
        refuse_existing(options.report, options.force)
    values = read_values(options.values) if options.values is not None else None
    entries = [Entry(claim) for claim in options.claims]
    entries += read_claims(options.file) if options.file is not None else []
    if not entries:
        raise SymbackpropError("there is no claim: give one, or --file FILE")
    checkers: dict[str, Checker] = {}
    verdicts: list[Any] = []
    for entry in entries:
        network = entry.network or options.network
        if network is None:
            raise SymbackpropError("say which network the claims are about: symbackprop check NETWORK …, or network = … in FILE")
        if network not in checkers:
            checkers[network] = Checker(network, values)
        verdicts.append(checkers[network].check(entry.text, entry.notation or options.notation))
    if options.json:
        shown = [{k: v for k, v in dataclasses.asdict(v).items() if k not in ("marked",)} for v in verdicts]
        print(json.dumps(shown, indent=2, ensure_ascii=False))
    elif options.file is not None:
        for entry, verdict in zip(entries, verdicts, strict=True):
            print(f"{options.file}:{entry.line}: {entry.name + ': ' if entry.name else ''}{verdict}")
    else:
        print("\n".join(map(str, verdicts)))
    if options.report is not None:
        title = str(options.file.stem if options.file is not None else options.network)
        write_file(options.report, report(entries, verdicts, title), options.force)
    found = {v.verdict for v in verdicts}
    return 2 if "not understood" in found else int("refuted" in found)


def _emit(options: argparse.Namespace) -> int:
    from .cache import cached, network_text
    from .files import refuse_existing

    refuse_existing(options.output, options.force)

    def make() -> str:
        from .emit import emit

        return emit(options.network, target=options.target, dtype=options.dtype, style=options.style)

    text = network_text(options.network)
    if text is None:
        return _deliver(make(), options)
    return _deliver(cached(("emit", text, options.target, options.dtype, options.style), make), options)


def _train(options: argparse.Namespace) -> int:
    from .train import train

    keys = ("epochs", "batch_size", "optimizer", "schedule", "learning_rate", "seed", "dtype", "held_out")
    chosen: dict[str, Any] = {k: getattr(options, k) for k in keys}
    train(options.network, options.data, options.output, chosen, lambda line: print(line, flush=True), options.force)
    return 0


def _generate(options: argparse.Namespace) -> int:
    from .generated import differences, generate

    if not options.check:
        for path in generate():
            print(f"wrote {path}")
        return 0
    found = differences()
    for text in found:
        print(text)
    if found:
        print("generated/ is out of date: run 'symbackprop generate'", file=sys.stderr)
    return int(bool(found))


def _networks(options: argparse.Namespace) -> int:  # noqa: ARG001
    from .declare import bundled

    for name, path in bundled().items():
        first = path.read_text(encoding="utf-8").splitlines()[0]
        print(f"{name:24}{first.lstrip('# ')}")
    return 0


def _catalogue(options: argparse.Namespace) -> int:  # noqa: ARG001
    from . import catalogue as c
    from .layer_rows import LAYER_NAMES, layers_named

    tables: tuple[tuple[str, dict[str, str]], ...] = (
        ("Layers", {n: "; ".join(layers_named(n)[0].equations) for n in LAYER_NAMES}),
        ("Activations", {r.name: r.formula or "; ".join(r.equations) for r in c.ACTIVATIONS.values()}),
        ("Losses", {r.name: r.formula or "; ".join(r.equations) for r in c.LOSSES.values()}),
        ("Penalties", dict(c.PENALTIES)),
        ("Initialisers", {r.name: f"{r.distribution}, {r.scale}" for r in c.INITIALISERS.values()}),
        ("Optimisers", {r.name: "; ".join(r.equations) for r in c.OPTIMISERS.values()}),
        ("Schedules", {r.name: r.formula for r in c.SCHEDULES.values()}),
    )
    for title, rows in tables:
        print(title)
        for name, text in rows.items():
            print(f"    {name:24}{text}")
    return 0
