"""What is asked of every page in headless Chromium."""

import contextlib

import pytest

DESKTOP = {"width": 1280, "height": 900}


@pytest.fixture
def open_page(chromium):
    """Return a function that opens a page, and fails at the end if anything went wrong in it."""
    with contextlib.ExitStack() as contexts:
        faults = []

        def open_page(path, viewport=DESKTOP, **options):
            context = contexts.enter_context(
                contextlib.closing(chromium.new_context(viewport=viewport, accept_downloads=True, **options))
            )
            page = context.new_page()
            page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("request", lambda request: faults.append(request.url) if request.url.startswith("http") else None)
            page.goto(path.as_uri())
            return page

        yield open_page
        assert not faults


@pytest.fixture
def images_without_pixels():
    """Return a function that counts the images of a page that did not load."""

    def images_without_pixels(page):
        return page.evaluate("[...document.images].filter((image) => !image.complete || !image.naturalWidth).length")

    return images_without_pixels
