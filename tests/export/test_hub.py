"""Models go to the Hugging Face hub and come back, by its real client and a local stand-in of its HTTP API."""

import base64
import hashlib
import http.server
import json
import threading
from dataclasses import replace

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import bloodcell_jax as bc
from bloodcell_jax import cli
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.export.hub_repository import head, without_folders
from bloodcell_jax.export.trained_model import trained_model
from bloodcell_jax.weights.hub import hub_file
from bloodcell_jax.weights.model_file import read_model_file

hub = pytest.importorskip("huggingface_hub", reason="needs the extra [hub]")

TOKEN = "hf_secretsecretsecret"


class Hub(http.server.ThreadingHTTPServer):
    """What the hub does with one account, `ann`: repositories, each a list of commits of whole files."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Request)
        self.repositories = {}
        self.private = {}

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def files(self, repository, revision):
        commits = self.repositories[repository]
        return commits[-1] if revision == "main" else next((c for c in commits if c["commit"] == revision), None)


class Request(http.server.BaseHTTPRequestHandler):
    """Answers as the hub's documentation says (huggingface.co/docs/hub/api)."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):
        pass

    def answer(self, status, content=b"", headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def answer_json(self, values, status=200):
        self.answer(status, json.dumps(values).encode(), {"Content-Type": "application/json"})

    @property
    def is_ann(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def do_GET(self):
        if self.path == "/api/whoami-v2":
            return self.answer_json({"name": "ann"}) if self.is_ann else self.answer_json({"error": "no"}, 401)
        if self.path.startswith("/api/"):  # What the client asks beside: is there such a repository, is it up to date.
            return self.answer(404, headers={"X-Error-Code": "RepoNotFound"})
        owner, name, _, revision, file = self.path[1:].split("/")
        repository = f"{owner}/{name}"
        if repository not in self.server.repositories or (self.server.private[repository] and not self.is_ann):
            return self.answer(401, headers={"X-Error-Code": "RepoNotFound"})
        files = self.server.files(repository, revision)
        if files is None:
            return self.answer(404, headers={"X-Error-Code": "RevisionNotFound"})
        if file not in files:
            return self.answer(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": files["commit"]})
        digest = hashlib.sha256(files[file]).hexdigest()
        return self.answer(200, files[file], {"ETag": f'"{digest}"', "X-Repo-Commit": files["commit"]})

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/validate-yaml":
            return self.answer_json({"errors": [], "warnings": []})
        if not self.is_ann:
            return self.answer_json({"error": "no"}, 401)
        if self.path == "/api/repos/create":
            return self.create(json.loads(body))
        _, _, _, owner, name, verb, *_ = self.path.split("/")
        if verb == "preupload":
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in files]
            return self.answer_json({"files": modes})
        return self.commit(f"{owner}/{name}", [json.loads(line) for line in body.splitlines()])

    def create(self, asked):
        repository = f"{asked.get('organization') or 'ann'}/{asked['name']}"
        if not repository.startswith("ann/"):
            return self.answer_json({"error": "not yours"}, 403)
        url = {"url": f"{self.server.address}/{repository}"}
        if repository in self.server.repositories:
            return self.answer_json(url, 409)
        self.server.repositories[repository] = []
        self.server.private[repository] = asked.get("private") or asked.get("visibility") == "private"
        return self.answer_json(url)

    def commit(self, repository, lines):
        files = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
        }
        commits = self.server.repositories[repository]
        files["commit"] = hashlib.sha1(str(len(commits)).encode()).hexdigest()
        commits.append(files)
        self.answer_json({"commitUrl": f"{self.server.address}/{repository}", "commitOid": files["commit"]})


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Return the stand-in that the client talks to, as user ann; HF_ENDPOINT is read at the client's import alone."""
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        for name, value in {
            "ENDPOINT": server.address,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_ETAG_TIMEOUT": 5,
        }.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        hub_file.cache_clear()
        yield server
        hub_file.cache_clear()
        server.shutdown()
        thread.join()


@pytest.fixture
def model(model_file):
    return model_file("test_convnext2")


def push(model, repo):
    return cli.main(["bloodcell", "push", f"--model={model}", f"--repo={repo}"])


def test_a_pushed_model_comes_back(server, model, capfd):
    assert push(model, "ann/cells") == 0
    said = capfd.readouterr()
    assert f"{server.address}/ann/cells" in said.out
    assert server.private["ann/cells"]
    (files,) = server.repositories["ann/cells"]
    assert files.keys() == {"model.safetensors", "config.json", "README.md", "LICENSE.txt", "commit"}
    assert json.loads(files["config.json"])["class_names"] == ["band", "blast", "a|b"]
    assert "hf:ann/cells" in files["README.md"].decode()
    assert not any(TOKEN in text for text in (said.out, said.err, *map(str, files.values())))

    classifier = bc.Classifier.from_pretrained("hf:ann/cells")
    expected, record = read_model_file(model)
    assert classifier.class_names == record.config.data.class_names
    np.testing.assert_array_equal(classifier.calibration.reference.features, record.calibration.reference.features)
    loaded = bc.load_weights(f"hf:ann/cells@{files['commit']}", bc.create_model("test_convnext2", num_classes=3))
    for found in (classifier.params, loaded):
        leaves = flatten_dict(found, sep="/")
        for name, leaf in flatten_dict(expected, sep="/").items():
            np.testing.assert_array_equal(leaves[name], leaf)


def test_a_second_push_is_a_second_commit_and_a_process_keeps_to_the_first(server, model):
    assert push(model, "ann/cells") == 0
    first = hub_file("hf:ann/cells")
    assert push(model, "ann/cells") == 0
    commits = [files["commit"] for files in server.repositories["ann/cells"]]
    assert hub_file("hf:ann/cells") == first
    assert [hub_file(f"hf:ann/cells@{commit}").parent.name for commit in commits] == commits
    assert first.parent.name == commits[0]


def test_a_model_that_was_downloaded_is_found_offline(server, model, monkeypatch):
    assert push(model, "ann/cells") == 0
    path = hub_file("hf:ann/cells")
    hub_file.cache_clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert hub_file("hf:ann/cells") == path
    with pytest.raises(DataError, match="cannot be reached; download model"):
        hub_file("hf:ann/other")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hf:ann/absent", "no such repository, or a private one"),
        ("hf:ann/cells@v9", "no such revision"),
        ("hf:ann/empty", "no model.safetensors"),
    ],
)
def test_what_is_not_there_is_said(server, name, words):
    server.repositories |= {"ann/cells": [{"commit": "0" * 40}], "ann/empty": [{"commit": "1" * 40}]}
    server.private |= {"ann/cells": False, "ann/empty": False}
    with pytest.raises(DataError, match=words):
        hub_file(name)


@pytest.mark.parametrize(
    "name", ["hf:cells", "hf:ann/cells/more", "hf:../cells", "hf:ann/cells@", "hf:ann/cells@../v1"]
)
def test_what_is_no_name_of_a_repository_is_refused(name):
    with pytest.raises(UsageError, match="OWNER/NAME"):
        bc.Classifier.from_pretrained(name)


def test_a_private_repository_is_not_for_everybody(server, model, monkeypatch):
    assert push(model, "ann/cells") == 0
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(DataError, match="private"):
        hub_file("hf:ann/cells")


def test_push_says_what_is_wrong_before_it_loads_a_model(server, monkeypatch, capfd):
    def said(repo):
        code = push("absent.safetensors", repo)
        return code, capfd.readouterr().err

    assert said("cells") == (2, "bloodcell: --repo=cells: not the name of a repository; write OWNER/NAME\n")
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    code, line = said("ann/cells")
    assert (code, "HF_TOKEN" in line, "hf_another" in line) == (2, True, False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    code, line = said("ann/cells")
    assert (code, "cannot be reached" in line, line.count("\n")) == (3, True, 1)


def test_another_owner_refuses(server, model, capfd):
    assert push(model, "bob/cells") == 2
    assert "--repo=bob/cells: your token does not allow this" in capfd.readouterr().err


def test_the_head_of_a_card_is_yaml_that_the_hub_reads(model):
    yaml = pytest.importorskip("yaml")
    trained = trained_model(bc.Classifier.from_file(model))
    heads = {}
    for licence in ("CC-BY-NC-4.0", "", "DINOv3 License"):
        named = replace(trained, info=replace(trained.info, licence=licence))
        heads[licence] = yaml.safe_load(head(named).split("---")[1])
    assert [found["license"] for found in heads.values()] == ["cc-by-nc-4.0", "unknown", "other"]
    assert heads["DINOv3 License"]["license_name"] == "DINOv3 License"
    assert heads[""]["library_name"] == "bloodcell_jax"
    assert heads[""]["pipeline_tag"] == "image-classification"


def test_folders_of_this_machine_stay_here():
    assert without_folders("trained on zip:/home/ann/b c/cells.zip, from trained on folder:../x/lab/") == (
        "trained on zip:cells.zip, from trained on folder:lab/"
    )
    assert without_folders("trained on tfds:cells, from keras/convnext.tiny") == (
        "trained on tfds:cells, from keras/convnext.tiny"
    )
