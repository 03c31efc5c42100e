"""Assemble the pages of the documentation site: those of docs/, the README, and a reference that the code itself gives.

`make docs` runs this, and MkDocs on the result.
"""

import inspect
import os
import re
import shutil
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import app, flags

import bloodcell_jax
from bloodcell_jax.cli.command_line import VERBS, help_of
from bloodcell_jax.config import Config
from bloodcell_jax.config.option import leaves

_OUTPUT = flags.DEFINE_string("output", None, "folder to write; what it holds is replaced", required=True)

ROOT = Path(__file__).resolve().parents[1]
# Pages that stand elsewhere in the repository, and their place on the site.
ELSEWHERE = {
    "README.md": "start.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "bloodcell_jax/pretrained/README.md": "shipped_models.md",
}
# The target of a link or of an image, without an anchor.
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")


def pages() -> dict[Path, str]:
    """Return the place on the site of each page of the repository, notebooks among them."""
    own = {path: path.name for pattern in ("*.md", "*.ipynb") for path in sorted((ROOT / "docs").glob(pattern))}
    return own | {ROOT / name: place for name, place in ELSEWHERE.items()}


def verb_page(name: str) -> str:
    """Return the page of a verb: what `bloodcell VERB --help` prints. Fields and operations have pages of their own."""
    text, configuration, _ = help_of(VERBS[name]).partition("\nConfiguration:\n")
    page = f"# {name}\n\n{_as_code(text)}\n"
    if configuration:
        page += (
            "\n`--config=` takes a Python file or the name of a [shipped configuration](configurations.md), and\n"
            "`--config.FIELD=VALUE` overrides one of its [fields](fields.md).\n"
        )
    return page


def _as_code(text: str) -> str:
    """Return `text` as a block of code whose long lines are wrapped under their own beginnings."""
    lines = []
    for line in text.strip().splitlines():
        margin = " " * (len(line) - len(line.lstrip()))
        lines += textwrap.wrap(line, 96, subsequent_indent=margin, break_on_hyphens=False) or [""]
    return "\n".join(f"    {line}".rstrip() for line in lines)


def fields_page() -> str:
    """Return the page of every field of a configuration, in groups. Tables of three columns would not fit a phone."""
    lines, group = ["# Fields of a configuration", "", "Override a field with `--config.FIELD=VALUE`."], None
    for path, field, value in leaves(Config()):
        parent = path.rpartition(".")[0] or "config"
        if parent != group:
            lines += ["", f"## {parent}"]
            group = parent
        shown = "none" if value is None else value
        lines += ["", f"`{path}` = `{shown}`", "", f":   {field.metadata['help']}{_limits(field.metadata)}"]
    return "\n".join(lines) + "\n"


def _limits(metadata: Mapping[str, Any]) -> str:
    """Return the legal values of a field, in brackets."""
    if metadata["choices"]:
        return f" ({', '.join(map(str, metadata['choices']))})"
    ends = [
        f"at {end} {metadata[key]}"
        for key, end in (("minimum", "least"), ("maximum", "most"))
        if metadata[key] is not None
    ]
    return f" ({', '.join(ends)})" if ends else ""


def python_page() -> str:
    """Return the page of the public API: each signature with its docstring."""
    lines = ["# Python", "", "Everything here is imported from `bloodcell_jax`.", ""]
    for name in bloodcell_jax.__all__:
        value = getattr(bloodcell_jax, name)
        shown = f"{name}{inspect.signature(value)}" if callable(value) and name != "Config" else name
        lines += [f"## {name}", "", _as_code(f"{shown}\n\n{inspect.getdoc(value) or ''}"), ""]
    return "\n".join(lines)


def configurations_page() -> str:
    """Return the page of the shipped configurations: the docstring of each."""
    lines = ["# Configurations", "", "The docstring of a file says what it needs and what to expect.", ""]
    for path in sorted((ROOT / "configs").glob("[a-z]*.py")):
        docstring = inspect.cleandoc(path.read_text(encoding="utf-8").split('"""')[1])
        lines += [f"## {path.stem}", "", _as_code(docstring), ""]
    return "\n".join(lines)


def reference() -> dict[str, str]:
    """Return every page that the code gives, by its place on the site."""
    verbs = {f"reference/{name}.md": verb_page(name) for name in VERBS}
    table = ["# Command line", "", "| verb | what it does |", "|---|---|"]
    table += [f"| [{name}]({name}.md) | {verb.summary} |" for name, verb in VERBS.items()]
    return verbs | {
        "reference/command_line.md": "\n".join(table) + "\n",
        "reference/fields.md": fields_page(),
        "reference/configurations.md": configurations_page(),
        "reference/python.md": python_page(),
    }


def linked(page: Path, text: str, places: dict[Path, str], files: set[Path]) -> str:
    """Return `text` with its links as they are on the site, and add to `files` what else it links to.

    Files that are no pages, such as the ones of launch/, keep their path in the repository under `repository/`. A link
    to a page that the code gives stays as it is.
    """

    def place(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(page.parent / match[1]))
        if target in places:
            # MkDocs turns links into those of its pages, but not the ones inside a notebook.
            return places[target] if page.suffix == ".md" else str(Path(places[target]).with_suffix(".html"))
        if not target.is_file():
            return match[1]
        files.add(target)
        return _place_of_file(target)

    return LINK.sub(place, text)


def _place_of_file(path: Path) -> str:
    images = ROOT / "docs" / "images"
    if images in path.parents:
        return f"images/{path.name}"
    return f"repository/{path.relative_to(ROOT)}"


def write_site(output: Path) -> None:
    """Write all pages, and the files that they link to, to the folder `output`."""
    shutil.rmtree(output, ignore_errors=True)
    (output / "reference").mkdir(parents=True)
    places, files = pages(), set()
    for page, name in places.items():
        text = linked(page, page.read_text(encoding="utf-8"), places, files)
        (output / name).write_text(text, encoding="utf-8")
    for name, text in reference().items():
        (output / name).write_text(text, encoding="utf-8")
    for path in files:
        target = output / _place_of_file(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def main(argv: list[str]) -> None:
    del argv
    write_site(Path(_OUTPUT.value))


if __name__ == "__main__":
    app.run(main)
