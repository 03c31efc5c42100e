"""`train --profile_steps` leaves a trace of those steps, which --overwrite takes away with the run."""

import gzip
import json

import pytest

from bloodcell_jax import cli
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.own_files import delete_run


def test_a_trace_of_the_steps_asked_for(start, tmp_path):
    workdir = tmp_path / "run"
    process = start(workdir, "--profile_steps=2:4")
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("bloodcell: profile:"):
            break
    process.kill()
    process.communicate()
    assert lines[-1].startswith(f"bloodcell: profile: {workdir / 'profile'}; look at it by"), lines
    [trace] = (workdir / "profile").rglob("*.trace.json.gz")
    [_] = (workdir / "profile").rglob("*.xplane.pb")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert [event["args"]["step_num"] for event in events if event.get("name") == "train_step"] == ["2", "3"]

    (workdir / "profile" / "notes.txt").write_text("mine")
    delete_run(Workdir(workdir))
    assert [path.name for path in (workdir / "profile").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("value", ["5", "a:b", "4:4", "9:3", "-1:4"])
def test_what_is_no_range(value, tmp_path, capsys):
    assert (
        cli.main(["bloodcell", "train", "--config=quickstart", f"--workdir={tmp_path}", f"--profile_steps={value}"])
        == 2
    )
    assert capsys.readouterr().err == (
        f"bloodcell: --profile_steps={value}: give FIRST:END, two step numbers, the first one lower\n"
    )


def test_a_range_past_the_end(config_file, tmp_path, capsys):
    command = [
        "bloodcell",
        "train",
        f"--config={config_file}",
        f"--workdir={tmp_path / 'run'}",
        "--profile_steps=30:40",
    ]
    assert cli.main(command) == 2
    assert "--profile_steps=30:40: the run has 36 steps" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
