"""A file is downloaded once, an interrupted download continues, and hashes are checked; the server is local."""

import hashlib
import http.server
import threading

import pytest

from bloodcell_jax.download import CHUNK_BYTES, FOLDER_VARIABLES, download
from bloodcell_jax.errors import DataError

CONTENT = bytes(range(256)) * 20_000
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT. The first `breaks` answers break off half-way. If `status` is set, it is the answer."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.breaks, self.status, self.ranges = 0, None, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/weights.pth"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if server.status or start > len(CONTENT):
            self.send_error(server.status or 416)
            return
        body = CONTENT[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.breaks:
            server.breaks -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLES["weights"], str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda _: None)
    return tmp_path


@pytest.mark.parametrize("known_hash", [SHA256, SHA256[:15], MD5, ""])
def test_a_file_is_downloaded_once(server, cache, known_hash):
    for _ in range(2):
        path = download("name", server.url, "file.pth", known_hash, kind="weights")
        assert path == cache / "file.pth"
        assert path.read_bytes() == CONTENT
    assert server.ranges == [None]
    assert [path.name for path in cache.iterdir()] == ["file.pth"]


def test_a_broken_download_goes_on_where_it_broke_off(server, cache):
    server.breaks = 2
    assert download("name", server.url, "file.pth", SHA256, kind="weights").read_bytes() == CONTENT
    starts = [int(wanted[6:-1]) for wanted in server.ranges[1:]]
    assert server.ranges[0] is None
    # Each received chunk goes to the disk, so at most one chunk is requested twice.
    assert 0 <= len(CONTENT) // 2 - starts[0] < CHUNK_BYTES
    assert starts[0] < starts[1] < len(CONTENT)


def test_an_unfinished_download_of_an_earlier_run_is_finished(server, cache):
    (cache / "file.pth.part").write_bytes(CONTENT[:1000])
    assert download("name", server.url, "file.pth", SHA256, kind="weights").read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-"]


def test_an_unfinished_download_that_is_too_long_is_dropped(server, cache):
    (cache / "file.pth.part").write_bytes(CONTENT + b"more")
    assert download("name", server.url, "file.pth", SHA256, kind="weights").read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT) + 4}-", None]


@pytest.mark.parametrize("known_hash", ["sha256:" + "0" * 64, "sha256:" + "0" * 8, "md5:" + "0" * 32])
def test_another_content_is_refused_and_not_kept(server, cache, known_hash):
    with pytest.raises(DataError, match=r"^name: ") as error:
        download("name", server.url, "file.pth", known_hash, kind="weights")
    algorithm, _, digits = known_hash.partition(":")
    for word in (algorithm, digits[:8], server.url, f" {cache / 'file.pth'}"):
        assert word in str(error.value)
    assert not list(cache.iterdir())


def test_a_server_without_the_file_is_said(server, cache):
    server.status = 404
    with pytest.raises(DataError, match=r"^name: .*\(404"):
        download("name", server.url, "file.pth", SHA256, kind="weights")


def test_offline_the_error_says_where_to_put_the_file(server, cache):
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError) as error:
        download("convnext_tiny.fb_in1k", server.url, "file.pth", SHA256, kind="weights")
    said = str(error.value)
    assert said.startswith("convnext_tiny.fb_in1k: ")
    for word in ("network", server.url, f" {cache / 'file.pth'}"):
        assert word in said
    assert len(said.splitlines()) == 1


def test_a_file_put_there_by_hand_is_used(server, cache):
    (cache / "file.pth").write_bytes(CONTENT)
    assert download("name", server.url, "file.pth", SHA256, kind="weights") == cache / "file.pth"
    assert server.ranges == []
