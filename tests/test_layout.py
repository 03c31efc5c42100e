"""The folders import downwards only, training is pure, and no file or function outgrows a reader."""

import ast
import configparser
import graphlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bloodcell_jax"

# From the bottom to the top. A folder or module imports from lower rows, and from others of its row without a circle.
ROWS = (
    ("config", "errors", "extras", "names", "regular_files", "whole_files", "download"),
    ("devices", "pretrained"),
    ("augment", "models", "data", "weights"),
    ("train",),
    ("workdir",),
    ("evaluate",),
    ("report",),
    ("run",),
    ("benchmark", "export", "plan", "search", "serve", "table1"),
    ("cli",),
)
HEIGHT = {name: height for height, row in enumerate(ROWS) for name in row}

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__")
SOURCES = sorted(
    path
    for folder in ("bloodcell_jax", "configs", "tests", "benchmarks", "docs")
    for path in (ROOT / folder).rglob("*.py")
)


def imports_of(path):
    """Return the dotted names that a module imports anywhere, in functions and for type checking too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def room_of(path):
    """Return the folder, or the module of the package itself, that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def arrows():
    """Return (file, its room, room that it imports from) of every import inside the package."""
    for path in MODULES:
        for name in imports_of(path):
            package, _, rest = name.partition(".")
            if package == "bloodcell_jax" and rest:
                yield path, room_of(path), rest.split(".")[0]


def test_every_room_has_its_height():
    rooms = {room_of(path) for path in MODULES}
    assert rooms == set(HEIGHT)


def test_no_module_is_named_like_one_of_the_standard_library():
    names = {part for path in MODULES for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert not (names - {"__init__"}) & set(sys.stdlib_module_names)


def test_every_folder_is_installed():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    folders = {".".join(("bloodcell_jax", *path.parent.relative_to(PACKAGE).parts)) for path in MODULES}
    assert set(config["options"]["packages"].split()) == folders | {"bloodcell_jax.configs"}


# Distribution names of what is imported under another name.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "absl": "absl-py",
    "dm_pix": "dm-pix",
    "orbax": "orbax-checkpoint",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
}
# Peers of the benchmark, the search of `sweep`, a format of exports, another map of embeddings, the server, the hub,
# and what JAX writes its cache with if it is there.
OPTIONAL = {"keras", "onnx", "optuna", "torch", "umap", "starlette", "uvicorn", "python_multipart"}
OPTIONAL |= {"huggingface_hub", "zstandard"}
# Sinks of metrics.
OPTIONAL |= {"mlflow", "wandb"}
# tensorflow-datasets imports it without requiring it.
FOR_OTHERS = {"importlib_resources"}


def test_what_is_imported_is_required_and_nothing_else():
    imported = {name.split(".")[0] for path in MODULES for name in imports_of(path)}
    foreign = imported - set(sys.stdlib_module_names) - {"bloodcell_jax"} - OPTIONAL
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].split("\n")
    required = {re.match(r"[\w-]+", line)[0] for line in lines if line and not line.startswith("#")}
    assert {DISTRIBUTIONS.get(name, name) for name in foreign} == required - FOR_OTHERS


def test_no_import_runs_up():
    up = [f"{path.relative_to(ROOT)} imports {to}" for path, room, to in arrows() if HEIGHT[to] > HEIGHT[room]]
    assert not up


def test_no_folders_import_each_other_in_a_circle():
    graph = {room: set() for room in HEIGHT}
    for _, room, to in arrows():
        graph[room] |= {to} - {room}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


def test_durations_come_from_a_clock_that_does_not_jump():
    jumps = re.compile(r"\btime\.time\b|\btime_ns\b|from time import|\.(now|utcnow|today)\(")
    dates = {str(path.relative_to(PACKAGE)) for path in MODULES if jumps.search(path.read_text(encoding="utf-8"))}
    # Dates for people: when a run was started, and those of the values that other programs show.
    assert dates == {"run/job.py", "run/tracking/mlflow_run.py", "run/tracking/tensorboard.py"}


# What training may use beside the package's own lower rooms: nothing that knows of files, clocks or processes.
PURE = {
    "__future__",
    "collections",
    "dataclasses",
    "functools",
    "math",
    "re",
    "typing",
    "flax",
    "jax",
    "numpy",
    "optax",
}
PURE_ROOMS = {"config", "errors", "augment", "models", "train"}
DEVICE_CALLS = {
    "device_put",
    "device_get",
    "devices",
    "local_devices",
    "device_count",
    "process_index",
    "process_count",
}


@pytest.mark.parametrize("path", sorted((PACKAGE / "train").glob("*.py")), ids=lambda path: path.stem)
def test_training_knows_no_files_clocks_or_devices(path):
    for name in imports_of(path):
        package, _, rest = name.partition(".")
        allowed = rest.split(".")[0] in PURE_ROOMS if package == "bloodcell_jax" else package in PURE
        assert allowed, f"{path.name} imports {name}"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            assert node.attr not in DEVICE_CALLS, f"{path.name}:{node.lineno} uses {node.attr}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("open", "print", "input"), f"{path.name}:{node.lineno} calls {node.func.id}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_and_its_functions_can_be_read_in_one_go(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= 60, f"{node.name} has {lines} lines"
