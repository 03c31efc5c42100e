"""What a browser is sent: the files of the page, and the page of the API. Read once; no request names a file."""

from importlib import resources
from typing import Any

import jinja2

_HTML, _CSS, _JS = "text/html", "text/css", "text/javascript"
# Path -> the package and the file that it is, and its type.
_STATIC = {
    "/": ("bloodcell_jax.serve", "page.html", _HTML),
    "/style.css": ("bloodcell_jax.report", "style.css", _CSS),
    "/page.css": ("bloodcell_jax.serve", "page.css", _CSS),
    "/corrections.js": ("bloodcell_jax.report", "corrections.js", _JS),
    "/dropped_files.js": ("bloodcell_jax.serve", "dropped_files.js", _JS),
    "/requests.js": ("bloodcell_jax.serve", "requests.js", _JS),
    "/cell_details.js": ("bloodcell_jax.serve", "cell_details.js", _JS),
    "/page.js": ("bloodcell_jax.serve", "page.js", _JS),
}


def static_files() -> dict[str, tuple[bytes, str]]:
    """Return the content and the type of each file of the page, by its path."""
    return {
        path: (resources.files(package).joinpath(name).read_bytes(), kind)
        for path, (package, name, kind) in _STATIC.items()
    }


def api_page(document: dict[str, Any]) -> str:
    """Return the page of an OpenAPI document."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bloodcell_jax.serve", ""), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("api.html").render(document=document)
