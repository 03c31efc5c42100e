"""Draw the picture of a report for the README: the numbers of a run on real cells, with synthetic cells as pictures.

pip install '.[browser]'
python docs/report_picture.py --workdir=runs/pbc --output=docs/images/report.jpg
"""

import base64
import io
import json
import shutil
import tempfile
from pathlib import Path

from absl import app, flags
from PIL import Image
from playwright.sync_api import Page, sync_playwright  # pyright: ignore[reportMissingImports]

from bloodcell_jax.data.synthetic import CLASS_NAMES, draw_cells
from bloodcell_jax.report import write_report

_WORKDIR = flags.DEFINE_string("workdir", None, "run whose numbers are shown", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "JPEG file to write", required=True)

WIDTH, HEIGHT, SCALE = 1180, 1500, 0.5
# What the picture shows from, one column each.
SECTIONS = ("#scores", "#failures", ".gallery")


def copy_without_pictures(workdir: Path, copy: Path) -> None:
    """Copy what a report is made from; every picture becomes a synthetic cell of the same class.

    Heat maps and nearest training images belong to real cells, so they are left out.
    """
    for name in ("config.json", "environment.json", "metrics.jsonl", "splits.json"):
        shutil.copy(workdir / name, copy)
    shutil.copytree(workdir / "eval", copy / "eval")
    images, labels = draw_cells(400, seed=1)
    of_class = {name: iter(images[labels == label]) for label, name in enumerate(CLASS_NAMES)}
    for path in copy.glob("eval/*/explained_cells.json"):
        path.unlink()
    for path in copy.glob("eval/*/most_wrong.json"):
        entries = json.loads(path.read_text())
        for number, entry in enumerate(entries):
            png = io.BytesIO()
            Image.fromarray(next(of_class[entry["label"]])).save(png, "png")
            entry |= {"png": base64.b64encode(png.getvalue()).decode(), "id": f"cell {number + 1}"}
        path.write_text(json.dumps(entries))


def photograph(page: Page, section: str) -> Image.Image:
    """Return what a window shows from a section on."""
    page.locator(section).scroll_into_view_if_needed()
    page.evaluate("section => document.querySelector(section).scrollIntoView()", section)
    return Image.open(io.BytesIO(page.screenshot()))


def main(_: list[str]) -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        copy_without_pictures(Path(_WORKDIR.value), Path(folder))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(write_report(Path(folder)).as_uri())
        shots = [photograph(page, section) for section in SECTIONS]
    sheet = Image.new("RGB", (WIDTH * len(shots), HEIGHT))
    for column, shot in enumerate(shots):
        sheet.paste(shot, (column * WIDTH, 0))
    sheet = sheet.resize((round(sheet.width * SCALE), round(sheet.height * SCALE)), Image.Resampling.LANCZOS)
    sheet.save(_OUTPUT.value, quality=85, optimize=True)


if __name__ == "__main__":
    app.run(main)
