"""What a server refuses: too much at a time, bombs, stalls; and nothing that is sent reaches the disk."""

import contextlib
import io
import re
import socket
import struct
import sys
import threading
import time
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax.serve import connection as connections
from bloodcell_jax.serve.limits import Admission, Limits, Refusal

MEBIBYTE = 2**20


def test_an_upload_that_is_too_large_is_refused_before_it_is_read(limited):
    server = limited(upload_bytes=1000, stall_seconds=60)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: image/png\r\n"
        connection.sendall(f"{head}Content-Length: 1001\r\n\r\n".encode())
        assert b" 413 " in connection.makefile("rb").readline()


def test_a_body_without_its_length_is_refused(server):
    reply = server.post("/predict", data=iter([b"abc"]), headers={"Content-Type": "image/png"})
    assert reply.status_code == 411


def test_more_images_than_a_request_may_have_are_refused(limited, pixels, png, zipped):
    server = limited(images=3, waiting=3)
    files = [(f"{number}.png", png(image)) for number, image in enumerate(pixels[:4])]
    assert server.post("/predict", *files[:3]).status_code == 200
    for reply in (server.post("/predict", *files), server.post("/predict", ("a.zip", zipped(dict(files))))):
        assert reply.status_code == 413
        assert "3" in reply.json()["error"]


def test_a_zip_of_countless_entries_is_refused_before_it_is_listed(limited, zipped):
    server = limited(images=3, waiting=3)
    reply = server.post("/predict", ("a.zip", zipped({f"{number}/": b"" for number in range(13)})))
    assert reply.status_code == 413
    assert "entries" in reply.json()["error"]


def test_a_zip_that_unpacks_to_too_much_is_refused(limited, zipped):
    server = limited(upload_bytes=MEBIBYTE)
    bomb = {f"{number}.png": bytes(9 * MEBIBYTE) for number in range(2)}
    content = zipped(bomb, zipfile.ZIP_DEFLATED)
    assert len(content) < MEBIBYTE / 10
    reply = server.post("/predict", ("a.zip", content))
    assert reply.status_code == 413
    assert "unpack" in reply.json()["error"]
    # Several zips of one request count together.
    one = zipped({"0.png": bytes(9 * MEBIBYTE)}, zipfile.ZIP_DEFLATED)
    assert server.post("/predict", ("a.zip", one), ("b.zip", one)).status_code == 413


def test_a_zip_whose_entries_overlap_is_refused(server, zipped, pixels, png):
    content = bytearray(zipped({"0.png": png(pixels[0]), "1.png": png(pixels[1])}))
    second = content.rindex(b"PK\x01\x02")
    struct.pack_into("<I", content, second + 42, 0)  # The second entry begins where the first one does.
    reply = server.post("/predict", ("a.zip", bytes(content)))
    assert reply.status_code == 422
    assert "overlap" in reply.json()["error"]


def test_an_image_of_too_many_pixels_is_not_decoded(server):
    side = 12_000
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks:
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    reply = server.post("/predict", ("bomb.png", content))
    assert reply.status_code == 422
    # The second one is Pillow's, whose warning is an error in tests.
    assert re.search("12,000 x 12,000|144000000", reply.json()["error"])


def test_a_full_queue_answers_429_and_takes_images_again_later(limited, pixels, png, eventually):
    server = limited(images=4, waiting=4)
    files = [(f"{number}.png", png(image)) for number, image in enumerate(pixels[:3])]
    replies = []
    with server.busy():
        waiting = threading.Thread(target=lambda: replies.append(server.post("/predict", *files)))
        waiting.start()
        eventually(lambda: server.get("/health").json()["waiting"] == 3)
        refused = server.post("/predict", *files[:2])
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert "3" in refused.json()["error"]
    waiting.join(60)
    assert replies[0].status_code == 200
    assert server.post("/predict", *files).status_code == 200
    assert server.get("/health").json()["waiting"] == 0


def test_the_bytes_of_all_uploads_are_bounded():
    admission = Admission(Limits(upload_bytes=100))
    with admission.upload(100), admission.upload(60):
        with pytest.raises(Refusal) as refused, admission.upload(41):
            pass
        assert refused.value.status == 429
    with admission.upload(100), admission.upload(100):
        pass


def test_a_client_that_goes_away_leaves_nothing_behind(server, pixels, png, eventually):
    body = png(pixels[0])
    head = f"POST /predict HTTP/1.1\r\nHost: localhost:{server.port}\r\nContent-Type: image/png\r\n"
    with server.busy():
        for accept in ("", "Accept: application/x-ndjson\r\n"):
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
            connection.sendall(f"{head}{accept}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            eventually(lambda: server.get("/health").json()["waiting"] == 1)
            connection.close()
            eventually(lambda: server.get("/health").json()["waiting"] == 0)
    assert server.post("/predict", ("a.png", body)).status_code == 200


def test_an_upload_that_stalls_is_ended(limited):
    server = limited(stall_seconds=0.2)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: localhost:{server.port}\r\nContent-Type: image/png\r\n"
        connection.sendall(f"{head}Content-Length: 100\r\n\r\nabc".encode())
        assert b" 408 " in connection.makefile("rb").readline()


def test_a_client_that_sends_a_byte_now_and_then_keeps_no_place(limited):
    """Each byte comes long before a pause would end the upload, which has 0.2 s and 100 bytes at 1,000 a second."""
    server = limited(stall_seconds=0.2, slowest_upload=1_000)
    begun, sent = time.monotonic(), 0
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: localhost:{server.port}\r\nContent-Type: image/png\r\n"
        connection.sendall(f"{head}Content-Length: 100\r\n\r\n".encode())
        connection.settimeout(0.02)
        reply = b""
        while not reply:
            assert time.monotonic() < begun + 30
            connection.sendall(b"x")
            sent += 1
            with contextlib.suppress(TimeoutError):
                reply = connection.recv(1_000)
    assert b" 408 " in reply
    assert time.monotonic() - begun >= 0.3
    assert sent < 100


@pytest.mark.parametrize("begun", ["GET /health HTTP/1.1\r\nX: ", "refused"])
def test_a_connection_on_which_no_request_begins_is_closed(begun, limited, monkeypatch):
    """A head that never ends, or bytes of a body behind its refusal, which uvicorn would read for good."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    server = limited(upload_bytes=100)
    if begun == "refused":
        head = f"POST /predict HTTP/1.1\r\nHost: localhost:{server.port}\r\nContent-Type: image/png\r\n"
        begun = f"{head}Content-Length: 100000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(begun.encode())
        connection.settimeout(0.02)
        start, closed = time.monotonic(), False
        while not closed:
            assert time.monotonic() < start + 30
            try:
                connection.sendall(b"x")
                closed = connection.recv(1_000) == b""
            except TimeoutError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                closed = True
    assert server.get("/health").status_code == 200


def test_an_upload_of_a_slow_line_is_taken(limited, pixels, png):
    """It takes longer than a pause may, and no longer than its size allows."""
    server = limited(stall_seconds=2, slowest_upload=100)
    body = png(pixels[0])
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: localhost:{server.port}\r\nContent-Type: image/png\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        for part in np.array_split(np.frombuffer(body, np.uint8), 6):
            time.sleep(0.4)
            connection.sendall(part.tobytes())
        assert b" 200 " in connection.makefile("rb").readline()


def test_nothing_is_asked_of_a_model_that_is_being_compiled(limited, pixels, png):
    server = limited()
    server.api.is_ready = False
    assert (server.get("/health").status_code, server.get("/health").json()["status"]) == (503, "starting")
    reply = server.post("/predict", ("a.png", png(pixels[0])))
    assert reply.status_code == 503
    assert reply.headers["Retry-After"]


_opened, _watching = [], threading.Event()


def _watch(event, arguments):
    if event == "open" and _watching.is_set():
        _opened.append(arguments[0])


def test_a_request_opens_no_file(server, pixels, png, zipped):
    sys.addaudithook(_watch)
    noise = io.BytesIO()
    Image.effect_noise((2000, 2000), 90).convert("RGB").save(noise, "png")  # Above what others spool to a disk.
    assert len(noise.getvalue()) > 2 * MEBIBYTE
    requests = [
        lambda: server.post("/predict?details=true", ("large.png", noise.getvalue()), ("b.png", png(pixels[0]))),
        lambda: server.post("/predict", ("a.zip", zipped({"c/1.png": png(pixels[0])}))),
        lambda: server.post("/explain", ("a.png", png(pixels[0]))),
        lambda: server.get("/"),
        lambda: server.get("/page.js"),
    ]
    for ask in requests:  # What is imported late is imported now.
        assert ask().status_code == 200
    _watching.set()
    try:
        for ask in requests:
            assert ask().status_code == 200
    finally:
        _watching.clear()
    assert [path for path in _opened if not str(path).startswith(("/proc/", "/sys/"))] == []
