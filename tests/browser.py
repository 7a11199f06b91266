"""Pages in a real browser, for the tests: headless Chromium, driven by playwright."""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")


@dataclasses.dataclass
class OpenPage:
    """A page that is open in the browser.

    Attributes:
        page: Playwright's handle.
        errors: What the console and the scripts complained about so far.
        requests: Addresses that the page has asked for so far, without itself and what it carries inside.
    """

    page: Page
    errors: list[str]
    requests: list[str]

    def assert_pictures_are_visible(self) -> None:
        """Check that each picture has been decoded, takes room, and has a text for those who don't see it."""
        pictures = self.page.locator("img").all()
        assert pictures, "there is no picture"
        for picture in pictures:
            picture.scroll_into_view_if_needed()
            assert picture.is_visible() and picture.evaluate("img => img.complete && img.naturalWidth > 0")
            box = picture.bounding_box()
            assert box["width"] > 100 and box["height"] > 50
            assert len(picture.get_attribute("alt") or "") > 10

    def assert_fits_its_width(self) -> None:
        """Check that the page as a whole need not be scrolled sideways."""
        width = self.page.viewport_size["width"]
        assert self.page.evaluate("document.documentElement.scrollWidth") <= width


@contextlib.contextmanager
def open_page(address: str | Path, width: int = 1200, height: int = 800) -> Iterator[OpenPage]:
    """Open a file or an address in a window of that many pixels."""
    url = address.resolve().as_uri() if isinstance(address, Path) else address
    with sync_playwright() as playwright:
        # Without a sandbox, which root and containers can't have.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": height})
        opened = OpenPage(page, [], [])
        page.on("console", lambda message: opened.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: opened.errors.append(str(error)))
        own = (url, "data:")
        page.on("request", lambda sent: None if sent.url.startswith(own) else opened.requests.append(sent.url))
        page.goto(url)
        yield opened
        browser.close()
