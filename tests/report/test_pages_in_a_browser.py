"""The pages of predict in headless Chromium: they work, fit a phone, and print on A4 (`make test-browser`)."""

import re

import numpy as np
import pytest
from PIL import Image

import bloodcell_jax as bc
from bloodcell_jax import cli

pytestmark = [
    pytest.mark.browser,
    # Playwright's loop and its pipes end after the test.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

PHONE = {"width": 390, "height": 844}
HOSTILE = ("<b onclick=x>.png", '"><img src=x>.png', "=1+1.png")


@pytest.fixture(scope="module")
def pages(trained, cells, tmp_path_factory):
    """Return the folder of the pages; the images lie in it."""
    folder = tmp_path_factory.mktemp("pages")
    with np.load(cells) as arrays:
        images = arrays["images"]
    for number, image in enumerate(images):
        large = np.tile(image, (12, 12, 1))[:360, :360] if number % 7 == 0 else image
        name = HOSTILE[number] if number < len(HOSTILE) else f"{number:03} {'long name ' * 12}.png"
        path = folder / "images" / f"slide {number % 3}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(large).save(path, "png")
    command = ["bloodcell", "predict", f"--workdir={trained}", f"--input={folder / 'images'}", "--review=20"]
    assert cli.main([*command, f"--output={folder / 'cells.csv'}", f"--page={folder / 'cells.html'}"]) == 0
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["cells.html", "cells.review.html"])
def test_a_page_fits_a_phone_in_the_light_and_in_the_dark(pages, open_page, images_without_pixels, name, scheme):
    page = open_page(pages / name, PHONE, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    wide = "[...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1)"
    assert page.evaluate(f"{wide}.map((e) => e.outerHTML.slice(0, 80))") == []
    assert images_without_pixels(page) == 0
    (red, *_) = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (red < 64) == (scheme == "dark")


@pytest.mark.parametrize("name", ["cells.html", "cells.review.html"])
def test_a_page_prints_on_a4_with_dark_text_on_white(pages, open_page, name):
    page = open_page(pages / name, color_scheme="dark")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 688, "height": 1000})  # A4 less its margins at 96 pixels an inch
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    content = page.pdf(prefer_css_page_size=True)
    assert content.startswith(b"%PDF")
    boxes = {tuple(map(float, box.split())) for box in re.findall(rb"/MediaBox \[([^]]*)\]", content)}
    assert [pytest.approx(box, abs=1) for box in boxes] == [(0, 0, 595.3, 841.9)]  # 210 x 297 mm in points


def test_a_correction_is_kept_and_saved_as_a_manifest(pages, open_page):
    page = open_page(pages / "cells.review.html")
    cells = page.locator("#cells .cell")
    assert cells.count() == 20
    save = page.get_by_role("button", name="Save corrections.csv")
    assert save.is_disabled()
    right, wrong, no_cell = (cells.nth(i) for i in range(3))
    right.get_by_role("checkbox").check()
    other = next(name for name in ("red", "green") if name != wrong.get_attribute("data-predicted"))
    wrong.get_by_role("combobox").select_option(label=other)
    no_cell.get_by_role("combobox").select_option(label="not a cell, leave it out")
    assert page.locator("#judged").inner_text() == "3 of 20 cells judged, 1 of them left out"
    page.reload()
    assert page.locator("#judged").inner_text() == "3 of 20 cells judged, 1 of them left out"
    assert right.get_by_role("checkbox").is_checked()
    assert wrong.get_by_role("combobox").input_value() == f"class:{other}"
    with page.expect_download() as download:
        save.click()
    assert download.value.suggested_filename == "corrections.csv"
    corrections = pages / "corrections.csv"
    download.value.save_as(corrections)
    data = bc.load_source(f"csv:{corrections}", image_size=32, class_names=("red", "green", "blue"))
    said = {right.get_attribute("data-file"): right.get_attribute("data-predicted")}
    said[wrong.get_attribute("data-file")] = other
    assert {id: data.class_names[label] for id, label in zip(data.ids, data.labels, strict=True)} == said


def test_a_mistaken_answer_is_taken_back(pages, open_page):
    page = open_page(pages / "cells.review.html")
    page.on("dialog", lambda dialog: dialog.accept())
    cell = page.locator("#cells .cell").first
    tick, choice = cell.get_by_role("checkbox"), cell.get_by_role("combobox")
    tick.check()
    assert choice.input_value() == f"class:{cell.get_attribute('data-predicted')}"
    choice.select_option("leave out")
    assert not tick.is_checked()
    assert cell.locator("output").inner_text() == "✕ left out"
    assert page.get_by_role("button", name="Save corrections.csv").is_disabled()
    tick.check()
    tick.uncheck()
    assert choice.input_value() == ""
    tick.check()
    page.get_by_role("button", name="Start again").click()
    assert not tick.is_checked()
    page.reload()
    assert page.locator("#judged").inner_text() == "0 of 20 cells judged"


def test_all_cells_of_a_work_list_with_odd_names_are_saved(pages, trained, cells, open_page, tmp_path):
    with np.load(cells) as arrays:
        for name, image in zip(HOSTILE, arrays["images"], strict=False):
            Image.fromarray(image).save(tmp_path / name, "png")
    command = ["bloodcell", "predict", f"--workdir={trained}", f"--input={tmp_path}", "--review=9"]
    assert cli.main([*command, f"--output={tmp_path / 'cells.csv'}"]) == 0
    page = open_page(tmp_path / "cells.review.html")
    for tick in page.get_by_role("checkbox").all():
        tick.check()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save corrections.csv").click()
    download.value.save_as(tmp_path / "corrections.csv")
    assert '"./=1+1.png"' in (tmp_path / "corrections.csv").read_text(encoding="utf-8")
    data = bc.load_source(f"csv:{tmp_path / 'corrections.csv'}", image_size=32)
    assert set(data.ids) == set(HOSTILE)


def test_a_click_enlarges_a_picture_of_the_explanations_with_its_map(trained, open_page, images_without_pixels):
    page = open_page(trained / "report" / "index.html", PHONE)
    wide = "[...document.querySelectorAll('.explained *, .embedding *')]"
    wide = f"{wide}.filter((e) => e.getBoundingClientRect().right > {PHONE['width']})"
    assert page.evaluate(f"{wide}.map((e) => e.outerHTML.slice(0, 80))") == []
    assert images_without_pixels(page) == 0
    picture = page.locator(".gray").first
    picture.scroll_into_view_if_needed()
    small = picture.bounding_box()["width"]
    picture.click()
    enlarged = page.locator("dialog.enlarged .gray")
    assert enlarged.bounding_box()["width"] > 2 * small
    layers = [layer.bounding_box() for layer in enlarged.locator("img").all()]
    assert len(layers) == 2
    assert layers[0] == layers[1], "the map lies on the image"
    assert "occlusion of" in page.locator("dialog.enlarged").inner_text()
    page.get_by_role("button", name="Close").click()
    assert not page.locator("dialog.enlarged").is_visible()
    page.locator("button.enlarge:has(.gray)").first.focus()
    page.keyboard.press("Enter")
    assert enlarged.is_visible()
