"""Whatever stands in the JSON files of a workdir, reading it gives its content or one line that names the file."""

import copy
import json
import random
import shutil

import numpy as np
import pytest

from bloodcell_jax.data.geometry import View
from bloodcell_jax.errors import UserError
from bloodcell_jax.evaluate.groups import read_example_groups, read_groups
from bloodcell_jax.evaluate.predictions_file import read_predictions
from bloodcell_jax.report import write_report
from bloodcell_jax.report.explanation_view import explanation_view
from bloodcell_jax.weights import WeightsInfo
from bloodcell_jax.weights.calibration import PREFIX
from bloodcell_jax.weights.model_file import RUN_KEY, read_model_record
from bloodcell_jax.weights.safetensors_file import read_safetensors, write_safetensors
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.json_files import read_json
from bloodcell_jax.workdir.records import check_evaluation, check_most_wrong, check_scores
from bloodcell_jax.workdir.resume import check_resumable, check_same_splits
from bloodcell_jax.workdir.suite_records import check_suite

NAMES = (
    *("config.json", "environment.json", "splits.json", "metrics.jsonl"),
    *("eval/test/metrics.json", "eval/test/chains.json", "eval/test/most_wrong.json", "eval/test/before.json"),
    *("eval/test/explained_cells.json", "eval/test/embedding_map.json"),
    *("eval/test/predictions.csv", "eval/test/groups.csv", "eval/test/example_groups.csv"),
)
WRONG = (
    *(None, True, False, 0, -1, 7, 2**31, 2**63, 10**400, 0.5, float("nan"), float("inf"), -1e308),
    *("", "x", "1", "\x1b[2J", "\ud800", "=1", [], {}, [[]], [None], {"": None}, {"x": {"y": []}}, "x" * 5000),
)
DEEP = "[" * 100_000, '{"a":' * 100_000, "[" * 300 + "]" * 300
GROUPS = "group,n,accuracy,labeled red,predicted red,labeled green,predicted green,labeled blue,predicted blue\n"


@pytest.fixture(scope="module")
def originals(trained):
    """Return the texts of the JSON and CSV files of a real workdir, with those that only some runs have."""
    return texts_of(trained)


def texts_of(workdir):
    texts = {name: (workdir / name).read_text() for name in NAMES if (workdir / name).exists()}
    scores = json.loads(texts["eval/test/metrics.json"]) | {"source": "folder:lab", "split": "all"}
    texts["eval/test/metrics.json"] = texts["eval/test/before.json"] = json.dumps(scores)
    score = {"accuracy": 0.5, "balanced_accuracy": 0.5}
    suite = {"suite": {"name": "chains", "version": 1}, "chain": {"1": score, "2": score}}
    texts["eval/test/chains.json"] = json.dumps(suite | dict.fromkeys(("clean", "mean", "relative"), score))
    texts["eval/test/groups.csv"] = GROUPS + "a,9,0.5,0.5,0.5,0.25,0.25,0.25,0.25\nb,9,1.0,1,1,0,0,0,0\n"
    texts["eval/test/example_groups.csv"] = "id,group\n3,a\n5,b\n"
    return texts


def places_of(value, place=()):
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places_of(item, (*place, key))


def mutate(value, draw):
    """Return a JSON value with one place of it replaced, removed, renamed or moved."""
    value = copy.deepcopy(value)
    *above, last = draw.choice([place for place in places_of(value) if place] or [("",)])
    if last == "" or draw.random() < 0.02:
        return draw.choice(WRONG)
    inside = value
    for key in above:
        inside = inside[key]
    way = draw.randrange(4)
    if way == 0:
        del inside[last]
    elif way == 1 and isinstance(inside, dict):
        inside[f"{last}x"] = inside.pop(last)
    elif way == 2:
        inside[last] = copy.deepcopy(draw.choice([value, [inside[last]], {"x": inside[last]}]))
    else:
        inside[last] = copy.deepcopy(draw.choice(WRONG))
    return value


def damaged(text, draw):
    """Return a text with a few of its bytes or lines changed."""
    if draw.random() < 0.03:
        return draw.choice(DEEP)
    content = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(draw.randrange(1, 5)):
        place = draw.randrange(max(len(content), 1))
        if draw.random() < 0.5:
            content[place : place + draw.randrange(1, 40)] = draw.randbytes(draw.randrange(3))
        else:
            content[place : place + 1] = draw.choice([b"{", b"}", b"[", b",", b'"', b"\n", b"\0", b"9", b"-", b"e"])
    return content.decode("utf-8", "surrogateescape")


def changed(name, text, draw):
    if name.endswith(".csv") or draw.random() < 0.2:
        return damaged(text, draw)
    lines = text.splitlines() if name.endswith("l") else [text]
    number = draw.randrange(len(lines))
    try:
        lines[number] = json.dumps(mutate(json.loads(lines[number]), draw))
    except ValueError:  # 10**400 is not written, or the mutant holds itself
        return damaged(text, draw)
    return "\n".join(lines) + "\n"


def readers_of(workdir, config):
    """Return what reads each file, by the end of its name; the report reads them all."""
    folder = workdir.evaluation("test")
    return {
        "config.json": [workdir.read_config, lambda: check_resumable(workdir, config, "ab12", 36)],
        "environment.json": [lambda: check_resumable(workdir, config, "ab12", 36)],
        "splits.json": [workdir.read_splits, lambda: check_same_splits(workdir, {"sha256": "ab12"})],
        "metrics.jsonl": [workdir.read_metrics],
        "metrics.json": [lambda: check_evaluation(read_json(folder.metrics), folder.metrics)],
        "before.json": [lambda: check_scores(read_json(folder.before), folder.before)],
        "chains.json": [lambda: check_suite(read_json(folder.suite("chains")), folder.suite("chains"))],
        "most_wrong.json": [lambda: check_most_wrong(read_json(folder.most_wrong), folder.most_wrong)],
        "explained_cells.json": [lambda: explanation_view(folder)],
        "embedding_map.json": [lambda: explanation_view(folder)],
        "predictions.csv": [lambda: read_predictions(folder)],
        "groups.csv": [lambda: read_groups(folder.groups)],
        "example_groups.csv": [lambda: read_example_groups(folder.example_groups)],
    }


def refusals(readers):
    """Return what the readers refuse, each in one line; any other exception is a bug."""
    refused = []
    for read in readers:
        try:
            read()
        except UserError as error:
            refused.append(str(error))
    return refused


def fuzz(originals, folder, count, *, reports, seed):
    """Read `count` changed files of a workdir, and make its report of some of them, which takes longer than the rest.

    Returns:
      By file, how often it was refused.
    """
    draw, workdir = random.Random(seed), Workdir(folder / "run")
    for name, text in originals.items():
        (workdir.path / name).parent.mkdir(parents=True, exist_ok=True)
        (workdir.path / name).write_text(text)
    readers, names = readers_of(workdir, workdir.read_config()), list(originals)
    named = dict.fromkeys(originals, 0)
    for number in range(count):
        name = names[number * len(names) // count]  # One file after the other: to restore one takes time.
        path = workdir.path / name
        path.write_text(changed(name, originals[name], draw), encoding="utf-8", errors="surrogateescape")
        report = [lambda: write_report(workdir.path)] * (number % (count // reports) == 0)
        try:
            refused = refusals([*readers[path.name], *report])
        except Exception as error:
            shutil.copy(path, folder / "found")
            raise AssertionError(f"seed {seed}: {name} gives {error!r}; see {folder / 'found'}") from error
        named[name] += any(str(path) in line for line in refused)
        assert all(len(line) < 20_000 for line in refused)
        if number + 1 == count or names[(number + 1) * len(names) // count] != name:
            path.write_text(originals[name])
    return named


def test_2000_changed_files_of_a_workdir_are_read_or_named(originals, tmp_path):
    named = fuzz(originals, tmp_path, 2000, reports=9, seed=0)
    assert min(named.values()) > 0, "every file was refused at least once"


def test_500_changed_records_of_a_model_are_read_or_named(trained, tmp_path):
    tensors, metadata = read_safetensors(trained / "model.safetensors")
    tensors = {name: np.array(tensor) for name, tensor in tensors.items() if name.startswith(PREFIX)}
    path, draw, refused = tmp_path / "model.safetensors", random.Random(0), 0
    for _ in range(500):
        record = {RUN_KEY: changed("run", metadata[RUN_KEY], draw)}
        write_safetensors(path, tensors, WeightsInfo("convnext_atto", 3), record)
        said = refusals([lambda: read_model_record(path)])
        assert all(str(path) in line for line in said)
        refused += len(said)
        if not said:
            record = read_model_record(path)
            assert len(record.config.data.class_names) == record.config.model.num_classes
            assert record.view is None or View(**record.view)
            assert record.calibration is None or record.calibration.temperature > 0
    assert 100 < refused < 500


@pytest.mark.fuzz
@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", range(1, 11))
def test_200_000_changed_files_of_a_workdir_are_read_or_named(originals, tmp_path, seed):
    fuzz(originals, tmp_path, 20_000, reports=200, seed=seed)
