"""The verb `serve`: from the command to the end by a signal, and what it refuses at once."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

import bloodcell_jax as bc
from bloodcell_jax import cli
from bloodcell_jax.errors import DataError
from bloodcell_jax.serve.limits import Limits
from bloodcell_jax.serve.server import open_listener, serve

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def start_server(trained, one_device):
    """Return a function that starts the verb: the process, and its address once it says so."""
    processes = []

    def start_server(*flags):
        command = [sys.executable, "launch.py", "serve", f"--workdir={trained}", "--port=0", *flags]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | one_device, **pipes)
        processes.append(process)
        line = process.stdout.readline()
        found = re.match(r"(http://127\.0\.0\.1:\d+) ", line)
        assert found, line + process.stderr.read()
        return process, found[1]

    yield start_server
    for process in processes:
        process.kill()
        process.communicate()


def test_a_server_says_when_it_is_ready_answers_and_ends_on_a_signal(start_server, pixels, png):
    process, address = start_server()
    assert requests.get(f"{address}/health", timeout=60).json()["status"] in ("starting", "ready")
    assert process.stdout.readline() == f"ready: open {address} in a browser\n"
    assert requests.get(f"{address}/health", timeout=60).json()["status"] == "ready"
    reply = requests.post(f"{address}/predict", files={"image": ("a.png", png(pixels[0]))}, timeout=60)
    assert reply.json()["images"][0]["file"] == "a.png"
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, "images answered: 1" in output) == (0, True), output + errors
    assert "Traceback" not in errors


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_server_that_compiles(start_server, number):
    process, _ = start_server()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def test_a_model_without_meaning_ends_the_server(trained, monkeypatch):
    def answer(classifier, batches):
        raise DataError("not finite")

    monkeypatch.setattr(bc.Classifier, "answers_as_they_come", answer)
    lines = []
    with open_listener("127.0.0.1", 0) as listener, pytest.raises(DataError, match="not finite"):
        serve(bc.Classifier.from_workdir(trained), listener, "127.0.0.1", Limits(), lines.append)
    assert len(lines) == 1, "it never says that it is ready"


def test_a_port_in_use_is_refused_before_the_model_is_loaded(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert cli.main(["bloodcell", "serve", f"--workdir={tmp_path / 'none'}", f"--port={port}"]) == 5
    assert f"--port={port}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "code", "named"),
    [
        (("--host=no.such.host.invalid",), 2, "--host=no.such.host.invalid"),
        (("--host=192.0.2.1",), 2, "--host=192.0.2.1"),
        (("--max_waiting=3", "--max_images=4"), 2, "--max_waiting=3"),
        (("--max_images=0",), 2, "max_images"),
        (("--port=70000",), 2, "port"),
        ((), 3, "none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_prints_one_line(tmp_path, capsys, flags, code, named):
    flags = ("--port=0", *flags) if not any(flag.startswith("--port") for flag in flags) else flags
    assert cli.main(["bloodcell", "serve", f"--workdir={tmp_path / 'none'}", *flags]) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert named in lines[0]
