"""The site names every verb, flag, field and public name, and its pages are in its table of contents."""

import re
import runpy
from pathlib import Path

import pytest
from absl import flags

import bloodcell_jax
from bloodcell_jax.cli.command_line import VERBS
from bloodcell_jax.config import Config
from bloodcell_jax.config.option import leaves

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages of the site, by their place."""
    own_flags = set(flags.FLAGS)
    write_site = runpy.run_path(str(ROOT / "docs" / "build_site.py"))["write_site"]
    for name in set(flags.FLAGS) - own_flags:
        delattr(flags.FLAGS, name)
    folder = tmp_path_factory.mktemp("site")
    write_site(folder)
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.suffix in (".md", ".ipynb")
    }


@pytest.mark.parametrize("name", VERBS)
def test_the_page_of_a_verb_has_all_its_flags(site, name):
    values = VERBS[name].create_flags()
    page = site[f"reference/{name}.md"]
    assert set(values) <= set(re.findall(r"^ +--(\w+)", page, re.MULTILINE))
    assert ("(fields.md)" in page) == VERBS[name].has_config


def test_every_field_stands_once_with_its_help(site):
    lines = site["reference/fields.md"].splitlines()
    for path, field, _ in leaves(Config()):
        (place,) = (i for i, line in enumerate(lines) if line.startswith(f"`{path}` = "))
        assert lines[place + 2].startswith(":   " + field.metadata["help"])


def test_every_public_name_has_its_heading(site):
    assert re.findall("^## (.*)", site["reference/python.md"], re.MULTILINE) == bloodcell_jax.__all__


def test_every_page_is_in_the_table_of_contents(site):
    contents = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    assert sorted(re.findall(r"[\w/]+\.(?:md|ipynb)", contents)) == sorted(
        page for page in site if "repository" not in page
    )


def test_links_between_pages_lead_to_pages(site):
    for place, text in site.items():
        if place.endswith(".ipynb"):
            # It is no page of Markdown whose links MkDocs turns into those of the site.
            assert not re.search(r"\]\([^)\s]+\.md", text)
            text = re.sub(r"(\]\([^)\s]+)\.html", r"\1.md", text)
        for target in re.findall(r"\]\(([^)#:\s]+\.(?:md|ipynb))", text):
            assert str(Path(place).parent / target) in site, f"{place}: {target}"


def test_python_in_the_documentation_parses(site):
    blocks = [block for text in site.values() for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]
    assert blocks
    for block in blocks:
        compile(block, "a page", "exec")
        for name in re.findall(r"\bbc\.(\w+)", block):
            assert name in bloodcell_jax.__all__
