"""A run writes and deletes its own files in a workdir, and nobody else's."""

import contextlib

import pytest

from bloodcell_jax.config import Config, to_dict
from bloodcell_jax.errors import MachineError, UsageError
from bloodcell_jax.run.tracking.tensorboard import TensorBoardFile
from bloodcell_jax.whole_files import replacing
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.json_files import write_json
from bloodcell_jax.workdir.json_lines import JsonLines
from bloodcell_jax.workdir.own_files import check_own, delete_run, delete_temporaries
from bloodcell_jax.workdir.records import check_metrics_line

FOREIGN = (
    "checkpoints/2024-01-backup/a.bin",
    "checkpoints/2024/a.bin",
    "eval/notes/metrics.json",
    "events.out.tfevents.1700000000.host",
    ".config.json.swp",
    ".metrics.jsonl.backup.tmp",
    "report/figure.png",
    "notes.txt",
)


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")


def names_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def workdir(tmp_path):
    """Return a workdir in which a run wrote a file of each kind."""
    workdir = Workdir(tmp_path / "run")
    with workdir.locked():
        write_json(workdir.config, to_dict(Config()))
        write_json(workdir.tracking, {"mlflow": "0123"})
        with contextlib.closing(JsonLines(workdir.metrics, check_metrics_line, first_step=0)) as log:
            events = TensorBoardFile(workdir.events, 0)
            events.write([log.write({"step": 1, "train/loss": 0.5})])
            events.close(finished=True)
    make(workdir.path, "checkpoints/4/record/metadata", "checkpoints/8.unfinished/a", "checkpoints/2.damaged/a")
    for name in ("test", "val_tta", "val_aug", "all_aug_tta"):
        make(workdir.path, f"eval/{name}/metrics.json")
    make(workdir.path, "report/index.html", ".config.json.0123abcd.tmp", "model.safetensors")
    return workdir


def test_overwrite_deletes_the_files_of_the_run_and_no_other(workdir):
    make(workdir.path, *FOREIGN)
    delete_run(workdir)
    assert names_in(workdir.path) == sorted([".lock", *FOREIGN])


def test_nothing_is_left_of_a_run_that_was_alone(workdir):
    delete_run(workdir)
    assert [path.name for path in workdir.path.iterdir()] == [".lock"]


@pytest.mark.parametrize("name", ["checkpoints", "eval", "eval/test", "report"])
def test_links_are_not_followed(workdir, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    (workdir.path / name).rename(elsewhere)
    (workdir.path / name).symlink_to(elsewhere)
    before = names_in(tmp_path)
    with pytest.raises(UsageError, match=f"{name} is a link"):
        delete_run(workdir)
    assert names_in(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "config.json", "model.safetensors", "report/index.html", "eval/test/predictions.csv"]
)
def test_files_of_others_under_our_names_are_refused(tmp_path, name):
    make(tmp_path, name)
    with pytest.raises(UsageError, match=f"no run of this library wrote its {name}"):
        check_own(Workdir(tmp_path))
    assert (tmp_path / name).read_text() == "mine"


def test_other_files_and_runs_of_earlier_versions_are_accepted(workdir, tmp_path):
    make(tmp_path / "new", *FOREIGN)
    check_own(Workdir(tmp_path / "new"))
    check_own(workdir)
    (workdir.path / ".lock").write_text("")  # as earlier versions left it
    check_own(workdir)
    # A power loss may have taken any file but the mark.
    with workdir.locked():
        workdir.config.write_text("")
    check_own(workdir)


def test_half_written_files_are_tidied_up_and_links_in_their_place_not_written_through(workdir, tmp_path, monkeypatch):
    delete_temporaries(workdir)
    assert not (workdir.path / ".config.json.0123abcd.tmp").exists()
    make(tmp_path, "precious")
    monkeypatch.setattr("secrets.token_hex", lambda _: "0123abcd")
    (workdir.path / ".config.json.0123abcd.tmp").symlink_to(tmp_path / "precious")
    with pytest.raises(MachineError), replacing(workdir.config) as temporary:
        temporary.write_text("ours")
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_lock_that_is_a_link_is_not_written_through(tmp_path):
    make(tmp_path, "precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(MachineError), Workdir(tmp_path / "run").locked():
        pass
    assert (tmp_path / "precious").read_text() == "mine"
