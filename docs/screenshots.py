"""Take the pictures of a report's page that the documentation shows.

python docs/screenshots.py reports/generated docs/images
"""  # noqa: INP001 - a script beside the pages that it serves

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Locator, Page, sync_playwright

PROTOCOL = "rooms"
VIEWS = {"light": (1440, 1000), "dark": (1440, 1000), "phone": (375, 812)}


def ready(page: Page, folder: Path) -> Locator:
    """Open the page at the protocol, with plots and viewer drawn."""
    page.goto((folder / "index.html").resolve().as_uri())
    page.locator("[data-role='to-protocol']", has_text=PROTOCOL).click()
    section = page.locator("section:not([hidden])")
    section.locator("[data-role='viewer']").scroll_into_view_if_needed()
    section.locator("[data-role='viewer'][data-drawn][data-sliced]").wait_for()
    for card in section.locator("[data-plot]").all():
        card.scroll_into_view_if_needed()
        card.locator(".main-svg, [data-role='nothing']:not([hidden])").first.wait_for()
    page.evaluate("scrollTo(0, 0)")
    return section


def take(folder: Path, to: Path) -> None:
    """Take all pictures.

    Args:
        folder: A report.
        to: Where the PNG files go.
    """
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        for name, (width, height) in VIEWS.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.emulate_media(color_scheme="dark" if name == "dark" else "light")
            section = ready(page, folder)
            page.screenshot(path=to / f"report-{name}.png")
            page.add_style_tag(content=".protocols { position: static; }")  # it would lie over the pictures
            if name != "phone":
                section.locator("[data-role='viewer']").screenshot(path=to / f"report-viewer-{name}.png")
                section.locator(".cards").screenshot(path=to / f"report-plots-{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(sys.argv[2]))
