"""What sinks get of a run that is killed: each step once, and nothing that the resumed run does again."""

import importlib.util
import itertools
import os
import runpy
import struct
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from bloodcell_jax.config import Config
from bloodcell_jax.devices.parallel import AXIS, DataParallel
from bloodcell_jax.errors import MachineError, UsageError
from bloodcell_jax.run.create import create_run
from bloodcell_jax.run.tracking.feed import Feed
from bloodcell_jax.run.tracking.sinks import SINKS, SinkKind, check_sinks
from bloodcell_jax.run.tracking.tracked_run import read_tracked_id
from bloodcell_jax.run.tracking.wandb_files import logged_lines
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.json_lines import JsonLines
from bloodcell_jax.workdir.records import check_metrics_line

WITHOUT_TORCH = Path(__file__).parents[1] / "without_torch"


class Place:
    """A server that keeps whatever it is sent, and can be out of reach."""

    def __init__(self):
        self.lines, self.ends, self.refusal = [], [], None

    def open(self, workdir, config, first_step):
        self._answer()
        return self

    def write(self, lines):
        self._answer()
        self.lines += [line for line in lines if line["step"] > max([0, *(line["step"] for line in self.lines)])]

    def close(self, *, finished):
        self.ends.append(finished)

    def _answer(self):
        if self.refusal:
            raise ConnectionError(self.refusal)


@pytest.fixture
def place(monkeypatch):
    place = Place()
    monkeypatch.setitem(SINKS, "place", SinkKind(place.open, advice="set PLACE_URI"))
    return place


@pytest.fixture
def workdir(tmp_path):
    (tmp_path / "run").mkdir()
    return Workdir(tmp_path / "run")


def run_process(workdir, sinks, steps, *, first_step=0, commits=(), dies=False, loss=0.0):
    """Log steps as a process of a run does; one that dies neither commits nor ends what it began."""
    log = JsonLines(workdir.metrics, check_metrics_line, first_step=first_step)
    feed = Feed(workdir, Config(), sinks, first_step)
    feed.__enter__()
    for step in steps:
        feed.write(log.write({"step": step, "stage": "all", "train/loss": loss + 1 / step, "perf/mfu": None}))
        if step in commits:
            feed.commit(step)
    log.close()
    if not dies:
        feed.__exit__(None)
    else:
        for sink in feed._at_once:
            sink.close(finished=False)  # Nothing that was written waits for it.


def test_a_place_that_keeps_everything_has_the_metrics_of_a_run_that_died(
    config_file, place, train_loop, tmp_path, monkeypatch
):
    mesh = Mesh(np.array(jax.devices()[:1]), (AXIS,))
    monkeypatch.setattr("bloodcell_jax.run.create.create_parallel", lambda backend, *_: DataParallel(backend, mesh))
    config = runpy.run_path(str(config_file))["get_config"]()
    config.stages = [config.stages[0]]
    config.stages[0].steps = 12
    config.train.log_every, config.train.evaluate_every, config.train.checkpoint_every = 1, 12, 4
    run, write = create_run(config), Feed.write

    def dying(feed, line):
        write(feed, line)
        if line["step"] == 10:
            raise KeyError("the power")

    monkeypatch.setattr(Feed, "write", dying)
    with pytest.raises(KeyError, match="the power"):
        train_loop(run, tmp_path, ["place"])
    # The checkpoint of step 4 is committed for sure when that of step 8 is begun, and 8 perhaps.
    assert [line["step"] for line in place.lines] == [1, 2, 3, 4]
    assert Workdir(tmp_path).read_metrics()[-1]["step"] == 10
    monkeypatch.setattr(Feed, "write", write)
    train_loop(run, tmp_path, ["place"])
    # Equal with their times, which no step has twice.
    assert place.lines == Workdir(tmp_path).read_metrics()
    assert [line["step"] for line in place.lines] == list(range(1, 13))
    assert "val/f1_macro" in place.lines[-1]
    assert place.ends == [False, True]


def test_a_sink_that_is_named_later_gets_what_was_logged_before(place, workdir):
    run_process(workdir, [], [1, 2, 3])
    run_process(workdir, ["place"], [4, 5], first_step=3, commits=[5])
    assert place.lines == workdir.read_metrics()


def test_a_new_run_is_refused_where_a_sink_is_out_of_reach_without_its_secrets(place, workdir, monkeypatch):
    monkeypatch.setenv("PLACE_API_KEY", "k-12345")
    place.refusal = "https://me:pass@place.org/api?key=k-12345:\nrefused"
    with pytest.raises(MachineError) as refused:
        run_process(workdir, ["place"], [1])
    text = str(refused.value)
    assert "--log_to=place: https://***@place.org/api?key=***: refused; set PLACE_URI" in text
    assert "pass" not in text
    assert "12345" not in text


def test_a_run_goes_on_while_a_sink_is_out_of_reach_and_sends_what_is_missing(place, workdir, caplog):
    run_process(workdir, ["place"], [1, 2], commits=[2], dies=True)
    place.refusal = "refused"
    run_process(workdir, ["place"], [3, 4, 5], first_step=2, commits=[3, 4, 5])
    first, last = (record.getMessage() for record in caplog.records)
    assert "--log_to=place: refused" in first
    assert "lacks 5 lines" in last
    place.refusal = None
    run_process(workdir, ["place"], [6], first_step=5, commits=[6])
    assert place.lines == workdir.read_metrics()


def records_of(path):
    """Yield the records of a file of TensorBoard events: a length, its checksum, the record, its checksum."""
    data, start = path.read_bytes(), 0
    while start < len(data):
        (size,) = struct.unpack_from("<Q", data, start)
        yield data[start + 12 : start + 12 + size]
        start += size + 16


def shown_by_tensorboard(workdir):
    """Return the loss by step as TensorBoard shows it: a start of a session hides what was at its step and later."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    shown = {}
    for path in sorted(workdir.path.glob("events.*"), key=lambda path: path.stat().st_mtime_ns):
        for event in map(Event.FromString, records_of(path)):
            if event.session_log.status == SessionLog.START:
                shown = {step: loss for step, loss in shown.items() if step < event.step}
            for value in event.summary.value:
                if value.tag == "train/loss":
                    shown.setdefault(event.step, []).append(round(value.simple_value, 4))
    return shown


def test_tensorboard_has_each_line_at_once_and_hides_those_that_are_repeated(workdir, monkeypatch):
    seconds = itertools.count(1_700_000_000)
    monkeypatch.setattr("time.time", lambda: next(seconds))  # TensorBoard's names of files have whole seconds.
    run_process(workdir, ["tensorboard"], [1, 2, 4, 5], dies=True)
    assert shown_by_tensorboard(workdir) == {1: [1.0], 2: [0.5], 4: [0.25], 5: [0.2]}
    run_process(workdir, ["tensorboard"], [3, 4], first_step=2, loss=1.0)
    assert shown_by_tensorboard(workdir) == {1: [1.0], 2: [0.5], 3: [1.3333], 4: [1.25]}
    run_process(workdir, ["tensorboard"], [], first_step=4)
    assert len(list(workdir.path.glob("events.*"))) == 2


def test_what_cannot_be_logged_to_is_refused_by_its_name():
    with pytest.raises(UsageError, match=r"--log_to=neptune: .*tensorboard, wandb, mlflow"):
        check_sinks(["tensorboard", "neptune"])
    for name in ("wandb", "mlflow"):
        if importlib.util.find_spec(name) is None:
            with pytest.raises(UsageError, match=rf"--log_to={name}: .*bloodcell_jax\[{name}\]"):
                check_sinks([name])


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    """Return MLflow with a store of files."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlflow'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "cells")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return pytest.importorskip("mlflow", reason="needs the extra [mlflow]")


@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_each_value_once_where_a_request_was_cut_short(workdir, mlflow):
    run_process(workdir, ["mlflow"], [1, 2, 3], commits=[2], dies=True)
    client, run_id = mlflow.MlflowClient(), read_tracked_id(workdir, "mlflow")
    client.log_metric(run_id, "train/loss", 1 / 3, step=3)  # A request that the kill cut short.
    run_process(workdir, ["mlflow"], [4], first_step=3, dies=True)
    run_process(workdir, ["mlflow"], [4, 5], first_step=3, commits=[5])
    history = client.get_metric_history(run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(step, 1 / step) for step in range(1, 6)]
    (experiment,) = client.search_experiments(filter_string="name = 'cells'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params["stages.0.optimizer.learning_rate"] == str(Config().stages[0].optimizer.learning_rate)


def wandb_losses(workdir):
    """Return the step and the loss of each line that the files of W&B hold."""
    lines = logged_lines(workdir.path / "wandb", read_tracked_id(workdir, "wandb"))
    return [(line["_step"], line["train/loss"]) for line in lines]


def wait_for_wandb(workdir, step):
    """Wait for W&B's own process, which writes its files after `finish` returns, into folders named by the second."""
    time.sleep(1.1)
    for _ in range(100):
        if any(logged == step for logged, _ in wandb_losses(workdir)):
            return
        time.sleep(0.1)


@pytest.fixture
def wandb(monkeypatch):
    """Return W&B without its server."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_SERVICE", raising=False)  # A process of W&B's, which children would share.
    return pytest.importorskip("wandb", reason="needs the extra [wandb]")


@pytest.mark.filterwarnings("ignore")
def test_files_of_wandb_have_each_step_once(workdir, wandb, capfd):
    run_process(workdir, ["wandb"], [1, 2, 3], commits=[2])
    wait_for_wandb(workdir, 2)
    run_process(workdir, ["wandb"], [4, 5], first_step=3, commits=[5])
    wait_for_wandb(workdir, 5)
    assert wandb_losses(workdir) == [(step, 1 / step) for step in range(1, 6)]
    assert "wandb" not in "".join(capfd.readouterr())


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore")
def test_trackers_have_each_step_of_a_process_that_is_killed_once(start, tmp_path, mlflow, wandb):
    workdir, python_path = Workdir(tmp_path / "run"), f"{WITHOUT_TORCH}:{os.environ.get('PYTHONPATH', '')}"
    command = {"env": {"PYTHONPATH": python_path}}
    for step in (10, 26):
        process = start(workdir.path, "--log_to=mlflow,wandb", **command)
        while max([0, *(line["step"] for line in workdir.read_metrics())]) < step:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        process.kill()
        process.communicate()
    process = start(workdir.path, "--log_to=mlflow,wandb", **command)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "wandb" not in errors
    losses = [(line["step"], line["train/loss"]) for line in workdir.read_metrics()]
    assert [step for step, _ in losses] == list(range(2, 37, 2))
    run_id = read_tracked_id(workdir, "mlflow")
    for name in ("train/loss", "perf/images_per_second"):
        history = mlflow.MlflowClient().get_metric_history(run_id, name)
        assert [(metric.step, metric.value) for metric in history] == [
            (line["step"], line[name]) for line in workdir.read_metrics()
        ]
    assert wandb_losses(workdir) == losses
