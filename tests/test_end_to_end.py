"""The commands as a user runs them; emitted modules in their own process, killed and resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from symbackprop import check, derive, emit, explain, jacobian
from symbackprop.catalogue import OPTIMISERS, SCHEDULES
from symbackprop.declare import bundled
from symbackprop.errors import EmitError
from symbackprop.train import bundled_data


def run(*arguments, cwd, program=("-m", "symbackprop")):
    return subprocess.run([sys.executable, *program, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False)


def test_train_digits_reaches_96_percent_and_says_what_it_wrote(tmp_path):
    began = time.monotonic()
    done = run("train", "digits", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 60
    score = float(done.stdout.split("held-out examples: ")[1].split(" %")[0])
    assert score >= 96
    assert done.stdout.count("epoch") >= 5
    files = sorted(p.name for p in (tmp_path / "digits-trained").iterdir())
    assert files == ["derivation.html", "network.py", "params.npz"]
    for name in files:
        assert f"wrote digits-trained/{name}" in done.stdout
    again = run("train", "digits", "--epochs", "1", cwd=tmp_path)
    assert "digits-trained-2" in again.stdout


def test_train_on_own_csv_with_sizes_from_the_data(tmp_path):
    X, Y = bundled_data("iris")
    rows = "\n".join(",".join(map(str, [*x, int(y)])) for x, y in zip(X, Y, strict=True))
    (tmp_path / "mine.csv").write_text("a,b,c,d,species\n" + rows + "\n", encoding="utf-8")
    chain = "auto -> dense(8, tanh) -> dense(auto, softmax) -> cross_entropy"
    done = run("train", chain, "mine.csv", "-o", "out", "--optimizer", "adam", "--epochs", 60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = run("predict", "mine.csv", "--params", "out/params.npz", cwd=tmp_path, program=("out/network.py",))
    assert shown.returncode == 0, shown.stderr
    assert len(shown.stdout.split()) == 150
    (tmp_path / "wide.csv").write_text("1,2,3,4,5,6,7\n")
    shown = run("predict", "wide.csv", "--params", "out/params.npz", cwd=tmp_path, program=("out/network.py",))
    assert shown.returncode == 2
    assert "shape" in shown.stderr


def test_an_existing_file_is_not_overwritten(tmp_path):
    (tmp_path / "mine.py").write_text("mine")
    assert run("emit", "xor", "-o", "mine.py", cwd=tmp_path).returncode == 2
    assert (tmp_path / "mine.py").read_text() == "mine"
    assert run("emit", "xor", "-o", "mine.py", "--force", cwd=tmp_path).returncode == 0
    (tmp_path / "kept").mkdir()
    assert run("train", "xor", "-o", "kept", cwd=tmp_path).returncode == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept", "mine.py"]


def test_bad_data_is_told_and_nothing_is_left(tmp_path):
    (tmp_path / "bad.csv").write_text("1,2,3,4,zero\n1,2,3,4,x\n")
    np.savez(tmp_path / "bad.npz", X=np.zeros((3, 5)), Y=np.zeros(3, int))
    for file, word in (("bad.csv", "row 2"), ("bad.npz", "shape"), ("none.npz", "no file"), ("bad.txt", "neither")):
        done = run("train", "iris", file, cwd=tmp_path)
        assert done.returncode == 2
        assert word in done.stderr
        assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.csv", "bad.npz"]


def test_the_module_overwrites_nothing_of_the_users(tmp_path):
    assert run("emit", "xor", "-o", "net.py", cwd=tmp_path).returncode == 0
    X, Y = bundled_data("xor")
    np.savez(tmp_path / "data.npz", X=X, Y=Y)
    before = (tmp_path / "data.npz").read_bytes()
    fit = ("fit", "data.npz", "--epochs", "2")
    assert run(*fit, "-o", "data.npz", cwd=tmp_path, program=("net.py",)).returncode == 2
    assert run(*fit, "--checkpoint", "data.npz", cwd=tmp_path, program=("net.py",)).returncode == 2
    assert (tmp_path / "data.npz").read_bytes() == before
    assert run(*fit, "--checkpoint", "c.npz", cwd=tmp_path, program=("net.py",)).returncode == 0
    assert run(*fit, "--checkpoint", "c.npz", "--force", cwd=tmp_path, program=("net.py",)).returncode == 0
    other = run(*fit, "--checkpoint", "c.npz", "--resume", "--seed", "9", cwd=tmp_path, program=("net.py",))
    assert other.returncode == 2
    assert "seed" in other.stderr


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--held-out", "-1"], "share"),
        (["--held-out", "nan"], "share"),
        (["--seed", "-1"], "whole number"),
        (["--learning-rate", "-1"], "positive"),
        (["--epochs", "x"], "whole number"),
        (["--optimizer", "adamm"], "did you mean 'adam'"),
    ],
)
def test_options_out_of_range(options, word, tmp_path):
    done = run("train", "xor", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    (tmp_path / "out" / "network.py").mkdir(parents=True)
    (tmp_path / "out" / "params.npz").write_text("mine")
    done = run("train", "xor", "--epochs", "1", "-o", "out", "--force", cwd=tmp_path)
    assert done.returncode == 2
    assert (tmp_path / "out" / "params.npz").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    assert run("train", "xor", "-o", "file", "--force", cwd=tmp_path).returncode == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "out"]


def test_killed_and_resumed_equals_uninterrupted_to_the_last_bit(tmp_path):
    assert run("emit", "digits", "-o", "net.py", cwd=tmp_path).returncode == 0
    X, Y = bundled_data("digits")
    np.savez(tmp_path / "data.npz", X=X, Y=Y)
    options = ["fit", "data.npz", "--epochs", "12", "--optimizer", "adam", "--seed", "3"]
    whole = run(*options, "-o", "whole.npz", cwd=tmp_path, program=("net.py",))
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "net.py", *options, "-o", "part.npz", "--checkpoint", "state.npz", "--resume"]
    for _ in range(20):
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        seen = 0
        while seen < 3 and process.stdout.readline():
            seen += 1
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        process.wait()
        if (tmp_path / "part.npz").exists():
            break
    final = run(*command[2:], cwd=tmp_path, program=("net.py",))
    assert final.returncode == 0, final.stderr
    with np.load(tmp_path / "whole.npz") as a, np.load(tmp_path / "part.npz") as b:
        assert set(a.files) == set(b.files)
        for name in a.files:
            assert np.array_equal(a[name], b[name])


@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_every_optimizer_equals_torch(optimizer, module_of):
    import torch

    module = module_of("3 -> dense(4, tanh) -> dense(2) -> squared_error")
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((8, 3)), rng.standard_normal((8, 2))
    params = module.init(seed=1)
    trainer = module.Trainer(params, 8, optimizer, learning_rate=0.05, schedule="constant")
    weights = {k: torch.tensor(v, requires_grad=True) for k, v in params.items()}
    made = {
        "sgd": lambda w: torch.optim.SGD(w, 0.05),
        "momentum": lambda w: torch.optim.SGD(w, 0.05, momentum=0.9),
        "nesterov": lambda w: torch.optim.SGD(w, 0.05, momentum=0.9, nesterov=True),
        "adagrad": lambda w: torch.optim.Adagrad(w, 0.05, eps=1e-10),
        "rmsprop": lambda w: torch.optim.RMSprop(w, 0.05, alpha=0.99, eps=1e-8),
        "adam": lambda w: torch.optim.Adam(w, 0.05),
        "adamw": lambda w: torch.optim.AdamW(w, 0.05, weight_decay=0.01),
    }[optimizer](list(weights.values()))
    for _ in range(20):
        trainer.step(X, Y)
        made.zero_grad()
        z = torch.tanh(torch.tensor(X) @ weights["W1"] + weights["b1"]) @ weights["W2"] + weights["b2"]
        ((z - torch.tensor(Y)) ** 2).sum(-1).mean().backward()
        made.step()
    for name, w in trainer.params.items():
        assert np.allclose(w, weights[name].detach().numpy(), rtol=1e-8, atol=1e-12), name
    assert set(trainer.state) == set(params)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_schedule_trains_and_keeps_the_dtype(schedule, dtype, module_of):
    module = module_of("xor")
    X, Y = bundled_data("xor")
    params, history = module.fit(X, Y, epochs=40, schedule=schedule, dtype=dtype)
    assert history[-1]["loss"] < history[0]["loss"]
    assert all(w.dtype == dtype for w in params.values())
    assert module.forward(params, X).dtype == dtype


def test_a_batch_is_averaged(module_of):
    module = module_of("3 -> dense(2, softmax) -> cross_entropy")
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((6, 3)), rng.integers(2, size=6)
    params = module.init()
    whole = module.loss_and_gradients(params, X, Y)
    parts = [module.loss_and_gradients(params, X[i : i + 1], Y[i : i + 1]) for i in range(6)]
    assert whole[0] == pytest.approx(np.mean([v for v, _ in parts]))
    for name, gradient in whole[1].items():
        assert np.allclose(gradient, np.mean([g[name] for _, g in parts], axis=0))


def test_save_and_load(tmp_path, module_of):
    module = module_of("xor")
    params = module.init(seed=4)
    module.save(tmp_path / "p.npz", params)
    loaded = module.load(tmp_path / "p.npz")
    assert all(np.array_equal(params[k], loaded[k]) for k in params)
    assert [p.name for p in tmp_path.glob("*.part")] == []


def test_labels_that_break_a_fact_are_refused(module_of):
    module = module_of("3 -> dense(2, softmax) -> cross_entropy")
    with pytest.raises(ValueError, match="must satisfy sum"):
        module.loss(module.init(), np.zeros((2, 3)), np.array([[0.5, 0.6], [1.0, 0.0]]))
    with pytest.raises(ValueError, match="classes"):
        module.loss(module.init(), np.zeros((2, 3)), np.array([0, 2]))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("form", ["index", "matrix", "scalar"])
@pytest.mark.parametrize("name", sorted(bundled()))
def test_latex_compiles(name, form, tmp_path):
    (tmp_path / "d.tex").write_text(explain(derive(name), "latex", form), encoding="utf-8")
    environment = {**os.environ, "openin_any": "p", "openout_any": "p"}
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "d.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment, check=False, timeout=60)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-1500:]
    log = (tmp_path / "d.log").read_text(encoding="latin-1")
    assert "Missing character" not in log


def test_derive_json_from_the_command_line(tmp_path):
    done = run("derive", "two_hidden_one_output", "--format", "json", cwd=tmp_path)
    data = json.loads(done.stdout)
    assert data["gradients"]["v_1"]["formula"] == "mean(i, -(y[i] - y'[i])*f_B'(z_B[i])*o_1[i])"


def test_lists(tmp_path):
    assert "digits" in run("networks", cwd=tmp_path).stdout
    listed = run("catalogue", cwd=tmp_path).stdout
    for word in ("dense", "gelu", "focal", "glorot_uniform", "adam", "cosine"):
        assert word in listed


# network: epochs, and the loss that the last of them must have fallen to (the mean over the training examples)
LEARNED = {
    "lenet": (6, 0.25),
    "char_lstm": (4, 72.0),
    "tiny_transformer": (4, 82.0),
    "autoencoder": (15, 1.5),
    "variational_autoencoder": (10, 29.0),
    "word2vec": (8, 2.7),
    "two_tower": (12, 1.6),
    "linear_svm": (20, 0.12),
}


@pytest.mark.parametrize("name", LEARNED)
def test_bundled_network_learns_on_its_data(name, tmp_path):
    """A character costs log(36) = 3.58 without knowledge: 114.7 for 32 of them; 72 are 2.25 each."""
    epochs, most = LEARNED[name]
    done = run("train", name, "--epochs", epochs, "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    losses = [float(line.split("loss ")[1].split()[0]) for line in done.stdout.splitlines() if line.startswith("epoch")]
    assert losses[-1] < most < losses[0]
    assert (tmp_path / "out" / "params.npz").is_file()
    checked = run("check", cwd=tmp_path, program=("out/network.py",))
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("program", ["pdflatex", "chromium"])
def test_pdf_by_what_is_installed(program, tmp_path, monkeypatch):
    from symbackprop.pdf import pdf

    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    only = tmp_path / "bin"
    only.mkdir()
    (only / program).symlink_to(path)
    monkeypatch.setenv("PATH", f"{only}:/bin" if program == "chromium" else os.environ["PATH"])
    if program == "chromium":
        monkeypatch.setattr(shutil, "which", lambda name: str(only / name) if (only / name).exists() else None)
    found = pdf(derive("two_hidden_one_output"), "scalar")
    assert found.startswith(b"%PDF")
    assert len(found) > 10_000


def test_pdf_without_a_program_says_what_to_do(tmp_path):
    env = {**os.environ, "PATH": str(tmp_path)}
    command = [sys.executable, "-m", "symbackprop", "derive", "line", "--format", "pdf", "-o", "line.pdf"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 2
    assert "install pdflatex" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_document_cannot_read_files_outside(tmp_path):
    """A name that asks TeX for a file is text, and TeX itself would refuse the file."""
    text = explain(derive({"network": "2 -> dense(1) -> squared_error", "name": r"\\input{/etc/passwd}"}), "latex")
    assert r"\input{/" not in text


def test_fragments_for_a_paper(tmp_path):
    done = run(
        "derive", "two_hidden_one_output", "--format", "text", "--fragment", "--form", "scalar", "--wrt", "v_1", cwd=tmp_path
    )
    assert done.stdout == "∂C/∂v_1 = mean_i [−(y − y')·f_B'(z_B)·o_1]\n"
    done = run("derive", "digits", "--format", "latex", "--fragment", "--wrt", "W2", cwd=tmp_path)
    assert done.stdout.startswith(r"\frac{\partial L}{\partial W^{(2)}_{hk}} = ")
    assert run("derive", "digits", "--format", "json", "--fragment", cwd=tmp_path).returncode == 2


def test_a_notebook_shows_formulas():
    derivation = derive("3 -> dense(2, softmax) -> cross_entropy")
    explain(derivation)
    shown = derivation._repr_mimebundle_()
    assert shown["text/latex"].startswith(r"$$\begin{aligned}")
    assert "∂L/∂W1 = Xᵀ Δ1" in shown["text/plain"]
    assert "z1[n,k]" in derivation.network._repr_mimebundle_()["text/plain"]
    assert jacobian(derivation.network, "a1", "x")._repr_mimebundle_()["text/latex"].startswith("$$J")
    assert check(derivation, "dL/dz1[n,k] = a1[n,k]")._repr_mimebundle_()["text/plain"].startswith("refuted")


def test_values_that_do_not_fit_are_told(tmp_path):
    (tmp_path / "v.toml").write_text("w_11 = [1, 2]\n")
    (tmp_path / "w.toml").write_text("w_111 = 1\n")
    (tmp_path / "x.toml").write_text("w_11 = \n")
    for file, word in (
        ("v.toml", "has the axes"),
        ("w.toml", "did you mean"),
        ("x.toml", "no values"),
        ("y.toml", "cannot be read"),
    ):
        done = run("derive", "two_hidden_one_output", "--format", "html", "--values", file, "-o", "p.html", cwd=tmp_path)
        assert done.returncode == 2, done.stdout
        assert word in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "p.html").exists()


def test_a_second_run_takes_what_the_first_one_made(tmp_path):
    """The cache is keyed by content: the same network again, another one not, and none where it is turned off."""
    import os
    import subprocess
    import sys

    home = tmp_path / "cache"

    def emit_into(name, network, cache):
        command = [sys.executable, "-X", "importtime", "-m", "symbackprop", "emit", network, "-o", str(tmp_path / name)]
        environment = {**os.environ, "SYMBACKPROP_CACHE": cache}
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=environment)
        return "sympy" in done.stderr, (tmp_path / name).read_text(encoding="utf-8")

    chain = "4 -> dense(3, softmax) -> cross_entropy"
    first, source = emit_into("one.py", chain, str(home))
    again, same = emit_into("two.py", chain, str(home))
    other, different = emit_into("three.py", "4 -> dense(5, softmax) -> cross_entropy", str(home))
    off, _ = emit_into("four.py", chain, "")
    assert (first, again, other, off) == (True, False, True, True)
    assert source == same != different
    for path in home.iterdir():
        path.write_bytes(b"\xff\xfe broken")
    broken, repaired = emit_into("five.py", chain, str(home))
    assert broken
    assert repaired == source


def test_a_derivation_comes_from_the_cache(tmp_path, monkeypatch, capsys):
    from symbackprop.cli import main

    monkeypatch.setenv("SYMBACKPROP_CACHE", str(tmp_path / "cache"))
    chain = "3 -> dense(2, tanh) -> dense(1) -> squared_error"
    assert main(["derive", chain]) == 0
    first = capsys.readouterr().out
    assert main(["derive", chain, "--form", "scalar"]) == 0
    assert capsys.readouterr().out != first
    monkeypatch.setattr(sys.modules["symbackprop.derive"], "derive", None)  # what is there is not derived again
    assert main(["derive", chain]) == 0
    assert capsys.readouterr().out == first


def test_the_plain_style_is_for_numpy():
    with pytest.raises(EmitError, match="plain style"):
        emit("xor", target="numba", style="plain")


@pytest.mark.parametrize("what", ["training", "deriving", "memory"])
def test_the_benchmarks_run(what):
    """Not how fast: only that the documented command runs."""
    import subprocess
    import sys
    from pathlib import Path

    command = [sys.executable, "-m", "tests.benchmarks", what, "--short"]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ("depth" if what == "deriving" else "small") in done.stdout
