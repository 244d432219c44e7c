"""Takes docs/images/docs_home.png, a picture of the documentation's first page in a headless Chromium.

Builds the site first (`make site`). The browser gets no network: a page that asked for any would show it here.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "build" / "site"
PICTURE = ROOT / "docs" / "images" / "docs_home.png"
SIZE = {"width": 1280, "height": 800}


def main() -> None:
    """Opens the first page and saves what it shows."""
    from playwright.sync_api import sync_playwright

    from rollwright.envs.web.chromium.processes import find_browser

    if not (SITE / "index.html").exists():
        raise SystemExit("build/site is not there; run: make site")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(viewport=SIZE, offline=True, color_scheme="light")
        page = context.new_page()
        page.goto((SITE / "index.html").as_uri())
        page.screenshot(path=str(PICTURE))
        browser.close()
    print(f"wrote {PICTURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
