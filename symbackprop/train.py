"""`symbackprop train`: derive, explain, emit and train on real data, into a folder that appears when all is done."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np

from .catalogue import OPTIMISERS, SCHEDULES
from .declare import build, read
from .derive import derive
from .emit import emit
from .errors import DataError, FileError, suggest
from .explain import explain
from .files import write_file
from .notation import Array, Derivation, Network
from .spec import TRAIN_KEYS

_DATA = Path(__file__).parent / "data"
Arrays = tuple[Any, Any]


def bundled_data(name: str) -> Arrays:
    """A bundled data set, ready to train on."""
    path = _DATA / f"{name}.npz"
    if not path.is_file():
        known = sorted(p.stem for p in _DATA.glob("*.npz"))
        raise DataError(f"there is no bundled data set '{name}'{suggest(name, known)}; known: {', '.join(known)}")
    with np.load(path, allow_pickle=False) as file:
        scale = float(file["scale"]) if "scale" in file else 1.0
        if "X" in file:
            return _scaled(file["X"], scale), file["Y"]
        return {
            name: _scaled(file[name], scale) for name in file.files if file[name].ndim and file[name].dtype.kind in "iuf"
        }, None


def _scaled(array: Any, scale: float) -> Any:
    return array / scale if scale != 1 else array


def load_module(path: Path) -> ModuleType:
    """An emitted module, imported from its file."""
    spec = importlib.util.spec_from_file_location(f"symbackprop_emitted_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    writes = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = writes
    return module


def infer_sizes(network: Network, x: Any, y: Any) -> dict[str, int]:
    """The sizes that the network leaves to the data (`auto`), by index letter."""
    number = {i.name: i.number for i in network.indices}
    found: dict[str, int] = {}
    for role, value in (("input", x), ("target", y)):
        arrays = [a for a in network.arrays if a.role == role]
        for array in arrays:
            one = _arrays_in(value, [a.name for a in arrays]).get(array.name)
            if one is not None:
                found = _sizes_in(one, array, role, network) | found
    # What no parameter depends on, such as the length of a sequence, stays open.
    size = {i.name: i.size for i in network.indices}
    fixed = {size[x] for a in network.arrays if a.role == "parameter" for x in a.axes}
    return {i: n for i, n in found.items() if number.get(i) is None and i != network.batch and size[i] in fixed}


def _arrays_in(data: Any, names: Sequence[str] = ("",)) -> dict[str, Any]:
    """The arrays of data given as a dict or as the one array."""
    if data is None:
        return {}
    return dict(cast("Mapping[str, Any]", data)) if isinstance(data, Mapping) else {names[0]: data} if len(names) == 1 else {}


def _sizes_in(value: Any, array: Array, role: str, network: Network) -> dict[str, int]:
    """The sizes that one array of the data has."""
    axes, shape = array.axes, np.shape(value)
    if role == "target" and network.labels == "one-hot" and len(shape) == len(axes) - 1:
        classes = int(np.max(value)) + 1 if np.size(value) else 0
        if not 1 <= classes <= 100 * len(value) + 100:
            raise DataError(f"the labels must be the classes 0, 1, 2, …; the largest found is {classes - 1}")
        return {axes[-1]: classes}
    return dict(zip(axes, shape, strict=True)) if len(shape) == len(axes) else {}


def count_of(data: Any) -> int:
    """The number of examples in an array or in a dict of arrays; -1 where they differ or there are none."""
    counts = {len(a) if np.ndim(a) else -1 for a in _arrays_in(data).values()}
    return counts.pop() if len(counts) == 1 else -1


def rows_of(data: Any, rows: Any) -> Any:
    """Some of the examples."""
    if data is None:
        return None
    return {name: a[rows] for name, a in _arrays_in(data).items()} if isinstance(data, Mapping) else data[rows]


def split(x: Any, y: Any, share: float, seed: int) -> tuple[Arrays, Arrays]:
    """Training and held-out examples, drawn at random; everything is both where nothing is held out."""
    order = np.random.default_rng(seed).permutation(count_of(x))
    held = round(share * len(order))
    if held == 0:
        return (x, y), (x, y)
    kept, out = order[held:], order[:held]
    return (rows_of(x, kept), rows_of(y, kept)), (rows_of(x, out), rows_of(y, out))


def train(
    source: str,
    data: str | None,
    folder: Path | None,
    options: Mapping[str, Any],
    say: Callable[[str], None],
    force: bool = False,
) -> float:
    """Run the whole way once and return the score on held-out examples.

    `data` is a .npz or .csv file (the network's bundled data if None); `folder` gets the derivation, the module and the
    parameters. Raises `DataError`, `FileError` or what `declare` and `emit` raise; then nothing is written.
    """
    began = time.perf_counter()
    network = build(read(source))
    defaults = {**network.training, **_checked(options)}
    folder = folder or _free_folder(network.name)
    if folder.exists() and not folder.is_dir():
        raise FileError(f"'{folder}' is a file; -o names a folder")
    if folder.exists() and not force:
        raise FileError(f"'{folder}' exists already; use --force to overwrite what is in it, or another -o FOLDER")
    if not folder.parent.is_dir():
        raise FileError(f"there is no folder '{folder.parent}' to write '{folder.name}' into")
    derivation = derive(network)
    say(f"derived {len(derivation.wrt)} gradients of {network.name} in {time.perf_counter() - began:.1f} s")
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        result = _train_in(work, derivation, data, defaults, say)
        _publish(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for name in sorted(p.name for p in folder.iterdir()):
        say(f"wrote {folder / name}")
    return result


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    given = {k: v for k, v in options.items() if v is not None}
    for key, value in given.items():
        wanted, holds = TRAIN_KEYS[key]
        if not holds(value):
            near = suggest(value, [*OPTIMISERS, *SCHEDULES]) if isinstance(value, str) else ""
            raise DataError(f"--{key.replace('_', '-')} must be {wanted}, not '{value}'{near}")
    return given


def _free_folder(name: str) -> Path:
    stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in name) + "-trained"
    number, folder = 1, Path(stem)
    while folder.exists():
        number += 1
        folder = Path(f"{stem}-{number}")
    return folder


def _publish(work: Path, folder: Path) -> None:
    os.chmod(work, 0o755)
    if not folder.exists():
        os.replace(work, folder)
        return
    # Looked at before the first file is replaced, so that all of them are or none.
    for path in work.iterdir():
        if (folder / path.name).is_dir():
            raise FileError(f"'{folder / path.name}' is a folder and cannot be replaced by a file")
    for path in work.iterdir():
        os.replace(path, folder / path.name)


def _train_in(
    work: Path, derivation: Derivation, data: str | None, defaults: Mapping[str, Any], say: Callable[[str], None]
) -> float:
    network = derivation.network
    if data is None and "data" not in defaults:
        raise DataError(f"no data for '{network.name}': give a .npz file with X and Y, or a .csv file")
    if data is not None:
        # The module of the network reads its own files; sizes are not known yet.
        draft = work / "draft.py"
        write_file(draft, emit(derivation))
        try:
            x, y = load_module(draft).read_data(data)
        except FileNotFoundError:
            raise DataError(f"there is no file '{data}'") from None
        except (ValueError, OSError) as problem:
            raise DataError(str(problem)) from None
        draft.unlink()
    else:
        x, y = bundled_data(str(defaults["data"]))
    if not any(a.role == "target" for a in network.arrays):
        y = None
    count = count_of(x)
    if count < 1 or (y is not None and count_of(y) != count):
        shapes = [np.shape(a) for d in (x, y) for a in _arrays_in(d).values()]
        raise DataError(
            f"X and Y must hold the same number of examples, at least one; the shapes are {', '.join(map(str, shapes))}"
        )
    seed = int(defaults.get("seed", 0))
    dtype = str(defaults.get("dtype", "float64"))
    path = work / "network.py"
    write_file(path, emit(derivation, dtype=dtype, sizes=infer_sizes(network, x, y)))  # type: ignore[arg-type]
    write_file(work / "derivation.html", explain(derivation, "html"))
    module = load_module(path)
    training, held_out = split(x, y, float(defaults.get("held_out", 0.2)), seed)
    epochs = int(defaults.get("epochs", 100))
    names = {"one-hot": "accuracy", "zero-one": "accuracy", "signed": "accuracy"}
    measure = names.get(network.labels, "R²" if y is not None else "minus the loss")
    shown = max(1, epochs // 10)

    def progress(record: Mapping[str, Any]) -> None:
        if record["epoch"] % shown == 0 or record["epoch"] in (1, epochs):
            say(f"epoch {record['epoch']:>4}/{epochs}  loss {record['loss']:.5f}  {measure} {record['score']:.4f}")

    keys = ("batch_size", "optimizer", "learning_rate", "schedule")
    began = time.perf_counter()
    try:
        params, _ = module.fit(
            *training,
            epochs=epochs,
            seed=seed,
            validation=held_out,
            progress=progress,
            **{k: defaults[k] for k in keys if k in defaults},
        )
        score = float(module.score(params, *held_out))
    except (ValueError, FloatingPointError, TypeError) as problem:
        raise DataError(str(problem)) from None
    module.save(work / "params.npz", params)
    count = (
        "the training examples"
        if held_out is training or float(defaults.get("held_out", 0.2)) == 0
        else f"{count_of(held_out[0])} held-out examples"
    )
    shown_score = f"{100 * score:.1f} %" if measure == "accuracy" else f"{score:.4f}"
    say(f"{measure} on {count}: {shown_score}, after {time.perf_counter() - began:.1f} s of training")
    return score
