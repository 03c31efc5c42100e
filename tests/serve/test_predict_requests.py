"""`POST /predict` says what the classifier and the verb `predict` say, in the form that its OpenAPI document says."""

import base64
import csv
import io
import json
import re

import jsonschema
import numpy as np
import pytest
from PIL import Image

import bloodcell_jax as bc
from bloodcell_jax import cli
from bloodcell_jax.data.geometry import View


@pytest.fixture(scope="module")
def conforms(server):
    """Return what checks a value by a schema of the server's own document."""
    document = server.get("/openapi.json").json()

    def conforms(value, name):
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(value)
        return value

    return conforms


def probabilities_of(images):
    return np.array([list(image["probabilities"].values()) for image in images])


def test_answers_are_those_of_the_classifier(server, pixels, png, conforms):
    files = [(f"slide/{number}.png", png(image)) for number, image in enumerate(pixels[:70])]
    reply = conforms(server.post("/predict", *files).json(), "Predictions")
    expected = server.served.classifier.answer(pixels[:70])
    assert [image["file"] for image in reply["images"]] == [name for name, _ in files]
    np.testing.assert_allclose(probabilities_of(reply["images"]), expected.probabilities, atol=2e-6)
    np.testing.assert_allclose([image["ood_score"] for image in reply["images"]], expected.ood_score, atol=1e-4)
    assert [image["known"] for image in reply["images"]] == (expected.ood_score <= 1).tolist()
    assert (reply["unreadable"], reply["ignored"]) == ([], {})


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream"])
def test_one_image_is_sent_as_it_is(server, pixels, png, kind):
    reply = server.post("/predict", data=png(pixels[5]), headers={"Content-Type": kind})
    expected = server.served.classifier.predict(pixels[5:6])
    np.testing.assert_allclose(probabilities_of(reply.json()["images"]), expected, atol=2e-6)


def test_a_zip_gives_lines_the_last_of_which_says_that_it_is_whole(server, pixels, png, zipped, conforms):
    images = {f"a/{number}.png": png(image) for number, image in enumerate(pixels[:200])}
    others = {"a/notes.txt": b"x", "__MACOSX/a/0.png": b"x", "a/broken.png": b"no image", "b/../../up.png": b"x"}
    content = zipped(images | others)
    headers = {"Accept": "application/x-ndjson"}
    reply = server.post("/predict", ("slide.zip", content), headers=headers)
    lines = [conforms(json.loads(line), "Line") for line in reply.text.splitlines()]
    assert lines[0] == {"total": len(images) + 2}
    assert lines[-1] == {"done": {"ignored": {".txt": 1}, "warnings": []}}
    answered = [line["image"] for line in lines if "image" in line]
    assert [image["file"] for image in answered] == [f"slide.zip/{name}" for name in images]
    np.testing.assert_allclose(
        probabilities_of(answered), server.served.classifier.predict(pixels[: len(images)]), atol=2e-6
    )
    unreadable = {line["unreadable"]["file"]: line["unreadable"]["reason"] for line in lines if "unreadable" in line}
    assert unreadable.keys() == {"slide.zip/a/broken.png", "slide.zip/b/../../up.png"}
    assert "out of the archive" in unreadable["slide.zip/b/../../up.png"]


def test_the_row_of_a_csv_is_that_of_predict(server, trained, pixels, png, tmp_path):
    names = ["1.png", "=1+1.png"]
    for name, image in zip(names, pixels, strict=False):
        (tmp_path / name).write_bytes(png(image))
    output = tmp_path / "cells.csv"
    command = ["bloodcell", "predict", f"--workdir={trained}", f"--input={tmp_path}", f"--output={output}"]
    assert cli.main(command) == 0
    with output.open(newline="") as file:
        header, *expected = csv.reader(file)
    files = [(name, (tmp_path / name).read_bytes()) for name in sorted(names)]
    reply = server.post("/predict?details=true", *files).json()["images"]
    assert server.get("/model").json()["csv_columns"] == header
    rows = {image["csv"][0]: image["csv"] for image in reply}
    for row in expected:
        assert rows[row[0]][:2] == row[:2]
        assert rows[row[0]][-1] == row[-1]
        np.testing.assert_allclose(np.array(rows[row[0]][2:-1], float), np.array(row[2:-1], float), atol=2e-5)
    assert {image["file"]: image["path"] for image in reply} == {"1.png": "1.png", "=1+1.png": "./=1+1.png"}


def test_details_show_what_the_model_saw_and_what_was_sent(server, pixels, png, conforms):
    wide = np.tile(pixels[0], (1, 2, 1))
    (image,) = conforms(server.post("/predict?details=true", ("a.png", png(wide))).json(), "Predictions")["images"]
    seen, shown = (
        np.array(Image.open(io.BytesIO(base64.b64decode(image[name].partition(",")[2])))) for name in ("seen", "shown")
    )
    np.testing.assert_array_equal(seen, wide[:, 16:48])
    assert shown.shape == wide.shape
    assert (image["width"], image["height"], image["side"]) == (64, 32, 32)
    again = server.post("/predict?cropped=true", ("seen.png", base64.b64decode(image["seen"].partition(",")[2])))
    assert again.json()["images"][0]["probabilities"] == pytest.approx(image["probabilities"], abs=2e-6)


def test_a_cropped_image_is_looked_at_whole(server, pixels, png):
    wide = np.tile(pixels[0], (1, 2, 1))
    reply = server.post("/predict?cropped=true", ("a.png", png(wide))).json()
    expected = server.served.classifier.predict([wide], cropped=True)
    np.testing.assert_allclose(probabilities_of(reply["images"]), expected, atol=2e-6)


def test_what_cannot_be_read_is_named(server, pixels, png, conforms):
    reply = server.post("/predict", ("a.png", png(pixels[0])), ("b.png", b"no image"), ("c.png", png(0 * pixels[0])))
    assert reply.status_code == 200
    unreadable = conforms(reply.json(), "Predictions")["unreadable"]
    assert [each["file"] for each in unreadable] == ["b.png", "c.png"]
    reply = server.post("/predict", ("b.png", b"no image"))
    assert reply.status_code == 422
    assert "b.png" in conforms(reply.json(), "Error")["error"]
    reply = server.post("/predict", ("b.png", b""))
    assert (reply.status_code, "empty" in reply.text) == (422, True)


def test_a_document_says_what_the_model_is(server, trained, conforms):
    model = conforms(server.get("/model").json(), "Model")
    classifier = bc.Classifier.from_workdir(trained)
    assert [each["name"] for each in model["classes"]] == list(classifier.class_names)
    assert model["temperature"] == classifier.calibration.temperature
    assert model["image_size"] == 32
    assert conforms(server.get("/health").json(), "Health") == {"status": "ready", "waiting": 0}
    page = server.get("/api")
    assert page.headers["Content-Type"].startswith("text/html")
    document = server.get("/openapi.json").json()
    assert all(f"{path}</h2>" in page.text for path in document["paths"])


def test_another_geometry_than_that_of_training_is_said(server, pixels, png, monkeypatch):
    monkeypatch.setattr(server.served.classifier, "view", View(32, 32))  # This run has learned from arrays.
    large = np.tile(pixels[0], (4, 4, 1))
    (warning,) = server.post("/predict", ("a.png", png(large))).json()["warnings"]
    assert re.search(r"\b128 pixels.*\b32 pixels", warning)


BAD_REQUESTS = [
    ("/predict?detail=true", "detail"),
    ("/predict?details=yes", "details=yes"),
    ("/predict?details=true&details=true", "twice"),
    ("/explain?class=purple", "purple"),
]


@pytest.mark.parametrize(("path", "named"), BAD_REQUESTS, ids=[named for _, named in BAD_REQUESTS])
def test_a_parameter_that_does_not_exist_is_refused(server, pixels, png, path, named):
    reply = server.post(path, ("a.png", png(pixels[0])))
    assert reply.status_code == 400
    assert named in reply.json()["error"]


BAD_NAMES = ["../../etc/passwd", "/etc/passwd", "..\\..\\windows", "a/../../b.png", "x" * 2_000]


@pytest.mark.parametrize("name", BAD_NAMES, ids=range(len(BAD_NAMES)))
def test_a_name_that_leads_elsewhere_is_refused(server, pixels, png, name):
    reply = server.post("/predict", (name, png(pixels[0])))
    assert reply.status_code == 400
    assert "name" in reply.json()["error"]


@pytest.mark.parametrize("name", ["ü/漢字.png", 'a"b.png', "a%b.png", "a b;c=d.png", "a'b.png"])
def test_a_name_comes_back_as_it_was_sent(server, pixels, png, name):
    # As browsers write it; the client of the tests would write another form, which forms may not have.
    written = name.replace('"', "%22").encode()
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="' + written + b'"\r\n\r\n'
    body += png(pixels[0]) + b"\r\n--x--\r\n"
    reply = server.post("/predict", data=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert reply.json()["images"][0]["file"] == name


def test_two_files_of_one_name_are_refused(server, pixels, png):
    reply = server.post("/predict", ("a.png", png(pixels[0])), ("a.png", png(pixels[1])))
    assert reply.status_code == 400
    assert "a.png" in reply.json()["error"]


BAD_BODIES = {
    "json": ({"Content-Type": "application/json"}, b"{}", 415),
    "no type": ({}, b"x", 415),
    "no boundary": ({"Content-Type": "multipart/form-data"}, b"x", 400),
    "not a form": ({"Content-Type": "multipart/form-data; boundary=x"}, b"something else", 400),
    "half a form": (
        {"Content-Type": "multipart/form-data; boundary=x"},
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\nabc',
        400,
    ),
    "a field": (
        {"Content-Type": "multipart/form-data; boundary=x"},
        b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nabc\r\n--x--\r\n',
        400,
    ),
    "no file": ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x--\r\n", 400),
    "nothing": ({"Content-Type": "image/png"}, b"", 400),
    "damaged zip": ({"Content-Type": "application/zip"}, b"PK\x03\x04" + bytes(100), 422),
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
def test_another_body_is_refused_with_one_line(server, conforms, body):
    headers, content, status = body
    reply = server.client.post(f"{server.address}/predict", data=content, headers=headers, timeout=60)
    assert reply.status_code == status, reply.text
    assert "\n" not in conforms(reply.json(), "Error")["error"]


def test_other_pages_and_methods_do_not_exist(server):
    for path, status in {"/page.py": 404, "/../setup.cfg": 404, "/predict": 405, "/static/%2e%2e/x": 404}.items():
        reply = server.get(path)
        assert reply.status_code == status
        assert reply.json()["error"]
