"""Who may ask a server: its own names and pages alone; and what every response forbids a browser."""

import re

import pytest

from bloodcell_jax.serve.access import HEADERS, is_loopback, names_of


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9", "LOCALHOST", "[::1]:8000", "127.0.0.2"])
def test_this_machine_is_asked_by_its_names(server, host):
    assert server.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.1.7", "", "[", "@localhost"]
)
def test_a_name_that_was_led_here_is_refused(server, host):
    reply = server.get("/health", headers={"Host": host})
    assert reply.status_code in (400, 421), "h11 refuses some itself"
    assert "ready" not in reply.text


def test_a_server_of_a_network_has_its_name_and_any_address():
    assert names_of("lab.example") >= {"lab.example", "localhost"}
    assert not is_loopback("0.0.0.0")
    assert is_loopback("::1")
    assert "0.0.0.0" in names_of("0.0.0.0")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    ],
    ids=lambda headers: " ".join(headers.values()),
)
def test_pages_of_other_origins_are_refused(server, headers, pixels, png):
    assert server.post("/predict", ("a.png", png(pixels[0])), headers=headers).status_code == 403
    assert server.get("/model", headers=headers).status_code == 403


def test_its_own_page_and_links_to_it_are_let_through(server, pixels, png):
    own = {"Origin": server.address, "Sec-Fetch-Site": "same-origin"}
    assert server.post("/predict", ("a.png", png(pixels[0])), headers=own).status_code == 200
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert server.get("/", headers=link).status_code == 200
    assert server.post("/predict", ("a.png", png(pixels[0])), headers=link).status_code == 403


def test_every_response_has_the_headers(server, pixels, png):
    replies = [server.get(path) for path in ("/", "/page.js", "/style.css", "/model", "/api", "/none")]
    replies += [server.post("/predict", ("a.png", png(pixels[0]))), server.post("/predict", ("a.png", b"x"))]
    replies.append(server.get("/", headers={"Host": "evil.example"}))
    for reply in replies:
        assert {name: reply.headers[name] for name in HEADERS} == HEADERS
        assert "Server" not in reply.headers
        assert "Access-Control-Allow-Origin" not in reply.headers
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_page_loads_from_its_own_server_alone(server):
    page = server.get("/").text
    assert not re.search(r"<style|style=|\bon[a-z]+=", page)
    assert page.count("<script") == page.count('<script defer src="/')
    for path in (part.partition('"')[0] for part in page.split('src="')[1:]):
        assert server.get(path).status_code == 200
