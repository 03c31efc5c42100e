"""A server in a thread of the tests, asked over HTTP, with the tiny run that all tests share."""

import contextlib
import io
import threading
import time
import zipfile
from dataclasses import dataclass, field

import numpy as np
import pytest
import requests
from PIL import Image

import bloodcell_jax as bc
from bloodcell_jax.serve.api import Api
from bloodcell_jax.serve.limits import Limits
from bloodcell_jax.serve.served_model import ServedModel
from bloodcell_jax.serve.server import HttpServer, open_listener

HOST = "127.0.0.1"


@dataclass
class Running:
    """A server that runs: its model, its port, and the requests of a client."""

    served: ServedModel
    api: Api
    port: int
    client: requests.Session = field(default_factory=requests.Session)

    @property
    def address(self):
        return f"http://{HOST}:{self.port}"

    def get(self, path, **options):
        return self.client.get(self.address + path, timeout=60, **options)

    def post(self, path, *files, **options):
        """Send files, each (name, content), as a form."""
        form = [("image", file) for file in files]
        return self.client.post(self.address + path, files=form or None, timeout=60, **options)

    @contextlib.contextmanager
    def busy(self):
        """Keep the model busy, so that images wait."""
        release, begun = threading.Event(), threading.Event()
        task = self.served.worker.run(lambda: (begun.set(), release.wait(60)))
        assert begun.wait(60)
        try:
            yield
        finally:
            release.set()
            task.result(60)


@contextlib.contextmanager
def running(served, limits=None):
    """Run an HTTP server of a model in a thread."""
    api = Api(served, limits or Limits())
    server, is_ready = HttpServer(api, HOST), threading.Event()
    with open_listener(HOST, 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started and thread.is_alive():
            is_ready.wait(0.01)
        api.is_ready = True
        this = Running(served, api, listener.getsockname()[1])
        try:
            yield this
        finally:
            this.client.close()
            server.end()
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture(scope="session")
def served(trained):
    """Return a compiled model with its threads."""
    served = ServedModel(bc.Classifier.from_workdir(trained))
    served.worker.prepare().result(300)
    yield served
    assert served.close(30)


@pytest.fixture(scope="module")
def server(served):
    """Return a running server with the usual limits."""
    with running(served) as this:
        yield this


@pytest.fixture
def limited(served):
    """Return a function that runs one more server of the same model, with other limits."""
    with contextlib.ExitStack() as servers:
        yield lambda **limits: servers.enter_context(running(served, Limits(**limits)))


@pytest.fixture(scope="session")
def pixels(cells):
    """Return images of the run, uint8 [120, 32, 32, 3]."""
    with np.load(cells) as arrays:
        return arrays["images"]


@pytest.fixture(scope="session")
def png():
    """Return what makes the content of a PNG of an image."""

    def png(array):
        content = io.BytesIO()
        Image.fromarray(array).save(content, "png")
        return content.getvalue()

    return png


@pytest.fixture(scope="session")
def zipped():
    """Return what makes a zip of {name: content}."""

    def zipped(files, compression=zipfile.ZIP_STORED):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", compression) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return content.getvalue()

    return zipped


@pytest.fixture(scope="session")
def eventually():
    """Return what waits until a condition holds."""

    def eventually(condition, seconds=30):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    return eventually
