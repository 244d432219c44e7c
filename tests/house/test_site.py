"""The documentation site: links are bent to it, nothing is loaded from a network, written pages are not stale."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from rollwright.envs.web.chromium.processes import find_browser

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def script(name: str) -> ModuleType:
    """A file of scripts/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site() -> ModuleType:
    return script("build_site")


# --- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](metrics.md)", "[a](metrics.md)"),
        ("[a](methods/grpo.md#gigpos-anchors)", "[a](methods/grpo.md#gigpos-anchors)"),
        ("[a](../benchmarks/results/demo.md)", "[a](results/demo.md)"),
        ("[a](../benchmarks/results)", "[a](results/README.md)"),
        ("[a](../CHANGELOG.md)", "[a](changelog.md)"),
        ("[a](methods)", "[a](methods/README.md)"),
        ("[a](https://arxiv.org/abs/1) and [b](#here)", "[a](https://arxiv.org/abs/1) and [b](#here)"),
        ("```\n[a](../CHANGELOG.md)\n```\n[a](../CHANGELOG.md)", "```\n[a](../CHANGELOG.md)\n```\n[a](changelog.md)"),
    ],
)
def test_links_are_bent_to_the_site(site: ModuleType, text: str, expected: str) -> None:
    assert site.rewrite(text, DOCS / "demo.md", set()) == expected


def test_a_file_outside_becomes_a_download(site: ModuleType) -> None:
    wanted: set[Path] = set()
    assert site.rewrite("[a](../recipes/ppo.py)", DOCS / "demo.md", wanted) == "[a](files/recipes/ppo.py)"
    assert wanted == {ROOT / "recipes" / "ppo.py"}


def test_a_dead_link_stops_the_build(site: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"docs/demo\.md.*nowhere\.md"):
        site.rewrite("[a](nowhere.md)", DOCS / "demo.md", set())


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_every_link_of_a_page_leads_somewhere(site: ModuleType, page: Path) -> None:
    site.rewrite(page.read_text(encoding="utf-8"), page, set())


def test_every_room_has_its_page(site: ModuleType) -> None:
    rooms = {file.parent.name for file in (ROOT / "src" / "rollwright").glob("*/__init__.py")}
    assert set(site.rooms()) == rooms


# --- what a browser loads --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('<script src="https://cdn.example/a.js"></script>', ["https://cdn.example/a.js"]),
        ('<img alt="x" src="//host.example/a.png">', ["//host.example/a.png"]),
        ('<link rel="stylesheet" href="https://fonts.example/css">', ["https://fonts.example/css"]),
        ('<link href="https://fonts.example" rel="preconnect">', ["https://fonts.example"]),
        ("@font-face { src: url('https://fonts.example/a.woff2') }", ["https://fonts.example/a.woff2"]),
        ('<a href="https://arxiv.org/abs/2402.03300">GRPO</a>', []),
        ('<link rel="canonical" href="https://docs.example/"><img src="_images/a.svg">', []),
        ("url(data:image/svg+xml;base64,AAAA) url(../static/a.woff2)", []),
    ],
)
def test_what_would_be_loaded_from_another_host_is_found(site: ModuleType, text: str, found: list[str]) -> None:
    assert site.outside(text) == found


@pytest.mark.slow
@pytest.mark.browser
def test_the_built_site_opens_without_a_network(tmp_path: Path) -> None:
    """Built without the Python API, which `make site` builds in CI."""
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "scripts/build_site.py", "--no-api", "--to", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        for name in ("index.html", "methods/README.html", "configuration.html", "search.html"):
            page.goto((tmp_path / name).as_uri())
        page.goto((tmp_path / "index.html").as_uri())
        page.locator(".sidebar-tree").get_by_role("link", name="Metrics").click()
        assert page.title().startswith("Metrics")
        browser.close()
    assert asked and all(url.startswith(("file:", "data:")) for url in asked)


# --- pages and pictures that scripts write ---------------------------------------------------------------------------


def test_the_configuration_page_is_what_the_code_says() -> None:
    written = script("write_docs")
    assert written.TARGET.read_text(encoding="utf-8") == written.page(), "run scripts/write_docs.py"


def test_the_figures_are_what_the_results_say() -> None:
    figures = script("draw_figures")
    for name, draw in figures.FIGURES.items():
        assert (figures.IMAGES / name).read_text(encoding="utf-8") == draw(), "run scripts/draw_figures.py"


def test_the_rows_of_the_demo_are_read() -> None:
    row = "| demo_seed_4 | 0.000 | 0.523 | 0.787 | +0.263 [+0.220, -0.307] | 20 | 16.4 | - |"
    assert script("draw_figures").demo_rows(row) == [("seed 4", 0.0, 0.523, 0.787, 0.22, -0.307)]
