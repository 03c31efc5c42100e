"""The pages of a run, an evaluation and a comparison in headless Chromium (`make test-browser`).

They fit a phone, sort, enlarge, print, and work without scripts.
"""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax import cli
from bloodcell_jax.data.dataset import Dataset, index_ids
from bloodcell_jax.evaluate.answers import Answers
from bloodcell_jax.evaluate.outputs import write_split
from bloodcell_jax.report import write_report
from bloodcell_jax.workdir import Workdir

pytestmark = [
    pytest.mark.browser,
    # Playwright's loop and its pipes end after the test.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

PHONE, DESKTOP, A4 = ({"width": width, "height": 900} for width in (390, 1200, 688))
KINDS = ("basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil", "platelet")
PAGES = ("run", "evaluation", "comparison", "eight classes")


def sections(split):
    """The headings of a page in the reader's order; `split` is what its answers are about."""
    return [
        *("What this model is for, and what not", "How good it is", "Where it fails"),
        *(f"What the model looks at on {split}", "When it says “I don't know”"),
        *("How it was trained", "Configuration, and how to do it again"),
    ]


@pytest.fixture(scope="module")
def cards(trained, cells, tmp_path_factory):
    """Return the paths of the pages of a run, its evaluation elsewhere, a comparison, and 8 classes of thousands."""
    folder = tmp_path_factory.mktemp("cards")
    run, other = folder / "run", folder / "other"
    for copy in (run, other):
        shutil.copytree(trained, copy)
    lab = folder / "lab"
    with np.load(cells) as arrays:
        for number, (image, label) in enumerate(zip(arrays["images"], arrays["labels"], strict=True)):
            # Every third label is wrong, so that there are errors to show.
            name = ("red", "green", "blue")[(label + (number % 3 == 0)) % 3]
            path = lab / name / f"patient{number % 7}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    found = ["--group_regex=(patient.)_.*", f"--output={folder / 'elsewhere'}"]
    assert cli.main(["bloodcell", "evaluate", f"--workdir={run}", f"--source=folder:{lab}", *found]) == 0
    assert cli.main(["bloodcell", "report", f"--workdir={run}"]) == 0
    compared = folder / "compared.html"
    assert cli.main(["bloodcell", "report", "--compare", str(run), str(other), f"--output={compared}"]) == 0
    return {
        "run": run / "report" / "index.html",
        "evaluation": folder / "elsewhere" / "index.html",
        "comparison": compared,
        "eight classes": _eight_classes(folder / "eight"),
    }


def _eight_classes(path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, 20_000).astype(np.int32)
    probabilities = rng.dirichlet(np.ones(8), len(labels)) + 2 * np.eye(8)[labels] * (rng.random((20_000, 1)) < 0.5)
    images, groups = np.zeros((20_000, 4, 4, 3), np.uint8), tuple(f"patient {i % 50}" for i in range(20_000))
    dataset = Dataset(images, labels, KINDS, index_ids(20_000), "folder:x", groups=groups)
    answers = Answers(probabilities / probabilities.sum(axis=1, keepdims=True))
    run = Workdir(path)
    indices = np.arange(len(labels))
    write_split(run.evaluation("test"), dataset, indices, answers, step=1, calibration=None, holds_val=False)
    return write_report(path)


def outside(page):
    """Return what lies right of the window, and boxes whose content is cut or scrolls sideways."""
    beyond = "[...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1)"
    cut = "[...document.querySelectorAll('.wide, pre, td, figure')].filter((e) => e.scrollWidth > e.clientWidth + 1)"
    return page.evaluate(
        f"[...{beyond}, ...{cut}].filter((e) => !e.closest('svg')).map((e) => e.outerHTML.slice(0, 90))"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_and_loads(cards, open_page, images_without_pixels, name, viewport, scheme):
    page = open_page(cards[name], viewport, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((details) => (details.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    assert outside(page) == []
    assert images_without_pixels(page) == 0
    (red, *_) = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (red < 64) == (scheme == "dark")


def test_the_matrix_of_8_classes_is_readable_whole_on_a_phone(cards, open_page):
    page = open_page(cards["eight classes"], PHONE)
    cells = page.locator(".confusion td")
    assert cells.count() == 64
    smallest = page.evaluate(
        "Math.min(...[...document.querySelectorAll('.confusion :is(td, th)')]"
        ".map((e) => parseFloat(getComputedStyle(e).fontSize)))"
    )
    assert smallest >= 11
    assert "immature granulocyte (ig)" in page.locator(".confusion thead").inner_text()


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_tables_sort_by_mouse_and_keyboard(cards, open_page, viewport):
    page = open_page(cards["eight classes"], viewport)
    table = page.locator("#scores table.sortable").first
    values = lambda: [float(text.split()[0]) for text in table.locator("tbody td:nth-child(2)").all_inner_texts()]  # noqa: E731
    head = table.locator("thead th").nth(1)
    assert head.get_attribute("aria-sort") is None
    before = values()
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert values() == sorted(before) != before
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert values() == sorted(before, reverse=True)
    table.get_by_role("button", name="Class on test").click()
    assert head.get_attribute("aria-sort") is None
    names = table.locator("tbody th").all_inner_texts()
    assert names == sorted(names)
    assert len(names) == 8


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_images_enlarge(cards, open_page, viewport):
    page = open_page(cards["evaluation"], viewport)
    image = page.locator(".gallery img").first
    small = image.bounding_box()["width"]
    image.click()
    dialog = page.get_by_role("dialog")
    box = dialog.locator("img").bounding_box()
    assert box["width"] > 1.5 * small
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= viewport["width"]
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    assert "predicted" in dialog.inner_text()
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    page.locator("button.enlarge").nth(1).focus()
    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Close").click()
    assert not dialog.is_visible()


def test_a_page_says_the_same_without_scripts(cards, open_page, images_without_pixels):
    page = open_page(cards["run"], PHONE, java_script_enabled=False)
    assert page.locator("h2").all_inner_texts() == sections("test")
    assert page.locator("button").count() == 0
    with_scripts = open_page(cards["run"], PHONE)
    assert images_without_pixels(with_scripts) == 0
    assert page.locator("img").count() == with_scripts.locator("img").count() > 0


@pytest.mark.parametrize(("name", "split"), [("run", "test"), ("evaluation", "lab")])
def test_the_sections_are_in_the_reader_s_order_on_paper_too(cards, open_page, name, split):
    page = open_page(cards[name], color_scheme="dark")
    assert page.locator("h2").all_inner_texts() == sections(split)
    page.emulate_media(media="print")
    page.set_viewport_size(A4)  # less its margins at 96 pixels an inch
    assert outside(page) == []
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    # The bins of confidence are opened, and config.json is left out.
    assert page.get_by_text("Confidence above").bounding_box()["height"] > 0
    assert not page.locator("details.screen").is_visible()
    content = page.pdf(prefer_css_page_size=True, outline=True, tagged=True)
    boxes = {tuple(map(float, box.split())) for box in re.findall(rb"/MediaBox \[([^]]*)\]", content)}
    assert [pytest.approx(box, abs=1) for box in boxes] == [(0, 0, 595.3, 841.9)]  # 210 x 297 mm in points
    titles = [_text_of(title) for title in re.findall(rb"/Title\s*(\((?:\\.|[^\\)])*\)|<[0-9A-Fa-f]*>)", content)]
    assert [title for title in titles if title in sections(split)] == sections(split)


def _text_of(title):
    """Return the text of a string of a PDF, which is UTF-16 in hexadecimal or Latin."""
    if title.startswith(b"<"):
        return bytes.fromhex(title[1:-1].decode()).decode("utf-16")
    plain = re.sub(rb"\\(.)", rb"\1", title[1:-1])
    return plain.decode("utf-16" if plain.startswith(b"\xfe\xff") else "latin-1")
