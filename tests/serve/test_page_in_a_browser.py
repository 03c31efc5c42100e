"""The page in headless Chromium: drop, answers, a correction, downloads, explanations (`make test-browser`)."""

import base64
import contextlib
import csv

import numpy as np
import pytest
from PIL import Image

import bloodcell_jax as bc
from bloodcell_jax.evaluate.chosen_images import review_order

pytestmark = [
    pytest.mark.browser,
    # Playwright's loop and its pipes end after the test.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
HOSTILE = "<img src=x onerror=alert(1)>.png"
TRANSFER = """(files) => {
  const transfer = new DataTransfer();
  for (const [name, content] of files) {
    transfer.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name));
  }
  return transfer;
}"""


def is_fault(message):
    """Return whether a line of the console is a fault; Chromium also writes one for status 429, which is none."""
    return message.type == "error" and "429" not in message.text


@pytest.fixture
def open_page(chromium, server):
    """Return a function that opens the page when it is ready, and fails at the end if anything went wrong in it."""
    with contextlib.ExitStack() as contexts:
        faults = []

        def open_page(viewport=DESKTOP, path="/", **options):
            context = contexts.enter_context(
                contextlib.closing(chromium.new_context(viewport=viewport, accept_downloads=True, **options))
            )
            page = context.new_page()
            page.on("console", lambda message: faults.append(message.text) if is_fault(message) else None)
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("dialog", lambda dialog: dialog.accept())
            local = (server.address, "blob:", "data:")
            page.on("request", lambda asked: None if asked.url.startswith(local) else faults.append(asked.url))
            page.goto(server.address + path)
            if path == "/":
                page.wait_for_selector("body[data-ready]")
            return page

        yield open_page
        assert not faults


@pytest.fixture(scope="module")
def slide(pixels, png, zipped):
    """Return a zip of 40 images, one of them with a hostile name, and of what is none."""
    images = {f"a/{number:02}.png": png(image) for number, image in enumerate(pixels[:38])}
    images |= {f"a/{HOSTILE}": png(pixels[38]), "a/wide.png": png(np.tile(pixels[39], (1, 2, 1)))}
    return zipped(images | {"a/broken.png": b"no image", "notes.txt": b"x"})


def drop(page, *files):
    transfer = page.evaluate_handle(TRANSFER, [[name, base64.b64encode(data).decode()] for name, data in files])
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})


def wait_for_cells(page, count):
    page.wait_for_selector(f'#shown:text-is("{count} of {count} cells")')
    page.wait_for_selector("#bar", state="hidden")


def saved(page, button, name, folder):
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    assert download.value.suggested_filename == name
    download.value.save_as(folder / name)
    with (folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_zip_is_dropped_corrected_and_saved_as_a_manifest(open_page, server, slide, tmp_path):
    page = open_page()
    drop(page, ("slide.zip", slide))
    wait_for_cells(page, 40)
    assert page.locator("#unreadable summary").inner_text().endswith(": 1 image")
    assert ".txt: 1" in page.locator("#warnings").inner_text()
    cells = page.locator("#cells .cell")
    names = cells.locator(".file").all_inner_texts()
    answers = saved(page, "Save answers.csv", "answers.csv", tmp_path)
    assert [row["file"] for row in answers] == sorted(row["file"] for row in answers)
    order = review_order(
        np.array([float(row["confidence"]) for row in answers]), np.array([float(row["ood_score"]) for row in answers])
    )
    assert names == [answers[i]["file"] for i in order], "the most doubtful first"
    save = page.get_by_role("button", name="Save corrections.csv")
    assert save.is_disabled()
    right, wrong, no_cell = (cells.nth(i) for i in range(3))
    predicted = [cell.locator(".name").inner_text() for cell in (right, wrong)]
    other = next(name for name in ("red", "green") if name != predicted[1])
    right.get_by_role("checkbox").check()
    wrong.get_by_role("combobox").select_option(label=other)
    no_cell.get_by_role("combobox").select_option(label="not a cell, leave it out")
    assert page.locator("#judged").inner_text() == "3 of 40 cells judged, 1 of them left out"
    rows = saved(page, "Save corrections.csv", "corrections.csv", tmp_path)
    assert {row["file"]: (row["label"], row["predicted"]) for row in rows} == {
        names[0]: (predicted[0], predicted[0]),
        names[1]: (other, predicted[1]),
    }
    (tmp_path / "slide.zip").write_bytes(slide)
    manifest = f"csv:{tmp_path / 'corrections.csv'}"
    data = bc.load_source(manifest, image_size=32, class_names=("red", "green", "blue"))
    assert {id: data.class_names[label] for id, label in zip(data.ids, data.labels, strict=True)} == {
        row["file"]: row["label"] for row in rows
    }


def test_a_click_explains_a_cell(open_page, slide, server):
    page = open_page()
    drop(page, ("slide.zip", slide))
    wait_for_cells(page, 40)
    page.locator(".cell", has_text="wide.png").locator(".open").click()
    dialog = page.get_by_role("dialog")
    page.wait_for_selector("#details .maps:not([hidden])")
    page.wait_for_selector("#details .neighbors figure:nth-child(3)")
    assert "64 × 32 pixels" in dialog.locator("figcaption").first.inner_text()
    assert dialog.locator("#whole i").is_visible(), "what the model looks at is marked"
    assert dialog.locator(".answers li").count() == 3
    assert "gree with occlusion" in dialog.locator("#agreement").inner_text()
    broken = "[...document.images].filter((i) => i.src && (!i.complete || !i.naturalWidth)).length"
    assert page.evaluate(broken) == 0
    dialog.get_by_role("button", name="Close").click()
    assert not dialog.is_visible()


def test_files_of_one_name_and_what_is_dropped_twice_are_said(open_page, pixels, png):
    page = open_page()
    drop(page, ("1.png", png(pixels[0])), ("2.png", png(pixels[1])), ("note.txt", b"no image"))
    wait_for_cells(page, 2)
    drop(page, ("1.png", png(pixels[0])), ("3.png", png(pixels[2])))
    wait_for_cells(page, 3)
    assert "1.png: is on this page already" in page.locator("#warnings").inner_text()
    page.locator("#unreadable summary").click()
    assert "note.txt" in page.locator("#unreadable ul").inner_text()
    page.get_by_role("button", name="Remove all").click()
    assert page.locator("#results").is_hidden()
    drop(page, ("1.png", png(pixels[0])))
    wait_for_cells(page, 1)


def test_a_folder_is_chosen_and_what_is_unknown_is_filtered(open_page, pixels, tmp_path):
    folder = tmp_path / "slides"
    (folder / "a").mkdir(parents=True)
    for number, image in enumerate(pixels[:5]):
        Image.fromarray(image).save(folder / "a" / f"{number}.png")
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[::2] = 255
    Image.fromarray(stripes).save(folder / "stripes.png")
    (folder / "table.csv").write_text("x")
    (folder / ".DS_Store").write_text("x")
    page = open_page()
    page.locator("#folder").set_input_files(folder)
    wait_for_cells(page, 6)
    assert ".csv: 1" in page.locator("#warnings").inner_text()
    page.locator("#filter").select_option("unknown")
    assert "slides/stripes.png" in page.locator("#cells .file").all_inner_texts()
    unknown = page.locator("#cells .cell")
    assert all(unknown.nth(i).get_by_text("not a cell I know").is_visible() for i in range(unknown.count()))
    page.locator("#filter").select_option("all")
    page.locator("#order").select_option("given")
    assert page.locator("#cells .file").first.inner_text() == "slides/a/0.png"


def test_a_busy_server_is_asked_again(open_page, server, pixels, png, monkeypatch):
    page = open_page()
    with monkeypatch.context() as patch:
        patch.setattr(server.api._admission, "waiting", 10_000)
        drop(page, ("1.png", png(pixels[0])))
        page.wait_for_selector('#progress:has-text("Waiting: 10,000 images wait")')
    wait_for_cells(page, 1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone(open_page, slide, scheme):
    page = open_page(PHONE, color_scheme=scheme)
    drop(page, ("slide.zip", slide))
    wait_for_cells(page, 40)
    wide = "[...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1)"
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert page.evaluate(f"{wide}.map((e) => e.outerHTML.slice(0, 80))") == []
    (red, *_) = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (red < 64) == (scheme == "dark")
    page.locator(".open").first.click()
    page.wait_for_selector("#details .neighbors figure:nth-child(3)")
    page.wait_for_selector("#details .maps:not([hidden])")
    assert page.evaluate(f"{wide}.map((e) => e.outerHTML.slice(0, 80))") == []


def test_the_page_of_the_api_has_no_script_and_fits_a_phone(open_page):
    page = open_page(PHONE, "/api")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert page.locator("script").count() == 0
    assert page.get_by_role("heading", name="POST /predict").is_visible()
