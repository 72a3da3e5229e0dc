"""generated/ is what the commands make now, and what is in it runs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from symbackprop.generated import MODULES, differences, folder
from symbackprop.train import bundled_data

from .conftest import import_file


def test_generated_files_are_up_to_date():
    assert differences() == [], "run 'symbackprop generate' and read the difference"


@pytest.mark.parametrize("name", MODULES)
def test_generated_module_checks_its_own_gradients(name):
    assert import_file(folder() / f"{name}.py").check_gradients() < 1e-6


@pytest.mark.parametrize(
    ("name", "options", "least"),
    [
        ("line", {"epochs": 2000, "batch_size": 11, "optimizer": "adam", "learning_rate": 0.05, "schedule": "constant"}, 0.666),
        ("xor", {}, 1.0),
        ("iris", {}, 0.95),
        ("digits", {"epochs": 10}, 0.98),
    ],
)
def test_generated_module_learns(name, options, least):
    module = import_file(folder() / f"{name}.py")
    X, Y = bundled_data(name if name != "line" else "anscombe")
    params, history = module.fit(X, Y, **options)
    assert module.score(params, X, Y) >= least
    assert history[-1]["loss"] < history[0]["loss"]


def test_line_finds_the_least_squares_line():
    module = import_file(folder() / "line.py")
    X, Y = bundled_data("anscombe")
    params, _ = module.fit(X, Y, epochs=3000, batch_size=11, optimizer="adam", learning_rate=0.05, schedule="constant")
    slope, intercept = np.polyfit(X, Y, 1)
    assert params["slope"] == pytest.approx(slope, rel=1e-4)
    assert params["intercept"] == pytest.approx(intercept, rel=1e-4)


def test_generated_files_name_no_machine_and_no_date():
    for path in Path(folder()).iterdir():
        text = path.read_text(encoding="utf-8")
        assert "/home" not in text
        assert "/tmp" not in text
        assert "20" + "26" not in text


def test_a_changed_file_is_noticed(tmp_path, monkeypatch):
    from symbackprop import generated

    for path in folder().iterdir():
        (tmp_path / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "xor.py").write_text("changed", encoding="utf-8")
    (tmp_path / "old.py").write_text("old", encoding="utf-8")
    monkeypatch.setattr(generated, "folder", lambda: tmp_path)
    found = generated.differences()
    assert any("xor.py" in text for text in found)
    assert any("old.py" in text for text in found)
    assert len(found) == 2


def test_module_runs_as_a_script(tmp_path):
    done = subprocess.run(
        [sys.executable, folder() / "xor.py", "check"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "largest relative difference" in done.stdout
