"""Tests about the repository itself: directions of imports, forbidden calls, and that the tests can fail."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import symbackprop
from symbackprop import derive, emit
from symbackprop.differentiate import partial

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "symbackprop"
# From the bottom up; a module imports only from the levels below its own, stages never one another.
LEVELS = (
    {"errors"},
    {"files", "misshapen", "findings"},
    {"cache"},
    {"notation", "render", "parse", "catalogue", "alike", "claim_files", "lengthen", "contractions"},
    {"chain", "code_text", "rooms", "shares", "spec", "sizes", "algebra", "write", "solve", "layer_rows", "trees"},
    {"unicode_text", "latex", "numpy_text", "edits", "code_shapes"},
    {"mathml", "reader", "maths_tokens", "operations"},
    {"maths"},
    {"shapes"},
    {"views"},
    {"fillings"},
    {"lower", "differentiate", "simplify", "stabilise", "plan", "evaluate", "matrix"},
    {"functions", "buffered", "tabulate", "loop_text", "layered", "layout", "recurrences"},
    {"recipes", "loop_nests", "layer_dicts"},
    {"assemble", "loop_products"},
    {"layers", "loops"},
    {"chains"},
    {"declare"},
    {"derive", "variants", "updates", "formula_networks"},
    {"scalars", "second", "graph", "numbers", "missteps"},
    {"document", "names", "misderived", "misplaced", "miswritten"},
    {"evidence", "claim", "mistakes"},
    {"cover", "replay"},
    {"judge"},
    {"answer", "prove", "ratios", "restate", "calling", "trials", "truths"},
    {"slips", "blame", "running"},
    {"page", "emit", "check", "torch_code", "jax_code"},
    {"explain", "report", "frameworks", "pytest_plugin"},
    {"handwritten"},
    {"verdicts"},
    {"verify"},
    {"pdf"},
    {"train", "generated"},
    {"cli", "__init__"},
    {"__main__"},
)
# `chain` reads with the parser's reader, `lower` turns the parser's tree into terms: both read the data that `parse` makes.


JUDGING = {"tabulate", "evidence", "cover", "judge", "ratios", "slips"}
HAND_WRITTEN = {
    "replay",
    "blame",
    "misshapen",
    "trials",
    "truths",
    "calling",
    "running",
    "torch_code",
    "jax_code",
    "frameworks",
    "handwritten",
    "verdicts",
}
WITH_NUMPY = {"train"} | JUDGING | HAND_WRITTEN


def imports_of(path, anywhere):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if anywhere else tree.body
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            yield from [node.module] if node.module else [a.name for a in node.names]


def test_imports_go_one_way():
    level = {name: i for i, names in enumerate(LEVELS) for name in names}
    modules = {p.stem for p in PACKAGE.glob("*.py")}
    assert modules == set(level)
    for path in PACKAGE.glob("*.py"):
        for imported in imports_of(path, anywhere=True):
            assert level[imported] < level[path.stem], f"{path.stem} imports {imported}"


def test_no_import_inside_a_function_but_in_the_command_line():
    for path in PACKAGE.glob("*.py"):
        if path.stem not in ("cli", "__init__", "pytest_plugin"):
            assert set(imports_of(path, anywhere=True)) == set(imports_of(path, anywhere=False)), path


def test_only_render_knows_jinja_and_only_training_and_judging_know_numpy():
    for path in PACKAGE.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert ("import jinja2" in text) == (path.stem == "render")
        assert ("import numpy" in text) == (path.stem in WITH_NUMPY)


def test_no_evaluator_is_ever_called():
    forbidden = {
        "eval",
        "exec",
        "compile",
        "sympify",
        "parse_expr",
        "lambdify",
        "literal_eval",
        "__import__",
        "getoutput",
        "system",
    }
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                # re.compile and the import system's exec_module are other things
                owner = getattr(getattr(node.func, "value", None), "id", "")
                assert name not in forbidden or owner == "re", f"{path.name}:{node.lineno} calls {name}"
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("simplify", "Matrix"):
                assert getattr(getattr(node.func, "value", None), "id", "") != "sympy", f"{path.name}:{node.lineno}"


def test_no_derivative_is_written_by_hand():
    text = (PACKAGE / "catalogue.py").read_text(encoding="utf-8")
    assert not re.search(r"deriv\w*\s*=|prime\s*=|grad\w*\s*=|backward", text)


def test_every_export_is_there_and_verbs_stay_functions():
    for name in symbackprop.__all__:
        assert getattr(symbackprop, name) is not None
    code = "import symbackprop.derive, symbackprop.emit; from symbackprop import derive, emit, declare; print(callable(derive), callable(emit), callable(declare))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 3


def test_deriving_explaining_and_emitting_need_no_numpy():
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        "from symbackprop import declare, derive, explain, emit\n"
        "d = derive(declare('digits')); explain(d); emit(d); print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "fine", done.stderr


def test_help_does_not_import_sympy():
    code = "import sys; from symbackprop.cli import parser; parser(); print('sympy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_readme_commands_and_files_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (ROOT / target).exists(), target
    from symbackprop.cli import parser

    commands = parser()._subparsers._group_actions[0].choices
    for command in re.findall(r"`symbackprop (\w+)", text):
        assert command in commands


def test_readme_shows_what_is_printed():
    from symbackprop import declare, explain

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    printed = explain(derive(declare("3 -> dense(4, tanh) -> dense(2, softmax) -> cross_entropy")), "text", "matrix")
    for line in ("Δ2 = 1/N (A2 − Y)", "∂L/∂W1 = Xᵀ Δ1", "∂L/∂W2 = A1ᵀ Δ2", "∂L/∂b1 = Δ1ᵀ 𝟏"):
        assert line in printed
        assert line in text
    module = emit("digits")
    for line in ("dz2 = (a2 - y) / N", "dW2 = a1.T @ dz2", "dz1 = da1 * (z1 > 0)"):
        assert line in module
        assert line in text


@pytest.mark.parametrize("name", ["errors", "notation", "parse", "algebra", "plan"])
def test_nothing_speaks_of_the_machine_it_was_made_on(name):
    text = (PACKAGE / f"{name}.py").read_text(encoding="utf-8")
    assert "/work" not in text
    assert "/root" not in text


@pytest.mark.parametrize("kind", ["activation", "loss", "signal"])
def test_a_planted_error_of_a_thousandth_is_caught(kind, monkeypatch, tmp_path):
    """A local derivative wrong by 0.1 % makes the finite-difference check fail."""
    from symbackprop import differentiate

    from .conftest import import_file

    networks = {"activation": "tanh", "loss": "sigmoid", "signal": "softsign"}
    chain = f"3 -> dense(4, {networks[kind]}) -> dense(2, softmax) -> cross_entropy"
    factor = {"n": 0}

    def wrong(body, element):
        right = partial(body, element)
        import sympy

        wanted = {"activation": body.has(sympy.tanh), "loss": body.has(sympy.log), "signal": element.name == "W1"}[kind]
        if wanted:
            factor["n"] += 1
            return right * sympy.Rational(1001, 1000)
        return right

    monkeypatch.setattr(differentiate, "partial", wrong)
    path = tmp_path / "wrong.py"
    path.write_text(emit(derive(chain)), encoding="utf-8")
    assert factor["n"] > 0
    assert import_file(path).check_gradients() > 1e-4
